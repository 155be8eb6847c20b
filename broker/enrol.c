/* enrol.c - see enrol.h.
 *
 * A refusal is sent a fixed time after its question, whatever was wrong: so it is told apart
 * neither by its words nor by how long it took.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/token.h>
#include <proto/wire.h>
#include <broker/enrol.h>
#include <broker/store/tokens.h>

enum { REFUSALS = LIMIT_ENROL_PEERS, RECEIVE_MAX = 64, BIND_RETRY_MS = 10 };

struct refusal {
    struct link_route route;
    int64_t due_ns;
};

struct enrol {
    struct enrol_config config;
    struct store_gate *gate;
    void *context, *socket;
    struct link_zap *zap;
    atomic_uint admitted; /* by the ZAP thread, since the socket was made */
    int64_t made_ns;
    struct refusal refusals[REFUSALS]; /* a ring: the time that each waits is the same */
    size_t first, n;
    char endpoint[128];
    pthread_t thread;
    bool runs;
    atomic_bool stopping;
    int wake_fd;
};

/* Anybody, but so many. */
static int on_allow(void *user, const struct link_key *key _unused_)
{
    struct enrol *enrol = user;

    if (atomic_load(&enrol->admitted) >= LIMIT_ENROL_PEERS)
        return -EUSERS;
    atomic_fetch_add(&enrol->admitted, 1);
    return 0;
}

/* ---- answers ---- */

static void answer(struct enrol *enrol, const struct link_route *route,
                   const Wl__Enrolled *enrolled)
{
    zmq_msg_t message;

    if (zmq_msg_init_size(&message, wl__enrolled__get_packed_size(enrolled)) < 0)
        return;
    wl__enrolled__pack(enrolled, zmq_msg_data(&message));
    if (link_send(enrol->socket, route, &message, NULL) != 0)
        zmq_msg_close(&message); /* it asks again */
}

static void say_code(struct enrol *enrol, const struct link_route *route, enum code code)
{
    Wl__Enrolled enrolled = WL__ENROLLED__INIT;

    enrolled.code = code;
    answer(enrol, route, &enrolled);
}

static void say_row(struct enrol *enrol, const struct link_route *route,
                    const struct newcomer_row *row)
{
    Wl__Enrolled enrolled = WL__ENROLLED__INIT;

    enrolled.role = row->key.role;
    enrolled.studio = (char *)row->key.studio_name;
    enrolled.name = (char *)row->key.name;
    enrolled.pending = row->pending;
    enrolled.control = (char *)enrol->config.control;
    enrolled.server_key =
        (ProtobufCBinaryData){LINK_KEY_BYTES, (uint8_t *)enrol->config.server_key->bytes};
    answer(enrol, route, &enrolled);
}

static void refuse(struct enrol *enrol, const struct link_route *route)
{
    if (enrol->n == REFUSALS)
        return;
    enrol->refusals[(enrol->first + enrol->n++) % REFUSALS] =
        (struct refusal){*route, clock_monotonic_ns() + LIMIT_ENROL_REFUSE_NS};
}

static void send_due(struct enrol *enrol)
{
    int64_t now_ns = clock_monotonic_ns();

    while (enrol->n > 0 && enrol->refusals[enrol->first].due_ns <= now_ns) {
        say_code(enrol, &enrol->refusals[enrol->first].route, CODE_REFUSED);
        enrol->first = (enrol->first + 1) % REFUSALS;
        enrol->n--;
    }
}

/* ---- questions ---- */

static void redeem(struct enrol *enrol, const struct link_key *key, const struct link_route *route,
                   const Wl__Enrol *wanted)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    struct newcomer_row row;
    struct worker_key name;
    char fingerprint[FINGERPRINT_SIZE];
    int r;

    token_digest(wanted->secret.data, digest);
    memcpy(name.bytes, key->bytes, sizeof name.bytes);
    r = store_redeem(enrol->gate, digest, &name, wanted->name, clock_wall_ns() / NS_PER_S, &row);
    key_fingerprint(key, fingerprint);
    if (r == 0) {
        log_limited(LOG_INFO, "enrolled", "key=%s role=%s pending=%d", fingerprint,
                    role_name(row.key.role), row.pending);
        say_row(enrol, route, &row);
        crash_point("enrol.answered");
    } else if (r == STORE_E_NONE) {
        log_limited(LOG_WARN, "enrol_refused", "key=%s", fingerprint);
        refuse(enrol, route);
    } else {
        log_limited(LOG_ERROR, "enrol", "why=\"%s\"", store_gate_why(enrol->gate));
        say_code(enrol, route, CODE_BUSY);
    }
}

