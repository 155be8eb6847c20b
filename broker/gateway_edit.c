/* gateway_edit.c - what a person changes of a job while it runs.
 *
 * An edit is stored as it came, and the catalogue and the core both follow it, live and in
 * recovery. Whether it fits the job is the core's to say, because an edit that was answered before
 * is given the same answer whatever the job has become since.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <broker/gateway.h>

/* What the core's record borrows from until the store has it. */
struct edit {
    Wl__Envelope *envelope;
    struct space *spaces;
    size_t n_spaces;
    void *blob;
};

static void edit_free(void *memory)
{
    struct edit *edit = memory;

    if (edit->envelope)
        wire_free(edit->envelope);
    catalogue_spaces_free(edit->spaces, edit->n_spaces);
    free(edit->blob);
    free(edit);
}

static const char *edit_why(const Wl__Edit *edit)
{
    if (edit->what == 0 || (edit->what & ~(unsigned)EDIT_ALL))
        return "it asks for nothing that can be changed";
    if ((edit->what & EDIT_NAME) && !edit->name[0])
        return "it takes the job's name away";
    if ((edit->what & EDIT_MAX_WORKERS) && edit->max_workers > LIMIT_LEASES)
        return "its limit of workers is more than there can be";
    if (!(edit->what & EDIT_FRAMES) != (edit->n_frames == 0))
        return "it names frames and does not change them, or the other way round";
    if ((edit->n_spaces > 0) != (edit->recipe != NULL) || (edit->n_spaces && !edit->n_frames) ||
        (edit->n_refs && !edit->recipe))
        return "its frames, spaces and recipe do not belong together";
    if (edit->recipe && edit->n_refs == 0 && gateway_outside(&edit->recipe, 1, NULL) > 0)
        return "its recipe lies in the vault, and no refs name it";
    return NULL;
}

/* The tasks that stay: in a step with frames those that hold any of them, of another all. */
static const char *edit_wanted(struct gateway *gateway, const Wl__Edit *edit,
                               const struct job_view *view, const struct space *spaces,
                               struct ranges *ranges)
{
    bool any = false;

    for (uint32_t i = 0; edit->n_frames > 0 && i < view->n_steps; i++) {
        const struct space *space =
            i < edit->n_spaces ? &spaces[i] : core_step_space(gateway->with.core, &view->job, i);
        size_t before = ranges->n;
        const char *why = ranges_of_frames(gateway, space, i, edit->frames, edit->n_frames, ranges);

        if (why)
            return why;
        any |= space_frame_name(space) != NULL;
        if (!space_frame_name(space) &&
            !ranges_add(ranges, (struct task_range){i, 0, space_size(space) - 1}))
            return "it names frames in too many pieces";
        if (ranges->n == before)
            return "a step of the job has none of these frames";
    }
    if (edit->n_frames > 0 && !any)
        return "the job has no frames";
    return ranges->n > LIMIT_RANGES_EDIT ? "it names frames in too many pieces" : NULL;
}

static void edit_step(struct gateway *gateway, struct edit *kept, const struct job_view *view,
                      const struct ranges *ranges)
{
    struct ask *ask = &gateway->ask;
    const Wl__Edit *edit = ask->envelope->edit;
    struct event event = {.kind = EVENT_EDIT};

    event.edit.what = edit->what;
    event.edit.studio = gateway_scope(ask->peer);
    event.edit.job = view->job;
    memcpy(event.edit.request.bytes, edit->request_id.data, sizeof event.edit.request.bytes);
    gateway_digest(gateway, &edit->base, &event.edit.digest);
    event.edit.priority = edit->priority;
    event.edit.max_workers = edit->max_workers;
    event.edit.archived = edit->archived;
    event.edit.spaces = kept->spaces;
    event.edit.n_spaces = kept->n_spaces;
    event.edit.wanted = ranges->list;
    event.edit.n_wanted = ranges->n;
    event.edit.name = edit->what & EDIT_NAME ? edit->name : NULL;
    event.edit.blob_size = wl__edit__get_packed_size(edit);
    kept->blob = malloc(event.edit.blob_size + 1);
    if (!kept->blob)
        gateway_die("memory", -ENOMEM);
    wl__edit__pack(edit, kept->blob);
    event.edit.blob = kept->blob;
    gateway_step(gateway, &event);
    kept->envelope = TAKE_PTR(ask->envelope);
}

/* Its blocks are pinned, or it has none. */
void gateway_edit_go(struct gateway *gateway)
{
    const Wl__Edit *edit = gateway->ask.envelope->edit;
    struct edit *kept = calloc(1, sizeof *kept);
    struct ranges ranges = {0};
    const char *invalid = NULL;
    struct job_view view;
    char why[256];
    int r;

    if (!kept)
        gateway_die("memory", -ENOMEM);
    if (!gateway_job(gateway, &edit->job, &view)) {
        edit_free(kept);
        return;
    }
    r = catalogue_spaces(edit, &kept->spaces, why, sizeof why);
    if (r < 0)
        gateway_die("memory", r);
    kept->n_spaces = r == 0 ? edit->n_spaces : 0;
    invalid = r > 0 ? why : edit_wanted(gateway, edit, &view, kept->spaces, &ranges);
    if (invalid)
        gateway_refuse(gateway, CODE_INVALID, "the request", invalid,
                       "westlight show JOB lists its steps and frames");
    else
        edit_step(gateway, kept, &view, &ranges);
    free(ranges.list);
    if (journal_keep(gateway->with.journal, kept, edit_free) < 0)
        gateway_die("memory", -ENOMEM);
}

/* The answer it had, whatever the job has become. */
static void edit_again(struct gateway *gateway)
{
    const Wl__Edit *edit = gateway->ask.envelope->edit;
    struct edit *kept = calloc(1, sizeof *kept);
    struct ranges none = {0};
    struct job_view view = {0};

    if (!kept)
        gateway_die("memory", -ENOMEM);
    memcpy(view.job.bytes, edit->job.data, sizeof view.job.bytes);
    edit_step(gateway, kept, &view, &none);
    if (journal_keep(gateway->with.journal, kept, edit_free) < 0)
        gateway_die("memory", -ENOMEM);
}

void gateway_on_edit(struct gateway *gateway)
{
    const Wl__Edit *edit = gateway->ask.envelope->edit;
    const char *invalid = edit_why(edit);
    struct catalogue_job *entry;
    struct job_view view;

    if (invalid) {
        gateway_refuse(gateway, CODE_INVALID, "the request", invalid, "correct it");
        return;
    }
    if (gateway_remembers(gateway, &edit->request_id)) {
        edit_again(gateway);
        return;
    }
    entry = gateway_job(gateway, &edit->job, &view);
    if (!entry)
        return;
    if (edit->n_refs == 0)
        gateway_edit_go(gateway);
    else if (entry->submit->n_refs + edit->n_refs > LIMIT_REFS_BLOCKS)
        gateway_refuse(gateway, CODE_INVALID, "the request",
                       "the job was given more frames too often",
                       "westlight resubmit makes another");
    else if (!gateway_pin_room(gateway, entry->studio))
        gateway_refuse(gateway, CODE_BUSY, "the request", "too many are waiting for the vault",
                       "try again in some seconds");
    else
        gateway_pin(gateway, entry->studio, edit->refs, edit->n_refs, NULL);
}
