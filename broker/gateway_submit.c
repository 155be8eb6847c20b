/* gateway_submit.c - what changes a studio's jobs: submissions, verbs; and the studio's passes.
 *
 * A submission is not told to the core before the vault has pinned all it refers to; while the
 * vault looks, the request waits here with its asker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/log.h>
#include <broker/gateway.h>

/* ---- pins ---- */

static void spec_free(struct job_spec *spec)
{
    if (!spec)
        return;
    catalogue_spec_deinit(spec);
    free(spec);
}

struct tally *gateway_tally(struct gateway *gateway, struct studio_id studio)
{
    if (studio.value >= gateway->n_tallies) {
        size_t n = 2 * (size_t)studio.value + 16;
        struct tally *more = reallocarray(gateway->tallies, n, sizeof *more);

        if (!more)
            gateway_die("memory", -ENOMEM);
        memset(more + gateway->n_tallies, 0, (n - gateway->n_tallies) * sizeof *more);
        gateway->tallies = more;
        gateway->n_tallies = n;
    }
    return &gateway->tallies[studio.value];
}

bool gateway_pin_room(struct gateway *gateway, struct studio_id studio)
{
    return gateway_tally(gateway, studio)->pins + gateway->n_pins + 2 <= GATEWAY_PINS_MAX;
}

static void pin_free(struct gateway *gateway, struct pin *pin)
{
    gateway->n_pins--;
    gateway_tally(gateway, pin->request.studio)->pins--;
    if (pin->envelope)
        wire_free(pin->envelope);
    spec_free(pin->spec);
    free(pin->request.ids);
    free(pin->request.blocks);
    free(pin->request.absent);
    free(pin);
}

size_t gateway_outside(Wl__BlockRef *const *blocks, size_t n_blocks, struct block_id *ret_ids)
{
    size_t n = 0;

    for (size_t i = 0; i < n_blocks; i++) {
        if (blocks[i]->inline_sealed.len > 0)
            continue;
        if (ret_ids)
            memcpy(&ret_ids[n], blocks[i]->id.data, sizeof *ret_ids);
        n++;
    }
    return n;
}

static struct block_id *pin_blocks(const Wl__Envelope *envelope, size_t *ret_n)
{
    const Wl__Result *result =
        envelope->body_case == WL__ENVELOPE__BODY_RESULT ? envelope->result : NULL;
    Wl__BlockRef *const *recipe = envelope->body_case == WL__ENVELOPE__BODY_EDIT
                                      ? &envelope->edit->recipe
                                      : &envelope->submit->recipe;
    size_t n = result ? result->n_manifest + result->n_log : 1;
    struct block_id *ids = calloc(n + 1, sizeof *ids);

    if (!ids)
        gateway_die("memory", -ENOMEM);
    if (!result) {
        *ret_n = gateway_outside(recipe, 1, ids);
        return ids;
    }
    n = gateway_outside(result->manifest, result->n_manifest, ids);
    *ret_n = n + gateway_outside(result->log, result->n_log, ids + n);
    return ids;
}

void gateway_pin(struct gateway *gateway, struct studio_id studio, const ProtobufCBinaryData *refs,
                 size_t n_refs, struct job_spec *spec)
{
    struct ask *ask = &gateway->ask;
    struct pin *pin = calloc(1, sizeof *pin);
    struct block_id *ids = calloc(n_refs, sizeof *ids);

    if (!pin || !ids)
        gateway_die("memory", -ENOMEM);
    for (size_t i = 0; i < n_refs; i++)
        memcpy(&ids[i], refs[i].data, sizeof ids[i]);
    list_init(&pin->request.node);
    pin->request.kind = VAULT_PIN;
    pin->request.studio = studio;
    pin->request.port = gateway->with.port;
    pin->request.user = pin;
    pin->request.ids = ids;
    pin->request.n_ids = n_refs;
    pin->request.blocks = pin_blocks(ask->envelope, &pin->request.n_blocks);
    pin->key = ask->peer->key;
    pin->route = ask->route;
    pin->asked = ask->request;
    pin->envelope = TAKE_PTR(ask->envelope);
    pin->spec = spec;
    gateway->n_pins++;
    gateway_tally(gateway, studio)->pins++;
    vault_submit(gateway->with.vault, &pin->request);
}

