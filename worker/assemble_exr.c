/* assemble_exr.c - OpenEXR: all tiles are open, and the frame is written chunk by chunk, each put
 * together from the chunks of the tiles that it lies in. So memory holds two chunks, however many
 * channels and pixels there are.
 *
 * Header, parts and channels are the first tile's, and the others' must be like them. A tile's data
 * window may be all of the frame's or as little as its own rectangle, no less (cropped to what is
 * not black cannot be told from lost); what it has outside of the display window belongs to the
 * tiles at that edge. Nothing is converted: samples keep their bits. Source: OpenEXRCore,
 * openexr_decode.h and openexr_encode.h; "OpenEXR File Layout".
 */
#include <worker/assemble.h>

#include <errno.h>
#include <openexr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANNELS_MAX    1024
#define CHUNK_BYTES_MAX ((size_t)1 << 30)

/* Both ends are inside; 64 bits, so that sums cannot overflow. */
struct box {
    int64_t x0, y0, x1, y1;
};

/* One part of one file. */
struct part {
    struct box data, display;
    exr_storage_t storage;
    exr_compression_t compression;
    const exr_attr_chlist_t *channels;
    uint32_t chunk_width, chunk_height; /* of a chunk that is full */
    size_t pixel_bytes;                 /* of all channels */
};

struct source {
    const struct assemble_tile *tile;
    exr_context_t file;
    struct part part;
    struct box owned; /* what of the part is the frame's */
    exr_decode_pipeline_t decode;
    bool decoding;
};

struct joining {
    struct assemble *assemble;
    struct source *sources;
    exr_context_t out;
    struct part part; /* of the frame */
    exr_encode_pipeline_t encode;
    bool encoding;
    uint8_t *chunk, *scratch; /* planes of one chunk of the frame, and of a tile */
};

static void on_error(exr_const_context_t file, exr_result_t code, const char *message)
{
}

static int exr_fail(struct joining *joining, const char *path, exr_result_t r)
{
    if (r == EXR_ERR_FEATURE_NOT_IMPLEMENTED)
        return assemble_fail(joining->assemble, path,
                             "its pixels are packed in a way that cannot be joined: render with "
                             "ZIP, PIZ, RLE or no compression");
    return assemble_fail(joining->assemble, path, "%s (OpenEXR)", exr_get_default_error_message(r));
}

static struct box box_of(exr_attr_box2i_t from)
{
    return (struct box){from.min.x, from.min.y, from.max.x, from.max.y};
}

static bool box_same(struct box a, struct box b)
{
    return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
}

/* False where they share nothing. */
static bool box_meet(struct box a, struct box b, struct box *ret_box)
{
    struct box box = {a.x0 > b.x0 ? a.x0 : b.x0, a.y0 > b.y0 ? a.y0 : b.y0,
                      a.x1 < b.x1 ? a.x1 : b.x1, a.y1 < b.y1 ? a.y1 : b.y1};

    *ret_box = box;
    return box.x0 <= box.x1 && box.y0 <= box.y1;
}

/* ---- what a tile's file says ---- */

static exr_result_t part_windows(exr_context_t file, int index, struct part *part)
{
    exr_attr_box2i_t data, display;
    exr_result_t r = exr_get_data_window(file, index, &data);

    if (r == EXR_ERR_SUCCESS)
        r = exr_get_display_window(file, index, &display);
    if (r == EXR_ERR_SUCCESS) {
        part->data = box_of(data);
        part->display = box_of(display);
    }
    return r;
}

static exr_result_t part_chunks(exr_context_t file, int index, struct part *part)
{
    exr_tile_level_mode_t level;
    exr_tile_round_mode_t round;
    int32_t lines = 0;
    exr_result_t r;

    if (part->storage == EXR_STORAGE_TILED) {
        r = exr_get_tile_descriptor(file, index, &part->chunk_width, &part->chunk_height, &level,
                                    &round);
        return r == EXR_ERR_SUCCESS && level != EXR_TILE_ONE_LEVEL ? EXR_ERR_FEATURE_NOT_IMPLEMENTED
                                                                   : r;
    }
    r = exr_get_scanlines_per_chunk(file, index, &lines);
    part->chunk_width = (uint32_t)(part->data.x1 - part->data.x0 + 1);
    part->chunk_height = lines > 0 ? (uint32_t)lines : 1;
    return r;
}

