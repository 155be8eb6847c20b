/* live.c - see live.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/live.h>

struct live_key {
    struct job_id job;
    uint32_t step;
    uint64_t index;
};

static struct live_key make_key(const struct job_id *job, struct task_id task)
{
    struct live_key key;

    memset(&key, 0, sizeof key); /* it is hashed with its padding */
    key.job = *job;
    key.step = task.step;
    key.index = task.index;
    return key;
}

static bool task_match(const struct map_node *node, const void *key)
{
    const struct live_task *task = map_entry(node, const struct live_task, node);
    const struct live_key *wanted = key;

    return task->lease.task.index == wanted->index && task->lease.task.step == wanted->step &&
           memcmp(&task->lease.job, &wanted->job, sizeof wanted->job) == 0;
}

int live_init(struct live *live)
{
    live->bytes = 0;
    list_init(&live->by_age);
    return map_init(&live->tasks);
}

static void drop_oldest_segment(struct live *live, struct live_task *task)
{
    struct live_segment *segment = list_entry(task->segments.next, struct live_segment, node);

    list_unlink(&segment->node);
    task->bytes -= segment->size;
    live->bytes -= segment->size;
    free(segment);
}

static void task_free(struct live *live, struct live_task *task)
{
    while (!list_empty(&task->segments))
        drop_oldest_segment(live, task);
    live->bytes -= sizeof *task;
    list_unlink(&task->by_age);
    map_remove(&live->tasks, &task->node);
    free(task);
}

void live_deinit(struct live *live)
{
    if (!live->tasks.buckets)
        return;
    while (!list_empty(&live->by_age))
        task_free(live, list_entry(live->by_age.next, struct live_task, by_age));
    map_deinit(&live->tasks);
}

struct live_task *live_find(const struct live *live, const struct job_id *job, struct task_id task)
{
    struct live_key key = make_key(job, task);
    struct map_node *node = NULL;

    if (live->tasks.n_nodes > 0) /* short tasks have nothing there */
        node = map_find(&live->tasks, map_hash(&live->tasks, &key, sizeof key), task_match, &key);
    return node ? map_entry(node, struct live_task, node) : NULL;
}

static struct live_task *task_new(struct live *live, const struct lease_id *lease)
{
    struct live_key key = make_key(&lease->job, lease->task);
    struct live_task *task = calloc(1, sizeof *task);

    if (!task)
        return NULL;
    task->lease = *lease;
    list_init(&task->segments);
    list_init(&task->by_age);
    list_push(&live->by_age, &task->by_age);
    live->bytes += sizeof *task;
    map_insert(&live->tasks, map_hash(&live->tasks, &key, sizeof key), &task->node);
    return task;
}

static bool newer(const struct lease_id *a, const struct lease_id *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->attempt > b->attempt;
}

static int add_segment(struct live *live, struct live_task *task, const Wl__LogSegment *log)
{
    size_t size = wl__log_segment__get_packed_size(log);
    struct live_segment *segment;

    /* A segment may come twice, after a link was lost. */
    if (!list_empty(&task->segments) &&
        list_entry(task->segments.previous, struct live_segment, node)->number >= log->number)
        return 0;
    segment = malloc(sizeof *segment + size);
    if (!segment)
        return -ENOMEM;
    segment->number = log->number;
    segment->size = sizeof *segment + size;
    wl__log_segment__pack(log, segment->packed);
    list_init(&segment->node);
    list_push(&task->segments, &segment->node);
    task->bytes += segment->size;
    live->bytes += segment->size;
    while (task->bytes > LIVE_TASK_BYTES)
        drop_oldest_segment(live, task);
    return 0;
}

int live_note(struct live *live, const struct lease_id *lease, const Wl__Progress *progress)
{
    struct live_task *task = live_find(live, &lease->job, lease->task);
    int r = 0;

    if (task && newer(&task->lease, lease))
        return 0;
    if (task && newer(lease, &task->lease)) {
        task_free(live, task);
        task = NULL;
    }
    if (!task)
        task = task_new(live, lease);
    if (!task)
        return -ENOMEM;

    list_unlink(&task->by_age);
    list_push(&live->by_age, &task->by_age);
    task->permille = progress->permille > 1000 ? 1000 : progress->permille;
    if (progress->status[0])
        snprintf(task->status, sizeof task->status, "%s", progress->status);
    if (progress->log && progress->log->text)
        r = add_segment(live, task, progress->log);
    while (live->bytes > LIVE_BYTES)
        task_free(live, list_entry(live->by_age.next, struct live_task, by_age));
    return r;
}

void live_end(struct live *live, const struct lease_id *lease)
{
    struct live_task *task =
        live->tasks.n_nodes > 0 ? live_find(live, &lease->job, lease->task) : NULL;

    if (task && !newer(&task->lease, lease))
        task_free(live, task);
}

void live_forget(struct live *live, const struct job_id *job)
{
    list_for_each_safe (at, after, &live->by_age) {
        struct live_task *task = list_entry(at, struct live_task, by_age);

        if (memcmp(&task->lease.job, job, sizeof *job) == 0)
            task_free(live, task);
    }
}
