/* wire.c - messages to bytes and back; what came is looked at (wire_rules.h) before anybody has it.
 */
#include <proto/wire_rules.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/check.h>
#include <proto/limits.h>

/* ---- bytes to messages and back ---- */

/* An empty entry is two bytes on the wire and a hundred in memory; real messages take about three
 * times their size. What is allocated here is freed by the plain allocator. */
enum { MEMORY_FACTOR = 16, MEMORY_BASE_BYTES = 256 * 1024 };
enum {
    ARENA_FACTOR = 3,
    ARENA_BASE_BYTES = 1024
}; /* the first piece; most messages need no other */

static void *budget_alloc(void *user, size_t size)
{
    size_t *left = user;

    if (size > *left)
        return NULL;

    *left -= size;
    return malloc(size);
}

static void budget_free(void *user _unused_, void *data)
{
    free(data);
}

/* What was unpacked is the caller's to free where a limit is passed, too: *ret_message is set. */
static int unpack_checked(const ProtobufCMessageDescriptor *descriptor,
                          ProtobufCAllocator *allocator, const void *data, size_t size,
                          ProtobufCMessage **ret_message, const char **ret_why)
{
    *ret_message = protobuf_c_message_unpack(descriptor, allocator, size, data);
    if (!*ret_message) {
        *ret_why = wire_say(descriptor->short_name, "not a message of the protocol");
        return WIRE_E_FORM;
    }
    return wire_check(*ret_message, ret_why);
}

int wire_message_unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t size,
                        ProtobufCMessage **ret_message, const char **ret_why)
{
    size_t left = size * MEMORY_FACTOR + MEMORY_BASE_BYTES;
    ProtobufCMessage *message;
    int r = unpack_checked(descriptor, &(ProtobufCAllocator){budget_alloc, budget_free, &left},
                           data, size, &message, ret_why);

    if (r == 0)
        *ret_message = message;
    else if (message)
        protobuf_c_message_free_unpacked(message, NULL);
    return r;
}

static int check_bound(const ProtobufCMessageDescriptor *descriptor, size_t size, size_t limit,
                       const char **ret_why)
{
    if (size <= limit)
        return 0;

    *ret_why = wire_say(descriptor->short_name, "too many bytes (%zu, limit %zu)", size, limit);
    return WIRE_E_LIMIT;
}

static int unpack_bounded(const ProtobufCMessageDescriptor *descriptor, const void *data,
                          size_t size, size_t limit, ProtobufCMessage **ret_message,
                          const char **ret_why)
{
    int r = check_bound(descriptor, size, limit, ret_why);

    return r ? r : wire_message_unpack(descriptor, data, size, ret_message, ret_why);
}

static int pack_bounded(const ProtobufCMessage *message, size_t limit, zmq_msg_t *ret_message)
{
    size_t size = protobuf_c_message_get_packed_size(message);

    if (size > limit)
        return -EMSGSIZE;
    if (zmq_msg_init_size(ret_message, size) < 0)
        return -ENOMEM;

    protobuf_c_message_pack(message, zmq_msg_data(ret_message));
    return 0;
}

int wire_pack(const Wl__Envelope *envelope, zmq_msg_t *ret_message)
{
    return pack_bounded(&envelope->base, LIMIT_CONTROL_BYTES, ret_message);
}

/* An envelope's memory, in one piece mostly: it is what allocation costs that a broker feels. The
 * envelope itself is the first thing in it. */
struct arena {
    struct arena *next;
    size_t used, size, left; /* left: of the budget, in the first piece alone */
    max_align_t memory[];
};

static struct arena *arena_new(size_t size)
{
    struct arena *arena = malloc(sizeof(*arena) + size);

    if (arena)
        *arena = (struct arena){.size = size};
    return arena;
}

static void arena_free(struct arena *arena)
{
    while (arena) {
        struct arena *next = arena->next;

        free(arena);
        arena = next;
    }
}

static void *arena_alloc(void *user, size_t size)
{
    struct arena *first = user, *arena = first->next ? first->next : first;
    size_t rounded = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    void *memory;

    if (rounded < size || rounded > first->left)
        return NULL;
    if (rounded > arena->size - arena->used) {
        arena = arena_new(rounded > first->size ? rounded : first->size);
        if (!arena)
            return NULL;
        arena->next = first->next;
        first->next = arena;
    }
    first->left -= rounded;
    memory = (char *)arena->memory + arena->used;
    arena->used += rounded;
    return memory;
}

static void arena_keep(void *user _unused_, void *data _unused_)
{
}

static struct arena *arena_of(Wl__Envelope *envelope)
{
    return (struct arena *)((char *)envelope - offsetof(struct arena, memory));
}

int wire_unpack(const void *data, size_t size, Wl__Envelope **ret_envelope, const char **ret_why)
{
    struct arena *arena;
    ProtobufCMessage *message;
    int r = check_bound(&wl__envelope__descriptor, size, LIMIT_CONTROL_BYTES, ret_why);

    if (r != 0)
        return r;
    arena = arena_new(ARENA_FACTOR * size + ARENA_BASE_BYTES);
    if (!arena)
        return -ENOMEM;
    arena->left = size * MEMORY_FACTOR + MEMORY_BASE_BYTES;
    r = unpack_checked(&wl__envelope__descriptor,
                       &(ProtobufCAllocator){arena_alloc, arena_keep, arena}, data, size, &message,
                       ret_why);
    if (r != 0) {
        arena_free(arena);
        return r;
    }
    CHECK((void *)message == (void *)arena->memory);
    *ret_envelope = (Wl__Envelope *)message;
    return 0;
}

void wire_free(Wl__Envelope *envelope)
{
    if (!envelope)
        return;

    wire_wipe(&envelope->base);
    arena_free(arena_of(envelope));
}

void wire_free_made(Wl__Envelope *envelope)
{
    if (!envelope)
        return;

    wire_wipe(&envelope->base);
    wl__envelope__free_unpacked(envelope, NULL);
}

int wire_bulk_pack(const Wl__Bulk *bulk, zmq_msg_t *ret_message)
{
    return pack_bounded(&bulk->base, LIMIT_BULK_HEADER_BYTES, ret_message);
}

int wire_bulk_unpack(const void *data, size_t size, Wl__Bulk **ret_bulk, const char **ret_why)
{
    ProtobufCMessage *message;
    int r = unpack_bounded(&wl__bulk__descriptor, data, size, LIMIT_BULK_HEADER_BYTES, &message,
                           ret_why);

    if (r == 0)
        *ret_bulk = (Wl__Bulk *)message;
    return r;
}

int wire_recipe_unpack(const void *data, size_t size, Wl__Recipe **ret_recipe, const char **ret_why)
{
    ProtobufCMessage *message;
    int r = unpack_bounded(&wl__recipe__descriptor, data, size,
                           (size_t)LIMIT_MANIFEST_BLOCKS * LIMIT_BLOCK_BYTES, &message, ret_why);

    if (r == 0)
        *ret_recipe = (Wl__Recipe *)message;
    return r;
}
