/* batch.h - sealed blocks on their way to the vault, while others are read and sealed: the vault is
 * asked which it lacks, and those are put. It keeps them for a grace only, unless it is asked for
 * them again: so that is done all the while.
 *
 * Shape:   BATCH_BYTES in memory at most; the ids of all blocks since batch_begin.
 * Owns:    its memory and the bulk link; batch_deinit.
 * Errors:  WESTLIGHT_E_*, -errno, with westlight_why. What was sent and is not there any more is
 *          WESTLIGHT_E_MISSING and CODE_MISSING, as at the end: batch_begin, and all of it again.
 */
#pragma once

#include <pthread.h>
#include <client/announce.h>
#include <client/blocks.h>
#include <proto/base/list.h>

#define BATCH_BYTES (64 * 1024 * 1024) /* a transfer window, and as much that is made meanwhile */
/* Above the files themselves: headers and tags, manifests, refs, a batch that is put twice. */
#define BATCH_SPARE_BYTES (64ULL * 1024 * 1024)

struct batch {
    struct westlight *westlight;
    westlight_on_upload *on_upload;
    void *user;
    bool estimate; /* nothing is put */
    struct westlight_upload count;
    struct announce announce;
    struct blocks blocks;

    struct block_id *ids; /* all that the job refers to and that are there */
    size_t n_ids, ids_capacity;
    int64_t renewed_ns;
    uint64_t there_bytes; /* of files */
    int failed;

    pthread_mutex_t lock; /* of these */
    pthread_cond_t room;
    struct list held, *next; /* blocks that are not there yet; which to offer next */
    size_t held_bytes;
    bool making, broken; /* more may come; nothing that comes is wanted */
    int wake_fd;         /* something came */
};

int batch_init(struct batch *batch, struct westlight *westlight, const char *name);
void batch_deinit(struct batch *batch);
/* From the first block again. */
void batch_begin(struct batch *batch, const struct westlight_submission *submission);
/* All files are counted: how large a pass to ask for. */
void batch_measured(struct batch *batch);
/* Calls `make` in a thread of its own, which hands blocks to batch_block, and brings them to the vault
 * meanwhile. 0: all that it made is there; *ret_made is what it returned. */
int batch_make(struct batch *batch, int (*make)(void *user), void *user, int *ret_made);
/* A manifest_emit: `user` is the batch. Within `make` it waits for room, and is -ECANCELED where the
 * link has failed. Outside, before batch_flush, it takes what fits. */
int batch_block(void *user, const struct block_key *key, const void *sealed, size_t size);
int batch_flush(struct batch *batch);
void batch_tell(struct batch *batch);
