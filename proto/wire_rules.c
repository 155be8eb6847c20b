/* wire_rules.c - the idea: limits are one table of (message, field) and one walk over what was
 * unpacked, so that a new field without a rule is found by a test, and no other code checks
 * lengths.
 */
#include <proto/wire_rules.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/limits.h>

/* `max` bounds the bytes of a string or bytes field, the value of a number, and the inline bytes of
 * a BlockRef; `min` likewise, and 1 on a singular message says that it must be there. */
struct rule {
    const char *message; /* NULL: in every message */
    const char *field;
    size_t min, max;
    size_t count; /* of a repeated field */
    size_t unit;  /* the size is a multiple of it */
    bool empty;   /* may also be empty */
};

#define EXACT(n)       .min = (n), .max = (n)
#define INLINE(n)      .max = (n) + LIMIT_BLOCK_OVERHEAD_BYTES
#define MANIFEST_PARTS ((size_t)LIMIT_REFS_PER_BLOCK * LIMIT_REFS_BLOCKS)

/* A rule for a message comes before the one for every message. */
static const struct rule RULES[] = {
    /* ids and keys */
    {"Fault", "id", EXACT(32), .empty = true},
    {NULL, "id", EXACT(32)},
    {NULL, "ids", .min = 32, .max = LIMIT_HAVE_IDS * 32, .unit = 32},
    {NULL, "bits", .min = 1, .max = LIMIT_HAVE_IDS / 8},
    {"Notice", "job", EXACT(16), .empty = true},
    {NULL, "job", EXACT(16)},
    {NULL, "request_id", EXACT(16)},
    {NULL, "boot", EXACT(16), .empty = true},
    {NULL, "prefix", .max = 16},
    {"WorkerRow", "key", EXACT(32), .empty = true},
    {"TendedRow", "key", EXACT(32), .empty = true},
    {NULL, "key", EXACT(32)},
    {NULL, "wrapped_key", EXACT(32)},
    {"Assign", "key_in", EXACT(32), .empty = true}, /* see "recipe" */
    {NULL, "key_in", EXACT(32)},
    {NULL, "key_out", EXACT(32)},
    {"Show", "job_key", EXACT(32), .empty = true},
    {NULL, "job_key", EXACT(32)},
    {NULL, "submitter", EXACT(32), .empty = true},
    {NULL, "ticket", EXACT(32)},
    {"Enrol", "secret", EXACT(32)},
    {"Enrolled", "server_key", EXACT(32), .empty = true}, /* of who is let in */
    {"Assign", "pass", .max = PASS_BYTES, .empty = true},
    {NULL, "pass", .min = 1, .max = PASS_BYTES},
    {NULL, "refs", EXACT(32), .count = LIMIT_REFS_BLOCKS},
    {NULL, "missing", EXACT(32), .count = LIMIT_MISSING_IDS},
    /* blocks */
    {NULL, "sealed_bytes", .max = LIMIT_SEALED_BYTES},
    {NULL, "body_bytes", .max = LIMIT_BLOCK_BYTES},
    {NULL, "inline_sealed", INLINE(LIMIT_LOG_SEGMENT_BYTES)}, /* less where the referrer says so */
    {"Assign", "recipe", INLINE(LIMIT_RECIPE_INLINE_BYTES)},  /* wire_next has it */
    {"Edit", "recipe", INLINE(LIMIT_RECIPE_INLINE_BYTES)},    /* only with spaces */
    {NULL, "recipe", .min = 1, INLINE(LIMIT_RECIPE_INLINE_BYTES)},
    {"Root", "manifest", .count = LIMIT_LEAVES},
    {NULL, "leaves", .count = LIMIT_LEAVES},
    {"Leaf", "blocks", .max = LIMIT_LEAVES},
    {"Leaf", "before", .max = LIMIT_LEAF_BYTES},
    {"Leaf", "after", .max = LIMIT_LEAF_BYTES, .count = LIMIT_LEAF_NAMES},
    {"Leaf", "digits", .max = LIMIT_LEAF_DIGITS},
    {NULL, "manifest", INLINE(LIMIT_INLINE_BYTES), .count = LIMIT_MANIFEST_BLOCKS},
    {"Progress", "log", .max = 0}, /* a segment: see its text */
    {NULL, "log", INLINE(LIMIT_LOG_SEGMENT_BYTES),
     .count = LIMIT_LOG_BYTES / LIMIT_LOG_SEGMENT_BYTES},
    {"LogSegment", "text", .min = 1, INLINE(LIMIT_LOG_SEGMENT_BYTES)},
    {NULL, "block", .min = 1},
    {NULL, "lease", .min = 1},
    {"Show", "row", .min = 1},
    /* texts */
    {"EmbeddedFile", "filename", .max = LIMIT_NAME_BYTES},
    {"EmbeddedFile", "data", .max = LIMIT_TEXT_BYTES},
    {"Done", "text", .max = LIMIT_NOTE_BYTES},
    {"Tend", "text", .max = LIMIT_NOTE_BYTES},
    {"WorkerRow", "state", .max = LIMIT_NAME_BYTES},
    {"TendedRow", "state", .max = LIMIT_NAME_BYTES},
    {NULL, "name", .max = LIMIT_NAME_BYTES},
    {NULL, "job_name", .max = LIMIT_NAME_BYTES},
    {NULL, "person", .max = LIMIT_NAME_BYTES},
    {NULL, "studio", .max = LIMIT_NAME_BYTES},
    {NULL, "worker", .max = LIMIT_NAME_BYTES},
    {NULL, "pool", .max = LIMIT_NAME_BYTES},
    {NULL, "program", .max = LIMIT_NAME_BYTES},
    {"Farm", "software", .count = LIMIT_SOFTWARE},
    {"StepRow", "software", .max = 2 * LIMIT_NAME_BYTES},
    {NULL, "software", .max = LIMIT_NAME_BYTES},
    {NULL, "version", .max = LIMIT_NAME_BYTES},
    {NULL, "model", .max = LIMIT_NAME_BYTES},
    {NULL, "uuid", .max = LIMIT_NAME_BYTES},
    {NULL, "bulk", .max = LIMIT_NAME_BYTES},
    {NULL, "control", .max = LIMIT_NAME_BYTES},
    {NULL, "note", .max = LIMIT_NOTE_BYTES},
    {NULL, "reason", .max = LIMIT_NOTE_BYTES},
    {NULL, "what", .max = LIMIT_NOTE_BYTES},
    {"Notice", "why", .max = LIMIT_NOTE_BYTES, .count = LIMIT_STEPS},
    {NULL, "why", .max = LIMIT_NOTE_BYTES},
    {"DependencyResults", "next", .max = 0}, /* a number */
    {"Jobs", "next", .max = 0},              /* likewise */
    {NULL, "next", .max = LIMIT_NOTE_BYTES},
    {NULL, "message", .max = LIMIT_MESSAGE_BYTES},
    {NULL, "status", .max = LIMIT_MESSAGE_BYTES},
    {NULL, "path", .max = LIMIT_PATH_BYTES},
    {NULL, "link", .max = LIMIT_PATH_BYTES},
    {NULL, "value", .max = LIMIT_TEXT_BYTES},
    {NULL, "command", .max = LIMIT_TEXT_BYTES},
    /* lists */
    {NULL, "tags", .max = LIMIT_NAME_BYTES, .count = LIMIT_TAGS},
    {NULL, "any_of", .max = LIMIT_NAME_BYTES, .count = LIMIT_ATTRIBUTE_VALUES},
    {NULL, "all_of", .max = LIMIT_NAME_BYTES, .count = LIMIT_ATTRIBUTE_VALUES},
    {NULL, "versions", .max = LIMIT_NAME_BYTES, .count = LIMIT_SOFTWARE},
    {NULL, "texts", .max = LIMIT_PATH_BYTES, .count = LIMIT_SPACE_VALUES},
    {NULL, "arguments", .max = LIMIT_TEXT_BYTES, .count = LIMIT_ARGUMENTS},
    {NULL, "patterns", .max = LIMIT_PATH_BYTES, .count = LIMIT_PATTERNS},
    {NULL, "ranges", .count = LIMIT_SPACE_RANGES},
    {NULL, "space", .count = LIMIT_SPACE_PARAMETERS},
    {NULL, "spaces", .count = LIMIT_STEPS},
    {NULL, "amounts", .count = LIMIT_AMOUNTS},
    {NULL, "attributes", .count = LIMIT_ATTRIBUTES},
    {NULL, "dependencies", .count = LIMIT_DEPENDENCIES},
    {NULL, "steps", .count = LIMIT_STEPS},
    {NULL, "parameters", .count = LIMIT_PARAMETERS},
    {NULL, "roots", .count = LIMIT_ROOTS},
    {NULL, "environments", .count = LIMIT_ENVIRONMENTS},
    {NULL, "variables", .count = LIMIT_VARIABLES},
    {"Manifest", "files", .count = LIMIT_MANIFEST_FILES},
    {"Root", "files", .max = 0},      /* a number */
    {"Uploading", "files", .max = 0}, /* likewise */
    {"Upload", "files", .max = 0},
    {NULL, "files", .count = LIMIT_FILES_EMBEDDED},
    {NULL, "on_run", .min = 1},
    {NULL, "inputs", .count = LIMIT_ROOTS},
    {NULL, "outputs", .count = LIMIT_OUTPUTS},
    {NULL, "parts", .count = MANIFEST_PARTS},
    {NULL, "gpus", .count = LIMIT_GPUS},
    {NULL, "slots", .max = LIMIT_SLOTS},
    {NULL, "prefetch", .max = LIMIT_PREFETCH},
    {"Jobs", "jobs", .count = LIMIT_PAGE},
    {NULL, "live", .count = LIMIT_PAGE},
    {NULL, "failed_tasks", .count = LIMIT_SPACE_RANGES},
    {NULL, "done_tasks", .count = LIMIT_SPACE_RANGES},
    {NULL, "delivered_tasks", .count = LIMIT_SPACE_RANGES},
    {"Verb", "tasks", .count = LIMIT_RANGES_VERB},
    {NULL, "runs", .count = LIMIT_RUNS_DELIVERED},
    {NULL, "frames", .count = LIMIT_RANGES_VERB},
    {NULL, "results", .count = LIMIT_PAGE},
    {NULL, "attempts", .count = LIMIT_PAGE},
    {NULL, "segments", .count = LIMIT_LOG_BYTES / LIMIT_LOG_SEGMENT_BYTES},
    {"Tend", "workers", .max = LIMIT_NAME_BYTES, .count = LIMIT_TEND_WORKERS},
    {NULL, "workers", .count = LIMIT_PAGE},
    {"Workers", "trouble", .max = LIMIT_MESSAGE_BYTES},
    {"Tended", "rows", .count = LIMIT_TEND_WORKERS},
    {NULL, "items", .count = LIMIT_INVENTORY},
    {NULL, "leases", .count = LIMIT_INVENTORY},
};

