/* writer.c - records to rows.
 *
 * A record is one row (an attempt also removes its task's note), so a transaction is a loop over
 * records with one prepared statement each; but plain results are gathered, and are rows by the
 * hundred at its end (pack.h). A job that is forgotten is a row as well: what was written of it
 * before goes later, a slice at a time, so that no commit waits for a million rows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/unpack.h>
#include <broker/store/writer.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>

enum statement {
    BEGIN,
    COMMIT,
    EPOCH,
    JOB,
    NUMBER,
    RESULTS,
    REPORT,
    DONE,
    NOTE_DELETE,
    NOTED,
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
    GONE_NUMBER,
    TRIM_FIRST,
    TRIM_RESULTS,
    TRIM_REPORTS,
    TRIM_DONE_TASKS,
    TRIM_CHANGES,
    TRIM_EDITS,
    TRIM_DELIVERED,
    TRIM_DONE,
    STATEMENTS,
};

enum { NO_NUMBER = -1 };

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
    [NUMBER] = "SELECT sequence FROM jobs WHERE job = ?",
    [RESULTS] = "INSERT INTO results(" PACK_COLUMNS ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                " ?, ?, ?)",
    [REPORT] = "INSERT INTO reports(" DATABASE_ATTEMPT_COLUMNS
               ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [DONE] = "INSERT INTO done(number, step, page, floor, tasks, checksum)"
             " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET tasks = CASE"
             " WHEN tasks & excluded.tasks THEN NULL ELSE tasks | excluded.tasks END,"
             " checksum = checksum + excluded.checksum",
    [NOTE_DELETE] = "DELETE FROM notes WHERE job = ? AND step = ? AND task = ?",
    [NOTED] = "SELECT job, step, task FROM notes",
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
    [FORGET] = "INSERT INTO forgotten(sequence, wall_s, job, studio, stage, number, checksum)"
               " VALUES(?, ?, ?, ?, ?, ?, ?)",
    [FORGET_JOB] = "DELETE FROM jobs WHERE job = ?",
    [FORGET_NOTES] = "DELETE FROM notes WHERE job = ?",
    [UNASK_REQUESTS] = "DELETE FROM requests WHERE job = ?",
    [UNASK_FORGOTTEN] = "DELETE FROM forgotten WHERE job = ? OR stage = 2",
    [TICKED] = "DELETE FROM clocks WHERE ahead_s = 0",
    [CLOCK] = "INSERT INTO clocks(sequence, wall_s, ahead_s, checksum) VALUES(?, ?, ?, ?)",
    [GONE_NUMBER] = "SELECT number FROM forgotten WHERE job = ?",
    [TRIM_FIRST] = "SELECT job, number FROM forgotten WHERE stage = 0 ORDER BY sequence LIMIT 1",
    /* Rows of very different sizes: as many as one slice may be, and one at least. What a row takes
     * is guessed without reading it: 80 bytes of `members` for each task that may be in it. */
    [TRIM_RESULTS] = "DELETE FROM results WHERE sequence IN (SELECT sequence FROM (SELECT sequence,"
                     " sum(size) OVER (ORDER BY sequence) - size AS ahead FROM (SELECT sequence,"
                     " 80 * (high - low + 1) + length(blobs) AS size FROM results WHERE number = ?1"
                     " ORDER BY sequence LIMIT ?2)) WHERE ahead < ?3)",
    [TRIM_REPORTS] = "DELETE FROM reports WHERE sequence IN"
                     " (SELECT sequence FROM reports WHERE number = ? LIMIT ?)",
    [TRIM_DONE_TASKS] = "DELETE FROM done WHERE number = ?1 AND (step, page, floor) IN"
                        " (SELECT step, page, floor FROM done WHERE number = ?1 LIMIT ?2)",
    [TRIM_CHANGES] = TRIM("changes"),
    [TRIM_EDITS] = TRIM("edits"),
    [TRIM_DELIVERED] = TRIM("delivered"),
    [TRIM_DONE] = "UPDATE forgotten SET stage = 1 WHERE job = ? AND stage = 0",
};

/* ---- rows ---- */

