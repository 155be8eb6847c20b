/* verb.c - what a person may do to a job, and which task a frame is. */
#include <client/look.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int westlight_do(struct westlight *westlight, const char *id, enum westlight_verb verb,
                 const struct westlight_range *frames, size_t n_frames, uint64_t *ret_tasks)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Verb message = WL__VERB__INIT;
    Wl__Range ranges[LIMIT_RANGES_VERB], *pointers[LIMIT_RANGES_VERB];
    uint8_t job[WESTLIGHT_ID_BYTES], request[16];

    int r = connection_begin_job(westlight, id, job);
    if (r == 0 && n_frames > LIMIT_RANGES_VERB)
        r = connection_fail(westlight, WESTLIGHT_E_USAGE,
                            "frames: %zu ranges: at most %d are taken at once: ask in parts",
                            n_frames, LIMIT_RANGES_VERB);
    if (r == 0)
        r = random_bytes(request, sizeof(request));
    if (r != 0)
        return r;
    for (size_t i = 0; i < n_frames; i++) {
        wl__range__init(&ranges[i]);
        ranges[i].first = frames[i].first;
        ranges[i].last = frames[i].last;
        ranges[i].step = frames[i].step > 0 ? (uint64_t)frames[i].step : 1;
        pointers[i] = &ranges[i];
    }
    message.request_id = (ProtobufCBinaryData){sizeof(request), request};
    message.job = (ProtobufCBinaryData){sizeof(job), job};
    message.kind = (Wl__VerbKind)verb;
    message.frames = pointers;
    message.n_frames = n_frames;
    envelope.body_case = WL__ENVELOPE__BODY_VERB;
    envelope.verb = &message;
    r = connection_call(westlight, &envelope, WL__ENVELOPE__BODY_DONE, CONNECTION_TIMEOUT_NS,
                        &answer);
    if (r == 0 && ret_tasks)
        *ret_tasks = answer->done->tasks;
    if (r == 0 && answer->done->upload)
        snprintf(westlight->why, sizeof(westlight->why), "%s", answer->done->text);
    return r;
}

int westlight_task_of_frame(struct westlight *westlight, const char *id, uint32_t step,
                            int64_t frame, int64_t *ret_task, uint64_t *ret_tasks)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    _cleanup_(look_steps_freep) struct look_steps *steps = NULL;
    _cleanup_(freep) struct space_interval *intervals = NULL;
    const struct space_range range = {frame, frame, 1};
    uint8_t job[WESTLIGHT_ID_BYTES];
    size_t n = 0;

    int r = connection_begin_job(westlight, id, job);
    if (r == 0)
        r = look_show(westlight, job, &answer);
    if (r == 0)
        r = look_steps_new(answer->show->steps, answer->show->n_steps, &steps);
    if (r != 0)
        return r;
    if (step >= steps->n)
        return connection_fail(westlight, WESTLIGHT_E_USAGE, "step %u: the job has %zu", step,
                               steps->n);
    const char *name = space_frame_name(&steps->spaces[step]);
    if (name)
        r = space_find(&steps->spaces[step], name, &range, 1, &intervals, &n);
    if (r < 0)
        return r;
    *ret_task = n > 0 ? (int64_t)intervals[0].first : -1;
    *ret_tasks = n > 0 ? intervals[0].last - intervals[0].first + 1 : 0;
    return 0;
}
