/* cmd_render.c - render and submit: a scene in, its frames out.
 *
 * The idea: two connections. One watches the job and draws; the other, in a thread of its own
 * (render_home.c), brings each result home as it is committed. Neither waits for the other.
 */
#include <client/cmd.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <client/local.h>
#include <client/pin.h>
#include <client/preset.h>
#include <client/printable.h>
#include <client/render_submit.h>
#include <client/say.h>
#include <client/show.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define WARNINGS_SAID 10 /* at the end; westlight show has more */

static double seconds_since(int64_t began_ns)
{
    return (double)(clock_monotonic_ns() - began_ns) / NS_PER_S;
}

/* ---- the private farm ---- */

struct others {
    char mine[WESTLIGHT_ID_TEXT];
    char (*ids)[WESTLIGHT_ID_TEXT];
    size_t n;
};

static int other_take(void *user, const struct westlight_row *row)
{
    struct others *others = user;

    if (strcmp(row->state, "active") != 0 || strcmp(row->id, others->mine) == 0)
        return 0;
    others->ids = reallocarray(others->ids, others->n + 1, sizeof(*others->ids));
    if (!others->ids)
        abort();
    strcpy(others->ids[others->n++], row->id);
    return 0;
}

/* What other commands left unfinished on the private farm waits for those commands. */
static int others_pause(struct render *render)
{
    struct others others = {0};
    uint64_t tasks;
    int r;

    local_run_job(render->local, others.mine);
    r = westlight_jobs(render->westlight, WESTLIGHT_UNFINISHED, other_take, &others);
    for (size_t i = 0; r == 0 && i < others.n; i++)
        r = westlight_do(render->westlight, others.ids[i], WESTLIGHT_PAUSE, NULL, 0, &tasks);
    free(others.ids);
    return r ? complain_library(r, westlight_why(render->westlight)) : 0;
}

/* The private farm may hold the job already: go on with it, giving what failed another chance. */
static bool continued(struct render *render)
{
    const struct westlight_shown *shown;
    char id[WESTLIGHT_ID_TEXT];
    uint64_t tasks;

    if (!render->local || !local_run_job(render->local, id))
        return false;
    if (westlight_show(render->westlight, id, &shown) ||
        strcmp(shown->row.state, "cancelled") == 0) {
        local_run_forget(render->local);
        return false;
    }
    bool failed = shown->row.counts.failed > 0, paused = strcmp(shown->row.phase, "paused") == 0;

    if (failed && westlight_do(render->westlight, id, WESTLIGHT_RETRY, NULL, 0, &tasks))
        return false;
    if (paused)
        westlight_do(render->westlight, id, WESTLIGHT_RESUME, NULL, 0, &tasks);

    strcpy(render->id, id);
    if (!render->options.json)
        say_part("job %s goes on where it stopped\n", id);
    return true;
}

/* ---- watching ---- */

struct ending {
    bool finished, stuck;
    char why[1024];
};

/* What the workers that are connected cannot run; that none is connected yet is another matter. */
static bool nobody_can(const char *why)
{
    return strncmp(why, "no connected worker", 19) == 0;
}

/* On a private farm nobody else will come: what no worker there can run never will. */
static bool never_runs(const struct render *render, const struct westlight_notice *notice,
                       const char *why, int64_t quiet_since_ns)
{
    return render->local && nobody_can(why) &&
           notice->row.counts.running + notice->row.counts.leased == 0 &&
           seconds_since(quiet_since_ns) > 5;
}

static void say_waiting(struct render *render, const char *why, char last[1024])
{
    if (!*why || strcmp(why, last) == 0 || render->options.json)
        return;
    snprintf(last, 1024, "%s", why);
    say("waiting: %s", why);
}

/* What the bar counts: a task is a frame, but for chunks and jobs of several steps. */
static const char *unit_of(const struct options *options, const struct westlight_counts *counts)
{
    uint64_t frames = options->n_frames ? 0 : 1;

    for (size_t i = 0; i < options->n_frames; i++) {
        const struct westlight_range *range = &options->frames[i];

        frames += (uint64_t)(range->last - range->first) / (uint64_t)range->step + 1;
    }
    return frames == counts->tasks ? "frames" : "tasks";
}

