/* spawn.c - actions end as they should, and nothing of them is left. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <worker/spawn.h>
#include <worker/warden.h>

static struct bytes output;

static void on_output(void *user, const void *data, size_t size)
{
    assert_int_equal(bytes_append(&output, data, size), 0);
}

static const char *output_text(void)
{
    assert_int_equal(bytes_append(&output, "", 1), 0);
    output.size--;
    return (const char *)output.data;
}

static int setup(void **state)
{
    output.size = 0;
    return spawn_group_new((struct spawn_group **)state);
}

static int teardown(void **state)
{
    spawn_group_free(*state);
    bytes_deinit(&output);
    return 0;
}

static char *const environment[] = {(char *)"PATH=/usr/bin:/bin", (char *)"MARK=7", NULL};

static struct spawn_config shell(char *const *arguments)
{
    return (struct spawn_config){.arguments = arguments, .environment = environment,
                                 .folder = "/tmp", .on_output = on_output,
                                 .timeout_ns = 30 * NS_PER_S};
}

#define SHELL(text) ((char *const[]){(char *)"sh", (char *)"-c", (char *)(text), NULL})

static bool alive(pid_t pid)
{
    char path[64], line[256] = "";
    FILE *file;
    bool zombie;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return false;
    if (!fgets(line, sizeof(line), file))
        line[0] = 0;
    fclose(file);
    zombie = strstr(line, ") Z") != NULL;
    return !zombie && line[0];
}

static void gone_soon(pid_t pid)
{
    int64_t deadline_ns = clock_monotonic_ns() + 10 * NS_PER_S;

    assert_true(pid > 1);
    while (alive(pid)) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        usleep(2000);
    }
}

static void output_and_exit_status_are_the_actions(void **state)
{
    struct spawn_config config = shell(SHELL("echo out; echo err >&2; pwd; exit 3"));
    struct spawn_result result;

    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_EXITED);
    assert_int_equal(result.exit_status, 3);
    assert_string_equal(output_text(), "out\nerr\n/tmp\n");
}

static void an_action_has_the_file_limit_that_the_worker_was_started_with(void **state)
{
    struct spawn_config config = shell(SHELL("ulimit -Sn; ulimit -Hn"));
    struct spawn_result result;
    struct rlimit before, limit, raised;
    unsigned long long soft, hard;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = (struct rlimit){.rlim_cur = 200, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    warden_raise_files();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &raised), 0);
    assert_int_equal(raised.rlim_cur, before.rlim_max);
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(sscanf(output_text(), "%llu %llu", &soft, &hard), 2);
    assert_int_equal(soft, 200);
    assert_int_equal(hard, before.rlim_max);
}

static void nothing_outlives_a_killed_warden(void **state)
{
    /* In its group, in a session of its own, and one whose parent has gone. */
    struct spawn_config config = shell(
        SHELL("sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (sleep 1002 & echo $!); "
              "kill -9 $PPID; wait"));
    struct spawn_result result;
    int pids[3];

    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_LOST);
    assert_int_equal(sscanf(output_text(), "%d %d %d", &pids[0], &pids[1], &pids[2]), 3);
    for (int i = 0; i < 3; i++)
        assert_false(alive(pids[i]));
}

static void a_killed_warden_takes_no_other_with_it(void **state)
{
    struct spawn_config daemon = shell(SHELL("sleep 1000 & echo $!"));
    struct spawn_config config = shell(SHELL("kill -9 $PPID; wait"));
    struct spawn_result result;
    int pid;

    daemon.keep = true;
    assert_int_equal(spawn_run(*state, &daemon, &result), 0);
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_LOST);
    assert_int_equal(sscanf(output_text(), "%d", &pid), 1);
    assert_true(alive(pid));
}

/* The process id of the warden that ran it. */
static int warden_of_one(void **state)
{
    struct spawn_config config = shell(SHELL("echo $PPID"));
    struct spawn_result result;
    int pid;

    output.size = 0;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_EXITED);
    assert_int_equal(sscanf(output_text(), "%d", &pid), 1);
    return pid;
}

