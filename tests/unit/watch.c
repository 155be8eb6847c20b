/* Who watches is told at once, then ten times a second at most; and many watched jobs cost no more
 * each than one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <broker/watch.h>
#include <proto/base/clock.h>

static struct watch watch;

static int setup(void **state)
{
    (void)state;
    return watch_init(&watch);
}

static int teardown(void **state)
{
    (void)state;
    watch_deinit(&watch);
    return 0;
}

static struct job_id job_of(uint32_t n)
{
    struct job_id job = {{0}};

    memcpy(job.bytes, &n, sizeof n);
    return job;
}

static void watch_by(struct connection *connection, uint32_t n)
{
    struct job_id job = job_of(n);

    if (connection->n_watches == 0)
        list_init(&connection->watches);
    assert_int_equal(watch_add(&watch, &job, connection), 0);
}

static void changed(uint32_t n)
{
    struct job_id job = job_of(n);

    watch_changed(&watch, &job);
}

static void assert_due(int64_t now_ns, uint32_t n)
{
    struct watched *watched = watch_due(&watch, now_ns);
    struct job_id job = job_of(n);

    assert_non_null(watched);
    assert_memory_equal(&watched->job, &job, sizeof job);
}

static void a_change_is_told_at_once_and_the_next_a_tenth_of_a_second_later(void **state)
{
    struct connection connection = {0};

    (void)state;
    watch_by(&connection, 1);
    watch_by(&connection, 2);
    assert_true(watch_deadline_ns(&watch) == INT64_MAX);
    changed(1);
    changed(1);
    changed(3); /* nobody watches it */
    assert_true(watch_deadline_ns(&watch) <= 5);
    assert_due(5, 1);
    assert_null(watch_due(&watch, 5));
    changed(1);
    changed(2); /* the rest of one is not another's */
    assert_due(10, 2);
    assert_null(watch_due(&watch, 10));
    assert_int_equal(watch_deadline_ns(&watch), 5 + WATCH_EVERY_NS);
    assert_null(watch_due(&watch, 4 + WATCH_EVERY_NS));
    assert_due(5 + WATCH_EVERY_NS, 1);
    assert_null(watch_due(&watch, 10 + 2 * WATCH_EVERY_NS));
    assert_true(watch_deadline_ns(&watch) == INT64_MAX);
    watch_forget(&watch, &connection);
}

static void a_job_nobody_watches_any_more_is_not_told_of(void **state)
{
    struct connection first = {0}, second = {0};
    struct job_id job = job_of(1);

    (void)state;
    watch_by(&first, 1);
    watch_by(&second, 1);
    changed(1);
    watch_forget(&watch, &first);
    assert_due(1, 1);
    changed(1);
    watch_stop(&watch, &job, &second);
    assert_null(watch_due(&watch, 1 + WATCH_EVERY_NS));
    assert_null(watch_find(&watch, &job));
}

static void many_that_rest_cost_no_search(void **state)
{
    enum { N = 40000 };
    struct connection *connections = calloc(N / WATCH_PER_CONNECTION + 1, sizeof *connections);
    int64_t begun_ns = clock_monotonic_ns();

    (void)state;
    assert_non_null(connections);
    for (uint32_t i = 0; i < N; i++)
        watch_by(&connections[i / WATCH_PER_CONNECTION], i);
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < N; i++) {
            changed(i);
            (void)watch_deadline_ns(&watch);
            if (round == 0)
                assert_due(1, i);
            else
                assert_null(watch_due(&watch, 2));
        }
    for (uint32_t i = 0; i < N; i++)
        assert_due(1 + WATCH_EVERY_NS, i);
    assert_true(clock_monotonic_ns() - begun_ns < 2 * NS_PER_S); /* a search each: minutes */
    for (size_t i = 0; i <= N / WATCH_PER_CONNECTION; i++)
        if (connections[i].n_watches)
            watch_forget(&watch, &connections[i]);
    free(connections);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_change_is_told_at_once_and_the_next_a_tenth_of_a_second_later),
        TEST(a_job_nobody_watches_any_more_is_not_told_of),
        TEST(many_that_rest_cost_no_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
