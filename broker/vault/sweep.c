/* sweep.c - see sweep.h.
 *
 * A round marks in this order: the filter is set up, then the pins that are there are read, then
 * all jobs. A pin that comes later marks what it looks at by itself; one that is let go of before
 * it was read has a job that is read after.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <broker/vault/sweep.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>

/* Ten million blocks are kept by mistake one in two hundred, a hundred million two in three. */
#define FILTER_BITS    (1ULL << 27)
#define PROBES         4
#define BATCH          16 /* removals in one hold of the lock: others wait for some microseconds */
#define WORK_NS        (5 * NS_PER_MS)
#define REST           4
#define COUNT_AGAIN_NS (5 * NS_PER_S)
#define ROUND_NS_MIN   (NS_PER_S / 4)
#define ROUND_NS_MAX   (6 * 3600 * NS_PER_S)

struct candidate {
    struct studio_id studio;
    struct block_id id;
};

struct sweep {
    struct disk *disk;
    struct reach *reach;
    pthread_rwlock_t lock; /* shared by put, have, pin; whole for a removal */
    atomic_ullong *filter; /* NULL between rounds; changes under the whole lock */
    uint64_t salt;
    int64_t grace_ns;
    pthread_mutex_t pins_lock;
    struct list pins;

    pthread_t thread;
    bool runs;
    atomic_bool stopping;
    pthread_mutex_t wake_lock;
    pthread_cond_t wake;
    int64_t working_since_ns;

    /* The round's own. */
    struct sweep_count count;
    struct studio_id *whole; /* studios of which nothing is removed */
    size_t n_whole;
    struct candidate batch[BATCH];
    size_t n_batch;
    int64_t round_grace_ns;
};

/* ---- the filter ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
    return x ^ (x >> 32);
}

struct probe {
    uint64_t at, step;
};

static struct probe probe_of(const struct sweep *sweep, struct studio_id studio,
                             const struct block_id *id)
{
    uint64_t a, b;

    memcpy(&a, id->bytes, sizeof a);
    memcpy(&b, id->bytes + sizeof a, sizeof b);
    return (struct probe){mix(a ^ sweep->salt ^ studio.value), mix(b + sweep->salt) | 1};
}

static void filter_add(struct sweep *sweep, struct studio_id studio, const struct block_id *id)
{
    struct probe probe = probe_of(sweep, studio, id);

    for (unsigned i = 0; i < PROBES; i++, probe.at += probe.step) {
        uint64_t bit = probe.at % FILTER_BITS;

        atomic_fetch_or_explicit(&sweep->filter[bit / 64], 1ULL << (bit % 64),
                                 memory_order_relaxed);
    }
}

static bool filter_has(const struct sweep *sweep, struct studio_id studio,
                       const struct block_id *id)
{
    struct probe probe = probe_of(sweep, studio, id);

    for (unsigned i = 0; i < PROBES; i++, probe.at += probe.step) {
        uint64_t bit = probe.at % FILTER_BITS;

        if (!(atomic_load_explicit(&sweep->filter[bit / 64], memory_order_relaxed) >> (bit % 64) &
              1))
            return false;
    }
    return true;
}

static int filter_set(struct sweep *sweep, bool there)
{
    atomic_ullong *filter = there ? calloc(FILTER_BITS / 64, sizeof *filter) : NULL, *old;
    uint64_t salt = 0;
    int r = there ? random_bytes(&salt, sizeof salt) : 0;

    if (r < 0 || (there && !filter)) {
        free(filter);
        return r < 0 ? r : -ENOMEM;
    }
    pthread_rwlock_wrlock(&sweep->lock);
    old = sweep->filter;
    sweep->filter = filter;
    sweep->salt = salt;
    pthread_rwlock_unlock(&sweep->lock);
    free(old);
    return 0;
}

/* ---- what others do meanwhile ---- */

void sweep_enter(struct sweep *sweep)
{
    pthread_rwlock_rdlock(&sweep->lock);
}

