/* A checker that cannot fail proves nothing: each plant breaks the core in one place, and some seed
 * must be seen to fail for it, while without a plant the same seeds pass.
 *
 * The linker's --wrap leads the core's calls between its files through here, so that the core
 * under test is compiled as it ships.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <broker/core/inner.h>
#include "sim.h"

enum plant {
    PLANT_NONE,
    PLANT_SKIP_FLOOR,      /* a retry or a cancel raises no floor */
    PLANT_FORGET_REQUEUE,  /* a task whose lease has ended is not looked at */
    PLANT_KEEP_LEASES,     /* what a user took back is not stopped */
    PLANT_FORGET_REQUEST,  /* an answered request is not remembered */
    PLANT_SLEEP_ON,        /* what waited for a finished task is not woken */
    PLANT_LEAK_ROOM,       /* an ended lease keeps its capacity */
    PLANT_IDLE,            /* a worker with new room is not offered work */
    PLANT_LAPSE_NOTHING,   /* a silent worker keeps its leases */
    PLANT_STAY_WILLING,    /* a drained worker is not told apart, nor one that is undrained */
    PLANT_KEEP_QUEUED,     /* what has not begun is not asked back */
    PLANT_FORGIVE_NOTHING, /* a worker that is cleared keeps its failures */
    PLANT_FORGET_ROOM,     /* what a worker comes back with holds nothing */
    PLANT_START_LAPSED,    /* word that a lapsed lease runs is taken for its return */
    PLANT_NEVER_CUT_OFF,   /* many silent workers are taken for many lost ones */
    PLANT_LOSE_TWICE,      /* a lease that is lost again counts again */
    PLANT_FORGET_ORDER,    /* a studio that was served is not sorted in again */
    PLANT_KEEP_CLASS,      /* a class whose work is done stays in use */
    PLANT_MISCOUNT,        /* a lease is not counted towards its job's limit */
    PLANT_KEEP_FRAMES,     /* frames that are left out, or taken in, stay as they were */
    PLANT_COMMIT_TWICE,    /* a task that has its result gets another */
    PLANT_COMMIT_STALE,    /* a result counts whatever its floor */
    PLANT_DROP_EPOCH,      /* leases of an earlier life are taken for those of this one */
    PLANT_ADOPT_NOTHING,   /* after a restart what runs is told to stop */
    PLANT_TRUST_CLOCK,     /* a clock that was set is believed */
    PLANT_DELIVER_STALE,   /* a result that a retry overtook counts as delivered */
    PLANT_BLAME_ON,        /* what was counted from a job that is gone still counts */
    PLANT_SEND_EARLY,      /* what is said does not wait for its records to be durable */
    PLANT_HOLD_NOTHING,    /* a quota that is used up, or has room again, changes nothing */
    PLANT_KEEP_AHEAD,      /* what waits at a worker is not asked back for it */
    PLANTS,
};
static const char *const names[] = {
    [PLANT_NONE] = "nothing",
    [PLANT_SKIP_FLOOR] = "skip floor",
    [PLANT_FORGET_REQUEUE] = "forget requeue",
    [PLANT_KEEP_LEASES] = "keep leases",
    [PLANT_FORGET_REQUEST] = "forget request",
    [PLANT_SLEEP_ON] = "sleep on",
    [PLANT_LEAK_ROOM] = "leak room",
    [PLANT_IDLE] = "idle",
    [PLANT_LAPSE_NOTHING] = "lapse nothing",
    [PLANT_STAY_WILLING] = "stay willing",
    [PLANT_KEEP_QUEUED] = "keep queued",
    [PLANT_FORGIVE_NOTHING] = "forgive nothing",
    [PLANT_FORGET_ROOM] = "forget room",
    [PLANT_START_LAPSED] = "start lapsed",
    [PLANT_NEVER_CUT_OFF] = "never cut off",
    [PLANT_LOSE_TWICE] = "lose twice",
    [PLANT_FORGET_ORDER] = "forget order",
    [PLANT_KEEP_CLASS] = "keep class",
    [PLANT_MISCOUNT] = "miscount",
    [PLANT_KEEP_FRAMES] = "keep frames",
    [PLANT_COMMIT_TWICE] = "commit twice",
    [PLANT_COMMIT_STALE] = "commit stale",
    [PLANT_DROP_EPOCH] = "drop epoch",
    [PLANT_ADOPT_NOTHING] = "adopt nothing",
    [PLANT_TRUST_CLOCK] = "trust clock",
    [PLANT_DELIVER_STALE] = "deliver stale",
    [PLANT_BLAME_ON] = "blame on",
    [PLANT_SEND_EARLY] = "send early",
    [PLANT_HOLD_NOTHING] = "hold nothing",
    [PLANT_KEEP_AHEAD] = "keep ahead",
};
enum { SEEDS = 1000, SEEDS_UNBROKEN = 50 };
static enum plant planted;

