/* session.c - a task from its recipe to its result, with real processes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <worker/session.h>

/* One job of one step, which tests change before they run it. */
struct scene {
    char folder[64];
    struct space space;
    Wl__Recipe recipe;
    Wl__StepRecipe step, *steps[1];
    Wl__Action run;
    char *arguments[2];
    struct session_config config;
    struct session_result result;
    uint32_t permille;
    int started, ended;
    atomic_bool stop;
};

static void on_started(void *user, bool over)
{
    (void)over;
    ((struct scene *)user)->started++;
}

static void on_progress(void *user, uint32_t permille, const char *status)
{
    ((struct scene *)user)->permille = permille;
}

static int setup(void **state)
{
    static const struct space_range frames = {1, 10, 1};
    struct scene *scene = calloc(1, sizeof(*scene));
    char tmp[80];

    strcpy(scene->folder, "/tmp/westlight-session-XXXXXX");
    if (!mkdtemp(scene->folder))
        return -1;
    snprintf(tmp, sizeof(tmp), "%s/tmp", scene->folder);
    if (folder_make(tmp, 0700) < 0)
        return -1;
    space_init(&scene->space);
    if (space_add_ints(&scene->space, "Frame", 0, 3, false, &frames, 1) || space_seal(&scene->space))
        return -1;
    wl__recipe__init(&scene->recipe);
    wl__step_recipe__init(&scene->step);
    wl__action__init(&scene->run);
    scene->steps[0] = &scene->step;
    scene->recipe.steps = scene->steps;
    scene->recipe.n_steps = 1;
    scene->step.name = (char *)"beauty";
    scene->step.on_run = &scene->run;
    scene->run.command = (char *)"sh";
    scene->run.arguments = scene->arguments;
    scene->run.n_arguments = 2;
    scene->arguments[0] = (char *)"-c";
    scene->config = (struct session_config){
        .recipe = &scene->recipe, .space = &scene->space, .task = 1, .folder = scene->folder,
        .vcpus = 3, .cards = "1,2", .stop = &scene->stop, .on_started = on_started,
        .on_progress = on_progress, .user = scene,
    };
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;

    session_result_deinit(&scene->result);
    space_deinit(&scene->space);
    folder_remove(scene->folder);
    free(scene);
    return 0;
}

static const char *run(struct scene *scene, const char *script)
{
    scene->arguments[1] = (char *)script;
    assert_int_equal(session_run(&scene->config, &scene->result), 0);
    assert_int_equal(bytes_append(&scene->result.log, "", 1), 0);
    return (const char *)scene->result.log.data;
}

