/* tokens.c - tokens, and the keys that came by them.
 *
 * What a key gets is looked up without the write lock, so that whoever guesses keeps nobody from
 * committing; only where there is something to take is it looked up again under the lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/registry.h>
#include <broker/store/tokens.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>

#define KEPT_S (30 * 86400) /* a token that has ended is still listed */

#define TOKEN_COLUMNS    "digest, role, studio, pool, uses, approve, until, checksum"
#define NEWCOMER_COLUMNS "public, digest, role, studio, pool, name, pending, checksum"

/* ---- rows ---- */

static void column_text(sqlite3_stmt *statement, int column, char *text, size_t size)
{
    const char *value = (const char *)sqlite3_column_text(statement, column);
    snprintf(text, size, "%s", value ? value : "");
}

static int damaged(struct database *database, const char *table)
{
    snprintf(database->why, sizeof database->why,
             "state.db: table %s, a row: damaged: make another token, or " DATABASE_NEXT, table);
    return STORE_E_CORRUPT;
}

static int read_token(struct database *database, sqlite3_stmt *statement, struct token_row *ret_row)
{
    struct token_row row = {0};

    database_column_bytes(statement, 0, row.digest, sizeof row.digest);
    row.role = (enum role)sqlite3_column_int64(statement, 1);
    column_text(statement, 2, row.studio_name, sizeof row.studio_name);
    column_text(statement, 3, row.pool, sizeof row.pool);
    row.uses = (uint32_t)sqlite3_column_int64(statement, 4);
    row.approve = sqlite3_column_int64(statement, 5) != 0;
    row.until_wall_s = sqlite3_column_int64(statement, 6);
    if (sqlite3_column_int64(statement, 7) != checksum_token(&row))
        return damaged(database, "tokens");
    *ret_row = row;
    return 0;
}

static int read_newcomer(struct database *database, sqlite3_stmt *statement,
                         struct newcomer_row *ret_row)
{
    struct newcomer_row row = {0};

    database_column_bytes(statement, 0, row.key.key.bytes, sizeof row.key.key.bytes);
    database_column_bytes(statement, 1, row.digest, sizeof row.digest);
    row.key.role = (enum role)sqlite3_column_int64(statement, 2);
    column_text(statement, 3, row.key.studio_name, sizeof row.key.studio_name);
    column_text(statement, 4, row.pool, sizeof row.pool);
    column_text(statement, 5, row.key.name, sizeof row.key.name);
    row.pending = sqlite3_column_int64(statement, 6) != 0;
    if (sqlite3_column_int64(statement, 7) != checksum_newcomer(&row))
        return damaged(database, "newcomers");
    *ret_row = row;
    return 0;
}

/* ---- one transaction of a caller's own connection ---- */

/* SQLite's code; or one of STORE_E_*, or -errno, with `why` of the database filled. */
typedef int token_change(struct database *database, void *user);

static int transact(struct database *database, token_change *change, void *user, int *ret_code)
{
    int r, code = database_run_text(database, "BEGIN IMMEDIATE");

    if (code != SQLITE_OK) {
        *ret_code = code;
        return 0;
    }
    *ret_code = SQLITE_OK;
    r = change(database, user);
    if (r == 0) {
        crash_point("enrol.taken");
        *ret_code = database_run_text(database, "COMMIT");
    }
    if (r != 0 || *ret_code != SQLITE_OK)
        (void)database_run_text(database, "ROLLBACK");
    return r;
}

static int change_alone(const char *folder, const char *what, token_change *change, void *user,
                        struct bytes *why)
{
    struct database database;
    int code = SQLITE_OK, r = database_open(&database, folder, DATABASE_WRITE);

    if (r == 0)
        r = transact(&database, change, user, &code);
    if (r == 0 && code != SQLITE_OK)
        r = database_error(&database, code, what);
    if (r != 0)
        (void)bytes_printf(why, "%s", database.why);
    database_close(&database);
    return r;
}

/* A statement that changes rows, within a transaction; STORE_E_NONE where it changed none. */
static int run(struct database *database, sqlite3_stmt *statement, int code)
{
    int changes = 0;

    code = registry_finish(database, statement, code, &changes);
    if (code != SQLITE_OK)
        return database_error(database, code, "state.db: a token");
    return changes ? 0 : STORE_E_NONE;
}

