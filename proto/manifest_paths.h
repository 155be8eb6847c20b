/* manifest_paths.h - between manifest*.c only: what a path and a link may be.
 *
 * Owns:    manifest_open_below gives the caller a descriptor.
 * Errors:  -errno; MANIFEST_E_PATH where a component is a link or no folder.
 */
#pragma once

#include <proto/limits.h>
#include <proto/manifest.h>

/* Replaces what `why` says; NULL is fine. Returns `result`. */
int manifest_say(struct bytes *why, int result, const char *format, ...) _printf_(3, 4);
/* Whether a link at `path` may point to `target`: "..", only at the front, never leaves the root;
 * a slash too many, or one at the end, changes nothing. */
bool manifest_link_ok(const char *path, const char *target);
/* One entry's path, mode, link, parts against each other. */
int manifest_entry_check(const Wl__FileEntry *entry, struct bytes *why);
/* Opens the folder that holds `path` below `root`, following no link; *ret_name points into path. */
int manifest_open_parent(int root, const char *path, bool create, int *ret_fd,
                         const char **ret_name);
