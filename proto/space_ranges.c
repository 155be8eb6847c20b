/* space_ranges.c - progressions of integers, and how people write them.
 *
 * The idea: where ranges lie across each other, a sweep from the left cuts them where one begins or
 * ends; between two cuts one of them nearly always holds all the others, and only where none does
 * are values listed one by one. What comes out goes through one writer, which joins values to
 * ranges again; so the result is ascending, exact, and has few ranges.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/space.h>

/* Items of one expression before they are joined: "1,2,3,4,..." may be long and still be one range. */
#define ITEMS_MAX (16 * 1024)
/* How often a range may be looked at while values are listed one by one: about a tenth of a second. */
#define LISTING_MAX (1u << 26)

/* ---- progressions ---- */

uint64_t space_range_count(const struct space_range *range)
{
    uint64_t gaps = space_gap(range->first, range->last) / (uint64_t)range->step;

    return gaps < UINT64_MAX ? gaps + 1 : gaps;
}

/* ---- progressions ---- */

static uint64_t multiply_modulo(uint64_t a, uint64_t b, uint64_t modulus)
{
    uint64_t product = 0;

    if (modulus <= UINT32_MAX)
        return a * b % modulus;
    /* a, b < modulus < 2^63: a sum of two never overflows. */
    for (; b > 0; b >>= 1) {
        if (b & 1)
            product = (product + a) % modulus;
        a = (a + a) % modulus;
    }
    return product;
}

/* Euclid: the greatest common divisor, and `ret_inverse` with a * inverse = gcd (mod modulus). */
static uint64_t invert(uint64_t a, uint64_t modulus, uint64_t *ret_inverse)
{
    int64_t r0 = (int64_t)modulus, r1 = (int64_t)(a % modulus), t0 = 0, t1 = 1;

    while (r1 != 0) {
        int64_t q = r0 / r1, r = r0 - q * r1, t = t0 - q * t1;

        r0 = r1;
        r1 = r;
        t0 = t1;
        t1 = t;
    }
    *ret_inverse = t0 < 0 ? modulus - (uint64_t)-t0 : (uint64_t)t0;
    return (uint64_t)r0;
}

/* The first member that is not below `low`, which is not above the last member. */
static int64_t member_from(const struct space_range *range, int64_t low)
{
    uint64_t step = (uint64_t)range->step, gap;

    if (low <= range->first)
        return range->first;
    gap = space_gap(range->first, low);
    return space_after(range->first, (gap / step + (gap % step != 0)) * step);
}

bool space_ranges_meet(const struct space_range *a, const struct space_range *b,
                       int64_t *ret_first, int64_t *ret_last, uint64_t *ret_stride)
{
    int64_t low = a->first > b->first ? a->first : b->first;
    int64_t high = a->last < b->last ? a->last : b->last;
    uint64_t s = (uint64_t)a->step, t = (uint64_t)b->step, gap, common, modulus, inverse, k;
    int64_t from_a, from_b;

    if (low > high)
        return false;
    from_a = member_from(a, low);
    from_b = member_from(b, low);
    if (from_a > high || from_b > high)
        return false;

    /* from_a + s k = from_b (mod t) */
    gap = from_b >= from_a ? space_gap(from_a, from_b) % t : (t - space_gap(from_b, from_a) % t) % t;
    common = invert(s, t, &inverse);
    if (gap % common != 0)
        return false;
    modulus = t / common;
    invert(s / common % modulus, modulus, &inverse);
    k = modulus == 1 ? 0 : multiply_modulo(gap / common % modulus, inverse % modulus, modulus);
    if (k > space_gap(from_a, high) / s)
        return false;

    *ret_first = space_after(from_a, k * s);
    *ret_last = high;
    *ret_stride = modulus > UINT64_MAX / s ? UINT64_MAX : s * modulus;
    return true;
}

/* ---- writing ranges ---- */

size_t space_format_ranges(const struct space_range *ranges, size_t n_ranges, char *text,
                           size_t size)
{
    size_t length = 0;

    if (size > 0)
        text[0] = '\0';
    for (size_t i = 0; i < n_ranges; i++) {
        const struct space_range *range = &ranges[i];
        char part[80];
        int n = snprintf(part, sizeof(part), "%s%lld", i > 0 ? "," : "", (long long)range->first);

        if (range->last != range->first)
            n += snprintf(part + n, sizeof(part) - (size_t)n, "-%lld", (long long)range->last);
        if (range->last != range->first && range->step != 1)
            n += snprintf(part + n, sizeof(part) - (size_t)n, ":%lld", (long long)range->step);
        if (length < size)
            snprintf(text + length, size - length, "%s", part);
        length += (size_t)n;
    }
    return length;
}

