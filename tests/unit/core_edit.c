/* What is changed of a job while it runs: frames, the limit of workers, the archive. */
#include "core_fixture.h"

static const struct plan_worker wide = {.number = 1, .slots = 8},
                                one = {.number = 2, .slots = 1, .prefetch = 1};

/* Frames 1 to n, those after the first `before` in a range of their own, in chunks. */
static struct space frames(uint32_t n, uint32_t before, uint32_t chunk)
{
    struct space_range ranges[] = {{1, before, 1}, {before + 1, n, 1}};
    struct space space;

    space_init(&space);
    assert_int_equal(space_add_ints(&space, "frame", 0, chunk, false, ranges, n > before ? 2 : 1),
                     0);
    assert_int_equal(space_seal(&space), 0);
    return space;
}

static enum code edit(struct farm *farm, struct event *event)
{
    event->kind = EVENT_EDIT;
    event->edit.studio.value = event->edit.studio.value ? event->edit.studio.value : 1;
    event->edit.job = job_numbered(1);
    if (event->edit.request.bytes[0] == 0)
        event->edit.request.bytes[0] = (uint8_t)++farm->requests;
    farm_step(farm, event);
    return effect_of(farm, EFFECT_REPLY, 0)->code;
}

/* Of one step: its tasks first..last stay; n > 0: it has n frames now. */
static enum code set_frames(struct farm *farm, uint32_t n, uint32_t before, uint64_t first,
                            uint64_t last)
{
    struct task_range wanted = {0, first, last};
    struct space space = frames(n ? n : 1, before ? before : 1, 1);
    struct event event = {0};

    event.edit.what = EDIT_FRAMES;
    event.edit.spaces = &space;
    event.edit.n_spaces = n > 0;
    event.edit.wanted = &wanted;
    event.edit.n_wanted = 1;
    enum code code = edit(farm, &event);

    space_deinit(&space);
    return code;
}

static uint64_t reply_tasks(const struct farm *farm)
{
    return effect_of(farm, EFFECT_REPLY, 0)->reply.tasks;
}

TEST(frames_are_added_and_left_out_and_nothing_that_runs_is_disturbed)
{
    struct farm farm = farm_new();
    struct lease_id leases[4];

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    join(&farm, &wide);
    for (size_t i = 0; i < 4; i++)
        leases[i] = assigned(&farm, i);
    for (size_t i = 0; i < 4; i++)
        started(&farm, 1, leases[i]);
    result(&farm, 1, leases[0], CLASS_OK);

    assert_int_equal(set_frames(&farm, 6, 4, 0, 5), CODE_OK);
    assert_int_equal(reply_tasks(&farm), 2);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    assert_int_equal(assigned(&farm, 0).task.index, 4);
    assert_int_equal(assigned(&farm, 0).floor, 0);

    assert_int_equal(set_frames(&farm, 0, 0, 2, 3), CODE_OK); /* 0 is done; 1, 4, 5 run */
    assert_int_equal(reply_tasks(&farm), 3);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 3);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_DONE);
    assert_int_equal(state_of(&farm, 1, 0, 1), TASK_LEFT_OUT);
    assert_int_equal(view_of(&farm, 1).counts.tasks, 3);
    assert_int_equal(result(&farm, 1, leases[1], CLASS_OK), CODE_STALE);
    assert_int_equal(result(&farm, 1, leases[2], CLASS_OK), CODE_OK);
    assert_int_equal(result(&farm, 1, leases[3], CLASS_OK), CODE_OK);
    assert_int_equal(view_of(&farm, 1).counts.done, view_of(&farm, 1).counts.tasks);

    assert_int_equal(set_frames(&farm, 0, 0, 0, 1), CODE_OK); /* taken in again */
    assert_int_equal(reply_tasks(&farm), 1);
    assert_int_equal(assigned(&farm, 0).task.index, 1);
    assert_int_equal(assigned(&farm, 0).floor, 2);
    farm_free(&farm);
}

TEST(what_was_left_out_is_passed_over_by_retry_and_cancel)
{
    struct farm farm = farm_new();
    struct task_range all = {0, 0, 3};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    set_frames(&farm, 0, 0, 1, 2);
    verb(&farm, 1, VERB_RETRY, &all);
    assert_int_equal(reply_tasks(&farm), 2);
    assert_int_equal(state_of(&farm, 1, 0, 3), TASK_LEFT_OUT);
    verb(&farm, 1, VERB_CANCEL, NULL);
    assert_int_equal(reply_tasks(&farm), 2);
    assert_int_equal(set_frames(&farm, 0, 0, 0, 3), CODE_STATE);
    verb(&farm, 1, VERB_RETRY, NULL);
    assert_int_equal(view_of(&farm, 1).counts.ready, 2);
    assert_int_equal(state_of(&farm, 1, 0, 0), TASK_LEFT_OUT);
    farm_free(&farm);
}

