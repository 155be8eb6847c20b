/* assemble.c - tiles of every kind of PNG and OpenEXR joined, sample for sample; tiles that are
 * missing, overlap, are cut short or say that they are gigantic. Outside of its rectangle each tile
 * holds noise. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <openexr.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/bytes.h>
#include <proto/base/err.h>
#include <worker/assemble.h>

enum { WIDTH = 75, HEIGHT = 53, COLUMNS = 3, ROWS = 2, TILES = COLUMNS * ROWS, WHOLE = TILES };

static char folder[64], names[TILES + 1][96], out[96];
static struct assemble_tile tiles[TILES];

static void name_files(const char *ending)
{
    for (int i = 0; i <= TILES; i++)
        snprintf(names[i], sizeof(names[i]), "%s/%d.%s", folder, i, ending);
    snprintf(out, sizeof(out), "%s/out.%s", folder, ending);
    for (uint32_t i = 0; i < TILES; i++) {
        uint32_t x = i % COLUMNS * 26, y = i / COLUMNS * 29; /* no multiple of anything */

        tiles[i] =
            (struct assemble_tile){x, y, x == 52 ? WIDTH - 52 : 26, y ? HEIGHT - 29 : 29, names[i]};
    }
}

static int setup(void **state)
{
    strcpy(folder, "/tmp/westlight-assemble-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    return folder_remove(folder);
}

static bool inside(int tile, int64_t x, int64_t y)
{
    const struct assemble_tile *t = &tiles[tile % TILES];

    return tile == WHOLE || (x >= t->x && x < t->x + t->width && y >= t->y && y < t->y + t->height);
}

/* The same for all where it counts. */
static uint32_t sample(int tile, int channel, int64_t x, int64_t y, bool counts)
{
    uint32_t value = (uint32_t)(x * 73856093) ^ (uint32_t)(y * 19349663) ^
                     (uint32_t)(channel * 83492791) ^ (counts ? 0 : (uint32_t)(tile + 1) * 997u);

    value = (value ^ value >> 15) * 0x2c1b3c6du;
    return value ^ value >> 13;
}

static const char *join(void)
{
    static struct assemble frame;

    unlink(out);
    frame = (struct assemble){.out = out, .tiles = tiles, .n_tiles = TILES};
    if (assemble(&frame) == 0)
        return "";
    assert_string_not_equal(frame.why, "");
    assert_int_equal(access(out, F_OK), -1); /* half a picture is none */
    return frame.why;
}

/* ---- PNG ---- */

struct png_form {
    int type, depth, interlace;
    bool transparent; /* a colour, or entries of the palette */
    bool own, alone;  /* a palette of its own for each tile; files of tiles alone */
};

static void set_palette(png_structp png, png_infop info, const struct png_form *form, int shift)
{
    png_color colours[256];
    png_byte alpha[256];
    png_color_16 clear = {.gray = 1, .red = 1, .green = 2, .blue = 3};
    int n = 1 << (form->depth < 8 ? form->depth : 8);

    for (int i = 0; i < n; i++) {
        int k = (i + shift) % n;

        colours[i] = (png_color){(png_byte)(k * 7), (png_byte)(k * 3 + 1), (png_byte)(255 - k)};
        alpha[i] = (png_byte)(k * 5);
    }
    if (form->type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, colours, n);
    if (form->transparent)
        png_set_tRNS(png, info, alpha, form->type == PNG_COLOR_TYPE_PALETTE ? n : 0, &clear);
}

static void put_png(int tile, const struct png_form *form)
{
    FILE *file = fopen(names[tile], "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    bool alone = form->alone && tile != WHOLE;
    uint32_t width = alone ? tiles[tile].width : WIDTH,
             height = alone ? tiles[tile].height : HEIGHT, left = alone ? tiles[tile].x : 0,
             top = alone ? tiles[tile].y : 0;
    int shift = form->own && tile != WHOLE ? tile : 0, n = 1 << (form->depth < 8 ? form->depth : 8);
    png_text text = {.compression = PNG_TEXT_COMPRESSION_NONE,
                     .key = (char[]){"Camera"},
                     .text = (char[]){"left"}};
    png_byte *rows[HEIGHT];
    size_t channels;

    assert_non_null(file);
    png_init_io(png, file);
    png_set_IHDR(png, info, width, height, form->depth, form->type, form->interlace, 0, 0);
    set_palette(png, info, form, shift);
    png_set_gAMA(png, info, 0.5);
    png_set_text(png, info, &text, 1);
    channels = png_get_channels(png, info);
    for (uint32_t y = 0; y < height; y++) {
        size_t bytes = width * channels * (form->depth == 16 ? 2 : 1);

        rows[y] = malloc(bytes);
        for (size_t i = 0; i < bytes; i++) {
            size_t x = i / (bytes / width);
            uint32_t value = sample(tile, (int)(i % (bytes / width)), left + x, top + y,
                                    inside(tile, left + x, top + y));

            rows[y][i] =
                (png_byte)(form->depth < 8 || form->type == PNG_COLOR_TYPE_PALETTE
                               ? (value % (unsigned)n + (unsigned)(n - shift % n)) % (unsigned)n
                               : value);
        }
    }
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_PACKING, NULL);
    png_destroy_write_struct(&png, &info);
    for (uint32_t y = 0; y < height; y++)
        free(rows[y]);
    assert_int_equal(fclose(file), 0);
}

/* What the joined picture and the whole one look like, with whatever transform. */
static void same_png(const struct png_form *form, bool expanded)
{
    png_bytepp rows[2];
    png_structp png[2];
    png_infop info[2];
    png_textp text;
    double gamma = 0;
    int transform = expanded ? PNG_TRANSFORM_EXPAND : PNG_TRANSFORM_PACKING;

    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(i ? out : names[WHOLE], "rb");

        assert_non_null(file);
        png[i] = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
        info[i] = png_create_info_struct(png[i]);
        png_init_io(png[i], file);
        png_read_png(png[i], info[i], transform, NULL);
        rows[i] = png_get_rows(png[i], info[i]);
        fclose(file);
    }
    assert_int_equal(png_get_image_width(png[1], info[1]), WIDTH);
    assert_int_equal(png_get_image_height(png[1], info[1]), HEIGHT);
    assert_int_equal(png_get_bit_depth(png[0], info[0]), png_get_bit_depth(png[1], info[1]));
    assert_int_equal(png_get_color_type(png[0], info[0]), png_get_color_type(png[1], info[1]));
    assert_int_equal(png_get_rowbytes(png[0], info[0]), png_get_rowbytes(png[1], info[1]));
    for (int y = 0; y < HEIGHT; y++)
        assert_memory_equal(rows[0][y], rows[1][y], png_get_rowbytes(png[0], info[0]));
    if (!expanded)
        assert_int_equal(png_get_valid(png[0], info[0], PNG_INFO_tRNS | PNG_INFO_PLTE),
                         png_get_valid(png[1], info[1], PNG_INFO_tRNS | PNG_INFO_PLTE));
    assert_int_equal(png_get_text(png[1], info[1], &text, NULL), 1);
    assert_string_equal(text->text, "left");
    assert_true(png_get_gAMA(png[1], info[1], &gamma) && gamma == 0.5);
    for (int i = 0; i < 2; i++)
        png_destroy_read_struct(&png[i], &info[i], NULL);
}

