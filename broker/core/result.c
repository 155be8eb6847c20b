/* What workers say of their leases: started, going on, ended, handed back. The edge has checked
 * the ticket; whether a lease still counts is decided by its floor alone, so that a result is
 * honoured though the lease has lapsed or was granted by an earlier life of this broker.
 */
#include <broker/core/inner.h>

static enum code lease_standing(struct core *core, const struct lease_id *id,
                                struct step **ret_step)
{
    struct step *step = job_step(core, &id->job, id->task);

    if (!step)
        return CODE_UNKNOWN;
    if (id->floor != step_floor(step, id->task.index))
        return CODE_STALE;
    enum task_state state = step_state(step, id->task.index);

    if (state == TASK_CANCELLED || state == TASK_LEFT_OUT)
        return CODE_STALE;
    *ret_step = step;
    return state == TASK_DONE ? CODE_ALREADY : CODE_OK;
}

void attempt_record(struct core *core, const struct lease_id *id, struct worker *worker,
                    enum attempt_class class, const struct event *event)
{
    struct record record = {.kind = RECORD_ATTEMPT, .job = id->job};

    core->fleet.at_hand = worker;
    record.attempt.lease = *id;
    record.attempt.worker = worker->key;
    record.attempt.class = class;
    if (event) {
        record.attempt.warned = class == CLASS_OK && event->result.warned;
        record.attempt.usage = event->result.usage;
        record.attempt.blob = event->result.blob;
        record.attempt.blob_size = event->result.blob_size;
    }
    core_emit(core, &record);
}

/* Other leases of a task that were noted are noted again: a note is one a task, and the attempt
 * just recorded has replaced it. */
static void notes_renew(struct core *core, struct task *task)
{
    list_each(link, &task->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_task);

        if (!lease->noted || !lease_active(lease))
            continue;
        lease->noted = false;
        link_after(&core->running, &lease->running);
    }
}

static void end_lease(struct core *core, struct lease *lease)
{
    struct task *task = lease->task;

    job_touch(lease->step->job);
    lease_free(core, lease);
    if (!task)
        return;
    notes_renew(core, task);
    task_settle(core, task);
}

bool attempt_recorded(const struct task *task, const struct lease_id *id)
{
    const struct past *past = task ? task->past : NULL;

    for (uint32_t i = 0; past && i < TASK_RECENT && i < past->n_recent; i++)
        if (past->recent[i].attempt == id->attempt && past->recent[i].epoch == id->epoch)
            return true;
    return false;
}

void attempt_lost(struct core *core, struct lease *lease)
{
    if (!lease->started || lease->counted || attempt_recorded(lease->task, &lease->id))
        return;
    lease->counted = true;
    attempt_record(core, &lease->id, lease->worker, CLASS_WORKER_LOST, NULL);
    lease->worker->failed++;
}

void lease_lost(struct core *core, struct lease *lease)
{
    struct step *step = lease->step;

    if (lease_active(lease))
        attempt_lost(core, lease);
    end_lease(core, lease);
    job_pause_if_failing(core, step);
}

/* ---- results ---- */

static void stop_others(struct core *core, struct task *task)
{
    list_each(link, &task->leases)
    {
        /* The last of them takes the task with it. */
        bool last = link_next == &task->leases;

        lease_stop(core, container_of(link, struct lease, of_task));
        if (last)
            return;
    }
}

static void result_ok(struct core *core, const struct event *event, struct step *step,
                      struct worker *worker, struct lease *lease)
{
    uint64_t index = event->result.lease.task.index;

    attempt_record(core, &event->result.lease, worker, CLASS_OK, event);
    worker->done++;
    if (lease)
        end_lease(core, lease);
    struct task *task = task_find(step, index);

    if (task && !link_alone(&task->leases))
        stop_others(core, task);
}

/* What ends on a worker for its full disk says nothing of the task, and that worker gets no more
 * meanwhile. On a third worker it does: the task may be what fills them. */
static bool says_nothing(const struct lease *lease, bool no_room)
{
    struct task *task = lease->task;

    if (!no_room || !task)
        return no_room;
    for (uint32_t i = 0; i < task->past->n_full; i++)
        if (task->past->full_on[i] == lease->worker)
            return true;
    if (task->past->n_full == FULL_FREELY)
        return false;
    struct past *past = task_past(task);

    past->full_on[past->n_full++] = lease->worker;
    return true;
}

