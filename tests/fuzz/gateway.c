/* gateway.c - whole messages of every role, through a real gateway over a real core.
 *
 * An input is a run of parts: one with bytes is a message of the sender of that number, one with a
 * number lets so many milliseconds pass. Each input begins on a farm of its own, where a job's
 * first tasks are leased, so that leases, tickets and attempts are the same every time and an input
 * may name them. The registry, the vault and the reading thread are real, and outlive inputs; the
 * links are this file; the store is its seam, which says at once that all is durable.
 *
 * Holds:   the core's audit; whatever the broker says is a message that its peer can read; whatever
 * it stores is what a broker that is started later can read, and makes the same of.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <broker/gateway.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include "fuzz.h"
#include "gateway.h"

enum { SAID_MAX = 64, MESSAGES_MAX = 1024, TIME_MS_MAX = 100000, WAIT_MS = 10000, EVERY = 10000 };
#define WALL_S 1700000000

/* What outlives an input. */
static struct {
    const char *state;
    char vault_path[80];
    struct identity_signer signer;
    struct link_key keys[WHO_END];
    struct store_reader *registry;
    struct query *query;
    struct vault *vault;
    struct vault_port *port;
    struct block_id block, refs; /* what lies in the vault */
    uint64_t runs;
} world;

static struct {
    struct core *core;
    struct journal *journal;
    struct gateway gateway;
    int64_t now_ns;
    uint64_t batch;
    size_t n_asked; /* of the reading thread */
    unsigned from;  /* whose message is at hand; 0: none */
    const uint8_t *data;
    size_t size;
    Wl__Envelope *assign; /* the first that was said */
    struct core *again;   /* what a broker makes of what was stored */
    struct gateway recovered;
} farm;

/* ---- in the place of links, store and exit ---- */

int __real_query_submit(struct query *query, struct query_request *request);
struct query_request *__real_query_completed(struct query *query);
int __wrap_query_submit(struct query *query, struct query_request *request);
struct query_request *__wrap_query_completed(struct query *query);
int __wrap_link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                        zmq_msg_t *ret_header, zmq_msg_t *ret_data);
int __wrap_link_send(void *socket, const struct link_route *route, zmq_msg_t *header,
                     zmq_msg_t *data);
int __wrap_store_submit(struct store *store, uint64_t batch, const struct record *records,
                        size_t n_records);
int __wrap_store_completed(struct store *store, uint64_t *ret_batch);
_noreturn_ void __wrap__exit(int code);

int __wrap_query_submit(struct query *query, struct query_request *request)
{
    int r = __real_query_submit(query, request);

    farm.n_asked += r == 0;
    return r;
}

struct query_request *__wrap_query_completed(struct query *query)
{
    struct query_request *request = __real_query_completed(query);

    farm.n_asked -= request != NULL;
    return request;
}

static void give_back(void *data, void *hint)
{
    (void)hint;
    free(data);
}

int __wrap_link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                        zmq_msg_t *ret_header, zmq_msg_t *ret_data)
{
    (void)socket;
    CHECK(!ret_data);
    if (!farm.from)
        return LINK_E_AGAIN;
    *ret_key = world.keys[farm.from];
    *ret_route = (struct link_route){.bytes = {(uint8_t)farm.from}, .size = 5};
    CHECK(zmq_msg_init_data(ret_header, fuzz_copy(farm.data, farm.size), farm.size, give_back,
                            NULL) == 0);
    farm.from = 0;
    return 0;
}

static void hear(const void *data, size_t size)
{
    Wl__Envelope *envelope;
    const char *why;
    int r = wire_unpack(data, size, &envelope, &why);

    /* One more of a packet's job has neither recipe nor key, which wire_next puts in. */
    if (r != 0 && strstr(why, "Assign"))
        return;
    if (r != 0)
        fprintf(stderr, "the broker said what nobody can read: %s\n", why);
    CHECK(r == 0);
    if (envelope->body_case == WL__ENVELOPE__BODY_ASSIGN && !farm.assign)
        farm.assign = TAKE_PTR(envelope);
    if (envelope)
        wire_free(envelope);
}

