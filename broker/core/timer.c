/* What happens because time has passed: silence, delays that end, notes that are due.
 *
 * The idea: a sign of life only writes the new deadline; the worker's place in the heap is looked
 * at when the old one comes. So a beat costs no heap operation. It is looked at twice in a silence:
 * after half the lease time it counts as quiet, at the end it lapses. So when the first of many
 * lapses, the others that the same cut took away are already known, and the broker takes itself
 * for cut off (fleet_cut_off): it holds what each of them runs until that one is back, or until
 * the reconnect window has passed since the first word that was heard from anybody thereafter.
 */
#include <broker/core/inner.h>

static int64_t not_before(int64_t ns, int64_t bound_ns)
{
    return ns > bound_ns ? ns : bound_ns;
}

static int64_t due_ns(const struct core *core, const struct worker *worker)
{
    int64_t end_ns = not_before(worker->deadline_ns, core->pardon_ns);

    return worker->connected && !worker->quiet ? end_ns - core->config.lease_ns / 2 : end_ns;
}

void timer_worker(struct core *core, struct worker *worker)
{
    int64_t at_ns = due_ns(core, worker);

    if (worker->timer_position != HEAP_NONE && worker->timer_ns <= at_ns)
        return;
    worker->timer_ns = at_ns;
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
    worker_set_held(&core->fleet, worker, false);
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

        attempt_lost(core, lease);
        lease->noted = false;
        lease_lapse(core, lease);
        task_settle(core, task);
        job_pause_if_failing(core, lease->step);
    }
    worker_refresh_leases(core, worker);
}

/* What it runs goes on counting as run; nobody gets it meanwhile. */
static void worker_hold(struct core *core, struct worker *worker)
{
    worker->deadline_ns = INT64_MAX;
    worker_set_connected(&core->fleet, worker, false);
    worker_set_held(&core->fleet, worker, true);
    worker_regroup(&core->fleet, worker);
    list_each(link, &worker->leases) lease_await(core, container_of(link, struct lease, of_worker));
}

void timer_heard(struct core *core)
{
    struct link *held = &core->fleet.held;

    for (struct link *link = held->prev; link != held; link = link->prev) { /* the last first */
        struct worker *worker = container_of(link, struct worker, held);

        if (worker->deadline_ns != INT64_MAX)
            return;
        worker->deadline_ns = core->now_ns + core->config.reconnect_ns;
    }
}

/* When the first of those held lapses; INT64_MAX: none, or nobody has spoken since. */
static int64_t held_until_ns(const struct core *core)
{
    const struct link *held = &core->fleet.held;

    if (link_alone(held))
        return INT64_MAX;
    return not_before(container_of(held->next, struct worker, held)->deadline_ns, core->pardon_ns);
}

static void deadlines_run(struct core *core)
{
    struct worker *worker = NULL;

    while ((worker = heap_top(&core->deadlines)) && worker->timer_ns <= core->now_ns) {
        bool due = due_ns(core, worker) <= core->now_ns;

        if (due && worker->connected && !worker->quiet) {
            worker_set_quiet(&core->fleet, worker, true);
        } else if (due) {
            heap_remove(&core->deadlines, worker);
            if (worker->connected && fleet_cut_off(&core->fleet))
                worker_hold(core, worker);
            else
                worker_lapse(core, worker);
            continue;
        }
        worker->timer_ns = due_ns(core, worker);
        heap_moved(&core->deadlines, worker);
    }
    while (held_until_ns(core) <= core->now_ns)
        worker_lapse(core, container_of(core->fleet.held.next, struct worker, held));
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

void timers_run(struct core *core, bool unread)
{
    /* A broker that was stopped, or does not read, finds every worker silent: it was itself that
     * was away. */
    bool late = core->promised_ns > 0 &&
                core->now_ns - core->promised_ns > core->config.lease_ns / LATE_OF_LEASE;

    if (late || unread)
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
    if (held_until_ns(core) < deadline_ns)
        deadline_ns = held_until_ns(core);
    if (task && task->delay_until_ns < deadline_ns)
        deadline_ns = task->delay_until_ns;
    if (retain_deadline_ns(core) < deadline_ns)
        deadline_ns = retain_deadline_ns(core);
    if (!link_alone(&core->running)) {
        int64_t note_ns =
            note_due_ns(core, container_of(core->running.next, struct lease, running)) +
            NOTE_LATE_NS;

        if (note_ns < deadline_ns)
            deadline_ns = note_ns;
    }
    return deadline_ns;
}
