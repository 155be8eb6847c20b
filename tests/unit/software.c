/* software.c - what an operator declares: read, refused by its line, found by version, and run. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/bytes.h>
#include <worker/session.h>
#include <worker/software.h>

static char folder[64];
static struct probe *probe;

static int setup(void **state)
{
    strcpy(folder, "/tmp/westlight-software-XXXXXX");
    probe = calloc(1, sizeof(*probe));
    return mkdtemp(folder) && probe ? 0 : -1;
}

static int teardown(void **state)
{
    probe_free(probe);
    return folder_remove(folder);
}

static int load(const char *text, char why[1024])
{
    char path[128];

    snprintf(path, sizeof(path), "%s/software", folder);
    assert_int_equal(file_write(path, text, strlen(text), 0600), 0);
    return software_load(path, probe, why, 1024);
}

static void versions_lie_side_by_side_and_the_newest_is_found_without_one(void **state)
{
    char why[1024] = "";

    assert_int_equal(load("# ours\n"
                          "[blender 3.10.2]\n"
                          "command = /bin/sh\n"
                          "env  OCIO  =  /opt/o c.ocio \r\n"
                          "env EMPTY =\n"
                          "[blender 3.9.12]\n"
                          "command=/bin/cat\n"
                          "[v-ray 6]\n"
                          "command = /bin/sh\n",
                          why),
                     0);
    assert_int_equal(probe->n_software, 3);
    const struct probe_software *one =
        software_find(probe->software, probe->n_software, "blender", "");
    assert_string_equal(one->version, "3.10.2"); /* not by letters */
    assert_string_equal(one->path, "/bin/sh");
    assert_int_equal(one->n_variables, 2);
    assert_string_equal(one->variables[0].name, "OCIO");
    assert_string_equal(one->variables[0].value, "/opt/o c.ocio");
    assert_string_equal(one->variables[1].value, "");
    one = software_find(probe->software, probe->n_software, "blender", "3.9.12");
    assert_string_equal(one->path, "/bin/cat");
    assert_null(software_find(probe->software, probe->n_software, "blender", "3.9"));
    assert_null(software_find(probe->software, probe->n_software, "maya", NULL));
}

static void what_is_declared_takes_the_place_of_what_was_found(void **state)
{
    char why[1024] = "";

    probe->software = calloc(1, sizeof(*probe->software));
    probe->n_software = 1;
    strcpy(probe->software[0].name, "blender");
    strcpy(probe->software[0].version, "3.4.1");
    strcpy(probe->software[0].path, "/usr/bin/blender");
    assert_int_equal(load("[blender 3.4.1]\ncommand = /bin/sh\nenv A = b\n"
                          "[blender 4.0.2]\ncommand = /bin/cat\n",
                          why),
                     0);
    assert_int_equal(probe->n_software, 2);
    assert_string_equal(probe->software[0].path, "/bin/sh");
    assert_int_equal(probe->software[0].n_variables, 1);
}

static void a_bad_file_is_refused_by_its_line(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"command = /bin/sh\n", "software:1: \"command\" stands before the first section"},
        {"\n[blender]\n", "software:2: not a software and its version: write [NAME VERSION]"},
        {"[Blender 4]\n", "software:1: not a software and its version"},
        {"[a/b 4]\n", "software:1: not a software and its version"},
        {"[blender 4.0 2]\n", "software:1: not a software and its version"},
        {"[blender 4,0]\n", "software:1: not a software and its version"},
        {"[blender 4.0\n", "software:1: a section that does not end"},
        {"[blender 4.0]\ncommand\n", "software:2: not a setting"},
        {"[blender 4.0]\ncommand = blender\n", "software:2: command \"blender\": not an absolute"},
        {"[blender 4.0]\ncommand = /nonexistent/b\n",
         "software:2: command /nonexistent/b: No such file or directory: install it"},
        {"[blender 4.0]\ncommand = /etc\n", "software:2: command /etc: no program"},
        {"[blender 4.0]\ncommand = /etc/passwd\n", "software:2: command /etc/passwd: no program"},
        {"[blender 4.0]\ncommand = /bin/sh\nenv 1A = b\n", "software:3: \"1A\" cannot name"},
        {"[blender 4.0]\ncommand = /bin/sh\nenv = b\n", "software:3: \"env\" is not known here"},
        {"[blender 4.0]\nversion = 3\n", "software:2: \"version\" is not known here"},
        {"[blender 4.0]\nenv A = b\n\n[povray 3]\ncommand = /bin/sh\n",
         "software:1: blender 4.0 has no command: add command = /PATH/TO/blender"},
        {"[blender 4.0]\ncommand = /bin/sh\ndenoiser = maybe\n",
         "software:3: denoiser = maybe: write yes, no, or nothing to have it asked"},
        {"[povray 3]\ndenoiser = yes\n",
         "software:2: denoiser is said of a blender: remove it from povray"},
        {"[povray 3]\ncommand = /bin/sh\n[blender 4.0]\n",
         "software:3: blender 4.0 has no command"},
        {"[x 1]\ncommand = /bin/sh\n[x 1]\ncommand = /bin/cat\n",
         "software:3: x 1 is there already"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char why[1024] = "";

        assert_int_equal(load(cases[i].text, why), SOFTWARE_E_FILE);
        if (!strstr(why, cases[i].expected))
            fail_msg("case %zu: %s", i, why);
        probe_forget_software(probe);
    }
    char why[1024] = "";
    assert_int_equal(software_load("/nonexistent/software", probe, why, sizeof(why)), -ENOENT);
}

