/* recover.c - how long a broker with a long history is away: from its start to its first word.
 *
 * A job is submitted to a real broker; as many more as are wanted, and the results of all, are then
 * written to its store as it would have written them, each result naming a refs block. What is
 * timed is `westlight-broker run` on that state, from the fork to the ready line, and what it says
 * of its own recovery.
 */
#include <tests/bench/bench.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <broker/store/store.h>
#include <client/local.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <proto/westlight.pb-c.h>

enum { BATCH = 4096, WORKERS = 200, SIDE = 100 };

extern char **environ;

struct history {
    char folder[128];
    long jobs, tasks; /* tasks of each */
    long side;        /* jobs that run at once */
    struct job_id *ids;
    uint64_t sequence;
    struct bytes submit; /* of the job that was submitted, as the store has it */
    struct studio_id studio;
    struct identity_signer signer; /* the state's master key */
    double write_s;
};

static int job_submit(struct history *history, const struct westlight_farm *farm)
{
    struct westlight *westlight = NULL;
    const struct westlight_range frames = {1, history->tasks, 1};
    char why[512] = "", id[WESTLIGHT_ID_TEXT];
    int r = westlight_open(farm, 10000, &westlight, why, sizeof(why));

    if (r == 0) {
        struct westlight_job *job = westlight_job_new("history");
        struct westlight_step *step = westlight_job_step(job, "render");

        westlight_step_ints(step, "frame", &frames, 1, 1);
        westlight_step_run(step, "/bin/true", NULL, 0, 60);
        westlight_step_output(step, "/nothing");
        r = westlight_submit(westlight, job, NULL, NULL, NULL, id);
        westlight_job_free(job);
    }
    if (r)
        fprintf(stderr, "westlight-bench recover: %s%s\n", why,
                westlight ? westlight_why(westlight) : "");
    westlight_close(westlight);
    return r;
}

/* What a worker says of an image of its own in the vault. */
static size_t result_pack(uint64_t number, uint8_t *ret_bytes)
{
    Wl__Result result = WL__RESULT__INIT;
    Wl__Usage usage = WL__USAGE__INIT;
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT;
    uint8_t id[32] = {0}, refs_id[32] = {1};
    ProtobufCBinaryData refs = {sizeof(refs_id), refs_id};
    Wl__BlockRef *manifests[] = {&manifest};

    memcpy(id + 8, &number, sizeof(number));
    memcpy(refs_id + 8, &number, sizeof(number));
    manifest.id = (ProtobufCBinaryData){sizeof(id), id};
    result.manifest = manifests;
    result.n_manifest = 1;
    result.refs = &refs;
    result.n_refs = 1;
    result.usage = &usage;
    usage.wall_ns = 60000000000;
    result.class_ = CLASS_OK;
    result.output_files = 1;
    result.output_bytes = 2000000;
    return wl__result__pack(&result, ret_bytes);
}

static void record_fill(const struct history *history, uint64_t number, uint8_t *blob,
                        struct record *ret_record)
{
    struct record *record = ret_record;

    /* So many side by side, each from its first task to its last; then the next so many. */
    uint64_t side = (uint64_t)history->side, round = side * (uint64_t)history->tasks;

    *record = (struct record){.kind = RECORD_ATTEMPT};
    record->job = history->ids[number / round * side + number % side];
    record->sequence = history->sequence + 1 + number;
    record->wall_s = 1700000000 + (int64_t)number / 10;
    record->attempt.lease = (struct lease_id){
        .job = record->job, .task.index = number % round / side, .epoch = 1, .attempt = number + 1};
    record->attempt.worker.bytes[0] = (uint8_t)(number % WORKERS);
    record->attempt.worker.bytes[31] = 1;
    record->attempt.class = CLASS_OK;
    record->attempt.usage = (struct usage){60000000000, 59000000000, 2000000000, 50, 2000000, 0};
    record->attempt.blob = blob;
    record->attempt.blob_size = result_pack(number, blob);
}

