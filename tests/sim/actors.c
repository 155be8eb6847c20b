/* Studios ask and repeat until they are answered; workers run what they are told, lose their links,
 * pause, die and come back. Both keep to the protocol and to nothing else.
 */
#include <string.h>
#include "sim.h"

/* ---- studios ---- */

static void request_id_fill(struct world *world, uint32_t number, struct sim_request *request)
{
    struct sim_studio *studio = &world->studios[number];

    studio->requests++;
    memset(&request->id, 0, sizeof(request->id));
    request->id.bytes[0] = (uint8_t)(number + 1);
    request->number = (uint32_t)studio->requests;
    memcpy(request->id.bytes + 1, &studio->requests, sizeof(studio->requests));
    request->digest.bytes[0] = (uint8_t)sim_random(world, 256);
    request->digest.bytes[1] = request->id.bytes[1];
}

static void job_invent(struct world *world, uint32_t studio, struct sim_job *job)
{
    *job = (struct sim_job){.studio = {studio + 1}, .priority = (int32_t)sim_random(world, 3)};
    job->id.bytes[0] = (uint8_t)world->n_jobs;
    job->id.bytes[1] = (uint8_t)sim_random(world, 256);
    job->id.bytes[2] = 1; /* an id of zeroes is none */
    job->n_steps = 1 + (uint32_t)sim_random(world, STEPS);
    job->max_workers = sim_random(world, 4) ? 0 : 1 + (uint32_t)sim_random(world, 4);
    job->poison = sim_chance(world, 5);
    job->pooled = sim_chance(world, 4);
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct sim_step *step = &job->steps[i];

        step->n_tasks = 1 + (uint32_t)sim_random(world, TASKS / 2);
        step->depends = i > 0 && sim_random(world, 3) > 0;
        if (step->depends && sim_random(world, 2)) {
            step->per = 1 + (uint32_t)sim_random(world, 4);
            step->n_tasks = (job->steps[i - 1].n_tasks + step->per - 1) / step->per;
        }
        step->vcpus = sim_random(world, 3) ? 0 : 1 + (double)sim_random(world, 8);
        step->cards = sim_random(world, 4) ? 0 : 1 + (uint32_t)sim_random(world, 2);
        step->needs_blender = sim_random(world, 3) == 0;
        if (sim_chance(world, 20)) {
            step->vcpus = 1000;
            job->impossible = true;
        }
    }
}

static void verb_invent(struct world *world, uint32_t studio, struct sim_request *request)
{
    static const enum verb_kind kinds[] = {VERB_CANCEL, VERB_PAUSE, VERB_RESUME, VERB_RESUME,
                                           VERB_RETRY,  VERB_RETRY, VERB_RETRY};

    *request =
        (struct sim_request){.open = true, .verb = true, .kind = kinds[sim_random(world, 7)]};
    request->job = (uint32_t)sim_random(world, world->n_jobs);
    const struct sim_job *job = &world->jobs[request->job];

    request->ranged =
        sim_random(world, 2) && (request->kind == VERB_RETRY || request->kind == VERB_CANCEL);
    request->range.step = (uint32_t)sim_random(world, job->n_steps);
    request->range.first = sim_random(world, job->steps[request->range.step].n_now);
    request->range.last =
        request->range.first +
        sim_random(world, job->steps[request->range.step].n_now - request->range.first);
    if (request->kind == VERB_CANCEL && !request->ranged && sim_random(world, 4))
        request->kind = VERB_RESUME;
    request_id_fill(world, studio, request);
}

