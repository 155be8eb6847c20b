/* attempts.c - lists of results and attempts say what a plain list of all that was committed says,
 * however the store has put it into rows. The history is made from a seed: jobs side by side, tasks
 * over several pages, floors, failures, warnings, blobs of any size, batches of any size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/reader.h>

enum { JOBS = 4, TASKS = 2500, STEPS = 2, RECORDS = 12000, BLOB = 300, QUERIES = 400 };

static char folder[64];
static struct record history[RECORDS];
static uint8_t bytes[1 << 20];
static uint64_t state;

static uint64_t any(uint64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

static int setup(void **unused)
{
    (void)unused;
    strcpy(folder, "/tmp/westlight-attempts-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    return folder_remove(folder);
}

static struct job_id job_of(uint64_t n)
{
    return (struct job_id){{(uint8_t)(n * 37), 7, (uint8_t)n}};
}

/* ---- a history ---- */

/* A task has one result a floor: its next comes at the next floor. */
static uint32_t floors[JOBS][STEPS][TASKS];

static void make_record(uint64_t sequence, struct record *record)
{
    bool side_by_side = sequence < RECORDS / 2; /* or mostly one after another */
    uint64_t number = side_by_side ? sequence % JOBS : any(10) ? sequence / 1500 % JOBS : any(JOBS);
    uint32_t step = side_by_side ? sequence / JOBS % STEPS : any(4) == 0;
    uint64_t next = side_by_side ? sequence / JOBS / STEPS : sequence;
    uint64_t task = any(8) ? next % TASKS : any(TASKS);
    uint32_t *floor = &floors[number][step][task];
    bool fails = any(12) == 0;

    *record = (struct record){.kind = RECORD_ATTEMPT,
                              .sequence = sequence,
                              .wall_s = 1000 + (int64_t)(sequence > RECORDS / 2 ? sequence / 700 : 0),
                              .job = job_of(number)};
    record->attempt.lease = (struct lease_id){
        record->job, {step, task}, *floor, 3 + (any(20) == 0), any(1000) << any(50)};
    memset(record->attempt.worker.bytes, (int)any(30), sizeof record->attempt.worker.bytes);
    record->attempt.class = fails ? CLASS_RENDERER + (enum attempt_class)any(6) : CLASS_OK;
    record->attempt.warned = !fails && any(15) == 0;
    record->attempt.usage = (struct usage){any(UINT64_MAX) << any(30), any(9), 0, UINT64_MAX,
                                           any(1 << 30), any(2)};
    record->attempt.blob_size = any(3000) ? any(BLOB) : any(200000);
    record->attempt.blob = bytes + any(sizeof bytes - record->attempt.blob_size);
    *floor += !fails;
}

static void wait_for(struct store *store, uint64_t batch)
{
    uint64_t done = 0;

    for (;;) {
        assert_int_equal(store_completed(store, &done), 0);
        if (done >= batch)
            return;
        struct pollfd ready = {.fd = store_fd(store), .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 20000), 1);
    }
}

static void commit_history(void)
{
    struct job_spec specs[JOBS] = {{.name = NULL}};
    struct record jobs[JOBS];
    struct store *store = NULL;
    uint64_t batch = 1;

    assert_int_equal(store_open(folder, &store), 0);
    for (uint64_t i = 0; i < JOBS; i++) {
        specs[i] = (struct job_spec){.job = job_of(i), .studio = {1}, .name = "", .blob = ""};
        jobs[i] = (struct record){.kind = RECORD_JOB, .sequence = i + 1, .job = job_of(i)};
        jobs[i].submit.spec = &specs[i];
    }
    assert_int_equal(store_submit(store, batch, jobs, JOBS), 0);
    memset(floors, 0, sizeof floors);
    for (uint64_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)any(256);
    for (uint64_t i = 0; i < RECORDS; i++)
        make_record(JOBS + 1 + i, &history[i]);
    for (size_t at = 0; at < RECORDS;) {
        size_t n = at == 0 ? 5500 : any(3) ? 1 + any(600) : any(2) ? 1 : 1 + any(6000);

        n = n > RECORDS - at ? RECORDS - at : n;
        assert_int_equal(store_submit(store, ++batch, history + at, n), 0);
        if (any(3) == 0)
            wait_for(store, batch);
        at += n;
    }
    wait_for(store, batch);
    store_close(store);
}

