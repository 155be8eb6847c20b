/* cache.c - the block cache: what stays, what goes, and what a damaged file does. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/err.h>
#include <worker/cache.h>

static char folder[64];
static int read_error; /* what each read of a file fails with */

ssize_t read(int fd, void *data, size_t size)
{
    errno = read_error;
    return read_error ? -1 : (ssize_t)syscall(SYS_read, fd, data, size);
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/westlight-cache-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return folder_remove(folder);
}

static void block(unsigned number, size_t size, uint8_t *data, struct block_id *ret_id)
{
    memset(data, (int)(number * 7 + 1), size);
    memcpy(data, &number, sizeof(number));
    digest(data, size, ret_id);
}

static struct block_id put(struct cache *cache, unsigned number)
{
    uint8_t data[1000];
    struct block_id id;

    block(number, sizeof(data), data, &id);
    assert_int_equal(cache_put(cache, &id, data, sizeof(data)), 0);
    return id;
}

static int get(struct cache *cache, const struct block_id *id)
{
    _cleanup_(bytes_deinit) struct bytes out = {0};
    int r = cache_get(cache, id, &out);

    if (r == 0)
        assert_int_equal(out.size, 1000);
    return r;
}

static void block_file(const struct block_id *id, char path[256])
{
    char hex[65];

    hex_encode(id->bytes, 32, hex);
    snprintf(path, 256, "%s/%.2s/%s", folder, hex, hex);
}

static void what_was_put_is_read_back(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id id, unknown = {{1}};

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    id = put(cache, 1);
    assert_int_equal(get(cache, &id), 0);
    assert_int_equal(get(cache, &unknown), CACHE_E_ABSENT);
    assert_int_equal(cache_bytes(cache), 1000);
    put(cache, 1);
    assert_int_equal(cache_bytes(cache), 1000);
}

static void least_recently_used_goes_first(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id a, b, c, d;

    assert_int_equal(cache_new(folder, 3000, &cache), 0);
    a = put(cache, 1);
    b = put(cache, 2);
    c = put(cache, 3);
    assert_int_equal(get(cache, &a), 0); /* now b is the oldest */
    d = put(cache, 4);
    assert_int_equal(get(cache, &b), CACHE_E_ABSENT);
    assert_int_equal(get(cache, &a), 0);
    assert_int_equal(get(cache, &c), 0);
    assert_int_equal(get(cache, &d), 0);
    assert_int_equal(cache_bytes(cache), 3000);
}

static void pinned_blocks_stay_past_the_limit_and_go_after(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id a, b, c;
    uint8_t data[1000];

    assert_int_equal(cache_new(folder, 1000, &cache), 0);
    block(1, sizeof(data), data, &a);
    assert_int_equal(cache_pin(cache, &a), 0); /* before it has come */
    put(cache, 1);
    b = put(cache, 2);
    assert_int_equal(get(cache, &a), 0);
    assert_int_equal(get(cache, &b), CACHE_E_ABSENT);
    assert_int_equal(cache_pin(cache, &a), 0);
    cache_unpin(cache, &a);
    c = put(cache, 3);
    assert_int_equal(get(cache, &a), 0);
    assert_int_equal(get(cache, &c), CACHE_E_ABSENT);
    cache_unpin(cache, &a);
    put(cache, 4);
    assert_int_equal(get(cache, &a), CACHE_E_ABSENT);
    assert_int_equal(cache_blocks(cache), 1);
}

static void a_damaged_block_is_absent_and_can_be_put_again(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id id;
    char path[256];
    int fd;

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    id = put(cache, 1);
    block_file(&id, path);
    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 500), 1);
    close(fd);
    assert_int_equal(get(cache, &id), CACHE_E_ABSENT);
    assert_int_equal(cache_bytes(cache), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    put(cache, 1);
    assert_int_equal(get(cache, &id), 0);
}

static void a_file_that_went_away_is_absent(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id id;
    char path[256];

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    id = put(cache, 1);
    block_file(&id, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(get(cache, &id), CACHE_E_ABSENT);
    assert_int_equal(cache_blocks(cache), 0);
}

static void a_block_that_the_disk_cannot_read_is_absent_and_can_be_put_again(void **state)
{
    static const int errors[] = {EIO, ESTALE, EBADMSG};
    _cleanup_(cache_freep) struct cache *cache = NULL;
    _cleanup_(bytes_deinit) struct bytes out = {0};
    struct block_id id;
    char path[256];

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        id = put(cache, 1);
        assert_int_equal(cache_pin(cache, &id), 0); /* as a task has it that needs it */
        read_error = errors[i];
        assert_int_equal(cache_get(cache, &id, &out), CACHE_E_ABSENT);
        read_error = 0;
        block_file(&id, path);
        assert_int_not_equal(access(path, F_OK), 0);
        put(cache, 1);
        assert_int_equal(get(cache, &id), 0);
        cache_unpin(cache, &id);
    }
    assert_int_equal(truncate(path, 400), 0);
    assert_int_equal(get(cache, &id), CACHE_E_ABSENT);
}

