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
};
enum { SEEDS = 400, SEEDS_UNBROKEN = 50 };
static enum plant planted;
static unsigned calls;

/* Breaks one call in five: a bug that hides most of the time. */
static bool broken(enum plant plant)
{
    return planted == plant && ++calls % 5 == 0;
}

#define PLANT(result, name, parameters, arguments, plant)                                          \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        if (!broken(plant))                                                                        \
            __real_##name arguments;                                                               \
    }

PLANT(void, floors_raise, (struct floors * floors, uint64_t first, uint64_t last, uint32_t floor),
      (floors, first, last, floor), PLANT_SKIP_FLOOR)
PLANT(void, task_settle, (struct core * core, struct task *task), (core, task),
      PLANT_FORGET_REQUEUE)
PLANT(void, lease_stop, (struct core * core, struct lease *lease), (core, lease), PLANT_KEEP_LEASES)
PLANT(void, core_remember, (struct core * core, const struct request *request), (core, request),
      PLANT_FORGET_REQUEST)
PLANT(void, step_wake, (struct step * step, uint64_t first, uint64_t last), (step, first, last),
      PLANT_SLEEP_ON)
PLANT(void, worker_give, (struct worker * worker, const struct plan *plan, uint32_t cards),
      (worker, plan, cards), PLANT_LEAK_ROOM)
PLANT(void, sched_worker_dirty, (struct core * core, struct worker *worker), (core, worker),
      PLANT_IDLE)
PLANT(void, lease_lapse, (struct core * core, struct lease *lease), (core, lease),
      PLANT_LAPSE_NOTHING)
PLANT(void, worker_set_willing,
      (struct fleet * fleet, struct worker *worker, bool drained, bool aside),
      (fleet, worker, drained, aside), PLANT_STAY_WILLING)
PLANT(void, lease_ask_back, (struct core * core, struct lease *lease), (core, lease),
      PLANT_KEEP_QUEUED)
PLANT(void, aside_forget, (struct worker * worker), (worker), PLANT_FORGIVE_NOTHING)

bool __real_lease_take(struct core *core, struct lease *lease, uint32_t cards);
bool __wrap_lease_take(struct core *core, struct lease *lease, uint32_t cards);
bool __wrap_lease_take(struct core *core, struct lease *lease, uint32_t cards)
{
    return (lease->started && broken(PLANT_FORGET_ROOM)) || __real_lease_take(core, lease, cards);
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

PLANT(void, heap_moved, (struct heap * heap, void *item), (heap, item), PLANT_FORGET_ORDER)

PLANT(void, queue_use, (struct queue * queue, struct fleet *fleet, bool more), (queue, fleet, more),
      PLANT_KEEP_CLASS)

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

PLANT(void, sched_job_leases, (struct job * job, int by), (job, by), PLANT_MISCOUNT)
PLANT(void, change_range,
      (struct core * core, struct step *step, enum change_kind change, uint64_t first,
       uint64_t last),
      (core, step, change, first, last), PLANT_KEEP_FRAMES)

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
