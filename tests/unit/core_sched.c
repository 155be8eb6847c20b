/* Who is next, and why somebody is not. */
#include <stdio.h>
#include "core_fixture.h"

TEST(studios_share_by_weight)
{
    struct farm farm = farm_new();
    unsigned granted[3] = {0};

    core_studio_weight(farm.core, (struct studio_id){2}, 3);
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1000}}});
    submit(&farm, &(struct plan_job){2, 2, 0, {{.tasks = 1000}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1});
    for (unsigned i = 0; i < 400; i++) {
        struct lease_id lease = assigned(&farm, 0);

        granted[lease.job.bytes[0]]++;
        result(&farm, 1, lease, CLASS_OK);
    }
    assert_in_range(granted[1], 99, 101);
    assert_in_range(granted[2], 299, 301);
    farm_free(&farm);
}

TEST(a_studio_that_comes_late_neither_starves_others_nor_waits)
{
    struct farm farm = farm_new();
    unsigned late = 0;

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1000}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1});
    for (unsigned i = 0; i < 200; i++)
        result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    struct lease_id running = assigned(&farm, 0);

    submit(&farm, &(struct plan_job){2, 2, 0, {{.tasks = 1000}}});
    result(&farm, 1, running, CLASS_OK);
    for (unsigned i = 0; i < 100; i++) {
        struct lease_id lease = assigned(&farm, 0);

        late += lease.job.bytes[0] == 2;
        result(&farm, 1, lease, CLASS_OK);
    }
    assert_in_range(late, 49, 51);
    farm_free(&farm);
}

TEST(priority_orders_within_a_studio_and_then_age)
{
    struct farm farm = farm_new();
    static const uint8_t order[] = {2, 1, 3};

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    submit(&farm, &(struct plan_job){2, 1, 5, {{.tasks = 1, .vcpus = 1}}}); /* another demand */
    submit(&farm, &(struct plan_job){3, 1, 0, {{.tasks = 1}}});
    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .vcpus = 4});
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(assigned(&farm, 0).job.bytes[0], order[i]);
        result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    }
    farm_free(&farm);
}

TEST(a_slot_gets_its_share_of_the_vcpus_and_a_demand_what_it_names)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 4, .vcpus = 16});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->assign.vcpus, 4);
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 2, .vcpus = 10}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1); /* 2 are left */
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->assign.vcpus, 10);
    assert_int_equal(why_of(&farm, 2, 0).kind, WHY_BUSY);
    assert_int_equal(why_of(&farm, 2, 0).workers, 1);
    farm_free(&farm);
}

TEST(cards_are_leased_once_and_the_smallest_that_will_do)
{
    struct farm farm = farm_new();
    struct event event = {.kind = EVENT_HELLO};
    struct gpu_offer gpus[] = {{48000}, {8000}, {24000}};
    struct offer offer = {.slots = 3, .gpus = gpus, .n_gpus = 3};

    event.hello.key.bytes[0] = 1;
    event.hello.offer = &offer;
    farm_step(&farm, &event);
    inventory(&farm, 1, NULL, 0);
    submit(&farm,
           &(struct plan_job){1, 1, 0, {{.tasks = 3, .cards = 1, .card_memory_mib = 20000}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 2);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->assign.gpu_mask, 1u << 2);
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 1)->assign.gpu_mask, 1u << 0);
    farm_free(&farm);
}

TEST(work_without_cards_keeps_away_from_cards)
{
    struct farm farm = farm_new();

    join(&farm,
         &(struct plan_worker){.number = 1, .slots = 8, .cards = 1, .card_memory_mib = 8000});
    join(&farm, &(struct plan_worker){.number = 2, .slots = 1});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1}}});
    assert_int_equal(effect_of(&farm, EFFECT_ASSIGN, 0)->worker.value,
                     worker_numbered(&farm, 2).value);
    farm_free(&farm);
}

