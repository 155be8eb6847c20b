/* check.c - see check.h. The records go the way of recovery, into a core and a catalogue of their
 * own, so that what passes here a broker starts on; then each job and each result is followed into
 * the vault.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/command.h>
#include <broker/backup.h>
#include <broker/check.h>
#include <broker/gateway.h>

enum { CLEAN, FOUND, USAGE, FAILED };
#define NEXT_SUBMIT                                                                                \
    "--check --set-aside, then submit the scene again from its files, which sends what is not "    \
    "whole; westlight retry goes on with this job"

/* ---- what is told ---- */

struct report {
    pthread_mutex_t lock;
    bool json;
    uint64_t findings, notes;
};

static void print_json_text(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < ' ')
            printf("\\u%04x", *c);
        else
            putchar(*c);
    }
    putchar('"');
}

static void tell(struct report *report, bool fault, const char *what, const char *why,
                 const char *next)
{
    pthread_mutex_lock(&report->lock);
    if (report->json) {
        printf("%s\n{\"kind\":\"%s\",\"what\":", report->findings + report->notes ? "," : "",
               fault ? "finding" : "note");
        print_json_text(what);
        printf(",\"why\":");
        print_json_text(why ? why : "");
        printf(",\"next\":");
        print_json_text(next ? next : "");
        putchar('}');
    } else {
        printf("%s%s%s%s%s%s\n", fault ? "" : "note: ", what, why ? ": " : "", why ? why : "",
               next ? ": " : "", next ? next : "");
    }
    if (fault)
        report->findings++;
    else
        report->notes++;
    pthread_mutex_unlock(&report->lock);
}

void report_finding(struct report *report, const char *what, const char *why, const char *next)
{
    tell(report, true, what, why, next);
}

void report_note(struct report *report, const char *what, const char *why)
{
    tell(report, false, what, why, NULL);
}

/* ---- one look ---- */

struct look {
    struct report report;
    struct backup_place place;
    struct core *core;
    struct gateway gateway;
    struct identity_signer signer;
    bool has_master;
    struct vault_check vault;
    struct job_id gone; /* the last that was found to be forgotten since */
    uint64_t records, results;
};

static void check_mode(struct look *look, const char *folder, const char *name, uid_t owner)
{
    char path[LIMIT_PATH_BYTES], next[LIMIT_PATH_BYTES + 16];
    struct stat status;

    snprintf(path, sizeof path, "%s%s%s", folder, *name ? "/" : "", name);
    if (lstat(path, &status) < 0)
        return;
    unsigned mode = S_ISDIR(status.st_mode) ? 0700 : 0600;
    snprintf(next, sizeof next, "chmod %o %s", mode, path);
    if (status.st_mode & 077)
        report_finding(&look->report, path, "others than the broker's user may read it", next);
    if (status.st_uid != owner)
        report_finding(&look->report, path, "it belongs to another user than the state folder",
                       "chown it to the broker's user");
}

static void check_keys(struct look *look)
{
    char path[LIMIT_PATH_BYTES];
    struct link_keypair pair;
    struct stat folder;
    uint8_t master[32];

    if (stat(look->place.state, &folder) < 0)
        return;
    check_mode(look, look->place.state, "", folder.st_uid);
    check_mode(look, look->place.state, "state.db", folder.st_uid);
    if (look->place.keys_apart) {
        report_note(&look->report, look->place.keys,
                    "the keys are not here: --keys DIR says where, for the jobs' keys to be tried");
        return;
    }
    check_mode(look, look->place.keys, "broker.key", folder.st_uid);
    check_mode(look, look->place.keys, "master.key", folder.st_uid);
    snprintf(path, sizeof path, "%s/broker.key", look->place.keys);
    if (identity_key_load(path, &pair) != 0)
        report_finding(&look->report, path, "it is missing, or no key file",
                       "put it back from a backup: peers know the broker by it");
    wipe(&pair, sizeof pair);
    snprintf(path, sizeof path, "%s/master.key", look->place.keys);
    if (identity_secret_load(path, master) != 0) {
        report_finding(&look->report, path, "it is missing, or no secret",
                       "put it back from a backup: without it no job that is there can be run");
        return;
    }
    identity_signer_init(&look->signer, master);
    wipe(master, sizeof master);
    look->has_master = true;
}

static void on_finding(void *user, const char *what, const char *why, const char *next)
{
    struct look *look = user;
    report_finding(&look->report, what, why, next);
}

static const char *on_record(void *user, const struct record *record)
{
    struct look *look = user;
    bool made = record->kind == RECORD_JOB || record->kind == RECORD_EDIT;
    const char *why = made ? NULL : core_unfit(look->core, record);

    look->records++;
    if (!why && gateway_recover(&look->gateway, record) != 0)
        why = "what it holds cannot be read, or does not fit what was before";
    return why;
}

/* ---- into the vault ---- */

