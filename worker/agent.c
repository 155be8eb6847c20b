/* agent.c - see agent.h.
 *
 * A link is IDLE (until retry_ns), CONNECTING, GREETING (hello said) or JOINED. Any trouble makes
 * it IDLE with a longer wait; a new link starts from nothing, because what there is to say is read
 * from the tasks and never from a queue. Only messages that do not come from a task (hello,
 * inventory, beat) wait in `outbox` while libzmq has no room.
 */
#include <worker/agent.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/base/volume.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <worker/leases.h>
#include <worker/room.h>
#include <worker/warden.h>

#define BULK_PORT        "7421"
#define WAIT_FIRST_NS    (100 * NS_PER_MS)
#define WAIT_LONGEST_NS  (5 * NS_PER_S)
#define WAIT_REFUSED_NS  (5 * NS_PER_S) /* somebody must do something first */
#define REFUSALS_FEW     2 /* a broker that goes down in a handshake looks as if it refused it */
#define GREETING_NS      (10 * NS_PER_S)
#define CONNECTING_NS    (30 * NS_PER_S)
#define SILENCE_BEATS    6 /* one that writes to a slow disk is late, and not gone */
#define SILENCE_LEAST_NS (5 * NS_PER_S)
#define HELLO_REQUEST    UINT64_MAX
#define LOOK_NS          NS_PER_S /* at the disk */
#define RECEIVE_BATCH    512
#define READY_MAX        16 /* slots for which a thread and a folder are kept while nothing runs */

enum agent_link { AGENT_IDLE, AGENT_CONNECTING, AGENT_GREETING, AGENT_JOINED };

struct agent {
    const struct agent_config *config;
    struct task_board board;
    struct leases *leases;
    struct cache *cache;
    void *context;
    void *socket, *monitor;
    enum agent_link link;
    struct agent_session session; /* the link's */
    uint8_t boot[16];
    int64_t retry_ns, wait_ns; /* IDLE: until when, and how long the wait was */
    unsigned refusals;         /* handshakes that failed since the last Welcome */
    int64_t deadline_ns;       /* CONNECTING, GREETING: until when */
    int64_t beat_ns, beat_due_ns, heard_ns, report_ns;
    int64_t told_ns;    /* when the scheduler last heard of a task, which serves as a beat */
    int64_t silence_ns; /* beats are answered: after that long the broker is gone */
    int64_t looked_ns;  /* at the disk */
    bool said_no_room;  /* with the last beat of this link */
    bool tells;         /* in this turn */
    struct wire_inbox inbox;
    struct wire_packet packet; /* what is said in this turn, until it is sent at its end */
    zmq_msg_t *outbox;         /* packets for which there was no room */
    size_t n_outbox;
};

/* ---- sending ---- */

static void outbox_drop(struct agent *agent)
{
    for (size_t i = 0; i < agent->n_outbox; i++)
        zmq_msg_close(&agent->outbox[i]);
    agent->n_outbox = 0;
    wire_packet_clear(&agent->packet);
}

static int outbox_flush(struct agent *agent)
{
    size_t sent = 0;
    int r = 0;

    while (sent < agent->n_outbox &&
           (r = link_send(agent->socket, NULL, &agent->outbox[sent], NULL)) == 0)
        sent++;
    if (sent > 0) {
        memmove(agent->outbox, agent->outbox + sent,
                (agent->n_outbox - sent) * sizeof(*agent->outbox));
        agent->n_outbox -= sent;
    }
    return r;
}

/* What was said in this turn, as one message: now, or as soon as there is room. */
static int packet_send(struct agent *agent)
{
    zmq_msg_t *outbox, message;
    int r;

    if (agent->packet.n == 0)
        return 0;
    r = wire_packet_message(&agent->packet, &message);
    if (r == 0)
        r = agent->n_outbox > 0 ? LINK_E_AGAIN : link_send(agent->socket, NULL, &message, NULL);
    if (r != LINK_E_AGAIN) {
        if (r != 0)
            zmq_msg_close(&message);
        return r;
    }
    outbox = reallocarray(agent->outbox, agent->n_outbox + 1, sizeof(*outbox));
    if (!outbox) {
        zmq_msg_close(&message);
        return -ENOMEM;
    }
    agent->outbox = outbox;
    agent->outbox[agent->n_outbox++] = message;
    return 0;
}