static void every_kind_of_png_is_joined_sample_for_sample(void **state)
{
    static const struct png_form forms[] = {
        {.type = PNG_COLOR_TYPE_GRAY, .depth = 1},
        {.type = PNG_COLOR_TYPE_GRAY, .depth = 2},
        {.type = PNG_COLOR_TYPE_GRAY, .depth = 4},
        {.type = PNG_COLOR_TYPE_GRAY, .depth = 8},
        {.type = PNG_COLOR_TYPE_GRAY, .depth = 16},
        {.type = PNG_COLOR_TYPE_GRAY_ALPHA, .depth = 8},
        {.type = PNG_COLOR_TYPE_GRAY_ALPHA, .depth = 16},
        {.type = PNG_COLOR_TYPE_RGB, .depth = 8},
        {.type = PNG_COLOR_TYPE_RGB, .depth = 16},
        {.type = PNG_COLOR_TYPE_RGB_ALPHA, .depth = 8},
        {.type = PNG_COLOR_TYPE_RGB_ALPHA, .depth = 16},
        {.type = PNG_COLOR_TYPE_PALETTE, .depth = 1},
        {.type = PNG_COLOR_TYPE_PALETTE, .depth = 2},
        {.type = PNG_COLOR_TYPE_PALETTE, .depth = 4},
        {.type = PNG_COLOR_TYPE_PALETTE, .depth = 8},
    };

    name_files("png");
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
        for (int how = 0; how < 8; how++) {
            struct png_form form = forms[i];

            form.interlace = how & 1 ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE;
            form.alone = how & 2;
            form.transparent = (how & 4) && !(form.type & PNG_COLOR_MASK_ALPHA);
            for (int tile = 0; tile <= TILES; tile++)
                put_png(tile, &form);
            assert_string_equal(join(), "");
            same_png(&form, false);
        }
}

