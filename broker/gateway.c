/* gateway.c - one table says who may say what; the rest is the way in and the way out. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

_noreturn_ void gateway_die(const char *what, int error)
{
    log_error("stopped", "what=\"%s\" error=\"%s\"", what, error < 0 ? strerror(-error) : "store");
    _exit(1);
}

struct scratch {
    struct scratch *next;
    max_align_t memory[];
};

void *gateway_scratch(struct gateway *gateway, size_t size)
{
    struct scratch *scratch = calloc(1, sizeof *scratch + size);

    if (!scratch)
        gateway_die("memory", -ENOMEM);
    scratch->next = gateway->scratch;
    gateway->scratch = scratch;
    return scratch->memory;
}

void gateway_scratch_free(struct gateway *gateway)
{
    while (gateway->scratch) {
        struct scratch *scratch = gateway->scratch;

        gateway->scratch = scratch->next;
        free(scratch);
    }
}

/* ---- beginning and end ---- */

static void on_forget(void *user, struct connection *connection)
{
    struct gateway *gateway = user;

    watch_forget(&gateway->watch, connection);
    if (gateway->ask.connection == connection)
        gateway->ask.connection = NULL;
}

int gateway_init(struct gateway *gateway, const struct gateway_config *config)
{
    int r;

    *gateway = (struct gateway){.with = *config};
    outbox_init(&gateway->outbox);
    list_init(&gateway->forgotten);
    list_init(&gateway->turns);
    r = catalogue_init(&gateway->catalogue, config->signer);
    if (r == 0)
        r = roster_init(&gateway->roster, config->registry, on_forget, gateway);
    if (r == 0)
        r = live_init(&gateway->live);
    if (r == 0)
        r = uploads_init(&gateway->uploads);
    if (r == 0)
        r = watch_init(&gateway->watch);
    return r;
}

void gateway_deinit(struct gateway *gateway)
{
    gateway_pins_drop(gateway);
    gateway_turns_drop(gateway);
    gateway_forgotten_drop(gateway);
    roster_deinit(&gateway->roster);
    watch_deinit(&gateway->watch);
    live_deinit(&gateway->live);
    uploads_deinit(&gateway->uploads);
    catalogue_deinit(&gateway->catalogue);
    outbox_deinit(&gateway->outbox);
    gateway_scratch_free(gateway);
    for (size_t i = 0; i < gateway->studios_capacity; i++)
        free(gateway->studios[i]);
    free(gateway->studios);
    free(gateway->quotas);
    free(gateway->tallies);
}

void gateway_studio(struct gateway *gateway, const struct key_row *row)
{
    size_t id = row->studio.value;

    if (id == 0 || id > LIMIT_STUDIOS)
        return;
    if (id >= gateway->studios_capacity) {
        size_t larger = id + 64;
        char **moved = reallocarray(gateway->studios, larger, sizeof *moved);

        if (!moved)
            gateway_die("memory", -ENOMEM);
        memset(moved + gateway->studios_capacity, 0,
               (larger - gateway->studios_capacity) * sizeof *moved);
        gateway->studios = moved;
        gateway->studios_capacity = larger;
    }
    if (!gateway->studios[id])
        gateway->studios[id] = strdup(row->studio_name);
    core_studio_weight(gateway->with.core, row->studio, row->weight ? row->weight : 1);
}

/* ---- the way out ---- */

int gateway_say(struct gateway *gateway, const struct link_route *route,
                const Wl__Envelope *envelope, const struct journal_assign *assign)
{
    int r = journal_say(gateway->with.journal, gateway->mark, route, envelope, assign);

    if (r < 0 && r != -EMSGSIZE)
        gateway_die("memory", r);
    return r;
}

void gateway_answer(struct gateway *gateway, Wl__Envelope *envelope)
{
    envelope->request = gateway->ask.request;
    if (gateway_say(gateway, &gateway->ask.route, envelope, NULL) == 0)
        return;
    log_limited(LOG_ERROR, "answer_too_large", "body=%d", (int)envelope->body_case);
    gateway_refuse(gateway, CODE_INTERNAL, "the answer", "it is larger than one message may be",
                   "report this to whoever runs the broker");
}

