/* matrix.c - who may say what, of which ids: every message of the schema, by every role, of what is
 * its own, of what is another's, and of what nobody has. What another has is answered as what
 * nobody has, byte for byte.
 *
 * The messages are the schema's, read from its descriptor: one without a row in matrix_rows.h
 * fails, and so does one that names things of a kind that its row does not tell of.
 */
#include <poll.h>
#include <tests/unit/matrix_rows.h>

/* What bytes name, in whichever message; a name of a worker is text. */
static const struct {
    const char *field;
    unsigned names;
} FIELDS[] = {
    {"job", JOB},           {"prefix", JOB},        {"request_id", REQUEST},  {"ticket", LEASE},
    {"id", BLOCK},          {"refs", BLOCK},        {"boot", NOTHING},        {"job_key", NOTHING},
    {"wrapped_key", BLOCK}, {"submitter", NOTHING}, {"inline_sealed", BLOCK},
};

static unsigned names_of(const ProtobufCMessageDescriptor *message)
{
    unsigned names = 0;

    for (unsigned i = 0; i < message->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->fields[i];
        unsigned found = 0;

        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            names |= names_of(field->descriptor);
        if (strcmp(message->short_name, "Tend") == 0 && strcmp(field->name, "workers") == 0)
            names |= NAME;
        if (field->type != PROTOBUF_C_TYPE_BYTES)
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(FIELDS); k++)
            if (strcmp(FIELDS[k].field, field->name) == 0)
                found = FIELDS[k].names;
        if (!found)
            fail_msg("%s.%s: does it name anything?", message->short_name, field->name);
        names |= found & ~(unsigned)NOTHING;
    }
    return names & LEASE ? names & ~(unsigned)JOB : names; /* a lease names its job */
}

static const struct rule *rule_of(const ProtobufCFieldDescriptor *body)
{
    const struct rule *rule = body->id < ARRAY_SIZE(RULES) ? &RULES[body->id] : NULL;

    if (!rule || (!rule->make && !rule->brokers))
        fail_msg("%s: who may say it?", body->name);
    return rule;
}

