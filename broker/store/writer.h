/* writer.h - records to rows: copies of batches, and one transaction for several of them; private
 * to broker/store.
 *
 * Owns:    a batch is one allocation with all that its records point to; free it with free().
 * Errors:  batch_new gives NULL without memory. writer_commit: 0; STORE_E_FULL, after which the
 *          database is as before; anything else is fatal (`why` of the database says what).
 */
#pragma once

#include <broker/store/database.h>

struct batch {
    struct batch *next;
    uint64_t number;
    size_t bytes;
    size_t n_records;
    struct record records[];
};

struct batch *batch_new(uint64_t number, const struct record *records, size_t n_records);

int writer_prepare(struct database *database);
/* Every record of every batch from `first` on in one transaction, synced; asserts the epoch. */
int writer_commit(struct database *database, uint32_t epoch, const struct batch *first);
/* Deletes a slice of what is left of a job that is gone, likewise; *ret_more: it found one. */
enum { WRITER_SLICE = 256 }; /* rows of a table: some milliseconds */
int writer_trim(struct database *database, uint32_t epoch, bool *ret_more);