static int part_channels(struct joining *joining, const char *path, struct part *part)
{
    const exr_attr_chlist_t *channels = part->channels;

    if (channels->num_channels < 1 || channels->num_channels > CHANNELS_MAX)
        return assemble_fail(joining->assemble, path, "it has %d channels: 1 to %d can be joined",
                             channels->num_channels, CHANNELS_MAX);
    for (int i = 0; i < channels->num_channels; i++) {
        const exr_attr_chlist_entry_t *entry = &channels->entries[i];

        if (entry->x_sampling != 1 || entry->y_sampling != 1)
            return assemble_fail(joining->assemble, path,
                                 "its channel %.100s has less pixels than the picture, which "
                                 "cannot be joined: render RGB",
                                 entry->name.str);
        part->pixel_bytes += entry->pixel_type == EXR_PIXEL_HALF ? 2 : 4;
    }
    return 0;
}

/* The frame's size is known; that keeps a header from asking for what memory there is. */
static int part_sizes(struct joining *joining, const char *path, const struct part *part)
{
    const struct assemble *assemble = joining->assemble;
    int64_t width = part->display.x1 - part->display.x0 + 1,
            height = part->display.y1 - part->display.y0 + 1;

    if (width != assemble->width || height != assemble->height)
        return assemble_fail(joining->assemble, path,
                             "its display window has %lldx%lld pixels, not the frame's %ux%u: "
                             "render a region of the whole frame, and crop nothing",
                             (long long)width, (long long)height, assemble->width,
                             assemble->height);
    if (part->data.x1 - part->data.x0 >= 2 * width || part->data.y1 - part->data.y0 >= 2 * height)
        return assemble_fail(joining->assemble, path,
                             "its data window is more than twice as large as the frame");
    if (part->chunk_width > 2 * ASSEMBLE_SIDE_MAX || part->chunk_height > 2 * ASSEMBLE_SIDE_MAX ||
        (uint64_t)part->chunk_width * part->chunk_height > CHUNK_BYTES_MAX / part->pixel_bytes)
        return assemble_fail(joining->assemble, path,
                             "its chunks are too large: render it with smaller tiles or fewer "
                             "channels");
    return 0;
}

static int part_read(struct joining *joining, const char *path, exr_context_t file, int index,
                     struct part *ret_part)
{
    struct part part = {0};
    exr_result_t r = exr_get_storage(file, index, &part.storage);

    if (r == EXR_ERR_SUCCESS && part.storage != EXR_STORAGE_SCANLINE &&
        part.storage != EXR_STORAGE_TILED)
        return assemble_fail(joining->assemble, path,
                             "it holds deep pixels, which cannot be joined");
    if (r == EXR_ERR_SUCCESS)
        r = exr_get_compression(file, index, &part.compression);
    if (r == EXR_ERR_SUCCESS)
        r = exr_get_channels(file, index, &part.channels);
    if (r == EXR_ERR_SUCCESS)
        r = part_windows(file, index, &part);
    if (r == EXR_ERR_SUCCESS)
        r = part_chunks(file, index, &part);
    if (r == EXR_ERR_FEATURE_NOT_IMPLEMENTED)
        return assemble_fail(joining->assemble, path,
                             "it holds smaller copies of itself (mip levels), which cannot be "
                             "joined: render without");
    if (r != EXR_ERR_SUCCESS)
        return exr_fail(joining, path, r);
    if (part_channels(joining, path, &part) || part_sizes(joining, path, &part))
        return ASSEMBLE_E_NOT;
    *ret_part = part;
    return 0;
}

static bool channels_same(const exr_attr_chlist_t *a, const exr_attr_chlist_t *b)
{
    bool same = a->num_channels == b->num_channels;

    for (int i = 0; same && i < a->num_channels; i++)
        same = strcmp(a->entries[i].name.str, b->entries[i].name.str) == 0 &&
               a->entries[i].pixel_type == b->entries[i].pixel_type;
    return same;
}

