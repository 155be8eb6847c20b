/* core_retain.c - what is delivered, and when what is over is forgotten. */
#include <tests/unit/core_fixture.h>

#define DAY (86400 * SECOND)
static const struct plan_worker box = {.number = 1, .slots = 4, .vcpus = 4};
static const struct plan_job shot = {.number = 1, .studio = 1, .steps = {{.tasks = 3}}};

static uint64_t deliver(struct farm *farm, uint32_t studio, uint64_t first, uint64_t last,
                        uint32_t floor)
{
    struct delivered_run run = {.range = {0, first, last}, .floor = floor};
    struct event event = {.kind = EVENT_DELIVERED};

    event.delivered.studio.value = studio;
    event.delivered.job = job_numbered(1);
    event.delivered.runs = &run;
    event.delivered.n_runs = 1;
    farm_step(farm, &event);
    return effect_of(farm, EFFECT_REPLY, 0)->code == CODE_OK
               ? effect_of(farm, EFFECT_REPLY, 0)->reply.tasks
               : UINT64_MAX;
}

static void finish_by(struct farm *farm, uint8_t worker, uint64_t task, uint32_t floor)
{
    struct event event = {.kind = EVENT_RESULT};

    event.result.worker = worker_numbered(farm, worker);
    event.result.lease.job = job_numbered(1);
    event.result.lease.task.index = task;
    event.result.lease.floor = floor;
    event.result.lease.epoch = 1;
    event.result.lease.attempt = 1000 + task + 10 * floor; /* honoured: its floor is current */
    farm_step(farm, &event);
    assert_int_equal(effect_of(farm, EFFECT_COMMITTED, 0)->code, CODE_OK);
}

static void finish(struct farm *farm, uint64_t task, uint32_t floor)
{
    finish_by(farm, 1, task, floor);
}

/* A finished job of three tasks. */
static struct farm finished(void)
{
    struct farm farm = farm_new();

    assert_int_equal(hello(&farm, &box, 1, 1), CODE_OK);
    assert_int_equal(submit(&farm, &shot), CODE_OK);
    for (uint64_t i = 0; i < 3; i++)
        finish(&farm, i, 0);
    return farm;
}

static bool there(const struct farm *farm)
{
    struct job_view view;
    struct job_id job = job_numbered(1);

    return core_job(farm->core, &job, &view);
}

/* Time passes, and both clocks say so. */
static void wait_ns(struct farm *farm, int64_t ns)
{
    struct event tick = {.kind = EVENT_TICK};

    farm->now_ns += ns;
    farm_step(farm, &tick);
}

/* The wall clock alone. */
static void leap(struct farm *farm, int64_t s)
{
    struct event tick = {.kind = EVENT_TICK, .now_ns = farm->now_ns};

    tick.wall_s = farm->now_ns / SECOND + s;
    outbox_clear(&farm->outbox);
    core_step(farm->core, &tick, &farm->outbox);
    core_audit(farm->core);
}

TEST(a_result_is_delivered_once_and_only_at_its_floor)
{
    struct farm farm = finished();
    struct task_range first = {0, 0, 0};
    struct job_id job = job_numbered(1);
    struct job_view view;
    struct task_range home[2];

    assert_int_equal(deliver(&farm, 2, 0, 2, 0), UINT64_MAX); /* another studio's */
    assert_int_equal(core_delivered_ranges(farm.core, &job, 0, home, 2), 0);
    assert_int_equal(deliver(&farm, 1, 0, 1, 0), 2);
    assert_int_equal(core_delivered_ranges(farm.core, &job, 0, home, 2), 1);
    assert_true(home[0].first == 0 && home[0].last == 1);
    assert_int_equal(deliver(&farm, 1, 0, 1, 0), 0);
    assert_null(record_of(&farm, RECORD_DELIVERED));
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &first), CODE_OK);
    assert_int_equal(core_delivered_ranges(farm.core, &job, 0, home, 2), 1);
    assert_true(home[0].first == 1 && home[0].last == 1);
    assert_int_equal(deliver(&farm, 1, 0, 0, 0), 0); /* there is none */
    finish(&farm, 0, 1);
    assert_int_equal(deliver(&farm, 1, 0, 0, 0), 0); /* the old one */
    assert_true(core_job(farm.core, &job, &view));
    assert_int_equal(view.delivered, 1);
    assert_int_equal(deliver(&farm, 1, 0, 0, 1), 1);
    farm_free(&farm);
}

