/* inspect.c - see inspect.h. */
#include <worker/inspect.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <proto/base/clock.h>
#include <proto/state.h>
#include <worker/capture.h>
#include <worker/picture.h>
#include <worker/spawn.h>

#define BATCH       64                          /* paths that one command line holds */
#define BATCH_NS    (300 * NS_PER_S)            /* 64 large pictures from a slow disk */
#define BATCH_BYTES (4ULL * 1024 * 1024 * 1024) /* OpenEXR unpacks a chunk at a time */
#define OFF_HINT    "; -p check=off takes pictures as they are"

/* ---- the process that looks ---- */

/* "96x64 black", "0x0 broken it is empty": numbers, a word, and what follows it. */
static void picture_print(const struct picture *picture, struct bytes *line)
{
    const char *word = picture->broken[0] ? "broken"
                       : picture->nan     ? "nan"
                       : picture->black   ? "black"
                                          : "whole";

    (void)bytes_printf(line, "%ux%u %s %s", picture->width, picture->height, word, picture->broken);
}

static void picture_parse(const char *line, struct picture *ret_picture)
{
    struct picture picture = {0};
    char word[16] = "";
    int at = 0;

    if (sscanf(line, "%ux%u %15s %n", &picture.width, &picture.height, word, &at) < 3)
        picture_broken(&picture, "what was found in it cannot be read");
    picture.black = strcmp(word, "black") == 0;
    picture.nan = strcmp(word, "nan") == 0;
    if (strcmp(word, "broken") == 0)
        capture_clean(line + at, strlen(line + at), picture.broken, sizeof(picture.broken));
    *ret_picture = picture;
}

int inspect_command(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        _cleanup_(bytes_deinit) struct bytes line = {0};
        struct picture picture;

        picture_look(argv[i], &picture);
        picture_print(&picture, &line);
        if (!line.data || printf("%s\n", line.data) < 0 || fflush(stdout) != 0)
            return 1;
    }
    return 0;
}

/* ---- the worker that asks it ---- */

struct inspection {
    const struct inspect_config *config;
    uint64_t pictures, warned, broken, unlike; /* unlike: of another size than was asked */
    char first[LIMIT_MESSAGE_BYTES];           /* of what is wrong, or may be */
    char first_unlike[LIMIT_MESSAGE_BYTES];
    bool bad;
};

static void on_output(void *user, const void *data, size_t size)
{
    (void)bytes_append(user, data, size);
}

/* What the process said before it ended; `ret_end` is why it did not say more. */
static int batch_run(const struct inspect_config *config, char **paths, struct bytes *output,
                     char ret_end[160])
{
    _cleanup_(spawn_group_freep) struct spawn_group *group = NULL;
    char *environment[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};
    struct spawn_config spawn = {.arguments = paths,
                                 .environment = environment,
                                 .folder = "/",
                                 .timeout_ns = BATCH_NS,
                                 .memory_bytes = BATCH_BYTES,
                                 .on_output = on_output,
                                 .user = output};
    struct spawn_result result = {0};
    int r = spawn_group_new(&group);

    if (r == 0)
        r = spawn_run(group, &spawn, &result);
    if (r == 0)
        r = bytes_append(output, "", 1);
    if (r == 0 && result.end == SPAWN_NO_COMMAND)
        r = -result.error;
    snprintf(ret_end, 160, "whoever looks at it %s",
             result.end == SPAWN_TIMEOUT  ? "does not come to an end"
             : result.end == SPAWN_MEMORY ? "needs too much memory"
                                          : "dies of it");
    return r;
}

/* Pictures 0..n-1 of paths[2..]; how many were told of in *ret_n, at least one. */
static int batch_look(const struct inspect_config *config, char **paths, size_t n,
                      struct picture *pictures, size_t *ret_n)
{
    _cleanup_(bytes_deinit) struct bytes output = {0};
    char end[160], *save = NULL, *line;
    int r;

    *ret_n = 0;
    if (!config->program) {
        for (; *ret_n < n; ++*ret_n)
            picture_look(paths[2 + *ret_n], &pictures[*ret_n]);
        return 0;
    }
    r = batch_run(config, paths, &output, end);
    if (r < 0)
        return r;
    for (line = strtok_r((char *)output.data, "\n", &save); line && *ret_n < n;
         line = strtok_r(NULL, "\n", &save))
        picture_parse(line, &pictures[(*ret_n)++]);
    if (*ret_n < n) {
        pictures[*ret_n] = (struct picture){0};
        picture_broken(&pictures[(*ret_n)++], "%s", end);
    }
    return 0;
}

/* ---- what is made of it ---- */

static void say(struct inspection *inspection, bool bad, const char *text)
{
    (void)bytes_printf(inspection->config->log, "westlight: %s%s\n", bad ? "" : "warning: ", text);
    if (bad && !inspection->bad)
        inspection->first[0] = '\0'; /* what fails goes over what warns */
    inspection->bad |= bad;
    inspection->broken += bad;
    inspection->warned += !bad;
    if (!inspection->first[0])
        snprintf(inspection->first, sizeof(inspection->first), "%s", text);
}

