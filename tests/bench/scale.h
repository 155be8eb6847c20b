/* scale.h - one point of a curve, through the core alone or through a broker of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What a point is made of; one of them is what grows. */
struct scale_farm {
    uint64_t workers, slots, prefetch, jobs, frames; /* frames in all */
    bool mixed, motley; /* the core's alone: see bare.h */
    uint64_t carried;   /* likewise */
    uint64_t drained; /* of them; all, but for a broker with very many */
};

struct scale_figures {
    double drain_ns;  /* of the broker's processor time, until all is done and committed */
    double wall_ns;   /* as it was waited for */
    double submit_ns; /* of the broker's processor time, for all jobs; 0: not measured apart */
    double submit_wall_ns;
    double queued_bytes;  /* what the jobs take while they wait */
    double drained_bytes; /* the most that they take while they are drained */
    double workers_bytes; /* what the workers take when they are there */
};

/* 0, or 1 after a line on standard error. */
int scale_core(const struct scale_farm *farm, struct scale_figures *ret_figures);
int scale_broker(const struct scale_farm *farm, struct scale_figures *ret_figures);
