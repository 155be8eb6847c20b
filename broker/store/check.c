/* check.c - everything that can be said about a database without a broker, and a copy of it.
 *
 * Nothing is changed by looking: the log is not moved home, even where this is the only program
 * that has the database open.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/store/attempts.h>
#include <broker/store/checksum.h>
#include <broker/store/recover.h>
#include <broker/store/wal.h>

#define NEXT_RESTORE "westlight-broker restore brings back a backup"
#define FINDINGS_MAX "100" /* of one kind; who has more has lost the file */

struct look {
    const struct store_checker *with;
    struct database database;
    bool damaged;
};

static void found(struct look *look, const char *what, const char *why)
{
    look->damaged = true;
    look->with->finding(look->with->user, what, why, NEXT_RESTORE);
}

/* The sentence of the database, which says what to do next as well. */
static void found_why(struct look *look, const char *why)
{
    look->damaged = true;
    look->with->finding(look->with->user, why, NULL, NULL);
}

static void check_pages(struct look *look)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(look->database.handle, "PRAGMA integrity_check(" FINDINGS_MAX ")",
                                  -1, &statement, NULL);

    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        const char *text =
            code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
        if (text && strcmp(text, "ok"))
            found(look, "state.db", text);
    }
    if (code != SQLITE_DONE) {
        (void)database_error(&look->database, code, "state.db");
        found_why(look, look->database.why);
    }
    sqlite3_finalize(statement);
}

static int on_key(void *user, const struct key_row *row)
{
    (void)user;
    (void)row;
    return 0;
}

static int on_token(void *user _unused_, const struct token_row *row _unused_)
{
    return 0;
}

static int on_newcomer(void *user _unused_, const struct newcomer_row *row _unused_)
{
    return 0;
}

/* What newcomers come by. */
static void check_tokens(struct look *look, const char *folder)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};

    if (store_tokens(folder, on_token, NULL, &why) != 0 ||
        store_newcomers(folder, on_newcomer, NULL, &why) != 0)
        found_why(look, (const char *)why.data);
}

static void check_keys(struct look *look, const char *folder)
{
    struct store_reader *reader = NULL;

    if (store_reader_new(folder, &reader) == 0 && store_keys(reader, on_key, NULL) != 0)
        found_why(look, store_reader_why(reader));
    store_reader_free(reader);
}

static void on_bad(void *user, const char *why)
{
    found_why(user, why);
}

static int on_row(void *user, const struct record *record)
{
    static const char *const tables[] = {
        [RECORD_JOB] = "jobs",         [RECORD_ATTEMPT] = "results or reports",
        [RECORD_CHANGE] = "changes",   [RECORD_EDIT] = "edits",
        [RECORD_NOTE] = "notes",       [RECORD_REQUEST] = "requests",
        [RECORD_TEND] = "tends",       [RECORD_DELIVERED] = "delivered",
        [RECORD_FORGET] = "forgotten", [RECORD_UNASK] = "forgotten",
        [RECORD_CLOCK] = "clocks",
    };
    struct look *look = user;
    char what[96], job[2 * sizeof record->job.bytes + 1];
    const char *why = look->with->record ? look->with->record(look->with->user, record) : NULL;

    if (!why)
        return 0;
    const char *table = (size_t)record->kind < ARRAY_SIZE(tables) ? tables[record->kind] : "?";
    hex_encode(record->job.bytes, sizeof record->job.bytes, job);
    snprintf(what, sizeof what, "state.db: table %s, row %llu (job %.8s)", table,
             (unsigned long long)record->sequence, job);
    found(look, what, why);
    return 0;
}

static void on_home(void *user, const struct record *record)
{
    const struct look *look = user;

    look->with->result(look->with->user, record);
}

static void give_results(struct look *look)
{
    if (attempts_home(&look->database, on_home, look) != 0)
        found_why(look, look->database.why);
}

static void check_open(struct look *look, const char *folder)
{
    /* One snapshot of everything, whatever a broker commits meanwhile. */
    int r = database_check_form(&look->database, folder);
    if (r) {
        found_why(look, look->database.why);
        return;
    }
    check_pages(look);
    check_keys(look, folder);
    check_tokens(look, folder);
    r = recover(&look->database, on_row, on_bad, look);
    if (r)
        found_why(look, look->database.why);
    if (look->with->result)
        give_results(look);
}

