/* gateway_worker.c - what workers say. A message of an older session is dropped; one about a lease
 * counts only with the ticket that this broker gave to this worker for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

static bool current(struct gateway *gateway, uint64_t session)
{
    const struct ask *ask = &gateway->ask;

    if (ask->peer->joined && ask->peer->session == session)
        return true;
    gateway->counters.dropped++;
    log_limited(LOG_DEBUG, "old_session", "session=%llu", (unsigned long long)session);
    return false;
}

/* What was leased before a backup was restored may be of frames that this past does not have. */
static bool ticket_right(struct gateway *gateway, const Wl__Lease *message,
                         const ProtobufCBinaryData *ticket, struct lease_id *ret_lease)
{
    char name[64];
    struct lease lease;

    if (wire_lease(message, &lease) == 0 && lease.epoch >= gateway->with.fence &&
        ticket_valid(gateway->with.signer, &lease, &gateway->ask.peer->key, ticket->data,
                     ticket->len)) {
        *ret_lease = gateway_lease_id(&lease);
        return true;
    }
    gateway->counters.forged++;
    log_limited(LOG_WARN, "forged", "peer=\"%s\"", roster_name(gateway->ask.peer, name));
    return false;
}

bool gateway_ticket(struct gateway *gateway, const Wl__Lease *message,
                    const ProtobufCBinaryData *ticket, struct lease_id *ret_lease)
{
    if (ticket_right(gateway, message, ticket, ret_lease))
        return true;
    gateway_offence(gateway, gateway->ask.peer);
    return false;
}

static void refuse_ticket(struct gateway *gateway)
{
    if (gateway->ask.request)
        gateway_refuse(gateway, CODE_REFUSED, "the ticket",
                       "it was not given to this worker for this lease",
                       "drop the lease; the worker's inventory says what is left");
}

static void refuse_stale(struct gateway *gateway)
{
    gateway_refuse(gateway, CODE_STALE, "the lease", "it has ended", "drop it");
}

/* ---- the list of what it runs and holds ---- */

static void drop_invalid(struct gateway *gateway, const Wl__InventoryItem *item)
{
    struct lease lease;

    if (wire_lease(item->lease, &lease) == 0)
        gateway_verdict(gateway, gateway->ask.peer->worker, &lease, VERDICT_DROP);
}

void gateway_on_inventory(struct gateway *gateway)
{
    const Wl__Inventory *inventory = gateway->ask.envelope->inventory;
    struct inventory_item *items =
        gateway_scratch(gateway, (inventory->n_items + 1) * sizeof *items);
    struct event event = {.kind = EVENT_INVENTORY};
    size_t n = 0;

    if (!current(gateway, inventory->session))
        return;
    for (size_t i = 0; i < inventory->n_items; i++) {
        const Wl__InventoryItem *item = inventory->items[i];

        /* An honest one's list may be full of what a restored broker never gave. */
        if (!ticket_right(gateway, item->lease, &item->ticket, &items[n].lease)) {
            drop_invalid(gateway, item);
            continue;
        }
        items[n].state = item->state == WL__LEASE_STATE__LEASE_RUNNING ? HELD_RUNNING
                         : item->state == WL__LEASE_STATE__LEASE_HELD  ? HELD_RESULT
                                                                       : HELD_QUEUED;
        items[n++].gpu_mask = item->gpu_mask;
    }
    event.inventory.worker = gateway->ask.peer->worker;
    event.inventory.items = items;
    event.inventory.n_items = n;
    event.inventory.last = inventory->last;
    gateway_step(gateway, &event);
}

/* ---- signs of life ---- */

void gateway_on_beat(struct gateway *gateway)
{
    const Wl__Beat *beat = gateway->ask.envelope->beat;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat back = WL__BEAT__INIT;
    struct event event = {.kind = EVENT_BEAT};

    if (!current(gateway, beat->session))
        return;
    event.beat.worker = gateway->ask.peer->worker;
    event.beat.no_room = beat->no_room;
    gateway_step(gateway, &event);
    back.session = beat->session;
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &back;
    gateway_answer(gateway, &envelope); /* so that a worker knows when nobody is there */
}

void gateway_on_started(struct gateway *gateway)
{
    const Wl__Started *started = gateway->ask.envelope->started;
    struct event event = {.kind = EVENT_STARTED};

    if (!current(gateway, started->session))
        return;
    if (!gateway_ticket(gateway, started->lease, &started->ticket, &event.started.lease)) {
        refuse_ticket(gateway);
        return;
    }
    event.started.worker = gateway->ask.peer->worker;
    gateway_step(gateway, &event);
}

