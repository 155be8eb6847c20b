/* report.h - what is to be said of one task.
 *
 * A task carries what has been said of it on this link; a report compares that with what is true
 * and sends the difference, always in the order started, progress, result. Progress goes at most
 * four times a second, with the next piece of output sealed for the studio.
 *
 * Threads: the agent's, under the board's lock.
 * Errors:  what `send` returned; then nothing of the message counts as said.
 */
#pragma once

#include <worker/leases.h>

struct report {
    struct sealer *sealer;
    uint64_t *request; /* the last number given to a question */
    uint64_t session;
    int64_t now_ns;
    int64_t deadline_ns; /* lowered to when there is more to say */
    bool gathering;      /* results wait for others */
    leases_send *send;
    void *user;
};

int report_task(struct report *report, struct task *task);
