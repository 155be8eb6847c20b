/* spares.c - files brought to where none can be without a name: under which one they come, and what
 * a killed program leaves. */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/manifest.h>

static char base[64];
static int folder;

/* As over NFS. */
int __wrap_nameless_open(int at, unsigned mode);
int __wrap_nameless_open(int at, unsigned mode)
{
    (void)at, (void)mode;
    return -1;
}

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/westlight-spares-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    folder = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    close(folder);
    return folder_remove(base);
}

static size_t files(void)
{
    DIR *all = opendir(base);
    struct dirent *item;
    size_t n = 0;

    assert_non_null(all);
    while ((item = readdir(all)))
        n += strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0;
    closedir(all);
    return n;
}

/* An empty file: what is in it is not the question here. */
static int make(const char *path, struct manifest_made *ret_made)
{
    Wl__FileEntry entry = WL__FILE_ENTRY__INIT;

    entry.path = (char *)path;
    entry.mode = 0644;
    return manifest_make_file(folder, &entry, NULL, NULL, ret_made, NULL);
}

static void killed_while_it_made(const char *path)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        struct manifest_made made;

        _exit(make(path, &made) == 0 ? 7 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void what_a_killed_program_left_goes_when_the_file_comes_again(void **state)
{
    struct manifest_made made;

    (void)state;
    for (int i = 0; i < 3; i++)
        killed_while_it_made("frame.png");
    assert_int_equal(files(), 1);
    assert_int_equal(make("frame.png", &made), 0);
    assert_int_equal(manifest_name_file(&made, true, NULL), 0);
    assert_int_equal(files(), 1);
    assert_int_equal(faccessat(folder, "frame.png", F_OK, 0), 0);
}

static void two_that_write_one_file_leave_each_others_alone(void **state)
{
    struct manifest_made first, second, third;

    (void)state;
    assert_int_equal(make("frame.png", &first), 0);
    assert_int_equal(make("frame.png", &second), 0);
    assert_int_equal(make("other.png", &third), 0);
    assert_int_equal(files(), 3);
    assert_int_equal(manifest_name_file(&first, false, NULL), 0);
    killed_while_it_made("frame.png"); /* under the name that is free again */
    assert_int_equal(manifest_name_file(&second, false, NULL), 0);
    manifest_drop_file(&third);
    assert_int_equal(files(), 2);
    assert_int_equal(make("frame.png", &first), 0);
    assert_int_equal(manifest_name_file(&first, false, NULL), 0);
    assert_int_equal(files(), 1);
}

static void what_is_not_a_file_there_is_no_reason_to_fail(void **state)
{
    struct manifest_made made;
    char spare[32];

    (void)state;
    assert_int_equal(make("frame.png", &made), 0);
    memcpy(spare, made.spare, sizeof(spare));
    manifest_drop_file(&made);
    assert_int_equal(mkfifoat(folder, spare, 0600), 0);
    assert_int_equal(make("frame.png", &made), 0);
    assert_int_equal(manifest_name_file(&made, false, NULL), 0);
    assert_int_equal(files(), 2);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_a_killed_program_left_goes_when_the_file_comes_again),
        CASE(two_that_write_one_file_leave_each_others_alone),
        CASE(what_is_not_a_file_there_is_no_reason_to_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
