/* What operators do to workers: drain, undrain, clear, note, pool. A record for each worker, then
 * what follows from it now: where the worker stands in the fleet, and what goes back.
 *
 * What a worker has begun it always finishes.
 */
#include <broker/core/inner.h>

static void ask_back(struct core *core, struct worker *worker)
{
    list_each(link, &worker->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_worker);

        if (lease->started || lease->stopping || lease->asked_back)
            continue;
        /* Also one that has lapsed: should its worker speak again, it has been asked. */
        if (!worker_willing(worker) || !demand_plan(lease->step->demand, worker->shape)->possible)
            lease_ask_back(core, lease);
    }
}

void worker_attend(struct core *core, struct worker *worker)
{
    if (!worker->shape)
        return; /* not here since the broker began: all it may have is what runs */
    worker_regroup(&core->fleet, worker);
    ask_back(core, worker);
    worker_refresh_leases(core, worker);
    sched_worker_dirty(core, worker);
}

/* Its offer is the same and its class another: as if it had come anew. */
static void worker_repool(struct core *core, struct worker *worker)
{
    bool connected = worker->connected, quiet = worker->quiet;

    if (!worker->shape)
        return;
    struct shape *shape = shape_in_pool(&core->fleet, worker->shape, worker->pool);

    if (shape == worker->shape)
        return;
    worker_set_connected(&core->fleet, worker, false);
    worker_regroup(&core->fleet, worker);
    worker_set_shape(&core->fleet, worker, shape);
    worker_retake(core, worker);
    worker_set_connected(&core->fleet, worker, connected);
    worker_set_quiet(&core->fleet, worker, quiet); /* it has said nothing meanwhile */
}

static void emit(struct core *core, struct worker *worker, enum tend_kind tend, const char *text)
{
    struct record record = {.kind = RECORD_TEND};

    record.tend.tend = tend;
    record.tend.worker = worker->key;
    record.tend.text = text;
    core_emit(core, &record);
}

static void tend(struct core *core, struct worker *worker, const struct event *event)
{
    enum tend_kind kind = event->tend.tend;
    const char *text = event->tend.text;

    if (kind == TEND_DRAIN && text)
        emit(core, worker, TEND_NOTE, text);
    if (kind == TEND_CLEAR)
        aside_end(core, worker);
    emit(core, worker, kind, kind == TEND_NOTE || kind == TEND_POOL ? text : "");
    if (kind == TEND_POOL)
        worker_repool(core, worker);
    worker_attend(core, worker);
}

static enum code tend_check(struct core *core, const struct event *event)
{
    enum tend_kind kind = event->tend.tend;
    const char *text = event->tend.text;

    if (kind < TEND_DRAIN || kind > TEND_POOL || event->tend.n_workers == 0 ||
        event->tend.n_workers > LIMIT_TEND_WORKERS)
        return CODE_INVALID;
    if ((kind == TEND_NOTE || kind == TEND_POOL) && !text)
        return CODE_INVALID;
    if (text && strlen(text) > (kind == TEND_POOL ? LIMIT_NAME_BYTES : LIMIT_NOTE_BYTES))
        return CODE_INVALID;
    for (size_t i = 0; i < event->tend.n_workers; i++)
        if (!worker_of(&core->fleet, &event->tend.workers[i]))
            return CODE_BUSY;
    return CODE_OK;
}

void on_tend(struct core *core, const struct event *event)
{
    static const struct studio_id operators = {0};
    static const struct job_id none;
    const struct request *known = request_find(core, operators, &event->tend.request);

    if (known) {
        request_repeat(core, event, known, &event->tend.digest);
        return;
    }
    enum code code = tend_check(core, event);

    if (code == CODE_OK) {
        struct record record = {.kind = RECORD_REQUEST};

        for (size_t i = 0; i < event->tend.n_workers; i++)
            tend(core, worker_of(&core->fleet, &event->tend.workers[i]), event);
        record.request.studio = operators;
        record.request.request = event->tend.request;
        record.request.digest = event->tend.digest;
        record.request.tasks = event->tend.n_workers;
        core_emit(core, &record);
    }
    core_reply(core, event, code, &none, event->tend.n_workers, false);
}
