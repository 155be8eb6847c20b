/* agent.c - the worker's agent against a broker of the test's own: joining, leases in order, a lost
 * link, a restart with a result in hand. Sessions are pretended: each runs until the test ends it.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/clock.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <worker/agent.h>
#include <worker/session.h>
#include <worker/spool.h>
#include <worker/task.h>

#define PATIENCE_NS (20 * NS_PER_S)

/* ---- the pretended session ---- */

static atomic_uint running, finish; /* bit i: task i runs; task i may end */
static atomic_uint unfit;           /* bit i: task i fails while it is prepared */
static atomic_uint brief;           /* bit i: task i has ended before its start is told */

int session_run(const struct session_config *config, struct session_result *ret_result)
{
    unsigned bit = 1u << config->task;
    int r;

    if (atomic_load(&unfit) & bit) {
        *ret_result = (struct session_result){.class = CLASS_MISSING_INPUT};
        return bytes_append(&ret_result->log, "unfit\n", 6);
    }
    r = config->on_ready(config->user);
    if (r != 0)
        return r;
    *ret_result = (struct session_result){.class = CLASS_OK, .wall_ns = SPOOL_SYNC_NS};
    config->on_started(config->user, atomic_load(&brief) & bit);
    config->on_text(config->user, "hello\n", 6);
    config->on_progress(config->user, 500, "half");
    atomic_fetch_or(&running, bit);
    while (!(atomic_load(&finish) & bit) && !atomic_load(config->stop))
        (void)poll(NULL, 0, 2);
    atomic_fetch_and(&running, ~bit);
    if (atomic_load(config->stop))
        ret_result->class = CLASS_CANCELLED;
    return bytes_append(&ret_result->log, "hello\n", 6);
}

void session_result_deinit(struct session_result *result)
{
    bytes_deinit(&result->log);
}

bool session_map_path(const struct session_map *maps, size_t n_maps, const char *path,
                      char *ret_path, size_t size)
{
    (void)maps, (void)n_maps, (void)path, (void)ret_path, (void)size;
    return false;
}

/* ---- threads that cannot be had ---- */

static atomic_bool no_thread; /* for the next one */
static atomic_uint threads;   /* made so far */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *user)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    if (atomic_exchange(&no_thread, false))
        return EAGAIN;
    atomic_fetch_add(&threads, 1);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, user);
}

/* ---- a slow disk ---- */

static atomic_bool disk_held;
static atomic_uint disk_waits; /* how many calls it has held up */

static void disk(void)
{
    if (!atomic_load(&disk_held))
        return;
    atomic_fetch_add(&disk_waits, 1);
    while (atomic_load(&disk_held))
        (void)poll(NULL, 0, 1);
}

