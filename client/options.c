/* options.c - what render and submit are asked: every value is checked here, so that what comes
 * after never sees a bad one.
 */
#include <client/options.h>

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/err.h>
#include <proto/limits.h>

int complain_library(int result, const char *why)
{
    if (why && *why)
        complain("%s", why);
    else
        complain("%s", result < 0 ? strerror(-result) : "the request failed");

    switch (result) {
    case WESTLIGHT_E_USAGE:
    case WESTLIGHT_E_MISSING:
    case WESTLIGHT_E_UNKNOWN:
        return EXIT_USAGE;
    case WESTLIGHT_E_UNREACHABLE:
    case WESTLIGHT_E_REFUSED:
    case WESTLIGHT_E_BUSY:
        return EXIT_UNREACHABLE;
    case WESTLIGHT_E_STATE:
        return EXIT_FAILED;
    default:
        return EXIT_PARTIAL;
    }
}

bool options_number(const char *text, long min, long max, long *ret_number)
{
    char *end = NULL;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < min || number > max)
        return false;

    *ret_number = number;
    return true;
}

bool options_mebibytes(const char *text, double *ret_mib)
{
    char *end = NULL;
    double number = strtod(text, &end);
    double scale = 1;

    if (end == text || !(number > 0) || number > 1e12)
        return false;
    if (*end == 'K' || *end == 'k')
        scale = 1.0 / 1024, end++;
    else if (*end == 'M' || *end == 'm')
        end++;
    else if (*end == 'G' || *end == 'g')
        scale = 1024, end++;
    else if (*end == 'T' || *end == 't')
        scale = 1024.0 * 1024, end++;
    if (end[0] == 'i' && end[1] == 'B')
        end += 2;
    else if (end[0] == 'B')
        end++;
    if (*end)
        return false;

    *ret_mib = number * scale;
    return true;
}

int options_frames(const char *option, const char *text, struct westlight_range **ret_frames,
                   size_t *ret_n)
{
    const char *why = NULL;
    size_t at = 0;
    int r = westlight_frames(text, ret_frames, ret_n, &at, &why);

    if (r == 0)
        return 0;
    complain("%s %s: %s\n  %s\n  %*s^\n  frames look like 1-240, 1-240:2, 5,10-20 or -3--1", option,
             text, why ? why : "is no frame range", text, (int)at, "");
    return EXIT_USAGE;
}

const char *options_param(const struct options *options, const char *name, const char *otherwise)
{
    for (size_t i = options->n_params; i-- > 0;)
        if (strcmp(options->params[i].name, name) == 0)
            return options->params[i].value;
    return otherwise;
}

static int pair_push(const char *name, size_t size, const char *value, struct option_pair **pairs,
                     size_t *n)
{
    struct option_pair *grown = realloc(*pairs, (*n + 1) * sizeof(**pairs));

    if (!grown)
        abort();
    *pairs = grown;
    grown[*n].name = strndup(name, size);
    grown[*n].value = value;
    (*n)++;
    return 0;
}

static int pair_add(const char *option, const char *text, struct option_pair **pairs, size_t *n)
{
    const char *equals = strchr(text, '=');

    if (equals && equals > text)
        return pair_push(text, (size_t)(equals - text), equals + 1, pairs, n);
    complain("%s %s: it has no name and value: write %s NAME=VALUE", option, text, option);
    return EXIT_USAGE;
}

static int text_add(const char *text, const char ***texts, size_t *n)
{
    const char **grown = realloc(*texts, (*n + 1) * sizeof(**texts));

    if (!grown)
        abort();
    *texts = grown;
    grown[(*n)++] = text;
    return 0;
}

static int narrow_add(struct options *options, const char *text)
{
    if (strchr(text, '#'))
        return text_add(text, &options->narrow, &options->n_narrow);
    complain("--narrow %s: it has no frame number: write # for its digits, such as "
             "cache/smoke_####.vdb",
             text);
    return EXIT_USAGE;
}

