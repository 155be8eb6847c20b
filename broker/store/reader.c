/* reader.c - a reading connection, and the registry of keys.
 *
 * A reader is a connection of its own, so that no list holds up a commit; every query is bounded in
 * rows by its caller and in time by a progress handler.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/reader.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

#define KEY_ROWS                                                                                   \
    "SELECT k.public, k.role, k.studio, coalesce(s.name, ''), k.name, coalesce(s.weight, 1),"      \
    " k.added, k.checksum, coalesce(s.checksum, 0), coalesce(s.quota, 0)"                          \
    " FROM keys k LEFT JOIN studios s ON s.id = k.studio"

/* `keys`: how many it has, for who looks. */
#define STUDIO_ROWS(keys)                                                                          \
    "SELECT s.id, s.name, s.weight, s.quota, s.checksum, " keys " FROM studios s"

static const char *const texts[READER_STATEMENTS] = {
    ATTEMPTS_TEXTS,
    [KEY] = KEY_ROWS " WHERE k.public = ?",
    [KEYS] = KEY_ROWS " ORDER BY k.added, k.public",
    [STUDIO] = STUDIO_ROWS("0") " WHERE s.id = ?",
    [STUDIOS] =
        STUDIO_ROWS("(SELECT count(*) FROM keys k WHERE k.studio = s.id)") " ORDER BY s.name",
    [QUOTAS] = STUDIO_ROWS("0") " WHERE s.quota > 0",
    [POOL] = "SELECT pool FROM newcomers WHERE public = ?1 AND pool <> '' AND NOT EXISTS"
             " (SELECT 1 FROM tends WHERE worker = ?1 AND kind = ?2)",
    [REGISTRY] = "SELECT value FROM meta WHERE name = 'registry' AND inverse = ~value",
};

static int out_of_time(void *user)
{
    const struct store_reader *reader = user;
    return clock_monotonic_ns() > reader->until_ns;
}

DEFINE_CLEANUP(struct store_reader *, store_reader_free)

int store_reader_new(const char *folder, struct store_reader **ret_reader)
{
    _cleanup_(store_reader_freep) struct store_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return -ENOMEM;
    int r = database_open(&reader->database, folder, DATABASE_READ);
    if (r == 0)
        r = database_prepare(&reader->database, texts, READER_STATEMENTS);
    if (r)
        return r;
    sqlite3_progress_handler(reader->database.handle, READER_STEP, out_of_time, reader);
    *ret_reader = TAKE_PTR(reader);
    return 0;
}

void store_reader_free(struct store_reader *reader)
{
    if (!reader)
        return;
    database_close(&reader->database);
    free(reader);
}

const char *store_reader_why(const struct store_reader *reader)
{
    return reader->database.why;
}

/* ---- keys: reading ---- */

static void column_text(sqlite3_stmt *statement, int column, char *text, size_t size)
{
    const char *value = (const char *)sqlite3_column_text(statement, column);
    snprintf(text, size, "%s", value ? value : "");
}

/* A role or a studio that nobody gave must not come of a bit that has turned over. */
static int read_key(struct database *database, sqlite3_stmt *statement, struct key_row *ret_row)
{
    memset(ret_row, 0, sizeof *ret_row);
    database_column_bytes(statement, 0, ret_row->key.bytes, sizeof ret_row->key.bytes);
    ret_row->role = (enum role)sqlite3_column_int64(statement, 1);
    ret_row->studio.value = (uint32_t)sqlite3_column_int64(statement, 2);
    column_text(statement, 3, ret_row->studio_name, sizeof ret_row->studio_name);
    column_text(statement, 4, ret_row->name, sizeof ret_row->name);
    ret_row->weight = (uint32_t)sqlite3_column_int64(statement, 5);
    ret_row->quota_bytes = (uint64_t)sqlite3_column_int64(statement, 9);
    bool whole = sqlite3_column_int64(statement, 7) ==
                     checksum_key(ret_row, sqlite3_column_int64(statement, 6)) &&
                 (ret_row->studio.value == 0 ||
                  sqlite3_column_int64(statement, 8) ==
                      checksum_studio(ret_row->studio.value, ret_row->studio_name, ret_row->weight,
                                      ret_row->quota_bytes));
    if (whole)
        return 0;
    snprintf(database->why, sizeof database->why,
             "state.db: tables keys and studios, the key of %.100s: damaged: forbid and allow it "
             "again, or " DATABASE_NEXT,
             ret_row->name[0] ? ret_row->name : "a person or node without a name");
    return STORE_E_CORRUPT;
}

