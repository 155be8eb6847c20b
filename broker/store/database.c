/* database.c - opening, schema, binding, and what SQLite's answers mean to us.
 *
 * The schema is a list of steps; a database's user_version is how many of them it has had. A
 * higher number than ours is a newer program's and is left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/store/checksum.h>
#include <broker/store/database.h>
#include <proto/base/check.h>

/* A writer waits this long for another program that holds the write lock (`allow`), which takes
 * milliseconds; a checkpoint that restarts the log may take seconds. */
#define BUSY_MS 60000
/* SQLite's check reads the whole file: below this size it takes a moment, above it a start would be
 * late. Rows are checked as they are read in any case; what is left for --check is the indexes. */
#define CHECK_BYTES (64LL * 1024 * 1024)

/* So that whoever believes what it has read of the registry learns by one number that it has
 * changed, whichever program did that. */
#define REGISTRY_CHANGES(table, event)                                                             \
    "CREATE TRIGGER " table "_" event " AFTER " event " ON " table " BEGIN UPDATE meta SET"        \
    " value = value + 1, inverse = ~(value + 1) WHERE name = 'registry'; END;"

static const char *const schema_steps[] = {
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL,"
    " inverse INTEGER NOT NULL) WITHOUT ROWID;" /* ~value: the checksum of these */
    "INSERT INTO meta VALUES('epoch', 0, ~0), ('registry', 0, ~0);"
    "CREATE TABLE studios(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " weight INTEGER NOT NULL, quota INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE TABLE keys(public BLOB PRIMARY KEY, role INTEGER NOT NULL, studio INTEGER NOT NULL,"
    " name TEXT NOT NULL, added INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT "
    "ROWID;" REGISTRY_CHANGES("studios", "INSERT") REGISTRY_CHANGES("studios", "UPDATE")
        REGISTRY_CHANGES("studios", "DELETE") REGISTRY_CHANGES("keys", "INSERT")
            REGISTRY_CHANGES("keys", "UPDATE") REGISTRY_CHANGES("keys", "DELETE")
    /* first_name and first_priority are what was submitted, for recovery; name, priority, state and
     * reason are current. */
    "CREATE TABLE jobs(sequence INTEGER PRIMARY KEY, job BLOB NOT NULL UNIQUE,"
    " studio INTEGER NOT NULL, first_name TEXT NOT NULL, name TEXT NOT NULL,"
    " submitted INTEGER NOT NULL, first_priority INTEGER NOT NULL, priority INTEGER NOT NULL, "
    "state INTEGER NOT NULL,"
    " reason INTEGER NOT NULL, blob BLOB NOT NULL, checksum INTEGER NOT NULL);"
    /* Plain results, many a row (pack.h); `number` is the sequence of the job's row, which is small
     * and grows, as its id is not: what is written side by side lies side by side. */
    "CREATE TABLE results(sequence INTEGER PRIMARY KEY, last INTEGER NOT NULL,"
    " wall_s INTEGER NOT NULL, number INTEGER NOT NULL, job BLOB NOT NULL, step INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, epoch INTEGER NOT NULL, page INTEGER NOT NULL,"
    " low INTEGER NOT NULL, high INTEGER NOT NULL, workers BLOB NOT NULL, members TEXT NOT NULL,"
    " blobs BLOB NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX results_of_job ON results(number, sequence, last);"
    "CREATE INDEX results_of_tasks ON results(number, step, page, low, high);"
    /* Attempts that failed, and results that have something to say. */
    "CREATE TABLE reports(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " number INTEGER NOT NULL, job BLOB NOT NULL, step INTEGER NOT NULL, task INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " worker BLOB NOT NULL, class INTEGER NOT NULL, wall_ns INTEGER NOT NULL,"
    " cpu_ns INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, bytes_in INTEGER NOT NULL,"
    " bytes_out INTEGER NOT NULL, card_ns INTEGER NOT NULL, blob BLOB NOT NULL,"
    " warned INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX reports_of_task ON reports(number, step, task);"
    "CREATE INDEX failures_of_job ON reports(number) WHERE class <> 0;"
    "CREATE INDEX warnings_of_job ON reports(number) WHERE class = 0;"
    /* The promise "one result per floor", kept by the database itself: bit i is task 64 * page + i,
     * and one that is set twice becomes NULL, which is refused. */
    "CREATE TABLE done(number INTEGER NOT NULL, step INTEGER NOT NULL, page INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, tasks INTEGER NOT NULL, checksum INTEGER NOT NULL,"
    " PRIMARY KEY(number, step, page, floor)) WITHOUT ROWID;"
    /* For people: every attempt as a row. */
    "CREATE VIEW attempts AS SELECT sequence, wall_s, job, step, task, floor, epoch, attempt,"
    " worker, class, wall_ns, cpu_ns, memory_bytes, bytes_in, bytes_out, card_ns, blob, warned"
    " FROM reports UNION ALL SELECT r.sequence + (m.value ->> 0), r.wall_s, r.job, r.step,"
    " m.value ->> 1, r.floor, r.epoch, m.value ->> 2,"
    " substr(r.workers, 1 + 32 * (m.value ->> 3), 32), 0, m.value ->> 4, m.value ->> 5,"
    " m.value ->> 6, m.value ->> 7, m.value ->> 8, m.value ->> 9,"
    " substr(r.blobs, 1 + (m.value ->> 10), m.value ->> 11), 0"
    " FROM results AS r, json_each(r.members) AS m;"
    "CREATE TABLE changes(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " job BLOB NOT NULL, kind INTEGER NOT NULL, step INTEGER NOT NULL, first INTEGER NOT NULL,"
    " last INTEGER NOT NULL, floor INTEGER NOT NULL, state INTEGER NOT NULL,"
    " reason INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX changes_of_job ON changes(job);"
    "CREATE TABLE edits(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " job BLOB NOT NULL, blob BLOB NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX edits_of_job ON edits(job);"
    "CREATE TABLE notes(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " job BLOB NOT NULL, step INTEGER NOT NULL, task INTEGER NOT NULL, floor INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, worker BLOB NOT NULL,"
    " gpu_mask INTEGER NOT NULL, checksum INTEGER NOT NULL, UNIQUE(job, step, task));"
    "CREATE TABLE requests(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " studio INTEGER NOT NULL, request BLOB NOT NULL, digest BLOB NOT NULL,"
    " code INTEGER NOT NULL, tasks INTEGER NOT NULL, job BLOB NOT NULL,"
    " checksum INTEGER NOT NULL, UNIQUE(studio, request));"
    "CREATE INDEX requests_of_job ON requests(job);"
    "CREATE TABLE delivered(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " job BLOB NOT NULL, step INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " floor INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX delivered_of_job ON delivered(job);"
    /* A job that is gone. Stage 0: rows of it are left, to be deleted by and by; 1: its requests
     * alone; 2: nothing, and the row is the newest of its kind, so that sequences go on from it. */
    "CREATE TABLE forgotten(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " job BLOB NOT NULL UNIQUE, studio INTEGER NOT NULL, stage INTEGER NOT NULL,"
    " number INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE INDEX forgotten_with_rows ON forgotten(sequence) WHERE stage = 0;"
    "CREATE TABLE clocks(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " ahead_s INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE TABLE tends(sequence INTEGER PRIMARY KEY, wall_s INTEGER NOT NULL,"
    " worker BLOB NOT NULL, kind INTEGER NOT NULL, text TEXT NOT NULL,"
    " until_wall_s INTEGER NOT NULL, checksum INTEGER NOT NULL);",
    /* A token by the digest of its secret, and who came by one. Neither is the registry's: a key that
     * waits is nobody's. */
    "CREATE TABLE tokens(digest BLOB PRIMARY KEY, role INTEGER NOT NULL, studio TEXT NOT NULL,"
    " pool TEXT NOT NULL, uses INTEGER NOT NULL, approve INTEGER NOT NULL,"
    " until INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE newcomers(public BLOB PRIMARY KEY, digest BLOB NOT NULL, role INTEGER NOT NULL,"
    " studio TEXT NOT NULL, pool TEXT NOT NULL, name TEXT NOT NULL, pending INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX tends_of_worker ON tends(worker, kind);",
};
#define SCHEMA_VERSION ((int)ARRAY_SIZE(schema_steps))

int database_error(struct database *database, int code, const char *what)
{
    const char *reason = database->handle ? sqlite3_errmsg(database->handle) : sqlite3_errstr(code);
    int system = database->handle ? sqlite3_system_errno(database->handle) : 0;
    int extended = database->handle ? sqlite3_extended_errcode(database->handle) : code;
    int result;
    const char *next;

    if ((extended & 0xff) != (code & 0xff)) { /* it is not SQLite's own */
        extended = code;
        reason = sqlite3_errstr(code);
    }
    /* A failed sync is never taken for a full disk: what it lost cannot be told. */
    bool synced = extended != SQLITE_IOERR_FSYNC && extended != SQLITE_IOERR_DIR_FSYNC;
    bool full = (code & 0xff) == SQLITE_FULL ||
                ((code & 0xff) == SQLITE_IOERR && synced && (system == ENOSPC || system == EDQUOT));
    if (full) {
        result = STORE_E_FULL;
        next = "free space on this disk";
    } else if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB) {
        result = STORE_E_CORRUPT;
        next = DATABASE_NEXT;
    } else if ((code & 0xff) == SQLITE_BUSY) {
        result = -EBUSY;
        next = "end the other program that holds it";
    } else if ((code & 0xff) == SQLITE_INTERRUPT) {
        result = -ETIMEDOUT;
        next = "ask for less at once";
    } else if ((code & 0xff) == SQLITE_NOMEM) {
        result = -ENOMEM;
        next = "give the broker more memory";
    } else {
        result = (code & 0xff) == SQLITE_IOERR && system > 0 ? -system : -EIO;
        next = "look at the disk, then start the broker again";
    }
    snprintf(database->why, sizeof database->why, "%.400s: %.200s (SQLite %d): %s", what, reason,
             extended, next);
    return result;
}

int database_run_text(struct database *database, const char *text)
{
    return sqlite3_exec(database->handle, text, NULL, NULL, NULL);
}

static int damaged(struct database *database, const char *path, const char *reason)
{
    snprintf(database->why, sizeof database->why, "%.300s: damaged (%.200s): " DATABASE_NEXT, path,
             reason);
    return STORE_E_CORRUPT;
}

static int read_number(struct database *database, const char *text, int64_t *ret_number)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle, text, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *ret_number = sqlite3_column_int64(statement, 0);
        code = SQLITE_OK;
    } else if (code == SQLITE_DONE) {
        code = SQLITE_CORRUPT;
    }
    sqlite3_finalize(statement);
    return code;
}

