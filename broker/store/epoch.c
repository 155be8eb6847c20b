/* epoch.c - see epoch.h. */
#include <broker/store/epoch.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>

/* More than a broker is started, or writes, between two backups, should its clock be wrong. */
#define RESTORED_EPOCHS    65536
#define RESTORED_SEQUENCES (1LL << 32)

static int read_meta(struct database *database, const char *name, int64_t *ret_value)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        database->handle, "SELECT value, inverse FROM meta WHERE name = ?", -1, &statement, NULL);
    *ret_value = 0;
    if (code == SQLITE_OK)
        code = database_bind(statement, "t", name);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *ret_value = sqlite3_column_int64(statement, 0);
        code = *ret_value == ~sqlite3_column_int64(statement, 1) ? SQLITE_OK : SQLITE_CORRUPT;
    }
    sqlite3_finalize(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int write_meta(struct database *database, const char *name, int64_t value)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        database->handle, "INSERT OR REPLACE INTO meta VALUES(?1, ?2, ~?2)", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = database_bind(statement, "ti", name, value);
    if (code == SQLITE_OK)
        code = database_finish(statement);
    sqlite3_finalize(statement);
    return code;
}

/* The first start of a backup. The broker it was made of went on, and clients and workers remember
 * epochs and sequences of that future: this one must use none of them, nor may a second restoring
 * of the same backup use those of the first. So both go on from the clock: more than a start a
 * second, more than a million records a second, there was not. What workers hold of before may be
 * of frames that this past does not have: `fence` is the first epoch whose leases count. */
static int leave_future(struct database *database, int64_t *epoch)
{
    int64_t wall_s = clock_wall_ns() / NS_PER_S, since_2025_s = wall_s - 1735689600, highest = 0;
    int code = read_meta(database, "backup_sequence", &highest);

    *epoch = *epoch + RESTORED_EPOCHS > since_2025_s ? *epoch + RESTORED_EPOCHS : since_2025_s;
    int64_t sequence = highest + RESTORED_SEQUENCES;
    if (sequence < wall_s << 20)
        sequence = wall_s << 20;
    if (code == SQLITE_OK)
        code = write_meta(database, "sequence", sequence);
    if (code == SQLITE_OK)
        code = write_meta(database, "fence", *epoch);
    if (code == SQLITE_OK)
        code = database_run_text(database, "DELETE FROM meta WHERE name = 'backup_sequence';"
                                           "DELETE FROM notes");
    return code;
}

/* The commit is synced like any other, so nothing that follows can be of an older epoch. */
int epoch_raise(struct database *database, struct epoch *ret_epoch)
{
    int64_t epoch = 0, backup = 0, fence = 0, sequence = 0;
    int code = database_run_text(database, "BEGIN IMMEDIATE");

    if (code == SQLITE_OK)
        code = database_check_meta(database);
    if (code == SQLITE_OK)
        code = read_meta(database, "epoch", &epoch);
    if (code == SQLITE_OK)
        code = read_meta(database, "backup_sequence", &backup);
    epoch++;
    if (code == SQLITE_OK && backup > 0)
        code = leave_future(database, &epoch);
    if (code == SQLITE_OK)
        code = write_meta(database, "epoch", epoch);
    crash_point("store.epoch.written");
    if (code == SQLITE_OK)
        code = read_meta(database, "fence", &fence);
    if (code == SQLITE_OK)
        code = read_meta(database, "sequence", &sequence);
    if (code == SQLITE_OK)
        code = database_run_text(database, "COMMIT");
    if (code != SQLITE_OK) {
        int r = database_error(database, code, "state.db: a new epoch");
        (void)database_run_text(database, "ROLLBACK");
        return r;
    }
    crash_point("store.epoch.raised");
    *ret_epoch = (struct epoch){(uint32_t)epoch, (uint32_t)fence, (uint64_t)sequence};
    return 0;
}