TEST(a_waiting_step_says_why)
{
    struct farm farm = farm_new();

    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 1, .vcpus = 64}}});
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1, .software = "4.2"}}});
    submit(&farm, &(struct plan_job){3, 1, 0, {{.tasks = 1, .vcpus = 16, .software = "3.6"}}});
    submit(&farm, &(struct plan_job){4, 1, 0, {{.tasks = 1, .card_memory_mib = 9000}}});
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_NO_WORKER);
    join(&farm, &(struct plan_worker){.number = 1,
                                      .slots = 1,
                                      .vcpus = 8,
                                      .software = "3.6",
                                      .cards = 1,
                                      .card_memory_mib = 8000});
    join(&farm, &(struct plan_worker){.number = 2, .slots = 1, .vcpus = 32});
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_NO_AMOUNT);
    assert_string_equal(why_of(&farm, 1, 0).name, "amount.worker.vcpu");
    assert_true(why_of(&farm, 1, 0).wanted == 64 && why_of(&farm, 1, 0).best == 32);
    assert_int_equal(why_of(&farm, 2, 0).kind, WHY_NO_ATTRIBUTE);
    assert_string_equal(why_of(&farm, 2, 0).value, "4.2");
    assert_int_equal(why_of(&farm, 3, 0).kind, WHY_NO_ONE_FITS);
    assert_int_equal(why_of(&farm, 4, 0).kind, WHY_NO_AMOUNT);
    assert_string_equal(why_of(&farm, 4, 0).name, "amount.worker.gpu.memory");
    verb(&farm, 1, VERB_PAUSE, NULL);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_PAUSED);
    farm_free(&farm);
}

TEST(workers_of_equal_room_are_one_group)
{
    struct farm farm = farm_new();
    unsigned groups = 0;

    for (uint8_t i = 1; i <= 100; i++)
        join(&farm, &(struct plan_worker){.number = i, .slots = 2, .vcpus = 8});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 50}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 50);
    for (struct group *group = fleet_open_next(&farm.core->fleet, NULL); group;
         group = fleet_open_next(&farm.core->fleet, group))
        groups++;
    assert_int_equal(groups, 2); /* both slots free, one free */
    farm_free(&farm);
}

TEST(where_nobody_had_room_whoever_comes_to_have_some_is_found)
{
    struct farm farm = farm_new();
    struct lease_id first;

    join(&farm, &(struct plan_worker){.number = 1, .slots = 4, .vcpus = 4});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4, .vcpus = 3}}});
    first = assigned(&farm, 0);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1); /* its other slots lack vcpus */
    submit(&farm, &(struct plan_job){2, 1, 0, {{.tasks = 1, .vcpus = 3}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    join(&farm, &(struct plan_worker){.number = 2, .slots = 4, .vcpus = 4});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    result(&farm, 1, first, CLASS_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    for (unsigned i = 0; i < 3; i++) /* until nothing waits, and there is room that nobody looked at */
        result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    submit(&farm, &(struct plan_job){3, 1, 0, {{.tasks = 1, .vcpus = 3}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    farm_free(&farm);
}

TEST(names_that_nobody_offers_any_more_are_forgotten)
{
    struct farm farm = farm_new();
    char version[16] = "";

    for (unsigned i = 0; i < 200; i++) {
        snprintf(version, sizeof(version), "%u", i);
        hello(&farm, &(struct plan_worker){.number = 1, .slots = 1, .software = version}, i + 1, 1);
    }
    /* The attribute and its one value; the pool's, and none. */
    assert_int_equal(farm.core->fleet.names.n, 4);
    farm_free(&farm);
}

static struct farm small_farm(void)
{
    struct core_config config = {.epoch = 1, .classes_max = 8, .tasks_max = 100, .jobs_max = 1000};
    struct farm farm = {.core = core_new(&config), .now_ns = SECOND};

    outbox_init(&farm.outbox);
    core_recovered(farm.core, farm.now_ns);
    return farm;
}

static enum code submit_class(struct farm *farm, uint8_t job, uint32_t studio, uint32_t tasks,
                              double vcpus)
{
    return submit(farm, &(struct plan_job){job, studio, 0, {{.tasks = tasks, .vcpus = vcpus}}});
}

static struct lease_id lease_of(struct farm *farm, uint8_t number)
{
    struct job_id job = job_numbered(number);

    list_each(link, &job_find(farm->core, &job)->leases) return container_of(link, struct lease,
                                                                             of_job)
        ->id;
    fail();
    return (struct lease_id){0};
}

TEST(classes_of_finished_work_are_free_again)
{
    struct farm farm = small_farm();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .vcpus = 100});
    for (uint8_t job = 1; job <= 40; job++) {
        assert_int_equal(submit_class(&farm, job, 1, 1, job), CODE_OK);
        assert_int_equal(result(&farm, 1, assigned(&farm, 0), CLASS_OK), CODE_OK);
        assert_int_equal(demands_in_use(&farm.core->fleet), 0);
    }
    for (uint8_t job = 41; job <= 44; job++)
        assert_int_equal(submit_class(&farm, job, 1, 1, job), CODE_OK);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &(struct task_range){0, 0, 0}), CODE_BUSY);
    assert_int_equal(verb(&farm, 41, VERB_CANCEL, NULL), CODE_OK);
    result(&farm, 1, lease_of(&farm, 41), CLASS_CANCELLED);
    assert_int_equal(verb(&farm, 1, VERB_RETRY, &(struct task_range){0, 0, 0}), CODE_OK);
    farm_free(&farm);
}

TEST(a_studio_may_have_no_more_than_it_leaves_for_others)
{
    struct farm farm = small_farm();

    for (uint8_t job = 1; job <= 4; job++)
        assert_int_equal(submit_class(&farm, job, 1, 1, job), CODE_OK);
    assert_int_equal(submit_class(&farm, 5, 1, 1, 5), CODE_BUSY);
    assert_int_equal(submit_class(&farm, 5, 1, 46, 4), CODE_OK);  /* a class it has */
    assert_int_equal(submit_class(&farm, 6, 1, 1, 4), CODE_BUSY); /* half of all tasks are its */
    assert_int_equal(submit_class(&farm, 6, 2, 25, 5), CODE_OK);
    assert_int_equal(submit_class(&farm, 7, 2, 1, 5), CODE_BUSY);
    assert_int_equal(submit_class(&farm, 7, 3, 12, 6), CODE_OK);
    farm_free(&farm);
}

static void quota(struct farm *farm, uint32_t studio, bool used_up)
{
    struct event event = {.kind = EVENT_QUOTA, .quota = {{studio}, used_up}};

    farm_step(farm, &event);
}

TEST(nothing_of_a_studio_whose_quota_is_used_up_is_leased_and_what_runs_goes_on)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 1});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 3}}});
    struct lease_id first = assigned(&farm, 0);
    started(&farm, 1, first);
    quota(&farm, 1, true);
    assert_int_equal(why_of(&farm, 1, 0).kind, WHY_QUOTA);
    assert_int_equal(result(&farm, 1, first, CLASS_OK), CODE_OK);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    submit(&farm, &(struct plan_job){2, 2, 0, {{.tasks = 1}}}); /* another studio's */
    result(&farm, 1, assigned(&farm, 0), CLASS_OK);
    submit(&farm, &(struct plan_job){3, 1, 0, {{.tasks = 1}}});
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    quota(&farm, 1, true); /* said again */
    quota(&farm, 1, false);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 1);
    quota(&farm, 9, true); /* one that has no job yet */
    submit(&farm, &(struct plan_job){4, 9, 5, {{.tasks = 1}}});
    assert_int_equal(why_of(&farm, 4, 0).kind, WHY_QUOTA);
    farm_free(&farm);
}

