/* job.h: one function moves tasks between states, 64 at a time, so that raising the floor of ten
 * million costs what reading their bits costs.
 */
#include <broker/core/inner.h>

/* ---- tasks: the one table and the one function ---- */

#define TO(state) (1u << (state))
enum {
    TO_ANY_END = TO(TASK_DONE) | TO(TASK_FAILED) | TO(TASK_CANCELLED) | TO(TASK_LEFT_OUT),
};

/* DONE, FAILED, CANCELLED and LEFT_OUT are left by a retry only, and through WAITING (an edit takes
 * tasks in by a retry); a late result still counts for a parked task, because its floor is current.
 */
static const unsigned allowed[TASK_STATES_COUNT] = {
    [TASK_WAITING] = TO(TASK_READY) | TO(TASK_LEASED) | TO(TASK_RUNNING) | TO_ANY_END,
    [TASK_READY] = TO(TASK_WAITING) | TO(TASK_LEASED) | TO(TASK_RUNNING) | TO_ANY_END,
    [TASK_LEASED] = TO(TASK_WAITING) | TO(TASK_RUNNING) | TO_ANY_END,
    [TASK_RUNNING] = TO(TASK_WAITING) | TO(TASK_LEASED) | TO_ANY_END,
    [TASK_DONE] = TO(TASK_WAITING),
    [TASK_FAILED] = TO(TASK_WAITING) | TO(TASK_DONE) | TO(TASK_CANCELLED) | TO(TASK_LEFT_OUT),
    [TASK_CANCELLED] = TO(TASK_WAITING) | TO(TASK_LEFT_OUT),
    [TASK_LEFT_OUT] = TO(TASK_WAITING),
};

bool step_allowed(enum task_state from, enum task_state to)
{
    return (unsigned)from < TASK_STATES_COUNT && (unsigned)to < TASK_STATES_COUNT &&
           (allowed[from] & TO(to));
}

static uint64_t step_word(const struct step *step, uint64_t word, enum task_state state)
{
    if (state != TASK_WAITING)
        return bitmap_word(&step->bits[state], word);
    uint64_t taken = 0;

    for (unsigned s = TASK_WAITING + 1; s < TASK_STATES_COUNT; s++)
        taken |= bitmap_word(&step->bits[s], word);
    return ~taken & bitmap_mask(word, 0, step->n_tasks - 1);
}

/* What is left out is not waited for. */
static bool step_complete(const struct step *step)
{
    return step->n[TASK_DONE] + step->n[TASK_LEFT_OUT] == step->n_tasks;
}

static bool settled(enum task_state state)
{
    return state == TASK_DONE || state == TASK_LEFT_OUT;
}

static void step_wake_dependents(struct step *step, uint64_t word, uint64_t done)
{
    for (size_t i = 0; i < step->n_needed_by; i++) {
        struct edge edge = step->needed_by[i];

        if (edge.per == 0) {
            if (step_complete(step))
                step_wake(edge.step, 0, edge.step->n_tasks - 1);
            continue;
        }
        for (uint64_t rest = done; rest; rest &= rest - 1) {
            uint64_t index = (word * 64 + (unsigned)__builtin_ctzll(rest)) / edge.per;

            step_wake(edge.step, index, index);
        }
    }
}

static void step_undelay(struct step *step, uint64_t word, uint64_t mask)
{
    for (uint64_t rest = bitmap_word(&step->bits[TASK_WAITING], word) & mask; rest;
         rest &= rest - 1)
        task_undelay(task_find(step, word * 64 + (unsigned)__builtin_ctzll(rest)));
}

void step_move(struct step *step, uint64_t word, uint64_t mask, enum task_state from,
               enum task_state to)
{
    uint64_t n = bits_count(mask);
    bool had_ready = step->n[TASK_READY] > 0;

