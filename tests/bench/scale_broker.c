/* scale_broker.c - a real broker with all its durability, simulated workers and a studio over the
 * real protocol: workers join and take nothing, jobs are submitted, then the workers drain them.
 * Every count is read back and checked.
 */
#include <tests/bench/scale.h>

#include <stdio.h>
#include <string.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <tests/load/engine.h>
#include <tests/load/private.h>

/* What the broker has come to, and has come to since it was marked. */
struct mark {
    double cpu_ns, rss_bytes;
    int64_t at_ns;
};

static struct mark mark_now(const struct private_broker *broker)
{
    return (struct mark){(double)private_cpu_ns(broker), (double)private_rss_bytes(broker),
                         clock_monotonic_ns()};
}

static int submit(const struct private_broker *broker, struct load *load,
                  struct scale_figures *figures)
{
    struct mark before = mark_now(broker), after;
    int r = load_submit(load);

    after = mark_now(broker);
    figures->submit_ns = after.cpu_ns - before.cpu_ns;
    figures->submit_wall_ns = (double)(load_accepted_ns(load) - load_first_submit_ns(load));
    figures->queued_bytes = after.rss_bytes - before.rss_bytes;
    return r;
}

static int drain(const struct private_broker *broker, struct load *load, uint64_t frames,
                 struct scale_figures *figures)
{
    struct mark before = mark_now(broker), after;
    int r;

    load_release(load);
    r = load_drain_some(load, frames);
    after = mark_now(broker);
    figures->drain_ns = after.cpu_ns - before.cpu_ns;
    figures->wall_ns = (double)(after.at_ns - before.at_ns);
    figures->drained_bytes = figures->queued_bytes + after.rss_bytes - before.rss_bytes;
    return r;
}

/* What was not drained is not lost. */
static int check(struct load *load, const struct scale_farm *farm)
{
    uint64_t lost = 0, duplicated = 0, left = farm->frames - farm->drained;
    int r = load_check(load, false, &lost, &duplicated);

    if (r == 0 && lost <= left && duplicated == 0)
        return 0;
    fprintf(stderr, "westlight-bench scale: frames are lost or twice there\n");
    return 1;
}

static int run(const struct private_broker *broker, struct load *load,
               const struct scale_farm *farm, struct scale_figures *ret_figures)
{
    struct scale_figures figures = {0};
    struct mark before = mark_now(broker);
    int r = load_join(load);

    if (r == 0)
        r = load_hold(load);
    figures.workers_bytes = mark_now(broker).rss_bytes - before.rss_bytes;
    if (r == 0)
        r = submit(broker, load, &figures);
    if (r == 0)
        r = drain(broker, load, farm->drained, &figures);
    if (r == 0)
        r = check(load, farm);
    *ret_figures = figures;
    return r;
}

int scale_broker(const struct scale_farm *farm, struct scale_figures *ret_figures)
{
    struct private_broker broker = {0};
    struct load *load = NULL;
    struct load_config config = {.workers = (uint32_t)farm->workers,
                                 .slots = (uint32_t)farm->slots,
                                 .prefetch = (uint32_t)farm->prefetch,
                                 .jobs = farm->jobs,
                                 .frames = farm->frames / farm->jobs,
                                 .result_bytes = 150,
                                 .recipe_bytes = 300,
                                 .ramp = 1000,
                                 .seed = 1,
                                 .io_threads = 1,
                                 .patience_ns = 120 * NS_PER_S};
    int r = random_bytes(config.master, sizeof config.master);

    if (r == 0)
        r = private_start(&broker, config.master, config.workers);
    config.endpoint = broker.endpoint;
    config.server = broker.server;
    if (r == 0)
        r = load_new(&config, &load);
    if (r == 0)
        r = run(&broker, load, farm, ret_figures);
    private_stop(&broker);
    load_free(load);
    if (r != 0)
        fprintf(stderr, "westlight-bench scale: %llu workers, %llu jobs, %llu frames: failed\n",
                (unsigned long long)farm->workers, (unsigned long long)farm->jobs,
                (unsigned long long)farm->frames);
    return r ? 1 : 0;
}
