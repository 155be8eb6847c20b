/* A naive model beside the core: floors and results task by task, and what was done to workers,
 * from the records alone.
 */
#include <stdio.h>
#include <string.h>
#include "sim.h"

uint32_t sim_job_number(const struct world *world, const struct job_id *id)
{
    CHECK(id->bytes[0] < world->n_jobs &&
          memcmp(&world->jobs[id->bytes[0]].id, id, sizeof(*id)) == 0);
    return id->bytes[0];
}

static uint32_t failed_find(const struct worker_model *worker, const struct lease_id *lease)
{
    uint32_t i = 0;

    while (i < worker->n_failed && (worker->failed[i].job != lease->job.bytes[0] ||
                                    worker->failed[i].step != lease->task.step ||
                                    worker->failed[i].index != lease->task.index ||
                                    worker->failed[i].floor != lease->floor))
        i++;
    return i;
}

/* What a worker may be set aside for. */
static void check_blame(struct world *world, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    struct worker_model *worker = &world->worker_model[record->attempt.worker.bytes[0]];

    if (record->attempt.class == CLASS_OK) {
        worker->n_failed = 0;
        for (uint32_t i = 0; i < WORKERS; i++) {
            struct worker_model *other = &world->worker_model[i];
            uint32_t at = failed_find(other, lease);

            if (at < other->n_failed)
                other->failed[at].elsewhere = true;
        }
    } else if (record->attempt.class == CLASS_RENDERER || record->attempt.class == CLASS_TRANSFER) {
        uint32_t at = failed_find(worker, lease);

        CHECK(at < 256);
        worker->failed[at].job = lease->job.bytes[0];
        worker->failed[at].step = lease->task.step;
        worker->failed[at].index = lease->task.index;
        worker->failed[at].floor = lease->floor;
        if (at == worker->n_failed) {
            worker->failed[at].elsewhere = false;
            worker->n_failed++;
        }
    }
}

static void check_guilty(const struct worker_model *worker)
{
    uint32_t elsewhere = 0, jobs = 1;

    for (uint32_t i = 0; i < worker->n_failed; i++) {
        elsewhere += worker->failed[i].elsewhere;
        jobs += worker->failed[i].job != worker->failed[0].job;
    }
    CHECK(worker->n_failed >= LIMIT_ASIDE_TASKS && (jobs > 1 || elsewhere >= LIMIT_ASIDE_TASKS));
}

/* At least half of those connected go on. */
static void check_half(const struct world *world)
{
    uint32_t aside = 0, connected = 0;

    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker_view view;

        if (!core_worker_by_key(world->core, &world->workers[i].key, &view) || !view.connected)
            continue;
        connected++;
        aside += view.aside && !view.drained;
    }
    CHECK(2 * aside <= connected);
}

static void check_once(const struct world *world, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;

    for (size_t i = 0; world->records[i].sequence < record->sequence; i++)
        CHECK(world->records[i].kind != RECORD_ATTEMPT ||
              world->records[i].attempt.lease.epoch != lease->epoch ||
              world->records[i].attempt.lease.attempt != lease->attempt);
}

static void check_attempt(struct world *world, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    struct task_model *task =
        &world->model[sim_job_number(world, &record->job)][lease->task.step][lease->task.index];

    CHECK(lease->floor == task->floor); /* nothing older than what the user asked for last */
    CHECK(!task->done && !task->cancelled && !task->left_out);
    check_blame(world, record);
    CHECK(record->attempt.class != CLASS_WORKER_LOST ||
          !world->workers[record->attempt.worker.bytes[0]].cut);
    if (record->attempt.class == CLASS_WORKER_LOST)
        check_once(world, record); /* however often its worker was silent */
    if (record->attempt.class == CLASS_OK) {
        task->delivered = false;
        task->result_floor = lease->floor;
        task->done = true; /* and never a second one at this floor */
        task->failed = false;
        world->results++;
    }
}

static void check_state(struct world *world, const struct record *record)
{
    const uint32_t number = sim_job_number(world, &record->job);
    const struct sim_job *job = &world->jobs[number];

    if (record->change.state == JOB_CANCELLED)
        world->floors[number] = record->change.floor;
    for (uint32_t i = 0; i < job->n_steps; i++)
        for (uint32_t j = 0; j < job->steps[i].n_now; j++) {
            struct task_model *task = &world->model[number][i][j];

            if (record->change.state == JOB_CANCELLED) {
                CHECK(record->change.floor > task->floor);
                task->floor = record->change.floor;
                task->cancelled = !task->done && !task->left_out;
                task->failed = false;
            } else if (record->change.state == JOB_ACTIVE && task->cancelled &&
                       record->change.floor >= task->floor && world->jobs[number].accepted) {
                task->cancelled = false;
            }
        }
}

