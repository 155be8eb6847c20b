/* Cancel, pause, resume, retry, priority; and what failing does. */
#include "core_fixture.h"

static const struct plan_worker one = {.number = 1, .slots = 1}, two = {.number = 2, .slots = 1},
                                three = {.number = 3, .slots = 1};

TEST(a_foreign_job_is_answered_as_an_unknown_one)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    assert_int_equal(verb_as(&farm, 2, 1, VERB_CANCEL, NULL, 50, 0), CODE_UNKNOWN);
    assert_int_equal(verb_as(&farm, 2, 9, VERB_CANCEL, NULL, 51, 0), CODE_UNKNOWN);
    assert_int_equal(farm.outbox.n_records, 0);
    assert_int_equal(verb_as(&farm, 0, 1, VERB_CANCEL, NULL, 52, 0), CODE_OK); /* an operator */
    farm_free(&farm);
}

TEST(retrying_one_frame_while_twenty_run_disturbs_none)
{
    struct farm farm = farm_new();
    struct task_range first = {0, 0, 0};
    struct lease_id leases[21];

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 21}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 21});
    for (size_t i = 0; i < 21; i++)
        leases[i] = assigned(&farm, i);
    for (size_t i = 0; i < 21; i++)
        started(&farm, 1, leases[i]);
    result(&farm, 1, leases[0], CLASS_OK);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &first), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    assert_int_equal(assigned(&farm, 0).floor, 1);
    assert_int_equal(result(&farm, 1, leases[0], CLASS_OK), CODE_STALE);
    for (size_t i = 1; i < 21; i++)
        assert_int_equal(result(&farm, 1, leases[i], CLASS_OK), CODE_OK);
    farm_free(&farm);
}

TEST(a_retry_reaches_what_depends_on_it_and_nothing_else)
{
    struct farm farm = farm_new();
    struct task_range second = {0, 1, 1};
    struct job_id id = job_numbered(1);
    struct task_range done[4];

    submit(&farm,
           &(struct plan_job){
               1,
               1,
               0,
               {{.tasks = 3}, {.tasks = 3, .depends = 1, .per = 1}, {.tasks = 1, .depends = 2}}});
    join(&farm, &one);
    while (effects_of(&farm, EFFECT_ASSIGN))
        result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    assert_int_equal(view_of(&farm, 1).counts.done, 7);
    verb(&farm, 1, VERB_RETRY, &second);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 3);
    assert_int_equal(view_of(&farm, 1).counts.done, 4);
    assert_int_equal(core_task_ranges(farm.core, &id, 1, TASK_DONE, 0, done, 4), 2);
    assert_int_equal(done[1].first, 2);
    assert_int_equal(state_of(&farm, 1, 2, 0), TASK_WAITING);
    farm_free(&farm);
}

TEST(cancel_stops_what_runs_and_frees_the_room_when_it_has_stopped)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    assert_int_equal(verb(&farm, 1, VERB_CANCEL, NULL), CODE_OK);
    assert_int_equal(effect_of(&farm, EFFECT_REVOKE, 0)->revoke.revoke, CORE_REVOKE_STOP);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(view_of(&farm, 1).counts.cancelled, 2);
    assert_int_equal(result(&farm, 1, lease, CLASS_CANCELLED), CODE_STALE);
    assert_int_equal(assigned(&farm, 0).job.bytes[0], 2);
    assert_int_equal(verb(&farm, 1, VERB_PAUSE, NULL), CODE_STATE);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, NULL), CODE_OK); /* taken up again */
    assert_int_equal(view_of(&farm, 1).counts.ready, 2);
    farm_free(&farm);
}

TEST(frames_of_a_cancelled_job_are_taken_up_again_and_the_others_are_not)
{
    struct farm farm = farm_new();
    struct task_range one_task = {0, 2, 2};
    struct task_range first = {0, 0, 0};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    join(&farm, &one);
    assert_int_equal(result(&farm, 1, assigned(&farm, 0), CLASS_OK), CODE_OK);
    verb(&farm, 1, VERB_CANCEL, NULL);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 3);
    assert_int_equal(verb(&farm, 1, VERB_CANCEL, &first), CODE_OK);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 0);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &one_task), CODE_OK);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 1);
    assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE);
    assert_int_equal(view_of(&farm, 1).counts.done, 1);
    assert_int_equal(view_of(&farm, 1).counts.cancelled, 2);
    assert_int_not_equal(state_of(&farm, 1, 0, 2), TASK_CANCELLED);
    farm_free(&farm);
}

