/* cmd_job.c - the verbs on a job that is there already: jobs, show, watch, fetch, cancel, pause,
 * resume, retry.
 */
#include <client/cmd.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <client/say.h>
#include <client/show.h>
#include <client/unsent.h>
#include <proto/base/bytes.h>

struct jobs {
    json_t *array;
    size_t n;
};

static int row_print(void *user, const struct westlight_row *row)
{
    struct jobs *jobs = user;

    if (jobs->array) {
        json_array_append_new(jobs->array, show_row_json(row));
        return 0;
    }
    if (jobs->n++ == 0) /* where there is none, a reason stands alone */
        show_row_head();
    show_row(row);
    return 0;
}

int cmd_jobs(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    struct cmd_args args;
    struct jobs jobs = {0};
    int r = cmd_parse(&args, argc, argv, 0, 0);

    if (r || (r = cmd_open(args.farm, &westlight)))
        return r;
    if (args.json)
        jobs.array = json_array();
    r = westlight_jobs(westlight,
                       args.archived ? WESTLIGHT_ARCHIVED
                       : args.all    ? WESTLIGHT_ALL
                                     : WESTLIGHT_UNFINISHED,
                       row_print, &jobs);
    if (r) {
        r = complain_library(r, westlight_why(westlight));
        json_decref(jobs.array);
    } else if (jobs.array)
        show_json(jobs.array, false);
    else if (!jobs.n)
        say_part("no jobs%s\n", args.archived ? " that are archived"
                                : args.all    ? ""
                                              : " that are not finished; --all lists every one");
    westlight_close(westlight);
    return r;
}

enum { WARNINGS_SHOWN = 20 };

static int warning_print(void *user, const struct westlight_attempt *attempt)
{
    size_t *n = user;

    if (++*n > WARNINGS_SHOWN)
        say_part("           and more: westlight show --json has them all\n");
    else
        say_part("warning    %s on %s: %s\n", attempt->task_name, attempt->worker,
                 attempt->message);
    return 0;
}

static int warning_add(void *user, const struct westlight_attempt *attempt)
{
    json_array_append_new(user, show_warning_json(attempt));
    return 0;
}

static int show_with_warnings(struct westlight *westlight, const char *id,
                              const struct westlight_shown *shown)
{
    json_t *json = show_job_json(shown), *warnings = json_array();
    int r = shown->row.uploading
                ? 0
                : westlight_warnings(westlight, id, UINT32_MAX, warning_add, warnings);

    json_object_set_new(json, "warnings", warnings);
    if (r)
        json_decref(json);
    else
        show_json(json, false);
    return r ? complain_library(r, westlight_why(westlight)) : 0;
}

int cmd_show(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    const struct westlight_shown *shown;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_failure failure;
    struct cmd_args args;
    int r = cmd_parse(&args, argc, argv, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id)))
        return r;
    r = westlight_show(westlight, id, &shown);
    if (r)
        r = complain_library(r, westlight_why(westlight));
    else if (args.json)
        r = show_with_warnings(westlight, id, shown);
    else {
        bool failed = shown->row.attempts_failed > 0;
        size_t warnings = 0;

        bool uploading = shown->row.uploading;

        show_job(shown);
        if (failed && cmd_failure(westlight, id, &failure))
            say("last fault %s\n           westlight log %.8s says more; westlight retry %.8s "
                "runs failed frames again",
                failure.text, id, id);
        if (!uploading)
            westlight_warnings(westlight, id, WARNINGS_SHOWN + 1, warning_print, &warnings);
    }
    westlight_close(westlight);
    return r;
}

static int end_code(const struct westlight_row *row)
{
    if (row->counts.failed || row->paused_itself)
        return EXIT_FAILED;
    return row->counts.done == row->counts.tasks ? EXIT_ALL_HOME : EXIT_PARTIAL;
}

struct watching {
    struct show_pace pace;
    struct westlight_counts counts;
    time_t began;
    bool json;
    char last[256];
};

static bool watching_bar(struct watching *watching)
{
    return show_progress(&watching->pace, &watching->counts, "tasks",
                         difftime(time(NULL), watching->began));
}

