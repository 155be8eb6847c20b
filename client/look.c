/* look.c - questions: the answer's message is kept, and the rows given out borrow from it. */
#include <client/look.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- jobs ---- */

static int ask_jobs(struct westlight *westlight, Wl__JobsRequest *request,
                    Wl__Envelope **ret_answer)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    envelope.body_case = WL__ENVELOPE__BODY_JOBS_REQUEST;
    envelope.jobs_request = request;
    return connection_call(westlight, &envelope, WL__ENVELOPE__BODY_JOBS, CONNECTION_TIMEOUT_NS,
                           ret_answer);
}

int westlight_jobs(struct westlight *westlight, enum westlight_listed which,
                   westlight_on_row *on_row, void *user)
{
    uint64_t before = 0;
    bool more = true;

    connection_begin(westlight);
    while (more) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        Wl__JobsRequest request = WL__JOBS_REQUEST__INIT;
        request.all = which == WESTLIGHT_ALL;
        request.archived = which == WESTLIGHT_ARCHIVED;
        request.before_sequence = before;
        request.uploads = true;
        request.limit = LIMIT_PAGE;
        int r = ask_jobs(westlight, &request, &answer);
        for (size_t i = 0; r == 0 && i < answer->jobs->n_jobs; i++) {
            struct westlight_row row;
            r = look_row(westlight, answer->jobs->jobs[i], &row);
            if (r == 0)
                r = on_row(user, &row);
        }
        if (r != 0)
            return r;
        /* Only ever back, so that it ends. */
        more = answer->jobs->more && answer->jobs->next > 0 &&
               (before == 0 || answer->jobs->next < before);
        before = answer->jobs->next;
    }
    return 0;
}

/* Digits to bytes, the last one padded. False where it is no prefix of an id. */
static bool prefix_bytes(const char *text, uint8_t ret_bytes[WESTLIGHT_ID_BYTES])
{
    char padded[WESTLIGHT_ID_TEXT];
    size_t size = strlen(text);

    if (size < 4 || size > 2 * WESTLIGHT_ID_BYTES)
        return false;
    memset(padded, '0', sizeof(padded));
    memcpy(padded, text, size);
    padded[2 * WESTLIGHT_ID_BYTES] = '\0';
    return hex_decode(padded, ret_bytes, WESTLIGHT_ID_BYTES) == 0;
}

int westlight_resolve(struct westlight *westlight, const char *prefix,
                      char ret_id[WESTLIGHT_ID_TEXT])
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__JobsRequest request = WL__JOBS_REQUEST__INIT;
    uint8_t bytes[WESTLIGHT_ID_BYTES];
    bool last = strcmp(prefix, "last") == 0;

    connection_begin(westlight);
    request.all = true;
    request.uploads = !last;
    request.limit = last ? 1 : 2;
    if (!last) {
        if (!prefix_bytes(prefix, bytes))
            return connection_fail(
                westlight, WESTLIGHT_E_USAGE,
                "job %.40s: not an id: type 4 to 32 of its digits (0-9, a-f), or last", prefix);
        request.prefix_nibbles = (uint32_t)strlen(prefix);
        request.prefix = (ProtobufCBinaryData){(request.prefix_nibbles + 1) / 2, bytes};
    }
    int r = ask_jobs(westlight, &request, &answer);
    while (r == 0 && last && answer->jobs->n_jobs == 0 && answer->jobs->more) {
        request.before_sequence = answer->jobs->next;
        wire_free(TAKE_PTR(answer));
        r = ask_jobs(westlight, &request, &answer);
    }
    if (r != 0)
        return r;
    if (answer->jobs->n_jobs == 0)
        return connection_fail(westlight, WESTLIGHT_E_UNKNOWN,
                               last ? "no job: nothing was submitted yet: see westlight render"
                                    : "job %.40s: no such job: see westlight jobs --all",
                               prefix);
    if (answer->jobs->n_jobs > 1 && !last)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "job %.40s: several jobs begin so: type more digits", prefix);
    if (answer->jobs->jobs[0]->job.len != WESTLIGHT_ID_BYTES)
        return -EPROTO;
    hex_encode(answer->jobs->jobs[0]->job.data, WESTLIGHT_ID_BYTES, ret_id);
    return 0;
}

/* ---- one job ---- */

