/* What is run again when a person asks for some of it: those tasks, and what was made of them.
 */
#include <broker/core/inner.h>

/* A set of indexes as sorted, disjoint intervals. */
struct intervals {
    struct space_interval *items;
    size_t n, capacity;
};

static void intervals_add(struct intervals *set, uint64_t first, uint64_t last)
{
    size_t at = 0, end = set->n;

    if (set->n > 0 && set->items[set->n - 1].last < first)
        at = set->n; /* as a rule they come in order */
    while (at < end) {
        size_t middle = at + (end - at) / 2;

        if (set->items[middle].last < first)
            at = middle + 1;
        else
            end = middle;
    }
    for (end = at; end < set->n && set->items[end].first <= last; end++) {
        first = set->items[end].first < first ? set->items[end].first : first;
        last = set->items[end].last > last ? set->items[end].last : last;
    }
    MEMORY_GROW(set->items, set->n, set->capacity);
    memmove(set->items + at + 1, set->items + end, (set->n - end) * sizeof(*set->items));
    set->items[at] = (struct space_interval){.first = first, .last = last};
    set->n -= end - at;
    set->n++;
}

/* at..end but for what was left out and, where `cancelled` is not NULL, for what was cancelled. */
static void intervals_add_of(struct intervals *set, const struct bitmap *left_out,
                             const struct bitmap *cancelled, uint64_t at, uint64_t end)
{
    while (at <= end) {
        uint64_t a = cancelled ? bitmap_next(cancelled, at) : BITMAP_NONE;
        uint64_t b = bitmap_next(left_out, at), next = a < b ? a : b;

        if (next > at)
            intervals_add(set, at, next > end ? end : next - 1);
        if (next > end)
            return;
        at = bitmap_run_end(a < b ? cancelled : left_out, next) + 1;
    }
}

static void intervals_follow(struct intervals *set, const struct step *step, struct edge edge,
                             const struct intervals *others)
{
    for (size_t i = 0; i < others->n; i++) {
        uint64_t first = edge.per ? others->items[i].first / edge.per : 0;
        uint64_t last = edge.per ? others->items[i].last / edge.per : step->n_tasks - 1;

        intervals_add_of(set, &step->bits[TASK_LEFT_OUT], &step->bits[TASK_CANCELLED], first, last);
        if (edge.per == 0)
            return;
    }
}

/* What is new needs no retry, unless it was ready for something that is run again now. */
static uint64_t retry_interval(struct core *core, struct step *step, uint64_t first, uint64_t last,
                               uint64_t fresh)
{
    uint64_t from = first > fresh ? first : fresh;

    if (from <= last && (step->n_needs == 0 || step_count(step, from, last, TASK_READY) == 0)) {
        if (first >= fresh)
            return 0;
        last = fresh - 1;
    }
    change_range(core, step, CHANGE_RETRY, first, last);
    return last - first + 1;
}

/* Steps depend on earlier ones only, so one pass in order finds all there is. Whether that is no
 * more than one request may change; an edit has seen to it beforehand. */
static bool retry_find(const struct job *job, const struct task_range *ranges, size_t n_ranges,
                       bool edit, struct intervals *sets)
{
    size_t n = 0;

    for (size_t i = 0; i < n_ranges; i++) {
        struct intervals *set = &sets[ranges[i].step];
        const struct step *step = &job->steps[ranges[i].step];

        if (edit)
            intervals_add(set, ranges[i].first, ranges[i].last);
        else
            intervals_add_of(set, &step->bits[TASK_LEFT_OUT], NULL, ranges[i].first,
                             ranges[i].last);
    }
    for (uint32_t i = 0; i < job->n_steps && (edit || n <= RETRY_PIECES); i++) {
        const struct step *step = &job->steps[i];

        for (size_t j = 0; j < step->n_needs; j++)
            intervals_follow(&sets[i], step, step->needs[j], &sets[step->needs[j].step->number]);
        n += sets[i].n;
    }
    return edit || n <= RETRY_PIECES;
}

enum code retry_ranges(struct core *core, struct job *job, const struct task_range *ranges,
                       size_t n_ranges, const uint64_t *fresh, uint64_t *ret_tasks)
{
    struct intervals *sets = memory_new(job->n_steps * sizeof(*sets));
    bool fits = retry_find(job, ranges, n_ranges, fresh != NULL, sets);
    uint64_t n = 0;

    for (uint32_t i = 0; fits && i < job->n_steps; i++) {
        struct step *step = &job->steps[i];
        uint64_t end = fresh ? fresh[i] : step->n_tasks;

        for (size_t j = 0; j < sets[i].n; j++)
            n += retry_interval(core, step, sets[i].items[j].first, sets[i].items[j].last, end);
    }
    for (uint32_t i = 0; i < job->n_steps; i++)
        free(sets[i].items);
    free(sets);
    *ret_tasks = n;
    return fits ? CODE_OK : CODE_INVALID;
}