static void every_message_has_a_row_which_knows_what_it_names(void **state)
{
    const ProtobufCMessageDescriptor *envelope = &wl__envelope__descriptor;

    (void)state;
    for (unsigned i = 0; i < envelope->n_fields; i++) {
        const ProtobufCFieldDescriptor *body = &envelope->fields[i];

        if (body->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (rule_of(body)->make && names_of(body->descriptor) != rule_of(body)->names)
            fail_msg("%s: its row tells of other kinds of ids", body->name);
    }
}

/* ---- who is there ---- */

static struct peer_link links[AS_COUNT], box2;
static Wl__Envelope *leases[2]; /* of box1 and box2 */
static uint16_t number;         /* of the cell: requests and unknown ids are new in each */

enum { REFUSED_A_SECOND = 50 };
enum { ANNS = 0x11, BOBS = 0x22, ANNS_UPLOAD = 0x33, BOBS_UPLOAD = 0x44, NOBODYS = 0x55 };

static void cell_of(enum as as, enum which which)
{
    static const uint8_t jobs[][WHICH_COUNT] = {{ANNS, BOBS, BOBS_UPLOAD, NOBODYS},
                                                {BOBS, ANNS, ANNS_UPLOAD, NOBODYS}};

    cell = (struct cell){.as = as, .which = which, .session = links[WORKER].session};
    memset(cell.job, jobs[as == OTHER][which], sizeof cell.job);
    memcpy(cell.request, &(uint16_t){++number}, sizeof number);
    if (which == UNKNOWN)
        memcpy(cell.job + 4, &number, sizeof number);
    cell.job_data = (ProtobufCBinaryData){16, cell.job};
    cell.request_data = (ProtobufCBinaryData){16, cell.request};
}

/* Box1's own lease; box2's; one that was never given, of a job that is there; or of one that is
 * not. */
static void cell_lease(void)
{
    const Wl__Envelope *lease;

    while (!leases[0])
        leases[0] = hear(&links[WORKER], WL__ENVELOPE__BODY_ASSIGN);
    lease = leases[cell.as == WORKER && cell.which == OWN ? 0 : 1];
    cell.lease = *lease->assign->lease;
    cell.ticket = lease->assign->ticket;
    if (cell.which == UPLOADED)
        cell.lease.attempt += 1000;
    if (cell.which == UNKNOWN)
        cell.lease.job = cell.job_data;
}

static void take_as(enum as as, uint8_t job, const char *name)
{
    Wl__Submit message;

    cell_of(as, OWN);
    memset(cell.job, job, sizeof cell.job);
    submit_of(&message, name);
    say(&links[as], &ENVELOPE(SUBMIT, submit, &message));
    wire_free(hear(&links[as], WL__ENVELOPE__BODY_ACCEPTED));
}

static void upload_as(enum as as, uint8_t job)
{
    Wl__Uploading message = WL__UPLOADING__INIT;

    memset(cell.job, job, sizeof cell.job);
    message.job = (ProtobufCBinaryData){16, cell.job};
    message.name = (char *)"crater";
    say(&links[as], &ENVELOPE(UPLOADING, uploading, &message));
    wire_free(hear(&links[as], WL__ENVELOPE__BODY_DONE));
}

/* Bob's job is paused, so that both workers are ann's. */
static void pause_bobs(void)
{
    Wl__Verb message = WL__VERB__INIT;

    cell_of(OTHER, OWN);
    message.request_id = cell.request_data;
    message.job = cell.job_data;
    message.kind = WL__VERB_KIND__VERB_PAUSE;
    say(&links[OTHER], &ENVELOPE(VERB, verb, &message));
    wire_free(hear(&links[OTHER], WL__ENVELOPE__BODY_DONE));
}

/* A key that was forbidden while its link was there. */
static void join_gone(void)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    bool refused = false;

    allow(NOBODY, ROLE_STUDIO, "acme-films", "gone");
    join_as(&links[GONE], NOBODY);
    forbid(NOBODY);
    while (!refused) {
        Wl__FarmRequest farm = WL__FARM_REQUEST__INIT;

        assert_true(clock_monotonic_ns() < until_ns);
        say(&links[GONE], &ENVELOPE(FARM_REQUEST, farm_request, &farm));
        Wl__Envelope *answer = hear_within(&links[GONE], PATIENCE_MS);
        assert_non_null(answer);
        refused = answer->body_case == WL__ENVELOPE__BODY_REFUSAL;
        wire_free(answer);
    }
}

static int everybody(void **state)
{
    number = 0;
    if (setup(state) != 0)
        return -1;
    allow(ANN, ROLE_STUDIO, "acme-films", "annabel");
    allow(BOB, ROLE_STUDIO, "zenith-vfx", "bobbin");
    join_as(&links[STUDIO], ANN);
    join_as(&links[OTHER], BOB);
    join_as(&links[OPERATOR], OPS);
    take_as(STUDIO, ANNS, "volcano");
    take_as(OTHER, BOBS, "teaser");
    upload_as(STUDIO, ANNS_UPLOAD);
    upload_as(OTHER, BOBS_UPLOAD);
    pause_bobs();
    worker_join(&links[WORKER], BOX1, 2);
    worker_join(&box2, BOX2, 1);
    leases[0] = NULL;
    leases[1] = hear(&box2, WL__ENVELOPE__BODY_ASSIGN);
    join_gone();
    return 0;
}

static int nobody(void **state)
{
    for (int i = 0; i < AS_COUNT; i++)
        disconnect(&links[i]);
    disconnect(&box2);
    for (int i = 0; i < 2; i++)
        if (leases[i])
            wire_free(leases[i]);
    return teardown(state);
}

/* ---- a cell ---- */

