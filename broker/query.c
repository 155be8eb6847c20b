/* query.c - rows become protobuf by moving: a stored result is unpacked, and the parts the answer
 * wants change owners.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/wire.h>
#include <broker/query.h>

/* What the rows of one answer may take; the rest is for the envelope. */
enum { PAGE_BYTES = LIMIT_CONTROL_BYTES - 64 };

struct query {
    struct store_reader *reader;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct list waiting, done;
    size_t n_waiting;
    bool stop;
    int fd;
};

struct query_request *query_request_new(enum query_kind kind)
{
    struct query_request *request = calloc(1, sizeof *request);

    if (request) {
        list_init(&request->node);
        request->kind = kind;
    }
    return request;
}

void query_request_free(struct query_request *request)
{
    if (!request)
        return;
    if (request->answer)
        wire_free_made(request->answer);
    wipe(request->job_key, sizeof request->job_key);
    free(request->ranges);
    free(request);
}

/* ---- rows ---- */

static void *message_new(size_t size, void (*init)(void *))
{
    void *message = malloc(size);

    if (message)
        init(message);
    return message;
}
#define MESSAGE_NEW(Type, name) ((Type *)message_new(sizeof(Type), (void (*)(void *))name##__init))

static Wl__Usage *usage_new(const struct usage *usage)
{
    Wl__Usage *message = MESSAGE_NEW(Wl__Usage, wl__usage);

    if (!message)
        return NULL;
    message->wall_ns = usage->wall_ns;
    message->cpu_ns = usage->cpu_ns;
    message->memory_bytes = usage->memory_bytes;
    message->bytes_in = usage->bytes_in;
    message->bytes_out = usage->bytes_out;
    message->card_ns = usage->card_ns;
    return message;
}

static int bytes_copy(ProtobufCBinaryData *to, const void *data, size_t size)
{
    to->data = malloc(size);
    if (!to->data)
        return -ENOMEM;
    memcpy(to->data, data, size);
    to->len = size;
    return 0;
}

struct page {
    struct query_request *request;
    size_t bytes, limit; /* what the rows take; the most rows */
    size_t n;
    bool more;
    uint64_t next;  /* DEPENDENCIES: the offset after the last row */
    uint64_t first; /* DEPENDENCIES: of the range */
    int error;
};

static bool page_full(struct page *page)
{
    page->more = page->n >= page->limit;
    return page->more;
}

/* False where a row of `bytes` must go to the next page; the first always goes into this one. */
static bool page_take(struct page *page, size_t bytes)
{
    if (page->n > 0 && page->bytes + bytes + 4 > PAGE_BYTES) {
        page->more = true;
        return false;
    }
    page->bytes += bytes + 4;
    page->n++;
    return true;
}

/* An attempt that no worker reported (worker lost) has no blob. */
static Wl__Result *stored_result(const struct record *record)
{
    return record->attempt.blob_size
               ? wl__result__unpack(NULL, record->attempt.blob_size, record->attempt.blob)
               : NULL;
}

static int on_result(void *user, const struct attempt_row *row)
{
    struct page *page = user;
    Wl__Results *results = page->request->answer->results;
    const struct lease_id *lease = &row->record.attempt.lease;
    Wl__Result *stored;
    Wl__ResultRow *out;

    if (page_full(page))
        return 1;
    stored = stored_result(&row->record);
    out = MESSAGE_NEW(Wl__ResultRow, wl__result_row);
    page->error = -ENOMEM;
    if (!out)
        goto fail;
    page->error = -EBADMSG;
    if (!stored || stored->n_manifest == 0)
        goto fail;
    out->sequence = row->sequence;
    out->step = lease->task.step;
    out->task = lease->task.index;
    out->floor = lease->floor;
    out->attempt = lease->attempt;
    out->manifest = TAKE_PTR(stored->manifest);
    out->n_manifest = stored->n_manifest;
    stored->n_manifest = 0;
    out->usage = usage_new(&row->record.attempt.usage);
    page->error = 0;
    if (!page_take(page, wl__result_row__get_packed_size(out)))
        goto fail;
    results->results[results->n_results++] = out;
    wl__result__free_unpacked(stored, NULL);
    return 0;
fail:
    wl__result__free_unpacked(stored, NULL);
    if (out)
        wl__result_row__free_unpacked(out, NULL);
    return 1;
}

