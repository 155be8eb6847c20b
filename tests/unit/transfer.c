/* Against a small server that answers late, backwards, wrongly, or goes away in the middle. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include <proto/base/clock.h>
#include <proto/limits.h>
#include <proto/state.h>
#include <proto/transfer.h>
#include <proto/wire.h>

/* libzmq forgets a message of which half is there when its socket is closed, as the server's is here
 * on purpose. Messages that we forget are found by other tests (bulk, and all programs). */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libzmq.so";
}

enum { BLOCKS = 96, BLOCK_BYTES = 20000, WINDOW = 5 * BLOCK_BYTES + LIMIT_SEALED_BYTES };

/* ---- the server: keeps questions until none comes for a moment, then answers backwards ---- */

struct question {
    struct link_route route;
    Wl__Bulk *bulk;
    zmq_msg_t data;
};

struct server {
    void *context, *socket;
    struct link_zap *zap;
    struct link_keypair keys;
    char endpoint[128];
    pthread_t thread;
    atomic_bool stop;
    /* knobs, set before the start */
    uint32_t open_code, get_code; /* what is answered with a fault: CODE_*; 0: nothing */
    bool refuse_key, mute, corrupt, forget_once, busy_once;
    int restart_after; /* answers; 0: never */
    uint64_t window_bytes;
    /* what it holds and saw */
    uint8_t blocks[BLOCKS][BLOCK_BYTES];
    struct block_id ids[BLOCKS];
    bool stored[BLOCKS];
    struct question questions[1024];
    size_t n_questions, pending_bytes, pending_bytes_max;
    struct link_route opened;
    int answers, opens;
};

static void keys_make(struct link_keypair *keys)
{
    char public_text[41], secret_text[41];

    assert_int_equal(zmq_curve_keypair(public_text, secret_text), 0);
    assert_non_null(zmq_z85_decode(keys->public_key.bytes, public_text));
    assert_non_null(zmq_z85_decode(keys->secret_key.bytes, secret_text));
}

static void answer(struct server *s, const struct question *q, Wl__Bulk *bulk, const void *data,
                   size_t size)
{
    zmq_msg_t header, body;

    bulk->request = q->bulk->request;
    int r;

    if (wire_bulk_pack(bulk, &header) < 0 || zmq_msg_init_size(&body, size) < 0)
        abort();
    if (size)
        memcpy(zmq_msg_data(&body), data, size);
    s->answers++;
    while ((r = link_send(s->socket, &q->route, &header, data ? &body : NULL)) == LINK_E_AGAIN &&
           !atomic_load(&s->stop))
        zmq_poll(NULL, 0, 1); /* the peer's queue is full: it reads */
    if (r == 0)
        return;
    zmq_msg_close(&header);
    zmq_msg_close(&body);
}

static void fault(struct server *s, const struct question *q, uint32_t code, const uint8_t *id)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Fault message = WL__FAULT__INIT;

    message.code = code;
    message.why = (char *)"the server says no";
    message.next = (char *)"go elsewhere";
    if (id)
        message.id = (ProtobufCBinaryData){32, (uint8_t *)id};
    bulk.body_case = WL__BULK__BODY_FAULT;
    bulk.fault = &message;
    answer(s, q, &bulk, NULL, 0);
}

static int find(const struct server *s, const uint8_t *id)
{
    for (int i = 0; i < BLOCKS; i++)
        if (memcmp(s->ids[i].bytes, id, 32) == 0)
            return i;
    return -1;
}

static void answer_open(struct server *s, const struct question *q)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Opened opened = WL__OPENED__INIT;

    s->opens++;
    s->opened = q->route;
    opened.window_bytes = s->window_bytes;
    bulk.body_case = WL__BULK__BODY_OPENED;
    bulk.opened = &opened;
    if (s->open_code)
        fault(s, q, s->open_code, NULL);
    else
        answer(s, q, &bulk, NULL, 0);
}

