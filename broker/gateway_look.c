/* gateway_look.c - what studios and operators ask of the core as it is now: lists, one job, notices
 * of a job that is watched. Every answer is one message: what would not fit is left to
 * the next page, or shown in less detail.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/gateway.h>
#include <broker/words.h>

/* A page is closed here, so that its last row and the envelope still fit. */
enum { PAGE_BYTES = LIMIT_CONTROL_BYTES - 12 * 1024 };
/* Finished jobs one request may pass over: about a millisecond of the loop. */
enum { JOBS_LOOKED = 4000 };

struct catalogue_job *gateway_seen(struct gateway *gateway, const struct job_id *job)
{
    const struct peer *peer = gateway->ask.peer;

    return peer->row.role == ROLE_OPERATOR
               ? catalogue_find(&gateway->catalogue, job)
               : catalogue_own(&gateway->catalogue, peer->row.studio, job);
}

struct studio_id gateway_scope(const struct peer *peer)
{
    return peer->row.role == ROLE_OPERATOR ? (struct studio_id){0} : peer->row.studio;
}

void gateway_unknown_job(struct gateway *gateway)
{
    gateway_refuse(gateway, CODE_UNKNOWN, "the job", "there is no such job",
                   "westlight jobs lists them");
}

struct catalogue_job *gateway_job(struct gateway *gateway, const ProtobufCBinaryData *id,
                                  struct job_view *ret_view)
{
    struct catalogue_job *entry = NULL;
    struct job_id job;

    if (id->len == sizeof job.bytes) {
        memcpy(job.bytes, id->data, sizeof job.bytes);
        entry = gateway_seen(gateway, &job);
    }
    if (entry && core_job(gateway->with.core, &job, ret_view))
        return entry;
    if (gateway_upload_busy(gateway, id))
        return NULL;
    gateway_unknown_job(gateway);
    return NULL;
}

/* ---- rows ---- */

static Wl__JobRow *job_row(struct gateway *gateway, const struct job_view *view,
                           const struct catalogue_job *entry)
{
    Wl__JobRow *row = gateway_scratch(gateway, sizeof *row);
    size_t studio = view->studio.value;

    wl__job_row__init(row);
    row->job = (ProtobufCBinaryData){sizeof entry->job.bytes, (uint8_t *)entry->job.bytes};
    row->sequence = view->sequence;
    row->name = entry->submit->name;
    row->person = entry->submit->person;
    if (studio < gateway->studios_capacity && gateway->studios[studio])
        row->studio = gateway->studios[studio];
    row->priority = view->priority;
    row->max_workers = view->max_workers;
    row->archived = view->archived;
    row->state = view->state;
    row->reason = (char *)words_reason(view);
    row->paused_itself = view->reason == REASON_FAILED_FIRST || view->reason == REASON_FAILED_MANY;
    row->submitted_wall_s = view->submitted_wall_s;
    row->delivered = view->delivered;
    row->until_wall_s = view->until_wall_s;
    row->tasks = view->counts.tasks;
    row->waiting = view->counts.waiting;
    row->ready = view->counts.ready;
    row->leased = view->counts.leased;
    row->running = view->counts.running;
    row->done = view->counts.done;
    row->failed = view->counts.failed;
    row->cancelled = view->counts.cancelled;
    row->finished = core_finished(gateway->with.core, &entry->job);
    row->last_result = view->last_result;
    row->attempts_failed = view->attempts_failed;
    row->note = entry->submit->note;
    row->tags = entry->submit->tags;
    row->n_tags = entry->submit->n_tags;
    return row;
}

static Wl__TaskRow *task_row(struct gateway *gateway, const struct lease_view *view)
{
    Wl__TaskRow *row = gateway_scratch(gateway, sizeof *row);
    const struct live_task *live = live_find(&gateway->live, &view->lease.job, view->lease.task);
    const struct peer *peer = roster_worker(&gateway->roster, view->worker);

    wl__task_row__init(row);
    row->step = view->lease.task.step;
    row->task = view->lease.task.index;
    row->state = view->started ? TASK_RUNNING : TASK_LEASED;
    row->permille = view->permille;
    row->started_wall_s = view->started_wall_s;
    if (peer)
        row->worker = (char *)roster_name(peer, gateway_scratch(gateway, 64));
    if (live && live->lease.attempt == view->lease.attempt) {
        row->permille = live->permille;
        row->status = (char *)live->status;
    }
    return row;
}