static void a_warden_runs_one_action_after_another_which_see_nothing_of_each_other(void **state)
{
    struct spawn_config config = shell(SHELL("trap '' TERM; cd /; umask 0; ulimit -n 64; exec 9>&1"));
    struct spawn_config look =
        shell(SHELL("umask; pwd; trap; ls /proc/self/fd | wc -l; echo $PPID"));
    struct spawn_result result;
    int first, second, n;
    unsigned mask;

    first = warden_of_one(state);
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    output.size = 0;
    assert_int_equal(spawn_run(*state, &look, &result), 0);
    assert_int_equal(sscanf(output_text(), "%o /tmp %d %d", &mask, &n, &second), 3);
    assert_int_equal(mask, 022);
    assert_int_equal(n, 4); /* its three, and the folder that is listed */
    assert_int_equal(first, second);
}

static void a_warden_that_its_action_changed_runs_no_other(void **state)
{
    static const char *const changes[] = {"renice -n 3 -p $PPID", "prlimit --pid $PPID --nofile=64",
                                          "prlimit --pid $PPID --cpu=1000",
                                          "taskset -p -c 0 $PPID; true", "ionice -c 3 -p $PPID"};

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct spawn_config config = shell(SHELL(changes[i]));
        struct spawn_result result;
        int first = warden_of_one(state), second;

        assert_int_equal(spawn_run(*state, &config, &result), 0);
        assert_int_equal(result.exit_status, 0);
        second = warden_of_one(state);
        if (first == second && (strncmp(changes[i], "taskset", 7) != 0 || get_nprocs() > 1))
            fail_msg("after \"%s\"", changes[i]);
    }
}

static void a_warden_that_was_killed_while_it_waited_is_replaced(void **state)
{
    int first = warden_of_one(state), second;

    assert_int_equal(kill(first, SIGKILL), 0);
    gone_soon(first);
    second = warden_of_one(state);
    assert_int_not_equal(first, second);
}

static void arguments_larger_than_a_message_arrive_whole(void **state)
{
    char *big = malloc(120001), *bigger[] = {environment[0], NULL, NULL, NULL};
    struct spawn_config config = shell(SHELL("echo ${#A} ${#B}"));
    struct spawn_result result;

    assert_non_null(big);
    memset(big, 'b', 120000);
    big[120000] = 0;
    memcpy(big, "A=", 2);
    bigger[1] = strdup(big);
    memcpy(big, "B=", 2);
    bigger[2] = big;
    config.environment = bigger;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_string_equal(output_text(), "119998 119998\n");
    free(bigger[1]);
    free(big);
}

static void a_signal_is_128_and_its_number(void **state)
{
    struct spawn_config config = shell(SHELL("kill -SEGV $$"));
    struct spawn_result result;

    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_EXITED);
    assert_int_equal(result.exit_status, 128 + SIGSEGV);
}

static void it_sees_only_what_it_was_given(void **state)
{
    struct spawn_config config = shell(SHELL("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=; "
                                             "ls /proc/self/fd | tr '\\n' ' '; ulimit -c; "
                                             "read x; echo $?; grep SigBlk /proc/self/status"));
    struct spawn_result result;

    assert_int_equal(setenv("WESTLIGHT_CANARY", "secret", 1), 0);
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_null(strstr(output_text(), "CANARY"));
    assert_non_null(strstr(output_text(), "MARK=7\n"));
    /* ls itself holds 3 open; a pipe or socket of ours would be 4. */
    assert_non_null(strstr(output_text(), "0 1 2 3 0\n1\nSigBlk:\t0000000000000000\n"));
}

static void a_command_that_is_nowhere_is_said_so(void **state)
{
    struct spawn_config config = shell((char *const[]){(char *)"povrayy", NULL});
    struct spawn_result result;

    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_NO_COMMAND);
    assert_int_equal(result.error, ENOENT);
    config.arguments = (char *const[]){(char *)"/etc/passwd", NULL};
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_NO_COMMAND);
    assert_int_equal(result.error, EACCES);
}