    CHECK(step_allowed(from, to));
    CHECK((step_word(step, word, from) & mask) == mask);
    if (mask == 0)
        return;
    if (from == TASK_WAITING)
        step_undelay(step, word, mask);
    else
        bitmap_clear(&step->bits[from], word, mask);
    if (to != TASK_WAITING)
        bitmap_set(&step->bits[to], word, mask);
    step->n[from] -= n;
    step->n[to] += n;
    step->job->n[from] -= n;
    step->job->n[to] += n;
    if (from == TASK_DONE) {
        step->job->n_delivered -= bits_count(bitmap_word(&step->delivered, word) & mask);
        bitmap_clear(&step->delivered, word, mask);
    }
    if (step->left_kept && settled(from))
        bitmap_set(&step->left, word, mask);
    if (step->left_kept && settled(to))
        bitmap_clear(&step->left, word, mask);
    job_touch(step->job);
    step_counted(step);
    if (had_ready != (step->n[TASK_READY] > 0))
        sched_step_changed(step);
    if (settled(to))
        step_wake_dependents(step, word, mask);
}

void step_counted(struct step *step)
{
    bool unfinished =
        step->n[TASK_WAITING] + step->n[TASK_READY] + step->n[TASK_LEASED] + step->n[TASK_RUNNING] >
        0;

    if (unfinished == step->unfinished)
        return;
    step->unfinished = unfinished;
    queue_use(step->queue, &step->job->core->fleet, unfinished);
}

void step_move_one(struct step *step, uint64_t index, enum task_state to)
{
    enum task_state from = step_state(step, index);

    if (from != to)
        step_move(step, index / 64, 1ULL << (index % 64), from, to);
}

void step_move_range(struct step *step, uint64_t first, uint64_t last, enum task_state to,
                     unsigned keep)
{
    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t mask = bitmap_mask(word, first, last);

        for (unsigned from = 0; from < TASK_STATES_COUNT; from++) {
            uint64_t moved =
                from == (unsigned)to || (keep & TO(from)) ? 0 : step_word(step, word, from) & mask;

            if (moved)
                step_move(step, word, moved, from, to);
        }
    }
}

enum task_state step_state(const struct step *step, uint64_t index)
{
    CHECK(index < step->n_tasks);
    for (unsigned state = TASK_WAITING + 1; state < TASK_STATES_COUNT; state++)
        if (bitmap_test(&step->bits[state], index))
            return state;
    return TASK_WAITING;
}

uint64_t step_count(const struct step *step, uint64_t first, uint64_t last, enum task_state state)
{
    uint64_t n = 0;

    for (uint64_t word = first / 64; word <= last / 64; word++)
        n += bits_count(step_word(step, word, state) & bitmap_mask(word, first, last));
    return n;
}

uint64_t step_deliver(struct step *step, uint64_t first, uint64_t last, uint32_t floor, bool mark)
{
    uint64_t n = 0;

    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t found = bitmap_word(&step->bits[TASK_DONE], word) &
                         ~bitmap_word(&step->delivered, word) & bitmap_mask(word, first, last);

        if (found && floors_highest(&step->retried, word * 64, word * 64 + 63) > floor)
            for (uint64_t rest = found; rest; rest &= rest - 1)
                if (floors_at(&step->retried, word * 64 + (unsigned)__builtin_ctzll(rest)) > floor)
                    found &= ~(rest & -rest);
        if (found && mark)
            bitmap_set(&step->delivered, word, found);
        n += bits_count(found);
    }
    if (mark)
        step->job->n_delivered += n;
    return n;
}

uint32_t step_floor(const struct step *step, uint64_t index)
{
    uint32_t own = floors_at(&step->floors, index);

    return own > step->job->floor ? own : step->job->floor;
}

/* ---- dependencies: arithmetic ---- */

bool step_open(const struct step *step, uint64_t index)
{
    for (size_t i = 0; i < step->n_needs; i++) {
        const struct step *other = step->needs[i].step;
        uint64_t per = step->needs[i].per;

        if (per == 0 && !step_complete(other))
            return false;
        if (per == 0)
            continue;
        uint64_t last = index * per + per - 1;

        if (bitmap_next(&other->left, index * per) <= last)
            return false;
    }
    return true;
}