/* Breaks one case in five: a bug that hides most of the time. Whatever is broken in the core that
 * lives is broken as well in the one that is restored, so that it must be seen by what it does. */
static bool broken(enum plant plant, uint64_t what)
{
    return planted == plant && hash_number(plant, what) % 5 == 0;
}

#define PLANT(name, parameters, arguments, plant, what)                                            \
    void __real_##name parameters;                                                                 \
    void __wrap_##name parameters;                                                                 \
    void __wrap_##name parameters                                                                  \
    {                                                                                              \
        if (!broken(plant, what))                                                                  \
            __real_##name arguments;                                                               \
    }

PLANT(floors_raise, (struct floors * floors, uint64_t first, uint64_t last, uint32_t floor),
      (floors, first, last, floor), PLANT_SKIP_FLOOR, first + last + floor)
PLANT(task_settle, (struct core * core, struct task *task), (core, task), PLANT_FORGET_REQUEUE,
      task->index + core->sequence)
PLANT(lease_stop, (struct core * core, struct lease *lease), (core, lease), PLANT_KEEP_LEASES,
      lease->id.attempt)
PLANT(core_remember, (struct core * core, const struct request *request), (core, request),
      PLANT_FORGET_REQUEST, request->id.bytes[1])
PLANT(step_wake, (struct step * step, uint64_t first, uint64_t last), (step, first, last),
      PLANT_SLEEP_ON, first + last)
PLANT(worker_give, (struct worker * worker, const struct plan *plan, uint32_t cards),
      (worker, plan, cards), PLANT_LEAK_ROOM, worker->done)
PLANT(sched_worker_dirty, (struct core * core, struct worker *worker), (core, worker), PLANT_IDLE,
      core->sequence)
PLANT(lease_lapse, (struct core * core, struct lease *lease), (core, lease), PLANT_LAPSE_NOTHING,
      lease->id.attempt)
PLANT(worker_set_willing, (struct fleet * fleet, struct worker *worker, bool drained, bool aside),
      (fleet, worker, drained, aside), PLANT_STAY_WILLING, worker->done + drained)
PLANT(lease_ask_back, (struct core * core, struct lease *lease), (core, lease), PLANT_KEEP_QUEUED,
      lease->id.attempt)
PLANT(aside_forget, (struct worker * worker), (worker), PLANT_FORGIVE_NOTHING,
      worker->streak.number)

PLANT(sched_hold, (struct core * core, struct studio_id studio, bool held), (core, studio, held),
      PLANT_HOLD_NOTHING, studio.value + held + core->sequence)
PLANT(job_take_back, (struct core * core, struct job *job), (core, job), PLANT_KEEP_AHEAD,
      core->sequence)
PLANT(asides_pardon, (struct core * core), (core), PLANT_BLAME_ON, core->sequence)

void __real_clock_run(struct core *core);
void __wrap_clock_run(struct core *core);
void __wrap_clock_run(struct core *core)
{
    if (planted == PLANT_TRUST_CLOCK) {
        core->clock_seen = true;
        core->seen_wall_s = core->wall_s;
        core->seen_ns = core->now_ns;
    }
    __real_clock_run(core);
}

uint64_t __real_step_deliver(struct step *step, uint64_t first, uint64_t last, uint32_t floor,
                             bool mark);
uint64_t __wrap_step_deliver(struct step *step, uint64_t first, uint64_t last, uint32_t floor,
                             bool mark);
uint64_t __wrap_step_deliver(struct step *step, uint64_t first, uint64_t last, uint32_t floor,
                             bool mark)
{
    bool stale = broken(PLANT_DELIVER_STALE, first + last);

    return __real_step_deliver(step, first, last, stale ? UINT32_MAX : floor, mark);
}

bool __real_lease_take(struct core *core, struct lease *lease, uint32_t cards);
bool __wrap_lease_take(struct core *core, struct lease *lease, uint32_t cards);
bool __wrap_lease_take(struct core *core, struct lease *lease, uint32_t cards)
{
    return (lease->started && broken(PLANT_FORGET_ROOM, lease->id.attempt)) ||
           __real_lease_take(core, lease, cards);
}

