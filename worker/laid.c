/* laid.c - see laid.h. */
#include <worker/laid.h>

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/limits.h>
#include <proto/space.h>
#include <proto/wire.h>

struct left {
    struct laid_by by;
    char path[];
};

static int compare(const void *a, const void *b)
{
    const struct left *x = a, *y = b;

    return strcmp(x->path, y->path);
}

void laid_deinit(struct laid *laid)
{
    tdestroy(laid->root, free);
    laid->root = NULL;
}

int laid_note(struct laid *laid, const char *folder, const char *path, struct laid_by by,
              const struct laid_by **ret_before)
{
    size_t size = strlen(folder) + strlen(path) + 2;
    _cleanup_(freep) struct left *entry = malloc(sizeof(*entry) + size);
    struct left **found;

    if (!entry)
        return -ENOMEM;
    entry->by = by;
    snprintf(entry->path, size, "%s/%s", folder, path);
    found = tsearch(entry, &laid->root, compare);
    if (!found)
        return -ENOMEM;
    *ret_before = NULL;
    if (*found == entry)
        TAKE_PTR(entry);
    else if ((*found)->by.step != by.step || (*found)->by.task != by.task)
        *ret_before = &(*found)->by;
    return 0;
}

static void frame_name(const struct space *space, struct laid_by by, const char *step,
                       char *ret_name, size_t size)
{
    const char *name = space_frame_name(space);
    struct point point;
    char value[128];

    if (!name || space_point(space, by.task, &point) != 0)
        return;
    for (size_t i = 0; i < point.n_values; i++)
        if (strcmp(point.values[i].name, name) == 0) {
            space_value_text(space, &point.values[i], value, sizeof(value));
            snprintf(ret_name, size, "%s %s of %s",
                     point.values[i].value_count > 1 ? "frames" : "frame", value, step);
        }
}

void laid_name(const Wl__Recipe *recipe, struct laid_by by, char *ret_name, size_t size)
{
    const Wl__StepRecipe *step = recipe->steps[by.step];
    struct space space;

    snprintf(ret_name, size, "task %llu of %s", (unsigned long long)by.task, step->name);
    space_init(&space);
    if (wire_space(step->space, step->n_space, &space) == 0) {
        if (space_size(&space) == 1)
            snprintf(ret_name, size, "%s", step->name);
        frame_name(&space, by, step->name, ret_name, size);
    }
    space_deinit(&space);
}
