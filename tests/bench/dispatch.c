/* dispatch.c - frames a second through a real broker, beside what libzmq does at all.
 *
 * Simulated workers (tests/load) run tasks that take no time; each frame is leased, its result made
 * durable and acknowledged. The ceiling, in the same run, is a bare libzmq CURVE echo between as
 * many DEALERs in this process and a ROUTER in another: a message of the mean size of a Result
 * there, one of the mean size of a Committed with an Assign back, each connection with as many
 * under way as a worker has leases. What the broker can do better than an echo is to say several
 * things in one message.
 */
#include <tests/bench/bench.h>

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <proto/base/args.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <proto/limits.h>
#include <tests/load/engine.h>
#include <tests/load/private.h>

enum { ECHO_ROUNDS = 3, ECHO_NS = 1500000000, ECHO_WORKERS_MAX = 1024, ECHO_BYTES_MAX = 4096 };

struct dispatch {
    uint64_t workers, slots, prefetch, jobs, frames, result_bytes, io_threads;
    uint8_t master[32];
};

/* ---- the ceiling ---- */

struct echo {
    size_t there, back; /* bytes of a message */
    uint64_t peers, window;
    pid_t server;
    double cpu_us; /* of both ends, for a message there and back */
};

static int64_t cpu_ns(clockid_t clock)
{
    struct timespec spent = {0};

    (void)clock_gettime(clock, &spent);
    return (int64_t)spent.tv_sec * NS_PER_S + spent.tv_nsec;
}

static int64_t echo_cpu_ns(const struct echo *echo)
{
    clockid_t server;

    if (clock_getcpuclockid(echo->server, &server) != 0)
        return 0;
    return cpu_ns(server) + cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void *echo_socket(void *context, int type, const struct link_keypair *keys,
                         const struct link_key *server)
{
    void *socket = zmq_socket(context, type);
    int one = 1, none = 0, linger = 0;

    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key.bytes, LINK_KEY_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key.bytes, LINK_KEY_BYTES);
    if (server)
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server->bytes, LINK_KEY_BYTES);
    else
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof(one));
    return socket;
}

/* Answers each message, and nothing else, until it is killed. */
static _noreturn_ void echo_serve(const struct echo *echo, const struct link_keypair *keys, int out)
{
    void *context = NULL, *socket;
    char endpoint[128];
    size_t size = sizeof(endpoint);
    uint8_t body[ECHO_BYTES_MAX] = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (link_context_new(1, &context) != 0)
        _exit(1);
    socket = echo_socket(context, ZMQ_ROUTER, keys, NULL);
    if (zmq_bind(socket, "tcp://127.0.0.1:*") < 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) < 0 ||
        write(out, endpoint, sizeof(endpoint)) != sizeof(endpoint))
        _exit(1);
    for (;;) {
        zmq_msg_t route, message;

        zmq_msg_init(&route);
        zmq_msg_init(&message);
        if (zmq_msg_recv(&route, socket, 0) < 0 || zmq_msg_recv(&message, socket, 0) < 0)
            _exit(1);
        zmq_msg_close(&message);
        zmq_msg_init_size(&message, echo->back);
        memcpy(zmq_msg_data(&message), body, echo->back);
        if (zmq_msg_send(&route, socket, ZMQ_SNDMORE) < 0 || zmq_msg_send(&message, socket, 0) < 0)
            _exit(1);
    }
}

static int echo_send(const struct echo *echo, void *socket)
{
    static const uint8_t body[ECHO_BYTES_MAX];

    return zmq_send(socket, body, echo->there, 0) < 0 ? -errno : 0;
}

