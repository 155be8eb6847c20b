/* gateway_full.c - the disk is short, or full.
 *
 * While the disk is short (room.h), who brings something new is refused and all else goes on.
 *
 * While a batch waits in the store for space, what was done since is not durable, so that nothing
 * that depends on it may be told: whoever asks is told that the disk is full, past the journal,
 * which is the one thing that depends on nothing. Workers are told to stay; what they say
 * meanwhile is not heard, so their connections are forgotten: afterwards they say Hello again, and
 * their inventories tell what was missed. Their silence counts for nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

void gateway_say_at_once(struct gateway *gateway, const struct link_route *route,
                         const Wl__Envelope *envelope)
{
    zmq_msg_t message;

    if (wire_pack(envelope, &message) < 0)
        gateway_die("memory", -ENOMEM);
    if (link_send(gateway->with.control, route, &message, NULL) != 0)
        zmq_msg_close(&message);
}

static void refuse_at_once(struct gateway *gateway)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Refusal refusal = WL__REFUSAL__INIT;

    gateway->counters.refused++;
    refusal.code = CODE_FULL;
    refusal.what = (char *)"the request";
    refusal.why = (char *)ROOM_WHY;
    refusal.next = (char *)"try again once the operator has freed space; what runs goes on";
    envelope.request = gateway->ask.request;
    envelope.body_case = WL__ENVELOPE__BODY_REFUSAL;
    envelope.refusal = &refusal;
    gateway_say_at_once(gateway, &gateway->ask.route, &envelope);
}

void gateway_while_full(struct gateway *gateway, const struct link_key *key)
{
    unsigned body = gateway->ask.envelope->body_case;
    struct peer *peer = NULL;

    if (gateway_known(gateway, key, false, &peer) != 0 || !peer)
        return;
    if (peer->row.role != ROLE_WORKER) {
        refuse_at_once(gateway);
        return;
    }
    if (peer->current)
        roster_drop(&gateway->roster, peer->current);
    if (body == WL__ENVELOPE__BODY_HELLO || body == WL__ENVELOPE__BODY_BEAT)
        refuse_at_once(gateway);
}

/* One that is known already gets its answer again, whatever the disk is like. */
bool gateway_no_room(struct gateway *gateway, const Wl__Submit *submit)
{
    struct job_id job;

    memcpy(job.bytes, submit->job.data, sizeof job.bytes);
    if (!gateway->with.room || room_look(gateway->with.room, 0, NULL) == ROOM_ENOUGH ||
        gateway_seen(gateway, &job) || gateway_remembers(gateway, &submit->request_id))
        return false;
    gateway_refuse(gateway, CODE_FULL, "the submission", ROOM_WHY, ROOM_NEXT);
    return true;
}

const char *gateway_disk_note(struct gateway *gateway)
{
    char why[64];

    if (gateway->room == ROOM_ENOUGH)
        return "";
    char *note = gateway_scratch(gateway, LIMIT_MESSAGE_BYTES);

    snprintf(note, LIMIT_MESSAGE_BYTES, "%s: %s", room_why(gateway->free_bytes, why),
             gateway->room == ROOM_SHORT ? ROOM_NEXT ", and workers keep its results" : ROOM_NEXT);
    return note;
}

void gateway_disk(struct gateway *gateway, bool full)
{
    static const char *const names[] = {
        [ROOM_ENOUGH] = "enough", [ROOM_FINISH] = "reserve", [ROOM_SHORT] = "short"};
    enum room_level room =
        gateway->with.room ? room_look(gateway->with.room, 0, &gateway->free_bytes) : ROOM_ENOUGH;
    unsigned long long megabytes = gateway->free_bytes / 1000000;

    if (full && !gateway->full)
        log_error("disk",
                  "state=full free_mb=%llu next=\"free space: everything goes on by itself\"",
                  megabytes);
    else if (room != gateway->room && room != ROOM_ENOUGH)
        log_warn("disk", "state=%s free_mb=%llu why=\"%s\" next=\"free space\"", names[room],
                 megabytes,
                 room == ROOM_SHORT ? "no more results are taken: workers keep them"
                                    : "nothing new is taken, what runs goes on");
    else if (room != gateway->room || full != gateway->full)
        log_info("disk", "state=%s free_mb=%llu", names[room], megabytes);
    bool was_short = gateway->room == ROOM_SHORT;
    gateway->room = room;
    gateway->full = full;
    if (was_short != (room == ROOM_SHORT)) {
        struct event event = {.kind = EVENT_ROOM, .room.none = !was_short};

        gateway_step(gateway, &event);
        gateway_scratch_free(gateway);
    }
    if (full)
        gateway->unread = true;
}
