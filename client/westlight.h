/* westlight.h - libwestlight: submit rendering jobs to a farm, watch them, bring their frames home.
 *
 * What a DCC plug-in, a load test or a console links. Calls block; each has a deadline. A struct
 * westlight belongs to one thread; make one for each thread.
 *
 * Shape:   one control link per struct westlight; bulk links are opened while blocks move.
 * Owns:    what a call takes as const it copies. What a callback is given lives for the call.
 * Errors:  0, or a positive WESTLIGHT_E_* that says what to do, or -errno. westlight_why() then
 *          holds "what: why: next step" as one line for a person.
 * Source:  ../README.md; wire: ../proto/westlight.proto.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    WESTLIGHT_E_USAGE = 1,       /* what was asked makes no sense; nothing was sent */
    WESTLIGHT_E_UNREACHABLE = 2, /* nobody answers there */
    WESTLIGHT_E_REFUSED = 3,     /* the broker does not know this key, or its role may not */
    WESTLIGHT_E_UNKNOWN = 4,     /* no such job (or not yours) */
    WESTLIGHT_E_STATE = 5,       /* the job's state does not allow it */
    WESTLIGHT_E_BUSY = 6,        /* full: try again later */
    WESTLIGHT_E_MISSING = 7,     /* an input file is missing */
    WESTLIGHT_E_TIMEOUT = 8,     /* nothing happened before the deadline */
    WESTLIGHT_E_CORRUPT = 9,     /* bytes that do not match their digest */
    WESTLIGHT_E_EXISTS = 10,     /* a file the user changed is in the way */
    WESTLIGHT_E_STOPPED = 11,    /* westlight_stop was called */
};

#define WESTLIGHT_ID_BYTES 16
#define WESTLIGHT_ID_TEXT  33 /* 32 hexadecimal digits and a NUL; people type a prefix */
#define WESTLIGHT_KEY_TEXT 41 /* Z85 */

/* ---- farms: ~/.config/westlight/config, one section each ---- */

struct westlight_farm {
    char name[64];
    char control[256]; /* "tcp://host:7420" */
    char bulk[256];    /* "": as the broker says */
    char server_key[WESTLIGHT_KEY_TEXT];
    char key_file[1024];    /* this person's CURVE keys */
    char secret_file[1024]; /* the studio's sealing secret */
};
/* `name` NULL: $WESTLIGHT_FARM, else the config's default, else its only farm. `why` gets a
 * sentence on failure. Config: $WESTLIGHT_CONFIG, else $XDG_CONFIG_HOME/westlight/config. */
int westlight_farm_load(const char *name, struct westlight_farm *ret_farm, char *why,
                        size_t why_size);
/* Makes a key pair (and the studio's secret where there is none); refuses to overwrite. */
int westlight_key_new(const char *key_file, const char *secret_file,
                      char ret_public[WESTLIGHT_KEY_TEXT], char *why, size_t why_size);

/* ---- a connection ---- */

struct westlight;
int westlight_open(const struct westlight_farm *farm, int timeout_ms,
                   struct westlight **ret_westlight, char *why, size_t why_size);
void westlight_close(struct westlight *westlight);
const char *westlight_why(const struct westlight *westlight);
/* From a signal handler or another thread: the call in progress ends with WESTLIGHT_E_STOPPED. */
void westlight_stop(struct westlight *westlight);
/* Called within a call that waits, where the farm has not answered for some seconds (`away`), and when
 * it does again. */
typedef void westlight_link(void *user, bool away);
void westlight_on_link(struct westlight *westlight, westlight_link *link, void *user);

/* ---- a job, built in Open Job Description's terms ---- */

struct westlight_job;
struct westlight_step;
struct westlight_range {
    int64_t first, last, step;
};
enum westlight_type { WESTLIGHT_INT, WESTLIGHT_STRING, WESTLIGHT_PATH, WESTLIGHT_FLOAT };

/* Builders fail only for want of memory (they abort) or past a limit, which westlight_submit
 * reports. Strings are copied. */
struct westlight_job *westlight_job_new(const char *name);
void westlight_job_free(struct westlight_job *job);
void westlight_job_describe(struct westlight_job *job, const char *note, const char *person,
                            int32_t priority);
