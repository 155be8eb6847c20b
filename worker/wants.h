/* wants.h - which files of the job's inputs a task is given: its step's patterns, and its frames.
 *
 * Shape:   a pattern with '#' keeps the files of other frames away, and no others; plain ones, where
 *          there are any, say what else is wanted. A step without inputs wants all.
 * Owns:    the frames; the step is borrowed.
 * Errors:  -ENOMEM; 1: a chunk of more than WANTS_FRAMES_MAX frames.
 */
#pragma once

#include <proto/space.h>
#include <proto/westlight.pb-c.h>

enum { WANTS_FRAMES_MAX = 4096 };
/* Some ten seconds. Patterns that people write take a hundred steps a file, and millions of files. */
#define WANTS_WORK (1ULL << 34)

struct wants {
    const Wl__StepRecipe *step;
    int64_t *frames;
    size_t n_frames;
};

int wants_init(struct wants *wants, const Wl__StepRecipe *step, const struct space *space,
               uint64_t task);
void wants_deinit(struct wants *wants);
bool wants_root(const struct wants *wants, uint32_t root);
/* The steps of comparing are taken off *work; where none are left any file is wanted. */
bool wants_file(const struct wants *wants, uint32_t root, const char *path, uint64_t *work);
