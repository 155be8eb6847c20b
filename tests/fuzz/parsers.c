/* parsers.c - everything that takes bytes from outside, behind one entry: the first byte chooses.
 *
 * With clang, link against -fsanitize=fuzzer with -DFUZZ_ENGINE. Without, main mutates a handful of
 * valid inputs from a seed: parsers [iterations [seed]]. A crash names both.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/check.h>
#include <proto/limits.h>
#include <proto/manifest.h>
#include <proto/seal.h>
#include <proto/wire.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sealer *sealer;

/* What is read where it lies is what the general way takes, and says the same. */
static void check_plain(const uint8_t *data, size_t size)
{
    _cleanup_(freep) uint8_t *stored = malloc(size);
    Wl__Envelope *envelope;
    Wl__Result *again;
    struct wire_plain plain;
    struct lease lease;
    const char *why;

    if (!wire_plain(data, size, &plain))
        return;
    wire_plain_stored(&plain, stored);
    again = wl__result__unpack(NULL, plain.lease_size + plain.rest_size, stored);
    CHECK(again);
    wl__result__free_unpacked(again, NULL);
    CHECK(wire_unpack(data, size, &envelope, &why) == 0);
    CHECK(envelope->body_case == WL__ENVELOPE__BODY_RESULT && envelope->result->class_ == 0);
    CHECK(wire_lease(envelope->result->lease, &lease) == 0);
    CHECK(memcmp(lease.job, plain.lease.job, sizeof(lease.job)) == 0 &&
          lease.attempt == plain.lease.attempt && lease.task == plain.lease.task);
    CHECK(envelope->result->session == plain.session && envelope->result->n_manifest > 0);
    wire_free(envelope);
}

static void fuzz_control(const uint8_t *data, size_t size)
{
    Wl__Envelope *envelope;
    struct wire_each each;
    const char *why;
    const void *at;

    wire_each_init(&each, data, size);
    while (wire_each_next(&each, &at, &size) == 0) {
        check_plain(at, size);
        if (wire_unpack(at, size, &envelope, &why) == 0)
            wire_free(envelope);
    }
}

static void fuzz_bulk(const uint8_t *data, size_t size)
{
    Wl__Bulk *bulk;
    const char *why;

    if (wire_bulk_unpack(data, size, &bulk, &why) == 0)
        wl__bulk__free_unpacked(bulk, NULL);
}

static void fuzz_recipe(const uint8_t *data, size_t size)
{
    Wl__Recipe *recipe;
    const char *why;

    if (wire_recipe_unpack(data, size, &recipe, &why) != 0)
        return;
    for (size_t i = 0; i < recipe->n_steps; i++) {
        struct space space;

        if (wire_space(recipe->steps[i]->space, recipe->steps[i]->n_space, &space) == 0)
            space_deinit(&space);
    }
    wl__recipe__free_unpacked(recipe, NULL);
}

static void fuzz_manifest(const uint8_t *data, size_t size)
{
    Wl__Manifest *manifest;
    struct block_key *keys;
    size_t n;

    if (manifest_parse(data, size, &manifest, NULL) != 0)
        return;
    for (size_t i = 0; i < manifest->n_files; i++)
        CHECK(manifest_path_ok(manifest->files[i]->path));
    if (manifest_blocks(manifest, &keys, &n) == 0)
        free(keys);
    wl__manifest__free_unpacked(manifest, NULL);
}

static void open_as(const uint8_t *data, size_t size)
{
    struct block_key key = {.key = {1}};
    struct bytes out = {0};

    digest(data, size, &key.id);
    if (open_block(sealer, &key, data, size, &out) == 0)
        CHECK(out.size <= LIMIT_BLOCK_BYTES);
    bytes_deinit(&out);
}

static void fuzz_block(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {1}, nonce[12];
    uint8_t *sealed = malloc(size + 16);

    open_as(data, size);
    /* And as the body, by someone who holds the key. */
    CHECK(sealed && aead_seal(key, nonce, "WB1", 3, data, size, sealed) == 0);
    open_as(sealed, size + 16);
    free(sealed);
}

