/* link.c - CURVE sockets.
 *
 * The idea: a socket is made in one place from two tables, one for every socket and one for its
 * side and kind; nobody else names a raw option. A routing id is only a token for answering; who
 * speaks is read from the message itself.
 *
 * Source: libzmq 4.3.4 zmq_setsockopt(3); ZeroMQ RFC 26, 27.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <proto/base/check.h>
#include <proto/limits.h>
#include <proto/link_inner.h>

#define ZAP_DOMAIN "westlight" /* as in link_zap.c */

/* libzmq 4.3.4 has it in every build, but its header shows it to draft builds only. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

/* The limit is applied to frames as they are on the wire, where CURVE adds "\7MESSAGE", a nonce of
 * 8, a flag and an authenticator of 16 to every frame (RFC 26). */
#define CURVE_BYTES 33

/* ---- context ---- */

/* libzmq opens a file or two for each peer; the default of 1024 would end at 500 peers. */
static void raise_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int link_context_new(int io_threads, void **ret_context)
{
    void *context;
    unsigned seed;
    int r;

    raise_files();
    context = zmq_ctx_new();
    if (!context)
        return -errno;

    /* After the context, before its first socket: libzmq draws routing ids from rand(). */
    r = random_bytes(&seed, sizeof(seed));
    if (r < 0) {
        zmq_ctx_term(context);
        return r;
    }
    srand(seed);
    if (zmq_ctx_set(context, ZMQ_IO_THREADS, io_threads) < 0 ||
        zmq_ctx_set(context, ZMQ_MAX_SOCKETS, zmq_ctx_get(context, ZMQ_SOCKET_LIMIT)) < 0) {
        r = -errno;
        zmq_ctx_term(context);
        return r;
    }
    *ret_context = context;
    return 0;
}

void link_context_free(void *context)
{
    if (!context)
        return;
    while (zmq_ctx_term(context) < 0 && errno == EINTR)
        ;
}

/* ---- sockets ---- */

struct option {
    int name, value;
};

static const struct option options_all[] = {
    {ZMQ_LINGER, 1000},        /* a farewell may still leave; a dead peer holds nobody up */
    {ZMQ_HANDSHAKE_IVL, 5000}, /* who connects and says nothing is put out */
    {ZMQ_RECONNECT_IVL, 100},
    {ZMQ_RECONNECT_IVL_MAX, 5000}, /* ten thousand workers do not hammer a broker that is away */
    {ZMQ_CONNECT_TIMEOUT, 10000},
    {ZMQ_TCP_KEEPALIVE, 1},
    {ZMQ_TCP_KEEPALIVE_IDLE, 10},
    {ZMQ_TCP_KEEPALIVE_INTVL, 5},
    {ZMQ_TCP_KEEPALIVE_CNT, 3},
    {ZMQ_TCP_MAXRT, 30000}, /* bytes nobody acknowledges for this long: the link is dead */
};

/* No heartbeats of libzmq's on either: 4.3.4 may abort over one on a broken connection, and takes a
 * peer that is not read for silent. The kernel's keepalive finds the dead, our own beats who hangs.
 *
 * A control message is small, but a burst of them is normal: a worker's slots, a list's pages. */
static const struct option options_control[] = {
    {ZMQ_SNDHWM, 512},
    {ZMQ_RCVHWM, 512},
};

/* A queue of 64 blocks is 64 MiB for one peer; the window of transfer.h keeps it at half of that.
 */
static const struct option options_bulk[] = {
    {ZMQ_SNDHWM, 64},
    {ZMQ_RCVHWM, 64},
};

/* One question, one answer. */
static const struct option options_enrol[] = {
    {ZMQ_SNDHWM, 4},
    {ZMQ_RCVHWM, 4},
};

/* What goes for a kind of socket, on both sides; the limit is of a frame. */
static const struct {
    const struct option *options;
    size_t n;
    int64_t frame_bytes;
} kinds[] = {
    [LINK_CONTROL] = {options_control, ARRAY_SIZE(options_control), LIMIT_CONTROL_BYTES},
    [LINK_BULK] = {options_bulk, ARRAY_SIZE(options_bulk), LIMIT_BULK_BYTES},
    [LINK_ENROL] = {options_enrol, ARRAY_SIZE(options_enrol), LIMIT_ENROL_BYTES},
};

/* A server has many peers, and what it has not read of them counts in no budget of its own: it
 * keeps as little as keeps the pipe moving. */
static const struct option options_control_server[] = {
    {ZMQ_RCVHWM, LINK_QUEUE_CONTROL},
    {ZMQ_SNDHWM, 128},
};
static const struct option options_bulk_server[] = {
    {ZMQ_RCVHWM, LINK_QUEUE_BULK},
    {ZMQ_SNDHWM, 64},
};

