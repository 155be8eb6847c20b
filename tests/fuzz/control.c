/* control.c - a control message as it comes: one envelope or a packet of them; and a Result that is
 * read where it lies says what the general way says of it.
 */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/wire.h>
#include "fuzz.h"

static void check_plain(const uint8_t *data, size_t size)
{
    _cleanup_(freep) uint8_t *stored = NULL;
    Wl__Envelope *envelope;
    Wl__Result *again;
    struct wire_plain plain;
    struct lease lease;
    const char *why;

    if (!wire_plain(data, size, &plain))
        return;
    stored = malloc(plain.lease_size + plain.rest_size);
    CHECK(stored);
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

/* What was taken is written again, and read back the same. */
static void check_again(const Wl__Envelope *envelope)
{
    struct wire_packet packet = {0};
    Wl__Envelope *again;
    const char *why;

    if (wire_packet_add(&packet, envelope) == 0) {
        CHECK(wire_unpack(packet.data + packet.bare, packet.size - packet.bare, &again, &why) == 0);
        CHECK(again->body_case == envelope->body_case && again->request == envelope->request);
        wire_free(again);
    }
    wire_packet_deinit(&packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Wl__Envelope *envelope;
    struct wire_each each;
    const char *why;
    const void *at;

    wire_each_init(&each, data, size);
    while (wire_each_next(&each, &at, &size) == 0) {
        uint8_t *copy = fuzz_copy(at, size);

        check_plain(copy, size);
        if (wire_unpack(copy, size, &envelope, &why) == 0) {
            check_again(envelope);
            wire_free(envelope);
        } else {
            CHECK(why && why[0]);
        }
        free(copy);
    }
    return 0;
}

/* ---- what is valid ---- */

/* One that is read where it lies, alone and in a packet with another. */
static void add_plain(fuzz_add *add)
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
    add("plain", packet.data + packet.bare, packet.size - packet.bare);
    CHECK(wire_packet_add(&packet, &envelope) == 0);
    add("packet", packet.data, packet.size);
    wire_packet_deinit(&packet);
}

void fuzz_seeds(fuzz_add *add)
{
    const ProtobufCMessageDescriptor *envelope = &wl__envelope__descriptor;
    struct fuzz_buffer message;

    for (unsigned i = 0; i < envelope->n_fields; i++)
        if (envelope->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            fuzz_message(envelope, envelope->fields[i].id, &message);
            add(envelope->fields[i].name, message.data, message.size);
        }
    add_plain(add);
}