int fsync(int fd)
{
    disk();
    return (int)syscall(SYS_fsync, fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    disk();
    return (ssize_t)syscall(SYS_pwrite64, fd, data, size, at);
}

int rmdir(const char *path)
{
    disk();
    return (int)syscall(SYS_rmdir, path);
}

/* ---- the pretended broker ---- */

static uint32_t lease_step; /* 1: the one that depends on step 0 */

struct farm {
    char state[64], endpoint[128];
    void *context, *socket;
    struct wire_inbox inbox;
    struct link_zap *zap;
    struct link_keypair broker, worker;
    struct link_route route;
    pthread_t thread;
    struct agent_config agent;
    Wl__Offer offer;
    struct probe probe;
    uint64_t session;
    int64_t beat_ns; /* 0: 50 ms */
    unsigned beats;  /* heard while something else was awaited */
    uint8_t key_in[32], key_out[32];
};

static int allow_all(void *user, const struct link_key *key)
{
    (void)user, (void)key;
    return 0;
}

static void listen_on(struct farm *farm, const char *endpoint)
{
    assert_int_equal(link_listen(farm->context, LINK_CONTROL, endpoint, &farm->broker,
                                 &farm->socket, farm->endpoint),
                     0);
}

static void *agent_thread(void *user)
{
    struct farm *farm = user;

    return agent_run(&farm->agent) == 0 ? NULL : farm;
}

static void agent_start(struct farm *farm)
{
    farm->agent.stop_fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(pthread_create(&farm->thread, NULL, agent_thread, farm), 0);
}

static void agent_stop(struct farm *farm)
{
    uint64_t one = 1;
    void *failed;

    assert_int_equal(write(farm->agent.stop_fd, &one, sizeof(one)), sizeof(one));
    pthread_join(farm->thread, &failed);
    assert_null(failed);
    close(farm->agent.stop_fd);
}

static int setup(void **state)
{
    struct farm *farm = calloc(1, sizeof(*farm));

    lease_step = 0;
    atomic_store(&running, 0);
    atomic_store(&finish, 0);
    atomic_store(&unfit, 0);
    atomic_store(&brief, 0);
    strcpy(farm->state, "/tmp/westlight-agent-XXXXXX");
    assert_non_null(mkdtemp(farm->state));
    assert_int_equal(identity_key_new(&farm->broker), 0);
    assert_int_equal(identity_key_new(&farm->worker), 0);
    assert_int_equal(link_context_new(1, &farm->context), 0);
    assert_int_equal(link_zap_new(farm->context, allow_all, NULL, &farm->zap), 0);
    listen_on(farm, "tcp://127.0.0.1:*");
    wl__offer__init(&farm->offer);
    farm->offer.slots = 1;
    farm->agent = (struct agent_config){.broker = farm->endpoint,
                                        .server = farm->broker.public_key,
                                        .keys = &farm->worker,
                                        .state = farm->state,
                                        .cache_bytes = 1 << 20,
                                        .probe = &farm->probe,
                                        .offer = &farm->offer};
    random_bytes(farm->key_in, 32);
    random_bytes(farm->key_out, 32);
    *state = farm;
    agent_start(farm);
    return 0;
}

static int teardown(void **state)
{
    struct farm *farm = *state;

    atomic_store(&disk_held, false);
    agent_stop(farm);
    wire_inbox_deinit(&farm->inbox);
    link_close(farm->socket);
    link_zap_free(farm->zap);
    link_context_free(farm->context);
    folder_remove(farm->state);
    free(farm);
    return 0;
}

static void say(struct farm *farm, Wl__Envelope__BodyCase body, void *message, uint64_t request);

static void answer_beat(struct farm *farm, const Wl__Beat *beat)
{
    Wl__Beat back = WL__BEAT__INIT;

    back.session = beat->session;
    say(farm, WL__ENVELOPE__BODY_BEAT, &back, 0);
}

/* What comes within a moment; NULL where nothing does. */
static Wl__Envelope *receive(struct farm *farm)
{
    zmq_pollitem_t item = {.socket = farm->socket, .events = ZMQ_POLLIN};
    Wl__Envelope *envelope;
    struct link_key key;
    const char *why;
    int r = wire_next(&farm->inbox, farm->socket, &key, &farm->route, &envelope, &why);

    if (r == LINK_E_AGAIN) {
        zmq_poll(&item, 1, 100);
        r = wire_next(&farm->inbox, farm->socket, &key, &farm->route, &envelope, &why);
    }
    assert_true(r >= 0);
    return r == 0 ? envelope : NULL;
}

/* The next message that is not a beat or progress, unless that is what is awaited. Beats are
 * answered. */
static Wl__Envelope *hear(struct farm *farm, Wl__Envelope__BodyCase body)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    while (clock_monotonic_ns() < deadline_ns) {
        Wl__Envelope *envelope = receive(farm);

        if (!envelope)
            continue;
        if (envelope->body_case == WL__ENVELOPE__BODY_BEAT)
            answer_beat(farm, envelope->beat);
        if (envelope->body_case == body)
            return envelope;
        farm->beats += envelope->body_case == WL__ENVELOPE__BODY_BEAT;
        if (envelope->body_case != WL__ENVELOPE__BODY_BEAT &&
            envelope->body_case != WL__ENVELOPE__BODY_PROGRESS)
            fail_msg("heard body %d, expected %d", (int)envelope->body_case, (int)body);
        wire_free(envelope);
    }
    fail_msg("nothing heard, expected %d", (int)body);
    return NULL;
}

static void say(struct farm *farm, Wl__Envelope__BodyCase body, void *message, uint64_t request)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    zmq_msg_t packed;

    envelope.request = request;
    envelope.body_case = body;
    envelope.welcome = message; /* a union of pointers */
    assert_int_equal(wire_pack(&envelope, &packed), 0);
    assert_int_equal(link_send(farm->socket, &farm->route, &packed, NULL), 0);
}

static void until(unsigned mask, unsigned value)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    while ((atomic_load(&running) & mask) != value && clock_monotonic_ns() < deadline_ns)
        (void)poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&running) & mask, value);
}