/* ---- the plain list ---- */

static bool is_result(const struct record *record)
{
    return record->attempt.class == CLASS_OK;
}

/* `floors` are now past the newest result of each. */
static bool is_over(const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;

    return lease->floor + 1 < floors[record->job.bytes[2]][lease->task.step][lease->task.index];
}

struct query {
    struct job_id job;
    uint32_t step;
    uint64_t first, last, from; /* tasks; a sequence */
    size_t limit;
};

struct wanted {
    const struct record *rows[RECORDS];
    size_t n, at;
};

enum list { LIST_RESULTS, LIST_HISTORY, LIST_STEP, LIST_TASK, LIST_FAILURES, LIST_WARNINGS, LISTS };

static bool belongs(enum list list, const struct query *query, const struct record *record)
{
    const struct task_id *task = &record->attempt.lease.task;

    if (memcmp(&record->job, &query->job, sizeof query->job))
        return false;
    switch (list) {
    case LIST_RESULTS:
        return record->sequence > query->from && is_result(record) && !is_over(record);
    case LIST_HISTORY:
        return record->sequence > query->from;
    case LIST_STEP:
        return is_result(record) && task->step == query->step && task->index >= query->first &&
               task->index <= query->last && !is_over(record);
    case LIST_TASK:
        return record->sequence > query->from && task->step == query->step &&
               task->index == query->first;
    case LIST_FAILURES:
        return (query->from == 0 || record->sequence < query->from) && !is_result(record) &&
               record->attempt.class != CLASS_CANCELLED;
    default:
        return (query->from == 0 || record->sequence < query->from) && record->attempt.warned &&
               !is_over(record);
    }
}

static int by_task(const void *a, const void *b)
{
    uint64_t one = (*(const struct record *const *)a)->attempt.lease.task.index;
    uint64_t other = (*(const struct record *const *)b)->attempt.lease.task.index;

    return one < other ? -1 : one > other;
}

static void list_plainly(enum list list, const struct query *query, struct wanted *wanted)
{
    wanted->n = wanted->at = 0;
    for (size_t i = 0; i < RECORDS; i++) {
        size_t place = list >= LIST_FAILURES ? RECORDS - 1 - i : i;
        if (belongs(list, query, &history[place]))
            wanted->rows[wanted->n++] = &history[place];
    }
    if (list == LIST_STEP)
        qsort(wanted->rows, wanted->n, sizeof *wanted->rows, by_task);
    if (wanted->n > query->limit)
        wanted->n = query->limit;
}

static void same(const struct record *is, const struct record *should)
{
    assert_int_equal(is->sequence, should->sequence);
    assert_int_equal(is->wall_s, should->wall_s);
    assert_memory_equal(&is->job, &should->job, sizeof is->job);
    assert_memory_equal(&is->attempt.lease.job, &should->job, sizeof is->job);
    assert_int_equal(is->attempt.lease.task.step, should->attempt.lease.task.step);
    assert_int_equal(is->attempt.lease.task.index, should->attempt.lease.task.index);
    assert_int_equal(is->attempt.lease.floor, should->attempt.lease.floor);
    assert_int_equal(is->attempt.lease.epoch, should->attempt.lease.epoch);
    assert_int_equal(is->attempt.lease.attempt, should->attempt.lease.attempt);
    assert_memory_equal(&is->attempt.worker, &should->attempt.worker, sizeof is->attempt.worker);
    assert_int_equal(is->attempt.class, should->attempt.class);
    assert_int_equal(is->attempt.warned, should->attempt.warned);
    assert_memory_equal(&is->attempt.usage, &should->attempt.usage, sizeof is->attempt.usage);
    assert_int_equal(is->attempt.blob_size, should->attempt.blob_size);
    if (is->attempt.blob_size)
        assert_memory_equal(is->attempt.blob, should->attempt.blob, is->attempt.blob_size);
}

static int see_row(void *user, const struct attempt_row *row)
{
    struct wanted *wanted = user;

    assert_true(wanted->at < wanted->n);
    assert_int_equal(row->sequence, row->record.sequence);
    same(&row->record, wanted->rows[wanted->at++]);
    return 0;
}

