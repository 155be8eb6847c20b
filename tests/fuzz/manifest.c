/* manifest.c - a list of files as it was opened, and patterns of names. */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/manifest.h>
#include "fuzz.h"

enum { MANIFEST = 1, LEAF, PATTERN };

static void try_manifest(const struct fuzz_part *part)
{
    Wl__Manifest *manifest;
    struct block_key *keys;
    size_t n;

    if (manifest_parse(part->data, part->size, &manifest, NULL) != 0)
        return;
    for (size_t i = 0; i < manifest->n_files; i++)
        CHECK(manifest_path_ok(manifest->files[i]->path));
    if (manifest_blocks(manifest, &keys, &n) == 0)
        free(keys);
    wl__manifest__free_unpacked(manifest, NULL);
}

static bool wanted(void *user, const char *path)
{
    *(size_t *)user += strlen(path);
    return false;
}

static void try_leaf(const struct fuzz_part *part)
{
    Wl__Leaf *leaf = wl__leaf__unpack(NULL, part->size, part->data);
    size_t sum = 0;

    if (!leaf)
        return;
    /* As wire's rules let it through. */
    if (leaf->digits <= LIMIT_LEAF_DIGITS && strlen(leaf->before) <= LIMIT_LEAF_BYTES &&
        leaf->n_after <= LIMIT_LEAF_NAMES)
        manifest_leaf_may(leaf, wanted, &sum);
    wl__leaf__free_unpacked(leaf, NULL);
}

/* The pattern ends at the first NUL. */
static void try_pattern(const struct fuzz_part *part)
{
    char *text = fuzz_text(part->data, part->size);
    const char *path = strlen(text) < part->size ? text + strlen(text) + 1 : "";
    uint64_t work = 100000;
    int64_t frame;

    (void)manifest_match(text, path, (int64_t)part->size * 7919 - 100, &work);
    if (strchr(text, '#') && manifest_frame_of(text, path, &frame, &work))
        CHECK(manifest_match(text, path, frame, &(uint64_t){UINT64_MAX}));
    (void)manifest_path_ok(text);
    (void)manifest_path_compare(text, path);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    while (fuzz_next(&data, &size, &part)) {
        uint8_t *copy = fuzz_copy(part.data, part.size);

        part.data = copy;
        if (part.number == MANIFEST)
            try_manifest(&part);
        else if (part.number == LEAF)
            try_leaf(&part);
        else
            try_pattern(&part);
        free(copy);
    }
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    static const char pattern[] = "cache_####*.v?b\0cache_0007_x.vdb";
    struct fuzz_buffer message, all = {0};

    fuzz_message(&wl__manifest__descriptor, 0, &message);
    fuzz_put(&all, MANIFEST, message.data, message.size);
    fuzz_message(&wl__leaf__descriptor, 0, &message);
    fuzz_put(&all, LEAF, message.data, message.size);
    fuzz_put(&all, PATTERN, pattern, sizeof(pattern) - 1);
    add("all", all.data, all.size);
}
