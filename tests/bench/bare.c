/* bare.c - see bare.h. */
#include <tests/bench/bare.h>

#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>

enum { ROUND_NS = 1000000, MEMORY_MIB = 1 << 17 };

void bare_init(struct bare *bare, const struct bare_config *config)
{
    static const struct core_config core = {.epoch = 1, .seed = 1, .tasks_max = UINT64_MAX / 2};

    *bare = (struct bare){.config = *config, .now_ns = 1000000000};
    bare->ring = 2 * config->slots * (1 + config->prefetch);
    bare->core = core_new(&core);
    bare->nodes = calloc(config->workers, sizeof *bare->nodes);
    CHECK(bare->nodes);
    for (uint32_t i = 0; i < config->workers; i++) {
        bare->nodes[i].held = calloc(bare->ring, sizeof *bare->nodes[i].held);
        CHECK(bare->nodes[i].held);
    }
    outbox_init(&bare->outbox);
    core_recovered(bare->core, bare->now_ns);
}

void bare_deinit(struct bare *bare)
{
    core_free(bare->core);
    outbox_deinit(&bare->outbox);
    for (uint32_t i = 0; i < bare->config.workers; i++)
        free(bare->nodes[i].held);
    free(bare->nodes);
}

static void step(struct bare *bare, struct event *event)
{
    event->now_ns = bare->now_ns;
    event->wall_s = bare->now_ns / 1000000000;
    outbox_clear(&bare->outbox);
    core_step(bare->core, event, &bare->outbox);
    bare->events++;
    bare->records += bare->outbox.n_records;
    for (size_t i = 0; i < bare->outbox.n_effects; i++) {
        const struct effect *effect = &bare->outbox.effects[i];

        if (effect->kind != EFFECT_ASSIGN)
            continue;
        struct bare_node *node = &bare->nodes[effect->worker.value];

        CHECK(node->n < bare->ring);
        node->held[(node->first + node->n++) % bare->ring] = effect->lease;
        bare->assigned++;
    }
}

void bare_submit(struct bare *bare, uint32_t number, uint64_t tasks)
{
    static const struct amount small[] = {{"amount.worker.vcpu", 1}, {"amount.worker.vcpu", 2}};
    static const struct amount large = {"amount.worker.memory", MEMORY_MIB / 2};
    const struct amount own = {"amount.worker.memory", 1 + number};
    const struct amount *asked = bare->config.mixed    ? &large
                                 : bare->config.motley ? &own
                                                       : &small[number % 2];
    struct event event = {.kind = EVENT_SUBMIT};
    struct space space;
    struct space_range range = {1, (int64_t)tasks, 1};
    struct step_spec one = {.space = &space, .amounts = asked, .n_amounts = 1};
    struct job_spec spec = {.studio = {1 + number % BARE_STUDIOS}, .steps = &one, .n_steps = 1};

    spec.priority = (int32_t)(number % 5);
    memcpy(spec.job.bytes, &number, sizeof number);
    memcpy(event.submit.request.bytes, &number, sizeof number);
    event.submit.spec = &spec;
    space_init(&space);
    CHECK(space_add_ints(&space, "frame", 0, 1, false, &range, 1) == 0 && space_seal(&space) == 0);
    step(bare, &event);
    CHECK(bare->outbox.n_effects > 0 && bare->outbox.effects[0].code == CODE_OK);
    space_deinit(&space);
}

static void node_join(struct bare *bare, uint32_t number)
{
    const struct amount amounts[] = {
        {"amount.worker.vcpu", 2 * bare->config.slots},
        {"amount.worker.memory", MEMORY_MIB + (bare->config.mixed ? number : 0)}};
    const struct offer offer = {.slots = bare->config.slots,
                                .prefetch = bare->config.prefetch,
                                .amounts = amounts,
                                .n_amounts = 2};
    struct event hello = {.kind = EVENT_HELLO}, inventory = {.kind = EVENT_INVENTORY};

    memcpy(hello.hello.key.bytes, &number, sizeof number);
    hello.hello.session = 1;
    hello.hello.offer = &offer;
    step(bare, &hello);
    CHECK(bare->outbox.effects[0].kind == EFFECT_WELCOME);
    CHECK(bare->outbox.effects[0].worker.value == number);
    bare->nodes[number].id.value = number;
    inventory.inventory.worker.value = number;
    inventory.inventory.last = true;
    step(bare, &inventory);
}

void bare_join(struct bare *bare)
{
    for (uint32_t i = 0; i < bare->config.workers; i++)
        node_join(bare, i);
}

static void tell(struct bare *bare, const struct bare_node *node, const struct lease_id *lease)
{
    struct event started = {.kind = EVENT_STARTED, .started = {node->id, *lease}};
    struct event progress = {.kind = EVENT_PROGRESS, .progress = {node->id, *lease, 500}};

    step(bare, &started);
    step(bare, &progress);
}

static void task_run(struct bare *bare, struct bare_node *node)
{
    struct lease_id lease = node->held[node->first];
    struct event event = {.kind = EVENT_RESULT};

    node->first = (node->first + 1) % bare->ring;
    node->n--;
    if (bare->config.told)
        tell(bare, node, &lease);
    event.result.worker = node->id;
    event.result.lease = lease;
    event.result.class = CLASS_OK;
    event.result.usage.wall_ns = 1000;
    step(bare, &event);
    bare->done++;
}

/* A node's results come as one message, of which the core is told what is in it. */
static void node_run(struct bare *bare, struct bare_node *node)
{
    struct lease_id leases[CORE_EXPECT];
    uint32_t most = bare->config.carried ? bare->config.carried : bare->config.slots;

    for (uint32_t left = node->n < most ? node->n : most; left > 0;) {
        uint32_t n = left < CORE_EXPECT ? left : CORE_EXPECT;

        for (uint32_t i = 0; i < n; i++)
            leases[i] = node->held[(node->first + i) % bare->ring];
        core_expect(bare->core, leases, n);
        for (uint32_t i = 0; i < n; i++)
            task_run(bare, node);
        left -= n;
    }
}

uint64_t bare_round(struct bare *bare)
{
    uint64_t before = bare->done;

    for (uint32_t i = 0; i < bare->config.workers; i++) {
        struct bare_node *node = &bare->nodes[i];
        struct event beat = {.kind = EVENT_BEAT, .beat.worker = node->id};

        node_run(bare, node);
        if (bare->config.told)
            step(bare, &beat);
    }
    bare->now_ns += ROUND_NS;
    return bare->done - before;
}
