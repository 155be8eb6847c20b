/* main.c - westlight-load: a farm that is simulated but for its broker, and its figures as JSON.
 *
 * Any count that is wrong ends it with exit code 1, whatever was expected.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/args.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <proto/limits.h>
#include <tests/load/run.h>

#define BACK_LOOK_NS (20 * NS_PER_MS)
#define RSS_LOOK_NS  (50 * NS_PER_MS)
#define CHECK_ALL    2000000 /* frames up to which every result is read back, where it is not said */

/* ---- the broker's deaths ---- */

static int broker_kill(struct run *run, int64_t now_ns)
{
    int r = private_kill(&run->broker);

    run->epoch_before = load_epoch(run->load);
    run->kill_ns = now_ns;
    run->back_ns = 0;
    run->killed++;
    return r == 0 ? private_again(&run->broker) : r;
}

/* Whether all workers have been with the new one. */
static void back_look(struct run *run, int64_t now_ns)
{
    double s = (double)(now_ns - run->kill_ns) / NS_PER_S;

    if (now_ns - run->looked_ns < BACK_LOOK_NS)
        return;
    run->looked_ns = now_ns;
    if (load_listed(run->load, run->epoch_before + 1) < run->config.workers)
        return;
    run->back_ns = now_ns;
    if (s > run->reconnect_s)
        run->reconnect_s = s;
}

static void progress(struct run *run, int64_t now_ns)
{
    const struct load_counts *counts = load_counts(run->load);

    if (now_ns - run->told_ns < NS_PER_S)
        return;
    run->told_ns = now_ns;
    fprintf(stderr,
            "joined %u of %u, committed %llu, dropped %llu, already %llu of %llu, hellos %llu, "
            "refused hellos %llu\n",
            load_joined(run->load, run->killed ? run->epoch_before + 1 : 0), run->config.workers,
            (unsigned long long)counts->committed, (unsigned long long)counts->lapsed,
            (unsigned long long)counts->already,
            (unsigned long long)(run->config.jobs * run->config.frames),
            (unsigned long long)counts->hellos, (unsigned long long)counts->errors);
}

/* The most that it has had. */
static void rss_look(struct run *run, int64_t now_ns)
{
    int64_t bytes;

    if (now_ns - run->rss_ns < RSS_LOOK_NS)
        return;
    run->rss_ns = now_ns;
    bytes = private_rss_bytes(&run->broker);
    if (bytes > run->rss_most)
        run->rss_most = bytes;
}

static int turn(void *user, int64_t now_ns)
{
    struct run *run = user;
    int64_t since_ns = load_first_lease_ns(run->load);

    if (run->spawn)
        rss_look(run, now_ns);

    if (run->progress)
        progress(run, now_ns);

    if (run->kill_ns && !run->back_ns)
        back_look(run, now_ns);
    if (run->spawn && private_interrupted())
        return FAILED;
    if (run->spawn && !private_alive(&run->broker)) {
        fprintf(stderr, "westlight-load: the broker ended by itself\n");
        return FAILED;
    }
    if (run->killed >= run->kills || !since_ns || (run->killed && !run->back_ns))
        return 0;
    if (run->killed)
        since_ns = run->back_ns;
    return now_ns - since_ns >= (int64_t)run->kill_after_s * NS_PER_S ? broker_kill(run, now_ns)
                                                                      : 0;
}

static bool all_back(void *user)
{
    const struct run *run = user;

    return run->killed == run->kills && (!run->killed || run->back_ns);
}

/* ---- a run ---- */

static int failed(const struct run *run, int r)
{
    const char *why = r < 0               ? strerror(-r)
                      : r == LOAD_E_STUCK ? "nothing moves any more"
                                          : "it ended early: the reason is above";
    uint64_t settled = run->load ? load_counts(run->load)->committed : 0;

    fprintf(stderr, "westlight-load: FAILED after %llu results (seed %llu): %s\n",
            (unsigned long long)settled, (unsigned long long)run->config.seed, why);
    return FAILED;
}

/* Until it releases them, the workers take nothing: so the queue is there before it is drained. */
static int queue(struct run *run)
{
    int64_t cpu_ns;
    int r = load_hold(run->load);

    cpu_ns = run->spawn ? private_cpu_ns(&run->broker) : 0;
    if (r == 0)
        r = load_submit(run->load);
    if (run->spawn) {
        run->rss_queued = private_rss_bytes(&run->broker);
        run->queue_cpu_ns = private_cpu_ns(&run->broker) - cpu_ns;
    }
    load_release(run->load);
    run->begun_ns = clock_monotonic_ns();
    return r;
}

