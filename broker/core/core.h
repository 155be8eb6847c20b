/* core.h - the brain: jobs, leases and workers as a state machine. Sans-IO and deterministic.
 *
 * An event goes in; records (durable changes) and effects (messages to peers) come out into an
 * outbox. Nothing else: no socket, file, clock, thread, log, protobuf or random number. Durable
 * state changes only by a record, emitted and applied by the same code that recovery runs, so
 * that restoring equals having lived.
 *
 * Shape:   limits.h. Memory is per job, not per task: bitmaps, intervals, and a sparse table of
 *          exceptions. A worker matches requirement classes, not jobs; no scan over jobs, tasks or
 *          workers lies on the way of a lease.
 * Units:   now_ns monotonic; wall_s seconds since 1970; amounts as the job asked, memory in MiB.
 * Owns:    the core copies what it keeps. Pointers in an event are borrowed for the call; pointers
 *          in records and effects point into the event or the core and live until the next call.
 * Errors:  a refusal is an EFFECT_REPLY with a code of state.h. A bug of ours is CHECK.
 * Source:  ../../README.md; README.md "The core".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/limits.h>
#include <proto/space.h>
#include <proto/state.h>

struct core;
struct job_id { uint8_t bytes[16]; };
struct request_id { uint8_t bytes[16]; };
struct request_digest { uint8_t bytes[32]; };
struct worker_key { uint8_t bytes[32]; };
struct worker_id { uint32_t value; };  /* the core's, stable while it runs */
struct studio_id { uint32_t value; };  /* the store's; from 1 */
struct task_id { uint32_t step; uint64_t index; };

struct lease_id {
    struct job_id job;
    struct task_id task;
    uint32_t floor;
    uint32_t epoch;
    uint64_t attempt; /* unique within an epoch */
};

struct task_range { uint32_t step; uint64_t first, last; };
struct delivered_run { struct task_range range; uint32_t floor; }; /* results of one floor */

/* ---- what a step asks, what a worker offers ---- */

struct amount { const char *name; double value; };
struct attribute {
    const char *name;
    const char *const *any_of; size_t n_any_of; /* a worker offers its values here */
    const char *const *all_of; size_t n_all_of;
};
struct dependency { uint32_t step; uint32_t per; }; /* per 0: the whole step; see westlight.proto */

/* amount.worker.vcpu, .memory (MiB), .gpu, .gpu.memory (MiB each); others are named amounts of a
 * worker. A step that names no vcpu asks for one slot and whatever vcpus that slot's share is. */
struct step_spec {
    struct space *space; /* sealed; moved into the core (emptied) when the job is accepted */
    const struct amount *amounts; size_t n_amounts;
    const struct attribute *attributes; size_t n_attributes;
    const struct dependency *dependencies; size_t n_dependencies;
};

struct job_spec {
    struct job_id job;
    struct studio_id studio;
    int32_t priority;     /* higher first, within the studio */
    uint32_t max_workers; /* leases out at once; 0: no limit */
    struct step_spec *steps; size_t n_steps;
    const char *name;                   /* for the store's rows; the core passes it on */
    const void *blob; size_t blob_size; /* what the store keeps; the core passes it on */
};

struct gpu_offer { uint64_t memory_mib; };
struct offer {
    uint32_t slots, prefetch;
    const struct amount *amounts; size_t n_amounts;
    const struct attribute *attributes; size_t n_attributes;
    const struct gpu_offer *gpus; size_t n_gpus;
};

struct usage { uint64_t wall_ns, cpu_ns, memory_bytes, bytes_in, bytes_out, card_ns; };

/* ---- events ---- */

