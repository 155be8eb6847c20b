/* What operators do to workers: drain, undrain, clear, note, pool; and who is set aside. */
#include "core_fixture.h"

static const struct plan_worker one = {.number = 1, .slots = 1, .prefetch = 2},
                                two = {.number = 2, .slots = 1};

static struct worker_view worker_view_of(const struct farm *farm, uint8_t number)
{
    struct worker_view view;

    assert_true(core_worker(farm->core, worker_numbered(farm, number), &view));
    return view;
}

/* A core that has only what the records say, jobs apart. */
struct memory {
    struct record records[64];
    size_t n;
};

static void remember(struct memory *memory, const struct farm *farm)
{
    for (size_t i = 0; i < farm->outbox.n_records; i++) {
        assert_true(memory->n < 64);
        memory->records[memory->n++] = farm->outbox.records[i];
    }
}

static struct farm restart(const struct memory *memory, const struct farm *farm)
{
    struct core_config config = {.epoch = 2};
    struct farm back = {.core = core_new(&config), .now_ns = farm->now_ns, .requests = 100};

    outbox_init(&back.outbox);
    for (size_t i = 0; i < memory->n; i++)
        core_apply(back.core, &memory->records[i]);
    assert_true(core_digest(back.core) == core_digest(farm->core));
    core_recovered(back.core, back.now_ns);
    return back;
}

/* ---- drain ---- */

TEST(a_drained_worker_finishes_what_runs_and_gives_back_what_has_not_begun)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 5}}});
    join(&farm, &one);
    struct lease_id running = assigned(&farm, 0),
                    queued[] = {assigned(&farm, 1), assigned(&farm, 2)};

    started(&farm, 1, running);
    assert_int_equal(tend(&farm, 1, TEND_DRAIN, "disk swap"), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 2);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(effect_of(&farm, EFFECT_REVOKE, i)->revoke.revoke, CORE_REVOKE_TAKE_BACK);
    assert_int_equal(worker_view_of(&farm, 1).running, 1);
    assert_string_equal(worker_view_of(&farm, 1).note, "disk swap");
    for (size_t i = 0; i < 2; i++)
        released(&farm, 1, queued[i]);
    assert_int_equal(state_of(&farm, 1, 0, 1), TASK_READY);
    assert_int_equal(result(&farm, 1, running, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_UNWILLING);
    assert_int_equal(why_of(&farm, 1, 0).drained, 1);
    join(&farm, &two); /* somebody else may */
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_BUSY);
    assert_int_equal(why_of(&farm, 1, 0).workers, 1);
    tend(&farm, 1, TEND_UNDRAIN, NULL);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 3); /* one and its two behind it */
    farm_free(&farm);
}

TEST(one_that_is_assigned_and_has_not_begun_goes_back_too_unless_it_was_faster)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &two);
    struct lease_id lease = assigned(&farm, 0);

    tend(&farm, 2, TEND_DRAIN, NULL);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 1);
    started(&farm, 2, lease); /* its word was on its way */
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    assert_int_equal(result(&farm, 2, lease, CLASS_OK), CODE_OK);
    farm_free(&farm);
}

TEST(a_worker_that_lost_its_link_while_it_was_drained_is_told_to_drop_what_it_has_not_begun)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    join(&farm, &one);
    struct inventory_item items[] = {{assigned(&farm, 0), HELD_RUNNING, 0},
                                     {assigned(&farm, 1), HELD_QUEUED, 0}};

    started(&farm, 1, items[0].lease);
    tend(&farm, 1, TEND_DRAIN, NULL);
    assert_int_equal(hello(&farm, &one, 2, 1), CODE_OK);
    inventory(&farm, 1, items, 2);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 1)->verdict.verdict, VERDICT_DROP);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(state_of(&farm, 1, 0, 1), TASK_READY);
    farm_free(&farm);
}

