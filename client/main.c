/* main.c - the table of commands, help, and what they share. */
#include <client/cmd.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/local.h>
#include <client/preset.h>

#define JOB_HELP "JOB is an id, the first digits of one, or 'last'."
#define RENDER_HELP                                                                                \
    "SCENE [-f FRAMES] [-o DIR|PATTERN] [--local [--workers N] [--slots N]]\n"                     \
    "    [--chunk N] [--size WxH] [--preset NAME] [-p NAME=VALUE]... [--env NAME=VALUE]...\n"      \
    "    [--software NAME=VERSION] [--name TEXT] [--note TEXT] [--tag T]... [--priority N]\n"        \
    "    [--max-workers N] [--pool NAME] [--farm NAME] [--force] [--json]\n\n"                       \
    "  -f, --frames FRAMES   1-240, 1-240:2, 1-240x2, 1..10, 5,10-20,-3--1\n"                      \
    "  -o, --output WHERE    a folder (default SCENE-frames), a pattern: out/beauty.####.exr,\n"   \
    "                        or a still's file: out/beauty.png\n"                                  \
    "  --local               a private farm on this machine; the same command continues\n"         \
    "  --pool NAME           on the workers of that pool; without it, on those in none\n"          \
    "  --chunk N             N frames a task\n"                                                    \
    "  --device auto|cpu|gpu Blender: what Cycles renders on (auto: leased cards, else CPUs)\n"    \
    "  --clock-range RANGE   POV-Ray: the frames the clock runs over (default: -f)\n"              \
    "  --resume [UPLOAD]     go on with an upload that was cut short, with the words of the first\n"  \
    "                        time and no others: its id, 'last', or nothing for the only one\n"    \
    "  --dry-run             list what would travel, and send nothing\n"                           \
    "  --asset PATH          a file or folder that travels too; may be repeated\n"                 \
    "  --exclude PATTERN     files or folders that stay: *.psd, old/*; may be repeated\n"          \
    "  --narrow PATTERN      files that go to their own frame only: cache/smoke_####.vdb\n"        \
    "  --allow-missing       render although files are missing\n"                                  \
    "  --software NAME=VERSION  run this version (the one that saved the scene, or the newest)\n"  \
    "  --max-workers N       at most N of its tasks run at once (0: no limit)\n"                   \
    "  --force               write over files that were changed since they were fetched\n"         \
    "  -p NAME=VALUE         a parameter of the preset; see westlight help presets\n"

#define WORKERS_HELP                                                                               \
    "[--farm NAME] [--json]\n"                                                                     \
    "       westlight workers drain WORKER... [--note TEXT]\n"                                     \
    "       westlight workers undrain|clear WORKER...\n"                                           \
    "       westlight workers note WORKER TEXT\n"                                                  \
    "       westlight workers pool WORKER NAME\n\n"                                                \
    "  drain    no new work; what runs is finished: draining, then drained\n"                      \
    "  undrain  work as before\n"                                                                  \
    "  clear    forget its failures: it is no longer set aside\n"                                  \
    "  note     what others should know of it; '' takes it away\n"                                 \
    "  pool     it takes only jobs that ask for this pool (submit --pool); '' leaves it\n\n"       \
    "  WORKER is a name, the first 4 or more characters of a key, or an id of --json. Put -- "     \
    "ahead\n"                                                                                      \
    "  of one that begins with a dash.\n"

#define EDIT_HELP                                                                                  \
    "JOB [-f FRAMES] [--name TEXT] [--note TEXT] [--tag T]... [--priority N]\n"                    \
    "    [--max-workers N] [--farm NAME] [--json]\n\n  " JOB_HELP "\n"

