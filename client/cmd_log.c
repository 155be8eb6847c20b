/* cmd_log.c - what a task printed: while it runs, and afterwards every attempt's own. */
#include <client/cmd.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/printable.h>
#include <client/show.h>
#include <proto/base/bytes.h>

#define FAILURES_SEEN 1000 /* of the whole job, newest first */

struct printing {
    size_t printed;
    bool terminal, lead;
};

/* As it was printed, except on a terminal, which would obey it. */
static int text_print(void *user, const char *text, size_t size)
{
    struct printing *printing = user;

    printing->printed += size; /* main says it where nothing can be written */
    if (printing->terminal)
        printable_stream(stdout, text, size, &printing->lead);
    else
        fwrite(text, 1, size, stdout);
    return !ferror(stdout) && fflush(stdout) == 0 ? 0 : WESTLIGHT_E_STOPPED;
}

static int attempt_json(void *user, const struct westlight_attempt *attempt)
{
    json_array_append_new(user, show_attempt_json(attempt));
    return 0;
}

static int failure_take(void *user, const struct westlight_attempt *attempt)
{
    struct cmd_failure *failure = user;

    failure->step = attempt->step;
    failure->task = attempt->task;
    snprintf(failure->text, sizeof(failure->text), "%s: %s on %s: %s", attempt->task_name,
             attempt->class_name, attempt->worker,
             *attempt->message ? attempt->message : "it said no more");
    return 0;
}

bool cmd_failure(struct westlight *westlight, const char *id, struct cmd_failure *ret_failure)
{
    *ret_failure = (struct cmd_failure){0};
    return westlight_failures(westlight, id, 1, failure_take, ret_failure) == 0 &&
           *ret_failure->text;
}

struct newest {
    uint32_t step;
    uint64_t first, n;
    int64_t task;
};

static int newest_take(void *user, const struct westlight_attempt *attempt)
{
    struct newest *newest = user;

    if (newest->task < 0 && attempt->step == newest->step && attempt->task >= newest->first &&
        attempt->task - newest->first < newest->n)
        newest->task = (int64_t)attempt->task;
    return 0;
}

/* Of a frame's tiles the one that is named, else the newest that failed, else the first. */
static int tile_choose(struct westlight *westlight, const char *id, const struct cmd_args *args,
                       uint32_t step, uint64_t tiles, int64_t *task)
{
    struct newest newest = {step, (uint64_t)*task, tiles, -1};

    if (args->tile > 0 && (uint64_t)args->tile > tiles) {
        complain("log --tile %ld: the frame has %" PRIu64 " tile%s", args->tile, tiles,
                 plural(tiles));
        return EXIT_USAGE;
    }
    if (args->tile > 0)
        *task += args->tile - 1;
    else if (tiles > 1 &&
             westlight_failures(westlight, id, FAILURES_SEEN, newest_take, &newest) == 0 &&
             newest.task >= 0)
        *task = newest.task;
    return 0;
}

/* The step and task that the user means: the frame's in the first step that has it; without one,
 * the newest that failed, else the first. */
static int task_choose(struct westlight *westlight, const char *id, const struct cmd_args *args,
                       uint32_t *ret_step, uint64_t *ret_task)
{
    const struct westlight_shown *shown;
    struct cmd_failure failure;
    uint32_t n_steps, first = args->step < 0 ? 0 : (uint32_t)args->step;
    uint64_t tiles = 0;
    int64_t task = -1;
    int r = westlight_show(westlight, id, &shown);

    if (r)
        return complain_library(r, westlight_why(westlight));
    n_steps = args->step < 0 ? (uint32_t)shown->n_steps : first + 1;
    if (first >= shown->n_steps) {
        complain("log: the job has steps 0 to %zu, not %ld", shown->n_steps - 1, args->step);
        return EXIT_USAGE;
    }
    if (args->tile > 0 && !args->n_frames) {
        complain("log --tile %ld: of which frame? add -f FRAME", args->tile);
        return EXIT_USAGE;
    }
    if (!args->n_frames) {
        bool failed = args->step < 0 && cmd_failure(westlight, id, &failure);

        *ret_step = failed ? failure.step : first;
        *ret_task = failed ? failure.task : 0;
        return 0;
    }
    if (args->n_frames > 1 || args->frames[0].first != args->frames[0].last) {
        complain("log -f %s: it shows one frame at a time: name one, such as -f %" PRId64,
                 args->frames_text, args->frames[0].first);
        return EXIT_USAGE;
    }
    for (uint32_t step = first; step < n_steps && task < 0; step++) {
        r = westlight_task_of_frame(westlight, id, step, args->frames[0].first, &task, &tiles);
        if (r)
            return complain_library(r, westlight_why(westlight));
        *ret_step = step;
    }
    if (task < 0) {
        complain("log: the job has no frame %" PRId64 ": westlight show %.8s lists its frames",
                 args->frames[0].first, id);
        return EXIT_USAGE;
    }
    r = tile_choose(westlight, id, args, *ret_step, tiles, &task);
    *ret_task = (uint64_t)task;
    return r;
}

int cmd_log(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_args args;
    uint32_t step = 0;
    uint64_t task = 0;
    struct printing printing = {.terminal = isatty(STDOUT_FILENO)};
    int r = cmd_parse(&args, argc, argv, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id)) ||
        (r = task_choose(westlight, id, &args, &step, &task)))
        goto out;
    cmd_interruptible(westlight);
    if (args.json) {
        json_t *array = json_array();

        r = westlight_attempts(westlight, id, step, task, attempt_json, array);
        if (r == 0)
            show_json(array, false);
        else
            json_decref(array);
    } else
        r = westlight_log(westlight, id, step, task, (uint32_t)args.attempt, args.follow,
                          text_print, &printing);
    if (r && r != WESTLIGHT_E_STOPPED)
        r = complain_library(r, westlight_why(westlight));
    else if (!args.json && !printing.printed && r == 0)
        fprintf(stderr, "westlight: the task has printed nothing yet\n");
out:
    westlight_close(westlight);
    cmd_args_deinit(&args);
    return r == WESTLIGHT_E_STOPPED ? 0 : r;
}
