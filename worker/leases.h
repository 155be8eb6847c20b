/* leases.h - the agent's table of tasks: what the broker says of them, and what is to be said.
 *
 * Shape:   at most LIMIT_SLOTS * (1 + LIMIT_PREFETCH) leases and what the spool holds; all scans
 *          are over these few. Reports are made from the tasks' state, not from a queue, so that
 *          they can be made again on the next link.
 * Threads: the agent's only; takes the board's lock where it touches what tasks touch.
 * Owns:    its tasks.
 * Errors:  leases_inventory and leases_report return what `send` returned: 0, LINK_E_AGAIN (the
 *          same call again later), -errno.
 */
#pragma once

#include <worker/task.h>

struct leases;
int leases_new(struct task_board *board,
               struct leases **ret_leases); /* with what the spool holds */
void leases_stop(struct leases *leases);    /* kills what runs; the spool stays */
void leases_free(struct leases *leases);    /* waits for the threads */
DEFINE_CLEANUP(struct leases *, leases_free)

/* Takes a message over (0), or LINK_E_AGAIN. */
typedef int leases_send(void *user, Wl__Envelope *envelope);

void leases_offline(struct leases *leases);
int leases_inventory(struct leases *leases, uint64_t session, leases_send *send, void *user);
/* A message of the broker; true where it was one of these. May take over *envelope (then NULL). */
bool leases_take(struct leases *leases, Wl__Envelope **envelope);
/* Once: a lease was assigned since that could not be taken, and the broker has to hear so. */
bool leases_missed(struct leases *leases);
/* Says all that is to be said. *ret_deadline_ns is when there is more, INT64_MAX for never. */
int leases_report(struct leases *leases, uint64_t session, int64_t now_ns, leases_send *send,
                  void *user, int64_t *ret_deadline_ns);
size_t leases_count(const struct leases *leases);