void gateway_on_progress(struct gateway *gateway)
{
    const Wl__Progress *progress = gateway->ask.envelope->progress;
    struct event event = {.kind = EVENT_PROGRESS};
    struct lease_view view;
    struct lease_id lease;

    if (!current(gateway, progress->session))
        return;
    if (!gateway_ticket(gateway, progress->lease, &progress->ticket, &lease)) {
        refuse_ticket(gateway);
        return;
    }
    event.progress.worker = gateway->ask.peer->worker;
    event.progress.lease = lease;
    event.progress.permille = progress->permille > 1000 ? 1000 : (uint16_t)progress->permille;
    gateway_step(gateway, &event);
    if (!core_lease(gateway->with.core, &lease, &view))
        return;
    if (live_note(&gateway->live, &lease, progress) < 0)
        gateway_die("memory", -ENOMEM);
    watch_changed(&gateway->watch, &lease.job);
}

void gateway_on_released(struct gateway *gateway)
{
    const Wl__Released *released = gateway->ask.envelope->released;
    struct event event = {.kind = EVENT_RELEASED};
    char name[64];

    if (!current(gateway, released->session))
        return;
    if (!gateway_ticket(gateway, released->lease, &released->ticket, &event.released.lease)) {
        refuse_ticket(gateway);
        return;
    }
    if (released->why[0])
        log_limited(LOG_INFO, "released", "worker=\"%s\" why=\"%s\"",
                    roster_name(gateway->ask.peer, name), released->why);
    event.released.worker = gateway->ask.peer->worker;
    event.released.no_room = released->no_room;
    gateway_step(gateway, &event);
}

/* ---- results ---- */

static const char *result_why(const Wl__Result *result)
{
    Wl__Result stored = *result;

    stored.session = 0;
    stored.ticket = (ProtobufCBinaryData){0};
    if (result->class_ >= CLASSES_COUNT)
        return "its class is none the broker knows";
    if (result->class_ == CLASS_OK && result->n_manifest == 0)
        return "it is a success without a manifest";
    if (result->n_refs == 0 && gateway_outside(result->manifest, result->n_manifest, NULL) +
                                       gateway_outside(result->log, result->n_log, NULL) >
                                   0)
        return "its manifest or log lies in the vault, and no refs name it";
    /* So that one page of results or attempts can always hold it. */
    if (wl__result__get_packed_size(&stored) + 2 * LIMIT_NAME_BYTES > LIMIT_CONTROL_BYTES)
        return "it is too large: send its log as blocks";
    return NULL;
}

void gateway_on_result(struct gateway *gateway)
{
    struct ask *ask = &gateway->ask;
    const Wl__Result *result = ask->envelope->result;
    const struct catalogue_job *entry;
    struct lease plain;
    struct lease_id lease;
    const char *why;

    if (!current(gateway, result->session) || wire_lease(result->lease, &plain) != 0)
        return;
    lease = gateway_lease_id(&plain);
    if (!gateway_ticket(gateway, result->lease, &result->ticket, &lease)) {
        gateway_committed(gateway, &ask->route, &lease, CODE_REFUSED,
                          "the ticket was not given to this worker for this lease: drop it", NULL,
                          0);
        return;
    }
    why = result_why(result);
    if (why) {
        gateway->counters.refused++;
        gateway_committed(gateway, &ask->route, &lease, CODE_INVALID, why, NULL, 0);
        return;
    }
    entry = catalogue_find(&gateway->catalogue, &lease.job);
    if (!entry) {
        gateway_committed(gateway, &ask->route, &lease, CODE_STALE, "its job is gone: drop it",
                          NULL, 0);
        return;
    }
    if (result->n_refs == 0)
        gateway_result_go(gateway);
    else if (!gateway_pin_room(gateway, entry->studio))
        gateway_committed(gateway, &ask->route, &lease, CODE_BUSY,
                          "too many wait for the vault: send it again in some seconds", NULL, 0);
    else
        gateway_pin(gateway, entry->studio, result->refs, result->n_refs, NULL);
}

static struct usage usage_of(const Wl__Usage *usage)
{
    if (!usage)
        return (struct usage){0};
    return (struct usage){.wall_ns = usage->wall_ns,
                          .cpu_ns = usage->cpu_ns,
                          .memory_bytes = usage->memory_bytes,
                          .bytes_in = usage->bytes_in,
                          .bytes_out = usage->bytes_out,
                          .card_ns = usage->card_ns};
}