TEST(a_cancel_leaves_what_is_delivered)
{
    struct farm farm = finished();
    struct task_range first = {0, 0, 0};
    struct job_id job = job_numbered(1);
    struct job_view view;

    assert_int_equal(deliver(&farm, 1, 0, 0, 0), 1);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &(struct task_range){0, 1, 1}), CODE_OK);
    assert_int_equal(verb(&farm, 1, VERB_CANCEL, NULL), CODE_OK);
    assert_int_equal(verb(&farm, 1, VERB_CANCEL, &first), CODE_OK);
    assert_int_equal(deliver(&farm, 1, 2, 2, 0), 1);
    assert_true(core_job(farm.core, &job, &view));
    assert_int_equal(view.delivered, 2);
    farm_free(&farm);
}

TEST(a_job_is_forgotten_after_a_month_or_a_week_where_all_is_delivered)
{
    struct farm farm = finished();

    assert_int_equal(deliver(&farm, 1, 0, 1, 0), 2);
    wait_ns(&farm, 30 * DAY - 2 * SECOND);
    assert_true(there(&farm));
    wait_ns(&farm, 4 * SECOND);
    assert_non_null(record_of(&farm, RECORD_FORGET));
    assert_false(there(&farm));
    farm_free(&farm);

    farm = finished();
    assert_int_equal(deliver(&farm, 1, 0, 2, 0), 3);
    wait_ns(&farm, 7 * DAY - 2 * SECOND);
    assert_true(there(&farm));
    wait_ns(&farm, 4 * SECOND);
    assert_false(there(&farm));
    farm_free(&farm);
}

TEST(what_waits_or_is_paused_is_kept)
{
    struct farm farm = farm_new();

    assert_int_equal(submit(&farm, &shot), CODE_OK);
    wait_ns(&farm, 400 * DAY);
    assert_true(there(&farm));
    assert_int_equal(verb(&farm, 1, VERB_PAUSE, NULL), CODE_OK);
    wait_ns(&farm, 400 * DAY);
    assert_true(there(&farm));
    farm_free(&farm);
}

TEST(a_request_is_remembered_for_a_month_after_its_job_and_the_id_is_not_free_before)
{
    struct farm farm = finished();

    wait_ns(&farm, 31 * DAY);
    assert_false(there(&farm));
    assert_int_equal(submit_as(&farm, &shot, 1, 0), CODE_OK); /* the same answer, and no job */
    assert_true(effect_of(&farm, EFFECT_REPLY, 0)->reply.repeated);
    assert_int_equal(submit_as(&farm, &shot, 99, 0), CODE_CONFLICT);
    wait_ns(&farm, 31 * DAY);
    assert_int_equal(submit_as(&farm, &shot, 99, 0), CODE_OK);
    assert_true(there(&farm));
    farm_free(&farm);
}

TEST(a_clock_that_leaps_makes_nothing_older)
{
    struct farm farm = finished();

    leap(&farm, 400 * 86400);
    assert_int_equal(record_of(&farm, RECORD_CLOCK)->clock.ahead_s, 400 * 86400);
    assert_true(there(&farm));
    leap(&farm, 0); /* set right again */
    assert_int_equal(record_of(&farm, RECORD_CLOCK)->clock.ahead_s, -400 * 86400);
    wait_ns(&farm, 30 * DAY + 2 * SECOND);
    assert_false(there(&farm));
    farm_free(&farm);
}

TEST(small_leaps_are_one_when_they_add_up)
{
    struct farm farm = finished();
    int64_t ahead_s = 0;

    while (ahead_s < 40 * 86400) {
        ahead_s += 1500;
        leap(&farm, ahead_s);
    }
    assert_in_range(farm.core->skew_s, ahead_s - 3600, ahead_s);
    assert_true(there(&farm));
    farm_free(&farm);
}

/* What no record confirms does not count after a restart, so there is one now and then. */
TEST(a_record_says_every_half_hour_that_time_passes)
{
    struct farm farm = finished();
    int64_t begun_ns = farm.now_ns;
    unsigned n = 0;

    while (there(&farm)) {
        wait_ns(&farm, core_deadline_ns(farm.core) - farm.now_ns);
        assert_true(farm.now_ns / SECOND - farm.core->record_wall_s < 1800);
        n += record_of(&farm, RECORD_CLOCK) != NULL;
    }
    assert_in_range(farm.now_ns - begun_ns, 30 * DAY, 30 * DAY + 3600 * SECOND);
    assert_in_range(n, 30 * 48 - 1, 30 * 48);
    assert_int_equal(farm.core->skew_s, 0);
    while (job_gone(farm.core, &(struct job_id){{1, 0xee}}))
        wait_ns(&farm, core_deadline_ns(farm.core) - farm.now_ns);
    for (int64_t until_ns = farm.now_ns + DAY; farm.now_ns < until_ns;) { /* blocks age, too */
        wait_ns(&farm, core_deadline_ns(farm.core) - farm.now_ns);
        assert_non_null(record_of(&farm, RECORD_CLOCK));
    }
    farm_free(&farm);
}

