/* session_inner.h - a session as its own files share it. */
#pragma once

#include <limits.h>
#include <worker/capture.h>
#include <worker/format.h>
#include <worker/session.h>
#include <worker/spawn.h>

/* Something of the job's own failed, and the result says what. */
enum { SESSION_FAILED = 1 };

struct entered {
    const Wl__Environment *environment;
    size_t number;    /* names its folder of embedded files */
    size_t variables; /* the mark before it was entered */
};

struct session {
    const struct session_config *config;
    const Wl__StepRecipe *step;
    const struct probe_software *software; /* the version that runs; NULL: what PATH finds */
    char folder[PATH_MAX];
    struct format symbols, variables;
    struct entered entered[2 * LIMIT_ENVIRONMENTS];
    size_t n_entered;
    struct spawn_group *group;
    struct capture *capture;
    struct session_result *result;
    int64_t began_ns;
    int refused; /* by on_ready */
    bool failed, entering, rules; /* the file of path mapping rules is written */
};

/* The first failure is the result's; SESSION_FAILED. */
int session_fail(struct session *session, enum attempt_class class, const char *format, ...)
    _printf_(3, 4);
int session_set(struct session *session, struct format *format, const char *prefix,
                const char *name, const char *value);
int session_variable(struct session *session, const char *name, const char *value);

/* ---- session_software.c ---- */

/* The version that the step pins or none; unpinned, this node's newest. One that nobody declared or
 * found is looked for in PATH, as any command is. */
int session_software(struct session *session);
/* Puts it first in PATH, whatever the job made of that. */
int session_software_path(struct session *session);
/* A command that is the software's name becomes the version's own. */
int session_software_command(struct session *session, char **command);
