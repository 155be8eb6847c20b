/* A tree comes back as it was; a manifest that would write elsewhere is refused whole. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <proto/limits.h>
#include <proto/manifest.h>

static const uint8_t SECRET[32] = {3};

/* A vault of a few blocks in memory, and two folders. */
struct fixture {
    struct sealer *sealer;
    char root[64], out[64];
    int out_fd;
    struct {
        struct block_key key;
        struct bytes sealed;
    } blocks[64];
    size_t n_blocks;
    unsigned fetches;
    bool follow; /* links out of the root */
    unsigned left_out;
    size_t seen; /* files in `out` while one was filled */
    struct bytes opened;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->root, "/tmp/unit-manifest-in-XXXXXX");
    strcpy(f->out, "/tmp/unit-manifest-out-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    assert_non_null(mkdtemp(f->out));
    f->out_fd = open(f->out, O_RDONLY | O_DIRECTORY);
    assert_int_equal(sealer_new(&f->sealer), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < f->n_blocks; i++)
        bytes_deinit(&f->blocks[i].sealed);
    bytes_deinit(&f->opened);
    sealer_free(f->sealer);
    close(f->out_fd);
    folder_remove(f->root);
    folder_remove(f->out);
    free(f);
    return 0;
}

static int emit(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct fixture *f = user;

    for (size_t i = 0; i < f->n_blocks; i++)
        assert_memory_not_equal(&f->blocks[i].key.id, &key->id, 32); /* each once */
    f->blocks[f->n_blocks].key = *key;
    return bytes_append(&f->blocks[f->n_blocks++].sealed, sealed, size);
}

static int fetch(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct fixture *f = user;

    f->fetches++;
    *ret_block = &f->opened;
    for (size_t i = 0; i < f->n_blocks; i++)
        if (memcmp(&f->blocks[i].key.id, &key->id, 32) == 0)
            return open_block(f->sealer, key, f->blocks[i].sealed.data, f->blocks[i].sealed.size,
                              &f->opened);
    return -ENOENT;
}

static void make(struct fixture *f, const char *path, const void *data, size_t size, unsigned mode)
{
    char name[512];

    snprintf(name, sizeof(name), "%s/%s", f->root, path);
    *strrchr(name, '/') = 0;
    assert_int_equal(folder_make(name, 0755), 0);
    snprintf(name, sizeof(name), "%s/%s", f->root, path);
    assert_int_equal(file_write(name, data, size, mode), 0);
}

static void link_make(struct fixture *f, const char *path, const char *target)
{
    char name[512];

    snprintf(name, sizeof(name), "%s/%s", f->root, path);
    assert_int_equal(symlink(target, name), 0);
}

static int pack_tree(struct fixture *f, struct bytes *ret_packed, struct bytes *why)
{
    const char *roots[] = {f->root};
    struct manifest_file files[256];
    char **paths = NULL;
    size_t n = 0;
    uint64_t bytes = 0;

    int r = manifest_walk(f->root, &(struct manifest_walk){.follow = f->follow}, &paths, &n, why);
    for (size_t i = 0; r == 0 && i < n; i++)
        files[i] = (struct manifest_file){.path = paths[i], .follow = f->follow};
    if (r == 0)
        r = manifest_pack(f->sealer, SECRET, NULL, roots, 1, files, n, emit, f, ret_packed, &bytes, why);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return r;
}

static int write_all(struct fixture *f, const Wl__Manifest *manifest, struct bytes *why)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < manifest->n_files; i++)
        r = manifest_write_file(f->out_fd, manifest->files[i], fetch, f, false, why);
    return r;
}

static void same(struct fixture *f, const char *path)
{
    struct bytes a = {0}, b = {0};
    struct stat x, y;
    char name[512];

    snprintf(name, sizeof(name), "%s/%s", f->root, path);
    assert_int_equal(file_read(name, 1u << 24, &a), 0);
    assert_int_equal(stat(name, &x), 0);
    snprintf(name, sizeof(name), "%s/%s", f->out, path);
    assert_int_equal(file_read(name, 1u << 24, &b), 0);
    assert_int_equal(stat(name, &y), 0);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    assert_int_equal(x.st_mode, y.st_mode);
    bytes_deinit(&a);
    bytes_deinit(&b);
}