static int size_parse(const char *text, struct options *options)
{
    char *end = NULL;
    long width = strtol(text, &end, 10), height = 0;

    if (end != text && (*end == 'x' || *end == 'X'))
        height = strtol(end + 1, &end, 10);
    if (!*end && width >= 1 && height >= 1 && (width > 65536 || height > 65536)) {
        complain("--size %s: it is too large: at most 65536x65536", text);
        return EXIT_USAGE;
    }
    if (*end || width < 1 || height < 1) {
        complain("--size %s: it is no size: write WIDTHxHEIGHT, such as 1920x1080", text);
        return EXIT_USAGE;
    }

    options->width = (unsigned)width;
    options->height = (unsigned)height;
    return 0;
}

static int tiles_parse(const char *text, struct options *options)
{
    char *end = NULL;
    long columns = strtol(text, &end, 10), rows = 0;

    if (end != text && (*end == 'x' || *end == 'X'))
        rows = strtol(end + 1, &end, 10);
    if (*end || columns < 1 || rows < 1) {
        complain("--tiles %s: write COLUMNSxROWS, such as 4x4", text);
        return EXIT_USAGE;
    }
    if (columns > LIMIT_TILES || rows > LIMIT_TILES || columns * rows > LIMIT_TILES) {
        complain("--tiles %s: these are too many: at most %d a frame", text, LIMIT_TILES);
        return EXIT_USAGE;
    }

    options->columns = (unsigned)columns;
    options->rows = (unsigned)rows;
    return 0;
}

static int software_parse(const char *text, struct options *options)
{
    size_t size = strcspn(text, "=");

    if (size == 0 || size >= sizeof(options->software) || (text[size] && !text[size + 1])) {
        complain("--software %s: it names no software: write NAME=VERSION, such as blender=3.4.1, "
                 "or NAME",
                 text);
        return EXIT_USAGE;
    }
    snprintf(options->software, sizeof(options->software), "%.*s", (int)size, text);
    options->version = text[size] ? text + size + 1 : NULL;
    return 0;
}

static int count_parse(const char *option, const char *text, long max, unsigned *ret_count)
{
    long number;

    if (!options_number(text, 1, max, &number)) {
        complain("%s %s: it is no number from 1 to %ld", option, text, max);
        return EXIT_USAGE;
    }
    *ret_count = (unsigned)number;
    return 0;
}

int options_priority(const char *text, int32_t *ret_priority)
{
    long number;

    if (!options_number(text, -1000000, 1000000, &number)) {
        complain("--priority %s: it is no number from -1000000 to 1000000", text);
        return EXIT_USAGE;
    }
    *ret_priority = (int32_t)number;
    return 0;
}

int options_max_workers(const char *text, uint32_t *ret_max_workers)
{
    long number;

    if (!options_number(text, 0, 1000000, &number)) {
        complain("--max-workers %s: it is no number from 0 (no limit) to 1000000", text);
        return EXIT_USAGE;
    }
    *ret_max_workers = (uint32_t)number;
    return 0;
}

/* What is taken as it is. */
struct plain {
    int option;
    size_t at; /* in struct options */
};
static const struct plain texts[] = {
    {'o', offsetof(struct options, out)},      {ID_PRESET, offsetof(struct options, preset)},
    {ID_FARM, offsetof(struct options, farm)}, {ID_NAME, offsetof(struct options, name)},
    {ID_NOTE, offsetof(struct options, note)}, {ID_POOL, offsetof(struct options, pool)},
};
static const struct plain flags[] = {
    {ID_LOCAL, offsetof(struct options, local)},
    {ID_TILES_ANYWAY, offsetof(struct options, tiles_anyway)},
    {ID_JSON, offsetof(struct options, json)},
    {ID_FORCE, offsetof(struct options, force)},
    {ID_ALLOW_MISSING, offsetof(struct options, allow_missing)},
    {ID_RESUME, offsetof(struct options, resume)},
    {ID_DRY_RUN, offsetof(struct options, dry_run)},
};

static bool plain_take(struct options *options, int option, const char *value)
{
    char *base = (char *)options;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].option == option) {
            memcpy(base + texts[i].at, &value, sizeof(value));
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        if (flags[i].option == option) {
            *(bool *)(base + flags[i].at) = true;
            return true;
        }
    return false;
}

