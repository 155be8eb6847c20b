/* sched.h: only what an event touched is looked at again, because nothing else can have begun to
 * fit: work that became ready (a dirty demand), room that became free (a dirty worker).
 */
#include <broker/core/inner.h>

enum { CLOCK_GRANT = 1 << 20 }; /* virtual time of one grant at weight 1 */
enum { CLOCK_LAG = 64 * CLOCK_GRANT };
enum { DELAYED_LOOKED_AT = 16 }; /* tasks that want another worker, per look */

/* ---- order ---- */

/* What is begun is finished first: a frame's tiles are joined before the next frame's are rendered. */
static bool step_before(const void *a, const void *b)
{
    const struct step *x = a, *y = b;

    if (x->priority != y->priority)
        return x->priority > y->priority;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence;
    if (x->depth != y->depth)
        return x->depth > y->depth;
    return x->number < y->number;
}

static bool queue_before(const void *a, const void *b)
{
    const struct queue *x = a, *y = b;

    if (x->studio->clock != y->studio->clock)
        return x->studio->clock < y->studio->clock;
    return x->studio->id.value < y->studio->id.value;
}

/* Between queues of one studio, whose clock is equal, the better step decides. */
static bool queue_first(const struct queue *a, const struct queue *b)
{
    if (a->studio != b->studio)
        return queue_before(a, b);
    return step_before(heap_top(&a->steps), heap_top(&b->steps));
}

/* ---- studios and queues ---- */

void sched_init(struct core *core)
{
    link_init(&core->runnable);
    link_init(&core->stealable);
    link_init(&core->wanting);
    link_init(&core->dirty_demands);
    link_init(&core->dirty_workers);
    core->spared = 1;
}

void sched_deinit(struct core *core)
{
    for (size_t i = 0; i < core->n_studios; i++) {
        free(core->all_studios[i]->jobs);
        free(core->all_studios[i]);
    }
    for (size_t i = 0; i < core->fleet.n_demands; i++)
        for (struct queue *queue = core->fleet.all_demands[i]->of_studios, *next = NULL; queue;
             queue = next) {
            next = queue->next_of_demand;
            heap_deinit(&queue->steps);
            free(queue);
        }
    free(core->all_studios);
    table_deinit(&core->studios);
}

static bool studio_is(const void *value, const void *key)
{
    return ((const struct studio *)value)->id.value == ((const struct studio_id *)key)->value;
}

struct studio *studio_find(const struct core *core, struct studio_id id)
{
    return table_find(&core->studios, hash_number(6, id.value), studio_is, &id);
}

struct studio *studio_of(struct core *core, struct studio_id id)
{
    struct studio *studio = studio_find(core, id);

    if (studio || core->n_studios == LIMIT_STUDIOS)
        return studio;
    studio = memory_new(sizeof(*studio));
    studio->id = id;
    studio->weight = 1;
    link_init(&studio->waiting);
    MEMORY_GROW(core->all_studios, core->n_studios, core->studios_capacity);
    core->all_studios[core->n_studios++] = studio;
    table_insert(&core->studios, hash_number(6, id.value), studio);
    return studio;
}

void demand_init_queues(struct demand *demand)
{
    heap_init(&demand->queues, queue_before, offsetof(struct queue, position));
    link_init(&demand->runnable);
    link_init(&demand->dirty);
    link_init(&demand->delayed);
    link_init(&demand->wanting);
    link_init(&demand->queued);
    link_init(&demand->stealable);
    for (unsigned i = 0; i < LIMIT_PREFETCH; i++)
        link_init(&demand->hungry[i]);
}

struct queue *studio_queue(struct studio *studio, struct demand *demand)
{
    for (struct queue *queue = demand->of_studios; queue; queue = queue->next_of_demand)
        if (queue->studio == studio)
            return queue;
    struct queue *queue = memory_new(sizeof(*queue));