static void check_change(struct world *world, const struct record *record)
{
    const uint32_t number = sim_job_number(world, &record->job);

    if (record->change.change == CHANGE_STATE)
        check_state(world, record);
    if (record->change.change == CHANGE_STATE)
        return;
    for (uint64_t i = record->change.range.first; i <= record->change.range.last; i++) {
        struct task_model *task = &world->model[number][record->change.range.step][i];

        if (record->change.change == CHANGE_PARK) {
            CHECK(!task->done && !task->cancelled && !task->failed && !task->left_out);
            task->failed = true;
            world->parked++;
            continue;
        }
        CHECK(record->change.floor > task->floor);
        task->floor = record->change.floor;
        task->failed = false;
        if (record->change.change == CHANGE_RETRY && task->done) {
            task->has_older = true;
            task->older_floor = task->result_floor;
        }
        if (record->change.change == CHANGE_RETRY)
            task->done = task->cancelled = task->left_out = task->delivered = false;
        else if (record->change.change == CHANGE_LEAVE_OUT)
            task->left_out = !task->done, task->cancelled = false;
        else
            task->cancelled = !task->done && !task->left_out;
    }
}

static void check_tend(struct world *world, const struct record *record)
{
    struct worker_model *worker = &world->worker_model[record->tend.worker.bytes[0]];

    world->tends++;
    switch (record->tend.tend) {
    case TEND_DRAIN:
    case TEND_UNDRAIN:
        worker->drained = record->tend.tend == TEND_DRAIN;
        return;
    case TEND_CLEAR:
        worker->aside_until_wall_s = 0;
        worker->n_failed = 0;
        return;
    case TEND_POOL:
        worker->pool = record->tend.text;
        return;
    case TEND_ASIDE:
        CHECK(world->wall_most_s >= worker->aside_until_wall_s); /* never while it is */
        if (!world->replaying) { /* attempts of a job that is gone are, too */
            check_guilty(worker);
            check_half(world);
        }
        worker->aside_until_wall_s = record->tend.until_wall_s;
        world->asides++;
        return;
    case TEND_NOTE:
        return;
    }
}

/* Nothing new for a worker that is drained, set aside, or in another pool, nor of a studio that has
 * used its quota up. */
void check_effect(const struct world *world, const struct effect *effect)
{
    struct worker_view view;

    if (effect->kind != EFFECT_ASSIGN)
        return;
    CHECK(!world->no_room);
    CHECK(core_worker(world->core, effect->worker, &view));
    const struct worker_model *worker = &world->worker_model[view.key.bytes[0]];
    const struct sim_job *job = &world->jobs[sim_job_number(world, &effect->lease.job)];
    bool pooled = worker->pool && *worker->pool;

    CHECK(!world->used_up[job->studio.value - 1]);
    CHECK(!worker->drained && !world->workers[view.key.bytes[0]].told_full);
    CHECK(worker->aside_until_wall_s <= world->wall_most_s);
    CHECK(!world->job_model[sim_job_number(world, &effect->lease.job)].gone);
    CHECK(pooled == job->pooled && (!pooled || strcmp(worker->pool, "a") == 0));
}

void check_verdicts(const struct world *world, const struct event *event)
{
    for (size_t i = 0; i < world->outbox.n_effects; i++) {
        const struct effect *effect = &world->outbox.effects[i];
        const struct lease_id *id = &effect->lease;
        const struct inventory_item *item = event->inventory.items;

        if (effect->kind != EFFECT_VERDICT || effect->verdict.mark_only)
            continue;
        if (world->job_model[sim_job_number(world, &id->job)].gone) {
            CHECK(effect->verdict.verdict == VERDICT_DROP);
            continue;
        }
        if (effect->verdict.verdict != VERDICT_DROP)
            continue;
        while (memcmp(&item->lease, id, sizeof(*id)) != 0)
            item++;
        const struct task_model *task =
            &world->model[sim_job_number(world, &id->job)][id->task.step][id->task.index];

        CHECK(item->state == HELD_QUEUED || id->floor != task->floor || task->done ||
              task->cancelled || task->left_out);
    }
}

