/* picture.c - see picture.h. */
#include <worker/picture.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/err.h>

#define TOO_SOON "it ends too soon, after %zu bytes"

/* A file's bytes, read in place. */
struct view {
    const uint8_t *data;
    size_t size;
};

void picture_broken(struct picture *picture, const char *format, ...)
{
    va_list list;

    if (picture->broken[0])
        return;
    va_start(list, format);
    vsnprintf(picture->broken, sizeof(picture->broken), format, list);
    va_end(list);
}

static unsigned little16(const uint8_t *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

static unsigned big16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* ---- PNG ---- */

struct png_reader {
    struct view view;
    size_t at;
    struct picture *picture;
    uint8_t *row; /* here, so that it outlives a jump */
};

_noreturn_ static void png_failed(png_structp png, png_const_charp why)
{
    struct png_reader *reader = png_get_error_ptr(png);

    if (reader->at >= reader->view.size)
        picture_broken(reader->picture, TOO_SOON, reader->view.size);
    picture_broken(reader->picture, "%.100s", why);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp why)
{
}

static void png_take(png_structp png, png_bytep data, size_t size)
{
    struct png_reader *reader = png_get_io_ptr(png);

    if (size > reader->view.size - reader->at) {
        reader->at = reader->view.size;
        png_error(png, "no more data");
    }
    memcpy(data, reader->view.data + reader->at, size);
    reader->at += size;
}

/* Passes of an interlaced picture write over one row; a pixel that is not black stays in it. */
static void png_rows(png_structp png, png_infop info, struct png_reader *reader)
{
    struct picture *picture = reader->picture;
    size_t size;
    int passes;

    png_set_read_fn(png, reader, png_take);
    png_read_info(png, info);
    picture->width = png_get_image_width(png, info);
    picture->height = png_get_image_height(png, info);
    png_set_expand(png);
    png_set_strip_alpha(png);
    passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    size = png_get_rowbytes(png, info);
    reader->row = calloc(1, size);
    if (!reader->row)
        png_error(png, "no memory");
    picture->black = true;
    for (uint64_t i = 0; i < (uint64_t)passes * picture->height; i++) {
        png_read_row(png, reader->row, NULL);
        for (size_t k = 0; k < size && picture->black; k++)
            picture->black = reader->row[k] == 0;
    }
    png_read_end(png, NULL);
}

static void look_png(const char *path, struct view view, struct picture *picture)
{
    struct png_reader reader = {.view = view, .picture = picture};
    png_structp png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;

    if (info && setjmp(png_jmpbuf(png)) == 0)
        png_rows(png, info, &reader);
    else if (!info)
        picture_broken(picture, "it cannot be read: no memory");
    png_destroy_read_struct(&png, &info, NULL);
    free(reader.row);
    if (picture->broken[0])
        picture->black = false;
}

/* ---- the others, by their outline ---- */

static void look_exr(const char *path, struct view view, struct picture *picture)
{
    picture_exr(path, picture);
}

/* Markers up to the scan; what follows it is coded, and an end marker closes it. */
static void look_jpeg(const char *path, struct view view, struct picture *picture)
{
    const uint8_t *data = view.data;
    size_t at = 2, end = view.size;

    while (at + 4 <= view.size && data[at] == 0xff && data[at + 1] != 0xda) {
        unsigned marker = data[at + 1], size = big16(data + at + 2);

        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
            marker != 0xcc && at + 9 <= view.size) {
            picture->height = big16(data + at + 5);
            picture->width = big16(data + at + 7);
        }
        at += marker == 0xff ? 1 : 2 + size;
    }
    if (at + 2 <= view.size && data[at] != 0xff)
        picture_broken(picture, "no marker where one should be, at byte %zu", at);
    while (end > at && data[end - 1] == 0) /* some writers fill up */
        end--;
    if (at + 4 > view.size || end < at + 4 || data[end - 2] != 0xff || data[end - 1] != 0xd9)
        picture_broken(picture, TOO_SOON, view.size);
    if (!picture->width)
        picture_broken(picture, "it does not say how large it is");
}

/* Packets of a run-length coded TGA, until all pixels are there. */
static bool tga_packets(struct view view, size_t at, uint64_t pixels, size_t pixel_bytes)
{
    while (pixels > 0) {
        uint64_t n;

        if (at >= view.size)
            return false;
        n = (view.data[at] & 0x7f) + 1u;
        at += 1 + pixel_bytes * (view.data[at] & 0x80 ? 1 : n);
        if (at > view.size)
            return false;
        pixels -= n < pixels ? n : pixels;
    }
    return true;
}

