/* CURVE on loopback: who gets in, what passes, what is refused. Every wait is for an event. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <proto/link.h>

#define PATIENCE_MS 10000

struct world {
    void *broker, *peer; /* contexts */
    struct link_zap *zap;
    struct link_keypair server, friend_, stranger;
    struct link_key known;
    void *listener;
    char endpoint[128];
};

static struct link_keypair keys_new(void)
{
    char public_text[41], secret_text[41];
    struct link_keypair keys;

    assert_int_equal(zmq_curve_keypair(public_text, secret_text), 0);
    assert_non_null(zmq_z85_decode(keys.public_key.bytes, public_text));
    assert_non_null(zmq_z85_decode(keys.secret_key.bytes, secret_text));
    return keys;
}

static int allow_known(void *user, const struct link_key *key)
{
    const struct world *world = user;

    return memcmp(key, &world->known, sizeof(*key));
}

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.server = keys_new(), .friend_ = keys_new(), .stranger = keys_new()};
    world.known = world.friend_.public_key;
    assert_int_equal(link_context_new(1, &world.broker), 0);
    assert_int_equal(link_context_new(1, &world.peer), 0);
    assert_int_equal(link_zap_new(world.broker, allow_known, &world, &world.zap), 0);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    link_close(world->listener);
    link_zap_free(world->zap);
    link_context_free(world->broker);
    link_context_free(world->peer);
    return 0;
}

static void listen_as(struct world *world, enum link_kind kind)
{
    assert_int_equal(link_listen(world->broker, kind, "tcp://127.0.0.1:*", &world->server,
                                 &world->listener, world->endpoint), 0);
}

static void *connect_with(struct world *world, enum link_kind kind, const struct link_keypair *keys)
{
    void *socket;

    assert_int_equal(link_connect(world->peer, kind, world->endpoint, &world->server.public_key,
                                  keys, &socket), 0);
    return socket;
}

static void wait_for(void *socket, short events)
{
    zmq_pollitem_t item = {.socket = socket, .events = events};

    assert_int_equal(zmq_poll(&item, 1, PATIENCE_MS), 1);
}

static void send_filled(void *socket, const struct link_route *route, size_t header, size_t data)
{
    zmq_msg_t first, second;

    zmq_msg_init_size(&first, header);
    memset(zmq_msg_data(&first), 'h', header);
    zmq_msg_init_size(&second, data);
    memset(zmq_msg_data(&second), 'd', data);
    wait_for(socket, ZMQ_POLLOUT);
    assert_int_equal(link_send(socket, route, &first, data ? &second : NULL), 0);
    if (!data)
        zmq_msg_close(&second);
}

static void wait_status(void *monitor, enum link_status wanted)
{
    enum link_status status = LINK_DOWN;
    int64_t until = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;

    while (clock_monotonic_ns() < until) {
        zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};

        zmq_poll(&item, 1, 100);
        if (link_monitor_read(monitor, &status) == 1 && status == wanted)
            return;
    }
    fail_msg("status %d, wanted %d", (int)status, (int)wanted);
}

static void a_message_arrives_with_its_senders_key_and_is_answered(void **state)
{
    struct world *world = *state;
    struct link_route route;
    struct link_key key;
    zmq_msg_t header, data;
    void *peer;

    listen_as(world, LINK_BULK);
    peer = connect_with(world, LINK_BULK, &world->friend_);
    send_filled(peer, NULL, 5, 100000);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), 0);
    assert_memory_equal(&key, &world->friend_.public_key, sizeof(key));
    assert_int_equal(zmq_msg_size(&header), 5);
    assert_int_equal(zmq_msg_size(&data), 100000);
    assert_int_equal(link_send(world->listener, &route, &header, &data), 0);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), LINK_E_AGAIN);

    wait_for(peer, ZMQ_POLLIN);
    assert_int_equal(link_receive(peer, NULL, NULL, &header, &data), 0);
    assert_int_equal(zmq_msg_size(&header), 5);
    assert_int_equal(zmq_msg_size(&data), 100000);
    zmq_msg_close(&header);
    zmq_msg_close(&data);

    send_filled(peer, NULL, 3, 0);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), 0);
    assert_int_equal(zmq_msg_size(&data), 0);
    zmq_msg_close(&header);
    zmq_msg_close(&data);
    link_close(peer);
}

