/* Jobs, steps and tasks: states, dependencies, submission, what is remembered. */
#include "core_fixture.h"

TEST(every_pair_of_task_states_is_allowed_or_refused_as_the_table_says)
{
    /* rows: from; columns: waiting ready leased running done failed cancelled, left out */
    static const char *const table[TASK_STATES_COUNT] = {
        [TASK_WAITING] = ".xxxxxxx",   [TASK_READY] = "x.xxxxxx",    [TASK_LEASED] = "x..xxxxx",
        [TASK_RUNNING] = "x.x.xxxx",   [TASK_DONE] = "x.......",     [TASK_FAILED] = "x...x.xx",
        [TASK_CANCELLED] = "x......x", [TASK_LEFT_OUT] = "x.......",
    };

    for (unsigned from = 0; from < TASK_STATES_COUNT; from++)
        for (unsigned to = 0; to < TASK_STATES_COUNT; to++)
            assert_int_equal(step_allowed(from, to), table[from][to] == 'x');
    assert_false(step_allowed(TASK_READY, (enum task_state)TASK_STATES_COUNT));
}

TEST(a_bitmap_finds_the_first_of_ten_million_and_the_end_of_a_run)
{
    struct bitmap bitmap;

    bitmap_init(&bitmap, 10000000);
    assert_true(bitmap_next(&bitmap, 0) == BITMAP_NONE);
    bitmap_set(&bitmap, 9999999 / 64, 1ULL << (9999999 % 64));
    assert_int_equal(bitmap_next(&bitmap, 0), 9999999);
    for (uint64_t word = 100; word < 200; word++)
        bitmap_set(&bitmap, word, UINT64_MAX);
    assert_int_equal(bitmap_next(&bitmap, 17), 6400);
    assert_int_equal(bitmap_run_end(&bitmap, 6400), 12799);
    assert_int_equal(bitmap_next(&bitmap, 12800), 9999999);
    bitmap_clear(&bitmap, 9999999 / 64, UINT64_MAX);
    assert_true(bitmap_next(&bitmap, 12800) == BITMAP_NONE);
    bitmap_deinit(&bitmap);
}

TEST(floors_are_runs_that_split_and_merge)
{
    struct floors floors = {0};

    floors_raise(&floors, 10, 19, 1);
    floors_raise(&floors, 12, 13, 2);
    assert_int_equal(floors.n, 3);
    assert_int_equal(floors_at(&floors, 9), 0);
    assert_int_equal(floors_at(&floors, 11), 1);
    assert_int_equal(floors_at(&floors, 12), 2);
    assert_int_equal(floors_highest(&floors, 0, 11), 1);
    floors_raise(&floors, 0, 100, 3);
    assert_int_equal(floors.n, 1);
    floors_raise(&floors, 101, 101, 3);
    assert_int_equal(floors.n, 1);
    floors_deinit(&floors);
}

TEST(floors_hold_what_was_raised_in_any_order)
{
    struct floors floors = {0};
    uint32_t naive[100] = {0}, random = 1;

    for (uint32_t i = 1; i < 5000; i++) {
        uint64_t first = (random = random * 1664525 + 1013904223) >> 8, last = 0, highest = 0;

        first %= 100;
        last = first + (random >> 4) % (100 - first) % (i % 3 ? 4 : 40);
        last = last > 99 ? 99 : last;
        for (uint64_t j = first; j <= last; j++)
            highest = naive[j] > highest ? naive[j] : highest;
        for (uint64_t j = first; j <= last; j++)
            naive[j] = (uint32_t)highest + 1;
        floors_raise(&floors, first, last, (uint32_t)highest + 1);
        for (size_t j = 1; j < floors.n; j++) {
            assert_true(floors.runs[j - 1].last < floors.runs[j].first);
            assert_true(floors.runs[j - 1].last + 1 < floors.runs[j].first ||
                        floors.runs[j - 1].floor != floors.runs[j].floor);
        }
    }
    for (uint64_t j = 0; j < 100; j++)
        assert_int_equal(floors_at(&floors, j), naive[j]);
    floors_deinit(&floors);
}

/* Keys that fall on one slot under one seed are spread under another. */
TEST(ids_that_collide_under_one_seed_do_not_under_another)
{
    uint64_t first = 0, n = 0, same = 0;

    for (uint64_t i = 0; n < 200; i++) {
        uint64_t id[2] = {i, i}, slot = hash_bytes(1, id, sizeof(id)) % 1024;

        first = i ? first : slot;
        if (slot != first)
            continue;
        n++;
        same += hash_bytes(1 ^ 0x1234567, id, sizeof(id)) % 1024 == first;
    }
    assert_true(same < 5);
}

