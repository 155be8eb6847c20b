/* manifest_leaf.c - a list of files in leaves, so that whoever wants a few of many files reads the
 * part of the list that names them.
 *
 * The idea: in a list ordered by path, and numbers by value, all that lies between two files of one
 * sequence is of that sequence. So the first and the last file of a leaf tell where its numbers
 * stand, and a leaf is asked for every name it may hold, as if it had been read.
 *
 * A leaf ends where the hash of a name says so (cut.h), so that another file changes one leaf; and
 * where a folder begins or ends that is half a leaf or more, so that a scene's other files do not
 * share one with its caches.
 */
#include <proto/manifest.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/bytes.h>
#include <proto/base/err.h>
#include <proto/cut.h>
#include <proto/limits.h>

/* Names that a leaf may hold and is asked for; a full one holds half as many. */
enum { NAMES_MAX = 16384 };
/* There no name ends a leaf any more, only its size does. */
#define GRAIN_MAX ((size_t)64 * 1024 * 1024)

struct entry {
    const char *path; /* not terminated */
    uint32_t path_size, folder_size;
    size_t at, size;
    size_t folder_bytes; /* of the first in a folder: what is said of all that follow it there */
};

struct leaves {
    const uint8_t *data;
    struct entry *entries;
    size_t n;
    struct cutter cutter;
    struct sealer *sealer;
    uint8_t secret[32];
    struct bytes sealed;
};

/* ---- the entries of what manifest_pack made ---- */

static bool number_read(const uint8_t **at, const uint8_t *end, uint64_t *ret_number)
{
    uint64_t number = 0;

    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;

        number |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret_number = number;
            return true;
        }
    }
    return false;
}

/* A field of bytes, such as an entry or its path. */
static bool field_read(const uint8_t **at, const uint8_t *end, uint64_t field, uint64_t *ret_size)
{
    uint64_t tag;

    return number_read(at, end, &tag) && tag == (field << 3 | 2) &&
           number_read(at, end, ret_size) && *ret_size <= (uint64_t)(end - *at);
}

static bool entry_read(const uint8_t **at, const uint8_t *end, struct entry *entry)
{
    const uint8_t *inner;
    uint64_t size, path_size, root;

    if (!field_read(at, end, 1, &size))
        return false;
    inner = *at;
    end = *at += size;
    if (inner < end && *inner == 1 << 3) {
        inner++;
        if (!number_read(&inner, end, &root))
            return false;
    }
    if (!field_read(&inner, end, 2, &path_size) || path_size >= LIMIT_PATH_BYTES)
        return false;
    entry->path = (const char *)inner;
    entry->path_size = entry->folder_size = (uint32_t)path_size;
    while (entry->folder_size && entry->path[entry->folder_size - 1] != '/')
        entry->folder_size--;
    return true;
}

static bool folder_same(const struct entry *a, const struct entry *b)
{
    return a->folder_size == b->folder_size && memcmp(a->path, b->path, a->folder_size) == 0;
}

static int entries_read(struct leaves *leaves, size_t size)
{
    const uint8_t *at = leaves->data, *end = at + size;
    size_t room = 0, folder = 0;

    for (; at < end; leaves->n++) {
        struct entry *entries = leaves->entries;

        if (leaves->n == room) {
            room = room ? 2 * room : 1024;
            entries = reallocarray(leaves->entries, room, sizeof(*entries));
            if (!entries)
                return -ENOMEM;
            leaves->entries = entries;
        }
        struct entry *entry = &entries[leaves->n];

        *entry = (struct entry){.at = (size_t)(at - leaves->data)};
        if (!entry_read(&at, end, entry))
            return MANIFEST_E_FORM;
        entry->size = (size_t)(at - leaves->data) - entry->at;
        if (!folder_same(&entries[folder], entry))
            folder = leaves->n;
        entries[folder].folder_bytes += entry->size;
    }
    return 0;
}

/* ---- where leaves end ---- */

/* `ends` has room for one more than there are entries. */
static size_t leaves_cut(const struct leaves *leaves, size_t grain, size_t *ends)
{
    size_t n = 0, bytes = 0, before = 0;

    for (size_t i = 0; i < leaves->n; i++) {
        const struct entry *entry = &leaves->entries[i];
        size_t folder = entry->folder_bytes;

        if (bytes && (bytes + entry->size > LIMIT_BLOCK_BYTES ||
                      (folder && (folder >= grain / 2 || before >= grain / 2)))) {
            ends[n++] = i;
            bytes = 0;
        }
        before = folder ? folder : before;
        bytes += entry->size;
        if (cutter_ends(&leaves->cutter, entry->path, entry->path_size, entry->size, grain)) {
            ends[n++] = i + 1;
            bytes = 0;
        }
    }
    if (bytes || n == 0)
        ends[n++] = leaves->n;
    return n;
}

