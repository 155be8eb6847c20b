/* edit.h - what changing a job and making another like it share.
 *
 * Owns:    ranges are the caller's to free; messages own what was added to them.
 * Errors:  -errno; SPACE_E_* from edit_frames_space; WESTLIGHT_E_* with westlight_why.
 */
#pragma once

#include <client/connection.h>

/* Every text within its limit, and no name that is empty. */
int edit_check(struct westlight *westlight, const struct westlight_changes *changes);
/* The frames asked for, ascending, each once. */
int edit_frames_space(const struct westlight_changes *changes, struct space_range **ret_ranges,
                      size_t *ret_n);
/* The parameter by which a person names frames, of a space read from the same step; NULL: none. */
Wl__SpaceParameter *edit_frame_parameter(const Wl__StepRecipe *step, const struct space *space);
/* Only frames of the step's animation. */
int edit_within(struct westlight *westlight, const char *id, const Wl__StepRecipe *step,
                const struct space_range *ranges, size_t n);
int edit_add_ranges(Wl__SpaceParameter *parameter, const struct space_range *ranges, size_t n);
