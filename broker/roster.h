/* roster.h - who is there: a peer is its CURVE key, and reaches the broker over connections.
 *
 * What a key may do is read from the registry and believed until that has changed, which is looked
 * at every ROSTER_BELIEVE_NS, so that a key that was forbidden is refused on its next message a
 * second later at most, and ten thousand workers that beat cost one read a second. Its connections are
 * forgotten then, and what they watched with them; so are those of a key whose role or studio
 * changed: it says Hello again. A routing token says only where an answer goes.
 *
 * Shape:   a peer for each key that ever spoke; a studio's key has up to ROSTER_CONNECTIONS (each
 *          command is one), a worker's the one of its newest session. A ROUTER is not told of a
 *          lost connection: the longest unused one is put out and forgotten when room is needed,
 *          one that watches a job last.
 * Owns:    peers and connections; both live until roster_deinit, a connection also until forgotten.
 * Errors:  -errno; ROSTER_E_UNKNOWN.
 */
#pragma once

#include <broker/store/store.h>
#include <broker/map.h>
#include <broker/rate.h>
#include <proto/link_guard.h>
#include <proto/westlight.pb-c.h>

enum { ROSTER_E_UNKNOWN = 1 };
enum { ROSTER_CONNECTIONS = 256 };
#define ROSTER_BELIEVE_NS 1000000000LL

struct peer {
    struct map_node node;
    struct link_key key;
    struct key_row row;
    bool enrolled;    /* as of the registry's */
    uint64_t version; /* when it was read */
    struct list connections; /* the longest unused first */
    size_t n_connections;
    struct rate rate, told; /* what it may say, and may be told of what is too much */

    /* A person's: of gateway_turns.c. */
    struct list turn, waiting;
    size_t n_waiting, waiting_bytes;

    /* A worker's. */
    int64_t offended_ns; /* the second in which were: */
    unsigned n_offences; /* messages that were refused */
    bool joined; /* the core knows it */
    struct worker_id worker;
    uint64_t session;
    struct connection *current; /* NULL: its connection was forgotten */
    Wl__Envelope *hello;        /* its offer, as others may see it */
};

struct connection {
    struct map_node node;
    struct list in_peer;
    struct list watches; /* of watch.h */
    size_t n_watches;
    struct link_route route;
    struct link_seat seat;
    struct peer *peer;
    bool greeted; /* said Hello */
};

typedef void roster_forget(void *user, struct connection *connection);

struct roster {
    struct map by_key, by_route;
    struct store_reader *registry; /* borrowed */
    struct link_guard *guard;      /* likewise, once there is one */
    uint64_t version;              /* of the registry, as of: */
    int64_t version_ns;            /* 0: not looked at yet */
    struct peer **by_worker;       /* index: worker_id */
    size_t by_worker_capacity;
    roster_forget *forget; /* told before a connection goes */
    void *user;
};

int roster_init(struct roster *roster, struct store_reader *registry, roster_forget *forget,
                void *user);
void roster_deinit(struct roster *roster);

/* The registry's version, looked at where what is known is older than that. Where it cannot be read
 * it is taken for changed. */
uint64_t roster_version(struct roster *roster, int64_t now_ns, int64_t older_than_ns);
/* The peer of a key, its row read again where that is old or `again`; its connections are forgotten
 * where it may no longer do what it might. ROSTER_E_UNKNOWN where the registry lacks it; *ret_peer
 * is then the peer it was, or NULL. */
int roster_get(struct roster *roster, const struct link_key *key, int64_t now_ns, bool again,
               struct peer **ret_peer);
/* The connection a message came by, made where it is new. */
int roster_connection(struct roster *roster, struct peer *peer, const struct link_route *route,
                      struct connection **ret_connection);
void roster_drop(struct roster *roster, struct connection *connection);
/* The same by route, where the peer is gone. */
struct connection *roster_find_route(struct roster *roster, const struct link_route *route);

int roster_join(struct roster *roster, struct peer *peer, struct worker_id worker);
struct peer *roster_worker(const struct roster *roster, struct worker_id worker); /* or NULL */
/* What a person calls it: its registered name, or a worker's own, or the start of its key. */
const char *roster_name(const struct peer *peer, char text[64]);