static void a_tree_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct bytes packed = {0}, why = {0};
    size_t large = 5 * LIMIT_BLOCK_BYTES / 2, n_distinct;
    uint8_t *data = malloc(large);
    struct manifest_sealed sealed;
    struct block_key *distinct;
    Wl__Manifest *manifest = NULL;
    char name[128], target[64];

    for (size_t i = 0; i < large; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 29);
    make(f, "empty", "", 0, 0644);
    make(f, "large.bin", data, large, 0644);
    make(f, "bin/tool", "#!/bin/sh\n", 10, 0755);
    make(f, ".hidden", "x", 1, 0644);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "cache/cache_%04d.vdb", i);
        make(f, name, data + i, (size_t)(900 + i), 0644);
    }
    link_make(f, "cache/latest", "../cache/cache_0099.vdb");
    snprintf(name, sizeof(name), "%s/empty", f->root);
    link_make(f, "cache/absolute", name);

    assert_int_equal(pack_tree(f, &packed, &why), 0);
    assert_int_equal(manifest_parse(packed.data, packed.size, &manifest, &why), 0);
    assert_int_equal(manifest->n_files, 105);
    assert_int_equal(manifest_blocks(manifest, &distinct, &n_distinct), 0);
    assert_in_range(n_distinct, 4, 8); /* of the large file, and one or two that all others share */
    assert_int_equal(n_distinct, f->n_blocks);
    assert_int_equal(write_all(f, manifest, &why), 0);
    same(f, "empty");
    same(f, "large.bin");
    same(f, "bin/tool");
    same(f, "cache/cache_0042.vdb");
    assert_int_equal(faccessat(f->out_fd, ".hidden", F_OK, 0), -1);
    assert_true(readlinkat(f->out_fd, "cache/absolute", target, sizeof(target)) == 8);
    assert_memory_equal(target, "../empty", 8);
    assert_int_equal(faccessat(f->out_fd, "cache/latest", R_OK, 0), 0);

    size_t before = f->n_blocks;
    assert_int_equal(manifest_seal(f->sealer, SECRET, packed.data, packed.size, 64, emit, f, &sealed), 0);
    assert_int_equal(f->n_blocks, before + sealed.n_keys);
    wl__manifest__free_unpacked(manifest, NULL);
    assert_int_equal(manifest_load(sealed.keys, sealed.n_keys, fetch, f, &manifest, &why), 0);
    assert_int_equal(manifest->n_files, 105);
    wl__manifest__free_unpacked(manifest, NULL);
    manifest_sealed_deinit(&sealed);
    free(distinct);
    free(data);
    bytes_deinit(&packed);
    bytes_deinit(&why);
}

static void an_empty_manifest_is_one_block(void **state)
{
    struct fixture *f = *state;
    struct manifest_sealed sealed;
    Wl__Manifest *manifest;

    assert_int_equal(manifest_seal(f->sealer, SECRET, NULL, 0, 1, emit, f, &sealed), 0);
    assert_int_equal(sealed.n_keys, 1);
    assert_int_equal(manifest_load(sealed.keys, 1, fetch, f, &manifest, NULL), 0);
    assert_int_equal(manifest->n_files, 0);
    wl__manifest__free_unpacked(manifest, NULL);
    manifest_sealed_deinit(&sealed);
}

static void files_are_in_the_order_of_their_numbers(void **state)
{
    static const char *const order[] = {
        "f", "f-1", "f-10", "f1/a", "f1-a", "f01", "f2.vdb", "f10.vdb", "f010.vdb",
        "f99999999999999999999", "f100000000000000000000", "g1.x2", "g1.x10", "g01.x1", "g2.x1",
    };
    struct fixture *f = *state;
    char **found = NULL;
    size_t n = 0;

    for (size_t i = sizeof(order) / sizeof(order[0]); i-- > 0;)
        make(f, order[i], "", 0, 0644);
    assert_int_equal(manifest_walk(f->root, &(struct manifest_walk){0}, &found, &n, NULL), 0);
    assert_int_equal(n, sizeof(order) / sizeof(order[0]));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(found[i], order[i]);
        free(found[i]);
    }
    free(found);
}

