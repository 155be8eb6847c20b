/* writer.c - records to rows.
 *
 * A record is one row (an attempt also removes its task's note), so a transaction is a loop over
 * records with one prepared statement each. A job that is forgotten is a row as well: what was
 * written of it before goes later, a slice at a time, so that no commit waits for a million rows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/writer.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>

enum statement {
    BEGIN,
    COMMIT,
    EPOCH,
    JOB,
    ATTEMPT,
    NOTE_DELETE,
    CHANGE,
    JOB_STATE,
    JOB_NAME,
    JOB_PRIORITY,
    EDIT,
    NOTE,
    REQUEST,
    TEND,
    DELIVERED,
    FORGET,
    FORGET_JOB,
    FORGET_NOTES,
    UNASK_REQUESTS,
    UNASK_FORGOTTEN,
    TICKED,
    CLOCK,
    TRIM_FIRST,
    TRIM_ATTEMPTS,
    TRIM_CHANGES,
    TRIM_EDITS,
    TRIM_DELIVERED,
    TRIM_DONE,
    STATEMENTS,
};

#define TRIM(table)                                                                                \
    "DELETE FROM " table " WHERE sequence IN"                                                      \
    " (SELECT sequence FROM " table " WHERE job = ? LIMIT ?)"

static const char *const texts[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [EPOCH] = "SELECT value FROM meta WHERE name = 'epoch' AND inverse = ~value",
    [JOB] = "INSERT INTO jobs(sequence, submitted, job, studio, first_name, name, first_priority,"
            " priority, state, reason, blob, checksum)"
            " VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6, ?6, 0, 0, ?7, ?8)",
    [ATTEMPT] = "INSERT INTO attempts(" DATABASE_ATTEMPT_COLUMNS
                ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [NOTE_DELETE] = "DELETE FROM notes WHERE job = ? AND step = ? AND task = ?",
    [CHANGE] = "INSERT INTO changes(sequence, wall_s, job, kind, step, first, last, floor, state,"
               " reason, checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [JOB_STATE] = "UPDATE jobs SET state = ?, reason = ? WHERE job = ?",
    [JOB_NAME] = "UPDATE jobs SET name = ? WHERE job = ?",
    [JOB_PRIORITY] = "UPDATE jobs SET priority = ? WHERE job = ?",
    [EDIT] = "INSERT INTO edits(sequence, wall_s, job, blob, checksum) VALUES(?, ?, ?, ?, ?)",
    [NOTE] = "INSERT OR REPLACE INTO notes(sequence, wall_s, job, step, task, floor, epoch,"
             " attempt, worker, gpu_mask, checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [REQUEST] = "INSERT INTO requests(sequence, wall_s, studio, request, digest, code, tasks, job,"
                " checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [TEND] = "INSERT INTO tends(sequence, wall_s, worker, kind, text, until_wall_s, checksum)"
             " VALUES(?, ?, ?, ?, ?, ?, ?)",
    [DELIVERED] = "INSERT INTO delivered(sequence, wall_s, job, step, first, last, floor,"
                  " checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
    [FORGET] = "INSERT INTO forgotten(sequence, wall_s, job, studio, stage, checksum)"
               " VALUES(?, ?, ?, ?, ?, ?)",
    [FORGET_JOB] = "DELETE FROM jobs WHERE job = ?",
    [FORGET_NOTES] = "DELETE FROM notes WHERE job = ?",
    [UNASK_REQUESTS] = "DELETE FROM requests WHERE job = ?",
    [UNASK_FORGOTTEN] = "DELETE FROM forgotten WHERE job = ? OR stage = 2",
    [TICKED] = "DELETE FROM clocks WHERE ahead_s = 0",
    [CLOCK] = "INSERT INTO clocks(sequence, wall_s, ahead_s, checksum) VALUES(?, ?, ?, ?)",
    [TRIM_FIRST] = "SELECT job FROM forgotten WHERE stage = 0 ORDER BY sequence LIMIT 1",
    [TRIM_ATTEMPTS] = TRIM("attempts"),
    [TRIM_CHANGES] = TRIM("changes"),
    [TRIM_EDITS] = TRIM("edits"),
    [TRIM_DELIVERED] = TRIM("delivered"),
    [TRIM_DONE] = "UPDATE forgotten SET stage = 1 WHERE job = ? AND stage = 0",
};

/* ---- batches ---- */

