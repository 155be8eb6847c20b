/* gateway_stories.c - what peers say in order: every message of the schema by everybody, a task
 * from its start to its result, what people do to a job.
 */
#include <string.h>
#include <proto/base/check.h>
#include <proto/state.h>
#include "fuzz.h"
#include "gateway.h"

static void put(struct fuzz_buffer *all, unsigned who, Wl__Envelope *envelope)
{
    static struct fuzz_buffer packed;

    packed.size = wl__envelope__get_packed_size(envelope);
    CHECK(packed.size <= sizeof(packed.data));
    wl__envelope__pack(envelope, packed.data);
    fuzz_put(all, who, packed.data, packed.size);
}

/* Of a worker's: the first lease, as it was given. */
static void put_leased(struct fuzz_buffer *all, const struct gateway_farm *farm,
                       Wl__Envelope__BodyCase body, unsigned class)
{
    Wl__Lease *lease = farm->assign->lease;
    ProtobufCBinaryData ticket = farm->assign->ticket;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    uint8_t block[32] = {3};
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests = &manifest;
    Wl__Started started = WL__STARTED__INIT;
    Wl__Progress progress = WL__PROGRESS__INIT;
    Wl__LogSegment log = WL__LOG_SEGMENT__INIT;
    Wl__Result result = WL__RESULT__INIT;
    Wl__Released released = WL__RELEASED__INIT;
    Wl__DependencyRequest dependencies = WL__DEPENDENCY_REQUEST__INIT;
    Wl__WorkerPassRequest pass = WL__WORKER_PASS_REQUEST__INIT;

    manifest.id = manifest.wrapped_key = manifest.inline_sealed = (ProtobufCBinaryData){32, block};
    started.lease = progress.lease = result.lease = released.lease = dependencies.lease =
        pass.lease = lease;
    started.ticket = progress.ticket = result.ticket = released.ticket = dependencies.ticket =
        pass.ticket = ticket;
    started.session = progress.session = result.session = released.session = dependencies.session =
        pass.session = 1;
    log.text = &manifest;
    progress.permille = 500;
    progress.log = &log;
    result.class_ = class;
    result.manifest = &manifests;
    result.n_manifest = class == 0;
    envelope.body_case = body;
    envelope.hello = body == WL__ENVELOPE__BODY_STARTED              ? (void *)&started
                     : body == WL__ENVELOPE__BODY_PROGRESS           ? (void *)&progress
                     : body == WL__ENVELOPE__BODY_RESULT             ? (void *)&result
                     : body == WL__ENVELOPE__BODY_RELEASED           ? (void *)&released
                     : body == WL__ENVELOPE__BODY_DEPENDENCY_REQUEST ? (void *)&dependencies
                                                                     : (void *)&pass;
    put(all, BOX1, &envelope);
}

/* The same that comes by inventory, of a worker that has lost its connection. */
static void put_inventory(struct fuzz_buffer *all, const struct gateway_farm *farm)
{
    Wl__InventoryItem item = WL__INVENTORY_ITEM__INIT, *items = &item;
    Wl__Inventory inventory = WL__INVENTORY__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    item.lease = farm->assign->lease;
    item.ticket = farm->assign->ticket;
    item.state = WL__LEASE_STATE__LEASE_RUNNING;
    inventory.session = 1;
    inventory.items = &items;
    inventory.n_items = 1;
    inventory.last = true;
    envelope.body_case = WL__ENVELOPE__BODY_INVENTORY;
    envelope.inventory = &inventory;
    put(all, BOX1, &envelope);
}

/* A job whose blocks lie in the vault. */
static void put_pinned(struct fuzz_buffer *all, const struct gateway_farm *farm)
{
    uint8_t id[16] = {7}, key[32] = {7};
    ProtobufCBinaryData refs = {sizeof(farm->refs), (uint8_t *)farm->refs.bytes};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Submit submission = WL__SUBMIT__INIT;
    Wl__Step step = WL__STEP__INIT, *steps = &step;

    recipe.id = (ProtobufCBinaryData){sizeof(farm->block), (uint8_t *)farm->block.bytes};
    recipe.wrapped_key = submission.job_key = (ProtobufCBinaryData){sizeof(key), key};
    recipe.sealed_bytes = 64;
    step.name = (char *)"one";
    submission.job = submission.request_id = (ProtobufCBinaryData){sizeof(id), id};
    submission.name = (char *)"pinned";
    submission.recipe = &recipe;
    submission.refs = &refs;
    submission.steps = &steps;
    submission.n_refs = submission.n_steps = 1;
    envelope.body_case = WL__ENVELOPE__BODY_SUBMIT;
    envelope.submit = &submission;
    put(all, ANN, &envelope);
}

/* ---- what people say of the job ---- */

