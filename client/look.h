/* look.h - what the broker's rows are called, in a person's words.
 *
 * Shape:   struct look_steps is what naming a job's tasks needs: its steps' names and spaces.
 * Owns:    rows borrow from the envelope they came in; their small texts are the connection's
 *          scratch, and live until its next public call.
 * Errors:  -ENOMEM; WESTLIGHT_E_* with westlight_why.
 */
#pragma once

#include <client/connection.h>

struct look_steps {
    size_t n;
    char **names;
    struct space *spaces;
};

int look_steps_new(Wl__StepRow *const *rows, size_t n, struct look_steps **ret_steps);
/* The same from a recipe: a broker leaves spaces out of its answer where they are too large. */
int look_steps_of_recipe(const Wl__Recipe *recipe, struct look_steps **ret_steps);
void look_steps_free(struct look_steps *steps);
DEFINE_CLEANUP(struct look_steps *, look_steps_free)
/* Whether the task was there when the steps were read. */
bool look_knows(const struct look_steps *steps, uint32_t step, uint64_t task);
/* "frame 7", "frames 1-5", "frame 7, camera left"; without parameters the step's name. */
void look_task_name(const struct look_steps *steps, uint32_t step, uint64_t task, char *ret_name,
                    size_t size);
/* The frames of tasks, as a range expression: `all` wants every task of a frame to be listed.
 * *ret_text is the caller's to free; "" where the step has no frames. */
int look_frames(const struct space *space, Wl__TaskRange *const *ranges, size_t n_ranges, bool all,
                char **ret_text);
/* Where the frames stand that are neither done nor failed: with those, each frame is in one place.
 * All NULL where that cannot be told: a step of several tasks a frame, or more of it than the
 * broker lists. */
struct look_places {
    char *running, *leased, *waiting, *kept; /* kept: done, and not delivered */
};
int look_places(const struct space *space, const Wl__StepRow *row, uint32_t step,
                Wl__TaskRow *const *live, size_t n_live, struct look_places *ret_places);
void look_places_deinit(struct look_places *places);
/* What a person calls the state of a job. Whether it is finished only the broker knows: what waits may
 * wait for what failed, or for a moment. */
const char *look_phase(enum job_state state, const struct westlight_counts *counts, bool finished);

int look_row(struct westlight *westlight, const Wl__JobRow *message, struct westlight_row *ret_row);
int look_live(struct westlight *westlight, const struct look_steps *steps, Wl__TaskRow *const *rows,
              size_t n, struct westlight_live **ret_live);
/* Asks for a job. */
int look_show(struct westlight *westlight, const uint8_t job[16], Wl__Envelope **ret_show);
void look_usage(const Wl__Usage *message, struct westlight_usage *ret_usage);
/* A page of the attempts of one task, after that sequence. */
int look_attempts(struct westlight *westlight, const uint8_t job[16], uint32_t step, uint64_t task,
                  uint64_t after, Wl__Envelope **ret_answer);
