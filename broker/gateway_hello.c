/* gateway_hello.c - the first message of every connection, and what the broker says to it.
 *
 * A studio is welcomed here. A worker is welcomed when the core says so: it knows whether another
 * live process has the key. From then on the newest session's connection is the worker's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

static void say_welcome(struct gateway *gateway, const struct link_route *route, uint64_t request,
                        const struct peer *peer)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Welcome welcome = WL__WELCOME__INIT;

    welcome.protocol = WIRE_PROTOCOL;
    welcome.program = (char *)"westlight-broker " WESTLIGHT_VERSION;
    welcome.epoch = gateway->with.epoch;
    welcome.role = peer->row.role;
    welcome.studio = (char *)peer->row.studio_name;
    welcome.bulk = (char *)gateway->with.bulk;
    welcome.beat_ns = (uint64_t)gateway->with.beat_ns;
    envelope.request = request;
    envelope.body_case = WL__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &welcome;
    (void)gateway_say(gateway, route, &envelope, NULL);
}

static bool speaks(struct gateway *gateway, const Wl__Hello *hello)
{
    char why[LIMIT_NOTE_BYTES], program[64];

    if (hello->protocol >= WIRE_PROTOCOL_MIN && hello->protocol <= WIRE_PROTOCOL)
        return true;
    snprintf(program, sizeof program, "%s", hello->program[0] ? hello->program : "the program");
    snprintf(why, sizeof why, "%s speaks protocol %u, the broker (%s) speaks %u to %u", program,
             hello->protocol, WESTLIGHT_VERSION, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL);
    gateway_refuse(gateway, CODE_PROTOCOL, "the protocol", why,
                   hello->protocol > WIRE_PROTOCOL ? "update the broker, or use an older program"
                                                   : "update the program");
    return false;
}

/* ---- a worker's ---- */

static const struct amount *offer_amounts(struct gateway *gateway, const Wl__Offer *offer)
{
    struct amount *amounts = gateway_scratch(gateway, (offer->n_amounts + 1) * sizeof *amounts);

    for (size_t i = 0; i < offer->n_amounts; i++)
        amounts[i] = (struct amount){offer->amounts[i]->name, offer->amounts[i]->min};
    return amounts;
}

static const struct attribute *offer_attributes(struct gateway *gateway, const Wl__Offer *offer)
{
    struct attribute *attributes =
        gateway_scratch(gateway, (offer->n_attributes + 1) * sizeof *attributes);

    for (size_t i = 0; i < offer->n_attributes; i++)
        attributes[i] =
            (struct attribute){.name = offer->attributes[i]->name,
                               .any_of = (const char *const *)offer->attributes[i]->any_of,
                               .n_any_of = offer->attributes[i]->n_any_of};
    return attributes;
}

static const struct gpu_offer *offer_gpus(struct gateway *gateway, const Wl__Offer *offer)
{
    struct gpu_offer *gpus = gateway_scratch(gateway, (offer->n_gpus + 1) * sizeof *gpus);

    /* A card's place in the list is its bit in a lease's mask. */
    for (size_t i = 0; i < offer->n_gpus; i++)
        gpus[i].memory_mib = offer->gpus[i]->memory_bytes >> 20;
    return gpus;
}

static bool offer_valid(struct gateway *gateway, const Wl__Hello *hello)
{
    const char *why = NULL;

    if (hello->boot.len != 16)
        why = "it names no boot";
    else if (!hello->offer || hello->offer->slots == 0)
        why = "it offers no slots";
    for (size_t i = 0; !why && i < hello->offer->n_amounts; i++)
        if (!hello->offer->amounts[i]->name[0] || !(hello->offer->amounts[i]->min >= 0))
            why = "it offers an amount without a name, or below 0";
    for (size_t i = 0; !why && i < hello->offer->n_attributes; i++)
        if (strcmp(hello->offer->attributes[i]->name, ATTRIBUTE_POOL) == 0)
            why = "it offers attr.worker.pool: a worker's pool is the operator's to say "
                  "(westlight workers pool)";
    for (size_t i = 0; !why && i < hello->offer->n_gpus; i++)
        if (hello->offer->gpus[i]->index != i)
            why = "its cards are not numbered from 0";
    if (why)
        gateway_refuse(gateway, CODE_INVALID, "the worker's hello", why,
                       "correct what it offers, or update westlight-worker");
    return !why;
}

/* Whether the process that has the key now is still there: a connection is known to be lost only
 * when something is sent over it. */
static bool rival_stands(struct gateway *gateway, const Wl__Hello *hello)
{
    const struct peer *peer = gateway->ask.peer;
    const struct connection *present = peer->joined ? peer->current : NULL;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat beat = WL__BEAT__INIT;
    zmq_msg_t message;

    if (!present || present == gateway->ask.connection || !peer->hello ||
        memcmp(peer->hello->hello->boot.data, hello->boot.data, hello->boot.len) == 0)
        return false;
    beat.session = peer->session;
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    if (wire_pack(&envelope, &message) < 0)
        gateway_die("memory", -ENOMEM);
    int r = link_send(gateway->with.control, &present->route, &message, NULL);

    if (r != 0)
        zmq_msg_close(&message);
    return r != LINK_E_GONE;
}

