/* assemble.c - see assemble.h. */
#include <worker/assemble.h>

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

int assemble_fail(struct assemble *assemble, const char *path, const char *format, ...)
{
    const char *slash = strrchr(path, '/');
    va_list list;
    int n;

    if (assemble->why[0])
        return ASSEMBLE_E_NOT;
    n = snprintf(assemble->why, sizeof(assemble->why), "%.200s: ", slash ? slash + 1 : path);
    va_start(list, format);
    vsnprintf(assemble->why + n, sizeof(assemble->why) - (size_t)n, format, list);
    va_end(list);
    return ASSEMBLE_E_NOT;
}

void assemble_progress(struct assemble *assemble, double done)
{
    int percent = (int)(done * 100);

    if (percent <= assemble->percent || !assemble->on_progress)
        return;
    assemble->percent = percent;
    assemble->on_progress(percent);
}

/* ---- which tiles ---- */

static bool overlap(const struct assemble_tile *a, const struct assemble_tile *b)
{
    return a->x < b->x + b->width && b->x < a->x + a->width && a->y < b->y + b->height &&
           b->y < a->y + a->height;
}

/* Without an overlap the frame is covered where the areas come to its own. */
static int cover(struct assemble *assemble)
{
    uint64_t area = 0;

    if (assemble->n_tiles == 0 || assemble->n_tiles > ASSEMBLE_TILES_MAX)
        return assemble_fail(assemble, assemble->out, "made of %zu tiles: it takes 1 to %d",
                             assemble->n_tiles, ASSEMBLE_TILES_MAX);
    for (size_t i = 0; i < assemble->n_tiles; i++) {
        const struct assemble_tile *tile = &assemble->tiles[i];

        if (tile->width < 1 || tile->height < 1 || tile->width > ASSEMBLE_SIDE_MAX ||
            tile->height > ASSEMBLE_SIDE_MAX || tile->x > ASSEMBLE_SIDE_MAX - tile->width ||
            tile->y > ASSEMBLE_SIDE_MAX - tile->height)
            return assemble_fail(
                assemble, tile->path, "a tile of %ux%u pixels at %u,%u: a frame has at most %dx%d",
                tile->width, tile->height, tile->x, tile->y, ASSEMBLE_SIDE_MAX, ASSEMBLE_SIDE_MAX);
        for (size_t k = 0; k < i; k++)
            if (overlap(tile, &assemble->tiles[k]))
                return assemble_fail(assemble, tile->path,
                                     "it and another tile, at %u,%u and %u,%u, overlap: each pixel "
                                     "must lie in one",
                                     tile->x, tile->y, assemble->tiles[k].x, assemble->tiles[k].y);
        if (assemble->width < tile->x + tile->width)
            assemble->width = tile->x + tile->width;
        if (assemble->height < tile->y + tile->height)
            assemble->height = tile->y + tile->height;
        area += (uint64_t)tile->width * tile->height;
    }
    if (area == (uint64_t)assemble->width * assemble->height)
        return 0;
    return assemble_fail(assemble, assemble->out,
                         "tiles are missing: %zu of them have %llu of its %llu pixels",
                         assemble->n_tiles, (unsigned long long)area,
                         (unsigned long long)assemble->width * assemble->height);
}

int assemble(struct assemble *assemble)
{
    static const struct {
        const char *ending;
        int (*make)(struct assemble *assemble);
    } formats[] = {{"png", assemble_png}, {"exr", assemble_exr}};
    const char *dot = strrchr(assemble->out, '.');
    int r = cover(assemble);

    for (size_t i = 0; r == 0 && i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (!dot || strcasecmp(dot + 1, formats[i].ending) != 0)
            continue;
        r = formats[i].make(assemble);
        if (r)
            unlink(assemble->out);
        return r;
    }
    return r ? r
             : assemble_fail(assemble, assemble->out,
                             "tiles are joined to PNG and OpenEXR: end its name in .png or .exr");
}

/* ---- the command ---- */

static bool number(const char **at, char end, uint32_t *ret_number)
{
    uint64_t value = 0;

    if (!isdigit((unsigned char)**at))
        return false;
    for (; isdigit((unsigned char)**at) && value <= ASSEMBLE_SIDE_MAX; ++*at)
        value = value * 10 + (uint64_t)(**at - '0');
    if (**at != end)
        return false;
    ++*at;
    *ret_number = (uint32_t)value;
    return true;
}

static bool tile_parse(const char *text, struct assemble_tile *ret_tile)
{
    struct assemble_tile tile = {0};

    if (!number(&text, 'x', &tile.width) || !number(&text, '+', &tile.height) ||
        !number(&text, '+', &tile.x) || !number(&text, '=', &tile.y))
        return false;
    tile.path = text;
    *ret_tile = tile;
    return true;
}

static void progress_print(int percent)
{
    printf("openjd_progress: %d\n", percent);
    fflush(stdout);
}

/* A task's message is what is said last, so the reason is said as Open Job Description has it. */
int assemble_command(int argc, char **argv)
{
    struct assemble_tile tiles[ASSEMBLE_TILES_MAX + 1];
    struct assemble frame = {
        .out = argc > 1 ? argv[1] : "", .tiles = tiles, .on_progress = progress_print};

    if (argc < 3) {
        fprintf(stderr, "westlight-worker: assemble: name the picture to make, and its tiles: "
                        "assemble OUT WIDTHxHEIGHT+X+Y=FILE...\n");
        return 2;
    }
    for (int i = 2; i < argc && frame.n_tiles <= ASSEMBLE_TILES_MAX; i++)
        if (!tile_parse(argv[i], &tiles[frame.n_tiles++])) {
            fprintf(stderr,
                    "westlight-worker: assemble: %s: write WIDTHxHEIGHT+X+Y=FILE, such as "
                    "96x64+0+32=tile.png\n",
                    argv[i]);
            return 2;
        }
    if (assemble(&frame) == 0)
        return 0;
    printf("openjd_fail: %s\n", frame.why);
    return 1;
}
