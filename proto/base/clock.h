/* clock.h - the one place that reads a clock. Edges call it; everything below takes time as an
 * argument.
 */
#pragma once

#include <stdint.h>

#define NS_PER_S  1000000000LL
#define NS_PER_MS 1000000LL
#define NS_PER_US 1000LL

int64_t clock_monotonic_ns(void);
int64_t clock_wall_ns(void); /* since 1970, UTC */
/* "2026-11-24T03:16:19Z"; `text` holds at least 32 bytes. */
const char *clock_format(int64_t wall_ns, char text[32]);