static void fuzz_refs(const uint8_t *data, size_t size)
{
    const struct block_id *ids;
    size_t n;
    unsigned sum = 0;

    if (refs_unpack(data, size, &ids, &n) == 0)
        for (size_t i = 0; i < n; i++)
            sum += ids[i].bytes[31]; /* read to the end, where the sanitiser looks */
    (void)sum;
}

static void fuzz_match(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size);
    size_t half = strlen(text) / 2;
    char *pattern = strndup(text, half);
    uint64_t work = UINT64_MAX;

    (void)manifest_match(pattern, text + half, (int64_t)size * 7919 - 100, &work);
    free(pattern);
    free(text);
}

static void (*const PARSERS[])(const uint8_t *data, size_t size) = {
    fuzz_control, fuzz_bulk, fuzz_recipe, fuzz_manifest, fuzz_block, fuzz_refs, fuzz_match,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!sealer)
        CHECK(sealer_new(&sealer) == 0);
    if (size == 0)
        return 0;

    /* A copy of exactly that size, so that a read past it is seen. */
    uint8_t *copy = malloc(size);
    CHECK(copy);
    memcpy(copy, data + 1, size - 1);
    copy = realloc(copy, size - 1 ? size - 1 : 1);
    CHECK(copy);
    PARSERS[data[0] % ARRAY_SIZE(PARSERS)](copy, size - 1);
    free(copy);
    return 0;
}

#ifndef FUZZ_ENGINE

enum { INPUT_BYTES_MAX = 4096, SEEDS_MAX = 64 };

static struct {
    uint8_t data[INPUT_BYTES_MAX];
    size_t size;
} seeds[SEEDS_MAX];
static size_t n_seeds;
static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % below);
}

static void seed_add(uint8_t parser, const void *data, size_t size)
{
    CHECK(n_seeds < SEEDS_MAX && size < INPUT_BYTES_MAX);
    seeds[n_seeds].data[0] = parser;
    memcpy(seeds[n_seeds].data + 1, data, size);
    seeds[n_seeds++].size = size + 1;
}

/* Parts lie inside their blocks and add up, so that a manifest is one. */
static uint8_t number_of(const char *field)
{
    if (strcmp(field, "size") == 0 || strcmp(field, "length") == 0)
        return 5;
    return strcmp(field, "body_bytes") == 0 ? 100 : (uint8_t)draw(90);
}

/* Any message of the schema, its bytes of the right length: a start for mutation. */
static size_t message_write(const ProtobufCMessageDescriptor *descriptor, uint8_t *out, size_t room)
{
    size_t used = 0;

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        bool sized = field->type == PROTOBUF_C_TYPE_MESSAGE ||
                     field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES;
        uint8_t inside[1024];
        size_t size = 0;

        if (field->type == PROTOBUF_C_TYPE_DOUBLE || strcmp(field->name, "link") == 0 || field->id > 2047 ||
            ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && draw((uint32_t)descriptor->n_fields) > 1))
            continue;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            size = message_write(field->descriptor, inside, sizeof(inside));
        else if (field->type == PROTOBUF_C_TYPE_STRING)
            memset(inside, 'a', size = 3);
        else if (sized)
            memset(inside, 1, size = strcmp(field->name, "job") == 0 ||
                                             strcmp(field->name, "request_id") == 0 ? 16 : 32);
        if (used + size + 6 > room)
            break;
        uint32_t tag = field->id << 3 | (sized ? 2 : 0);
        if (tag > 127)
            out[used++] = (uint8_t)(tag | 128);
        out[used++] = (uint8_t)(tag > 127 ? tag >> 7 : tag);
        if (sized && size > 127)
            out[used++] = (uint8_t)(size | 128);
        out[used++] = (uint8_t)(!sized ? number_of(field->name) : size > 127 ? size >> 7 : size);
        memcpy(out + used, inside, size);
        used += size;
    }
    return used;
}

