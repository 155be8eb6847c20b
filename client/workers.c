/* workers.c - what the farm has, as lines a person reads ("amount.worker.vcpu=8"), and what an
 * operator does to workers.
 */
#include <client/look.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *keep(struct westlight *westlight, char *text)
{
    char *kept = text ? connection_scratch(westlight, strlen(text) + 1, 1) : NULL;
    if (kept)
        strcpy(kept, text);
    free(text);
    return kept;
}

static char *attribute_text(const Wl__Attribute *attribute)
{
    struct bytes text = {0};

    int r = bytes_printf(&text, "%s=", attribute->name);
    for (size_t i = 0; r >= 0 && i < attribute->n_any_of; i++)
        r = bytes_printf(&text, "%s%s", i ? "," : "", attribute->any_of[i]);
    if (r < 0) {
        bytes_deinit(&text);
        return NULL;
    }
    return (char *)text.data;
}

static char *gpu_text(const Wl__Gpu *gpu)
{
    char *text = NULL;
    if (asprintf(&text, "%s, %llu MiB", gpu->model, (unsigned long long)(gpu->memory_bytes >> 20)) <
        0)
        return NULL;
    return text;
}

static char *amount_text(const Wl__Amount *amount)
{
    char *text = NULL;
    if (asprintf(&text, "%s=%.15g", amount->name, amount->min) < 0)
        return NULL;
    return text;
}

#define LINES(westlight, from, n, function, ret_lines)                                             \
    ({                                                                                             \
        const char **lines_ = connection_scratch(westlight, n, sizeof(*lines_));                   \
        int made_ = lines_ ? 0 : -ENOMEM;                                                          \
        for (size_t i_ = 0; made_ == 0 && i_ < (n); i_++)                                          \
            if (!(lines_[i_] = keep(westlight, function((from)[i_]))))                             \
                made_ = -ENOMEM;                                                                   \
        *(ret_lines) = lines_;                                                                     \
        made_;                                                                                     \
    })

static int worker_row(struct westlight *westlight, const Wl__WorkerRow *row,
                      struct westlight_worker *worker)
{
    static const Wl__Offer none = WL__OFFER__INIT;
    const Wl__Offer *offer = row->offer ? row->offer : &none;
    struct link_key key;

    *worker = (struct westlight_worker){
        .id = row->id,
        .name = row->name,
        .state = row->state,
        .connected = row->connected,
        .pool = row->pool,
        .note = row->note,
        .drained = row->drained,
        .set_aside = row->set_aside,
        .aside_until_wall_s = row->aside_until_wall_s,
        .failed_in_a_row = row->failed_in_a_row,
        .slots = offer->slots,
        .running = row->running,
        .queued = row->queued,
        .done = row->done,
        .failed = row->failed,
        .seen_wall_s = row->seen_wall_s,
        .n_amounts = offer->n_amounts,
        .n_attributes = offer->n_attributes,
        .n_gpus = offer->n_gpus,
    };
    if (row->key.len == sizeof(key.bytes)) {
        memcpy(key.bytes, row->key.data, sizeof(key.bytes));
        identity_key_text(&key, worker->key);
    }
    int r = LINES(westlight, offer->amounts, offer->n_amounts, amount_text, &worker->amounts);
    if (r == 0)
        r = LINES(westlight, offer->attributes, offer->n_attributes, attribute_text,
                  &worker->attributes);
    if (r == 0)
        r = LINES(westlight, offer->gpus, offer->n_gpus, gpu_text, &worker->gpus);
    return r;
}

static int ask_workers(struct westlight *westlight, uint32_t after, Wl__Envelope **ret_answer)
{
    Wl__WorkersRequest request = WL__WORKERS_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    request.after = after;
    request.limit = LIMIT_PAGE;
    envelope.body_case = WL__ENVELOPE__BODY_WORKERS_REQUEST;
    envelope.workers_request = &request;
    return connection_call(westlight, &envelope, WL__ENVELOPE__BODY_WORKERS, CONNECTION_TIMEOUT_NS,
                           ret_answer);
}

int westlight_workers(struct westlight *westlight, westlight_on_worker *on_worker, void *user)
{
    uint32_t after = 0;
    bool more = true;

    connection_begin(westlight);
    while (more) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        int r = ask_workers(westlight, after, &answer);
        for (size_t i = 0; r == 0 && i < answer->workers->n_workers; i++) {
            struct westlight_worker worker;
            r = worker_row(westlight, answer->workers->workers[i], &worker);
            if (r == 0)
                r = on_worker(user, &worker);
            after = answer->workers->workers[i]->id;
        }
        if (r != 0)
            return r;
        snprintf(westlight->trouble, sizeof(westlight->trouble), "%s", answer->workers->trouble);
        more = answer->workers->more && answer->workers->n_workers > 0;
    }
    return 0;
}

