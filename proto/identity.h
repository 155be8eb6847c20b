/* identity.h - keys and their files, tickets and passes.
 *
 * A peer is its CURVE key. A ticket proves that this broker gave a lease to that worker; a pass
 * lets a key onto the bulk endpoint for one namespace. Both are HMAC-SHA256 under keys derived
 * from the broker's master key, which lives in a file apart from the database.
 *
 * Files:   text, mode 0600: "westlight key 1", "public Z85", "secret Z85".
 * Errors:  -errno; IDENTITY_E_FORM for a file or text that is not what it should be.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <proto/link.h>

enum {
    IDENTITY_E_FORM = 1,
    IDENTITY_E_FORGED = 2,  /* the HMAC does not match */
    IDENTITY_E_EXPIRED = 3,
};

#define IDENTITY_Z85_SIZE 41 /* with the NUL */

int identity_key_new(struct link_keypair *ret_keys);
int identity_key_load(const char *path, struct link_keypair *ret_keys);
int identity_key_save(const char *path, const struct link_keypair *keys); /* refuses to overwrite: -EEXIST */
int identity_key_load_or_new(const char *path, struct link_keypair *ret_keys);
void identity_key_text(const struct link_key *key, char text[IDENTITY_Z85_SIZE]);
int identity_key_parse(const char *text, struct link_key *ret_key);
/* 32 random bytes in hexadecimal in a 0600 file: a studio's secret, a broker's master key. */
int identity_secret_load_or_new(const char *path, uint8_t ret_secret[32]);
int identity_secret_load(const char *path, uint8_t ret_secret[32]);

struct lease {
    uint8_t job[16];
    uint32_t step;
    uint64_t task;
    uint32_t floor;
    uint32_t epoch;
    uint64_t attempt;
};

struct ticket {
    uint8_t bytes[32];
};

/* What the broker signs with; derived once from the master key. */
struct identity_signer {
    uint8_t ticket_key[32], pass_key[32], wrap_key[32];
};
void identity_signer_init(struct identity_signer *signer, const uint8_t master[32]);

void ticket_sign(const struct identity_signer *signer, const struct lease *lease,
                 const struct link_key *worker, struct ticket *ret_ticket);
bool ticket_valid(const struct identity_signer *signer, const struct lease *lease,
                  const struct link_key *worker, const void *ticket, size_t size);

enum { PASS_READ = 1, PASS_WRITE = 2 };
#define PASS_BYTES 128

struct pass {
    uint32_t studio;      /* the namespace */
    uint8_t job[16];      /* a worker's: reads are limited to what this job refers to; 0: all */
    uint32_t epoch;       /* a worker's: with the attempt, the lease it is for */
    uint64_t attempt;     /* 0: a studio's */
    uint32_t rights;
    uint64_t write_bytes; /* the most that may be put: under this pass, or all those of its lease */
    int64_t expires_wall_s;
};
/* Serialised with the HMAC over it and the peer's key: PASS_BYTES at most, *ret_size of them. */
void pass_sign(const struct identity_signer *signer, const struct pass *pass,
               const struct link_key *peer, uint8_t ret_text[PASS_BYTES], size_t *ret_size);
int pass_open(const struct identity_signer *signer, const void *text, size_t size,
              const struct link_key *peer, int64_t now_wall_s, struct pass *ret_pass);

/* The job key at rest: AES-256-GCM under wrap_key, a random nonce, studio and job as AAD. */
#define WRAPPED_BYTES 60
int job_key_wrap(const struct identity_signer *signer, uint32_t studio, const uint8_t job[16],
                 const uint8_t key[32], uint8_t ret_wrapped[WRAPPED_BYTES]);
int job_key_unwrap(const struct identity_signer *signer, uint32_t studio, const uint8_t job[16],
                   const uint8_t wrapped[WRAPPED_BYTES], uint8_t ret_key[32]);

/* Keys of a job: K_in, K_out and K_log (HMAC(K_out, "log1")). */
void job_key_in(const uint8_t job_key[32], uint8_t ret_key[32]);
void job_key_out(const uint8_t job_key[32], uint32_t step, uint64_t task, uint32_t floor,
                 uint8_t ret_key[32]);
void job_key_log(const uint8_t key_out[32], uint8_t ret_key[32]);
