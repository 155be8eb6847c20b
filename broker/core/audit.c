/* Every invariant of the core, checked from scratch. Slow on purpose: it believes no counter. */
#include <broker/core/inner.h>

/* ---- tasks ---- */

static void audit_step(const struct step *step, uint64_t *delivered)
{
    uint64_t n[TASK_STATES_COUNT] = {0};

    for (uint64_t word = 0; word < bitmap_words(step->n_tasks); word++) {
        uint64_t seen = 0, all = bitmap_mask(word, 0, step->n_tasks - 1);

        for (unsigned state = TASK_WAITING + 1; state < TASK_STATES_COUNT; state++) {
            uint64_t bits = bitmap_word(&step->bits[state], word);

            CHECK((bits & ~all) == 0);
            CHECK((bits & seen) == 0); /* a task has one state */
            seen |= bits;
            n[state] += bits_count(bits);
        }
        uint64_t delayed = bitmap_word(&step->bits[TASK_WAITING], word);

        CHECK((delayed & seen) == 0);
        n[TASK_WAITING] += bits_count(all & ~seen);
        if (step->left_kept)
            CHECK(bitmap_word(&step->left, word) ==
                  (all & ~bitmap_word(&step->bits[TASK_DONE], word) &
                   ~bitmap_word(&step->bits[TASK_LEFT_OUT], word)));
        for (uint64_t rest = all & ~seen & ~delayed; rest; rest &= rest - 1)
            CHECK(!step_open(
                step, word * 64 + (unsigned)__builtin_ctzll(rest))); /* nobody waits for nothing */
        for (uint64_t rest = bitmap_word(&step->bits[TASK_READY], word); rest; rest &= rest - 1)
            CHECK(step_open(step, word * 64 + (unsigned)__builtin_ctzll(rest)));
    }
    CHECK(memcmp(n, step->n, sizeof(n)) == 0);
    for (uint64_t word = 0; word < bitmap_words(step->n_tasks); word++) {
        uint64_t bits = bitmap_word(&step->delivered, word);

        CHECK((bits & ~bitmap_word(&step->bits[TASK_DONE], word)) == 0);
        *delivered += bits_count(bits);
    }
    CHECK(step->unfinished ==
          (n[TASK_WAITING] + n[TASK_READY] + n[TASK_LEASED] + n[TASK_RUNNING] > 0));
    CHECK((step->queue_position != HEAP_NONE) ==
          (step->n[TASK_READY] > 0 && sched_job_open(step->job)));
    for (size_t i = 0; i < step->floors.n; i++) {
        CHECK(step->floors.runs[i].first <= step->floors.runs[i].last);
        CHECK(i == 0 || step->floors.runs[i - 1].last < step->floors.runs[i].first);
    }
}

static void audit_task(const struct core *core, const struct task *task)
{
    enum task_state state = step_state(task->step, task->index);
    unsigned active = 0, started = 0;

    CHECK(task_find(task->step, task->index) == task);
    list_each(link, &task->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_task);

        CHECK(lease->task == task && !lease->stopping);
        CHECK(lease->id.floor ==
              step_floor(task->step, task->index)); /* a raised floor stops leases */
        active += lease_active(lease);
        started += lease_active(lease) && lease->started;
    }
    CHECK(state != TASK_RUNNING || started > 0);
    CHECK(state != TASK_LEASED || (active > 0 && started == 0));
    CHECK((state != TASK_READY && state != TASK_WAITING) || active == 0);
    CHECK(state != TASK_DONE || link_alone(&task->leases));
    CHECK((task->delay != DELAY_NONE) == bitmap_test(&task->step->bits[TASK_WAITING], task->index));
    CHECK((task->delay != DELAY_NONE) == (task->delay_position != HEAP_NONE));
    CHECK((task->delay == DELAY_OTHER_WORKER) == !link_alone(&task->delayed));
    (void)core;
}

