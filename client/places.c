/* places.c - where each frame of a step stands, from what the broker lists.
 *
 * The idea: lay what is listed side by side; what lies between waits. The step's counts say whether
 * anything is missing from the lists.
 */
#include <client/look.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct span {
    uint64_t first, last;
    enum task_state state;
};

static int by_first(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

static size_t spans_listed(const Wl__StepRow *row, uint32_t step, Wl__TaskRow *const *live,
                           size_t n_live, struct span *spans)
{
    size_t n = 0, kept = 0;

    for (size_t i = 0; i < row->n_done_tasks; i++)
        spans[n++] = (struct span){row->done_tasks[i]->first, row->done_tasks[i]->last, TASK_DONE};
    for (size_t i = 0; i < row->n_failed_tasks; i++)
        spans[n++] =
            (struct span){row->failed_tasks[i]->first, row->failed_tasks[i]->last, TASK_FAILED};
    for (size_t i = 0; i < n_live; i++)
        if (live[i]->step == step)
            spans[n++] = (struct span){live[i]->task, live[i]->task,
                                       live[i]->state == TASK_RUNNING ? TASK_RUNNING : TASK_LEASED};
    qsort(spans, n, sizeof(*spans), by_first);
    for (size_t i = 0; i < n; i++) /* a task may have several leases */
        if (kept == 0 || spans[i].first != spans[kept - 1].first ||
            spans[i].state != spans[kept - 1].state)
            spans[kept++] = spans[i];
    return kept;
}

/* The gaps become spans of their own; 0 where two overlap, or lie past the end. */
static size_t spans_fill(struct span *spans, size_t n, uint64_t tasks)
{
    uint64_t next = 0;
    size_t all = n;

    for (size_t i = 0; i <= n; i++) {
        uint64_t first = i < n ? spans[i].first : tasks;

        if (first < next || (i < n && (spans[i].last < first || spans[i].last >= tasks)))
            return 0;
        if (first > next)
            spans[all++] = (struct span){next, first - 1, TASK_WAITING};
        next = i < n ? spans[i].last + 1 : next;
    }
    return all;
}

static bool complete(const Wl__StepRow *row, const struct span *spans, size_t n)
{
    uint64_t done = 0, failed = 0, running = 0, leased = 0, waiting = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t size = spans[i].last - spans[i].first + 1;

        *(spans[i].state == TASK_DONE      ? &done
          : spans[i].state == TASK_FAILED  ? &failed
          : spans[i].state == TASK_RUNNING ? &running
          : spans[i].state == TASK_LEASED  ? &leased
                                           : &waiting) += size;
    }
    return done == row->done && failed == row->failed && running == row->running &&
           leased == row->leased && waiting == row->ready + row->waiting;
}

static int frames_of(const struct space *space, const struct span *spans, size_t n,
                     enum task_state state, char **ret_text)
{
    _cleanup_(freep) Wl__TaskRange *ranges = calloc(n + 1, sizeof(*ranges));
    _cleanup_(freep) Wl__TaskRange **list = calloc(n + 1, sizeof(*list));
    size_t found = 0;

    if (!ranges || !list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (spans[i].state != state)
            continue;
        wl__task_range__init(&ranges[found]);
        ranges[found].first = spans[i].first;
        ranges[found].last = spans[i].last;
        list[found] = &ranges[found];
        found++;
    }
    return look_frames(space, list, found, true, ret_text);
}

/* Of what is done, what lies between the delivered: both lists are in order. */
static int frames_kept(const struct space *space, const Wl__StepRow *row, char **ret_text)
{
    size_t max = row->n_done_tasks + row->n_delivered_tasks, n = 0, at = 0;
    _cleanup_(freep) struct span *spans = calloc(max + 1, sizeof(*spans));

    if (!spans)
        return -ENOMEM;
    for (size_t i = 0; i < row->n_done_tasks; i++) {
        uint64_t next = row->done_tasks[i]->first, end = row->done_tasks[i]->last;

        for (; at < row->n_delivered_tasks && row->delivered_tasks[at]->last <= end; at++) {
            const Wl__TaskRange *delivered = row->delivered_tasks[at];

            if (delivered->first > next)
                spans[n++] = (struct span){next, delivered->first - 1, TASK_DONE};
            next = delivered->last + 1;
        }
        if (next <= end)
            spans[n++] = (struct span){next, end, TASK_DONE};
    }
    return frames_of(space, spans, n, TASK_DONE, ret_text);
}

int look_places(const struct space *space, const Wl__StepRow *row, uint32_t step,
                Wl__TaskRow *const *live, size_t n_live, struct look_places *ret_places)
{
    size_t listed = row->n_done_tasks + row->n_failed_tasks + n_live, n;
    _cleanup_(freep) struct span *spans = calloc(2 * listed + 1, sizeof(*spans));
    const char *frame = space_frame_name(space);
    struct look_places places = {0};

    *ret_places = places;
    if (!spans)
        return -ENOMEM;
    for (size_t i = 0; frame && i < space->n_parameters; i++)
        if (strcmp(space->parameters[i].name, frame) == 0 &&
            space->parameters[i].n_points != row->tasks)
            frame = NULL;
    n = spans_listed(row, step, live, n_live, spans);
    n = frame && space_size(space) == row->tasks ? spans_fill(spans, n, row->tasks) : 0;
    if (n == 0 || !complete(row, spans, n))
        return 0;
    int r = frames_of(space, spans, n, TASK_RUNNING, &places.running);
    if (r == 0)
        r = frames_of(space, spans, n, TASK_LEASED, &places.leased);
    if (r == 0)
        r = frames_of(space, spans, n, TASK_WAITING, &places.waiting);
    if (r == 0)
        r = frames_kept(space, row, &places.kept);
    if (r < 0)
        look_places_deinit(&places);
    *ret_places = places;
    return r;
}

void look_places_deinit(struct look_places *places)
{
    free(places->running);
    free(places->leased);
    free(places->waiting);
    free(places->kept);
    *places = (struct look_places){0};
}
