/* Which files a task is given; and that a leaf is left out only where none of its files would be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <proto/base/err.h>
#include <proto/manifest.h>
#include <worker/wants.h>

enum { FILES = 300 };

static bool asked(void *user, const char *path)
{
    return wants_file(user, 0, path);
}

static const struct {
    const char *patterns[3];
    int64_t frames[2];
    const char *before, *after[2];
    uint32_t digits;
    uint64_t low;
    size_t wanted; /* of FILES of each ending */
} CASES[] = {
    {{"c_####.vdb"}, {7, 7}, "c_", {".vdb"}, 4, 1, 1},
    {{"c_####.vdb"}, {7, 250}, "c_", {".vdb"}, 4, 1, 2},
    {{"c_####.vdb"}, {301, 301}, "c_", {".vdb"}, 4, 1, 0},
    {{"c_####.vdb"}, {7, 7}, "d_", {".vdb"}, 4, 1, FILES},      /* another sequence */
    {{"c_####.vdb", "scene"}, {7, 7}, "d_", {".vdb"}, 4, 1, 0}, /* which is not asked for */
    {{"c_####.vdb", "d_*"}, {7, 7}, "d_", {".vdb"}, 4, 1, FILES},
    {{"c_####.vdb"}, {7, 7}, "c_", {".vdb", ".json"}, 4, 1, 1 + FILES},
    {{"c_####.*"}, {7, 7}, "c_", {".vdb", ".json"}, 4, 1, 2},
    {{"c_####.json", "*.vdb"}, {7, 7}, "c_", {".vdb", ".json"}, 4, 1, 1 + FILES},
    {{"c_#.vdb"}, {9, 10}, "c_", {".vdb"}, 1, 0, 2},
    {{"c_#.vdb"}, {9, 10}, "c_", {".vdb"}, 4, 1, FILES}, /* written otherwise */
    {{"c_####.vdb"}, {10000, 10000}, "c_", {".vdb"}, 4, 9900, 1},
    {{"v#/c_#.vdb"}, {7, 7}, "v7/c_", {".vdb"}, 1, 0, FILES}, /* one number in both places: 7/7 */
    {{"v7/c_#.vdb"}, {7, 7}, "v7/c_", {".vdb"}, 1, 0, 1},
    {{"v#/*"}, {7, 7}, "v7/c_", {".vdb"}, 1, 0, FILES}, /* the folder is the frame */
    {{"v#/*"}, {8, 8}, "v7/c_", {".vdb"}, 1, 0, 0},
    {{"*/c_####.vdb"}, {7, 7}, "7/c_", {".vdb"}, 4, 0, 1},
    {{"c_-###.vdb"}, {7, 7}, "c_-", {".vdb"}, 3, 0, 1},
    {{"c_####.vdb"}, {-7, -7}, "c_-", {".vdb"}, 3, 0, 2},         /* and -000, which is no frame */
    {{"c_####.vdb"}, {7, 7}, "c_-", {".vdb"}, 3, 0, 1},           /* frame -7, and not 7; -000 */
    {{"c_00?5_#.vdb"}, {12, 12}, "c_", {"_12.vdb"}, 4, 1, FILES}, /* neither the first nor the last
                                                                   */
    {{"c_00?5_#.vdb", "c_#_*"}, {12, 12}, "c_", {"_12.vdb"}, 1, 1000, 0},
    {{"c_00?5_#.vdb", "c_####_*"}, {12, 12}, "c_", {"_12.vdb"}, 4, 20, 8}, /* 25, 35, ... 95 */
    {{"*"}, {7, 7}, "c_", {".vdb"}, 4, 1, FILES},
    {{"tex/*"}, {7, 7}, "c_", {".vdb"}, 4, 1, 0},
    {{NULL}, {7, 7}, "c_", {".vdb"}, 4, 1, FILES},
};

static void a_leaf_is_left_out_only_where_none_of_its_files_is_wanted(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        int64_t frames[2] = {CASES[i].frames[0], CASES[i].frames[1]};
        Wl__RootUse use = WL__ROOT_USE__INIT, *uses[] = {&use};
        Wl__StepRecipe step = WL__STEP_RECIPE__INIT;
        struct wants wants = {.step = &step, .frames = frames, .n_frames = 2};
        Wl__Leaf leaf = WL__LEAF__INIT;
        size_t n = 0;

        use.patterns = (char **)CASES[i].patterns;
        while (use.n_patterns < 3 && CASES[i].patterns[use.n_patterns])
            use.n_patterns++;
        step.inputs = uses;
        step.n_inputs = 1;
        leaf.before = (char *)CASES[i].before;
        leaf.after = (char **)CASES[i].after;
        leaf.n_after = CASES[i].after[1] ? 2 : 1;
        leaf.digits = CASES[i].digits;
        leaf.low = CASES[i].low;
        leaf.high = CASES[i].low + FILES - 1;
        for (uint64_t number = leaf.low; number <= leaf.high; number++)
            for (size_t k = 0; k < leaf.n_after; k++) {
                char path[64];

                snprintf(path, sizeof(path), "%s%0*llu%s", leaf.before, (int)leaf.digits,
                         (unsigned long long)number, leaf.after[k]);
                n += wants_file(&wants, 0, path);
            }
        if (n != CASES[i].wanted)
            fail_msg("case %zu: %zu files, wanted %zu", i, n, CASES[i].wanted);
        assert_int_equal(manifest_leaf_may(&leaf, asked, &wants), n > 0);
        assert_true(wants_root(&wants, 0) && !wants_root(&wants, 1));
        assert_false(wants_file(&wants, 1, "any"));
    }
}

static void a_step_without_inputs_wants_all(void **state)
{
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;
    struct wants wants = {.step = &step};

    (void)state;
    assert_true(wants_root(&wants, 3) && wants_file(&wants, 3, "any"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_is_left_out_only_where_none_of_its_files_is_wanted),
        cmocka_unit_test(a_step_without_inputs_wants_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
