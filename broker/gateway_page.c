/* gateway_page.c - pages of what was committed, which the query thread reads, and the output of a
 * task that runs, which is in memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

static struct query_request *request_new(struct gateway *gateway, enum query_kind kind,
                                         const struct catalogue_job *entry, uint64_t after,
                                         uint32_t limit, uint32_t limit_max)
{
    const struct ask *ask = &gateway->ask;
    struct query_request *request = query_request_new(kind);

    if (!request)
        gateway_die("memory", -ENOMEM);
    request->peer = ask->peer->key;
    request->route = ask->route;
    request->request = ask->request;
    request->job = entry->job;
    request->studio = entry->studio;
    request->after = after;
    request->limit = limit && limit < limit_max ? limit : limit_max;
    return request;
}

/* No studio has more in the queue than it leaves free for all others. */
static void submit(struct gateway *gateway, struct query_request *request)
{
    struct tally *tally = gateway_tally(gateway, request->studio);

    if (tally->queries + gateway->n_queries + 2 <= QUERY_WAITING &&
        query_submit(gateway->with.query, request) == 0) {
        tally->queries++;
        gateway->n_queries++;
        return;
    }
    query_request_free(request);
    gateway_refuse(gateway, CODE_BUSY, "the list", "too many are being read", "try again");
}

void gateway_on_results(struct gateway *gateway)
{
    const Wl__ResultsRequest *wanted = gateway->ask.envelope->results_request;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &wanted->job, &view);

    if (!entry)
        return;
    struct event event = {.kind = EVENT_READ, .read.job = entry->job};

    submit(gateway, request_new(gateway, QUERY_RESULTS, entry, wanted->after, wanted->limit,
                                LIMIT_RESULTS_PAGE));
    gateway_step(gateway, &event);
}

static bool task_there(struct gateway *gateway, const struct job_view *view, uint32_t step,
                       uint64_t task)
{
    const struct space *space =
        step < view->n_steps ? core_step_space(gateway->with.core, &view->job, step) : NULL;

    if (space && task < space_size(space))
        return true;
    gateway_refuse(gateway, CODE_UNKNOWN, "the task", "the job has no such task",
                   "westlight show JOB lists its steps and frames");
    return false;
}

void gateway_on_attempts(struct gateway *gateway)
{
    const Wl__AttemptsRequest *wanted = gateway->ask.envelope->attempts_request;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &wanted->job, &view);
    enum query_kind kind = wanted->failures   ? QUERY_FAILURES
                           : wanted->warnings ? QUERY_WARNINGS
                                              : QUERY_ATTEMPTS;
    struct query_request *request;

    if (!entry ||
        (kind == QUERY_ATTEMPTS && !task_there(gateway, &view, wanted->step, wanted->task)))
        return;
    request = request_new(gateway, kind, entry, wanted->after, wanted->limit, LIMIT_RESULTS_PAGE);
    request->task = (struct task_id){wanted->step, wanted->task};
    submit(gateway, request);
}

/* ---- what a task reads of the steps it depends on ---- */

/* The tasks it waits for, a range a dependency. */
static size_t dependency_ranges(struct gateway *gateway, const struct catalogue_job *entry,
                                const struct lease_id *lease, struct task_range **ret_ranges)
{
    const Wl__Step *step = entry->submit->steps[lease->task.step];
    struct task_range *ranges = calloc(step->n_dependencies + 1, sizeof *ranges);
    size_t n = 0;

    if (!ranges)
        gateway_die("memory", -ENOMEM);
    for (size_t i = 0; i < step->n_dependencies; i++) {
        const Wl__Dependency *on = step->dependencies[i];
        const struct space *space = core_step_space(gateway->with.core, &entry->job, on->step);
        uint64_t first = lease->task.index * on->per, last, size = space ? space_size(space) : 0;

        if (size == 0 || first >= size)
            continue;
        last = on->per && first + on->per - 1 < size ? first + on->per - 1 : size - 1;
        ranges[n++] = (struct task_range){on->step, first, last};
    }
    *ret_ranges = ranges;
    return n;
}

void gateway_on_dependencies(struct gateway *gateway)
{
    const struct ask *ask = &gateway->ask;
    const Wl__DependencyRequest *wanted = ask->envelope->dependency_request;
    struct catalogue_job *entry;
    struct query_request *request;
    struct lease_view view;
    struct lease_id lease;
    const uint8_t *key;

    if (!ask->peer->joined || ask->peer->session != wanted->session) {
        gateway->counters.dropped++;
        return;
    }
    if (!gateway_ticket(gateway, wanted->lease, &wanted->ticket, &lease)) {
        gateway_refuse(gateway, CODE_REFUSED, "the ticket",
                       "it was not given to this worker for this lease", "drop the lease");
        return;
    }
    entry = catalogue_find(&gateway->catalogue, &lease.job);
    if (!entry || !core_lease(gateway->with.core, &lease, &view) ||
        lease.task.step >= entry->submit->n_steps) {
        gateway_refuse(gateway, CODE_STALE, "the lease", "it has ended", "drop it");
        return;
    }
    if (catalogue_key(&gateway->catalogue, entry, &key) != 0)
        gateway_die("a job key as stored (is this the state's master.key?)", -EBADMSG);
    request = request_new(gateway, QUERY_DEPENDENCIES, entry, wanted->after, 0, LIMIT_RESULTS_PAGE);
    memcpy(request->job_key, key, sizeof request->job_key);
    request->n_ranges = dependency_ranges(gateway, entry, &lease, &request->ranges);
    submit(gateway, request);
}

