/* sqlite.c - the embedded store: one thread that commits, one that moves the log home.
 *
 * The writer takes everything that waits and makes one transaction of it, so that under load one
 * sync serves thousands of records. Nothing else on this connection ever runs, and the log is moved
 * into the database by the checkpointer on a connection of its own, so that no commit pays for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include <broker/store/epoch.h>
#include <broker/store/recover.h>
#include <broker/store/wal.h>
#include <broker/store/writer.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>

/* What may wait for the writer: beyond it store_submit blocks, so that a slow disk slows the loop
 * down and memory stays bounded. */
#define QUEUE_BYTES (64u * 1024 * 1024)
/* Pages of 4 KiB. The log is moved home past the first number; past the second the writer is held
 * for as long as that takes, because otherwise a busy broker's log would never start over. */
#define WAL_PASSIVE_PAGES 1024
#define WAL_RESTART_PAGES 16384
#define WAL_IDLE_S        5
/* A log that is to start over waits for whoever reads it, and holds the writer meanwhile: no longer
 * than this for a person's open transaction. The next attempt comes 1024 pages later. */
#define CHECKPOINT_BUSY_MS 50
/* Between two slices of a job that is gone, so that the disk is others' most of the time. */
#define TRIM_PAUSE_NS (20 * NS_PER_MS)
#define TRIM_FULL_NS  NS_PER_S /* where the disk is full */
/* How often a commit that found the disk full is tried again. */
#define FULL_RETRY_NS (200 * NS_PER_MS)

struct store {
    char folder[LIMIT_PATH_BYTES];
    int lock_fd;
    int event_fd;
    struct epoch epoch;
    struct database writing, checkpointing;
    struct writer rows;
    pthread_t writer, checkpointer;
    bool writer_runs, checkpointer_runs;

    pthread_mutex_t lock;
    pthread_cond_t work, room, wal, retry;
    struct batch *first, **last;
    size_t queued_bytes;
    bool busy, stopping;
    bool trimming; /* of jobs that are gone rows may be left */
    bool full;     /* a batch waits for space on the disk */
    uint64_t completed;
    int result; /* of the first commit that failed */
    char why[DATABASE_WHY_BYTES];

    atomic_int wal_pages;
    uint64_t commits;
};

/* store_open has no store to give when it fails; its sentence waits here. */
static _Thread_local char open_why[DATABASE_WHY_BYTES];

const char *store_why(const struct store *store)
{
    return store ? store->why : open_why;
}

uint32_t store_epoch(const struct store *store)
{
    return store->epoch.number;
}

uint32_t store_fence(const struct store *store)
{
    return store->epoch.fence;
}

uint64_t store_sequence(const struct store *store)
{
    return store->epoch.sequence;
}

/* ---- opening ---- */

/* Whose it is; and of which start of the machine, once the log holds nothing of an earlier one. */
static int sign_lock(struct store *store, const char *boot)
{
    char owner[32 + WAL_BOOT_BYTES];
    int n = snprintf(owner, sizeof owner, "%ld%s%s\n", (long)getpid(), *boot ? " " : "", boot);

    if (ftruncate(store->lock_fd, 0) == 0 && pwrite(store->lock_fd, owner, (size_t)n, 0) == n)
        return 0;
    int error = errno;
    snprintf(open_why, sizeof open_why, "%.500s/lock: %s: free space on this disk", store->folder,
             strerror(error));
    return error == ENOSPC ? STORE_E_FULL : -error;
}

static int lock_folder(struct store *store)
{
    char path[LIMIT_PATH_BYTES + 8], owner[32] = "";
    snprintf(path, sizeof path, "%s/lock", store->folder);

    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock_fd < 0) {
        int error = errno;
        snprintf(open_why, sizeof open_why, "%.500s: %s: make the folder, writable by this user",
                 path, strerror(error));
        return -error;
    }
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t n = pread(store->lock_fd, owner, sizeof owner - 1, 0);
        owner[n > 0 ? strspn(owner, "0123456789") : 0] = 0;
        snprintf(
            open_why, sizeof open_why,
            "%.500s: another broker (process %s) runs on this folder: stop it, or name another "
            "folder",
            path, owner[0] ? owner : "unknown");
        return STORE_E_LOCKED;
    }
    return 0;
}

static int count_wal(void *user, sqlite3 *handle, const char *name, int pages)
{
    struct store *store = user;
    (void)handle;
    (void)name;
    atomic_store(&store->wal_pages, pages);
    return SQLITE_OK;
}

