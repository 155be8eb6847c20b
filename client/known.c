/* known.c - see known.h. Rows are read one by one and gathered, and written a few at a time, so
 * that submissions side by side wait for moments only. Nothing of it is synced, because a cache
 * that is lost costs time and nothing else.
 */
#include <client/known.h>

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define BUSY_MS  2000 /* another submission writes some rows */
#define EVERY_NS (2 * NS_PER_S)
#define DAY_S    86400
#define MAC_SIZE 32

/* What is read this far behind is not at the farm yet: a row of it, kept of an upload that was
 * killed, would have all read once more. (The batch, and what the threads that seal are at.) */
#define UNSENT_BYTES (128ULL << 20)

struct row {
    uint8_t print[32];
    struct bytes keys; /* behind their MAC; none: it was of use today */
    uint64_t at_bytes; /* of files, kept until then */
};

struct known {
    struct manifest_known of;
    char path[600];
    sqlite3 *database;
    sqlite3_stmt *find, *use, *keep;
    uint8_t secret[32];
    int64_t today;
    struct row *rows; /* to be written */
    size_t n_rows, capacity;
    uint64_t kept_bytes;
    int64_t written_ns;
};

static void mac_of(const struct known *known, const uint8_t print[32], const void *keys,
                   size_t size, uint8_t ret_mac[MAC_SIZE])
{
    uint8_t key[32];

    mac2(known->secret, "known1", 6, print, 32, key);
    mac2(key, keys, size, "", 0, ret_mac);
}

/* ---- the database ---- */

