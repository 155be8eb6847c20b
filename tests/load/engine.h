/* engine.h - simulated workers and a simulated studio, over the real protocol, in one process.
 *
 * Every worker is a link of its own with a key of its own: it says Hello, lists what it has, beats,
 * takes leases, runs them in the order in which they are queued (a task is a span of time, or
 * nothing at all), says Started and Result, keeps a result until it is Committed, obeys Revoke and
 * Verdict, and finds its way back to a broker that was away. The studio submits and, at the end,
 * reads everything back.
 *
 * Counts:  each (job, task) has one bit: set when its result is committed. load_check compares with
 *          what the broker lists. What does not fit is counted and told.
 * Owns:    struct load owns links, leases, jobs. Everything happens inside of load_* calls.
 * Errors:  -errno; LOAD_E_*; what config.turn answered.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <proto/link.h>

enum {
    LOAD_E_STUCK = 2,   /* nothing has moved for config.patience_ns */
    LOAD_E_REFUSED = 3, /* the broker said no to what it has to take */
};

struct load_config {
    const char *endpoint;
    struct link_key server;
    uint8_t master[32]; /* all keys are made of it: load_keys */
    uint32_t workers, slots, prefetch;
    uint64_t jobs, frames; /* frames of each job */
    uint32_t result_bytes, recipe_bytes;
    int64_t task_ns;
    double churn;      /* of the workers that leave and come back each minute */
    uint32_t ramp;     /* connections begun each second */
    uint64_t seed;
    int io_threads;
    int64_t patience_ns;
    /* Called at each turn; an answer other than 0 ends what is going on. */
    int (*turn)(void *user, int64_t now_ns);
    void *user;
};

struct load_counts {
    uint64_t assigned, results, committed, already, stale, busy, revoked, lapsed;
    uint64_t duplicated, rerun, foreign, refused; /* none of these may be */
    uint64_t messages_in, messages_out, bytes_in, bytes_out; /* of workers */
    uint64_t assign_bytes, committed_bytes, result_bytes;    /* of envelopes */
    uint64_t hellos, left, errors;
    uint64_t parked; /* frames whose workers were lost too often; they are retried */
};
/* rerun: leased once more after the broker had said that its result is committed. */

struct load;
int load_new(const struct load_config *config, struct load **ret_load);
void load_free(struct load *load);

/* Workers are 0 .. n - 1; n is the studio's person. */
int load_keys(const uint8_t master[32], uint32_t index, struct link_keypair *ret_keys);

/* Each returns when it is done: all workers are there; all jobs are accepted (and run already); all
 * frames are committed; all counts were read back from the broker, each result where that is wanted. */
int load_join(struct load *load);
int load_submit(struct load *load);
/* All say that they have no room, and the broker has heard it; they say that they have. */
int load_hold(struct load *load);
void load_release(struct load *load);
int load_drain(struct load *load);
int load_drain_some(struct load *load, uint64_t frames); /* or so many */
int load_check(struct load *load, bool every_result, uint64_t *ret_lost, uint64_t *ret_duplicated);
/* Goes on until `done` says so. */
int load_until(struct load *load, bool (*done)(void *user), void *user);

const struct load_counts *load_counts(const struct load *load);
uint32_t load_joined(const struct load *load, uint32_t epoch); /* with this epoch's broker, or a later one */
/* That have been with it, since with churn there may never be a moment in which all are. */
uint32_t load_listed(const struct load *load, uint32_t epoch);
uint32_t load_epoch(const struct load *load);                  /* the latest that any was welcomed by */
int64_t load_first_submit_ns(const struct load *load), load_first_lease_ns(const struct load *load),
    load_accepted_ns(const struct load *load), load_last_commit_ns(const struct load *load);
int64_t load_accept_ns(const struct load *load); /* the longest from a submission's leaving to ACCEPTED */
/* From a slot's end of a task to its next lease in hand, of all so far. */
double load_latency_ms(const struct load *load, double percent);
