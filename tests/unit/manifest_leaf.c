/* A list of files in leaves: each a list by itself, few of which change, and none silent about a
 * name it holds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <proto/block_set.h>
#include <proto/cut.h>
#include <proto/limits.h>
#include <proto/manifest.h>
#include <proto/manifest_paths.h>
#include <proto/wire.h>

static const uint8_t SECRET[32] = {3};
enum { MANY = 8000, FEW = 512 };

struct list {
    struct sealer *sealer;
    char **names;
    size_t n, n_parts, room;
    struct bytes packed, opened;
    struct manifest_sealed sealed;
    struct block_set known;
    struct bytes *blocks;
    struct block_id *ids;
    size_t n_blocks, n_new;
};

static int setup(void **state)
{
    struct list *list = calloc(1, sizeof(*list));

    assert_int_equal(sealer_new(&list->sealer), 0);
    list->n_parts = 1;
    *state = list;
    return 0;
}

static void blocks_drop(struct list *list)
{
    for (size_t i = 0; i < list->n_blocks; i++)
        bytes_deinit(&list->blocks[i]);
    list->n_blocks = list->n_new = 0;
    manifest_sealed_deinit(&list->sealed);
}

static void names_drop(struct list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->names[i]);
    list->n = 0;
}

static int teardown(void **state)
{
    struct list *list = *state;

    blocks_drop(list);
    names_drop(list);
    free(list->names);
    free(list->blocks);
    free(list->ids);
    bytes_deinit(&list->packed);
    bytes_deinit(&list->opened);
    block_set_deinit(&list->known);
    sealer_free(list->sealer);
    free(list);
    return 0;
}

static void add(struct list *list, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct list *list, const char *format, ...)
{
    va_list arguments;
    char *name;

    va_start(arguments, format);
    assert_true(vasprintf(&name, format, arguments) > 0);
    va_end(arguments);
    if (list->n == list->room)
        list->names = realloc(list->names, (list->room = 2 * list->room + 64) * sizeof(char *));
    list->names[list->n++] = name;
}

static int in_order(const void *a, const void *b)
{
    return manifest_path_compare(*(char *const *)a, *(char *const *)b);
}

static void noise(uint8_t to[32], const char *name, uint64_t seed)
{
    for (; *name; name++)
        seed = (seed ^ (uint8_t)*name) * 1099511628211ULL;
    for (size_t i = 0; i < 32; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        to[i] = (uint8_t)(seed >> 56);
    }
}

/* Each file has parts of its own, the same each time. */
static void pack(struct list *list)
{
    struct block_key *keys = calloc(list->n_parts, sizeof(*keys));
    Wl__BlockKey *messages = calloc(list->n_parts, sizeof(*messages));
    Wl__Part *parts = calloc(list->n_parts, sizeof(*parts)), **pointers;

    pointers = calloc(list->n_parts, sizeof(Wl__Part *));
    qsort(list->names, list->n, sizeof(char *), in_order);
    list->packed.size = 0;
    for (size_t i = 0; i < list->n; i++) {
        Wl__FileEntry entry = WL__FILE_ENTRY__INIT, *entries[] = {&entry};
        Wl__Manifest manifest = WL__MANIFEST__INIT;

        for (size_t k = 0; k < list->n_parts; k++) {
            noise(keys[k].id.bytes, list->names[i], 2 * k);
            noise(keys[k].key, list->names[i], 2 * k + 1);
            keys[k].sealed_bytes = keys[k].body_bytes = 1000;
            wire_block_key_set(&messages[k], &keys[k]);
            wl__part__init(&parts[k]);
            parts[k].block = &messages[k];
            parts[k].length = 1000;
            pointers[k] = &parts[k];
        }
        entry.path = list->names[i];
        entry.mode = 0644;
        entry.size = 1000 * list->n_parts;
        entry.parts = pointers;
        entry.n_parts = list->n_parts;
        manifest.files = entries;
        manifest.n_files = 1;
        size_t size = wl__manifest__get_packed_size(&manifest);
        assert_int_equal(bytes_reserve(&list->packed, list->packed.size + size), 0);
        list->packed.size += wl__manifest__pack(&manifest, list->packed.data + list->packed.size);
    }
    free(keys);
    free(messages);
    free(parts);
    free(pointers);
}

static int emit(void *user, const struct block_key *key, const void *data, size_t size)
{
    struct list *list = user;
    size_t n = list->n_blocks + 1;

    list->blocks = realloc(list->blocks, n * sizeof(*list->blocks));
    list->ids = realloc(list->ids, n * sizeof(*list->ids));
    list->blocks[n - 1] = (struct bytes){0};
    list->ids[n - 1] = key->id;
    list->n_blocks = n;
    int r = block_set_add(&list->known, &key->id);
    assert_true(r >= 0);
    list->n_new += (size_t)r;
    return bytes_append(&list->blocks[n - 1], data, size);
}

