/* session_paths.h - the path mapping rules of a session, as a file its programs may read.
 *
 * Errors:  -errno.
 * Source:  Open Job Description "How Jobs Are Run", "Path Mapping", version pathmapping-1.0.
 */
#pragma once

#include <worker/session.h>

int session_paths_write(const struct session_map *maps, size_t n_maps, const char *path);
