/* What the load test reads and writes by hand, against what protobuf-c does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <tests/load/hot.h>

#define TEST(name) static void name(void **state)

enum { ROUNDS = 2000 };

/* Numbers of every length, and often none. */
static uint64_t number(void)
{
    uint64_t value = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();

    return rand() % 4 ? value >> rand() % 64 : 0;
}

static struct lease lease_any(void)
{
    struct lease lease = {.step = (uint32_t)number(),
                          .task = number(),
                          .floor = (uint32_t)number(),
                          .epoch = (uint32_t)number(),
                          .attempt = number()};

    assert_int_equal(random_bytes(lease.job, sizeof(lease.job)), 0);
    return lease;
}

static void same(const struct lease *a, const struct lease *b)
{
    assert_memory_equal(a->job, b->job, sizeof(a->job));
    assert_true(a->step == b->step && a->task == b->task && a->floor == b->floor &&
                a->epoch == b->epoch && a->attempt == b->attempt);
}

static void same_lease(const struct hot_lease *hot, const struct lease *lease)
{
    assert_memory_equal(hot->job, lease->job, sizeof(lease->job));
    assert_true(hot->step == lease->step && hot->task == lease->task &&
                hot->floor == lease->floor && hot->epoch == lease->epoch &&
                hot->attempt == lease->attempt);
}

static size_t packed(const Wl__Envelope *envelope, uint8_t *out)
{
    return wl__envelope__pack(envelope, out);
}

static size_t assign_any(struct lease *lease, uint8_t ticket[32], uint64_t *ret_behind,
                         uint8_t *out)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Assign assign = WL__ASSIGN__INIT;
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Lease message = WL__LEASE__INIT;
    uint8_t bytes[300];

    assert_int_equal(random_bytes(bytes, sizeof(bytes)), 0);
    assert_int_equal(random_bytes(ticket, 32), 0);
    *lease = lease_any();
    wire_lease_set(&message, lease);
    assign.lease = &message;
    assign.ticket = (ProtobufCBinaryData){32, ticket};
    recipe.id = recipe.wrapped_key = (ProtobufCBinaryData){32, bytes};
    recipe.inline_sealed = (ProtobufCBinaryData){(size_t)rand() % 300, bytes};
    assign.recipe = &recipe;
    assign.key_in = assign.key_out = (ProtobufCBinaryData){32, bytes};
    assign.gpu_mask = (uint32_t)number();
    assign.behind = *ret_behind = number();
    assign.behind_epoch = (uint32_t)number();
    envelope.request = number();
    envelope.body_case = WL__ENVELOPE__BODY_ASSIGN;
    envelope.assign = &assign;
    return packed(&envelope, out);
}

TEST(an_assign_is_read_as_protobuf_reads_it)
{
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t text[1024], ticket[32];
        struct lease lease;
        uint64_t behind;
        size_t size = assign_any(&lease, ticket, &behind, text);
        struct hot_envelope envelope;
        struct hot_assign assign;

        assert_true(hot_envelope(text, size, &envelope));
        assert_int_equal(envelope.body, WL__ENVELOPE__BODY_ASSIGN);
        assert_true(hot_assign(envelope.data, envelope.size, &assign));
        same_lease(&assign.lease, &lease);
        assert_memory_equal(assign.ticket, ticket, sizeof(ticket));
        assert_true(assign.behind == behind);
    }
}

TEST(a_committed_is_read_as_protobuf_reads_it)
{
    for (int i = 0; i < ROUNDS; i++) {
        Wl__Envelope message = WL__ENVELOPE__INIT;
        Wl__Committed body = WL__COMMITTED__INIT;
        Wl__Lease shape = WL__LEASE__INIT;
        struct lease lease = lease_any();
        uint8_t text[512];
        struct hot_envelope envelope;
        struct hot_committed committed;

        wire_lease_set(&shape, &lease);
        body.lease = &shape;
        body.code = (uint32_t)rand() % CODES_COUNT;
        body.why = (char[]){"because"};
        message.body_case = WL__ENVELOPE__BODY_COMMITTED;
        message.committed = &body;
        size_t size = packed(&message, text);

        assert_true(hot_envelope(text, size, &envelope));
        assert_true(hot_committed(envelope.data, envelope.size, &committed));
        same_lease(&committed.lease, &lease);
        assert_true(committed.code == body.code && committed.why_size == 7);
        assert_memory_equal(committed.why, "because", 7);
    }
}

/* Each is copied to memory of its own size, past which a sanitizer sees every step. */
TEST(what_is_cut_short_is_refused_and_never_read_past_its_end)
{
    uint8_t text[1024], ticket[32];
    struct lease lease;
    uint64_t behind;
    size_t size = assign_any(&lease, ticket, &behind, text);

    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = malloc(n + 1);
        struct hot_envelope envelope;
        struct hot_assign assign;

        memcpy(cut, text, n);
        if (hot_envelope(cut, n, &envelope) && envelope.body)
            assert_true(n == size || !hot_assign(envelope.data, envelope.size, &assign));
        free(cut);
    }
}

static struct hot_about about_any(const struct lease *lease, uint8_t lease_text[64],
                                  const uint8_t ticket[32])
{
    Wl__Lease shape = WL__LEASE__INIT;
    struct lease copy = *lease;

    wire_lease_set(&shape, &copy);
    return (struct hot_about){.session = number(),
                              .lease_size = wl__lease__pack(&shape, lease_text),
                              .lease = lease_text,
                              .ticket = ticket,
                              .started_wall_s = number() >> 1,
                              .ended_wall_s = number() >> 1};
}

