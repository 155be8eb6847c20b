/* transfer_calls.c - what is asked and what is made of the answer: have, put, get.
 */
#include <proto/transfer_call.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/limits.h>

enum {
    HAVE_BATCH = 4096, /* 128 KiB of ids: small beside the window */
    GET_BATCH = 64,
};

/* ---- have: an item is one question ---- */

static size_t have_count(const struct call *call, size_t i)
{
    size_t left = call->n_ids - i * HAVE_BATCH;

    return left < HAVE_BATCH ? left : HAVE_BATCH;
}

static int have_ask(struct call *call)
{
    size_t i = call_next(call), size = have_count(call, i) * sizeof(struct block_id);
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Have have = WL__HAVE__INIT;

    if (!call_has_room(call, size))
        return 0;

    have.ids = (ProtobufCBinaryData){size, (uint8_t *)call->ids[i * HAVE_BATCH].bytes};
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_HAVE;
    bulk.have = &have;
    int r = transfer_send(call->transfer, &bulk, NULL);
    if (r)
        return r;
    call_item_asked(call, i, size);
    return call_request_take(call, i);
}

static int have_answer(struct call *call, const Wl__Bulk *bulk, zmq_msg_t *data _unused_)
{
    size_t i;

    if (bulk->body_case != WL__BULK__BODY_MISSING || !call_request_item(call, bulk->request, &i) ||
        call->states[i] != ITEM_ASKED)
        return 0;

    size_t n = have_count(call, i);
    if (bulk->missing->bits.len != (n + 7) / 8)
        return transfer_say(call->transfer, -EPROTO, call->transfer->endpoint,
                            "an answer of the wrong length", "check the versions of both sides");
    for (size_t k = 0; k < n; k++)
        call->missing[i * HAVE_BATCH + k] = bulk->missing->bits.data[k / 8] >> k % 8 & 1;
    call_item_done(call, i);
    return 0;
}

int transfer_have(struct transfer *transfer, const struct block_id *ids, size_t n_ids,
                  bool *ret_missing)
{
    struct call call;

    int r = call_init(&call, transfer, (n_ids + HAVE_BATCH - 1) / HAVE_BATCH, NULL);
    call.ask = have_ask;
    call.answer = have_answer;
    call.ids = ids;
    call.n_ids = n_ids;
    call.missing = ret_missing;
    if (r == 0)
        r = call_run(&call);
    call_deinit(&call);
    return r;
}

/* ---- put: an item is one block ---- */

static void put_free(void *data, void *user _unused_)
{
    free(data);
}

static int put_make(struct call *call, size_t i)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Put put = WL__PUT__INIT;
    struct block_id id;

    int r = call->source(call->user, i, &call->out, &id);
    if (r)
        return r;
    if (call->out.size > LIMIT_SEALED_BYTES)
        return transfer_say(call->transfer, -EMSGSIZE, "block", "larger than a block may be",
                            "cut it");

    put.id = (ProtobufCBinaryData){sizeof(id.bytes), id.bytes};
    put.plain = call->plain;
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_PUT;
    bulk.put = &put;
    r = wire_bulk_pack(&bulk, &call->held_header);
    if (r < 0)
        return r;
    /* Its memory goes along: libzmq frees it. */
    if (zmq_msg_init_data(&call->held_data, call->out.data, call->out.size, put_free, NULL) < 0) {
        zmq_msg_close(&call->held_header);
        return -ENOMEM;
    }
    call->out = (struct bytes){0};
    call->held = true;
    call->held_item = i;
    return 0;
}

static int put_ask(struct call *call)
{
    struct transfer *transfer = call->transfer;
    int r = 0;

    if (!call->held && !call_has_room(call, LIMIT_SEALED_BYTES))
        return 0;
    if (!call->held)
        r = put_make(call, call_next(call));
    if (r)
        return r;

    size_t size = zmq_msg_size(&call->held_data);
    r = link_send(transfer->socket, NULL, &call->held_header, &call->held_data);
    transfer->blocked = r == LINK_E_AGAIN;
    if (r)
        return r;
    call->held = false;
    transfer->bytes_sent += size;
    call_item_asked(call, call->held_item, size);
    return call_request_take(call, call->held_item);
}

static int put_answer(struct call *call, const Wl__Bulk *bulk, zmq_msg_t *data _unused_)
{
    size_t i;

    if (bulk->body_case != WL__BULK__BODY_STORED || !call_request_item(call, bulk->request, &i))
        return 0;
    call_item_done(call, i);
    return 0;
}

int transfer_put(struct transfer *transfer, size_t n, bool plain, transfer_source *source,
                 void *user)
{
    struct call call;

    int r = call_init(&call, transfer, n, user);
    call.ask = put_ask;
    call.answer = put_answer;
    call.source = source;
    call.plain = plain;
    if (r == 0)
        r = call_run(&call);
    call_deinit(&call);
    return r;
}

/* ---- get: an item is one block ---- */