/* In order, whatever room there is. */
static int send_soon(void *user, Wl__Envelope *envelope)
{
    struct agent *agent = user;
    int r = wire_packet_add(&agent->packet, envelope);

    if (r == -EMSGSIZE && agent->packet.n > 0) {
        r = packet_send(agent);
        if (r == 0)
            r = wire_packet_add(&agent->packet, envelope);
    }
    if (r != 0)
        log_error("pack", "body=%d why=\"%s\"", (int)envelope->body_case,
                  strerror(r < 0 ? -r : EPROTO));
    return r;
}

/* A leases_send: with this turn's packet, or not in this turn. */
static int send_now(void *user, Wl__Envelope *envelope)
{
    struct agent *agent = user;

    return agent->n_outbox > 0 ? LINK_E_AGAIN : send_soon(agent, envelope);
}

/* The same, of a task. What is asked for its sake is no sign of life, nor is a result before it is
 * taken: the scheduler hears none of it. */
static int report(void *user, Wl__Envelope *envelope)
{
    struct agent *agent = user;
    int r = send_now(agent, envelope);

    agent->tells |=
        r == 0 && envelope->request == 0 && envelope->body_case != WL__ENVELOPE__BODY_RESULT;
    return r;
}

/* ---- the link's life ---- */

static void hang_up(struct agent *agent, int64_t now_ns, int64_t wait_ns, const char *why)
{
    if (agent->link == AGENT_JOINED)
        log_warn("offline", "broker=%s why=\"%s\" leases=%zu", agent->config->broker, why,
                 leases_count(agent->leases));
    if (wait_ns == 0) {
        wait_ns = agent->wait_ns * 2;
        if (wait_ns < WAIT_FIRST_NS)
            wait_ns = WAIT_FIRST_NS;
        if (wait_ns > WAIT_LONGEST_NS)
            wait_ns = WAIT_LONGEST_NS;
    }
    agent->wait_ns = wait_ns;
    /* A farm that lost its broker must not come back all at once. */
    agent->retry_ns =
        now_ns + wait_ns / 2 + (int64_t)((uint64_t)rand() % (uint64_t)(wait_ns / 2 + 1));
    agent->link = AGENT_IDLE;
    leases_offline(agent->leases);
    outbox_drop(agent);
    wire_inbox_deinit(&agent->inbox);
    if (agent->monitor)
        link_close(agent->monitor);
    link_close(agent->socket);
    agent->monitor = agent->socket = NULL;
}

static void dial(struct agent *agent, int64_t now_ns)
{
    int r = link_connect(agent->context, LINK_CONTROL, agent->config->broker,
                         &agent->config->server, agent->config->keys, &agent->socket);

    if (r == 0)
        r = link_monitor(agent->context, agent->socket, &agent->monitor);
    if (r != 0) {
        log_limited(LOG_ERROR, "connect", "broker=%s why=\"%s\"", agent->config->broker,
                    strerror(r < 0 ? -r : EPROTO));
        hang_up(agent, now_ns, 0, "no socket");
        return;
    }
    agent->link = AGENT_CONNECTING;
    agent->deadline_ns = now_ns + CONNECTING_NS;
}

static void greet(struct agent *agent, int64_t now_ns)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Hello hello = WL__HELLO__INIT;
    char program[] = "westlight-worker " WESTLIGHT_VERSION;
    int r = agent_session_next(&agent->session, agent->config->state);

    hello.protocol = WIRE_PROTOCOL;
    hello.program = program;
    hello.session = agent->session.number;
    hello.boot = (ProtobufCBinaryData){.len = sizeof(agent->boot), .data = agent->boot};
    hello.offer = agent->config->offer;
    envelope.request = HELLO_REQUEST;
    envelope.body_case = WL__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    if (r == 0)
        r = send_soon(agent, &envelope);
    if (r != 0) {
        log_error("hello", "why=\"%s\"", strerror(r < 0 ? -r : EPROTO));
        hang_up(agent, now_ns, 0, "hello");
        return;
    }
    agent->link = AGENT_GREETING;
    agent->deadline_ns = now_ns + GREETING_NS;
    agent->heard_ns = now_ns;
}

