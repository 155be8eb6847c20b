/* reach.h - which blocks jobs refer to: what their workers may read, and what is kept; private to
 * broker/vault.
 *
 * Shape:   per job the names of its refs blocks, kept; and the ids in them, loaded when first asked
 *          for and dropped, least recently used job first, past REACH_IDS_MAX in all.
 * Owns:    any thread. reach_check reads one refs block from the disk at most: REACH_E_MORE where
 *          others have still to be, by further calls. So a job with many takes no more of a thread
 *          at a time than one with few.
 * Errors:  reach_check: 0 may be read; VAULT_E_DENIED; VAULT_E_MISSING or VAULT_E_CORRUPT where a
 *          refs block that might name it cannot be had; VAULT_E_BUSY.
 */
#pragma once

#include <broker/vault/disk.h>

#define REACH_IDS_MAX                                                                              \
    (4u << 20) /* 33 bytes each in tables up to half empty: at most some 300 MiB */

enum { REACH_E_MORE = 100 }; /* apart from VAULT_E_* */

struct reach;
int reach_new(struct disk *disk, struct reach **ret_reach);
void reach_free(struct reach *reach);
/* Names that are read only when they are wanted: see vault.h. */
void reach_history_by(struct reach *reach, vault_history *history, void *user);
int reach_history(struct reach *reach, struct studio_id studio, const struct job_id *job);
int reach_add(struct reach *reach, struct studio_id studio, const struct job_id *job,
              const struct block_id *refs, size_t n_refs);
void reach_forget(struct reach *reach, struct studio_id studio, const struct job_id *job);
/* The refs blocks of every job there is and of those that come meanwhile, which may be named more
 * than once. Both are called with `user`, `turn` before each page of a history that has to be read;
 * an answer other than 0 ends it. */
typedef int reach_each_name(void *user, struct studio_id studio, const struct job_id *job,
                            const struct block_id *name); /* NULL: what else there is is not known */
int reach_each(struct reach *reach, reach_each_name *each, int (*turn)(void *user), void *user);
int reach_check(struct reach *reach, struct studio_id studio, const struct job_id *job,
                const struct block_id *id);
