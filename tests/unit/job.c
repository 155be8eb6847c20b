/* The builder says what is wrong before anything is sent; tasks and jobs get a person's names. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <client/job.h>
#include <client/look.h>
#include <proto/state.h>

static struct westlight_job *simple_job(struct westlight_step **ret_step)
{
    const struct westlight_range frames[] = {{1, 10, 2}, {20, 24, 1}};
    struct westlight_job *job = westlight_job_new("job");
    struct westlight_step *step = westlight_job_step(job, "beauty");
    westlight_step_ints(step, "Frame", frames, 2, 1);
    westlight_step_run(step, "true", NULL, 0, 0);
    *ret_step = step;
    return job;
}

static void a_job_compiles_to_its_recipe(void **state)
{
    struct westlight_step *step;
    struct westlight_job *job = simple_job(&step);

    assert_int_equal(job_compile(job), 0);
    assert_int_equal(job_compile(job), 0); /* twice is once */
    assert_int_equal(space_size(&step->space), 10);
    assert_int_equal(job->recipe.n_steps, 1);
    assert_int_equal(job->recipe.steps[0]->n_space, 1);
    assert_int_equal(job->recipe.steps[0]->space[0]->ranges[0]->last,
                     9); /* a member of its range */
    assert_string_equal(step->step.name, "beauty");
    westlight_job_free(job);
}

static void refused(struct westlight_job *job, const char *part)
{
    assert_int_equal(job_compile(job), WESTLIGHT_E_USAGE);
    if (!strstr(job->error, part))
        fail_msg("\"%s\" lacks \"%s\"", job->error, part);
    westlight_job_free(job);
}

static void what_makes_no_sense_is_said_with_its_reason(void **state)
{
    struct westlight_step *step, *second;
    const struct westlight_range backwards = {5, 1, 1}, three = {1, 3, 1};
    char *longer = calloc(1, LIMIT_TEXT_BYTES + 2);
    memset(longer, 'x', LIMIT_TEXT_BYTES + 1);

    refused(westlight_job_new("empty"), "has no steps");
    refused(westlight_job_new(""), "no name");

    struct westlight_job *job = westlight_job_new("a");
    westlight_job_step(job, "s");
    refused(job, "runs nothing");

    job = simple_job(&step);
    westlight_step_ints(step, "Other", &backwards, 1, 1);
    refused(job, "empty or overlapping range");

    job = simple_job(&step);
    westlight_step_ints(step, "Frame", &three, 1, 1);
    refused(job, "there already");

    job = simple_job(&step);
    westlight_step_depends(step, 0, true);
    refused(job, "only for an earlier one");

    job = simple_job(&step);
    second = westlight_job_step(job, "comp");
    westlight_step_run(second, "true", NULL, 0, 0);
    westlight_step_ints(second, "Frame", &three, 1, 1);
    westlight_step_depends(second, 0, true);
    refused(job, "have 3 and 10 tasks");

    job = simple_job(&step);
    westlight_step_interim(step);
    westlight_step_texts(step, WESTLIGHT_TILE, WESTLIGHT_STRING, (const char *[]){"1x1+0+0", "1x1+1+0"}, 2);
    second = westlight_job_step(job, "join");
    westlight_step_run(second, "true", NULL, 0, 0);
    westlight_step_ints(second, "Frame", &(struct westlight_range){1, 10, 1}, 1, 1);
    westlight_step_depends(second, 0, 3);
    refused(job, "waits for 3 of \"beauty\" each, but they have 10 and 20 tasks");

    job = simple_job(&step);
    westlight_step_output(step, "relative/out");
    refused(job, "not an absolute path");

    job = simple_job(&step);
    westlight_job_root(job, "/a/../b", NULL, 0);
    refused(job, "\"..\"");

    const char *climbing = "../secret";
    job = simple_job(&step);
    westlight_job_root(job, "/a", &climbing, 1);
    refused(job, "not a relative path");

    job = simple_job(&step);
    westlight_job_parameter(job, "X", WESTLIGHT_STRING, longer);
    refused(job, "at most 32768");

    job = simple_job(&step);
    for (int i = 0; i < LIMIT_TAGS + 1; i++)
        westlight_job_tag(job, "tag");
    refused(job, "more than 16");

    job = simple_job(&step);
    westlight_job_variable(job, "A=B", "c");
    refused(job, "not a name");
    free(longer);
}