/* ENFORCE_DOMAIN: without it a ZAP handler that is missing lets everyone in. */
static const struct option options_server[] = {
    {ZMQ_CURVE_SERVER, 1},
    {ZMQ_ZAP_ENFORCE_DOMAIN, 1},
    {ZMQ_ROUTER_MANDATORY, 1},
    {ZMQ_BACKLOG, 4096},
};

/* IMMEDIATE: nothing is queued to a link that is not up. */
static const struct option options_client[] = {
    {ZMQ_IMMEDIATE, 1},
};

static int set_options(void *socket, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (zmq_setsockopt(socket, options[i].name, &options[i].value, sizeof(int)) < 0)
            return -errno;
    return 0;
}

static int set_keys(void *socket, const struct link_keypair *keys)
{
    if (zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key.bytes, LINK_KEY_BYTES) < 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key.bytes, LINK_KEY_BYTES) < 0)
        return -errno;
    return 0;
}

/* What both sides share. IPv6 only where it is asked for: with it on, an IPv4 endpoint would be
 * reported back in its mapped form. */
static int set_common(void *socket, enum link_kind kind, const char *endpoint,
                      const struct link_keypair *keys)
{
    int64_t frame_bytes = kinds[kind].frame_bytes + CURVE_BYTES;
    const struct option ipv6 = {ZMQ_IPV6, strchr(endpoint, '[') != NULL};
    int r = set_options(socket, options_all, ARRAY_SIZE(options_all));

    if (r == 0)
        r = set_options(socket, kinds[kind].options, kinds[kind].n);
    if (r == 0)
        r = set_options(socket, &ipv6, 1);
    if (r == 0 && zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_bytes, sizeof(frame_bytes)) < 0)
        r = -errno;
    if (r == 0)
        r = set_keys(socket, keys);
    return r;
}

static int listen_on(void *socket, enum link_kind kind, const char *endpoint,
                     const struct link_keypair *keys, char *ret_endpoint)
{
    char bound[128];
    size_t size = sizeof(bound);
    int r = set_common(socket, kind, endpoint, keys);

    if (r == 0)
        r = set_options(socket, options_server, ARRAY_SIZE(options_server));
    if (r == 0 && kind != LINK_ENROL)
        r = set_options(socket, kind == LINK_CONTROL ? options_control_server : options_bulk_server,
                        2);
    if (r < 0)
        return r;
    if (zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN)) < 0 ||
        zmq_bind(socket, endpoint) < 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &size) < 0)
        return -errno;

    if (ret_endpoint)
        memcpy(ret_endpoint, bound, size);
    return 0;
}

/* The guard comes first: it hears of the first connection, too. */
int link_listen_guarded(void *context, enum link_kind kind, const char *endpoint,
                        const struct link_keypair *keys, struct link_guard **ret_guard,
                        void **ret_socket, char *ret_endpoint)
{
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    struct link_guard *guard = NULL;
    int r = 0;

    if (!socket)
        return -errno;
    if (ret_guard)
        r = link_guard_new(context, socket, kind, &guard);
    if (r == 0)
        r = listen_on(socket, kind, endpoint, keys, ret_endpoint);
    if (r == 0 && guard)
        r = link_guard_start(guard);
    if (r < 0) {
        link_guard_free(guard);
        zmq_close(socket);
        return r;
    }
    if (ret_guard)
        *ret_guard = guard;
    *ret_socket = socket;
    return 0;
}

int link_listen(void *context, enum link_kind kind, const char *endpoint,
                const struct link_keypair *keys, void **ret_socket, char *ret_endpoint)
{
    return link_listen_guarded(context, kind, endpoint, keys, NULL, ret_socket, ret_endpoint);
}

static int connect_to(void *socket, enum link_kind kind, const char *endpoint,
                      const struct link_key *server, const struct link_keypair *keys)
{
    int r = set_common(socket, kind, endpoint, keys);

    if (r == 0)
        r = set_options(socket, options_client, ARRAY_SIZE(options_client));
    if (r < 0)
        return r;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server->bytes, LINK_KEY_BYTES) < 0 ||
        zmq_connect(socket, endpoint) < 0)
        return -errno;
    return 0;
}

/* The monitor comes first: on a fast link the handshake is over before a caller could ask for one.
 */
int link_connect(void *context, enum link_kind kind, const char *endpoint,
                 const struct link_key *server, const struct link_keypair *keys, void **ret_socket)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int r;

    if (!socket)
        return -errno;
    r = link_monitor_new(context, socket);
    if (r == 0)
        r = connect_to(socket, kind, endpoint, server, keys);
    if (r < 0) {
        link_close(socket);
        return r;
    }
    *ret_socket = socket;
    return 0;
}

int link_events(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);

    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) < 0 ? -errno : events;
}

int link_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);

    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) < 0 ? -errno : fd;
}

/* ---- messages ---- */

