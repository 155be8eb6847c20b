/* writer.h - records to rows: one transaction for several batches; private to broker/store.
 *
 * Errors:  writer_commit: 0; STORE_E_FULL, after which the database is as before; anything else is
 *          fatal (`why` of the database says what).
 */
#pragma once

#include <broker/store/batch.h>
#include <broker/store/database.h>
#include <broker/store/noted.h>

struct packer;

struct writer {
    struct database *database;
    uint32_t epoch;
    struct packer *packer; /* plain results of the transaction, that are not rows yet */
    struct job_id job;     /* the one whose number was asked for last */
    int64_t number;
    struct noted noted;
};

int writer_init(struct writer *writer, struct database *database, uint32_t epoch);
void writer_deinit(struct writer *writer);
/* Every record of every batch from `first` on in one transaction, synced; asserts the epoch. */
int writer_commit(struct writer *writer, const struct batch *first);
/* Deletes a slice of what is left of a job that is gone, likewise; *ret_more: it found one. */
enum { WRITER_SLICE = 256, WRITER_SLICE_BYTES = 1 << 20 }; /* of a table: some milliseconds */
int writer_trim(struct writer *writer, bool *ret_more);