static void look_tga(const char *path, struct view view, struct picture *picture)
{
    const uint8_t *head = view.data;
    size_t at, pixel_bytes;
    uint64_t pixels;

    if (view.size < 18) {
        picture_broken(picture, TOO_SOON, view.size);
        return;
    }
    picture->width = little16(head + 12);
    picture->height = little16(head + 14);
    pixels = (uint64_t)picture->width * picture->height;
    pixel_bytes = (head[16] + 7u) / 8;
    at = 18u + head[0] + (head[1] ? (size_t)little16(head + 5) * ((head[7] + 7u) / 8) : 0);
    if ((head[2] & ~8u) < 1 || (head[2] & ~8u) > 3 || pixel_bytes < 1 || pixel_bytes > 4)
        picture_broken(picture, "its header is no TGA's");
    else if (head[2] & 8 ? !tga_packets(view, at, pixels, pixel_bytes)
                         : at + pixels * pixel_bytes > view.size)
        picture_broken(picture, TOO_SOON, view.size);
}

/* Blanks, and comments to the end of their lines. */
static size_t ppm_skip(struct view view, size_t at)
{
    bool comment = false;

    for (; at < view.size; at++) {
        uint8_t c = view.data[at];

        if (c == '#' || (comment && c != '\n'))
            comment = true;
        else if (isspace(c))
            comment = false;
        else
            break;
    }
    return at;
}

static void look_ppm(const char *path, struct view view, struct picture *picture)
{
    uint64_t numbers[3] = {0}, bytes;
    size_t at = 2;

    for (int i = 0; i < 3; i++)
        for (at = ppm_skip(view, at);
             at < view.size && isdigit(view.data[at]) && numbers[i] < 1000000; at++)
            numbers[i] = numbers[i] * 10 + (view.data[at] - '0');
    picture->width = (uint32_t)numbers[0];
    picture->height = (uint32_t)numbers[1];
    bytes = numbers[0] * numbers[1] * (view.data[1] == '6' ? 3 : 1) * (numbers[2] > 255 ? 2 : 1);
    if (at >= view.size)
        picture_broken(picture, TOO_SOON, view.size);
    else if (!bytes || !numbers[2] || numbers[2] > 65535)
        picture_broken(picture, "its header says no size");
    else if (at + 1 + bytes > view.size)
        picture_broken(picture, TOO_SOON, view.size);
}

/* ---- TIFF: the first directory, and whether all it points to is there ---- */

struct tiff {
    struct view view;
    bool big_endian;
    struct picture *picture;
};

static uint32_t tiff_number(const struct tiff *tiff, size_t at, unsigned size)
{
    const uint8_t *data = tiff->view.data + at;
    uint32_t number = 0;

    for (unsigned i = 0; i < size; i++)
        number |= (uint32_t)data[i] << 8 * (tiff->big_endian ? size - 1 - i : i);
    return number;
}

/* SHORT is type 3, LONG 4; an array that does not fit in the entry lies elsewhere. */
static bool tiff_value(const struct tiff *tiff, size_t entry, uint32_t i, uint32_t *ret_value)
{
    unsigned size = tiff_number(tiff, entry + 2, 2) == 3 ? 2 : 4;
    uint32_t n = tiff_number(tiff, entry + 4, 4);
    uint64_t at = (uint64_t)n * size <= 4 ? entry + 8 : tiff_number(tiff, entry + 8, 4);

    at += (uint64_t)i * size;
    if (i >= n || at + size > tiff->view.size)
        return false;
    *ret_value = tiff_number(tiff, (size_t)at, size);
    return true;
}

static bool tiff_strips(const struct tiff *tiff, size_t offsets, size_t sizes)
{
    uint32_t n = tiff_number(tiff, offsets + 4, 4), at, size;

    for (uint32_t i = 0; i < n; i++)
        if (!tiff_value(tiff, offsets, i, &at) || !tiff_value(tiff, sizes, i, &size) ||
            (uint64_t)at + size > tiff->view.size)
            return false;
    return n > 0;
}

