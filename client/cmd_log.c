/* cmd_log.c - what a task printed: while it runs, and afterwards every attempt's own. */
#include <client/cmd.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <client/show.h>

static int text_print(void *user, const char *text, size_t size)
{
    size_t *printed = user;

    *printed += size;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0 ? 0 : -1;
}

static int attempt_json(void *user, const struct westlight_attempt *attempt)
{
    json_array_append_new(user, show_attempt_json(attempt));
    return 0;
}

struct newest {
    char text[512];
    uint64_t sequence;
};

static int attempt_newest(void *user, const struct westlight_attempt *attempt)
{
    struct newest *newest = user;

    if (attempt->sequence < newest->sequence || strcmp(attempt->class_name, "ok") == 0)
        return 0;
    newest->sequence = attempt->sequence;
    snprintf(newest->text, sizeof(newest->text), "%s on %s: %s", attempt->class_name,
             attempt->worker, attempt->message);
    return 0;
}

#define FAILURE_TASKS_MAX 8 /* how many tasks are asked for an attempt that failed */

void cmd_failure(struct westlight *westlight, const char *id, const struct westlight_range *frames,
                 char *ret_text, size_t size)
{
    struct newest newest = {0};

    for (uint32_t step = 0; step < 2 && !newest.sequence; step++) {
        int64_t task = 0;

        if (frames && westlight_task_of_frame(westlight, id, step, frames->first, &task) == 0 &&
            task >= 0) {
            westlight_attempts(westlight, id, step, (uint64_t)task, attempt_newest, &newest);
            continue;
        }
        for (task = 0; task < FAILURE_TASKS_MAX && !newest.sequence; task++)
            if (westlight_attempts(westlight, id, step, (uint64_t)task, attempt_newest, &newest))
                break;
    }
    snprintf(ret_text, size, "%s", newest.text);
}

/* The step and task that the user means: the frame's in the first step that has it, else task 0. */
static int task_choose(struct westlight *westlight, const char *id, const struct cmd_args *args,
                       uint32_t *ret_step, uint64_t *ret_task)
{
    const struct westlight_shown *shown;
    uint32_t n_steps, first = args->step < 0 ? 0 : (uint32_t)args->step;
    int64_t task = -1;
    int r = westlight_show(westlight, id, &shown);

    if (r)
        return complain_library(r, westlight_why(westlight));
    n_steps = args->step < 0 ? (uint32_t)shown->n_steps : first + 1;
    if (first >= shown->n_steps) {
        complain("log: the job has steps 0 to %zu, not %ld", shown->n_steps - 1, args->step);
        return EXIT_USAGE;
    }
    if (!args->n_frames) {
        *ret_step = first;
        *ret_task = 0;
        return 0;
    }
    for (uint32_t step = first; step < n_steps && task < 0; step++) {
        r = westlight_task_of_frame(westlight, id, step, args->frames[0].first, &task);
        if (r)
            return complain_library(r, westlight_why(westlight));
        *ret_step = step;
    }
    if (task < 0) {
        complain("log: the job has no frame %" PRId64 ": westlight show %.8s lists its frames",
                 args->frames[0].first, id);
        return EXIT_USAGE;
    }
    *ret_task = (uint64_t)task;
    return 0;
}

int cmd_log(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_args args;
    uint32_t step = 0;
    uint64_t task = 0;
    size_t printed = 0;
    int r = cmd_parse(&args, argc, argv, CMD_FRAMES | CMD_ATTEMPT | CMD_FOLLOW, 1, 1);

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
                          text_print, &printed);
    if (r && r != WESTLIGHT_E_STOPPED)
        r = complain_library(r, westlight_why(westlight));
    else if (!args.json && !printed && r == 0)
        fprintf(stderr, "westlight: the task has printed nothing yet\n");
out:
    westlight_close(westlight);
    cmd_args_deinit(&args);
    return r == WESTLIGHT_E_STOPPED ? 0 : r;
}
