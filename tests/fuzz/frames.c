/* frames.c - range expressions, as a person, or a preset, or a job of others has them. */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/bytes.h>
#include <proto/space.h>
#include "fuzz.h"

/* What was read is said again, and read the same. */
static void check_again(const struct space_range *ranges, size_t n)
{
    size_t size = space_format_ranges(ranges, n, NULL, 0), at, n_again;
    _cleanup_(freep) char *text = malloc(size + 1);
    _cleanup_(freep) struct space_range *again = NULL;
    const char *why;

    CHECK(text && space_format_ranges(ranges, n, text, size + 1) == size);
    CHECK(space_parse_frames(text, &again, &n_again, &at, &why) == 0);
    CHECK(n_again == n && memcmp(again, ranges, n * sizeof(*ranges)) == 0);
}

/* What one lacks of the other, and where it lies in a space. */
static void check_space(const struct space_range *ranges, size_t n)
{
    _cleanup_(freep) struct space_interval *intervals = NULL;
    _cleanup_(freep) struct space_range *rest = NULL;
    struct space space;
    struct point point;
    size_t n_rest, n_intervals;
    int r;

    r = space_ranges_without(ranges, n, ranges, n, &rest, &n_rest);
    CHECK(r == SPACE_E_LIMIT || (r == 0 && n_rest == 0));
    space_init(&space);
    if (space_add_ints(&space, "Frame", 0, 3, n % 2, ranges, n) == 0 && space_seal(&space) == 0) {
        CHECK(space_find(&space, "Frame", ranges, n, &intervals, &n_intervals) == 0);
        CHECK(n_intervals == 1 && intervals[0].first == 0 &&
              intervals[0].last == space_size(&space) - 1);
        CHECK(space_point(&space, space_size(&space) - 1, &point) == 0);
    }
    space_deinit(&space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *text = fuzz_text(data, size);
    _cleanup_(freep) struct space_range *ranges = NULL;
    const char *why = NULL;
    size_t n, at = 0;
    int r = space_parse_frames(text, &ranges, &n, &at, &why);

    if (r != 0) {
        CHECK(r == SPACE_E_LIMIT || (why && why[0] && at <= strlen(text)));
        return 0;
    }
    CHECK(n > 0);
    check_again(ranges, n);
    check_space(ranges, n);
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    static const char *const texts[][2] = {
        {"run", "1-240"},           {"step", "1-240:2"},
        {"times", "1-240x2"},       {"dots", "1..10..2"},
        {"list", "5, 10-20,-3--1"}, {"large", "-9223372036854775808-9223372036854775807"}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        add(texts[i][0], texts[i][1], strlen(texts[i][1]));
}
