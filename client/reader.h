/* reader.h - blocks in the order in which files need them, a window ahead, in bounded memory.
 *
 * Shape:   the caller lists what it will need (reader_expect) and then asks (reader_fetch, a
 *          manifest_fetch). What is asked for and not held is got together with what follows it in
 *          the list, up to READER_BYTES sealed.
 * Owns:    the sealed blocks of one window, and the last block opened.
 * Errors:  as blocks.h.
 */
#pragma once

#include <client/arrivals.h>
#include <client/blocks.h>
#include <proto/manifest.h>

#define READER_BYTES  ((size_t)LIMIT_WINDOW_BYTES) /* what a client that is killed had got for nothing */
#define READER_BLOCKS 8192
/* Less of it is got again where a fetch is killed: half of what a transfer has in flight. */
#define READER_LOST_BYTES ((size_t)16 * 1024 * 1024)

struct reader_block {
    struct block_id id;
    struct bytes sealed;
};

struct reader {
    struct blocks *blocks;
    struct arrivals *arrivals; /* NULL: nothing is kept for a fetch that is killed */
    uint64_t needed;           /* what began before that number is home: the caller's */
    struct transfer_want *expected;
    size_t n_expected, capacity, at, expected_bytes;
    struct reader_block *held;
    size_t n_held, cursor;
    size_t *coming; /* those of `held` that are being got */
    struct bytes opened; /* of small files that share a block it is opened once */
    struct block_id opened_id;
    bool has_opened;
};

void reader_deinit(struct reader *reader);
void reader_forget(struct reader *reader); /* what was expected, and what is held */
int reader_expect(struct reader *reader, const Wl__FileEntry *entry);
int reader_fetch(void *user, const struct block_key *key, const struct bytes **ret_block);
