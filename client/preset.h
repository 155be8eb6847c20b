/* preset.h - a scene and a few options to the one job form.
 *
 * A preset is a row of a table: its name, the endings it takes, the parameters it knows, and a
 * function that builds the job. What all presets share (asking for vCPUs, memory, cards, a timeout;
 * the scene's folder as root; the output folder) is done once, in preset.c.
 *
 * Errors:  EXIT_USAGE after a message that names the thing, the reason and the next step.
 */
#pragma once

#include <client/inputs.h>
#include <client/options.h>

#define PRESET_PATTERN 256

/* What a scene says of itself, as far as its preset can read it. */
struct preset_facts {
    char saved[32]; /* by which version: "3.4"; "": not known */
    char format[32], codec[16]; /* Blender's words for how it saves pictures; "" */
    bool denoises;  /* it needs a renderer with a denoiser, and -p does not turn it off */
};

struct preset_scene {
    const struct options *options;
    struct preset_facts facts;
    char path[4096];   /* absolute, links resolved */
    char folder[4096]; /* the folder that becomes the root */
    char base[256];    /* file name without its ending */
    char ending[32];   /* "pov", lower case */
    char out[4096];    /* absolute output folder */
    /* "beauty.####": the file name, with '#' where the number goes. With its ending where -o had
     * one; `picture` is that in lower case, or "". */
    char pattern[PRESET_PATTERN];
    char picture[8];
    struct westlight_range *frames;
    size_t n_frames;              /* none: a still */
    size_t n_roots;               /* of the job */
    unsigned width, height;       /* of its pictures, as it says; 0: not known */
    struct inputs_list inexact;   /* why a tile would not be what it is in the whole frame */
    struct inputs_list libraries; /* further folders in which names are looked for, absolute */
};

struct preset {
    const char *name;
    const char *endings[4];
    const char *const *params; /* beyond the common ones; NULL-terminated */
    const char *const *endings_written; /* of pictures; NULL: the preset names no files */
    const char *help, *notes; /* a line; a line "-p NAME=VALUE\tWHAT\n" each (proto/base/args.h) */
    bool folder_ok; /* SCENE may be a folder */
    bool tiles;     /* it can render a part of a frame */
    /* What the scene uses: files wherever they lie, what is missing, and, where it says them, its
     * frames and its facts; NULL: nothing but its folder. */
    int (*scan)(struct preset_scene *scene, struct inputs *inputs);
    const char *software; /* what it runs; NULL: what --software says, if anything */
    bool saves; /* a scene says which version saved it */
    int (*build)(struct preset_scene *scene, struct westlight_job *job);
};

extern const struct preset preset_povray, preset_blender, preset_command;

/* Checks the scene, finds its preset, gathers its inputs, builds the job. `ret_out` (4096 bytes):
 * where frames go. */
int preset_job(const struct options *options, struct inputs *inputs, struct westlight_job **ret_job,
               const struct preset **ret_preset, struct preset_facts *ret_facts, char *ret_out);
/* The scene's own range, where the user has named no frames. */
int preset_range(struct preset_scene *scene, int64_t first, int64_t last, int64_t step);
/* An absolute path without "." and "..", by its letters alone: the folder need not exist. `from` is
 * where a relative one begins. */
int preset_path(const char *from, const char *path, char *ret_path, size_t size);
/* What the step takes of the job's roots, as --narrow says. */
void preset_inputs(const struct preset_scene *scene, struct westlight_step *step);
/* What the step runs: the preset's software, or that of --software. Its version is chosen later. */
void preset_software(const struct preset_scene *scene, struct westlight_step *step,
                     const char *software);
/* What its pictures must be, by --size and -p check; images_per_frame 0: neither
 * how many there are is known, nor how large. */
int preset_expect(const struct preset_scene *scene, struct westlight_step *step,
                  uint32_t images_per_frame);
/* Amounts and timeout that every preset takes by -p; the step's timeout in seconds. */
int preset_resources(const struct preset_scene *scene, struct westlight_step *step,
                     uint32_t *ret_timeout_s);
/* The workers it may run on. */
void preset_pool(const struct preset_scene *scene, struct westlight_step *step);
/* The frame parameter of a step, chunked as asked; nothing for a still. */
void preset_frames(const struct preset_scene *scene, struct westlight_step *step);
/* What stands before the frame's number, how many digits it has at least, what stands after: the
 * last run of '#' counts. No digits: the name has none. */
void preset_pattern(const struct preset_scene *scene, char *ret_head, unsigned *ret_digits,
                    char *ret_tail);
/* All of them, as help says it (proto/base/args.h). */
int preset_text(struct bytes *ret_text);
