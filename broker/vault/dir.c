/* dir.c - the embedded vault: threads that take requests and complete them to their ports.
 *
 * A thread that meets a put takes all that wait: it writes every one, syncs every one, renames
 * every one, syncs each folder once, and only then completes them. While it does so, its batch is
 * public: a block whose file is there but whose name may not be durable yet is "not had".
 *
 * What reads many refs blocks (a pin; a get that its job may not name) reads one a turn and goes
 * back to the end of the queue, so that it stops no thread for long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <broker/vault/sweep.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>

#define BATCH_PUTS  64
#define BATCH_BYTES (32u * 1024 * 1024)
#define THREADS_MAX 64

enum { AGAIN = 101 }; /* of run_*: the request is not done with; apart from VAULT_E_* */

struct put {
    struct vault_request *request;
    struct disk_file file;
    bool written; /* its file is there, under its own name until renamed */
};

struct worker {
    struct vault *vault;
    pthread_t thread;
    bool reads_only; /* so that slow syncs and pins never hold up every read */
    size_t n_puts;   /* under the vault's lock: what others look at */
    struct put puts[BATCH_PUTS];
};

struct vault {
    struct disk disk;
    struct reach *reach;
    struct sweep *sweep;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list queue;
    bool stopping;
    int failed; /* the first write, sync or rename that failed: nothing is promised any more */
    unsigned n_workers;
    struct worker *workers;
};

struct vault_port {
    struct vault *vault;
    pthread_mutex_t lock;
    struct list completed;
    int event_fd;
};

/* ---- ports ---- */

int vault_port_new(struct vault *vault, struct vault_port **ret_port)
{
    struct vault_port *port = calloc(1, sizeof *port);
    if (!port)
        return -ENOMEM;
    port->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (port->event_fd < 0) {
        int error = errno;
        free(port);
        return -error;
    }
    port->vault = vault;
    list_init(&port->completed);
    pthread_mutex_init(&port->lock, NULL);
    *ret_port = port;
    return 0;
}

