/* schema.c - inputs made of parts, and messages made of the schema alone: a new message is fuzzed
 * without a word about it here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/base/err.h>
#include "fuzz.h"

void *fuzz_copy(const void *data, size_t size)
{
    void *copy = malloc(size ? size : 1);

    CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *fuzz_text(const void *data, size_t size)
{
    char *text = malloc(size + 1);

    CHECK(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    return text;
}

static char folder[64];

static void folder_end(void)
{
    (void)folder_remove(folder);
}

const char *fuzz_folder(void)
{
    CHECK(!folder[0]);
    snprintf(folder, sizeof(folder), "%s/westlight-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(folder));
    atexit(folder_end);
    return folder;
}

/* ---- parts ---- */

static bool take_varint(const uint8_t **data, size_t *size, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && *size; shift += 7) {
        uint8_t byte = **data;

        (*data)++;
        (*size)--;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

bool fuzz_next(const uint8_t **data, size_t *size, struct fuzz_part *ret_part)
{
    uint64_t tag, value;

    if (!take_varint(data, size, &tag) || !take_varint(data, size, &value))
        return false;
    *ret_part = (struct fuzz_part){.number = (uint32_t)(tag >> 3)};
    if ((tag & 7) == 0) {
        ret_part->value = value;
        return true;
    }
    if ((tag & 7) != 2 || value > *size)
        return false;
    ret_part->data = *data;
    ret_part->size = (size_t)value;
    *data += value;
    *size -= (size_t)value;
    return true;
}

static void put(struct fuzz_buffer *buffer, const void *data, size_t size)
{
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static void put_varint(struct fuzz_buffer *buffer, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 127) | (value > 127 ? 128 : 0));

        put(buffer, &byte, 1);
    } while (value >>= 7);
}

void fuzz_put(struct fuzz_buffer *buffer, uint32_t number, const void *data, size_t size)
{
    if (size + 20 > sizeof(buffer->data) - buffer->size)
        return;
    put_varint(buffer, (uint64_t)number << 3 | 2);
    put_varint(buffer, size);
    if (size)
        put(buffer, data, size);
}

void fuzz_put_number(struct fuzz_buffer *buffer, uint32_t number, uint64_t value)
{
    if (sizeof(buffer->data) - buffer->size < 20)
        return;
    put_varint(buffer, (uint64_t)number << 3);
    put_varint(buffer, value);
}

/* ---- messages ---- */

/* What one test of a message would stop at, were it 1 or 32 bytes long: parts lie inside their
 * blocks and add up, a job's own numbers are found, spaces are of whole numbers. */
static uint64_t number_of(const char *field)
{
    static const struct {
        const char *field;
        uint64_t number;
    } others[] = {{"size", 5}, {"length", 5}, {"body_bytes", 100}, {"task", 0}, {"root", 0},
                  {"type", 0}, {"factor", 0}, {"index", 0},        {"per", 0}};

    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (strcmp(field, others[i].field) == 0)
            return others[i].number;
    return 1;
}

static size_t bytes_of(const char *field)
{
    static const char *const ids[] = {"job", "request_id", "boot", "prefix"};

    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        if (strcmp(field, ids[i]) == 0)
            return 16;
    return 32;
}

/* Not together with parts; not with ranges. */
static bool left_out(const char *field)
{
    return strcmp(field, "link") == 0 || strcmp(field, "texts") == 0;
}

static void put_double(struct fuzz_buffer *buffer, uint32_t number, double value)
{
    if (sizeof(buffer->data) - buffer->size < 20)
        return;
    put_varint(buffer, (uint64_t)number << 3 | 1);
    put(buffer, &value, sizeof(value));
}

static void put_value(struct fuzz_buffer *buffer, const ProtobufCFieldDescriptor *field)
{
    struct fuzz_buffer inside;
    uint8_t bytes[32];

    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        fuzz_message(field->descriptor, 0, &inside);
        fuzz_put(buffer, field->id, inside.data, inside.size);
        break;
    case PROTOBUF_C_TYPE_STRING:
        fuzz_put(buffer, field->id, "abc", 3);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        memset(bytes, 1, sizeof(bytes));
        fuzz_put(buffer, field->id, bytes, bytes_of(field->name));
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        put_double(buffer, field->id, 1);
        break;
    default:
        fuzz_put_number(buffer, field->id, number_of(field->name));
    }
}

void fuzz_message(const ProtobufCMessageDescriptor *descriptor, unsigned body,
                  struct fuzz_buffer *ret_message)
{
    ret_message->size = 0;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        bool one_of = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;

        if ((one_of && body && field->id != body) || left_out(field->name))
            continue;
        put_value(ret_message, field);
    }
}
