/* bulk.c - sealed blocks through a real broker, against what this machine can do at all.
 *
 * Put: bytes in memory are sealed, sent over CURVE, checked by the broker, written, synced and
 * acknowledged. Get: read, checked, sent, checked and opened. The ceiling, in the same run and in
 * turns with it, is a bare libzmq CURVE stream of messages of a block each between two processes
 * whose ends perform the same digests and AEAD and nothing else: no vault, no window, no answers.
 * `curve` is the same stream without them.
 *
 * With --delay it is measured instead what a distance costs: through a relay that holds all that
 * passes for so long, each way, against the same relay that does not.
 */
#include <tests/bench/bench.h>

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <client/blocks.h>
#include <client/local.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <proto/limits.h>

enum {
    RING = 64,  /* bodies; each is marked anew when it is used, so that no two are equal */
    QUEUE = 32, /* messages at either end, as many as a window holds */
    ROUNDS_MAX = 101,
};

enum ends { ENDS_BARE, ENDS_PUT, ENDS_GET };

struct bulk_bench {
    char folder[128];
    uint8_t secret[32];
    long mib, rounds, delay_ms;
    size_t n; /* blocks a round */
    uint8_t *ring;
    uint64_t mark;
    struct sealer *sealer;
    struct block_key *keys;
    struct bytes opened;
    struct bytes sealed[RING]; /* what the ceiling of a get sends: as many, so that no cache holds them */
    struct block_key sealed_keys[RING];
};

/* ---- blocks ---- */

static int ring_fill(struct bulk_bench *bench)
{
    bench->ring = malloc((size_t)RING * LIMIT_BLOCK_BYTES);
    return bench->ring ? random_bytes(bench->ring, (size_t)RING * LIMIT_BLOCK_BYTES) : -ENOMEM;
}

static const uint8_t *body_next(struct bulk_bench *bench)
{
    uint8_t *body = bench->ring + bench->mark % RING * LIMIT_BLOCK_BYTES;

    bench->mark++;
    memcpy(body, &bench->mark, sizeof(bench->mark));
    return body;
}

static int ring_seal(struct bulk_bench *bench)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < RING; i++)
        r = seal_block(bench->sealer, bench->secret, body_next(bench), LIMIT_BLOCK_BYTES,
                       &bench->sealed[i], &bench->sealed_keys[i]);
    return r;
}

static int source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct bulk_bench *bench = user;
    int r = seal_block(bench->sealer, bench->secret, body_next(bench), LIMIT_BLOCK_BYTES, out,
                       &bench->keys[i]);

    *ret_id = bench->keys[i].id;
    return r;
}

static int sink(void *user, size_t i, const void *sealed, size_t size)
{
    struct bulk_bench *bench = user;

    return open_checked(bench->sealer, &bench->keys[i], sealed, size, &bench->opened);
}

/* ---- the ceiling ---- */

static void *stream_socket(void *context, int type, const struct link_keypair *keys,
                           const struct link_keypair *server, bool is_server)
{
    void *socket = zmq_socket(context, type);
    int queue = QUEUE, linger = -1, one = 1;

    if (!socket)
        return NULL;
    zmq_setsockopt(socket, ZMQ_SNDHWM, &queue, sizeof(queue));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &queue, sizeof(queue));
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key.bytes, LINK_KEY_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key.bytes, LINK_KEY_BYTES);
    if (is_server)
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof(one));
    else
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server->public_key.bytes, LINK_KEY_BYTES);
    return socket;
}

static void free_body(void *data, void *user)
{
    (void)user;
    free(data);
}

/* The digests and the AEAD of a put, and nothing else of it. */
static uint8_t *seal_bare(EVP_CIPHER_CTX *cipher, const uint8_t *body)
{
    static const uint8_t key[32], nonce[12];
    uint8_t *sealed = malloc(LIMIT_SEALED_BYTES);
    struct block_id id;
    int n = 0;

    digest(body, LIMIT_BLOCK_BYTES, &id);
    if (!sealed || EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(cipher, sealed, &n, body, LIMIT_BLOCK_BYTES) != 1 ||
        EVP_EncryptFinal_ex(cipher, sealed + n, &n) != 1) {
        free(sealed);
        return NULL;
    }
    digest(sealed, LIMIT_BLOCK_BYTES, &id);
    return sealed;
}

