/* flood.c - who says more than is heard of one key is told to wait, and nobody else is; who works
 * is heard, however fast.
 */
#include <broker/gateway.h>
#include <tests/unit/gateway_fixture.h>

enum { PER_S = 400, AT_ONCE = PER_S / 4 + 1 };

static int setup_slow(void **state)
{
    broker.messages_per_s = PER_S;
    int r = setup(state);

    broker.messages_per_s = 0;
    return r;
}

/* Asks `n` times at once. How often it was told to wait, and how often it was answered. */
struct told {
    unsigned heard, wait;
};

static void ask_times(struct peer_link *link, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        say_show(link, 9);
}

static void hear_one(struct peer_link *link, int ms, struct told *told)
{
    Wl__Envelope *answer = hear_within(link, ms);

    if (!answer)
        return;
    assert_int_equal(answer->body_case, WL__ENVELOPE__BODY_REFUSAL);
    assert_true(answer->request > 0 && answer->request <= link->request);
    if (answer->refusal->code == CODE_BUSY) {
        assert_true(answer->refusal->again_ms > 0);
        told->wait++;
    } else {
        assert_int_equal(answer->refusal->code, CODE_UNKNOWN);
        told->heard++;
    }
    wire_free(answer);
}

static struct told hear_all(struct peer_link *link, unsigned n, int ms)
{
    struct told told = {0};

    for (unsigned before = 1; told.heard + told.wait < n && before;) {
        before = told.heard + told.wait;
        hear_one(link, ms, &told);
        before = told.heard + told.wait - before;
    }
    return told;
}

static void who_asks_too_much_is_told_to_wait_and_then_not_even_that(void **state)
{
    int64_t begun_ns = clock_monotonic_ns();
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    ask_times(&ann, 10 * PER_S);
    struct told told = hear_all(&ann, 10 * PER_S, QUIET_MS);
    unsigned most = 2 * AT_ONCE + (unsigned)((clock_monotonic_ns() - begun_ns) * PER_S / NS_PER_S);

    assert_true(told.heard >= AT_ONCE - 1 && told.heard <= most);
    assert_true(told.wait > 0 && told.wait <= most);
    assert_true(told.heard + told.wait < 10 * PER_S);
    usleep(200000); /* longer than it is told to */
    ask_times(&ann, 1);
    assert_int_equal(hear_all(&ann, 1, PATIENCE_MS).heard, 1);
    disconnect(&ann);
}

static void others_are_heard_beside_it(void **state)
{
    struct told told = {0};
    struct peer_link ann, bob;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    for (unsigned i = 0; i < AT_ONCE - 1; i++) {
        ask_times(&ann, 20);
        ask_times(&bob, 1);
        hear_one(&bob, PATIENCE_MS, &told);
    }
    assert_int_equal(told.heard, AT_ONCE - 1);
    disconnect(&ann);
    disconnect(&bob);
}

/* More than a studio may in a moment, of keys of which each says what it may. */
static struct told ask_by_all(struct peer_link *links, size_t n)
{
    struct told told, sum = {0};

    assert_int_equal(kill(broker.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(broker.pid, NULL, WUNTRACED), broker.pid);
    for (size_t i = 0; i < n; i++)
        ask_times(&links[i], AT_ONCE - 1);
    assert_int_equal(kill(broker.pid, SIGCONT), 0);
    for (size_t i = 0; i < n; i++) {
        told = hear_all(&links[i], AT_ONCE - 1, PATIENCE_MS);
        sum.heard += told.heard;
        sum.wait += told.wait;
    }
    return sum;
}

static void many_keys_of_a_studio_are_heard_as_four(void **state)
{
    static const enum who keys[] = {ANN, BOB, OPS, BOX1, BOX2, NOBODY};
    enum { TRIES = 10 }; /* where the machine takes long, nobody need wait */
    struct peer_link links[ARRAY_SIZE(keys)];
    struct told told = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        allow(keys[i], ROLE_STUDIO, "acme", "one of many");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        join_as(&links[i], keys[i]);
    for (int i = 0; i < TRIES && told.wait == 0; i++) {
        usleep(1000000); /* all may speak again */
        told = ask_by_all(links, ARRAY_SIZE(keys));
    }
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        disconnect(&links[i]);
    assert_true(told.wait > 0);
    assert_true(told.heard >= LIMIT_STUDIO_KEYS * (PER_S / 4) - ARRAY_SIZE(keys));
}

/* ---- workers ---- */

static unsigned hears(struct gateway *gateway, struct peer *peer)
{
    unsigned n = 0;

    while (n <= LIMIT_WORKER_MESSAGES && gateway_hears(gateway, peer))
        n++;
    return n;
}

static void a_lease_pays_for_what_is_said_of_it(void **state)
{
    struct gateway gateway = {.now_ns = 1};
    struct peer peer = {.row.role = ROLE_WORKER};

    (void)state;
    assert_int_equal(hears(&gateway, &peer), LIMIT_WORKER_MESSAGES);
    gateway_lease_paid(&peer);
    assert_int_equal(hears(&gateway, &peer), LIMIT_LEASE_MESSAGES);
    for (unsigned i = 0; i < LIMIT_WORKER_MESSAGES; i++)
        gateway_lease_paid(&peer);
    assert_int_equal(hears(&gateway, &peer), LIMIT_WORKER_MESSAGES); /* and no more is put by */
}

/* Beats in messages of as many as fit; no answer is read meanwhile. */
static void beat_times(struct peer_link *box, unsigned n)
{
    struct wire_packet packet = {0};
    Wl__Beat beat = WL__BEAT__INIT;
    Wl__Envelope envelope = ENVELOPE(BEAT, beat, &beat);

    beat.session = box->session;
    for (unsigned i = 1; i <= n; i++) {
        zmq_msg_t message;

        assert_int_equal(wire_packet_add(&packet, &envelope), 0);
        if (i % 1000 != 0 && i != n)
            continue;
        assert_int_equal(wire_packet_message(&packet, &message), 0);
        while (link_send(box->socket, NULL, &message, NULL) != 0)
            usleep(1000);
    }
    wire_packet_deinit(&packet);
}

/* It is made to say Hello, and then works. */
static void a_worker_that_says_too_much_is_forgotten_and_may_come_again(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    bool forgotten = false;
    struct peer_link ann, box;
    Wl__Beat beat = WL__BEAT__INIT;

    (void)state;
    worker_join(&box, BOX1, 1);
    beat_times(&box, LIMIT_WORKER_MESSAGES + 20000);
    beat.session = 1;
    while (!forgotten) {
        Wl__Envelope *answer;

        assert_true(clock_monotonic_ns() < until_ns);
        say(&box, &ENVELOPE(BEAT, beat, &beat));
        while (!forgotten && (answer = hear_within(&box, 20))) {
            forgotten = answer->body_case == WL__ENVELOPE__BODY_REFUSAL &&
                        answer->refusal->code == CODE_STATE;
            wire_free(answer);
        }
    }
    disconnect(&box);
    worker_join(&box, BOX1, 2);
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);

    say_result(&box, assign->assign, false);
    hear_committed(&box, CODE_OK);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box);
}

#define TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_asks_too_much_is_told_to_wait_and_then_not_even_that, setup_slow),
        TEST(others_are_heard_beside_it, setup_slow),
        TEST(many_keys_of_a_studio_are_heard_as_four, setup_slow),
        cmocka_unit_test(a_lease_pays_for_what_is_said_of_it),
        TEST(a_worker_that_says_too_much_is_forgotten_and_may_come_again, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
