/* reuse.c - a short list; the newest goes first, which the kernel still has in mind. */
#include <worker/reuse.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/bytes.h>
#include <proto/base/log.h>

struct reuse {
    pthread_mutex_t lock;
    struct item {
        uint8_t key[REUSE_KEY_BYTES];
        char *path;
        struct still *still;
    } items[REUSE_MAX];
    size_t n;
};

int reuse_new(struct reuse **ret_reuse)
{
    struct reuse *reuse = calloc(1, sizeof(*reuse));

    if (!reuse)
        return -ENOMEM;
    pthread_mutex_init(&reuse->lock, NULL);
    *ret_reuse = reuse;
    return 0;
}

void reuse_free(struct reuse *reuse)
{
    if (!reuse)
        return;
    for (size_t i = 0; i < reuse->n; i++) {
        free(reuse->items[i].path);
        still_free(reuse->items[i].still);
    }
    pthread_mutex_destroy(&reuse->lock);
    free(reuse);
}

static bool has_key(const struct reuse *reuse, size_t i, const uint8_t *key)
{
    return key && memcmp(reuse->items[i].key, key, REUSE_KEY_BYTES) == 0;
}

char *reuse_take(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES], struct still **ret_still)
{
    struct item item = {.path = NULL};

    pthread_mutex_lock(&reuse->lock);
    for (size_t i = reuse->n; !item.path && i-- > 0;)
        if (has_key(reuse, i, key)) {
            item = reuse->items[i];
            reuse->items[i] = reuse->items[--reuse->n];
        }
    pthread_mutex_unlock(&reuse->lock);
    if (ret_still)
        *ret_still = item.still;
    else
        still_free(item.still);
    return item.path;
}

static void drop(struct item *item)
{
    int r = folder_remove(item->path);

    if (r < 0 && r != -ENOENT)
        log_warn("folder", "path=%s why=\"%s\"", item->path, strerror(-r));
    free(item->path);
    still_free(item->still);
}

void reuse_give(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES], char *path,
                struct still *still)
{
    struct item oldest = {.path = NULL};

    pthread_mutex_lock(&reuse->lock);
    if (reuse->n == REUSE_MAX) { /* of a job that is over, mostly */
        oldest = reuse->items[0];
        memmove(&reuse->items[0], &reuse->items[1], --reuse->n * sizeof(reuse->items[0]));
    }
    memcpy(reuse->items[reuse->n].key, key, REUSE_KEY_BYTES);
    reuse->items[reuse->n].still = still;
    reuse->items[reuse->n++].path = path;
    pthread_mutex_unlock(&reuse->lock);
    if (oldest.path)
        drop(&oldest);
}

size_t reuse_count(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES])
{
    size_t n = 0;

    pthread_mutex_lock(&reuse->lock);
    for (size_t i = 0; i < reuse->n; i++)
        n += has_key(reuse, i, key);
    pthread_mutex_unlock(&reuse->lock);
    return n;
}

static bool any_but(struct reuse *reuse, const uint8_t *keep, struct item *ret_item)
{
    bool found = false;

    pthread_mutex_lock(&reuse->lock);
    for (size_t i = reuse->n; !found && i-- > 0;)
        if (!has_key(reuse, i, keep)) {
            *ret_item = reuse->items[i];
            reuse->items[i] = reuse->items[--reuse->n];
            found = true;
        }
    pthread_mutex_unlock(&reuse->lock);
    return found;
}

void reuse_remove(struct reuse *reuse, const uint8_t *keep)
{
    struct item item;

    while (any_but(reuse, keep, &item))
        drop(&item);
}