/* ---- what is said of a leaf ---- */

static bool digit_at(const struct entry *entry, size_t at)
{
    return at < entry->path_size && isdigit((unsigned char)entry->path[at]);
}

/* Where the number stands in which two files of a sequence differ, or SIZE_MAX. */
static size_t number_place(const struct entry *a, const struct entry *b)
{
    size_t at = 0;

    while (at < a->path_size && at < b->path_size && a->path[at] == b->path[at])
        at++;
    while (at && digit_at(a, at - 1))
        at--;
    return digit_at(a, at) && digit_at(b, at) ? at : SIZE_MAX;
}

static int copy_to(char **to, const char *text, size_t size)
{
    char *copy = strndup(text, size);

    if (!copy)
        return -ENOMEM;
    *to = copy;
    return 0;
}

/* How names end. Returns 1 where there are too many to say. */
static int after_add(Wl__Leaf *leaf, const char *text, size_t size, size_t *bytes)
{
    for (size_t i = 0; i < leaf->n_after; i++)
        if (strlen(leaf->after[i]) == size && memcmp(leaf->after[i], text, size) == 0)
            return 0;
    if (leaf->n_after == LIMIT_LEAF_NAMES || *bytes + size > LIMIT_LEAF_BYTES)
        return 1;
    if (!leaf->after && !(leaf->after = calloc(LIMIT_LEAF_NAMES, sizeof(*leaf->after))))
        return -ENOMEM;
    int r = copy_to(&leaf->after[leaf->n_after], text, size);
    if (r == 0)
        leaf->n_after++;
    *bytes += size;
    return r;
}

/* A number as "%0*llu" writes it with one width for all. */
static bool number_take(Wl__Leaf *leaf, const char *text, size_t width)
{
    uint64_t number = 0;

    if (width > LIMIT_LEAF_DIGITS || width < leaf->digits ||
        (*text == '0' && width != leaf->digits))
        return false;
    for (size_t i = 0; i < width; i++)
        number = number * 10 + (uint64_t)(text[i] - '0');
    leaf->high = number;
    return true;
}

/* All begin alike and have a number there, the least and narrowest first, the greatest last. */
static int say_numbers(Wl__Leaf *leaf, const struct entry *entries, size_t n)
{
    size_t place = number_place(&entries[0], &entries[n - 1]), bytes = place;
    int r = 0;

    if (place > LIMIT_LEAF_BYTES)
        return 1;
    for (size_t i = 0; r == 0 && i < n; i++) {
        size_t end = place;

        if (entries[i].path_size < place || memcmp(entries[i].path, entries[0].path, place) != 0)
            return 1;
        while (digit_at(&entries[i], end))
            end++;
        if (i == 0)
            leaf->digits = (uint32_t)(end - place);
        if (end == place || !number_take(leaf, entries[i].path + place, end - place))
            return 1;
        if (i == 0)
            leaf->low = leaf->high;
        r = after_add(leaf, entries[i].path + end, entries[i].path_size - end, &bytes);
    }
    return r ? r : copy_to(&leaf->before, entries[0].path, place);
}

/* Or they are few. */
static int say_names(Wl__Leaf *leaf, const struct entry *entries, size_t n)
{
    size_t bytes = 0;
    int r = n > LIMIT_LEAF_NAMES;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = after_add(leaf, entries[i].path, entries[i].path_size, &bytes);
    return r;
}

static void say_nothing(Wl__Leaf *leaf)
{
    for (size_t i = 0; i < leaf->n_after; i++)
        free(leaf->after[i]);
    free(leaf->after);
    wl__leaf__init(leaf);
}

static int leaf_say(Wl__Leaf *leaf, const struct entry *entries, size_t n)
{
    int r = n ? say_numbers(leaf, entries, n) : 1;

    if (r > 0) {
        say_nothing(leaf);
        r = say_names(leaf, entries, n);
    }
    if (r > 0) {
        say_nothing(leaf);
        r = 0;
    }
    return r;
}

