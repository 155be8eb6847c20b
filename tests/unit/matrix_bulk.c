/* matrix_bulk.c - as matrix.c, of the bulk endpoint: every message by every role, of blocks and
 * passes that are its own, another's, and nobody's.
 */
#include <proto/seal.h>
#include <tests/unit/gateway_fixture.h>

enum as { WORKER, STUDIO, OTHER, OPERATOR, GONE, AS_COUNT };
/* SIBLING: of another job of the same studio, which is a worker's foreign one as well. */
enum which { OWN, SIBLING, FOREIGN, UNKNOWN, WHICH_COUNT };
enum outcome { BROKERS, OPENED, HAS, LACKS, STORED, THERE, NOT_THERE, REFUSED, SHUT };

static const char *const AS_NAMES[] = {"worker", "studio", "other studio", "operator",
                                       "unknown key"};
static const char *const WHICH_NAMES[] = {"own", "a sibling's", "foreign", "unknown"};
static const struct {
    Wl__Bulk__BodyCase body;
    enum code code;
} OUTCOMES[] = {
    [BROKERS] = {WL__BULK__BODY_FAULT, CODE_INVALID},
    [OPENED] = {WL__BULK__BODY_OPENED, CODE_OK},
    [HAS] = {WL__BULK__BODY_MISSING, CODE_OK},
    [LACKS] = {WL__BULK__BODY_MISSING, CODE_OK},
    [STORED] = {WL__BULK__BODY_STORED, CODE_OK},
    [THERE] = {WL__BULK__BODY_BLOCK, CODE_OK},
    [NOT_THERE] = {WL__BULK__BODY_FAULT, CODE_UNKNOWN},
    [REFUSED] = {WL__BULK__BODY_FAULT, CODE_REFUSED},
    [SHUT] = {WL__BULK__BODY_FAULT, CODE_STATE}, /* no pass was shown */
};

static struct pass_text {
    uint8_t bytes[PASS_BYTES];
    size_t size;
} passes[AS_COUNT];
static struct peer_link controls[AS_COUNT], bulks[AS_COUNT];

/* Block `n`: its bytes, and its name. */
static struct block {
    uint8_t bytes[64];
    struct block_id id;
} block_at(uint8_t n)
{
    struct block block = {.bytes = {n}};

    digest(block.bytes, sizeof block.bytes, &block.id);
    return block;
}

/* A refs block that names one block. */
static struct block_id refs_of(uint8_t n, uint8_t ret_bytes[40])
{
    struct block block = block_at(n);
    struct block_id id;

    memcpy(ret_bytes, (uint8_t[]){'W', 'R', '1', 0, 1, 0, 0, 0}, 8);
    memcpy(ret_bytes + 8, &block.id, sizeof block.id);
    digest(ret_bytes, 8 + sizeof block.id, &id);
    return id;
}

/* ---- what is said ---- */

static enum which which;
static struct block_id asked; /* of the cell */

static Wl__Bulk *say_bulk(enum as as, Wl__Bulk *message, const void *data, size_t size)
{
    zmq_pollitem_t in = {.socket = bulks[as].socket, .events = ZMQ_POLLIN},
                   out = {.socket = bulks[as].socket, .events = ZMQ_POLLOUT};
    zmq_msg_t header, frame;
    Wl__Bulk *answer;
    const char *why;

    message->request = ++bulks[as].request;
    assert_int_equal(wire_bulk_pack(message, &header), 0);
    assert_int_equal(zmq_msg_init_size(&frame, size), 0);
    if (size)
        memcpy(zmq_msg_data(&frame), data, size);
    assert_int_equal(zmq_poll(&out, 1, PATIENCE_MS), 1);
    assert_int_equal(link_send(bulks[as].socket, NULL, &header, size ? &frame : NULL), 0);
    if (!size)
        zmq_msg_close(&frame);
    assert_int_equal(zmq_poll(&in, 1, PATIENCE_MS), 1);
    assert_int_equal(link_receive(bulks[as].socket, NULL, NULL, &header, &frame), 0);
    assert_int_equal(wire_bulk_unpack(zmq_msg_data(&header), zmq_msg_size(&header), &answer, &why),
                     0);
    zmq_msg_close(&header);
    zmq_msg_close(&frame);
    return answer;
}

