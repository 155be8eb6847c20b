/* cache.c - see cache.h.
 *
 * One table of entries by id, and one list by age of those that may go. An entry outlives its file
 * while it is pinned, so that a pin can be taken before the block has come, and a damaged block can
 * be fetched again under the pins it had. Tasks that start together want the same blocks: an entry
 * says that one of them has gone to fetch it, and the others wait for that.
 */
#include <worker/cache.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/list.h>
#include <proto/base/log.h>
#include <proto/limits.h>

#define HEX_BYTES   65
#define EVICT_BYTES (16u << 20)       /* at a time, where the disk is full */
#define LOOK_NS     (100 * NS_PER_MS) /* how late a stop flag may be seen by who waits */

struct entry {
    struct list age;    /* the oldest first; only of those present and not pinned */
    struct entry *next; /* in its bucket */
    struct block_id id;
    uint32_t size;
    uint32_t pins;
    bool present;
    bool coming;     /* somebody fetches it, and has it pinned */
    int64_t used_ns; /* while loading only */
};

struct cache {
    pthread_mutex_t lock;
    pthread_cond_t came; /* something that was coming has come, or will not */
    char *folder;
    int fd;
    uint64_t limit_bytes, bytes;
    struct list ages;
    struct entry **buckets;
    size_t n_buckets, n_entries, n_present;
    uint64_t temporary;
};

/* "ab/abcdef..." */
static void block_path(const struct block_id *id, char path[3 + HEX_BYTES])
{
    hex_encode(id->bytes, sizeof(id->bytes), path + 3);
    path[0] = path[3];
    path[1] = path[4];
    path[2] = '/';
}

static size_t bucket_of(const struct cache *cache, const struct block_id *id)
{
    uint64_t word;

    memcpy(&word, id->bytes, sizeof(word)); /* a digest needs no further mixing */
    return (size_t)(word & (cache->n_buckets - 1));
}

static struct entry *entry_find(struct cache *cache, const struct block_id *id)
{
    struct entry *entry = cache->buckets[bucket_of(cache, id)];

    while (entry && memcmp(&entry->id, id, sizeof(*id)) != 0)
        entry = entry->next;
    return entry;
}

static int table_grow(struct cache *cache)
{
    size_t n_old = cache->n_buckets;
    struct entry **old = cache->buckets;
    struct entry **buckets = calloc(n_old * 2, sizeof(*buckets));

    if (!buckets)
        return -ENOMEM;
    cache->buckets = buckets;
    cache->n_buckets = n_old * 2;
    for (size_t i = 0; i < n_old; i++)
        for (struct entry *entry = old[i], *after; entry; entry = after) {
            struct entry **bucket = &buckets[bucket_of(cache, &entry->id)];

            after = entry->next;
            entry->next = *bucket;
            *bucket = entry;
        }
    free(old);
    return 0;
}

static struct entry *entry_make(struct cache *cache, const struct block_id *id)
{
    struct entry *entry = entry_find(cache, id);
    struct entry **bucket;

    if (entry)
        return entry;
    if (cache->n_entries >= cache->n_buckets && table_grow(cache) < 0)
        return NULL;
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    entry->id = *id;
    list_init(&entry->age);
    bucket = &cache->buckets[bucket_of(cache, id)];
    entry->next = *bucket;
    *bucket = entry;
    cache->n_entries++;
    return entry;
}

static void entry_forget(struct cache *cache, struct entry *entry)
{
    struct entry **link = &cache->buckets[bucket_of(cache, &entry->id)];

    CHECK(!entry->present && entry->pins == 0);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    cache->n_entries--;
    free(entry);
}

static void entry_present(struct cache *cache, struct entry *entry, uint32_t size)
{
    if (!entry->present) {
        entry->present = true;
        entry->size = size;
        cache->bytes += size;
        cache->n_present++;
    }
    if (entry->pins == 0 && list_empty(&entry->age))
        list_push(&cache->ages, &entry->age);
}

/* Takes the file away; the entry stays while it is pinned. */
static void entry_drop(struct cache *cache, struct entry *entry)
{
    char path[3 + HEX_BYTES];

    if (entry->present) {
        block_path(&entry->id, path);
        (void)unlinkat(cache->fd, path, 0); /* gone already is as good */
        list_unlink(&entry->age);
        entry->present = false;
        cache->bytes -= entry->size;
        cache->n_present--;
    }
    if (entry->pins == 0)
        entry_forget(cache, entry);
}

static void entry_pin(struct entry *entry)
{
    if (entry->pins++ == 0)
        list_unlink(&entry->age);
}

