/* store.c - what was committed is there, in order, and nothing else.
 *
 * Two tests stand a layer between SQLite and the disk that fails writes or syncs on demand; the
 * rest run on the real thing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <broker/store/store.h>
#include <proto/base/clock.h>
#include <tests/unit/faulty_disk.h>

/* ---- helpers ---- */

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/westlight-store-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&fail_code_write, 0);
    atomic_store(&fail_code_sync, 0);
    return folder_remove(folder);
}

static struct job_id job_of(uint8_t n)
{
    struct job_id job = {{n, 1, 2, 3}};
    return job;
}

static struct record attempt_record(uint64_t sequence, uint64_t task, uint32_t floor,
                                    enum attempt_class class)
{
    struct record record = {
        .kind = RECORD_ATTEMPT, .sequence = sequence, .wall_s = 1000, .job = job_of(1)};
    record.attempt.lease = (struct lease_id){job_of(1), {2, task}, floor, 7, sequence * 10};
    record.attempt.worker.bytes[0] = 9;
    record.attempt.class = class;
    record.attempt.usage = (struct usage){1, 2, 3, 4, 5, UINT64_MAX};
    record.attempt.blob = "result";
    record.attempt.blob_size = 6;
    return record;
}

static struct record note_record(uint64_t sequence, uint64_t task)
{
    struct record record = {
        .kind = RECORD_NOTE, .sequence = sequence, .wall_s = 5, .job = job_of(1)};
    record.note.lease = (struct lease_id){job_of(1), {2, task}, 0, 7, sequence};
    record.note.worker.bytes[31] = 4;
    record.note.gpu_mask = 0x80000001u;
    return record;
}

/* Results are of a job that is there. Ahead of what a test counts; see() passes it over. */
static void submit_job(struct store *store)
{
    struct job_spec spec = {.job = job_of(1), .studio = {1}, .name = "", .blob = "", .blob_size = 0};
    struct record record = {.kind = RECORD_JOB, .job = job_of(1), .submit.spec = &spec};

    assert_int_equal(store_submit(store, 0, &record, 1), 0);
}

static void wait_for(struct store *store, uint64_t batch)
{
    uint64_t done = 0;
    for (;;) {
        assert_int_equal(store_completed(store, &done), 0);
        if (done >= batch)
            return;
        struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    }
}

static int wait_for_failure(struct store *store, uint64_t *ret_durable)
{
    for (;;) {
        int r = store_completed(store, ret_durable);
        if (r)
            return r;
        struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    }
}

struct seen {
    struct record records[64];
    char names[64][32];
    char blobs[64][32];
    size_t n, stop_at;
};

static int see(void *user, const struct record *record)
{
    struct seen *seen = user;
    if (record->sequence == 0)
        return 0;
    assert_true(seen->n < 64);
    seen->records[seen->n] = *record;
    if (record->kind == RECORD_JOB) {
        const struct job_spec *spec = record->submit.spec;
        snprintf(seen->names[seen->n], 32, "%s %u %d", spec->name, spec->studio.value,
                 spec->priority);
        memcpy(seen->blobs[seen->n], spec->blob, spec->blob_size);
    } else if (record->kind == RECORD_ATTEMPT) {
        memcpy(seen->blobs[seen->n], record->attempt.blob, record->attempt.blob_size);
    } else if (record->kind == RECORD_TEND) {
        snprintf(seen->names[seen->n], 32, "%s", record->tend.text);
    } else if (record->kind == RECORD_EDIT) {
        memcpy(seen->blobs[seen->n], record->edit.blob, record->edit.blob_size);
    }
    seen->n++;
    return seen->n == seen->stop_at ? 77 : 0;
}

struct counted {
    unsigned forgotten, others;
};

static int count_record(void *user, const struct record *record)
{
    struct counted *counted = user;

    if (record->kind == RECORD_FORGET)
        counted->forgotten++;
    else
        counted->others++;
    return 0;
}

static struct store *open_store(void)
{
    struct store *store = NULL;
    int r = store_open(folder, &store);
    if (r)
        fprintf(stderr, "%s\n", store_why(NULL));
    assert_int_equal(r, 0);
    return store;
}

static struct store *open_with_job(void)
{
    struct store *store = open_store();
    submit_job(store);
    return store;
}