static int part_like(struct joining *joining, const char *path, const struct part *first,
                     const struct part *part)
{
    const char *what =
        !box_same(first->display, part->display) ? "display window"
        : first->storage != part->storage        ? "kind of storage"
        : first->compression != part->compression || !channels_same(first->channels, part->channels)
            ? "channels or compression"
            : NULL;

    return what ? assemble_fail(joining->assemble, path,
                                "its %s is another than that of the first tile: render all of them "
                                "with one setting",
                                what)
                : 0;
}

/* ---- the frame's part ---- */

/* What a tile has of the frame: at an edge, what lies beyond it as well. All of its rectangle must
 * be in its data window. */
static int own(struct joining *joining, struct source *source)
{
    const int64_t far = (int64_t)1 << 40;
    const struct assemble_tile *tile = source->tile;
    const struct box display = source->part.display, data = source->part.data,
                     rectangle = {display.x0 + tile->x, display.y0 + tile->y,
                                  display.x0 + tile->x + tile->width - 1,
                                  display.y0 + tile->y + tile->height - 1};
    struct box box;

    if (!box_meet(rectangle, data, &box) || !box_same(rectangle, box))
        return assemble_fail(joining->assemble, tile->path,
                             "it must have %ux%u+%u+%u of the frame, and its data window is "
                             "%lldx%lld%+lld%+lld: render all of that region, and crop nothing",
                             tile->width, tile->height, tile->x, tile->y,
                             (long long)(data.x1 - data.x0 + 1), (long long)(data.y1 - data.y0 + 1),
                             (long long)(data.x0 - display.x0), (long long)(data.y0 - display.y0));
    if (tile->x == 0)
        box.x0 = -far;
    if (tile->y == 0)
        box.y0 = -far;
    if (tile->x + tile->width == joining->assemble->width)
        box.x1 = far;
    if (tile->y + tile->height == joining->assemble->height)
        box.y1 = far;
    box_meet(box, data, &source->owned);
    return 0;
}

static struct box box_join(struct box a, struct box b)
{
    return (struct box){a.x0 < b.x0 ? a.x0 : b.x0, a.y0 < b.y0 ? a.y0 : b.y0,
                        a.x1 > b.x1 ? a.x1 : b.x1, a.y1 > b.y1 ? a.y1 : b.y1};
}

/* The frame's data window is what the tiles have of it, and the first one's where all have the
 * same. */
static int part_join(struct joining *joining, int index)
{
    struct part *frame = &joining->part;
    struct box data = {0};
    bool same = true;

    for (size_t i = 0; i < joining->assemble->n_tiles; i++) {
        struct source *source = &joining->sources[i];

        if (part_read(joining, source->tile->path, source->file, index, &source->part) ||
            part_like(joining, source->tile->path, &joining->sources[0].part, &source->part) ||
            own(joining, source))
            return ASSEMBLE_E_NOT;
        same &= box_same(source->part.data, joining->sources[0].part.data);
        data = i == 0 ? source->owned : box_join(data, source->owned);
    }
    *frame = joining->sources[0].part;
    if (!same)
        frame->data = data;
    if (frame->storage == EXR_STORAGE_SCANLINE)
        frame->chunk_width = (uint32_t)(frame->data.x1 - frame->data.x0 + 1);
    return part_sizes(joining, joining->assemble->out, frame);
}

/* All that the first tile says, but for the data window, and the order of lines: the library writes
 * none but one. */
static exr_result_t header_add(struct joining *joining, int index)
{
    exr_context_t first = joining->sources[0].file;
    const struct box data = joining->part.data;
    exr_attr_box2i_t window;
    const char *name = NULL;
    int added;
    exr_result_t r = exr_get_name(first, index, &name);

    window.min.x = (int32_t)data.x0;
    window.min.y = (int32_t)data.y0;
    window.max.x = (int32_t)data.x1;
    window.max.y = (int32_t)data.y1;
    if (r == EXR_ERR_SUCCESS || r == EXR_ERR_NO_ATTR_BY_NAME)
        r = exr_add_part(joining->out, name, joining->part.storage, &added);
    if (r == EXR_ERR_SUCCESS)
        r = exr_set_data_window(joining->out, added, &window);
    if (r == EXR_ERR_SUCCESS)
        r = exr_set_lineorder(joining->out, added, EXR_LINEORDER_INCREASING_Y);
    if (r == EXR_ERR_SUCCESS)
        r = exr_copy_unset_attributes(joining->out, added, first, index);
    return r;
}

