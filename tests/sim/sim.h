/* sim.h - a farm in one thread, from one seed.
 *
 * The idea: the core is real; studios, workers, links and the store are models that live in
 * simulated time, and everything that can go wrong does, by the same seed in the same order.
 * After every step the core is audited; every record passes a naive model (check.c) that knows
 * floors and results task by task; and replaying the records must give the core that lived.
 *
 * Shape:   a world is a few studios and workers, a few hundred tasks, some simulated minutes.
 * Errors:  CHECK, with the seed printed ahead of it.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/check.h>

enum { JOBS = 12, STEPS = 3, TASKS = 40, STUDIOS = 3, WORKERS = 6, HELD = 64, CARDS = 4 };
#define SECOND 1000000000LL
/* How long what is over is kept here; how far off a clock must be to have been set. */
enum {
    RETAIN_S = 60,
    RETAIN_DELIVERED_S = 20,
    RETAIN_REQUESTS_S = 90,
    RETAIN_READ_S = 40,
    FORGET_EVERY_S = 30,
    SLACK_S = 10
};

struct sim_step {
    uint32_t n_tasks, per; /* as submitted */
    uint32_t n_now;        /* as the records say */
    bool depends;
    double vcpus;
    uint32_t cards;
    bool needs_blender;
};

/* What a studio wants and has been told. */
struct sim_job {
    struct job_id id;
    struct studio_id studio;
    int32_t priority;
    uint32_t max_workers;
    uint32_t n_steps;
    struct sim_step steps[STEPS];
    bool impossible; /* asks for what nobody has */
    bool accepted;   /* a reply said so */
    bool poison;     /* some of its tasks always fail */
    bool pooled;     /* it asks for the pool "a" */
};

struct sim_request { /* one at a time per studio; repeated until it is answered */
    bool open, verb, edit;
    uint32_t number;
    uint32_t job;
    struct request_id id;
    struct request_digest digest;
    enum verb_kind kind;
    struct task_range range;
    bool ranged;
    /* of an edit */
    unsigned what;
    int32_t priority;
    uint32_t max_workers;
    bool archived, grows;
    uint32_t sizes[STEPS];
    struct task_range wanted[2 * STEPS];
    uint32_t n_wanted;
};

struct sim_studio {
    struct sim_request request;
    struct sim_request last; /* answered: sent again now and then */
    enum code last_code;
    uint64_t last_tasks;
    int64_t last_ns;
    int64_t next_ns;
    uint64_t requests;
};

enum held { FREE, QUEUED, RUNNING, RESULT };
struct sim_lease {
    enum held state;
    struct lease_id id;
    uint64_t behind;
    uint32_t behind_epoch;
    uint32_t gpu_mask;
    int64_t ends_ns;
    enum attempt_class class;
    bool stop;
};

struct sim_worker {
    struct worker_key key;
    struct worker_id id;
    uint8_t boot[16];
    uint64_t session;
    bool linked, welcomed; /* a connection; the broker's answer to HELLO */
    int64_t wake_ns;       /* while unlinked or paused: when it goes on */
    bool paused;
    bool parted; /* the broker has forgotten the connection */
    bool cut; /* went silent with all the others: nothing may be taken for lost until it is back */
    int64_t beat_ns;
    uint32_t slots, prefetch, cards;
    double vcpus;
    bool blender;
    bool bad; /* whatever it runs fails */
    int64_t full_until_ns; /* its disk */
    bool told_full;        /* the broker has heard so */
    struct sim_lease held[HELD];
    uint32_t n_held; /* from there on all are FREE */
};

/* A message in flight towards the broker, or an effect on its way out. */
struct sim_message {
    int64_t at_ns;
    uint64_t order;
    bool to_worker;
    uint32_t worker;
    uint64_t session; /* a link's messages die with it */
    struct event event;
    struct lease_id lease; /* of an inventory item */
    struct inventory_item items[HELD];
    struct effect effect;
};

struct task_model {
    uint32_t floor, result_floor, older_floor; /* older: of a result that a retry overtook */
    bool done, cancelled, failed, left_out, delivered, has_older;
};

/* What the records say of a job's end. */
struct job_model {
    int64_t last_ns; /* of its last record */
    int64_t read_ns; /* when this life of the broker was last asked for its results; 0: never */
    bool gone;       /* forgotten; also where the store has nothing of it any more */
    bool buried;     /* so, durably */
};

/* What the records say of a worker. */
struct worker_model {
    bool drained;
    const char *pool;
    int64_t aside_until_wall_s;
    struct { /* different tasks, since its last success */
        uint32_t job, step, floor;
        uint64_t index;
        bool elsewhere;
    } failed[256];
    uint32_t n_failed;
};

