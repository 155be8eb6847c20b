/* manifest.c - the idea: a manifest is checked once, where it is parsed, so that whoever walks it
 * afterwards holds only paths below the root and parts inside their blocks.
 */
#include <proto/manifest_paths.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/err.h>
#include <proto/block_set.h>
#include <proto/limits.h>
#include <proto/wire.h>

#define DIGITS             "0123456789"
#define WILD               "*?#"
#define MANIFEST_BYTES_MAX ((size_t)LIMIT_MANIFEST_BLOCKS * LIMIT_BLOCK_BYTES)

int manifest_say(struct bytes *why, int result, const char *format, ...)
{
    char text[LIMIT_PATH_BYTES + 256];
    va_list arguments;

    if (!why)
        return result;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    why->size = 0;
    return bytes_printf(why, "%s", text) < 0 ? -ENOMEM : result;
}

/* ---- paths ---- */

static bool part_is(const char *part, size_t size, const char *text)
{
    return size == strlen(text) && memcmp(part, text, size) == 0;
}

bool manifest_path_ok(const char *path)
{
    if (strlen(path) >= LIMIT_PATH_BYTES)
        return false;

    for (;; path++) {
        size_t size = strcspn(path, "/");

        if (size == 0 || size > NAME_MAX || part_is(path, size, ".") || part_is(path, size, ".."))
            return false;
        path += size;
        if (!*path)
            return true;
    }
}

/* A ".." behind a name could climb from wherever that name links to; at the front it climbs from
 * the link's own folder, and no folder on the way there is a link. */
bool manifest_link_ok(const char *path, const char *target)
{
    size_t depth = 0;
    bool named = false;

    if (!*target || *target == '/' || strlen(target) >= LIMIT_PATH_BYTES)
        return false;

    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/'))
        depth++;
    for (;; target++) {
        size_t size = strcspn(target, "/");

        if (size > NAME_MAX)
            return false;
        if (part_is(target, size, "..")) {
            if (named || depth-- == 0)
                return false;
        } else if (size > 0 && !part_is(target, size, ".")) {
            named = true;
        }
        target += size;
        if (!*target)
            return true;
    }
}

static int rank(char c)
{
    return c == '/' ? 1 : c ? (unsigned char)c + 1 : 0;
}

/* By value; 7 before 07, so that what is equal is the same. */
static int number_compare(const char *a, const char *b)
{
    size_t x_all = strspn(a, DIGITS), y_all = strspn(b, DIGITS);
    size_t x_zeros = strspn(a, "0"), y_zeros = strspn(b, "0");
    size_t x = x_all - x_zeros, y = y_all - y_zeros;
    int r = x == y ? memcmp(a + x_zeros, b + y_zeros, x) : (x > y) - (x < y);

    return r ? r : (x_all > y_all) - (x_all < y_all);
}

int manifest_path_compare(const char *a, const char *b)
{
    size_t same = 0, number;

    while (a[same] && a[same] == b[same])
        same++;
    for (number = same; number && isdigit((unsigned char)a[number - 1]);)
        number--;

    int r = isdigit((unsigned char)a[number]) && isdigit((unsigned char)b[number])
                ? number_compare(a + number, b + number)
                : 0;
    return r ? r : rank(a[same]) - rank(b[same]);
}

/* ---- what a manifest may hold ---- */

int manifest_entry_check(const Wl__FileEntry *entry, struct bytes *why)
{
    uint64_t size = 0;

    if (!manifest_path_ok(entry->path))
        return manifest_say(why, MANIFEST_E_PATH,
                            "%s: not a path below a folder: it is absolute, too long, or has \"..\" or "
                            "an empty part", entry->path);
    if (entry->mode & ~0777u)
        return manifest_say(why, MANIFEST_E_FORM, "%s: mode %o has more than permission bits",
                            entry->path, entry->mode);
    if (*entry->link) {
        if (entry->n_parts || entry->size)
            return manifest_say(why, MANIFEST_E_FORM, "%s: a link that has content", entry->path);
        return manifest_link_ok(entry->path, entry->link)
                   ? 0
                   : manifest_say(why, MANIFEST_E_PATH, "%s: a link out of the folder, to %s",
                                  entry->path, entry->link);
    }

    for (size_t i = 0; i < entry->n_parts; i++) {
        const Wl__Part *part = entry->parts[i];

        if (part->length == 0 || part->offset > part->block->body_bytes ||
            part->length > part->block->body_bytes - part->offset)
            return manifest_say(why, MANIFEST_E_FORM, "%s: part %zu is not inside its block",
                                entry->path, i);
        size += part->length;
    }
    if (size != entry->size)
        return manifest_say(why, MANIFEST_E_FORM, "%s: its parts hold other than its size",
                            entry->path);
    return 0;
}