/* Its age counts from here. */
static void entry_unpin(struct cache *cache, struct entry *entry)
{
    CHECK(entry->pins > 0);
    if (--entry->pins > 0)
        return;
    if (entry->present)
        list_push(&cache->ages, &entry->age);
    else
        entry_forget(cache, entry);
}

static void evict(struct cache *cache)
{
    while (cache->bytes > cache->limit_bytes && !list_empty(&cache->ages))
        entry_drop(cache, list_entry(cache->ages.next, struct entry, age));
}

/* ---- starting ---- */

static int load_folder(struct cache *cache, const char *name)
{
    int fd = openat(cache->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *item;
    int r = 0;

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return -errno;
    }
    while (r == 0 && (item = readdir(folder))) {
        struct block_id id;
        struct stat stat;
        struct entry *entry;

        if (item->d_name[0] == '.')
            continue;
        if (hex_decode(item->d_name, id.bytes, sizeof(id.bytes)) < 0 ||
            fstatat(dirfd(folder), item->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(stat.st_mode) || stat.st_size > LIMIT_SEALED_BYTES) {
            (void)unlinkat(dirfd(folder), item->d_name, 0); /* what an interrupted put left */
            continue;
        }
        entry = entry_make(cache, &id);
        if (!entry) {
            r = -ENOMEM;
            continue;
        }
        entry->used_ns = stat.st_mtim.tv_sec * 1000000000LL + stat.st_mtim.tv_nsec;
        entry_present(cache, entry, (uint32_t)stat.st_size);
    }
    closedir(folder);
    return r;
}

static int by_use(const void *a, const void *b)
{
    int64_t x = (*(struct entry *const *)a)->used_ns, y = (*(struct entry *const *)b)->used_ns;

    return (x > y) - (x < y);
}

/* Puts the list in the order of the files' last use. */
static int load_order(struct cache *cache)
{
    struct entry **all;
    size_t n = 0;

    if (cache->n_present == 0)
        return 0;
    all = malloc(cache->n_present * sizeof(*all));
    if (!all)
        return -ENOMEM;
    list_for_each (node, &cache->ages)
        all[n++] = list_entry(node, struct entry, age);
    qsort(all, n, sizeof(*all), by_use);
    for (size_t i = 0; i < n; i++) {
        list_unlink(&all[i]->age);
        list_push(&cache->ages, &all[i]->age);
    }
    free(all);
    return 0;
}

static int load(struct cache *cache)
{
    int r;

    for (unsigned i = 0; i < 256; i++) {
        char name[3];

        snprintf(name, sizeof(name), "%02x", i);
        if (mkdirat(cache->fd, name, 0700) < 0 && errno != EEXIST)
            return -errno;
        r = load_folder(cache, name);
        if (r < 0)
            return r;
    }
    r = load_order(cache);
    if (r < 0)
        return r;
    evict(cache);
    return 0;
}

int cache_new(const char *folder, uint64_t limit_bytes, struct cache **ret_cache)
{
    _cleanup_(cache_freep) struct cache *cache = calloc(1, sizeof(*cache));
    pthread_condattr_t monotonic;
    int r;

    if (!cache)
        return -ENOMEM;
    pthread_mutex_init(&cache->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&cache->came, &monotonic);
    pthread_condattr_destroy(&monotonic);
    list_init(&cache->ages);
    cache->fd = -1;
    cache->limit_bytes = limit_bytes;
    cache->n_buckets = 1024;
    cache->buckets = calloc(cache->n_buckets, sizeof(*cache->buckets));
    cache->folder = strdup(folder);
    if (!cache->buckets || !cache->folder)
        return -ENOMEM;
    r = folder_make(folder, 0700);
    if (r < 0)
        return r;
    cache->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->fd < 0)
        return -errno;
    r = load(cache);
    if (r < 0)
        return r;
    *ret_cache = TAKE_PTR(cache);
    return 0;
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; cache->buckets && i < cache->n_buckets; i++)
        for (struct entry *entry = cache->buckets[i], *after; entry; entry = after) {
            after = entry->next;
            free(entry);
        }
    if (cache->fd >= 0)
        close(cache->fd);
    pthread_cond_destroy(&cache->came);
    pthread_mutex_destroy(&cache->lock);
    free(cache->buckets);
    free(cache->folder);
    free(cache);
}

/* ---- reading and writing ---- */

/* A shortage of our own says nothing of the block. */
static bool shortage(int error)
{
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE;
}

