/* gateway_record.c - what a record means to the edge: live, read back after a start, and read from
 * the store when somebody asks for what an old result refers to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <broker/gateway.h>

/* What an attempt names as refs; the caller's to free. */
static int result_refs(const struct record *record, struct block_id **ret_refs, size_t *ret_n)
{
    Wl__Result *result = wl__result__unpack(NULL, record->attempt.blob_size, record->attempt.blob);
    size_t n = result ? result->n_refs : 0;
    struct block_id *refs = reallocarray(*ret_refs, *ret_n + n + 1, sizeof *refs);

    if (refs) {
        for (size_t i = 0; i < n; i++)
            if (result->refs[i].len == sizeof *refs)
                memcpy(&refs[(*ret_n)++], result->refs[i].data, sizeof *refs);
        *ret_refs = refs;
    }
    wl__result__free_unpacked(result, NULL);
    return refs ? 0 : -ENOMEM;
}

/* What a job refers to is kept for as long as the job. */
static void keep_refs(struct gateway *gateway, const struct catalogue_job *entry,
                      const struct block_id *refs, size_t n_refs)
{
    if (vault_job_refs(gateway->with.vault, entry->studio, &entry->job, refs, n_refs) < 0)
        gateway_die("memory", -ENOMEM);
}

/* A failed attempt's too: its log is kept like a result. */
static void follow_result(struct gateway *gateway, const struct record *record)
{
    struct block_id *refs = NULL;
    size_t n = 0;

    if (!record->attempt.blob_size || !gateway->with.vault || gateway->ask.inlined)
        return;
    const struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &record->job);
    if (!entry)
        return;
    if (result_refs(record, &refs, &n) < 0)
        gateway_die("memory", -ENOMEM);
    if (n > 0)
        keep_refs(gateway, entry, refs, n);
    free(refs);
}

enum { HISTORY_ROWS = 512 }; /* of results, a turn of a vault thread */

struct history {
    uint64_t *after;
    struct block_id **refs;
    size_t *n;
};

static int history_row(void *user, const struct attempt_row *row)
{
    struct history *history = user;

    *history->after = row->sequence;
    return result_refs(&row->record, history->refs, history->n);
}

int gateway_history(void *user, const struct job_id *job, uint64_t *after,
                    struct block_id **ret_refs, size_t *ret_n)
{
    struct history history = {after, ret_refs, ret_n};

    return store_history(user, job, *after, HISTORY_ROWS, history_row, &history);
}

/* So that workers may read what the job (or its newest recipe) refers to. */
static void follow_refs(struct gateway *gateway, const struct catalogue_job *entry)
{
    const Wl__Submit *submit = entry->submit;
    struct block_id *refs = gateway_scratch(gateway, (submit->n_refs + 1) * sizeof *refs);

    if (!gateway->with.vault || submit->n_refs == 0)
        return; /* --check serves nobody */
    for (size_t i = 0; i < submit->n_refs; i++)
        if (submit->refs[i].len == sizeof refs[i])
            memcpy(&refs[i], submit->refs[i].data, sizeof refs[i]);
    keep_refs(gateway, entry, refs, submit->n_refs);
}

static int follow_edit(struct gateway *gateway, const struct record *record)
{
    struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &record->job);
    Wl__Edit *edit = wl__edit__unpack(NULL, record->edit.blob_size, record->edit.blob);
    bool refs = edit && edit->n_refs > 0;
    int r = entry && edit ? catalogue_edit(entry, edit) : -EBADMSG;

    wl__edit__free_unpacked(edit, NULL);
    if (r == 0 && refs)
        follow_refs(gateway, entry);
    if (gateway->with.journal)
        journal_cut(gateway->with.journal); /* whose leases have the old recipe */
    return r;
}

static int follow_job(struct gateway *gateway, const struct record *record)
{
    const struct job_spec *spec = record->submit.spec;
    struct catalogue_job *entry;
    int r = catalogue_add(&gateway->catalogue, &spec->job, spec->studio, spec->blob,
                          spec->blob_size, &entry);

    if (r < 0)
        return r;
    follow_refs(gateway, entry);
    uploads_end(&gateway->uploads, spec->studio, &spec->job);
    return 0;
}