static void a_shortage_of_the_workers_own_costs_no_block(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    _cleanup_(bytes_deinit) struct bytes out = {0};
    struct block_id id;

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    id = put(cache, 1);
    read_error = ENOMEM;
    assert_int_equal(cache_get(cache, &id, &out), -ENOMEM);
    read_error = 0;
    assert_int_equal(get(cache, &id), 0);
}

static void restart_keeps_the_order_of_use_and_the_limit(void **state)
{
    struct cache *cache = NULL;
    struct block_id ids[4];
    char path[256];

    assert_int_equal(cache_new(folder, 10000, &cache), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct timespec times[2] = {{.tv_sec = 1000 + (i ^ 1)}, {.tv_sec = 1000 + (i ^ 1)}};

        ids[i] = put(cache, i);
        block_file(&ids[i], path);
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    cache_free(cache);
    snprintf(path, sizeof(path), "%s/ab/new-7", folder);
    close(open(path, O_WRONLY | O_CREAT, 0600));

    assert_int_equal(cache_new(folder, 2000, &cache), 0); /* ages: 1, 0, 3, 2 */
    assert_int_equal(get(cache, &ids[0]), CACHE_E_ABSENT);
    assert_int_equal(get(cache, &ids[1]), CACHE_E_ABSENT);
    assert_int_equal(get(cache, &ids[2]), 0);
    assert_int_equal(get(cache, &ids[3]), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    cache_free(cache);
}

static void many_blocks_outgrow_the_table(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id first, id;

    assert_int_equal(cache_new(folder, 1 << 30, &cache), 0);
    first = put(cache, 0);
    for (unsigned i = 1; i < 2500; i++)
        id = put(cache, i);
    assert_int_equal(cache_blocks(cache), 2500);
    assert_int_equal(get(cache, &first), 0);
    assert_int_equal(get(cache, &id), 0);
}

static void a_block_is_as_old_as_its_last_pin(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct block_id a, b;

    assert_int_equal(cache_new(folder, 2000, &cache), 0);
    a = put(cache, 1);
    assert_int_equal(cache_pin(cache, &a), 0);
    b = put(cache, 2);
    cache_unpin(cache, &a);
    put(cache, 3);
    assert_int_equal(get(cache, &b), CACHE_E_ABSENT);
    assert_int_equal(get(cache, &a), 0);
}

/* ---- fetching, from a vault of the test's own ---- */

#define FETCHED 20

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned calls, open; /* transfers so far; how many of them may go on */
    unsigned fails;       /* transfers, from the first, that bring half and then fail */
    unsigned blocks;      /* brought */
} vault = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int transfer_get(struct transfer *transfer, const struct transfer_want *wants, size_t n,
                 transfer_sink *sink, void *user)
{
    unsigned call;
    int r = 0;

    (void)transfer;
    pthread_mutex_lock(&vault.lock);
    call = ++vault.calls;
    pthread_cond_broadcast(&vault.changed);
    while (vault.open < call)
        pthread_cond_wait(&vault.changed, &vault.lock);
    pthread_mutex_unlock(&vault.lock);
    for (size_t i = 0; r == 0 && i < (call <= vault.fails ? n / 2 : n); i++) {
        uint8_t data[1000];
        struct block_id id;

        block(wants[i].sealed_bytes, sizeof(data), data, &id); /* the size is the number */
        r = sink(user, i, data, sizeof(data));
        pthread_mutex_lock(&vault.lock);
        vault.blocks++;
        pthread_mutex_unlock(&vault.lock);
    }
    return r == 0 && call <= vault.fails ? -ETIMEDOUT : r;
}

static void vault_reset(unsigned open, unsigned fails)
{
    vault.calls = vault.blocks = 0;
    vault.open = open;
    vault.fails = fails;
}

static void vault_open(void)
{
    pthread_mutex_lock(&vault.lock);
    vault.open = 100;
    pthread_cond_broadcast(&vault.changed);
    pthread_mutex_unlock(&vault.lock);
}

static void vault_await_call(void)
{
    pthread_mutex_lock(&vault.lock);
    while (vault.calls == 0)
        pthread_cond_wait(&vault.changed, &vault.lock);
    pthread_mutex_unlock(&vault.lock);
}

struct fetcher {
    pthread_t thread;
    struct cache *cache;
    atomic_bool stop;
    int result;
};

static void *fetch(void *user)
{
    struct fetcher *fetcher = user;
    struct transfer_want wants[FETCHED];

    for (unsigned i = 0; i < FETCHED; i++) {
        uint8_t data[1000];

        wants[i].sealed_bytes = i;
        block(i, sizeof(data), data, &wants[i].id);
        cache_pin(fetcher->cache, &wants[i].id);
    }
    fetcher->result = cache_fetch(fetcher->cache, NULL, wants, FETCHED, &fetcher->stop);
    for (unsigned i = 0; fetcher->result == 0 && i < FETCHED; i++)
        if (get(fetcher->cache, &wants[i].id) != 0)
            fetcher->result = -ENOENT;
    for (unsigned i = 0; i < FETCHED; i++)
        cache_unpin(fetcher->cache, &wants[i].id);
    return NULL;
}

static void start(struct fetcher *fetcher, struct cache *cache)
{
    *fetcher = (struct fetcher){.cache = cache};
    assert_int_equal(pthread_create(&fetcher->thread, NULL, fetch, fetcher), 0);
}

static void what_several_want_together_is_fetched_once(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct fetcher fetchers[4];

    vault_reset(0, 0);
    assert_int_equal(cache_new(folder, 100000, &cache), 0);
    for (int i = 0; i < 4; i++)
        start(&fetchers[i], cache);
    vault_await_call();
    vault_open();
    for (int i = 0; i < 4; i++) {
        pthread_join(fetchers[i].thread, NULL);
        assert_int_equal(fetchers[i].result, 0);
    }
    assert_int_equal(vault.blocks, FETCHED);
}

static void who_waited_takes_over_from_one_that_failed(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct fetcher first, second;

    vault_reset(0, 1);
    assert_int_equal(cache_new(folder, 100000, &cache), 0);
    start(&first, cache);
    vault_await_call();
    start(&second, cache);
    vault_open();
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.result, -ETIMEDOUT);
    assert_int_equal(second.result, 0);
    assert_int_equal(vault.blocks, FETCHED); /* half each */
}

