/* reach.c - which blocks the workers of a job may read.
 *
 * A refs block is loaded only when an id is asked for that those loaded so far do not name; most
 * reads of a job's workers are of its input, which its first refs blocks name. The names of those
 * of results that were there before a start are asked for last of all: most jobs of a long history
 * are never read again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/vault/reach.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/block_set.h>

struct job {
    struct job *next_in_bucket;
    struct list in_all;
    struct list used; /* of those with loaded ids, the least recently used first */
    unsigned users;   /* under the table's lock: the table, and whoever is at it */
    struct studio_id studio;
    struct job_id id;
    pthread_mutex_t lock; /* of what follows; taken after the table's, or alone */
    struct block_id *names;
    size_t n_names, capacity;
    bool history; /* more names can be had, of results after this: */
    uint64_t history_after;
    size_t n_loaded;      /* names[0 .. n_loaded) are in `ids` */
    int broken;           /* what came of a refs block that could not be loaded */
    struct block_set ids; /* the names themselves are in it as well, once loading has begun */
};

/* A job lives while the table or anybody else uses it. */
struct reach {
    struct disk *disk;
    pthread_mutex_t lock;
    struct job **buckets;
    size_t n_buckets, n_jobs;
    uint64_t seed[2]; /* so that nobody can choose ids that all fall into one bucket */
    struct list all, used;
    atomic_size_t n_ids;
    vault_history *history;
    void *history_user;
    pthread_mutex_t history_lock; /* taken last */
};

int reach_new(struct disk *disk, struct reach **ret_reach)
{
    struct reach *reach = calloc(1, sizeof *reach);
    if (!reach)
        return -ENOMEM;
    reach->n_buckets = 256;
    reach->buckets = calloc(reach->n_buckets, sizeof *reach->buckets);
    int r = reach->buckets ? random_bytes(reach->seed, sizeof reach->seed) : -ENOMEM;
    if (r < 0) {
        free(reach->buckets);
        free(reach);
        return r;
    }
    reach->disk = disk;
    list_init(&reach->all);
    list_init(&reach->used);
    pthread_mutex_init(&reach->lock, NULL);
    pthread_mutex_init(&reach->history_lock, NULL);
    *ret_reach = reach;
    return 0;
}

