/* Leases: granted, queued behind another, lapsed, adopted, noted; and their results. */
#include "core_fixture.h"

static const struct plan_job four = {1, 1, 0, {{.tasks = 4}}};
static const struct plan_worker one = {.number = 1, .slots = 1}, two = {.number = 2, .slots = 1};

TEST(nothing_is_leased_before_the_list_has_come)
{
    struct farm farm = farm_new();

    submit(&farm, &four);
    hello(&farm, &one, 1, 1);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    inventory(&farm, 1, NULL, 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    assert_true(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.last);
    farm_free(&farm);
}

TEST(what_is_expected_and_what_is_unknown_changes_nothing)
{
    struct farm farm = farm_new();
    struct lease_id leases[CORE_EXPECT] = {0};

    core_expect(farm.core, leases, CORE_EXPECT);
    submit(&farm, &four);
    join(&farm, &one);
    for (size_t i = 0; i < CORE_EXPECT; i++) {
        leases[i] = assigned(&farm, 0);
        leases[i].job = job_numbered((uint8_t)(1 + i % 3));
        leases[i].task.step = i % 5 / 4;
        leases[i].task.index = i % 7 ? i / 7 : UINT64_MAX;
        leases[i].attempt += i % 11;
    }
    leases[3] = assigned(&farm, 0);
    uint64_t digest = core_digest(farm.core);

    core_expect(farm.core, leases, CORE_EXPECT);
    core_expect(farm.core, leases, 0);
    core_audit(farm.core);
    assert_true(core_digest(farm.core) == digest);
    assert_int_equal(result(&farm, 1, leases[3], CLASS_OK), CODE_OK);
    core_expect(farm.core, &leases[3], 1);
    farm_free(&farm);
}

TEST(a_lease_lapses_at_its_deadline_not_before)
{
    struct farm farm = farm_new();

    submit(&farm, &four);
    join(&farm, &one);
    started(&farm, 1, assigned(&farm, 0));
    pass(&farm, LIMIT_LEASE_NS - 1);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    pass(&farm, 1);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_READY);
    assert_int_equal(record_of(&farm, RECORD_ATTEMPT)->attempt.class, CLASS_WORKER_LOST);
    farm_free(&farm);
}

TEST(a_lapsed_lease_is_honoured_if_its_result_comes_first)
{
    struct farm farm = farm_new();

    submit(&farm, &four);
    join(&farm, &one);
    struct lease_id lost = assigned(&farm, 0);

    started(&farm, 1, lost);
    pass(&farm, LIMIT_LEASE_NS);
    join(&farm, &two);
    struct lease_id again = assigned(&farm, 0);

    assert_int_equal(again.task.index, lost.task.index);
    assert_int_equal(result(&farm, 1, lost, CLASS_OK), CODE_OK);
    assert_int_equal(effect_of(&farm, EFFECT_REVOKE, 0)->revoke.revoke, CORE_REVOKE_STOP);
    assert_int_equal(result(&farm, 2, again, CLASS_OK), CODE_ALREADY);
    assert_int_equal(view_of(&farm, 1).counts.done, 1);
    farm_free(&farm);
}

TEST(a_broker_that_was_away_itself_takes_nobody_for_lost)
{
    struct farm farm = farm_new();

    submit(&farm, &four);
    join(&farm, &one);
    started(&farm, 1, assigned(&farm, 0));
    farm.now_ns += 20 * LIMIT_LEASE_NS;
    tick(&farm);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    farm_free(&farm);
}

TEST(what_is_queued_behind_a_lease_inherits_its_room_and_cards)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 3, .cards = 1}}});
    join(&farm, &(struct plan_worker){
                    .number = 1, .slots = 1, .prefetch = 1, .cards = 2, .card_memory_mib = 8000});
    struct lease_id head = assigned(&farm, 0), behind = assigned(&farm, 1);

    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->assign.gpu_mask, 1);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 1)->assign.behind, head.attempt);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 1)->assign.gpu_mask, 1);
    started(&farm, 1, head);
    started(&farm, 1, behind); /* the first is sending its result */
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->assign.behind, behind.attempt);
    assert_int_equal(result(&farm, 1, head, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(result(&farm, 1, behind, CLASS_OK), CODE_OK);
    farm_free(&farm);
}

TEST(what_has_not_started_is_asked_back_for_a_worker_without_work)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .prefetch = 1});
    struct lease_id queued = assigned(&farm, 1);

    join(&farm, &two);
    assert_int_equal(effect_of(&farm, EFFECT_REVOKE, 0)->revoke.revoke, CORE_REVOKE_TAKE_BACK);
    beat(&farm, 2);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 0); /* once */
    released(&farm, 1, queued);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->worker.value,
                     worker_numbered(&farm, 2).value);
    farm_free(&farm);
}

