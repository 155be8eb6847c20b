/* rate.c - what is within the limit is taken, and never more than twice what fits and what the time
 * brings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <broker/rate.h>
#include <proto/base/clock.h>

enum { PER_S = 1000, MOST = 2000 };

static unsigned take_all(struct rate *rate, int64_t now_ns)
{
    unsigned n = 0;

    while (n <= 3 * MOST && rate_take(rate, PER_S, MOST, now_ns))
        n++;
    return n;
}

static void a_new_one_is_full_and_time_fills_it(void **state)
{
    struct rate rate = {0};
    int64_t now_ns = 5;

    (void)state;
    assert_int_equal(take_all(&rate, now_ns), MOST);
    assert_int_equal(take_all(&rate, now_ns + NS_PER_MS - 1), 0);
    assert_int_equal(take_all(&rate, now_ns + NS_PER_MS), 1);
    assert_int_equal(take_all(&rate, now_ns + 501 * NS_PER_MS), 500);
    assert_int_equal(take_all(&rate, now_ns + 3600 * NS_PER_S), MOST);
    assert_int_equal(take_all(&rate, INT64_MAX), MOST);
}

static void a_steady_one_within_its_limit_is_never_refused(void **state)
{
    struct rate rate = {0};

    (void)state;
    for (int64_t i = 1; i < 20000; i++)
        assert_true(rate_take(&rate, PER_S, MOST, i * NS_PER_MS));
}

static void twice_what_fits_is_the_most_at_once(void **state)
{
    struct rate rate = {0};
    int64_t now_ns = 1;

    (void)state;
    assert_true(rate_take(&rate, PER_S, MOST, now_ns));
    now_ns += 3600 * NS_PER_S;
    assert_int_equal(take_all(&rate, now_ns), 2 * MOST - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_one_is_full_and_time_fills_it),
        cmocka_unit_test(a_steady_one_within_its_limit_is_never_refused),
        cmocka_unit_test(twice_what_fits_is_the_most_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