TEST(a_frame_that_was_cancelled_is_taken_in_when_it_is_named)
{
    struct farm farm = farm_new();
    struct task_range second = {0, 1, 1};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 3}}});
    verb(&farm, 1, VERB_CANCEL, &second);
    assert_int_equal(set_frames(&farm, 0, 0, 0, 2), CODE_OK);
    assert_int_equal(reply_tasks(&farm), 1);
    assert_int_equal(view_of(&farm, 1).counts.ready, 3);
    farm_free(&farm);
}

TEST(a_step_that_reads_all_frames_waits_for_added_ones_and_not_for_those_left_out)
{
    struct farm farm = farm_new();
    struct space spaces[] = {frames(3, 2, 1), frames(1, 1, 1)};
    struct task_range wanted[] = {{0, 0, 0}, {0, 2, 2}, {1, 0, 0}};
    struct event event = {0};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}, {.tasks = 1, .depends = 1}}});
    join(&farm, &one);
    result(&farm, 2, assigned(&farm, 0), CLASS_OK);
    event.edit.what = EDIT_FRAMES;
    event.edit.wanted = wanted;
    event.edit.n_wanted = 3;
    event.edit.spaces = spaces;
    event.edit.n_spaces = 2;
    assert_int_equal(edit(&farm, &event), CODE_OK); /* frame 2 runs and is left out; 3 is new */
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 1);
    assert_int_equal(state_of(&farm, 1, 1, 0), TASK_WAITING);
    assert_int_equal(why_of(&farm, 1, 1).kind, WHY_DEPENDS);
    wanted[1] = wanted[2]; /* nor is 3 wanted: all there is is done */
    event.edit.n_wanted = 2;
    event.edit.n_spaces = 0;
    event.edit.request.bytes[0] = 0;
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_true(state_of(&farm, 1, 1, 0) != TASK_WAITING);
    for (size_t i = 0; i < 2; i++)
        space_deinit(&spaces[i]);
    farm_free(&farm);
}

TEST(a_last_chunk_that_was_not_full_gets_more_frames_and_is_run_again_alone)
{
    struct farm farm = farm_new();
    struct task_range wanted = {0, 0, 2};
    struct space space = frames(9, 9, 1), chunks = frames(5, 5, 3), more = frames(9, 5, 3);
    struct step_spec step = {.space = &chunks};
    struct job_spec spec = {
        .job = job_numbered(1), .studio = {1}, .steps = &step, .n_steps = 1, .name = "chunks"};
    struct event event = {.kind = EVENT_SUBMIT};
    uint64_t same = 9;

    event.submit.spec = &spec;
    event.submit.request.bytes[0] = 200;
    farm_step(&farm, &event);
    join(&farm, &wide);
    struct lease_id leases[] = {assigned(&farm, 0), assigned(&farm, 1)};

    started(&farm, 1, leases[0]);
    result(&farm, 1, leases[1], CLASS_OK); /* frames 4 and 5 */
    assert_false(space_extends(core_step_space(farm.core, &spec.job, 0), &space, &same));
    assert_true(space_extends(core_step_space(farm.core, &spec.job, 0), &more, &same));
    assert_int_equal(same, 1);
    event = (struct event){0};
    event.edit.what = EDIT_FRAMES;
    event.edit.spaces = &more;
    event.edit.n_spaces = 1;
    event.edit.wanted = &wanted;
    event.edit.n_wanted = 1;
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2); /* 4 to 6, 7 to 9 */
    assert_int_equal(assigned(&farm, 0).floor, 1);
    assert_int_equal(assigned(&farm, 1).floor, 0);
    assert_int_equal(result(&farm, 1, leases[0], CLASS_OK), CODE_OK);
    space_deinit(&space);
    space_deinit(&more);
    farm_free(&farm);
}

TEST(an_edit_that_does_not_fit_the_job_is_refused_and_changes_nothing)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    uint64_t digest = core_digest(farm.core);

    assert_int_equal(set_frames(&farm, 6, 3, 0, 5), CODE_STALE); /* made from another job */
    assert_int_equal(set_frames(&farm, 3, 3, 0, 2), CODE_STALE); /* a space never shrinks */
    assert_int_equal(set_frames(&farm, 6, 4, 0, 6), CODE_INVALID);
    assert_int_equal(set_frames(&farm, 0, 0, 3, 4), CODE_INVALID);
    struct event foreign = {0};

    foreign.edit.what = EDIT_PRIORITY;
    foreign.edit.studio.value = 2;
    assert_int_equal(edit(&farm, &foreign), CODE_UNKNOWN);
    assert_true(core_digest(farm.core) == digest);
    farm_free(&farm);
}

