/* pack.h - between manifest_pack.c (files) and pack_blocks.c (their blocks) only.
 *
 * Shape:   one struct pack for the time of one manifest_pack.
 * Owns:    pack_blocks_deinit frees what belongs to the blocks.
 * Errors:  as manifest.h.
 */
#pragma once

#include <sys/stat.h>

#include <proto/base/crew.h>
#include <proto/base/list.h>
#include <proto/block_set.h>
#include <proto/cut.h>
#include <proto/manifest.h>

/* A block that parts refer to; many of the entries share one. */
struct pack_block {
    struct list node;
    struct block_key key;
    Wl__BlockKey message;
};

/* One that is being sealed. */
struct pack_job {
    struct sealer *sealer;
    const uint8_t *secret;
    struct bytes data, sealed;
    struct pack_block *block;
    int result;
};

struct pack_small {
    const struct manifest_file *file;
    Wl__FileEntry *entry;
    struct stat status;
};

/* What is to be known the next time: the blocks of an entry, or one that is shared. */
struct pack_news {
    uint8_t print[32];
    const Wl__FileEntry *entry;
    const struct pack_block *block;
};

struct pack {
    struct sealer *sealer;
    const uint8_t *secret;
    const struct manifest_options *options;
    struct cutter cutter;
    manifest_emit *emit;
    void *user;
    struct bytes *why;
    struct block_set emitted;
    struct list blocks;
    struct crew crew;
    struct pack_job *jobs;
    size_t n_jobs, next_job;
    const char *root; /* of the group */
    int root_fd;
    struct pack_block *hole; /* a full block of zeros, once there was one */
    size_t hole_bytes;
    struct pack_small *small;
    size_t n_small, small_capacity, small_bytes;
    struct bytes news; /* struct pack_news */
    struct bytes data, sealed, known;
    int64_t now_ns; /* by the wall clock */
    Wl__FileEntry **entries;
    size_t n_entries;
    uint64_t bytes;
};

/* Blocks: one is new, then is closed with its bytes, or emitted without them where its key is known.
 * All have their keys once pack_jobs_end has said so. */
int pack_jobs_new(struct pack *pack);
int pack_jobs_end(struct pack *pack, bool all); /* false: one of them */
int pack_block_new(struct pack *pack, struct pack_block **ret_block);
int pack_block_close(struct pack *pack, struct pack_block *block, const uint8_t *data, size_t size);
int pack_block_emit(struct pack *pack, struct pack_block *block, const void *sealed, size_t size);
void pack_blocks_deinit(struct pack *pack);

/* What was there the last time. */
void pack_print_add(uint8_t print[32], const char *path, const struct stat *st);
bool pack_settled(const struct pack *pack, const struct stat *st); /* so that a print can be trusted */
/* The blocks that hold exactly so much; NULL: not known. Good until it is called again. */
const struct block_key *pack_known_find(struct pack *pack, const uint8_t print[32], uint64_t bytes,
                                        size_t *ret_n);
/* Of an entry, or else of a block, for pack_news_keep. */
int pack_news_add(struct pack *pack, const uint8_t print[32], const Wl__FileEntry *entry,
                  const struct pack_block *block);
void pack_news_keep(struct pack *pack);
