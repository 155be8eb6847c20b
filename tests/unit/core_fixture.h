/* core_fixture.h - a core, its outbox, and the few words in which a scenario is told.
 *
 * Time is farm.now_ns; every call is one event, after which the core is audited. Effects and
 * records are those of the last event.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <broker/core/inner.h>

#define TEST(name) static void name(void **state)
#define SECOND     1000000000LL

struct farm {
    struct core *core;
    struct outbox outbox;
    int64_t now_ns;
    uint64_t requests;
    bool rival; /* whoever says HELLO, another process stands by its connection */
};

/* A job of up to three steps, as a test writes it. */
struct plan_step {
    uint32_t tasks;
    double vcpus;
    uint32_t cards, card_memory_mib;
    const char *software;
    int depends; /* 1 + the step it waits for; 0: none */
    uint32_t per;
    const char *pool;
};
struct plan_job {
    uint8_t number;
    uint32_t studio;
    int32_t priority;
    struct plan_step steps[3];
};
struct plan_worker {
    uint8_t number;
    uint32_t slots, prefetch;
    double vcpus;
    uint32_t cards;
    uint64_t card_memory_mib;
    const char *software;
};

static inline struct farm farm_new(void)
{
    struct core_config config = {.epoch = 1};
    struct farm farm = {.core = core_new(&config), .now_ns = SECOND};

    outbox_init(&farm.outbox);
    core_recovered(farm.core, farm.now_ns);
    return farm;
}

static inline void farm_free(struct farm *farm)
{
    core_free(farm->core);
    outbox_deinit(&farm->outbox);
}

static inline void farm_step(struct farm *farm, struct event *event)
{
    event->now_ns = farm->now_ns;
    event->wall_s = farm->now_ns / SECOND;
    outbox_clear(&farm->outbox);
    core_step(farm->core, event, &farm->outbox);
    core_audit(farm->core);
}

static inline struct job_id job_numbered(uint8_t number)
{
    return (struct job_id){.bytes = {number, 0xee}};
}

static inline const struct effect *effect_of(const struct farm *farm, enum effect_kind kind,
                                             size_t nth)
{
    for (size_t i = 0; i < farm->outbox.n_effects; i++)
        if (farm->outbox.effects[i].kind == kind && nth-- == 0)
            return &farm->outbox.effects[i];
    return NULL;
}

static inline size_t effects_of(const struct farm *farm, enum effect_kind kind)
{
    size_t n = 0;

    while (effect_of(farm, kind, n))
        n++;
    return n;
}

static inline const struct record *record_of(const struct farm *farm, enum record_kind kind)
{
    for (size_t i = 0; i < farm->outbox.n_records; i++)
        if (farm->outbox.records[i].kind == kind)
            return &farm->outbox.records[i];
    return NULL;
}

static inline void spec_of(const struct plan_job *plan, struct job_spec *spec,
                           struct step_spec *steps, struct space *spaces)
{
    static struct amount amounts[3][3];
    static struct attribute attributes[3][2];
    static const char *values[3], *pools[3];
    static struct dependency dependencies[3];

    *spec = (struct job_spec){.job = job_numbered(plan->number),
                              .studio = {plan->studio},
                              .priority = plan->priority,
                              .steps = steps};
    for (size_t i = 0; i < 3 && plan->steps[i].tasks; i++) {
        const struct plan_step *step = &plan->steps[i];
        struct space_range range = {1, step->tasks, 1};

        space_init(&spaces[i]);
        assert_int_equal(space_add_ints(&spaces[i], "frame", 0, 1, false, &range, 1), 0);
        assert_int_equal(space_seal(&spaces[i]), 0);
        steps[i] = (struct step_spec){.space = &spaces[i],
                                      .amounts = amounts[i],
                                      .attributes = attributes[i],
                                      .dependencies = &dependencies[i]};
        if (step->vcpus > 0)
            amounts[i][steps[i].n_amounts++] = (struct amount){"amount.worker.vcpu", step->vcpus};
        if (step->cards > 0)
            amounts[i][steps[i].n_amounts++] = (struct amount){"amount.worker.gpu", step->cards};
        if (step->card_memory_mib > 0)
            amounts[i][steps[i].n_amounts++] =
                (struct amount){"amount.worker.gpu.memory", step->card_memory_mib};
        values[i] = step->software;
        if (step->software)
            attributes[i][steps[i].n_attributes++] = (struct attribute){
                .name = "attr.software.blender", .any_of = &values[i], .n_any_of = 1};
        pools[i] = step->pool;
        if (step->pool)
            attributes[i][steps[i].n_attributes++] =
                (struct attribute){.name = ATTRIBUTE_POOL, .any_of = &pools[i], .n_any_of = 1};
        dependencies[i] =
            (struct dependency){.step = (uint32_t)step->depends - 1, .per = step->per};
        steps[i].n_dependencies = step->depends != 0;
        spec->n_steps = i + 1;
    }
}