static enum code pin_code(const struct vault_request *request, const char **ret_why)
{
    switch (request->result) {
    case 0:
        return CODE_OK;
    case VAULT_E_MISSING:
        *ret_why = "blocks it refers to are not in the vault: send them";
        return CODE_MISSING;
    case VAULT_E_ID:
        *ret_why = "what it names as refs is no refs block";
        return CODE_INVALID;
    case VAULT_E_UNNAMED:
        *ret_why = "its refs do not name its recipe, its manifest or its log";
        return CODE_INVALID;
    case VAULT_E_FULL:
        *ret_why = "the vault is full";
        return CODE_BUSY;
    case VAULT_E_BUSY:
        *ret_why = "the broker has no more memory or open files at the moment";
        return CODE_BUSY;
    default:
        *ret_why = "the vault cannot read its refs";
        return CODE_INTERNAL;
    }
}

/* A result's sender waits for Committed; a refusal it only logs. */
static void result_no(struct gateway *gateway, const struct pin *pin, enum code code,
                      const char *why)
{
    const struct vault_request *request = &pin->request;
    struct lease lease;

    if (pin->envelope->body_case == WL__ENVELOPE__BODY_RESULT &&
        wire_lease(pin->envelope->result->lease, &lease) == 0) {
        struct lease_id id = gateway_lease_id(&lease);
        gateway_committed(gateway, &pin->route, &id, code, why, request->absent, request->n_absent);
    }
}

static bool pin_no(struct gateway *gateway, const struct pin *pin)
{
    const struct vault_request *request = &pin->request;
    const char *why = "";
    enum code code;

    if (request->result < 0)
        gateway_die("the vault", request->result);
    code = pin_code(request, &why);
    if (code == CODE_OK)
        return false;
    bool result = pin->envelope->body_case == WL__ENVELOPE__BODY_RESULT;
    const char *what =
        pin->envelope->body_case == WL__ENVELOPE__BODY_EDIT ? "the request" : "the submission";

    if (!result && code == CODE_MISSING) {
        gateway_refuse_missing(gateway, what, request->absent, request->n_absent);
    } else if (!result) {
        gateway_refuse(gateway, code, what, why, "tell whoever runs the broker, then ask again");
    } else {
        result_no(gateway, pin, code, why);
    }
    return true;
}

static void pin_done(struct gateway *gateway, struct pin *pin)
{
    struct ask *ask = &gateway->ask;
    int r;

    *ask = (struct ask){.route = pin->route, .request = pin->asked};
    gateway->cookie++;
    gateway->mark = journal_mark(gateway->with.journal);
    /* Its key may have been forbidden while the vault looked. */
    r = gateway_asker(gateway, &pin->key, false);
    if (r < 0)
        result_no(gateway, pin, CODE_INTERNAL, "the registry cannot be read: send it again");
    if (r != 0)
        return;
    if (pin_no(gateway, pin))
        return;
    ask->envelope = TAKE_PTR(pin->envelope);
    if (ask->envelope->body_case == WL__ENVELOPE__BODY_SUBMIT)
        gateway_submit_go(gateway, TAKE_PTR(pin->spec));
    else if (ask->envelope->body_case == WL__ENVELOPE__BODY_EDIT)
        gateway_edit_go(gateway);
    else
        gateway_result_go(gateway);
}

void gateway_pinned(struct gateway *gateway)
{
    struct vault_request *request;

    while ((request = vault_completed(gateway->with.port))) {
        struct pin *pin = request->user;

        pin_done(gateway, pin);
        vault_unpin(gateway->with.vault, &pin->request); /* the job keeps it now, or nobody */
        if (gateway->ask.envelope)
            wire_free(gateway->ask.envelope);
        gateway->ask = (struct ask){0};
        pin_free(gateway, pin);
        gateway_scratch_free(gateway);
    }
}

