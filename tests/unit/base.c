/* Buffers, hexadecimal, whole files, folders, time stamps. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/args.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/base/list.h>
#include <proto/base/log.h>

static char folder[64];

static const char *below(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *at = path[turn++ % 4];

    snprintf(at, sizeof(path[0]), "%s/%s", folder, name);
    return at;
}

static int setup(void **state)
{
    snprintf(folder, sizeof(folder), "/tmp/westlight-unit-base-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    return folder_remove(folder);
}

static void a_buffer_grows_and_keeps_what_it_had(void **state)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0};

    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(bytes_printf(&bytes, "%03u,", i), 0);
    assert_int_equal(bytes.size, 4000);
    assert_memory_equal(bytes.data, "000,001,", 8);
    assert_memory_equal(bytes.data + 3996, "999,", 5);
    assert_int_equal(bytes_append(&bytes, NULL, 0), 0);
    assert_int_equal(bytes_append(&bytes, "x", SIZE_MAX), -ENOMEM);
    assert_int_equal(bytes.size, 4000);
}

static void hexadecimal_goes_there_and_back_and_refuses_the_rest(void **state)
{
    uint8_t data[3] = {0x00, 0x9f, 0xff}, back[3];
    char text[7];

    assert_string_equal(hex_encode(data, 3, text), "009fff");
    assert_int_equal(hex_decode("009FfF", back, 3), 0);
    assert_memory_equal(data, back, 3);
    assert_int_equal(hex_decode("009ff", back, 3), -EINVAL);
    assert_int_equal(hex_decode("009fff0", back, 3), -EINVAL);
    assert_int_equal(hex_decode("009fg0", back, 3), -EINVAL);
    assert_memory_equal(data, back, 3);
}

static void secrets_compare_by_every_byte(void **state)
{
    uint8_t a[32], b[32];

    assert_int_equal(random_bytes(a, 32), 0);
    memcpy(b, a, 32);
    assert_true(bytes_equal_secret(a, b, 32));
    for (size_t i = 0; i < 32; i++) {
        b[i] ^= 0x80;
        assert_false(bytes_equal_secret(a, b, 32));
        b[i] ^= 0x80;
    }
    wipe(a, 32);
    assert_memory_equal(a, (uint8_t[32]){0}, 32);
}

static void a_written_file_is_read_back_whole_with_its_mode(void **state)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0};
    const char *path = below("file");
    struct stat status;

    assert_int_equal(file_write(path, "one", 3, 0640), 0);
    assert_int_equal(file_write(path, "three", 5, 0600), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(file_read(path, SIZE_MAX, &bytes), 0);
    assert_int_equal(bytes.size, 5);
    assert_string_equal((char *)bytes.data, "three");
}

static void a_file_past_its_limit_is_refused_and_at_its_limit_is_not(void **state)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0}, big = {0};
    const char *path = below("limit");

    assert_int_equal(bytes_reserve(&big, 100000), 0);
    memset(big.data, 'x', 100000);
    assert_int_equal(file_write(path, big.data, 100000, 0600), 0);
    assert_int_equal(file_read(path, 99999, &bytes), -EFBIG);
    assert_null(bytes.data);
    assert_int_equal(file_read(path, 100000, &bytes), 0);
    assert_int_equal(bytes.size, 100000);
    assert_int_equal(file_read(below("none"), 10, &bytes), -ENOENT);
}

static void a_failed_write_leaves_no_temporary_file(void **state)
{
    const char *path = below("taken");

    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(file_write(path, "x", 1, 0600), -EISDIR);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(file_write(below("none/file"), "x", 1, 0600), -ENOENT);
}

static void what_a_killed_writer_left_goes_with_the_next_write(void **state)
{
    const char *path = below("killed");

    assert_int_equal(file_write(path, "one", 3, 0600), 0);
    assert_int_equal(file_write(below("killed.new"), "left", 4, 0600), 0);
    path = below("killed");
    assert_int_equal(file_write(path, "two", 3, 0600), 0);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(below("killed.new"), F_OK), -1);
}

static void a_new_file_never_replaces(void **state)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0};
    const char *path = below("first");

    assert_int_equal(file_write_new(path, "one", 3, 0600), 0);
    assert_int_equal(file_write_new(path, "two", 3, 0600), -EEXIST);
    assert_int_equal(file_read(path, 10, &bytes), 0);
    assert_string_equal((char *)bytes.data, "one");
}

struct writer {
    pthread_t thread;
    char path[128], text[10000];
    int failed;
};

static void *write_often(void *user)
{
    struct writer *writer = user;

    for (int i = 0; i < 60 && !writer->failed; i++)
        writer->failed = file_write(writer->path, writer->text, sizeof(writer->text), 0600);
    return NULL;
}

static void two_writers_of_a_name_leave_it_whole(void **state)
{
    static struct writer writers[2];

    for (size_t i = 0; i < 2; i++) {
        snprintf(writers[i].path, sizeof(writers[i].path), "%s/both", folder);
        memset(writers[i].text, 'a' + (int)i, sizeof(writers[i].text));
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_often, &writers[i]), 0);
    }
    for (int i = 0; i < 60; i++) {
        _cleanup_(bytes_deinit) struct bytes bytes = {0};

        if (file_read(writers[0].path, sizeof(writers[0].text), &bytes) == -ENOENT)
            continue;
        assert_int_equal(bytes.size, sizeof(writers[0].text));
        assert_int_equal(bytes.data[0], bytes.data[bytes.size - 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        assert_int_equal(writers[i].failed, 0);
    }
    assert_int_equal(access(below("both.new"), F_OK), -1);
}

static void a_folder_is_made_with_its_parents_and_again(void **state)
{
    struct stat status;

    assert_int_equal(folder_make(below("a/b/c"), 0700), 0);
    assert_int_equal(folder_make(below("a/b/c"), 0700), 0);
    assert_int_equal(stat(below("a/b/c"), &status), 0);
    assert_int_equal(file_write(below("a/file"), "", 0, 0600), 0);
    assert_int_equal(folder_make(below("a/file"), 0700), -ENOTDIR);
    assert_int_equal(folder_make(below("a/file/d"), 0700), -ENOTDIR);
}

static void removing_a_folder_never_follows_a_link(void **state)
{
    assert_int_equal(folder_make(below("keep"), 0700), 0);
    assert_int_equal(file_write(below("keep/file"), "x", 1, 0600), 0);
    assert_int_equal(folder_make(below("gone/locked/in"), 0700), 0);
    assert_int_equal(symlink(below("keep"), below("gone/link")), 0);
    assert_int_equal(chmod(below("gone/locked"), 0), 0);
    assert_int_equal(folder_remove(below("gone")), 0);
    assert_int_equal(access(below("gone"), F_OK), -1);
    assert_int_equal(access(below("keep/file"), F_OK), 0);
    assert_int_equal(folder_remove(below("gone")), -ENOENT);
}

/* Runs `what` in a process that is not root, to whom the folder belongs. */
static void as_nobody(void (*what)(void))
{
    int status;
    pid_t pid;

    assert_true(geteuid() != 0 || chown(folder, 65534, 65534) == 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (geteuid() == 0 &&
            (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
            _exit(2);
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void expect(bool condition, int code)
{
    if (!condition)
        _exit(code);
}

static void remove_read_only(void)
{
    expect(folder_make(below("left/a/b"), 0700) == 0, 10);
    expect(file_write(below("left/a/b/file"), "x", 1, 0600) == 0, 11);
    expect(file_write(below("left/a/file"), "x", 1, 0600) == 0, 12);
    expect(chmod(below("left/a/b"), 0555) == 0 && chmod(below("left/a"), 0500) == 0, 13);
    expect(folder_remove(below("left")) == 0, 14);
    expect(access(below("left"), F_OK) < 0, 15);
}

static void a_read_only_folder_is_removed_with_what_is_in_it(void **state)
{
    as_nobody(remove_read_only);
}

static void remove_deep_read_only(void)
{
    int fd, r = 0;

    expect(mkdir(below("deep"), 0700) == 0, 20);
    fd = open(below("deep"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < 200; i++) {
        int next;

        expect(mkdirat(fd, "deep", 0700) == 0, 21);
        next = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r |= fchmod(fd, 0500);
        close(fd);
        fd = next;
    }
    expect(r == 0 && fchmod(fd, 0) == 0, 22);
    close(fd);
    expect(folder_remove(below("deep")) == 0, 23);
}

static void a_deep_read_only_tree_is_removed(void **state)
{
    as_nobody(remove_deep_read_only);
}

/* The folder in the middle belongs to somebody else. */
static void remove_around_another(void)
{
    expect(folder_remove(below("mixed")) == -EACCES, 30);
    expect(access(below("mixed/a"), F_OK) < 0 && access(below("mixed/z"), F_OK) < 0, 31);
    expect(access(below("mixed/m/file"), F_OK) == 0, 32);
}

static void what_cannot_be_removed_keeps_nothing_else(void **state)
{
    const char *names[] = {"mixed", "mixed/a", "mixed/z", "mixed/a/in"};

    if (geteuid() != 0)
        skip(); /* only root can give files away */
    assert_int_equal(folder_make(below("mixed/m"), 0755), 0);
    assert_int_equal(file_write(below("mixed/m/file"), "x", 1, 0600), 0);
    assert_int_equal(folder_make(below("mixed/a/in"), 0700), 0);
    assert_int_equal(file_write(below("mixed/z"), "x", 1, 0600), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(chown(below(names[i]), 65534, 65534), 0);
    as_nobody(remove_around_another);
    assert_int_equal(folder_remove(below("mixed")), 0);
}

static void a_tree_deeper_than_any_path_is_removed(void **state)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (unsigned i = 0; i < 3000; i++) {
        int next;

        assert_int_equal(mkdirat(fd, "deep", 0700), 0);
        next = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    close(fd);
    assert_int_equal(folder_remove(below("deep")), 0);
}

static void time_stamps_are_utc(void **state)
{
    char text[32];

    assert_string_equal(clock_format(1764000979LL * NS_PER_S, text), "2025-11-24T16:16:19Z");
    assert_string_equal(clock_format(-1, text), "1969-12-31T23:59:59Z");
    assert_true(clock_monotonic_ns() > 0);
}

static void log_levels_parse_by_name_only(void **state)
{
    enum log_level level = LOG_INFO;

    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
    assert_int_equal(level, LOG_DEBUG);
}

/* What one call prints on standard error. */
static void logged(const char *text, char line[4096])
{
    int pipes[2], saved = dup(STDERR_FILENO);
    ssize_t got;

    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], STDERR_FILENO);
    log_warn("event", "text=%s", text);
    dup2(saved, STDERR_FILENO);
    close(pipes[1]);
    close(saved);
    got = read(pipes[0], line, 4095);
    close(pipes[0]);
    line[got > 0 ? got : 0] = '\0';
}

static void a_log_line_is_one_line_whatever_it_is_given(void **state)
{
    char line[4096], big[4000];

    logged("a\nb\x1b", line);
    assert_string_equal(strstr(line, "Z "), "Z warn event text=a?b?\n");
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    logged(big, line);
    assert_true(strlen(line) <= 2048);
    assert_string_equal(line + strlen(line) - 5, "x...\n");
}

static void a_limited_line_passes_once_a_second_and_counts_the_rest(void **state)
{
    struct log_limit limit = {0};
    unsigned held = 9;

    assert_true(log_limit_pass(&limit, &held));
    assert_int_equal(held, 0);
    assert_false(log_limit_pass(&limit, &held));
    assert_false(log_limit_pass(&limit, &held));
    limit.last_ns -= NS_PER_S;
    assert_true(log_limit_pass(&limit, &held));
    assert_int_equal(held, 2);
}

static void numbers_and_sizes_are_whole_and_within_bounds(void **state)
{
    static const struct {
        const char *text;
        bool size, good;
        uint64_t least, most, number;
    } cases[] = {
        {"0", false, true, 0, 9, 0},
        {"9", false, true, 0, 9, 9},
        {"10", false, false, 0, 9, 0},
        {"0", false, false, 1, 9, 0},
        {"-1", false, false, 0, UINT64_MAX, 0},
        {"+1", false, false, 0, 9, 0},
        {" 1", false, false, 0, 9, 0},
        {"", false, false, 0, 9, 0},
        {"1 ", false, false, 0, 9, 0},
        {"1K", false, false, 0, 9000, 0},
        {"18446744073709551615", false, true, 0, UINT64_MAX, UINT64_MAX},
        {"18446744073709551616", false, false, 0, UINT64_MAX, 0},
        {"500", true, true, 1, 1000, 500},
        {"1K", true, true, 1, 1024, 1024},
        {"2K", true, false, 1, 1024, 0},
        {"3G", true, true, 1, UINT64_MAX, 3ULL << 30},
        {"1T", true, true, 1, UINT64_MAX, 1ULL << 40},
        {"K", true, false, 1, UINT64_MAX, 0},
        {"1KB", true, false, 1, UINT64_MAX, 0},
        {"1k", true, false, 1, UINT64_MAX, 0},
        {"16777216T", true, false, 1, UINT64_MAX, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t number = 77;
        bool good = (cases[i].size ? args_size : args_number)(cases[i].text, cases[i].least,
                                                              cases[i].most, &number);

        if (good != cases[i].good || number != (good ? cases[i].number : 77))
            fail_msg("%s: %s, %llu", cases[i].text, good ? "taken" : "refused",
                     (unsigned long long)number);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_grows_and_keeps_what_it_had),
        cmocka_unit_test(hexadecimal_goes_there_and_back_and_refuses_the_rest),
        cmocka_unit_test(secrets_compare_by_every_byte),
        cmocka_unit_test(a_written_file_is_read_back_whole_with_its_mode),
        cmocka_unit_test(a_file_past_its_limit_is_refused_and_at_its_limit_is_not),
        cmocka_unit_test(a_failed_write_leaves_no_temporary_file),
        cmocka_unit_test(what_a_killed_writer_left_goes_with_the_next_write),
        cmocka_unit_test(a_new_file_never_replaces),
        cmocka_unit_test(two_writers_of_a_name_leave_it_whole),
        cmocka_unit_test(a_folder_is_made_with_its_parents_and_again),
        cmocka_unit_test(removing_a_folder_never_follows_a_link),
        cmocka_unit_test(a_read_only_folder_is_removed_with_what_is_in_it),
        cmocka_unit_test(a_deep_read_only_tree_is_removed),
        cmocka_unit_test(what_cannot_be_removed_keeps_nothing_else),
        cmocka_unit_test(a_tree_deeper_than_any_path_is_removed),
        cmocka_unit_test(time_stamps_are_utc),
        cmocka_unit_test(log_levels_parse_by_name_only),
        cmocka_unit_test(a_log_line_is_one_line_whatever_it_is_given),
        cmocka_unit_test(a_limited_line_passes_once_a_second_and_counts_the_rest),
        cmocka_unit_test(numbers_and_sizes_are_whole_and_within_bounds),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
