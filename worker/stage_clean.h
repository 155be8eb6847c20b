/* stage_clean.h - a session's folder as it was before the task: the folders that its stage made, all
 * of them empty.
 *
 * Errors:  -errno; -EEXIST where a folder is not what the stage made (its mode, its owner).
 */
#pragma once

#include <worker/stage.h>

/* It may know of them then that they are. */
int stage_clean(struct stage *stage);