static void judge(struct inspection *inspection, const char *path, const struct picture *picture)
{
    const Wl__Expect *expect = inspection->config->expect;
    const char *slash = strrchr(path, '/');
    bool strict = expect->check == CHECK_FAIL;
    char name[160], text[LIMIT_MESSAGE_BYTES];

    capture_clean(slash + 1, strlen(slash + 1), name, sizeof(name));
    if (picture->broken[0]) {
        snprintf(text, sizeof(text), "%s is broken: %s", name, picture->broken);
        say(inspection, true, text);
        return;
    }
    if (picture->width && expect->width &&
        (picture->width != expect->width || picture->height != expect->height)) {
        snprintf(text, sizeof(text), "%s is %ux%u, not %ux%u as asked", name, picture->width,
                 picture->height, expect->width, expect->height);
        if (inspection->unlike++ == 0)
            strcpy(inspection->first_unlike, text);
    }
    if (expect->check == CHECK_BROKEN)
        return;
    if (picture->nan) {
        snprintf(text, sizeof(text), "%s has colours that are no numbers (NaN or infinite)", name);
        say(inspection, strict, text);
    }
    if (picture->black) {
        snprintf(text, sizeof(text), "%s is all black", name);
        say(inspection, strict, text);
    }
}

/* At most BATCH of them. */
static int look_at(struct inspection *inspection, char **paths, size_t n)
{
    struct picture pictures[BATCH];
    int r = 0;

    for (size_t done = 0; r == 0 && done < n;) {
        size_t told = 0;
        char *words[BATCH + 3] = {(char *)(uintptr_t)inspection->config->program,
                                  (char[]){"inspect"}};

        memcpy(words + 2, paths + done, (n - done) * sizeof(*words));
        r = batch_look(inspection->config, words, n - done, pictures, &told);
        for (size_t i = 0; r == 0 && i < told; i++)
            judge(inspection, paths[done + i], &pictures[i]);
        done += told;
    }
    return r;
}

/* A picture that is a file; *ret_path is the caller's. */
static int picture_path(const struct inspect_config *config, size_t i, char **ret_path)
{
    const struct manifest_file *file = &config->files[i];
    struct stat status;
    char *path;

    *ret_path = NULL;
    if (!picture_named(file->path))
        return 0;
    if (asprintf(&path, "%s/%s", config->folders[file->root], file->path) < 0)
        return -ENOMEM;
    if (lstat(path, &status) < 0 || !S_ISREG(status.st_mode))
        free(path);
    else
        *ret_path = path;
    return 0;
}

static int look_at_all(struct inspection *inspection)
{
    const struct inspect_config *config = inspection->config;
    char *paths[BATCH] = {NULL};
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < config->n_files; i++) {
        r = picture_path(config, i, &paths[n]);
        n += r == 0 && paths[n];
        if (n < BATCH && i + 1 < config->n_files)
            continue;
        if (r == 0)
            r = look_at(inspection, paths, n);
        inspection->pictures += n;
        while (n > 0)
            free(paths[--n]);
    }
    while (n > 0)
        free(paths[--n]);
    return r;
}

static void conclude(const struct inspection *inspection, char ret_message[LIMIT_MESSAGE_BYTES])
{
    uint64_t more = (inspection->bad ? inspection->broken : inspection->warned);

    ret_message[0] = '\0';
    if (more > 1)
        snprintf(ret_message, LIMIT_MESSAGE_BYTES, "%.350s (and %llu more; the log says which)%s",
                 inspection->first, (unsigned long long)more - 1, inspection->bad ? OFF_HINT : "");
    else if (more)
        snprintf(ret_message, LIMIT_MESSAGE_BYTES, "%.400s%s", inspection->first,
                 inspection->bad ? OFF_HINT : "");
}

int inspect_result(const struct inspect_config *config, char ret_message[LIMIT_MESSAGE_BYTES])
{
    struct inspection inspection = {.config = config};
    uint64_t wanted = config->frames * config->expect->images_per_frame;
    char text[LIMIT_MESSAGE_BYTES];
    int r;

    ret_message[0] = '\0';
    if (config->expect->check == CHECK_OFF)
        return 0;
    r = look_at_all(&inspection);
    if (r < 0)
        return r;
    if (inspection.pictures < wanted) {
        snprintf(text, sizeof(text), "%llu picture%s for %llu frame%s: the renderer left some out",
                 (unsigned long long)inspection.pictures, plural(inspection.pictures),
                 (unsigned long long)config->frames, plural(config->frames));
        say(&inspection, true, text);
    }
    /* Previews and the like may lie beside what was asked for. */
    if (inspection.unlike && (!wanted || inspection.pictures < wanted + inspection.unlike))
        say(&inspection, true, inspection.first_unlike);
    conclude(&inspection, ret_message);
    return inspection.bad ? INSPECT_E_BAD : 0;
}
