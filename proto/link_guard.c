/* link_guard.c - see link_guard.h.
 *
 * The idea: two counters a descriptor, written by one thread each and read by the other: messages
 * that came whole, and lives (odd: a connection has it). All else is the guard's own. libzmq tells
 * of a connection's end before it closes the descriptor, so a table that has read all events is
 * late at most.
 *
 * Source: libzmq 4.3.4 zmq_socket_monitor(3), zmq_msg_get(3); Linux tcp(7).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/list.h>
#include <proto/base/log.h>
#include <proto/limits.h>
#include <proto/link_inner.h>

#define FILES_MAX    (1u << 18) /* twice the workers a farm may have; what is above goes unguarded */
#define FILES_KEPT   256        /* for the store, the vault, and commands on the state */
#define DEFER_S      5          /* as ZMQ_HANDSHAKE_IVL */
#define NEWCOMERS_NS (20 * NS_PER_MS)
#define SCAN_NS      (5 * NS_PER_S)
#define GROWTH_BYTES (16 << 20) /* of the process, after which it is looked whose it is */

struct shared {
    atomic_uint heard; /* the reader's: whole messages; begun anew with each life by the guard */
    atomic_uint life;  /* the guard's */
};

struct connection {
    struct list newcomer; /* the oldest first; unlinked once it was heard */
    unsigned heard;       /* at the last scan */
    uint64_t base, last;  /* bytes that had come: when it was last heard; at the last scan */
};

struct counter {
    atomic_ullong refused, crowded, unfinished, shut;
};

struct link_guard {
    pthread_t thread;
    void *socket, *monitor;
    enum link_kind kind;
    int stop_fd, memory_fd;
    bool runs;
    size_t n_files;
    uint64_t message_bytes; /* in one message, twice */
    uint64_t queue_bytes;   /* in all that a connection may have waiting */
    struct shared *shared;
    struct connection *connections; /* both by descriptor */
    struct list newcomers;
    size_t n_newcomers;
    int top; /* the highest descriptor that a connection has had */
    atomic_uint drained;
    unsigned drained_seen;
    int64_t newcomers_ns, scanned_ns, told_ns;
    uint64_t scanned_bytes; /* the process's, at the last scan */
    struct counter counts;
    struct link_guard_counts told;
};

static bool alive(unsigned life)
{
    return life % 2 == 1;
}

/* What was not sent goes with it: for a peer that does not read, it would stay in the kernel, and
 * the peer would not hear of the end. */
static void shut(struct link_guard *guard, int fd, atomic_ullong *why)
{
    const struct linger none = {.l_onoff = 1};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    if (shutdown(fd, SHUT_RDWR) == 0)
        atomic_fetch_add(why, 1);
}

/* ---- newcomers ---- */

static void newcomer_leave(struct link_guard *guard, struct connection *connection)
{
    if (list_empty(&connection->newcomer))
        return;
    list_unlink(&connection->newcomer);
    guard->n_newcomers--;
}

static size_t newcomers_max(const struct link_guard *guard)
{
    return guard->n_files / 4 < LIMIT_NEWCOMERS ? guard->n_files / 4 : LIMIT_NEWCOMERS;
}

/* Who is registered and says nothing is one, too. */
static void newcomers_look(struct link_guard *guard, int64_t now_ns)
{
    if (now_ns - guard->newcomers_ns < NEWCOMERS_NS)
        return;
    guard->newcomers_ns = now_ns;
    list_for_each_safe (node, after, &guard->newcomers) {
        struct connection *connection = list_entry(node, struct connection, newcomer);

        if (atomic_load(&guard->shared[connection - guard->connections].heard) > 0)
            newcomer_leave(guard, connection);
    }
    while (guard->n_newcomers > newcomers_max(guard)) {
        struct connection *oldest = list_entry(guard->newcomers.next, struct connection, newcomer);

        newcomer_leave(guard, oldest);
        shut(guard, (int)(oldest - guard->connections), &guard->counts.crowded);
    }
}

/* ---- events ---- */

static void on_accepted(struct link_guard *guard, int fd)
{
    struct connection *connection = &guard->connections[fd];

    if (alive(atomic_load(&guard->shared[fd].life)))
        return;
    atomic_fetch_add(&guard->shared[fd].life, 1);
    *connection = (struct connection){0};
    list_init(&connection->newcomer);
    list_push(&guard->newcomers, &connection->newcomer);
    guard->n_newcomers++;
    if (fd > guard->top)
        guard->top = fd;
    if ((size_t)fd + FILES_KEPT >= guard->n_files)
        shut(guard, fd, &guard->counts.crowded);
}

static void on_disconnected(struct link_guard *guard, int fd)
{
    if (!alive(atomic_load(&guard->shared[fd].life)))
        return;
    newcomer_leave(guard, &guard->connections[fd]);
    atomic_store(&guard->shared[fd].heard, 0);
    atomic_fetch_add(&guard->shared[fd].life, 1);
}

