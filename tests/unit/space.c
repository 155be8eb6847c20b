/* Spaces and frame expressions, each checked against the plain way: listing every value. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <proto/space.h>

/* A generator of its own, so that a seed means the same everywhere. */
static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % n;
}

/* What an expression becomes, as text; "error AT WHY" where it is refused. */
static const char *parsed(const char *text)
{
    static char result[4096];
    struct space_range *ranges = NULL;
    size_t n = 0, at = 0;
    const char *why = NULL;
    int r = space_parse_frames(text, &ranges, &n, &at, &why);

    if (r == 0)
        space_format_ranges(ranges, n, result, sizeof(result));
    else
        snprintf(result, sizeof(result), "%s %zu %s", r == SPACE_E_LIMIT ? "limit" : "error", at, why);
    free(ranges);
    return result;
}

static void expressions_are_read_and_normalised(void **state)
{
    static const char *const cases[][2] = {
        {"7", "7"},
        {"1-240", "1-240"},
        {"1-240:2", "1-239:2"},
        {"1-240x2", "1-239:2"},
        {"1..10", "1-10"},
        {"1..10..3", "1-10:3"},
        {" 1 - 10 : 2 , 20 ", "1-9:2,20"},
        {"5,10-20,-3--1", "-3--1,5,10-20"},
        {"-3-1", "-3-1"},
        {"1,2,3,4,5", "1-5"},
        {"5,4,3,2,1", "1-5"},
        {"3,3,3", "3"},
        {"1,3,5,7", "1-7:2"},
        {"1,5", "1,5"},
        {"1-10:9", "1,10"},
        {"1-5,3-8", "1-8"},
        {"1-10,4-6", "1-10"},
        {"1-5,6-9", "1-9"},
        {"1-9:2,2-10:2", "1-10"},
        {"1-10:3,1-10:2", "1,3-5,7,9-10"},
        {"1-100,50-200:10", "1-100,110-200:10"},
        {"0-1000000:6,0-1000000:3", "0-999999:3"},
        {"1-50000000,2-50000000:2", "1-50000000"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"-9223372036854775808-9223372036854775807:9223372036854775807",
         "-9223372036854775808-9223372036854775806:9223372036854775807"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(parsed(cases[i][0]), cases[i][1]);
}

static void a_mistake_is_pointed_at(void **state)
{
    static const char *const cases[][2] = {
        {"", "error 0 a frame number is missing"},
        {"1,", "error 2 a frame number is missing"},
        {"1,,2", "error 2 a frame number is missing"},
        {"  abc", "error 2 a frame number is missing"},
        {"10-1", "error 3 the range ends before it begins"},
        {"1-", "error 2 the last frame of the range is missing"},
        {"1-10:", "error 5 the step is missing"},
        {"1-10:0", "error 5 a step is at least 1"},
        {"1-10x-2", "error 5 a step is at least 1"},
        {"1-10 11", "error 5 this belongs to no range of frames"},
        {"1-10-2", "error 4 this belongs to no range of frames"},
        {"1;2", "error 1 this belongs to no range of frames"},
        {"--5", "error 0 a frame number is missing"},
        {"5,9223372036854775808", "error 2 the number is too large"},
        {"-9223372036854775809", "error 0 the number is too large"},
        {"1-99999999999999999999999", "error 2 the number is too large"},
        {"0-9223372036854775807", "limit 2 the range has more frames than a step may have"},
        {"1-100000000,200000000-300000000",
         "limit 0 it comes to more frames, or more separate ranges, than a step may have"},
        {"0-1000000:3,0-1000000:2",
         "limit 0 it comes to more frames, or more separate ranges, than a step may have"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(parsed(cases[i][0]), cases[i][1]);
}

static void any_expression_holds_exactly_its_values_in_order(void **state)
{
    for (random_state = 1; random_state < 3000; random_state++) {
        uint64_t seed = random_state;
        bool wanted[400] = {false}, got[400] = {false};
        struct space_range *ranges;
        size_t n, at, length = 0, items = 1 + random_below(6);
        char text[512];
        const char *why;
        int64_t before = -1000;

        for (size_t i = 0; i < items; i++) {
            int first = (int)random_below(200) - 100, last = first + (int)random_below(200);
            int step = 1 + (int)random_below(9);

            length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%d-%d:%d", i ? "," : "", first, last, step);
            for (int v = first; v <= last; v += step)
                wanted[v + 100] = true;
        }
        assert_int_equal(space_parse_frames(text, &ranges, &n, &at, &why), 0);
        for (size_t i = 0; i < n; i++)
            for (int64_t v = ranges[i].first; v <= ranges[i].last; v += ranges[i].step) {
                assert_true(v > before);
                got[v + 100] = true;
                before = v;
            }
        if (memcmp(wanted, got, sizeof(got)) != 0)
            fail_msg("seed %llu: %s", (unsigned long long)seed, text);
        free(ranges);
        random_state = seed;
    }
}

static void too_many_separate_values_are_refused_and_the_last_allowed_is_not(void **state)
{
    /* Squares: no three at equal distance follow each other. */
    for (unsigned n = LIMIT_SPACE_RANGES; n <= LIMIT_SPACE_RANGES + 1; n++) {
        char *text = malloc(n * 12);
        struct space_range *ranges = NULL;
        size_t at, n_ranges = 0, length = 0;
        const char *why;

        for (unsigned i = 1; i <= n; i++)
            length += (size_t)sprintf(text + length, "%s%u", i > 1 ? "," : "", i * (i + 1));
        assert_int_equal(space_parse_frames(text, &ranges, &n_ranges, &at, &why),
                         n == LIMIT_SPACE_RANGES ? 0 : SPACE_E_LIMIT);
        free(ranges);
        free(text);
    }
}

static void formatting_says_how_much_room_it_needs(void **state)
{
    const struct space_range ranges[] = {{-5, -1, 1}, {3, 3, 1}, {10, 20, 5}};
    char text[32], small[8];

    assert_int_equal(space_format_ranges(ranges, 3, text, sizeof(text)), 15);
    assert_string_equal(text, "-5--1,3,10-20:5");
    assert_int_equal(space_format_ranges(ranges, 3, small, sizeof(small)), 15);
    assert_string_equal(small, "-5--1,3");
    assert_int_equal(space_format_ranges(ranges, 3, NULL, 0), 15);
    assert_int_equal(space_format_ranges(NULL, 0, small, sizeof(small)), 0);
    assert_string_equal(small, "");
}

static void a_space_without_parameters_has_one_point(void **state)
{
    struct space space;
    struct point point;

    space_init(&space);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(space_size(&space), 1);
    assert_int_equal(space_point(&space, 0, &point), 0);
    assert_int_equal(point.n_values, 0);
    assert_int_equal(space_point(&space, 1, &point), SPACE_E_INDEX);
    assert_null(space_frame_name(&space));
    space_deinit(&space);
}

static void the_last_factor_is_innermost_and_one_factor_advances_together(void **state)
{
    const struct space_range frames[] = {{1, 5, 2}, {10, 10, 1}}, tiles[] = {{0, 2, 1}};
    const char *const names[] = {"a", "b", "c", "d"};
    const int64_t wanted[] = {1, 3, 5, 10};
    struct space space;
    struct point point;
    char text[16];

    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, 1, false, frames, 2), 0);
    assert_int_equal(space_add_ints(&space, "Tile", 1, 0, false, tiles, 1), 0);
    assert_int_equal(space_add_texts(&space, "Camera", 0, SPACE_STRING, names, 4), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(space_size(&space), 12);
    for (uint64_t i = 0; i < 12; i++) {
        assert_int_equal(space_point(&space, i, &point), 0);
        assert_int_equal(point.values[0].first, wanted[i / 3]);
        assert_int_equal(point.values[1].first, i % 3);
        assert_string_equal(point.values[2].text, names[i / 3]);
        assert_false(point.values[0].chunked);
    }
    assert_int_equal(space_value_text(&space, &point.values[0], text, sizeof(text)), 2);
    assert_string_equal(text, "10");
    assert_int_equal(space_value_text(&space, &point.values[2], text, sizeof(text)), 1);
    assert_string_equal(text, "d");
    assert_string_equal(space_frame_name(&space), "Frame");
    space_deinit(&space);
}

static void chunk_texts(bool contiguous, uint32_t chunk, const char *const *wanted, size_t n)
{
    const struct space_range frames[] = {{1, 7, 1}, {11, 15, 2}, {20, 20, 1}};
    struct space space;
    struct point point;
    char text[64];

    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, chunk, contiguous, frames, 3), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(space_size(&space), n);
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(space_point(&space, i, &point), 0);
        assert_int_equal(space_value_text(&space, &point.values[0], text, sizeof(text)), strlen(wanted[i]));
        assert_string_equal(text, wanted[i]);
        assert_int_equal(point.values[0].first, atoi(wanted[i]));
        assert_true(point.values[0].chunked);
    }
    assert_int_equal(space_value_text(&space, &point.values[0], NULL, 0), strlen(wanted[n - 1]));
    space_deinit(&space);
}

static void a_chunk_holds_consecutive_values_and_may_not_span_a_gap(void **state)
{
    chunk_texts(false, 3, (const char *const[]){"1-3", "4-6", "7,11-13:2", "15,20"}, 4);
    chunk_texts(true, 3, (const char *const[]){"1-3", "4-6", "7", "11-15:2", "20"}, 5);
    chunk_texts(false, 100, (const char *const[]){"1-7,11-15:2,20"}, 1);
    chunk_texts(true, 2, (const char *const[]){"1-2", "3-4", "5-6", "7", "11-13:2", "15", "20"}, 7);
}

static void what_makes_no_sense_is_refused_by_kind(void **state)
{
    const struct space_range one = {1, 1, 1}, three = {1, 3, 1}, backwards = {3, 1, 1}, still = {1, 3, 0};
    const struct space_range across[] = {{1, 100, 7}, {2, 100, 3}}, beside[] = {{1, 100, 2}, {2, 100, 4}};
    const struct space_range huge = {INT64_MIN, INT64_MAX, 1}, half = {1, 1 << 14, 1};
    const char *const text = "x";
    char long_name[LIMIT_NAME_BYTES + 2];
    struct space space;

    space_init(&space);
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_equal(space_add_ints(&space, "", 0, 1, false, &one, 1), SPACE_E_NAME);
    assert_int_equal(space_add_ints(&space, long_name, 0, 1, false, &one, 1), SPACE_E_LIMIT);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, &one, 0), SPACE_E_RANGE);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, &backwards, 1), SPACE_E_RANGE);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, &still, 1), SPACE_E_RANGE);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, across, 2), SPACE_E_RANGE);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, &huge, 1), SPACE_E_LIMIT);
    assert_int_equal(space_add_ints(&space, "A", 16, 1, false, &one, 1), SPACE_E_LIMIT);
    assert_int_equal(space_add_texts(&space, "A", 0, SPACE_INT, &text, 1), SPACE_E_UNKNOWN);
    assert_int_equal(space_add_texts(&space, "A", 0, SPACE_STRING, &text, 0), SPACE_E_RANGE);
    assert_int_equal(space.n_parameters, 0);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, beside, 2), 0);
    assert_int_equal(space_add_texts(&space, "A", 1, SPACE_STRING, &text, 1), SPACE_E_NAME);
    assert_int_equal(space_add_ints(&space, "B", 0, 1, false, &three, 1), 0);
    assert_int_equal(space_seal(&space), SPACE_E_LENGTH);
    space_deinit(&space);

    assert_int_equal(space_add_ints(&space, "A", 1, 1, false, &one, 1), 0);
    assert_int_equal(space_seal(&space), SPACE_E_LENGTH); /* nothing has factor 0 */
    assert_int_equal(space_add_ints(&space, "B", 0, 1, false, &half, 1), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(space_add_ints(&space, "C", 2, 1, false, &half, 1), 0);
    assert_int_equal(space_seal(&space), SPACE_E_LIMIT);
    space_deinit(&space);
}