TEST(work_handed_back_unasked_goes_to_somebody_else)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    released(&farm, 1, lease);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_RETRYING);
    join(&farm, &two);
    farm.now_ns += HANDED_BACK_NS;
    tick(&farm);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_LEASED);
    farm_free(&farm);
}

TEST(a_started_lease_handed_back_is_an_attempt)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    released(&farm, 1, lease);
    assert_int_equal(record_of(&farm, RECORD_ATTEMPT)->attempt.class, CLASS_WORKER_LOST);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_LEASED); /* there is nobody else */
    farm_free(&farm);
}

TEST(work_that_was_stopped_unasked_is_handed_back)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    assert_int_equal(result(&farm, 1, assigned(&farm, 0), CLASS_CANCELLED), CODE_OK);
    assert_null(record_of(&farm, RECORD_ATTEMPT));
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0); /* not at once */
    farm.now_ns += HANDED_BACK_NS;
    tick(&farm);
    for (int i = 0; i < 3; i++) {
        struct lease_id lease = assigned(&farm, 0);

        started(&farm, 1, lease);
        assert_int_equal(result(&farm, 1, lease, CLASS_CANCELLED), CODE_OK);
    }
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_FAILED); /* not for ever */
    farm_free(&farm);
}

TEST(an_assignment_that_could_not_be_sent_is_granted_elsewhere)
{
    struct farm farm = farm_new();
    struct event event = {.kind = EVENT_UNSENT};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    join(&farm, &one);
    event.unsent.worker = worker_numbered(&farm, 1);
    event.unsent.lease = assigned(&farm, 0);
    farm_step(&farm, &event);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0); /* not to one that cannot be reached */
    beat(&farm, 1);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(a_session_goes_on_a_new_process_takes_over_and_a_second_one_is_refused)
{
    struct farm farm = farm_new();

    join(&farm, &one);
    assert_int_equal(hello(&farm, &one, 2, 1), CODE_OK);       /* reconnected */
    assert_int_equal(hello(&farm, &one, 1, 1), CODE_STALE);    /* a late HELLO */
    assert_int_equal(hello(&farm, &one, 3, 2), CODE_OK);       /* started anew on its folder */
    assert_int_equal(hello(&farm, &one, 3, 9), CODE_CONFLICT); /* the same key elsewhere */
    farm.rival = true;
    assert_int_equal(hello(&farm, &one, 4, 9), CODE_CONFLICT); /* a copy of its folder */
    assert_int_equal(hello(&farm, &one, 4, 2), CODE_OK);       /* the process itself, anew */
    farm.rival = false;
    pass(&farm, LIMIT_LEASE_NS);
    assert_int_equal(hello(&farm, &one, 1, 9), CODE_OK); /* installed anew where the old one died */
    farm_free(&farm);
}

TEST(a_returning_worker_keeps_sends_and_drops_as_floors_say)
{
    struct farm farm = farm_new();
    struct task_range last = {0, 2, 2};

    submit(&farm, &four);
    join(&farm, &(struct plan_worker){.number = 1, .slots = 4});
    struct lease_id leases[4];

    for (size_t i = 0; i < 4; i++)
        leases[i] = assigned(&farm, i);
    for (size_t i = 0; i < 4; i++)
        started(&farm, 1, leases[i]);
    verb(&farm, 1, VERB_RETRY, &last);
    hello(&farm, &(struct plan_worker){.number = 1, .slots = 4}, 2, 1);
    struct inventory_item items[] = {
        {leases[0], HELD_RUNNING, 0}, {leases[1], HELD_RESULT, 0}, {leases[2], HELD_RUNNING, 0}};

    inventory(&farm, 1, items, 3);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 1)->verdict.verdict, VERDICT_SEND);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 2)->verdict.verdict, VERDICT_DROP);
    /* The fourth is lost: an attempt, and both it and the retried one are leased anew. */
    assert_int_equal(record_of(&farm, RECORD_ATTEMPT)->attempt.class, CLASS_WORKER_LOST);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    farm_free(&farm);
}