/* The one text that a statement answers with. */
static int first_text(sqlite3 *handle, const char *sql, char **ret_text)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(handle, sql, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        *ret_text = strdup(text ? text : "");
        code = *ret_text ? SQLITE_OK : SQLITE_NOMEM;
    }
    sqlite3_finalize(statement);
    return code;
}

static int check_pages(struct database *database, const char *path)
{
    _cleanup_(freep) char *found = NULL;
    struct stat status;
    if (stat(path, &status) < 0 || status.st_size > CHECK_BYTES)
        return 0;

    int code = first_text(database->handle, "PRAGMA integrity_check(1)", &found);
    if (code != SQLITE_OK)
        return database_error(database, code, path);
    return strcmp(found, "ok") ? damaged(database, path, found) : 0;
}

/* The tables as they are described in the file are those of this program: a bit of their text that
 * has turned over would change what is indexed, or how a column is read. */
static int read_schema(sqlite3 *handle, char **ret_text)
{
    return first_text(handle,
                      "SELECT group_concat(type || name || tbl_name || sql, ';') FROM"
                      " (SELECT * FROM sqlite_schema WHERE sql IS NOT NULL"
                      " AND name NOT LIKE 'sqlite_stat%' ORDER BY name)",
                      ret_text);
}

static int check_schema(struct database *database, const char *path)
{
    _cleanup_(freep) char *wanted = NULL, *found = NULL;
    sqlite3 *empty = NULL;
    int code = sqlite3_open(":memory:", &empty);

    for (size_t i = 0; code == SQLITE_OK && i < ARRAY_SIZE(schema_steps); i++)
        code = sqlite3_exec(empty, schema_steps[i], NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = read_schema(empty, &wanted);
    sqlite3_close(empty);
    if (code == SQLITE_OK)
        code = read_schema(database->handle, &found);
    if (code != SQLITE_OK)
        return database_error(database, code, path);
    return strcmp(wanted, found) ? damaged(database, path, "its tables are not described as ours")
                                 : 0;
}

/* All names are ones we gave, and the epoch is there. */
int database_check_meta(struct database *database)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        database->handle,
        "SELECT 1 FROM (SELECT sum(name = 'epoch') AS epochs, count(*) AS n, sum(value = ~inverse"
        " AND name IN ('epoch', 'fence', 'sequence', 'backup_sequence', 'registry')) AS whole FROM "
        "meta)"
        " WHERE epochs = 1 AND whole = n",
        -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    sqlite3_finalize(statement);
    return code == SQLITE_ROW ? SQLITE_OK : code == SQLITE_DONE ? SQLITE_CORRUPT : code;
}