/* ---- joining values to ranges ---- */

struct writer {
    struct space_range *ranges; /* room for LIMIT_SPACE_RANGES + 2: the end may still be joined */
    size_t n;
    uint64_t values;
};

static bool is_single(const struct space_range *range)
{
    return range->first == range->last;
}

/* `value` is above all before it. Two values are a range only where they are neighbours; three at
 * equal distance always are. */
static int write_value(struct writer *writer, int64_t value)
{
    struct space_range *end = writer->n > 0 ? &writer->ranges[writer->n - 1] : NULL;
    struct space_range *before = writer->n > 1 ? end - 1 : NULL;
    uint64_t gap = end ? space_gap(end->last, value) : 0;

    if (++writer->values > LIMIT_TASKS_PER_STEP)
        return SPACE_E_LIMIT;
    if (end && (is_single(end) ? gap == 1 : gap == (uint64_t)end->step)) {
        end->last = value;
        return 0;
    }
    if (before && is_single(end) && is_single(before) && gap == space_gap(before->last, end->last) &&
        gap <= INT64_MAX) {
        *before = (struct space_range){before->first, value, (int64_t)gap};
        writer->n--;
        return 0;
    }
    if (writer->n == LIMIT_SPACE_RANGES + 2)
        return SPACE_E_LIMIT;
    writer->ranges[writer->n++] = (struct space_range){value, value, 1};
    return 0;
}

/* A few values by themselves, until the last range has the step; then the rest at once. */
static int write_range(struct writer *writer, struct space_range range)
{
    for (;;) {
        struct space_range *end;
        uint64_t count;
        int r = write_value(writer, range.first);

        if (r != 0 || is_single(&range))
            return r;
        end = &writer->ranges[writer->n - 1];
        range.first = space_after(range.first, (uint64_t)range.step);
        if (is_single(end) || end->step != range.step)
            continue;
        count = space_range_count(&range);
        if (count > LIMIT_TASKS_PER_STEP - writer->values)
            return SPACE_E_LIMIT;
        writer->values += count;
        end->last = range.last;
        return 0;
    }
}

/* ---- the sweep ---- */

struct sweep {
    struct space_range *active; /* what is left of the ranges that have begun */
    size_t n;
    uint64_t looked;
};

/* What of a range lies after `end`; false where nothing does. */
static bool range_cut(struct space_range *range, int64_t end)
{
    if (range->last <= end)
        return false;
    if (range->first <= end) {
        uint64_t turns = space_gap(range->first, end) / (uint64_t)range->step + 1;

        range->first = space_after(range->first, turns * (uint64_t)range->step);
    }
    return true;
}

static void sweep_cut(struct sweep *sweep, int64_t end)
{
    size_t kept = 0;

    for (size_t i = 0; i < sweep->n; i++)
        if (range_cut(&sweep->active[i], end))
            sweep->active[kept++] = sweep->active[i];
    sweep->n = kept;
}

static int64_t sweep_first(const struct sweep *sweep)
{
    int64_t first = sweep->active[0].first;

    for (size_t i = 1; i < sweep->n; i++)
        if (sweep->active[i].first < first)
            first = sweep->active[i].first;
    return first;
}

static bool range_holds(const struct space_range *outer, const struct space_range *inner)
{
    return inner->step % outer->step == 0 && inner->first >= outer->first &&
           space_gap(outer->first, inner->first) % (uint64_t)outer->step == 0;
}

/* The active range that holds all others as far as the next cut; NULL where none does. */
static const struct space_range *sweep_holder(const struct sweep *sweep)
{
    const struct space_range *holder = &sweep->active[0];

    for (size_t i = 1; i < sweep->n; i++)
        if (sweep->active[i].step < holder->step ||
            (sweep->active[i].step == holder->step && sweep->active[i].first < holder->first))
            holder = &sweep->active[i];
    for (size_t i = 0; i < sweep->n; i++)
        if (&sweep->active[i] != holder && !range_holds(holder, &sweep->active[i]))
            return NULL;
    return holder;
}

/* Writes what the active ranges hold up to `end`, where the first of them ends or another begins. */
static int sweep_write(struct sweep *sweep, struct writer *writer, int64_t end)
{
    const struct space_range *holder = sweep_holder(sweep);
    int r = 0;

    if (holder) {
        struct space_range part = *holder;
        uint64_t span;

        if (part.first > end)
            return 0;
        span = space_gap(part.first, end);
        part.last = space_after(part.first, span - span % (uint64_t)part.step);
        r = write_range(writer, part);
        sweep_cut(sweep, end);
        return r;
    }
    while (r == 0 && sweep->n > 0) {
        int64_t value = sweep_first(sweep);

        if (value > end)
            return 0;
        sweep->looked += sweep->n;
        if (sweep->looked > LISTING_MAX)
            return SPACE_E_LIMIT;
        r = write_value(writer, value);
        sweep_cut(sweep, value);
    }
    return r;
}

