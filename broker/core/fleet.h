/* fleet.h - what work demands, what workers offer, and who has room.
 *
 * The idea: equal demands are one demand, equal offers one shape, and workers of one shape with
 * equal free capacity one group. Whether a shape can ever meet a demand is planned once for the
 * pair; whether a group has room is a comparison of a few integers. So finding a worker walks
 * groups, never workers, and a worker changes group in O(1).
 *
 * Shape:   LIMIT_CLASSES demands with work left, LIMIT_WORKERS workers. A free vector is
 *          [slots, vcpus, memory, cards of each size ascending, other amounts].
 * Units:   amounts are millionths (AMOUNT_ONE), so that equal capacity compares equal.
 * Owns:    everything here; a name is interned and lives as long as somebody holds it.
 * Errors:  NULL where a limit is reached or an offer is past one.
 */
#pragma once

#include <broker/core/core.h>
#include <broker/core/memory.h>

struct lease;
struct queue;
struct task;

#define AMOUNT_ONE 1000000LL
#define AMOUNT_MAX 1e12 /* times AMOUNT_ONE fits 63 bits */
enum { FREE_SLOTS, FREE_VCPUS, FREE_MEMORY, FREE_CARDS };
enum { DEMAND_UNUSED = UINT32_MAX };
enum { OPEN_SLOTS = 64 }; /* who has more slots free is as empty as who has so many */

struct name_amount {
    const char *name;
    int64_t value;
};
struct name_set {
    const char *name;
    const char **any_of;
    size_t n_any_of; /* sorted; an offer's values lie here */
    const char **all_of;
    size_t n_all_of;
};

/* A requirement class. While unfinished steps or leases use it, it has a number, by which shapes
 * find their plans for it; then the number is for another. */
struct demand {
    uint32_t number, uses;
    uint64_t serial; /* of this use of the number */
    uint64_t hash;
    int64_t vcpus; /* 0: a slot's share */
    int64_t memory;
    uint32_t cards;
    uint64_t card_memory_mib;
    struct name_amount *amounts;
    size_t n_amounts; /* the others, sorted by name */
    struct name_set *sets;
    size_t n_sets; /* sorted by name */
    /* sched.c's */
    struct queue *of_studios;           /* all queues of it, linked by next_of_demand */
    struct heap queues;                 /* studios with ready tasks of it, by virtual time */
    struct link runnable;               /* in core.runnable while `queues` is not empty */
    uint64_t barren; /* nobody had room for it at that core.spared; 0: somebody may have */
    struct link dirty;                  /* in core.dirty_demands */
    struct link delayed;                /* tasks that want another worker */
    struct link wanting;                /* in core.wanting while `delayed` is not empty */
    struct link hungry[LIMIT_PREFETCH]; /* chain ends with room behind them, by place */
    uint64_t hungry_mask;
    struct link queued;    /* chain ends not started and not asked back, newest first */
    struct link stealable; /* in core.stealable while `queued` is not empty */
};

/* How one shape meets one demand. */
struct plan {
    uint64_t serial; /* the demand's, or it is of another that had the number before */
    bool possible;
    uint32_t cards, kind_first; /* that many, of this kind or a larger */
    int64_t need[];             /* as long as the shape's free vector; cards not included */
};

struct shape {
    uint64_t hash;
    uint32_t workers, connected, held; /* that have it */
    uint32_t drained, aside;           /* of those connected; one that is both is drained */
    uint32_t slots, prefetch;
    struct name_amount *amounts;
    size_t n_amounts;
    struct name_set *sets;
    size_t n_sets;
    uint64_t card_memory_mib[LIMIT_GPUS];
    uint32_t card_kind[LIMIT_GPUS], card_order[LIMIT_GPUS]; /* order: smallest first */
    uint32_t n_cards, n_kinds;
    uint64_t kind_memory_mib[LIMIT_GPUS];
    size_t n_free;
    int64_t *total;
    struct plan **plans;
    size_t n_plans;
    struct link link;   /* in fleet.shapes */
    struct link groups; /* all of its groups, empty ones too */
    uint32_t n_groups;
};

