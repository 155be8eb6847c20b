/* deliver.h - a result in the spool brought to the broker: its blocks to the vault, then the
 * Result, until it is acknowledged.
 *
 * Threads: the task's own; meets the agent in struct task, under the board's lock.
 * Errors:  none come back: what cannot be sent becomes a smaller Result that says so, while there
 * is one.
 */
#pragma once

#include <worker/task.h>

/* True where the broker has committed it. What a closing worker did not get rid of, the next one
 * finds in the spool. */
bool deliver_result(struct task *task);