/* ---- what there is to check of a message ---- */

enum { PLANS = 512 }; /* a power of two, well above the number of messages */

struct entry {
    const ProtobufCFieldDescriptor *field;
    const struct rule *rule;
    bool wipes; /* a key, or a message that may hold one */
};

static struct plan {
    const ProtobufCMessageDescriptor *descriptor;
    struct entry *entries; /* in the descriptor's order */
    bool wipes;
} plans[PLANS];
static pthread_once_t plans_once = PTHREAD_ONCE_INIT;

static const struct rule *rule_find(const char *message, const char *field)
{
    for (size_t i = 0; i < ARRAY_SIZE(RULES); i++)
        if (strcmp(RULES[i].field, field) == 0 &&
            (!RULES[i].message || strcmp(RULES[i].message, message) == 0))
            return &RULES[i];
    return NULL;
}

/* Descriptors are static, so their address is the key. */
static struct plan *plan_of(const ProtobufCMessageDescriptor *descriptor)
{
    size_t i = (size_t)((uintptr_t)descriptor / 8 * 0x9e3779b97f4a7c15u >> 40) % PLANS;

    while (plans[i].descriptor && plans[i].descriptor != descriptor)
        i = (i + 1) % PLANS;
    return &plans[i];
}

static struct plan *plan_make(const ProtobufCMessageDescriptor *descriptor)
{
    struct plan *plan = plan_of(descriptor);