static void frame_name(struct look *look, const struct lease_id *lease, char *name, size_t size)
{
    const struct space *space = core_step_space(look->core, &lease->job, lease->task.step);
    const char *frame = space ? space_frame_name(space) : NULL;
    struct point point = {0};

    snprintf(name, size, "%llu", (unsigned long long)lease->task.index);
    if (!frame || space_point(space, lease->task.index, &point) != 0)
        return;
    for (size_t i = 0; i < point.n_values; i++)
        if (!strcmp(point.values[i].name, frame))
            space_value_text(space, &point.values[i], name, size);
}

static size_t copy_refs(const ProtobufCBinaryData *refs, size_t n_refs, struct block_id *ids)
{
    size_t n = 0;

    for (size_t i = 0; i < n_refs; i++)
        if (refs[i].len == sizeof ids[n])
            memcpy(&ids[n++], refs[i].data, sizeof ids[n]);
    return n;
}

/* Its blocks went with it, after the database was looked at. */
static bool is_gone(struct look *look, const struct job_id *job)
{
    char what[64], hex[2 * sizeof job->bytes + 1];

    if (!look->vault.running)
        return false;
    if (memcmp(job, &look->gone, sizeof *job) == 0)
        return true;
    if (!store_forgot(look->place.state, job))
        return false;
    look->gone = *job;
    hex_encode(job->bytes, sizeof job->bytes, hex);
    snprintf(what, sizeof what, "job %.8s", hex);
    report_note(&look->report, what, "its time was over, and it was forgotten meanwhile");
    return true;
}

/* "block ab12cd34 is damaged (and 3 more)"; false where all is there. */
static bool bad_blocks(struct look *look, const struct catalogue_job *entry,
                       const ProtobufCBinaryData *refs, size_t n_refs, char *why, size_t size)
{
    _cleanup_(freep) struct block_id *ids = calloc(n_refs + 1, sizeof *ids);
    char hex[2 * sizeof ids->bytes + 1], more[48] = "";
    struct block_id first;
    const char *how;

    if (!ids || n_refs == 0)
        return false;
    size_t n = vault_check_refs(&look->vault, entry->studio, ids, copy_refs(refs, n_refs, ids),
                                &first, &how);
    if (n == 0 || is_gone(look, &entry->job))
        return false;
    hex_encode(first.bytes, sizeof first.bytes, hex);
    if (n > 1)
        snprintf(more, sizeof more, " (and %zu more are not whole)", n - 1);
    snprintf(why, size, "block %.16s %s%s", hex, how, more);
    return true;
}

static void on_result(void *user, const struct record *record)
{
    struct look *look = user;
    const struct catalogue_job *entry = catalogue_find(&look->gateway.catalogue, &record->job);
    Wl__Result *result = wl__result__unpack(NULL, record->attempt.blob_size, record->attempt.blob);
    char job[2 * sizeof record->job.bytes + 1], frame[64], what[160], why[160], next[256];

    look->results++;
    hex_encode(record->job.bytes, sizeof record->job.bytes, job);
    frame_name(look, &record->attempt.lease, frame, sizeof frame);
    snprintf(what, sizeof what, "frame %s of job %.8s", frame, job);
    snprintf(next, sizeof next, "westlight retry %.8s -f %s renders it again", job, frame);
    if (!result || result->n_manifest == 0)
        report_finding(&look->report, what, "its result cannot be read", next);
    else if (entry && bad_blocks(look, entry, result->refs, result->n_refs, why, sizeof why))
        report_finding(&look->report, what, why, next);
    wl__result__free_unpacked(result, NULL);
}

static void check_job(struct look *look, struct catalogue_job *entry)
{
    char job[2 * sizeof entry->job.bytes + 1], what[320], why[160];
    const uint8_t *key;

    hex_encode(entry->job.bytes, sizeof entry->job.bytes, job);
    snprintf(what, sizeof what, "job %.8s (%.200s)", job, entry->submit->name);
    if (look->has_master && catalogue_key(&look->gateway.catalogue, entry, &key) != 0)
        report_finding(&look->report, what, "its key does not open with this master.key",
                       "put back the master.key that belongs to this state");
    if (bad_blocks(look, entry, entry->submit->refs, entry->submit->n_refs, why, sizeof why)) {
        char whole[192];
        snprintf(whole, sizeof whole, "an input: %s", why);
        report_finding(&look->report, what, whole, NEXT_SUBMIT);
    }
}

/* The tree is level: no deeper than a few times its logarithm. */
static void check_jobs(struct look *look, struct catalogue_job *at)
{
    if (!at)
        return;
    check_jobs(look, at->left);
    check_job(look, at);
    check_jobs(look, at->right);
}

/* ---- the command ---- */

