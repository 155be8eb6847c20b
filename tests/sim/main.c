/* westlight-sim: so many seeds, or one with every message told.
 *
 * Without --seed it begins where WESTLIGHT_COMMIT says, a commit's hash, so that each commit is
 * tried with seeds of its own and every run of it with the same; else with 1.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "sim.h"

static uint64_t running_seed;

static void say_seed(void)
{
    fprintf(stderr, "sim: failed with seed %llu: repeat it with --seed %llu --trace\n",
            (unsigned long long)running_seed, (unsigned long long)running_seed);
}

/* In place of proto/base/check.c: the same, and the seed. */
void check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, what);
    say_seed();
    abort();
}

static uint64_t seed_of_commit(void)
{
    const char *commit = getenv("WESTLIGHT_COMMIT");
    char digits[9] = {0};

    if (!commit || strlen(commit) < 8)
        return 1;
    memcpy(digits, commit, 8);
    return strtoull(digits, NULL, 16) * 1000000 + 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {"trace", no_argument, NULL, 't'},
                                            {0}};
    uint64_t seed = seed_of_commit(), seeds = 1, events = 0;
    bool verbose = false, trace = false;
    struct timespec from, to;

    for (int option; (option = getopt_long(argc, argv, "s:n:vt", options, NULL)) != -1;) {
        if (option == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (option == 'n')
            seeds = strtoull(optarg, NULL, 0);
        else if (option == 'v')
            verbose = true;
        else if (option == 't')
            trace = true;
        else
            return 2;
    }
    struct world *world = malloc(sizeof(*world));

    CHECK(world);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (running_seed = seed; running_seed < seed + seeds; running_seed++) {
        sim_run(world, running_seed, verbose, trace);
        events += world->events;
        world_deinit(world);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("sim: %llu seeds from %llu, %llu events, %.1f s\n", (unsigned long long)seeds,
           (unsigned long long)seed, (unsigned long long)events,
           (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
    free(world);
    return 0;
}
