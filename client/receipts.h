/* receipts.h - what fetch has written, so that it knows its own files from a person's.
 *
 * Shape:   one file for each destination, in the state folder, whatever jobs came there; a record a
 *          file written, ended by a NUL: "job submitted_wall_s sequence step task size mtime_ns
 *          inode path". A later record of a path replaces an earlier one. A lost record costs a
 *          comparison or a refusal, never a file.
 * Owns:    struct receipts owns its records.
 * Errors:  -errno.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>
#include <client/westlight.h>

struct receipt {
    char job[WESTLIGHT_ID_TEXT];
    int64_t submitted_wall_s; /* the job, by its broker's clock */
    uint64_t sequence;        /* of the result, among that job's */
    uint32_t step;
    uint64_t task;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t inode; /* times are coarse: what was replaced within the same tick is another file */
    char path[];    /* below the destination */
};

struct receipts {
    int file; /* locked, shared: it is rewritten only while nobody else adds to it */
    struct receipt **slots; /* by the path's hash; a power of two */
    size_t n, n_slots;
};

int receipts_open(struct receipts *receipts, const char *folder);
void receipts_deinit(struct receipts *receipts);
const struct receipt *receipts_find(const struct receipts *receipts, const char *path);
/* `from` names job and result; the rest is read from the file as it lies there. */
int receipts_add(struct receipts *receipts, const struct receipt *from, const char *path,
                 const struct stat *status);
/* The file is as it was written. */
bool receipt_holds(const struct receipt *receipt, const struct stat *status);
