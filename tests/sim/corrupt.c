/* Every invariant of core_audit can fail: each word of a core that lives is spoiled in turn, in
 * many ways and at many moments of several storms, and each CHECK in audit.c must be seen to object
 * to something. The argument is the path of audit.c; its CHECKs are found there.
 *
 * The audit reads only, so what is spoiled is mended after it; one that is led astray by a pointer
 * is called back by a signal, and what ends its process has spoiled one object's turn.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <broker/core/inner.h>
#include "sim.h"

enum {
    REGIONS = 4096,
    ALIKE = 12, /* regions of a kind that are spoiled at one moment */
    LINES = 1000,
    SEEDS = 60,
    EVERY = 150,
    TICK_US = 1000,
    WORDS_OF_KIND = 8192,
    POINTER = 8 /* a word that led astray so often is one */
};

enum kind {
    CORE,
    JOB,
    STEP,
    TASK,
    LEASE,
    CHAIN,
    WORKER,
    SHAPE,
    GROUP,
    DEMAND,
    QUEUE,
    STUDIO,
    ASKED,
    ITEMS,
    WORDS
};

/* Memory of one kind; the same offset of another of its kind holds the same field. */
struct region {
    unsigned kind;
    char *memory;
    size_t size;
};

static struct region regions[REGIONS];
static size_t n_regions, chosen[REGIONS], n_chosen;
static bool is_check[LINES]; /* a CHECK of audit.c begins here */
static int check_of[LINES];  /* the CHECK that this line is part of */
/* What those who spoil leave to those who come after. */
static struct shared {
    uint64_t objections[LINES];
    size_t at, offset;                     /* the region to spoil, and where in it */
    uint8_t led[WORDS + 1][WORDS_OF_KIND]; /* astray, by the garbage in that word */
} * shared;
static uint64_t moment;
static sigjmp_buf objected;
static volatile bool spoiled;
static volatile unsigned ticks;

void check_failed(const char *what, const char *file, int line)
{
    if (!spoiled) {
        fprintf(stderr, "%s:%d: broken, though nothing was spoiled: %s\n", file, line, what);
        abort();
    }
    if (strstr(file, "audit.c") && line < LINES)
        shared->objections[check_of[line]]++;
    siglongjmp(objected, 1);
}

static void astray(int number)
{
    if (number == SIGALRM && (!spoiled || ++ticks < 2))
        return;
    if (!spoiled)
        _exit(1); /* a stack that was written over */
    siglongjmp(objected, number);
}

static void ended(int number)
{
    (void)number;
    _exit(1);
}

static void checks_read(const char *path)
{
    FILE *file = fopen(path, "r");
    char text[400];

    CHECK(file);
    for (int line = 1, last = 0; fgets(text, sizeof(text), file); line++) {
        CHECK(line < LINES);
        if (strstr(text, "CHECK(")) {
            is_check[line] = true;
            last = line;
        }
        check_of[line] = last;
    }
    fclose(file);
}

/* ---- what there is ---- */

static void region(enum kind kind, void *memory, size_t size)
{
    if (memory && size > 0 && n_regions < REGIONS)
        regions[n_regions++] = (struct region){kind, memory, size};
}

/* A small one lies in its step. */
static void region_of_bits(const struct bitmap *bits)
{
    if (bits->n_bits > 64)
        region(WORDS, bits->words, bitmap_words(bits->n_bits) * 8);
}

static void regions_of_job(struct job *job)
{
    region(JOB, job, sizeof(*job));
    for (uint32_t i = 0; i < job->n_steps; i++) {
        struct step *step = &job->steps[i];

        region(STEP, step, sizeof(*step));
        for (unsigned state = 0; state < TASK_STATES_COUNT; state++)
            region_of_bits(&step->bits[state]);
        region_of_bits(&step->left);
        region_of_bits(&step->delivered);
        region(WORDS, step->floors.runs, step->floors.n * sizeof(*step->floors.runs));
    }
    list_each(link, &job->tasks)
        region(TASK, container_of(link, struct task, of_job), sizeof(struct task));
    list_each(link, &job->leases)
    {
        struct lease *lease = container_of(link, struct lease, of_job);

        region(LEASE, lease, sizeof(struct lease));
        if (lease->chain && !lease->before)
            region(CHAIN, lease->chain, sizeof(struct chain));
    }
}

