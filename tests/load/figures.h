/* figures.h - times by their frequency: 32 steps to each doubling, so that a percentile is within 3 %.
 */
#pragma once

#include <stdint.h>

enum { HISTOGRAM_STEPS = 32, HISTOGRAM_SLOTS = 64 * HISTOGRAM_STEPS };

struct histogram {
    uint64_t slots[HISTOGRAM_SLOTS], n;
};
void histogram_add(struct histogram *histogram, int64_t ns); /* below 0 is 0 */
/* The time that so many percent do not pass, in milliseconds; 0 where there are none. */
double histogram_ms(const struct histogram *histogram, double percent);
