/* rows.c - rows of results, as they lie in a database that somebody has copied or that a program of
 * another version wrote: the checksum says that they are what was written, and no more.
 */
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/unpack.h>
#include <proto/base/check.h>
#include "fuzz.h"

/* Of a row: its members begin it, the rest follows. */
enum { MEMBERS = 1, WORKERS, BLOBS, FIRST, LAST, NUMBER };
enum { ROWS_MAX = 16 };

static struct database database;
static sqlite3_stmt *insert, *rows, *empty;

static void database_begin(void)
{
    CHECK(sqlite3_open(":memory:", &database.handle) == SQLITE_OK);
    CHECK(sqlite3_exec(database.handle, "CREATE TABLE results (" PACK_COLUMNS ")", NULL, NULL,
                       NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(database.handle,
                             "INSERT INTO results VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", -1,
                             &insert, NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(database.handle,
                             "SELECT " PACK_COLUMNS " FROM results ORDER BY sequence", -1, &rows,
                             NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(database.handle, "DELETE FROM results", -1, &empty, NULL) ==
          SQLITE_OK);
}

static void row_insert(const struct pack *pack)
{
    CHECK(database_bind(insert, "iiiibiiiiiibTbi", (int64_t)pack->first, (int64_t)pack->last,
                        pack->wall_s, pack->number, pack->job.bytes, sizeof pack->job.bytes,
                        (int64_t)pack->step, (int64_t)pack->floor, (int64_t)pack->epoch,
                        (int64_t)pack->page, (int64_t)pack->low, (int64_t)pack->high, pack->workers,
                        pack->workers_size, pack->members, pack->members_size, pack->blobs,
                        pack->blobs_size, checksum_pack(pack)) == SQLITE_OK);
    CHECK(database_finish(insert) == SQLITE_OK);
}

static size_t rows_insert(const uint8_t *data, size_t size)
{
    static const struct pack none = {.first = 1,
                                     .last = 2,
                                     .number = 1,
                                     .epoch = 1,
                                     .members = "",
                                     .workers = (const uint8_t *)"",
                                     .blobs = (const uint8_t *)""};
    struct pack pack = none;
    struct fuzz_part part;
    size_t n = 0;

    while (n < ROWS_MAX && fuzz_next(&data, &size, &part)) {
        const uint8_t *bytes = part.data ? part.data : (const uint8_t *)"";

        if (part.number == MEMBERS) {
            if (n++)
                row_insert(&pack);
            pack = none;
            pack.members = (const char *)bytes;
            pack.members_size = part.size;
        } else if (part.number == WORKERS) {
            pack.workers = bytes;
            pack.workers_size = part.size;
        } else if (part.number == BLOBS) {
            pack.blobs = bytes;
            pack.blobs_size = part.size;
        } else if (part.number == FIRST) {
            pack.first = part.value;
        } else if (part.number == LAST) {
            pack.last = part.value;
        } else {
            pack.number = (int64_t)part.value;
        }
    }
    row_insert(&pack);
    return n;
}

static void on_bad(void *user, const char *why)
{
    CHECK(why[0]);
    (*(size_t *)user)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n_bad = 0, sum = 0;
    struct unpack unpack = {.bad = on_bad, .user = &n_bad, .database = &database};
    struct record record;
    int64_t number;
    bool over;

    if (!database.handle)
        database_begin();
    rows_insert(data, size);
    unpack.rows = rows;
    if (unpack_begin(&unpack) == SQLITE_OK)
        while (unpack_next(&unpack, &record, &number, &over) == SQLITE_ROW)
            for (size_t i = 0; i < record.attempt.blob_size; i++)
                sum += ((const uint8_t *)record.attempt.blob)[i];
    unpack_end(&unpack);
    CHECK(database_finish(empty) == SQLITE_OK);
    return sum == SIZE_MAX;
}

void fuzz_seeds(fuzz_add *add)
{
    static const char two[] = "[[0,1,7,0,5,5,5,5,5,0,0,4],[2,3,9,1,5,5,5,5,5,0,4,4]]",
                      one[] = "[[0,2,8,0,5,5,5,5,5,0,0,8]]";
    static struct fuzz_buffer all;
    uint8_t workers[64] = {1};

    all.size = 0;
    fuzz_put(&all, MEMBERS, two, sizeof(two) - 1);
    fuzz_put(&all, WORKERS, workers, sizeof(workers));
    fuzz_put(&all, BLOBS, "blobblob", 8);
    fuzz_put_number(&all, FIRST, 1);
    fuzz_put_number(&all, LAST, 3);
    fuzz_put(&all, MEMBERS, one, sizeof(one) - 1);
    fuzz_put(&all, WORKERS, workers, 32);
    fuzz_put(&all, BLOBS, "blobblob", 8);
    fuzz_put_number(&all, FIRST, 2);
    fuzz_put_number(&all, LAST, 2);
    fuzz_put_number(&all, NUMBER, 1);
    add("rows", all.data, all.size);
}