static void holds(const char *text, const char *part)
{
    assert_non_null(text);
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

static void parameters_files_and_paths_reach_the_action(void **state)
{
    struct scene *scene = *state;
    Wl__Parameter scene_file = WL__PARAMETER__INIT, *parameters[] = {&scene_file};
    Wl__EmbeddedFile file = WL__EMBEDDED_FILE__INIT, *files[] = {&file};
    Wl__Variable variable = WL__VARIABLE__INIT, *variables[] = {&variable};
    const struct session_map maps[] = {{"C:\\Show", 1, "/in/root0"}};
    const char *log;

    scene_file = (Wl__Parameter)WL__PARAMETER__INIT;
    scene_file.name = (char *)"Scene";
    scene_file.type = SPACE_PATH;
    scene_file.value = (char *)"c:\\show\\a\\b.pov";
    scene->recipe.parameters = parameters;
    scene->recipe.n_parameters = 1;
    variable.name = (char *)"OCIO";
    variable.value = (char *)"C:/Show/ocio/config";
    scene->recipe.variables = variables;
    scene->recipe.n_variables = 1;
    file.name = (char *)"Script";
    file.runnable = true;
    file.data = (char *)"#!/bin/sh\necho script {{Task.Param.Frame}} {{Lease.VCPUs}}\n";
    scene->step.files = files;
    scene->step.n_files = 1;
    scene->config.maps = maps;
    scene->config.n_maps = 1;
    log = run(scene, "printf '%s %s\\n' '{{Param.Scene}}' '{{RawParam.Scene}}'; {{Task.File.Script}}; "
                     "echo $OCIO; echo $OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES $HOME $TMPDIR; pwd; "
                     "echo {{Session.HasPathMappingRules}}; cat {{Session.PathMappingRulesFile}}; "
                     "echo; stat -c %a {{Task.File.Script}}; test -d $TMPDIR && echo has tmp");

    assert_int_equal(scene->result.class, CLASS_OK);
    assert_int_equal(scene->result.exit_status, 0);
    assert_string_equal(scene->result.message, "");
    assert_int_equal(scene->started, 1);
    holds(log, "/in/root0/a/b.pov c:\\show\\a\\b.pov\nscript 4-6 3\n/in/root0/ocio/config\n3 1,2 ");
    holds(log, scene->folder);
    holds(log, "\ntrue\n");
    holds(log, "\"source_path_format\": \"WINDOWS\"");
    holds(log, "\"source_path\": \"C:\\\\Show\"");
    holds(log, "\n700\nhas tmp\n");
    assert_true(scene->result.wall_ns > 0);
}

static void environments_nest_and_are_left_in_reverse(void **state)
{
    struct scene *scene = *state;
    Wl__Environment outer = WL__ENVIRONMENT__INIT, inner = WL__ENVIRONMENT__INIT;
    Wl__Environment *outers[] = {&outer}, *inners[] = {&inner};
    Wl__Action actions[4];
    char *arguments[4][2] = {
        {(char *)"-c", (char *)"echo enter outer; echo openjd_env: A=outer; echo openjd_env: B=outer; "
                               "setsid sleep 100 & echo $! > daemon"},
        {(char *)"-c", (char *)"echo leave outer A=$A C=$C; cat {{Env.File.Note}}"},
        {(char *)"-c", (char *)"echo enter inner A=$A C=$C; echo openjd_env: A=inner; "
                               "echo openjd_unset_env: B"},
        {(char *)"-c", (char *)"echo leave inner A=$A B=$B; kill -0 $(cat daemon) && echo daemon lives"},
    };
    Wl__EmbeddedFile note = WL__EMBEDDED_FILE__INIT, *notes[] = {&note};
    Wl__Variable variable = WL__VARIABLE__INIT, *variables[] = {&variable};
    const char *log;

    for (size_t i = 0; i < 4; i++) {
        wl__action__init(&actions[i]);
        actions[i].command = (char *)"sh";
        actions[i].arguments = arguments[i];
        actions[i].n_arguments = 2;
    }
    note.name = (char *)"Note";
    note.data = (char *)"note\n";
    variable.name = (char *)"C";
    variable.value = (char *)"see {{Env.File.Note}}";
    outer = (Wl__Environment)WL__ENVIRONMENT__INIT;
    outer.name = (char *)"outer";
    outer.on_enter = &actions[0];
    outer.on_exit = &actions[1];
    outer.files = notes;
    outer.n_files = 1;
    outer.variables = variables;
    outer.n_variables = 1;
    inner.name = (char *)"inner";
    inner.on_enter = &actions[2];
    inner.on_exit = &actions[3];
    scene->recipe.environments = outers;
    scene->recipe.n_environments = 1;
    scene->step.environments = inners;
    scene->step.n_environments = 1;
    log = run(scene, "echo run A=$A B=$B; echo openjd_env: A=lost; exit 5");

    assert_int_equal(scene->result.class, CLASS_RENDERER);
    assert_int_equal(scene->result.exit_status, 5);
    holds(log, "enter outer\n");
    holds(log, "enter inner A=outer C=see /tmp/westlight-session-");
    holds(log, "run A=inner B=\n");
    holds(log, "leave inner A=inner B=\ndaemon lives\nleave outer A=outer C=see /tmp/");
    holds(log, "files/env0/Note\nnote\n");

    /* A failing enter: the action is not run, and what was entered is left. */
    session_result_deinit(&scene->result);
    scene->started = 0;
    arguments[2][1] = (char *)"echo openjd_fail: no disk; exit 4";
    arguments[1][1] = (char *)"echo leave outer; exit 6";
    log = run(scene, "echo run");
    assert_int_equal(scene->started, 0);
    assert_int_equal(scene->result.class, CLASS_RENDERER);
    assert_string_equal(scene->result.message,
                        "environment inner: sh exited with 4: no disk: the log says more");
    assert_null(strstr(log, "run\n"));
    holds(log, "leave inner");
    holds(log, "leave outer");

    /* A failing exit: what the task made stands, and the log says so. */
    session_result_deinit(&scene->result);
    arguments[2][1] = (char *)"true";
    log = run(scene, "echo run");
    assert_int_equal(scene->result.class, CLASS_OK);
    assert_int_equal(scene->result.exit_status, 0);
    holds(log, "westlight: environment outer: sh exited with 6");
}

static void failures_have_a_class_and_a_sentence(void **state)
{
    static const struct {
        const char *command, *script;
        uint32_t timeout_s;
        uint64_t memory_bytes;
        enum attempt_class class;
        const char *message;
    } cases[] = {
        {"sh", "exit 3", 0, 0, CLASS_RENDERER, "sh exited with 3: the log says more"},
        {"sh", "kill -SEGV $$", 0, 0, CLASS_RENDERER,
         "sh was killed by signal 11 (Segmentation fault): the log says more"},
        {"sh", "echo 'no license available, could not check out'; exit 1", 0, 0, CLASS_LICENCE,
         "sh exited with 1: no license available, could not check out: the log says more"},
        {"povrayy", "", 0, 0, CLASS_MISSING_INPUT,
         "povrayy: not found on this worker (PATH "},
        {"/bin", "", 0, 0, CLASS_MISSING_INPUT, "/bin: cannot be run on this worker: Permission denied"},
        {"sh", "{{Param.Scen}}", 0, 0, CLASS_RENDERER,
         "argument 2 of sh: {{Param.Scen}} is not a name that is known here: correct the job"},
        {"sh", "sleep 100", 1, 0, CLASS_TIMEOUT, "sh had not ended after 1 s and was killed"},
        {"sh", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 100", 0, 30 << 20,
         CLASS_OUT_OF_MEMORY, " MiB, more than its 30 MiB, and was killed: have the step ask for more"},
    };
    struct scene *scene = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        scene->run.command = (char *)cases[i].command;
        scene->run.timeout_s = cases[i].timeout_s;
        scene->config.memory_bytes = cases[i].memory_bytes;
        run(scene, cases[i].script);
        holds(scene->result.message, cases[i].message);
        assert_int_equal(scene->result.class, cases[i].class);
        session_result_deinit(&scene->result);
    }
}

