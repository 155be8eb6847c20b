/* The durability rule: nothing leaves before the records ahead of it are durable, and in order. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <broker/journal.h>

/* A store that commits when the test says so. */
static uint64_t submitted, completed;
static size_t records_submitted;

int store_submit(struct store *store, uint64_t batch, const struct record *records,
                 size_t n_records)
{
    (void)store;
    (void)records;
    assert_int_equal(batch, submitted + 1);
    assert_true(n_records > 0);
    submitted = batch;
    records_submitted += n_records;
    return 0;
}

int store_completed(struct store *store, uint64_t *ret_batch)
{
    (void)store;
    *ret_batch = completed;
    return 0;
}

/* A message is a word of letters, each an envelope's number. */
static char sent[64];
static size_t n_sent, n_unsent, n_unsent_others;
static bool peer_gone;

static int on_send(void *user, const struct link_route *route, zmq_msg_t *message)
{
    struct wire_each each;
    const void *data;
    size_t size;

    (void)user;
    if (peer_gone)
        return LINK_E_GONE;
    if (n_sent > 0)
        sent[n_sent++] = ' ';
    if (route->bytes[0] > 0)
        sent[n_sent++] = (char)('0' + route->bytes[0]);
    wire_each_init(&each, zmq_msg_data(message), zmq_msg_size(message));
    while (wire_each_next(&each, &data, &size) == 0) {
        Wl__Envelope *envelope = NULL;
        const char *why;

        assert_int_equal(wire_unpack(data, size, &envelope, &why), 0);
        sent[n_sent++] = (char)envelope->request;
        wire_free(envelope);
    }
    zmq_msg_close(message);
    return 0;
}

static void on_unsent(void *user, const struct link_route *route,
                      const struct journal_assign *assign, int why)
{
    (void)user;
    (void)route;
    assert_int_equal(why, LINK_E_GONE);
    n_unsent += assign != NULL;
    n_unsent_others += assign == NULL;
}

static struct journal *journal;

static int setup(void **state)
{
    (void)state;
    submitted = completed = 0;
    records_submitted = n_sent = n_unsent = n_unsent_others = 0;
    peer_gone = false;
    memset(sent, 0, sizeof sent);
    return journal_new(NULL, &journal);
}

static int teardown(void **state)
{
    (void)state;
    journal_free(journal);
    return 0;
}

static void say_to(uint8_t peer, char letter, const struct journal_assign *assign)
{
    struct link_route route = {.bytes = {peer}, .size = 1};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat beat = WL__BEAT__INIT;

    envelope.request = (uint64_t)letter;
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    assert_int_equal(journal_say(journal, journal_mark(journal), &route, &envelope, assign), 0);
}

static void say(char letter, const struct journal_assign *assign)
{
    say_to(0, letter, assign);
}

static void record(void)
{
    struct record one = {.kind = RECORD_NOTE};

    assert_int_equal(journal_record(journal, &one), 0);
}

static void commit(uint64_t batch)
{
    completed = batch;
    assert_int_equal(journal_completed(journal), 0);
    journal_flush(journal, on_send, on_unsent, NULL);
}

static void with_nothing_in_flight_it_leaves_at_once(void **state)
{
    (void)state;
    say('a', NULL);
    journal_flush(journal, on_send, on_unsent, NULL);
    assert_string_equal(sent, "a");
    assert_true(journal_idle(journal));
}

static void nothing_leaves_before_the_records_ahead_of_it_are_durable(void **state)
{
    (void)state;
    say('a', NULL); /* ahead of the record */
    record();
    say('b', NULL);
    journal_flush(journal, on_send, on_unsent, NULL);
    assert_string_equal(sent, "a");
    assert_int_equal(journal_submit(journal), 0);
    commit(0);
    assert_string_equal(sent, "a");
    commit(1);
    assert_string_equal(sent, "a b");
}

static void a_read_waits_for_what_it_may_have_seen(void **state)
{
    (void)state;
    record();
    assert_int_equal(journal_submit(journal), 0);
    say('r', NULL); /* no record of its own; batch 1 is in flight */
    journal_flush(journal, on_send, on_unsent, NULL);
    assert_string_equal(sent, "");
    commit(1);
    assert_string_equal(sent, "r");
}

static void what_comes_during_a_sync_is_one_batch(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        record();
        assert_int_equal(journal_submit(journal), 0);
    }
    assert_int_equal(submitted, JOURNAL_IN_FLIGHT);
    assert_int_equal(records_submitted, JOURNAL_IN_FLIGHT);
    commit(1);
    assert_int_equal(journal_submit(journal), 0);
    assert_int_equal(submitted, JOURNAL_IN_FLIGHT + 1);
    assert_int_equal(records_submitted, 10);
}

static size_t n_released;
static void release(void *memory)
{
    n_released++;
    free(memory);
}

static void what_records_borrow_lives_until_the_store_has_them(void **state)
{
    (void)state;
    n_released = 0;
    for (int i = 0; i < JOURNAL_IN_FLIGHT + 1; i++) {
        record();
        assert_int_equal(journal_keep(journal, malloc(1), release), 0);
        assert_int_equal(journal_submit(journal), 0);
    }
    assert_int_equal(n_released, JOURNAL_IN_FLIGHT);
    commit(1);
    assert_int_equal(journal_submit(journal), 0);
    assert_int_equal(n_released, JOURNAL_IN_FLIGHT + 1);
}