static size_t record_extra_bytes(const struct record *record)
{
    if (record->kind == RECORD_JOB) {
        const struct job_spec *spec = record->submit.spec;
        /* The spec comes first in its piece and wants its alignment: pieces are rounded up. */
        return sizeof *spec + (spec->name ? strlen(spec->name) : 0) + 1 + spec->blob_size;
    }
    if (record->kind == RECORD_TEND)
        return strlen(record->tend.text) + 1;
    if (record->kind == RECORD_EDIT)
        return (record->edit.name ? strlen(record->edit.name) + 1 : 0) + record->edit.blob_size;
    return record->kind == RECORD_ATTEMPT ? record->attempt.blob_size : 0;
}

static size_t round_up(size_t size)
{
    return (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
}

static void copy_into(struct record *record, char *piece)
{
    if (record->kind == RECORD_ATTEMPT) {
        if (record->attempt.blob_size)
            memcpy(piece, record->attempt.blob, record->attempt.blob_size);
        record->attempt.blob = piece;
    } else if (record->kind == RECORD_TEND) {
        record->tend.text = memcpy(piece, record->tend.text, strlen(record->tend.text) + 1);
    } else if (record->kind == RECORD_EDIT) {
        size_t name_size = record->edit.name ? strlen(record->edit.name) + 1 : 0;

        if (name_size)
            record->edit.name = memcpy(piece, record->edit.name, name_size);
        if (record->edit.blob_size)
            memcpy(piece + name_size, record->edit.blob, record->edit.blob_size);
        record->edit.blob = piece + name_size;
        record->edit.spaces = NULL;
        record->edit.n_spaces = 0;
    } else if (record->kind == RECORD_JOB) {
        struct job_spec *spec = (struct job_spec *)piece;
        const char *name = record->submit.spec->name ? record->submit.spec->name : "";
        char *name_copy = piece + sizeof *spec;
        char *blob_copy = name_copy + strlen(name) + 1;

        *spec = *record->submit.spec;
        spec->steps = NULL;
        spec->n_steps = 0;
        memcpy(name_copy, name, strlen(name) + 1);
        if (spec->blob_size)
            memcpy(blob_copy, spec->blob, spec->blob_size);
        spec->name = name_copy;
        spec->blob = blob_copy;
        record->submit.spec = spec;
    }
}

struct batch *batch_new(uint64_t number, const struct record *records, size_t n_records)
{
    size_t head = round_up(sizeof(struct batch) + n_records * sizeof *records);
    size_t size = head;
    for (size_t i = 0; i < n_records; i++)
        size += round_up(record_extra_bytes(&records[i]));

    struct batch *batch = malloc(size);
    if (!batch)
        return NULL;
    *batch = (struct batch){.number = number, .bytes = size, .n_records = n_records};
    if (n_records)
        memcpy(batch->records, records, n_records * sizeof *records);
    char *piece = (char *)batch + head;
    for (size_t i = 0; i < n_records; i++) {
        copy_into(&batch->records[i], piece);
        piece += round_up(record_extra_bytes(&records[i]));
    }
    return batch;
}

/* ---- rows ---- */

static int write_job(sqlite3_stmt **statements, const struct record *record)
{
    const struct job_spec *spec = record->submit.spec;
    int code = database_bind(statements[JOB], "iibitibi", (int64_t)record->sequence,
                             (int64_t)record->wall_s, spec->job.bytes, sizeof spec->job.bytes,
                             (int64_t)spec->studio.value, spec->name, (int64_t)spec->priority,
                             spec->blob, spec->blob_size, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[JOB]) : code;
}

static int write_attempt(sqlite3_stmt **statements, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    const struct usage *usage = &record->attempt.usage;
    int64_t step = lease->task.step, task = (int64_t)lease->task.index;
    int code = database_bind(statements[NOTE_DELETE], "bii", lease->job.bytes,
                             sizeof lease->job.bytes, step, task);
    if (code == SQLITE_OK)
        code = database_finish(statements[NOTE_DELETE]);
    if (code == SQLITE_OK)
        code = database_bind(
            statements[ATTEMPT], "iibiiiiibiiiiiiibii", (int64_t)record->sequence,
            (int64_t)record->wall_s, lease->job.bytes, sizeof lease->job.bytes, step, task,
            (int64_t)lease->floor, (int64_t)lease->epoch, (int64_t)lease->attempt,
            record->attempt.worker.bytes, sizeof record->attempt.worker.bytes,
            (int64_t)record->attempt.class, (int64_t)usage->wall_ns, (int64_t)usage->cpu_ns,
            (int64_t)usage->memory_bytes, (int64_t)usage->bytes_in, (int64_t)usage->bytes_out,
            (int64_t)usage->card_ns, record->attempt.blob, record->attempt.blob_size,
            (int64_t)record->attempt.warned, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[ATTEMPT]) : code;
}

static int write_change(sqlite3_stmt **statements, const struct record *record)
{
    const struct job_id *job = &record->job;
    int64_t state = record->change.state, reason = record->change.reason;
    int code =
        database_bind(statements[CHANGE], "iibiiiiiiii", (int64_t)record->sequence,
                      (int64_t)record->wall_s, job->bytes, sizeof job->bytes,
                      (int64_t)record->change.change, (int64_t)record->change.range.step,
                      (int64_t)record->change.range.first, (int64_t)record->change.range.last,
                      (int64_t)record->change.floor, state, reason, checksum_record(record));
    if (code == SQLITE_OK)
        code = database_finish(statements[CHANGE]);
    if (code != SQLITE_OK)
        return code;
    if (record->change.change == CHANGE_STATE) {
        code = database_bind(statements[JOB_STATE], "iib", state, reason, job->bytes,
                             sizeof job->bytes);
        return code == SQLITE_OK ? database_finish(statements[JOB_STATE]) : code;
    }
    return SQLITE_OK;
}

static int write_edit(sqlite3_stmt **statements, const struct record *record)
{
    const struct job_id *job = &record->job;
    int64_t priority = record->edit.priority;
    int code = database_bind(statements[EDIT], "iibbi", (int64_t)record->sequence,
                             (int64_t)record->wall_s, job->bytes, sizeof job->bytes,
                             record->edit.blob, record->edit.blob_size, checksum_record(record));

    if (code == SQLITE_OK)
        code = database_finish(statements[EDIT]);
    if (code == SQLITE_OK && record->edit.name) {
        code = database_bind(statements[JOB_NAME], "tb", record->edit.name, job->bytes,
                             sizeof job->bytes);
        code = code == SQLITE_OK ? database_finish(statements[JOB_NAME]) : code;
    }
    if (code == SQLITE_OK && (record->edit.what & EDIT_PRIORITY)) {
        code =
            database_bind(statements[JOB_PRIORITY], "ib", priority, job->bytes, sizeof job->bytes);
        code = code == SQLITE_OK ? database_finish(statements[JOB_PRIORITY]) : code;
    }
    return code;
}

static int write_note(sqlite3_stmt **statements, const struct record *record)
{
    const struct lease_id *lease = &record->note.lease;
    int code = database_bind(statements[NOTE], "iibiiiiibii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, lease->job.bytes, sizeof lease->job.bytes,
                             (int64_t)lease->task.step, (int64_t)lease->task.index,
                             (int64_t)lease->floor, (int64_t)lease->epoch, (int64_t)lease->attempt,
                             record->note.worker.bytes, sizeof record->note.worker.bytes,
                             (int64_t)record->note.gpu_mask, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[NOTE]) : code;
}

static int write_request(sqlite3_stmt **statements, const struct record *record)
{
    int code = database_bind(statements[REQUEST], "iiibbiibi", (int64_t)record->sequence,
                             (int64_t)record->wall_s, (int64_t)record->request.studio.value,
                             record->request.request.bytes, sizeof record->request.request.bytes,
                             record->request.digest.bytes, sizeof record->request.digest.bytes,
                             (int64_t)record->request.code, (int64_t)record->request.tasks,
                             record->job.bytes, sizeof record->job.bytes, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[REQUEST]) : code;
}

static int write_tend(sqlite3_stmt **statements, const struct record *record)
{
    int code = database_bind(
        statements[TEND], "iibitii", (int64_t)record->sequence, (int64_t)record->wall_s,
        record->tend.worker.bytes, sizeof record->tend.worker.bytes, (int64_t)record->tend.tend,
        record->tend.text, (int64_t)record->tend.until_wall_s, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[TEND]) : code;
}

static int write_delivered(sqlite3_stmt **statements, const struct record *record)
{
    const struct delivered_run *run = &record->delivered;
    int code =
        database_bind(statements[DELIVERED], "iibiiiii", (int64_t)record->sequence,
                      (int64_t)record->wall_s, record->job.bytes, sizeof record->job.bytes,
                      (int64_t)run->range.step, (int64_t)run->range.first, (int64_t)run->range.last,
                      (int64_t)run->floor, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[DELIVERED]) : code;
}

static int delete_of(sqlite3_stmt *statement, const struct job_id *job)
{
    int code = database_bind(statement, "b", job->bytes, sizeof job->bytes);
    return code == SQLITE_OK ? database_finish(statement) : code;
}

static int trim_tables(sqlite3_stmt **statements, const struct job_id *job, int64_t limit,
                       int *ret_rows);

/* Stage 0 begins a job's end, stage 2 completes it. */
static int write_forgotten(sqlite3_stmt **statements, const struct record *record, int64_t stage)
{
    int code = database_bind(statements[FORGET], "iibiii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, record->job.bytes, sizeof record->job.bytes,
                             (int64_t)record->forget.studio.value, stage, checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[FORGET]) : code;
}

static int write_forget(sqlite3_stmt **statements, const struct record *record)
{
    int code = delete_of(statements[FORGET_JOB], &record->job);
    if (code == SQLITE_OK)
        code = delete_of(statements[FORGET_NOTES], &record->job);
    return code == SQLITE_OK ? write_forgotten(statements, record, 0) : code;
}

/* Its rows went long ago, mostly. From here on its id may be another's. */
static int write_unask(sqlite3_stmt **statements, const struct record *record)
{
    int rows = 0;
    int code = trim_tables(statements, &record->job, INT64_MAX, &rows);
    if (code == SQLITE_OK)
        code = delete_of(statements[UNASK_REQUESTS], &record->job);
    if (code == SQLITE_OK)
        code = delete_of(statements[UNASK_FORGOTTEN], &record->job);
    return code == SQLITE_OK ? write_forgotten(statements, record, 2) : code;
}

static int write_clock(sqlite3_stmt **statements, const struct record *record)
{
    int code = database_finish(statements[TICKED]); /* the last that only says that time passes */
    if (code == SQLITE_OK)
        code = database_bind(statements[CLOCK], "iiii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, (int64_t)record->clock.ahead_s,
                             checksum_record(record));
    return code == SQLITE_OK ? database_finish(statements[CLOCK]) : code;
}

static int write_record(sqlite3_stmt **statements, const struct record *record)
{
    switch (record->kind) {
    case RECORD_JOB:
        return write_job(statements, record);
    case RECORD_ATTEMPT:
        return write_attempt(statements, record);
    case RECORD_CHANGE:
        return write_change(statements, record);
    case RECORD_EDIT:
        return write_edit(statements, record);
    case RECORD_NOTE:
        return write_note(statements, record);
    case RECORD_REQUEST:
        return write_request(statements, record);
    case RECORD_TEND:
        return write_tend(statements, record);
    case RECORD_DELIVERED:
        return write_delivered(statements, record);
    case RECORD_FORGET:
        return write_forget(statements, record);
    case RECORD_UNASK:
        return write_unask(statements, record);
    case RECORD_CLOCK:
        return write_clock(statements, record);
    }
    CHECK(!"a record of a kind that exists");
    return SQLITE_MISUSE;
}

/* ---- the transaction ---- */

int writer_prepare(struct database *database)
{
    return database_prepare(database, texts, STATEMENTS);
}

/* Another program has raised the epoch since: this one is fenced off. */
static int check_epoch(struct database *database, uint32_t epoch, bool *ret_fenced)
{
    sqlite3_stmt *statement = database->statements[EPOCH];
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *ret_fenced = sqlite3_column_int64(statement, 0) != (int64_t)epoch;
        code = SQLITE_OK;
    } else if (code == SQLITE_DONE) {
        code = SQLITE_CORRUPT;
    }
    sqlite3_reset(statement);
    return code;
}

