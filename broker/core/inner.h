/* inner.h - the core itself, for its own files: what one event may touch.
 *
 * Flow:    core_step -> an event's handler -> core_emit (a record, applied at once) and
 *          core_effect -> timers -> sched_run -> notes -> EFFECT_CHANGED.
 * Rule:    durable state is changed in apply.c only.
 */
#pragma once

#include <broker/core/sched.h>

#define SECOND_NS       1000000000LL
#define NOTE_LATE_NS    SECOND_NS /* a due note waits this long for a sync to ride on */
#define BACK_OFF_MAX_NS (600 * SECOND_NS)
#define OTHER_WORKER_NS (60 * SECOND_NS) /* a failed task waits this long for another worker */
#define HANDED_BACK_NS  (5 * SECOND_NS)  /* likewise after it was handed back unasked */
#define LATE_OF_LEASE   6                /* a loop that is late by this part of a lease was away */
#define ATTEMPTS_FACTOR 3                /* so many times the limit parks, wherever they ran */
#define CORE_TASKS      (1ULL << 31)     /* in all jobs: 512 MiB of bits */

/* What was asked about one job: it outlives the job. */
struct asked {
    struct job_id job;
    struct link requests;
    struct link gone; /* in core.gone, the longest gone first: the job was forgotten */
    int64_t until_s;
};

struct request {
    struct link of_job; /* in its job's; alone where it names none */
    struct studio_id studio;
    struct request_id id;
    struct request_digest digest;
    enum code code;
    uint64_t tasks;
    struct job_id job;
};

struct core {
    struct core_config config;
    int64_t now_ns, wall_s;
    int64_t promised_ns; /* the deadline last given: how late the loop is */
    int64_t pardon_ns;   /* no worker lapses before: the broker itself was away */
    uint64_t sequence, attempt;
    bool live;
    struct outbox *outbox;

    struct job **jobs;
    size_t n_jobs, jobs_capacity; /* by sequence */
    struct table jobs_by_id, tasks, leases, requests, asked;
    struct pool task_pool, past_pool, lease_pool, chain_pool, request_pool, asked_pool;
    uint64_t n_tasks;
    struct link touched;

    /* Time that has passed is wall_s - skew_s: see retain.c. */
    int64_t skew_s;               /* durable, by records */
    int64_t record_wall_s;        /* of the last record */
    int64_t seen_wall_s, seen_ns; /* of the last step */
    bool clock_seen;              /* there was one */
    int64_t look_s;               /* nothing is forgotten before; 0: no step yet */
    struct heap expiries;         /* jobs that are over */
    struct link gone;

    struct fleet fleet;
    struct heap deadlines; /* workers */
    struct heap delays;    /* tasks */
    struct heap asides;    /* workers set aside, by the wall clock: it outlives a restart */
    struct link suspects;  /* workers whose streak of failures has changed */
    bool streaks;          /* some worker may have one: a job that goes ends them all */
    struct link running;   /* leases started and not noted, oldest first */

    struct table studios;
    struct studio **all_studios;
    size_t n_studios, studios_capacity;
    uint64_t clock;                           /* virtual time of the studio last served */
    struct link runnable, stealable, wanting; /* demands */
    struct link dirty_demands, dirty_workers;
    uint64_t spared; /* how often room was left because there are LIMIT_LEASES */
};

/* outbox.c: the record is given its sequence, put out, and applied. */
void core_emit(struct core *core, struct record *record);
struct effect *core_effect(struct core *core, enum effect_kind kind);
struct effect *core_effect_lease(struct core *core, enum effect_kind kind,
                                 const struct worker *worker, const struct lease_id *lease,
                                 enum code code);

/* apply.c */
void apply_record(struct core *core, const struct record *record);
bool range_valid(const struct job *job, const struct task_range *range);

/* retain.c: what is over is kept for a while */
void on_delivered(struct core *core, const struct event *event);
void on_read(struct core *core, const struct job_id *id);
void clock_run(struct core *core);
void retain_run(struct core *core);
void retain_begin(struct core *core);
int64_t retain_deadline_ns(const struct core *core);
bool job_gone(const struct core *core, const struct job_id *id); /* and its id is not free yet */
int64_t retain_now_s(const struct core *core, int64_t wall_s);
void apply_delivered(struct core *core, const struct record *record);
void apply_forget(struct core *core, const struct record *record);
void apply_unask(struct core *core, const struct record *record);

