/* An operator drains, clears, notes and pools at random, and does not mind what comes of it; and
 * now and then a worker goes bad: whatever it runs fails.
 */
#include <string.h>
#include "sim.h"

void operator_tend(struct world *world, uint32_t worker, enum tend_kind kind, const char *text)
{
    struct event event = {.kind = EVENT_TEND, .cookie = OPERATOR_COOKIE};

    event.tend.tend = kind;
    event.tend.workers = &world->workers[worker].key;
    event.tend.n_workers = 1;
    event.tend.text = text;
    world->operator_requests++;
    event.tend.request.bytes[0] = 254;
    memcpy(event.tend.request.bytes + 1, &world->operator_requests,
           sizeof(world->operator_requests));
    world_event(world, &event);
    if (!sim_chance(world, 4))
        return;
    world_event(world, &event); /* the same request: nothing is done again */
    CHECK(world->outbox.n_effects > 0 && world->outbox.effects[0].kind == EFFECT_REPLY &&
          world->outbox.effects[0].reply.repeated);
}

/* The broker's disk fills, or somebody has freed space. */
void operator_room(struct world *world, bool none)
{
    struct event event = {.kind = EVENT_ROOM, .room.none = none};

    world->no_room = none;
    world_event(world, &event);
}

/* A studio's results have used its quota up, or there is room for it again. */
void operator_quota(struct world *world, uint32_t studio, bool used_up)
{
    struct event event = {.kind = EVENT_QUOTA, .quota = {{studio + 1}, used_up}};

    world->used_ups += used_up && !world->used_up[studio];
    world->used_up[studio] = used_up;
    world_event(world, &event);
}

void operator_run(struct world *world)
{
    static const enum tend_kind kinds[] = {TEND_DRAIN, TEND_UNDRAIN, TEND_UNDRAIN, TEND_CLEAR,
                                           TEND_NOTE,  TEND_POOL,    TEND_POOL};
    static const char *const texts[] = {"", "a", "", "b"};
    uint32_t worker = (uint32_t)sim_random(world, WORKERS);
    enum tend_kind kind = kinds[sim_random(world, 7)];

    world->operator_ns = world->now_ns + (int64_t)sim_random(world, 30 * SECOND);
    if (world->calm) {
        operator_room(world, false);
        for (uint32_t i = 0; i < STUDIOS; i++)
            operator_quota(world, i, false);
        world->operator_ns = INT64_MAX;
        return;
    }
    if (sim_chance(world, 8))
        operator_room(world, !world->no_room);
    if (sim_chance(world, 6)) {
        uint32_t studio = (uint32_t)sim_random(world, STUDIOS);

        operator_quota(world, studio, !world->used_up[studio]);
    }
    if (sim_chance(world, 4))
        world->workers[worker].bad = !world->workers[worker].bad;
    operator_tend(world, worker, kind,
                  kind == TEND_NOTE || kind == TEND_POOL || sim_random(world, 2)
                      ? texts[sim_random(world, 4)]
                      : NULL);
}
