/* output.c - what a renderer writes, which is what a job of others makes it write. */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <worker/capture.h>
#include "fuzz.h"

static void on_progress(void *user, uint32_t permille, const char *status)
{
    uint32_t *last = user;

    CHECK(permille <= 1000 && permille >= *last);
    CHECK(strlen(status) < CAPTURE_STATUS_BYTES);
    *last = permille;
}

static void on_variable(void *user, const char *name, const char *value)
{
    (void)user;
    CHECK(name[0] && !strchr(name, '='));
    if (value)
        CHECK(strlen(value) <= CAPTURE_LINE_BYTES);
}

/* Bytes of the number's place come as one piece. */
static void try_as(const char *software, const uint8_t *data, size_t size)
{
    uint32_t last = 0;
    struct capture_config config = {.software = software,
                                    .frames = 3,
                                    .on_progress = on_progress,
                                    .on_variable = on_variable,
                                    .user = &last};
    struct bytes log = {0};
    struct capture *capture;
    struct fuzz_part part;

    CHECK(capture_new(&config, &capture) == 0);
    capture_begin(capture, true);
    while (fuzz_next(&data, &size, &part)) {
        uint8_t *copy = fuzz_copy(part.data, part.size);
        char clean[64];

        capture_feed(capture, copy, part.size);
        capture_clean((const char *)copy, part.size, clean, sizeof(clean));
        CHECK(strlen(clean) < sizeof(clean));
        free(copy);
    }
    capture_end(capture);
    CHECK(strlen(capture_findings(capture)->message) < LIMIT_MESSAGE_BYTES);
    CHECK(capture_log(capture, &log) == 0 && log.size <= LIMIT_LOG_BYTES);
    bytes_deinit(&log);
    capture_free(capture);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_as("povray", data, size);
    try_as("blender", data, size);
    return 0;
}

static void put(struct fuzz_buffer *all, const char *text)
{
    fuzz_put(all, 1, text, strlen(text));
}

void fuzz_seeds(fuzz_add *add)
{
    static struct fuzz_buffer all;

    all.size = 0;
    put(&all, "Rendering frame 2 of 3 (#2)\r\nRendered 12 of 48 pixels (25%)\r");
    put(&all, "openjd_progress: 12.5\nopenjd_status: caf\xc3\xa9\nopenjd_fail: no licence\n");
    put(&all, "openjd_env: OCIO=/x/config.ocio\nopenjd_unset_env: OCIO\n");
    put(&all, "openjd_env: \"NAME=a\\nb\\u00e9\\ud83d\\ude00\"\n");
    put(&all,
        "Fra:7 Mem:12.31M (Peak 14.02M) | Time:00:01.52 | Remaining:00:03.11 | Mem:1.00M, "
        "Peak:1.00M | Scene, ViewLayer | Rendered 3/16 Tiles, Sample 8/64\nSaved: '/x/7.png'\n");
    put(&all, "Error: Cannot read file\nFatal error in parser: Cannot parse input.\n"
              "System is out of GPU memory\n");
    add("lines", all.data, all.size);
}