/* submit.c, verb.c, result.c, hello.c: the events */
void on_submit(struct core *core, const struct event *event);
void on_verb(struct core *core, const struct event *event);
void on_edit(struct core *core, const struct event *event);
void on_result(struct core *core, const struct event *event);
void on_released(struct core *core, const struct event *event);
void on_unsent(struct core *core, const struct event *event);
void on_started(struct core *core, const struct event *event, bool progress);
void on_hello(struct core *core, const struct event *event);
void on_inventory(struct core *core, const struct event *event);
void on_beat(struct core *core, const struct event *event);
void on_room(struct core *core, const struct event *event);
void on_expel(struct core *core, const struct worker_key *key);
void on_tend(struct core *core, const struct event *event);
/* What was answered to this request before; NULL: nothing. */
const struct request *request_find(const struct core *core, struct studio_id studio,
                                   const struct request_id *id);
void request_repeat(struct core *core, const struct event *event, const struct request *request,
                    const struct request_digest *digest);
void core_reply(struct core *core, const struct event *event, enum code code,
                const struct job_id *job, uint64_t tasks, bool repeated);
/* A studio may have no more than what it leaves free for all others, so that none can take all. */
bool share_left(uint64_t own, uint64_t all, uint64_t more, uint64_t limit);
void core_remember(struct core *core, const struct request *request);
struct asked *asked_find(const struct core *core, const struct job_id *id);
struct asked *asked_of(struct core *core, const struct job_id *id); /* made if new */
void asked_free(struct core *core, struct asked *asked);
void request_record(struct core *core, struct studio_id studio, const struct request_id *id,
                    const struct request_digest *digest, const struct job_id *job, uint64_t tasks);

/* verb.c: a change of a range raises its floor; then what runs at an older one is stopped. */
void change_range(struct core *core, struct step *step, enum change_kind change, uint64_t first,
                  uint64_t last);
void job_stop_overtaken(struct core *core, struct job *job);
/* What has not started and stands behind something else goes back, so that a pause is soon; also what
 * has lapsed: should its worker speak again, it has been asked. */
void job_take_back(struct core *core, struct job *job);
bool job_classes_left(const struct core *core, const struct job *job);
/* retry.c: these tasks are run again, and what depends on them, but for what was cancelled. An edit
 * gives `fresh`, a number a step: tasks from there on are new, and their dependents alone are run
 * again; a retry (NULL) passes over what was left out, and is CODE_INVALID in too many pieces. */
enum { RETRY_PIECES = 4 * LIMIT_PIECES_VERB };
enum code retry_ranges(struct core *core, struct job *job, const struct task_range *ranges,
                       size_t n_ranges, const uint64_t *fresh, uint64_t *ret_tasks);

/* result.c: a failed attempt of a lease is recorded; the job pauses itself where that is due. */
void attempt_record(struct core *core, const struct lease_id *id, struct worker *worker,
                    enum attempt_class class, const struct event *event);
bool attempt_recorded(const struct task *task, const struct lease_id *id);
/* The worker is lost with what it ran, which counts once however often it is lost. */
void attempt_lost(struct core *core, struct lease *lease);
void lease_lost(struct core *core, struct lease *lease); /* ends; an attempt if it had started */
void job_pause_if_failing(struct core *core, struct step *step);

/* hello.c: what its leases hold, of a shape that has changed */
void worker_retake(struct core *core, struct worker *worker);

/* tend.c: what it may take has changed; what it is not to begin any more is asked back. */
void worker_attend(struct core *core, struct worker *worker);

/* aside.c: who fails whatever it is given. The first three are apply.c's. */
void aside_failed(struct core *core, struct worker *worker, struct task *task,
                  enum attempt_class class);
void aside_succeeded(struct core *core, struct worker *worker, const struct task *task);
void aside_forget(struct worker *worker);
void aside_judge(struct core *core);
void asides_pardon(struct core *core); /* every streak ends */
void aside_begin(struct core *core, struct worker *worker); /* until worker->aside_until_wall_s */
void aside_end(struct core *core, struct worker *worker);
void asides_run(struct core *core);

/* timer.c */
void timer_worker(struct core *core, struct worker *worker);
void worker_sign_of_life(struct core *core, struct worker *worker);
void worker_part(struct core *core, struct worker *worker);
void timer_heard(struct core *core); /* a word from anybody: the broker is not cut off */
void timers_run(struct core *core, bool unread);
void notes_run(struct core *core);

struct worker *core_worker_at(const struct core *core, struct worker_id id); /* NULL: no such */