/* ---- what a broker does ---- */

static Wl__Envelope *welcome(struct farm *farm)
{
    Wl__Welcome message = WL__WELCOME__INIT;
    Wl__Envelope *envelope = hear(farm, WL__ENVELOPE__BODY_HELLO);

    assert_int_equal(envelope->hello->boot.len, 16);
    assert_true(envelope->hello->session > farm->session);
    farm->session = envelope->hello->session;
    message.epoch = 1;
    message.beat_ns = (uint64_t)(farm->beat_ns ? farm->beat_ns : 50 * NS_PER_MS);
    say(farm, WL__ENVELOPE__BODY_WELCOME, &message, envelope->request);
    wire_free(envelope);
    envelope = hear(farm, WL__ENVELOPE__BODY_INVENTORY);
    assert_int_equal(envelope->inventory->session, farm->session);
    assert_true(envelope->inventory->last);
    return envelope;
}

/* The same verdict on all it lists. */
static void judge(struct farm *farm, Wl__Envelope *inventory, enum verdict verdict)
{
    Wl__LeaseVerdict verdicts[8], *pointers[8];
    Wl__Verdict message = WL__VERDICT__INIT;

    for (size_t i = 0; i < inventory->inventory->n_items; i++) {
        wl__lease_verdict__init(&verdicts[i]);
        verdicts[i].lease = inventory->inventory->items[i]->lease;
        verdicts[i].verdict = verdict;
        pointers[i] = &verdicts[i];
    }
    message.leases = pointers;
    message.n_leases = inventory->inventory->n_items;
    message.last = true;
    say(farm, WL__ENVELOPE__BODY_VERDICT, &message, 0);
    wire_free(inventory);
}

static void join(struct farm *farm)
{
    Wl__Envelope *inventory = welcome(farm);

    assert_int_equal(inventory->inventory->n_items, 0);
    judge(farm, inventory, VERDICT_KEEP);
}

static struct lease lease_of(uint64_t task)
{
    return (struct lease){.job = {1},
                          .step = lease_step,
                          .task = task,
                          .floor = 1,
                          .epoch = 1,
                          .attempt = task + 100};
}

static void recipe(struct farm *farm, struct sealer *sealer, struct bytes *sealed,
                   struct block_key *key)
{
    Wl__Recipe message = WL__RECIPE__INIT;
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT, after, *steps[] = {&step, &after};
    Wl__Dependency dependency = WL__DEPENDENCY__INIT, *dependencies = &dependency;
    Wl__Action action = WL__ACTION__INIT;
    Wl__SpaceParameter space = WL__SPACE_PARAMETER__INIT, *spaces = &space;
    Wl__Range range = WL__RANGE__INIT, *ranges = &range;
    uint8_t packed[4096];
    size_t size;

    range.first = 1, range.last = 10, range.step = 1;
    space.name = (char *)"Frame";
    space.ranges = &ranges, space.n_ranges = 1;
    action.command = (char *)"true";
    step.name = (char *)"render";
    step.on_run = &action;
    step.output_optional = true;
    step.space = &spaces, step.n_space = 1;
    message.job_name = (char *)"test";
    after = step;
    after.name = (char *)"comp";
    after.dependencies = &dependencies, after.n_dependencies = 1;
    message.steps = steps, message.n_steps = 2;
    size = wl__recipe__pack(&message, packed);
    assert_int_equal(seal_block(sealer, farm->key_in, packed, size, sealed, key), 0);
}

static void assign(struct farm *farm, uint64_t task, uint64_t behind)
{
    _cleanup_(sealer_freep) struct sealer *sealer = NULL;
    _cleanup_(bytes_deinit) struct bytes sealed = {0};
    struct block_key key;
    Wl__Assign message = WL__ASSIGN__INIT;
    Wl__BlockRef ref = WL__BLOCK_REF__INIT;
    Wl__Lease shape = WL__LEASE__INIT;
    struct lease lease = lease_of(task);
    uint8_t wrapped[32], ticket[32] = {9}, pass[PASS_BYTES] = {8};

    assert_int_equal(sealer_new(&sealer), 0);
    recipe(farm, sealer, &sealed, &key);
    wire_block_ref_set(sealer, farm->key_in, &key, wrapped, &ref);
    ref.inline_sealed = (ProtobufCBinaryData){.len = sealed.size, .data = sealed.data};
    wire_lease_set(&shape, &lease);
    message.lease = &shape;
    message.ticket = (ProtobufCBinaryData){.len = 32, .data = ticket};
    message.recipe = &ref;
    message.key_in = (ProtobufCBinaryData){.len = 32, .data = farm->key_in};
    message.key_out = (ProtobufCBinaryData){.len = 32, .data = farm->key_out};
    message.pass = (ProtobufCBinaryData){.len = sizeof(pass), .data = pass};
    message.behind = behind ? behind : 0;
    message.behind_epoch = behind ? 1 : 0;
    say(farm, WL__ENVELOPE__BODY_ASSIGN, &message, 0);
}

