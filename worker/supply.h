/* supply.h - blocks to and from the broker for one task, however long the broker is away.
 *
 * One link to the bulk endpoint, opened when first needed and closed by supply_rest. A refused or
 * expired pass is asked for again; silence is waited out while the worker is offline. While it is
 * online, what comes in is given up after a few rounds; what goes out waits for all that can pass,
 * the broker's troubles and this machine's, until `stop`.
 *
 * Threads: one supply belongs to one thread; the callbacks are called on it.
 * Owns:    blocks that supply_stage fetched stay pinned in the cache until supply_unpin.
 * Errors:  -errno (-ECANCELED when stopped); TRANSFER_E_* after the last try. supply_why says it.
 */
#pragma once

#include <worker/cache.h>

struct supply_config {
    void *context;
    struct link_key server;
    const struct link_keypair *keys;
    struct cache *cache;
    const atomic_bool *stop;
    /* The endpoint once it is known, and whether the broker is there now. */
    int (*endpoint)(void *user, char ret_endpoint[256]);
    bool (*online)(void *user);
    /* A fresh pass, replacing what is in `pass`. */
    int (*renew)(void *user, struct bytes *pass);
    void *user;
};

struct supply;
/* `pass` may be empty: then the first need asks for one. */
int supply_new(const struct supply_config *config, const void *pass, size_t pass_size,
               struct supply **ret_supply);
void supply_free(struct supply *supply);
DEFINE_CLEANUP(struct supply *, supply_free)
void supply_rest(struct supply *supply);

/* Into the cache, pinned. Duplicates are fine. */
int supply_stage(struct supply *supply, const struct block_key *keys, size_t n_keys);
void supply_unpin(struct supply *supply);
/* A manifest_fetch: one block opened, from the cache, fetched again where that lost it. */
int supply_open(void *supply, const struct block_key *key, const struct bytes **ret_block);
/* Puts those of the blocks that the vault lacks. TRANSFER_E_REFUSED: no pass is given for the lease.
 * Others that last: MISSING, QUOTA, CORRUPT, DAMAGED; -EIO, -ENOENT, -EBADMSG, -EFBIG of `source`. */
int supply_put(struct supply *supply, const struct block_id *ids, size_t n_ids, bool plain,
               transfer_source *source, void *user);

const char *supply_why(const struct supply *supply);
uint64_t supply_bytes_in(const struct supply *supply); /* sealed, fetched from the vault */