int transfer_check_want(struct transfer *transfer, const struct transfer_want *want)
{
    if (want->sealed_bytes <= LIMIT_SEALED_BYTES)
        return 0;
    return transfer_say(transfer, TRANSFER_E_CORRUPT, "block",
                        "its reference says that it is larger than a block may be",
                        "the reference is damaged: render or submit again");
}

int transfer_check(struct transfer *transfer, const struct transfer_want *want, zmq_msg_t *data)
{
    size_t size = zmq_msg_size(data);
    struct block_id id;
    char what[32] = "block ";

    digest(zmq_msg_data(data), size, &id);
    if (memcmp(&id, &want->id, sizeof(id)) == 0 &&
        (want->sealed_bytes == 0 || want->sealed_bytes == size))
        return 0;
    hex_encode(want->id.bytes, 8, what + 6);
    return transfer_say(transfer, TRANSFER_E_CORRUPT, what,
                        "the bytes that came are not those of that name",
                        "tell the operator: the vault or its disk is damaged");
}

enum { ITEM_SAME = ITEM_DONE + 1 }; /* comes with an earlier item of the same id */

static size_t *get_slot(const struct call *call, const struct block_id *id)
{
    size_t at;

    memcpy(&at, id->bytes, sizeof(at));
    for (at &= call->n_slots - 1; call->slots[at]; at = (at + 1) & (call->n_slots - 1))
        if (memcmp(&call->wants[call->slots[at] - 1].id, id, sizeof(*id)) == 0)
            break;
    return &call->slots[at];
}

static int get_index(struct call *call)
{
    for (call->n_slots = 16; call->n_slots < 2 * call->n;)
        call->n_slots *= 2;
    call->slots = calloc(call->n_slots, sizeof(*call->slots));
    call->same = calloc(call->n + 1, sizeof(*call->same));
    if (!call->slots || !call->same)
        return -ENOMEM;

    for (size_t i = 0; i < call->n; i++) {
        size_t *slot = get_slot(call, &call->wants[i].id);

        int r = transfer_check_want(call->transfer, &call->wants[i]);
        if (r)
            return r;
        if (!*slot) {
            *slot = i + 1;
            continue;
        }
        call->states[i] = ITEM_SAME;
        call->same[i] = call->same[*slot - 1];
        call->same[*slot - 1] = i + 1;
    }
    return 0;
}

static size_t get_bytes(const struct call *call, size_t i)
{
    return call->wants[i].sealed_bytes ? call->wants[i].sealed_bytes : LIMIT_SEALED_BYTES;
}

static int get_ask(struct call *call)
{
    struct block_id ids[GET_BATCH];
    size_t items[GET_BATCH], n = 0, bytes = 0;
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Get get = WL__GET__INIT;

    for (size_t i = call_next(call); i < call->n && n < GET_BATCH; i++) {
        if (call->states[i] != ITEM_UNASKED)
            continue;
        if ((n || call->in_flight_bytes) &&
            call->in_flight_bytes + bytes + get_bytes(call, i) > call->transfer->window_bytes)
            break;
        bytes += get_bytes(call, i);
        ids[n] = call->wants[i].id;
        items[n++] = i;
    }
    if (n == 0)
        return 0;

    get.ids = (ProtobufCBinaryData){n * sizeof(ids[0]), ids[0].bytes};
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_GET;
    bulk.get = &get;
    int r = transfer_send(call->transfer, &bulk, NULL);
    if (r)
        return r;
    for (size_t k = 0; k < n; k++)
        call_item_asked(call, items[k], get_bytes(call, items[k]));
    return call_request_take(call, items[0]);
}

static int get_answer(struct call *call, const Wl__Bulk *bulk, zmq_msg_t *data)
{
    struct block_id named;

    if (bulk->body_case != WL__BULK__BODY_BLOCK)
        return 0;

    memcpy(named.bytes, bulk->block->id.data, sizeof(named.bytes));
    size_t i = *get_slot(call, &named);
    if (i == 0 || call->states[i - 1] == ITEM_DONE)
        return 0; /* of an earlier call, or asked again after a break and come twice */

    int r = transfer_check(call->transfer, &call->wants[i - 1], data);
    if (r)
        return r;
    for (; i; i = call->same[i - 1]) {
        r = call->sink(call->user, i - 1, zmq_msg_data(data), zmq_msg_size(data));
        if (r)
            return r;
        call_item_done(call, i - 1);
    }
    return 0;
}

int transfer_get(struct transfer *transfer, const struct transfer_want *wants, size_t n,
                 transfer_sink *sink, void *user)
{
    struct call call;

    int r = call_init(&call, transfer, n, user);
    call.ask = get_ask;
    call.answer = get_answer;
    call.wants = wants;
    call.sink = sink;
    if (r == 0)
        r = get_index(&call);
    if (r == 0)
        r = call_run(&call);
    call_deinit(&call);
    return r;
}
