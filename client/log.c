/* log.c - what a task printed: the log of an attempt that ended, or of one that runs, as it comes.
 *
 * A running attempt's output comes in numbered segments. When it ends, its whole log is kept; what
 * was shown already is left out by its length, or, where segments were missed, by finding the last
 * one that was shown.
 */
#include <client/look.h>
#include <client/recipe.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define POLL_NS (300 * NS_PER_MS)

struct reading {
    struct westlight *westlight;
    struct blocks blocks;
    uint8_t job[WESTLIGHT_ID_BYTES];
    uint8_t job_key[32];
    uint32_t step;
    uint64_t task;
    westlight_on_text *on_text;
    void *user;

    uint64_t segment; /* the last one shown */
    uint64_t shown_bytes;
    bool gap;          /* a segment was missed */
    struct bytes last; /* its text */
};

/* ---- the log of an attempt that has ended ---- */

struct ended {
    uint32_t number; /* from 1 */
    uint32_t floor;
    Wl__BlockRef **log;
    size_t n_log;
    Wl__Envelope *answer; /* holds the row */
};

/* The attempt of that number, or the newest; 0 attempts: number 0. */
static int find_attempt(struct reading *reading, uint32_t wanted, struct ended *ended)
{
    uint64_t after = 0;
    bool more = true;
    uint32_t number = 0;

    while (more) {
        Wl__Envelope *answer = NULL;
        int r = look_attempts(reading->westlight, reading->job, reading->step, reading->task, after,
                              &answer);
        if (r != 0)
            return r;
        const Wl__Attempts *page = answer->attempts;
        bool taken = false;
        for (size_t i = 0; i < page->n_attempts; i++) {
            const Wl__AttemptRow *row = page->attempts[i];
            after = row->sequence;
            number++;
            if (wanted != 0 && number != wanted)
                continue;
            ended->number = number;
            ended->floor = row->floor;
            ended->log = row->log;
            ended->n_log = row->n_log;
            taken = true;
        }
        more = page->more && page->n_attempts > 0;
        if (taken) {
            wire_free(ended->answer);
            ended->answer = answer;
        } else {
            wire_free(answer);
        }
    }
    return 0;
}

static int log_key(const struct reading *reading, uint32_t floor, uint8_t ret_secret[32])
{
    uint8_t key_out[32];

    job_key_out(reading->job_key, reading->step, reading->task, floor, key_out);
    job_key_log(key_out, ret_secret);
    wipe(key_out, sizeof(key_out));
    return 0;
}

static int show_text(struct reading *reading, const uint8_t *text, size_t size)
{
    return size ? reading->on_text(reading->user, (const char *)text, size) : 0;
}

/* How much of the whole log was shown while it ran. */
static size_t shown_of(const struct reading *reading, const struct bytes *whole)
{
    if (!reading->gap)
        return reading->shown_bytes < whole->size ? reading->shown_bytes : whole->size;
    const uint8_t *found = NULL, *from = whole->data;
    while (reading->last.size && (from = memmem(from, (size_t)(whole->data + whole->size - from),
                                                reading->last.data, reading->last.size)))
        found = from++;
    return found ? (size_t)(found - whole->data) + reading->last.size : 0;
}

static int show_ended(struct reading *reading, const struct ended *ended)
{
    _cleanup_(bytes_deinit) struct bytes text = {0}, whole = {0};
    uint8_t secret[32];
    bool live = reading->segment > 0; /* part of it was shown: the rest must be found */
    int r = log_key(reading, ended->floor, secret);

    for (size_t i = 0; r == 0 && i < ended->n_log; i++) {
        r = blocks_open_ref(&reading->blocks, secret, ended->log[i], &text);
        if (r == 0)
            r = live ? bytes_append(&whole, text.data, text.size)
                     : show_text(reading, text.data, text.size);
    }
    wipe(secret, sizeof(secret));
    if (r == 0 && live && whole.size) {
        size_t shown = shown_of(reading, &whole);
        r = show_text(reading, whole.data + shown, whole.size - shown);
    }
    return r;
}

/* ---- of one that runs ---- */

