/* One world from its first day to its last: a storm, then calm, then the reckoning. */
#include <stdio.h>
#include <string.h>
#include "sim.h"

/* Resumes what is paused and takes back what operators did, so that at the end nothing may be
 * unfinished but for a reason. */
enum { ROUNDS_MAX = 50 }; /* of calm: who is not done by then never will be */

static void calm_down(struct world *world)
{
    world->calm = true;
    for (uint32_t i = 0; i < world->n_jobs; i++) {
        struct job_view view;
        struct event event = {.kind = EVENT_VERB, .cookie = OPERATOR_COOKIE};

        if (!core_job(world->core, &world->jobs[i].id, &view) || view.state != JOB_PAUSED ||
            view.archived)
            continue;
        event.verb.verb = VERB_RESUME;
        event.verb.job = world->jobs[i].id;
        event.verb.request.bytes[0] = 255;
        event.verb.request.bytes[1] = (uint8_t)i;
        memcpy(event.verb.request.bytes + 2, &world->order, sizeof(world->order));
        world_event(world, &event);
        world->order++;
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        operator_tend(world, i, TEND_UNDRAIN, NULL);
        operator_tend(world, i, TEND_CLEAR, NULL);
        operator_tend(world, i, TEND_POOL, i == 1 ? "a" : "");
    }
}

static bool settled(const struct world *world)
{
    for (uint32_t i = 0; i < STUDIOS; i++)
        if (world->studios[i].request.open)
            return false;
    for (uint32_t i = 0; i < world->n_jobs; i++) {
        struct job_view view;

        if (!core_job(world->core, &world->jobs[i].id, &view))
            continue;
        if ((view.state == JOB_PAUSED && !view.archived) ||
            view.counts.leased + view.counts.running > 0)
            return false;
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker_view view;

        if (core_worker_by_key(world->core, &world->workers[i].key, &view) && view.aside)
            return false;
    }
    return true;
}

/* Nothing will happen any more but beats: no task will run, and all that was run has been told. */
static bool over(const struct world *world)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        for (uint32_t j = 0; j < world->workers[i].n_held; j++)
            if (world->workers[i].held[j].state != FREE)
                return false;
    if (!settled(world))
        return false;
    for (uint32_t i = 0; i < world->n_jobs; i++)
        for (uint32_t j = 0; !world->job_model[i].gone && j < world->jobs[i].n_steps; j++)
            for (uint32_t k = 0; k < world->jobs[i].steps[j].n_now; k++)
                if (!check_explained(world, i, j, k))
                    return false;
    return true;
}

void sim_run(struct world *world, uint64_t seed, bool verbose, bool trace)
{
    world_init(world, seed);
    world->trace = trace;
    int64_t stormy_ns = world->now_ns + (int64_t)(60 + sim_random(world, 400)) * SECOND;

    world->ends_ns = stormy_ns;
    while (world_run(world))
        ;
    unsigned rounds = 0;

    do { /* a job may pause itself again over its failures, a worker be set aside, a task be long */
        calm_down(world);
        CHECK(rounds++ < ROUNDS_MAX);
        for (unsigned slice = 0; slice < 100 && !(slice > 1 && over(world)); slice++) {
            world->ends_ns = world->now_ns + 20 * SECOND;
            while (world_run(world))
                ;
            world->now_ns = world->ends_ns;
        }
    } while (!settled(world));
    check_end(world);
    if (verbose)
        printf("seed=%llu events=%llu records=%zu jobs=%u results=%llu crashes=%llu cuts=%llu "
               "adopted=%llu notes=%llu parked=%llu stale=%llu already=%llu tends=%llu "
               "asides=%llu edits=%llu delivered=%llu forgotten=%llu unasked=%llu leaps=%llu "
               "used_ups=%llu\n",
               (unsigned long long)seed, (unsigned long long)world->events, world->n_records,
               world->n_jobs, (unsigned long long)world->results,
               (unsigned long long)world->crashes, (unsigned long long)world->cuts,
               (unsigned long long)world->adopted, (unsigned long long)world->notes,
               (unsigned long long)world->parked, (unsigned long long)world->stale,
               (unsigned long long)world->already, (unsigned long long)world->tends,
               (unsigned long long)world->asides, (unsigned long long)world->edits,
               (unsigned long long)world->delivered, (unsigned long long)world->forgotten,
               (unsigned long long)world->unasked, (unsigned long long)world->leaps,
               (unsigned long long)world->used_ups);
}
