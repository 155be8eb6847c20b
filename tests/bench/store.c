/* store.c - results a second through the store's own API, beside bare SQLite in the same run.
 *
 * Both write the same bytes in the same batches, durable each, with two batches on their way as the
 * journal has them, and both have their log moved home by a second thread at the same lengths. The
 * ceiling is the least that SQLite can be asked for: one prepared INSERT of an integer and a blob.
 * Syncs are counted where the program's own fdatasync is called.
 */
#include <tests/bench/bench.h>

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <broker/store/store.h>
#include <client/local.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

enum {
    ROUNDS = 3,
    BLOB = 150, /* of a result with a small manifest inline */
    IN_FLIGHT = 2,
    WORKERS = 16,
    LOG_PASSIVE = 1024, /* pages, as in broker/store/sqlite.c */
    JOB_BLOB = 500,
};

static atomic_ulong syncs;

/* SQLite finds this one in place of the C library's. */
__attribute__((visibility("default"))) int fdatasync(int fd)
{
    atomic_fetch_add_explicit(&syncs, 1, memory_order_relaxed);
    return (int)syscall(SYS_fdatasync, fd);
}

struct bench {
    char folder[64], path[128];
    long results, batch, jobs, tasks, submissions;
    struct record *records;
    uint8_t *blobs;
    struct store *store;
    uint64_t submitted, durable, sequence;
};

struct figure {
    double rate, cpu_us, bytes, recover_us;
    unsigned long syncs;
};

