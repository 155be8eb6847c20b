/* job.h - jobs, steps, tasks: what is to be done and how far it is.
 *
 * The idea: a task has no object. Its state is one bit in one of its step's bitmaps (none: it
 * waits), its floor a run, its dependencies arithmetic on its index. Only a task out of the
 * ordinary (leased, noted, failed before, delayed) has a struct task, found by hash and dropped
 * when it is ordinary again.
 *
 * Shape:   one bit a task and state that the step has seen; < 1 byte a queued task. A job with one
 *          step of at most 64 tasks is two allocations and a space.
 * Owns:    a job owns its steps, their spaces and bitmaps; tasks lie in the core's pool.
 * States:  step_move is the only function that changes a task's state, by one table in job.c.
 * Source:  README.md "The core", "Identity, leases and results".
 */
#pragma once

#include <broker/core/core.h>
#include <broker/core/ready.h>

struct demand;
struct lease;
struct queue;
struct studio;
struct worker;

struct edge {
    struct step *step;
    uint32_t per;
}; /* per 0: the whole step */

struct step {
    /* By what its queue is in order; the job's two are copies, so that it is one line of the cache. */
    uint64_t sequence;
    int32_t priority;
    uint32_t number, depth; /* of the longest chain of steps that it needs */
    bool unfinished;        /* uses its class */
    size_t queue_position;
    struct job *job;
    struct demand *demand;
    struct queue *queue;
    uint64_t n_tasks;
    struct space space;
    /* One set a state. WAITING is the absence of all others; its own set marks those tasks that
     * wait for a moment or for another worker (struct task.delay), not for other tasks. */
    struct bitmap bits[TASK_STATES_COUNT];
    uint64_t n[TASK_STATES_COUNT];
    struct bitmap left; /* not done; kept where a dependency asks about ranges */
    bool left_kept;
    struct floors floors;
    struct floors retried; /* as a retry raised them last: results below are not current */
    struct bitmap delivered; /* of the tasks that are DONE: their submitter has them */
    struct edge *needs, *needed_by;
    size_t n_needs, n_needed_by, needed_by_capacity;
};

enum {
    FAILED_ON = 3,   /* different workers that are kept in mind */
    FULL_FREELY = 2, /* so many may hand a task back for their full disks */
};

struct job {
    struct core *core;
    struct job_id id;
    struct studio *studio;
    uint64_t sequence;
    int64_t submitted_wall_s;
    int32_t priority;
    uint32_t max_workers; /* 0: no limit */
    uint32_t n_out;       /* leases that are out: all but the lapsed */
    bool archived;
    enum job_state state;
    enum pause_reason reason;
    uint32_t floor;
    struct step *steps;
    uint32_t n_steps;
    uint64_t n_tasks, n[TASK_STATES_COUNT];
    uint64_t last_result, attempts_failed, results;
    uint64_t n_delivered;
    int64_t last_s; /* of its last record, in time that has passed: see retain.c */
    uint32_t failed_first; /* failed attempts since the last resume, while nothing succeeded */
    struct worker *failed_first_on[FAILED_ON]; /* distinct */
    uint32_t n_failed_first_on;
    uint32_t failed_tasks; /* parked since the last resume */
    struct usage usage;
    struct link tasks; /* those out of the ordinary */
    struct link leases;
    struct link touched; /* in core.touched: owes an EFFECT_CHANGED */
    int64_t read_s;      /* not durable: when its results were read last, like last_s */
    int64_t until_s;     /* not durable: when it is forgotten; its place in core.expiries */
    size_t until_position;
};

struct note {
    struct lease_id lease;
    struct worker *worker;
    uint32_t gpu_mask;
};
enum delay { DELAY_NONE, DELAY_BACK_OFF, DELAY_OTHER_WORKER };
/* More than it takes to park a task; so only licence failures, after a restart, push one out. */
enum { TASK_RECENT = 12 };

/* What befell a task. Apart from it, because most that are leased are done with no more ado. */
struct past {
    /* durable, by records, at the current floor */
    uint32_t failures, licence_failures;
    struct worker *failed_on[FAILED_ON]; /* distinct */
    uint32_t failed_in[FAILED_ON]; /* which streak of theirs; 0: not their fault */
    uint32_t n_failed_on;
    struct {
        uint32_t epoch;
        uint64_t attempt;
    } recent[TASK_RECENT]; /* attempts recorded, a ring */
    uint32_t n_recent;
    enum attempt_class last_class; /* of `recent` */
    bool noted;
    struct note note;
    /* not durable */
    struct worker *full_on[FULL_FREELY]; /* whose disk was full when it ended there */
    uint32_t n_full;
};

/* A task out of the ordinary. */
struct task {
    struct step *step;
    uint64_t index;
    struct link of_job, leases;
    const struct past *past; /* one that is empty and nobody's, until task_past */
    /* not durable */
    struct worker *avoid; /* handed it back unasked */
    enum delay delay;
    int64_t delay_until_ns;
    size_t delay_position; /* in core.delays */
    struct link delayed;   /* in the demand's list of tasks that want another worker */
};

struct job *job_new(struct core *core, const struct record *record);
/* The steps' spaces become these, which are emptied: what was there keeps its index and its state,
 * what is new waits or is ready. */
void job_grow(struct job *job, struct space *spaces);
bool job_finished(const struct job *job); /* as core_finished */
void job_free(struct job *job);
/* Out of everything that knows it, and freed. */
void job_forget(struct core *core, struct job *job);
struct job *job_find(const struct core *core, const struct job_id *id);
void job_touch(struct job *job);
/* NULL where the job or the task does not exist. */
struct step *job_step(const struct core *core, const struct job_id *id, struct task_id task);

bool step_allowed(enum task_state from, enum task_state to);
void step_move(struct step *step, uint64_t word, uint64_t mask, enum task_state from,
               enum task_state to);
void step_move_one(struct step *step, uint64_t index, enum task_state to);
/* Results of first..last at `floor` that are current and not delivered yet: counted, and marked where
 * `mark` says so. */
uint64_t step_deliver(struct step *step, uint64_t first, uint64_t last, uint32_t floor, bool mark);
/* Whatever their state (but `keep`), first..last become `to`: WAITING or CANCELLED. */
void step_move_range(struct step *step, uint64_t first, uint64_t last, enum task_state to,
                     unsigned keep);
/* Its counts have changed: whether anything of it is left to do may have, too. */
void step_counted(struct step *step);
enum task_state step_state(const struct step *step, uint64_t index);
uint32_t step_floor(const struct step *step, uint64_t index);
bool step_open(const struct step *step, uint64_t index); /* nothing it depends on is left */
/* Those of first..last that wait for nothing any more become ready. */
void step_wake(struct step *step, uint64_t first, uint64_t last);
/* How many of first..last are in `state`. */
uint64_t step_count(const struct step *step, uint64_t first, uint64_t last, enum task_state state);

struct task *task_find(const struct step *step, uint64_t index);
uint64_t task_hash(const struct step *step, uint64_t index);
struct task *task_make(struct step *step, uint64_t index);
struct past *task_past(struct task *task); /* to be written */
void task_drop_if_ordinary(struct task *task);
/* Forgets what was recorded of it: its floor has been raised. */
void task_forget(struct task *task);
void task_delay(struct task *task, enum delay delay, int64_t until_ns);
void task_undelay(struct task *task);
bool task_avoids(const struct task *task, const struct worker *worker);
