/* wire_plain.c - the result of nearly every task, read where it lies: for a hundred thousand a
 * second, unpacking one, checking it and packing it again is a third of what a broker does.
 *
 * Only what is plain is taken, and nothing is refused: any field that is new, twice, out of order
 * or past a limit sends it the general way, which knows what to say of it.
 */
#include <proto/wire.h>

#include <string.h>
#include <proto/limits.h>
#include <proto/state.h>

struct at {
    const uint8_t *at, *end;
};

/* In as few bytes as it takes: of more, protobuf-c could not always read again what is stored as it
 * came. */
static bool varint(struct at *at, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned shift = 0; at->at < at->end && shift < 64; shift += 7) {
        uint8_t byte = *at->at++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret_value = value;
            return (byte > 0 || shift == 0) && (shift < 63 || byte <= 1);
        }
    }
    return false;
}

static bool part(struct at *at, struct at *ret_part)
{
    uint64_t size;

    if (!varint(at, &size) || size > (uint64_t)(at->end - at->at))
        return false;
    *ret_part = (struct at){at->at, at->at + size};
    at->at += size;
    return true;
}

static size_t size_of(const struct at *at)
{
    return (size_t)(at->end - at->at);
}

enum { VARINT = 0, BYTES = 2 };

/* False where there is none, or one that came before; `again` are those that may. */
static bool field(struct at *at, uint32_t *seen, uint32_t again, unsigned *ret_number,
                  unsigned *ret_type)
{
    uint64_t tag;

    if (!varint(at, &tag) || tag >> 3 > 31)
        return false;
    *ret_number = (unsigned)(tag >> 3);
    *ret_type = (unsigned)(tag & 7);
    if (*seen & ~again & 1u << *ret_number)
        return false;
    *seen |= 1u << *ret_number;
    return true;
}

/* Numbers from 1 to `n`, each at most once, none of them bytes but the first where `first` is
 * given. */
static bool numbers(struct at at, struct at *first, uint64_t *values, unsigned n)
{
    unsigned number, type;
    uint32_t seen = 0;

    while (at.at < at.end) {
        if (!field(&at, &seen, 0, &number, &type) || number == 0 || number > n)
            return false;
        if (number == 1 && first) {
            if (type != BYTES || !part(&at, first))
                return false;
        } else if (type != VARINT || !varint(&at, &values[number])) {
            return false;
        }
    }
    return true;
}

static bool lease_read(struct at at, struct lease *ret_lease)
{
    uint64_t values[7] = {0};
    struct at job = {0};

    if (!numbers(at, &job, values, 6) || size_of(&job) != sizeof(ret_lease->job) ||
        values[2] > UINT32_MAX || values[4] > UINT32_MAX || values[5] > UINT32_MAX)
        return false;
    memcpy(ret_lease->job, job.at, sizeof(ret_lease->job));
    ret_lease->step = (uint32_t)values[2];
    ret_lease->task = values[3];
    ret_lease->floor = (uint32_t)values[4];
    ret_lease->epoch = (uint32_t)values[5];
    ret_lease->attempt = values[6];
    return true;
}

static bool usage_read(struct at at, struct wire_usage *ret_usage)
{
    uint64_t values[7] = {0};

    if (!numbers(at, NULL, values, 6))
        return false;
    *ret_usage = (struct wire_usage){.wall_ns = values[1],
                                     .cpu_ns = values[2],
                                     .memory_bytes = values[3],
                                     .bytes_in = values[4],
                                     .bytes_out = values[5],
                                     .card_ns = values[6]};
    return true;
}

/* A block whose bytes are all here. */
static bool block_inline(struct at at)
{
    unsigned number, type;
    uint32_t seen = 0;
    struct at id = {0}, key = {0}, sealed = {0};
    uint64_t sealed_bytes = 0;

    while (at.at < at.end) {
        if (!field(&at, &seen, 0, &number, &type) || number == 0 || number > 4)
            return false;
        if (number == 3 ? type != VARINT || !varint(&at, &sealed_bytes)
                        : type != BYTES || !part(&at, number == 1   ? &id
                                                      : number == 2 ? &key
                                                                    : &sealed))
            return false;
    }
    return size_of(&id) == 32 && size_of(&key) == 32 && sealed_bytes <= LIMIT_SEALED_BYTES &&
           size_of(&sealed) > 0 &&
           size_of(&sealed) <= LIMIT_INLINE_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES;
}

enum {
    SESSION = 1,
    LEASE = 2,
    TICKET = 3,
    MANIFEST = 7,
    USAGE = 10,
    STARTED = 11,
    ENDED = 12,
    FILES = 13,
    SIZE = 14,
};

/* Session, lease and ticket come first, in this order, so that what the store keeps is two pieces.
 */
static bool result_read(struct at at, struct wire_plain *plain)
{
    unsigned number, type;
    uint32_t seen = 0, blocks = 0;
    uint64_t value = 0;
    struct at sub = {0};

    while (at.at < at.end) {
        const uint8_t *begin = at.at;
        uint32_t before = seen;

        if (!field(&at, &seen, 1u << MANIFEST, &number, &type) ||
            (number <= TICKET ? before >> number != 0 : !(before & 1u << TICKET)) ||
            !(type == VARINT ? varint(&at, &value) : type == BYTES && part(&at, &sub)))
            return false;
        bool bytes = number == LEASE || number == TICKET || number == MANIFEST || number == USAGE;
        if (bytes != (type == BYTES))
            return false;
        switch (number) {
        case SESSION:
            plain->session = value;
            break;
        case LEASE:
            plain->lease_form = begin;
            plain->lease_size = (size_t)(at.at - begin);
            if (!lease_read(sub, &plain->lease))
                return false;
            break;
        case TICKET:
            plain->ticket = sub.at;
            plain->rest = at.at;
            plain->rest_size = size_of(&at);
            if (size_of(&sub) != 32)
                return false;
            break;
        case MANIFEST:
            if (++blocks > LIMIT_MANIFEST_BLOCKS || !block_inline(sub))
                return false;
            break;
        case USAGE:
            if (!usage_read(sub, &plain->usage))
                return false;
            break;
        case STARTED:
        case ENDED:
        case FILES:
        case SIZE:
            break;
        default:
            return false; /* it failed, has something to say, or a log, or refs */
        }
    }
    return plain->lease_form && plain->ticket && blocks > 0;
}

bool wire_plain(const void *data, size_t size, struct wire_plain *ret_plain)
{
    struct at at = {data, (const uint8_t *)data + size}, result;
    uint64_t tag;

    *ret_plain = (struct wire_plain){0};
    return varint(&at, &tag) && tag == (WL__ENVELOPE__BODY_RESULT << 3 | BYTES) &&
           part(&at, &result) && at.at == at.end && result_read(result, ret_plain);
}

void wire_plain_stored(const struct wire_plain *plain, void *ret_stored)
{
    memcpy(ret_stored, plain->lease_form, plain->lease_size);
    memcpy((char *)ret_stored + plain->lease_size, plain->rest, plain->rest_size);
}

uint64_t wire_request(const void *data, size_t size)
{
    struct at at = {data, (const uint8_t *)data + size};
    uint64_t tag, request;

    return varint(&at, &tag) && tag == 1 << 3 && varint(&at, &request) ? request : 0;
}
