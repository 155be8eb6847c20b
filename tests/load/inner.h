/* inner.h - the engine's state, shared by its files. */
#pragma once

#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <proto/seal.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <tests/load/engine.h>
#include <tests/load/figures.h>
#include <tests/load/hot.h>
#include <tests/load/net.h>

enum held_state {
    HELD_FREE,
    HELD_QUEUED,   /* behind another, or about to begin */
    HELD_RUNS,     /* in DUE_END */
    HELD_READY,    /* its result is to be said */
    HELD_SAID,     /* in DUE_ANSWER: its result waits for Committed */
    HELD_BUSY,     /* in DUE_AGAIN */
    HELD_RELEASED, /* handed back, until the broker has heard so */
};

/* Held leases wait for one of these; each lasts equally long for all, so that they are queues. */
enum due { DUE_END, DUE_ANSWER, DUE_AGAIN, DUE_COUNT };

/* A lease at a worker. Others are named by index; 0 is none. */
struct held {
    uint64_t attempt, task;
    uint32_t epoch, job, worker;
    uint8_t state, class_, lease_size;
    bool in_say, started_said, foreign;
    uint32_t bucket_next;                /* of its hash */
    uint32_t worker_next, worker_before; /* all of one worker */
    uint32_t say_next;
    uint32_t ahead, first_behind, behind_next;
    uint32_t due_next, due_before;
    int64_t due_ns, started_wall_s;
    uint8_t lease[HOT_LEASE_BYTES], ticket[HOT_TICKET_BYTES];
};

enum phase {
    PHASE_AWAY,     /* until at_ns */
    PHASE_GREETING, /* until at_ns */
    PHASE_LISTING,  /* its inventory is not answered to the end */
    PHASE_JOINED,   /* beats at at_ns */
};

struct worker {
    uint8_t boot[16];
    uint64_t session;
    uint32_t epoch, listed_epoch; /* of who has welcomed it; of who has its list */
    uint8_t state;
    bool open, dirty, say_hello, say_list, say_beat;
    bool leaving; /* takes nothing new, and goes when it has nothing */
    int64_t at_ns, heard_ns, told_ns;
    uint32_t heap_place;
    uint32_t first_held, n_held;
    uint32_t first_say, last_say;
    int64_t *free_ns; /* ring: since when slots are free */
    uint32_t free_first, n_free;
};

struct load {
    struct load_config config;
    struct net *net;
    struct link_keypair *keys; /* of all links; the last is the studio's */
    struct sealer *sealer;
    uint64_t run; /* all its jobs' ids are made of it */
    int64_t now_ns, wall_offset_ns, beat_ns;
    uint64_t random;
    uint32_t epoch;

    struct held *held;
    uint32_t n_held, held_capacity, free_held;
    uint32_t *buckets, n_buckets;
    struct {
        uint32_t first, last;
    } due[DUE_COUNT];

    struct worker *workers;
    uint32_t *heap, n_heap; /* of workers, by at_ns */
    uint32_t *dirty, n_dirty;
    uint32_t n_joined;
    bool hold;        /* see load_hold */
    int64_t hold_ns;  /* since when */
    int64_t churn_ns; /* when the next one leaves */

    uint8_t fixed[2048]; /* of all results */
    size_t fixed_size;
    uint8_t *out; /* a message in the making */
    uint8_t *bits, *told; /* a bit each (job, task): settled; said to be committed */
    uint64_t settled, total;

    struct {
        bool open, greeted, hello_said;
        int64_t at_ns;
        uint64_t next, accepted, request;
        uint8_t *accepted_bits;
        int64_t *said_ns, longest_ns; /* when each was submitted; until it was accepted */
        int64_t again_ns; /* it was told that the broker is busy */
        Wl__Envelope *answer;
        struct bytes recipe;
        struct block_key recipe_key;
        uint8_t recipe_wrapped[32], job_key[32];
    } studio;

    struct load_counts counts;
    struct histogram latency;
    int64_t first_submit_ns, first_lease_ns, accepted_ns, last_commit_ns, moved_ns, asked_ns;
};

/* held.c */
uint32_t held_new(struct load *load, const struct hot_lease *lease, uint32_t worker);
void held_free(struct load *load, uint32_t index);
uint32_t held_find(const struct load *load, uint64_t attempt, uint32_t epoch);
void held_due(struct load *load, uint32_t index, enum due due, int64_t at_ns);
void held_not_due(struct load *load, uint32_t index);
void held_follow(struct load *load, uint32_t index, uint32_t ahead);
void held_leave_queue(struct load *load, uint32_t index); /* whoever waited for it waits for what it waited for */

/* workers.c */
int workers_init(struct load *load);
void workers_deinit(struct load *load);
void worker_hear(struct load *load, uint32_t worker, const void *data, size_t size);
void workers_tend(struct load *load);
void workers_beat(struct load *load); /* all of them, now */
int64_t workers_deadline_ns(const struct load *load);
int workers_flush(struct load *load);
void worker_at(struct load *load, uint32_t worker, int64_t at_ns);
void worker_dirty(struct load *load, uint32_t worker);
void worker_offline(struct load *load, uint32_t worker);
void worker_greet(struct load *load, uint32_t worker);

/* leases.c */
void leases_assign(struct load *load, uint32_t worker, const struct hot_assign *assign);
void leases_committed(struct load *load, uint32_t worker, const struct hot_committed *committed);
void leases_revoke(struct load *load, uint32_t worker, const Wl__Revoke *revoke);
void leases_verdict(struct load *load, uint32_t worker, const Wl__Verdict *verdict);
void leases_forget(struct load *load, uint32_t worker); /* as a process that is killed does */
void leases_offline(struct load *load, uint32_t worker);
void leases_due(struct load *load);
int64_t leases_deadline_ns(const struct load *load);
int leases_list(struct load *load, uint32_t worker);
/* Puts what is to be said of leases into packets; LINK_E_AGAIN where the link has no room. */
int leases_say(struct load *load, uint32_t worker);

/* studio.c */
int studio_init(struct load *load);
void studio_deinit(struct load *load);
void studio_take(struct load *load, const void *data, size_t size);
int studio_tend(struct load *load, bool submits);
void load_job_id(const struct load *load, uint64_t job, uint8_t ret_id[16]);
bool load_job_known(const struct load *load, const uint8_t *id, uint32_t *ret_job);

/* engine.c */
int load_turn(struct load *load, bool submits);
uint64_t load_mix(uint64_t x);
uint64_t load_random(struct load *load);
int load_say(struct load *load, uint32_t link, const Wl__Envelope *envelope);
int load_send(struct load *load, uint32_t link, const void *data, size_t size);