void vault_port_free(struct vault_port *port)
{
    if (!port)
        return;
    closep(&port->event_fd);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

int vault_port_fd(struct vault_port *port)
{
    return port->event_fd;
}

static void complete(struct vault_request *request)
{
    struct vault_port *port = request->port;
    uint64_t one = 1;

    pthread_mutex_lock(&port->lock);
    list_push(&port->completed, &request->node);
    CHECK(write(port->event_fd, &one, sizeof one) == sizeof one);
    pthread_mutex_unlock(&port->lock);
}

struct vault_request *vault_completed(struct vault_port *port)
{
    struct vault_request *request = NULL;
    uint64_t count;

    pthread_mutex_lock(&port->lock);
    if (list_empty(&port->completed)) {
        if (read(port->event_fd, &count, sizeof count) < 0)
            CHECK(errno == EAGAIN || errno == EINTR);
    } else {
        request = list_entry(port->completed.next, struct vault_request, node);
        list_unlink(&request->node);
    }
    pthread_mutex_unlock(&port->lock);
    return request;
}

/* ---- what is durable ---- */

static bool in_flight(struct vault *vault, struct studio_id studio, const struct block_id *id)
{
    pthread_mutex_lock(&vault->lock);
    bool found = vault->failed != 0; /* after a failed sync nothing can be called durable */
    for (unsigned w = 0; w < vault->n_workers && !found; w++)
        for (size_t i = 0; i < vault->workers[w].n_puts && !found; i++) {
            const struct vault_request *request = vault->workers[w].puts[i].request;
            found =
                request->studio.value == studio.value && !memcmp(&request->ids[0], id, sizeof *id);
        }
    pthread_mutex_unlock(&vault->lock);
    return found;
}

/* Its grace begins anew. In this order: a batch is public before its first rename and until its
 * last sync, so what is there, and then in nobody's batch, is durable. */
static bool durable(struct vault *vault, struct studio_id studio, const struct block_id *id)
{
    return sweep_renew(vault->sweep, studio, id) && !in_flight(vault, studio, id);
}

/* The same for some of them at once, none of which is swept between the look and its mark; one that
 * is not there is given to `lacks`. */
enum { AT_ONCE = 64 };
typedef void lacks(struct vault_request *request, const struct block_id *id, size_t i);

static void look_up(struct vault *vault, struct vault_request *request, const struct block_id *ids,
                    size_t n_ids, lacks *lacks_one)
{
    for (size_t from = 0; from < n_ids; from += AT_ONCE) {
        size_t end = n_ids - from < AT_ONCE ? n_ids : from + AT_ONCE;

        sweep_enter(vault->sweep);
        for (size_t i = from; i < end; i++) {
            if (request->kind == VAULT_PIN)
                sweep_mark(vault->sweep, request->studio, &ids[i]);
            if (!durable(vault, request->studio, &ids[i]))
                lacks_one(request, &ids[i], i);
        }
        sweep_leave(vault->sweep);
    }
}

/* ---- put ---- */

/* 0: to be written. 1: it is there already, nothing to do. */
static int check_put(struct vault *vault, struct vault_request *request)
{
    struct block_id actual;
    const struct block_id *ids;
    size_t n_ids;

    digest(request->data, request->size, &actual);
    if (request->size > LIMIT_SEALED_BYTES || memcmp(&actual, &request->ids[0], sizeof actual) ||
        (request->plain && refs_unpack(request->data, request->size, &ids, &n_ids))) {
        request->result = VAULT_E_ID;
        return 1;
    }
    sweep_enter(vault->sweep);
    bool there = durable(vault, request->studio, &request->ids[0]);
    sweep_leave(vault->sweep);
    return there;
}

static void sync_folders(struct vault *vault, struct put *puts, size_t n_puts)
{
    for (size_t i = 0; i < n_puts; i++) {
        const struct vault_request *request = puts[i].request;
        uint8_t byte = request->ids[0].bytes[0];
        bool synced = false;

        if (request->result)
            continue;
        for (size_t j = 0; j < i && !synced; j++)
            synced = !puts[j].request->result &&
                     puts[j].request->studio.value == request->studio.value &&
                     puts[j].request->ids[0].bytes[0] == byte;
        int r = synced ? 0 : disk_sync_folder(&vault->disk, request->studio, byte);
        if (r == 0)
            continue;
        for (size_t j = 0; j < n_puts; j++)
            if (!puts[j].request->result)
                puts[j].request->result = r;
        return;
    }
}

static void write_batch(struct vault *vault, struct put *puts, size_t n_puts)
{
    for (size_t i = 0; i < n_puts; i++) {
        struct vault_request *request = puts[i].request;
        request->result =
            disk_write(&vault->disk, request->studio, request->data, request->size, &puts[i].file);
        puts[i].written = request->result == 0;
    }
    for (size_t i = 0; i < n_puts; i++)
        if (puts[i].written)
            puts[i].request->result = disk_sync(&puts[i].file);
    for (size_t i = 0; i < n_puts; i++) {
        struct vault_request *request = puts[i].request;
        if (request->result == 0)
            request->result =
                disk_rename(&vault->disk, &puts[i].file, request->studio, &request->ids[0]);
        if (request->result && puts[i].written)
            disk_discard(&vault->disk, &puts[i].file);
    }
    sync_folders(vault, puts, n_puts);
}

static void finish_put(struct vault *vault, struct vault_request *request)
{
    stock_coming(&vault->disk.stock, request->studio, -(int64_t)request->size);
    vault_buffer_free(TAKE_PTR(request->data), request->size);
    complete(request);
}

static void run_puts(struct worker *worker, struct vault_request **requests, size_t n_requests,
                     int failed)
{
    struct vault *vault = worker->vault;
    size_t n = 0;

    for (size_t i = 0; i < n_requests; i++) {
        struct vault_request *request = requests[i];
        request->result = failed;
        if (failed || check_put(vault, request))
            finish_put(vault, request);
        else
            worker->puts[n++] = (struct put){.request = request, .file.fd = -1};
    }
    if (n == 0)
        return;

    pthread_mutex_lock(&vault->lock);
    worker->n_puts = n;
    pthread_mutex_unlock(&vault->lock);
    write_batch(vault, worker->puts, n);
    crash_point("vault.batch.durable");
    pthread_mutex_lock(&vault->lock);
    for (size_t i = 0; i < n && !vault->failed; i++)
        if (worker->puts[i].request->result < 0)
            vault->failed = worker->puts[i].request->result;
    worker->n_puts = 0;
    pthread_mutex_unlock(&vault->lock);
    for (size_t i = 0; i < n; i++)
        finish_put(vault, worker->puts[i].request);
    crash_point("vault.batch.completed");
}

/* ---- get, have, pin ---- */

static int run_get(struct vault *vault, struct vault_request *request)
{
    static const struct job_id any;
    uint8_t *data;
    size_t size;

    if (memcmp(&request->job, &any, sizeof any)) {
        int r = reach_check(vault->reach, request->studio, &request->job, &request->ids[0]);
        if (r)
            return r == REACH_E_MORE ? AGAIN : r;
    }
    int r = disk_get(&vault->disk, request->studio, &request->ids[0], &data, &size);
    if (r)
        return r;
    request->data = data;
    request->size = size;
    return 0;
}

static void not_had(struct vault_request *request, const struct block_id *id, size_t i)
{
    (void)id;
    request->missing[i / 8] |= (uint8_t)(1u << (i % 8));
}

static int run_have(struct vault *vault, struct vault_request *request)
{
    memset(request->missing, 0, (request->n_ids + 7) / 8);
    look_up(vault, request, request->ids, request->n_ids, not_had);
    return 0;
}

static void add_absent(struct vault_request *request, const struct block_id *id, size_t i)
{
    (void)i;
    if (request->n_absent < LIMIT_MISSING_IDS)
        request->absent[request->n_absent++] = *id;
}

/* What the refs do not name is no part of the job: its workers may not read it, and it may be
 * swept. Those found go out of the list. */
static void strike_named(struct vault_request *request, const struct block_id *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids && request->n_blocks > 0; i++)
        for (size_t j = request->n_blocks; j-- > 0;)
            if (!memcmp(&request->blocks[j], &ids[i], sizeof ids[i]))
                request->blocks[j] = request->blocks[--request->n_blocks];
}