static void read_monitor(struct agent *agent, int64_t now_ns)
{
    enum link_status status;
    char key[IDENTITY_Z85_SIZE];

    while (agent->monitor && link_monitor_read(agent->monitor, &status) == 1) {
        if (status == LINK_UP && agent->link == AGENT_CONNECTING) {
            greet(agent, now_ns);
        } else if (status ==
                   LINK_UP) { /* it went and came between two looks: it knows us no more */
            hang_up(agent, now_ns, WAIT_FIRST_NS, "the connection was lost");
        } else if (status == LINK_REFUSED && agent->refusals++ < REFUSALS_FEW) {
            hang_up(agent, now_ns, 0, "the handshake failed");
        } else if (status == LINK_REFUSED) {
            identity_key_text(&agent->config->keys->public_key, key);
            log_error(
                "refused",
                "broker=%s why=\"the broker did not accept this key\" "
                "next=\"if the broker is up, ask the operator to run westlight-broker allow "
                "--state DIR --role worker %s'%s', and whether --server-key is the broker's\"",
                agent->config->broker, key[0] == '-' ? "-- " : "", key);
            hang_up(agent, now_ns, WAIT_REFUSED_NS, "refused");
        } else if (status == LINK_DOWN && agent->link != AGENT_CONNECTING) {
            hang_up(agent, now_ns, agent->link == AGENT_JOINED ? WAIT_FIRST_NS : 0,
                    "the connection was lost");
        }
    }
}

/* ---- what comes in ---- */

/* Where the broker does not say, or says only "any address", its control address is meant. */
static void set_bulk(struct agent *agent, const char *said)
{
    const char *broker = agent->config->broker;
    const char *host = strstr(broker, "://"), *port, *said_host = strstr(said, "://"), *said_port;
    char bulk[256];

    host = host ? host + 3 : broker;
    port = strrchr(host, ':');
    said_host = said_host ? said_host + 3 : said;
    said_port = strrchr(said_host, ':');
    if (agent->config->bulk)
        snprintf(bulk, sizeof(bulk), "%s", agent->config->bulk);
    else if (!*said)
        snprintf(bulk, sizeof(bulk), "%.*s:" BULK_PORT,
                 port ? (int)(port - broker) : (int)strlen(broker), broker);
    else if (strncmp(said_host, "*:", 2) == 0 || strncmp(said_host, "0.0.0.0:", 8) == 0 ||
             strncmp(said_host, "[::]:", 5) == 0)
        snprintf(bulk, sizeof(bulk), "%.*s%s", port ? (int)(port - broker) : (int)strlen(broker),
                 broker, said_port);
    else
        snprintf(bulk, sizeof(bulk), "%s", said);
    pthread_mutex_lock(&agent->board.lock);
    snprintf(agent->board.bulk, sizeof(agent->board.bulk), "%s", bulk);
    pthread_cond_broadcast(&agent->board.changed);
    pthread_mutex_unlock(&agent->board.lock);
}

/* Since when one of the two has been silent. */
static int64_t talked_ns(const struct agent *agent)
{
    return agent->told_ns < agent->heard_ns ? agent->told_ns : agent->heard_ns;
}

static void beat(struct agent *agent, int64_t now_ns)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat message = WL__BEAT__INIT;

    if (now_ns - agent->heard_ns > agent->silence_ns) {
        hang_up(agent, now_ns, WAIT_FIRST_NS, "the broker is silent");
        return;
    }
    if (now_ns < agent->beat_due_ns)
        return;
    if (atomic_load(&agent->board.no_room) == agent->said_no_room &&
        talked_ns(agent) + agent->beat_ns > now_ns) {
        agent->beat_due_ns = talked_ns(agent) + agent->beat_ns;
        return;
    }
    agent->beat_due_ns = now_ns + agent->beat_ns;
    message.session = agent->session.number;
    message.no_room = atomic_load(&agent->board.no_room);
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &message;
    if (send_now(agent, &envelope) == 0) /* no room: then there is traffic enough */
        agent->said_no_room = message.no_room;
}

