/* attempts.c - lists of results and attempts.
 *
 * A row of table results is read whole, whatever is wanted of it: at most a page of tasks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/reader.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

/* ---- both tables as one list ---- */

struct merged {
    struct database *database;
    struct unpack unpack;
    sqlite3_stmt *reports; /* NULL: none; by sequence, upwards */
    struct record result, report;
    bool has_result, has_report;
    bool result_over; /* a later floor has made it anew */
    int64_t number;   /* of the result's job */
    bool damaged;
};

static int advance_result(struct merged *merged)
{
    int code = unpack_next(&merged->unpack, &merged->result, &merged->number, &merged->result_over);

    merged->has_result = code == SQLITE_ROW;
    merged->damaged |= merged->unpack.damaged;
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

static int read_report(struct database *database, sqlite3_stmt *row, struct record *ret_record,
                       bool *ret_damaged)
{
    database_attempt(row, ret_record);
    *ret_damaged = database_verify(database, row, "reports", ret_record) != 0;
    return *ret_damaged ? SQLITE_CORRUPT : SQLITE_OK;
}

static int advance_report(struct merged *merged)
{
    bool damaged;
    int code;

    do {
        damaged = false;
        code = merged->reports ? sqlite3_step(merged->reports) : SQLITE_DONE;
        merged->has_report = code == SQLITE_ROW;
        if (code == SQLITE_ROW)
            code = read_report(merged->database, merged->reports, &merged->report, &damaged);
    } while (damaged && merged->unpack.bad);
    merged->damaged |= damaged;
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int merged_begin(struct merged *merged)
{
    int code = unpack_begin(&merged->unpack);

    if (code == SQLITE_OK)
        code = advance_result(merged);
    return code == SQLITE_OK ? advance_report(merged) : code;
}

static void merged_end(struct merged *merged)
{
    unpack_end(&merged->unpack);
    if (merged->reports)
        sqlite3_reset(merged->reports);
}

/* A later floor of the task of a report has a result. */
static int report_over(struct database *database, sqlite3_stmt *floors, sqlite3_stmt *row,
                       const struct record *record, bool *ret_over)
{
    const struct lease_id *lease = &record->attempt.lease;
    uint64_t above[PACK_DONE];
    int code = floors_above(database, floors, database_number(row), lease->task.step, lease->floor,
                            lease->task.index / PACK_TASKS, above);

    *ret_over = code == SQLITE_OK && floors_has(above, lease->task.index);
    return code;
}

/* The next of both; SQLITE_DONE where there is none. It is left by merged_leave. */
static int merged_next(struct merged *merged, const struct record **ret_record, bool *ret_over)
{
    if (!merged->has_result && !merged->has_report)
        return SQLITE_DONE;
    if (merged->has_result &&
        (!merged->has_report || merged->result.sequence < merged->report.sequence)) {
        *ret_record = &merged->result;
        *ret_over = merged->result_over;
        return SQLITE_ROW;
    }
    *ret_record = &merged->report;
    *ret_over = false;
    int code = SQLITE_OK;
    if (merged->unpack.floors) {
        code = report_over(merged->database, merged->unpack.floors, merged->reports,
                           &merged->report, ret_over);
        merged->damaged |= code == SQLITE_CORRUPT;
    }
    return code == SQLITE_OK ? SQLITE_ROW : code;
}

static int merged_leave(struct merged *merged, const struct record *record)
{
    return record == &merged->result ? advance_result(merged) : advance_report(merged);
}

/* ---- a reader's lists ---- */

struct list_end {
    size_t left;
    store_row *each;
    void *user;
    int r; /* what it answered */
};

/* Whether that was the last. */
static bool give(struct list_end *end, const struct record *record)
{
    const struct attempt_row row = {record->sequence, *record};

    end->r = end->each(end->user, &row);
    return end->r != 0 || --end->left == 0;
}

/* What `code` makes of a list that has ended, and the end of its snapshot, late or not. */
static int answer(struct store_reader *reader, int code, bool damaged, const struct list_end *end)
{
    int r = end->r > 0 ? 0 : end->r;

    if (damaged)
        r = STORE_E_CORRUPT;
    else if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        r = database_error(&reader->database, code, "state.db: a list of attempts");
    reader->until_ns = INT64_MAX;
    (void)database_finish(reader->database.statements[SNAPSHOT_END]);
    return r;
}

/* SQLITE_DONE where no such job is there. A list is of one snapshot, which `answer` ends: were both
 * tables read at times of their own, a result that was committed between the two would lie behind
 * what was given, and whoever goes on from there never sees it. */
static int begin(struct store_reader *reader, const struct job_id *job, int64_t *ret_number)
{
    sqlite3_stmt *statement = reader->database.statements[JOB_NUMBER];
    int code = database_bind(statement, "b", job->bytes, sizeof job->bytes);

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    if (code == SQLITE_OK)
        code = database_finish(reader->database.statements[SNAPSHOT]);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    *ret_number = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

/* In order of sequences, after one; `current`: but for what a retry has made anew. */
static int give_after(struct store_reader *reader, const struct job_id *job, uint64_t after,
                      enum attempts_statement reports, bool current, struct list_end *end)
{
    sqlite3_stmt **statements = reader->database.statements;
    struct merged merged = {.database = &reader->database, .reports = statements[reports]};
    const struct record *record;
    int64_t number, earliest = after > PACK_SPAN ? (int64_t)(after - PACK_SPAN) : -1;
    bool over;
    int code = begin(reader, job, &number);

    if (end->left == 0 || code == SQLITE_DONE)
        return answer(reader, code, false, end);
    merged.unpack = (struct unpack){.database = &reader->database,
                                    .rows = statements[RESULTS_OF_JOB],
                                    .floors = current ? statements[ABOVE] : NULL};
    if (code == SQLITE_OK)
        code = database_bind(statements[RESULTS_OF_JOB], "iii", number, (int64_t)after, earliest);
    if (code == SQLITE_OK)
        code = database_bind(statements[reports], "ii", number, (int64_t)after);
    if (code == SQLITE_OK)
        code = merged_begin(&merged);
    while (code == SQLITE_OK && (code = merged_next(&merged, &record, &over)) == SQLITE_ROW) {
        if (record->sequence > after && !over && give(end, record))
            break;
        code = merged_leave(&merged, record);
    }
    int r = answer(reader, code, merged.damaged, end);
    merged_end(&merged);
    return r;
}

int store_results(struct store_reader *reader, const struct job_id *job, uint64_t after,
                  size_t limit, store_row *each, void *user)
{
    struct list_end end = {limit, each, user, 0};
    return give_after(reader, job, after, WARNED_AFTER, true, &end);
}

int store_history(struct store_reader *reader, const struct job_id *job, uint64_t after,
                  size_t limit, store_row *each, void *user)
{
    struct list_end end = {limit, each, user, 0};
    return give_after(reader, job, after, REPORTS_AFTER, false, &end);
}

/* ---- by task ---- */

/* What a list needs all of before it can give the first; blobs are its own. No more than it gives,
 * or a little more: of a task that was run anew often there is much that nobody is given. */
struct found {
    struct record *records;
    size_t n, capacity;
    size_t most; /* the first by sequence that will do; 0: the newest of each task */
    uint16_t places[PACK_TASKS]; /* then, by task: one more than its record's */
};

static void found_cut(struct found *found, size_t n)
{
    while (found->n > n)
        free((void *)found->records[--found->n].attempt.blob);
}

static void found_deinit(struct found *found)
{
    found_cut(found, 0);
    free(found->records);
}

static int by_sequence(const void *a, const void *b)
{
    uint64_t one = ((const struct record *)a)->sequence,
             other = ((const struct record *)b)->sequence;
    return one < other ? -1 : one > other;
}

/* Room for one more; what is past the most that will do makes it. */
static int found_grow(struct found *found)
{
    if (found->n < found->capacity)
        return SQLITE_OK;
    if (found->most && found->n / 2 > found->most) {
        qsort(found->records, found->n, sizeof *found->records, by_sequence);
        found_cut(found, found->most);
        return SQLITE_OK;
    }
    size_t larger = 2 * found->capacity + 16;
    struct record *moved = reallocarray(found->records, larger, sizeof *moved);
    if (!moved)
        return SQLITE_NOMEM;
    found->records = moved;
    found->capacity = larger;
    return SQLITE_OK;
}

static int found_add(struct found *found, const struct record *record)
{
    size_t size = record->attempt.blob_size;
    uint16_t *place = &found->places[record->attempt.lease.task.index % PACK_TASKS];
    bool again = !found->most && *place;

    if (again && found->records[*place - 1].sequence > record->sequence)
        return SQLITE_OK;
    int code = again ? SQLITE_OK : found_grow(found);
    void *blob = code == SQLITE_OK ? malloc(size + 1) : NULL;
    if (!blob)
        return SQLITE_NOMEM;
    memcpy(blob, size ? record->attempt.blob : "", size);
    struct record *at = &found->records[again ? *place - 1u : found->n++];
    if (again)
        free((void *)at->attempt.blob);
    *at = *record;
    at->attempt.blob = blob;
    if (!found->most)
        *place = (uint16_t)(at - found->records + 1);
    return SQLITE_OK;
}

struct wanted {
    int64_t number;
    uint32_t step;
    uint64_t first, last; /* tasks, of one page */
    uint64_t after;
};

static int find_results(struct store_reader *reader, const struct wanted *wanted,
                        struct found *found, bool *ret_damaged)
{
    sqlite3_stmt *rows = reader->database.statements[RESULTS_OF_TASKS];
    int code = database_bind(rows, "iiiii", wanted->number, (int64_t)wanted->step,
                             (int64_t)(wanted->first / PACK_TASKS), (int64_t)wanted->first,
                             (int64_t)wanted->last);

    while (code == SQLITE_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        const char *at = NULL;
        struct pack pack;
        struct record record;

        code = SQLITE_OK;
        pack_read(rows, &pack);
        if (pack_verify(&reader->database, &pack)) {
            *ret_damaged = true;
            code = SQLITE_CORRUPT;
        }
        while (code == SQLITE_OK && pack_next(&pack, &at, &record)) {
            uint64_t task = record.attempt.lease.task.index;
            if (task >= wanted->first && task <= wanted->last && record.sequence > wanted->after)
                code = found_add(found, &record);
        }
    }
    sqlite3_reset(rows);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* Of a statement that is bound. */
static int find_reports(struct store_reader *reader, sqlite3_stmt *rows, struct found *found,
                        bool *ret_damaged)
{
    int code = SQLITE_OK;

    while (code == SQLITE_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        struct record record;

        code = read_report(&reader->database, rows, &record, ret_damaged);
        if (code == SQLITE_OK)
            code = found_add(found, &record);
    }
    sqlite3_reset(rows);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int by_task(const void *a, const void *b)
{
    uint64_t one = ((const struct record *)a)->attempt.lease.task.index;
    uint64_t other = ((const struct record *)b)->attempt.lease.task.index;
    return one < other ? -1 : one > other;
}

/* Of one page of tasks; *ret_last: the list has its last. */
static int give_page(struct store_reader *reader, const struct wanted *wanted, struct list_end *end,
                     bool *ret_last, bool *ret_damaged)
{
    sqlite3_stmt *reports = reader->database.statements[WARNED_OF_TASKS];
    struct found found = {0};
    int code = find_results(reader, wanted, &found, ret_damaged);

    if (code == SQLITE_OK)
        code = database_bind(reports, "iiii", wanted->number, (int64_t)wanted->step,
                             (int64_t)wanted->first, (int64_t)wanted->last);
    if (code == SQLITE_OK)
        code = find_reports(reader, reports, &found, ret_damaged);
    if (code == SQLITE_OK && found.n)
        qsort(found.records, found.n, sizeof *found.records, by_task);
    for (size_t i = 0; code == SQLITE_OK && i < found.n && !*ret_last; i++)
        *ret_last = give(end, &found.records[i]);
    found_deinit(&found);
    return code;
}

int store_step_results(struct store_reader *reader, const struct job_id *job, uint32_t step,
                       uint64_t first, uint64_t last, size_t limit, store_row *each, void *user)
{
    struct list_end end = {limit, each, user, 0};
    struct wanted wanted = {.step = step};
    bool ended = limit == 0, damaged = false;
    int code = begin(reader, job, &wanted.number);

    last = last > INT64_MAX ? INT64_MAX : last;
    for (uint64_t at = first; code == SQLITE_OK && !ended && at <= last; at = wanted.last + 1) {
        uint64_t page_last = at / PACK_TASKS * PACK_TASKS + PACK_TASKS - 1;

        wanted.first = at;
        wanted.last = page_last < last ? page_last : last;
        code = clock_monotonic_ns() > reader->until_ns
                   ? SQLITE_INTERRUPT
                   : give_page(reader, &wanted, &end, &ended, &damaged);
    }
    return answer(reader, code, damaged, &end);
}

int store_attempts(struct store_reader *reader, const struct job_id *job, struct task_id task,
                   uint64_t after, size_t limit, store_row *each, void *user)
{
    sqlite3_stmt *reports = reader->database.statements[REPORTS_OF_TASK];
    struct list_end end = {limit, each, user, 0};
    struct wanted wanted = {
        .step = task.step, .first = task.index, .last = task.index, .after = after};
    struct found found = {.most = limit < INT32_MAX ? limit + 1 : INT32_MAX};
    bool damaged = false, ended = limit == 0;
    int code = begin(reader, job, &wanted.number);

    if (code == SQLITE_OK)
        code = find_results(reader, &wanted, &found, &damaged);
    if (code == SQLITE_OK)
        code =
            database_bind(reports, "iiiii", wanted.number, (int64_t)task.step, (int64_t)task.index,
                          (int64_t)after, (int64_t)(limit < INT32_MAX ? limit : INT32_MAX));
    if (code == SQLITE_OK)
        code = find_reports(reader, reports, &found, &damaged);
    if (code == SQLITE_OK && found.n)
        qsort(found.records, found.n, sizeof *found.records, by_sequence);
    for (size_t i = 0; code == SQLITE_OK && i < found.n && !ended; i++)
        ended = give(&end, &found.records[i]);
    found_deinit(&found);
    return answer(reader, code, damaged, &end);
}

/* ---- reports, newest first ---- */

/* Of a statement that is bound; `current` as in give_after. */
static int give_reports(struct store_reader *reader, sqlite3_stmt *rows, int code, bool current,
                        struct list_end *end)
{
    bool damaged = false, over = false;

    while (code == SQLITE_OK && end->left && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        struct record record;

        code = read_report(&reader->database, rows, &record, &damaged);
        if (code == SQLITE_OK && current) {
            code = report_over(&reader->database, reader->database.statements[ABOVE], rows, &record,
                               &over);
            damaged |= code == SQLITE_CORRUPT;
        }
        if (code == SQLITE_OK && !over && give(end, &record))
            break;
    }
    int r = answer(reader, code, damaged, end);
    sqlite3_reset(rows);
    return r;
}

static int64_t below(uint64_t before)
{
    return before && before < INT64_MAX ? (int64_t)before : INT64_MAX;
}

int store_failures(struct store_reader *reader, const struct job_id *job, uint64_t before,
                   size_t limit, store_row *each, void *user)
{
    sqlite3_stmt *rows = reader->database.statements[FAILURES];
    struct list_end end = {limit, each, user, 0};
    int64_t number;
    int code = begin(reader, job, &number);

    if (code == SQLITE_OK)
        code = database_bind(rows, "iii", number, below(before), (int64_t)CLASS_CANCELLED);
    return give_reports(reader, rows, code, false, &end);
}

int store_warnings(struct store_reader *reader, const struct job_id *job, uint64_t before,
                   size_t limit, store_row *each, void *user)
{
    sqlite3_stmt *rows = reader->database.statements[WARNINGS];
    struct list_end end = {limit, each, user, 0};
    int64_t number;
    int code = begin(reader, job, &number);

    if (code == SQLITE_OK)
        code = database_bind(rows, "ii", number, below(before));
    return give_reports(reader, rows, code, true, &end);
}

/* ---- all jobs' ---- */

static void pass(void *user, const char *why)
{
    (void)user;
    (void)why;
}

int attempts_home(struct database *database, void (*each)(void *user, const struct record *record),
                  void *user)
{
    sqlite3_stmt *rows = NULL, *reports = NULL, *floors = NULL;
    const struct record *record;
    bool over;
    int code = sqlite3_prepare_v2(database->handle, RESULTS " ORDER BY sequence", -1, &rows, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(database->handle,
                                  "SELECT " DATABASE_ATTEMPT_COLUMNS
                                  " FROM reports WHERE class = 0 ORDER BY sequence",
                                  -1, &reports, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(database->handle, FLOORS_ABOVE, -1, &floors, NULL);
    struct merged merged = {
        .database = database,
        .reports = reports,
        .unpack = {.database = database, .rows = rows, .floors = floors, .bad = pass}};
    if (code == SQLITE_OK)
        code = merged_begin(&merged);
    while (code == SQLITE_OK && (code = merged_next(&merged, &record, &over)) == SQLITE_ROW) {
        if (!over)
            each(user, record);
        code = merged_leave(&merged, record);
    }
    merged_end(&merged);
    sqlite3_finalize(rows);
    sqlite3_finalize(reports);
    sqlite3_finalize(floors);
    return code == SQLITE_DONE ? 0 : database_error(database, code, "state.db: the results");
}