const char *westlight_trouble(const struct westlight *westlight)
{
    return westlight->trouble;
}

/* ---- tending ---- */

static int tended_rows(struct westlight *westlight, const Wl__Tended *tended,
                       const struct westlight_worker **ret_workers)
{
    struct westlight_worker *workers =
        connection_scratch(westlight, tended->n_rows + 1, sizeof(*workers));

    if (!workers)
        return -ENOMEM;
    for (size_t i = 0; i < tended->n_rows; i++) {
        const Wl__TendedRow *row = tended->rows[i];
        struct link_key key;

        workers[i] = (struct westlight_worker){
            .name = row->name, .state = row->state, .running = row->running};
        if (row->key.len != sizeof(key.bytes))
            continue;
        memcpy(key.bytes, row->key.data, sizeof(key.bytes));
        identity_key_text(&key, workers[i].key);
    }
    *ret_workers = workers;
    return 0;
}

int westlight_tend(struct westlight *westlight, enum westlight_tend tend,
                   const char *const *workers, size_t n_workers, const char *text,
                   const struct westlight_worker **ret_workers, size_t *ret_n)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer = NULL;
    Wl__Tend message = WL__TEND__INIT;
    uint8_t request[16];

    connection_begin(westlight);
    if (n_workers > LIMIT_TEND_WORKERS)
        return connection_fail(
            westlight, WESTLIGHT_E_USAGE,
            "workers: %zu were named: at most %d are taken at once: ask in parts", n_workers,
            LIMIT_TEND_WORKERS);
    for (size_t i = 0; i < n_workers; i++)
        if (strlen(workers[i]) > LIMIT_NAME_BYTES)
            return connection_fail(westlight, WESTLIGHT_E_USAGE,
                                   "worker %.40s...: no name is so long: see westlight workers",
                                   workers[i]);
    if (text && strlen(text) > (tend == WESTLIGHT_POOL ? LIMIT_NAME_BYTES : LIMIT_NOTE_BYTES))
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "\"%.40s...\": at most %d bytes are taken: shorten it", text,
                               tend == WESTLIGHT_POOL ? LIMIT_NAME_BYTES : LIMIT_NOTE_BYTES);
    int r = random_bytes(request, sizeof(request));
    if (r != 0)
        return r;
    message.request_id = (ProtobufCBinaryData){sizeof(request), request};
    message.kind = (Wl__TendKind)tend;
    message.workers = (char **)(uintptr_t)workers;
    message.n_workers = n_workers;
    message.text = (char *)(uintptr_t)(text ? text : "");
    message.with_note = tend == WESTLIGHT_DRAIN && text;
    envelope.body_case = WL__ENVELOPE__BODY_TEND;
    envelope.tend = &message;
    r = connection_call(westlight, &envelope, WL__ENVELOPE__BODY_TENDED, CONNECTION_TIMEOUT_NS,
                        &answer);
    if (r != 0)
        return r;
    westlight->held = answer; /* the rows borrow from it */
    *ret_n = answer->tended->n_rows;
    return tended_rows(westlight, answer->tended, ret_workers);
}

/* ---- what there is to render with ---- */

static int by_version(const void *a, const void *b)
{
    return strverscmp(*(char *const *)a, *(char *const *)b);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(Wl__Software *const *)a)->name, (*(Wl__Software *const *)b)->name);
}

int westlight_software(struct westlight *westlight, westlight_on_software *on_software, void *user)
{
    Wl__FarmRequest request = WL__FARM_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;

    connection_begin(westlight);
    envelope.body_case = WL__ENVELOPE__BODY_FARM_REQUEST;
    envelope.farm_request = &request;
    int r = connection_call(westlight, &envelope, WL__ENVELOPE__BODY_FARM, CONNECTION_TIMEOUT_NS,
                            &answer);
    if (r != 0)
        return r;
    Wl__Farm *farm = answer->farm;
    if (farm->n_software > 1)
        qsort(farm->software, farm->n_software, sizeof(*farm->software), by_name);
    for (size_t i = 0; r == 0 && i < farm->n_software; i++) {
        Wl__Software *software = farm->software[i];

        if (software->n_versions > 1)
            qsort(software->versions, software->n_versions, sizeof(*software->versions),
                  by_version);
        r = on_software(user, software->name, (const char *const *)software->versions,
                        software->n_versions);
    }
    return r;
}
