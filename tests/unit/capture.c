/* capture.c - what renderers and scripts say, read from their own words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <worker/capture.h>

static uint32_t permille;
static char status[CAPTURE_STATUS_BYTES], variables[1024];

static void on_progress(void *user, uint32_t value, const char *text)
{
    assert_true(value >= permille);
    permille = value;
    snprintf(status, sizeof(status), "%s", text);
}

static void on_variable(void *user, const char *name, const char *value)
{
    size_t n = strlen(variables);

    snprintf(variables + n, sizeof(variables) - n, "%s%s%s;", name, value ? "=" : "", value ?: "");
}

static struct capture *start(const char *software, uint64_t frames)
{
    struct capture_config config = {.software = software, .frames = frames,
                                    .on_progress = on_progress, .on_variable = on_variable};
    struct capture *capture = NULL;

    permille = 0;
    status[0] = variables[0] = 0;
    assert_int_equal(capture_new(&config, &capture), 0);
    capture_begin(capture, true);
    return capture;
}

static void feed(struct capture *capture, const char *text)
{
    capture_feed(capture, text, strlen(text));
}

static void openjd_lines_are_heard(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start(NULL, 1);

    feed(capture, "openjd_progress: 12.5\nopenjd_sta");
    assert_int_equal(permille, 125);
    feed(capture, "tus: half \x1b[1m w\xc3\xa4y \xff\nopenjd_env: A=b=c\nopenjd_env: 1A=x\n");
    assert_string_equal(status, "half  [1m w\xc3\xa4y ?");
    feed(capture, "openjd_unset_env: B\n openjd_env: INDENTED=1\nsay openjd_env: C=1\n");
    assert_string_equal(variables, "A=b=c;B;");
    feed(capture, "openjd_progress: 5\nopenjd_progress: 101\nopenjd_progress: nan\n");
    assert_int_equal(permille, 125);
    feed(capture, "openjd_fail: the cache is empty");
    assert_string_equal(capture_findings(capture)->message, "an openjd_env: line is not NAME=VALUE");
    capture_end(capture);
    assert_string_equal(capture_findings(capture)->message, "the cache is empty");
    assert_int_equal(capture_findings(capture)->class, CLASS_RENDERER);
}

static void povray_counts_pixels_and_frames(void **state)
{
    _cleanup_(capture_freep) struct capture *one = start("povray", 1), *many = NULL, *runs = NULL;

    feed(one, "==== [Rendering...] ====\nRendered 1024 of 3072 pixels (33%)\r");
    assert_int_equal(permille, 333);
    assert_string_equal(status, "Rendered 1024 of 3072 pixels (33%)");
    feed(one, "Rendered 3072 of 3072 pixels (100%)\r\n");
    assert_int_equal(permille, 1000);

    many = start("povray", 1);
    feed(many, "Rendering frame 1 of 4\n==== [Rendering...] ===\nRendered 8 of 8 pixels (100%)\r\n"
               "Rendering frame 2 of 4\n==== [Rendering...] ===\nRendered 4 of 8 pixels (50%)\r");
    assert_int_equal(permille, 375);
    assert_string_equal(status, "frame 2 of 4: Rendered 4 of 8 pixels (50%)");

    /* A chunk with gaps: one program after another. */
    runs = start("povray", 2);
    feed(runs, "==== [Rendering...] ===\nRendered 8 of 8 pixels (100%)\r\n"
               "==== [Rendering...] ===\nRendered 4 of 8 pixels (50%)\r");
    assert_int_equal(permille, 750);
}

static void blender_counts_samples_tiles_and_frames(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start("blender", 2);

    feed(capture, "Fra:3 Mem:9.35M (Peak 9.42M) | Time:00:00.00 | Scene | Sample 16/64\n");
    assert_int_equal(permille, 125);
    assert_string_equal(status, "frame 1 of 2: Sample 16/64");
    feed(capture, "Fra:3 Mem:9.35M | Time:00:00.00 | S | Rendered 1/2 Tiles, Sample 32/64\n");
    assert_int_equal(permille, 375);
    feed(capture, "Saved: '/tmp/b_0003.png'\n Time: 00:00.79 (Saving: 00:00.13)\n");
    assert_int_equal(permille, 500);
    feed(capture, "Fra:4 Mem:9.35M | Time:00:00.00 | Scene | Rendering 32 / 64 samples\n");
    assert_int_equal(permille, 750);
}

static void a_script_that_tells_is_believed_over_the_renderer(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start("povray", 1);

    feed(capture, "openjd_progress: 10\n==== [Rendering...] ==\nRendered 1 of 1 pixels (100%)\n");
    assert_int_equal(permille, 100);
}

