/* cmd_edit.c - what changes a job or makes another like it: set, resubmit, archive. */
#include <client/cmd.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <client/say.h>
#include <client/show.h>
#include <proto/base/bytes.h>

enum { TAGS_MAX = 64 }; /* more than a job takes: the library says how many */

struct edit_args {
    struct westlight_changes changes;
    struct westlight_range *frames;
    const char *tags[TAGS_MAX];
    const char *farm, *job;
    bool json, any;
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

    args->any |= option != ID_FARM && option != ID_JSON;
    switch (option) {
    case 'f':
        free(args->frames);
        args->frames = NULL;
        if (options_frames("--frames", value, &args->frames, &changes->n_frames))
            return EXIT_USAGE;
        changes->frames = args->frames;
        return 0;
    case ID_NAME:
        changes->name = value;
        return 0;
    case ID_NOTE:
        changes->note = value;
        return 0;
    case ID_TAG:
        return tag_take(args, value);
    case ID_PRIORITY:
        changes->set_priority = true;
        return options_priority(value, &changes->priority);
    case ID_MAX_WORKERS:
        changes->set_max_workers = true;
        return options_max_workers(value, &changes->max_workers);
    case ID_FARM:
        args->farm = value;
        return 0;
    case ID_JSON:
        args->json = true;
        return 0;
    default:
        return EXIT_USAGE;
    }
}

static int edit_parse(struct edit_args *args, int argc, char **argv)
{
    const char *command = argv[0];
    int word, r;

    *args = (struct edit_args){0};
    r = cmd_read(argc, argv, option_take, args, &word);
    if (r)
        return r;
    if (word + 1 != argc) {
        complain("%s: %s: see westlight help %s", command,
                 word == argc ? "it needs a job: an id, or 'last'" : "one job at a time", command);
        return EXIT_USAGE;
    }
    args->job = argv[word];
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
            say_part("job %.8s: changed; %" PRIu64 " task%s %s added or left out\n", id, tasks,
                     plural(tasks), tasks == 1 ? "was" : "were");
        else
            say_part("job %.8s: changed\n", id);
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
    say_part("job %s\n", id);
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
            say_part(
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
    int r = cmd_parse(&args, argc, argv, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id)))
        return r;
    r = westlight_archive(westlight, id, !args.undo);
    if (r)
        r = complain_library(r, westlight_why(westlight));
    else if (args.json)
        show_json(json_pack("{s:s,s:s,s:b}", "id", id, "did", "archive", "archived", !args.undo),
                  false);
    else
        say_part("job %.8s is %s\n", id,
                 args.undo ? "in the list again" : "archived: westlight jobs --archived lists it");
    westlight_close(westlight);
    return r;
}