static void take_away(struct farm *farm, uint64_t task, Wl__RevokeKind kind)
{
    Wl__Revoke message = WL__REVOKE__INIT;
    Wl__Lease shape = WL__LEASE__INIT;
    struct lease lease = lease_of(task);

    wire_lease_set(&shape, &lease);
    message.lease = &shape;
    message.kind = kind;
    message.why = (char *)"the job was cancelled";
    say(farm, WL__ENVELOPE__BODY_REVOKE, &message, 0);
}

static void expect_started(struct farm *farm, uint64_t task)
{
    Wl__Envelope *envelope = hear(farm, WL__ENVELOPE__BODY_STARTED);

    assert_int_equal(envelope->started->lease->task, task);
    assert_int_equal(envelope->started->ticket.len, 32);
    wire_free(envelope);
}

static void expect_result(struct farm *farm, uint64_t task, enum attempt_class class)
{
    Wl__Envelope *envelope = hear(farm, WL__ENVELOPE__BODY_RESULT);

    assert_int_equal(envelope->result->session, farm->session);
    assert_int_equal(envelope->result->lease->task, task);
    assert_int_equal(envelope->result->class_, class);
    assert_int_equal(envelope->result->n_log, 1);
    assert_int_equal(envelope->result->n_refs, 0); /* all of it is small */
    assert_true((envelope->result->n_manifest == 1) == (class == CLASS_OK));
    wire_free(envelope);
}

static void commit(struct farm *farm, uint64_t task, enum code code)
{
    Wl__Committed message = WL__COMMITTED__INIT;
    Wl__Lease shape = WL__LEASE__INIT;
    struct lease lease = lease_of(task);

    wire_lease_set(&shape, &lease);
    message.lease = &shape;
    message.code = code;
    say(farm, WL__ENVELOPE__BODY_COMMITTED, &message, 0);
}

static void finish_task(unsigned task)
{
    atomic_fetch_or(&finish, 1u << task);
}

/* ---- the facts ---- */

static void it_joins_beats_and_runs_what_it_is_given(void **state)
{
    struct farm *farm = *state;

    join(farm);
    wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_OK);
}

static void a_start_is_told_while_the_result_of_a_short_task_takes_long(void **state)
{
    struct farm *farm = *state;

    join(farm);
    atomic_store(&brief, 1u);
    finish_task(0);
    atomic_store(&disk_held, true);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    atomic_store(&disk_held, false);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_OK);
}

/* Tasks one after another for longer than a beat; the longest that it took with one of them. */
static int64_t run_some(struct farm *farm, unsigned first, unsigned n)
{
    int64_t before_ns = clock_monotonic_ns(), longest_ns = 0;

    for (unsigned task = first; task < first + n; task++) {
        assign(farm, task, 0);
        expect_started(farm, task);
        (void)poll(NULL, 0, 200);
        finish_task(task);
        expect_result(farm, task, CLASS_OK);
        commit(farm, task, CODE_OK);
        int64_t now_ns = clock_monotonic_ns();

        longest_ns = now_ns - before_ns > longest_ns ? now_ns - before_ns : longest_ns;
        before_ns = now_ns;
    }
    return longest_ns;
}

static void who_tells_of_tasks_need_not_beat(void **state)
{
    struct farm *farm = *state;
    unsigned task = 0;

    farm->beat_ns = NS_PER_S;
    join(farm);
    wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    do { /* unless this machine stood still meanwhile */
        farm->beats = 0;
        task += 7;
        assert_in_range(task, 7, 28);
    } while (run_some(farm, task - 7, 7) > 600 * NS_PER_MS);
    assert_int_equal(farm->beats, 0);
    wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT)); /* nothing to tell, as before */
}

