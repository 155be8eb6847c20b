/* The broker's edge from outside: a broker in a process of its own, and peers of every role that
 * speak to it over CURVE, say what they may not, and see what they get.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <broker/broker.h>
#include <broker/store/store.h>

enum { PATIENCE_MS = 10000, QUIET_MS = 200 };
enum who { ANN, BOB, OPS, BOX1, BOX2, NOBODY, WHO_COUNT };

static struct {
    char state[64], ready[96], control[128];
    struct link_keypair keys[WHO_COUNT];
    struct link_key server;
    pid_t pid;
    int64_t lease_ns; /* 0: as usual */
} broker;

struct peer_link {
    void *context, *socket;
    uint64_t request, session;
};

/* ---- the broker ---- */

static void broker_start(void)
{
    struct broker_config config = {.state = broker.state,
                                   .control = "tcp://127.0.0.1:*",
                                   .bulk = "tcp://127.0.0.1:*",
                                   .bulk_memory_bytes = 16 << 20,
                                   .vault_threads = 1,
                                   .lease_ns = broker.lease_ns,
                                   .ready_fd = -1,
                                   .ready_file = broker.ready};
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    _cleanup_(bytes_deinit) struct bytes line = {0};
    char key[64];

    unlink(broker.ready);
    broker.pid = fork();
    assert_true(broker.pid >= 0);
    if (broker.pid == 0) {
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
        sscanf((char *)line.data, "ready control=%127s bulk=%*s key=%63s", broker.control, key), 2);
    assert_int_equal(identity_key_parse(key, &broker.server), 0);
}