typedef Wl__Bulk *ask(enum as as);

static Wl__Bulk *open_with(enum as as, const struct pass_text *pass)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Open open = WL__OPEN__INIT;

    open.pass = (ProtobufCBinaryData){pass->size, (uint8_t *)pass->bytes};
    message.body_case = WL__BULK__BODY_OPEN;
    message.open = &open;
    return say_bulk(as, &message, NULL, 0);
}

/* With its own pass, another studio's, or none that was ever given. */
static Wl__Bulk *ask_open(enum as as)
{
    enum as whose = which == OWN ? as : as == OTHER ? STUDIO : OTHER;
    struct pass_text pass = passes[whose];

    if (which == UNKNOWN)
        memset(pass.bytes, 0x55, pass.size);
    return open_with(as, &pass);
}

static Wl__Bulk *ask_have(enum as as)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Have have = WL__HAVE__INIT;

    have.ids = (ProtobufCBinaryData){sizeof asked, asked.bytes};
    message.body_case = WL__BULK__BODY_HAVE;
    message.have = &have;
    return say_bulk(as, &message, NULL, 0);
}

static Wl__Bulk *ask_get(enum as as)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Get get = WL__GET__INIT;

    get.ids = (ProtobufCBinaryData){sizeof asked, asked.bytes};
    message.body_case = WL__BULK__BODY_GET;
    message.get = &get;
    return say_bulk(as, &message, NULL, 0);
}

static Wl__Bulk *put(enum as as, const void *data, size_t size, bool plain)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Put put = WL__PUT__INIT;
    struct block_id id;

    digest(data, size, &id);
    put.id = (ProtobufCBinaryData){sizeof id, id.bytes};
    put.plain = plain;
    message.body_case = WL__BULK__BODY_PUT;
    message.put = &put;
    return say_bulk(as, &message, data, size);
}

static uint8_t number_of(enum as as)
{
    static const uint8_t numbers[][WHICH_COUNT] = {{1, 2, 3, 99}, {3, 3, 1, 99}};

    return numbers[as == OTHER][which];
}

static Wl__Bulk *ask_put(enum as as)
{
    struct block block = block_at(which == UNKNOWN ? (uint8_t)(90 + as) : number_of(as));

    asked = block.id;
    return put(as, block.bytes, sizeof block.bytes, false);
}

/* ---- the table ---- */

/* A worker's pass reads its job; what it puts, and whether a block is there, is its studio's. */
static const struct row {
    ask *ask;
    enum outcome worker[WHICH_COUNT], studio[WHICH_COUNT];
    bool brokers;
} ROWS[] = {
    [WL__BULK__BODY_HAVE] = {ask_have, {HAS, HAS, LACKS, LACKS}, {HAS, HAS, LACKS, LACKS}},
    [WL__BULK__BODY_GET] = {ask_get,
                            {THERE, NOT_THERE, NOT_THERE, NOT_THERE},
                            {THERE, THERE, NOT_THERE, NOT_THERE}},
    [WL__BULK__BODY_PUT] = {ask_put,
                            {STORED, STORED, STORED, STORED},
                            {STORED, STORED, STORED, STORED}},
    [WL__BULK__BODY_OPEN] = {ask_open,
                             {OPENED, REFUSED, REFUSED, REFUSED},
                             {OPENED, REFUSED, REFUSED, REFUSED}},
    [WL__BULK__BODY_OPENED] = {.brokers = true},
    [WL__BULK__BODY_MISSING] = {.brokers = true},
    [WL__BULK__BODY_STORED] = {.brokers = true},
    [WL__BULK__BODY_BLOCK] = {.brokers = true},
    [WL__BULK__BODY_FAULT] = {.brokers = true},
};
/* Passes and puts last: what they change others ask for. */
static const unsigned LAST[] = {WL__BULK__BODY_PUT, WL__BULK__BODY_OPEN};

