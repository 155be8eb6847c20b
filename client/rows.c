/* rows.c - a task is an index; here it gets its frame's name back, and a job its phase.
 *
 * Frames of a range of tasks are arithmetic as well: which points of the frame parameter the tasks
 * cover, then which values those points hold.
 */
#include <client/look.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Past this many (frame, outer value) pairs a list of frames is of no use to a person. */
#define FRAMES_MAX 1000000

/* ---- steps ---- */

void look_steps_free(struct look_steps *steps)
{
    if (!steps)
        return;
    for (size_t i = 0; i < steps->n; i++) {
        free(steps->names[i]);
        space_deinit(&steps->spaces[i]);
    }
    free(steps->names);
    free(steps->spaces);
    free(steps);
}

static int add_step(struct look_steps *steps, const char *name, Wl__SpaceParameter *const *space,
                    size_t n)
{
    _cleanup_(freep) char *kept = strdup(name);
    if (!kept)
        return -ENOMEM;
    int r = wire_space(space, n, &steps->spaces[steps->n]);
    if (r == 0)
        steps->names[steps->n++] = TAKE_PTR(kept);
    return r > 0 ? -EPROTO : r;
}

static int steps_alloc(size_t n, struct look_steps **ret_steps)
{
    _cleanup_(look_steps_freep) struct look_steps *steps = calloc(1, sizeof(*steps));
    if (!steps)
        return -ENOMEM;
    steps->names = calloc(n + 1, sizeof(*steps->names));
    steps->spaces = calloc(n + 1, sizeof(*steps->spaces));
    if (!steps->names || !steps->spaces)
        return -ENOMEM;
    *ret_steps = TAKE_PTR(steps);
    return 0;
}

int look_steps_new(Wl__StepRow *const *rows, size_t n, struct look_steps **ret_steps)
{
    _cleanup_(look_steps_freep) struct look_steps *steps = NULL;

    int r = steps_alloc(n, &steps);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_step(steps, rows[i]->name, rows[i]->space, rows[i]->n_space);
    if (r == 0)
        *ret_steps = TAKE_PTR(steps);
    return r;
}

int look_steps_of_recipe(const Wl__Recipe *recipe, struct look_steps **ret_steps)
{
    _cleanup_(look_steps_freep) struct look_steps *steps = NULL;

    int r = steps_alloc(recipe->n_steps, &steps);
    for (size_t i = 0; r == 0 && i < recipe->n_steps; i++)
        r = add_step(steps, recipe->steps[i]->name, recipe->steps[i]->space,
                     recipe->steps[i]->n_space);
    if (r == 0)
        *ret_steps = TAKE_PTR(steps);
    return r;
}

bool look_knows(const struct look_steps *steps, uint32_t step, uint64_t task)
{
    return step < steps->n && task < space_size(&steps->spaces[step]);
}

static const struct space_parameter *frame_parameter(const struct space *space)
{
    const char *name = space_frame_name(space);
    for (size_t i = 0; name && i < space->n_parameters; i++)
        if (strcmp(space->parameters[i].name, name) == 0)
            return &space->parameters[i];
    return NULL;
}

static size_t add_text(char *text, size_t size, size_t at, const char *what, const char *value)
{
    if (at >= size)
        return at;
    int n = snprintf(text + at, size - at, "%s%s", what, value);
    return n < 0 ? at : at + (size_t)n;
}

/* Rectangles are for renderers; a person counts. */
static void tile_name(const struct space_parameter *tiles, const struct space_value *value,
                      char *text, size_t size)
{
    size_t i = 0;

    while (i < tiles->n_texts && strcmp(tiles->texts[i], value->text) != 0)
        i++;
    snprintf(text, size, "tile %zu of %zu", i + 1, tiles->n_texts);
}

void look_task_name(const struct look_steps *steps, uint32_t step, uint64_t task, char *ret_name,
                    size_t size)
{
    struct point point;
    char value[128];
    size_t at = 0;

    if (step >= steps->n || space_point(&steps->spaces[step], task, &point) != 0) {
        snprintf(ret_name, size, "step %u, task %llu", step, (unsigned long long)task);
        return;
    }
    const struct space *space = &steps->spaces[step];
    const struct space_parameter *frame = frame_parameter(space);
    if (point.n_values == 0)
        at = add_text(ret_name, size, at, steps->names[step], "");
    for (size_t pass = 0; pass < 2; pass++) /* the frame first */
        for (size_t i = 0; i < point.n_values; i++) {
            bool is_frame = &space->parameters[i] == frame;
            if (is_frame != (pass == 0))
                continue;
            space_value_text(space, &point.values[i], value, sizeof(value));
            if (strcmp(point.values[i].name, WESTLIGHT_TILE) == 0) {
                tile_name(&space->parameters[i], &point.values[i], value, sizeof(value));
                at = add_text(ret_name, size, at, at ? ", " : "", value);
                continue;
            }
            if (!is_frame) {
                at = add_text(ret_name, size, at, at ? ", " : "", point.values[i].name);
                at = add_text(ret_name, size, at, " ", value);
            } else {
                at = add_text(ret_name, size, at,
                              point.values[i].value_count > 1 ? "frames " : "frame ", value);
            }
        }
}