    if (plan->descriptor)
        return plan; /* this message has been here */
    plan->descriptor = descriptor;
    plan->entries = calloc(descriptor->n_fields + 1, sizeof(*plan->entries));
    CHECK(plan->entries);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        struct entry *entry = &plan->entries[i];

        *entry = (struct entry){field, rule_find(descriptor->short_name, field->name), false};
        entry->wipes = field->type == PROTOBUF_C_TYPE_MESSAGE
                           ? plan_make(field->descriptor)->wipes
                           : field->type == PROTOBUF_C_TYPE_BYTES && strstr(field->name, "key");
        plan->wipes |= entry->wipes;
    }
    return plan;
}

static void plans_make(void)
{
    plan_make(&wl__envelope__descriptor);
    plan_make(&wl__bulk__descriptor);
    plan_make(&wl__recipe__descriptor);
    plan_make(&wl__manifest__descriptor);
    plan_make(&wl__enrol__descriptor);
    plan_make(&wl__enrolled__descriptor);
}

static bool rule_covers(const struct rule *rule, const ProtobufCFieldDescriptor *field)
{
    bool sized =
        field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES ||
        (field->type == PROTOBUF_C_TYPE_MESSAGE && field->descriptor == &wl__block_ref__descriptor);
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;

    if (!sized && !repeated)
        return true;
    return rule && (!sized || rule->max) && (!repeated || rule->count);
}