/* A second core that has read the first one's records; blobs and spaces as after a restart. */
static struct farm restarted(const struct plan_job *job, const struct record *records,
                             size_t n_records)
{
    struct core_config config = {.epoch = 2};
    struct farm farm = {.core = core_new(&config), .now_ns = 1000 * SECOND, .requests = 100};
    struct job_spec spec;
    struct step_spec steps[3];
    struct space spaces[3];

    outbox_init(&farm.outbox);
    spec_of(job, &spec, steps, spaces);
    for (size_t i = 0; i < n_records; i++) {
        struct record record = records[i];

        if (record.kind == RECORD_JOB)
            record.submit.spec = &spec;
        core_apply(farm.core, &record);
    }
    core_recovered(farm.core, farm.now_ns);
    core_audit(farm.core);
    return farm;
}

TEST(after_a_restart_a_noted_task_is_held_and_adopted_and_an_unnoted_one_is_ready)
{
    struct farm farm = farm_new();
    struct record records[8];
    size_t n = 0;

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    records[n++] = farm.outbox.records[0];
    records[n++] = farm.outbox.records[1];
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    farm.now_ns += LIMIT_NOTE_AFTER_NS + SECOND;
    tick(&farm);
    records[n++] = *record_of(&farm, RECORD_NOTE);
    uint64_t digest = core_digest(farm.core);

    farm_free(&farm);
    farm = restarted(&(struct plan_job){1, 1, 0, {{.tasks = 2}}}, records, n);
    assert_true(core_digest(farm.core) == digest);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    assert_int_equal(state_of(&farm, 1, 0, 1), TASK_READY);
    join(&farm, &two);
    assert_int_equal(assigned(&farm, 0).task.index, 1); /* not the held one */
    hello(&farm, &one, 7, 1);
    inventory(&farm, 1, &(struct inventory_item){lease, HELD_RUNNING, 0}, 1);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    assert_int_equal(result(&farm, 1, lease, CLASS_OK), CODE_OK);
    farm_free(&farm);
}

TEST(a_lease_held_over_a_restart_has_its_room_when_its_worker_is_back)
{
    struct farm farm = farm_new();
    struct record records[8];

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    records[0] = farm.outbox.records[0];
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    farm.now_ns += LIMIT_NOTE_AFTER_NS + SECOND;
    tick(&farm);
    records[1] = *record_of(&farm, RECORD_NOTE);
    farm_free(&farm);
    farm = restarted(&(struct plan_job){1, 1, 0, {{.tasks = 2}}}, records, 2);
    hello(&farm, &one, 7, 1);
    inventory(&farm, 1, &(struct inventory_item){lease, HELD_RUNNING, 0}, 1);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0); /* its one slot is taken */
    result(&farm, 1, lease, CLASS_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(a_held_task_is_ready_when_the_reconnect_window_has_passed)
{
    struct farm farm = farm_new();
    struct record records[8];

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    records[0] = farm.outbox.records[0];
    join(&farm, &one);
    started(&farm, 1, assigned(&farm, 0));
    farm.now_ns += LIMIT_NOTE_AFTER_NS + SECOND;
    tick(&farm);
    records[1] = *record_of(&farm, RECORD_NOTE);
    farm_free(&farm);
    farm = restarted(&(struct plan_job){1, 1, 0, {{.tasks = 1}}}, records, 2);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_HELD);
    farm.now_ns += LIMIT_RECONNECT_NS - 1;
    tick(&farm);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    farm.now_ns += 1;
    tick(&farm);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_READY);
    farm_free(&farm);
}

