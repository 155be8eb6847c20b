/* homing.c - files get home: what is there already is skipped, what a person changed is left alone.
 *
 * What this machine wrote it knows by its receipts (size, time, result). A file without one is
 * compared with what would be written; so nothing of a person's is ever replaced unasked.
 */
#include <client/homing.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/crash.h>

#define END_NS (50 * NS_PER_MS)

void homing_deinit(struct homing *homing)
{
    for (size_t i = 0; homing->places && homing->steps && i < homing->steps->n; i++) {
        for (size_t k = 0; k < homing->n_places[i]; k++)
            free(homing->places[i][k]);
        free(homing->places[i]);
    }
    free(homing->places);
    free(homing->n_places);
    look_steps_free(homing->steps);
    free(homing->folder);
    if (homing->fd >= 0)
        close(homing->fd);
    landing_deinit(&homing->landing);
    receipts_deinit(&homing->receipts);
    reader_deinit(&homing->reader);
    blocks_deinit(&homing->blocks);
    free(homing->runs);
    free(homing->interim);
    wipe(homing->job_key, sizeof(homing->job_key));
}

/* The entry's path becomes the one below our folder. */
static int place_entry(struct homing *homing, const Wl__ResultRow *row, Wl__FileEntry *entry)
{
    char *path = NULL;

    if (row->step >= homing->steps->n || entry->root >= homing->n_places[row->step])
        return connection_fail(
            homing->westlight, WESTLIGHT_E_CORRUPT,
            "job %s: a result names an output folder that the job did not declare", homing->id);
    const char *place = homing->places[row->step][entry->root];
    if (place[0] == '\0')
        return 0;
    if (asprintf(&path, "%s/%s", place, entry->path) < 0)
        return -ENOMEM;
    free(entry->path);
    entry->path = path;
    return 0;
}

/* ---- what to do with a file ---- */

enum decision {
    DECIDE_WRITE,
    DECIDE_SKIP,
    DECIDE_COMPARE,
    DECIDE_CHANGED,
    DECIDE_TWICE, /* two tasks of this job */
    DECIDE_NEWER  /* a newer job's */
};

/* By what stands there, which is told: a person may work in the folder meanwhile. */
static enum decision decide(const struct homing *homing, const Wl__ResultRow *row,
                            const Wl__FileEntry *entry, struct manifest_stood *ret_stood)
{
    const struct receipt *receipt = receipts_find(&homing->receipts, entry->path);
    const struct stat *status = &ret_stood->status;

    ret_stood->there =
        fstatat(homing->fd, entry->path, &ret_stood->status, AT_SYMLINK_NOFOLLOW) == 0;
    if (!ret_stood->there || S_ISDIR(status->st_mode))
        return DECIDE_WRITE; /* a folder in its way is refused where it is written */
    if (receipt && receipt_holds(receipt, status) && strcmp(receipt->job, homing->id) != 0) {
        return homing->fetch->force || homing->fetch->replace ||
                       receipt->submitted_wall_s <= homing->submitted_wall_s
                   ? DECIDE_WRITE
                   : DECIDE_NEWER;
    }
    if (receipt && receipt_holds(receipt, status)) {
        if (receipt->sequence == row->sequence)
            return DECIDE_SKIP;
        if (receipt->step == row->step && receipt->task == row->task)
            return receipt->sequence < row->sequence ? DECIDE_WRITE : DECIDE_SKIP;
        return homing->fetch->force ? DECIDE_WRITE : DECIDE_TWICE;
    }
    if (homing->fetch->force)
        return DECIDE_WRITE;
    /* A link has no content to compare: it is replaced only by force, or where it says the same. */
    return S_ISLNK(status->st_mode) == (entry->link[0] != '\0') &&
                   (uint64_t)status->st_size == (entry->link[0] ? strlen(entry->link) : entry->size)
               ? DECIDE_COMPARE
               : DECIDE_CHANGED;
}

static void conflict(struct homing *homing, const Wl__ResultRow *row, const Wl__FileEntry *entry,
                     enum decision decision)
{
    char name[LIMIT_NAME_BYTES], other[LIMIT_NAME_BYTES];
    const struct receipt *receipt = receipts_find(&homing->receipts, entry->path);

