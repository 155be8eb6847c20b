/* pool.h - work that some threads do, and that comes back in the order in which it was given.
 *
 * Shape:   up to POOL_ITEMS under way. A thread is started when there is work that no other takes;
 *          where none can be started, pool_add does the work itself.
 * Owns:    the threads. Items are the caller's; one that was added is `run`'s until it is taken.
 * Threads: all calls are of one thread. A struct pool that is all zeros but `run` and `n_max` is
 *          one that was never used.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { POOL_ITEMS = 256, POOL_THREADS = 16 };

struct pool {
    void (*run)(void *item);
    unsigned n_max; /* threads, at most POOL_THREADS */

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t threads[POOL_THREADS];
    unsigned n_threads;
    bool begun, stopping;
    void *items[POOL_ITEMS]; /* at number % POOL_ITEMS */
    bool is_done[POOL_ITEMS];
    uint64_t n_added, n_begun, n_taken;
};

/* How many are under way, those that are done included; POOL_ITEMS: no more may be added. */
static inline unsigned pool_size(const struct pool *pool)
{
    return (unsigned)(pool->n_added - pool->n_taken);
}
void pool_add(struct pool *pool, void *item);
/* The oldest, once it is done; NULL where there is none, or without `wait` none that is. */
void *pool_take(struct pool *pool, bool wait);
/* What is under way is done first, and nobody is told. */
void pool_deinit(struct pool *pool);