/* ---- frames of tasks ---- */

/* Where the frame parameter stands in the mixed radix: a task is (outer, point, inner). */
static uint64_t inner_points(const struct space *space, const struct space_parameter *frame)
{
    uint64_t inner = 1;
    for (uint32_t factor = frame->factor + 1; factor < space->n_factors; factor++)
        for (size_t i = 0; i < space->n_parameters; i++)
            if (space->parameters[i].factor == factor) {
                inner *= space->parameters[i].n_points;
                break; /* associated parameters advance together */
            }
    return inner;
}

/* counts[p] becomes how many listed tasks point p has. */
static int count_tasks(const struct space *space, uint64_t points, uint64_t inner,
                       Wl__TaskRange *const *ranges, size_t n_ranges, uint64_t *counts)
{
    uint64_t visited = 0, last_task = space_size(space) - 1;

    for (size_t i = 0; i < n_ranges; i++) {
        uint64_t first = ranges[i]->first,
                 last = ranges[i]->last < last_task ? ranges[i]->last : last_task;
        if (first > last)
            continue;
        visited += last / inner - first / inner + 1;
        if (visited > FRAMES_MAX)
            return -EFBIG;
        for (uint64_t group = first / inner; group <= last / inner; group++) {
            uint64_t from = group * inner > first ? group * inner : first;
            uint64_t to = group * inner + inner - 1 < last ? group * inner + inner - 1 : last;
            counts[group % points] += to - from + 1;
        }
    }
    return 0;
}

struct frames {
    struct space_range *ranges;
    size_t n, capacity;
};

