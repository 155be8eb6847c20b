/* What a worker offers, of what it has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <worker/offer.h>

#define TEST(name) static void name(void **state)

static double memory_offered(uint64_t probed_mib, uint64_t option_mib)
{
    struct probe probe = {.host = "box", .cores = 8, .memory_mib = probed_mib};
    struct offer_options options = {.memory_mib = option_mib};
    struct offer_made offer;
    const char *culprit = NULL;
    double memory = -1;

    assert_int_equal(offer_make(&probe, &options, &offer, &culprit), 0);
    for (size_t i = 0; i < offer.message.n_amounts; i++)
        if (strcmp(offer.message.amounts[i]->name, "amount.worker.memory") == 0)
            memory = offer.message.amounts[i]->min;
    offer_deinit(&offer);
    return memory;
}

TEST(twins_that_differ_by_a_few_mib_offer_the_same)
{
    assert_true(memory_offered(64215, 0) == 64000);
    assert_true(memory_offered(64199, 0) == 64000);
    assert_true(memory_offered(64000, 0) == 64000);
    assert_true(memory_offered(200, 0) == 200);
    assert_true(memory_offered(64215, 60001) == 60001); /* as the operator says */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_that_differ_by_a_few_mib_offer_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