static void palettes_of_their_own_become_colours(void **state)
{
    name_files("png");
    for (int depth = 1; depth <= 8; depth *= 2)
        for (int transparent = 0; transparent < 2; transparent++) {
            struct png_form form = {.type = PNG_COLOR_TYPE_PALETTE,
                                    .depth = depth,
                                    .own = true,
                                    .transparent = transparent};

            for (int tile = 0; tile <= TILES; tile++)
                put_png(tile, &form);
            assert_string_equal(join(), "");
            same_png(&form, true);
        }
}

/* ---- OpenEXR ---- */

struct exr_form {
    exr_storage_t storage;
    exr_compression_t compression;
    exr_lineorder_t order;
    int parts;
    int edge;   /* pixels beyond the display window */
    bool alone; /* a data window that is as large as the tile, and a little more */
    const exr_attr_box2i_t *window; /* this one, from the display window's corner */
};

static const struct {
    const char *name;
    exr_pixel_type_t type;
} channels[] = {
    {"A", EXR_PIXEL_HALF}, {"ViewLayer.Depth.Z", EXR_PIXEL_FLOAT}, {"id", EXR_PIXEL_UINT}};
enum { PIXEL = 2 + 4 + 4, LEFT = -5, TOP = 11 }; /* the display window begins anywhere */

/* The rectangle of a tile, with what lies beyond the frame, as the file's coordinates. */
static bool exr_inside(int tile, int64_t x, int64_t y)
{
    x = x - LEFT < 0 ? 0 : x - LEFT >= WIDTH ? WIDTH - 1 : x - LEFT;
    y = y - TOP < 0 ? 0 : y - TOP >= HEIGHT ? HEIGHT - 1 : y - TOP;
    return inside(tile, x, y);
}

static exr_attr_box2i_t exr_window(int tile, const struct exr_form *form)
{
    exr_attr_box2i_t box;

    if (form->window) {
        box = *form->window;
        box.min.x += LEFT;
        box.min.y += TOP;
        box.max.x += LEFT;
        box.max.y += TOP;
        return box;
    }
    box.min.x = LEFT - form->edge;
    box.min.y = TOP - form->edge;
    box.max.x = LEFT + WIDTH - 1 + form->edge;
    box.max.y = TOP + HEIGHT - 1 + form->edge;
    if (!form->alone || tile == WHOLE)
        return box;
    box.min.x = LEFT + (int)tiles[tile].x - 3;
    box.min.y = TOP + (int)tiles[tile].y - 2;
    box.max.x = LEFT + (int)(tiles[tile].x + tiles[tile].width) + 1;
    box.max.y = TOP + (int)(tiles[tile].y + tiles[tile].height) + 4;
    return box;
}

#define DONE(call) assert_int_equal((call), EXR_ERR_SUCCESS)