/* Each change is a line; above a bar, which shows the counts, each change of anything else. */
static void notice_print(struct watching *watching, const struct westlight_notice *notice)
{
    const struct westlight_counts *counts = &notice->row.counts;
    const char *why = notice->n_why ? notice->why[0] : "", *colon = *why ? ": " : "";
    char line[256];

    if (watching->json) {
        show_json(show_row_json(&notice->row), true);
        return;
    }
    watching->counts = *counts;
    if (watching_bar(watching) && !notice->row.finished)
        snprintf(line, sizeof(line), "%s%s%s", notice->row.phase, colon, why);
    else
        snprintf(line, sizeof(line),
                 "%s %" PRIu64 "/%" PRIu64 " done, %" PRIu64 " running, %" PRIu64 " failed%s%s",
                 notice->row.phase, counts->done, counts->tasks, counts->running, counts->failed,
                 colon, why);
    if (strcmp(line, watching->last) != 0)
        say("%s", line);
    snprintf(watching->last, sizeof(watching->last), "%s", line);
}

int cmd_watch(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    const struct westlight_notice *notice;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_args args;
    struct watching watching = {.began = time(NULL)};
    bool over = false;
    int r = cmd_parse(&args, argc, argv, 1, 1), code = EXIT_PARTIAL;

    if (r || (r = cmd_open_job(&args, &westlight, id)))
        return r;
    watching.json = args.json;
    cmd_interruptible(westlight);
    r = westlight_watch(westlight, id);
    while (r == 0 || r == WESTLIGHT_E_TIMEOUT) {
        r = westlight_next(westlight, 1000, &notice);
        if (r == WESTLIGHT_E_TIMEOUT && watching.counts.tasks)
            watching_bar(&watching); /* time goes on */
        if (r)
            continue;
        notice_print(&watching, notice);
        over = notice->row.paused_itself &&
               notice->row.counts.leased + notice->row.counts.running == 0;
        if (notice->row.finished || over) {
            code = end_code(&notice->row);
            break;
        }
    }
    say_bar_end();
    if (r == 0 && over)
        complain("job %.8s has paused itself: %s: westlight log %.8s shows why; westlight retry "
                 "%.8s or westlight resume %.8s goes on",
                 id, notice->row.reason, id, id, id);
    if (r && r != WESTLIGHT_E_STOPPED)
        code = complain_library(r, westlight_why(westlight));
    westlight_close(westlight);
    return code;
}

/* ---- fetch ---- */

struct fetching {
    bool json, lines;
    uint64_t files, skipped, bytes;
};

static int file_print(void *user, const struct westlight_fetched *file)
{
    struct fetching *fetching = user;
    char size[32];

    fetching->files++;
    fetching->bytes += file->bytes;
    fetching->skipped += file->skipped;
    if (fetching->lines)
        show_json(json_pack("{s:o,s:o,s:I,s:b}", "task", show_text_json(file->task_name), "file",
                            show_text_json(file->path), "bytes", (json_int_t)file->bytes, "skipped",
                            file->skipped),
                  true);
    else if (!fetching->json && !file->skipped)
        say("%s: %s (%s)", file->task_name, file->path, show_bytes(file->bytes, size));
    return 0;
}

/* `row` is NULL where nobody was asked how far the job is: a stop waits for no broker. */
static void fetch_say(const struct fetching *fetching, const struct westlight_fetch *fetch,
                      const char *id, const struct westlight_row *row)
{
    char size[32], state[128] = "stopped";

    if (row)
        snprintf(state, sizeof(state), "%" PRIu64 " of %" PRIu64 " task%s done, job %s",
                 row->counts.done, row->counts.tasks, plural(row->counts.tasks), row->phase);
    if (fetching->json)
        show_json(json_pack("{s:s,s:o,s:s?,s:I,s:I,s:I,s:I}", "id", id, "folder",
                            show_text_json(fetch->folder), "phase", row ? row->phase : NULL,
                            "files", (json_int_t)fetching->files, "skipped",
                            (json_int_t)fetching->skipped, "bytes", (json_int_t)fetching->bytes,
                            "bytes_received", (json_int_t)fetch->bytes_received),
                  fetching->lines);
    else
        say("%" PRIu64 " file%s in %s, %s, %" PRIu64 " there already; %s", fetching->files,
            plural(fetching->files), fetch->folder, show_bytes(fetching->bytes, size),
            fetching->skipped, state);
}

