/* What is over is kept for a while, and then forgotten: a job some days after the last that
 * happened to it, sooner where its submitter has acknowledged every result; what was asked about it
 * for longer.
 *
 * The idea: durations are counted in time that has passed, the wall clock less every leap it made.
 * A leap is what the monotonic clock does not confirm, and, when the core begins, what lies between
 * its last record and now; each is a record, so that a clock that is set wrong, or a broker that
 * was away for a year, makes nothing older than it is. Every job lies in a heap by its expiry. What
 * is due is forgotten together, once an hour, because with the attempts go the streaks of failures
 * that were counted from them (asides_pardon).
 *
 * A result is current if its floor is not below what a retry raised its task to last: a cancel
 * raises floors too, and leaves what is done as it is.
 */
#include <broker/core/inner.h>

enum { FORGOTTEN_AT_ONCE = 8 }; /* a job costs what its bitmaps and the list of jobs cost */
int64_t retain_now_s(const struct core *core, int64_t wall_s)
{
    return wall_s - core->skew_s;
}

/* ---- the clock ---- */

int64_t core_passed_s(const struct core *core)
{
    return retain_now_s(core, core->record_wall_s);
}

/* Time that no record confirms does not count after a restart: an idle farm that is switched off
 * every night would keep what it has for ever, and its vault what nobody refers to. The first is
 * due at once. */
static int64_t clock_due_s(const struct core *core)
{
    return core->record_wall_s + core->config.clock_slack_s / 2;
}

void clock_run(struct core *core)
{
    int64_t ahead_s = 0, slack_s = core->config.clock_slack_s;

    if (core->clock_seen)
        ahead_s = core->wall_s - core->seen_wall_s - (core->now_ns - core->seen_ns) / SECOND_NS;
    else if (core->record_wall_s > 0) /* there was one */
        ahead_s = core->wall_s - core->record_wall_s;
    bool leapt = ahead_s < -slack_s || ahead_s > slack_s;

    if (!core->clock_seen || leapt) { /* else small ones would never add up to one */
        core->clock_seen = true;
        core->seen_wall_s = core->wall_s;
        core->seen_ns = core->now_ns;
    }
    if (!leapt && core->wall_s < clock_due_s(core))
        return;
    if (!leapt)
        ahead_s = 0;
    struct record record = {.kind = RECORD_CLOCK, .clock.ahead_s = ahead_s};

    core_emit(core, &record);
}

/* ---- delivered ---- */

/* In order, so that whatever is named the work is no more than the job has tasks. */
static bool runs_valid(const struct job *job, const struct event *event)
{
    const struct task_range *before = NULL;

    for (size_t i = 0; i < event->delivered.n_runs; i++) {
        const struct task_range *range = &event->delivered.runs[i].range;

        if (!range_valid(job, range) ||
            (before && (before->step > range->step ||
                        (before->step == range->step && before->last >= range->first))))
            return false;
        before = range;
    }
    return event->delivered.n_runs <= LIMIT_RUNS_DELIVERED;
}

/* Naturally once: what is delivered already makes no record. */
void on_delivered(struct core *core, const struct event *event)
{
    struct studio_id studio = event->delivered.studio;
    struct job *job = job_find(core, &event->delivered.job);
    enum code code = CODE_UNKNOWN;
    uint64_t tasks = 0;

    if (job && (studio.value == 0 || studio.value == job->studio->id.value))
        code = runs_valid(job, event) ? CODE_OK : CODE_INVALID;
    for (size_t i = 0; code == CODE_OK && i < event->delivered.n_runs; i++) {
        struct record record = {
            .kind = RECORD_DELIVERED, .job = job->id, .delivered = event->delivered.runs[i]};
        const struct task_range *range = &record.delivered.range;
        uint64_t n = step_deliver(&job->steps[range->step], range->first, range->last,
                                  record.delivered.floor, false);

        tasks += n;
        if (n > 0)
            core_emit(core, &record);
    }
    core_reply(core, event, code, &event->delivered.job, tasks, false);
}

void apply_delivered(struct core *core, const struct record *record)
{
    struct job *job = job_find(core, &record->job);
    const struct task_range *range = &record->delivered.range;

    CHECK(job && range_valid(job, range));
    step_deliver(&job->steps[range->step], range->first, range->last, record->delivered.floor,
                 true);
    job_touch(job);
}

/* ---- forgetting ---- */

bool job_gone(const struct core *core, const struct job_id *id)
{
    const struct asked *asked = asked_find(core, id);

    return asked && !link_alone(&asked->gone);
}

void apply_forget(struct core *core, const struct record *record)
{
    struct job *job = job_find(core, &record->job);
    struct asked *asked = asked_of(core, &record->job);

    if (job) /* else the store has let go of it already */
        job_forget(core, job);
    CHECK(link_alone(&asked->gone));
    asked->until_s = retain_now_s(core, record->wall_s) + core->config.retain_requests_s;
    link_last(&core->gone, &asked->gone);
    asides_pardon(core);
}

