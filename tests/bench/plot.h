/* plot.h - small plots as one SVG: a rate from zero up, over a logarithmic axis.
 *
 * All share the axis upward, so that they can be compared. The band is 20 % below the best of each:
 * a curve that stays in it is called flat.
 *
 * Errors:  -errno.
 */
#pragma once

#include <stddef.h>

struct plot_point {
    double n, rate;
};

struct plot {
    const char *axis; /* what n counts */
    const struct plot_point *points;
    size_t n_points;
};

int plot_write(const char *path, const char *title, const struct plot *plots, size_t n_plots);
