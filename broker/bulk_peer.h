/* bulk_peer.h - one peer of the bulk endpoint, what it may do and what waits for it; private to
 * bulk*.c.
 *
 * Shape:   a table by routing token. A peer is counted: the table, every vault request and every
 *          block on its way hold one; it is freed by the last, which may be an I/O thread of
 *          libzmq. All else belongs to the bulk thread.
 * Units:   held_bytes are those of blocks read for it: from before the vault is asked until libzmq
 *          lets go of them.
 * Owns:    peers_forget drops all that waits; what is on its way comes back to a peer that is gone.
 * Errors:  NULL without memory, or with too many; -errno.
 */
#pragma once

#include <stdatomic.h>
#include <broker/bulk.h>
#include <broker/map.h>
#include <proto/base/list.h>
#include <proto/wire.h>

#define PEERS_MAX        65536
#define PEERS_OF_KEY_MAX 1024 /* a worker has two for each of its slots at most */
#define PEERS_BUCKETS    4096
#define GET_IDS_MAX      (1u << 18) /* of one connection: a window of blocks of 128 bytes */
#define ANSWERS_OF_KEY   (1u << 14) /* that wait, over all its connections */
#define GET_IDS_OF_KEY   (1u << 20) /* 32 MiB that wait for a key, however many connections it has \
                                     */

/* What was written under one pass, over all connections that showed it; under those of one lease
 * together, so that a new one is no new allowance. */
struct grant {
    struct map_node node;
    struct block_id name;
    int64_t expires_wall_s;
    uint64_t written_bytes;
    uint64_t quota_bytes;  /* its studio's, as of quota_read_ns; 0: none */
    int64_t quota_read_ns; /* 0: never */
    size_t n_peers;
};

/* Bytes of blocks read for a key, over all its connections; freed with the last that counts there. */
struct held {
    atomic_size_t bytes;
    atomic_uint count;
};

/* A key, with what its connections share. */
struct holder {
    struct map_node node;
    struct link_key key;
    struct held *held;
    size_t n_peers, n_get_ids, n_answers;
    bool registered; /* as of read_ns, as what `as` says */
    int64_t read_ns; /* 0: never */
    struct bulk_key as;
};

struct peer {
    struct list node;    /* in its bucket */
    struct list turn;    /* among those with gets, while it has any */
    struct list blocked; /* among those whose queue at libzmq is full */
    struct link_route route;
    struct link_key key;
    struct holder *holder; /* NULL: gone */
    bool open, gone;
    bool pulling; /* blocks are on their way to it, or will be */
    struct pass pass;
    struct grant *grant;
    struct list gets; /* struct get */
    size_t n_get_ids;
    struct list answers; /* struct answer */
    size_t n_answers;
    unsigned pending; /* requests at the vault */
    int64_t seen_ns;
    atomic_size_t held_bytes; /* of this connection; `held` has those of its key */
    struct held *held;
    atomic_uint count;
};

/* A Get: ids[next .. n_ids) are still to be asked of the vault. */
struct get {
    struct list node;
    uint64_t request;
    size_t next, n_ids;
    struct block_id ids[];
};

struct answer {
    struct list node;
    zmq_msg_t header, data;
    bool has_data;
};

struct peers {
    struct list buckets[PEERS_BUCKETS];
    struct map grants, holders;
    size_t n;
    size_t n_pulling;
};

int peers_init(struct peers *peers);
void peers_deinit(struct peers *peers);
struct peer *peers_get(struct peers *peers, const struct link_route *route,
                       const struct link_key *key);
void peers_forget(struct peers *peers, struct peer *peer);
/* The key is registered for what its pass says; asked anew after PEERS_BELIEVE_NS. 0; positive: it
 * is not; or -errno. */
int peer_registered(struct peer *peer, const struct bulk_config *config, int64_t now_ns);
bool peer_of_job(const struct peer *peer); /* its pass names one: it is a worker's */
/* What the peer's studio may hold; believed as long. 0; or -errno. */
int peer_quota(struct peer *peer, const struct bulk_config *config, int64_t now_ns,
               uint64_t *ret_bytes);
/* Forgets who was silent for long and has nothing under way, and grants past their time. */
void peers_expire(struct peers *peers, int64_t now_ns, int64_t now_wall_s);
/* The peer may do what the pass says; the same pass shown again, or another of the same lease, goes
 * on counting. */
int peers_open(struct peers *peers, struct peer *peer, const struct pass *pass, const void *text,
               size_t size);

/* `bytes` more are held for it; also from a thread of libzmq. */
void peer_hold(struct peer *peer, size_t bytes);
void peer_let_go(struct peer *peer, size_t bytes);
struct peer *peer_ref(struct peer *peer);
void peer_unref(struct peer *peer);
/* -EBUSY where too many wait already. */
int peer_add_get(struct peer *peer, uint64_t request, const void *ids, size_t size);
uint64_t peer_request(const struct peer *peer); /* whose id is the next; 0: none waits */
/* Its next id to read. */
bool peer_next_get(struct peer *peer, uint64_t *ret_request, struct block_id *ret_id);
