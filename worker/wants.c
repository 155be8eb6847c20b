/* wants.c - see wants.h. */
#include <worker/wants.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/manifest.h>

/* ---- the frames of a task ---- */

int wants_init(struct wants *wants, const Wl__StepRecipe *step, const struct space *space,
               uint64_t task)
{
    const char *name = space_frame_name(space);
    const struct space_parameter *parameter = NULL;
    const struct space_value *value = NULL;
    struct point point;
    uint64_t at = 0;

    *wants = (struct wants){.step = step};
    wants->frames = calloc(WANTS_FRAMES_MAX, sizeof(*wants->frames));
    if (!wants->frames)
        return -ENOMEM;
    wants->n_frames = 1;
    if (!name || space_point(space, task, &point) != 0)
        return 0;
    for (size_t i = 0; i < point.n_values; i++)
        if (strcmp(point.values[i].name, name) == 0)
            value = &point.values[i];
    for (size_t i = 0; i < space->n_parameters; i++)
        if (strcmp(space->parameters[i].name, name) == 0)
            parameter = &space->parameters[i];
    if (!value || !parameter)
        return 0;
    if (value->value_count > WANTS_FRAMES_MAX)
        return 1;
    wants->frames[0] = value->first;
    wants->n_frames = 0;
    for (size_t i = 0; i < parameter->n_ranges; i++) {
        const struct space_range *range = &parameter->ranges[i];
        uint64_t first = (uint64_t)range->first, stride = (uint64_t)range->step;
        uint64_t n = ((uint64_t)range->last - first) / stride + 1;
        uint64_t skip = value->value_first > at ? value->value_first - at : 0;

        for (; skip < n && wants->n_frames < value->value_count; skip++)
            wants->frames[wants->n_frames++] = (int64_t)(first + skip * stride);
        at += n;
    }
    if (wants->n_frames == 0)
        wants->n_frames = 1;
    return 0;
}

void wants_deinit(struct wants *wants)
{
    free(wants->frames);
    *wants = (struct wants){0};
}

/* ---- the files ---- */

static void spend(uint64_t *work, uint64_t steps)
{
    *work -= steps < *work ? steps : *work;
}

static bool frame_here(const struct wants *wants, int64_t frame, uint64_t *work)
{
    spend(work, wants->n_frames);
    for (size_t i = 0; i < wants->n_frames; i++)
        if (wants->frames[i] == frame)
            return true;
    return false;
}

static bool use_wants(const struct wants *wants, const Wl__RootUse *use, const char *path,
                      uint64_t *work)
{
    bool plain = false, matched = false;

    for (size_t i = 0; i < use->n_patterns; i++) {
        int64_t frame;

        if (strchr(use->patterns[i], '#')) {
            if (manifest_frame_of(use->patterns[i], path, &frame, work))
                return frame_here(wants, frame, work);
            continue;
        }
        plain = true;
        matched |= manifest_match(use->patterns[i], path, 0, work);
    }
    return !plain || matched;
}

bool wants_root(const struct wants *wants, uint32_t root)
{
    for (size_t i = 0; i < wants->step->n_inputs; i++)
        if (wants->step->inputs[i]->root == root)
            return true;
    return wants->step->n_inputs == 0;
}

bool wants_file(const struct wants *wants, uint32_t root, const char *path, uint64_t *work)
{
    if (wants->step->n_inputs == 0)
        return true;
    spend(work, wants->step->n_inputs);
    for (size_t i = 0; i < wants->step->n_inputs; i++)
        if (wants->step->inputs[i]->root == root &&
            use_wants(wants, wants->step->inputs[i], path, work))
            return true;
    return *work == 0;
}