static void regions_of_fleet(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->n_workers; i++) {
        struct worker *worker = fleet->workers[i];

        region(WORKER, worker, sizeof(*worker));
        if (worker->shape)
            region(WORDS, worker->free, worker->shape->n_free * sizeof(*worker->free));
    }
    list_each(link, &fleet->shapes)
    {
        struct shape *shape = container_of(link, struct shape, link);

        region(SHAPE, shape, sizeof(*shape));
        region(ITEMS, shape->sets, shape->n_sets * sizeof(*shape->sets));
        list_each(of_shape, &shape->groups)
            region(GROUP, container_of(of_shape, struct group, link),
                   sizeof(struct group) + shape->n_free * 8);
    }
    for (size_t i = 0; i < fleet->n_demands; i++) {
        struct demand *demand = fleet->all_demands[i];

        region(DEMAND, demand, sizeof(*demand));
        region(ITEMS, demand->queues.items, demand->queues.n * sizeof(void *));
        for (struct queue *queue = demand->of_studios; queue; queue = queue->next_of_demand)
            region(QUEUE, queue, sizeof(*queue));
    }
}

static void regions_find(struct core *core)
{
    n_regions = 0;
    region(CORE, core, sizeof(*core));
    region(ITEMS, core->jobs, core->n_jobs * sizeof(void *));
    for (size_t i = 0; i < core->n_jobs; i++)
        regions_of_job(core->jobs[i]);
    list_each(link, &core->gone)
        region(ASKED, container_of(link, struct asked, gone), sizeof(struct asked));
    region(ITEMS, core->expiries.items, core->expiries.n * sizeof(void *));
    regions_of_fleet(&core->fleet);
    for (size_t i = 0; i < core->n_studios; i++)
        region(STUDIO, core->all_studios[i], sizeof(struct studio));
}

/* ---- spoiling ---- */

/* True when the audit was led astray. */
static bool try(const struct core *core, void *word, uint64_t value)
{
    uint64_t before = 0;
    int how;

    memcpy(&before, word, sizeof(before));
    if (value == before)
        return false;
    memcpy(word, &value, sizeof(value));
    ticks = 0;
    spoiled = true;
    how = sigsetjmp(objected, 0);
    if (how == 0)
        core_audit(core);
    spoiled = false;
    memcpy(word, &before, sizeof(before));
    return how == SIGSEGV;
}

/* What the next of its kind have there (of a task more of them, because one that says it is
 * another's is found under its name only where the two share a place in the table), and a link that
 * is alone. Where it is no pointer, also a bit of each byte, a small number and a large one. */
static void word_spoil(const struct core *core, const struct region *at, size_t offset)
{
    uint64_t value = 0, other = 0;
    char *word = at->memory + offset;

    memcpy(&value, word, sizeof(value));
    try(core, word, (uint64_t)(uintptr_t)word);
    try(core, word, (uint64_t)(uintptr_t)word - sizeof(void *));
    for (size_t i = 0, found = 0; i < n_regions && found < (at->kind == TASK ? 16 : 2); i++) {
        const struct region *sibling = &regions[(size_t)(at - regions + 1 + i) % n_regions];

        if (sibling->kind != at->kind || sibling->size < offset + 8)
            continue;
        found++;
        memcpy(&other, sibling->memory + offset, sizeof(other));
        try(core, word, other);
    }
    if (value >> 40 && value >> 47 == 0)
        return;
    uint8_t *led = &shared->led[at->kind][offset / 8];
    const uint64_t garbage[] = {
        value ^ 1ULL,       value ^ 1ULL << 8,  value ^ 1ULL << 16,
        value ^ 1ULL << 24, value ^ 1ULL << 32, value ^ 1ULL << 40,
        value ^ 1ULL << 48, value ^ 1ULL << 56, 0,
        UINT64_MAX,         value + 2,          value << 1,
        value | 0x40,
    };
    size_t n = sizeof(garbage) / sizeof(garbage[0]);
    if (*led >= POINTER) { /* it would again: once is enough */
        try(core, word, garbage[moment % n]);
        return;
    }
    for (size_t i = 0; i < n && *led < POINTER; i++)
        *led += try(core, word, garbage[i]);
}

/* False where an audit that was led astray has written somewhere. */
static bool whole(const struct core *core)
{
    bool yes = false;

    spoiled = true;
    ticks = 0;
    if (sigsetjmp(objected, 0) == 0) {
        core_audit(core);
        yes = true;
    }
    spoiled = false;
    return yes;
}