static bool notice_ends(struct render *render, const struct westlight_notice *notice,
                        const char *why, int64_t quiet_since_ns, struct ending *ending)
{
    if (notice->row.finished) {
        ending->finished = true;
        return true;
    }
    if (strcmp(notice->row.phase, "paused") == 0 && notice->row.paused_itself &&
        notice->row.counts.running + notice->row.counts.leased == 0)
        return true;
    if (never_runs(render, notice, why, quiet_since_ns)) {
        ending->stuck = true;
        snprintf(ending->why, sizeof(ending->why), "%s", why);
        return true;
    }
    return false;
}

/* Until the job is finished, has paused itself, can never run, or Ctrl-C. */
static int follow(struct render *render, struct ending *ending)
{
    const struct westlight_notice *notice = NULL;
    struct westlight_counts counts = {0};
    struct show_pace pace = {0};
    int64_t quiet_since_ns = clock_monotonic_ns(), lost_ns = 0;
    char last[1024] = "", why[1024] = "";
    unsigned quiet = 0;
    int r = westlight_watch(render->westlight, render->id);

    while (!cmd_interrupted()) {
        if (r == 0)
            r = westlight_next(render->westlight, 250, &notice);
        if (r == 0) {
            lost_ns = 0;
            counts = notice->row.counts;
            snprintf(why, sizeof(why), "%s", notice->n_why ? notice->why[0] : "");
            if (counts.running + counts.leased ||
                (render->local ? !nobody_can(why) : strncmp(why, "no ", 3) != 0))
                quiet_since_ns = clock_monotonic_ns();
            else if (seconds_since(quiet_since_ns) > 1)
                say_waiting(render, why, last);
            if (notice_ends(render, notice, why, quiet_since_ns, ending))
                return 0;
        } else if (r == WESTLIGHT_E_TIMEOUT) {
            /* Asks anew each second: a notice that was lost costs no more. */
            r = ++quiet % 4 ? 0 : westlight_watch(render->westlight, render->id);
        } else if (r == WESTLIGHT_E_UNREACHABLE && (!lost_ns || seconds_since(lost_ns) < 600)) {
            lost_ns = lost_ns ? lost_ns : clock_monotonic_ns();
            say_waiting(render, westlight_why(render->westlight), last);
            r = westlight_watch(render->westlight, render->id);
        } else
            return r;
        if (render->local && !local_alive(render->local))
            return WESTLIGHT_E_UNREACHABLE;
        if (!render->options.json && counts.tasks)
            show_progress(&pace, &counts, unit_of(&render->options, &counts),
                          seconds_since(render->began_ns));
    }
    return WESTLIGHT_E_STOPPED;
}

/* ---- the end ---- */

static void say_detached(const struct render *render)
{
    if (render->local) {
        say_part("\nstopped; the private farm keeps its state: run the same command to go on\n");
        return;
    }
    say_part("\ndetached: the farm renders on. job %.8s\n"
             "  westlight watch %.8s\n"
             "  westlight fetch %.8s -o '%s' --follow\n"
             "  westlight cancel %.8s\n",
             render->id, render->id, render->id, render->out, render->id);
}

/* Of the steps whose results come home, with whatever failed on the way there. */
static struct westlight_counts counts_home(const struct westlight_shown *shown)
{
    struct westlight_counts counts = {0};

    for (size_t i = 0; i < shown->n_steps; i++) {
        counts.failed += shown->steps[i].counts.failed;
        if (shown->steps[i].interim)
            continue;
        counts.tasks += shown->steps[i].counts.tasks;
        counts.done += shown->steps[i].counts.done;
    }
    return counts;
}

static void summary_json(const struct render *render, const struct westlight_shown *shown, int code,
                         const char *why)
{
    const struct westlight_counts home = counts_home(shown), *counts = &home;

    show_json(json_pack("{s:s,s:s,s:s,s:o,s:o,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "id",
                        render->id, "software", render->software, "phase", shown->row.phase, "why",
                        show_text_json(why), "folder", show_text_json(render->out), "exit", code,
                        "frames_total", (json_int_t)counts->tasks, "frames_done",
                        (json_int_t)counts->done, "frames_failed", (json_int_t)counts->failed,
                        "tasks_home", (json_int_t)render->home.n, "files",
                        (json_int_t)render->files, "bytes", (json_int_t)render->bytes, "bytes_sent",
                        (json_int_t)render->upload.bytes_sent, "bytes_received",
                        (json_int_t)render->fetch.bytes_received, "cpu_seconds",
                        (double)shown->usage.cpu_ns / 1e9, "seconds",
                        seconds_since(render->began_ns)),
              false);
}

