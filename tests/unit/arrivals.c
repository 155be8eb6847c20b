/* What has come for files that are not home: a fetch that was killed has it again, whole or not at
 * all; what is home goes, and it never grows past its bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <client/arrivals.h>

static char folder[64];
static uint64_t free_bytes; /* of every disk */

uint64_t __wrap_volume_free_bytes(const char *path);

uint64_t __wrap_volume_free_bytes(const char *path)
{
    (void)path;
    return free_bytes;
}

static int setup(void **state)
{
    (void)state;
    free_bytes = 1ULL << 40;
    snprintf(folder, sizeof(folder), "/tmp/westlight-arrivals-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return setenv("XDG_STATE_HOME", folder, 1);
}

static int teardown(void **state)
{
    (void)state;
    return folder_remove(folder);
}

static struct block_id add(struct arrivals *arrivals, const char *sealed)
{
    struct block_id id;

    digest(sealed, strlen(sealed), &id);
    arrivals_add(arrivals, &id, sealed, strlen(sealed));
    return id;
}

static bool there(const struct arrivals *arrivals, struct block_id id, const char *sealed)
{
    _cleanup_(bytes_deinit) struct bytes got = {0};

    if (!arrivals_get(arrivals, &id, &got))
        return false;
    assert_int_equal(got.size, strlen(sealed));
    assert_memory_equal(got.data, sealed, got.size);
    return true;
}

/* As SIGKILL leaves it. */
static void die(struct arrivals *arrivals)
{
    arrivals_close(arrivals, false);
}

static void file_of(const struct arrivals *arrivals, unsigned number, char path[LIMIT_PATH_BYTES + 16])
{
    snprintf(path, LIMIT_PATH_BYTES + 16, "%s/%u", arrivals->path, number);
}

static void what_came_before_a_kill_is_there_for_the_next_and_for_no_other_destination(void **state)
{
    struct arrivals arrivals;

    (void)state;
    arrivals_open(&arrivals, "/frames");
    arrivals_next(&arrivals, 0, 0);
    struct block_id one = add(&arrivals, "one"), two = add(&arrivals, "number two");
    arrivals_next(&arrivals, arrivals.newest, 0);
    struct block_id three = add(&arrivals, "three");
    die(&arrivals);
    arrivals_open(&arrivals, "/other");
    assert_false(there(&arrivals, one, "one"));
    arrivals_close(&arrivals, true);
    for (int time = 0; time < 2; time++) { /* killed again before anything came */
        arrivals_open(&arrivals, "/frames");
        assert_true(there(&arrivals, one, "one") && there(&arrivals, two, "number two") &&
                    there(&arrivals, three, "three"));
        die(&arrivals);
    }
    arrivals_open(&arrivals, "/frames");
    arrivals_next(&arrivals, arrivals.newest + 1, 0); /* what is another's stays */
    add(&arrivals, "four");
    assert_true(there(&arrivals, one, "one"));
    arrivals_close(&arrivals, true);
    arrivals_open(&arrivals, "/frames");
    assert_false(there(&arrivals, one, "one"));
    assert_int_equal(arrivals.folder, -1); /* nothing lies there */
    arrivals_close(&arrivals, true);
}

static void what_came_before_a_link_broke_is_there_for_the_same_fetch(void **state)
{
    struct arrivals arrivals;

    (void)state;
    arrivals_open(&arrivals, "/frames");
    for (int time = 0; time < 2; time++) {
        arrivals_next(&arrivals, 0, 0);
        struct block_id one = add(&arrivals, "one"), two = add(&arrivals, "two");
        assert_false(time == 0 && there(&arrivals, one, "one"));
        arrivals_again(&arrivals);
        assert_true(there(&arrivals, one, "one") && there(&arrivals, two, "two"));
        assert_int_equal(arrivals.bytes, (time + 1) * 2 * (36 + 3));
        arrivals_again(&arrivals);
        assert_int_equal(arrivals.n_left, (time + 1) * 2);
    }
    arrivals_close(&arrivals, true);
}

static void windows_whose_files_are_home_go(void **state)
{
    char path[LIMIT_PATH_BYTES + 16];
    struct arrivals arrivals;

    (void)state;
    arrivals_open(&arrivals, "/frames");
    for (unsigned window = 1; window <= 5; window++) {
        arrivals_next(&arrivals, window > 2 ? window - 2 : 0, 0);
        add(&arrivals, "a block");
    }
    for (unsigned number = 1; number <= 5; number++) {
        file_of(&arrivals, number, path);
        assert_int_equal(access(path, F_OK), number < 3 ? -1 : 0);
    }
    assert_int_equal(arrivals.bytes, 3 * (36 + strlen("a block")));
    arrivals_close(&arrivals, true);
}

static void what_a_power_cut_made_of_it_is_not_believed(void **state)
{
    char path[LIMIT_PATH_BYTES + 16];
    struct arrivals arrivals;

    (void)state;
    arrivals_open(&arrivals, "/frames");
    arrivals_next(&arrivals, 0, 0);
    struct block_id one = add(&arrivals, "one"), two = add(&arrivals, "two"),
                    three = add(&arrivals, "three");
    file_of(&arrivals, 1, path);
    die(&arrivals);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "\0", 1, 36 + 1), 1);
    assert_int_equal(ftruncate(fd, 2 * (36 + 3) + 36 + 4), 0);
    close(fd);
    arrivals_open(&arrivals, "/frames");
    assert_false(there(&arrivals, one, "one"));
    assert_true(there(&arrivals, two, "two"));
    assert_false(there(&arrivals, three, "three"));
    die(&arrivals);
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "\xff\xff\xff\xff", 4, 32), 4); /* a size that is none */
    close(fd);
    arrivals_open(&arrivals, "/frames");
    assert_false(there(&arrivals, two, "two"));
    die(&arrivals);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, 1 << 20), 0);
    arrivals_open(&arrivals, "/frames");
    assert_int_equal(arrivals.n_left, 0);
    arrivals_close(&arrivals, true);
}

