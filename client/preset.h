/* preset.h - a scene and a few options to the one job form.
 *
 * A preset is a row of a table: its name, the endings it takes, the parameters it knows, and a
 * function that builds the job. What all presets share (asking for vCPUs, memory, cards, a timeout;
 * the scene's folder as root; the output folder) is done once, in preset.c.
 *
 * Errors:  EXIT_USAGE after a message that names the thing, the reason and the next step.
 */
#pragma once

#include <client/options.h>

struct preset_scene {
    const struct options *options;
    char path[4096];   /* absolute, links resolved */
    char folder[4096]; /* the folder that becomes the root */
    char base[256];    /* file name without its ending */
    char ending[32];   /* "pov", lower case */
    char out[4096];    /* absolute output folder */
    char
        pattern[256]; /* "beauty.####": the file name, with '#' where the number goes; "" default */
    struct westlight_range *frames;
    size_t n_frames; /* none: a still */
};

struct preset {
    const char *name;
    const char *endings[4];
    const char *const *params; /* beyond the common ones; NULL-terminated */
    const char *help;
    bool folder_ok; /* SCENE may be a folder */
    int (*build)(struct preset_scene *scene, struct westlight_job *job);
};

extern const struct preset preset_povray, preset_blender, preset_command;

/* Checks the scene, finds its preset, builds the job. `ret_out` (4096 bytes): where frames go. */
int preset_job(const struct options *options, struct westlight_job **ret_job, char *ret_out);
/* Amounts and timeout that every preset takes by -p; the step's timeout in seconds. */
int preset_resources(const struct preset_scene *scene, struct westlight_step *step,
                     uint32_t *ret_timeout_s);
/* The frame parameter of a step, chunked as asked; nothing for a still. */
void preset_frames(const struct preset_scene *scene, struct westlight_step *step);
void preset_list(void);
