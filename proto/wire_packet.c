/* wire_packet.c - several envelopes in one message, so that under load a syscall, an encryption and
 * a wake-up serve all that goes to one peer at once.
 */
#include <proto/wire.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/limits.h>

enum { MARK = 0, VARINT_MAX = 10, FIRST_BYTES = 1024 };

static size_t varint_size(uint64_t value)
{
    size_t size = 1;

    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

static uint8_t *varint_put(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

/* ---- an envelope, as protobuf-c would pack it, but for looking at every body that it has not ----
 */

struct envelope_form {
    const ProtobufCMessage *body; /* NULL: none */
    uint64_t tag;
    size_t body_bytes, bytes;
};

static void form_of(const Wl__Envelope *envelope, struct envelope_form *form)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&wl__envelope__descriptor, envelope->body_case);

    *form = (struct envelope_form){0};
    if (envelope->request)
        form->bytes = 1 + varint_size(envelope->request);
    if (!field)
        return;
    form->body = *(const ProtobufCMessage *const *)((const char *)envelope + field->offset);
    if (!form->body)
        return;
    form->tag = (uint64_t)field->id << 3 | 2;
    form->body_bytes = protobuf_c_message_get_packed_size(form->body);
    form->bytes += varint_size(form->tag) + varint_size(form->body_bytes) + form->body_bytes;
}

static uint8_t *form_put(const Wl__Envelope *envelope, const struct envelope_form *form,
                         uint8_t *at)
{
    if (envelope->request) {
        *at++ = 1 << 3;
        at = varint_put(at, envelope->request);
    }
    if (!form->body)
        return at;
    at = varint_put(at, form->tag);
    at = varint_put(at, form->body_bytes);
    return at + protobuf_c_message_pack(form->body, at);
}

/* ---- packets ---- */

static int reserve(struct wire_packet *packet, size_t more)
{
    size_t capacity = packet->capacity ? packet->capacity : FIRST_BYTES;
    uint8_t *data;

    if (packet->size + more <= packet->capacity)
        return 0;
    while (capacity < packet->size + more)
        capacity *= 2;
    data = realloc(packet->data, capacity);
    if (!data)
        return -ENOMEM;
    packet->data = data;
    packet->capacity = capacity;
    return 0;
}

int wire_packet_add(struct wire_packet *packet, const Wl__Envelope *envelope)
{
    struct envelope_form form;
    size_t whole;
    int r;

    form_of(envelope, &form);
    whole = (packet->n ? packet->size : 1) + varint_size(form.bytes) + form.bytes;
    if (packet->n ? whole > LIMIT_CONTROL_BYTES || packet->n == LIMIT_PACKET
                  : form.bytes > LIMIT_CONTROL_BYTES)
        return -EMSGSIZE;
    r = reserve(packet, form.bytes + VARINT_MAX + 1);
    if (r < 0)
        return r;

    if (packet->n == 0)
        packet->data[packet->size++] = MARK;
    uint8_t *at = varint_put(packet->data + packet->size, form.bytes);
    if (packet->n == 0)
        packet->bare = (size_t)(at - packet->data);
    at = form_put(envelope, &form, at);
    packet->size = (size_t)(at - packet->data);
    packet->n++;
    CHECK(packet->size == whole);
    return 0;
}

int wire_packet_message(struct wire_packet *packet, zmq_msg_t *ret_message)
{
    size_t from = packet->n == 1 ? packet->bare : 0;

    if (zmq_msg_init_size(ret_message, packet->size - from) < 0)
        return -ENOMEM;
    if (packet->size > from)
        memcpy(zmq_msg_data(ret_message), packet->data + from, packet->size - from);
    wire_packet_clear(packet);
    return 0;
}

/* Keys of leases went through it. */
void wire_packet_clear(struct wire_packet *packet)
{
    if (packet->size)
        wipe(packet->data, packet->size);
    packet->size = packet->n = 0;
}

