/* recover.c - every record, in the order of its sequence.
 *
 * Each table is read in order of its own sequence; the smallest of the rows in hand is the
 * next record. Notes leave gaps in the sequence: one that was replaced is gone. So do jobs that are
 * gone; what is still to be deleted of them is passed over.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/recover.h>
#include <broker/store/unpack.h>

enum source {
    RESULTS,
    JOBS,
    REPORTS,
    CHANGES,
    EDITS,
    NOTES,
    REQUESTS,
    TENDS,
    DELIVERED,
    FORGOTTEN,
    CLOCKS,
    SOURCES,
    GONE = SOURCES,
    DONE,
    TEXTS
};

static const char *const texts[TEXTS] = {
    [RESULTS] = "SELECT " PACK_COLUMNS " FROM results ORDER BY sequence",
    [JOBS] = "SELECT sequence, submitted, job, studio, first_name, first_priority, blob, checksum "
             "FROM jobs"
             " ORDER BY sequence",
    [REPORTS] = "SELECT " DATABASE_ATTEMPT_COLUMNS " FROM reports ORDER BY sequence",
    [CHANGES] =
        "SELECT sequence, wall_s, job, kind, step, first, last, floor, state, reason, checksum"
        " FROM changes ORDER BY sequence",
    [EDITS] = "SELECT sequence, wall_s, job, blob, checksum FROM edits ORDER BY sequence",
    [NOTES] = "SELECT sequence, wall_s, job, step, task, floor, epoch, attempt, worker, gpu_mask, "
              "checksum"
              " FROM notes ORDER BY sequence",
    [REQUESTS] = "SELECT sequence, wall_s, job, studio, request, digest, code, tasks, checksum"
                 " FROM requests ORDER BY sequence",
    [TENDS] = "SELECT sequence, wall_s, worker, kind, text, until_wall_s, checksum FROM tends"
              " ORDER BY sequence",
    [DELIVERED] = "SELECT sequence, wall_s, job, step, first, last, floor, checksum FROM delivered"
                  " ORDER BY sequence",
    [FORGOTTEN] = "SELECT sequence, wall_s, job, studio, stage, number, checksum FROM forgotten"
                  " ORDER BY sequence",
    [CLOCKS] = "SELECT sequence, wall_s, ahead_s, checksum FROM clocks ORDER BY sequence",
    [GONE] = "SELECT job, number FROM forgotten WHERE stage = 0 ORDER BY job",
    [DONE] = "SELECT number, step, page, floor, tasks, checksum FROM done",
};

static void read_common(sqlite3_stmt *row, enum record_kind kind, struct record *ret_record)
{
    *ret_record = (struct record){.kind = kind};
    ret_record->sequence = (uint64_t)sqlite3_column_int64(row, 0);
    ret_record->wall_s = sqlite3_column_int64(row, 1);
    database_column_bytes(row, 2, ret_record->job.bytes, sizeof ret_record->job.bytes);
}

static void read_job(sqlite3_stmt *row, struct record *ret_record, struct job_spec *ret_spec)
{
    read_common(row, RECORD_JOB, ret_record);
    *ret_spec = (struct job_spec){
        .job = ret_record->job,
        .studio.value = (uint32_t)sqlite3_column_int64(row, 3),
        .name = (const char *)sqlite3_column_text(row, 4),
        .priority = (int32_t)sqlite3_column_int64(row, 5),
        .blob = sqlite3_column_blob(row, 6),
        .blob_size = (size_t)sqlite3_column_bytes(row, 6),
    };
    ret_record->submit.spec = ret_spec;
}

static void read_change(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, RECORD_CHANGE, ret_record);
    ret_record->change.change = (enum change_kind)sqlite3_column_int64(row, 3);
    ret_record->change.range.step = (uint32_t)sqlite3_column_int64(row, 4);
    ret_record->change.range.first = (uint64_t)sqlite3_column_int64(row, 5);
    ret_record->change.range.last = (uint64_t)sqlite3_column_int64(row, 6);
    ret_record->change.floor = (uint32_t)sqlite3_column_int64(row, 7);
    ret_record->change.state = (enum job_state)sqlite3_column_int64(row, 8);
    ret_record->change.reason = (enum pause_reason)sqlite3_column_int64(row, 9);
}

static void read_edit(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, RECORD_EDIT, ret_record);
    ret_record->edit.blob = sqlite3_column_blob(row, 3);
    ret_record->edit.blob_size = (size_t)sqlite3_column_bytes(row, 3);
}

static void read_note(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, RECORD_NOTE, ret_record);
    struct lease_id *lease = &ret_record->note.lease;
    lease->job = ret_record->job;
    lease->task.step = (uint32_t)sqlite3_column_int64(row, 3);
    lease->task.index = (uint64_t)sqlite3_column_int64(row, 4);
    lease->floor = (uint32_t)sqlite3_column_int64(row, 5);
    lease->epoch = (uint32_t)sqlite3_column_int64(row, 6);
    lease->attempt = (uint64_t)sqlite3_column_int64(row, 7);
    database_column_bytes(row, 8, ret_record->note.worker.bytes, sizeof(struct worker_key));
    ret_record->note.gpu_mask = (uint32_t)sqlite3_column_int64(row, 9);
}

static void read_request(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, RECORD_REQUEST, ret_record);
    ret_record->request.studio.value = (uint32_t)sqlite3_column_int64(row, 3);
    database_column_bytes(row, 4, ret_record->request.request.bytes, sizeof(struct request_id));
    database_column_bytes(row, 5, ret_record->request.digest.bytes, sizeof(struct request_digest));
    ret_record->request.code = (enum code)sqlite3_column_int64(row, 6);
    ret_record->request.tasks = (uint64_t)sqlite3_column_int64(row, 7);
}

static void read_tend(sqlite3_stmt *row, struct record *ret_record)
{
    *ret_record = (struct record){.kind = RECORD_TEND};
    ret_record->sequence = (uint64_t)sqlite3_column_int64(row, 0);
    ret_record->wall_s = sqlite3_column_int64(row, 1);
    database_column_bytes(row, 2, ret_record->tend.worker.bytes, sizeof(struct worker_key));
    ret_record->tend.tend = (enum tend_kind)sqlite3_column_int64(row, 3);
    ret_record->tend.text = (const char *)sqlite3_column_text(row, 4);
    ret_record->tend.until_wall_s = sqlite3_column_int64(row, 5);
}

static void read_delivered(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, RECORD_DELIVERED, ret_record);
    ret_record->delivered.range.step = (uint32_t)sqlite3_column_int64(row, 3);
    ret_record->delivered.range.first = (uint64_t)sqlite3_column_int64(row, 4);
    ret_record->delivered.range.last = (uint64_t)sqlite3_column_int64(row, 5);
    ret_record->delivered.floor = (uint32_t)sqlite3_column_int64(row, 6);
}

static void read_forgotten(sqlite3_stmt *row, struct record *ret_record)
{
    read_common(row, sqlite3_column_int64(row, 4) == 2 ? RECORD_UNASK : RECORD_FORGET, ret_record);
    ret_record->forget.studio.value = (uint32_t)sqlite3_column_int64(row, 3);
}

static void read_clock(sqlite3_stmt *row, struct record *ret_record)
{
    *ret_record = (struct record){.kind = RECORD_CLOCK};
    ret_record->sequence = (uint64_t)sqlite3_column_int64(row, 0);
    ret_record->wall_s = sqlite3_column_int64(row, 1);
    ret_record->clock.ahead_s = sqlite3_column_int64(row, 2);
}

/* Jobs of which rows are left: ids and numbers, each in order. */
struct gone {
    struct job_id *jobs;
    int64_t *numbers;
    size_t n, capacity;
};