static int broker_stop(int number)
{
    int status;

    assert_int_equal(kill(broker.pid, number), 0);
    assert_int_equal(waitpid(broker.pid, &status, 0), broker.pid);
    broker.pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void allow(enum who who, enum role role, const char *studio, const char *name)
{
    struct key_row row = {.role = role, .weight = 1};
    _cleanup_(bytes_deinit) struct bytes why = {0};

    memcpy(row.key.bytes, broker.keys[who].public_key.bytes, sizeof row.key.bytes);
    snprintf(row.studio_name, sizeof row.studio_name, "%s", studio);
    snprintf(row.name, sizeof row.name, "%s", name);
    assert_int_equal(store_allow(broker.state, &row, &why), 0);
}

static int setup(void **state)
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

static int teardown(void **state)
{
    (void)state;
    if (broker.pid)
        assert_int_equal(broker_stop(SIGTERM), 0);
    return folder_remove(broker.state);
}

/* ---- peers ---- */

static void say(struct peer_link *link, Wl__Envelope *envelope)
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

static Wl__Envelope *hear_within(struct peer_link *link, int ms)
{
    int64_t until_ns = clock_monotonic_ns() + ms * NS_PER_MS;

    for (;;) {
        zmq_pollitem_t item = {.socket = link->socket, .events = ZMQ_POLLIN};
        Wl__Envelope *envelope;
        const char *why;
        zmq_msg_t message;
        int r = link_receive(link->socket, NULL, NULL, &message, NULL);

        if (r == 0) {
            assert_int_equal(
                wire_unpack(zmq_msg_data(&message), zmq_msg_size(&message), &envelope, &why), 0);
            zmq_msg_close(&message);
            return envelope;
        }
        if (clock_monotonic_ns() > until_ns)
            return NULL;
        zmq_poll(&item, 1, 20);
    }
}

/* The next message of a kind; others are passed over. */
static Wl__Envelope *hear(struct peer_link *link, Wl__Envelope__BodyCase body)
{
    for (;;) {
        Wl__Envelope *envelope = hear_within(link, PATIENCE_MS);

        assert_non_null(envelope);
        if (envelope->body_case == body)
            return envelope;
        assert_int_not_equal(envelope->body_case, WL__ENVELOPE__BODY_REFUSAL);
        wire_free(envelope);
    }
}

static void hear_refusal(struct peer_link *link, enum code code)
{
    Wl__Envelope *envelope = hear(link, WL__ENVELOPE__BODY_REFUSAL);

    assert_int_equal(envelope->refusal->code, code);
    assert_int_equal(envelope->request, link->request);
    assert_true(envelope->refusal->what[0] && envelope->refusal->why[0] &&
                envelope->refusal->next[0]);
    wire_free(envelope);
}

static void connect_as(struct peer_link *link, enum who who)
{
    *link = (struct peer_link){0};
    assert_int_equal(link_context_new(1, &link->context), 0);
    assert_int_equal(link_connect(link->context, LINK_CONTROL, broker.control, &broker.server,
                                  &broker.keys[who], &link->socket),
                     0);
}

static void disconnect(struct peer_link *link)
{
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

static void say_hello(struct peer_link *link, uint32_t protocol)
{
    Wl__Hello hello = WL__HELLO__INIT;

    hello.protocol = protocol;
    hello.program = (char *)"a test";
    say(link, &ENVELOPE(HELLO, hello, &hello));
}

static void join_as(struct peer_link *link, enum who who)
{
    connect_as(link, who);
    say_hello(link, WIRE_PROTOCOL);
    wire_free(hear(link, WL__ENVELOPE__BODY_WELCOME));
}

static void say_worker_hello(struct peer_link *link, uint64_t session, uint8_t boot_number)
{
    uint8_t boot[16] = {boot_number};
    Wl__Amount vcpu = WL__AMOUNT__INIT, *amounts[] = {&vcpu};
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;

    vcpu.name = (char *)"amount.worker.vcpu";
    vcpu.min = 4;
    offer.slots = 1;
    offer.amounts = amounts;
    offer.n_amounts = 1;
    hello.protocol = WIRE_PROTOCOL;
    hello.session = link->session = session;
    hello.boot = (ProtobufCBinaryData){sizeof boot, boot};
    hello.offer = &offer;
    say(link, &ENVELOPE(HELLO, hello, &hello));
}

static void worker_join(struct peer_link *link, enum who who, uint64_t session)
{
    Wl__Inventory inventory = WL__INVENTORY__INIT;

    connect_as(link, who);
    say_worker_hello(link, session, 1);
    wire_free(hear(link, WL__ENVELOPE__BODY_WELCOME));
    inventory.session = session;
    inventory.last = true;
    say(link, &ENVELOPE(INVENTORY, inventory, &inventory));
    wire_free(hear(link, WL__ENVELOPE__BODY_VERDICT));
}

/* ---- what they say ---- */

/* Two steps of `n` frames, the second frame by frame after the first. */
static void say_submit(struct peer_link *link, uint8_t request, uint8_t job, int64_t n)
{
    uint8_t request_id[16] = {request}, job_id[16] = {job}, key[32] = {7}, block[32] = {1};
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

static uint64_t submit(struct peer_link *link, uint8_t request, uint8_t job, int64_t n)
{
    say_submit(link, request, job, n);
    Wl__Envelope *accepted = hear(link, WL__ENVELOPE__BODY_ACCEPTED);
    uint64_t sequence = accepted->accepted->sequence;

    wire_free(accepted);
    return sequence;
}

static void say_show(struct peer_link *link, uint8_t job)
{
    uint8_t id[16] = {job};
    Wl__ShowRequest show = WL__SHOW_REQUEST__INIT;

    show.job = (ProtobufCBinaryData){16, id};
    say(link, &ENVELOPE(SHOW_REQUEST, show_request, &show));
}

static uint64_t done_of(struct peer_link *link, uint8_t job)
{
    say_show(link, job);
    Wl__Envelope *show = hear(link, WL__ENVELOPE__BODY_SHOW);
    uint64_t done = show->show->row->done;

    wire_free(show);
    return done;
}

static void say_result(struct peer_link *link, const Wl__Assign *assign, bool forged)
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

static void hear_committed(struct peer_link *link, enum code code)
{
    Wl__Envelope *committed = hear(link, WL__ENVELOPE__BODY_COMMITTED);

    assert_int_equal(committed->committed->code, code);
    wire_free(committed);
}

/* ---- the facts ---- */

static void an_unknown_key_is_refused_at_the_door(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    enum link_status status = LINK_DOWN;
    struct peer_link link;
    void *monitor;

    (void)state;
    connect_as(&link, NOBODY);
    assert_int_equal(link_monitor(link.context, link.socket, &monitor), 0);
    while (status != LINK_REFUSED) {
        assert_true(clock_monotonic_ns() < until_ns);
        link_monitor_read(monitor, &status);
        usleep(5000);
    }
    link_close(monitor);
    disconnect(&link);
}

static void a_key_that_is_forbidden_is_refused_on_a_live_connection(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct worker_key key;
    struct peer_link ann;
    bool refused = false;

    (void)state;
    join_as(&ann, ANN);
    memcpy(key.bytes, broker.keys[ANN].public_key.bytes, sizeof key.bytes);
    assert_int_equal(store_forbid(broker.state, &key, &why), 0);
    while (!refused) {
        assert_true(clock_monotonic_ns() < until_ns);
        Wl__JobsRequest jobs = WL__JOBS_REQUEST__INIT;
        say(&ann, &ENVELOPE(JOBS_REQUEST, jobs_request, &jobs));
        Wl__Envelope *answer = hear_within(&ann, PATIENCE_MS);
        assert_non_null(answer);
        refused = answer->body_case == WL__ENVELOPE__BODY_REFUSAL &&
                  answer->refusal->code == CODE_REFUSED;
        wire_free(answer);
    }
    disconnect(&ann);
}

static void hello_comes_first_and_names_both_protocols_where_they_differ(void **state)
{
    struct peer_link ann;

    (void)state;
    connect_as(&ann, ANN);
    say_show(&ann, 1);
    hear_refusal(&ann, CODE_STATE);
    say_hello(&ann, 99);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_PROTOCOL);
    assert_non_null(strstr(refusal->refusal->why, "99"));
    assert_non_null(strstr(refusal->refusal->why, "speaks 1"));
    wire_free(refusal);
    say_hello(&ann, WIRE_PROTOCOL);
    Wl__Envelope *welcome = hear(&ann, WL__ENVELOPE__BODY_WELCOME);
    assert_string_equal(welcome->welcome->studio, "acme");
    assert_int_equal(welcome->welcome->role, ROLE_STUDIO);
    wire_free(welcome);
    disconnect(&ann);
}

static void a_role_says_only_what_is_its_own(void **state)
{
    Wl__WorkersRequest workers = WL__WORKERS_REQUEST__INIT;
    struct peer_link ann, ops, box;
    Wl__Beat beat = WL__BEAT__INIT;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    worker_join(&box, BOX1, 1);
    say(&ann, &ENVELOPE(WORKERS_REQUEST, workers_request, &workers));
    hear_refusal(&ann, CODE_REFUSED);
    say(&ann, &ENVELOPE(BEAT, beat, &beat));
    hear_refusal(&ann, CODE_REFUSED);
    say_submit(&box, 1, 1, 2);
    hear_refusal(&box, CODE_REFUSED);
    say_submit(&ops, 1, 1, 2); /* an operator without a studio */
    hear_refusal(&ops, CODE_REFUSED);
    say(&ops, &ENVELOPE(WORKERS_REQUEST, workers_request, &workers));
    Wl__Envelope *answer = hear(&ops, WL__ENVELOPE__BODY_WORKERS);
    assert_int_equal(answer->workers->n_workers, 1);
    assert_string_equal(answer->workers->workers[0]->name, "box1");
    wire_free(answer);
    disconnect(&ann);
    disconnect(&ops);
    disconnect(&box);
}

static void say_tend(struct peer_link *link, uint8_t request, Wl__TendKind kind, const char *worker,
                     const char *text)
{
    uint8_t request_id[16] = {request};
    char *workers[] = {(char *)worker};
    Wl__Tend tend = WL__TEND__INIT;

    tend.request_id = (ProtobufCBinaryData){16, request_id};
    tend.kind = kind;
    tend.workers = workers;
    tend.n_workers = 1;
    tend.text = (char *)text;
    say(link, &ENVELOPE(TEND, tend, &tend));
}

static void hear_tended(struct peer_link *link, const char *state)
{
    Wl__Envelope *answer = hear(link, WL__ENVELOPE__BODY_TENDED);

    assert_int_equal(answer->tended->n_rows, 1);
    assert_string_equal(answer->tended->rows[0]->name, "box1");
    assert_string_equal(answer->tended->rows[0]->state, state);
    wire_free(answer);
}

static void an_operator_alone_tends_workers_and_once_a_request(void **state)
{
    struct peer_link ann, ops, box;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    worker_join(&box, BOX1, 1);
    say_tend(&ann, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_refusal(&ann, CODE_REFUSED);
    say_tend(&box, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_refusal(&box, CODE_REFUSED);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box", "");
    hear_refusal(&ops, CODE_UNKNOWN);
    say_tend(&ops, 1, (Wl__TendKind)6, "box1", ""); /* the core's own */
    hear_refusal(&ops, CODE_INVALID);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_tended(&ops, "drained");
    say_tend(&ops, 1, WL__TEND_KIND__TEND_UNDRAIN, "box1", "");
    hear_refusal(&ops, CODE_CONFLICT);
    say_tend(&ops, 2, WL__TEND_KIND__TEND_UNDRAIN, "1", ""); /* by its number */
    hear_tended(&ops, "idle");
    disconnect(&ops);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ops, OPS);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box1", ""); /* answered before, not done again */
    hear_tended(&ops, "away");
    disconnect(&ann);
    disconnect(&ops);
    disconnect(&box);
}

static void a_foreign_job_is_answered_exactly_as_an_unknown_one(void **state)
{
    struct peer_link ann, bob;
    Wl__Envelope *foreign, *unknown;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    submit(&ann, 1, 1, 2);
    say_show(&bob, 1);
    foreign = hear(&bob, WL__ENVELOPE__BODY_REFUSAL);
    say_show(&bob, 2);
    unknown = hear(&bob, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(foreign->refusal->code, CODE_UNKNOWN);
    assert_int_equal(unknown->refusal->code, CODE_UNKNOWN);
    assert_string_equal(foreign->refusal->what, unknown->refusal->what);
    assert_string_equal(foreign->refusal->why, unknown->refusal->why);
    assert_string_equal(foreign->refusal->next, unknown->refusal->next);
    wire_free(foreign);
    wire_free(unknown);
    disconnect(&ann);
    disconnect(&bob);
}

static void the_same_request_gets_the_same_answer_after_a_kill_too(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    uint64_t sequence = submit(&ann, 1, 1, 2);
    assert_int_equal(submit(&ann, 1, 1, 2), sequence);
    say_submit(&ann, 1, 1, 3);
    hear_refusal(&ann, CODE_CONFLICT);
    disconnect(&ann);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ann, ANN);
    assert_int_equal(submit(&ann, 1, 1, 2), sequence);
    say_submit(&ann, 1, 1, 3);
    hear_refusal(&ann, CODE_CONFLICT);
    disconnect(&ann);
}

/* Frames 1 to n of both steps, `wanted` of them; a name; under this request. */
static void say_edit(struct peer_link *link, uint8_t request, uint8_t job, int64_t n,
                     int64_t wanted)
{
    uint8_t request_id[16] = {request}, job_id[16] = {job}, block[32] = {2};
    Wl__Range ranges[] = {WL__RANGE__INIT, WL__RANGE__INIT}, frames = WL__RANGE__INIT;
    Wl__Range *list[] = {&ranges[0], &ranges[1]}, *frame_list[] = {&frames};
    Wl__SpaceParameter parameter = WL__SPACE_PARAMETER__INIT, *space[] = {&parameter};
    Wl__StepSpace step = WL__STEP_SPACE__INIT, *spaces[] = {&step, &step};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Edit edit = WL__EDIT__INIT;

    ranges[0] = ranges[1] = frames;
    ranges[0].first = ranges[0].step = ranges[1].step = frames.first = frames.step = 1;
    ranges[0].last = 2;
    ranges[1].first = 3;
    ranges[1].last = n;
    frames.last = wanted;
    parameter.name = (char *)"Frame";
    parameter.ranges = list;
    parameter.n_ranges = n > 2 ? 2 : 1;
    step.space = space;
    step.n_space = 1;
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, block};
    edit.request_id = (ProtobufCBinaryData){16, request_id};
    edit.job = (ProtobufCBinaryData){16, job_id};
    edit.what = EDIT_NAME | EDIT_FRAMES;
    edit.name = (char *)"take two";
    edit.frames = frame_list;
    edit.n_frames = 1;
    edit.spaces = spaces;
    edit.n_spaces = n > 2 ? 2 : 0;
    edit.recipe = n > 2 ? &recipe : NULL;
    say(link, &ENVELOPE(EDIT, edit, &edit));
}

static void edit_done(struct peer_link *link, uint64_t tasks)
{
    Wl__Envelope *done = hear(link, WL__ENVELOPE__BODY_DONE);

    assert_int_equal(done->done->tasks, tasks);
    wire_free(done);
}

static void an_edit_is_done_once_and_outlives_a_kill(void **state)
{
    struct peer_link ann, bob;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    submit(&ann, 1, 1, 2);
    say_edit(&bob, 1, 1, 4, 4);
    hear_refusal(&bob, CODE_UNKNOWN);
    say_edit(&ann, 2, 1, 4, 5); /* frame 5 is in no space: those that are there are wanted */
    edit_done(&ann, 4);
    say_edit(&ann, 3, 1, 3, 3); /* made before the other was taken */
    hear_refusal(&ann, CODE_STALE);
    say_edit(&ann, 4, 1, 2, 1);
    edit_done(&ann, 6); /* three of each step are left out */
    disconnect(&ann);
    disconnect(&bob);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ann, ANN);
    say_edit(&ann, 2, 1, 4, 5);
    edit_done(&ann, 4); /* the same answer, and nothing done */
    say_edit(&ann, 4, 1, 2, 2);
    hear_refusal(&ann, CODE_CONFLICT);
    say_show(&ann, 1);
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    const Wl__Show *show = answer->show;
    assert_string_equal(show->row->name, "take two");
    assert_int_equal(show->row->tasks, 2);
    assert_int_equal(show->recipe->id.data[0], 2);
    assert_int_equal(show->steps[0]->space[0]->n_ranges, 2);
    assert_int_equal(show->frames[0]->last, 1);
    wire_free(answer);
    disconnect(&ann);
}

static void refs_that_the_vault_lacks_are_named(void **state)
{
    uint8_t id[32] = {9}, request[16] = {1}, job[16] = {1};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    ProtobufCBinaryData refs = {32, id};
    Wl__Submit submission = WL__SUBMIT__INIT;
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    recipe.id = recipe.wrapped_key = refs;
    submission.request_id = (ProtobufCBinaryData){16, request};
    submission.job = (ProtobufCBinaryData){16, job};
    submission.job_key = refs;
    submission.name = (char *)"shot";
    submission.recipe = &recipe;
    submission.steps = steps;
    submission.n_steps = 1;
    submission.refs = &refs;
    submission.n_refs = 1;
    say(&ann, &ENVELOPE(SUBMIT, submit, &submission));
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(answer->refusal->code, CODE_MISSING);
    assert_int_equal(answer->refusal->n_missing, 1);
    assert_memory_equal(answer->refusal->missing[0].data, id, sizeof id);
    wire_free(answer);
    disconnect(&ann);
}

static void a_result_counts_with_its_own_ticket_only(void **state)
{
    struct peer_link ann, box1, box2;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&box1, BOX1, 1);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *assign = hear(&box1, WL__ENVELOPE__BODY_ASSIGN);

    say_result(&box1, assign->assign, true);
    hear_committed(&box1, CODE_REFUSED);
    worker_join(&box2, BOX2, 1);
    say_result(&box2, assign->assign, false); /* another worker's ticket */
    hear_committed(&box2, CODE_REFUSED);
    assert_int_equal(done_of(&ann, 1), 0);

    say_result(&box1, assign->assign, false);
    hear_committed(&box1, CODE_OK);
    say_result(&box1, assign->assign, false);
    hear_committed(&box1, CODE_ALREADY);
    assert_int_equal(done_of(&ann, 1), 1);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box1);
    disconnect(&box2);
}

