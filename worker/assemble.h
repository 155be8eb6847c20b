/* assemble.h - the tiles of a frame made into one picture (`westlight-worker assemble`).
 *
 * The idea: a tile's file is a picture of the whole frame of which one rectangle counts, as POV-Ray
 * and Blender write it, or a picture of that rectangle alone. Nothing is computed: each sample of the
 * frame is copied from the one tile that it lies in, so what a renderer rendered exactly stays exact.
 *
 * Shape:   PNG of any kind; OpenEXR of scan lines or tiles, any channels, one part or several. Both
 *          ends of a frame's rectangle lie in it: x from x to x + width - 1.
 * Trust:   the files are whatever a stranger's renderer wrote. It runs as a task's action, in a
 *          process of its own with the task's limits; sizes are checked before memory is asked for.
 * Errors:  ASSEMBLE_E_NOT with `why`: what, the reason, the next step.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ASSEMBLE_TILES_MAX 256   /* each is a file that is open */
#define ASSEMBLE_SIDE_MAX  65536 /* pixels, as of --size */
#define ASSEMBLE_WHY       512

enum { ASSEMBLE_E_NOT = 1 };

struct assemble_tile {
    uint32_t x, y, width, height;
    const char *path;
};

struct assemble {
    const char *out;
    const struct assemble_tile *tiles; /* in any order */
    size_t n_tiles;
    uint32_t width, height; /* of the frame */
    char why[ASSEMBLE_WHY];
    void (*on_progress)(int percent); /* may be NULL */
    int percent;
};

/* Which tiles there are is checked: all of the frame, nothing twice. */
int assemble(struct assemble *assemble);
/* The command: OUT, then WIDTHxHEIGHT+X+Y=FILE of each tile. argv[0] is not looked at. */
int assemble_command(int argc, char **argv);

/* ---- for each format ---- */

int assemble_png(struct assemble *assemble);
int assemble_exr(struct assemble *assemble);
/* From 0 to 1; whole percents are told. */
void assemble_progress(struct assemble *assemble, double done);
/* The first reason is kept. */
int assemble_fail(struct assemble *assemble, const char *path, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));
