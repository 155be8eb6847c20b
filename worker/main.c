/* main.c - westlight-worker: options, the state folder, the probe, and the agent. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <proto/base/args.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/identity.h>
#include <proto/limits.h>
#include <proto/state.h>
#include <worker/agent.h>
#include <worker/assemble.h>
#include <worker/inspect.h>
#include <worker/join.h>
#include <worker/offer.h>
#include <worker/software.h>
#include <worker/warden.h>

#define EXTRAS_MAX   64
#define LOCK_WAIT_NS (60 * NS_PER_S) /* 4 GiB of a killed renderer take 0.4 s to be freed */

enum {
    OPTION_BROKER = 256,
    OPTION_SERVER_KEY,
    OPTION_KEY,
    OPTION_STATE,
    OPTION_NAME,
    OPTION_SLOTS,
    OPTION_PREFETCH,
    OPTION_CACHE_BYTES,
    OPTION_MEMORY,
    OPTION_CORES,
    OPTION_BULK,
    OPTION_OFFER,
    OPTION_SOFTWARE,
    OPTION_NO_PROBE,
    OPTION_RESERVE,
    OPTION_LOG,
};

static const struct args_option table[] = {
    {OPTION_BROKER, "broker", "ENDPOINT",
     "where the broker listens: tcp://HOST:7420 (as it joined)"},
    {OPTION_SERVER_KEY, "server-key", "KEY",
     "the broker's public key, 40 characters (as it joined)"},
    {OPTION_KEY, "key", "FILE",
     "this worker's key, made by: westlight key new --key FILE (key in the folder of --state)"},
    {OPTION_STATE, "state", "DIR", "for the cache, the sessions and results not yet delivered"},
    {OPTION_NAME, "name", "NAME", "as the operator sees it (the host's name)"},
    {OPTION_SLOTS, "slots", "N", "tasks at once (one per GPU, otherwise 1)"},
    {OPTION_PREFETCH, "prefetch", "N", "tasks whose files are fetched behind each that runs (1)"},
    {OPTION_CACHE_BYTES, "cache-bytes", "SIZE", "of the block cache, with K, M, G or T (20G)"},
    {OPTION_RESERVE, "reserve", "SIZE",
     "free space on the disk of --state below which the cache shrinks, and then nothing new is "
     "taken (256M, or 1 % of a smaller disk)"},
    {OPTION_MEMORY, "memory", "MIB", "memory to offer (all)"},
    {OPTION_CORES, "cores", "N", "cores to offer (all)"},
    {OPTION_BULK, "bulk", "ENDPOINT", "where blocks go (as the broker says)"},
    {OPTION_OFFER, "offer", "NAME=VALUE",
     "a further amount (amount.x=3) or attribute (attr.x=a,b); may be repeated"},
    {OPTION_SOFTWARE, "software", "FILE",
     "software and versions to offer beside what is found (software in the folder of --state)"},
    {OPTION_NO_PROBE, "no-probe", NULL, "find no GPU and no software of this machine"},
    {OPTION_LOG, "log", "LEVEL", "error, warn, info or debug (info)"},
    {0},
};

struct options {
    const char *broker, *server_key, *key, *state, *bulk, *software;
    struct offer_options offer;
    const char *extras[EXTRAS_MAX];
    uint64_t cache_bytes, reserve_bytes;
    bool no_probe;
    struct join_farm joined;
    char own_key[PATH_MAX];
};

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static int command_run(int argc, char **argv);

