/* bulk.c - blocks in and out: requests to the vault, answers to peers, never more than fits.
 *
 * Half of the memory is for what comes in: past it the socket is not read. The other half is for
 * what goes out: a block is read from the vault only when it has room there and its peer's key is
 * within its share, peers taking turns. So a peer that reads nothing stops its own gets, and
 * nobody's puts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <broker/bulk_inner.h>
#include <broker/quota.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>

#define GETS_AT_VAULT 64  /* enough to keep its threads busy, few enough to be fair */
#define RECEIVE_MAX   256 /* before answers are looked after again */
#define RETRY_MS      5   /* libzmq does not say when one peer of many has room again */
#define MEMORY_MIN    (8u * 1024 * 1024)
/* What one may take on its way. */
#define GET_BYTES (LIMIT_SEALED_BYTES + sizeof(struct task))

/* ---- to the vault ---- */

static struct task *task_new(struct bulk *bulk, struct peer *peer, uint64_t request,
                             enum vault_kind kind)
{
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        return NULL;
    task->peer = peer_ref(peer);
    task->request = request;
    task->vault.kind = kind;
    task->vault.studio.value = peer->pass.studio;
    task->vault.port = bulk->port;
    task->vault.user = task;
    task->vault.ids = &task->id;
    task->vault.n_ids = 1;
    return task;
}

static void task_free(struct task *task)
{
    if (task->vault.kind == VAULT_HAVE) {
        if (task->vault.ids != &task->id)
            free(task->vault.ids);
        free(task->vault.missing);
    }
    vault_buffer_free(task->vault.data, task->vault.size);
    peer_unref(task->peer);
    free(task);
}

static void task_submit(struct bulk *bulk, struct task *task, size_t bytes)
{
    task->bytes = bytes += sizeof *task;
    if (task->vault.kind == VAULT_GET) {
        peer_hold(task->peer, bytes);
        atomic_fetch_add(&bulk->out_bytes, bytes);
        bulk->n_gets++;
    } else {
        bulk->in_bytes += bytes;
    }
    task->peer->pending++;
    bulk->n_tasks++;
    vault_submit(bulk->config.vault, &task->vault);
}

/* Nothing new comes in below the reserve, no result either where that is nearly gone. */
static bool no_room(struct bulk *bulk, struct peer *peer, uint64_t request,
                    const struct block_id *id)
{
    uint64_t free_bytes;
    char why[64];

    if (!bulk->config.room || room_look(bulk->config.room, bulk->in_bytes, &free_bytes) <=
                                  (peer_of_job(peer) ? ROOM_FINISH : ROOM_ENOUGH))
        return false;
    log_limited(LOG_WARN, "bulk_refused", "why=\"%s\"", room_why(free_bytes, why));
    bulk_fault(bulk, peer, request, id, CODE_FULL, ROOM_WHY, ROOM_NEXT);
    return true;
}

/* Inputs stop at the studio's quota. What its accepted jobs bring may go past it (quota.h); beyond
 * that the attempt fails, so that no worker waits with a result that others' work waits for. */
static bool past_quota(struct bulk *bulk, struct peer *peer, uint64_t request,
                       const struct block_id *id, size_t size)
{
    struct studio_id studio = {peer->pass.studio};
    char why[QUOTA_WHY_BYTES];
    uint64_t quota;

    int r = peer_quota(peer, &bulk->config, bulk->now_ns, &quota);
    if (r < 0)
        log_limited(LOG_ERROR, "registry", "error=%d", -r);
    uint64_t used = vault_used_bytes(bulk->config.vault, studio);
    if (r < 0 ||
        !quota_exceeded(used + size, quota, peer_of_job(peer) ? QUOTA_RESULTS : QUOTA_INPUTS))
        return false;
    quota_why(used, quota, why);
    log_limited(LOG_WARN, "bulk_refused", "studio=%u why=\"%s\"", studio.value, why);
    bulk_fault(bulk, peer, request, id, CODE_QUOTA, why, QUOTA_NEXT);
    return true;
}