static Wl__Envelope *unpacked(const uint8_t *text, size_t size)
{
    Wl__Envelope *envelope = NULL;
    const char *why = "";

    if (wire_unpack(text, size, &envelope, &why) != 0)
        fail_msg("%s", why);
    return envelope;
}

TEST(a_result_is_written_as_protobuf_reads_it)
{
    static const uint8_t ticket[32] = {7};
    Wl__Result fixed = WL__RESULT__INIT;
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests[] = {&manifest};
    uint8_t bytes[200] = {1}, packed_fixed[512];
    size_t fixed_size;

    manifest.id = manifest.wrapped_key = (ProtobufCBinaryData){32, bytes};
    manifest.sealed_bytes = sizeof(bytes);
    manifest.inline_sealed = (ProtobufCBinaryData){sizeof(bytes), bytes};
    fixed.manifest = manifests;
    fixed.n_manifest = 1;
    fixed.output_files = 3;
    fixed_size = wl__result__pack(&fixed, packed_fixed);
    for (int i = 0; i < ROUNDS; i++) {
        struct lease lease = lease_any(), back;
        uint8_t lease_text[64], out[HOT_ABOUT_BYTES + sizeof(packed_fixed)];
        struct hot_about about = about_any(&lease, lease_text, ticket);

        about.class_ = i % 3 == 0 ? CLASS_CANCELLED : CLASS_OK;
        Wl__Envelope *envelope =
            unpacked(out, hot_result_put(out, &about, packed_fixed, fixed_size));
        const Wl__Result *result = envelope->result;

        assert_int_equal(envelope->body_case, WL__ENVELOPE__BODY_RESULT);
        assert_int_equal(wire_lease(result->lease, &back), 0);
        same(&back, &lease);
        assert_true(result->session == about.session && result->class_ == about.class_);
        assert_true(result->started_wall_s == (int64_t)about.started_wall_s);
        assert_true(result->ended_wall_s == (int64_t)about.ended_wall_s);
        assert_int_equal(result->n_manifest, about.class_ == CLASS_OK);
        assert_int_equal(result->output_files, about.class_ == CLASS_OK ? 3 : 0);
        wire_free(envelope);
    }
}

TEST(a_started_and_a_released_are_written_as_protobuf_reads_them)
{
    static const uint8_t ticket[32] = {9};
    struct lease lease = lease_any(), back;
    uint8_t lease_text[64], out[HOT_ABOUT_BYTES];
    struct hot_about about = about_any(&lease, lease_text, ticket);
    Wl__Envelope *started = unpacked(out, hot_about_put(out, WL__ENVELOPE__BODY_STARTED, &about));

    assert_int_equal(started->body_case, WL__ENVELOPE__BODY_STARTED);
    assert_int_equal(wire_lease(started->started->lease, &back), 0);
    same(&back, &lease);
    assert_memory_equal(started->started->ticket.data, ticket, sizeof(ticket));
    wire_free(started);

    Wl__Envelope *released = unpacked(out, hot_about_put(out, WL__ENVELOPE__BODY_RELEASED, &about));
    assert_int_equal(released->body_case, WL__ENVELOPE__BODY_RELEASED);
    assert_true(released->released->session == about.session);
    wire_free(released);
}

TEST(a_packet_gives_what_was_put_into_it)
{
    struct wire_packet packet = {0};
    size_t sizes[3];
    uint8_t texts[3][1024], ticket[32];
    struct hot_each each;
    const uint8_t *one;
    struct lease lease;
    uint64_t behind;
    zmq_msg_t message;
    size_t size;

    for (int n = 1; n <= 3; n++) {
        for (int i = 0; i < n; i++) {
            sizes[i] = assign_any(&lease, ticket, &behind, texts[i]);
            Wl__Envelope *envelope = unpacked(texts[i], sizes[i]);
            assert_int_equal(wire_packet_add(&packet, envelope), 0);
            wire_free(envelope);
        }
        assert_int_equal(wire_packet_message(&packet, &message), 0);
        hot_each_init(&each, zmq_msg_data(&message), zmq_msg_size(&message));
        for (int i = 0; i < n; i++) {
            assert_true(hot_each_next(&each, &one, &size));
            assert_int_equal(size, sizes[i]);
            assert_memory_equal(one, texts[i], size);
        }
        assert_false(hot_each_next(&each, &one, &size) || each.bad);
        zmq_msg_close(&message);
    }
    wire_packet_deinit(&packet);
}

TEST(a_packet_that_is_cut_short_is_bad)
{
    const uint8_t text[] = {0, 5, 1, 2};
    struct hot_each each;
    const uint8_t *one;
    size_t size;

    hot_each_init(&each, text, sizeof(text));
    assert_false(hot_each_next(&each, &one, &size));
    assert_true(each.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_assign_is_read_as_protobuf_reads_it),
        cmocka_unit_test(a_committed_is_read_as_protobuf_reads_it),
        cmocka_unit_test(what_is_cut_short_is_refused_and_never_read_past_its_end),
        cmocka_unit_test(a_result_is_written_as_protobuf_reads_it),
        cmocka_unit_test(a_started_and_a_released_are_written_as_protobuf_reads_them),
        cmocka_unit_test(a_packet_gives_what_was_put_into_it),
        cmocka_unit_test(a_packet_that_is_cut_short_is_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