/* No byte is copied on the way to libzmq. */
static int stream_send(struct bulk_bench *bench, void *socket, enum ends ends)
{
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    struct block_id id;
    int r = cipher ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < bench->n; i++) {
        const struct bytes *ready = &bench->sealed[i % RING];
        bool put = ends == ENDS_PUT;
        uint8_t *sealed = put ? seal_bare(cipher, body_next(bench)) : ready->data;
        zmq_msg_t message;

        if (ends == ENDS_GET) /* as the vault does with what it read */
            digest(ready->data, ready->size, &id);
        if (!sealed ||
            zmq_msg_init_data(&message, sealed, put ? LIMIT_BLOCK_BYTES : ready->size,
                              put ? free_body : NULL, NULL) < 0 ||
            zmq_msg_send(&message, socket, 0) < 0)
            r = -1;
    }
    EVP_CIPHER_CTX_free(cipher);
    return r;
}

static int stream_receive(struct bulk_bench *bench, void *socket, enum ends ends)
{
    struct block_id id;

    for (size_t i = 0; i < bench->n; i++) {
        zmq_msg_t message;

        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, 0) < 0)
            return -1;
        if (ends == ENDS_PUT)
            digest(zmq_msg_data(&message), zmq_msg_size(&message), &id);
        if (ends == ENDS_GET &&
            open_block(bench->sealer, &bench->sealed_keys[i % RING], zmq_msg_data(&message),
                       zmq_msg_size(&message), &bench->opened))
            return -1;
        zmq_msg_close(&message);
    }
    return 0;
}

static int receiver(struct bulk_bench *bench, enum ends ends, const struct link_keypair *keys,
                    int port_fd, int done_fd)
{
    char endpoint[128] = "";
    size_t size = sizeof(endpoint);
    void *context = NULL;

    if (link_context_new(1, &context) < 0)
        return 1;
    void *socket = stream_socket(context, ZMQ_PULL, keys, keys, true);
    if (!socket || zmq_bind(socket, "tcp://127.0.0.1:*") < 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) < 0 ||
        write(port_fd, endpoint, sizeof(endpoint)) != sizeof(endpoint))
        return 1;
    return stream_receive(bench, socket, ends) == 0 && write(done_fd, "x", 1) == 1 ? 0 : 1;
}

/* Seconds from the first message to the last; negative where it failed. */
static double sender(struct bulk_bench *bench, enum ends ends, const struct link_keypair *server,
                     const char *endpoint, int done_fd)
{
    struct link_keypair keys;
    void *context = NULL;
    double seconds = -1;
    char done;

    if (identity_key_new(&keys) || link_context_new(1, &context) < 0)
        return -1;
    void *socket = stream_socket(context, ZMQ_PUSH, &keys, server, false);
    int64_t began_ns = clock_monotonic_ns();
    if (socket && zmq_connect(socket, endpoint) == 0 && stream_send(bench, socket, ends) == 0 &&
        read(done_fd, &done, 1) == 1)
        seconds = (double)(clock_monotonic_ns() - began_ns) / NS_PER_S;
    link_close(socket);
    link_context_free(context);
    return seconds;
}

static double stream(struct bulk_bench *bench, enum ends ends)
{
    struct link_keypair keys;
    char endpoint[128];
    int port[2], done[2], status = 1;
    double seconds = -1;

    if (identity_key_new(&keys) || pipe(port) < 0 || pipe(done) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(port[0]);
        close(done[0]);
        _exit(receiver(bench, ends, &keys, port[1], done[1]));
    }
    close(port[1]);
    close(done[1]);
    if (pid > 0 && read(port[0], endpoint, sizeof(endpoint)) == sizeof(endpoint))
        seconds = sender(bench, ends, &keys, endpoint, done[0]);
    close(port[0]);
    close(done[0]);
    if (pid > 0 && seconds < 0)
        kill(pid, SIGKILL);
    if (pid > 0)
        waitpid(pid, &status, 0);
    return status == 0 ? seconds : -1;
}

/* ---- the farm ---- */

struct figures {
    double put[ROUNDS_MAX], get[ROUNDS_MAX]; /* seconds, as all of these */
    double ceiling_put[ROUNDS_MAX], ceiling_get[ROUNDS_MAX], curve[ROUNDS_MAX];
};

static double put(struct bulk_bench *bench, struct blocks *blocks)
{
    int64_t began_ns = clock_monotonic_ns();

    if (blocks_put(blocks, bench->n, false, source, bench))
        return -1;
    return (double)(clock_monotonic_ns() - began_ns) / NS_PER_S;
}

static double get(struct bulk_bench *bench, struct blocks *blocks)
{
    struct transfer_want *wants = calloc(bench->n, sizeof(*wants));

    if (!wants)
        return -1;
    for (size_t i = 0; i < bench->n; i++)
        wants[i] = (struct transfer_want){bench->keys[i].id, bench->keys[i].sealed_bytes};
    int64_t began_ns = clock_monotonic_ns();
    int r = blocks_get(blocks, wants, bench->n, sink, bench);
    double seconds = (double)(clock_monotonic_ns() - began_ns) / NS_PER_S;
    free(wants);
    return r ? -1 : seconds;
}

