/* Workers that fail whatever they are given: a full disk, a dying card.
 *
 * The idea: what tells a broken worker from a broken scene is variety. A worker is set aside when
 * so many different tasks failed on it without a success between, and they are of several jobs, or
 * as many of them were done elsewhere since. It gets no more work for a while, twice as long each
 * time; then one more failure is enough. At least half of those connected always go on, so that
 * several broken scenes together do not stop the farm; the only worker of a farm is never set
 * aside: nobody would do its work, and jobs pause themselves.
 *
 * The streak follows from attempts and is durable with them; the verdict is a record of its own,
 * because it depends on who is connected.
 */
#include <broker/core/inner.h>

/* A lost node, a licence or a file that the scene lacks is not the worker's doing. */
static bool blames_worker(enum attempt_class class)
{
    return class == CLASS_RENDERER || class == CLASS_OUT_OF_MEMORY || class == CLASS_TIMEOUT ||
           class == CLASS_NO_OUTPUT || class == CLASS_TRANSFER;
}

static void suspect(struct core *core, struct worker *worker)
{
    if (link_alone(&worker->suspected))
        link_last(&core->suspects, &worker->suspected);
}

/* What has no failure has no task that names it, and may be left as it is. */
static void streak_end(struct worker *worker)
{
    if (worker->streak.tasks == 0 && worker->aside_times == 0)
        return;
    worker->streak = (struct streak){.number = worker->streak.number + 1};
    worker->aside_times = 0;
}

void aside_failed(struct core *core, struct worker *worker, struct task *task,
                  enum attempt_class class)
{
    struct streak *streak = &worker->streak;
    uint64_t job = task->step->job->sequence;

    if (!blames_worker(class))
        return;
    if (worker->aside_times > 0)
        suspect(core, worker); /* it has had its chance, with whatever task */
    struct past *past = task_past(task);

    for (uint32_t i = 0; i < past->n_failed_on; i++) {
        if (past->failed_on[i] == worker && past->failed_in[i] == streak->number)
            return; /* the same one once more */
        if (past->failed_on[i] == worker)
            past->failed_in[i] = streak->number;
    }
    core->streaks = true;
    if (streak->tasks++ == 0)
        streak->job = job;
    streak->several_jobs |= streak->job != job;
    suspect(core, worker);
}

void aside_succeeded(struct core *core, struct worker *worker, const struct task *task)
{
    streak_end(worker);
    const struct past *past = task ? task->past : NULL;

    for (uint32_t i = 0; past && i < past->n_failed_on; i++) {
        struct worker *other = past->failed_on[i];

        if (past->failed_in[i] != other->streak.number)
            continue;
        other->streak.elsewhere++;
        if (other->aside_times == 0) /* else it has been judged for this */
            suspect(core, other);
    }
}

void aside_forget(struct worker *worker)
{
    streak_end(worker);
    worker->aside_until_wall_s = 0;
}

/* A job that is forgotten takes its attempts along, so that whoever recovers without them finds the
 * same: nobody is blamed for what can no longer be read. */
void asides_pardon(struct core *core)
{
    for (size_t i = 0; core->streaks && i < core->fleet.n_workers; i++)
        streak_end(core->fleet.workers[i]);
    core->streaks = false;
}

static bool guilty(const struct worker *worker)
{
    const struct streak *streak = &worker->streak;

    return streak->tasks >= LIMIT_ASIDE_TASKS &&
           (streak->several_jobs || streak->elsewhere >= LIMIT_ASIDE_TASKS);
}

static int64_t span_s(uint32_t times)
{
    int64_t span = LIMIT_ASIDE_S;

    while (times-- > 0 && span < LIMIT_ASIDE_MAX_S)
        span *= 2;
    return span < LIMIT_ASIDE_MAX_S ? span : LIMIT_ASIDE_MAX_S;
}

static void judge(struct core *core, struct worker *worker)
{
    const struct fleet *fleet = &core->fleet;
    struct record record = {.kind = RECORD_TEND};

    if (worker->aside || !guilty(worker))
        return;
    if (2 * (fleet->aside + 1) > fleet->connected)
        return;
    record.tend.tend = TEND_ASIDE;
    record.tend.worker = worker->key;
    record.tend.text = "";
    record.tend.until_wall_s = core->wall_s + span_s(worker->aside_times);
    core_emit(core, &record);
    aside_begin(core, worker);
    worker_attend(core, worker);
}

void aside_judge(struct core *core)
{
    while (!link_alone(&core->suspects)) {
        struct worker *worker = container_of(core->suspects.next, struct worker, suspected);

        link_remove(&worker->suspected);
        judge(core, worker);
    }
}

void aside_begin(struct core *core, struct worker *worker)
{
    worker_set_willing(&core->fleet, worker, worker->drained, true);
    heap_add(&core->asides, worker);
}

void aside_end(struct core *core, struct worker *worker)
{
    if (!worker->aside)
        return;
    worker_set_willing(&core->fleet, worker, worker->drained, false);
    heap_remove(&core->asides, worker);
    worker_attend(core, worker);
}

void asides_run(struct core *core)
{
    struct worker *worker = NULL;

    while ((worker = heap_top(&core->asides)) && worker->aside_until_wall_s <= core->wall_s)
        aside_end(core, worker);
}
