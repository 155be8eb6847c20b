/* inputs.c - see inputs.h. */
#include <client/inputs.h>

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <client/options.h>
#include <proto/manifest.h>

#define LOOSE_ROOTS_MAX 32 /* folders for single files; half of what a job may have */
#define KEY_BYTES_MAX   4096

static void *need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

void inputs_list_add(struct inputs_list *list, const char *text)
{
    if (list->n == list->capacity) {
        list->capacity = list->n ? list->n * 2 : 16;
        list->texts = need(reallocarray(list->texts, list->capacity, sizeof(*list->texts)));
    }
    list->texts[list->n++] = need(strdup(text));
}

void inputs_list_deinit(struct inputs_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->texts[i]);
    free(list->texts);
    *list = (struct inputs_list){0};
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_sort(struct inputs_list *list)
{
    size_t kept = 0;

    if (list->n)
        qsort(list->texts, list->n, sizeof(*list->texts), by_text);
    for (size_t i = 0; i < list->n; i++) {
        if (kept && strcmp(list->texts[i], list->texts[kept - 1]) == 0)
            free(list->texts[i]);
        else
            list->texts[kept++] = list->texts[i];
    }
    list->n = kept;
}

void inputs_deinit(struct inputs *inputs)
{
    for (size_t i = 0; i < inputs->n_roots; i++) {
        free(inputs->roots[i].folder);
        inputs_list_deinit(&inputs->roots[i].files);
    }
    free(inputs->roots);
    free(inputs->out);
    inputs_list_deinit(&inputs->loose);
    inputs_list_deinit(&inputs->missing);
    inputs_list_deinit(&inputs->left_out);
    *inputs = (struct inputs){0};
}

static void say(struct inputs_list *list, const char *path, const char *why)
{
    char text[PATH_MAX + 256];

    snprintf(text, sizeof(text), "%s: %s", path, why);
    inputs_list_add(list, text);
}

void inputs_missing(struct inputs *inputs, const char *path, const char *what)
{
    say(&inputs->missing, path, what);
}

/* ---- what never travels ---- */

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* A pattern without '/' is of names, at any depth; one with it is of paths below the root. */
static bool excluded(const struct inputs *inputs, const char *path)
{
    for (size_t i = 0; i < inputs->n_exclude; i++) {
        const char *pattern = inputs->exclude[i];
        bool of_paths = strchr(pattern, '/') != NULL;

        if (fnmatch(pattern, of_paths ? path : base_of(path), of_paths ? FNM_LEADING_DIR : 0) == 0)
            return true;
    }
    return false;
}

/* Blender's backups: scene.blend1 and on. */
static bool is_backup(const char *name)
{
    const char *at = strstr(name, ".blend"), *digits = at ? at + strlen(".blend") : "";

    return *digits && digits[strspn(digits, "0123456789")] == '\0';
}

/* SCENE-frames beside SCENE: where `render` puts frames by default. */
static bool is_frames_folder(const char *absolute)
{
    static const char ending[] = "-frames";
    static const char *const scenes[] = {".blend", ".pov", ".ini"};
    size_t size = strlen(absolute);
    char scene[PATH_MAX];

    if (size <= strlen(ending) || strcmp(absolute + size - strlen(ending), ending) != 0)
        return false;
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        snprintf(scene, sizeof(scene), "%.*s%s", (int)(size - strlen(ending)), absolute, scenes[i]);
        if (access(scene, F_OK) == 0)
            return true;
    }
    return false;
}