static const struct args_command commands[] = {
    {"", command_run, "", "render what the broker leases to it", table,
     "--state is needed; and --broker, --server-key and --key where no join has put them there. "
     "Cores, memory, NVIDIA cards, POV-Ray and Blender are found by themselves.\n"
     "\n"
     "SIGTERM ends it; what runs is begun again elsewhere. While the broker is away it goes on "
     "rendering, and keeps what it has until that is delivered.",
     "  westlight-worker --broker tcp://farm.example:7420 \\\n"
     "      --server-key 'SERVER-KEY' --key worker.key \\\n"
     "      --state /var/lib/westlight\n"},
    {"join", join_command, "[HOST] TOKEN", "become one of a farm's workers, by an operator's token",
     join_options,
     "It makes a key of its own in the folder of --state, shows the token to the farm, and keeps "
     "there where the farm is; afterwards --state is all that the worker needs. Where the token "
     "asks for it, it waits until the operator has compared the fingerprint that it shows. Ended "
     "before it is done, it is given again, with the same token.\n"
     "\n"
     "HOST is the farm's name or address, with a port where it is not 7422; it is needed where the "
     "token does not say it. A TOKEN of - is read from standard input.",
     "  westlight-worker join farm.example TOKEN --state /var/lib/westlight\n"
     "  westlight-worker --state /var/lib/westlight\n"},
    {"inspect", inspect_command, "FILE...", "say of each picture what is looked at in a task's",
     NULL,
     "A line for each file: its format and size, and whether it is whole, black, or holds values "
     "that are no numbers.",
     "  westlight-worker inspect frames/*.png\n"},
    {"assemble", assemble_command, "OUT TILE...", "make one picture of a frame's tiles", NULL,
     "A TILE is WIDTHxHEIGHT+X+Y=FILE: a rectangle of the frame, and a picture of the whole frame "
     "in "
     "which it is rendered, or of the rectangle alone. PNG and OpenEXR; pixels are copied as they "
     "are, and what is said of the picture is the first tile's.",
     "  westlight-worker assemble frame.png 96x64+0+0=left.png \\\n"
     "      96x64+96+0=right.png\n"},
};

static const struct args_topic topics[] = {
    {"software", "SOFTWARE FILE", "how versions of renderers are declared",
     "A section for each version, in the file of --software:\n"
     "\n"
     "  [blender 4.0.2]\n"
     "  command = /opt/blender-4.0/blender\n"
     "  env OCIO = /opt/ocio/config.ocio\n"
     "\n"
     "  [blender 3.4.1]\n"
     "  command = /opt/blender-3.4/blender\n"
     "  denoiser = yes\n"
     "\n"
     "command\tthe program, an absolute path\n"
     "env NAME\ta variable of its environment; one line each\n"
     "denoiser\tof a Blender: yes or no, where it cannot be asked whether it was built with the "
     "denoiser\n"
     "\n"
     "A job that is pinned to one of them runs that and no other. A section goes over what was "
     "found on the machine under the same name and version. westlight workers shows what each "
     "worker offers.",
     NULL},
    {"state", "STATE FOLDER", "what lies in the folder of --state",
     "cache/\tsealed blocks, the least recently used out first; may be removed\n"
     "sessions/\twhere tasks run; emptied at the start\n"
     "spool/\tresults that are not yet delivered: keep it\n"
     "key, farm\twho it is and where its farm is, made by join: keep them\n"
     "software\tthe software file, where --software names no other\n"
     "lock, session\tone worker at a time; keep them",
     NULL},
    {"exit", "EXIT STATUS", "exit codes",
     "0\tended in good order\n"
     "1\tfailed: the last line says why\n"
     "2\tthe command cannot be meant so: the message says what to change",
     NULL},
};

static const struct args_program program = {
    .name = "westlight-worker",
    .section = "8",
    .summary = "render what the broker leases to this machine",
    .text =
        "westlight-worker runs on each machine of the farm. It says what the machine has, renders "
        "the tasks that the broker leases to it, and sends back what they leave.\n"
        "\n"
        "westlight-worker help COMMAND or TOPIC says more.",
    .commands = commands,
    .n_commands = ARRAY_SIZE(commands),
    .topics = topics,
    .n_topics = ARRAY_SIZE(topics),
    .see_also = "westlight(1), westlight-broker(8)",
    .first = true,
};

static int stop_fd = -1;

/* The first signal ends in good order; the second does not wait for it. */
static void on_signal(int number)
{
    static volatile sig_atomic_t seen;
    uint64_t one = 1;
    int saved = errno;

    if (seen++)
        _exit(128 + number);
    if (write(stop_fd, &one, sizeof(one)) < 0)
        _exit(128 + number);
    errno = saved;
}

static int usage(const char *what, const char *why)
{
    fprintf(stderr, "westlight-worker: %s: %s; see westlight-worker help\n", what, why);
    return EXIT_USAGE;
}

