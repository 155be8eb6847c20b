/* blocks.c - the bulk link is made at the first need, and again when its pass has run out or is
 * used up. */
#include <client/blocks.h>

#include <errno.h>
#include <string.h>

static int ask_pass(struct blocks *blocks, Wl__Envelope **ret_answer)
{
    Wl__PassRequest request = WL__PASS_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    request.write_bytes = blocks->write_bytes;
    envelope.body_case = WL__ENVELOPE__BODY_PASS_REQUEST;
    envelope.pass_request = &request;
    return connection_call(blocks->westlight, &envelope, WL__ENVELOPE__BODY_PASS,
                           CONNECTION_TIMEOUT_NS, ret_answer);
}

static bool on_tick(void *user)
{
    struct blocks *blocks = user;

    blocks->ticked = blocks->tick ? blocks->tick(blocks->user) : 0;
    return blocks->ticked == 0;
}

static int open_link(struct blocks *blocks)
{
    struct westlight *westlight = blocks->westlight;
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    char endpoint[512];

    if (blocks->transfer)
        return 0;
    int r = ask_pass(blocks, &answer);
    if (r != 0)
        return r;
    blocks->grace_ns = answer->pass->grace_ns;
    r = connection_bulk(westlight, endpoint, sizeof(endpoint));
    if (r < 0)
        return connection_fail(
            westlight, WESTLIGHT_E_USAGE,
            "farm %s: no bulk address can be told from %s: add bulk = tcp://HOST:7421",
            westlight->farm.name, westlight->farm.control);
    struct transfer_config config = {
        .context = westlight->context,
        .endpoint = endpoint,
        .server = westlight->server,
        .keys = &westlight->keys,
        .pass = answer->pass->pass.data,
        .pass_size = answer->pass->pass.len,
        .stop = &westlight->stop,
        .tick = on_tick,
        .user = blocks,
    };
    r = transfer_new(&config, &blocks->transfer);
    if (r != 0)
        return connection_fail(westlight, r < 0 ? r : -EPROTO,
                               "farm %s: blocks at %s: %s: check the address", westlight->farm.name,
                               endpoint, r < 0 ? strerror(-r) : "cannot be reached");
    return 0;
}

static void close_link(struct blocks *blocks)
{
    if (!blocks->transfer)
        return;
    blocks->sent += transfer_bytes_sent(blocks->transfer);
    blocks->received += transfer_bytes_received(blocks->transfer);
    transfer_free(TAKE_PTR(blocks->transfer));
}

void blocks_deinit(struct blocks *blocks)
{
    close_link(blocks);
}

uint64_t blocks_sent(const struct blocks *blocks)
{
    return blocks->sent + (blocks->transfer ? transfer_bytes_sent(blocks->transfer) : 0);
}

uint64_t blocks_received(const struct blocks *blocks)
{
    return blocks->received + (blocks->transfer ? transfer_bytes_received(blocks->transfer) : 0);
}

static int code_of(int r)
{
    static const int codes[] = {
        [TRANSFER_E_REFUSED] = WESTLIGHT_E_REFUSED, [TRANSFER_E_MISSING] = WESTLIGHT_E_UNKNOWN,
        [TRANSFER_E_FULL] = WESTLIGHT_E_BUSY,       [TRANSFER_E_CORRUPT] = WESTLIGHT_E_CORRUPT,
        [TRANSFER_E_DAMAGED] = WESTLIGHT_E_CORRUPT, [TRANSFER_E_DISK] = WESTLIGHT_E_BUSY,
        [TRANSFER_E_QUOTA] = WESTLIGHT_E_BUSY,      [TRANSFER_E_BROKER] = WESTLIGHT_E_BUSY,
    };

    return r > 0 && r < (int)ARRAY_SIZE(codes) ? codes[r]
           : r == -ETIMEDOUT                   ? WESTLIGHT_E_TIMEOUT
                                               : r;
}