void wire_packet_deinit(struct wire_packet *packet)
{
    wire_packet_clear(packet);
    free(packet->data);
    *packet = (struct wire_packet){0};
}

void wire_each_init(struct wire_each *each, const void *data, size_t size)
{
    *each = (struct wire_each){.at = data, .end = (const uint8_t *)data + size};
    each->bare = size == 0 || *each->at != MARK;
    if (!each->bare)
        each->at++;
}

/* What is left of one that breaks off is none. */
static int each_broken(struct wire_each *each)
{
    each->at = each->end;
    return WIRE_E_FORM;
}

int wire_each_next(struct wire_each *each, const void **ret_data, size_t *ret_size)
{
    uint64_t size = 0;
    unsigned shift = 0;

    if (each->bare && each->n++ == 0) {
        *ret_data = each->at;
        *ret_size = (size_t)(each->end - each->at);
        return 0;
    }
    if (each->bare || each->at == each->end)
        return WIRE_E_END;
    if (each->n++ == LIMIT_PACKET)
        return each_broken(each);
    do {
        if (each->at == each->end || shift > 21)
            return each_broken(each);
        size |= (uint64_t)(*each->at & 0x7f) << shift;
        shift += 7;
    } while (*each->at++ & 0x80);
    if (size > (size_t)(each->end - each->at))
        return each_broken(each);
    *ret_data = each->at;
    *ret_size = (size_t)size;
    each->at += size;
    return 0;
}

/* ---- what came ---- */

void wire_inbox_deinit(struct wire_inbox *inbox)
{
    if (inbox->has_message)
        zmq_msg_close(&inbox->message);
    *inbox = (struct wire_inbox){0};
}

/* An envelope of its own, with what it shares with the one before it. */
static int assign_whole(const struct wire_inbox *inbox, Wl__Envelope **envelope,
                        const char **ret_why)
{
    _cleanup_(wire_freep) Wl__Envelope *lean = *envelope, *before = NULL;
    _cleanup_(wire_packet_deinit) struct wire_packet packet = {0};
    int r = inbox->assign ? wire_unpack(inbox->assign, inbox->assign_size, &before, ret_why)
                          : WIRE_E_FORM;

    *envelope = NULL;
    if (r == 0 && memcmp(before->assign->lease->job.data, lean->assign->lease->job.data,
                         before->assign->lease->job.len) != 0)
        r = WIRE_E_FORM;
    if (r != 0) {
        *ret_why = "Assign: its recipe is not there";
        return r;
    }
    lean->assign->recipe = before->assign->recipe;
    lean->assign->key_in = before->assign->key_in;
    r = wire_packet_add(&packet, lean);
    if (r == 0)
        r = wire_unpack(packet.data + packet.bare, packet.size - packet.bare, envelope, ret_why);
    lean->assign->recipe = NULL;
    lean->assign->key_in = (ProtobufCBinaryData){0};
    return r;
}

int wire_next(struct wire_inbox *inbox, void *socket, struct link_key *ret_key,
              struct link_route *ret_route, Wl__Envelope **ret_envelope, const char **ret_why)
{
    const void *data;
    size_t size;
    int r;

    *ret_why = "";
    while ((r = wire_each_next(&inbox->each, &data, &size)) == WIRE_E_END) {
        wire_inbox_deinit(inbox);
        r = link_receive(socket, ret_key, ret_route, &inbox->message, NULL);
        if (r != 0)
            return r;
        inbox->has_message = true;
        wire_each_init(&inbox->each, zmq_msg_data(&inbox->message), zmq_msg_size(&inbox->message));
    }
    if (r == 0)
        r = wire_unpack(data, size, ret_envelope, ret_why);
    if (r == 0 && (*ret_envelope)->body_case == WL__ENVELOPE__BODY_ASSIGN) {
        if (!(*ret_envelope)->assign->recipe) {
            r = assign_whole(inbox, ret_envelope, ret_why);
        } else {
            inbox->assign = data;
            inbox->assign_size = size;
        }
    }
    return r > 0 ? -EPROTO : r;
}
