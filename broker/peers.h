/* peers.h - who is there: a peer is its CURVE key, and reaches the broker over connections.
 *
 * What a key may do is read from the registry and believed for PEERS_BELIEVE_NS, so that a key
 * that was forbidden is refused on its next message a second later at most. A routing token says
 * only where an answer goes.
 *
 * Shape:   a peer for each key that ever spoke; a studio's key has up to PEERS_CONNECTIONS (each
 *          command is one), a worker's the one of its newest session. A ROUTER is not told of a
 *          lost connection: the longest unused one is forgotten when room is needed, one that
 *          watches a job last.
 * Owns:    peers and connections; both live until peers_deinit, a connection also until forgotten.
 * Errors:  -errno; PEERS_E_UNKNOWN.
 */
#pragma once

#include <broker/store/store.h>
#include <broker/map.h>
#include <proto/link.h>
#include <proto/westlight.pb-c.h>

enum { PEERS_E_UNKNOWN = 1 };
enum { PEERS_CONNECTIONS = 256 };
#define PEERS_BELIEVE_NS 1000000000LL

struct peer {
    struct map_node node;
    struct link_key key;
    struct key_row row;
    bool enrolled;         /* as of read_ns */
    int64_t read_ns;
    struct list connections; /* the longest unused first */
    size_t n_connections;

    /* A worker's. */
    bool joined;           /* the core knows it */
    struct worker_id worker;
    uint64_t session;
    struct connection *current; /* NULL: its connection was forgotten */
    Wl__Envelope *hello;   /* its offer, as others may see it */
};

struct connection {
    struct map_node node;
    struct list in_peer;
    struct list watches; /* of watch.h */
    size_t n_watches;
    struct link_route route;
    struct peer *peer;
    bool greeted; /* said Hello */
};

typedef void peers_forget(void *user, struct connection *connection);

struct peers {
    struct map by_key, by_route;
    struct store_reader *registry; /* borrowed */
    struct peer **by_worker;       /* index: worker_id */
    size_t by_worker_capacity;
    peers_forget *forget;          /* told before a connection goes */
    void *user;
};

int peers_init(struct peers *peers, struct store_reader *registry, peers_forget *forget, void *user);
void peers_deinit(struct peers *peers);

/* The peer of a key, its row read again where that is old or `again`. PEERS_E_UNKNOWN where the
 * registry lacks it; *ret_peer is then the peer it was, or NULL. */
int peers_get(struct peers *peers, const struct link_key *key, int64_t now_ns, bool again,
              struct peer **ret_peer);
/* The connection a message came by, made where it is new. */
int peers_connection(struct peers *peers, struct peer *peer, const struct link_route *route,
                     struct connection **ret_connection);
void peers_drop(struct peers *peers, struct connection *connection);
/* The same by route, where the peer is gone. */
struct connection *peers_find_route(struct peers *peers, const struct link_route *route);

int peers_join(struct peers *peers, struct peer *peer, struct worker_id worker);
struct peer *peers_worker(const struct peers *peers, struct worker_id worker); /* or NULL */
/* What a person calls it: its registered name, or a worker's own, or the start of its key. */
const char *peers_name(const struct peer *peer, char text[64]);
