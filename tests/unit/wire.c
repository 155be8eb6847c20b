/* Every limit, from a list of its own: just inside is taken, just past is refused by name. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <proto/limits.h>
#include <proto/state.h>
#include <proto/wire.h>

/* ---- a valid instance of any message: one entry in every list, every submessage there ---- */

/* Kept reachable until the process ends. */
static void *keep(size_t size)
{
    static struct kept {
        struct kept *next;
        max_align_t data[];
    } * all;
    struct kept *kept = calloc(1, sizeof(*kept) + size);

    kept->next = all;
    all = kept;
    return kept->data;
}

static size_t plain_size(const char *message, const char *field)
{
    static const char *const sixteen[] = {"job", "request_id", "boot", "prefix"};

    (void)message;
    for (size_t i = 0; i < ARRAY_SIZE(sixteen); i++)
        if (strcmp(field, sixteen[i]) == 0)
            return 16;
    return 32;
}

static void *fill_value(const ProtobufCMessage *parent, const ProtobufCFieldDescriptor *field);

static ProtobufCMessage *fill(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = keep(descriptor->sizeof_message);

    protobuf_c_message_init(descriptor, message);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        char *at = (char *)message + field->offset;

        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            continue; /* bodies are tested one by one */
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            *(size_t *)((char *)message + field->quantifier_offset) = 1;
            *(void **)at = fill_value(message, field);
        } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
            ProtobufCBinaryData *data = fill_value(message, field);
            *(ProtobufCBinaryData *)at = *data;
        } else if (field->type == PROTOBUF_C_TYPE_STRING ||
                   field->type == PROTOBUF_C_TYPE_MESSAGE) {
            void **pointer = fill_value(message, field);
            *(void **)at = *pointer;
        }
    }
    return message;
}

/* An array of one. */
static void *fill_value(const ProtobufCMessage *parent, const ProtobufCFieldDescriptor *field)
{
    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        ProtobufCBinaryData *data = keep(sizeof(*data));

        data->len = plain_size(parent->descriptor->short_name, field->name);
        data->data = keep(data->len);
        return data;
    }
    void **pointer = keep(sizeof(*pointer));
    if (field->type == PROTOBUF_C_TYPE_STRING)
        *pointer = strcpy(keep(2), "x");
    else
        *pointer = fill(field->descriptor);
    return pointer;
}

static int round_trip(const ProtobufCMessage *message, const char **ret_why)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(size + 1);
    ProtobufCMessage *again = NULL;

    protobuf_c_message_pack(message, data);
    int r = wire_message_unpack(message->descriptor, data, size, &again, ret_why);
    if (r == 0)
        protobuf_c_message_free_unpacked(again, NULL);
    free(data);
    return r;
}

/* ---- the limits ---- */

enum what { COUNT, MAX, MIN, UNIT };