/* One or two runs of each step stay; some steps get more tasks. */
static void frames_invent(struct world *world, const struct sim_job *job,
                          struct sim_request *request)
{
    request->grows = sim_random(world, 2);
    for (uint32_t i = 0; i < job->n_steps; i++) {
        const struct sim_step *step = &job->steps[i];
        uint32_t size = step->n_now;

        if (request->grows && step->depends && step->per)
            size = (request->sizes[i - 1] + step->per - 1) / step->per;
        else if (request->grows)
            size += (uint32_t)sim_random(world, TASKS - size + 1) / 4;
        request->sizes[i] = size;
        uint64_t first = sim_random(world, 2) ? 0 : sim_random(world, size);
        uint64_t last = first + sim_random(world, size - first);

        request->wanted[request->n_wanted++] = (struct task_range){i, first, last};
        if (last + 2 < size)
            request->wanted[request->n_wanted++] = (struct task_range){i, last + 2, size - 1};
    }
}

static void edit_invent(struct world *world, uint32_t studio, struct sim_request *request)
{
    *request = (struct sim_request){.open = true, .edit = true};
    request->job = (uint32_t)sim_random(world, world->n_jobs);
    request->what = (unsigned)sim_random(world, EDIT_ALL) + 1;
    if (sim_random(world, 3) == 0)
        request->what = EDIT_ARCHIVED;
    else
        request->what &= ~(unsigned)EDIT_ARCHIVED;
    request->priority = (int32_t)sim_random(world, 5);
    request->max_workers = (uint32_t)sim_random(world, 4);
    request->archived = sim_random(world, 2);
    if (!request->what)
        request->what = EDIT_PRIORITY;
    if (request->what & EDIT_FRAMES)
        frames_invent(world, &world->jobs[request->job], request);
    request_id_fill(world, studio, request);
}

static void edit_send(struct world *world, const struct sim_request *request, struct event *event)
{
    const struct sim_job *job = &world->jobs[request->job];
    struct space spaces[STEPS];

    event->kind = EVENT_EDIT;
    event->edit.what = request->what;
    event->edit.studio = (struct studio_id){(uint32_t)(event->cookie & 255) + 1};
    event->edit.job = job->id;
    event->edit.request = request->id;
    event->edit.digest = request->digest;
    event->edit.priority = request->priority;
    event->edit.max_workers = request->max_workers;
    event->edit.archived = request->archived;
    event->edit.wanted = request->wanted;
    event->edit.n_wanted = request->n_wanted;
    event->edit.spaces = spaces;
    event->edit.n_spaces = request->grows ? job->n_steps : 0;
    for (uint32_t i = 0; i < event->edit.n_spaces; i++) {
        space_fill(request->sizes[i], job->steps[i].n_tasks, &spaces[i]);
        event->edit.blob_size |= (size_t)request->sizes[i] << 8 * i; /* what world_replay reads */
    }
    world_event(world, event);
    for (uint32_t i = 0; i < event->edit.n_spaces; i++)
        space_deinit(&spaces[i]);
    for (size_t i = 0; (request->what & EDIT_FRAMES) && i < world->outbox.n_effects; i++) {
        const struct effect *effect = &world->outbox.effects[i];

        if (effect->kind == EFFECT_REPLY && effect->code == CODE_OK && !effect->reply.repeated)
            check_frames(world, request);
    }
}

static void request_send(struct world *world, uint32_t studio, const struct sim_request *request)
{
    struct event event = {.kind = request->verb ? EVENT_VERB : EVENT_SUBMIT,
                          .cookie = studio + ((uint64_t)request->number << 8)};
    struct job_spec spec;
    struct step_spec steps[STEPS];
    struct space spaces[STEPS];

    if (request->edit) {
        edit_send(world, request, &event);
        return;
    }
    if (request->verb) {
        event.verb.verb = request->kind;
        event.verb.studio = (struct studio_id){studio + 1};
        event.verb.job = world->jobs[request->job].id;
        event.verb.request = request->id;
        event.verb.digest = request->digest;
        event.verb.ranges = &request->range;
        event.verb.n_ranges = request->ranged;
        world_event(world, &event);
        return;
    }
    spec_fill(&world->jobs[request->job], &spec, steps, spaces);
    event.submit.spec = &spec;
    event.submit.request = request->id;
    event.submit.digest = request->digest;
    world_event(world, &event);
    for (uint32_t i = 0; i < spec.n_steps; i++)
        space_deinit(&spaces[i]);
}