static int job_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct job_id));
}

static int number_order(const void *a, const void *b)
{
    int64_t one = *(const int64_t *)a, other = *(const int64_t *)b;
    return one < other ? -1 : one > other;
}

static int gone_grow(struct gone *gone)
{
    size_t capacity = 2 * gone->capacity + 16;
    struct job_id *jobs = reallocarray(gone->jobs, capacity, sizeof *jobs);

    gone->jobs = jobs ? jobs : gone->jobs;
    int64_t *numbers = reallocarray(gone->numbers, capacity, sizeof *numbers);
    gone->numbers = numbers ? numbers : gone->numbers;
    if (!jobs || !numbers)
        return SQLITE_NOMEM;
    gone->capacity = capacity;
    return SQLITE_OK;
}

static int gone_read(sqlite3_stmt *row, struct gone *gone)
{
    int code;

    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        if (gone->n == gone->capacity && gone_grow(gone) != SQLITE_OK)
            return SQLITE_NOMEM;
        database_column_bytes(row, 0, gone->jobs[gone->n].bytes, sizeof(struct job_id));
        gone->numbers[gone->n++] = sqlite3_column_int64(row, 1);
    }
    if (gone->n)
        qsort(gone->numbers, gone->n, sizeof *gone->numbers, number_order);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static void gone_deinit(struct gone *gone)
{
    free(gone->jobs);
    free(gone->numbers);
}