/* Its blocks are pinned, or it has none. The ticket was valid when it came. */
void gateway_result_go(struct gateway *gateway)
{
    const struct ask *ask = &gateway->ask;
    Wl__Result stored = *ask->envelope->result;
    struct event event = {.kind = EVENT_RESULT};
    struct lease lease;
    uint8_t *blob;

    if (!current(gateway, stored.session) || wire_lease(stored.lease, &lease) != 0)
        return;
    stored.session = 0;
    stored.ticket = (ProtobufCBinaryData){0};
    event.result.blob_size = wl__result__get_packed_size(&stored);
    blob = journal_memory(gateway->with.journal, event.result.blob_size);
    if (!blob)
        gateway_die("memory", -ENOMEM);
    wl__result__pack(&stored, blob);
    event.result.worker = ask->peer->worker;
    event.result.lease = gateway_lease_id(&lease);
    event.result.class = (enum attempt_class)stored.class_;
    event.result.warned = stored.class_ == CLASS_OK && stored.message[0];
    event.result.usage = usage_of(stored.usage);
    event.result.blob = blob;
    gateway->ask.inlined = stored.n_refs == 0;
    gateway_step(gateway, &event);
}

/* The worker that says it, where nothing is to be said against it; NULL: the general way knows. */
static struct peer *plain_peer(struct gateway *gateway, const struct link_key *key,
                               const struct link_route *route, const struct wire_plain *plain)
{
    struct peer *peer = NULL;

    if (plain->lease_size + plain->rest_size + 2 * LIMIT_NAME_BYTES > LIMIT_CONTROL_BYTES ||
        gateway_known(gateway, key, false, &peer) != 0 || !peer || peer->row.role != ROLE_WORKER ||
        !peer->joined || peer->session != plain->session || !peer->current ||
        peer->current->route.size != route->size ||
        memcmp(peer->current->route.bytes, route->bytes, route->size) != 0)
        return NULL;
    return peer;
}

bool gateway_plain_result(struct gateway *gateway, const struct link_key *key,
                          const struct link_route *route, const struct wire_plain *plain)
{
    struct event event = {.kind = EVENT_RESULT};
    struct peer *peer = plain_peer(gateway, key, route, plain);
    void *blob;

    if (!peer || plain->lease.epoch < gateway->with.fence ||
        !ticket_valid(gateway->with.signer, &plain->lease, &peer->key, plain->ticket,
                      sizeof(struct ticket)))
        return false;
    event.result.lease = gateway_lease_id(&plain->lease);
    event.result.blob_size = plain->lease_size + plain->rest_size;
    blob = journal_memory(gateway->with.journal, event.result.blob_size);
    if (!blob)
        gateway_die("memory", -ENOMEM);
    wire_plain_stored(plain, blob);
    gateway->ask = (struct ask){.peer = peer, .connection = peer->current, .route = *route};
    gateway->ask.inlined = true;
    event.result.worker = peer->worker;
    event.result.class = CLASS_OK;
    event.result.usage =
        (struct usage){plain->usage.wall_ns,  plain->usage.cpu_ns,    plain->usage.memory_bytes,
                       plain->usage.bytes_in, plain->usage.bytes_out, plain->usage.card_ns};
    event.result.blob = blob;
    gateway_step(gateway, &event);
    return true;
}

/* ---- passes that last as long as the task ---- */

void gateway_on_worker_pass(struct gateway *gateway)
{
    const Wl__WorkerPassRequest *wanted = gateway->ask.envelope->worker_pass_request;
    const struct catalogue_job *entry;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Pass pass = WL__PASS__INIT;
    uint8_t text[PASS_BYTES];
    struct lease_view view;
    struct lease_id lease;
    size_t size;

    if (!current(gateway, wanted->session))
        return;
    if (!gateway_ticket(gateway, wanted->lease, &wanted->ticket, &lease)) {
        refuse_ticket(gateway);
        return;
    }
    entry = catalogue_find(&gateway->catalogue, &lease.job);
    if (!entry || !core_lease(gateway->with.core, &lease, &view)) {
        refuse_stale(gateway);
        return;
    }
    gateway_pass(gateway, entry->studio, &lease, &gateway->ask.peer->key, GATEWAY_WRITE_BYTES, text,
                 &size);
    pass.pass = (ProtobufCBinaryData){size, text};
    pass.expires_wall_s = gateway->wall_s + GATEWAY_PASS_S;
    envelope.body_case = WL__ENVELOPE__BODY_PASS;
    envelope.pass = &pass;
    gateway_answer(gateway, &envelope);
}
