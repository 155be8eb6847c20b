/* show.c - tables, the progress bar, JSON. Nothing here asks the broker anything. */
#include <client/show.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <client/printable.h>
#include <client/say.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
#include <proto/state.h>

const char *show_bytes(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    snprintf(text, 32, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

const char *show_seconds(double seconds, char text[32])
{
    if (seconds < 60)
        snprintf(text, 32, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(text, 32, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(text, 32, "%d h %02d min", (int)(seconds / 3600), (int)seconds / 60 % 60);
    return text;
}

const char *show_time(int64_t wall_s, char text[32])
{
    time_t time = (time_t)wall_s;
    struct tm local;

    if (wall_s == 0 || !localtime_r(&time, &local))
        snprintf(text, 32, "-");
    else
        strftime(text, 32, "%Y-%m-%d %H:%M", &local);
    return text;
}

static bool show_colour(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static const char *show_phase_colour(const char *phase)
{
    static const struct {
        const char *phase, *colour;
    } colours[] = {{"done", "\033[32m"},     {"failed", "\033[31m"},    {"running", "\033[36m"},
                   {"paused", "\033[33m"},   {"uploading", "\033[36m"}, {"stopped", "\033[33m"},
                   {"cancelled", "\033[90m"}};

    for (size_t i = 0; show_colour() && i < sizeof(colours) / sizeof(colours[0]); i++)
        if (strcmp(phase, colours[i].phase) == 0)
            return colours[i].colour;
    return "";
}

static void show_phase(const char *phase, int columns)
{
    fputs(show_phase_colour(phase), stdout);
    say_part("%-*s", columns, phase);
    fputs(show_colour() ? "\033[0m" : "", stdout);
}

/* ---- tables ---- */

void show_row_head(void)
{
    say_part("%-8s  %-9s  %11s  %9s  %6s  %-16s  %s\n", "JOB", "STATE", "DONE", "DELIVERED",
             "FAILED", "SUBMITTED", "NAME");
}

unsigned show_percent(uint64_t bytes_done, uint64_t bytes)
{
    return bytes_done >= bytes ? 100 : (unsigned)(100.0 * (double)bytes_done / (double)bytes);
}

static unsigned row_percent(const struct westlight_row *row)
{
    return show_percent(row->upload_bytes_done, row->upload_bytes);
}

/* What to do about an upload that nobody goes on with. */
static void show_stopped(const char *label, const struct westlight_row *row)
{
    if (strcmp(row->phase, "stopped") == 0)
        say_part("%-10s upload stopped at %u %%: westlight submit --resume %.8s continues it%s%s\n",
                 label, row_percent(row), row->id, *row->person ? ", where it was begun by " : "",
                 row->person);
}

void show_row(const struct westlight_row *row)
{
    char done[32], time[32];

    if (row->uploading)
        snprintf(done, sizeof(done), "%u %%", row_percent(row));
    else
        snprintf(done, sizeof(done), "%" PRIu64 "/%" PRIu64, row->counts.done, row->counts.tasks);
    say_part("%.8s  ", row->id);
    show_phase(row->phase, 9);
    say_part("  %11s  %9" PRIu64 "  %6" PRIu64 "  %-16s  %.60s\n", done, row->delivered,
             row->counts.failed, show_time(row->submitted_wall_s, time), row->name);
    show_stopped("", row);
    if (*row->reason && strcmp(row->phase, "paused") != 0)
        say_part("%-10s %s: westlight show %.8s\n", "", row->reason, row->id);
}

static void show_counts(const char *label, const struct westlight_counts *counts)
{
    const struct {
        const char *name;
        uint64_t n;
    } parts[] = {{"done", counts->done},          {"running", counts->running},
                 {"leased", counts->leased},      {"ready", counts->ready},
                 {"waiting", counts->waiting},    {"failed", counts->failed},
                 {"cancelled", counts->cancelled}};

    say_part("%-10s %" PRIu64 " task%s:", label, counts->tasks, plural(counts->tasks));
    for (size_t i = 0, shown = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i].n)
            say_part("%s %" PRIu64 " %s", shown++ ? "," : "", parts[i].n, parts[i].name);
    say_part("\n");
}

/* One line where each frame has its place: "1-240: delivered 1-118, rendering 119-131, waiting
 * 132-240" */
static void show_frames(const struct westlight_step_row *step)
{
    bool split = step->frames_kept;
    const struct {
        const char *frames, *what;
    } places[] = {{split ? step->frames_delivered : "", "delivered"},
                  {split ? step->frames_kept : step->frames_done, "done"},
                  {step->frames_failed, "failed"},
                  {step->frames_running, "rendering"},
                  {step->frames_leased, "next"},
                  {step->frames_waiting, "waiting"}};
    size_t n = step->frames_waiting ? sizeof(places) / sizeof(places[0]) : 3;
    char text[4096] = "";
    int at = 0;

    if (!*step->frames)
        return;
    for (size_t i = 0; i < n && at >= 0 && (size_t)at < sizeof(text); i++)
        if (*places[i].frames)
            at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%s %s", at ? ", " : ": ",
                           places[i].what, places[i].frames);
    say_part("  frames   %s%s\n", step->frames, text);
}

static void show_uploading(const struct westlight_row *row)
{
    char all[32], done[32], time[32];

    say_part("job        %s\nname       %s\nstate      %s: %u %%, %s of %s in %" PRIu64 " file%s\n",
             row->id, row->name, row->phase, row_percent(row),
             show_bytes(row->upload_bytes_done, done), show_bytes(row->upload_bytes, all),
             row->upload_files, plural(row->upload_files));
    show_stopped("", row);
    say_part("begun      %s by %s of %s\n", show_time(row->submitted_wall_s, time),
             *row->person ? row->person : "?", row->studio);
}

void show_job(const struct westlight_shown *shown)
{
    const struct westlight_row *row = &shown->row;
    char text[32], in[32], out[32];

    if (row->uploading) {
        show_uploading(row);
        return;
    }
    say_part("job        %s\nname       %s\nstate      ", row->id, row->name);
    show_phase(row->phase, 0);
    say_part("%s%s\n", *row->reason ? ": " : "", row->reason);
    if (row->paused_itself)
        say_part(
            "           westlight log %.8s shows why; westlight retry %.8s or westlight resume "
            "%.8s goes on\n",
            row->id, row->id, row->id);
    else if (strcmp(row->phase, "paused") == 0)
        say_part("           westlight resume %.8s goes on\n", row->id);
    if (*row->note)
        say_part("note       %s\n", row->note);
    for (size_t i = 0; i < row->n_tags; i++)
        say_part("%s%s%s", i ? ", " : "tags       ", row->tags[i],
                 i + 1 == row->n_tags ? "\n" : "");
    if (row->max_workers)
        say_part("limit      %u worker%s\n", row->max_workers, plural(row->max_workers));
    if (row->archived)
        say_part("archived   westlight archive %.8s --undo brings it back\n", row->id);
    say_part("submitted  %s by %s of %s, priority %d\n", show_time(row->submitted_wall_s, text),
             *row->person ? row->person : "?", row->studio, row->priority);
    if (row->counts.done)
        say_part("delivered  %" PRIu64 " of %" PRIu64 "%s\n", row->delivered, row->counts.done,
                 row->delivered < row->counts.done
                     ? ": westlight fetch, by whoever submitted it, brings the rest home"
                     : "");
    if (row->until_wall_s)
        say_part("kept       until %s\n", show_time(row->until_wall_s, text));
    for (size_t i = 0; i < shown->n_steps; i++) {
        const struct westlight_step_row *step = &shown->steps[i];

        show_counts(step->name, &step->counts);
        if (*step->software)
            say("  software %s", step->software);
        show_frames(step);
        if (*step->why)
            say_part("  waits    %s\n", step->why);
    }
    for (size_t i = 0; i < shown->n_live; i++) {
        const struct westlight_live *live = &shown->live[i];

        say_part("%-10s %s on %s, %u.%u %%%s%s\n", live->state, live->task_name, live->worker,
                 live->permille / 10, live->permille % 10, *live->status ? ": " : "", live->status);
    }
    say_part("used       %s of rendering, %.1f CPU-seconds",
             show_seconds((double)shown->usage.wall_ns / 1e9, text),
             (double)shown->usage.cpu_ns / 1e9);
    say_part(", %s to workers, %s from them\n", show_bytes(shown->usage.bytes_in, in),
             show_bytes(shown->usage.bytes_out, out));
}

void show_worker_head(void)
{
    say_part("%-16s  %-12s  %-8s  %5s  %7s  %6s  %6s  %-24s  %s\n", "WORKER", "STATE", "POOL",
             "SLOTS", "RUNNING", "DONE", "FAILED", "NOTE", "OFFERS");
}

/* Why it is set aside comes before what an operator noted. */
static void worker_note(const struct westlight_worker *worker, char *note, size_t size)
{
    char until[32];

    snprintf(note, size, "%s", worker->note);
    if (worker->set_aside)
        snprintf(note, size, "set aside: %u task%s failed in a row, until %s%s%s",
                 worker->failed_in_a_row, plural(worker->failed_in_a_row),
                 show_time(worker->aside_until_wall_s, until), *worker->note ? "; " : "",
                 worker->note);
}

void show_worker(const struct westlight_worker *worker)
{
    char note[1200];

    worker_note(worker, note, sizeof(note));
    say_part("%-16s  %-12s  %-8s  %5u  %7u  %6" PRIu64 "  %6" PRIu64 "  %-24s  ", worker->name,
             worker->state, *worker->pool ? worker->pool : "-", worker->slots, worker->running,
             worker->done, worker->failed, *note ? note : "-");
    for (size_t i = 0; i < worker->n_amounts; i++)
        say_part("%s ", strncmp(worker->amounts[i], "amount.worker.", 14) == 0
                            ? worker->amounts[i] + 14
                            : worker->amounts[i]);
    for (size_t i = 0; i < worker->n_attributes; i++)
        if (strncmp(worker->attributes[i], ATTRIBUTE_SOFTWARE, strlen(ATTRIBUTE_SOFTWARE)) == 0)
            say_part("%s ", worker->attributes[i] + 14);
        else if (strncmp(worker->attributes[i], ATTRIBUTE_DENOISER "=",
                         sizeof(ATTRIBUTE_DENOISER)) == 0)
            say_part("%s ", worker->attributes[i] + strlen("attr."));
    say_part("\n");
}

/* ---- JSON ---- */

json_t *show_text_json(const char *text)
{
    static const char unknown[] = "\xef\xbf\xbd"; /* U+FFFD */
    char *clean = malloc(3 * strlen(text) + 1), *to = clean;
    json_t *json;

    for (const unsigned char *at = (const unsigned char *)text; clean && *at;) {
        size_t size = printable_size(at);

        memcpy(to, size ? (const char *)at : unknown, size ? size : 3);
        to += size ? size : 3;
        at += size ? size : 1;
    }
    CHECK(clean);
    *to = 0;
    json = json_string(clean);
    free(clean);
    return json;
}

static json_t *counts_json(const struct westlight_counts *c)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "tasks", (json_int_t)c->tasks, "waiting",
                     (json_int_t)c->waiting, "ready", (json_int_t)c->ready, "leased",
                     (json_int_t)c->leased, "running", (json_int_t)c->running, "done",
                     (json_int_t)c->done, "failed", (json_int_t)c->failed, "cancelled",
                     (json_int_t)c->cancelled);
}

static json_t *usage_json(const struct westlight_usage *u)
{
    return json_pack("{s:f,s:f,s:I,s:I,s:I,s:f}", "wall_seconds", (double)u->wall_ns / 1e9,
                     "cpu_seconds", (double)u->cpu_ns / 1e9, "memory_bytes",
                     (json_int_t)u->memory_bytes, "bytes_in", (json_int_t)u->bytes_in, "bytes_out",
                     (json_int_t)u->bytes_out, "card_seconds", (double)u->card_ns / 1e9);
}

static json_t *strings_json(const char *const *texts, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, show_text_json(texts[i]));
    return array;
}