int __wrap_link_send(void *socket, const struct link_route *route, zmq_msg_t *header,
                     zmq_msg_t *data)
{
    struct wire_each each;
    const void *at;
    size_t size;
    int r;

    (void)socket;
    CHECK(route->size == 5 && !data);
    wire_each_init(&each, zmq_msg_data(header), zmq_msg_size(header));
    while ((r = wire_each_next(&each, &at, &size)) == 0)
        hear(at, size);
    CHECK(r == WIRE_E_END);
    zmq_msg_close(header);
    return 0;
}

int __wrap_store_submit(struct store *store, uint64_t batch, const struct record *records,
                        size_t n_records)
{
    (void)store;
    CHECK(records && n_records > 0);
    for (size_t i = 0; i < n_records; i++)
        CHECK(gateway_recover(&farm.recovered, &records[i]) == 0);
    farm.batch = batch;
    return 0;
}

int __wrap_store_completed(struct store *store, uint64_t *ret_batch)
{
    (void)store;
    *ret_batch = farm.batch;
    return 0;
}

/* The broker gives up in good order; for a peer's bytes it must not. */
_noreturn_ void __wrap__exit(int code)
{
    fprintf(stderr, "the broker ended with %d\n", code);
    abort();
}

/* ---- the world ---- */

static void wait_for(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int n;

    do
        n = poll(&wait, 1, WAIT_MS);
    while (n < 0 && errno == EINTR);
    CHECK(n == 1);
}

static void allow(unsigned who, enum role role, const char *studio, const char *name)
{
    struct key_row row = {.role = role, .weight = 1};
    struct bytes why = {0};

    memset(world.keys[who].bytes, (int)who, sizeof(world.keys[who].bytes));
    memcpy(row.key.bytes, world.keys[who].bytes, sizeof(row.key.bytes));
    snprintf(row.studio_name, sizeof(row.studio_name), "%s", studio);
    snprintf(row.name, sizeof(row.name), "%s", name);
    CHECK(store_allow(world.state, &row, 1, &why) == 0);
    bytes_deinit(&why);
}

static void vault_close_all(void)
{
    vault_close(world.vault);
    vault_port_free(world.port);
}

static void vault_put(const void *data, size_t size, bool plain, struct block_id *ret_id)
{
    struct vault_request request = {.kind = VAULT_PUT,
                                    .studio = {1},
                                    .port = world.port,
                                    .n_ids = 1,
                                    .plain = plain,
                                    .size = size};
    struct vault_request *done;

    digest(data, size, ret_id);
    request.ids = ret_id;
    request.data = vault_buffer(size);
    CHECK(request.data);
    memcpy(request.data, data, size);
    vault_submit(world.vault, &request);
    while (!(done = vault_completed(world.port)))
        wait_for(vault_port_fd(world.port));
    CHECK(done == &request && request.result == 0);
}

/* With a block that a job may refer to. */
static void vault_open_new(void)
{
    static const uint8_t block[64] = {1};
    struct bytes refs[LIMIT_REFS_BLOCKS];
    struct block_id names[LIMIT_REFS_BLOCKS];
    size_t n = 0;

    CHECK(vault_open(world.vault_path, 1, &world.vault) == 0);
    CHECK(vault_port_new(world.vault, &world.port) == 0);
    vault_put(block, sizeof(block), false, &world.block);
    CHECK(refs_pack(&world.block, 1, refs, names, &n) == 0 && n == 1);
    vault_put(refs[0].data, refs[0].size, true, &world.refs);
    bytes_deinit(&refs[0]);
}

static void world_end(void)
{
    query_free(world.query);
    store_reader_free(world.registry);
    vault_close_all();
}

