/* Whether a record that was read back can be one of this history. Applying takes a record's word,
 * because live it was made by what applies it; what comes from a disk may say anything. */
#include <broker/core/inner.h>

static const char *attempt_fits(const struct core *core, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    const struct step *step = job_step(core, &record->job, lease->task);

    if (!step)
        return "it is of a task that no job has";
    if ((unsigned)record->attempt.class >= CLASSES_COUNT)
        return "its class is none";
    if (record->attempt.class != CLASS_OK)
        return NULL;
    if (!step_allowed(step_state(step, lease->task.index), TASK_DONE))
        return "its task has a result already, or wants none";
    return lease->floor == step_floor(step, lease->task.index) ? NULL : "its floor is not current";
}

static const char *change_fits(const struct core *core, const struct record *record)
{
    const struct job *job = job_find(core, &record->job);
    const struct task_range *range = &record->change.range;

    if (!job)
        return "it is of a job that is not there";
    if (record->change.change == CHANGE_STATE)
        return (unsigned)record->change.state < JOB_STATES_COUNT ? NULL : "its state is none";
    if (record->change.change > CHANGE_PARK)
        return "its kind is none";
    if (!range_valid(job, range))
        return "it is of tasks that the job does not have";
    const struct step *step = &job->steps[range->step];

    if (record->change.change == CHANGE_PARK)
        return step_state(step, range->first) == TASK_FAILED ||
                       step_allowed(step_state(step, range->first), TASK_FAILED)
                   ? NULL
                   : "its task is over";
    return record->change.floor > floors_highest(&step->floors, range->first, range->last)
               ? NULL
               : "it raises no floor";
}

static const char *edit_fits(const struct core *core, const struct record *record)
{
    const struct job *job = job_find(core, &record->job);
    uint64_t same;

    if (!job)
        return "it is of a job that is not there";
    if (record->edit.n_spaces > 0 && record->edit.n_spaces != job->n_steps)
        return "it is of another number of steps";
    for (size_t i = 0; i < record->edit.n_spaces; i++)
        if (!space_extends(&job->steps[i].space, &record->edit.spaces[i], &same))
            return "it changes tasks that are there";
    return NULL;
}

const char *core_unfit(const struct core *core, const struct record *record)
{
    if (record->sequence <= core->sequence || record->sequence > INT64_MAX)
        return "its sequence is not above the one before";
    switch (record->kind) {
    case RECORD_JOB:
        return job_find(core, &record->job)        ? "its job is there already"
               : record->submit.spec->n_steps == 0 ? "it has no steps"
                                                   : NULL;
    case RECORD_ATTEMPT:
        return attempt_fits(core, record);
    case RECORD_CHANGE:
        return change_fits(core, record);
    case RECORD_EDIT:
        return edit_fits(core, record);
    case RECORD_NOTE:
        return job_step(core, &record->job, record->note.lease.task)
                   ? NULL
                   : "it is of a task that no job has";
    case RECORD_DELIVERED: {
        const struct job *job = job_find(core, &record->job);

        return job && range_valid(job, &record->delivered.range) ? NULL
                                                                 : "it is of tasks that no job has";
    }
    case RECORD_FORGET:
        return job_gone(core, &record->job) ? "its job is gone already" : NULL;
    case RECORD_REQUEST:
    case RECORD_UNASK:
    case RECORD_CLOCK:
        return NULL;
    case RECORD_TEND:
        return record->tend.tend >= TEND_DRAIN && record->tend.tend <= TEND_ASIDE
                   ? NULL
                   : "its kind is none";
    }
    return "its kind is none";
}