/* What `code` and `fenced` say of a transaction that was begun: committed, or as if it had not
 * been.
 */
static int end(struct database *database, uint32_t epoch, int code, bool fenced, const char *what)
{
    if (code == SQLITE_OK && !fenced)
        code = database_finish(database->statements[COMMIT]);
    crash_point("store.committed");
    if (code == SQLITE_OK && !fenced)
        return 0;

    int r = -ESTALE;
    if (fenced)
        snprintf(database->why, sizeof database->why,
                 "state.db: another broker has taken it over (epoch %u is past): stop this one",
                 epoch);
    else
        r = database_error(database, code, what);
    (void)database_run_text(database, "ROLLBACK");
    return r;
}

int writer_commit(struct database *database, uint32_t epoch, const struct batch *first)
{
    sqlite3_stmt **statements = database->statements;
    bool fenced = false;
    crash_point("store.begin");
    int code = database_finish(statements[BEGIN]);
    if (code == SQLITE_OK)
        code = check_epoch(database, epoch, &fenced);
    for (const struct batch *batch = first; batch && code == SQLITE_OK && !fenced;
         batch = batch->next)
        for (size_t i = 0; i < batch->n_records && code == SQLITE_OK; i++)
            code = write_record(statements, &batch->records[i]);
    crash_point("store.written");
    return end(database, epoch, code, fenced, "state.db: a commit failed");
}

