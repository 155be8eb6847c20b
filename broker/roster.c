/* roster.c - see roster.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/identity.h>
#include <proto/wire.h>
#include <broker/roster.h>

int roster_init(struct roster *roster, struct store_reader *registry, roster_forget *forget,
                void *user)
{
    struct roster made = {.registry = registry, .forget = forget, .user = user};
    int r = map_init(&made.by_key);

    if (r < 0)
        return r;
    r = map_init(&made.by_route);
    if (r < 0) {
        map_deinit(&made.by_key);
        return r;
    }
    *roster = made;
    return 0;
}

static void connection_free(struct roster *roster, struct connection *connection)
{
    struct peer *peer = connection->peer;

    if (roster->forget)
        roster->forget(roster->user, connection);
    if (peer->current == connection)
        peer->current = NULL;
    list_unlink(&connection->in_peer);
    peer->n_connections--;
    map_remove(&roster->by_route, &connection->node);
    free(connection);
}

static void drop_connections(struct roster *roster, struct peer *peer)
{
    list_for_each_safe (at, after, &peer->connections)
        connection_free(roster, list_entry(at, struct connection, in_peer));
}

void roster_deinit(struct roster *roster)
{
    map_for_each_safe(at, &roster->by_key)
    {
        struct peer *peer = map_entry(at, struct peer, node.node);

        drop_connections(roster, peer);
        if (peer->hello)
            wire_free(peer->hello);
        map_remove(&roster->by_key, &peer->node);
        free(peer);
    }
    map_deinit(&roster->by_key);
    map_deinit(&roster->by_route);
    free(roster->by_worker);
    *roster = (struct roster){0};
}

static bool key_match(const struct map_node *node, const void *key)
{
    const struct peer *peer = map_entry(node, const struct peer, node);

    return memcmp(&peer->key, key, sizeof peer->key) == 0;
}

static int registry_row(struct roster *roster, const struct link_key *key, struct key_row *ret_row)
{
    struct worker_key name;

    memcpy(name.bytes, key->bytes, sizeof name.bytes);
    return store_key(roster->registry, &name, ret_row);
}

uint64_t roster_version(struct roster *roster, int64_t now_ns, int64_t older_than_ns)
{
    uint64_t version = 0;

    if (roster->version_ns && now_ns - roster->version_ns < older_than_ns)
        return roster->version;
    roster->version_ns = now_ns;
    if (store_registry(roster->registry, &version) != 0)
        version = (roster->version + 1) | 1ULL << 63; /* none that the registry gives */
    return roster->version = version;
}

int roster_get(struct roster *roster, const struct link_key *key, int64_t now_ns, bool again,
               struct peer **ret_peer)
{
    uint64_t hash = map_hash(&roster->by_key, key, sizeof *key);
    struct map_node *node = map_find(&roster->by_key, hash, key_match, key);
    struct peer *peer = node ? map_entry(node, struct peer, node) : NULL;
    uint64_t version = roster_version(roster, now_ns, ROSTER_BELIEVE_NS);
    struct key_row row;
    int r;

    if (peer && !again && peer->version == version) {
        *ret_peer = peer;
        return peer->enrolled ? 0 : ROSTER_E_UNKNOWN;
    }

    r = registry_row(roster, key, &row);
    if (r < 0)
        return r;
    if (r > 0) {
        if (peer) {
            peer->enrolled = false;
            peer->version = version;
            drop_connections(roster, peer);
        }
        *ret_peer = peer;
        return ROSTER_E_UNKNOWN;
    }
    if (!peer) {
        peer = calloc(1, sizeof *peer);
        if (!peer)
            return -ENOMEM;
        peer->key = *key;
        list_init(&peer->connections);
        list_init(&peer->waiting);
        list_init(&peer->turn);
        map_insert(&roster->by_key, hash, &peer->node);
    }
    if (peer->row.role != row.role || peer->row.studio.value != row.studio.value)
        drop_connections(roster, peer);
    peer->row = row;
    peer->enrolled = true;
    peer->version = version;
    *ret_peer = peer;
    return 0;
}

static bool route_match(const struct map_node *node, const void *key)
{
    const struct connection *connection = map_entry(node, const struct connection, node);
    const struct link_route *route = key;

    return connection->route.size == route->size &&
           memcmp(connection->route.bytes, route->bytes, route->size) == 0;
}

struct connection *roster_find_route(struct roster *roster, const struct link_route *route)
{
    uint64_t hash = map_hash(&roster->by_route, route->bytes, route->size);
    struct map_node *node = map_find(&roster->by_route, hash, route_match, route);

    return node ? map_entry(node, struct connection, node) : NULL;
}

static void make_room(struct roster *roster, struct peer *peer)
{
    struct list *oldest = peer->connections.next;

    if (peer->n_connections < ROSTER_CONNECTIONS)
        return;
    list_for_each (at, &peer->connections) {
        if (list_entry(at, struct connection, in_peer)->n_watches == 0) {
            oldest = at;
            break;
        }
    }
    link_guard_shut(roster->guard, list_entry(oldest, struct connection, in_peer)->seat);
    connection_free(roster, list_entry(oldest, struct connection, in_peer));
}

int roster_connection(struct roster *roster, struct peer *peer, const struct link_route *route,
                      struct connection **ret_connection)
{
    struct connection *connection = roster_find_route(roster, route);

    if (connection && connection->peer != peer) {
        /* libzmq gave the name of a connection that ended to a new one. */
        connection_free(roster, connection);
        connection = NULL;
    }
    if (connection) {
        list_unlink(&connection->in_peer);
        list_push(&peer->connections, &connection->in_peer);
        *ret_connection = connection;
        return 0;
    }

    make_room(roster, peer);
    connection = calloc(1, sizeof *connection);
    if (!connection)
        return -ENOMEM;
    connection->route = *route;
    connection->peer = peer;
    list_init(&connection->watches);
    list_init(&connection->in_peer);
    list_push(&peer->connections, &connection->in_peer);
    peer->n_connections++;
    map_insert(&roster->by_route, map_hash(&roster->by_route, route->bytes, route->size),
               &connection->node);
    *ret_connection = connection;
    return 0;
}

void roster_drop(struct roster *roster, struct connection *connection)
{
    connection_free(roster, connection);
}

int roster_join(struct roster *roster, struct peer *peer, struct worker_id worker)
{
    if (worker.value >= roster->by_worker_capacity) {
        size_t larger = roster->by_worker_capacity ? roster->by_worker_capacity : 64;
        struct peer **moved;

        while (larger <= worker.value)
            larger *= 2;
        moved = reallocarray(roster->by_worker, larger, sizeof *moved);
        if (!moved)
            return -ENOMEM;
        memset(moved + roster->by_worker_capacity, 0,
               (larger - roster->by_worker_capacity) * sizeof *moved);
        roster->by_worker = moved;
        roster->by_worker_capacity = larger;
    }
    roster->by_worker[worker.value] = peer;
    peer->worker = worker;
    peer->joined = true;
    return 0;
}

struct peer *roster_worker(const struct roster *roster, struct worker_id worker)
{
    return worker.value < roster->by_worker_capacity ? roster->by_worker[worker.value] : NULL;
}

const char *roster_name(const struct peer *peer, char text[64])
{
    char key[IDENTITY_Z85_SIZE];

    if (peer->row.name[0])
        return peer->row.name;
    if (peer->hello && peer->hello->hello->offer && peer->hello->hello->offer->name[0])
        return peer->hello->hello->offer->name;
    identity_key_text(&peer->key, key);
    snprintf(text, 64, "%.8s", key);
    return text;
}
