/* watch.c - see watch.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/watch.h>

int watch_init(struct watch *watch)
{
    list_init(&watch->due);
    list_init(&watch->resting);
    return map_init(&watch->jobs);
}

static void watcher_free(struct watch *watch, struct watcher *watcher)
{
    struct watched *watched = watcher->watched;

    list_unlink(&watcher->in_job);
    list_unlink(&watcher->in_connection);
    watcher->connection->n_watches--;
    free(watcher);
    if (!list_empty(&watched->watchers))
        return;
    list_unlink(&watched->in_queue);
    map_remove(&watch->jobs, &watched->node);
    free(watched);
}

void watch_deinit(struct watch *watch)
{
    map_for_each_safe(at, &watch->jobs)
    {
        struct watched *watched = map_entry(at, struct watched, node.node);

        /* The last watcher takes the job with it. */
        for (bool last = false; !last;) {
            last = watched->watchers.next->next == &watched->watchers;
            watcher_free(watch, list_entry(watched->watchers.next, struct watcher, in_job));
        }
    }
    map_deinit(&watch->jobs);
}

static bool job_match(const struct map_node *node, const void *key)
{
    return memcmp(&map_entry(node, const struct watched, node)->job, key, sizeof(struct job_id)) ==
           0;
}

struct watched *watch_find(const struct watch *watch, const struct job_id *job)
{
    struct map_node *node =
        map_find(&watch->jobs, map_hash(&watch->jobs, job, sizeof *job), job_match, job);

    return node ? map_entry(node, struct watched, node) : NULL;
}

static struct watcher *find_watcher(struct watched *watched, struct connection *connection)
{
    list_for_each (at, &connection->watches) {
        struct watcher *watcher = list_entry(at, struct watcher, in_connection);

        if (watcher->watched == watched)
            return watcher;
    }
    return NULL;
}

static struct watched *watched_new(struct watch *watch, const struct job_id *job)
{
    struct watched *watched = calloc(1, sizeof *watched);

    if (!watched)
        return NULL;
    watched->job = *job;
    list_init(&watched->in_queue);
    list_init(&watched->watchers);
    map_insert(&watch->jobs, map_hash(&watch->jobs, job, sizeof *job), &watched->node);
    return watched;
}

int watch_add(struct watch *watch, const struct job_id *job, struct connection *connection)
{
    struct watched *watched = watch_find(watch, job);
    struct watcher *watcher;

    if (watched && find_watcher(watched, connection))
        return 0;
    if (connection->n_watches >= WATCH_PER_CONNECTION)
        return -ENOSPC;
    watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    if (!watched)
        watched = watched_new(watch, job);
    if (!watched) {
        free(watcher);
        return -ENOMEM;
    }
    watcher->watched = watched;
    watcher->connection = connection;
    list_init(&watcher->in_job);
    list_init(&watcher->in_connection);
    list_push(&watched->watchers, &watcher->in_job);
    list_push(&connection->watches, &watcher->in_connection);
    connection->n_watches++;
    return 0;
}

void watch_stop(struct watch *watch, const struct job_id *job, struct connection *connection)
{
    struct watched *watched = watch_find(watch, job);
    struct watcher *watcher = watched ? find_watcher(watched, connection) : NULL;

    if (watcher)
        watcher_free(watch, watcher);
}

void watch_forget(struct watch *watch, struct connection *connection)
{
    while (!list_empty(&connection->watches))
        watcher_free(watch, list_entry(connection->watches.next, struct watcher, in_connection));
}

void watch_changed(struct watch *watch, const struct job_id *job)
{
    struct watched *watched = watch->jobs.n_nodes ? watch_find(watch, job) : NULL;

    if (!watched || watched->changed)
        return;
    watched->changed = true;
    if (!watched->resting)
        list_push(&watch->due, &watched->in_queue);
}

static void end_rests(struct watch *watch, int64_t now_ns)
{
    list_for_each_safe (at, after, &watch->resting) {
        struct watched *watched = list_entry(at, struct watched, in_queue);

        if (watched->next_ns > now_ns)
            return;
        list_unlink(&watched->in_queue);
        watched->resting = false;
        if (watched->changed)
            list_push(&watch->due, &watched->in_queue);
    }
}

struct watched *watch_due(struct watch *watch, int64_t now_ns)
{
    struct watched *watched;

    end_rests(watch, now_ns);
    if (list_empty(&watch->due))
        return NULL;
    watched = list_entry(watch->due.next, struct watched, in_queue);
    list_unlink(&watched->in_queue);
    watched->changed = false;
    watched->resting = true;
    watched->next_ns = now_ns + WATCH_EVERY_NS;
    list_push(&watch->resting, &watched->in_queue);
    return watched;
}

/* A rest that ends unbroken by a change wakes the loop for nothing, once. */
int64_t watch_deadline_ns(const struct watch *watch)
{
    if (!list_empty(&watch->due))
        return 0;
    if (list_empty(&watch->resting))
        return INT64_MAX;
    return list_entry(watch->resting.next, struct watched, in_queue)->next_ns;
}