int database_check_form(struct database *database, const char *folder)
{
    char path[LIMIT_PATH_BYTES + 16];
    int64_t version = 0;

    snprintf(path, sizeof path, "%s/state.db", folder);
    int code = read_number(database, "PRAGMA user_version", &version);
    if (code == SQLITE_OK && version < SCHEMA_VERSION)
        return damaged(database, path, "its version is none");
    int r = code == SQLITE_OK ? check_schema(database, path) : database_error(database, code, path);
    if (r)
        return r;
    code = database_check_meta(database);
    return code == SQLITE_OK ? 0 : damaged(database, path, "table meta");
}

/* Brings the schema up to date, under the write lock. */
static int migrate(struct database *database, const char *path)
{
    int64_t version = 0, tables = 0;
    int code = database_run_text(database, "BEGIN IMMEDIATE");
    if (code == SQLITE_OK)
        code = read_number(database, "PRAGMA user_version", &version);
    if (code == SQLITE_OK)
        code = read_number(database, "SELECT count(*) FROM sqlite_schema", &tables);
    if (code == SQLITE_OK && version == 0 && tables > 0) {
        (void)database_run_text(database, "ROLLBACK");
        return damaged(database, path, "it has tables and no version");
    }
    for (int step = (int)version; code == SQLITE_OK && step < SCHEMA_VERSION; step++)
        code = database_run_text(database, schema_steps[step]);
    if (code == SQLITE_OK && version < SCHEMA_VERSION) {
        char text[64];
        snprintf(text, sizeof text, "PRAGMA user_version = %d", SCHEMA_VERSION);
        code = database_run_text(database, text);
    }
    if (code == SQLITE_OK)
        code = database_run_text(database, "COMMIT");
    if (code == SQLITE_OK)
        return 0;
    int r = database_error(database, code, path);
    (void)database_run_text(database, "ROLLBACK");
    return r;
}