static const struct limit {
    const ProtobufCMessageDescriptor *message;
    const char *field;
    enum what what;
    size_t limit;
} LIMITS[] = {
    {&wl__submit__descriptor, "job", MAX, 16},
    {&wl__submit__descriptor, "job", MIN, 16},
    {&wl__submit__descriptor, "request_id", MAX, 16},
    {&wl__submit__descriptor, "request_id", MIN, 16},
    {&wl__submit__descriptor, "job_key", MAX, 32},
    {&wl__submit__descriptor, "job_key", MIN, 32},
    {&wl__submit__descriptor, "name", MAX, LIMIT_NAME_BYTES},
    {&wl__submit__descriptor, "note", MAX, LIMIT_NOTE_BYTES},
    {&wl__submit__descriptor, "person", MAX, LIMIT_NAME_BYTES},
    {&wl__submit__descriptor, "tags", COUNT, LIMIT_TAGS},
    {&wl__submit__descriptor, "tags", MAX, LIMIT_NAME_BYTES},
    {&wl__submit__descriptor, "steps", COUNT, LIMIT_STEPS},
    {&wl__submit__descriptor, "refs", COUNT, LIMIT_REFS_BLOCKS},
    {&wl__submit__descriptor, "refs", MAX, 32},
    {&wl__step__descriptor, "space", COUNT, LIMIT_SPACE_PARAMETERS},
    {&wl__step__descriptor, "amounts", COUNT, LIMIT_AMOUNTS},
    {&wl__step__descriptor, "attributes", COUNT, LIMIT_ATTRIBUTES},
    {&wl__step__descriptor, "dependencies", COUNT, LIMIT_DEPENDENCIES},
    {&wl__space_parameter__descriptor, "name", MAX, LIMIT_NAME_BYTES},
    {&wl__space_parameter__descriptor, "ranges", COUNT, LIMIT_SPACE_RANGES},
    {&wl__space_parameter__descriptor, "texts", COUNT, LIMIT_SPACE_VALUES},
    {&wl__space_parameter__descriptor, "texts", MAX, LIMIT_PATH_BYTES},
    {&wl__attribute__descriptor, "any_of", COUNT, LIMIT_ATTRIBUTE_VALUES},
    {&wl__attribute__descriptor, "all_of", COUNT, LIMIT_ATTRIBUTE_VALUES},
    {&wl__block_ref__descriptor, "id", MAX, 32},
    {&wl__block_ref__descriptor, "id", MIN, 32},
    {&wl__block_ref__descriptor, "wrapped_key", MIN, 32},
    {&wl__block_ref__descriptor, "inline_sealed", MAX,
     LIMIT_LOG_SEGMENT_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES},
    {&wl__block_key__descriptor, "key", MAX, 32},
    {&wl__block_key__descriptor, "id", MIN, 32},
    {&wl__hello__descriptor, "program", MAX, LIMIT_NAME_BYTES},
    {&wl__hello__descriptor, "boot", MAX, 16},
    {&wl__offer__descriptor, "gpus", COUNT, LIMIT_GPUS},
    {&wl__offer__descriptor, "amounts", COUNT, LIMIT_AMOUNTS},
    {&wl__refusal__descriptor, "missing", COUNT, LIMIT_MISSING_IDS},
    {&wl__refusal__descriptor, "what", MAX, LIMIT_NOTE_BYTES},
    {&wl__jobs_request__descriptor, "prefix", MAX, 16},
    {&wl__jobs__descriptor, "jobs", COUNT, LIMIT_PAGE},
    {&wl__show__descriptor, "live", COUNT, LIMIT_PAGE},
    {&wl__step_row__descriptor, "done_tasks", COUNT, LIMIT_SPACE_RANGES},
    {&wl__results__descriptor, "results", COUNT, LIMIT_PAGE},
    {&wl__attempt_row__descriptor, "message", MAX, LIMIT_MESSAGE_BYTES},
    {&wl__verb__descriptor, "tasks", COUNT, LIMIT_RANGES_VERB},
    {&wl__verb__descriptor, "frames", COUNT, LIMIT_RANGES_VERB},
    {&wl__notice__descriptor, "job", MAX, 16},
    {&wl__workers__descriptor, "workers", COUNT, LIMIT_PAGE},
    {&wl__inventory__descriptor, "items", COUNT, LIMIT_INVENTORY},
    {&wl__verdict__descriptor, "leases", COUNT, LIMIT_INVENTORY},
    {&wl__inventory_item__descriptor, "ticket", MIN, 32},
    {&wl__progress__descriptor, "status", MAX, LIMIT_MESSAGE_BYTES},
    {&wl__result__descriptor, "message", MAX, LIMIT_MESSAGE_BYTES},
    {&wl__result__descriptor, "refs", COUNT, LIMIT_REFS_BLOCKS},
    {&wl__result__descriptor, "log", COUNT, LIMIT_LOG_BYTES / LIMIT_LOG_SEGMENT_BYTES},
    {&wl__assign__descriptor, "key_in", MIN, 32},
    {&wl__assign__descriptor, "key_out", MAX, 32},
    {&wl__assign__descriptor, "pass", MAX, PASS_BYTES},
    {&wl__pass__descriptor, "pass", MIN, 1},
    {&wl__committed__descriptor, "missing", COUNT, LIMIT_MISSING_IDS},
    {&wl__have__descriptor, "ids", MAX, LIMIT_HAVE_IDS * 32},
    {&wl__have__descriptor, "ids", UNIT, 32},
    {&wl__get__descriptor, "ids", UNIT, 32},
    {&wl__missing__descriptor, "bits", MAX, LIMIT_HAVE_IDS / 8},
    {&wl__put__descriptor, "id", MIN, 32},
    {&wl__fault__descriptor, "id", MAX, 32},
    {&wl__recipe__descriptor, "parameters", COUNT, LIMIT_PARAMETERS},
    {&wl__recipe__descriptor, "roots", COUNT, LIMIT_ROOTS},
    {&wl__recipe__descriptor, "environments", COUNT, LIMIT_ENVIRONMENTS},
    {&wl__recipe__descriptor, "variables", COUNT, LIMIT_VARIABLES},
    {&wl__root__descriptor, "manifest", COUNT, LIMIT_LEAVES},
    {&wl__root__descriptor, "leaves", COUNT, LIMIT_LEAVES},
    {&wl__leaf__descriptor, "before", MAX, LIMIT_LEAF_BYTES},
    {&wl__leaf__descriptor, "after", MAX, LIMIT_LEAF_BYTES},
    {&wl__leaf__descriptor, "after", COUNT, LIMIT_LEAF_NAMES},
    {&wl__result__descriptor, "manifest", COUNT, LIMIT_MANIFEST_BLOCKS},
    {&wl__result_row__descriptor, "manifest", COUNT, LIMIT_MANIFEST_BLOCKS},
    {&wl__dependency_result__descriptor, "manifest", COUNT, LIMIT_MANIFEST_BLOCKS},
    {&wl__root__descriptor, "path", MAX, LIMIT_PATH_BYTES},
    {&wl__step_recipe__descriptor, "outputs", COUNT, LIMIT_OUTPUTS},
    {&wl__step_recipe__descriptor, "inputs", COUNT, LIMIT_ROOTS},
    {&wl__step_recipe__descriptor, "files", COUNT, LIMIT_FILES_EMBEDDED},
    {&wl__root_use__descriptor, "patterns", COUNT, LIMIT_PATTERNS},
    {&wl__action__descriptor, "arguments", COUNT, LIMIT_ARGUMENTS},
    {&wl__action__descriptor, "arguments", MAX, LIMIT_TEXT_BYTES},
    {&wl__embedded_file__descriptor, "data", MAX, LIMIT_TEXT_BYTES},
    {&wl__variable__descriptor, "value", MAX, LIMIT_TEXT_BYTES},
    {&wl__file_entry__descriptor, "path", MAX, LIMIT_PATH_BYTES},
    {&wl__file_entry__descriptor, "link", MAX, LIMIT_PATH_BYTES},
};