void gateway_pins_drop(struct gateway *gateway)
{
    struct vault_request *request;

    while (gateway->with.port && (request = vault_completed(gateway->with.port)))
        pin_free(gateway, request->user);
}

/* ---- submissions ---- */

/* What the core's record borrows from until the store has it. */
struct submission {
    Wl__Envelope *envelope;
    struct job_spec *spec;
    void *blob;
};

static void submission_free(void *memory)
{
    struct submission *submission = memory;

    spec_free(submission->spec);
    if (submission->envelope)
        wire_free(submission->envelope);
    free(submission->blob);
    free(submission);
}

void gateway_digest(struct gateway *gateway, const ProtobufCMessage *message,
                    struct request_digest *ret_digest)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = gateway_scratch(gateway, size + 1);
    struct block_id id;

    protobuf_c_message_pack(message, packed);
    digest(packed, size, &id);
    wipe(packed, size); /* a submission holds its job key */
    memcpy(ret_digest->bytes, id.bytes, sizeof ret_digest->bytes);
}

void gateway_submit_go(struct gateway *gateway, struct job_spec *spec)
{
    struct ask *ask = &gateway->ask;
    const Wl__Submit *submit = ask->envelope->submit;
    struct submission *submission = calloc(1, sizeof *submission);
    struct event event = {.kind = EVENT_SUBMIT};
    size_t size = 0;

    if (gateway_upload_refused(gateway, submit)) {
        spec_free(spec);
        free(submission);
        return;
    }
    if (!submission)
        gateway_die("memory", -ENOMEM);
    gateway_digest(gateway, &submit->base, &event.submit.digest);
    memcpy(event.submit.request.bytes, submit->request_id.data, sizeof event.submit.request.bytes);
    /* Who a key belongs to is the operator's word; a login counts where the key has no name. */
    Wl__Submit stored = *submit;

    if (ask->peer->row.name[0])
        stored.person = ask->peer->row.name;
    stored.submitter = (ProtobufCBinaryData){sizeof ask->peer->key.bytes, ask->peer->key.bytes};
    if (catalogue_pack(&gateway->catalogue, spec->studio, &stored, &submission->blob, &size) < 0)
        gateway_die("memory", -ENOMEM);
    spec->blob = submission->blob;
    spec->blob_size = size;
    submission->spec = spec;
    event.submit.spec = spec;
    gateway_step(gateway, &event);
    submission->envelope = TAKE_PTR(ask->envelope);
    if (journal_keep(gateway->with.journal, submission, submission_free) < 0)
        gateway_die("memory", -ENOMEM);
}

static const char *submit_why(const Wl__Submit *submit)
{
    static const uint8_t none[16];

    if (memcmp(submit->job.data, none, sizeof none) == 0)
        return "its job id is all zero";
    if (!submit->name[0])
        return "it has no name";
    if (submit->n_steps == 0)
        return "it has no steps";
    if (submit->n_refs == 0 && gateway_outside(&submit->recipe, 1, NULL) > 0)
        return "its recipe lies in the vault, and no refs name it";
    if (submit->max_workers > LIMIT_LEASES)
        return "its limit of workers is more than there can be";
    return NULL;
}

void gateway_on_submit(struct gateway *gateway)
{
    struct ask *ask = &gateway->ask;
    const Wl__Submit *submit = ask->envelope->submit;
    struct studio_id studio = ask->peer->row.studio;
    const char *invalid = submit_why(submit);
    struct job_spec *spec;
    char why[256];
    int r;

    if (studio.value == 0) {
        gateway_refuse(gateway, CODE_REFUSED, "the submission", "this key belongs to no studio",
                       "allow it with a studio (westlight-broker allow --studio NAME)");
        return;
    }
    if (invalid) {
        gateway_refuse(gateway, CODE_INVALID, "the submission", invalid, "correct it");
        return;
    }
    if (gateway_no_room(gateway, submit) || gateway_past_quota(gateway, submit))
        return;
    if (!gateway_pin_room(gateway, studio)) {
        gateway_refuse(gateway, CODE_BUSY, "the submission", "too many are waiting for the vault",
                       "try again in some seconds");
        return;
    }
    spec = calloc(1, sizeof *spec);
    if (!spec)
        gateway_die("memory", -ENOMEM);
    r = catalogue_spec(submit, studio, spec, why, sizeof why);
    if (r < 0)
        gateway_die("memory", r);
    if (r > 0) {
        free(spec);
        gateway_refuse(gateway, CODE_INVALID, "the submission", why, "correct that step");
        return;
    }
    if (submit->n_refs > 0 && !gateway_remembers(gateway, &submit->request_id))
        gateway_pin(gateway, studio, submit->refs, submit->n_refs, spec);
    else
        gateway_submit_go(gateway, spec);
}