static void a_list_of_crossing_ranges_costs_a_bounded_time(void **state)
{
    struct space_range ranges[LIMIT_SPACE_RANGES];
    struct space space;

    for (int64_t i = 0; i < LIMIT_SPACE_RANGES; i++)
        ranges[i] = (struct space_range){i, INT64_MAX - 1000000 + i, INT64_MAX / 4};
    space_init(&space);
    assert_int_equal(space_add_ints(&space, "A", 0, 1, false, ranges, LIMIT_SPACE_RANGES), SPACE_E_LIMIT);
    space_deinit(&space);
}

static void ranges_meet_where_both_have_a_value(void **state)
{
    for (random_state = 5; random_state < 5000; random_state++) {
        uint64_t seed = random_state, stride;
        struct space_range r[2];
        int64_t found[200], first, last;
        size_t n = 0;
        bool meet;

        for (int i = 0; i < 2; i++) {
            r[i] = (struct space_range){(int64_t)random_below(100) - 50, 0, 1 + (int64_t)random_below(20)};
            r[i].last = r[i].first + r[i].step * (int64_t)random_below(8);
        }
        for (int64_t v = -50; v < 250; v++)
            if (v >= r[0].first && v <= r[0].last && (v - r[0].first) % r[0].step == 0 &&
                v >= r[1].first && v <= r[1].last && (v - r[1].first) % r[1].step == 0)
                found[n++] = v;
        meet = space_ranges_meet(&r[0], &r[1], &first, &last, &stride);
        assert_int_equal(meet, n > 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(found[i], first + (int64_t)(stride * i));
        if (n > 0)
            assert_true(first + (int64_t)(stride * n) > last);
        random_state = seed;
    }
}

static void far_numbers_meet_without_overflow(void **state)
{
    const struct space_range whole = {INT64_MIN, INT64_MAX - 1, 2}, few = {INT64_MIN + 2, INT64_MAX - 4, INT64_MAX - 2};
    const int64_t p = 4611686018427387847, q = 4611686018427387817; /* coprime, near 2^62 */
    const struct space_range a = {7 - p, 7 + p, p}, b = {7 - q, 7 + q, q};
    int64_t first = 0, last = 0;
    uint64_t stride = 0;

    assert_true(space_ranges_meet(&whole, &few, &first, &last, &stride));
    assert_int_equal(first, INT64_MIN + 2);
    assert_true(space_ranges_meet(&a, &b, &first, &last, &stride));
    assert_int_equal(first, 7);
    assert_true(stride == UINT64_MAX);
}

/* A space of up to three factors, asked for random ranges, against a look at every task. */
static void find_returns_the_tasks_that_hold_a_value_and_no_others(void **state)
{
    for (random_state = 11; random_state < 2000; random_state++) {
        uint64_t seed = random_state;
        const struct space_range outer = {1, 1 + (int64_t)random_below(3), 1}, inner = {1, 1 + (int64_t)random_below(3), 1};
        struct space_range list[3], asked[3];
        struct space_interval *intervals;
        uint32_t chunk = 1 + (uint32_t)random_below(5);
        bool contiguous = random_below(2), got[4096] = {false};
        size_t n_list = 1 + random_below(3), n_asked = 1 + random_below(3), n;
        int64_t at = -20;
        struct space space;
        struct point point;

        for (size_t i = 0; i < n_list; i++) {
            list[i] = (struct space_range){at, at, 1 + (int64_t)random_below(4)};
            list[i].last += list[i].step * (int64_t)random_below(9);
            at = list[i].last + 1 + (int64_t)random_below(5);
        }
        for (size_t i = 0; i < n_asked; i++) {
            int64_t first = (int64_t)random_below(80) - 30;

            asked[i] = (struct space_range){first, first + (int64_t)random_below(30), 1 + (int64_t)random_below(6)};
        }
        space_init(&space);
        assert_int_equal(space_add_ints(&space, "Outer", 0, 1, false, &outer, 1), 0);
        assert_int_equal(space_add_ints(&space, "Frame", 1, chunk, contiguous, list, n_list), 0);
        assert_int_equal(space_add_ints(&space, "Inner", 2, 1, false, &inner, 1), 0);
        assert_int_equal(space_seal(&space), 0);
        assert_int_equal(space_find(&space, "Frame", asked, n_asked, &intervals, &n), 0);
        for (size_t i = 0; i < n; i++) {
            assert_true(intervals[i].first <= intervals[i].last && intervals[i].last < space_size(&space));
            if (i > 0)
                assert_true(intervals[i].first > intervals[i - 1].last + 1);
            for (uint64_t task = intervals[i].first; task <= intervals[i].last; task++)
                got[task] = true;
        }
        for (uint64_t task = 0; task < space_size(&space); task++) {
            bool wanted = false;
            char text[256];
            struct space_range *values;
            size_t n_values, where;
            const char *why;

            assert_int_equal(space_point(&space, task, &point), 0);
            space_value_text(&space, &point.values[1], text, sizeof(text));
            assert_int_equal(space_parse_frames(text, &values, &n_values, &where, &why), 0);
            for (size_t i = 0; i < n_values; i++)
                for (int64_t v = values[i].first; v <= values[i].last; v += values[i].step)
                    for (size_t j = 0; j < n_asked; j++)
                        wanted |= v >= asked[j].first && v <= asked[j].last && (v - asked[j].first) % asked[j].step == 0;
            free(values);
            if (wanted != got[task])
                fail_msg("seed %llu task %llu", (unsigned long long)seed, (unsigned long long)task);
        }
        free(intervals);
        space_deinit(&space);
        random_state = seed;
    }
}

static void find_is_quick_in_the_largest_space_and_knows_what_it_cannot_find(void **state)
{
    const struct space_range frames = {1, 1 << 20, 1}, tiles = {0, 127, 1};
    const struct space_range one = {77, 77, 1}, none = {-5, 0, 1}, edge = {INT64_MAX - 1, INT64_MAX, 2};
    struct space_interval *intervals = NULL;
    struct space space;
    size_t n = 9;

    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, 1, false, &frames, 1), 0);
    assert_int_equal(space_add_ints(&space, "Tile", 1, 1, false, &tiles, 1), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(space_find(&space, "Frame", &one, 1, &intervals, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(intervals[0].first, 76 * 128);
    assert_int_equal(intervals[0].last, 77 * 128 - 1);
    free(intervals);
    assert_int_equal(space_find(&space, "Frame", &none, 1, &intervals, &n), 0);
    assert_int_equal(n, 0);
    free(intervals);
    assert_int_equal(space_find(&space, "Frame", &edge, 1, &intervals, &n), 0);
    assert_int_equal(n, 0);
    free(intervals);
    assert_int_equal(space_find(&space, "Camera", &one, 1, &intervals, &n), SPACE_E_UNKNOWN);
    space_deinit(&space);
}

/* What `text` becomes without the frames of `others`. */
static const char *without(const char *text, const char *others)
{
    static char result[4096];
    struct space_range *ranges = NULL, *taken = NULL, *left = NULL;
    size_t n = 0, n_taken = 0, n_left = 0, at = 0;
    const char *why = NULL;

    assert_int_equal(space_parse_frames(text, &ranges, &n, &at, &why), 0);
    assert_int_equal(space_parse_frames(others, &taken, &n_taken, &at, &why), 0);
    assert_int_equal(space_ranges_without(ranges, n, taken, n_taken, &left, &n_left), 0);
    space_format_ranges(left, n_left, result, sizeof(result));
    free(ranges);
    free(taken);
    free(left);
    return result;
}

static void ranges_without_others_are_what_is_left(void **state)
{
    static const char *const cases[][3] = {
        {"1-10", "1-10", ""},
        {"1-20", "1-10", "11-20"},
        {"1-10", "5", "1-4,6-10"},
        {"1-10", "11-20", "1-10"},
        {"1-10:2", "3-5", "1,7,9"},
        {"1-10", "1-10:2", "2-10:2"},
        {"-3-3,100-110:5", "0,105", "-3--1,1-3,100,110"},
        {"1-1000000", "2-999999", "1,1000000"},
    };
    struct space_range crossing[] = {{1, 9, 2}, {2, 10, 2}, {4, 6, 1}}, *left = NULL;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(without(cases[i][0], cases[i][1]), cases[i][2]);
    assert_int_equal(space_ranges_without(crossing, 3, NULL, 0, &left, &n), 0);
    assert_int_equal(n, 1); /* in order, none twice */
    assert_int_equal(left[0].last, 10);
    free(left);
}

struct shape {
    struct space_range ranges[3];
    size_t n;
    uint32_t chunk;
    bool contiguous, tiles;
};

#define SHAPE(chunk_, contiguous_, tiles_, n_, ...)                                                  \
    {                                                                                              \
        .ranges = {__VA_ARGS__}, .n = n_, .chunk = chunk_, .contiguous = contiguous_,              \
        .tiles = tiles_                                                                            \
    }

static struct space shaped(const struct shape *shape)
{
    static const char *const tiles[] = {"left", "right"};
    struct space space;

    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, shape->chunk, shape->contiguous,
                                    shape->ranges, shape->n),
                     0);
    if (shape->tiles)
        assert_int_equal(space_add_texts(&space, "Tile", 1, SPACE_STRING, tiles, 2), 0);
    assert_int_equal(space_seal(&space), 0);
    return space;
}