static const ProtobufCFieldDescriptor *field_named(const ProtobufCMessageDescriptor *message,
                                                   const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message, name);

    assert_non_null(field);
    return field;
}

static void set_size(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, size_t size)
{
    char *at = (char *)message + field->offset;
    char *value = keep(size + 1);

    memset(value, 'y', size);
    value[size] = 0;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        at = *(char **)at;
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){size, (uint8_t *)value};
    else
        *(char **)at = value;
}

static void set_count(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, size_t n)
{
    char *at = (char *)message + field->offset;
    size_t each =
        field->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : sizeof(void *);
    char *array = keep(n * each);

    for (size_t i = 0; i < n; i++)
        memcpy(array + i * each, *(char **)at, each);
    *(char **)at = array;
    *(size_t *)((char *)message + field->quantifier_offset) = n;
}

static int with(const struct limit *limit, size_t value, const char **ret_why)
{
    ProtobufCMessage *message = fill(limit->message);
    const ProtobufCFieldDescriptor *field = field_named(limit->message, limit->field);

    if (limit->what == COUNT)
        set_count(message, field, value);
    else
        set_size(message, field, value);
    return round_trip(message, ret_why);
}

static void just_inside_a_limit_is_taken_just_past_it_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(LIMITS); i++) {
        const struct limit *limit = &LIMITS[i];
        size_t past = limit->what == MIN ? limit->limit - 1 : limit->limit + 1;
        char name[128];
        const char *why = "";

        if (limit->message == &wl__have__descriptor && limit->what == MAX)
            past = limit->limit + 32;
        if (with(limit, limit->limit, &why) != 0)
            fail_msg("%s.%s inside: %s", limit->message->short_name, limit->field, why);
        snprintf(name, sizeof(name), "%s.%s: ", limit->message->short_name, limit->field);
        if (with(limit, past, &why) != WIRE_E_LIMIT || strncmp(why, name, strlen(name)) != 0)
            fail_msg("%s past its limit of %zu: %s", name, limit->limit, why);
    }
}

static void inline_bytes_are_limited_by_who_refers_to_them(void **state)
{
    Wl__Result *result = (Wl__Result *)fill(&wl__result__descriptor);
    Wl__Submit *submit = (Wl__Submit *)fill(&wl__submit__descriptor);
    uint8_t bytes[LIMIT_RECIPE_INLINE_BYTES + 100] = {0};
    const char *why = "";

    (void)state;
    result->manifest[0]->inline_sealed =
        (ProtobufCBinaryData){LIMIT_INLINE_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES, bytes};
    assert_int_equal(round_trip(&result->base, &why), 0);
    result->manifest[0]->inline_sealed.len++;
    assert_int_equal(round_trip(&result->base, &why), WIRE_E_LIMIT);
    submit->recipe->inline_sealed =
        (ProtobufCBinaryData){LIMIT_RECIPE_INLINE_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES, bytes};
    assert_int_equal(round_trip(&submit->base, &why), 0);
    submit->recipe->inline_sealed.len++;
    assert_int_equal(round_trip(&submit->base, &why), WIRE_E_LIMIT);
}

static void a_message_without_what_it_needs_is_refused(void **state)
{
    Wl__Started *started = (Wl__Started *)fill(&wl__started__descriptor);
    Wl__Submit *submit = (Wl__Submit *)fill(&wl__submit__descriptor);
    Wl__Result *result = (Wl__Result *)fill(&wl__result__descriptor);
    const char *why = "";

    (void)state;
    assert_int_equal(round_trip(&started->base, &why), 0);
    started->lease = NULL;
    assert_int_equal(round_trip(&started->base, &why), WIRE_E_LIMIT);
    assert_non_null(strstr(why, "Started.lease"));
    submit->recipe = NULL;
    assert_int_equal(round_trip(&submit->base, &why), WIRE_E_LIMIT);
    result->n_manifest = 0; /* it failed */
    assert_int_equal(round_trip(&result->base, &why), 0);
}