static void take_welcome(struct agent *agent, const Wl__Welcome *welcome, int64_t now_ns)
{
    int r;

    if (agent->link != AGENT_GREETING)
        return;
    set_bulk(agent, welcome->bulk);
    agent->beat_ns = welcome->beat_ns ? (int64_t)welcome->beat_ns : LIMIT_BEAT_NS;
    if (agent->beat_ns < 50 * NS_PER_MS)
        agent->beat_ns = 50 * NS_PER_MS;
    if (agent->beat_ns > 60 * NS_PER_S)
        agent->beat_ns = 60 * NS_PER_S;
    agent->beat_due_ns = now_ns + (atomic_load(&agent->board.no_room) ? 0 : agent->beat_ns);
    agent->silence_ns = SILENCE_BEATS * agent->beat_ns;
    if (agent->silence_ns < SILENCE_LEAST_NS)
        agent->silence_ns = SILENCE_LEAST_NS;
    agent->said_no_room = false;
    agent->told_ns = 0;
    agent->wait_ns = 0;
    agent->refusals = 0;
    agent->link = AGENT_JOINED;
    log_info("joined", "broker=%s program=\"%s\" epoch=%u session=%llu leases=%zu",
             agent->config->broker, welcome->program, welcome->epoch,
             (unsigned long long)agent->session.number, leases_count(agent->leases));
    crash_point("agent.welcomed");
    beat(agent, now_ns); /* that there is no room, before the list that asks for more */
    r = leases_inventory(agent->leases, agent->session.number, send_soon, agent);
    crash_point("agent.listed");
    if (r != 0)
        hang_up(agent, now_ns, 0, "the inventory could not be sent");
}

static void take_refusal(struct agent *agent, const Wl__Refusal *refusal, int64_t now_ns)
{
    log_error("refused", "code=\"%s\" what=\"%s\" why=\"%s\" next=\"%s\"", code_name(refusal->code),
              refusal->what, refusal->why, refusal->next);
    if (agent->link == AGENT_GREETING)
        hang_up(agent, now_ns, WAIT_REFUSED_NS, refusal->why);
    else if (agent->link == AGENT_JOINED && refusal->code == CODE_STATE)
        hang_up(agent, now_ns, WAIT_FIRST_NS, "the broker does not know this connection");
}

static void take(struct agent *agent, Wl__Envelope *taken, int64_t now_ns)
{
    _cleanup_(wire_freep) Wl__Envelope *envelope = taken;

    agent->heard_ns = now_ns;
    if (envelope->body_case == WL__ENVELOPE__BODY_COMMITTED && envelope->committed->code == CODE_OK)
        agent->told_ns = now_ns;
    if (leases_take(agent->leases, &envelope)) {
        if (leases_missed(agent->leases))
            hang_up(agent, now_ns, WAIT_FIRST_NS, "a lease could not be taken");
        return;
    }
    switch (envelope->body_case) {
    case WL__ENVELOPE__BODY_WELCOME:
        take_welcome(agent, envelope->welcome, now_ns);
        break;
    case WL__ENVELOPE__BODY_REFUSAL:
        take_refusal(agent, envelope->refusal, now_ns);
        break;
    case WL__ENVELOPE__BODY_BEAT:
        break;
    default:
        log_limited(LOG_WARN, "unexpected", "body=%d", (int)envelope->body_case);
    }
}

static bool receive(struct agent *agent, int64_t now_ns)
{
    for (int i = 0; i < RECEIVE_BATCH && agent->socket; i++) {
        Wl__Envelope *envelope;
        const char *why;
        int r = wire_next(&agent->inbox, agent->socket, NULL, NULL, &envelope, &why);

        if (r == LINK_E_AGAIN)
            return false;
        if (r == 0) {
            take(agent, envelope, now_ns);
        } else if (r < 0) {
            /* Perhaps for want of memory, and perhaps it was a lease: the next list says that it is
             * not here. */
            if (r == -EPROTO)
                log_limited(LOG_WARN, "malformed", "why=\"%s\"", why);
            hang_up(agent, now_ns, 0, r == -EPROTO ? "a message could not be read" : strerror(-r));
        }
    }
    return agent->socket != NULL;
}