/* What cannot be read has no number; nor has what a worker says and hears of its leases. */
static bool answers(const Wl__Envelope *said, const Wl__Envelope *heard)
{
    switch (heard->body_case) {
    case WL__ENVELOPE__BODY_REFUSAL:
        return heard->request == 0 || heard->request == said->request;
    case WL__ENVELOPE__BODY_COMMITTED:
        return said->body_case == WL__ENVELOPE__BODY_RESULT;
    case WL__ENVELOPE__BODY_VERDICT:
        return said->body_case == WL__ENVELOPE__BODY_INVENTORY;
    default:
        return said->request && heard->request == said->request;
    }
}

/* What was said, then a beat: where that is answered first, there is no answer. */
static Wl__Envelope *ask(struct peer_link *link, Wl__Envelope *envelope, bool quiet)
{
    Wl__Beat beat_message = WL__BEAT__INIT;
    uint64_t asked = ++link->request;
    zmq_msg_t message;

    /* Of whom more is refused in a second is put out. */
    if (link == &links[WORKER] && asked % REFUSED_A_SECOND == 0)
        (void)poll(NULL, 0, 1100);
    envelope->request = envelope->body_case == WL__ENVELOPE__BODY_RESULT ? 0 : asked;
    assert_int_equal(wire_pack(envelope, &message), 0);
    assert_int_equal(link_send(link->socket, NULL, &message, NULL), 0);
    beat_message.session = link->session;
    if (quiet)
        say(link, &ENVELOPE(BEAT, beat, &beat_message));
    for (;;) {
        Wl__Envelope *heard = hear_within(link, PATIENCE_MS);

        if (!heard)
            fail_msg("no answer to body %d", (int)envelope->body_case);
        if (answers(envelope, heard))
            return heard;
        if (heard->body_case == WL__ENVELOPE__BODY_ASSIGN && link == &links[WORKER] && !leases[0]) {
            leases[0] = heard;
            continue;
        }
        bool beaten = quiet && heard->request == link->request;

        wire_free(heard);
        if (beaten)
            return NULL;
    }
}

static enum code code_of(const Wl__Envelope *answer)
{
    if (!answer)
        return CODE_OK;
    if (answer->body_case == WL__ENVELOPE__BODY_COMMITTED)
        return (enum code)answer->committed->code;
    return answer->body_case == WL__ENVELOPE__BODY_REFUSAL ? (enum code)answer->refusal->code
                                                           : CODE_OK;
}

static void lease_blank(Wl__Lease *lease)
{
    memset(lease->job.data, 0, lease->job.len);
    lease->attempt = 0;
}

/* Without what the asker said itself, and what is another in each answer by its nature. */
static void blank(Wl__Envelope *answer)
{
    answer->request = 0;
    if (answer->body_case == WL__ENVELOPE__BODY_COMMITTED)
        lease_blank(answer->committed->lease);
    for (size_t i = 0;
         answer->body_case == WL__ENVELOPE__BODY_VERDICT && i < answer->verdict->n_leases; i++)
        lease_blank(answer->verdict->leases[i]->lease);
    if (answer->body_case == WL__ENVELOPE__BODY_ACCEPTED) {
        memset(answer->accepted->job.data, 0, 16);
        answer->accepted->sequence = 0;
    }
    if (answer->body_case == WL__ENVELOPE__BODY_PASS) /* of a moment */
        answer->pass->pass.len = 0;
}

static struct bytes packed(const Wl__Envelope *answer)
{
    struct bytes bytes = {0};

    if (!answer)
        return bytes;
    assert_int_equal(bytes_reserve(&bytes, wl__envelope__get_packed_size(answer) + 1), 0);
    bytes.size = wl__envelope__pack(answer, bytes.data);
    return bytes;
}

static bool holds(const struct bytes *bytes, const char *text)
{
    return bytes->size && memmem(bytes->data, bytes->size, text, strlen(text));
}

/* Nothing of one studio is in what another is told. */
static void check_told(enum as as, const struct bytes *told)
{
    static const char *const marks[][5] = {{"acme-films", "annabel", "volcano", "box1", "box2"},
                                           {"zenith-vfx", "bobbin", "teaser", "box1", "box2"}};
    const char *const *mark = marks[as == STUDIO];
    size_t n = as == OTHER ? 5 : 3; /* ann's tasks are on both workers */

    for (size_t i = 0; (as == STUDIO || as == OTHER) && i < n; i++)
        if (holds(told, mark[i]))
            fail_msg("the %s is told of %s", AS_NAMES[as], mark[i]);
}