/* `items` are sorted by their first value. */
static int sweep_run(struct sweep *sweep, const struct space_range *items, size_t n,
                     struct writer *writer)
{
    size_t next = 0;

    while (next < n || sweep->n > 0) {
        int64_t end;
        int r;

        if (sweep->n == 0)
            sweep->active[sweep->n++] = items[next++];
        for (; next < n && items[next].first <= sweep_first(sweep); next++)
            sweep->active[sweep->n++] = items[next];
        end = sweep->active[0].last;
        for (size_t i = 1; i < sweep->n; i++)
            if (sweep->active[i].last < end)
                end = sweep->active[i].last;
        if (next < n && items[next].first <= end)
            end = items[next].first - 1;
        r = sweep_write(sweep, writer, end);
        if (r != 0)
            return r;
        sweep_cut(sweep, end);
    }
    return 0;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct space_range *left = a, *right = b;

    if (left->first != right->first)
        return left->first < right->first ? -1 : 1;
    if (left->step != right->step)
        return left->step < right->step ? -1 : 1;
    return (left->last < right->last) - (left->last > right->last);
}

/* Sorts; of ranges that begin together with one step, the longest stays. */
static size_t sort_items(struct space_range *items, size_t n)
{
    size_t kept = 0;

    qsort(items, n, sizeof(*items), compare_ranges);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || items[kept - 1].first != items[i].first ||
            items[kept - 1].step != items[i].step)
            items[kept++] = items[i];
    return kept;
}

static int join(struct space_range *items, size_t n, struct space_range **ret_ranges,
                size_t *ret_n_ranges)
{
    struct writer writer = {0};
    struct sweep sweep = {0};
    int r = -ENOMEM;

    n = sort_items(items, n);
    writer.ranges = malloc((LIMIT_SPACE_RANGES + 2) * sizeof(*writer.ranges));
    sweep.active = malloc(n * sizeof(*sweep.active));
    if (writer.ranges && sweep.active)
        r = sweep_run(&sweep, items, n, &writer);
    if (r == 0 && writer.n > LIMIT_SPACE_RANGES)
        r = SPACE_E_LIMIT;
    free(sweep.active);
    if (r != 0) {
        free(writer.ranges);
        return r;
    }
    *ret_ranges = writer.ranges;
    *ret_n_ranges = writer.n;
    return 0;
}

static bool range_has(const struct space_range *range, int64_t value)
{
    return value >= range->first && value <= range->last &&
           space_gap(range->first, value) % (uint64_t)range->step == 0;
}

/* Value by value where the two meet at all. */
static int write_without(struct writer *writer, const struct space_range *range,
                         const struct space_range *others, size_t n_others, uint64_t *looked)
{
    int64_t first, last, value = range->first;
    uint64_t stride;
    bool meets = false;

    for (size_t i = 0; i < n_others && !meets; i++)
        meets = space_ranges_meet(range, &others[i], &first, &last, &stride);
    if (!meets)
        return write_range(writer, *range);
    for (;; value = space_after(value, (uint64_t)range->step)) {
        bool has = false;
        int r = 0;

        for (size_t i = 0; i < n_others && !has; i++, ++*looked)
            has = range_has(&others[i], value);
        if (*looked > LISTING_MAX)
            return SPACE_E_LIMIT;
        if (!has)
            r = write_value(writer, value);
        if (r != 0 || value == range->last)
            return r;
    }
}

int space_ranges_without(const struct space_range *ranges, size_t n, const struct space_range *others,
                         size_t n_others, struct space_range **ret_ranges, size_t *ret_n_ranges)
{
    struct space_range *items = malloc((n + 1) * sizeof(*items)), *joined = NULL;
    struct writer writer = {0};
    uint64_t looked = 0;
    size_t n_joined = 0;
    int r = -ENOMEM;

    if (!items)
        return r;
    memcpy(items, ranges, n * sizeof(*items));
    r = n > 0 ? join(items, n, &joined, &n_joined) : 0;
    free(items);
    writer.ranges = malloc((LIMIT_SPACE_RANGES + 2) * sizeof(*writer.ranges));
    if (!writer.ranges)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < n_joined; i++)
        r = write_without(&writer, &joined[i], others, n_others, &looked);
    if (r == 0 && writer.n > LIMIT_SPACE_RANGES)
        r = SPACE_E_LIMIT;
    free(joined);
    if (r != 0) {
        free(writer.ranges);
        return r;
    }
    *ret_ranges = writer.ranges;
    *ret_n_ranges = writer.n;
    return 0;
}

