/* hostile.c - peers that are not what they should be. Each mode says on standard output what it got;
 * it ends with 0 where it got what it deserves.
 *
 *   hostile null ENDPOINT                          no CURVE at all, on a broker's port
 *   hostile zap-stopped                            a right key, where nobody answers for keys
 *   hostile tickets ENDPOINT SERVER-KEY KEY1 KEY2  two workers' keys; results that are not theirs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/state.h>
#include <proto/wire.h>

enum { PATIENCE_MS = 30000, QUIET_MS = 1500 };

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("hostile: line %d: not so: %s\n", __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ---- no CURVE ---- */

static int null_peer(const char *endpoint)
{
    static const char hello[] = "let me in";
    int linger_ms = 0, wait_ms = QUIET_MS;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    char answer[256];

    REQUIRE(zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)) == 0);
    REQUIRE(zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms)) == 0);
    REQUIRE(zmq_setsockopt(socket, ZMQ_SNDTIMEO, &wait_ms, sizeof(wait_ms)) == 0);
    REQUIRE(zmq_connect(socket, endpoint) == 0);
    /* Kept for the time after the handshake; or refused already, where that has failed by now. */
    REQUIRE(zmq_send(socket, hello, sizeof(hello), 0) >= 0 || zmq_errno() == EAGAIN);
    REQUIRE(zmq_recv(socket, answer, sizeof(answer), 0) < 0 && zmq_errno() == EAGAIN);
    printf("nothing\n");
    zmq_close(socket);
    zmq_ctx_term(context);
    return 0;
}

/* ---- nobody answers for keys ---- */

static int allow_all(void *user, const struct link_key *key)
{
    return 0;
}

/* How a new connection with the friend's key ends within `ms`. */
static enum link_status connect_status(void *context, const char *endpoint, const struct link_key *server,
                                       const struct link_keypair *keys, int ms)
{
    int64_t until_ns = clock_monotonic_ns() + ms * NS_PER_MS;
    enum link_status status = LINK_DOWN;
    void *socket, *monitor;

    REQUIRE(link_connect(context, LINK_CONTROL, endpoint, server, keys, &socket) == 0);
    REQUIRE(link_monitor(context, socket, &monitor) == 0);
    while (status != LINK_UP && clock_monotonic_ns() < until_ns) {
        zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};

        zmq_poll(&item, 1, 50);
        link_monitor_read(monitor, &status);
    }
    link_close(monitor);
    link_close(socket);
    return status;
}

static int zap_stopped(void)
{
    struct link_keypair server, friend_;
    void *context, *peer, *listener;
    struct link_zap *zap;
    char endpoint[128];

    REQUIRE(identity_key_new(&server) == 0 && identity_key_new(&friend_) == 0);
    REQUIRE(link_context_new(1, &context) == 0 && link_context_new(1, &peer) == 0);
    REQUIRE(link_zap_new(context, allow_all, NULL, &zap) == 0);
    REQUIRE(link_listen(context, LINK_CONTROL, "tcp://127.0.0.1:*", &server, &listener, endpoint) == 0);
    REQUIRE(connect_status(peer, endpoint, &server.public_key, &friend_, PATIENCE_MS) == LINK_UP);
    link_zap_free(zap);
    REQUIRE(connect_status(peer, endpoint, &server.public_key, &friend_, QUIET_MS) != LINK_UP);
    printf("refused\n");
    link_close(listener);
    link_context_free(peer);
    link_context_free(context);
    return 0;
}

/* ---- tickets ---- */

struct worker {
    void *context, *socket;
    struct wire_inbox inbox;
    uint64_t session, request;
};

#define ENVELOPE(CASE, field, body)                                                                \
    (Wl__Envelope)                                                                                 \
    {                                                                                              \
        PROTOBUF_C_MESSAGE_INIT(&wl__envelope__descriptor), 0, WL__ENVELOPE__BODY_##CASE,          \
        {                                                                                          \
            .field = (body)                                                                        \
        }                                                                                          \
    }

static void say(struct worker *worker, Wl__Envelope *envelope)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    zmq_msg_t message;

    envelope->request = ++worker->request;
    REQUIRE(wire_pack(envelope, &message) == 0);
    while (link_send(worker->socket, NULL, &message, NULL) != 0) {
        REQUIRE(clock_monotonic_ns() < until_ns);
        zmq_poll(NULL, 0, 5);
    }
}