/* ---- tokens ---- */

static int write_token(struct database *database, const struct token_row *row)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle,
                                  "INSERT OR REPLACE INTO tokens(" TOKEN_COLUMNS ")"
                                  " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "bittiiii", row->digest, sizeof row->digest,
                             (int64_t)row->role, row->studio_name, row->pool, (int64_t)row->uses,
                             (int64_t)row->approve, row->until_wall_s, checksum_token(row));
    return run(database, statement, code);
}

static int add(struct database *database, void *user)
{
    sqlite3_stmt *statement = NULL;
    int64_t old_s = clock_wall_ns() / NS_PER_S - KEPT_S;
    int code = sqlite3_prepare_v2(database->handle, "DELETE FROM tokens WHERE until < ?", -1,
                                  &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "i", old_s);

    int r = run(database, statement, code);
    return r == 0 || r == STORE_E_NONE ? write_token(database, user) : r;
}

int store_token_add(const char *folder, const struct token_row *row, struct bytes *why)
{
    struct key_row checked = {.role = row->role};
    struct token_row copy = *row;

    memcpy(checked.studio_name, row->studio_name, sizeof checked.studio_name);
    memcpy(checked.name, row->pool, sizeof checked.name); /* the same is asked of both */
    int r = registry_check_row(&checked, why);
    return r ? r : change_alone(folder, "state.db: a token", add, &copy, why);
}

/* Rows of a statement, until `each` says other than 0. */
static int each_token(struct database *database, sqlite3_stmt *statement, int code,
                      store_token_each *each, void *user)
{
    int r = 0;

    while (r == 0 && code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct token_row row;

        r = read_token(database, statement, &row);
        if (r == 0)
            r = each(user, &row);
        code = SQLITE_OK;
    }
    if (r == 0 && code != SQLITE_OK && code != SQLITE_DONE)
        r = database_error(database, code, "state.db: table tokens");
    sqlite3_finalize(statement);
    return r;
}

static int all_tokens(struct database *database, store_token_each *each, void *user)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle,
                                  "SELECT " TOKEN_COLUMNS " FROM tokens ORDER BY until, digest", -1,
                                  &statement, NULL);

    return each_token(database, statement, code, each, user);
}

int store_tokens(const char *folder, store_token_each *each, void *user, struct bytes *why)
{
    struct database database;
    int r = database_open(&database, folder, DATABASE_READ);

    if (r == 0)
        r = all_tokens(&database, each, user);
    if (r != 0)
        (void)bytes_printf(why, "%s", database.why);
    database_close(&database);
    return r;
}

struct revoking {
    const void *prefix;
    size_t size;
    struct token_row found;
    unsigned n;
};

static int find_begun(void *user, const struct token_row *row)
{
    struct revoking *revoking = user;

    if (revoking->size > 0 && memcmp(row->digest, revoking->prefix, revoking->size) == 0) {
        revoking->found = *row;
        revoking->n++;
    }
    return 0;
}

static int revoke(struct database *database, void *user)
{
    struct revoking *revoking = user;
    int r = all_tokens(database, find_begun, revoking);

    if (r == 0 && revoking->n != 1) {
        snprintf(database->why, sizeof database->why, "%s: look at westlight-broker token list",
                 revoking->n ? "several tokens begin so" : "there is no such token");
        return STORE_E_NONE;
    }
    revoking->found.uses = 0;
    return r ? r : write_token(database, &revoking->found);
}

int store_token_revoke(const char *folder, const void *prefix, size_t size, struct bytes *why)
{
    struct revoking revoking = {.prefix = prefix,
                                .size = size < TOKEN_DIGEST_BYTES ? size : TOKEN_DIGEST_BYTES};

    return change_alone(folder, "state.db: a token", revoke, &revoking, why);
}

/* ---- newcomers ---- */

