/* The broker's edge where keys change, where peers are slow, and where what they say is too much.
 */
#include <tests/unit/gateway_fixture.h>

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_block_that_is_not_inline_comes_with_refs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