static void on_put(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message, zmq_msg_t *data)
{
    struct block_id id;
    size_t size = zmq_msg_size(data);
    memcpy(id.bytes, message->put->id.data, sizeof id.bytes);

    if (!(peer->pass.rights & PASS_WRITE)) {
        bulk_fault(bulk, peer, message->request, &id, CODE_REFUSED, "this pass may not write",
                   "ask the broker for one that may");
        return;
    }
    if (size == 0 || size > LIMIT_SEALED_BYTES) {
        bulk_fault(bulk, peer, message->request, &id, CODE_INVALID,
                   "a block has from 1 byte to 1 MiB and its overhead", "cut it");
        return;
    }
    struct grant *grant = peer->grant;
    if (grant->written_bytes > peer->pass.write_bytes ||
        size > peer->pass.write_bytes - grant->written_bytes) {
        if (peer_of_job(peer)) /* a new pass of the same lease may write no more */
            bulk_fault(bulk, peer, message->request, &id, CODE_QUOTA,
                       "the bytes one task may send are used up",
                       "let each task render fewer frames");
        else
            bulk_fault(bulk, peer, message->request, &id, CODE_BUSY,
                       "the bytes this pass may write are used up",
                       "ask the broker for a new pass");
        return;
    }
    if (no_room(bulk, peer, message->request, &id) ||
        past_quota(bulk, peer, message->request, &id, size))
        return;
    struct task *task = task_new(bulk, peer, message->request, VAULT_PUT);
    if (task)
        task->vault.data = vault_buffer(size);
    if (!task || !task->vault.data) {
        if (task)
            task_free(task);
        bulk_no_memory(bulk, peer, message->request);
        return;
    }
    grant->written_bytes += size;
    task->grant = grant;
    memcpy(task->vault.data, zmq_msg_data(data), size);
    task->vault.size = size;
    task->vault.plain = message->put->plain;
    task->id = id;
    task_submit(bulk, task, vault_buffer_room(size));
}

static void on_have(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message)
{
    size_t size = message->have->ids.len, n = size / sizeof(struct block_id);
    struct task *task = task_new(bulk, peer, message->request, VAULT_HAVE);
    if (task) {
        task->vault.ids = malloc(size ? size : 1);
        task->vault.missing = malloc(n / 8 + 1);
    }
    if (!task || !task->vault.ids || !task->vault.missing) {
        if (task)
            task_free(task);
        bulk_no_memory(bulk, peer, message->request);
        return;
    }
    if (size)
        memcpy(task->vault.ids, message->have->ids.data, size);
    task->vault.n_ids = n;
    task_submit(bulk, task, size);
}

static void on_get(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message)
{
    size_t size = message->get->ids.len, n = size / sizeof(struct block_id);

    if (!(peer->pass.rights & PASS_READ)) {
        bulk_fault(bulk, peer, message->request, NULL, CODE_REFUSED, "this pass may not read",
                   "ask the broker for one that may");
        return;
    }
    if (n == 0) {
        bulk_fault(bulk, peer, message->request, NULL, CODE_INVALID, "no block is asked for",
                   "name at least one");
        return;
    }
    int r = peer_add_get(peer, message->request, message->get->ids.data, size);
    if (r == -EBUSY)
        bulk_fault(bulk, peer, message->request, NULL, CODE_BUSY,
                   "too many blocks are asked for at once", "ask for more when these have come");
    else if (r < 0)
        bulk_no_memory(bulk, peer, message->request);
    else if (list_empty(&peer->turn))
        list_push(&bulk->turns, &peer->turn);
    if (r == 0) {
        bulk->peers.n_pulling += !peer->pulling;
        peer->pulling = true;
    }
}

/* False: the key may not do any more what its pass says; the peer was told and is forgotten. */
static bool still_may(struct bulk *bulk, struct peer *peer, uint64_t request)
{
    int r = peer_registered(peer, &bulk->config, bulk->now_ns);
    if (r == 0)
        return true;
    if (r < 0)
        log_limited(LOG_ERROR, "registry", "error=%d", -r);
    bulk_fault(bulk, peer, request, NULL, r < 0 ? CODE_INTERNAL : CODE_REFUSED,
               r < 0 ? "the registry cannot be read" : "the broker does not know this key for that",
               r < 0 ? "try again; its log says why"
                     : "ask whoever runs the broker (westlight-broker allow)");
    peers_forget(&bulk->peers, peer);
    return false;
}