static size_t live_rows(struct gateway *gateway, const struct job_id *job, size_t max,
                        Wl__TaskRow ***ret_rows)
{
    struct lease_view *views = gateway_scratch(gateway, (max + 1) * sizeof *views);
    size_t n = core_job_leases(gateway->with.core, job, views, max);
    Wl__TaskRow **rows = gateway_scratch(gateway, (n + 1) * sizeof *rows);

    for (size_t i = 0; i < n; i++)
        rows[i] = task_row(gateway, &views[i]);
    *ret_rows = rows;
    return n;
}

Wl__Usage *gateway_usage(struct gateway *gateway, const struct usage *usage)
{
    Wl__Usage *message = gateway_scratch(gateway, sizeof *message);

    wl__usage__init(message);
    message->wall_ns = usage->wall_ns;
    message->cpu_ns = usage->cpu_ns;
    message->memory_bytes = usage->memory_bytes;
    message->bytes_in = usage->bytes_in;
    message->bytes_out = usage->bytes_out;
    message->card_ns = usage->card_ns;
    return message;
}

static char *why_text(struct gateway *gateway, const struct catalogue_job *entry, uint32_t step)
{
    char *text = gateway_scratch(gateway, LIMIT_NOTE_BYTES);
    struct why why = {0};
    const char *about = "";

    core_why(gateway->with.core, &entry->job, step, &why);
    if (why.kind == WHY_DEPENDS && why.step < entry->submit->n_steps)
        about = entry->submit->steps[why.step]->name;
    else if (why.kind == WHY_QUOTA)
        about = gateway_quota_why(gateway, entry->studio);
    words_why(&why, about, text, LIMIT_NOTE_BYTES);
    return text;
}

/* ---- lists ---- */

/* What is archived is in no list but its own; without `all` what is finished is left out. */
static bool listed(const Wl__JobsRequest *wanted, const struct job_view *view)
{
    const struct job_counts *counts = &view->counts;

    if (wanted->archived || view->archived)
        return wanted->archived && view->archived;
    return wanted->all || counts->done + counts->failed + counts->cancelled < counts->tasks;
}

static void jobs_by_prefix(struct gateway *gateway, const Wl__JobsRequest *wanted, Wl__Jobs *jobs,
                           size_t limit)
{
    struct job_id found[LIMIT_PAGE + 1];
    uint8_t prefix[16] = {0};
    size_t n;

    memcpy(prefix, wanted->prefix.data, wanted->prefix.len);
    (void)gateway_upload_rows(gateway, wanted, jobs, limit);
    n = catalogue_prefix(&gateway->catalogue, gateway_scope(gateway->ask.peer), prefix,
                         wanted->prefix_nibbles, found, limit + 1);
    jobs->more = jobs->n_jobs + n > limit;
    for (size_t i = 0; i < n && jobs->n_jobs < limit; i++) {
        struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &found[i]);
        struct job_view view;

        if (entry && core_job(gateway->with.core, &found[i], &view))
            jobs->jobs[jobs->n_jobs++] = job_row(gateway, &view, entry);
    }
}

/* Newest first; how far one page looks is bounded. */
static void jobs_by_age(struct gateway *gateway, const Wl__JobsRequest *wanted, Wl__Jobs *jobs,
                        size_t limit)
{
    uint64_t before = wanted->before_sequence;
    size_t bytes = gateway_upload_rows(gateway, wanted, jobs, limit), looked = 0;
    struct job_view view;

    while (core_job_before(gateway->with.core, gateway_scope(gateway->ask.peer), before, &view)) {
        struct catalogue_job *entry;
        Wl__JobRow *row;

        if (jobs->n_jobs == limit || bytes > PAGE_BYTES || looked++ == JOBS_LOOKED) {
            jobs->more = true;
            jobs->next = before;
            return;
        }
        before = view.sequence;
        if (!listed(wanted, &view))
            continue;
        entry = catalogue_find(&gateway->catalogue, &view.job);
        if (!entry)
            continue;
        row = job_row(gateway, &view, entry);
        bytes += wl__job_row__get_packed_size(row) + 4;
        jobs->jobs[jobs->n_jobs++] = row;
    }
}