static void say_failed(struct render *render, const struct westlight_row *row, const char *failed,
                       const char *why)
{
    if (strcmp(row->phase, "paused") == 0)
        complain("job %.8s has paused itself: %s", render->id, row->reason);
    else
        complain("%" PRIu64 " of %" PRIu64 " task%s failed%s%s", row->counts.failed,
                 row->counts.tasks, plural(row->counts.tasks),
                 !*failed                    ? ""
                 : strpbrk(failed + 1, "-,") ? ": frames "
                                             : ": frame ",
                 failed);
    if (*why)
        complain("%s", why);
    if (render->local)
        complain("the same command tries again; what was done is kept in %s",
                 local_folder(render->local));
    else
        complain("westlight log %.8s says more; westlight retry %.8s and westlight resume %.8s run "
                 "them again",
                 render->id, render->id, render->id);
}

/* The last lines of what the failed task printed. */
static int log_tail(void *user, const char *text, size_t size)
{
    char *tail = user;
    size_t have = strlen(tail), keep = 4096 - 1;

    if (size >= keep) {
        text += size - keep;
        size = keep;
        have = 0;
    } else if (have + size > keep) {
        size_t drop = have + size - keep;

        memmove(tail, tail + drop, have - drop);
        have -= drop;
    }
    memcpy(tail + have, text, size);
    tail[have + size] = 0;
    return 0;
}

static void say_log(struct render *render, const struct cmd_failure *failure)
{
    char tail[4096] = "", *line;
    bool lead = false;
    int lines = 0;

    if (westlight_log(render->westlight, render->id, failure->step, failure->task, 0, false,
                      log_tail, tail) ||
        !*tail)
        return;
    for (line = tail + strlen(tail); line > tail && lines < 12; line--)
        lines += line[-1] == '\n';
    fputs("the last lines it printed:\n", stderr);
    printable_stream(stderr, line, strlen(line), &lead);
    if (tail[strlen(tail) - 1] != '\n')
        fputc('\n', stderr);
}

static int warning_say(void *user, const struct westlight_attempt *attempt)
{
    complain("warning: %s on %s: %s", attempt->task_name, attempt->worker, attempt->message);
    return 0;
}

static int conclude(struct render *render, const struct ending *ending)
{
    const struct westlight_shown *shown;
    struct cmd_failure failure = {0};
    char failed[256] = "", in[32], out[32], time[32];
    int code = EXIT_ALL_HOME, r = westlight_show(render->westlight, render->id, &shown);
    const struct westlight_row *row;
    struct westlight_counts home;

    if (r)
        return complain_library(r, westlight_why(render->westlight));
    row = &shown->row;
    for (size_t i = 0; i < shown->n_steps && !*failed; i++)
        snprintf(failed, sizeof(failed), "%s", shown->steps[i].frames_failed);
    if (ending->stuck)
        code = EXIT_UNREACHABLE;
    else if (row->counts.failed || strcmp(row->phase, "paused") == 0)
        code = EXIT_FAILED;
    else if (render->home.n < counts_home(shown).tasks || render->fetched)
        code = EXIT_PARTIAL;
    if (code == EXIT_FAILED)
        cmd_failure(render->westlight, render->id, &failure);
    if (code == EXIT_FAILED && westlight_show(render->westlight, render->id, &shown))
        return code;
    row = &shown->row;
    home = counts_home(shown);

    if (render->options.json)
        summary_json(render, shown, code, ending->stuck ? ending->why : failure.text);
    else {
        say("%zu of %" PRIu64 " task%s home: %" PRIu64 " file%s, verified, in %s", render->home.n,
            home.tasks, plural(home.tasks), render->files, plural(render->files), render->out);
        say("%s; %.1f CPU-seconds; %s sent, %s received",
            show_seconds(seconds_since(render->began_ns), time), (double)shown->usage.cpu_ns / 1e9,
            show_bytes(render->upload.bytes_sent, out),
            show_bytes(render->fetch.bytes_received, in));
    }
    if (code == EXIT_FAILED) {
        say_failed(render, row, failed, failure.text);
        say_log(render, &failure);
    }
    if (ending->stuck)
        complain("%s", ending->why);
    if (render->fetched && render->fetched != WESTLIGHT_E_STATE)
        complain("not everything is home: %s", render->fetched_why);
    westlight_warnings(render->westlight, render->id, WARNINGS_SAID, warning_say, NULL);
    return code;
}