/* For what goes out. libzmq holds one more for each of them, encrypted, which nobody tells us of:
 * it is counted, up to half of what there is. */
static size_t out_room(const struct bulk *bulk)
{
    size_t room = bulk->config.memory_bytes / 2;
    size_t encrypted = bulk->peers.n_pulling * LIMIT_SEALED_BYTES;

    return room - (encrypted < room / 2 ? encrypted : room / 2);
}

static bool has_room(const struct bulk *bulk)
{
    size_t out = atomic_load(&bulk->out_bytes);

    return bulk->n_gets < GETS_AT_VAULT && (out == 0 || out + GET_BYTES <= out_room(bulk));
}

/* A key may hold an eighth of what is left, so that however many read nothing, something is; what
 * they hold comes back when their links end, which the kernel sees to within half a minute. A key's
 * first block is always within the share, however small that is; and, up to half of all, each of
 * its connections' first, so that one that sleeps does not stop the others of its owner. */
static bool has_share(const struct bulk *bulk, const struct peer *peer)
{
    size_t out = atomic_load(&bulk->out_bytes), room = out_room(bulk);
    size_t held = atomic_load(&peer->held->bytes), share = room > out ? (room - out) / 8 : 0;

    return held == 0 || held + GET_BYTES <= share ||
           (atomic_load(&peer->held_bytes) == 0 && held + GET_BYTES <= room / 2);
}

static void submit_get(struct bulk *bulk, struct peer *peer)
{
    uint64_t request;
    struct block_id id;

    CHECK(peer_next_get(peer, &request, &id));
    struct task *task = task_new(bulk, peer, request, VAULT_GET);
    if (!task) {
        bulk_no_memory(bulk, peer, request);
        return;
    }
    task->id = id;
    memcpy(task->vault.job.bytes, peer->pass.job, sizeof task->vault.job.bytes);
    task_submit(bulk, task, GET_BYTES - sizeof *task);
}

/* One block a turn; a round in which nobody could take one ends it. */
static void feed_gets(struct bulk *bulk)
{
    bool progress = true;

    while (progress && has_room(bulk)) {
        struct list *last = bulk->turns.previous;
        progress = false;
        for (bool more = !list_empty(&bulk->turns); more && has_room(bulk);) {
            struct peer *peer = peer_ref(list_entry(bulk->turns.next, struct peer, turn));
            more = &peer->turn != last;
            list_unlink(&peer->turn);
            if (has_share(bulk, peer) && still_may(bulk, peer, peer_request(peer))) {
                submit_get(bulk, peer);
                progress = true;
            }
            if (!peer->gone && peer->n_get_ids)
                list_push(&bulk->turns, &peer->turn);
            peer_unref(peer);
        }
    }
}

/* ---- from the vault ---- */

static void complete_task(struct bulk *bulk, struct task *task)
{
    if (task->vault.result < 0) {
        /* Every put and have would fail from now on; a restart finds what is durable. */
        log_error("stopped", "what=\"the vault\" error=\"%s\"", strerror(-task->vault.result));
        _exit(1);
    }
    bulk_answer_task(bulk, task);
    bool kept_out = task->vault.result == VAULT_E_FULL || task->vault.result == VAULT_E_BUSY;
    if (task->grant && kept_out && task->grant == task->peer->grant)
        task->grant->written_bytes -= task->vault.size; /* it will come again */
    if (task->vault.kind == VAULT_GET) {
        peer_let_go(task->peer, task->bytes);
        atomic_fetch_sub(&bulk->out_bytes, task->bytes);
        bulk->n_gets--;
    } else {
        bulk->in_bytes -= task->bytes;
    }
    task->peer->pending--;
    bulk->n_tasks--;
    if (task->peer->pulling && !task->peer->n_get_ids && !task->peer->pending) {
        task->peer->pulling = false;
        bulk->peers.n_pulling--;
    }
    task_free(task);
}

static void take_completions(struct bulk *bulk)
{
    for (struct vault_request *request; (request = vault_completed(bulk->port));)
        complete_task(bulk, request->user);
}

/* ---- from peers ---- */