int look_show(struct westlight *westlight, const uint8_t job[16], Wl__Envelope **ret_show)
{
    Wl__ShowRequest request = WL__SHOW_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer = NULL;
    uint8_t id[16];

    memcpy(id, job, sizeof(id));
    request.job = (ProtobufCBinaryData){sizeof(id), id};
    envelope.body_case = WL__ENVELOPE__BODY_SHOW_REQUEST;
    envelope.show_request = &request;
    int r = connection_call(westlight, &envelope, WL__ENVELOPE__BODY_SHOW, CONNECTION_TIMEOUT_NS,
                            &answer);
    if (r != 0)
        return r;
    if (!answer->show->row) {
        wire_free(answer);
        return connection_fail(westlight, -EPROTO,
                               "farm %s: the broker's answer lacks the job: update this program",
                               westlight->farm.name);
    }
    *ret_show = answer;
    return 0;
}

/* A copy that goes with the rest; NULL stays NULL. */
static int scratch_text(struct westlight *westlight, const char *text, const char **ret_text)
{
    char *kept = text ? connection_scratch(westlight, strlen(text) + 1, 1) : NULL;

    if (text && !kept)
        return -ENOMEM;
    if (kept)
        strcpy(kept, text);
    *ret_text = kept;
    return 0;
}

static int scratch_frames(struct westlight *westlight, const struct space *space,
                          Wl__TaskRange *const *ranges, size_t n_ranges, bool all,
                          const char **ret_text)
{
    _cleanup_(freep) char *text = NULL;

    int r = look_frames(space, ranges, n_ranges, all, &text);
    if (r < 0)
        return r;
    return scratch_text(westlight, text, ret_text);
}

static int step_places(struct westlight *westlight, const Wl__Show *show, uint32_t step,
                       const struct space *space, struct westlight_step_row *row)
{
    struct look_places places;

    int r = look_places(space, show->steps[step], step, show->live, show->n_live, &places);
    if (r == 0)
        r = scratch_text(westlight, places.running, &row->frames_running);
    if (r == 0)
        r = scratch_text(westlight, places.leased, &row->frames_leased);
    if (r == 0)
        r = scratch_text(westlight, places.waiting, &row->frames_waiting);
    if (r == 0)
        r = scratch_text(westlight, places.kept, &row->frames_kept);
    look_places_deinit(&places);
    return r;
}

/* The frames as they were last set; otherwise all there are. */
static int set_frames(struct westlight *westlight, const Wl__Show *show, const char **ret_text)
{
    _cleanup_(freep) struct space_range *ranges = calloc(show->n_frames, sizeof(*ranges));

    if (!ranges)
        return -ENOMEM;
    for (size_t i = 0; i < show->n_frames; i++)
        ranges[i] = (struct space_range){show->frames[i]->first, show->frames[i]->last,
                                         (int64_t)show->frames[i]->step};
    size_t size = space_format_ranges(ranges, show->n_frames, NULL, 0) + 1;
    char *text = connection_scratch(westlight, size, 1);
    if (!text)
        return -ENOMEM;
    space_format_ranges(ranges, show->n_frames, text, size);
    *ret_text = text;
    return 0;
}

static int step_row(struct westlight *westlight, const Wl__Show *show, const Wl__StepRow *message,
                    const struct space *space, struct westlight_step_row *row)
{
    Wl__TaskRange whole = WL__TASK_RANGE__INIT, *all = &whole;

    *row = (struct westlight_step_row){
        .name = message->name,
        .why = message->why,
        .interim = message->interim,
        .software = message->software,
        .counts = {message->tasks, message->waiting, message->ready, message->leased,
                   message->running, message->done, message->failed, message->cancelled},
    };
    whole.last = space_size(space) - 1;
    int r = show->n_frames > 0 && space_frame_name(space)
                ? set_frames(westlight, show, &row->frames)
                : scratch_frames(westlight, space, &all, 1, true, &row->frames);
    if (r == 0)
        r = scratch_frames(westlight, space, message->done_tasks, message->n_done_tasks, true,
                           &row->frames_done);
    if (r == 0)
        r = scratch_frames(westlight, space, message->delivered_tasks, message->n_delivered_tasks,
                           true, &row->frames_delivered);
    if (r == 0)
        r = scratch_frames(westlight, space, message->failed_tasks, message->n_failed_tasks, false,
                           &row->frames_failed);
    return r;
}

/* What is still being uploaded has a row and nothing else. E_UNKNOWN: it is not uploaded (any
 * more). */
static int show_upload(struct westlight *westlight, const uint8_t job[16],
                       const struct westlight_shown **ret_shown)
{
    Wl__JobsRequest request = WL__JOBS_REQUEST__INIT;
    struct westlight_shown *shown = connection_scratch(westlight, 1, sizeof(*shown));
    uint8_t id[WESTLIGHT_ID_BYTES];

    if (!shown)
        return -ENOMEM;
    memcpy(id, job, sizeof(id));
    request.uploads = true;
    request.limit = 1;
    request.prefix = (ProtobufCBinaryData){sizeof(id), id};
    request.prefix_nibbles = 2 * sizeof(id);
    int r = ask_jobs(westlight, &request, &westlight->held);
    if (r != 0)
        return r;
    const Wl__Jobs *jobs = westlight->held->jobs;
    if (jobs->n_jobs == 0 || !jobs->jobs[0]->upload)
        return WESTLIGHT_E_UNKNOWN;
    *ret_shown = shown;
    return look_row(westlight, jobs->jobs[0], &shown->row);
}

