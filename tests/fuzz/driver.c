/* driver.c - runs one target without a fuzzing engine.
 *
 *     fuzz-NAME [--seconds S] [--runs N] [--seed N] [--make] [FOLDER | FILE]...
 *
 * Each input of the folders is run as it is, then mutants of them until the time is over, or so
 * many have run: the corpus grows by nothing, since nobody measures what an input reaches. --make
 * writes what the target itself says of valid inputs into FOLDER, and runs nothing.
 * WESTLIGHT_FUZZ_SECONDS is stronger than --seconds. The seed is WESTLIGHT_COMMIT's where none is
 * given, so that each commit is tried with mutants of its own; an input that kills the program is
 * written to crash-NAME.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include "fuzz.h"

enum { INPUTS_MAX = 4096, HANG_S = 20, CLOCK_EVERY = 64 };

struct input {
    uint8_t *data;
    size_t size;
};

static struct input inputs[INPUTS_MAX];
static size_t n_inputs;
static const char *make_folder;
static char crash_path[256];
/* At hand, for whoever dies of it. */
static uint8_t at_hand[FUZZ_INPUT_BYTES];
static size_t at_hand_size;
static volatile uint64_t executions, executions_seen;

/* ---- deaths ---- */

static void keep_at_hand(void)
{
    static const char says[] = "fuzz: what it died of is in ";
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, at_hand, at_hand_size) < 0 || close(fd) < 0 ||
        write(2, says, sizeof(says) - 1) < 0 || write(2, crash_path, strlen(crash_path)) < 0 ||
        write(2, "\n", 1) < 0)
        return;
}

static void on_death(int number)
{
    keep_at_hand();
    signal(number, SIG_DFL);
    raise(number);
}

static void on_alarm(int number)
{
    static const char says[] = "fuzz: one input takes longer than it may\n";

    (void)number;
    if (executions != executions_seen) {
        executions_seen = executions;
        alarm(HANG_S);
        return;
    }
    if (write(2, says, sizeof(says) - 1) > 0)
        abort();
}

/* Of the sanitisers, where they are linked: they may end without a signal. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void take_deaths(const char *name)
{
    static const int deaths[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

    snprintf(crash_path, sizeof(crash_path), "crash-%s", name);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(keep_at_hand);
    for (size_t i = __sanitizer_set_death_callback ? 4 : 0; i < ARRAY_SIZE(deaths); i++)
        signal(deaths[i], on_death);
    signal(SIGALRM, on_alarm);
    alarm(HANG_S);
}

/* ---- inputs ---- */

static void input_add(const void *data, size_t size)
{
    CHECK(n_inputs < INPUTS_MAX && size <= FUZZ_INPUT_BYTES);
    inputs[n_inputs++] = (struct input){fuzz_copy(data, size), size};
}

static int input_read(const char *path)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0};
    int r = file_read(path, FUZZ_INPUT_BYTES, &bytes);

    if (r < 0)
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(-r));
    else
        input_add(bytes.data, bytes.size);
    return r;
}

/* In order of names, so that a seed is the same run everywhere. */
static int inputs_read(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort), r = 0;

    if (n < 0)
        return errno == ENOTDIR ? input_read(path) : -errno;
    for (int i = 0; i < n; i++) {
        char file[4096];

        snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (r == 0 && names[i]->d_name[0] != '.')
            r = input_read(file);
        free(names[i]);
    }
    free(names);
    return r;
}

static void seed_add(const char *name, const void *data, size_t size)
{
    (void)name;
    input_add(data, size);
}

static void seed_write(const char *name, const void *data, size_t size)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", make_folder, name);
    int r = file_write(path, data, size, 0644);
    if (r < 0)
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(-r));
    CHECK(r == 0);
}

/* ---- the run ---- */

static void run(const uint8_t *data, size_t size)
{
    if (size)
        memcpy(at_hand, data, size);
    at_hand_size = size;
    uint8_t *copy = fuzz_copy(data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    executions++;
}

static void run_mutant(struct fuzz_random *random)
{
    static uint8_t data[FUZZ_INPUT_BYTES];
    const struct input *input = &inputs[fuzz_draw(random, (uint32_t)n_inputs)];
    const struct input *other = &inputs[fuzz_draw(random, (uint32_t)n_inputs)];

    memcpy(data, input->data, input->size);
    run(data, fuzz_mutate(random, data, input->size, other->data, other->size));
}

static uint64_t seed_of_commit(void)
{
    const char *commit = getenv("WESTLIGHT_COMMIT");
    char digits[9] = {0};

    if (!commit || strlen(commit) < 8)
        return 1;
    memcpy(digits, commit, 8);
    return strtoull(digits, NULL, 16);
}

struct bounds {
    double seconds; /* 0: none */
    uint64_t runs;  /* 0: none */
    uint64_t seed;
};

static int bounds_read(int argc, char **argv, struct bounds *bounds)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                            {"runs", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 'd'},
                                            {"make", no_argument, NULL, 'm'},
                                            {0}};
    const char *seconds = getenv("WESTLIGHT_FUZZ_SECONDS");

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (c == 's')
            bounds->seconds = strtod(optarg, NULL);
        else if (c == 'n')
            bounds->runs = strtoull(optarg, NULL, 10);
        else if (c == 'd')
            bounds->seed = strtoull(optarg, NULL, 10);
        else if (c == 'm')
            make_folder = "";
        else
            return 2;
    if (seconds && bounds->runs == 0)
        bounds->seconds = strtod(seconds, NULL);
    if (!make_folder)
        return 0;
    make_folder = argv[optind];
    return make_folder ? 0 : 2;
}

/* The first bound that is reached ends it; without one there are no mutants. */
static bool goes_on(const struct bounds *bounds, uint64_t i, int64_t until_ns)
{
    return (bounds->runs || bounds->seconds > 0) && (!bounds->runs || i < bounds->runs) &&
           (bounds->seconds <= 0 || i % CLOCK_EVERY || clock_monotonic_ns() < until_ns);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    struct bounds bounds = {.seed = seed_of_commit()};

    if (bounds_read(argc, argv, &bounds) != 0)
        return 2;
    if (make_folder) {
        fuzz_seeds(seed_write);
        return 0;
    }
    for (int i = optind; i < argc; i++)
        if (inputs_read(argv[i]) < 0)
            return 2;
    size_t n_read = n_inputs;
    fuzz_seeds(seed_add);
    take_deaths(name);

    int64_t begun_ns = clock_monotonic_ns(), until_ns = begun_ns + (int64_t)(bounds.seconds * 1e9);
    struct fuzz_random random = {bounds.seed};
    for (size_t i = 0; i < n_inputs; i++)
        run(inputs[i].data, inputs[i].size);
    for (uint64_t i = 0; goes_on(&bounds, i, until_ns); i++)
        run_mutant(&random);
    double took = (double)(clock_monotonic_ns() - begun_ns) / 1e9;
    printf("%s: %" PRIu64 " executions in %.1f s (%.0f/s), seed %" PRIu64
           ", %zu inputs of the corpus, %zu made\n",
           name, executions, took, (double)executions / took, bounds.seed, n_read,
           n_inputs - n_read);
    for (size_t i = 0; i < n_inputs; i++)
        free(inputs[i].data);
    return 0;
}
