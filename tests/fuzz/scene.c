/* scene.c - a scene that an artist was sent: as text, for the files it names; the head of a .blend;
 * and what Blender says of one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/options.h>
#include <client/scan.h>
#include <client/version.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include "fuzz.h"

enum { POVRAY = 1, BLEND, SAID };

static const char *folder;
static char scene_path[80], blend_path[80];

int __real_inputs_path(struct inputs *inputs, const char *path, const char *what);
int __wrap_inputs_path(struct inputs *inputs, const char *path, const char *what);

/* Nothing beyond the folder is walked. */
int __wrap_inputs_path(struct inputs *inputs, const char *path, const char *what)
{
    if (strncmp(path, folder, strlen(folder)) != 0 || strstr(path, ".."))
        return 0;
    return __real_inputs_path(inputs, path, what);
}

/* What would be said on the terminal is only made. */
void complain(const char *format, ...)
{
    char text[4096];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
}

static void write_text(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "we");

    CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void folder_begin(void)
{
    char path[96];

    folder = fuzz_folder();
    snprintf(scene_path, sizeof(scene_path), "%s/scene.pov", folder);
    snprintf(blend_path, sizeof(blend_path), "%s/scene.blend", folder);
    snprintf(path, sizeof(path), "%s/a.inc", folder);
    write_text(path, "#include \"a.inc\" #include \"b\"", 29);
    snprintf(path, sizeof(path), "%s/b.png", folder);
    write_text(path, "x", 1);
}

static void try_povray(const uint8_t *data, size_t size)
{
    const char *const libraries[] = {folder, NULL};
    struct inputs_list inexact = {0};
    struct inputs inputs = {0};

    write_text(scene_path, data, size);
    (void)scan_povray(scene_path, folder, libraries, &inputs, &inexact);
    inputs_list_deinit(&inexact);
    inputs_deinit(&inputs);
}

static void try_blend(const uint8_t *data, size_t size)
{
    char version[32];

    write_text(blend_path, data, size);
    version_of_blend(blend_path, version);
    CHECK(strlen(version) < sizeof(version));
}

static void try_said(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct scan_blender scan;
    struct inputs inputs = {0};

    if (scan_blender_read(text, &inputs, &scan) == 0)
        inputs_list_deinit(&scan.inexact);
    inputs_deinit(&inputs);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    if (!folder)
        folder_begin();
    while (fuzz_next(&data, &size, &part))
        (part.number == POVRAY  ? try_povray
         : part.number == BLEND ? try_blend
                                : try_said)(part.data ? part.data : (const uint8_t *)"", part.size);
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    static const char text[] =
        "#version 3.7; // a comment\n/* another /* in it */ */\n#include \"a.inc\"\n# include "
        "\"x.inc\"\n"
        "#if (1) #declare T = texture { pigment { image_map { png \"b.png\" } } } #end\n"
        "text { ttf \"cyrvetic\" \"a \\\" quote\" 1, 0 } global_settings { radiosity { } } "
        "jitter\n";
    static const char said[] = "Blender 3.4\n\nwestlight-scan {\"files\": [[\"/x/b.png\", \"image "
                               "\\\"b\\\"\"]], \"first\": 1, "
                               "\"last\": 24, \"step\": 1, \"saved\": \"3.4\", \"denoises\": true, "
                               "\"width\": 1920, \"height\": "
                               "1080, \"format\": \"PNG\", \"codec\": \"ZIP\", \"inexact\": "
                               "[[\"denoise\", \"it denoises\"], "
                               "[\"use_stamp\", \"a stamp\"]], \"movie\": \"\"}\n";
    static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x0d, 0x69, 0,   0,   'B', 'L',
                                   'E',  'N',  'D',  'E',  'R',  '-',  'v',  '3', '0', '4', 'R'};
    static struct fuzz_buffer all;

    all.size = 0;
    fuzz_put(&all, POVRAY, text, sizeof(text) - 1);
    fuzz_put(&all, BLEND, "BLENDER-v304RENDH", 17);
    fuzz_put(&all, BLEND, "BLENDER17-01v0500", 17);
    fuzz_put(&all, BLEND, zstd, sizeof(zstd));
    fuzz_put(&all, SAID, said, sizeof(said) - 1);
    add("all", all.data, all.size);
}