/* Some results of a job are home, mostly as they are: sometimes one that a retry has overtaken, and
 * sometimes said twice. */
static void deliver(struct world *world, uint32_t studio)
{
    uint32_t number = (uint32_t)sim_random(world, world->n_jobs);
    const struct sim_job *job = &world->jobs[number];
    struct delivered_run runs[STEPS * TASKS];
    struct event event = {.kind = EVENT_DELIVERED, .cookie = OPERATOR_COOKIE};
    bool all = sim_random(world, 2);

    event.delivered.studio.value = studio + 1;
    event.delivered.job = job->id;
    event.delivered.runs = runs;
    for (uint32_t i = 0; i < job->n_steps; i++)
        for (uint32_t j = 0; j < job->steps[i].n_now; j++) {
            const struct task_model *task = &world->model[number][i][j];

            if (!task->done && !task->has_older)
                continue;
            if (!all && sim_random(world, 3))
                continue;
            runs[event.delivered.n_runs++] = (struct delivered_run){
                .range = {i, j, j},
                .floor = task->has_older && (!task->done || sim_random(world, 4) == 0)
                             ? task->older_floor
                             : task->result_floor};
        }
    world_event(world, &event);
    if (sim_chance(world, 4)) {
        world_event(world, &event);
        CHECK(world->outbox.effects[0].kind == EFFECT_REPLY &&
              world->outbox.effects[0].reply.tasks == 0);
    }
}

static void read_results(struct world *world)
{
    uint32_t number = (uint32_t)sim_random(world, world->n_jobs);
    struct event event = {.kind = EVENT_READ, .read.job = world->jobs[number].id};

    world_event(world, &event);
    if (!world->job_model[number].gone)
        world->job_model[number].read_ns = world->now_ns;
}

void studio_run(struct world *world, uint32_t number)
{
    struct sim_studio *studio = &world->studios[number];
    struct sim_request *request = &studio->request;

    studio->next_ns = world->now_ns + SECOND + (int64_t)sim_random(world, 8 * SECOND);
    if (request->open) {
        request_send(world, number, request); /* no answer yet: the same again */
        return;
    }
    if (world->calm) {
        studio->next_ns = INT64_MAX;
        return;
    }
    if (world->n_jobs > 0 && sim_random(world, 3) == 0)
        deliver(world, number);
    if (world->n_jobs > 0 && sim_chance(world, 4))
        read_results(world);
    if (studio->last.id.bytes[0] && sim_chance(world, 6) &&
        world->now_ns - studio->last_ns < (RETAIN_REQUESTS_S - 20) * SECOND) {
        request_send(world, number, &studio->last);
        return;
    }
    if (world->n_jobs < JOBS && (world->n_jobs == 0 || sim_random(world, 2))) {
        job_invent(world, number, &world->jobs[world->n_jobs]);
        *request = (struct sim_request){.open = true, .job = world->n_jobs++};
        request_id_fill(world, number, request);
    } else if (sim_random(world, 3)) {
        verb_invent(world, number, request);
    } else {
        edit_invent(world, number, request);
    }
    request_send(world, number, request);
}

void studio_answered(struct world *world, const struct effect *effect)
{
    uint32_t number = effect->cookie & 255;
    struct sim_studio *studio = &world->studios[number];
    struct sim_request *request = &studio->request;
    const struct sim_job *job = &world->jobs[request->job];

    if (!request->open || request->number != effect->cookie >> 8) {
        if (studio->last_code == CODE_OK &&
            studio->last.number == effect->cookie >> 8) /* the same request, the same answer */
            CHECK(effect->code == CODE_OK && effect->reply.repeated &&
                  effect->reply.tasks == studio->last_tasks);
        return;
    }
    bool foreign = job->studio.value != number + 1;

    CHECK(!foreign || effect->code == CODE_UNKNOWN);
    if (!request->verb && !request->edit) {
        CHECK(effect->code == CODE_OK);
        world->jobs[request->job].accepted = true;
    }
    studio->last = *request;
    studio->last_ns = world->now_ns;
    studio->last_code = effect->code;
    studio->last_tasks = effect->reply.tasks;
    request->open = false;
}

