/* What people do to jobs. Each verb first puts out its records, which change the tasks, and then
 * stops those leases whose floor is over.
 */
#include <broker/core/inner.h>

static void emit_state(struct core *core, struct job *job, enum job_state state,
                       enum pause_reason reason, uint32_t floor)
{
    struct record record = {.kind = RECORD_CHANGE, .job = job->id};

    record.change.change = CHANGE_STATE;
    record.change.state = state;
    record.change.reason = reason;
    record.change.floor = floor;
    core_emit(core, &record);
}

void change_range(struct core *core, struct step *step, enum change_kind change, uint64_t first,
                  uint64_t last)
{
    struct record record = {.kind = RECORD_CHANGE, .job = step->job->id};
    uint32_t floor = floors_highest(&step->floors, first, last);

    record.change.change = change;
    record.change.range = (struct task_range){step->number, first, last};
    record.change.floor = (floor > step->job->floor ? floor : step->job->floor) + 1;
    core_emit(core, &record);
}

void job_stop_overtaken(struct core *core, struct job *job)
{
    list_each(link, &job->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_job);

        if (!lease->stopping && lease->id.floor < step_floor(lease->step, lease->id.task.index))
            lease_stop(core, lease);
    }
}

void job_take_back(struct core *core, struct job *job)
{
    list_each(link, &job->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_job);

        if (lease->stopping || lease->started || !lease->before || lease->asked_back)
            continue;
        lease_ask_back(core, lease);
    }
}

static void pause_job(struct core *core, struct job *job, enum pause_reason reason)
{
    emit_state(core, job, JOB_PAUSED, reason, job->floor);
    job_take_back(core, job);
}

/* Counted tasks that are neither done nor given up. */
static uint64_t job_remaining(const struct job *job)
{
    return job->n_tasks - job->n[TASK_DONE] - job->n[TASK_FAILED] - job->n[TASK_CANCELLED] -
           job->n[TASK_LEFT_OUT];
}

/* One broken worker is not a broken job: as with a task, it takes several, where there are. */
static bool job_failed_first(struct core *core, const struct step *step)
{
    const struct job *job = step->job;
    uint32_t limit = core->config.job_failed_first, on = job->n_failed_first_on;

    return job->results == 0 && job->failed_first >= limit &&
           (on >= limit || on >= FAILED_ON ||
            !fleet_able_exceeds(&core->fleet, step->demand, on, true));
}

void job_pause_if_failing(struct core *core, struct step *step)
{
    struct job *job = step->job;

    if (job->state != JOB_ACTIVE || job_remaining(job) == 0)
        return;
    if (job->failed_tasks >= core->config.job_failed)
        pause_job(core, job, REASON_FAILED_MANY);
    else if (job_failed_first(core, step))
        pause_job(core, job, REASON_FAILED_FIRST);
}

/* ---- cancel ---- */

static uint64_t cancel_job(struct core *core, struct job *job)
{
    uint64_t n = job_remaining(job) + job->n[TASK_FAILED];
    uint32_t floor = job->floor;

    if (job->state == JOB_CANCELLED || n == 0)
        return 0;
    for (uint32_t i = 0; i < job->n_steps; i++) {
        uint32_t highest = floors_highest(&job->steps[i].floors, 0, job->steps[i].n_tasks - 1);

        floor = highest > floor ? highest : floor;
    }
    emit_state(core, job, JOB_CANCELLED, REASON_NONE, floor + 1);
    return n;
}

static uint64_t cancel_range(struct core *core, struct job *job, const struct task_range *range)
{
    struct step *step = &job->steps[range->step];
    uint64_t n = range->last - range->first + 1 -
                 step_count(step, range->first, range->last, TASK_DONE) -
                 step_count(step, range->first, range->last, TASK_CANCELLED) -
                 step_count(step, range->first, range->last, TASK_LEFT_OUT);

    if (n > 0)
        change_range(core, step, CHANGE_CANCEL, range->first, range->last);
    return n;
}

/* A cancelled job becomes one whose tasks are, so that some of them can be taken up again. */
static void cancel_by_task(struct core *core, struct job *job)
{
    emit_state(core, job, JOB_ACTIVE, REASON_NONE, job->floor);
    for (uint32_t i = 0; i < job->n_steps; i++)
        change_range(core, &job->steps[i], CHANGE_CANCEL, 0, job->steps[i].n_tasks - 1);
}

/* ---- retry ---- */

