/* gateway_fixture.h - a broker in a process of its own, and peers of every role that speak to it
 * over CURVE; for the unit tests of its edge.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <broker/broker.h>
#include <broker/store/store.h>

enum { PATIENCE_MS = 10000, QUIET_MS = 200 };
enum who { ANN, BOB, OPS, BOX1, BOX2, NOBODY, WHO_COUNT };

static struct {
    char state[64], ready[96], control[128], bulk[128];
    struct link_keypair keys[WHO_COUNT];
    struct link_key server;
    pid_t pid;
    int64_t lease_ns;       /* 0: as usual */
    uint64_t reserve_bytes; /* 0: as usual */
    uint32_t messages_per_s; /* 0: any number: one key stands for many */
    uint32_t slots;   /* of who joins; 0: one */
} broker;

struct peer_link {
    void *context, *socket;
    struct wire_inbox inbox;
    uint64_t request, session;
};

/* ---- the broker ---- */

static inline void broker_start(void)
{
    struct broker_config config = {.state = broker.state,
                                   .control = "tcp://127.0.0.1:*",
                                   .bulk = "tcp://127.0.0.1:*",
                                   .bulk_memory_bytes = 16 << 20,
                                   .vault_threads = 1,
                                   .grace_ns = LIMIT_GRACE_NS,
                                   .lease_ns = broker.lease_ns,
                                   .reserve_bytes = broker.reserve_bytes,
                                   .messages_per_s =
                                       broker.messages_per_s ? broker.messages_per_s : 1000000,
                                   .ready_fd = -1,
                                   .ready_file = broker.ready};
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    _cleanup_(bytes_deinit) struct bytes line = {0};
    char key[64];

    unlink(broker.ready);
    broker.pid = fork();
    assert_true(broker.pid >= 0);
    if (broker.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
        log_level_set(LOG_ERROR);
        if (!freopen("/dev/null", "w", stdout))
            _exit(2);
        _exit(broker_run(&config) == 0 ? 0 : 1);
    }
    while (file_read(broker.ready, 4096, &line) < 0 || line.size == 0) {
        assert_true(clock_monotonic_ns() < until_ns);
        usleep(5000);
    }
    assert_int_equal(bytes_append(&line, "", 1), 0);
    assert_int_equal(
        sscanf((char *)line.data, "ready control=%127s bulk=%127s key=%63s", broker.control,
               broker.bulk, key),
        3);
    assert_int_equal(identity_key_parse(key, &broker.server), 0);
}

static inline int broker_stop(int number)
{
    int status;

    assert_int_equal(kill(broker.pid, number), 0);
    assert_int_equal(waitpid(broker.pid, &status, 0), broker.pid);
    broker.pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void allow(enum who who, enum role role, const char *studio, const char *name)
{
    struct key_row row = {.role = role, .weight = 1};
    _cleanup_(bytes_deinit) struct bytes why = {0};

    memcpy(row.key.bytes, broker.keys[who].public_key.bytes, sizeof row.key.bytes);
    snprintf(row.studio_name, sizeof row.studio_name, "%s", studio);
    snprintf(row.name, sizeof row.name, "%s", name);
    assert_int_equal(store_allow(broker.state, &row, 1, &why), 0);
}

static inline void forbid(enum who who)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct worker_key key;

    memcpy(key.bytes, broker.keys[who].public_key.bytes, sizeof key.bytes);
    assert_int_equal(store_forbid(broker.state, &key, &why), 0);
}

static inline int setup(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};

    (void)state;
    snprintf(broker.state, sizeof broker.state, "/tmp/westlight-gateway-XXXXXX");
    assert_non_null(mkdtemp(broker.state));
    snprintf(broker.ready, sizeof broker.ready, "%s/ready", broker.state);
    for (int i = 0; i < WHO_COUNT; i++)
        assert_int_equal(identity_key_new(&broker.keys[i]), 0);
    allow(ANN, ROLE_STUDIO, "acme", "ann");
    allow(BOB, ROLE_STUDIO, "other", "bob");
    allow(OPS, ROLE_OPERATOR, "", "ops");
    allow(BOX1, ROLE_WORKER, "", "box1");
    allow(BOX2, ROLE_WORKER, "", "box2");
    broker_start();
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    if (broker.pid)
        assert_int_equal(broker_stop(SIGTERM), 0);
    return folder_remove(broker.state);
}

/* ---- peers ---- */

