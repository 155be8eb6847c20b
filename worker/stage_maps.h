/* stage_maps.h - where a studio's folders lie here: the job's roots, and the outputs of a task's step
 * and of those it depends on, each below the stage's folder.
 *
 * Owns:    what is made is the stage's.
 * Errors:  -errno.
 */
#pragma once

#include <worker/stage.h>

/* Of a stage that has its recipe and step: fills its maps and outputs, and makes the folders. */
int stage_maps_make(struct stage *stage);
/* Where a declared output lies. */
int stage_maps_output(struct stage *stage, const Wl__Output *output,
                      char ret_path[LIMIT_PATH_BYTES]);
