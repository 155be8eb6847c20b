/* token.c - see token.h. */
#include <stdio.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/seal.h>
#include <proto/token.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

enum {
    KEYS_BYTES = 3 * 32,
    SUM_BYTES = 4,
    FORM_BYTES = KEYS_BYTES + 2 * TOKEN_ENDPOINT_BYTES + SUM_BYTES
};

_Static_assert(sizeof TOKEN_PREFIX + (FORM_BYTES * 4 + 2) / 3 <= TOKEN_TEXT_BYTES,
               "any token's text");

/* ---- base64url without padding (RFC 4648, 5) ---- */

static void encode(const uint8_t *data, size_t size, char *text)
{
    uint32_t bits = 0;
    unsigned n = 0;

    for (size_t i = 0; i < size; i++) {
        bits = bits << 8 | data[i];
        for (n += 8; n >= 6; n -= 6)
            *text++ = ALPHABET[bits >> (n - 6) & 63];
    }
    if (n > 0)
        *text++ = ALPHABET[bits << (6 - n) & 63];
    *text = '\0';
}

static int decode(const char *text, uint8_t *ret_data, size_t max, size_t *ret_size)
{
    uint32_t bits = 0;
    unsigned n = 0;
    size_t size = 0;

    for (; *text; text++) {
        const char *at = strchr(ALPHABET, *text);

        if (!at)
            return IDENTITY_E_FORM;
        bits = bits << 6 | (uint32_t)(at - ALPHABET);
        n += 6;
        if (n < 8)
            continue;
        n -= 8;
        if (size == max)
            return IDENTITY_E_FORM;
        ret_data[size++] = (uint8_t)(bits >> n);
    }
    *ret_size = size;
    return 0;
}

/* ---- tokens ---- */

static uint8_t *put_endpoint(uint8_t *at, const char *endpoint)
{
    size_t size = strlen(endpoint);

    CHECK(size < TOKEN_ENDPOINT_BYTES);
    *at++ = (uint8_t)size;
    memcpy(at, endpoint, size);
    return at + size;
}

static void sum(const uint8_t *form, size_t size, uint8_t ret_sum[SUM_BYTES])
{
    struct block_id id;

    digest(form, size, &id);
    memcpy(ret_sum, id.bytes, SUM_BYTES);
}

void token_text(const struct token *token, char text[TOKEN_TEXT_BYTES])
{
    uint8_t form[FORM_BYTES], *at = form + KEYS_BYTES;

    memcpy(form, token->enrol_key.bytes, 32);
    memcpy(form + 32, token->control_key.bytes, 32);
    memcpy(form + 64, token->secret, 32);
    at = put_endpoint(put_endpoint(at, token->enrol), token->control);
    sum(form, (size_t)(at - form), at);
    memcpy(text, TOKEN_PREFIX, strlen(TOKEN_PREFIX));
    encode(form, (size_t)(at - form) + SUM_BYTES, text + strlen(TOKEN_PREFIX));
    wipe(form, sizeof form);
}

/* Takes one off the front of what is left. */
static int take_endpoint(const uint8_t **at, size_t *left, char ret_endpoint[TOKEN_ENDPOINT_BYTES])
{
    size_t size = *left > 0 ? **at : 0;

    if (*left < size + 1 || size >= TOKEN_ENDPOINT_BYTES || memchr(*at + 1, '\0', size))
        return IDENTITY_E_FORM;
    memcpy(ret_endpoint, *at + 1, size);
    ret_endpoint[size] = '\0';
    *at += size + 1;
    *left -= size + 1;
    return strncmp(ret_endpoint, "tcp://", 6) == 0 ? 0 : IDENTITY_E_FORM;
}

