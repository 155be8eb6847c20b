/* The broker's edge where keys change, where peers are slow, and where what they say is too much.
 */
#include <tests/unit/gateway_fixture.h>
#include <broker/command.h>

/* ---- the facts ---- */

static void a_block_that_is_not_inline_comes_with_refs(void **state)
{
    uint8_t id[32] = {9}, request[16] = {1}, job[16] = {1};
    Wl__BlockRef block = WL__BLOCK_REF__INIT, *blocks = &block;
    Wl__Submit submission = WL__SUBMIT__INIT;
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    Wl__Result result = WL__RESULT__INIT;
    struct peer_link ann, box;

    (void)state;
    join_as(&ann, ANN);
    block.id = block.wrapped_key = (ProtobufCBinaryData){32, id};
    submission.request_id = (ProtobufCBinaryData){16, request};
    submission.job = (ProtobufCBinaryData){16, job};
    submission.job_key = block.id;
    submission.name = (char *)"shot";
    submission.recipe = &block;
    submission.steps = steps;
    submission.n_steps = 1;
    say(&ann, &ENVELOPE(SUBMIT, submit, &submission));
    hear_refusal(&ann, CODE_INVALID);

    submit(&ann, 1, 1, 1);
    worker_join(&box, BOX1, 1);
    Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
    result.session = box.session;
    result.lease = assign->assign->lease;
    result.ticket = assign->assign->ticket;
    result.manifest = &blocks;
    result.n_manifest = 1;
    say(&box, &ENVELOPE(RESULT, result, &result));
    hear_committed(&box, CODE_INVALID);
    assert_int_equal(done_of(&ann, 1), 0);
    say_result(&box, assign->assign, false);
    hear_committed(&box, CODE_OK);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box);
}

static void say_priority(struct peer_link *link, uint8_t number, uint8_t job)
{
    uint8_t id[16] = {job}, request[16] = {number};
    Wl__Edit edit = WL__EDIT__INIT;

    edit.request_id = (ProtobufCBinaryData){16, request};
    edit.job = (ProtobufCBinaryData){16, id};
    edit.what = EDIT_PRIORITY;
    edit.priority = number;
    say(link, &ENVELOPE(EDIT, edit, &edit));
    wire_free(hear(link, WL__ENVELOPE__BODY_DONE));
}

static void say_watch(struct peer_link *link, uint8_t job)
{
    uint8_t id[16] = {job};
    Wl__Watch watch = WL__WATCH__INIT;

    watch.job = (ProtobufCBinaryData){16, id};
    say(link, &ENVELOPE(WATCH, watch, &watch));
    wire_free(hear(link, WL__ENVELOPE__BODY_NOTICE));
}

/* Changes the job until a watcher who says nothing hears nothing of it any more. */
static void watch_falls_silent(struct peer_link *watcher, struct peer_link *ops)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    Wl__Envelope *notice;
    uint8_t number = 1;

    do {
        assert_true(clock_monotonic_ns() < until_ns);
        say_priority(ops, number++, 1);
        notice = hear_within(watcher, QUIET_MS);
        if (notice)
            wire_free(notice);
    } while (notice);
}

/* The registry is believed for a second; one question at a time, so that no answer is left over. */
static void show_until_refused(struct peer_link *link, uint8_t job, enum code code)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;

    for (bool refused = false; !refused;) {
        Wl__Envelope *answer;

        assert_true(clock_monotonic_ns() < until_ns);
        say_show(link, job);
        for (bool answered = false; !answered;) {
            answer = hear_within(link, PATIENCE_MS);
            assert_non_null(answer);
            refused = answer->body_case == WL__ENVELOPE__BODY_REFUSAL;
            if (refused)
                assert_int_equal(answer->refusal->code, code);
            answered = refused || answer->body_case == WL__ENVELOPE__BODY_SHOW;
            wire_free(answer);
        }
    }
}