static double echo_drive(struct echo *echo, void *const *sockets, int64_t for_ns)
{
    zmq_pollitem_t items[ECHO_WORKERS_MAX];
    uint64_t answers = 0;
    int64_t began_ns = clock_monotonic_ns(), now_ns = began_ns, spent_ns = echo_cpu_ns(echo);

    for (uint64_t i = 0; i < echo->peers; i++)
        items[i] = (zmq_pollitem_t){.socket = sockets[i], .events = ZMQ_POLLIN};
    while (now_ns - began_ns < for_ns) {
        if (zmq_poll(items, (int)echo->peers, 10000) <= 0)
            return -1;
        for (uint64_t i = 0; i < echo->peers; i++) {
            uint8_t body[ECHO_BYTES_MAX];

            while ((items[i].revents & ZMQ_POLLIN) &&
                   zmq_recv(sockets[i], body, sizeof(body), ZMQ_DONTWAIT) >= 0) {
                answers++;
                if (echo_send(echo, sockets[i]) < 0)
                    return -1;
            }
        }
        now_ns = clock_monotonic_ns();
    }
    spent_ns = echo_cpu_ns(echo) - spent_ns;
    if (answers == 0)
        return -1;
    echo->cpu_us = (double)spent_ns / NS_PER_US / (double)answers;
    return (double)answers * NS_PER_S / (double)(now_ns - began_ns);
}

static double echo_clients(struct echo *echo, const struct link_key *server, const char *endpoint,
                           int io_threads)
{
    void *context = NULL, *sockets[ECHO_WORKERS_MAX];
    double rate = -1;
    uint64_t n = 0;
    int r = link_context_new(io_threads, &context);

    for (; r == 0 && n < echo->peers; n++) {
        struct link_keypair keys;

        r = identity_key_new(&keys);
        sockets[n] = echo_socket(context, ZMQ_DEALER, &keys, server);
        if (r == 0 && zmq_connect(sockets[n], endpoint) < 0)
            r = -errno;
        for (uint64_t i = 0; r == 0 && i < echo->window; i++)
            r = echo_send(echo, sockets[n]);
    }
    if (r == 0 && echo_drive(echo, sockets, ECHO_NS / 5) > 0) /* warm */
        rate = echo_drive(echo, sockets, ECHO_NS);
    while (n > 0)
        link_close(sockets[--n]);
    link_context_free(context);
    return rate;
}

static double echo_round(struct echo *echo, int io_threads)
{
    struct link_keypair keys;
    char endpoint[128];
    double rate = -1;
    int ready[2];
    pid_t pid;

    if (identity_key_new(&keys) != 0 || pipe(ready) < 0)
        return -1;
    pid = fork();
    if (pid == 0)
        echo_serve(echo, &keys, ready[1]);
    close(ready[1]);
    echo->server = pid;
    if (pid > 0 && read(ready[0], endpoint, sizeof(endpoint)) == sizeof(endpoint))
        rate = echo_clients(echo, &keys.public_key, endpoint, io_threads);
    close(ready[0]);
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return rate;
}

/* The best of some rounds: what else runs here only ever takes from it. */
static double ceiling(const struct dispatch *dispatch, const struct load_counts *counts,
                      double *ret_cpu_us)
{
    uint64_t frames = counts->committed ? counts->committed : 1;
    struct echo echo = {.there = counts->result_bytes / frames,
                        .back = (counts->committed_bytes + counts->assign_bytes) / frames,
                        .peers = dispatch->workers < ECHO_WORKERS_MAX ? dispatch->workers
                                                                      : ECHO_WORKERS_MAX,
                        .window = dispatch->slots * (1 + dispatch->prefetch)};
    double best = -1;

    if (echo.there > ECHO_BYTES_MAX || echo.back > ECHO_BYTES_MAX)
        return -1;
    for (int i = 0; i < ECHO_ROUNDS; i++) {
        double rate = echo_round(&echo, (int)dispatch->io_threads);

        if (rate > best)
            best = rate;
        if (rate > 0 && (i == 0 || echo.cpu_us < *ret_cpu_us))
            *ret_cpu_us = echo.cpu_us;
    }
    return best;
}

/* ---- the farm ---- */

struct figures {
    double seconds, cpu_us, own_cpu_us;
    int64_t rss_bytes;
    uint64_t lost, duplicated, batches;
};