enum event_kind {
    EVENT_TICK,       /* nothing but the time */
    EVENT_SUBMIT,     /* its blocks are durable and pinned */
    EVENT_VERB,
    EVENT_EDIT,       /* likewise, where it brings a new recipe */
    EVENT_HELLO,      /* a worker's; an older session's leases wait for the inventory */
    EVENT_INVENTORY,
    EVENT_BEAT,
    EVENT_ROOM,       /* on the broker's disk: without it nothing is leased, what runs goes on */
    EVENT_QUOTA,      /* a studio's: while it is used up nothing of it is leased, likewise */
    EVENT_STARTED,
    EVENT_PROGRESS,   /* also a sign of life */
    EVENT_RESULT,     /* its blocks are durable and pinned */
    EVENT_RELEASED,
    EVENT_UNSENT,     /* an EFFECT_ASSIGN that could not be sent */
    EVENT_EXPEL,      /* a worker's key was revoked */
    EVENT_TEND,       /* an operator's, on workers */
    EVENT_DELIVERED,  /* who submitted a job has written and synced results of it */
    EVENT_READ,       /* somebody fetches a job's results, and may be in the middle: no reply */
};

enum verb_kind { VERB_CANCEL = 1, VERB_PAUSE, VERB_RESUME, VERB_RETRY };
/* What is done to a worker; the last is done by the core alone. */
enum tend_kind { TEND_DRAIN = 1, TEND_UNDRAIN, TEND_CLEAR, TEND_NOTE, TEND_POOL, TEND_ASIDE };
enum held_state { HELD_QUEUED, HELD_RUNNING, HELD_RESULT };

struct inventory_item { struct lease_id lease; enum held_state state; uint32_t gpu_mask; };

struct event {
    enum event_kind kind;
    int64_t now_ns;
    int64_t wall_s;
    bool unread;     /* messages lie in the inbox and are not read: nobody's silence counts */
    uint64_t cookie; /* given back in EFFECT_REPLY */
    union {
        struct {
            struct job_spec *spec;
            struct request_id request;
            struct request_digest digest;
        } submit;
        struct {
            enum verb_kind verb;
            struct studio_id studio; /* 0: an operator, any studio's job */
            struct job_id job;
            struct request_id request;
            struct request_digest digest;
            const struct task_range *ranges; size_t n_ranges; /* none: all; retry: the failed */
        } verb;
        struct {
            unsigned what; /* enum edit_what */
            struct studio_id studio; /* as in verb */
            struct job_id job;
            struct request_id request;
            struct request_digest digest;
            int32_t priority;
            uint32_t max_workers;
            bool archived;
            /* FRAMES. Of every step, moved where they are taken; none: nothing is added. The tasks
             * not `wanted` (by step, then index) are left out. */
            struct space *spaces; size_t n_spaces;
            const struct task_range *wanted; size_t n_wanted;
            const char *name;                   /* for the store's rows; NULL: as it was */
            const void *blob; size_t blob_size; /* what the store keeps of it */
        } edit;
        struct {
            struct worker_key key;
            uint64_t session;
            uint8_t boot[16];
            bool rival; /* the connection of the key's present session still stands */
            const struct offer *offer;
        } hello;
        struct { struct worker_id worker; const struct inventory_item *items; size_t n_items; bool last; } inventory;
        struct { struct worker_id worker; bool no_room; } beat;
        struct { bool none; } room;
        struct { struct studio_id studio; bool used_up; } quota;
        struct { struct worker_id worker; struct lease_id lease; } started;
        struct { struct worker_id worker; struct lease_id lease; uint16_t permille; } progress;
        struct {
            struct worker_id worker;
            struct lease_id lease;
            enum attempt_class class;
            bool warned; /* it counts, and has something to say */
            struct usage usage;
            const void *blob; size_t blob_size; /* what the store keeps of it */
        } result;
        struct { struct worker_id worker; struct lease_id lease; bool no_room; } released;
        struct { struct worker_id worker; struct lease_id lease; } unsent;
        struct { struct worker_key key; } expel;
        struct {
            enum tend_kind tend;
            const struct worker_key *workers; size_t n_workers;
            const char *text; /* NOTE, POOL: "" takes it away; DRAIN: its note, NULL: as it is */
            struct request_id request;
            struct request_digest digest;
        } tend;
        struct {
            struct studio_id studio; /* as in verb */
            struct job_id job;
            const struct delivered_run *runs; size_t n_runs; /* in order, none over another */
        } delivered;
        struct { struct job_id job; } read;
    };
};

