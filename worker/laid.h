/* laid.h - which task left which file, while the results a task builds on are laid out: two that
 * wrote one path with different content are told by name, and neither is laid over the other.
 *
 * Shape:   a tree by path. A zeroed struct is empty.
 * Owns:    copies of the paths; laid_deinit frees them.
 * Errors:  -ENOMEM.
 */
#pragma once

#include <proto/base/err.h>
#include <proto/westlight.pb-c.h>

struct laid_by {
    uint32_t step;
    uint64_t task;
};

struct laid {
    void *root;
};

void laid_deinit(struct laid *laid);
/* Notes that `by` left the file; *ret_before is who had left it before, NULL where nobody had (or
 * the same task). */
int laid_note(struct laid *laid, const char *folder, const char *path, struct laid_by by,
              const struct laid_by **ret_before);
/* "frame 7 of beauty", "task 3 of beauty", "beauty". */
void laid_name(const Wl__Recipe *recipe, struct laid_by by, char *ret_name, size_t size);
