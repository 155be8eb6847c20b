/* Who is put out of a listening socket, and who is not. All ends of all links are in this process, which may
 * have so many descriptors:
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <cmocka.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <proto/limits.h>
#include <proto/link_guard.h>

enum { FILES = 1200, NEWCOMERS = FILES / 4, PATIENCE_MS = 20000 };

static const uint8_t GREETING[10] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f};

struct world {
    void *broker, *peer;
    struct link_zap *zap;
    struct link_guard *guard;
    struct link_keypair server, friend_;
    void *listener;
    char endpoint[128];
    int port;
};

static int allow_all(void *user, const struct link_key *key)
{
    return 0;
}

static int setup(void **state)
{
    static struct world world;
    struct rlimit files = {FILES, FILES};

    world = (struct world){0};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(identity_key_new(&world.server), 0);
    assert_int_equal(identity_key_new(&world.friend_), 0);
    assert_int_equal(link_context_new(1, &world.broker), 0);
    assert_int_equal(link_context_new(1, &world.peer), 0);
    assert_int_equal(link_zap_new(world.broker, allow_all, NULL, &world.zap), 0);
    assert_int_equal(link_listen_guarded(world.broker, LINK_CONTROL, "tcp://127.0.0.1:*", &world.server, &world.guard,
                                         &world.listener, world.endpoint), 0);
    world.port = atoi(strrchr(world.endpoint, ':') + 1);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    link_guard_free(world->guard);
    link_close(world->listener);
    link_zap_free(world->zap);
    link_context_free(world->broker);
    link_context_free(world->peer);
    return 0;
}

#define UNTIL(condition)                                                                           \
    for (int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS; !(condition);          \
         zmq_poll(NULL, 0, 5))                                                                     \
    assert_true(clock_monotonic_ns() < until_ns)

/* A connection without CURVE; what it says, if anything. */
static int raw(const struct world *world, bool greets)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)world->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&where, sizeof(where)), 0);
    if (greets)
        assert_int_equal(send(fd, GREETING, sizeof(GREETING), 0), sizeof(GREETING));
    return fd;
}

static bool hung_up(int fd)
{
    char bytes[256];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN);
}

static size_t descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static struct link_seat hear(struct world *world)
{
    zmq_pollitem_t item = {.socket = world->listener, .events = ZMQ_POLLIN};
    struct link_seat seat;
    struct link_key key;
    struct link_route route;
    zmq_msg_t message;

    assert_int_equal(zmq_poll(&item, 1, PATIENCE_MS), 1);
    assert_int_equal(link_receive(world->listener, &key, &route, &message, NULL), 0);
    seat = link_guard_heard(world->guard, &message);
    zmq_msg_close(&message);
    return seat;
}

static void *friend_new(struct world *world)
{
    void *socket;

    assert_int_equal(link_connect(world->peer, LINK_CONTROL, world->endpoint, &world->server.public_key,
                                  &world->friend_, &socket), 0);
    return socket;
}

static void say(void *socket)
{
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLOUT};
    zmq_msg_t message;

    assert_int_equal(zmq_poll(&item, 1, PATIENCE_MS), 1);
    zmq_msg_init_size(&message, 3);
    assert_int_equal(link_send(socket, NULL, &message, NULL), 0);
}

/* ---- the facts ---- */

static void who_says_nothing_costs_no_descriptor(void **state)
{
    struct world *world = *state;
    size_t before = descriptors();
    int quiet = raw(world, false), loud = raw(world, true);

    UNTIL(descriptors() >= before + 3);
    assert_int_equal(descriptors(), before + 3);
    assert_int_equal(send(quiet, GREETING, sizeof(GREETING), 0), sizeof(GREETING));
    UNTIL(descriptors() == before + 4);
    close(quiet);
    close(loud);
}

static void of_too_many_newcomers_the_oldest_go(void **state)
{
    enum { MORE = 40 };
    struct world *world = *state;
    int fds[NEWCOMERS + MORE], closed = 0;
    void *peer = friend_new(world);

    say(peer);
    hear(world);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = raw(world, true);
    UNTIL(link_guard_counts(world->guard).crowded >= MORE);
    for (size_t i = 0; i < MORE; i++)
        UNTIL(hung_up(fds[i]));
    for (size_t i = MORE; i < ARRAY_SIZE(fds); i++)
        closed += hung_up(fds[i]);
    assert_int_equal(closed, 0);
    assert_int_equal(link_guard_counts(world->guard).crowded, MORE);
    say(peer); /* whoever has said something is none */
    hear(world);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close(fds[i]);
    link_close(peer);
}

static void before_descriptors_run_out_connections_are_refused(void **state)
{
    struct world *world = *state;
    int held[FILES], n = 0;

    do
        held[n] = open("/dev/null", O_RDONLY);
    while (held[n++] < FILES - 256);
    int late = raw(world, true);

    UNTIL(hung_up(late));
    assert_int_equal(link_guard_counts(world->guard).crowded, 1);
    while (n > 0)
        close(held[--n]);
    close(late);
}

static void a_connection_is_shut_and_not_the_one_after_it(void **state)
{
    struct world *world = *state;
    enum link_status status = LINK_DOWN;
    struct link_seat seat, next;
    void *peer = friend_new(world), *monitor;

    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    say(peer);
    seat = hear(world);
    UNTIL(link_monitor_read(monitor, &status) >= 0 && status == LINK_UP);
    UNTIL((link_guard_shut(world->guard, seat), link_guard_counts(world->guard).shut == 1));
    UNTIL(link_monitor_read(monitor, &status) >= 0 && status == LINK_DOWN);
    UNTIL(link_monitor_read(monitor, &status) >= 0 && status == LINK_UP);
    say(peer);
    next = hear(world);
    assert_true(next.fd != seat.fd || next.life != seat.life);
    link_guard_shut(world->guard, seat);
    say(peer);
    hear(world);
    assert_int_equal(link_guard_counts(world->guard).shut, 1);
    link_close(monitor);
    link_close(peer);
}

static void a_failed_handshake_is_counted(void **state)
{
    struct world *world = *state;
    int fd = raw(world, true);

    close(fd);
    UNTIL(link_guard_counts(world->guard).refused == 1);
}

#define GUARD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GUARD_TEST(who_says_nothing_costs_no_descriptor),
        GUARD_TEST(of_too_many_newcomers_the_oldest_go),
        GUARD_TEST(before_descriptors_run_out_connections_are_refused),
        GUARD_TEST(a_connection_is_shut_and_not_the_one_after_it),
        GUARD_TEST(a_failed_handshake_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
