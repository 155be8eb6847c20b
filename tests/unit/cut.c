/* cut.c - what changes in a project changes few blocks. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <proto/block_set.h>
#include <proto/cut.h>
#include <proto/limits.h>
#include <proto/manifest.h>

#define MIB (1024 * 1024)
enum { LARGE = 20 * MIB, SMALL = 4096, FILES = 4000 };

static const uint8_t SECRET[32] = {3}, OTHER[32] = {4};

struct tree {
    char folder[64];
    struct sealer *sealer;
    struct block_set known;
    size_t n_blocks, n_new, least, most;
    uint64_t bytes, file_bytes; /* of distinct blocks, of files */
};

static int setup(void **state)
{
    struct tree *tree = calloc(1, sizeof(*tree));

    strcpy(tree->folder, "/tmp/unit-cut-XXXXXX");
    assert_non_null(mkdtemp(tree->folder));
    assert_int_equal(sealer_new(&tree->sealer), 0);
    *state = tree;
    return 0;
}

static int teardown(void **state)
{
    struct tree *tree = *state;

    folder_remove(tree->folder);
    sealer_free(tree->sealer);
    block_set_deinit(&tree->known);
    free(tree);
    return 0;
}

/* Noise, the same for the same seed. */
static void noise(uint8_t *data, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        data[i] = (uint8_t)(seed >> 56);
    }
}

static void make(const struct tree *tree, const char *name, const void *data, size_t size)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", tree->folder, name);
    FILE *file = fopen(path, "w"); /* not synced, as file_write would: they are thousands */
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int emit(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct tree *tree = user;
    int r = block_set_add(&tree->known, &key->id);

    (void)sealed;
    (void)size;
    assert_true(r >= 0);
    tree->n_new += (size_t)r;
    tree->n_blocks++;
    tree->bytes += key->body_bytes;
    if (key->body_bytes < tree->least || tree->least == 0)
        tree->least = key->body_bytes;
    if (key->body_bytes > tree->most)
        tree->most = key->body_bytes;
    return 0;
}

/* How many blocks were not there before. */
static size_t pack_under(struct tree *tree, const uint8_t secret[32])
{
    const char *roots[] = {tree->folder};
    const struct manifest_walk rules = {0};
    _cleanup_(bytes_deinit) struct bytes packed = {0};
    struct manifest_file *files;
    char **paths = NULL;
    size_t n = 0;
    uint64_t bytes;

    tree->n_blocks = tree->n_new = tree->least = tree->most = 0;
    tree->bytes = 0;
    assert_int_equal(manifest_walk(tree->folder, &rules, &paths, &n, NULL), 0);
    files = calloc(n, sizeof(*files));
    for (size_t i = 0; i < n; i++)
        files[i] = (struct manifest_file){.path = paths[i]};
    assert_int_equal(
        manifest_pack(tree->sealer, secret, NULL, roots, 1, files, n, emit, tree, &packed, &bytes, NULL),
        0);
    tree->file_bytes = bytes;
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    free(files);
    return tree->n_new;
}

static size_t pack(struct tree *tree)
{
    return pack_under(tree, SECRET);
}

static void a_change_in_a_large_file_changes_few_blocks(void **state)
{
    struct tree *tree = *state;
    uint8_t *data = malloc(LARGE + 1);

    assert_non_null(data);
    noise(data + 1, LARGE, 1);
    make(tree, "cache.vdb", data + 1, LARGE);
    size_t n = pack(tree);
    assert_in_range(n, LARGE / (800 * 1024), LARGE / (600 * 1024));
    assert_true(tree->most <= LIMIT_BLOCK_BYTES);
    assert_int_equal(tree->bytes, LARGE);

    for (size_t at = 5000; at < LARGE; at += LARGE / 16) {
        data[1 + at] ^= 1;
        make(tree, "cache.vdb", data + 1, LARGE);
        assert_in_range(pack(tree), 1, 2);
    }
    data[0] = 'x'; /* at its start */
    make(tree, "cache.vdb", data, LARGE + 1);
    assert_in_range(pack(tree), 1, 3);
    make(tree, "cache.vdb", data + 1000, LARGE - 999);
    assert_in_range(pack(tree), 1, 3);
    free(data);
}