static void a_forbidden_key_that_is_silent_hears_no_more_of_what_it_watches(void **state)
{
    struct peer_link ann, ops;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    submit(&ann, 1, 1, 2);
    say_watch(&ann, 1);
    forbid(ANN);
    watch_falls_silent(&ann, &ops);
    disconnect(&ann);
    disconnect(&ops);
}

static void a_key_that_moved_to_another_studio_hears_no_more_of_the_first(void **state)
{
    struct peer_link ann, ops;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    submit(&ann, 1, 1, 2);
    say_watch(&ann, 1);
    allow(ANN, ROLE_STUDIO, "other", "ann");
    watch_falls_silent(&ann, &ops);
    show_until_refused(&ann, 1, CODE_STATE); /* what Welcome said of it is no longer so */
    say_hello(&ann, WIRE_PROTOCOL);
    Wl__Envelope *welcome = hear(&ann, WL__ENVELOPE__BODY_WELCOME);
    assert_string_equal(welcome->welcome->studio, "other");
    wire_free(welcome);
    disconnect(&ann);
    disconnect(&ops);
}

/* Beats until the broker answers with that refusal. */
static void beat_until_refused(struct peer_link *link, enum code code)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;

    for (bool refused = false; !refused;) {
        Wl__Beat beat = WL__BEAT__INIT;
        Wl__Envelope *answer;

        assert_true(clock_monotonic_ns() < until_ns);
        beat.session = link->session;
        say(link, &ENVELOPE(BEAT, beat, &beat));
        answer = hear_within(link, 50);
        refused = answer && answer->body_case == WL__ENVELOPE__BODY_REFUSAL &&
                  answer->refusal->code == code;
        if (answer)
            wire_free(answer);
    }
}

static void a_worker_forbidden_and_allowed_again_is_told_to_say_hello(void **state)
{
    struct peer_link ann, box;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&box, BOX1, 1);
    forbid(BOX1);
    beat_until_refused(&box, CODE_REFUSED);
    allow(BOX1, ROLE_WORKER, "", "box1");
    beat_until_refused(&box, CODE_STATE);
    disconnect(&box);
    worker_join(&box, BOX1, 2);
    submit(&ann, 1, 1, 1);
    wire_free(hear(&box, WL__ENVELOPE__BODY_ASSIGN));
    disconnect(&ann);
    disconnect(&box);
}

/* `n` leases with tickets that nobody gave. */
static void say_forged(struct peer_link *link, size_t n, bool last)
{
    uint8_t job[16] = {1}, ticket[32] = {1};
    Wl__Inventory inventory = WL__INVENTORY__INIT;
    static Wl__Lease leases[LIMIT_INVENTORY];
    static Wl__InventoryItem items[LIMIT_INVENTORY];
    Wl__InventoryItem *list[LIMIT_INVENTORY];

    for (size_t i = 0; i < n; i++) {
        wl__lease__init(&leases[i]);
        leases[i].job = (ProtobufCBinaryData){16, job};
        leases[i].task = i;
        wl__inventory_item__init(&items[i]);
        items[i].lease = &leases[i];
        items[i].ticket = (ProtobufCBinaryData){32, ticket};
        list[i] = &items[i];
    }
    inventory.session = link->session;
    inventory.items = list;
    inventory.n_items = n;
    inventory.last = last;
    say(link, &ENVELOPE(INVENTORY, inventory, &inventory));
}

