/* store.h - the seam to the database: transactions in order, and reads of what was committed.
 *
 * The idea: one writer thread takes whole batches; each batch is one transaction, synced before
 * its completion is given. A batch commits entirely or the process ends: a failed sync is never
 * retried, because Linux marks the pages clean.
 *
 * Files:   state.db (with its -wal and -shm) and lock, all 0600.
 * Shape:   SQLite, WAL, synchronous FULL, checkpoints run by the checkpointer thread only.
 * Owns:    store_submit copies the records' blobs; rows borrow until the next call.
 * Errors:  -errno; STORE_E_* (positive). A commit that fails is fatal, but for a full disk: that is
 *          waited out with the batch kept (store_full), for it was rolled back whole.
 * Damage:  every row has a checksum, verified by whoever reads it (checksum.h); the files are looked at
 *          before SQLite opens them (wal.h). What does not fit is STORE_E_CORRUPT, never a row.
 * Fence:   store_open raises the epoch and syncs it; every commit asserts it.
 * Source:  ../README.md "The store"; sqlite.org/wal.html, sqlite.org/pragma.html.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/bytes.h>
#include <proto/base/err.h>

enum {
    STORE_E_NEWER = 1, /* written by a newer version */
    STORE_E_CORRUPT = 2,
    STORE_E_FULL = 3,
    STORE_E_LOCKED = 4, /* another broker runs on it */
    STORE_E_NONE = 5,   /* no such row */
};

struct store;
/* `folder` must exist; store_why gives the sentence after an error, and store_why(NULL) that of the
 * last store_open that failed in this thread. */
int store_open(const char *folder, struct store **ret_store);
void store_close(struct store *store);
const char *store_why(const struct store *store);
uint32_t store_epoch(const struct store *store);
/* After a backup was restored: the first epoch whose leases count, and a sequence that no record
 * had (see raise_epoch); 0 otherwise. */
uint32_t store_fence(const struct store *store);
uint64_t store_sequence(const struct store *store);

/* ---- recovery ---- */
/* Calls back with every record in sequence order. A RECORD_JOB's spec holds ids, priority, name and
 * blob but no steps, a RECORD_EDIT its blob alone: the callee makes the rest from the blob, because
 * the store knows no protobuf.
 * Sequences have gaps where a note was replaced. An answer other than 0 ends it and is forwarded. */
typedef int store_each(void *user, const struct record *record);
int store_recover(struct store *store, store_each *each, void *user);

/* ---- writing ---- */
/* A batch is never split over two transactions; several may share one. Completions come in order
 * through store_completed. Blocks while 64 MiB wait. */
int store_submit(struct store *store, uint64_t batch, const struct record *records,
                 size_t n_records);
int store_fd(struct store *store); /* an eventfd, readable when completions wait */
/* Newest durable batch in *ret_batch, in every case; 0, or negative and fatal. */
int store_completed(struct store *store, uint64_t *ret_batch);
/* Whether a batch waits for space on the disk; store_fd tells when that begins, and when it ends. */
bool store_full(struct store *store);

/* ---- looking after it: from any process, while a broker runs or not ---- */

/* What store_check tells. A finding without `why` is a whole sentence. `record` gets every record as
 * store_each does and answers why it fits nowhere, NULL where it does; `result` then every result
 * that is brought home. Both may be NULL. */
struct store_checker {
    void *user;
    void (*finding)(void *user, const char *what, const char *why, const char *next);
    const char *(*record)(void *user, const struct record *record);
    void (*result)(void *user, const struct record *record);
};
/* Changes nothing. STORE_E_CORRUPT where there was a finding. */
int store_check(const char *folder, const struct store_checker *checker);
/* Whether the job is gone by now, which a look that began before does not see. False where that
 * cannot be read. */
bool store_forgot(const char *folder, const struct job_id *job);
/* A snapshot of the database as one file, synced, and marked so that a broker started on it uses no
 * epoch and no sequence that this one may have used since. */