/* Its result is sent again more often than it beats, and the scheduler hears nothing of it. */
static void whose_result_has_to_wait_beats_all_the_same(void **state)
{
    struct farm *farm = *state;

    farm->beat_ns = 3 * NS_PER_S;
    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    for (int i = 0; i < 3; i++) {
        expect_result(farm, 0, CLASS_OK);
        commit(farm, 0, CODE_BUSY);
    }
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_OK);
    assert_true(farm->beats > 0);
    assign(farm, 1, 0);
    expect_started(farm, 1);
}

/* Its beats are answered for longer than it waits, and then no more. */
static void a_broker_that_answers_is_kept_and_one_that_falls_silent_is_not(void **state)
{
    struct farm *farm = *state;
    int64_t until_ns = clock_monotonic_ns() + 6 * NS_PER_S;

    join(farm);
    while (clock_monotonic_ns() < until_ns)
        wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT)); /* it fails at a second hello */
    for (bool greeted = false; !greeted;) {
        Wl__Envelope *envelope = receive(farm);

        assert_true(clock_monotonic_ns() < until_ns + PATIENCE_NS);
        greeted = envelope && envelope->body_case == WL__ENVELOPE__BODY_HELLO;
        if (envelope)
            wire_free(envelope);
    }
}

static void progress_carries_the_sealed_output(void **state)
{
    struct farm *farm = *state;
    _cleanup_(sealer_freep) struct sealer *sealer = NULL;
    _cleanup_(bytes_deinit) struct bytes text = {0};
    Wl__Envelope *envelope;
    struct block_key key;
    uint8_t secret[32];

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    envelope = hear(farm, WL__ENVELOPE__BODY_PROGRESS);
    assert_non_null(envelope->progress->log);
    assert_int_equal(envelope->progress->log->number, 1);
    assert_int_equal(sealer_new(&sealer), 0);
    job_key_log(farm->key_out, secret);
    assert_int_equal(wire_block_ref(sealer, secret, envelope->progress->log->text, &key), 0);
    assert_int_equal(open_block(sealer, &key, envelope->progress->log->text->inline_sealed.data,
                                envelope->progress->log->text->inline_sealed.len, &text),
                     0);
    assert_memory_equal(text.data, "hello\n", 6);
    wire_free(envelope);
}

static void a_prefetched_task_starts_when_the_one_before_it_ends(void **state)
{
    struct farm *farm = *state;

    join(farm);
    assign(farm, 0, 0);
    assign(farm, 1, 100);
    expect_started(farm, 0);
    wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    assert_int_equal(atomic_load(&running), 1);
    finish_task(0);
    until(3, 2); /* the broker has said nothing */
}

static void an_unstarted_task_is_taken_back_and_its_follower_keeps_waiting(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *envelope;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    assign(farm, 1, 100);
    assign(farm, 2, 101);
    take_away(farm, 1, WL__REVOKE_KIND__REVOKE_TAKE_BACK);
    envelope = hear(farm, WL__ENVELOPE__BODY_RELEASED);
    assert_int_equal(envelope->released->lease->task, 1);
    wire_free(envelope);
    wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    assert_int_equal(atomic_load(&running), 1);
    finish_task(0);
    until(7, 4);
}

static void who_is_behind_one_that_failed_before_its_turn_waits_for_its_own(void **state)
{
    struct farm *farm = *state;

    join(farm);
    atomic_store(&unfit, 2);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    assign(farm, 1, 100);
    assign(farm, 2, 101);
    expect_result(farm, 1, CLASS_MISSING_INPUT);
    assign(farm, 3, 101); /* the broker does not know yet */
    for (int i = 0; i < 3; i++)
        wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    assert_int_equal(atomic_load(&running), 1);
    finish_task(0);
    until(15, 12);
}

static void nothing_that_opened_a_block_is_kept_without_a_task(void **state)
{
    struct task_board board = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct sealer *sealer, *again;

    (void)state;
    list_init(&board.runners);
    assert_int_equal(task_board_sealer(&board, &sealer), 0);
    task_board_sealer_back(&board, sealer);
    assert_int_equal(task_board_sealer(&board, &again), 0);
    assert_ptr_equal(sealer, again);
    task_board_sealer_back(&board, again);
    assert_int_equal(board.n_sealers, 1);
    task_board_rest(&board, false);
    assert_int_equal(board.n_sealers, 0);
}