TEST(a_worker_without_room_gets_nothing_and_what_it_hands_back_is_no_attempt)
{
    struct farm farm = farm_new();

    join(&farm, &one);
    beat_with(&farm, 1, true);
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    beat_with(&farm, 1, false);
    assert_true(effects_of(&farm, EFFECT_ASSIGN) > 0);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    beat_with(&farm, 1, true);
    released_for(&farm, 1, lease, true);
    assert_int_not_equal(state_of(&farm, 1, 0, 0), TASK_FAILED);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    struct worker_view view;
    assert_true(core_worker(farm.core, worker_numbered(&farm, 1), &view));
    assert_true(view.no_room);
    assert_int_equal(view.failed, 0);
    farm_free(&farm);
}

TEST(what_fills_the_disk_of_every_worker_fails_on_the_third_and_is_parked)
{
    struct farm farm = farm_new();
    uint32_t visits = 0;

    for (uint8_t i = 1; i <= 8; i++)
        join(&farm, &(struct plan_worker){.number = i, .slots = 1});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    while (state_of(&farm, 1, 0, 0) == TASK_LEASED) {
        struct lease_id lease = assigned(&farm, 0);
        struct worker_view view;
        assert_true(core_worker(farm.core, effect_of(&farm, EFFECT_ASSIGN, 0)->worker, &view));
        uint8_t at = view.key.bytes[0];

        visits++;
        started(&farm, at, lease);
        beat_with(&farm, at, true);
        released_for(&farm, at, lease, true);
        assert_int_equal(record_of(&farm, RECORD_ATTEMPT) != NULL, visits > 2);
    }
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_FAILED);
    assert_int_equal(visits, 5);
    farm_free(&farm);
}

TEST(two_workers_that_fill_up_again_and_again_fail_nothing)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 1});
    join(&farm, &(struct plan_worker){.number = 2, .slots = 1});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    for (int i = 0; i < 10; i++) {
        struct lease_id lease = assigned(&farm, 0);
        struct worker_view view;

        assert_true(core_worker(farm.core, effect_of(&farm, EFFECT_ASSIGN, 0)->worker, &view));
        started(&farm, view.key.bytes[0], lease);
        beat_with(&farm, view.key.bytes[0], true);
        if (i > 0)
            beat_with(&farm, 3 - view.key.bytes[0], false);
        released_for(&farm, view.key.bytes[0], lease, true);
        assert_null(record_of(&farm, RECORD_ATTEMPT));
        assert_int_equal(effect_of(&farm, EFFECT_COMMITTED, 0)->code, CODE_OK); /* it is heard */
    }
    farm_free(&farm);
}

TEST(what_was_done_to_a_worker_outlives_the_broker_and_the_worker)
{
    struct farm farm = farm_new();
    struct memory memory = {0};

    join(&farm, &one);
    tend(&farm, 1, TEND_DRAIN, "fan");
    remember(&memory, &farm);
    tend(&farm, 1, TEND_POOL, "night");
    remember(&memory, &farm);
    tend(&farm, 3, TEND_DRAIN, NULL); /* one that was never here */
    remember(&memory, &farm);
    struct farm back = restart(&memory, &farm);

    submit(&back, &(struct plan_job){1, 1, 0, {{.tasks = 1, .pool = "night"}}});
    join(&back, &one);
    join(&back, &(struct plan_worker){.number = 3, .slots = 1});
    assert_int_equal(effects_of(&back, EFFECT_ASSIGN), 0);
    assert_true(worker_view_of(&back, 1).drained && worker_view_of(&back, 3).drained);
    assert_string_equal(worker_view_of(&back, 1).note, "fan");
    assert_string_equal(worker_view_of(&back, 1).pool, "night");
    tend(&back, 1, TEND_UNDRAIN, NULL);
    assert_int_equal(effects_of(&back, EFFECT_ASSIGN), 1);
    farm_free(&farm);
    farm_free(&back);
}

