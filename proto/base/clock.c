/* clock.c - the one place that reads a clock. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

static int64_t clock_read_ns(clockid_t clock)
{
    struct timespec now;

    CHECK(clock_gettime(clock, &now) == 0);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_monotonic_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME);
}

const char *clock_format(int64_t wall_ns, char text[32])
{
    int64_t seconds = wall_ns / NS_PER_S - (wall_ns % NS_PER_S < 0);
    time_t time = (time_t)seconds;
    struct tm parts;

    if (!gmtime_r(&time, &parts) || !strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts))
        snprintf(text, 32, "-");
    return text;
}