static void a_stop_before_the_start_starts_nothing(void **state)
{
    struct scene *scene = *state;

    atomic_store(&scene->stop, true);
    run(scene, "sleep 100");
    assert_int_equal(scene->result.class, CLASS_CANCELLED);
    holds(scene->result.message, "sh was stopped, as asked");
    assert_int_equal(scene->started, 0);
}

static void an_embedded_file_stays_in_its_folder(void **state)
{
    Wl__EmbeddedFile file = WL__EMBEDDED_FILE__INIT, *files[] = {&file};
    static const char *const names[] = {"../x", "/etc/x", "..", "a/b"};
    struct scene *scene = *state;

    file.name = (char *)"Script";
    file.data = (char *)"x";
    scene->step.files = files;
    scene->step.n_files = 1;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        file.filename = (char *)names[i];
        run(scene, "true");
        assert_int_equal(scene->result.class, CLASS_RENDERER);
        holds(scene->result.message, "is no file's name");
        session_result_deinit(&scene->result);
    }
    assert_int_equal(scene->started, 0);
}

static void a_job_cannot_reach_another_tasks_cards(void **state)
{
    Wl__Variable variable = WL__VARIABLE__INIT, *variables[] = {&variable};
    struct scene *scene = *state;

    variable.name = (char *)"CUDA_VISIBLE_DEVICES";
    variable.value = (char *)"0,1,2,3";
    scene->recipe.variables = variables;
    scene->recipe.n_variables = 1;
    holds(run(scene, "echo cards=$CUDA_VISIBLE_DEVICES= $CUDA_DEVICE_ORDER"), "cards=1,2= PCI_BUS_ID\n");
    session_result_deinit(&scene->result);
    scene->config.cards = "";
    holds(run(scene, "echo cards=$CUDA_VISIBLE_DEVICES="), "cards==\n");
}

