/* picture_exr.c - OpenEXR: every chunk is read and unpacked, and its colours are looked at where
 * they lie, without making a picture of them. Depth and the like may hold infinities, so they are
 * not. Source: OpenEXRCore, openexr_decode.h; "OpenEXR File Layout", scan lines: by line, by
 * channel.
 */
#include <worker/picture.h>

#include <stdlib.h>
#include <string.h>
#include <openexr.h>

enum { PACKED_MOST = 2048 };

struct exr {
    exr_context_t file;
    struct picture *picture;
    int part;
    exr_decode_pipeline_t decode;
    bool decoding; /* `decode` has memory of its own */
    bool colours;  /* there are some */
    bool coloured; /* and one is not black */
    bool packed;   /* in a way this library reads but does not unpack */
};

static void on_error(exr_const_context_t file, exr_result_t code, const char *message)
{
}

/* "R", "beauty.G": what stands after the last point. */
static bool colour_named(const char *name)
{
    const char *point = strrchr(name, '.');

    name = point ? point + 1 : name;
    return strcmp(name, "R") == 0 || strcmp(name, "G") == 0 || strcmp(name, "B") == 0 ||
           strcmp(name, "Y") == 0;
}

/* Half and float alike: all bits of the exponent set is no finite number; nothing set but the sign
 * is black. Samples lie little-endian. */
static void samples_look(struct exr *exr, const uint8_t *data, int n, exr_pixel_type_t type)
{
    size_t bytes = type == EXR_PIXEL_HALF ? 2 : 4;

    for (int i = 0; i < n; i++, data += bytes) {
        unsigned top = data[bytes - 1], next = data[bytes - 2];
        bool rest = bytes == 4 && (data[0] || data[1]);

        if (type == EXR_PIXEL_HALF) {
            exr->picture->nan |= (top & 0x7c) == 0x7c;
            rest = data[0] != 0;
            next = 0;
        } else if (type == EXR_PIXEL_FLOAT) {
            exr->picture->nan |= (top & 0x7f) == 0x7f && (next & 0x80);
        }
        exr->coloured |= rest || next || (top & (type == EXR_PIXEL_UINT ? 0xff : 0x7f));
    }
}

static void chunk_look(struct exr *exr)
{
    const exr_decode_pipeline_t *decode = &exr->decode;
    const uint8_t *data = decode->unpacked_buffer ? decode->unpacked_buffer : decode->packed_buffer;
    size_t left = decode->chunk.unpacked_size;

    if (!data)
        return;
    for (int y = decode->chunk.start_y; y < decode->chunk.start_y + decode->chunk.height; y++)
        for (int c = 0; c < decode->channel_count; c++) {
            const exr_coding_channel_info_t *channel = &decode->channels[c];
            size_t bytes = (size_t)channel->width * (channel->data_type == EXR_PIXEL_HALF ? 2 : 4);

            if (channel->y_samples > 1 && y % channel->y_samples != 0)
                continue;
            if (bytes > left)
                return;
            if (colour_named(channel->channel_name)) {
                exr->colours = true;
                samples_look(exr, data, channel->width, channel->data_type);
            }
            data += bytes;
            left -= bytes;
        }
}

/* A few bytes may say that they are a billion samples, which would take minutes to look at. What is
 * all the same becomes a thousandth by deflate, and a 1,376th of floats by PXR24; no other packing
 * that is undone here makes less of it. */
static bool chunk_plausible(const struct exr *exr, const exr_chunk_info_t *chunk)
{
    exr_compression_t packing = EXR_COMPRESSION_NONE;

    if (exr_get_compression(exr->file, exr->part, &packing) != EXR_ERR_SUCCESS)
        return false;
    return packing == EXR_COMPRESSION_DWAA || packing == EXR_COMPRESSION_DWAB ||
           chunk->unpacked_size / PACKED_MOST <= chunk->packed_size;
}

static exr_result_t chunk_read(struct exr *exr, const exr_chunk_info_t *chunk)
{
    exr_decode_pipeline_t *decode = &exr->decode;
    exr_result_t r;

    if (!chunk_plausible(exr, chunk))
        return EXR_ERR_CORRUPT_CHUNK;
    r = exr->decoding ? exr_decoding_update(exr->file, exr->part, chunk, decode)
                      : exr_decoding_initialize(exr->file, exr->part, chunk, decode);
    if (r == EXR_ERR_SUCCESS && !exr->decoding) {
        exr->decoding = true;
        r = exr_decoding_choose_default_routines(exr->file, exr->part, decode);
        decode->unpack_and_convert_fn = NULL; /* there is no picture to put it in */
    }
    if (r == EXR_ERR_SUCCESS)
        r = exr_decoding_run(exr->file, exr->part, decode);
    if (r == EXR_ERR_SUCCESS)
        chunk_look(exr);
    if (r == EXR_ERR_FEATURE_NOT_IMPLEMENTED) {
        exr->packed = true; /* DWA, in OpenEXRCore 3.1: the chunk is there, and that must do */
        r = EXR_ERR_SUCCESS;
    }
    return r;
}

