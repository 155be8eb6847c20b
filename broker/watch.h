/* watch.h - who watches which job, and when the next notice of it is due.
 *
 * A job that changes often is told of ten times a second at most: a change marks it, and it is due
 * at once where the last notice is WATCH_EVERY_NS old, else then.
 *
 * Shape:   WATCH_PER_CONNECTION jobs a connection.
 * Owns:    watches; connections are the peers'.
 */
#pragma once

#include <broker/core/core.h>
#include <broker/roster.h>

enum { WATCH_PER_CONNECTION = 64 };
#define WATCH_EVERY_NS 100000000LL

struct watched {
    struct map_node node;
    struct list in_queue; /* of `due`, or of `resting`, or of none */
    struct list watchers;
    struct job_id job;
    bool changed, resting;
    int64_t next_ns; /* while it rests */
};

struct watcher {
    struct list in_job, in_connection;
    struct watched *watched;
    struct connection *connection;
};

struct watch {
    struct map jobs;
    struct list due;     /* changed, and to be told now */
    struct list resting; /* told of a moment ago; all rest as long, so that they end in order */
};

int watch_init(struct watch *watch);
void watch_deinit(struct watch *watch);
/* -ENOMEM; -ENOSPC past WATCH_PER_CONNECTION. Twice is once. */
int watch_add(struct watch *watch, const struct job_id *job, struct connection *connection);
void watch_stop(struct watch *watch, const struct job_id *job, struct connection *connection);
void watch_forget(struct watch *watch, struct connection *connection); /* all of its */
void watch_changed(struct watch *watch, const struct job_id *job);
struct watched *watch_find(const struct watch *watch, const struct job_id *job); /* or NULL */
/* A job whose notice is due now, unmarked; NULL: none. */
struct watched *watch_due(struct watch *watch, int64_t now_ns);
int64_t watch_deadline_ns(const struct watch *watch); /* INT64_MAX: none */