static void an_unknown_key_is_refused_and_told_so(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;

    listen_as(world, LINK_CONTROL);
    peer = connect_with(world, LINK_CONTROL, &world->stranger);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_REFUSED);
    assert_int_equal(link_events(peer) & ZMQ_POLLOUT, 0);
    link_close(monitor);
    link_close(peer);
}

static void the_wrong_server_key_is_a_refusal(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;

    listen_as(world, LINK_CONTROL);
    assert_int_equal(link_connect(world->peer, LINK_CONTROL, world->endpoint,
                                  &world->stranger.public_key, &world->friend_, &peer), 0);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_REFUSED);
    link_close(peer);
    link_close(monitor);
}

static void nobody_gets_in_where_nobody_answers_for_them(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;

    listen_as(world, LINK_CONTROL);
    link_zap_free(world->zap);
    world->zap = NULL;
    peer = connect_with(world, LINK_CONTROL, &world->friend_);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_REFUSED);
    assert_int_equal(link_events(peer) & ZMQ_POLLOUT, 0);
    link_close(peer);
    link_close(monitor);
}

static void a_link_is_seen_to_come_up_and_go_down_and_come_back(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;
    char bound[128];

    listen_as(world, LINK_CONTROL);
    strcpy(bound, world->endpoint);
    peer = connect_with(world, LINK_CONTROL, &world->friend_);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_UP);
    link_close(world->listener);
    wait_status(monitor, LINK_DOWN);
    /* The old socket lets go of the port in its own time. */
    while (link_listen(world->broker, LINK_CONTROL, bound, &world->server, &world->listener, NULL) == -EADDRINUSE)
        ;
    wait_status(monitor, LINK_UP);
    link_close(monitor);
    link_close(peer);
}

/* libzmq gives up on a socket whose key was turned away; whoever wants to try again opens anew. */
/* A relay whose other end is gone, a server that is stopped: connected, and no word. */
static void a_handshake_that_stalls_is_no_refusal(void **state)
{
    enum { STALLED_MS = 3000, TIMES = 2 };
    struct world *world = *state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum link_status status = LINK_DOWN;
    void *peer, *monitor;

    assert_int_equal(bind(listener, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    snprintf(world->endpoint, sizeof(world->endpoint), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
    peer = connect_with(world, LINK_BULK, &world->friend_);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    for (int i = 0; i < TIMES; i++) {
        int64_t until_ns = clock_monotonic_ns() + STALLED_MS * NS_PER_MS;
        int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        assert_true(accepted >= 0);
        while (clock_monotonic_ns() < until_ns) {
            zmq_poll(&(zmq_pollitem_t){.socket = monitor, .events = ZMQ_POLLIN}, 1, 100);
            assert_int_equal(link_monitor_read(monitor, &status), 0);
            assert_int_equal(status, LINK_DOWN);
        }
        close(accepted);
    }
    close(listener);
    link_close(monitor);
    link_close(peer);
}

static void a_refused_key_gets_in_once_it_is_enrolled_and_connects_anew(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;

    listen_as(world, LINK_CONTROL);
    peer = connect_with(world, LINK_CONTROL, &world->stranger);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_REFUSED);
    link_close(monitor);
    link_close(peer);

    link_zap_free(world->zap); /* a fence: the thread reads what is written here */
    world->known = world->stranger.public_key;
    while (link_zap_new(world->broker, allow_known, world, &world->zap) == -EADDRINUSE)
        ; /* the old one lets go of its name in its own time */
    peer = connect_with(world, LINK_CONTROL, &world->stranger);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_UP);
    link_close(monitor);
    link_close(peer);
}

/* The wire holds CURVE or nothing: the server hangs up on the greeting. */
static void a_peer_without_curve_never_gets_an_answer(void **state)
{
    struct world *world = *state;
    void *peer, *monitor;
    zmq_pollitem_t item;
    zmq_msg_t header;
    struct link_key key;
    struct link_route route;
    int linger_ms = 0;
    char event[16];

    listen_as(world, LINK_CONTROL);
    peer = zmq_socket(world->peer, ZMQ_DEALER);
    zmq_setsockopt(peer, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    assert_int_equal(zmq_socket_monitor(peer, "inproc://plain", ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED), 0);
    monitor = zmq_socket(world->peer, ZMQ_PAIR);
    assert_int_equal(zmq_connect(monitor, "inproc://plain"), 0);
    assert_int_equal(zmq_connect(peer, world->endpoint), 0);
    assert_int_equal(zmq_send(peer, "hello", 5, 0), 5);
    wait_for(monitor, ZMQ_POLLIN);
    assert_true(zmq_recv(monitor, event, sizeof(event), 0) >= 2);
    assert_int_equal(*(uint16_t *)event, ZMQ_EVENT_DISCONNECTED);
    item = (zmq_pollitem_t){.socket = peer, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 0), 0);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, NULL), LINK_E_AGAIN);
    zmq_socket_monitor(peer, NULL, 0);
    zmq_close(peer);
    zmq_close(monitor);
}