static void answer_have(struct server *s, const struct question *q)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Missing missing = WL__MISSING__INIT;
    uint8_t bits[LIMIT_HAVE_IDS / 8] = {0};
    size_t n = q->bulk->have->ids.len / 32;

    for (size_t i = 0; i < n; i++) {
        int at = find(s, q->bulk->have->ids.data + 32 * i);
        if (at < 0 || !s->stored[at])
            bits[i / 8] |= (uint8_t)(1u << i % 8);
    }
    missing.bits = (ProtobufCBinaryData){(n + 7) / 8, bits};
    bulk.body_case = WL__BULK__BODY_MISSING;
    bulk.missing = &missing;
    answer(s, q, &bulk, NULL, 0);
}

static void answer_put(struct server *s, struct question *q)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Stored stored = WL__STORED__INIT;
    int i = find(s, q->bulk->put->id.data);
    struct block_id id;

    digest(zmq_msg_data(&q->data), zmq_msg_size(&q->data), &id);
    if (i < 0 || memcmp(&id, q->bulk->put->id.data, 32) != 0) {
        fault(s, q, CODE_INVALID, q->bulk->put->id.data);
        return;
    }
    s->stored[i] = true;
    stored.id = q->bulk->put->id;
    bulk.body_case = WL__BULK__BODY_STORED;
    bulk.stored = &stored;
    answer(s, q, &bulk, NULL, 0);
}

static void answer_get(struct server *s, const struct question *q)
{
    if (s->busy_once && s->answers > 20) {
        s->busy_once = false;
        fault(s, q, CODE_BUSY, NULL);
        return;
    }
    for (size_t at = q->bulk->get->ids.len; at; at -= 32) {
        Wl__Bulk bulk = WL__BULK__INIT;
        Wl__Block block = WL__BLOCK__INIT;
        uint8_t *id = q->bulk->get->ids.data + at - 32;
        int i = find(s, id);

        if (i < 0 || !s->stored[i] || s->get_code) {
            fault(s, q, s->get_code ? s->get_code : CODE_UNKNOWN, id);
            continue;
        }
        block.id = (ProtobufCBinaryData){32, id};
        bulk.body_case = WL__BULK__BODY_BLOCK;
        bulk.block = &block;
        if (s->corrupt)
            s->blocks[i][7] ^= 1;
        answer(s, q, &bulk, s->blocks[i], BLOCK_BYTES);
    }
}

static void answer_one(struct server *s, struct question *q)
{
    if (q->bulk->body_case == WL__BULK__BODY_OPEN)
        answer_open(s, q);
    else if (q->route.size != s->opened.size ||
             memcmp(q->route.bytes, s->opened.bytes, q->route.size) != 0)
        fault(s, q, CODE_STATE, NULL);
    else if (q->bulk->body_case == WL__BULK__BODY_HAVE)
        answer_have(s, q);
    else if (q->bulk->body_case == WL__BULK__BODY_PUT)
        answer_put(s, q);
    else if (q->bulk->body_case == WL__BULK__BODY_GET)
        answer_get(s, q);
}

static void question_forget(struct question *q)
{
    wl__bulk__free_unpacked(q->bulk, NULL);
    zmq_msg_close(&q->data);
}

static void server_restart(struct server *s)
{
    s->restart_after = 0;
    link_close(s->socket);
    while (link_listen(s->context, LINK_BULK, s->endpoint, &s->keys, &s->socket, NULL) == -EADDRINUSE)
        ;
    memset(&s->opened, 0, sizeof(s->opened));
}

static void answer_all(struct server *s)
{
    bool restart = false;

    if (s->forget_once && s->answers > 20) {
        s->forget_once = false;
        memset(&s->opened, 0, sizeof(s->opened));
    }
    while (s->n_questions) {
        struct question *q = &s->questions[--s->n_questions];

        restart |= s->restart_after && s->answers >= s->restart_after;
        if (!s->mute && !restart)
            answer_one(s, q);
        question_forget(q);
    }
    s->pending_bytes = 0;
    if (restart)
        server_restart(s);
}

