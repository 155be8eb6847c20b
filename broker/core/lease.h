/* lease.h - who runs what: leases, and the chains of those queued behind a running one.
 *
 * The life of a lease:
 *
 *      granted ---> ASSIGNED --started--> STARTED --result--> ended
 *                      |  ^                  |
 *             lapsed <-+--+--- lives again --+---> stopping (the floor moved, or the task is done:
 *                                                  keeps its capacity until the worker has stopped)
 *
 * A chain: the head holds capacity and cards; those behind it hold none and inherit them, in
 * order and without a message, when the head ends or when the next one says it has started (its
 * predecessor is then sending its result and needs no capacity).
 *
 * Shape:   LIMIT_LEASES; at most `prefetch` behind a head, all of one demand.
 * Owns:    leases lie in the core's pool, each linked into its worker, job, task and the hash.
 */
#pragma once

#include <broker/core/fleet.h>
#include <broker/core/job.h>

/* Of two leases or more. Who leaves one changes nothing but its length, however long it is. */
struct chain {
    struct lease *tail;
    uint32_t n;
};

/* By lines of the cache: what is looked at of those before and behind it in its chain, of those beside
 * it in a list, and of itself only. */
struct lease {
    struct step *step;
    struct worker *worker;
    const struct plan *plan; /* what it holds; NULL: nothing */
    struct chain *chain;     /* NULL: alone */
    struct lease *before, *behind;
    uint32_t gpu_mask;
    uint16_t permille;
    bool started, lapsed, stopping, noted, asked_back;
    bool counted;  /* as lost: once, however often it is lost again */
    bool rendered; /* its result is on its way: started, and needs no room any more */
    bool listed;   /* by the inventory that is coming in */

    struct link hungry, queued;
    struct link of_worker, of_job;

    struct lease_id id;
    struct task *task; /* NULL when stopping */
    struct worker *claimed_for;

    struct link of_task;
    struct link running; /* in core.running, oldest first, until noted */
    int64_t started_ns, started_wall_s;
};

/* How many a chain's last lease has ahead of it. */
static inline uint32_t lease_ahead(const struct lease *tail)
{
    return tail->chain ? tail->chain->n - 1 : 0;
}

struct lease *lease_find(const struct core *core, const struct lease_id *id);
static inline bool lease_active(const struct lease *lease)
{
    return !lease->lapsed && !lease->stopping;
}
struct lease *lease_new(struct core *core, const struct lease_id *id, struct step *step,
                        struct worker *worker);
/* Out of everything; its capacity goes to the one behind it or becomes free. */
void lease_free(struct core *core, struct lease *lease);
bool lease_take(struct core *core, struct lease *lease,
                uint32_t cards);                            /* capacity of its worker */
void lease_release(struct core *core, struct lease *lease); /* keeps the lease */
void lease_queue(struct lease *tail, struct lease *lease);  /* behind another */
void lease_started(struct core *core, struct lease *lease);
void lease_rendered(struct core *core, struct lease *lease); /* its result alone is still to come */
void lease_lapse(struct core *core, struct lease *lease); /* its task is the caller's to settle */
void lease_revive(struct core *core, struct lease *lease);
void lease_await(struct core *core, struct lease *lease); /* its worker is held */
void lease_stop(struct core *core, struct lease *lease); /* its floor is over: tells the worker */
void lease_ask_back(struct core *core, struct lease *lease); /* unless the worker has begun */
/* Keeps its lists of where it can be followed or asked back from true. */
void lease_refresh(struct core *core, struct lease *lease);
void worker_refresh_leases(struct core *core, struct worker *worker);

/* A lease of the task has ended or begun: its state follows from those it still has. */
void task_settle(struct core *core, struct task *task);