    queue->studio = studio;
    queue->demand = demand;
    queue->position = HEAP_NONE;
    link_init(&queue->waiting);
    heap_init(&queue->steps, step_before, offsetof(struct step, queue_position));
    queue->next_of_demand = demand->of_studios;
    demand->of_studios = queue;
    return queue;
}

void queue_use(struct queue *queue, struct fleet *fleet, bool more)
{
    bool used = queue->uses > 0;

    queue->uses += more ? 1 : -1u;
    queue->studio->n_classes += (queue->uses > 0) - used;
    demand_use(fleet, queue->demand, more);
}

void core_studio_weight(struct core *core, struct studio_id id, uint32_t weight)
{
    struct studio *studio = studio_of(core, id);

    if (studio)
        studio->weight = weight ? weight : 1;
}

static void queue_opened(struct core *core, struct queue *queue)
{
    struct studio *studio = queue->studio;

    if (link_alone(&studio->waiting) && studio->clock < core->clock)
        studio->clock = core->clock; /* none of its queues is in a heap: nothing to sort again */
    link_last(&studio->waiting, &queue->waiting);
    heap_add(&queue->demand->queues, queue);
    if (link_alone(&queue->demand->runnable))
        link_last(&core->runnable, &queue->demand->runnable);
}

static void queue_closed(struct queue *queue)
{
    link_remove(&queue->waiting);
    heap_remove(&queue->demand->queues, queue);
    if (queue->demand->queues.n > 0)
        return;
    link_remove(&queue->demand->runnable);
    queue->demand->barren = 0; /* nobody who comes to have room looks for it any more */
}

bool sched_job_open(const struct job *job)
{
    return job->state == JOB_ACTIVE && !job->studio->held &&
           (job->max_workers == 0 || job->n_out < job->max_workers);
}

/* A job at its limit has no step in a queue, so that the limit costs the others nothing. */
void sched_job_leases(struct job *job, int by)
{
    bool open = sched_job_open(job);

    job->n_out += (uint32_t)by;
    if (sched_job_open(job) != open)
        sched_job_changed(job);
}

void sched_step_changed(struct step *step)
{
    struct core *core = step->job->core;
    struct queue *queue = step->queue;
    bool wanted = step->n[TASK_READY] > 0 && sched_job_open(step->job);

    if (wanted == (step->queue_position != HEAP_NONE))
        return;
    if (wanted) {
        heap_add(&queue->steps, step);
        if (queue->steps.n == 1)
            queue_opened(core, queue);
        sched_demand_dirty(core, queue->demand);
        return;
    }
    heap_remove(&queue->steps, step);
    if (queue->steps.n == 0)
        queue_closed(queue);
}

void sched_job_changed(struct job *job)
{
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];

        sched_step_changed(step);
        if (step->queue_position != HEAP_NONE)
            heap_moved(&step->queue->steps, step);
        if (!link_alone(&step->demand->delayed))
            sched_demand_dirty(job->core, step->demand);
    }
}

/* A job that the studio submits meanwhile is held as well, also its first. */
void sched_hold(struct core *core, struct studio_id id, bool held)
{
    struct studio *studio = held ? studio_of(core, id) : studio_find(core, id);

    if (!studio || studio->held == held)
        return;
    studio->held = held;
    for (size_t i = 0; i < studio->n_jobs; i++) {
        struct job *job = studio->jobs[i];

        sched_job_changed(job);
        if (!job_finished(job))
            job_touch(job);
        if (held)
            job_take_back(core, job);
    }
}

void sched_demand_dirty(struct core *core, struct demand *demand)
{
    if (link_alone(&demand->dirty))
        link_last(&core->dirty_demands, &demand->dirty);
}

void sched_worker_dirty(struct core *core, struct worker *worker)
{
    if (link_alone(&worker->dirty))
        link_last(&core->dirty_workers, &worker->dirty);
}

/* ---- granting ---- */