static int turn(void *user, int64_t now_ns _unused_)
{
    return private_interrupted() || !private_alive(user);
}

static int measure(const struct private_broker *broker, struct load *load, uint64_t frames,
                   struct figures *figures)
{
    int r = load_join(load);
    int64_t broker_ns = private_cpu_ns(broker), own_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);

    if (r == 0)
        r = load_drain(load);
    if (r != 0)
        return r;
    figures->cpu_us = (double)(private_cpu_ns(broker) - broker_ns) / NS_PER_US / (double)frames;
    figures->own_cpu_us =
        (double)(cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns) / NS_PER_US / (double)frames;
    figures->seconds = (double)(load_last_commit_ns(load) - load_first_submit_ns(load)) / NS_PER_S;
    figures->rss_bytes = private_rss_bytes(broker);
    return load_check(load, false, &figures->lost, &figures->duplicated);
}

static void report(const struct dispatch *dispatch, struct load *load,
                   const struct figures *figures)
{
    const struct load_counts *counts = load_counts(load);
    double frames = (double)(dispatch->frames * dispatch->jobs), rate = frames / figures->seconds;
    double echo_cpu_us = 0, ceiling_per_s = ceiling(dispatch, counts, &echo_cpu_us);

    printf("{\"bench\": \"dispatch\", \"workers\": %llu, \"slots\": %llu, \"prefetch\": %llu, "
           "\"jobs\": %llu, \"frames\": %.0f, \"rate_per_s\": %.0f, \"ceiling_per_s\": %.0f, "
           "\"ratio\": %.3f, \"cpu_us_per_frame\": %.3f, \"load_cpu_us_per_frame\": %.3f, "
           "\"ceiling_cpu_us_per_frame\": %.3f, \"cpu_ratio\": %.3f, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"rss_bytes\": %lld, ",
           (unsigned long long)dispatch->workers, (unsigned long long)dispatch->slots,
           (unsigned long long)dispatch->prefetch, (unsigned long long)dispatch->jobs, frames, rate,
           ceiling_per_s, rate / ceiling_per_s, figures->cpu_us, figures->own_cpu_us, echo_cpu_us,
           echo_cpu_us / (figures->cpu_us + figures->own_cpu_us), load_latency_ms(load, 50),
           load_latency_ms(load, 99), (long long)figures->rss_bytes);
    printf("\"messages_per_frame\": %.3f, \"syncs_per_frame\": %.5f, \"bytes_in_per_frame\": %.1f, "
           "\"bytes_out_per_frame\": %.1f, \"result_bytes\": %.1f, \"assign_bytes\": %.1f, "
           "\"committed_bytes\": %.1f, \"lost\": %llu, \"duplicated\": %llu}\n",
           (double)(counts->messages_in + counts->messages_out) / frames,
           (double)figures->batches / frames, (double)counts->bytes_out / frames,
           (double)counts->bytes_in / frames, (double)counts->result_bytes / frames,
           (double)counts->assign_bytes / frames, (double)counts->committed_bytes / frames,
           (unsigned long long)figures->lost, (unsigned long long)figures->duplicated);
}