static int pin_refs(struct vault *vault, struct vault_request *request, const struct block_id *name)
{
    _cleanup_(freep) uint8_t *data = NULL;
    const struct block_id *ids;
    size_t size, n_ids, n_absent = request->n_absent;

    look_up(vault, request, name, 1, add_absent);
    if (request->n_absent > n_absent)
        return 0;
    int r = disk_read(&vault->disk, request->studio, name, &data, &size);
    if (r == VAULT_E_BUSY)
        return r;
    if (r) {
        add_absent(request, name, 0); /* a damaged one is out of the way by now: to be sent again */
        return 0;
    }
    if (refs_unpack(data, size, &ids, &n_ids))
        return VAULT_E_ID; /* there, but no refs block: sending it again would not help */
    strike_named(request, ids, n_ids);
    look_up(vault, request, ids, n_ids, add_absent);
    return 0;
}

static int run_pin(struct vault *vault, struct vault_request *request)
{
    if (!request->absent)
        request->absent = calloc(LIMIT_MISSING_IDS, sizeof *request->absent);
    if (!request->absent)
        return VAULT_E_BUSY;
    if (request->n_pinned < request->n_ids) {
        int r = pin_refs(vault, request, &request->ids[request->n_pinned++]);
        if (r)
            return r;
    }
    if (request->n_pinned < request->n_ids && request->n_absent < LIMIT_MISSING_IDS)
        return AGAIN;
    return request->n_absent ? VAULT_E_MISSING : request->n_blocks ? VAULT_E_UNNAMED : 0;
}

static void run_one(struct vault *vault, struct vault_request *request, int failed)
{
    int r = failed;

    if (request->kind == VAULT_GET)
        r = run_get(vault, request);
    else if (!failed)
        r = request->kind == VAULT_HAVE ? run_have(vault, request) : run_pin(vault, request);
    if (r != AGAIN) {
        request->result = r;
        crash_point("vault.read");
        complete(request);
        return;
    }
    pthread_mutex_lock(&vault->lock);
    list_push(&vault->queue, &request->node);
    pthread_cond_broadcast(&vault->work);
    pthread_mutex_unlock(&vault->lock);
}

/* ---- threads ---- */

/* Takes the oldest request; with a put, all puts that wait, up to the batch's bounds. Called with
 * the lock held. */
static size_t take(struct worker *worker, struct vault_request **ret_requests)
{
    struct vault *vault = worker->vault;
    size_t n = 0, bytes = 0;

    list_for_each_safe (node, after, &vault->queue) {
        struct vault_request *request = list_entry(node, struct vault_request, node);
        bool put = request->kind == VAULT_PUT;
        if ((put || request->kind == VAULT_PIN) && worker->reads_only)
            continue;
        if (!put && n > 0)
            continue;
        if (n == BATCH_PUTS || (n > 0 && bytes + request->size > BATCH_BYTES))
            break;
        list_unlink(&request->node);
        ret_requests[n++] = request;
        bytes += request->size;
        if (!put)
            break;
    }
    return n;
}

static void *worker_main(void *user)
{
    struct worker *worker = user;
    struct vault *vault = worker->vault;
    struct vault_request *requests[BATCH_PUTS];

    pthread_setname_np(pthread_self(), "vault");
    pthread_mutex_lock(&vault->lock);
    for (;;) {
        size_t n = take(worker, requests);
        if (n == 0) {
            if (vault->stopping)
                break;
            pthread_cond_wait(&vault->work, &vault->lock);
            continue;
        }
        int failed = vault->failed;
        pthread_mutex_unlock(&vault->lock);
        if (requests[0]->kind == VAULT_PUT)
            run_puts(worker, requests, n, failed);
        else
            run_one(vault, requests[0], failed);
        pthread_mutex_lock(&vault->lock);
    }
    pthread_mutex_unlock(&vault->lock);
    return NULL;
}

