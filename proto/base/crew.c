/* crew.c - see crew.h. */
#include <proto/base/crew.h>

#include <proto/base/check.h>

static void *crew_main(void *user)
{
    struct crew *crew = user;

    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (!crew->stopping && crew->n_begun == crew->n_added)
            pthread_cond_wait(&crew->work, &crew->lock);
        if (crew->n_begun == crew->n_added)
            break;
        uint64_t at = crew->n_begun++ % CREW_ITEMS;
        void *item = crew->items[at];
        pthread_mutex_unlock(&crew->lock);
        crew->run(item);
        pthread_mutex_lock(&crew->lock);
        crew->is_done[at] = true;
        pthread_cond_signal(&crew->done);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void begin(struct crew *crew)
{
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->work, NULL);
    pthread_cond_init(&crew->done, NULL);
    crew->begun = true;
}

void crew_add(struct crew *crew, void *item)
{
    uint64_t at = crew->n_added % CREW_ITEMS;

    CHECK(crew_size(crew) < CREW_ITEMS);
    if (!crew->begun)
        begin(crew);
    if (crew->n_threads < crew->n_max && crew_size(crew) >= crew->n_threads &&
        pthread_create(&crew->threads[crew->n_threads], NULL, crew_main, crew) == 0)
        crew->n_threads++;
    if (crew->n_threads == 0)
        crew->run(item);
    pthread_mutex_lock(&crew->lock);
    crew->items[at] = item;
    crew->is_done[at] = crew->n_threads == 0;
    crew->n_begun += crew->n_threads == 0;
    crew->n_added++;
    pthread_cond_signal(&crew->work);
    pthread_mutex_unlock(&crew->lock);
}

void *crew_take(struct crew *crew, bool wait)
{
    uint64_t at = crew->n_taken % CREW_ITEMS;

    if (crew_size(crew) == 0)
        return NULL;
    pthread_mutex_lock(&crew->lock);
    while (wait && !crew->is_done[at])
        pthread_cond_wait(&crew->done, &crew->lock);
    bool done = crew->is_done[at];
    pthread_mutex_unlock(&crew->lock);
    if (!done)
        return NULL;
    crew->n_taken++;
    return crew->items[at];
}

void crew_deinit(struct crew *crew)
{
    if (!crew->begun)
        return;
    pthread_mutex_lock(&crew->lock);
    crew->stopping = true;
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->lock);
    for (unsigned i = 0; i < crew->n_threads; i++)
        pthread_join(crew->threads[i], NULL);
    pthread_cond_destroy(&crew->done);
    pthread_cond_destroy(&crew->work);
    pthread_mutex_destroy(&crew->lock);
    crew->begun = false;
}
