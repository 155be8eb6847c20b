/* bulk.h - the bulk endpoint: one thread, its own context and I/O threads, the vault behind it.
 *
 * A peer opens with a pass; what it may read and write follows from that, for as long as its key is
 * registered for it: the registry is believed for a second. Requests go to the vault
 * and answers come back in any order. Bytes held for all peers are bounded by memory_bytes: past
 * it, the socket is not read; a peer that reads nothing holds at most its own share.
 */
#pragma once

#include <broker/room.h>
#include <broker/vault/vault.h>
#include <proto/identity.h>

/* What the registry says of a key. Called in the bulk thread: 0; positive: nothing; or -errno. */
struct bulk_key {
    enum role role;
    struct studio_id studio;
};
typedef int bulk_registry(void *user, const struct link_key *key, struct bulk_key *ret_key);

/* The quota of a studio in bytes; 0: none. */
typedef int bulk_quota(void *user, struct studio_id studio, uint64_t *ret_bytes);

struct bulk_config {
    const char *endpoint;
    const struct link_keypair *keys;
    const struct identity_signer *signer;
    struct vault *vault;
    link_allow *allow; /* from the bulk context's own ZAP thread */
    void *allow_user;
    bulk_registry *registry;
    bulk_quota *quota; /* the same `user`, thread and answers; NULL: nobody has one */
    void *registry_user;
    const struct room *room; /* NULL: the disk itself refuses */
    size_t memory_bytes;
    int io_threads;
};

struct bulk;
int bulk_start(const struct bulk_config *config, struct bulk **ret_bulk);
void bulk_stop(struct bulk *bulk);
const char *bulk_endpoint(const struct bulk *bulk); /* as bound */