void step_wake(struct step *step, uint64_t first, uint64_t last)
{
    bool each = false;

    for (size_t i = 0; i < step->n_needs; i++) {
        const struct step *other = step->needs[i].step;

        if (step->needs[i].per == 0 && !step_complete(other))
            return;
        each |= step->needs[i].per > 0;
    }
    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t waiting = step_word(step, word, TASK_WAITING) &
                           ~bitmap_word(&step->bits[TASK_WAITING], word) &
                           bitmap_mask(word, first, last);
        uint64_t woken = each ? 0 : waiting;

        for (uint64_t rest = each ? waiting : 0; rest; rest &= rest - 1)
            if (step_open(step, word * 64 + (unsigned)__builtin_ctzll(rest)))
                woken |= rest & -rest;
        if (woken)
            step_move(step, word, woken, TASK_WAITING, TASK_READY);
    }
}

/* ---- tasks out of the ordinary ---- */

uint64_t task_hash(const struct step *step, uint64_t index)
{
    return hash_near(hash_number(step->job->sequence, step->number), index);
}

static bool task_is(const void *value, const void *key)
{
    const struct task *task = value, *wanted = key;

    return task->index == wanted->index && task->step == wanted->step;
}

static const struct past nothing;

struct past *task_past(struct task *task)
{
    if (task->past == &nothing)
        task->past = pool_take(&task->step->job->core->past_pool);
    return (struct past *)task->past;
}

static void past_drop(struct core *core, struct task *task)
{
    if (task->past != &nothing)
        pool_give(&core->past_pool, (struct past *)task->past);
    task->past = &nothing;
}

struct task *task_find(const struct step *step, uint64_t index)
{
    struct task key = {.step = (struct step *)step, .index = index};

    return table_find(&step->job->core->tasks, task_hash(step, index), task_is, &key);
}

struct task *task_make(struct step *step, uint64_t index)
{
    struct core *core = step->job->core;
    struct task *task = task_find(step, index);

    if (task)
        return task;
    task = pool_take(&core->task_pool);
    task->step = step;
    task->index = index;
    task->past = &nothing;
    task->delay_position = HEAP_NONE;
    link_init(&task->leases);
    link_init(&task->delayed);
    link_last(&step->job->tasks, &task->of_job);
    table_insert(&core->tasks, task_hash(step, index), task);
    return task;
}

void task_drop_if_ordinary(struct task *task)
{
    struct core *core = task->step->job->core;

    if (!link_alone(&task->leases) || task->past->n_recent || task->past->noted || task->delay ||
        task->avoid || task->past->n_full)
        return;
    past_drop(core, task);
    link_remove(&task->of_job);
    table_remove(&core->tasks, task_hash(task->step, task->index), task);
    pool_give(&core->task_pool, task);
}

void task_forget(struct task *task)
{
    task_undelay(task);
    past_drop(task->step->job->core, task);
    task->avoid = NULL;
    task_drop_if_ordinary(task);
}

void task_delay(struct task *task, enum delay delay, int64_t until_ns)
{
    struct core *core = task->step->job->core;

    CHECK(!task->delay && step_state(task->step, task->index) == TASK_WAITING);
    task->delay = delay;
    task->delay_until_ns = until_ns;
    heap_add(&core->delays, task);
    bitmap_set(&task->step->bits[TASK_WAITING], task->index / 64, 1ULL << (task->index % 64));
    if (delay == DELAY_OTHER_WORKER) {
        link_last(&task->step->demand->delayed, &task->delayed);
        if (link_alone(&task->step->demand->wanting))
            link_last(&core->wanting, &task->step->demand->wanting);
        sched_demand_dirty(core, task->step->demand);
    }
}

void task_undelay(struct task *task)
{
    if (!task->delay)
        return;
    heap_remove(&task->step->job->core->delays, task);
    link_remove(&task->delayed);
    if (link_alone(&task->step->demand->delayed))
        link_remove(&task->step->demand->wanting);
    bitmap_clear(&task->step->bits[TASK_WAITING], task->index / 64, 1ULL << (task->index % 64));
    task->delay = DELAY_NONE;
}

bool task_avoids(const struct task *task, const struct worker *worker)
{
    for (uint32_t i = 0; i < task->past->n_failed_on; i++)
        if (task->past->failed_on[i] == worker)
            return true;
    return task->avoid == worker;
}

/* ---- jobs ---- */