static int measure(struct run *run)
{
    bool all = run->check_set ? run->check_all : run->config.jobs * run->config.frames <= CHECK_ALL;
    int64_t cpu_ns;
    int r;

    run->rss_before = run->spawn ? private_rss_bytes(&run->broker) : 0;
    r = load_join(run->load);
    if (r != 0)
        return r;
    run->rss_joined = run->spawn ? private_rss_bytes(&run->broker) : 0;
    if (run->queue_first)
        r = queue(run);
    cpu_ns = run->spawn ? private_cpu_ns(&run->broker) : 0;
    if (r == 0)
        r = load_drain(run->load);
    if (!run->begun_ns)
        run->begun_ns = load_first_submit_ns(run->load);
    if (r == 0 && run->spawn)
        run->cpu_ns = private_cpu_ns(&run->broker) - cpu_ns;
    if (r == 0)
        r = load_until(run->load, all_back, run);
    run->rss_bytes = run->spawn ? private_rss_bytes(&run->broker) : 0;
    if (r == 0)
        r = load_check(run->load, all, &run->lost, &run->duplicated);
    if (r == 0 && run->spawn)
        r = private_end(&run->broker, &run->batches);
    return r;
}

static int connect_to(struct run *run)
{
    struct load_config *config = &run->config;
    int r;

    if (run->spawn) {
        r = random_bytes(config->master, sizeof(config->master));
        if (r == 0)
            r = private_start(&run->broker, config->master, config->workers);
        config->endpoint = run->broker.endpoint;
        config->server = run->broker.server;
    } else {
        config->endpoint = run->broker_endpoint;
        r = identity_secret_load_or_new(run->keys_file, config->master);
        if (r == 0)
            r = identity_key_parse(run->server_key, &config->server);
    }
    return r;
}

static int public_keys(struct run *run)
{
    bool studio = strcmp(run->public_role, "studio") == 0;
    uint32_t n = run->config.workers;
    int r = identity_secret_load_or_new(run->keys_file, run->config.master);

    for (uint32_t i = studio ? n : 0; r == 0 && i < n + studio; i++) {
        struct link_keypair keys;
        char text[IDENTITY_Z85_SIZE];

        r = load_keys(run->config.master, i, &keys);
        if (r != 0)
            break;
        identity_key_text(&keys.public_key, text);
        printf("%s load-%05u\n", text, i);
    }
    return r == 0 ? 0 : failed(run, r);
}

static int run_all(struct run *run)
{
    int r = connect_to(run);

    run->config.turn = turn;
    run->config.user = run;
    run->config.task_ns = (int64_t)run->task_ms * NS_PER_MS;
    if (r == 0)
        r = load_new(&run->config, &run->load);
    if (r == 0)
        r = measure(run);
    if (r == 0) {
        figures_make(run);
        report(run);
        r = counts_check(run) | expects_check(run);
    } else {
        r = failed(run, r);
    }
    load_free(run->load);
    private_stop(&run->broker);
    return r;
}

/* ---- options ---- */

enum {
    WORKERS = 256,
    SLOTS,
    PREFETCH,
    JOBS,
    FRAMES,
    TASK_MS,
    RESULT_BYTES,
    CHURN,
    RAMP,
    SEED,
    IO_THREADS,
    PATIENCE,
    CHECK_RESULTS,
    QUEUE_FIRST,
    SPAWN,
    KILL_AFTER,
    KILLS,
    BROKER,
    SERVER_KEY,
    KEYS,
    PUBLIC,
    JSON,
    PROGRESS,
    EXPECT,
};

