/* identity.c - keys and their files, tickets, passes, and the keys of a job.
 *
 * The idea: everything signed has one fixed form, integers little-endian and every field in it, and
 * a signing key of its own derived from the master key; so a ticket can never be read as a pass, and
 * no two leases have one form. Whoever holds a ticket or a pass is part of what is signed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include <proto/base/bytes.h>
#include <proto/identity.h>
#include <proto/seal.h>

#define KEY_FILE_TITLE "westlight key 1\n"
#define FILE_BYTES_MAX 4096 /* a key file is a tenth of that */

#define LEASE_BYTES 44
#define PASS_VERSION 1
#define PASS_FORM_BYTES 53
#define PASS_MAC_BYTES 32
#define NONCE_BYTES 12

static void store32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void store64(uint8_t *at, uint64_t value)
{
    store32(at, (uint32_t)value);
    store32(at + 4, (uint32_t)(value >> 32));
}

static uint32_t load32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t load64(const uint8_t *at)
{
    return load32(at) | (uint64_t)load32(at + 4) << 32;
}

static void derive(const uint8_t key[32], const char *purpose, uint8_t ret_key[32])
{
    mac2(key, purpose, strlen(purpose), "", 0, ret_key);
}

/* ---- keys ---- */

int identity_key_new(struct link_keypair *ret_keys)
{
    char public_text[IDENTITY_Z85_SIZE], secret_text[IDENTITY_Z85_SIZE];

    /* Its text is typed as an argument: it must not look like an option. */
    do
        if (zmq_curve_keypair(public_text, secret_text) < 0)
            return -errno;
    while (public_text[0] == '-');
    zmq_z85_decode(ret_keys->public_key.bytes, public_text);
    zmq_z85_decode(ret_keys->secret_key.bytes, secret_text);
    wipe(secret_text, sizeof(secret_text));
    return 0;
}

void identity_key_text(const struct link_key *key, char text[IDENTITY_Z85_SIZE])
{
    zmq_z85_encode(text, key->bytes, sizeof(key->bytes));
}

/* Encoded again and compared: a key has one text, so that two texts are never one peer. */
int identity_key_parse(const char *text, struct link_key *ret_key)
{
    char again[IDENTITY_Z85_SIZE];
    struct link_key key;

    if (strlen(text) != IDENTITY_Z85_SIZE - 1 || !zmq_z85_decode(key.bytes, text))
        return IDENTITY_E_FORM;
    identity_key_text(&key, again);
    if (strcmp(text, again) != 0)
        return IDENTITY_E_FORM;
    *ret_key = key;
    return 0;
}

/* ---- files ---- */

/* A secret is never half there and never written over. */
static int secret_file_new(const char *path, const void *data, size_t size)
{
    return access(path, F_OK) == 0 ? -EEXIST : file_write_new(path, data, size, 0600);
}

int identity_key_save(const char *path, const struct link_keypair *keys)
{
    _cleanup_(bytes_wipe_deinit) struct bytes file = {0};
    char public_text[IDENTITY_Z85_SIZE], secret_text[IDENTITY_Z85_SIZE];
    int r;

    identity_key_text(&keys->public_key, public_text);
    identity_key_text(&keys->secret_key, secret_text);
    r = bytes_reserve(&file, 256); /* at once: growing would leave a copy behind */
    if (r == 0)
        r = bytes_printf(&file, KEY_FILE_TITLE "public %s\nsecret %s\n", public_text, secret_text);
    if (r == 0)
        r = secret_file_new(path, file.data, file.size);
    wipe(secret_text, sizeof(secret_text));
    return r;
}

/* Takes "NAME Z85\n" off the front of the text. */
static int key_line(const char **text, const char *name, struct link_key *ret_key)
{
    size_t length = strlen(name);
    char z85[IDENTITY_Z85_SIZE];
    int r;

    if (strncmp(*text, name, length) != 0 || strlen(*text + length) < IDENTITY_Z85_SIZE ||
        (*text)[length + IDENTITY_Z85_SIZE - 1] != '\n')
        return IDENTITY_E_FORM;
    memcpy(z85, *text + length, IDENTITY_Z85_SIZE - 1);
    z85[IDENTITY_Z85_SIZE - 1] = '\0';
    *text += length + IDENTITY_Z85_SIZE;
    r = identity_key_parse(z85, ret_key);
    wipe(z85, sizeof(z85));
    return r;
}

