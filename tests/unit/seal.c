/* Blocks: what goes in comes out, under one name a secret; anything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>

#include <openssl/evp.h>
#include <zstd.h>

#include <proto/limits.h>
#include <proto/seal.h>

static const uint8_t SECRET[32] = {1, 2, 3}, OTHER[32] = {9};

static int setup(void **state)
{
    struct sealer *sealer = NULL;

    assert_int_equal(sealer_new(&sealer), 0);
    *state = sealer;
    return 0;
}

static int teardown(void **state)
{
    sealer_free(*state);
    return 0;
}

static void noise(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
}

static void what_is_sealed_opens_again(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 1000, 65536, LIMIT_BLOCK_BYTES - 1, LIMIT_BLOCK_BYTES};
    uint8_t *data = malloc(LIMIT_BLOCK_BYTES);

    for (int random = 0; random < 2; random++) {
        memset(data, 'x', LIMIT_BLOCK_BYTES);
        if (random)
            noise(data, LIMIT_BLOCK_BYTES, 7);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct bytes sealed = {0}, opened = {0};
            struct block_key key;

            assert_int_equal(seal_block(*state, SECRET, data, sizes[i], &sealed, &key), 0);
            assert_int_equal(key.body_bytes, sizes[i]);
            assert_int_equal(key.sealed_bytes, sealed.size);
            assert_true(sealed.size <= LIMIT_SEALED_BYTES);
            if (!random && sizes[i] > 1000)
                assert_true(sealed.size < sizes[i] / 10);
            assert_int_equal(open_block(*state, &key, sealed.data, sealed.size, &opened), 0);
            assert_int_equal(opened.size, sizes[i]);
            assert_memory_equal(opened.data, data, sizes[i]);
            bytes_deinit(&sealed);
            bytes_deinit(&opened);
        }
    }
    free(data);
}

static void more_than_a_block_is_refused(void **state)
{
    uint8_t *data = calloc(1, LIMIT_BLOCK_BYTES + 1);
    struct bytes sealed = {0};
    struct block_key key;

    assert_int_equal(seal_block(*state, SECRET, data, LIMIT_BLOCK_BYTES + 1, &sealed, &key),
                     SEAL_E_SIZE);
    bytes_deinit(&sealed);
    free(data);
}

static void equal_content_has_one_id_under_one_secret_only(void **state)
{
    struct bytes a = {0}, b = {0}, c = {0};
    struct block_key key_a, key_b, key_c;
    struct sealer *second;

    assert_int_equal(sealer_new(&second), 0);
    assert_int_equal(seal_block(*state, SECRET, "hello", 5, &a, &key_a), 0);
    assert_int_equal(seal_block(second, SECRET, "hello", 5, &b, &key_b), 0);
    assert_int_equal(seal_block(*state, OTHER, "hello", 5, &c, &key_c), 0);
    assert_memory_equal(&key_a, &key_b, sizeof(key_a));
    assert_memory_not_equal(&key_a.id, &key_c.id, sizeof(key_a.id));
    assert_memory_not_equal(key_a.key, key_c.key, sizeof(key_a.key));
    bytes_deinit(&a);
    bytes_deinit(&b);
    bytes_deinit(&c);
    sealer_free(second);
}

static void every_flipped_bit_is_refused(void **state)
{
    struct bytes sealed = {0}, opened = {0};
    struct block_key key;

    assert_int_equal(seal_block(*state, SECRET, "a small block", 13, &sealed, &key), 0);
    for (size_t bit = 0; bit < sealed.size * 8; bit++) {
        struct block_key claimed = key;

        sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(open_block(*state, &key, sealed.data, sealed.size, &opened), SEAL_E_ID);
        digest(sealed.data, sealed.size, &claimed.id); /* a liar renames it as well */
        assert_int_equal(open_block(*state, &claimed, sealed.data, sealed.size, &opened),
                         SEAL_E_TAG);
        sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 0; bit < 256; bit++) {
        struct block_key other = key;

        other.key[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(open_block(*state, &other, sealed.data, sealed.size, &opened), SEAL_E_TAG);
    }
    assert_int_equal(open_block(*state, &key, sealed.data, sealed.size - 1, &opened), SEAL_E_ID);
    bytes_deinit(&sealed);
    bytes_deinit(&opened);
}

