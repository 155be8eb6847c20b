/* core.c - events a second through the core alone: a full farm, and queues that stay long.
 *
 * Every worker keeps all its slots and its queue full; each task is three events (started,
 * progress, result), and each worker beats once for each round of its slots. What the core says is
 * taken and acted upon as a worker would, within the time that is measured; nothing is stored or
 * sent.
 */
#include <tests/bench/bench.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <broker/core/core.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>

enum { STUDIOS = 20, SLOTS = 4, PREFETCH = 2, HELD = SLOTS * (1 + PREFETCH), ROUND_NS = 1000000 };

/* What it has been given, in order. */
struct node {
    struct worker_id id;
    struct lease_id held[2 * HELD];
    uint32_t first, n;
};

struct bench {
    struct core *core;
    struct outbox outbox;
    struct node *nodes;
    uint32_t n_nodes;
    int64_t now_ns;
    uint64_t events, records, assigned, done;
};

static void step(struct bench *bench, struct event *event)
{
    event->now_ns = bench->now_ns;
    event->wall_s = bench->now_ns / 1000000000;
    outbox_clear(&bench->outbox);
    core_step(bench->core, event, &bench->outbox);
    bench->events++;
    bench->records += bench->outbox.n_records;
    for (size_t i = 0; i < bench->outbox.n_effects; i++) {
        const struct effect *effect = &bench->outbox.effects[i];

        if (effect->kind != EFFECT_ASSIGN)
            continue;
        struct node *node = &bench->nodes[effect->worker.value];

        CHECK(node->n < 2 * HELD);
        node->held[(node->first + node->n++) % (2 * HELD)] = effect->lease;
        bench->assigned++;
    }
}

static void job_submit(struct bench *bench, uint32_t number, uint64_t tasks)
{
    static const struct amount cores[] = {{"amount.worker.vcpu", 1}, {"amount.worker.vcpu", 2}};
    struct event event = {.kind = EVENT_SUBMIT};
    struct space space;
    struct space_range range = {1, (int64_t)tasks, 1};
    struct step_spec one = {.space = &space, .amounts = &cores[number % 2], .n_amounts = 1};
    struct job_spec spec = {.studio = {1 + number % STUDIOS}, .steps = &one, .n_steps = 1};

    spec.priority = (int32_t)(number % 5);
    memcpy(spec.job.bytes, &number, sizeof(number));
    memcpy(event.submit.request.bytes, &number, sizeof(number));
    event.submit.spec = &spec;
    space_init(&space);
    CHECK(space_add_ints(&space, "frame", 0, 1, false, &range, 1) == 0 && space_seal(&space) == 0);
    step(bench, &event);
    CHECK(bench->outbox.n_effects > 0 && bench->outbox.effects[0].code == CODE_OK);
    space_deinit(&space);
}

static void node_join(struct bench *bench, uint32_t number)
{
    const struct amount cores = {"amount.worker.vcpu", 2 * SLOTS};
    const struct offer offer = {
        .slots = SLOTS, .prefetch = PREFETCH, .amounts = &cores, .n_amounts = 1};
    struct event hello = {.kind = EVENT_HELLO}, inventory = {.kind = EVENT_INVENTORY};

    memcpy(hello.hello.key.bytes, &number, sizeof(number));
    hello.hello.session = 1;
    hello.hello.offer = &offer;
    step(bench, &hello);
    CHECK(bench->outbox.effects[0].kind == EFFECT_WELCOME);
    CHECK(bench->outbox.effects[0].worker.value == number);
    bench->nodes[number].id.value = number;
    inventory.inventory.worker.value = number;
    inventory.inventory.last = true;
    step(bench, &inventory);
}