static bool gone_number(const struct gone *gone, int64_t number)
{
    return gone->n && bsearch(&number, gone->numbers, gone->n, sizeof number, number_order);
}

static bool passed_over(const struct gone *gone, sqlite3_stmt *row, enum source source)
{
    struct job_id job;

    if (gone->n == 0)
        return false;
    if (source == REPORTS)
        return gone_number(gone, database_number(row));
    if (source != CHANGES && source != EDITS && source != DELIVERED)
        return false;
    database_column_bytes(row, 2, job.bytes, sizeof job.bytes);
    return bsearch(&job, gone->jobs, gone->n, sizeof job, job_order) != NULL;
}

static const char *const tables[SOURCES] = {
    [RESULTS] = "results",     [JOBS] = "jobs",     [REPORTS] = "reports",
    [CHANGES] = "changes",     [EDITS] = "edits",   [NOTES] = "notes",
    [REQUESTS] = "requests",   [TENDS] = "tends",   [DELIVERED] = "delivered",
    [FORGOTTEN] = "forgotten", [CLOCKS] = "clocks",
};

struct recovery {
    struct database *database;
    store_each *each;
    recover_bad *bad;
    void *user;
    struct gone gone;
    struct unpack unpack;
    struct record result; /* the next of table results, and its job's number */
    int64_t number;
    uint64_t next[SOURCES]; /* sequences; UINT64_MAX: the table is at its end */
    uint64_t done;          /* what table done must say, as a sum over all results */
    bool damaged;
};

/* Told to `bad` and passed over, or the end. */
static int damage(struct recovery *recovery)
{
    recovery->damaged = true;
    if (!recovery->bad)
        return STORE_E_CORRUPT;
    recovery->bad(recovery->user, recovery->database->why);
    return 0;
}

static int give(struct recovery *recovery, enum source source)
{
    sqlite3_stmt *row = recovery->database->statements[source];
    struct record record;
    struct job_spec spec;

    if (source == RESULTS)
        record = recovery->result;
    else if (source == JOBS)
        read_job(row, &record, &spec);
    else if (source == REPORTS)
        database_attempt(row, &record);
    else if (source == CHANGES)
        read_change(row, &record);
    else if (source == EDITS)
        read_edit(row, &record);
    else if (source == NOTES)
        read_note(row, &record);
    else if (source == REQUESTS)
        read_request(row, &record);
    else if (source == TENDS)
        read_tend(row, &record);
    else if (source == DELIVERED)
        read_delivered(row, &record);
    else if (source == FORGOTTEN)
        read_forgotten(row, &record);
    else
        read_clock(row, &record);
    if (source != RESULTS && database_verify(recovery->database, row, tables[source], &record))
        return damage(recovery);
    if (record.kind == RECORD_ATTEMPT && record.attempt.class == CLASS_OK) {
        const struct lease_id *lease = &record.attempt.lease;
        int64_t number = source == RESULTS ? recovery->number : database_number(row);

        recovery->done += checksum_task(number, lease->task.step, lease->floor, lease->task.index);
    }
    return recovery->each(recovery->user, &record);
}