static int prepare(struct known *known)
{
    static const char *const schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
                                      "CREATE TABLE IF NOT EXISTS known (print BLOB PRIMARY KEY, "
                                      "used INTEGER NOT NULL, keys BLOB "
                                      "NOT NULL) WITHOUT ROWID;";

    int code = sqlite3_exec(known->database, schema, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(known->database, "SELECT keys, used FROM known WHERE print = ?",
                                  -1, &known->find, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(known->database, "UPDATE known SET used = ? WHERE print = ?", -1,
                                  &known->use, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(known->database,
                                  "INSERT OR REPLACE INTO known (used, print, keys) "
                                  "VALUES (?, ?, ?)",
                                  -1, &known->keep, NULL);
    return code;
}

static void let_go(struct known *known)
{
    sqlite3_finalize(known->find);
    sqlite3_finalize(known->use);
    sqlite3_finalize(known->keep);
    sqlite3_close(known->database);
    known->find = known->use = known->keep = NULL;
    known->database = NULL;
}

/* The keys open blocks: nobody else's business. */
static bool make_private(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int open_database(struct known *known)
{
    int code = make_private(known->path) ? SQLITE_OK : SQLITE_CANTOPEN;

    if (code == SQLITE_OK)
        code = sqlite3_open_v2(known->path, &known->database,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(known->database, BUSY_MS);
    if (code == SQLITE_OK)
        code = prepare(known);
    if (code != SQLITE_OK)
        let_go(known);
    return code;
}

/* Damaged, it is made anew at once; false where the code says something else. */
static bool anew(struct known *known, int code)
{
    static const char *const parts[] = {"", "-wal", "-shm"};
    char path[sizeof(known->path) + 8];

    if (code != SQLITE_CORRUPT && code != SQLITE_NOTADB)
        return false;
    let_go(known);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        snprintf(path, sizeof(path), "%s%s", known->path, parts[i]);
        (void)unlink(path);
    }
    return open_database(known) == SQLITE_OK;
}

static int write_row(struct known *known, const struct row *row)
{
    sqlite3_stmt *statement = row->keys.size ? known->keep : known->use;

    sqlite3_bind_int64(statement, 1, known->today);
    sqlite3_bind_blob(statement, 2, row->print, 32, SQLITE_STATIC);
    if (row->keys.size)
        sqlite3_bind_blob(statement, 3, row->keys.data, (int)row->keys.size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int write_once(struct known *known, size_t n)
{
    if (!known->database)
        return SQLITE_CANTOPEN;
    int code = sqlite3_exec(known->database, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return code;
    for (size_t i = 0; code == SQLITE_OK && i < n; i++)
        code = write_row(known, &known->rows[i]);
    if (code == SQLITE_OK)
        code = sqlite3_exec(known->database, "COMMIT", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        (void)sqlite3_exec(known->database, "ROLLBACK", NULL, NULL, NULL);
    return code;
}

/* The first n. What cannot be written stays for the next time. */
static void write_rows(struct known *known, size_t n)
{
    if (n == 0)
        return;
    int code = write_once(known, n);
    if (anew(known, code & 0xff))
        code = write_once(known, n);
    known->written_ns = clock_monotonic_ns();
    if (code != SQLITE_OK)
        return;
    for (size_t i = 0; i < n; i++)
        bytes_wipe_deinit(&known->rows[i].keys);
    known->n_rows -= n;
    memmove(known->rows, known->rows + n, known->n_rows * sizeof(*known->rows));
}

/* ---- manifest's side ---- */

static struct row *add_row(struct known *known, const uint8_t print[32])
{
    if (known->n_rows == known->capacity) {
        size_t capacity = known->capacity ? 2 * known->capacity : 64;
        struct row *grown = reallocarray(known->rows, capacity, sizeof(*grown));
        if (!grown)
            return NULL;
        known->rows = grown;
        known->capacity = capacity;
    }
    struct row *row = &known->rows[known->n_rows++];
    *row = (struct row){.at_bytes = known->kept_bytes};
    memcpy(row->print, print, sizeof(row->print));
    return row;
}

/* Those that an upload which is killed had better keep. */
static size_t ripe(const struct known *known)
{
    size_t n = 0;

    while (n < known->n_rows && known->rows[n].at_bytes + UNSENT_BYTES <= known->kept_bytes)
        n++;
    return n;
}

static int find(void *user, const uint8_t print[32], struct bytes *out)
{
    struct known *known = user;
    uint8_t mac[MAC_SIZE];
    bool of_use = false;
    int r = -1;

    if (!known->database)
        return -1;
    sqlite3_bind_blob(known->find, 1, print, 32, SQLITE_STATIC);
    int code = sqlite3_step(known->find);
    if (code == SQLITE_ROW) {
        const uint8_t *blob = sqlite3_column_blob(known->find, 0);
        size_t size = (size_t)sqlite3_column_bytes(known->find, 0);

        if (blob && size > MAC_SIZE && (size - MAC_SIZE) % sizeof(struct block_key) == 0) {
            mac_of(known, print, blob + MAC_SIZE, size - MAC_SIZE, mac);
            if (memcmp(mac, blob, MAC_SIZE) == 0)
                r = bytes_append(out, blob + MAC_SIZE, size - MAC_SIZE);
        }
        of_use = r == 0 && sqlite3_column_int64(known->find, 1) != known->today;
    }
    sqlite3_reset(known->find);
    if (of_use)
        (void)add_row(known, print);
    (void)anew(known, code & 0xff);
    return r;
}

static void keep(void *user, const uint8_t print[32], const struct block_key *keys, size_t n)
{
    struct known *known = user;
    _cleanup_(bytes_wipe_deinit) struct bytes bytes = {0};

    if (bytes_reserve(&bytes, MAC_SIZE + n * sizeof(*keys)) < 0)
        return;
    bytes.size = MAC_SIZE;
    mac_of(known, print, keys, n * sizeof(*keys), bytes.data);
    if (bytes_append(&bytes, keys, n * sizeof(*keys)) < 0 || bytes.size > INT32_MAX)
        return;
    for (size_t i = 0; i < n; i++)
        known->kept_bytes += keys[i].body_bytes;
    struct row *row = add_row(known, print);
    if (!row)
        return;
    row->keys = bytes;
    bytes = (struct bytes){0};
    size_t n_ripe = clock_monotonic_ns() - known->written_ns < EVERY_NS ? 0 : ripe(known);
    if (n_ripe > 0)
        write_rows(known, n_ripe);
}

/* ---- from the opening to the end ---- */

struct known *known_open(const uint8_t secret[32])
{
    struct known *known = calloc(1, sizeof(*known));
    char folder[512];

    if (!known || farm_state_folder("known", folder, sizeof(folder)) < 0 ||
        folder_make(folder, 0700) < 0) {
        free(known);
        return NULL;
    }
    snprintf(known->path, sizeof(known->path), "%s/files.db", folder);
    known->of = (struct manifest_known){find, keep, known};
    known->today = clock_wall_ns() / NS_PER_S / DAY_S;
    memcpy(known->secret, secret, sizeof(known->secret));
    int code = open_database(known);
    if (code == SQLITE_OK || anew(known, code & 0xff))
        return known;
    wipe(known, sizeof(*known));
    free(known);
    return NULL;
}

void known_close(struct known *known, bool sent)
{
    char text[80];

    if (!known)
        return;
    write_rows(known, sent ? known->n_rows : ripe(known));
    snprintf(text, sizeof(text), "DELETE FROM known WHERE used < %lld",
             (long long)(known->today - KNOWN_DAYS));
    if (known->database)
        (void)sqlite3_exec(known->database, text, NULL, NULL, NULL);
    for (size_t i = 0; i < known->n_rows; i++)
        bytes_wipe_deinit(&known->rows[i].keys);
    free(known->rows);
    let_go(known);
    wipe(known, sizeof(*known));
    free(known);
}

const struct manifest_known *known_of(struct known *known)
{
    return known ? &known->of : NULL;
}