void __real_lease_started(struct core *core, struct lease *lease);
void __wrap_lease_started(struct core *core, struct lease *lease);
void __wrap_lease_started(struct core *core, struct lease *lease)
{
    bool lapsed = lease->lapsed;

    lease->lapsed &= planted != PLANT_START_LAPSED;
    __real_lease_started(core, lease);
    lease->lapsed = lapsed;
}

PLANT(heap_moved, (struct heap * heap, void *item), (heap, item), PLANT_FORGET_ORDER, heap->n)
PLANT(queue_use, (struct queue * queue, struct fleet *fleet, bool more), (queue, fleet, more),
      PLANT_KEEP_CLASS, queue->uses)

bool __real_fleet_cut_off(const struct fleet *fleet);
bool __wrap_fleet_cut_off(const struct fleet *fleet);
bool __wrap_fleet_cut_off(const struct fleet *fleet)
{
    return planted != PLANT_NEVER_CUT_OFF && __real_fleet_cut_off(fleet);
}

void __real_attempt_lost(struct core *core, struct lease *lease);
void __wrap_attempt_lost(struct core *core, struct lease *lease);
void __wrap_attempt_lost(struct core *core, struct lease *lease)
{
    if (planted == PLANT_LOSE_TWICE && lease->started)
        attempt_record(core, &lease->id, lease->worker, CLASS_WORKER_LOST, NULL);
    else
        __real_attempt_lost(core, lease);
}

PLANT(sched_job_leases, (struct job * job, int by), (job, by), PLANT_MISCOUNT, job->n_out)
PLANT(change_range,
      (struct core * core, struct step *step, enum change_kind change, uint64_t first,
       uint64_t last),
      (core, step, change, first, last), PLANT_KEEP_FRAMES, first + last)

/* A result that no longer counts is answered so; a broken core would have kept it. */
struct effect *__real_core_effect_lease(struct core *core, enum effect_kind kind,
                                        struct worker *worker, const struct lease_id *id,
                                        enum code code);
struct effect *__wrap_core_effect_lease(struct core *core, enum effect_kind kind,
                                        struct worker *worker, const struct lease_id *id,
                                        enum code code);
struct effect *__wrap_core_effect_lease(struct core *core, enum effect_kind kind,
                                        struct worker *worker, const struct lease_id *id,
                                        enum code code)
{
    bool twice = code == CODE_ALREADY && broken(PLANT_COMMIT_TWICE, id->attempt);
    bool stale = code == CODE_STALE && broken(PLANT_COMMIT_STALE, id->attempt);

    if (kind == EFFECT_COMMITTED && (twice || stale))
        attempt_record(core, id, worker, CLASS_OK, NULL);
    return __real_core_effect_lease(core, kind, worker, id, code);
}

void __real_core_step(struct core *core, const struct event *event, struct outbox *outbox);
void __wrap_core_step(struct core *core, const struct event *event, struct outbox *outbox);
void __wrap_core_step(struct core *core, const struct event *event, struct outbox *outbox)
{
    struct inventory_item items[HELD];
    struct event changed = *event;

    if (event->kind == EVENT_RESULT && planted == PLANT_DROP_EPOCH)
        changed.result.lease.epoch = core->config.epoch;
    if (event->kind == EVENT_INVENTORY && planted == PLANT_ADOPT_NOTHING) {
        for (size_t i = 0; i < event->inventory.n_items; i++) {
            items[i] = event->inventory.items[i];
            if (!lease_find(core, &items[i].lease))
                items[i].state = HELD_QUEUED;
        }
        changed.inventory.items = items;
    }
    __real_core_step(core, &changed, outbox);
}

void check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s: caught by %s:%d: %s\n", names[planted], file, line, what);
    _exit(1);
}

static bool caught(enum plant plant)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct world *world = malloc(sizeof(*world));

        planted = plant;
        world_sends_early = plant == PLANT_SEND_EARLY;
        CHECK(world);
        for (uint64_t seed = 1; seed <= (plant ? SEEDS : SEEDS_UNBROKEN); seed++) {
            sim_run(world, seed, false, false);
            world_deinit(world);
        }
        free(world);
        _exit(0);
    }
    return child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
           WEXITSTATUS(status) != 0;
}

int main(void)
{
    int failed = caught(PLANT_NONE);

    if (failed)
        fprintf(stderr, "the unbroken core was caught: see westlight-sim\n");
    for (enum plant plant = PLANT_NONE + 1; plant < PLANTS; plant++) {
        if (caught(plant))
            continue;
        fprintf(stderr, "%s: not caught\n", names[plant]);
        failed = 1;
    }
    return failed;
}