/* ---- workers ---- */

void worker_init(struct world *world, uint32_t number)
{
    struct sim_worker *worker = &world->workers[number];

    worker->key.bytes[0] = (uint8_t)number;
    worker->key.bytes[1] = 7;
    worker->boot[0] = (uint8_t)(1 + sim_random(world, 255));
    worker->slots = 1 + (uint32_t)sim_random(world, 4);
    worker->prefetch = (uint32_t)sim_random(world, 3);
    worker->cards = number % 2 ? 0 : (uint32_t)sim_random(world, CARDS + 1);
    worker->vcpus = 4 * (double)worker->slots;
    worker->blender = sim_random(world, 2);
    if (number <= 1) { /* somebody can do whatever is possible, in the pool and outside of it */
        worker->cards = 2;
        worker->vcpus = 16;
        worker->blender = true;
    }
    worker->wake_ns = world->now_ns + (int64_t)sim_random(world, 10 * SECOND);
}

void worker_unlink(struct world *world, uint32_t number, int64_t away_ns, bool dies)
{
    struct sim_worker *worker = &world->workers[number];

    world_trace(world, number, dies ? "dies" : "unlinks", &(struct lease_id){0},
                (uint64_t)away_ns / SECOND);
    worker->linked = worker->welcomed = worker->paused = false;
    worker->wake_ns = world->now_ns + away_ns;
    if (!dies)
        return;
    worker->boot[1]++;
    for (uint32_t i = 0; i < worker->n_held; i++) /* the spool outlives the process, now and then */
        if (worker->held[i].state != RESULT || sim_random(world, 2))
            worker->held[i].state = FREE;
}

int64_t worker_next_ns(const struct world *world, uint32_t number)
{
    const struct sim_worker *worker = &world->workers[number];
    int64_t next_ns = worker->linked && !worker->paused ? worker->beat_ns : worker->wake_ns;

    for (uint32_t i = 0; i < worker->n_held && !worker->paused; i++)
        if (worker->held[i].state == RUNNING && worker->held[i].ends_ns < next_ns)
            next_ns = worker->held[i].ends_ns;
    return next_ns;
}

static bool full(const struct world *world, const struct sim_worker *worker)
{
    return worker->full_until_ns > world->now_ns && !world->calm;
}

static void lease_say(struct world *world, uint32_t number, const struct sim_lease *lease,
                      enum event_kind kind)
{
    struct event event = {.kind = kind};

    world_trace(world, number,
                kind == EVENT_STARTED    ? "started"
                : kind == EVENT_RELEASED ? "released"
                : kind == EVENT_PROGRESS ? "progress"
                                         : "result",
                &lease->id, kind == EVENT_STARTED ? lease->gpu_mask : lease->class);
    if (!world->workers[number].welcomed)
        return;
    if (kind == EVENT_STARTED) {
        event.started.worker = world->workers[number].id;
        event.started.lease = lease->id;
    } else if (kind == EVENT_RELEASED) {
        event.released.worker = world->workers[number].id;
        event.released.lease = lease->id;
        event.released.no_room = full(world, &world->workers[number]);
    } else if (kind == EVENT_PROGRESS) {
        event.progress.worker = world->workers[number].id;
        event.progress.lease = lease->id;
        event.progress.permille = 500;
    } else {
        event.result.worker = world->workers[number].id;
        event.result.lease = lease->id;
        event.result.class = lease->class;
        event.result.usage.wall_ns = 1;
    }
    world_send(world, number, &event);
}