TEST(what_is_done_can_neither_be_cancelled_nor_paused)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    assert_int_equal(result(&farm, 1, assigned(&farm, 0), CLASS_OK), CODE_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(verb(&farm, 1, i ? VERB_PAUSE : VERB_CANCEL, NULL), CODE_OK);
        assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 0);
        assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE);
    }
    farm_free(&farm);
}

TEST(a_pause_lets_running_work_finish_and_takes_queued_work_back)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 3}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .prefetch = 1});
    struct lease_id running = assigned(&farm, 0), queued = assigned(&farm, 1);

    started(&farm, 1, running);
    verb(&farm, 1, VERB_PAUSE, NULL);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 1);
    assert_int_equal(effect_of(&farm, EFFECT_REVOKE, 0)->lease.attempt, queued.attempt);
    released(&farm, 1, queued);
    assert_int_equal(result(&farm, 1, running, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    verb(&farm, 1, VERB_RESUME, NULL);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    farm_free(&farm);
}

TEST(a_task_that_fails_on_three_different_workers_is_parked)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    join(&farm, &two);
    join(&farm, &three);
    result(&farm, 1, lease, CLASS_RENDERER);
    assert_int_not_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->worker.value,
                         worker_numbered(&farm, 1).value);
    for (unsigned i = 0; i < 2; i++) {
        const struct effect *assign = effect_of(&farm, EFFECT_ASSIGN, 0);
        uint8_t who = assign->worker.value == worker_numbered(&farm, 2).value ? 2 : 3;

        result(&farm, who, assign->lease, CLASS_RENDERER);
    }
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_FAILED);
    assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE); /* nothing is left to pause */
    assert_int_equal(verb(&farm, 1, VERB_RETRY, NULL), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(a_farm_of_one_parks_after_three_attempts)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    for (unsigned i = 0; i < 3; i++) {
        struct lease_id lease = assigned(&farm, 0);

        assert_int_equal(result(&farm, 1, lease, CLASS_TIMEOUT), CODE_OK);
        assert_int_equal(result(&farm, 1, lease, CLASS_TIMEOUT),
                         i < 2 ? CODE_ALREADY : CODE_ALREADY); /* counted once */
        if (i < 2) {
            struct lease_view view;
            struct job_id id = job_numbered(1);

            assert_int_equal(core_job_leases(farm.core, &id, &view, 1), 1);
            released(&farm, 1, view.lease);
            farm.now_ns += HANDED_BACK_NS;
            tick(&farm);
        }
    }
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_FAILED);
    farm_free(&farm);
}

TEST(a_missing_licence_backs_off_and_never_parks)
{
    struct farm farm = farm_new();
    int64_t wait_ns = LIMIT_LICENCE_NS;

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    for (unsigned i = 0; i < 8; i++) {
        result(&farm, 1, assigned(&farm, 0), CLASS_LICENCE);
        assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
        assert_int_equal(why_of(&farm, 1, 0).kind, WHY_LICENCE);
        for (int64_t until_ns = farm.now_ns + wait_ns; farm.now_ns < until_ns;) {
            assert_int_equal(state_of(&farm, 1, 0, 0), TASK_WAITING);
            farm.now_ns += SECOND;
            beat(&farm, 1);
        }
        wait_ns = 2 * wait_ns < BACK_OFF_MAX_NS ? 2 * wait_ns : BACK_OFF_MAX_NS;
    }
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_LEASED);
    farm_free(&farm);
}

TEST(a_job_pauses_itself_when_its_first_attempts_all_fail)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 9}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 3});
    struct lease_id leases[] = {assigned(&farm, 0), assigned(&farm, 1), assigned(&farm, 2)};

    for (size_t i = 0; i < 3; i++)
        result(&farm, 1, leases[i], CLASS_MISSING_INPUT);
    assert_int_equal(view_of(&farm, 1).state, JOB_PAUSED);
    assert_int_equal(view_of(&farm, 1).reason, REASON_FAILED_FIRST);
    verb(&farm, 1, VERB_RESUME, NULL);
    assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE);
    farm_free(&farm);
}