/* ---- records: durable, in order, one transaction for all of one step ---- */

enum record_kind {
    RECORD_JOB,
    RECORD_ATTEMPT, /* class OK: the committed result */
    RECORD_CHANGE,
    RECORD_EDIT,    /* as it was asked for */
    RECORD_NOTE,    /* a lease that has lasted; a later note or attempt of the task replaces it */
    RECORD_REQUEST, /* a mutating request and its answer */
    RECORD_TEND,    /* what was done to a worker; `job` is none */
    RECORD_DELIVERED,
    RECORD_FORGET,  /* the job is unknown from here on; the store need not keep its other records */
    RECORD_UNASK,   /* nor, from here on, the requests about it, and its RECORD_FORGET */
    RECORD_CLOCK,   /* the wall clock was set, or nobody saw it go; `job` is none */
};
enum change_kind {
    CHANGE_STATE,    /* of the job: state, reason */
    CHANGE_RETRY,    /* range: floor raised, to be run again */
    CHANGE_CANCEL,   /* range: floor raised, not to be run */
    CHANGE_LEAVE_OUT, /* range: floor raised, not of the job any more; what is done stays */
    CHANGE_PARK,     /* range of one: failed too often */
};
enum pause_reason { REASON_NONE, REASON_USER, REASON_FAILED_FIRST, REASON_FAILED_MANY };

struct record {
    enum record_kind kind;
    uint64_t sequence; /* 1, 2, 3, ... over all records of the broker's life */
    int64_t wall_s;
    struct job_id job;
    union {
        struct { struct job_spec *spec; } submit; /* live: spaces already moved; the blob is whole */
        struct {
            struct lease_id lease;
            struct worker_key worker;
            enum attempt_class class;
            bool warned; /* for those who look; nothing here depends on it */
            struct usage usage;
            const void *blob; size_t blob_size;
        } attempt;
        struct {
            enum change_kind change;
            struct task_range range;
            uint32_t floor;         /* of the job for CHANGE_STATE cancelled; of the range else */
            enum job_state state;
            enum pause_reason reason;
        } change;
        struct {
            unsigned what;
            int32_t priority;
            uint32_t max_workers;
            bool archived;
            struct space *spaces; size_t n_spaces; /* live: already moved */
            const char *name;
            const void *blob; size_t blob_size;
        } edit;
        struct { struct lease_id lease; struct worker_key worker; uint32_t gpu_mask; } note;
        struct {
            struct studio_id studio;
            struct request_id request;
            struct request_digest digest;
            enum code code;
            uint64_t tasks;
        } request;
        struct {
            enum tend_kind tend;
            struct worker_key worker;
            const char *text;     /* NOTE, POOL; "" else */
            int64_t until_wall_s; /* ASIDE */
        } tend;
        struct delivered_run delivered; /* those of them that are current */
        struct { struct studio_id studio; } forget;
        struct { int64_t ahead_s; } clock; /* by so much, and not by time that has passed */
    };
};

/* ---- effects: they leave in order, after the records emitted ahead of them are durable ---- */

enum effect_kind {
    EFFECT_REPLY,     /* to the cookie's owner */
    EFFECT_WELCOME,   /* to a worker whose hello counts */
    EFFECT_VERDICT,
    EFFECT_ASSIGN,
    EFFECT_REVOKE,
    EFFECT_COMMITTED,
    EFFECT_PART,      /* whatever else the worker says, it shall say HELLO first, and list */
    EFFECT_CHANGED,   /* job: somebody may be watching */
};
enum revoke_kind { CORE_REVOKE_STOP, CORE_REVOKE_TAKE_BACK };

