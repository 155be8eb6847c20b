/* scale.c - what does not stay the same as a farm grows: curves over the frames of one job, the
 * jobs that wait, and the workers; through the core alone, or through a broker (--broker).
 *
 * A point is a new farm, filled and drained to the end: lease, result, commit. Its rate is that of
 * the broker's processor time, because others run on the same machine; of several runs the best
 * counts, and the points of a curve take turns, so that a slow minute falls on all of them.
 */
#include <tests/bench/bench.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <client/options.h>
#include <tests/bench/plot.h>
#include <tests/bench/scale.h>

enum { POINTS_MAX = 8, CURVES = 5, CORE_ONLY = 2, JOB_FRAMES = 10 };
#define CORE_FRAMES   500000 /* a point is repeated until it has drained so many */
#define BROKER_FRAMES 300000
#define BROKER_MOST   7000000 /* of one farm: the rest of ten million is as they are */

struct sample {
    double n;
    struct scale_farm farm;
    double frames; /* of all runs of the best round */
    struct scale_figures best;
};

struct curve {
    const char *name, *axis;
    uint64_t first, last;
    struct scale_farm (*farm)(uint64_t n, uint64_t frames_least);
    struct sample samples[POINTS_MAX];
    size_t n_samples;
};

struct way {
    int (*run)(const struct scale_farm *farm, struct scale_figures *ret_figures);
    uint64_t frames_least, frames_most;
    const char *title;
};

static struct scale_farm of_frames(uint64_t n, uint64_t frames_least)
{
    (void)frames_least;
    return (struct scale_farm){.workers = 16, .slots = 16, .prefetch = 2, .jobs = 1, .frames = n};
}

static struct scale_farm of_jobs(uint64_t n, uint64_t frames_least)
{
    (void)frames_least;
    return (struct scale_farm){
        .workers = 16, .slots = 16, .prefetch = 2, .jobs = n, .frames = JOB_FRAMES * n};
}

/* With so many leases at each that a message carries some, as where thousands of short frames are
 * about: what a message costs is not what is drawn. Each worker gets its leases ten times over. */
static struct scale_farm of_workers(uint64_t n, uint64_t frames_least)
{
    uint64_t held = 4 * 17, frames = n * held * 10;

    return (struct scale_farm){.workers = n,
                               .slots = 4,
                               .prefetch = 16,
                               .carried = held,
                               .jobs = 1,
                               .frames = frames > frames_least ? frames : frames_least};
}

/* Every worker is a shape of its own, and has slots that nothing fits into. */
static struct scale_farm of_mixed(uint64_t n, uint64_t frames_least)
{
    return (struct scale_farm){.workers = n,
                               .slots = 4,
                               .prefetch = 2,
                               .jobs = 1,
                               .frames = frames_least + 20 * n,
                               .mixed = true};
}

/* Every job is a class of its own. */
static struct scale_farm of_classes(uint64_t n, uint64_t frames_least)
{
    return (struct scale_farm){.workers = 16,
                               .slots = 16,
                               .prefetch = 2,
                               .jobs = n,
                               .frames = frames_least / n * n,
                               .motley = true};
}

static double ns_of(const struct sample *sample)
{
    return sample->best.drain_ns / sample->frames;
}

static int sample_run(struct sample *sample, const struct way *way)
{
    struct sample now = {.n = sample->n, .farm = sample->farm};
    double ns = 0;

    while (now.frames < (double)way->frames_least) {
        now.farm.drained = now.farm.frames < way->frames_most ? now.farm.frames : way->frames_most;
        if (way->run(&now.farm, &now.best) != 0)
            return 1;
        ns += now.best.drain_ns;
        now.frames += (double)now.farm.drained;
    }
    now.best.drain_ns = ns;
    fprintf(stderr, "%12.0f  %.3f us\n", now.n, ns_of(&now) / 1e3);
    if (sample->frames == 0 || ns_of(&now) < ns_of(sample))
        *sample = now;
    return 0;
}

static int curve_run(struct curve *curve, const struct way *way, int runs)
{
    int r = 0;

    fprintf(stderr, "westlight-bench scale: %s\n", curve->axis);
    for (uint64_t n = curve->first; n <= curve->last; n *= 10)
        curve->samples[curve->n_samples++] =
            (struct sample){.n = (double)n, .farm = curve->farm(n, way->frames_least)};
    for (int run = 0; run < runs && r == 0; run++)
        for (size_t i = 0; i < curve->n_samples && r == 0; i++)
            r = sample_run(&curve->samples[i], way);
    return r;
}

static double curve_rate(const struct curve *curve, bool best)
{
    double ns = ns_of(&curve->samples[0]);

    for (size_t i = 1; i < curve->n_samples; i++) {
        double own = ns_of(&curve->samples[i]);

        ns = (own < ns) == best ? own : ns;
    }
    return 1e9 / ns;
}

