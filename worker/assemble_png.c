/* assemble_png.c - PNG: samples are copied as they are stored, whatever they mean.
 *
 * All that is said of the picture (gamma, profile, texts) is the first tile's. Where tiles have
 * palettes of their own, or a transparent colour of their own, the frame has neither: its pixels
 * are written out as colours, with alpha where one of them has any. Source: libpng's manual.
 */
#include <worker/assemble.h>

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/err.h>

/* Two tiles at most are open: the first, and the one that is read. */
struct reader {
    struct assemble *assemble;
    const struct assemble_tile *tile;
    FILE *file;
    png_structp png;
    png_infop info;
    uint32_t width, height;
    int depth, type;
    uint8_t *rows; /* here, so that it outlives a jump */
};

struct canvas {
    uint8_t *data;
    size_t pixel_bytes, row_bytes;
    bool expand, alpha;
    struct reader first; /* its header is the frame's */
    png_infop tail;      /* and what it says behind its pixels */
};

_noreturn_ static void failed(png_structp png, png_const_charp why)
{
    struct reader *reader = png_get_error_ptr(png);

    assemble_fail(reader->assemble, reader->tile ? reader->tile->path : reader->assemble->out,
                  "%.100s", why);
    png_longjmp(png, 1);
}

static void warned(png_structp png, png_const_charp why)
{
}

static void reader_close(struct reader *reader)
{
    if (reader->png)
        png_destroy_read_struct(&reader->png, &reader->info, NULL);
    if (reader->file)
        fclose(reader->file);
    free(reader->rows);
    reader->file = NULL;
    reader->rows = NULL;
}

/* A picture of the whole frame, or of the tile alone; before any memory is asked for. */
static int check_size(const struct reader *reader)
{
    const struct assemble_tile *tile = reader->tile;

    if (reader->width == reader->assemble->width && reader->height == reader->assemble->height)
        return 0;
    if (reader->width == tile->width && reader->height == tile->height)
        return 0;
    return assemble_fail(reader->assemble, tile->path,
                         "it has %ux%u pixels, neither the frame's %ux%u nor the tile's %ux%u",
                         reader->width, reader->height, reader->assemble->width,
                         reader->assemble->height, tile->width, tile->height);
}

static int reader_open(struct assemble *assemble, const struct assemble_tile *tile,
                       struct reader *reader)
{
    *reader = (struct reader){.assemble = assemble, .tile = tile, .file = fopen(tile->path, "rbe")};
    if (!reader->file)
        return assemble_fail(assemble, tile->path, "%s", strerror(errno));
    reader->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader, failed, warned);
    reader->info = reader->png ? png_create_info_struct(reader->png) : NULL;
    if (!reader->info)
        return assemble_fail(assemble, tile->path, "there is no memory for it");
    if (setjmp(png_jmpbuf(reader->png)))
        return ASSEMBLE_E_NOT;
    png_set_user_limits(reader->png, ASSEMBLE_SIDE_MAX, ASSEMBLE_SIDE_MAX);
    png_set_keep_unknown_chunks(reader->png, PNG_HANDLE_CHUNK_ALWAYS, NULL, 0);
    png_init_io(reader->png, reader->file);
    png_read_info(reader->png, reader->info);
    png_get_IHDR(reader->png, reader->info, &reader->width, &reader->height, &reader->depth,
                 &reader->type, NULL, NULL, NULL);
    return check_size(reader);
}

/* ---- what the tiles have in common ---- */

static bool palettes_same(struct reader *a, struct reader *b)
{
    png_colorp one = NULL, other = NULL;
    int n = 0, m = 0;

    png_get_PLTE(a->png, a->info, &one, &n);
    png_get_PLTE(b->png, b->info, &other, &m);
    return n == m && (n == 0 || memcmp(one, other, (size_t)n * sizeof(*one)) == 0);
}