void gateway_refuse_missing(struct gateway *gateway, const char *what,
                            const struct block_id *absent, size_t n_absent)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    ProtobufCBinaryData *missing = gateway_scratch(gateway, (n_absent + 1) * sizeof *missing);

    for (size_t i = 0; i < n_absent; i++)
        missing[i] = (ProtobufCBinaryData){sizeof absent[i], (uint8_t *)absent[i].bytes};
    refusal.code = CODE_MISSING;
    refusal.what = (char *)what;
    refusal.why = (char *)"blocks it refers to are not in the vault";
    refusal.next = (char *)"send them and repeat the request";
    refusal.missing = missing;
    refusal.n_missing = n_absent;
    envelope.body_case = WL__ENVELOPE__BODY_REFUSAL;
    envelope.refusal = &refusal;
    gateway_answer(gateway, &envelope);
}

void gateway_refuse(struct gateway *gateway, enum code code, const char *what, const char *why,
                    const char *next)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    char name[64] = "?";

    gateway->counters.refused++;
    if (gateway->ask.peer && !gateway->skip)
        gateway_offence(gateway, gateway->ask.peer);
    log_limited(LOG_INFO, "refused", "peer=\"%s\" code=\"%s\" what=\"%s\" why=\"%s\"",
                gateway->ask.peer ? roster_name(gateway->ask.peer, name) : name, code_name(code),
                what, why);
    refusal.code = code;
    refusal.what = (char *)what;
    refusal.why = (char *)why;
    refusal.next = (char *)next;
    envelope.body_case = WL__ENVELOPE__BODY_REFUSAL;
    envelope.refusal = &refusal;
    gateway_answer(gateway, &envelope);
}

static int flush_send(void *user, const struct link_route *route, zmq_msg_t *message)
{
    struct gateway *gateway = user;

    return route->size ? link_send(gateway->with.control, route, message, NULL) : LINK_E_GONE;
}

/* An assignment goes back to the core. Anything else a studio asks for again; a worker is made to:
 * with its connection forgotten it says Hello anew, and its inventory is answered with all that it
 * missed, the stop of a cancelled task first of all. */
static void flush_unsent(void *user, const struct link_route *route,
                         const struct journal_assign *assign, int why)
{
    struct gateway *gateway = user;
    struct connection *connection = roster_find_route(&gateway->roster, route);

    gateway->counters.unsent++;
    log_limited(LOG_DEBUG, "unsent", "why=%d", why);
    /* A person's program reads what it asked for: what waits for one that does not is let go. */
    if (connection && why == LINK_E_AGAIN && connection->peer->row.role != ROLE_WORKER)
        link_guard_shut(gateway->with.guard, connection->seat);
    if (connection && (why == LINK_E_GONE || (!assign && connection->peer->current == connection)))
        roster_drop(&gateway->roster, connection);
    if (assign) {
        struct event event = {.kind = EVENT_UNSENT};

        event.unsent.worker = assign->worker;
        event.unsent.lease = assign->lease;
        gateway_step(gateway, &event);
        gateway_scratch_free(gateway);
    }
}

void gateway_flush(struct gateway *gateway)
{
    journal_flush(gateway->with.journal, flush_send, flush_unsent, gateway);
}

/* ---- the way in ---- */

enum {
    STUDIO = 1u << ROLE_STUDIO | 1u << ROLE_OPERATOR,
    OPERATOR = 1u << ROLE_OPERATOR,
    WORKER = 1u << ROLE_WORKER,
    ANY = STUDIO | WORKER,
};

