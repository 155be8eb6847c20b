/* seal.c - the idea: a block is built, encrypted and read in one buffer, so that a megabyte is
 * copied once at most. Algorithms are fetched once a process: a fetch in OpenSSL 3 costs more than
 * hashing a small block does.
 */
#include <proto/seal.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <zstd.h>

#include <proto/base/check.h>
#include <proto/limits.h>

enum {
    HEADER_BYTES = 8,
    TAG_BYTES = 16,
    SAMPLES = 16,
    SAMPLE_BYTES = 1024,
    ZSTD_LEVEL = 1, /* a renderer's files are mostly compressed or text; more level, little gain */
};

static const uint8_t FORMAT[3] = {'W', 'B', '1'};
static const uint8_t REFS_FORMAT[4] = {'W', 'R', '1', 0};

/* A thread's contexts, each with a key of late: to key one costs as much as to hash with it, and a
 * broker signs and checks a hundred thousand times a second with the same few. */
enum { KEYED = 4 };

struct keyed {
    uint8_t key[32];
    EVP_MAC_CTX *context; /* NULL: none */
};

static pthread_key_t keyed_key;
static void keyed_free(void *user);

static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;
static EVP_CIPHER *aes_gcm;
static EVP_MAC_CTX *hmac_template; /* keyed with zeros: OpenSSL 3.0 cannot copy one without a key */

struct sealer {
    EVP_CIPHER_CTX *cipher;
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    struct bytes body; /* of the block being opened */
};

static void fetch(void)
{
    static const uint8_t zeros[32];
    char name[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                                 OSSL_PARAM_construct_end()};
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);

    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    aes_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    CHECK(sha256 && aes_gcm && hmac);

    hmac_template = EVP_MAC_CTX_new(hmac);
    CHECK(hmac_template && EVP_MAC_init(hmac_template, zeros, sizeof(zeros), params) == 1);
    EVP_MAC_free(hmac);
    CHECK(pthread_key_create(&keyed_key, keyed_free) == 0);
}

static void fetch_once(void)
{
    CHECK(pthread_once(&fetched, fetch) == 0);
}

/* ---- digest and HMAC ---- */

void digest(const void *data, size_t size, struct block_id *ret_id)
{
    fetch_once();
    CHECK(EVP_Digest(size ? data : "", size, ret_id->bytes, NULL, sha256, NULL) == 1);
}

static void keyed_free(void *user)
{
    struct keyed *keyed = user;

    for (unsigned i = 0; i < KEYED; i++)
        EVP_MAC_CTX_free(keyed[i].context);
    wipe(keyed, KEYED * sizeof(*keyed));
    free(keyed);
}

/* Whoever is done with a sealer is done with the keys that it was used with. */
static void mac_forget(void)
{
    struct keyed *keyed = pthread_getspecific(keyed_key);

    if (keyed && pthread_setspecific(keyed_key, NULL) == 0)
        keyed_free(keyed);
}

/* Ready to hash; the least recently used one makes room. */
static EVP_MAC_CTX *keyed_context(const uint8_t key[32])
{
    struct keyed *keyed = pthread_getspecific(keyed_key), found;
    unsigned i = 0;

    if (!keyed) {
        keyed = calloc(KEYED, sizeof(*keyed));
        CHECK(keyed && pthread_setspecific(keyed_key, keyed) == 0);
    }
    while (i < KEYED - 1 && keyed[i].context && memcmp(keyed[i].key, key, 32) != 0)
        i++;
    found = keyed[i];
    if (!found.context)
        found.context = EVP_MAC_CTX_dup(hmac_template);
    else if (memcmp(found.key, key, 32) == 0)
        key = NULL;
    CHECK(found.context && EVP_MAC_init(found.context, key, key ? 32 : 0, NULL) == 1);
    if (key)
        memcpy(found.key, key, 32);
    memmove(keyed + 1, keyed, i * sizeof(*keyed));
    keyed[0] = found;
    return found.context;
}

void mac2(const uint8_t key[32], const void *a, size_t a_size, const void *b, size_t b_size,
          uint8_t ret_mac[32])
{
    size_t written = 0;

    fetch_once();
    EVP_MAC_CTX *context = keyed_context(key);
    CHECK(a_size == 0 || EVP_MAC_update(context, a, a_size) == 1);
    CHECK(b_size == 0 || EVP_MAC_update(context, b, b_size) == 1);
    CHECK(EVP_MAC_final(context, ret_mac, &written, 32) == 1 && written == 32);
}