/* Of the one job that there is. */
static int see_record(void *user, const struct record *record)
{
    struct history *history = user;

    history->sequence = record->sequence;
    if (record->kind != RECORD_JOB)
        return 0;
    history->ids[0] = record->job;
    history->studio = record->submit.spec->studio;
    return bytes_append(&history->submit, record->submit.spec->blob,
                        record->submit.spec->blob_size);
}

static int batches_wait(struct store *store, uint64_t batch, uint64_t *durable)
{
    int r = 0;

    while (r == 0 && *durable < batch) {
        struct pollfd ready = {.fd = store_fd(store), .events = POLLIN};

        r = poll(&ready, 1, -1) < 0 ? -errno : store_completed(store, durable);
    }
    return r;
}

static int signer_read(struct history *history, const char *state)
{
    char path[600];
    uint8_t master[32];

    snprintf(path, sizeof(path), "%s/master.key", state);
    int r = identity_secret_load(path, master);
    if (r == 0)
        identity_signer_init(&history->signer, master);
    return r;
}

/* The same again under another id. */
static int job_write(struct history *history, struct store *store, long number, uint64_t batch)
{
    Wl__Submit *submit = wl__submit__unpack(NULL, history->submit.size, history->submit.data);
    struct job_spec spec = {.studio = history->studio};
    struct record records[2] = {{.kind = RECORD_JOB}, {.kind = RECORD_REQUEST}};
    int r = submit && submit->job.len == sizeof(spec.job) && submit->request_id.len == 16
                ? random_bytes(spec.job.bytes, sizeof(spec.job))
                : -EBADMSG;

    if (r == 0 && submit->job_key.len == WRAPPED_BYTES) {
        uint8_t key[32] = {1};

        r = job_key_wrap(&history->signer, spec.studio.value, spec.job.bytes, key,
                         submit->job_key.data);
    }
    if (r == 0) {
        memcpy(submit->job.data, &spec.job, sizeof(spec.job));
        memcpy(submit->request_id.data, &spec.job, 16);
        memcpy(records[1].request.request.bytes, &spec.job, 16);
        records[1].request.studio = spec.studio;
        records[1].request.tasks = (uint64_t)history->tasks;
        spec.name = submit->name;
        spec.blob_size = wl__submit__get_packed_size(submit);
        spec.blob = malloc(spec.blob_size);
        r = spec.blob ? 0 : -ENOMEM;
    }
    if (r == 0) {
        wl__submit__pack(submit, (uint8_t *)spec.blob);
        history->ids[number] = spec.job;
        records[0].submit.spec = &spec;
        for (size_t i = 0; i < 2; i++) {
            records[i].job = spec.job;
            records[i].sequence = ++history->sequence;
            records[i].wall_s = 1700000000;
        }
        r = store_submit(store, batch, records, 2);
    }
    free((void *)spec.blob);
    wl__submit__free_unpacked(submit, NULL);
    return r;
}

static int results_write(struct history *history, const char *state)
{
    struct store *store = NULL;
    struct record *records = calloc(BATCH, sizeof(*records));
    uint8_t(*blobs)[512] = calloc(BATCH, sizeof(*blobs));
    uint64_t all = (uint64_t)(history->jobs * history->tasks), batch = 0, durable = 0;
    int64_t began_ns = clock_monotonic_ns();
    int r = records && blobs ? signer_read(history, state) : -ENOMEM;

    if (r == 0)
        r = store_open(state, &store);

    if (r == 0)
        r = store_recover(store, see_record, history);
    for (long number = 1; r == 0 && number < history->jobs; number++)
        r = job_write(history, store, number, ++batch);
    for (uint64_t number = 0; r == 0 && number < all;) {
        size_t n = 0;

        for (; n < BATCH && number < all; n++, number++)
            record_fill(history, number, blobs[n], &records[n]);
        r = store_submit(store, ++batch, records, n);
        if (r == 0)
            r = batches_wait(store, batch - 1, &durable); /* two are on their way, as a broker's */
    }
    r = r ? r : batches_wait(store, batch, &durable);
    if (r)
        fprintf(stderr, "westlight-bench recover: %s\n", store_why(store));
    store_close(store);
    free(records);
    free(blobs);
    history->write_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    return r;
}