static const struct entry {
    unsigned roles;
    void (*handle)(struct gateway *gateway);
} ENTRIES[] = {
    [WL__ENVELOPE__BODY_HELLO] = {ANY, gateway_on_hello},
    [WL__ENVELOPE__BODY_SUBMIT] = {STUDIO, gateway_on_submit},
    [WL__ENVELOPE__BODY_PASS_REQUEST] = {STUDIO, gateway_on_pass_request},
    [WL__ENVELOPE__BODY_JOBS_REQUEST] = {STUDIO, gateway_on_jobs},
    [WL__ENVELOPE__BODY_SHOW_REQUEST] = {STUDIO, gateway_on_show},
    [WL__ENVELOPE__BODY_RESULTS_REQUEST] = {STUDIO, gateway_on_results},
    [WL__ENVELOPE__BODY_ATTEMPTS_REQUEST] = {STUDIO, gateway_on_attempts},
    [WL__ENVELOPE__BODY_UPLOADING] = {STUDIO, gateway_on_uploading},
    [WL__ENVELOPE__BODY_VERB] = {STUDIO, gateway_on_verb},
    [WL__ENVELOPE__BODY_EDIT] = {STUDIO, gateway_on_edit},
    [WL__ENVELOPE__BODY_WATCH] = {STUDIO, gateway_on_watch},
    [WL__ENVELOPE__BODY_WORKERS_REQUEST] = {OPERATOR, gateway_on_workers},
    [WL__ENVELOPE__BODY_TEND] = {OPERATOR, gateway_on_tend},
    [WL__ENVELOPE__BODY_DELIVERED] = {STUDIO, gateway_on_delivered},
    [WL__ENVELOPE__BODY_LIVE_LOG_REQUEST] = {STUDIO, gateway_on_live_log},
    [WL__ENVELOPE__BODY_FARM_REQUEST] = {STUDIO, gateway_on_farm},
    [WL__ENVELOPE__BODY_INVENTORY] = {WORKER, gateway_on_inventory},
    [WL__ENVELOPE__BODY_BEAT] = {WORKER, gateway_on_beat},
    [WL__ENVELOPE__BODY_STARTED] = {WORKER, gateway_on_started},
    [WL__ENVELOPE__BODY_PROGRESS] = {WORKER, gateway_on_progress},
    [WL__ENVELOPE__BODY_RESULT] = {WORKER, gateway_on_result},
    [WL__ENVELOPE__BODY_RELEASED] = {WORKER, gateway_on_released},
    [WL__ENVELOPE__BODY_DEPENDENCY_REQUEST] = {WORKER, gateway_on_dependencies},
    [WL__ENVELOPE__BODY_WORKER_PASS_REQUEST] = {WORKER, gateway_on_worker_pass},
};

static void dispatch(struct gateway *gateway)
{
    struct ask *ask = &gateway->ask;
    unsigned body = ask->envelope->body_case;
    unsigned role = ask->peer->row.role;
    const struct entry *entry = body < ARRAY_SIZE(ENTRIES) ? &ENTRIES[body] : NULL;
    char why[128];

    if (!entry || !entry->handle) {
        gateway_refuse(gateway, CODE_INVALID, "the message", "the broker takes no such message",
                       "update the older of the two programs");
    } else if (!(entry->roles & 1u << role)) {
        snprintf(why, sizeof why, "a key with the role %s may not send it", role_name(role));
        gateway_refuse(gateway, CODE_REFUSED, "the request", why,
                       entry->roles == OPERATOR ? "ask whoever runs the broker, or use an "
                                                  "operator's key (westlight-broker allow)"
                                                : "use a key with the right role "
                                                  "(westlight-broker allow)");
    } else if (!ask->connection->greeted && body != WL__ENVELOPE__BODY_HELLO) {
        /* The broker was started anew, or forgot a connection that was long unused. All that came
         * with this is in vain, too, and said once. */
        gateway->skip = true;
        gateway_refuse(gateway, CODE_STATE, "the connection", "the broker does not know it",
                       "say Hello first");
    } else {
        entry->handle(gateway);
    }
}

/* A key that is no longer in the registry, or no longer a worker's: its leases are void at once. */
static void expel(struct gateway *gateway, struct peer *peer)
{
    struct event event = {.kind = EVENT_EXPEL};

    if (!peer->joined)
        return;
    memcpy(event.expel.key.bytes, peer->key.bytes, sizeof event.expel.key.bytes);
    peer->joined = false;
    peer->session = 0;
    gateway_step(gateway, &event);
}

