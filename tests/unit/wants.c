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

static uint64_t work;

static bool asked(void *user, const char *path)
{
    return wants_file(user, 0, path, &work);
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

        work = WANTS_WORK;
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
                n += wants_file(&wants, 0, path, &work);
            }
        if (n != CASES[i].wanted)
            fail_msg("case %zu: %zu files, wanted %zu", i, n, CASES[i].wanted);
        assert_int_equal(manifest_leaf_may(&leaf, asked, &wants), n > 0);
        assert_true(wants_root(&wants, 0) && !wants_root(&wants, 1));
        assert_false(wants_file(&wants, 1, "any", &work));
    }
}

static void a_step_without_inputs_wants_all(void **state)
{
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;
    struct wants wants = {.step = &step};

    (void)state;
    assert_true(wants_root(&wants, 3) && wants_file(&wants, 3, "any", &work));
}

/* Patterns that nearly match, in as many ways as can be, each for as many numbers. */
static void a_question_ends_however_the_patterns_are_made(void **state)
{
    char hostile[2000], *patterns[50];
    int64_t frame = 3;
    Wl__RootUse use = WL__ROOT_USE__INIT, *uses[] = {&use};
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;
    struct wants wants = {.step = &step, .frames = &frame, .n_frames = 1};
    Wl__Leaf leaf = WL__LEAF__INIT;
    char after[200], *afters[] = {after};

    (void)state;
    for (size_t i = 0; i + 3 < sizeof(hostile); i += 2)
        memcpy(hostile + i, i + 5 < sizeof(hostile) ? "*1" : "#*", 3);
    for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
        patterns[i] = hostile;
    for (size_t i = 0; i + 1 < sizeof(after); i++)
        after[i] = i % 2 ? '1' : 'a';
    after[sizeof(after) - 1] = '\0';
    use.patterns = patterns, use.n_patterns = ARRAY_SIZE(patterns);
    step.inputs = uses, step.n_inputs = 1;
    leaf.before = (char *)"c";
    leaf.after = afters, leaf.n_after = 1;
    leaf.digits = 6, leaf.low = 1, leaf.high = 16000;

    work = 10 * 1000 * 1000;
    assert_true(manifest_leaf_may(&leaf, asked, &wants)); /* it cannot be ruled out */
    assert_int_equal(work, 0);
    assert_true(wants_file(&wants, 0, "any", &work));
    work = 1000 * 1000;
    assert_false(wants_file(&wants, 1, "of another root", &work));
    assert_true(work > 999 * 1000);
}

static void what_begins_or_ends_otherwise_costs_little(void **state)
{
    char *patterns[] = {(char *)"cache/*1*1*1*1*1*1*1*1*1_####.vdb"};
    int64_t frame = 3;
    Wl__RootUse use = WL__ROOT_USE__INIT, *uses[] = {&use};
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;
    struct wants wants = {.step = &step, .frames = &frame, .n_frames = 1};
    static const char *const paths[] = {"cache/1111111111111111111111111111_0003.exr",
                                        "caches/111111111111111111111111111_0003.vdb",
                                        "1_0003.vdb"};

    (void)state;
    use.patterns = patterns, use.n_patterns = 1;
    step.inputs = uses, step.n_inputs = 1;
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        work = 1000;
        assert_true(wants_file(&wants, 0, paths[i], &work)); /* of no sequence of the step's */
        assert_true(work > 800);
    }
    work = 1000;
    assert_true(wants_file(&wants, 0, "cache/1111111111_0003.vdb", &work));
    assert_false(wants_file(&wants, 0, "cache/1111111111_0004.vdb", &work));
}

static void a_chunk_is_found_wherever_in_its_ranges_it_lies(void **state)
{
    static const struct space_range ranges[] = {{1, 5, 2},
                                                {INT64_MAX - 3 * 99999999, INT64_MAX, 3}};
    struct space space;
    struct wants wants;
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;

    (void)state;
    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, 4000, false, ranges, 2), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(wants_init(&wants, &step, &space, 0), 0);
    assert_int_equal(wants.n_frames, 4000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(wants.frames[i], 1 + 2 * i);
    assert_int_equal(wants.frames[3], ranges[1].first);
    assert_int_equal(wants.frames[3999], ranges[1].first + 3 * 3996);
    wants_deinit(&wants);
    assert_int_equal(wants_init(&wants, &step, &space, space_size(&space) - 1), 0);
    assert_int_equal(wants.n_frames, 3);
    assert_int_equal(wants.frames[2], ranges[1].last);
    wants_deinit(&wants);
    space_deinit(&space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_is_left_out_only_where_none_of_its_files_is_wanted),
        cmocka_unit_test(a_step_without_inputs_wants_all),
        cmocka_unit_test(a_question_ends_however_the_patterns_are_made),
        cmocka_unit_test(what_begins_or_ends_otherwise_costs_little),
        cmocka_unit_test(a_chunk_is_found_wherever_in_its_ranges_it_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
