/* registry.c - the registry of keys, as any process changes it while a broker runs or not.
 *
 * Each change is one transaction on a connection of its own; triggers raise the registry's version.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/registry.h>
#include <proto/base/clock.h>

static int check_name(const char *what, const char *name, bool needed, struct bytes *why)
{
    size_t length = strnlen(name, LIMIT_NAME_BYTES + 1);
    if (length > LIMIT_NAME_BYTES || (needed && length == 0)) {
        (void)bytes_printf(why, "%s: is %s: give one of 1 to %d bytes", what,
                           length ? "too long" : "missing", LIMIT_NAME_BYTES);
        return -EINVAL;
    }
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            (void)bytes_printf(why, "%s: holds a control character: leave it out", what);
            return -EINVAL;
        }
    return 0;
}

int registry_check_row(const struct key_row *row, struct bytes *why)
{
    if (row->role != ROLE_OPERATOR && row->role != ROLE_STUDIO && row->role != ROLE_WORKER) {
        (void)bytes_printf(why, "role: is none a key can have: give operator, studio or worker");
        return -EINVAL;
    }
    int r = check_name("studio", row->studio_name, row->role == ROLE_STUDIO, why);
    return r ? r : check_name("name", row->name, false, why);
}

int registry_finish(struct database *database, sqlite3_stmt *statement, int code, int *ret_changes)
{
    if (code == SQLITE_OK)
        code = database_finish(statement);
    sqlite3_finalize(statement);
    if (code == SQLITE_OK)
        *ret_changes = sqlite3_changes(database->handle);
    return code;
}

static int sign_studio(struct database *database, int64_t studio, const char *name, int64_t weight,
                       int64_t quota)
{
    sqlite3_stmt *statement = NULL;
    int changes,
        code = sqlite3_prepare_v2(database->handle, "UPDATE studios SET checksum = ? WHERE id = ?",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(
            statement, "ii",
            checksum_studio((uint32_t)studio, name, (uint32_t)weight, (uint64_t)quota), studio);
    return registry_finish(database, statement, code, &changes);
}

/* One statement that answers with a studio's id, weight and quota; SQLITE_DONE: with nothing. */
static int change_studio(struct database *database, sqlite3_stmt *statement, const char *name,
                         int64_t *ret_studio)
{
    int64_t weight = 0, quota = 0;
    int code = sqlite3_step(statement);

    if (code == SQLITE_ROW) {
        *ret_studio = sqlite3_column_int64(statement, 0);
        weight = sqlite3_column_int64(statement, 1);
        quota = sqlite3_column_int64(statement, 2);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return code == SQLITE_OK ? sign_studio(database, *ret_studio, name, weight, quota) : code;
}

/* The studio's id; made where it is new. No name is no studio: 0. */
static int find_studio(struct database *database, const struct key_row *row, int64_t *ret_studio)
{
    sqlite3_stmt *statement = NULL;
    int code;

    if (!row->studio_name[0]) {
        *ret_studio = 0;
        return SQLITE_OK;
    }
    code = sqlite3_prepare_v2(database->handle,
                              "INSERT INTO studios(name, weight, quota, checksum)"
                              " VALUES(?1, max(?2, 1), 0, 0) ON CONFLICT(name) DO UPDATE SET"
                              " weight = iif(?2 > 0, ?2, weight) RETURNING id, weight, quota",
                              -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "ti", row->studio_name, (int64_t)row->weight);
    if (code == SQLITE_OK)
        return change_studio(database, statement, row->studio_name, ret_studio);
    sqlite3_finalize(statement);
    return code;
}

static int set_studio(struct database *database, const char *name, const uint32_t *weight,
                      const uint64_t *quota_bytes)
{
    sqlite3_stmt *statement = NULL;
    int64_t studio;
    int code = sqlite3_prepare_v2(database->handle,
                                  "UPDATE studios SET weight = iif(?2 >= 0, ?2, weight),"
                                  " quota = iif(?3 >= 0, ?3, quota) WHERE name = ?1"
                                  " RETURNING id, weight, quota",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "tii", name, weight ? (int64_t)*weight : -1,
                             quota_bytes ? (int64_t)*quota_bytes : -1);
    if (code == SQLITE_OK)
        return change_studio(database, statement, name, &studio);
    sqlite3_finalize(statement);
    return code;
}

int store_studio_set(const char *folder, const char *name, const uint32_t *weight,
                     const uint64_t *quota_bytes, struct bytes *why)
{
    struct database database;
    int r = database_open(&database, folder, DATABASE_WRITE);
    bool none = false;

    if (r == 0) {
        int code = database_run_text(&database, "BEGIN IMMEDIATE");
        if (code == SQLITE_OK)
            code = set_studio(&database, name, weight, quota_bytes);
        none = code == SQLITE_DONE;
        if (code == SQLITE_OK || none)
            code = database_run_text(&database, "COMMIT");
        if (code != SQLITE_OK)
            r = database_error(&database, code, "state.db: changing a studio");
    }
    if (r)
        (void)bytes_printf(why, "%s", database.why);
    database_close(&database);
    if (r || !none)
        return r;
    (void)bytes_printf(why,
                       "studio %s: no key of it was ever allowed: westlight-broker studio "
                       "lists those there are",
                       name);
    return STORE_E_NONE;
}

int registry_write_key(struct database *database, const struct key_row *row)
{
    sqlite3_stmt *statement = NULL;
    int64_t studio = 0, added_wall_s = clock_wall_ns() / NS_PER_S;
    struct key_row whole = *row;
    int changes;

    int code = find_studio(database, row, &studio);
    if (code != SQLITE_OK)
        return code;
    whole.studio.value = (uint32_t)studio;
    code = sqlite3_prepare_v2(database->handle,
                              "INSERT INTO keys(public, role, studio, name, added, checksum)"
                              " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(public) DO UPDATE SET"
                              " role = excluded.role, studio = excluded.studio, name ="
                              " excluded.name, added = excluded.added,"
                              " checksum = excluded.checksum",
                              -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "biitii", row->key.bytes, sizeof row->key.bytes,
                             (int64_t)row->role, studio, row->name, added_wall_s,
                             checksum_key(&whole, added_wall_s));
    return registry_finish(database, statement, code, &changes);
}

/* A statement about one key. */
static int run_for(struct database *database, const char *text, const struct worker_key *key,
                   int *ret_changes)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle, text, -1, &statement, NULL);

    if (code == SQLITE_OK)
        code = database_bind(statement, "b", key->bytes, sizeof key->bytes);
    return registry_finish(database, statement, code, ret_changes);
}

