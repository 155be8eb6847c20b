/* version.h - which version of a software a job gets, and in one line why.
 *
 * Owns:    a choice's version is borrowed from what was given.
 * Errors:  none; what cannot be read of a scene is "" and not known.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* "3.4" of a .blend saved by it, plain or compressed with zstd (since 3.0); "" otherwise. */
void version_of_blend(const char *path, char ret_version[32]);

struct version_choice {
    const char *version; /* NULL: none is offered, and none is pinned */
    bool warning;        /* the line is one */
    char line[512];      /* "blender 3.4.1: the version that saved the scene" */
};
/* `asked` NULL: nobody did; `saved` "": not known, NULL: scenes of it do not say. */
void version_choose(const char *name, const char *asked, const char *saved,
                    const char *const *offered, size_t n_offered,
                    struct version_choice *ret_choice);