static void a_message_with_too_many_frames_is_dropped_and_the_next_one_is_whole(void **state)
{
    struct world *world = *state;
    struct link_route route;
    struct link_key key;
    zmq_msg_t header, data;
    void *peer;

    listen_as(world, LINK_BULK);
    peer = connect_with(world, LINK_BULK, &world->friend_);
    wait_for(peer, ZMQ_POLLOUT);
    for (int i = 0; i < 50; i++)
        assert_int_equal(zmq_send(peer, "x", 1, i < 49 ? ZMQ_SNDMORE : 0), 1);
    send_filled(peer, NULL, 7, 0);
    send_filled(peer, NULL, 7, 8);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), LINK_E_FRAMES);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), 0);
    assert_int_equal(zmq_msg_size(&header), 7);
    assert_int_equal(zmq_msg_size(&data), 0);
    zmq_msg_close(&header);
    zmq_msg_close(&data);
    /* Where no data frame is expected, two are too many. */
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, NULL), LINK_E_FRAMES);
    link_close(peer);
}

static void a_frame_at_the_limit_passes_and_one_byte_more_ends_the_link(void **state)
{
    struct world *world = *state;
    struct link_route route;
    struct link_key key;
    zmq_msg_t header;
    void *peer, *monitor;

    listen_as(world, LINK_CONTROL);
    peer = connect_with(world, LINK_CONTROL, &world->friend_);
    assert_int_equal(link_monitor(world->peer, peer, &monitor), 0);
    wait_status(monitor, LINK_UP);
    send_filled(peer, NULL, LIMIT_CONTROL_BYTES, 0);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, NULL), 0);
    assert_int_equal(zmq_msg_size(&header), LIMIT_CONTROL_BYTES);
    zmq_msg_close(&header);
    send_filled(peer, NULL, LIMIT_CONTROL_BYTES + 1, 0);
    wait_status(monitor, LINK_DOWN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, NULL), LINK_E_AGAIN);
    link_close(peer);
    link_close(monitor);
}

static void a_block_at_its_limit_passes_on_bulk(void **state)
{
    struct world *world = *state;
    struct link_route route;
    struct link_key key;
    zmq_msg_t header, data;
    void *peer;

    listen_as(world, LINK_BULK);
    peer = connect_with(world, LINK_BULK, &world->friend_);
    send_filled(peer, NULL, LIMIT_BULK_HEADER_BYTES, LIMIT_BULK_BYTES);
    wait_for(world->listener, ZMQ_POLLIN);
    assert_int_equal(link_receive(world->listener, &key, &route, &header, &data), 0);
    assert_int_equal(zmq_msg_size(&data), LIMIT_BULK_BYTES);
    zmq_msg_close(&header);
    zmq_msg_close(&data);
    link_close(peer);
}

static void what_cannot_be_sent_stays_the_callers(void **state)
{
    struct world *world = *state;
    struct link_route nobody = {.bytes = {0, 1, 2, 3, 4}, .size = 5};
    zmq_msg_t header, data;
    void *peer;

    listen_as(world, LINK_BULK);
    zmq_msg_init_size(&header, 3);
    zmq_msg_init_size(&data, 1000);
    assert_int_equal(link_send(world->listener, &nobody, &header, &data), LINK_E_GONE);
    strcpy(world->endpoint, "tcp://127.0.0.1:1");
    peer = connect_with(world, LINK_BULK, &world->friend_);
    assert_int_equal(link_send(peer, NULL, &header, &data), LINK_E_AGAIN);
    assert_int_equal(zmq_msg_size(&header), 3);
    assert_int_equal(zmq_msg_size(&data), 1000);
    zmq_msg_close(&header);
    zmq_msg_close(&data);
    link_close(peer);
}