static void check_edit(struct world *world, const struct record *record)
{
    const uint32_t number = sim_job_number(world, &record->job);
    struct sim_job *job = &world->jobs[number];

    world->edits++;
    for (uint32_t i = 0; i < record->edit.n_spaces; i++)
        for (; job->steps[i].n_now < (record->edit.blob_size >> 8 * i & 255); job->steps[i].n_now++)
            world->model[number][i][job->steps[i].n_now] =
                (struct task_model){.floor = world->floors[number]};
}

static void check_job(struct world *world, const struct record *record)
{
    struct sim_job *job = &world->jobs[sim_job_number(world, &record->job)];

    for (uint32_t i = 0; i < job->n_steps; i++)
        job->steps[i].n_now = job->steps[i].n_tasks;
}

/* A grant never goes past the limit; a limit that was lowered, or leases that came back, may. */
void check_limits(const struct world *world)
{
    for (size_t i = 0; i < world->outbox.n_effects; i++) {
        const struct effect *effect = &world->outbox.effects[i];
        struct lease_view leases[HELD * WORKERS];
        struct job_view view;

        if (effect->kind != EFFECT_ASSIGN)
            continue;
        CHECK(core_job(world->core, &effect->lease.job, &view));
        CHECK(view.max_workers == 0 ||
              core_job_leases(world->core, &view.job, leases, HELD * WORKERS) <= view.max_workers);
    }
}

void check_frames(struct world *world, const struct sim_request *request)
{
    const struct sim_job *job = &world->jobs[request->job];

    for (uint32_t i = 0; i < job->n_steps; i++)
        for (uint32_t j = 0; j < job->steps[i].n_now; j++) {
            const struct task_model *task = &world->model[request->job][i][j];
            bool wanted = false;

            for (uint32_t k = 0; k < request->n_wanted; k++)
                wanted |= request->wanted[k].step == i && request->wanted[k].first <= j &&
                          j <= request->wanted[k].last;
            CHECK(wanted ? !task->left_out && !task->cancelled : task->left_out || task->done);
        }
}

static void check_delivered(struct world *world, const struct record *record)
{
    const struct task_range *range = &record->delivered.range;
    struct task_model *tasks = world->model[sim_job_number(world, &record->job)][range->step];
    unsigned n = 0;

    for (uint64_t i = range->first; i <= range->last; i++)
        if (tasks[i].done && tasks[i].result_floor == record->delivered.floor) {
            n += !tasks[i].delivered;
            tasks[i].delivered = true;
        }
    CHECK(n > 0); /* what is no news makes no record */
    world->delivered += n;
}

/* Never before its time, which is the time that has passed, whatever the clock says. */
static void check_forget(struct world *world, const struct record *record, int64_t at_ns)
{
    const uint32_t number = sim_job_number(world, &record->job);
    const struct sim_job *job = &world->jobs[number];
    struct job_model *model = &world->job_model[number];
    uint32_t done = 0, delivered = 0;

    for (uint32_t i = 0; i < WORKERS; i++)
        world->worker_model[i].n_failed = 0;
    if (world->replaying) {
        model->gone = true;
        return;
    }
    CHECK(!model->gone);
    model->gone = true;
    for (uint32_t i = 0; i < job->n_steps; i++)
        for (uint32_t j = 0; j < job->steps[i].n_now; j++) {
            done += world->model[number][i][j].done;
            delivered += world->model[number][i][j].delivered;
        }
    int64_t span_s = done > 0 && done == delivered ? RETAIN_DELIVERED_S : RETAIN_S;

    CHECK(at_ns - model->last_ns >= (span_s - 2 - (int64_t)world->leaps) * SECOND);
    CHECK(model->read_ns == 0 ||
          at_ns - model->read_ns >= (RETAIN_READ_S - 2 - (int64_t)world->leaps) * SECOND);
    model->last_ns = at_ns;
    world->forgotten++;
}

static void check_unask(struct world *world, const struct record *record, int64_t at_ns)
{
    struct job_model *model = &world->job_model[sim_job_number(world, &record->job)];

    for (uint32_t i = 0; i < WORKERS; i++)
        world->worker_model[i].n_failed = 0;
    CHECK(model->gone);
    CHECK(world->replaying ||
          at_ns - model->last_ns >= (RETAIN_REQUESTS_S - 2 - (int64_t)world->leaps) * SECOND);
    world->unasked++;
}