/* ---- reading what an artist wrote ---- */

struct reader {
    const char *text;
    size_t at;
    const char *why; /* set: what is wrong at `at` */
};

static void skip_spaces(struct reader *reader)
{
    while (reader->text[reader->at] == ' ' || reader->text[reader->at] == '\t')
        reader->at++;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int refuse(struct reader *reader, size_t at, const char *why)
{
    reader->at = at;
    reader->why = why;
    return SPACE_E_RANGE;
}

static int read_number(struct reader *reader, const char *missing, int64_t *ret_number)
{
    bool negative;
    uint64_t number = 0;
    size_t start;

    skip_spaces(reader);
    start = reader->at;
    negative = reader->text[start] == '-';
    if (!is_digit(reader->text[start + negative]))
        return refuse(reader, start, missing);
    for (reader->at += negative; is_digit(reader->text[reader->at]); reader->at++) {
        uint64_t digit = (uint64_t)(reader->text[reader->at] - '0');

        if (number > ((uint64_t)INT64_MAX + negative - digit) / 10)
            return refuse(reader, start, "the number is too large");
        number = number * 10 + digit;
    }
    *ret_number = (int64_t)(negative ? 0 - number : number);
    return 0;
}

/* Takes a word where it is next. */
static bool take(struct reader *reader, const char *word)
{
    skip_spaces(reader);
    if (strncmp(reader->text + reader->at, word, strlen(word)) != 0)
        return false;
    reader->at += strlen(word);
    return true;
}

/* "7", "1-240", "1..240", and with a step ":2", "x2", "..2". */
static int read_item(struct reader *reader, struct space_range *ret_item)
{
    struct space_range item = {.step = 1};
    size_t start, step_start;
    uint64_t span;
    int r = read_number(reader, "a frame number is missing", &item.first);

    start = reader->at;
    if (r != 0)
        return r;
    item.last = item.first;
    if (take(reader, "-") || take(reader, "..")) {
        skip_spaces(reader);
        start = reader->at;
        r = read_number(reader, "the last frame of the range is missing", &item.last);
        if (r != 0)
            return r;
        if (item.last < item.first)
            return refuse(reader, start, "the range ends before it begins");
        if (take(reader, ":") || take(reader, "x") || take(reader, "..")) {
            skip_spaces(reader);
            step_start = reader->at;
            r = read_number(reader, "the step is missing", &item.step);
            if (r != 0)
                return r;
            if (item.step < 1)
                return refuse(reader, step_start, "a step is at least 1");
        }
    }

    span = space_gap(item.first, item.last);
    item.last = space_after(item.first, span - span % (uint64_t)item.step);
    if (is_single(&item))
        item.step = 1;
    if (space_range_count(&item) > LIMIT_TASKS_PER_STEP) {
        refuse(reader, start, "the range has more frames than a step may have");
        return SPACE_E_LIMIT;
    }
    *ret_item = item;
    return 0;
}

static int read_items(struct reader *reader, struct space_range *items, size_t *ret_n)
{
    size_t n = 0;

    do {
        int r;

        skip_spaces(reader);
        if (n == ITEMS_MAX) {
            refuse(reader, reader->at, "there are too many ranges");
            return SPACE_E_LIMIT;
        }
        r = read_item(reader, &items[n++]);
        if (r != 0)
            return r;
    } while (take(reader, ","));

    skip_spaces(reader);
    if (reader->text[reader->at] != '\0')
        return refuse(reader, reader->at, "this belongs to no range of frames");
    *ret_n = n;
    return 0;
}

int space_parse_frames(const char *text, struct space_range **ret_ranges, size_t *ret_n_ranges,
                       size_t *ret_at, const char **ret_why)
{
    struct space_range *items = malloc(ITEMS_MAX * sizeof(*items));
    struct reader reader = {.text = text};
    size_t n = 0;
    int r;

    if (!items)
        return -ENOMEM;
    r = read_items(&reader, items, &n);
    if (r == 0) {
        reader.at = 0;
        r = join(items, n, ret_ranges, ret_n_ranges);
        if (r == SPACE_E_LIMIT)
            reader.why = "it comes to more frames, or more separate ranges, than a step may have";
    }
    free(items);
    if (r > 0) {
        *ret_at = reader.at;
        *ret_why = reader.why;
    }
    return r;
}
