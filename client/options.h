/* options.h - what render and submit are asked, read once and checked before anything is made.
 *
 * Owns:    struct options owns its lists; strings borrow from argv. options_deinit.
 * Errors:  EXIT_USAGE, after the message was printed.
 */
#pragma once

#include <client/westlight.h>
#include <proto/base/args.h>

/* Every option of every command; a letter is its own number. */
enum {
    ID_LOCAL = 256,
    ID_WORKERS,
    ID_SLOTS,
    ID_CHUNK,
    ID_TILES,
    ID_TILES_ANYWAY,
    ID_TILE,
    ID_SIZE,
    ID_PRESET,
    ID_SOFTWARE,
    ID_ENV,
    ID_FARM,
    ID_JSON,
    ID_NAME,
    ID_NOTE,
    ID_TAG,
    ID_PRIORITY,
    ID_POOL,
    ID_MAX_WORKERS,
    ID_FORCE,
    ID_ASSET,
    ID_EXCLUDE,
    ID_NARROW,
    ID_ALLOW_MISSING,
    ID_DRY_RUN,
    ID_RESUME,
    ID_CLOCK_RANGE,
    ID_DEVICE,
    ID_FOLLOW,
    ID_ALL,
    ID_ARCHIVED,
    ID_ATTEMPT,
    ID_STEP,
    ID_UNDO,
    ID_DELIVER,
    ID_KEY,
    ID_SECRET,
};

/* Exit codes, as the README promises them. */
enum {
    EXIT_ALL_HOME = 0,
    EXIT_FAILED = 1, /* some frames failed */
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3, /* or refused */
    EXIT_PARTIAL = 4,     /* not everything is home */
};

struct option_pair {
    const char *name, *value;
}; /* name is a copy, value borrows */

struct options {
    const char *scene;
    const char *frames_text;
    struct westlight_range *frames;
    size_t n_frames;
    const char *out;
    bool local;
    unsigned workers, slots;
    unsigned chunk;
    unsigned width, height;
    unsigned columns, rows; /* of --tiles; 0: none */
    bool tiles_anyway;
    const char *preset;
    struct option_pair *params;
    size_t n_params;
    char software[256];  /* --software NAME=VERSION: the name, "" */
    const char *version; /* and the version asked for; NULL */
    struct option_pair *env;
    size_t n_env;
    const char *farm, *name, *note, *pool;
    const char **tags;
    size_t n_tags;
    int32_t priority;
    uint32_t max_workers;
    bool json, force, allow_missing, dry_run;
    bool resume; /* `scene` is then an upload, or NULL; and nothing else is given */
    const char **assets, **exclude, **narrow;
    size_t n_assets, n_exclude, n_narrow;
};

/* argv[0] is the command's name. Prints what is wrong, pointing at it. */
int options_parse(struct options *options, const struct args_command *rows, int argc, char **argv);
/* Gives `take` each option in turn until one is refused; complains of those that are not there. */
int options_given(const struct args_command *command, int argc, char **argv, args_take *take,
                 void *user, int *ret_word);
void options_deinit(struct options *options);
/* The value of -p NAME, or `otherwise`. */
const char *options_param(const struct options *options, const char *name, const char *otherwise);
/* "64G", "512M", "2048" (MiB) to MiB; false where it is no amount. */
bool options_mebibytes(const char *text, double *ret_mib);
bool options_number(const char *text, long min, long max, long *ret_number);
/* The values of --priority and --max-workers; EXIT_USAGE after a message. */
int options_priority(const char *text, int32_t *ret_priority);
int options_max_workers(const char *text, uint32_t *ret_max_workers);
/* Reads frames; on an error prints the text with a caret below the character. */
int options_frames(const char *option, const char *text, struct westlight_range **ret_frames,
                   size_t *ret_n);
/* One line on standard error: "westlight: " and the text; never a word about who is to blame. */
void complain(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));
/* The exit code for an answer of the library, after complaining with its reason. */
int complain_library(int result, const char *why);