const struct command cmd_table[] = {
    {"render", cmd_render, "render a scene and bring its frames home", RENDER_HELP},
    {"submit", cmd_submit, "hand a scene to the farm and return", RENDER_HELP},
    {"jobs", cmd_jobs, "list jobs",
     "[--all | --archived] [--farm NAME] [--json]\n\n"
     "  --all                 finished ones too; what is archived is listed by --archived alone"},
    {"show", cmd_show, "one job: its state, and why it waits",
     "JOB [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"watch", cmd_watch, "follow a job until it is finished",
     "JOB [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"fetch", cmd_fetch, "bring finished frames home",
     "JOB [-o DIR] [--follow] [--force] [--farm NAME] [--json]\n\n  " JOB_HELP
     "\n  Without -o: where it was submitted for, else westlight-JOB.\n"
     "  --force writes over files that were changed since they were fetched."},
    {"log", cmd_log, "what a task printed",
     "JOB [-f FRAME] [--attempt N] [--step N] [--follow] [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"cancel", cmd_cancel, "stop a job, or frames of it",
     "JOB [-f FRAMES] [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"pause", cmd_pause, "start no more of its frames",
     "JOB [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"resume", cmd_resume, "go on with a paused job", "JOB [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"retry", cmd_retry, "run failed frames again, or those named",
     "JOB [-f FRAMES] [--farm NAME] [--json]\n\n  " JOB_HELP},
    {"software", cmd_software, "list what the farm renders with", "[--farm NAME] [--json]"},
    {"set", cmd_set, "change a job that is there, also while it runs",
     EDIT_HELP
     "  -f, --frames FRAMES   all of its frames from now on: more or fewer; what runs or is done "
     "and\n"
     "                        stays is not disturbed; a chunk that holds one of them stays whole\n"
     "  --tag T               its tags from now on, one each time; --tag '' takes them away\n"
     "  --max-workers N       at most N of its tasks run at once (0: no limit)"},
    {"resubmit", cmd_resubmit, "another job from the same inputs, without sending them",
     EDIT_HELP "  What is not named is as it was; the scene's folder is not needed any more."},
    {"archive", cmd_archive, "take a finished job out of the list",
     "JOB [--undo] [--farm NAME] [--json]\n\n  " JOB_HELP "\n"
     "  It can still be shown and fetched; westlight jobs --archived lists it."},
    {"workers", cmd_workers, "list the farm's workers, or look after them (operators)",
     WORKERS_HELP},
    {"key", cmd_key, "make a key for yourself", "new [--key FILE] [--secret FILE]"},
    {"completion", cmd_completion, "print what a shell needs to complete commands",
     "bash|zsh|fish\n\n"
     "  westlight completion bash > ~/.local/share/bash-completion/completions/westlight\n"
     "  westlight completion zsh > ~/.zfunc/_westlight        # a folder of your fpath\n"
     "  westlight completion fish > ~/.config/fish/completions/westlight.fish"},
};
const size_t cmd_table_size = sizeof(cmd_table) / sizeof(cmd_table[0]);

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < cmd_table_size; i++)
        if (strcmp(cmd_table[i].name, name) == 0)
            return &cmd_table[i];
    return NULL;
}

static int help(const char *topic)
{
    const struct command *command = topic ? command_find(topic) : NULL;

    if (topic && strcmp(topic, "presets") == 0) {
        preset_list();
        return 0;
    }
    if (topic && !command) {
        complain("help %s: there is no such command: see westlight help", topic);
        return EXIT_USAGE;
    }
    if (command) {
        printf("westlight %s - %s\n\nusage: westlight %s %s\n", command->name, command->summary,
               command->name, command->usage);
        return 0;
    }

    printf("westlight %s - render on a farm that is far away\n\n", westlight_version());
    for (size_t i = 0; i < cmd_table_size; i++)
        printf("  %-8s %s\n", cmd_table[i].name, cmd_table[i].summary);
    printf("\nwestlight help COMMAND says more; westlight help presets lists scenes it renders.\n"
           "Exit codes: 0 all frames home and verified, 1 some failed, 2 usage,\n"
           "            3 unreachable or refused, 4 partial.\n");
    return 0;
}

/* ---- what commands share ---- */

static const struct option long_options[] = {
    {"farm", required_argument, NULL, 'F'},   {"json", no_argument, NULL, 'J'},
    {"frames", required_argument, NULL, 'f'}, {"output", required_argument, NULL, 'o'},
    {"follow", no_argument, NULL, 'w'},       {"force", no_argument, NULL, 'O'},
    {"all", no_argument, NULL, 'a'},          {"archived", no_argument, NULL, 'R'},
    {"undo", no_argument, NULL, 'U'},         {"attempt", required_argument, NULL, 'A'},
    {"step", required_argument, NULL, 'S'},   {NULL, 0, NULL, 0},
};

struct taking {
    struct cmd_args *args;
    const char *command;
    unsigned takes;
};

