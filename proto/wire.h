/* wire.h - one envelope to bytes and back, with every limit checked after unpacking.
 *
 * Whoever receives calls wire_unpack, which refuses what is past a limit before anything else sees
 * it; so no other code checks lengths of protobuf fields.
 * Owns:    what wire_unpack returns is freed with wire_free, whole. wire_pack fills a zmq message.
 * Errors:  WIRE_E_FORM (not a message), WIRE_E_LIMIT (`*ret_why` names the field and its limit).
 */
#pragma once

#include <proto/identity.h>
#include <proto/seal.h>
#include <proto/space.h>
#include <proto/westlight.pb-c.h>

enum { WIRE_E_FORM = 1, WIRE_E_LIMIT = 2, WIRE_E_END = 3 };

#define WIRE_PROTOCOL     1u
#define WIRE_PROTOCOL_MIN 1u

int wire_pack(const Wl__Envelope *envelope, zmq_msg_t *ret_message); /* -EMSGSIZE past LIMIT_CONTROL_BYTES */
int wire_unpack(const void *data, size_t size, Wl__Envelope **ret_envelope, const char **ret_why);
void wire_free(Wl__Envelope *envelope); /* wipes keys it carried */
void wire_free_made(Wl__Envelope *envelope); /* one that was made of parts from malloc; likewise */
DEFINE_CLEANUP(Wl__Envelope *, wire_free)

uint64_t wire_request(const void *data, size_t size); /* of an envelope, not unpacked; 0: none is seen */

/* Several envelopes in one message, at most LIMIT_PACKET of them: a byte 0x00, which begins no
 * envelope, then of each a varint of its size and its bytes. One alone is sent as it is. */
struct wire_packet {
    uint8_t *data; /* grows; kept when the packet is emptied */
    size_t size, capacity, n;
    size_t bare; /* where the first envelope begins */
};
/* -EMSGSIZE: it does not fit any more (or, alone, at all), and nothing was added; -ENOMEM. */
int wire_packet_add(struct wire_packet *packet, const Wl__Envelope *envelope);
int wire_packet_message(struct wire_packet *packet, zmq_msg_t *ret_message); /* and empties it */
void wire_packet_clear(struct wire_packet *packet);
void wire_packet_deinit(struct wire_packet *packet);

/* What came, one envelope at a time: 0 and its bytes; WIRE_E_END; WIRE_E_FORM: what is left is none. */
struct wire_each {
    const uint8_t *at, *end;
    bool bare;
    size_t n;
};
void wire_each_init(struct wire_each *each, const void *data, size_t size);
int wire_each_next(struct wire_each *each, const void **ret_data, size_t *ret_size);

/* What came over a socket and was not looked at yet. Zeroed: nothing. */
struct wire_inbox {
    zmq_msg_t message;
    struct wire_each each;
    bool has_message;
    const void *assign; /* the last of the message that came with a recipe: its bytes */
    size_t assign_size;
};
/* The next envelope, of the message at hand or of the next one; an Assign has its recipe: 0; LINK_E_AGAIN, LINK_E_FRAMES (one was
 * dropped); -EPROTO with `*ret_why`; -errno. `ret_key` and `ret_route` as for link_receive. */
int wire_next(struct wire_inbox *inbox, void *socket, struct link_key *ret_key,
              struct link_route *ret_route, Wl__Envelope **ret_envelope, const char **ret_why);
void wire_inbox_deinit(struct wire_inbox *inbox); /* also before another socket's */

/* A Result of the kind that nearly all are (class OK, its manifest inline, no refs, no log, nothing to
 * say, no request number), read where it lies and within every limit; false: it is another. */
struct wire_usage { uint64_t wall_ns, cpu_ns, memory_bytes, bytes_in, bytes_out, card_ns; };
struct wire_plain {
    uint64_t session;
    struct lease lease;
    const uint8_t *ticket; /* 32 bytes; this and what follows lies in the message */
    struct wire_usage usage;
    const uint8_t *lease_form, *rest; /* what the store keeps: all but session and ticket */
    size_t lease_size, rest_size;
};
bool wire_plain(const void *data, size_t size, struct wire_plain *ret_plain);
/* The Result without session and ticket, lease_size + rest_size bytes. */
void wire_plain_stored(const struct wire_plain *plain, void *ret_stored);

int wire_bulk_pack(const Wl__Bulk *bulk, zmq_msg_t *ret_message);
int wire_bulk_unpack(const void *data, size_t size, Wl__Bulk **ret_bulk, const char **ret_why);
/* Any message of the schema: the checks of wire.c's table; it also bounds the memory that unpacking
 * may take by a multiple of `size`. `*ret_why` is valid until the thread's next call. Singular
 * messages that the table requires (every lease, recipe, manifest, block) are not NULL afterwards. */
int wire_message_unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t size,
                        ProtobufCMessage **ret_message, const char **ret_why);
/* The first field reachable from `root` that has no rule in the table, "Message.field" (valid until
 * the thread's next call); NULL: none. */
const char *wire_schema_gap(const ProtobufCMessageDescriptor *root);
/* A recipe, after it was opened: the same checks. */
int wire_recipe_unpack(const void *data, size_t size, Wl__Recipe **ret_recipe, const char **ret_why);

/* Shapes that travel, to and from C. The protobuf side borrows from the C side. */
int wire_lease(const Wl__Lease *message, struct lease *ret_lease);
void wire_lease_set(Wl__Lease *message, struct lease *lease); /* message.job borrows lease->job */
int wire_space(Wl__SpaceParameter *const *parameters, size_t n, struct space *ret_space);
/* `*ret_parameters` is one allocation, the caller's to free; texts borrow from `space`. */
int wire_space_set(const struct space *space, Wl__SpaceParameter ***ret_parameters, size_t *ret_n);
int wire_block_key(const Wl__BlockKey *message, struct block_key *ret_key);
void wire_block_key_set(Wl__BlockKey *message, struct block_key *key);
/* Unwraps with the secret it was sealed under. */
int wire_block_ref(struct sealer *sealer, const uint8_t secret[32], const Wl__BlockRef *message,
                   struct block_key *ret_key);
/* `wrapped` is 32 bytes of the caller's that live as long as the message. */
void wire_block_ref_set(struct sealer *sealer, const uint8_t secret[32], struct block_key *key,
                        uint8_t wrapped[32], Wl__BlockRef *ret_message);
