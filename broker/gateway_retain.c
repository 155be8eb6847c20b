/* gateway_retain.c - what is delivered, and what goes when a job is forgotten.
 *
 * To whoever asks, the job is unknown as soon as the core has forgotten it; what it referred to is
 * let go of by the vault only when that is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

/* ---- delivered ---- */

/* A colleague's word does not count, unless it is meant to. */
static bool delivers(const struct ask *ask, const struct catalogue_job *entry)
{
    const Wl__Delivered *delivered = ask->envelope->delivered;

    return delivered->instead || gateway_submitted(entry, &ask->peer->key);
}

bool gateway_submitted(const struct catalogue_job *entry, const struct link_key *key)
{
    const ProtobufCBinaryData *submitter = &entry->submit->submitter;

    return submitter->len == sizeof key->bytes &&
           memcmp(submitter->data, key->bytes, sizeof key->bytes) == 0;
}

void gateway_on_delivered(struct gateway *gateway)
{
    const Wl__Delivered *delivered = gateway->ask.envelope->delivered;
    struct event event = {.kind = EVENT_DELIVERED};
    struct delivered_run *runs;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &delivered->job, &view);

    if (!entry)
        return;
    if (!delivers(&gateway->ask, entry)) {
        gateway_refuse(gateway, CODE_REFUSED, "the acknowledgement",
                       "the job was submitted with another key",
                       "westlight fetch --deliver says that its results are home all the same");
        return;
    }
    runs = gateway_scratch(gateway, (delivered->n_runs + 1) * sizeof *runs);
    for (size_t i = 0; i < delivered->n_runs; i++) {
        const Wl__DeliveredRun *run = delivered->runs[i];

        runs[i] = (struct delivered_run){{run->step, run->first, run->last}, run->floor};
    }
    event.delivered.studio = gateway_scope(gateway->ask.peer);
    event.delivered.job = entry->job;
    event.delivered.runs = runs;
    event.delivered.n_runs = delivered->n_runs;
    gateway_step(gateway, &event);
}

/* ---- forgotten ---- */

struct forgotten {
    struct list node;
    uint64_t mark; /* the batch that is to be durable first; 0: it is not known yet */
    struct studio_id studio;
    struct job_id job;
};

void gateway_follow_forget(struct gateway *gateway, const struct record *record)
{
    struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &record->job);
    struct forgotten *forgotten = calloc(1, sizeof *forgotten);

    if (!forgotten)
        gateway_die("memory", -ENOMEM);
    list_init(&forgotten->node);
    forgotten->studio = record->forget.studio;
    forgotten->job = record->job;
    list_push(&gateway->forgotten, &forgotten->node);
    if (!entry) /* recovered: the store has let go of it */
        return;
    log_info("forgotten", "job=%02x%02x%02x%02x name=\"%s\"", record->job.bytes[0],
             record->job.bytes[1], record->job.bytes[2], record->job.bytes[3], entry->submit->name);
    live_forget(&gateway->live, &record->job);
    catalogue_remove(&gateway->catalogue, &record->job);
}

void gateway_mark_forgotten(struct gateway *gateway)
{
    list_for_each (at, &gateway->forgotten) {
        struct forgotten *forgotten = list_entry(at, struct forgotten, node);

        if (forgotten->mark == 0)
            forgotten->mark = journal_mark(gateway->with.journal);
    }
}

void gateway_forgotten(struct gateway *gateway)
{
    list_for_each_safe (at, after, &gateway->forgotten) {
        struct forgotten *forgotten = list_entry(at, struct forgotten, node);

        if (forgotten->mark == 0 || !journal_durable(gateway->with.journal, forgotten->mark))
            return;
        vault_job_forget(gateway->with.vault, forgotten->studio, &forgotten->job);
        list_unlink(&forgotten->node);
        free(forgotten);
    }
}

void gateway_forgotten_drop(struct gateway *gateway)
{
    list_for_each_safe (at, after, &gateway->forgotten) {
        list_unlink(at);
        free(list_entry(at, struct forgotten, node));
    }
}

/* The last that its watchers hear of it. */
void gateway_notice_gone(struct gateway *gateway, struct watched *watched)
{
    struct job_id job = watched->job;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Notice notice = WL__NOTICE__INIT;

    notice.job = (ProtobufCBinaryData){sizeof job.bytes, job.bytes};
    notice.gone = true;
    envelope.body_case = WL__ENVELOPE__BODY_NOTICE;
    envelope.notice = &notice;
    while ((watched = watch_find(&gateway->watch, &job))) {
        struct connection *connection =
            list_entry(watched->watchers.next, struct watcher, in_job)->connection;

        (void)gateway_say(gateway, &connection->route, &envelope, NULL);
        watch_stop(&gateway->watch, &job, connection);
    }
}
