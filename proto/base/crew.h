/* crew.h - work that some threads do, and that comes back in the order in which it was given.
 *
 * Shape:   up to CREW_ITEMS under way. A thread is started when there is work that no other takes;
 *          where none can be started, crew_add does the work itself.
 * Owns:    the threads. Items are the caller's; one that was added is `run`'s until it is taken.
 * Threads: all calls are of one thread. A struct crew that is all zeros but `run` and `n_max` is
 *          one that was never used.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { CREW_ITEMS = 256, CREW_THREADS = 16 };

struct crew {
    void (*run)(void *item);
    unsigned n_max; /* threads, at most CREW_THREADS */

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t threads[CREW_THREADS];
    unsigned n_threads;
    bool begun, stopping;
    void *items[CREW_ITEMS]; /* at number % CREW_ITEMS */
    bool is_done[CREW_ITEMS];
    uint64_t n_added, n_begun, n_taken;
};

/* How many are under way, those that are done included; CREW_ITEMS: no more may be added. */
static inline unsigned crew_size(const struct crew *crew)
{
    return (unsigned)(crew->n_added - crew->n_taken);
}
void crew_add(struct crew *crew, void *item);
/* The oldest, once it is done; NULL where there is none, or without `wait` none that is. */
void *crew_take(struct crew *crew, bool wait);
/* What is under way is done first, and nobody is told. */
void crew_deinit(struct crew *crew);