TEST(a_revoked_worker_leaves_everything)
{
    struct farm farm = farm_new();
    struct event event = {.kind = EVENT_EXPEL};

    submit(&farm, &four);
    join(&farm, &one);
    event.expel.key.bytes[0] = 1;
    farm_step(&farm, &event);
    assert_int_equal(view_of(&farm, 1).counts.ready, 4);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_NO_WORKER);
    farm_free(&farm);
}

TEST(a_worker_that_comes_back_after_a_restart_with_its_noted_task_has_no_room_for_another)
{
    struct farm farm = farm_new();
    struct record records[8];
    struct plan_job two_cards = {1, 1, 0, {{.tasks = 2, .cards = 1}}};
    struct plan_worker node = {.number = 1, .slots = 1, .cards = 2, .card_memory_mib = 8000};

    submit(&farm, &two_cards);
    records[0] = farm.outbox.records[0];
    join(&farm, &node);
    struct lease_id lease = assigned(&farm, 0);

    started(&farm, 1, lease);
    farm.now_ns += LIMIT_NOTE_AFTER_NS + SECOND;
    tick(&farm);
    records[1] = *record_of(&farm, RECORD_NOTE);
    farm_free(&farm);
    farm = restarted(&two_cards, records, 2);
    hello(&farm, &node, 2, 1);
    inventory(&farm, 1, &(struct inventory_item){lease, HELD_RUNNING, 1}, 1);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(result(&farm, 1, lease, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(what_is_stopped_while_the_list_still_comes_is_in_the_way_until_it_has_stopped)
{
    struct farm farm = farm_new();
    struct plan_job job = {1, 1, 0, {{.tasks = 2, .cards = 1}}};
    struct plan_worker node = {.number = 1, .slots = 1, .cards = 1, .card_memory_mib = 8000};
    struct record record = {0};

    submit(&farm, &job);
    record = farm.outbox.records[0];
    join(&farm, &node);
    struct lease_id lease = assigned(&farm, 0);
    struct inventory_item item = {lease, HELD_RUNNING, 1};

    farm_free(&farm);
    farm = restarted(&job, &record, 1);
    hello(&farm, &node, 2, 1);
    struct event part = {.kind = EVENT_INVENTORY};

    part.inventory.worker = worker_numbered(&farm, 1);
    part.inventory.items = &item;
    part.inventory.n_items = 1;
    farm_step(&farm, &part); /* more of it is to come */
    assert_int_equal(
        verb(&farm, 1, VERB_CANCEL, &(struct task_range){0, lease.task.index, lease.task.index}),
        CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 1);
    inventory(&farm, 1, NULL, 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    assert_int_equal(result(&farm, 1, lease, CLASS_CANCELLED), CODE_STALE);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(word_that_a_lapsed_lease_runs_may_come_before_the_list)
{
    struct farm farm = farm_new();

    submit(&farm, &four);
    join(&farm, &one);
    struct lease_id lease = assigned(&farm, 0);

    pass(&farm, LIMIT_LEASE_NS);
    hello(&farm, &one, 2, 1);
    started(&farm, 1, lease);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_READY);
    inventory(&farm, 1, &(struct inventory_item){lease, HELD_RUNNING, 0}, 1);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    pass(&farm, LIMIT_NOTE_AFTER_NS + SECOND);
    assert_non_null(record_of(&farm, RECORD_NOTE));
    farm_free(&farm);
}

/* Time passes in steps of a second, while some workers beat every five. */
static void pass_beating(struct farm *farm, int64_t seconds, uint8_t first, uint8_t last)
{
    for (int64_t i = 0; i < seconds; i++) {
        pass(farm, SECOND);
        for (uint8_t number = first; i % 5 == 4 && number <= last; number++)
            beat(farm, number);
    }
}

/* Workers 1..n with one task each of job 1, started. */
static struct farm farm_at_work(uint8_t n, struct lease_id *leases)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = n}}});
    for (uint8_t number = 1; number <= n; number++) {
        join(&farm, &(struct plan_worker){.number = number, .slots = 1});
        leases[number - 1] = assigned(&farm, 0);
        started(&farm, number, leases[number - 1]);
    }
    return farm;
}