static void an_older_session_is_not_heard(void **state)
{
    struct peer_link ann, older, newer;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&older, BOX1, 1);
    worker_join(&newer, BOX1, 2);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *assign = hear(&newer, WL__ENVELOPE__BODY_ASSIGN);

    say_result(&older, assign->assign, false);
    assert_null(hear_within(&newer, QUIET_MS));
    assert_int_equal(done_of(&ann, 1), 0);
    say_worker_hello(&older, 1, 2); /* another process under the same key */
    hear_refusal(&older, CODE_CONFLICT);
    say_result(&newer, assign->assign, false);
    hear_committed(&newer, CODE_OK);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&older);
    disconnect(&newer);
}

static void a_task_is_told_what_the_tasks_before_it_left(void **state)
{
    Wl__DependencyRequest wanted = WL__DEPENDENCY_REQUEST__INIT;
    struct peer_link ann, box;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&box, BOX1, 1);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *first = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
    say_result(&box, first->assign, false);
    hear_committed(&box, CODE_OK);
    Wl__Envelope *second = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
    assert_int_equal(second->assign->lease->step, 1);

    wanted.session = box.session;
    wanted.lease = second->assign->lease;
    wanted.ticket = second->assign->ticket;
    say(&box, &ENVELOPE(DEPENDENCY_REQUEST, dependency_request, &wanted));
    Wl__Envelope *answer = hear(&box, WL__ENVELOPE__BODY_DEPENDENCY_RESULTS);
    assert_int_equal(answer->dependency_results->n_results, 1);
    assert_memory_equal(answer->dependency_results->results[0]->key_out.data,
                        first->assign->key_out.data, 32);
    wire_free(answer);
    wire_free(first);
    wire_free(second);
    disconnect(&ann);
    disconnect(&box);
}