static bool keys_belong(const struct link_keypair *keys)
{
    char secret_text[IDENTITY_Z85_SIZE], derived[IDENTITY_Z85_SIZE], public_text[IDENTITY_Z85_SIZE];
    bool same;

    identity_key_text(&keys->secret_key, secret_text);
    identity_key_text(&keys->public_key, public_text);
    same = zmq_curve_public(derived, secret_text) == 0 && !strcmp(derived, public_text);
    wipe(secret_text, sizeof(secret_text));
    return same;
}

int identity_key_load(const char *path, struct link_keypair *ret_keys)
{
    _cleanup_(bytes_wipe_deinit) struct bytes file = {0};
    struct link_keypair keys;
    const char *text;
    int r = file_read(path, FILE_BYTES_MAX, &file);

    if (r < 0)
        return r;
    text = (const char *)file.data;
    if (strncmp(text, KEY_FILE_TITLE, strlen(KEY_FILE_TITLE)) != 0)
        return IDENTITY_E_FORM;
    text += strlen(KEY_FILE_TITLE);
    r = key_line(&text, "public ", &keys.public_key);
    if (r == 0)
        r = key_line(&text, "secret ", &keys.secret_key);
    if (r == 0 && (*text != '\0' || !keys_belong(&keys)))
        r = IDENTITY_E_FORM;
    if (r == 0)
        *ret_keys = keys;
    wipe(&keys, sizeof(keys));
    return r;
}

int identity_key_load_or_new(const char *path, struct link_keypair *ret_keys)
{
    int r = identity_key_load(path, ret_keys);

    if (r != -ENOENT)
        return r;
    r = identity_key_new(ret_keys);
    if (r == 0)
        r = identity_key_save(path, ret_keys);
    /* Somebody else made it in between: theirs counts. */
    return r == -EEXIST ? identity_key_load(path, ret_keys) : r;
}

int identity_secret_load(const char *path, uint8_t ret_secret[32])
{
    _cleanup_(bytes_wipe_deinit) struct bytes file = {0};
    int r = file_read(path, FILE_BYTES_MAX, &file);

    if (r < 0)
        return r;
    if (file.size > 0 && file.data[file.size - 1] == '\n')
        file.data[--file.size] = '\0';
    if (strlen((const char *)file.data) != file.size)
        return IDENTITY_E_FORM;
    return hex_decode((const char *)file.data, ret_secret, 32) < 0 ? IDENTITY_E_FORM : 0;
}

static int secret_new(const char *path, uint8_t ret_secret[32])
{
    uint8_t secret[32];
    char text[66];
    int r = random_bytes(secret, sizeof(secret));

    if (r < 0)
        return r;
    hex_encode(secret, sizeof(secret), text);
    text[64] = '\n';
    r = secret_file_new(path, text, 65);
    if (r == 0)
        memcpy(ret_secret, secret, sizeof(secret));
    wipe(text, sizeof(text));
    wipe(secret, sizeof(secret));
    return r;
}

int identity_secret_load_or_new(const char *path, uint8_t ret_secret[32])
{
    int r = identity_secret_load(path, ret_secret);

    if (r == -ENOENT)
        r = secret_new(path, ret_secret);
    /* Somebody else made it in between: theirs counts. */
    return r == -EEXIST ? identity_secret_load(path, ret_secret) : r;
}

/* ---- tickets ---- */

void identity_signer_init(struct identity_signer *signer, const uint8_t master[32])
{
    derive(master, "ticket1", signer->ticket_key);
    derive(master, "pass1", signer->pass_key);
    derive(master, "wrap1", signer->wrap_key);
}

void ticket_sign(const struct identity_signer *signer, const struct lease *lease,
                 const struct link_key *worker, struct ticket *ret_ticket)
{
    uint8_t form[LEASE_BYTES];

    memcpy(form, lease->job, 16);
    store32(form + 16, lease->step);
    store64(form + 20, lease->task);
    store32(form + 28, lease->floor);
    store32(form + 32, lease->epoch);
    store64(form + 36, lease->attempt);
    mac2(signer->ticket_key, form, sizeof(form), worker->bytes, sizeof(worker->bytes), ret_ticket->bytes);
}

bool ticket_valid(const struct identity_signer *signer, const struct lease *lease,
                  const struct link_key *worker, const void *ticket, size_t size)
{
    struct ticket expected;

    if (size != sizeof(expected.bytes))
        return false;
    ticket_sign(signer, lease, worker, &expected);
    return bytes_equal_secret(expected.bytes, ticket, size);
}