TEST(when_half_the_workers_fall_silent_the_broker_takes_itself_for_cut_off)
{
    struct lease_id leases[4];
    struct farm farm = farm_at_work(4, leases);

    pass_beating(&farm, 50, 3, 4);
    assert_int_equal(view_of(&farm, 1).counts.running, 4);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_HELD);
    beat(&farm, 1); /* back in time: as if nothing had been */
    assert_int_equal(result(&farm, 1, leases[0], CLASS_OK), CODE_OK);
    pass_beating(&farm, 60, 3, 4); /* the window, counted from the first word heard */
    assert_int_equal(view_of(&farm, 1).attempts_failed, 1);
    assert_int_equal(state_of(&farm, 1, 0, 1), TASK_WAITING); /* for a worker that has room */
    assert_int_equal(state_of(&farm, 1, 0, 2), TASK_RUNNING);
    farm_free(&farm);
}

TEST(fewer_than_half_and_a_single_worker_lapse_at_once)
{
    struct lease_id leases[5];
    struct farm farm = farm_at_work(5, leases);

    pass_beating(&farm, 30, 3, 5);
    assert_int_equal(view_of(&farm, 1).counts.running, 3);
    assert_int_equal(view_of(&farm, 1).attempts_failed, 2);
    farm_free(&farm);
    farm = farm_at_work(2, leases);
    pass_beating(&farm, 30, 2, 2);
    assert_int_equal(view_of(&farm, 1).counts.running, 1);
    farm_free(&farm);
}

TEST(while_nobody_is_heard_tasks_are_held_and_the_first_return_begins_the_window)
{
    struct lease_id leases[3];
    struct farm farm = farm_at_work(3, leases);

    pass(&farm, 600 * SECOND);
    assert_int_equal(view_of(&farm, 1).counts.running, 3);
    assert_true(core_deadline_ns(farm.core) ==
                retain_deadline_ns(farm.core)); /* the clock's alone */
    hello(&farm, &one, 2, 1);
    inventory(&farm, 1, &(struct inventory_item){leases[0], HELD_RUNNING, 0}, 1);
    assert_int_equal(effect_of(&farm, EFFECT_VERDICT, 0)->verdict.verdict, VERDICT_KEEP);
    pass_beating(&farm, 59, 1, 1);
    assert_int_equal(view_of(&farm, 1).counts.running, 3);
    hello(&farm, &two, 2, 1);
    inventory(&farm, 2, &(struct inventory_item){leases[1], HELD_RUNNING, 0}, 1);
    pass_beating(&farm, 1, 1, 2);
    assert_int_equal(view_of(&farm, 1).attempts_failed, 1); /* the third never came */
    assert_int_equal(state_of(&farm, 1, 0, 2), TASK_WAITING);
    assert_int_equal(view_of(&farm, 1).counts.running, 2);
    farm_free(&farm);
}

TEST(the_same_lease_is_lost_once_however_often_its_worker_is_silent)
{
    struct lease_id leases[5];
    struct farm farm = farm_at_work(5, leases);

    for (int i = 0; i < 4; i++) {
        pass_beating(&farm, 40, 2, 5);
        beat(&farm, 1);
        assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING);
    }
    assert_int_equal(view_of(&farm, 1).attempts_failed, 1);
    assert_int_equal(view_of(&farm, 1).counts.failed, 0);
    farm_free(&farm);
}

TEST(a_lost_lease_is_remembered_however_many_attempts_follow)
{
    struct lease_id lease;
    struct farm farm = farm_at_work(1, &lease);

    join(&farm, &two);
    pass_beating(&farm, 40, 2, 2);
    for (unsigned i = 0; i < 2 * TASK_RECENT;) { /* it lacks a licence all day */
        const struct worker *worker = core_worker_at(farm.core, worker_numbered(&farm, 2));

        pass_beating(&farm, 5, 2, 2);
        if (link_alone(&worker->leases))
            continue;
        lease = container_of(worker->leases.next, struct lease, of_worker)->id;
        started(&farm, 2, lease);
        assert_int_equal(result(&farm, 2, lease, CLASS_LICENCE), CODE_OK);
        i++;
    }
    uint64_t failed = view_of(&farm, 1).attempts_failed;

    beat(&farm, 1);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_RUNNING); /* it lived all the time */
    pass_beating(&farm, 40, 2, 2);
    assert_int_equal(view_of(&farm, 1).attempts_failed, failed);
    farm_free(&farm);
}

