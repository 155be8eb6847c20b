/* state.h - the names of states: C, wire number and string from one list each.
 *
 * Shape:   X-macros. X(C name, wire number, string a person reads, and for some what it means).
 * Source:  ../README.md; westlight.proto says where each number travels.
 */
#pragma once

#include <stddef.h>

#define TASK_STATES(X)                                                                             \
    X(TASK_WAITING, 0, "waiting", "other tasks are to be done first")                              \
    X(TASK_READY, 1, "ready", "nothing is missing but a worker that is free")                      \
    X(TASK_LEASED, 2, "leased", "a worker has it and fetches its files; it has not started")       \
    X(TASK_RUNNING, 3, "running", "it is being rendered, or its files are on the way back")        \
    X(TASK_DONE, 4, "done", "its files are with the broker, whole")                                \
    X(TASK_FAILED, 5, "failed", "too many attempts have failed: retry runs it again")              \
    X(TASK_CANCELLED, 6, "cancelled", "somebody cancelled it: retry runs it again")                \
    X(TASK_LEFT_OUT, 7, "left out",                                                                \
      "set --frames took it out of the job; to name it again takes it in")

/* Durable states of a job; what it looks like is counted from its tasks as well (JOB_PHASES). */
#define JOB_STATES(X)                                                                              \
    X(JOB_ACTIVE, 0, "active")                                                                     \
    X(JOB_PAUSED, 1, "paused")                                                                     \
    X(JOB_CANCELLED, 2, "cancelled")

/* What a person is told of a job; no number of it travels. */
#define JOB_PHASES(X)                                                                              \
    X(JOB_IS_WAITING, 0, "waiting", "none of its tasks is with a worker; show says why")           \
    X(JOB_IS_RUNNING, 1, "running", "workers have some of its tasks")                              \
    X(JOB_IS_PAUSED, 2, "paused",                                                                  \
      "it starts nothing more: on request, or because too much failed; resume goes on")            \
    X(JOB_IS_DONE, 3, "done", "every task is done that was not cancelled")                         \
    X(JOB_IS_FAILED, 4, "failed", "it has ended, and tasks of it have failed: log shows why")      \
    X(JOB_IS_CANCELLED, 5, "cancelled", "it has ended because somebody cancelled it")              \
    X(JOB_IS_UPLOADING, 6, "uploading", "its files are being sent; it has yet to be accepted")     \
    X(JOB_IS_STOPPED, 7, "stopped", "its upload was cut short: submit --resume goes on with it")

/* What a person is told of a worker, in the broker's words. */
#define WORKER_STATES(X)                                                                           \
    X(WORKER_IDLE, 0, "idle", "it has nothing to do")                                              \
    X(WORKER_RUNNING, 1, "running", "it renders")                                                  \
    X(WORKER_JOINING, 2, "joining", "it has come, and has yet to say what it brings along")        \
    X(WORKER_SET_ASIDE, 3, "set aside",                                                            \
      "too many different tasks failed on it: it gets none for a while; workers clear ends that")  \
    X(WORKER_DRAINING, 4, "draining", "an operator drains it: it finishes what it has")            \
    X(WORKER_DRAINED, 5, "drained", "it has finished, and gets no work until workers undrain")     \
    X(WORKER_AWAY, 6, "away", "it is not connected")                                               \
    X(WORKER_DRAINING_AWAY, 7, "draining, away",                                                   \
      "drained while it is not connected; it has work left")                                       \
    X(WORKER_DRAINED_AWAY, 8, "drained, away", "drained, and not connected")                       \
    X(WORKER_DISK_FULL, 9, "disk full",                                                            \
      "it finishes what it has, and gets no work until there is space on its disk")

/* How an attempt ended. 0 is the only success. */
#define CLASSES(X)                                                                                 \
    X(CLASS_OK, 0, "ok", "it ended well")                                                          \
    X(CLASS_RENDERER, 1, "renderer failed",                                                        \
      "the renderer ended with an error, which its log shows")                                     \
    X(CLASS_MISSING_INPUT, 2, "missing input",                                                     \
      "a file, or the version of the software, was not there")                                     \
    X(CLASS_LICENCE, 3, "no licence", "it is tried again by itself, as long as it takes")          \
    X(CLASS_OUT_OF_MEMORY, 4, "out of memory",                                                     \
      "it needed more than it had: -p memory asks for more")                                       \
    X(CLASS_TIMEOUT, 5, "timeout", "it took longer than -p timeout allows")                        \
    X(CLASS_NO_OUTPUT, 6, "no output", "the renderer ended well and wrote nothing")                \
    X(CLASS_WORKER_LOST, 7, "worker lost", "its worker fell silent; another renders it")           \
    X(CLASS_CANCELLED, 8, "cancelled", "it was stopped on request")                                \
    X(CLASS_TRANSFER, 9, "transfer failed", "its files could not be fetched or sent")              \
    X(CLASS_BAD_OUTPUT, 10, "bad output", "pictures are broken, too few or of another size")

/* What is made of pictures that are black or hold values that are no numbers. */
#define CHECKS(X)                                                                                  \
    X(CHECK_WARN, 0, "warn")                                                                       \
    X(CHECK_OFF, 1, "off") /* nothing is looked at, broken ones neither */                         \
    X(CHECK_FAIL, 2, "fail")                                                                       \
    X(CHECK_BROKEN, 3, "broken") /* those that are broken fail, as always; no more is made of it */

#define ROLES(X)                                                                                   \
    X(ROLE_NONE, 0, "none")                                                                        \
    X(ROLE_OPERATOR, 1, "operator")                                                                \
    X(ROLE_STUDIO, 2, "studio")                                                                    \
    X(ROLE_WORKER, 3, "worker")

