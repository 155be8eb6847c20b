/* reader.h - blocks in the order in which files need them, got ahead, in bounded memory.
 *
 * The idea: the caller lists what it will need (reader_expect) and then asks (reader_fetch, a
 * manifest_fetch), mostly in that order. What the list says next is on its way all the while: as
 * much is asked for as was used, so that the link never waits for a file to be written.
 *
 * Shape:   up to READER_BYTES sealed, under way or here; a block is dropped when the caller is past
 *          its last place within that. What is asked for and not listed is got alone.
 * Owns:    those blocks, and the last one opened.
 * Errors:  as blocks.h; of a block that cannot be had when it is asked for, and not before.
 */
#pragma once

#include <client/arrivals.h>
#include <client/blocks.h>
#include <proto/manifest.h>

/* A transfer's window under way, and as much that came while a file was waited for. */
#define READER_BYTES  ((size_t)2 * LIMIT_WINDOW_BYTES)
#define READER_BLOCKS 8192
#define READER_STEP   ((size_t)1024 * 1024) /* so much is used before more is asked for */
/* Less of it is got again where a fetch is killed: half of what a transfer has in flight. */
#define READER_LOST_BYTES ((size_t)16 * 1024 * 1024)

struct reader_block;

struct reader {
    struct blocks *blocks;
    struct arrivals *arrivals; /* NULL: nothing is kept for a fetch that is killed */
    uint64_t needed;           /* what began before that number is home: the caller's */

    struct transfer_want *expected;
    size_t n_expected, capacity;
    uint64_t expected_bytes, file_bytes; /* sealed, and of the files */
    /* Places in it: past what was used, past what is held. */
    size_t used, at;

    struct reader_block *held[READER_BLOCKS]; /* by id */
    size_t n_held, held_bytes;
    struct reader_block *due, *due_last; /* to be asked for, in order */
    size_t due_bytes;
    size_t numbered_bytes; /* since the last arrivals_next */
    struct transfer_stream *stream;

    struct bytes opened; /* of small files that share a block it is opened once */
    struct block_id opened_id;
    bool has_opened;
};

void reader_deinit(struct reader *reader);
void reader_forget(struct reader *reader); /* what was expected, and what is held */
int reader_expect(struct reader *reader, const Wl__FileEntry *entry);
int reader_fetch(void *user, const struct block_key *key, const struct bytes **ret_block);
/* The number from which on the blocks of a file that begins now are kept (arrivals.h). */
uint64_t reader_number(const struct reader *reader);
