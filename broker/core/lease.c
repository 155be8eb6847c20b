#include <broker/core/inner.h>

/* A lease is linked wherever it is looked for (hash, worker, job, task, chain, and the demand's
 * lists of places to queue behind and of leases to ask back); lease_free is the one way out. */

static uint64_t lease_hash(const struct lease_id *id)
{
    return hash_near(5 + (uint64_t)id->epoch, id->attempt);
}

static bool lease_is(const void *value, const void *key)
{
    const struct lease_id *a = &((const struct lease *)value)->id, *b = key;

    return a->attempt == b->attempt && a->epoch == b->epoch && a->floor == b->floor &&
           a->task.step == b->task.step && a->task.index == b->task.index &&
           memcmp(&a->job, &b->job, sizeof(a->job)) == 0;
}

struct lease *lease_find(const struct core *core, const struct lease_id *id)
{
    return table_find(&core->leases, lease_hash(id), lease_is, id);
}

static void links_near(const struct link *link)
{
    __builtin_prefetch(link->prev, 1);
    __builtin_prefetch(link->next, 1);
}

/* Where the tasks and the leases will lie that are granted in their place. */
static void successors_near(const struct core *core, const struct step *step, size_t n)
{
    struct lease_id next = {.epoch = core->config.epoch};
    uint64_t index = bitmap_next(&step->bits[TASK_READY], 0);

    for (size_t i = 0; i < n; i += HASH_NEAR) {
        next.attempt = core->attempt + 1 + i;
        table_near(&core->leases, lease_hash(&next));
        if (index != BITMAP_NONE)
            table_near(&core->tasks, task_hash(step, index + i));
    }
}

/* Some times over all of them, each time at what the last one fetched. */
void core_expect(const struct core *core, const struct lease_id *leases, size_t n)
{
    uint64_t hash[CORE_EXPECT], hash_task[CORE_EXPECT];
    const struct lease *lease[CORE_EXPECT];
    const struct step *step = NULL;

    CHECK(n <= CORE_EXPECT);
    for (size_t i = 0; i < n; i++) {
        const struct lease_id *id = &leases[i];

        if (!step || memcmp(&id->job, &leases[i - 1].job, sizeof(id->job)) != 0 ||
            id->task.step != step->number)
            step = job_step(core, &id->job, (struct task_id){id->task.step, 0});
        hash[i] = lease_hash(id);
        hash_task[i] = step ? task_hash(step, id->task.index) : 0;
        table_near(&core->leases, hash[i]);
        table_near(&core->tasks, hash_task[i]);
    }
    if (step)
        successors_near(core, step, n);
    for (size_t i = 0; i < n; i++) {
        lease[i] = table_likely(&core->leases, hash[i]);
        memory_near(lease[i], sizeof(struct lease));
        memory_near(table_likely(&core->tasks, hash_task[i]), sizeof(struct task));
    }
    for (size_t i = 0; i < n; i++)
        if (lease[i]) {
            __builtin_prefetch(lease[i]->chain, 1);
            memory_near(lease[i]->behind, 2 * MEMORY_LINE);
            memory_near(lease[i]->worker, sizeof(struct worker));
            links_near(&lease[i]->of_job);
            links_near(&lease[i]->of_worker);
            links_near(&lease[i]->hungry);
            links_near(&lease[i]->queued);
        }
    for (size_t i = 0; i < n; i++)
        if (lease[i] && lease[i]->chain)
            memory_near(lease[i]->chain->tail, 2 * MEMORY_LINE);
    for (size_t i = 0; i < n; i++)
        if (lease[i] && lease[i]->chain) {
            links_near(&lease[i]->chain->tail->hungry);
            links_near(&lease[i]->chain->tail->queued);
        }
}

struct lease *lease_new(struct core *core, const struct lease_id *id, struct step *step,
                        struct worker *worker)
{
    struct lease *lease = pool_take(&core->lease_pool);

    lease->id = *id;
    lease->step = step;
    lease->worker = worker;
    lease->task = task_make(step, id->task.index);
    lease->listed = true;
    link_init(&lease->running);
    link_init(&lease->hungry);
    link_init(&lease->queued);
    link_last(&worker->leases, &lease->of_worker);
    link_last(&step->job->leases, &lease->of_job);
    link_last(&lease->task->leases, &lease->of_task);
    table_insert(&core->leases, lease_hash(id), lease);
    demand_use(&core->fleet, step->demand,
               true); /* its plan may be held for longer than its step runs */
    sched_job_leases(step->job, 1);
    return lease;
}

