/* cache.h - sealed blocks on disk, by name, up to a size: what the last tasks read, the next one
 * need not fetch.
 *
 * Shape:   <folder>/<2 hex>/<64 hex>, one file a block. The least recently used that nobody has
 *          pinned goes first; what is pinned may take the cache past its limit for a while. The
 *          order is kept in memory and found again at start from the files' modification times.
 * Trust:   what is read is checked against its name; a block that is damaged, or that the disk
 *          cannot read, is logged, dropped and counts as absent. So nothing here needs a sync.
 * Threads: any; one lock, which is never held over a read or a write of a block.
 * Owns:    struct cache owns its folder. A second process on it is the caller's to prevent.
 * Errors:  -errno; CACHE_E_ABSENT.
 */
#pragma once

#include <proto/transfer.h>

enum { CACHE_E_ABSENT = 1 };

struct cache;
int cache_new(const char *folder, uint64_t limit_bytes, struct cache **ret_cache);
void cache_free(struct cache *cache);
DEFINE_CLEANUP(struct cache *, cache_free)

/* `out` is replaced by the sealed bytes. */
int cache_get(struct cache *cache, const struct block_id *id, struct bytes *out);
/* Keeps the block; the bytes must be those of the name. */
int cache_put(struct cache *cache, const struct block_id *id, const void *sealed, size_t size);
/* Pinned blocks stay. Pins count; a pin on a block that is not there yet waits for it. */
int cache_pin(struct cache *cache, const struct block_id *id);
void cache_unpin(struct cache *cache, const struct block_id *id);
/* Fetches what is absent of `wants` in one windowed transfer, but for what others are fetching:
 * that is waited for, and fetched here should they fail. The caller has it pinned. The errors of
 * transfer_get pass through unchanged; -ECANCELED where `stop` (may be NULL) ended the wait. */
int cache_fetch(struct cache *cache, struct transfer *transfer, const struct transfer_want *wants,
                size_t n, const atomic_bool *stop);
/* Removes so much of what is not pinned, the least recently used first; what it came to. */
uint64_t cache_give_up(struct cache *cache, uint64_t bytes);
uint64_t cache_bytes(struct cache *cache);
size_t cache_blocks(struct cache *cache);