static int block_read(struct cache *cache, const char *path, const struct block_id *id,
                      struct bytes *out)
{
    _cleanup_(closep) int fd = openat(cache->fd, path, O_RDONLY | O_CLOEXEC);
    struct block_id found;
    struct stat stat;
    size_t size;
    int r;

    if (fd < 0 || fstat(fd, &stat) < 0)
        return -errno;
    if (stat.st_size > LIMIT_SEALED_BYTES)
        return -EBADMSG;
    out->size = 0;
    r = bytes_reserve(out, (size_t)stat.st_size + 1);
    if (r < 0)
        return r;
    r = fd_read_all(fd, out->data, (size_t)stat.st_size, &size);
    if (r < 0)
        return r;
    out->size = size;
    digest(out->data, out->size, &found);
    return memcmp(&found, id, sizeof(found)) == 0 ? 0 : -EBADMSG;
}

/* What this disk lost or cannot read, the vault still has. */
static int block_read_or_lose(struct cache *cache, const struct block_id *id, struct bytes *out)
{
    char path[3 + HEX_BYTES];
    int r;

    block_path(id, path);
    r = block_read(cache, path, id, out);
    if (r == 0)
        (void)utimensat(cache->fd, path, NULL, 0); /* only the order after a restart hangs on it */
    if (r == 0 || shortage(r))
        return r;
    log_limited(LOG_WARN, "cache-block-lost", "path=%s/%s why=\"%s\" next=\"it is fetched again\"",
                cache->folder, path,
                r == -EBADMSG ? "it does not hold what its name says" : strerror(-r));
    return CACHE_E_ABSENT;
}

int cache_get(struct cache *cache, const struct block_id *id, struct bytes *out)
{
    struct entry *entry;
    bool present;
    int r;

    /* The pin keeps the file there while it is read without the lock. */
    pthread_mutex_lock(&cache->lock);
    entry = entry_find(cache, id);
    present = entry && entry->present;
    if (present)
        entry_pin(entry);
    pthread_mutex_unlock(&cache->lock);
    if (!present)
        return CACHE_E_ABSENT;

    r = block_read_or_lose(cache, id, out);

    pthread_mutex_lock(&cache->lock);
    if (r == CACHE_E_ABSENT)
        entry_drop(cache, entry);
    entry_unpin(cache, entry);
    evict(cache);
    pthread_mutex_unlock(&cache->lock);
    return r;
}

static int block_write(struct cache *cache, const struct block_id *id, const void *sealed,
                       size_t size)
{
    char path[3 + HEX_BYTES], temporary[HEX_BYTES];
    _cleanup_(closep) int fd = -1;
    int r;

    block_path(id, path);
    pthread_mutex_lock(&cache->lock);
    snprintf(temporary, sizeof(temporary), "%.2s/new-%llu", path,
             (unsigned long long)++cache->temporary);
    pthread_mutex_unlock(&cache->lock);
    fd = openat(cache->fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    crash_point("cache.block.created");
    r = fd_write_all(fd, sealed, size);
    crash_point("cache.block.written");
    if (r == 0 && renameat(cache->fd, temporary, cache->fd, path) < 0)
        r = -errno;
    crash_point("cache.block.renamed");
    if (r < 0)
        (void)unlinkat(cache->fd, temporary, 0);
    return r;
}

uint64_t cache_give_up(struct cache *cache, uint64_t bytes)
{
    uint64_t before;

    pthread_mutex_lock(&cache->lock);
    before = cache->bytes;
    while (before - cache->bytes < bytes && !list_empty(&cache->ages))
        entry_drop(cache, list_entry(cache->ages.next, struct entry, age));
    bytes = before - cache->bytes;
    pthread_mutex_unlock(&cache->lock);
    return bytes;
}

/* On a full disk what nobody needs now makes room. */
static int block_write_or_evict(struct cache *cache, const struct block_id *id, const void *sealed,
                                size_t size)
{
    int r;

    do {
        r = block_write(cache, id, sealed, size);
    } while ((r == -ENOSPC || r == -EDQUOT) && cache_give_up(cache, EVICT_BYTES) > 0);
    return r;
}

int cache_put(struct cache *cache, const struct block_id *id, const void *sealed, size_t size)
{
    struct entry *entry;
    int r = cache_pin(cache, id);

    if (r < 0)
        return r;
    r = block_write_or_evict(cache, id, sealed, size);
    pthread_mutex_lock(&cache->lock);
    entry = entry_find(cache, id);
    CHECK(entry && entry->pins > 0);
    if (r == 0) {
        entry_present(cache, entry, (uint32_t)size);
        entry->coming = false;
        pthread_cond_broadcast(&cache->came);
    }
    entry_unpin(cache, entry);
    evict(cache);
    pthread_mutex_unlock(&cache->lock);
    return r;
}

int cache_pin(struct cache *cache, const struct block_id *id)
{
    struct entry *entry;

    pthread_mutex_lock(&cache->lock);
    entry = entry_make(cache, id);
    if (entry)
        entry_pin(entry);
    pthread_mutex_unlock(&cache->lock);
    return entry ? 0 : -ENOMEM;
}

void cache_unpin(struct cache *cache, const struct block_id *id)
{
    struct entry *entry;

    pthread_mutex_lock(&cache->lock);
    entry = entry_find(cache, id);
    CHECK(entry);
    entry_unpin(cache, entry);
    evict(cache);
    pthread_mutex_unlock(&cache->lock);
}

/* ---- fetching ---- */

struct fetch {
    struct cache *cache;
    const struct transfer_want *wants;
};

static int fetch_sink(void *user, size_t i, const void *sealed, size_t size)
{
    struct fetch *fetch = user;

    return cache_put(fetch->cache, &fetch->wants[i].id, sealed, size);
}

/* Sorts what is not there: `ours` is claimed, pinned and ours to fetch; *ret_theirs is how many
 * others are on their way to. */
static int claim(struct cache *cache, const struct transfer_want *wants, size_t n,
                 struct transfer_want *ours, size_t *ret_ours, size_t *ret_theirs)
{
    size_t n_ours = 0, n_theirs = 0;
    int r = 0;

    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct entry *entry = entry_make(cache, &wants[i].id);

        if (!entry) {
            r = -ENOMEM;
        } else if (entry->coming) {
            n_theirs++;
        } else if (!entry->present) {
            entry->coming = true;
            entry_pin(entry);
            ours[n_ours++] = wants[i];
        }
    }
    pthread_mutex_unlock(&cache->lock);
    *ret_ours = n_ours;
    *ret_theirs = n_theirs;
    return r;
}

