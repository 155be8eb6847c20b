/* Durable state changes here and nowhere else: live, right after a record was put out; on
 * recovery, when it is read back. So nothing here may look at leases, workers' state or the time.
 */
#include <broker/core/inner.h>

enum { FORGET_ONE_BY_ONE = 64 }; /* so few tasks are looked up, not looked for */

static bool counts(enum attempt_class class)
{
    return class != CLASS_OK && class != CLASS_CANCELLED && class != CLASS_LICENCE;
}

static void usage_add(struct usage *sum, const struct usage *usage)
{
    sum->wall_ns += usage->wall_ns;
    sum->cpu_ns += usage->cpu_ns;
    sum->bytes_in += usage->bytes_in;
    sum->bytes_out += usage->bytes_out;
    sum->card_ns += usage->card_ns;
    if (usage->memory_bytes > sum->memory_bytes)
        sum->memory_bytes = usage->memory_bytes;
}

static void keep_in_mind(struct worker **workers, uint32_t *n, struct worker *worker)
{
    for (uint32_t i = 0; i < *n; i++)
        if (workers[i] == worker)
            return;
    if (*n < FAILED_ON)
        workers[(*n)++] = worker;
}

static void apply_failed(struct core *core, struct step *step, const struct record *record,
                         struct worker *worker)
{
    const struct lease_id *lease = &record->attempt.lease;
    struct task *task = task_make(step, lease->task.index);
    struct past *past = task_past(task);

    past->recent[past->n_recent % TASK_RECENT].epoch = lease->epoch;
    past->recent[past->n_recent % TASK_RECENT].attempt = lease->attempt;
    past->n_recent++;
    past->last_class = record->attempt.class;
    past->noted = false;
    if (record->attempt.class == CLASS_LICENCE)
        past->licence_failures++;
    if (!counts(record->attempt.class))
        return;
    past->failures++;
    keep_in_mind(past->failed_on, &past->n_failed_on, worker);
    aside_failed(core, worker, task, record->attempt.class);
    step->job->attempts_failed++;
    /* A lost node says little about the job. */
    if (step->job->results > 0 || record->attempt.class == CLASS_WORKER_LOST)
        return;
    step->job->failed_first++;
    keep_in_mind(step->job->failed_first_on, &step->job->n_failed_first_on, worker);
}

static void apply_attempt(struct core *core, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    struct step *step = job_step(core, &record->job, lease->task);
    struct worker *worker = worker_of(&core->fleet, &record->attempt.worker);

    CHECK(step && worker);
    usage_add(&step->job->usage, &record->attempt.usage);
    if (record->attempt.class != CLASS_OK) {
        apply_failed(core, step, record, worker);
        return;
    }
    aside_succeeded(core, worker, task_find(step, lease->task.index));
    step->job->results++;
    step->job->last_result = record->sequence;
    step_move_one(step, lease->task.index, TASK_DONE);
    struct task *task = task_find(step, lease->task.index);

    if (task)
        task_forget(task);
}

static void forget_range(struct job *job, const struct task_range *range)
{
    if (range && range->last - range->first < FORGET_ONE_BY_ONE) {
        for (uint64_t i = range->first; i <= range->last; i++) {
            struct task *task = task_find(&job->steps[range->step], i);

            if (task)
                task_forget(task);
        }
        return;
    }
    list_each(link, &job->tasks)
    {
        struct task *task = container_of(link, struct task, of_job);

        if (!range || (task->step->number == range->step && task->index >= range->first &&
                       task->index <= range->last))
            task_forget(task);
    }
}

/* By a cancel. */
enum { KEPT = 1u << TASK_DONE | 1u << TASK_LEFT_OUT };

static void apply_state(struct job *job, const struct record *record)
{
    enum job_state before = job->state;

    job->state = record->change.state;
    job->reason = record->change.reason;
    if (job->state == JOB_ACTIVE)
        job->failed_first = job->n_failed_first_on = job->failed_tasks = 0;
    if (job->state == JOB_CANCELLED) {
        job->floor = record->change.floor;
        for (uint32_t i = 0; i < job->n_steps; i++)
            step_move_range(&job->steps[i], 0, job->steps[i].n_tasks - 1, TASK_CANCELLED, KEPT);
        forget_range(job, NULL);
    } else if (before == JOB_CANCELLED) {
        for (uint32_t i = 0; i < job->n_steps; i++) {
            step_move_range(&job->steps[i], 0, job->steps[i].n_tasks - 1, TASK_WAITING,
                            ~(1u << TASK_CANCELLED));
            step_wake(&job->steps[i], 0, job->steps[i].n_tasks - 1);
        }
    }
    sched_job_changed(job);
}