static void an_endpoint_that_makes_no_sense_is_an_error(void **state)
{
    struct world *world = *state;
    void *socket = NULL;

    assert_int_equal(link_listen(world->broker, LINK_BULK, "nonsense", &world->server, &socket, NULL), -EINVAL);
    assert_int_equal(link_connect(world->peer, LINK_BULK, "tcp://", &world->server.public_key, &world->friend_, &socket), -EINVAL);
    assert_null(socket);
}

/* What is not read stays with the peer, but for a few blocks and what the kernel takes: the peer's own
 * queue is 64 messages. */
static void a_bulk_server_that_does_not_read_holds_a_few_blocks_of_each_peer(void **state)
{
    enum { PEER = 64, SERVER = 4, KERNEL = 16 };
    struct world *world = *state;
    int n = 0;

    listen_as(world, LINK_BULK);
    void *peer = connect_with(world, LINK_BULK, &world->friend_);
    for (zmq_pollitem_t item = {.socket = peer, .events = ZMQ_POLLOUT};
         n <= PEER + SERVER + KERNEL && zmq_poll(&item, 1, n ? 300 : PATIENCE_MS) == 1; n++)
        send_filled(peer, NULL, 100, LIMIT_BLOCK_BYTES);
    link_close(peer);
    assert_in_range(n, PEER, PEER + SERVER + KERNEL);
}

/* In that time two heartbeats of libzmq would have been due, five seconds apart. */
static void a_peer_that_goes_while_it_is_not_read_harms_no_server(void **state)
{
    enum { GONE_MS = 11000 };
    struct world *world = *state;
    zmq_msg_t header;
    size_t sent = 0;
    int r = 0;

    listen_as(world, LINK_CONTROL);
    void *peer = connect_with(world, LINK_CONTROL, &world->friend_);
    wait_for(peer, ZMQ_POLLOUT);
    for (zmq_pollitem_t item = {.socket = peer, .events = ZMQ_POLLOUT}; zmq_poll(&item, 1, 500) == 1; sent++)
        send_filled(peer, NULL, 10000, 0);
    assert_true(sent > 512);
    zmq_setsockopt(peer, ZMQ_LINGER, &r, sizeof(r));
    link_close(peer);
    link_context_free(world->peer);
    zmq_poll(NULL, 0, GONE_MS);
    while ((r = link_receive(world->listener, NULL, NULL, &header, NULL)) != LINK_E_AGAIN)
        if (r == 0)
            zmq_msg_close(&header);
    assert_int_equal(link_context_new(1, &world->peer), 0);
    peer = connect_with(world, LINK_CONTROL, &world->friend_);
    send_filled(peer, NULL, 10, 0);
    wait_for(world->listener, ZMQ_POLLIN);
    link_close(peer);
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(a_message_arrives_with_its_senders_key_and_is_answered),
        LINK_TEST(an_unknown_key_is_refused_and_told_so),
        LINK_TEST(the_wrong_server_key_is_a_refusal),
        LINK_TEST(nobody_gets_in_where_nobody_answers_for_them),
        LINK_TEST(a_link_is_seen_to_come_up_and_go_down_and_come_back),
        LINK_TEST(a_handshake_that_stalls_is_no_refusal),
        LINK_TEST(a_refused_key_gets_in_once_it_is_enrolled_and_connects_anew),
        LINK_TEST(a_peer_without_curve_never_gets_an_answer),
        LINK_TEST(a_message_with_too_many_frames_is_dropped_and_the_next_one_is_whole),
        LINK_TEST(a_frame_at_the_limit_passes_and_one_byte_more_ends_the_link),
        LINK_TEST(a_block_at_its_limit_passes_on_bulk),
        LINK_TEST(what_cannot_be_sent_stays_the_callers),
        LINK_TEST(a_bulk_server_that_does_not_read_holds_a_few_blocks_of_each_peer),
        LINK_TEST(a_peer_that_goes_while_it_is_not_read_harms_no_server),
        LINK_TEST(an_endpoint_that_makes_no_sense_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