static json_t *upload_json(const struct westlight_row *row)
{
    if (!row->uploading)
        return json_null();
    return json_pack("{s:i,s:I,s:I,s:I,s:b}", "percent", (int)row_percent(row), "files",
                     (json_int_t)row->upload_files, "file_bytes", (json_int_t)row->upload_bytes,
                     "bytes_done", (json_int_t)row->upload_bytes_done, "stopped",
                     strcmp(row->phase, "stopped") == 0);
}

json_t *show_row_json(const struct westlight_row *row)
{
    return json_pack(
        "{s:s,s:o,s:o,s:o,s:o,s:s,s:s,s:o,s:i,s:I,s:o,s:I,s:b,s:o,s:i,s:b,s:o,s:I,s:I}", "id",
        row->id, "name", show_text_json(row->name), "person", show_text_json(row->person), "studio",
        show_text_json(row->studio), "note", show_text_json(row->note), "state", row->state,
        "phase", row->phase, "reason", show_text_json(row->reason), "priority", row->priority,
        "submitted", (json_int_t)row->submitted_wall_s, "counts", counts_json(&row->counts),
        "attempts_failed", (json_int_t)row->attempts_failed, "finished", row->finished, "tags",
        strings_json(row->tags, row->n_tags), "max_workers", (int)row->max_workers, "archived",
        row->archived, "upload", upload_json(row), "delivered", (json_int_t)row->delivered,
        "kept_until", (json_int_t)row->until_wall_s);
}