void check_unknown(const struct world *world, const struct event *event, bool gone)
{
    for (size_t i = 0; gone && i < world->outbox.n_effects; i++) {
        const struct effect *effect = &world->outbox.effects[i];

        CHECK(effect->kind != EFFECT_REPLY || effect->reply.repeated ||
              effect->code == CODE_UNKNOWN);
    }
    (void)event;
}

void check_record(struct world *world, const struct record *record, int64_t at_ns)
{
    if (record->kind == RECORD_DELIVERED)
        check_delivered(world, record);
    if (record->kind == RECORD_FORGET)
        check_forget(world, record, at_ns);
    if (record->kind == RECORD_UNASK)
        check_unask(world, record, at_ns);
    world->leaps += record->kind == RECORD_CLOCK && record->clock.ahead_s && !world->replaying;
    if (record->kind == RECORD_JOB || record->kind == RECORD_ATTEMPT ||
        record->kind == RECORD_CHANGE || record->kind == RECORD_EDIT ||
        record->kind == RECORD_DELIVERED || (record->kind == RECORD_FORGET && world->replaying))
        world->job_model[sim_job_number(world, &record->job)].last_ns = at_ns;
    if (record->kind == RECORD_JOB)
        check_job(world, record);
    if (record->kind == RECORD_EDIT)
        check_edit(world, record);
    if (record->kind == RECORD_ATTEMPT)
        check_attempt(world, record);
    if (record->kind == RECORD_CHANGE)
        check_change(world, record);
    if (record->kind == RECORD_TEND)
        check_tend(world, record);
    world->notes += record->kind == RECORD_NOTE;
}

/* Restoring equals having lived. */
void check_restored(struct world *world)
{
    struct core *restored = world_replay(world, world->n_records);

    CHECK(core_digest(restored) == core_digest(world->core));
    core_free(restored);
}

bool check_explained(const struct world *world, uint32_t number, uint32_t step, uint32_t index)
{
    const struct sim_job *job = &world->jobs[number];
    enum task_state state = TASK_WAITING;
    uint32_t floor = 0;
    struct why why;

    CHECK(core_task(world->core, &job->id, (struct task_id){step, index}, &state, &floor));
    if (state == TASK_DONE || state == TASK_CANCELLED || state == TASK_FAILED ||
        state == TASK_LEFT_OUT)
        return true;
    if (state != TASK_READY && state != TASK_WAITING)
        return false;
    core_why(world->core, &job->id, step, &why);
    return (job->impossible && why.kind == WHY_NO_AMOUNT && why.wanted == 1000) ||
           (state == TASK_WAITING && why.kind == WHY_DEPENDS);
}

static void check_task(struct world *world, uint32_t number, uint32_t step, uint32_t index)
{
    const struct sim_job *job = &world->jobs[number];
    const struct task_model *model = &world->model[number][step][index];
    enum task_state state = TASK_WAITING;
    uint32_t floor = 0;

    CHECK(core_task(world->core, &job->id, (struct task_id){step, index}, &state, &floor));
    CHECK((state == TASK_DONE) == model->done);
    CHECK((state == TASK_CANCELLED) == model->cancelled);
    CHECK((state == TASK_FAILED) == model->failed);
    CHECK((state == TASK_LEFT_OUT) == model->left_out);
    CHECK(floor == model->floor);
    CHECK(check_explained(world, number, step, index));
}

void check_end(struct world *world)
{
    check_restored(world);
    for (uint32_t i = 0; i < world->n_jobs; i++) {
        const struct sim_job *job = &world->jobs[i];
        uint64_t delivered = 0;
        struct job_view view;

        if (world->job_model[i].gone) {
            CHECK(!core_job(world->core, &job->id, &view));
            continue;
        }
        CHECK(core_job(world->core, &job->id, &view)); /* none that was accepted is lost */
        /* Nor is one left over: what is due waits for the next look, or for a worker to stop. */
        CHECK(view.until_wall_s == 0 || view.until_wall_s >= world_wall_s(world) ||
              core_deadline_ns(world->core) <= world->now_ns + (FORGET_EVERY_S + 1) * SECOND);
        for (uint32_t j = 0; j < job->n_steps; j++)
            for (uint32_t k = 0; k < job->steps[j].n_now; k++)
                delivered += world->model[i][j][k].delivered;
        CHECK(view.delivered == delivered);
        for (uint32_t j = 0; j < job->n_steps; j++)
            for (uint32_t k = 0; k < job->steps[j].n_now; k++)
                check_task(world, i, j, k);
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        for (uint32_t j = 0; j < HELD; j++)
            CHECK(world->workers[i].held[j].state == FREE);
}
