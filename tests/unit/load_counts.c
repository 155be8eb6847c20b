/* The load test's counts can go wrong: a broker that breaks its word is caught. Nobody listens
 * where the links go; what a broker would say is said here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <proto/base/bytes.h>
#include <tests/load/inner.h>

#define TEST(name) static void name(void **state)

enum { WORKERS = 2, FRAMES = 10 };

struct farm {
    struct load *load;
    uint64_t attempt;
    void (*answer)(struct farm *farm); /* what the studio hears when it asks */
};

static int turn(void *user, int64_t now_ns _unused_)
{
    struct farm *farm = user;

    if (farm->answer && farm->load->studio.request)
        farm->answer(farm);
    return 0;
}

static int setup(void **state)
{
    struct farm *farm = calloc(1, sizeof *farm);
    struct load_config config = {.endpoint = "tcp://127.0.0.1:9",
                                 .workers = WORKERS,
                                 .slots = 1,
                                 .prefetch = 4,
                                 .jobs = 1,
                                 .frames = FRAMES,
                                 .result_bytes = 50,
                                 .recipe_bytes = 50,
                                 .ramp = 1000,
                                 .io_threads = 1,
                                 .patience_ns = 60 * NS_PER_S,
                                 .turn = turn,
                                 .user = farm};

    assert_int_equal(load_new(&config, &farm->load), 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        worker_greet(farm->load, i);
        farm->load->workers[i].state = PHASE_JOINED;
        farm->load->workers[i].say_hello = false;
        worker_at(farm->load, i, INT64_MAX);
    }
    *state = farm;
    return 0;
}

static int teardown(void **state)
{
    struct farm *farm = *state;

    load_free(farm->load);
    free(farm);
    return 0;
}

/* ---- what a broker says ---- */

static void hear(struct farm *farm, uint32_t worker, const Wl__Envelope *envelope)
{
    uint8_t text[2048];

    worker_hear(farm->load, worker, text, wl__envelope__pack(envelope, text));
    assert_int_equal(workers_flush(farm->load), 0);
}

static struct lease lease_of(struct farm *farm, uint64_t task)
{
    struct lease lease = {.task = task, .floor = 1, .epoch = 1, .attempt = ++farm->attempt};

    load_job_id(farm->load, 0, lease.job);
    return lease;
}

static void assign(struct farm *farm, uint32_t worker, struct lease *lease, uint64_t behind)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Assign message = WL__ASSIGN__INIT;
    Wl__Lease shape = WL__LEASE__INIT;
    uint8_t ticket[32] = {0};

    wire_lease_set(&shape, lease);
    message.lease = &shape;
    message.ticket = (ProtobufCBinaryData){sizeof(ticket), ticket};
    message.behind = behind;
    message.behind_epoch = behind ? 1 : 0;
    envelope.body_case = WL__ENVELOPE__BODY_ASSIGN;
    envelope.assign = &message;
    hear(farm, worker, &envelope);
}

static void commit(struct farm *farm, uint32_t worker, struct lease *lease, enum code code)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Committed message = WL__COMMITTED__INIT;
    Wl__Lease shape = WL__LEASE__INIT;

    wire_lease_set(&shape, lease);
    message.lease = &shape;
    message.code = code;
    envelope.body_case = WL__ENVELOPE__BODY_COMMITTED;
    envelope.committed = &message;
    hear(farm, worker, &envelope);
}

static void take_back(struct farm *farm, uint32_t worker, struct lease *lease)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Revoke message = WL__REVOKE__INIT;
    Wl__Lease shape = WL__LEASE__INIT;

    wire_lease_set(&shape, lease);
    message.lease = &shape;
    message.kind = WL__REVOKE_KIND__REVOKE_TAKE_BACK;
    envelope.body_case = WL__ENVELOPE__BODY_REVOKE;
    envelope.revoke = &message;
    hear(farm, worker, &envelope);
}

static void run_one(struct farm *farm, uint32_t worker, uint64_t task)
{
    struct lease lease = lease_of(farm, task);

    assign(farm, worker, &lease, 0);
    commit(farm, worker, &lease, CODE_OK);
}