static int write_job(sqlite3_stmt **statements, const struct record *record)
{
    const struct job_spec *spec = record->submit.spec;
    int code = database_bind(statements[JOB], "iibitibi", (int64_t)record->sequence,
                             (int64_t)record->wall_s, spec->job.bytes, sizeof spec->job.bytes,
                             (int64_t)spec->studio.value, spec->name, (int64_t)spec->priority,
                             spec->blob, spec->blob_size, checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[JOB]) : code;
}

/* ---- results and reports ---- */

static int delete_note(struct writer *writer, const struct lease_id *lease)
{
    sqlite3_stmt *statement = writer->database->statements[NOTE_DELETE];

    if (!noted_has(&writer->noted, &lease->job, lease->task))
        return SQLITE_OK;
    int code = database_bind(statement, "bii", lease->job.bytes, sizeof lease->job.bytes,
                             (int64_t)lease->task.step, (int64_t)lease->task.index);
    return code == SQLITE_OK ? database_finish(statement) : code;
}

/* The number that `statement` has for a job; NO_NUMBER where there is none. */
static int ask_number(sqlite3_stmt *statement, const struct job_id *job, int64_t *ret_number)
{
    int code = database_bind(statement, "b", job->bytes, sizeof job->bytes);

    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    *ret_number = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : NO_NUMBER;
    sqlite3_reset(statement);
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

/* A result of a job that is not there has no place: the core knows of none. */
static int job_number(struct writer *writer, const struct job_id *job, int64_t *ret_number)
{
    int code = SQLITE_OK;

    if (writer->number == NO_NUMBER || memcmp(&writer->job, job, sizeof *job)) {
        writer->job = *job;
        code = ask_number(writer->database->statements[NUMBER], job, &writer->number);
    }
    *ret_number = writer->number;
    return code == SQLITE_OK && writer->number == NO_NUMBER ? SQLITE_CONSTRAINT : code;
}

/* One row of it; a second result of a floor is refused by the database. */
static int write_done(struct writer *writer, int64_t number, uint32_t step, uint64_t page,
                      uint32_t floor, uint64_t tasks)
{
    sqlite3_stmt *statement = writer->database->statements[DONE];
    int code =
        database_bind(statement, "iiiiii", number, (int64_t)step, (int64_t)page, (int64_t)floor,
                      (int64_t)tasks, (int64_t)floors_sum(number, step, page, floor, tasks));
    return code == SQLITE_OK ? database_finish(statement) : code;
}

static int write_results(void *user, struct pack *pack, const uint64_t tasks[PACK_DONE])
{
    struct writer *writer = user;
    sqlite3_stmt *statement = writer->database->statements[RESULTS];
    int code = job_number(writer, &pack->job, &pack->number);

    if (code == SQLITE_OK)
        code = database_bind(
            statement, "iiiibiiiiiibTbi", (int64_t)pack->first, (int64_t)pack->last, pack->wall_s,
            pack->number, pack->job.bytes, sizeof pack->job.bytes, (int64_t)pack->step,
            (int64_t)pack->floor, (int64_t)pack->epoch, (int64_t)pack->page, (int64_t)pack->low,
            (int64_t)pack->high, pack->workers, pack->workers_size, pack->members,
            pack->members_size, pack->blobs, pack->blobs_size, checksum_pack(pack));
    if (code == SQLITE_OK)
        code = database_finish(statement);
    for (uint64_t i = 0; i < PACK_DONE && code == SQLITE_OK; i++)
        if (tasks[i])
            code = write_done(writer, pack->number, pack->step, pack->page * PACK_DONE + i,
                              pack->floor, tasks[i]);
    return code;
}

static int write_report(struct writer *writer, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    const struct usage *usage = &record->attempt.usage;
    sqlite3_stmt *statement = writer->database->statements[REPORT];
    int64_t number;
    int code = job_number(writer, &lease->job, &number);

    if (code == SQLITE_OK && record->attempt.class == CLASS_OK)
        code = write_done(writer, number, lease->task.step, lease->task.index / DONE_TASKS,
                          lease->floor, UINT64_C(1) << lease->task.index % DONE_TASKS);
    if (code == SQLITE_OK)
        code = database_bind(
            statement, "iibiiiiibiiiiiiibiii", (int64_t)record->sequence, (int64_t)record->wall_s,
            lease->job.bytes, sizeof lease->job.bytes, (int64_t)lease->task.step,
            (int64_t)lease->task.index, (int64_t)lease->floor, (int64_t)lease->epoch,
            (int64_t)lease->attempt, record->attempt.worker.bytes,
            sizeof record->attempt.worker.bytes, (int64_t)record->attempt.class,
            (int64_t)usage->wall_ns, (int64_t)usage->cpu_ns, (int64_t)usage->memory_bytes,
            (int64_t)usage->bytes_in, (int64_t)usage->bytes_out, (int64_t)usage->card_ns,
            record->attempt.blob, record->attempt.blob_size, (int64_t)record->attempt.warned,
            number, checksum_record(record, number));
    return code == SQLITE_OK ? database_finish(statement) : code;
}

static int write_attempt(struct writer *writer, const struct record *record)
{
    int code = delete_note(writer, &record->attempt.lease);

    if (code != SQLITE_OK)
        return code;
    return pack_plain(record) ? packer_add(writer->packer, record) : write_report(writer, record);
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
                      (int64_t)record->change.floor, state, reason, checksum_record(record, 0));
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
                             record->edit.blob, record->edit.blob_size, checksum_record(record, 0));

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