static void job_free(struct job *job)
{
    block_set_deinit(&job->ids);
    free(job->names);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

void reach_free(struct reach *reach)
{
    if (!reach)
        return;
    for (size_t i = 0; i < reach->n_buckets; i++)
        for (struct job *job = reach->buckets[i], *next; job; job = next) {
            next = job->next_in_bucket;
            job_free(job);
        }
    free(reach->buckets);
    pthread_mutex_destroy(&reach->history_lock);
    pthread_mutex_destroy(&reach->lock);
    free(reach);
}

/* ---- the table ---- */

__extension__ typedef unsigned __int128 wide;

static struct job **bucket_of(const struct reach *reach, const struct job_id *id)
{
    uint64_t halves[2];
    memcpy(halves, id->bytes, sizeof halves);
    wide product = (wide)(halves[0] ^ reach->seed[0]) * (halves[1] ^ reach->seed[1]);
    /* Its upper half depends on every bit of both, which are hidden. */
    return &reach->buckets[(uint64_t)(product >> 64 ^ product) & (reach->n_buckets - 1)];
}

static void grow_table(struct reach *reach)
{
    struct job **old = reach->buckets, **buckets = calloc(2 * reach->n_buckets, sizeof *buckets);
    if (!buckets)
        return; /* longer chains, then */
    size_t n_old = reach->n_buckets;
    reach->buckets = buckets;
    reach->n_buckets *= 2;
    for (size_t i = 0; i < n_old; i++)
        for (struct job *job = old[i], *next; job; job = next) {
            struct job **bucket = bucket_of(reach, &job->id);
            next = job->next_in_bucket;
            job->next_in_bucket = *bucket;
            *bucket = job;
        }
    free(old);
}

static struct job *find(struct reach *reach, struct studio_id studio, const struct job_id *id)
{
    struct job *job = *bucket_of(reach, id);
    while (job && (job->studio.value != studio.value || memcmp(&job->id, id, sizeof *id)))
        job = job->next_in_bucket;
    return job;
}

static struct job *find_or_make(struct reach *reach, struct studio_id studio,
                                const struct job_id *id)
{
    struct job *job = find(reach, studio, id);
    if (job)
        return job;
    job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    if (reach->n_jobs >= reach->n_buckets)
        grow_table(reach);
    struct job **bucket = bucket_of(reach, id);
    job->studio = studio;
    job->id = *id;
    job->next_in_bucket = *bucket;
    list_init(&job->in_all);
    list_init(&job->used);
    list_push(&reach->all, &job->in_all);
    job->users = 1;
    pthread_mutex_init(&job->lock, NULL);
    *bucket = job;
    reach->n_jobs++;
    return job;
}

/* With the table's lock held. */
static void leave(struct reach *reach, struct job *job)
{
    if (--job->users > 0)
        return;
    list_unlink(&job->in_all);
    list_unlink(&job->used);
    atomic_fetch_sub(&reach->n_ids, job->ids.n);
    job_free(job);
}

static void done_with(struct reach *reach, struct job *job)
{
    pthread_mutex_lock(&reach->lock);
    leave(reach, job);
    pthread_mutex_unlock(&reach->lock);
}

void reach_forget(struct reach *reach, struct studio_id studio, const struct job_id *id)
{
    pthread_mutex_lock(&reach->lock);
    struct job *job = find(reach, studio, id);
    if (job) {
        struct job **at = bucket_of(reach, id);
        while (*at != job)
            at = &(*at)->next_in_bucket;
        *at = job->next_in_bucket;
        reach->n_jobs--;
        leave(reach, job);
    }
    pthread_mutex_unlock(&reach->lock);
}

/* ---- names ---- */

static bool has_name(const struct job *job, const struct block_id *name)
{
    for (size_t i = job->n_names; i-- > 0;)
        if (!memcmp(&job->names[i], name, sizeof *name))
            return true;
    return false;
}

static int add_names(struct job *job, const struct block_id *refs, size_t n_refs)
{
    if (job->n_names + n_refs > job->capacity) {
        size_t capacity = 2 * job->capacity + n_refs;
        struct block_id *names = reallocarray(job->names, capacity, sizeof *names);
        if (!names)
            return -ENOMEM;
        job->names = names;
        job->capacity = capacity;
    }
    /* Repeats are harmless (a set takes them in); only the plain one, a submission told twice, is
     * looked for. */
    bool few = job->n_names <= LIMIT_REFS_BLOCKS;
    for (size_t i = 0; i < n_refs; i++)
        if (!few || !has_name(job, &refs[i]))
            job->names[job->n_names++] = refs[i];
    return 0;
}

int reach_add(struct reach *reach, struct studio_id studio, const struct job_id *id,
              const struct block_id *refs, size_t n_refs)
{
    pthread_mutex_lock(&reach->lock);
    struct job *job = find_or_make(reach, studio, id);
    if (job)
        job->users++;
    pthread_mutex_unlock(&reach->lock);
    if (!job)
        return -ENOMEM;
    pthread_mutex_lock(&job->lock);
    int r = add_names(job, refs, n_refs);
    pthread_mutex_unlock(&job->lock);
    done_with(reach, job);
    return r;
}

/* Names that are only had by asking: they are given, and not kept. */
static int each_of_history(struct reach *reach, const struct job *job, uint64_t after,
                           reach_each_name *each, int (*turn)(void *user), void *user)
{
    uint64_t before;
    int r = 0;

    do {
        _cleanup_(freep) struct block_id *refs = NULL;
        size_t n_refs = 0;

        r = turn(user); /* rows without blocks are work, too */
        if (r)
            return r;
        before = after;
        pthread_mutex_lock(&reach->history_lock);
        int read = reach->history(reach->history_user, &job->id, &after, &refs, &n_refs);
        pthread_mutex_unlock(&reach->history_lock);
        if (read)
            return each(user, job->studio, &job->id, NULL);
        for (size_t i = 0; i < n_refs && r == 0; i++)
            r = each(user, job->studio, &job->id, &refs[i]);
    } while (r == 0 && after != before);
    return r;
}

/* Copied a few at a time, so that nobody waits for a reader of files. */
static int each_of_job(struct reach *reach, struct job *job, reach_each_name *each,
                       int (*turn)(void *user), void *user)
{
    struct block_id names[64];
    int r = 0;

    /* What others ask for meanwhile is among the names by the time these are read. */
    pthread_mutex_lock(&job->lock);
    bool history = job->history;
    uint64_t after = job->history_after;
    pthread_mutex_unlock(&job->lock);

    for (size_t from = 0, n = 1; r == 0 && n > 0; from += n) {
        pthread_mutex_lock(&job->lock);
        n = job->n_names > from ? job->n_names - from : 0;
        n = n < ARRAY_SIZE(names) ? n : ARRAY_SIZE(names);
        if (n > 0)
            memcpy(names, job->names + from, n * sizeof *names);
        pthread_mutex_unlock(&job->lock);
        for (size_t i = 0; i < n && r == 0; i++)
            r = each(user, job->studio, &job->id, &names[i]);
    }
    return r == 0 && history ? each_of_history(reach, job, after, each, turn, user) : r;
}

/* New ones come at the end of the list, and one that is in use stays in it. */
int reach_each(struct reach *reach, reach_each_name *each, int (*turn)(void *user), void *user)
{
    struct job *job = NULL;
    int r = 0;

    while (r == 0) {
        pthread_mutex_lock(&reach->lock);
        struct list *next = job ? job->in_all.next : reach->all.next;
        struct job *after = next == &reach->all ? NULL : list_entry(next, struct job, in_all);
        if (after)
            after->users++;
        if (job)
            leave(reach, job);
        pthread_mutex_unlock(&reach->lock);
        job = after;
        if (!job)
            return 0;
        r = each_of_job(reach, job, each, turn, user);
    }
    done_with(reach, job);
    return r;
}

void reach_history_by(struct reach *reach, vault_history *history, void *user)
{
    reach->history = history;
    reach->history_user = user;
}

int reach_history(struct reach *reach, struct studio_id studio, const struct job_id *id)
{
    pthread_mutex_lock(&reach->lock);
    struct job *job = find_or_make(reach, studio, id);
    if (job)
        job->history = true;
    pthread_mutex_unlock(&reach->lock);
    return job ? 0 : -ENOMEM;
}

/* Some more names of old results. */
static int history_next(struct reach *reach, struct job *job)
{
    _cleanup_(freep) struct block_id *refs = NULL;
    uint64_t after = job->history_after;
    size_t n_refs = 0;

    pthread_mutex_lock(&reach->history_lock);
    int r = reach->history(reach->history_user, &job->id, &after, &refs, &n_refs);
    pthread_mutex_unlock(&reach->history_lock);
    if (r == 0)
        r = add_names(job, refs, n_refs);
    if (r)
        return r > 0 ? VAULT_E_CORRUPT : VAULT_E_BUSY; /* a damaged row stays one */
    job->history = after != job->history_after;
    job->history_after = after;
    return 0;
}

/* ---- ids ---- */

static void forget_ids(struct reach *reach, struct job *job)
{
    atomic_fetch_sub(&reach->n_ids, job->ids.n);
    block_set_deinit(&job->ids);
    job->n_loaded = 0;
    job->broken = 0;
}

/* A job that is in use is left alone; `keep` is the caller's own. */
static void make_room(struct reach *reach, const struct job *keep)
{
    pthread_mutex_lock(&reach->lock);
    list_for_each_safe (node, after, &reach->used) {
        struct job *job = list_entry(node, struct job, used);
        if (atomic_load(&reach->n_ids) <= REACH_IDS_MAX)
            break;
        if (job == keep || pthread_mutex_trylock(&job->lock))
            continue;
        forget_ids(reach, job);
        pthread_mutex_unlock(&job->lock);
        list_unlink(&job->used);
    }
    pthread_mutex_unlock(&reach->lock);
}

static int add_ids(struct reach *reach, struct job *job, const struct block_id *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids; i++) {
        int r = block_set_add(&job->ids, &ids[i]);
        if (r < 0)
            return VAULT_E_BUSY;
        atomic_fetch_add(&reach->n_ids, (size_t)r);
    }
    return 0;
}