static void question_take(struct server *s, struct question *q, zmq_msg_t *header)
{
    const char *why;

    if (wire_bulk_unpack(zmq_msg_data(header), zmq_msg_size(header), &q->bulk, &why))
        abort();
    s->pending_bytes += zmq_msg_size(&q->data);
    if (q->bulk->body_case == WL__BULK__BODY_GET)
        s->pending_bytes += q->bulk->get->ids.len / 32 * BLOCK_BYTES;
    if (s->pending_bytes > s->pending_bytes_max)
        s->pending_bytes_max = s->pending_bytes;
    s->n_questions++;
}

static void *server_main(void *user)
{
    struct server *s = user;

    while (!atomic_load(&s->stop)) {
        zmq_pollitem_t item = {.socket = s->socket, .events = ZMQ_POLLIN};
        struct question *q = &s->questions[s->n_questions];
        struct link_key key;
        zmq_msg_t header;

        if (zmq_poll(&item, 1, 5) == 0)
            answer_all(s);
        else if (link_receive(s->socket, &key, &q->route, &header, &q->data) == 0) {
            question_take(s, q, &header);
            zmq_msg_close(&header);
        }
    }
    s->mute = true;
    answer_all(s);
    return NULL;
}

static int allow(void *user, const struct link_key *key)
{
    (void)key;
    return ((struct server *)user)->refuse_key;
}

static struct server *server_new(void)
{
    struct server *s = calloc(1, sizeof(*s));
    uint32_t seed = 1;

    for (size_t i = 0; i < BLOCKS; i++) {
        for (size_t k = 0; k < BLOCK_BYTES; k++)
            s->blocks[i][k] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
        digest(s->blocks[i], BLOCK_BYTES, &s->ids[i]);
    }
    keys_make(&s->keys);
    assert_int_equal(link_context_new(1, &s->context), 0);
    assert_int_equal(link_zap_new(s->context, allow, s, &s->zap), 0);
    assert_int_equal(link_listen(s->context, LINK_BULK, "tcp://127.0.0.1:*", &s->keys, &s->socket,
                                 s->endpoint), 0);
    return s;
}

static void server_start(struct server *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void server_join(struct server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
}

static void server_free(struct server *s)
{
    link_close(s->socket);
    link_zap_free(s->zap);
    link_context_free(s->context);
    free(s);
}

/* ---- the client ---- */

struct client {
    void *context;
    struct link_keypair keys;
    struct transfer_config config;
    struct transfer *transfer;
    struct server *server;
    int made[BLOCKS], got[BLOCKS];
};

static void client_init(struct client *c, struct server *s)
{
    *c = (struct client){.server = s};
    keys_make(&c->keys);
    assert_int_equal(link_context_new(1, &c->context), 0);
    c->config = (struct transfer_config){
        .context = c->context, .endpoint = s->endpoint, .server = s->keys.public_key,
        .keys = &c->keys, .pass = "pass", .pass_size = 4, .window_bytes = WINDOW,
        .patience_ns = 10 * NS_PER_S,
    };
    assert_int_equal(transfer_new(&c->config, &c->transfer), 0);
}

static void client_deinit(struct client *c)
{
    transfer_free(c->transfer);
    link_context_free(c->context);
}

static int source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct client *c = user;

    c->made[i]++;
    *ret_id = c->server->ids[i];
    out->size = 0;
    return bytes_append(out, c->server->blocks[i], BLOCK_BYTES);
}

static int sink(void *user, size_t i, const void *sealed, size_t size)
{
    struct client *c = user;

    assert_int_equal(size, BLOCK_BYTES);
    assert_memory_equal(sealed, c->server->blocks[i % BLOCKS], size);
    c->got[i % BLOCKS]++;
    return 0;
}