static void every_field_with_a_size_has_a_rule(void **state)
{
    const ProtobufCMessageDescriptor *roots[] = {&wl__envelope__descriptor, &wl__bulk__descriptor,
                                                 &wl__recipe__descriptor,
                                                 &wl__manifest__descriptor,
                                                 &wl__enrol__descriptor,
                                                 &wl__enrolled__descriptor};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
        const char *gap = wire_schema_gap(roots[i]);
        if (gap)
            fail_msg("%s has no rule in proto/wire.c", gap);
    }
}

static void a_field_without_a_rule_is_seen(void **state)
{
    ProtobufCMessageDescriptor changed = wl__submit__descriptor;
    ProtobufCFieldDescriptor fields[32];

    (void)state;
    assert_true(changed.n_fields <= 32);
    memcpy(fields, changed.fields, changed.n_fields * sizeof(fields[0]));
    changed.fields = fields;
    for (unsigned i = 0; i < changed.n_fields; i++) {
        if (strcmp(fields[i].name, "note") == 0)
            fields[i].name = "novelty";
    }
    assert_string_equal(wire_schema_gap(&changed), "Submit.novelty");
}

static void an_envelope_comes_back_as_it_left(void **state)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *again = NULL;
    zmq_msg_t message;
    const char *why = "";

    (void)state;
    envelope.request = 7;
    envelope.body_case = WL__ENVELOPE__BODY_SUBMIT;
    envelope.submit = (Wl__Submit *)fill(&wl__submit__descriptor);
    assert_int_equal(wire_pack(&envelope, &message), 0);
    assert_int_equal(wire_unpack(zmq_msg_data(&message), zmq_msg_size(&message), &again, &why), 0);
    assert_int_equal(again->request, 7);
    assert_int_equal(again->body_case, WL__ENVELOPE__BODY_SUBMIT);
    assert_int_equal(again->submit->job_key.len, 32);
    wire_free(again);
    zmq_msg_close(&message);
}

static void one_alone_is_what_protobuf_makes_of_it(void **state)
{
    const ProtobufCMessageDescriptor *all = &wl__envelope__descriptor;
    struct wire_packet packet = {0};

    (void)state;
    for (unsigned i = 0; i < all->n_fields; i++) {
        Wl__Envelope envelope = WL__ENVELOPE__INIT;
        zmq_msg_t whole, message;

        if (all->fields[i].type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        envelope.request = i % 2 ? 300 * i : 0;
        envelope.body_case = (Wl__Envelope__BodyCase)all->fields[i].id;
        envelope.hello = (Wl__Hello *)fill(all->fields[i].descriptor); /* a union of pointers */
        if (wire_pack(&envelope, &whole) != 0)
            continue; /* filled to its limits it is too large */
        assert_int_equal(wire_packet_add(&packet, &envelope), 0);
        assert_int_equal(wire_packet_message(&packet, &message), 0);
        assert_int_equal(zmq_msg_size(&message), zmq_msg_size(&whole));
        assert_memory_equal(zmq_msg_data(&message), zmq_msg_data(&whole), zmq_msg_size(&whole));
        zmq_msg_close(&whole);
        zmq_msg_close(&message);
    }
    wire_packet_deinit(&packet);
}

static int packet_beat(struct wire_packet *packet, uint64_t request)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat beat = WL__BEAT__INIT;

    envelope.request = request;
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    return wire_packet_add(packet, &envelope);
}

static void several_come_back_in_order_and_no_more_than_the_limit(void **state)
{
    struct wire_packet packet = {0};
    struct wire_each each;
    const char *why = "";
    const void *data;
    zmq_msg_t message;
    size_t size, n = 0;

    (void)state;
    while (packet_beat(&packet, n + 1) == 0)
        n++;
    assert_int_equal(n, LIMIT_PACKET);
    assert_int_equal(wire_packet_message(&packet, &message), 0);
    assert_int_equal(packet.n, 0);
    wire_each_init(&each, zmq_msg_data(&message), zmq_msg_size(&message));
    for (size_t i = 0; i < n; i++) {
        Wl__Envelope *envelope;

        assert_int_equal(wire_each_next(&each, &data, &size), 0);
        assert_int_equal(wire_unpack(data, size, &envelope, &why), 0);
        assert_int_equal(envelope->request, i + 1);
        wire_free(envelope);
    }
    assert_int_equal(wire_each_next(&each, &data, &size), WIRE_E_END);
    zmq_msg_close(&message);
    wire_packet_deinit(&packet);
}