static _Thread_local char why_text[256];

const char *wire_schema_gap(const ProtobufCMessageDescriptor *root)
{
    for (unsigned i = 0; i < root->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &root->fields[i];
        const char *gap = NULL;

        if (!rule_covers(rule_find(root->short_name, field->name), field)) {
            snprintf(why_text, sizeof(why_text), "%s.%s", root->short_name, field->name);
            return why_text;
        }
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            gap = wire_schema_gap(field->descriptor);
        if (gap)
            return gap;
    }
    return NULL;
}

/* ---- the walk ---- */

typedef int visitor(const ProtobufCMessage *message, const struct entry *entry, const void *values,
                    size_t n);

/* *ret_values is an array of what the field holds. */
static size_t field_values(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                           const void **ret_values)
{
    const char *base = (const char *)message;

    *ret_values = base + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        *ret_values = *(void *const *)(base + field->offset);
        return *(const size_t *)(base + field->quantifier_offset);
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const uint32_t *)(base + field->quantifier_offset) != field->id)
        return 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING)
        return *(void *const *)*ret_values != NULL;
    return 1;
}

static int walk(const ProtobufCMessage *message, visitor *visit, bool wiping);

static int walk_field(const ProtobufCMessage *message, const struct entry *entry, visitor *visit,
                      bool wiping)
{
    const void *values;
    size_t n = field_values(message, entry->field, &values);
    int r = visit(message, entry, values, n);

    for (size_t k = 0; r == 0 && k < n && entry->field->type == PROTOBUF_C_TYPE_MESSAGE; k++)
        r = walk(((ProtobufCMessage *const *)values)[k], visit, wiping);
    return r;
}

/* Fields of newer programs are kept, and stored with the message. One of the number 0, which none
 * has, is read where its tag is written long, and written so that it is never read again. */
static int check_unknown(const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        if (message->unknown_fields[i].tag == 0) {
            wire_say(message->descriptor->short_name, "a field has the number 0");
            return WIRE_E_FORM;
        }
    return 0;
}

/* As deep as the schema, which has no recursive type. Of an envelope's bodies one is there. */
static int walk(const ProtobufCMessage *message, visitor *visit, bool wiping)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const struct plan *plan = plan_of(descriptor);
    unsigned n = descriptor->n_fields;
    int r = wiping ? 0 : check_unknown(message);

    CHECK(plan->descriptor);
    if (r)
        return r;
    if (descriptor == &wl__envelope__descriptor) {
        const ProtobufCFieldDescriptor *body = protobuf_c_message_descriptor_get_field(
            descriptor, ((const Wl__Envelope *)message)->body_case);

        return body ? walk_field(message, &plan->entries[body - descriptor->fields], visit, wiping)
                    : 0;
    }
    for (unsigned i = 0; r == 0 && i < n; i++)
        if (!wiping || plan->entries[i].wipes)
            r = walk_field(message, &plan->entries[i], visit, wiping);
    return r;
}

