/* core.h's life and the order of one step: event, timers, grants, notes, who is told.
 */
#include <broker/core/inner.h>

static bool deadline_before(const void *a, const void *b)
{
    return ((const struct worker *)a)->timer_ns < ((const struct worker *)b)->timer_ns;
}

static bool delay_before(const void *a, const void *b)
{
    return ((const struct task *)a)->delay_until_ns < ((const struct task *)b)->delay_until_ns;
}

static bool expires_before(const void *a, const void *b)
{
    const struct job *x = a, *y = b;

    return x->until_s != y->until_s ? x->until_s < y->until_s : x->sequence < y->sequence;
}

static bool aside_before(const void *a, const void *b)
{
    const struct worker *x = a, *y = b;

    return x->aside_until_wall_s < y->aside_until_wall_s;
}

struct core *core_new(const struct core_config *config)
{
    struct core *core = memory_new(sizeof(*core));
    struct core_config *own = &core->config;

    *own = *config;
    own->lease_ns = own->lease_ns ? own->lease_ns : LIMIT_LEASE_NS;
    own->reconnect_ns = own->reconnect_ns ? own->reconnect_ns : LIMIT_RECONNECT_NS;
    own->licence_ns = own->licence_ns ? own->licence_ns : LIMIT_LICENCE_NS;
    own->note_after_ns = own->note_after_ns ? own->note_after_ns : LIMIT_NOTE_AFTER_NS;
    own->attempts_failed = own->attempts_failed ? own->attempts_failed : LIMIT_ATTEMPTS_FAILED;
    own->job_failed = own->job_failed ? own->job_failed : LIMIT_JOB_FAILED;
    own->job_failed_first = own->job_failed_first ? own->job_failed_first : LIMIT_JOB_FAILED_FIRST;
    own->tasks_max = own->tasks_max ? own->tasks_max : CORE_TASKS;
    own->jobs_max = own->jobs_max ? own->jobs_max : LIMIT_JOBS;
    own->classes_max = own->classes_max ? own->classes_max : LIMIT_CLASSES;
    own->retain_s = own->retain_s ? own->retain_s : LIMIT_RETAIN_S;
    own->retain_delivered_s =
        own->retain_delivered_s ? own->retain_delivered_s : LIMIT_RETAIN_DELIVERED_S;
    own->retain_requests_s =
        own->retain_requests_s ? own->retain_requests_s : LIMIT_RETAIN_REQUESTS_S;
    own->retain_read_s = own->retain_read_s ? own->retain_read_s : LIMIT_GRACE_NS / SECOND_NS;
    own->forget_every_s = own->forget_every_s ? own->forget_every_s : LIMIT_FORGET_EVERY_S;
    own->clock_slack_s = own->clock_slack_s ? own->clock_slack_s : LIMIT_CLOCK_SLACK_S;
    pool_init(&core->task_pool, sizeof(struct task));
    pool_init(&core->past_pool, sizeof(struct past));
    pool_init(&core->lease_pool, sizeof(struct lease));
    pool_init(&core->chain_pool, sizeof(struct chain));
    pool_init(&core->request_pool, sizeof(struct request));
    pool_init(&core->asked_pool, sizeof(struct asked));
    link_init(&core->touched);
    link_init(&core->running);
    fleet_init(&core->fleet, own->seed);
    sched_init(core);
    heap_init(&core->deadlines, deadline_before, offsetof(struct worker, timer_position));
    heap_init(&core->delays, delay_before, offsetof(struct task, delay_position));
    heap_init(&core->asides, aside_before, offsetof(struct worker, aside_position));
    heap_init(&core->expiries, expires_before, offsetof(struct job, until_position));
    link_init(&core->suspects);
    link_init(&core->gone);
    return core;
}

void core_free(struct core *core)
{
    if (!core)
        return;
    for (size_t i = 0; i < core->n_jobs; i++)
        job_free(core->jobs[i]);
    free(core->jobs);
    table_deinit(&core->jobs_by_id);
    table_deinit(&core->tasks);
    table_deinit(&core->leases);
    table_deinit(&core->requests);
    table_deinit(&core->asked);
    pool_deinit(&core->task_pool);
    pool_deinit(&core->past_pool);
    pool_deinit(&core->lease_pool);
    pool_deinit(&core->chain_pool);
    pool_deinit(&core->request_pool);
    pool_deinit(&core->asked_pool);
    heap_deinit(&core->deadlines);
    heap_deinit(&core->delays);
    heap_deinit(&core->asides);
    heap_deinit(&core->expiries);
    sched_deinit(core);
    fleet_deinit(&core->fleet);
    free(core);
}

