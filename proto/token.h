/* token.h - what a newcomer is handed: one string by which it finds a broker, knows it, and is let in.
 *
 *     wl1:BASE64URL of the enrol key, the control key, the secret (32 bytes each), the two endpoints
 *         (a byte of length and the text), and 4 bytes of the SHA-256 of all that
 *
 * A text has one form, and a slip in it is seen. An endpoint's host may be *: whoever joins says it.
 *
 * Errors:  IDENTITY_E_FORM.
 */
#pragma once

#include <proto/identity.h>

#define TOKEN_ENDPOINT_BYTES 128 /* with the NUL */
#define TOKEN_TEXT_BYTES     512
#define TOKEN_PREFIX         "wl1:"

struct token {
    struct link_key enrol_key, control_key;
    uint8_t secret[32];
    char enrol[TOKEN_ENDPOINT_BYTES], control[TOKEN_ENDPOINT_BYTES];
};

void token_text(const struct token *token, char text[TOKEN_TEXT_BYTES]);
int token_parse(const char *text, struct token *ret_token);
/* By which the broker knows it. */
void token_digest(const uint8_t secret[32], uint8_t ret_digest[32]);

/* Of a public key, for two people to compare: ab12-cd34-ef56-7890-1234. */
#define FINGERPRINT_SIZE 25
void key_fingerprint(const struct link_key *key, char text[FINGERPRINT_SIZE]);

/* "HOST", "HOST:PORT" or "tcp://HOST:PORT" as somebody typed it (NULL: nothing), over what the token
 * says; a host of * is to be had from elsewhere. IDENTITY_E_FORM: it is none, or the host is not known. */
int endpoint_over(const char *typed, const char *known, char ret_endpoint[TOKEN_ENDPOINT_BYTES]);
/* `endpoint` with the host of `other` where its own is *. */
int endpoint_host(const char *endpoint, const char *other, char ret_endpoint[TOKEN_ENDPOINT_BYTES]);
