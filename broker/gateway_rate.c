/* gateway_rate.c - how many messages a second are heard of one key, and of all keys of a studio.
 *
 * The socket is read on whatever comes, since what lies in it unread is everybody's. So what is too
 * much is read, not unpacked, and forgotten. A person's key is told so, as often as it may speak,
 * past the journal, which then holds nothing for it. Little may be said at once, since that is what
 * others wait for.
 *
 * Whatever a worker has to say of a lease is paid for when it gets the lease, so that no limit
 * stands in the way of one that works, however fast; the rest are signs of life. A worker that says
 * more is forgotten: what it said counts for nothing, so it says Hello, and its inventory says the
 * rest.
 */
#include <proto/base/log.h>
#include <broker/gateway.h>

/* A person's key that is told to wait would be heard a hundred times by then. */
#define AGAIN_MS 100

/* A quarter of a second's at once. */
static bool take(const struct gateway *gateway, struct rate *rate, uint32_t times)
{
    uint32_t per_s = gateway->with.messages_per_s * times;

    return rate_take(rate, per_s, per_s / 4 + 1, gateway->now_ns);
}

static bool hears_person(struct gateway *gateway, struct peer *peer)
{
    if (!take(gateway, peer ? &peer->rate : &gateway->strangers, 1))
        return false;
    return !peer || peer->row.studio.value == 0 ||
           take(gateway, &gateway_tally(gateway, peer->row.studio)->rate, LIMIT_STUDIO_KEYS);
}

bool gateway_hears(struct gateway *gateway, struct peer *peer)
{
    if (peer && peer->row.role == ROLE_WORKER)
        return rate_take(&peer->rate, LIMIT_WORKER_MESSAGES_PER_S, LIMIT_WORKER_MESSAGES,
                         gateway->now_ns);
    return hears_person(gateway, peer);
}

void gateway_lease_paid(struct peer *peer)
{
    if (peer->rate.tokens < LIMIT_WORKER_MESSAGES)
        peer->rate.tokens += LIMIT_LEASE_MESSAGES;
}

static void tell(struct gateway *gateway, const struct link_route *route, uint64_t request)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Refusal refusal = WL__REFUSAL__INIT;

    refusal.code = CODE_BUSY;
    refusal.what = (char *)"the request";
    refusal.why = (char *)"this key, or its studio, asks more a second than the broker hears";
    refusal.next = (char *)"ask again in a moment";
    refusal.again_ms = AGAIN_MS;
    envelope.request = request;
    envelope.body_case = WL__ENVELOPE__BODY_REFUSAL;
    envelope.refusal = &refusal;
    gateway_say_at_once(gateway, route, &envelope);
}

void gateway_unheard(struct gateway *gateway, struct peer *peer, const struct link_route *route,
                     const void *data, size_t size)
{
    uint64_t request = wire_request(data, size);
    char name[64];

    gateway->counters.unheard++;
    log_limited(LOG_WARN, "unheard", "peer=\"%s\" why=\"it says too much\"",
                peer ? roster_name(peer, name) : "?");
    if (peer && peer->row.role == ROLE_WORKER) {
        if (peer->current)
            roster_drop(&gateway->roster, peer->current);
        return;
    }
    if (request && take(gateway, peer ? &peer->told : &gateway->strangers_told, 1))
        tell(gateway, route, request);
}