/* The next message of this kind. */
static Wl__Envelope *hear(struct worker *worker, Wl__Envelope__BodyCase body)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;

    for (;;) {
        zmq_pollitem_t item = {.socket = worker->socket, .events = ZMQ_POLLIN};
        Wl__Envelope *envelope;
        const char *why;

        if (wire_next(&worker->inbox, worker->socket, NULL, NULL, &envelope, &why) == 0) {
            if (envelope->body_case == body)
                return envelope;
            wire_free(envelope);
            continue;
        }
        REQUIRE(clock_monotonic_ns() < until_ns);
        zmq_poll(&item, 1, 20);
    }
}

static void join(struct worker *worker, const char *endpoint, const char *server_key, const char *key_file)
{
    uint8_t boot[16] = {9};
    Wl__Amount vcpu = WL__AMOUNT__INIT, *amounts[] = {&vcpu};
    Wl__Inventory inventory = WL__INVENTORY__INIT;
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;
    struct link_keypair keys;
    struct link_key server;

    REQUIRE(identity_key_parse(server_key, &server) == 0);
    REQUIRE(identity_key_load(key_file, &keys) == 0);
    REQUIRE(link_context_new(1, &worker->context) == 0);
    REQUIRE(link_connect(worker->context, LINK_CONTROL, endpoint, &server, &keys, &worker->socket) == 0);

    vcpu.name = (char *)"amount.worker.vcpu";
    vcpu.min = 4;
    offer.name = (char *)"a liar";
    offer.slots = 1;
    offer.amounts = amounts;
    offer.n_amounts = 1;
    hello.protocol = WIRE_PROTOCOL;
    hello.session = worker->session = 1;
    hello.boot = (ProtobufCBinaryData){sizeof(boot), boot};
    hello.offer = &offer;
    say(worker, &ENVELOPE(HELLO, hello, &hello));
    wire_free(hear(worker, WL__ENVELOPE__BODY_WELCOME));
    inventory.session = worker->session;
    inventory.last = true;
    say(worker, &ENVELOPE(INVENTORY, inventory, &inventory));
    wire_free(hear(worker, WL__ENVELOPE__BODY_VERDICT));
}

static uint32_t result_code(struct worker *worker, const Wl__Assign *assign, int flip)
{
    uint8_t block[32] = {3}, ticket[32];
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests = &manifest;
    Wl__Result result = WL__RESULT__INIT;

    REQUIRE(assign->ticket.len == sizeof(ticket));
    memcpy(ticket, assign->ticket.data, sizeof(ticket));
    ticket[7] ^= (uint8_t)flip;
    manifest.id = manifest.wrapped_key = manifest.inline_sealed = (ProtobufCBinaryData){sizeof(block), block};
    result.session = worker->session;
    result.lease = assign->lease;
    result.ticket = (ProtobufCBinaryData){sizeof(ticket), ticket};
    result.manifest = &manifests;
    result.n_manifest = 1;
    say(worker, &ENVELOPE(RESULT, result, &result));

    Wl__Envelope *committed = hear(worker, WL__ENVELOPE__BODY_COMMITTED);
    uint32_t code = committed->committed->code;

    wire_free(committed);
    return code;
}

static int tickets(char **argv)
{
    struct worker one = {0}, other = {0};

    join(&one, argv[0], argv[1], argv[2]);
    Wl__Envelope *assign = hear(&one, WL__ENVELOPE__BODY_ASSIGN);

    join(&other, argv[0], argv[1], argv[3]);
    printf("forged: %s\n", code_name(result_code(&one, assign->assign, 1)));
    printf("foreign: %s\n", code_name(result_code(&other, assign->assign, 0)));
    fflush(stdout);
    getchar(); /* until the test has looked */
    printf("own: %s\n", code_name(result_code(&one, assign->assign, 0)));
    wire_free(assign);
    wire_inbox_deinit(&one.inbox);
    link_close(one.socket);
    wire_inbox_deinit(&other.inbox);
    link_close(other.socket);
    link_context_free(one.context);
    link_context_free(other.context);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "null") == 0)
        return null_peer(argv[2]);
    if (argc == 2 && strcmp(argv[1], "zap-stopped") == 0)
        return zap_stopped();
    if (argc == 6 && strcmp(argv[1], "tickets") == 0)
        return tickets(argv + 2);
    fprintf(stderr, "usage: hostile null|zap-stopped|tickets ...\n");
    return 2;
}
