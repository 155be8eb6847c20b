/* What is kept of an upload: whatever its words, it comes back as it was; it is secret, locked while
 * somebody sends, and what is no such file does no harm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <client/unsent.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/westlight-unsent-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return setenv("XDG_STATE_HOME", folder, 1);
}

static int remove_folder(void **state)
{
    (void)state;
    return folder_remove(folder);
}

static char *words[] = {(char *)"submit", (char *)"a scene\nof two lines.blend", (char *)"-p", (char *)"",
                        (char *)"run=\xff \"$OUT\""};

/* 32 digits; the later, the newer. */
static struct unsent upload(char digit, int64_t begun_wall_s)
{
    struct unsent unsent = {.begun_wall_s = begun_wall_s,
                            .name = "shot 7",
                            .farm = "west",
                            .folder = "/home/ann/my films",
                            .out = "/home/ann/frames",
                            .argv = words,
                            .argc = 5,
                            .lock = -1};

    memset(unsent.submission.id, digit, 32);
    memset(unsent.submission.key, digit, 32);
    memset(unsent.submission.print, digit + 1, 32);
    return unsent;
}

static void path_of(char digit, char path[256])
{
    char id[33] = "";

    memset(id, digit, 32);
    snprintf(path, 256, "%s/westlight/uploads/%s", folder, id);
}

static size_t listed(struct unsent **ret_list)
{
    size_t n = 0;

    assert_int_equal(unsent_list(ret_list, &n), 0);
    return n;
}

static void it_comes_back_as_it_was_whatever_the_words(void **state)
{
    struct unsent one = upload('a', 5), *list;
    struct stat status;
    char path[256];

    (void)state;
    assert_int_equal(listed(&list), 0);
    unsent_list_free(list, 0);
    assert_int_equal(unsent_keep(&one), 0);
    path_of('a', path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(listed(&list), 1);
    assert_memory_equal(&list[0].submission, &one.submission, sizeof(one.submission));
    assert_int_equal(list[0].begun_wall_s, 5);
    assert_string_equal(list[0].name, one.name);
    assert_string_equal(list[0].farm, one.farm);
    assert_string_equal(list[0].folder, one.folder);
    assert_string_equal(list[0].out, one.out);
    assert_int_equal(list[0].argc, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(list[0].argv[i], words[i]);
    assert_null(list[0].argv[5]);
    unsent_list_free(list, 1);
    unsent_drop(&one);
    unsent_deinit(&one);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(listed(&list), 0);
    unsent_list_free(list, 0);
}

static void one_at_a_time_sends(void **state)
{
    struct unsent one = upload('a', 5), *list;

    (void)state;
    assert_int_equal(unsent_keep(&one), 0);
    assert_int_equal(listed(&list), 1);
    assert_int_equal(unsent_lock(&list[0]), -EWOULDBLOCK);
    unsent_deinit(&one); /* as if it had died */
    assert_int_equal(unsent_lock(&list[0]), 0);
    assert_int_equal(unsent_keep(&list[0]), 0); /* written anew, it is still locked */
    one = upload('a', 5);
    assert_int_equal(unsent_lock(&one), -EWOULDBLOCK);
    unsent_deinit(&one);
    unsent_list_free(list, 1);
}

static void one_is_given_up_by_its_first_digits_unless_somebody_sends_it(void **state)
{
    struct unsent one = upload('a', 5), other = upload('a', 6), *list;
    char id[WESTLIGHT_ID_TEXT] = "";

    (void)state;
    other.submission.id[5] = 'b';
    assert_int_equal(unsent_keep(&one), 0);
    assert_int_equal(unsent_keep(&other), 0);
    assert_false(unsent_forget("aaaaaa", id));
    unsent_deinit(&one);
    assert_false(unsent_forget("aaa", id));
    assert_false(unsent_forget("aaaaa", id)); /* which of the two? */
    assert_true(unsent_forget("aaaaaa", id));
    assert_string_equal(id, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_int_equal(listed(&list), 1);
    unsent_list_free(list, 1);
    unsent_deinit(&other);
}

static void the_newest_is_first_and_what_cannot_be_read_is_left_out(void **state)
{
    static const char odd[] = "westlight upload 2\0id ", cut[] = "westlight upload 1\0id b\0key";
    struct unsent uploads[] = {upload('a', 5), upload('b', 9), upload('c', 7)}, *list;
    char path[256];

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(unsent_keep(&uploads[i]), 0);
    path_of('d', path);
    assert_int_equal(file_write(path, odd, sizeof(odd), 0600), 0);
    path_of('e', path);
    assert_int_equal(file_write(path, cut, sizeof(cut) - 1, 0600), 0);
    path_of('f', path);
    assert_int_equal(file_write(path, "", 0, 0600), 0);
    path_of('0', path); /* under another id */
    char from[256];
    path_of('a', from);
    assert_int_equal(rename(from, path), 0);
    assert_int_equal(listed(&list), 2);
    assert_int_equal(list[0].submission.id[0], 'b');
    assert_int_equal(list[1].submission.id[0], 'c');
    unsent_list_free(list, 2);
    for (size_t i = 0; i < 3; i++)
        unsent_deinit(&uploads[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_comes_back_as_it_was_whatever_the_words),
        TEST(one_at_a_time_sends),
        TEST(one_is_given_up_by_its_first_digits_unless_somebody_sends_it),
        TEST(the_newest_is_first_and_what_cannot_be_read_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
