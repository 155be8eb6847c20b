/* hostile.c - peers that are not what they should be. Each mode says on standard output what it got;
 * it ends with 0 where it got what it deserves.
 *
 *   hostile null ENDPOINT                          no CURVE at all, on a broker's port
 *   hostile zap-stopped                            a right key, where nobody answers for keys
 *   hostile tickets ENDPOINT SERVER-KEY KEY1 KEY2  two workers' keys; results that are not theirs
 *   hostile strangers ENDPOINT SERVER-KEY N        so many keys that nobody knows, some at a time
 *
 * With the key of a worker (or, of a studio: lists, submits); FOR is seconds:
 *   hostile deaf ENDPOINT SERVER-KEY KEY FOR       has room for 16,640 tasks, beats, and reads nothing
 *   hostile forger ENDPOINT SERVER-KEY KEY FOR     results with forged tickets, as fast as they go
 *   hostile lists ENDPOINT SERVER-KEY KEY FOR      asks for lists, and reads nothing
 *   hostile submits ENDPOINT SERVER-KEY KEY FOR    submits, and reads nothing
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
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

static void reach(struct worker *worker, char **argv)
{
    struct link_keypair keys;
    struct link_key server;

    REQUIRE(identity_key_parse(argv[1], &server) == 0);
    REQUIRE(identity_key_load(argv[2], &keys) == 0);
    REQUIRE(link_context_new(1, &worker->context) == 0);
    REQUIRE(link_connect(worker->context, LINK_CONTROL, argv[0], &server, &keys, &worker->socket) == 0);
}

static void leave(struct worker *worker)
{
    wire_inbox_deinit(&worker->inbox);
    link_close(worker->socket);
    link_context_free(worker->context);
}

/* What it has: nothing. Only then it is leased anything. */
static void list(struct worker *worker)
{
    Wl__Inventory inventory = WL__INVENTORY__INIT;

    inventory.session = worker->session;
    inventory.last = true;
    say(worker, &ENVELOPE(INVENTORY, inventory, &inventory));
    wire_free(hear(worker, WL__ENVELOPE__BODY_VERDICT));
}

static void greet(struct worker *worker, uint32_t slots)
{
    uint8_t boot[16] = {9};
    Wl__Amount vcpu = WL__AMOUNT__INIT, *amounts[] = {&vcpu};
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;

    vcpu.name = (char *)"amount.worker.vcpu";
    vcpu.min = 4 * slots;
    offer.name = (char *)"a liar";
    offer.slots = slots;
    offer.prefetch = slots > 1 ? LIMIT_PREFETCH : 0;
    offer.amounts = amounts;
    offer.n_amounts = 1;
    hello.protocol = WIRE_PROTOCOL;
    hello.session = worker->session = 1;
    hello.boot = (ProtobufCBinaryData){sizeof(boot), boot};
    hello.offer = &offer;
    say(worker, &ENVELOPE(HELLO, hello, &hello));
    wire_free(hear(worker, WL__ENVELOPE__BODY_WELCOME));
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

    reach(&one, (char *[]){argv[0], argv[1], argv[2]});
    greet(&one, 1);
    list(&one);
    Wl__Envelope *assign = hear(&one, WL__ENVELOPE__BODY_ASSIGN);

    reach(&other, (char *[]){argv[0], argv[1], argv[3]});
    greet(&other, 1);
    list(&other);
    printf("forged: %s\n", code_name(result_code(&one, assign->assign, 1)));
    printf("foreign: %s\n", code_name(result_code(&other, assign->assign, 0)));
    fflush(stdout);
    getchar(); /* until the test has looked */
    printf("own: %s\n", code_name(result_code(&one, assign->assign, 0)));
    wire_free(assign);
    leave(&one);
    leave(&other);
    return 0;
}

/* ---- unknown keys ---- */

enum { AT_ONCE = 32 };

struct stranger {
    void *socket, *monitor;
};

static void stranger_new(struct stranger *stranger, void *context, const char *endpoint, const struct link_key *server)
{
    struct link_keypair keys;

    REQUIRE(identity_key_new(&keys) == 0);
    REQUIRE(link_connect(context, LINK_CONTROL, endpoint, server, &keys, &stranger->socket) == 0);
    REQUIRE(link_monitor(context, stranger->socket, &stranger->monitor) == 0);
}

static void stranger_free(struct stranger *stranger)
{
    link_close(stranger->monitor);
    link_close(stranger->socket);
    *stranger = (struct stranger){0};
}

static int strangers(char **argv)
{
    struct stranger all[AT_ONCE] = {{0}};
    size_t wanted = strtoul(argv[2], NULL, 10), begun = 0, refused = 0;
    struct link_key server;
    void *context;

    REQUIRE(identity_key_parse(argv[1], &server) == 0);
    REQUIRE(link_context_new(1, &context) == 0);
    while (refused < wanted) {
        for (size_t i = 0; i < AT_ONCE; i++) {
            enum link_status status = LINK_DOWN;

            if (!all[i].socket && begun < wanted) {
                stranger_new(&all[i], context, argv[0], &server);
                begun++;
            }
            if (!all[i].socket || link_monitor_read(all[i].monitor, &status) != 1 || status == LINK_DOWN)
                continue;
            REQUIRE(status == LINK_REFUSED);
            stranger_free(&all[i]);
            refused++;
        }
        zmq_poll(NULL, 0, 1);
    }
    printf("refused %zu\n", refused);
    link_context_free(context);
    return 0;
}

/* ---- with a key ---- */

static int64_t end_ns(const char *seconds)
{
    return clock_monotonic_ns() + (int64_t)(strtod(seconds, NULL) * NS_PER_S);
}