static int parse_numbers(struct options *options, int option, const char *text)
{
    static const struct {
        int option;
        uint64_t min, max;
        bool size;
        const char *why;
    } numbers[] = {
        {OPTION_SLOTS, 1, LIMIT_SLOTS, false, "--slots must be 1 to 256"},
        {OPTION_PREFETCH, 0, LIMIT_PREFETCH, false, "--prefetch must be 0 to 64"},
        {OPTION_CACHE_BYTES, 1, 1ULL << 60, true,
         "--cache-bytes must be a size such as 500M or 20G"},
        {OPTION_RESERVE, 1, 1ULL << 60, true, "--reserve must be a size such as 500M or 20G"},
        {OPTION_MEMORY, 1, 1ULL << 40, false, "--memory must be a number of MiB"},
        {OPTION_CORES, 1, 65536, false, "--cores must be 1 to 65536"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        uint64_t number;

        if (numbers[i].option != option)
            continue;
        if (!(numbers[i].size ? args_size : args_number)(text, numbers[i].min, numbers[i].max,
                                                         &number))
            return usage(text, numbers[i].why);
        if (option == OPTION_SLOTS)
            options->offer.slots = (uint32_t)number;
        else if (option == OPTION_PREFETCH)
            options->offer.prefetch = (uint32_t)number;
        else if (option == OPTION_CACHE_BYTES)
            options->cache_bytes = number;
        else if (option == OPTION_RESERVE)
            options->reserve_bytes = number;
        else if (option == OPTION_MEMORY)
            options->offer.memory_mib = number;
        else
            options->offer.cores = (uint32_t)number;
        return EXIT_OK;
    }
    return usage(text, "unknown option");
}

static int parse_text(struct options *options, int option, const char *text)
{
    enum log_level level;

    switch (option) {
    case OPTION_BROKER:
        options->broker = text;
        return EXIT_OK;
    case OPTION_SERVER_KEY:
        options->server_key = text;
        return EXIT_OK;
    case OPTION_KEY:
        options->key = text;
        return EXIT_OK;
    case OPTION_STATE:
        options->state = text;
        return EXIT_OK;
    case OPTION_BULK:
        options->bulk = text;
        return EXIT_OK;
    case OPTION_SOFTWARE:
        options->software = text;
        return EXIT_OK;
    case OPTION_NAME:
        if (!*text || strlen(text) >= LIMIT_NAME_BYTES)
            return usage("--name", "empty, or longer than 255 bytes");
        options->offer.name = text;
        return EXIT_OK;
    case OPTION_OFFER:
        if (options->offer.n_extras == EXTRAS_MAX)
            return usage("--offer", "given more than 64 times");
        options->extras[options->offer.n_extras++] = text;
        return EXIT_OK;
    case OPTION_LOG:
        if (log_level_parse(text, &level) < 0)
            return usage(text, "--log must be error, warn, info or debug");
        log_level_set(level);
        return EXIT_OK;
    default:
        return parse_numbers(options, option, text);
    }
}

static int parse_option(void *user, int option, const char *value)
{
    struct options *options = user;

    if (option != OPTION_NO_PROBE)
        return parse_text(options, option, value);
    options->no_probe = true;
    return EXIT_OK;
}

static int parse(int argc, char **argv, struct options *options)
{
    char why[ARGS_WHY_BYTES];
    int word,
        r = args_parse(&program, program.commands, argc, argv, parse_option, options, why, &word);

    if (*why)
        args_complain(&program, "%s", why);
    if (r != EXIT_OK)
        return r;
    if (word < argc)
        return usage(argv[word], "it takes options only, or join, inspect or assemble");
    if (!options->state)
        return usage("--state", "it is missing");
    return EXIT_OK;
}

/* What is not said is as the worker joined. */
static int as_joined(struct options *options)
{
    char why[1024] = "";
    int r = 0;

    if (!options->broker || !options->server_key)
        r = join_farm_load(options->state, &options->joined, why, sizeof(why));
    if (r == JOIN_FARM_E_FORM) {
        fprintf(stderr, "westlight-worker: %s\n", why);
        return EXIT_FAILED;
    }
    if (r < 0)
        return usage(!options->broker ? "--broker" : "--server-key",
                     "it is missing, and the worker has not joined a farm");
    if (!options->broker)
        options->broker = options->joined.broker;
    if (!options->server_key)
        options->server_key = options->joined.server_key;
    if (!options->key) {
        snprintf(options->own_key, sizeof(options->own_key), "%s/key", options->state);
        options->key = options->own_key;
    }
    return EXIT_OK;
}

static int load_keys(const struct options *options, struct link_key *ret_server,
                     struct link_keypair *ret_keys)
{
    int r;

    if (identity_key_parse(options->server_key, ret_server) != 0)
        return usage(
            options->server_key,
            "not a public key of 40 characters; the operator gets it with westlight-broker key");
    r = identity_key_load(options->key, ret_keys);
    if (r == 0)
        return EXIT_OK;
    if (r == -ENOENT)
        fprintf(stderr,
                "westlight-worker: %s: there is no such key; make one with: westlight key new "
                "--key %s\n",
                options->key, options->key);
    else if (r > 0)
        fprintf(
            stderr,
            "westlight-worker: %s: not a key file; make one with: westlight key new --key FILE\n",
            options->key);
    else
        fprintf(stderr, "westlight-worker: %s: %s\n", options->key, strerror(-r));
    return EXIT_FAILED;
}

/* The file that is named, else the state folder's own if it has one. */
static int declared(const struct options *options, struct probe *probe)
{
    char own[PATH_MAX], why[1024] = "";
    const char *path = options->software ? options->software : own;
    int r;

    snprintf(own, sizeof(own), "%s/software", options->state);
    r = software_load(path, probe, why, sizeof(why));
    if (r == 0 || (r == -ENOENT && !options->software))
        return EXIT_OK;
    if (r == SOFTWARE_E_FILE)
        fprintf(stderr, "westlight-worker: %s\n", why);
    else
        fprintf(stderr, "westlight-worker: %s: %s: check --software\n", path, strerror(-r));
    return EXIT_FAILED;
}

/* What assembles tiles is this program: a step names it as it names a renderer. */
static int offer_itself(struct probe *probe)
{
    struct probe_software *grown =
        reallocarray(probe->software, probe->n_software + 1, sizeof(*grown));
    ssize_t n;

    if (!grown)
        return -ENOMEM;
    probe->software = grown;
    grown += probe->n_software;
    *grown = (struct probe_software){.name = SOFTWARE_WORKER, .version = WESTLIGHT_VERSION};
    n = readlink("/proc/self/exe", grown->path, sizeof(grown->path) - 1);
    probe->n_software += n > 0 && (size_t)n < sizeof(grown->path) - 1;
    return 0;
}

static int make_offer(struct options *options, struct probe **ret_probe,
                      struct offer_made *ret_offer)
{
    _cleanup_(probe_freep) struct probe *probe = NULL;
    const char *culprit = "";
    int r = probe_new(options->no_probe ? "/nonexistent" : NULL, &probe);

    if (r < 0) {
        fprintf(stderr, "westlight-worker: this machine cannot be probed: %s\n", strerror(-r));
        return EXIT_FAILED;
    }
    r = options->no_probe ? 0 : probe_find_software(probe);
    if (r == 0 && (r = declared(options, probe)) != EXIT_OK)
        return r;
    if (r == 0)
        r = probe_ask_denoisers(probe);
    if (r == 0)
        r = offer_itself(probe);
    if (r < 0) {
        fprintf(stderr, "westlight-worker: %s\n", strerror(-r));
        return EXIT_FAILED;
    }
    options->offer.extras = options->extras;
    r = offer_make(probe, &options->offer, ret_offer, &culprit);
    if (r == OFFER_E_FORM)
        return usage(culprit, "--offer must be amount.NAME=NUMBER or attr.NAME=VALUE,VALUE");
    if (r == OFFER_E_LIMIT)
        return usage(culprit, "one amount, attribute or value more than there may be");
    if (r < 0) {
        fprintf(stderr, "westlight-worker: %s\n", strerror(-r));
        return EXIT_FAILED;
    }
    *ret_probe = TAKE_PTR(probe);
    return EXIT_OK;
}

static void log_offer(const struct probe *probe, const Wl__Offer *offer)
{
    log_info("offer", "name=\"%s\" slots=%u prefetch=%u", offer->name, offer->slots,
             offer->prefetch);
    for (size_t i = 0; i < offer->n_amounts; i++)
        log_info("amount", "name=%s value=%g", offer->amounts[i]->name, offer->amounts[i]->min);
    for (size_t i = 0; i < probe->n_gpus; i++)
        log_info("gpu", "index=%zu model=\"%s\" uuid=%s memory_mib=%llu", i, probe->gpus[i].model,
                 probe->gpus[i].uuid, (unsigned long long)(probe->gpus[i].memory_bytes >> 20));
    if (probe->n_gpus_lost)
        log_warn("gpu",
                 "lost=%zu why=\"a card does not answer and is not offered: nvidia-smi and the "
                 "kernel's log say more; start this worker again when it is back\"",
                 probe->n_gpus_lost);
    for (size_t i = 0; i < probe->n_software; i++) {
        const struct probe_software *software = &probe->software[i];

        log_info("software", "name=%s version=%s path=%s%s", software->name, software->version,
                 software->path, software->denoiser == DENOISER_THERE ? " denoiser=yes" : "");
        if (software->denoiser == DENOISER_UNKNOWN && strcmp(software->name, "blender") == 0)
            log_warn("software",
                     "name=%s version=%s path=%s why=\"it does not say whether it has the "
                     "denoiser, so it is not offered: write denoiser = yes into the software file "
                     "where it has\"",
                     software->name, software->version, software->path);
    }
}

static int catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0)
        return -errno;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGINT, &action, NULL) < 0)
        return -errno;
    return 0;
}

