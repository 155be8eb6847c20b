/* Blocks that come ahead of the files that need them, from a farm that gives out the last first. The
 * link is led through the test; each block says that it is 1 MiB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <client/reader.h>

#define TEST(name) static void name(void **state)

enum { BLOCKS = 400, AHEAD = READER_BYTES >> 20 };

struct farm {
    char folder[64];
    struct westlight westlight;
    struct blocks blocks;
    struct reader reader;
    struct block_key keys[BLOCKS];
    struct bytes sealed[BLOCKS];
    int lack[BLOCKS];
    unsigned asked[BLOCKS];
    struct transfer_coming how;
    struct {
        size_t block;
        void *tag;
    } under_way[BLOCKS + 1];
    size_t n_under_way, under_way_max, window;
    size_t first; /* is given before others */
};

static struct farm *farm;

int __wrap_transfer_stream_new(const struct transfer_coming *how, struct transfer_stream **ret_stream);
void __wrap_transfer_stream_free(struct transfer_stream *stream);
const char *__wrap_transfer_why(const struct transfer *transfer);
int __wrap_blocks_stream_go(struct blocks *blocks, struct transfer_stream *stream, bool wait);

int __wrap_transfer_stream_new(const struct transfer_coming *how, struct transfer_stream **ret_stream)
{
    farm->how = *how;
    *ret_stream = (struct transfer_stream *)farm;
    return 0;
}

void __wrap_transfer_stream_free(struct transfer_stream *stream)
{
    if (stream)
        farm->n_under_way = 0;
}

const char *__wrap_transfer_why(const struct transfer *transfer)
{
    (void)transfer;
    return "the farm says no";
}

static size_t block_of(const struct block_id *id)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (memcmp(&farm->keys[i].id, id, sizeof(*id)) == 0)
            return i;
    fail();
    return 0;
}

/* Through a narrow window the first is given first, or it would come when all is asked for. */
static int give(void)
{
    size_t at = farm->window < BLOCKS ? 0 : farm->n_under_way - 1;
    for (size_t i = 0; i < farm->n_under_way; i++)
        if (farm->first && farm->under_way[i].block == farm->first)
            at = i;
    size_t block = farm->under_way[at].block;
    void *tag = farm->under_way[at].tag;

    memmove(&farm->under_way[at], &farm->under_way[at + 1],
            (--farm->n_under_way - at) * sizeof(farm->under_way[0]));
    return farm->how.came(farm->how.user, tag, farm->lack[block], farm->sealed[block].data,
                          farm->sealed[block].size);
}

int __wrap_blocks_stream_go(struct blocks *blocks, struct transfer_stream *stream, bool wait)
{
    struct transfer_want want;
    void *tag;

    (void)blocks;
    assert_ptr_equal(stream, farm);
    while (farm->n_under_way < farm->window && farm->how.next(farm->how.user, &want, &tag) == 0) {
        farm->under_way[farm->n_under_way].tag = tag;
        farm->under_way[farm->n_under_way].block = block_of(&want.id);
        farm->asked[farm->under_way[farm->n_under_way++].block]++;
    }
    if (farm->n_under_way > farm->under_way_max)
        farm->under_way_max = farm->n_under_way;
    if (wait)
        assert_true(farm->n_under_way > 0); /* or it would wait for ever */
    return farm->n_under_way > (wait ? 0 : AHEAD / 2) ? give() : 0;
}

static int setup(void **state)
{
    static const uint8_t secret[32] = {1};

    (void)state;
    farm = calloc(1, sizeof(*farm));
    snprintf(farm->folder, sizeof(farm->folder), "/tmp/westlight-reader-XXXXXX");
    if (!mkdtemp(farm->folder) || sealer_new(&farm->westlight.sealer) != 0)
        return -1;
    farm->window = BLOCKS;
    farm->blocks.westlight = &farm->westlight;
    farm->reader.blocks = &farm->blocks;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (seal_block(farm->westlight.sealer, secret, &i, sizeof(i), &farm->sealed[i],
                       &farm->keys[i]) != 0)
            return -1;
        farm->keys[i].sealed_bytes = 1 << 20;
    }
    return setenv("XDG_STATE_HOME", farm->folder, 1);
}

static int teardown(void **state)
{
    (void)state;
    reader_deinit(&farm->reader);
    for (size_t i = 0; i < BLOCKS; i++)
        bytes_deinit(&farm->sealed[i]);
    sealer_free(farm->westlight.sealer);
    folder_remove(farm->folder);
    free(farm);
    return 0;
}

static void expect(size_t block)
{
    Wl__FileEntry entry = WL__FILE_ENTRY__INIT;
    Wl__BlockKey key;
    Wl__Part part = WL__PART__INIT, *parts = &part;

    wire_block_key_set(&key, &farm->keys[block]);
    part.block = &key;
    entry.parts = &parts;
    entry.n_parts = 1;
    assert_int_equal(reader_expect(&farm->reader, &entry), 0);
}

static void expect_all(size_t first, size_t end)
{
    for (size_t i = first; i < end; i++)
        expect(i);
}

static void fetch(size_t block)
{
    const struct bytes *got;
    uint32_t number;

    assert_int_equal(reader_fetch(&farm->reader, &farm->keys[block], &got), 0);
    assert_int_equal(got->size, sizeof(number));
    memcpy(&number, got->data, sizeof(number));
    assert_int_equal(number, block);
}

TEST(blocks_come_ahead_each_once_and_what_is_under_way_slides_along)
{
    (void)state;
    expect_all(0, 200);
    for (size_t i = 0; i < 200; i++) {
        fetch(i);
        size_t next = i + AHEAD; /* it is asked for with the next block at the latest */
        assert_int_equal(farm->asked[next - 1], next - 1 < 200);
        assert_int_equal(farm->asked[next + 1], 0);
    }
    for (size_t i = 0; i < BLOCKS; i++)
        assert_int_equal(farm->asked[i], i < 200);
    assert_int_equal(farm->reader.n_held, 0);
}