void gateway_follow(struct gateway *gateway, const struct record *record)
{
    int r = 0;

    if (record->kind == RECORD_JOB)
        r = follow_job(gateway, record);
    else if (record->kind == RECORD_EDIT)
        r = follow_edit(gateway, record);
    else if (record->kind == RECORD_ATTEMPT)
        follow_result(gateway, record);
    else if (record->kind == RECORD_FORGET)
        gateway_follow_forget(gateway, record);
    if (r < 0)
        gateway_die("a submission as stored", r);
}

/* Never CHECKed into an abort by what a disk says. */
static int apply(struct gateway *gateway, const struct record *record)
{
    if (core_unfit(gateway->with.core, record))
        return -EBADMSG;
    core_apply(gateway->with.core, record);
    return 0;
}

static int recover_job(struct gateway *gateway, const struct record *record)
{
    struct record whole = *record;
    struct job_spec spec;
    Wl__Submit *submit;
    char why[256];
    int r;

    submit = wl__submit__unpack(NULL, record->submit.spec->blob_size, record->submit.spec->blob);
    if (!submit || submit->job.len != sizeof spec.job)
        r = -EBADMSG;
    else
        r = catalogue_spec(submit, record->submit.spec->studio, &spec, why, sizeof why);
    if (r == 0) {
        spec.job = record->submit.spec->job;
        spec.priority = record->submit.spec->priority;
        spec.name = record->submit.spec->name;
        spec.blob = record->submit.spec->blob;
        spec.blob_size = record->submit.spec->blob_size;
        whole.submit.spec = &spec;
        r = apply(gateway, &whole);
        if (r == 0)
            r = follow_job(gateway, &whole);
        if (r == 0 && gateway->with.vault)
            r = vault_job_history(gateway->with.vault, spec.studio, &spec.job);
        catalogue_spec_deinit(&spec);
    }
    wl__submit__free_unpacked(submit, NULL);
    return r > 0 ? -EBADMSG : r;
}

static int recover_edit(struct gateway *gateway, const struct record *record)
{
    struct record whole = *record;
    Wl__Edit *edit = wl__edit__unpack(NULL, record->edit.blob_size, record->edit.blob);
    struct space *spaces = NULL;
    char why[256];
    int r = edit ? catalogue_spaces(edit, &spaces, why, sizeof why) : -EBADMSG;

    if (r == 0) {
        whole.edit.what = edit->what;
        whole.edit.priority = edit->priority;
        whole.edit.max_workers = edit->max_workers;
        whole.edit.archived = edit->archived;
        whole.edit.spaces = spaces;
        whole.edit.n_spaces = edit->n_spaces;
        r = apply(gateway, &whole);
        if (r == 0)
            r = follow_edit(gateway, &whole);
        catalogue_spaces_free(spaces, edit->n_spaces);
    }
    wl__edit__free_unpacked(edit, NULL);
    return r > 0 ? -EBADMSG : r;
}

int gateway_recover(struct gateway *gateway, const struct record *record)
{
    int r = 0;

    if (record->kind == RECORD_JOB) {
        r = recover_job(gateway, record);
    } else if (record->kind == RECORD_EDIT) {
        r = recover_edit(gateway, record);
    } else {
        r = apply(gateway, record); /* attempts' refs: gateway_history */
    }
    gateway_scratch_free(gateway);
    return r;
}

static void write_record(struct gateway *gateway, const struct record *record)
{
    if (journal_record(gateway->with.journal, record) < 0)
        gateway_die("memory", -ENOMEM);
}

void gateway_step(struct gateway *gateway, struct event *event)
{
    struct journal *journal = gateway->with.journal;
    struct outbox *outbox = &gateway->outbox;
    size_t written = 0;

    event->now_ns = gateway->now_ns;
    event->wall_s = gateway->wall_s;
    event->unread = gateway->unread;
    event->cookie = gateway->cookie;
    core_step(gateway->with.core, event, outbox);
    for (size_t i = 0; i < outbox->n_records; i++)
        gateway_follow(gateway, &outbox->records[i]);

    for (size_t i = 0; i < outbox->n_effects; i++) {
        for (; written < outbox->effects_after[i]; written++)
            write_record(gateway, &outbox->records[written]);
        gateway->mark = journal_mark(journal);
        gateway_effect(gateway, &outbox->effects[i]);
    }
    for (; written < outbox->n_records; written++)
        write_record(gateway, &outbox->records[written]);
    outbox_clear(outbox);
    gateway_mark_forgotten(gateway);
    gateway->mark = journal_mark(journal);
    gateway_verdicts_say(gateway, false);
}