struct group {
    struct shape *shape;
    uint64_t hash;
    struct link link; /* in shape.groups */
    struct link open; /* in a list of fleet.open: has workers and a free slot */
    struct link workers;
    int64_t free[];
};

/* What failed on a worker since its last success. */
struct streak {
    uint32_t number;    /* of the worker's streaks, from 1: see struct task's failed_in */
    uint32_t tasks;     /* different ones */
    uint32_t elsewhere; /* of them done since by another worker */
    uint64_t job;       /* the first one's sequence */
    bool several_jobs;
};

struct worker {
    struct worker_id id;
    struct worker_key key;
    uint64_t session;
    uint8_t boot[16];
    bool greeted;     /* has said HELLO since the core runs */
    bool connected;   /* alive within the lease time */
    bool listed;      /* its inventory has come */
    bool no_room;     /* its disk is full: nothing new until it says otherwise */
    bool stalled;     /* an assignment could not be sent; waits for a sign of life */
    bool quiet;       /* connected, and without a word for half the lease time */
    bool awaited;     /* silent, and its leases are held for it: after a restart, or in `held` */
    struct link held; /* in fleet.held: its silence is taken for the broker's own */
    int64_t seen_ns, deadline_ns;
    int64_t timer_ns; /* when its place in core.deadlines is looked at */
    size_t timer_position;
    struct shape *shape;
    int64_t *free;
    uint32_t cards_busy;
    struct group *group;
    struct link grouped; /* in its group */
    struct link leases;
    struct link dirty; /* in core.dirty_workers */
    uint32_t claims;   /* leases asked back elsewhere for it */
    uint64_t done, failed;
    /* durable, by records */
    bool drained;
    const char *pool; /* interned; "": none */
    char *note;       /* NULL: none */
    struct streak streak;
    uint32_t aside_times; /* since its last success */
    int64_t aside_until_wall_s;
    /* not durable */
    bool aside; /* that time has not come yet */
    size_t aside_position;  /* in core.asides while it is */
    struct link suspected;  /* in core.suspects: its streak has changed */
};

struct fleet {
    uint64_t seed; /* of its tables */
    bool no_room;  /* on the broker's disk for any result */
    struct table names, demands, workers_by_key, groups;
    struct demand **all_demands;
    size_t n_demands, demands_capacity;
    uint32_t *spare_numbers;
    size_t n_spare_numbers, spare_numbers_capacity;
    uint32_t n_numbers; /* given, the spare ones included */
    uint64_t serial;
    struct worker **workers;
    size_t n_workers, workers_capacity;
    struct worker *at_hand; /* likely to be asked for by its key next; NULL: none */
    struct table shapes_by_offer;
    struct link shapes, held;
    /* Groups by free cards and free slots, so that the best is found without a walk over the rest;
     * a bit tells which lists are not empty. */
    struct link open[LIMIT_GPUS + 1][OPEN_SLOTS];
    uint64_t open_slots[LIMIT_GPUS + 1], open_cards;
    uint32_t connected, quiet, n_held, aside; /* aside: of those connected */
};

void fleet_init(struct fleet *fleet, uint64_t seed);
void fleet_deinit(struct fleet *fleet);