static void who_watches_is_told(void **state)
{
    uint8_t id[16] = {1};
    Wl__Watch watch = WL__WATCH__INIT;
    struct peer_link ann, box;
    uint64_t done = 0;

    (void)state;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 1);
    watch.job = (ProtobufCBinaryData){16, id};
    say(&ann, &ENVELOPE(WATCH, watch, &watch));
    Wl__Envelope *notice = hear(&ann, WL__ENVELOPE__BODY_NOTICE);
    assert_int_equal(notice->request, ann.request);
    assert_int_equal(notice->notice->n_why, 2);
    assert_non_null(strstr(notice->notice->why[0], "no worker is connected"));
    assert_non_null(strstr(notice->notice->why[1], "beauty"));
    wire_free(notice);

    worker_join(&box, BOX1, 1);
    while (done < 2) {
        Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
        say_result(&box, assign->assign, false);
        hear_committed(&box, CODE_OK);
        wire_free(assign);
        for (uint64_t seen = done; seen == done;) {
            notice = hear(&ann, WL__ENVELOPE__BODY_NOTICE);
            seen = notice->notice->row->done;
            wire_free(notice);
            if (seen > done) {
                done = seen;
                break;
            }
        }
    }
    disconnect(&ann);
    disconnect(&box);
}

static enum code copy_of_box1_joins(void)
{
    struct peer_link copy;
    enum code code = CODE_OK;

