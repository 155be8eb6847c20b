/* sweep.h - removes what nobody refers to; private to broker/vault.
 *
 * The idea: a round marks every block that a job or a pin refers to in a filter, then looks at every
 * file; what is not marked, and is older than the grace, goes. The filter says "marked" too often
 * and never too seldom (a Bloom filter, with another salt each round), so that a round over ten
 * million blocks takes 16 MiB, and what it keeps by mistake the next one removes.
 *
 * Lock:    put, have and pin look at a block, renew it and mark it between sweep_enter and
 *          sweep_leave, any number of threads at once; a removal looks once more and removes alone.
 *          So whoever was told that a block is there keeps it for the grace, or for the pin.
 * Time:    a file's time is that of disk_set_time: what has passed while the broker ran, as far as
 *          its last record of before knows. Whatever clocks say, a block is never older than that.
 * Crash:   a removal is one unlink and follows a durable end of the last job that named the block;
 *          should it not outlive a power cut, the next round does it again.
 * Owns:    one thread, which rests four times as long as it works; the filter during a round.
 * Errors:  a job whose refs cannot be read keeps everything of its studio until it goes.
 */
#pragma once

#include <broker/vault/reach.h>

struct sweep;
int sweep_new(struct disk *disk, struct reach *reach, struct sweep **ret_sweep);
/* `passed_s`: the time that had passed by when the broker last wrote so; 0: it never did. */
int sweep_start(struct sweep *sweep, int64_t grace_ns, int64_t passed_s);
void sweep_stop(struct sweep *sweep); /* ends its thread */
void sweep_free(struct sweep *sweep);

void sweep_enter(struct sweep *sweep);
void sweep_leave(struct sweep *sweep);
/* Between the two: it is there, and its grace begins anew; a round under way keeps it. */
bool sweep_renew(struct sweep *sweep, struct studio_id studio, const struct block_id *id);
void sweep_mark(struct sweep *sweep, struct studio_id studio, const struct block_id *id);

/* From pin to unpin what the request's refs name is kept. */
void sweep_pin(struct sweep *sweep, struct vault_request *request);
void sweep_unpin(struct sweep *sweep, struct vault_request *request);

struct sweep_count {
    uint64_t blocks, bytes; /* removed */
    uint64_t kept;
};
/* One round; tests call it, too. -ENOMEM; -ECANCELED where sweep_stop came. */
int sweep_round(struct sweep *sweep, int64_t grace_ns, struct sweep_count *ret_count);