static const struct row *row_of(const ProtobufCFieldDescriptor *body)
{
    const struct row *row = body->id < ARRAY_SIZE(ROWS) ? &ROWS[body->id] : NULL;

    if (!row || (!row->ask && !row->brokers))
        fail_msg("%s: who may say it?", body->name);
    return row;
}

static Wl__Bulk *ask_brokers(enum as as, const ProtobufCFieldDescriptor *body)
{
    static max_align_t memory[64];
    Wl__Bulk message = WL__BULK__INIT;
    zmq_msg_t header;

    protobuf_c_message_init(body->descriptor, memory);
    message.body_case = (Wl__Bulk__BodyCase)body->id;
    message.open = (Wl__Open *)(void *)memory; /* any of the union's pointers */
    if (wire_bulk_pack(&message, &header) == 0)
        zmq_msg_close(&header);
    return say_bulk(as, &message, NULL, 0);
}

/* ---- a cell ---- */

static bool fits(const Wl__Bulk *answer, enum outcome outcome)
{
    if (answer->body_case != OUTCOMES[outcome].body)
        return false;
    if (answer->body_case == WL__BULK__BODY_FAULT)
        return answer->fault->code == OUTCOMES[outcome].code;
    return answer->body_case != WL__BULK__BODY_MISSING ||
           (answer->missing->bits.len == 1 && answer->missing->bits.data[0] == (outcome == LACKS));
}

static size_t packed(Wl__Bulk *answer, uint8_t ret_bytes[1024])
{
    size_t size;
    uint8_t *at;

    answer->request = 0;
    size = wl__bulk__pack(answer, ret_bytes);
    assert_true(size <= 1024);
    at = memmem(ret_bytes, size, asked.bytes, sizeof asked.bytes);
    if (at)
        memset(at, 0, sizeof asked.bytes);
    return size;
}

static void cells_of(const ProtobufCFieldDescriptor *body, enum as as)
{
    const struct row *row = row_of(body);
    uint8_t told[WHICH_COUNT][1024];
    size_t sizes[WHICH_COUNT];
    const enum outcome *outcomes = as == WORKER ? row->worker : row->studio;

    if (row->brokers && (as == OPERATOR || as == GONE))
        return; /* some of them are none when they are empty */

    for (which = 0; which < WHICH_COUNT; which++) {
        enum outcome outcome = row->brokers ? BROKERS : outcomes[which];

        if (as == OPERATOR || as == GONE)
            outcome = row->ask == ask_open ? REFUSED : SHUT;

        asked = block_at(number_of(as)).id;
        Wl__Bulk *answer = row->ask ? row->ask(as) : ask_brokers(as, body);
        if (!fits(answer, outcome))
            fail_msg("%s by the %s, %s: outcome %d was expected, body %d code %d came", body->name,
                     AS_NAMES[as], WHICH_NAMES[which], (int)outcome, (int)answer->body_case,
                     answer->body_case == WL__BULK__BODY_FAULT ? (int)answer->fault->code : 0);
        sizes[which] = packed(answer, told[which]);
        wl__bulk__free_unpacked(answer, NULL);
    }
    for (which = SIBLING; which < UNKNOWN; which++)
        if (outcomes[which] == outcomes[UNKNOWN] &&
            (sizes[which] != sizes[UNKNOWN] ||
             memcmp(told[which], told[UNKNOWN], sizes[UNKNOWN]) != 0))
            fail_msg("%s by the %s: %s is not told of as unknown is", body->name, AS_NAMES[as],
                     WHICH_NAMES[which]);
}

