/* tiles.c - see tiles.h. */
#include <client/tiles.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/limits.h>
#include <proto/state.h>

#define JOIN_TIMEOUT_S 7200

static const char script[] =
    "set -eu\n"
    "out=$1 frame=$2 head=$3 digits=$4 tail=$5 ending=$6 tiles=$7 number=\n"
    "if [ \"$digits\" != 0 ]; then\n"
    "    case $frame in -*) digits=$((digits + 1)) ;; esac\n"
    "    number=$(printf \"%0${digits}d\" \"$frame\")\n"
    "fi\n"
    "set -- \"$out/$head$number$tail\"\n"
    "for tile in $(echo \"$tiles\" | tr , ' '); do\n"
    "    set -- \"$@\" \"$tile=$out/" TILES_FOLDER "/$frame/$tile.$ending\"\n"
    "done\n"
    "exec " SOFTWARE_WORKER " assemble \"$@\"\n";

/* Where the i-th of n parts begins. */
static unsigned edge(unsigned pixels, unsigned align, unsigned i, unsigned n)
{
    unsigned blocks = (pixels + align - 1) / align;
    uint64_t at = (uint64_t)blocks * i / n * align;

    return at < pixels ? (unsigned)at : pixels;
}

static int refuse(const struct options *options, const char *format, ...)
    __attribute__((__format__(__printf__, 2, 3)));
static int refuse(const struct options *options, const char *format, ...)
{
    char text[1024];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    complain("--tiles %ux%u: %s", options->columns, options->rows, text);
    return EXIT_USAGE;
}

/* What a tile would get otherwise than the whole frame does. */
static int exact_check(const struct preset_scene *scene)
{
    const struct options *options = scene->options;

    for (size_t i = 0; i < scene->inexact.n; i++)
        complain("%s: %s", options->scene, scene->inexact.texts[i]);
    if (scene->inexact.n == 0 || options->tiles_anyway)
        return 0;
    return refuse(options,
                  "the frame would not be what it is when it is rendered whole: change "
                  "that, leave --tiles out, or add --tiles-anyway where that is no matter");
}

static int plan_check(const struct preset_scene *scene, unsigned align, const char *ending,
                      unsigned width, unsigned height)
{
    const struct options *options = scene->options;
    unsigned columns = (width + align - 1) / align, rows = (height + align - 1) / align;

    if (options->chunk > 1)
        return refuse(options, "a task is a tile of one frame: leave --chunk %u out",
                      options->chunk);
    if (strcmp(ending, "png") != 0 && strcmp(ending, "exr") != 0)
        return refuse(options,
                      "tiles are joined to PNG and OpenEXR: end the frames' name in .png "
                      "or .exr, such as -o '%s-frames/%s.####.png'",
                      scene->base, scene->base);
    if (!width)
        return refuse(options, "it must be known how large the picture is: add --size");
    if (options->columns > columns || options->rows > rows)
        return refuse(options,
                      "a picture of %ux%u pixels can be cut into %ux%u tiles at most: ask for less",
                      width, height, columns < LIMIT_TILES ? columns : LIMIT_TILES,
                      rows < LIMIT_TILES ? rows : LIMIT_TILES);
    return exact_check(scene);
}

int tiles_plan(const struct preset_scene *scene, unsigned align, const char *ending,
               struct tiles *ret_tiles)
{
    const struct options *options = scene->options;
    unsigned width = options->width ? options->width : scene->width,
             height = options->width ? options->height : scene->height;
    struct tiles tiles = {.width = width, .height = height};
    char text[64];
    int r;

    *ret_tiles = tiles;
    if (!options->columns)
        return 0;
    r = plan_check(scene, align, ending, width, height);
    if (r)
        return r;
    for (unsigned row = 0; row < options->rows; row++)
        for (unsigned column = 0; column < options->columns; column++) {
            unsigned x = edge(width, align, column, options->columns),
                     y = edge(height, align, row, options->rows);

            snprintf(text, sizeof(text), "%ux%u+%u+%u",
                     edge(width, align, column + 1, options->columns) - x,
                     edge(height, align, row + 1, options->rows) - y, x, y);
            inputs_list_add(&tiles.names, text);
        }
    *ret_tiles = tiles;
    return 0;
}

void tiles_split(const struct tiles *tiles, struct westlight_step *step)
{
    westlight_step_texts(step, WESTLIGHT_TILE, WESTLIGHT_STRING,
                         (const char *const *)tiles->names.texts, tiles->names.n);
    westlight_step_interim(step);
    westlight_step_expect(step, WESTLIGHT_CHECK_BROKEN, tiles->width, tiles->height, 1);
}

/* All in one argument. */
static char *names_joined(const struct tiles *tiles)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    for (size_t i = 0; file && i < tiles->names.n; i++)
        fprintf(file, "%s%s", i ? "," : "", tiles->names.texts[i]);
    if (!file || fclose(file) != 0)
        abort();
    return text;
}

int tiles_join(const struct tiles *tiles, const struct preset_scene *scene,
               struct westlight_job *job, const struct westlight_step *step, const char *ending)
{
    /* It needs none of the scene's files: a pattern that none has. */
    static const char *const none[] = {TILES_FOLDER "/none"};
    struct westlight_step *join = westlight_job_step(job, "assemble");
    char head[PRESET_PATTERN], digits[16], tail[PRESET_PATTERN], *names;
    unsigned n_digits;
    int r = preset_expect(scene, join, 1);

    if (r)
        return r;
    preset_pattern(scene, head, &n_digits, tail);
    snprintf(digits, sizeof(digits), "%u", n_digits);
    names = names_joined(tiles);
    preset_pool(scene, join);
    preset_frames(scene, join);
    preset_software(scene, join, SOFTWARE_WORKER);
    westlight_step_input(join, 0, none, 1);
    westlight_step_depends(join, westlight_step_index(step), (uint32_t)tiles->names.n);
    westlight_step_file(join, "Assemble", "assemble.sh", false, script);
    westlight_step_output(join, scene->out);
    westlight_step_run(join, "/bin/sh",
                       (const char *const[]){"{{Task.File.Assemble}}", "{{Param.Out}}",
                                             scene->n_frames ? "{{Task.Param.Frame}}" : "-", head,
                                             digits, tail, ending, names},
                       8, JOIN_TIMEOUT_S);
    free(names);
    return 0;
}

void tiles_deinit(struct tiles *tiles)
{
    inputs_list_deinit(&tiles->names);
}