/* ---- AES-256-GCM ---- */

static bool cipher_start(EVP_CIPHER_CTX *cipher, const uint8_t key[32], const uint8_t nonce[12],
                         const void *aad, size_t aad_size, int encrypt)
{
    int ignored;

    return aad_size <= INT_MAX &&
           EVP_CipherInit_ex2(cipher, aes_gcm, key, nonce, encrypt, NULL) == 1 &&
           (aad_size == 0 || EVP_CipherUpdate(cipher, NULL, &ignored, aad, (int)aad_size) == 1);
}

/* `out` may be `data`. The tag follows the data in `out`. */
static void gcm_seal(EVP_CIPHER_CTX *cipher, const uint8_t key[32], const uint8_t nonce[12],
                     const void *aad, size_t aad_size, const void *data, size_t size, uint8_t *out)
{
    int ignored;

    CHECK(size <= INT_MAX && cipher_start(cipher, key, nonce, aad, aad_size, 1));
    CHECK(size == 0 || EVP_CipherUpdate(cipher, out, &ignored, data, (int)size) == 1);
    CHECK(EVP_CipherFinal_ex(cipher, out + size, &ignored) == 1);
    CHECK(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, out + size) == 1);
}

/* `size` is without the tag. What was written to `out` is wiped where the tag does not fit. */
static int gcm_open(EVP_CIPHER_CTX *cipher, const uint8_t key[32], const uint8_t nonce[12],
                    const void *aad, size_t aad_size, const uint8_t *sealed, size_t size,
                    uint8_t *out)
{
    uint8_t tag[TAG_BYTES];
    int ignored;

    memcpy(tag, sealed + size, TAG_BYTES);
    CHECK(size <= INT_MAX && cipher_start(cipher, key, nonce, aad, aad_size, 0));
    CHECK(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1);
    CHECK(size == 0 || EVP_CipherUpdate(cipher, out, &ignored, sealed, (int)size) == 1);
    if (EVP_CipherFinal_ex(cipher, tag, &ignored) == 1)
        return 0;

    if (size)
        wipe(out, size);
    return SEAL_E_TAG;
}

int aead_seal(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_size,
              const void *data, size_t size, uint8_t *ret_sealed)
{
    fetch_once();
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    if (!cipher)
        return -ENOMEM;

    gcm_seal(cipher, key, nonce, aad, aad_size, data, size, ret_sealed);
    EVP_CIPHER_CTX_free(cipher);
    return 0;
}

int aead_open(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_size,
              const void *sealed, size_t size, uint8_t *ret_data)
{
    struct bytes plain = {0};
    EVP_CIPHER_CTX *cipher;
    int r;

    if (size < TAG_BYTES)
        return SEAL_E_TAG;

    size -= TAG_BYTES;
    fetch_once();
    r = bytes_reserve(&plain, size + 1);
    if (r < 0)
        return r;
    cipher = EVP_CIPHER_CTX_new();
    if (!cipher) {
        bytes_deinit(&plain);
        return -ENOMEM;
    }

    r = gcm_open(cipher, key, nonce, aad, aad_size, sealed, size, plain.data);
    if (r == 0 && size)
        memcpy(ret_data, plain.data, size);
    plain.size = size;
    bytes_wipe_deinit(&plain);
    EVP_CIPHER_CTX_free(cipher);
    return r;
}

/* ---- blocks ---- */

int sealer_new(struct sealer **ret_sealer)
{
    struct sealer *sealer = calloc(1, sizeof(*sealer));

    if (!sealer)
        return -ENOMEM;

    fetch_once();
    sealer->cipher = EVP_CIPHER_CTX_new();
    sealer->compressor = ZSTD_createCCtx();
    sealer->decompressor = ZSTD_createDCtx();
    if (!sealer->cipher || !sealer->compressor || !sealer->decompressor) {
        sealer_free(sealer);
        return -ENOMEM;
    }

    *ret_sealer = sealer;
    return 0;
}

void sealer_free(struct sealer *sealer)
{
    if (!sealer)
        return;
    mac_forget();

    EVP_CIPHER_CTX_free(sealer->cipher);
    ZSTD_freeCCtx(sealer->compressor);
    ZSTD_freeDCtx(sealer->decompressor);
    bytes_wipe_deinit(&sealer->body);
    free(sealer);
}