static int get_all(struct client *c)
{
    struct transfer_want wants[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++)
        wants[i] = (struct transfer_want){c->server->ids[i], BLOCK_BYTES};
    return transfer_get(c->transfer, wants, BLOCKS, sink, c);
}

static void blocks_go_and_come_within_the_window_and_fill_it(void **state)
{
    struct server *s = server_new();
    struct client c;

    (void)state;
    s->window_bytes = WINDOW - 1000; /* the server may ask for less */
    server_start(s);
    client_init(&c, s);
    assert_int_equal(transfer_put(c.transfer, BLOCKS, false, source, &c), 0);
    assert_int_equal(get_all(&c), 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(c.made[i], 1);
        assert_int_equal(c.got[i], 1);
    }
    assert_int_equal(transfer_bytes_sent(c.transfer), (uint64_t)BLOCKS * BLOCK_BYTES);
    assert_int_equal(transfer_bytes_received(c.transfer), (uint64_t)BLOCKS * BLOCK_BYTES);
    server_join(s);
    assert_true(s->pending_bytes_max <= WINDOW - 1000);
    assert_true(s->pending_bytes_max > LIMIT_BLOCK_BYTES);
    assert_true(s->opens <= 2); /* it may have opened before it heard that the link is up */
    client_deinit(&c);
    server_free(s);
}

static void have_tells_what_is_missing_over_many_questions(void **state)
{
    enum { N = 9000 };
    struct server *s = server_new();
    struct block_id *ids = calloc(N, sizeof(*ids));
    bool *missing = calloc(N, sizeof(*missing));
    struct client c;

    (void)state;
    for (size_t i = 0; i < N; i++)
        memcpy(ids[i].bytes, &i, sizeof(i));
    for (size_t i = 0; i < BLOCKS; i++)
        ids[i * 90] = s->ids[i];
    s->stored[3] = s->stored[95] = true;
    server_start(s);
    client_init(&c, s);
    assert_int_equal(transfer_have(c.transfer, ids, N, missing), 0);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(missing[i], i != 3 * 90 && i != 95 * 90);
    assert_int_equal(transfer_have(c.transfer, NULL, 0, NULL), 0);
    server_join(s);
    client_deinit(&c);
    server_free(s);
    free(ids);
    free(missing);
}

static void a_server_that_restarts_in_the_middle_is_asked_again(void **state)
{
    for (int forget = 0; forget < 2; forget++) {
        struct server *s = server_new();
        struct client c;

        (void)state;
        s->forget_once = forget; /* or it only forgets who opened */
        s->restart_after = forget ? 0 : 30;
        server_start(s);
        client_init(&c, s);
        assert_int_equal(transfer_put(c.transfer, BLOCKS, false, source, &c), 0);
        assert_int_equal(get_all(&c), 0);
        for (size_t i = 0; i < BLOCKS; i++)
            assert_int_equal(c.got[i], 1);
        server_join(s);
        assert_true(s->opens >= 2);
        for (size_t i = 0; i < BLOCKS; i++)
            assert_true(s->stored[i]);
        client_deinit(&c);
        server_free(s);
    }
}

static void one_block_wanted_twice_is_got_once_and_given_twice(void **state)
{
    struct server *s = server_new();
    struct transfer_want wants[3 * BLOCKS];
    struct client c;

    (void)state;
    memset(s->stored, true, sizeof(s->stored));
    for (size_t i = 0; i < 3 * BLOCKS; i++)
        wants[i] = (struct transfer_want){s->ids[i % BLOCKS], i % 2 ? 0 : BLOCK_BYTES};
    server_start(s);
    client_init(&c, s);
    assert_int_equal(transfer_get(c.transfer, wants, 3 * BLOCKS, sink, &c), 0);
    for (size_t i = 0; i < BLOCKS; i++)
        assert_int_equal(c.got[i], 3);
    assert_int_equal(transfer_bytes_received(c.transfer), (uint64_t)BLOCKS * BLOCK_BYTES);
    server_join(s);
    client_deinit(&c);
    server_free(s);
}

