/* spawn.h - one action of a session: run it, read it, bound it, and know what it used.
 *
 * Shape:   a group is what the actions of one session share: one output pipe, and the wardens of
 *          those that left processes behind on purpose (an environment that starts a daemon).
 *          spawn_run blocks until the action's own process has ended and, unless `keep`, until
 *          nothing of it is left.
 * Units:   *_ns of time, *_bytes of memory.
 * Owns:    the group owns its pipe and wardens; spawn_group_free kills all that is left.
 * Errors:  -errno where nothing could be started; whatever the action does is an `end`.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/err.h>

enum spawn_end {
    SPAWN_EXITED,     /* by itself, see exit_status */
    SPAWN_NO_COMMAND, /* there is no such program; see error */
    SPAWN_STOPPED,    /* by the stop flag */
    SPAWN_TIMEOUT,
    SPAWN_MEMORY,     /* over memory_bytes, or the kernel was short of it */
    SPAWN_LOST,       /* its warden was killed */
};

struct spawn_config {
    char *const *arguments;   /* NULL-ended; the first is looked up in the environment's PATH */
    char *const *environment; /* NULL-ended, all of it */
    const char *folder;
    int64_t timeout_ns;       /* 0: none */
    int64_t notify_ns;        /* between SIGTERM and SIGKILL; 0: SIGKILL at once */
    uint64_t memory_bytes;    /* of the whole group, resident; 0: no limit */
    const atomic_bool *stop;  /* may be NULL */
    bool keep;                /* what it leaves running runs on until the group is freed */
    void (*on_started)(void *user, bool over); /* may be NULL; over: it has ended, too */
    void (*on_output)(void *user, const void *data, size_t size);  /* the group's, as it comes */
    void *user;
};

struct spawn_result {
    enum spawn_end end;
    int exit_status;      /* 128 + n for signal n */
    int error;            /* SPAWN_NO_COMMAND: the errno */
    uint64_t memory_bytes; /* SPAWN_MEMORY: seen when it was killed; 0: the kernel did it */
};

struct spawn_usage {
    uint64_t cpu_ns;       /* of all that has ended */
    uint64_t memory_bytes; /* the most seen at once, or of the largest process */
};

struct spawn_group;
int spawn_group_new(struct spawn_group **ret_group);
void spawn_group_free(struct spawn_group *group);
DEFINE_CLEANUP(struct spawn_group *, spawn_group_free)

int spawn_run(struct spawn_group *group, const struct spawn_config *config,
              struct spawn_result *ret_result);
/* Ends what was kept and gives the usage of everything the group ran. */
void spawn_group_end(struct spawn_group *group, struct spawn_usage *ret_usage);
/* Where `command` lies by `search` (as PATH); a command with a '/' is itself. -ENOENT, -EACCES,
 * -ENAMETOOLONG. */
int spawn_find(const char *command, const char *search, char *ret_path, size_t size);