/* ---- verbs ---- */

bool ranges_add(struct ranges *ranges, struct task_range range)
{
    if (ranges->n == LIMIT_PIECES_VERB)
        return false;
    if (ranges->n == ranges->capacity) {
        size_t larger = ranges->capacity ? ranges->capacity * 2 : 16;
        struct task_range *moved = reallocarray(ranges->list, larger, sizeof *moved);

        if (!moved)
            gateway_die("memory", -ENOMEM);
        ranges->list = moved;
        ranges->capacity = larger;
    }
    ranges->list[ranges->n++] = range;
    return true;
}

static const char *ranges_of_tasks(struct gateway *gateway, const Wl__Verb *verb,
                                   const struct job_view *view, struct ranges *ranges)
{
    for (size_t i = 0; i < verb->n_tasks; i++) {
        const Wl__TaskRange *range = verb->tasks[i];
        struct task_range out = {range->step, range->first, range->last};
        const struct space *space =
            range->step < view->n_steps
                ? core_step_space(gateway->with.core, &view->job, range->step)
                : NULL;

        if (!space || range->first > range->last || range->last >= space_size(space))
            return "it names tasks the job does not have";
        ranges_add(ranges, out);
    }
    return NULL;
}

const char *ranges_of_frames(struct gateway *gateway, const struct space *space, uint32_t step,
                             Wl__Range *const *frames, size_t n_frames, struct ranges *ranges)
{
    struct space_range *list = gateway_scratch(gateway, (n_frames + 1) * sizeof *list);
    const char *name = space_frame_name(space);
    struct space_interval *found = NULL;
    size_t n_found = 0;
    bool fits = true;
    int r;

    for (size_t i = 0; i < n_frames; i++) {
        const Wl__Range *frame = frames[i];

        if (frame->step == 0 || frame->step > INT64_MAX || frame->first > frame->last)
            return "it names a range of frames that is empty";
        list[i] = (struct space_range){frame->first, frame->last, (int64_t)frame->step};
    }
    r = name ? space_find(space, name, list, n_frames, &found, &n_found) : 0;
    if (r < 0)
        gateway_die("memory", r);
    for (size_t i = 0; r == 0 && fits && i < n_found; i++)
        fits = ranges_add(ranges, (struct task_range){step, found[i].first, found[i].last});
    free(found);
    return r > 0 || !fits ? "it names frames in too many pieces" : NULL;
}

/* In every step that has frames. */
static const char *verb_frames(struct gateway *gateway, const Wl__Verb *verb,
                               const struct job_view *view, struct ranges *ranges)
{
    const char *why = NULL;

    for (uint32_t step = 0; !why && step < view->n_steps; step++)
        why = ranges_of_frames(gateway, core_step_space(gateway->with.core, &view->job, step), step,
                               verb->frames, verb->n_frames, ranges);
    return why ? why : ranges->n ? NULL : "the job has none of these frames";
}

bool gateway_remembers(struct gateway *gateway, const ProtobufCBinaryData *request)
{
    const struct peer *peer = gateway->ask.peer;
    bool submit = gateway->ask.envelope->body_case == WL__ENVELOPE__BODY_SUBMIT;
    struct request_id id;

    memcpy(id.bytes, request->data, sizeof id.bytes);
    return core_answered(gateway->with.core, submit ? peer->row.studio : gateway_scope(peer), &id);
}