/* ---- answers ---- */

/* Names are the control thread's to know. */
static void name_workers(struct gateway *gateway, struct query_request *request)
{
    Wl__Attempts *attempts = request->answer->attempts;

    for (size_t i = 0; i < attempts->n_attempts; i++) {
        char text[64], *name;
        struct link_key key;
        struct peer *peer = NULL;

        memcpy(key.bytes, request->workers[i].bytes, sizeof key.bytes);
        (void)roster_get(&gateway->roster, &key, gateway->now_ns, false, &peer);
        name = strdup(peer ? roster_name(peer, text) : "a worker no longer allowed");
        if (!name)
            gateway_die("memory", -ENOMEM);
        attempts->attempts[i]->worker = name;
    }
}

static void answered(struct gateway *gateway, struct query_request *request)
{
    struct ask *ask = &gateway->ask;

    *ask = (struct ask){.route = request->route, .request = request->request};
    gateway->mark = journal_mark(gateway->with.journal);
    if (gateway_asker(gateway, &request->peer, false) != 0)
        return;
    /* Forgotten meanwhile: what was read is only a part. Or it is not the asker's any more. */
    if (request->kind != QUERY_DEPENDENCIES ? !gateway_seen(gateway, &request->job)
                                            : !catalogue_find(&gateway->catalogue, &request->job)) {
        gateway_unknown_job(gateway);
        return;
    }
    if (request->result < 0) {
        log_limited(LOG_ERROR, "query", "kind=%d error=\"%s\"", request->kind,
                    strerror(-request->result));
        if (request->result == -EBADMSG)
            gateway_refuse(gateway, CODE_DAMAGED, "the list",
                           "a row of it is damaged on the broker's disk",
                           "tell whoever runs the broker: westlight-broker --check says which");
        else
            gateway_refuse(gateway, CODE_INTERNAL, "the list", "it could not be read",
                           "try again; whoever runs the broker finds the reason in its log");
        return;
    }
    if (request->kind != QUERY_RESULTS && request->kind != QUERY_DEPENDENCIES)
        name_workers(gateway, request);
    gateway_answer(gateway, request->answer);
}

void gateway_answered(struct gateway *gateway)
{
    struct query_request *request;

    while ((request = query_completed(gateway->with.query))) {
        gateway_tally(gateway, request->studio)->queries--;
        gateway->n_queries--;
        answered(gateway, request);
        gateway->ask = (struct ask){0};
        query_request_free(request);
        gateway_scratch_free(gateway);
    }
}

/* ---- the output of a task that runs ---- */

void gateway_on_live_log(struct gateway *gateway)
{
    const Wl__LiveLogRequest *wanted = gateway->ask.envelope->live_log_request;
    struct task_id task = {wanted->step, wanted->task};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__LiveLog log = WL__LIVE_LOG__INIT;
    enum task_state state = TASK_WAITING;
    struct live_task *live;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &wanted->job, &view);
    size_t bytes = 0, n = 0;

    if (!entry || !task_there(gateway, &view, wanted->step, wanted->task))
        return;
    core_task(gateway->with.core, &entry->job, task, &state, &log.floor);
    log.live = state == TASK_RUNNING || state == TASK_LEASED;
    live = log.live ? live_find(&gateway->live, &entry->job, task) : NULL;
    if (live) {
        log.floor = live->lease.floor;
        log.segments = gateway_scratch(
            gateway, (LIVE_TASK_BYTES / sizeof(struct live_segment) + 1) * sizeof *log.segments);
        list_for_each (at, &live->segments) {
            const struct live_segment *segment = list_entry(at, struct live_segment, node);
            size_t size = segment->size - sizeof *segment;

            if (segment->number <= wanted->after)
                continue;
            if (n > 0 && bytes + size + 4 > LIMIT_CONTROL_BYTES - 64)
                break;
            if (n == LIMIT_LOG_BYTES / LIMIT_LOG_SEGMENT_BYTES)
                break;
            log.segments[n] = wl__log_segment__unpack(NULL, size, segment->packed);
            if (!log.segments[n])
                gateway_die("memory", -ENOMEM);
            bytes += size + 4;
            n++;
        }
    }
    log.n_segments = n;
    envelope.body_case = WL__ENVELOPE__BODY_LIVE_LOG;
    envelope.live_log = &log;
    gateway_answer(gateway, &envelope);
    for (size_t i = 0; i < n; i++)
        wl__log_segment__free_unpacked(log.segments[i], NULL);
}
