/* What looks as it did is not read again; what does not is; and nothing that was kept is believed
 * without the secret. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <client/known.h>
#include <proto/base/bytes.h>
#include <proto/base/crew.h>
#include <proto/limits.h>

enum { LARGE = 5 << 20, SMALL = 40, SMALL_BYTES = 30000 };

static const uint8_t SECRET[32] = {7}, OTHER[32] = {8};

struct tree {
    char folder[64], state[64];
    struct sealer *sealer;
    size_t n_blocks, n_read; /* emitted; with their bytes */
    struct bytes ids;
};

static int setup(void **state)
{
    static const struct tree empty = {.folder = "/tmp/unit-known-XXXXXX",
                                      .state = "/tmp/unit-known-state-XXXXXX"};
    struct tree *tree = malloc(sizeof(*tree));

    assert_non_null(tree);
    *tree = empty;
    assert_non_null(mkdtemp(tree->folder));
    assert_non_null(mkdtemp(tree->state));
    setenv("XDG_STATE_HOME", tree->state, 1);
    assert_int_equal(sealer_new(&tree->sealer), 0);
    *state = tree;
    return 0;
}

static int teardown(void **state)
{
    struct tree *tree = *state;

    folder_remove(tree->folder);
    folder_remove(tree->state);
    sealer_free(tree->sealer);
    bytes_deinit(&tree->ids);
    free(tree);
    return 0;
}

/* Written an hour ago: no file is trusted that changed a moment ago. Its change time cannot be set
 * back, so that the tests wait for a moment once. */
static void make(struct tree *tree, const char *name, size_t size, uint32_t seed)
{
    char path[128];
    uint8_t *data = malloc(size);

    assert_non_null(data);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    snprintf(path, sizeof(path), "%s/%s", tree->folder, name);
    assert_int_equal(file_write(path, data, size, 0644), 0);
    free(data);
}

static void make_all(struct tree *tree)
{
    char name[32];

    make(tree, "large", LARGE, 1);
    for (uint32_t i = 0; i < SMALL; i++) {
        snprintf(name, sizeof(name), "small%02u", i);
        make(tree, name, SMALL_BYTES, 2 + i);
    }
}

static int emit(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct tree *tree = user;
    struct block_id id;

    tree->n_blocks++;
    tree->n_read += sealed != NULL;
    if (sealed) {
        digest(sealed, size, &id);
        assert_memory_equal(&id, &key->id, sizeof(id));
    }
    return bytes_append(&tree->ids, key, sizeof(*key));
}

/* The manifest; how many blocks were read is in the tree. */
static struct bytes pack(struct tree *tree, const struct manifest_options *options)
{
    const char *root = tree->folder;
    struct manifest_file files[SMALL + 2];
    struct bytes packed = {0};
    char **paths = NULL;
    size_t n = 0;
    uint64_t bytes;

    tree->n_blocks = tree->n_read = tree->ids.size = 0;
    assert_int_equal(manifest_walk(root, &(struct manifest_walk){0}, &paths, &n, NULL), 0);
    for (size_t i = 0; i < n; i++)
        files[i] = (struct manifest_file){.path = paths[i]};
    assert_int_equal(manifest_pack(tree->sealer, SECRET, options, &root, 1, files, n, emit, tree,
                                   &packed, &bytes, NULL),
                     0);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return packed;
}

static struct bytes pack_known(struct tree *tree, const uint8_t secret[32])
{
    struct known *known = known_open(secret);

    assert_non_null(known);
    struct bytes packed = pack(tree, &(struct manifest_options){.known = known_of(known)});
    known_close(known, true);
    return packed;
}

static void same(struct bytes *a, struct bytes *b)
{
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size);
    bytes_deinit(b);
}

static void many_threads_make_the_same_as_one(void **state)
{
    struct tree *tree = *state;
    struct bytes alone, ids = {0};

    make_all(tree);
    alone = pack(tree, NULL);
    assert_int_equal(bytes_append(&ids, tree->ids.data, tree->ids.size), 0);
    for (unsigned threads = 1; threads <= 40; threads = 3 * threads + 1) {
        struct bytes many = pack(tree, &(struct manifest_options){.threads = threads});

        same(&alone, &many);
        assert_int_equal(tree->ids.size, ids.size); /* in the same order, too */
        assert_memory_equal(tree->ids.data, ids.data, ids.size);
    }
    bytes_deinit(&alone);
    bytes_deinit(&ids);
}

static void what_looks_as_it_did_is_not_read_again_and_what_changed_is(void **state)
{
    struct tree *tree = *state;
    struct bytes first, again;
    size_t n;
    char path[128];

    make_all(tree);
    first = pack_known(tree, SECRET);
    again = pack_known(tree, SECRET);
    assert_int_equal(tree->n_read, tree->n_blocks); /* too fresh to be believed */
    same(&first, &again);
    while (tree->n_read > 0) { /* some seconds */
        usleep(100000);
        again = pack_known(tree, SECRET);
        same(&first, &again);
    }
    again = pack_known(tree, SECRET);
    assert_int_equal(tree->n_read, 0);
    n = tree->n_blocks;
    assert_true(n > 10);
    same(&first, &again);

    /* A small one changes the block that it lies in; a large one is read whole. */
    make(tree, "small07", SMALL_BYTES, 99);
    again = pack_known(tree, SECRET);
    assert_in_range(tree->n_read, 1, 2);
    bytes_deinit(&again);
    snprintf(path, sizeof(path), "%s/large", tree->folder);
    assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[2]){{1, 0}, {1, 0}}, 0), 0);
    again = pack_known(tree, SECRET);
    assert_true(tree->n_read > LARGE / LIMIT_BLOCK_BYTES);
    bytes_deinit(&again);

    /* Nobody else's, and nothing that was tampered with. */
    again = pack_known(tree, OTHER);
    assert_int_equal(tree->n_read, tree->n_blocks);
    bytes_deinit(&again);
    bytes_deinit(&first);
}