static void studio_charge(struct core *core, struct studio *studio)
{
    /* One that found no room for long may catch up a little, not all. */
    if (studio->clock + CLOCK_LAG < core->clock)
        studio->clock = core->clock - CLOCK_LAG;
    if (studio->clock > core->clock)
        core->clock = studio->clock;
    studio->clock += CLOCK_GRANT / studio->weight ? CLOCK_GRANT / studio->weight : 1;
    list_each(link, &studio->waiting)
    {
        struct queue *queue = container_of(link, struct queue, waiting);

        if (queue->demand->queues.n > 1)
            heap_moved(&queue->demand->queues, queue);
    }
}

static void grant(struct core *core, struct step *step, uint64_t index, struct worker *worker,
                  struct lease *tail)
{
    struct lease_id id = {.job = step->job->id,
                          .task = {step->number, index},
                          .floor = step_floor(step, index),
                          .epoch = core->config.epoch,
                          .attempt = ++core->attempt};
    struct lease *lease = lease_new(core, &id, step, worker);

    if (tail)
        lease_queue(tail, lease);
    else
        CHECK(lease_take(core, lease, 0));
    lease_refresh(core, lease);
    step_move_one(step, index, TASK_LEASED);
    studio_charge(core, step->job->studio);
    const struct demand *demand = step->demand;
    const struct plan *plan = demand_plan(demand, worker->shape);
    struct effect *effect = core_effect(core, EFFECT_ASSIGN);
    int64_t vcpus = plan->need[FREE_VCPUS] / AMOUNT_ONE;

    effect->worker = worker->id;
    effect->lease = id;
    effect->assign.studio = step->job->studio->id;
    effect->assign.gpu_mask = lease->gpu_mask;
    effect->assign.vcpus = vcpus > 0 ? (uint32_t)vcpus : plan->need[FREE_VCPUS] > 0;
    effect->assign.memory_mib = (uint64_t)(demand->memory / AMOUNT_ONE);
    effect->assign.behind = tail ? tail->id.attempt : 0;
    effect->assign.behind_epoch = tail ? tail->id.epoch : 0;
}

static bool grant_top(struct core *core, struct queue *queue, struct worker *worker,
                      struct lease *tail)
{
    struct step *step = heap_top(&queue->steps);

    if (core->lease_pool.in_use >= LIMIT_LEASES) {
        core->spared++; /* there is room, and it stays */
        return false;
    }
    grant(core, step, bitmap_next(&step->bits[TASK_READY], 0), worker, tail);
    return true;
}

static bool worker_fits(const struct worker *worker, const struct demand *demand)
{
    const struct plan *plan = demand_plan(demand, worker->shape);

    return worker->group && plan->possible && shape_fits(worker->shape, worker->free, plan);
}

/* A task that failed elsewhere, if this worker has not failed it. */
static bool grant_delayed(struct core *core, struct demand *demand, struct worker *worker)
{
    unsigned looked_at = 0;

    list_each(link, &demand->delayed)
    {
        struct task *task = container_of(link, struct task, delayed);

        if (looked_at++ == DELAYED_LOOKED_AT)
            break;
        if (!sched_job_open(task->step->job) || task_avoids(task, worker) ||
            core->lease_pool.in_use >= LIMIT_LEASES)
            continue;
        grant(core, task->step, task->index, worker, NULL);
        return true;
    }
    return false;
}

static bool fill_once(struct core *core, struct worker *worker)
{
    struct queue *best = NULL;

    list_each(link, &core->runnable)
    {
        struct demand *demand = container_of(link, struct demand, runnable);
        struct queue *queue = heap_top(&demand->queues);

        if ((!best || queue_first(queue, best)) && worker_fits(worker, demand))
            best = queue;
    }
    return best && grant_top(core, best, worker, NULL);
}

static bool has_room(const struct worker *worker)
{
    return worker->group && worker->free[FREE_SLOTS] >= AMOUNT_ONE;
}