static void an_inventory_is_answered_in_one_message(void **state)
{
    struct peer_link box;

    (void)state;
    connect_as(&box, BOX1);
    say_worker_hello(&box, 1, 1);
    wire_free(hear(&box, WL__ENVELOPE__BODY_WELCOME));
    say_forged(&box, LIMIT_INVENTORY, false);
    Wl__Envelope *verdict = hear(&box, WL__ENVELOPE__BODY_VERDICT);
    assert_int_equal(verdict->verdict->n_leases, LIMIT_INVENTORY);
    for (size_t i = 0; i < LIMIT_INVENTORY; i++) {
        assert_int_equal(verdict->verdict->leases[i]->lease->task, i);
        assert_int_equal(verdict->verdict->leases[i]->verdict, VERDICT_DROP);
    }
    assert_false(verdict->verdict->last);
    wire_free(verdict);
    say_forged(&box, 1, true);
    verdict = hear(&box, WL__ENVELOPE__BODY_VERDICT);
    assert_int_equal(verdict->verdict->n_leases, 1);
    assert_true(verdict->verdict->last);
    wire_free(verdict);
    disconnect(&box);
}

/* A peer for which little may wait on its own side. */
static void connect_narrow(struct peer_link *link, enum who who)
{
    const int messages = 4, bytes = 64 * 1024;

    connect_as(link, who);
    assert_int_equal(zmq_disconnect(link->socket, broker.control), 0);
    assert_int_equal(zmq_setsockopt(link->socket, ZMQ_RCVHWM, &messages, sizeof messages), 0);
    assert_int_equal(zmq_setsockopt(link->socket, ZMQ_RCVBUF, &bytes, sizeof bytes), 0);
    assert_int_equal(zmq_connect(link->socket, broker.control), 0);
}

/* What did not get through may have been a stop: it lists what it has, and is told again. */
static void a_worker_that_missed_a_message_is_told_to_say_hello(void **state)
{
    enum { MORE_THAN_FIT = 8000 }; /* seven answers are one message, 512 messages wait */
    struct peer_link box;

    (void)state;
    connect_narrow(&box, BOX1);
    worker_list(&box, 1);
    for (int i = 0; i < MORE_THAN_FIT; i++)
        say_forged(&box, LIMIT_INVENTORY, false);
    beat_until_refused(&box, CODE_STATE);
    disconnect(&box);
}

/* ---- floods ---- */

static void say_beat(struct peer_link *link)
{
    Wl__Beat beat = WL__BEAT__INIT;

    beat.session = link->session;
    say(link, &ENVELOPE(BEAT, beat, &beat));
}

/* It comes back by another connection, by which it has not said Hello. */
static void wait_put_out(struct peer_link *link)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;

    for (bool out = false; !out;) {
        Wl__Envelope *answer = hear_within(link, 50);

        assert_true(clock_monotonic_ns() < until_ns);
        if (!answer) {
            say_beat(link);
            continue;
        }
        out =
            answer->body_case == WL__ENVELOPE__BODY_REFUSAL && answer->refusal->code == CODE_STATE;
        wire_free(answer);
    }
}

static void say_started(struct peer_link *link)
{
    uint8_t job[16] = {1}, ticket[32] = {1};
    Wl__Lease lease = WL__LEASE__INIT;
    Wl__Started started = WL__STARTED__INIT;

    lease.job = (ProtobufCBinaryData){16, job};
    lease.epoch = 1;
    started.session = link->session;
    started.lease = &lease;
    started.ticket = (ProtobufCBinaryData){32, ticket};
    say(link, &ENVELOPE(STARTED, started, &started));
}

static void
a_worker_with_a_few_forged_tickets_is_answered_and_one_with_many_is_put_out(void **state)
{
    enum { FEW = 20, MANY = 200 };
    struct peer_link box;

    (void)state;
    worker_join(&box, BOX1, 1);
    for (int i = 0; i < FEW; i++) {
        say_started(&box);
        hear_refusal(&box, CODE_REFUSED);
    }
    for (int i = 0; i < MANY; i++)
        say_started(&box);
    wait_put_out(&box);
    disconnect(&box);
}

