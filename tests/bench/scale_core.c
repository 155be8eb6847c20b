/* scale_core.c - a new core, filled and drained to the end. Memory is what the allocator has given
 * out; time is the thread's own, since others run on the same machine.
 */
#include <tests/bench/scale.h>

#include <malloc.h>
#include <stdio.h>
#include <time.h>
#include <tests/bench/bare.h>

enum { LOOK_EVERY = 64 }; /* rounds */

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

static double drain(struct bare *bare)
{
    double most = heap_bytes();

    for (uint64_t round = 0; bare_round(bare) > 0; round++) {
        double now = round % LOOK_EVERY == 0 ? heap_bytes() : 0;

        most = now > most ? now : most;
    }
    return most;
}

int scale_core(const struct scale_farm *farm, struct scale_figures *ret_figures)
{
    struct bare_config config = {.workers = (uint32_t)farm->workers,
                                 .slots = (uint32_t)farm->slots,
                                 .prefetch = (uint32_t)farm->prefetch,
                                 .carried = (uint32_t)farm->carried,
                                 .mixed = farm->mixed,
                                 .motley = farm->motley};
    struct bare bare;

    bare_init(&bare, &config);
    double empty = heap_bytes(), begun = cpu_ns();

    for (uint64_t i = 0; i < farm->jobs; i++)
        bare_submit(&bare, (uint32_t)i, farm->frames / farm->jobs);
    double queued = heap_bytes(), submitted = cpu_ns();

    bare_join(&bare);
    double joined = heap_bytes(), most = drain(&bare), drained = cpu_ns();

    *ret_figures = (struct scale_figures){.drain_ns = drained - submitted,
                                          .wall_ns = drained - submitted,
                                          .submit_ns = submitted - begun,
                                          .submit_wall_ns = submitted - begun,
                                          .queued_bytes = queued - empty,
                                          .drained_bytes = most - empty,
                                          .workers_bytes = joined - queued};
    uint64_t done = bare.done;

    bare_deinit(&bare);
    if (done == farm->frames)
        return 0;
    fprintf(stderr, "westlight-bench scale: %llu of %llu frames were drained\n",
            (unsigned long long)done, (unsigned long long)farm->frames);
    return 1;
}