static int on_attempt(void *user, const struct attempt_row *row)
{
    struct page *page = user;
    Wl__Attempts *attempts = page->request->answer->attempts;
    const struct lease_id *lease = &row->record.attempt.lease;
    Wl__Result *stored;
    Wl__AttemptRow *out;

    if (page_full(page))
        return 1;
    stored = stored_result(&row->record);
    out = MESSAGE_NEW(Wl__AttemptRow, wl__attempt_row);
    if (!out) {
        wl__result__free_unpacked(stored, NULL);
        page->error = -ENOMEM;
        return 1;
    }
    out->sequence = row->sequence;
    out->step = lease->task.step;
    out->task = lease->task.index;
    out->floor = lease->floor;
    out->epoch = lease->epoch;
    out->attempt = lease->attempt;
    out->class_ = row->record.attempt.class;
    out->ended_wall_s = row->record.wall_s;
    out->usage = usage_new(&row->record.attempt.usage);
    if (stored) {
        out->exit_status = stored->exit_status;
        out->started_wall_s = stored->started_wall_s;
        if (stored->ended_wall_s)
            out->ended_wall_s = stored->ended_wall_s;
        out->message = stored->message;
        stored->message = (char *)protobuf_c_empty_string;
        out->n_log = stored->n_log;
        out->log = TAKE_PTR(stored->log);
        stored->n_log = 0;
    }
    if (!page_take(page, wl__attempt_row__get_packed_size(out) + LIMIT_NAME_BYTES)) {
        wl__attempt_row__free_unpacked(out, NULL);
        wl__result__free_unpacked(stored, NULL);
        return 1;
    }
    page->request->workers[attempts->n_attempts] = row->record.attempt.worker;
    attempts->attempts[attempts->n_attempts++] = out;
    wl__result__free_unpacked(stored, NULL);
    return 0;
}

static int on_dependency(void *user, const struct attempt_row *row)
{
    struct page *page = user;
    Wl__DependencyResults *results = page->request->answer->dependency_results;
    const struct lease_id *lease = &row->record.attempt.lease;
    uint8_t key[32];
    Wl__Result *stored;
    Wl__DependencyResult *out;

    if (page_full(page))
        return 1;
    stored = stored_result(&row->record);
    out = MESSAGE_NEW(Wl__DependencyResult, wl__dependency_result);
    page->error = -ENOMEM;
    job_key_out(page->request->job_key, lease->task.step, lease->task.index, lease->floor, key);
    if (!out || bytes_copy(&out->key_out, key, sizeof key) < 0)
        goto fail;
    page->error = -EBADMSG;
    if (!stored || stored->n_manifest == 0)
        goto fail;
    out->step = lease->task.step;
    out->task = lease->task.index;
    out->floor = lease->floor;
    out->manifest = TAKE_PTR(stored->manifest);
    out->n_manifest = stored->n_manifest;
    stored->n_manifest = 0;
    page->error = 0;
    if (!page_take(page, wl__dependency_result__get_packed_size(out)))
        goto fail;
    page->next = lease->task.index - page->first + 1;
    results->results[results->n_results++] = out;
    wipe(key, sizeof key);
    wl__result__free_unpacked(stored, NULL);
    return 0;
fail:
    wipe(key, sizeof key);
    wl__result__free_unpacked(stored, NULL);
    if (out)
        wl__dependency_result__free_unpacked(out, NULL);
    return 1;
}

/* ---- pages: one row more than fits is asked for, so that `more` is known ---- */

static int read_results(struct query *query, struct query_request *request)
{
    Wl__Results *results = MESSAGE_NEW(Wl__Results, wl__results);
    struct page page = {.request = request, .limit = request->limit};
    int r;

    if (!results)
        return -ENOMEM;
    request->answer->body_case = WL__ENVELOPE__BODY_RESULTS;
    request->answer->results = results;
    results->results = calloc(page.limit + 1, sizeof *results->results);
    if (!results->results)
        return -ENOMEM;
    r = store_results(query->reader, &request->job, request->after, page.limit + 1, on_result,
                      &page);
    results->more = page.more;
    return page.error ? page.error : r > 0 ? -EBADMSG : r; /* damaged: never a shorter list */
}

static int read_attempts(struct query *query, struct query_request *request)
{
    Wl__Attempts *attempts = MESSAGE_NEW(Wl__Attempts, wl__attempts);
    struct page page = {.request = request, .limit = request->limit};
    int r;

    if (!attempts)
        return -ENOMEM;
    request->answer->body_case = WL__ENVELOPE__BODY_ATTEMPTS;
    request->answer->attempts = attempts;
    attempts->attempts = calloc(page.limit + 1, sizeof *attempts->attempts);
    if (!attempts->attempts)
        return -ENOMEM;
    if (request->kind == QUERY_FAILURES)
        r = store_failures(query->reader, &request->job, request->after, page.limit + 1, on_attempt,
                           &page);
    else if (request->kind == QUERY_WARNINGS)
        r = store_warnings(query->reader, &request->job, request->after, page.limit + 1, on_attempt,
                           &page);
    else
        r = store_attempts(query->reader, &request->job, request->task, request->after,
                           page.limit + 1, on_attempt, &page);
    attempts->more = page.more;
    return page.error ? page.error : r > 0 ? -EBADMSG : r; /* damaged: never a shorter list */
}

