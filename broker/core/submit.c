/* A job comes in; and the memory of requests, by which the same one gets the same answer.
 */
#include <broker/core/inner.h>

/* ---- requests: the same id gets the same answer ---- */

struct request_key {
    struct studio_id studio;
    struct request_id id;
};

static bool request_is(const void *value, const void *key)
{
    const struct request *request = value;
    const struct request_key *wanted = key;

    return request->studio.value == wanted->studio.value &&
           memcmp(&request->id, &wanted->id, sizeof(request->id)) == 0;
}

static uint64_t request_hash(const struct core *core, struct studio_id studio,
                             const struct request_id *id)
{
    return hash_bytes(hash_number(core->config.seed ^ 7, studio.value), id->bytes,
                      sizeof(id->bytes));
}

const struct request *request_find(const struct core *core, struct studio_id studio,
                                   const struct request_id *id)
{
    struct request_key key = {.studio = studio, .id = *id};

    return table_find(&core->requests, request_hash(core, studio, id), request_is, &key);
}

bool core_answered(const struct core *core, struct studio_id studio,
                   const struct request_id *request)
{
    return request_find(core, studio, request) != NULL;
}

void core_remember(struct core *core, const struct request *request)
{
    static const struct job_id none;
    struct request *kept = pool_take(&core->request_pool);

    CHECK(!request_find(core, request->studio, &request->id));
    *kept = *request;
    link_init(&kept->of_job);
    if (memcmp(&request->job, &none, sizeof(none)) != 0)
        link_last(&asked_of(core, &request->job)->requests, &kept->of_job);
    table_insert(&core->requests, request_hash(core, request->studio, &request->id), kept);
}

static uint64_t asked_hash(const struct core *core, const struct job_id *id)
{
    return hash_bytes(core->config.seed ^ 8, id->bytes, sizeof(id->bytes));
}

static bool asked_is(const void *value, const void *key)
{
    return memcmp(&((const struct asked *)value)->job, key, sizeof(struct job_id)) == 0;
}

struct asked *asked_find(const struct core *core, const struct job_id *id)
{
    return table_find(&core->asked, asked_hash(core, id), asked_is, id);
}

struct asked *asked_of(struct core *core, const struct job_id *id)
{
    struct asked *asked = asked_find(core, id);

    if (asked)
        return asked;
    asked = pool_take(&core->asked_pool);
    asked->job = *id;
    link_init(&asked->requests);
    link_init(&asked->gone);
    table_insert(&core->asked, asked_hash(core, id), asked);
    return asked;
}

void asked_free(struct core *core, struct asked *asked)
{
    list_each(link, &asked->requests)
    {
        struct request *request = container_of(link, struct request, of_job);

        link_remove(link);
        table_remove(&core->requests, request_hash(core, request->studio, &request->id), request);
        pool_give(&core->request_pool, request);
    }
    link_remove(&asked->gone);
    table_remove(&core->asked, asked_hash(core, &asked->job), asked);
    pool_give(&core->asked_pool, asked);
}

void core_reply(struct core *core, const struct event *event, enum code code,
                const struct job_id *job, uint64_t tasks, bool repeated)
{
    struct effect *effect = core_effect(core, EFFECT_REPLY);
    const struct job *found = code == CODE_OK ? job_find(core, job) : NULL;

    effect->cookie = event->cookie;
    effect->code = code;
    effect->reply.job = *job;
    effect->reply.tasks = tasks;
    effect->reply.repeated = repeated;
    effect->reply.sequence = found ? found->sequence : 0;
}

void request_repeat(struct core *core, const struct event *event, const struct request *request,
                    const struct request_digest *digest)
{
    bool same = memcmp(&request->digest, digest, sizeof(*digest)) == 0;

    core_reply(core, event, same ? request->code : CODE_CONFLICT, &request->job,
               same ? request->tasks : 0, same);
}

void request_record(struct core *core, struct studio_id studio, const struct request_id *id,
                    const struct request_digest *digest, const struct job_id *job, uint64_t tasks)
{
    struct record record = {.kind = RECORD_REQUEST, .job = *job};

    record.request.studio = studio;
    record.request.request = *id;
    record.request.digest = *digest;
    record.request.tasks = tasks;
    core_emit(core, &record);
}

