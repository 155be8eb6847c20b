/* still.c - a folder that changed is never known to be as it was, and one that did not soon is. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <worker/collect.h>
#include <worker/still.h>

static char base[64], inner[80];

/* What is known of the two folders as they are now. */
static struct still *note(void)
{
    struct still *still = still_new(base);
    struct stat now;

    assert_non_null(still);
    assert_int_equal(lstat(base, &now), 0);
    still_note(&still, base, &now, false);
    assert_int_equal(lstat(inner, &now), 0);
    still_note(&still, inner, &now, true);
    return still;
}

static struct still *settled(void)
{
    int64_t deadline_ns = clock_monotonic_ns() + 10 * NS_PER_S;
    struct still *still;

    while (!(still = note()))
        assert_true(clock_monotonic_ns() < deadline_ns);
    return still;
}

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/westlight-still-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(inner, sizeof(inner), "%s/inner", base);
    return folder_make(inner, 0700);
}

static int teardown(void **state)
{
    (void)state;
    return folder_remove(base);
}

static bool empty(const struct still *still, const char *path)
{
    struct stat now;

    return lstat(path, &now) == 0 && still_empty(still, path, &now);
}

static void any_change_is_seen(void **state)
{
    static const char *const changes[] = {
        "touch inner/file",
        "mkdir new",
        "chmod 755 inner",
        "mv inner other; mkdir inner",
        "rmdir inner",
        "touch inner/file; touch -r . inner/file; rm inner/file; touch -d yesterday inner",
        "rmdir inner; ln -s /tmp inner",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct still *still = settled();
        char command[256];

        assert_true(still_same(still));
        assert_true(empty(still, inner));
        assert_false(empty(still, base));
        snprintf(command, sizeof(command), "cd %s && %s", base, changes[i]);
        assert_int_equal(system(command), 0);
        if (still_same(still) || (strstr(changes[i], "inner") && empty(still, inner)))
            fail_msg("after \"%s\"", changes[i]);
        still_free(still);
        snprintf(command, sizeof(command), "cd %s && rm -rf * && mkdir -m 700 inner", base);
        assert_int_equal(system(command), 0);
    }
}

/* The next change may bear the same time. */
static void what_has_just_changed_is_not_known(void **state)
{
    struct still *still;
    int64_t began_ns = clock_monotonic_ns();

    (void)state;
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(mkdir(inner, 0700), 0);
    still = note();
    if (clock_monotonic_ns() - began_ns < 20 * NS_PER_MS)
        assert_null(still);
    still_free(still);
    assert_false(still_same(NULL));
}

static void a_look_of_a_moment_ago_will_do_where_that_is_asked(void **state)
{
    struct still *still = settled();

    (void)state;
    assert_true(still_lately(still));
    assert_int_equal(rmdir(inner), 0);
    assert_true(still_lately(still));
    assert_false(still_same(still));
    still_free(still);
    assert_int_equal(mkdir(inner, 0700), 0);
    still = settled();
    assert_int_equal(rmdir(inner), 0);
    assert_false(still_lately(still)); /* nobody has looked yet */
    still_free(still);
}

static void a_file_in_an_output_that_was_empty_comes_home(void **state)
{
    const char *folders[] = {inner};
    struct still *still = settled();
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct manifest_file *files = NULL;
    struct collect *collect;
    char path[96];
    size_t n = 9;

    (void)state;
    assert_int_equal(collect_new(folders, 1, still, &collect, &why), 0);
    assert_int_equal(collect_list(collect, &files, &n, NULL, &why), 0);
    assert_int_equal(n, 0);
    free(files);
    snprintf(path, sizeof(path), "%s/frame.png", inner);
    assert_int_equal(file_write(path, "x", 1, 0600), 0);
    assert_int_equal(collect_list(collect, &files, &n, NULL, &why), 0);
    assert_int_equal(n, 1);
    assert_string_equal(files[0].path, "frame.png");
    free(files);
    collect_free(collect);
    still_free(still);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(any_change_is_seen),
        CASE(what_has_just_changed_is_not_known),
        CASE(a_look_of_a_moment_ago_will_do_where_that_is_asked),
        CASE(a_file_in_an_output_that_was_empty_comes_home),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