enum knob { REFUSE_PASS, PASS_UNREAD, PASS_BUSY, INTERNAL, QUOTA, REFUSE_KEY, MISSING, CORRUPT, MUTE, STOPPED };

static void every_no_has_a_code_and_words(void **state)
{
    static const struct {
        enum knob knob;
        int result;
        const char *why;
    } cases[] = {
        {REFUSE_PASS, TRANSFER_E_REFUSED, "pass: the server says no: go elsewhere"},
        {PASS_UNREAD, TRANSFER_E_BROKER, "pass: the server says no: go elsewhere"},
        {PASS_BUSY, TRANSFER_E_FULL, "pass: the server says no: go elsewhere"},
        {INTERNAL, TRANSFER_E_BROKER, "the server says no: go elsewhere"},
        {QUOTA, TRANSFER_E_QUOTA, "the server says no: go elsewhere"},
        {REFUSE_KEY, TRANSFER_E_REFUSED, "turned away"},
        {MISSING, TRANSFER_E_MISSING, "block "},
        {CORRUPT, TRANSFER_E_CORRUPT, "not those of that name"},
        {MUTE, -ETIMEDOUT, "no answer"},
        {STOPPED, -ECANCELED, "stopped"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct server *s = server_new();
        atomic_bool stop = cases[i].knob == STOPPED;
        struct client c;

        memset(s->stored, cases[i].knob != MISSING, sizeof(s->stored));
        s->open_code = cases[i].knob == REFUSE_PASS   ? CODE_REFUSED
                       : cases[i].knob == PASS_UNREAD ? CODE_INTERNAL
                       : cases[i].knob == PASS_BUSY   ? CODE_BUSY
                                                      : CODE_OK;
        s->get_code = cases[i].knob == INTERNAL ? CODE_INTERNAL
                      : cases[i].knob == QUOTA  ? CODE_QUOTA
                                                : CODE_OK;
        s->refuse_key = cases[i].knob == REFUSE_KEY;
        s->corrupt = cases[i].knob == CORRUPT;
        s->mute = cases[i].knob == MUTE || cases[i].knob == STOPPED;
        server_start(s);
        client_init(&c, s);
        transfer_free(c.transfer);
        c.config.stop = &stop;
        if (cases[i].knob == MUTE)
            c.config.patience_ns = 300 * NS_PER_MS;
        assert_int_equal(transfer_new(&c.config, &c.transfer), 0);
        assert_int_equal(get_all(&c), cases[i].result);
        if (!strstr(transfer_why(c.transfer), cases[i].why))
            fail_msg("%s, not: %s", transfer_why(c.transfer), cases[i].why);
        server_join(s);
        client_deinit(&c);
        server_free(s);
    }
}

static int source_lies(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    int r = source(user, i, out, ret_id);

    out->data[0] ^= i == 40;
    return r;
}

static int source_ends(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    return i == 40 ? -EIO : source(user, i, out, ret_id);
}

static void a_link_is_good_for_another_call_after_one_that_failed(void **state)
{
    struct server *s = server_new();
    struct client c;

    (void)state;
    server_start(s);
    client_init(&c, s);
    assert_int_equal(transfer_put(c.transfer, BLOCKS, false, source_ends, &c), -EIO);
    assert_int_equal(transfer_put(c.transfer, BLOCKS, false, source_lies, &c), TRANSFER_E_CORRUPT);
    assert_int_equal(transfer_put(c.transfer, BLOCKS, true, source, &c), 0);
    assert_int_equal(get_all(&c), 0);
    assert_string_equal(transfer_why(c.transfer), "");
    server_join(s);
    client_deinit(&c);
    server_free(s);
}

/* ---- a stream that is offered ---- */

struct stream {
    struct client *client;
    int at, end, done[BLOCKS], sent;
    bool known, slow; /* only names; one block, then a word from elsewhere for the next */
    int wake_fd;
};

static void stream_begin(void *user)
{
    struct stream *stream = user;

    for (stream->at = 0; stream->at < BLOCKS && stream->done[stream->at]; stream->at++)
        ;
}

static int stream_next(void *user, struct transfer_block *ret_block)
{
    struct stream *stream = user;
    const uint64_t one = 1;

    if (stream->at == stream->end)
        return TRANSFER_NO_MORE;
    stream->slow = !stream->slow;
    if (stream->slow)
        return write(stream->wake_fd, &one, sizeof(one)) == sizeof(one) ? TRANSFER_LATER : -EIO;
    *ret_block = (struct transfer_block){
        .id = stream->client->server->ids[stream->at],
        .sealed = stream->known ? NULL : stream->client->server->blocks[stream->at],
        .size = BLOCK_BYTES,
        .tag = &stream->done[stream->at++]};
    return 0;
}

static void stream_done(void *user, const struct transfer_block *block, bool sent)
{
    struct stream *stream = user;

    ++*(int *)block->tag;
    stream->sent += sent;
}

static int offer(struct client *c, struct stream *stream, bool known, bool ask_only)
{
    *stream = (struct stream){.client = c, .end = BLOCKS, .known = known};
    stream->wake_fd = eventfd(0, EFD_NONBLOCK);
    const struct transfer_offer how = {.begin = stream_begin, .next = stream_next,
                                       .done = stream_done, .wake_fd = stream->wake_fd,
                                       .ask_only = ask_only, .user = stream};
    int r = transfer_offer(c->transfer, &how);
    close(stream->wake_fd);
    return r;
}

static void of_what_is_offered_only_what_is_missing_goes_and_all_of_it_is_done_once(void **state)
{
    for (int broken = 0; broken < 3; broken++) {
        struct server *s = server_new();
        struct stream stream;
        struct client c;

        (void)state;
        s->stored[3] = s->stored[95] = true;
        s->forget_once = broken == 1;
        s->restart_after = broken == 2 ? 30 : 0;
        server_start(s);
        client_init(&c, s);
        if (!broken) {
            assert_int_equal(offer(&c, &stream, false, true), 0);
            assert_int_equal(stream.sent, BLOCKS - 2); /* would be */
            assert_int_equal(transfer_bytes_sent(c.transfer), 0);
            assert_int_equal(offer(&c, &stream, true, false), TRANSFER_E_MISSING);
        }
        assert_int_equal(offer(&c, &stream, false, false), 0);
        for (size_t i = 0; i < BLOCKS; i++)
            assert_true(stream.done[i] == 1 && s->stored[i]);
        if (!broken)
            assert_int_equal(transfer_bytes_sent(c.transfer), (uint64_t)(BLOCKS - 2) * BLOCK_BYTES);
        else /* what had arrived is not sent again, but what was under way may be */
            assert_true(transfer_bytes_sent(c.transfer) <= (uint64_t)BLOCKS * BLOCK_BYTES + WINDOW);
        assert_int_equal(offer(&c, &stream, true, false), 0);
        assert_int_equal(stream.sent, 0);
        server_join(s);
        assert_true(s->pending_bytes_max <= WINDOW + LIMIT_SEALED_BYTES);
        client_deinit(&c);
        server_free(s);
    }
}

/* ---- a stream that comes ---- */

struct coming {
    struct client *client;
    size_t at, end, n_under_way, n_under_way_max;
    int came[BLOCKS], result[BLOCKS];
};

static int coming_next(void *user, struct transfer_want *ret_want, void **ret_tag)
{
    struct coming *coming = user;

    if (coming->at == coming->end)
        return TRANSFER_LATER;
    *ret_want = (struct transfer_want){coming->client->server->ids[coming->at], BLOCK_BYTES};
    *ret_tag = &coming->came[coming->at++];
    if (++coming->n_under_way > coming->n_under_way_max)
        coming->n_under_way_max = coming->n_under_way;
    return 0;
}

static int coming_came(void *user, void *tag, int result, const void *sealed, size_t size)
{
    struct coming *coming = user;
    size_t i = (size_t)((int *)tag - coming->came);

    coming->came[i]++;
    coming->result[i] = result;
    coming->n_under_way--;
    if (result)
        return strstr(transfer_why(coming->client->transfer), "block ") ? 0 : -EBADMSG;
    return sink(coming->client, i, sealed, size);
}

/* As a reader does: the end of what may be asked for moves along with what has come. */
static int come_home(struct client *c, struct coming *coming)
{
    const struct transfer_coming how = {.next = coming_next, .came = coming_came, .user = coming};
    struct transfer_stream *stream;
    int errors = 0, r;

    *coming = (struct coming){.client = c};
    assert_int_equal(transfer_stream_new(&how, &stream), 0);
    assert_int_equal(transfer_stream_go(stream, c->transfer, false), 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        coming->end = i + 60 < BLOCKS ? i + 60 : BLOCKS;
        while (!coming->came[i]) {
            r = transfer_stream_go(stream, c->transfer, true);
            assert_true(r == 0 || r == TRANSFER_E_FULL);
            errors += r != 0;
        }
        errors += transfer_stream_go(stream, c->transfer, false) != 0;
    }
    transfer_stream_free(stream);
    return errors;
}

static void a_stream_comes_within_its_window_through_a_broken_link_and_past_what_is_lacking(void **state)
{
    for (int broken = 0; broken < 4; broken++) {
        struct server *s = server_new();
        struct coming coming;
        struct client c;

        (void)state;
        memset(s->stored, true, sizeof(s->stored));
        s->stored[3] = s->stored[95] = false;
        s->blocks[40][0] ^= 1;
        s->forget_once = broken == 1;
        s->restart_after = broken == 2 ? 30 : 0;
        s->busy_once = broken == 3;
        server_start(s);
        client_init(&c, s);
        transfer_free(c.transfer);
        c.config.patience_ns = 240 * NS_PER_S; /* a link that is given up would hide what is lost */
        assert_int_equal(transfer_new(&c.config, &c.transfer), 0);
        assert_int_equal(come_home(&c, &coming), broken == 3);
        for (size_t i = 0; i < BLOCKS; i++) {
            assert_int_equal(coming.came[i], 1);
            assert_int_equal(coming.result[i], i == 3 || i == 95 ? TRANSFER_E_MISSING
                                               : i == 40         ? TRANSFER_E_CORRUPT
                                                                 : 0);
        }
        assert_int_equal(coming.n_under_way, 0);
        assert_true(coming.n_under_way_max > 50);
        const struct transfer_want want = {s->ids[0], BLOCK_BYTES}; /* the link is good for more */
        assert_int_equal(transfer_get(c.transfer, &want, 1, sink, &c), 0);
        server_join(s);
        assert_true(broken || s->pending_bytes_max <= WINDOW);
        client_deinit(&c);
        server_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_go_and_come_within_the_window_and_fill_it),
        cmocka_unit_test(have_tells_what_is_missing_over_many_questions),
        cmocka_unit_test(a_server_that_restarts_in_the_middle_is_asked_again),
        cmocka_unit_test(one_block_wanted_twice_is_got_once_and_given_twice),
        cmocka_unit_test(of_what_is_offered_only_what_is_missing_goes_and_all_of_it_is_done_once),
        cmocka_unit_test(a_stream_comes_within_its_window_through_a_broken_link_and_past_what_is_lacking),
        cmocka_unit_test(every_no_has_a_code_and_words),
        cmocka_unit_test(a_link_is_good_for_another_call_after_one_that_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