/* Whatever an extension keeps is, task by task, what it was. */
static void a_space_extends_another_where_indexes_keep_their_values(void **state)
{
    static const struct {
        struct shape old, now;
        int same; /* tasks that mean what they meant; -1: no extension */
    } cases[] = {
        {SHAPE(1, 0, 0, 1, {1, 4, 1}), SHAPE(1, 0, 0, 2, {1, 4, 1}, {5, 6, 1}), 4},
        {SHAPE(1, 0, 0, 1, {1, 4, 1}), SHAPE(1, 0, 0, 1, {1, 4, 1}), 4},
        {SHAPE(1, 0, 0, 1, {1, 4, 1}), SHAPE(1, 0, 0, 1, {1, 6, 1}), -1},
        {SHAPE(1, 0, 0, 1, {1, 4, 1}), SHAPE(1, 0, 0, 2, {2, 4, 1}, {5, 6, 1}), -1},
        {SHAPE(1, 0, 0, 2, {1, 4, 1}, {5, 6, 1}), SHAPE(1, 0, 0, 1, {1, 4, 1}), -1},
        {SHAPE(1, 0, 1, 1, {1, 4, 1}), SHAPE(1, 0, 1, 2, {1, 4, 1}, {9, 9, 1}), 8},
        {SHAPE(1, 0, 1, 1, {1, 4, 1}), SHAPE(1, 0, 0, 2, {1, 4, 1}, {9, 9, 1}), -1},
        {SHAPE(3, 0, 0, 1, {1, 5, 1}), SHAPE(3, 0, 0, 2, {1, 5, 1}, {6, 9, 1}), 1}, /* 4-5 get 6 */
        {SHAPE(3, 0, 0, 1, {1, 6, 1}), SHAPE(3, 0, 0, 2, {1, 6, 1}, {7, 9, 1}), 2},
        {SHAPE(3, 0, 0, 1, {1, 5, 1}), SHAPE(3, 1, 0, 2, {1, 5, 1}, {6, 9, 1}), 2},
        {SHAPE(3, 1, 0, 1, {1, 5, 1}), SHAPE(3, 0, 0, 2, {1, 5, 1}, {6, 9, 1}), -1},
        {SHAPE(3, 0, 0, 2, {1, 5, 1}, {8, 9, 1}), SHAPE(3, 1, 0, 2, {1, 5, 1}, {8, 9, 1}), -1},
        {SHAPE(3, 0, 0, 1, {1, 5, 1}), SHAPE(2, 0, 0, 1, {1, 5, 1}), -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct space old = shaped(&cases[i].old), now = shaped(&cases[i].now);
        uint64_t same = 0;

        assert_int_equal(space_extends(&old, &now, &same), cases[i].same >= 0);
        if (cases[i].same >= 0)
            assert_int_equal(same, cases[i].same);
        for (uint64_t index = 0; cases[i].same >= 0 && index < same; index++) {
            struct point was, is;
            char a[64], b[64];

            assert_int_equal(space_point(&old, index, &was), 0);
            assert_int_equal(space_point(&now, index, &is), 0);
            for (size_t k = 0; k < was.n_values; k++) {
                space_value_text(&old, &was.values[k], a, sizeof(a));
                space_value_text(&now, &is.values[k], b, sizeof(b));
                assert_string_equal(a, b);
            }
        }
        space_deinit(&old);
        space_deinit(&now);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_are_read_and_normalised),
        cmocka_unit_test(a_mistake_is_pointed_at),
        cmocka_unit_test(any_expression_holds_exactly_its_values_in_order),
        cmocka_unit_test(too_many_separate_values_are_refused_and_the_last_allowed_is_not),
        cmocka_unit_test(formatting_says_how_much_room_it_needs),
        cmocka_unit_test(a_space_without_parameters_has_one_point),
        cmocka_unit_test(the_last_factor_is_innermost_and_one_factor_advances_together),
        cmocka_unit_test(a_chunk_holds_consecutive_values_and_may_not_span_a_gap),
        cmocka_unit_test(what_makes_no_sense_is_refused_by_kind),
        cmocka_unit_test(a_list_of_crossing_ranges_costs_a_bounded_time),
        cmocka_unit_test(ranges_meet_where_both_have_a_value),
        cmocka_unit_test(far_numbers_meet_without_overflow),
        cmocka_unit_test(find_returns_the_tasks_that_hold_a_value_and_no_others),
        cmocka_unit_test(ranges_without_others_are_what_is_left),
        cmocka_unit_test(a_space_extends_another_where_indexes_keep_their_values),
        cmocka_unit_test(find_is_quick_in_the_largest_space_and_knows_what_it_cannot_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