/* A holder of the secret may seal any body; opening one must still be bounded. */
static int open_body(struct sealer *sealer, const uint8_t *body, size_t size)
{
    static const uint8_t nonce[12];
    struct block_key key = {.key = {5}};
    struct bytes opened = {0};
    uint8_t *sealed = malloc(size + 16);

    assert_int_equal(aead_seal(key.key, nonce, "WB1", 3, body, size, sealed), 0);
    digest(sealed, size + 16, &key.id);
    int r = open_block(sealer, &key, sealed, size + 16, &opened);
    assert_true(opened.capacity <= LIMIT_BLOCK_BYTES + 4096);
    bytes_deinit(&opened);
    free(sealed);
    return r;
}

static void a_decompression_bomb_is_bounded(void **state)
{
    size_t bomb_bytes = 64u << 20, room = ZSTD_compressBound(bomb_bytes);
    uint8_t *zeros = calloc(1, bomb_bytes), *body = calloc(1, room + 8);
    size_t packed = ZSTD_compress(body + 8, room, zeros, bomb_bytes, 1);

    memcpy(body, "WB1\1", 4);
    memcpy(body + 4, "\0\0\0\4", 4); /* says 64 MiB, truly */
    assert_int_equal(open_body(*state, body, packed + 8), SEAL_E_SIZE);
    memcpy(body + 4, "\0\0\20\0", 4); /* says 1 MiB, falsely */
    assert_int_equal(open_body(*state, body, packed + 8), SEAL_E_FORM);
    free(zeros);
    free(body);
}

