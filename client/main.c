/* main.c - what the commands share. */
#include <client/cmd.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/local.h>

/* ---- what commands share ---- */

int cmd_read(int argc, char **argv, args_take *take, void *user, int *ret_word)
{
    return options_given(args_find(&cmd_program, argv[0]), argc, argv, take, user, ret_word);
}

static int arg_number(int id, const char *value, struct cmd_args *args)
{
    bool from_0 = id == ID_STEP;

    if (options_number(value, !from_0, 1000000,
                       id == ID_ATTEMPT ? &args->attempt
                       : from_0         ? &args->step
                                        : &args->tile))
        return 0;
    complain("--%s %s: it is no number from %d to 1000000",
             id == ID_ATTEMPT ? "attempt"
             : from_0         ? "step"
                              : "tile",
             value, !from_0);
    return EXIT_USAGE;
}

static int arg_take(void *user, int id, const char *value)
{
    struct cmd_args *args = user;

    switch (id) {
    case ID_FARM:
        args->farm = value;
        return 0;
    case ID_JSON:
        args->json = true;
        return 0;
    case ID_FOLLOW:
        args->follow = true;
        return 0;
    case ID_FORCE:
        args->force = true;
        return 0;
    case ID_ALL:
        args->all = true;
        return 0;
    case ID_ARCHIVED:
        args->archived = true;
        return 0;
    case ID_DELIVER:
        args->deliver = true;
        return 0;
    case ID_UNDO:
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
    default:
        return arg_number(id, value, args);
    }
}

int cmd_parse(struct cmd_args *args, int argc, char **argv, int min, int max)
{
    const char *command = argv[0];
    int word, r;

    *args = (struct cmd_args){.step = -1};
    r = cmd_read(argc, argv, arg_take, args, &word);
    if (r)
        return r;
    while (word < argc && args->n_words < 4)
        args->words[args->n_words++] = argv[word++];
    if (word == argc && args->n_words >= min && args->n_words <= max)
        return 0;
    if (args->n_words < min)
        complain("%s: it needs a job: an id, or 'last': see westlight help %s", command, command);
    else
        complain("%s: %s is a word too many: see westlight help %s", command, args->words[max],
                 command);
    return EXIT_USAGE;
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

static void on_link(void *user, bool away)
{
    (void)user;
    if (away)
        complain("the farm does not answer: this waits, and goes on when it does");
    else
        complain("the farm answers again");
}

void cmd_tell_link(struct westlight *westlight)
{
    westlight_on_link(westlight, on_link, NULL);
}

int cmd_open(const char *farm_name, struct westlight **ret_westlight)
{
    struct westlight_farm farm;
    char why[1024] = "";
    int r = cmd_farm(farm_name, &farm);

    if (r)
        return r;
    r = westlight_open(&farm, CMD_OPEN_MS, ret_westlight, why, sizeof(why));
    if (r)
        return complain_library(r, why);
    cmd_tell_link(*ret_westlight);
    return 0;
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
    streams_open();
    signal(SIGPIPE, SIG_IGN);
    return output_check(args_main(&cmd_program, argc, argv));
}