static void exr_part(exr_context_t file, int tile, int part, const struct exr_form *form)
{
    exr_attr_box2i_t display, data = exr_window(tile, form);
    exr_attr_v2f_t center = {.x = 0.25f, .y = -1};
    char name[16];
    int added;

    display.min.x = LEFT;
    display.min.y = TOP;
    display.max.x = LEFT + WIDTH - 1;
    display.max.y = TOP + HEIGHT - 1;
    snprintf(name, sizeof(name), "part%d", part);
    DONE(exr_add_part(file, form->parts > 1 ? name : NULL, form->storage, &added));
    DONE(exr_initialize_required_attr(file, added, &display, &data, 1.5f, &center, 2, form->order,
                                      form->compression));
    for (size_t i = 0; i < ARRAY_SIZE(channels); i++)
        DONE(exr_add_channel(file, added, channels[i].name, channels[i].type,
                             EXR_PERCEPTUALLY_LOGARITHMIC, 1, 1));
    if (form->storage == EXR_STORAGE_TILED)
        DONE(exr_set_tile_descriptor(file, added, 16, 12, EXR_TILE_ONE_LEVEL, EXR_TILE_ROUND_DOWN));
    DONE(exr_attr_set_string(file, added, "owner", tile ? "another" : "the first"));
}

static void exr_chunk(exr_context_t file, int tile, int part, const struct exr_form *form, int x,
                      int y)
{
    exr_encode_pipeline_t encode = EXR_ENCODE_PIPELINE_INITIALIZER;
    exr_attr_box2i_t data = exr_window(tile, form);
    uint8_t *planes, *at;
    exr_chunk_info_t chunk;

    if (form->storage == EXR_STORAGE_TILED)
        DONE(exr_write_tile_chunk_info(file, part, x, y, 0, 0, &chunk));
    else
        DONE(exr_write_scanline_chunk_info(file, part, y, &chunk));
    DONE(exr_encoding_initialize(file, part, &chunk, &encode));
    at = planes = malloc((size_t)chunk.width * (size_t)chunk.height * PIXEL);
    x = form->storage == EXR_STORAGE_TILED ? data.min.x + x * 16 : data.min.x;
    y = form->storage == EXR_STORAGE_TILED ? data.min.y + y * 12 : y;
    for (int c = 0; c < encode.channel_count; c++) {
        exr_coding_channel_info_t *channel = &encode.channels[c];
        int bytes = channel->bytes_per_element;

        channel->encode_from_ptr = at;
        channel->user_pixel_stride = bytes;
        channel->user_line_stride = bytes * chunk.width;
        for (int k = 0; k < chunk.width * chunk.height; k++, at += bytes) {
            int64_t px = x + k % chunk.width, py = y + k / chunk.width;
            uint32_t value = sample(tile, c + part * 8, px, py, exr_inside(tile, px, py));

            memcpy(at, &value, (size_t)bytes); /* little-endian, as is all that runs this */
        }
    }
    DONE(exr_encoding_choose_default_routines(file, part, &encode));
    DONE(exr_encoding_run(file, part, &encode));
    DONE(exr_encoding_destroy(file, &encode));
    free(planes);
}

static void put_exr(int tile, const struct exr_form *form)
{
    exr_attr_box2i_t data = exr_window(tile, form);
    exr_context_t file;
    int32_t lines = 12;

    DONE(exr_start_write(&file, names[tile], EXR_WRITE_FILE_DIRECTLY, NULL));
    for (int part = 0; part < form->parts; part++)
        exr_part(file, tile, part, form);
    DONE(exr_write_header(file));
    for (int part = 0; part < form->parts; part++) {
        int rows, columns = (data.max.x - data.min.x) / 16 + 1;

        if (form->storage == EXR_STORAGE_SCANLINE) {
            DONE(exr_get_scanlines_per_chunk(file, part, &lines));
            columns = 1;
        }
        rows = (data.max.y - data.min.y) / lines + 1;
        for (int i = 0; i < rows * columns; i++) {
            int row = i / columns; /* the library writes no other order, whatever it is called */

            exr_chunk(file, tile, part, form, i % columns,
                      form->storage == EXR_STORAGE_TILED ? row : data.min.y + row * lines);
        }
    }
    DONE(exr_finish(&file));
}

