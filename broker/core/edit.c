/* What is changed of a job while it runs, so that the rest is not disturbed.
 *
 * The idea: a task's index never changes its meaning. Frames are added at the end of a space, and
 * frames that are no longer wanted stay there, left out. So what runs, what is done and what a
 * lease names are the same after an edit as before; only a last chunk that was not full may get
 * more frames, and then it alone is run again.
 */
#include <broker/core/inner.h>

static bool dependencies_hold(const struct job *job, const struct space *spaces)
{
    for (uint32_t i = 0; i < job->n_steps; i++)
        for (size_t j = 0; j < job->steps[i].n_needs; j++) {
            struct edge edge = job->steps[i].needs[j];
            uint64_t other = space_size(&spaces[edge.step->number]);

            if (edge.per > 0 && (other + edge.per - 1) / edge.per != space_size(&spaces[i]))
                return false;
        }
    return true;
}

/* ret_same[step]: so many tasks mean what they meant. */
static enum code spaces_check(const struct job *job, const struct event *event, uint64_t *ret_same)
{
    const struct space *spaces = event->edit.spaces;
    uint64_t n_tasks = 0;

    for (uint32_t i = 0; i < job->n_steps; i++)
        ret_same[i] = job->steps[i].n_tasks;
    if (event->edit.n_spaces == 0)
        return CODE_OK;
    if (event->edit.n_spaces != job->n_steps)
        return CODE_INVALID;
    for (uint32_t i = 0; i < job->n_steps; i++) {
        /* Made from what the job was before another edit. */
        if (!space_extends(&job->steps[i].space, &spaces[i], &ret_same[i]))
            return CODE_STALE;
        n_tasks += space_size(&spaces[i]);
    }
    if (!dependencies_hold(job, spaces))
        return CODE_INVALID;
    return share_left(job->studio->n_tasks, job->core->n_tasks, n_tasks - job->n_tasks,
                      job->core->config.tasks_max)
               ? CODE_OK
               : CODE_BUSY;
}

static bool wanted_valid(const struct job *job, const struct event *event)
{
    const struct task_range *before = NULL;

    for (size_t i = 0; i < event->edit.n_wanted; i++) {
        const struct task_range *range = &event->edit.wanted[i];

        if (range->step >= job->n_steps || range->first > range->last)
            return false;
        const struct space *space = event->edit.n_spaces ? &event->edit.spaces[range->step]
                                                         : &job->steps[range->step].space;

        if (range->last >= space_size(space) ||
            (before && (before->step > range->step ||
                        (before->step == range->step && before->last >= range->first))))
            return false;
        before = range;
    }
    return event->edit.n_wanted > 0 && event->edit.n_wanted <= LIMIT_RANGES_EDIT;
}

static enum code edit_check(const struct job *job, const struct event *event, uint64_t *ret_same)
{
    unsigned what = event->edit.what;

    if ((what & EDIT_ARCHIVED) && event->edit.archived && !job_finished(job))
        return CODE_STATE;
    if (!(what & EDIT_FRAMES))
        return event->edit.n_spaces || event->edit.n_wanted ? CODE_INVALID : CODE_OK;
    if (job->archived || job->state == JOB_CANCELLED)
        return CODE_STATE;
    enum code code = spaces_check(job, event, ret_same);

    if (code == CODE_OK && !wanted_valid(job, event))
        return CODE_INVALID;
    return code == CODE_OK && !job_classes_left(job->core, job) ? CODE_BUSY : code;
}

static void edit_emit(struct core *core, struct job *job, const struct event *event)
{
    struct record record = {.kind = RECORD_EDIT, .job = job->id};

    record.edit.what = event->edit.what;
    record.edit.priority = event->edit.priority;
    record.edit.max_workers = event->edit.max_workers;
    record.edit.archived = event->edit.archived;
    record.edit.spaces = event->edit.spaces;
    record.edit.n_spaces = event->edit.n_spaces;
    record.edit.name = event->edit.name;
    record.edit.blob = event->edit.blob;
    record.edit.blob_size = event->edit.blob_size;
    core_emit(core, &record);
}

/* ---- frames ---- */

struct ranges {
    struct task_range *items;
    size_t n, capacity;
};

static void ranges_add(struct ranges *ranges, uint32_t step, uint64_t first, uint64_t last)
{
    MEMORY_GROW(ranges->items, ranges->n, ranges->capacity);
    ranges->items[ranges->n++] = (struct task_range){step, first, last};
}

