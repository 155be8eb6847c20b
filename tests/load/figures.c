/* figures.c - see figures.h. */
#include <tests/load/figures.h>

#include <proto/base/clock.h>

static unsigned slot_of(uint64_t ns)
{
    unsigned top;

    if (ns < HISTOGRAM_STEPS)
        return (unsigned)ns;
    top = 63 - (unsigned)__builtin_clzll(ns) - 5;
    return (top + 1) * HISTOGRAM_STEPS + (unsigned)(ns >> top) % HISTOGRAM_STEPS;
}

/* The middle of a slot. */
static double ns_of(unsigned slot)
{
    unsigned top = slot / HISTOGRAM_STEPS;

    if (top <= 1)
        return slot;
    return ((double)(slot % HISTOGRAM_STEPS + HISTOGRAM_STEPS) + 0.5) * (double)(1ull << (top - 1));
}

void histogram_add(struct histogram *histogram, int64_t ns)
{
    histogram->slots[slot_of(ns < 0 ? 0 : (uint64_t)ns)]++;
    histogram->n++;
}

double histogram_ms(const struct histogram *histogram, double percent)
{
    uint64_t wanted = (uint64_t)((double)histogram->n * percent / 100), seen = 0;

    if (histogram->n == 0)
        return 0;
    if (wanted >= histogram->n)
        wanted = histogram->n - 1;
    for (unsigned slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += histogram->slots[slot];
        if (seen > wanted)
            return ns_of(slot) / NS_PER_MS;
    }
    return 0;
}