/* Once: from then on the pool is what operators say. The records borrow the text. */
static void give_pool(struct gateway *gateway)
{
    const struct peer *peer = gateway->ask.peer;
    struct event event = {.kind = EVENT_TEND};
    char pool[LIMIT_NAME_BYTES + 1];
    struct worker_key key;
    struct block_id id;
    char *text;

    memcpy(key.bytes, peer->key.bytes, sizeof key.bytes);
    if (store_pool_given(gateway->with.registry, &key, pool) != 0)
        return;
    text = strdup(pool);
    if (!text || journal_keep(gateway->with.journal, text, free) < 0)
        gateway_die("memory", -ENOMEM);
    digest(key.bytes, sizeof key.bytes, &id);
    event.tend.tend = TEND_POOL;
    event.tend.workers = &key;
    event.tend.n_workers = 1;
    event.tend.text = text;
    memcpy(event.tend.request.bytes, id.bytes, sizeof event.tend.request.bytes);
    memcpy(event.tend.digest.bytes, id.bytes, sizeof event.tend.digest.bytes);
    gateway_step(gateway, &event);
}

static void worker_hello(struct gateway *gateway, const Wl__Hello *hello)
{
    struct ask *ask = &gateway->ask;
    struct peer *peer = ask->peer;
    struct offer offer;
    struct event event = {.kind = EVENT_HELLO};

    if (hello->boot.len == 0 && !hello->offer) {
        gateway_refuse(gateway, CODE_REFUSED, "this key", "it is registered as a worker's",
                       "use a person's, registered with --role studio or operator");
        return;
    }
    if (!offer_valid(gateway, hello))
        return;
    offer = (struct offer){.slots = hello->offer->slots,
                           .prefetch = hello->offer->prefetch,
                           .amounts = offer_amounts(gateway, hello->offer),
                           .n_amounts = hello->offer->n_amounts,
                           .attributes = offer_attributes(gateway, hello->offer),
                           .n_attributes = hello->offer->n_attributes,
                           .gpus = offer_gpus(gateway, hello->offer),
                           .n_gpus = hello->offer->n_gpus};
    give_pool(gateway);
    memcpy(event.hello.key.bytes, peer->key.bytes, sizeof event.hello.key.bytes);
    memcpy(event.hello.boot, hello->boot.data, sizeof event.hello.boot);
    event.hello.session = hello->session;
    event.hello.rival = rival_stands(gateway, hello);
    event.hello.offer = &offer;
    gateway_step(gateway, &event);
}

static void refuse_worker(struct gateway *gateway, enum code code)
{
    switch (code) {
    case CODE_CONFLICT:
        gateway_refuse(gateway, code, "this worker's key", "another live worker uses it",
                       "end the other one, or make this one a key of its own (westlight key new)");
        return;
    case CODE_STALE:
        gateway_refuse(gateway, code, "this connection", "a newer one of this worker is there",
                       "connect anew");
        return;
    case CODE_BUSY:
        gateway_refuse(gateway, code, "this worker", "the broker has as many as it can",
                       "tell whoever runs the broker");
        return;
    default:
        gateway_refuse(gateway, code, "the worker's offer", "it contradicts itself",
                       "look at what the worker's log says it has");
        return;
    }
}

void gateway_welcome(struct gateway *gateway, const struct effect *effect)
{
    struct ask *ask = &gateway->ask;
    struct peer *peer = ask->peer;
    char name[64];

    if (!peer || effect->cookie != gateway->cookie)
        return;
    if (effect->code != CODE_OK) {
        refuse_worker(gateway, effect->code);
        return;
    }

    if (roster_join(&gateway->roster, peer, effect->worker) < 0)
        gateway_die("memory", -ENOMEM);
    peer->current = ask->connection;
    peer->session = ask->envelope->hello->session;
    if (peer->hello)
        wire_free(peer->hello);
    peer->hello = TAKE_PTR(ask->envelope);
    ask->connection->greeted = true;
    log_info("worker", "name=\"%s\" id=%u session=%llu", roster_name(peer, name),
             effect->worker.value + 1, (unsigned long long)peer->session);
    say_welcome(gateway, &ask->route, ask->request, peer);
}

void gateway_on_hello(struct gateway *gateway)
{
    struct ask *ask = &gateway->ask;
    const Wl__Hello *hello = ask->envelope->hello;

    if (!speaks(gateway, hello))
        return;
    gateway_studio(gateway, &ask->peer->row);
    if (ask->peer->row.role == ROLE_WORKER) {
        worker_hello(gateway, hello);
        return;
    }
    ask->connection->greeted = true;
    say_welcome(gateway, &ask->route, ask->request, ask->peer);
}