static void of_a_packet_that_comes_before_hello_one_message_is_answered(void **state)
{
    enum { BEATS = 100 };
    struct wire_packet packet = {0};
    struct peer_link box;
    zmq_msg_t message;

    (void)state;
    connect_as(&box, BOX1);
    for (int i = 0; i < BEATS; i++) {
        Wl__Beat beat = WL__BEAT__INIT;
        Wl__Envelope envelope = ENVELOPE(BEAT, beat, &beat);

        envelope.request = ++box.request;
        assert_int_equal(wire_packet_add(&packet, &envelope), 0);
    }
    box.request = 1; /* the one that is answered */
    assert_int_equal(wire_packet_message(&packet, &message), 0);
    while (link_send(box.socket, NULL, &message, NULL) != 0)
        usleep(1000);
    hear_refusal(&box, CODE_STATE);
    assert_null(hear_within(&box, QUIET_MS));
    wire_packet_deinit(&packet);
    disconnect(&box);
}

/* ---- lists ---- */

static void say_cancel(struct peer_link *link, uint32_t request, uint32_t job)
{
    uint8_t id[16] = {(uint8_t)job, (uint8_t)(job >> 8)};
    uint8_t request_id[16] = {(uint8_t)request, (uint8_t)(request >> 8), 1};
    Wl__Verb verb = WL__VERB__INIT;

    verb.request_id = (ProtobufCBinaryData){16, request_id};
    verb.job = (ProtobufCBinaryData){16, id};
    verb.kind = WL__VERB_KIND__VERB_CANCEL;
    say(link, &ENVELOPE(VERB, verb, &verb));
}

static void what_is_finished_hides_no_older_job_that_is_not(void **state)
{
    enum { FINISHED = 4100, WINDOW = 100 };
    uint64_t before = 0;
    size_t n_jobs = 0, pages = 0;
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 1);
    for (uint32_t first = 2; first < FINISHED + 2; first += WINDOW) {
        for (uint32_t i = first; i < first + WINDOW; i++) {
            say_submit(&ann, i, i, 1);
            say_cancel(&ann, i, i);
        }
        for (uint32_t i = 0; i < WINDOW; i++) {
            wire_free(hear(&ann, WL__ENVELOPE__BODY_ACCEPTED));
            wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
        }
    }
    for (bool more = true; more; pages++) {
        Wl__JobsRequest wanted = WL__JOBS_REQUEST__INIT;
        wanted.before_sequence = before;
        say(&ann, &ENVELOPE(JOBS_REQUEST, jobs_request, &wanted));
        Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_JOBS);
        n_jobs += answer->jobs->n_jobs;
        more = answer->jobs->more;
        before = answer->jobs->next;
        wire_free(answer);
    }
    assert_int_equal(n_jobs, 1);
    assert_int_equal(pages, 2);
    disconnect(&ann);
}

/* A chain of many steps with long names and a large recipe. */
static void say_submit_long(struct peer_link *link, uint8_t number, size_t n_steps, size_t name)
{
    static uint8_t recipe_bytes[LIMIT_RECIPE_INLINE_BYTES];
    uint8_t id[16] = {number}, key[32] = {7};
    static char names[LIMIT_STEPS][LIMIT_NAME_BYTES + 1];
    static Wl__Step steps[LIMIT_STEPS];
    static Wl__Dependency dependencies[LIMIT_STEPS];
    Wl__Dependency *dependency[LIMIT_STEPS];
    Wl__Step *list[LIMIT_STEPS];
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Submit submit = WL__SUBMIT__INIT;

    for (size_t i = 0; i < n_steps; i++) {
        memset(names[i], 'a' + (int)(i % 26), name);
        names[i][name] = 0;
        wl__step__init(&steps[i]);
        wl__dependency__init(&dependencies[i]);
        steps[i].name = names[i];
        dependency[i] = &dependencies[i];
        dependencies[i].step = i ? (uint32_t)i - 1 : 0;
        steps[i].dependencies = &dependency[i];
        steps[i].n_dependencies = i > 0;
        list[i] = &steps[i];
    }
    recipe.id = recipe.wrapped_key = (ProtobufCBinaryData){32, key};
    recipe.inline_sealed = (ProtobufCBinaryData){sizeof recipe_bytes, recipe_bytes};
    submit.request_id = submit.job = (ProtobufCBinaryData){16, id};
    submit.job_key = (ProtobufCBinaryData){32, key};
    submit.name = (char *)"shot";
    submit.recipe = &recipe;
    submit.steps = list;
    submit.n_steps = n_steps;
    say(link, &ENVELOPE(SUBMIT, submit, &submit));
    wire_free(hear(link, WL__ENVELOPE__BODY_ACCEPTED));
}

