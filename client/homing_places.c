/* homing_places.c - where a result's files go: into the folder itself where the job declares one
 * output, else into a sub-folder for each, of its name.
 */
#include <client/homing.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : "root";
}

struct folders {
    const char **paths; /* distinct, as declared */
    char **names;
    size_t n;
};

static bool is_taken(const struct folders *folders, const char *name)
{
    for (size_t i = 0; i < folders->n; i++)
        if (strcmp(folders->names[i], name) == 0)
            return true;
    return false;
}

/* A second `depth` is depth-2, or what comes after it where a folder is called that itself. */
static int free_name(const struct folders *folders, const char *path, char **ret_name)
{
    _cleanup_(freep) char *name = strdup(last_part(path));

    for (unsigned number = 2; name && is_taken(folders, name); number++) {
        free(TAKE_PTR(name));
        if (asprintf(&name, "%s-%u", last_part(path), number) < 0)
            name = NULL;
    }
    *ret_name = TAKE_PTR(name);
    return *ret_name ? 0 : -ENOMEM;
}

static int add_folder(struct folders *folders, const char *path)
{
    for (size_t i = 0; i < folders->n; i++)
        if (strcmp(folders->paths[i], path) == 0)
            return 0;
    const char **paths = reallocarray(folders->paths, folders->n + 1, sizeof(*paths));
    if (paths)
        folders->paths = paths;
    char **names = paths ? reallocarray(folders->names, folders->n + 1, sizeof(*names)) : NULL;
    if (!names)
        return -ENOMEM;
    folders->names = names;
    int r = free_name(folders, path, &names[folders->n]);
    if (r == 0)
        paths[folders->n++] = path;
    return r;
}

static const char *folder_name(const struct folders *folders, const char *path)
{
    for (size_t i = 0; folders->n > 1 && i < folders->n; i++)
        if (strcmp(folders->paths[i], path) == 0)
            return folders->names[i];
    return "";
}

static int fill_places(struct homing *homing, const Wl__Recipe *recipe, struct folders *folders)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < recipe->n_steps; i++)
        for (size_t k = 0; r == 0 && k < recipe->steps[i]->n_outputs; k++)
            r = add_folder(folders, recipe->steps[i]->outputs[k]->path);
    homing->places = calloc(homing->steps->n + 1, sizeof(*homing->places));
    homing->n_places = calloc(homing->steps->n + 1, sizeof(*homing->n_places));
    if (!homing->places || !homing->n_places)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < homing->steps->n; i++) {
        const Wl__StepRecipe *step = recipe->steps[i];
        homing->places[i] = calloc(step->n_outputs + 1, sizeof(char *));
        if (!homing->places[i])
            return -ENOMEM;
        for (; homing->n_places[i] < step->n_outputs; homing->n_places[i]++) {
            char *name = strdup(folder_name(folders, step->outputs[homing->n_places[i]]->path));
            if (!name)
                return -ENOMEM;
            homing->places[i][homing->n_places[i]] = name;
        }
    }
    return r;
}

int homing_places(struct homing *homing, const Wl__Recipe *recipe)
{
    struct folders folders = {0};

    int r = fill_places(homing, recipe, &folders);
    for (size_t i = 0; i < folders.n; i++)
        free(folders.names[i]);
    free(folders.names);
    free(folders.paths);
    return r;
}