static bool transparent_same(struct reader *a, struct reader *b)
{
    png_bytep one = NULL, other = NULL;
    png_color_16p colour = NULL, other_colour = NULL;
    int n = 0, m = 0;
    png_uint_32 has = png_get_tRNS(a->png, a->info, &one, &n, &colour);

    if (has != png_get_tRNS(b->png, b->info, &other, &m, &other_colour) || n != m)
        return false;
    if (has && a->type == PNG_COLOR_TYPE_PALETTE)
        return memcmp(one, other, (size_t)n) == 0;
    return !has || (colour->gray == other_colour->gray && colour->red == other_colour->red &&
                    colour->green == other_colour->green && colour->blue == other_colour->blue);
}

static int compare(struct canvas *canvas, struct reader *reader)
{
    const struct reader *first = &canvas->first;

    if (reader->depth != first->depth || reader->type != first->type)
        return assemble_fail(reader->assemble, reader->tile->path,
                             "it has colours of type %d with %d bits, and other tiles have type %d "
                             "with %d bits: render all of them with one setting",
                             reader->type, reader->depth, first->type, first->depth);
    canvas->alpha |= png_get_valid(reader->png, reader->info, PNG_INFO_tRNS) != 0;
    canvas->expand |=
        !palettes_same(&canvas->first, reader) || !transparent_same(&canvas->first, reader);
    return 0;
}

static int compare_all(struct assemble *assemble, struct canvas *canvas)
{
    int r = reader_open(assemble, &assemble->tiles[0], &canvas->first);

    if (r == 0)
        r = compare(canvas, &canvas->first);
    for (size_t i = 1; r == 0 && i < assemble->n_tiles; i++) {
        struct reader reader;

        r = reader_open(assemble, &assemble->tiles[i], &reader);
        if (r == 0)
            r = compare(canvas, &reader);
        reader_close(&reader);
    }
    return r;
}

/* ---- pixels ---- */

/* A byte for each sample of less than 8 bits, so that a pixel never shares one. */
static void unpack(const struct canvas *canvas, png_structp png)
{
    if (!canvas->expand) {
        png_set_packing(png);
        return;
    }
    png_set_expand(png);
    if (canvas->alpha)
        png_set_add_alpha(png, 0xffff, PNG_FILLER_AFTER);
}

static void copy_row(const struct canvas *canvas, const struct reader *reader, const uint8_t *row,
                     uint32_t y)
{
    const struct assemble_tile *tile = reader->tile;
    bool whole =
        reader->width == reader->assemble->width && reader->height == reader->assemble->height;
    uint32_t top = whole ? tile->y : 0, left = whole ? tile->x : 0;

    if (y < top || y >= top + tile->height)
        return;
    memcpy(canvas->data + (size_t)(tile->y + y - top) * canvas->row_bytes +
               tile->x * canvas->pixel_bytes,
           row + left * canvas->pixel_bytes, tile->width * canvas->pixel_bytes);
}

/* An interlaced picture is read whole. */
static int read_rows(struct canvas *canvas, struct reader *reader)
{
    size_t row_bytes;
    int passes;

    if (setjmp(png_jmpbuf(reader->png)))
        return ASSEMBLE_E_NOT;
    unpack(canvas, reader->png);
    passes = png_set_interlace_handling(reader->png);
    png_read_update_info(reader->png, reader->info);
    row_bytes = png_get_rowbytes(reader->png, reader->info);
    if (row_bytes != reader->width * canvas->pixel_bytes)
        png_error(reader->png, "its pixels are not as its header says");
    reader->rows = calloc(passes > 1 ? reader->height : 1, row_bytes);
    if (!reader->rows)
        png_error(reader->png, "there is no memory for it");
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < reader->height; y++) {
            uint8_t *row = reader->rows + (passes > 1 ? y * row_bytes : 0);

            png_read_row(reader->png, row, NULL);
            if (pass + 1 == passes)
                copy_row(canvas, reader, row, y);
        }
    png_read_end(reader->png, reader->tile == canvas->first.tile ? canvas->tail : NULL);
    return 0;
}

