/* batch.h - records on their way to the writer, with all that they point to; private to broker/store.
 *
 * Owns:    a batch is one allocation; free it with free().
 * Errors:  batch_new gives NULL without memory.
 */
#pragma once

#include <broker/store/store.h>

struct batch {
    struct batch *next;
    uint64_t number;
    size_t bytes;
    size_t n_records;
    struct record records[];
};

struct batch *batch_new(uint64_t number, const struct record *records, size_t n_records);