struct effect {
    enum effect_kind kind;
    uint64_t cookie;         /* REPLY, WELCOME */
    struct worker_id worker; /* all but REPLY and CHANGED */
    struct lease_id lease;
    enum code code;          /* REPLY, COMMITTED; WELCOME: not OK where the key is in use */
    union {
        struct { uint64_t sequence, tasks; bool repeated; struct job_id job; } reply;
        struct { enum verdict verdict; bool last; bool mark_only; } verdict; /* mark_only: no lease */
        struct {
            struct studio_id studio;
            uint32_t gpu_mask;
            uint32_t vcpus;
            uint64_t memory_mib;
            /* 0: run now. Otherwise when that lease no longer runs; should it end before it has
             * started, what stood behind it stands behind what it stood behind. The cards are
             * those it will have then. */
            uint64_t behind; uint32_t behind_epoch;
        } assign;
        struct { enum revoke_kind revoke; } revoke;
        struct { struct job_id job; } changed;
    };
};

struct outbox {
    struct record *records; size_t n_records, records_capacity;
    struct effect *effects; size_t n_effects, effects_capacity;
    /* effects[i] waits for the first `effects_after[i]` records of this outbox. */
    size_t *effects_after;
};
void outbox_init(struct outbox *outbox);
void outbox_clear(struct outbox *outbox); /* keeps the memory */
void outbox_deinit(struct outbox *outbox);

struct core_config {
    uint32_t epoch;
    uint64_t sequence; /* once recovered, records go on above it; 0: above the last */
    uint64_t seed; /* of the hash tables: random, so that nobody can choose ids that collide */
    int64_t lease_ns, reconnect_ns, note_after_ns; /* 0: limits.h */
    int64_t licence_ns; /* 0: limits.h */
    uint32_t attempts_failed, job_failed, job_failed_first; /* 0: limits.h */
    uint64_t tasks_max, jobs_max, classes_max;              /* of all studios; 0: limits.h */
    /* How long what is over is kept, and how often that is looked at. 0: limits.h */
    int64_t retain_s, retain_delivered_s, retain_requests_s, forget_every_s, clock_slack_s;
    int64_t retain_read_s; /* after the last page of its results was read */
};

struct core *core_new(const struct core_config *config);
void core_free(struct core *core);
void core_step(struct core *core, const struct event *event, struct outbox *outbox);
/* Events about these leases are next: what they need begins to come from memory, all at once where
 * each would wait for its own. Changes nothing. */
enum { CORE_EXPECT = 64 };
void core_expect(const struct core *core, const struct lease_id *leases, size_t n); /* at most CORE_EXPECT */
/* Recovery: records in sequence order. Then core_recovered once, with the time. */
void core_apply(struct core *core, const struct record *record);
/* Why a record read back is none of this history; NULL: it may be applied. */
const char *core_unfit(const struct core *core, const struct record *record);
void core_recovered(struct core *core, int64_t now_ns);
int64_t core_passed_s(const struct core *core); /* the wall clock less its leaps, at the last record */
int64_t core_deadline_ns(const struct core *core); /* INT64_MAX: none */
void core_audit(const struct core *core);          /* every invariant; CHECKs */
uint64_t core_digest(const struct core *core);     /* of durable state only */
void core_studio_weight(struct core *core, struct studio_id studio, uint32_t weight); /* default 1 */

/* ---- looking, for replies ---- */

/* `tasks` are those of the job: what was left out is in none of them. */
struct job_counts { uint64_t tasks, waiting, ready, leased, running, done, failed, cancelled; };
struct job_view {
    struct job_id job;
    struct studio_id studio;
    uint64_t sequence; /* of its RECORD_JOB */
    int64_t submitted_wall_s;
    int32_t priority;
    uint32_t max_workers;
    bool archived;
    bool used_up; /* its studio's quota, for which it waits */
    enum job_state state;
    enum pause_reason reason;
    uint32_t n_steps;
    uint64_t last_result;     /* sequence */
    uint64_t attempts_failed;
    struct usage usage;       /* of all attempts; memory is the highest */
    struct job_counts counts;
    uint64_t delivered;   /* of counts.done */
    int64_t until_wall_s; /* when it is forgotten, should nothing happen; 0: it is not over */
};
bool core_job(const struct core *core, const struct job_id *job, struct job_view *ret_view);
/* The newest job with a sequence below `before` (0: the newest); a studio of 0 is any. */
bool core_job_before(const struct core *core, struct studio_id studio, uint64_t before, struct job_view *ret_view);
bool core_step_counts(const struct core *core, const struct job_id *job, uint32_t step, struct job_counts *ret_counts);
const struct space *core_step_space(const struct core *core, const struct job_id *job, uint32_t step);
/* The current floor and state of a task. */
bool core_task(const struct core *core, const struct job_id *job, struct task_id task, enum task_state *ret_state, uint32_t *ret_floor);
/* This request was answered, and is still remembered: told to the core once more it gets the same. */
bool core_answered(const struct core *core, struct studio_id studio, const struct request_id *request);
/* Nothing of it will run any more, unless asked to. */
bool core_finished(const struct core *core, const struct job_id *job);
/* Runs of tasks in `state` (DONE or FAILED or CANCELLED) from `from`; returns how many were written. */
size_t core_task_ranges(const struct core *core, const struct job_id *job, uint32_t step, enum task_state state, uint64_t from, struct task_range *ret_ranges, size_t max);
size_t core_delivered_ranges(const struct core *core, const struct job_id *job, uint32_t step, struct task_range *ret_ranges, size_t max); /* of those that are DONE */