static inline enum code submit_as(struct farm *farm, const struct plan_job *plan, uint8_t request,
                                  uint8_t digest)
{
    struct event event = {.kind = EVENT_SUBMIT, .cookie = 77};
    struct job_spec spec;
    struct step_spec steps[3];
    struct space spaces[3];

    spec_of(plan, &spec, steps, spaces);
    event.submit.spec = &spec;
    event.submit.request.bytes[0] = request;
    event.submit.digest.bytes[0] = digest;
    farm_step(farm, &event);
    for (size_t i = 0; i < spec.n_steps; i++)
        space_deinit(&spaces[i]);
    assert_int_equal(effect_of(farm, EFFECT_REPLY, 0)->cookie, 77);
    return effect_of(farm, EFFECT_REPLY, 0)->code;
}

static inline enum code submit(struct farm *farm, const struct plan_job *plan)
{
    return submit_as(farm, plan, (uint8_t)++farm->requests, 0);
}

static inline enum code verb_as(struct farm *farm, uint32_t studio, uint8_t job,
                                enum verb_kind kind, const struct task_range *range,
                                uint8_t request, uint8_t digest)
{
    struct event event = {.kind = EVENT_VERB};

    event.verb.verb = kind;
    event.verb.studio.value = studio;
    event.verb.job = job_numbered(job);
    event.verb.request.bytes[0] = request;
    event.verb.digest.bytes[0] = digest;
    event.verb.ranges = range;
    event.verb.n_ranges = range != NULL;
    farm_step(farm, &event);
    return effect_of(farm, EFFECT_REPLY, 0)->code;
}

static inline enum code verb(struct farm *farm, uint8_t job, enum verb_kind kind,
                             const struct task_range *range)
{
    return verb_as(farm, 1, job, kind, range, (uint8_t)++farm->requests, 0);
}

static inline enum code tend_as(struct farm *farm, uint8_t worker, enum tend_kind kind,
                                const char *text, uint8_t request, uint8_t digest)
{
    struct event event = {.kind = EVENT_TEND};
    struct worker_key key = {.bytes = {worker}};

    event.tend.tend = kind;
    event.tend.workers = &key;
    event.tend.n_workers = 1;
    event.tend.text = text;
    event.tend.request.bytes[0] = request;
    event.tend.digest.bytes[0] = digest;
    farm_step(farm, &event);
    return effect_of(farm, EFFECT_REPLY, 0)->code;
}

static inline enum code tend(struct farm *farm, uint8_t worker, enum tend_kind kind,
                             const char *text)
{
    return tend_as(farm, worker, kind, text, (uint8_t)++farm->requests, 0);
}

/* HELLO; the answer's code. */
static inline enum code hello(struct farm *farm, const struct plan_worker *plan, uint64_t session,
                              uint8_t boot)
{
    struct event event = {.kind = EVENT_HELLO};
    struct amount amounts[] = {{"amount.worker.vcpu", plan->vcpus}};
    struct attribute software = {
        .name = "attr.software.blender", .any_of = &plan->software, .n_any_of = 1};
    struct gpu_offer gpus[LIMIT_GPUS];
    struct offer offer = {.slots = plan->slots,
                          .prefetch = plan->prefetch,
                          .amounts = amounts,
                          .n_amounts = 1,
                          .attributes = &software,
                          .n_attributes = plan->software != NULL,
                          .gpus = gpus,
                          .n_gpus = plan->cards};

    for (uint32_t i = 0; i < plan->cards; i++)
        gpus[i].memory_mib = plan->card_memory_mib;
    event.hello.key.bytes[0] = plan->number;
    event.hello.session = session;
    event.hello.rival = farm->rival;
    event.hello.boot[0] = boot;
    event.hello.offer = &offer;
    farm_step(farm, &event);
    return effect_of(farm, EFFECT_WELCOME, 0)->code;
}

