/* preset_command.c - a shell command over a range of frames.
 *
 * SCENE is a folder, or a file in it: the folder travels and is where the command runs. The command
 * sees $FRAME, $SCENE and $OUT; what it writes to $OUT comes home. `-p then=COMMAND` is a second
 * step, run once when every frame is done, which finds what the frames left in $OUT.
 */
#include <client/preset.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The command is an argument, so that nothing in it needs quoting. */
static const char script[] =
    "command=$1; SCENE=$2 OUT=$3 FRAME=$4\n"
    "export SCENE OUT FRAME\n"
    "if [ -d \"$SCENE\" ]; then cd \"$SCENE\"; else cd \"$(dirname \"$SCENE\")\"; fi || exit 1\n"
    "exec /bin/sh -c \"$command\"\n";

static const char *const params[] = {"run", "then", "optional", NULL};

static int step_add(struct preset_scene *scene, struct westlight_job *job, const char *name,
                    const char *command_param, bool frames, struct westlight_step **ret_step)
{
    struct westlight_step *step = westlight_job_step(job, name);
    char command[64];
    uint32_t timeout_s;
    int r = preset_resources(scene, step, &timeout_s);

    if (r || (r = preset_expect(scene, step, 0)))
        return r;
    snprintf(command, sizeof(command), "{{Param.%s}}", command_param);
    if (frames)
        preset_frames(scene, step);
    preset_inputs(scene, step);
    preset_software(scene, step, NULL);
    westlight_step_file(step, "Run", "run.sh", false, script);
    westlight_step_output(step, scene->out);
    if (strcmp(options_param(scene->options, "optional", "no"), "yes") == 0)
        westlight_step_output_optional(step);
    westlight_step_run(
        step, "/bin/sh",
        (const char *const[]){"{{Task.File.Run}}", command, "{{Param.Scene}}", "{{Param.Out}}",
                              frames && scene->n_frames ? "{{Task.Param.Frame}}" : ""},
        5, timeout_s);
    *ret_step = step;
    return 0;
}

static int command_build(struct preset_scene *scene, struct westlight_job *job)
{
    const char *run = options_param(scene->options, "run", NULL),
               *then = options_param(scene->options, "then", NULL);
    struct westlight_step *first, *second;
    int r;

    if (!run) {
        complain("--preset command: it does not say what to run: add -p run='COMMAND', which sees "
                 "$FRAME and $OUT");
        return EXIT_USAGE;
    }
    westlight_job_parameter(job, "Scene", WESTLIGHT_PATH, scene->path);
    westlight_job_parameter(job, "Out", WESTLIGHT_PATH, scene->out);
    westlight_job_parameter(job, "Run", WESTLIGHT_STRING, run);
    if ((r = step_add(scene, job, "run", "Run", true, &first)))
        return r;
    if (!then)
        return 0;

    westlight_job_parameter(job, "Then", WESTLIGHT_STRING, then);
    if ((r = step_add(scene, job, "then", "Then", false, &second)))
        return r;
    westlight_step_depends(second, westlight_step_index(first), false);
    return 0;
}

const struct preset preset_command = {
    .name = "command",
    .endings = {NULL},
    .params = params,
    .help = "a shell command over a range of frames",
    .notes = "SCENE is a folder, or a file in one; the command runs there.\n"
             "\n"
             "-p run=COMMAND\twhat is run for each task\n"
             "-p then=COMMAND\truns once, when every frame is done, and finds them in $OUT\n"
             "-p optional=yes\ta task may write nothing\n"
             "$FRAME\tthe task's frame; with --chunk its frames, such as 1-5\n"
             "$SCENE\tthe path of SCENE, where the task runs\n"
             "$OUT\twhat is written to this folder comes home\n"
             "\n"
             "  westlight render shot --preset command -f 1-9 \\\n"
             "      -p run='convert in.$FRAME.png \"$OUT/out.$FRAME.jpg\"'\n",
    .folder_ok = true,
    .build = command_build,
};