void gateway_on_jobs(struct gateway *gateway)
{
    const Wl__JobsRequest *wanted = gateway->ask.envelope->jobs_request;
    size_t limit = wanted->limit && wanted->limit < LIMIT_PAGE ? wanted->limit : LIMIT_PAGE;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Jobs jobs = WL__JOBS__INIT;

    if (wanted->prefix_nibbles > wanted->prefix.len * 2) {
        gateway_refuse(gateway, CODE_INVALID, "the job", "its prefix is shorter than it says",
                       "give its first digits");
        return;
    }
    jobs.jobs = gateway_scratch(gateway, (limit + 1) * sizeof *jobs.jobs);
    if (wanted->prefix_nibbles > 0)
        jobs_by_prefix(gateway, wanted, &jobs, limit < 8 ? limit : 8);
    else
        jobs_by_age(gateway, wanted, &jobs, limit);
    envelope.body_case = WL__ENVELOPE__BODY_JOBS;
    envelope.jobs = &jobs;
    gateway_answer(gateway, &envelope);
}

/* ---- one job ---- */

/* How much of a job one Show tells; tried from the fullest until it fits a message. The last always
 * does: what it lacks the recipe has. */
static const struct detail {
    size_t live, ranges; /* rows; ranges of tasks in all */
    bool names, dependencies, why, spaces;
} DETAILS[] = {
    {GATEWAY_LIVE_ROWS, 1024, true, true, true, true},
    {16, 64, true, true, true, true},
    {16, 64, true, true, true, false},
    {0, 0, true, true, true, false},
    {0, 0, true, true, false, false},
    {0, 0, true, false, false, false},
    {0, 0, false, false, false, false},
};

static Wl__TaskRange **told_ranges(struct gateway *gateway, const struct task_range *found,
                                   size_t n)
{
    Wl__TaskRange **ranges = gateway_scratch(gateway, (n + 1) * sizeof *ranges);
    Wl__TaskRange *shapes = gateway_scratch(gateway, (n + 1) * sizeof *shapes);

    for (size_t i = 0; i < n; i++) {
        wl__task_range__init(&shapes[i]);
        shapes[i].step = found[i].step;
        shapes[i].first = found[i].first;
        shapes[i].last = found[i].last;
        ranges[i] = &shapes[i];
    }
    return ranges;
}

static Wl__TaskRange **task_ranges(struct gateway *gateway, const struct job_id *job, uint32_t step,
                                   enum task_state state, size_t max, size_t *ret_n)
{
    struct task_range *found = gateway_scratch(gateway, (max + 1) * sizeof *found);

    *ret_n = max ? core_task_ranges(gateway->with.core, job, step, state, 0, found, max) : 0;
    return told_ranges(gateway, found, *ret_n);
}

/* All or none, so that what is not among them is known not to be delivered. */
static Wl__TaskRange **delivered_ranges(struct gateway *gateway, const struct job_id *job,
                                        uint32_t step, size_t max, size_t *ret_n)
{
    struct task_range *found = gateway_scratch(gateway, (max + 1) * sizeof *found);
    size_t n = core_delivered_ranges(gateway->with.core, job, step, found, max + 1);

    *ret_n = n > max ? 0 : n;
    return told_ranges(gateway, found, *ret_n);
}

/* *ret_space is freed after packing. */
static void step_space(struct gateway *gateway, const struct job_id *job, uint32_t step,
                       Wl__SpaceParameter ***ret_space, size_t *ret_n)
{
    const struct space *space = core_step_space(gateway->with.core, job, step);

    if (space && wire_space_set(space, ret_space, ret_n) < 0)
        gateway_die("memory", -ENOMEM);
}

/* "blender 3.4.1": the first software it asks for. */
static char *step_software(struct gateway *gateway, const struct job_id *job, uint32_t step)
{
    char *text = gateway_scratch(gateway, 2 * LIMIT_NAME_BYTES);
    struct offered wanted;

    if (core_step_wants(gateway->with.core, job, step, ATTRIBUTE_SOFTWARE, &wanted))
        snprintf(text, 2 * LIMIT_NAME_BYTES, "%s%s%s", wanted.name + strlen(ATTRIBUTE_SOFTWARE),
                 wanted.value ? " " : "", wanted.value ? wanted.value : ", any version");
    return text;
}