void sweep_leave(struct sweep *sweep)
{
    pthread_rwlock_unlock(&sweep->lock);
}

/* What is younger than that keeps its time, so that most looks at a block write nothing. */
static int64_t ripe_ns(int64_t grace_ns)
{
    return grace_ns / 4;
}

bool sweep_renew(struct sweep *sweep, struct studio_id studio, const struct block_id *id)
{
    return disk_renew(sweep->disk, studio, id, ripe_ns(sweep->grace_ns));
}

void sweep_mark(struct sweep *sweep, struct studio_id studio, const struct block_id *id)
{
    if (sweep->filter)
        filter_add(sweep, studio, id);
}

void sweep_pin(struct sweep *sweep, struct vault_request *request)
{
    pthread_mutex_lock(&sweep->pins_lock);
    list_init(&request->pinned);
    list_push(&sweep->pins, &request->pinned);
    pthread_mutex_unlock(&sweep->pins_lock);
}

void sweep_unpin(struct sweep *sweep, struct vault_request *request)
{
    pthread_mutex_lock(&sweep->pins_lock);
    list_unlink(&request->pinned);
    pthread_mutex_unlock(&sweep->pins_lock);
}

/* ---- the thread's pace ---- */

static void wait_ns(struct sweep *sweep, int64_t ns)
{
    int64_t until_ns = clock_monotonic_ns() + ns;
    const struct timespec until = {until_ns / NS_PER_S, until_ns % NS_PER_S};

    pthread_mutex_lock(&sweep->wake_lock);
    while (!atomic_load(&sweep->stopping) &&
           pthread_cond_timedwait(&sweep->wake, &sweep->wake_lock, &until) == 0)
        ;
    pthread_mutex_unlock(&sweep->wake_lock);
}

static int rest(struct sweep *sweep, int times)
{
    int64_t worked_ns = clock_monotonic_ns() - sweep->working_since_ns;

    if (sweep->runs && worked_ns > WORK_NS) {
        wait_ns(sweep, worked_ns * times);
        sweep->working_since_ns = clock_monotonic_ns();
    }
    return atomic_load(&sweep->stopping) ? -ECANCELED : 0;
}

/* Called between two files, or reads of a history. */
static int pace(void *user)
{
    return rest(user, REST);
}

/* Somebody waits for it. */
static int count_pace(void *user)
{
    return rest(user, 1);
}

/* ---- marking ---- */

static int mark_refs(struct sweep *sweep, struct studio_id studio, const struct block_id *name)
{
    _cleanup_(freep) uint8_t *data = NULL;
    const struct block_id *ids;
    size_t size, n_ids;

    filter_add(sweep, studio, name);
    int r = disk_read(sweep->disk, studio, name, &data, &size);
    if (r == 0 && refs_unpack(data, size, &ids, &n_ids))
        r = VAULT_E_CORRUPT;
    for (size_t i = 0; r == 0 && i < n_ids; i++)
        filter_add(sweep, studio, &ids[i]);
    return r;
}

static bool is_whole(const struct sweep *sweep, struct studio_id studio)
{
    for (size_t i = 0; i < sweep->n_whole; i++)
        if (sweep->whole[i].value == studio.value)
            return true;
    return false;
}

/* What a job refers to cannot be known: all of its studio stays. */
static int keep_whole(struct sweep *sweep, struct studio_id studio, const struct job_id *job)
{
    struct studio_id *whole;

    if (is_whole(sweep, studio))
        return 0;
    whole = reallocarray(sweep->whole, sweep->n_whole + 1, sizeof *whole);
    if (!whole)
        return -ENOMEM;
    sweep->whole = whole;
    whole[sweep->n_whole++] = studio;
    log_warn("not_swept",
             "studio=%u job=%02x%02x%02x%02x why=\"a list of its blocks cannot be read: nothing of "
             "this studio is removed until the job is gone\"",
             studio.value, job->bytes[0], job->bytes[1], job->bytes[2], job->bytes[3]);
    return 0;
}