static int arg_take(void *user, int option, const char *value)
{
    const struct taking *taking = user;
    struct cmd_args *args = taking->args;
    const char *command = taking->command;
    const unsigned takes = taking->takes;
    static const struct {
        char option;
        unsigned need;
        const char *name;
    } needs[] = {{'f', CMD_FRAMES, "-f"},       {'o', CMD_OUT, "-o"},
                 {'w', CMD_FOLLOW, "--follow"}, {'O', CMD_FORCE, "--force"},
                 {'a', CMD_ALL, "--all"},       {'R', CMD_ALL, "--archived"},
                 {'U', CMD_UNDO, "--undo"},     {'A', CMD_ATTEMPT, "--attempt"},
                 {'S', CMD_ATTEMPT, "--step"}};

    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        if (option == needs[i].option && !(takes & needs[i].need)) {
            complain("%s: it takes no %s: see westlight help %s", command, needs[i].name, command);
            return EXIT_USAGE;
        }

    switch (option) {
    case 'F':
        args->farm = value;
        return 0;
    case 'J':
        args->json = true;
        return 0;
    case 'w':
        args->follow = true;
        return 0;
    case 'O':
        args->force = true;
        return 0;
    case 'a':
        args->all = true;
        return 0;
    case 'R':
        args->archived = true;
        return 0;
    case 'U':
        args->undo = true;
        return 0;
    case 'o':
        args->out = value;
        return 0;
    case 'f':
        free(args->frames);
        args->frames = NULL;
        args->frames_text = value;
        return options_frames("-f", value, &args->frames, &args->n_frames);
    case 'A':
    case 'S':
        if (options_number(value, option == 'A', 1000000,
                           option == 'A' ? &args->attempt : &args->step))
            return 0;
        complain("%s: --%s %s: it is no number", command, option == 'A' ? "attempt" : "step",
                 value);
        return EXIT_USAGE;
    default:
        return EXIT_USAGE;
    }
}

int cmd_parse(struct cmd_args *args, int argc, char **argv, unsigned takes, int min, int max)
{
    const char *command = argv[0];
    struct taking taking = {args, command, takes};
    int r;

    *args = (struct cmd_args){.step = -1};
    r = options_getopt(argc, argv, "f:o:", long_options, arg_take, &taking);
    if (r)
        return r;
    while (optind < argc && args->n_words < 4)
        args->words[args->n_words++] = argv[optind++];
    if (optind < argc || args->n_words < min || args->n_words > max) {
        complain("%s: %s: see westlight help %s", command,
                 args->n_words < min ? "it needs a job: an id, or 'last'" : "too many words",
                 command);
        return EXIT_USAGE;
    }
    return 0;
}

void cmd_args_deinit(struct cmd_args *args)
{
    free(args->frames);
    args->frames = NULL;
}

static struct westlight *interruptible;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    interrupted = signal_number;
    if (interruptible)
        westlight_stop(interruptible);
}

void cmd_interruptible(struct westlight *westlight)
{
    struct sigaction action = {.sa_handler = on_interrupt};

    interruptible = westlight;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cmd_interrupted(void)
{
    return interrupted != 0;
}

int cmd_farm(const char *farm_name, struct westlight_farm *ret_farm)
{
    const char *name = farm_name ? farm_name : getenv("WESTLIGHT_FARM");
    char why[1024] = "", path[4096];

    if (name && local_config_path(name, path, sizeof(path)) && !getenv("WESTLIGHT_CONFIG")) {
        setenv("WESTLIGHT_CONFIG", path, 1);
        name = "local";
    }
    if (westlight_farm_load(name, ret_farm, why, sizeof(why))) {
        complain("%s", why);
        return EXIT_USAGE;
    }
    return 0;
}

int cmd_open(const char *farm_name, struct westlight **ret_westlight)
{
    struct westlight_farm farm;
    char why[1024] = "";
    int r = cmd_farm(farm_name, &farm);

    if (r)
        return r;
    r = westlight_open(&farm, CMD_OPEN_MS, ret_westlight, why, sizeof(why));
    return r ? complain_library(r, why) : 0;
}

int cmd_open_job(const struct cmd_args *args, struct westlight **ret_westlight,
                 char ret_id[WESTLIGHT_ID_TEXT])
{
    int r = cmd_open(args->farm, ret_westlight);

    if (r)
        return r;
    r = westlight_resolve(*ret_westlight, args->words[0], ret_id);
    if (r) {
        r = complain_library(r, westlight_why(*ret_westlight));
        westlight_close(*ret_westlight);
        *ret_westlight = NULL;
    }
    return r;
}

/* Who closed them gets what a program of files would give: nothing, but no failure either. */
static void streams_open(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

/* What was printed got where it should; a reader that went away is no fault. */
static int output_check(int r)
{
    struct pollfd reader = {.fd = STDOUT_FILENO};

    if (fflush(stdout) == 0 && !ferror(stdout))
        return r;
    if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR))
        return r;
    complain("standard output could not be written: is its disk full?");
    return r ? r : EXIT_PARTIAL;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const struct command *command;

    streams_open();
    signal(SIGPIPE, SIG_IGN);
    if (!name || strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 ||
        strcmp(name, "-h") == 0)
        return help(argc > 2 ? argv[2] : NULL);
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("westlight %s\n", westlight_version());
        return 0;
    }
    command = command_find(name);
    if (!command) {
        complain("%s: there is no such command: see westlight help", name);
        return EXIT_USAGE;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0)
            break;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help(name);
    }
    return output_check(command->run(argc - 1, argv + 1));
}
