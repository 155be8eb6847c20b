/* sweep.c - what somebody refers to, or was told of, is kept; all else goes.
 *
 * The sweeper's two looks at a block are led through here (the linker's --wrap), so that a test can
 * act between them; and with a plant the second look sees what the first saw, which must be seen to
 * lose a block. So are the clocks: a test lets time pass, and sets the wall clock.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/vault/sweep.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define HOUR (3600 * NS_PER_S)

static char folder[64];
static struct disk disk;
static struct reach *reach;
static struct sweep *sweep;
static const struct studio_id north = {1};
static const struct job_id job = {{1}};

static void (*between)(const struct block_id *id); /* after the first look at a block that is old */
static bool looks_once;                            /* the plant */
static int64_t first_age_ns;
static int looks;

int __real_disk_age(struct disk *at, struct studio_id studio, const struct block_id *id,
                    int64_t *ret_age_ns, uint64_t *ret_bytes);
int __wrap_disk_age(struct disk *at, struct studio_id studio, const struct block_id *id,
                    int64_t *ret_age_ns, uint64_t *ret_bytes);
int __wrap_disk_age(struct disk *at, struct studio_id studio, const struct block_id *id,
                    int64_t *ret_age_ns, uint64_t *ret_bytes)
{
    int r = __real_disk_age(at, studio, id, ret_age_ns, ret_bytes);

    if (between && ++looks == 1) {
        first_age_ns = *ret_age_ns;
        between(id);
    } else if (looks_once) {
        *ret_age_ns = first_age_ns;
    }
    return r;
}

static int64_t passed_ns, leapt_ns;

int64_t __real_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void)
{
    return __real_clock_wall_ns() + passed_ns + leapt_ns;
}

int64_t __real_clock_monotonic_ns(void);
int64_t __wrap_clock_monotonic_ns(void);
int64_t __wrap_clock_monotonic_ns(void)
{
    return __real_clock_monotonic_ns() + passed_ns;
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/westlight-sweep-XXXXXX");
    between = NULL;
    looks_once = false;
    looks = 0;
    passed_ns = leapt_ns = 0;
    return mkdtemp(folder) && disk_open(&disk, folder) == 0 && reach_new(&disk, &reach) == 0 &&
                   sweep_new(&disk, reach, &sweep) == 0
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    sweep_stop(sweep);
    sweep_free(sweep);
    reach_free(reach);
    disk_close(&disk);
    return folder_remove(folder);
}

static void path_of(const struct block_id *id, char path[256])
{
    char hex[65];

    hex_encode(id->bytes, 32, hex);
    snprintf(path, 256, "%s/1/%.2s/%s", folder, hex, hex + 2);
}

static bool there(struct block_id id)
{
    char path[256];

    path_of(&id, path);
    return access(path, F_OK) == 0;
}

/* A block as old as that. */
static struct block_id block(const void *data, size_t size, int64_t age_ns)
{
    int64_t at_ns = clock_monotonic_ns() + disk.ahead_ns - age_ns;
    struct timespec times[2] = {{at_ns / NS_PER_S, at_ns % NS_PER_S},
                                {at_ns / NS_PER_S, at_ns % NS_PER_S}};
    struct disk_file file;
    struct block_id id;
    char path[256];

    digest(data, size, &id);
    assert_int_equal(disk_write(&disk, north, data, size, &file), 0);
    assert_int_equal(disk_sync(&file), 0);
    assert_int_equal(disk_rename(&disk, &file, north, &id), 0);
    path_of(&id, path);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    return id;
}

static struct block_id text(const char *words, int64_t age_ns)
{
    return block(words, strlen(words), age_ns);
}

static struct block_id refs_of(const struct block_id *ids, size_t n, int64_t age_ns)
{
    uint8_t data[8 + 32 * 8] = {'W', 'R', '1', 0, (uint8_t)n};

    memcpy(data + 8, ids, n * sizeof *ids);
    return block(data, 8 + 32 * n, age_ns);
}

static uint64_t removed(void)
{
    struct sweep_count count;

    assert_int_equal(sweep_round(sweep, 24 * HOUR, &count), 0);
    return count.blocks;
}

static void what_nobody_refers_to_goes_after_the_grace_and_not_before(void **state)
{
    struct block_id old = text("old", 31 * HOUR), young = text("young", 29 * HOUR);

    assert_int_equal(removed(), 1);
    assert_true(!there(old) && there(young));
}

static void what_a_job_names_is_kept_until_the_job_goes(void **state)
{
    struct block_id one = text("one", 99 * HOUR), two = text("two", 99 * HOUR);
    struct block_id refs = refs_of(&one, 1, 99 * HOUR);

    assert_int_equal(reach_add(reach, north, &job, &refs, 1), 0);
    assert_int_equal(removed(), 1);
    assert_true(there(one) && there(refs) && !there(two));
    reach_forget(reach, north, &job);
    assert_int_equal(removed(), 2);
}

static void what_is_pinned_is_kept_until_it_is_let_go(void **state)
{
    struct block_id one = text("one", 99 * HOUR), refs = refs_of(&one, 1, 99 * HOUR);
    struct vault_request pin = {.kind = VAULT_PIN, .studio = north, .ids = &refs, .n_ids = 1};

    sweep_pin(sweep, &pin);
    assert_int_equal(removed(), 0);
    sweep_unpin(sweep, &pin);
    assert_int_equal(removed(), 2);
}

static void a_list_that_cannot_be_read_keeps_all_of_its_studio(void **state)
{
    struct block_id lost = {{7}}, one = text("one", 99 * HOUR);

    assert_int_equal(reach_add(reach, north, &job, &lost, 1), 0);
    assert_int_equal(removed(), 0);
    assert_true(there(one));
}