static int ask_live(struct reading *reading, Wl__Envelope **ret_answer)
{
    Wl__LiveLogRequest request = WL__LIVE_LOG_REQUEST__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    request.job = (ProtobufCBinaryData){sizeof(reading->job), reading->job};
    request.step = reading->step;
    request.task = reading->task;
    request.after = reading->segment;
    envelope.body_case = WL__ENVELOPE__BODY_LIVE_LOG_REQUEST;
    envelope.live_log_request = &request;
    return connection_call(reading->westlight, &envelope, WL__ENVELOPE__BODY_LIVE_LOG,
                           CONNECTION_TIMEOUT_NS, ret_answer);
}

static int show_segment(struct reading *reading, const uint8_t secret[32],
                        const Wl__LogSegment *segment)
{
    if (segment->number <= reading->segment)
        return 0;
    reading->last.size = 0;
    int r = blocks_open_ref(&reading->blocks, secret, segment->text, &reading->last);
    if (r != 0)
        return r;
    reading->gap |= segment->number != reading->segment + 1;
    reading->segment = segment->number;
    reading->shown_bytes += reading->last.size;
    return show_text(reading, reading->last.data, reading->last.size);
}

static int show_live(struct reading *reading, bool *ret_live)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    uint8_t secret[32];

    int r = ask_live(reading, &answer);
    if (r != 0)
        return r;
    const Wl__LiveLog *live = answer->live_log;
    log_key(reading, live->floor, secret);
    for (size_t i = 0; r == 0 && i < live->n_segments; i++)
        r = show_segment(reading, secret, live->segments[i]);
    wipe(secret, sizeof(secret));
    *ret_live = live->live;
    return r;
}

/* ---- both ---- */

static int show_attempt(struct reading *reading, uint32_t number)
{
    struct ended ended = {0};

    int r = find_attempt(reading, number, &ended);
    if (r == 0 && ended.number == 0)
        r = connection_fail(reading->westlight, WESTLIGHT_E_STATE,
                            number ? "attempt %u: there is none of that number: see westlight show"
                                   : "log: the task has not run yet: see westlight show",
                            number);
    else if (r == 0)
        r = show_ended(reading, &ended);
    wire_free(ended.answer);
    return r;
}

/* The newest: what runs now comes first, and its end is followed where that is asked for. */
static int show_newest(struct reading *reading, bool follow)
{
    struct ended before = {0};
    bool live = false;

    int r = find_attempt(reading, 0, &before);
    wire_free(TAKE_PTR(before.answer));
    if (r == 0)
        r = show_live(reading, &live);
    if (r != 0)
        return r;
    if (!follow) /* what runs may not have printed anything yet: then the attempt before it */
        return reading->segment > 0 || (live && before.number == 0) ? 0 : show_attempt(reading, 0);

    bool ran = live;
    for (;;) {
        struct ended now = {0};
        /* The attempt that was shown ends as the next in number, even if another runs already. */
        r = find_attempt(reading, ran ? before.number + 1 : 0, &now);
        bool over = r == 0 && now.number > 0 && (ran || !live);
        if (over)
            r = show_ended(reading, &now);
        wire_free(now.answer);
        if (r != 0 || over)
            return r;
        r = connection_sleep(reading->westlight, POLL_NS);
        if (r == 0)
            r = show_live(reading, &live);
        if (r != 0)
            return r;
        ran |= live;
    }
}

int westlight_log(struct westlight *westlight, const char *id, uint32_t step, uint64_t task,
                  uint32_t attempt, bool follow, westlight_on_text *on_text, void *user)
{
    struct reading reading = {.westlight = westlight,
                              .blocks.westlight = westlight,
                              .step = step,
                              .task = task,
                              .on_text = on_text,
                              .user = user};
    _cleanup_(wire_freep) Wl__Envelope *show = NULL;

    int r = connection_begin_job(westlight, id, reading.job);
    if (r == 0)
        r = look_show(westlight, reading.job, &show);
    if (r == 0)
        r = recipe_key(westlight, show->show, id, reading.job_key);
    if (r == 0)
        r = attempt ? show_attempt(&reading, attempt) : show_newest(&reading, follow);
    blocks_deinit(&reading.blocks);
    bytes_deinit(&reading.last);
    wipe(reading.job_key, sizeof(reading.job_key));
    return r;
}
