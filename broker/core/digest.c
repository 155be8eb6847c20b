/* A digest of what is durable. What a table holds in no order is summed. */
#include <broker/core/inner.h>

static uint64_t digest_lease(uint64_t hash, const struct lease_id *lease)
{
    hash = hash_number(hash_number(hash, lease->task.step), lease->task.index);
    return hash_number(hash_number(hash_number(hash, lease->floor), lease->epoch), lease->attempt);
}

static uint64_t digest_workers(uint64_t hash, struct worker *const *workers, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        hash = hash_bytes(hash, workers[i]->key.bytes, sizeof(workers[i]->key.bytes));
    return hash;
}

static uint64_t digest_task(const struct task *task)
{
    uint64_t hash = hash_number(hash_number(11, task->step->number), task->index);

    const struct past *past = task->past;

    hash = hash_number(hash_number(hash, past->failures), past->licence_failures);
    hash = digest_workers(hash, past->failed_on, past->n_failed_on);
    for (uint32_t i = 0; i < past->n_failed_on; i++)
        /* Which streak it was does not matter once that is over. */
        hash = hash_number(hash, past->failed_in[i] == past->failed_on[i]->streak.number);
    for (uint32_t i = 0; i < TASK_RECENT && i < past->n_recent; i++)
        hash = hash_number(hash_number(hash, past->recent[i].epoch), past->recent[i].attempt);
    if (past->noted)
        hash = hash_number(digest_lease(hash, &past->note.lease), past->note.gpu_mask);
    return past->n_recent || past->noted ? hash : 0;
}

static uint64_t digest_step(uint64_t hash, const struct step *step)
{
    static const enum task_state durable[] = {TASK_DONE, TASK_FAILED, TASK_CANCELLED,
                                              TASK_LEFT_OUT};

    hash = hash_number(hash_number(hash, step->number), step->n_tasks);
    for (size_t i = 0; i < sizeof(durable) / sizeof(*durable); i++)
        for (uint64_t word = 0; word < bitmap_words(step->n_tasks); word++)
            hash = hash_number(hash, bitmap_word(&step->bits[durable[i]], word));
    for (size_t i = 0; i < step->floors.n; i++) {
        hash =
            hash_number(hash_number(hash, step->floors.runs[i].first), step->floors.runs[i].last);
        hash = hash_number(hash, step->floors.runs[i].floor);
    }
    for (size_t i = 0; i < step->retried.n; i++) {
        hash =
            hash_number(hash_number(hash, step->retried.runs[i].first), step->retried.runs[i].last);
        hash = hash_number(hash, step->retried.runs[i].floor);
    }
    for (uint64_t word = 0; word < bitmap_words(step->n_tasks); word++)
        hash = hash_number(hash, bitmap_word(&step->delivered, word));
    return hash;
}

static uint64_t digest_job(const struct job *job)
{
    const struct usage *usage = &job->usage;
    uint64_t hash =
                 hash_bytes(hash_number(12, job->sequence), job->id.bytes, sizeof(job->id.bytes)),
             sum = 0;
    uint64_t numbers[] = {(uint64_t)job->submitted_wall_s,
                          (uint64_t)job->priority,
                          job->max_workers,
                          job->archived,
                          job->state,
                          job->reason,
                          job->floor,
                          job->studio->id.value,
                          job->last_result,
                          job->attempts_failed,
                          job->results,
                          job->failed_first,
                          job->failed_tasks,
                          job->n_delivered,
                          (uint64_t)job->last_s,
                          usage->wall_ns,
                          usage->cpu_ns,
                          usage->memory_bytes,
                          usage->bytes_in,
                          usage->bytes_out,
                          usage->card_ns};

    hash = hash_bytes(hash, numbers, sizeof(numbers));
    hash = digest_workers(hash, job->failed_first_on, job->n_failed_first_on);
    for (uint32_t i = 0; i < job->n_steps; i++)
        hash = digest_step(hash, &job->steps[i]);
    list_each(link, &job->tasks) sum += digest_task(container_of(link, struct task, of_job));
    return hash_number(hash, sum);
}

static uint64_t digest_request(const struct request *request)
{
    uint64_t hash = hash_bytes(hash_number(13, request->studio.value), request->id.bytes,
                               sizeof(request->id.bytes));

    hash = hash_bytes(hash, request->digest.bytes, sizeof(request->digest.bytes));
    hash = hash_bytes(hash, request->job.bytes, sizeof(request->job.bytes));
    return hash_number(hash_number(hash, request->code), request->tasks);
}

/* One of whom nothing durable is known is as one that is not there. */
static uint64_t digest_worker(const struct worker *worker)
{
    uint64_t hash = hash_bytes(14, worker->key.bytes, sizeof(worker->key.bytes));
    const char *note = worker->note ? worker->note : "";

    if (!worker->drained && !*worker->pool && !*note && worker->streak.tasks == 0 &&
        worker->aside_times == 0 && worker->aside_until_wall_s == 0)
        return 0;
    hash = hash_number(hash_number(hash, worker->drained), worker->aside_times);
    hash = hash_number(hash, (uint64_t)worker->aside_until_wall_s);
    hash = hash_bytes(hash_bytes(hash, worker->pool, strlen(worker->pool)), note, strlen(note));
    hash = hash_number(hash_number(hash, worker->streak.tasks), worker->streak.elsewhere);
    hash = hash_number(hash_number(hash, worker->streak.job), worker->streak.several_jobs);
    return hash;
}

uint64_t core_digest(const struct core *core)
{
    uint64_t hash = hash_number(hash_number(10, core->sequence), (uint64_t)core->skew_s), sum = 0;

    for (size_t i = 0; i < core->n_jobs; i++)
        hash = hash_number(hash, digest_job(core->jobs[i]));
    for (size_t i = 0; i < core->requests.capacity; i++)
        if (core->requests.slots[i].value)
            sum += digest_request(core->requests.slots[i].value);
    list_each(link, &core->gone)
    {
        const struct asked *asked = container_of(link, struct asked, gone);

        hash = hash_bytes(hash, asked->job.bytes, sizeof(asked->job.bytes));
        hash = hash_number(hash, (uint64_t)asked->until_s);
    }
    for (size_t i = 0; i < core->fleet.n_workers; i++)
        sum += digest_worker(core->fleet.workers[i]);
    return hash_number(hash, sum);
}