static int check_version(struct database *database, const char *path, int64_t *ret_version)
{
    int64_t version;
    int code = read_number(database, "PRAGMA user_version", &version);
    if (code != SQLITE_OK)
        return database_error(database, code, path);
    if (version > SCHEMA_VERSION) {
        snprintf(
            database->why, sizeof database->why,
            "%.400s: written by a newer program (schema %lld, this one knows %d): start the newer "
            "one",
            path, (long long)version, SCHEMA_VERSION);
        return STORE_E_NEWER;
    }
    *ret_version = version;
    return 0;
}

static int prepare_connection(struct database *database, const char *path, enum database_mode mode)
{
    int64_t version = 0;

    sqlite3_extended_result_codes(database->handle, 1);
    sqlite3_busy_timeout(database->handle, BUSY_MS);
    int r = check_version(database, path, &version);
    if (r)
        return r;
    if (mode == DATABASE_LOOK)
        sqlite3_db_config(database->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (mode != DATABASE_WRITE) {
        int code = database_run_text(database, "PRAGMA query_only = 1;"
                                               "PRAGMA wal_autocheckpoint = 0");
        return code == SQLITE_OK ? 0 : database_error(database, code, path);
    }
    int code = database_run_text(database, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                           "PRAGMA wal_autocheckpoint = 0;"
                                           "PRAGMA foreign_keys = 0;"
                                           "PRAGMA temp_store = MEMORY;"
                                           "PRAGMA trusted_schema = 0");
    if (code != SQLITE_OK)
        return database_error(database, code, path);
    if (version < SCHEMA_VERSION)
        return migrate(database, path);
    r = check_schema(database, path);
    return r ? r : check_pages(database, path);
}

/* SQLite counts what it allocates, under one lock for all threads; nobody asks for the sum. */
static void configure(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* refused, where it is in use already */
}

/* Made by us for its mode, which SQLite gives to the log and the index of the log as well. One that is
 * there is not opened: closing it would let go of the locks that SQLite has on it for this process's
 * other connections, and another program would take the log for one that nobody uses. */
static int make_file(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd >= 0)
        return close(fd) < 0 ? -errno : 0;
    if (errno != EEXIST || lstat(path, &status) < 0)
        return -errno;
    return S_ISLNK(status.st_mode) ? -ELOOP : 0;
}