static void beat(struct worker *worker)
{
    Wl__Beat message = WL__BEAT__INIT;

    message.session = worker->session;
    say(worker, &ENVELOPE(BEAT, beat, &message));
}

static int deaf(char **argv)
{
    struct worker worker = {0};
    int64_t until_ns = end_ns(argv[3]);

    reach(&worker, argv);
    greet(&worker, LIMIT_SLOTS);
    printf("in\n");
    fflush(stdout);
    getchar(); /* until the test has put it into a pool */
    list(&worker);
    while (clock_monotonic_ns() < until_ns) {
        beat(&worker);
        zmq_poll(NULL, 0, 1000);
    }
    leave(&worker);
    return 0;
}

/* ---- floods ---- */

static void flood_result(struct wire_packet *packet, struct worker *worker)
{
    uint8_t job[16] = {7}, block[32] = {3}, ticket[32] = {5};
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests = &manifest;
    Wl__Lease lease = WL__LEASE__INIT;
    Wl__Result result = WL__RESULT__INIT;

    lease.job = (ProtobufCBinaryData){sizeof(job), job};
    lease.epoch = 1;
    lease.attempt = ++worker->request;
    manifest.id = manifest.wrapped_key = manifest.inline_sealed = (ProtobufCBinaryData){sizeof(block), block};
    result.session = worker->session;
    result.lease = &lease;
    result.ticket = (ProtobufCBinaryData){sizeof(ticket), ticket};
    result.manifest = &manifests;
    result.n_manifest = 1;
    while (wire_packet_add(packet, &ENVELOPE(RESULT, result, &result)) == 0 && packet->n < LIMIT_PACKET)
        lease.attempt = ++worker->request;
}

static void flood_list(struct wire_packet *packet, struct worker *worker)
{
    Wl__JobsRequest wanted = WL__JOBS_REQUEST__INIT;
    Wl__Envelope envelope = ENVELOPE(JOBS_REQUEST, jobs_request, &wanted);

    wanted.limit = LIMIT_PAGE;
    wanted.all = true;
    envelope.request = ++worker->request;
    REQUIRE(wire_packet_add(packet, &envelope) == 0);
}

/* Of work that nobody has room for. */
static void flood_submit(struct wire_packet *packet, struct worker *worker)
{
    uint8_t id[16] = {1}, block[32] = {3};
    char *nowhere[] = {(char *)"nowhere"};
    Wl__Attribute pool = WL__ATTRIBUTE__INIT, *attributes[] = {&pool};
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Submit submit = WL__SUBMIT__INIT;
    Wl__Envelope envelope = ENVELOPE(SUBMIT, submit, &submit);

    envelope.request = ++worker->request;
    memcpy(id + 8, &worker->request, 8);
    pool.name = (char *)"attr.worker.pool";
    pool.any_of = nowhere;
    pool.n_any_of = 1;
    step.name = (char *)"render";
    step.attributes = attributes;
    step.n_attributes = 1;
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){sizeof(block), block};
    recipe.sealed_bytes = sizeof(block);
    submit.request_id = submit.job = (ProtobufCBinaryData){sizeof(id), id};
    submit.name = (char *)"flood";
    submit.person = (char *)"mallory";
    submit.steps = steps;
    submit.n_steps = 1;
    submit.job_key = (ProtobufCBinaryData){sizeof(block), block};
    submit.recipe = &recipe;
    REQUIRE(wire_packet_add(packet, &envelope) == 0);
}

typedef void flood_make(struct wire_packet *packet, struct worker *worker);

static void greet_studio(struct worker *worker)
{
    Wl__Hello hello = WL__HELLO__INIT;

    hello.protocol = WIRE_PROTOCOL;
    say(worker, &ENVELOPE(HELLO, hello, &hello));
}

/* Nothing is read. It says Hello anew now and then, should the broker have forgotten it. */
static int flood(char **argv, flood_make *make, bool studio)
{
    int64_t until_ns = end_ns(argv[3]), hello_ns = 0;
    struct worker worker = {0};
    struct wire_packet packet = {0};
    unsigned long sent = 0;

    reach(&worker, argv);
    if (!studio)
        greet(&worker, 1);
    for (int64_t now_ns; (now_ns = clock_monotonic_ns()) < until_ns;) {
        zmq_msg_t message;

        if (studio && now_ns - hello_ns > NS_PER_S) {
            greet_studio(&worker);
            hello_ns = now_ns;
        }
        make(&packet, &worker);
        sent += packet.n;
        REQUIRE(wire_packet_message(&packet, &message) == 0);
        while (link_send(worker.socket, NULL, &message, NULL) != 0 && clock_monotonic_ns() < until_ns)
            zmq_poll(NULL, 0, 1);
    }
    printf("sent %lu\n", sent);
    wire_packet_deinit(&packet);
    fflush(stdout);
    _exit(0); /* what waits stays here */
}

static int with_key(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    if (strcmp(argv[1], "deaf") == 0)
        return deaf(argv + 2);
    if (strcmp(argv[1], "forger") == 0)
        return flood(argv + 2, flood_result, false);
    if (strcmp(argv[1], "lists") == 0)
        return flood(argv + 2, flood_list, true);
    return strcmp(argv[1], "submits") == 0 ? flood(argv + 2, flood_submit, true) : 2;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "null") == 0)
        return null_peer(argv[2]);
    if (argc == 2 && strcmp(argv[1], "zap-stopped") == 0)
        return zap_stopped();
    if (argc == 6 && strcmp(argv[1], "tickets") == 0)
        return tickets(argv + 2);
    if (argc == 5 && strcmp(argv[1], "strangers") == 0)
        return strangers(argv + 2);
    int r = with_key(argc, argv);

    if (r == 2)
        fprintf(stderr, "usage: at the head of hostile.c\n");
    return r;
}
