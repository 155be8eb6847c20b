/* query.h - reads of what was committed, on a thread of their own with a snapshot of their own, so
 * that a long list never delays a lease.
 *
 * A request goes in, and comes back with its answer ready to be sent; the control thread queues the
 * answer behind what it said before. One page is one read, bounded in rows and bytes.
 *
 * Shape:   one thread; at most QUERY_WAITING requests wait.
 * Owns:    query_submit takes the request over on 0; query_completed gives it back.
 * Errors:  -errno in the request's result; -EAGAIN from query_submit where too many wait.
 */
#pragma once

#include <broker/store/store.h>
#include <proto/base/list.h>
#include <proto/identity.h>
#include <proto/westlight.pb-c.h>

enum { QUERY_WAITING = 1024 };

enum query_kind {
    QUERY_RESULTS,
    QUERY_ATTEMPTS,
    QUERY_FAILURES,
    QUERY_WARNINGS,
    QUERY_DEPENDENCIES
};

struct query_request {
    struct list node;
    enum query_kind kind;
    struct link_key peer;
    struct link_route route;
    uint64_t request;
    struct job_id job;
    struct studio_id studio; /* the job's */
    struct task_id task;     /* ATTEMPTS */
    uint64_t after;      /* a sequence; DEPENDENCIES: range << 32 | offset in it */
    size_t limit;
    struct task_range *ranges; /* DEPENDENCIES: what the task waits for; owned */
    size_t n_ranges;
    uint8_t job_key[32]; /* DEPENDENCIES; wiped when the request is freed */

    int result;
    Wl__Envelope *answer;                  /* owned; names of workers are still empty */
    struct worker_key workers[LIMIT_PAGE]; /* ATTEMPTS, FAILURES, WARNINGS: of each row */
};

struct query;
int query_new(const char *folder, struct query **ret_query);
void query_free(struct query *query);
struct query_request *query_request_new(enum query_kind kind);
void query_request_free(struct query_request *request);
int query_fd(const struct query *query); /* an eventfd */
int query_submit(struct query *query, struct query_request *request);
struct query_request *query_completed(struct query *query); /* NULL: none waits */