TEST(the_same_request_does_nothing_twice_and_another_body_is_refused)
{
    struct farm farm = farm_new();

    join(&farm, &one);
    assert_int_equal(tend_as(&farm, 1, TEND_DRAIN, NULL, 9, 1), CODE_OK);
    tend(&farm, 1, TEND_UNDRAIN, NULL);
    assert_int_equal(tend_as(&farm, 1, TEND_DRAIN, NULL, 9, 1), CODE_OK);
    assert_true(effect_of(&farm, EFFECT_REPLY, 0)->reply.repeated);
    assert_int_equal(farm.outbox.n_records, 0);
    assert_false(worker_view_of(&farm, 1).drained);
    assert_int_equal(tend_as(&farm, 1, TEND_CLEAR, NULL, 9, 2), CODE_CONFLICT);
    assert_int_equal(tend_as(&farm, 1, TEND_ASIDE, NULL, 10, 1), CODE_INVALID); /* the core's own */
    assert_int_equal(tend_as(&farm, 1, TEND_POOL, NULL, 11, 1), CODE_INVALID);
    farm_free(&farm);
}

/* ---- pools ---- */

TEST(a_pool_takes_its_own_jobs_and_no_others)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 4});
    join(&farm, &(struct plan_worker){.number = 2, .slots = 4});
    tend(&farm, 1, TEND_POOL, "night");
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->worker.value, 1);
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1, .pool = "night"}}});
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->worker.value, 0);
    submit(&farm, &(struct plan_job){3, 1, 0, {{.tasks = 1, .pool = "dawn"}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(why_of(&farm, 3, 0).kind, WHY_NO_ATTRIBUTE);
    assert_string_equal(why_of(&farm, 3, 0).name, ATTRIBUTE_POOL);
    assert_string_equal(why_of(&farm, 3, 0).value, "dawn");
    tend(&farm, 2, TEND_POOL, "dawn");
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    submit(&farm, &(struct plan_job){4, 1, 0, {{.tasks = 1}}});
    assert_string_equal(why_of(&farm, 4, 0).value, "");
    tend(&farm, 2, TEND_POOL, "");
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(what_a_pool_lacks_is_told_of_the_pool_alone)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .vcpus = 4, .software = "4.2"});
    join(&farm, &(struct plan_worker){.number = 2, .slots = 1, .vcpus = 64});
    tend(&farm, 1, TEND_POOL, "night");
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1, .vcpus = 8, .pool = "night"}}});
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_NO_AMOUNT);
    assert_true(why_of(&farm, 1, 0).best == 4);
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1, .software = "4.2"}}});
    assert_int_equal(why_of(&farm, 2, 0).kind, WHY_NO_ATTRIBUTE);
    assert_string_equal(why_of(&farm, 2, 0).name, "attr.software.blender");
    farm_free(&farm);
}