static Wl__StepRow *step_row(struct gateway *gateway, const struct catalogue_job *entry,
                             uint32_t step, const struct detail *detail)
{
    size_t ranges = detail->ranges / (entry->submit->n_steps * 3);
    Wl__StepRow *row = gateway_scratch(gateway, sizeof *row);
    struct job_counts counts = {0};

    wl__step_row__init(row);
    core_step_counts(gateway->with.core, &entry->job, step, &counts);
    if (detail->names)
        row->name = entry->submit->steps[step]->name;
    row->tasks = counts.tasks;
    row->waiting = counts.waiting;
    row->ready = counts.ready;
    row->leased = counts.leased;
    row->running = counts.running;
    row->done = counts.done;
    row->failed = counts.failed;
    row->cancelled = counts.cancelled;
    if (detail->why)
        row->why = why_text(gateway, entry, step);
    row->interim = entry->submit->steps[step]->interim;
    row->software = step_software(gateway, &entry->job, step);
    row->failed_tasks =
        task_ranges(gateway, &entry->job, step, TASK_FAILED, ranges, &row->n_failed_tasks);
    row->done_tasks =
        task_ranges(gateway, &entry->job, step, TASK_DONE, ranges, &row->n_done_tasks);
    row->delivered_tasks =
        delivered_ranges(gateway, &entry->job, step, ranges, &row->n_delivered_tasks);
    if (detail->dependencies) {
        row->dependencies = entry->submit->steps[step]->dependencies;
        row->n_dependencies = entry->submit->steps[step]->n_dependencies;
    }
    if (detail->spaces)
        step_space(gateway, &entry->job, step, &row->space, &row->n_space);
    return row;
}

static int show(struct gateway *gateway, struct catalogue_job *entry, const struct job_view *view,
                const struct detail *detail)
{
    const struct ask *ask = &gateway->ask;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Show message = WL__SHOW__INIT;
    const uint8_t *key;
    int r;

    message.row = job_row(gateway, view, entry);
    if (entry->studio.value == ask->peer->row.studio.value) {
        if (catalogue_key(&gateway->catalogue, entry, &key) != 0)
            gateway_die("a job key as stored (is this the state's master.key?)", -EBADMSG);
        message.job_key = (ProtobufCBinaryData){sizeof entry->key, (uint8_t *)key};
    }
    message.own = gateway_submitted(entry, &ask->peer->key);
    message.recipe = entry->submit->recipe;
    message.frames = entry->frames;
    message.n_frames = entry->n_frames;
    message.n_steps = entry->submit->n_steps;
    message.steps = gateway_scratch(gateway, (message.n_steps + 1) * sizeof *message.steps);
    for (uint32_t i = 0; i < message.n_steps; i++)
        message.steps[i] = step_row(gateway, entry, i, detail);
    message.n_live = live_rows(gateway, &entry->job, detail->live, &message.live);
    message.usage = gateway_usage(gateway, &view->usage);
    envelope.request = ask->request;
    envelope.body_case = WL__ENVELOPE__BODY_SHOW;
    envelope.show = &message;
    r = gateway_say(gateway, &ask->route, &envelope, NULL);
    for (size_t i = 0; i < message.n_steps; i++)
        free(message.steps[i]->space);
    return r;
}

/* What it was made from, for its studio alone: the job key is in it. */
static void show_submission(struct gateway *gateway, struct catalogue_job *entry,
                            const struct job_view *view)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Show message = WL__SHOW__INIT;
    Wl__Submit submit = *entry->submit;
    const uint8_t *key;

    if (entry->studio.value != gateway->ask.peer->row.studio.value) {
        gateway_refuse(gateway, CODE_REFUSED, "the job", "it is another studio's",
                       "use a key of that studio");
        return;
    }
    if (catalogue_key(&gateway->catalogue, entry, &key) != 0)
        gateway_die("a job key as stored (is this the state's master.key?)", -EBADMSG);
    message.row = job_row(gateway, view, entry);
    submit.job_key = message.job_key = (ProtobufCBinaryData){sizeof entry->key, (uint8_t *)key};
    message.recipe = submit.recipe;
    message.frames = entry->frames;
    message.n_frames = entry->n_frames;
    message.submission = &submit;
    submit.steps = gateway_scratch(gateway, (submit.n_steps + 1) * sizeof *submit.steps);
    for (uint32_t i = 0; i < submit.n_steps; i++) {
        Wl__Step *step = submit.steps[i] = gateway_scratch(gateway, sizeof *step);

        *step = *entry->submit->steps[i];
        step_space(gateway, &entry->job, i, &step->space, &step->n_space);
    }
    envelope.body_case = WL__ENVELOPE__BODY_SHOW;
    envelope.show = &message;
    gateway_answer(gateway, &envelope);
    for (uint32_t i = 0; i < submit.n_steps; i++)
        free(submit.steps[i]->space);
}