/* ---- capacity ---- */

bool lease_take(struct core *core, struct lease *lease, uint32_t cards)
{
    const struct plan *plan =
        lease->worker->shape ? demand_plan(lease->step->demand, lease->worker->shape) : NULL;

    /* Until its worker's list is complete, what is to be given back may still stand in the way. */
    if (lease->plan || !plan || !lease->worker->listed)
        return lease->plan != NULL;
    lease->gpu_mask = worker_take(lease->worker, plan, cards);
    lease->plan = plan;
    worker_regroup(&core->fleet, lease->worker);
    return true;
}

void lease_release(struct core *core, struct lease *lease)
{
    if (!lease->plan)
        return;
    worker_give(lease->worker, lease->plan, lease->gpu_mask);
    lease->plan = NULL;
    worker_regroup(&core->fleet, lease->worker);
    sched_worker_dirty(core, lease->worker);
}

static void lease_inherit(struct core *core, struct lease *from, struct lease *to)
{
    if (!from->plan || to->lapsed)
        return;
    if (to->plan) {
        lease_release(core, from);
        return;
    }
    to->plan = from->plan;
    to->gpu_mask = from->gpu_mask;
    from->plan = NULL;
}

/* ---- chains ---- */

static bool lease_followable(const struct core *core, const struct lease *lease)
{
    return lease_active(lease) && !lease->behind && (lease->plan || lease->before) &&
           !lease->asked_back && worker_available(&core->fleet, lease->worker) &&
           lease_ahead(lease) < lease->worker->shape->prefetch &&
           demand_plan(lease->step->demand, lease->worker->shape)->possible;
}

static bool lease_returnable(const struct core *core, const struct lease *lease)
{
    return lease_active(lease) && !lease->behind && lease->before && !lease->started &&
           !lease->asked_back && worker_available(&core->fleet, lease->worker);
}

void lease_refresh(struct core *core, struct lease *lease)
{
    struct demand *demand = lease->step->demand;

    if (!link_alone(&lease->hungry)) {
        struct link *neighbour = lease->hungry.next;

        link_remove(&lease->hungry);
        if (link_alone(neighbour)) /* the head of a list that is now empty */
            demand->hungry_mask &= ~(1ULL << (neighbour - demand->hungry));
    }
    if (lease_followable(core, lease)) {
        link_last(&demand->hungry[lease_ahead(lease)], &lease->hungry);
        demand->hungry_mask |= 1ULL << lease_ahead(lease);
        sched_demand_dirty(core, demand);
    }
    if (lease_returnable(core, lease) && link_alone(&lease->queued))
        link_after(&demand->queued, &lease->queued);
    else if (!lease_returnable(core, lease))
        link_remove(&lease->queued);
    if (link_alone(&demand->queued))
        link_remove(&demand->stealable);
    else if (link_alone(&demand->stealable))
        link_last(&core->stealable, &demand->stealable);
}

/* So many have left it. */
static void chain_shorten(struct core *core, struct chain *chain, uint32_t by)
{
    struct lease *tail = chain->tail;

    chain->n -= by;
    if (chain->n == 1) {
        tail->chain = NULL;
        pool_give(&core->chain_pool, chain);
    }
    lease_refresh(core, tail);
}

void lease_queue(struct lease *tail, struct lease *lease)
{
    struct core *core = tail->step->job->core;

    CHECK(!tail->behind && !lease->before && !lease->chain && !lease->plan);
    if (!tail->chain) {
        tail->chain = pool_take(&core->chain_pool);
        tail->chain->n = 1;
    }
    lease->chain = tail->chain;
    lease->chain->tail = lease;
    lease->chain->n++;
    tail->behind = lease;
    lease->before = tail;
    lease->gpu_mask = tail->gpu_mask; /* the cards go down the chain with the room */
    lease_refresh(core, tail);
    lease_refresh(core, lease);
}

/* Out of its chain: those behind move up, the first of them into its capacity if it was head. */
static void chain_leave(struct core *core, struct lease *lease)
{
    struct lease *before = lease->before, *behind = lease->behind;
    struct chain *chain = lease->chain;

    if (!chain)
        return;
    lease->before = lease->behind = NULL;
    lease->chain = NULL;
    if (before)
        before->behind = behind;
    if (behind)
        behind->before = before;
    else
        chain->tail = before;
    if (!before) {
        lease_inherit(core, lease, behind);
        lease_refresh(core, behind);
    }
    chain_shorten(core, chain, 1);
}