static void a_link_out_of_the_root_stops_the_walk_by_name(void **state)
{
    struct fixture *f = *state;
    struct bytes packed = {0}, why = {0};

    make(f, "a", "a", 1, 0644);
    link_make(f, "out", "../../etc/passwd");
    assert_int_equal(pack_tree(f, &packed, &why), MANIFEST_E_PATH);
    assert_non_null(strstr((char *)why.data, "etc/passwd"));
    bytes_deinit(&why);
}

static void packing_goes_through_no_link_and_takes_no_special_file(void **state)
{
    struct fixture *f = *state;
    const char *roots[] = {f->root};
    struct bytes packed = {0};
    uint64_t bytes;
    char name[512];
    struct manifest_file file = {.path = "way/passwd"};

    link_make(f, "way", "/etc");
    assert_int_equal(manifest_pack(f->sealer, SECRET, NULL, roots, 1, &file, 1, emit, f, &packed, &bytes,
                                   NULL), MANIFEST_E_PATH);
    snprintf(name, sizeof(name), "%s/pipe", f->root);
    assert_int_equal(mkfifo(name, 0644), 0);
    file.path = "pipe";
    assert_int_equal(manifest_pack(f->sealer, SECRET, NULL, roots, 1, &file, 1, emit, f, &packed, &bytes,
                                   NULL), MANIFEST_E_PATH);
    file.path = "../x";
    assert_int_equal(manifest_pack(f->sealer, SECRET, NULL, roots, 1, &file, 1, emit, f, &packed, &bytes,
                                   NULL), MANIFEST_E_PATH);
}

static void count_left_out(void *user, const char *path, const char *why)
{
    struct fixture *f = user;

    (void)path;
    assert_true(strlen(why) > 0);
    f->left_out++;
}

static bool skip_renders(void *user, const char *path, bool folder)
{
    (void)user;
    return folder && strcmp(path, "renders") == 0;
}

static void links_out_are_followed_where_that_is_asked_for(void **state)
{
    struct fixture *f = *state;
    struct bytes packed = {0}, why = {0};
    Wl__Manifest *manifest;
    char other[] = "/tmp/unit-manifest-else-XXXXXX", name[512];
    char **paths = NULL;
    size_t n = 0;

    assert_non_null(mkdtemp(other));
    snprintf(name, sizeof(name), "%s/inner", other);
    assert_int_equal(file_write(name, "elsewhere", 9, 0644), 0);
    snprintf(name, sizeof(name), "%s/round", other);
    assert_int_equal(symlink(other, name), 0); /* a circle */
    make(f, "a", "hello", 5, 0644);
    make(f, "renders/old.png", "x", 1, 0644);
    link_make(f, "near", "a");
    link_make(f, "folder", other);
    snprintf(name, sizeof(name), "%s/inner", other);
    link_make(f, "far", name);
    link_make(f, "nowhere", "/no/such/file");

    assert_int_equal(pack_tree(f, &packed, &why), MANIFEST_E_PATH);
    f->follow = true;
    assert_int_equal(pack_tree(f, &packed, &why), 0);
    assert_int_equal(manifest_parse(packed.data, packed.size, &manifest, &why), 0);
    assert_int_equal(write_all(f, manifest, &why), 0);
    assert_int_equal(manifest->n_files, 5);
    assert_string_equal(manifest->files[1]->path, "far");
    assert_int_equal(manifest->files[1]->size, 9);
    assert_string_equal(manifest->files[2]->path, "folder/inner");
    assert_int_equal(manifest->files[2]->size, 9);
    assert_string_equal(manifest->files[3]->link, "a");
    struct manifest_walk rules = {
        .follow = true, .skip = skip_renders, .left_out = count_left_out, .user = f};
    assert_int_equal(manifest_walk(f->root, &rules, &paths, &n, &why), 0);
    assert_int_equal(n, 4);
    assert_int_equal(f->left_out, 2); /* the circle, and the link to nothing */
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    wl__manifest__free_unpacked(manifest, NULL);
    bytes_deinit(&packed);
    bytes_deinit(&why);
    folder_remove(other);
}