/* ---- who is there ---- */

static void submit_refs(enum as as, uint8_t job, uint8_t block)
{
    uint8_t request_id[16] = {job}, id[16], key[32] = {7}, refs_bytes[40];
    struct block_id refs = refs_of(block, refs_bytes);
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    Wl__Submit submit = WL__SUBMIT__INIT;
    ProtobufCBinaryData names = {sizeof refs, refs.bytes};

    memset(id, job, sizeof id);
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, key};
    step.name = (char *)"beauty";
    submit.request_id = (ProtobufCBinaryData){16, request_id};
    submit.job = (ProtobufCBinaryData){16, id};
    submit.job_key = (ProtobufCBinaryData){32, key};
    submit.name = (char *)"shot";
    submit.recipe = &recipe;
    submit.steps = steps;
    submit.n_steps = 1;
    submit.refs = &names;
    submit.n_refs = 1;
    say(&controls[as], &ENVELOPE(SUBMIT, submit, &submit));
}

static void pass_of(enum as as, const ProtobufCBinaryData *pass)
{
    passes[as].size = pass->len;
    memcpy(passes[as].bytes, pass->data, pass->len);
}

static void connect_bulk(enum as as, enum who who)
{
    bulks[as] = (struct peer_link){0};
    assert_int_equal(link_context_new(1, &bulks[as].context), 0);
    assert_int_equal(link_connect(bulks[as].context, LINK_BULK, broker.bulk, &broker.server,
                                  &broker.keys[who], &bulks[as].socket),
                     0);
}

static void open_as(enum as as)
{
    Wl__Bulk *answer = open_with(as, &passes[as]);

    assert_int_equal(answer->body_case, WL__BULK__BODY_OPENED);
    wl__bulk__free_unpacked(answer, NULL);
}

static void person_join(enum as as, enum who who)
{
    Wl__PassRequest request = WL__PASS_REQUEST__INIT;

    join_as(&controls[as], who);
    say(&controls[as], &ENVELOPE(PASS_REQUEST, pass_request, &request));
    Wl__Envelope *pass = hear(&controls[as], WL__ENVELOPE__BODY_PASS);

    pass_of(as, &pass->pass->pass);
    wire_free(pass);
    connect_bulk(as, who);
    open_as(as);
}

static void have_block(enum as as, const void *data, size_t size, bool plain)
{
    Wl__Bulk *answer = put(as, data, size, plain);

    struct block_id id;

    digest(data, size, &id);
    assert_int_equal(answer->body_case, WL__BULK__BODY_STORED);
    assert_memory_equal(answer->stored->id.data, id.bytes, sizeof id);
    wl__bulk__free_unpacked(answer, NULL);
}

static void have_scene(enum as as, uint8_t n, uint8_t job)
{
    struct block block = block_at(n);
    uint8_t refs[40];

    (void)refs_of(n, refs);
    have_block(as, block.bytes, sizeof block.bytes, false);
    have_block(as, refs, 8 + sizeof block.id, true);
    submit_refs(as, job, n);
    wire_free(hear(&controls[as], WL__ENVELOPE__BODY_ACCEPTED));
}

/* A key that is forbidden while its link is open. */
static void gone_join(void)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    bool refused = false;

    allow(NOBODY, ROLE_STUDIO, "acme", "gone");
    person_join(GONE, NOBODY);
    forbid(NOBODY);
    while (!refused) {
        assert_true(clock_monotonic_ns() < until_ns);
        Wl__Bulk *answer = ask_have(GONE);
        refused = answer->body_case == WL__BULK__BODY_FAULT && answer->fault->code == CODE_REFUSED;
        wl__bulk__free_unpacked(answer, NULL);
    }
}