static void a_version_pins_the_steps_of_its_software_and_no_other(void **state)
{
    struct westlight_step *first, *second;
    struct westlight_job *job = simple_job(&first);

    westlight_step_attribute(first, "attr.worker.os.family", (const char *[]){"linux"}, 1);
    westlight_step_attribute(first, "attr.software.blender", NULL, 0);
    westlight_step_attribute(first, "attr.blender.denoiser", NULL, 0);
    westlight_step_software(first, "blender");
    second = westlight_job_step(job, "comp");
    westlight_step_run(second, "nuke", NULL, 0, 0);
    westlight_step_software(second, "nuke");
    westlight_job_version(job, "blender", "3.4.1");
    westlight_job_version(job, "blender", "4.0.2"); /* the last word counts */
    westlight_step_expect(first, WESTLIGHT_CHECK_FAIL, 40, 30, 1);
    assert_int_equal(job_compile(job), 0);
    assert_string_equal(first->recipe->version, "4.0.2");
    assert_int_equal(first->step.n_attributes, 3);
    assert_string_equal(first->step.attributes[0]->any_of[0], "linux");
    assert_int_equal(first->step.attributes[1]->n_any_of, 1);
    assert_string_equal(first->step.attributes[1]->any_of[0], "4.0.2");
    assert_int_equal(first->step.attributes[2]->n_any_of, 1); /* the denoiser of the same version */
    assert_string_equal(first->step.attributes[2]->any_of[0], "4.0.2");
    assert_string_equal(second->recipe->version, "");
    assert_int_equal(second->step.n_attributes, 0);
    assert_int_equal(first->recipe->expect->check, CHECK_FAIL);
    assert_int_equal(first->recipe->expect->height, 30);
    assert_null(second->recipe->expect);
    westlight_job_version(job, "nuke", "15"); /* a step that had not asked for it */
    assert_string_equal(second->step.attributes[0]->name, "attr.software.nuke");
    westlight_job_free(job);
}

static void folders_lose_their_trailing_slash(void **state)
{
    struct westlight_step *step;
    struct westlight_job *job = simple_job(&step);
    const char *files[] = {"b.inc", "a/c.inc"};

    assert_int_equal(westlight_job_root(job, "/scenes/x//", files, 2), 0);
    assert_int_equal(westlight_job_root(job, "/", files, 1), 1);
    westlight_step_output(step, "/out/");
    assert_int_equal(job_compile(job), 0);
    assert_string_equal(job->roots[0].folder, "/scenes/x");
    assert_string_equal(job->roots[1].folder, "/");
    assert_string_equal(step->recipe->outputs[0]->path, "/out");
    westlight_job_free(job);
}

static void frames_come_back_as_ranges_or_an_offset(void **state)
{
    struct westlight_range *ranges = NULL;
    size_t n = 0, at = 99;
    const char *why = NULL;

    assert_int_equal(westlight_frames("5,1-3", &ranges, &n, &at, &why), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ranges[0].first, 1);
    assert_int_equal(ranges[1].last, 5);
    free(ranges);
    assert_int_equal(westlight_frames("1-5,9-2", &ranges, &n, &at, &why), WESTLIGHT_E_USAGE);
    assert_true(at >= 4 && at <= 7);
    assert_non_null(why);
}

/* ---- names ---- */

