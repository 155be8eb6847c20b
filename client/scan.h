/* scan.h - what a scene file uses, beyond the folder it lies in.
 *
 * Blender is asked by running it; POV-Ray's scenes are read as text, for the names in them.
 *
 * Errors:  0, or EXIT_USAGE after a message.
 */
#pragma once

#include <client/inputs.h>

struct scan_blender {
    bool seen;         /* false: there is no Blender here, and nothing is known */
    long first, last, step;
    char movie[64];    /* the movie format that it writes; "": pictures */
};
int scan_blender(const char *scene, struct inputs *inputs, struct scan_blender *ret_scan);

/* `folder` is where POV-Ray runs; `libraries` are further folders in which names are looked for,
 * absolute, ended by NULL. */
int scan_povray(const char *scene, const char *folder, const char *const *libraries,
                struct inputs *inputs);