    connect_as(&copy, BOX1);
    say_worker_hello(&copy, 2, 9);
    Wl__Envelope *answer = hear_within(&copy, PATIENCE_MS);
    assert_non_null(answer);
    if (answer->body_case == WL__ENVELOPE__BODY_REFUSAL)
        code = (enum code)answer->refusal->code;
    wire_free(answer);
    disconnect(&copy);
    return code;
}

static void a_copy_of_a_live_worker_is_refused_until_the_worker_is_gone(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    struct peer_link box;

    (void)state;
    worker_join(&box, BOX1, 1);
    assert_int_equal(copy_of_box1_joins(), CODE_CONFLICT);
    wire_free(
        hear(&box, WL__ENVELOPE__BODY_BEAT)); /* asked whether it is there: it is, undisturbed */
    disconnect(&box);
    while (copy_of_box1_joins() == CODE_CONFLICT)
        assert_true(clock_monotonic_ns() < until_ns);
}

/* Every second frame. */
static void say_cancel(struct peer_link *link, uint8_t request, int64_t first, int64_t last)
{
    uint8_t request_id[16] = {request}, job_id[16] = {1};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__Verb verb = WL__VERB__INIT;

    range.first = first;
    range.last = last;
    range.step = 2;
    verb.request_id = (ProtobufCBinaryData){16, request_id};
    verb.job = (ProtobufCBinaryData){16, job_id};
    verb.kind = WL__VERB_KIND__VERB_CANCEL;
    verb.frames = ranges;
    verb.n_frames = 1;
    say(link, &ENVELOPE(VERB, verb, &verb));
}

