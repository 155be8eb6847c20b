/* spool.c - finished results on disk: found again after a restart, or gone without a trace. */
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <worker/spool.h>

static char base[64];

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/westlight-spool-XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return folder_remove(base);
}

static int save(struct spool *spool, const char *message)
{
    Wl__Result result = WL__RESULT__INIT;
    Wl__Lease lease = WL__LEASE__INIT;
    uint8_t job[16] = {1, 2, 3};
    char text[64];

    snprintf(text, sizeof(text), "%s", message);
    lease.job = (ProtobufCBinaryData){.len = 16, .data = job};
    lease.attempt = 7;
    result.lease = &lease;
    result.message = text;
    return spool_save(spool, &result);
}

static void a_saved_result_is_found_with_its_blocks(void **state)
{
    struct spool spool, *found;
    _cleanup_(freep) struct block_id *ids = NULL, *plain = NULL;
    _cleanup_(bytes_deinit) struct bytes data = {0};
    struct block_id a, b;
    uint64_t next;
    size_t n;

    digest("aaa", 3, &a);
    digest("refs", 4, &b);
    assert_int_equal(spool_new(base, 3, NULL, &spool), 0);
    assert_int_equal(spool_put(&spool, &a, "aaa", 3, false), 0);
    assert_int_equal(spool_put(&spool, &b, "refs", 4, true), 0);
    assert_int_equal(save(&spool, "done"), 0);
    spool_deinit(&spool);

    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    assert_int_equal(n, 1);
    assert_int_equal(next, 4);
    assert_string_equal(found[0].result->message, "done");
    assert_int_equal(found[0].result->lease->attempt, 7);
    assert_int_equal(spool_blocks(&found[0], false, &ids, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(ids, &a, sizeof(a));
    assert_int_equal(spool_blocks(&found[0], true, &plain, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(plain, &b, sizeof(b));
    assert_int_equal(spool_get(&found[0], &a, false, &data), 0);
    assert_int_equal(data.size, 3);
    spool_deinit(&found[0]);
    free(found);
}

static void an_unfinished_one_is_removed_at_start(void **state)
{
    struct spool spool, *found;
    struct block_id a = {{1}};
    char path[128];
    uint64_t next;
    size_t n;

    assert_int_equal(spool_new(base, 1, NULL, &spool), 0);
    assert_int_equal(spool_put(&spool, &a, "aaa", 3, false), 0);
    snprintf(path, sizeof(path), "%s", spool.folder);
    spool_deinit(&spool);
    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    assert_int_equal(n, 0);
    assert_int_not_equal(access(path, F_OK), 0);
    free(found);
}

static void an_unreadable_result_is_removed_at_start(void **state)
{
    struct spool spool, *found;
    char path[128];
    uint64_t next;
    size_t n;
    int fd;

    assert_int_equal(spool_new(base, 1, NULL, &spool), 0);
    assert_int_equal(save(&spool, "done"), 0);
    snprintf(path, sizeof(path), "%s/result", spool.folder);
    spool_deinit(&spool);
    fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "\xff\xff\xff", 3), 3);
    close(fd);
    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    assert_int_equal(n, 0);
    free(found);
}

static void one_that_cannot_be_read_now_is_kept(void **state)
{
    struct spool spool, *found;
    char path[128], aside[128];
    uint64_t next;
    size_t n;

    assert_int_equal(spool_new(base, 1, NULL, &spool), 0);
    assert_int_equal(save(&spool, "done"), 0);
    snprintf(path, sizeof(path), "%s/result", spool.folder);
    snprintf(aside, sizeof(aside), "%s/aside", spool.folder);
    spool_deinit(&spool);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink("result", path), 0); /* ELOOP, for one */
    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    assert_int_equal(n, 0);
    assert_int_equal(next, 2);
    free(found);
    assert_int_equal(rename(aside, path), 0);
    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    assert_int_equal(n, 1);
    spool_deinit(&found[0]);
    free(found);
}

static void a_removed_one_leaves_nothing(void **state)
{
    struct spool spool;
    char path[128];

    assert_int_equal(spool_new(base, 9, NULL, &spool), 0);
    assert_int_equal(save(&spool, "done"), 0);
    snprintf(path, sizeof(path), "%s", spool.folder);
    spool_remove(&spool);
    assert_int_not_equal(access(path, F_OK), 0);
}

static size_t found_after_a_restart(char *ret_message, size_t size)
{
    struct spool *found;
    uint64_t next;
    size_t n;

    assert_int_equal(spool_load(base, &found, &n, &next), 0);
    if (n > 0)
        snprintf(ret_message, size, "%s", found[0].result->message);
    for (size_t i = 0; i < n; i++)
        spool_deinit(&found[i]);
    free(found);
    return n;
}

static void a_folder_is_used_again_and_what_is_over_is_not_found(void **state)
{
    struct reuse *reuse;
    struct spool spool;
    char path[128], message[64];

    assert_int_equal(reuse_new(&reuse), 0);
    assert_int_equal(spool_new(base, 4, reuse, &spool), 0);
    assert_int_equal(save(&spool, "a long message, of which something is left behind the next"), 0);
    snprintf(path, sizeof(path), "%s", spool.folder);
    spool_remove(&spool);
    assert_int_equal(spool_new(base, 5, reuse, &spool), 0);
    assert_string_equal(spool.folder, path);
    assert_int_equal(save(&spool, "short"), 0);
    assert_int_equal(found_after_a_restart(message, sizeof(message)), 1);
    assert_string_equal(message, "short");
    spool_remove(&spool);
    assert_int_equal(access(path, F_OK), 0);
    for (uint8_t i = 1; i <= REUSE_MAX; i++) { /* others drive it out */
        assert_int_equal(access(path, F_OK), 0);
        reuse_give(reuse, (const uint8_t[REUSE_KEY_BYTES]){i}, strdup("/nowhere"), NULL);
    }
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(found_after_a_restart(message, sizeof(message)), 0);
    reuse_remove(reuse, NULL);
    assert_int_not_equal(access(path, F_OK), 0);
    reuse_free(reuse);
}

static void a_result_with_any_byte_changed_is_none(void **state)
{
    struct spool spool;
    _cleanup_(bytes_deinit) struct bytes file = {0};
    char path[128], message[64];

    for (size_t i = 0; i == 0 || i < file.size; i++) {
        assert_int_equal(spool_new(base, 1, NULL, &spool), 0);
        assert_int_equal(save(&spool, "done"), 0);
        snprintf(path, sizeof(path), "%s/result", spool.folder);
        bytes_deinit(&file);
        file = (struct bytes){0};
        assert_int_equal(file_read(path, 4096, &file), 0);
        file.data[i] ^= 1;
        assert_int_equal(file_write(path, file.data, file.size, 0600), 0);
        assert_int_equal(found_after_a_restart(message, sizeof(message)), 0);
        spool_deinit(&spool);
    }
}

static void a_later_result_replaces_the_first(void **state)
{
    struct spool spool;
    struct block_id a = {{1}};
    _cleanup_(freep) struct block_id *ids = NULL;
    size_t n;

    assert_int_equal(spool_new(base, 1, NULL, &spool), 0);
    assert_int_equal(spool_put(&spool, &a, "aaa", 3, false), 0);
    assert_int_equal(save(&spool, "first"), 0);
    spool_clear(&spool);
    assert_int_equal(save(&spool, "second"), 0);
    assert_string_equal(spool.result->message, "second");
    assert_int_equal(spool_blocks(&spool, false, &ids, &n), 0);
    assert_int_equal(n, 0);
    spool_deinit(&spool);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_saved_result_is_found_with_its_blocks),
        CASE(an_unfinished_one_is_removed_at_start),
        CASE(an_unreadable_result_is_removed_at_start),
        CASE(one_that_cannot_be_read_now_is_kept),
        CASE(a_removed_one_leaves_nothing),
        CASE(a_folder_is_used_again_and_what_is_over_is_not_found),
        CASE(a_result_with_any_byte_changed_is_none),
        CASE(a_later_result_replaces_the_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