int store_check(const char *folder, const struct store_checker *checker)
{
    struct look look = {.with = checker};
    char why[DATABASE_WHY_BYTES] = "";
    bool same_boot;

    int r = wal_check(folder, &same_boot, why);
    if (r < 0)
        return r;
    if (r > 0) {
        found_why(&look, why);
        return STORE_E_CORRUPT;
    }
    r = database_open(&look.database, folder, DATABASE_LOOK);
    if (r)
        found_why(&look, look.database.why);
    else
        check_open(&look, folder);
    database_close(&look.database);
    return look.damaged ? STORE_E_CORRUPT : 0;
}

bool store_forgot(const char *folder, const struct job_id *job)
{
    struct database database;
    sqlite3_stmt *statement = NULL;
    bool gone = false;

    if (database_open(&database, folder, DATABASE_LOOK) != 0)
        return false;
    if (sqlite3_prepare_v2(database.handle, "SELECT 1 FROM forgotten WHERE job = ?", -1, &statement,
                           NULL) == SQLITE_OK &&
        database_bind(statement, "b", job->bytes, sizeof job->bytes) == SQLITE_OK)
        gone = sqlite3_step(statement) == SQLITE_ROW;
    sqlite3_finalize(statement);
    database_close(&database);
    return gone;
}

/* ---- a copy ---- */

/* All pages in one go are one snapshot; the writer goes on meanwhile, in its log. */
static int copy_pages(struct database *from, const char *path, sqlite3 **ret_to)
{
    int code = sqlite3_open_v2(path, ret_to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (code != SQLITE_OK)
        return code;
    sqlite3_backup *backup = sqlite3_backup_init(*ret_to, "main", from->handle, "main");
    if (!backup)
        return sqlite3_errcode(*ret_to);
    do
        code = sqlite3_backup_step(backup, -1);
    while (code == SQLITE_BUSY || code == SQLITE_LOCKED);
    int finished = sqlite3_backup_finish(backup);
    return code == SQLITE_DONE ? finished : code;
}

/* The mark by which its first start leaves the future of the broker that went on (see
 * leave_future); and one plain file, that can be read from where nothing can be written. */
static int mark_copy(sqlite3 *copy)
{
    return sqlite3_exec(
        copy,
        "INSERT OR REPLACE INTO meta SELECT 'backup_sequence', n, ~n FROM (SELECT 1 + max("
        " coalesce((SELECT max(sequence) FROM jobs), 0),"
        " coalesce((SELECT max(sequence) FROM results), 0) + 65536," /* PACK_SPAN, and more */
        " coalesce((SELECT max(sequence) FROM reports), 0),"
        " coalesce((SELECT max(sequence) FROM changes), 0),"
        " coalesce((SELECT max(sequence) FROM edits), 0),"
        " coalesce((SELECT max(sequence) FROM notes), 0),"
        " coalesce((SELECT max(sequence) FROM requests), 0),"
        " coalesce((SELECT max(sequence) FROM tends), 0),"
        " coalesce((SELECT max(sequence) FROM delivered), 0),"
        " coalesce((SELECT max(sequence) FROM forgotten), 0),"
        " coalesce((SELECT max(sequence) FROM clocks), 0),"
        " coalesce((SELECT max(value) FROM meta WHERE name = 'sequence'), 0)) AS n);"
        /* One that was used since would be good again. */
        "DELETE FROM tokens;"
        "PRAGMA journal_mode = DELETE",
        NULL, NULL, NULL);
}

static int sync_file(const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int store_copy(const char *folder, const char *path, struct bytes *why)
{
    struct database database;
    char sentence[DATABASE_WHY_BYTES] = "";
    sqlite3 *copy = NULL;
    bool same_boot;

    int r = wal_check(folder, &same_boot, sentence);
    if (r) {
        (void)bytes_printf(why, "%s", r < 0 ? strerror(-r) : sentence);
        return r;
    }
    r = database_open(&database, folder, DATABASE_LOOK);
    if (r == 0) {
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int code = fd < 0 ? SQLITE_CANTOPEN : copy_pages(&database, path, &copy);
        if (code == SQLITE_OK)
            code = mark_copy(copy);
        if (code != SQLITE_OK) {
            (void)bytes_printf(why, "%s: %s: make room there, then try again", path,
                               sqlite3_errstr(code));
            r = -EIO;
        }
        sqlite3_close(copy);
    } else {
        (void)bytes_printf(why, "%s", database.why);
    }
    database_close(&database);
    if (r == 0)
        r = sync_file(path);
    if (r < 0 && why->size == 0)
        (void)bytes_printf(why, "%s: %s", path, strerror(-r));
    return r;
}