static void put_u32le(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32le(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool saves(size_t packed, size_t size)
{
    return packed + size / 20 < size;
}

/* Whether it is worth trying: pieces of a large block, evenly spread, together. */
static bool may_shrink(struct sealer *sealer, const uint8_t *data, size_t size)
{
    uint8_t pieces[SAMPLES * SAMPLE_BYTES], packed[ZSTD_COMPRESSBOUND(sizeof(pieces))];

    if (size < 4 * sizeof(pieces))
        return true;
    for (size_t i = 0; i < SAMPLES; i++)
        memcpy(pieces + i * SAMPLE_BYTES, data + (size - SAMPLE_BYTES) / (SAMPLES - 1) * i,
               SAMPLE_BYTES);
    size_t n = ZSTD_compressCCtx(sealer->compressor, packed, sizeof(packed), pieces, sizeof(pieces),
                                 ZSTD_LEVEL);
    return ZSTD_isError(n) || saves(n, sizeof(pieces));
}

/* Fills `out` with the body: compressed where that saves a twentieth, so that a worker does not
 * spend time to save nothing. Depends on the data only. */
static int body_make(struct sealer *sealer, const void *data, size_t size, struct bytes *out)
{
    size_t bound = ZSTD_compressBound(size), packed = size;
    int r = bytes_reserve(out, HEADER_BYTES + bound + TAG_BYTES);
    if (r < 0)
        return r;

    if (size && may_shrink(sealer, data, size)) {
        packed = ZSTD_compressCCtx(sealer->compressor, out->data + HEADER_BYTES, bound, data, size,
                                   ZSTD_LEVEL);
        if (ZSTD_isError(packed))
            return -ENOMEM; /* with `bound` bytes of room nothing else can fail */
    }

    bool pays = saves(packed, size);
    memcpy(out->data, FORMAT, sizeof(FORMAT));
    out->data[3] = pays;
    put_u32le(out->data + 4, (uint32_t)size);
    if (!pays && size)
        memcpy(out->data + HEADER_BYTES, data, size);
    out->size = HEADER_BYTES + (pays ? packed : size);
    return 0;
}

static const uint8_t BLOCK_NONCE[12]; /* zeros: a key seals exactly one body */

int seal_block(struct sealer *sealer, const uint8_t secret[32], const void *data, size_t size,
               struct bytes *out, struct block_key *ret_key)
{
    struct block_id body_digest;
    struct block_key key = {.body_bytes = (uint32_t)size};
    int r;

    if (size > LIMIT_BLOCK_BYTES)
        return SEAL_E_SIZE;

    r = body_make(sealer, data, size, out);
    if (r < 0)
        return r;

    digest(out->data, out->size, &body_digest);
    mac2(secret, "block1", 6, body_digest.bytes, sizeof(body_digest.bytes), key.key);
    gcm_seal(sealer->cipher, key.key, BLOCK_NONCE, FORMAT, sizeof(FORMAT), out->data, out->size,
             out->data);
    out->size += TAG_BYTES;
    key.sealed_bytes = (uint32_t)out->size;
    digest(out->data, out->size, &key.id);
    *ret_key = key;
    return 0;
}

/* The body is authentic by now; still, whoever holds the secret may have made it by other means. */
static int body_read(struct sealer *sealer, const uint8_t *body, size_t size, struct bytes *out)
{
    if (size < HEADER_BYTES || memcmp(body, FORMAT, sizeof(FORMAT)) != 0 || body[3] > 1)
        return SEAL_E_FORM;

    size_t raw = get_u32le(body + 4), payload = size - HEADER_BYTES;
    if (raw > LIMIT_BLOCK_BYTES)
        return SEAL_E_SIZE;
    if (!body[3] && raw != payload)
        return SEAL_E_FORM;

    int r = bytes_reserve(out, raw + 1);
    if (r < 0)
        return r;

    if (!body[3])
        memcpy(out->data, body + HEADER_BYTES, payload);
    else if (ZSTD_decompressDCtx(sealer->decompressor, out->data, raw, body + HEADER_BYTES,
                                 payload) != raw)
        return SEAL_E_FORM;
    out->size = raw;
    return 0;
}

int open_checked(struct sealer *sealer, const struct block_key *key, const void *sealed,
                 size_t size, struct bytes *out)
{
    int r;

    out->size = 0;
    if (size > LIMIT_SEALED_BYTES)
        return SEAL_E_SIZE;
    if (size < HEADER_BYTES + TAG_BYTES)
        return SEAL_E_FORM;

    size_t body_bytes = size - TAG_BYTES;
    r = bytes_reserve(&sealer->body, LIMIT_SEALED_BYTES);
    if (r < 0)
        return r;
    r = gcm_open(sealer->cipher, key->key, BLOCK_NONCE, FORMAT, sizeof(FORMAT), sealed, body_bytes,
                 sealer->body.data);
    if (r)
        return r;

    sealer->body.size = body_bytes;
    r = body_read(sealer, sealer->body.data, body_bytes, out);
    if (r)
        return r;
    /* 0: the reference does not say. */
    return key->body_bytes && key->body_bytes != out->size ? SEAL_E_FORM : 0;
}

int open_block(struct sealer *sealer, const struct block_key *key, const void *sealed, size_t size,
               struct bytes *out)
{
    struct block_id id;

    out->size = 0;
    if (size > LIMIT_SEALED_BYTES)
        return SEAL_E_SIZE;

    digest(sealed, size, &id);
    if (memcmp(&id, &key->id, sizeof(id)) != 0)
        return SEAL_E_ID;
    return open_checked(sealer, key, sealed, size, out);
}

void seal_wrap_key(struct sealer *sealer _unused_, const uint8_t secret[32],
                   const struct block_id *id, const uint8_t key[32], uint8_t ret_wrapped[32])
{
    uint8_t pad[32];

    mac2(secret, "ref1", 4, id->bytes, sizeof(id->bytes), pad);
    for (size_t i = 0; i < sizeof(pad); i++)
        ret_wrapped[i] = key[i] ^ pad[i];
    wipe(pad, sizeof(pad));
}

/* ---- refs blocks ---- */

static int id_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct block_id));
}

