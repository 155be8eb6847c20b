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

TEST(the_blenders_that_denoise_are_named_by_version)
{
    struct probe_software software[] = {
        {.name = "blender", .version = "3.4.1", .denoiser = DENOISER_NONE},
        {.name = "blender", .version = "4.0.2", .denoiser = DENOISER_THERE},
        {.name = "blender", .version = "4.1.0", .denoiser = DENOISER_UNKNOWN},
    };
    struct probe probe = {.host = "box", .software = software};
    struct offer_made offer;
    const char *culprit = NULL;

    for (size_t n = 1; n <= 3; n += 2) {
        const Wl__Attribute *found = NULL;

        probe.n_software = n;
        assert_int_equal(offer_make(&probe, &(struct offer_options){0}, &offer, &culprit), 0);
        for (size_t i = 0; i < offer.message.n_attributes; i++)
            if (strcmp(offer.message.attributes[i]->name, "attr.blender.denoiser") == 0)
                found = offer.message.attributes[i];
        assert_int_equal(found ? found->n_any_of : 0, n == 3 ? 1 : 0); /* the first alone: none */
        if (found)
            assert_string_equal(found->any_of[0], "4.0.2");
        offer_deinit(&offer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_that_differ_by_a_few_mib_offer_the_same),
        cmocka_unit_test(the_blenders_that_denoise_are_named_by_version),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