static int work(const struct options *options, const struct link_key *server,
                const struct link_keypair *keys, const struct probe *probe,
                struct offer_made *offer)
{
    _cleanup_(freep) char *state = NULL;
    _cleanup_(closep) int lock_fd = -1;
    int r = agent_lock_state(options->state, LOCK_WAIT_NS, &lock_fd);

    if (r == AGENT_E_TAKEN) {
        fprintf(
            stderr,
            "westlight-worker: %s: another worker uses this folder, or what it ran has not ended; "
            "give each its own --state\n",
            options->state);
        return EXIT_FAILED;
    }
    if (r == 0) {
        warden_hold(lock_fd);
        state = realpath(options->state, NULL); /* sessions see absolute paths */
        r = state ? catch_signals() : -errno;
    }
    if (r < 0) {
        fprintf(stderr, "westlight-worker: %s: %s\n", options->state, strerror(-r));
        return EXIT_FAILED;
    }
    log_offer(probe, &offer->message);
    r = agent_run(&(struct agent_config){.broker = options->broker,
                                         .server = *server,
                                         .keys = keys,
                                         .state = state,
                                         .cache_bytes = options->cache_bytes,
                                         .reserve_bytes = options->reserve_bytes,
                                         .bulk = options->bulk,
                                         .probe = probe,
                                         .inspector = "/proc/self/exe", /* an upgrade, too */
                                         .offer = &offer->message,
                                         .stop_fd = stop_fd});
    if (r < 0)
        log_error("ended", "state=%s why=\"%s\"", state, strerror(-r));
    return r < 0 ? EXIT_FAILED : EXIT_OK;
}

static int command_run(int argc, char **argv)
{
    struct options options = {.offer = {.prefetch = 1}, .cache_bytes = 20ULL << 30};
    struct link_key server;
    struct link_keypair keys;
    _cleanup_(probe_freep) struct probe *probe = NULL;
    struct offer_made offer = {0};
    int r;

    r = parse(argc, argv, &options);
    if (r != EXIT_OK)
        return r;
    r = as_joined(&options);
    if (r != EXIT_OK)
        return r;
    r = load_keys(&options, &server, &keys);
    if (r != EXIT_OK)
        return r;
    warden_raise_files(); /* every task has sockets and files of its own */
    r = make_offer(&options, &probe, &offer);
    if (r == EXIT_OK)
        r = work(&options, &server, &keys, probe, &offer);
    offer_deinit(&offer);
    wipe(&keys, sizeof(keys));
    return r;
}

int main(int argc, char **argv)
{
    return args_main(&program, argc, argv);
}
