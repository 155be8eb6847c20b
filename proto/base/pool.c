/* pool.c - see pool.h. */
#include <proto/base/pool.h>

#include <proto/base/check.h>

static void *pool_main(void *user)
{
    struct pool *pool = user;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stopping && pool->n_begun == pool->n_added)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->n_begun == pool->n_added)
            break;
        uint64_t at = pool->n_begun++ % POOL_ITEMS;
        void *item = pool->items[at];
        pthread_mutex_unlock(&pool->lock);
        pool->run(item);
        pthread_mutex_lock(&pool->lock);
        pool->is_done[at] = true;
        pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void begin(struct pool *pool)
{
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->begun = true;
}

void pool_add(struct pool *pool, void *item)
{
    uint64_t at = pool->n_added % POOL_ITEMS;

    CHECK(pool_size(pool) < POOL_ITEMS);
    if (!pool->begun)
        begin(pool);
    if (pool->n_threads < pool->n_max && pool_size(pool) >= pool->n_threads &&
        pthread_create(&pool->threads[pool->n_threads], NULL, pool_main, pool) == 0)
        pool->n_threads++;
    if (pool->n_threads == 0)
        pool->run(item);
    pthread_mutex_lock(&pool->lock);
    pool->items[at] = item;
    pool->is_done[at] = pool->n_threads == 0;
    pool->n_begun += pool->n_threads == 0;
    pool->n_added++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

void *pool_take(struct pool *pool, bool wait)
{
    uint64_t at = pool->n_taken % POOL_ITEMS;

    if (pool_size(pool) == 0)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    while (wait && !pool->is_done[at])
        pthread_cond_wait(&pool->done, &pool->lock);
    bool done = pool->is_done[at];
    pthread_mutex_unlock(&pool->lock);
    if (!done)
        return NULL;
    pool->n_taken++;
    return pool->items[at];
}

void pool_deinit(struct pool *pool)
{
    if (!pool->begun)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    pool->begun = false;
}