static const struct args_option options[] = {
    {WORKERS, "workers", "N", "simulated workers, each with a key and a link of its own (16)"},
    {SLOTS, "slots", "N", "of each (1)"},
    {PREFETCH, "prefetch", "N", "leases queued behind each slot (4)"},
    {JOBS, "jobs", "N", "(1)"},
    {FRAMES, "frames", "N", "of all jobs together (10000)"},
    {TASK_MS, "task-ms", "N", "how long a frame takes; 0: nothing at all (0)"},
    {RESULT_BYTES, "result-bytes", "N", "of a result's sealed manifest (200)"},
    {CHURN, "churn", "PERCENT",
     "of the workers that leave and come back each minute: a third die and forget what they had, a "
     "third lose their link, a third say that they take nothing more and go when they are done "
     "(0)"},
    {RAMP, "ramp", "N", "connections begun each second (1000)"},
    {SEED, "seed", "N", "of who leaves when (1)"},
    {IO_THREADS, "io-threads", "N", "of libzmq, in this process (1)"},
    {PATIENCE, "patience", "SECONDS", "without a result, after which it has failed (90)"},
    {CHECK_RESULTS, "check", "results|counts",
     "what is read back from the broker at the end: each result, or each job's counts (results, up "
     "to two million frames)"},
    {QUEUE_FIRST, "queue-first", NULL,
     "submit all jobs before any worker takes anything: rate_per_s and cpu_us_per_frame are then "
     "of "
     "the draining alone"},
    {SPAWN, "spawn", NULL, "with a private broker in a folder under TMPDIR that goes away"},
    {KILL_AFTER, "kill-broker-after", "SECONDS",
     "SIGKILL the private broker so long after the first lease, and start it anew"},
    {KILLS, "kills", "N", "so often, each so long after all workers are back (1)"},
    {BROKER, "broker", "ENDPOINT", "the control endpoint of a broker that runs"},
    {SERVER_KEY, "server-key", "KEY", "its public key"},
    {KEYS, "keys", "FILE", "a secret of which all keys are made; made where it is not there"},
    {PUBLIC, "public", "worker|studio", "print the public keys for westlight-broker allow --from"},
    {JSON, "json", NULL, "the figures as one JSON object"},
    {PROGRESS, "progress", NULL, "a line each second on standard error"},
    {EXPECT, "expect", "KEY>=N",
     "or KEY<=N, of any figure; may be repeated; exit code 1 and a line where it falls short"},
    {0},
};

static int wrong(const char *option, const char *value, const char *what)
{
    fprintf(stderr, "westlight-load: --%s %s: give %s\n", option, value, what);
    return ARGS_USAGE;
}

static const char *name_of(int id)
{
    for (const struct args_option *row = options; row->name; row++)
        if (row->id == id)
            return row->name;
    return "?";
}

static int take_number(struct run *run, int option, const char *value)
{
    struct load_config *config = &run->config;
    uint64_t n;
    const struct {
        int option;
        uint64_t least, most;
        uint32_t *small;
        uint64_t *large;
    } numbers[] = {
        {WORKERS, 1, LIMIT_WORKERS, &config->workers, NULL},
        {SLOTS, 1, LIMIT_SLOTS, &config->slots, NULL},
        {PREFETCH, 0, LIMIT_PREFETCH, &config->prefetch, NULL},
        {JOBS, 1, LIMIT_JOBS / 2, NULL, &config->jobs},
        {FRAMES, 1, LIMIT_TASKS_PER_STEP, NULL, &config->frames},
        {TASK_MS, 0, 86400000, NULL, &run->task_ms},
        {RESULT_BYTES, 1, LIMIT_INLINE_BYTES, &config->result_bytes, NULL},
        {RAMP, 1, 1000000, &config->ramp, NULL},
        {SEED, 0, UINT64_MAX, NULL, &config->seed},
        {IO_THREADS, 1, 64, (uint32_t *)&config->io_threads, NULL},
        {KILL_AFTER, 0, 86400, NULL, &run->kill_after_s},
        {KILLS, 0, 100000, NULL, &run->kills},
    };

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (numbers[i].option != option)
            continue;
        if (!args_number(value, numbers[i].least, numbers[i].most, &n)) {
            fprintf(stderr, "westlight-load: --%s %s: give a number from %llu to %llu\n",
                    name_of(option), value, (unsigned long long)numbers[i].least,
                    (unsigned long long)numbers[i].most);
            return ARGS_USAGE;
        }
        if (numbers[i].small)
            *numbers[i].small = (uint32_t)n;
        else
            *numbers[i].large = n;
        if (option == KILL_AFTER && run->kills == 0)
            run->kills = 1;
    }
    return 0;
}

static int take_expect(struct run *run, const char *value)
{
    char key[64];
    bool least;
    double n;

    if (!expect_split(value, key, &least, &n))
        return wrong("expect", value, "KEY>=N or KEY<=N, as lost<=0");
    if (run->n_expects == EXPECTS_MAX)
        return wrong("expect", value, "fewer of them");
    run->expects[run->n_expects++] = value;
    return 0;
}

