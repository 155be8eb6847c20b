/* inspect.c - pictures cut short at every byte, black ones, ones with colours that are no numbers,
 * of the wrong size, too few of them; and a looker that dies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/bytes.h>
#include <proto/state.h>
#include <worker/inspect.h>
#include <worker/picture.h>

static char folder[64];

static int setup(void **state)
{
    strcpy(folder, "/tmp/westlight-inspect-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    return folder_remove(folder);
}

static const char *path_of(const char *name)
{
    static char path[160];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(path_of(name), "w");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static struct picture look(const char *name)
{
    struct picture picture;

    picture_look(path_of(name), &picture);
    return picture;
}

/* ---- pictures to look at ---- */

/* One pixel of it, the last, has `value`; alpha is full where there is any. */
static void put_png(const char *name, uint32_t width, uint32_t height, uint32_t format,
                    uint8_t value)
{
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = format};
    size_t pixel = PNG_IMAGE_PIXEL_SIZE(format), size = pixel * width * height;
    uint8_t *pixels = calloc(1, size);

    for (size_t i = 0; i < size; i += pixel)
        if (format & PNG_FORMAT_FLAG_ALPHA)
            pixels[i + pixel - 1] = 255;
    pixels[size - pixel] = value;
    assert_true(png_image_write_to_file(&image, path_of(name), 0, pixels, 0, NULL));
    free(pixels);
}

static void attribute(struct bytes *exr, const char *name, const char *type, const void *data,
                      uint32_t size)
{
    bytes_append(exr, name, strlen(name) + 1);
    bytes_append(exr, type, strlen(type) + 1);
    bytes_append(exr, &size, 4);
    bytes_append(exr, data, size);
}

/* Two floats wide, two lines high, not compressed: channels G and Z. */
static void make_exr(struct bytes *exr, const float green[4], float depth)
{
    static const uint8_t channels[] = {'G', 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'Z',
                                       0,   2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0};
    const int32_t window[] = {0, 0, 1, 1}, display[] = {0, 0, 3, 2};
    const float one = 1, centre[] = {0, 0};
    uint64_t at;

    bytes_append(exr, "\x76\x2f\x31\x01\x02\0\0\0", 8);
    attribute(exr, "channels", "chlist", channels, sizeof(channels));
    attribute(exr, "compression", "compression", "", 1);
    attribute(exr, "dataWindow", "box2i", window, sizeof(window));
    attribute(exr, "displayWindow", "box2i", display, sizeof(display));
    attribute(exr, "lineOrder", "lineOrder", "", 1);
    attribute(exr, "pixelAspectRatio", "float", &one, 4);
    attribute(exr, "screenWindowCenter", "v2f", centre, 8);
    attribute(exr, "screenWindowWidth", "float", &one, 4);
    bytes_append(exr, "", 1);
    at = exr->size + 16;
    for (int y = 0; y < 2; y++, at += 24)
        bytes_append(exr, &at, 8);
    for (int32_t y = 0; y < 2; y++) {
        const int32_t head[] = {y, 16};

        bytes_append(exr, head, 8);
        bytes_append(exr, green + 2 * y, 8);
        bytes_append(exr, &depth, 4);
        bytes_append(exr, &depth, 4);
    }
}

static struct picture look_exr(float last, float depth)
{
    _cleanup_(bytes_deinit) struct bytes exr = {0};
    const float green[] = {0, 0, 0, last};

    make_exr(&exr, green, depth);
    put("a.exr", exr.data, exr.size);
    return look("a.exr");
}

/* ---- one picture ---- */

static void a_black_picture_is_black_and_one_dot_makes_it_none(void **state)
{
    static const uint32_t formats[] = {PNG_FORMAT_GRAY, PNG_FORMAT_RGB, PNG_FORMAT_RGBA,
                                       PNG_FORMAT_LINEAR_RGB};

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct picture picture;

        put_png("a.png", 7, 5, formats[i], 0);
        picture = look("a.png");
        assert_string_equal(picture.broken, "");
        assert_true(picture.black);
        assert_int_equal(picture.width, 7);
        assert_int_equal(picture.height, 5);
        put_png("a.PNG", 7, 5, formats[i], 9);
        assert_false(look("a.PNG").black);
    }
    assert_true(look_exr(0, 1).black);
    assert_true(look_exr(-0.0f, 1).black);
    assert_false(look_exr(1e-30f, 0).black);
    assert_int_equal(look_exr(0, 1).width, 4); /* what was asked for, not what is stored of it */
    assert_int_equal(look_exr(0, 1).height, 3);
}

