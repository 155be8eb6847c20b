/* core.h's questions: answered from counters, bitmaps and short lists, never by a walk over tasks.
 */
#include <broker/core/inner.h>

static void counts_fill(const uint64_t *n, uint64_t n_tasks, struct job_counts *ret_counts)
{
    *ret_counts = (struct job_counts){
        .tasks = n_tasks - n[TASK_LEFT_OUT],
        .waiting = n[TASK_WAITING],
        .ready = n[TASK_READY],
        .leased = n[TASK_LEASED],
        .running = n[TASK_RUNNING],
        .done = n[TASK_DONE],
        .failed = n[TASK_FAILED],
        .cancelled = n[TASK_CANCELLED],
    };
}

static void job_fill(const struct job *job, struct job_view *ret_view)
{
    *ret_view = (struct job_view){
        .job = job->id,
        .studio = job->studio->id,
        .sequence = job->sequence,
        .submitted_wall_s = job->submitted_wall_s,
        .priority = job->priority,
        .max_workers = job->max_workers,
        .archived = job->archived,
        .used_up = job->studio->held && job->state == JOB_ACTIVE && !job_finished(job),
        .state = job->state,
        .reason = job->reason,
        .n_steps = job->n_steps,
        .last_result = job->last_result,
        .attempts_failed = job->attempts_failed,
        .usage = job->usage,
        .delivered = job->n_delivered,
        .until_wall_s = job->until_position == HEAP_NONE ? 0 : job->until_s + job->core->skew_s,
    };
    counts_fill(job->n, job->n_tasks, &ret_view->counts);
}

bool core_job(const struct core *core, const struct job_id *id, struct job_view *ret_view)
{
    const struct job *job = job_find(core, id);

    if (job)
        job_fill(job, ret_view);
    return job != NULL;
}

bool core_job_before(const struct core *core, struct studio_id id, uint64_t before,
                     struct job_view *ret_view)
{
    const struct studio *studio = id.value ? studio_find(core, id) : NULL;
    struct job *const *jobs = id.value ? (studio ? studio->jobs : NULL) : core->jobs;
    size_t low = 0, high = id.value ? (studio ? studio->n_jobs : 0) : core->n_jobs;

    while (before > 0 && low < high) { /* the first that is not below `before` */
        size_t middle = low + (high - low) / 2;

        if (jobs[middle]->sequence < before)
            low = middle + 1;
        else
            high = middle;
    }
    if (high == 0)
        return false;
    job_fill(jobs[high - 1], ret_view);
    return true;
}

static const struct step *step_at(const struct core *core, const struct job_id *id, uint32_t number)
{
    const struct job *job = job_find(core, id);

    return job && number < job->n_steps ? &job->steps[number] : NULL;
}

bool core_step_counts(const struct core *core, const struct job_id *id, uint32_t number,
                      struct job_counts *ret_counts)
{
    const struct step *step = step_at(core, id, number);

    if (step)
        counts_fill(step->n, step->n_tasks, ret_counts);
    return step != NULL;
}

const struct space *core_step_space(const struct core *core, const struct job_id *id,
                                    uint32_t number)
{
    const struct step *step = step_at(core, id, number);

    return step ? &step->space : NULL;
}

bool core_task(const struct core *core, const struct job_id *id, struct task_id task,
               enum task_state *ret_state, uint32_t *ret_floor)
{
    const struct step *step = job_step(core, id, task);

    if (!step)
        return false;
    *ret_state = step_state(step, task.index);
    *ret_floor = step_floor(step, task.index);
    return true;
}

bool core_finished(const struct core *core, const struct job_id *id)
{
    const struct job *job = job_find(core, id);

    return job && job_finished(job);
}

static size_t ranges_of(const struct bitmap *bits, uint32_t number, uint64_t from,
                        struct task_range *ret_ranges, size_t max)
{
    size_t n = 0;

    for (uint64_t first = bitmap_next(bits, from); first != BITMAP_NONE && n < max; n++) {
        uint64_t last = bitmap_run_end(bits, first);

        ret_ranges[n] = (struct task_range){.step = number, .first = first, .last = last};
        first = bitmap_next(bits, last + 1);
    }
    return n;
}

size_t core_task_ranges(const struct core *core, const struct job_id *id, uint32_t number,
                        enum task_state state, uint64_t from, struct task_range *ret_ranges,
                        size_t max)
{
    const struct step *step = step_at(core, id, number);

    if (!step || state == TASK_WAITING || (unsigned)state >= TASK_STATES_COUNT)
        return 0;
    return ranges_of(&step->bits[state], number, from, ret_ranges, max);
}