static void fill(struct core *core, struct worker *worker)
{
    list_each(link, &core->wanting)
    {
        struct demand *demand = container_of(link, struct demand, wanting);

        while (!link_alone(&demand->delayed) && worker_fits(worker, demand) &&
               grant_delayed(core, demand, worker))
            ;
    }
    while (has_room(worker) && fill_once(core, worker))
        ;
}

/* Asks back what has not started elsewhere, for a worker that has room and nothing to do. */
static void claim(struct core *core, struct worker *worker)
{
    while (has_room(worker) && (int64_t)worker->claims * AMOUNT_ONE < worker->free[FREE_SLOTS]) {
        struct lease *found = NULL;

        list_each(link, &core->stealable)
        {
            struct demand *demand = container_of(link, struct demand, stealable);

            if (!found && worker_fits(worker, demand))
                found = container_of(demand->queued.next, struct lease, queued);
        }
        if (!found)
            return;
        found->claimed_for = worker;
        worker->claims++;
        lease_ask_back(core, found);
    }
}

/* ---- after an event ---- */

static void place_delayed(struct core *core, struct demand *demand)
{
    unsigned looked_at = 0;

    list_each(link, &demand->delayed)
    {
        struct task *task = container_of(link, struct task, delayed);
        struct worker *worker = NULL;

        if (looked_at++ == DELAYED_LOOKED_AT)
            return;
        if (!sched_job_open(task->step->job) || core->lease_pool.in_use >= LIMIT_LEASES)
            continue;
        for (struct group *group = fleet_open_next(&core->fleet, NULL); group && !worker;
             group = fleet_open_next(&core->fleet, group)) {
            const struct plan *plan = demand_plan(demand, group->shape);

            if (!plan->possible || !shape_fits(group->shape, group->free, plan))
                continue;
            list_each(member, &group->workers)
            { /* at most a handful are avoided */
                worker = container_of(member, struct worker, grouped);
                if (!task_avoids(task, worker))
                    break;
                worker = NULL;
            }
        }
        if (worker)
            grant(core, task->step, task->index, worker, NULL);
    }
}

static void place(struct core *core, struct demand *demand)
{
    if (!link_alone(&demand->delayed))
        place_delayed(core, demand);
    /* While it waits, whoever comes to have room looks for it (fill): so where nobody had any, nobody
     * has, and the groups need not be walked again; there may be as many as workers. */
    while (demand->queues.n > 0 && demand->barren != core->spared &&
           core->lease_pool.in_use < LIMIT_LEASES) {
        struct group *group = fleet_room(&core->fleet, demand);

        if (!group)
            demand->barren = core->spared;
        /* One at a time: the emptiest worker is another one after each. */
        else if (!fill_once(core, container_of(group->workers.next, struct worker, grouped)))
            return;
    }
}

/* Nobody has room for it now: behind those that run it, the shortest chains first. */
static void prefetch(struct core *core, struct demand *demand)
{
    while (demand->queues.n > 0 && demand->hungry_mask) {
        struct link *list = &demand->hungry[__builtin_ctzll(demand->hungry_mask)];
        struct lease *tail = container_of(list->next, struct lease, hungry);

        if (!grant_top(core, heap_top(&demand->queues), tail->worker, tail))
            return;
    }
}

void sched_run(struct core *core)
{
    while (!link_alone(&core->dirty_workers) || !link_alone(&core->dirty_demands)) {
        while (!link_alone(&core->dirty_workers)) {
            struct worker *worker = container_of(core->dirty_workers.next, struct worker, dirty);

            link_remove(&worker->dirty);
            fill(core, worker);
            claim(core, worker);
        }
        if (link_alone(&core->dirty_demands))
            return;
        struct demand *demand = container_of(core->dirty_demands.next, struct demand, dirty);

        place(core, demand);
        prefetch(core, demand);
        link_remove(&demand->dirty);
    }
}