/* What the seed is must not be seen, or a restart would not restore. */
TEST(a_seed_changes_nothing_but_where_things_lie)
{
    uint64_t digests[2];

    for (uint64_t i = 0; i < 2; i++) {
        struct core_config config = {.epoch = 1, .seed = i * 0x9876543210};
        struct farm farm = {.core = core_new(&config), .now_ns = SECOND};

        outbox_init(&farm.outbox);
        core_recovered(farm.core, farm.now_ns);
        submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}}});
        submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 2}}});
        join(&farm, &(struct plan_worker){.number = 1, .slots = 2});
        result(&farm, 1, assigned(&farm, 0), CLASS_RENDERER);
        digests[i] = core_digest(farm.core);
        farm_free(&farm);
    }
    assert_true(digests[0] == digests[1]);
}

TEST(a_step_that_waits_for_a_whole_step_is_ready_when_all_of_it_is_done)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 2}, {.tasks = 3, .depends = 1}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 2});
    struct lease_id first = assigned(&farm, 0), second = assigned(&farm, 1);

    result(&farm, 1, first, CLASS_OK);
    assert_int_equal(state_of(&farm, 1, 1, 0), TASK_WAITING);
    assert_int_equal(why_of(&farm, 1, 1).kind, WHY_DEPENDS);
    result(&farm, 1, second, CLASS_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    assert_int_equal(state_of(&farm, 1, 1, 2), TASK_READY);
    farm_free(&farm);
}

TEST(a_frame_is_joined_before_the_next_ones_tiles_are_rendered)
{
    struct farm farm = farm_new();
    static const uint32_t steps[] = {0, 0, 1, 0, 0, 1};

    submit(&farm,
           &(struct plan_job){
               1, 1, 0, {{.tasks = 4}, {.tasks = 2, .depends = 1, .per = 2, .vcpus = 1}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .vcpus = 4});
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(assigned(&farm, 0).task.step, steps[i]);
        result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    }
    farm_free(&farm);
}

TEST(a_frame_waits_for_its_own_tiles_alone)
{
    struct farm farm = farm_new();

    submit(&farm,
           &(struct plan_job){1, 1, 0, {{.tasks = 5}, {.tasks = 3, .depends = 1, .per = 2}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 5});
    struct lease_id tiles[5];

    for (size_t i = 0; i < 5; i++)
        tiles[i] = assigned(&farm, i);
    result(&farm, 1, tiles[2], CLASS_OK);
    assert_int_equal(state_of(&farm, 1, 1, 1), TASK_WAITING);
    result(&farm, 1, tiles[3], CLASS_OK);
    assert_int_equal(assigned(&farm, 0).task.index, 1);
    result(&farm, 1, tiles[4], CLASS_OK); /* the last frame has but one */
    assert_int_equal(assigned(&farm, 0).task.index, 2);
    assert_int_equal(state_of(&farm, 1, 1, 0), TASK_WAITING);
    farm_free(&farm);
}

TEST(a_job_that_contradicts_itself_is_refused)
{
    static const struct plan_job bad[] = {
        {1, 1, 0, {{.tasks = 2, .depends = 1}}},                         /* on itself */
        {1, 1, 0, {{.tasks = 2, .depends = 2}, {.tasks = 2}}},           /* on a later one */
        {1, 1, 0, {{.tasks = 4}, {.tasks = 3, .depends = 1, .per = 2}}}, /* sizes do not meet */
        {1, 1, 0, {{.tasks = 2, .vcpus = 1e30}}},
        {1, 1, 0, {{.tasks = 0}}},
        {1, 0, 0, {{.tasks = 1}}},
    };
    struct farm farm = farm_new();

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(submit(&farm, &bad[i]), CODE_INVALID);
        assert_int_equal(farm.outbox.n_records, 0);
    }
    farm_free(&farm);
}

TEST(the_same_request_gets_the_same_answer_and_another_body_is_refused)
{
    struct plan_job job = {1, 1, 0, {{.tasks = 3}}}, other = {2, 1, 0, {{.tasks = 3}}};
    struct farm farm = farm_new();

    assert_int_equal(submit_as(&farm, &job, 1, 1), CODE_OK);
    assert_false(effect_of(&farm, EFFECT_REPLY, 0)->reply.repeated);
    assert_int_equal(farm.outbox.effects_after[0], 2); /* the answer waits for both records */
    uint64_t sequence = effect_of(&farm, EFFECT_REPLY, 0)->reply.sequence;

    assert_int_equal(submit_as(&farm, &job, 1, 1), CODE_OK);
    assert_true(effect_of(&farm, EFFECT_REPLY, 0)->reply.repeated);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.sequence, sequence);
    assert_int_equal(effect_of(&farm, EFFECT_REPLY, 0)->reply.tasks, 3);
    assert_int_equal(farm.outbox.n_records, 0);
    assert_int_equal(submit_as(&farm, &other, 1, 2), CODE_CONFLICT);
    assert_int_equal(submit_as(&farm, &job, 2, 1), CODE_CONFLICT); /* the job's id is taken */
    farm_free(&farm);
}