static int count_sql(const char *text)
{
    char path[128];
    sqlite3 *handle = NULL;
    sqlite3_stmt *count = NULL;

    snprintf(path, sizeof path, "%s/state.db", folder);
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    sqlite3_busy_timeout(handle, 5000);
    assert_int_equal(sqlite3_prepare_v2(handle, text, -1, &count, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(count), SQLITE_ROW);
    int n = sqlite3_column_int(count, 0);
    sqlite3_finalize(count);
    sqlite3_close(handle);
    return n;
}

static void run_sql(const char *text)
{
    char path[128];
    sqlite3 *handle = NULL;
    snprintf(path, sizeof path, "%s/state.db", folder);
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    sqlite3_busy_timeout(handle, 5000);
    assert_int_equal(sqlite3_exec(handle, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(handle);
}

/* ---- tests ---- */

static void every_kind_of_record_comes_back_in_order(void **state)
{
    struct store *store = open_store();
    struct job_spec spec = {.job = job_of(1),
                            .studio = {3},
                            .priority = -5,
                            .name = "shot 10",
                            .blob = "compiled",
                            .blob_size = 8};
    struct record job = {
        .kind = RECORD_JOB, .sequence = 1, .wall_s = 11, .job = job_of(1), .submit.spec = &spec};
    struct record request = {.kind = RECORD_REQUEST, .sequence = 2, .wall_s = 12, .job = job_of(1)};
    request.request.studio.value = 3;
    request.request.request.bytes[5] = 6;
    request.request.digest.bytes[7] = 8;
    request.request.code = CODE_STATE;
    request.request.tasks = 99;
    struct record change = {.kind = RECORD_CHANGE, .sequence = 4, .wall_s = 13, .job = job_of(1)};
    change.change.change = CHANGE_LEAVE_OUT;
    change.change.range = (struct task_range){1, 2, 300};
    change.change.floor = 4;
    change.change.state = JOB_PAUSED;
    change.change.reason = REASON_FAILED_MANY;
    struct record edit = {.kind = RECORD_EDIT, .sequence = 6, .wall_s = 14, .job = job_of(1)};
    edit.edit.what = EDIT_NAME | EDIT_PRIORITY;
    edit.edit.name = "shot 11";
    edit.edit.priority = 50;
    edit.edit.blob = "edited";
    edit.edit.blob_size = 6;
    char text[] = "disk swap";
    struct record tend = {.kind = RECORD_TEND, .sequence = 7, .wall_s = 15};
    tend.tend.tend = TEND_NOTE;
    tend.tend.worker.bytes[31] = 7;
    tend.tend.text = text;
    tend.tend.until_wall_s = 1LL << 40;
    struct record first[] = {job, request, note_record(3, 8)},
                  second[] = {change, attempt_record(5, 7, 1, CLASS_OK), edit, tend};
    assert_int_equal(store_submit(store, 1, first, 3), 0);
    memset(&spec, 0xee, sizeof spec); /* the store has its own copy */
    assert_int_equal(store_submit(store, 2, second, 4), 0);
    memset(text, 'x', 9); /* of this, too */
    wait_for(store, 2);
    store_close(store);

    store = open_store();
    struct seen seen = {0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(seen.records[i].sequence, i + 1);
    assert_string_equal(seen.names[0], "shot 10 3 -5"); /* as submitted, not as changed since */
    assert_string_equal(seen.blobs[0], "compiled");
    assert_memory_equal(&seen.records[1].request, &request.request, sizeof request.request);
    struct record note = note_record(3, 8);
    assert_memory_equal(&seen.records[2].note.lease, &note.note.lease, sizeof note.note.lease);
    assert_memory_equal(&seen.records[2].note.worker, &note.note.worker, 32);
    assert_int_equal(seen.records[2].note.gpu_mask, 0x80000001u);
    assert_int_equal(seen.records[3].change.change, CHANGE_LEAVE_OUT);
    assert_int_equal(seen.records[3].change.range.last, 300);
    assert_int_equal(seen.records[3].change.reason, REASON_FAILED_MANY);
    struct record attempt = attempt_record(5, 7, 1, CLASS_OK);
    assert_memory_equal(&seen.records[4].attempt.lease, &attempt.attempt.lease,
                        sizeof attempt.attempt.lease);
    assert_memory_equal(&seen.records[4].attempt.usage, &attempt.attempt.usage,
                        sizeof attempt.attempt.usage);
    assert_string_equal(seen.blobs[4], "result");
    assert_int_equal(seen.records[5].kind, RECORD_EDIT);
    assert_string_equal(seen.blobs[5], "edited"); /* the rest is for the callee to read in it */
    assert_int_equal(seen.records[6].tend.tend, TEND_NOTE);
    assert_memory_equal(&seen.records[6].tend.worker, &tend.tend.worker, 32);
    assert_string_equal(seen.names[6], "disk swap");
    assert_int_equal(seen.records[6].tend.until_wall_s, 1LL << 40);

    struct seen stopped = {.stop_at = 2};
    assert_int_equal(store_recover(store, see, &stopped), 77);
    assert_int_equal(stopped.n, 2);
    store_close(store);
}

static void an_attempt_or_a_later_note_replaces_the_note(void **state)
{
    struct store *store = open_with_job();
    struct record records[] = {note_record(1, 1), note_record(2, 2), note_record(3, 2),
                               attempt_record(4, 1, 0, CLASS_RENDERER)};
    assert_int_equal(store_submit(store, 1, records, 4), 0);
    wait_for(store, 1);
    struct seen seen = {0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.records[0].sequence, 3);
    assert_int_equal(seen.records[1].sequence, 4);
    store_close(store);
}

static int count_notes(void *user, const struct record *record)
{
    *(int *)user += record->kind == RECORD_NOTE;
    return 0;
}

/* Also where so many were noted that what is known of them has been read anew, and after a start. */
static void no_note_of_many_outlives_its_attempt(void **state)
{
    enum { NOTES = 9000, AT_ONCE = 500 };
    static struct record records[AT_ONCE];
    struct store *store = open_with_job();
    uint64_t batch = 0, sequence = 0;
    int notes = 0;

    for (uint64_t task = 0; task < NOTES; task += AT_ONCE) {
        for (uint64_t i = 0; i < AT_ONCE; i++)
            records[i] = note_record(++sequence, task + i);
        assert_int_equal(store_submit(store, ++batch, records, AT_ONCE), 0);
    }
    wait_for(store, batch);
    for (uint64_t task = 0; task < NOTES; task += AT_ONCE) {
        if (task == NOTES / 2) {
            wait_for(store, batch);
            store_close(store);
            store = open_store();
        }
        for (uint64_t i = 0; i < AT_ONCE; i++)
            records[i] = attempt_record(++sequence, task + i, 0, i % 9 ? CLASS_OK : CLASS_RENDERER);
        assert_int_equal(store_submit(store, ++batch, records, AT_ONCE), 0);
    }
    wait_for(store, batch);
    assert_int_equal(store_recover(store, count_notes, &notes), 0);
    assert_int_equal(notes, 0);
    store_close(store);
}

static void each_open_raises_the_epoch(void **state)
{
    struct store *store = open_store();
    uint32_t epoch = store_epoch(store);
    assert_int_equal(epoch, 1);
    store_close(store);
    store = open_store();
    assert_int_equal(store_epoch(store), 2);
    store_close(store);
}

static void an_older_epoch_is_fenced_off(void **state)
{
    struct store *store = open_with_job();
    run_sql("UPDATE meta SET value = value + 1, inverse = ~(value + 1) WHERE name = 'epoch'");
    struct record record = attempt_record(1, 1, 0, CLASS_OK);
    int r = store_submit(store, 1, &record, 1); /* refused where the writer has seen it by itself */
    assert_true(r == 0 || r == -ESTALE);
    uint64_t durable = 5;
    assert_int_equal(wait_for_failure(store, &durable), -ESTALE);
    assert_int_equal(durable, 0);
    assert_non_null(strstr(store_why(store), "another broker"));
    assert_int_equal(store_submit(store, 2, &record, 1), -ESTALE);
    store_close(store);
}

static void a_second_broker_is_told_who_holds_the_folder(void **state)
{
    struct store *store = open_store(), *second = NULL;
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld)", (long)getpid());
    assert_int_equal(store_open(folder, &second), STORE_E_LOCKED);
    assert_null(second);
    assert_non_null(strstr(store_why(NULL), pid));
    assert_int_equal(store_epoch(store), 1);
    store_close(store);
}

static void a_newer_schema_is_refused_and_left_alone(void **state)
{
    store_close(open_store());
    run_sql("PRAGMA user_version = 999");
    struct store *store = NULL;
    assert_int_equal(store_open(folder, &store), STORE_E_NEWER);
    assert_non_null(strstr(store_why(NULL), "newer program"));
    struct store_reader *reader = NULL;
    assert_int_equal(store_reader_new(folder, &reader), STORE_E_NEWER);
}

static void a_damaged_file_is_named(void **state)
{
    char path[128];
    snprintf(path, sizeof path, "%s/state.db", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        fputs("this is no database, ", file);
    fclose(file);
    struct store *store = NULL;
    assert_int_equal(store_open(folder, &store), STORE_E_CORRUPT);
    assert_non_null(strstr(store_why(NULL), path));
}

/* Every column that is read, one at a time, as a bit that has turned over would leave it. */
static void a_row_that_says_something_else_is_no_row(void **state)
{
    static const char *const changes[] = {
        "UPDATE results SET step = 3", "UPDATE results SET floor = floor | 4",
        "UPDATE results SET epoch = epoch | 8", "UPDATE results SET blobs = x'00'",
        "UPDATE results SET members = replace(members, '[1,1,20,', '[1,3,20,')",
        "UPDATE results SET workers = zeroblob(32)", "UPDATE results SET job = zeroblob(16)",
        "UPDATE results SET sequence = 9", "UPDATE results SET wall_s = wall_s | 1 << 40",
        "UPDATE results SET last = 9", "UPDATE results SET number = 1",
        "UPDATE results SET page = 1", "UPDATE results SET low = 0", "UPDATE results SET high = 9",
        "UPDATE results SET checksum = checksum | 1 << 62, step = 3",
        "UPDATE done SET tasks = tasks | 1 << 40", "UPDATE done SET tasks = 0", "DELETE FROM done",
        "UPDATE done SET page = 1", "UPDATE done SET floor = 1", "UPDATE done SET number = 1",
        "UPDATE reports SET task = task + 1", "UPDATE reports SET floor = floor | 4",
        "UPDATE reports SET epoch = epoch | 8", "UPDATE reports SET attempt = attempt | 1",
        "UPDATE reports SET class = 0", "UPDATE reports SET blob = x'00'",
        "UPDATE reports SET worker = zeroblob(32)", "UPDATE reports SET job = zeroblob(16)",
        "UPDATE reports SET sequence = 9", "UPDATE reports SET wall_s = wall_s | 1 << 40",
        "UPDATE reports SET warned = 1", "UPDATE reports SET card_ns = 0",
        "UPDATE reports SET number = 1", "UPDATE reports SET checksum = checksum | 1 << 62, step = 3",
        "UPDATE notes SET gpu_mask = 1", "UPDATE notes SET task = 7",
    };
    struct store *store = open_with_job();
    struct record records[] = {attempt_record(1, 5, 0, CLASS_OK), attempt_record(2, 1, 0, CLASS_OK),
                               note_record(3, 2), attempt_record(4, 2, 1, CLASS_TIMEOUT)};
    records[0].attempt.worker.bytes[3] = 1;
    records[2].note.lease.task.index = 3;
    assert_int_equal(store_submit(store, 1, records, 4), 0);
    wait_for(store, 1);
    store_close(store);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char copy[160], back[160];
        snprintf(copy, sizeof copy, "cp %s/state.db %s/kept", folder, folder);
        snprintf(back, sizeof back, "mv %s/kept %s/state.db", folder, folder);
        assert_int_equal(system(copy), 0);
        run_sql(changes[i]);
        struct seen seen = {0};
        store = open_store();
        if (store_recover(store, see, &seen) != STORE_E_CORRUPT)
            fail_msg("%s", changes[i]);
        assert_non_null(strstr(store_why(store), "damaged"));
        store_close(store);
        assert_int_equal(system(back), 0);
    }
    struct seen seen = {0};
    store = open_store();
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 4);
    store_close(store);
}

static void a_copy_that_is_opened_leaves_the_numbers_of_what_went_on(void **state)
{
    struct store *store = open_with_job();
    struct record first[] = {attempt_record(1, 1, 0, CLASS_OK), note_record(2, 2)},
                  second = attempt_record(3, 3, 0, CLASS_OK);
    struct bytes why = {0};
    char path[128], copy[64];
    uint32_t epoch = store_epoch(store);

    strcpy(copy, "/tmp/westlight-copy-XXXXXX");
    assert_non_null(mkdtemp(copy));
    snprintf(path, sizeof path, "%s/state.db", copy);
    assert_int_equal(store_submit(store, 1, first, 2), 0);
    wait_for(store, 1);
    assert_int_equal(store_copy(folder, path, &why), 0);
    assert_int_equal(store_submit(store, 2, &second, 1), 0);
    wait_for(store, 2);
    assert_int_equal(store_fence(store), 0);
    assert_true(store_sequence(store) == 0);
    store_close(store);

    struct store_checker checker = {0};
    assert_int_equal(store_check(copy, &checker), 0);
    assert_int_equal(store_open(copy, &store), 0);
    uint32_t restored = store_epoch(store);
    assert_true(restored > epoch + 1000);
    assert_true(store_fence(store) == restored);
    assert_true(store_sequence(store) > 1ULL << 32);
    struct seen seen = {0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 1); /* as it was then, without leases */
    uint64_t sequence = store_sequence(store);
    store_close(store);
    assert_int_equal(store_open(copy, &store), 0);
    assert_int_equal(store_epoch(store), restored + 1);
    assert_int_equal(store_fence(store), restored);
    assert_true(store_sequence(store) == sequence);
    store_close(store);
    bytes_deinit(&why);
    assert_int_equal(folder_remove(copy), 0);
}

/* A child commits twice and is killed, so that its log stays. */
static void leave_log(void)
{
    pid_t child = fork();
    if (child == 0) {
        struct store *store = open_with_job();
        for (uint64_t i = 1; i <= 3; i++) {
            struct record record = attempt_record(i, i, 0, CLASS_OK);
            store_submit(store, i, &record, 1);
            wait_for(store, i);
        }
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void flip_log(off_t at)
{
    char path[128];
    uint8_t byte;
    snprintf(path, sizeof path, "%s/state.db-wal", folder);
    int fd = open(path, O_RDWR);
    off_t size = lseek(fd, 0, SEEK_END);
    assert_true(size > 4 * 4120);
    at = at < 0 ? size + at : at;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* SQLite would go on with what is ahead of the bad frame. */
static void a_log_that_breaks_off_ahead_of_commits_is_damaged_and_a_torn_end_is_not(void **state)
{
    struct store *store = NULL;
    leave_log();
    const off_t places[] = {3, 20, 32 + 8, 32 + 24 + 7, 32 + 4120 + 17, -4120 - 50};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip_log(places[i]);
        assert_int_equal(store_open(folder, &store), STORE_E_CORRUPT);
        assert_non_null(strstr(store_why(NULL), "state.db-wal"));
        flip_log(places[i]);
    }
    flip_log(-50); /* the last frame: as a kill in the midst of it leaves it */
    struct seen seen = {0};
    store = open_store();
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 2);
    store_close(store);
}

static void a_database_that_is_gone_is_not_begun_anew_beside_a_vault(void **state)
{
    char path[128];
    struct store *store = open_store();
    store_close(store);
    snprintf(path, sizeof path, "%s/vault/1", folder);
    assert_int_equal(folder_make(path, 0700), 0);
    snprintf(path, sizeof path, "%s/state.db", folder);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(store_open(folder, &store), STORE_E_CORRUPT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_open(folder, &store), STORE_E_CORRUPT);
    assert_non_null(strstr(store_why(NULL), "it is gone"));
}

static void files_are_for_their_owner_only(void **state)
{
    struct store *store = open_store();
    const char *const names[] = {"state.db", "state.db-wal", "state.db-shm", "lock"};
    for (size_t i = 0; i < 4; i++) {
        char path[128];
        struct stat status;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
    store_close(store);
}

static void the_database_itself_refuses_a_second_result_of_a_floor(void **state)
{
    struct store *store = open_with_job();
    struct record records[] = {attempt_record(1, 1, 0, CLASS_OK),
                               attempt_record(2, 1, 0, CLASS_RENDERER),
                               attempt_record(3, 1, 1, CLASS_OK)};
    assert_int_equal(store_submit(store, 1, records, 3), 0);
    wait_for(store, 1);
    struct record again = attempt_record(4, 1, 1, CLASS_OK);
    assert_int_equal(store_submit(store, 2, &again, 1), 0);
    uint64_t durable = 0;
    assert_true(wait_for_failure(store, &durable) < 0);
    assert_int_equal(durable, 1);
    store_close(store);
}

static void a_batch_without_records_completes_in_its_turn(void **state)
{
    struct store *store = open_with_job();
    struct record record = attempt_record(1, 1, 0, CLASS_OK);
    assert_int_equal(store_submit(store, 10, NULL, 0), 0);
    assert_int_equal(store_submit(store, 11, &record, 1), 0);
    assert_int_equal(store_submit(store, 12, NULL, 0), 0);
    wait_for(store, 12);
    store_close(store);
}

static void batches_that_wait_share_a_sync(void **state)
{
    struct store *store = open_with_job();
    atomic_store(&syncs, 0);
    for (uint64_t i = 1; i <= 5000; i++) {
        struct record record = attempt_record(i, i, 0, CLASS_OK);
        assert_int_equal(store_submit(store, i, &record, 1), 0);
    }
    wait_for(store, 5000);
    assert_in_range(atomic_load(&syncs), 1, 2500);
    store_close(store);
}

/* An eventfd tells; *ret_durable is what is durable then. */
static void wait_for_full(struct store *store, bool full, uint64_t *ret_durable)
{
    while (store_full(store) != full) {
        struct pollfd event = {.fd = store_fd(store), .events = POLLIN};
        assert_int_equal(poll(&event, 1, 20000), 1);
        assert_int_equal(store_completed(store, ret_durable), 0);
    }
}

static void a_full_disk_is_waited_out_and_nothing_is_durable_meanwhile(void **state)
{
    struct store *store = open_with_job();
    uint64_t durable = 0;

    for (uint64_t batch = 1; batch <= 3; batch++) {
        struct record record = attempt_record(batch, batch, 0, CLASS_OK);
        if (batch == 2)
            atomic_store(&fail_code_write, SQLITE_FULL);
        assert_int_equal(store_submit(store, batch, &record, 1), 0);
        if (batch == 1)
            wait_for(store, 1);
        if (batch == 2)
            wait_for_full(store, true, &durable);
    }
    assert_int_equal(store_completed(store, &durable), 0);
    assert_int_equal(durable, 1);
    assert_non_null(strstr(store_why(store), "free space"));
    struct seen seen = {0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 1);
    atomic_store(&fail_code_write, 0);
    wait_for(store, 3);
    wait_for_full(store, false, &durable);
    seen = (struct seen){0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 3);
    store_close(store);
}

/* In mid-batch, because what was written of it no longer fits into memory: results that were gathered
 * by then must not be gathered twice. */
static void a_batch_that_found_no_space_half_way_is_written_once(void **state)
{
    enum { BLOB = 1 << 20, BIG = 6 };
    struct store *store = open_with_job();
    char *blob = calloc(1, BLOB);
    struct record records[1 + BIG] = {attempt_record(1, 1, 0, CLASS_OK)};
    struct counted counted = {0};
    uint64_t durable = 0;

    for (uint64_t i = 1; i <= BIG; i++) {
        records[i] = attempt_record(i + 1, i + 1, 0, CLASS_RENDERER);
        records[i].attempt.blob = blob;
        records[i].attempt.blob_size = BLOB;
    }
    atomic_store(&fail_code_write, SQLITE_FULL);
    assert_int_equal(store_submit(store, 1, records, 1 + BIG), 0);
    wait_for_full(store, true, &durable);
    atomic_store(&fail_code_write, 0);
    wait_for(store, 1);
    assert_int_equal(store_recover(store, count_record, &counted), 0);
    assert_int_equal(counted.others, 2 + BIG); /* and the job */
    store_close(store);
    free(blob);
}

static void a_store_is_closed_also_where_the_disk_is_full(void **state)
{
    struct store *store = open_with_job();
    struct record record = attempt_record(1, 1, 0, CLASS_OK);
    uint64_t durable = 0;

    atomic_store(&fail_code_write, SQLITE_FULL);
    assert_int_equal(store_submit(store, 1, &record, 1), 0);
    wait_for_full(store, true, &durable);
    store_close(store);
    atomic_store(&fail_code_write, 0);
    store = open_store();
    struct seen seen = {0};
    assert_int_equal(store_recover(store, see, &seen), 0);
    assert_int_equal(seen.n, 0);
    store_close(store);
}

static void a_failed_sync_is_fatal_and_never_tried_again(void **state)
{
    struct store *store = open_with_job();
    atomic_store(&fail_code_sync, SQLITE_IOERR_FSYNC);
    struct record record = attempt_record(1, 1, 0, CLASS_OK);
    assert_int_equal(store_submit(store, 1, &record, 1), 0);
    uint64_t durable = 0;
    assert_true(wait_for_failure(store, &durable) < 0);
    assert_int_equal(durable, 0);
    atomic_store(&fail_code_sync, 0);
    assert_true(store_submit(store, 2, &record, 1) < 0);
    store_close(store);
}

static void a_killed_broker_loses_nothing_it_completed(void **state)
{
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork();
    if (child == 0) {
        struct store *store = NULL;
        if (store_open(folder, &store))
            _exit(1);
        submit_job(store);
        for (uint64_t i = 1;; i++) {
            struct record record = attempt_record(i, i, 0, CLASS_OK);
            uint64_t done = 0;
            if (store_submit(store, i, &record, 1) || store_completed(store, &done) ||
                write(pipe_fds[1], &done, sizeof done) != sizeof done)
                _exit(2);
        }
    }
    close(pipe_fds[1]);
    uint64_t done = 0;
    while (done < 300)
        assert_int_equal(read(pipe_fds[0], &done, sizeof done), sizeof done);
    kill(child, SIGKILL);
    while (read(pipe_fds[0], &done, sizeof done) == sizeof done)
        ;
    close(pipe_fds[0]);
    waitpid(child, NULL, 0);

    run_sql("CREATE TEMP TABLE t(a CHECK(a)); INSERT INTO t SELECT count(*) = max(sequence) FROM "
            "attempts");
    struct store *store = open_store();
    assert_int_equal(store_epoch(store), 2);
    store_close(store);
    char text[128];
    snprintf(text, sizeof text,
             "CREATE TEMP TABLE t(a CHECK(a)); INSERT INTO t SELECT count(*) >= %llu FROM attempts",
             (unsigned long long)done);
    run_sql(text);
}

struct rows {
    uint64_t sequences[16];
    uint64_t tasks[16];
    size_t n;
    int answer;
};

static int row_seen(void *user, const struct attempt_row *row)
{
    struct rows *rows = user;
    rows->sequences[rows->n] = row->sequence;
    rows->tasks[rows->n++] = row->record.attempt.lease.task.index;
    return rows->answer;
}

static void readers_page_through_results_and_attempts(void **state)
{
    struct store *store = open_with_job();
    struct record records[] = {
        attempt_record(1, 5, 0, CLASS_RENDERER),  attempt_record(2, 5, 0, CLASS_OK),
        attempt_record(3, 4, 0, CLASS_OK),        attempt_record(4, 5, 1, CLASS_OK),
        attempt_record(5, 9, 0, CLASS_OK),        attempt_record(6, 9, 1, CLASS_TIMEOUT),
        attempt_record(7, 9, 1, CLASS_CANCELLED),
    };
    records[1].attempt.warned = records[2].attempt.warned = true;
    assert_int_equal(store_submit(store, 1, records, 7), 0);
    wait_for(store, 1);
    struct store_reader *reader = NULL;
    assert_int_equal(store_reader_new(folder, &reader), 0);
    struct job_id job = job_of(1), other = job_of(2);

    struct rows rows = {0};
    assert_int_equal(store_results(reader, &job, 2, 2, row_seen, &rows), 0);
    assert_int_equal(rows.n, 2);
    assert_int_equal(rows.sequences[0], 3);
    assert_int_equal(rows.sequences[1], 4);

    rows = (struct rows){0};
    assert_int_equal(store_step_results(reader, &job, 2, 4, 8, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 2); /* the newest of each */
    assert_int_equal(rows.tasks[0], 4);
    assert_int_equal(rows.sequences[1], 4);

    rows = (struct rows){0};
    assert_int_equal(store_attempts(reader, &job, (struct task_id){2, 5}, 1, 10, row_seen, &rows),
                     0);
    assert_int_equal(rows.n, 2);
    assert_int_equal(rows.sequences[0], 2);

    rows = (struct rows){0};
    assert_int_equal(store_failures(reader, &job, 0, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 2); /* of all tasks, newest first */
    assert_int_equal(rows.sequences[0], 6);
    assert_int_equal(rows.tasks[0], 9);
    assert_int_equal(rows.sequences[1], 1);
    rows = (struct rows){0};
    assert_int_equal(store_failures(reader, &job, 6, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 1);

    rows = (struct rows){0};
    assert_int_equal(store_warnings(reader, &job, 0, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 1); /* the other's task has a newer result */
    assert_int_equal(rows.sequences[0], 3);
    rows = (struct rows){0};
    assert_int_equal(store_warnings(reader, &job, 3, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 0);

    rows = (struct rows){.answer = 1};
    assert_int_equal(store_results(reader, &job, 0, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 1);
    rows = (struct rows){.answer = -EPIPE};
    assert_int_equal(store_results(reader, &job, 0, 10, row_seen, &rows), -EPIPE);
    rows = (struct rows){0};
    assert_int_equal(store_results(reader, &other, 0, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 0);
    store_reader_free(reader);
    store_close(store);
}

static struct key_row key_of(uint8_t n, enum role role, const char *studio, const char *name)
{
    struct key_row row = {.key = {{n}}, .role = role};
    snprintf(row.studio_name, sizeof row.studio_name, "%s", studio);
    snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static int count_keys(void *user, const struct key_row *row)
{
    (void)row;
    ++*(int *)user;
    return 0;
}

static void keys_are_allowed_changed_and_forbidden(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct key_row row = key_of(1, ROLE_STUDIO, "north", "ada"), found;
    assert_int_equal(store_allow(folder, &row, 1, &why), 0); /* before any broker ran here */
    struct store *store = open_store();
    assert_int_equal(store_epoch(store), 1);
    struct store_reader *reader = NULL;
    assert_int_equal(store_reader_new(folder, &reader), 0);

    assert_int_equal(store_key(reader, &row.key, &found), 0);
    assert_int_equal(found.role, ROLE_STUDIO);
    assert_int_equal(found.studio.value, 1);
    assert_int_equal(found.weight, 1);
    assert_string_equal(found.studio_name, "north");
    assert_string_equal(found.name, "ada");

    struct key_row second = key_of(2, ROLE_STUDIO, "south", "bo"),
                   worker = key_of(3, ROLE_WORKER, "", "node1");
    second.weight = 4;
    assert_int_equal(store_allow(folder, &second, 1, &why), 0);
    assert_int_equal(store_allow(folder, &worker, 1, &why), 0);
    assert_int_equal(store_key(reader, &second.key, &found), 0);
    assert_int_equal(found.studio.value, 2);
    assert_int_equal(found.weight, 4);
    assert_int_equal(store_key(reader, &worker.key, &found), 0);
    assert_int_equal(found.studio.value, 0);

    row = key_of(1, ROLE_STUDIO, "south", "ada");
    assert_int_equal(store_allow(folder, &row, 1, &why), 0);
    assert_int_equal(store_key(reader, &row.key, &found), 0);
    assert_int_equal(found.studio.value, 2);
    assert_int_equal(found.weight, 4); /* a weight that was not given stays */

    int n = 0;
    assert_int_equal(store_allow(folder, NULL, 0, &why), 0); /* none is no key to forbid */
    assert_int_equal(store_keys(reader, count_keys, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(store_forbid(folder, &row.key, &why), 0);
    assert_int_equal(store_key(reader, &row.key, &found), STORE_E_NONE);
    assert_int_equal(store_forbid(folder, &row.key, &why), STORE_E_NONE);
    assert_non_null(strstr((char *)why.data, "not registered"));
    store_reader_free(reader);
    store_close(store);
}

static uint64_t registry_of(struct store_reader *reader)
{
    uint64_t version = 0;

    assert_int_equal(store_registry(reader, &version), 0);
    return version;
}

static void the_registry_has_another_number_after_each_change_and_after_nothing_else(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct key_row ada = key_of(1, ROLE_STUDIO, "north", "ada");
    struct store *store = open_store();
    struct store_reader *reader = NULL;
    uint64_t quota = 1 << 30, before, now;

    assert_int_equal(store_reader_new(folder, &reader), 0);
    before = registry_of(reader);
    assert_int_equal(store_allow(folder, &ada, 1, &why), 0);
    assert_true((now = registry_of(reader)) != before);
    before = now;
    ada = key_of(1, ROLE_OPERATOR, "", "ada"); /* her key may do something else now */
    assert_int_equal(store_allow(folder, &ada, 1, &why), 0);
    assert_true((now = registry_of(reader)) != before);
    before = now;
    assert_int_equal(store_studio_set(folder, "north", NULL, &quota, &why), 0);
    assert_true((now = registry_of(reader)) != before);
    before = now;
    assert_int_equal(store_forbid(folder, &ada.key, &why), 0);
    assert_true((now = registry_of(reader)) != before);
    store_close(store);
    store_close(open_store()); /* a life of a broker is none */
    assert_true(registry_of(reader) == now);
    store_reader_free(reader);
}

static void a_key_that_makes_no_sense_is_refused_with_the_reason(void **state)
{
    static const struct {
        enum role role;
        const char *studio, *name, *why;
    } table[] = {
        {ROLE_NONE, "", "x", "role:"},
        {99, "", "x", "role:"},
        {ROLE_STUDIO, "", "x", "studio: is missing"},
        {ROLE_STUDIO, "a\nb", "x", "control character"},
        {ROLE_WORKER, "", "a\x1b[0m", "control character"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        _cleanup_(bytes_deinit) struct bytes why = {0};
        struct key_row row = key_of(1, table[i].role, table[i].studio, table[i].name);
        assert_int_equal(store_allow(folder, &row, 1, &why), -EINVAL);
        assert_non_null(strstr((char *)why.data, table[i].why));
    }
}

/* sqlite3 in a terminal, left open: past the length at which the log is to start over. */
static void a_reader_that_stays_does_not_hold_up_commits(void **state)
{
    enum { BLOB = 1 << 20, BATCHES = 100 };
    struct store *store = open_with_job();
    sqlite3 *person = NULL;
    char path[128];
    char *blob = calloc(1, BLOB);

    snprintf(path, sizeof path, "%s/state.db", folder);
    assert_int_equal(sqlite3_open(path, &person), SQLITE_OK);
    assert_int_equal(sqlite3_exec(person, "BEGIN; SELECT count(*) FROM attempts", NULL, NULL, NULL),
                     SQLITE_OK);
    for (uint64_t batch = 1; batch <= BATCHES; batch++) {
        struct record record = attempt_record(batch, batch, 0, CLASS_OK);
        record.attempt.blob = blob;
        record.attempt.blob_size = BLOB;
        int64_t begun_ns = clock_monotonic_ns();
        assert_int_equal(store_submit(store, batch, &record, 1), 0);
        wait_for(store, batch);
        assert_true(clock_monotonic_ns() - begun_ns < 5 * NS_PER_S);
    }
    sqlite3_close(person);
    free(blob);
    store_close(store);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Of any kind, however many results each holds. */
static int rows_left(void)
{
    return count_sql("SELECT (SELECT count(*) FROM results) + (SELECT count(*) FROM reports)"
                     " + (SELECT count(*) FROM done)");
}

/* In the child: a job of many rows, and its end; killed while the rows go. */
static _Noreturn void forget_many(uint64_t n)
{
    struct record forget = {
        .kind = RECORD_FORGET, .sequence = n + 1, .wall_s = 2000, .job = job_of(1)};
    struct store *store = NULL;

    if (store_open(folder, &store))
        _exit(1);
    submit_job(store);
    for (uint64_t i = 1; i <= n; i++) {
        struct record record = attempt_record(i, i, 0, i % 3 ? CLASS_OK : CLASS_RENDERER);
        if (store_submit(store, i, &record, 1))
            _exit(2);
    }
    if (store_submit(store, n + 1, &forget, 1))
        _exit(3);
    wait_for(store, n + 1);
    kill(getpid(), SIGKILL);
    _exit(4);
}

static void a_job_that_is_gone_is_not_recovered_and_its_rows_go_by_and_by(void **state)
{
    enum { ROWS = 3000 };
    struct counted counted = {0};
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        forget_many(ROWS);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_in_range(rows_left(), 1, 2 * ROWS); /* it was killed in time */

    struct store *store = open_store();
    assert_int_equal(store_recover(store, count_record, &counted), 0);
    assert_int_equal(counted.forgotten, 1);
    assert_int_equal(counted.others, 0);
    int64_t deadline_ns = clock_monotonic_ns() + 30 * NS_PER_S;
    while (rows_left() > 0 && clock_monotonic_ns() < deadline_ns)
        poll(NULL, 0, 10);
    assert_int_equal(rows_left(), 0);
    store_close(store);
}

/* All at once: nothing of the first job is left, and what comes in is the second's. */
static void an_id_that_is_free_again_is_another_jobs(void **state)
{
    struct job_spec spec = {.job = job_of(1), .studio = {1}, .name = "", .blob = ""};
    struct record records[6] = {attempt_record(1, 1, 0, CLASS_OK),
                                attempt_record(2, 2, 0, CLASS_TIMEOUT)};
    struct store *store = open_with_job();
    struct store_reader *reader = NULL;
    struct rows rows = {0};
    struct counted counted = {0};
    struct job_id job = job_of(1);

    for (uint64_t i = 2; i < 5; i++)
        records[i] = (struct record){.kind = i == 2   ? RECORD_FORGET
                                             : i == 3 ? RECORD_UNASK
                                                      : RECORD_JOB,
                                     .sequence = i + 1,
                                     .job = job};
    records[4].submit.spec = &spec;
    records[5] = attempt_record(6, 1, 0, CLASS_OK);
    assert_int_equal(store_submit(store, 1, records, 6), 0);
    wait_for(store, 1);
    assert_int_equal(store_reader_new(folder, &reader), 0);
    assert_int_equal(store_results(reader, &job, 0, 10, row_seen, &rows), 0);
    assert_int_equal(rows.n, 1);
    assert_int_equal(rows.sequences[0], 6);
    assert_int_equal(rows_left(), 2); /* it, and that it is done */
    store_reader_free(reader);
    assert_int_equal(store_recover(store, count_record, &counted), 0);
    assert_int_equal(counted.others, 3); /* unasked, the job, its result */
    store_close(store);
}

int main(void)
{
    faulty_register();
    const struct CMUnitTest tests[] = {
        T(every_kind_of_record_comes_back_in_order),
        T(an_attempt_or_a_later_note_replaces_the_note),
        T(no_note_of_many_outlives_its_attempt),
        T(each_open_raises_the_epoch),
        T(an_older_epoch_is_fenced_off),
        T(a_second_broker_is_told_who_holds_the_folder),
        T(a_newer_schema_is_refused_and_left_alone),
        T(a_damaged_file_is_named),
        T(a_row_that_says_something_else_is_no_row),
        T(a_copy_that_is_opened_leaves_the_numbers_of_what_went_on),
        T(a_log_that_breaks_off_ahead_of_commits_is_damaged_and_a_torn_end_is_not),
        T(a_database_that_is_gone_is_not_begun_anew_beside_a_vault),
        T(files_are_for_their_owner_only),
        T(the_database_itself_refuses_a_second_result_of_a_floor),
        T(a_batch_without_records_completes_in_its_turn),
        T(batches_that_wait_share_a_sync),
        T(a_full_disk_is_waited_out_and_nothing_is_durable_meanwhile),
        T(a_batch_that_found_no_space_half_way_is_written_once),
        T(a_store_is_closed_also_where_the_disk_is_full),
        T(a_failed_sync_is_fatal_and_never_tried_again),
        T(a_killed_broker_loses_nothing_it_completed),
        T(a_job_that_is_gone_is_not_recovered_and_its_rows_go_by_and_by),
        T(an_id_that_is_free_again_is_another_jobs),
        T(readers_page_through_results_and_attempts),
        T(keys_are_allowed_changed_and_forbidden),
        T(the_registry_has_another_number_after_each_change_and_after_nothing_else),
        T(a_key_that_makes_no_sense_is_refused_with_the_reason),
        T(a_reader_that_stays_does_not_hold_up_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