static void world_begin(void)
{
    static const uint8_t master[32] = {1};

    log_level_set(LOG_ERROR);
    world.state = fuzz_folder();
    snprintf(world.vault_path, sizeof(world.vault_path), "%s/vault", world.state);
    identity_signer_init(&world.signer, master);
    allow(ANN, ROLE_STUDIO, "acme", "ann");
    allow(BOB, ROLE_STUDIO, "other", "bob");
    allow(OPS, ROLE_OPERATOR, "", "ops");
    allow(BOX1, ROLE_WORKER, "", "box1");
    allow(BOX2, ROLE_WORKER, "", "box2");
    memset(world.keys[STRANGER].bytes, STRANGER, sizeof(world.keys[STRANGER].bytes));
    CHECK(folder_make(world.vault_path, 0700) == 0);
    CHECK(store_reader_new(world.state, &world.registry) == 0);
    CHECK(query_new(world.state, &world.query) == 0);
    vault_open_new();
    atexit(world_end);
}

/* ---- a farm for one input ---- */

/* As the broker's loop, once around. */
static void turn(int64_t passed_ns)
{
    struct gateway *gateway = &farm.gateway;

    farm.now_ns += passed_ns;
    CHECK(journal_completed(farm.journal) == 0);
    gateway->now_ns = farm.now_ns;
    gateway->wall_s = WALL_S + farm.now_ns / NS_PER_S;
    gateway_disk(gateway, false);
    gateway_quotas(gateway);
    gateway_pinned(gateway);
    gateway_answered(gateway);
    gateway_forgotten(gateway);
    gateway_receive(gateway, MESSAGES_MAX);
    for (int i = 0; i < MESSAGES_MAX && !list_empty(&gateway->turns); i++)
        gateway_turns(gateway);
    gateway_tick(gateway);
    gateway_flush(gateway);
    CHECK(journal_submit(farm.journal) == 0);
}

/* Until nobody else has anything to say of it. */
static void settle(int64_t passed_ns)
{
    turn(passed_ns);
    for (;;) {
        if (farm.n_asked)
            wait_for(query_fd(world.query));
        else if (farm.gateway.n_pins)
            wait_for(vault_port_fd(world.port));
        else if (journal_idle(farm.journal))
            return;
        turn(0);
    }
}

static void say(unsigned who, const void *data, size_t size)
{
    farm.from = who;
    farm.data = data;
    farm.size = size;
    settle(NS_PER_MS);
}

static void say_envelope(unsigned who, Wl__Envelope__BodyCase body, void *message)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    uint8_t packed[4096];
    size_t size;

    envelope.request = 1;
    envelope.body_case = body;
    envelope.hello = message; /* the union's members are all pointers */
    size = wl__envelope__get_packed_size(&envelope);
    CHECK(size <= sizeof(packed));
    wl__envelope__pack(&envelope, packed);
    say(who, packed, size);
}

static void greet(void)
{
    uint8_t boot[16] = {1};
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;
    Wl__Amount vcpu = WL__AMOUNT__INIT, *amounts[] = {&vcpu};
    Wl__Inventory inventory = WL__INVENTORY__INIT;

    hello.protocol = WIRE_PROTOCOL;
    say_envelope(ANN, WL__ENVELOPE__BODY_HELLO, &hello);
    say_envelope(BOB, WL__ENVELOPE__BODY_HELLO, &hello);
    say_envelope(OPS, WL__ENVELOPE__BODY_HELLO, &hello);
    vcpu.name = (char *)"amount.worker.vcpu";
    vcpu.min = 4;
    offer.slots = 2;
    offer.prefetch = 1;
    offer.amounts = amounts;
    offer.n_amounts = 1;
    hello.session = inventory.session = 1;
    hello.boot = (ProtobufCBinaryData){sizeof(boot), boot};
    hello.offer = &offer;
    inventory.last = true;
    say_envelope(BOX1, WL__ENVELOPE__BODY_HELLO, &hello);
    say_envelope(BOX1, WL__ENVELOPE__BODY_INVENTORY, &inventory);
}