static int moved(struct blocks *blocks, int r)
{
    struct westlight *westlight = blocks->westlight;

    if (r == 0)
        return 0;
    if (r == -ECANCELED && atomic_load(&westlight->stop))
        return connection_stopped(westlight);
    if (r == -ECANCELED && blocks->ticked)
        return blocks->ticked; /* and it has said why */
    const char *why = transfer_why(blocks->transfer);
    int code = code_of(r);
    /* A callback that ended the call has said why itself. */
    if (why && *why && westlight->why[0] == '\0')
        connection_fail(westlight, code, "%s", why);
    if (westlight->why[0] == '\0')
        connection_fail(westlight, code, "blocks: %s: try again", r < 0 ? strerror(-r) : "refused");
    return code;
}

/* Runs a transfer call; once more with a new pass where the old one was refused, or
 * the broker took no more. */
#define WITH_LINK(blocks, call)                                                                    \
    ({                                                                                             \
        int with_ = open_link(blocks);                                                             \
        if (with_ == 0) {                                                                          \
            (blocks)->westlight->why[0] = '\0';                                                    \
            with_ = (call);                                                                        \
            if (with_ == TRANSFER_E_REFUSED || with_ == TRANSFER_E_FULL) {                         \
                close_link(blocks);                                                                \
                with_ = open_link(blocks);                                                         \
                if (with_ == 0)                                                                    \
                    with_ = moved(blocks, (call));                                                 \
            } else {                                                                               \
                with_ = moved(blocks, with_);                                                      \
            }                                                                                      \
        }                                                                                          \
        with_;                                                                                     \
    })

int blocks_have(struct blocks *blocks, const struct block_id *ids, size_t n_ids, bool *ret_missing)
{
    return WITH_LINK(blocks, transfer_have(blocks->transfer, ids, n_ids, ret_missing));
}

int blocks_put(struct blocks *blocks, size_t n, bool plain, transfer_source *source, void *user)
{
    return WITH_LINK(blocks, transfer_put(blocks->transfer, n, plain, source, user));
}

int blocks_offer(struct blocks *blocks, const struct transfer_offer *how)
{
    return WITH_LINK(blocks, transfer_offer(blocks->transfer, how));
}

int blocks_get(struct blocks *blocks, const struct transfer_want *wants, size_t n,
               transfer_sink *sink, void *user)
{
    return WITH_LINK(blocks, transfer_get(blocks->transfer, wants, n, sink, user));
}

int blocks_stream_go(struct blocks *blocks, struct transfer_stream *stream, bool wait)
{
    return WITH_LINK(blocks, transfer_stream_go(stream, blocks->transfer, wait));
}

int blocks_lack(struct blocks *blocks, int lack, const char *why)
{
    return connection_fail(blocks->westlight, code_of(lack), "%s", why);
}

int blocks_opened(struct westlight *westlight, int seal_result, const char *what)
{
    if (seal_result <= 0)
        return seal_result;
    return connection_fail(westlight, WESTLIGHT_E_CORRUPT,
                           "%s: %s: fetch it again; if that stays so, tell the operator", what,
                           seal_result == SEAL_E_ID    ? "its bytes do not match their digest"
                           : seal_result == SEAL_E_TAG ? "the job's key does not open it"
                                                       : "it is not a block");
}

static int take_one(void *user, size_t i, const void *sealed, size_t size)
{
    struct bytes *out = user;
    (void)i;
    out->size = 0;
    return bytes_append(out, sealed, size);
}

int blocks_open_ref(struct blocks *blocks, const uint8_t secret[32], const Wl__BlockRef *ref,
                    struct bytes *out)
{
    struct westlight *westlight = blocks->westlight;
    _cleanup_(bytes_deinit) struct bytes sealed = {0};
    struct block_key key;

    if (wire_block_ref(westlight->sealer, secret, ref, &key) != 0)
        return connection_fail(
            westlight, -EPROTO,
            "farm %s: the broker sent a reference without an id: update this program",
            westlight->farm.name);
    if (ref->inline_sealed.len > 0)
        return blocks_opened(westlight,
                             open_block(westlight->sealer, &key, ref->inline_sealed.data,
                                        ref->inline_sealed.len, out),
                             "a block in the answer");
    struct transfer_want want = {.id = key.id, .sealed_bytes = key.sealed_bytes};
    int r = blocks_get(blocks, &want, 1, take_one, &sealed);
    if (r != 0)
        return r;
    return blocks_opened(westlight,
                         open_block(westlight->sealer, &key, sealed.data, sealed.size, out),
                         "a block from the vault");
}
