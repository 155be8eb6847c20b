/* stage.h - what a task needs lies ready: its recipe, its inputs under the session folder, the
 * outputs of the tasks it depends on, its output folders.
 *
 * Shape:   <folder>/files/<path at the studio> for the recipe's roots and declared outputs,
 *          <folder>/work for the renderer, with <folder>/work/tmp. Patterns of the step's inputs narrow what is fetched, by
 *          the frames of the task.
 * Owns:    struct stage owns all it points to; stage_deinit also removes the folder, or leaves it
 *          clean for another task of the same step.
 * Errors:  0, -ECANCELED when stopped, -ENOMEM; 1 where the task cannot be run: class and why.
 */
#pragma once

#include <worker/reuse.h>
#include <worker/session.h>
#include <worker/supply.h>

/* The results this task builds on, a page at a time, from the broker. *ret_envelope holds
 * DependencyResults and is the caller's. */
typedef int stage_dependencies(void *user, uint64_t after, Wl__Envelope **ret_envelope);

struct stage_config {
    const char *folder; /* made by the stage */
    struct reuse *reuse; /* NULL, or where the folder goes when it is clean again, under `reuse_key` */
    const uint8_t *reuse_key;
    struct still **still; /* NULL, or what is known of the folder: taken over */
    Wl__BlockRef *recipe;
    const uint8_t *key_in;
    uint32_t step;
    uint64_t task;
    struct supply *supply;
    struct sealer *sealer;
    const atomic_bool *stop;
    stage_dependencies *dependencies;
    void *user;
};

struct stage {
    char *folder, *work;
    struct reuse *reuse;
    uint8_t reuse_key[REUSE_KEY_BYTES];
    struct still *still; /* of its folders, before anything was laid out in them */
    Wl__Recipe *recipe;
    const Wl__StepRecipe *step; /* of the recipe */
    struct space space;
    struct session_map *maps;
    size_t n_maps;
    char **strings; /* what the maps point to */
    size_t n_strings;
    char **outputs; /* the step's declared outputs, here */
    size_t n_outputs;
    enum attempt_class class;
    char why[LIMIT_MESSAGE_BYTES];
};

int stage_run(const struct stage_config *config, struct stage *ret_stage);
void stage_deinit(struct stage *stage);