TEST(a_worker_that_changes_pools_finishes_what_runs_and_gives_back_what_no_longer_fits)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    join(&farm, &one);
    struct lease_id running = assigned(&farm, 0),
                    queued[] = {assigned(&farm, 1), assigned(&farm, 2)};

    started(&farm, 1, running);
    tend(&farm, 1, TEND_POOL, "night");
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 2);
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 4, .pool = "night"}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0); /* its slot is taken */
    for (size_t i = 0; i < 2; i++)
        released(&farm, 1, queued[i]);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(result(&farm, 1, running, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(assigned(&farm, i).job.bytes[0], 2);
    assert_string_equal(why_of(&farm, 1, 0).value, "");
    farm_free(&farm);
}

TEST(a_worker_may_not_say_that_it_is_in_a_pool)
{
    struct farm farm = farm_new();
    const char *pool = "night";
    struct attribute attribute = {.name = ATTRIBUTE_POOL, .any_of = &pool, .n_any_of = 1};
    struct offer offer = {.slots = 1, .attributes = &attribute, .n_attributes = 1};
    struct event event = {.kind = EVENT_HELLO};

    event.hello.session = 1;
    event.hello.offer = &offer;
    farm_step(&farm, &event);
    assert_int_equal(effect_of(&farm, EFFECT_WELCOME, 0)->code, CODE_INVALID);
    farm_free(&farm);
}

/* ---- set aside ---- */

/* A farm of workers 1 to `workers` and jobs 1 to `jobs` of many tasks, none of which has failed. */
static struct farm busy_farm(uint8_t workers, uint8_t jobs)
{
    struct farm farm = farm_new();

    for (uint8_t i = 1; i <= jobs; i++) /* studios of their own: their jobs take turns */
        submit(&farm, &(struct plan_job){i, i, 0, {{.tasks = 100}}});
    for (uint8_t i = 1; i <= workers; i++)
        join(&farm, &(struct plan_worker){.number = i, .slots = 1});
    return farm;
}

/* The lease that a worker has now. */
static bool lease_on(const struct farm *farm, uint8_t number, struct lease_id *ret_lease)
{
    const struct worker *worker = core_worker_at(farm->core, worker_numbered(farm, number));

    if (link_alone(&worker->leases))
        return false;
    *ret_lease = container_of(worker->leases.next, struct lease, of_worker)->id;
    return true;
}

static void end_on(struct farm *farm, uint8_t number, enum attempt_class class)
{
    struct lease_id lease;

    assert_true(lease_on(farm, number, &lease));
    assert_int_equal(result(farm, number, lease, class), CODE_OK);
}

TEST(a_worker_on_which_five_tasks_of_two_jobs_fail_is_set_aside_for_a_minute)
{
    struct farm farm = busy_farm(2, 2);
    struct lease_id lease;

    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    assert_false(worker_view_of(&farm, 1).aside);
    end_on(&farm, 1, CLASS_NO_OUTPUT);
    struct worker_view view = worker_view_of(&farm, 1);

    assert_true(view.aside);
    assert_int_equal(view.failed_in_a_row, 5);
    assert_int_equal(view.aside_until_wall_s, farm.now_ns / SECOND + LIMIT_ASIDE_S);
    assert_int_equal(record_of(&farm, RECORD_TEND)->tend.tend, TEND_ASIDE);
    assert_false(lease_on(&farm, 1, &lease));
    assert_false(worker_view_of(&farm, 2).aside);
    for (unsigned i = 0; i < 11; i++) { /* its beats go on */
        pass(&farm, 5 * SECOND);
        beat(&farm, 1);
        beat(&farm, 2);
        assert_true(worker_view_of(&farm, 1).aside);
    }
    pass(&farm, 5 * SECOND);
    assert_false(worker_view_of(&farm, 1).aside);
    assert_true(lease_on(&farm, 1, &lease));
    farm_free(&farm);
}

TEST(once_more_is_enough_and_twice_as_long_until_a_success)
{
    struct farm farm = busy_farm(2, 2);

    for (unsigned i = 0; i < 5; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    for (int64_t span_s = LIMIT_ASIDE_S; span_s <= 2 * LIMIT_ASIDE_MAX_S; span_s *= 2) {
        int64_t left_s = span_s < LIMIT_ASIDE_MAX_S ? span_s : LIMIT_ASIDE_MAX_S;

        assert_int_equal(worker_view_of(&farm, 1).aside_until_wall_s - farm.now_ns / SECOND,
                         left_s);
        for (; left_s > 0; left_s -= 5) {
            pass(&farm, 5 * SECOND);
            beat(&farm, 1);
            beat(&farm, 2);
        }
        assert_false(worker_view_of(&farm, 1).aside);
        end_on(&farm, 2, CLASS_OK); /* that a task is done elsewhere is no failure */
        assert_false(worker_view_of(&farm, 1).aside);
        end_on(&farm, 1, CLASS_RENDERER);
    }
    tend(&farm, 1, TEND_CLEAR, NULL);
    assert_int_equal(worker_view_of(&farm, 1).failed_in_a_row, 0);
    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    end_on(&farm, 1, CLASS_OK);
    assert_int_equal(worker_view_of(&farm, 1).failed_in_a_row, 0);
    farm_free(&farm);
}

TEST(one_broken_scene_sets_nobody_aside)
{
    struct farm farm = busy_farm(3, 1);
    struct lease_id lease;

    end_on(&farm, 1, CLASS_OK); /* so that the job does not pause itself after three */
    for (unsigned i = 0; i < 60; i++)
        for (uint8_t number = 1; number <= 3; number++)
            if (lease_on(&farm, number, &lease))
                end_on(&farm, number, CLASS_RENDERER);
    for (uint8_t number = 1; number <= 3; number++)
        assert_false(worker_view_of(&farm, number).aside);
    assert_true(worker_view_of(&farm, 2).failed_in_a_row > 5);
    farm_free(&farm);
}

TEST(one_job_is_enough_where_its_tasks_are_done_elsewhere)
{
    struct farm farm = busy_farm(2, 1);
    struct lease_id lease;

    end_on(&farm, 2, CLASS_OK);
    for (unsigned i = 0; i < 7; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    assert_false(worker_view_of(&farm, 1).aside);
    assert_true(lease_on(&farm, 2, &lease));
    end_on(&farm, 2, CLASS_OK); /* what it had; then what failed on the other comes first */
    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 2, CLASS_OK);
    assert_false(worker_view_of(&farm, 1).aside);
    end_on(&farm, 2, CLASS_OK);
    assert_true(worker_view_of(&farm, 1).aside);
    assert_int_equal(worker_view_of(&farm, 1).failed_in_a_row, 7);
    farm_free(&farm);
}

TEST(many_broken_scenes_stop_half_of_the_farm_at_most)
{
    struct farm farm = busy_farm(5, 4);
    struct lease_id lease;
    unsigned aside = 0;

    for (uint8_t number = 1; number <= 4; number++)
        end_on(&farm, number, CLASS_OK);
    for (unsigned i = 0; i < 40; i++)
        for (uint8_t number = 1; number <= 5; number++)
            if (lease_on(&farm, number, &lease))
                end_on(&farm, number, CLASS_RENDERER);
    for (uint8_t number = 1; number <= 5; number++)
        aside += worker_view_of(&farm, number).aside;
    assert_int_equal(aside, 2);
    farm_free(&farm);
}

TEST(the_only_worker_goes_on_whatever_it_fails)
{
    struct farm farm = busy_farm(1, 4);

    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 1, CLASS_OK);
    for (unsigned i = 0; i < 40; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    assert_true(worker_view_of(&farm, 1).failed_in_a_row > LIMIT_ASIDE_TASKS);
    assert_false(worker_view_of(&farm, 1).aside);
    farm_free(&farm);
}

TEST(what_is_not_the_workers_doing_does_not_count)
{
    struct farm farm = busy_farm(1, 2);
    static const enum attempt_class classes[] = {CLASS_LICENCE, CLASS_MISSING_INPUT,
                                                 CLASS_CANCELLED};

    end_on(&farm, 1, CLASS_OK);
    for (unsigned i = 0; i < 9; i++)
        end_on(&farm, 1, classes[i % 3]);
    assert_int_equal(worker_view_of(&farm, 1).failed_in_a_row, 0);
    farm_free(&farm);
}

TEST(one_task_that_fails_again_and_again_is_one)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    submit(&farm, &(struct plan_job){2, 2, 0, {{.tasks = 1}}});
    join(&farm, &two);
    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 2, CLASS_RENDERER);
    assert_int_equal(worker_view_of(&farm, 2).failed_in_a_row, 2);
    farm_free(&farm);
}