static enum attempt_class outcome(struct world *world, const struct sim_worker *worker,
                                  const struct lease_id *id)
{
    const struct sim_job *job = &world->jobs[id->job.bytes[0]];

    if ((job->poison && id->task.index % 5 == 2) || (worker->bad && !world->calm))
        return CLASS_RENDERER;
    if (sim_chance(world, 25))
        return sim_random(world, 2) ? CLASS_RENDERER : CLASS_TRANSFER;
    return sim_chance(world, 60) ? CLASS_LICENCE : CLASS_OK;
}

static void lease_begin(struct world *world, uint32_t number, struct sim_lease *lease)
{
    struct sim_worker *worker = &world->workers[number];
    uint32_t cards = 0;

    for (uint32_t i = 0; i < worker->n_held; i++)
        if (worker->held[i].state == RUNNING)
            cards |= worker->held[i].gpu_mask;
    CHECK((cards & lease->gpu_mask) == 0); /* also after a restart of the broker */
    lease->state = RUNNING;
    lease->ends_ns = world->now_ns + 100000000 +
                     (int64_t)sim_random(world, sim_chance(world, 40)       ? 300 * SECOND
                                                : sim_random(world, 8) == 0 ? 60 * SECOND
                                                                            : 6 * SECOND);
    lease->class = outcome(world, worker, &lease->id);
    lease_say(world, number, lease, EVENT_STARTED);
}

/* Those that stood behind one that has ended take up what it stood behind. */
static void lease_end(struct world *world, uint32_t number, struct sim_lease *ended,
                      bool frees_room)
{
    struct sim_worker *worker = &world->workers[number];

    for (uint32_t i = 0; i < worker->n_held; i++) {
        struct sim_lease *lease = &worker->held[i];

        if (lease->state != QUEUED || lease->behind != ended->id.attempt ||
            lease->behind_epoch != ended->id.epoch)
            continue;
        lease->behind = ended->behind;
        lease->behind_epoch = ended->behind_epoch;
        if (frees_room) {
            lease->behind = 0;
            lease_begin(world, number, lease);
        }
    }
}

static void hello(struct world *world, uint32_t number)
{
    struct sim_worker *worker = &world->workers[number];
    struct event event = {.kind = EVENT_HELLO, .cookie = number};
    static const char *const versions[] = {"3.6", "4.2"};
    static const struct attribute blender = {
        .name = "attr.software.blender", .any_of = versions, .n_any_of = 2};
    struct amount amounts[] = {{"amount.worker.vcpu", worker->vcpus},
                               {"amount.worker.memory", 64000}};
    struct gpu_offer gpus[CARDS] = {{24000}, {24000}, {48000}, {48000}};
    struct offer offer = {.slots = worker->slots,
                          .prefetch = worker->prefetch,
                          .amounts = amounts,
                          .n_amounts = 2,
                          .attributes = &blender,
                          .n_attributes = worker->blender,
                          .gpus = gpus,
                          .n_gpus = worker->cards};

    worker->linked = true;
    worker->parted = false;
    worker->cut = false;
    worker->session++;
    worker->beat_ns = world->now_ns + 5 * SECOND;
    event.hello.key = worker->key;
    event.hello.session = worker->session;
    memcpy(event.hello.boot, worker->boot, sizeof(worker->boot));
    event.hello.offer = &offer;
    world_event(world, &event); /* the link itself: its handshake is its delay */
}

static void say_running(struct world *world, uint32_t number)
{
    const struct sim_worker *worker = &world->workers[number];

    for (uint32_t i = 0; i < worker->n_held; i++)
        if (worker->held[i].state == RUNNING)
            lease_say(world, number, &worker->held[i],
                      sim_random(world, 2) ? EVENT_STARTED : EVENT_PROGRESS);
}