static void blocks_of_one_studio_do_not_tell_where_anothers_are_cut(void **state)
{
    struct cutter ours, theirs;
    uint8_t *data = malloc(LIMIT_BLOCK_BYTES);
    size_t same = 0;

    (void)state;
    cutter_init(&ours, SECRET);
    cutter_init(&theirs, OTHER);
    for (uint64_t i = 0; i < 32; i++) {
        noise(data, LIMIT_BLOCK_BYTES, i);
        same += cutter_length(&ours, data, LIMIT_BLOCK_BYTES) ==
                cutter_length(&theirs, data, LIMIT_BLOCK_BYTES);
    }
    assert_true(same < 4);
    free(data);
}

static void what_is_all_alike_is_cut_when_a_block_is_full(void **state)
{
    struct tree *tree = *state;
    uint8_t *data = calloc(1, 5 * MIB);

    make(tree, "zeros", data, 5 * MIB);
    pack(tree);
    assert_int_equal(tree->file_bytes, 5 * MIB);
    assert_int_equal(tree->n_blocks, 1); /* five times the same */
    assert_int_equal(tree->most, LIMIT_BLOCK_BYTES);
    free(data);
}

/* Holes, data that ends anywhere, and a hole at the end. */
static void a_sparse_file_has_the_blocks_of_one_that_is_full_of_zeros(void **state)
{
    struct tree *tree = *state;
    uint8_t *data = calloc(1, 9 * MIB + 5), part[3000];
    char path[128];

    noise(part, sizeof(part), 1);
    memcpy(data + 3 * MIB + 17, part, sizeof(part));
    make(tree, "full", data, 9 * MIB + 5);
    pack(tree);
    size_t n = tree->n_blocks;

    snprintf(path, sizeof(path), "%s/full", tree->folder);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/sparse", tree->folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, 9 * MIB + 5), 0);
    assert_int_equal(pwrite(fd, part, sizeof(part), 3 * MIB + 17), sizeof(part));
    close(fd);
    assert_int_equal(pack(tree), 0);
    assert_int_equal(tree->n_blocks, n);
    assert_int_equal(tree->file_bytes, 9 * MIB + 5);
    free(data);
}

static void another_small_file_changes_the_block_that_it_comes_to_lie_in(void **state)
{
    struct tree *tree = *state;
    uint8_t data[SMALL];
    char name[32];

    for (unsigned i = 0; i < FILES; i++) {
        noise(data, sizeof(data), i);
        snprintf(name, sizeof(name), "texture_%05u.png", 2 * i);
        make(tree, name, data, sizeof(data));
    }
    size_t n = pack(tree), most = 0;
    assert_in_range(n, (size_t)FILES * SMALL / CUT_SHARED / 2,
                    (size_t)FILES * SMALL / CUT_SHARED * 2);
    assert_true(tree->most <= LIMIT_BLOCK_BYTES);

    for (unsigned i = 1; i < 2 * FILES; i += FILES / 4 + 2) {
        noise(data, sizeof(data), 1000000 + i);
        snprintf(name, sizeof(name), "texture_%05u.png", i);
        make(tree, name, data, sizeof(data));
        size_t changed = pack(tree);
        most = changed > most ? changed : most;
    }
    assert_in_range(most, 1, 2);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_change_in_a_large_file_changes_few_blocks),
        T(blocks_of_one_studio_do_not_tell_where_anothers_are_cut),
        T(what_is_all_alike_is_cut_when_a_block_is_full),
        T(a_sparse_file_has_the_blocks_of_one_that_is_full_of_zeros),
        T(another_small_file_changes_the_block_that_it_comes_to_lie_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
