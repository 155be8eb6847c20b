/* resubmit.c - another job from the inputs of one that is there: its blocks are in the vault, so
 * nothing is read or sent but the recipe, sealed under a key of the new job's own.
 */
#include <client/edit.h>
#include <client/look.h>
#include <client/recipe.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct again {
    struct westlight *westlight;
    const char *id; /* of the old one */
    struct blocks blocks;
    Wl__Envelope *answer; /* owns the old submission, which becomes the new one */
    Wl__Recipe *recipe;
    struct recipe_sealed sealed;
    struct block_id refs;
    uint8_t job[WESTLIGHT_ID_BYTES], job_key[32];
};

static int ask(struct again *again, const uint8_t job[16])
{
    Wl__ShowRequest request = WL__SHOW_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    uint8_t id[16];

    memcpy(id, job, sizeof(id));
    request.job = (ProtobufCBinaryData){sizeof(id), id};
    request.submission = true;
    envelope.body_case = WL__ENVELOPE__BODY_SHOW_REQUEST;
    envelope.show_request = &request;
    int r = connection_call(again->westlight, &envelope, WL__ENVELOPE__BODY_SHOW,
                            CONNECTION_TIMEOUT_NS, &again->answer);
    if (r != 0)
        return r;
    const Wl__Show *show = again->answer->show;
    uint8_t job_key[32];

    if (!show->submission)
        return connection_fail(again->westlight, -EPROTO,
                               "farm %s: the broker's answer lacks the submission: update it",
                               again->westlight->farm.name);
    r = recipe_key(again->westlight, show, again->id, job_key);
    if (r == 0)
        r = recipe_open(&again->blocks, again->id, job_key, show->recipe, &again->recipe);
    wipe(job_key, sizeof(job_key));
    if (r == 0 && again->recipe->n_steps != show->submission->n_steps)
        r = connection_fail(again->westlight, WESTLIGHT_E_CORRUPT,
                            "job %s: its recipe is not that of its steps", again->id);
    return r;
}

static void ranges_free(Wl__SpaceParameter *parameter)
{
    for (size_t i = 0; i < parameter->n_ranges; i++)
        wl__range__free_unpacked(parameter->ranges[i], NULL);
    parameter->n_ranges = 0;
}

/* These frames and no others, in the recipe's step. */
static int set_step(struct again *again, Wl__StepRecipe *step, const struct space_range *ranges,
                    size_t n, bool *ret_any)
{
    struct space space;

    int r = wire_space(step->space, step->n_space, &space);
    if (r != 0)
        return r < 0 ? r : -EPROTO;
    Wl__SpaceParameter *frames = edit_frame_parameter(step, &space);
    space_deinit(&space);
    if (!frames)
        return 0;
    *ret_any = true;
    r = edit_within(again->westlight, again->id, step, ranges, n);
    if (r != 0)
        return r;
    ranges_free(frames);
    r = edit_add_ranges(frames, ranges, n);
    if (r == 0)
        r = wire_space(step->space, step->n_space, &space);
    if (r > 0)
        return connection_fail(
            again->westlight, WESTLIGHT_E_USAGE,
            "job %.8s: step \"%.100s\" cannot have these frames: name fewer, or as "
            "many as it had",
            again->id, step->name);
    if (r == 0)
        space_deinit(&space);
    return r;
}

/* Those asked for; otherwise those the old job was last set to. */
static int set_frames(struct again *again, const struct westlight_changes *changes)
{
    const Wl__Show *show = again->answer->show;
    _cleanup_(freep) struct westlight_range *kept = calloc(show->n_frames + 1, sizeof(*kept));
    _cleanup_(freep) struct space_range *ranges = NULL;
    struct westlight_changes wanted = *changes;
    bool any = false;
    size_t n = 0;

    if (!kept)
        return -ENOMEM;
    if (changes->n_frames == 0) {
        for (size_t i = 0; i < show->n_frames; i++)
            kept[i] = (struct westlight_range){show->frames[i]->first, show->frames[i]->last,
                                               (int64_t)show->frames[i]->step};
        wanted.frames = kept;
        wanted.n_frames = show->n_frames;
    }
    if (wanted.n_frames == 0)
        return 0;
    int r = edit_frames_space(&wanted, &ranges, &n);
    if (r > 0)
        return connection_fail(again->westlight, WESTLIGHT_E_USAGE,
                               "frames: a range that is empty, or too many of them");
    for (size_t i = 0; r == 0 && i < again->recipe->n_steps; i++)
        r = set_step(again, again->recipe->steps[i], ranges, n, &any);
    if (r == 0 && !any)
        r = connection_fail(again->westlight, WESTLIGHT_E_USAGE,
                            "job %.8s: it has no frames to set", again->id);
    return r;
}