TEST(what_waits_at_a_worker_is_asked_back_when_the_quota_is_used_up)
{
    struct farm farm = farm_new();

    join(&farm, &(struct plan_worker){.number = 1, .slots = 1, .prefetch = 2});
    submit(&farm, &(struct plan_job){1, 1, 0, {{.tasks = 4}}});
    struct lease_id runs = assigned(&farm, 0), next = assigned(&farm, 1), last = assigned(&farm, 2);
    started(&farm, 1, runs);
    quota(&farm, 1, true);
    assert_int_equal(effects_of(&farm, EFFECT_REVOKE), 2);
    assert_int_equal(effect_of(&farm, EFFECT_REVOKE, 0)->revoke.revoke, CORE_REVOKE_TAKE_BACK);
    released(&farm, 1, next);
    released(&farm, 1, last);
    assert_int_equal(effects_of(&farm, EFFECT_ASSIGN), 0);
    quota(&farm, 1, false);
    assert_int_equal(assigned(&farm, 0).task.index, next.task.index);
    farm_free(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(studios_share_by_weight),
        cmocka_unit_test(a_studio_that_comes_late_neither_starves_others_nor_waits),
        cmocka_unit_test(priority_orders_within_a_studio_and_then_age),
        cmocka_unit_test(a_slot_gets_its_share_of_the_vcpus_and_a_demand_what_it_names),
        cmocka_unit_test(cards_are_leased_once_and_the_smallest_that_will_do),
        cmocka_unit_test(work_without_cards_keeps_away_from_cards),
        cmocka_unit_test(a_waiting_step_says_why),
        cmocka_unit_test(workers_of_equal_room_are_one_group),
        cmocka_unit_test(where_nobody_had_room_whoever_comes_to_have_some_is_found),
        cmocka_unit_test(names_that_nobody_offers_any_more_are_forgotten),
        cmocka_unit_test(classes_of_finished_work_are_free_again),
        cmocka_unit_test(a_studio_may_have_no_more_than_it_leaves_for_others),
        cmocka_unit_test(
            nothing_of_a_studio_whose_quota_is_used_up_is_leased_and_what_runs_goes_on),
        cmocka_unit_test(what_waits_at_a_worker_is_asked_back_when_the_quota_is_used_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