void westlight_job_tag(struct westlight_job *job, const char *tag);
/* So many of its tasks are with workers at once; 0: no limit. */
void westlight_job_max_workers(struct westlight_job *job, uint32_t max_workers);
/* A job parameter, {{Param.NAME}}; a PATH value is mapped to where the root lies on the worker. */
void westlight_job_parameter(struct westlight_job *job, const char *name, enum westlight_type type,
                             const char *value);
void westlight_job_variable(struct westlight_job *job, const char *name, const char *value);
/* An input root: an absolute folder and the files below it to take; no files: all that is there
 * but hidden files. Returns its index. */
uint32_t westlight_job_root(struct westlight_job *job, const char *folder, const char *const *files,
                            size_t n_files);

struct westlight_step *westlight_job_step(struct westlight_job *job, const char *name);
uint32_t westlight_step_index(const struct westlight_step *step);
/* {{Task.Param.NAME}}; chunk > 1 gives a range expression of that many values. Each call is a
 * further factor of the product. */
void westlight_step_ints(struct westlight_step *step, const char *name,
                         const struct westlight_range *ranges, size_t n_ranges, uint32_t chunk);
#define WESTLIGHT_TILE "Tile" /* the name of one whose tasks are said as "frame 7, tile 2 of 16" */
void westlight_step_texts(struct westlight_step *step, const char *name, enum westlight_type type,
                          const char *const *texts, size_t n_texts);
/* What the step takes of an input root, instead of all of every root. A pattern with '#' keeps away
 * the files of other frames and no others ("cache_####.vdb"); plain ones say what else is taken. */
void westlight_step_input(struct westlight_step *step, uint32_t root, const char *const *patterns,
                          size_t n_patterns);
void westlight_step_amount(struct westlight_step *step, const char *name, double min);
void westlight_step_attribute(struct westlight_step *step, const char *name,
                              const char *const *any_of, size_t n_any_of);
/* per 0: waits for the whole step; else task i for its tasks i * per to i * per + per - 1. Their
 * outputs are laid out. */
void westlight_step_depends(struct westlight_step *step, uint32_t on, uint32_t per);
/* Its outputs are for the steps that depend on it, and do not come home. */
void westlight_step_interim(struct westlight_step *step);
/* {{Task.File.NAME}}: a script or file; its text may hold format strings. */
void westlight_step_file(struct westlight_step *step, const char *name, const char *filename,
                         bool runnable, const char *text);
/* What runs: arguments may hold {{Param.X}}, {{Task.Param.X}}, {{Task.File.X}},
 * {{Session.WorkingDirectory}}. */
void westlight_step_run(struct westlight_step *step, const char *command,
                        const char *const *arguments, size_t n_arguments, uint32_t timeout_s);
/* An absolute folder (as the studio names it): everything a task creates or changes there comes
 * home. */
void westlight_step_output(struct westlight_step *step, const char *folder);
void westlight_step_output_optional(struct westlight_step *step);
/* Which program the step runs: "povray", "blender". Its output is read for progress, and its name
 * as a command is whatever version the worker runs. */
void westlight_step_software(struct westlight_step *step, const char *software);
/* Every step of the job that runs this software runs this version, on workers that have it. */
void westlight_job_version(struct westlight_job *job, const char *software, const char *version);
/* The pictures among its outputs are looked at before a result counts: broken ones fail the
 * attempt; `check` says what black ones and those with NaN do. A size of 0 is any; images_per_frame
 * 0: who knows. Steps without this are not looked at. */
enum westlight_check {
    WESTLIGHT_CHECK_WARN,
    WESTLIGHT_CHECK_OFF,
    WESTLIGHT_CHECK_FAIL,
    WESTLIGHT_CHECK_BROKEN, /* black and NaN are no matter */
};
void westlight_step_expect(struct westlight_step *step, enum westlight_check check, uint32_t width,
                           uint32_t height, uint32_t images_per_frame);
/* Its animation's frames: it can never be given others (westlight_set, westlight_resubmit). */
void westlight_step_within(struct westlight_step *step, int64_t first, int64_t last);

/* What makes a second try the same submission, in another process too: with it (westlight_job_again)
 * a job is sent under the same id, and what the vault has is not sent again. `key` is secret. `print`
 * tells what was to be sent: recipe, paths, sizes, times. */
struct westlight_submission {
    char id[WESTLIGHT_ID_TEXT];
    uint8_t key[32], print[32];
};
void westlight_job_again(struct westlight_job *job, const struct westlight_submission *submission);

