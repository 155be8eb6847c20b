/* tokens.h - who may register a key of their own, and who did.
 *
 * A token is known by the SHA-256 of its secret. Redeeming one takes a use from it and registers the
 * key in one transaction; whoever redeemed it stays known, so that asking again with the same key
 * takes nothing and is answered alike. A token with `approve` leaves the key waiting: it is in no
 * registry until an operator says so.
 *
 * Errors:  -errno; STORE_E_*. STORE_E_NONE: no such token or newcomer, or nothing to be had by it.
 * Source:  ../README.md "Joining".
 */
#pragma once

#include <broker/store/store.h>

#define TOKEN_DIGEST_BYTES 32

struct token_row {
    uint8_t digest[TOKEN_DIGEST_BYTES];
    enum role role;
    char studio_name[LIMIT_NAME_BYTES + 1];
    char pool[LIMIT_NAME_BYTES + 1]; /* a worker's */
    uint32_t uses;                   /* left; 0: used up, or revoked */
    bool approve;
    int64_t until_wall_s;
};

struct newcomer_row {
    struct key_row key; /* without studio id, weight and quota */
    char pool[LIMIT_NAME_BYTES + 1];
    uint8_t digest[TOKEN_DIGEST_BYTES]; /* of the token it came by */
    bool pending;
};

/* Opens the database by itself, as all but redeeming does. Tokens that ended a month ago are forgotten. */
int store_token_add(const char *folder, const struct token_row *row, struct bytes *why);
/* Of the one token whose digest begins so. */
int store_token_revoke(const char *folder, const void *prefix, size_t size, struct bytes *why);
typedef int store_token_each(void *user, const struct token_row *row);
int store_tokens(const char *folder, store_token_each *each, void *user, struct bytes *why);
/* Whoever came by a token, of which some wait. */
typedef int store_newcomer_each(void *user, const struct newcomer_row *row);
int store_newcomers(const char *folder, store_newcomer_each *each, void *user, struct bytes *why);
int store_approve(const char *folder, const struct worker_key *key, struct bytes *why);

/* ---- redeeming: a connection of one thread's ---- */
struct store_gate;
int store_gate_new(const char *folder, struct store_gate **ret_gate);
void store_gate_free(struct store_gate *gate); /* NULL is fine */
const char *store_gate_why(const struct store_gate *gate);
/* 0: *ret_row is what the key is now. STORE_E_NONE, whatever the reason: nobody learns which. */
int store_redeem(struct store_gate *gate, const uint8_t digest[TOKEN_DIGEST_BYTES],
                 const struct worker_key *key, const char *name, int64_t now_wall_s,
                 struct newcomer_row *ret_row);