/* What a request is answered with. 0 is the only yes. */
#define CODES(X)                                                                                   \
    X(CODE_OK, 0, "ok")                                                                            \
    X(CODE_UNKNOWN, 1, "unknown")         /* no such thing, or not yours: never told apart */      \
    X(CODE_REFUSED, 2, "refused")         /* your role may not */                                  \
    X(CODE_INVALID, 3, "invalid")         /* past a limit, or contradicts itself */                \
    X(CODE_CONFLICT, 4, "conflict")       /* the same request id with another body */              \
    X(CODE_MISSING, 5, "blocks missing")  /* send them and repeat the request */                   \
    X(CODE_BUSY, 6, "busy")               /* full: come back later */                              \
    X(CODE_STATE, 7, "wrong state")       /* the job is not in a state that allows it */           \
    X(CODE_PROTOCOL, 8, "protocol")       /* versions do not meet */                               \
    X(CODE_STALE, 9, "stale")             /* older floor, epoch, session or ticket */              \
    X(CODE_ALREADY, 10, "already committed")                                                       \
    X(CODE_INTERNAL, 11, "internal")                                                               \
    X(CODE_DAMAGED, 12, "damaged")        /* on the broker's disk: never served */                            \
    X(CODE_FULL, 13, "disk full") /* of the farm: an operator must free space */                   \
    X(CODE_QUOTA, 14, "quota")    /* of the studio, which has to free space */

/* What the broker says of each lease a returning worker lists. */
#define VERDICTS(X)                                                                                \
    X(VERDICT_KEEP, 0, "keep") /* go on running it */                                              \
    X(VERDICT_SEND, 1, "send") /* send its result */                                               \
    X(VERDICT_DROP, 2, "drop") /* stop it, delete it */

/* The pool of a worker is an attribute that the broker alone gives it; "" where it is in none. */
#define ATTRIBUTE_POOL "attr.worker.pool"
/* Its values are the versions of attr.software.blender that can denoise. */
#define ATTRIBUTE_DENOISER "attr.blender.denoiser"
/* Ahead of a software's name; its values are the versions. */
#define ATTRIBUTE_SOFTWARE "attr.software."
/* Each worker offers itself as a software: it is what makes a frame of its tiles. */
#define SOFTWARE_WORKER "westlight-worker"

/* What an edit of a job changes, as bits. None raises a floor but EDIT_FRAMES, and that only of
 * tasks that are left out, taken in again, or (a last chunk that was not full) get more frames. */
enum edit_what {
    EDIT_NAME = 1,
    EDIT_NOTE = 2,
    EDIT_TAGS = 4,
    EDIT_PRIORITY = 8,
    EDIT_MAX_WORKERS = 16,
    EDIT_ARCHIVED = 32,
    EDIT_FRAMES = 64,
    EDIT_ALL = 127,
};

#define STATE_ENUM(name, number, ...) name = number,
enum task_state { TASK_STATES(STATE_ENUM) };
enum job_state { JOB_STATES(STATE_ENUM) };
enum job_phase { JOB_PHASES(STATE_ENUM) };
enum worker_state { WORKER_STATES(STATE_ENUM) };
enum attempt_class { CLASSES(STATE_ENUM) };
enum check { CHECKS(STATE_ENUM) };
enum role { ROLES(STATE_ENUM) };
enum code { CODES(STATE_ENUM) };
enum verdict { VERDICTS(STATE_ENUM) };
#undef STATE_ENUM

#define STATE_COUNT(name, number, ...) +1
enum { TASK_STATES_COUNT = 0 TASK_STATES(STATE_COUNT) };
enum { JOB_STATES_COUNT = 0 JOB_STATES(STATE_COUNT) };
enum { JOB_PHASES_COUNT = 0 JOB_PHASES(STATE_COUNT) };
enum { WORKER_STATES_COUNT = 0 WORKER_STATES(STATE_COUNT) };
enum { CLASSES_COUNT = 0 CLASSES(STATE_COUNT) };
enum { CHECKS_COUNT = 0 CHECKS(STATE_COUNT) };
enum { ROLES_COUNT = 0 ROLES(STATE_COUNT) };
enum { CODES_COUNT = 0 CODES(STATE_COUNT) };
enum { VERDICTS_COUNT = 0 VERDICTS(STATE_COUNT) };
#undef STATE_COUNT

#define STATE_STRING(name, number, string, ...) [number] = string,
#define STATE_LOOKUP(function, LIST, count)                                                        \
    static inline const char *function(unsigned value)                                             \
    {                                                                                              \
        static const char *const names[] = {LIST(STATE_STRING)};                                   \
        return value < (count) ? names[value] : "unknown";                                         \
    }
STATE_LOOKUP(task_state_name, TASK_STATES, TASK_STATES_COUNT)
STATE_LOOKUP(job_state_name, JOB_STATES, JOB_STATES_COUNT)
STATE_LOOKUP(job_phase_name, JOB_PHASES, JOB_PHASES_COUNT)
STATE_LOOKUP(worker_state_name, WORKER_STATES, WORKER_STATES_COUNT)
STATE_LOOKUP(class_name, CLASSES, CLASSES_COUNT)
STATE_LOOKUP(check_word, CHECKS, CHECKS_COUNT)
STATE_LOOKUP(role_name, ROLES, ROLES_COUNT)
STATE_LOOKUP(code_name, CODES, CODES_COUNT)
STATE_LOOKUP(verdict_name, VERDICTS, VERDICTS_COUNT)
#undef STATE_LOOKUP
#undef STATE_STRING