/* demand.c */
bool demand_valid(const struct step_spec *spec);
struct demand *demand_of(struct fleet *fleet, const struct step_spec *spec); /* made if new */
/* NULL: no step has it. Its hash is that of an equal demand, too. */
struct demand *demand_find(struct fleet *fleet, const struct step_spec *spec, uint64_t *ret_hash);
void demand_use(struct fleet *fleet, struct demand *demand, bool more);
uint64_t demands_in_use(const struct fleet *fleet);
/* Of one in use. The plan lives as long as that use. */
const struct plan *demand_plan(const struct demand *demand, struct shape *shape);
bool demand_possible(const struct demand *demand, struct shape *shape); /* in use or not */
/* Interned, so that equal names are one pointer; held until it is given back. */
const char *name_take(struct fleet *fleet, const char *name);
void name_give(struct fleet *fleet, const char *name);
bool sets_meet(const struct name_set *wanted, const struct name_set *offered, size_t n_offered);
int64_t amount_of(double value);
void demand_free(struct fleet *fleet, struct demand *demand);
/* Names and amounts, sorted and interned, as demands and shapes keep them. */
struct name_set *sets_copy(struct fleet *fleet, const struct attribute *attributes, size_t n);
void sets_free(struct fleet *fleet, struct name_set *sets, size_t n);
void amounts_free(struct fleet *fleet, struct name_amount *amounts, size_t n);
bool sets_same(const struct name_set *a, size_t n_a, const struct name_set *b, size_t n_b);
uint64_t sets_hash(uint64_t hash, const struct name_set *sets, size_t n);
uint64_t amounts_hash(uint64_t hash, const struct name_amount *amounts, size_t n);
void amounts_add(struct name_amount *amounts, size_t *n, struct name_amount amount);
bool amounts_same(const struct name_amount *a, size_t n_a, const struct name_amount *b, size_t n_b);

/* shape.c */
bool shape_valid(const struct offer *offer);
struct shape *shape_of(struct fleet *fleet, const struct offer *offer, const char *pool);
/* The same offer in another pool. */
struct shape *shape_in_pool(struct fleet *fleet, const struct shape *shape, const char *pool);
void shape_release(struct fleet *fleet, struct shape *shape);

/* fleet.c */
struct worker *worker_of(struct fleet *fleet, const struct worker_key *key); /* made if new */
struct worker *worker_find(const struct fleet *fleet, const struct worker_key *key);
void worker_set_shape(struct fleet *fleet, struct worker *worker, struct shape *shape);
static inline bool worker_willing(const struct worker *worker)
{
    return !worker->drained && !worker->aside;
}
bool worker_available(const struct fleet *fleet, const struct worker *worker);
void worker_set_connected(struct fleet *fleet, struct worker *worker, bool connected);
void worker_set_willing(struct fleet *fleet, struct worker *worker, bool drained, bool aside);
void worker_set_quiet(struct fleet *fleet, struct worker *worker, bool quiet);
void worker_set_held(struct fleet *fleet, struct worker *worker, bool held);
/* At least half of those that were there have fallen silent within one lease time: it is the broker
 * that is cut off. One silent worker is its own affair, in however small a farm. */
bool fleet_cut_off(const struct fleet *fleet);
/* Into the group of its free capacity, or out of all where it is not available. */
void worker_regroup(struct fleet *fleet, struct worker *worker);
bool shape_fits(const struct shape *shape, const int64_t *free, const struct plan *plan);
/* Takes or gives back what `plan` needs; cards 0 on taking: choose. Returns the cards. */
uint32_t worker_take(struct worker *worker, const struct plan *plan, uint32_t cards);
void worker_give(struct worker *worker, const struct plan *plan, uint32_t cards);
/* Open groups, the best first: those with the fewest cards, then those with the most slots. */
struct group *fleet_open_next(const struct fleet *fleet, const struct group *group);
/* The best group with room, NULL if none. */
struct group *fleet_room(struct fleet *fleet, const struct demand *demand);
/* Connected and willing workers that could run it were they idle. */
uint32_t fleet_able(struct fleet *fleet, const struct demand *demand);
/* More than `n` of them, those that are held included where `held`: looks no further than that. */
bool fleet_able_exceeds(struct fleet *fleet, const struct demand *demand, uint32_t n, bool held);
bool worker_able(const struct worker *worker, const struct demand *demand);