static int farm_run(struct dispatch *dispatch)
{
    struct private_broker broker = {0};
    struct load *load = NULL;
    struct figures figures = {0};
    struct load_config config = {.workers = (uint32_t)dispatch->workers,
                                 .slots = (uint32_t)dispatch->slots,
                                 .prefetch = (uint32_t)dispatch->prefetch,
                                 .jobs = dispatch->jobs,
                                 .frames = dispatch->frames,
                                 .result_bytes = (uint32_t)dispatch->result_bytes,
                                 .recipe_bytes = 300,
                                 .ramp = 1000,
                                 .seed = 1,
                                 .io_threads = (int)dispatch->io_threads,
                                 .patience_ns = 60 * NS_PER_S,
                                 .turn = turn,
                                 .user = &broker};
    int r = random_bytes(dispatch->master, sizeof(dispatch->master));

    memcpy(config.master, dispatch->master, sizeof(config.master));
    if (r == 0)
        r = private_start(&broker, dispatch->master, config.workers);
    config.endpoint = broker.endpoint;
    config.server = broker.server;
    if (r == 0)
        r = load_new(&config, &load);
    if (r == 0)
        r = measure(&broker, load, dispatch->jobs * dispatch->frames, &figures);
    if (r == 0)
        r = private_end(&broker, &figures.batches);
    private_stop(&broker);
    if (r == 0)
        report(dispatch, load, &figures);
    else
        fprintf(stderr, "westlight-bench dispatch: %s\n",
                r < 0               ? strerror(-r)
                : r == LOAD_E_STUCK ? "nothing moves any more"
                                    : "it ended early");
    load_free(load);
    if (r == 0 && (figures.lost || figures.duplicated)) {
        fprintf(stderr, "westlight-bench dispatch: frames are lost or twice there\n");
        r = 1;
    }
    return r ? 1 : 0;
}

/* ---- options ---- */

enum { JSON = 256, WORKERS, SLOTS, PREFETCH, JOBS, FRAMES, RESULT_BYTES, IO_THREADS };

static int take_option(void *user, int option, const char *value)
{
    struct dispatch *dispatch = user;
    const struct {
        int option;
        uint64_t *number, least, most;
    } numbers[] = {
        {WORKERS, &dispatch->workers, 1, ECHO_WORKERS_MAX},
        {SLOTS, &dispatch->slots, 1, LIMIT_SLOTS},
        {PREFETCH, &dispatch->prefetch, 0, LIMIT_PREFETCH},
        {JOBS, &dispatch->jobs, 1, LIMIT_JOBS / 2},
        {FRAMES, &dispatch->frames, 1, LIMIT_TASKS_PER_STEP},
        {RESULT_BYTES, &dispatch->result_bytes, 1, LIMIT_INLINE_BYTES},
        {IO_THREADS, &dispatch->io_threads, 1, 16},
    };

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (numbers[i].option == option &&
            !args_number(value, numbers[i].least, numbers[i].most, numbers[i].number)) {
            fprintf(stderr, "westlight-bench dispatch: %s: give a number from %llu to %llu\n",
                    value, (unsigned long long)numbers[i].least,
                    (unsigned long long)numbers[i].most);
            return ARGS_USAGE;
        }
    return 0;
}

int bench_dispatch(int argc, char **argv)
{
    static const struct args_option options[] = {
        {JSON, "json", NULL, "one JSON object (always)"},
        {WORKERS, "workers", "N", "(16)"},
        {SLOTS, "slots", "N", "of each worker (16)"},
        {PREFETCH, "prefetch", "N", "leases queued behind each slot (16)"},
        {JOBS, "jobs", "N", "(1)"},
        {FRAMES, "frames", "N", "of all jobs together (1000000)"},
        {RESULT_BYTES, "result-bytes", "N", "of a result's sealed manifest (200)"},
        {IO_THREADS, "io-threads", "N", "of libzmq, in this process (1)"},
        {0},
    };
    static const struct args_program program = {.name = "westlight-bench"};
    const struct args_command command = {.name = "dispatch", .options = options};
    struct dispatch dispatch = {.workers = 16,
                                .slots = 16,
                                .prefetch = 16,
                                .jobs = 1,
                                .frames = 1000000,
                                .result_bytes = 200,
                                .io_threads = 1};
    char why[ARGS_WHY_BYTES];
    int word, r = args_parse(&program, &command, argc, argv, take_option, &dispatch, why, &word);

    if (r != 0 || word != argc) {
        fprintf(stderr, "westlight-bench dispatch: %s\n", *why ? why : "it takes options only");
        for (const struct args_option *row = options; row->name; row++)
            fprintf(stderr, "  --%s %s  %s\n", row->name, row->argument ? row->argument : "",
                    row->help);
        return ARGS_USAGE;
    }
    dispatch.frames /= dispatch.jobs;
    return farm_run(&dispatch);
}