int store_key(struct store_reader *reader, const struct worker_key *key, struct key_row *ret_row)
{
    sqlite3_stmt *statement = reader->database.statements[KEY];
    int r = 0;

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    int code = database_bind(statement, "b", key->bytes, sizeof key->bytes);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        r = read_key(&reader->database, statement, ret_row);
    else
        r = code == SQLITE_DONE ? STORE_E_NONE
                                : database_error(&reader->database, code, "state.db: a key");
    sqlite3_reset(statement);
    return r;
}

int store_pool_given(struct store_reader *reader, const struct worker_key *key,
                     char ret_pool[LIMIT_NAME_BYTES + 1])
{
    sqlite3_stmt *statement = reader->database.statements[POOL];
    int r = 0;

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    int code = database_bind(statement, "bi", key->bytes, sizeof key->bytes, (int64_t)TEND_POOL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        column_text(statement, 0, ret_pool, LIMIT_NAME_BYTES + 1);
    else
        r = code == SQLITE_DONE ? STORE_E_NONE
                                : database_error(&reader->database, code, "state.db: a pool");
    sqlite3_reset(statement);
    return r;
}

int store_registry(struct store_reader *reader, uint64_t *ret_version)
{
    sqlite3_stmt *statement = reader->database.statements[REGISTRY];
    int r = 0;

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        *ret_version = (uint64_t)sqlite3_column_int64(statement, 0);
    else
        r = code == SQLITE_DONE ? STORE_E_CORRUPT
                                : database_error(&reader->database, code, "state.db: table meta");
    sqlite3_reset(statement);
    return r;
}

int store_keys(struct store_reader *reader, store_key_each *each, void *user)
{
    sqlite3_stmt *statement = reader->database.statements[KEYS];
    int code, r = 0, damaged = 0;

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && r == 0) {
        struct key_row row;
        damaged = read_key(&reader->database, statement, &row);
        if (damaged)
            break;
        r = each(user, &row);
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        r = database_error(&reader->database, code, "state.db: the list of keys");
    sqlite3_reset(statement);
    if (damaged)
        return damaged;
    return r > 0 && (code == SQLITE_ROW || code == SQLITE_DONE) ? 0 : r;
}

/* ---- studios ---- */

static int read_studio(struct database *database, sqlite3_stmt *statement,
                       struct studio_row *ret_row)
{
    memset(ret_row, 0, sizeof *ret_row);
    ret_row->studio.value = (uint32_t)sqlite3_column_int64(statement, 0);
    column_text(statement, 1, ret_row->name, sizeof ret_row->name);
    ret_row->weight = (uint32_t)sqlite3_column_int64(statement, 2);
    ret_row->quota_bytes = (uint64_t)sqlite3_column_int64(statement, 3);
    ret_row->keys = (uint64_t)sqlite3_column_int64(statement, 5);
    if (sqlite3_column_int64(statement, 4) == checksum_studio(ret_row->studio.value, ret_row->name,
                                                              ret_row->weight,
                                                              ret_row->quota_bytes))
        return 0;
    snprintf(database->why, sizeof database->why,
             "state.db: table studios, %.100s: damaged: " DATABASE_NEXT, ret_row->name);
    return STORE_E_CORRUPT;
}

/* Rows of a bound statement, until `each` says other than 0; STORE_E_NONE where there is none. */
static int give_studios(struct store_reader *reader, sqlite3_stmt *statement, int code,
                        store_studio_each *each, void *user)
{
    int r = STORE_E_NONE;

    reader->until_ns = clock_monotonic_ns() + READER_NS;
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct studio_row row;
        r = read_studio(&reader->database, statement, &row);
        if (r == 0)
            r = each(user, &row);
        if (r)
            break;
        code = SQLITE_OK;
    }
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        r = database_error(&reader->database, code, "state.db: the list of studios");
    sqlite3_reset(statement);
    return r;
}

static int keep_studio(void *user, const struct studio_row *row)
{
    *(struct studio_row *)user = *row;
    return 0;
}

int store_studio(struct store_reader *reader, struct studio_id studio, struct studio_row *ret_row)
{
    sqlite3_stmt *statement = reader->database.statements[STUDIO];
    int code = database_bind(statement, "i", (int64_t)studio.value);

    return give_studios(reader, statement, code, keep_studio, ret_row);
}

int store_studios(struct store_reader *reader, store_studio_each *each, void *user)
{
    int r = give_studios(reader, reader->database.statements[STUDIOS], SQLITE_OK, each, user);

    return r == STORE_E_NONE ? 0 : r;
}

int store_quotas(struct store_reader *reader, store_studio_each *each, void *user)
{
    int r = give_studios(reader, reader->database.statements[QUOTAS], SQLITE_OK, each, user);

    return r == STORE_E_NONE ? 0 : r;
}