static void receive_some(struct enrol *enrol)
{
    for (int i = 0; i < RECEIVE_MAX; i++) {
        struct link_key key;
        struct link_route route;
        zmq_msg_t message;
        ProtobufCMessage *wanted;
        const char *why;
        int r = link_receive(enrol->socket, &key, &route, &message, NULL);

        if (r == LINK_E_AGAIN || r < 0)
            return;
        if (r > 0)
            continue;
        r = wire_message_unpack(&wl__enrol__descriptor, zmq_msg_data(&message),
                                zmq_msg_size(&message), &wanted, &why);
        zmq_msg_close(&message);
        if (r == 0)
            redeem(enrol, &key, &route, (const Wl__Enrol *)wanted);
        else
            refuse(enrol, &route);
        if (r == 0)
            protobuf_c_message_free_unpacked(wanted, NULL);
    }
}

/* ---- the thread ---- */

static int bind_socket(struct enrol *enrol, const char *endpoint)
{
    atomic_store(&enrol->admitted, 0);
    enrol->made_ns = clock_monotonic_ns();
    return link_listen(enrol->context, LINK_ENROL, endpoint, enrol->config.keys, &enrol->socket,
                       enrol->endpoint);
}

/* libzmq puts out no single peer. The old socket lets go of its port by and by. */
static void put_all_out(struct enrol *enrol)
{
    char endpoint[sizeof enrol->endpoint];
    int r = -EADDRINUSE;

    memcpy(endpoint, enrol->endpoint, sizeof endpoint);
    enrol->n = 0;
    link_close(TAKE_PTR(enrol->socket));
    while (r == -EADDRINUSE && !atomic_load(&enrol->stopping)) {
        struct timespec pause = {.tv_nsec = BIND_RETRY_MS * NS_PER_MS};

        nanosleep(&pause, NULL);
        r = bind_socket(enrol, endpoint);
    }
    log_limited(r == 0 ? LOG_INFO : LOG_ERROR, "enrol_renewed", "error=%d", -r);
}

static bool is_full(const struct enrol *enrol)
{
    return atomic_load(&enrol->admitted) >= LIMIT_ENROL_PEERS &&
           clock_monotonic_ns() - enrol->made_ns >= NS_PER_S;
}

static void *enrol_main(void *user)
{
    struct enrol *enrol = user;

    pthread_setname_np(pthread_self(), "enrol");
    while (!atomic_load(&enrol->stopping) && enrol->socket) {
        zmq_pollitem_t items[] = {
            {.socket = enrol->socket, .events = ZMQ_POLLIN},
            {.fd = enrol->wake_fd, .events = ZMQ_POLLIN},
        };

        (void)zmq_poll(items, 2, enrol->n > 0 ? 10 : 1000);
        receive_some(enrol);
        send_due(enrol);
        if (is_full(enrol))
            put_all_out(enrol);
    }
    return NULL;
}

/* ---- life ---- */

DEFINE_CLEANUP(struct enrol *, enrol_stop)

int enrol_start(const struct enrol_config *config, struct enrol **ret_enrol)
{
    _cleanup_(enrol_stopp) struct enrol *enrol = calloc(1, sizeof *enrol);

    if (!enrol)
        return -ENOMEM;
    enrol->config = *config;
    enrol->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (enrol->wake_fd < 0)
        return -errno;
    int r = store_gate_new(config->state, &enrol->gate);
    if (r == 0)
        r = link_context_new(1, &enrol->context);
    if (r == 0)
        r = link_zap_new(enrol->context, on_allow, enrol, &enrol->zap);
    if (r == 0)
        r = bind_socket(enrol, config->endpoint);
    if (r == 0)
        r = -pthread_create(&enrol->thread, NULL, enrol_main, enrol);
    if (r)
        return r;
    enrol->runs = true;
    *ret_enrol = TAKE_PTR(enrol);
    return 0;
}

void enrol_stop(struct enrol *enrol)
{
    if (!enrol)
        return;
    atomic_store(&enrol->stopping, true);
    if (enrol->runs) {
        CHECK(eventfd_write(enrol->wake_fd, 1) == 0);
        pthread_join(enrol->thread, NULL);
    }
    link_close(enrol->socket);
    link_zap_free(enrol->zap);
    link_context_free(enrol->context);
    store_gate_free(enrol->gate);
    closep(&enrol->wake_fd);
    free(enrol);
}

const char *enrol_endpoint(const struct enrol *enrol)
{
    return enrol->endpoint;
}