TEST(a_broker_that_does_not_read_takes_nobody_for_silent)
{
    struct lease_id leases[5];
    struct farm farm = farm_at_work(5, leases);
    struct event event = {.kind = EVENT_TICK, .unread = true};

    pass_beating(&farm, 29, 2, 5);
    farm.now_ns += SECOND;
    farm_step(&farm, &event);
    assert_int_equal(view_of(&farm, 1).counts.running, 5);
    pass_beating(&farm, 29, 2, 5);
    assert_int_equal(view_of(&farm, 1).counts.running, 5);
    pass_beating(&farm, 1, 2, 5);
    assert_int_equal(view_of(&farm, 1).counts.running, 4);
    farm_free(&farm);
}

TEST(a_task_is_not_given_up_while_those_that_could_run_it_are_held)
{
    struct farm farm = farm_new();

    for (uint8_t number = 1; number <= 4; number++)
        join(&farm, &(struct plan_worker){.number = number, .slots = 1});
    pass_beating(&farm, 35, 1, 1);
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    for (int i = 0; i < 3; i++)
        assert_int_equal(result(&farm, 1, assigned(&farm, 0), CLASS_TRANSFER), CODE_OK);
    assert_int_equal(view_of(&farm, 1).attempts_failed, 3);
    assert_int_equal(view_of(&farm, 1).counts.failed, 0);
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_leased_before_the_list_has_come),
        cmocka_unit_test(what_is_expected_and_what_is_unknown_changes_nothing),
        cmocka_unit_test(a_lease_lapses_at_its_deadline_not_before),
        cmocka_unit_test(a_lapsed_lease_is_honoured_if_its_result_comes_first),
        cmocka_unit_test(a_broker_that_was_away_itself_takes_nobody_for_lost),
        cmocka_unit_test(what_is_queued_behind_a_lease_inherits_its_room_and_cards),
        cmocka_unit_test(what_has_not_started_is_asked_back_for_a_worker_without_work),
        cmocka_unit_test(work_handed_back_unasked_goes_to_somebody_else),
        cmocka_unit_test(a_started_lease_handed_back_is_an_attempt),
        cmocka_unit_test(work_that_was_stopped_unasked_is_handed_back),
        cmocka_unit_test(an_assignment_that_could_not_be_sent_is_granted_elsewhere),
        cmocka_unit_test(a_session_goes_on_a_new_process_takes_over_and_a_second_one_is_refused),
        cmocka_unit_test(a_returning_worker_keeps_sends_and_drops_as_floors_say),
        cmocka_unit_test(
            after_a_restart_a_noted_task_is_held_and_adopted_and_an_unnoted_one_is_ready),
        cmocka_unit_test(a_lease_held_over_a_restart_has_its_room_when_its_worker_is_back),
        cmocka_unit_test(a_held_task_is_ready_when_the_reconnect_window_has_passed),
        cmocka_unit_test(a_revoked_worker_leaves_everything),
        cmocka_unit_test(
            a_worker_that_comes_back_after_a_restart_with_its_noted_task_has_no_room_for_another),
        cmocka_unit_test(when_half_the_workers_fall_silent_the_broker_takes_itself_for_cut_off),
        cmocka_unit_test(fewer_than_half_and_a_single_worker_lapse_at_once),
        cmocka_unit_test(
            while_nobody_is_heard_tasks_are_held_and_the_first_return_begins_the_window),
        cmocka_unit_test(the_same_lease_is_lost_once_however_often_its_worker_is_silent),
        cmocka_unit_test(a_lost_lease_is_remembered_however_many_attempts_follow),
        cmocka_unit_test(a_broker_that_does_not_read_takes_nobody_for_silent),
        cmocka_unit_test(a_task_is_not_given_up_while_those_that_could_run_it_are_held),
        cmocka_unit_test(
            what_is_stopped_while_the_list_still_comes_is_in_the_way_until_it_has_stopped),
        cmocka_unit_test(word_that_a_lapsed_lease_runs_may_come_before_the_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