bool manifest_leaf_may(const Wl__Leaf *leaf, bool (*wanted)(void *user, const char *path),
                       void *user)
{
    char path[LIMIT_PATH_BYTES];
    uint64_t n = leaf->digits ? leaf->high - leaf->low + 1 : 1;

    if (leaf->n_after == 0 || n == 0 || n > NAMES_MAX / leaf->n_after)
        return true;
    for (uint64_t i = 0; i < n; i++) {
        size_t used = (size_t)snprintf(path, sizeof(path), "%s", leaf->before);

        if (leaf->digits && used < sizeof(path))
            used += (size_t)snprintf(path + used, sizeof(path) - used, "%0*llu", (int)leaf->digits,
                                     (unsigned long long)(leaf->low + i));
        for (size_t k = 0; k < leaf->n_after; k++) {
            if (used + strlen(leaf->after[k]) >= sizeof(path))
                return true;
            strcpy(path + used, leaf->after[k]);
            if (wanted(user, path))
                return true;
        }
    }
    return false;
}

/* ---- to blocks ---- */

static int leaf_seal(struct leaves *leaves, const uint8_t *data, size_t size, manifest_emit *emit,
                     void *user, Wl__Leaf *leaf, struct manifest_sealed *sealed)
{
    do {
        size_t length = size <= LIMIT_BLOCK_BYTES
                            ? size
                            : cutter_length(&leaves->cutter, data, LIMIT_BLOCK_BYTES);
        struct block_key *key = &sealed->keys[sealed->n_keys];

        if (sealed->n_keys == LIMIT_LEAVES)
            return MANIFEST_E_LIMIT;
        int r = seal_block(leaves->sealer, leaves->secret, data, length, &leaves->sealed, key);
        if (r == 0)
            r = emit(user, key, leaves->sealed.data, leaves->sealed.size);
        if (r)
            return r;
        sealed->n_keys++;
        leaf->blocks++;
        data += length;
        size -= length;
    } while (size);
    return 0;
}

static int leaves_seal(struct leaves *leaves, size_t size, const size_t *ends, size_t n,
                       manifest_emit *emit, void *user, struct manifest_sealed *sealed)
{
    size_t first = 0, at = 0;

    sealed->keys = calloc(LIMIT_LEAVES, sizeof(*sealed->keys));
    sealed->leaves = calloc(n, sizeof(Wl__Leaf *));
    if (!sealed->keys || !sealed->leaves)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t end = ends[i] < leaves->n ? leaves->entries[ends[i]].at : size;
        Wl__Leaf *leaf = malloc(sizeof(*leaf));

        if (!leaf)
            return -ENOMEM;
        wl__leaf__init(leaf);
        sealed->leaves[sealed->n_leaves++] = leaf;
        int r = leaf_say(leaf, leaves->entries + first, ends[i] - first);
        if (r == 0)
            r = leaf_seal(leaves, leaves->data + at, end - at, emit, user, leaf, sealed);
        if (r)
            return r;
        first = ends[i];
        at = end;
    }
    return 0;
}

void manifest_sealed_deinit(struct manifest_sealed *sealed)
{
    for (size_t i = 0; i < sealed->n_leaves; i++)
        wl__leaf__free_unpacked(sealed->leaves[i], NULL);
    free(sealed->leaves);
    free(sealed->keys);
    *sealed = (struct manifest_sealed){0};
}

int manifest_seal(struct sealer *sealer, const uint8_t secret[32], const void *data, size_t size,
                  size_t few, manifest_emit *emit, void *user, struct manifest_sealed *ret_sealed)
{
    struct leaves leaves = {.data = size ? data : (const void *)"", .sealer = sealer};
    struct manifest_sealed sealed = {0};
    _cleanup_(freep) size_t *ends = NULL;
    size_t grain = CUT_LEAF, n;

    cutter_init(&leaves.cutter, secret);
    mac2(secret, "manifest1", strlen("manifest1"), "", 0, leaves.secret);
    int r = entries_read(&leaves, size);
    if (r == 0 && !(ends = calloc(leaves.n + 1, sizeof(*ends))))
        r = -ENOMEM;
    if (r == 0) {
        while ((n = leaves_cut(&leaves, grain, ends)) > few && grain < GRAIN_MAX)
            grain *= 2;
        r = leaves_seal(&leaves, size, ends, n, emit, user, &sealed);
    }
    if (r == 0)
        *ret_sealed = sealed;
    else
        manifest_sealed_deinit(&sealed);
    free(leaves.entries);
    bytes_deinit(&leaves.sealed);
    wipe(leaves.secret, sizeof(leaves.secret));
    return r;
}