static void reasons_are_found_in_the_output(void **state)
{
    static const struct {
        const char *text;
        enum attempt_class class;
        const char *message;
    } cases[] = {
        {"povray: cannot open the user configuration file /home/x/povray.conf: No such file or "
         "directory\nFile 'm.pov' line 2: Possible Parse Error: Cannot find file 'a.inc', even\n"
         " after trying to append file type extension.\nFatal error in parser: Cannot parse input.\n",
         CLASS_MISSING_INPUT,
         "File 'm.pov' line 2: Possible Parse Error: Cannot find file 'a.inc', even after trying to "
         "append file type extension."},
        {"Error: Cannot read file '/tmp/x.blend': No such file or directory\n", CLASS_MISSING_INPUT,
         "Error: Cannot read file '/tmp/x.blend': No such file or directory"},
        {"CUDA error: Out of memory in cuMemAlloc(&device_pointer, size)\n", CLASS_OUT_OF_MEMORY,
         "CUDA error: Out of memory in cuMemAlloc(&device_pointer, size)"},
        {"Error: something\nERROR | License for arnold is not available.\n", CLASS_LICENCE,
         "ERROR | License for arnold is not available."},
        {"This is free software under a licence.\nWarning: no such file or directory\n", CLASS_OK,
         ""},
        {"  Fatal Stream to console.........On \nCannot create render state output file.\nRender failed\n", CLASS_RENDERER,
         "Cannot create render state output file."},
        {"openjd_fail: told\nstd::bad_alloc\n", CLASS_OUT_OF_MEMORY, "told"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(capture_freep) struct capture *capture = start("povray", 1);

        feed(capture, cases[i].text);
        assert_string_equal(capture_findings(capture)->message, cases[i].message);
        assert_int_equal(capture_findings(capture)->class, cases[i].class);
        capture_begin(capture, false);
        assert_int_equal(capture_findings(capture)->class, CLASS_OK);
    }
}

static void a_missing_licence_is_known_in_every_renderers_words(void **state)
{
    static const char *const texts[] = {
        "[2024/May/1|10:00:00] error: Could not obtain a license (10). [HTTP connection timeout]",
        "error: V-Ray license server error: (-97)",
        "00:00:01   512MB ERROR   | [rlm] all licenses in use (-22)",
        "00:00:01   512MB ERROR   | could not connect to license server",
        "License error: (RLM) Communications error with license server (-17)",
        "Redshift license checkout failed",
        "R56008 {SEVERE} Unable to obtain license for PhotoRealistic-RenderMan",
        "No licenses could be found to run this application.",
        "Failed to acquire license: No available licenses for Houdini Master",
        "A license for nuke_r was not found",
        "FOUNDRY LICENSE ERROR REPORT",
        "License was not obtained",
        "Licensed number of users already reached. (-4,132)",
        "Cannot connect to license server system. (-15,570:115 \"Operation now in progress\")",
        "this application has no valid licence",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        _cleanup_(capture_freep) struct capture *capture = start(NULL, 1);

        feed(capture, "Error: the frame was not rendered\n");
        feed(capture, texts[i]);
        feed(capture, "\nError: no such file or directory\n");
        if (capture_findings(capture)->class != CLASS_LICENCE)
            fail_msg("not known: %s", texts[i]);
    }
}

static void a_line_without_end_is_cut_and_costs_no_memory(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start(NULL, 1);
    static char piece[10000];

    memset(piece, 'x', sizeof(piece));
    for (int i = 0; i < 50; i++)
        capture_feed(capture, piece, sizeof(piece));
    feed(capture, "openjd_env: A=1\nopenjd_env: B=1\n");
    assert_string_equal(variables, "B=1;");
}

static void a_short_log_is_whole(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start(NULL, 1);
    _cleanup_(bytes_deinit) struct bytes log = {0};

    feed(capture, "one\n");
    capture_begin(capture, false);
    feed(capture, "two\r");
    assert_int_equal(capture_log(capture, &log), 0);
    assert_int_equal(log.size, 8);
    assert_memory_equal(log.data, "one\ntwo\r", 8);
}

static void a_long_log_keeps_head_and_tail_and_says_the_gap(void **state)
{
    _cleanup_(capture_freep) struct capture *capture = start(NULL, 1);
    _cleanup_(bytes_deinit) struct bytes log = {0};
    unsigned long long left_out = 0;
    const uint8_t *gap;
    char line[64];
    size_t size = 0;

    for (int i = 0; i < 800000; i++) {
        int n = snprintf(line, sizeof(line), "line %011d\n", i);

        capture_feed(capture, line, (size_t)n);
        size += (size_t)n;
    }
    assert_int_equal(capture_log(capture, &log), 0);
    assert_true(log.size <= LIMIT_LOG_BYTES && log.size > LIMIT_LOG_BYTES - 8192);
    assert_memory_equal(log.data, "line 00000000000\n", 17);
    assert_memory_equal(log.data + log.size - 17, "line 00000799999\n", 17);
    gap = memmem(log.data, log.size, "\n[...", 5);
    assert_non_null(gap);
    assert_int_equal(sscanf((const char *)gap, "\n[... %llu bytes left out ...]", &left_out), 1);
    /* What is there and what is left out is all there was. */
    gap = memchr(gap + 1, '\n', 64);
    assert_non_null(gap);
    assert_memory_equal(gap + 1, "line ", 5);
    assert_int_equal(CAPTURE_HEAD_BYTES + left_out + (log.size - (size_t)(gap + 1 - log.data)), size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openjd_lines_are_heard),
        cmocka_unit_test(povray_counts_pixels_and_frames),
        cmocka_unit_test(blender_counts_samples_tiles_and_frames),
        cmocka_unit_test(a_script_that_tells_is_believed_over_the_renderer),
        cmocka_unit_test(reasons_are_found_in_the_output),
        cmocka_unit_test(a_missing_licence_is_known_in_every_renderers_words),
        cmocka_unit_test(a_line_without_end_is_cut_and_costs_no_memory),
        cmocka_unit_test(a_short_log_is_whole),
        cmocka_unit_test(a_long_log_keeps_head_and_tail_and_says_the_gap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