json_t *show_job_json(const struct westlight_shown *shown)
{
    json_t *json = show_row_json(&shown->row), *steps = json_array(), *live = json_array();

    for (size_t i = 0; i < shown->n_steps; i++) {
        const struct westlight_step_row *step = &shown->steps[i];

        json_array_append_new(
            steps,
            json_pack("{s:o,s:o,s:o,s:o,s:s,s:s,s:s,s:s,s:s?,s:s?,s:s?}", "name",
                      show_text_json(step->name), "why", show_text_json(step->why), "software",
                      show_text_json(step->software), "counts", counts_json(&step->counts),
                      "frames", step->frames, "frames_done", step->frames_done, "frames_delivered",
                      step->frames_delivered, "frames_failed", step->frames_failed,
                      "frames_running", step->frames_running, "frames_leased", step->frames_leased,
                      "frames_waiting", step->frames_waiting));
    }
    for (size_t i = 0; i < shown->n_live; i++) {
        const struct westlight_live *l = &shown->live[i];

        json_array_append_new(
            live,
            json_pack("{s:i,s:I,s:o,s:s,s:o,s:o,s:f,s:I}", "step", (int)l->step, "task",
                      (json_int_t)l->task, "name", show_text_json(l->task_name), "state", l->state,
                      "worker", show_text_json(l->worker), "status", show_text_json(l->status),
                      "percent", l->permille / 10.0, "started", (json_int_t)l->started_wall_s));
    }
    json_object_set_new(json, "steps", steps);
    json_object_set_new(json, "live", live);
    json_object_set_new(json, "usage", usage_json(&shown->usage));
    return json;
}

