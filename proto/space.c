/* space.c - parameter spaces as arithmetic.
 *
 * The idea: a task's index is a number in mixed radix, one digit for each factor, the last factor
 * the fastest. A digit is a position in a list of ranges, and a range is a progression; so a point,
 * its values and the way back from a value are divisions, and nothing is ever expanded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/space.h>

/* Pairs of ranges that lie across each other cost a Euclid each; a hostile list may not buy more. */
#define MEETINGS_MAX (16 * 1024)
/* What one search may return: 16 MiB. More than a million intervals is not a person's question. */
#define INTERVALS_MAX (1u << 20)

/* ---- building ---- */

void space_init(struct space *space)
{
    *space = (struct space){0};
}

static void parameter_deinit(struct space_parameter *parameter)
{
    for (size_t i = 0; parameter->texts && i < parameter->n_texts; i++)
        free(parameter->texts[i]);
    free(parameter->texts);
    free(parameter->ranges);
    free(parameter->name);
}

void space_deinit(struct space *space)
{
    for (size_t i = 0; i < space->n_parameters; i++)
        parameter_deinit(&space->parameters[i]);
    free(space->parameters);
    space_init(space);
}

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);

    return copy ? memcpy(copy, text, size) : NULL;
}

/* Checks what every parameter has, and makes room; what is added counts only with
 * parameter_commit. */
static int parameter_begin(struct space *space, const char *name, uint32_t factor,
                           struct space_parameter **ret_parameter)
{
    struct space_parameter *parameters;

    if (name[0] == '\0')
        return SPACE_E_NAME;
    if (space->n_parameters >= LIMIT_SPACE_PARAMETERS || factor >= LIMIT_SPACE_PARAMETERS ||
        strlen(name) > LIMIT_NAME_BYTES)
        return SPACE_E_LIMIT;
    for (size_t i = 0; i < space->n_parameters; i++)
        if (!strcmp(space->parameters[i].name, name))
            return SPACE_E_NAME;

    parameters = realloc(space->parameters, (space->n_parameters + 1) * sizeof(*parameters));
    if (!parameters)
        return -ENOMEM;
    space->parameters = parameters;
    parameters[space->n_parameters] = (struct space_parameter){.factor = factor, .chunk = 1};
    *ret_parameter = &parameters[space->n_parameters];
    return 0;
}

static int parameter_commit(struct space *space, struct space_parameter *parameter, const char *name)
{
    parameter->name = copy_text(name);
    if (!parameter->name) {
        parameter_deinit(parameter);
        return -ENOMEM;
    }
    if (parameter->factor >= space->n_factors)
        space->n_factors = parameter->factor + 1;
    space->n_parameters++;
    return 0;
}

/* Trims `last` to a member; refuses what is empty or too long. */
static int range_normalise(struct space_range *range, uint64_t *values)
{
    uint64_t span, count;

    if (range->step <= 0 || range->first > range->last)
        return SPACE_E_RANGE;
    span = space_gap(range->first, range->last);
    range->last = space_after(range->first, span - span % (uint64_t)range->step);
    if (range->first == range->last)
        range->step = 1;
    count = space_range_count(range);
    if (count > LIMIT_TASKS_PER_STEP || *values > LIMIT_TASKS_PER_STEP - count)
        return SPACE_E_LIMIT;
    *values += count;
    return 0;
}

static int ranges_check_overlap(const struct space_range *ranges, size_t n)
{
    unsigned meetings = 0;

    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            int64_t first, last;
            uint64_t stride;

            if (ranges[j].first > ranges[i].last || ranges[i].first > ranges[j].last)
                continue;
            if (++meetings > MEETINGS_MAX)
                return SPACE_E_LIMIT;
            if (space_ranges_meet(&ranges[i], &ranges[j], &first, &last, &stride))
                return SPACE_E_RANGE;
        }
    return 0;
}

static uint64_t divided_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