static void had(const struct block_id *id)
{
    sweep_enter(sweep);
    assert_true(sweep_renew(sweep, north, id));
    sweep_leave(sweep);
}

static void marked(const struct block_id *id)
{
    sweep_enter(sweep);
    sweep_mark(sweep, north, id);
    sweep_leave(sweep);
}

static void what_was_had_after_the_look_is_kept(void **state)
{
    struct block_id one = text("one", 99 * HOUR);

    between = had;
    assert_int_equal(removed(), 0);
    assert_true(there(one) && looks == 2);
}

static void what_a_pin_looked_at_after_the_look_is_kept(void **state)
{
    struct block_id one = text("one", 99 * HOUR);

    between = marked;
    looks_once = true; /* the mark alone saves it */
    assert_int_equal(removed(), 0);
    assert_true(there(one));
}

static void without_the_second_look_a_promise_is_broken(void **state)
{
    struct block_id one = text("one", 99 * HOUR);

    between = had;
    looks_once = true;
    assert_int_equal(removed(), 1);
    assert_false(there(one));
}

static void what_was_had_is_kept_for_the_whole_grace(void **state)
{
    struct block_id one = text("one", 6 * HOUR - 60 * NS_PER_S);

    (void)state;
    had(&one);
    passed_ns = 24 * HOUR;
    assert_int_equal(removed(), 0);
    passed_ns = 25 * HOUR;
    assert_int_equal(removed(), 1);
    assert_false(there(one));
}

static void set_clock(const struct block_id *id)
{
    (void)id;
    leapt_ns += 400 * 24 * HOUR;
}

static void a_clock_that_is_set_during_a_round_makes_nothing_older(void **state)
{
    (void)state;
    text("young", HOUR);
    text("other", HOUR);
    text("old", 99 * HOUR);
    between = set_clock;
    assert_int_equal(removed(), 1);
    assert_int_equal(removed(), 0);
}

/* The clock by which files get their time cannot be led through here: what is ahead of it are the
 * other two. */
static void a_clock_that_is_behind_when_a_block_is_put_or_had_makes_nothing_older(void **state)
{
    struct block_id one = text("one", 7 * HOUR), two;
    struct disk_file file;

    (void)state;
    passed_ns = 48 * HOUR;
    had(&one);
    digest("two", 3, &two);
    assert_int_equal(disk_write(&disk, north, "two", 3, &file), 0);
    assert_int_equal(disk_sync(&file), 0);
    assert_int_equal(disk_rename(&disk, &file, north, &two), 0);
    assert_int_equal(removed(), 0);
    passed_ns += 29 * HOUR;
    assert_int_equal(removed(), 0);
    passed_ns += 2 * HOUR;
    assert_int_equal(removed(), 2);
}

static int no_history(void *user, const struct job_id *id, uint64_t *after,
                      struct block_id **ret_refs, size_t *ret_n)
{
    (void)id;
    *ret_refs = NULL;
    *ret_n = 0;
    ++*after;
    if (++*(int *)user == 3)
        sweep_stop(sweep);
    return 0;
}

static void a_long_history_without_blocks_is_left_when_the_broker_ends(void **state)
{
    struct sweep_count count;
    int pages = 0;

    (void)state;
    reach_history_by(reach, no_history, &pages);
    assert_int_equal(reach_history(reach, north, &job), 0);
    assert_int_equal(sweep_start(sweep, 24 * HOUR, 0), 0);
    assert_int_equal(sweep_round(sweep, 24 * HOUR, &count), -ECANCELED);
    assert_int_equal(pages, 3);
}

/* What the wall clock says of the time since the last record may be a leap. */
static void blocks_age_by_time_that_records_say_has_passed(void **state)
{
    struct block_id fresh = text("fresh", HOUR), old = text("old", 32 * HOUR), late;
    int64_t last_s = clock_wall_ns() / NS_PER_S;

    (void)state;
    leapt_ns = 40 * 24 * HOUR;
    assert_int_equal(sweep_start(sweep, 24 * HOUR, last_s), 0);
    assert_int_equal(removed(), 1);
    assert_true(there(fresh));
    assert_false(there(old));
    sweep_stop(sweep);
    sweep_free(sweep); /* one that runs would rest, by the clock that is led */
    assert_int_equal(sweep_new(&disk, reach, &sweep), 0);
    late = text("late", -4 * HOUR); /* after the last record of a life before */
    passed_ns = 33 * HOUR;
    assert_int_equal(removed(), 1);
    assert_false(there(fresh));
    passed_ns = 35 * HOUR;
    assert_int_equal(removed(), 1);
    assert_false(there(late));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_nobody_refers_to_goes_after_the_grace_and_not_before),
        T(what_a_job_names_is_kept_until_the_job_goes),
        T(what_is_pinned_is_kept_until_it_is_let_go),
        T(a_list_that_cannot_be_read_keeps_all_of_its_studio),
        T(what_was_had_after_the_look_is_kept),
        T(what_a_pin_looked_at_after_the_look_is_kept),
        T(without_the_second_look_a_promise_is_broken),
        T(what_was_had_is_kept_for_the_whole_grace),
        T(a_clock_that_is_set_during_a_round_makes_nothing_older),
        T(a_clock_that_is_behind_when_a_block_is_put_or_had_makes_nothing_older),
        T(a_long_history_without_blocks_is_left_when_the_broker_ends),
        T(blocks_age_by_time_that_records_say_has_passed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
