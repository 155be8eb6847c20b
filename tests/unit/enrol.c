/* enrol.c - who comes with a token is answered, who comes with anything else learns nothing, and a
 * crowd does not keep the next one out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/enrol.h>
#include <broker/store/tokens.h>
#include <proto/base/clock.h>
#include <proto/join.h>
#include <proto/wire.h>

static char folder[64];
static struct store *store;
static struct enrol *enrol;
static struct link_keypair server, enrol_keys;
static struct token token;

static int setup(void **state)
{
    struct enrol_config config = {.endpoint = "tcp://127.0.0.1:*",
                                  .state = folder,
                                  .keys = &enrol_keys,
                                  .server_key = &server.public_key,
                                  .control = "tcp://*:7420"};

    (void)state;
    strcpy(folder, "/tmp/westlight-enrol-XXXXXX");
    if (!mkdtemp(folder) || store_open(folder, &store) != 0 || identity_key_new(&server) != 0 ||
        identity_key_new(&enrol_keys) != 0 || enrol_start(&config, &enrol) != 0)
        return -1;
    token = (struct token){.enrol_key = enrol_keys.public_key, .control_key = server.public_key};
    snprintf(token.enrol, sizeof token.enrol, "%s", enrol_endpoint(enrol));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    enrol_stop(enrol);
    store_close(store);
    return folder_remove(folder);
}

/* A token with this secret. */
static void allow(uint8_t secret, uint32_t uses, int64_t left_s)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row row = {
        .role = ROLE_WORKER, .uses = uses, .until_wall_s = clock_wall_ns() / NS_PER_S + left_s};
    uint8_t bytes[32] = {secret};

    token_digest(bytes, row.digest);
    assert_int_equal(store_token_add(folder, &row, &why), 0);
}

static int try_to_join(uint8_t secret, const struct link_keypair *keys, struct joined *ret_joined)
{
    struct join join = {.token = &token,
                        .enrol = token.enrol,
                        .keys = keys,
                        .name = "node",
                        .patience_ns = 20 * NS_PER_S};

    memset(token.secret, 0, sizeof token.secret);
    token.secret[0] = secret;
    return join_run(&join, ret_joined);
}

static void who_has_a_token_is_let_in_and_told_where_the_farm_is(void **state)
{
    struct link_keypair keys;
    struct joined joined;

    (void)state;
    allow(1, 1, 60);
    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(try_to_join(1, &keys, &joined), 0);
    assert_int_equal(joined.role, ROLE_WORKER);
    assert_string_equal(joined.control, "tcp://127.0.0.1:7420");
    assert_string_equal(joined.name, "node");
    assert_int_equal(try_to_join(1, &keys, &joined), 0);
    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(try_to_join(1, &keys, &joined), JOIN_E_REFUSED);
}

/* Who answers has the enrol key, and another control key than the token says. */
static void another_broker_is_not_believed(void **state)
{
    struct link_keypair keys;
    struct joined joined;

    (void)state;
    allow(1, 1, 60);
    assert_int_equal(identity_key_new(&keys), 0);
    token.control_key.bytes[0] ^= 1;
    assert_int_equal(try_to_join(1, &keys, &joined), JOIN_E_STRANGER);
}

/* ---- what is sent by hand ---- */

static void *connect_one(void *context)
{
    struct link_keypair keys;
    void *socket;

    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(
        link_connect(context, LINK_ENROL, token.enrol, &enrol_keys.public_key, &keys, &socket), 0);
    return socket;
}

static void send_bytes(void *socket, const void *data, size_t size)
{
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLOUT};
    zmq_msg_t message;

    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    assert_int_equal(zmq_msg_init_size(&message, size), 0);
    memcpy(zmq_msg_data(&message), data, size);
    assert_int_equal(link_send(socket, NULL, &message, NULL), 0);
}

/* The answer's bytes, and after how long. */
static void ask(void *context, const void *data, size_t size, struct bytes *ret_answer,
                int64_t *ret_ns)
{
    void *socket = connect_one(context);
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    int64_t begun_ns;
    zmq_msg_t message;

    send_bytes(socket, data, size);
    begun_ns = clock_monotonic_ns();
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    *ret_ns = clock_monotonic_ns() - begun_ns;
    assert_int_equal(link_receive(socket, NULL, NULL, &message, NULL), 0);
    assert_int_equal(bytes_append(ret_answer, zmq_msg_data(&message), zmq_msg_size(&message)), 0);
    zmq_msg_close(&message);
    link_close(socket);
}

static size_t question(uint8_t secret, uint8_t form[256])
{
    uint8_t bytes[32] = {secret};
    Wl__Enrol message = WL__ENROL__INIT;

    message.secret = (ProtobufCBinaryData){sizeof bytes, bytes};
    return wl__enrol__pack(&message, form);
}

static void every_no_is_the_same_bytes_after_the_same_time(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct bytes answers[5] = {0};
    uint8_t forms[5][256], digest[32], revoked[32] = {3};
    size_t sizes[5];
    void *context;

    (void)state;
    assert_int_equal(link_context_new(1, &context), 0);
    allow(1, 0, 60);  /* used up */
    allow(2, 1, -60); /* ended */
    allow(3, 1, 60);
    token_digest(revoked, digest);
    assert_int_equal(store_token_revoke(folder, digest, 32, &why), 0);
    for (uint8_t i = 0; i < 4; i++) /* the last was never made */
        sizes[i] = question((uint8_t)(i + 1), forms[i]);
    memset(forms[4], 0xff, 40); /* no message at all */
    sizes[4] = 40;
    for (int i = 0; i < 5; i++) {
        int64_t took_ns;

        ask(context, forms[i], sizes[i], &answers[i], &took_ns);
        assert_in_range(took_ns, LIMIT_ENROL_REFUSE_NS * 9 / 10, 10 * LIMIT_ENROL_REFUSE_NS);
        assert_int_equal(answers[i].size, answers[0].size);
        assert_memory_equal(answers[i].data, answers[0].data, answers[0].size);
    }
    for (int i = 0; i < 5; i++)
        bytes_deinit(&answers[i]);
    link_context_free(context);
}

/* As many links as it holds, none of which says a word. */
static void a_crowd_does_not_keep_the_next_one_out(void **state)
{
    enum { CROWD = LIMIT_ENROL_PEERS };
    static void *sockets[CROWD];
    struct link_keypair keys;
    struct joined joined;
    void *context;

    (void)state;
    allow(1, 1, 600);
    assert_int_equal(link_context_new(1, &context), 0);
    for (int i = 0; i < CROWD; i++)
        sockets[i] = connect_one(context);
    for (int i = 0; i < CROWD; i++) { /* all are let in */
        zmq_pollitem_t item = {.socket = sockets[i], .events = ZMQ_POLLOUT};

        assert_true(zmq_poll(&item, 1, 10000) >= 0);
    }
    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(try_to_join(1, &keys, &joined), 0);
    for (int i = 0; i < CROWD; i++)
        link_close(sockets[i]);
    link_context_free(context);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(who_has_a_token_is_let_in_and_told_where_the_farm_is),
        T(another_broker_is_not_believed),
        T(every_no_is_the_same_bytes_after_the_same_time),
        T(a_crowd_does_not_keep_the_next_one_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
