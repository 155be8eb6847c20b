/* known.c - see known.h. One transaction for all of a submission; nothing of it is synced, because a
 * cache that is lost costs time and nothing else.
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

#define BUSY_MS  2000 /* another submission ends: its rows are few */
#define DAY_S    86400
#define MAC_SIZE 32

struct known {
    struct manifest_known of;
    sqlite3 *database;
    sqlite3_stmt *find, *use, *keep;
    uint8_t secret[32];
    int64_t today;
};

static void mac_of(const struct known *known, const uint8_t print[32], const void *keys, size_t size,
                   uint8_t ret_mac[MAC_SIZE])
{
    uint8_t key[32];

    mac2(known->secret, "known1", 6, print, 32, key);
    mac2(key, keys, size, "", 0, ret_mac);
}

static int find(void *user, const uint8_t print[32], struct bytes *out)
{
    struct known *known = user;
    uint8_t mac[MAC_SIZE];
    int r = -1;

    sqlite3_bind_blob(known->find, 1, print, 32, SQLITE_STATIC);
    if (sqlite3_step(known->find) == SQLITE_ROW) {
        const uint8_t *blob = sqlite3_column_blob(known->find, 0);
        size_t size = (size_t)sqlite3_column_bytes(known->find, 0);

        if (blob && size > MAC_SIZE && (size - MAC_SIZE) % sizeof(struct block_key) == 0) {
            mac_of(known, print, blob + MAC_SIZE, size - MAC_SIZE, mac);
            if (memcmp(mac, blob, MAC_SIZE) == 0)
                r = bytes_append(out, blob + MAC_SIZE, size - MAC_SIZE);
        }
        if (r == 0 && sqlite3_column_int64(known->find, 1) != known->today) {
            sqlite3_bind_int64(known->use, 1, known->today);
            sqlite3_bind_blob(known->use, 2, print, 32, SQLITE_STATIC);
            (void)sqlite3_step(known->use);
            sqlite3_reset(known->use);
        }
    }
    sqlite3_reset(known->find);
    return r;
}

static void keep(void *user, const uint8_t print[32], const struct block_key *keys, size_t n)
{
    struct known *known = user;
    _cleanup_(bytes_wipe_deinit) struct bytes row = {0};

    if (bytes_reserve(&row, MAC_SIZE + n * sizeof(*keys)) < 0)
        return;
    row.size = MAC_SIZE;
    mac_of(known, print, keys, n * sizeof(*keys), row.data);
    if (bytes_append(&row, keys, n * sizeof(*keys)) < 0 || row.size > INT32_MAX)
        return;
    sqlite3_bind_blob(known->keep, 1, print, 32, SQLITE_STATIC);
    sqlite3_bind_int64(known->keep, 2, known->today);
    sqlite3_bind_blob(known->keep, 3, row.data, (int)row.size, SQLITE_STATIC);
    (void)sqlite3_step(known->keep);
    sqlite3_reset(known->keep);
}

static bool prepare(struct known *known)
{
    static const char *const schema =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
        "CREATE TABLE IF NOT EXISTS known (print BLOB PRIMARY KEY, used INTEGER NOT NULL, keys BLOB "
        "NOT NULL) WITHOUT ROWID;";

    return sqlite3_exec(known->database, schema, NULL, NULL, NULL) == SQLITE_OK &&
           sqlite3_prepare_v2(known->database, "SELECT keys, used FROM known WHERE print = ?", -1,
                              &known->find, NULL) == SQLITE_OK &&
           sqlite3_prepare_v2(known->database, "UPDATE known SET used = ? WHERE print = ?", -1,
                              &known->use, NULL) == SQLITE_OK &&
           sqlite3_prepare_v2(known->database, "INSERT OR REPLACE INTO known VALUES (?, ?, ?)", -1,
                              &known->keep, NULL) == SQLITE_OK &&
           sqlite3_exec(known->database, "BEGIN", NULL, NULL, NULL) == SQLITE_OK;
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

static bool open_database(struct known *known, const char *path)
{
    if (sqlite3_open_v2(path, &known->database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                        NULL) == SQLITE_OK) {
        sqlite3_busy_timeout(known->database, BUSY_MS);
        if (prepare(known))
            return true;
    }
    let_go(known);
    return false;
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

struct known *known_open(const uint8_t secret[32])
{
    struct known *known = calloc(1, sizeof(*known));
    char folder[512], path[600];

    if (!known || farm_state_folder("known", folder, sizeof(folder)) < 0 ||
        folder_make(folder, 0700) < 0) {
        free(known);
        return NULL;
    }
    snprintf(path, sizeof(path), "%s/files.db", folder);
    known->of = (struct manifest_known){find, keep, known};
    known->today = clock_wall_ns() / NS_PER_S / DAY_S;
    memcpy(known->secret, secret, sizeof(known->secret));
    if (make_private(path) && open_database(known, path))
        return known;
    (void)unlink(path); /* damaged: anew the next time */
    wipe(known, sizeof(*known));
    free(known);
    return NULL;
}

void known_close(struct known *known)
{
    char text[80];

    if (!known)
        return;
    snprintf(text, sizeof(text), "DELETE FROM known WHERE used < %lld; COMMIT",
             (long long)(known->today - KNOWN_DAYS));
    (void)sqlite3_exec(known->database, text, NULL, NULL, NULL);
    let_go(known);
    wipe(known, sizeof(*known));
    free(known);
}

const struct manifest_known *known_of(struct known *known)
{
    return known ? &known->of : NULL;
}
