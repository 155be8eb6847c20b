/* The broker, its store and its links: records wait for a sync, effects for their records, messages
 * for their time; a crash keeps what was synced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sim.h"

uint64_t sim_random(struct world *world, uint64_t below)
{
    uint64_t x = world->random += 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return (x ^ (x >> 31)) % below;
}

bool sim_chance(struct world *world, unsigned in)
{
    return sim_random(world, in) == 0 && !world->calm;
}

void world_trace(const struct world *world, uint32_t worker, const char *what,
                 const struct lease_id *lease, uint64_t number)
{
    if (world->trace)
        fprintf(stderr,
                "%9.3f worker %u %-10s job %u step %u task %llu floor %u lease %u/%llu (%llu)\n",
                (double)world->now_ns / 1e9, worker, what, lease->job.bytes[0], lease->task.step,
                (unsigned long long)lease->task.index, lease->floor, lease->epoch,
                (unsigned long long)lease->attempt, (unsigned long long)number);
}

static void *grown(void *items, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity)
        return items;
    *capacity = *capacity ? 2 * *capacity : 64;
    items = realloc(items, *capacity * size);
    CHECK(items);
    return items;
}

/* ---- jobs as the core is told of them ---- */

/* Frames 1 to n_tasks; each that was added since is a range of its own. */
void space_fill(uint32_t n_tasks, uint32_t n_submitted, struct space *space)
{
    struct space_range ranges[TASKS] = {{.first = 1, .last = n_submitted, .step = 1}};
    size_t n = 1;

    for (int64_t frame = n_submitted + 1; frame <= n_tasks; frame++)
        ranges[n++] = (struct space_range){frame, frame, 1};
    space_init(space);
    CHECK(space_add_ints(space, "frame", 0, 1, false, ranges, n) == 0 && space_seal(space) == 0);
}

void spec_fill(const struct sim_job *job, struct job_spec *spec, struct step_spec *steps,
               struct space *spaces)
{
    static const char *const blender[] = {"4.2"};
    static const char *const pool[] = {"a"};
    static const struct attribute attributes[] = {
        {.name = ATTRIBUTE_POOL, .any_of = pool, .n_any_of = 1},
        {.name = "attr.software.blender", .any_of = blender, .n_any_of = 1}};
    static struct amount amounts[STEPS][2];
    static struct dependency dependencies[STEPS];

    *spec = (struct job_spec){.job = job->id,
                              .studio = job->studio,
                              .priority = job->priority,
                              .max_workers = job->max_workers,
                              .steps = steps,
                              .n_steps = job->n_steps,
                              .name = "sim"};
    for (uint32_t i = 0; i < job->n_steps; i++) {
        const struct sim_step *step = &job->steps[i];

        space_fill(step->n_tasks, step->n_tasks, &spaces[i]);
        steps[i] = (struct step_spec){.space = &spaces[i], .amounts = amounts[i]};
        if (step->vcpus > 0)
            amounts[i][steps[i].n_amounts++] = (struct amount){"amount.worker.vcpu", step->vcpus};
        if (step->cards > 0)
            amounts[i][steps[i].n_amounts++] = (struct amount){"amount.worker.gpu", step->cards};
        steps[i].attributes = attributes + !job->pooled;
        steps[i].n_attributes = (size_t)job->pooled + step->needs_blender;
        dependencies[i] = (struct dependency){.step = i - 1, .per = step->per};
        steps[i].dependencies = &dependencies[i];
        steps[i].n_dependencies = step->depends;
    }
}

/* ---- the broker ---- */

/* The spec and the spaces that the store leaves to its caller are made as they were. */
static void apply(const struct world *world, struct core *core, const struct record *kept)
{
    struct record record = *kept;
    struct job_spec spec;
    struct step_spec steps[STEPS];
    struct space spaces[STEPS];
    const struct sim_job *job = record.kind == RECORD_JOB || record.kind == RECORD_EDIT
                                    ? &world->jobs[sim_job_number(world, &record.job)]
                                    : NULL;

    if (record.kind == RECORD_JOB) {
        spec_fill(job, &spec, steps, spaces);
        record.submit.spec = &spec;
    }
    for (size_t i = 0; record.kind == RECORD_EDIT && i < record.edit.n_spaces; i++)
        space_fill(record.edit.blob_size >> 8 * i & 255, job->steps[i].n_tasks, &spaces[i]);
    if (record.kind == RECORD_EDIT)
        record.edit.spaces = spaces;
    core_apply(core, &record);
}