/* What a power cut tore may lie behind the end of the log, until it is begun anew. */
static bool log_is_new(struct store *store)
{
    return sqlite3_wal_checkpoint_v2(store->checkpointing.handle, NULL, SQLITE_CHECKPOINT_TRUNCATE,
                                     NULL, NULL) == SQLITE_OK;
}

static int open_database(struct store *store)
{
    int r = database_open(&store->writing, store->folder, DATABASE_WRITE);
    if (r == 0)
        r = epoch_raise(&store->writing, &store->epoch);
    if (r == 0)
        r = writer_init(&store->rows, &store->writing, store->epoch.number);
    if (r) {
        memcpy(open_why, store->writing.why, sizeof open_why);
        return r;
    }
    sqlite3_wal_hook(store->writing.handle, count_wal, store);
    r = database_open(&store->checkpointing, store->folder, DATABASE_READ);
    if (r == 0 && database_run_text(&store->checkpointing, "PRAGMA synchronous = FULL;"
                                                           "PRAGMA query_only = 0"))
        r = database_error(&store->checkpointing, SQLITE_ERROR, "state.db");
    if (r == 0)
        sqlite3_busy_timeout(store->checkpointing.handle, CHECKPOINT_BUSY_MS);
    if (r)
        memcpy(open_why, store->checkpointing.why, sizeof open_why);
    return r;
}

/* ---- the writer ---- */

static void free_batches(struct batch *batch)
{
    while (batch) {
        struct batch *next = batch->next;
        free(batch);
        batch = next;
    }
}

static bool any_forgotten(const struct batch *batch)
{
    for (; batch; batch = batch->next)
        for (size_t i = 0; i < batch->n_records; i++)
            if (batch->records[i].kind == RECORD_FORGET)
                return true;
    return false;
}

static bool any_records(const struct batch *batch)
{
    for (; batch; batch = batch->next)
        if (batch->n_records)
            return true;
    return false;
}

static void signal_event(struct store *store)
{
    uint64_t one = 1;
    CHECK(write(store->event_fd, &one, sizeof one) == sizeof one);
}

/* Called with the lock held; gives it up meanwhile. */
static void wait_ns(struct store *store, pthread_cond_t *cond, int64_t ns)
{
    int64_t until_ns = clock_monotonic_ns() + ns;
    const struct timespec until = {until_ns / NS_PER_S, until_ns % NS_PER_S};

    (void)pthread_cond_timedwait(cond, &store->lock, &until);
}

/* After a transaction, with the lock held. */
static void written_some(struct store *store, int r, bool written, int wal_before)
{
    store->busy = false;
    if (r == 0) {
        store->commits += written;
    } else if (store->result == 0) {
        store->result = r;
        memcpy(store->why, store->writing.why, sizeof store->why);
    }
    if (written && (wal_before == 0 || atomic_load(&store->wal_pages) >= WAL_PASSIVE_PAGES))
        pthread_cond_signal(&store->wal);
    pthread_cond_broadcast(&store->room);
}