static enum held_state state_of(const struct farm *farm, const struct lease *lease)
{
    return farm->load->held[held_find(farm->load, lease->attempt, lease->epoch)].state;
}

/* ---- counts ---- */

TEST(frames_that_are_committed_once_are_right)
{
    struct farm *farm = *state;

    for (uint64_t i = 0; i < FRAMES; i++)
        run_one(farm, i % WORKERS, i);
    assert_int_equal(farm->load->settled, FRAMES);
    assert_int_equal(farm->load->counts.committed, FRAMES);
    assert_int_equal(
        farm->load->counts.duplicated + farm->load->counts.rerun + farm->load->counts.foreign, 0);
}

TEST(a_frame_that_is_committed_twice_is_seen)
{
    struct farm *farm = *state;
    struct lease a = lease_of(farm, 3), b = lease_of(farm, 3);

    assign(farm, 0, &a, 0);
    assign(farm, 1, &b, 0);
    commit(farm, 0, &a, CODE_OK);
    assert_int_equal(farm->load->counts.duplicated, 0);
    commit(farm, 1, &b, CODE_OK);
    assert_int_equal(farm->load->counts.duplicated, 1);
}

TEST(a_second_result_that_is_told_so_is_right)
{
    struct farm *farm = *state;
    struct lease a = lease_of(farm, 3), b = lease_of(farm, 3);

    assign(farm, 0, &a, 0);
    assign(farm, 1, &b, 0);
    commit(farm, 0, &a, CODE_OK);
    commit(farm, 1, &b, CODE_ALREADY);
    assert_int_equal(farm->load->counts.duplicated, 0);
    assert_int_equal(farm->load->settled, 1);
}

TEST(a_frame_that_runs_again_after_its_commit_is_seen)
{
    struct farm *farm = *state;
    struct lease again = lease_of(farm, 3);

    run_one(farm, 0, 3);
    assign(farm, 1, &again, 0);
    assert_int_equal(farm->load->counts.rerun, 1);
}

TEST(frames_of_others_are_seen)
{
    struct farm *farm = *state;
    struct lease other = lease_of(farm, 0), beyond = lease_of(farm, FRAMES);

    other.job[0] ^= 1;
    assign(farm, 0, &other, 0);
    assert_int_equal(farm->load->counts.foreign, 1);
    assign(farm, 0, &beyond, 0);
    assert_int_equal(farm->load->counts.foreign, 2);
    commit(farm, 0, &other, CODE_OK);
    assert_int_equal(farm->load->settled, 0);
}

TEST(a_result_that_is_refused_is_seen)
{
    struct farm *farm = *state;
    struct lease lease = lease_of(farm, 0);

    assign(farm, 0, &lease, 0);
    commit(farm, 0, &lease, CODE_INVALID);
    assert_int_equal(farm->load->counts.refused, 1);
    assert_int_equal(farm->load->settled, 0);
}

/* ---- what is read back ---- */

static void studio_hears(struct farm *farm, Wl__Envelope *envelope)
{
    uint8_t text[4096];

    envelope->request = farm->load->studio.request;
    studio_take(farm->load, text, wl__envelope__pack(envelope, text));
}

static void answer_jobs(struct farm *farm, uint64_t done)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Jobs jobs = WL__JOBS__INIT;
    Wl__JobRow row = WL__JOB_ROW__INIT, *rows[] = {&row};
    struct lease lease = lease_of(farm, 0);

    row.job = (ProtobufCBinaryData){16, lease.job};
    row.tasks = FRAMES;
    row.done = done;
    jobs.jobs = rows;
    jobs.n_jobs = 1;
    envelope.body_case = WL__ENVELOPE__BODY_JOBS;
    envelope.jobs = &jobs;
    studio_hears(farm, &envelope);
}

static void all_but_one_done(struct farm *farm)
{
    answer_jobs(farm, FRAMES - 1);
}

static void no_job(struct farm *farm)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Jobs jobs = WL__JOBS__INIT;

    envelope.body_case = WL__ENVELOPE__BODY_JOBS;
    envelope.jobs = &jobs;
    studio_hears(farm, &envelope);
}