static void audit_job(const struct core *core, const struct job *job)
{
    uint64_t n[TASK_STATES_COUNT] = {0}, exceptional = 0, delivered = 0;
    uint32_t out = 0;

    for (uint32_t i = 0; i < job->n_steps; i++) {
        audit_step(&job->steps[i], &delivered);
        for (unsigned state = 0; state < TASK_STATES_COUNT; state++)
            n[state] += job->steps[i].n[state];
        exceptional += job->steps[i].n[TASK_LEASED] + job->steps[i].n[TASK_RUNNING];
    }
    CHECK(memcmp(n, job->n, sizeof(n)) == 0);
    CHECK(delivered == job->n_delivered);
    /* What is over is forgotten some time, and nothing else. */
    CHECK(!core->live || (job->until_position != HEAP_NONE) == job_finished(job));
    list_each(link, &job->tasks)
    {
        const struct task *task = container_of(link, struct task, of_job);
        enum task_state state = step_state(task->step, task->index);

        audit_task(core, task);
        exceptional -= state == TASK_LEASED || state == TASK_RUNNING;
    }
    CHECK(exceptional == 0); /* whoever is leased has a lease */
    list_each(link, &job->leases) out += !container_of(link, struct lease, of_job)->lapsed;
    CHECK(out == job->n_out);
    CHECK(job->state != JOB_CANCELLED ||
          job->n[TASK_CANCELLED] + job->n[TASK_DONE] + job->n[TASK_LEFT_OUT] == job->n_tasks);
    CHECK(job_find(core, &job->id) == job);
}

/* ---- leases ---- */

static void audit_chain(const struct lease *head)
{
    const struct lease *tail = head;
    uint32_t n = 1;

    for (; tail->behind && n < head->chain->n; tail = tail->behind)
        n++;
    CHECK(n == head->chain->n && tail == head->chain->tail && !tail->behind);
}

static void audit_lease(const struct core *core, const struct lease *lease)
{
    const struct worker *worker = lease->worker;

    CHECK(lease_find(core, &lease->id) == lease);
    CHECK(lease->stopping == !lease->task);
    CHECK(!lease->behind || lease->behind->before == lease);
    CHECK(!lease->before || lease->before->behind == lease);
    CHECK((lease->chain == NULL) == (!lease->before && !lease->behind));
    CHECK(!lease->before ||
          (lease->chain == lease->before->chain && lease->before->worker == worker));
    if (lease->chain && !lease->before)
        audit_chain(lease);
    CHECK(!lease->before || lease->before->step->demand == lease->step->demand);
    CHECK(!lease->before || !lease->plan); /* the queued hold nothing */
    CHECK(!lease->lapsed || !lease->plan);
    /* What runs has its room, also after a restart and until it has stopped. */
    CHECK(lease->lapsed || !lease->started || lease->rendered || !worker->connected ||
          !worker->listed || lease->plan);
    CHECK(link_alone(&lease->running) || (lease_active(lease) && lease->started && !lease->noted));
    CHECK(link_alone(&lease->hungry) ||
          (lease_active(lease) && !lease->behind && worker_available(&core->fleet, worker) &&
           lease->step->demand->hungry_mask >> lease_ahead(lease) & 1));
    CHECK(link_alone(&lease->queued) ||
          (lease_active(lease) && !lease->started && lease->before && !lease->behind));
    CHECK(!lease->chain || lease_ahead(lease) <= worker->shape->prefetch ||
          !worker_available(&core->fleet, worker));
    CHECK(!lease->claimed_for || lease->asked_back);
    /* Of a studio that is held nothing waits at a worker but to go back. */
    CHECK(!lease->step->job->studio->held || !lease->before || lease->started || lease->stopping ||
          lease->asked_back);
}

static void audit_worker(const struct core *core, const struct worker *worker)
{
    const struct shape *shape = worker->shape;
    int64_t room[FREE_CARDS + LIMIT_GPUS + LIMIT_AMOUNTS] = {0};
    uint32_t cards = 0;

    for (size_t i = 0; shape && i < shape->n_free; i++)
        room[i] = shape->total[i];
    list_each(link, &worker->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_worker);

        audit_lease(core, lease);
        CHECK(worker->connected || worker->awaited || lease->lapsed);
        /* What it is not to begin any more is on its way back. */
        CHECK(worker_willing(worker) || lease->started || lease->stopping || lease->asked_back);
        if (!lease->plan)
            continue;
        CHECK((cards & lease->gpu_mask) == 0); /* a card is leased once */
        cards |= lease->gpu_mask;
        for (size_t i = 0; i < shape->n_free; i++)
            if (i < FREE_CARDS || i >= FREE_CARDS + shape->n_kinds)
                room[i] -= lease->plan->need[i];
        for (uint32_t card = 0; card < shape->n_cards; card++)
            room[FREE_CARDS + shape->card_kind[card]] -= lease->gpu_mask >> card & 1;
    }
    CHECK(!shape || memcmp(room, worker->free, shape->n_free * sizeof(*room)) == 0);
    CHECK(cards == worker->cards_busy);
    CHECK((worker->group != NULL) == worker_available(&core->fleet, worker));
    CHECK(worker->aside == (worker->aside_position != HEAP_NONE));
    CHECK(!worker->aside || worker->aside_until_wall_s > 0);
    CHECK(!worker->group ||
          memcmp(worker->group->free, worker->free, shape->n_free * sizeof(*room)) == 0);
    CHECK(!worker->quiet || worker->connected);
    CHECK(link_alone(&worker->held) || (worker->awaited && !worker->connected && worker->greeted));
    CHECK(!worker->awaited || !worker->connected);
    CHECK(!worker->connected || worker->timer_position != HEAP_NONE);
    CHECK(worker->timer_position == HEAP_NONE || worker->timer_ns <= worker->deadline_ns ||
          worker->timer_ns <= core->pardon_ns);
}