static void a_colour_that_is_no_number_is_found_and_an_infinite_depth_is_not(void **state)
{
    assert_true(look_exr(NAN, 0).nan);
    assert_true(look_exr(INFINITY, 0).nan);
    assert_true(look_exr(-INFINITY, 0).nan);
    assert_false(look_exr(3e38f, 0).nan);
    assert_false(look_exr(1, INFINITY).nan);
    assert_string_equal(look_exr(NAN, NAN).broken, "");
}

static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0, 11,   8,    0,    5,   0,
                               7,    1,    1,    0x11, 0, 0xff, 0xda, 0,    8,   1,
                               1,    0,    0,    63,   0, 0x55, 0xaa, 0xff, 0xd9};
static const uint8_t tga[] = {0, 0, 10, 0,  0, 0,    0, 0, 0, 0, 0, 0, 3,
                              0, 1, 0,  24, 0, 0x81, 1, 2, 3, 0, 4, 5, 6};
static const uint8_t tiff[] = {
    'I', 'I', 42, 0, 8, 0, 0, 0, 4, 0, 0, 1, 3,  0, 1, 0, 0, 0, 3, 0, 0,  0, /* 3 wide, 2 high */
    1,   1,   3,  0, 1, 0, 0, 0, 2, 0, 0, 0, 17, 1, 4, 0, 1, 0, 0, 0, 62, 0, 0,
    0,   23,  1,  4, 0, 1, 0, 0, 0, 6, 0, 0, 0,  0, 0, 0, 0, 1, 2, 3, 4,  5, 6};

static void a_picture_cut_short_is_broken_wherever_it_is_cut(void **state)
{
    static const char ppm[] = "P6 # made\n# by hand\n3 2\n255\n123456789012345678";
    _cleanup_(bytes_deinit) struct bytes png = {0}, exr = {0};
    const float green[] = {0, 1, 0, 1};

    put_png("a.png", 9, 4, PNG_FORMAT_RGBA, 5);
    assert_int_equal(file_read(path_of("a.png"), 1 << 20, &png), 0);
    make_exr(&exr, green, 0);
    const struct {
        const char *name;
        const void *data;
        size_t size;
        uint32_t width;
    } cases[] = {
        {"c.png", png.data, png.size, 9}, {"c.exr", exr.data, exr.size, 4},
        {"c.jpg", jpeg, sizeof(jpeg), 7}, {"c.tga", tga, sizeof(tga), 3},
        {"c.ppm", ppm, strlen(ppm), 3},   {"c.tif", tiff, sizeof(tiff), 3},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct picture picture;

        for (size_t size = 0; size < cases[i].size; size++) {
            put(cases[i].name, cases[i].data, size);
            if (!look(cases[i].name).broken[0])
                fail_msg("%s: whole with %zu of %zu bytes", cases[i].name, size, cases[i].size);
        }
        put(cases[i].name, cases[i].data, cases[i].size);
        picture = look(cases[i].name);
        if (picture.broken[0] || picture.width != cases[i].width)
            fail_msg("%s: %u wide, %s", cases[i].name, picture.width, picture.broken);
    }
}

/* Where its data window ends, on the right. */
static void *window_end(const struct bytes *exr)
{
    uint8_t *type = memmem(exr->data, exr->size, "box2i", 6);

    assert_non_null(type);
    return type + 6 + 4 + 8;
}

static void a_few_bytes_are_not_looked_at_as_a_billion_samples(void **state)
{
    _cleanup_(bytes_deinit) struct bytes exr = {0};
    const float green[] = {0, 0, 0, 1};
    const int32_t end = 0x30000008;
    struct picture picture;

    make_exr(&exr, green, 0);
    memcpy(window_end(&exr), &end, sizeof(end));
    put("a.exr", exr.data, exr.size);
    picture = look("a.exr");
    assert_non_null(strstr(picture.broken, "OpenEXR"));
}

static void what_is_no_picture_is_said(void **state)
{
    put("a.png", "P6 1 1", 6);
    assert_string_equal(look("a.png").broken, "it does not begin as a .png does");
    put("a.webp", "", 0);
    assert_string_equal(look("a.webp").broken, "it is empty");
    put("b.webp", "?", 1);
    assert_string_equal(look("b.webp").broken, "");
    assert_true(picture_named("x/a.b.EXR"));
    assert_false(picture_named("x.png/a"));
    assert_false(picture_named("png"));
}

/* ---- a result ---- */

static struct bytes notes;

static int inspect(const Wl__Expect *expect, uint64_t frames, const char *program,
                   char message[LIMIT_MESSAGE_BYTES])
{
    const char *folders[] = {folder};
    const struct manifest_file files[] = {
        {.path = "a.png"}, {.path = "b.png"}, {.path = "notes.txt"}};

    notes.size = 0;
    return inspect_result(&(struct inspect_config){.expect = expect,
                                                   .frames = frames,
                                                   .folders = folders,
                                                   .files = files,
                                                   .n_files = 3,
                                                   .program = program,
                                                   .log = &notes},
                          message);
}