static void handle(struct core *core, const struct event *event)
{
    switch (event->kind) {
    case EVENT_TICK:
        return;
    case EVENT_SUBMIT:
        on_submit(core, event);
        return;
    case EVENT_VERB:
        on_verb(core, event);
        return;
    case EVENT_EDIT:
        on_edit(core, event);
        return;
    case EVENT_HELLO:
        on_hello(core, event);
        return;
    case EVENT_INVENTORY:
        on_inventory(core, event);
        return;
    case EVENT_ROOM:
        on_room(core, event);
        return;
    case EVENT_QUOTA:
        sched_hold(core, event->quota.studio, event->quota.used_up);
        return;
    case EVENT_BEAT:
        on_beat(core, event);
        return;
    case EVENT_STARTED:
    case EVENT_PROGRESS:
        on_started(core, event, event->kind == EVENT_PROGRESS);
        return;
    case EVENT_RESULT:
        on_result(core, event);
        return;
    case EVENT_RELEASED:
        on_released(core, event);
        return;
    case EVENT_UNSENT:
        on_unsent(core, event);
        return;
    case EVENT_EXPEL:
        on_expel(core, &event->expel.key);
        return;
    case EVENT_TEND:
        on_tend(core, event);
        return;
    case EVENT_DELIVERED:
        on_delivered(core, event);
        return;
    case EVENT_READ:
        on_read(core, &event->read.job);
        return;
    }
}

static void tell_changed(struct core *core)
{
    while (!link_alone(&core->touched)) {
        struct job *job = container_of(core->touched.next, struct job, touched);

        link_remove(&job->touched);
        core_effect(core, EFFECT_CHANGED)->changed.job = job->id;
    }
}

void core_step(struct core *core, const struct event *event, struct outbox *outbox)
{
    CHECK(core->live);
    core->outbox = outbox;
    core->now_ns = event->now_ns > core->now_ns ? event->now_ns : core->now_ns;
    core->wall_s = event->wall_s;
    clock_run(core);
    handle(core, event);
    timers_run(core, event->unread);
    aside_judge(core);
    sched_run(core);
    notes_run(core);
    retain_run(core);
    tell_changed(core);
    core->promised_ns = core_deadline_ns(core);
    core->outbox = NULL;
}

void core_apply(struct core *core, const struct record *record)
{
    CHECK(!core->live);
    apply_record(core, record);
}

/* A noted lease is held for its worker: running, on somebody who is expected back. */
static void hold_noted(struct core *core, struct task *task)
{
    const struct note *note = &task->past->note;
    struct worker *worker = note->worker;

    if (!task->past->noted || note->lease.floor != step_floor(task->step, task->index))
        return;
    struct lease *lease = lease_new(core, &note->lease, task->step, worker);

    lease->started = true;
    lease->noted = true;
    lease->gpu_mask = note->gpu_mask;
    lease->started_ns = core->now_ns;
    worker->awaited = true;
    worker->deadline_ns = core->now_ns + core->config.reconnect_ns;
    timer_worker(core, worker);
    task_settle(core, task);
}

void core_recovered(struct core *core, int64_t now_ns)
{
    CHECK(!core->live);
    core->live = true;
    core->now_ns = now_ns;
    if (core->sequence < core->config.sequence)
        core->sequence = core->config.sequence;
    for (size_t i = 0; i < core->n_jobs; i++) {
        list_each(link, &core->jobs[i]->tasks)
            hold_noted(core, container_of(link, struct task, of_job));
        link_remove(&core->jobs[i]->touched);
    }
    retain_begin(core);
    for (size_t i = 0; i < core->fleet.n_workers; i++) {
        struct worker *worker = core->fleet.workers[i];

        link_remove(&worker->suspected); /* it was judged when it lived */
        if (worker->aside_until_wall_s > 0)
            aside_begin(core, worker); /* the first step's clock says whether it is over */
    }
    core->promised_ns = core_deadline_ns(core);
}
