/* pack.h - plain results, many a row: those of one step that one transaction brought; private to
 * broker/store.
 *
 * A result that says nothing but that it is there (class ok, no warning) is most of what a broker
 * writes. A row of its own, with an entry in each index, costs more than all else that is done for a
 * frame. So those of one (job, step, floor, epoch, second, page of tasks) share a row of table
 * results, which a person can read:
 *
 *   members  [[n, task, attempt, worker, wall_ns, cpu_ns, memory_bytes, bytes_in, bytes_out, card_ns,
 *            at, size], ...] as JSON, in order; its sequence is the row's plus n, its blob is `size`
 *            bytes of `blobs` from `at`
 *   workers  their keys, 32 bytes each, every one once
 *
 * View attempts takes them apart again. Table done has a bit for each task and floor that has a
 * result, and refuses it a second time; it also tells what a later floor has made anew.
 *
 * Limits:  a row spans less than PACK_SPAN sequences and tasks of one page, and ends past
 *          PACK_BYTES of blobs.
 */
#pragma once

#include <broker/store/database.h>

enum {
    PACK_TASKS = 1024,             /* a page of tasks: a list of one task's attempts reads a row */
    PACK_SPAN = 4096,              /* what a list from a sequence on must look back for */
    PACK_BYTES = 256 * 1024,       /* what is read and moved in one piece */
    DONE_TASKS = 64,               /* of a row of table done */
    PACK_DONE = PACK_TASKS / DONE_TASKS,
};

struct pack {
    uint64_t first, last; /* sequences */
    int64_t wall_s;
    int64_t number; /* the job's: the sequence of its row */
    struct job_id job;
    uint32_t step, floor, epoch;
    uint64_t page, low, high; /* tasks: low / PACK_TASKS is page */
    const uint8_t *workers;
    const char *members;
    const uint8_t *blobs;
    size_t workers_size, members_size, blobs_size;
    int64_t checksum; /* as it was read */
};

#define PACK_COLUMNS                                                                               \
    "sequence, last, wall_s, number, job, step, floor, epoch, page, low, high, workers, members, " \
    "blobs, checksum"

void pack_read(sqlite3_stmt *row, struct pack *ret_pack); /* until the next step */
/* 0, or STORE_E_CORRUPT where it is not what was written. */
int pack_verify(struct database *database, const struct pack *pack);
/* The next of its results, from *at (NULL: the first). False at the end, and where it breaks off. */
bool pack_next(const struct pack *pack, const char **at, struct record *ret_record);
/* Whether they are whole to the last: nothing but what pack_next can read. */
bool pack_whole(const struct pack *pack);

/* ---- making them ---- */

struct packer;
struct packer *packer_new(void);
void packer_free(struct packer *packer);
static inline bool pack_plain(const struct record *record)
{
    return record->kind == RECORD_ATTEMPT && record->attempt.class == CLASS_OK &&
           !record->attempt.warned;
}
/* In order of sequences; borrowed until packer_flush. SQLite's code. */
int packer_add(struct packer *packer, const struct record *record);
/* A row, and what it sets in table done: bit by bit of `tasks`, from its page on. The writer knows
 * its number, and signs it. */
typedef int packer_write(void *user, struct pack *pack, const uint64_t tasks[PACK_DONE]);
int packer_flush(struct packer *packer, packer_write *write, void *user); /* empties it, if it can */
void packer_clear(struct packer *packer);