static struct core *core_made(const struct world *world, uint64_t seed)
{
    struct core_config config = {.epoch = world->epoch,
                                 .seed = seed,
                                 .retain_s = RETAIN_S,
                                 .retain_delivered_s = RETAIN_DELIVERED_S,
                                 .retain_requests_s = RETAIN_REQUESTS_S,
                                 .retain_read_s = RETAIN_READ_S,
                                 .forget_every_s = FORGET_EVERY_S,
                                 .clock_slack_s = SLACK_S};

    return core_new(&config);
}

/* What the store deletes: of a job that is forgotten all but its requests, of one that is not even
 * remembered those, and all but the last word of that. */
struct kept {
    bool forgotten[JOBS], unasked[JOBS];
    size_t last_unask;
};

static struct kept kept_of(const struct world *world, size_t n_records)
{
    struct kept kept = {.last_unask = SIZE_MAX};

    for (size_t i = 0; i < n_records; i++) {
        const struct record *record = &world->records[i];

        if (record->kind == RECORD_FORGET)
            kept.forgotten[record->job.bytes[0]] = true;
        if (record->kind == RECORD_UNASK) {
            kept.unasked[record->job.bytes[0]] = true;
            kept.last_unask = i;
        }
    }
    return kept;
}

static bool is_kept(const struct kept *kept, const struct record *record, size_t i)
{
    static const struct job_id none;
    uint8_t job = record->job.bytes[0];

    if (memcmp(&record->job, &none, sizeof(none)) == 0)
        return true;
    switch (record->kind) {
    case RECORD_UNASK:
        return i == kept->last_unask;
    case RECORD_FORGET:
    case RECORD_REQUEST:
        return !kept->unasked[job];
    default:
        return !kept->forgotten[job] && !kept->unasked[job];
    }
}

struct core *world_replay(const struct world *world, size_t n_records)
{
    struct core *core = core_made(world, world->seed + world->epoch);
    struct kept kept = kept_of(world, n_records);

    for (size_t i = 0; i < n_records; i++)
        if (is_kept(&kept, &world->records[i], i))
            apply(world, core, &world->records[i]);
    return core;
}

/* The store deletes what it may; who is durably gone stays gone. */
static void records_prune(struct world *world)
{
    struct kept kept = kept_of(world, world->n_records);
    size_t n = 0;

    for (size_t i = 0; i < world->n_records; i++) {
        const struct record *record = &world->records[i];

        if (record->kind == RECORD_FORGET)
            world->job_model[record->job.bytes[0]].buried = true;
        if (!is_kept(&kept, record, i))
            continue;
        world->record_ns[n] = world->record_ns[i];
        world->records[n++] = *record;
    }
    world->n_records = world->n_durable = n;
}

int64_t world_wall_s(const struct world *world)
{
    return world->now_ns / SECOND + world->wall_ahead_s;
}

static const struct job_id *event_job(const struct event *event)
{
    return event->kind == EVENT_VERB        ? &event->verb.job
           : event->kind == EVENT_EDIT      ? &event->edit.job
           : event->kind == EVENT_DELIVERED ? &event->delivered.job
                                            : NULL;
}

static uint32_t worker_of(const struct world *world, const struct effect *effect)
{
    struct worker_view view;

    if (effect->kind == EFFECT_WELCOME)
        return (uint32_t)effect->cookie;

    CHECK(core_worker(world->core, effect->worker, &view));
    return view.key.bytes[0];
}

static bool is_to_worker(const struct effect *effect)
{
    return effect->kind != EFFECT_CHANGED && effect->kind != EFFECT_REPLY;
}

/* The connection that it is for: what comes after it is another. */
static uint64_t effect_session(const struct world *world, const struct effect *effect)
{
    return is_to_worker(effect) ? world->workers[worker_of(world, effect)].session : 0;
}