static void a_cache_that_is_no_database_is_made_anew_at_once(void **state)
{
    struct tree *tree = *state;
    struct stat status;
    char path[160];

    make(tree, "large", LARGE, 1);
    struct bytes packed = pack_known(tree, SECRET);
    bytes_deinit(&packed);
    snprintf(path, sizeof(path), "%s/westlight/known/files.db", tree->state);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "this is no database, and was never one", 38), 38);
    close(fd);
    struct known *known = known_open(SECRET);
    assert_non_null(known);
    known_close(known, true);
}

static void tell(struct known *known, uint8_t number, uint32_t body_bytes)
{
    const uint8_t print[32] = {number};
    const struct block_key key = {.id.bytes = {number}, .body_bytes = body_bytes};

    known_of(known)->keep(known_of(known)->user, print, &key, 1);
}

static bool knows(struct known *known, uint8_t number)
{
    const uint8_t print[32] = {number};
    struct bytes keys = {0};
    int r = known_of(known)->find(known_of(known)->user, print, &keys);

    assert_true(r != 0 || keys.data[0] == number);
    bytes_deinit(&keys);
    return r == 0;
}

static void two_submissions_at_once_are_both_remembered(void **state)
{
    struct known *first = known_open(SECRET), *second = known_open(SECRET), *third;

    (void)state;
    assert_false(knows(first, 1));
    assert_false(knows(second, 2));
    tell(first, 1, 1);
    tell(second, 2, 1);
    known_close(first, true);
    known_close(second, true);
    third = known_open(SECRET);
    assert_true(knows(third, 1));
    assert_true(knows(third, 2));
    known_close(third, true);
}

static void of_an_upload_that_is_cut_short_what_was_surely_sent_is_known(void **state)
{
    struct known *killed = known_open(SECRET), *next = known_open(SECRET), *failed;

    (void)state;
    tell(killed, 1, 1 << 20);
    tell(killed, 2, 1U << 30);
    tell(killed, 3, 1 << 20);
    assert_true(knows(next, 1)); /* and `killed` never ends */
    assert_false(knows(next, 3));
    failed = known_open(SECRET);
    tell(failed, 4, 1 << 20);
    known_close(failed, false);
    assert_false(knows(next, 4));
    known_close(next, true);
    known_close(killed, false);
}

static void a_cache_that_is_damaged_within_is_made_anew_and_goes_on(void **state)
{
    struct tree *tree = *state;
    static const char noise[4096] = "noise";
    struct known *known = known_open(SECRET);
    struct stat status;
    char path[160];

    for (unsigned i = 0; i < 200; i++)
        tell(known, (uint8_t)i, 1);
    known_close(known, true);
    snprintf(path, sizeof(path), "%s/westlight/known/files.db", tree->state);
    int fd = open(path, O_WRONLY);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_size > 3 * (off_t)sizeof(noise));
    for (off_t at = sizeof(noise); at < status.st_size; at += sizeof(noise))
        assert_int_equal(pwrite(fd, noise, sizeof(noise), at), sizeof(noise));
    close(fd);
    known = known_open(SECRET);
    assert_non_null(known);
    assert_false(knows(known, 7));
    tell(known, 7, 1);
    known_close(known, true);
    known = known_open(SECRET);
    assert_true(knows(known, 7));
    assert_false(knows(known, 8));
    known_close(known, true);
}

/* ---- crew.h ---- */

static void twice(void *item)
{
    usleep(*(unsigned *)item % 7 * 200);
    *(unsigned *)item *= 2;
}

static void work_comes_back_in_order_whoever_did_it(void **state)
{
    (void)state;
    for (unsigned n_max = 0; n_max <= CREW_THREADS; n_max += 8) {
        struct crew crew = {.run = twice, .n_max = n_max};
        unsigned items[3 * CREW_ITEMS], taken = 0, *item;

        for (unsigned i = 0; i < ARRAY_SIZE(items); i++) {
            items[i] = i;
            if (crew_size(&crew) == CREW_ITEMS) {
                item = crew_take(&crew, true);
                assert_ptr_equal(item, &items[taken]);
                assert_int_equal(*item, 2 * taken++);
            }
            crew_add(&crew, &items[i]);
        }
        for (; taken < ARRAY_SIZE(items) - 5; taken++)
            assert_int_equal(*(unsigned *)crew_take(&crew, true), 2 * taken);
        crew_deinit(&crew); /* the last are done, and nobody asks */
        assert_int_equal(items[ARRAY_SIZE(items) - 1], 2 * (ARRAY_SIZE(items) - 1));
    }
}

#define WITH_TREE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TREE(many_threads_make_the_same_as_one),
        WITH_TREE(what_looks_as_it_did_is_not_read_again_and_what_changed_is),
        WITH_TREE(a_cache_that_is_no_database_is_made_anew_at_once),
        WITH_TREE(two_submissions_at_once_are_both_remembered),
        WITH_TREE(of_an_upload_that_is_cut_short_what_was_surely_sent_is_known),
        WITH_TREE(a_cache_that_is_damaged_within_is_made_anew_and_goes_on),
        cmocka_unit_test(work_comes_back_in_order_whoever_did_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
