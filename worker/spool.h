/* spool.h - finished results on disk until the broker has committed them.
 *
 * Shape:   <state>/spool/<number>/ holds the sealed blocks ("<hex>", refs blocks "<hex>.refs") and,
 *          written last, "result": SPOOL_HEAD_BYTES with a digest and the size, the packed Result,
 *          perhaps what an earlier one left. A folder without a whole one was never finished and is
 *          removed at start.
 * Syncs:   the result of an attempt that took SPOOL_SYNC_NS or longer. What is shorter survives a
 *          killed worker; after a power cut it is run again, which is cheaper than to sync each.
 * Owns:    struct spool owns its path and its result; the files stay until spool_remove.
 * Errors:  -errno; SPOOL_E_FORM for a result that cannot be read back.
 */
#pragma once

#include <proto/seal.h>
#include <proto/westlight.pb-c.h>
#include <worker/reuse.h>

enum { SPOOL_E_FORM = 1 };

#define SPOOL_HEAD_BYTES 36
#ifndef SPOOL_SYNC_NS /* the program that dies at each point has it lower: tests take both ways soon */
#define SPOOL_SYNC_NS (1000 * 1000 * 1000ULL)
#endif

struct spool {
    char *folder;
    struct reuse *reuse; /* NULL, or where the folder goes when all it has is a result that is over */
    bool blocks;
    Wl__Result *result; /* NULL until spool_save */
};

/* A folder of that number, or one of `reuse`. */
int spool_new(const char *state, uint64_t number, struct reuse *reuse, struct spool *ret_spool);
int spool_open(const char *folder, struct spool *ret_spool);
void spool_deinit(struct spool *spool);
void spool_remove(struct spool *spool); /* from disk, too */

int spool_put(struct spool *spool, const struct block_id *id, const void *sealed, size_t size,
              bool plain);
int spool_get(const struct spool *spool, const struct block_id *id, bool plain, struct bytes *out);
/* *ret_ids is the caller's to free. */
int spool_blocks(const struct spool *spool, bool plain, struct block_id **ret_ids, size_t *ret_n);
void spool_clear(struct spool *spool); /* of blocks */
/* Says that all is there: the result goes to disk. Keeps a copy of its own, in memory at least:
 * where the disk fails it can still be sent, only not after a restart. */
int spool_save(struct spool *spool, const Wl__Result *result);

/* Every finished folder below <state>/spool, oldest first; unfinished ones are removed, one that
 * cannot be read now is left where it is.
 * *ret_next is a number none of them has. *ret_spools (of *ret_n) is the caller's. */
int spool_load(const char *state, struct spool **ret_spools, size_t *ret_n, uint64_t *ret_next);