struct westlight_upload {
    uint64_t files, file_bytes, blocks, blocks_sent, bytes_sent;
    uint64_t bytes_done; /* of file_bytes: what the vault has */
    const struct westlight_submission *submission;
    bool changed; /* it is another print than westlight_job_again's */
    bool submitted; /* the job itself went out: where no answer came, it may be accepted all the same */
    bool accepted;
};
const char *westlight_job_name(const struct westlight_job *job);
/* The tasks of all steps, and the values of their first parameters: frames, for a renderer. */
uint64_t westlight_job_tasks(const struct westlight_job *job, uint64_t *ret_frames);
typedef void westlight_on_upload(void *user, const struct westlight_upload *upload);
/* The id is made first and given to `on_id` before a byte is sent; `on_upload` is called first when
 * the files have been measured, and nothing was sent. Files are packed and sealed, what the vault
 * lacks is sent, and the job is submitted; ACCEPTED means it is durable. Meanwhile the studio's
 * people see it in lists; one that they cancel ends with WESTLIGHT_E_STATE. */
typedef void westlight_on_id(void *user, const char id[WESTLIGHT_ID_TEXT]);
/* What westlight_submit would send: everything is read, sealed and asked for, nothing is sent. */
int westlight_estimate(struct westlight *westlight, struct westlight_job *job,
                       struct westlight_upload *ret_upload);
int westlight_submit(struct westlight *westlight, struct westlight_job *job, westlight_on_id *on_id,
                     westlight_on_upload *on_upload, void *user, char ret_id[WESTLIGHT_ID_TEXT]);

/* ---- looking ---- */

struct westlight_counts {
    uint64_t tasks, waiting, ready, leased, running, done, failed, cancelled;
};
struct westlight_usage {
    uint64_t wall_ns, cpu_ns, memory_bytes, bytes_in, bytes_out, card_ns;
};
struct westlight_row {
    char id[WESTLIGHT_ID_TEXT];
    uint64_t sequence;
    const char *name, *person, *studio, *note;
    int32_t priority;
    uint32_t max_workers; /* 0: no limit */
    bool archived;
    const char *state; /* "active", "paused", "cancelled", "uploading"; see also `phase` */
    const char
        *phase; /* what a person calls it: waiting, running, done, failed, paused, cancelled */
    const char *reason; /* why it is paused, or begins nothing more; "" */
    bool paused_itself; /* over failures; only a person's retry or resume goes on */
    int64_t submitted_wall_s;
    struct westlight_counts counts;
    uint64_t attempts_failed, last_result;
    uint64_t delivered;   /* of counts.done: who submitted it has acknowledged them */
    int64_t until_wall_s; /* it is over: when the farm forgets it; 0: it is not */
    const char *const *tags;
    size_t n_tags;
    bool finished; /* nothing of it will run any more, unless asked to */
    /* Not a job yet: state and phase are "uploading", the phase "stopped" where nobody sends. Begun
     * when it says submitted; no counts. */
    bool uploading;
    uint64_t upload_files, upload_bytes, upload_bytes_done;
};
struct westlight_live {
    uint32_t step;
    uint64_t task;
    const char *task_name, *state, *worker, *status;
    uint32_t permille;
    int64_t started_wall_s;
};
struct westlight_step_row {
    const char *name, *why; /* why its tasks wait, as a sentence; "" */
    struct westlight_counts counts;
    bool interim; /* its results do not come home */
    const char *software; /* "blender 3.4.1", "blender, any version"; "" */
    const char *frames, *frames_done, *frames_failed; /* range expressions; "" where it has none */
    const char *frames_delivered; /* of those that are done, where they are not too many pieces */
    /* With failed and delivered each frame is in one list; NULL where the broker did not tell enough
     * for that. frames_kept: done, and not delivered. */
    const char *frames_running, *frames_leased, *frames_waiting, *frames_kept;
};
struct westlight_shown {
    struct westlight_row row;
    const struct westlight_step_row *steps;
    size_t n_steps;
    const struct westlight_live *live;
    size_t n_live;
    struct westlight_usage usage;
};
struct westlight_worker {
    uint32_t id;
    const char *name, *state; /* idle, running, draining, drained, "set aside", joining, away */
    const char *pool, *note;  /* "" */
    char key[WESTLIGHT_KEY_TEXT];
    bool connected, drained, set_aside;
    int64_t aside_until_wall_s;
    uint32_t failed_in_a_row; /* different tasks, since its last success */
    uint32_t slots, running, queued;
    uint64_t done, failed;
    int64_t seen_wall_s;
    const char *const *amounts;
    size_t n_amounts; /* "amount.worker.vcpu=8" */
    const char *const *attributes;
    size_t n_attributes; /* "attr.software.povray=3.7.0" */
    const char *const *gpus;
    size_t n_gpus;
};
struct westlight_attempt {
    uint64_t sequence, attempt, task;
    uint32_t step, number, floor; /* number: of its task's, from 1; 0 in westlight_failures */
    const char *task_name;        /* "frame 7" */
    const char *class_name, *message, *worker;
    int32_t exit_status;
    int64_t started_wall_s, ended_wall_s;
    struct westlight_usage usage;
};