/* ---- pixels ---- */

/* One plane a channel, one after another; for both directions the same. */
static void planes_set(exr_coding_channel_info_t *channels, int n, uint8_t *planes, int64_t width,
                       int64_t height)
{
    for (int i = 0; i < n; i++) {
        channels[i].user_bytes_per_element = channels[i].bytes_per_element;
        channels[i].user_data_type = channels[i].data_type;
        channels[i].user_pixel_stride = channels[i].bytes_per_element;
        channels[i].user_line_stride = (int32_t)(width * channels[i].bytes_per_element);
        channels[i].decode_to_ptr = planes;
        planes += width * height * channels[i].bytes_per_element;
    }
}

/* The chunk that begins at column, row of chunks. */
static struct box chunk_box(const struct part *part, int64_t column, int64_t row)
{
    struct box box = {part->data.x0 + column * part->chunk_width,
                      part->data.y0 + row * part->chunk_height,
                      part->data.x0 + (column + 1) * part->chunk_width - 1,
                      part->data.y0 + (row + 1) * part->chunk_height - 1};

    box_meet(box, part->data, &box);
    return box;
}

static exr_result_t chunk_decode(struct source *source, int index, int64_t column, int64_t row,
                                 struct box box, uint8_t *planes)
{
    exr_decode_pipeline_t *decode = &source->decode;
    exr_chunk_info_t chunk;
    exr_result_t r =
        source->part.storage == EXR_STORAGE_TILED
            ? exr_read_tile_chunk_info(source->file, index, (int)column, (int)row, 0, 0, &chunk)
            : exr_read_scanline_chunk_info(source->file, index, (int)box.y0, &chunk);

    if (r == EXR_ERR_SUCCESS &&
        (chunk.width != box.x1 - box.x0 + 1 || chunk.height != box.y1 - box.y0 + 1))
        r = EXR_ERR_BAD_CHUNK_LEADER;
    if (r == EXR_ERR_SUCCESS)
        r = source->decoding ? exr_decoding_update(source->file, index, &chunk, decode)
                             : exr_decoding_initialize(source->file, index, &chunk, decode);
    if (r != EXR_ERR_SUCCESS)
        return r;
    source->decoding = true;
    if (decode->channel_count != source->part.channels->num_channels)
        return EXR_ERR_BAD_CHUNK_LEADER;
    planes_set(decode->channels, decode->channel_count, planes, chunk.width, chunk.height);
    r = exr_decoding_choose_default_routines(source->file, index, decode);
    return r == EXR_ERR_SUCCESS ? exr_decoding_run(source->file, index, decode) : r;
}

/* What `from` has of `both` goes to where it lies in `to`. */
static void copy(const struct part *part, struct box both, struct box from, const uint8_t *planes,
                 struct box to, uint8_t *ret_planes)
{
    int64_t from_width = from.x1 - from.x0 + 1, to_width = to.x1 - to.x0 + 1;

    for (int i = 0; i < part->channels->num_channels; i++) {
        int64_t bytes = part->channels->entries[i].pixel_type == EXR_PIXEL_HALF ? 2 : 4;

        for (int64_t y = both.y0; y <= both.y1; y++)
            memcpy(ret_planes + ((y - to.y0) * to_width + both.x0 - to.x0) * bytes,
                   planes + ((y - from.y0) * from_width + both.x0 - from.x0) * bytes,
                   (size_t)((both.x1 - both.x0 + 1) * bytes));
        planes += from_width * (from.y1 - from.y0 + 1) * bytes;
        ret_planes += to_width * (to.y1 - to.y0 + 1) * bytes;
    }
}

/* What one tile has of a chunk of the frame. */
static int chunk_gather(struct joining *joining, struct source *source, int index,
                        struct box wanted)
{
    const struct part *part = &source->part;
    struct box both, box;