/* Against what was computed; tests/e2e/tiles.py reads with a reader of its own. */
static void same_part(exr_context_t file, int part, const struct exr_form *form)
{
    exr_attr_box2i_t data, wanted = exr_window(WHOLE, form);
    const char *owner;
    exr_lineorder_t order;
    int32_t length, lines = 12;
    int rows, columns;

    DONE(exr_get_data_window(file, part, &data));
    DONE(exr_get_lineorder(file, part, &order));
    assert_int_equal(order, EXR_LINEORDER_INCREASING_Y);
    if (!form->alone)
        assert_memory_equal(&data, &wanted, sizeof(data));
    DONE(exr_attr_get_string(file, part, "owner", &length, &owner));
    assert_string_equal(owner, "the first");
    if (form->storage == EXR_STORAGE_SCANLINE)
        DONE(exr_get_scanlines_per_chunk(file, part, &lines));
    columns = form->storage == EXR_STORAGE_TILED ? (data.max.x - data.min.x) / 16 + 1 : 1;
    rows = (data.max.y - data.min.y) / lines + 1;
    for (int i = 0; i < rows * columns; i++) {
        int x = i % columns, row = i / columns;
        exr_decode_pipeline_t decode = EXR_DECODE_PIPELINE_INITIALIZER;
        exr_chunk_info_t chunk;
        uint8_t *planes, *at;

        if (form->storage == EXR_STORAGE_TILED)
            DONE(exr_read_tile_chunk_info(file, part, x, row, 0, 0, &chunk));
        else
            DONE(exr_read_scanline_chunk_info(file, part, data.min.y + row * lines, &chunk));
        DONE(exr_decoding_initialize(file, part, &chunk, &decode));
        at = planes = calloc((size_t)chunk.width * (size_t)chunk.height, PIXEL);
        for (int c = 0; c < decode.channel_count; c++) {
            decode.channels[c].decode_to_ptr = at;
            decode.channels[c].user_pixel_stride = decode.channels[c].bytes_per_element;
            decode.channels[c].user_line_stride =
                decode.channels[c].bytes_per_element * chunk.width;
            at += decode.channels[c].bytes_per_element * chunk.width * chunk.height;
        }
        DONE(exr_decoding_choose_default_routines(file, part, &decode));
        DONE(exr_decoding_run(file, part, &decode));
        at = planes;
        for (int c = 0; c < decode.channel_count; c++)
            for (int k = 0; k < chunk.width * chunk.height; k++) {
                int bytes = decode.channels[c].bytes_per_element;
                int64_t px = data.min.x + x * 16 + k % chunk.width,
                        py = data.min.y + row * lines + k / chunk.width;
                uint32_t value = sample(WHOLE, c + part * 8, px, py, true);

                assert_memory_equal(at, &value, (size_t)bytes);
                at += bytes;
            }
        free(planes);
        exr_decoding_destroy(file, &decode);
    }
}

static void same_exr(const struct exr_form *form)
{
    exr_context_t file;
    int parts;

    DONE(exr_start_read(&file, out, NULL));
    DONE(exr_get_count(file, &parts));
    assert_int_equal(parts, form->parts);
    for (int part = 0; part < parts; part++)
        same_part(file, part, form);
    DONE(exr_finish(&file));
}

static void put_all_exr(const struct exr_form *form)
{
    name_files("exr");
    for (int tile = 0; tile < TILES; tile++)
        put_exr(tile, form);
}

static void openexr_is_joined_in_every_channel_and_part(void **state)
{
    static const exr_compression_t compressions[] = {EXR_COMPRESSION_NONE, EXR_COMPRESSION_RLE,
                                                     EXR_COMPRESSION_ZIPS, EXR_COMPRESSION_ZIP,
                                                     EXR_COMPRESSION_PIZ};

    for (size_t i = 0; i < ARRAY_SIZE(compressions); i++)
        for (int how = 0; how < 16; how++) {
            struct exr_form form = {
                .storage = how & 1 ? EXR_STORAGE_TILED : EXR_STORAGE_SCANLINE,
                .compression = compressions[i],
                .order =
                    how & 2 && !(how & 1) ? EXR_LINEORDER_DECREASING_Y : EXR_LINEORDER_INCREASING_Y,
                .parts = how & 4 ? 2 : 1,
                .edge = how & 8 ? 7 : 0,
            };

            put_all_exr(&form);
            assert_string_equal(join(), "");
            same_exr(&form);
            form.alone = true;
            form.edge = 0;
            put_all_exr(&form);
            assert_string_equal(join(), "");
            same_exr(&form);
        }
}