static int bring_home(struct render *render)
{
    struct ending ending = {0};
    uint64_t tasks;
    int r = render_home_begin(render);

    if (r)
        return r;
    r = follow(render, &ending);
    render_home_end(render, !ending.finished);
    say_bar_end();
    if (r == WESTLIGHT_E_STOPPED) {
        say_detached(render);
        return EXIT_PARTIAL;
    }
    if (r)
        return complain_library(r, westlight_why(render->westlight));

    if (!ending.finished) { /* what was committed before the end came */
        render->fetched = render_home_once(render, render->westlight, false);
        snprintf(render->fetched_why, sizeof(render->fetched_why), "%s",
                 westlight_why(render->westlight));
    }
    if (ending.stuck &&
        westlight_do(render->westlight, render->id, WESTLIGHT_CANCEL, NULL, 0, &tasks) == 0)
        local_run_forget(render->local);
    return conclude(render, &ending);
}

/* ---- --dry-run ---- */

/* Nothing is sent and no job is made; a farm is asked which blocks it has. */
static int dry_run(struct render *render, const struct inputs *inputs, struct westlight_job *job)
{
    struct westlight_upload upload = {0};
    int r = render_farm(render);

    if (r == 0) {
        cmd_interruptible(render->westlight);
        r = westlight_estimate(render->westlight, job, &upload);
        r = r ? complain_library(r, westlight_why(render->westlight)) : 0;
    }
    if (r)
        return r;
    if (render->options.json)
        show_json(show_inputs_json(inputs, &upload), false);
    else
        show_inputs(inputs, &upload);
    return inputs->missing.n && !render->options.allow_missing ? EXIT_USAGE : 0;
}

/* Before anything is rendered. Where nobody fetches yet, nothing is made and nothing refused. */
static int out_check(const struct render *render, bool wait)
{
    char path[sizeof(render->out)], *slash;
    int r = wait ? folder_make(render->out, 0777) : 0;
    struct stat status;

    snprintf(path, sizeof(path), "%s", render->out);
    while (r == 0 && stat(path, &status) < 0) {
        if (errno != ENOENT)
            r = -errno;
        else if ((slash = strrchr(path, '/')))
            slash[slash == path] = 0;
    }
    if (r == 0 && !S_ISDIR(status.st_mode))
        r = -ENOTDIR;
    if (r == 0 && access(path, W_OK | X_OK) < 0)
        r = -errno;
    if (r == 0)
        return 0;
    complain("-o %s: %s: %s", render->out, strerror(-r),
             wait ? "name a folder that can be written" : "fetch will need another");
    return wait ? EXIT_USAGE : 0;
}

static int run(int argc, char **argv, bool wait)
{
    struct render render = {.lock = PTHREAD_MUTEX_INITIALIZER,
                            .wake = PTHREAD_COND_INITIALIZER,
                            .began_ns = clock_monotonic_ns()};
    struct westlight_job *job = NULL;
    struct inputs inputs = {0};
    struct preset_facts facts;
    int r = options_parse(&render.options, args_find(&cmd_program, argv[0]), argc, argv);

    render_submit_words(&render, argc, argv);
    if (r == 0 && render.options.resume)
        r = render_again(&render, &wait);
    if (r == 0 && !render.accepted)
        r = preset_job(&render.options, &inputs, &job, &render.preset, &facts, render.out);
    if (r == 0 && !render.options.dry_run && !render.accepted)
        r = out_check(&render, wait);
    if (r == 0 && render.options.dry_run) {
        r = dry_run(&render, &inputs, job);
        wait = false;
    } else if (r == 0)
        r = render_farm(&render);
    if (r == 0)
        cmd_interruptible(render.westlight);
    if (r == 0 && !render.options.dry_run && !render.accepted) {
        r = render.local ? others_pause(&render) : 0;
        if (r == 0 && render.local)
            r = local_workers(render.local, render.options.slots);
        if (r == 0 && !continued(&render) &&
            (r = pin_version(&(struct pin){render.westlight, render.local, &render.options,
                                           render.preset, &facts},
                             job, render.software)) == 0)
            r = render_submit(&render, job);
    }
    if (r == 0 && wait)
        r = bring_home(&render);
    else if (r == 0 && !render.options.dry_run)
        render_submitted(&render);

    cmd_interruptible(NULL);
    inputs_deinit(&inputs);
    westlight_job_free(job);
    westlight_close(render.fetcher);
    westlight_close(render.westlight);
    local_stop(render.local);
    block_set_deinit(&render.home);
    options_deinit(&render.options);
    unsent_deinit(&render.unsent);
    return r;
}

int cmd_render(int argc, char **argv)
{
    return run(argc, argv, true);
}

int cmd_submit(int argc, char **argv)
{
    return run(argc, argv, false);
}
