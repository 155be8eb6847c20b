/* vault.h - the seam to the store of sealed blocks; asynchronous.
 *
 * Blocks are kept per studio: a name asked in one namespace is never answered from another. A put
 * is acknowledged when the block, and its name, are durable; syncs are shared by what arrives
 * together. A block read back is checked against its name: a damaged one is never served.
 *
 * A block is kept while a job or a pin refers to it, and for the grace after it was put or had last.
 * What is neither, the sweeper removes, some hours later.
 *
 * Shape:   N worker threads; requests by vault_submit from one thread (the bulk thread, or the
 *          control thread: each has a queue of completions of its own, see struct vault_port).
 * Owns:    a request is the caller's until its completion; `data` is taken over and freed.
 * Errors:  in the completion: 0, VAULT_E_*; negative where a write, a sync or a rename failed, and
 *          fatal: whoever takes that completion ends the process. PIN is VAULT_E_MISSING where
 *          anything is absent.
 * Close:   vault_close completes what was submitted first; so a port is freed after that, or once
 *          nothing is under way for it. Completions that nobody took are the submitter's to free.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/list.h>
#include <proto/seal.h>

enum {
    VAULT_E_MISSING = 1,
    VAULT_E_CORRUPT = 2, /* of the block on disk */
    VAULT_E_FULL = 3,
    VAULT_E_ID =
        4, /* the bytes put are not those of the name; or no refs block, where one must be */
    VAULT_E_DENIED = 5,  /* outside of what the pass's job refers to */
    VAULT_E_UNNAMED = 6, /* a block of PIN that none of its refs blocks names */
    VAULT_E_BUSY = 7,    /* the host has no more memory or files to open at the moment */
};

enum vault_kind {
    VAULT_PUT,
    VAULT_GET,
    VAULT_HAVE,
    VAULT_PIN, /* refs blocks and all they name are there: pinned; otherwise which are missing */
};

struct vault_request {
    struct list node; /* the vault's while it has the request */
    enum vault_kind kind;
    struct studio_id studio;
    struct job_id job; /* GET: not all zero, reads limited to what this job refers to */
    struct vault_port *port;
    void *user;
    struct block_id *ids; /* HAVE, PIN (refs blocks), GET and PUT (one) */
    size_t n_ids;
    bool plain;    /* PUT of a refs block */
    uint8_t *data; /* PUT: of vault_buffer, taken over. GET: the answer, the same, the caller's */
    size_t size;
    struct block_id *blocks; /* PIN: must be among those named; the caller's, reordered */
    size_t n_blocks;
    uint8_t *missing;        /* HAVE: bits, the caller's, (n_ids + 7) / 8 bytes */
    struct block_id *absent; /* PIN: up to LIMIT_MISSING_IDS of them, the caller's to free */
    size_t n_absent;
    size_t n_pinned; /* refs blocks that are done with, while the vault has it */
    struct list pinned; /* PIN: from vault_submit to vault_unpin */
    int result;
};

struct vault;
struct vault_port; /* where completions wait for one thread */
int vault_open(const char *folder, unsigned threads, struct vault **ret_vault);
void vault_close(struct vault *vault);
int vault_port_new(struct vault *vault, struct vault_port **ret_port);
void vault_port_free(struct vault_port *port);
int vault_port_fd(struct vault_port *port); /* an eventfd */
/* Memory for blocks, as disks want it: those that are put, and what was got. Large ones are all of one
 * size, kept for the next, so that no heap is torn by them; vault_buffer_room says how much one takes.
 * NULL: there is none. Any thread. */
uint8_t *vault_buffer(size_t size);
void vault_buffer_free(uint8_t *data, size_t size);
size_t vault_buffer_room(size_t size);
void vault_submit(struct vault *vault, struct vault_request *request);
struct vault_request *vault_completed(struct vault_port *port); /* NULL: none waits */
/* A PIN holds what it names from vault_submit on, also where it was answered with a no: until this,
 * which comes after vault_job_refs has taken over, and before the request's memory goes. */
void vault_unpin(struct vault *vault, struct vault_request *request);
/* What a job (its submission and its attempts) refers to: refs blocks by name. Its workers may read
 * it, and it is kept. Told at acceptance and with each attempt, and of submissions at recovery. Any
 * thread. -ENOMEM. */
int vault_job_refs(struct vault *vault, struct studio_id studio, const struct job_id *job,
                   const struct block_id *refs, size_t n_refs);
/* What a job's attempts referred to before the vault was opened is asked for when a worker wants what
 * nothing else names, and by the sweeper. `history` gives some names of attempts after *after, which
 * it moves; where it does not, there are no more. Called in the vault's threads, one call at a time;
 * *ret_refs are the caller's to free. Other than 0: the reader is to ask again. Told before the first
 * request. */
typedef int vault_history(void *user, const struct job_id *job, uint64_t *after,
                          struct block_id **ret_refs, size_t *ret_n);
void vault_history_by(struct vault *vault, vault_history *history, void *user);
int vault_job_history(struct vault *vault, struct studio_id studio, const struct job_id *job);
/* The job is gone, durably. */
void vault_job_forget(struct vault *vault, struct studio_id studio, const struct job_id *job);
/* What a studio's blocks take; soon after vault_sweep all are counted, before that those that came
 * since the start. Any thread. */
uint64_t vault_used_bytes(struct vault *vault, struct studio_id studio);
/* Not yet: it was opened, and what lies there is being counted since vault_sweep. */
bool vault_counted(struct vault *vault);
/* Once, when all jobs are told: from here on unreferenced blocks past their grace are removed.
 * `passed_s`: the time that had passed at the last record (core_passed_s); 0: there was none. */
int vault_sweep(struct vault *vault, int64_t grace_ns, int64_t passed_s);
