/* landing.h - files that are written and not yet durable: synced and named by some threads, because
 * syncs that wait at the same time cost the disk little more than one.
 *
 * Shape:   up to LANDING_FILES under way; they come back in the order in which they were added.
 * Owns:    the threads, from the first file on; a file's descriptors until it has its name.
 * Threads: all calls are of one thread.
 */
#pragma once

#include <pthread.h>
#include <proto/manifest.h>

enum { LANDING_FILES = 192, LANDING_THREADS = 16 };

struct landing_file {
    struct manifest_made made;
    const char *path; /* the adder's, as `user` and `index` */
    void *user;
    size_t index;
    int result; /* of manifest_name_file */
    bool landed;
};

struct landing {
    pthread_mutex_t lock;
    pthread_cond_t work, landed;
    pthread_t threads[LANDING_THREADS];
    unsigned n_threads;
    bool begun, stopping;
    struct landing_file files[LANDING_FILES]; /* at number % LANDING_FILES */
    uint64_t n_added, n_begun, n_taken;
};

bool landing_full(const struct landing *landing);
bool landing_has(const struct landing *landing, const char *path); /* under way */
/* Takes over `file->made`. Where it is not full. */
void landing_add(struct landing *landing, const struct landing_file *file);
/* The oldest, once it has landed; false where there is none, or with `wait` false none that has. */
bool landing_take(struct landing *landing, bool wait, struct landing_file *ret_file);
/* What is under way lands, and nobody is told. All zeros is a landing that was never used. */
void landing_deinit(struct landing *landing);