static void list(struct world *world, uint32_t number)
{
    struct sim_worker *worker = &world->workers[number];
    struct event event = {.kind = EVENT_INVENTORY};
    struct inventory_item items[HELD];
    static const enum held_state states[] = {
        [QUEUED] = HELD_QUEUED, [RUNNING] = HELD_RUNNING, [RESULT] = HELD_RESULT};
    size_t n = 0;

    for (uint32_t i = 0; i < worker->n_held; i++)
        if (worker->held[i].state != FREE)
            items[n++] = (struct inventory_item){worker->held[i].id, states[worker->held[i].state],
                                                 worker->held[i].gpu_mask};
    event.inventory.worker = worker->id;
    event.inventory.items = items;
    event.inventory.n_items = n / 2; /* it may span messages */
    world_send(world, number, &event);
    event.inventory.items = items + n / 2;
    event.inventory.n_items = n - n / 2;
    event.inventory.last = true;
    world_send(world, number, &event);
}

static void trouble(struct world *world, uint32_t number)
{
    if (sim_chance(world, 80))
        world->workers[number].full_until_ns =
            world->now_ns + (int64_t)sim_random(world, 60 * SECOND);
    if (sim_chance(world, 40))
        worker_unlink(world, number, (int64_t)sim_random(world, 20 * SECOND), false);
    else if (sim_chance(world, 60))
        worker_unlink(world, number, (int64_t)sim_random(world, 100 * SECOND),
                      sim_random(world, 2));
    else if (sim_chance(world, number == WORKERS - 1 ? 4 : 60)) { /* one is weak */
        world->workers[number].paused = true;
        world_trace(world, number, "pauses", &(struct lease_id){0}, 0);
        world->workers[number].wake_ns = world->now_ns + (int64_t)sim_random(world, 60 * SECOND);
    }
}

void worker_run(struct world *world, uint32_t number)
{
    struct sim_worker *worker = &world->workers[number];

    if (worker->paused && worker->wake_ns > world->now_ns)
        return;
    worker->paused = false;
    if (!worker->linked && worker->wake_ns <= world->now_ns)
        hello(world, number);
    for (uint32_t i = 0; i < worker->n_held; i++) {
        struct sim_lease *lease = &worker->held[i];

        if (lease->state != RUNNING || lease->ends_ns > world->now_ns)
            continue;
        lease->state = RESULT;
        if (lease->stop)
            lease->class = CLASS_CANCELLED;
        if (worker->welcomed && full(world, worker) && sim_random(world, 2)) {
            lease_say(world, number, lease, EVENT_RELEASED);
            lease_end(world, number, lease, true);
            lease->state = FREE;
        } else if (sim_random(world, 2)) { /* the next begins while it is being sent, or after */
            lease_end(world, number, lease, true);
            lease_say(world, number, lease, EVENT_RESULT);
        } else {
            lease_say(world, number, lease, EVENT_RESULT);
            lease_end(world, number, lease, true);
        }
    }
    if (worker->linked && worker->beat_ns <= world->now_ns) {
        struct event event = {.kind = EVENT_BEAT};

        event.beat.worker = worker->id;
        event.beat.no_room = full(world, worker);
        worker->beat_ns = world->now_ns + 5 * SECOND;
        if (worker->welcomed)
            world_send(world, number, &event);
        for (uint32_t i = 0; i < worker->n_held && worker->welcomed; i++)
            if (worker->held[i].state == RUNNING)
                lease_say(world, number, &worker->held[i], EVENT_PROGRESS);
        trouble(world, number);
    }
}

static struct sim_lease *held_find(struct sim_worker *worker, const struct lease_id *id)
{
    for (uint32_t i = 0; i < worker->n_held; i++)
        if (worker->held[i].state != FREE && worker->held[i].id.attempt == id->attempt &&
            worker->held[i].id.epoch == id->epoch)
            return &worker->held[i];
    return NULL;
}

