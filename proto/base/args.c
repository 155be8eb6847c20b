/* args.c - see args.h. */
#include <proto/base/args.h>

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/page.h>

const struct args_command *args_find(const struct args_program *program, const char *name)
{
    for (size_t i = 0; i < program->n_commands; i++)
        if (strcmp(program->commands[i].name, name) == 0)
            return &program->commands[i];
    return NULL;
}

void args_complain(const struct args_program *program, const char *format, ...)
{
    char text[ARGS_WHY_BYTES * 2];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (program->complain)
        program->complain("%s", text);
    else
        fprintf(stderr, "%s: %s\n", program->name, text);
}

/* ---- what may have been meant ---- */

#define NEAR_BYTES_MAX 32u /* a longer word is no slip of a name here */

/* Letters changed, added, left out, or swapped with the next: rows of the usual table, three of
 * which are enough. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NEAR_BYTES_MAX + 1];
    size_t n_a = strlen(a), n_b = strlen(b);

    if (n_a > NEAR_BYTES_MAX || n_b > NEAR_BYTES_MAX)
        return NEAR_BYTES_MAX;
    for (size_t k = 0; k <= n_b; k++)
        rows[0][k] = (unsigned)k;
    for (size_t i = 1; i <= n_a; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *higher = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t k = 1; k <= n_b; k++) {
            unsigned least = above[k - 1] + (a[i - 1] != b[k - 1]);

            if (above[k] + 1 < least)
                least = above[k] + 1;
            if (row[k - 1] + 1 < least)
                least = row[k - 1] + 1;
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
                higher[k - 2] + 1 < least)
                least = higher[k - 2] + 1;
            row[k] = least;
        }
    }
    return rows[n_a % 3][n_b];
}

void args_near_try(struct args_near *near, const char *candidate)
{
    size_t size = strlen(near->word);
    unsigned far = distance(near->word, candidate), most = size < 6 ? 1 : size < 9 ? 2 : 3;

    if (size >= 3 && strncmp(near->word, candidate, size) == 0)
        far = 1; /* its beginning */
    if (size > 1 && far <= most && (!near->best || far < near->distance)) {
        near->best = candidate;
        near->distance = far;
    }
}

const char *args_near_text(const struct args_near *near, const char *dashes, char text[128])
{
    if (near->best)
        snprintf(text, 128, ": did you mean %s%s? See", dashes, near->best);
    else
        snprintf(text, 128, ": see");
    return text;
}

/* ---- options ---- */

struct reading {
    const struct args_program *program;
    const struct args_command *command;
    struct option longs[ARGS_OPTIONS_MAX + 1];
    char letters[2 * ARGS_OPTIONS_MAX + 2];
};

static void reading_init(struct reading *reading)
{
    size_t n = 0, at = 0;

    reading->letters[at++] = ':'; /* getopt says nothing itself, and tells what is missing */
    for (const struct args_option *o = reading->command->options; o && o->id; o++) {
        CHECK(n < ARGS_OPTIONS_MAX);
        reading->longs[n++] =
            (struct option){o->name, o->argument ? required_argument : no_argument, NULL, o->id};
        if (o->id < 128) {
            reading->letters[at++] = (char)o->id;
            if (o->argument)
                reading->letters[at++] = ':';
        }
    }
}

/* `what` ends in "see", or "See": where help says more stands behind it. */
_printf_(3, 4) static int refuse(const struct reading *reading, char why[ARGS_WHY_BYTES],
                                 const char *format, ...)
{
    const char *name = reading->command->name;
    char what[ARGS_WHY_BYTES / 2];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    snprintf(why, ARGS_WHY_BYTES, "%s%s%s %s help%s%s", name, *name ? ": " : "", what,
             reading->program->name, *name ? " " : "", name);
    return ARGS_USAGE;
}

static const struct args_option *by_id(const struct reading *reading, int id)
{
    for (const struct args_option *o = reading->command->options; o && o->id; o++)
        if (o->id == id)
            return o;
    return NULL;
}