static int entry_compare(const void *a, const void *b)
{
    const Wl__FileEntry *x = *(Wl__FileEntry *const *)a, *y = *(Wl__FileEntry *const *)b;

    return x->root != y->root ? (x->root < y->root ? -1 : 1)
                              : manifest_path_compare(x->path, y->path);
}

/* No path twice, and none below another file or link. In this order both show among neighbours. */
static int neighbours_check(const Wl__Manifest *manifest, struct bytes *why)
{
    size_t n = manifest->n_files;
    _cleanup_(freep) Wl__FileEntry **sorted = malloc((n + 1) * sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    if (n)
        memcpy(sorted, manifest->files, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), entry_compare);

    for (size_t i = 1; i < n; i++) {
        const char *before = sorted[i - 1]->path, *path = sorted[i]->path;
        size_t size = strlen(before);

        if (sorted[i - 1]->root != sorted[i]->root || strncmp(before, path, size) != 0)
            continue;
        if (!path[size])
            return manifest_say(why, MANIFEST_E_PATH, "%s: a path twice", path);
        if (path[size] == '/')
            return manifest_say(why, MANIFEST_E_PATH, "%s: below %s, which is a %s", path, before,
                                *sorted[i - 1]->link ? "link" : "file");
    }
    return 0;
}

static int manifest_check(const Wl__Manifest *manifest, struct bytes *why)
{
    for (size_t i = 0; i < manifest->n_files; i++) {
        int r = manifest_entry_check(manifest->files[i], why);
        if (r)
            return r;
    }
    return neighbours_check(manifest, why);
}

int manifest_parse(const void *data, size_t size, Wl__Manifest **ret_manifest, struct bytes *why)
{
    ProtobufCMessage *message;
    const char *text;
    int r;

    if (size > MANIFEST_BYTES_MAX)
        return manifest_say(why, MANIFEST_E_LIMIT, "manifest: %zu bytes, at most %zu", size,
                            MANIFEST_BYTES_MAX);

    r = wire_message_unpack(&wl__manifest__descriptor, data, size, &message, &text);
    if (r)
        return manifest_say(why, r == WIRE_E_LIMIT ? MANIFEST_E_LIMIT : MANIFEST_E_FORM, "%s", text);

    r = manifest_check((Wl__Manifest *)message, why);
    if (r) {
        protobuf_c_message_free_unpacked(message, NULL);
        return r;
    }
    *ret_manifest = (Wl__Manifest *)message;
    return 0;
}

/* ---- from blocks ---- */

int manifest_load(const struct block_key *keys, size_t n, manifest_fetch *fetch, void *user,
                  Wl__Manifest **ret_manifest, struct bytes *why)
{
    _cleanup_(bytes_deinit) struct bytes whole = {0};
    const struct bytes *block = NULL;

    if (n > LIMIT_LEAVES)
        return manifest_say(why, MANIFEST_E_LIMIT, "manifest: %zu blocks, at most %d", n,
                            LIMIT_LEAVES);

    for (size_t i = 0; i < n; i++) {
        int r = fetch(user, &keys[i], &block);
        if (r == 0 && block->size > LIMIT_BLOCK_BYTES)
            r = manifest_say(why, MANIFEST_E_LIMIT, "manifest: a block past its limit");
        if (r == 0)
            r = bytes_append(&whole, block->data, block->size);
        if (r)
            return r;
    }
    return manifest_parse(whole.data, whole.size, ret_manifest, why);
}

