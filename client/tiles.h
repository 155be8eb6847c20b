/* tiles.h - a frame in tiles: one step renders them, another makes each frame of its own.
 *
 * The idea: a tile is named by its rectangle, "96x64+0+32" (WIDTHxHEIGHT+X+Y), which is all that a
 * renderer and whoever puts the frame together need to know; and only the frame comes home.
 *
 * Owns:    tiles_deinit.
 * Errors:  EXIT_USAGE, after a message.
 */
#pragma once

#include <client/preset.h>

#define TILES_FOLDER "wl-tiles" /* below the output folder, on the farm alone */

struct tiles {
    struct inputs_list names; /* none: the frame is rendered whole */
    unsigned width, height;   /* of the frame */
};

/* What the scene's --tiles come to; each begins at a multiple of `align` pixels. `ending` is that of
 * the pictures. Refuses what would not be the frame as it is rendered whole, unless --tiles-anyway. */
int tiles_plan(const struct preset_scene *scene, unsigned align, const char *ending,
               struct tiles *ret_tiles);
/* {{Task.Param.Tile}} for the step that renders, once it has its frames; its pictures do not come
 * home. It is to write them to TILES_FOLDER/FRAME/TILE.ENDING below the output folder ("-": a still). */
void tiles_split(const struct tiles *tiles, struct westlight_step *step);
/* The step that makes the frames, each when its tiles are there. */
int tiles_join(const struct tiles *tiles, const struct preset_scene *scene,
               struct westlight_job *job, const struct westlight_step *step, const char *ending);
void tiles_deinit(struct tiles *tiles);
