/* edit.c - what a person changes of a job that is there: name, note, tags, priority, limit, frames;
 * and the archive.
 *
 * Frames are the farm's to schedule and the recipe's to name, so more of them make a new recipe:
 * the old one is opened with the job's key, frames are added at the end of its spaces (where
 * indexes leave room for them), and it is sealed anew. The files it names stay where they are.
 */
#include <client/look.h>
#include <client/recipe.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <client/edit.h>

#define EDIT_TRIES 3 /* somebody else changes the same job's frames meanwhile */

/* ---- frames ---- */

int edit_frames_space(const struct westlight_changes *changes, struct space_range **ret_ranges,
                      size_t *ret_n)
{
    struct space_range *ranges = calloc(changes->n_frames + 1, sizeof(*ranges));
    int r = ranges ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < changes->n_frames; i++) {
        const struct westlight_range *frame = &changes->frames[i];
        int64_t step = frame->step > 0 ? frame->step : 1;

        if (frame->last < frame->first || frame->step < 0)
            r = SPACE_E_RANGE;
        ranges[i] = (struct space_range){frame->first, frame->last, step};
        if (r == 0)
            ranges[i].last = space_after(frame->first, space_gap(frame->first, frame->last) /
                                                           (uint64_t)step * (uint64_t)step);
    }
    if (r == 0) /* without nothing: in order, none of them twice */
        r = space_ranges_without(ranges, changes->n_frames, NULL, 0, ret_ranges, ret_n);
    free(ranges);
    return r;
}

Wl__SpaceParameter *edit_frame_parameter(const Wl__StepRecipe *step, const struct space *space)
{
    const char *name = space_frame_name(space);

    for (size_t i = 0; name && i < step->n_space; i++)
        if (strcmp(step->space[i]->name, name) == 0)
            return step->space[i];
    return NULL;
}

int edit_within(struct westlight *westlight, const char *id, const Wl__StepRecipe *step,
                const struct space_range *ranges, size_t n)
{
    const Wl__Range *within = step->within;

    for (size_t i = 0; within && i < n; i++)
        if (ranges[i].first < within->first || ranges[i].last > within->last)
            return connection_fail(
                westlight, WESTLIGHT_E_USAGE,
                "job %.8s: step \"%.100s\" was told that its animation is frames %lld to %lld, and "
                "renders no other: submit it with a longer range (POV-Ray: --clock-range)",
                id, step->name, (long long)within->first, (long long)within->last);
    return 0;
}

int edit_add_ranges(Wl__SpaceParameter *parameter, const struct space_range *ranges, size_t n)
{
    Wl__Range **grown =
        reallocarray(parameter->ranges, parameter->n_ranges + n, sizeof(*parameter->ranges));

    if (!grown)
        return -ENOMEM;
    parameter->ranges = grown;
    for (size_t i = 0; i < n; i++) {
        Wl__Range *range = malloc(sizeof(*range));
        if (!range)
            return -ENOMEM;
        wl__range__init(range);
        range->first = ranges[i].first;
        range->last = ranges[i].last;
        range->step = (uint64_t)ranges[i].step;
        grown[parameter->n_ranges++] = range;
    }
    return 0;
}

/* Where chunks never span two ranges, added ranges get chunks of their own, and the last chunk is
 * left as it is though it may not be full. */
static void keep_chunks(Wl__SpaceParameter *parameter, const struct space_parameter *was)
{
    uint64_t uneven = 0;

    for (size_t i = 0; i + 1 < was->n_ranges; i++)
        uneven += space_range_count(&was->ranges[i]) % was->chunk;
    if (was->chunk > 1 && uneven == 0)
        parameter->contiguous = true;
}

struct growth {
    struct westlight *westlight;
    const char *id;
    struct space_range *wanted;
    size_t n_wanted;
    bool grown, any;
};

static int step_outermost(struct growth *growth, const Wl__StepRecipe *step,
                          const Wl__SpaceParameter *frames)
{
    const char *other = NULL;

    for (size_t i = 0; i < step->n_space; i++)
        if (step->space[i] != frames && step->space[i]->factor <= frames->factor)
            other = step->space[i]->name;
    if (!other)
        return 0;
    return connection_fail(
        growth->westlight, WESTLIGHT_E_USAGE,
        "job %.8s: frames cannot be added to step \"%.100s\", which counts \"%.100s\" "
        "ahead of them: submit them as another job (westlight resubmit -f)",
        growth->id, step->name, other);
}