TEST(clearing_a_worker_leaves_the_marks_of_its_tasks)
{
    struct farm farm = busy_farm(2, 2);
    struct lease_id lease;

    assert_true(lease_on(&farm, 1, &lease));
    end_on(&farm, 1, CLASS_RENDERER);
    for (unsigned i = 0; i < 4; i++)
        end_on(&farm, 1, CLASS_RENDERER);
    assert_true(worker_view_of(&farm, 1).aside);
    tend(&farm, 1, TEND_CLEAR, NULL);
    assert_false(worker_view_of(&farm, 1).aside);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    const struct task *task =
        task_find(job_step(farm.core, &lease.job, lease.task), lease.task.index);

    assert_int_equal(task->past->n_failed_on, 1);
    assert_ptr_equal(task->past->failed_on[0], core_worker_at(farm.core, worker_numbered(&farm, 1)));
    farm_free(&farm);
}

TEST(the_time_aside_goes_on_over_a_restart)
{
    struct farm farm = farm_new();
    struct memory memory = {0};
    struct record record = {.kind = RECORD_TEND, .sequence = 1};

    record.tend.tend = TEND_ASIDE;
    record.tend.worker.bytes[0] = 1;
    record.tend.text = "";
    record.tend.until_wall_s = 100;
    memory.records[memory.n++] = record;
    farm_free(&farm);
    for (int64_t now_s = 50; now_s <= 150; now_s += 100) {
        struct core_config config = {.epoch = 2};
        struct farm back = {.core = core_new(&config), .now_ns = now_s * SECOND};

        outbox_init(&back.outbox);
        core_apply(back.core, &record);
        core_recovered(back.core, back.now_ns);
        submit(&back, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
        join(&back, &one);
        assert_int_equal(worker_view_of(&back, 1).aside, now_s < 100);
        assert_int_equal(effects_of(&back, EFFECT_ASSIGN), now_s > 100);
        if (now_s < 100) {
            assert_int_equal(why_of(&back, 1, 0).kind, WHY_UNWILLING);
            assert_int_equal(why_of(&back, 1, 0).aside, 1);
            for (unsigned i = 0; i < 10; i++) {
                pass(&back, 5 * SECOND);
                beat(&back, 1);
            }
            assert_int_equal(state_of(&back, 1, 0, 0), TASK_LEASED);
        }
        farm_free(&back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drained_worker_finishes_what_runs_and_gives_back_what_has_not_begun),
        cmocka_unit_test(one_that_is_assigned_and_has_not_begun_goes_back_too_unless_it_was_faster),
        cmocka_unit_test(
            a_worker_that_lost_its_link_while_it_was_drained_is_told_to_drop_what_it_has_not_begun),
        cmocka_unit_test(a_worker_without_room_gets_nothing_and_what_it_hands_back_is_no_attempt),
        cmocka_unit_test(what_fills_the_disk_of_every_worker_fails_on_the_third_and_is_parked),
        cmocka_unit_test(two_workers_that_fill_up_again_and_again_fail_nothing),
        cmocka_unit_test(what_was_done_to_a_worker_outlives_the_broker_and_the_worker),
        cmocka_unit_test(the_same_request_does_nothing_twice_and_another_body_is_refused),
        cmocka_unit_test(a_pool_takes_its_own_jobs_and_no_others),
        cmocka_unit_test(what_a_pool_lacks_is_told_of_the_pool_alone),
        cmocka_unit_test(
            a_worker_that_changes_pools_finishes_what_runs_and_gives_back_what_no_longer_fits),
        cmocka_unit_test(a_worker_may_not_say_that_it_is_in_a_pool),
        cmocka_unit_test(a_worker_on_which_five_tasks_of_two_jobs_fail_is_set_aside_for_a_minute),
        cmocka_unit_test(once_more_is_enough_and_twice_as_long_until_a_success),
        cmocka_unit_test(one_broken_scene_sets_nobody_aside),
        cmocka_unit_test(one_job_is_enough_where_its_tasks_are_done_elsewhere),
        cmocka_unit_test(many_broken_scenes_stop_half_of_the_farm_at_most),
        cmocka_unit_test(the_only_worker_goes_on_whatever_it_fails),
        cmocka_unit_test(what_is_not_the_workers_doing_does_not_count),
        cmocka_unit_test(one_task_that_fails_again_and_again_is_one),
        cmocka_unit_test(clearing_a_worker_leaves_the_marks_of_its_tasks),
        cmocka_unit_test(the_time_aside_goes_on_over_a_restart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