static void step_init(struct job *job, uint32_t number, struct step_spec *spec)
{
    struct step *step = &job->steps[number];

    *step = (struct step){.job = job,
                          .sequence = job->sequence,
                          .priority = job->priority,
                          .number = number,
                          .space = *spec->space,
                          .n_tasks = space_size(spec->space)};
    space_init(spec->space); /* moved: the spec keeps an empty one */
    step->queue_position = HEAP_NONE;
    step->demand = demand_of(&job->core->fleet, spec);
    if (!step->demand->queues.less)
        demand_init_queues(step->demand);
    step->queue = studio_queue(job->studio, step->demand);
    for (unsigned state = 0; state < TASK_STATES_COUNT; state++)
        bitmap_init(&step->bits[state], step->n_tasks);
    bitmap_init(&step->left, step->n_tasks);
    bitmap_init(&step->delivered, step->n_tasks);
    step->n[TASK_WAITING] = step->n_tasks;
    step_counted(step);
    step->needs = memory_new(spec->n_dependencies * sizeof(*step->needs));
    for (size_t i = 0; i < spec->n_dependencies; i++) {
        struct step *other = &job->steps[spec->dependencies[i].step];
        uint32_t per = spec->dependencies[i].per;

        if (step->depth <= other->depth)
            step->depth = other->depth + 1;
        step->needs[step->n_needs++] = (struct edge){.step = other, .per = per};
        MEMORY_GROW(other->needed_by, other->n_needed_by, other->needed_by_capacity);
        other->needed_by[other->n_needed_by++] = (struct edge){.step = step, .per = per};
        if (per > 0 && !other->left_kept) {
            other->left_kept = true;
            for (uint64_t word = 0; word < bitmap_words(other->n_tasks); word++)
                bitmap_set(&other->left, word, bitmap_mask(word, 0, other->n_tasks - 1));
        }
    }
}

static uint64_t job_hash(const struct core *core, const struct job_id *id)
{
    return hash_bytes(core->config.seed ^ 1, id->bytes, sizeof(id->bytes));
}

struct job *job_new(struct core *core, const struct record *record)
{
    const struct job_spec *spec = record->submit.spec;
    struct job *job = memory_new(sizeof(*job));

    job->core = core;
    job->id = spec->job;
    job->studio = studio_of(core, spec->studio);
    CHECK(job->studio);
    job->sequence = record->sequence;
    job->submitted_wall_s = record->wall_s;
    job->priority = spec->priority;
    job->max_workers = spec->max_workers;
    link_init(&job->tasks);
    link_init(&job->leases);
    link_init(&job->touched);
    job->until_position = HEAP_NONE;
    job->n_steps = (uint32_t)spec->n_steps;
    job->steps = memory_new(spec->n_steps * sizeof(*job->steps));
    for (uint32_t i = 0; i < job->n_steps; i++) {
        step_init(job, i, &spec->steps[i]);
        job->n_tasks += job->steps[i].n_tasks;
    }
    job->n[TASK_WAITING] = job->n_tasks;
    core->n_tasks += job->n_tasks;
    job->studio->n_tasks += job->n_tasks;
    MEMORY_GROW(core->jobs, core->n_jobs, core->jobs_capacity);
    core->jobs[core->n_jobs++] = job;
    MEMORY_GROW(job->studio->jobs, job->studio->n_jobs, job->studio->jobs_capacity);
    job->studio->jobs[job->studio->n_jobs++] = job;
    table_insert(&core->jobs_by_id, job_hash(core, &job->id), job);
    for (uint32_t i = 0; i < job->n_steps; i++)
        step_wake(&job->steps[i], 0, job->steps[i].n_tasks - 1);
    job_touch(job);
    return job;
}

static void step_grow(struct step *step, uint64_t n_tasks)
{
    uint64_t before = step->n_tasks, more = n_tasks - before;

    if (more == 0)
        return;
    for (unsigned state = 0; state < TASK_STATES_COUNT; state++)
        bitmap_grow(&step->bits[state], n_tasks);
    bitmap_grow(&step->left, n_tasks);
    bitmap_grow(&step->delivered, n_tasks);
    for (uint64_t word = before / 64; step->left_kept && word <= (n_tasks - 1) / 64; word++)
        bitmap_set(&step->left, word, bitmap_mask(word, before, n_tasks - 1));
    step->n_tasks = n_tasks;
    step->n[TASK_WAITING] += more;
    step->job->n_tasks += more;
    step->job->n[TASK_WAITING] += more;
    step->job->studio->n_tasks += more;
    step->job->core->n_tasks += more;
    step_counted(step);
}

