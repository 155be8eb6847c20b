/* seal.h - a block: at most 1 MiB of one studio's data, compressed if that pays, sealed, named by
 * the SHA-256 of its sealed bytes. The only AEAD and digest code.
 *
 * Form:    body   = "WB1" || compression (0 none, 1 zstd) || u32le raw size || payload
 *          key    = HMAC-SHA256(secret, "block1" || SHA-256(body))
 *          sealed = AES-256-GCM(key, nonce 0, body, aad "WB1") || 16-byte tag
 *          id     = SHA-256(sealed)
 *          A key seals exactly one body, so the fixed nonce is safe; equal content under one
 *          secret has one id. Compression has one level and one library call, so that equal
 *          content gives equal bodies.
 * A reference outside sealed fields carries wrapped_key = key XOR HMAC-SHA256(secret, "ref1" || id).
 * Reading: the id, then the tag, then the header are checked before a byte is used; decompression
 *          is bounded by the raw size, and that by LIMIT_BLOCK_BYTES.
 * Refs:    a refs block is plain: "WR1\0" || u32le count || ids; its name is its SHA-256.
 * Errors:  -ENOMEM; SEAL_E_*.
 * Threads: a struct sealer belongs to one thread (it keeps OpenSSL's and zstd's contexts).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/bytes.h>

/* Apart from TRANSFER_E_* and MANIFEST_E_*, since on a block's way to a file all three are met. */
enum {
    SEAL_E_ID = 33,    /* the bytes are not those of that id */
    SEAL_E_TAG = 34,   /* the key does not open them */
    SEAL_E_FORM = 35,  /* opened, but not a block */
    SEAL_E_SIZE = 36,  /* past a limit */
};

struct block_id {
    uint8_t bytes[32];
};

/* Plain reference: belongs inside something sealed, or in memory. */
struct block_key {
    struct block_id id;
    uint8_t key[32];
    uint32_t sealed_bytes;
    uint32_t body_bytes; /* of the payload, raw */
};

struct sealer;
int sealer_new(struct sealer **ret_sealer);
void sealer_free(struct sealer *sealer);
DEFINE_CLEANUP(struct sealer *, sealer_free)

/* `out` is replaced by the sealed bytes. size <= LIMIT_BLOCK_BYTES. */
int seal_block(struct sealer *sealer, const uint8_t secret[32], const void *data, size_t size,
               struct bytes *out, struct block_key *ret_key);
/* `out` is replaced by the raw bytes. Checks id, tag, form. */
int open_block(struct sealer *sealer, const struct block_key *key, const void *sealed, size_t size,
               struct bytes *out);
/* The same without the id: of bytes that transfer_get gave for it, which has checked. */
int open_checked(struct sealer *sealer, const struct block_key *key, const void *sealed, size_t size,
                 struct bytes *out);

void seal_wrap_key(struct sealer *sealer, const uint8_t secret[32], const struct block_id *id,
                   const uint8_t key[32], uint8_t ret_wrapped[32]); /* its own inverse */

void digest(const void *data, size_t size, struct block_id *ret_id); /* SHA-256 */
/* HMAC-SHA256 over the concatenation of two parts. */
void mac2(const uint8_t key[32], const void *a, size_t a_size, const void *b, size_t b_size,
          uint8_t ret_mac[32]);

/* AES-256-GCM for a key at rest; a nonce is used once under a key. Sealed is size + 16 bytes. */
int aead_seal(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_size,
              const void *data, size_t size, uint8_t *ret_sealed);
/* `size` is that of the sealed bytes; 0 or SEAL_E_TAG, then nothing is written. */
int aead_open(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_size,
              const void *sealed, size_t size, uint8_t *ret_data);

/* Collects ids, sorted and without duplicates, into refs blocks. */
int refs_pack(const struct block_id *ids, size_t n_ids, struct bytes *ret_blocks /* of LIMIT_REFS_BLOCKS */,
              struct block_id *ret_names, size_t *ret_n_blocks);
/* Borrows from `data`. */
int refs_unpack(const void *data, size_t size, const struct block_id **ret_ids, size_t *ret_n_ids);