/* It runs, so those ahead of it are done rendering: the room of the first is its own, and nobody
 * can stand behind them any more. */
static void chain_lead(struct core *core, struct lease *lease)
{
    struct lease *ahead = lease->before;
    uint32_t left = 0;

    lease->before = NULL;
    for (struct lease *next = NULL; ahead; ahead = next, left++) {
        next = ahead->before;
        ahead->before = ahead->behind = NULL;
        ahead->chain = NULL;
        ahead->rendered = ahead->started;
        lease_inherit(core, ahead, lease);
        lease_refresh(core, ahead);
    }
    if (left > 0)
        chain_shorten(core, lease->chain, left);
}

/* ---- life ---- */

static void claim_settle(struct core *core, struct lease *lease)
{
    struct worker *worker = lease->claimed_for;

    if (!worker)
        return;
    CHECK(worker->claims > 0);
    worker->claims--;
    lease->claimed_for = NULL;
    sched_worker_dirty(core, worker);
}

static void lease_leave_task(struct lease *lease)
{
    struct task *task = lease->task;

    lease->task = NULL;
    link_remove(&lease->of_task);
    if (task)
        task_drop_if_ordinary(task);
}

void lease_free(struct core *core, struct lease *lease)
{
    struct task *task = lease->task;

    lease->stopping = true; /* so that nothing below counts on it */
    claim_settle(core, lease);
    chain_leave(core, lease);
    lease_release(core, lease);
    lease_refresh(core, lease);
    if (!lease->lapsed)
        sched_job_leases(lease->step->job, -1);
    link_remove(&lease->running);
    link_remove(&lease->of_worker);
    link_remove(&lease->of_job);
    if (task)
        link_remove(&lease->of_task);
    table_remove(&core->leases, lease_hash(&lease->id), lease);
    demand_use(&core->fleet, lease->step->demand, false);
    pool_give(&core->lease_pool, lease);
}

void lease_started(struct core *core, struct lease *lease)
{
    /* One that has lapsed waits for its worker's list, which says whether it lives again. */
    if (lease->started || lease->lapsed)
        return;
    lease->started = true;
    lease->started_ns = core->now_ns;
    lease->started_wall_s = core->wall_s;
    if (!lease->stopping)
        link_last(&core->running, &lease->running);
    claim_settle(core, lease);
    chain_lead(core, lease);
    if (!lease->plan)
        lease_take(core, lease, lease->gpu_mask);
    lease->asked_back = false;
    lease_refresh(core, lease);
    job_touch(lease->step->job);
}

void lease_rendered(struct core *core, struct lease *lease)
{
    lease->rendered = true;
    chain_leave(core, lease);
    lease_release(core, lease);
    lease_refresh(core, lease);
}

void lease_await(struct core *core, struct lease *lease)
{
    claim_settle(core, lease); /* whoever it was asked back for need not wait so long */
    lease_refresh(core, lease);
}

void lease_lapse(struct core *core, struct lease *lease)
{
    CHECK(!lease->lapsed);
    sched_job_leases(lease->step->job, -1);
    lease->lapsed = true; /* what it was asked stays asked: the worker may have answered */
    claim_settle(core, lease);
    lease_release(core, lease); /* its chain stays: the worker, should it speak again, kept to it */
    link_remove(&lease->running);
    lease_refresh(core, lease);
}

/* Its worker speaks again and nobody was faster. */
void lease_revive(struct core *core, struct lease *lease)
{
    CHECK(lease->lapsed);
    sched_job_leases(lease->step->job, 1);
    lease->lapsed = false;
    if (!lease->before && !lease->rendered)
        lease_take(core, lease, lease->gpu_mask);
    lease_refresh(core, lease);
    if (lease->stopping) {
        core_effect_lease(core, EFFECT_REVOKE, lease->worker, &lease->id, CODE_OK)->revoke.revoke =
            CORE_REVOKE_STOP;
        return;
    }
    if (lease->started && !lease->noted)
        link_after(&core->running, &lease->running);
    task_settle(core, lease->task);
}

