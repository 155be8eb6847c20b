/* collect.c - what counts as a task's output: created, changed, links kept, the rest left. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/wire.h>
#include <worker/collect.h>

static char base[64], out[80], other[96];
static struct bytes why;

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/westlight-collect-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(out, sizeof(out), "%s/out", base);
    snprintf(other, sizeof(other), "%s/inner", out);
    return folder_make(out, 0700);
}

static int teardown(void **state)
{
    (void)state;
    bytes_deinit(&why);
    return folder_remove(base);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void make_link(const char *name, const char *target)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", out, name);
    assert_int_equal(symlink(target, path), 0);
}

/* "0:a.png 1:b.png" */
static void listing(struct collect *collect, struct bytes *notes, char text[512])
{
    _cleanup_(freep) struct manifest_file *files = NULL;
    size_t n, at = 0;

    assert_int_equal(collect_list(collect, &files, &n, notes, &why), 0);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, 512 - at, "%s%u:%s", i ? " " : "", files[i].root,
                               files[i].path);
}

static void created_and_changed_files_come_home_and_others_stay(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    char text[512], path[256];

    folder_make(other, 0700);
    write_file(out, "input.pov", "sphere");
    write_file(other, "old.png", "old");
    write_file(out, "grown", "1");
    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    write_file(out, "b.png", "new");
    write_file(other, "a.png", "new");
    write_file(out, "grown", "12");
    write_file(out, ".hidden", "");
    snprintf(path, sizeof(path), "%s/inner/old.png", out);
    assert_int_equal(unlink(path), 0);
    listing(collect, &notes, text);
    assert_string_equal(text, "0:.hidden 0:b.png 0:grown 0:inner/a.png");
    assert_int_equal(notes.size, 0);
}

static void a_file_replaced_by_one_of_equal_size_is_seen(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    char text[512], path[256], new_path[256];
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

    write_file(out, "same", "one");
    snprintf(path, sizeof(path), "%s/same", out);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    listing(collect, &notes, text);
    assert_string_equal(text, "");
    write_file(out, "new", "two");
    snprintf(new_path, sizeof(new_path), "%s/new", out);
    assert_int_equal(rename(new_path, path), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    listing(collect, &notes, text);
    assert_string_equal(text, "0:same");
}

static void a_file_edited_in_place_is_seen_though_its_time_was_set_back(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    char text[512], path[256];
    struct stat before, after;

    snprintf(path, sizeof(path), "%s/cache", out);
    write_file(out, "cache", "one");
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    do { /* until the file system's clock has ticked */
        write_file(out, "cache", "two");
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        assert_int_equal(stat(path, &after), 0);
    } while (memcmp(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim)) == 0);
    assert_int_equal(before.st_ino, after.st_ino);
    listing(collect, &notes, text);
    assert_string_equal(text, "0:cache");
}

static void an_output_inside_another_has_its_own_files(void **state)
{
    const char *folders[] = {out, other, out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    char text[512];

    folder_make(other, 0700);
    assert_int_equal(collect_new(folders, 3, NULL, &collect, &why), 0);
    write_file(out, "a", "1");
    write_file(other, "b", "1");
    listing(collect, &notes, text);
    assert_string_equal(text, "0:a 1:b");
}

static void links_inside_are_kept_and_links_out_and_pipes_are_named(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    char text[512], path[256];

    folder_make(other, 0700);
    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    write_file(out, "a", "1");
    make_link("inner/up", "../a");
    make_link("inner/out", "../../secret");
    make_link("absolute", "/etc/passwd");
    make_link("escape", "inner/../../x");
    make_link("roundabout", "inner/../a"); /* where "inner" may be a link itself */
    snprintf(path, sizeof(path), "%s/pipe", out);
    assert_int_equal(mkfifo(path, 0600), 0);
    listing(collect, &notes, text);
    assert_string_equal(text, "0:a 0:inner/up");
    assert_int_equal(bytes_append(&notes, "", 1), 0);
    assert_non_null(strstr((char *)notes.data, "/inner/out: the link leads out"));
    assert_non_null(strstr((char *)notes.data, "/absolute: the link leads out"));
    assert_non_null(strstr((char *)notes.data, "/escape: the link leads out"));
    assert_non_null(strstr((char *)notes.data, "/roundabout: the link leads out"));
    assert_non_null(strstr((char *)notes.data, "/pipe: not a file"));
}

static void a_folder_behind_a_link_is_not_entered(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    _cleanup_(freep) struct manifest_file *files = NULL;
    char path[256];
    size_t n;

    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    snprintf(path, sizeof(path), "%s/elsewhere", base);
    folder_make(path, 0700);
    write_file(path, "secret", "x");
    assert_int_equal(folder_remove(out), 0);
    assert_int_equal(symlink(path, out), 0);
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), -ENOTDIR);
    assert_non_null(strstr((char *)why.data, out));
}

static void what_cannot_be_read_is_an_error_that_names_it(void **state)
{
    const char *folders[] = {out};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(freep) struct manifest_file *files = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    size_t n;

    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    folder_make(other, 0700);
    write_file(other, "g", "pixels");
    assert_int_equal(chmod(other, 0300), 0); /* its names cannot be listed */
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), -EACCES);
    assert_non_null(strstr((char *)why.data, "/out/inner cannot be read: Permission denied"));
    why.size = 0;
    assert_int_equal(chmod(other, 0400), 0); /* they can, but not what they are */
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), -EACCES);
    assert_non_null(strstr((char *)why.data, "/out/inner/g cannot be read: Permission denied"));
    assert_int_equal(chmod(other, 0700), 0);
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), 0);
    assert_int_equal(n, 1);
}