static int step_grow(struct growth *growth, Wl__StepRecipe *step)
{
    _cleanup_(freep) struct space_range *more = NULL;
    struct space space;
    size_t n = 0;

    int r = wire_space(step->space, step->n_space, &space);
    if (r != 0)
        return r < 0 ? r : -EPROTO;
    Wl__SpaceParameter *frames = edit_frame_parameter(step, &space);
    if (frames) {
        const struct space_parameter *was = &space.parameters[0];
        while (strcmp(was->name, frames->name) != 0)
            was++;
        growth->any = true;
        r = space_ranges_without(growth->wanted, growth->n_wanted, was->ranges, was->n_ranges,
                                 &more, &n);
        if (r == 0 && n > 0)
            r = step_outermost(growth, step, frames);
        if (r == 0)
            r = edit_within(growth->westlight, growth->id, step, more, n);
        if (r == 0 && n > 0) {
            keep_chunks(frames, was);
            r = edit_add_ranges(frames, more, n);
            growth->grown = true;
        }
    }
    space_deinit(&space);
    if (r == 0 && n > 0) {
        r = wire_space(step->space, step->n_space, &space);
        if (r == 0)
            space_deinit(&space);
    }
    if (r > 0 && growth->westlight->why[0] == '\0')
        return connection_fail(
            growth->westlight, WESTLIGHT_E_USAGE,
            "job %.8s: step \"%.100s\": these are too many frames, or frames in too "
            "many pieces: submit them as another job (westlight resubmit -f)",
            growth->id, step->name);
    return r;
}

/* What the edit carries of the frames; messages borrow from it. */
struct frames {
    struct blocks blocks;
    Wl__Recipe *recipe;
    struct recipe_sealed sealed;
    Wl__Range *ranges, **range_pointers;
    Wl__StepSpace *spaces, **space_pointers;
    struct block_id refs;
    ProtobufCBinaryData ref;
};

static void frames_free(struct frames *frames)
{
    if (frames->recipe)
        wl__recipe__free_unpacked(frames->recipe, NULL);
    blocks_deinit(&frames->blocks);
    recipe_sealed_deinit(&frames->sealed);
    free(frames->ranges);
    free(frames->range_pointers);
    free(frames->spaces);
    free(frames->space_pointers);
}

static int fill_ranges(struct frames *frames, const struct growth *growth, Wl__Edit *edit)
{
    frames->ranges = calloc(growth->n_wanted, sizeof(*frames->ranges));
    frames->range_pointers = calloc(growth->n_wanted, sizeof(*frames->range_pointers));
    if (!frames->ranges || !frames->range_pointers)
        return -ENOMEM;
    for (size_t i = 0; i < growth->n_wanted; i++) {
        wl__range__init(&frames->ranges[i]);
        frames->ranges[i].first = growth->wanted[i].first;
        frames->ranges[i].last = growth->wanted[i].last;
        frames->ranges[i].step = (uint64_t)growth->wanted[i].step;
        frames->range_pointers[i] = &frames->ranges[i];
    }
    edit->frames = frames->range_pointers;
    edit->n_frames = growth->n_wanted;
    return 0;
}

static int fill_recipe(struct westlight *westlight, struct frames *frames,
                       const uint8_t job_key[32], Wl__Edit *edit)
{
    size_t n = frames->recipe->n_steps;
    bool has_refs = false;

    frames->spaces = calloc(n + 1, sizeof(*frames->spaces));
    frames->space_pointers = calloc(n + 1, sizeof(*frames->space_pointers));
    if (!frames->spaces || !frames->space_pointers)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        wl__step_space__init(&frames->spaces[i]);
        frames->spaces[i].space = frames->recipe->steps[i]->space;
        frames->spaces[i].n_space = frames->recipe->steps[i]->n_space;
        frames->space_pointers[i] = &frames->spaces[i];
    }
    int r = recipe_seal(westlight, job_key, frames->recipe, &frames->sealed);
    if (r == 0)
        r = recipe_put(&frames->blocks, &frames->sealed, &frames->refs, &has_refs);
    if (r != 0)
        return r;
    frames->ref = (ProtobufCBinaryData){32, frames->refs.bytes};
    edit->spaces = frames->space_pointers;
    edit->n_spaces = n;
    edit->recipe = &frames->sealed.ref;
    edit->refs = &frames->ref;
    edit->n_refs = has_refs;
    return 0;
}

static int fill_frames(struct westlight *westlight, const char *id, const uint8_t job[16],
                       const struct westlight_changes *changes, struct frames *frames,
                       Wl__Edit *edit)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    struct growth growth = {.westlight = westlight, .id = id};
    uint8_t job_key[32];

    int r = edit_frames_space(changes, &growth.wanted, &growth.n_wanted);
    if (r == 0 && growth.n_wanted > LIMIT_RANGES_VERB)
        r = SPACE_E_LIMIT;
    if (r > 0)
        r = connection_fail(westlight, WESTLIGHT_E_USAGE,
                            "frames: a range that is empty, or more than %d of them",
                            LIMIT_RANGES_VERB);
    if (r == 0)
        r = look_show(westlight, job, &answer);
    if (r == 0)
        r = recipe_key(westlight, answer->show, id, job_key);
    frames->blocks.westlight = westlight;
    if (r == 0)
        r = recipe_open(&frames->blocks, id, job_key, answer->show->recipe, &frames->recipe);
    for (size_t i = 0; r == 0 && i < frames->recipe->n_steps; i++)
        r = step_grow(&growth, frames->recipe->steps[i]);
    if (r == 0 && !growth.any)
        r = connection_fail(westlight, WESTLIGHT_E_USAGE, "job %.8s: it has no frames to set", id);
    if (r == 0)
        r = fill_ranges(frames, &growth, edit);
    if (r == 0 && growth.grown)
        r = fill_recipe(westlight, frames, job_key, edit);
    free(growth.wanted);
    wipe(job_key, sizeof(job_key));
    return r;
}