static void a_timeout_ends_even_what_ignores_sigterm_and_hides(void **state)
{
    struct spawn_config config = shell(SHELL("trap '' TERM; setsid sleep 100 & echo $!; "
                                             "(sleep 101 & echo $!) ; sleep 102"));
    struct spawn_result result;
    int first = 0, second = 0;
    int64_t start_ns = clock_monotonic_ns();

    config.timeout_ns = 300 * NS_PER_MS;
    config.notify_ns = 200 * NS_PER_MS;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_TIMEOUT);
    assert_int_equal(result.exit_status, 128 + SIGKILL);
    assert_true(clock_monotonic_ns() - start_ns >= 500 * NS_PER_MS);
    assert_int_equal(sscanf(output_text(), "%d %d", &first, &second), 2);
    /* Gone when spawn_run returns, not some time later. */
    assert_false(alive(first));
    assert_false(alive(second));
}

static void sigterm_comes_first(void **state)
{
    struct spawn_config config = shell(SHELL("trap 'echo tidy; exit 9' TERM; sleep 100 & wait"));
    struct spawn_result result;

    config.timeout_ns = 200 * NS_PER_MS;
    config.notify_ns = 20 * NS_PER_S;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_TIMEOUT);
    assert_int_equal(result.exit_status, 9);
    assert_string_equal(output_text(), "tidy\n");
}

static atomic_bool stop;

static void stop_it(void *user, bool over)
{
    assert_false(over);
    atomic_store(&stop, true);
}

static void the_stop_flag_stops_it(void **state)
{
    struct spawn_config config = shell(SHELL("sleep 100"));
    struct spawn_result result;

    atomic_store(&stop, false);
    config.stop = &stop;
    config.on_started = stop_it;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_STOPPED);
}

struct told {
    int n, over;
};

static void on_started(void *user, bool over)
{
    struct told *told = user;

    told->n++;
    told->over += over;
}

static struct told told_of(struct spawn_group *group, char *const *arguments)
{
    struct told told = {0};
    struct spawn_config config = shell(arguments);
    struct spawn_result result;

    config.on_output = NULL;
    config.on_started = on_started;
    config.user = &told;
    assert_int_equal(spawn_run(group, &config, &result), 0);
    return told;
}

static void a_start_is_told_once_and_none_of_what_never_ran(void **state)
{
    int over = 0;
    struct told told;

    for (int i = 0; i < 50; i++) { /* on a machine that is busy one may take longer */
        told = told_of(*state, (char *const[]){(char *)"/bin/true", NULL});
        assert_int_equal(told.n, 1);
        over += told.over;
    }
    assert_true(over > 0);
    told = told_of(*state, SHELL("sleep 0.05"));
    assert_int_equal(told.n, 1);
    assert_int_equal(told.over, 0);
    told = told_of(*state, (char *const[]){(char *)"/etc/passwd", NULL});
    assert_int_equal(told.n, 0);
}

static void the_kernel_takes_an_action_before_the_worker_or_a_warden(void **state)
{
    /* The warden takes its own back a moment after the action began. */
    struct spawn_config config =
        shell(SHELL("cat /proc/self/oom_score_adj; for i in 1 2 3 4 5 6 7 8 9; do "
                    "grep -qx 500 /proc/$PPID/oom_score_adj || break; sleep 0.1; done; "
                    "cat /proc/$PPID/oom_score_adj"));
    struct spawn_result result;
    struct bytes own = {0};
    char expected[64];

    assert_int_equal(file_read("/proc/self/oom_score_adj", 16, &own), 0);
    snprintf(expected, sizeof(expected), "500\n%.*s", (int)own.size, (const char *)own.data);
    bytes_deinit(&own);
    for (int i = 0; i < 2; i++) {
        output.size = 0;
        assert_int_equal(spawn_run(*state, &config, &result), 0);
        assert_string_equal(output_text(), expected);
    }
}