static int load_next(struct reach *reach, struct job *job)
{
    const struct block_id *name = &job->names[job->n_loaded], *ids;
    _cleanup_(freep) uint8_t *data = NULL;
    size_t size, n_ids;

    int r = add_ids(reach, job, name, 1);
    if (r == 0)
        r = disk_read(reach->disk, job->studio, name, &data, &size);
    if (r == 0 && refs_unpack(data, size, &ids, &n_ids))
        r = VAULT_E_CORRUPT;
    if (r == 0)
        r = add_ids(reach, job, ids, n_ids);
    if (r == VAULT_E_BUSY)
        return r;
    if (r)
        job->broken = r;
    job->n_loaded++;
    return 0;
}

static int check_job(struct reach *reach, struct job *job, const struct block_id *id)
{
    if (block_set_has(&job->ids, id))
        return 0;
    if (job->n_loaded == job->n_names && job->history) {
        int r = history_next(reach, job);
        if (r)
            return r;
    } else if (job->n_loaded < job->n_names) {
        int r = load_next(reach, job);
        if (r)
            return r;
        if (block_set_has(&job->ids, id))
            return 0;
    }
    if (job->n_loaded < job->n_names || job->history)
        return REACH_E_MORE;
    return job->broken ? job->broken : VAULT_E_DENIED;
}

int reach_check(struct reach *reach, struct studio_id studio, const struct job_id *id,
                const struct block_id *block)
{
    pthread_mutex_lock(&reach->lock);
    struct job *job = find(reach, studio, id);
    if (job) {
        list_unlink(&job->used);
        list_push(&reach->used, &job->used);
        job->users++;
    }
    pthread_mutex_unlock(&reach->lock);
    if (!job)
        return VAULT_E_DENIED;

    pthread_mutex_lock(&job->lock);
    int r = check_job(reach, job, block);
    pthread_mutex_unlock(&job->lock);
    if (atomic_load(&reach->n_ids) > REACH_IDS_MAX)
        make_room(reach, job);
    done_with(reach, job);
    return r;
}
