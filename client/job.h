/* job.h - a job as it is built, before it is sealed and sent.
 *
 * Shape:   westlight.h's builder fills protobuf messages on the heap, so that one call frees them;
 *          spaces are kept as struct space and lent to the messages by job_compile.
 * Owns:    struct westlight_job owns its steps; a step pointer lives as long as its job.
 * Errors:  builders remember the first limit passed in `error`; job_compile reports it.
 * Source:  westlight.h; ../proto/westlight.proto, Recipe and Step.
 */
#pragma once

#include <client/westlight.h>
#include <proto/limits.h>
#include <proto/space.h>
#include <proto/westlight.pb-c.h>

struct job_root {
    char *folder;
    char **files; /* none: all that is there but hidden files */
    size_t n_files;
};

struct westlight_step {
    struct westlight_job *job;
    uint32_t index;
    struct space space;
    Wl__Step step;          /* what scheduling needs; name, space and dependencies are lent */
    Wl__StepRecipe *recipe; /* in job->recipe */
    Wl__SpaceParameter **parameters; /* made by job_compile; borrows from `space` */
    size_t n_parameters;
};

struct westlight_job {
    Wl__Recipe recipe; /* its roots are lent while it is submitted */
    char *note, *person;
    int32_t priority;
    uint32_t max_workers;
    char **tags;
    size_t n_tags;
    struct job_root *roots;
    size_t n_roots;
    struct westlight_step **steps;
    size_t n_steps;
    struct westlight_submission again; /* id "": a new one each time */
    bool compiled;
    char error[LIMIT_MESSAGE_BYTES];
};

/* Checks the whole once and lends the spaces to the messages. 0, or WESTLIGHT_E_USAGE with the
 * sentence in job->error. */
int job_compile(struct westlight_job *job);