static void send_opened(struct bulk *bulk, struct peer *peer, uint64_t request)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Opened opened = WL__OPENED__INIT;
    size_t quarter = bulk->config.memory_bytes / 4;

    opened.window_bytes = quarter < LIMIT_WINDOW_BYTES ? quarter : LIMIT_WINDOW_BYTES;
    message.request = request;
    message.body_case = WL__BULK__BODY_OPENED;
    message.opened = &opened;
    bulk_answer(bulk, peer, &message, NULL);
}

static void on_open(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message)
{
    struct pass pass;
    const ProtobufCBinaryData *text = &message->open->pass;
    int r = pass_open(bulk->config.signer, text->data, text->len, &peer->key,
                      clock_wall_ns() / NS_PER_S, &pass);
    if (r == 0)
        r = peers_open(&bulk->peers, peer, &pass, text->data, text->len);
    if (r == 0 && still_may(bulk, peer, message->request))
        send_opened(bulk, peer, message->request);
    else if (r == 0)
        return;
    else if (r == -ENOMEM)
        bulk_no_memory(bulk, peer, message->request);
    else
        bulk_fault(bulk, peer, message->request, NULL, CODE_REFUSED,
                   r == IDENTITY_E_EXPIRED ? "the pass has expired"
                                           : "the pass is not one this broker gave to this key",
                   "ask the broker for a new pass");
}

static void on_request(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message,
                       zmq_msg_t *data)
{
    if (message->body_case == WL__BULK__BODY_OPEN)
        on_open(bulk, peer, message);
    else if (!peer->open)
        bulk_fault(bulk, peer, message->request, NULL, CODE_STATE, "no pass was shown here",
                   "open with a pass first");
    else if (peer->pass.expires_wall_s < clock_wall_ns() / NS_PER_S)
        bulk_fault(bulk, peer, message->request, NULL, CODE_REFUSED, "the pass has expired",
                   "ask the broker for a new pass");
    else if (!still_may(bulk, peer, message->request))
        return;
    else if (message->body_case == WL__BULK__BODY_PUT)
        on_put(bulk, peer, message, data);
    else if (message->body_case == WL__BULK__BODY_HAVE)
        on_have(bulk, peer, message);
    else if (message->body_case == WL__BULK__BODY_GET)
        on_get(bulk, peer, message);
    else
        bulk_fault(bulk, peer, message->request, NULL, CODE_INVALID, "not a message for a broker",
                   "check the versions of both sides");
}

static void on_message(struct bulk *bulk, const struct link_key *key,
                       const struct link_route *route, zmq_msg_t *header, zmq_msg_t *data)
{
    struct peer *peer = peers_get(&bulk->peers, route, key);
    Wl__Bulk *message;
    const char *why;

    if (!peer) {
        log_limited(LOG_WARN, "bulk_refused", "why=\"too many peers\"");
        return;
    }
    peer_ref(peer);
    peer->seen_ns = bulk->now_ns;
    if (wire_bulk_unpack(zmq_msg_data(header), zmq_msg_size(header), &message, &why)) {
        log_limited(LOG_WARN, "bulk_refused", "why=\"%s\"", why);
        bulk_fault(bulk, peer, 0, NULL, CODE_INVALID, why, "check the versions of both sides");
    } else {
        on_request(bulk, peer, message, data);
        wl__bulk__free_unpacked(message, NULL);
    }
    peer_unref(peer);
}

static bool may_read(const struct bulk *bulk)
{
    return bulk->in_bytes < bulk->config.memory_bytes / 2;
}

static void receive_some(struct bulk *bulk)
{
    for (int i = 0; i < RECEIVE_MAX && may_read(bulk); i++) {
        struct link_key key;
        struct link_route route;
        zmq_msg_t header, data;
        int r = link_receive(bulk->socket, &key, &route, &header, &data);
        if (r == LINK_E_AGAIN) {
            link_guard_drained(bulk->guard);
            return;
        }
        if (r < 0) {
            log_limited(LOG_ERROR, "bulk_receive", "error=%d", -r);
            return;
        }
        if (r > 0) {
            log_limited(LOG_WARN, "bulk_refused", "why=\"%s\"",
                        r == LINK_E_FRAMES ? "too many frames" : "no key");
            continue;
        }
        link_guard_heard(bulk->guard, &header);
        on_message(bulk, &key, &route, &header, &data);
        zmq_msg_close(&header);
        zmq_msg_close(&data);
    }
}

