/* catalogue.h - what the broker knows of a job beside what the core schedules by: its name, its
 * people, its recipe, its key.
 *
 * The catalogue follows records: an entry is made from the stored submission when its record
 * passes, live and in recovery by the same call. The submission is stored as it came, but for its
 * job key, which is wrapped (see identity.h).
 *
 * Shape:   one entry a job, found by id at once, by the first digits of one in logarithmic time.
 * Owns:    entries, until catalogue_deinit; they are borrowed by everyone else.
 * Errors:  -errno; -EBADMSG for a stored submission that is not one. catalogue_spec gives a
 *          sentence for a submission that contradicts itself (CATALOGUE_E_INVALID).
 */
#pragma once

#include <broker/core/core.h>
#include <broker/map.h>
#include <proto/identity.h>
#include <proto/westlight.pb-c.h>

enum { CATALOGUE_E_INVALID = 1 };

struct catalogue_job {
    struct map_node node; /* by id */
    struct catalogue_job *left, *right;
    uint64_t rank; /* random: keeps the tree level whatever ids peers choose */
    struct job_id job;
    struct studio_id studio;
    Wl__Submit *submit; /* as it is now; its steps without spaces, which the core has */
    Wl__Range **frames; /* as they were last set; none: never */
    size_t n_frames;
    bool unwrapped;
    uint8_t key[32];
};

struct catalogue {
    struct map by_id; /* a lease asks for its job: as many steps down a tree are as many misses */
    struct catalogue_job *root;
    size_t n_jobs;
    struct catalogue_job *last; /* that was found: leases and results of a job come together */
    const struct identity_signer *signer; /* borrowed */
};

int catalogue_init(struct catalogue *catalogue, const struct identity_signer *signer);
void catalogue_deinit(struct catalogue *catalogue); /* wipes keys */

/* A submission as the store keeps it; *ret_blob is the caller's to free. */
int catalogue_pack(const struct catalogue *catalogue, struct studio_id studio,
                   const Wl__Submit *submit, void **ret_blob, size_t *ret_size);
int catalogue_add(struct catalogue *catalogue, const struct job_id *job, struct studio_id studio,
                  const void *blob, size_t size, struct catalogue_job **ret_entry);

void catalogue_remove(struct catalogue *catalogue, const struct job_id *job); /* it is there */

/* The entry becomes what the edit makes of it. Takes from `edit` what it keeps. */
int catalogue_edit(struct catalogue_job *entry, Wl__Edit *edit);

struct catalogue_job *catalogue_find(struct catalogue *catalogue, const struct job_id *job);
/* The same for who asks: nothing of another studio's is looked at. */
struct catalogue_job *catalogue_own(struct catalogue *catalogue, struct studio_id studio,
                                    const struct job_id *job);
/* Jobs of `studio` (0: any) whose id begins with `nibbles` digits of `prefix`: at most `max`, in
 * order of studio and id. Returns how many were written. */
size_t catalogue_prefix(const struct catalogue *catalogue, struct studio_id studio,
                        const uint8_t *prefix, unsigned nibbles, struct job_id *ret_jobs,
                        size_t max);
/* Unwraps at the first use; borrowed. -EBADMSG where the master key is not the one it was wrapped
 * with. */
int catalogue_key(struct catalogue *catalogue, struct catalogue_job *entry,
                  const uint8_t **ret_key);

/* What the core schedules by, of a submission. `ret_spec` borrows from `submit` and owns its
 * steps: catalogue_spec_deinit. *ret_why says what contradicts itself. */
int catalogue_spec(const Wl__Submit *submit, struct studio_id studio, struct job_spec *ret_spec,
                   char *why, size_t why_size);
void catalogue_spec_deinit(struct job_spec *spec);
/* The same of an edit's spaces; *ret_spaces (of edit->n_spaces) is for catalogue_spaces_free. */
int catalogue_spaces(const Wl__Edit *edit, struct space **ret_spaces, char *why, size_t why_size);
void catalogue_spaces_free(struct space *spaces, size_t n);
