/* mutate.c - an input changed a little: by its fields where it has some, by its bytes everywhere.
 *
 * A field is left out, doubled, moved, taken from another input, or given another number or length;
 * the lengths of what it lies in follow. So a mutant mostly gets past the reading, and to what is
 * behind.
 */
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/err.h>
#include "fuzz.h"

enum { FIELDS_MAX = 256, DEPTH_MAX = 6 };

/* Source: splitmix64. */
uint32_t fuzz_draw(struct fuzz_random *random, uint32_t below)
{
    uint64_t mixed = random->state += 0x9e3779b97f4a7c15u;

    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((mixed ^ mixed >> 31) % below);
}

/* ---- by fields ---- */

struct field {
    const uint8_t *tag, *value, *end; /* of a field of bytes, value is behind the length */
    unsigned wire;
};

static bool varint_read(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;

        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool field_read(const uint8_t **at, const uint8_t *end, struct field *ret_field)
{
    uint64_t tag, size;

    ret_field->tag = *at;
    if (!varint_read(at, end, &tag) || tag >> 3 == 0)
        return false;
    ret_field->wire = tag & 7;
    ret_field->value = *at;
    switch (ret_field->wire) {
    case 0:
        if (!varint_read(at, end, &size))
            return false;
        break;
    case 1:
    case 5:
        size = ret_field->wire == 1 ? 8 : 4;
        if (size > (size_t)(end - *at))
            return false;
        *at += size;
        break;
    case 2:
        if (!varint_read(at, end, &size) || size > (size_t)(end - *at))
            return false;
        ret_field->value = *at;
        *at += size;
        break;
    default:
        return false;
    }
    ret_field->end = *at;
    return true;
}

/* How many it is made of; 0 where it is made of anything else. */
static size_t fields_read(const uint8_t *data, size_t size, struct field fields[FIELDS_MAX])
{
    const uint8_t *at = data, *end = data + size;
    size_t n = 0;

    while (at < end)
        if (n == FIELDS_MAX || !field_read(&at, end, &fields[n++]))
            return 0;
    return n;
}

struct out {
    uint8_t *data;
    size_t size, room;
};

static void out_put(struct out *out, const void *data, size_t size)
{
    if (size == 0 || size > out->room - out->size)
        return;
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void out_varint(struct out *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    do
        bytes[n++] = (uint8_t)((value & 127) | (value > 127 ? 128 : 0));
    while (value >>= 7);
    out_put(out, bytes, n);
}

static void out_number(struct out *out, struct fuzz_random *random)
{
    static const uint64_t some[] = {0,          1,         2,          127,       128,
                                    256,        65535,     65536,      INT32_MAX, UINT32_MAX,
                                    1ULL << 32, INT64_MAX, 1ULL << 63, UINT64_MAX};

    out_varint(out, fuzz_draw(random, 2) ? some[fuzz_draw(random, ARRAY_SIZE(some))]
                                         : fuzz_draw(random, 300));
}

/* Its tag, and bytes of another length. */
static void out_bytes(struct out *out, struct fuzz_random *random, const struct field *field)
{
    static const size_t some[] = {0, 1, 15, 16, 17, 31, 32, 33, 64, 127, 257, 1025};
    size_t size = some[fuzz_draw(random, ARRAY_SIZE(some))];
    size_t had = (size_t)(field->end - field->value);
    uint8_t bytes[1025];

    for (size_t i = 0; i < size; i++)
        bytes[i] = i < had ? field->value[i] : fuzz_draw(random, 20) ? 'a' : (uint8_t)i;
    out_varint(out, size);
    out_put(out, bytes, size);
}

static void out_field(struct out *out, const struct field *field)
{
    out_put(out, field->tag, (size_t)(field->end - field->tag));
}

static size_t tag_size(const struct field *field)
{
    size_t n = 1;

    while (field->tag[n - 1] > 127)
        n++;
    return n;
}

static void out_changed(struct out *out, struct fuzz_random *random, const struct field *field)
{
    uint8_t fixed[8];

    if (field->wire == 0) {
        out_put(out, field->tag, tag_size(field));
        out_number(out, random);
    } else if (field->wire == 2) {
        out_put(out, field->tag, tag_size(field));
        out_bytes(out, random, field);
    } else {
        memset(fixed, fuzz_draw(random, 3) ? 255 : 0, sizeof(fixed));
        fixed[fuzz_draw(random, 8)] = (uint8_t)fuzz_draw(random, 256);
        out_put(out, field->tag, tag_size(field));
        out_put(out, fixed, field->wire == 1 ? 8 : 4);
    }
}

static void mutate_bytes(struct fuzz_random *random, struct out *out);
static bool mutate_fields(struct fuzz_random *random, const uint8_t *data, size_t size,
                          const struct field *others, size_t n_others, struct out *out,
                          unsigned depth);

/* What lies in a field, changed; and its length follows. */
static void out_inside(struct fuzz_random *random, const struct field *field,
                       const struct field *others, size_t n_others, struct out *out, unsigned depth)
{
    uint8_t memory[FUZZ_INPUT_BYTES];
    struct out inside = {memory, 0, sizeof(memory)};
    size_t size = (size_t)(field->end - field->value);

    if (depth == DEPTH_MAX ||
        !mutate_fields(random, field->value, size, others, n_others, &inside, depth + 1)) {
        inside.size = 0;
        out_put(&inside, field->value, size);
        mutate_bytes(random, &inside);
    }
    out_put(out, field->tag, tag_size(field));
    out_varint(out, inside.size);
    out_put(out, inside.data, inside.size);
}

/* One of the fields, or of those in it. */
static bool mutate_fields(struct fuzz_random *random, const uint8_t *data, size_t size,
                          const struct field *others, size_t n_others, struct out *out,
                          unsigned depth)
{
    struct field fields[FIELDS_MAX];
    size_t n = fields_read(data, size, fields);

    if (n == 0)
        return false;
    size_t chosen = fuzz_draw(random, (uint32_t)n), moved = fuzz_draw(random, (uint32_t)n);
    bool inside = fields[chosen].wire == 2 && fuzz_draw(random, 4) > 0;
    unsigned how = fuzz_draw(random, 6);

    for (size_t i = 0; i < n; i++) {
        const struct field *field = &fields[i];

        if (i != chosen)
            out_field(out, how == 3 && !inside && i == moved ? &fields[chosen] : field);
        else if (inside)
            out_inside(random, field, others, n_others, out, depth);
        else if (how == 1 || (how == 2 && n_others == 0)) {
            out_field(out, field);
            out_field(out, field);
        } else if (how == 2) {
            out_field(out, field);
            out_field(out, &others[fuzz_draw(random, (uint32_t)n_others)]);
        } else if (how == 3)
            out_field(out, &fields[moved]);
        else if (how > 3)
            out_changed(out, random, field);
        /* 0: left out */
    }
    return true;
}

/* ---- by bytes ---- */

static void cut(struct out *out, size_t at, size_t length)
{
    length = length < out->size - at ? length : out->size - at;
    memmove(out->data + at, out->data + at + length, out->size - at - length);
    out->size -= length;
}

static void repeat(struct out *out, size_t at, size_t length)
{
    length = length < out->size - at ? length : out->size - at;
    if (length > out->room - out->size)
        return;
    memmove(out->data + at + length, out->data + at, out->size - at);
    out->size += length;
}

static void mutate_bytes(struct fuzz_random *random, struct out *out)
{
    static const uint8_t some[] = {0,   1,   127, 128, 255, '/', '{',
                                   '}', '-', '0', '9', ',', '"', '\n'};

    for (uint32_t n = 1 + fuzz_draw(random, 4); n && out->size; n--) {
        size_t at = fuzz_draw(random, (uint32_t)out->size);

        switch (fuzz_draw(random, 6)) {
        case 0:
            out->data[at] ^= (uint8_t)(1u << fuzz_draw(random, 8));
            break;
        case 1:
            out->data[at] = (uint8_t)fuzz_draw(random, 256);
            break;
        case 2:
            cut(out, at, 1 + fuzz_draw(random, 16));
            break;
        case 3:
            repeat(out, at, 1 + fuzz_draw(random, 64));
            break;
        case 4: /* a number that counts */
            memset(out->data + at, fuzz_draw(random, 2) ? 255 : 0,
                   out->size - at < 4 ? out->size - at : 4);
            break;
        default:
            out->data[at] = some[fuzz_draw(random, sizeof(some))];
        }
    }
}

/* ---- both ---- */

size_t fuzz_mutate(struct fuzz_random *random, uint8_t *data, size_t size, const uint8_t *other,
                   size_t other_size)
{
    struct field others[FIELDS_MAX];
    size_t n_others = fields_read(other, other_size, others);

    CHECK(size <= FUZZ_INPUT_BYTES);
    for (uint32_t n = 1 + fuzz_draw(random, 3); n; n--) {
        uint8_t memory[FUZZ_INPUT_BYTES];
        struct out out = {memory, 0, sizeof(memory)};

        if (fuzz_draw(random, 8) == 0 ||
            !mutate_fields(random, data, size, others, n_others, &out, 0)) {
            out.size = 0;
            out_put(&out, data, size);
            mutate_bytes(random, &out);
        }
        memcpy(data, out.data, out.size);
        size = out.size;
    }
    return size;
}