int store_copy(const char *folder, const char *path, struct bytes *why);

/* ---- reading: any thread, each with a reader of its own ---- */
struct store_reader;
int store_reader_new(const char *folder, struct store_reader **ret_reader);
void store_reader_free(struct store_reader *reader);
const char *store_reader_why(const struct store_reader *reader);
struct attempt_row {
    uint64_t sequence;
    struct record record; /* kind RECORD_ATTEMPT */
};
/* Committed results of a job after `after`, in order; stops when `each` returns non-zero, and
 * forwards that if it is negative. A read that takes longer than a second is -ETIMEDOUT. */
typedef int store_row(void *user, const struct attempt_row *row);
int store_results(struct store_reader *reader, const struct job_id *job, uint64_t after,
                  size_t limit, store_row *each, void *user);
/* All attempts of a job after `after`, likewise. */
int store_history(struct store_reader *reader, const struct job_id *job, uint64_t after,
                  size_t limit, store_row *each, void *user);
/* Results of one task range of one step with the newest sequence of each task. */
int store_step_results(struct store_reader *reader, const struct job_id *job, uint32_t step,
                       uint64_t first, uint64_t last, size_t limit, store_row *each, void *user);
int store_attempts(struct store_reader *reader, const struct job_id *job, struct task_id task,
                   uint64_t after, size_t limit, store_row *each, void *user);
/* The failed attempts of a job, cancelled ones apart, newest first, with a sequence below `before` (0: any). */
int store_failures(struct store_reader *reader, const struct job_id *job, uint64_t before,
                   size_t limit, store_row *each, void *user);

/* The current results of a job that have something to say, likewise. */
int store_warnings(struct store_reader *reader, const struct job_id *job, uint64_t before,
                   size_t limit, store_row *each, void *user);

/* ---- the registry of keys; also written by `westlight-broker allow` from another process ---- */
struct key_row {
    struct worker_key key;
    enum role role;
    struct studio_id studio;
    char studio_name[LIMIT_NAME_BYTES + 1];
    char name[LIMIT_NAME_BYTES + 1]; /* the person or the node */
    uint32_t weight;
    uint64_t quota_bytes; /* the studio's, of blocks; 0: none. Read only */
};
int store_key(struct store_reader *reader, const struct worker_key *key,
              struct key_row *ret_row); /* STORE_E_NONE */
/* The pool that a token gave a worker, where nobody has said one of it yet; STORE_E_NONE. */
int store_pool_given(struct store_reader *reader, const struct worker_key *key,
                     char ret_pool[LIMIT_NAME_BYTES + 1]);
/* A number that is another whenever any key or studio has changed since. */
int store_registry(struct store_reader *reader, uint64_t *ret_version);
typedef int store_key_each(void *user, const struct key_row *row);
int store_keys(struct store_reader *reader, store_key_each *each, void *user);
/* Opens the database by itself; all or none; makes the studio where it is new. A key that is there with
 * another role or studio is changed. */
int store_allow(const char *folder, const struct key_row *rows, size_t n_rows, struct bytes *why);
/* A studio, whether or not somebody of it has a key. */
struct studio_row {
    struct studio_id studio;
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t weight;
    uint64_t quota_bytes;
    uint64_t keys; /* of store_studios alone */
};
int store_studio(struct store_reader *reader, struct studio_id studio,
                 struct studio_row *ret_row); /* STORE_E_NONE */
typedef int store_studio_each(void *user, const struct studio_row *row);
int store_studios(struct store_reader *reader, store_studio_each *each, void *user);
/* Those that have a quota. */
int store_quotas(struct store_reader *reader, store_studio_each *each, void *user);
/* Opens the database by itself. NULL: stays as it is. STORE_E_NONE: no studio has that name. */
int store_studio_set(const char *folder, const char *name, const uint32_t *weight,
                     const uint64_t *quota_bytes, struct bytes *why);
int store_forbid(const char *folder, const struct worker_key *key, struct bytes *why);