static int fetch(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct list *list = user;

    *ret_block = &list->opened;
    for (size_t i = 0; i < list->n_blocks; i++)
        if (memcmp(&list->ids[i], &key->id, sizeof(key->id)) == 0)
            return open_block(list->sealer, key, list->blocks[i].data, list->blocks[i].size,
                              &list->opened);
    return -ENOENT;
}

/* How many blocks were not there before. */
static size_t seal(struct list *list, size_t few)
{
    blocks_drop(list);
    pack(list);
    assert_int_equal(manifest_seal(list->sealer, SECRET, list->packed.data, list->packed.size, few,
                                   emit, list, &list->sealed),
                     0);
    assert_int_equal(list->sealed.n_keys, list->n_blocks);
    return list->n_new;
}

static bool named(void *user, const char *path)
{
    return strcmp(user, path) == 0;
}

static bool none(void *user, const char *path)
{
    (void)user;
    (void)path;
    return false;
}

/* Reads leaf after leaf: all the names, each in a leaf that may hold it. How many leaves say what
 * they hold. */
static size_t read_back(struct list *list)
{
    struct manifest_sealed *sealed = &list->sealed;
    size_t block = 0, file = 0, say = 0;

    for (size_t i = 0; i < sealed->n_leaves; i++) {
        const Wl__Leaf *leaf = sealed->leaves[i];
        Wl__Manifest *manifest;

        assert_int_equal(
            manifest_load(&sealed->keys[block], leaf->blocks, fetch, list, &manifest, NULL), 0);
        for (size_t k = 0; k < manifest->n_files; k++) {
            assert_string_equal(manifest->files[k]->path, list->names[file]);
            if (!manifest_leaf_may(leaf, named, list->names[file++]))
                fail_msg("%s is in a leaf that is silent about it", manifest->files[k]->path);
        }
        say += !manifest_leaf_may(leaf, none, NULL);
        wl__manifest__free_unpacked(manifest, NULL);
        block += leaf->blocks;
    }
    assert_int_equal(block, sealed->n_keys);
    assert_int_equal(file, list->n);
    return say;
}

static void each_leaf_is_a_list_by_itself(void **state)
{
    struct list *list = *state;

    for (unsigned i = 0; i < MANY; i++)
        add(list, "cache/smoke_%05u.vdb", i);
    add(list, "scene.blend");
    seal(list, FEW);
    size_t n = list->sealed.n_leaves;
    assert_in_range(n, list->packed.size / CUT_LEAF / 2, list->packed.size / CUT_LEAF * 2);
    assert_int_equal(read_back(list), n); /* each says what it holds */
    assert_string_equal(list->sealed.leaves[1]->before, "cache/smoke_");
    assert_int_equal(list->sealed.leaves[1]->digits, 5);
    assert_string_equal(list->sealed.leaves[n - 1]->after[0], "scene.blend");

    Wl__Manifest *manifest; /* and all of them together are the list */
    assert_int_equal(
        manifest_load(list->sealed.keys, list->sealed.n_keys, fetch, list, &manifest, NULL), 0);
    assert_int_equal(manifest->n_files, list->n);
    wl__manifest__free_unpacked(manifest, NULL);
}

static void one_file_more_changes_one_leaf_or_two(void **state)
{
    struct list *list = *state;
    size_t most = 0, all = 0;

    for (unsigned i = 0; i < MANY; i += 2)
        add(list, "cache/smoke_%05u.vdb", i);
    for (unsigned i = 0; i < 500; i++)
        add(list, "textures/wood%u_%c.png", i * i, 'a' + i % 26);
    seal(list, FEW);
    for (unsigned i = 0; i < 20; i++) {
        if (i == 0)
            add(list, "cache/smoke_%05u.vdb", MANY); /* the next frame */
        else if (i == 1)
            add(list, "a.blend");
        else if (i == 2)
            add(list, "textures/wood16.png");
        else
            add(list, i % 2 ? "cache/smoke_%05u.vdb" : "cache/smoke_%05u.vdb.bak", i * 977 | 1);
        size_t changed = seal(list, FEW);

        all += changed;
        most = changed > most ? changed : most;
    }
    assert_in_range(most, 1, 2);
    assert_in_range(all, 20, 22);
    read_back(list);
}

static void frames_are_told_however_they_are_written(void **state)
{
    static const struct {
        const char *before;
        int digits;
        const char *after, *second; /* as many files of each frame */
    } cases[] = {
        {"c.", 1, ".vdb", NULL}, /* 9 and 10 */
        {"c.", 3, ".vdb", NULL}, /* 999 and 1000 */
        {"c.", 4, ".vdb", ".json"},  {"f", 4, "/left.exr", "/right.exr"},
        {"v2/c_-", 5, ".vdb", NULL}, {"take7.", 1, "", NULL},
    };
    struct list *list = *state;

    list->n_parts = 12;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[64];
        size_t n = 0;

        names_drop(list);
        for (unsigned frame = 0; frame < 2500; frame++) {
            add(list, "%s%0*u%s", cases[i].before, cases[i].digits, frame, cases[i].after);
            if (cases[i].second)
                add(list, "%s%0*u%s", cases[i].before, cases[i].digits, frame, cases[i].second);
        }
        seal(list, FEW);
        assert_true(list->sealed.n_leaves > 10);
        assert_int_equal(read_back(list), list->sealed.n_leaves);
        snprintf(name, sizeof(name), "%s%0*u%s", cases[i].before, cases[i].digits, 1234,
                 cases[i].after);
        for (size_t k = 0; k < list->sealed.n_leaves; k++)
            n += manifest_leaf_may(list->sealed.leaves[k], named, name);
        assert_in_range(n, 1, cases[i].second ? 2 : 1);
    }
}