void world_event(struct world *world, struct event *event)
{
    event->now_ns = world->now_ns;
    event->wall_s = world_wall_s(world);
    if (event->wall_s > world->wall_most_s)
        world->wall_most_s = event->wall_s;
    const struct job_id *job = event_job(event);
    bool gone = job && world->job_model[sim_job_number(world, job)].gone;
    struct worker_view from;
    if (event->kind == EVENT_BEAT && core_worker(world->core, event->beat.worker, &from))
        world->workers[from.key.bytes[0]].told_full = event->beat.no_room;
    else if (event->kind == EVENT_HELLO)
        world->workers[event->hello.key.bytes[0]].told_full = false;
    outbox_clear(&world->outbox);
    if (event->kind == EVENT_RESULT)
        core_expect(world->core, &event->result.lease, 1);
    core_step(world->core, event, &world->outbox);
    world->events++;
    size_t before = world->n_records;

    for (size_t i = 0; i < world->outbox.n_records; i++) {
        world->records = grown(world->records, world->n_records, &world->records_capacity,
                               sizeof(*world->records));
        world->record_ns = grown(world->record_ns, world->n_records, &world->record_ns_capacity,
                                 sizeof(*world->record_ns));
        world->record_ns[world->n_records] = world->now_ns;
        world->records[world->n_records++] = world->outbox.records[i];
        check_record(world, &world->outbox.records[i], world->now_ns);
        apply(world, world->restored, &world->outbox.records[i]);
    }
    for (size_t i = 0; i < world->outbox.n_effects; i++) {
        check_effect(world, &world->outbox.effects[i]);
        if (world->outbox.effects[i].kind == EFFECT_PART) {
            world->workers[worker_of(world, &world->outbox.effects[i])].parted = true;
            continue;
        }
        world->waiting = grown(world->waiting, world->n_waiting, &world->waiting_capacity,
                               sizeof(*world->waiting));
        world->waiting[world->n_waiting].effect = world->outbox.effects[i];
        world->waiting[world->n_waiting].session = effect_session(world, &world->outbox.effects[i]);
        world->waiting[world->n_waiting++].after = before + world->outbox.effects_after[i];
    }
    check_unknown(world, event, gone);
    if (event->kind == EVENT_INVENTORY)
        check_verdicts(world, event);
    core_audit(world->core);
    check_limits(world);
    if (world->events % 32 == 0) /* restoring equals having lived */
        CHECK(core_digest(world->restored) == core_digest(world->core));
}

static struct sim_message *message_new(struct world *world, int64_t delay_ns)
{
    world->messages = grown(world->messages, world->n_messages, &world->messages_capacity,
                            sizeof(*world->messages));
    struct sim_message *message = &world->messages[world->n_messages++];

    memset(message, 0, sizeof(*message));
    message->at_ns = world->now_ns + delay_ns;
    message->order = world->order++;
    return message;
}

/* A link keeps order: a message arrives no earlier than the one before it. */
static int64_t link_delay(struct world *world, uint32_t worker, bool to_worker)
{
    int64_t at_ns = world->now_ns + 1000000 +
                    (int64_t)sim_random(world, sim_random(world, 10) == 0 ? 2 * SECOND : 20000000);

    for (size_t i = 0; i < world->n_messages; i++)
        if (world->messages[i].worker == worker && world->messages[i].to_worker == to_worker &&
            world->messages[i].at_ns > at_ns)
            at_ns = world->messages[i].at_ns;
    return at_ns - world->now_ns;
}

void world_send(struct world *world, uint32_t worker, const struct event *event)
{
    int64_t delay_ns = link_delay(world, worker, false);
    struct sim_message *message = message_new(world, delay_ns);

    message->worker = worker;
    message->session = world->workers[worker].session;
    message->event = *event;
    if (event->kind == EVENT_INVENTORY)
        for (size_t i = 0; i < event->inventory.n_items; i++)
            message->items[i] = event->inventory.items[i];
}

