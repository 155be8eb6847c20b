/* hot.c - see hot.h. */
#include <tests/load/hot.h>

#include <string.h>
#include <proto/westlight.pb-c.h>

enum { VARINT = 0, EIGHT = 1, BYTES = 2, FOUR = 5 };

#define TAG(field, type) ((unsigned)(field) << 3 | (type))

/* ---- reading ---- */

struct field {
    unsigned number, type;
    uint64_t value; /* VARINT */
    const uint8_t *data;
    size_t size; /* BYTES */
};

static inline bool varint(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static inline bool skip(const uint8_t **at, const uint8_t *end, size_t size)
{
    if ((size_t)(end - *at) < size)
        return false;
    *at += size;
    return true;
}

static inline bool field_next(const uint8_t **at, const uint8_t *end, struct field *field)
{
    uint64_t tag, size;

    if (!varint(at, end, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
        return false;
    field->number = (unsigned)(tag >> 3);
    field->type = tag & 7;
    switch (field->type) {
    case VARINT:
        return varint(at, end, &field->value);
    case BYTES:
        if (!varint(at, end, &size))
            return false;
        field->data = *at;
        field->size = (size_t)size;
        return skip(at, end, (size_t)size);
    case EIGHT:
        return skip(at, end, 8);
    case FOUR:
        return skip(at, end, 4);
    default:
        return false;
    }
}

void hot_each_init(struct hot_each *each, const void *data, size_t size)
{
    *each = (struct hot_each){.at = data, .end = (const uint8_t *)data + size};
    each->bare = size == 0 || *each->at != 0;
    if (!each->bare)
        each->at++;
}

bool hot_each_next(struct hot_each *each, const uint8_t **ret_data, size_t *ret_size)
{
    uint64_t size;

    if (each->at >= each->end || each->bad)
        return false;
    if (each->bare)
        size = (uint64_t)(each->end - each->at);
    else if (!varint(&each->at, each->end, &size) || size > (uint64_t)(each->end - each->at)) {
        each->bad = true;
        return false;
    }
    *ret_data = each->at;
    *ret_size = (size_t)size;
    each->at += size;
    return true;
}

bool hot_envelope(const uint8_t *data, size_t size, struct hot_envelope *ret_envelope)
{
    const uint8_t *at = data, *end = data + size;
    struct hot_envelope envelope = {0};
    struct field field;

    while (at < end) {
        if (!field_next(&at, end, &field))
            return false;
        if (field.number == 1 && field.type == VARINT)
            envelope.request = field.value;
        else if (field.number > 1 && field.type == BYTES) {
            envelope.body = field.number;
            envelope.data = field.data;
            envelope.size = field.size;
        }
    }
    *ret_envelope = envelope;
    return true;
}

bool hot_lease(const uint8_t *data, size_t size, struct hot_lease *ret_lease)
{
    const uint8_t *at = data, *end = data + size;
    struct hot_lease *lease = ret_lease;
    struct field field;

    *lease = (struct hot_lease){.packed = data, .packed_size = size};
    while (at < end) {
        if (!field_next(&at, end, &field))
            return false;
        if (field.number == 1 && field.type == BYTES && field.size == 16)
            lease->job = field.data;
        else if (field.type != VARINT)
            continue;
        else if (field.number == 2)
            lease->step = field.value;
        else if (field.number == 3)
            lease->task = field.value;
        else if (field.number == 4)
            lease->floor = field.value;
        else if (field.number == 5)
            lease->epoch = field.value;
        else if (field.number == 6)
            lease->attempt = field.value;
    }
    return lease->job && lease->packed_size <= HOT_LEASE_BYTES;
}

bool hot_assign(const uint8_t *data, size_t size, struct hot_assign *ret_assign)
{
    const uint8_t *at = data, *end = data + size;
    struct hot_assign *assign = ret_assign;
    struct field field;

    *assign = (struct hot_assign){0};
    while (at < end) {
        if (!field_next(&at, end, &field))
            return false;
        if (field.number == 1 && field.type == BYTES) {
            if (!hot_lease(field.data, field.size, &assign->lease))
                return false;
        } else if (field.number == 2 && field.type == BYTES && field.size == HOT_TICKET_BYTES)
            assign->ticket = field.data;
        else if (field.number == 10 && field.type == VARINT)
            assign->behind = field.value;
        else if (field.number == 11 && field.type == VARINT)
            assign->behind_epoch = field.value;
    }
    return assign->lease.job && assign->ticket;
}

bool hot_committed(const uint8_t *data, size_t size, struct hot_committed *ret_committed)
{
    const uint8_t *at = data, *end = data + size;
    struct hot_committed *committed = ret_committed;
    struct field field;

    *committed = (struct hot_committed){0};
    while (at < end) {
        if (!field_next(&at, end, &field))
            return false;
        if (field.number == 1 && field.type == BYTES) {
            if (!hot_lease(field.data, field.size, &committed->lease))
                return false;
        } else if (field.number == 2 && field.type == VARINT)
            committed->code = field.value;
        else if (field.number == 3 && field.type == BYTES) {
            committed->why = field.data;
            committed->why_size = field.size;
        }
    }
    return committed->lease.job;
}

/* ---- writing ---- */

size_t hot_varint_put(uint8_t *out, uint64_t value)
{
    size_t n = 0;

    for (; value >= 0x80; value >>= 7)
        out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

static size_t number_put(uint8_t *out, unsigned field, uint64_t value)
{
    size_t n;

    if (value == 0)
        return 0;
    n = hot_varint_put(out, TAG(field, VARINT));
    return n + hot_varint_put(out + n, value);
}

static size_t bytes_put(uint8_t *out, unsigned field, const void *data, size_t size)
{
    size_t n = hot_varint_put(out, TAG(field, BYTES));

    n += hot_varint_put(out + n, size);
    memcpy(out + n, data, size);
    return n + size;
}

static size_t about_put(uint8_t *out, const struct hot_about *about)
{
    size_t n = number_put(out, 1, about->session);

    n += bytes_put(out + n, 2, about->lease, about->lease_size);
    return n + bytes_put(out + n, 3, about->ticket, HOT_TICKET_BYTES);
}

/* The head of an envelope, whose size is known once its body is. */
static size_t head_put(uint8_t *out, unsigned body, size_t size)
{
    size_t n = hot_varint_put(out, TAG(body, BYTES));

    return n + hot_varint_put(out + n, size);
}

size_t hot_about_put(uint8_t *out, unsigned body, const struct hot_about *about)
{
    uint8_t text[HOT_ABOUT_BYTES];
    size_t size = about_put(text, about);
    size_t n = head_put(out, body, size);

    memcpy(out + n, text, size);
    return n + size;
}

size_t hot_result_put(uint8_t *out, const struct hot_about *about, const uint8_t *fixed,
                      size_t fixed_size)
{
    uint8_t text[HOT_ABOUT_BYTES], times[32];
    size_t size = about_put(text, about), n_times, n;

    if (about->class_)
        fixed_size = 0;
    size += number_put(text + size, 4, about->class_);
    n_times = number_put(times, 11, about->started_wall_s);
    n_times += number_put(times + n_times, 12, about->ended_wall_s);
    n = head_put(out, WL__ENVELOPE__BODY_RESULT, size + fixed_size + n_times);
    memcpy(out + n, text, size);
    n += size;
    memcpy(out + n, fixed, fixed_size);
    n += fixed_size;
    memcpy(out + n, times, n_times);
    return n + n_times;
}