/* ---- manifests of a liar ---- */

static int parse_entries(Wl__FileEntry *entries, size_t n)
{
    Wl__Manifest manifest = WL__MANIFEST__INIT, *again = NULL;
    Wl__FileEntry *pointers[4];
    uint8_t data[16384];

    for (size_t i = 0; i < n; i++)
        pointers[i] = &entries[i];
    manifest.files = pointers;
    manifest.n_files = n;
    size_t size = wl__manifest__pack(&manifest, data);
    int r = manifest_parse(data, size, &again, NULL);
    if (r == 0)
        wl__manifest__free_unpacked(again, NULL);
    return r;
}

static void paths_that_lead_elsewhere_are_refused(void **state)
{
    static const struct {
        const char *path;
        bool ok;
    } cases[] = {
        {"a", true}, {"a/b.exr", true}, {"..a/b..", true}, {".a", true}, {"", false}, {"/a", false},
        {"a/", false}, {"a//b", false}, {"..", false}, {"../a", false}, {"a/../b", false},
        {"a/..", false}, {".", false}, {"./a", false}, {"a/./b", false}, {"/", false},
    };
    char longest[LIMIT_PATH_BYTES + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Wl__FileEntry entry = WL__FILE_ENTRY__INIT;

        entry.path = (char *)cases[i].path;
        assert_int_equal(manifest_path_ok(cases[i].path), cases[i].ok);
        assert_int_equal(parse_entries(&entry, 1), cases[i].ok ? 0 : MANIFEST_E_PATH);
    }
    for (size_t i = 0; i < LIMIT_PATH_BYTES; i++)
        longest[i] = i % 2 ? '/' : 'a';
    longest[LIMIT_PATH_BYTES] = 0;
    assert_false(manifest_path_ok(longest));
    longest[LIMIT_PATH_BYTES - 1] = 0;
    assert_true(manifest_path_ok(longest));
    memset(longest, 'a', 256);
    longest[256] = 0;
    assert_false(manifest_path_ok(longest));
}