static int take_option(void *user, int option, const char *value)
{
    struct run *run = user;
    uint64_t n = 0;
    char *end;

    switch (option) {
    case CHURN:
        run->config.churn = strtod(value, &end);
        if (end == value || (*end && strcmp(end, "%") != 0) || !(run->config.churn >= 0))
            return wrong("churn", value, "a percentage, as 10");
        return 0;
    case PATIENCE:
        if (!args_number(value, 1, 86400, &n))
            return wrong("patience", value, "seconds");
        run->config.patience_ns = (int64_t)n * NS_PER_S;
        return 0;
    case CHECK_RESULTS:
        run->check_set = true;
        run->check_all = strcmp(value, "results") == 0;
        return run->check_all || strcmp(value, "counts") == 0
                   ? 0
                   : wrong("check", value, "results or counts");
    case QUEUE_FIRST:
        run->queue_first = true;
        return 0;
    case SPAWN:
        run->spawn = true;
        return 0;
    case BROKER:
        run->broker_endpoint = value;
        return 0;
    case SERVER_KEY:
        run->server_key = value;
        return 0;
    case KEYS:
        run->keys_file = value;
        return 0;
    case PUBLIC:
        run->public_role = value;
        return strcmp(value, "worker") == 0 || strcmp(value, "studio") == 0
                   ? 0
                   : wrong("public", value, "worker or studio");
    case JSON:
        run->json = true;
        return 0;
    case PROGRESS:
        run->progress = true;
        return 0;
    case EXPECT:
        return take_expect(run, value);
    default:
        return take_number(run, option, value);
    }
}

static int usage(const char *why)
{
    fprintf(stderr, "westlight-load: %s; westlight-load --help says more\n", why);
    return ARGS_USAGE;
}

static int command_run(int argc, char **argv);

static const struct args_command COMMANDS[] = {
    {"", command_run, "", "drive a broker with simulated workers and a simulated studio", options,
     "One studio submits, the workers run, and all is read back: each frame has exactly one "
     "result, "
     "or the exit code is 1. Broker and links are real, with real keys; frames are spans of time.\n"
     "\n"
     "The dispatch latency (p50_ms, p99_ms, p999_ms) is from the end of a frame to the moment when "
     "its slot has the next lease in hand. rss_bytes_per_worker is what the broker grew by until "
     "all workers had joined, for each of them. rate_per_s and frames_per_s are the same.",
     "  westlight-load --spawn --workers 200 --frames 20000 --churn 10 --expect 'lost<=0'\n"
     "  westlight-load --spawn --workers 10000 --frames 500000 --kill-broker-after 5 --json\n"
     "  westlight-load --keys load.secret --workers 50 --public worker |\n"
     "      westlight-broker allow --state /srv/westlight --role worker --from -\n"
     "  westlight-load --keys load.secret --workers 50 --public studio |\n"
     "      westlight-broker allow --state /srv/westlight --role studio --studio load --from -\n"
     "  westlight-load --keys load.secret --workers 50 --broker tcp://127.0.0.1:7420 \\\n"
     "      --server-key 'KEY'\n"},
};

static const struct args_program PROGRAM = {
    .name = "westlight-load",
    .section = "8",
    .summary = "drive a broker with simulated workers",
    .text = "",
    .commands = COMMANDS,
    .n_commands = ARRAY_SIZE(COMMANDS),
    .see_also = "westlight-broker(8)",
    .first = true,
};

static int command_run(int argc, char **argv)
{
    struct run run = {.config = {.workers = 16,
                                 .slots = 1,
                                 .prefetch = 4,
                                 .jobs = 1,
                                 .frames = 10000,
                                 .result_bytes = 200,
                                 .recipe_bytes = 300,
                                 .ramp = 1000,
                                 .seed = 1,
                                 .io_threads = 1,
                                 .patience_ns = 90 * NS_PER_S}};
    char why[ARGS_WHY_BYTES];
    int word, r = args_parse(&PROGRAM, &COMMANDS[0], argc, argv, take_option, &run, why, &word);

    if (*why)
        return usage(why);
    if (r != 0)
        return r;
    if (word != argc)
        return usage("it takes options only");
    if (run.public_role)
        return run.keys_file ? public_keys(&run) : usage("--public needs --keys FILE");
    if (!run.spawn && !(run.broker_endpoint && run.server_key && run.keys_file))
        return usage("give --spawn, or --broker, --server-key and --keys");
    if (run.kills && !run.spawn)
        return usage("--kill-broker-after needs --spawn: it kills no other broker");
    if (run.config.frames % run.config.jobs)
        return usage("--frames is of all jobs together: give a multiple of --jobs");
    run.config.frames /= run.config.jobs;
    return run_all(&run);
}

int main(int argc, char **argv)
{
    return args_main(&PROGRAM, argc, argv);
}
