/* link_monitor.c - a client's view of its connection: libzmq's events made into a status.
 *
 * Source: libzmq 4.3.4 zmq_socket_monitor(3).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/list.h>
#include <proto/link_inner.h>

#define CUT_AGAIN_NS (2500 * NS_PER_MS) /* well below ZMQ_HANDSHAKE_IVL */

/* libzmq's I/O thread writes events to the monitor's other end and would wait for ever for a
 * reader that has gone; so which socket a monitor belongs to is kept, and it is told first. */
struct monitor {
    struct list node;
    void *pair, *socket; /* socket: NULL once closed */
    bool given;          /* link_monitor was called: the pair is the caller's */
    enum link_status status;
    int64_t cut_ns; /* the last handshake that ended without a reason; 0: none */
};

static pthread_mutex_t monitors_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list monitors = {&monitors, &monitors};

/* The monitor read at `pair`, or the one of `socket`; the other is NULL. */
static struct monitor *monitor_find(const void *pair, const void *socket)
{
    list_for_each(node, &monitors) {
        struct monitor *monitor = list_entry(node, struct monitor, node);

        if ((pair && monitor->pair == pair) || (socket && monitor->socket == socket))
            return monitor;
    }
    return NULL;
}

/* Takes a socket that is about to be closed out of the list, whichever of the two it is. */
static void monitor_forget(void *socket)
{
    struct monitor *monitor;
    void *watched = NULL, *unused = NULL;

    pthread_mutex_lock(&monitors_lock);
    monitor = monitor_find(NULL, socket);
    if (monitor && !monitor->given) {
        unused = monitor->pair;
        list_unlink(&monitor->node);
        free(monitor);
    } else if (monitor) {
        monitor->socket = NULL;
    }
    monitor = monitor_find(socket, NULL);
    if (monitor) {
        watched = monitor->socket;
        list_unlink(&monitor->node);
        free(monitor);
    }
    pthread_mutex_unlock(&monitors_lock);
    if (watched || unused)
        zmq_socket_monitor(watched ? watched : socket, NULL, 0);
    if (unused)
        zmq_close(unused);
}

void link_close(void *socket)
{
    if (!socket)
        return;
    monitor_forget(socket);
    zmq_close(socket);
}

static int monitor_start(void *socket, void *pair)
{
    static atomic_uint number;
    const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_CLOSED;
    /* Unbounded, because the writer would wait: a few bytes for each reconnection. */
    const int none = 0;
    char endpoint[64];
    int r = 0;

    if (zmq_setsockopt(pair, ZMQ_RCVHWM, &none, sizeof(none)) < 0 ||
        zmq_setsockopt(pair, ZMQ_LINGER, &none, sizeof(none)) < 0)
        return -errno;
    snprintf(endpoint, sizeof(endpoint), "inproc://westlight-monitor-%u", atomic_fetch_add(&number, 1));
    if (zmq_socket_monitor(socket, endpoint, events) < 0)
        return -errno;
    if (zmq_connect(pair, endpoint) < 0) {
        r = -errno;
        zmq_socket_monitor(socket, NULL, 0);
    }
    return r;
}

int link_monitor_new(void *context, void *socket)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    int r;

    if (!monitor)
        return -ENOMEM;
    monitor->socket = socket;
    monitor->pair = zmq_socket(context, ZMQ_PAIR);
    r = monitor->pair ? monitor_start(socket, monitor->pair) : -errno;
    if (r < 0) {
        if (monitor->pair)
            zmq_close(monitor->pair);
        free(monitor);
        return r;
    }
    pthread_mutex_lock(&monitors_lock);
    list_push(&monitors, &monitor->node);
    pthread_mutex_unlock(&monitors_lock);
    return 0;
}

int link_monitor(void *context _unused_, void *socket, void **ret_monitor)
{
    int r = -EINVAL; /* not a client's, or asked for twice */

    pthread_mutex_lock(&monitors_lock);
    struct monitor *monitor = monitor_find(NULL, socket);
    if (monitor && !monitor->given) {
        monitor->given = true;
        *ret_monitor = monitor->pair;
        r = 0;
    }
    pthread_mutex_unlock(&monitors_lock);
    return r;
}

/* A handshake that ends without a reason may be a stalled link, or a server that goes down; one that
 * does so again at once is a refusal (another server's key). */
static bool cut_again(struct monitor *monitor)
{
    int64_t now_ns = clock_monotonic_ns(), before_ns = monitor->cut_ns;

    monitor->cut_ns = now_ns;
    return before_ns && now_ns - before_ns < CUT_AGAIN_NS;
}

/* A refusal is followed by a disconnection, which is no news; it stands until a handshake succeeds
 * or nobody answers any more (CLOSED comes of a connection that was never made). */
static enum link_status status_after(struct monitor *monitor, enum link_status status, unsigned event)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return LINK_UP;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return cut_again(monitor) ? LINK_REFUSED : status;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return LINK_REFUSED;
    case ZMQ_EVENT_CLOSED:
        return LINK_DOWN;
    default:
        return status == LINK_UP ? LINK_DOWN : status;
    }
}

int link_monitor_read(void *monitor_socket, enum link_status *ret_status)
{
    struct monitor *monitor;
    zmq_msg_t frame;
    int r, changed = 0;

    pthread_mutex_lock(&monitors_lock);
    monitor = monitor_find(monitor_socket, NULL);
    pthread_mutex_unlock(&monitors_lock);
    CHECK(monitor);

    /* Frame 1: u16 event, u32 value; frame 2: the endpoint. */
    while ((r = link_receive_frame(monitor_socket, &frame)) == 0) {
        enum link_status status = monitor->status;
        uint16_t event;

        if (zmq_msg_more(&frame) && zmq_msg_size(&frame) >= sizeof(event)) {
            memcpy(&event, zmq_msg_data(&frame), sizeof(event));
            status = status_after(monitor, status, event);
            link_drain(monitor_socket);
        }
        zmq_msg_close(&frame);
        changed |= status != monitor->status;
        monitor->status = status;
    }
    if (r < 0)
        return r;
    *ret_status = monitor->status;
    return changed;
}
