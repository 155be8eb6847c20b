/* gateway_turns.c - people's requests wait for their turns, so that one who asks without a pause
 * has no more of the loop than anybody else, and a worker's result passes all of them.
 *
 * A pass of the loop reads whatever came, and answers a few requests, one of each key in turn. Who
 * has more waiting than a program asks for at once is put out, and with that kept from sending. So
 * is a worker of which nearly all is refused; of a message that has a thousand in it the rest is
 * not read.
 */
#include <errno.h>
#include <stdlib.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

enum {
    TURNS = 8,          /* a pass: what is asked for costs up to some tenths of a millisecond */
    WAITING_MAX = 1024, /* of one key */
    WAITING_BYTES = 8 << 20,
    OFFENCES_MAX =
        64, /* a second: of an honest worker that the broker has forgotten, some are refused */
};

struct waiting {
    struct list node;
    struct link_route route;
    struct link_seat seat;
    zmq_msg_t message;
};

static void flooded(struct gateway *gateway, const struct peer *peer, struct link_seat seat)
{
    char name[64];

    gateway->counters.dropped++;
    log_limited(LOG_WARN, "flooded", "peer=\"%s\"", roster_name(peer, name));
    link_guard_shut(gateway->with.guard, seat);
}

bool gateway_waits(struct gateway *gateway, const struct link_key *key,
                   const struct link_route *route, struct link_seat seat, zmq_msg_t *message)
{
    struct peer *peer = NULL;
    struct waiting *waiting;

    if (gateway_known(gateway, key, false, &peer) != 0 || peer->row.role == ROLE_WORKER)
        return false;
    if (!gateway_hears(gateway, peer)) {
        gateway_unheard(gateway, peer, route, zmq_msg_data(message), zmq_msg_size(message));
        zmq_msg_close(message);
        return true;
    }
    if (peer->n_waiting == WAITING_MAX || peer->waiting_bytes > WAITING_BYTES) {
        flooded(gateway, peer, seat);
        zmq_msg_close(message);
        return true;
    }
    waiting = calloc(1, sizeof *waiting);
    if (!waiting)
        gateway_die("memory", -ENOMEM);
    waiting->route = *route;
    waiting->seat = seat;
    zmq_msg_init(&waiting->message);
    zmq_msg_move(&waiting->message, message);
    zmq_msg_close(message);
    list_push(&peer->waiting, &waiting->node);
    if (peer->n_waiting++ == 0)
        list_push(&gateway->turns, &peer->turn);
    peer->waiting_bytes += zmq_msg_size(&waiting->message);
    return true;
}

/* The peer's next; it goes behind the others, or has none left. */
static struct waiting *waiting_take(struct gateway *gateway, struct peer *peer)
{
    struct waiting *waiting = list_entry(peer->waiting.next, struct waiting, node);

    list_unlink(&waiting->node);
    list_unlink(&peer->turn);
    peer->waiting_bytes -= zmq_msg_size(&waiting->message);
    if (--peer->n_waiting > 0)
        list_push(&gateway->turns, &peer->turn);
    return waiting;
}

static void waiting_free(struct waiting *waiting)
{
    zmq_msg_close(&waiting->message);
    free(waiting);
}

static struct peer *next_peer(struct gateway *gateway)
{
    return list_empty(&gateway->turns) ? NULL : list_entry(gateway->turns.next, struct peer, turn);
}

void gateway_turns(struct gateway *gateway)
{
    struct peer *peer;

    for (int i = 0; i < TURNS && (peer = next_peer(gateway)); i++) {
        struct waiting *waiting;

        if (journal_full(gateway->with.journal) && !gateway->full)
            return;
        waiting = waiting_take(gateway, peer);
        gateway_handle(gateway, &peer->key, &waiting->route, waiting->seat, &waiting->message);
        waiting_free(waiting);
    }
}

void gateway_turns_drop(struct gateway *gateway)
{
    for (struct peer *peer; (peer = next_peer(gateway));)
        waiting_free(waiting_take(gateway, peer));
}

void gateway_offence(struct gateway *gateway, struct peer *peer)
{
    if (gateway->now_ns - peer->offended_ns >= NS_PER_S) {
        peer->offended_ns = gateway->now_ns;
        peer->n_offences = 0;
    }
    peer->n_offences++;
}

bool gateway_offends(const struct gateway *gateway, const struct peer *peer)
{
    return peer->n_offences > OFFENCES_MAX && gateway->now_ns - peer->offended_ns < NS_PER_S;
}
