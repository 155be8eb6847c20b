/* receipts.h - what fetch has written, so that it knows its own files from a person's.
 *
 * Shape:   one file for each job and destination, in the state folder; a record a file written,
 *          ended by a NUL: "sequence step task size mtime_ns inode path". A later record of a path
 *          replaces an earlier one. A lost record costs a comparison, never a file.
 * Owns:    struct receipts owns its records.
 * Errors:  -errno.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>
#include <client/westlight.h>

struct receipt {
    uint64_t sequence; /* of the result */
    uint32_t step;
    uint64_t task;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t inode; /* times are coarse: what was replaced within the same tick is another file */
    char path[];    /* below the destination */
};

struct receipts {
    int file;
    struct receipt **slots; /* by the path's hash; a power of two */
    size_t n, n_slots;
};

int receipts_open(struct receipts *receipts, const char *id, const char *folder);
void receipts_deinit(struct receipts *receipts);
const struct receipt *receipts_find(const struct receipts *receipts, const char *path);
int receipts_add(struct receipts *receipts, const char *path, uint64_t sequence, uint32_t step,
                 uint64_t task, const struct stat *status);
/* The file is as it was written. */
bool receipt_holds(const struct receipt *receipt, const struct stat *status);
