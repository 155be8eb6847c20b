/* probe.c - what a node offers, against a stand-in NVML, made-up programs and made-up groups. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <worker/cgroup.h>
#include <worker/probe.h>

#define NVML_NAME (strrchr(NVML_STANDIN, '/') + 1)

static char folder[64];

static int setup(void **state)
{
    strcpy(folder, "/tmp/westlight-probe-XXXXXX");
    return mkdtemp(folder) ? setenv("PATH", folder, 1) : -1;
}

static int teardown(void **state)
{
    return folder_remove(folder);
}

static void put(const char *name, const char *text, unsigned mode)
{
    char path[256], *slash;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(folder_make(path, 0700), 0);
    *slash = '/';
    assert_int_equal(file_write(path, text, strlen(text), mode), 0);
}

static void a_card_that_is_lost_is_not_offered(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;

    setenv("WESTLIGHT_STANDIN_CARDS", "3", 1);
    assert_int_equal(probe_new(NVML_STANDIN, &probe), 0);
    assert_int_equal(probe->n_gpus, 2);
    assert_int_equal(probe->n_gpus_lost, 1);
    assert_string_equal(probe->gpus[0].model, "Stand-in H100");
    assert_string_equal(probe->gpus[1].model, "Stand-in H100");
    assert_string_equal(probe->gpus[1].uuid, "GPU-00000002-0000-0000-0000-000000000000");
    assert_true(probe->gpus[1].memory_bytes == 80ULL << 30);
}

static void the_library_may_be_named_by_the_environment(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;

    setenv("WESTLIGHT_STANDIN_CARDS", "1", 1);
    setenv("WESTLIGHT_NVML", NVML_STANDIN, 1);
    assert_int_equal(probe_new(NULL, &probe), 0);
    unsetenv("WESTLIGHT_NVML");
    assert_int_equal(probe->n_gpus, 1);
}

static void the_first_library_that_knows_of_cards_counts(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;

    setenv("WESTLIGHT_STANDIN_CARDS", "1", 1);
    assert_int_equal(probe_new("none.so:/nonexistent/none.so:libm.so.6:" NVML_STANDIN, &probe), 0);
    assert_int_equal(probe->n_gpus, 1);
}

/* Loaded before, so that its name alone finds it, as through LD_LIBRARY_PATH. */
static void the_drivers_folder_is_known_where_a_task_would_not_look(void **state)
{
    char folder_of[] = NVML_STANDIN, searched[2048];
    const struct {
        const char *name, *before, *folder, *after; /* of LD_LIBRARY_PATH */
        bool known;
    } cases[] = {
        {NVML_STANDIN, "", "", "", true},
        {NVML_NAME, "", "", "", false}, /* the linker finds it for the task, too */
        {NVML_NAME, "/opt:", folder_of, "x:/usr", false},
        {NVML_NAME, "", folder_of, "", true},
        {NVML_NAME, "/opt:", folder_of, "//:/usr", true},
    };
    void *loaded = dlopen(NVML_STANDIN, RTLD_NOW);

    assert_non_null(loaded);
    *strrchr(folder_of, '/') = 0;
    setenv("WESTLIGHT_STANDIN_CARDS", "1", 1);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(probe_freep) struct probe *probe = NULL;

        snprintf(searched, sizeof(searched), "%s%s%s", cases[i].before, cases[i].folder,
                 cases[i].after);
        setenv("LD_LIBRARY_PATH", searched, 1);
        assert_int_equal(probe_new(cases[i].name, &probe), 0);
        assert_int_equal(probe->n_gpus, 1);
        assert_string_equal(probe->driver_folder, cases[i].known ? folder_of : "");
    }
    unsetenv("LD_LIBRARY_PATH");
    dlclose(loaded);
}

static void without_a_driver_there_are_no_cards(void **state)
{
    static const char *const libraries[] = {NVML_STANDIN, "/nonexistent/libnvidia-ml.so.1", "libm.so.6"};

    unsetenv("WESTLIGHT_STANDIN_CARDS");
    for (size_t i = 0; i < ARRAY_SIZE(libraries); i++) {
        _cleanup_(probe_freep) struct probe *probe = NULL;

        assert_int_equal(probe_new(libraries[i], &probe), 0);
        assert_int_equal(probe->n_gpus, 0);
    }
}

static void no_more_cards_than_a_lease_can_name(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;

    setenv("WESTLIGHT_STANDIN_CARDS", "40", 1);
    assert_int_equal(probe_new(NVML_STANDIN, &probe), 0);
    assert_int_equal(probe->n_gpus + probe->n_gpus_lost, LIMIT_GPUS);
}

static struct probe *software(void)
{
    struct probe *probe = NULL;

    assert_int_equal(probe_new("/nonexistent", &probe), 0);
    assert_int_equal(probe->n_software, 0);
    assert_int_equal(probe_find_software(probe), 0);
    return probe;
}