static int refuse_unknown(const struct reading *reading, const char *word, char *why)
{
    const char *name = word + strspn(word, "-");
    char bare[NEAR_BYTES_MAX * 2], both[128] = "", text[128];
    const struct args_option *options = reading->command->options;
    struct args_near near = {.word = bare};
    size_t starts = 0;

    snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(name, "="), name);
    for (const struct args_option *o = options; o && o->id; o++) {
        args_near_try(&near, o->name);
        if (*bare && strncmp(o->name, bare, strlen(bare)) == 0 && strlen(both) < 90) {
            size_t at = strlen(both);

            snprintf(both + at, sizeof(both) - at, "%s--%s", starts++ ? ", " : "", o->name);
        }
    }
    if (starts > 1)
        return refuse(reading, why, "%s: it could be each of %s: write it out, or see", word, both);
    return refuse(reading, why, "%.100s: there is no such option%s", word,
                  args_near_text(&near, "--", text));
}

/* What getopt stopped at. */
static int refuse_option(const struct reading *reading, int found, char **argv, char *why)
{
    const struct args_option *option = by_id(reading, optopt);
    const char *word = argv[optind > 1 ? optind - 1 : 1];
    char letter[3] = {'-', (char)optopt, '\0'};

    if (option && found == ':')
        return refuse(reading, why, "--%s: it needs a value: write --%s %s, or see", option->name,
                      option->name, option->argument);
    if (option && !option->argument)
        return refuse(reading, why,
                      "--%s: it takes no value: leave out the = and what follows, or "
                      "see",
                      option->name);
    if (optopt > ' ' && optopt < 127)
        return refuse(reading, why, "%s: there is no such option: see", letter);
    return refuse_unknown(reading, word, why);
}

int args_parse(const struct args_program *program, const struct args_command *command, int argc,
               char **argv, args_take *take, void *user, char why[ARGS_WHY_BYTES], int *ret_word)
{
    struct reading reading = {.program = program, .command = command};
    int id, r;

    why[0] = '\0';
    reading_init(&reading);
    opterr = 0;
    optind = 0;
    while ((id = getopt_long(argc, argv, reading.letters, reading.longs, NULL)) != -1) {
        r = id == '?' || id == ':' ? refuse_option(&reading, id, argv, why)
                                   : take(user, id, optarg);
        if (r)
            return r;
    }
    *ret_word = optind;
    return 0;
}

/* ---- main ---- */

static int refuse_command(const struct args_program *program, const char *word)
{
    struct args_near near = {.word = word};
    char text[128];

    for (size_t i = 0; i < program->n_commands; i++)
        args_near_try(&near, program->commands[i].name);
    args_complain(program, "%.100s: there is no such command%s %s help", word,
                  args_near_text(&near, "", text), program->name);
    return ARGS_USAGE;
}

static bool asks(int argc, char **argv, const char *first, const char *second)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], first) == 0 || strcmp(argv[i], second) == 0)
            return true;
    return false;
}

int args_main(const struct args_program *program, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "", *topic = argc > 2 ? argv[2] : NULL;
    const struct args_command *command = *name ? args_find(program, name) : NULL;
    bool bare = *name == '-' || argc < 2; /* no command is named */

    memory_keep();
    if (strcmp(name, "help") == 0)
        return page_help(program, topic && strcmp(topic, "--help") == 0 ? NULL : topic);
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        printf("%s %s\n", program->name, WESTLIGHT_VERSION);
        return 0;
    }
    if ((!program->first && bare && argc < 2) || (bare && asks(argc, argv, "--help", "-h")))
        return page_help(program, NULL);
    if (!command && bare && program->first) {
        argv[0] = (char *)(uintptr_t)program->commands->name;
        return program->commands->run(argc, argv);
    }
    if (!command)
        return refuse_command(program, name);
    if (asks(argc - 1, argv + 1, "--help", "-h"))
        return page_help(program, name);
    return command->run(argc - 1, argv + 1);
}

/* ---- numbers ---- */

static bool scaled(const char *text, const char *units, uint64_t least, uint64_t most,
                   uint64_t *ret_number)
{
    const char *unit;
    char *end;

    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9')
        return false;
    unit = *end ? strchr(units, *end) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (end[unit != NULL] || number > UINT64_MAX >> shift)
        return false;
    number <<= shift;
    if (number < least || number > most)
        return false;
    *ret_number = number;
    return true;
}

bool args_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number)
{
    return scaled(text, "", least, most, ret_number);
}

bool args_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret_bytes)
{
    return scaled(text, "KMGT", least, most, ret_bytes);
}