/* Those of first..last that are in `state`. */
static void ranges_add_of(struct ranges *ranges, const struct step *step, uint64_t first,
                          uint64_t last, enum task_state state)
{
    const struct bitmap *bits = &step->bits[state];

    for (uint64_t at = bitmap_next(bits, first); at <= last; at = bitmap_next(bits, at)) {
        uint64_t end = bitmap_run_end(bits, at);

        end = end < last ? end : last;
        ranges_add(ranges, step->number, at, end);
        at = end + 1;
    }
}

/* What is wanted, and was left out or cancelled. Whether all of it, with what depends on it, is no
 * more than one request may change. */
static bool find_absent(const struct job *job, const struct event *event, struct ranges *ranges)
{
    for (size_t i = 0; i < event->edit.n_wanted; i++) {
        const struct task_range *range = &event->edit.wanted[i];
        const struct step *step = &job->steps[range->step];

        ranges_add_of(ranges, step, range->first, range->last, TASK_LEFT_OUT);
        ranges_add_of(ranges, step, range->first, range->last, TASK_CANCELLED);
    }
    return (ranges->n + event->edit.n_wanted) * job->n_steps <= RETRY_PIECES;
}

/* That, and what is new; a chunk that has grown is run again. */
static uint64_t take_in(struct core *core, struct job *job, struct ranges *ranges,
                        const uint64_t *same, const uint64_t *fresh)
{
    uint64_t n = 0, again = 0;

    for (size_t i = 0; i < ranges->n; i++)
        n += ranges->items[i].last - ranges->items[i].first + 1;
    for (uint32_t i = 0; i < job->n_steps; i++) {
        uint64_t last = job->steps[i].n_tasks - 1;

        if (same[i] <= last)
            ranges_add(ranges, i, same[i], last);
        n += last + 1 - fresh[i];
    }
    if (ranges->n > 0)
        CHECK(retry_ranges(core, job, ranges->items, ranges->n, fresh, &again) == CODE_OK);
    return n;
}

static uint64_t leave_out(struct core *core, struct step *step, uint64_t first, uint64_t last)
{
    uint64_t n = last - first + 1 - step_count(step, first, last, TASK_DONE) -
                 step_count(step, first, last, TASK_LEFT_OUT);

    if (n > 0)
        change_range(core, step, CHANGE_LEAVE_OUT, first, last);
    return n;
}

/* All that lies between what is wanted. */
static uint64_t leave_out_rest(struct core *core, struct job *job, const struct event *event)
{
    const struct task_range *range = event->edit.wanted, *end = range + event->edit.n_wanted;
    uint64_t n = 0;

    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];
        uint64_t at = 0;

        for (; range < end && range->step == i; range++) {
            if (range->first > at)
                n += leave_out(core, step, at, range->first - 1);
            at = range->last + 1;
        }
        if (at < step->n_tasks)
            n += leave_out(core, step, at, step->n_tasks - 1);
    }
    return n;
}

void on_edit(struct core *core, const struct event *event)
{
    struct studio_id studio = event->edit.studio;
    const struct request *known = request_find(core, studio, &event->edit.request);
    struct job *job = job_find(core, &event->edit.job);
    uint64_t same[LIMIT_STEPS], fresh[LIMIT_STEPS], tasks = 0;
    struct ranges absent = {0};
    enum code code = CODE_UNKNOWN;

    if (known) {
        request_repeat(core, event, known, &event->edit.digest);
        return;
    }
    if (job && (studio.value == 0 || studio.value == job->studio->id.value))
        code = edit_check(job, event, same);
    if (code == CODE_OK && !find_absent(job, event, &absent))
        code = CODE_INVALID;
    if (code == CODE_OK) {
        for (uint32_t i = 0; i < job->n_steps; i++)
            fresh[i] = job->steps[i].n_tasks;
        edit_emit(core, job, event);
        if (event->edit.what & EDIT_FRAMES) {
            tasks = take_in(core, job, &absent, same, fresh);
            tasks += leave_out_rest(core, job, event);
            job_stop_overtaken(core, job);
        }
        request_record(core, studio, &event->edit.request, &event->edit.digest, &job->id, tasks);
    }
    free(absent.items);
    core_reply(core, event, code, &event->edit.job, tasks, false);
}