static void a_declared_blender_is_asked_with_its_variables_unless_the_file_says_it(void **state)
{
    static const struct {
        const char *settings;
        enum probe_denoiser denoiser;
        bool asked;
    } cases[] = {
        {"env HAS = True", DENOISER_THERE, true},
        {"env HAS = False", DENOISER_NONE, true},
        {"", DENOISER_UNKNOWN, true},
        {"env HAS = True\ndenoiser = no", DENOISER_NONE, false},
        {"denoiser = yes", DENOISER_THERE, false},
    };
    char program[128], asked[160], text[512], why[1024] = "";

    snprintf(program, sizeof(program), "%s/blender", folder);
    snprintf(asked, sizeof(asked), "%s.asked", program);
    snprintf(text, sizeof(text), "#!/bin/sh\n: > %s\necho\necho westlight denoiser ${HAS:?}\n", asked);
    assert_int_equal(file_write(program, text, strlen(text), 0755), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unlink(asked);
        snprintf(text, sizeof(text), "[blender 4.0]\ncommand = %s\n%s\n[ray 1]\ncommand = /bin/sh\n",
                 program, cases[i].settings);
        assert_int_equal(load(text, why), 0);
        assert_int_equal(probe_ask_denoisers(probe), 0);
        assert_int_equal(probe->software[0].denoiser, cases[i].denoiser);
        assert_int_equal(probe->software[1].denoiser, DENOISER_UNKNOWN);
        assert_int_equal(access(asked, F_OK) == 0, cases[i].asked);
        probe_forget_software(probe);
    }
}

/* ---- in a session ---- */

static const char *const arguments[] = {"-c", "tool one; echo script $MARK $0 $PATH", NULL};

static void run(const char *software, const char *version, const char *command,
                struct session_result *ret_result)
{
    struct space space;
    Wl__Recipe recipe = WL__RECIPE__INIT;
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT, *steps[] = {&step};
    Wl__Action action = WL__ACTION__INIT;
    Wl__Variable path = WL__VARIABLE__INIT, *variables[] = {&path};
    char work[128];

    space_init(&space);
    assert_int_equal(space_seal(&space), 0);
    path.name = (char *)"PATH";
    path.value = (char *)"/usr/bin:/bin";
    recipe.variables = variables;
    recipe.n_variables = 1;
    recipe.steps = steps;
    recipe.n_steps = 1;
    step.name = (char *)"step";
    step.software = (char *)software;
    step.version = (char *)version;
    step.on_run = &action;
    action.command = (char *)command;
    action.arguments = (char **)(uintptr_t)arguments;
    action.n_arguments = 2;
    snprintf(work, sizeof(work), "%s/work/tmp", folder);
    assert_int_equal(folder_make(work, 0700), 0);
    snprintf(work, sizeof(work), "%s/work", folder);
    const struct session_config config = {.recipe = &recipe,
                                          .space = &space,
                                          .folder = work,
                                          .software = probe->software,
                                          .n_software = probe->n_software};
    assert_int_equal(session_run(&config, ret_result), 0);
    assert_int_equal(bytes_append(&ret_result->log, "", 1), 0);
    space_deinit(&space);
}

static void declare_tools(void)
{
    char text[1024], why[1024] = "", path[160];

    for (int i = 1; i <= 2; i++) {
        int n = snprintf(text, sizeof(text), "#!/bin/sh\necho tool %d: $MARK \"$@\"\n", i);

        snprintf(path, sizeof(path), "%s/to'o l%d", folder, i);
        assert_int_equal(file_write(path, text, (size_t)n, 0700), 0);
    }
    snprintf(text, sizeof(text),
             "[tool 1]\ncommand = %s/to'o l1\nenv MARK = m1\n"
             "[tool 2]\ncommand = %s/to'o l2\nenv MARK = m2\n",
             folder, folder);
    assert_int_equal(load(text, why), 0);
}

static void the_pinned_version_runs_as_command_and_for_scripts(void **state)
{
    static const struct {
        const char *version, *command, *expected;
    } cases[] = {
        {"1", "tool", "tool 1: m1 -c tool one;"}, {"2", "tool", "tool 2: m2 -c tool one;"},
        {"", "tool", "tool 2: m2 -c tool one;"},  {"1", "sh", "tool 1: m1 one\nscript m1"},
        {"2", "sh", "tool 2: m2 one\nscript m2"},
    };

    declare_tools();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct session_result result = {0};

        run("tool", cases[i].version, cases[i].command, &result);
        if (result.class != CLASS_OK || !strstr((char *)result.log.data, cases[i].expected))
            fail_msg("case %zu: %s: %s", i, result.message, (char *)result.log.data);
        session_result_deinit(&result);
    }
}

static void a_version_that_is_not_there_fails_the_task_and_no_other_stands_in(void **state)
{
    struct session_result result = {0};

    declare_tools();
    run("tool", "3", "tool", &result);
    assert_int_equal(result.class, CLASS_MISSING_INPUT);
    assert_non_null(strstr(result.message, "tool 3 is not on this worker"));
    assert_null(strstr((char *)result.log.data, "tool"));
    session_result_deinit(&result);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(versions_lie_side_by_side_and_the_newest_is_found_without_one),
        TEST(what_is_declared_takes_the_place_of_what_was_found),
        TEST(a_bad_file_is_refused_by_its_line),
        TEST(a_declared_blender_is_asked_with_its_variables_unless_the_file_says_it),
        TEST(the_pinned_version_runs_as_command_and_for_scripts),
        TEST(a_version_that_is_not_there_fails_the_task_and_no_other_stands_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