static void too_much_memory_ends_it(void **state)
{
    struct spawn_config config = shell(SHELL("x=$(head -c 100000000 /dev/zero | tr '\\0' x); "
                                             "sleep 100; echo $x"));
    struct spawn_result result;
    struct spawn_usage usage;

    config.memory_bytes = 40 << 20;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_MEMORY);
    assert_true(result.memory_bytes > 40u << 20);
    spawn_group_end(*state, &usage);
    assert_true(usage.memory_bytes > 40u << 20);
}

static void what_was_kept_lives_until_the_group_ends(void **state)
{
    struct spawn_config config = shell(SHELL("(setsid sleep 100 & echo $!)"));
    struct spawn_result result;
    struct spawn_usage usage;
    int pid = 0;

    config.keep = true;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_int_equal(result.end, SPAWN_EXITED);
    assert_int_equal(sscanf(output_text(), "%d", &pid), 1);
    config.arguments = SHELL("true");
    config.keep = false;
    assert_int_equal(spawn_run(*state, &config, &result), 0);
    assert_true(alive(pid));
    spawn_group_end(*state, &usage);
    assert_false(alive(pid));
}

static void all_of_the_cpu_time_is_counted(void **state)
{
    struct spawn_config config = shell(SHELL(
        "(i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) & wait; echo done"));
    struct spawn_result result;
    struct spawn_usage usage;

    assert_int_equal(spawn_run(*state, &config, &result), 0);
    spawn_group_end(*state, &usage);
    assert_true(usage.cpu_ns > 5 * NS_PER_MS && usage.cpu_ns < 30 * NS_PER_S);
    assert_true(usage.memory_bytes > 0);
}

/* The kill that follows every action may cross the warden's last report. */
static void the_last_report_is_never_lost(void **state)
{
    struct spawn_config config = shell(SHELL("exit 0"));
    struct spawn_result result;
    struct spawn_usage usage;
    uint64_t before_ns = 0;

    for (int i = 0; i < 200; i++) {
        assert_int_equal(spawn_run(*state, &config, &result), 0);
        assert_int_equal(result.end, SPAWN_EXITED);
        spawn_group_end(*state, &usage);
        assert_true(usage.cpu_ns > before_ns);
        before_ns = usage.cpu_ns;
    }
}

static void to_the_test(void *user, const void *data, size_t size)
{
    if (write(*(int *)user, data, size) < 0)
        _exit(1);
}

static void the_workers_death_ends_its_actions(void **state)
{
    struct spawn_config config = shell(SHELL("setsid sleep 100 & echo $$ $!; exec sleep 101"));
    int text[2], first = 0, second = 0;
    pid_t worker;
    FILE *file;

    assert_int_equal(pipe(text), 0);
    worker = fork();
    if (worker == 0) {
        struct spawn_result result;

        config.on_output = to_the_test;
        config.user = &text[1];
        spawn_run(*state, &config, &result);
        _exit(1);
    }
    close(text[1]);
    file = fdopen(text[0], "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d %d", &first, &second), 2);
    fclose(file);
    assert_true(alive(first) && alive(second));

    assert_int_equal(kill(worker, SIGKILL), 0);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    gone_soon(first);
    gone_soon(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(output_and_exit_status_are_the_actions, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_is_128_and_its_number, setup, teardown),
        cmocka_unit_test_setup_teardown(
            an_action_has_the_file_limit_that_the_worker_was_started_with, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_outlives_a_killed_warden, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_warden_takes_no_other_with_it, setup, teardown),
        cmocka_unit_test_setup_teardown(it_sees_only_what_it_was_given, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_warden_runs_one_action_after_another_which_see_nothing_of_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(a_warden_that_its_action_changed_runs_no_other, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_warden_that_was_killed_while_it_waited_is_replaced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(arguments_larger_than_a_message_arrive_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(a_command_that_is_nowhere_is_said_so, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timeout_ends_even_what_ignores_sigterm_and_hides, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(sigterm_comes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(the_stop_flag_stops_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_start_is_told_once_and_none_of_what_never_ran, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_kernel_takes_an_action_before_the_worker_or_a_warden,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(too_much_memory_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_kept_lives_until_the_group_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(all_of_the_cpu_time_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_report_is_never_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(the_workers_death_ends_its_actions, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