static void audit_shape(const struct core *core, const struct shape *shape)
{
    uint32_t workers = 0, connected = 0, held = 0, drained = 0, aside = 0;

    for (size_t i = 0; i < core->fleet.n_workers; i++) {
        const struct worker *worker = core->fleet.workers[i];

        if (worker->shape != shape)
            continue;
        workers++;
        connected += worker->connected;
        held += !link_alone(&worker->held);
        drained += worker->connected && worker->drained;
        aside += worker->connected && worker->aside && !worker->drained;
        const struct name_set *set = shape->sets;

        while (strcmp(set->name, ATTRIBUTE_POOL) != 0) /* every shape has one */
            set++;
        CHECK(set->n_any_of == 1 && set->any_of[0] == worker->pool);
    }
    CHECK(shape->n_cards <= LIMIT_GPUS && shape->n_kinds <= shape->n_cards);
    CHECK(shape->n_free <= FREE_CARDS + LIMIT_GPUS + LIMIT_AMOUNTS);
    for (uint32_t card = 0; card < shape->n_cards; card++)
        CHECK(shape->card_kind[card] < shape->n_kinds);
    CHECK(workers == shape->workers && connected == shape->connected && held == shape->held);
    CHECK(drained == shape->drained && aside == shape->aside);
}

static void audit_fleet(const struct core *core)
{
    const struct fleet *fleet = &core->fleet;
    uint32_t connected = 0, quiet = 0, held = 0;

    for (size_t i = 0; i < fleet->n_workers; i++) {
        const struct worker *worker = fleet->workers[i];

        audit_worker(core, worker);
        connected += worker->connected;
        quiet += worker->quiet;
        held += !link_alone(&worker->held);
    }
    CHECK(connected == fleet->connected && quiet == fleet->quiet && held == fleet->n_held);
    list_each(link, &fleet->held)
    {
        const struct worker *worker = container_of(link, struct worker, held);

        CHECK(link->prev == &fleet->held || /* the longest held are the first to lapse */
              container_of(link->prev, struct worker, held)->deadline_ns <= worker->deadline_ns);
        held--;
    }
    CHECK(held == 0);
}

/* ---- nothing is forgotten ---- */

static void audit_open(const struct fleet *fleet)
{
    size_t open = 0;

    for (const struct group *group = fleet_open_next(fleet, NULL); group;
         group = fleet_open_next(fleet, group))
        open++;
    list_each(link, &fleet->shapes)
        list_each(of_shape, &container_of(link, struct shape, link)->groups)
    {
        const struct group *group = container_of(of_shape, struct group, link);
        bool wanted = !link_alone(&group->workers) && group->free[FREE_SLOTS] >= AMOUNT_ONE;

        CHECK(wanted == !link_alone(&group->open));
        open -= wanted;
    }
    CHECK(open == 0); /* each is come by, once */
}

static void audit_queues(const struct demand *demand)
{
    for (size_t i = 0; i < demand->queues.n; i++) {
        const struct queue *queue = demand->queues.items[i];

        CHECK(queue->position == i && queue->steps.n > 0 && !link_alone(&queue->waiting));
        CHECK(i == 0 || !demand->queues.less(queue, demand->queues.items[(i - 1) / 2]));
    }
}