static uint64_t points_of(const struct space_parameter *parameter)
{
    uint64_t points = 0;

    if (!parameter->contiguous)
        return divided_up(parameter->n_values, parameter->chunk);
    for (size_t i = 0; i < parameter->n_ranges; i++)
        points += divided_up(space_range_count(&parameter->ranges[i]), parameter->chunk);
    return points;
}

int space_add_ints(struct space *space, const char *name, uint32_t factor, uint32_t chunk,
                   bool contiguous, const struct space_range *ranges, size_t n_ranges)
{
    struct space_parameter *parameter;
    int r = 0;

    if (n_ranges == 0)
        return SPACE_E_RANGE;
    if (n_ranges > LIMIT_SPACE_RANGES)
        return SPACE_E_LIMIT;
    r = parameter_begin(space, name, factor, &parameter);
    if (r != 0)
        return r;
    parameter->ranges = malloc(n_ranges * sizeof(*ranges));
    if (!parameter->ranges)
        return -ENOMEM;
    memcpy(parameter->ranges, ranges, n_ranges * sizeof(*ranges));
    parameter->n_ranges = n_ranges;

    for (size_t i = 0; r == 0 && i < n_ranges; i++)
        r = range_normalise(&parameter->ranges[i], &parameter->n_values);
    if (r == 0)
        r = ranges_check_overlap(parameter->ranges, n_ranges);
    if (r != 0) {
        parameter_deinit(parameter);
        return r;
    }
    parameter->type = SPACE_INT;
    parameter->chunk = chunk > 1 ? chunk : 1;
    parameter->contiguous = contiguous && chunk > 1;
    parameter->n_points = points_of(parameter);
    return parameter_commit(space, parameter, name);
}

int space_add_texts(struct space *space, const char *name, uint32_t factor, enum space_type type,
                    const char *const *texts, size_t n_texts)
{
    struct space_parameter *parameter;
    int r;

    if (type != SPACE_STRING && type != SPACE_PATH && type != SPACE_FLOAT)
        return SPACE_E_UNKNOWN;
    if (n_texts == 0)
        return SPACE_E_RANGE;
    if (n_texts > LIMIT_SPACE_VALUES)
        return SPACE_E_LIMIT;
    for (size_t i = 0; i < n_texts; i++)
        if (strlen(texts[i]) > LIMIT_TEXT_BYTES)
            return SPACE_E_LIMIT;
    r = parameter_begin(space, name, factor, &parameter);
    if (r != 0)
        return r;

    parameter->texts = calloc(n_texts, sizeof(*parameter->texts));
    parameter->n_texts = n_texts;
    for (size_t i = 0; parameter->texts && i < n_texts; i++) {
        parameter->texts[i] = copy_text(texts[i]);
        if (!parameter->texts[i]) {
            parameter_deinit(parameter);
            return -ENOMEM;
        }
    }
    if (!parameter->texts)
        return -ENOMEM;
    parameter->type = type;
    parameter->n_values = parameter->n_points = n_texts;
    return parameter_commit(space, parameter, name);
}

/* How many points a factor has; 0 for one that no parameter names. */
static uint64_t factor_points(const struct space *space, uint32_t factor)
{
    for (size_t i = 0; i < space->n_parameters; i++)
        if (space->parameters[i].factor == factor)
            return space->parameters[i].n_points;
    return 0;
}

int space_seal(struct space *space)
{
    uint64_t points = 1;

    for (size_t i = 0; i < space->n_parameters; i++)
        if (space->parameters[i].n_points != factor_points(space, space->parameters[i].factor))
            return SPACE_E_LENGTH;
    for (uint32_t factor = 0; factor < space->n_factors; factor++) {
        uint64_t length = factor_points(space, factor);

        if (length == 0)
            return SPACE_E_LENGTH;
        if (length > LIMIT_TASKS_PER_STEP / points)
            return SPACE_E_LIMIT;
        points *= length;
    }
    space->n_points = points;
    return 0;
}

