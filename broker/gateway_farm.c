/* gateway_farm.c - what studios and operators ask of the farm: its workers, and what they render
 * with.
 */
#include <string.h>
#include <proto/base/clock.h>
#include <broker/gateway.h>
#include <broker/words.h>

/* Rows of one message, so that the envelope and what is said of the disk still fit. */
enum { ROWS_BYTES = LIMIT_CONTROL_BYTES - 64 - LIMIT_MESSAGE_BYTES };

static Wl__WorkerRow *worker_row(struct gateway *gateway, const struct worker_view *view)
{
    Wl__WorkerRow *row = gateway_scratch(gateway, sizeof *row);
    struct worker_key *key = gateway_scratch(gateway, sizeof *key);
    struct peer *peer = roster_worker(&gateway->roster, view->worker);
    struct link_key link_key;

    wl__worker_row__init(row);
    *key = view->key;
    memcpy(link_key.bytes, key->bytes, sizeof link_key.bytes);
    if (!peer) /* known from before a restart, and not back yet */
        (void)roster_get(&gateway->roster, &link_key, gateway->now_ns, false, &peer);
    row->id = view->worker.value + 1;
    row->key = (ProtobufCBinaryData){sizeof key->bytes, key->bytes};
    row->connected = view->connected;
    row->running = view->running;
    row->queued = view->queued;
    row->done = view->done;
    row->failed = view->failed;
    row->seen_wall_s = gateway->wall_s - (gateway->now_ns - view->seen_ns) / NS_PER_S;
    row->state = (char *)words_worker(view);
    row->pool = (char *)view->pool;
    row->note = (char *)view->note;
    row->drained = view->drained;
    row->set_aside = view->aside;
    row->aside_until_wall_s = view->aside ? view->aside_until_wall_s : 0;
    row->failed_in_a_row = view->failed_in_a_row;
    if (peer) {
        row->name = (char *)roster_name(peer, gateway_scratch(gateway, 64));
        row->offer = peer->hello ? peer->hello->hello->offer : NULL;
    }
    return row;
}

static Wl__Software *software_of(struct gateway *gateway, Wl__Farm *farm, const char *name)
{
    Wl__Software *software;

    for (size_t i = 0; i < farm->n_software; i++)
        if (farm->software[i]->name == name)
            return farm->software[i];
    software = gateway_scratch(gateway, sizeof *software);
    wl__software__init(software);
    software->name = (char *)name;
    software->versions = gateway_scratch(gateway, LIMIT_SOFTWARE * sizeof *software->versions);
    farm->software[farm->n_software++] = software;
    return software;
}

/* What there is to render with, for whoever submits: not on which workers, and not on how many. */
void gateway_on_farm(struct gateway *gateway)
{
    struct offered *offered = gateway_scratch(gateway, (LIMIT_SOFTWARE + 1) * sizeof *offered);
    size_t n = core_offered(gateway->with.core, ATTRIBUTE_SOFTWARE, offered, LIMIT_SOFTWARE + 1),
           bytes = 0;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Farm farm = WL__FARM__INIT;

    farm.software = gateway_scratch(gateway, LIMIT_SOFTWARE * sizeof *farm.software);
    for (size_t i = 0; i < n && !farm.more; i++) {
        const char *name = offered[i].name + strlen(ATTRIBUTE_SOFTWARE);

        bytes += strlen(name) + strlen(offered[i].value) + 12;
        farm.more = i == LIMIT_SOFTWARE || bytes > ROWS_BYTES;
        if (!farm.more) {
            Wl__Software *software = software_of(gateway, &farm, name);

            software->versions[software->n_versions++] = (char *)offered[i].value;
        }
    }
    envelope.body_case = WL__ENVELOPE__BODY_FARM;
    envelope.farm = &farm;
    gateway_answer(gateway, &envelope);
}

void gateway_on_workers(struct gateway *gateway)
{
    const Wl__WorkersRequest *wanted = gateway->ask.envelope->workers_request;
    uint32_t count = core_workers_count(gateway->with.core);
    size_t limit = wanted->limit && wanted->limit < LIMIT_PAGE ? wanted->limit : LIMIT_PAGE;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Workers workers = WL__WORKERS__INIT;
    size_t bytes = 0;

    /* Ids on the wire begin at 1, so that `after` 0 is the beginning. */
    workers.workers = gateway_scratch(gateway, (limit + 1) * sizeof *workers.workers);
    for (uint32_t id = wanted->after; id < count; id++) {
        struct worker_view view;
        Wl__WorkerRow *row;
        size_t size;

        if (!core_worker(gateway->with.core, (struct worker_id){id}, &view))
            continue;
        row = worker_row(gateway, &view);
        size = wl__worker_row__get_packed_size(row) + 4;
        workers.more =
            workers.n_workers == limit || (workers.n_workers > 0 && bytes + size > ROWS_BYTES);
        if (workers.more)
            break;
        if (size > ROWS_BYTES)
            row->offer = NULL; /* an offer as large as a message leaves no room for its row */
        bytes += size;
        workers.workers[workers.n_workers++] = row;
    }
    envelope.body_case = WL__ENVELOPE__BODY_WORKERS;
    workers.trouble = (char *)gateway_disk_note(gateway);
    envelope.workers = &workers;
    gateway_answer(gateway, &envelope);
}