int westlight_show(struct westlight *westlight, const char *id,
                   const struct westlight_shown **ret_shown)
{
    _cleanup_(look_steps_freep) struct look_steps *steps = NULL;
    uint8_t job[WESTLIGHT_ID_BYTES];
    struct westlight_live *live = NULL;

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = look_show(westlight, job, &westlight->held);
    if (r == WESTLIGHT_E_STATE) { /* no job yet; it may become one while we ask */
        if (show_upload(westlight, job, ret_shown) == 0)
            return 0;
        wire_free(TAKE_PTR(westlight->held));
        r = look_show(westlight, job, &westlight->held);
    }
    if (r != 0)
        return r;
    const Wl__Show *show = westlight->held->show;
    struct westlight_shown *shown = connection_scratch(westlight, 1, sizeof(*shown));
    struct westlight_step_row *rows = connection_scratch(westlight, show->n_steps, sizeof(*rows));
    if (!shown || !rows)
        return -ENOMEM;

    r = look_steps_new(show->steps, show->n_steps, &steps);
    for (size_t i = 0; r == 0 && i < show->n_steps; i++) {
        r = step_row(westlight, show, show->steps[i], &steps->spaces[i], &rows[i]);
        if (r == 0)
            r = step_places(westlight, show, (uint32_t)i, &steps->spaces[i], &rows[i]);
    }
    if (r == 0)
        r = look_row(westlight, show->row, &shown->row);
    if (r == 0)
        r = look_live(westlight, steps, show->live, show->n_live, &live);
    if (r != 0)
        return r;
    shown->steps = rows;
    shown->n_steps = show->n_steps;
    shown->live = live;
    shown->n_live = show->n_live;
    look_usage(show->usage, &shown->usage);
    *ret_shown = shown;
    return 0;
}

/* ---- watching ---- */

int westlight_watch(struct westlight *westlight, const char *id)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    struct westlight_watch *watch;
    uint8_t job[WESTLIGHT_ID_BYTES];

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = look_show(westlight, job, &answer);
    if (r == 0)
        r = connection_watch(westlight, job, &watch);
    if (r == 0 && !watch->steps)
        r = look_steps_new(answer->show->steps, answer->show->n_steps, &watch->steps);
    return r;
}

int westlight_unwatch(struct westlight *westlight, const char *id)
{
    uint8_t job[WESTLIGHT_ID_BYTES];
    int r = connection_begin_job(westlight, id, job);

    if (r == 0)
        connection_unwatch(westlight, job);
    return r;
}

/* A notice that tells of a frame which was added since it was asked what tasks are called. */
static int see_new_frames(struct westlight *westlight, struct westlight_watch *watch,
                          const Wl__Notice *notice)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    bool known = true;

    for (size_t i = 0; i < notice->n_live; i++)
        known &= look_knows(watch->steps, notice->live[i]->step, notice->live[i]->task);
    if (known)
        return 0;
    int r = look_show(westlight, watch->job, &answer);
    if (r != 0)
        return r;
    look_steps_free(TAKE_PTR(watch->steps));
    return look_steps_new(answer->show->steps, answer->show->n_steps, &watch->steps);
}

int westlight_next(struct westlight *westlight, int timeout_ms,
                   const struct westlight_notice **ret_notice)
{
    struct westlight_watch *watch;
    struct westlight_live *live;

    connection_begin(westlight);
    int64_t span_ns = (timeout_ms > 0 ? timeout_ms : 0) * NS_PER_MS;
    int r = connection_notice(westlight, clock_monotonic_ns() + span_ns, &watch);
    if (r != 0)
        return r;
    westlight->held = TAKE_PTR(watch->notice);
    const Wl__Notice *notice = westlight->held->notice;
    if (notice->gone || !notice->row)
        return connection_fail(westlight, WESTLIGHT_E_UNKNOWN, "job: it is gone from the farm");
    struct westlight_notice *out = connection_scratch(westlight, 1, sizeof(*out));
    if (!out || !watch->steps)
        return -ENOMEM;
    r = see_new_frames(westlight, watch, notice);
    if (r == 0)
        r = look_row(westlight, notice->row, &out->row);
    if (r == 0)
        r = look_live(westlight, watch->steps, notice->live, notice->n_live, &live);
    if (r != 0)
        return r;
    out->live = live;
    out->n_live = notice->n_live;
    out->why = (const char *const *)notice->why;
    out->n_why = notice->n_why;
    *ret_notice = out;
    return 0;
}