static void apply_edit(struct core *core, const struct record *record)
{
    struct job *job = job_find(core, &record->job);
    unsigned what = record->edit.what;

    CHECK(job && (record->edit.n_spaces == 0 || record->edit.n_spaces == job->n_steps));
    job_touch(job);
    if (what & EDIT_PRIORITY)
        job->priority = record->edit.priority;
    for (uint32_t i = 0; i < job->n_steps; i++)
        job->steps[i].priority = job->priority;
    if (what & EDIT_MAX_WORKERS)
        job->max_workers = record->edit.max_workers;
    if (what & EDIT_ARCHIVED)
        job->archived = record->edit.archived;
    if (record->edit.n_spaces > 0)
        job_grow(job, record->edit.spaces);
    sched_job_changed(job);
}

static void apply_change(struct core *core, const struct record *record)
{
    struct job *job = job_find(core, &record->job);
    const struct task_range *range = &record->change.range;

    CHECK(job);
    job_touch(job);
    if (record->change.change == CHANGE_STATE) {
        apply_state(job, record);
        return;
    }
    CHECK(range_valid(job, range));
    struct step *step = &job->steps[range->step];

    if (record->change.change == CHANGE_PARK) {
        step_move_one(step, range->first, TASK_FAILED);
        job->failed_tasks++;
        return;
    }
    floors_raise(&step->floors, range->first, range->last, record->change.floor);
    if (record->change.change == CHANGE_RETRY) {
        floors_raise(&step->retried, range->first, range->last, record->change.floor);
        step_move_range(step, range->first, range->last, TASK_WAITING, 0);
    } else if (record->change.change == CHANGE_LEAVE_OUT)
        step_move_range(step, range->first, range->last, TASK_LEFT_OUT, 1u << TASK_DONE);
    else
        step_move_range(step, range->first, range->last, TASK_CANCELLED, KEPT);
    forget_range(job, range);
    if (record->change.change == CHANGE_RETRY)
        step_wake(step, range->first, range->last);
}

static void apply_note(struct core *core, const struct record *record)
{
    struct step *step = job_step(core, &record->job, record->note.lease.task);

    CHECK(step);
    struct task *task = task_make(step, record->note.lease.task.index);

    struct past *past = task_past(task);

    past->noted = true;
    past->note.lease = record->note.lease;
    past->note.worker = worker_of(&core->fleet, &record->note.worker);
    past->note.gpu_mask = record->note.gpu_mask;
    CHECK(past->note.worker);
}

static void apply_tend(struct core *core, const struct record *record)
{
    struct fleet *fleet = &core->fleet;
    struct worker *worker = worker_of(fleet, &record->tend.worker);

    CHECK(worker);
    switch (record->tend.tend) {
    case TEND_DRAIN:
    case TEND_UNDRAIN:
        worker_set_willing(fleet, worker, record->tend.tend == TEND_DRAIN, worker->aside);
        return;
    case TEND_CLEAR:
        aside_forget(worker);
        return;
    case TEND_NOTE:
        free(worker->note);
        worker->note = *record->tend.text
                           ? memory_copy(record->tend.text, strlen(record->tend.text) + 1)
                           : NULL;
        return;
    case TEND_POOL: {
        const char *old = worker->pool;

        worker->pool = name_take(fleet, record->tend.text);
        name_give(fleet, old);
    }
        return;
    case TEND_ASIDE:
        worker->aside_times++;
        core->streaks = true;
        worker->aside_until_wall_s = record->tend.until_wall_s;
        return;
    }
}

bool range_valid(const struct job *job, const struct task_range *range)
{
    return range->step < job->n_steps && range->first <= range->last &&
           range->last < job->steps[range->step].n_tasks;
}

void apply_record(struct core *core, const struct record *record)
{
    struct job *job = NULL;

    CHECK(record->sequence > core->sequence);
    core->sequence = record->sequence;
    core->record_wall_s = record->wall_s;
    switch (record->kind) {
    case RECORD_JOB:
        job_new(core, record);
        break;
    case RECORD_ATTEMPT:
        apply_attempt(core, record);
        break;
    case RECORD_CHANGE:
        apply_change(core, record);
        break;
    case RECORD_EDIT:
        apply_edit(core, record);
        break;
    case RECORD_NOTE:
        apply_note(core, record);
        break;
    case RECORD_REQUEST: {
        struct request request = {
            .studio = record->request.studio,
            .id = record->request.request,
            .digest = record->request.digest,
            .code = record->request.code,
            .tasks = record->request.tasks,
            .job = record->job,
        };
        core_remember(core, &request);
        break;
    }
    case RECORD_TEND:
        apply_tend(core, record);
        return;
    case RECORD_DELIVERED:
        apply_delivered(core, record);
        break;
    case RECORD_FORGET:
        apply_forget(core, record);
        return;
    case RECORD_UNASK:
        apply_unask(core, record);
        return;
    case RECORD_CLOCK:
        core->skew_s += record->clock.ahead_s;
        return;
    }
    job = record->kind == RECORD_NOTE ? NULL : job_find(core, &record->job);
    if (!job)
        return;
    job->last_s = retain_now_s(core, record->wall_s);
    job_touch(job); /* also by an attempt that changes nothing else: it is kept for longer */
}
