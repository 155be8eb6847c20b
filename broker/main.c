/* main.c - the table of commands, and `run`. */
#include <errno.h>
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

static int usage(const char *what, const char *why, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, why, next);
    return USAGE;
}

static int number(const char *option, const char *text, uint64_t least, uint64_t most,
                  uint64_t *ret_number)
{
    if (args_number(text, least, most, ret_number))
        return 0;
    fprintf(stderr, "westlight-broker: %s %s: it is no whole number from %llu to %llu: give one\n",
            option, text, (unsigned long long)least, (unsigned long long)most);
    return USAGE;
}

/* "7", "0.5", or "90s"; at least a second. */
static int span(const char *option, const char *text, int64_t unit_s, int64_t *ret_s)
{
    char *end;
    double amount;

    errno = 0;
    amount = strtod(text, &end);
    if (strcmp(end, "s") == 0 && end > text)
        end++;
    else
        amount *= (double)unit_s;
    if (errno || *end || end == text || !(amount >= 1 && amount <= 1e9)) {
        fprintf(stderr,
                "westlight-broker: %s %s: it is no span of time: give a number of %s, or 90s for "
                "seconds\n",
                option, text, unit_s == 3600 ? "hours" : "days");
        return USAGE;
    }
    *ret_s = (int64_t)amount;
    return 0;
}

enum {
    STATE = 256,
    CONTROL,
    BULK,
    ENROL,
    ADVERTISE,
    MEMORY,
    RESERVE,
    THREADS,
    MESSAGES,
    LEASE,
    LICENCE,
    RETAIN_DELIVERED,
    RETAIN,
    GRACE,
    LEVEL,
    READY_FD,
    READY_FILE
};

static const struct args_option run_options[] = {
    {STATE, "state", "DIR", "the broker's state; made where it is not there"},
    {CONTROL, "control", "ENDPOINT", "where peers connect (tcp://*:7420)"},
    {BULK, "bulk", "ENDPOINT", "where blocks go (tcp://*:7421)"},
    {ENROL, "enrol", "ENDPOINT",
     "where newcomers join by a token (tcp://*:7422; with --control, only where it is given)"},
    {ADVERTISE, "bulk-advertise", "ENDPOINT", "where peers find it, if not at control's host"},
    {MEMORY, "bulk-memory", "BYTES", "held for all peers while blocks move (256 MiB)"},
    {RESERVE, "reserve", "SIZE",
     "free space below which nothing new is taken and what runs is finished, as 20G (256M, or 1 % "
     "of a smaller disk)"},
    {THREADS, "vault-threads", "N", "reading and writing blocks (4)"},
    {MESSAGES, "messages", "N",
     "a second that one person's key may say, and all of a studio four times as many (1000)"},
    {LEASE, "lease-seconds", "N", "silence after which a worker's frames go to others (30)"},
    {LICENCE, "licence-seconds", "N",
     "a task that found no licence waits so long, then twice as long, up to 10 minutes (30)"},
    {RETAIN_DELIVERED, "retain-delivered", "DAYS",
     "a job is forgotten so long after the last that happened to it, where its submitter has all "
     "results (7)"},
    {RETAIN, "retain", "DAYS", "the same where not, or where there are none (30)"},
    {GRACE, "grace", "HOURS",
     "a block that no job refers to is kept so long (24); 90s are seconds"},
    {LEVEL, "log", "LEVEL", "error, warn, info or debug (info)"},
    {READY_FD, "ready-fd", "N", "write the ready line there too"},
    {READY_FILE, "ready-file", "PATH", "write the ready line to a file too"},
    {0},
};

static int command_run(int argc, char **argv);