/* Parked tasks, and, where the whole job was cancelled, that. */
static uint64_t retry_failed(struct core *core, struct job *job)
{
    uint64_t n = job->state == JOB_CANCELLED ? job->n[TASK_CANCELLED] : 0;

    if (job->state == JOB_CANCELLED)
        emit_state(core, job, JOB_ACTIVE, REASON_NONE, job->floor);
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];
        uint64_t first = bitmap_next(&step->bits[TASK_FAILED], 0);

        for (; first != BITMAP_NONE; first = bitmap_next(&step->bits[TASK_FAILED], first)) {
            uint64_t last = bitmap_run_end(&step->bits[TASK_FAILED], first);

            n += last - first + 1;
            change_range(core, step, CHANGE_RETRY, first, last);
        }
    }
    return n;
}

/* ---- the event ---- */

static enum code verb_ranges(struct core *core, struct job *job, const struct event *event,
                             uint64_t *ret_tasks)
{
    uint64_t n = 0;

    if (event->verb.verb == VERB_RETRY && job->state == JOB_CANCELLED)
        cancel_by_task(core, job);
    if (event->verb.verb == VERB_RETRY)
        return retry_ranges(core, job, event->verb.ranges, event->verb.n_ranges, NULL, ret_tasks);
    for (size_t i = 0; event->verb.verb == VERB_CANCEL && i < event->verb.n_ranges; i++)
        n += cancel_range(core, job, &event->verb.ranges[i]);
    *ret_tasks = n;
    return CODE_OK;
}

static enum code verb_pause(struct core *core, struct job *job, bool pause)
{
    if (job->state == JOB_CANCELLED)
        return CODE_STATE;
    if (pause && job_remaining(job) == 0)
        return CODE_OK; /* it is over: nothing changes */
    if (pause && (job->state != JOB_PAUSED || job->reason != REASON_USER))
        pause_job(core, job, REASON_USER);
    else if (!pause && job->state == JOB_PAUSED)
        emit_state(core, job, JOB_ACTIVE, REASON_NONE, job->floor);
    return CODE_OK;
}

/* Its finished steps may want their classes back. */
bool job_classes_left(const struct core *core, const struct job *job)
{
    uint64_t more = 0;

    for (uint32_t i = 0; i < job->n_steps; i++)
        more += !job->steps[i].unfinished && job->steps[i].queue->uses == 0;
    return share_left(job->studio->n_classes, demands_in_use(&core->fleet), more,
                      core->config.classes_max);
}

static enum code verb_run(struct core *core, struct job *job, const struct event *event,
                          uint64_t *ret_tasks)
{
    enum code code = CODE_OK;

    switch (event->verb.verb) {
    case VERB_PAUSE:
    case VERB_RESUME:
        *ret_tasks = job_remaining(job);
        return verb_pause(core, job, event->verb.verb == VERB_PAUSE);
    case VERB_CANCEL:
    case VERB_RETRY:
        if (event->verb.verb == VERB_RETRY && !job_classes_left(core, job))
            return CODE_BUSY;
        if (event->verb.n_ranges > 0)
            code = verb_ranges(core, job, event, ret_tasks);
        else
            *ret_tasks =
                event->verb.verb == VERB_CANCEL ? cancel_job(core, job) : retry_failed(core, job);
        /* Asked to run again, a job that had paused itself over its failures does. */
        if (code == CODE_OK && event->verb.verb == VERB_RETRY && job->state == JOB_PAUSED &&
            job->reason != REASON_USER)
            emit_state(core, job, JOB_ACTIVE, REASON_NONE, job->floor);
        job_stop_overtaken(core, job);
        return code;
    }
    return CODE_INVALID;
}

static bool ranges_valid(const struct job *job, const struct event *event)
{
    if (event->verb.n_ranges > LIMIT_PIECES_VERB)
        return false;
    for (size_t i = 0; i < event->verb.n_ranges; i++)
        if (!range_valid(job, &event->verb.ranges[i]))
            return false;
    return true;
}

void on_verb(struct core *core, const struct event *event)
{
    struct studio_id studio = event->verb.studio;
    const struct request *known = request_find(core, studio, &event->verb.request);
    struct job *job = job_find(core, &event->verb.job);
    uint64_t tasks = 0;
    enum code code = CODE_UNKNOWN;

    if (known) {
        request_repeat(core, event, known, &event->verb.digest);
        return;
    }
    if (job && (studio.value == 0 || studio.value == job->studio->id.value))
        code = !ranges_valid(job, event) ? CODE_INVALID
               : job->archived           ? CODE_STATE
                                         : verb_run(core, job, event, &tasks);
    if (code == CODE_OK)
        request_record(core, studio, &event->verb.request, &event->verb.digest, &job->id, tasks);
    core_reply(core, event, code, &event->verb.job, tasks, false);
}