static void a_started_task_is_not_taken_back(void **state)
{
    struct farm *farm = *state;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    take_away(farm, 0, WL__REVOKE_KIND__REVOKE_TAKE_BACK);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
}

static void a_stopped_task_says_that_it_was_cancelled(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *envelope;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    take_away(farm, 0, WL__REVOKE_KIND__REVOKE_STOP);
    envelope = hear(farm, WL__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->class_, CLASS_CANCELLED);
    assert_string_equal(envelope->result->message, "the job was cancelled");
    wire_free(envelope);
}

static void missing_blocks_make_it_send_the_result_again(void **state)
{
    struct farm *farm = *state;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_MISSING);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_ALREADY);
}

static void expect_released(struct farm *farm, uint64_t task, const char *why)
{
    Wl__Envelope *envelope = hear(farm, WL__ENVELOPE__BODY_RELEASED);

    assert_int_equal(envelope->released->lease->task, task);
    assert_non_null(strstr(envelope->released->why, why));
    wire_free(envelope);
}

static void a_task_that_cannot_start_is_handed_back(void **state)
{
    struct farm *farm = *state;

    join(farm);
    atomic_store(&no_thread, true);
    assign(farm, 0, 0);
    expect_released(farm, 0, "no thread for it");
    assign(farm, 1, 0);
    expect_started(farm, 1);
}

static void a_task_whose_result_nobody_takes_is_handed_back(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *envelope;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_INVALID);
    envelope = hear(farm, WL__ENVELOPE__BODY_RESULT); /* the smallest that can be said */
    assert_int_equal(envelope->result->class_, CLASS_TRANSFER);
    wire_free(envelope);
    commit(farm, 0, CODE_INVALID);
    expect_released(farm, 0, "could not be delivered");
}

/* The broker goes and comes again at the same address. */
static void reopen(struct farm *farm)
{
    char endpoint[128];

    snprintf(endpoint, sizeof(endpoint), "%s", farm->endpoint);
    wire_inbox_deinit(&farm->inbox);
    link_close(farm->socket);
    farm->socket = NULL;
    while (!farm->socket) /* the port is free once libzmq has let go of it */
        if (link_listen(farm->context, LINK_CONTROL, endpoint, &farm->broker, &farm->socket,
                        NULL) != 0)
            (void)poll(NULL, 0, 10);
}

/* Some beats, while the disk keeps a task waiting. */
static void expect_beats(struct farm *farm)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    while (atomic_load(&disk_waits) == 0 && clock_monotonic_ns() < deadline_ns)
        (void)poll(NULL, 0, 1);
    assert_true(atomic_load(&disk_waits) > 0);
    for (int i = 0; i < 3; i++)
        wire_free(hear(farm, WL__ENVELOPE__BODY_BEAT));
    atomic_store(&disk_held, false);
}

static void a_slow_disk_stops_no_beat(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *envelope;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    atomic_store(&disk_waits, 0);
    atomic_store(&disk_held, true); /* while a smaller result is written */
    commit(farm, 0, CODE_INVALID);
    expect_beats(farm);
    envelope = hear(farm, WL__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->class_, CLASS_TRANSFER);
    wire_free(envelope);
    atomic_store(&disk_waits, 0);
    atomic_store(&disk_held, true); /* while the spool is removed */
    commit(farm, 0, CODE_OK);
    expect_beats(farm);
}

static void an_answer_of_another_kind_is_none(void **state)
{
    struct farm *farm = *state;
    Wl__Pass pass = WL__PASS__INIT;
    uint8_t bytes[PASS_BYTES] = {7};
    Wl__Envelope *envelope;

    join(farm);
    lease_step = 1;
    assign(farm, 0, 0);
    envelope = hear(farm, WL__ENVELOPE__BODY_DEPENDENCY_REQUEST);
    pass.pass = (ProtobufCBinaryData){.len = sizeof(bytes), .data = bytes};
    say(farm, WL__ENVELOPE__BODY_PASS, &pass, envelope->request);
    wire_free(envelope);
    envelope = hear(farm, WL__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->class_, CLASS_TRANSFER);
    assert_non_null(strstr(envelope->result->message, "does not give the results"));
    wire_free(envelope);
}