/* One that is read where it lies, alone and in a packet with another. */
static void seed_plain(void)
{
    static uint8_t some[32] = {1};
    ProtobufCBinaryData id = {16, some}, key = {32, some};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Result result = WL__RESULT__INIT;
    Wl__Lease lease = WL__LEASE__INIT;
    Wl__BlockRef block = WL__BLOCK_REF__INIT, *blocks[] = {&block};
    Wl__Usage usage = WL__USAGE__INIT;
    struct wire_packet packet = {0};
    struct wire_plain plain;

    lease.job = id;
    lease.attempt = 300;
    block.id = block.wrapped_key = block.inline_sealed = key;
    block.sealed_bytes = 32;
    usage.wall_ns = 1 << 20;
    result.lease = &lease;
    result.ticket = key;
    result.n_manifest = 1;
    result.manifest = blocks;
    result.usage = &usage;
    result.session = result.output_files = 1;
    envelope.body_case = WL__ENVELOPE__BODY_RESULT;
    envelope.result = &result;
    CHECK(wire_packet_add(&packet, &envelope) == 0);
    CHECK(wire_plain(packet.data + packet.bare, packet.size - packet.bare, &plain));
    seed_add(0, packet.data + packet.bare, packet.size - packet.bare);
    CHECK(wire_packet_add(&packet, &envelope) == 0);
    seed_add(0, packet.data, packet.size);
    wire_packet_deinit(&packet);
}

static void seeds_make(void)
{
    static const struct {
        uint8_t parser;
        const ProtobufCMessageDescriptor *descriptor;
    } roots[] = {{0, &wl__envelope__descriptor}, {1, &wl__bulk__descriptor},
                 {2, &wl__recipe__descriptor}, {3, &wl__manifest__descriptor}};
    static const uint8_t secret[32];
    struct bytes sealed = {0}, refs[LIMIT_REFS_BLOCKS];
    struct block_id names[LIMIT_REFS_BLOCKS];
    struct block_key key;
    size_t n = 0;
    uint8_t data[2048];

    for (size_t i = 0; i < ARRAY_SIZE(roots); i++)
        for (int k = 0; k < 12; k++)
            seed_add(roots[i].parser, data,
                     message_write(roots[i].descriptor, data, sizeof(data)));
    memset(data, 'z', sizeof(data));
    CHECK(seal_block(sealer, secret, data, sizeof(data), &sealed, &key) == 0);
    seed_add(4, sealed.data, sealed.size);
    seed_add(4, "WB1\0\3\0\0\0abc", 11);
    seed_add(4, "WB1\1\0\10\0\0\x28\xb5\x2f\xfd\x60\0\7\x4d\0\0\x10\x7a\x7a\1\0\xfb\xff\x39\xc0\2", 28);
    CHECK(refs_pack((const struct block_id *)data, 40, refs, names, &n) == 0 && n);
    seed_add(5, refs[0].data, refs[0].size);
    seed_add(6, "cache_####*.v?bcache_0007_x.vdb", 31);
    seed_plain();
    bytes_deinit(&refs[0]);
    bytes_deinit(&sealed);
}

static size_t mutate(uint8_t *data, size_t size)
{
    for (uint32_t n = 1 + draw(4); n && size; n--) {
        size_t at = draw((uint32_t)size), length = 1 + draw(8);

        switch (draw(5)) {
        case 0:
            data[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1:
            data[at] = (uint8_t)draw(256);
            break;
        case 2: /* cut */
            length = length < size - at ? length : size - at;
            memmove(data + at, data + at + length, size - at - length);
            size -= length;
            break;
        case 3: /* repeat a piece */
            length *= 8;
            if (at + length > size || size + length > INPUT_BYTES_MAX)
                break;
            memmove(data + at + length, data + at, size - at);
            size += length;
            break;
        default:
            data[at] = (uint8_t[]){0, 127, 128, 255}[draw(4)];
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    unsigned long iterations = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    random_state = seed;
    CHECK(sealer_new(&sealer) == 0);
    seeds_make();
    printf("parsers: %lu iterations of seed %llu, %zu inputs\n", iterations,
           (unsigned long long)seed, n_seeds);
    for (unsigned long i = 0; i < iterations; i++) {
        uint8_t data[INPUT_BYTES_MAX];
        size_t from = draw((uint32_t)n_seeds), size = seeds[from].size;

        memcpy(data, seeds[from].data, size);
        if (i >= n_seeds)
            size = mutate(data, size);
        LLVMFuzzerTestOneInput(data, size);
    }
    sealer_free(sealer);
    return 0;
}

#endif