/* Held while it looks, so that no broker starts meanwhile; where one runs it has it. */
static int hold_lock(const char *state, bool *ret_running)
{
    char path[LIMIT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", state);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *ret_running = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    return fd;
}

static int look_at(struct look *look, uint64_t *ret_digest)
{
    struct core_config core_config = {.epoch = 1};
    struct gateway_config config = {.signer = &look->signer, .bulk = "", .epoch = 1};
    struct store_checker checker = {look, on_finding, on_record, on_result};

    check_keys(look);
    int r = vault_check_blocks(&look->vault);
    if (r < 0 && r != -ENOENT)
        return r;
    look->core = core_new(&core_config);
    config.core = look->core;
    r = gateway_init(&look->gateway, &config);
    if (r == 0)
        r = store_check(look->place.state, &checker);
    if (r < 0)
        return r;
    check_jobs(look, look->gateway.catalogue.root);
    vault_check_rest(&look->vault);
    *ret_digest = core_digest(look->core);
    if (r == 0) { /* what the rows say fits: then what comes of it must as well */
        core_recovered(look->core, 0);
        core_audit(look->core);
    }
    return 0;
}

static void finish_json(const struct look *look, uint64_t digest, bool quick)
{
    const struct vault_check *vault = &look->vault;

    printf("%s],\"records\":%llu,\"jobs\":%zu,\"results\":%llu,\"blocks\":%llu,\"bytes\":%llu,"
           "\"findings\":%llu,\"digest\":\"%016llx\",\"hashed\":%s,\"running\":%s}\n",
           look->report.findings + look->report.notes ? "\n" : "",
           (unsigned long long)look->records, look->gateway.catalogue.n_jobs,
           (unsigned long long)look->results, (unsigned long long)vault->blocks,
           (unsigned long long)vault->bytes, (unsigned long long)look->report.findings,
           (unsigned long long)digest, quick ? "false" : "true", vault->running ? "true" : "false");
}

static void finish_text(const struct look *look, uint64_t digest, bool quick)
{
    const struct vault_check *vault = &look->vault;

    printf("%llu records, %zu jobs, %llu results, %llu blocks (%llu bytes%s)%s: %llu findings; "
           "digest %016llx\n",
           (unsigned long long)look->records, look->gateway.catalogue.n_jobs,
           (unsigned long long)look->results, (unsigned long long)vault->blocks,
           (unsigned long long)vault->bytes, quick ? ", not read" : "",
           vault->running ? ", while a broker runs" : "", (unsigned long long)look->report.findings,
           (unsigned long long)digest);
}

static int finish(const struct look *look, uint64_t digest, bool quick)
{
    if (look->report.json)
        finish_json(look, digest, quick);
    else
        finish_text(look, digest, quick);
    return look->report.findings ? FOUND : CLEAN;
}

static int run(struct look *look, bool quick)
{
    char folder[LIMIT_PATH_BYTES + 8];
    uint64_t digest = 0;
    bool running = false;

    _cleanup_(closep) int lock = hold_lock(look->place.state, &running);
    snprintf(folder, sizeof folder, "%s/vault", look->place.state);
    look->vault.report = &look->report;
    look->vault.folder = folder;
    look->vault.quick = quick;
    look->vault.running = running;
    if (look->report.json)
        printf("{\"told\":[");
    int r = look_at(look, &digest);
    if (r < 0) {
        fprintf(stderr, "westlight-broker: %s: %s: run it as the broker's user\n",
                look->place.state, strerror(-r));
        r = FAILED;
    } else {
        r = finish(look, digest, quick);
    }
    vault_check_deinit(&look->vault);
    gateway_deinit(&look->gateway);
    core_free(look->core);
    wipe(&look->signer, sizeof look->signer);
    return r;
}

enum { JSON = 256, QUICK, KEYS, SET_ASIDE, STATE };

const struct args_option command_check_options[] = {
    {QUICK, "quick", NULL, "leave out the blocks' contents"},
    {SET_ASIDE, "set-aside", NULL,
     "move damaged blocks out of the way, so that they are sent again"},
    {KEYS, "keys", "DIR", "where broker.key and master.key are kept, if not beside"},
    {JSON, "json", NULL, "as JSON"},
    {STATE, "state", "DIR", "what to read, instead of a word"},
    {0},
};

struct asked {
    struct look *look;
    const char *keys, *state;
    bool quick;
};

static int take_option(void *user, int option, const char *value)
{
    struct asked *asked = user;

    if (option == JSON)
        asked->look->report.json = true;
    else if (option == QUICK)
        asked->quick = true;
    else if (option == KEYS)
        asked->keys = value;
    else if (option == SET_ASIDE)
        asked->look->vault.set_aside = true;
    else
        asked->state = value;
    return 0;
}

int command_check(int argc, char **argv)
{
    _cleanup_(freep) struct look *look = calloc(1, sizeof *look);
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct asked asked = {.look = look};
    int word, r;

    if (!look)
        return FAILED;
    pthread_mutex_init(&look->report.lock, NULL);
    r = command_args(command_check_options, argc, argv, take_option, &asked, &word);
    if (r != 0)
        return r;
    if (!asked.state && word == argc - 1)
        asked.state = argv[word++];
    if (!asked.state || word != argc) {
        fprintf(stderr, "westlight-broker: check: it takes one folder: give a broker's state or a "
                        "backup; see westlight-broker help check\n");
        return USAGE;
    }
    if (backup_find(asked.state, asked.keys, &look->place, &why) != 0) {
        fprintf(stderr, "westlight-broker: %s\n", (const char *)why.data);
        return USAGE;
    }
    return run(look, asked.quick);
}
