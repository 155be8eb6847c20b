/* format.h - names with values, in scopes, and the texts that refer to them as {{Name}}.
 *
 * The idea: one stack of (name, value). The newest entry of a name wins, and leaving a scope cuts
 * the stack back to a mark. It holds the symbols of format strings and, as well, the environment
 * variables of a session, where an entry without a value hides an older one.
 *
 * Shape:   at most FORMAT_NAMES_MAX entries; a resolved text is at most FORMAT_BYTES_MAX.
 * Owns:    names and values are copied; format_get borrows until the entry is cut.
 * Errors:  -ENOMEM; FORMAT_E_*. `ret_why` (FORMAT_WHY_BYTES, may be NULL) gets the reason.
 * Source:  Open Job Description 2023-09, "Format Strings".
 */
#pragma once

#include <stddef.h>
#include <proto/base/bytes.h>

enum {
    FORMAT_E_UNKNOWN = 1, /* a name nobody set */
    FORMAT_E_FORM = 2,    /* "{{" without its "}}" */
    FORMAT_E_LIMIT = 3,
};

#define FORMAT_NAMES_MAX 4096          /* parameters, files and variables of one session */
#define FORMAT_BYTES_MAX (1024 * 1024) /* an embedded file with long paths put in */
#define FORMAT_WHY_BYTES 256

struct format_entry {
    char *name;
    char *value; /* NULL: hidden */
};

struct format {
    struct format_entry *entries;
    size_t n, capacity;
};

void format_init(struct format *format);
void format_deinit(struct format *format);
/* Sets "PREFIXname"; a NULL value hides older entries of that name. */
int format_set(struct format *format, const char *prefix, const char *name, const char *value);
const char *format_get(const struct format *format, const char *name); /* NULL: unknown or hidden */
/* Everything set after n was `mark` is forgotten. */
void format_cut(struct format *format, size_t mark);
/* *ret_text is the caller's to free. */
int format_resolve(const struct format *format, const char *text, char **ret_text, char *ret_why);
/* "NAME=VALUE" of each name's newest entry, NULL-ended, as execve takes it. */
int format_environment(const struct format *format, char ***ret_environment);
void format_texts_free(char **texts); /* NULL-ended; NULL is fine */
DEFINE_CLEANUP(char **, format_texts_free)