static double cpu_s(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct watch {
    int64_t began_ns;
    double cpu_s;
    unsigned long syncs;
};

static struct watch watch_start(void)
{
    return (struct watch){clock_monotonic_ns(), cpu_s(), atomic_load(&syncs)};
}

static struct figure watch_stop(struct watch began, long n)
{
    double seconds = (double)(clock_monotonic_ns() - began.began_ns) / 1e9;

    return (struct figure){.rate = (double)n / seconds,
                           .cpu_us = (cpu_s() - began.cpu_s) * 1e6 / (double)n,
                           .syncs = atomic_load(&syncs) - began.syncs};
}

/* The database and its log, once both are closed. */
static double bytes_of(const struct bench *bench, long n)
{
    struct stat status = {0};

    return stat(bench->path, &status) == 0 ? (double)status.st_size / (double)n : 0;
}

static void folder_new(struct bench *bench)
{
    strcpy(bench->folder, "/tmp/westlight-bench-XXXXXX");
    CHECK(mkdtemp(bench->folder));
    snprintf(bench->path, sizeof(bench->path), "%s/state.db", bench->folder);
}

/* ---- the store ---- */

static struct job_id job_numbered(uint64_t number)
{
    struct job_id job = {{0}};
    uint64_t words[2] = {number * 0x9e3779b97f4a7c15u, ~number * 0xd1342543de82ef95u};

    memcpy(job.bytes, words, sizeof(words));
    return job;
}

/* So many jobs side by side, each from its first frame to its last; then the next so many. */
static void result_fill(struct bench *bench, uint64_t number, uint8_t *blob, struct record *record)
{
    uint64_t jobs = (uint64_t)bench->jobs, round = jobs * (uint64_t)bench->tasks;

    *record = (struct record){.kind = RECORD_ATTEMPT,
                              .sequence = ++bench->sequence,
                              .wall_s = 1700000000 + (int64_t)(number / 100000),
                              .job = job_numbered(number / round * jobs + number % jobs)};
    record->attempt.lease = (struct lease_id){
        .job = record->job, .task.index = number % round / jobs, .epoch = 1, .attempt = number + 1};
    memset(record->attempt.worker.bytes, (int)(number * 7 % WORKERS) + 1, 32);
    record->attempt.class = CLASS_OK;
    record->attempt.usage =
        (struct usage){1500000 + number, 900000 + number % 1000, 25000000, 0, 5000, 0};
    memcpy(blob, &number, sizeof(number));
    record->attempt.blob = blob;
    record->attempt.blob_size = BLOB;
}

static void store_wait(struct bench *bench, uint64_t in_flight)
{
    while (bench->submitted - bench->durable > in_flight) {
        struct pollfd ready = {.fd = store_fd(bench->store), .events = POLLIN};

        poll(&ready, 1, -1);
        CHECK(store_completed(bench->store, &bench->durable) == 0);
    }
}

static void store_batch(struct bench *bench, size_t n)
{
    store_wait(bench, IN_FLIGHT - 1);
    CHECK(store_submit(bench->store, ++bench->submitted, bench->records, n) == 0);
}

static void store_begin(struct bench *bench)
{
    folder_new(bench);
    bench->submitted = bench->durable = bench->sequence = 0;
    if (store_open(bench->folder, &bench->store) != 0) {
        fprintf(stderr, "westlight-bench store: %s\n", store_why(NULL));
        exit(1);
    }
}

/* A submission is two records, and as many as the journal has at hand are one batch. */
static void jobs_write(struct bench *bench, uint64_t jobs)
{
    static const uint8_t blob[JOB_BLOB] = {1};
    struct job_spec *specs = calloc((size_t)bench->batch, sizeof(*specs));

    CHECK(specs);
    for (uint64_t number = 0; number < jobs;) {
        size_t n = 0;

        for (; n < (size_t)bench->batch / 2 && number < jobs; n++, number++) {
            struct record *record = &bench->records[2 * n];
            struct job_id job = job_numbered(number), request = job_numbered(~number);

            specs[n] = (struct job_spec){
                .job = job, .studio = {1}, .name = "shot", .blob = blob, .blob_size = sizeof(blob)};
            record[0] = record[1] = (struct record){.wall_s = 1700000000, .job = job};
            record[0].sequence = ++bench->sequence;
            record[0].kind = RECORD_JOB;
            record[0].submit.spec = &specs[n];
            record[1].sequence = ++bench->sequence;
            record[1].kind = RECORD_REQUEST;
            record[1].request.studio.value = 1;
            record[1].request.tasks = 10;
            memcpy(record[1].request.request.bytes, request.bytes, sizeof(request.bytes));
        }
        store_batch(bench, 2 * n);
    }
    store_wait(bench, 0);
    free(specs);
}

static struct figure jobs_through_store(struct bench *bench)
{
    store_begin(bench);
    struct watch began = watch_start();

    jobs_write(bench, (uint64_t)bench->submissions);
    struct figure figure = watch_stop(began, bench->submissions);
    store_close(bench->store);
    figure.bytes = bytes_of(bench, bench->submissions);
    folder_remove(bench->folder);
    return figure;
}

static int nothing(void *user, const struct record *record)
{
    (void)user;
    (void)record;
    return 0;
}

static double recover_us(struct bench *bench)
{
    struct watch began = watch_start();

    CHECK(store_recover(bench->store, nothing, NULL) == 0);
    return watch_stop(began, bench->results).cpu_us;
}

static struct figure results_through_store(struct bench *bench)
{
    store_begin(bench);
    uint64_t round = (uint64_t)bench->jobs * (uint64_t)bench->tasks;
    jobs_write(bench, ((uint64_t)bench->results + round - 1) / round * (uint64_t)bench->jobs);
    struct watch began = watch_start();

    for (long number = 0; number < bench->results;) {
        size_t n = 0;

        for (; n < (size_t)bench->batch && number < bench->results; n++, number++)
            result_fill(bench, (uint64_t)number, bench->blobs + n * BLOB, &bench->records[n]);
        store_batch(bench, n);
    }
    store_wait(bench, 0);
    struct figure figure = watch_stop(began, bench->results);
    figure.recover_us = recover_us(bench);
    store_close(bench->store);
    figure.bytes = bytes_of(bench, bench->results);
    folder_remove(bench->folder);
    return figure;
}

/* ---- bare SQLite ---- */

struct mover {
    sqlite3 *handle;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop, due;
};

static void *mover_main(void *user)
{
    struct mover *mover = user;

    pthread_mutex_lock(&mover->lock);
    while (!mover->stop) {
        while (!mover->due && !mover->stop)
            pthread_cond_wait(&mover->wake, &mover->lock);
        mover->due = false;
        pthread_mutex_unlock(&mover->lock);
        sqlite3_wal_checkpoint_v2(mover->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        pthread_mutex_lock(&mover->lock);
    }
    pthread_mutex_unlock(&mover->lock);
    return NULL;
}

static sqlite3 *bare_open(const char *path)
{
    sqlite3 *handle = NULL;

    CHECK(sqlite3_open_v2(path, &handle,
                          SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                          NULL) == SQLITE_OK);
    CHECK(sqlite3_exec(handle,
                       "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                       "PRAGMA wal_autocheckpoint = 0",
                       NULL, NULL, NULL) == SQLITE_OK);
    return handle;
}

static int pages_of_log(void *user, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    *(int *)user = pages;
    return SQLITE_OK;
}

static void bare_insert(struct bench *bench, sqlite3 *handle, struct mover *mover)
{
    sqlite3_stmt *insert = NULL;
    int pages = 0, moved = 0;

    sqlite3_wal_hook(handle, pages_of_log, &pages);
    CHECK(sqlite3_prepare_v3(handle, "INSERT INTO results VALUES(?, ?)", -1,
                             SQLITE_PREPARE_PERSISTENT, &insert, NULL) == SQLITE_OK);
    for (long number = 0; number < bench->results;) {
        sqlite3_exec(handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        for (long n = 0; n < bench->batch && number < bench->results; n++, number++) {
            memcpy(bench->blobs, &number, sizeof(number));
            sqlite3_bind_int64(insert, 1, number);
            sqlite3_bind_blob(insert, 2, bench->blobs, BLOB, SQLITE_STATIC);
            CHECK(sqlite3_step(insert) == SQLITE_DONE);
            sqlite3_reset(insert);
        }
        CHECK(sqlite3_exec(handle, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
        moved = pages < moved ? 0 : moved;
        if (pages - moved < LOG_PASSIVE)
            continue;
        moved = pages;
        pthread_mutex_lock(&mover->lock);
        mover->due = true;
        pthread_cond_signal(&mover->wake);
        pthread_mutex_unlock(&mover->lock);
    }
    sqlite3_finalize(insert);
}

static struct figure results_bare(struct bench *bench)
{
    struct mover mover = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    pthread_t thread;

    folder_new(bench);
    sqlite3 *handle = bare_open(bench->path);
    CHECK(sqlite3_exec(handle, "CREATE TABLE results(k INTEGER PRIMARY KEY, v BLOB)", NULL, NULL,
                       NULL) == SQLITE_OK);
    mover.handle = bare_open(bench->path);
    CHECK(pthread_create(&thread, NULL, mover_main, &mover) == 0);
    struct watch began = watch_start();

    bare_insert(bench, handle, &mover);
    struct figure figure = watch_stop(began, bench->results);
    pthread_mutex_lock(&mover.lock);
    mover.stop = true;
    pthread_cond_signal(&mover.wake);
    pthread_mutex_unlock(&mover.lock);
    pthread_join(thread, NULL);
    sqlite3_close(mover.handle);
    sqlite3_close(handle);
    figure.bytes = bytes_of(bench, bench->results);
    folder_remove(bench->folder);
    return figure;
}

/* ---- what is told ---- */

static void keep_best(struct figure *best, struct figure figure, int round)
{
    if (round == 0 || figure.rate > best->rate)
        best->rate = figure.rate;
    if (round == 0 || figure.cpu_us < best->cpu_us)
        best->cpu_us = figure.cpu_us;
    if (round == 0 || figure.recover_us < best->recover_us)
        best->recover_us = figure.recover_us;
    best->syncs = figure.syncs;
    best->bytes = figure.bytes;
}

/* Each the best of its rounds, by turns. */
static void measure(struct bench *bench, long batch)
{
    struct figure ours = {0}, bare = {0};

    bench->batch = batch;
    for (int round = 0; round < ROUNDS; round++) {
        keep_best(&bare, results_bare(bench), round);
        keep_best(&ours, results_through_store(bench), round);
    }
    printf("\"rate_per_s\": %.0f, \"ceiling_per_s\": %.0f, \"ratio\": %.2f, "
           "\"cpu_us_per_frame\": %.2f, \"ceiling_cpu_us_per_frame\": %.2f, \"syncs\": %lu, "
           "\"bytes_per_frame\": %.0f, \"recover_us_per_frame\": %.2f",
           ours.rate, bare.rate, ours.rate / bare.rate, ours.cpu_us, bare.cpu_us, ours.syncs,
           ours.bytes, ours.recover_us);
}

int bench_store(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"results", required_argument, NULL, 'r'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"jobs", required_argument, NULL, 'n'},
                                            {"tasks", required_argument, NULL, 't'},
                                            {"submissions", required_argument, NULL, 's'},
                                            {0}};
    struct bench bench = {.results = 500000, .jobs = 1, .tasks = 100000000, .submissions = 50000};
    long batch = 2000;

    optind = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (option == '?' ||
            (option == 'r' && !options_number(optarg, 1, 100000000, &bench.results)) ||
            (option == 'b' && !options_number(optarg, 10, 100000, &batch)) ||
            (option == 'n' && !options_number(optarg, 1, 1000000, &bench.jobs)) ||
            (option == 't' && !options_number(optarg, 1, 100000000, &bench.tasks)) ||
            (option == 's' && !options_number(optarg, 1, 10000000, &bench.submissions))) {
            fprintf(stderr, "usage: westlight-bench store [--json] [--results N] [--batch N] "
                            "[--jobs N, side by side] [--tasks N, of each] [--submissions N]\n");
            return 2;
        }
    bench.records = calloc((size_t)batch, sizeof(*bench.records));
    bench.blobs = calloc((size_t)batch, BLOB);
    CHECK(bench.records && bench.blobs);
    printf("{\"bench\": \"store\", \"batch\": %ld, \"jobs\": %ld, ", batch, bench.jobs);
    measure(&bench, batch);
    printf(", \"batches_of_a_tenth\": {");
    measure(&bench, batch / 10);
    bench.batch = batch;
    struct figure jobs = jobs_through_store(&bench);
    printf("}, \"submissions\": {\"rate_per_s\": %.0f, \"cpu_us\": %.1f, \"bytes\": %.0f}}\n",
           jobs.rate, jobs.cpu_us, jobs.bytes);
    free(bench.records);
    free(bench.blobs);
    return 0;
}