/* ---- attempts ---- */

static int ask_attempts(struct westlight *westlight, Wl__AttemptsRequest *request,
                        Wl__Envelope **ret_answer)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    envelope.body_case = WL__ENVELOPE__BODY_ATTEMPTS_REQUEST;
    envelope.attempts_request = request;
    return connection_call(westlight, &envelope, WL__ENVELOPE__BODY_ATTEMPTS, CONNECTION_TIMEOUT_NS,
                           ret_answer);
}

int look_attempts(struct westlight *westlight, const uint8_t job[16], uint32_t step, uint64_t task,
                  uint64_t after, Wl__Envelope **ret_answer)
{
    Wl__AttemptsRequest request = WL__ATTEMPTS_REQUEST__INIT;
    uint8_t id[16];

    memcpy(id, job, sizeof(id));
    request.job = (ProtobufCBinaryData){sizeof(id), id};
    request.step = step;
    request.task = task;
    request.after = after;
    request.limit = LIMIT_PAGE;
    return ask_attempts(westlight, &request, ret_answer);
}

static int give_attempt(const struct look_steps *steps, const Wl__AttemptRow *row, uint32_t number,
                        westlight_on_attempt *on_attempt, void *user)
{
    char name[LIMIT_NAME_BYTES] = "";
    struct westlight_attempt attempt = {
        .sequence = row->sequence,
        .attempt = row->attempt,
        .step = row->step,
        .task = row->task,
        .task_name = name,
        .number = number,
        .floor = row->floor,
        .class_name = class_name(row->class_),
        .message = row->message,
        .worker = row->worker,
        .exit_status = row->exit_status,
        .started_wall_s = row->started_wall_s,
        .ended_wall_s = row->ended_wall_s,
    };

    look_usage(row->usage, &attempt.usage);
    look_task_name(steps, row->step, row->task, name, sizeof(name));
    return on_attempt(user, &attempt);
}

/* Pages of what `request` asks for, at most `max` rows. */
static int each_attempt(struct westlight *westlight, const char *id, Wl__AttemptsRequest *request,
                        uint32_t max, westlight_on_attempt *on_attempt, void *user)
{
    _cleanup_(wire_freep) Wl__Envelope *show = NULL;
    _cleanup_(look_steps_freep) struct look_steps *steps = NULL;
    uint8_t job[WESTLIGHT_ID_BYTES];
    uint32_t n = 0;
    bool more = true;

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = look_show(westlight, job, &show);
    if (r == 0)
        r = look_steps_new(show->show->steps, show->show->n_steps, &steps);
    request->job = (ProtobufCBinaryData){sizeof(job), job};
    while (r == 0 && more && n < max) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        request->limit = max - n < LIMIT_PAGE ? max - n : LIMIT_PAGE;
        r = ask_attempts(westlight, request, &answer);
        for (size_t i = 0; r == 0 && i < answer->attempts->n_attempts; i++, n++) {
            const Wl__AttemptRow *row = answer->attempts->attempts[i];
            request->after = row->sequence;
            r = give_attempt(steps, row, request->failures || request->warnings ? 0 : n + 1,
                             on_attempt, user);
        }
        more = r == 0 && answer->attempts->more && answer->attempts->n_attempts > 0;
    }
    return r;
}

int westlight_attempts(struct westlight *westlight, const char *id, uint32_t step, uint64_t task,
                       westlight_on_attempt *on_attempt, void *user)
{
    Wl__AttemptsRequest request = WL__ATTEMPTS_REQUEST__INIT;

    request.step = step;
    request.task = task;
    return each_attempt(westlight, id, &request, UINT32_MAX, on_attempt, user);
}

int westlight_failures(struct westlight *westlight, const char *id, uint32_t max,
                       westlight_on_attempt *on_attempt, void *user)
{
    Wl__AttemptsRequest request = WL__ATTEMPTS_REQUEST__INIT;

    request.failures = true;
    return each_attempt(westlight, id, &request, max, on_attempt, user);
}

int westlight_warnings(struct westlight *westlight, const char *id, uint32_t max,
                       westlight_on_attempt *on_attempt, void *user)
{
    Wl__AttemptsRequest request = WL__ATTEMPTS_REQUEST__INIT;

    request.warnings = true;
    return each_attempt(westlight, id, &request, max, on_attempt, user);
}
