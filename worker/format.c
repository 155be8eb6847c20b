/* format.c - a stack searched from its newest end; a text copied piece by piece.
 *
 * A session has tens of names, so a linear search is the shortest thing that is fast enough.
 */
#include <worker/format.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>

void format_init(struct format *format)
{
    *format = (struct format){0};
}

void format_deinit(struct format *format)
{
    format_cut(format, 0);
    free(format->entries);
    format_init(format);
}

void format_cut(struct format *format, size_t mark)
{
    CHECK(mark <= format->n);
    while (format->n > mark) {
        struct format_entry *entry = &format->entries[--format->n];

        free(entry->name);
        free(entry->value);
    }
}

static int format_grow(struct format *format)
{
    size_t capacity = format->capacity ? format->capacity * 2 : 32;
    struct format_entry *entries;

    if (format->n < format->capacity)
        return 0;
    if (capacity > FORMAT_NAMES_MAX)
        return FORMAT_E_LIMIT;
    entries = reallocarray(format->entries, capacity, sizeof(*entries));
    if (!entries)
        return -ENOMEM;

    format->entries = entries;
    format->capacity = capacity;
    return 0;
}

int format_set(struct format *format, const char *prefix, const char *name, const char *value)
{
    _cleanup_(freep) char *full = NULL, *copy = NULL;
    int r = format_grow(format);

    if (r)
        return r;
    if (asprintf(&full, "%s%s", prefix, name) < 0) {
        full = NULL;
        return -ENOMEM;
    }
    if (value) {
        copy = strdup(value);
        if (!copy)
            return -ENOMEM;
    }

    format->entries[format->n].name = TAKE_PTR(full);
    format->entries[format->n].value = TAKE_PTR(copy);
    format->n++;
    return 0;
}

static const char *format_find(const struct format *format, const char *name, size_t size)
{
    for (size_t i = format->n; i-- > 0;) {
        const struct format_entry *entry = &format->entries[i];

        if (strncmp(entry->name, name, size) == 0 && entry->name[size] == 0)
            return entry->value;
    }
    return NULL;
}

const char *format_get(const struct format *format, const char *name)
{
    return format_find(format, name, strlen(name));
}

/* Appends the value of the reference at `text`, just past its "{{"; *ret_end is just past "}}". */
static int format_reference(const struct format *format, const char *text, struct bytes *out,
                            const char **ret_end, char *why)
{
    const char *end = strstr(text, "}}"), *first = text, *last = end, *value;

    if (!end) {
        snprintf(why, FORMAT_WHY_BYTES, "\"{{%.60s\" is not closed by \"}}\"", text);
        return FORMAT_E_FORM;
    }
    while (first < last && *first == ' ')
        first++;
    while (last > first && last[-1] == ' ')
        last--;

    value = format_find(format, first, (size_t)(last - first));
    if (!value) {
        snprintf(why, FORMAT_WHY_BYTES, "{{%.*s}} is not a name that is known here",
                 (int)(last - first > 100 ? 100 : last - first), first);
        return FORMAT_E_UNKNOWN;
    }
    *ret_end = end + 2;
    return bytes_append(out, value, strlen(value));
}

int format_resolve(const struct format *format, const char *text, char **ret_text, char *ret_why)
{
    _cleanup_(bytes_deinit) struct bytes out = {0};
    char unused[FORMAT_WHY_BYTES], *why = ret_why ? ret_why : unused;
    int r;

    for (;;) {
        const char *open = strstr(text, "{{");
        size_t size = open ? (size_t)(open - text) : strlen(text);

        r = bytes_append(&out, text, size);
        if (!r && open)
            r = format_reference(format, open + 2, &out, &text, why);
        if (r)
            return r;
        if (out.size > FORMAT_BYTES_MAX) {
            snprintf(why, FORMAT_WHY_BYTES, "it is longer than %d bytes", FORMAT_BYTES_MAX);
            return FORMAT_E_LIMIT;
        }
        if (!open)
            break;
    }
    r = bytes_append(&out, "", 1);
    if (r)
        return r;

    *ret_text = (char *)TAKE_PTR(out.data);
    return 0;
}

void format_texts_free(char **texts)
{
    for (char **text = texts; text && *text; text++)
        free(*text);
    free(texts);
}

/* Is an entry of that name after `i`? */
static bool format_hidden(const struct format *format, size_t i)
{
    for (size_t later = i + 1; later < format->n; later++)
        if (strcmp(format->entries[later].name, format->entries[i].name) == 0)
            return true;
    return false;
}

int format_environment(const struct format *format, char ***ret_environment)
{
    _cleanup_(format_texts_freep) char **environment = calloc(format->n + 1, sizeof(char *));
    size_t n = 0;

    if (!environment)
        return -ENOMEM;
    for (size_t i = 0; i < format->n; i++) {
        const struct format_entry *entry = &format->entries[i];

        if (!entry->value || format_hidden(format, i))
            continue;
        if (asprintf(&environment[n], "%s=%s", entry->name, entry->value) < 0) {
            environment[n] = NULL;
            return -ENOMEM;
        }
        n++;
    }

    *ret_environment = TAKE_PTR(environment);
    return 0;
}