static int add_range(struct frames *frames, struct space_range range)
{
    struct space_range *before = frames->n ? &frames->ranges[frames->n - 1] : NULL;
    if (before && before->step == range.step && before->last + before->step == range.first) {
        before->last = range.last;
        return 0;
    }
    if (frames->n == frames->capacity) {
        size_t capacity = frames->capacity ? 2 * frames->capacity : 16;
        struct space_range *grown = reallocarray(frames->ranges, capacity, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        frames->ranges = grown;
        frames->capacity = capacity;
    }
    frames->ranges[frames->n++] = range;
    return 0;
}

/* Values first..last of the parameter's list, as ranges. */
static int add_values(struct frames *frames, const struct space_parameter *frame, uint64_t first,
                      uint64_t last)
{
    uint64_t base = 0;
    for (size_t i = 0; i < frame->n_ranges && base <= last; i++) {
        const struct space_range *range = &frame->ranges[i];
        uint64_t n = ((uint64_t)range->last - (uint64_t)range->first) / (uint64_t)range->step + 1;
        if (first < base + n) {
            uint64_t from = first > base ? first - base : 0,
                     to = last - base < n - 1 ? last - base : n - 1;
            int r = add_range(
                frames, (struct space_range){.first = range->first + (int64_t)from * range->step,
                                             .last = range->first + (int64_t)to * range->step,
                                             .step = range->step});
            if (r < 0)
                return r;
        }
        base += n;
    }
    return 0;
}

static int points_to_frames(const struct space *space, const struct space_parameter *frame,
                            uint64_t inner, const uint64_t *counts, uint64_t wanted,
                            struct frames *frames)
{
    size_t index = (size_t)(frame - space->parameters);
    struct point point;

    for (uint64_t p = 0; p < frame->n_points; p++) {
        if (counts[p] < wanted || space_point(space, p * inner, &point) != 0)
            continue;
        uint64_t first = point.values[index].value_first, count = point.values[index].value_count;
        int r = add_values(frames, frame, first, first + count - 1);
        if (r < 0)
            return r;
    }
    return 0;
}

static int format_frames(const struct space_range *ranges, size_t n, char **ret_text)
{
    size_t size = space_format_ranges(ranges, n, NULL, 0) + 1;
    char *text = malloc(size);
    if (!text)
        return -ENOMEM;
    text[0] = '\0';
    space_format_ranges(ranges, n, text, size);
    *ret_text = text;
    return 0;
}

static int frames_counted(Wl__TaskRange *const *ranges, size_t n_ranges, char **ret_text)
{
    uint64_t tasks = 0;
    for (size_t i = 0; i < n_ranges; i++)
        tasks += ranges[i]->last >= ranges[i]->first ? ranges[i]->last - ranges[i]->first + 1 : 0;
    return asprintf(ret_text, "%llu task%s", (unsigned long long)tasks, plural(tasks)) < 0 ? -ENOMEM
                                                                                           : 0;
}

int look_frames(const struct space *space, Wl__TaskRange *const *ranges, size_t n_ranges, bool all,
                char **ret_text)
{
    const struct space_parameter *frame = frame_parameter(space);
    _cleanup_(freep) uint64_t *counts = NULL;
    struct frames frames = {0};

    if (!frame || n_ranges == 0) {
        *ret_text = strdup("");
        return *ret_text ? 0 : -ENOMEM;
    }
    if (frame->n_points > FRAMES_MAX)
        return frames_counted(ranges, n_ranges, ret_text);
    counts = calloc(frame->n_points, sizeof(*counts));
    if (!counts)
        return -ENOMEM;
    uint64_t inner = inner_points(space, frame);
    int r = count_tasks(space, frame->n_points, inner, ranges, n_ranges, counts);
    if (r == -EFBIG)
        return frames_counted(ranges, n_ranges, ret_text);
    uint64_t wanted = all ? space_size(space) / frame->n_points : 1;
    r = points_to_frames(space, frame, inner, counts, wanted, &frames);
    if (r == 0)
        r = format_frames(frames.ranges, frames.n, ret_text);
    free(frames.ranges);
    return r;
}

/* ---- rows ---- */

static enum job_phase phase_of(enum job_state state, const struct westlight_counts *counts,
                               bool finished)
{
    if (state == JOB_CANCELLED)
        return JOB_IS_CANCELLED;
    if (finished && counts->failed)
        return JOB_IS_FAILED;
    /* What still waits, waits for what was cancelled. */
    if (finished)
        return counts->done && counts->waiting == 0 ? JOB_IS_DONE : JOB_IS_CANCELLED;
    if (state == JOB_PAUSED)
        return JOB_IS_PAUSED;
    return counts->leased + counts->running ? JOB_IS_RUNNING : JOB_IS_WAITING;
}

const char *look_phase(enum job_state state, const struct westlight_counts *counts, bool finished)
{
    return job_phase_name(phase_of(state, counts, finished));
}

void look_usage(const Wl__Usage *message, struct westlight_usage *ret_usage)
{
    static const Wl__Usage none = WL__USAGE__INIT;
    if (!message)
        message = &none;
    *ret_usage = (struct westlight_usage){
        .wall_ns = message->wall_ns,
        .cpu_ns = message->cpu_ns,
        .memory_bytes = message->memory_bytes,
        .bytes_in = message->bytes_in,
        .bytes_out = message->bytes_out,
        .card_ns = message->card_ns,
    };
}

static void upload_row(const Wl__Upload *upload, struct westlight_row *row)
{
    row->uploading = true;
    row->state = job_phase_name(JOB_IS_UPLOADING);
    row->phase = job_phase_name(upload->stopped ? JOB_IS_STOPPED : JOB_IS_UPLOADING);
    row->upload_files = upload->files;
    row->upload_bytes = upload->file_bytes;
    row->upload_bytes_done = upload->bytes_done;
}

int look_row(struct westlight *westlight, const Wl__JobRow *message, struct westlight_row *ret_row)
{
    struct westlight_row row = {
        .sequence = message->sequence,
        .name = message->name,
        .person = message->person,
        .studio = message->studio,
        .note = message->note,
        .priority = message->priority,
        .max_workers = message->max_workers,
        .archived = message->archived,
        .state = job_state_name(message->state),
        .reason = message->reason,
        .paused_itself = message->paused_itself,
        .submitted_wall_s = message->submitted_wall_s,
        .counts = {message->tasks, message->waiting, message->ready, message->leased,
                   message->running, message->done, message->failed, message->cancelled},
        .attempts_failed = message->attempts_failed,
        .last_result = message->last_result,
        .delivered = message->delivered,
        .until_wall_s = message->until_wall_s,
        .tags = (const char *const *)message->tags,
        .n_tags = message->n_tags,
    };
    if (message->job.len != WESTLIGHT_ID_BYTES)
        return connection_fail(westlight, -EPROTO,
                               "farm %s: the broker named a job without an id: update this program",
                               westlight->farm.name);
    hex_encode(message->job.data, message->job.len, row.id);
    row.finished = message->finished;
    if (message->upload)
        upload_row(message->upload, &row);
    else
        row.phase = look_phase((enum job_state)message->state, &row.counts, row.finished);
    *ret_row = row;
    return 0;
}

int look_live(struct westlight *westlight, const struct look_steps *steps, Wl__TaskRow *const *rows,
              size_t n, struct westlight_live **ret_live)
{
    struct westlight_live *live = connection_scratch(westlight, n, sizeof(*live));
    char *names = connection_scratch(westlight, n, LIMIT_NAME_BYTES);
    if (!live || !names)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        char *name = names + i * LIMIT_NAME_BYTES;
        look_task_name(steps, rows[i]->step, rows[i]->task, name, LIMIT_NAME_BYTES);
        live[i] = (struct westlight_live){
            .step = rows[i]->step,
            .task = rows[i]->task,
            .task_name = name,
            .state = task_state_name(rows[i]->state),
            .worker = rows[i]->worker,
            .status = rows[i]->status,
            .permille = rows[i]->permille,
            .started_wall_s = rows[i]->started_wall_s,
        };
    }
    *ret_live = live;
    return 0;
}