int gateway_known(struct gateway *gateway, const struct link_key *key, bool again,
                  struct peer **ret_peer)
{
    int r = roster_get(&gateway->roster, key, gateway->now_ns, again, ret_peer);

    if (r >= 0 && *ret_peer && (r > 0 || (*ret_peer)->row.role != ROLE_WORKER))
        expel(gateway, *ret_peer);
    return r;
}

int gateway_asker(struct gateway *gateway, const struct link_key *key, bool again)
{
    int r = gateway_known(gateway, key, again, &gateway->ask.peer);

    if (r < 0) {
        log_limited(LOG_ERROR, "registry", "error=\"%s\"", strerror(-r));
        gateway_refuse(gateway, CODE_INTERNAL, "this key", "the registry cannot be read",
                       "try again; whoever runs the broker finds the reason in its log");
    } else if (r > 0) {
        gateway_refuse(gateway, CODE_REFUSED, "this key", "the broker does not know it",
                       "ask whoever runs the broker to allow it (westlight-broker allow)");
    }
    return r;
}

static int admit(struct gateway *gateway, const struct link_key *key)
{
    struct ask *ask = &gateway->ask;
    bool hello = ask->envelope->body_case == WL__ENVELOPE__BODY_HELLO;
    int r = gateway_asker(gateway, key, hello);

    if (r != 0)
        return r;
    r = roster_connection(&gateway->roster, ask->peer, &ask->route, &ask->connection);
    if (r < 0)
        gateway_die("memory", r);
    ask->connection->seat = ask->seat;
    return 0;
}

/* `why`: nothing of it is read, and why. */
static void handle(struct gateway *gateway, const struct link_key *key,
                   const struct link_route *route, struct link_seat seat, const void *data,
                   size_t size, const char *why)
{
    int r = why ? WIRE_E_FORM : 0;

    gateway->ask = (struct ask){.route = *route, .seat = seat};
    gateway->cookie++;
    gateway->mark = journal_mark(gateway->with.journal);
    gateway->counters.messages++;
    if (r == 0)
        r = wire_unpack(data, size, &gateway->ask.envelope, &why);
    if (r != 0) {
        gateway_refuse(gateway, CODE_INVALID, "the message", r > 0 ? why : "it cannot be read",
                       "update the older of the two programs, or ask for less at once");
    } else {
        gateway->ask.request = gateway->ask.envelope->request;
        if (gateway->full)
            gateway_while_full(gateway, key);
        else if (admit(gateway, key) == 0)
            dispatch(gateway);
    }
    if (gateway->ask.envelope)
        wire_free(gateway->ask.envelope);
    gateway->ask = (struct ask){0};
    gateway_scratch_free(gateway);
}

enum { SAID = 32 }; /* at most CORE_EXPECT */

/* An envelope of a message, and what it says where it is of the kind that nearly all are. */
struct said {
    const void *data;
    size_t size;
    bool plain;
    struct wire_plain result;
};

static bool handle_plain(struct gateway *gateway, const struct link_key *key,
                         const struct link_route *route, const struct wire_plain *plain)
{
    bool handled;

    if (gateway->full)
        return false;
    gateway->cookie++;
    gateway->mark = journal_mark(gateway->with.journal);
    handled = gateway_plain_result(gateway, key, route, plain);
    gateway->counters.messages += handled;
    gateway->ask = (struct ask){0};
    gateway_scratch_free(gateway);
    return handled;
}

/* The next of them, at most `max`; what the core will look for in them it is told before. */
static size_t read_some(const struct gateway *gateway, struct wire_each *each, struct said *said,
                        size_t max, int *ret_r)
{
    struct lease_id leases[CORE_EXPECT];
    size_t n = 0, expected = 0;

    while (n < max && (*ret_r = wire_each_next(each, &said[n].data, &said[n].size)) == 0) {
        said[n].plain = wire_plain(said[n].data, said[n].size, &said[n].result);
        if (said[n].plain)
            leases[expected++] = gateway_lease_id(&said[n].result.lease);
        n++;
    }
    core_expect(gateway->with.core, leases, expected);
    return n;
}