json_t *show_worker_json(const struct westlight_worker *w)
{
    return json_pack(
        "{s:i,s:o,s:s,s:o,s:o,s:s,s:b,s:b,s:b,s:I,s:i,s:i,s:i,s:i,s:I,s:I,s:I,s:o,s:o,s:o}", "id",
        (int)w->id, "name", show_text_json(w->name), "state", w->state, "pool",
        show_text_json(w->pool), "note", show_text_json(w->note), "key", w->key, "connected",
        w->connected, "drained", w->drained, "set_aside", w->set_aside, "set_aside_until",
        (json_int_t)w->aside_until_wall_s, "failed_in_a_row", (int)w->failed_in_a_row, "slots",
        (int)w->slots, "running", (int)w->running, "queued", (int)w->queued, "done",
        (json_int_t)w->done, "failed", (json_int_t)w->failed, "seen", (json_int_t)w->seen_wall_s,
        "amounts", strings_json(w->amounts, w->n_amounts), "attributes",
        strings_json(w->attributes, w->n_attributes), "gpus", strings_json(w->gpus, w->n_gpus));
}

json_t *show_warning_json(const struct westlight_attempt *a)
{
    return json_pack("{s:s,s:o,s:o}", "task", a->task_name, "worker", show_text_json(a->worker),
                     "message", show_text_json(a->message));
}

json_t *show_attempt_json(const struct westlight_attempt *a)
{
    return json_pack("{s:i,s:i,s:s,s:o,s:o,s:i,s:I,s:I,s:o}", "number", (int)a->number, "floor",
                     (int)a->floor, "class", a->class_name, "message", show_text_json(a->message),
                     "worker", show_text_json(a->worker), "exit_status", (int)a->exit_status,
                     "started", (json_int_t)a->started_wall_s, "ended", (json_int_t)a->ended_wall_s,
                     "usage", usage_json(&a->usage));
}

/* ---- a dry run ---- */

static uint64_t size_of(const struct inputs_root *root, size_t i)
{
    char path[8192];
    struct stat status;

    snprintf(path, sizeof(path), "%s/%s", root->folder, root->files.texts[i]);
    return stat(path, &status) == 0 ? (uint64_t)status.st_size : 0;
}