/* ---- jobs that are gone ---- */

static int trim_tables(sqlite3_stmt **statements, const struct job_id *job, int64_t limit,
                       int *ret_rows)
{
    int code = SQLITE_OK, rows = 0;

    for (int table = TRIM_ATTEMPTS; table <= TRIM_DELIVERED && code == SQLITE_OK; table++) {
        code = database_bind(statements[table], "bi", job->bytes, sizeof job->bytes, limit);
        if (code == SQLITE_OK)
            code = database_finish(statements[table]);
        rows += code == SQLITE_OK ? sqlite3_changes(sqlite3_db_handle(statements[table])) : 0;
    }
    *ret_rows = rows;
    return code;
}

static int trim_first(sqlite3_stmt **statements, bool *ret_more)
{
    struct job_id job;
    int rows = 0;
    int code = sqlite3_step(statements[TRIM_FIRST]);

    *ret_more = code == SQLITE_ROW;
    if (code == SQLITE_ROW)
        database_column_bytes(statements[TRIM_FIRST], 0, job.bytes, sizeof job.bytes);
    sqlite3_reset(statements[TRIM_FIRST]);
    if (code != SQLITE_ROW)
        return code == SQLITE_DONE ? SQLITE_OK : code;
    code = trim_tables(statements, &job, WRITER_SLICE, &rows);
    return code == SQLITE_OK && rows == 0 ? delete_of(statements[TRIM_DONE], &job) : code;
}

int writer_trim(struct database *database, uint32_t epoch, bool *ret_more)
{
    bool fenced = false;
    int code = database_finish(database->statements[BEGIN]);

    *ret_more = false;
    if (code == SQLITE_OK)
        code = check_epoch(database, epoch, &fenced);
    if (code == SQLITE_OK && !fenced)
        code = trim_first(database->statements, ret_more);
    if (*ret_more)
        crash_point("store.trim");
    int r = end(database, epoch, code, fenced, "state.db: what is left of a forgotten job");
    if (*ret_more)
        crash_point("store.trimmed");
    return r;
}