static bool tiff_directory(struct tiff *tiff)
{
    size_t at = tiff_number(tiff, 4, 4), offsets = 0, sizes = 0;
    uint32_t n;

    if (at < 8 || at + 2 > tiff->view.size)
        return false;
    n = tiff_number(tiff, at, 2);
    if (at + 2 + 12u * n > tiff->view.size)
        return false;
    for (size_t entry = at + 2; n > 0; n--, entry += 12) {
        uint32_t tag = tiff_number(tiff, entry, 2);

        if (tag == 256)
            tiff_value(tiff, entry, 0, &tiff->picture->width);
        else if (tag == 257)
            tiff_value(tiff, entry, 0, &tiff->picture->height);
        else if (tag == 273 || tag == 324) /* strips or tiles */
            offsets = entry;
        else if (tag == 279 || tag == 325)
            sizes = entry;
    }
    return offsets && sizes && tiff_strips(tiff, offsets, sizes);
}

static void look_tiff(const char *path, struct view view, struct picture *picture)
{
    struct tiff tiff = {view, view.data[0] == 'M', picture};

    if (view.size >= 8 && tiff_number(&tiff, 2, 2) == 43)
        return; /* BigTIFF */
    if (view.size < 8 || !tiff_directory(&tiff))
        picture_broken(picture, TOO_SOON, view.size);
    else if (!picture->width || !picture->height)
        picture_broken(picture, "it does not say how large it is");
}

/* ---- the whole ---- */

static const struct kind {
    const char *endings[3];
    const char *begins[2]; /* one of them; NULL: any */
    size_t begins_bytes;
    void (*look)(const char *path, struct view view, struct picture *picture); /* NULL: not known */
} kinds[] = {
    {{"png"}, {"\x89PNG\r\n\x1a\n"}, 8, look_png},
    {{"exr", "sxr", "mxr"}, {"\x76\x2f\x31\x01"}, 4, look_exr},
    {{"jpg", "jpeg"}, {"\xff\xd8"}, 2, look_jpeg},
    {{"tga"}, {NULL}, 0, look_tga},
    {{"ppm", "pgm", "pnm"}, {"P6", "P5"}, 2, look_ppm},
    {{"tif", "tiff"}, {"II", "MM"}, 2, look_tiff},
    {{"bmp", "dpx", "cin"}, {NULL}, 0, NULL},
    {{"hdr", "jp2", "webp"}, {NULL}, 0, NULL},
    {{"rgb", "tx", "rat"}, {NULL}, 0, NULL},
};

static const struct kind *kind_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');

    for (size_t i = 0; dot && i < ARRAY_SIZE(kinds); i++)
        for (size_t k = 0; k < ARRAY_SIZE(kinds[i].endings) && kinds[i].endings[k]; k++)
            if (strcasecmp(dot + 1, kinds[i].endings[k]) == 0)
                return &kinds[i];
    return NULL;
}

bool picture_named(const char *path)
{
    return kind_of(path) != NULL;
}

static bool begins_right(const struct kind *kind, struct view view)
{
    bool right = !kind->begins[0];

    for (size_t i = 0; i < ARRAY_SIZE(kind->begins) && kind->begins[i] && !right; i++)
        right = memcmp(view.data, kind->begins[i],
                       view.size < kind->begins_bytes ? view.size : kind->begins_bytes) == 0;
    return right;
}

static void look(const char *path, struct view view, struct picture *picture)
{
    const struct kind *kind = kind_of(path);

    if (!kind || !kind->look)
        return;
    if (!begins_right(kind, view))
        picture_broken(picture, "it does not begin as a .%s does", kind->endings[0]);
    else if (view.size < kind->begins_bytes)
        picture_broken(picture, TOO_SOON, view.size);
    else
        kind->look(path, view, picture);
}

void picture_look(const char *path, struct picture *ret_picture)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;
    void *data;

    *ret_picture = (struct picture){0};
    if (fd < 0 || fstat(fd, &status) < 0)
        picture_broken(ret_picture, "%s", strerror(errno));
    else if (!S_ISREG(status.st_mode))
        picture_broken(ret_picture, "it is not a file");
    else if (status.st_size == 0)
        picture_broken(ret_picture, "it is empty");
    if (ret_picture->broken[0])
        return;
    data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        picture_broken(ret_picture, "%s", strerror(errno));
        return;
    }
    look(path, (struct view){data, (size_t)status.st_size}, ret_picture);
    munmap(data, (size_t)status.st_size);
}