/* First the jobs; then a page in which frame 4 stands in the place of frame 5. */
static void one_result_twice(struct farm *farm)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Results results = WL__RESULTS__INIT;
    Wl__ResultRow row[FRAMES], *rows[FRAMES];

    if (farm->load->studio.request % 2 == 0) {
        answer_jobs(farm, FRAMES);
        return;
    }
    for (uint64_t i = 0; i < FRAMES; i++) {
        wl__result_row__init(&row[i]);
        row[i].sequence = i + 1;
        row[i].task = i == 5 ? 4 : i;
        rows[i] = &row[i];
    }
    results.results = rows;
    results.n_results = FRAMES;
    envelope.body_case = WL__ENVELOPE__BODY_RESULTS;
    envelope.results = &results;
    studio_hears(farm, &envelope);
}

static void check(struct farm *farm, void (*answer)(struct farm *farm), bool every_result,
                  uint64_t lost, uint64_t duplicated)
{
    uint64_t ret_lost = 0, ret_duplicated = 0;

    farm->answer = answer;
    farm->load->studio.greeted = true;
    assert_int_equal(load_check(farm->load, every_result, &ret_lost, &ret_duplicated), 0);
    assert_int_equal(ret_lost, lost);
    assert_int_equal(ret_duplicated, duplicated);
}

TEST(a_frame_that_the_broker_does_not_count_is_lost)
{
    check(*state, all_but_one_done, false, 1, 0);
}

TEST(a_job_that_the_broker_does_not_list_is_lost)
{
    check(*state, no_job, false, FRAMES, 0);
}

TEST(a_result_that_is_there_twice_is_seen_and_the_one_it_hides_is_lost)
{
    check(*state, one_result_twice, true, 1, 1);
}

/* ---- the order of leases ---- */

TEST(a_task_begins_when_the_one_it_is_behind_has_ended)
{
    struct farm *farm = *state;
    struct lease a = lease_of(farm, 0), b = lease_of(farm, 1), c = lease_of(farm, 2);

    farm->load->config.task_ns = NS_PER_S;
    assign(farm, 0, &a, 0);
    assign(farm, 0, &b, a.attempt);
    assign(farm, 0, &c, b.attempt);
    assert_int_equal(state_of(farm, &a), HELD_RUNS);
    assert_int_equal(state_of(farm, &b), HELD_QUEUED);
    take_back(farm, 0, &b); /* c waits for a now */
    assert_int_equal(state_of(farm, &b), HELD_RELEASED);
    assert_int_equal(state_of(farm, &c), HELD_QUEUED);
    farm->load->now_ns += NS_PER_S;
    leases_due(farm->load);
    assert_int_equal(workers_flush(farm->load), 0);
    assert_int_equal(state_of(farm, &a), HELD_SAID);
    assert_int_equal(state_of(farm, &c), HELD_RUNS);
    take_back(farm, 0, &c); /* it has begun */
    assert_int_equal(state_of(farm, &c), HELD_RUNS);
}

TEST(who_dies_forgets_and_who_is_cut_off_says_it_again)
{
    struct farm *farm = *state;
    struct lease a = lease_of(farm, 0), b = lease_of(farm, 1);

    assign(farm, 0, &a, 0);
    assign(farm, 1, &b, 0);
    worker_offline(farm->load, 0);
    leases_forget(farm->load, 0);
    worker_offline(farm->load, 1);
    assert_int_equal(held_find(farm->load, a.attempt, 1), 0);
    assert_int_equal(farm->load->workers[0].n_held, 0);
    assert_int_equal(state_of(farm, &b), HELD_READY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_that_are_committed_once_are_right, setup, teardown),
        cmocka_unit_test_setup_teardown(a_frame_that_is_committed_twice_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_result_that_is_told_so_is_right, setup, teardown),
        cmocka_unit_test_setup_teardown(a_frame_that_runs_again_after_its_commit_is_seen, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(frames_of_others_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_result_that_is_refused_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_frame_that_the_broker_does_not_count_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_job_that_the_broker_does_not_list_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_result_that_is_there_twice_is_seen_and_the_one_it_hides_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_begins_when_the_one_it_is_behind_has_ended, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_dies_forgets_and_who_is_cut_off_says_it_again, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