    if (!box_meet(wanted, source->owned, &both) || !box_meet(both, part->data, &both))
        return 0;
    for (int64_t row = (both.y0 - part->data.y0) / part->chunk_height;
         row <= (both.y1 - part->data.y0) / part->chunk_height; row++)
        for (int64_t column = (both.x0 - part->data.x0) / part->chunk_width;
             column <= (both.x1 - part->data.x0) / part->chunk_width; column++) {
            struct box from = chunk_box(part, column, row);
            exr_result_t r = chunk_decode(source, index, column, row, from, joining->scratch);

            if (r != EXR_ERR_SUCCESS)
                return exr_fail(joining, source->tile->path, r);
            if (box_meet(both, from, &box))
                copy(part, box, from, joining->scratch, wanted, joining->chunk);
        }
    return 0;
}

static exr_result_t chunk_encode(struct joining *joining, int index, int64_t column, int64_t row,
                                 struct box box)
{
    exr_encode_pipeline_t *encode = &joining->encode;
    exr_chunk_info_t chunk;
    exr_result_t r =
        joining->part.storage == EXR_STORAGE_TILED
            ? exr_write_tile_chunk_info(joining->out, index, (int)column, (int)row, 0, 0, &chunk)
            : exr_write_scanline_chunk_info(joining->out, index, (int)box.y0, &chunk);

    if (r == EXR_ERR_SUCCESS)
        r = joining->encoding ? exr_encoding_update(joining->out, index, &chunk, encode)
                              : exr_encoding_initialize(joining->out, index, &chunk, encode);
    if (r != EXR_ERR_SUCCESS)
        return r;
    joining->encoding = true;
    planes_set(encode->channels, encode->channel_count, joining->chunk, chunk.width, chunk.height);
    r = exr_encoding_choose_default_routines(joining->out, index, encode);
    return r == EXR_ERR_SUCCESS ? exr_encoding_run(joining->out, index, encode) : r;
}

static int part_write(struct joining *joining, int index, int parts)
{
    const struct part *part = &joining->part;
    int64_t rows = (part->data.y1 - part->data.y0) / part->chunk_height + 1,
            columns = (part->data.x1 - part->data.x0) / part->chunk_width + 1;
    size_t bytes = (size_t)part->chunk_width * part->chunk_height * part->pixel_bytes;
    exr_result_t r = EXR_ERR_SUCCESS;

    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++) {
            struct box box = chunk_box(part, column, row);

            memset(joining->chunk, 0, bytes);
            for (size_t k = 0; k < joining->assemble->n_tiles; k++)
                if (chunk_gather(joining, &joining->sources[k], index, box))
                    return ASSEMBLE_E_NOT;
            r = chunk_encode(joining, index, column, row, box);
            if (r != EXR_ERR_SUCCESS)
                return exr_fail(joining, joining->assemble->out, r);
            assemble_progress(joining->assemble,
                              (index + (double)(row + 1) / (double)rows) / parts);
        }
    return 0;
}

/* ---- the whole ---- */

static int sources_open(struct joining *joining, int *ret_parts)
{
    exr_context_initializer_t initializer = EXR_DEFAULT_CONTEXT_INITIALIZER;
    int parts = 0;

    initializer.error_handler_fn = on_error;
    for (size_t i = 0; i < joining->assemble->n_tiles; i++) {
        struct source *source = &joining->sources[i];
        int n = 0;
        exr_result_t r;

        source->tile = &joining->assemble->tiles[i];
        source->decode = (exr_decode_pipeline_t)EXR_DECODE_PIPELINE_INITIALIZER;
        r = exr_start_read(&source->file, source->tile->path, &initializer);
        if (r == EXR_ERR_SUCCESS)
            r = exr_get_count(source->file, &n);
        if (r != EXR_ERR_SUCCESS)
            return exr_fail(joining, source->tile->path, r);
        if (i > 0 && n != parts)
            return assemble_fail(joining->assemble, source->tile->path,
                                 "it has %d parts, and the first tile has %d", n, parts);
        parts = n;
    }
    *ret_parts = parts;
    return 0;
}