/* A sync that failed in a checkpoint may have lost pages whose log would be thrown away: fatal. */
static void checkpoint(struct store *store, struct database *database, int mode)
{
    crash_point("store.checkpoint");
    int code = sqlite3_wal_checkpoint_v2(database->handle, NULL, mode, NULL, NULL);
    crash_point("store.checkpointed");
    if (code == SQLITE_OK || (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED) {
        if (code == SQLITE_OK && mode == SQLITE_CHECKPOINT_TRUNCATE)
            atomic_store(&store->wal_pages, 0);
        return;
    }
    int r = database_error(database, code, "state.db: a checkpoint failed");
    if (r == STORE_E_FULL || r == -ENOMEM)
        return; /* the log still holds everything; the next one tries again */
    pthread_mutex_lock(&store->lock);
    if (store->result >= 0) {
        store->result = r > 0 ? -EIO : r;
        memcpy(store->why, database->why, sizeof store->why);
        pthread_cond_broadcast(&store->room);
        signal_event(store);
    }
    pthread_mutex_unlock(&store->lock);
}

/* False where the store is being closed, or has failed otherwise. A log that has been moved home is
 * written from its beginning again, which takes no space. */
static bool wait_for_space(struct store *store)
{
    checkpoint(store, &store->writing, SQLITE_CHECKPOINT_PASSIVE);
    pthread_mutex_lock(&store->lock);
    if (!store->full) {
        store->full = true;
        memcpy(store->why, store->writing.why, sizeof store->why);
        signal_event(store);
    }
    if (!store->stopping)
        wait_ns(store, &store->retry, FULL_RETRY_NS);
    bool again = !store->stopping && store->result == 0;
    pthread_mutex_unlock(&store->lock);
    return again;
}

/* What found no space was rolled back whole, no sync failed, and nobody has been told of it: it is
 * tried again until there is space. */
static int commit(struct store *store, const struct batch *batches)
{
    int r;

    do {
        r = writer_commit(&store->rows, batches);
    } while (r == STORE_E_FULL && wait_for_space(store));
    return r;
}

/* Called with the lock held; gives it up meanwhile. */
static void commit_waiting(struct store *store)
{
    struct batch *batches = store->first;
    uint64_t newest = 0;
    int r = store->result;

    store->first = NULL;
    store->last = &store->first;
    store->queued_bytes = 0;
    store->busy = true;
    pthread_mutex_unlock(&store->lock);

    for (const struct batch *batch = batches; batch; batch = batch->next)
        newest = batch->number;
    bool written = r == 0 && any_records(batches), forgotten = any_forgotten(batches);
    int before = atomic_load(&store->wal_pages);
    if (written)
        r = commit(store, batches);
    free_batches(batches);

    pthread_mutex_lock(&store->lock);
    store->full = false;
    if (r == 0)
        store->completed = newest;
    store->trimming |= forgotten;
    written_some(store, r, written, before);
    signal_event(store);
    crash_point("store.completed");
}

/* One slice, then a pause that any batch ends. Called with the lock held. */
static void trim(struct store *store)
{
    int before = atomic_load(&store->wal_pages);
    bool more = false;

    store->busy = true;
    pthread_mutex_unlock(&store->lock);
    int r = writer_trim(&store->rows, &more);
    pthread_mutex_lock(&store->lock);
    store->trimming = (r == 0 && more) || r == STORE_E_FULL;
    written_some(store, r == STORE_E_FULL ? 0 : r, r == 0, before);
    if (r != 0 && r != STORE_E_FULL)
        signal_event(store);
    if (!store->trimming || store->first || store->stopping)
        return;
    wait_ns(store, &store->work, r == STORE_E_FULL ? TRIM_FULL_NS : TRIM_PAUSE_NS);
}

static void *writer_main(void *user)
{
    struct store *store = user;

    pthread_setname_np(pthread_self(), "store");
    pthread_mutex_lock(&store->lock);
    for (;;) {
        while (!store->first && !store->stopping && !store->trimming)
            pthread_cond_wait(&store->work, &store->lock);
        if (store->first)
            commit_waiting(store);
        else if (store->stopping)
            break;
        else
            trim(store);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

int store_submit(struct store *store, uint64_t number, const struct record *records,
                 size_t n_records)
{
    struct batch *batch = batch_new(number, records, n_records);
    if (!batch)
        return -ENOMEM;

    pthread_mutex_lock(&store->lock);
    while (store->queued_bytes && store->queued_bytes + batch->bytes > QUEUE_BYTES &&
           store->result >= 0)
        pthread_cond_wait(&store->room, &store->lock);
    int r = store->result < 0 ? store->result : 0;
    if (r == 0) {
        *store->last = batch;
        store->last = &batch->next;
        store->queued_bytes += batch->bytes;
        pthread_cond_signal(&store->work);
    }
    pthread_mutex_unlock(&store->lock);
    if (r)
        free(batch);
    return r;
}

int store_fd(struct store *store)
{
    return store->event_fd;
}

int store_completed(struct store *store, uint64_t *ret_batch)
{
    uint64_t count;
    /* Read before the state is, so that no completion after it goes unannounced. */
    if (read(store->event_fd, &count, sizeof count) < 0)
        CHECK(errno == EAGAIN || errno == EINTR);

    pthread_mutex_lock(&store->lock);
    *ret_batch = store->completed;
    int r = store->result;
    pthread_mutex_unlock(&store->lock);
    return r;
}

bool store_full(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    bool full = store->full;
    pthread_mutex_unlock(&store->lock);
    return full;
}

/* ---- the checkpointer ---- */

/* What to do now, after a wait that ended in time or did not; -1 is nothing. */
static int choose_checkpoint(struct store *store, bool idle, int *moved_pages)
{
    int pages = atomic_load(&store->wal_pages);
    if (pages < *moved_pages)
        *moved_pages = 0; /* the log has started over */
    if (idle && pages > 0)
        return SQLITE_CHECKPOINT_TRUNCATE;
    if (pages - *moved_pages < WAL_PASSIVE_PAGES)
        return -1;
    *moved_pages = pages;
    return pages >= WAL_RESTART_PAGES ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE;
}

static void *checkpointer_main(void *user)
{
    struct store *store = user;
    int moved_pages = 0;

    pthread_setname_np(pthread_self(), "checkpoint");
    pthread_mutex_lock(&store->lock);
    while (!store->stopping) {
        uint64_t commits = store->commits;
        int waited = 0;
        if (atomic_load(&store->wal_pages) == 0) {
            pthread_cond_wait(&store->wal, &store->lock);
        } else {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += WAL_IDLE_S;
            waited = pthread_cond_timedwait(&store->wal, &store->lock, &until);
        }
        if (store->stopping)
            break;
        int mode = choose_checkpoint(store, waited == ETIMEDOUT && commits == store->commits,
                                     &moved_pages);
        if (mode < 0)
            continue;
        pthread_mutex_unlock(&store->lock);
        /* The bulk of it without holding anyone; a restart then has little left to hold them for.
         */
        if (mode != SQLITE_CHECKPOINT_PASSIVE)
            checkpoint(store, &store->checkpointing, SQLITE_CHECKPOINT_PASSIVE);
        checkpoint(store, &store->checkpointing, mode);
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* ---- life ---- */

static void init_sync(struct store *store)
{
    pthread_condattr_t attribute;
    pthread_condattr_init(&attribute);
    pthread_condattr_setclock(&attribute, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->work, &attribute);
    pthread_cond_init(&store->room, NULL);
    pthread_cond_init(&store->wal, &attribute);
    pthread_cond_init(&store->retry, &attribute);
    pthread_condattr_destroy(&attribute);
    store->last = &store->first;
    store->lock_fd = store->event_fd = -1;
    store->trimming = true; /* a broker that was killed may have left some */
}

static int start_threads(struct store *store)
{
    int r = pthread_create(&store->writer, NULL, writer_main, store);
    if (r)
        return -r;
    store->writer_runs = true;
    r = pthread_create(&store->checkpointer, NULL, checkpointer_main, store);
    if (r)
        return -r;
    store->checkpointer_runs = true;
    return 0;
}

DEFINE_CLEANUP(struct store *, store_close)

int store_open(const char *folder, struct store **ret_store)
{
    char boot[WAL_BOOT_BYTES];
    bool same_boot = false;

    open_why[0] = 0;
    _cleanup_(store_closep) struct store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    init_sync(store);
    int n = snprintf(store->folder, sizeof store->folder, "%s", folder);
    if (n < 0 || (size_t)n + 16 > sizeof store->folder) {
        snprintf(open_why, sizeof open_why, "state folder: its path is too long: choose a shorter");
        return -ENAMETOOLONG;
    }
    int r = lock_folder(store);
    if (r == 0)
        r = wal_check(folder, &same_boot, open_why);
    if (r == 0)
        r = sign_lock(store, "");
    if (r == 0)
        r = open_database(store);
    if (r == 0 && (same_boot || log_is_new(store)))
        r = sign_lock(store, (wal_boot(boot), boot));
    if (r == 0)
        r = folder_sync(folder); /* the file's own name, once */
    if (r)
        return r;
    store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (store->event_fd < 0)
        return -errno;
    r = start_threads(store);
    if (r)
        return r;
    *ret_store = TAKE_PTR(store);
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->lock);
    store->stopping = true;
    pthread_cond_broadcast(&store->work);
    pthread_cond_broadcast(&store->wal);
    pthread_cond_broadcast(&store->retry);
    pthread_mutex_unlock(&store->lock);
    if (store->writer_runs)
        pthread_join(store->writer, NULL);
    if (store->checkpointer_runs)
        pthread_join(store->checkpointer, NULL);
    database_close(&store->checkpointing);
    writer_deinit(&store->rows);
    database_close(&store->writing);
    free_batches(store->first);
    closep(&store->event_fd);
    closep(&store->lock_fd);
    pthread_cond_destroy(&store->work);
    pthread_cond_destroy(&store->room);
    pthread_cond_destroy(&store->wal);
    pthread_cond_destroy(&store->retry);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

int store_recover(struct store *store, store_each *each, void *user)
{
    struct database database;
    int r = database_open(&database, store->folder, DATABASE_READ);
    if (r == 0)
        r = recover(&database, each, NULL, user);
    pthread_mutex_lock(&store->lock);
    if (r && database.why[0])
        memcpy(store->why, database.why, sizeof store->why);
    pthread_mutex_unlock(&store->lock);
    database_close(&database);
    return r;
}