size_t core_delivered_ranges(const struct core *core, const struct job_id *id, uint32_t number,
                             struct task_range *ret_ranges, size_t max)
{
    const struct step *step = step_at(core, id, number);

    return step ? ranges_of(&step->delivered, number, 0, ret_ranges, max) : 0;
}

/* ---- leases and workers ---- */

static void lease_fill(const struct lease *lease, struct lease_view *ret_view)
{
    *ret_view = (struct lease_view){
        .lease = lease->id,
        .worker = lease->worker->id,
        .started = lease->started,
        .permille = lease->permille,
        .started_wall_s = lease->started_wall_s,
    };
}

size_t core_job_leases(const struct core *core, const struct job_id *id,
                       struct lease_view *ret_views, size_t max)
{
    const struct job *job = job_find(core, id);
    size_t n = 0;

    if (!job)
        return 0;
    list_each(link, &job->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_job);

        if (n < max && lease_active(lease))
            lease_fill(lease, &ret_views[n++]);
    }
    return n;
}

bool core_lease(const struct core *core, const struct lease_id *id, struct lease_view *ret_view)
{
    const struct lease *lease = lease_find(core, id);

    if (lease)
        lease_fill(lease, ret_view);
    return lease != NULL;
}

static void worker_fill(const struct worker *worker, struct worker_view *ret_view)
{
    *ret_view = (struct worker_view){
        .worker = worker->id,
        .key = worker->key,
        .connected = worker->connected,
        .listed = worker->connected && worker->listed,
        .no_room = worker->connected && worker->no_room,
        .session = worker->session,
        .seen_ns = worker->seen_ns,
        .done = worker->done,
        .failed = worker->failed,
        .drained = worker->drained,
        .aside = worker->aside,
        .aside_until_wall_s = worker->aside_until_wall_s,
        .failed_in_a_row = worker->streak.tasks,
        .pool = worker->pool,
        .note = worker->note ? worker->note : "",
    };
    list_each(link, &worker->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_worker);

        ret_view->running += lease->started && !lease->lapsed;
        ret_view->queued += !lease->started && !lease->lapsed;
    }
}

bool core_worker(const struct core *core, struct worker_id id, struct worker_view *ret_view)
{
    const struct worker *worker = core_worker_at(core, id);

    if (worker)
        worker_fill(worker, ret_view);
    return worker != NULL;
}

bool core_worker_by_key(const struct core *core, const struct worker_key *key,
                        struct worker_view *ret_view)
{
    const struct worker *worker = worker_find(&core->fleet, key);

    if (worker)
        worker_fill(worker, ret_view);
    return worker != NULL;
}

uint32_t core_workers_count(const struct core *core)
{
    return (uint32_t)core->fleet.n_workers;
}

bool core_step_wants(const struct core *core, const struct job_id *id, uint32_t number,
                     const char *prefix, struct offered *ret_wanted)
{
    const struct step *step = step_at(core, id, number);

    for (size_t i = 0; step && i < step->demand->n_sets; i++) {
        const struct name_set *set = &step->demand->sets[i];

        if (strncmp(set->name, prefix, strlen(prefix)) != 0)
            continue;
        *ret_wanted = (struct offered){set->name, set->n_any_of == 1 ? set->any_of[0] : NULL};
        return true;
    }
    return false;
}

static bool offered_before(const struct offered *offered, size_t n, const struct offered *one)
{
    for (size_t i = 0; i < n; i++)
        if (offered[i].name == one->name && offered[i].value == one->value)
            return true; /* names and values are interned */
    return false;
}

size_t core_offered(const struct core *core, const char *prefix, struct offered *ret_offered,
                    size_t max)
{
    size_t n = 0;

    list_each(link, &core->fleet.shapes)
    {
        const struct shape *shape = container_of(link, struct shape, link);

        for (size_t i = 0; shape->connected > 0 && i < shape->n_sets; i++) {
            const struct name_set *set = &shape->sets[i];

            if (strncmp(set->name, prefix, strlen(prefix)) != 0)
                continue;
            for (size_t k = 0; k < set->n_any_of && n < max; k++) {
                struct offered one = {set->name, set->any_of[k]};

                if (!offered_before(ret_offered, n, &one))
                    ret_offered[n++] = one;
            }
        }
    }
    return n;
}
