/* bulk_peer.c - a ROUTER never says that a peer left: a send that fails does, or a long silence.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/bulk_peer.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

/* Clients open again after 20 s without traffic, and when they are told to. */
#define IDLE_NS (60 * NS_PER_S)

void peers_init(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        list_init(&peers->buckets[i]);
    list_init(&peers->grants);
    peers->n = 0;
}

void peers_deinit(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        while (!list_empty(&peers->buckets[i]))
            peers_forget(peers, list_entry(peers->buckets[i].next, struct peer, node));
    list_for_each_safe (node, after, &peers->grants)
        free(list_entry(node, struct grant, node));
}

struct peer *peer_ref(struct peer *peer)
{
    atomic_fetch_add(&peer->count, 1);
    return peer;
}

void peer_unref(struct peer *peer)
{
    if (atomic_fetch_sub(&peer->count, 1) == 1)
        free(peer);
}

/* The token is libzmq's, random where it starts and counted up: FNV-1a spreads it. */
static struct list *bucket_of(struct peers *peers, const struct link_route *route)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < route->size; i++)
        hash = (hash ^ route->bytes[i]) * 16777619u;
    return &peers->buckets[hash % PEERS_BUCKETS];
}

struct peer *peers_get(struct peers *peers, const struct link_route *route,
                       const struct link_key *key)
{
    struct list *bucket = bucket_of(peers, route);
    list_for_each (node, bucket) {
        struct peer *peer = list_entry(node, struct peer, node);
        if (peer->route.size != route->size || memcmp(peer->route.bytes, route->bytes, route->size))
            continue;
        if (!memcmp(&peer->key, key, sizeof *key))
            return peer;
        peers_forget(peers, peer); /* the token is another's now */
        break;
    }

    struct peer *peer = peers->n < PEERS_MAX ? calloc(1, sizeof *peer) : NULL;
    if (!peer)
        return NULL;
    peer->route = *route;
    peer->key = *key;
    list_init(&peer->turn);
    list_init(&peer->blocked);
    list_init(&peer->gets);
    list_init(&peer->answers);
    atomic_init(&peer->count, 1);
    list_push(bucket, &peer->node);
    peers->n++;
    return peer;
}

void peers_forget(struct peers *peers, struct peer *peer)
{
    if (peer->gone)
        return;
    peer->gone = true;
    peer->open = false;
    list_unlink(&peer->node);
    list_unlink(&peer->turn);
    list_unlink(&peer->blocked);
    list_for_each_safe (node, after, &peer->gets)
        free(list_entry(node, struct get, node));
    list_init(&peer->gets);
    list_for_each_safe (node, after, &peer->answers) {
        struct answer *answer = list_entry(node, struct answer, node);
        zmq_msg_close(&answer->header);
        zmq_msg_close(&answer->data);
        free(answer);
    }
    list_init(&peer->answers);
    peers->n--;
    peer_unref(peer);
}

static bool grant_in_use(struct peers *peers, const struct grant *grant)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        list_for_each (node, &peers->buckets[i]) {
            if (list_entry(node, struct peer, node)->grant == grant)
                return true;
        }
    return false;
}

void peers_expire(struct peers *peers, int64_t now_ns, int64_t now_wall_s)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        list_for_each_safe (node, after, &peers->buckets[i]) {
            struct peer *peer = list_entry(node, struct peer, node);
            if (now_ns - peer->seen_ns > IDLE_NS && !peer->pending && !peer->n_answers &&
                !peer->n_get_ids && atomic_load(&peer->held_bytes) == 0)
                peers_forget(peers, peer);
        }
    list_for_each_safe (node, after, &peers->grants) {
        struct grant *grant = list_entry(node, struct grant, node);
        if (grant->expires_wall_s < now_wall_s && !grant_in_use(peers, grant)) {
            list_unlink(&grant->node);
            free(grant);
        }
    }
}

int peers_open(struct peers *peers, struct peer *peer, const struct pass *pass, const void *text,
               size_t size)
{
    struct block_id name;
    struct grant *grant = NULL;

    digest(text, size, &name);
    list_for_each (node, &peers->grants) {
        struct grant *other = list_entry(node, struct grant, node);
        if (!memcmp(&other->digest, &name, sizeof name))
            grant = other;
    }
    if (!grant) {
        grant = calloc(1, sizeof *grant);
        if (!grant)
            return -ENOMEM;
        grant->digest = name;
        grant->expires_wall_s = pass->expires_wall_s;
        list_push(&peers->grants, &grant->node);
    }
    peer->pass = *pass;
    peer->grant = grant;
    peer->open = true;
    return 0;
}

int peer_add_get(struct peer *peer, uint64_t request, const void *ids, size_t size)
{
    struct get *get = malloc(sizeof *get + size);
    if (!get)
        return -ENOMEM;
    get->request = request;
    get->next = 0;
    get->n_ids = size / sizeof(struct block_id);
    memcpy(get->ids, ids, size);
    list_push(&peer->gets, &get->node);
    peer->n_get_ids += get->n_ids;
    return 0;
}

bool peer_next_get(struct peer *peer, uint64_t *ret_request, struct block_id *ret_id)
{
    if (list_empty(&peer->gets))
        return false;
    struct get *get = list_entry(peer->gets.next, struct get, node);
    *ret_request = get->request;
    *ret_id = get->ids[get->next++];
    peer->n_get_ids--;
    if (get->next == get->n_ids) {
        list_unlink(&get->node);
        free(get);
    }
    return true;
}
