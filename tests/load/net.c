/* net.c - see net.h. */
#include <tests/load/net.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/limits.h>

enum {
    ROUTE_BYTES = 7, /* 'L', the link, how often it was connected */
    QUEUE = 512,     /* messages of a link, as everywhere on control */
};

struct way {
    bool open;
    uint16_t times;
};

struct net {
    void *context, *socket;
    char endpoint[128];
    bool loopback;
    uint32_t n;
    struct way *ways;
};

static int option(void *socket, int name, int value)
{
    return zmq_setsockopt(socket, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int options_set(struct net *net, const struct link_key *server, int spread_ms)
{
    const struct {
        int name, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, QUEUE},
        {ZMQ_RCVHWM, QUEUE},
        {ZMQ_ROUTER_MANDATORY, 1},
        {ZMQ_HANDSHAKE_IVL, 30000}, /* of thousands that come at once the last wait long */
        {ZMQ_RECONNECT_IVL, spread_ms < 100 ? 100 : spread_ms},
        {ZMQ_RECONNECT_IVL_MAX, 0},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(options); i++)
        r = option(net->socket, options[i].name, options[i].value);
    if (r == 0 &&
        zmq_setsockopt(net->socket, ZMQ_CURVE_SERVERKEY, server->bytes, LINK_KEY_BYTES) < 0)
        r = -errno;
    return r;
}

int net_new(const char *endpoint, const struct link_key *server, uint32_t links_max, int io_threads,
            int spread_ms, struct net **ret_net)
{
    struct net *net = calloc(1, sizeof(*net));
    int r;

    if (!net)
        return -ENOMEM;
    snprintf(net->endpoint, sizeof(net->endpoint), "%s", endpoint);
    net->loopback = strncmp(endpoint, "tcp://127.", 10) == 0;
    net->n = links_max;
    net->ways = calloc(links_max, sizeof(*net->ways));
    r = net->ways ? link_context_new(io_threads, &net->context) : -ENOMEM;
    if (r == 0) {
        net->socket = zmq_socket(net->context, ZMQ_ROUTER);
        r = net->socket ? options_set(net, server, spread_ms) : -errno;
    }
    if (r < 0) {
        net_free(net);
        return r;
    }
    *ret_net = net;
    return 0;
}

void net_free(struct net *net)
{
    if (!net)
        return;
    link_close(net->socket);
    link_context_free(net->context);
    free(net->ways);
    free(net);
}

/* libzmq knows a connection by the text it was asked for; a source address makes it the link's own.
 */
static void name_of(const struct net *net, uint32_t link, char text[192])
{
    if (net->loopback)
        snprintf(text, 192, "tcp://127.%u.%u.%u:0;%s", 1 + link / 62500 % 250, 1 + link / 250 % 250,
                 1 + link % 250, net->endpoint + strlen("tcp://"));
    else
        snprintf(text, 192, "%s", net->endpoint);
}

static void route_of(const struct net *net, uint32_t link, uint8_t route[ROUTE_BYTES])
{
    route[0] = 'L';
    memcpy(route + 1, &link, sizeof(link));
    memcpy(route + 5, &net->ways[link].times, sizeof(uint16_t));
}

int net_open(struct net *net, uint32_t link, const struct link_keypair *keys)
{
    uint8_t route[ROUTE_BYTES];
    char name[192];

    net->ways[link].times++;
    route_of(net, link, route);
    name_of(net, link, name);
    if (zmq_setsockopt(net->socket, ZMQ_CURVE_PUBLICKEY, keys->public_key.bytes, LINK_KEY_BYTES) <
            0 ||
        zmq_setsockopt(net->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key.bytes, LINK_KEY_BYTES) <
            0 ||
        zmq_setsockopt(net->socket, ZMQ_CONNECT_ROUTING_ID, route, ROUTE_BYTES) < 0 ||
        zmq_connect(net->socket, name) < 0)
        return -errno;
    net->ways[link].open = true;
    return 0;
}

bool net_cut(struct net *net, uint32_t link)
{
    char name[192];

    if (!net->loopback || !net->ways[link].open)
        return false;
    name_of(net, link, name);
    net->ways[link].open = false;
    return zmq_disconnect(net->socket, name) == 0;
}

static int failed(void)
{
    return errno == EAGAIN ? LINK_E_AGAIN : errno == EHOSTUNREACH ? LINK_E_GONE : -errno;
}

int net_send(struct net *net, uint32_t link, zmq_msg_t *message)
{
    uint8_t route[ROUTE_BYTES];

    route_of(net, link, route);
    if (zmq_send(net->socket, route, ROUTE_BYTES, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 ||
        zmq_msg_send(message, net->socket, ZMQ_DONTWAIT) < 0)
        return failed();
    return 0;
}

/* The rest of a message with more frames than the protocol has. */
static void drain(struct net *net, zmq_msg_t *message)
{
    while (zmq_msg_more(message) && zmq_msg_recv(message, net->socket, ZMQ_DONTWAIT) >= 0)
        ;
}

int net_receive(struct net *net, uint32_t *ret_link, zmq_msg_t *ret_message)
{
    for (;;) {
        uint8_t route[ROUTE_BYTES];
        uint16_t times;
        uint32_t link;
        int n = zmq_recv(net->socket, route, ROUTE_BYTES, ZMQ_DONTWAIT);

        if (n < 0)
            return failed();
        zmq_msg_init(ret_message);
        if (zmq_msg_recv(ret_message, net->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(ret_message);
            return failed();
        }
        memcpy(&link, route + 1, sizeof(link));
        memcpy(&times, route + 5, sizeof(times));
        if (n == ROUTE_BYTES && link < net->n && net->ways[link].open &&
            net->ways[link].times == times && !zmq_msg_more(ret_message)) {
            *ret_link = link;
            return 0;
        }
        drain(net, ret_message);
        zmq_msg_close(ret_message);
    }
}

int net_wait(struct net *net, long ms)
{
    zmq_pollitem_t item = {.socket = net->socket, .events = ZMQ_POLLIN};
    int r = zmq_poll(&item, 1, ms);

    return r < 0 && errno != EINTR ? -errno : r > 0;
}