static void no_leaf_is_silent_about_a_name_it_holds(void **state)
{
    static const char letters[] = "0001129-_./ab#";
    struct list *list = *state;
    uint64_t seed = 1;
    size_t said = 0, n = 0;

    list->n_parts = 160;
    for (unsigned round = 0; round < 12; round++) {
        names_drop(list);
        for (unsigned i = 0; i < 400; i++) {
            char name[16] = "x", *at = name + round % 3;

            for (unsigned k = 0; k < 1 + round / 3 + i % 4; k++) {
                seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
                *at++ = letters[(seed >> 33) % (sizeof(letters) - 1)];
            }
            *at = 0;
            bool fresh = manifest_path_ok(name);
            for (size_t k = 0; k < list->n; k++) {
                size_t one = strlen(list->names[k]), two = strlen(name),
                       least = one < two ? one : two;

                fresh &= strncmp(list->names[k], name, least) != 0 ||
                         (one != two && (one < two ? name : list->names[k])[least] != '/');
            }
            if (fresh)
                add(list, "%s", name);
        }
        seal(list, FEW);
        said += read_back(list);
        n += list->sealed.n_leaves;
    }
    assert_true(said > n / 10 && said < n);
}

static void a_very_large_file_is_a_leaf_of_several_blocks(void **state)
{
    struct list *list = *state;

    add(list, "a");
    add(list, "large");
    add(list, "z");
    list->n_parts = 40000;
    seal(list, FEW);
    assert_int_equal(list->sealed.n_leaves, 3);
    assert_in_range(list->sealed.leaves[1]->blocks, 4, 9);
    assert_int_equal(read_back(list), 3);
}

static void a_list_that_would_make_many_leaves_makes_larger_ones(void **state)
{
    struct list *list = *state;

    for (unsigned i = 0; i < 2500; i++)
        add(list, "cache/smoke_%05u.vdb", i);
    list->n_parts = 12;
    seal(list, FEW);
    assert_true(list->sealed.n_leaves > 8);
    seal(list, 4);
    assert_in_range(list->sealed.n_leaves, 3, 4);
    assert_int_equal(read_back(list), list->sealed.n_leaves);
    seal(list, 1); /* which cannot be */
    assert_in_range(list->sealed.n_leaves, 3, 4);
    read_back(list);
}

static void what_a_recipe_says_of_a_leaf_is_bounded(void **state)
{
    char *after[LIMIT_LEAF_NAMES] = {(char *)""};
    Wl__Leaf leaf = WL__LEAF__INIT;

    (void)state;
    assert_true(manifest_leaf_may(&leaf, none, NULL)); /* it says nothing */
    leaf.after = after;
    leaf.n_after = 1;
    assert_false(manifest_leaf_may(&leaf, none, NULL));
    leaf.digits = 1;
    leaf.high = 1000;
    assert_false(manifest_leaf_may(&leaf, none, NULL));
    leaf.high = 20000;
    assert_true(manifest_leaf_may(&leaf, none, NULL)); /* more than one asks for */
    leaf.high = UINT64_MAX;
    assert_true(manifest_leaf_may(&leaf, none, NULL));
    leaf.low = UINT64_MAX - 5;
    assert_false(manifest_leaf_may(&leaf, none, NULL));
    leaf.high = 5;
    assert_false(manifest_leaf_may(&leaf, named, (char *)"7"));
    leaf.low = 6;
    assert_true(manifest_leaf_may(&leaf, none, NULL)); /* no sense in it */
}

static void what_is_no_list_is_refused(void **state)
{
    static const uint8_t bad[] = {0x0a, 20, 0x12, 30, 'a'};
    struct list *list = *state;

    for (size_t size = 1; size <= sizeof(bad); size++)
        assert_int_equal(
            manifest_seal(list->sealer, SECRET, bad, size, FEW, emit, list, &list->sealed),
            MANIFEST_E_FORM);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(each_leaf_is_a_list_by_itself),
        T(one_file_more_changes_one_leaf_or_two),
        T(frames_are_told_however_they_are_written),
        T(no_leaf_is_silent_about_a_name_it_holds),
        T(a_very_large_file_is_a_leaf_of_several_blocks),
        T(a_list_that_would_make_many_leaves_makes_larger_ones),
        T(what_a_recipe_says_of_a_leaf_is_bounded),
        T(what_is_no_list_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