static void on_event(struct link_guard *guard, unsigned event, uint32_t value)
{
    const int defer_s = DEFER_S;

    switch (event) {
    case ZMQ_EVENT_LISTENING: /* where the kernel cannot, the silent are newcomers at once */
        (void)setsockopt((int)value, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof(defer_s));
        break;
    case ZMQ_EVENT_ACCEPTED:
        if (value < guard->n_files)
            on_accepted(guard, (int)value);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (value < guard->n_files)
            on_disconnected(guard, (int)value);
        break;
    default:
        atomic_fetch_add(&guard->counts.refused, 1);
        break;
    }
}

static void events_read(struct link_guard *guard)
{
    zmq_msg_t frame;

    /* Frame 1: u16 event, u32 value; frame 2: the endpoint. */
    while (link_receive_frame(guard->monitor, &frame) == 0) {
        uint16_t event;
        uint32_t value;

        if (zmq_msg_more(&frame) && zmq_msg_size(&frame) == sizeof(event) + sizeof(value)) {
            memcpy(&event, zmq_msg_data(&frame), sizeof(event));
            memcpy(&value, (char *)zmq_msg_data(&frame) + sizeof(event), sizeof(value));
            link_drain(guard->monitor);
            on_event(guard, event, value);
        }
        zmq_msg_close(&frame);
    }
}

/* ---- what comes to no message ---- */

/* Bytes that libzmq has taken from the kernel. */
static bool taken_bytes(int fd, uint64_t *ret_bytes)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);
    int waiting = 0;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received) ||
        ioctl(fd, FIONREAD, &waiting) < 0 || info.tcpi_bytes_received < (uint64_t)waiting)
        return false;
    *ret_bytes = info.tcpi_bytes_received - (uint64_t)waiting;
    return true;
}

/* `read`: all that was whole at the last scan was read since, so what had come by then is in
 * pieces. */
static void connection_look(struct link_guard *guard, int fd, bool read)
{
    struct connection *connection = &guard->connections[fd];
    unsigned heard = atomic_load(&guard->shared[fd].heard);
    uint64_t taken;

    if (!taken_bytes(fd, &taken))
        return;
    if (heard != connection->heard || taken < connection->last) {
        connection->heard = heard;
        connection->base = connection->last = taken;
        return;
    }
    if (taken - connection->base > guard->queue_bytes ||
        (read && connection->last - connection->base > guard->message_bytes))
        shut(guard, fd, &guard->counts.unfinished);
    connection->last = taken;
}

