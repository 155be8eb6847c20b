/* sched.h - who is next.
 *
 * The idea: studios share by weight through virtual time: each grant moves its studio's clock on
 * by 1/weight, and the studio that is furthest behind is next. A studio that comes back starts at
 * the present, so that it neither hoards nor starves. Within a studio and demand, steps wait in a
 * heap by priority, then age. After every event only the demands and workers it touched are looked
 * at: nothing else can have begun to fit.
 *
 * Invariant: after every step no demand with ready tasks has room on a worker that is there.
 * Source:    start-time fair queueing (Goyal, Vin, Cheng 1996).
 */
#pragma once

#include <broker/core/lease.h>

struct studio {
    struct studio_id id;
    uint32_t weight;
    uint64_t clock;              /* virtual time */
    bool held;                   /* nothing of it is leased; not durable */
    struct link waiting;         /* its queues that are not empty */
    uint64_t n_classes, n_tasks; /* with work left; in all its jobs */
    struct job **jobs;
    size_t n_jobs, jobs_capacity; /* by sequence */
};

/* The ready steps of one studio and demand. */
struct queue {
    struct studio *studio;
    struct demand *demand;
    struct queue *next_of_demand;
    uint32_t uses; /* unfinished steps */
    struct heap steps;
    size_t position;     /* in the demand's heap */
    struct link waiting; /* in the studio's while it is in that heap */
};

void sched_init(struct core *core);
void sched_deinit(struct core *core);
struct studio *studio_of(struct core *core, struct studio_id id); /* NULL: LIMIT_STUDIOS */
struct studio *studio_find(const struct core *core, struct studio_id id);
void demand_init_queues(struct demand *demand);
void queue_use(struct queue *queue, struct fleet *fleet, bool more);
struct queue *studio_queue(struct studio *studio, struct demand *demand);

/* The step has ready tasks of an active job, or no longer. */
void sched_step_changed(struct step *step);
void sched_job_changed(struct job *job);    /* state, priority or limit */
bool sched_job_open(const struct job *job); /* it is active and may have one more lease */
/* None of the studio's jobs is open while it is held; what has not begun is asked back. */
void sched_hold(struct core *core, struct studio_id studio, bool held);
void sched_job_leases(struct job *job, int by); /* one more is out, or one less */
void sched_demand_dirty(struct core *core, struct demand *demand);
void sched_worker_dirty(struct core *core, struct worker *worker);
void sched_run(struct core *core);
