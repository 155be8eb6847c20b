/* The list of uploads: whose they are, when they have stopped, and that there is an end to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <broker/uploads.h>

static struct uploads uploads;
static const struct studio_id acme = {1}, other = {2};

static int setup(void **state)
{
    (void)state;
    return uploads_init(&uploads);
}

static int teardown(void **state)
{
    (void)state;
    uploads_deinit(&uploads);
    return 0;
}

static struct job_id job_of(uint32_t n)
{
    struct job_id job = {{0}};

    memcpy(job.bytes, &n, sizeof n);
    return job;
}

static void note(struct studio_id studio, uint32_t n, uint64_t bytes_done, int64_t now_ns)
{
    struct upload said = {.job = job_of(n),
                          .file_bytes = 1000,
                          .bytes_done = bytes_done,
                          .heard_ns = now_ns,
                          .begun_wall_s = 100 + now_ns / 1000000000};

    assert_int_equal(uploads_note(&uploads, studio, &said), 0);
}

static struct upload *find(struct studio_id studio, uint32_t n)
{
    struct job_id job = job_of(n);

    return uploads_find(&uploads, studio, &job);
}

static size_t count(struct studio_id studio, int64_t now_ns)
{
    size_t n = 0;

    list_for_each (at, uploads_of(&uploads, studio, now_ns))
        n++;
    return n;
}

static void a_further_word_counts_and_the_beginning_stays(void **state)
{
    (void)state;
    note(acme, 1, 0, 0);
    snprintf(find(acme, 1)->cancelled_by, sizeof find(acme, 1)->cancelled_by, "bob");
    note(acme, 1, 430, 5000000000);
    assert_int_equal(count(acme, 0), 1);
    assert_int_equal(find(acme, 1)->bytes_done, 430);
    assert_int_equal(find(acme, 1)->begun_wall_s, 100);
    assert_string_equal(find(acme, 1)->cancelled_by, "bob");
    struct job_id job = job_of(1);
    uploads_end(&uploads, other, &job);
    assert_non_null(find(acme, 1));
    uploads_end(&uploads, acme, &job);
    assert_null(find(acme, 1));
    uploads_end(&uploads, acme, &job);
}

static void a_studio_has_none_of_another_s(void **state)
{
    (void)state;
    note(acme, 1, 0, 0);
    assert_null(find(other, 1));
    assert_int_equal(count(other, 0), 0);
    note(other, 1, 7, 0); /* the same id, by chance or not */
    assert_int_equal(find(acme, 1)->bytes_done, 0);
    assert_int_equal(find(other, 1)->bytes_done, 7);
}

static void one_stops_by_its_word_or_by_ten_seconds_of_silence(void **state)
{
    (void)state;
    note(acme, 1, 0, 1000);
    assert_false(upload_stopped(find(acme, 1), 1000 + LIMIT_UPLOAD_SILENT_NS - 1));
    assert_true(upload_stopped(find(acme, 1), 1000 + LIMIT_UPLOAD_SILENT_NS));
    find(acme, 1)->stopped = true;
    assert_true(upload_stopped(find(acme, 1), 1000));
    note(acme, 1, 0, 1000);
    assert_false(upload_stopped(find(acme, 1), 1000));
}

static void what_nobody_speaks_of_is_forgotten_after_a_day(void **state)
{
    (void)state;
    note(acme, 1, 0, 0);
    note(acme, 2, 0, 0);
    note(acme, 1, 0, 1);
    assert_int_equal(count(acme, LIMIT_UPLOAD_KEPT_NS - 1), 2);
    assert_int_equal(count(acme, LIMIT_UPLOAD_KEPT_NS), 1);
    assert_non_null(find(acme, 1));
}

static void a_flood_costs_the_flooder_alone(void **state)
{
    (void)state;
    note(other, 1, 0, 0);
    for (uint32_t n = 0; n < 10 * LIMIT_UPLOADS; n++) {
        note(acme, 7777, 0, n);
        note(acme, n, 0, n);
    }
    assert_int_equal(count(acme, 0), LIMIT_UPLOADS);
    assert_non_null(find(acme, 7777)); /* it speaks */
    assert_non_null(find(acme, 10 * LIMIT_UPLOADS - 1));
    assert_null(find(acme, 0));
    assert_int_equal(count(other, 0), 1);
    note((struct studio_id){LIMIT_STUDIOS + 1}, 1, 0, 0); /* there are no such studios */
    assert_null(find((struct studio_id){LIMIT_STUDIOS + 1}, 1));
    assert_int_equal(count((struct studio_id){LIMIT_STUDIOS + 1}, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_further_word_counts_and_the_beginning_stays),
        TEST(a_studio_has_none_of_another_s),
        TEST(one_stops_by_its_word_or_by_ten_seconds_of_silence),
        TEST(what_nobody_speaks_of_is_forgotten_after_a_day),
        TEST(a_flood_costs_the_flooder_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