static void curve_print(const struct curve *curve)
{
    printf("\"%s\": {\"ratio\": %.3f, \"points\": [", curve->name,
           curve_rate(curve, false) / curve_rate(curve, true));
    for (size_t i = 0; i < curve->n_samples; i++) {
        const struct sample *sample = &curve->samples[i];
        const struct scale_figures *best = &sample->best;
        double jobs = (double)sample->farm.jobs;

        printf("%s{\"n\": %.0f, \"rate_per_s\": %.0f, \"cpu_us_per_frame\": %.3f, "
               "\"wall_rate_per_s\": %.0f, \"submit_cpu_us_per_job\": %.3f, "
               "\"submit_rate_per_s\": %.0f, \"queued_bytes_per_job\": %.0f, "
               "\"queued_bytes_per_frame\": %.2f, \"drained_bytes_per_frame\": %.2f, "
               "\"bytes_per_worker\": %.0f}",
               i ? ", " : "", sample->n, 1e9 / ns_of(sample), ns_of(sample) / 1e3,
               1e9 * (double)sample->farm.drained / best->wall_ns, best->submit_ns / 1e3 / jobs,
               1e9 * jobs / best->submit_wall_ns, best->queued_bytes / jobs,
               best->queued_bytes / (double)sample->farm.frames,
               best->drained_bytes / (double)sample->farm.frames,
               best->workers_bytes / (double)sample->farm.workers);
    }
    printf("]}");
}

static int curves_plot(const struct curve *curves, size_t n_curves, const char *title,
                       const char *path)
{
    struct plot plots[CURVES];
    struct plot_point points[CURVES][POINTS_MAX];

    for (size_t i = 0; i < n_curves; i++) {
        for (size_t j = 0; j < curves[i].n_samples; j++)
            points[i][j] =
                (struct plot_point){curves[i].samples[j].n, 1e9 / ns_of(&curves[i].samples[j])};
        plots[i] = (struct plot){curves[i].axis, points[i], curves[i].n_samples};
    }
    return plot_write(path, title, plots, n_curves);
}

static int run(struct curve *curves, size_t n_curves, const struct way *way, int runs,
               const char *svg)
{
    double least = 0, most = 0, flat = 1;

    for (size_t i = 0; i < n_curves; i++) {
        if (curve_run(&curves[i], way, runs) != 0)
            return 1;
        double low = curve_rate(&curves[i], false), high = curve_rate(&curves[i], true);

        least = i == 0 || low < least ? low : least;
        most = high > most ? high : most;
        flat = low / high < flat ? low / high : flat;
    }
    printf("{\"bench\": \"scale\", \"rate_per_s\": %.0f, \"ceiling_per_s\": %.0f, \"ratio\": %.3f, "
           "\"cpu_us_per_frame\": %.3f, ",
           least, most, flat, 1e6 / least);
    for (size_t i = 0; i < n_curves; i++) {
        curve_print(&curves[i]);
        printf(i + 1 < n_curves ? ", " : "}\n");
    }
    int r = svg ? curves_plot(curves, n_curves, way->title, svg) : 0;

    if (r < 0)
        fprintf(stderr, "westlight-bench scale: %s: %s\n", svg, strerror(-r));
    return r < 0 ? 1 : 0;
}

int bench_scale(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"broker", no_argument, NULL, 'b'},
                                            {"runs", required_argument, NULL, 'r'},
                                            {"most", required_argument, NULL, 'm'},
                                            {"curve", required_argument, NULL, 'c'},
                                            {"svg", required_argument, NULL, 's'},
                                            {0}};
    static const struct way core = {scale_core, CORE_FRAMES, UINT64_MAX,
                                    "frames leased, done and committed in a second of one core, "
                                    "by the scheduler alone"};
    static const struct way broker = {scale_broker, BROKER_FRAMES, BROKER_MOST,
                                      "frames leased, done and committed in a second of one core, "
                                      "by the whole broker"};
    const struct way *way = &core;
    size_t n_curves = CURVES;
    long runs = 3, most = 10000000;
    const char *svg = NULL, *only = NULL;
    bool good = true;

    optind = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'r')
            good &= options_number(optarg, 1, 100, &runs);
        else if (option == 'm')
            good &= options_number(optarg, 10000, 100000000, &most);
        else if (option == 'c')
            only = optarg;
        else if (option == 's')
            svg = optarg;
        else if (option == 'b')
            way = &broker, n_curves = CURVES - CORE_ONLY;
        else
            good &= option == 'j';
    }
    struct curve curves[CURVES] = {
        {"frames", "frames of one job", 10000, (uint64_t)most, of_frames, .n_samples = 0},
        {"jobs", "jobs of 10 frames", 100, (uint64_t)most / 100, of_jobs, .n_samples = 0},
        {"workers", "workers", 10, (uint64_t)most / 1000, of_workers, .n_samples = 0},
        {"mixed", "workers, no two alike", 10, (uint64_t)most / 1000, of_mixed, .n_samples = 0},
        {"classes", "jobs, no two alike", 1, (uint64_t)most / 10000, of_classes, .n_samples = 0},
    };

    for (size_t i = 0; good && only && i < n_curves; i++)
        if (strcmp(curves[i].name, only) == 0)
            return run(&curves[i], 1, way, (int)runs, svg);
    if (!good || only) {
        fprintf(stderr,
                "usage: westlight-bench scale [--json] [--broker] [--runs N] "
                "[--most FRAMES] [--curve frames|jobs|workers|mixed|classes] [--svg FILE]\n");
        return 2;
    }
    return run(curves, n_curves, way, (int)runs, svg);
}
