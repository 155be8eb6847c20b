/* software.h - the programs this worker runs: what its operator declares, beside what the probe
 * finds; and one version of one of them for a task.
 *
 *     [blender 4.0.2]
 *     command = /opt/blender-4.0/blender
 *     env OCIO = /opt/ocio/config.ocio
 *     denoiser = yes               (of a Blender that cannot be asked)
 *
 * Shape:   a section is one version; any number of versions of a name lie side by side. One that is
 *          declared takes the place of an equal one that was found.
 * Owns:    what is loaded belongs to the probe.
 * Errors:  -errno; SOFTWARE_E_FILE with `why`: "path:line: the reason, and what to write".
 */
#pragma once

#include <worker/probe.h>

enum { SOFTWARE_E_FILE = 1 };

int software_load(const char *path, struct probe *probe, char *why, size_t why_size);
/* That version; "" or NULL: the newest. NULL where there is none. */
const struct probe_software *software_find(const struct probe_software *software, size_t n,
                                           const char *name, const char *version);
/* Makes the folder, and in it a program of the software's name that runs this version: what comes
 * first in PATH is what a script runs. */
int software_shim(const struct probe_software *software, const char *folder);