static void warnings_count_and_failures_do_not(void **state)
{
    static const struct {
        uint32_t check, width, per_frame;
        uint64_t frames;
        int result;
        const char *message;
    } cases[] = {
        {CHECK_WARN, 0, 0, 9, 0, "a.png is all black"},
        {CHECK_FAIL, 0, 0, 9, INSPECT_E_BAD, "a.png is all black; -p check=off"},
        {CHECK_OFF, 1, 5, 9, 0, ""},
        {CHECK_BROKEN, 7, 1, 2, 0, ""},
        {CHECK_BROKEN, 8, 1, 2, INSPECT_E_BAD, "a.png is 7x5, not 8x5"},
        {CHECK_WARN, 7, 1, 2, 0, "a.png is all black"},
        {CHECK_WARN, 8, 1, 2, INSPECT_E_BAD, "a.png is 7x5, not 8x5 as asked; -p check=off"},
        {CHECK_WARN, 7, 1, 3, INSPECT_E_BAD,
         "2 pictures for 3 frames: the renderer left some out;"},
    };

    put_png("a.png", 7, 5, PNG_FORMAT_RGB, 0);
    put_png("b.png", 7, 5, PNG_FORMAT_RGB, 1);
    put("notes.txt", "", 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Wl__Expect expect = WL__EXPECT__INIT;
        char message[LIMIT_MESSAGE_BYTES];

        expect.check = cases[i].check;
        expect.width = cases[i].width;
        expect.height = 5;
        expect.images_per_frame = cases[i].per_frame;
        assert_int_equal(inspect(&expect, cases[i].frames, NULL, message), cases[i].result);
        if (strncmp(message, cases[i].message, strlen(cases[i].message)) != 0 ||
            !message[0] != !cases[i].message[0])
            fail_msg("case %zu: %s", i, message);
        if (cases[i].message[0])
            assert_non_null(strstr((char *)notes.data, "westlight: "));
    }

    /* One of another size is a preview where enough are as asked. */
    Wl__Expect expect = WL__EXPECT__INIT;
    char message[LIMIT_MESSAGE_BYTES];

    put_png("b.png", 3, 2, PNG_FORMAT_RGB, 1);
    expect.width = 7;
    expect.height = 5;
    expect.images_per_frame = 1;
    assert_int_equal(inspect(&expect, 1, NULL, message), 0);
    assert_int_equal(inspect(&expect, 2, NULL, message), INSPECT_E_BAD);
    assert_non_null(strstr(message, "b.png is 3x2, not 7x5 as asked"));
    bytes_deinit(&notes);
    notes = (struct bytes){0};
}

/* Stands in for the worker's own program: it tells of one picture, then does what it is made to. */
static void a_looker_that_dies_condemns_the_picture_it_died_of_and_no_other(void **state)
{
    static const char dies[] = "#!/bin/sh\n"
                               "[ \"$2\" = \"${2%/a.png}\" ] && { echo 7x5 whole; exit 0; }\n"
                               "kill -SEGV $$\n";
    Wl__Expect expect = WL__EXPECT__INIT;
    char message[LIMIT_MESSAGE_BYTES], program[160];

    put_png("a.png", 7, 5, PNG_FORMAT_RGB, 1);
    put_png("b.png", 7, 5, PNG_FORMAT_RGB, 1);
    put("looker", dies, strlen(dies));
    snprintf(program, sizeof(program), "%s", path_of("looker"));
    assert_int_equal(chmod(program, 0700), 0);
    assert_int_equal(inspect(&expect, 2, program, message), INSPECT_E_BAD);
    assert_string_equal(message, "a.png is broken: whoever looks at it dies of it; "
                                 "-p check=off takes pictures as they are");
    assert_null(strstr((char *)notes.data, "b.png"));
    assert_int_equal(inspect(&expect, 2, "/nonexistent/looker", message), -ENOENT);
    bytes_deinit(&notes);
    notes = (struct bytes){0};
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_black_picture_is_black_and_one_dot_makes_it_none),
        TEST(a_colour_that_is_no_number_is_found_and_an_infinite_depth_is_not),
        TEST(a_picture_cut_short_is_broken_wherever_it_is_cut),
        TEST(a_few_bytes_are_not_looked_at_as_a_billion_samples),
        TEST(what_is_no_picture_is_said),
        TEST(warnings_count_and_failures_do_not),
        TEST(a_looker_that_dies_condemns_the_picture_it_died_of_and_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