void world_sync(struct world *world)
{
    size_t sent = 0;

    world->n_durable = world->n_records;
    for (; sent < world->n_waiting; sent++) {
        const struct effect effect = world->waiting[sent].effect;

        if (effect.kind == EFFECT_CHANGED)
            continue;
        if (effect.kind == EFFECT_REPLY) {
            if (effect.cookie != OPERATOR_COOKIE)
                studio_answered(world, &effect);
            continue;
        }
        uint32_t worker = worker_of(world, &effect);
        uint64_t session = world->waiting[sent].session;

        if (effect.kind == EFFECT_ASSIGN && world->workers[worker].linked && sim_chance(world, 200))
            worker_unlink(world, worker, (int64_t)sim_random(world, 5 * SECOND), false);
        if (world->workers[worker].linked && world->workers[worker].session == session) {
            int64_t delay_ns = link_delay(world, worker, true);
            struct sim_message *message = message_new(world, delay_ns);

            message->worker = worker;
            message->to_worker = true;
            message->session = session;
            message->effect = effect;
        } else if (effect.kind == EFFECT_ASSIGN) {
            struct event event = {.kind = EVENT_UNSENT};

            event.unsent.worker = effect.worker;
            event.unsent.lease = effect.lease;
            world_event(world, &event); /* its effects go behind these */
            world->n_durable = world->n_records;
        }
    }
    world->n_waiting = 0;
}

bool world_sends_early;

void world_crash(struct world *world)
{
    size_t durable = world->n_durable;

    if (world_sends_early)
        world_sync(world);
    world->n_durable = durable;
    if (world->n_durable == world->n_records)
        check_restored(world);
    core_free(world->core);
    core_free(world->restored);
    world->n_records = world->n_durable;
    records_prune(world);
    world->n_waiting = 0;
    memset(world->model, 0, sizeof(world->model));
    memset(world->worker_model, 0, sizeof(world->worker_model));
    for (uint32_t i = 0; i < JOBS; i++)
        world->job_model[i] = (struct job_model){.gone = world->job_model[i].buried,
                                                 .buried = world->job_model[i].buried};
    for (uint32_t i = 0; i < WORKERS; i++) {
        world->workers[i].cut = false; /* a restart holds what was noted, for as long as it says */
        world->workers[i].told_full = false;
    }
    memset(world->floors, 0, sizeof(world->floors));
    uint64_t results = world->results;

    world->replaying = true;
    for (size_t i = 0; i < world->n_records; i++)
        check_record(world, &world->records[i], world->record_ns[i]);
    world->replaying = false;
    world->results = results;
    world->epoch++;
    world->restored = world_replay(world, world->n_records);
    world->core = world_replay(world, world->n_records);
    core_recovered(world->core, world->now_ns);
    core_audit(world->core);
    world_trace(world, UINT32_MAX, "CRASH", &(struct lease_id){0}, world->epoch);
    for (uint32_t i = 0; i < WORKERS; i++)
        if (world->workers[i].linked)
            worker_unlink(world, i, (int64_t)sim_random(world, 5 * SECOND), false);
    world->crashes++;
    if (world->no_room)
        operator_room(world, true);
    for (uint32_t i = 0; i < STUDIOS; i++) /* not durable: it is said again */
        if (world->used_up[i])
            operator_quota(world, i, true);
}

/* The broker's own link fails: everybody is away at once, and back within the reconnect window. */
static void world_cut(struct world *world)
{
    int64_t away_ns = LIMIT_LEASE_NS + (int64_t)(1 + sim_random(world, 130)) * SECOND;
    unsigned n = 0;

    for (uint32_t i = 0; i < WORKERS; i++) {
        struct sim_worker *worker = &world->workers[i];
        struct worker_view view;

        worker->cut = worker->linked && worker->welcomed && !worker->paused &&
                      core_worker_by_key(world->core, &worker->key, &view) && view.connected &&
                      world->now_ns - view.seen_ns < 8 * SECOND;
        n += worker->cut;
        worker_unlink(world, i, away_ns + (int64_t)sim_random(world, 40 * SECOND), false);
    }
    for (uint32_t i = 0; i < WORKERS && n < 2; i++) /* one that is silent is its own affair */
        world->workers[i].cut = false;
    world->cuts++;
}

/* ---- what happens next ---- */