static void what_is_no_packet_is_read_to_where_it_breaks(void **state)
{
    static const struct {
        const char *bytes;
        size_t size, whole;
        int end;
    } cases[] = {
        {"\0", 1, 0, WIRE_E_END},
        {"\0\0\0", 3, 2, WIRE_E_END},                 /* empty ones */
        {"\0\1x\2y", 5, 1, WIRE_E_FORM},              /* the last is cut short */
        {"\0\200", 2, 0, WIRE_E_FORM},                /* within its size */
        {"\0\377\377\377\377\1x", 7, 0, WIRE_E_FORM}, /* a size that no message has */
        {"x", 1, 1, WIRE_E_END},
        {"", 0, 1, WIRE_E_END},
    };
    char many[LIMIT_PACKET + 2] = {0};
    struct wire_each each;
    const void *data;
    size_t size, n = 0;
    int r;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        wire_each_init(&each, cases[i].bytes, cases[i].size);
        for (n = 0; (r = wire_each_next(&each, &data, &size)) == 0; n++)
            assert_true((const char *)data + size <= cases[i].bytes + cases[i].size);
        assert_int_equal(n, cases[i].whole);
        assert_int_equal(r, cases[i].end);
        assert_int_equal(wire_each_next(&each, &data, &size), WIRE_E_END); /* nor is what is left */
    }
    wire_each_init(&each, many, sizeof(many));
    for (n = 0; (r = wire_each_next(&each, &data, &size)) == 0; n++)
        ;
    assert_int_equal(n, LIMIT_PACKET);
    assert_int_equal(r, WIRE_E_FORM);
    assert_int_equal(wire_each_next(&each, &data, &size), WIRE_E_END);
}

/* ---- leases that share a recipe ---- */

static void packet_assign(struct wire_packet *packet, uint8_t job, uint8_t recipe)
{
    uint8_t bytes[32] = {job}, mine[32] = {recipe};
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__BlockRef block = WL__BLOCK_REF__INIT;
    Wl__Assign assign = WL__ASSIGN__INIT;
    Wl__Lease lease = WL__LEASE__INIT;

    lease.job = (ProtobufCBinaryData){16, bytes};
    lease.attempt = packet->n + 1;
    block.id = block.wrapped_key = (ProtobufCBinaryData){32, mine};
    assign.lease = &lease;
    assign.ticket = assign.key_out = (ProtobufCBinaryData){32, bytes};
    if (recipe) {
        assign.recipe = &block;
        assign.key_in = (ProtobufCBinaryData){32, mine};
    }
    envelope.body_case = WL__ENVELOPE__BODY_ASSIGN;
    envelope.assign = &assign;
    assert_int_equal(wire_packet_add(packet, &envelope), 0);
}

static void a_lease_without_a_recipe_has_that_of_the_one_before_it(void **state)
{
    static const struct {
        uint8_t job, recipe, has; /* 0: it is refused */
    } cases[] = {{1, 0, 0}, {1, 5, 5}, {1, 0, 5}, {1, 0, 5}, {2, 0, 0},
                 {2, 6, 6}, {1, 0, 0}, {2, 0, 6}, {2, 7, 7}, {2, 0, 7}};
    struct wire_packet packet = {0};
    struct wire_inbox inbox = {.has_message = true};
    const char *why;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        packet_assign(&packet, cases[i].job, cases[i].recipe);
    assert_int_equal(wire_packet_message(&packet, &inbox.message), 0);
    wire_each_init(&inbox.each, zmq_msg_data(&inbox.message), zmq_msg_size(&inbox.message));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Wl__Envelope *envelope = NULL;
        int r = wire_next(&inbox, NULL, NULL, NULL, &envelope, &why);

        assert_int_equal(r, cases[i].has ? 0 : -EPROTO);
        if (r != 0)
            continue;
        assert_int_equal(envelope->assign->lease->attempt, i + 1);
        assert_int_equal(envelope->assign->recipe->id.data[0], cases[i].has);
        assert_int_equal(envelope->assign->key_in.len, 32);
        assert_int_equal(envelope->assign->key_in.data[0], cases[i].has);
        wire_free(envelope);
    }
    wire_inbox_deinit(&inbox);
    wire_packet_deinit(&packet);
}

/* ---- the plain result ---- */

struct plain_form {
    Wl__Envelope envelope;
    Wl__Result result;
    Wl__Lease lease;
    Wl__BlockRef block, *blocks[LIMIT_MANIFEST_BLOCKS + 1];
    Wl__Usage usage;
    uint8_t bytes[LIMIT_INLINE_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES + 1];
    ProtobufCBinaryData refs[1];
};

static void plain_make(struct plain_form *form)
{
    memset(form, 0, sizeof(*form));
    memset(form->bytes, 7, sizeof(form->bytes));
    wl__envelope__init(&form->envelope);
    wl__result__init(&form->result);
    wl__lease__init(&form->lease);
    wl__block_ref__init(&form->block);
    wl__usage__init(&form->usage);
    form->lease.job = (ProtobufCBinaryData){16, form->bytes};
    form->lease.step = 3;
    form->lease.task = 1ULL << 40;
    form->lease.floor = 5;
    form->lease.epoch = 300;
    form->lease.attempt = 77777;
    form->block.id = form->block.wrapped_key = (ProtobufCBinaryData){32, form->bytes};
    form->block.inline_sealed = (ProtobufCBinaryData){180, form->bytes};
    form->block.sealed_bytes = 180;
    for (size_t i = 0; i < ARRAY_SIZE(form->blocks); i++)
        form->blocks[i] = &form->block;
    form->refs[0] = (ProtobufCBinaryData){32, form->bytes};
    form->usage.wall_ns = 1ULL << 60;
    form->usage.memory_bytes = 12345;
    form->result.session = 9;
    form->result.lease = &form->lease;
    form->result.ticket = (ProtobufCBinaryData){32, form->bytes};
    form->result.n_manifest = 1;
    form->result.manifest = form->blocks;
    form->result.usage = &form->usage;
    form->result.started_wall_s = 1800000000;
    form->result.ended_wall_s = 1800000001;
    form->result.output_files = 2;
    form->envelope.body_case = WL__ENVELOPE__BODY_RESULT;
    form->envelope.result = &form->result;
}