static void task_run(struct bench *bench, struct node *node)
{
    struct lease_id lease = node->held[node->first];
    struct event event = {.kind = EVENT_STARTED};

    node->first = (node->first + 1) % (2 * HELD);
    node->n--;
    event.started.worker = node->id;
    event.started.lease = lease;
    step(bench, &event);
    event = (struct event){.kind = EVENT_PROGRESS};
    event.progress.worker = node->id;
    event.progress.lease = lease;
    event.progress.permille = 500;
    step(bench, &event);
    event = (struct event){.kind = EVENT_RESULT};
    event.result.worker = node->id;
    event.result.lease = lease;
    event.result.class = CLASS_OK;
    event.result.usage.wall_ns = 1000;
    step(bench, &event);
    bench->done++;
}

/* Every node runs one task for each of its slots, and says that it is there. */
static void round_run(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->n_nodes; i++) {
        struct node *node = &bench->nodes[i];
        struct event beat = {.kind = EVENT_BEAT};

        for (unsigned slot = 0; slot < SLOTS && node->n > 0; slot++)
            task_run(bench, node);
        beat.beat.worker = node->id;
        step(bench, &beat);
    }
    bench->now_ns += ROUND_NS;
}

int bench_core(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},         {"workers", required_argument, NULL, 'w'},
        {"jobs", required_argument, NULL, 'n'},   {"tasks", required_argument, NULL, 't'},
        {"events", required_argument, NULL, 'e'}, {0}};
    unsigned long workers = 1000, jobs = 400, tasks = 4000000, events = 5000000;
    struct core_config config = {.epoch = 1, .seed = 1, .tasks_max = UINT64_MAX / 2};

    for (int option; (option = getopt_long(argc, argv, "j", options, NULL)) != -1;) {
        if (option == 'w')
            workers = strtoul(optarg, NULL, 10);
        else if (option == 'n')
            jobs = strtoul(optarg, NULL, 10);
        else if (option == 't')
            tasks = strtoul(optarg, NULL, 10);
        else if (option == 'e')
            events = strtoul(optarg, NULL, 10);
        else if (option != 'j')
            return 2;
    }
    if (workers == 0 || workers > 100000 || jobs == 0 || tasks < jobs) {
        fprintf(stderr, "usage: westlight-bench core [--json] [--workers 1-100000] [--jobs N] "
                        "[--tasks N, one a job at least] [--events N]\n");
        return 2;
    }
    struct bench bench = {
        .core = core_new(&config), .n_nodes = (uint32_t)workers, .now_ns = 1000000000};
    struct rusage before, after;

    bench.nodes = calloc(workers, sizeof(*bench.nodes));
    CHECK(bench.nodes);
    outbox_init(&bench.outbox);
    core_recovered(bench.core, bench.now_ns);
    getrusage(RUSAGE_SELF, &before);
    for (uint32_t i = 0; i < jobs; i++)
        job_submit(&bench, i, tasks / jobs);
    getrusage(RUSAGE_SELF, &after);
    for (uint32_t i = 0; i < workers; i++)
        node_join(&bench, i);
    uint64_t ahead = bench.events, assigned = bench.assigned, done = 0;
    int64_t began_ns = clock_monotonic_ns();

    do {
        done = bench.done;
        round_run(&bench);
    } while (bench.events - ahead < events && bench.done > done);
    double seconds = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    double n = (double)(bench.events - ahead);

    printf("{\"bench\": \"core\", \"workers\": %lu, \"slots\": %d, \"studios\": %d, \"jobs\": %lu, "
           "\"tasks\": %lu, \"events\": %.0f, \"results\": %llu, \"assigned\": %llu, "
           "\"seconds\": %.3f, \"events_per_s\": %.0f, \"ns_per_event\": %.0f, "
           "\"queued_bytes_per_task\": %.2f}\n",
           workers, SLOTS, STUDIOS, jobs, tasks, n, (unsigned long long)bench.done,
           (unsigned long long)(bench.assigned - assigned), seconds, n / seconds, 1e9 * seconds / n,
           1024.0 * (double)(after.ru_maxrss - before.ru_maxrss) / (double)tasks);
    core_free(bench.core);
    outbox_deinit(&bench.outbox);
    free(bench.nodes);
    return 0;
}