static int ask(struct store_reader *reader, enum list list, const struct query *query, void *user)
{
    switch (list) {
    case LIST_RESULTS:
        return store_results(reader, &query->job, query->from, query->limit, see_row, user);
    case LIST_HISTORY:
        return store_history(reader, &query->job, query->from, query->limit, see_row, user);
    case LIST_STEP:
        return store_step_results(reader, &query->job, query->step, query->first, query->last,
                                  query->limit, see_row, user);
    case LIST_TASK:
        return store_attempts(reader, &query->job, (struct task_id){query->step, query->first},
                              query->from, query->limit, see_row, user);
    case LIST_FAILURES:
        return store_failures(reader, &query->job, query->from, query->limit, see_row, user);
    default:
        return store_warnings(reader, &query->job, query->from, query->limit, see_row, user);
    }
}

/* ---- tests ---- */

static int see_record(void *user, const struct record *record)
{
    size_t *n = user;

    if (record->kind == RECORD_JOB)
        return 0;
    assert_true(*n < RECORDS);
    same(record, &history[(*n)++]);
    return 0;
}

static void lists_say_what_a_plain_list_says(void **unused)
{
    static struct wanted wanted;
    struct store_reader *reader = NULL;

    (void)unused;
    state = 20;
    commit_history();
    assert_int_equal(store_reader_new(folder, &reader), 0);
    for (size_t i = 0; i < QUERIES; i++) {
        enum list list = (enum list)(i % LISTS);
        struct query query = {.job = job_of(any(JOBS)),
                              .step = (uint32_t)any(STEPS),
                              .first = any(TASKS),
                              .from = any(4) ? any(RECORDS + 10) : 0,
                              .limit = any(2) ? RECORDS : 1 + any(50)};

        query.last = any(2) ? query.first + any(20) : query.first + any(TASKS);
        list_plainly(list, &query, &wanted);
        assert_int_equal(ask(reader, list, &query, &wanted), 0);
        assert_int_equal(wanted.at, wanted.n);
    }
    store_reader_free(reader);
}

static void recovery_gives_every_record_in_order_and_check_finds_nothing(void **unused)
{
    struct store_checker checker = {0};
    struct store *store = NULL;
    size_t n = 0;

    (void)unused;
    state = 21;
    commit_history();
    assert_int_equal(store_open(folder, &store), 0);
    assert_int_equal(store_recover(store, see_record, &n), 0);
    assert_int_equal(n, RECORDS);
    store_close(store);
    assert_int_equal(store_check(folder, &checker), 0);
}

/* As a person reads it, without this program. */
static void the_view_says_the_same_to_a_person(void **unused)
{
    char path[128];
    sqlite3 *handle = NULL;
    sqlite3_stmt *row = NULL;
    size_t n = 0;

    (void)unused;
    state = 22;
    commit_history();
    snprintf(path, sizeof path, "%s/state.db", folder);
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(handle,
                                        "SELECT sequence, wall_s, job, step, task, floor, epoch,"
                                        " attempt, worker, class, wall_ns, card_ns, blob, warned"
                                        " FROM attempts ORDER BY sequence",
                                        -1, &row, NULL),
                     SQLITE_OK);
    for (; sqlite3_step(row) == SQLITE_ROW; n++) {
        const struct record *record = &history[n];
        const struct lease_id *lease = &record->attempt.lease;
        const int64_t numbers[] = {(int64_t)record->sequence,
                                   record->wall_s,
                                   0,
                                   lease->task.step,
                                   (int64_t)lease->task.index,
                                   lease->floor,
                                   lease->epoch,
                                   (int64_t)lease->attempt,
                                   0,
                                   record->attempt.class,
                                   (int64_t)record->attempt.usage.wall_ns,
                                   (int64_t)record->attempt.usage.card_ns,
                                   0,
                                   record->attempt.warned};

        for (int i = 0; i < 14; i++)
            if (i != 2 && i != 8 && i != 12)
                assert_int_equal(sqlite3_column_int64(row, i), numbers[i]);
        assert_memory_equal(sqlite3_column_blob(row, 2), &record->job, sizeof record->job);
        assert_memory_equal(sqlite3_column_blob(row, 8), &record->attempt.worker, 32);
        assert_int_equal(sqlite3_column_bytes(row, 12), record->attempt.blob_size);
        if (record->attempt.blob_size)
            assert_memory_equal(sqlite3_column_blob(row, 12), record->attempt.blob,
                                record->attempt.blob_size);
    }
    assert_int_equal(n, RECORDS);
    sqlite3_finalize(row);
    sqlite3_close(handle);
}