static void every_second_frame_of_a_thousand_may_be_named(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 100000);
    say_cancel(&ann, 2, 1, 1000);
    Wl__Envelope *done = hear(&ann, WL__ENVELOPE__BODY_DONE);
    assert_int_equal(done->done->tasks, 1000); /* in each of two steps */
    wire_free(done);
    say_cancel(&ann, 3, 1, 100000);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_INVALID);
    assert_non_null(strstr(refusal->refusal->why, "pieces"));
    wire_free(refusal);
    disconnect(&ann);
}

static void what_is_no_message_is_refused_and_the_link_lives_on(void **state)
{
    struct peer_link ann;
    zmq_msg_t message;

    (void)state;
    join_as(&ann, ANN);
    assert_int_equal(zmq_msg_init_size(&message, 3), 0);
    memcpy(zmq_msg_data(&message), "\xff\xff\xff", 3);
    assert_int_equal(link_send(ann.socket, NULL, &message, NULL), 0);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_INVALID);
    wire_free(refusal);
    submit(&ann, 1, 1, 2);
    disconnect(&ann);
}

/* The worker beats on; the broker has no room for another record, so it does not read. */
static void beat_for(struct peer_link *box, int64_t ns)
{
    int64_t until_ns = clock_monotonic_ns() + ns;
    Wl__Beat beat = WL__BEAT__INIT;

    beat.session = box->session;
    while (clock_monotonic_ns() < until_ns) {
        Wl__Envelope *answer = NULL;

        say(box, &ENVELOPE(BEAT, beat, &beat));
        answer = hear_within(box, 200);
        if (answer)
            wire_free(answer);
    }
}