/* ---- what is refused ---- */

static void refused(const char *why)
{
    const char *said = join();

    if (!strstr(said, why))
        fail_msg("said \"%s\", not \"%s\"", said, why);
}

static void tiles_that_are_missing_or_overlap_are_refused(void **state)
{
    struct assemble frame = {.out = out, .tiles = tiles, .n_tiles = TILES - 1};

    name_files("png");
    assert_int_equal(assemble(&frame), ASSEMBLE_E_NOT);
    assert_non_null(strstr(frame.why, "tiles are missing: 5 of them have"));
    tiles[1].x--;
    refused("1.png: it and another tile, at 25,0 and 0,0, overlap");
    name_files("png");
    tiles[5].x = ASSEMBLE_SIDE_MAX;
    refused("a frame has at most 65536x65536");
    name_files("jpg");
    refused("end its name in .png or .exr");
    name_files("png");
    for (int tile = 0; tile < TILES; tile++)
        put_png(tile, &(struct png_form){.type = PNG_COLOR_TYPE_RGB, .depth = 8});
    unlink(names[4]);
    refused("4.png: No such file");
    put_png(4, &(struct png_form){.type = PNG_COLOR_TYPE_RGB, .depth = 16});
    refused(
        "4.png: it has colours of type 2 with 16 bits, and other tiles have type 2 with 8 bits");
    put_exr(0, &(struct exr_form){EXR_STORAGE_SCANLINE, EXR_COMPRESSION_ZIP, .parts = 1});
    refused("0.png: ");
}

static void exr_that_are_not_alike_are_refused(void **state)
{
    const struct exr_form form = {EXR_STORAGE_SCANLINE, EXR_COMPRESSION_ZIP, .parts = 1};
    struct exr_form other = form;

    put_all_exr(&form);
    other.parts = 2;
    put_exr(3, &other);
    refused("3.exr: it has 2 parts, and the first tile has 1");
    other = form;
    other.compression = EXR_COMPRESSION_PIZ;
    put_exr(3, &other);
    refused("3.exr: its channels or compression is another");
    other = form;
    other.storage = EXR_STORAGE_TILED;
    put_exr(3, &other);
    refused("3.exr: its kind of storage is another");
    other = form;
    other.edge = 200;
    put_exr(3, &other);
    refused("3.exr: its data window is more than twice as large");
}

static exr_attr_box2i_t box(int x0, int y0, int x1, int y1)
{
    exr_attr_box2i_t box;

    box.min.x = x0;
    box.min.y = y0;
    box.max.x = x1;
    box.max.y = y1;
    return box;
}

