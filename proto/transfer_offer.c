/* transfer_offer.c - a stream of blocks to the vault. The idea: every block that is open is in one of
 * a few states, and questions and blocks go out side by side: while the vault is asked for some,
 * others are on their way, so that neither the time a question takes nor that of a block is waited
 * for. After a break all that is open is new again: what had arrived is then there.
 */
#include <proto/transfer_call.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/limits.h>

enum {
    OPEN_MAX = 8192, /* a power of two */
    HAVE_MAX = 4096, /* 128 KiB of ids: small beside the window */
    HAVES_MAX = 8,   /* under way: then questions gather */
};

enum item { NEW, ASKED, LACKED, PUT, DONE };

struct offer_item {
    struct transfer_block block;
    enum item state;
    uint32_t n_asked; /* with this one and those behind it */
};

struct offer {
    const struct transfer_offer *how;
    struct offer_item items[OPEN_MAX]; /* number i at i % OPEN_MAX */
    size_t first, end;                 /* open */
    size_t next_new, next_put;         /* none before it */
    size_t n_haves;
    bool ended;
};

static struct offer_item *item_at(struct offer *offer, size_t i)
{
    return &offer->items[i % OPEN_MAX];
}

static void item_done(struct call *call, size_t i, bool sent)
{
    struct offer *offer = call->own;
    struct offer_item *item = item_at(offer, i);

    item->state = DONE;
    call->n_done++;
    offer->how->done(offer->how->user, &item->block, sent);
    while (offer->first < offer->end && item_at(offer, offer->first)->state == DONE)
        offer->first++;
    if (offer->ended && offer->first == offer->end)
        call->n = call->n_done;
}

static int take_more(struct call *call)
{
    struct offer *offer = call->own;
    int r = 0;

    while (!offer->ended && offer->end - offer->first < OPEN_MAX) {
        struct offer_item *item = item_at(offer, offer->end);

        *item = (struct offer_item){.state = NEW};
        r = offer->how->next(offer->how->user, &item->block);
        if (r != 0)
            break;
        offer->end++;
    }
    if (r == TRANSFER_NO_MORE) {
        offer->ended = true;
        if (offer->first == offer->end)
            call->n = call->n_done;
    }
    return r == TRANSFER_LATER || r == TRANSFER_NO_MORE ? 0 : r;
}

static int ask_have(struct call *call)
{
    struct offer *offer = call->own;
    struct block_id ids[HAVE_MAX];
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Have have = WL__HAVE__INIT;
    size_t from = offer->next_new, n = 0;

    while (n < HAVE_MAX && from + n < offer->end && item_at(offer, from + n)->state == NEW) {
        ids[n] = item_at(offer, from + n)->block.id;
        n++;
    }
    have.ids = (ProtobufCBinaryData){n * sizeof(*ids), ids[0].bytes};
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_HAVE;
    bulk.have = &have;
    int r = transfer_send(call->transfer, &bulk, NULL);
    if (r)
        return r;
    for (size_t i = from; i < from + n; i++)
        item_at(offer, i)->state = ASKED;
    item_at(offer, from)->n_asked = (uint32_t)n;
    offer->n_haves++;
    return call_request_take(call, from);
}

static int ask_put(struct call *call, size_t i)
{
    struct offer *offer = call->own;
    struct offer_item *item = item_at(offer, i);
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Put put = WL__PUT__INIT;
    zmq_msg_t data;

    put.id = (ProtobufCBinaryData){sizeof(item->block.id.bytes), item->block.id.bytes};
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_PUT;
    bulk.put = &put;
    if (zmq_msg_init_size(&data, item->block.size) < 0)
        return -ENOMEM;
    memcpy(zmq_msg_data(&data), item->block.sealed, item->block.size);
    int r = transfer_send(call->transfer, &bulk, &data);
    if (r) {
        zmq_msg_close(&data);
        return r;
    }
    item->state = PUT;
    call->transfer->bytes_sent += item->block.size;
    call->in_flight_bytes += item->block.size;
    return call_request_take(call, i);
}

static int offer_ask(struct call *call)
{
    struct offer *offer = call->own;
    int r = take_more(call);

    if (r)
        return r;
    while (offer->next_new < offer->end && item_at(offer, offer->next_new)->state != NEW)
        offer->next_new++;
    if (offer->next_new < offer->end && offer->n_haves < HAVES_MAX)
        return ask_have(call);
    while (offer->next_put < offer->end && item_at(offer, offer->next_put)->state > LACKED)
        offer->next_put++;
    for (size_t i = offer->next_put; i < offer->end; i++)
        if (item_at(offer, i)->state == LACKED)
            return call_has_room(call, item_at(offer, i)->block.size) ? ask_put(call, i) : 0;
    call->waiting = offer->n_haves == 0 && call->in_flight_bytes == 0;
    return 0;
}

static int on_missing(struct call *call, const Wl__Bulk *bulk, size_t from)
{
    struct offer *offer = call->own;
    size_t n = item_at(offer, from)->n_asked;

    if (bulk->missing->bits.len != (n + 7) / 8)
        return transfer_say(call->transfer, -EPROTO, call->transfer->endpoint,
                            "an answer of the wrong length", "check the versions of both sides");
    offer->n_haves--;
    for (size_t k = 0; k < n; k++) {
        struct offer_item *item = item_at(offer, from + k);
        bool lacks = bulk->missing->bits.data[k / 8] >> k % 8 & 1;

        if (lacks && !item->block.sealed)
            return transfer_say(call->transfer, TRANSFER_E_MISSING, "block",
                                "it was there once, and is not any more", "send it again");
        if (lacks && !offer->how->ask_only)
            item->state = LACKED;
        else
            item_done(call, from + k, lacks);
    }
    return 0;
}

static int offer_answer(struct call *call, const Wl__Bulk *bulk, zmq_msg_t *data _unused_)
{
    struct offer *offer = call->own;
    size_t i;

    if (!call_request_item(call, bulk->request, &i) || i < offer->first || i >= offer->end)
        return 0;
    struct offer_item *item = item_at(offer, i);
    if (bulk->body_case == WL__BULK__BODY_MISSING && item->state == ASKED)
        return on_missing(call, bulk, i);
    if (bulk->body_case == WL__BULK__BODY_STORED && item->state == PUT) {
        call->in_flight_bytes -= item->block.size;
        item_done(call, i, true);
    }
    return 0;
}

static void offer_forget(struct call *call)
{
    struct offer *offer = call->own;

    for (size_t i = offer->first; i < offer->end; i++)
        if (item_at(offer, i)->state != DONE)
            item_at(offer, i)->state = NEW;
    offer->next_new = offer->next_put = offer->first;
    offer->n_haves = 0;
}

int transfer_offer(struct transfer *transfer, const struct transfer_offer *how)
{
    struct offer *offer = calloc(1, sizeof(*offer));
    struct call call;

    int r = call_init(&call, transfer, 1, how->user);
    if (!offer)
        r = -ENOMEM;
    if (offer)
        offer->how = how;
    if (how->begin)
        how->begin(how->user);
    call.n = SIZE_MAX; /* until the end is known */
    call.own = offer;
    call.ask = offer_ask;
    call.answer = offer_answer;
    call.forget = offer_forget;
    call.wake_fd = how->wake_fd;
    if (r == 0)
        r = call_run(&call);
    call_deinit(&call);
    free(offer);
    return r;
}
