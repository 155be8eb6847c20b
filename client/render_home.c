/* render_home.c - see render_home.h. */
#include <client/render_home.h>

#include <stdio.h>
#include <string.h>
#include <client/cmd.h>
#include <client/say.h>
#include <client/show.h>
#include <proto/base/clock.h>

/* A fetch that failed is begun again after a while that doubles: a disk gets room, a link comes
 * back. */
#define FETCH_PAUSE_NS     NS_PER_S
#define FETCH_PAUSE_NS_MAX (30 * NS_PER_S)

static int on_file(void *user, const struct westlight_fetched *file)
{
    struct render *render = user;
    char size[32];

    pthread_mutex_lock(&render->lock);
    render->files++;
    render->bytes += file->bytes;
    pthread_mutex_unlock(&render->lock);
    if (!render->options.json && !file->skipped)
        say("%s: %s (%s)", file->task_name, file->path, show_bytes(file->bytes, size));
    return 0;
}

static int on_result(void *user, const struct westlight_fetched *result)
{
    struct render *render = user;
    struct block_id id = {{0}};
    int r;

    memcpy(id.bytes, &result->task, sizeof(result->task));
    memcpy(id.bytes + sizeof(result->task), &result->step, sizeof(result->step));
    pthread_mutex_lock(&render->lock);
    r = block_set_add(&render->home, &id);
    pthread_mutex_unlock(&render->lock);
    return r < 0 ? r : 0;
}

int render_home_once(struct render *render, struct westlight *westlight, bool follow)
{
    uint64_t received = render->fetch.bytes_received;
    int r;

    pthread_mutex_lock(&render->lock);
    render->files = render->bytes = 0;
    block_set_deinit(&render->home);
    pthread_mutex_unlock(&render->lock);
    render->fetch = (struct westlight_fetch){.folder = render->out,
                                             .follow = follow,
                                             .replace = true, /* this job is wanted now */
                                             .force = render->options.force,
                                             .on_file = on_file,
                                             .on_result = on_result,
                                             .user = render};
    r = westlight_fetch(westlight, render->id, &render->fetch);
    render->fetch.bytes_received += received;
    return r;
}

/* With the lock held: notes how a fetch ended. A fault is said once, and a job that has paused
 * itself is none. */
static void fetch_note(struct render *render, int r, const char *why, bool again)
{
    if (again && r != WESTLIGHT_E_STATE && strcmp(why, render->fetched_why) != 0)
        complain("frames cannot be brought home: %s; this is tried again, and the farm renders on",
                 why);
    render->fetched = r;
    snprintf(render->fetched_why, sizeof(render->fetched_why), "%s", why);
}

/* With the lock held: waits, but no longer than until the job is over. */
static void fetch_pause(struct render *render, int64_t pause_ns)
{
    int64_t until_ns = clock_monotonic_ns() + pause_ns;
    const struct timespec until = {until_ns / NS_PER_S, until_ns % NS_PER_S};

    while (!render->over &&
           pthread_cond_clockwait(&render->wake, &render->lock, CLOCK_MONOTONIC, &until) == 0)
        ;
}

static void *fetch_thread(void *user)
{
    struct render *render = user;
    int64_t pause_ns = FETCH_PAUSE_NS;
    bool again = true;

    pthread_mutex_lock(&render->lock);
    while (again) {
        size_t home = render->home.n;
        bool last = render->over;
        int r;

        pthread_mutex_unlock(&render->lock);
        r = render_home_once(render, render->fetcher, true);
        pthread_mutex_lock(&render->lock);
        again = r && r != WESTLIGHT_E_STOPPED && r != WESTLIGHT_E_EXISTS && !last;
        fetch_note(render, r, westlight_why(render->fetcher), again);
        if (render->home.n > home)
            pause_ns = FETCH_PAUSE_NS;
        if (again)
            fetch_pause(render, pause_ns);
        pause_ns = 2 * pause_ns < FETCH_PAUSE_NS_MAX ? 2 * pause_ns : FETCH_PAUSE_NS_MAX;
    }
    pthread_mutex_unlock(&render->lock);
    return NULL;
}

int render_home_begin(struct render *render)
{
    char why[1024] = "";
    int r = westlight_open(&render->farm, CMD_OPEN_MS, &render->fetcher, why, sizeof(why));

    if (r)
        return complain_library(r, why);
    if (pthread_create(&render->thread, NULL, fetch_thread, render)) {
        complain("no thread could be started: raise the limit on processes");
        return EXIT_PARTIAL;
    }
    render->fetching = true;
    return 0;
}

void render_home_end(struct render *render, bool stop)
{
    if (!render->fetching)
        return;
    pthread_mutex_lock(&render->lock);
    render->over = true;
    pthread_cond_signal(&render->wake);
    pthread_mutex_unlock(&render->lock);
    if (stop)
        westlight_stop(render->fetcher);
    pthread_join(render->thread, NULL);
    render->fetching = false;
}