static uint64_t process_bytes(const struct link_guard *guard)
{
    unsigned long long pages = 0;
    char text[128];
    ssize_t n = pread(guard->memory_fd, text, sizeof(text) - 1, 0);

    if (n > 0) {
        text[n] = '\0';
        (void)sscanf(text, "%*u %llu", &pages);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void scan(struct link_guard *guard, int64_t now_ns)
{
    uint64_t bytes = process_bytes(guard);
    unsigned drained;

    if (bytes < guard->scanned_bytes)
        guard->scanned_bytes = bytes;
    if (now_ns - guard->scanned_ns < SCAN_NS && bytes - guard->scanned_bytes < GROWTH_BYTES)
        return;
    drained = atomic_load(&guard->drained);
    /* Twice: one of them began after the last scan. */
    for (int fd = 0; fd <= guard->top; fd++)
        if (alive(atomic_load(&guard->shared[fd].life)))
            connection_look(guard, fd, drained - guard->drained_seen >= 2);
    guard->drained_seen = drained;
    guard->scanned_ns = now_ns;
    guard->scanned_bytes = bytes;
}

/* ---- the thread ---- */

static void tell(struct link_guard *guard, int64_t now_ns)
{
    struct link_guard_counts now = link_guard_counts(guard), *told = &guard->told;

    if (now_ns - guard->told_ns < NS_PER_S || memcmp(&now, told, sizeof(now)) == 0)
        return;
    log_line(LOG_WARN, "put_out", "endpoint=%s refused=%llu crowded=%llu unfinished=%llu shut=%llu",
             guard->kind == LINK_CONTROL ? "control" : "bulk",
             (unsigned long long)(now.refused - told->refused),
             (unsigned long long)(now.crowded - told->crowded),
             (unsigned long long)(now.unfinished - told->unfinished),
             (unsigned long long)(now.shut - told->shut));
    *told = now;
    guard->told_ns = now_ns;
}

static void *guard_run(void *data)
{
    struct link_guard *guard = data;
    zmq_pollitem_t items[] = {
        {.socket = guard->monitor, .events = ZMQ_POLLIN},
        {.fd = guard->stop_fd, .events = ZMQ_POLLIN},
    };

    pthread_setname_np(pthread_self(), "guard");
    while ((zmq_poll(items, 2, LINK_GUARD_MS) >= 0 || errno == EINTR) && !items[1].revents) {
        int64_t now_ns = clock_monotonic_ns();

        events_read(guard);
        newcomers_look(guard, now_ns);
        scan(guard, now_ns);
        tell(guard, now_ns);
    }
    return NULL;
}

/* ---- from the thread that reads ---- */

struct link_seat link_guard_heard(struct link_guard *guard, zmq_msg_t *frame)
{
    struct link_seat none = {0};
    struct shared *shared;
    int fd;

    if (!guard)
        return none;
    fd = zmq_msg_get(frame, ZMQ_SRCFD);
    if (fd < 0 || (size_t)fd >= guard->n_files)
        return none;
    shared = &guard->shared[fd];
    atomic_fetch_add_explicit(&shared->heard, 1, memory_order_relaxed);
    return (struct link_seat){fd, atomic_load_explicit(&shared->life, memory_order_relaxed)};
}

void link_guard_drained(struct link_guard *guard)
{
    if (guard)
        atomic_fetch_add(&guard->drained, 1);
}

void link_guard_shut(struct link_guard *guard, struct link_seat seat)
{
    if (guard && alive(seat.life) && atomic_load(&guard->shared[seat.fd].life) == seat.life)
        shut(guard, seat.fd, &guard->counts.shut);
}

struct link_guard_counts link_guard_counts(struct link_guard *guard)
{
    struct counter *counts = &guard->counts;

    return (struct link_guard_counts){atomic_load(&counts->refused), atomic_load(&counts->crowded),
                                      atomic_load(&counts->unfinished), atomic_load(&counts->shut)};
}

/* ---- life ---- */

static int tables_new(struct link_guard *guard)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    guard->n_files = files.rlim_cur < FILES_MAX ? (size_t)files.rlim_cur : FILES_MAX;
    guard->shared = calloc(guard->n_files, sizeof(*guard->shared));
    guard->connections = calloc(guard->n_files, sizeof(*guard->connections));
    return guard->shared && guard->connections ? 0 : -ENOMEM;
}

static int monitor_start(struct link_guard *guard, void *context)
{
    const int events = ZMQ_EVENT_LISTENING | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    const int none = 0; /* unbounded, because the writer would wait: the guard reads always */
    char endpoint[64];

    guard->monitor = zmq_socket(context, ZMQ_PAIR);
    if (!guard->monitor)
        return -errno;
    snprintf(endpoint, sizeof(endpoint), "inproc://westlight-guard-%p", (void *)guard);
    if (zmq_setsockopt(guard->monitor, ZMQ_RCVHWM, &none, sizeof(none)) < 0 ||
        zmq_setsockopt(guard->monitor, ZMQ_LINGER, &none, sizeof(none)) < 0 ||
        zmq_socket_monitor(guard->socket, endpoint, events) < 0 ||
        zmq_connect(guard->monitor, endpoint) < 0)
        return -errno;
    return 0;
}

static int guard_init(struct link_guard *guard, void *context)
{
    int r = tables_new(guard);

    if (r < 0)
        return r;
    guard->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    guard->memory_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (guard->stop_fd < 0 || guard->memory_fd < 0)
        return -errno;
    r = monitor_start(guard, context);
    if (r < 0)
        return r;
    guard->scanned_ns = clock_monotonic_ns();
    guard->scanned_bytes = process_bytes(guard);
    return 0;
}

/* The first event is told by now: it is seen to before anybody connects. */
int link_guard_start(struct link_guard *guard)
{
    int r;

    events_read(guard);
    r = -pthread_create(&guard->thread, NULL, guard_run, guard);
    guard->runs = r == 0;
    return r;
}

int link_guard_new(void *context, void *socket, enum link_kind kind, struct link_guard **ret_guard)
{
    struct link_guard *guard = calloc(1, sizeof(*guard));
    uint64_t frame_bytes = kind == LINK_CONTROL ? LIMIT_CONTROL_BYTES : LIMIT_BULK_BYTES;
    int r;

    if (!guard)
        return -ENOMEM;
    *guard = (struct link_guard){.socket = socket, .kind = kind, .stop_fd = -1, .memory_fd = -1};
    guard->message_bytes = 2 * LIMIT_WIRE_FRAMES * frame_bytes;
    guard->queue_bytes =
        guard->message_bytes * (kind == LINK_CONTROL ? LINK_QUEUE_CONTROL : LINK_QUEUE_BULK);
    list_init(&guard->newcomers);
    r = guard_init(guard, context);
    if (r < 0) {
        link_guard_free(guard);
        return r;
    }
    *ret_guard = guard;
    return 0;
}

void link_guard_free(struct link_guard *guard)
{
    if (!guard)
        return;
    if (guard->runs) {
        CHECK(eventfd_write(guard->stop_fd, 1) == 0);
        CHECK(pthread_join(guard->thread, NULL) == 0);
    }
    if (guard->monitor) {
        zmq_socket_monitor(guard->socket, NULL, 0);
        zmq_close(guard->monitor);
    }
    closep(&guard->stop_fd);
    closep(&guard->memory_fd);
    free(guard->shared);
    free(guard->connections);
    free(guard);
}