TEST(one_broken_worker_of_many_does_not_pause_a_job)
{
    struct farm farm = farm_new();
    struct lease_id leases[10];

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 20}}});
    for (uint8_t number = 1; number <= 10; number++) {
        join(&farm, &(struct plan_worker){.number = number, .slots = 1});
        leases[number - 1] = assigned(&farm, 0);
    }
    for (size_t i = 0; i < 4; i++) {
        result(&farm, 1, leases[0], CLASS_MISSING_INPUT);
        leases[0] = assigned(&farm, 0);
    }
    assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE);
    result(&farm, 2, leases[1], CLASS_MISSING_INPUT);
    assert_int_equal(view_of(&farm, 1).state, JOB_ACTIVE);
    result(&farm, 3, leases[2], CLASS_MISSING_INPUT);
    assert_int_equal(view_of(&farm, 1).state, JOB_PAUSED);
    assert_int_equal(view_of(&farm, 1).reason, REASON_FAILED_FIRST);
    farm_free(&farm);
}

static enum code retry_every_second(struct farm *farm, uint32_t n, uint8_t request)
{
    struct event event = {.kind = EVENT_VERB};
    struct task_range *ranges = calloc(n, sizeof(*ranges));

    assert_non_null(ranges);
    for (uint32_t i = 0; i < n; i++)
        ranges[i] = (struct task_range){0, 2 * i, 2 * i};
    event.verb.verb = VERB_RETRY;
    event.verb.studio.value = 1;
    event.verb.job = job_numbered(1);
    event.verb.request.bytes[0] = request;
    event.verb.ranges = ranges;
    event.verb.n_ranges = n;
    farm_step(farm, &event);
    free(ranges);
    return effect_of(farm, EFFECT_REPLY, 0)->code;
}

TEST(a_retry_may_come_to_many_pieces_and_no_more_than_a_limit)
{
    struct farm farm = farm_new();
    struct plan_job plan = {1,
                            1,
                            0,
                            {{.tasks = 40000},
                             {.tasks = 40000, .depends = 1, .per = 1},
                             {.tasks = 40000, .depends = 2, .per = 1}}};

    submit(&farm, &plan);
    assert_int_equal(retry_every_second(&farm, LIMIT_PIECES_VERB, 200), CODE_OK);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 3 * LIMIT_PIECES_VERB);
    assert_int_equal(farm.outbox.n_records, 3 * LIMIT_PIECES_VERB + 1);
    assert_int_equal(retry_every_second(&farm, LIMIT_PIECES_VERB + 1, 201), CODE_INVALID);
    farm_free(&farm);
}

TEST(a_job_is_not_finished_while_a_lost_task_waits_for_another_worker)
{
    struct task_range second = {0, 1, 1};
    struct job_id job = job_numbered(1);
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    join(&farm, &one);
    started(&farm, 1, assigned(&farm, 0));
    assert_int_equal(verb(&farm, 1, VERB_CANCEL, &second), CODE_OK);
    join(&farm, &two);
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1}}});
    started(&farm, 2, assigned(&farm, 0));
    hello(&farm, &one, 2, 2); /* another process: what the first one ran is lost */
    inventory(&farm, 1, NULL, 0);
    assert_int_equal(view_of(&farm, 1).counts.waiting, 1);
    assert_false(core_finished(farm.core, &job));
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_foreign_job_is_answered_as_an_unknown_one),
        cmocka_unit_test(retrying_one_frame_while_twenty_run_disturbs_none),
        cmocka_unit_test(a_retry_reaches_what_depends_on_it_and_nothing_else),
        cmocka_unit_test(cancel_stops_what_runs_and_frees_the_room_when_it_has_stopped),
        cmocka_unit_test(frames_of_a_cancelled_job_are_taken_up_again_and_the_others_are_not),
        cmocka_unit_test(what_is_done_can_neither_be_cancelled_nor_paused),
        cmocka_unit_test(a_pause_lets_running_work_finish_and_takes_queued_work_back),
        cmocka_unit_test(a_task_that_fails_on_three_different_workers_is_parked),
        cmocka_unit_test(a_farm_of_one_parks_after_three_attempts),
        cmocka_unit_test(a_missing_licence_backs_off_and_never_parks),
        cmocka_unit_test(a_job_pauses_itself_when_its_first_attempts_all_fail),
        cmocka_unit_test(a_retry_may_come_to_many_pieces_and_no_more_than_a_limit),
        cmocka_unit_test(one_broken_worker_of_many_does_not_pause_a_job),
        cmocka_unit_test(a_job_is_not_finished_while_a_lost_task_waits_for_another_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