static void a_folder_that_is_not_there_is_no_error(void **state)
{
    const char *folders[] = {other};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    char text[512];

    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    listing(collect, &notes, text);
    assert_string_equal(text, "");
    assert_int_equal(why.size, 0);
}

struct emitted {
    size_t n;
};

static int count(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct block_id id;

    digest(sealed, size, &id);
    assert_memory_equal(&id, &key->id, sizeof(id));
    ((struct emitted *)user)->n++;
    return 0;
}

static void what_was_collected_is_sealed_under_the_key_of_the_task(void **state)
{
    const char *folders[] = {out};
    const uint8_t secret[32] = {7}, wrong[32] = {8};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(sealer_freep) struct sealer *sealer = NULL;
    _cleanup_(freep) struct manifest_file *files = NULL;
    _cleanup_(collected_deinit) struct collected collected = {0};
    _cleanup_(bytes_deinit) struct bytes notes = {0}, again = {0};
    struct emitted emitted = {0};
    struct block_key key, other_key;
    Wl__Manifest *manifest = NULL;
    size_t n;

    assert_int_equal(sealer_new(&sealer), 0);
    assert_int_equal(collect_new(folders, 1, NULL, &collect, &why), 0);
    write_file(out, "frame.png", "pixels");
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), 0);
    assert_int_equal(
        collect_seal(collect, sealer, secret, files, n, count, &emitted, &collected, &why), 0);
    assert_int_equal(emitted.n, 1);
    assert_int_equal(collected.files, 1);
    assert_int_equal(collected.file_bytes, 6);
    assert_int_equal(
        manifest_parse(collected.manifest.data, collected.manifest.size, &manifest, &why), 0);
    assert_int_equal(manifest->n_files, 1);
    assert_string_equal(manifest->files[0]->path, "frame.png");
    assert_int_equal(wire_block_key(manifest->files[0]->parts[0]->block, &key), 0);
    assert_int_equal(seal_block(sealer, secret, "pixels", 6, &again, &other_key), 0);
    assert_memory_equal(&key.id, &other_key.id, sizeof(key.id));
    assert_int_equal(seal_block(sealer, wrong, "pixels", 6, &again, &other_key), 0);
    assert_memory_not_equal(&key.id, &other_key.id, sizeof(key.id));
    wl__manifest__free_unpacked(manifest, NULL);
}

static void what_is_collected_can_be_packed_whatever_links_lie_beside_it(void **state)
{
    static const char *const targets[] = {
        "inner/",   "inner//a", ".//inner",   ".",        "./",      "..",
        "/",        "inner/..", "inner/../a", "../out/a", "nowhere", "//etc",
        "../../..", "inner/a/", "self",       "...",      "-",       "\xff\n",
    };
    const char *folders[] = {out, other};
    const uint8_t secret[32] = {7};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(sealer_freep) struct sealer *sealer = NULL;
    _cleanup_(freep) struct manifest_file *files = NULL;
    _cleanup_(collected_deinit) struct collected collected = {0};
    _cleanup_(bytes_deinit) struct bytes notes = {0};
    struct emitted emitted = {0};
    Wl__Manifest *manifest = NULL;
    char name[300], target[256];
    size_t n;

    folder_make(other, 0700);
    assert_int_equal(sealer_new(&sealer), 0);
    assert_int_equal(collect_new(folders, 2, NULL, &collect, &why), 0);
    write_file(out, "frame.png", "pixels");
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        snprintf(name, sizeof(name), "link%zu", i);
        make_link(name, targets[i]);
        snprintf(name, sizeof(name), "inner/link%zu", i);
        make_link(name, targets[i]);
    }
    snprintf(target, sizeof(target), "%s/frame.png", out);
    make_link("absolute", target);
    memset(name, 'x', sizeof(name)); /* longer than any name */
    name[sizeof(name) - 1] = '\0';
    make_link("long", name);
    assert_int_equal(collect_list(collect, &files, &n, &notes, &why), 0);
    assert_int_equal(
        collect_seal(collect, sealer, secret, files, n, count, &emitted, &collected, &why), 0);
    assert_int_equal(
        manifest_parse(collected.manifest.data, collected.manifest.size, &manifest, &why), 0);
    assert_int_equal(manifest->n_files, n);
    for (size_t i = 0; i < n; i++) {
        const char *path = manifest->files[i]->path, *link = manifest->files[i]->link;

        assert_string_not_equal(path, "long");
        if (strcmp(path, "absolute") == 0)
            assert_string_equal(link, "frame.png");
        if (strcmp(path, "link0") == 0)
            assert_string_equal(link, "inner/");
    }
    wl__manifest__free_unpacked(manifest, NULL);
    assert_int_equal(n, 2 + 2 * 11);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    /* Nothing is forbidden to root. */
    if (geteuid() == 0 &&
        (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
        return 1;
    const struct CMUnitTest tests[] = {
        CASE(created_and_changed_files_come_home_and_others_stay),
        CASE(a_file_replaced_by_one_of_equal_size_is_seen),
        CASE(a_file_edited_in_place_is_seen_though_its_time_was_set_back),
        CASE(an_output_inside_another_has_its_own_files),
        CASE(links_inside_are_kept_and_links_out_and_pipes_are_named),
        CASE(a_folder_behind_a_link_is_not_entered),
        CASE(what_cannot_be_read_is_an_error_that_names_it),
        CASE(a_folder_that_is_not_there_is_no_error),
        CASE(what_was_collected_is_sealed_under_the_key_of_the_task),
        CASE(what_is_collected_can_be_packed_whatever_links_lie_beside_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