static int refuse(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                  const char *says, size_t got, size_t limit)
{
    snprintf(why_text, sizeof(why_text), "%s.%s: ", message->descriptor->short_name, field->name);
    size_t used = strlen(why_text);
    snprintf(why_text + used, sizeof(why_text) - used, "%s (%zu, limit %zu)", says, got, limit);
    return WIRE_E_LIMIT;
}

static int check_size(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                      const struct rule *rule, size_t size)
{
    if (size == 0 && rule->empty)
        return 0;
    if (size > rule->max)
        return refuse(message, field, "too many bytes", size, rule->max);
    if (size < rule->min)
        return refuse(message, field, "too few bytes", size, rule->min);
    if (rule->unit && size % rule->unit)
        return refuse(message, field, "bytes do not divide", size, rule->unit);
    return 0;
}

static int check_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                       const struct rule *rule, const void *values, size_t i)
{
    uint64_t number;

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return check_size(message, field, rule, strlen(((char *const *)values)[i]));
    case PROTOBUF_C_TYPE_BYTES:
        return check_size(message, field, rule, ((const ProtobufCBinaryData *)values)[i].len);
    case PROTOBUF_C_TYPE_MESSAGE:
        if (field->descriptor == &wl__block_ref__descriptor) {
            size_t size = ((Wl__BlockRef *const *)values)[i]->inline_sealed.len;

            if (size > rule->max)
                return refuse(message, field, "too many bytes inline", size, rule->max);
        }
        return 0;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
        number = field->type == PROTOBUF_C_TYPE_UINT32 ? ((const uint32_t *)values)[i]
                                                       : ((const uint64_t *)values)[i];
        return rule->max && number > rule->max
                   ? refuse(message, field, "too large", number, rule->max)
                   : 0;
    default:
        return 0;
    }
}

static int visit_check(const ProtobufCMessage *message, const struct entry *entry,
                       const void *values, size_t n)
{
    const ProtobufCFieldDescriptor *field = entry->field;
    const struct rule *rule = entry->rule;
    int r = 0;

    if (!rule_covers(rule, field))
        return refuse(message, field, "has no limit", n, 0);
    if (!rule)
        return 0;

    if (field->label == PROTOBUF_C_LABEL_REPEATED && n > rule->count)
        return refuse(message, field, "too many entries", n, rule->count);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED &&
        !(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && rule->min && n == 0)
        return refuse(message, field, "is not there", 0, 1);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = check_value(message, field, rule, values, i);
    return r;
}

static int visit_wipe(const ProtobufCMessage *message _unused_, const struct entry *entry,
                      const void *values, size_t n)
{
    if (entry->field->type != PROTOBUF_C_TYPE_BYTES)
        return 0;

    for (size_t i = 0; i < n; i++) {
        const ProtobufCBinaryData *data = &((const ProtobufCBinaryData *)values)[i];
        if (data->len)
            wipe(data->data, data->len);
    }
    return 0;
}

/* ---- for wire.c ---- */

int wire_check(const ProtobufCMessage *message, const char **ret_why)
{
    int r;

    CHECK(pthread_once(&plans_once, plans_make) == 0);
    r = walk(message, visit_check, false);
    if (r)
        *ret_why = why_text;
    return r;
}

void wire_wipe(const ProtobufCMessage *message)
{
    CHECK(pthread_once(&plans_once, plans_make) == 0);
    walk(message, visit_wipe, true);
}

const char *wire_say(const char *message, const char *format, ...)
{
    size_t used = (size_t)snprintf(why_text, sizeof(why_text), "%s: ", message);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why_text + used, sizeof(why_text) - used, format, arguments);
    va_end(arguments);
    return why_text;
}