int store_newcomers(const char *folder, store_newcomer_each *each, void *user, struct bytes *why)
{
    struct database database;
    sqlite3_stmt *statement = NULL;
    int code = SQLITE_OK, r = database_open(&database, folder, DATABASE_READ);

    if (r == 0)
        code = sqlite3_prepare_v2(database.handle,
                                  "SELECT " NEWCOMER_COLUMNS " FROM newcomers",
                                  -1, &statement, NULL);
    while (r == 0 && code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct newcomer_row row;

        r = read_newcomer(&database, statement, &row);
        if (r == 0)
            r = each(user, &row);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    if (r == 0 && code != SQLITE_OK && code != SQLITE_DONE)
        r = database_error(&database, code, "state.db: table newcomers");
    if (r != 0)
        (void)bytes_printf(why, "%s", database.why);
    database_close(&database);
    return r;
}

static int find_newcomer(struct database *database, const struct worker_key *key,
                         struct newcomer_row *ret_row)
{
    sqlite3_stmt *statement = NULL;
    int r = STORE_E_NONE,
        code = sqlite3_prepare_v2(database->handle,
                                  "SELECT " NEWCOMER_COLUMNS " FROM newcomers WHERE public = ?", -1,
                                  &statement, NULL);

    if (code == SQLITE_OK)
        code = database_bind(statement, "b", key->bytes, sizeof key->bytes);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        r = read_newcomer(database, statement, ret_row);
    else if (code != SQLITE_DONE)
        r = database_error(database, code, "state.db: table newcomers");
    sqlite3_finalize(statement);
    return r;
}

static int write_newcomer(struct database *database, const struct newcomer_row *row)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle,
                                  "INSERT OR REPLACE INTO newcomers(" NEWCOMER_COLUMNS ")"
                                  " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "bbitttii", row->key.key.bytes, sizeof row->key.key.bytes,
                             row->digest, sizeof row->digest, (int64_t)row->key.role,
                             row->key.studio_name, row->pool, row->key.name, (int64_t)row->pending,
                             checksum_newcomer(row));
    return run(database, statement, code);
}

static int admit(struct database *database, const struct newcomer_row *row)
{
    int code, r = write_newcomer(database, row);

    if (r != 0 || row->pending)
        return r;
    code = registry_write_key(database, &row->key);
    return code == SQLITE_OK ? 0 : database_error(database, code, "state.db: changing a key");
}

static int approve(struct database *database, void *user)
{
    struct newcomer_row row = {0};
    int r = find_newcomer(database, user, &row);

    if (r == STORE_E_NONE || (r == 0 && !row.pending)) {
        snprintf(database->why, sizeof database->why,
                 "key: does not wait: look at westlight-broker keys");
        return STORE_E_NONE;
    }
    row.pending = false;
    return r ? r : admit(database, &row);
}

int store_approve(const char *folder, const struct worker_key *key, struct bytes *why)
{
    struct worker_key copy = *key;

    return change_alone(folder, "state.db: changing a key", approve, &copy, why);
}

/* ---- redeeming ---- */

enum { STANDS, TAKES };

struct redemption {
    const uint8_t *digest;
    const struct worker_key *key;
    const char *name;
    int64_t now_wall_s;
    struct token_row token; /* that there is something to take of */
    struct newcomer_row answer;
};

struct store_gate {
    struct database database;
};

DEFINE_CLEANUP(struct store_gate *, store_gate_free)

int store_gate_new(const char *folder, struct store_gate **ret_gate)
{
    _cleanup_(store_gate_freep) struct store_gate *gate = calloc(1, sizeof *gate);

    if (!gate)
        return -ENOMEM;
    int r = database_open(&gate->database, folder, DATABASE_WRITE);
    if (r == 0)
        *ret_gate = TAKE_PTR(gate);
    return r;
}

void store_gate_free(struct store_gate *gate)
{
    if (!gate)
        return;
    database_close(&gate->database);
    free(gate);
}

const char *store_gate_why(const struct store_gate *gate)
{
    return gate->database.why;
}

static int keep_token(void *user, const struct token_row *row)
{
    *(struct token_row *)user = *row;
    return 0;
}

/* role NONE: there is no such token. */
static int find_token(struct database *database, const uint8_t *digest, struct token_row *ret_row)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(database->handle,
                                  "SELECT " TOKEN_COLUMNS " FROM tokens WHERE digest = ?", -1,
                                  &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "b", digest, (size_t)TOKEN_DIGEST_BYTES);
    return each_token(database, statement, code, keep_token, ret_row);
}