static int mark_job(void *user, struct studio_id studio, const struct job_id *job,
                    const struct block_id *name)
{
    struct sweep *sweep = user;
    int r = pace(sweep);

    if (r == 0 && (!name || mark_refs(sweep, studio, name) != 0))
        r = keep_whole(sweep, studio, job);
    return r;
}

/* What a pin names and is not there it will find missing by itself. */
static int mark_pins(struct sweep *sweep)
{
    _cleanup_(freep) struct candidate *names = NULL;
    size_t n = 0;
    int r = 0;

    pthread_mutex_lock(&sweep->pins_lock);
    list_for_each (at, &sweep->pins)
        n += list_entry(at, struct vault_request, pinned)->n_ids;
    names = calloc(n + 1, sizeof *names);
    n = 0;
    list_for_each (at, &sweep->pins) {
        const struct vault_request *request = list_entry(at, struct vault_request, pinned);

        for (size_t i = 0; names && i < request->n_ids; i++)
            names[n++] = (struct candidate){request->studio, request->ids[i]};
    }
    pthread_mutex_unlock(&sweep->pins_lock);
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; i < n && r == 0; i++) {
        (void)mark_refs(sweep, names[i].studio, &names[i].id);
        r = pace(sweep);
    }
    return r;
}

/* ---- removing ---- */

/* The grace is whole from the last promise on, which may have left the time as it was. */
static bool old(struct sweep *sweep, const struct candidate *candidate, uint64_t *ret_bytes)
{
    int64_t age_ns = 0;

    return disk_age(sweep->disk, candidate->studio, &candidate->id, &age_ns, ret_bytes) == 0 &&
           age_ns > sweep->round_grace_ns + ripe_ns(sweep->round_grace_ns);
}

static void remove_batch(struct sweep *sweep)
{
    pthread_rwlock_wrlock(&sweep->lock);
    for (size_t i = 0; i < sweep->n_batch; i++) {
        const struct candidate *candidate = &sweep->batch[i];
        uint64_t bytes = 0;

        /* Somebody may have been told meanwhile that it is there. */
        if (filter_has(sweep, candidate->studio, &candidate->id) || !old(sweep, candidate, &bytes))
            continue;
        crash_point("sweep.remove");
        disk_remove(sweep->disk, candidate->studio, &candidate->id);
        crash_point("sweep.removed");
        sweep->count.blocks++;
        sweep->count.bytes += bytes;
    }
    pthread_rwlock_unlock(&sweep->lock);
    sweep->n_batch = 0;
}

static int look_at(void *user, struct studio_id studio, const struct block_id *id)
{
    struct sweep *sweep = user;
    struct candidate candidate = {studio, *id};
    uint64_t bytes;

    if (!is_whole(sweep, studio) && !filter_has(sweep, studio, id) &&
        old(sweep, &candidate, &bytes))
        sweep->batch[sweep->n_batch++] = candidate;
    else
        sweep->count.kept++;
    if (sweep->n_batch == BATCH)
        remove_batch(sweep);
    return pace(sweep);
}

int sweep_round(struct sweep *sweep, int64_t grace_ns, struct sweep_count *ret_count)
{
    sweep->count = (struct sweep_count){0};
    sweep->n_whole = sweep->n_batch = 0;
    sweep->round_grace_ns = grace_ns;
    sweep->working_since_ns = clock_monotonic_ns();
    int r = filter_set(sweep, true);
    if (r == 0)
        r = mark_pins(sweep);
    if (r == 0)
        r = reach_each(sweep->reach, mark_job, pace, sweep);
    if (r == 0)
        r = disk_each(sweep->disk, look_at, sweep);
    if (r == 0 && sweep->n_batch > 0)
        remove_batch(sweep);
    (void)filter_set(sweep, false);
    if (r == 0)
        *ret_count = sweep->count;
    return r;
}

/* ---- life ---- */