static void who_waits_can_be_stopped(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    struct fetcher first, second;

    vault_reset(0, 0);
    assert_int_equal(cache_new(folder, 100000, &cache), 0);
    start(&first, cache);
    vault_await_call();
    start(&second, cache);
    atomic_store(&second.stop, true);
    pthread_join(second.thread, NULL);
    assert_int_equal(second.result, -ECANCELED);
    vault_open();
    pthread_join(first.thread, NULL);
    assert_int_equal(first.result, 0);
}

static void *hammer(void *user)
{
    struct cache *cache = user;

    for (unsigned i = 0; i < 300; i++) {
        uint8_t data[1000];
        struct block_id id;

        block(i % 20, sizeof(data), data, &id);
        cache_pin(cache, &id);
        if (get(cache, &id) == CACHE_E_ABSENT)
            put(cache, i % 20);
        if (get(cache, &id) != 0)
            return cache;
        cache_unpin(cache, &id);
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    _cleanup_(cache_freep) struct cache *cache = NULL;
    pthread_t threads[4];

    assert_int_equal(cache_new(folder, 5000, &cache), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, cache), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_true(cache_bytes(cache) <= 5000);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_put_is_read_back),
        CASE(least_recently_used_goes_first),
        CASE(pinned_blocks_stay_past_the_limit_and_go_after),
        CASE(a_damaged_block_is_absent_and_can_be_put_again),
        CASE(a_file_that_went_away_is_absent),
        CASE(a_block_that_the_disk_cannot_read_is_absent_and_can_be_put_again),
        CASE(a_shortage_of_the_workers_own_costs_no_block),
        CASE(restart_keeps_the_order_of_use_and_the_limit),
        CASE(many_blocks_outgrow_the_table),
        CASE(a_block_is_as_old_as_its_last_pin),
        CASE(what_several_want_together_is_fetched_once),
        CASE(who_waited_takes_over_from_one_that_failed),
        CASE(who_waits_can_be_stopped),
        CASE(threads_share_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