static void where_the_disk_is_short_nothing_is_kept(void **state)
{
    const struct rlimit none = {100, RLIM_INFINITY};
    struct rlimit before;
    struct arrivals arrivals;

    (void)state;
    for (int time = 0; time < 3; time++) { /* the files themselves need it; it is full; a write fails */
        arrivals_open(&arrivals, "/");
        arrivals.beside = time == 0;
        arrivals_next(&arrivals, 0, 1 << 20);
        struct block_id one = add(&arrivals, "one");
        free_bytes = time == 0 ? (1ULL << 39) : 0;
        if (time < 2) {
            arrivals_next(&arrivals, 0, 1ULL << 39);
        } else {
            signal(SIGXFSZ, SIG_IGN);
            assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
            add(&arrivals, "a block of some bytes more than there is room for, so that it is cut off at the end");
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        }
        free_bytes = 1ULL << 40;
        add(&arrivals, "two");
        arrivals_next(&arrivals, 0, 0); /* nor later on */
        assert_int_equal(arrivals.folder, -1);
        die(&arrivals);
        arrivals_open(&arrivals, "/");
        assert_false(there(&arrivals, one, "one"));
        arrivals_close(&arrivals, true);
    }
}

static void of_two_fetches_to_one_destination_the_second_keeps_nothing(void **state)
{
    struct arrivals first, second;

    (void)state;
    arrivals_open(&first, "/frames");
    arrivals_next(&first, 0, 0);
    struct block_id one = add(&first, "one");
    arrivals_open(&second, "/frames");
    assert_false(there(&second, one, "one"));
    arrivals_next(&second, 0, 0);
    add(&second, "two");
    arrivals_close(&second, true);
    die(&first);
    arrivals_open(&first, "/frames");
    assert_true(there(&first, one, "one"));
    arrivals_close(&first, true);
}

static void past_its_bound_the_oldest_goes(void **state)
{
    char path[LIMIT_PATH_BYTES + 16];
    struct arrivals arrivals;

    (void)state;
    arrivals_open(&arrivals, "/frames");
    arrivals_next(&arrivals, 0, 0);
    add(&arrivals, "one");
    file_of(&arrivals, 1, path);
    arrivals.bytes += ARRIVALS_BYTES; /* as if it were so much */
    arrivals_next(&arrivals, 0, 0);
    assert_int_equal(access(path, F_OK), -1);
    arrivals_close(&arrivals, true);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_came_before_a_kill_is_there_for_the_next_and_for_no_other_destination),
        T(what_came_before_a_link_broke_is_there_for_the_same_fetch),
        T(windows_whose_files_are_home_go),
        T(what_a_power_cut_made_of_it_is_not_believed),
        T(of_two_fetches_to_one_destination_the_second_keeps_nothing),
        T(where_the_disk_is_short_nothing_is_kept),
        T(past_its_bound_the_oldest_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
