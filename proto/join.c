/* join.c - see join.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <proto/base/clock.h>
#include <proto/join.h>
#include <proto/limits.h>
#include <proto/state.h>
#include <proto/wire.h>

#define ASK_NS   (1 * NS_PER_S) /* between two questions */
#define RENEW_NS (300 * NS_PER_MS)
#define POLL_MS  100
#define REFUSALS 20 /* handshakes that somebody turned down: a full broker admits some a second */

struct attempt {
    const struct join *join;
    void *context, *socket, *monitor;
    enum link_status status;
    int64_t ask_ns, until_ns;
    unsigned refusals;
    bool waits;
};

static int open_link(struct attempt *attempt)
{
    const struct join *join = attempt->join;
    int r = link_connect(attempt->context, LINK_ENROL, join->enrol, &join->token->enrol_key,
                         join->keys, &attempt->socket);

    attempt->status = LINK_DOWN;
    attempt->ask_ns = 0;
    return r ? r : link_monitor(attempt->context, attempt->socket, &attempt->monitor);
}

static void close_link(struct attempt *attempt)
{
    link_close(attempt->monitor);
    link_close(attempt->socket);
    attempt->monitor = attempt->socket = NULL;
}

static int pack(const ProtobufCMessage *message, zmq_msg_t *ret_message)
{
    if (zmq_msg_init_size(ret_message, protobuf_c_message_get_packed_size(message)) < 0)
        return -errno;
    protobuf_c_message_pack(message, zmq_msg_data(ret_message));
    return 0;
}

static int ask(struct attempt *attempt, int64_t now_ns)
{
    Wl__Enrol enrol = WL__ENROL__INIT;
    zmq_msg_t message;
    int r;

    enrol.secret = (ProtobufCBinaryData){32, (uint8_t *)attempt->join->token->secret};
    enrol.name = (char *)attempt->join->name;
    r = pack(&enrol.base, &message);
    if (r < 0)
        return r;
    r = link_send(attempt->socket, NULL, &message, NULL);
    if (r != 0)
        zmq_msg_close(&message);
    attempt->ask_ns = now_ns + ASK_NS;
    return r < 0 ? r : 0;
}

/* LINK_E_AGAIN: to be asked again. */
static int on_answer(struct attempt *attempt, const Wl__Enrolled *answer, struct joined *ret_joined)
{
    const struct join *join = attempt->join;
    struct joined joined = {.role = answer->role};

    if (answer->code == CODE_BUSY)
        return LINK_E_AGAIN;
    if (answer->code != CODE_OK)
        return JOIN_E_REFUSED;
    if (answer->pending) {
        if (!attempt->waits && join->waits)
            join->waits(join->user);
        attempt->waits = true;
        return LINK_E_AGAIN;
    }
    if (answer->server_key.len != LINK_KEY_BYTES ||
        memcmp(answer->server_key.data, join->token->control_key.bytes, LINK_KEY_BYTES) != 0 ||
        endpoint_host(answer->control, join->enrol, joined.control) != 0)
        return JOIN_E_STRANGER;
    snprintf(joined.studio, sizeof joined.studio, "%s", answer->studio);
    snprintf(joined.name, sizeof joined.name, "%s", answer->name);
    *ret_joined = joined;
    return 0;
}

static int receive(struct attempt *attempt, struct joined *ret_joined)
{
    ProtobufCMessage *answer;
    zmq_msg_t message;
    const char *why;
    int r = link_receive(attempt->socket, NULL, NULL, &message, NULL);

    if (r != 0)
        return r == LINK_E_FRAMES ? LINK_E_AGAIN : r;
    r = wire_message_unpack(&wl__enrolled__descriptor, zmq_msg_data(&message),
                            zmq_msg_size(&message), &answer, &why);
    zmq_msg_close(&message);
    if (r != 0)
        return r < 0 ? r : JOIN_E_STRANGER;
    r = on_answer(attempt, (const Wl__Enrolled *)answer, ret_joined);
    protobuf_c_message_free_unpacked(answer, NULL);
    if (r == LINK_E_AGAIN) /* somebody is there */
        attempt->until_ns = clock_monotonic_ns() + attempt->join->patience_ns;
    return r;
}