static enum outcome outcome_of(const struct rule *rule, enum as as, enum which which)
{
    if (as == GONE)
        return NO_KEY;
    if (rule->brokers)
        return BROKERS;
    return as == WORKER ? rule->worker[which]
                        : as == OPERATOR
               ? rule->operator[which] : rule->studio[which];
}

static void make_any(const ProtobufCFieldDescriptor *body, Wl__Envelope *envelope)
{
    static max_align_t memory[64];

    assert_true(sizeof memory >=
                ((const ProtobufCMessageDescriptor *)body->descriptor)->sizeof_message);
    protobuf_c_message_init(body->descriptor, memory);
    envelope->hello = (Wl__Hello *)(void *)memory; /* any of the union's pointers */
}

static struct bytes told(const ProtobufCFieldDescriptor *body, enum as as, enum which which)
{
    const struct rule *rule = rule_of(body);
    enum outcome outcome = outcome_of(rule, as, which);
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer;
    struct bytes bytes;

    cell_of(as, which);
    cell_lease();
    envelope.body_case = (Wl__Envelope__BodyCase)body->id;
    if (rule->make)
        rule->make(&envelope);
    else
        make_any(body, &envelope);
    bool ends = as == WORKER && which == OWN &&
                (body->id == WL__ENVELOPE__BODY_RESULT || body->id == WL__ENVELOPE__BODY_RELEASED);
    Wl__Envelope *ended = ends ? TAKE_PTR(leases[0]) : NULL;

    answer = ask(&links[as], &envelope, outcome == QUIET);
    if (code_of(answer) != OUTCOMES[outcome].code || (outcome == QUIET) != !answer)
        fail_msg("%s by the %s, %s: %s was expected, code %d came", body->name, AS_NAMES[as],
                 WHICH_NAMES[which], OUTCOMES[outcome].name, (int)code_of(answer));
    if (answer)
        blank(answer);
    bytes = packed(answer);
    check_told(as, &bytes);
    if (answer)
        wire_free(answer);
    if (ended)
        wire_free(ended);
    return bytes;
}

/* What others' requests must not change. */
static struct bytes anns(void)
{
    Wl__ShowRequest message = WL__SHOW_REQUEST__INIT;
    uint8_t job[16];

    memset(job, ANNS, sizeof job);
    message.job = (ProtobufCBinaryData){16, job};
    say(&links[STUDIO], &ENVELOPE(SHOW_REQUEST, show_request, &message));
    Wl__Envelope *answer = hear(&links[STUDIO], WL__ENVELOPE__BODY_SHOW);
    Wl__JobRow *row = answer->show->row;

    row->waiting = row->ready = row->leased = row->running = row->done = row->last_result = 0;
    answer->show->n_steps = answer->show->n_live = 0;
    answer->show->usage = NULL;
    answer->request = 0;
    struct bytes bytes = packed(answer);
    wire_free(answer);
    return bytes;
}

static bool same(const struct bytes *one, const struct bytes *other)
{
    return one->size == other->size &&
           (one->size == 0 || memcmp(one->data, other->data, one->size) == 0);
}

/* What another has is told of as what nobody has. An operator sees all. */
static void check_alike(const ProtobufCFieldDescriptor *body, enum as as, struct bytes *list)
{
    const struct rule *rule = rule_of(body);

    for (enum which which = FOREIGN; as != OPERATOR && which < UNKNOWN; which++)
        if (outcome_of(rule, as, which) == outcome_of(rule, as, UNKNOWN) &&
            !same(&list[which], &list[UNKNOWN]))
            fail_msg("%s by the %s: %s is not told of as unknown is", body->name, AS_NAMES[as],
                     WHICH_NAMES[which]);
}

