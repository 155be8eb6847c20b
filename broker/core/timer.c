/* What happens because time has passed: silence, delays that end, notes that are due.
 *
 * The idea: a sign of life only writes the new deadline; the worker's place in the heap is looked
 * at when the old one comes. So a beat costs no heap operation.
 */
#include <broker/core/inner.h>

void timer_worker(struct core *core, struct worker *worker)
{
    if (worker->timer_position != HEAP_NONE && worker->timer_ns <= worker->deadline_ns)
        return;
    worker->timer_ns = worker->deadline_ns;
    if (worker->timer_position != HEAP_NONE)
        heap_moved(&core->deadlines, worker);
    else
        heap_add(&core->deadlines, worker);
}

/* Silent for the lease time, or not back in the time given after a restart. */
static void worker_lapse(struct core *core, struct worker *worker)
{
    if (worker->connected)
        worker_set_connected(&core->fleet, worker, false);
    worker->awaited = false;
    worker_regroup(&core->fleet, worker);
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        if (lease->lapsed)
            continue;
        if (lease->stopping) {
            lease_lapse(core, lease);
            continue;
        }
        struct task *task = lease->task;

        if (lease->started) {
            attempt_record(core, &lease->id, worker, CLASS_WORKER_LOST, NULL);
            worker->failed++;
        }
        lease->noted = false;
        lease_lapse(core, lease);
        task_settle(core, task);
        job_pause_if_failing(core, lease->step->job);
    }
    worker_refresh_leases(core, worker);
}

static void deadlines_run(struct core *core)
{
    struct worker *worker = NULL;

    while ((worker = heap_top(&core->deadlines)) && worker->timer_ns <= core->now_ns) {
        int64_t deadline_ns =
            worker->deadline_ns > core->pardon_ns ? worker->deadline_ns : core->pardon_ns;

        if (deadline_ns > core->now_ns) {
            worker->timer_ns = deadline_ns;
            heap_moved(&core->deadlines, worker);
            continue;
        }
        heap_remove(&core->deadlines, worker);
        worker_lapse(core, worker);
    }
}

static void delays_run(struct core *core)
{
    struct task *task = NULL;

    while ((task = heap_top(&core->delays)) && task->delay_until_ns <= core->now_ns) {
        struct step *step = task->step;
        uint64_t index = task->index;

        task_undelay(task);
        task->avoid = NULL;
        task_drop_if_ordinary(task);
        step_wake(step, index, index);
    }
}

void timers_run(struct core *core)
{
    /* A broker that was stopped finds every worker silent: it was itself that was away. */
    if (core->now_ns - core->promised_ns > LIMIT_BEAT_NS && core->promised_ns > 0)
        core->pardon_ns = core->now_ns + core->config.lease_ns;
    deadlines_run(core);
    delays_run(core);
    asides_run(core);
}

static int64_t note_due_ns(const struct core *core, const struct lease *lease)
{
    return lease->started_ns + core->config.note_after_ns;
}

/* A due note rides on a sync that happens anyway, or has one of its own a second later. */
void notes_run(struct core *core)
{
    int64_t late_ns = core->outbox->n_records > 0 ? 0 : NOTE_LATE_NS;

    if (link_alone(&core->running) ||
        note_due_ns(core, container_of(core->running.next, struct lease, running)) + late_ns >
            core->now_ns)
        return;
    while (!link_alone(&core->running)) {
        struct lease *lease = container_of(core->running.next, struct lease, running);
        struct record record = {.kind = RECORD_NOTE, .job = lease->id.job};

        if (note_due_ns(core, lease) > core->now_ns)
            return;
        link_remove(&lease->running);
        lease->noted = true;
        record.note.lease = lease->id;
        record.note.worker = lease->worker->key;
        record.note.gpu_mask = lease->gpu_mask;
        core_emit(core, &record);
    }
}

int64_t core_deadline_ns(const struct core *core)
{
    int64_t deadline_ns = INT64_MAX;
    const struct worker *worker = heap_top(&core->deadlines);
    const struct task *task = heap_top(&core->delays);
    const struct worker *aside = heap_top(&core->asides);

    if (aside)
        deadline_ns = core->now_ns + (aside->aside_until_wall_s - core->wall_s) * SECOND_NS;
    if (worker && worker->timer_ns < deadline_ns)
        deadline_ns = worker->timer_ns;
    if (task && task->delay_until_ns < deadline_ns)
        deadline_ns = task->delay_until_ns;
    if (!link_alone(&core->running)) {
        int64_t note_ns =
            note_due_ns(core, container_of(core->running.next, struct lease, running)) +
            NOTE_LATE_NS;

        if (note_ns < deadline_ns)
            deadline_ns = note_ns;
    }
    return deadline_ns;
}