/* ---- what may be added ---- */

static bool same_texts(const struct space_parameter *a, const struct space_parameter *b)
{
    for (size_t i = 0; i < a->n_texts; i++)
        if (strcmp(a->texts[i], b->texts[i]) != 0)
            return false;
    return true;
}

/* Chunks that never span two ranges lie the same whether or not they may. */
static bool aligned(const struct space_parameter *parameter)
{
    for (size_t i = 0; i + 1 < parameter->n_ranges; i++)
        if (space_range_count(&parameter->ranges[i]) % parameter->chunk != 0)
            return false;
    return true;
}

static bool parameter_extends(const struct space_parameter *old, const struct space_parameter *now)
{
    if (strcmp(old->name, now->name) != 0 || old->type != now->type || old->factor != now->factor ||
        old->chunk != now->chunk || old->n_texts != now->n_texts || old->n_ranges > now->n_ranges ||
        (old->n_ranges < now->n_ranges && old->factor != 0))
        return false;
    if (old->contiguous != now->contiguous && (old->contiguous || !aligned(old)))
        return false;
    /* A range has members, so what differs in memory differs in meaning. */
    return same_texts(old, now) && (old->n_ranges == 0 ||
                                    memcmp(old->ranges, now->ranges,
                                           old->n_ranges * sizeof(*old->ranges)) == 0);
}

bool space_extends(const struct space *old, const struct space *space, uint64_t *ret_same)
{
    if (old->n_parameters != space->n_parameters || old->n_factors != space->n_factors)
        return false;
    for (size_t i = 0; i < old->n_parameters; i++)
        if (!parameter_extends(&old->parameters[i], &space->parameters[i]))
            return false;
    *ret_same = old->n_points;
    for (size_t i = 0; i < old->n_parameters; i++) {
        const struct space_parameter *was = &old->parameters[i], *now = &space->parameters[i];

        if (was->n_ranges == now->n_ranges || now->contiguous || was->n_values % was->chunk == 0)
            continue;
        *ret_same = old->n_points - old->n_points / was->n_points;
    }
    return true;
}

/* ---- from an index to values ---- */

uint64_t space_size(const struct space *space)
{
    return space->n_points;
}

/* Which values of its list a chunk holds. */
static void chunk_values(const struct space_parameter *parameter, uint64_t at, uint64_t *ret_first,
                         uint64_t *ret_count)
{
    uint64_t first = 0, length = parameter->n_values;

    for (size_t i = 0; parameter->contiguous && i < parameter->n_ranges; i++) {
        uint64_t points;

        length = space_range_count(&parameter->ranges[i]);
        points = divided_up(length, parameter->chunk);
        if (at < points)
            break;
        at -= points;
        first += length;
    }
    length -= at * parameter->chunk;
    *ret_first = first + at * parameter->chunk;
    *ret_count = length < parameter->chunk ? length : parameter->chunk;
}

static int64_t value_at(const struct space_parameter *parameter, uint64_t at)
{
    size_t i = 0;
    uint64_t count;

    while (at >= (count = space_range_count(&parameter->ranges[i]))) {
        at -= count;
        i++;
    }
    return space_after(parameter->ranges[i].first, at * (uint64_t)parameter->ranges[i].step);
}

static void value_of(const struct space_parameter *parameter, uint64_t at,
                     struct space_value *ret_value)
{
    *ret_value = (struct space_value){.name = parameter->name, .type = parameter->type};
    if (parameter->type != SPACE_INT) {
        ret_value->text = parameter->texts[at];
        return;
    }
    ret_value->chunked = parameter->chunk > 1;
    chunk_values(parameter, at, &ret_value->value_first, &ret_value->value_count);
    ret_value->first = value_at(parameter, ret_value->value_first);
}