static json_t *texts_json(const struct inputs_list *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->n; i++)
        json_array_append_new(array, show_text_json(list->texts[i]));
    return array;
}

json_t *show_inputs_json(const struct inputs *inputs, const struct westlight_upload *upload)
{
    json_t *files = json_array();

    for (size_t i = 0; i < inputs->n_roots; i++)
        for (size_t k = 0; k < inputs->roots[i].files.n; k++)
            json_array_append_new(
                files, json_pack("{s:o,s:o,s:I}", "root", show_text_json(inputs->roots[i].folder),
                                 "path", show_text_json(inputs->roots[i].files.texts[k]), "bytes",
                                 (json_int_t)size_of(&inputs->roots[i], k)));
    return json_pack("{s:o,s:o,s:o,s:I,s:I,s:I,s:I}", "files", files, "missing",
                     texts_json(&inputs->missing), "left_out", texts_json(&inputs->left_out),
                     "file_bytes", (json_int_t)upload->file_bytes, "blocks",
                     (json_int_t)upload->blocks, "blocks_to_send", (json_int_t)upload->blocks_sent,
                     "bytes_to_send", (json_int_t)upload->bytes_sent);
}

void show_inputs(const struct inputs *inputs, const struct westlight_upload *upload)
{
    char bytes[32], sent[32];
    size_t n = 0;

    for (size_t i = 0; i < inputs->n_roots; i++) {
        if (inputs->roots[i].files.n)
            say_part("%s\n", inputs->roots[i].folder);
        for (size_t k = 0; k < inputs->roots[i].files.n; k++, n++)
            say_part("%10s  %s\n", show_bytes(size_of(&inputs->roots[i], k), bytes),
                     inputs->roots[i].files.texts[k]);
    }
    for (size_t i = 0; i < inputs->left_out.n; i++)
        say_part("left out: %s\n", inputs->left_out.texts[i]);
    say_part("%zu file%s, %s; to send: %" PRIu64 " of %" PRIu64 " block%s, %s; %zu missing\n", n,
             plural(n), show_bytes(upload->file_bytes, bytes), upload->blocks_sent, upload->blocks,
             plural(upload->blocks), show_bytes(upload->bytes_sent, sent), inputs->missing.n);
}

/* ---- a document ---- */

void show_json(json_t *json, bool line)
{
    CHECK(json); /* a text that was not cleaned would leave a row out, or all of it */
    json_dumpf(json, stdout, line ? JSON_COMPACT : JSON_INDENT(2));
    say_part("\n");
    fflush(stdout);
    json_decref(json);
}

/* ---- the bar ---- */

static const char *span(double seconds, char text[32])
{
    if (seconds < 60)
        snprintf(text, 32, "%.0f s", seconds);
    else
        show_seconds(seconds, text);
    return text;
}

/* Seconds until the end if it goes on as it did; 0 where too little was seen of it. It is reckoned
 * when something was done, and counts down meanwhile. */
static double pace_left(struct show_pace *pace, const struct westlight_counts *counts,
                        double seconds)
{
    uint64_t gone = counts->done + counts->failed + counts->cancelled, done;
    double left;

    if ((!pace->begun && counts->running + gone) || counts->done < pace->first)
        *pace = (struct show_pace){true, seconds, seconds, counts->done, counts->done};
    if (pace->done != counts->done) {
        pace->done = counts->done;
        pace->at = seconds;
    }
    done = pace->done - pace->first;
    if (done < SHOW_PACE_TASKS || gone >= counts->tasks)
        return 0;
    left = (pace->at - pace->from) * (double)(counts->tasks - gone) / (double)done -
           (seconds - pace->at);
    return left < 1 ? 1 : left;
}

bool show_progress(struct show_pace *pace, const struct westlight_counts *counts, const char *unit,
                   double seconds)
{
    char text[256], elapsed[32], rest[32], failed[48] = "", left[64] = "";
    double left_s = pace_left(pace, counts, seconds);

    if (counts->failed)
        snprintf(failed, sizeof(failed), ", %" PRIu64 " failed", counts->failed);
    if (left_s > 0)
        snprintf(left, sizeof(left), ", about %s left", span(left_s, rest));
    snprintf(text, sizeof(text), "%" PRIu64 "/%" PRIu64 " %s, %" PRIu64 " running%s, %s%s",
             counts->done, counts->tasks, unit, counts->running, failed, span(seconds, elapsed),
             left);
    return say_bar(counts->done, counts->tasks, text);
}