void job_grow(struct job *job, struct space *spaces)
{
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];

        step_grow(step, space_size(&spaces[i]));
        space_deinit(&step->space);
        step->space = spaces[i];
        space_init(&spaces[i]);
    }
    for (uint32_t i = 0; i < job->n_steps; i++)
        step_wake(&job->steps[i], 0, job->steps[i].n_tasks - 1);
}

bool job_finished(const struct job *job)
{
    uint64_t over = job->n[TASK_FAILED] + job->n[TASK_CANCELLED];

    if (job->state == JOB_CANCELLED ||
        job->n[TASK_DONE] + job->n[TASK_LEFT_OUT] + over == job->n_tasks)
        return true;
    if (job->state == JOB_PAUSED || over == 0 ||
        job->n[TASK_READY] + job->n[TASK_LEASED] + job->n[TASK_RUNNING] > 0)
        return false;
    /* What waits for a moment will run; what waits for tasks waits for those that are over. */
    for (uint32_t i = 0; i < job->n_steps; i++)
        if (bitmap_next(&job->steps[i].bits[TASK_WAITING], 0) != BITMAP_NONE)
            return false;
    return true;
}

void job_free(struct job *job)
{
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];

        for (unsigned state = 0; state < TASK_STATES_COUNT; state++)
            bitmap_deinit(&step->bits[state]);
        bitmap_deinit(&step->left);
        bitmap_deinit(&step->delivered);
        floors_deinit(&step->floors);
        floors_deinit(&step->retried);
        space_deinit(&step->space);
        free(step->needs);
        free(step->needed_by);
    }
    free(job->steps);
    free(job);
}

/* Jobs lie by sequence. */
static void jobs_remove(struct job **jobs, size_t *n, const struct job *job)
{
    size_t low = 0, high = *n;

    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;

        if (jobs[middle]->sequence <= job->sequence)
            low = middle;
        else
            high = middle;
    }
    CHECK(*n > 0 && jobs[low] == job);
    memmove(jobs + low, jobs + low + 1, (--*n - low) * sizeof(*jobs));
}

void job_forget(struct core *core, struct job *job)
{
    job->state = JOB_CANCELLED; /* so that none of its steps is in a queue */
    sched_job_changed(job);
    list_each(link, &job->leases) lease_free(core, container_of(link, struct lease, of_job));
    list_each(link, &job->tasks) task_forget(container_of(link, struct task, of_job));
    for (uint32_t i = 0; i < job->n_steps; i++)
        if (job->steps[i].unfinished)
            queue_use(job->steps[i].queue, &core->fleet, false);
    core->n_tasks -= job->n_tasks;
    job->studio->n_tasks -= job->n_tasks;
    jobs_remove(core->jobs, &core->n_jobs, job);
    jobs_remove(job->studio->jobs, &job->studio->n_jobs, job);
    table_remove(&core->jobs_by_id, job_hash(core, &job->id), job);
    if (job->until_position != HEAP_NONE)
        heap_remove(&core->expiries, job);
    link_remove(&job->touched);
    job_free(job);
}

static bool job_is(const void *value, const void *key)
{
    return memcmp(&((const struct job *)value)->id, key, sizeof(struct job_id)) == 0;
}

struct job *job_find(const struct core *core, const struct job_id *id)
{
    return table_find(&core->jobs_by_id, job_hash(core, id), job_is, id);
}

void job_touch(struct job *job)
{
    if (link_alone(&job->touched))
        link_last(&job->core->touched, &job->touched);
}

struct step *job_step(const struct core *core, const struct job_id *id, struct task_id task)
{
    struct job *job = job_find(core, id);

    if (!job || task.step >= job->n_steps || task.index >= job->steps[task.step].n_tasks)
        return NULL;
    return &job->steps[task.step];
}