TEST(jobs_are_listed_newest_first_and_by_studio)
{
    struct farm farm = farm_new();
    struct job_view view;

    for (uint8_t i = 1; i <= 4; i++)
        submit(&farm, &(struct plan_job){i, 1 + i % 2u, 0, {{.tasks = 1}}});
    assert_true(core_job_before(farm.core, (struct studio_id){0}, 0, &view));
    assert_int_equal(view.job.bytes[0], 4);
    assert_true(core_job_before(farm.core, (struct studio_id){0}, view.sequence, &view));
    assert_int_equal(view.job.bytes[0], 3);
    assert_true(core_job_before(farm.core, (struct studio_id){2}, view.sequence, &view));
    assert_int_equal(view.job.bytes[0], 1);
    assert_false(core_job_before(farm.core, (struct studio_id){2}, view.sequence, &view));
    assert_false(core_job_before(farm.core, (struct studio_id){9}, 0, &view));
    farm_free(&farm);
}

TEST(ten_million_frames_cost_less_than_a_byte_each)
{
    struct farm farm = farm_new();
    uint64_t bytes = 0;

    assert_int_equal(
        submit(&farm,
               &(struct plan_job){
                   1, 1, 0, {{.tasks = 10000000}, {.tasks = 10000000, .depends = 1, .per = 1}}}),
        CODE_OK);
    for (unsigned i = 0; i < 2; i++)
        for (unsigned s = 0; s < TASK_STATES_COUNT; s++)
            bytes += farm.core->jobs[0]->steps[i].bits[s].words ? 10000000 / 8 * 65 / 64 : 0;
    assert_true(bytes < 10000000);
    farm_free(&farm);
}

TEST(a_record_read_back_that_fits_nowhere_is_refused_not_applied)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    struct record attempt = {.kind = RECORD_ATTEMPT, .sequence = 100, .job = job_numbered(1)};
    struct record change = {.kind = RECORD_CHANGE, .sequence = 100, .job = job_numbered(1)};
    struct record tend = {.kind = RECORD_TEND, .sequence = 100, .tend.tend = TEND_DRAIN};
    struct record job = {.kind = RECORD_JOB, .sequence = 100, .job = job_numbered(1)};

    attempt.attempt.lease = (struct lease_id){job_numbered(1), {0, 3}, 0, 1, 1};
    change.change.change = CHANGE_RETRY;
    change.change.range = (struct task_range){0, 1, 3};
    change.change.floor = 1;
    assert_null(core_unfit(farm.core, &attempt));
    assert_null(core_unfit(farm.core, &change));
    assert_null(core_unfit(farm.core, &tend));
    assert_non_null(core_unfit(farm.core, &job)); /* it is there */

    struct record bad[12];
    for (size_t i = 0; i < 12; i++)
        bad[i] = i < 6 ? attempt : change;
    bad[0].sequence = 1;
    bad[1].attempt.lease.task.index = 4;
    bad[2].attempt.lease.task.step = 1;
    bad[3].attempt.lease.floor = 1;
    bad[4].job = job_numbered(2);
    bad[5].attempt.class = (enum attempt_class)99;
    bad[6].change.range.last = 4;
    bad[7].change.range.step = 1;
    bad[8].change.floor = 0;
    bad[9].job = job_numbered(2);
    bad[10].change.change = (enum change_kind)77;
    bad[11].change = (typeof(change.change)){.change = CHANGE_STATE, .state = (enum job_state)9};
    for (size_t i = 0; i < 12; i++)
        if (!core_unfit(farm.core, &bad[i]))
            fail_msg("%zu", i);
    tend.tend.tend = (enum tend_kind)0;
    assert_non_null(core_unfit(farm.core, &tend));
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_task_states_is_allowed_or_refused_as_the_table_says),
        cmocka_unit_test(a_bitmap_finds_the_first_of_ten_million_and_the_end_of_a_run),
        cmocka_unit_test(floors_are_runs_that_split_and_merge),
        cmocka_unit_test(ids_that_collide_under_one_seed_do_not_under_another),
        cmocka_unit_test(a_seed_changes_nothing_but_where_things_lie),
        cmocka_unit_test(floors_hold_what_was_raised_in_any_order),
        cmocka_unit_test(a_step_that_waits_for_a_whole_step_is_ready_when_all_of_it_is_done),
        cmocka_unit_test(a_frame_is_joined_before_the_next_ones_tiles_are_rendered),
        cmocka_unit_test(a_frame_waits_for_its_own_tiles_alone),
        cmocka_unit_test(a_job_that_contradicts_itself_is_refused),
        cmocka_unit_test(the_same_request_gets_the_same_answer_and_another_body_is_refused),
        cmocka_unit_test(jobs_are_listed_newest_first_and_by_studio),
        cmocka_unit_test(a_record_read_back_that_fits_nowhere_is_refused_not_applied),
        cmocka_unit_test(ten_million_frames_cost_less_than_a_byte_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