static int write_note(struct writer *writer, const struct record *record)
{
    sqlite3_stmt **statements = writer->database->statements;
    const struct lease_id *lease = &record->note.lease;

    noted_add(&writer->noted, &lease->job, lease->task);
    int code = database_bind(statements[NOTE], "iibiiiiibii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, lease->job.bytes, sizeof lease->job.bytes,
                             (int64_t)lease->task.step, (int64_t)lease->task.index,
                             (int64_t)lease->floor, (int64_t)lease->epoch, (int64_t)lease->attempt,
                             record->note.worker.bytes, sizeof record->note.worker.bytes,
                             (int64_t)record->note.gpu_mask, checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[NOTE]) : code;
}

static int write_request(sqlite3_stmt **statements, const struct record *record)
{
    int code =
        database_bind(statements[REQUEST], "iiibbiibi", (int64_t)record->sequence,
                      (int64_t)record->wall_s, (int64_t)record->request.studio.value,
                      record->request.request.bytes, sizeof record->request.request.bytes,
                      record->request.digest.bytes, sizeof record->request.digest.bytes,
                      (int64_t)record->request.code, (int64_t)record->request.tasks,
                      record->job.bytes, sizeof record->job.bytes, checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[REQUEST]) : code;
}

static int write_tend(sqlite3_stmt **statements, const struct record *record)
{
    int code = database_bind(
        statements[TEND], "iibitii", (int64_t)record->sequence, (int64_t)record->wall_s,
        record->tend.worker.bytes, sizeof record->tend.worker.bytes, (int64_t)record->tend.tend,
        record->tend.text, (int64_t)record->tend.until_wall_s, checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[TEND]) : code;
}

static int write_delivered(sqlite3_stmt **statements, const struct record *record)
{
    const struct delivered_run *run = &record->delivered;
    int code =
        database_bind(statements[DELIVERED], "iibiiiii", (int64_t)record->sequence,
                      (int64_t)record->wall_s, record->job.bytes, sizeof record->job.bytes,
                      (int64_t)run->range.step, (int64_t)run->range.first, (int64_t)run->range.last,
                      (int64_t)run->floor, checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[DELIVERED]) : code;
}

static int delete_of(sqlite3_stmt *statement, const struct job_id *job)
{
    int code = database_bind(statement, "b", job->bytes, sizeof job->bytes);
    return code == SQLITE_OK ? database_finish(statement) : code;
}

static int trim_tables(sqlite3_stmt **statements, const struct job_id *job, int64_t number,
                       int64_t limit, int64_t limit_bytes, int *ret_rows);