static void an_assignment_that_cannot_be_sent_is_told(void **state)
{
    struct journal_assign assign = {0};

    (void)state;
    peer_gone = true;
    say('a', &assign);
    say('b', NULL);
    journal_flush(journal, on_send, on_unsent, NULL);
    assert_int_equal(n_unsent, 1);
    assert_int_equal(n_unsent_others, 1);
    assert_int_equal(n_sent, 0);
    assert_true(journal_idle(journal));
}

static void what_one_sync_makes_true_for_a_peer_is_one_message(void **state)
{
    (void)state;
    record();
    say_to(1, 'a', NULL);
    say_to(2, 'b', NULL);
    say_to(1, 'c', NULL);
    assert_int_equal(journal_submit(journal), 0);
    record();
    say_to(1, 'd', NULL); /* of the next batch */
    assert_int_equal(journal_submit(journal), 0);
    commit(1);
    assert_string_equal(sent, "1ac 2b");
    commit(2);
    assert_string_equal(sent, "1ac 2b 1d");
    assert_true(journal_idle(journal));
}

static void what_is_too_much_for_one_message_is_two_in_order(void **state)
{
    struct link_route route = {.size = 1};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    char *text = malloc(LIMIT_CONTROL_BYTES + 1);

    (void)state;
    memset(text, 'x', LIMIT_CONTROL_BYTES);
    text[LIMIT_NOTE_BYTES] = 0;
    refusal.what = refusal.why = text;
    envelope.body_case = WL__ENVELOPE__BODY_REFUSAL;
    envelope.refusal = &refusal;
    for (char letter = 'A'; letter <= 'z'; letter++) {
        envelope.request = (uint64_t)letter;
        assert_int_equal(journal_say(journal, 0, &route, &envelope, NULL), 0);
    }
    journal_flush(journal, on_send, on_unsent, NULL);
    assert_int_equal(n_sent, 'z' - 'A' + 2); /* one space */
    for (char letter = 'A', *at = sent; letter <= 'z'; letter++, at++) {
        at += *at == ' ';
        assert_int_equal(*at, letter);
    }
    text[LIMIT_NOTE_BYTES] = 'x';
    text[LIMIT_CONTROL_BYTES] = 0;
    assert_int_equal(journal_say(journal, 0, &route, &envelope, NULL), -EMSGSIZE);
    assert_true(journal_idle(journal));
    free(text);
}

static int say_more(const struct journal_assign *assign)
{
    struct link_route route = {.size = 1};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Assign more = WL__ASSIGN__INIT;

    envelope.body_case = WL__ENVELOPE__BODY_ASSIGN;
    envelope.assign = &more;
    return journal_say_more(journal, journal_mark(journal), &route, &envelope, assign);
}

static void one_more_lease_goes_only_behind_one_of_its_job(void **state)
{
    static const struct journal_assign one = {.lease.job = {{1}}}, other = {.lease.job = {{2}}};

    (void)state;
    assert_int_equal(say_more(&one), -EMSGSIZE); /* there is none */
    say('a', &one);
    assert_int_equal(say_more(&one), 0);
    assert_int_equal(say_more(&other), -EMSGSIZE);
    say('b', &other);
    assert_int_equal(say_more(&one), -EMSGSIZE); /* another's lies between */
    assert_int_equal(say_more(&other), 0);
    record();
    assert_int_equal(say_more(&other), -EMSGSIZE); /* it waits for more */
    say('c', &other);
    assert_int_equal(say_more(&other), 0);
    journal_cut(journal);
    assert_int_equal(say_more(&other), -EMSGSIZE); /* the recipe is another one */
    say('d', &other);
    assert_int_equal(say_more(&other), 0);
    peer_gone = true;
    assert_int_equal(journal_submit(journal), 0);
    commit(1);
    assert_int_equal(n_unsent, 8);
    assert_int_equal(n_unsent_others, 0);
    assert_true(journal_idle(journal));
}

static void too_many_records_stop_the_reading(void **state)
{
    (void)state;
    for (int i = 0; i < JOURNAL_IN_FLIGHT; i++) {
        record();
        assert_int_equal(journal_submit(journal), 0);
    }
    for (int i = 0; i < JOURNAL_RECORDS_MAX; i++)
        record();
    assert_true(journal_full(journal));
    commit(1);
    assert_int_equal(journal_submit(journal), 0);
    assert_false(journal_full(journal));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(with_nothing_in_flight_it_leaves_at_once),
        TEST(nothing_leaves_before_the_records_ahead_of_it_are_durable),
        TEST(a_read_waits_for_what_it_may_have_seen),
        TEST(what_comes_during_a_sync_is_one_batch),
        TEST(what_records_borrow_lives_until_the_store_has_them),
        TEST(an_assignment_that_cannot_be_sent_is_told),
        TEST(what_one_sync_makes_true_for_a_peer_is_one_message),
        TEST(what_is_too_much_for_one_message_is_two_in_order),
        TEST(one_more_lease_goes_only_behind_one_of_its_job),
        TEST(too_many_records_stop_the_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