int cmd_fetch(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    const struct westlight_shown *shown;
    char id[WESTLIGHT_ID_TEXT], folder[4096];
    struct cmd_args args;
    struct fetching fetching = {0};
    int r = cmd_parse(&args, argc, argv, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id)))
        return r;
    cmd_interruptible(westlight);
    fetching.json = args.json;
    fetching.lines = args.json && args.follow;
    if (!westlight_folder(id, folder, sizeof(folder)))
        snprintf(folder, sizeof(folder), "westlight-%.8s", id);

    struct westlight_fetch fetch = {.folder = args.out ? args.out : folder,
                                    .follow = args.follow,
                                    .force = args.force,
                                    .deliver = args.deliver,
                                    .on_file = file_print,
                                    .user = &fetching};

    r = westlight_fetch(westlight, id, &fetch);
    if (r == WESTLIGHT_E_STOPPED) {
        fetch_say(&fetching, &fetch, id, NULL);
        r = EXIT_PARTIAL;
    } else if (r) {
        r = complain_library(r, westlight_why(westlight));
    } else if (westlight_show(westlight, id, &shown) == 0) {
        r = end_code(&shown->row);
        fetch_say(&fetching, &fetch, id, &shown->row);
        if (shown->row.last_result > fetch.after) {
            complain("results came in while this ran: fetch again, or with --follow");
            r = r == EXIT_ALL_HOME ? EXIT_PARTIAL : r;
        }
    } else {
        complain("%s", westlight_why(westlight));
        r = EXIT_PARTIAL;
    }
    westlight_close(westlight);
    return r;
}

/* ---- verbs ---- */

/* A broker forgets uploads when it is started anew; one that was begun here can still be ended. */
static int give_up(const char *prefix)
{
    char id[WESTLIGHT_ID_TEXT];

    if (!unsent_forget(prefix, id))
        return EXIT_USAGE;
    complain("but an upload %.8s was begun here: it is given up", id);
    return 0;
}

static int verb(int argc, char **argv, enum westlight_verb what, const char *past)
{
    struct westlight *westlight = NULL;
    char id[WESTLIGHT_ID_TEXT];
    struct cmd_args args;
    uint64_t tasks = 0;
    int r = cmd_parse(&args, argc, argv, 1, 1);

    if (r || (r = cmd_open_job(&args, &westlight, id))) {
        if (r == EXIT_USAGE && what == WESTLIGHT_CANCEL && args.n_words == 1 && !args.n_frames)
            r = give_up(args.words[0]);
        cmd_args_deinit(&args);
        return r;
    }
    r = westlight_do(westlight, id, what, args.frames, args.n_frames, &tasks);
    bool upload = r == 0 && *westlight_why(westlight);
    if (upload)
        unsent_forget(id, id); /* where it was begun here, and nobody sends it */
    if (r)
        r = complain_library(r, westlight_why(westlight));
    else if (args.json)
        show_json(json_pack("{s:s,s:s,s:I}", "id", id, "did", argv[0], "tasks", (json_int_t)tasks),
                  false);
    else if (upload)
        say_part("job %.8s: %s\n", id, westlight_why(westlight));
    else if (tasks == 0 && what != WESTLIGHT_RETRY)
        say_part("job %.8s: nothing of it was left to run: nothing has changed\n", id);
    else if (what == WESTLIGHT_PAUSE || what == WESTLIGHT_RESUME)
        say_part("job %.8s is %s\n", id, past);
    else
        say_part("job %.8s: %" PRIu64 " task%s %s\n", id, tasks, plural(tasks), past);
    westlight_close(westlight);
    cmd_args_deinit(&args);
    return r;
}

int cmd_cancel(int argc, char **argv)
{
    return verb(argc, argv, WESTLIGHT_CANCEL, "cancelled");
}

int cmd_pause(int argc, char **argv)
{
    return verb(argc, argv, WESTLIGHT_PAUSE, "paused: frames that run will finish");
}

int cmd_resume(int argc, char **argv)
{
    return verb(argc, argv, WESTLIGHT_RESUME, "active");
}

int cmd_retry(int argc, char **argv)
{
    return verb(argc, argv, WESTLIGHT_RETRY, "will run again");
}