static void phases_follow_from_state_and_counts(void **state)
{
    static const struct {
        enum job_state state;
        struct westlight_counts
            counts; /* tasks waiting ready leased running done failed cancelled */
        const char *phase;
        bool finished; /* as the broker says */
    } cases[] = {
        {JOB_ACTIVE, {4, 0, 4, 0, 0, 0, 0, 0}, "waiting", false},
        {JOB_ACTIVE, {4, 2, 0, 1, 1, 0, 0, 0}, "running", false},
        {JOB_ACTIVE, {4, 0, 0, 0, 0, 4, 0, 0}, "done", true},
        {JOB_ACTIVE, {4, 0, 0, 0, 0, 3, 1, 0}, "failed", true},
        {JOB_ACTIVE, {4, 2, 0, 0, 0, 1, 1, 0}, "failed", true}, /* the rest waits for what failed */
        {JOB_ACTIVE, {4, 0, 1, 0, 0, 2, 1, 0}, "waiting", false},
        {JOB_ACTIVE, {4, 1, 0, 0, 0, 2, 0, 1}, "waiting", false}, /* for a moment: its worker was lost */
        {JOB_ACTIVE, {4, 1, 0, 0, 0, 2, 0, 1}, "cancelled", true},
        {JOB_ACTIVE, {4, 0, 0, 0, 0, 2, 0, 2}, "done", true},
        {JOB_ACTIVE, {4, 0, 0, 0, 0, 0, 0, 4}, "cancelled", true},
        {JOB_PAUSED, {4, 0, 3, 0, 0, 0, 1, 0}, "paused", false},
        {JOB_PAUSED, {4, 0, 0, 0, 0, 0, 4, 0}, "failed", true},
        {JOB_CANCELLED, {4, 0, 0, 0, 1, 1, 0, 2}, "cancelled", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *phase = look_phase(cases[i].state, &cases[i].counts, cases[i].finished);
        if (strcmp(phase, cases[i].phase) != 0)
            fail_msg("case %zu: %s", i, phase);
    }
}

static void a_task_is_called_by_its_frame(void **state)
{
    const struct space_range range = {1, 12, 1};
    const char *const cameras[] = {"left", "right"};
    struct look_steps steps = {
        .n = 3, .names = (char *[]){(char *)"bake", (char *)"beauty", (char *)"chunks"}};
    struct space spaces[3];
    char name[64];

    steps.spaces = spaces;
    for (int i = 0; i < 3; i++)
        space_init(&spaces[i]);
    assert_int_equal(space_add_texts(&spaces[1], "Camera", 0, SPACE_STRING, cameras, 2), 0);
    assert_int_equal(space_add_ints(&spaces[1], "Frame", 1, 1, false, &range, 1), 0);
    assert_int_equal(space_add_ints(&spaces[2], "Frame", 0, 5, false, &range, 1), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(space_seal(&spaces[i]), 0);

    look_task_name(&steps, 0, 0, name, sizeof(name));
    assert_string_equal(name, "bake");
    look_task_name(&steps, 1, 18, name, sizeof(name));
    assert_string_equal(name, "frame 7, Camera right");
    look_task_name(&steps, 2, 0, name, sizeof(name));
    assert_string_equal(name, "frames 1-5");
    look_task_name(&steps, 2, 99, name, sizeof(name));
    assert_string_equal(name, "step 2, task 99");
    look_task_name(&steps, 2, 0, name, 4); /* cut, not past the end */
    assert_string_equal(name, "fra");
    for (int i = 0; i < 3; i++)
        space_deinit(&spaces[i]);
}

static void frames_is(const struct space *space, uint64_t first, uint64_t last, bool all,
                      const char *expected)
{
    Wl__TaskRange range = WL__TASK_RANGE__INIT, *list = &range;
    char *text = NULL;

    range.first = first;
    range.last = last;
    assert_int_equal(look_frames(space, &list, 1, all, &text), 0);
    assert_string_equal(text, expected);
    free(text);
}

static void tasks_are_told_as_frames(void **state)
{
    const struct space_range ranges[] = {{1, 9, 2}, {100, 42000099, 1}};
    const struct space_range tiles = {0, 3, 1};
    struct space plain, chunked, tiled, huge;

    space_init(&plain);
    assert_int_equal(space_add_ints(&plain, "Frame", 0, 1, false, ranges, 1), 0);
    assert_int_equal(space_seal(&plain), 0);
    frames_is(&plain, 0, 4, true, "1-9:2");
    frames_is(&plain, 1, 2, true, "3-5:2");
    frames_is(&plain, 3, 400, true, "7-9:2"); /* past the end is cut */

    space_init(&chunked);
    assert_int_equal(space_add_ints(&chunked, "Frame", 0, 2, false, ranges, 1), 0);
    assert_int_equal(space_seal(&chunked), 0);
    frames_is(&chunked, 1, 2, true, "5-9:2");

    /* Four tiles a frame: a frame is done when all are, and failed when one is. */
    space_init(&tiled);
    assert_int_equal(space_add_ints(&tiled, "Frame", 0, 1, false, ranges, 1), 0);
    assert_int_equal(space_add_ints(&tiled, "Tile", 1, 1, false, &tiles, 1), 0);
    assert_int_equal(space_seal(&tiled), 0);
    frames_is(&tiled, 2, 9, true, "3");
    frames_is(&tiled, 2, 9, false, "1-5:2");

    space_init(&huge);
    assert_int_equal(space_add_ints(&huge, "Frame", 0, 1, false, ranges + 1, 1), 0);
    assert_int_equal(space_seal(&huge), 0);
    frames_is(&huge, 0, 41999999, true, "42000000 tasks");
    space_deinit(&plain);
    space_deinit(&chunked);
    space_deinit(&tiled);
    space_deinit(&huge);
}

/* A step of twelve frames: 1-4 done, 6 failed, 5 and 7 run, 8 is leased, of two leases on 5. */
static void every_frame_stands_in_one_place_or_nothing_is_told(void **state)
{
    const struct space_range range = {1, 12, 1};
    const uint64_t live_tasks[] = {4, 6, 7, 4, 99};
    const uint32_t live_states[] = {TASK_RUNNING, TASK_RUNNING, TASK_LEASED, TASK_RUNNING,
                                    TASK_RUNNING};
    Wl__TaskRange done = WL__TASK_RANGE__INIT, failed = WL__TASK_RANGE__INIT, *dones = &done,
                  *faileds = &failed;
    Wl__TaskRange home = WL__TASK_RANGE__INIT, *homes = &home;
    Wl__StepRow row = WL__STEP_ROW__INIT;
    Wl__TaskRow live[5], *lives[5];
    struct look_places places;
    struct space space;

    (void)state;
    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, 1, false, &range, 1), 0);
    assert_int_equal(space_seal(&space), 0);
    for (size_t i = 0; i < 5; i++) {
        wl__task_row__init(&live[i]);
        live[i].step = i == 4; /* of another step */
        live[i].task = live_tasks[i];
        live[i].state = live_states[i];
        lives[i] = &live[i];
    }
    done.last = 3;
    failed.first = failed.last = 5;
    row.done_tasks = &dones;
    row.failed_tasks = &faileds;
    row.n_done_tasks = row.n_failed_tasks = 1;
    row.tasks = 12;
    row.done = 4;
    row.failed = row.leased = 1;
    row.running = 2;
    row.ready = 3;
    row.waiting = 1;
    assert_int_equal(look_places(&space, &row, 0, lives, 5, &places), 0);
    assert_string_equal(places.running, "5,7");
    assert_string_equal(places.leased, "8");
    assert_string_equal(places.waiting, "9-12");
    assert_string_equal(places.kept, "1-4");
    look_places_deinit(&places);
    home.first = home.last = 1;
    row.delivered_tasks = &homes;
    row.n_delivered_tasks = 1;
    assert_int_equal(look_places(&space, &row, 0, lives, 5, &places), 0);
    assert_string_equal(places.kept, "1,3-4");
    look_places_deinit(&places);

    assert_int_equal(look_places(&space, &row, 0, lives, 1, &places), 0); /* not all that run */
    assert_null(places.waiting);
    row.ready = 2; /* a cancelled one among them */
    row.cancelled = 1;
    assert_int_equal(look_places(&space, &row, 0, lives, 5, &places), 0);
    assert_null(places.waiting);
    row.ready = 3;
    row.cancelled = 0;
    failed.first = failed.last = 4; /* it runs, and has failed */
    assert_int_equal(look_places(&space, &row, 0, lives, 5, &places), 0);
    assert_null(places.waiting);
    space_deinit(&space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_compiles_to_its_recipe),
        cmocka_unit_test(what_makes_no_sense_is_said_with_its_reason),
        cmocka_unit_test(a_version_pins_the_steps_of_its_software_and_no_other),
        cmocka_unit_test(folders_lose_their_trailing_slash),
        cmocka_unit_test(frames_come_back_as_ranges_or_an_offset),
        cmocka_unit_test(phases_follow_from_state_and_counts),
        cmocka_unit_test(a_task_is_called_by_its_frame),
        cmocka_unit_test(tasks_are_told_as_frames),
        cmocka_unit_test(every_frame_stands_in_one_place_or_nothing_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