/* ---- the loop ---- */

/* The broker hears of it at once, and before it hears of what was handed back for it. */
static void look_at_disk(struct agent *agent, int64_t now_ns)
{
    if (now_ns - agent->looked_ns >= LOOK_NS) {
        agent->looked_ns = now_ns;
        (void)room_short(&agent->board);
    }
    if (atomic_load(&agent->board.no_room) != agent->said_no_room)
        agent->beat_due_ns = now_ns;
}

static void tend(struct agent *agent, int64_t now_ns)
{
    int r;

    agent->report_ns = INT64_MAX;
    if (agent->link == AGENT_IDLE && now_ns >= agent->retry_ns)
        dial(agent, now_ns);
    if ((agent->link == AGENT_CONNECTING || agent->link == AGENT_GREETING) &&
        now_ns >= agent->deadline_ns) {
        log_limited(LOG_WARN, "unreachable", "broker=%s why=\"%s\"", agent->config->broker,
                    agent->link == AGENT_CONNECTING ? "no connection" : "no answer to hello");
        hang_up(agent, now_ns, 0, "no answer");
    }
    look_at_disk(agent, now_ns);
    if (agent->link == AGENT_JOINED)
        beat(agent, now_ns);
    if (agent->socket && agent->n_outbox > 0)
        (void)outbox_flush(agent);
    /* Offline too: tasks start and end all the same. */
    r = leases_report(agent->leases, agent->session.number, now_ns, report, agent,
                      &agent->report_ns);
    if (r == LINK_E_AGAIN) {
        agent->report_ns = now_ns + 20 * NS_PER_MS;
        r = 0;
    }
    if (r == 0 && agent->socket)
        r = packet_send(agent);
    if (agent->tells)
        agent->told_ns = now_ns;
    agent->tells = false;
    if (r != 0 && agent->socket)
        hang_up(agent, now_ns, 0, "a message could not be sent");
}