/* ---- the thread ---- */

static void wait_for_work(struct bulk *bulk)
{
    zmq_pollitem_t items[] = {
        {.socket = bulk->socket, .events = may_read(bulk) ? ZMQ_POLLIN : 0},
        {.fd = vault_port_fd(bulk->port), .events = ZMQ_POLLIN},
        {.fd = bulk->wake_fd, .events = ZMQ_POLLIN},
    };
    uint64_t count;

    (void)zmq_poll(items, 3, list_empty(&bulk->blocked) ? LINK_GUARD_MS : RETRY_MS);
    if (read(bulk->wake_fd, &count, sizeof count) < 0)
        CHECK(errno == EAGAIN || errno == EINTR);
}

void bulk_turn(struct bulk *bulk)
{
    bulk->now_ns = clock_monotonic_ns();
    take_completions(bulk);
    receive_some(bulk);
    bulk_flush(bulk);
    feed_gets(bulk);
    if (bulk->now_ns - bulk->expired_ns > 10 * NS_PER_S) {
        bulk->expired_ns = bulk->now_ns;
        peers_expire(&bulk->peers, bulk->now_ns, clock_wall_ns() / NS_PER_S);
    }
}

static void *bulk_main(void *user)
{
    struct bulk *bulk = user;

    pthread_setname_np(pthread_self(), "bulk");
    while (!atomic_load(&bulk->stopping)) {
        wait_for_work(bulk);
        bulk_turn(bulk);
    }
    return NULL;
}

/* Requests at the vault hold memory of this thread's: they are waited for, and answer nobody. */
static void finish_tasks(struct bulk *bulk)
{
    peers_deinit(&bulk->peers);
    while (bulk->n_tasks) {
        zmq_pollitem_t item = {.fd = vault_port_fd(bulk->port), .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, 1000);
        take_completions(bulk);
    }
}

/* ---- life ---- */

DEFINE_CLEANUP(struct bulk *, bulk_stop)

int bulk_start(const struct bulk_config *config, struct bulk **ret_bulk)
{
    if (config->memory_bytes < MEMORY_MIN)
        return -EINVAL;
    _cleanup_(bulk_stopp) struct bulk *bulk = calloc(1, sizeof *bulk);
    if (!bulk)
        return -ENOMEM;
    bulk->config = *config;
    list_init(&bulk->turns);
    list_init(&bulk->blocked);
    bulk->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bulk->wake_fd < 0)
        return -errno;

    int r = vault_port_new(config->vault, &bulk->port);
    if (r == 0)
        r = peers_init(&bulk->peers);
    if (r == 0)
        r = link_context_new(config->io_threads > 0 ? config->io_threads : 1, &bulk->context);
    if (r == 0)
        r = link_zap_new(bulk->context, config->allow, config->allow_user, &bulk->zap);
    if (r == 0)
        r = link_listen_guarded(bulk->context, LINK_BULK, config->endpoint, config->keys,
                                &bulk->guard, &bulk->socket, bulk->endpoint);
    if (r == 0)
        r = -pthread_create(&bulk->thread, NULL, bulk_main, bulk);
    if (r)
        return r;
    bulk->runs = true;
    *ret_bulk = TAKE_PTR(bulk);
    return 0;
}

void bulk_stop(struct bulk *bulk)
{
    if (!bulk)
        return;
    atomic_store(&bulk->stopping, true);
    if (bulk->runs) {
        bulk_wake(bulk);
        pthread_join(bulk->thread, NULL);
    }
    if (bulk->port)
        finish_tasks(bulk);
    link_guard_free(bulk->guard);
    link_close(bulk->socket);
    if (bulk->zap)
        link_zap_free(bulk->zap);
    link_context_free(bulk->context); /* the last blocks come back during it */
    if (bulk->port)
        vault_port_free(bulk->port);
    closep(&bulk->wake_fd);
    free(bulk);
}

const char *bulk_endpoint(const struct bulk *bulk)
{
    return bulk->endpoint;
}