static inline void say(struct peer_link *link, Wl__Envelope *envelope)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    zmq_msg_t message;

    envelope->request = ++link->request;
    assert_int_equal(wire_pack(envelope, &message), 0);
    while (link_send(link->socket, NULL, &message, NULL) != 0) {
        assert_true(clock_monotonic_ns() < until_ns);
        usleep(1000);
    }
}

static inline Wl__Envelope *hear_within(struct peer_link *link, int ms)
{
    int64_t until_ns = clock_monotonic_ns() + ms * NS_PER_MS;

    for (;;) {
        zmq_pollitem_t item = {.socket = link->socket, .events = ZMQ_POLLIN};
        Wl__Envelope *envelope;
        const char *why;
        int r = wire_next(&link->inbox, link->socket, NULL, NULL, &envelope, &why);

        if (r < 0)
            fail_msg("%s (%d)", why, r);
        if (r == 0)
            return envelope;
        if (clock_monotonic_ns() > until_ns)
            return NULL;
        zmq_poll(&item, 1, 20);
    }
}

/* The next message of a kind; others are passed over. */
static inline Wl__Envelope *hear(struct peer_link *link, Wl__Envelope__BodyCase body)
{
    for (;;) {
        Wl__Envelope *envelope = hear_within(link, PATIENCE_MS);

        assert_non_null(envelope);
        if (envelope->body_case == body)
            return envelope;
        if (envelope->body_case == WL__ENVELOPE__BODY_REFUSAL)
            fail_msg("refused: %s: %s", envelope->refusal->what, envelope->refusal->why);
        wire_free(envelope);
    }
}

static inline void hear_refusal(struct peer_link *link, enum code code)
{
    Wl__Envelope *envelope = hear(link, WL__ENVELOPE__BODY_REFUSAL);

    assert_int_equal(envelope->refusal->code, code);
    assert_int_equal(envelope->request, link->request);
    assert_true(envelope->refusal->what[0] && envelope->refusal->why[0] &&
                envelope->refusal->next[0]);
    wire_free(envelope);
}

static inline void connect_as(struct peer_link *link, enum who who)
{
    *link = (struct peer_link){0};
    assert_int_equal(link_context_new(1, &link->context), 0);
    assert_int_equal(link_connect(link->context, LINK_CONTROL, broker.control, &broker.server,
                                  &broker.keys[who], &link->socket),
                     0);
}

static inline void disconnect(struct peer_link *link)
{
    wire_inbox_deinit(&link->inbox);
    link_close(link->socket);
    link_context_free(link->context);
}

#define ENVELOPE(CASE, field, body)                                                                \
    (Wl__Envelope)                                                                                 \
    {                                                                                              \
        PROTOBUF_C_MESSAGE_INIT(&wl__envelope__descriptor), 0, WL__ENVELOPE__BODY_##CASE,          \
        {                                                                                          \
            .field = (body)                                                                        \
        }                                                                                          \
    }

static inline void say_hello(struct peer_link *link, uint32_t protocol)
{
    Wl__Hello hello = WL__HELLO__INIT;

    hello.protocol = protocol;
    hello.program = (char *)"a test";
    say(link, &ENVELOPE(HELLO, hello, &hello));
}

static inline void join_as(struct peer_link *link, enum who who)
{
    connect_as(link, who);
    say_hello(link, WIRE_PROTOCOL);
    wire_free(hear(link, WL__ENVELOPE__BODY_WELCOME));
}

static inline void say_worker_hello(struct peer_link *link, uint64_t session, uint8_t boot_number)
{
    uint8_t boot[16] = {boot_number};
    Wl__Amount vcpu = WL__AMOUNT__INIT, *amounts[] = {&vcpu};
    Wl__Attribute povray = WL__ATTRIBUTE__INIT, os = WL__ATTRIBUTE__INIT,
                  *attributes[] = {&os, &povray};
    char *versions[] = {(char *)"3.7", (char *)(boot_number == 1 ? "3.8" : "3.9")};
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;

    vcpu.name = (char *)"amount.worker.vcpu";
    vcpu.min = 3 + (double)session; /* so that two may differ */
    offer.slots = broker.slots ? broker.slots : 1;
    offer.amounts = amounts;
    offer.n_amounts = 1;
    os.name = (char *)"attr.worker.os.family";
    povray.name = (char *)"attr.software.povray";
    os.any_of = povray.any_of = versions;
    os.n_any_of = povray.n_any_of = 2;
    offer.attributes = attributes;
    offer.n_attributes = 2;
    hello.protocol = WIRE_PROTOCOL;
    hello.session = link->session = session;
    hello.boot = (ProtobufCBinaryData){sizeof boot, boot};
    hello.offer = &offer;
    say(link, &ENVELOPE(HELLO, hello, &hello));
}