/* The next frame, whole and at once: libzmq hands out a message only when all of it is there. */
int link_receive_frame(void *socket, zmq_msg_t *ret_frame)
{
    int r;

    zmq_msg_init(ret_frame);
    do
        r = zmq_msg_recv(ret_frame, socket, ZMQ_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return 0;

    r = errno == EAGAIN ? LINK_E_AGAIN : -errno;
    zmq_msg_close(ret_frame);
    return r;
}

void link_drain(void *socket)
{
    bool more = true;

    while (more) {
        zmq_msg_t frame;

        if (link_receive_frame(socket, &frame) != 0)
            return;
        more = zmq_msg_more(&frame);
        zmq_msg_close(&frame);
    }
}

static int receive_route(void *socket, struct link_route *ret_route)
{
    zmq_msg_t frame;
    size_t size;
    int r = link_receive_frame(socket, &frame);

    if (r != 0)
        return r;
    size = zmq_msg_size(&frame);
    /* One that we did not make is longer, or comes alone. */
    if (!zmq_msg_more(&frame) || size > LINK_ROUTE_BYTES) {
        if (zmq_msg_more(&frame))
            link_drain(socket);
        r = LINK_E_FRAMES;
    } else {
        memcpy(ret_route->bytes, zmq_msg_data(&frame), size);
        ret_route->size = (uint8_t)size;
    }
    zmq_msg_close(&frame);
    return r;
}

static int message_key(zmq_msg_t *message, struct link_key *ret_key)
{
    const char *user = zmq_msg_gets(message, "User-Id");

    return user && hex_decode(user, ret_key->bytes, LINK_KEY_BYTES) == 0 ? 0 : LINK_E_ANONYMOUS;
}

static int receive_body(void *socket, zmq_msg_t *ret_header, zmq_msg_t *ret_data)
{
    bool more, allowed = ret_data;
    int r = link_receive_frame(socket, ret_header);

    if (r != 0)
        return r;
    more = zmq_msg_more(ret_header);
    if (more && allowed) {
        r = link_receive_frame(socket, ret_data);
        if (r != 0) {
            zmq_msg_close(ret_header);
            return r;
        }
        more = zmq_msg_more(ret_data);
    } else if (ret_data) {
        zmq_msg_init(ret_data);
    }
    if (!more)
        return 0;

    link_drain(socket);
    zmq_msg_close(ret_header);
    if (ret_data)
        zmq_msg_close(ret_data);
    return LINK_E_FRAMES;
}

int link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                 zmq_msg_t *ret_header, zmq_msg_t *ret_data)
{
    struct link_route route;
    struct link_key key;
    zmq_msg_t header, data;
    int r = ret_route ? receive_route(socket, &route) : 0;

    if (r == 0)
        r = receive_body(socket, &header, ret_data ? &data : NULL);
    if (r != 0)
        return r;
    if (ret_key && message_key(&header, &key) != 0) {
        zmq_msg_close(&header);
        if (ret_data)
            zmq_msg_close(&data);
        return LINK_E_ANONYMOUS;
    }

    if (ret_key)
        *ret_key = key;
    if (ret_route)
        *ret_route = route;
    zmq_msg_init(ret_header);
    zmq_msg_move(ret_header, &header);
    if (ret_data) {
        zmq_msg_init(ret_data);
        zmq_msg_move(ret_data, &data);
    }
    return 0;
}

static int send_failed(void)
{
    if (errno == EAGAIN)
        return LINK_E_AGAIN;
    return errno == EHOSTUNREACH ? LINK_E_GONE : -errno;
}

static int send_frame(void *socket, zmq_msg_t *frame, int flags)
{
    int r;

    do
        r = zmq_msg_send(frame, socket, ZMQ_DONTWAIT | flags);
    while (r < 0 && errno == EINTR);
    return r < 0 ? send_failed() : 0;
}

/* The first frame decides: it is refused where the peer is gone or full, and what follows it
 * cannot be. The header goes out as a copy (which shares its bytes), so that it is still the
 * caller's should the link break before the data. */
int link_send(void *socket, const struct link_route *route, zmq_msg_t *header, zmq_msg_t *data)
{
    zmq_msg_t copy;
    int r;

    if (route) {
        do
            r = zmq_send(socket, route->bytes, route->size, ZMQ_DONTWAIT | ZMQ_SNDMORE);
        while (r < 0 && errno == EINTR);
        if (r < 0)
            return send_failed();
    }
    if (!data)
        return send_frame(socket, header, 0);

    zmq_msg_init(&copy);
    if (zmq_msg_copy(&copy, header) < 0)
        r = -errno;
    else
        r = send_frame(socket, &copy, ZMQ_SNDMORE);
    if (r == 0)
        r = send_frame(socket, data, 0);
    zmq_msg_close(&copy);
    if (r == 0)
        zmq_msg_close(header);
    return r;
}