/* ---- passes ---- */

void pass_sign(const struct identity_signer *signer, const struct pass *pass,
               const struct link_key *peer, uint8_t ret_text[PASS_BYTES], size_t *ret_size)
{
    ret_text[0] = PASS_VERSION;
    store32(ret_text + 1, pass->studio);
    memcpy(ret_text + 5, pass->job, 16);
    store32(ret_text + 21, pass->rights);
    store64(ret_text + 25, pass->write_bytes);
    store64(ret_text + 33, (uint64_t)pass->expires_wall_s);
    store32(ret_text + 41, pass->epoch);
    store64(ret_text + 45, pass->attempt);
    mac2(signer->pass_key, ret_text, PASS_FORM_BYTES, peer->bytes, sizeof(peer->bytes),
         ret_text + PASS_FORM_BYTES);
    *ret_size = PASS_FORM_BYTES + PASS_MAC_BYTES;
}

int pass_open(const struct identity_signer *signer, const void *text, size_t size,
              const struct link_key *peer, int64_t now_wall_s, struct pass *ret_pass)
{
    const uint8_t *form = text;
    uint8_t expected[PASS_MAC_BYTES];
    struct pass pass;

    if (size != PASS_FORM_BYTES + PASS_MAC_BYTES || form[0] != PASS_VERSION)
        return IDENTITY_E_FORM;
    mac2(signer->pass_key, form, PASS_FORM_BYTES, peer->bytes, sizeof(peer->bytes), expected);
    if (!bytes_equal_secret(expected, form + PASS_FORM_BYTES, sizeof(expected)))
        return IDENTITY_E_FORGED;

    pass = (struct pass){.studio = load32(form + 1), .rights = load32(form + 21),
                         .write_bytes = load64(form + 25),
                         .expires_wall_s = (int64_t)load64(form + 33),
                         .epoch = load32(form + 41), .attempt = load64(form + 45)};
    memcpy(pass.job, form + 5, sizeof(pass.job));
    if (now_wall_s >= pass.expires_wall_s)
        return IDENTITY_E_EXPIRED;
    *ret_pass = pass;
    return 0;
}

/* ---- the keys of a job ---- */

static void wrap_aad(uint32_t studio, const uint8_t job[16], uint8_t ret_aad[20])
{
    store32(ret_aad, studio);
    memcpy(ret_aad + 4, job, 16);
}

int job_key_wrap(const struct identity_signer *signer, uint32_t studio, const uint8_t job[16],
                 const uint8_t key[32], uint8_t ret_wrapped[WRAPPED_BYTES])
{
    uint8_t aad[20], wrapped[WRAPPED_BYTES];
    int r = random_bytes(wrapped, NONCE_BYTES);

    if (r < 0)
        return r;
    wrap_aad(studio, job, aad);
    r = aead_seal(signer->wrap_key, wrapped, aad, sizeof(aad), key, 32, wrapped + NONCE_BYTES);
    if (r != 0)
        return r;
    memcpy(ret_wrapped, wrapped, sizeof(wrapped));
    return 0;
}

int job_key_unwrap(const struct identity_signer *signer, uint32_t studio, const uint8_t job[16],
                   const uint8_t wrapped[WRAPPED_BYTES], uint8_t ret_key[32])
{
    uint8_t aad[20];
    int r;

    wrap_aad(studio, job, aad);
    r = aead_open(signer->wrap_key, wrapped, aad, sizeof(aad), wrapped + NONCE_BYTES,
                  WRAPPED_BYTES - NONCE_BYTES, ret_key);
    return r == SEAL_E_TAG ? IDENTITY_E_FORGED : r;
}

void job_key_in(const uint8_t job_key[32], uint8_t ret_key[32])
{
    derive(job_key, "in", ret_key);
}

void job_key_out(const uint8_t job_key[32], uint32_t step, uint64_t task, uint32_t floor,
                 uint8_t ret_key[32])
{
    uint8_t form[16];

    store32(form, step);
    store64(form + 4, task);
    store32(form + 12, floor);
    mac2(job_key, "out", 3, form, sizeof(form), ret_key);
}

void job_key_log(const uint8_t key_out[32], uint8_t ret_key[32])
{
    derive(key_out, "log1", ret_key);
}