/* Within a row, beside a row, and between a row and a result that has something to say. */
static void a_second_result_of_a_floor_is_refused_wherever_the_first_lies(void **unused)
{
    for (int i = 0; i < 4; i++) {
        struct job_spec spec = {.job = job_of(1), .name = "", .blob = ""};
        struct record job = {.kind = RECORD_JOB, .sequence = 1, .job = job_of(1)};
        struct record records[2];
        struct store *store = NULL;
        uint64_t done = 0;
        int r = 0;

        setup(unused);
        memset(floors, 0, sizeof floors);
        job.submit.spec = &spec;
        for (size_t j = 0; j < 2; j++) {
            make_record(2 + j, &records[j]);
            records[j].job = records[j].attempt.lease.job = job_of(1);
            records[j].attempt.lease.task = (struct task_id){0, 70};
            records[j].attempt.lease.floor = 5;
            records[j].attempt.class = CLASS_OK;
            records[j].attempt.warned = i == 2 ? j == 0 : i == 3 ? j == 1 : false;
        }
        assert_int_equal(store_open(folder, &store), 0);
        assert_int_equal(store_submit(store, 1, &job, 1), 0);
        assert_int_equal(store_submit(store, 2, records, i ? 1 : 2), 0);
        if (i) {
            wait_for(store, 2);
            assert_int_equal(store_submit(store, 3, records + 1, 1), 0);
        }
        while ((r = store_completed(store, &done)) == 0) {
            struct pollfd ready = {.fd = store_fd(store), .events = POLLIN};
            assert_int_equal(poll(&ready, 1, 20000), 1);
        }
        assert_true(r < 0);
        assert_int_equal(done, i ? 2 : done);
        assert_true(done < 3);
        store_close(store);
        teardown(unused);
    }
    setup(unused);
}

static int see_next(void *user, const struct attempt_row *row)
{
    uint64_t *sequence = user;

    assert_true(row->sequence > *sequence);
    assert_int_equal(row->record.attempt.blob_size, 8);
    assert_memory_equal(row->record.attempt.blob, &row->sequence, 8);
    assert_true(*sequence < 10 || row->sequence == *sequence + 1);
    *sequence = row->sequence;
    return 0;
}

/* A page of its attempts is the next of them, and a page of results has its newest. */
static void a_task_that_was_run_anew_very_often_is_listed_in_pages(void **unused)
{
    enum { FIRST = 10, FLOORS = 900 };
    struct job_spec spec = {.job = job_of(1), .name = "", .blob = ""};
    struct record job = {.kind = RECORD_JOB, .sequence = 1, .job = job_of(1)};
    struct record *records = calloc(FLOORS, sizeof *records);
    struct store_reader *reader = NULL;
    struct store *store = NULL;
    uint64_t batch = 1, sequence = 0;

    (void)unused;
    state = 23;
    job.submit.spec = &spec;
    assert_int_equal(store_open(folder, &store), 0);
    assert_int_equal(store_submit(store, batch, &job, 1), 0);
    for (size_t i = 0; i < FLOORS; i++) {
        records[i] = (struct record){
            .kind = RECORD_ATTEMPT, .sequence = FIRST + i, .job = job_of(1)};
        records[i].attempt.lease = (struct lease_id){
            .job = job_of(1), .task = {0, 70}, .floor = (uint32_t)i, .epoch = 1};
        records[i].attempt.warned = any(4) == 0;
        records[i].attempt.blob = &records[i].sequence;
        records[i].attempt.blob_size = sizeof records[i].sequence;
    }
    for (size_t at = 0; at < FLOORS; at += FLOORS / 9)
        assert_int_equal(store_submit(store, ++batch, records + at, FLOORS / 9), 0);
    wait_for(store, batch);
    assert_int_equal(store_reader_new(folder, &reader), 0);
    for (uint64_t before = 1; before != sequence;) {
        before = sequence;
        assert_int_equal(store_attempts(reader, &job.job, (struct task_id){0, 70}, sequence, 7,
                                        see_next, &sequence),
                         0);
        assert_true(sequence <= (before ? before : FIRST - 1) + 7);
    }
    assert_int_equal(sequence, FIRST + FLOORS - 1);
    sequence = 0;
    assert_int_equal(store_step_results(reader, &job.job, 0, 0, 5000, 7, see_next, &sequence), 0);
    assert_int_equal(sequence, FIRST + FLOORS - 1);
    store_reader_free(reader);
    store_close(store);
    free(records);
}