static void row_of(const ProtobufCFieldDescriptor *body)
{
    for (enum as as = 0; as < AS_COUNT; as++) {
        if (as == GONE && rule_of(body)->brokers)
            continue;
        struct bytes list[WHICH_COUNT] = {0}, before = anns();

        for (enum which which = 0; which < WHICH_COUNT; which++)
            list[which] = told(body, as, which);
        check_alike(body, as, list);
        struct bytes after = anns();

        if (as != STUDIO && as != OPERATOR && !same(&before, &after))
            fail_msg("%s by the %s changed a job of the studio's", body->name, AS_NAMES[as]);
        for (enum which which = 0; which < WHICH_COUNT; which++)
            bytes_deinit(&list[which]);
        bytes_deinit(&before);
        bytes_deinit(&after);
    }
}

/* Submissions last: unknown ids are jobs afterwards. */
static void every_request_by_every_role_of_own_foreign_and_unknown_ids(void **state)
{
    const ProtobufCMessageDescriptor *envelope = &wl__envelope__descriptor;

    (void)state;
    for (int last = 0; last < 2; last++)
        for (unsigned i = 0; i < envelope->n_fields; i++)
            if (envelope->fields[i].type == PROTOBUF_C_TYPE_MESSAGE &&
                (envelope->fields[i].id == WL__ENVELOPE__BODY_SUBMIT) == last)
                row_of(&envelope->fields[i]);
}

/* ---- what the matrix does not reach ---- */

static Wl__Envelope *submit_as(enum as as, enum which which)
{
    Wl__Submit message;

    cell_of(as, which);
    submit_of(&message, "shot");
    return ask(&links[as], &ENVELOPE(SUBMIT, submit, &message), false);
}

static void a_full_disk_tells_nothing_of_others(void **state)
{
    struct bytes list[2];

    (void)state;
    join_as(&links[STUDIO], ANN);
    join_as(&links[OTHER], BOB);
    take_as(STUDIO, ANNS, "volcano");
    assert_int_equal(broker_stop(SIGTERM), 0);
    broker.reserve_bytes = 1ULL << 60;
    broker_start();
    broker.reserve_bytes = 0;
    disconnect(&links[OTHER]);
    join_as(&links[OTHER], BOB);
    for (int i = 0; i < 2; i++) {
        Wl__Envelope *answer = submit_as(OTHER, i ? UNKNOWN : FOREIGN);

        assert_int_equal(code_of(answer), CODE_FULL);
        assert_null(strpbrk(answer->refusal->why, "0123456789")); /* how much others have */
        blank(answer);
        list[i] = packed(answer);
        wire_free(answer);
    }
    assert_true(same(&list[0], &list[1]));
    for (int i = 0; i < 2; i++)
        bytes_deinit(&list[i]);
    disconnect(&links[STUDIO]);
    disconnect(&links[OTHER]);
}

static void who_waits_is_not_told_how_many_workers_there_are(void **state)
{
    Wl__ShowRequest message = WL__SHOW_REQUEST__INIT;

    (void)state;
    join_as(&links[STUDIO], ANN);
    worker_join(&links[WORKER], BOX1, 1);
    worker_join(&box2, BOX2, 1);
    take_as(STUDIO, ANNS, "volcano");
    wire_free(hear(&box2, WL__ENVELOPE__BODY_ASSIGN));
    cell_of(STUDIO, OWN);
    message.job = cell.job_data;
    say(&links[STUDIO], &ENVELOPE(SHOW_REQUEST, show_request, &message));
    Wl__Envelope *answer = hear(&links[STUDIO], WL__ENVELOPE__BODY_SHOW);
    const char *why = answer->show->steps[0]->why;

    assert_non_null(strstr(why, "busy"));
    assert_null(strpbrk(why, "0123456789"));
    wire_free(answer);
    disconnect(&links[STUDIO]);
    disconnect(&links[WORKER]);
    disconnect(&box2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_a_row_which_knows_what_it_names),
        cmocka_unit_test_setup_teardown(every_request_by_every_role_of_own_foreign_and_unknown_ids,
                                        everybody, nobody),
        TEST(a_full_disk_tells_nothing_of_others),
        TEST(who_waits_is_not_told_how_many_workers_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