int database_open(struct database *database, const char *folder, enum database_mode mode)
{
    static pthread_once_t configured = PTHREAD_ONCE_INIT;
    char path[LIMIT_PATH_BYTES];

    pthread_once(&configured, configure);
    memset(database, 0, sizeof *database);
    int n = snprintf(path, sizeof path, "%s/state.db", folder);
    if (n < 0 || (size_t)n >= sizeof path) {
        snprintf(database->why, sizeof database->why,
                 "state folder: its path is too long: choose one of at most 4000 bytes");
        return -ENAMETOOLONG;
    }
    if (mode == DATABASE_WRITE) {
        int error = make_file(path);
        if (error) {
            snprintf(database->why, sizeof database->why,
                     "%.400s: %s: make the folder, writable by the broker's user", path,
                     strerror(-error));
            return error;
        }
    }
    int code =
        sqlite3_open_v2(path, &database->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    int r = code == SQLITE_OK ? prepare_connection(database, path, mode)
                              : database_error(database, code, path);
    if (r)
        database_close(database);
    return r;
}

void database_close(struct database *database)
{
    for (size_t i = 0; i < DATABASE_STATEMENTS; i++) {
        sqlite3_finalize(database->statements[i]);
        database->statements[i] = NULL;
    }
    sqlite3_close(database->handle);
    database->handle = NULL;
}

int database_prepare(struct database *database, const char *const *texts, size_t n_texts)
{
    CHECK(n_texts <= DATABASE_STATEMENTS);
    for (size_t i = 0; i < n_texts; i++) {
        int code = sqlite3_prepare_v3(database->handle, texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                      &database->statements[i], NULL);
        if (code != SQLITE_OK)
            return database_error(database, code, "state.db");
    }
    return 0;
}

int database_bind(sqlite3_stmt *statement, const char *format, ...)
{
    va_list arguments;
    int code = SQLITE_OK;

    va_start(arguments, format);
    for (int i = 1; code == SQLITE_OK && *format; i++, format++) {
        if (*format == 'i') {
            code = sqlite3_bind_int64(statement, i, va_arg(arguments, int64_t));
        } else if (*format == 'b') {
            const void *data = va_arg(arguments, const void *);
            size_t size = va_arg(arguments, size_t);
            code = sqlite3_bind_blob64(statement, i, data ? data : "", size, SQLITE_STATIC);
        } else if (*format == 'T') {
            const char *text = va_arg(arguments, const char *);
            size_t size = va_arg(arguments, size_t);
            code = sqlite3_bind_text64(statement, i, text, size, SQLITE_STATIC, SQLITE_UTF8);
        } else {
            CHECK(*format == 't');
            const char *text = va_arg(arguments, const char *);
            code = sqlite3_bind_text(statement, i, text ? text : "", -1, SQLITE_STATIC);
        }
    }
    va_end(arguments);
    return code;
}

int database_finish(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    int reset = sqlite3_reset(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code == SQLITE_ROW ? reset : code;
}

void database_column_bytes(sqlite3_stmt *statement, int column, void *ret_data, size_t size)
{
    const void *data = sqlite3_column_blob(statement, column);
    if (data && (size_t)sqlite3_column_bytes(statement, column) == size)
        memcpy(ret_data, data, size);
    else
        memset(ret_data, 0, size);
}

void database_attempt(sqlite3_stmt *statement, struct record *ret_record)
{
    struct record record = {.kind = RECORD_ATTEMPT};
    struct lease_id *lease = &record.attempt.lease;
    struct usage *usage = &record.attempt.usage;

    record.sequence = (uint64_t)sqlite3_column_int64(statement, 0);
    record.wall_s = sqlite3_column_int64(statement, 1);
    database_column_bytes(statement, 2, record.job.bytes, sizeof record.job.bytes);
    lease->job = record.job;
    lease->task.step = (uint32_t)sqlite3_column_int64(statement, 3);
    lease->task.index = (uint64_t)sqlite3_column_int64(statement, 4);
    lease->floor = (uint32_t)sqlite3_column_int64(statement, 5);
    lease->epoch = (uint32_t)sqlite3_column_int64(statement, 6);
    lease->attempt = (uint64_t)sqlite3_column_int64(statement, 7);
    database_column_bytes(statement, 8, record.attempt.worker.bytes, sizeof(struct worker_key));
    record.attempt.class = (enum attempt_class)sqlite3_column_int64(statement, 9);
    usage->wall_ns = (uint64_t)sqlite3_column_int64(statement, 10);
    usage->cpu_ns = (uint64_t)sqlite3_column_int64(statement, 11);
    usage->memory_bytes = (uint64_t)sqlite3_column_int64(statement, 12);
    usage->bytes_in = (uint64_t)sqlite3_column_int64(statement, 13);
    usage->bytes_out = (uint64_t)sqlite3_column_int64(statement, 14);
    usage->card_ns = (uint64_t)sqlite3_column_int64(statement, 15);
    record.attempt.blob = sqlite3_column_blob(statement, 16);
    record.attempt.blob_size = (size_t)sqlite3_column_bytes(statement, 16);
    record.attempt.warned = sqlite3_column_int64(statement, 17) != 0;
    *ret_record = record;
}

int64_t database_number(sqlite3_stmt *statement)
{
    return sqlite3_column_int64(statement, sqlite3_column_count(statement) - 2);
}

int database_verify(struct database *database, sqlite3_stmt *statement, const char *table,
                    const struct record *record)
{
    char job[2 * sizeof record->job.bytes + 1];
    bool numbered = record->kind == RECORD_ATTEMPT || record->kind == RECORD_FORGET ||
                    record->kind == RECORD_UNASK;
    int64_t number = numbered ? database_number(statement) : 0;

    if (sqlite3_column_int64(statement, sqlite3_column_count(statement) - 1) ==
        checksum_record(record, number))
        return 0;
    hex_encode(record->job.bytes, sizeof record->job.bytes, job);
    snprintf(database->why, sizeof database->why,
             "state.db: table %s, row %llu (job %.8s): damaged: " DATABASE_NEXT, table,
             (unsigned long long)record->sequence, job);
    return STORE_E_CORRUPT;
}