TEST(a_block_that_is_wanted_again_soon_comes_once_and_one_that_is_wanted_late_twice)
{
    (void)state;
    for (size_t i = 0; i < 100; i++) {
        expect(i);
        expect(300 + i % 3);
    }
    expect(0);
    for (size_t i = 0; i < 100; i++) {
        fetch(i);
        fetch(300 + i % 3);
    }
    fetch(0);
    for (size_t i = 1; i < 100; i++)
        assert_int_equal(farm->asked[i], 1);
    for (size_t i = 300; i < 303; i++)
        assert_int_equal(farm->asked[i], 1);
    assert_int_equal(farm->asked[0], 2);
    assert_true(farm->under_way_max <= AHEAD);
    assert_int_equal(farm->reader.n_held, 0);
}

TEST(of_a_file_that_is_there_already_the_rest_is_passed)
{
    (void)state;
    farm->window = 20;
    expect_all(0, 300);
    fetch(0);
    fetch(250);
    for (size_t i = 20; i < 250; i++)
        assert_int_equal(farm->asked[i], 0);
    for (size_t i = 251; i < 300; i++)
        fetch(i);
    for (size_t i = 250; i < 300; i++)
        assert_int_equal(farm->asked[i], 1);
    while (farm->n_under_way)
        assert_int_equal(give(), 0);
    assert_int_equal(farm->reader.n_held, 0);
}

TEST(what_was_passed_while_it_was_under_way_can_be_had_all_the_same)
{
    (void)state;
    farm->window = AHEAD;
    expect_all(0, 300);
    fetch(0);
    farm->first = 250;
    fetch(250);
    fetch(60);
    farm->first = 0;
    fetch(5);
    for (size_t i = 251; i < 300; i++)
        fetch(i);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(farm->asked[i], i < AHEAD || i >= 250 ? 1 + (i == 5) : 0);
    assert_int_equal(farm->reader.n_held, 0);
}

TEST(a_block_that_cannot_be_had_is_told_where_it_is_needed_and_stops_no_other)
{
    const struct bytes *got;

    (void)state;
    farm->lack[5] = TRANSFER_E_MISSING;
    farm->lack[70] = TRANSFER_E_DAMAGED;
    expect_all(0, 100);
    for (size_t i = 0; i < 100; i++) {
        if (!farm->lack[i]) {
            fetch(i);
            continue;
        }
        assert_int_equal(reader_fetch(&farm->reader, &farm->keys[i], &got),
                         i == 5 ? WESTLIGHT_E_UNKNOWN : WESTLIGHT_E_CORRUPT);
        assert_string_equal(farm->westlight.why, "the farm says no");
    }
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(farm->asked[i], 1);
}

TEST(what_was_not_expected_comes_alone_and_is_not_kept)
{
    (void)state;
    expect_all(0, 100);
    fetch(0);
    fetch(390);
    fetch(391);
    for (size_t i = 1; i < 100; i++)
        fetch(i);
    assert_int_equal(farm->asked[390], 1);
    assert_int_equal(farm->asked[391], 1);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(farm->asked[i], 1);
    assert_int_equal(farm->reader.n_held, 0);
}

/* Files of 10 blocks, the last 3 of which are still on their way to the disk. */
static void fetch_files(size_t first, size_t end)
{
    uint64_t began[3] = {0};

    for (size_t i = first; i < end; i++) {
        if (i % 10 == 0) {
            farm->reader.needed = began[2] ? began[2] : 0;
            memmove(began + 1, began, 2 * sizeof(*began));
            began[0] = reader_number(&farm->reader);
        }
        fetch(i);
    }
}

TEST(what_had_come_for_files_that_are_not_home_does_not_come_again_after_a_kill)
{
    struct arrivals arrivals;
    bool came[BLOCKS];

    (void)state;
    arrivals_open(&arrivals, farm->folder);
    farm->reader.arrivals = &arrivals;
    expect_all(0, 300);
    fetch_files(0, 177);
    for (size_t i = 0; i < BLOCKS; i++)
        came[i] = farm->asked[i];
    for (size_t i = 0; i < farm->n_under_way; i++)
        came[farm->under_way[i].block] = false;
    arrivals_close(&arrivals, false);
    reader_forget(&farm->reader);
    farm->reader.has_opened = false;
    memset(farm->asked, 0, sizeof(farm->asked));

    arrivals_open(&arrivals, farm->folder);
    struct bytes got = {0};
    assert_false(arrivals_get(&arrivals, &farm->keys[0].id, &got)); /* what is home has gone */
    bytes_deinit(&got);
    expect_all(140, 300); /* two files on their way, and one that is not whole */
    fetch_files(140, 300);
    for (size_t i = 140; i < 300; i++)
        assert_int_equal(farm->asked[i], !came[i]);
    arrivals_close(&arrivals, true);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(blocks_come_ahead_each_once_and_what_is_under_way_slides_along),
        T(a_block_that_is_wanted_again_soon_comes_once_and_one_that_is_wanted_late_twice),
        T(of_a_file_that_is_there_already_the_rest_is_passed),
        T(what_was_passed_while_it_was_under_way_can_be_had_all_the_same),
        T(a_block_that_cannot_be_had_is_told_where_it_is_needed_and_stops_no_other),
        T(what_was_not_expected_comes_alone_and_is_not_kept),
        T(what_had_come_for_files_that_are_not_home_does_not_come_again_after_a_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
