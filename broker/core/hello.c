/* Workers come, list what they have, stay silent, go. */
#include <broker/core/inner.h>

struct worker *core_worker_at(const struct core *core, struct worker_id id)
{
    return id.value < core->fleet.n_workers ? core->fleet.workers[id.value] : NULL;
}

/* A process that starts anew counts its sessions on from what its folder says, so a smaller number
 * is a second process under the same key. A greater one may be a copy of the folder: it is the same
 * worker come back only where the process before it is gone. */
static enum code hello_standing(const struct worker *worker, const struct event *event)
{
    bool same = memcmp(worker->boot, event->hello.boot, sizeof(worker->boot)) == 0;

    if (!worker->greeted)
        return CODE_OK;
    if (!same &&
        (event->hello.rival || (worker->connected && event->hello.session <= worker->session)))
        return CODE_CONFLICT;
    if (!same || event->hello.session > worker->session)
        return CODE_OK;
    return event->hello.session == worker->session ? CODE_OK : CODE_STALE;
}

/* What its leases hold, of an offer that may have changed. */
void worker_retake(struct core *core, struct worker *worker)
{
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        if (!lease->plan)
            continue;
        lease->plan = demand_plan(lease->step->demand, worker->shape);
        lease->gpu_mask = worker_take(worker, lease->plan, lease->gpu_mask);
    }
}

static void worker_greet(struct core *core, struct worker *worker, const struct event *event)
{
    struct shape *shape = shape_of(&core->fleet, event->hello.offer, worker->pool);

    if (worker->shape) {
        worker_set_connected(&core->fleet, worker, false);
        worker_set_held(&core->fleet, worker, false);
    }
    worker->listed = worker->stalled = worker->no_room = false;
    worker_regroup(&core->fleet, worker);
    if (shape != worker->shape) {
        worker_set_shape(&core->fleet, worker, shape);
        worker_retake(core, worker);
    }
    worker->session = event->hello.session;
    memcpy(worker->boot, event->hello.boot, sizeof(worker->boot));
    worker->greeted = true;
    worker->awaited = false;
    worker_set_connected(&core->fleet, worker, true);
    worker_sign_of_life(core, worker);
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        lease->listed = false;
        lease_refresh(core, lease);
    }
}

void on_hello(struct core *core, const struct event *event)
{
    struct worker *worker = NULL;
    enum code code = CODE_OK;

    if (!shape_valid(event->hello.offer))
        code = CODE_INVALID;
    else if (!(worker = worker_of(&core->fleet, &event->hello.key)))
        code = CODE_BUSY;
    else
        code = hello_standing(worker, event);
    if (code == CODE_OK)
        worker_greet(core, worker, event);
    struct effect *effect = core_effect(core, EFFECT_WELCOME);

    effect->cookie = event->cookie;
    effect->worker.value = worker ? worker->id.value : UINT32_MAX;
    effect->code = code;
}

/* ---- the inventory ---- */

static bool lease_counts(const struct core *core, const struct lease_id *id)
{
    const struct step *step = job_step(core, &id->job, id->task);
    enum task_state state = step ? step_state(step, id->task.index) : TASK_CANCELLED;

    return step && id->floor == step_floor(step, id->task.index) && state != TASK_DONE &&
           state != TASK_CANCELLED && state != TASK_LEFT_OUT;
}

static enum verdict keep_known(struct core *core, struct lease *lease,
                               const struct inventory_item *item)
{
    bool lapsed = lease->lapsed;

    lease->listed = true;
    /* Its task went back when it lapsed; or it was asked for, and the worker may not have heard. */
    if ((lapsed || lease->asked_back) && item->state == HELD_QUEUED) {
        struct task *task = lease->task;

        job_touch(lease->step->job);
        lease_free(core, lease);
        task_settle(core, task);
        return VERDICT_DROP;
    }
    if (item->gpu_mask)
        lease->gpu_mask = lease->plan ? lease->gpu_mask : item->gpu_mask;
    lease->rendered = item->state == HELD_RESULT;
    if (lapsed)
        lease_revive(core, lease);
    if (item->state != HELD_QUEUED)
        lease_started(core, lease);
    if (item->state == HELD_RESULT)
        lease_rendered(core, lease);
    task_settle(core, lease->task);
    return item->state == HELD_RESULT ? VERDICT_SEND : VERDICT_KEEP;
}

static enum verdict adopt(struct core *core, struct worker *worker,
                          const struct inventory_item *item)
{
    struct step *step = job_step(core, &item->lease.job, item->lease.task);

    /* What has not started is as well granted anew. */
    if (item->state == HELD_QUEUED || core->lease_pool.in_use >= LIMIT_LEASES)
        return VERDICT_DROP;
    struct lease *lease = lease_new(core, &item->lease, step, worker);

    lease->gpu_mask = item->gpu_mask;
    lease_started(core, lease);
    if (item->state == HELD_RESULT)
        lease_rendered(core, lease);
    task_settle(core, lease->task);
    return item->state == HELD_RESULT ? VERDICT_SEND : VERDICT_KEEP;
}