void vault_submit(struct vault *vault, struct vault_request *request)
{
    CHECK(request->port && request->port->vault == vault);
    CHECK(request->n_ids == 1 || request->kind == VAULT_HAVE || request->kind == VAULT_PIN);
    request->result = 0;
    request->absent = NULL;
    request->n_absent = request->n_pinned = 0;
    if (request->kind == VAULT_PIN)
        sweep_pin(vault->sweep, request);
    if (request->kind == VAULT_PUT)
        stock_coming(&vault->disk.stock, request->studio, (int64_t)request->size);
    pthread_mutex_lock(&vault->lock);
    CHECK(!vault->stopping);
    list_push(&vault->queue, &request->node);
    /* All are woken: the one that a single signal would wake may not take puts. */
    pthread_cond_broadcast(&vault->work);
    pthread_mutex_unlock(&vault->lock);
}

void vault_unpin(struct vault *vault, struct vault_request *request)
{
    sweep_unpin(vault->sweep, request);
}

int vault_job_refs(struct vault *vault, struct studio_id studio, const struct job_id *job,
                   const struct block_id *refs, size_t n_refs)
{
    return reach_add(vault->reach, studio, job, refs, n_refs);
}

void vault_job_forget(struct vault *vault, struct studio_id studio, const struct job_id *job)
{
    reach_forget(vault->reach, studio, job);
}

uint64_t vault_used_bytes(struct vault *vault, struct studio_id studio)
{
    return stock_bytes(&vault->disk.stock, studio);
}

bool vault_counted(struct vault *vault)
{
    return atomic_load(&vault->disk.stock.counted);
}

int vault_sweep(struct vault *vault, int64_t grace_ns, int64_t passed_s)
{
    return sweep_start(vault->sweep, grace_ns, passed_s);
}

void vault_history_by(struct vault *vault, vault_history *history, void *user)
{
    reach_history_by(vault->reach, history, user);
}

int vault_job_history(struct vault *vault, struct studio_id studio, const struct job_id *job)
{
    return reach_history(vault->reach, studio, job);
}

/* ---- life ---- */

DEFINE_CLEANUP(struct vault *, vault_close)

static int start_workers(struct vault *vault, unsigned threads)
{
    vault->workers = calloc(threads, sizeof *vault->workers);
    if (!vault->workers)
        return -ENOMEM;
    for (unsigned i = 0; i < threads; i++) {
        struct worker *worker = &vault->workers[i];
        worker->vault = vault;
        worker->reads_only = i == 0 && threads > 1;
        int r = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (r)
            return -r;
        pthread_mutex_lock(&vault->lock);
        vault->n_workers++;
        pthread_mutex_unlock(&vault->lock);
    }
    return 0;
}

int vault_open(const char *folder, unsigned threads, struct vault **ret_vault)
{
    if (threads == 0 || threads > THREADS_MAX)
        return -EINVAL;
    _cleanup_(freep) struct vault *raw = calloc(1, sizeof *raw);
    if (!raw)
        return -ENOMEM;
    int r = disk_open(&raw->disk, folder);
    if (r)
        return r;
    list_init(&raw->queue);
    pthread_mutex_init(&raw->lock, NULL);
    pthread_cond_init(&raw->work, NULL);

    _cleanup_(vault_closep) struct vault *vault = TAKE_PTR(raw);
    r = reach_new(&vault->disk, &vault->reach);
    if (r == 0)
        r = sweep_new(&vault->disk, vault->reach, &vault->sweep);
    if (r == 0)
        r = start_workers(vault, threads);
    if (r)
        return r;
    *ret_vault = TAKE_PTR(vault);
    return 0;
}

/* What was submitted is completed first. */
void vault_close(struct vault *vault)
{
    if (!vault)
        return;
    sweep_stop(vault->sweep);
    pthread_mutex_lock(&vault->lock);
    vault->stopping = true;
    pthread_cond_broadcast(&vault->work);
    pthread_mutex_unlock(&vault->lock);
    for (unsigned i = 0; i < vault->n_workers; i++)
        pthread_join(vault->workers[i].thread, NULL);
    free(vault->workers);
    sweep_free(vault->sweep);
    reach_free(vault->reach);
    disk_close(&vault->disk);
    pthread_cond_destroy(&vault->work);
    pthread_mutex_destroy(&vault->lock);
    free(vault);
}