struct world {
    uint64_t seed, random;
    int64_t now_ns, ends_ns;
    bool trace;     /* every message of a worker, to stderr */
    bool calm;      /* no more faults, no more requests */
    bool replaying; /* a crashed core is gone and the next one is not there yet */
    struct core *core;
    struct core *restored; /* made of the records alone, as they come */
    uint32_t epoch;
    struct outbox outbox;
    struct record *records;
    int64_t *record_ns; /* when each was made */
    size_t n_records, n_durable, records_capacity, record_ns_capacity;
    bool no_room; /* on the broker's disk */
    bool used_up[STUDIOS]; /* their quotas */
    int64_t wall_ahead_s; /* of the time there is */
    int64_t wall_most_s;  /* the latest that any event said: what was over then is over */
    uint64_t leaps;
    struct sim_effect {
        struct effect effect;
        size_t after;
        uint64_t session; /* of the worker that it is for */
    } * waiting;
    size_t n_waiting, waiting_capacity;
    struct sim_message *messages;
    size_t n_messages, messages_capacity;
    uint64_t order;
    struct sim_job jobs[JOBS];
    uint32_t n_jobs;
    struct sim_studio studios[STUDIOS];
    struct sim_worker workers[WORKERS];
    struct task_model model[JOBS][STEPS][TASKS];
    struct worker_model worker_model[WORKERS];
    struct job_model job_model[JOBS];
    int64_t operator_ns;
    uint64_t operator_requests;
    uint32_t floors[JOBS]; /* of the jobs */
    uint64_t edits;
    uint64_t events, crashes, cuts, results, stale, already, adopted, notes, parked, tends, asides;
    uint64_t delivered, forgotten, unasked, used_ups;
};

uint64_t sim_random(struct world *world, uint64_t below);
bool sim_chance(struct world *world, unsigned in); /* one in `in`; never once calm */

/* world.c: the broker, its store and its links */
void world_init(struct world *world, uint64_t seed);
void world_deinit(struct world *world);
void world_event(struct world *world, struct event *event);
void world_sync(struct world *world);  /* records become durable, effects leave */
void world_crash(struct world *world); /* without what was not synced */
extern bool world_sends_early;         /* a plant: whatever waits for a sync has left already */
struct core *world_replay(const struct world *world, size_t n_records); /* as the store has them */
int64_t world_wall_s(const struct world *world);
void world_send(struct world *world, uint32_t worker, const struct event *event);
bool world_run(struct world *world); /* one more thing happens; false: nothing will */
void space_fill(uint32_t n_tasks, uint32_t n_submitted, struct space *space);
void spec_fill(const struct sim_job *job, struct job_spec *spec, struct step_spec *steps,
               struct space *spaces);

/* operator.c */
#define OPERATOR_COOKIE UINT32_MAX /* nobody waits for these answers */
void operator_run(struct world *world);
void operator_room(struct world *world, bool none);
void operator_quota(struct world *world, uint32_t studio, bool used_up);
void operator_tend(struct world *world, uint32_t worker, enum tend_kind kind, const char *text);

/* actors.c */
void studio_run(struct world *world, uint32_t number);
void studio_answered(struct world *world, const struct effect *effect);
void worker_run(struct world *world, uint32_t number);
void worker_receive(struct world *world, uint32_t number, const struct effect *effect);
void worker_unlink(struct world *world, uint32_t number, int64_t away_ns, bool dies);
int64_t worker_next_ns(const struct world *world, uint32_t number);
void worker_init(struct world *world, uint32_t number);

void world_trace(const struct world *world, uint32_t worker, const char *what,
                 const struct lease_id *lease, uint64_t number);

/* run.c */
void sim_run(struct world *world, uint64_t seed, bool verbose, bool trace);

/* check.c */
void check_record(struct world *world, const struct record *record, int64_t at_ns);
/* A job that was forgotten before the event is unknown. */
void check_unknown(const struct world *world, const struct event *event, bool gone);
/* What a worker still does is not taken from it without a reason. */
void check_verdicts(const struct world *world, const struct event *event);
void check_effect(const struct world *world, const struct effect *effect);
void check_limits(const struct world *world); /* after each step: what it has assigned */
/* Right after an edit of frames was taken: it did what it says. */
void check_frames(struct world *world, const struct sim_request *request);
void check_restored(struct world *world);
/* A task that has ended, or will not for a reason that stays. */
bool check_explained(const struct world *world, uint32_t number, uint32_t step, uint32_t index);
void check_end(struct world *world);
uint32_t sim_job_number(const struct world *world, const struct job_id *id);
