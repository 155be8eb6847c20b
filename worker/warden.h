/* warden.h - a small process between the worker and one action, from which nothing escapes.
 *
 * The idea: the warden is a child subreaper. A process that daemonises itself becomes the warden's
 * child when its parent goes, so "no children left" means that nothing of the action is left. It
 * reaps, so a process id it signals is never somebody else's; and it watches its link, so that the
 * worker's death, SIGKILL too, ends everything it keeps. Where the warden itself is killed, the
 * worker inherits what it kept, and ends that.
 *
 * Shape:   worker -> warden -> action (its own session and process group, SIGKILL when the warden
 *          dies). One socket pair carries commands one way and reports the other.
 *          A warden that has nothing left waits for the next action: to make one takes longer. One
 *          whose limits or priority its action changed (prlimit, renice) does not.
 * Owns:    struct warden owns the socket; warden_close ends all that is left and reaps the warden, or
 *          lets it wait.
 *          The process that makes wardens has no other children: any is taken for an orphan.
 * Errors:  -errno. warden_read: WARDEN_E_AGAIN, WARDEN_E_LOST.
 * Source:  prctl(2) PR_SET_CHILD_SUBREAPER; proc(5) /proc/PID/task/TID/children.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <proto/base/bytes.h>

enum {
    WARDEN_E_AGAIN = 1, /* no report yet */
    WARDEN_E_LOST = 2,  /* the warden went without a last word */
};

struct warden {
    pid_t pid;
    int link;  /* readable when a report waits */
    bool lost; /* it was killed: what it kept is the worker's now, and ends in warden_close */
    bool free; /* nothing is left: warden_close keeps it for the next action */
};

struct warden_action {
    const char *path;         /* the program: absolute, or from `folder` on */
    char *const *arguments;   /* NULL-ended, as execve takes them */
    char *const *environment;
    const char *folder;       /* where it runs */
    int output;               /* its stdout and stderr */
};

enum warden_event {
    WARDEN_STARTED, /* the program runs, a millisecond later; not told where it has ended by then */
    WARDEN_REFUSED, /* it could not be run; `value` is the errno */
    WARDEN_EXITED,  /* the action's own process; `value` is as of wait(2) */
    WARDEN_GONE,    /* nothing is left; the last report, where WARDEN_EXITED was not */
};

/* Usage is of everything reaped so far: user + system time, and the largest single process. */
struct warden_report {
    enum warden_event event;
    int value;
    bool last; /* nothing is left */
    bool again; /* last, and nothing was done to the warden that the next action would inherit */
    uint64_t cpu_ns;
    uint64_t memory_bytes;
};

/* As many open files as the hard limit allows, for the worker alone. Actions keep what it was started
 * with: a program that closes every possible file, or uses select(), is broken by a large one. */
void warden_raise_files(void);
/* Wardens keep `fd`, too: what it locks stays locked until nothing of any action is left. */
void warden_hold(int fd);
/* So many wardens that wait: best while the worker is small, since each is a copy of it. */
int warden_prepare(unsigned n);
/* Everything in `action` is copied; it need not outlive the call. */
int warden_new(const struct warden_action *action, struct warden *ret_warden);
void warden_terminate(const struct warden *warden); /* SIGTERM to the action's process group */
void warden_kill(const struct warden *warden);      /* SIGKILL to everything, until it is gone */
int warden_read(struct warden *warden, struct warden_report *ret_report);
void warden_close(struct warden *warden);
/* Resident bytes of everything the warden keeps. Pages shared by several processes count once
 * only where `exact` (which costs a walk of their page tables). */
uint64_t warden_memory_bytes(const struct warden *warden, bool exact);