static void a_body_that_contradicts_itself_is_refused(void **state)
{
    static const struct {
        const char *body;
        size_t size;
        int result;
    } cases[] = {
        {"WB1\0\3\0\0\0abc", 11, 0},
        {"WB1\0\3\0\0\0ab", 10, SEAL_E_FORM},
        {"WB1\0\3\0\0\0abcd", 12, SEAL_E_FORM},
        {"WB1\2\3\0\0\0abc", 11, SEAL_E_FORM},
        {"WB1\1\3\0\0\0abc", 11, SEAL_E_FORM},
        {"WB2\0\3\0\0\0abc", 11, SEAL_E_FORM},
        {"WB1\0\1\0\20\0a", 9, SEAL_E_SIZE},
        {"WB1\0\0\0\0", 7, SEAL_E_FORM},
        {"", 0, SEAL_E_FORM},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(open_body(*state, (const uint8_t *)cases[i].body, cases[i].size),
                         cases[i].result);
}

static void a_wrapped_key_unwraps_with_its_secret_only(void **state)
{
    struct block_id id = {{4}};
    uint8_t key[32] = {7, 8}, wrapped[32], again[32];

    seal_wrap_key(*state, SECRET, &id, key, wrapped);
    assert_memory_not_equal(wrapped, key, 32);
    seal_wrap_key(*state, SECRET, &id, wrapped, again);
    assert_memory_equal(again, key, 32);
    seal_wrap_key(*state, OTHER, &id, wrapped, again);
    assert_memory_not_equal(again, key, 32);
}

static void mac2_is_hmac_sha256_of_both_parts(void **state)
{
    /* RFC 4231, test case 2, its key padded with zeros to 32 bytes: the same key to HMAC. */
    static const uint8_t key[32] = "Jefe";
    uint8_t expected[32], mac[32];

    assert_int_equal(hex_decode("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                                expected, 32), 0);
    mac2(key, "what do ya want ", 16, "for nothing?", 12, mac);
    assert_memory_equal(mac, expected, 32);
    mac2(key, NULL, 0, "what do ya want for nothing?", 28, mac);
    assert_memory_equal(mac, expected, 32);
}

struct alone {
    uint8_t key[32], mac[32];
};

static void *mac_alone(void *user)
{
    struct alone *alone = user;

    mac2(alone->key, "a", 1, "b", 1, alone->mac);
    return NULL;
}

/* A thread keeps some keys at hand: with more of them, in any order, each has its own mac. */
static void mac2_takes_any_key_after_any_other(void **state)
{
    struct alone alone[7] = {0};
    uint8_t mac[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(alone); i++) {
        pthread_t thread;

        alone[i].key[31] = (uint8_t)i; /* the first is all zeros */
        assert_int_equal(pthread_create(&thread, NULL, mac_alone, &alone[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(i == 0 || memcmp(alone[i].mac, alone[i - 1].mac, 32) != 0);
    }
    for (unsigned i = 0, at = 1; i < 5000; i++, at = at * 1103515245 + 12345) {
        const struct alone *one = &alone[(at >> 16) % ARRAY_SIZE(alone)];

        mac2(one->key, "a", 1, "b", 1, mac);
        assert_memory_equal(mac, one->mac, 32);
    }
}

static void aead_opens_only_what_it_sealed(void **state)
{
    uint8_t key[32] = {1}, nonce[12] = {2}, sealed[20], data[4] = {0};

    assert_int_equal(aead_seal(key, nonce, "aad", 3, "data", 4, sealed), 0);
    assert_int_equal(aead_open(key, nonce, "aad", 3, sealed, 20, data), 0);
    assert_memory_equal(data, "data", 4);
    memset(data, 0, 4);
    assert_int_equal(aead_open(key, nonce, "aae", 3, sealed, 20, data), SEAL_E_TAG);
    assert_int_equal(aead_open(key, nonce, "aad", 3, sealed, 15, data), SEAL_E_TAG);
    sealed[19] ^= 1;
    assert_int_equal(aead_open(key, nonce, "aad", 3, sealed, 20, data), SEAL_E_TAG);
    assert_memory_equal(data, "\0\0\0\0", 4);
}

static void refs_are_sorted_and_distinct_and_cut(void **state)
{
    size_t n = LIMIT_REFS_PER_BLOCK + 5, n_blocks = 0, n_read = 0;
    struct block_id *ids = calloc(2 * n, sizeof(*ids)), names[LIMIT_REFS_BLOCKS], name;
    struct bytes *blocks = calloc(LIMIT_REFS_BLOCKS, sizeof(*blocks));
    const struct block_id *read;

    for (size_t i = 0; i < n; i++) {
        ids[i].bytes[0] = (uint8_t)(n - i);
        ids[i].bytes[1] = (uint8_t)((n - i) >> 8);
        ids[2 * n - 1 - i] = ids[i];
    }
    assert_int_equal(refs_pack(ids, 2 * n, blocks, names, &n_blocks), 0);
    assert_int_equal(n_blocks, 2);
    assert_true(blocks[0].size <= LIMIT_BLOCK_BYTES);
    digest(blocks[0].data, blocks[0].size, &name);
    assert_memory_equal(&name, &names[0], sizeof(name));
    assert_int_equal(refs_unpack(blocks[0].data, blocks[0].size, &read, &n_read), 0);
    assert_int_equal(n_read, LIMIT_REFS_PER_BLOCK);
    for (size_t i = 1; i < n_read; i++)
        assert_true(memcmp(&read[i - 1], &read[i], sizeof(*read)) < 0);
    assert_int_equal(refs_unpack(blocks[1].data, blocks[1].size, &read, &n_read), 0);
    assert_int_equal(n_read, 5);
    assert_int_equal(refs_unpack(blocks[1].data, blocks[1].size - 1, &read, &n_read), SEAL_E_FORM);
    assert_int_equal(refs_unpack("WR1\0\377\377\377\377", 8, &read, &n_read), SEAL_E_SIZE);
    assert_int_equal(refs_unpack("WR2\0\0\0\0\0", 8, &read, &n_read), SEAL_E_FORM);
    bytes_deinit(&blocks[0]);
    bytes_deinit(&blocks[1]);
    free(blocks);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens_again),
        cmocka_unit_test(more_than_a_block_is_refused),
        cmocka_unit_test(equal_content_has_one_id_under_one_secret_only),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(a_decompression_bomb_is_bounded),
        cmocka_unit_test(a_body_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_wrapped_key_unwraps_with_its_secret_only),
        cmocka_unit_test(mac2_is_hmac_sha256_of_both_parts),
        cmocka_unit_test(mac2_takes_any_key_after_any_other),
        cmocka_unit_test(aead_opens_only_what_it_sealed),
        cmocka_unit_test(refs_are_sorted_and_distinct_and_cut),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