void gateway_on_show(struct gateway *gateway)
{
    const Wl__ShowRequest *wanted = gateway->ask.envelope->show_request;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &wanted->job, &view);

    if (!entry)
        return;
    if (wanted->submission) {
        show_submission(gateway, entry, &view);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(DETAILS); i++)
        if (show(gateway, entry, &view, &DETAILS[i]) == 0)
            return;
    gateway_refuse(gateway, CODE_INTERNAL, "the job", "it is too large for one message",
                   "report this to whoever runs the broker");
}

/* ---- notices ---- */

static void say_notice(struct gateway *gateway, const struct catalogue_job *entry,
                       const struct job_view *view, const struct link_route *route,
                       uint64_t request)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Notice notice = WL__NOTICE__INIT;
    enum { WHYS = 8 };
    char *whys[WHYS];

    notice.row = job_row(gateway, view, entry);
    notice.job = notice.row->job;
    notice.n_live = live_rows(gateway, &entry->job, GATEWAY_LIVE_ROWS, &notice.live);
    notice.why = whys;
    for (uint32_t i = 0; i < view->n_steps && notice.n_why < WHYS; i++) {
        char *text = why_text(gateway, entry, i);

        if (text[0])
            whys[notice.n_why++] = text;
    }
    envelope.request = request;
    envelope.body_case = WL__ENVELOPE__BODY_NOTICE;
    envelope.notice = &notice;
    if (gateway_say(gateway, route, &envelope, NULL) == 0)
        return;
    notice.n_live = 0;
    (void)gateway_say(gateway, route, &envelope, NULL);
}

/* Those whose keys may not watch any more are forgotten, with the job where they were the last. */
static struct watched *recheck_watchers(struct gateway *gateway, struct watched *watched)
{
    struct job_id job = watched->job;
    struct link_key *keys;
    struct peer *peer;
    size_t n = 0;

    list_for_each (at, &watched->watchers)
        n++;
    keys = gateway_scratch(gateway, (n + 1) * sizeof *keys);
    n = 0;
    list_for_each (at, &watched->watchers)
        keys[n++] = list_entry(at, struct watcher, in_job)->connection->peer->key;
    for (size_t i = 0; i < n; i++)
        (void)gateway_known(gateway, &keys[i], false, &peer);
    return watch_find(&gateway->watch, &job);
}

void gateway_notices(struct gateway *gateway)
{
    struct watched *watched;

    while ((watched = watch_due(&gateway->watch, gateway->now_ns))) {
        struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &watched->job);
        struct job_view view;

        watched = recheck_watchers(gateway, watched);
        if (watched && !entry)
            gateway_notice_gone(gateway, watched);
        if (!watched || !entry || !core_job(gateway->with.core, &watched->job, &view))
            continue;
        list_for_each (at, &watched->watchers) {
            const struct watcher *watcher = list_entry(at, struct watcher, in_job);

            say_notice(gateway, entry, &view, &watcher->connection->route, 0);
        }
        gateway_scratch_free(gateway);
    }
}

void gateway_on_watch(struct gateway *gateway)
{
    const struct ask *ask = &gateway->ask;
    const Wl__Watch *wanted = ask->envelope->watch;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Done done = WL__DONE__INIT;
    struct job_view view;
    struct catalogue_job *entry = gateway_job(gateway, &wanted->job, &view);
    int r;

    if (!entry)
        return;
    if (wanted->stop) {
        watch_stop(&gateway->watch, &entry->job, ask->connection);
        envelope.body_case = WL__ENVELOPE__BODY_DONE;
        envelope.done = &done;
        gateway_answer(gateway, &envelope);
        return;
    }
    r = watch_add(&gateway->watch, &entry->job, ask->connection);
    if (r == -ENOMEM)
        gateway_die("memory", r);
    if (r < 0)
        gateway_refuse(gateway, CODE_BUSY, "the watch", "this connection watches as many as it may",
                       "stop watching another job first");
    else
        say_notice(gateway, entry, &view, &ask->route, ask->request);
}
