/* recover.c - every record, in the order of its sequence.
 *
 * Each table is read in order of its own sequence; the smallest of the rows in hand is the
 * next record. Notes leave gaps in the sequence: one that was replaced is gone. So do jobs that are
 * gone; what is still to be deleted of them is passed over.
 */
#include <stdlib.h>
#include <string.h>
#include <broker/store/recover.h>

enum source {
    JOBS,
    ATTEMPTS,
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
    TEXTS
};

static const char *const texts[TEXTS] = {
    [JOBS] = "SELECT sequence, submitted, job, studio, first_name, first_priority, blob, checksum "
             "FROM jobs"
             " ORDER BY sequence",
    [ATTEMPTS] = "SELECT " DATABASE_ATTEMPT_COLUMNS " FROM attempts ORDER BY sequence",
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
    [FORGOTTEN] =
        "SELECT sequence, wall_s, job, studio, stage, checksum FROM forgotten ORDER BY sequence",
    [CLOCKS] = "SELECT sequence, wall_s, ahead_s, checksum FROM clocks ORDER BY sequence",
    [GONE] = "SELECT job FROM forgotten WHERE stage = 0 ORDER BY job",
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

/* Jobs of which rows are left, in order. */
struct gone {
    struct job_id *jobs;
    size_t n, capacity;
};

static int job_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct job_id));
}

static int gone_read(sqlite3_stmt *row, struct gone *gone)
{
    int code;

    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        if (gone->n == gone->capacity) {
            size_t capacity = 2 * gone->capacity + 16;
            struct job_id *jobs = reallocarray(gone->jobs, capacity, sizeof *jobs);
            if (!jobs)
                return SQLITE_NOMEM;
            gone->jobs = jobs;
            gone->capacity = capacity;
        }
        database_column_bytes(row, 0, gone->jobs[gone->n++].bytes, sizeof(struct job_id));
    }
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static void gone_deinit(struct gone *gone)
{
    free(gone->jobs);
}

static bool passed_over(const struct gone *gone, sqlite3_stmt *row, enum source source)
{
    struct job_id job;

    if (gone->n == 0 ||
        (source != ATTEMPTS && source != CHANGES && source != EDITS && source != DELIVERED))
        return false;
    database_column_bytes(row, 2, job.bytes, sizeof job.bytes);
    return bsearch(&job, gone->jobs, gone->n, sizeof job, job_order) != NULL;
}

static const char *const tables[SOURCES] = {
    [JOBS] = "jobs",     [ATTEMPTS] = "attempts",   [CHANGES] = "changes",
    [EDITS] = "edits",   [NOTES] = "notes",         [REQUESTS] = "requests",
    [TENDS] = "tends",   [DELIVERED] = "delivered", [FORGOTTEN] = "forgotten",
    [CLOCKS] = "clocks",
};

static int give(struct database *database, enum source source, store_each *each, recover_bad *bad,
                void *user)
{
    sqlite3_stmt *row = database->statements[source];
    struct record record;
    struct job_spec spec;

    if (source == JOBS)
        read_job(row, &record, &spec);
    else if (source == ATTEMPTS)
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
    int r = database_verify(database, row, tables[source], &record);
    if (r && bad) {
        bad(user, database->why);
        return 0;
    }
    return r ? r : each(user, &record);
}

/* *ret_sequence is UINT64_MAX once the table is at its end. */
static int advance(sqlite3_stmt *row, uint64_t *ret_sequence)
{
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW)
        *ret_sequence = (uint64_t)sqlite3_column_int64(row, 0);
    else if (code == SQLITE_DONE)
        *ret_sequence = UINT64_MAX;
    else
        return code;
    return SQLITE_OK;
}

int recover(struct database *database, store_each *each, recover_bad *bad, void *user)
{
    _cleanup_(gone_deinit) struct gone gone = {0};
    uint64_t next[SOURCES];
    int code = SQLITE_OK;

    int r = database_prepare(database, texts, TEXTS);
    if (r)
        return r;
    /* One snapshot of them all. */
    code = database_run_text(database, "BEGIN");
    if (code == SQLITE_OK)
        code = gone_read(database->statements[GONE], &gone);
    for (size_t i = 0; i < SOURCES && code == SQLITE_OK; i++)
        code = advance(database->statements[i], &next[i]);
    while (code == SQLITE_OK) {
        size_t first = 0;
        for (size_t i = 1; i < SOURCES; i++)
            if (next[i] < next[first])
                first = i;
        if (next[first] == UINT64_MAX)
            return 0;
        if (!passed_over(&gone, database->statements[first], (enum source)first))
            r = give(database, (enum source)first, each, bad, user);
        if (r)
            return r;
        code = advance(database->statements[first], &next[first]);
    }
    return database_error(database, code, "state.db: reading what was committed");
}
