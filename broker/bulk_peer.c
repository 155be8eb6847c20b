/* bulk_peer.c - a ROUTER never says that a peer left: a send that fails does, or a long silence.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/bulk_peer.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

/* Clients open again after 20 s without traffic, and when they are told to. */
#define IDLE_NS    (60 * NS_PER_S)
#define BELIEVE_NS (1 * NS_PER_S) /* as the gateway believes the registry */

int peers_init(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        list_init(&peers->buckets[i]);
    peers->n = 0;
    int r = map_init(&peers->grants);
    return r ? r : map_init(&peers->holders);
}

void peers_deinit(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        while (!list_empty(&peers->buckets[i]))
            peers_forget(peers, list_entry(peers->buckets[i].next, struct peer, node));
    map_for_each_safe(node, &peers->grants)
    {
        free(map_entry(node, struct grant, node.node));
    }
    map_deinit(&peers->grants);
    map_deinit(&peers->holders); /* the last peer took each with it */
}

struct peer *peer_ref(struct peer *peer)
{
    atomic_fetch_add(&peer->count, 1);
    return peer;
}

static void held_unref(struct held *held)
{
    if (held && atomic_fetch_sub(&held->count, 1) == 1)
        free(held);
}

void peer_unref(struct peer *peer)
{
    if (atomic_fetch_sub(&peer->count, 1) > 1)
        return;
    held_unref(peer->held);
    free(peer);
}

void peer_hold(struct peer *peer, size_t bytes)
{
    atomic_fetch_add(&peer->held_bytes, bytes);
    atomic_fetch_add(&peer->held->bytes, bytes);
}

void peer_let_go(struct peer *peer, size_t bytes)
{
    atomic_fetch_sub(&peer->held_bytes, bytes);
    atomic_fetch_sub(&peer->held->bytes, bytes);
}

/* ---- keys ---- */

static bool holder_match(const struct map_node *node, const void *key)
{
    return !memcmp(&map_entry(node, const struct holder, node)->key, key, sizeof(struct link_key));
}

static struct holder *holder_get(struct peers *peers, const struct link_key *key)
{
    uint64_t hash = map_hash(&peers->holders, key, sizeof *key);
    struct map_node *node = map_find(&peers->holders, hash, holder_match, key);
    if (node)
        return map_entry(node, struct holder, node);
    struct holder *holder = calloc(1, sizeof *holder);
    struct held *held = calloc(1, sizeof *held);
    if (!holder || !held) {
        free(holder);
        free(held);
        return NULL;
    }
    atomic_init(&held->count, 1);
    holder->held = held;
    holder->key = *key;
    map_insert(&peers->holders, hash, &holder->node);
    return holder;
}

static void holder_free(struct peers *peers, struct holder *holder)
{
    map_remove(&peers->holders, &holder->node);
    held_unref(holder->held);
    free(holder);
}

static void holder_leave(struct peers *peers, struct peer *peer)
{
    struct holder *holder = TAKE_PTR(peer->holder);
    holder->n_get_ids -= peer->n_get_ids;
    holder->n_answers -= peer->n_answers;
    if (--holder->n_peers == 0)
        holder_free(peers, holder);
}

bool peer_of_job(const struct peer *peer)
{
    static const uint8_t none[sizeof peer->pass.job];

    return memcmp(peer->pass.job, none, sizeof none) != 0;
}

/* A pass names a job where it is a worker's. */
static bool pass_fits(const struct peer *peer, const struct bulk_key *as)
{
    const struct pass *pass = &peer->pass;

    if (peer_of_job(peer))
        return as->role == ROLE_WORKER;
    return as->role != ROLE_WORKER && as->studio.value == pass->studio;
}

int peer_registered(struct peer *peer, const struct bulk_config *config, int64_t now_ns)
{
    struct holder *holder = peer->holder;
    if (holder->read_ns == 0 || now_ns - holder->read_ns >= BELIEVE_NS) {
        int r = config->registry(config->registry_user, &holder->key, &holder->as);
        if (r < 0)
            return r;
        holder->registered = r == 0;
        holder->read_ns = now_ns;
    }
    return holder->registered && pass_fits(peer, &holder->as) ? 0 : 1;
}

int peer_quota(struct peer *peer, const struct bulk_config *config, int64_t now_ns,
               uint64_t *ret_bytes)
{
    struct grant *grant = peer->grant;

    if (config->quota && (!grant->quota_read_ns || now_ns - grant->quota_read_ns >= BELIEVE_NS)) {
        struct studio_id studio = {peer->pass.studio};
        int r = config->quota(config->registry_user, studio, &grant->quota_bytes);
        if (r < 0)
            return r;
        grant->quota_read_ns = now_ns;
    }
    *ret_bytes = grant->quota_bytes;
    return 0;
}