/* ---- a job ---- */

static bool dependencies_valid(const struct job_spec *spec, size_t number)
{
    const struct step_spec *step = &spec->steps[number];

    if (step->n_dependencies > LIMIT_DEPENDENCIES)
        return false;
    for (size_t i = 0; i < step->n_dependencies; i++) {
        struct dependency dependency = step->dependencies[i];

        if (dependency.step >= number)
            return false;
        for (size_t j = 0; j < i; j++) /* once is enough, and bounds what a retry walks */
            if (step->dependencies[j].step == dependency.step)
                return false;
        if (dependency.per == 0)
            continue;
        uint64_t other = space_size(spec->steps[dependency.step].space);

        if ((other + dependency.per - 1) / dependency.per != space_size(step->space))
            return false;
    }
    return true;
}

bool share_left(uint64_t own, uint64_t all, uint64_t more, uint64_t limit)
{
    return more == 0 || (all + more <= limit && own + more <= limit - all - more);
}

/* How many classes it would add to those of its studio; each of them might be new to all. */
static uint64_t classes_new(struct core *core, const struct job_spec *spec, struct studio *studio)
{
    uint64_t hashes[LIMIT_STEPS];
    size_t n = 0;

    for (size_t i = 0; i < spec->n_steps; i++) {
        uint64_t hash = 0;
        const struct demand *demand = demand_find(&core->fleet, &spec->steps[i], &hash);
        const struct queue *queue = demand ? demand->of_studios : NULL;
        size_t j = 0;

        while (queue && queue->studio != studio)
            queue = queue->next_of_demand;
        while (j < n && hashes[j] != hash)
            j++;
        if (j == n && (!queue || queue->uses == 0))
            hashes[n++] = hash;
    }
    return n;
}

static bool fits_in(struct core *core, const struct job_spec *spec, uint64_t n_tasks)
{
    const struct core_config *limits = &core->config;
    struct studio *studio = studio_of(core, spec->studio);

    return studio && core->n_jobs < limits->jobs_max &&
           share_left(studio->n_jobs, core->n_jobs, 1, limits->jobs_max) &&
           share_left(studio->n_tasks, core->n_tasks, n_tasks, limits->tasks_max) &&
           share_left(studio->n_classes, demands_in_use(&core->fleet),
                      classes_new(core, spec, studio), limits->classes_max);
}

static enum code job_check(struct core *core, const struct job_spec *spec)
{
    uint64_t n_tasks = 0;

    if (spec->n_steps == 0 || spec->n_steps > LIMIT_STEPS || spec->studio.value == 0)
        return CODE_INVALID;
    for (size_t i = 0; i < spec->n_steps; i++) {
        uint64_t size = space_size(spec->steps[i].space);

        if (size == 0 || size > LIMIT_TASKS_PER_STEP || !demand_valid(&spec->steps[i]) ||
            !dependencies_valid(spec, i))
            return CODE_INVALID;
        n_tasks += size;
    }
    return fits_in(core, spec, n_tasks) ? CODE_OK : CODE_BUSY;
}

void on_submit(struct core *core, const struct event *event)
{
    struct job_spec *spec = event->submit.spec;
    const struct request *known = request_find(core, spec->studio, &event->submit.request);
    enum code code = CODE_OK;

    if (known) {
        request_repeat(core, event, known, &event->submit.digest);
        return;
    }
    code = job_find(core, &spec->job) || job_gone(core, &spec->job) ? CODE_CONFLICT
                                                                    : job_check(core, spec);
    if (code != CODE_OK) {
        core_reply(core, event, code, &spec->job, 0, false);
        return;
    }
    struct record job = {.kind = RECORD_JOB, .job = spec->job};

    job.submit.spec = spec;
    core_emit(core, &job);
    uint64_t n_tasks = job_find(core, &spec->job)->n_tasks;

    request_record(core, spec->studio, &event->submit.request, &event->submit.digest, &spec->job,
                   n_tasks);
    core_reply(core, event, CODE_OK, &spec->job, n_tasks, false);
}