static size_t sort_unique(struct block_id *ids, size_t n)
{
    size_t kept = 0;

    qsort(ids, n, sizeof(*ids), id_compare);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || memcmp(&ids[kept - 1], &ids[i], sizeof(*ids)) != 0)
            ids[kept++] = ids[i];
    return kept;
}

static int refs_fill(const struct block_id *ids, size_t n, struct bytes *out)
{
    uint8_t count[4];
    int r;

    put_u32le(count, (uint32_t)n);
    r = bytes_reserve(out, sizeof(REFS_FORMAT) + sizeof(count) + n * sizeof(*ids));
    if (r == 0)
        r = bytes_append(out, REFS_FORMAT, sizeof(REFS_FORMAT));
    if (r == 0)
        r = bytes_append(out, count, sizeof(count));
    return r ? r : bytes_append(out, ids, n * sizeof(*ids));
}

int refs_pack(const struct block_id *ids, size_t n_ids, struct bytes *ret_blocks,
              struct block_id *ret_names, size_t *ret_n_blocks)
{
    _cleanup_(freep) struct block_id *sorted = NULL;
    size_t n_blocks = 0;

    if (n_ids > SIZE_MAX / sizeof(*ids) - 1)
        return SEAL_E_SIZE;

    sorted = malloc((n_ids + 1) * sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    if (n_ids)
        memcpy(sorted, ids, n_ids * sizeof(*ids));

    size_t left = sort_unique(sorted, n_ids);
    if (left > (size_t)LIMIT_REFS_PER_BLOCK * LIMIT_REFS_BLOCKS)
        return SEAL_E_SIZE;

    for (const struct block_id *next = sorted; left; n_blocks++) {
        size_t n = left < LIMIT_REFS_PER_BLOCK ? left : LIMIT_REFS_PER_BLOCK;
        struct bytes block = {0};
        int r = refs_fill(next, n, &block);

        if (r < 0) {
            bytes_deinit(&block);
            while (n_blocks)
                bytes_deinit(&ret_blocks[--n_blocks]);
            return r;
        }
        digest(block.data, block.size, &ret_names[n_blocks]);
        ret_blocks[n_blocks] = block;
        next += n;
        left -= n;
    }
    *ret_n_blocks = n_blocks;
    return 0;
}

int refs_unpack(const void *data, size_t size, const struct block_id **ret_ids, size_t *ret_n_ids)
{
    const uint8_t *bytes = data;
    size_t n;

    if (size < 8 || memcmp(bytes, REFS_FORMAT, sizeof(REFS_FORMAT)) != 0)
        return SEAL_E_FORM;

    n = get_u32le(bytes + 4);
    if (n > LIMIT_REFS_PER_BLOCK)
        return SEAL_E_SIZE;
    if (size != 8 + n * sizeof(struct block_id))
        return SEAL_E_FORM;

    *ret_ids = (const struct block_id *)(bytes + 8);
    *ret_n_ids = n;
    return 0;
}