static int measure(struct bulk_bench *bench, struct westlight *westlight, struct figures *figures)
{
    struct blocks blocks = {.westlight = westlight};
    bool good = true;

    blocks.write_bytes = (uint64_t)bench->rounds * bench->n * LIMIT_SEALED_BYTES + (64 << 20);
    for (long i = 0; i < bench->rounds && good; i++) {
        figures->curve[i] = stream(bench, ENDS_BARE);
        figures->ceiling_put[i] = stream(bench, ENDS_PUT);
        figures->put[i] = put(bench, &blocks);
        figures->ceiling_get[i] = stream(bench, ENDS_GET);
        figures->get[i] = figures->put[i] < 0 ? -1 : get(bench, &blocks);
        good = figures->curve[i] > 0 && figures->ceiling_put[i] > 0 && figures->put[i] > 0 &&
               figures->ceiling_get[i] > 0 && figures->get[i] > 0;
    }
    blocks_deinit(&blocks);
    if (!good)
        fprintf(stderr, "westlight-bench bulk: %s\n",
                westlight->why[0] ? westlight->why : "a stream broke");
    return good ? 0 : 1;
}

/* ---- at a distance ---- */

struct relay {
    pid_t pid;
    int out;
    struct westlight_farm farm; /* by way of it */
    struct westlight *westlight;
};

static int relay_start(struct relay *relay, const struct westlight_farm *farm, long delay_ms)
{
    char delay[16], ready[64] = "";
    unsigned control, bulk;
    int out[2];

    snprintf(delay, sizeof(delay), "%ld", delay_ms);
    if (pipe(out) < 0)
        return -errno;
    relay->pid = fork();
    if (relay->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(RELAY, "relay", "--delay", delay, farm->control + strlen("tcp://"),
              farm->bulk + strlen("tcp://"), NULL);
        _exit(127);
    }
    close(out[1]);
    relay->out = out[0];
    if (relay->pid < 0 || read(out[0], ready, sizeof(ready) - 1) <= 0 ||
        sscanf(ready, "ready %u %u", &control, &bulk) != 2)
        return -EPROTO;
    relay->farm = *farm;
    snprintf(relay->farm.control, sizeof(relay->farm.control), "tcp://127.0.0.1:%u", control);
    snprintf(relay->farm.bulk, sizeof(relay->farm.bulk), "tcp://127.0.0.1:%u", bulk);
    return 0;
}

static void relay_stop(struct relay *relay)
{
    westlight_close(relay->westlight);
    if (relay->pid > 0) {
        kill(relay->pid, SIGKILL);
        waitpid(relay->pid, NULL, 0);
        close(relay->out);
    }
}

static int compare(struct bulk_bench *bench, struct relay relays[2], double seconds[2][2][ROUNDS_MAX])
{
    struct blocks blocks[2];
    bool good = true;

    for (int i = 0; i < 2; i++)
        blocks[i] = (struct blocks){.westlight = relays[i].westlight,
                                    .write_bytes = ((uint64_t)bench->rounds * bench->n + 64) *
                                                   LIMIT_SEALED_BYTES};
    for (long round = 0; round < bench->rounds && good; round++)
        for (int i = 0; i < 2 && good; i++) {
            seconds[i][0][round] = put(bench, &blocks[i]);
            seconds[i][1][round] = seconds[i][0][round] < 0 ? -1 : get(bench, &blocks[i]);
            good = seconds[i][1][round] > 0;
            if (!good)
                fprintf(stderr, "westlight-bench bulk: %s\n", relays[i].westlight->why);
        }
    for (int i = 0; i < 2; i++)
        blocks_deinit(&blocks[i]);
    return good ? 0 : 1;
}

static double rate(const struct bulk_bench *bench, double *seconds);

