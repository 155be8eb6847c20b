/* block.c - a block: as anybody may have sent it, as its body by somebody who holds the key, and as
 * the plain block of what a job refers to.
 */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/limits.h>
#include <proto/seal.h>
#include "fuzz.h"

enum { SEALED = 1, BODY, REFS };

static struct sealer *sealer;

static void open_as(const uint8_t *data, size_t size)
{
    struct block_key key = {.key = {1}};
    struct bytes out = {0};

    digest(data, size, &key.id);
    if (open_block(sealer, &key, data, size, &out) == 0)
        CHECK(out.size <= LIMIT_BLOCK_BYTES);
    bytes_deinit(&out);
}

static void open_body(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {1}, nonce[12];
    uint8_t *sealed = malloc(size + 16);

    CHECK(sealed && aead_seal(key, nonce, "WB1", 3, data, size, sealed) == 0);
    open_as(sealed, size + 16);
    free(sealed);
}

static void read_refs(const uint8_t *data, size_t size)
{
    const struct block_id *ids;
    size_t n;
    unsigned sum = 0;

    if (refs_unpack(data, size, &ids, &n) == 0)
        for (size_t i = 0; i < n; i++)
            sum += ids[i].bytes[31]; /* to the end, where the sanitiser looks */
    (void)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    if (!sealer)
        CHECK(sealer_new(&sealer) == 0);
    while (fuzz_next(&data, &size, &part)) {
        uint8_t *copy = fuzz_copy(part.data, part.size);

        (part.number == SEALED ? open_as
         : part.number == BODY ? open_body
                               : read_refs)(copy, part.size);
        free(copy);
    }
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    static const uint8_t secret[32],
        packed[] =
            "WB1\1\0\10\0\0\x28\xb5\x2f\xfd\x60\0\7\x4d\0\0\x10\x7a\x7a\1\0\xfb\xff\x39\xc0\2";
    struct bytes sealed = {0}, refs[LIMIT_REFS_BLOCKS];
    struct block_id names[LIMIT_REFS_BLOCKS], some[8];
    static struct fuzz_buffer all;
    struct sealer *own;
    struct block_key key;
    size_t n = 0;

    all.size = 0;
    memset(some, 'z', sizeof(some));
    some[0].bytes[0] = 'a';
    CHECK(sealer_new(&own) == 0);
    CHECK(seal_block(own, secret, some, sizeof(some), &sealed, &key) == 0);
    fuzz_put(&all, SEALED, sealed.data, sealed.size);
    fuzz_put(&all, BODY, "WB1\0\3\0\0\0abc", 11);
    fuzz_put(&all, BODY, packed, sizeof(packed) - 1);
    CHECK(refs_pack(some, ARRAY_SIZE(some), refs, names, &n) == 0 && n == 1);
    fuzz_put(&all, REFS, refs[0].data, refs[0].size);
    add("all", all.data, all.size);
    bytes_deinit(&refs[0]);
    bytes_deinit(&sealed);
    sealer_free(own);
}