typedef int westlight_on_row(void *user, const struct westlight_row *row);
typedef int westlight_on_worker(void *user, const struct westlight_worker *worker);
typedef int westlight_on_attempt(void *user, const struct westlight_attempt *attempt);

enum westlight_listed {
    WESTLIGHT_UNFINISHED,
    WESTLIGHT_ALL, /* but the archived */
    WESTLIGHT_ARCHIVED,
};
int westlight_jobs(struct westlight *westlight, enum westlight_listed which,
                   westlight_on_row *on_row, void *user);
/* A prefix of at least 4 digits to a whole id; "last" is this studio's newest job that is
 * not archived. */
int westlight_resolve(struct westlight *westlight, const char *prefix,
                      char ret_id[WESTLIGHT_ID_TEXT]);
/* *ret_shown lives until the next call on this connection. */
int westlight_show(struct westlight *westlight, const char *id,
                   const struct westlight_shown **ret_shown);
int westlight_workers(struct westlight *westlight, westlight_on_worker *on_worker, void *user);
/* What an operator should do something about, as of the last westlight_workers: that the farm's disk
 * is full. "" */
const char *westlight_trouble(const struct westlight *westlight);
int westlight_attempts(struct westlight *westlight, const char *id, uint32_t step, uint64_t task,
                       westlight_on_attempt *on_attempt, void *user);
/* The job's failed attempts, whichever task's, newest first: at most `max`. */
int westlight_failures(struct westlight *westlight, const char *id, uint32_t max,
                       westlight_on_attempt *on_attempt, void *user);
/* Results that count and have something to say (a black picture), newest first: at most `max`. */
int westlight_warnings(struct westlight *westlight, const char *id, uint32_t max,
                       westlight_on_attempt *on_attempt, void *user);
/* The software that connected workers offer, each once with its versions, oldest first. */
typedef int westlight_on_software(void *user, const char *name, const char *const *versions,
                                  size_t n_versions);
int westlight_software(struct westlight *westlight, westlight_on_software *on_software, void *user);

/* Begins watching; then westlight_next waits for the next notice, at most timeout_ms. */
int westlight_watch(struct westlight *westlight, const char *id);
int westlight_unwatch(struct westlight *westlight,
                      const char *id); /* a connection watches few jobs at once */
struct westlight_notice {
    struct westlight_row row;
    const struct westlight_live *live;
    size_t n_live;
    const char *const *why;
    size_t n_why;
};
int westlight_next(struct westlight *westlight, int timeout_ms,
                   const struct westlight_notice **ret_notice);

/* ---- doing ---- */

enum westlight_verb { WESTLIGHT_CANCEL = 1, WESTLIGHT_PAUSE, WESTLIGHT_RESUME, WESTLIGHT_RETRY };
/* Frames: n_frames 0 is the whole job (retry: what failed). *ret_tasks: how many it touched. An
 * upload can be cancelled; westlight_why then says that, and is "" otherwise. */
int westlight_do(struct westlight *westlight, const char *id, enum westlight_verb verb,
                 const struct westlight_range *frames, size_t n_frames, uint64_t *ret_tasks);

/* What of a job is to change: each has its flag or pointer. */
struct westlight_changes {
    const char *name, *note; /* NULL: as it is */
    const char *const *tags; /* all of them; NULL: as they are */
    size_t n_tags;
    bool set_priority, set_max_workers;
    int32_t priority;
    uint32_t max_workers; /* 0: no limit */
    /* All of its frames from now on; none: as they are. A frame that is not in the job is added,
     * one that is left out is stopped (but what is done stays); no other is disturbed. A chunk that
     * holds a frame named stays whole. */
    const struct westlight_range *frames;
    size_t n_frames;
};
/* *ret_tasks: how many were added or left out. */
int westlight_set(struct westlight *westlight, const char *id,
                  const struct westlight_changes *changes, uint64_t *ret_tasks);