static void a_broker_whose_disk_stalls_takes_no_worker_for_lost(void **state)
{
    Wl__Started started = WL__STARTED__INIT;
    char path[128];
    struct peer_link ann, box;
    sqlite3 *disk = NULL;

    (void)state;
    assert_int_equal(broker_stop(SIGTERM), 0);
    broker.lease_ns = 2 * NS_PER_S;
    broker_start();
    broker.lease_ns = 0;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 40000);
    worker_join(&box, BOX1, 1);
    Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);

    started.session = box.session;
    started.lease = assign->assign->lease;
    started.ticket = assign->assign->ticket;
    say(&box, &ENVELOPE(STARTED, started, &started));
    beat_for(&box, 1 * NS_PER_S);
    snprintf(path, sizeof path, "%s/state.db", broker.state);
    assert_int_equal(sqlite3_open(path, &disk), SQLITE_OK);
    assert_int_equal(sqlite3_exec(disk, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (uint8_t i = 0; i < 4; i++) { /* 16000 records each: two batches at the store, one full */
        say_cancel(&ann, 2 + i, 2 + i % 2 + i / 2 * 16000, 16001 + i / 2 * 16000);
        beat_for(&box, NS_PER_S / 4);
    }
    beat_for(&box, 4 * NS_PER_S);
    assert_int_equal(sqlite3_exec(disk, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    for (uint8_t i = 0; i < 4; i++)
        wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
    sqlite3_close(disk);
    say_show(&ann, 1);
    Wl__Envelope *show = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    assert_int_equal(show->show->row->running, 1);
    assert_int_equal(show->show->row->attempts_failed, 0);
    wire_free(show);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_unknown_key_is_refused_at_the_door),
        TEST(a_key_that_is_forbidden_is_refused_on_a_live_connection),
        TEST(hello_comes_first_and_names_both_protocols_where_they_differ),
        TEST(a_role_says_only_what_is_its_own),
        TEST(an_operator_alone_tends_workers_and_once_a_request),
        TEST(a_foreign_job_is_answered_exactly_as_an_unknown_one),
        TEST(the_same_request_gets_the_same_answer_after_a_kill_too),
        TEST(an_edit_is_done_once_and_outlives_a_kill),
        TEST(refs_that_the_vault_lacks_are_named),
        TEST(a_result_counts_with_its_own_ticket_only),
        TEST(an_older_session_is_not_heard),
        TEST(a_task_is_told_what_the_tasks_before_it_left),
        TEST(who_watches_is_told),
        TEST(a_copy_of_a_live_worker_is_refused_until_the_worker_is_gone),
        TEST(every_second_frame_of_a_thousand_may_be_named),
        TEST(what_is_no_message_is_refused_and_the_link_lives_on),
        TEST(a_broker_whose_disk_stalls_takes_no_worker_for_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