static int look_at_link(struct attempt *attempt)
{
    struct timespec pause = {.tv_nsec = RENEW_NS};
    int r = link_monitor_read(attempt->monitor, &attempt->status);

    if (r > 0)
        attempt->ask_ns = 0;
    if (r < 0 || attempt->status != LINK_REFUSED)
        return r < 0 ? r : 0;
    if (!attempt->waits && ++attempt->refusals > REFUSALS)
        return JOIN_E_STRANGER;
    close_link(attempt);
    nanosleep(&pause, NULL);
    return open_link(attempt);
}

/* One turn; LINK_E_AGAIN: no answer yet. */
static int turn(struct attempt *attempt, struct joined *ret_joined)
{
    int64_t now_ns = clock_monotonic_ns();
    int r = look_at_link(attempt);

    if (r == 0 && attempt->status == LINK_UP && now_ns >= attempt->ask_ns)
        r = ask(attempt, now_ns);
    if (r == 0)
        r = receive(attempt, ret_joined);
    if (r == LINK_E_AGAIN) {
        zmq_pollitem_t items[] = {
            {.socket = attempt->socket, .events = ZMQ_POLLIN},
            {.socket = attempt->monitor, .events = ZMQ_POLLIN},
        };
        (void)zmq_poll(items, 2, POLL_MS);
    }
    return r;
}

int join_run(const struct join *join, struct joined *ret_joined)
{
    struct attempt attempt = {.join = join, .until_ns = clock_monotonic_ns() + join->patience_ns};
    int r = link_context_new(1, &attempt.context);

    if (r < 0)
        return r;
    r = open_link(&attempt);
    if (r == 0)
        do
            r = turn(&attempt, ret_joined);
        while (r == LINK_E_AGAIN && (attempt.waits || clock_monotonic_ns() < attempt.until_ns));
    if (r == LINK_E_AGAIN)
        r = JOIN_E_UNREACHABLE;
    close_link(&attempt);
    link_context_free(attempt.context);
    return r;
}

/* ---- words ---- */

static int read_line(char text[TOKEN_TEXT_BYTES])
{
    if (!fgets(text, TOKEN_TEXT_BYTES, stdin))
        return IDENTITY_E_FORM;
    text[strcspn(text, "\r\n")] = '\0';
    return 0;
}

int join_read(const char *place, const char *text, struct token *ret_token,
              char ret_enrol[TOKEN_ENDPOINT_BYTES], char *why, size_t why_size)
{
    char typed[TOKEN_TEXT_BYTES];
    int r = 0;

    if (strcmp(text, "-") == 0) {
        r = read_line(typed);
        text = typed;
    }
    if (r == 0)
        r = token_parse(text, ret_token);
    wipe(typed, sizeof typed);
    if (r != 0) {
        snprintf(why, why_size,
                 "that is no token: copy the whole of it, from wl1: on, as westlight-broker token "
                 "create printed it");
        return r;
    }
    r = endpoint_over(place, ret_token->enrol, ret_enrol);
    if (r != 0)
        snprintf(why, why_size,
                 "%s: write the farm's name or address ahead of the token, as farm.example",
                 place ? place : "the token does not say where the farm is");
    return r;
}

void join_why(const struct join *join, int r, char *why, size_t why_size)
{
    if (r == JOIN_E_REFUSED)
        snprintf(why, why_size,
                 "the farm does not take this token: it has ended, is used up or revoked, or your "
                 "key was: ask the operator for another");
    else if (r == JOIN_E_UNREACHABLE)
        snprintf(why, why_size,
                 "%s: nobody answers: check the address, and that the broker runs; then give the "
                 "same command again",
                 join->enrol);
    else if (r == JOIN_E_STRANGER)
        snprintf(why, why_size,
                 "%s: who answers is not the broker that made the token: check the address, or ask "
                 "the operator for another token",
                 join->enrol);
    else
        snprintf(why, why_size, "%s: %s", join->enrol, strerror(-r));
}