/* Studios with a quota wait for it. */
static void count_all(struct sweep *sweep)
{
    int r;

    while ((r = disk_count(sweep->disk, count_pace, sweep)) != 0 &&
           !atomic_load(&sweep->stopping)) {
        log_limited(LOG_ERROR, "not_counted", "why=\"%s\" next=\"see to the vault's disk\"",
                    strerror(-r));
        wait_ns(sweep, COUNT_AGAIN_NS);
    }
    atomic_store(&sweep->disk->stock.counted, r == 0);
}

static void *sweep_main(void *user)
{
    struct sweep *sweep = user;
    int64_t every_ns = sweep->grace_ns / 4;

    pthread_setname_np(pthread_self(), "sweep");
    every_ns = every_ns < ROUND_NS_MIN ? ROUND_NS_MIN : every_ns;
    every_ns = every_ns > ROUND_NS_MAX ? ROUND_NS_MAX : every_ns;
    sweep->working_since_ns = clock_monotonic_ns();
    count_all(sweep);
    /* The first comes soon: some brokers run for a few hours a day. */
    for (wait_ns(sweep, every_ns / 16); !atomic_load(&sweep->stopping); wait_ns(sweep, every_ns)) {
        struct sweep_count count = {0};
        int r = sweep_round(sweep, sweep->grace_ns, &count);
        if (r != 0 && r != -ECANCELED)
            log_warn("not_swept", "why=\"%s\"", strerror(-r));
        if (count.blocks > 0)
            log_info("swept", "blocks=%llu bytes=%llu kept=%llu", (unsigned long long)count.blocks,
                     (unsigned long long)count.bytes, (unsigned long long)count.kept);
    }
    return NULL;
}

int sweep_new(struct disk *disk, struct reach *reach, struct sweep **ret_sweep)
{
    struct sweep *sweep = calloc(1, sizeof *sweep);
    pthread_condattr_t attribute;
    pthread_rwlockattr_t fair;

    if (!sweep)
        return -ENOMEM;
    sweep->disk = disk;
    sweep->reach = reach;
    sweep->grace_ns = LIMIT_GRACE_NS;
    list_init(&sweep->pins);
    /* Else a busy vault would keep a removal waiting for ever. */
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&sweep->lock, &fair);
    pthread_rwlockattr_destroy(&fair);
    pthread_mutex_init(&sweep->pins_lock, NULL);
    pthread_mutex_init(&sweep->wake_lock, NULL);
    pthread_condattr_init(&attribute);
    pthread_condattr_setclock(&attribute, CLOCK_MONOTONIC);
    pthread_cond_init(&sweep->wake, &attribute);
    pthread_condattr_destroy(&attribute);
    *ret_sweep = sweep;
    return 0;
}

int sweep_start(struct sweep *sweep, int64_t grace_ns, int64_t passed_s)
{
    sweep_enter(sweep);
    sweep->grace_ns = grace_ns;
    if (passed_s > 0)
        disk_set_time(sweep->disk, passed_s * NS_PER_S);
    sweep_leave(sweep);
    sweep->runs = true;
    int r = pthread_create(&sweep->thread, NULL, sweep_main, sweep);
    sweep->runs = r == 0;
    return -r;
}

void sweep_stop(struct sweep *sweep)
{
    if (!sweep || !sweep->runs)
        return;
    pthread_mutex_lock(&sweep->wake_lock);
    atomic_store(&sweep->stopping, true);
    pthread_cond_signal(&sweep->wake);
    pthread_mutex_unlock(&sweep->wake_lock);
    pthread_join(sweep->thread, NULL);
    sweep->runs = false;
}

void sweep_free(struct sweep *sweep)
{
    if (!sweep)
        return;
    pthread_rwlock_destroy(&sweep->lock);
    pthread_mutex_destroy(&sweep->pins_lock);
    pthread_mutex_destroy(&sweep->wake_lock);
    pthread_cond_destroy(&sweep->wake);
    free(sweep->whole);
    free(sweep);
}