static int read_all(struct assemble *assemble, struct canvas *canvas)
{
    int channels = canvas->expand
                       ? (canvas->first.type == PNG_COLOR_TYPE_PALETTE
                              ? 3
                              : png_get_channels(canvas->first.png, canvas->first.info)) +
                             canvas->alpha
                       : png_get_channels(canvas->first.png, canvas->first.info);
    int r = 0;

    canvas->pixel_bytes = (size_t)channels * (canvas->first.depth == 16 ? 2 : 1);
    canvas->row_bytes = assemble->width * canvas->pixel_bytes;
    canvas->data = calloc(assemble->height, canvas->row_bytes);
    canvas->tail = png_create_info_struct(canvas->first.png);
    if (!canvas->data || !canvas->tail)
        return assemble_fail(assemble, assemble->out,
                             "%ux%u pixels need more memory than there is: give the task more (-p "
                             "memory=)",
                             assemble->width, assemble->height);
    for (size_t i = 0; r == 0 && i < assemble->n_tiles; i++) {
        struct reader reader;

        r = reader_open(assemble, &assemble->tiles[i], &reader);
        if (r == 0)
            r = read_rows(canvas, &reader);
        reader_close(&reader);
        assemble_progress(assemble, 0.9 * (double)(i + 1) / (double)assemble->n_tiles);
    }
    return r;
}

/* ---- the frame ---- */

/* What the first tile says, but for what came of joining. */
static void set_header(const struct assemble *assemble, struct canvas *canvas, png_structp png)
{
    struct reader *first = &canvas->first;
    int type = first->type, depth = first->depth;

    if (canvas->expand) {
        png_free_data(first->png, first->info, PNG_FREE_PLTE | PNG_FREE_TRNS, 0);
        png_set_invalid(first->png, first->info,
                        PNG_INFO_PLTE | PNG_INFO_tRNS | PNG_INFO_hIST | PNG_INFO_bKGD |
                            PNG_INFO_sBIT);
        type = (type & ~PNG_COLOR_MASK_PALETTE) | (canvas->alpha ? PNG_COLOR_MASK_ALPHA : 0);
        depth = depth < 8 ? 8 : depth;
    }
    png_set_IHDR(png, first->info, assemble->width, assemble->height, depth, type,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, first->info);
    png_set_packing(png);
}

static int write_rows(struct assemble *assemble, struct canvas *canvas, png_structp png, FILE *file)
{
    if (setjmp(png_jmpbuf(png)))
        return ASSEMBLE_E_NOT;
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_ALWAYS, NULL, 0);
    png_init_io(png, file);
    set_header(assemble, canvas, png);
    for (uint32_t y = 0; y < assemble->height; y++)
        png_write_row(png, canvas->data + y * canvas->row_bytes);
    png_write_end(png, canvas->tail);
    return 0;
}

static int write_all(struct assemble *assemble, struct canvas *canvas)
{
    struct reader writer = {.assemble = assemble};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer, failed, warned);
    FILE *file = png ? fopen(assemble->out, "wbe") : NULL;
    int r;

    if (!file) {
        png_destroy_write_struct(&png, NULL);
        return assemble_fail(assemble, assemble->out, "%s", strerror(errno));
    }
    r = write_rows(assemble, canvas, png, file);
    png_destroy_write_struct(&png, NULL);
    if (fclose(file) != 0 && r == 0)
        r = assemble_fail(assemble, assemble->out, "%s", strerror(errno));
    return r;
}

int assemble_png(struct assemble *assemble)
{
    struct canvas canvas = {0};
    int r = compare_all(assemble, &canvas);

    if (r == 0)
        r = read_all(assemble, &canvas);
    if (r == 0)
        r = write_all(assemble, &canvas);
    if (canvas.tail)
        png_destroy_info_struct(canvas.first.png, &canvas.tail);
    reader_close(&canvas.first);
    free(canvas.data);
    return r;
}
