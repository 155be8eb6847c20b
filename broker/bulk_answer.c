/* bulk_answer.c - answers on their way out.
 *
 * A block is not copied: libzmq gets the vault's bytes and says when it is done with them, and only
 * then do they stop counting against the memory of the endpoint and of the peer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <broker/bulk_inner.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>

#define ANSWERS_MAX 4096 /* a peer that takes none of so many has stopped reading */

/* A block's bytes at libzmq. */
struct payload {
    struct bulk *bulk;
    struct peer *peer;
    uint8_t *data;
    size_t size;
};

void bulk_wake(struct bulk *bulk)
{
    uint64_t one = 1;
    CHECK(write(bulk->wake_fd, &one, sizeof one) == sizeof one || errno == EAGAIN);
}

/* Called by libzmq, in any of its threads. */
static void payload_free(void *data, void *user)
{
    struct payload *payload = user;
    struct bulk *bulk = payload->bulk;
    size_t room = vault_buffer_room(payload->size);

    (void)data;
    vault_buffer_free(payload->data, payload->size);
    peer_let_go(payload->peer, room);
    atomic_fetch_sub(&bulk->out_bytes, room);
    peer_unref(payload->peer);
    free(payload);
    bulk_wake(bulk);
}

static void forget(struct bulk *bulk, struct peer *peer)
{
    peers_forget(&bulk->peers, peer);
}

/* 0: sent. Positive: to be kept. The messages are taken over on 0 and when the peer is gone. */
static int try_send(struct bulk *bulk, struct peer *peer, zmq_msg_t *header, zmq_msg_t *data)
{
    int r = link_send(bulk->socket, &peer->route, header, data);
    if (r == 0 || r == LINK_E_AGAIN)
        return r;
    zmq_msg_close(header);
    if (data)
        zmq_msg_close(data);
    forget(bulk, peer);
    return 0;
}

static void keep(struct bulk *bulk, struct peer *peer, zmq_msg_t *header, zmq_msg_t *data)
{
    struct answer *answer = calloc(1, sizeof *answer);
    bool room =
        answer && peer->n_answers < ANSWERS_MAX && peer->holder->n_answers < ANSWERS_OF_KEY;

    if (!room) {
        zmq_msg_close(header);
        if (data)
            zmq_msg_close(data);
        free(answer);
        log_limited(LOG_WARN, "bulk_peer_dropped", "why=\"it takes no answers\"");
        forget(bulk, peer);
        return;
    }
    zmq_msg_init(&answer->header);
    zmq_msg_move(&answer->header, header);
    zmq_msg_init(&answer->data);
    if (data)
        zmq_msg_move(&answer->data, data);
    answer->has_data = data;
    list_push(&peer->answers, &answer->node);
    peer->n_answers++;
    peer->holder->n_answers++;
    list_unlink(&peer->blocked);
    list_push(&bulk->blocked, &peer->blocked);
}

void bulk_answer(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message, zmq_msg_t *data)
{
    zmq_msg_t header;

    if (peer->gone || wire_bulk_pack(message, &header) < 0) {
        if (data)
            zmq_msg_close(data);
        return;
    }
    crash_point("bulk.answer");
    if (peer->n_answers || try_send(bulk, peer, &header, data) == LINK_E_AGAIN)
        keep(bulk, peer, &header, data);
}

/* Sends what waits for a peer; true when nothing is left. */
static bool flush_peer(struct bulk *bulk, struct peer *peer)
{
    while (!peer->gone && !list_empty(&peer->answers)) {
        struct answer *answer = list_entry(peer->answers.next, struct answer, node);
        list_unlink(&answer->node);
        if (try_send(bulk, peer, &answer->header, answer->has_data ? &answer->data : NULL)) {
            list_insert_before(peer->answers.next, &answer->node);
            return false;
        }
        if (!peer->gone) {
            peer->n_answers--;
            peer->holder->n_answers--;
        }
        if (!answer->has_data)
            zmq_msg_close(&answer->data);
        free(answer);
    }
    return true;
}

void bulk_flush(struct bulk *bulk)
{
    list_for_each_safe (node, after, &bulk->blocked) {
        struct peer *peer = peer_ref(list_entry(node, struct peer, blocked));
        if (flush_peer(bulk, peer))
            list_unlink(&peer->blocked);
        peer_unref(peer);
    }
}