static exr_result_t lines_read(struct exr *exr, const exr_attr_box2i_t *window)
{
    exr_chunk_info_t chunk;
    int32_t step = 1;
    exr_result_t r = exr_get_scanlines_per_chunk(exr->file, exr->part, &step);

    for (int64_t y = window->min.y; r == EXR_ERR_SUCCESS && y <= window->max.y; y += step) {
        r = exr_read_scanline_chunk_info(exr->file, exr->part, (int)y, &chunk);
        if (r == EXR_ERR_SUCCESS)
            r = chunk_read(exr, &chunk);
    }
    return r;
}

/* The largest level; the others are made from it. */
static exr_result_t tiles_read(struct exr *exr, const exr_attr_box2i_t *window)
{
    exr_tile_level_mode_t level;
    exr_tile_round_mode_t round;
    exr_chunk_info_t chunk;
    uint32_t size_x = 1, size_y = 1;
    exr_result_t r =
        exr_get_tile_descriptor(exr->file, exr->part, &size_x, &size_y, &level, &round);
    int64_t width = (int64_t)window->max.x - window->min.x + 1;
    int64_t height = (int64_t)window->max.y - window->min.y + 1;

    for (int64_t y = 0; r == EXR_ERR_SUCCESS && y * size_y < height; y++)
        for (int64_t x = 0; r == EXR_ERR_SUCCESS && x * size_x < width; x++) {
            r = exr_read_tile_chunk_info(exr->file, exr->part, (int)x, (int)y, 0, 0, &chunk);
            if (r == EXR_ERR_SUCCESS)
                r = chunk_read(exr, &chunk);
        }
    return r;
}

static exr_result_t part_read(struct exr *exr)
{
    exr_storage_t storage = EXR_STORAGE_SCANLINE;
    exr_attr_box2i_t data = {0}, display = {0};
    exr_result_t r = exr_get_storage(exr->file, exr->part, &storage);

    if (r == EXR_ERR_SUCCESS)
        r = exr_get_data_window(exr->file, exr->part, &data);
    if (r == EXR_ERR_SUCCESS)
        r = exr_get_display_window(exr->file, exr->part, &display);
    if (r == EXR_ERR_SUCCESS && exr->part == 0) {
        exr->picture->width = (uint32_t)((int64_t)display.max.x - display.min.x + 1);
        exr->picture->height = (uint32_t)((int64_t)display.max.y - display.min.y + 1);
    }
    if (r == EXR_ERR_SUCCESS && storage == EXR_STORAGE_SCANLINE)
        r = lines_read(exr, &data);
    else if (r == EXR_ERR_SUCCESS && storage == EXR_STORAGE_TILED)
        r = tiles_read(exr, &data);
    /* Deep pixels are whatever a compositor makes of them. */
    if (exr->decoding)
        exr_decoding_destroy(exr->file, &exr->decode);
    exr->decode = (exr_decode_pipeline_t)EXR_DECODE_PIPELINE_INITIALIZER;
    exr->decoding = false;
    return r;
}

void picture_exr(const char *path, struct picture *picture)
{
    exr_context_initializer_t initializer = EXR_DEFAULT_CONTEXT_INITIALIZER;
    struct exr exr = {.picture = picture};
    exr_result_t r;
    int parts = 0;

    initializer.error_handler_fn = on_error;
    r = exr_start_read(&exr.file, path, &initializer);
    if (r == EXR_ERR_SUCCESS)
        r = exr_get_count(exr.file, &parts);
    for (exr.part = 0; r == EXR_ERR_SUCCESS && exr.part < parts; exr.part++)
        r = part_read(&exr);
    if (r != EXR_ERR_SUCCESS)
        picture_broken(picture, "%s (OpenEXR)", exr_get_default_error_message(r));
    picture->black = r == EXR_ERR_SUCCESS && exr.colours && !exr.coloured && !exr.packed;
    if (exr.file)
        exr_finish(&exr.file);
}