static int read_dependencies(struct query *query, struct query_request *request)
{
    Wl__DependencyResults *results = MESSAGE_NEW(Wl__DependencyResults, wl__dependency_results);
    struct page page = {.request = request, .limit = request->limit};
    uint64_t offset = request->after & UINT32_MAX;

    if (!results)
        return -ENOMEM;
    request->answer->body_case = WL__ENVELOPE__BODY_DEPENDENCY_RESULTS;
    request->answer->dependency_results = results;
    results->results = calloc(page.limit + 1, sizeof *results->results);
    if (!results->results)
        return -ENOMEM;
    for (uint64_t at = request->after >> 32; at < request->n_ranges; at++, offset = 0) {
        const struct task_range *range = &request->ranges[at];
        int r;

        if (offset > range->last - range->first)
            continue;
        page.first = range->first;
        page.next = offset;
        r = store_step_results(query->reader, &request->job, range->step, range->first + offset,
                               range->last, page.limit - page.n + 1, on_dependency, &page);
        if (page.error || r)
            return page.error ? page.error : r > 0 ? -EBADMSG : r;
        if (page.more) {
            results->more = true;
            results->next = at << 32 | page.next;
            return 0;
        }
    }
    return 0;
}

static int answer(struct query *query, struct query_request *request)
{
    request->answer = MESSAGE_NEW(Wl__Envelope, wl__envelope);
    if (!request->answer)
        return -ENOMEM;
    request->answer->request = request->request;
    switch (request->kind) {
    case QUERY_RESULTS:
        return read_results(query, request);
    case QUERY_ATTEMPTS:
    case QUERY_FAILURES:
    case QUERY_WARNINGS:
        return read_attempts(query, request);
    case QUERY_DEPENDENCIES:
        return read_dependencies(query, request);
    }
    return -EINVAL;
}

/* ---- the thread ---- */

static void *query_main(void *user)
{
    struct query *query = user;
    uint64_t one = 1;

    pthread_setname_np(pthread_self(), "query");
    pthread_mutex_lock(&query->lock);
    for (;;) {
        struct query_request *request;

        while (!query->stop && list_empty(&query->waiting))
            pthread_cond_wait(&query->wake, &query->lock);
        if (query->stop)
            break;
        request = list_entry(query->waiting.next, struct query_request, node);
        list_unlink(&request->node);
        query->n_waiting--;
        pthread_mutex_unlock(&query->lock);

        request->result = answer(query, request);

        pthread_mutex_lock(&query->lock);
        list_push(&query->done, &request->node);
        CHECK(write(query->fd, &one, sizeof one) == sizeof one);
    }
    pthread_mutex_unlock(&query->lock);
    return NULL;
}

int query_new(const char *folder, struct query **ret_query)
{
    struct query *query = calloc(1, sizeof *query);
    int r;

    if (!query)
        return -ENOMEM;
    list_init(&query->waiting);
    list_init(&query->done);
    pthread_mutex_init(&query->lock, NULL);
    pthread_cond_init(&query->wake, NULL);
    query->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = query->fd < 0 ? -errno : store_reader_new(folder, &query->reader);
    if (r == 0)
        r = -pthread_create(&query->thread, NULL, query_main, query);
    if (r != 0) {
        store_reader_free(query->reader);
        if (query->fd >= 0)
            close(query->fd);
        free(query);
        return r;
    }
    *ret_query = query;
    return 0;
}

static void requests_free(struct list *list)
{
    list_for_each_safe (at, after, list) {
        list_unlink(at);
        query_request_free(list_entry(at, struct query_request, node));
    }
}

void query_free(struct query *query)
{
    if (!query)
        return;
    pthread_mutex_lock(&query->lock);
    query->stop = true;
    pthread_cond_signal(&query->wake);
    pthread_mutex_unlock(&query->lock);
    pthread_join(query->thread, NULL);
    requests_free(&query->waiting);
    requests_free(&query->done);
    store_reader_free(query->reader);
    close(query->fd);
    pthread_mutex_destroy(&query->lock);
    pthread_cond_destroy(&query->wake);
    free(query);
}

int query_fd(const struct query *query)
{
    return query->fd;
}

int query_submit(struct query *query, struct query_request *request)
{
    int r = -EAGAIN;

    pthread_mutex_lock(&query->lock);
    if (query->n_waiting < QUERY_WAITING) {
        list_push(&query->waiting, &request->node);
        query->n_waiting++;
        pthread_cond_signal(&query->wake);
        r = 0;
    }
    pthread_mutex_unlock(&query->lock);
    return r;
}

struct query_request *query_completed(struct query *query)
{
    struct query_request *request = NULL;
    uint64_t count;

    pthread_mutex_lock(&query->lock);
    if (list_empty(&query->done)) {
        /* Emptied under the lock that the thread writes it under, so none is missed. */
        if (read(query->fd, &count, sizeof count) < 0)
            CHECK(errno == EAGAIN);
    } else {
        request = list_entry(query->done.next, struct query_request, node);
        list_unlink(&request->node);
    }
    pthread_mutex_unlock(&query->lock);
    return request;
}