int space_point(const struct space *space, uint64_t index, struct point *ret_point)
{
    if (index >= space->n_points)
        return SPACE_E_INDEX;
    for (uint32_t factor = space->n_factors; factor-- > 0;) {
        uint64_t length = factor_points(space, factor);

        for (size_t i = 0; i < space->n_parameters; i++)
            if (space->parameters[i].factor == factor)
                value_of(&space->parameters[i], index % length, &ret_point->values[i]);
        index /= length;
    }
    ret_point->n_values = space->n_parameters;
    return 0;
}

static const struct space_parameter *parameter_find(const struct space *space, const char *name)
{
    for (size_t i = 0; i < space->n_parameters; i++)
        if (!strcmp(space->parameters[i].name, name))
            return &space->parameters[i];
    return NULL;
}

/* A chunk, range by range, through the printer of one range. */
static size_t chunk_text(const struct space_parameter *parameter, uint64_t skip, uint64_t count,
                         char *text, size_t size)
{
    size_t length = 0;

    for (size_t i = 0; i < parameter->n_ranges && count > 0; i++) {
        struct space_range part = parameter->ranges[i];
        uint64_t here = space_range_count(&part), taken;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        taken = here - skip < count ? here - skip : count;
        part.first = space_after(part.first, skip * (uint64_t)part.step);
        part.last = space_after(part.first, (taken - 1) * (uint64_t)part.step);
        if (length > 0)
            length += (size_t)snprintf(length < size ? text + length : NULL,
                                       length < size ? size - length : 0, ",");
        length += space_format_ranges(&part, 1, length < size ? text + length : NULL,
                                      length < size ? size - length : 0);
        count -= taken;
        skip = 0;
    }
    return length;
}

size_t space_value_text(const struct space *space, const struct space_value *value, char *text,
                        size_t size)
{
    const struct space_parameter *parameter = parameter_find(space, value->name);

    if (value->type != SPACE_INT)
        return (size_t)snprintf(text, size, "%s", value->text);
    if (!value->chunked || !parameter)
        return (size_t)snprintf(text, size, "%lld", (long long)value->first);
    return chunk_text(parameter, value->value_first, value->value_count, text, size);
}

const char *space_frame_name(const struct space *space)
{
    for (size_t i = 0; i < space->n_parameters; i++)
        if (space->parameters[i].type == SPACE_INT)
            return space->parameters[i].name;
    return NULL;
}

/* ---- from values to indexes ---- */

struct intervals {
    struct space_interval *items;
    size_t n, capacity;
};

/* Joins what touches the one before it. */
static int intervals_add(struct intervals *intervals, uint64_t first, uint64_t last)
{
    struct space_interval *before = intervals->n > 0 ? &intervals->items[intervals->n - 1] : NULL;

    if (before && first >= before->first && first <= before->last + 1) {
        if (last > before->last)
            before->last = last;
        return 0;
    }
    if (intervals->n == INTERVALS_MAX)
        return SPACE_E_LIMIT;
    if (intervals->n == intervals->capacity) {
        size_t capacity = intervals->capacity > 0 ? intervals->capacity * 2 : 16;
        struct space_interval *items = realloc(intervals->items, capacity * sizeof(*items));

        if (!items)
            return -ENOMEM;
        intervals->items = items;
        intervals->capacity = capacity;
    }
    intervals->items[intervals->n++] = (struct space_interval){first, last};
    return 0;
}

static int compare_intervals(const void *a, const void *b)
{
    const struct space_interval *left = a, *right = b;

    return (left->first > right->first) - (left->first < right->first);
}

/* Sorts and joins in place: joining never needs more room. */
static void intervals_sort(struct intervals *intervals)
{
    size_t n = intervals->n;

    if (n > 1)
        qsort(intervals->items, n, sizeof(*intervals->items), compare_intervals);
    intervals->n = 0;
    for (size_t i = 0; i < n; i++)
        (void)intervals_add(intervals, intervals->items[i].first, intervals->items[i].last);
}

/* Where one range of the list starts: its first value and its first point. */
struct place {
    uint64_t value, point;
};

