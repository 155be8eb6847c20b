/* token.c - what a peer shows to be let in: passes, tickets, wrapped keys, and keys as text. */
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/bytes.h>
#include <proto/identity.h>
#include "fuzz.h"

enum { PASS = 1, TICKET, WRAPPED, KEY_TEXT, HEX };

static const struct link_key PEER = {{1}};
static const struct lease LEASE = {.job = {1}, .epoch = 1, .attempt = 1};
static const struct pass SIGNED = {
    .studio = 1, .job = {1}, .epoch = 1, .attempt = 1, .rights = PASS_READ, .expires_wall_s = 1000};

static void signer_make(struct identity_signer *ret_signer)
{
    static const uint8_t master[32] = {1};

    identity_signer_init(ret_signer, master);
}

/* One bit more or less is another pass: only the one that was signed opens. */
static void try_pass(const struct identity_signer *signer, const uint8_t *data, size_t size)
{
    uint8_t text[PASS_BYTES];
    struct pass pass;
    size_t text_size;

    if (pass_open(signer, data, size, &PEER, 0, &pass) != 0)
        return;
    pass_sign(signer, &pass, &PEER, text, &text_size);
    CHECK(text_size == size && memcmp(text, data, size) == 0);
    CHECK(pass.studio == SIGNED.studio && pass.rights == SIGNED.rights);
}

static void try_ticket(const struct identity_signer *signer, const uint8_t *data, size_t size)
{
    struct ticket ticket;

    ticket_sign(signer, &LEASE, &PEER, &ticket);
    bool same = size == sizeof(ticket) && memcmp(data, &ticket, size) == 0;
    CHECK(ticket_valid(signer, &LEASE, &PEER, data, size) == same);
}

static void try_wrapped(const struct identity_signer *signer, const uint8_t *data, size_t size)
{
    uint8_t key[32];

    if (size == WRAPPED_BYTES)
        (void)job_key_unwrap(signer, 1, LEASE.job, data, key);
}

static void try_key(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), again[IDENTITY_Z85_SIZE];
    struct link_key key;

    if (identity_key_parse(text, &key) == 0) {
        identity_key_text(&key, again);
        CHECK(strcmp(again, text) == 0);
    }
    free(text);
}

static void try_hex(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    uint8_t bytes[LINK_KEY_BYTES];

    if (hex_decode(text, bytes, sizeof(bytes)) == 0)
        CHECK(strlen(text) == 2 * sizeof(bytes));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct identity_signer signer;
    struct fuzz_part part;

    signer_make(&signer);
    while (fuzz_next(&data, &size, &part)) {
        uint8_t *copy = fuzz_copy(part.data, part.size);

        if (part.number == PASS)
            try_pass(&signer, copy, part.size);
        else if (part.number == TICKET)
            try_ticket(&signer, copy, part.size);
        else if (part.number == WRAPPED)
            try_wrapped(&signer, copy, part.size);
        else if (part.number == KEY_TEXT)
            try_key(copy, part.size);
        else
            try_hex(copy, part.size);
        free(copy);
    }
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    static const uint8_t key[32] = {1};
    static struct fuzz_buffer all;
    struct identity_signer signer;
    uint8_t pass[PASS_BYTES], wrapped[WRAPPED_BYTES];
    char text[2 * sizeof(PEER) + 1];
    struct ticket ticket;
    size_t size;

    all.size = 0;
    signer_make(&signer);
    pass_sign(&signer, &SIGNED, &PEER, pass, &size);
    fuzz_put(&all, PASS, pass, size);
    ticket_sign(&signer, &LEASE, &PEER, &ticket);
    fuzz_put(&all, TICKET, &ticket, sizeof(ticket));
    CHECK(job_key_wrap(&signer, 1, LEASE.job, key, wrapped) == 0);
    fuzz_put(&all, WRAPPED, wrapped, sizeof(wrapped));
    identity_key_text(&PEER, text);
    fuzz_put(&all, KEY_TEXT, text, strlen(text));
    hex_encode(&PEER, sizeof(PEER), text);
    fuzz_put(&all, HEX, text, strlen(text));
    add("all", all.data, all.size);
}