/* ---- peers ---- */

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

    struct holder *holder = peers->n < PEERS_MAX ? holder_get(peers, key) : NULL;
    if (!holder || holder->n_peers >= PEERS_OF_KEY_MAX)
        return NULL;
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer) {
        if (holder->n_peers == 0)
            holder_free(peers, holder);
        return NULL;
    }
    holder->n_peers++;
    peer->holder = holder;
    peer->held = holder->held;
    atomic_fetch_add(&peer->held->count, 1);
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
    holder_leave(peers, peer);
    peers->n_pulling -= peer->pulling;
    peer->pulling = false;
    if (peer->grant)
        TAKE_PTR(peer->grant)->n_peers--;
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

void peers_expire(struct peers *peers, int64_t now_ns, int64_t now_wall_s)
{
    for (size_t i = 0; i < PEERS_BUCKETS; i++)
        list_for_each_safe (node, after, &peers->buckets[i]) {
            struct peer *peer = list_entry(node, struct peer, node);
            if (now_ns - peer->seen_ns > IDLE_NS && !peer->pending && !peer->n_answers &&
                !peer->n_get_ids && atomic_load(&peer->held_bytes) == 0)
                peers_forget(peers, peer);
        }
    map_for_each_safe(node, &peers->grants)
    {
        struct grant *grant = map_entry(node, struct grant, node.node);
        if (grant->expires_wall_s < now_wall_s && grant->n_peers == 0) {
            map_remove(&peers->grants, &grant->node);
            free(grant);
        }
    }
}

/* ---- grants ---- */

static bool grant_match(const struct map_node *node, const void *name)
{
    return !memcmp(&map_entry(node, const struct grant, node)->name, name, sizeof(struct block_id));
}

static struct grant *grant_get(struct peers *peers, const struct pass *pass, const void *text,
                               size_t size)
{
    struct {
        uint64_t epoch, attempt;
    } lease = {pass->epoch, pass->attempt};
    struct block_id name;

    if (pass->attempt)
        digest(&lease, sizeof lease, &name);
    else
        digest(text, size, &name);
    uint64_t hash = map_hash(&peers->grants, &name, sizeof name);
    struct map_node *node = map_find(&peers->grants, hash, grant_match, &name);
    if (node)
        return map_entry(node, struct grant, node);
    struct grant *grant = calloc(1, sizeof *grant);
    if (!grant)
        return NULL;
    grant->name = name;
    map_insert(&peers->grants, hash, &grant->node);
    return grant;
}

int peers_open(struct peers *peers, struct peer *peer, const struct pass *pass, const void *text,
               size_t size)
{
    struct grant *grant = grant_get(peers, pass, text, size);
    if (!grant)
        return -ENOMEM;
    if (grant->expires_wall_s < pass->expires_wall_s)
        grant->expires_wall_s = pass->expires_wall_s;
    grant->n_peers++;
    if (peer->grant)
        peer->grant->n_peers--;
    peer->pass = *pass;
    peer->grant = grant;
    peer->open = true;
    return 0;
}

/* ---- gets ---- */

int peer_add_get(struct peer *peer, uint64_t request, const void *ids, size_t size)
{
    size_t n = size / sizeof(struct block_id);
    if (peer->n_get_ids + n > GET_IDS_MAX || peer->holder->n_get_ids + n > GET_IDS_OF_KEY)
        return -EBUSY;
    struct get *get = malloc(sizeof *get + size);
    if (!get)
        return -ENOMEM;
    get->request = request;
    get->next = 0;
    get->n_ids = n;
    memcpy(get->ids, ids, size);
    list_push(&peer->gets, &get->node);
    peer->n_get_ids += n;
    peer->holder->n_get_ids += n;
    return 0;
}

uint64_t peer_request(const struct peer *peer)
{
    return list_empty(&peer->gets) ? 0 : list_entry(peer->gets.next, struct get, node)->request;
}

bool peer_next_get(struct peer *peer, uint64_t *ret_request, struct block_id *ret_id)
{
    if (list_empty(&peer->gets))
        return false;
    struct get *get = list_entry(peer->gets.next, struct get, node);
    *ret_request = get->request;
    *ret_id = get->ids[get->next++];
    peer->n_get_ids--;
    peer->holder->n_get_ids--;
    if (get->next == get->n_ids) {
        list_unlink(&get->node);
        free(get);
    }
    return true;
}