static void a_lost_broker_finds_its_task_still_running(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *inventory;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    reopen(farm);
    inventory = welcome(farm); /* with a greater session, checked there */
    assert_int_equal(inventory->inventory->n_items, 1);
    assert_int_equal(inventory->inventory->items[0]->state, WL__LEASE_STATE__LEASE_RUNNING);
    assert_int_equal(atomic_load(&running), 1);
    judge(farm, inventory, VERDICT_KEEP);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
}

static void a_restarted_worker_holds_its_result_and_sends_it_when_told(void **state)
{
    struct farm *farm = *state;
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    Wl__Envelope *inventory;
    char path[128];

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    agent_stop(farm);
    agent_start(farm);
    inventory = welcome(farm);
    assert_int_equal(inventory->inventory->n_items, 1);
    assert_int_equal(inventory->inventory->items[0]->state, WL__LEASE_STATE__LEASE_HELD);
    judge(farm, inventory, VERDICT_SEND);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_OK);
    snprintf(path, sizeof(path), "%s/spool/1", farm->state);
    while (access(path, F_OK) == 0 && clock_monotonic_ns() < deadline_ns)
        (void)poll(NULL, 0, 1);
    assert_int_not_equal(access(path, F_OK), 0);
    agent_stop(farm);
    agent_start(farm);
    join(farm); /* with nothing on its list */
}

static void a_full_disk_keeps_nobody_from_joining(void **state)
{
    struct farm *farm = *state;
    struct rlimit before, none;
    Wl__Envelope *inventory;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    reopen(farm);
    inventory = welcome(farm);
    assert_int_equal(inventory->inventory->n_items, 1);
    judge(farm, inventory, VERDICT_DROP);
    until(1, 0);
    agent_stop(farm);
    agent_start(farm); /* here the number itself cannot be kept */
    join(farm);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

static void a_session_number_is_never_used_again(void **state)
{
    struct farm *farm = *state;

    for (int i = 0; i < 3; i++) { /* welcome() checks that it grows */
        join(farm);
        reopen(farm);
        join(farm);
        agent_stop(farm);
        agent_start(farm);
    }
    join(farm);
}

static void what_is_to_be_dropped_is_stopped_and_forgotten(void **state)
{
    struct farm *farm = *state;
    Wl__Envelope *inventory;

    join(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    reopen(farm);
    inventory = welcome(farm);
    judge(farm, inventory, VERDICT_DROP);
    until(1, 0);
    assign(farm, 1, 0);
    expect_started(farm, 1); /* no result of task 0 came between */
}

/* Runs it and leaves its result without an answer. */
static void run_to_result(struct farm *farm, unsigned task)
{
    assign(farm, task, 0);
    expect_started(farm, task);
    finish_task(task);
    expect_result(farm, task, CLASS_OK);
}

/* A new link's list of leases has as many. */
static void expect_listed(struct farm *farm, size_t n, enum verdict verdict)
{
    Wl__Envelope *inventory;

    reopen(farm);
    inventory = welcome(farm);
    assert_int_equal(inventory->inventory->n_items, n);
    judge(farm, inventory, verdict);
}

static void results_that_wait_for_the_broker_take_no_thread_and_end_when_it_answers(void **state)
{
    struct farm *farm = *state;
    unsigned before;

    join(farm);
    before = atomic_load(&threads);
    for (unsigned task = 0; task < 6; task++)
        run_to_result(farm, task);
    assert_true(atomic_load(&threads) - before < 6);
    for (unsigned task = 0; task < 6; task++)
        commit(farm, task, CODE_OK);
    assign(farm, 6, 0);
    expect_started(farm, 6);
    expect_listed(farm, 1, VERDICT_KEEP);
}

static void results_that_wait_are_dropped_where_the_broker_wants_none(void **state)
{
    struct farm *farm = *state;

    join(farm);
    run_to_result(farm, 0);
    run_to_result(farm, 1);
    expect_listed(farm, 2, VERDICT_DROP);
    assign(farm, 2, 0);
    expect_started(farm, 2); /* the verdict was heard before */
    expect_listed(farm, 1, VERDICT_KEEP);
}

static void a_result_for_which_there_is_no_thread_ends_a_moment_later(void **state)
{
    struct farm *farm = *state;
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    Wl__Envelope *inventory;
    size_t n;

    join(farm);
    run_to_result(farm, 0);
    assign(farm, 1, 0); /* the thread that there was is busy now */
    expect_started(farm, 1);
    atomic_store(&no_thread, true);
    commit(farm, 0, CODE_OK);
    for (int i = 0; i < 1000 && atomic_load(&no_thread); i++) /* unless it was not busy yet */
        (void)poll(NULL, 0, 1);
    do {
        assert_true(clock_monotonic_ns() < deadline_ns);
        reopen(farm);
        inventory = welcome(farm);
        n = inventory->inventory->n_items;
        judge(farm, inventory, VERDICT_KEEP);
    } while (n > 1);
    atomic_store(&no_thread, false);
    finish_task(1);
    expect_result(farm, 1, CLASS_OK);
}

/* How many folders of sessions there are; those that are laid out for anyone, and hold nothing. */
static unsigned folders(const struct farm *farm, unsigned *ret_ready)
{
    char path[128], inside[512];
    unsigned n = 0;
    struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof(path), "%s/sessions", farm->state);
    folder = opendir(path);
    *ret_ready = 0;
    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        n++;
        snprintf(inside, sizeof(inside), "%s/%s/work/tmp", path, entry->d_name);
        if (access(inside, F_OK) != 0)
            continue;
        snprintf(inside, sizeof(inside), "%s/%s/files", path, entry->d_name);
        *ret_ready += rmdir(inside) == 0 && mkdir(inside, 0700) == 0;
    }
    if (folder)
        closedir(folder);
    return n;
}

