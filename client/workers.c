/* workers.c - what the farm has, as lines a person reads: "amount.worker.vcpu=8". */
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
        more = answer->workers->more && answer->workers->n_workers > 0;
    }
    return 0;
}
