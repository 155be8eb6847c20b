/* batch.h - sealed blocks on their way to the vault: they gather until there is a window of them;
 * then the vault is asked which it lacks, and those are put. It keeps them for a grace only, unless
 * it is asked for them again: so that is done all the while.
 *
 * Shape:   BATCH_BYTES in memory at most; the ids of all blocks since batch_begin.
 * Owns:    its memory and the bulk link; batch_deinit.
 * Errors:  WESTLIGHT_E_*, -errno, with westlight_why. What was sent and is not there any more is
 *          WESTLIGHT_E_MISSING and CODE_MISSING, as at the end: batch_begin, and all of it again.
 */
#pragma once

#include <client/announce.h>
#include <client/blocks.h>

#define BATCH_BYTES (32 * 1024 * 1024) /* one transfer window */
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

    struct block_id *ids; /* all that the job refers to */
    size_t n_ids, ids_capacity;
    struct bytes sealed; /* those that were not flushed */
    struct batch_block *waiting;
    size_t n_waiting, waiting_capacity;
    size_t *missing; /* of those, which to put */
    int64_t renewed_ns;

    /* Bytes of files, as count.bytes_done has them: flushed, waiting; of these there, being put. */
    uint64_t flushed_bytes, waiting_bytes, there_bytes, put_bytes;
    uint64_t put_sealed_bytes, put_from; /* what is being put; blocks_stored at its beginning */
};

void batch_init(struct batch *batch, struct westlight *westlight, const char *name);
void batch_deinit(struct batch *batch);
/* From the first block again. */
void batch_begin(struct batch *batch, const struct westlight_submission *submission);
/* All files are counted: how large a pass to ask for. */
void batch_measured(struct batch *batch);
/* A seal_sink (manifest.h): `user` is the batch. */
int batch_block(void *user, const struct block_key *key, const void *sealed, size_t size);
int batch_flush(struct batch *batch);
void batch_tell(struct batch *batch);
