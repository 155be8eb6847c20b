/* crash.c - see crash.h. Only test builds of the programs have this file. */
#include <proto/base/crash.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The linker's own names for the ends of the section that crash_point() fills. */
extern const char *const __start_crash_points[], *const __stop_crash_points[];

static bool is_point(const char *name)
{
    for (const char *const *at = __start_crash_points; at < __stop_crash_points; at++)
        if (strcmp(*at, name) == 0)
            return true;
    return false;
}

static char wanted[128];
static atomic_long left; /* passes until the end */

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("WESTLIGHT_CRASH");
    const char *colon = text ? strrchr(text, ':') : NULL;

    if (text && strcmp(text, "list") == 0) {
        for (const char *const *at = __start_crash_points; at < __stop_crash_points; at++)
            puts(*at);
        exit(0);
    }
    if (!colon || (size_t)(colon - text) >= sizeof(wanted))
        return;
    memcpy(wanted, text, (size_t)(colon - text));
    if (!is_point(wanted)) {
        fprintf(stderr, "WESTLIGHT_CRASH=%s: this program has no such point: see list\n", text);
        _exit(2);
    }
    atomic_store(&left, strtol(colon + 1, NULL, 10));
}

void crash_passed(const char *name)
{
    if (strcmp(name, wanted) != 0 || atomic_fetch_sub(&left, 1) != 1)
        return;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}
