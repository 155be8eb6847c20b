/* landing.h - files that are written and not yet durable: synced and named by some threads, because
 * syncs that wait at the same time cost the disk little more than one.
 *
 * Shape:   up to LANDING_FILES under way; they come back in the order in which they were added.
 * Owns:    the threads, from the first file on; a file's descriptors until it has its name.
 * Threads: all calls are of one thread. All zeros is a landing that was never used.
 */
#pragma once

#include <proto/base/crew.h>
#include <proto/manifest.h>

enum { LANDING_FILES = 192 };

struct landing_file {
    struct manifest_made made;
    const char *path; /* the adder's, as `user` and `index` */
    void *user;
    size_t index;
    struct manifest_stood stood;
    bool force;       /* it is replaced whatever stands there by then */
    uint64_t arrival; /* from which number on its blocks are kept (arrivals.h) */
    int result;       /* of manifest_name_file */
};

struct landing {
    struct crew crew;
    struct landing_file files[LANDING_FILES]; /* a ring */
    size_t next;
};

bool landing_full(const struct landing *landing);
bool landing_has(const struct landing *landing, const char *path); /* under way */
/* The least of `least` and those of the files that are under way. */
uint64_t landing_arrival(const struct landing *landing, uint64_t least);
/* Takes over `file->made`. Where it is not full. */
void landing_add(struct landing *landing, const struct landing_file *file);
/* The oldest, once it has landed; NULL where there is none, or without `wait` none that has. Good
 * until the next is added. */
const struct landing_file *landing_take(struct landing *landing, bool wait);
/* What is under way lands, and nobody is told. */
void landing_deinit(struct landing *landing);