/* Of the many lists of open groups, which are alike, a few. */
static bool worth(const struct region *at, size_t offset)
{
    const size_t from = offsetof(struct core, fleet.open);
    const size_t to = from + sizeof(((struct core *)NULL)->fleet.open);

    return at->kind != CORE || offset < from || offset >= to || offset % 520 < 16;
}

/* Of each kind, a few, others at each moment. */
static void regions_choose(void)
{
    size_t n[WORDS + 1] = {0}, seen[WORDS + 1] = {0}, kept = 0;

    for (size_t i = 0; i < n_regions; i++)
        n[regions[i].kind]++;
    moment++;
    for (size_t i = 0; i < n_regions; i++) {
        enum kind kind = regions[i].kind;

        if ((seen[kind]++ + moment * ALIKE) % n[kind] < ALIKE)
            chosen[kept++] = i;
    }
    n_chosen = kept;
}

/* Spoils one region after another. */
static void regions_spoil(struct core *core)
{
    const struct itimerval tick = {{.tv_usec = TICK_US}, {.tv_usec = TICK_US}};

    setitimer(ITIMER_REAL, &tick, NULL);
    for (; shared->at < n_chosen; shared->at++, shared->offset = 0) {
        const struct region *region = &regions[chosen[shared->at]];
        rlim_t seconds = (rlim_t)(clock() / CLOCKS_PER_SEC) + 2;

        /* A stack that was written over may spin. */
        setrlimit(RLIMIT_CPU, &(struct rlimit){seconds, RLIM_INFINITY});
        while (shared->offset + 8 <= region->size) {
            size_t offset = shared->offset;

            shared->offset += 8;
            if (!worth(region, offset))
                continue;
            word_spoil(core, region, offset);
            if (!whole(core))
                return;
        }
    }
}

static void all_spoil(struct core *core)
{
    core_audit(core);
    regions_find(core);
    regions_choose();
    for (shared->at = shared->offset = 0; shared->at < n_chosen;) {
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            regions_spoil(core);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
}

/* How many have objected to nothing yet. */
static int dumb(void)
{
    int n = 0;

    for (int line = 1; line < LINES; line++)
        n += is_check[line] && shared->objections[line] == 0;
    return n;
}

static bool over_with_failures(const struct core *core)
{
    for (size_t i = 0; i < core->n_jobs; i++)
        if (core->jobs[i]->n[TASK_FAILED] > 0 && job_finished(core->jobs[i]))
            return true;
    return false;
}

/* What seldom is, is not waited for: a worker set aside, two jobs gone, one that is over with
 * failures; the first few of each. */
static bool rare(const struct core *core)
{
    enum { KINDS = 3, FEW = 3 };
    static unsigned seen[KINDS];
    static bool before[KINDS];
    bool now[KINDS] = {
        core->asides.n > 0,
        !link_alone(&core->gone) && core->gone.next->next != &core->gone,
        over_with_failures(core),
    };
    bool any = false;

    for (size_t i = 0; i < KINDS; i++) {
        any |= now[i] && !before[i] && seen[i]++ < FEW;
        before[i] = now[i];
    }
    return any;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGALRM};
    struct world *world = malloc(sizeof(*world));
    int checks = 0;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(argc == 2 && world && shared != MAP_FAILED);
    checks_read(argv[1]);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction action = {.sa_handler = astray, .sa_flags = SA_NODEFER};

        sigaction(signals[i], &action, NULL);
    }
    signal(SIGABRT, ended); /* a stack that was written over */
    for (uint64_t seed = 1; seed <= SEEDS && dumb() > 0; seed++) {
        world_init(world, seed);
        world->ends_ns = world->now_ns + 200 * SECOND;
        for (uint64_t at = EVERY; dumb() > 0 && world_run(world);)
            if (world->events >= at || rare(world->core)) {
                all_spoil(world->core);
                at = world->events + EVERY * seed;
            }
        world_deinit(world);
    }
    for (int line = 1; line < LINES; line++) {
        checks += is_check[line];
        if (is_check[line] && shared->objections[line] == 0)
            fprintf(stderr, "%s:%d: this CHECK has objected to nothing\n", argv[1], line);
    }
    printf("%d of %d invariants have objected to something\n", checks - dumb(), checks);
    free(world);
    return dumb() != 0;
}