static int advance(struct recovery *recovery, enum source source)
{
    sqlite3_stmt *row = recovery->database->statements[source];
    bool over;
    int code = source == RESULTS
                   ? unpack_next(&recovery->unpack, &recovery->result, &recovery->number, &over)
                   : sqlite3_step(row);

    if (code == SQLITE_ROW)
        recovery->next[source] =
            source == RESULTS ? recovery->result.sequence : (uint64_t)sqlite3_column_int64(row, 0);
    else if (code == SQLITE_DONE)
        recovery->next[source] = UINT64_MAX;
    else
        return code;
    return SQLITE_OK;
}

/* Table done refuses a second result of a floor: so it must say what the results say. */
static int check_done(struct recovery *recovery)
{
    sqlite3_stmt *row = recovery->database->statements[DONE];
    bool whole = true;
    int code;

    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        uint64_t sum = (uint64_t)sqlite3_column_int64(row, 5);

        if (gone_number(&recovery->gone, sqlite3_column_int64(row, 0)))
            continue;
        whole &=
            sum == floors_sum(sqlite3_column_int64(row, 0), (uint32_t)sqlite3_column_int64(row, 1),
                              (uint64_t)sqlite3_column_int64(row, 2),
                              (uint32_t)sqlite3_column_int64(row, 3),
                              (uint64_t)sqlite3_column_int64(row, 4));
        recovery->done -= sum;
    }
    if (code != SQLITE_DONE)
        return database_error(recovery->database, code, "state.db: table done");
    if ((whole && recovery->done == 0) || recovery->damaged)
        return 0;
    snprintf(recovery->database->why, sizeof recovery->database->why,
             "state.db: table done: damaged: " DATABASE_NEXT);
    return damage(recovery);
}

static void unpack_bad(void *user, const char *why)
{
    struct recovery *recovery = user;

    (void)why;
    (void)damage(recovery);
}

static bool unpack_gone(void *user, int64_t number)
{
    const struct recovery *recovery = user;

    return gone_number(&recovery->gone, number);
}

/* Every record in turn, from the tables' first rows on. */
static int merge(struct recovery *recovery)
{
    uint64_t *next = recovery->next;
    int code = SQLITE_OK, r = 0;

    for (size_t i = 0; i < SOURCES && code == SQLITE_OK; i++)
        code = advance(recovery, (enum source)i);
    while (code == SQLITE_OK) {
        size_t first = 0;
        for (size_t i = 1; i < SOURCES; i++)
            if (next[i] < next[first])
                first = i;
        if (next[first] == UINT64_MAX)
            return check_done(recovery);
        if (!passed_over(&recovery->gone, recovery->database->statements[first],
                         (enum source)first))
            r = give(recovery, (enum source)first);
        if (r)
            return r;
        code = advance(recovery, (enum source)first);
    }
    if (recovery->unpack.damaged)
        return STORE_E_CORRUPT;
    return database_error(recovery->database, code, "state.db: reading what was committed");
}

int recover(struct database *database, store_each *each, recover_bad *bad, void *user)
{
    struct recovery recovery = {.database = database, .each = each, .bad = bad, .user = user};

    int r = database_prepare(database, texts, TEXTS);
    if (r)
        return r;
    recovery.unpack = (struct unpack){.database = database,
                                      .rows = database->statements[RESULTS],
                                      .bad = bad ? unpack_bad : NULL,
                                      .gone = unpack_gone,
                                      .user = &recovery};
    /* One snapshot of them all. */
    int code = database_run_text(database, "BEGIN");
    if (code == SQLITE_OK)
        code = gone_read(database->statements[GONE], &recovery.gone);
    if (code == SQLITE_OK)
        code = unpack_begin(&recovery.unpack);
    r = code == SQLITE_OK ? merge(&recovery)
                          : database_error(database, code, "state.db: reading what was committed");
    unpack_end(&recovery.unpack);
    gone_deinit(&recovery.gone);
    return r;
}
