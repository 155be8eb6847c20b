/* room.h - whether the worker's disk has room for more work.
 *
 * Below the reserve the cache gives up what nobody needs at the moment; where that is not enough,
 * the broker is told that nothing new is taken, and told again when there is space. What runs goes
 * on, with the reserve.
 *
 * Shape:   any thread; asked whenever it matters, and every second.
 */
#pragma once

#include <worker/task.h>

/* Looks, and makes room. Where the answer is another than before, the agent is woken to say so. */
bool room_short(struct task_board *board);
/* After a write that found the disk full: true where it is worth trying again; false where the task
 * is stopped, or where there has been room for ROOM_PATIENCE_NS and it is not enough. `since_ns`:
 * when it was last full, at first now. */
bool room_wait(struct task *task, int64_t *since_ns);
#define ROOM_PATIENCE_NS (600 * NS_PER_S)