static void verb_step(struct gateway *gateway, const Wl__Verb *verb, const struct job_view *view,
                      const struct ranges *ranges)
{
    struct event event = {.kind = EVENT_VERB};

    event.verb.verb = (enum verb_kind)verb->kind;
    event.verb.studio = gateway_scope(gateway->ask.peer);
    event.verb.job = view->job;
    event.verb.ranges = ranges->list;
    event.verb.n_ranges = ranges->n;
    memcpy(event.verb.request.bytes, verb->request_id.data, sizeof event.verb.request.bytes);
    gateway_digest(gateway, &verb->base, &event.verb.digest);
    gateway_step(gateway, &event);
}

void gateway_on_verb(struct gateway *gateway)
{
    const Wl__Verb *verb = gateway->ask.envelope->verb;
    struct ranges ranges = {0};
    const char *why = NULL;
    struct job_view view;

    if (gateway_remembers(gateway, &verb->request_id)) {
        memcpy(view.job.bytes, verb->job.data, sizeof view.job.bytes);
        verb_step(gateway, verb, &view, &ranges);
        return;
    }
    if (gateway_upload_cancel(gateway, verb) || !gateway_job(gateway, &verb->job, &view))
        return;
    if (verb->kind < WL__VERB_KIND__VERB_CANCEL || verb->kind > WL__VERB_KIND__VERB_RETRY)
        why = "it asks for nothing that can be done";
    else if (verb->n_tasks > 0 && verb->n_frames > 0)
        why = "it names tasks and frames";
    else if (verb->n_tasks > 0)
        why = ranges_of_tasks(gateway, verb, &view, &ranges);
    else if (verb->n_frames > 0)
        why = verb_frames(gateway, verb, &view, &ranges);

    if (why)
        gateway_refuse(gateway, CODE_INVALID, "the request", why,
                       "westlight show JOB lists its steps and frames");
    else
        verb_step(gateway, verb, &view, &ranges);
    free(ranges.list);
}

/* ---- passes ---- */

void gateway_pass(struct gateway *gateway, struct studio_id studio, const struct lease_id *lease,
                  const struct link_key *peer, uint64_t write_bytes, uint8_t ret_text[PASS_BYTES],
                  size_t *ret_size)
{
    struct pass pass = {.studio = studio.value,
                        .rights = PASS_READ | PASS_WRITE,
                        .write_bytes = write_bytes,
                        .expires_wall_s = gateway->wall_s + GATEWAY_PASS_S};

    if (lease) {
        memcpy(pass.job, lease->job.bytes, sizeof pass.job);
        pass.epoch = lease->epoch;
        pass.attempt = lease->attempt;
    }
    pass_sign(gateway->with.signer, &pass, peer, ret_text, ret_size);
}

void gateway_on_pass_request(struct gateway *gateway)
{
    const struct ask *ask = &gateway->ask;
    uint64_t bytes = ask->envelope->pass_request->write_bytes;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Pass pass = WL__PASS__INIT;
    uint8_t text[PASS_BYTES];
    size_t size;

    if (ask->peer->row.studio.value == 0) {
        gateway_refuse(gateway, CODE_REFUSED, "the pass", "this key belongs to no studio",
                       "allow it with a studio (westlight-broker allow --studio NAME)");
        return;
    }
    if (bytes == 0 || bytes > GATEWAY_STUDIO_BYTES)
        bytes = GATEWAY_STUDIO_BYTES;
    gateway_pass(gateway, ask->peer->row.studio, NULL, &ask->peer->key, bytes, text, &size);
    pass.pass = (ProtobufCBinaryData){size, text};
    pass.expires_wall_s = gateway->wall_s + GATEWAY_PASS_S;
    pass.grace_ns = (uint64_t)gateway->with.grace_ns;
    envelope.body_case = WL__ENVELOPE__BODY_PASS;
    envelope.pass = &pass;
    gateway_answer(gateway, &envelope);
}