/* The bytes of it, which are good until the packet is used again. */
static bool plain_read(struct wire_packet *packet, const struct plain_form *form,
                       struct wire_plain *ret_plain)
{
    wire_packet_clear(packet);
    if (wire_packet_add(packet, &form->envelope) != 0)
        return false; /* too large for a message */
    return wire_plain(packet->data + packet->bare, packet->size - packet->bare, ret_plain);
}

static void a_plain_result_says_the_same_read_where_it_lies(void **state)
{
    struct wire_packet packet = {0};
    struct wire_plain plain;
    struct plain_form form;
    uint8_t stored[1024], packed[1024];

    (void)state;
    plain_make(&form);
    for (size_t blocks = 1; blocks <= 3; blocks++) {
        form.result.n_manifest = blocks;
        form.result.usage = blocks == 2 ? NULL : &form.usage;
        assert_true(plain_read(&packet, &form, &plain));
        assert_int_equal(plain.session, 9);
        assert_memory_equal(plain.lease.job, form.bytes, 16);
        assert_int_equal(plain.lease.step, 3);
        assert_int_equal(plain.lease.task, 1ULL << 40);
        assert_int_equal(plain.lease.floor, 5);
        assert_int_equal(plain.lease.epoch, 300);
        assert_int_equal(plain.lease.attempt, 77777);
        assert_memory_equal(plain.ticket, form.bytes, 32);
        assert_int_equal(plain.usage.wall_ns, blocks == 2 ? 0 : 1ULL << 60);
        assert_int_equal(plain.usage.memory_bytes, blocks == 2 ? 0 : 12345);

        Wl__Result kept = form.result;
        kept.session = 0;
        kept.ticket = (ProtobufCBinaryData){0};
        assert_int_equal(plain.lease_size + plain.rest_size, wl__result__pack(&kept, packed));
        wire_plain_stored(&plain, stored);
        assert_memory_equal(stored, packed, plain.lease_size + plain.rest_size);
    }
    wire_packet_deinit(&packet);
}

static void what_is_not_plain_goes_the_general_way(void **state)
{
    enum { CASES = 18 };
    struct wire_packet packet = {0};
    struct wire_plain plain;
    struct plain_form form;
    Wl__Beat beat = WL__BEAT__INIT;

    (void)state;
    for (int i = 0; i < CASES; i++) {
        plain_make(&form);
        switch (i) {
        case 0:
            form.envelope.request = 1;
            break;
        case 1:
            form.result.class_ = CLASS_RENDERER;
            break;
        case 2:
            form.result.exit_status = 1;
            break;
        case 3:
            form.result.message = (char *)"warned";
            break;
        case 4:
            form.result.n_manifest = 0;
            break;
        case 5:
            form.result.n_manifest = LIMIT_MANIFEST_BLOCKS + 1;
            break;
        case 6:
            form.result.n_refs = 1;
            form.result.refs = form.refs;
            break;
        case 7:
            form.result.n_log = 1;
            form.result.log = form.blocks;
            break;
        case 8:
            form.result.ticket.len = 31;
            break;
        case 9:
            form.lease.job.len = 15;
            break;
        case 10:
            form.block.id.len = 33;
            break;
        case 11:
            form.block.wrapped_key.len = 31;
            break;
        case 12:
            form.block.sealed_bytes = LIMIT_SEALED_BYTES + 1;
            break;
        case 13:
            form.block.inline_sealed.len = sizeof(form.bytes);
            break;
        case 14:
            form.block.inline_sealed.len = 0;
            break; /* it lies in the vault */
        case 15:
            form.result.lease = NULL;
            break;
        case 16:
            form.result.ticket.len = 0;
            break;
        case 17:
            form.envelope.body_case = WL__ENVELOPE__BODY_BEAT;
            form.envelope.beat = &beat;
            break;
        }
        if (plain_read(&packet, &form, &plain))
            fail_msg("case %d was taken for plain", i);
    }
    /* Cut short anywhere, or with something behind it. */
    plain_make(&form);
    assert_true(plain_read(&packet, &form, &plain));
    for (size_t size = 0; size < packet.size - packet.bare; size++)
        assert_false(wire_plain(packet.data + packet.bare, size, &plain));
    wire_packet_deinit(&packet);
}

/* A plain result made by hand. */
struct by_hand {
    uint8_t bytes[512];
    size_t size;
};

static int numbers_put, number_longer; /* that one takes more bytes than it needs */