/* Also one that waits: it stays known, so that its token lets it in no more. */
static int delete_key(struct database *database, const struct worker_key *key, int *ret_changes)
{
    int keys = 0, waiting = 0;
    int code = run_for(database, "DELETE FROM keys WHERE public = ?", key, &keys);

    if (code == SQLITE_OK)
        code =
            run_for(database, "UPDATE newcomers SET pending = 0 WHERE public = ? AND pending = 1",
                    key, &waiting);
    *ret_changes = keys + waiting;
    return code;
}

static int write_keys(struct database *database, const struct key_row *rows, size_t n_rows)
{
    int code = SQLITE_OK;

    for (size_t i = 0; code == SQLITE_OK && i < n_rows; i++)
        code = registry_write_key(database, &rows[i]);
    return code;
}

/* `rows` to allow, or `key` to forbid; one transaction. */
static int change_keys(const char *folder, const struct key_row *rows, size_t n_rows,
                       const struct worker_key *key, struct bytes *why)
{
    struct database database;
    int changes = 1;

    int r = database_open(&database, folder, DATABASE_WRITE);
    if (r == 0) {
        int code = database_run_text(&database, "BEGIN IMMEDIATE");
        if (code == SQLITE_OK)
            code = key ? delete_key(&database, key, &changes) : write_keys(&database, rows, n_rows);
        if (code == SQLITE_OK)
            code = database_run_text(&database, "COMMIT");
        if (code != SQLITE_OK)
            r = database_error(&database, code, "state.db: changing a key");
    }
    if (r)
        (void)bytes_printf(why, "%s", database.why);
    database_close(&database);
    if (r == 0 && changes == 0) {
        (void)bytes_printf(why, "key: is not registered here: look at the list of keys");
        r = STORE_E_NONE;
    }
    return r;
}

int store_allow(const char *folder, const struct key_row *rows, size_t n_rows, struct bytes *why)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_rows; i++)
        r = registry_check_row(&rows[i], why);
    return r ? r : change_keys(folder, rows, n_rows, NULL, why);
}

int store_forbid(const char *folder, const struct worker_key *key, struct bytes *why)
{
    return change_keys(folder, NULL, 0, key, why);
}
