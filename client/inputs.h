/* inputs.h - which files travel with a job: folders taken whole, single files, and what is missing.
 *
 * The rules are one list (never_travels): hidden files, Blender's backups, the output folder and the
 * output folders of other scenes beside it, keys, and what the user excludes. Links are followed.
 *
 * Shape:   roots as the job takes them: an absolute folder and the files below it, sorted. Single
 *          files are gathered until inputs_close, which finds few folders that hold them all.
 * Owns:    everything but the exclude list, which is borrowed.
 * Errors:  EXIT_USAGE after a message that names the thing, the reason and the next step.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <client/westlight.h>

struct inputs_list {
    char **texts;
    size_t n, capacity;
};

struct inputs_root {
    char *folder;
    struct inputs_list files; /* relative */
};

struct inputs {
    const char *const *exclude; /* patterns, borrowed */
    size_t n_exclude;
    char *out; /* the output folder; NULL: none */
    struct inputs_root *roots;
    size_t n_roots;
    struct inputs_list loose;    /* absolute, until inputs_close */
    struct inputs_list missing;  /* "PATH: what wants it" */
    struct inputs_list left_out; /* "PATH: why" */
};

void inputs_deinit(struct inputs *inputs);
/* Everything below an absolute folder that may travel. */
int inputs_folder(struct inputs *inputs, const char *folder);
/* A file or folder that is needed, wherever it lies; one that is not there is missing, and `what`
 * says who wants it. */
int inputs_path(struct inputs *inputs, const char *path, const char *what);
void inputs_missing(struct inputs *inputs, const char *path, const char *what);
/* Single files become roots. */
int inputs_close(struct inputs *inputs);
/* Hands the roots to a job; how many they are. */
size_t inputs_add(const struct inputs *inputs, struct westlight_job *job);
/* One text more, copied. */
void inputs_list_add(struct inputs_list *list, const char *text);
void inputs_list_deinit(struct inputs_list *list);
