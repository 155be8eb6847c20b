/* recipe.c - a recipe as it was opened: a studio's, and its worker is somebody else's. Its spaces,
 * its texts with names in them, its paths, and which files its steps want.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/wire.h>
#include <worker/format.h>
#include <worker/session.h>
#include <worker/wants.h>
#include "fuzz.h"

static void resolve(const struct format *format, const char *text)
{
    char why[FORMAT_WHY_BYTES] = "", *resolved;
    int r = format_resolve(format, text, &resolved, why);

    if (r == 0)
        free(resolved);
    else
        CHECK(why[0]);
}

static void try_action(const struct format *format, const Wl__Action *action)
{
    if (!action)
        return;
    resolve(format, action->command);
    for (size_t i = 0; i < action->n_arguments; i++)
        resolve(format, action->arguments[i]);
}

/* The values of a task, as names that texts may use. */
static void set_point(struct format *format, const struct space *space, uint64_t task)
{
    struct point point;
    char text[256];

    if (space_point(space, task, &point) != 0)
        return;
    for (size_t i = 0; i < point.n_values; i++) {
        (void)space_value_text(space, &point.values[i], text, sizeof(text));
        (void)format_set(format, "Task.Param.", point.values[i].name, text);
    }
}

static void try_wants(const Wl__StepRecipe *step, const struct space *space, uint64_t task)
{
    uint64_t work = 100000;
    struct wants wants;

    if (wants_init(&wants, step, space, task) == 0)
        for (uint32_t root = 0; root < 2; root++)
            if (wants_root(&wants, root))
                (void)wants_file(&wants, root, "cache/sim_0001.vdb", &work);
    wants_deinit(&wants);
}

static void try_step(struct format *format, const Wl__StepRecipe *step)
{
    struct space space;
    size_t mark = format->n;

    if (wire_space(step->space, step->n_space, &space) != 0)
        return;
    uint64_t last = space_size(&space) - 1;

    set_point(format, &space, last);
    try_wants(step, &space, last);
    for (size_t i = 0; i < step->n_files; i++)
        resolve(format, step->files[i]->data);
    try_action(format, step->on_run);
    format_cut(format, mark);
    space_deinit(&space);
}

static void try_paths(const Wl__Recipe *recipe)
{
    struct session_map maps[LIMIT_ROOTS];
    char path[LIMIT_PATH_BYTES];

    for (size_t i = 0; i < recipe->n_roots; i++)
        maps[i] =
            (struct session_map){recipe->roots[i]->path, recipe->roots[i]->style, "/inputs/0"};
    for (size_t i = 0; i < recipe->n_parameters; i++)
        if (session_map_path(maps, recipe->n_roots, recipe->parameters[i]->value, path,
                             sizeof(path)))
            CHECK(strlen(path) < sizeof(path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct format format;
    Wl__Recipe *recipe;
    const char *why;

    if (wire_recipe_unpack(data, size, &recipe, &why) != 0) {
        CHECK(why && why[0]);
        return 0;
    }
    format_init(&format);
    for (size_t i = 0; i < recipe->n_parameters; i++)
        (void)format_set(&format, "Param.", recipe->parameters[i]->name,
                         recipe->parameters[i]->value);
    for (size_t i = 0; i < recipe->n_steps; i++)
        try_step(&format, recipe->steps[i]);
    for (size_t i = 0; i < recipe->n_environments; i++)
        try_action(&format, recipe->environments[i]->on_enter);
    try_paths(recipe);
    format_deinit(&format);
    wl__recipe__free_unpacked(recipe, NULL);
    return 0;
}

/* ---- what is valid ---- */

/* A scene of frames, as the client makes it. */
static void add_scene(fuzz_add *add)
{
    static uint8_t packed[4096];
    char *arguments[] = {(char *)"{{Param.Scene}}", (char *)"+F{{ Task.Param.Frame }}"},
         *patterns[] = {(char *)"cache/sim_####.vdb", (char *)"*.ini"};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__SpaceParameter frames = WL__SPACE_PARAMETER__INIT, *space[] = {&frames};
    Wl__Action action = WL__ACTION__INIT;
    Wl__RootUse use = WL__ROOT_USE__INIT, *uses[] = {&use};
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT, *steps[] = {&step};
    Wl__Parameter scene = WL__PARAMETER__INIT, *parameters[] = {&scene};
    Wl__Root root = WL__ROOT__INIT, *roots[] = {&root};
    Wl__Recipe recipe = WL__RECIPE__INIT;

    range.first = range.step = 1;
    range.last = 24;
    frames.name = (char *)"Frame";
    frames.chunk = 5;
    frames.ranges = ranges;
    frames.n_ranges = 1;
    action.command = (char *)"povray";
    action.arguments = arguments;
    action.n_arguments = ARRAY_SIZE(arguments);
    use.patterns = patterns;
    use.n_patterns = ARRAY_SIZE(patterns);
    step.name = (char *)"beauty";
    step.space = space;
    step.n_space = 1;
    step.on_run = &action;
    step.inputs = uses;
    step.n_inputs = 1;
    root.path = (char *)"/jobs/shot";
    scene.name = (char *)"Scene";
    scene.value = (char *)"/jobs/shot/shot.pov";
    scene.type = SPACE_PATH;
    recipe.parameters = parameters;
    recipe.roots = roots;
    recipe.steps = steps;
    recipe.n_parameters = recipe.n_roots = recipe.n_steps = 1;
    CHECK(wl__recipe__get_packed_size(&recipe) <= sizeof(packed));
    add("scene", packed, wl__recipe__pack(&recipe, packed));
}

void fuzz_seeds(fuzz_add *add)
{
    struct fuzz_buffer message;

    fuzz_message(&wl__recipe__descriptor, 0, &message);
    add("every_field", message.data, message.size);
    add_scene(add);
}