int manifest_blocks(const Wl__Manifest *manifest, struct block_key **ret_keys, size_t *ret_n)
{
    _cleanup_(block_set_deinit) struct block_set seen = {0};
    _cleanup_(bytes_deinit) struct bytes keys = {0};

    for (size_t i = 0; i < manifest->n_files; i++) {
        const Wl__FileEntry *entry = manifest->files[i];

        for (size_t k = 0; k < entry->n_parts; k++) {
            struct block_key key;
            int r = wire_block_key(entry->parts[k]->block, &key);
            if (r)
                return MANIFEST_E_FORM;

            r = block_set_add(&seen, &key.id);
            if (r > 0)
                r = bytes_append(&keys, &key, sizeof(key));
            if (r < 0)
                return r;
        }
    }

    int r = bytes_reserve(&keys, keys.size + 1); /* never NULL, also where there are none */
    if (r < 0)
        return r;
    *ret_n = keys.size / sizeof(struct block_key);
    *ret_keys = (struct block_key *)(void *)TAKE_PTR(keys.data);
    return 0;
}

/* ---- patterns ---- */

/* '#' runs become the frame's digits; the rest stays. Returns false where it does not fit. */
static bool pattern_expand(const char *pattern, int64_t frame, char *text, size_t size)
{
    size_t used = 0;

    for (size_t run; *pattern; pattern += run) {
        int n = 1;

        run = *pattern == '#' ? strspn(pattern, "#") : 1;
        if (*pattern == '#')
            n = snprintf(text + used, size - used, "%0*lld", (int)run, (long long)frame);
        else
            text[used] = *pattern;
        if (n < 0 || (size_t)n >= size - used)
            return false;
        used += (size_t)n;
    }
    text[used] = 0;
    return true;
}

/* What stands before a pattern's first wildcard and behind its last: it tells most files apart. */
static bool ends_fit(const char *pattern, const char *path)
{
    size_t size = strlen(pattern), room = strlen(path), head = strcspn(pattern, WILD), tail = 0;

    while (tail < size - head && !strchr(WILD, pattern[size - 1 - tail]))
        tail++;
    return head + tail <= room && memcmp(pattern, path, head) == 0 &&
           memcmp(pattern + size - tail, path + room - tail, tail) == 0;
}

static void spend(uint64_t *work, uint64_t steps)
{
    *work -= steps < *work ? steps : *work;
}

/* '*' takes folders too: leaving out an input that was meant breaks a render, one more does not. */
bool manifest_match(const char *pattern, const char *path, int64_t frame, uint64_t *work)
{
    char text[LIMIT_PATH_BYTES + 64];
    const char *at = text, *star = NULL, *resume = NULL;
    uint64_t steps = strlen(pattern) + strlen(path);

    if (*work == 0 || strlen(pattern) >= LIMIT_PATH_BYTES || !ends_fit(pattern, path) ||
        !pattern_expand(pattern, frame, text, sizeof(text))) {
        spend(work, steps);
        return false;
    }

    for (; *path; steps++) {
        if (*at == '*') {
            star = at++;
            resume = path;
        } else if (*at == '?' || *at == *path) {
            at++;
            path++;
        } else if (star) {
            at = star + 1; /* the last star takes one more; earlier ones need not */
            path = ++resume;
        } else {
            break;
        }
    }
    spend(work, steps);
    while (!*path && *at == '*')
        at++;
    return !*path && !*at;
}

bool manifest_frame_of(const char *pattern, const char *path, int64_t *ret_frame, uint64_t *work)
{
    spend(work, strlen(pattern) + strlen(path));
    if (!ends_fit(pattern, path))
        return false;
    for (const char *at = path; *at && *work > 0;) {
        char *end = (char *)at + 1;

        if (isdigit((unsigned char)*at)) {
            int64_t frame = strtoll(at, &end, 10); /* one too large to hold matches nothing */

            if (manifest_match(pattern, path, frame, work) ||
                (at > path && at[-1] == '-' &&
                 manifest_match(pattern, path, frame = -frame, work))) {
                *ret_frame = frame;
                return true;
            }
        }
        at = end;
    }
    return false;
}
