/* live.h - what running tasks say of themselves, kept while they run: progress, status, the last
 * pieces of their output. Nothing of it is durable; after a restart workers say it anew.
 *
 * Shape:   one entry a task, of its newest attempt; LIVE_TASK_BYTES of log each and LIVE_BYTES in
 *          all, past which the longest silent task is forgotten.
 * Owns:    entries and their segments, which are packed LogSegments.
 */
#pragma once

#include <broker/core/core.h>
#include <broker/map.h>
#include <proto/westlight.pb-c.h>

enum { LIVE_TASK_BYTES = 64 * 1024, LIVE_BYTES = 64 * 1024 * 1024 };

struct live_segment {
    struct list node;
    uint64_t number;
    size_t size;
    uint8_t packed[];
};

struct live_task {
    struct map_node node;
    struct list by_age; /* the longest silent first */
    struct lease_id lease;
    uint32_t permille;
    char status[LIMIT_MESSAGE_BYTES + 1];
    struct list segments; /* oldest first */
    size_t bytes;
};

struct live {
    struct map tasks;
    struct list by_age;
    size_t bytes;
};

int live_init(struct live *live);
void live_deinit(struct live *live);
/* `lease` was checked; a newer attempt of the task replaces an older one. -ENOMEM. */
int live_note(struct live *live, const struct lease_id *lease, const Wl__Progress *progress);
void live_forget(struct live *live, const struct job_id *job);
void live_end(struct live *live, const struct lease_id *lease);
struct live_task *live_find(const struct live *live, const struct job_id *job, struct task_id task);
