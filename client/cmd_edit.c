/* cmd_edit.c - what changes a job or makes another like it: set, resubmit, archive. */
#include <client/cmd.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <client/show.h>

enum { TAGS_MAX = 64 }; /* more than a job takes: the library says how many */

struct edit_args {
    struct westlight_changes changes;
    struct westlight_range *frames;
    const char *tags[TAGS_MAX];
    const char *farm, *job;
    bool json, any;
};

enum {
    LONG_NAME = 256,
    LONG_NOTE,
    LONG_TAG,
    LONG_PRIORITY,
    LONG_MAX_WORKERS,
    LONG_FARM,
    LONG_JSON
};

static const struct option long_options[] = {
    {"frames", required_argument, NULL, 'f'},
    {"name", required_argument, NULL, LONG_NAME},
    {"note", required_argument, NULL, LONG_NOTE},
    {"tag", required_argument, NULL, LONG_TAG},
    {"priority", required_argument, NULL, LONG_PRIORITY},
    {"max-workers", required_argument, NULL, LONG_MAX_WORKERS},
    {"farm", required_argument, NULL, LONG_FARM},
    {"json", no_argument, NULL, LONG_JSON},
    {NULL, 0, NULL, 0},
};

static int tag_take(struct edit_args *args, const char *tag)
{
    struct westlight_changes *changes = &args->changes;

    changes->tags = args->tags; /* one that is empty takes them all away */
    if (*tag && changes->n_tags < TAGS_MAX)
        args->tags[changes->n_tags++] = tag;
    return 0;
}

static int option_take(void *user, int option, const char *value)
{
    struct edit_args *args = user;
    struct westlight_changes *changes = &args->changes;

    args->any |= option != LONG_FARM && option != LONG_JSON;
    switch (option) {
    case 'f':
        free(args->frames);
        args->frames = NULL;
        if (options_frames("--frames", value, &args->frames, &changes->n_frames))
            return EXIT_USAGE;
        changes->frames = args->frames;
        return 0;
    case LONG_NAME:
        changes->name = value;
        return 0;
    case LONG_NOTE:
        changes->note = value;
        return 0;
    case LONG_TAG:
        return tag_take(args, value);
    case LONG_PRIORITY:
        changes->set_priority = true;
        return options_priority(value, &changes->priority);
    case LONG_MAX_WORKERS:
        changes->set_max_workers = true;
        return options_max_workers(value, &changes->max_workers);
    case LONG_FARM:
        args->farm = value;
        return 0;
    case LONG_JSON:
        args->json = true;
        return 0;
    default:
        return EXIT_USAGE; /* getopt has said why */
    }
}

static int edit_parse(struct edit_args *args, int argc, char **argv)
{
    const char *command = argv[0];
    int r;

    *args = (struct edit_args){0};
    r = options_getopt(argc, argv, "f:", long_options, option_take, args);
    if (r)
        return r;
    if (optind + 1 != argc) {
        complain("%s: %s: see westlight help %s", command,
                 optind == argc ? "it needs a job: an id, or 'last'" : "one job at a time",
                 command);
        return EXIT_USAGE;
    }
    args->job = argv[optind];
    return 0;
}

static int edit_open(const struct edit_args *args, struct westlight **ret_westlight,
                     char ret_id[WESTLIGHT_ID_TEXT])
{
    const struct cmd_args plain = {.farm = args->farm, .words = {args->job}, .n_words = 1};

    return cmd_open_job(&plain, ret_westlight, ret_id);
}

int cmd_set(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT];
    struct edit_args args;
    uint64_t tasks = 0;
    int r = edit_parse(&args, argc, argv);

    if (r == 0 && !args.any) {
        complain("set: it does not say what: see westlight help set");
        r = EXIT_USAGE;
    }
    if (r == 0)
        r = edit_open(&args, &westlight, id);
    if (r == 0) {
        r = westlight_set(westlight, id, &args.changes, &tasks);
        if (r)
            r = complain_library(r, westlight_why(westlight));
        else if (args.json)
            show_json(
                json_pack("{s:s,s:s,s:I}", "id", id, "did", "set", "tasks", (json_int_t)tasks),
                false);
        else if (args.changes.n_frames)
            printf("job %.8s: changed; %" PRIu64 " tasks were added or left out\n", id, tasks);
        else
            printf("job %.8s: changed\n", id);
    }
    westlight_close(westlight);
    free(args.frames);
    return r;
}

static void id_print(void *user, const char id[WESTLIGHT_ID_TEXT])
{
    const struct edit_args *args = user;

    if (args->json)
        return;
    printf("job %s\n", id);
    fflush(stdout);
}

int cmd_resubmit(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT], made[WESTLIGHT_ID_TEXT];
    struct edit_args args;
    int r = edit_parse(&args, argc, argv);

    if (r == 0)
        r = edit_open(&args, &westlight, id);
    if (r == 0) {
        cmd_interruptible(westlight);
        r = westlight_resubmit(westlight, id, &args.changes, id_print, &args, made);
        cmd_interruptible(NULL);
        if (r)
            r = complain_library(r, westlight_why(westlight));
        else if (args.json)
            show_json(json_pack("{s:s,s:s}", "id", made, "from", id), false);
        else
            printf(
                "accepted: made from %.8s, nothing was sent again\n"
                "westlight watch %.8s follows it; westlight fetch %.8s --follow brings it home\n",
                id, made, made);
    }
    westlight_close(westlight);
    free(args.frames);
    return r;
}

int cmd_archive(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_args args;
    int r = cmd_parse(&args, argc, argv, CMD_UNDO, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id)))
        return r;
    r = westlight_archive(westlight, id, !args.undo);
    if (r)
        r = complain_library(r, westlight_why(westlight));
    else if (args.json)
        show_json(json_pack("{s:s,s:s,s:b}", "id", id, "did", "archive", "archived", !args.undo),
                  false);
    else
        printf("job %.8s is %s\n", id,
               args.undo ? "in the list again" : "archived: westlight jobs --archived lists it");
    westlight_close(westlight);
    return r;
}