static int send(struct again *again, const struct westlight_changes *changes)
{
    const Wl__Submit *old = again->answer->show->submission;
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Submit submit = *old;
    Wl__Step steps[LIMIT_STEPS], *pointers[LIMIT_STEPS];
    ProtobufCBinaryData refs[LIMIT_REFS_BLOCKS + 1];
    uint8_t request[16];
    bool has_refs = false;

    int r = recipe_put(&again->blocks, &again->sealed, &again->refs, &has_refs);
    if (r == 0 && old->n_refs + has_refs > LIMIT_REFS_BLOCKS)
        r = connection_fail(
            again->westlight, WESTLIGHT_E_USAGE,
            "job %.8s: it refers to too many blocks to be sent again: submit it anew", again->id);
    if (r != 0)
        return r;
    for (size_t i = 0; i < old->n_steps; i++) {
        steps[i] = *old->steps[i];
        steps[i].space = again->recipe->steps[i]->space;
        steps[i].n_space = again->recipe->steps[i]->n_space;
        pointers[i] = &steps[i];
    }
    memcpy(refs, old->refs, old->n_refs * sizeof(*refs));
    refs[old->n_refs] = (ProtobufCBinaryData){32, again->refs.bytes};
    recipe_request(&again->sealed, again->job_key, request);
    submit.request_id = (ProtobufCBinaryData){sizeof(request), request};
    submit.job = (ProtobufCBinaryData){sizeof(again->job), again->job};
    submit.job_key = (ProtobufCBinaryData){sizeof(again->job_key), again->job_key};
    submit.recipe = &again->sealed.ref;
    submit.person = (char *)""; /* the broker knows whose key it is */
    submit.steps = pointers;
    submit.refs = refs;
    submit.n_refs = old->n_refs + has_refs;
    submit.name = again->recipe->job_name;
    if (changes->note)
        submit.note = (char *)changes->note;
    if (changes->tags) {
        submit.tags = (char **)changes->tags;
        submit.n_tags = changes->n_tags;
    }
    if (changes->set_priority)
        submit.priority = changes->priority;
    if (changes->set_max_workers)
        submit.max_workers = changes->max_workers;
    envelope.body_case = WL__ENVELOPE__BODY_SUBMIT;
    envelope.submit = &submit;
    again->westlight->refusal = CODE_OK;
    r = connection_call(again->westlight, &envelope, WL__ENVELOPE__BODY_ACCEPTED,
                        CONNECTION_SUBMIT_NS, &answer);
    if (r == WESTLIGHT_E_MISSING && again->westlight->refusal == CODE_MISSING)
        r = connection_fail(
            again->westlight, WESTLIGHT_E_MISSING,
            "job %.8s: its inputs are no longer on the farm: submit the scene again", again->id);
    return r;
}

static int rename_recipe(struct again *again, const struct westlight_changes *changes)
{
    const char *name = changes->name ? changes->name : again->answer->show->row->name;
    char *copy = strdup(name);

    if (!copy)
        return -ENOMEM;
    if (again->recipe->job_name != (char *)protobuf_c_empty_string)
        free(again->recipe->job_name);
    again->recipe->job_name = copy;
    return 0;
}

int westlight_resubmit(struct westlight *westlight, const char *id,
                       const struct westlight_changes *changes, westlight_on_id *on_id, void *user,
                       char ret_id[WESTLIGHT_ID_TEXT])
{
    struct again again = {.westlight = westlight, .id = id, .blocks.westlight = westlight};
    char text[WESTLIGHT_ID_TEXT];
    uint8_t job[WESTLIGHT_ID_BYTES];

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = edit_check(westlight, changes);
    if (r == 0)
        r = ask(&again, job);
    if (r == 0)
        r = rename_recipe(&again, changes);
    if (r == 0)
        r = set_frames(&again, changes);
    if (r == 0)
        r = random_bytes(again.job, sizeof(again.job));
    if (r == 0)
        r = random_bytes(again.job_key, sizeof(again.job_key));
    if (r == 0)
        r = recipe_seal(westlight, again.job_key, again.recipe, &again.sealed);
    hex_encode(again.job, sizeof(again.job), text);
    if (r == 0 && on_id)
        on_id(user, text);
    if (r == 0)
        r = send(&again, changes);
    if (r == 0) {
        recipe_keep_key(westlight, text, again.job_key);
        memcpy(ret_id, text, sizeof(text));
    }
    if (again.recipe)
        wl__recipe__free_unpacked(again.recipe, NULL);
    wire_free(again.answer);
    recipe_sealed_deinit(&again.sealed);
    blocks_deinit(&again.blocks);
    wipe(again.job_key, sizeof(again.job_key));
    return r;
}
