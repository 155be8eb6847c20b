/* render_submit.c - see render_submit.h. Before the first byte is sent it is written down how to go
 * on (unsent.c); whoever goes on repeats the command, under the id and the key of the first time.
 */
#include <client/render_submit.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/cmd.h>
#include <client/say.h>
#include <client/show.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define BAR_AFTER_NS (2 * NS_PER_S) /* most uploads need none */
#define BAR_NS       (250 * NS_PER_MS)

void render_submit_words(struct render *render, int argc, char **argv)
{
    render->unsent = (struct unsent){.argc = argc, .argv = argv, .lock = -1};
}

int render_farm(struct render *render)
{
    char why[1024] = "", run[65];
    int r;

    if (render->westlight)
        return 0;
    if (render->options.local) {
        local_run_name(&render->options, render->out, run);
        r = local_start(render->options.workers, run, &render->local);
        if (r)
            return r;
        render->farm = *local_farm(render->local);
        if (!render->options.json)
            say_part("private farm of %u worker%s in %s\n",
                     render->options.workers ? render->options.workers : 1,
                     plural(render->options.workers ? render->options.workers : 1),
                     local_folder(render->local));
    } else if ((r = cmd_farm(render->options.farm, &render->farm)))
        return r;

    r = westlight_open(&render->farm, CMD_OPEN_MS, &render->westlight, why, sizeof(why));
    if (r)
        return complain_library(r, why);
    cmd_tell_link(render->westlight);
    return 0;
}

/* ---- what is kept of an upload ---- */

static void keep(struct render *render, const struct westlight_upload *upload)
{
    struct unsent *unsent = &render->unsent;
    char folder[4096];

    unsent->submission = *upload->submission;
    unsent->folder = folder;
    unsent->out = render->out;
    unsent->farm = render->farm.name;
    if (!unsent->begun_wall_s) { /* else it is as it was */
        unsent->begun_wall_s = clock_wall_ns() / NS_PER_S;
        unsent->name = render->name;
    }
    int r = getcwd(folder, sizeof(folder)) ? unsent_keep(unsent) : -errno;
    render->kept = r == 0;
    if (r < 0)
        complain("the upload cannot be resumed if it is cut short: its notes cannot be written: %s",
                 strerror(-r));
    unsent->folder = unsent->out = NULL;
}

static void drop(struct render *render)
{
    if (render->kept)
        unsent_drop(&render->unsent);
    render->kept = false;
}

/* ---- the callbacks ---- */

static void on_id(void *user, const char id[WESTLIGHT_ID_TEXT])
{
    struct render *render = user;

    strcpy(render->id, id);
    if (!render->options.json) {
        say_part("job %s\n", id);
        fflush(stdout);
    }
}

static void bar(struct render *render, const struct westlight_upload *upload)
{
    int64_t now_ns = clock_monotonic_ns();
    char text[128], done[32], all[32];

    if (render->options.json || now_ns - render->uploading_ns < BAR_AFTER_NS ||
        now_ns - render->bar_ns < BAR_NS)
        return;
    render->bar_ns = now_ns;
    snprintf(text, sizeof(text), "uploading: %u %%, %s of %s",
             show_percent(upload->bytes_done, upload->file_bytes),
             show_bytes(upload->bytes_done, done), show_bytes(upload->file_bytes, all));
    say_bar(upload->bytes_done, upload->file_bytes, text);
}

static void on_upload(void *user, const struct westlight_upload *upload)
{
    struct render *render = user;

    /* Before it is known to be accepted: if it was, the same command goes on with it. */
    if (upload->submitted && !render->upload.submitted && render->local)
        local_run_remember(render->local, render->id);
    if (!render->uploading_ns) {
        render->uploading_ns = clock_monotonic_ns();
        if (upload->changed)
            complain(
                "the scene or its files have changed since the upload of %s began: what is sent "
                "now is how they are now",
                render->name);
        if (!render->local && upload->files)
            keep(render, upload);
    }
    render->upload = *upload;
    bar(render, upload);
}

/* ---- submitting ---- */

/* No answer came, or nobody waited for it. */
static void say_uncertain(const struct render *render)
{
    if (render->local)
        complain("the job may have been accepted: the same command goes on with it");
    else if (render->kept)
        complain(
            "the job may have been accepted: westlight submit --resume %.8s finds out, and goes "
            "on; westlight show %.8s says",
            render->id, render->id);
    else
        complain("the job may have been accepted: westlight show %.8s says; westlight fetch %.8s "
                 "-o '%s' --follow goes on, westlight cancel %.8s ends it",
                 render->id, render->id, render->out, render->id);
}

static void say_stopped(const struct render *render, bool by_hand)
{
    if (render->kept)
        complain("upload of %s stopped at %u %%: westlight submit --resume %.8s continues it",
                 render->name, show_percent(render->upload.bytes_done, render->upload.file_bytes),
                 render->id);
    else if (by_hand)
        complain("stopped before the job was accepted: the same command begins again, and sends "
                 "only what is missing");
}

static int submit_failed(struct render *render, int r)
{
    bool by_hand = r == WESTLIGHT_E_STOPPED;
    bool uncertain = render->upload.submitted &&
                     (by_hand || r == WESTLIGHT_E_TIMEOUT || r == WESTLIGHT_E_UNREACHABLE);
    int code = by_hand ? EXIT_PARTIAL : complain_library(r, westlight_why(render->westlight));

    if (r == WESTLIGHT_E_STATE ||
        r == WESTLIGHT_E_USAGE) { /* cancelled; or it can never be taken */
        drop(render);
        return r == WESTLIGHT_E_STATE ? EXIT_PARTIAL : code;
    }
    if (uncertain)
        say_uncertain(render);
    else
        say_stopped(render, by_hand);
    return code;
}