static enum verdict item_verdict(struct core *core, struct worker *worker,
                                 const struct inventory_item *item)
{
    struct lease *lease = lease_find(core, &item->lease);

    if (lease && (lease->worker != worker || lease->stopping)) {
        if (lease->worker == worker)
            lease_free(core, lease); /* told to stop, and told again here */
        return VERDICT_DROP;
    }
    if (!lease_counts(core, &item->lease))
        return VERDICT_DROP;
    return lease ? keep_known(core, lease, item) : adopt(core, worker, item);
}

static void inventory_done(struct core *core, struct worker *worker)
{
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        if (!lease->listed)
            lease_lost(core, lease);
    }
    worker->listed = true;
    /* Also what was noted before a restart and held nothing until its worker came, and what is to
     * stop since it was listed: until it has, it is in the way. */
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        if (!lease->lapsed && !lease->before && !lease->rendered)
            lease_take(core, lease, lease->gpu_mask);
    }
    worker_regroup(&core->fleet, worker);
    worker_refresh_leases(core, worker);
    sched_worker_dirty(core, worker);
}

void on_inventory(struct core *core, const struct event *event)
{
    struct worker *worker = core_worker_at(core, event->inventory.worker);

    if (!worker || !worker->greeted)
        return;
    worker_sign_of_life(core, worker);
    for (size_t i = 0; i < event->inventory.n_items; i++) {
        const struct inventory_item *item = &event->inventory.items[i];
        enum verdict verdict = item_verdict(core, worker, item);

        core_effect_lease(core, EFFECT_VERDICT, worker, &item->lease, CODE_OK)->verdict.verdict =
            verdict;
    }
    if (!event->inventory.last)
        return;
    if (!worker->listed)
        inventory_done(core, worker);
    struct effect *effect = core_effect(core, EFFECT_VERDICT);

    effect->worker = worker->id;
    effect->verdict.last = true;
    effect->verdict.mark_only = true;
}

/* ---- silence and speech ---- */

void worker_sign_of_life(struct core *core, struct worker *worker)
{
    worker->seen_ns = core->now_ns;
    timer_heard(core);
    if (!worker->greeted)
        return;
    if (worker->connected)
        worker_set_quiet(&core->fleet, worker, false);
    worker->deadline_ns = core->now_ns + core->config.lease_ns;
    timer_worker(core, worker);
    if (worker->connected && !worker->stalled)
        return;
    /* It was silent for a while in one session: it has all it had, and goes on. */
    worker->stalled = false;
    if (!worker->connected) {
        worker_set_held(&core->fleet, worker, false);
        worker_set_connected(&core->fleet, worker, true);
        list_each(link, &worker->leases)
        {
            struct lease *lease = container_of(link, struct lease, of_worker);

            if (lease->lapsed && worker->listed)
                lease_revive(core, lease);
        }
    }
    worker_regroup(&core->fleet, worker);
    worker_refresh_leases(core, worker);
    sched_worker_dirty(core, worker);
}

void on_beat(struct core *core, const struct event *event)
{
    struct worker *worker = core_worker_at(core, event->beat.worker);

    if (!worker)
        return;
    worker_sign_of_life(core, worker);
    if (worker->no_room == event->beat.no_room)
        return;
    worker->no_room = event->beat.no_room;
    worker_regroup(&core->fleet, worker);
    worker_refresh_leases(core, worker);
    sched_worker_dirty(core, worker);
}

void on_room(struct core *core, const struct event *event)
{
    struct fleet *fleet = &core->fleet;

    if (fleet->no_room == event->room.none)
        return;
    fleet->no_room = event->room.none;
    for (size_t i = 0; i < fleet->n_workers; i++) {
        struct worker *worker = fleet->workers[i];

        if (!worker->greeted)
            continue;
        worker_regroup(fleet, worker);
        worker_refresh_leases(core, worker);
        sched_worker_dirty(core, worker);
    }
}

/* One that is silent may run what is no longer known, in room that nothing holds: it lists before
 * it is given anything. */
void worker_part(struct core *core, struct worker *worker)
{
    if (worker->connected || !worker->listed)
        return; /* it has said what it runs since it fell silent, or will */
    worker->listed = false;
    worker_regroup(&core->fleet, worker);
    core_effect(core, EFFECT_PART)->worker = worker->id;
}

void on_expel(struct core *core, const struct worker_key *key)
{
    struct worker *worker = worker_find(&core->fleet, key);

    if (!worker)
        return;
    if (worker->shape) {
        worker_set_connected(&core->fleet, worker, false);
        worker_set_held(&core->fleet, worker, false);
    }
    worker->listed = worker->greeted = worker->awaited = false;
    worker_regroup(&core->fleet, worker);
    while (!link_alone(&worker->leases))
        lease_lost(core, container_of(worker->leases.next, struct lease, of_worker));
}