static int option_take(void *user, int option, const char *value)
{
    struct options *options = user;

    if (plain_take(options, option, value))
        return 0;
    switch (option) {
    case 'f':
        free(options->frames);
        options->frames = NULL;
        options->frames_text = value;
        return options_frames("--frames", value, &options->frames, &options->n_frames);
    case 'p':
        return pair_add("-p", value, &options->params, &options->n_params);
    case ID_SOFTWARE:
        return software_parse(value, options);
    case ID_ENV:
        return pair_add("--env", value, &options->env, &options->n_env);
    case ID_WORKERS:
        return count_parse("--workers", value, 64, &options->workers);
    case ID_SLOTS:
        return count_parse("--slots", value, 256, &options->slots);
    case ID_CHUNK:
        return count_parse("--chunk", value, 1000000, &options->chunk);
    case ID_TILES:
        return tiles_parse(value, options);
    case ID_SIZE:
        return size_parse(value, options);
    case ID_PRIORITY:
        return options_priority(value, &options->priority);
    case ID_TAG:
        return text_add(value, &options->tags, &options->n_tags);
    case ID_MAX_WORKERS:
        return options_max_workers(value, &options->max_workers);
    case ID_ASSET:
        return text_add(value, &options->assets, &options->n_assets);
    case ID_EXCLUDE:
        return text_add(value, &options->exclude, &options->n_exclude);
    case ID_NARROW:
        return narrow_add(options, value);
    case ID_DEVICE:
        return pair_push("device", strlen("device"), value, &options->params, &options->n_params);
    case ID_CLOCK_RANGE:
        return pair_push("clock", strlen("clock"), value, &options->params, &options->n_params);
    default:
        return EXIT_USAGE;
    }
}

int options_given(const struct args_command *command, int argc, char **argv, args_take *take,
                  void *user, int *ret_word)
{
    static const struct args_program program = {.name = "westlight"};
    char why[ARGS_WHY_BYTES];
    int r = args_parse(&program, command, argc, argv, take, user, why, ret_word);

    if (*why)
        complain("%s", why);
    return r;
}

int options_parse(struct options *options, const struct args_command *rows, int argc, char **argv)
{
    const char *command = argv[0];
    int word, r;

    *options = (struct options){.chunk = 1};
    r = options_given(rows, argc, argv, option_take, options, &word);
    if (r)
        return r;
    if (options->resume) {
        options->scene = word < argc ? argv[word] : NULL;
        if (argc - 1 == 1 + (options->scene != NULL))
            return 0;
        complain("%s: --resume repeats the words of the first time: write westlight %s --resume "
                 "UPLOAD and no others",
                 command, command);
        return EXIT_USAGE;
    }
    if (word == argc) {
        complain("%s: no scene was named: write westlight %s SCENE, see westlight help %s", command,
                 command, command);
        return EXIT_USAGE;
    }
    if (word + 1 < argc) {
        complain("%s: one scene at a time: %s and %s were named", command, argv[word],
                 argv[word + 1]);
        return EXIT_USAGE;
    }
    if (!options->local && (options->workers || options->slots)) {
        complain("%s: --workers and --slots shape a private farm: add --local", command);
        return EXIT_USAGE;
    }

    if (options->local && options->pool) {
        complain("%s: --pool %s: a private farm has no pools: leave one of --pool and --local out",
                 command, options->pool);
        return EXIT_USAGE;
    }

    options->scene = argv[word];
    return 0;
}

void options_deinit(struct options *options)
{
    for (size_t i = 0; i < options->n_params; i++)
        free((void *)(uintptr_t)options->params[i].name);
    for (size_t i = 0; i < options->n_env; i++)
        free((void *)(uintptr_t)options->env[i].name);
    free(options->params);
    free(options->env);
    free(options->assets);
    free(options->exclude);
    free(options->narrow);
    free(options->tags);
    free(options->frames);
    *options = (struct options){0};
}