    if (homing->conflicts++ > 0)
        return;
    if (decision == DECIDE_TWICE && receipt) {
        look_task_name(homing->steps, row->step, row->task, name, sizeof(name));
        look_task_name(homing->steps, receipt->step, receipt->task, other, sizeof(other));
        snprintf(homing->conflict, sizeof(homing->conflict),
                 "%.200s: %.80s and %.80s both write it, with different content: give each frame a "
                 "name of its own",
                 entry->path, other, name);
    } else if (decision == DECIDE_NEWER && receipt) {
        snprintf(homing->conflict, sizeof(homing->conflict),
                 "%.300s: it was fetched of a newer job, %.8s: fetch to another folder, or use "
                 "--force",
                 entry->path, receipt->job);
    } else {
        snprintf(homing->conflict, sizeof(homing->conflict),
                 "%.300s: a file that was not fetched, or was changed since, is in the way: move "
                 "it, or use --force",
                 entry->path);
    }
}

/* ---- writing ---- */

static int note(struct homing *homing, const Wl__ResultRow *row, const Wl__FileEntry *entry,
                const struct stat *status)
{
    struct receipt receipt = {.submitted_wall_s = homing->submitted_wall_s,
                              .sequence = row->sequence,
                              .step = row->step,
                              .task = row->task};

    memcpy(receipt.job, homing->id, sizeof(receipt.job));
    return receipts_add(&homing->receipts, &receipt, entry->path, status);
}

static int file_failed(struct homing *homing, const Wl__FileEntry *entry, int r,
                       const struct bytes *why)
{
    struct westlight *westlight = homing->westlight;
    int code = r > 0 ? WESTLIGHT_E_CORRUPT : r;
    const char *next = r == -ENOSPC ? ": make room, and fetch again" : "";

    if (westlight->why[0])
        return r; /* the reader has said why */
    if (why && why->size)
        return connection_fail(westlight, code, "%s: %s%s", homing->folder, (const char *)why->data,
                               next);
    return connection_fail(westlight, code, "%s/%s: %s%s", homing->folder, entry->path,
                           strerror(r < 0 ? -r : EIO),
                           *next ? next : ": check the disk, and fetch again");
}

static void in_the_way(struct homing *homing, struct homing_result *result, const char *what)
{
    result->conflicts++;
    if (homing->conflicts++ == 0)
        snprintf(homing->conflict, sizeof(homing->conflict),
                 "%.400s: move it, or fetch to another folder", what);
}

static int report(struct homing *homing, const Wl__ResultRow *row, const Wl__FileEntry *entry,
                  bool skipped, westlight_on_fetched *callback)
{
    char name[LIMIT_NAME_BYTES];
    _cleanup_(freep) char *path = NULL;

    if (!callback)
        return 0;
    look_task_name(homing->steps, row->step, row->task, name, sizeof(name));
    if (asprintf(&path, "%s%s%s", homing->folder, entry ? "/" : "", entry ? entry->path : "") < 0)
        return -ENOMEM;
    const struct westlight_fetched fetched = {
        .step = row->step,
        .task = row->task,
        .task_name = name,
        .path = path,
        .bytes = entry ? entry->size : 0,
        .files_done = homing->files_done,
        .results_done = homing->results_done,
        .results_known = homing->results_known > homing->results_done ? homing->results_known
                                                                      : homing->results_done,
        .skipped = skipped,
    };
    homing->fetch->bytes_received = blocks_received(&homing->blocks);
    return callback(homing->fetch->user, &fetched);
}

/* ---- landing ---- */

/* Somebody made a file there while ours was on its way: of a fetch beside this one it is the same.
 */