static inline struct worker_id worker_numbered(const struct farm *farm, uint8_t number)
{
    struct worker_key key = {.bytes = {number}};
    struct worker_view view;

    assert_true(core_worker_by_key(farm->core, &key, &view));
    return view.worker;
}

static inline void inventory(struct farm *farm, uint8_t number, const struct inventory_item *items,
                             size_t n_items)
{
    struct event event = {.kind = EVENT_INVENTORY};

    event.inventory.worker = worker_numbered(farm, number);
    event.inventory.items = items;
    event.inventory.n_items = n_items;
    event.inventory.last = true;
    farm_step(farm, &event);
}

/* HELLO and an empty list. */
static inline void join(struct farm *farm, const struct plan_worker *plan)
{
    assert_int_equal(hello(farm, plan, 1, 1), CODE_OK);
    inventory(farm, plan->number, NULL, 0);
}

static inline void beat_with(struct farm *farm, uint8_t number, bool no_room)
{
    struct event event = {.kind = EVENT_BEAT};

    event.beat.worker = worker_numbered(farm, number);
    event.beat.no_room = no_room;
    farm_step(farm, &event);
}

static inline void beat(struct farm *farm, uint8_t number)
{
    beat_with(farm, number, false);
}

static inline void tick(struct farm *farm)
{
    struct event event = {.kind = EVENT_TICK};

    farm_step(farm, &event);
}

/* Time passes, and the core is called when it asked to be. */
static inline void pass(struct farm *farm, int64_t ns)
{
    int64_t until_ns = farm->now_ns + ns;

    for (;;) {
        int64_t next_ns = core_deadline_ns(farm->core);

        if (next_ns >= until_ns)
            break;
        farm->now_ns = next_ns > farm->now_ns ? next_ns : farm->now_ns;
        tick(farm);
    }
    farm->now_ns = until_ns;
    tick(farm);
}

static inline void started(struct farm *farm, uint8_t number, struct lease_id lease)
{
    struct event event = {.kind = EVENT_STARTED};

    event.started.worker = worker_numbered(farm, number);
    event.started.lease = lease;
    farm_step(farm, &event);
}

static inline void released_for(struct farm *farm, uint8_t number, struct lease_id lease,
                                bool no_room)
{
    struct event event = {.kind = EVENT_RELEASED};

    event.released.worker = worker_numbered(farm, number);
    event.released.lease = lease;
    event.released.no_room = no_room;
    farm_step(farm, &event);
}

static inline void released(struct farm *farm, uint8_t number, struct lease_id lease)
{
    released_for(farm, number, lease, false);
}

static inline enum code result(struct farm *farm, uint8_t number, struct lease_id lease,
                               enum attempt_class class)
{
    struct event event = {.kind = EVENT_RESULT};

    event.result.worker = worker_numbered(farm, number);
    event.result.lease = lease;
    event.result.class = class;
    farm_step(farm, &event);
    return effect_of(farm, EFFECT_COMMITTED, 0)->code;
}

static inline struct lease_id assigned(const struct farm *farm, size_t nth)
{
    const struct effect *effect = effect_of(farm, EFFECT_ASSIGN, nth);

    assert_non_null(effect);
    return effect->lease;
}

static inline enum task_state state_of(const struct farm *farm, uint8_t job, uint32_t step,
                                       uint64_t index)
{
    struct job_id id = job_numbered(job);
    enum task_state found = TASK_WAITING;
    uint32_t floor = 0;

    assert_true(core_task(farm->core, &id, (struct task_id){step, index}, &found, &floor));
    return found;
}

static inline struct why why_of(const struct farm *farm, uint8_t job, uint32_t step)
{
    struct job_id id = job_numbered(job);
    struct why why;

    core_why(farm->core, &id, step, &why);
    return why;
}

static inline struct job_view view_of(const struct farm *farm, uint8_t job)
{
    struct job_id id = job_numbered(job);
    struct job_view view;

    assert_true(core_job(farm->core, &id, &view));
    return view;
}