/* Stage 0 begins a job's end, stage 2 completes it. */
static int write_forgotten(sqlite3_stmt **statements, const struct record *record, int64_t number,
                           int64_t stage)
{
    int code = database_bind(statements[FORGET], "iibiiii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, record->job.bytes, sizeof record->job.bytes,
                             (int64_t)record->forget.studio.value, stage, number,
                             checksum_record(record, number));
    return code == SQLITE_OK ? database_finish(statements[FORGET]) : code;
}

static int write_forget(sqlite3_stmt **statements, const struct record *record)
{
    int64_t number;
    int code = ask_number(statements[NUMBER], &record->job, &number);

    if (code == SQLITE_OK)
        code = delete_of(statements[FORGET_JOB], &record->job);
    if (code == SQLITE_OK)
        code = delete_of(statements[FORGET_NOTES], &record->job);
    return code == SQLITE_OK ? write_forgotten(statements, record, number, 0) : code;
}

/* Its rows went long ago, mostly. From here on its id may be another's. */
static int write_unask(sqlite3_stmt **statements, const struct record *record)
{
    int64_t number;
    int rows = 0;
    int code = ask_number(statements[GONE_NUMBER], &record->job, &number);

    if (code == SQLITE_OK)
        code = trim_tables(statements, &record->job, number, INT64_MAX, INT64_MAX, &rows);
    if (code == SQLITE_OK)
        code = delete_of(statements[UNASK_REQUESTS], &record->job);
    if (code == SQLITE_OK)
        code = delete_of(statements[UNASK_FORGOTTEN], &record->job);
    return code == SQLITE_OK ? write_forgotten(statements, record, number, 2) : code;
}

static int write_clock(sqlite3_stmt **statements, const struct record *record)
{
    int code = database_finish(statements[TICKED]); /* the last that only says that time passes */
    if (code == SQLITE_OK)
        code = database_bind(statements[CLOCK], "iiii", (int64_t)record->sequence,
                             (int64_t)record->wall_s, (int64_t)record->clock.ahead_s,
                             checksum_record(record, 0));
    return code == SQLITE_OK ? database_finish(statements[CLOCK]) : code;
}

/* What ends a job finds all of it in rows, and none of its numbers remembered. */
static int write_end(struct writer *writer, const struct record *record)
{
    sqlite3_stmt **statements = writer->database->statements;
    int code = packer_flush(writer->packer, write_results, writer);

    writer->number = NO_NUMBER;
    if (code != SQLITE_OK)
        return code;
    return record->kind == RECORD_FORGET ? write_forget(statements, record)
                                         : write_unask(statements, record);
}

static int write_record(struct writer *writer, const struct record *record)
{
    sqlite3_stmt **statements = writer->database->statements;

    switch (record->kind) {
    case RECORD_JOB:
        return write_job(statements, record);
    case RECORD_ATTEMPT:
        return write_attempt(writer, record);
    case RECORD_CHANGE:
        return write_change(statements, record);
    case RECORD_EDIT:
        return write_edit(statements, record);
    case RECORD_NOTE:
        return write_note(writer, record);
    case RECORD_REQUEST:
        return write_request(statements, record);
    case RECORD_TEND:
        return write_tend(statements, record);
    case RECORD_DELIVERED:
        return write_delivered(statements, record);
    case RECORD_FORGET:
    case RECORD_UNASK:
        return write_end(writer, record);
    case RECORD_CLOCK:
        return write_clock(statements, record);
    }
    CHECK(!"a record of a kind that exists");
    return SQLITE_MISUSE;
}

/* ---- the transaction ---- */

int writer_init(struct writer *writer, struct database *database, uint32_t epoch)
{
    int r = database_prepare(database, texts, STATEMENTS);

    writer->database = database;
    writer->epoch = epoch;
    writer->number = NO_NUMBER;
    if (r)
        return r;
    writer->packer = packer_new();
    int code =
        writer->packer ? noted_read(&writer->noted, database->statements[NOTED]) : SQLITE_NOMEM;
    return code == SQLITE_OK ? 0 : database_error(database, code, "state.db: table notes");
}

