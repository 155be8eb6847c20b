/* main.c - a table of commands; `run` is the one without a name. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/limits.h>
#include <broker/backup.h>
#include <broker/broker.h>
#include <broker/check.h>
#include <broker/command.h>

enum { FAILED = 1, USAGE = 2 };

static const char HELP[] =
    "westlight-broker: splits jobs into tasks and leases them to workers.\n"
    "\n"
    "  westlight-broker [run] --state DIR [options]\n"
    "      --control ENDPOINT         where peers connect (tcp://*:7420)\n"
    "      --bulk ENDPOINT            where blocks go (tcp://*:7421)\n"
    "      --bulk-advertise ENDPOINT  where peers find it, if not at control's host\n"
    "      --bulk-memory BYTES        held for all peers while blocks move (256 MiB)\n"
    "      --vault-threads N          reading and writing blocks (4)\n"
    "      --lease-seconds N          silence after which a worker's frames go to others (30)\n"
    "      --licence-seconds N        a task that found no licence waits so long, then twice as\n"
    "                                 long, up to 10 minutes (30)\n"
    "      --log LEVEL                error, warn, info or debug (info)\n"
    "      --ready-fd N               write the ready line there too\n"
    "      --ready-file PATH          write the ready line to a file too\n"
    "    A port of * is any free one; the ready line says which:\n"
    "    ready control=tcp://HOST:PORT bulk=tcp://HOST:PORT key=PUBLIC-KEY\n"
    "    SIGTERM ends it. So does SIGKILL: nothing that was accepted is lost.\n"
    "\n"
    "  westlight-broker allow --state DIR --role operator|studio|worker\n"
    "      [--studio NAME] [--name NAME] [--weight N] KEY\n"
    "    KEY is a public key or a key file. Also while the broker runs. DIR must hold a broker's\n"
    "    state: run or key makes it.\n"
    "  westlight-broker forbid --state DIR KEY\n"
    "  westlight-broker key --state DIR\n"
    "    Prints the broker's public key; makes it the first time.\n"
    "\n"
    "  westlight-broker --check STATE|BACKUP [--json] [--quick] [--keys DIR] [--set-aside]\n"
    "    Reads all of it, also while the broker runs: one line a finding with the next step, and\n"
    "    exit code 1; 0: all is well. --quick does not read the blocks. --set-aside moves damaged\n"
    "    ones out of the way, so that they are sent again.\n"
    "  westlight-broker --backup DIR --state STATE\n"
    "    Also while the broker runs; the next time into the same DIR only what is new.\n"
    "  westlight-broker restore BACKUP STATE [--keys DIR]\n"
    "    STATE must be empty or not there.\n"
    "\n"
    "  westlight-broker --help | --version\n";

static int usage(const char *what, const char *why, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, why, next);
    return USAGE;
}

static int number(const char *option, const char *text, unsigned long long least,
                  unsigned long long most, unsigned long long *ret_number)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || *end || end == text || text[0] == '-' || value < least || value > most) {
        fprintf(stderr,
                "westlight-broker: %s %s: it is no whole number from %llu to %llu: give one\n",
                option, text, least, most);
        return USAGE;
    }
    *ret_number = value;
    return 0;
}

enum {
    STATE,
    CONTROL,
    BULK,
    ADVERTISE,
    MEMORY,
    THREADS,
    LEASE,
    LICENCE,
    LEVEL,
    READY_FD,
    READY_FILE
};

static int take_option(int option, struct broker_config *config)
{
    unsigned long long n = 0;
    enum log_level level;
    int r = 0;

    switch (option) {
    case STATE:
        config->state = optarg;
        break;
    case CONTROL:
        config->control = optarg;
        break;
    case BULK:
        config->bulk = optarg;
        break;
    case ADVERTISE:
        config->bulk_advertise = optarg;
        break;
    case MEMORY:
        r = number("--bulk-memory", optarg, 4 << 20, 1ULL << 40, &n);
        if (r == 0)
            config->bulk_memory_bytes = n;
        break;
    case THREADS:
        r = number("--vault-threads", optarg, 1, 64, &n);
        if (r == 0)
            config->vault_threads = (unsigned)n;
        break;
    case LEASE:
        r = number("--lease-seconds", optarg, 2, 3600, &n);
        if (r == 0)
            config->lease_ns = (int64_t)n * NS_PER_S;
        break;
    case LICENCE:
        r = number("--licence-seconds", optarg, 1, 600, &n);
        if (r == 0)
            config->licence_ns = (int64_t)n * NS_PER_S;
        break;
    case LEVEL:
        if (log_level_parse(optarg, &level) < 0)
            return usage("--log", "no such level", "give error, warn, info or debug");
        log_level_set(level);
        break;
    case READY_FD:
        r = number("--ready-fd", optarg, 0, 1 << 20, &n);
        if (r == 0)
            config->ready_fd = (int)n;
        break;
    case READY_FILE:
        config->ready_file = optarg;
        break;
    default:
        return usage("run", "an option it does not have, or one without its value",
                     "see westlight-broker --help");
    }
    return r;
}

static int command_run(int argc, char **argv)
{
    static const struct option LONG[] = {
        {"state", required_argument, NULL, STATE},
        {"control", required_argument, NULL, CONTROL},
        {"bulk", required_argument, NULL, BULK},
        {"bulk-advertise", required_argument, NULL, ADVERTISE},
        {"bulk-memory", required_argument, NULL, MEMORY},
        {"vault-threads", required_argument, NULL, THREADS},
        {"lease-seconds", required_argument, NULL, LEASE},
        {"licence-seconds", required_argument, NULL, LICENCE},
        {"log", required_argument, NULL, LEVEL},
        {"ready-fd", required_argument, NULL, READY_FD},
        {"ready-file", required_argument, NULL, READY_FILE},
        {0},
    };
    struct broker_config config = {.control = "tcp://*:7420",
                                   .bulk = "tcp://*:7421",
                                   .bulk_memory_bytes = 256 << 20,
                                   .vault_threads = 4,
                                   .lease_ns = LIMIT_LEASE_NS,
                                   .licence_ns = LIMIT_LICENCE_NS,
                                   .ready_fd = -1};
    int c, r;

    while ((c = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        r = take_option(c, &config);
        if (r != 0)
            return r;
    }
    if (optind != argc)
        return usage(argv[optind], "run takes options only", "see westlight-broker --help");
    if (!config.state)
        return usage("run", "--state is missing", "give a folder for the broker's state");
    return broker_run(&config) == 0 ? 0 : FAILED;
}

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
} COMMANDS[] = {
    {"run", command_run},         {"allow", command_allow}, {"forbid", command_forbid},
    {"key", command_key},         {"check", command_check}, {"backup", command_backup},
    {"restore", command_restore},
};

static bool asks(int argc, char **argv, const char *option)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], option) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--help") == 0)
        return fputs(HELP, stdout) < 0;
    if (argc >= 2 && strcmp(argv[1], "--version") == 0)
        return printf("westlight-broker %s\n", WESTLIGHT_VERSION) < 0;
    if (argc >= 2 && strcmp(argv[1], "--check") == 0)
        return command_check(argc - 1, argv + 1);
    if (argc >= 2 && strncmp(argv[1], "--", 2) == 0)
        return asks(argc, argv, "--backup") ? command_backup(argc, argv) : command_run(argc, argv);
    for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(COMMANDS); i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return COMMANDS[i].run(argc - 1, argv + 1);
    if (argc < 2)
        return usage("no command was named", "run needs a folder for its state",
                     "see westlight-broker --help");
    return usage(argv[1], "it is none of run, allow, forbid, key, check, backup, restore",
                 "see westlight-broker --help");
}