static void put_verb(struct fuzz_buffer *all, uint8_t number, Wl__VerbKind kind, bool tasks,
                     bool frames)
{
    uint8_t request[16] = {number}, job[16];
    Wl__TaskRange task = WL__TASK_RANGE__INIT, *some_tasks = &task;
    Wl__Range range = WL__RANGE__INIT, *some_frames = &range;
    Wl__Verb verb = WL__VERB__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    memset(job, 1, sizeof(job));
    task.last = 3;
    range.first = range.step = 1;
    range.last = 4;
    verb.request_id = (ProtobufCBinaryData){sizeof(request), request};
    verb.job = (ProtobufCBinaryData){sizeof(job), job};
    verb.kind = kind;
    verb.tasks = &some_tasks;
    verb.n_tasks = tasks;
    verb.frames = &some_frames;
    verb.n_frames = frames;
    envelope.body_case = WL__ENVELOPE__BODY_VERB;
    envelope.verb = &verb;
    put(all, ANN, &envelope);
}

static void put_edit(struct fuzz_buffer *all, uint8_t number, uint32_t what)
{
    uint8_t request[16] = {number}, job[16];
    Wl__Range range = WL__RANGE__INIT, *frames = &range;
    Wl__Edit edit = WL__EDIT__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    memset(job, 1, sizeof(job));
    range.first = range.step = 1;
    range.last = 4;
    edit.request_id = (ProtobufCBinaryData){sizeof(request), request};
    edit.job = (ProtobufCBinaryData){sizeof(job), job};
    edit.what = what;
    edit.name = (char *)"another";
    edit.frames = &frames;
    edit.n_frames = (what & EDIT_FRAMES) != 0;
    envelope.body_case = WL__ENVELOPE__BODY_EDIT;
    envelope.edit = &edit;
    put(all, ANN, &envelope);
}

static void put_watch(struct fuzz_buffer *all)
{
    uint8_t job[16];
    Wl__Watch watch = WL__WATCH__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    memset(job, 1, sizeof(job));
    watch.job = (ProtobufCBinaryData){sizeof(job), job};
    envelope.body_case = WL__ENVELOPE__BODY_WATCH;
    envelope.watch = &watch;
    put(all, ANN, &envelope);
}

/* Watched meanwhile; each is a request of its own. */
static void add_people(fuzz_add *add)
{
    static struct fuzz_buffer all;

    all.size = 0;
    put_watch(&all);
    put_verb(&all, 10, WL__VERB_KIND__VERB_PAUSE, false, false);
    put_edit(&all, 11, EDIT_PRIORITY | EDIT_NAME);
    put_verb(&all, 12, WL__VERB_KIND__VERB_RESUME, false, false);
    put_edit(&all, 13, EDIT_FRAMES);
    put_verb(&all, 14, WL__VERB_KIND__VERB_CANCEL, true, false);
    put_verb(&all, 15, WL__VERB_KIND__VERB_RETRY, false, true);
    fuzz_put_number(&all, WHO_END, 200);
    put_verb(&all, 15, WL__VERB_KIND__VERB_RETRY, false, true); /* again */
    put_verb(&all, 16, WL__VERB_KIND__VERB_CANCEL, false, false);
    put_edit(&all, 17, EDIT_ARCHIVED);
    fuzz_put_number(&all, WHO_END, 200);
    add("people", all.data, all.size);
}

/* ---- what workers say of it ---- */

/* What a worker says of a task to its end, between what is asked of the job. */
static void add_story(fuzz_add *add, const struct gateway_farm *farm, const char *name,
                      unsigned class)
{
    static struct fuzz_buffer all;

    all.size = 0;
    put_leased(&all, farm, WL__ENVELOPE__BODY_STARTED, 0);
    put_leased(&all, farm, WL__ENVELOPE__BODY_PROGRESS, 0);
    put_leased(&all, farm, WL__ENVELOPE__BODY_DEPENDENCY_REQUEST, 0);
    put_leased(&all, farm, WL__ENVELOPE__BODY_WORKER_PASS_REQUEST, 0);
    fuzz_put_number(&all, WHO_END, 3000);
    put_inventory(&all, farm);
    put_leased(&all, farm, WL__ENVELOPE__BODY_RESULT, class);
    put_leased(&all, farm, WL__ENVELOPE__BODY_RELEASED, 0);
    fuzz_put_number(&all, WHO_END, 40000);
    add(name, all.data, all.size);
}

static void add_all(void *user, const struct gateway_farm *farm)
{
    static struct fuzz_buffer all;
    fuzz_add *const *add = user;

    add_story(*add, farm, "done", CLASS_OK);
    add_story(*add, farm, "failed", CLASS_OK + 1);
    all.size = 0;
    put_pinned(&all, farm);
    fuzz_put_number(&all, WHO_END, 100);
    (*add)("pinned", all.data, all.size);
}

void fuzz_seeds(fuzz_add *add)
{
    const ProtobufCMessageDescriptor *envelope = &wl__envelope__descriptor;
    static struct fuzz_buffer message, all;

    gateway_farm_look(add_all, &add);
    add_people(add);
    for (unsigned i = 0; i < envelope->n_fields; i++) {
        if (!(envelope->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
            continue;
        all.size = 0;
        fuzz_message(envelope, envelope->fields[i].id, &message);
        for (unsigned who = ANN; who < WHO_END; who++)
            fuzz_put(&all, who, message.data, message.size);
        add(envelope->fields[i].name, all.data, all.size);
    }
}