static void audit_studio(const struct core *core, const struct studio *studio)
{
    size_t waiting = 0;
    uint64_t classes = 0, tasks = 0;

    for (size_t i = 0; i < core->fleet.n_demands; i++)
        for (const struct queue *queue = core->fleet.all_demands[i]->of_studios; queue;
             queue = queue->next_of_demand) {
            if (queue->studio != studio)
                continue;
            CHECK((queue->position != HEAP_NONE) == (queue->steps.n > 0));
            CHECK((queue->position != HEAP_NONE) == !link_alone(&queue->waiting));
            waiting += queue->steps.n > 0;
            classes += queue->uses > 0;
        }
    list_each(link, &studio->waiting) waiting--;
    for (size_t i = 0; i < studio->n_jobs; i++)
        tasks += studio->jobs[i]->n_tasks;
    CHECK(waiting == 0 && classes == studio->n_classes && tasks == studio->n_tasks);
}

static void audit_demand(const struct core *core, const struct demand *demand)
{
    struct fleet *fleet = (struct fleet *)&core->fleet;
    uint64_t uses = 0;

    for (const struct queue *queue = demand->of_studios; queue; queue = queue->next_of_demand)
        uses += queue->uses;
    CHECK(uses <= demand->uses);
    CHECK((demand->number == DEMAND_UNUSED) == (demand->uses == 0));
    if (!demand->queues.less)
        return;
    audit_queues(demand);
    CHECK((demand->queues.n > 0) == !link_alone(&demand->runnable));
    bool wants = demand->queues.n > 0 && core->lease_pool.in_use < LIMIT_LEASES;

    CHECK(!wants || demand->hungry_mask == 0);   /* work and a place in a queue never lie idle */
    CHECK(!wants || !fleet_room(fleet, demand)); /* nor work and room */
    for (uint64_t rest = demand->hungry_mask; rest; rest &= rest - 1) {
        const struct link *list = &demand->hungry[__builtin_ctzll(rest)];

        CHECK(!link_alone(list)); /* and who is in one has its bit: audit_lease */
        CHECK(lease_ahead(container_of(list->next, struct lease, hungry)) ==
              (uint32_t)(list - demand->hungry));
    }
    CHECK(link_alone(&demand->queued) == link_alone(&demand->stealable));
    CHECK(link_alone(&demand->delayed) == link_alone(&demand->wanting));
}

/* What was asked about a job goes with it, the longest gone first. */
static void audit_asked(const struct core *core)
{
    const struct asked *before = NULL;

    list_each(link, &core->gone)
    {
        const struct asked *asked = container_of(link, struct asked, gone);

        CHECK(asked_find(core, &asked->job) == asked);
        CHECK(!before || before->until_s <= asked->until_s + core->config.clock_slack_s);
        before = asked;
    }
    for (size_t i = 0; i < core->expiries.n; i++) {
        const struct job *job = core->expiries.items[i];

        CHECK(job->until_position == i);
        CHECK(i == 0 || !core->expiries.less(job, core->expiries.items[(i - 1) / 2]));
    }
}

void core_audit(const struct core *core)
{
    size_t leases = 0, tasks = 0, uses = 0;

    for (size_t i = 0; i < core->n_jobs; i++) {
        audit_job(core, core->jobs[i]);
        CHECK(i == 0 || core->jobs[i - 1]->sequence < core->jobs[i]->sequence);
        list_each(link, &core->jobs[i]->leases) leases++;
        list_each(link, &core->jobs[i]->tasks) tasks++;
        for (uint32_t j = 0; j < core->jobs[i]->n_steps; j++)
            uses += core->jobs[i]->steps[j].unfinished;
    }
    CHECK(leases == core->lease_pool.in_use && leases == core->leases.n);
    CHECK(tasks == core->task_pool.in_use && tasks == core->tasks.n);
    uses += leases; /* a class is used by unfinished steps and by leases */
    for (size_t i = 0; i < core->fleet.n_demands; i++)
        uses -= core->fleet.all_demands[i]->uses;
    CHECK(uses == 0);
    list_each(link, &core->fleet.shapes) audit_shape(core, container_of(link, struct shape, link));
    audit_asked(core);
    audit_fleet(core);
    audit_open(&core->fleet);
    for (size_t i = 0; i < core->n_studios; i++)
        audit_studio(core, core->all_studios[i]);
    if (!core->live || core->promised_ns == 0)
        return;
    for (size_t i = 0; i < core->fleet.n_demands; i++)
        audit_demand(core, core->fleet.all_demands[i]);
}