static int distance(struct bulk_bench *bench, const struct westlight_farm *farm)
{
    static const char *const names[] = {"put", "get"};
    static double seconds[2][2][ROUNDS_MAX];
    struct relay relays[2] = {0};
    char why[512] = "";
    int r = 0;

    for (int i = 0; i < 2 && r == 0; i++) {
        r = relay_start(&relays[i], farm, i ? bench->delay_ms : 0);
        if (r == 0)
            r = westlight_open(&relays[i].farm, 10000, &relays[i].westlight, why, sizeof(why));
        if (r)
            fprintf(stderr, "westlight-bench bulk: %s\n", r < 0 ? strerror(-r) : why);
    }
    if (r == 0)
        r = compare(bench, relays, seconds);
    if (r == 0)
        printf("{\"bench\": \"bulk\", \"bytes\": %zu, \"rounds\": %ld, \"delay_ms\": %ld",
               bench->n * LIMIT_BLOCK_BYTES, bench->rounds, bench->delay_ms);
    for (int way = 0; way < 2 && r == 0; way++) {
        double near = rate(bench, seconds[0][way]), far = rate(bench, seconds[1][way]);

        printf(", \"%s\": {\"near_bytes_per_s\": %.0f, \"far_bytes_per_s\": %.0f, "
               "\"far_ratio\": %.3f}",
               names[way], near, far, far / near);
    }
    if (r == 0)
        printf("}\n");
    for (int i = 0; i < 2; i++)
        relay_stop(&relays[i]);
    return r;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double rate(const struct bulk_bench *bench, double *seconds)
{
    qsort(seconds, (size_t)bench->rounds, sizeof(*seconds), by_value);
    return (double)bench->n * LIMIT_BLOCK_BYTES / seconds[bench->rounds / 2];
}

static void report_one(const char *name, double figure, double ceiling, double curve)
{
    printf(", \"%s\": {\"bytes_per_s\": %.0f, \"ceiling_bytes_per_s\": %.0f, \"ratio\": %.3f, "
           "\"curve_bytes_per_s\": %.0f, \"curve_ratio\": %.3f}",
           name, figure, ceiling, figure / ceiling, curve, figure / curve);
}

static void report(const struct bulk_bench *bench, struct figures *figures)
{
    double curve = rate(bench, figures->curve);

    printf("{\"bench\": \"bulk\", \"bytes\": %zu, \"rounds\": %ld", bench->n * LIMIT_BLOCK_BYTES,
           bench->rounds);
    report_one("put", rate(bench, figures->put), rate(bench, figures->ceiling_put), curve);
    report_one("get", rate(bench, figures->get), rate(bench, figures->ceiling_get), curve);
    printf("}\n");
}

static int farm_run(struct bulk_bench *bench)
{
    struct local *local = NULL;
    struct westlight *westlight = NULL;
    struct figures *figures = calloc(1, sizeof(*figures));
    char why[512] = "";
    int r = figures ? local_start(1, "bulk", &local) : -ENOMEM;

    if (r == 0 && (r = westlight_open(local_farm(local), 10000, &westlight, why, sizeof(why))) != 0)
        fprintf(stderr, "westlight-bench bulk: %s\n", why);
    if (r == 0 && bench->delay_ms) {
        r = distance(bench, local_farm(local));
    } else if (r == 0) {
        r = measure(bench, westlight, figures);
        if (r == 0)
            report(bench, figures);
    }
    westlight_close(westlight);
    local_stop(local);
    free(figures);
    return r ? 1 : 0;
}

static int options_read(struct bulk_bench *bench, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"mib", required_argument, NULL, 'm'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"delay", required_argument, NULL, 'd'},
                                            {NULL, 0, NULL, 0}};
    int option;

    bench->mib = 2048;
    bench->rounds = 3;
    optind = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == '?' ||
            (option == 'm' && !options_number(optarg, RING, 1 << 20, &bench->mib)) ||
            (option == 'n' && !options_number(optarg, 1, ROUNDS_MAX, &bench->rounds)) ||
            (option == 'd' && !options_number(optarg, 1, 1000, &bench->delay_ms)))
            return 2;
    bench->n = (size_t)bench->mib; /* a block is a MiB */
    return 0;
}

int bench_bulk(int argc, char **argv)
{
    struct bulk_bench bench = {.folder = "/tmp/westlight-bench-XXXXXX"};
    int r = options_read(&bench, argc, argv);

    if (r || !mkdtemp(bench.folder)) {
        fprintf(stderr, "usage: westlight-bench bulk [--json] [--mib N] [--rounds N] [--delay MS]\n");
        return 2;
    }
    setenv("WESTLIGHT_LOCAL", bench.folder, 1);
    setenv("XDG_STATE_HOME", bench.folder, 1);
    bench.keys = calloc(bench.n, sizeof(*bench.keys));
    if (bench.keys && ring_fill(&bench) == 0 && random_bytes(bench.secret, 32) == 0 &&
        sealer_new(&bench.sealer) == 0 && ring_seal(&bench) == 0)
        r = farm_run(&bench);
    else
        r = 1;
    folder_remove(bench.folder);
    bytes_deinit(&bench.opened);
    sealer_free(bench.sealer);
    free(bench.keys);
    free(bench.ring);
    for (size_t i = 0; i < RING; i++)
        bytes_deinit(&bench.sealed[i]);
    return r;
}