/* A key pair says so; a studio's secret is 64 hexadecimal digits and nothing else. */
static bool is_key(const char *absolute)
{
    _cleanup_(bytes_wipe_deinit) struct bytes text = {0};
    struct stat status;
    size_t digits = 0;

    if (stat(absolute, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size < 64 ||
        status.st_size > KEY_BYTES_MAX || file_read(absolute, KEY_BYTES_MAX, &text) < 0)
        return false;
    if (text.size >= 13 && memcmp(text.data, "westlight key", 13) == 0)
        return true;
    while (digits < text.size && isxdigit(text.data[digits]))
        digits++;
    return digits == 64 && (text.size == 64 || (text.size == 65 && text.data[64] == '\n'));
}

struct folder_walk {
    struct inputs *inputs;
    const char *folder;
};

static bool never_travels(void *user, const char *path, bool folder)
{
    struct folder_walk *walk = user;
    struct inputs *inputs = walk->inputs;
    char absolute[PATH_MAX];

    snprintf(absolute, sizeof(absolute), "%s/%s", walk->folder[1] ? walk->folder : "", path);
    if (excluded(inputs, path))
        return true;
    if (folder)
        return (inputs->out && strcmp(absolute, inputs->out) == 0) || is_frames_folder(absolute);
    if (is_backup(base_of(path)))
        return true;
    if (!is_key(absolute))
        return false;
    say(&inputs->left_out, absolute, "it is a key, and keys do not travel");
    return true;
}

static void left_out(void *user, const char *path, const char *why)
{
    struct folder_walk *walk = user;
    char absolute[PATH_MAX];

    snprintf(absolute, sizeof(absolute), "%s/%s", walk->folder, path);
    say(&walk->inputs->left_out, absolute, why);
}

/* ---- gathering ---- */

static struct inputs_root *root_new(struct inputs *inputs, const char *folder)
{
    inputs->roots = need(reallocarray(inputs->roots, inputs->n_roots + 1, sizeof(*inputs->roots)));
    inputs->roots[inputs->n_roots] = (struct inputs_root){.folder = need(strdup(folder))};
    return &inputs->roots[inputs->n_roots++];
}

int inputs_folder(struct inputs *inputs, const char *folder)
{
    struct folder_walk walk = {.inputs = inputs, .folder = folder};
    const struct manifest_walk rules = {
        .follow = true, .skip = never_travels, .left_out = left_out, .user = &walk};
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct inputs_root *root;
    char **files = NULL;
    size_t n = 0;
    int r;

    for (size_t i = 0; i < inputs->n_roots; i++)
        if (strcmp(inputs->roots[i].folder, folder) == 0)
            return 0;
    r = manifest_walk(folder, &rules, &files, &n, &why);
    if (r) {
        complain("%s%s%s: make it readable, or leave it out with --exclude",
                 why.size && why.data[0] == '/' ? "" : folder,
                 why.size && why.data[0] == '/' ? "" : ": ",
                 why.size ? (const char *)why.data : strerror(r < 0 ? -r : EIO));
        return EXIT_USAGE;
    }
    root = root_new(inputs, folder);
    root->files = (struct inputs_list){.texts = files, .n = n, .capacity = n};
    return 0;
}

/* What of `path` is below the folder; NULL: it is elsewhere. */
static const char *path_below(const char *folder, const char *path)
{
    size_t size = strlen(folder);

    return strncmp(folder, path, size) == 0 && path[size] == '/' ? path + size + 1 : NULL;
}

/* By its letters alone: an artist's path is kept as the scene names it, whatever it links to. */
static void path_clean(char *path)
{
    char *to = path;

    for (char *from = path; *from;) {
        size_t size = strcspn(from + 1, "/") + 1;

        if (size == 3 && from[1] == '.' && from[2] == '.')
            while (to > path && *--to != '/')
                ;
        else if (size > 1 && !(size == 2 && from[1] == '.')) {
            memmove(to, from, size);
            to += size;
        }
        from += size;
    }
    *to = '\0';
}

int inputs_path(struct inputs *inputs, const char *path, const char *what)
{
    char clean[PATH_MAX];
    struct stat status;

    if (path[0] != '/' || strlen(path) >= sizeof(clean)) {
        inputs_missing(inputs, path, what);
        return 0;
    }
    strcpy(clean, path);
    path_clean(clean);
    if (stat(clean, &status) < 0 || (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) ||
        access(clean, R_OK) < 0) {
        inputs_missing(inputs, clean, what);
        return 0;
    }
    if (S_ISREG(status.st_mode)) {
        if (is_key(clean))
            say(&inputs->left_out, clean, "it is a key, and keys do not travel");
        else
            inputs_list_add(&inputs->loose, clean);
        return 0;
    }
    for (size_t i = 0; i < inputs->n_roots; i++)
        if (path_below(inputs->roots[i].folder, clean))
            return 0; /* taken with that one */
    return inputs_folder(inputs, clean);
}

/* ---- single files to roots ---- */

/* A folder that is taken whole has its files already, unless the rules kept one away: then the
 * scene's word counts. */
static void loose_to_root(struct inputs *inputs, struct inputs_root *root)
{
    size_t kept = 0;

    for (size_t i = 0; i < inputs->loose.n; i++) {
        char *path = inputs->loose.texts[i];
        const char *rest = path_below(root->folder, path);

        if (!rest) {
            inputs->loose.texts[kept++] = path;
            continue;
        }
        inputs_list_add(&root->files, rest);
        free(path);
    }
    inputs->loose.n = kept;
    list_sort(&root->files);
}

static void parent_of(char *path)
{
    char *slash = strrchr(path, '/');

    slash[slash == path] = '\0';
}

/* Drops folders that lie in another. */
static void folders_merge(struct inputs_list *folders)
{
    size_t kept = 0;

    list_sort(folders);
    for (size_t i = 0; i < folders->n; i++) {
        bool inside = false;

        for (size_t k = 0; k < kept && !inside; k++)
            inside = path_below(folders->texts[k], folders->texts[i]) != NULL;
        if (inside)
            free(folders->texts[i]);
        else
            folders->texts[kept++] = folders->texts[i];
    }
    folders->n = kept;
}

static size_t depth(const char *path)
{
    size_t n = 0;

    for (; *path; path++)
        n += *path == '/';
    return n;
}

/* Few folders that hold all the files: the deepest gives way to its parent until they are few. */
static int folders_find(const struct inputs *inputs, struct inputs_list *folders)
{
    for (size_t i = 0; i < inputs->loose.n; i++) {
        char folder[PATH_MAX];

        snprintf(folder, sizeof(folder), "%s", inputs->loose.texts[i]);
        parent_of(folder);
        if (!folder[1]) {
            complain("%s: it lies in the root folder of the disk: move it into a folder",
                     inputs->loose.texts[i]);
            return EXIT_USAGE;
        }
        if (!folders->n || strcmp(folders->texts[folders->n - 1], folder) != 0)
            inputs_list_add(folders, folder);
    }
    folders_merge(folders);
    while (folders->n > LOOSE_ROOTS_MAX) {
        size_t deepest = 0;

        for (size_t i = 1; i < folders->n; i++)
            if (depth(folders->texts[i]) > depth(folders->texts[deepest]))
                deepest = i;
        if (depth(folders->texts[deepest]) <= 1)
            break; /* the limit on roots says no later, by name */
        parent_of(folders->texts[deepest]);
        folders_merge(folders);
    }
    return 0;
}

int inputs_close(struct inputs *inputs)
{
    struct inputs_list folders = {0};
    int r;

    list_sort(&inputs->loose);
    for (size_t i = 0; i < inputs->n_roots; i++)
        loose_to_root(inputs, &inputs->roots[i]);
    r = folders_find(inputs, &folders);
    for (size_t i = 0; r == 0 && i < folders.n; i++)
        loose_to_root(inputs, root_new(inputs, folders.texts[i]));
    inputs_list_deinit(&inputs->loose);
    inputs_list_deinit(&folders);
    list_sort(&inputs->missing);
    list_sort(&inputs->left_out);
    return r;
}

size_t inputs_add(const struct inputs *inputs, struct westlight_job *job)
{
    size_t n = 0;

    for (size_t i = 0; i < inputs->n_roots; i++)
        if (inputs->roots[i].files.n)
            n = westlight_job_root(job, inputs->roots[i].folder,
                                   (const char *const *)inputs->roots[i].files.texts,
                                   inputs->roots[i].files.n) +
                1;
    return n;
}