void writer_deinit(struct writer *writer)
{
    packer_free(writer->packer);
    writer->packer = NULL;
}

/* Another program has raised the epoch since: this one is fenced off. */
static int check_epoch(struct writer *writer, bool *ret_fenced)
{
    sqlite3_stmt *statement = writer->database->statements[EPOCH];
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *ret_fenced = sqlite3_column_int64(statement, 0) != (int64_t)writer->epoch;
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
static int end(struct writer *writer, int code, bool fenced, const char *what)
{
    struct database *database = writer->database;

    if (code == SQLITE_OK && !fenced)
        code = database_finish(database->statements[COMMIT]);
    crash_point("store.committed");
    if (code == SQLITE_OK && !fenced)
        return 0;

    int r = -ESTALE;
    if (fenced)
        snprintf(database->why, sizeof database->why,
                 "state.db: another broker has taken it over (epoch %u is past): stop this one",
                 writer->epoch);
    else
        r = database_error(database, code, what);
    (void)database_run_text(database, "ROLLBACK");
    writer->number = NO_NUMBER; /* of a job that is not there any more, perhaps */
    return r;
}

int writer_commit(struct writer *writer, const struct batch *first)
{
    bool fenced = false;
    int code = SQLITE_OK;

    crash_point("store.begin");
    if (writer->noted.added >=
        NOTED_ADDED) /* not within it: it may be rolled back, notes and all */
        code = noted_read(&writer->noted, writer->database->statements[NOTED]);
    if (code == SQLITE_OK)
        code = database_finish(writer->database->statements[BEGIN]);
    if (code == SQLITE_OK)
        code = check_epoch(writer, &fenced);
    packer_clear(writer->packer);
    for (const struct batch *batch = first; batch && code == SQLITE_OK && !fenced;
         batch = batch->next)
        for (size_t i = 0; i < batch->n_records && code == SQLITE_OK; i++)
            code = write_record(writer, &batch->records[i]);
    if (code == SQLITE_OK && !fenced)
        code = packer_flush(writer->packer, write_results, writer);
    crash_point("store.written");
    return end(writer, code, fenced, "state.db: a commit failed");
}

/* ---- jobs that are gone ---- */

static int trim_tables(sqlite3_stmt **statements, const struct job_id *job, int64_t number,
                       int64_t limit, int64_t limit_bytes, int *ret_rows)
{
    int code = SQLITE_OK, rows = 0;

    for (int table = TRIM_RESULTS; table <= TRIM_DELIVERED && code == SQLITE_OK; table++) {
        if (table == TRIM_RESULTS)
            code = database_bind(statements[table], "iii", number, limit, limit_bytes);
        else if (table < TRIM_CHANGES)
            code = database_bind(statements[table], "ii", number, limit);
        else
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
    int64_t number = 0;
    int rows = 0;
    int code = sqlite3_step(statements[TRIM_FIRST]);

    *ret_more = code == SQLITE_ROW;
    if (code == SQLITE_ROW) {
        database_column_bytes(statements[TRIM_FIRST], 0, job.bytes, sizeof job.bytes);
        number = sqlite3_column_int64(statements[TRIM_FIRST], 1);
    }
    sqlite3_reset(statements[TRIM_FIRST]);
    if (code != SQLITE_ROW)
        return code == SQLITE_DONE ? SQLITE_OK : code;
    code = trim_tables(statements, &job, number, WRITER_SLICE, WRITER_SLICE_BYTES, &rows);
    return code == SQLITE_OK && rows == 0 ? delete_of(statements[TRIM_DONE], &job) : code;
}

int writer_trim(struct writer *writer, bool *ret_more)
{
    bool fenced = false;
    int code = database_finish(writer->database->statements[BEGIN]);

    *ret_more = false;
    if (code == SQLITE_OK)
        code = check_epoch(writer, &fenced);
    if (code == SQLITE_OK && !fenced)
        code = trim_first(writer->database->statements, ret_more);
    if (*ret_more)
        crash_point("store.trim");
    int r = end(writer, code, fenced, "state.db: what is left of a forgotten job");
    if (*ret_more)
        crash_point("store.trimmed");
    return r;
}