void lease_stop(struct core *core, struct lease *lease)
{
    if (lease->stopping)
        return;
    core_effect_lease(core, EFFECT_REVOKE, lease->worker, &lease->id, CODE_OK)->revoke.revoke =
        CORE_REVOKE_STOP;
    lease_leave_task(lease);
    /* Also one that has not started, or has lapsed: word that it runs may be on its way. */
    lease->stopping = true;
    claim_settle(core, lease);
    link_remove(&lease->running);
    lease_refresh(core, lease);
    job_touch(lease->step->job);
}

void lease_ask_back(struct core *core, struct lease *lease)
{
    lease->asked_back = true;
    lease_refresh(core, lease);
    core_effect_lease(core, EFFECT_REVOKE, lease->worker, &lease->id, CODE_OK)->revoke.revoke =
        CORE_REVOKE_TAKE_BACK;
}

void worker_refresh_leases(struct core *core, struct worker *worker)
{
    list_each(link, &worker->leases)
        lease_refresh(core, container_of(link, struct lease, of_worker));
}

/* ---- a task's state from its leases ---- */

static bool task_parks(struct core *core, const struct task *task)
{
    uint32_t limit = core->config.attempts_failed;

    if (task->past->failures < limit)
        return false;
    return task->past->n_failed_on >= limit || task->past->n_failed_on >= FAILED_ON ||
           task->past->failures >= ATTEMPTS_FACTOR * limit ||
           !fleet_able_exceeds(&core->fleet, task->step->demand, task->past->n_failed_on, true);
}

/* Others that are connected and have not failed it go first. */
static bool task_has_others(struct core *core, const struct task *task)
{
    uint32_t avoided = 0;
    bool avoid_counted = false;

    for (uint32_t i = 0; i < task->past->n_failed_on; i++) {
        avoided += worker_able(task->past->failed_on[i], task->step->demand);
        avoid_counted |= task->past->failed_on[i] == task->avoid;
    }
    if (task->avoid && !avoid_counted)
        avoided += worker_able(task->avoid, task->step->demand);
    return fleet_able_exceeds(&core->fleet, task->step->demand, avoided, false);
}

static void task_park(struct core *core, struct task *task)
{
    struct job *job = task->step->job;
    struct record record = {.kind = RECORD_CHANGE, .job = job->id};

    record.change.change = CHANGE_PARK;
    record.change.range = (struct task_range){task->step->number, task->index, task->index};
    record.change.floor = step_floor(task->step, task->index);
    core_emit(core, &record);
    job_pause_if_failing(core, task->step);
}

static int64_t back_off(const struct core *core, const struct task *task)
{
    int64_t wait_ns = core->config.licence_ns;

    for (uint32_t i = 1; i < task->past->licence_failures && wait_ns < BACK_OFF_MAX_NS; i++)
        wait_ns *= 2;
    return wait_ns < BACK_OFF_MAX_NS ? wait_ns : BACK_OFF_MAX_NS;
}

void task_settle(struct core *core, struct task *task)
{
    struct step *step = task->step;
    enum task_state state = step_state(step, task->index), wanted = TASK_WAITING;

    list_each(link, &task->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_task);

        if (lease_active(lease) && wanted != TASK_RUNNING)
            wanted = lease->started ? TASK_RUNNING : TASK_LEASED;
    }
    if (state == TASK_DONE || state == TASK_FAILED || state == TASK_CANCELLED ||
        state == TASK_LEFT_OUT) {
        if (task->past->n_full > 0)
            task_past(task)->n_full = 0;
        task_drop_if_ordinary(task);
        return;
    }
    if (wanted != TASK_WAITING) {
        step_move_one(step, task->index, wanted);
        return;
    }
    if (task_parks(core, task)) {
        task_park(core, task);
        return;
    }
    if (state == TASK_WAITING || state == TASK_READY) {
        task_drop_if_ordinary(task);
        return;
    }
    uint64_t index = task->index;
    bool licence = task->past->n_recent > 0 && task->past->last_class == CLASS_LICENCE;

    step_move_one(step, index, TASK_WAITING);
    if (licence)
        task_delay(task, DELAY_BACK_OFF, core->now_ns + back_off(core, task));
    else if ((task->past->n_failed_on || task->avoid) && task_has_others(core, task))
        task_delay(task, DELAY_OTHER_WORKER,
                   core->now_ns + (task->past->failures ? OTHER_WORKER_NS : HANDED_BACK_NS));
    else if (task->avoid)
        task_delay(task, DELAY_BACK_OFF, core->now_ns + HANDED_BACK_NS);
    else
        step_wake(step, index, index);
    task_drop_if_ordinary(task);
}