/* The middle tile above, 26x29+26+0, with all of its rectangle and without some of it. */
static void exr_that_lack_pixels_of_their_rectangle_are_refused(void **state)
{
    const struct exr_form form = {EXR_STORAGE_SCANLINE, EXR_COMPRESSION_ZIP, .parts = 1};
    const exr_attr_box2i_t enough[] = {
        box(26, 0, 51, 28),                 /* to the pixel */
        box(26, 0, WIDTH - 1, HEIGHT - 1),  /* with its neighbours' */
        box(-9, -9, WIDTH + 8, HEIGHT + 8), /* and beyond the frame */
    };
    static const struct {
        int x0, y0, x1, y1;
        const char *said;
    } little[] = {
        {26, 0, 51, 14, "26x15+26+0"}, /* its upper half */
        {27, 0, 51, 28, "25x29+27+0"}, /* all but a column at each side */
        {26, 0, 50, 28, "25x29+26+0"},  {26, 1, 51, 28, "26x28+26+1"},
        {26, 0, 51, 27, "26x28+26+0"},  {0, 0, 25, 28, "26x29+0+0"}, /* its neighbour's */
        {-40, -9, -1, -1, "40x9-40-9"},                              /* nothing of the frame */
    };

    for (size_t i = 0; i < ARRAY_SIZE(enough); i++) {
        struct exr_form other = form;

        other.edge = i == 2 ? 9 : 0;
        put_all_exr(&other);
        other.window = &enough[i];
        put_exr(1, &other);
        assert_string_equal(join(), "");
        other.window = NULL;
        same_exr(&other);
    }
    for (size_t i = 0; i < ARRAY_SIZE(little); i++) {
        const exr_attr_box2i_t window = box(little[i].x0, little[i].y0, little[i].x1, little[i].y1);
        struct exr_form other = form;
        char why[200];

        put_all_exr(&form);
        other.window = &window;
        put_exr(1, &other);
        snprintf(why, sizeof(why),
                 "1.exr: it must have 26x29+26+0 of the frame, and its data window is %s: render "
                 "all of that region, and crop nothing",
                 little[i].said);
        refused(why);
        for (int tile = 0; tile < TILES; tile++) /* nor where all have the same */
            put_exr(tile, &other);
        refused(".exr: it must have ");
    }
}

/* At any byte: refused, or what was lost lies outside of the tile. */
static void cut_short(void)
{
    _cleanup_(bytes_deinit) struct bytes whole = {0};
    size_t n = 0, step;

    assert_int_equal(file_read(names[2], 1 << 20, &whole), 0);
    step = whole.size / 60 + 1;
    for (size_t size = 0; size < whole.size; size += size < 400 ? 9 : step) {
        assert_int_equal(truncate(names[2], (off_t)size), 0);
        n += join()[0] != '\0';
        FILE *file = fopen(names[2], "wb");
        assert_int_equal(fwrite(whole.data, 1, whole.size, file), whole.size);
        fclose(file);
    }
    assert_true(n > 44);
    assert_string_equal(join(), "");
}

static void files_that_are_cut_short_are_refused(void **state)
{
    name_files("png");
    for (int tile = 0; tile < TILES; tile++)
        put_png(tile, &(struct png_form){.type = PNG_COLOR_TYPE_RGB_ALPHA, .depth = 16});
    cut_short();
    put_all_exr(&(struct exr_form){EXR_STORAGE_SCANLINE, EXR_COMPRESSION_ZIP, .parts = 1});
    cut_short();
    put_all_exr(&(struct exr_form){EXR_STORAGE_TILED, EXR_COMPRESSION_PIZ, .parts = 2});
    cut_short();
}

/* Bytes of a header, turned: refused, or of no consequence; never more memory than a frame takes.
 */
static void headers_that_lie_are_refused(void **state)
{
    _cleanup_(bytes_deinit) struct bytes whole = {0};
    static const uint8_t turned[] = {0x7f, 0xff};

    put_all_exr(&(struct exr_form){EXR_STORAGE_TILED, EXR_COMPRESSION_ZIP, .parts = 1});
    assert_int_equal(file_read(names[1], 1 << 20, &whole), 0);
    for (size_t at = 0; at < 600; at += at < 100 ? 1 : 3)
        for (size_t i = 0; i < ARRAY_SIZE(turned); i++) {
            FILE *file = fopen(names[1], "r+b");

            fseek(file, (long)at, SEEK_SET);
            fputc(turned[i], file);
            fclose(file);
            (void)join();
            file = fopen(names[1], "r+b");
            fseek(file, (long)at, SEEK_SET);
            fputc(whole.data[at], file);
            fclose(file);
        }
    assert_string_equal(join(), "");
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_png_is_joined_sample_for_sample),
        TEST(palettes_of_their_own_become_colours),
        TEST(openexr_is_joined_in_every_channel_and_part),
        TEST(tiles_that_are_missing_or_overlap_are_refused),
        TEST(exr_that_are_not_alike_are_refused),
        TEST(exr_that_lack_pixels_of_their_rectangle_are_refused),
        TEST(files_that_are_cut_short_are_refused),
        TEST(headers_that_lie_are_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