static void assigned(struct world *world, uint32_t number, const struct effect *effect)
{
    struct sim_worker *worker = &world->workers[number];
    struct lease_id ahead = {.attempt = effect->assign.behind,
                             .epoch = effect->assign.behind_epoch};
    struct sim_lease *lease = NULL,
                     *before = effect->assign.behind ? held_find(worker, &ahead) : NULL;

    while (worker->n_held > 0 && worker->held[worker->n_held - 1].state == FREE)
        worker->n_held--;
    for (uint32_t i = 0; i < worker->n_held && !lease; i++)
        lease = worker->held[i].state == FREE ? &worker->held[i] : NULL;
    if (!lease) {
        CHECK(worker->n_held < HELD);
        lease = &worker->held[worker->n_held++];
    }
    CHECK(!held_find(worker, &effect->lease));
    *lease = (struct sim_lease){
        .state = QUEUED, .id = effect->lease, .gpu_mask = effect->assign.gpu_mask};
    if (!effect->assign.behind && (full(world, worker) || sim_chance(world, 150))) {
        lease_say(world, number, lease, EVENT_RELEASED); /* cannot run it here */
        lease->state = FREE;
    } else if (before && before->state != RESULT) {
        lease->behind = effect->assign.behind;
        lease->behind_epoch = effect->assign.behind_epoch;
    } else {
        lease_begin(world, number, lease);
    }
}

static void revoked(struct world *world, uint32_t number, const struct effect *effect)
{
    struct sim_lease *lease = held_find(&world->workers[number], &effect->lease);

    if (!lease)
        return;
    if (lease->state == QUEUED) {
        lease_say(world, number, lease, EVENT_RELEASED);
        lease_end(world, number, lease, false);
        lease->state = FREE;
    } else if (lease->state == RUNNING && effect->revoke.revoke == CORE_REVOKE_STOP) {
        lease->stop = true;
        lease->ends_ns = world->now_ns + (int64_t)sim_random(world, SECOND);
    }
}

void worker_receive(struct world *world, uint32_t number, const struct effect *effect)
{
    struct sim_worker *worker = &world->workers[number];
    static const char *const names[] = {"reply",  "welcome",   "verdict", "assign",
                                        "revoke", "committed", "part",    "changed"};
    struct sim_lease *lease = NULL;

    world_trace(world, number, names[effect->kind], &effect->lease,
                effect->kind == EFFECT_ASSIGN
                    ? effect->assign.behind * 100 + effect->assign.gpu_mask
                : effect->kind == EFFECT_VERDICT ? effect->verdict.verdict
                : effect->kind == EFFECT_REVOKE  ? effect->revoke.revoke
                                                 : effect->code);
    switch (effect->kind) {
    case EFFECT_WELCOME:
        CHECK(effect->code == CODE_OK);
        worker->welcomed = true;
        worker->id = effect->worker;
        if (sim_chance(world, 2)) /* out of turn: the list comes first */
            say_running(world, number);
        list(world, number);
        return;
    case EFFECT_ASSIGN:
        assigned(world, number, effect);
        return;
    case EFFECT_REVOKE:
        revoked(world, number, effect);
        return;
    case EFFECT_COMMITTED:
        lease = held_find(worker, &effect->lease);
        if (lease && lease->state == RESULT)
            lease->state = FREE;
        world->stale += effect->code == CODE_STALE;
        world->already += effect->code == CODE_ALREADY;
        return;
    case EFFECT_VERDICT:
        lease = effect->verdict.mark_only ? NULL : held_find(worker, &effect->lease);
        if (!lease)
            return;
        world->adopted +=
            effect->verdict.verdict != VERDICT_DROP && effect->lease.epoch != world->epoch;
        if (effect->verdict.verdict == VERDICT_DROP) {
            enum held was = lease->state;

            lease->state = FREE;
            if (was != RESULT)
                lease_end(world, number, lease, was == RUNNING);
        } else if (effect->verdict.verdict == VERDICT_SEND || lease->state == RESULT) {
            lease_say(world, number, lease,
                      EVENT_RESULT); /* it may have ended since it was listed */
        } else if (lease->state == RUNNING) {
            lease_say(world, number, lease, EVENT_STARTED);
        }
        return;
    case EFFECT_REPLY:
    case EFFECT_PART:
    case EFFECT_CHANGED:
        CHECK(false);
    }
}
