/* landing.c - see landing.h. */
#include <client/landing.h>

#include <fcntl.h>
#include <string.h>

static void *land(void *user)
{
    struct landing *landing = user;

    pthread_mutex_lock(&landing->lock);
    for (;;) {
        while (!landing->stopping && landing->n_begun == landing->n_added)
            pthread_cond_wait(&landing->work, &landing->lock);
        if (landing->n_begun == landing->n_added)
            break;
        struct landing_file *file = &landing->files[landing->n_begun++ % LANDING_FILES];
        pthread_mutex_unlock(&landing->lock);
        file->result = manifest_name_file(&file->made, true);
        pthread_mutex_lock(&landing->lock);
        file->landed = true;
        pthread_cond_signal(&landing->landed);
    }
    pthread_mutex_unlock(&landing->lock);
    return NULL;
}

static void begin(struct landing *landing)
{
    pthread_mutex_init(&landing->lock, NULL);
    pthread_cond_init(&landing->work, NULL);
    pthread_cond_init(&landing->landed, NULL);
    landing->begun = true;
}

bool landing_full(const struct landing *landing)
{
    return landing->n_added - landing->n_taken == LANDING_FILES;
}

bool landing_has(const struct landing *landing, const char *path)
{
    for (uint64_t i = landing->n_taken; i < landing->n_added; i++)
        if (strcmp(landing->files[i % LANDING_FILES].path, path) == 0)
            return true;
    return false;
}

void landing_add(struct landing *landing, const struct landing_file *file)
{
    struct landing_file *to = &landing->files[landing->n_added % LANDING_FILES];

    if (!landing->begun)
        begin(landing);
    /* Begins the write, so that one sync of the file system's journal serves many that follow. */
    if (file->made.fd >= 0)
        (void)sync_file_range(file->made.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    /* One thread for each that waits, until there are enough. */
    if (landing->n_threads < LANDING_THREADS &&
        landing->n_added - landing->n_taken >= landing->n_threads &&
        pthread_create(&landing->threads[landing->n_threads], NULL, land, landing) == 0)
        landing->n_threads++;
    *to = *file;
    to->landed = false;
    if (landing->n_threads == 0) { /* none may be started */
        to->result = manifest_name_file(&to->made, true);
        to->landed = true;
        landing->n_begun++;
    }
    pthread_mutex_lock(&landing->lock);
    landing->n_added++;
    pthread_cond_signal(&landing->work);
    pthread_mutex_unlock(&landing->lock);
}

bool landing_take(struct landing *landing, bool wait, struct landing_file *ret_file)
{
    struct landing_file *file = &landing->files[landing->n_taken % LANDING_FILES];

    if (landing->n_taken == landing->n_added)
        return false;
    pthread_mutex_lock(&landing->lock);
    while (wait && !file->landed)
        pthread_cond_wait(&landing->landed, &landing->lock);
    bool landed = file->landed;
    pthread_mutex_unlock(&landing->lock);
    if (!landed)
        return false;
    *ret_file = *file;
    landing->n_taken++;
    return true;
}

void landing_deinit(struct landing *landing)
{
    if (!landing->begun)
        return;
    pthread_mutex_lock(&landing->lock);
    landing->stopping = true;
    pthread_cond_broadcast(&landing->work);
    pthread_mutex_unlock(&landing->lock);
    for (unsigned i = 0; i < landing->n_threads; i++)
        pthread_join(landing->threads[i], NULL);
    pthread_cond_destroy(&landing->landed);
    pthread_cond_destroy(&landing->work);
    pthread_mutex_destroy(&landing->lock);
    landing->begun = false;
}