static void hand_number(struct by_hand *hand, uint64_t value)
{
    size_t least = numbers_put++ == number_longer ? 6 : 1;

    for (size_t n = 1; value >= 0x80 || n < least; n++, value >>= 7)
        hand->bytes[hand->size++] = (uint8_t)(value | 0x80);
    hand->bytes[hand->size++] = (uint8_t)value;
}

static void hand_bytes(struct by_hand *hand, unsigned field, const void *data, size_t size)
{
    hand_number(hand, field << 3 | 2);
    hand_number(hand, size);
    memcpy(hand->bytes + hand->size, data, size);
    hand->size += size;
}

static void hand_value(struct by_hand *hand, unsigned field, uint64_t value)
{
    hand_number(hand, field << 3);
    hand_number(hand, value);
}

static void hand_result(struct by_hand *envelope)
{
    static const uint8_t some[32] = {7};
    struct by_hand lease = {0}, block = {0}, usage = {0}, result = {0};

    numbers_put = 0;
    hand_bytes(&lease, 1, some, 16);
    hand_value(&lease, 6, 77777);
    hand_bytes(&block, 1, some, 32);
    hand_bytes(&block, 2, some, 32);
    hand_value(&block, 3, 20);
    hand_bytes(&block, 4, some, 20);
    hand_value(&usage, 1, 1000);
    hand_value(&result, 1, 9);
    hand_bytes(&result, 2, lease.bytes, lease.size);
    hand_bytes(&result, 3, some, 32);
    hand_bytes(&result, 7, block.bytes, block.size);
    hand_bytes(&result, 10, usage.bytes, usage.size);
    hand_value(&result, 14, 1);
    envelope->size = 0;
    hand_bytes(envelope, WL__ENVELOPE__BODY_RESULT, result.bytes, result.size);
}

/* protobuf-c reads at most five bytes of a field's number or size: what is stored as it came must
 * be what can be read again. */
static void a_result_with_a_number_that_is_too_long_is_not_plain(void **state)
{
    struct by_hand hand;
    struct wire_plain plain;

    (void)state;
    number_longer = -1;
    hand_result(&hand);
    assert_int_equal(numbers_put, 28);
    assert_true(wire_plain(hand.bytes, hand.size, &plain));
    for (number_longer = 0; number_longer < 28; number_longer++) {
        hand_result(&hand);
        if (wire_plain(hand.bytes, hand.size, &plain))
            fail_msg("number %d", number_longer);
    }
}

static void a_body_needs_nothing_of_the_bodies_beside_it(void **state)
{
    Wl__Bulk bulk = WL__BULK__INIT, *again = NULL;
    Wl__Stored stored = WL__STORED__INIT;
    uint8_t id[32] = {0};
    zmq_msg_t message;
    const char *why = "";

    (void)state;
    stored.id = (ProtobufCBinaryData){32, id};
    bulk.body_case = WL__BULK__BODY_STORED;
    bulk.stored = &stored;
    assert_int_equal(wire_bulk_pack(&bulk, &message), 0);
    assert_int_equal(wire_bulk_unpack(zmq_msg_data(&message), zmq_msg_size(&message), &again, &why),
                     0);
    wl__bulk__free_unpacked(again, NULL);
    zmq_msg_close(&message);
}

static void what_is_too_large_for_a_frame_is_neither_sent_nor_read(void **state)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *again = NULL;
    Wl__Done done = WL__DONE__INIT;
    zmq_msg_t message;
    const char *why = "";
    uint8_t *data = calloc(1, LIMIT_CONTROL_BYTES + 1);
    char *text = malloc(LIMIT_CONTROL_BYTES + 1);

    (void)state;
    memset(text, 'x', LIMIT_CONTROL_BYTES);
    text[LIMIT_CONTROL_BYTES] = 0;
    done.text = text;
    envelope.body_case = WL__ENVELOPE__BODY_DONE;
    envelope.done = &done;
    assert_int_equal(wire_pack(&envelope, &message), -EMSGSIZE);
    assert_int_equal(wire_unpack(data, LIMIT_CONTROL_BYTES + 1, &again, &why), WIRE_E_LIMIT);
    assert_int_equal(wire_unpack("\377\377\377", 3, &again, &why), WIRE_E_FORM);
    free(data);
    free(text);
}

/* protobuf-c reads a tag of 0 that is two bytes long, keeps it, and writes it in one. */
static void a_field_that_could_not_be_read_again_is_refused(void **state)
{
    static const uint8_t within[] = {0xa2, 2, 5, 0x80, 0, 0, 0x18, 1},
                         beside[] = {0xa2, 2, 2, 0x18, 1, 0x80, 0, 0},
                         newer[] = {0xa2, 2, 5, 0xf8, 7, 0, 0x18, 1};
    Wl__Envelope *envelope;
    const char *why;

    assert_int_equal(wire_unpack(within, sizeof(within), &envelope, &why), WIRE_E_FORM);
    assert_string_equal(why, "Done: a field has the number 0");
    assert_int_equal(wire_unpack(beside, sizeof(beside), &envelope, &why), WIRE_E_FORM);
    assert_int_equal(wire_unpack(newer, sizeof(newer), &envelope, &why), 0);
    assert_int_equal(envelope->done->base.n_unknown_fields, 1);
    wire_free(envelope);
}