static void software_is_what_says_its_version(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;

    put("povray", "#!/bin/sh\necho 'cannot open a file' >&2\necho 'POV-Ray 3.7.0.10.unofficial' >&2\n",
        0755);
    put("blender", "#!/bin/sh\necho Blender 3.4.1\nexit 1\n", 0755);
    probe = software();
    assert_int_equal(probe->n_software, 1);
    assert_string_equal(probe->software[0].name, "povray");
    assert_string_equal(probe->software[0].version, "3.7.0.10");
    assert_non_null(strstr(probe->software[0].path, "/povray"));

    probe_free(TAKE_PTR(probe));
    put("blender", "#!/bin/sh\necho\necho Blender 3.4.1\n", 0755);
    put("povray", "not a program", 0644);
    probe = software();
    assert_int_equal(probe->n_software, 1);
    assert_string_equal(probe->software[0].version, "3.4.1");
}

static void a_blender_found_is_run_once_for_its_version_and_its_denoiser(void **state)
{
    static const struct {
        const char *says; /* beside its version */
        enum probe_denoiser denoiser;
        const char *runs;
    } cases[] = {
        {"echo; echo westlight denoiser True", DENOISER_THERE, "1\n"},
        {"echo; echo westlight denoiser False", DENOISER_NONE, "1\n"},
        {"echo; echo that westlight denoiser True", DENOISER_UNKNOWN, "1\n"},
        {"[ $1 = --version ] && exit; echo; echo westlight denoiser True; exit 1", DENOISER_UNKNOWN,
         "1\n1\n"}, /* it cannot do what it was asked, but it is there */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(probe_freep) struct probe *probe = NULL;
        _cleanup_(bytes_deinit) struct bytes runs = {0};
        char text[512], path[256];

        snprintf(path, sizeof(path), "%s/runs", folder);
        unlink(path);
        snprintf(text, sizeof(text), "#!/bin/sh\necho 1 >> %s\necho Blender 4.0.2\n%s\n", path,
                 cases[i].says);
        put("blender", text, 0755);
        probe = software();
        assert_int_equal(probe->n_software, 1);
        assert_string_equal(probe->software[0].version, "4.0.2");
        assert_int_equal(probe->software[0].denoiser, cases[i].denoiser);
        assert_int_equal(file_read(path, 100, &runs), 0);
        assert_int_equal(bytes_append(&runs, "", 1), 0);
        assert_string_equal((char *)runs.data, cases[i].runs);
    }
}

static void the_machine_is_what_this_process_may_use(void **state)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;
    cpu_set_t all, one;

    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(probe_new("/nonexistent", &probe), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(probe->cores, 1);
    assert_true(probe->memory_mib > 16);
    assert_true(strlen(probe->host) > 0);
}

static void groups_read(struct cgroup_limits *ret_limits)
{
    char membership[128], mount[128];

    snprintf(membership, sizeof(membership), "%s/self", folder);
    snprintf(mount, sizeof(mount), "%s/mount", folder);
    cgroup_read(membership, mount, ret_limits);
}

static void the_least_limit_on_the_way_up_counts(void **state)
{
    struct cgroup_limits limits;

    put("self", "0::/farm/worker\n", 0644);
    put("mount/farm/worker/memory.max", "8589934592\n", 0644);
    put("mount/farm/worker/cpu.max", "max 100000\n", 0644);
    put("mount/farm/memory.max", "4294967296\n", 0644);
    put("mount/farm/cpu.max", "250000 100000\n", 0644);
    groups_read(&limits);
    assert_true(limits.memory_bytes == 4ULL << 30);
    assert_true(limits.cores == 2.5);
}

static void version_1_groups_and_containers_are_read(void **state)
{
    struct cgroup_limits limits;

    put("self", "4:memory:/not/mounted/here\n2:cpu,cpuacct:/a\n0::/\n", 0644);
    put("mount/memory/memory.limit_in_bytes", "1073741824\n", 0644);
    put("mount/cpu,cpuacct/a/cpu.cfs_quota_us", "400000\n", 0644);
    put("mount/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n", 0644);
    groups_read(&limits);
    assert_true(limits.memory_bytes == 1ULL << 30);
    assert_true(limits.cores == 4);

    put("mount/memory/memory.limit_in_bytes", "9223372036854771712\n", 0644);
    put("mount/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n", 0644);
    groups_read(&limits);
    assert_true(limits.memory_bytes == 0 && limits.cores == 0);
}

int main(void)
{
#define PROBE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        PROBE(a_card_that_is_lost_is_not_offered),
        PROBE(the_library_may_be_named_by_the_environment),
        PROBE(the_first_library_that_knows_of_cards_counts),
        PROBE(the_drivers_folder_is_known_where_a_task_would_not_look),
        PROBE(without_a_driver_there_are_no_cards),
        PROBE(no_more_cards_than_a_lease_can_name),
        PROBE(software_is_what_says_its_version),
        PROBE(a_blender_found_is_run_once_for_its_version_and_its_denoiser),
        PROBE(the_machine_is_what_this_process_may_use),
        PROBE(the_least_limit_on_the_way_up_counts),
        PROBE(version_1_groups_and_containers_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