/* ---- what is committed while a list is read ---- */

struct meanwhile {
    struct store *store;
    bool done;
    size_t n;
    uint64_t seen[8];
};

static void make_one(struct record *record, uint64_t sequence, uint64_t task, bool warned)
{
    *record = (struct record){.kind = RECORD_ATTEMPT, .sequence = sequence, .job = job_of(1)};
    record->attempt.lease = (struct lease_id){.job = job_of(1), .task = {0, task}, .epoch = 1};
    record->attempt.warned = warned;
}

/* As the list turns to table reports: a plain result and, behind it, one with something to say. */
static int on_statement(unsigned event, void *user, void *statement, void *text)
{
    struct meanwhile *meanwhile = user;
    struct record records[2];

    (void)event;
    (void)text;
    if (meanwhile->done || !strstr(sqlite3_sql(statement), "FROM reports"))
        return 0;
    meanwhile->done = true;
    make_one(&records[0], 3, 7, false);
    make_one(&records[1], 4, 7, true);
    records[1].attempt.lease.floor = 1;
    records[1].attempt.lease.task.index = 8;
    assert_int_equal(store_submit(meanwhile->store, 3, records, 2), 0);
    wait_for(meanwhile->store, 3);
    return 0;
}

static int note_sequence(void *user, const struct attempt_row *row)
{
    struct meanwhile *meanwhile = user;

    assert_true(meanwhile->n < 8);
    meanwhile->seen[meanwhile->n++] = row->sequence;
    return 0;
}

static void whoever_goes_on_from_what_was_given_misses_nothing_that_was_committed_meanwhile(
    void **unused)
{
    for (size_t before = 0; before < 2; before++)
        for (int history_too = 0; history_too < 2; history_too++) {
            int (*list)(struct store_reader *, const struct job_id *, uint64_t, size_t, store_row *,
                        void *) = history_too ? store_history : store_results;
            struct job_spec spec = {.job = job_of(1), .name = "", .blob = ""};
            struct record first[2] = {{.kind = RECORD_JOB, .sequence = 1, .job = job_of(1)}};
            struct meanwhile meanwhile = {0};
            struct store_reader *reader = NULL;

            setup(unused);
            first[0].submit.spec = &spec;
            make_one(&first[1], 2, 6, false);
            assert_int_equal(store_open(folder, &meanwhile.store), 0);
            assert_int_equal(store_submit(meanwhile.store, 1, first, 1 + before), 0);
            wait_for(meanwhile.store, 1);
            assert_int_equal(store_reader_new(folder, &reader), 0);
            sqlite3_trace_v2(reader->database.handle, SQLITE_TRACE_STMT, on_statement, &meanwhile);
            for (uint64_t after = 0, n = SIZE_MAX; n != meanwhile.n;) {
                n = meanwhile.n;
                assert_int_equal(
                    list(reader, &first[0].job, after, 10, note_sequence, &meanwhile), 0);
                after = meanwhile.n ? meanwhile.seen[meanwhile.n - 1] : 0;
                if (n == 0 && meanwhile.n == 0)
                    n = SIZE_MAX; /* only now it is there */
            }
            assert_true(meanwhile.done);
            assert_int_equal(meanwhile.n, before + 2);
            for (size_t i = 0; i < meanwhile.n; i++)
                assert_int_equal(meanwhile.seen[i], 3 - before + i);
            store_reader_free(reader);
            store_close(meanwhile.store);
            teardown(unused);
        }
    setup(unused);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(lists_say_what_a_plain_list_says),
        T(recovery_gives_every_record_in_order_and_check_finds_nothing),
        T(the_view_says_the_same_to_a_person),
        T(a_second_result_of_a_floor_is_refused_wherever_the_first_lies),
        T(a_task_that_was_run_anew_very_often_is_listed_in_pages),
        T(whoever_goes_on_from_what_was_given_misses_nothing_that_was_committed_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
