/* wire.h - one envelope to bytes and back, with every limit checked after unpacking.
 *
 * Whoever receives calls wire_unpack, which refuses what is past a limit before anything else sees
 * it; so no other code checks lengths of protobuf fields.
 * Owns:    what wire_unpack returns is freed with wire_free. wire_pack fills a zmq message.
 * Errors:  WIRE_E_FORM (not a message), WIRE_E_LIMIT (`*ret_why` names the field and its limit).
 */
#pragma once

#include <proto/identity.h>
#include <proto/seal.h>
#include <proto/space.h>
#include <proto/westlight.pb-c.h>

enum { WIRE_E_FORM = 1, WIRE_E_LIMIT = 2 };

#define WIRE_PROTOCOL     1u
#define WIRE_PROTOCOL_MIN 1u

int wire_pack(const Wl__Envelope *envelope, zmq_msg_t *ret_message); /* -EMSGSIZE past LIMIT_CONTROL_BYTES */
int wire_unpack(const void *data, size_t size, Wl__Envelope **ret_envelope, const char **ret_why);
void wire_free(Wl__Envelope *envelope); /* wipes keys it carried */
DEFINE_CLEANUP(Wl__Envelope *, wire_free)

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