static void links_that_lead_out_are_refused(void **state)
{
    static const struct {
        const char *path, *target;
        bool ok;
    } cases[] = {
        {"l", "a", true}, {"l", "./a", true}, {"d/l", "../a", true}, {"d/e/l", "../../a/b", true},
        {"l", "/a", false}, {"l", "..", false}, {"l", "../a", false}, {"d/l", "../../a", false},
        {"d/l", "a/../..", false}, {"d/l", "a/..", false}, {"l", "a/../b", false},
        {"d/l", "a//b", true}, {"l", "a/", true}, {"d/l", "..//a/", true}, {"l", "..//a", false},
        {"d/l", "../../", false}, {"l", ".//", true}, {"l", "//a", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Wl__FileEntry entry = WL__FILE_ENTRY__INIT;

        entry.path = (char *)cases[i].path;
        entry.link = (char *)cases[i].target;
        assert_int_equal(parse_entries(&entry, 1), cases[i].ok ? 0 : MANIFEST_E_PATH);
    }
}

static void entries_that_contradict_each_other_are_refused(void **state)
{
    static const struct {
        const char *a, *a_link, *b;
        int result;
    } cases[] = {
        {"a", "", "b", 0},       {"a", "", "a-b", 0},    {"a/b", "", "a/c", 0},
        {"a", "", "a", MANIFEST_E_PATH}, {"a", "", "a/b", MANIFEST_E_PATH},
        {"a", "b", "a/b", MANIFEST_E_PATH}, {"a", "b", "a", MANIFEST_E_PATH},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Wl__FileEntry entries[4];

        for (size_t k = 0; k < 4; k++)
            wl__file_entry__init(&entries[k]);
        entries[0].path = (char *)cases[i].b; /* in either order */
        entries[1].path = (char *)"a.between";
        entries[2].path = (char *)"a!";
        entries[3].path = (char *)cases[i].a;
        entries[3].link = (char *)cases[i].a_link;
        assert_int_equal(parse_entries(entries, 4), cases[i].result);
        entries[0].root = 1; /* of another root it is no contradiction */
        assert_int_equal(parse_entries(entries, 4), 0);
    }
}

static void parts_and_modes_that_cannot_be_are_refused(void **state)
{
    static const struct {
        uint32_t offset, length, body;
        uint64_t size;
        uint32_t mode;
        const char *link;
        int result;
    } cases[] = {
        {0, 5, 5, 5, 0644, "", 0},
        {2, 3, 5, 3, 0644, "", 0},
        {2, 4, 5, 4, 0644, "", MANIFEST_E_FORM},
        {UINT32_MAX, 2, 5, 2, 0644, "", MANIFEST_E_FORM},
        {0, 5, 5, 6, 0644, "", MANIFEST_E_FORM},
        {0, 0, 5, 0, 0644, "", MANIFEST_E_FORM},
        {0, 5, 5, 5, 04755, "", MANIFEST_E_FORM},
        {0, 5, 5, 5, 0644, "b", MANIFEST_E_FORM},
        {0, 5, LIMIT_BLOCK_BYTES + 1, 5, 0644, "", MANIFEST_E_LIMIT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t id[32] = {0};
        Wl__FileEntry entry = WL__FILE_ENTRY__INIT;
        Wl__Part part = WL__PART__INIT, *parts[] = {&part};
        Wl__BlockKey key = WL__BLOCK_KEY__INIT;

        key.id = key.key = (ProtobufCBinaryData){32, id};
        key.body_bytes = cases[i].body;
        part.block = &key;
        part.offset = cases[i].offset;
        part.length = cases[i].length;
        entry.path = (char *)"a";
        entry.link = (char *)cases[i].link;
        entry.size = cases[i].size;
        entry.mode = cases[i].mode;
        entry.parts = parts;
        entry.n_parts = 1;
        assert_int_equal(parse_entries(&entry, 1), cases[i].result);
    }
}

static void writing_follows_no_link_and_replaces_no_folder(void **state)
{
    struct fixture *f = *state;
    struct bytes why = {0};
    Wl__FileEntry entry = WL__FILE_ENTRY__INIT;
    struct stat st;

    entry.mode = 0600;
    assert_int_equal(symlinkat(f->root, f->out_fd, "way"), 0);
    entry.path = (char *)"way/file";
    assert_int_equal(manifest_write_file(f->out_fd, &entry, fetch, f, false, &why),
                     MANIFEST_E_PATH);
    assert_non_null(strstr((char *)why.data, "way/file"));
    assert_int_equal(mkdirat(f->out_fd, "folder", 0755), 0);
    entry.path = (char *)"folder";
    assert_int_equal(manifest_write_file(f->out_fd, &entry, fetch, f, false, &why),
                     MANIFEST_E_PATH);
    entry.path = (char *)"../file";
    assert_int_equal(manifest_write_file(f->out_fd, &entry, fetch, f, false, &why),
                     MANIFEST_E_PATH);
    entry.path = (char *)"way"; /* the link itself is replaced, not what it points to */
    assert_int_equal(manifest_write_file(f->out_fd, &entry, fetch, f, true, &why), 0);
    assert_int_equal(fstatat(f->out_fd, "way", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(st.st_mode));
    bytes_deinit(&why);
}

static void name_it(struct fixture *f, bool link, bool nameless, const struct manifest_stood *stood,
                    int expected)
{
    Wl__FileEntry entry = WL__FILE_ENTRY__INIT;
    struct manifest_made made;

    entry.path = (char *)"f";
    entry.mode = 0600;
    entry.link = (char *)(link ? "target" : "");
    assert_int_equal(manifest_make_file(f->out_fd, &entry, fetch, f, &made, NULL), 0);
    if (!link && !nameless && made.nameless) { /* as where every file has a name */
        strcpy(made.spare, ".temporary");
        close(made.fd);
        made.fd = openat(f->out_fd, made.spare, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(made.fd >= 0);
        made.nameless = false;
    }
    assert_int_equal(manifest_name_file(&made, true, stood), expected);
    assert_int_equal(faccessat(f->out_fd, ".temporary", F_OK, AT_SYMLINK_NOFOLLOW), -1);
}

static void stands(struct fixture *f, struct manifest_stood *ret_stood)
{
    ret_stood->there = fstatat(f->out_fd, "f", &ret_stood->status, AT_SYMLINK_NOFOLLOW) == 0;
}

static void what_came_into_a_files_place_meanwhile_is_not_replaced(void **state)
{
    struct fixture *f = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/f", f->out);
    for (unsigned kind = 0; kind < 3; kind++) {
        struct manifest_stood stood, now;

        unlink(path);
        stands(f, &stood);
        assert_int_equal(file_write(path, "a person's", 10, 0644), 0);
        name_it(f, kind == 0, kind == 1, &stood, -EEXIST); /* there was nothing */
        stands(f, &stood);
        assert_int_equal(stood.status.st_size, 10);
        name_it(f, kind == 0, kind == 1, &stood, 0); /* it was there when that was decided */
        stands(f, &now);
        assert_int_equal(S_ISLNK(now.status.st_mode), kind == 0);
        assert_int_not_equal(now.status.st_ino, stood.status.st_ino);
        name_it(f, kind == 0, kind == 1, &stood, -EEXIST); /* it is another by now */
        unlink(path);
        name_it(f, kind == 0, kind == 1, &stood, 0); /* who took it away wants nothing kept */
        assert_int_equal(file_write(path, "a person's", 10, 0644), 0);
        name_it(f, kind == 0, kind == 1, NULL, 0); /* by force */
    }
}

static void a_file_whose_block_is_missing_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct bytes packed = {0};
    Wl__Manifest *manifest;
    struct bytes why = {0};

    make(f, "a", "hello", 5, 0644);
    assert_int_equal(pack_tree(f, &packed, &why), 0);
    assert_int_equal(manifest_parse(packed.data, packed.size, &manifest, &why), 0);
    memset(&f->blocks[0].key.id, 0, 32);
    assert_int_equal(write_all(f, manifest, &why), -ENOENT);
    char **paths = NULL;
    size_t n = 1;
    assert_int_equal(manifest_walk(f->out, &(struct manifest_walk){.hidden = true}, &paths, &n, &why), 0);
    assert_int_equal(n, 0);
    free(paths);
    wl__manifest__free_unpacked(manifest, NULL);
    bytes_deinit(&packed);
    bytes_deinit(&why);
}

static void a_file_belongs_to_the_frame_in_its_name(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool match;
        int64_t frame;
    } cases[] = {
        {"cache_####.vdb", "cache_0007.vdb", true, 7},
        {"*_####.vdb", "v2/smoke_012_0007.vdb", true, 7},
        {"c_#.vdb", "c_-3.vdb", true, -3},
        {"c_####.vdb", "c_7.vdb", false, 0},
        {"c_####.vdb", "d_0007.vdb", false, 0},
        {"c_####.vdb", "c_99999999999999999999.vdb", false, 0},
        {"c_####.vdb", "c_.vdb", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t frame = 0;
        uint64_t work = 1000;

        assert_int_equal(manifest_frame_of(cases[i].pattern, cases[i].path, &frame, &work),
                         cases[i].match);
        assert_int_equal(frame, cases[i].frame);
    }
}

static void patterns_hold_the_frame_number(void **state)
{
    static const struct {
        const char *pattern, *path;
        int64_t frame;
        bool match;
    } cases[] = {
        {"cache_####.vdb", "cache_0007.vdb", 7, true},
        {"cache_####.vdb", "cache_0008.vdb", 7, false},
        {"cache_####.vdb", "cache_12345.vdb", 12345, true},
        {"c_#.vdb", "c_7.vdb", 7, true},
        {"c_####.vdb", "c_-003.vdb", -3, true},
        {"tex/*", "tex/a/b.png", 1, true},
        {"*.png", "tex/a.png", 1, true},
        {"*.png", "tex/a.pngx", 1, false},
        {"a?c", "abc", 1, true},
        {"a?c", "ac", 1, false},
        {"*a*b*c", "xxaxxbxxbc", 1, true},
        {"*a*b*c", "xxaxxbxxbcd", 1, false},
        {"*", "", 1, true},
        {"", "a", 1, false},
        {"", "", 1, true},
        {"ab*bc", "abc", 1, false},
        {"abc", "abcd", 1, false},
        {"*", "a#b", 1, true},
        {"a?c*", "abcd", 1, true},
        {"####", "0007", 7, true},
        {"##.#", "07.7", 7, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t work = 1000, none = 0;

        assert_int_equal(manifest_match(cases[i].pattern, cases[i].path, cases[i].frame, &work),
                         cases[i].match);
        assert_true(work <= 1000 - strlen(cases[i].pattern) && work > 900);
        assert_false(manifest_match(cases[i].pattern, cases[i].path, cases[i].frame, &none));
    }
}

/* What another would see in the folder while a file is being filled. */
static int fetch_and_look(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct fixture *f = user;
    char **paths = NULL;
    size_t n = 0;

    assert_int_equal(manifest_walk(f->out, &(struct manifest_walk){.hidden = true}, &paths, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(paths[i], "f"); /* and nothing under a temporary name */
        free(paths[i]);
    }
    free(paths);
    f->seen = n;
    return fetch(user, key, ret_block);
}

static void a_file_has_no_name_until_it_is_whole(void **state)
{
    struct fixture *f = *state;
    struct bytes packed = {0};
    Wl__Manifest *manifest = NULL;
    int fd = open(f->out, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

    if (fd < 0)
        skip(); /* this file system makes none without a name */
    close(fd);
    make(f, "f", "version 1", 9, 0640);
    assert_int_equal(pack_tree(f, &packed, NULL), 0);
    assert_int_equal(manifest_parse(packed.data, packed.size, &manifest, NULL), 0);
    for (size_t round = 0; round < 2; round++) { /* the second time it replaces the first */
        f->seen = 9;
        assert_int_equal(manifest_write_file(f->out_fd, manifest->files[0], fetch_and_look, f, true,
                                             NULL),
                         0);
        assert_int_equal(f->seen, round);
        same(f, "f");
    }
    wl__manifest__free_unpacked(manifest, NULL);
    bytes_deinit(&packed);
}

#define WITH_FOLDERS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDERS(a_tree_comes_back_as_it_was),
        WITH_FOLDERS(an_empty_manifest_is_one_block),
        WITH_FOLDERS(files_are_in_the_order_of_their_numbers),
        WITH_FOLDERS(a_link_out_of_the_root_stops_the_walk_by_name),
        WITH_FOLDERS(packing_goes_through_no_link_and_takes_no_special_file),
        cmocka_unit_test(paths_that_lead_elsewhere_are_refused),
        cmocka_unit_test(links_that_lead_out_are_refused),
        cmocka_unit_test(entries_that_contradict_each_other_are_refused),
        cmocka_unit_test(parts_and_modes_that_cannot_be_are_refused),
        WITH_FOLDERS(writing_follows_no_link_and_replaces_no_folder),
        WITH_FOLDERS(what_came_into_a_files_place_meanwhile_is_not_replaced),
        WITH_FOLDERS(a_file_whose_block_is_missing_leaves_nothing),
        WITH_FOLDERS(links_out_are_followed_where_that_is_asked_for),
        cmocka_unit_test(a_file_belongs_to_the_frame_in_its_name),
        WITH_FOLDERS(a_file_has_no_name_until_it_is_whole),
        cmocka_unit_test(patterns_hold_the_frame_number),
    };

    umask(022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
