/* picture.c - what a job's renderer left as a picture: looked at, and put together from two tiles
 * that are this file. A PNG comes with its sums put right as well, without which no mutant gets
 * far.
 */
#include <openexr.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <worker/assemble.h>
#include <worker/picture.h>
#include "fuzz.h"

enum { PNG = 1, PNG_SUMMED, EXR, JPEG, TGA, PPM, TIFF, KINDS };
enum { PIXELS_MAX = 1 << 22 };

static const char *const endings[] = {
    [PNG] = "png", [PNG_SUMMED] = "png", [EXR] = "exr", [JPEG] = "jpg",
    [TGA] = "tga", [PPM] = "ppm",        [TIFF] = "tif"};
static const char *folder;

static void sums_right(uint8_t *data, size_t size)
{
    size_t at = 8;

    while (size > 12 && at <= size - 12) {
        uint32_t length = (uint32_t)data[at] << 24 | (uint32_t)data[at + 1] << 16 |
                          (uint32_t)data[at + 2] << 8 | data[at + 3];
        if (length > size - 12 - at)
            return;
        uint32_t sum = (uint32_t)crc32(0, data + at + 4, length + 4);
        for (unsigned i = 0; i < 4; i++)
            data[at + 8 + length + i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + length;
    }
}

/* Its left half and its right half, of the file itself. */
static void try_assemble(const char *path, const char *out, uint32_t width, uint32_t height)
{
    uint32_t half = width / 2;
    struct assemble_tile tiles[] = {{half, 0, width - half, height, path},
                                    {0, 0, half, height, path}};
    struct assemble assembled = {
        .out = out, .tiles = tiles, .n_tiles = half ? 2 : 1, .width = width, .height = height};
    int r = assemble(&assembled);

    CHECK(r == 0 || assembled.why[0]);
    (void)unlink(out);
}

static void try_file(unsigned kind, const uint8_t *data, size_t size)
{
    char path[96], out[96];
    struct picture picture;
    FILE *file;

    snprintf(path, sizeof(path), "%s/in.%s", folder, endings[kind]);
    snprintf(out, sizeof(out), "%s/out.%s", folder, endings[kind]);
    file = fopen(path, "we");
    CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
    picture_look(path, &picture);
    CHECK(strlen(picture.broken) < sizeof(picture.broken));
    if (kind <= EXR && picture.width && picture.height &&
        (uint64_t)picture.width * picture.height <= PIXELS_MAX)
        try_assemble(path, out, picture.width, picture.height);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    if (!folder)
        folder = fuzz_folder();
    while (fuzz_next(&data, &size, &part)) {
        unsigned kind = part.number % KINDS ? part.number % KINDS : PNG;
        uint8_t *copy = fuzz_copy(part.data, part.size);

        if (kind == PNG_SUMMED)
            sums_right(copy, part.size);
        try_file(kind, copy, part.size);
        free(copy);
    }
    return 0;
}

/* ---- what is valid ---- */

static void add_bytes(fuzz_add *add, const char *name, unsigned kind, const void *data, size_t size)
{
    static struct fuzz_buffer all;

    all.size = 0;
    fuzz_put(&all, kind, data, size);
    add(name, all.data, all.size);
}

static void add_png(fuzz_add *add, const char *name, uint32_t format)
{
    png_image image = {.version = PNG_IMAGE_VERSION, .width = 7, .height = 5, .format = format};
    uint8_t pixels[7 * 5 * 8], colours[256 * 4] = {1}, out[4096];
    png_alloc_size_t size = sizeof(out);

    for (size_t i = 0; i < sizeof(pixels); i++)
        pixels[i] = (uint8_t)(i % 8);
    image.colormap_entries = format & PNG_FORMAT_FLAG_COLORMAP ? 8 : 0;
    CHECK(png_image_write_to_memory(&image, out, &size, 0, pixels, 0, colours));
    add_bytes(add, name, PNG_SUMMED, out, size);
}

#define DONE(call) CHECK((call) == EXR_ERR_SUCCESS)

static void exr_chunk(exr_context_t file, bool tiled, int y)
{
    exr_encode_pipeline_t encode = EXR_ENCODE_PIPELINE_INITIALIZER;
    static uint16_t samples[64 * 64];
    exr_chunk_info_t chunk;

    if (tiled)
        DONE(exr_write_tile_chunk_info(file, 0, 0, 0, 0, 0, &chunk));
    else
        DONE(exr_write_scanline_chunk_info(file, 0, y, &chunk));
    DONE(exr_encoding_initialize(file, 0, &chunk, &encode));
    for (int c = 0; c < encode.channel_count; c++) {
        encode.channels[c].encode_from_ptr = (uint8_t *)samples;
        encode.channels[c].user_pixel_stride = 2;
        encode.channels[c].user_line_stride = 2 * 16;
        encode.channels[c].user_bytes_per_element = 2;
        encode.channels[c].user_data_type = EXR_PIXEL_HALF;
    }
    samples[y] = 0x3c00;
    DONE(exr_encoding_choose_default_routines(file, 0, &encode));
    DONE(exr_encoding_run(file, 0, &encode));
    DONE(exr_encoding_destroy(file, &encode));
}

static void add_exr(fuzz_add *add, const char *name, bool tiled, exr_compression_t compression)
{
    exr_attr_box2i_t box;
    exr_attr_v2f_t center;
    struct bytes bytes = {0};
    exr_context_t file;
    char path[96];
    int32_t lines = 4;
    int part;

    memset(&box, 0, sizeof(box)); /* the library's unions of arrays and names */
    memset(&center, 0, sizeof(center));
    box.max.x = 8;
    box.max.y = 3;
    snprintf(path, sizeof(path), "%s/seed.exr", folder);
    DONE(exr_start_write(&file, path, EXR_WRITE_FILE_DIRECTLY, NULL));
    DONE(exr_add_part(file, "one", tiled ? EXR_STORAGE_TILED : EXR_STORAGE_SCANLINE, &part));
    DONE(exr_initialize_required_attr(file, part, &box, &box, 1, &center, 1,
                                      EXR_LINEORDER_INCREASING_Y, compression));
    DONE(exr_add_channel(file, part, "R", EXR_PIXEL_HALF, EXR_PERCEPTUALLY_LOGARITHMIC, 1, 1));
    DONE(exr_add_channel(file, part, "Z", EXR_PIXEL_HALF, EXR_PERCEPTUALLY_LOGARITHMIC, 1, 1));
    if (tiled)
        DONE(exr_set_tile_descriptor(file, part, 16, 16, EXR_TILE_ONE_LEVEL, EXR_TILE_ROUND_DOWN));
    DONE(exr_write_header(file));
    if (!tiled)
        DONE(exr_get_scanlines_per_chunk(file, part, &lines));
    for (int y = 0; y < 4; y += lines)
        exr_chunk(file, tiled, y);
    DONE(exr_finish(&file));
    CHECK(file_read(path, FUZZ_INPUT_BYTES, &bytes) == 0);
    add_bytes(add, name, EXR, bytes.data, bytes.size);
    bytes_deinit(&bytes);
}

void fuzz_seeds(fuzz_add *add)
{
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0,    4,    'J', 'F', 0xff, 0xc0,
                                   0,    11,   8,    0,    8,    0,    8,   1,   1,    0x11,
                                   0,    0xff, 0xda, 0,    8,    1,    1,   0,   0,    63,
                                   0,    0x12, 0xff, 0,    0x34, 0xff, 0xd9},
                         tga[] = {0, 0, 10, 0, 0, 0,  0, 0,    0, 0, 0,
                                  0, 4, 0,  2, 0, 24, 0, 0x87, 1, 2, 3},
                         tiff[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 4,  0, 0, 1, 3,  0, 1, 0, 0,
                                   0,   4,   0,  0, 0, 1, 1, 3, 0,  1, 0, 0, 0,  1, 0, 0, 0,
                                   17,  1,   4,  0, 1, 0, 0, 0, 62, 0, 0, 0, 23, 1, 4, 0, 1,
                                   0,   0,   0,  4, 0, 0, 0, 0, 0,  0, 0, 1, 2,  3, 4};

    if (!folder)
        folder = fuzz_folder();
    add_png(add, "gray.png", PNG_FORMAT_GRAY);
    add_png(add, "rgba.png", PNG_FORMAT_RGBA);
    add_png(add, "deep.png", PNG_FORMAT_LINEAR_RGB_ALPHA);
    add_png(add, "palette.png", PNG_FORMAT_RGBA_COLORMAP);
    add_exr(add, "plain.exr", false, EXR_COMPRESSION_NONE);
    add_exr(add, "zip.exr", false, EXR_COMPRESSION_ZIP);
    add_exr(add, "piz.exr", false, EXR_COMPRESSION_PIZ);
    add_exr(add, "tiled.exr", true, EXR_COMPRESSION_RLE);
    add_bytes(add, "jpeg", JPEG, jpeg, sizeof(jpeg));
    add_bytes(add, "tga", TGA, tga, sizeof(tga));
    add_bytes(add, "ppm", PPM, "P6 # a comment\n2 1 255\nabcdef", 29);
    add_bytes(add, "tiff", TIFF, tiff, sizeof(tiff));
}