/* The points that hold members number `first` to `last` of the range at `place`. */
static int add_members(const struct space_parameter *parameter, const struct place *place,
                       uint64_t first, uint64_t last, struct intervals *points)
{
    if (parameter->contiguous)
        return intervals_add(points, place->point + first / parameter->chunk,
                             place->point + last / parameter->chunk);
    return intervals_add(points, (place->value + first) / parameter->chunk,
                         (place->value + last) / parameter->chunk);
}

static int add_shared(const struct space_parameter *parameter, const struct space_range *range,
                      const struct place *place, const struct space_range *wanted,
                      struct intervals *points)
{
    uint64_t step = (uint64_t)range->step, stride, at, end;
    int64_t first, last;
    int r;

    if (!space_ranges_meet(range, wanted, &first, &last, &stride))
        return 0;
    at = space_gap(range->first, first) / step;
    end = space_gap(range->first, last) / step;
    if (stride == step)
        return add_members(parameter, place, at, end, points);
    /* A stride that does not fit is longer than any range. */
    if (stride == UINT64_MAX)
        end = at;
    for (stride /= step;; at += stride) {
        r = add_members(parameter, place, at, at, points);
        if (r != 0 || stride > end - at)
            return r;
    }
}

static int find_points(const struct space_parameter *parameter, const struct space_range *wanted,
                       size_t n_wanted, struct intervals *points)
{
    struct place place = {0};

    for (size_t i = 0; i < parameter->n_ranges; i++) {
        const struct space_range *range = &parameter->ranges[i];
        uint64_t count = space_range_count(range);

        for (size_t j = 0; j < n_wanted; j++) {
            struct space_range asked = wanted[j];
            uint64_t rest = space_gap(asked.first, asked.last) % (uint64_t)asked.step;
            int r;

            asked.last = space_after(asked.last, 0 - rest);
            r = add_shared(parameter, range, &place, &asked, points);
            if (r != 0)
                return r;
        }
        place.value += count;
        place.point += divided_up(count, parameter->chunk);
    }
    intervals_sort(points);
    return 0;
}

/* Each point of the parameter's factor lies `outer` times in the space, `inner` tasks wide. */
static int spread(const struct space *space, const struct space_parameter *parameter,
                  const struct intervals *points, struct intervals *tasks)
{
    uint64_t inner = 1, outer = 1, length = parameter->n_points;

    for (uint32_t factor = 0; factor < space->n_factors; factor++) {
        if (factor < parameter->factor)
            outer *= factor_points(space, factor);
        if (factor > parameter->factor)
            inner *= factor_points(space, factor);
    }
    for (uint64_t turn = 0; points->n > 0 && turn < outer; turn++)
        for (size_t i = 0; i < points->n; i++) {
            uint64_t base = turn * length;
            int r = intervals_add(tasks, (base + points->items[i].first) * inner,
                                  (base + points->items[i].last + 1) * inner - 1);

            if (r != 0)
                return r;
        }
    return 0;
}

int space_find(const struct space *space, const char *name, const struct space_range *ranges,
               size_t n_ranges, struct space_interval **ret_intervals, size_t *ret_n_intervals)
{
    const struct space_parameter *parameter = parameter_find(space, name);
    struct intervals points = {0}, tasks = {0};
    int r;

    if (!parameter || parameter->type != SPACE_INT)
        return SPACE_E_UNKNOWN;
    for (size_t i = 0; i < n_ranges; i++)
        if (ranges[i].step <= 0 || ranges[i].first > ranges[i].last)
            return SPACE_E_RANGE;

    r = find_points(parameter, ranges, n_ranges, &points);
    if (r == 0)
        r = spread(space, parameter, &points, &tasks);
    free(points.items);
    if (r != 0) {
        free(tasks.items);
        return r;
    }
    *ret_intervals = tasks.items;
    *ret_n_intervals = tasks.n;
    return 0;
}