struct lease_view { struct lease_id lease; struct worker_id worker; bool started; uint16_t permille; int64_t started_wall_s; };
size_t core_job_leases(const struct core *core, const struct job_id *job, struct lease_view *ret_views, size_t max);
/* The lease as the core holds it, for checks at the edge; false where it is not known. */
bool core_lease(const struct core *core, const struct lease_id *lease, struct lease_view *ret_view);

/* Why a step's ready or waiting tasks do not run. The edge puts it in words. */
enum why_kind {
    WHY_NOTHING,      /* nothing waits */
    WHY_PAUSED,
    WHY_DEPENDS,      /* on `step` */
    WHY_NO_WORKER,    /* none is connected */
    WHY_NO_AMOUNT,    /* no connected worker offers as much of `name`: wanted, best */
    WHY_NO_ATTRIBUTE, /* no connected worker has `name` with any of the values wanted: `value` */
    WHY_NO_ONE_FITS,  /* each demand is met somewhere, never all on one worker */
    WHY_BUSY,         /* `workers` could run it and are busy */
    WHY_UNWILLING,    /* all who could run it are drained or set aside: so many */
    WHY_HELD,         /* for workers that are expected back */
    WHY_LICENCE,      /* found none; waits for a back-off */
    WHY_LIMIT,        /* the job has as many `workers` as it may */
    WHY_QUOTA,        /* its studio's is used up */
    WHY_RETRYING,     /* failed on the workers there are; waits for another or for a back-off */
};
struct why { enum why_kind kind; uint32_t step; const char *name; const char *value; double wanted, best; uint32_t workers, drained, aside; };
void core_why(const struct core *core, const struct job_id *job, uint32_t step, struct why *ret_why);

/* A value of an attribute; the texts are good until the next step. */
struct offered { const char *name, *value; };
/* The first attribute that begins with `prefix` and that a step asks for; `value` is NULL where several or any will do. */
bool core_step_wants(const struct core *core, const struct job_id *job, uint32_t step, const char *prefix, struct offered *ret_wanted);
/* Those of attributes that begin with `prefix`, each once, however many workers have them; returns how many were written. */
size_t core_offered(const struct core *core, const char *prefix, struct offered *ret_offered, size_t max);

struct worker_view {
    struct worker_id worker;
    struct worker_key key;
    bool connected, listed; /* listed: its inventory has come */
    bool no_room;           /* on its disk */
    uint64_t session;
    int64_t seen_ns;
    uint32_t running, queued;
    uint64_t done, failed;
    bool drained, aside;
    int64_t aside_until_wall_s;
    uint32_t failed_in_a_row; /* different tasks, since its last success */
    const char *pool, *note;  /* "" where it has none; until the next step */
};
bool core_worker(const struct core *core, struct worker_id worker, struct worker_view *ret_view);
bool core_worker_by_key(const struct core *core, const struct worker_key *key, struct worker_view *ret_view);
uint32_t core_workers_count(const struct core *core); /* ids are 0 .. count - 1 */