static void deliver(struct world *world, size_t at)
{
    struct sim_message message = world->messages[at];
    struct sim_worker *worker = &world->workers[message.worker];

    world->messages[at] = world->messages[--world->n_messages];
    if (!worker->linked || message.session != worker->session)
        return;
    if (message.to_worker) {
        if (worker->paused) { /* it lies in its socket */
            message.at_ns = worker->wake_ns;
            world->messages = grown(world->messages, world->n_messages, &world->messages_capacity,
                                    sizeof(*world->messages));
            world->messages[world->n_messages++] = message;
            return;
        }
        worker_receive(world, message.worker, &message.effect);
        return;
    }
    if (worker->parted) {
        worker_unlink(world, message.worker, (int64_t)sim_random(world, SECOND), false);
        return;
    }
    if (message.event.kind == EVENT_INVENTORY)
        message.event.inventory.items = message.items;
    world_event(world, &message.event);
    if (message.event.kind == EVENT_RESULT && sim_chance(world, 20))
        world_event(world, &message.event); /* sent twice */
}

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool world_run(struct world *world)
{
    int64_t at_ns = core_deadline_ns(world->core);
    size_t next = SIZE_MAX;

    for (size_t i = 0; i < world->n_messages; i++) {
        const struct sim_message *m = &world->messages[i];

        if (next == SIZE_MAX || m->at_ns < world->messages[next].at_ns ||
            (m->at_ns == world->messages[next].at_ns && m->order < world->messages[next].order))
            next = i;
    }
    if (next != SIZE_MAX)
        at_ns = earliest(at_ns, world->messages[next].at_ns);
    for (uint32_t i = 0; i < WORKERS; i++)
        at_ns = earliest(at_ns, worker_next_ns(world, i));
    for (uint32_t i = 0; i < STUDIOS; i++)
        at_ns = earliest(at_ns, world->studios[i].next_ns);
    at_ns = earliest(at_ns, world->operator_ns);
    if (at_ns >= world->ends_ns)
        return false;
    world->now_ns = at_ns > world->now_ns ? at_ns : world->now_ns;
    if (sim_chance(world, 1500)) {
        world_crash(world);
        return true;
    }
    if (sim_chance(world, 1500))
        world_cut(world);
    if (sim_chance(world, 3000)) /* somebody sets the clock, or sets it right */
        world->wall_ahead_s = world->wall_ahead_s ? 0 : 100 + (int64_t)sim_random(world, 100000);
    if (next != SIZE_MAX && world->messages[next].at_ns <= world->now_ns)
        deliver(world, next);
    for (uint32_t i = 0; i < WORKERS; i++)
        if (worker_next_ns(world, i) <= world->now_ns)
            worker_run(world, i);
    for (uint32_t i = 0; i < STUDIOS; i++)
        if (world->studios[i].next_ns <= world->now_ns)
            studio_run(world, i);
    if (world->operator_ns <= world->now_ns)
        operator_run(world);
    if (core_deadline_ns(world->core) <= world->now_ns) {
        struct event tick = {.kind = EVENT_TICK};

        world_event(world, &tick);
    }
    while (world->n_waiting > 0 && (world->calm || sim_random(world, 3) > 0))
        world_sync(world);
    return true;
}

void world_init(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof(*world));
    world->seed = world->random = seed;
    world->epoch = 1;
    world->now_ns = SECOND;
    world->ends_ns = INT64_MAX;
    world->core = core_made(world, 0);
    world->restored = core_made(world, 0);
    core_recovered(world->core, world->now_ns);
    outbox_init(&world->outbox);
    for (uint32_t i = 0; i < WORKERS; i++)
        worker_init(world, i);
    for (uint32_t i = 0; i < STUDIOS; i++)
        world->studios[i].next_ns = world->now_ns + (int64_t)sim_random(world, 3 * SECOND);
    world->operator_ns = world->now_ns + (int64_t)sim_random(world, 60 * SECOND);
}

void world_deinit(struct world *world)
{
    core_free(world->core);
    core_free(world->restored);
    outbox_deinit(&world->outbox);
    free(world->records);
    free(world->record_ns);
    free(world->waiting);
    free(world->messages);
}