/* The job that schema.c's messages name: two steps of frames, the second after the first. */
static void submit(void)
{
    uint8_t request_id[16] = {9}, job[16], block[32] = {1};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__SpaceParameter frames = WL__SPACE_PARAMETER__INIT, *space[] = {&frames};
    Wl__Dependency dependency = WL__DEPENDENCY__INIT, *dependencies[] = {&dependency};
    Wl__Step first = WL__STEP__INIT, second = WL__STEP__INIT, *steps[] = {&first, &second};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Submit submission = WL__SUBMIT__INIT;

    memset(job, 1, sizeof(job));
    range.first = range.step = 1;
    range.last = 6;
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
    submission.request_id = (ProtobufCBinaryData){16, request_id};
    submission.job = (ProtobufCBinaryData){16, job};
    submission.job_key = (ProtobufCBinaryData){32, block};
    submission.name = (char *)"shot";
    submission.recipe = &recipe;
    submission.steps = steps;
    submission.n_steps = 2;
    say_envelope(ANN, WL__ENVELOPE__BODY_SUBMIT, &submission);
}

static void farm_begin(void)
{
    static struct store *const nowhere = (struct store *)&world;
    struct core_config core = {.epoch = 1, .seed = 1};
    struct gateway_config config = {.vault = world.vault,
                                    .port = world.port,
                                    .query = world.query,
                                    .registry = world.registry,
                                    .messages_per_s = UINT32_MAX / 8, /* what is not heard finds nothing */
                                    .signer = &world.signer,
                                    .bulk = "",
                                    .epoch = 1,
                                    .beat_ns = LIMIT_BEAT_NS,
                                    .grace_ns = LIMIT_GRACE_NS};

    farm.now_ns = NS_PER_S;
    farm.batch = 0;
    farm.core = config.core = core_new(&core);
    CHECK(farm.core);
    CHECK(journal_new(nowhere, &farm.journal) == 0);
    config.journal = farm.journal;
    CHECK(gateway_init(&farm.gateway, &config) == 0);
    for (uint32_t i = 1; i <= 2; i++) {
        struct key_row row = {.studio = {i}, .weight = 1};

        snprintf(row.studio_name, sizeof(row.studio_name), "%s", i == 1 ? "acme" : "other");
        gateway_studio(&farm.gateway, &row);
    }
    core_recovered(farm.core, farm.now_ns);
    core.epoch = config.epoch = 2;
    farm.again = config.core = core_new(&core);
    CHECK(farm.again && gateway_init(&farm.recovered, &config) == 0);
    greet();
    submit();
}

static void farm_end(void)
{
    core_audit(farm.core);
    CHECK(core_digest(farm.again) == core_digest(farm.core));
    core_recovered(farm.again, farm.now_ns);
    core_audit(farm.again);
    farm.recovered.with.port = NULL; /* the other's */
    gateway_deinit(&farm.recovered);
    core_free(farm.again);
    gateway_deinit(&farm.gateway);
    journal_free(farm.journal);
    core_free(farm.core);
    if (farm.assign)
        wire_free(TAKE_PTR(farm.assign));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    if (world.runs++ == 0) {
        world_begin();
    } else if (world.runs % EVERY == 0) { /* what jobs referred to is forgotten */
        vault_close_all();
        vault_open_new();
    }
    farm_begin();
    for (int n = 0; n < SAID_MAX && fuzz_next(&data, &size, &part); n++)
        if (part.data)
            say(part.number % WHO_END ? part.number % WHO_END : STRANGER, part.data, part.size);
        else
            settle((int64_t)(part.value % TIME_MS_MAX) * NS_PER_MS);
    farm_end();
    return 0;
}

void gateway_farm_look(void (*look)(void *user, const struct gateway_farm *farm), void *user)
{
    struct gateway_farm given;

    LLVMFuzzerTestOneInput(NULL, 0); /* the world is there afterwards */
    farm_begin();
    CHECK(farm.assign);
    given.block = world.block;
    given.refs = world.refs;
    given.assign = farm.assign->assign;
    look(user, &given);
    farm_end();
}