/* Without a result. What ran is an attempt, or it would be given out for ever; what did not cannot
 * be run there: someone else, or the same one a little later, unless it was asked back. */
static void hand_back(struct core *core, struct lease *lease, bool no_room)
{
    if (lease->started && !says_nothing(lease, no_room)) {
        lease_lost(core, lease);
        return;
    }
    if (!lease->asked_back && lease->task)
        lease->task->avoid = lease->worker;
    end_lease(core, lease);
}

/* A failed attempt counts once, whether its lease is still held, lapsed, or from an earlier epoch.
 */
static enum code result_failed(struct core *core, const struct event *event, struct step *step,
                               struct worker *worker, struct lease *lease)
{
    const struct lease_id *id = &event->result.lease;
    bool known = attempt_recorded(task_find(step, id->task.index), id);

    if (known && lease)
        end_lease(core, lease);
    if (known)
        return CODE_ALREADY;
    /* What a user took back has another floor: so it was stopped unasked. */
    if (event->result.class == CLASS_CANCELLED) {
        if (lease)
            hand_back(core, lease, worker->no_room);
        return lease ? CODE_OK : CODE_ALREADY;
    }
    attempt_record(core, id, worker, event->result.class, event);
    worker->failed++;
    if (lease) {
        end_lease(core, lease);
    } else {
        notes_renew(core, task_find(step, id->task.index));
        task_settle(core, task_find(step, id->task.index));
    }
    job_pause_if_failing(core, step);
    return CODE_OK;
}

void on_result(struct core *core, const struct event *event)
{
    const struct lease_id *id = &event->result.lease;
    struct worker *worker = core_worker_at(core, event->result.worker);
    struct lease *lease = lease_find(core, id);
    struct step *step = NULL;
    enum code code = lease_standing(core, id, &step);

    if (!worker)
        return;
    worker_sign_of_life(core, worker);
    if (lease && lease->worker != worker)
        lease = NULL; /* the ticket says otherwise; the result stands on its floor */
    if (code == CODE_OK && event->result.class == CLASS_OK)
        result_ok(core, event, step, worker, lease);
    else if (code == CODE_OK)
        code = result_failed(core, event, step, worker, lease);
    else if (lease)
        end_lease(core, lease);
    core_effect_lease(core, EFFECT_COMMITTED, worker, id, code);
}

/* ---- the rest of a lease's life ---- */

void on_started(struct core *core, const struct event *event, bool progress)
{
    struct worker_id who = progress ? event->progress.worker : event->started.worker;
    const struct lease_id *id = progress ? &event->progress.lease : &event->started.lease;
    struct worker *worker = core_worker_at(core, who);

    if (!worker)
        return;
    worker_sign_of_life(core, worker);
    struct lease *lease = lease_find(core, id);

    if (lease && lease->worker != worker)
        return;
    if (!lease) { /* begun while word that it be dropped was on its way */
        core_effect_lease(core, EFFECT_REVOKE, worker, id, CODE_OK)->revoke.revoke =
            CORE_REVOKE_STOP;
        return;
    }
    lease_started(core, lease);
    if (lease->stopping)
        return; /* it holds its room until it has stopped */
    task_settle(core, lease->task);
    if (progress) {
        lease->permille = event->progress.permille > 1000 ? 1000 : event->progress.permille;
        job_touch(lease->step->job);
    }
}

void on_released(struct core *core, const struct event *event)
{
    struct worker *worker = core_worker_at(core, event->released.worker);
    struct lease *lease = lease_find(core, &event->released.lease);

    if (!worker)
        return;
    worker_sign_of_life(core, worker);
    if (lease && lease->worker == worker)
        hand_back(core, lease, event->released.no_room);
    core_effect_lease(core, EFFECT_COMMITTED, worker, &event->released.lease, CODE_OK);
}

void on_unsent(struct core *core, const struct event *event)
{
    struct worker *worker = core_worker_at(core, event->unsent.worker);
    struct lease *lease = lease_find(core, &event->unsent.lease);

    if (!worker)
        return;
    worker->stalled = true;
    worker_regroup(&core->fleet, worker);
    worker_refresh_leases(core, worker);
    if (lease && lease->worker == worker && !lease->started)
        end_lease(core, lease);
}