static inline void worker_list(struct peer_link *link, uint64_t session)
{
    Wl__Inventory inventory = WL__INVENTORY__INIT;

    say_worker_hello(link, session, 1);
    wire_free(hear(link, WL__ENVELOPE__BODY_WELCOME));
    inventory.session = session;
    inventory.last = true;
    say(link, &ENVELOPE(INVENTORY, inventory, &inventory));
    wire_free(hear(link, WL__ENVELOPE__BODY_VERDICT));
}

static inline void worker_join(struct peer_link *link, enum who who, uint64_t session)
{
    connect_as(link, who);
    worker_list(link, session);
}

/* ---- what they say ---- */

/* Two steps of `n` frames, the second frame by frame after the first. */
static inline void say_submit(struct peer_link *link, uint32_t request, uint32_t job, int64_t n)
{
    uint8_t request_id[16] = {(uint8_t)request, (uint8_t)(request >> 8)};
    uint8_t job_id[16] = {(uint8_t)job, (uint8_t)(job >> 8)}, key[32] = {7}, block[32] = {1};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__SpaceParameter frames = WL__SPACE_PARAMETER__INIT, *space[] = {&frames};
    Wl__Dependency dependency = WL__DEPENDENCY__INIT, *dependencies[] = {&dependency};
    Wl__Step first = WL__STEP__INIT, second = WL__STEP__INIT, *steps[] = {&first, &second};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Submit submit = WL__SUBMIT__INIT;

    range.first = range.step = 1;
    range.last = n;
    frames.name = (char *)"Frame";
    frames.ranges = ranges;
    frames.n_ranges = 1;
    dependency.per = 1;
    first.name = (char *)"beauty";
    second.name = (char *)"comp";
    first.space = second.space = space;
    first.n_space = second.n_space = 1;
    second.dependencies = dependencies;
    second.n_dependencies = 1;
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, block};
    submit.request_id = (ProtobufCBinaryData){16, request_id};
    submit.job = (ProtobufCBinaryData){16, job_id};
    submit.job_key = (ProtobufCBinaryData){32, key};
    submit.name = (char *)"shot";
    submit.recipe = &recipe;
    submit.steps = steps;
    submit.n_steps = 2;
    say(link, &ENVELOPE(SUBMIT, submit, &submit));
}

static inline uint64_t submit(struct peer_link *link, uint8_t request, uint8_t job, int64_t n)
{
    say_submit(link, request, job, n);
    Wl__Envelope *accepted = hear(link, WL__ENVELOPE__BODY_ACCEPTED);
    uint64_t sequence = accepted->accepted->sequence;

    wire_free(accepted);
    return sequence;
}

static inline void say_show(struct peer_link *link, uint8_t job)
{
    uint8_t id[16] = {job};
    Wl__ShowRequest show = WL__SHOW_REQUEST__INIT;

    show.job = (ProtobufCBinaryData){16, id};
    say(link, &ENVELOPE(SHOW_REQUEST, show_request, &show));
}

static inline uint64_t done_of(struct peer_link *link, uint8_t job)
{
    say_show(link, job);
    Wl__Envelope *show = hear(link, WL__ENVELOPE__BODY_SHOW);
    uint64_t done = show->show->row->done;

    wire_free(show);
    return done;
}

static inline void say_result(struct peer_link *link, const Wl__Assign *assign, bool forged)
{
    uint8_t block[32] = {3}, ticket[32];
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests = &manifest;
    Wl__Result result = WL__RESULT__INIT;

    memcpy(ticket, assign->ticket.data, sizeof ticket);
    ticket[31] ^= forged;
    manifest.id = manifest.wrapped_key = manifest.inline_sealed = (ProtobufCBinaryData){32, block};
    result.session = link->session;
    result.lease = assign->lease;
    result.ticket = (ProtobufCBinaryData){sizeof ticket, ticket};
    result.manifest = &manifests;
    result.n_manifest = 1;
    say(link, &ENVELOPE(RESULT, result, &result));
}

static inline void hear_committed(struct peer_link *link, enum code code)
{
    Wl__Envelope *committed = hear(link, WL__ENVELOPE__BODY_COMMITTED);

    assert_int_equal(committed->committed->code, code);
    wire_free(committed);
}