void apply_unask(struct core *core, const struct record *record)
{
    struct asked *asked = asked_find(core, &record->job);

    if (asked)
        asked_free(core, asked);
    asides_pardon(core);
}

/* Some result, and every one delivered: what failed or was cancelled may still be wanted. */
static bool all_delivered(const struct job *job)
{
    return job->n[TASK_DONE] > 0 && job->n_delivered == job->n[TASK_DONE];
}

static void job_schedule(struct core *core, struct job *job)
{
    const struct core_config *config = &core->config;
    bool placed = job->until_position != HEAP_NONE, over = job_finished(job);

    job->until_s =
        job->last_s + (all_delivered(job) ? config->retain_delivered_s : config->retain_s);
    if (job->read_s > 0 && job->read_s + config->retain_read_s > job->until_s)
        job->until_s = job->read_s + config->retain_read_s;
    if (over && placed)
        heap_moved(&core->expiries, job);
    else if (over)
        heap_add(&core->expiries, job);
    else if (placed)
        heap_remove(&core->expiries, job);
}

/* Whoever reads a page of the results fetches their blocks next. Nothing changes for those who
 * watch the job, and nothing is durable: a fetch asks again where the broker was away. */
void on_read(struct core *core, const struct job_id *id)
{
    struct job *job = job_find(core, id);

    if (!job)
        return;
    job->read_s = retain_now_s(core, core->wall_s);
    job_schedule(core, job);
}

void retain_begin(struct core *core)
{
    for (size_t i = 0; i < core->n_jobs; i++)
        job_schedule(core, core->jobs[i]);
}

/* A worker that was told to stop has not yet. */
static bool in_use(const struct job *job)
{
    return job->n_out > 0;
}

/* None of its leases is out, so that whoever has one is silent. */
static void job_part(struct core *core, struct job *job)
{
    list_each(link, &job->leases)
        worker_part(core, container_of(link, struct lease, of_job)->worker);
}

static void forget(struct core *core, enum record_kind kind, const struct job_id *id,
                   struct studio_id studio)
{
    struct record record = {.kind = kind, .job = *id, .forget.studio = studio};

    core_emit(core, &record);
    if (kind == RECORD_FORGET)
        core_effect(core, EFFECT_CHANGED)->changed.job = record.job;
}

/* Whether everything due was done. */
static bool forget_due(struct core *core, int64_t now_s)
{
    for (unsigned n = 0; n < FORGOTTEN_AT_ONCE; n++) {
        struct job *job = heap_top(&core->expiries);

        if (!job || job->until_s > now_s)
            return true;
        if (in_use(job)) {
            job->until_s = now_s + core->config.forget_every_s;
            heap_moved(&core->expiries, job);
        } else {
            struct job_id id = job->id;

            job_part(core, job);
            forget(core, RECORD_FORGET, &id, job->studio->id);
        }
    }
    return false;
}

static bool unask_due(struct core *core, int64_t now_s)
{
    for (unsigned n = 0; n < FORGOTTEN_AT_ONCE; n++) {
        struct asked *asked = container_of(core->gone.next, struct asked, gone);

        if (link_alone(&core->gone) || asked->until_s > now_s)
            return true;
        struct job_id id = asked->job;

        forget(core, RECORD_UNASK, &id, (struct studio_id){0});
    }
    return false;
}

void retain_run(struct core *core)
{
    int64_t now_s = retain_now_s(core, core->wall_s);

    list_each(link, &core->touched) job_schedule(core, container_of(link, struct job, touched));
    if (core->look_s == 0) /* whoever was in the middle of reading has not said so yet */
        core->look_s = now_s + core->config.forget_every_s;
    if (now_s < core->look_s)
        return;
    size_t before = core->outbox->n_records;
    bool all = forget_due(core, now_s) & unask_due(core, now_s);

    if (all && core->outbox->n_records > before)
        core->look_s = now_s + core->config.forget_every_s;
}

int64_t retain_deadline_ns(const struct core *core)
{
    const struct job *job = heap_top(&core->expiries);
    int64_t due_s = job ? job->until_s : INT64_MAX, now_s = retain_now_s(core, core->wall_s);

    if (!link_alone(&core->gone)) {
        const struct asked *asked = container_of(core->gone.next, struct asked, gone);

        due_s = asked->until_s < due_s ? asked->until_s : due_s;
    }
    due_s = due_s > core->look_s ? due_s : core->look_s;
    if (clock_due_s(core) - core->skew_s < due_s)
        due_s = clock_due_s(core) - core->skew_s;
    return core->now_ns + (due_s > now_s ? due_s - now_s : 0) * SECOND_NS;
}
