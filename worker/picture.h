/* picture.h - one picture file looked at: is it whole, how large is it, is there anything on it.
 *
 * Shape:   PNG and OpenEXR are decoded to the last pixel; JPEG, TGA, PPM and TIFF are followed from
 *          their header to their end; other kinds are only known to be pictures.
 * Trust:   the file is what a renderer wrote for somebody: whoever calls this for a stranger's does
 *          so in a process that may die of it (see inspect.h).
 * Errors:  none. What is wrong with the file is in `broken`.
 * Source:  PNG 1.2; OpenEXR file layout; ITU-T T.81 annex B; Truevision TGA 2.0; Netpbm ppm(5);
 *          TIFF 6.0.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct picture {
    uint32_t width, height; /* 0: not known */
    bool black;             /* every colour of every pixel is 0: PNG and OpenEXR only */
    bool nan;               /* some colour is no number: OpenEXR only */
    char broken[160];       /* why it is; "" where it is whole */
};

/* Whether the name ends as a picture's does. */
bool picture_named(const char *path);
void picture_look(const char *path, struct picture *ret_picture);
/* picture_exr.c: of a file that begins as one. */
void picture_exr(const char *path, struct picture *picture);
/* The first reason stays. */
void picture_broken(struct picture *picture, const char *format, ...)
    __attribute__((__format__(__printf__, 2, 3)));