static void what_could_be_submitted_can_be_shown(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    say_submit_long(&ann, 1, 250, 100);
    say_show(&ann, 1);
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    assert_int_equal(answer->show->n_steps, 250);
    assert_int_equal(strlen(answer->show->steps[249]->name), 100);
    assert_int_equal(answer->show->recipe->inline_sealed.len, LIMIT_RECIPE_INLINE_BYTES);
    wire_free(answer);

    say_submit_long(&ann, 2, 256, 170);
    say_show(&ann, 2);
    answer = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    assert_int_equal(answer->show->n_steps, 256);
    assert_int_equal(answer->show->job_key.len, 32);
    assert_int_equal(answer->show->recipe->inline_sealed.len, LIMIT_RECIPE_INLINE_BYTES);
    wire_free(answer);
    disconnect(&ann);
}

static uint32_t weight_of(enum who who)
{
    struct store_reader *reader;
    struct worker_key key;
    struct key_row row;

    memcpy(key.bytes, broker.keys[who].public_key.bytes, sizeof key.bytes);
    assert_int_equal(store_reader_new(broker.state, &reader), 0);
    assert_int_equal(store_key(reader, &key, &row), 0);
    store_reader_free(reader);
    return row.weight;
}

static void allow_without_a_weight_leaves_the_studios(void **state)
{
    char key[IDENTITY_Z85_SIZE];
    char *weighed[] = {(char *)"allow",
                       broker.state,
                       (char *)"--role",
                       (char *)"studio",
                       (char *)"--studio",
                       (char *)"acme",
                       (char *)"--weight",
                       (char *)"7",
                       key,
                       NULL};
    char *plain[] = {(char *)"allow",
                     broker.state,
                     (char *)"--role",
                     (char *)"studio",
                     (char *)"--studio",
                     (char *)"acme",
                     key,
                     NULL};
    char option[96];

    (void)state;
    snprintf(option, sizeof option, "--state=%s", broker.state);
    weighed[1] = plain[1] = option;
    identity_key_text(&broker.keys[ANN].public_key, key);
    assert_int_equal(command_allow(9, weighed), 0);
    assert_int_equal(weight_of(ANN), 7);
    identity_key_text(&broker.keys[NOBODY].public_key, key); /* a colleague's */
    assert_int_equal(command_allow(7, plain), 0);
    assert_int_equal(weight_of(ANN), 7);
    assert_int_equal(weight_of(NOBODY), 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_block_that_is_not_inline_comes_with_refs),
        TEST(a_forbidden_key_that_is_silent_hears_no_more_of_what_it_watches),
        TEST(a_key_that_moved_to_another_studio_hears_no_more_of_the_first),
        TEST(a_worker_forbidden_and_allowed_again_is_told_to_say_hello),
        TEST(an_inventory_is_answered_in_one_message),
        TEST(a_worker_that_missed_a_message_is_told_to_say_hello),
        TEST(a_worker_with_a_few_forged_tickets_is_answered_and_one_with_many_is_put_out),
        TEST(of_a_packet_that_comes_before_hello_one_message_is_answered),
        TEST(what_is_finished_hides_no_older_job_that_is_not),
        TEST(what_could_be_submitted_can_be_shown),
        TEST(allow_without_a_weight_leaves_the_studios),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
