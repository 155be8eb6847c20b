/* stage_maps.c - see stage_maps.h. */
#include <worker/stage_maps.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/manifest.h>

/* Keeps a copy of the text as long as the stage. */
static char *keep(struct stage *stage, char *text)
{
    char **strings =
        text ? reallocarray(stage->strings, stage->n_strings + 1, sizeof(*strings)) : NULL;

    if (!strings) {
        free(text);
        return NULL;
    }
    stage->strings = strings;
    strings[stage->n_strings++] = text;
    return text;
}

static int map_add(struct stage *stage, const char *from, uint32_t style, const char *to)
{
    struct session_map *maps = reallocarray(stage->maps, stage->n_maps + 1, sizeof(*maps));

    if (!maps)
        return -ENOMEM;
    stage->maps = maps;
    maps[stage->n_maps++] = (struct session_map){.from = from, .style = style, .to = to};
    return still_make(stage->still, to);
}

/* A studio's folder lies here as it lies there, below files/, so that "../textures" in a scene
 * leads from one root to another as it does at home. One whose path cannot be taken gets a name. */
static char *place(struct stage *stage, const char *from, uint32_t style)
{
    char *path = NULL, *rest;
    int head = snprintf(NULL, 0, "%s/files/", stage->folder);

    if (asprintf(&path, "%s/files/%s", stage->folder, from + strspn(from, "/")) < 0)
        return NULL;
    rest = path + head;
    for (char *c = rest; style == 1 && *c; c++)
        *c = *c == '\\' ? '/' : *c == ':' ? '_' : *c;
    for (size_t size = strlen(rest); size > 0 && rest[size - 1] == '/'; size--)
        rest[size - 1] = '\0';
    if (!manifest_path_ok(rest)) {
        free(path);
        if (asprintf(&path, "%s/root%zu", stage->folder, stage->n_maps) < 0)
            return NULL;
    }
    return keep(stage, path);
}

int stage_maps_output(struct stage *stage, const Wl__Output *output,
                      char ret_path[LIMIT_PATH_BYTES])
{
    char *own;
    int r;

    if (session_map_path(stage->maps, stage->n_maps, output->path, ret_path, LIMIT_PATH_BYTES))
        return still_make(stage->still, ret_path);
    own = place(stage, output->path, output->style);
    if (!own)
        return -ENOMEM;
    r = map_add(stage, output->path, output->style, own);
    if (r < 0)
        return r;
    snprintf(ret_path, LIMIT_PATH_BYTES, "%s", own);
    return 0;
}

static int by_length(const void *a, const void *b)
{
    size_t x = strlen((*(Wl__Output *const *)a)->path), y = strlen((*(Wl__Output *const *)b)->path);

    return (x > y) - (x < y);
}

/* Shorter paths first, so that a folder inside another lands inside it. */
static int map_outputs(struct stage *stage)
{
    const Wl__Recipe *recipe = stage->recipe;
    const Wl__StepRecipe *step = stage->step;
    _cleanup_(freep) const Wl__Output **all = NULL;
    char path[LIMIT_PATH_BYTES];
    size_t n = step->n_outputs, at = 0;
    int r = 0;

    for (size_t i = 0; i < step->n_dependencies; i++)
        n += recipe->steps[step->dependencies[i]->step]->n_outputs;
    all = calloc(n + 1, sizeof(*all));
    if (!all)
        return -ENOMEM;
    for (size_t i = 0; i < step->n_outputs; i++)
        all[at++] = step->outputs[i];
    for (size_t i = 0; i < step->n_dependencies; i++) {
        const Wl__StepRecipe *other = recipe->steps[step->dependencies[i]->step];

        for (size_t k = 0; k < other->n_outputs; k++)
            all[at++] = other->outputs[k];
    }
    qsort(all, n, sizeof(*all), by_length);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = stage_maps_output(stage, all[i], path);
    return r;
}

int stage_maps_make(struct stage *stage)
{
    const Wl__Recipe *recipe = stage->recipe;
    char path[LIMIT_PATH_BYTES];
    int r = 0;

    for (size_t i = 0; r == 0 && i < recipe->n_roots; i++) {
        char *to = place(stage, recipe->roots[i]->path, recipe->roots[i]->style);

        r = to ? map_add(stage, recipe->roots[i]->path, recipe->roots[i]->style, to) : -ENOMEM;
    }
    if (r == 0)
        r = map_outputs(stage);
    if (r < 0)
        return r;
    stage->outputs = calloc(stage->step->n_outputs + 1, sizeof(*stage->outputs));
    if (!stage->outputs)
        return -ENOMEM;
    for (; stage->n_outputs < stage->step->n_outputs; stage->n_outputs++) {
        r = stage_maps_output(stage, stage->step->outputs[stage->n_outputs], path);
        if (r < 0)
            return r;
        stage->outputs[stage->n_outputs] = strdup(path);
        if (!stage->outputs[stage->n_outputs])
            return -ENOMEM;
    }
    return 0;
}