static void empty_entries_cannot_take_memory_without_bound(void **state)
{
    size_t size = 8u << 20;
    uint8_t *data = calloc(1, size);
    ProtobufCMessage *message;
    const char *why;

    (void)state;
    for (size_t i = 0; i < size; i += 2)
        data[i] = 0x0a; /* Manifest.files, 0 bytes */
    assert_int_equal(wire_message_unpack(&wl__manifest__descriptor, data, size, &message, &why),
                     WIRE_E_FORM);
    free(data);
}

static void a_space_survives_the_wire(void **state)
{
    const struct space_range ranges[] = {{1, 9, 2}, {-5, -1, 1}};
    const char *texts[] = {"left", "right"};
    Wl__SpaceParameter **parameters;
    struct space space, again;
    size_t n;

    (void)state;
    space_init(&space);
    assert_int_equal(space_add_ints(&space, "Frame", 0, 3, true, ranges, 2), 0);
    assert_int_equal(space_add_texts(&space, "Eye", 1, SPACE_STRING, texts, 2), 0);
    assert_int_equal(space_seal(&space), 0);
    assert_int_equal(wire_space_set(&space, &parameters, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(wire_space(parameters, n, &again), 0);
    assert_int_equal(space_size(&again), space_size(&space));
    assert_int_equal(again.parameters[0].chunk, 3);
    assert_true(again.parameters[0].contiguous);
    assert_int_equal(again.parameters[0].ranges[0].step, 2);
    assert_string_equal(again.parameters[1].texts[1], "right");
    parameters[0]->type = 9;
    struct space refused;
    assert_int_equal(wire_space(parameters, n, &refused), SPACE_E_RANGE);
    parameters[0]->type = SPACE_INT;
    parameters[0]->ranges[0]->step = 0;
    assert_int_equal(wire_space(parameters, n, &refused), SPACE_E_RANGE);
    free(parameters);
    space_deinit(&again);
    space_deinit(&space);
}

static void leases_and_block_references_survive_the_wire(void **state)
{
    struct lease lease = {{1}, 2, 3, 4, 5, 6}, lease_again;
    struct block_key key = {.id = {{7}}, .key = {8}, .sealed_bytes = 9, .body_bytes = 10}, again;
    uint8_t secret[32] = {11}, wrapped[32];
    _cleanup_(sealer_freep) struct sealer *sealer = NULL;
    Wl__Lease lease_message;
    Wl__BlockKey key_message;
    Wl__BlockRef ref;

    (void)state;
    assert_int_equal(sealer_new(&sealer), 0);
    wire_lease_set(&lease_message, &lease);
    assert_int_equal(wire_lease(&lease_message, &lease_again), 0);
    assert_memory_equal(lease_again.job, lease.job, 16);
    assert_int_equal(lease_again.attempt, 6);
    wire_block_key_set(&key_message, &key);
    assert_int_equal(wire_block_key(&key_message, &again), 0);
    assert_memory_equal(&again, &key, sizeof(key));
    wire_block_ref_set(sealer, secret, &key, wrapped, &ref);
    assert_memory_not_equal(wrapped, key.key, 32);
    assert_int_equal(wire_block_ref(sealer, secret, &ref, &again), 0);
    assert_memory_equal(again.key, key.key, 32);
    assert_int_equal(again.sealed_bytes, 9);
    assert_int_equal(wire_lease(NULL, &lease_again), WIRE_E_FORM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(just_inside_a_limit_is_taken_just_past_it_refused_by_name),
        cmocka_unit_test(inline_bytes_are_limited_by_who_refers_to_them),
        cmocka_unit_test(a_message_without_what_it_needs_is_refused),
        cmocka_unit_test(every_field_with_a_size_has_a_rule),
        cmocka_unit_test(a_field_without_a_rule_is_seen),
        cmocka_unit_test(an_envelope_comes_back_as_it_left),
        cmocka_unit_test(one_alone_is_what_protobuf_makes_of_it),
        cmocka_unit_test(several_come_back_in_order_and_no_more_than_the_limit),
        cmocka_unit_test(what_is_no_packet_is_read_to_where_it_breaks),
        cmocka_unit_test(a_plain_result_says_the_same_read_where_it_lies),
        cmocka_unit_test(a_lease_without_a_recipe_has_that_of_the_one_before_it),
        cmocka_unit_test(what_is_not_plain_goes_the_general_way),
        cmocka_unit_test(a_result_with_a_number_that_is_too_long_is_not_plain),
        cmocka_unit_test(a_body_needs_nothing_of_the_bodies_beside_it),
        cmocka_unit_test(what_is_too_large_for_a_frame_is_neither_sent_nor_read),
        cmocka_unit_test(a_field_that_could_not_be_read_again_is_refused),
        cmocka_unit_test(empty_entries_cannot_take_memory_without_bound),
        cmocka_unit_test(a_space_survives_the_wire),
        cmocka_unit_test(leases_and_block_references_survive_the_wire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