/* From the start of a broker to its ready line; it is killed then. */
static int broker_time(const char *state, double *ret_s, double *ret_cpu_s)
{
    char self[1024] = "", program[1100], line[512] = "", fd[16];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int pipes[2], r = n > 0 && pipe2(pipes, O_CLOEXEC) == 0 ? 0 : -errno;
    posix_spawn_file_actions_t actions;
    static const char anywhere[] = "tcp://127.0.0.1:*";
    pid_t pid;

    if (r)
        return r;
    snprintf(program, sizeof(program), "%.*s/../broker/westlight-broker",
             (int)(strrchr(self, '/') - self), self);
    snprintf(fd, sizeof(fd), "%d", 3);
    const char *argv[] = {program,  "run",    "--state",    state, "--control", anywhere,
                          "--bulk", anywhere, "--ready-fd", fd,    NULL};

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], 3);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    int64_t began_ns = clock_monotonic_ns();

    r = -posix_spawn(&pid, program, &actions, NULL, (char *const *)argv, environ);
    close(pipes[1]);
    if (r == 0 && read(pipes[0], line, sizeof(line) - 1) <= 0)
        r = -EIO;
    *ret_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    close(pipes[0]);
    posix_spawn_file_actions_destroy(&actions);
    if (r != -EIO && r != 0)
        return r;
    struct rusage usage;
    kill(pid, SIGKILL);
    if (wait4(pid, NULL, 0, &usage) == pid)
        *ret_cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return r;
}

static int history_make(struct history *history, char *ret_state, size_t size)
{
    struct local *local = NULL;
    int r = local_start(1, "recover", &local);

    if (r)
        return r;
    snprintf(ret_state, size, "%s/broker", local_folder(local));
    r = job_submit(history, local_farm(local));
    local_stop(local);
    return r ? r : results_write(history, ret_state);
}

int bench_recover(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"jobs", required_argument, NULL, 'n'},
                                            {"tasks", required_argument, NULL, 't'},
                                            {0}};
    struct history history = {
        .folder = "/tmp/westlight-bench-XXXXXX", .jobs = 1000, .tasks = 1000000};
    double seconds[3] = {0}, cpu_s[3] = {0};
    char state[512];
    int r = 0;

    optind = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (option == '?' ||
            (option == 'n' && !options_number(optarg, 1, 1000000, &history.jobs)) ||
            (option == 't' && !options_number(optarg, 1, 100000000, &history.tasks)))
            r = 2;
    history.side = history.jobs < SIDE ? history.jobs : SIDE;
    history.jobs -= history.jobs % history.side;
    history.tasks /= history.jobs;
    if (r || history.tasks == 0 || !mkdtemp(history.folder)) {
        fprintf(stderr, "usage: westlight-bench recover [--json] [--jobs N] [--tasks N, one a job "
                        "at least]\n");
        return 2;
    }
    setenv("WESTLIGHT_LOCAL", history.folder, 1);
    setenv("XDG_STATE_HOME", history.folder, 1);
    history.ids = calloc((size_t)history.jobs, sizeof(*history.ids));
    r = history.ids ? history_make(&history, state, sizeof(state)) : -ENOMEM;
    for (size_t i = 0; r == 0 && i < 3; i++)
        r = broker_time(state, &seconds[i], &cpu_s[i]);
    if (r == 0)
        printf("{\"bench\": \"recover\", \"jobs\": %ld, \"tasks\": %ld, \"first_s\": %.3f, "
               "\"second_s\": %.3f, \"third_s\": %.3f, \"third_cpu_s\": %.3f, "
               "\"results_written_per_s\": %.0f}\n",
               history.jobs, history.jobs * history.tasks, seconds[0], seconds[1], seconds[2],
               cpu_s[2], (double)(history.jobs * history.tasks) / history.write_s);
    free(history.ids);
    bytes_deinit(&history.submit);
    folder_remove(history.folder);
    return r ? 1 : 0;
}