int render_submit(struct render *render, struct westlight_job *job)
{
    char files[32], sent[32];
    uint64_t frames, tasks;
    int r;

    snprintf(render->name, sizeof(render->name), "%s", westlight_job_name(job));
    if (render->resumed)
        westlight_job_again(job, &render->unsent.submission);
    r = westlight_submit(render->westlight, job, on_id, on_upload, render, render->id);
    say_bar_end();
    if (r)
        return submit_failed(render, r);
    drop(render);
    westlight_folder_keep(render->id, render->out); /* else fetch asks for -o */
    if (render->options.json)
        return 0;
    tasks = westlight_job_tasks(job, &frames);
    say_part("accepted: ");
    if (frames)
        say_part("%" PRIu64 " frame%s in ", frames, plural(frames));
    say_part("%" PRIu64 " task%s; %" PRIu64 " file%s, %s, of which %s were sent\n", tasks,
             plural(tasks), render->upload.files, plural(render->upload.files),
             show_bytes(render->upload.file_bytes, files),
             show_bytes(render->upload.bytes_sent, sent));
    return 0;
}

void render_submitted(struct render *render)
{
    if (render->options.json)
        show_json(json_pack("{s:s,s:o,s:s,s:I,s:I,s:I,s:I,s:I}", "id", render->id, "folder",
                            show_text_json(render->out), "software", render->software, "files",
                            (json_int_t)render->upload.files, "file_bytes",
                            (json_int_t)render->upload.file_bytes, "bytes_sent",
                            (json_int_t)render->upload.bytes_sent, "blocks",
                            (json_int_t)render->upload.blocks, "blocks_sent",
                            (json_int_t)render->upload.blocks_sent),
                  false);
    else if (render->local)
        say("the private farm ends with this command: westlight render and the same words go on "
            "with the job");
    else
        say("westlight watch %.8s follows it; westlight fetch %.8s -o '%s' --follow brings it home",
            render->id, render->id, render->out);
}

/* ---- again ---- */

static void list_say(const struct unsent *list, size_t n)
{
    char time[32];

    complain("--resume: %zu uploads were cut short here: name one, or 'last'", n);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, "  %.8s  %s  %s, from %s\n", list[i].submission.id,
                show_time(list[i].begun_wall_s, time), list[i].name, list[i].folder);
}

/* One of the list, or NULL after a message. */
static struct unsent *choose(struct unsent *list, size_t n, const char *which)
{
    struct unsent *found = NULL;
    size_t size = which ? strlen(which) : 0;

    if (n == 0 && !which) {
        complain("--resume: no upload was cut short on this machine");
        return NULL;
    }
    if (n > 0 && which ? strcmp(which, "last") == 0 : n == 1)
        return &list[0];
    for (size_t i = 0; size >= UNSENT_PREFIX && i < n; i++)
        if (strncmp(list[i].submission.id, which, size) == 0) {
            if (found) {
                complain("--resume %s: several uploads begin so: type more digits", which);
                return NULL;
            }
            found = &list[i];
        }
    if (!which)
        list_say(list, n);
    else if (!found)
        complain("--resume %s: no such upload was cut short on this machine: westlight submit "
                 "--resume tells which were; westlight show %s, whether it is a job by now",
                 which, which);
    return found;
}

static int take(struct render *render, const char *which)
{
    struct unsent *list = NULL, *found;
    size_t n = 0;
    int r = unsent_list(&list, &n);

    if (r < 0) {
        complain("--resume: the notes of uploads cannot be read: %s", strerror(-r));
        return EXIT_USAGE;
    }
    found = choose(list, n, which);
    if (found) {
        render->unsent = *found;
        *found = (struct unsent){.lock = -1};
        r = unsent_lock(&render->unsent);
    }
    unsent_list_free(list, n);
    if (!found)
        return EXIT_USAGE;
    if (r < 0) {
        complain("upload %.8s: %s", render->unsent.submission.id,
                 r == -EWOULDBLOCK ? "another process is sending it: wait for that one"
                                   : strerror(-r));
        return EXIT_USAGE;
    }
    render->resumed = render->kept = true;
    return 0;
}

/* Its client may have died between the answer and reading it. */
static int look(struct render *render)
{
    const struct westlight_shown *shown;
    const char *id = render->unsent.submission.id;
    int r = westlight_show(render->westlight, id, &shown);

    if (r == WESTLIGHT_E_UNKNOWN || (r == 0 && shown->row.uploading))
        return 0;
    if (r)
        return complain_library(r, westlight_why(render->westlight));
    render->accepted = true;
    strcpy(render->id, id);
    snprintf(render->out, sizeof(render->out), "%s", render->unsent.out);
    westlight_folder_keep(id, render->out);
    drop(render);
    if (!render->options.json)
        say_part("job %s\naccepted before: nothing is left to send\n", id);
    return 0;
}

int render_again(struct render *render, bool *wait)
{
    struct unsent *unsent = &render->unsent;
    int r = take(render, render->options.scene);

    if (r)
        return r;
    if (chdir(unsent->folder) < 0) {
        complain("upload %.8s: it was begun in %s: %s: bring that folder back",
                 unsent->submission.id, unsent->folder, strerror(errno));
        return EXIT_USAGE;
    }
    options_deinit(&render->options);
    r = options_parse(&render->options, args_find(&cmd_program, "submit"), unsent->argc,
                      unsent->argv);
    if (r)
        return r;
    if (!render->options.farm)
        render->options.farm = unsent->farm;
    *wait |= strcmp(unsent->argv[0], "render") == 0;
    r = render_farm(render);
    return r ? r : look(render);
}