static const struct args_command COMMANDS[] = {
    {"run", command_run, "", "take jobs and lease their tasks to workers", run_options,
     "run may be left out: options alone mean it.\n"
     "\n"
     "A port of * is any free one; the ready line, printed when peers may connect, says which:\n"
     "\n"
     "  ready control=tcp://HOST:PORT bulk=tcp://HOST:PORT key=PUBLIC-KEY\n"
     "\n"
     "and enrol=tcp://HOST:PORT behind that, where newcomers may join.\n"
     "\n"
     "SIGTERM ends it. So does SIGKILL: nothing that was accepted is lost. A failed write ends it "
     "too; it goes on where it was when it is started again. On a full disk it waits for space.",
     "  westlight-broker run --state /srv/westlight\n"},
    {"token", command_token, "create|list|revoke [TOKEN]",
     "make a string by which a newcomer lets itself in", command_token_options,
     "create prints one string, which holds all that a newcomer needs: where the farm is, by which "
     "keys it is known, and a secret. Whoever has it joins, as often as --uses says and as long as "
     "--ttl: westlight join TOKEN, or westlight-worker join TOKEN --state DIR. The broker keeps "
     "no more of it than it needs to know it again. list shows those that there are; revoke ends "
     "one, named by its first column or the string; who has joined by it stays.\n"
     "\n"
     "With --approve the newcomer waits, and shows a fingerprint; keys shows the same one. Where "
     "they agree: keys approve.",
     "  westlight-broker token create --state /srv/westlight --role worker\n"
     "  westlight-broker token create --state /srv/westlight --role studio \\\n"
     "      --studio Aurora --ttl 7d --approve --host farm.example\n"
     "  westlight-broker token list --state /srv/westlight\n"},
    {"keys", command_keys, "[approve|revoke KEY]", "list the keys that are let in, or that wait",
     command_state_options,
     "KEY is a public key or its fingerprint, as the list has it. revoke is forbid: what the key "
     "does is stopped within about a second, and no token that it joined by lets it in again.",
     "  westlight-broker keys --state /srv/westlight\n"
     "  westlight-broker keys approve ab12-cd34-ef56-7890-1234 \\\n"
     "      --state /srv/westlight\n"},
    {"allow", command_allow, "KEY", "let a key in, also while the broker runs",
     command_allow_options,
     "--state and --role are needed, and --studio with the role studio. " COMMAND_KEY_TEXT "\n"
     "\n"
     "A key that is allowed again gets what is named then. With --from all keys of the file get "
     "the same role, or, where a line is wrong, none.",
     "  westlight-broker allow --state /srv/westlight --role worker \\\n"
     "      --name node1 'WORKER-KEY'\n"
     "  westlight-broker allow --state /srv/westlight --role studio \\\n"
     "      --studio Aurora --name Ada 'ARTIST-KEY'\n"
     "  westlight-broker allow --state /srv/westlight --role worker \\\n"
     "      --from keys.txt\n"},
    {"forbid", command_forbid, "KEY", "shut a key out, also while the broker runs",
     command_state_options, COMMAND_KEY_TEXT " What it does is stopped within about a second.",
     "  westlight-broker forbid --state /srv/westlight 'KEY'\n"},
    {"studio", command_studio, "[NAME]", "list the studios, or change one", command_studio_options,
     "Without an option it tells of each studio its weight, how many keys it has, what its blocks "
     "take in the vault, and its quota.\n"
     "\n"
     "A studio whose blocks take as much as its quota can submit nothing new. What its jobs render "
     "comes home until a quarter more; then no more of its frames are begun, what runs comes home, "
     "and all goes on by itself when there is room: jobs that are over are forgotten (run "
     "--retain), or its quota is raised. A quota counts within a second, also while the broker "
     "runs.",
     "  westlight-broker studio --state /srv/westlight\n"
     "  westlight-broker studio --state /srv/westlight Aurora --quota 2T\n"
     "  westlight-broker studio --state /srv/westlight Aurora --quota none\n"},
    {"key", command_key, "", "print the broker's public key; the first time, make it",
     command_state_options,
     "Workers name it by --server-key, people by server_key in their config.",
     "  westlight-broker key --state /srv/westlight\n"},
    {"check", command_check, "STATE|BACKUP", "read a state or a backup and name what is damaged",
     command_check_options,
     "Also while the broker runs. One line a finding, with the next step, and exit code 1; 0: all "
     "is well. westlight-broker --check STATE is the same.",
     "  westlight-broker check /srv/westlight\n"
     "  westlight-broker check --quick /backup/westlight\n"},
    {"backup", command_backup, "DIR", "copy the state, also while the broker runs",
     command_backup_options,
     "The next time into the same folder only what is new is copied. The keys lie in a folder of "
     "their own, so that they can be kept apart. westlight-broker --backup DIR --state STATE is "
     "the same.",
     "  westlight-broker backup /backup/westlight --state /srv/westlight\n"},
    {"restore", command_restore, "BACKUP STATE", "make a state of a backup",
     command_restore_options,
     "STATE must be empty or not there. What was accepted after the backup is gone, and whoever "
     "asks for it is told that it is unknown.",
     "  westlight-broker restore /backup/westlight /srv/westlight\n"},
};

static const struct args_topic TOPICS[] = {
    {"state", "STATE FOLDER", "what lies in the folder of --state",
     "broker.key\tthe key pair by which peers know the broker\n"
     "enrol.key\tthe one by which newcomers know it\n"
     "endpoints\twhere newcomers find it, for token create\n"
     "master.key\tsigns what workers show, and wraps the jobs' keys; keep its backup apart from "
     "the database's\n"
     "state.db\tjobs, keys, results: tables that sqlite3 can read while the broker runs\n"
     "vault/\tsealed blocks: scenes, frames, logs\n"
     "\n"
     "westlight-broker backup copies all of it. Only the user that runs the broker can read it.",
     NULL},
    {"exit", "EXIT STATUS", "exit codes",
     "0\tended in good order\n"
     "1\tfailed, or found something: the last line says what\n"
     "2\tthe command cannot be meant so: the message says what to change",
     NULL},
};