/* ---- the edit ---- */

static int call(struct westlight *westlight, const uint8_t job[16], Wl__Edit *edit,
                uint64_t *ret_tasks)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    uint8_t id[16], request[16];

    int r = random_bytes(request, sizeof(request));
    if (r != 0)
        return r;
    memcpy(id, job, sizeof(id));
    edit->request_id = (ProtobufCBinaryData){sizeof(request), request};
    edit->job = (ProtobufCBinaryData){sizeof(id), id};
    envelope.body_case = WL__ENVELOPE__BODY_EDIT;
    envelope.edit = edit;
    r = connection_call(westlight, &envelope, WL__ENVELOPE__BODY_DONE, CONNECTION_TIMEOUT_NS,
                        &answer);
    if (r == 0 && ret_tasks)
        *ret_tasks = answer->done->tasks;
    return r;
}

static int text_ok(struct westlight *westlight, const char *what, const char *text, size_t max)
{
    if (!text || strlen(text) <= max)
        return 0;
    return connection_fail(westlight, WESTLIGHT_E_USAGE,
                           "%s \"%.40s...\": at most %zu bytes: shorten it", what, text, max);
}

int edit_check(struct westlight *westlight, const struct westlight_changes *changes)
{
    int r = text_ok(westlight, "name", changes->name, LIMIT_NAME_BYTES);
    if (r == 0)
        r = text_ok(westlight, "note", changes->note, LIMIT_NOTE_BYTES);
    for (size_t i = 0; r == 0 && i < changes->n_tags; i++)
        r = text_ok(westlight, "tag", changes->tags[i], LIMIT_NAME_BYTES);
    if (r == 0 && changes->name && !changes->name[0])
        r = connection_fail(westlight, WESTLIGHT_E_USAGE, "name: a job has one: give it another");
    if (r == 0 && changes->n_tags > LIMIT_TAGS)
        r = connection_fail(westlight, WESTLIGHT_E_USAGE, "tags: at most %d are taken", LIMIT_TAGS);
    if (r == 0 && changes->set_max_workers && changes->max_workers > LIMIT_LEASES)
        r = connection_fail(westlight, WESTLIGHT_E_USAGE,
                            "limit of %u workers: at most %u are taken", changes->max_workers,
                            LIMIT_LEASES);
    return r;
}

static void fill(const struct westlight_changes *changes, Wl__Edit *edit)
{
    edit->what = (changes->name ? EDIT_NAME : 0) | (changes->note ? EDIT_NOTE : 0) |
                 (changes->tags ? EDIT_TAGS : 0) | (changes->set_priority ? EDIT_PRIORITY : 0) |
                 (changes->set_max_workers ? EDIT_MAX_WORKERS : 0) |
                 (changes->n_frames ? EDIT_FRAMES : 0);
    if (changes->name)
        edit->name = (char *)changes->name;
    if (changes->note)
        edit->note = (char *)changes->note;
    edit->tags = (char **)changes->tags;
    edit->n_tags = changes->n_tags;
    edit->priority = changes->set_priority ? changes->priority : 0;
    edit->max_workers = changes->set_max_workers ? changes->max_workers : 0;
}

int westlight_set(struct westlight *westlight, const char *id,
                  const struct westlight_changes *changes, uint64_t *ret_tasks)
{
    uint8_t job[WESTLIGHT_ID_BYTES];

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = edit_check(westlight, changes);
    for (int tries = 1; r == 0; tries++) {
        struct frames frames = {0};
        Wl__Edit edit = WL__EDIT__INIT;

        westlight->refusal = CODE_OK;
        fill(changes, &edit);
        if (edit.what == 0)
            return connection_fail(westlight, WESTLIGHT_E_USAGE,
                                   "job %.8s: nothing is to be changed", id);
        if (changes->n_frames > 0)
            r = fill_frames(westlight, id, job, changes, &frames, &edit);
        if (r == 0)
            r = call(westlight, job, &edit, ret_tasks);
        frames_free(&frames);
        if (r == 0 || westlight->refusal != CODE_STALE || tries == EDIT_TRIES)
            return r;
        westlight->why[0] = '\0';
        r = 0;
    }
    return r;
}

int westlight_archive(struct westlight *westlight, const char *id, bool archived)
{
    Wl__Edit edit = WL__EDIT__INIT;
    uint8_t job[WESTLIGHT_ID_BYTES];

    int r = connection_begin_job(westlight, id, job);
    if (r != 0)
        return r;
    edit.what = EDIT_ARCHIVED;
    edit.archived = archived;
    return call(westlight, job, &edit, NULL);
}
