/* crash.h - places where a test may kill the program.
 *
 *   crash_point("vault.renamed");
 *
 * In what ships this is nothing at all. Built with WESTLIGHT_CRASH_POINTS and run with
 * WESTLIGHT_CRASH=NAME:N in its environment, the process kills itself, as a power cut would, the
 * N-th time it passes the point of that name. The linker gathers the points of a program, and
 * WESTLIGHT_CRASH=list prints them: a test that visits the list cannot forget one.
 */
#pragma once

#ifdef WESTLIGHT_CRASH_POINTS
void crash_passed(const char *name);
#define crash_point(name)                                                                          \
    do {                                                                                           \
        static const char *const crash_name                                                        \
            __attribute__((used, section("crash_points"))) = (name);                               \
        crash_passed(crash_name);                                                                  \
    } while (0)
#else
#define crash_point(name) ((void)0)
#endif
