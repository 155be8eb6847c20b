/* transfer_stream.c - blocks that come while others are used. The idea: a get that has no end and
 * is run a step at a time, by whoever uses the blocks. Between two steps libzmq's thread receives
 * what was asked for, so that the link has work as long as a step comes before the window has
 * passed. A block that cannot be had is told in its place, because the others belong to other
 * files.
 */
#include <proto/transfer_call.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/limits.h>

enum {
    OPEN_MAX = 8192, /* a power of two */
    ASK_MAX = 64,
};

enum item { NEW, ASKED, DONE };

struct stream_item {
    struct transfer_want want;
    void *tag;
    enum item state;
};

struct transfer_stream {
    struct call call;
    struct transfer_coming how;
    struct stream_item items[OPEN_MAX]; /* number i at i % OPEN_MAX */
    size_t first, end;                  /* open */
    size_t next_new;                    /* none before it */
};

static struct stream_item *item_at(struct transfer_stream *stream, size_t i)
{
    return &stream->items[i % OPEN_MAX];
}

static size_t item_bytes(const struct stream_item *item)
{
    return item->want.sealed_bytes ? item->want.sealed_bytes : LIMIT_SEALED_BYTES;
}

static int item_done(struct call *call, struct stream_item *item, int result, zmq_msg_t *data)
{
    struct transfer_stream *stream = call->own;
    void *tag = item->tag;

    if (item->state == ASKED)
        call->in_flight_bytes -= item_bytes(item);
    item->state = DONE;
    call->n_done++;
    while (stream->first < stream->end && item_at(stream, stream->first)->state == DONE)
        stream->first++;
    return stream->how.came(stream->how.user, tag, result, result ? NULL : zmq_msg_data(data),
                            result ? 0 : zmq_msg_size(data));
}

static int take_next(struct call *call)
{
    struct transfer_stream *stream = call->own;
    struct stream_item *item = item_at(stream, stream->end);

    if (stream->end - stream->first == OPEN_MAX)
        return TRANSFER_LATER;
    *item = (struct stream_item){.state = NEW};
    int r = stream->how.next(stream->how.user, &item->want, &item->tag);
    if (r)
        return r;
    stream->end++;
    r = transfer_check_want(call->transfer, &item->want);
    return r ? item_done(call, item, r, NULL) : 0;
}

/* The numbers of those that fit into the window, from the first that is new. */
static int gather(struct call *call, size_t numbers[ASK_MAX], size_t *ret_n)
{
    struct transfer_stream *stream = call->own;
    size_t n = 0, bytes = call->in_flight_bytes, i;
    int r = 0;

    for (i = stream->next_new; n < ASK_MAX; i++) {
        const struct stream_item *item = item_at(stream, i);

        if (i == stream->end && (r = take_next(call)) != 0)
            break;
        if (item->state != NEW)
            continue;
        if (bytes > 0 && bytes + item_bytes(item) > call->transfer->window_bytes)
            break;
        bytes += item_bytes(item);
        numbers[n++] = i;
    }
    stream->next_new = n ? numbers[0] : i;
    *ret_n = n;
    return r == TRANSFER_LATER ? 0 : r;
}

static int stream_ask(struct call *call)
{
    struct transfer_stream *stream = call->own;
    struct block_id ids[ASK_MAX];
    size_t numbers[ASK_MAX], n;
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Get get = WL__GET__INIT;

    int r = gather(call, numbers, &n);
    if (r || n == 0)
        return r;
    for (size_t i = 0; i < n; i++)
        ids[i] = item_at(stream, numbers[i])->want.id;
    get.ids = (ProtobufCBinaryData){n * sizeof(ids[0]), ids[0].bytes};
    bulk.request = call->transfer->next_request;
    bulk.body_case = WL__BULK__BODY_GET;
    bulk.get = &get;
    r = transfer_send(call->transfer, &bulk, NULL);
    if (r)
        return r;
    for (size_t i = 0; i < n; i++) {
        item_at(stream, numbers[i])->state = ASKED;
        call->in_flight_bytes += item_bytes(item_at(stream, numbers[i]));
    }
    return call_request_take(call, numbers[0]);
}

/* They come nearly in the order in which they were asked for. */
static struct stream_item *find(struct transfer_stream *stream, const ProtobufCBinaryData *id)
{
    for (size_t i = stream->first; id->len == sizeof(struct block_id) && i < stream->end; i++) {
        struct stream_item *item = item_at(stream, i);

        if (item->state != DONE && memcmp(&item->want.id, id->data, id->len) == 0)
            return item;
    }
    return NULL;
}

static int stream_answer(struct call *call, const Wl__Bulk *bulk, zmq_msg_t *data)
{
    struct stream_item *item =
        bulk->body_case == WL__BULK__BODY_BLOCK ? find(call->own, &bulk->block->id) : NULL;

    if (!item)
        return 0; /* of an earlier call, or asked again after a break and come twice */
    return item_done(call, item, transfer_check(call->transfer, &item->want, data), data);
}

static int stream_lack(struct call *call, const ProtobufCBinaryData *id, int r)
{
    struct stream_item *item = find(call->own, id);

    if (!item || (r != TRANSFER_E_MISSING && r != TRANSFER_E_CORRUPT && r != TRANSFER_E_DAMAGED))
        return r;
    return item_done(call, item, r, NULL);
}

static void stream_forget(struct call *call)
{
    struct transfer_stream *stream = call->own;

    for (size_t i = stream->first; i < stream->end; i++)
        if (item_at(stream, i)->state == ASKED)
            item_at(stream, i)->state = NEW;
    stream->next_new = stream->first;
}

int transfer_stream_new(const struct transfer_coming *how, struct transfer_stream **ret_stream)
{
    struct transfer_stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        return -ENOMEM;
    stream->how = *how;
    int r = call_init(&stream->call, NULL, 1, NULL);
    stream->call.n = SIZE_MAX; /* it ends when it is freed */
    stream->call.own = stream;
    stream->call.ask = stream_ask;
    stream->call.answer = stream_answer;
    stream->call.lack = stream_lack;
    stream->call.forget = stream_forget;
    if (r < 0)
        transfer_stream_free(stream);
    else
        *ret_stream = stream;
    return r;
}

void transfer_stream_free(struct transfer_stream *stream)
{
    if (!stream)
        return;
    call_deinit(&stream->call);
    free(stream);
}

int transfer_stream_go(struct transfer_stream *stream, struct transfer *transfer, bool wait)
{
    struct call *call = &stream->call;
    size_t done = call->n_done;

    call->transfer = transfer;
    int r = call_begin(call);
    for (;;) {
        if (r == 0)
            r = call_step(call);
        if (r != 0)
            transfer->phase = PHASE_CLOSED; /* so that nothing is taken for under way */
        if (r != 0 || !wait || call->n_done != done)
            return r;
        r = call_wait(call);
    }
}