TEST(an_edit_asked_for_twice_is_done_once)
{
    struct farm farm = farm_new();
    struct event event = {0};
    struct job_id id = job_numbered(1);
    struct job_view view;

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    event.edit.what = EDIT_PRIORITY | EDIT_MAX_WORKERS;
    event.edit.priority = 9;
    event.edit.max_workers = 3;
    event.edit.request.bytes[0] = 77;
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_true(effect_of(&farm, EFFECT_REPLY, 0)->reply.repeated);
    assert_int_equal(farm.outbox.n_records, 0);
    event.edit.digest.bytes[0] = 1;
    assert_int_equal(edit(&farm, &event), CODE_CONFLICT);
    assert_true(core_job(farm.core, &id, &view));
    assert_int_equal(view.priority, 9);
    assert_int_equal(view.max_workers, 3);
    farm_free(&farm);
}

TEST(a_job_at_its_limit_gets_no_lease_until_one_ends_and_says_so)
{
    struct farm farm = farm_new();
    struct event event = {0};

    submit(&farm, &(struct plan_job){1, 1, 5, {{.tasks = 9}}});
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1}}});
    event.edit.what = EDIT_MAX_WORKERS;
    event.edit.max_workers = 2;
    edit(&farm, &event);
    join(&farm, &wide);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN),
                     3); /* the lesser job has what room is left */
    struct lease_id first = assigned(&farm, 0);

    assert_int_equal(assigned(&farm, 2).job.bytes[0], 2);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_LIMIT);
    assert_int_equal(why_of(&farm, 1, 0).workers, 2);
    result(&farm, 1, first, CLASS_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    event.edit.max_workers = 4;
    event.edit.request.bytes[0] = 0;
    edit(&farm, &event);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    event.edit.max_workers = 1; /* what is out stays out */
    event.edit.request.bytes[0] = 0;
    edit(&farm, &event);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 0);
    event.edit.max_workers = 0;
    event.edit.request.bytes[0] = 0;
    edit(&farm, &event);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 3);
    farm_free(&farm);
}

TEST(a_lapsed_lease_is_not_out)
{
    struct farm farm = farm_new();
    struct event event = {0};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
    event.edit.what = EDIT_MAX_WORKERS;
    event.edit.max_workers = 1;
    edit(&farm, &event);
    join(&farm, &one);
    started(&farm, 2, assigned(&farm, 0));
    pass(&farm, LIMIT_LEASE_NS);
    join(&farm, &wide);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(only_a_finished_job_is_archived_and_then_left_alone)
{
    struct farm farm = farm_new();
    struct event event = {0};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    event.edit.what = EDIT_ARCHIVED;
    event.edit.archived = true;
    assert_int_equal(edit(&farm, &event), CODE_STATE);
    join(&farm, &wide);
    result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    event.edit.request.bytes[0] = 0;
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_true(view_of(&farm, 1).archived);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, NULL), CODE_STATE);
    assert_int_equal(set_frames(&farm, 2, 1, 0, 1), CODE_STATE);
    event.edit.archived = false;
    event.edit.request.bytes[0] = 0;
    assert_int_equal(edit(&farm, &event), CODE_OK);
    assert_int_equal(set_frames(&farm, 2, 1, 0, 1), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_added_and_left_out_and_nothing_that_runs_is_disturbed),
        cmocka_unit_test(what_was_left_out_is_passed_over_by_retry_and_cancel),
        cmocka_unit_test(a_frame_that_was_cancelled_is_taken_in_when_it_is_named),
        cmocka_unit_test(
            a_step_that_reads_all_frames_waits_for_added_ones_and_not_for_those_left_out),
        cmocka_unit_test(a_last_chunk_that_was_not_full_gets_more_frames_and_is_run_again_alone),
        cmocka_unit_test(an_edit_that_does_not_fit_the_job_is_refused_and_changes_nothing),
        cmocka_unit_test(an_edit_asked_for_twice_is_done_once),
        cmocka_unit_test(a_job_at_its_limit_gets_no_lease_until_one_ends_and_says_so),
        cmocka_unit_test(a_lapsed_lease_is_not_out),
        cmocka_unit_test(only_a_finished_job_is_archived_and_then_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
