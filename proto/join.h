/* join.h - the newcomer's side: a token is shown to a broker's enrol endpoint until that has answered
 * for good. Whoever is killed meanwhile does it again with the same key, and is answered the same.
 *
 * Errors:  -errno; JOIN_E_*.
 * Source:  ../README.md "Joining".
 */
#pragma once

#include <proto/token.h>

enum {
    JOIN_E_REFUSED = 16,     /* apart from LINK_E_*: the broker knows no such token, or it has ended, or is used up */
    JOIN_E_UNREACHABLE = 17, /* nobody answered in time */
    JOIN_E_STRANGER = 18,    /* who answers is not the broker that made the token */
};

#define JOIN_NAME_BYTES 257

struct joined {
    uint32_t role;
    char studio[JOIN_NAME_BYTES], name[JOIN_NAME_BYTES];
    char control[TOKEN_ENDPOINT_BYTES];
};

struct join {
    const struct token *token;
    const char *enrol; /* tcp://HOST:PORT */
    const struct link_keypair *keys;
    const char *name;
    int64_t patience_ns;         /* without any answer */
    void (*waits)(void *user); /* once, when an operator has to approve of the key */
    void *user;
};

/* Waits as long as the key is not approved of. */
int join_run(const struct join *join, struct joined *ret_joined);

/* ---- what both programs that join say ---- */
/* A token as it was typed (-: a line of standard input) and where its broker is, with `place` NULL or
 * as it was typed. IDENTITY_E_FORM with a sentence. */
int join_read(const char *place, const char *text, struct token *ret_token,
              char ret_enrol[TOKEN_ENDPOINT_BYTES], char *why, size_t why_size);
/* The sentence for an answer of join_run that is not 0. */
void join_why(const struct join *join, int r, char *why, size_t why_size);
