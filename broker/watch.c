/* watch.c - see watch.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/watch.h>

int watch_init(struct watch *watch)
{
    list_init(&watch->due);
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
    list_unlink(&watched->in_due);
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
    list_init(&watched->in_due);
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

    if (watched && list_empty(&watched->in_due))
        list_push(&watch->due, &watched->in_due);
}

struct watched *watch_due(struct watch *watch, int64_t now_ns)
{
    list_for_each (at, &watch->due) {
        struct watched *watched = list_entry(at, struct watched, in_due);

        if (watched->next_ns <= now_ns) {
            list_unlink(&watched->in_due);
            watched->next_ns = now_ns + WATCH_EVERY_NS;
            return watched;
        }
    }
    return NULL;
}

int64_t watch_deadline_ns(const struct watch *watch)
{
    int64_t deadline_ns = INT64_MAX;

    list_for_each (at, &watch->due) {
        const struct watched *watched = list_entry(at, struct watched, in_due);

        if (watched->next_ns < deadline_ns)
            deadline_ns = watched->next_ns;
    }
    return deadline_ns;
}