void bulk_fault(struct bulk *bulk, struct peer *peer, uint64_t request, const struct block_id *id,
                enum code code, const char *why, const char *next)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Fault fault = WL__FAULT__INIT;

    if (id)
        fault.id = (ProtobufCBinaryData){sizeof id->bytes, (uint8_t *)id->bytes};
    fault.code = code;
    fault.why = (char *)why;
    fault.next = (char *)next;
    message.request = request;
    message.body_case = WL__BULK__BODY_FAULT;
    message.fault = &fault;
    bulk_answer(bulk, peer, &message, NULL);
}

void bulk_no_memory(struct bulk *bulk, struct peer *peer, uint64_t request)
{
    bulk_fault(bulk, peer, request, NULL, CODE_BUSY, "the broker is out of memory",
               "try again later");
}

static void send_result_fault(struct bulk *bulk, struct task *task)
{
    int result = task->vault.result;
    /* What may not be read is answered exactly as what is not there. */
    enum code code = CODE_UNKNOWN;
    const char *why = "the vault has no such block";
    const char *next =
        task->vault.kind == VAULT_GET
            ? "have the operator run westlight-broker --check, which names what is lost"
            : "send it again";

    if (result == VAULT_E_CORRUPT) {
        code = CODE_DAMAGED;
        why = "it is damaged on the broker's disk";
        next = "submit the scene again from its files where it is an input";
    } else if (result == VAULT_E_FULL) {
        code = CODE_FULL;
        why = "the broker's disk is full";
        next = "have the operator free space, then try again";
    } else if (result == VAULT_E_ID) {
        code = CODE_INVALID;
        why = "the bytes are not those of that name";
        next = "send it again";
    } else if (result == VAULT_E_BUSY) {
        code = CODE_BUSY;
        why = "the broker has no more memory or open files at the moment";
        next = "try again later";
    }
    bulk_fault(bulk, task->peer, task->request, task->vault.kind == VAULT_HAVE ? NULL : &task->id,
               code, why, next);
}

static void send_block(struct bulk *bulk, struct task *task)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Block block = WL__BLOCK__INIT;
    struct payload *payload = malloc(sizeof *payload);
    zmq_msg_t data;

    if (!payload) {
        bulk_no_memory(bulk, task->peer, task->request);
        return;
    }
    size_t size = task->vault.size;
    *payload = (struct payload){bulk, peer_ref(task->peer), TAKE_PTR(task->vault.data), size};
    peer_hold(task->peer, vault_buffer_room(size));
    atomic_fetch_add(&bulk->out_bytes, vault_buffer_room(size));
    if (zmq_msg_init_data(&data, payload->data, size, payload_free, payload) < 0) {
        payload_free(NULL, payload);
        bulk_no_memory(bulk, task->peer, task->request);
        return;
    }
    block.id = (ProtobufCBinaryData){sizeof task->id.bytes, task->id.bytes};
    message.request = task->request;
    message.body_case = WL__BULK__BODY_BLOCK;
    message.block = &block;
    bulk_answer(bulk, task->peer, &message, &data);
}

static void send_done(struct bulk *bulk, struct task *task)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Stored stored = WL__STORED__INIT;
    Wl__Missing missing = WL__MISSING__INIT;

    message.request = task->request;
    if (task->vault.kind == VAULT_PUT) {
        stored.id = (ProtobufCBinaryData){sizeof task->id.bytes, task->id.bytes};
        message.body_case = WL__BULK__BODY_STORED;
        message.stored = &stored;
    } else {
        missing.bits = (ProtobufCBinaryData){(task->vault.n_ids + 7) / 8, task->vault.missing};
        message.body_case = WL__BULK__BODY_MISSING;
        message.missing = &missing;
    }
    bulk_answer(bulk, task->peer, &message, NULL);
}

void bulk_answer_task(struct bulk *bulk, struct task *task)
{
    if (task->peer->gone)
        return;
    if (task->vault.result)
        send_result_fault(bulk, task);
    else if (task->vault.kind == VAULT_GET)
        send_block(bulk, task);
    else
        send_done(bulk, task);
}