static void a_task_with_cards_finds_their_driver(void **state)
{
    struct scene *scene = *state;

    scene->config.driver_folder = "/nonexistent/nvidia";
    holds(run(scene, "echo path=$LD_LIBRARY_PATH="), "path=/nonexistent/nvidia=\n");
    session_result_deinit(&scene->result);
    scene->config.cards = "";
    holds(run(scene, "echo path=$LD_LIBRARY_PATH="), "path==\n");
}

static void the_usage_is_of_the_whole_session(void **state)
{
    struct scene *scene = *state;

    run(scene, "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 0.3");
    assert_int_equal(scene->result.class, CLASS_OK);
    assert_true(scene->result.cpu_ns > 0 && scene->result.wall_ns > 300000000u);
    assert_true(scene->result.memory_bytes > 50u << 20);
}

static void the_longest_root_that_holds_a_path_maps_it(void **state)
{
    static const struct session_map maps[] = {
        {"/show", 0, "/in/0"}, {"/show/shared/", 0, "/in/1"}, {"C:\\Show\\", 1, "/in/2"},
        {"\\\\server\\share", 1, "/in/3"}, {"/", 0, "/in/all"},
    };
    static const struct {
        const char *path, *wanted;
    } cases[] = {
        {"/show/a/b.exr", "/in/0/a/b.exr"},
        {"/show", "/in/0"},
        {"/show/", "/in/0"},
        {"//show//a", "/in/0/a"},
        {"/show/shared/tex", "/in/1/tex"},
        {"/show/shared", "/in/1"},
        {"/shower/a", "/in/all/shower/a"},
        {"/Show/a", "/in/all/Show/a"},
        {"/show/a/../b", "/in/0/a/../b"},
        {"/show/../etc/passwd", "/in/all/show/../etc/passwd"},
        {"/../etc/passwd", NULL},
        {"c:\\SHOW\\a\\b", "/in/2/a/b"},
        {"C:/show/a", "/in/2/a"},
        {"C:\\show", "/in/2"},
        {"C:\\showx", NULL},
        {"C:\\show\\..\\x", NULL},
        {"\\\\Server\\Share\\x", "/in/3/x"},
        {"relative/x", NULL},
        {"", NULL},
    };
    char path[64];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool mapped = session_map_path(maps, ARRAY_SIZE(maps), cases[i].path, path, sizeof(path));

        if (mapped != (cases[i].wanted != NULL))
            fail_msg("%s: %s", cases[i].path, mapped ? path : "not mapped");
        if (mapped)
            assert_string_equal(path, cases[i].wanted);
    }
    strcpy(path, "kept");
    assert_false(session_map_path(maps, ARRAY_SIZE(maps), "/show/abcdef", path, 8));
    assert_string_equal(path, "kept");
}

static int not_now(void *user)
{
    (void)user;
    return 7;
}

/* What the action left running, which wrote its number down. */
static void on_ended(void *user)
{
    struct scene *scene = user;
    char path[128];
    FILE *file;
    int pid = 0;

    snprintf(path, sizeof(path), "%s/left", scene->folder);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &pid), 1);
    fclose(file);
    assert_true(pid > 1 && kill(pid, 0) < 0);
    scene->ended++;
}

static void nothing_of_it_runs_when_it_says_that_it_has_ended(void **state)
{
    struct scene *scene = *state;

    scene->config.on_ended = on_ended;
    holds(run(scene, "sleep 1000 & echo $! > left; echo done"), "done");
    assert_int_equal(scene->ended, 1);
    scene->config.on_ready = not_now; /* it never began */
    assert_int_equal(session_run(&scene->config, &(struct session_result){0}), 7);
    assert_int_equal(scene->ended, 1);
}

int main(void)
{
#define SCENE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        SCENE(parameters_files_and_paths_reach_the_action),
        SCENE(environments_nest_and_are_left_in_reverse),
        SCENE(failures_have_a_class_and_a_sentence),
        SCENE(a_stop_before_the_start_starts_nothing),
        SCENE(an_embedded_file_stays_in_its_folder),
        SCENE(a_job_cannot_reach_another_tasks_cards),
        SCENE(a_task_with_cards_finds_their_driver),
        SCENE(the_usage_is_of_the_whole_session),
        SCENE(nothing_of_it_runs_when_it_says_that_it_has_ended),
        cmocka_unit_test(the_longest_root_that_holds_a_path_maps_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