static const struct args_program PROGRAM = {
    .name = "westlight-broker",
    .section = "8",
    .summary = "split jobs into tasks and lease them to workers",
    .text =
        "westlight-broker is the farm's middle: studios hand it jobs, workers render them, and it "
        "keeps what they bring back. It is one process with one folder for its state. Peers "
        "connect to tcp ports 7420 and 7421, each with a key that was allowed.\n"
        "\n"
        "westlight-broker help COMMAND or TOPIC says more.",
    .commands = COMMANDS,
    .n_commands = ARRAY_SIZE(COMMANDS),
    .topics = TOPICS,
    .n_topics = ARRAY_SIZE(TOPICS),
    .see_also = "westlight(1), westlight-worker(8)",
    .first = true,
};

static int take_option(void *user, int option, const char *value)
{
    struct broker_config *config = user;
    uint64_t n = 0;
    enum log_level level;
    int r = 0;

    switch (option) {
    case STATE:
        config->state = value;
        break;
    case CONTROL:
        config->control = value;
        break;
    case BULK:
        config->bulk = value;
        break;
    case ENROL:
        config->enrol = value;
        break;
    case ADVERTISE:
        config->bulk_advertise = value;
        break;
    case MEMORY:
        r = number("--bulk-memory", value, 8 << 20, 1ULL << 40, &n);
        if (r == 0)
            config->bulk_memory_bytes = n;
        break;
    case RESERVE:
        if (!args_size(value, 1, 1ULL << 60, &config->reserve_bytes))
            return usage(value, "--reserve is no size", "give one such as 500M or 20G");
        break;
    case THREADS:
        r = number("--vault-threads", value, 1, 64, &n);
        if (r == 0)
            config->vault_threads = (unsigned)n;
        break;
    case MESSAGES:
        r = number("--messages", value, 1, 100000000, &n);
        if (r == 0)
            config->messages_per_s = (uint32_t)n;
        break;
    case LEASE:
        r = number("--lease-seconds", value, 2, 3600, &n);
        if (r == 0)
            config->lease_ns = (int64_t)n * NS_PER_S;
        break;
    case LICENCE:
        r = number("--licence-seconds", value, 1, 600, &n);
        if (r == 0)
            config->licence_ns = (int64_t)n * NS_PER_S;
        break;
    case RETAIN_DELIVERED:
        r = span("--retain-delivered", value, 86400, &config->retain_delivered_s);
        break;
    case RETAIN:
        r = span("--retain", value, 86400, &config->retain_s);
        break;
    case GRACE:
        r = span("--grace", value, 3600, &config->grace_ns);
        if (r == 0)
            config->grace_ns *= NS_PER_S;
        break;
    case LEVEL:
        if (log_level_parse(value, &level) < 0)
            return usage("--log", "no such level", "give error, warn, info or debug");
        log_level_set(level);
        break;
    case READY_FD:
        r = number("--ready-fd", value, 0, 1 << 20, &n);
        if (r == 0)
            config->ready_fd = (int)n;
        break;
    case READY_FILE:
        config->ready_file = value;
        break;
    }
    return r;
}

static int command_run(int argc, char **argv)
{
    struct broker_config config = {.bulk = "tcp://*:7421",
                                   .bulk_memory_bytes = 256 << 20,
                                   .vault_threads = 4,
                                   .lease_ns = LIMIT_LEASE_NS,
                                   .licence_ns = LIMIT_LICENCE_NS,
                                   .retain_s = LIMIT_RETAIN_S,
                                   .retain_delivered_s = LIMIT_RETAIN_DELIVERED_S,
                                   .grace_ns = LIMIT_GRACE_NS,
                                   .ready_fd = -1};
    int word, r = command_args(run_options, argc, argv, take_option, &config, &word);

    if (r != 0)
        return r;
    if (word != argc)
        return usage(argv[word], "run takes options only", "see westlight-broker help run");
    if (!config.state)
        return usage("run", "--state is missing", "give a folder for the broker's state");
    if (!config.control && !config.enrol)
        config.enrol = "tcp://*:7422";
    if (!config.control)
        config.control = "tcp://*:7420";
    return broker_run(&config) == 0 ? 0 : FAILED;
}

/* The two that are asked for as options: --check STATE, and --backup DIR with --state STATE. */
static bool asks(int argc, char **argv, const char *option)
{
    size_t size = strlen(option);

    for (int i = 1; i < argc && argv[1][0] == '-'; i++)
        if (strncmp(argv[i], option, size) == 0 && (argv[i][size] == '\0' || argv[i][size] == '='))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--check") == 0)
        return command_check(argc - 1, argv + 1);
    if (asks(argc, argv, "--backup"))
        return command_backup(argc, argv);
    return args_main(&PROGRAM, argc, argv);
}
