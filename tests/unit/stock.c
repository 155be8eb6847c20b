/* What is counted of a studio's blocks, and who is past its quota. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <broker/quota.h>
#include <broker/vault/disk.h>
#include <proto/base/bytes.h>

#define TEST(name) static void name(void **state)

struct fixture {
    char folder[64];
    struct disk disk;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/westlight-stock-XXXXXX");
    if (!mkdtemp(fixture->folder) || disk_open(&fixture->disk, fixture->folder) != 0)
        return -1;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    disk_close(&fixture->disk);
    folder_remove(fixture->folder);
    free(fixture);
    return 0;
}

/* A block of `size` bytes, whose name is their digest. */
static struct block_id put(struct disk *disk, uint32_t studio, uint8_t fill, size_t size)
{
    uint8_t *data = vault_buffer(size);
    struct disk_file file;
    struct block_id id;

    memset(data, fill, size);
    digest(data, size, &id);
    assert_int_equal(disk_write(disk, (struct studio_id){studio}, data, size, &file), 0);
    assert_int_equal(disk_sync(&file), 0);
    assert_int_equal(disk_rename(disk, &file, (struct studio_id){studio}, &id), 0);
    vault_buffer_free(data, size);
    return id;
}

static uint64_t of(struct fixture *fixture, uint32_t studio)
{
    return stock_bytes(&fixture->disk.stock, (struct studio_id){studio});
}

static int no_rest(void *user)
{
    return 0;
}

TEST(a_block_counts_once_for_its_studio_and_no_more_when_it_is_gone)
{
    struct fixture *fixture = *state;
    struct disk *disk = &fixture->disk;
    struct block_id first = put(disk, 1, 7, 1000);

    put(disk, 1, 7, 1000); /* the same again */
    put(disk, 1, 8, 300);
    put(disk, 2, 7, 1000);
    assert_int_equal(of(fixture, 1), 1300);
    assert_int_equal(of(fixture, 2), 1000);
    assert_int_equal(of(fixture, 3), 0);
    disk_remove(disk, (struct studio_id){1}, &first);
    disk_remove(disk, (struct studio_id){1}, &first);
    assert_int_equal(of(fixture, 1), 300);
}

TEST(what_is_set_aside_does_not_count)
{
    struct fixture *fixture = *state;
    struct block_id id = put(&fixture->disk, 1, 7, 1000);
    char path[256], hex[65];
    uint8_t *data;
    size_t size;

    hex_encode(id.bytes, sizeof id.bytes, hex);
    snprintf(path, sizeof path, "%s/1/%.2s/%s", fixture->folder, hex, hex + 2);
    assert_int_equal(truncate(path, 999), 0);
    assert_int_equal(disk_count(&fixture->disk, no_rest, NULL), 0);
    assert_int_equal(of(fixture, 1), 999);
    assert_int_equal(disk_read(&fixture->disk, (struct studio_id){1}, &id, &data, &size),
                     VAULT_E_CORRUPT);
    assert_int_equal(of(fixture, 1), 0);
}

TEST(what_lay_there_counts_once_it_is_counted_with_what_came_before)
{
    struct fixture *fixture = *state;
    struct disk *disk = &fixture->disk;
    struct block_id old = put(disk, 1, 1, 400);

    put(disk, 1, 2, 500);
    disk_close(disk);
    assert_int_equal(disk_open(disk, fixture->folder), 0);
    put(disk, 1, 3, 60);
    assert_int_equal(of(fixture, 1), 60);
    disk_remove(disk, (struct studio_id){1}, &old); /* it was not counted: nothing is taken away */
    assert_true(of(fixture, 1) <= 60);
    assert_int_equal(disk_count(disk, no_rest, NULL), 0);
    assert_int_equal(of(fixture, 1), 560);
    stock_coming(&disk->stock, (struct studio_id){1}, 1000);
    assert_int_equal(of(fixture, 1), 1560);
    stock_coming(&disk->stock, (struct studio_id){1}, -1000);
    assert_int_equal(of(fixture, 1), 560);
}

TEST(leases_go_a_quarter_past_a_quota_results_a_half_and_none_is_no_bound)
{
    (void)state;
    assert_false(quota_exceeded(UINT64_MAX, 0, QUOTA_INPUTS));
    assert_false(quota_exceeded(1000, 1000, QUOTA_INPUTS));
    assert_true(quota_exceeded(1001, 1000, QUOTA_INPUTS));
    assert_false(quota_exceeded(1250, 1000, QUOTA_LEASES));
    assert_true(quota_exceeded(1251, 1000, QUOTA_LEASES));
    assert_false(quota_exceeded(1500, 1000, QUOTA_RESULTS));
    assert_true(quota_exceeded(1501, 1000, QUOTA_RESULTS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_block_counts_once_for_its_studio_and_no_more_when_it_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_set_aside_does_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_lay_there_counts_once_it_is_counted_with_what_came_before, setup, teardown),
        cmocka_unit_test(leases_go_a_quarter_past_a_quota_results_a_half_and_none_is_no_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