static int met(struct homing *homing, struct homing_result *result, const Wl__FileEntry *entry)
{
    struct stat status;
    bool equal = false;

    if (fstatat(homing->fd, entry->path, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        manifest_same_file(homing->fd, entry, reader_fetch, &homing->reader, true, &equal) != 0)
        equal = false; /* the next fetch looks again */
    homing->westlight->why[0] = '\0';
    if (!equal) {
        result->conflicts++;
        conflict(homing, result->row, entry, DECIDE_CHANGED);
        return 0;
    }
    int r = note(homing, result->row, entry, &status);
    if (r != 0)
        return r;
    homing->files_done++;
    return report(homing, result->row, entry, true, homing->fetch->on_file);
}

static int take_landed(struct homing *homing, const struct landing_file *file)
{
    struct homing_result *result = file->user;
    const Wl__FileEntry *entry = result->manifest->files[file->index];
    char why[LIMIT_PATH_BYTES + 32];
    int r = file->result;

    result->n_landing--;
    if (r == MANIFEST_E_PATH) {
        snprintf(why, sizeof(why), "%s: a folder is in its way", entry->path);
        in_the_way(homing, result, why);
        return 0;
    }
    homing->westlight->why[0] = '\0';
    if (r == -EEXIST)
        return met(homing, result, entry);
    if (r == 0)
        r = note(homing, result->row, entry, &file->made.status);
    if (r != 0) {
        result->failed = true;
        return file_failed(homing, entry, r, NULL);
    }
    result->written[file->index] = true;
    result->n_written++;
    homing->files_done++;
    return report(homing, result->row, entry, false, homing->fetch->on_file);
}

/* All that have landed, and those that follow them until there is room; or all. What is on its way
 * comes down whatever happens, and what is down is noted; the first fault counts. */
static int take_all_landed(struct homing *homing, bool all)
{
    char why[sizeof(homing->westlight->why)];
    const struct landing_file *file;
    int r = 0;

    while ((file = landing_take(&homing->landing, all || landing_full(&homing->landing)))) {
        int failed = take_landed(homing, file);

        if (failed != 0 && r == 0) {
            r = failed;
            memcpy(why, homing->westlight->why, sizeof(why));
        }
    }
    if (r != 0)
        memcpy(homing->westlight->why, why, sizeof(why));
    return r;
}

static int write_file(struct homing *homing, struct homing_result *result, size_t i,
                      const struct manifest_stood *stood)
{
    const Wl__FileEntry *entry = result->manifest->files[i];
    struct landing_file file = {.path = entry->path,
                                .user = result,
                                .index = i,
                                .stood = *stood,
                                .force = homing->fetch->force};
    _cleanup_(bytes_deinit) struct bytes why = {0};

    int r = take_all_landed(homing, false);
    if (r != 0)
        return r;
    file.arrival = reader_number(&homing->reader);
    homing->reader.needed = landing_arrival(&homing->landing, file.arrival);
    homing->westlight->why[0] = '\0';
    r = manifest_make_file(homing->fd, entry, reader_fetch, &homing->reader, &file.made, &why);
    if (r == MANIFEST_E_PATH && !homing->westlight->why[0]) {
        in_the_way(homing, result, why.size ? (const char *)why.data : entry->path);
        return 0;
    }
    if (r != 0)
        return file_failed(homing, entry, r, &why);
    landing_add(&homing->landing, &file);
    result->n_landing++;
    return 0;
}

static int home_file(struct homing *homing, struct homing_result *result, size_t i)
{
    const Wl__FileEntry *entry = result->manifest->files[i];
    struct manifest_stood stood;
    bool equal = false;

    int r = landing_has(&homing->landing, entry->path) ? take_all_landed(homing, true) : 0;
    if (r != 0)
        return r;
    enum decision decision = decide(homing, result->row, entry, &stood);
    if (decision == DECIDE_WRITE)
        return write_file(homing, result, i, &stood);
    if (decision == DECIDE_COMPARE || decision == DECIDE_TWICE) {
        homing->westlight->why[0] = '\0';
        /* Whoever wrote it may not have synced it; before the receipt, which is believed. */
        r = manifest_same_file(homing->fd, entry, reader_fetch, &homing->reader, true, &equal);
        if (r != 0)
            return file_failed(homing, entry, r, NULL);
        /* Equal content of no receipt becomes ours: the next fetch need not compare again. */
        if (equal && decision == DECIDE_COMPARE)
            r = note(homing, result->row, entry, &stood.status);
        if (r != 0)
            return r;
    }
    if (decision != DECIDE_SKIP && !equal) {
        result->conflicts++;
        conflict(homing, result->row, entry, decision);
        return 0;
    }
    homing->files_done++;
    return report(homing, result->row, entry, true, homing->fetch->on_file);
}

/* ---- results ---- */

static bool acknowledges(const struct homing *homing, const struct homing_result *result)
{
    return homing->delivers && result->conflicts == 0;
}

static int sync_parents(struct homing *homing, const char *path, char last[LIMIT_PATH_BYTES])
{
    char parent[LIMIT_PATH_BYTES], *slash;

    snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    if (strcmp(parent, last) == 0)
        return 0;
    snprintf(last, LIMIT_PATH_BYTES, "%s", parent);
    for (;;) {
        _cleanup_(closep) int fd = openat(homing->fd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
            return -errno;
        slash = strrchr(parent, '/');
        if (!slash)
            return 0;
        *slash = '\0';
    }
}

/* The names of what was written are durable as well: every folder on the way is synced. Files come
 * in path order, so that a folder repeats among neighbours and is then synced once. Of what is
 * acknowledged also those of files that a fetch wrote which was killed before it synced. */
static int sync_folders(struct homing *homing, const struct homing_result *results, size_t n)
{
    char last[LIMIT_PATH_BYTES] = "";
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        const struct homing_result *result = &results[i];

        for (size_t k = 0; !result->damaged && k < result->manifest->n_files; k++) {
            if (!result->written[k] && !acknowledges(homing, result))
                continue;
            any = true;
            int r = sync_parents(homing, result->manifest->files[k]->path, last);
            if (r < 0)
                return r;
        }
        any |= !result->damaged && acknowledges(homing, result);
    }
    return any && fsync(homing->fd) < 0 ? -errno : 0;
}

static int add_delivered(struct homing *homing, const Wl__ResultRow *row)
{
    if (homing->n_runs == homing->runs_capacity) {
        size_t capacity = homing->runs_capacity ? 2 * homing->runs_capacity : LIMIT_RESULTS_PAGE;
        Wl__DeliveredRun *grown = reallocarray(homing->runs, capacity, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        homing->runs = grown;
        homing->runs_capacity = capacity;
    }
    Wl__DeliveredRun *run = &homing->runs[homing->n_runs++];
    wl__delivered_run__init(run);
    run->step = row->step;
    run->first = run->last = row->task;
    run->floor = row->floor;
    return 0;
}

static void note_ended(struct homing *homing, uint64_t sequence)
{
    if (homing->n_ended < ARRAY_SIZE(homing->ended))
        homing->ended[homing->n_ended++] = sequence;
}

int homing_pass(struct homing *homing, const Wl__ResultRow *row)
{
    homing->results_done++;
    note_ended(homing, row->sequence);
    homing->progress_ns = clock_monotonic_ns();
    return homing->delivers ? add_delivered(homing, row) : 0;
}

static int begin_result(struct homing *homing, struct homing_result *result)
{
    int r = 0;

    result->written = calloc(result->manifest->n_files + 1, sizeof(*result->written));
    if (!result->written)
        return -ENOMEM;
    while (r == 0 && result->looked_at < result->manifest->n_files) {
        r = home_file(homing, result, result->looked_at);
        result->looked_at += r == 0;
    }
    if (r == 0)
        result->begun = true;
    else
        result->failed = true;
    return r;
}

static int end_result(struct homing *homing, const struct homing_result *result)
{
    int r = 0;

    if (result->damaged)
        return 0;
    homing->results_done++;
    note_ended(homing, result->row->sequence);
    homing->progress_ns = clock_monotonic_ns();
    if (result->conflicts > 0)
        return 0; /* not all of it is home */
    if (acknowledges(homing, result))
        r = add_delivered(homing, result->row);
    return r != 0 ? r
                  : report(homing, result->row, NULL, result->n_written == 0,
                           homing->fetch->on_result);
}

/* Those that are down from *first on, in order, with one sync of their folders. */
static int end_results(struct homing *homing, const struct homing_result *results, size_t n,
                       size_t *first)
{
    size_t end = *first;
    int r = 0;

    while (end < n && (results[end].damaged ||
                       (results[end].begun && !results[end].failed && results[end].n_landing == 0)))
        end++;
    if (end == *first)
        return 0;
    crash_point("home.noted");
    r = sync_folders(homing, results + *first, end - *first);
    crash_point("home.durable");
    if (r < 0)
        return connection_fail(homing->westlight, r, "%s: %s: check the disk, and fetch again",
                               homing->folder, strerror(-r));
    for (; r == 0 && *first < end; ++*first)
        r = end_result(homing, &results[*first]);
    return r;
}

bool homing_damaged(struct homing *homing, const Wl__ResultRow *row, const char *path, int r)
{
    char name[LIMIT_NAME_BYTES];
    const char *frame;

    if (r != WESTLIGHT_E_CORRUPT && r != WESTLIGHT_E_UNKNOWN)
        return false;
    note_ended(homing, row->sequence);
    if (homing->damaged++ > 0)
        return true;
    look_task_name(homing->steps, row->step, row->task, name, sizeof(name));
    frame = strncmp(name, "frame", 5) == 0 ? strchr(name, ' ') : NULL;
    snprintf(homing->damage, sizeof(homing->damage),
             "%.100s of job %.8s: %.200s: %.400s; westlight retry %.8s%s%.80s renders it again",
             name, homing->id, path ? path : "its list of files", homing->westlight->why,
             homing->id, frame ? " -f" : "", frame ? frame : "");
    return true;
}

static const char *path_at(const struct homing_result *result)
{
    size_t i = result->looked_at;

    return i < result->manifest->n_files ? result->manifest->files[i]->path : NULL;
}

/* Results are ended together where they come fast, and each soon where they do not. */
static int write_results(struct homing *homing, struct homing_result *results, size_t n)
{
    char why[sizeof(homing->westlight->why)];
    int64_t ended_ns = clock_monotonic_ns();
    size_t first = 0;
    int r = 0, landed;

    for (size_t i = 0; r == 0 && i < n; i++) {
        r = begin_result(homing, &results[i]);
        if (r != 0 && homing_damaged(homing, results[i].row, path_at(&results[i]), r)) {
            results[i].damaged = true;
            r = 0;
        }
        if (r != 0 || clock_monotonic_ns() - ended_ns < END_NS)
            continue;
        r = take_all_landed(homing, false);
        if (r == 0)
            r = end_results(homing, results, n, &first);
        ended_ns = clock_monotonic_ns();
    }
    memcpy(why, homing->westlight->why, sizeof(why));
    landed = take_all_landed(homing, true);
    if (r == 0) {
        r = landed;
        memcpy(why, homing->westlight->why, sizeof(why));
    }
    if (r == 0)
        return end_results(homing, results, n, &first);
    (void)end_results(homing, results, n, &first); /* those that are home count */
    memcpy(homing->westlight->why, why, sizeof(why));
    return r;
}

int homing_write(struct homing *homing, struct homing_result *results, size_t n)
{
    reader_forget(&homing->reader);
    if (homing->reader.arrivals)
        arrivals_again(homing->reader.arrivals);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < results[i].manifest->n_files; k++) {
            Wl__FileEntry *entry = results[i].manifest->files[k];
            struct manifest_stood stood;
            int r = place_entry(homing, results[i].row, entry);
            if (r != 0)
                return r;
            /* A guess of what will be read; what it misses is got when it is asked for. */
            enum decision decision = decide(homing, results[i].row, entry, &stood);
            if (decision == DECIDE_WRITE || decision == DECIDE_COMPARE || decision == DECIDE_TWICE)
                r = reader_expect(&homing->reader, entry);
            if (r != 0)
                return r;
        }
    int r = write_results(homing, results, n);
    if (r == 0 && homing->reader.arrivals)
        arrivals_drop(homing->reader.arrivals, UINT64_MAX);
    for (size_t i = 0; i < n; i++)
        free(TAKE_PTR(results[i].written));
    return r;
}