void gateway_handle(struct gateway *gateway, const struct link_key *key,
                    const struct link_route *route, struct link_seat seat, zmq_msg_t *message)
{
    struct peer *peer = NULL;
    bool known = gateway_known(gateway, key, false, &peer) == 0;
    bool worker = known && peer->row.role == ROLE_WORKER, person = known && !worker;
    struct said said[SAID];
    struct wire_each each;
    int r = 0;

    gateway->skip = false;
    wire_each_init(&each, zmq_msg_data(message), zmq_msg_size(message));
    if (!each.bare && !worker) {
        if (!known && !gateway_hears(gateway, NULL)) {
            gateway_unheard(gateway, NULL, route, NULL, 0);
            return;
        }
        handle(gateway, key, route, seat, NULL, 0, "several in one, which only a worker may send");
        return;
    }
    do {
        size_t n = read_some(gateway, &each, said, ARRAY_SIZE(said), &r);

        if (worker && gateway_offends(gateway, peer)) {
            gateway->counters.dropped++;
            link_guard_shut(gateway->with.guard, seat);
            return;
        }
        for (size_t i = 0; i < n && !gateway->skip; i++)
            if (!person && !gateway_hears(gateway, peer))
                gateway_unheard(gateway, peer, route, said[i].data, said[i].size);
            else if (!said[i].plain || !handle_plain(gateway, key, route, &said[i].result))
                handle(gateway, key, route, seat, said[i].data, said[i].size, NULL);
    } while (r == 0 && !gateway->skip);
    if (gateway->skip && peer && !each.bare)
        gateway_offence(gateway, peer); /* a message of many costs as much as many */
    if (r != WIRE_E_END && r != 0)
        handle(gateway, key, route, seat, NULL, 0, "too many messages in one, or one is cut short");
}

bool gateway_receive(struct gateway *gateway, size_t max)
{
    uint64_t until = gateway->counters.messages + max;

    for (size_t i = 0; i < max && gateway->counters.messages < until; i++) {
        struct link_key key;
        struct link_route route;
        struct link_seat seat;
        zmq_msg_t message;
        int r;

        if (journal_full(gateway->with.journal) && !gateway->full) {
            gateway->unread = true;
            return false;
        }
        r = link_receive(gateway->with.control, &key, &route, &message, NULL);
        if (r == LINK_E_AGAIN) {
            link_guard_drained(gateway->with.guard);
            gateway->unread = gateway->full;
            return false;
        }
        if (r < 0 && r != -EINTR)
            gateway_die("the control endpoint", r);
        if (r != 0) {
            gateway->counters.dropped++;
            log_limited(LOG_INFO, "dropped", "why=%s",
                        r == LINK_E_FRAMES      ? "frames"
                        : r == LINK_E_ANONYMOUS ? "anonymous"
                                                : "?");
            continue;
        }
        crash_point("gateway.received");
        seat = link_guard_heard(gateway->with.guard, &message);
        if (gateway_waits(gateway, &key, &route, seat, &message))
            continue;
        gateway_handle(gateway, &key, &route, seat, &message);
        zmq_msg_close(&message);
    }
    return true;
}

void gateway_tick(struct gateway *gateway)
{
    struct event event = {.kind = EVENT_TICK};

    gateway->cookie++;
    if (core_deadline_ns(gateway->with.core) <= gateway->now_ns)
        gateway_step(gateway, &event);
    gateway_notices(gateway);
    gateway_scratch_free(gateway);
}

int64_t gateway_deadline_ns(const struct gateway *gateway)
{
    int64_t core_ns = core_deadline_ns(gateway->with.core);
    int64_t watch_ns = watch_deadline_ns(&gateway->watch);

    if (!list_empty(&gateway->turns) && !journal_full(gateway->with.journal))
        return 0;
    return core_ns < watch_ns ? core_ns : watch_ns;
}
