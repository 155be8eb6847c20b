/* scale.c - what does not stay the same as a farm grows: curves over the frames of one job, the
 * jobs that wait, and the workers.
 *
 * A point is a new core, filled and drained to the end: lease, result, commit. Its rate is that of
 * the processor's time, because others run on the same machine; of several runs the fastest counts,
 * and the points of a curve take turns, so that a slow minute falls on all of them. Memory is what
 * the allocator has given out.
 */
#include <tests/bench/bench.h>

#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <client/options.h>
#include <tests/bench/bare.h>
#include <tests/bench/plot.h>

enum { POINTS_MAX = 8, CURVES = 3, JOB_FRAMES = 10, RUNS = 3 };
#define FRAMES_LEAST 500000 /* a point is repeated until it has drained so many */

/* What one point is made of; one of them is what grows. */
struct load {
    uint64_t workers, slots, jobs, frames;
};

struct sample {
    double n;
    struct load load;
    double ns_per_frame;
    double queued_bytes;  /* of all the curve's things when they wait: frames, jobs or workers */
    double drained_bytes; /* the most they took while they were drained */
};

struct curve {
    const char *name, *axis;
    uint64_t first, last;
    struct load (*load)(uint64_t n);
    struct sample points[POINTS_MAX];
    size_t n_points;
};

static struct load of_frames(uint64_t n)
{
    return (struct load){.workers = 16, .slots = 16, .jobs = 1, .frames = n};
}

static struct load of_jobs(uint64_t n)
{
    return (struct load){.workers = 16, .slots = 16, .jobs = n, .frames = JOB_FRAMES * n};
}

static struct load of_workers(uint64_t n)
{
    return (struct load){.workers = n, .slots = 1, .jobs = 1, .frames = FRAMES_LEAST + 20 * n};
}

static double cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static double heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return (double)(info.uordblks + info.hblkhd);
}

/* Once; how long it took to drain. */
static double drain(const struct load *load, struct sample *point, bool workers_grow)
{
    struct bare_config config = {
        .workers = (uint32_t)load->workers, .slots = (uint32_t)load->slots, .prefetch = 2};
    double before = heap_bytes(), after = 0, most = 0, begun_ns = 0;
    struct bare bare;

    bare_init(&bare, &config);
    if (!workers_grow)
        before = heap_bytes();
    for (uint64_t i = 0; i < load->jobs; i++)
        bare_submit(&bare, (uint32_t)i, load->frames / load->jobs);
    after = heap_bytes();
    begun_ns = cpu_ns();
    bare_join(&bare);
    if (workers_grow)
        after = heap_bytes();
    for (uint64_t round = 0; bare_round(&bare) > 0; round++) {
        double now = round % 64 == 0 ? heap_bytes() : 0;

        most = now > most ? now : most;
    }
    double ns = cpu_ns() - begun_ns;

    point->queued_bytes = after - before;
    point->drained_bytes = most - before;
    if (bare.done != load->frames) {
        fprintf(stderr, "westlight-bench scale: %llu of %llu frames were drained\n",
                (unsigned long long)bare.done, (unsigned long long)load->frames);
        exit(1);
    }
    bare_deinit(&bare);
    return ns;
}

static void point_run(struct sample *point, bool workers_grow)
{
    double ns = 0, frames = 0;

    while (frames < FRAMES_LEAST) {
        ns += drain(&point->load, point, workers_grow);
        frames += (double)point->load.frames;
    }
    if (point->ns_per_frame == 0 || ns / frames < point->ns_per_frame)
        point->ns_per_frame = ns / frames;
}

static void curve_run(struct curve *curve, int runs)
{
    for (uint64_t n = curve->first; n <= curve->last; n *= 10)
        curve->points[curve->n_points++] = (struct sample){.n = (double)n, .load = curve->load(n)};
    for (int run = 0; run < runs; run++)
        for (size_t i = 0; i < curve->n_points; i++)
            point_run(&curve->points[i], curve->load == of_workers);
}

static double curve_rate(const struct curve *curve, bool best)
{
    double ns = curve->points[0].ns_per_frame;

    for (size_t i = 1; i < curve->n_points; i++) {
        double own = curve->points[i].ns_per_frame;

        ns = (own < ns) == best ? own : ns;
    }
    return 1e9 / ns;
}

static void curve_print(const struct curve *curve)
{
    printf("\"%s\": {\"ratio\": %.3f, \"points\": [", curve->name,
           curve_rate(curve, false) / curve_rate(curve, true));
    for (size_t i = 0; i < curve->n_points; i++) {
        const struct sample *point = &curve->points[i];

        printf("%s{\"n\": %.0f, \"rate_per_s\": %.0f, \"cpu_us_per_frame\": %.3f, "
               "\"queued_bytes_each\": %.2f, \"drained_bytes_each\": %.2f}",
               i ? ", " : "", point->n, 1e9 / point->ns_per_frame, point->ns_per_frame / 1e3,
               point->queued_bytes / point->n, point->drained_bytes / point->n);
    }
    printf("]}");
}

static int curves_plot(const struct curve *curves, size_t n_curves, const char *path)
{
    struct plot plots[CURVES];
    struct plot_point points[CURVES][POINTS_MAX];

    for (size_t i = 0; i < n_curves; i++) {
        for (size_t j = 0; j < curves[i].n_points; j++)
            points[i][j] =
                (struct plot_point){curves[i].points[j].n, 1e9 / curves[i].points[j].ns_per_frame};
        plots[i] = (struct plot){curves[i].axis, points[i], curves[i].n_points};
    }
    return plot_write(path, "frames leased, done and committed in a second of one core", plots,
                      n_curves);
}

static int run(struct curve *curves, size_t n_curves, int runs, const char *svg)
{
    double least = 0, most = 0, flat = 1;

    for (size_t i = 0; i < n_curves; i++) {
        curve_run(&curves[i], runs);
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
    int r = svg ? curves_plot(curves, n_curves, svg) : 0;

    if (r < 0)
        fprintf(stderr, "westlight-bench scale: %s: cannot be written\n", svg);
    return r < 0 ? 1 : 0;
}

int bench_scale(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},       {"runs", required_argument, NULL, 'r'},
        {"most", required_argument, NULL, 'm'}, {"curve", required_argument, NULL, 'c'},
        {"svg", required_argument, NULL, 's'},  {0}};
    struct curve curves[CURVES] = {
        {.name = "frames", .axis = "frames of one job", 10000, 10000000, of_frames},
        {.name = "jobs", .axis = "jobs of 10 frames", 100, 100000, of_jobs},
        {.name = "workers", .axis = "workers", 10, 10000, of_workers},
    };
    long runs = RUNS, most = 10000000;
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
        else
            good &= option == 'j';
    }
    if (!good) {
        fprintf(stderr, "usage: westlight-bench scale [--json] [--runs N] [--most FRAMES] "
                        "[--curve frames|jobs|workers] [--svg FILE]\n");
        return 2;
    }
    curves[0].last = (uint64_t)most;
    for (size_t i = 0; only && i < CURVES; i++)
        if (strcmp(curves[i].name, only) == 0)
            return run(&curves[i], 1, (int)runs, svg);
    return run(curves, CURVES, (int)runs, svg);
}