static int read_form(const uint8_t *form, size_t size, struct token *ret_token)
{
    const uint8_t *at = form + KEYS_BYTES;
    uint8_t expected[SUM_BYTES];
    size_t left;
    int r;

    if (size < KEYS_BYTES + SUM_BYTES)
        return IDENTITY_E_FORM;
    sum(form, size - SUM_BYTES, expected);
    if (memcmp(expected, form + size - SUM_BYTES, SUM_BYTES) != 0)
        return IDENTITY_E_FORM;
    left = size - KEYS_BYTES - SUM_BYTES;
    r = take_endpoint(&at, &left, ret_token->enrol);
    if (r == 0)
        r = take_endpoint(&at, &left, ret_token->control);
    memcpy(ret_token->enrol_key.bytes, form, 32);
    memcpy(ret_token->control_key.bytes, form + 32, 32);
    memcpy(ret_token->secret, form + 64, 32);
    return r == 0 && left == 0 ? 0 : IDENTITY_E_FORM;
}

/* Written again and compared: what is left of the last character's bits would be a second form. */
int token_parse(const char *text, struct token *ret_token)
{
    uint8_t form[FORM_BYTES];
    char again[TOKEN_TEXT_BYTES];
    struct token token = {0};
    size_t size;
    int r = IDENTITY_E_FORM;

    if (strncmp(text, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0 && strlen(text) < TOKEN_TEXT_BYTES)
        r = decode(text + strlen(TOKEN_PREFIX), form, sizeof form, &size);
    if (r == 0)
        r = read_form(form, size, &token);
    if (r == 0) {
        token_text(&token, again);
        r = strcmp(text, again) == 0 ? 0 : IDENTITY_E_FORM;
    }
    if (r == 0)
        *ret_token = token;
    wipe(form, sizeof form);
    wipe(again, sizeof again);
    wipe(&token, sizeof token);
    return r;
}

void token_digest(const uint8_t secret[32], uint8_t ret_digest[32])
{
    struct block_id id;

    digest(secret, 32, &id);
    memcpy(ret_digest, id.bytes, sizeof id.bytes);
}

/* 80 bits: who wants another key with the same one has to try that many. */
void key_fingerprint(const struct link_key *key, char text[FINGERPRINT_SIZE])
{
    struct block_id id;
    char hex[21], *at = text;

    digest(key->bytes, sizeof key->bytes, &id);
    hex_encode(id.bytes, 10, hex);
    for (unsigned i = 0; i < 20; i++) {
        if (i > 0 && i % 4 == 0)
            *at++ = '-';
        *at++ = hex[i];
    }
    *at = '\0';
}

/* ---- endpoints ---- */

/* Where the port's colon is; NULL: it has none. That of an IPv6 address is behind its bracket. */
static const char *port_of(const char *host)
{
    const char *from = *host == '[' ? strchr(host, ']') : host;

    return from ? strrchr(from, ':') : NULL;
}

static bool any_host(const char *endpoint)
{
    return strncmp(endpoint, "tcp://*:", 8) == 0;
}

int endpoint_over(const char *typed, const char *known, char ret_endpoint[TOKEN_ENDPOINT_BYTES])
{
    const char *host = typed, *port;
    int n;

    if (!typed) {
        n = snprintf(ret_endpoint, TOKEN_ENDPOINT_BYTES, "%s", known);
    } else {
        if (strncmp(host, "tcp://", 6) == 0)
            host += 6;
        port = port_of(host) ? "" : strrchr(known, ':');
        n = snprintf(ret_endpoint, TOKEN_ENDPOINT_BYTES, "tcp://%s%s", host, port ? port : "");
    }
    return n < 0 || n >= TOKEN_ENDPOINT_BYTES || any_host(ret_endpoint) || (typed && !*host)
               ? IDENTITY_E_FORM
               : 0;
}

int endpoint_host(const char *endpoint, const char *other, char ret_endpoint[TOKEN_ENDPOINT_BYTES])
{
    const char *host = other + 6, *end = strncmp(other, "tcp://", 6) == 0 ? port_of(host) : NULL;
    int n;

    if (!any_host(endpoint))
        n = snprintf(ret_endpoint, TOKEN_ENDPOINT_BYTES, "%s", endpoint);
    else if (end)
        n = snprintf(ret_endpoint, TOKEN_ENDPOINT_BYTES, "tcp://%.*s%s", (int)(end - host), host,
                     strrchr(endpoint, ':'));
    else
        return IDENTITY_E_FORM;
    return n < 0 || n >= TOKEN_ENDPOINT_BYTES ? IDENTITY_E_FORM : 0;
}