static void expect_one_ready(const struct farm *farm)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    unsigned ready = 0, n = 0;

    while ((n != 1 || ready != 1) && clock_monotonic_ns() < deadline_ns) {
        (void)poll(NULL, 0, 5);
        n = folders(farm, &ready);
    }
    assert_int_equal(n, 1);
    assert_int_equal(ready, 1);
}

static void an_idle_worker_has_a_folder_ready_and_none_of_an_earlier_job(void **state)
{
    struct farm *farm = *state;
    unsigned ready;

    join(farm);
    expect_one_ready(farm);
    assign(farm, 0, 0);
    expect_started(farm, 0);
    assert_int_equal(folders(farm, &ready), 1); /* it was taken */
    finish_task(0);
    expect_result(farm, 0, CLASS_OK);
    commit(farm, 0, CODE_OK);
    expect_one_ready(farm);
}

static void a_second_worker_on_the_same_folder_is_refused(void **state)
{
    struct farm *farm = *state;
    int first = -1, second = -1;

    assert_int_equal(agent_lock_state(farm->state, 0, &first), 0);
    assert_int_equal(agent_lock_state(farm->state, 0, &second), AGENT_E_TAKEN);
    close(first);
    join(farm);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_joins_beats_and_runs_what_it_is_given),
        CASE(who_tells_of_tasks_need_not_beat),
        CASE(whose_result_has_to_wait_beats_all_the_same),
        CASE(a_start_is_told_while_the_result_of_a_short_task_takes_long),
        CASE(a_broker_that_answers_is_kept_and_one_that_falls_silent_is_not),
        CASE(progress_carries_the_sealed_output),
        CASE(a_prefetched_task_starts_when_the_one_before_it_ends),
        CASE(an_unstarted_task_is_taken_back_and_its_follower_keeps_waiting),
        CASE(who_is_behind_one_that_failed_before_its_turn_waits_for_its_own),
        CASE(nothing_that_opened_a_block_is_kept_without_a_task),
        CASE(a_started_task_is_not_taken_back),
        CASE(a_stopped_task_says_that_it_was_cancelled),
        CASE(missing_blocks_make_it_send_the_result_again),
        CASE(a_task_that_cannot_start_is_handed_back),
        CASE(a_task_whose_result_nobody_takes_is_handed_back),
        CASE(a_slow_disk_stops_no_beat),
        CASE(an_answer_of_another_kind_is_none),
        CASE(a_lost_broker_finds_its_task_still_running),
        CASE(a_restarted_worker_holds_its_result_and_sends_it_when_told),
        CASE(a_full_disk_keeps_nobody_from_joining),
        CASE(a_session_number_is_never_used_again),
        CASE(what_is_to_be_dropped_is_stopped_and_forgotten),
        CASE(results_that_wait_for_the_broker_take_no_thread_and_end_when_it_answers),
        CASE(results_that_wait_are_dropped_where_the_broker_wants_none),
        CASE(a_result_for_which_there_is_no_thread_ends_a_moment_later),
        CASE(an_idle_worker_has_a_folder_ready_and_none_of_an_earlier_job),
        CASE(a_second_worker_on_the_same_folder_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
