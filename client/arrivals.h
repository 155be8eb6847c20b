/* arrivals.h - blocks that have come and whose files are not home yet, in files of the state
 * folder: a fetch that is killed need not get them again.
 *
 * The idea: what a kill would lose is the window that is held, and the files that have no name yet.
 * So each window's blocks, sealed as they came, go to a file of their own as well, which goes when
 * all files that began before the next window are home. It is never synced: SIGKILL leaves it in
 * the page cache, and what a power cut makes of it is told by each block's digest.
 *
 * Shape:   one folder for each destination, "arriving/" and 32 hexadecimal digits, with
 * ARRIVALS_BYTES in it at most: a kill within a larger file costs the rest. Files are numbered; a
 * block is its id, its size (4 bytes, ours) and its sealed bytes. Owns:    the folder, while it is
 * locked: of two fetches to one destination the second keeps nothing. Errors:  none: what cannot be
 * kept is got again. Where the disk is short, nothing is.
 */
#pragma once

#include <stdbool.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/seal.h>

#define ARRIVALS_BYTES (512ULL << 20)

struct arrivals {
    char path[LIMIT_PATH_BYTES];
    int folder, file;             /* -1: not there; `file` is that of the newest number */
    uint64_t oldest, own, newest; /* numbers: what is left of others' is below `own`; 0: none */
    uint64_t bytes;
    bool beside;          /* on the disk that the files come to as well */
    struct arrival *left; /* an earlier fetch's blocks, by id */
    size_t n_left, capacity;
};

/* What an earlier fetch to that folder, an absolute path, has left can be had. */
void arrivals_open(struct arrivals *arrivals, const char *destination);
/* What this fetch has left where it failed, as if it had been killed. */
void arrivals_again(struct arrivals *arrivals);
bool arrivals_get(const struct arrivals *arrivals, const struct block_id *id, struct bytes *sealed);
/* A window begins; of this fetch's, those before number `needed` go. So much is still to be written
 * to the destination. */
void arrivals_next(struct arrivals *arrivals, uint64_t needed, uint64_t coming_bytes);
void arrivals_drop(struct arrivals *arrivals, uint64_t needed); /* the latter alone */
void arrivals_add(struct arrivals *arrivals, const struct block_id *id, const void *sealed,
                  size_t size);
/* `home`: everything is, and nothing need be kept. */
void arrivals_close(struct arrivals *arrivals, bool home);