static long timeout_ms(const struct agent *agent, int64_t now_ns)
{
    int64_t at_ns = agent->report_ns;

    if (agent->link == AGENT_IDLE && agent->retry_ns < at_ns)
        at_ns = agent->retry_ns;
    if ((agent->link == AGENT_CONNECTING || agent->link == AGENT_GREETING) &&
        agent->deadline_ns < at_ns)
        at_ns = agent->deadline_ns;
    if (agent->link == AGENT_JOINED && agent->beat_due_ns < at_ns)
        at_ns = agent->beat_due_ns;
    if (agent->looked_ns + LOOK_NS < at_ns)
        at_ns = agent->looked_ns + LOOK_NS;
    if (agent->n_outbox > 0 && now_ns + 20 * NS_PER_MS < at_ns)
        at_ns = now_ns + 20 * NS_PER_MS;
    if (at_ns == INT64_MAX)
        return -1;
    return at_ns <= now_ns ? 0 : (long)((at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* One that cannot say is asked by reading it. */
static bool readable(void *socket)
{
    int events = socket ? link_events(socket) : 0;

    return events < 0 || (events & ZMQ_POLLIN);
}

/* False: told to stop. Not by zmq_poll(), which asks both sockets twice and waits twice, and most
 * turns are a task's poke. A socket's descriptor tells only what came since the socket was asked;
 * once joined, the monitor has been read to its end and nothing else asks it. */
static bool wait_turn(struct agent *agent, bool busy, bool *ret_heard, bool *ret_changed)
{
    bool heard = busy || readable(agent->socket),
         changed = agent->link != AGENT_JOINED && readable(agent->monitor);
    struct pollfd polls[4] = {
        {.fd = agent->config->stop_fd, .events = POLLIN},
        {.fd = agent->board.wake_fd, .events = POLLIN},
        {.fd = agent->socket ? link_fd(agent->socket) : -1, .events = POLLIN},
        {.fd = agent->monitor ? link_fd(agent->monitor) : -1, .events = POLLIN},
    };
    uint64_t pokes;

    *ret_heard = *ret_changed = true;
    if (poll(polls, ARRAY_SIZE(polls),
             heard || changed ? 0 : (int)timeout_ms(agent, clock_monotonic_ns())) < 0)
        return errno == EINTR;
    if (polls[1].revents && read(agent->board.wake_fd, &pokes, sizeof(pokes)) < 0 &&
        errno != EAGAIN)
        return false;
    *ret_heard = heard || polls[2].revents;
    *ret_changed = changed || polls[3].revents;
    return !(polls[0].revents & POLLIN);
}

static int run(struct agent *agent)
{
    bool busy = false, heard, changed;

    while (wait_turn(agent, busy, &heard, &changed)) {
        int64_t now_ns = clock_monotonic_ns();

        busy = agent->socket && heard ? receive(agent, now_ns) : false;
        if (changed)
            read_monitor(agent, now_ns);
        tend(agent, now_ns);
    }
    log_info("stopping", "leases=%zu", leases_count(agent->leases));
    return 0;
}

static int board_init(struct agent *agent)
{
    const struct agent_config *config = agent->config;
    char path[LIMIT_PATH_BYTES];
    int r;

    agent->board = (struct task_board){
        .state = config->state,
        .probe = config->probe,
        .inspector = config->inspector,
        .server = config->server,
        .keys = config->keys,
        .ready = config->offer->slots < READY_MAX ? config->offer->slots : READY_MAX,
        .spool_next = 1,
        .session_next = 1};
    agent->board.reserve_bytes =
        config->reserve_bytes ? config->reserve_bytes : volume_reserve_bytes(config->state);
    r = reuse_new(&agent->board.sessions);
    if (r == 0)
        r = reuse_new(&agent->board.spools);
    pthread_mutex_init(&agent->board.lock, NULL);
    pthread_cond_init(&agent->board.changed, NULL);
    agent->board.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r < 0 || agent->board.wake_fd < 0)
        return r < 0 ? r : -errno;
    if ((size_t)snprintf(path, sizeof(path), "%s/sessions", config->state) >= sizeof(path) - 64)
        return -ENAMETOOLONG;
    r = folder_remove(path); /* what a killed worker left */
    if (r < 0 && r != -ENOENT)
        log_warn("sessions", "path=%s why=\"%s\" next=\"remove what is left there\"", path,
                 strerror(-r));
    r = folder_make(path, 0700);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "%s/cache", config->state);
    r = cache_new(path, config->cache_bytes, &agent->cache);
    if (r < 0)
        return r;
    agent->board.cache = agent->cache;
    task_board_folders(&agent->board);
    log_info("cache", "blocks=%zu bytes=%llu", cache_blocks(agent->cache),
             (unsigned long long)cache_bytes(agent->cache));
    return link_context_new(2, &agent->board.bulk_context);
}

static void agent_deinit(struct agent *agent)
{
    if (agent->leases)
        leases_stop(agent->leases);
    outbox_drop(agent);
    wire_inbox_deinit(&agent->inbox);
    if (agent->monitor)
        link_close(agent->monitor);
    link_close(agent->socket);
    leases_free(agent->leases);
    link_context_free(agent->board.bulk_context);
    link_context_free(agent->context);
    task_board_deinit(&agent->board);
    cache_free(agent->cache);
    if (agent->board.wake_fd >= 0)
        close(agent->board.wake_fd);
    pthread_cond_destroy(&agent->board.changed);
    pthread_mutex_destroy(&agent->board.lock);
    free(agent->outbox);
    wire_packet_deinit(&agent->packet);
}

int agent_run(const struct agent_config *config)
{
    struct agent agent = {.config = config};
    int r;

    (void)warden_prepare(config->offer->slots); /* else when they are needed */
    r = board_init(&agent);
    if (r == 0)
        r = link_context_new(1, &agent.context);
    if (r == 0)
        r = random_bytes(agent.boot, sizeof(agent.boot));
    if (r == 0)
        r = leases_new(&agent.board, &agent.leases);
    if (r == 0)
        r = run(&agent);
    agent_deinit(&agent);
    return r;
}