/* Names of more than 31 bytes: a bit of the version, in the fifth to eighth byte of the file. */
static bool names_long(const struct joining *joining)
{
    FILE *file = fopen(joining->sources[0].tile->path, "rbe");
    uint8_t head[8] = {0};
    bool is = file && fread(head, sizeof(head), 1, file) == 1 && (head[5] & 0x04);

    if (file)
        fclose(file);
    return is;
}

static int headers_write(struct joining *joining, int parts)
{
    exr_context_initializer_t initializer = EXR_DEFAULT_CONTEXT_INITIALIZER;
    exr_result_t r;

    for (int i = 0; i < parts; i++) /* nothing is written where one is not right */
        if (part_join(joining, i))
            return ASSEMBLE_E_NOT;
    initializer.error_handler_fn = on_error;
    r = exr_start_write(&joining->out, joining->assemble->out, EXR_WRITE_FILE_DIRECTLY,
                        &initializer);
    if (r == EXR_ERR_SUCCESS)
        r = exr_set_longname_support(joining->out, names_long(joining));
    for (int i = 0; r == EXR_ERR_SUCCESS && i < parts; i++) {
        if (part_join(joining, i))
            return ASSEMBLE_E_NOT;
        r = header_add(joining, i);
    }
    if (r == EXR_ERR_SUCCESS)
        r = exr_write_header(joining->out);
    return r == EXR_ERR_SUCCESS ? 0 : exr_fail(joining, joining->assemble->out, r);
}

/* For the largest chunk of the frame and of the tiles. */
static int planes_new(struct joining *joining)
{
    const struct part *part = &joining->part;
    size_t scratch = 0;

    for (size_t i = 0; i < joining->assemble->n_tiles; i++) {
        const struct part *other = &joining->sources[i].part;
        size_t bytes = (size_t)other->chunk_width * other->chunk_height * other->pixel_bytes;

        scratch = bytes > scratch ? bytes : scratch;
    }
    free(joining->chunk);
    free(joining->scratch);
    joining->chunk = malloc((size_t)part->chunk_width * part->chunk_height * part->pixel_bytes);
    joining->scratch = malloc(scratch);
    return joining->chunk && joining->scratch
               ? 0
               : assemble_fail(joining->assemble, joining->assemble->out,
                               "there is not memory enough for a chunk: give the task more (-p "
                               "memory=)");
}

static int parts_write(struct joining *joining, int parts)
{
    int r = 0;

    for (int i = 0; r == 0 && i < parts; i++) {
        r = part_join(joining, i);
        if (r == 0)
            r = planes_new(joining);
        if (r == 0)
            r = part_write(joining, i, parts);
        for (size_t k = 0; k < joining->assemble->n_tiles; k++) {
            struct source *source = &joining->sources[k];

            if (source->decoding)
                exr_decoding_destroy(source->file, &source->decode);
            source->decode = (exr_decode_pipeline_t)EXR_DECODE_PIPELINE_INITIALIZER;
            source->decoding = false;
        }
        if (joining->encoding)
            exr_encoding_destroy(joining->out, &joining->encode);
        joining->encode = (exr_encode_pipeline_t)EXR_ENCODE_PIPELINE_INITIALIZER;
        joining->encoding = false;
    }
    return r;
}

int assemble_exr(struct assemble *assemble)
{
    struct joining joining = {.assemble = assemble,
                              .encode = EXR_ENCODE_PIPELINE_INITIALIZER,
                              .sources = calloc(assemble->n_tiles, sizeof(struct source))};
    int parts = 0,
        r = joining.sources ? 0 : assemble_fail(assemble, assemble->out, "%s", strerror(ENOMEM));

    if (r == 0)
        r = sources_open(&joining, &parts);
    if (r == 0)
        r = headers_write(&joining, parts);
    if (r == 0)
        r = parts_write(&joining, parts);
    if (joining.out) {
        exr_result_t end = exr_finish(&joining.out); /* the table of chunks goes out here */

        if (r == 0 && end != EXR_ERR_SUCCESS)
            r = exr_fail(&joining, assemble->out, end);
    }
    for (size_t i = 0; joining.sources && i < assemble->n_tiles; i++)
        if (joining.sources[i].file)
            exr_finish(&joining.sources[i].file);
    free(joining.sources);
    free(joining.chunk);
    free(joining.scratch);
    return r;
}