/* What has not come, nobody waits for any longer: whoever did goes himself. */
static void unclaim(struct cache *cache, const struct transfer_want *ours, size_t n)
{
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = entry_find(cache, &ours[i].id);

        CHECK(entry);
        entry->coming = false;
        entry_unpin(cache, entry);
    }
    evict(cache);
    pthread_cond_broadcast(&cache->came);
    pthread_mutex_unlock(&cache->lock);
}

static bool is_coming(struct cache *cache, const struct block_id *id)
{
    const struct entry *entry = entry_find(cache, id);

    return entry && entry->coming;
}

/* One after another, so that each block that comes costs one look. */
static int await(struct cache *cache, const struct transfer_want *wants, size_t n,
                 const atomic_bool *stop)
{
    bool stopped = false;

    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < n && !stopped; i++)
        while (!stopped && is_coming(cache, &wants[i].id)) {
            int64_t until_ns = clock_monotonic_ns() + LOOK_NS;
            struct timespec until = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};

            pthread_cond_timedwait(&cache->came, &cache->lock, &until);
            stopped = stop && atomic_load(stop);
        }
    pthread_mutex_unlock(&cache->lock);
    return stopped ? -ECANCELED : 0;
}

int cache_fetch(struct cache *cache, struct transfer *transfer, const struct transfer_want *wants,
                size_t n, const atomic_bool *stop)
{
    _cleanup_(freep) struct transfer_want *ours = malloc((n + 1) * sizeof(*ours));
    struct fetch fetch = {.cache = cache, .wants = ours};
    size_t n_ours, n_theirs;
    int r = ours ? 0 : -ENOMEM;

    while (r == 0) {
        r = claim(cache, wants, n, ours, &n_ours, &n_theirs);
        if (r == 0 && n_ours > 0)
            r = transfer_get(transfer, ours, n_ours, fetch_sink, &fetch);
        if (n_ours > 0)
            unclaim(cache, ours, n_ours);
        if (r != 0 || n_theirs == 0)
            return r;
        r = await(cache, wants, n, stop);
    }
    return r;
}

uint64_t cache_bytes(struct cache *cache)
{
    uint64_t bytes;

    pthread_mutex_lock(&cache->lock);
    bytes = cache->bytes;
    pthread_mutex_unlock(&cache->lock);
    return bytes;
}

size_t cache_blocks(struct cache *cache)
{
    size_t n;

    pthread_mutex_lock(&cache->lock);
    n = cache->n_present;
    pthread_mutex_unlock(&cache->lock);
    return n;
}