/* A key of the registry, as far as a token says the same; role NONE: not there. */
static int find_key(struct database *database, const struct worker_key *key,
                    struct key_row *ret_row)
{
    sqlite3_stmt *statement = NULL;
    int r = 0, code = sqlite3_prepare_v2(
                   database->handle,
                   "SELECT k.role, coalesce(s.name, ''), k.name FROM keys k LEFT JOIN studios s"
                   " ON s.id = k.studio WHERE k.public = ?",
                   -1, &statement, NULL);

    if (code == SQLITE_OK)
        code = database_bind(statement, "b", key->bytes, sizeof key->bytes);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        ret_row->key = *key;
        ret_row->role = (enum role)sqlite3_column_int64(statement, 0);
        column_text(statement, 1, ret_row->studio_name, sizeof ret_row->studio_name);
        column_text(statement, 2, ret_row->name, sizeof ret_row->name);
    } else if (code != SQLITE_DONE) {
        r = database_error(database, code, "state.db: table keys");
    }
    sqlite3_finalize(statement);
    return r;
}

static bool same_token(const struct newcomer_row *row, const uint8_t *digest)
{
    return memcmp(row->digest, digest, TOKEN_DIGEST_BYTES) == 0;
}

/* What the key gets: STANDS, TAKES (a use, for the answer given), or STORE_E_NONE. The same is read
 * whatever the answer. */
static int judge(struct database *database, struct redemption *redemption, int *ret_verdict)
{
    struct newcomer_row before = {0};
    struct token_row token = {0};
    struct key_row key = {0};
    int r = find_token(database, redemption->digest, &token);

    if (r == 0)
        r = find_key(database, redemption->key, &key);
    if (r != 0)
        return r;
    r = find_newcomer(database, redemption->key, &before);
    if (r != 0 && r != STORE_E_NONE)
        return r;
    bool known = r == 0, here = key.role != ROLE_NONE;
    bool again = known && same_token(&before, redemption->digest);
    bool alike = here && key.role == token.role && strcmp(key.studio_name, token.studio_name) == 0;
    bool valid =
        token.role != ROLE_NONE && token.uses > 0 && redemption->now_wall_s < token.until_wall_s;

    if (here ? again || (valid && alike) : again && before.pending) {
        redemption->answer = here ? (struct newcomer_row){.key = key} : before;
        *ret_verdict = STANDS;
        return 0;
    }
    /* A key that was let in once and is not any more comes in by no token. */
    if (here || !valid || (known && !before.pending))
        return STORE_E_NONE;
    redemption->token = token;
    *ret_verdict = TAKES;
    return 0;
}

static int take(struct database *database, void *user)
{
    struct redemption *redemption = user;
    struct newcomer_row *row = &redemption->answer;
    struct token_row *token = &redemption->token;
    int verdict, r = judge(database, redemption, &verdict);

    if (r != 0 || verdict == STANDS)
        return r;
    *row = (struct newcomer_row){.pending = token->approve};
    row->key.key = *redemption->key;
    row->key.role = token->role;
    memcpy(row->key.studio_name, token->studio_name, sizeof row->key.studio_name);
    snprintf(row->key.name, sizeof row->key.name, "%s", redemption->name);
    memcpy(row->pool, token->pool, sizeof row->pool);
    memcpy(row->digest, token->digest, sizeof row->digest);
    token->uses--;
    r = write_token(database, token);
    return r ? r : admit(database, row);
}

int store_redeem(struct store_gate *gate, const uint8_t digest[TOKEN_DIGEST_BYTES],
                 const struct worker_key *key, const char *name, int64_t now_wall_s,
                 struct newcomer_row *ret_row)
{
    struct redemption redemption = {
        .digest = digest, .key = key, .name = name, .now_wall_s = now_wall_s};
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct key_row checked = {.role = ROLE_OPERATOR};
    int verdict, code = SQLITE_OK, r;

    snprintf(checked.name, sizeof checked.name, "%s", name);
    if (registry_check_row(&checked, &why) != 0)
        return STORE_E_NONE;
    r = judge(&gate->database, &redemption, &verdict);
    if (r == 0 && verdict == TAKES) {
        crash_point("enrol.begun");
        r = transact(&gate->database, take, &redemption, &code);
        crash_point("enrol.committed");
    }
    if (r == 0 && code != SQLITE_OK)
        r = database_error(&gate->database, code, "state.db: a token");
    if (r == 0)
        *ret_row = redemption.answer;
    return r;
}