static void read_results(struct farm *farm)
{
    struct event event = {.kind = EVENT_READ, .read.job = job_numbered(1)};

    farm_step(farm, &event);
    assert_int_equal(farm->outbox.n_records, 0);
    assert_int_equal(farm->outbox.n_effects, 0);
}

TEST(a_job_whose_results_are_being_read_is_kept_for_a_day_more)
{
    struct farm farm = finished();

    assert_int_equal(deliver(&farm, 1, 0, 2, 0), 3);
    read_results(&farm); /* makes it no shorter */
    wait_ns(&farm, 7 * DAY - 5 * SECOND);
    read_results(&farm);
    wait_ns(&farm, DAY - 5 * SECOND);
    read_results(&farm);
    wait_ns(&farm, DAY - 5 * SECOND);
    assert_true(there(&farm));
    wait_ns(&farm, 10 * SECOND);
    assert_false(there(&farm));
    read_results(&farm); /* of a job that is not there */
    farm_free(&farm);
}

TEST(a_silent_worker_that_runs_what_is_forgotten_lists_before_it_is_given_anything)
{
    static const struct plan_worker small = {.number = 1, .slots = 1, .vcpus = 1};
    static const struct plan_job one = {.number = 1, .studio = 1, .steps = {{.tasks = 1}}};
    static const struct plan_job next = {.number = 2, .studio = 1, .steps = {{.tasks = 5}}};
    struct farm farm = farm_new();
    struct plan_worker others[] = {{.number = 2, .vcpus = 1}, {.number = 3, .vcpus = 1}};

    join(&farm, &small);
    assert_int_equal(submit(&farm, &one), CODE_OK);
    struct inventory_item old = {effect_of(&farm, EFFECT_ASSIGN, 0)->lease, HELD_RUNNING, 0};
    started(&farm, 1, old.lease);
    for (size_t i = 0; i < 2; i++)
        join(&farm, &others[i]); /* they speak, and have no slot */
    for (unsigned i = 0; i < 30; i++) {
        pass(&farm, 5 * SECOND);
        beat(&farm, 2);
        beat(&farm, 3);
    }
    finish_by(&farm, 2, 0, 0);
    assert_null(effect_of(&farm, EFFECT_PART, 0));
    farm.now_ns += 31 * DAY;
    beat(&farm, 2); /* all were away, nobody is to blame */
    assert_false(there(&farm));
    assert_int_equal(effect_of(&farm, EFFECT_PART, 0)->worker.value,
                     worker_numbered(&farm, 1).value);
    assert_int_equal(submit(&farm, &next), CODE_OK);
    beat(&farm, 1);
    assert_null(effect_of(&farm, EFFECT_ASSIGN, 0));
    assert_int_equal(hello(&farm, &small, 2, 1), CODE_OK);
    inventory(&farm, 1, &old, 1);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_DROP);
    assert_non_null(effect_of(&farm, EFFECT_ASSIGN, 0));
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_is_delivered_once_and_only_at_its_floor),
        cmocka_unit_test(a_cancel_leaves_what_is_delivered),
        cmocka_unit_test(a_job_is_forgotten_after_a_month_or_a_week_where_all_is_delivered),
        cmocka_unit_test(what_waits_or_is_paused_is_kept),
        cmocka_unit_test(
            a_request_is_remembered_for_a_month_after_its_job_and_the_id_is_not_free_before),
        cmocka_unit_test(a_clock_that_leaps_makes_nothing_older),
        cmocka_unit_test(small_leaps_are_one_when_they_add_up),
        cmocka_unit_test(a_record_says_every_half_hour_that_time_passes),
        cmocka_unit_test(a_job_whose_results_are_being_read_is_kept_for_a_day_more),
        cmocka_unit_test(
            a_silent_worker_that_runs_what_is_forgotten_lists_before_it_is_given_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
