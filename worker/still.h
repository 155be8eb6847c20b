/* still.h - folders that are as they were when all of them were read: so said by a look at each one's
 * times alone, where to read it again takes five calls.
 *
 * The idea: whatever is made, removed or renamed in a folder sets the time of its last change of
 * state, which nobody can set back. A note is taken only where that time is older than the clock's
 * tick, so that a later change has another.
 *
 * Shape:   at most STILL_MAX folders, each noted by its path, that hold nothing but each other.
 *          Only on file systems that take their times from this machine's clock, finer than a second.
 * Owns:    copies of the paths. NULL is one that knows nothing.
 * Errors:  none: what cannot be noted is not known, and is read.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <proto/base/err.h>

#define STILL_MAX 64

struct still;
/* NULL where the file system of `path` has no times to go by. */
struct still *still_new(const char *path);
void still_free(struct still *still);
DEFINE_CLEANUP(struct still *, still_free)

/* `before`: of when it was opened, before it was read. Where it cannot be noted, *still is NULL. */
void still_note(struct still **still, const char *path, const struct stat *before, bool empty);
bool still_same(struct still *still); /* all of them, now */
/* The same, or they were a second ago: who makes and tidies up folders that nobody uses is slower. */
bool still_lately(struct still *still);
int still_make(const struct still *still, const char *path); /* it is there, or made; -errno */
/* It was empty, and by its state now it still is. */
bool still_empty(const struct still *still, const char *path, const struct stat *now);