static int everybody(void **state)
{
    if (setup(state) != 0)
        return -1;
    person_join(STUDIO, ANN);
    person_join(OTHER, BOB);
    have_scene(STUDIO, 1, 0x11);
    worker_join(&controls[WORKER], BOX1, 1);
    Wl__Envelope *assign = hear(&controls[WORKER], WL__ENVELOPE__BODY_ASSIGN);

    pass_of(WORKER, &assign->assign->pass);
    wire_free(assign);
    connect_bulk(WORKER, BOX1);
    open_as(WORKER);
    have_scene(STUDIO, 2, 0x12);
    have_scene(OTHER, 3, 0x22);
    join_as(&controls[OPERATOR], OPS);
    connect_bulk(OPERATOR, OPS);
    passes[OPERATOR] = passes[STUDIO];
    gone_join();
    return 0;
}

static int nobody(void **state)
{
    for (int i = 0; i < AS_COUNT; i++) {
        disconnect(&controls[i]);
        disconnect(&bulks[i]);
    }
    return teardown(state);
}

static bool is_last(unsigned body)
{
    for (size_t i = 0; i < ARRAY_SIZE(LAST); i++)
        if (LAST[i] == body)
            return true;
    return false;
}

static void every_request_by_every_role_of_own_foreign_and_unknown_blocks(void **state)
{
    const ProtobufCMessageDescriptor *bulk = &wl__bulk__descriptor;

    (void)state;
    for (int last = 0; last < 2; last++)
        for (unsigned i = 0; i < bulk->n_fields; i++)
            if (bulk->fields[i].type == PROTOBUF_C_TYPE_MESSAGE &&
                is_last(bulk->fields[i].id) == last)
                for (enum as as = 0; as < AS_COUNT; as++)
                    cells_of(&bulk->fields[i], as);
}

/* Refused with the same words, but for the id that they repeat. */
static void same_refusals(Wl__Envelope *one, Wl__Envelope *other, enum code code)
{
    uint8_t bytes[2][1024];
    size_t sizes[2];
    Wl__Envelope *both[] = {one, other};

    for (int i = 0; i < 2; i++) {
        assert_int_equal(both[i]->refusal->code, code);
        for (size_t k = 0; k < both[i]->refusal->n_missing; k++)
            memset(both[i]->refusal->missing[k].data, 0, 32);
        both[i]->request = 0;
        sizes[i] = wl__envelope__pack(both[i], bytes[i]);
        wire_free(both[i]);
    }
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(bytes[0], bytes[1], sizes[0]);
}

static Wl__Envelope *refused_refs(uint8_t job, uint8_t block)
{
    submit_refs(OTHER, job, block);
    return hear(&controls[OTHER], WL__ENVELOPE__BODY_REFUSAL);
}

static void a_submission_names_nothing_of_others(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    Wl__Envelope *foreign, *unknown;
    uint64_t one = 1;

    (void)state;
    foreign = refused_refs(0x71, 1);
    unknown = refused_refs(0x72, 98);
    same_refusals(foreign, unknown, CODE_MISSING);

    assert_int_equal(store_studio_set(broker.state, "other", NULL, &one, &why), 0);
    for (uint8_t job = 0x80, used_up = 0; !used_up; job++) { /* it counts within a second */
        submit_refs(OTHER, job, 3);
        Wl__Envelope *answer = hear_within(&controls[OTHER], PATIENCE_MS);

        assert_non_null(answer);
        used_up = answer->body_case == WL__ENVELOPE__BODY_REFUSAL;
        wire_free(answer);
        usleep(20000);
        assert_true(job < 0xff);
    }
    foreign = refused_refs(0x11, 3);
    unknown = refused_refs(0x73, 3);
    same_refusals(foreign, unknown, CODE_QUOTA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            every_request_by_every_role_of_own_foreign_and_unknown_blocks, everybody, nobody),
        cmocka_unit_test_setup_teardown(a_submission_names_nothing_of_others, everybody, nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