/* Out of the list, or back into it; a job that is not finished is WESTLIGHT_E_STATE. */
int westlight_archive(struct westlight *westlight, const char *id, bool archived);
/* A new job from what this one was made of, with these changes; no file is read or sent. */
int westlight_resubmit(struct westlight *westlight, const char *id,
                       const struct westlight_changes *changes, westlight_on_id *on_id, void *user,
                       char ret_id[WESTLIGHT_ID_TEXT]);

/* What an operator does to workers. A worker is named by its name, its id, or the first 4 or more
 * characters of its key; where one is nobody, or could be two, nothing is done to any. Text: a note
 * or a pool, "" takes it away; WESTLIGHT_DRAIN takes a note or NULL, the others NULL. *ret_workers says how they
 * are now (name, key, state, running; the rest is none) and lives until the next call. */
enum westlight_tend {
    WESTLIGHT_DRAIN = 1,
    WESTLIGHT_UNDRAIN,
    WESTLIGHT_CLEAR, /* its failures are forgotten: it is no longer set aside */
    WESTLIGHT_NOTE,
    WESTLIGHT_POOL
};
int westlight_tend(struct westlight *westlight, enum westlight_tend tend,
                   const char *const *workers, size_t n_workers, const char *text,
                   const struct westlight_worker **ret_workers, size_t *ret_n);

/* ---- bringing home ---- */

/* Where this machine's user wanted a job's files: kept beside the job's key. False where unknown. */
bool westlight_folder(const char *id, char *ret_folder, size_t size);
int westlight_folder_keep(const char *id, const char *folder);

struct westlight_fetched {
    uint32_t step;
    uint64_t task;
    const char *task_name; /* "frame 7" */
    const char *path;      /* as written */
    uint64_t bytes;
    uint64_t files_done, results_done, results_known;
    bool skipped; /* it was there already */
};
typedef int westlight_on_fetched(void *user, const struct westlight_fetched *file);
struct westlight_fetch {
    const char *folder; /* below which everything is written; made where it is missing */
    bool follow;        /* until the job is finished */
    bool replace;       /* what was fetched of a newer job into the same folder, too */
    bool force;         /* over files the user changed */
    bool deliver;       /* acknowledges results though another key submitted the job */
    int timeout_ms;     /* without any progress, follow: 0 waits for ever */
    westlight_on_fetched *on_file;
    westlight_on_fetched *on_result; /* all files of one result are written and synced */
    void *user;
    uint64_t after;          /* in: results after this sequence; out: the last one fetched */
    uint64_t bytes_received; /* out, on the wire */
};
/* Every file is verified against its digests, written through a temporary name, synced, renamed.
 * Outputs of one declared folder go to `folder`; where steps declare several, each goes to a
 * sub-folder named after the last part of its path. */
int westlight_fetch(struct westlight *westlight, const char *id, struct westlight_fetch *fetch);

/* Text of an attempt's log in pieces. attempt 0: the newest; follow: until the attempt ends. */
typedef int westlight_on_text(void *user, const char *text, size_t size);
int westlight_log(struct westlight *westlight, const char *id, uint32_t step, uint64_t task,
                  uint32_t attempt, bool follow, westlight_on_text *on_text, void *user);
/* The first task of one step whose frame parameter holds `frame` (-1: none does), and how many
 * follow each other from there: a frame's tiles. */
int westlight_task_of_frame(struct westlight *westlight, const char *id, uint32_t step,
                            int64_t frame, int64_t *ret_task, uint64_t *ret_tasks);

/* Range expressions: "1-240", "1-240:2", "1-240x2", "1..10", "5,10-20,-3--1". *ret_ranges is the
 * caller's to free; on WESTLIGHT_E_USAGE *ret_at is the offset and *ret_why the reason. */
int westlight_frames(const char *text, struct westlight_range **ret_ranges, size_t *ret_n,
                     size_t *ret_at, const char **ret_why);
const char *westlight_version(void);

#ifdef __cplusplus
}
#endif
