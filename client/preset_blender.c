/* preset_blender.c - Blender scenes (.blend), rendered with the engine and format that they name.
 *
 * Frames are set by a script inside Blender, because its own -f takes a negative number as one
 * counted from the end; the script names each picture and lets an error end Blender with 1.
 */
#include <client/preset.h>

#include <stdio.h>

static const char script[] =
    "import bpy, os, re, sys\n"
    "out, frames, pattern, size, samples = sys.argv[sys.argv.index('--') + 1:][:5]\n"
    "scene = bpy.context.scene\n"
    "render = scene.render\n"
    "if render.is_movie_format:\n"
    "    print('openjd_fail: the scene writes a movie (%s), which cannot be split into frames: '\n"
    "          'choose an image format in Output Properties' % render.image_settings.file_format)\n"
    "    sys.exit(1)\n"
    "if scene.camera is None:\n"
    "    print('openjd_fail: the scene has no camera: set one in Scene Properties')\n"
    "    sys.exit(1)\n"
    "if size != '-':\n"
    "    render.resolution_x, render.resolution_y = (int(v) for v in size.split('x'))\n"
    "    render.resolution_percentage = 100\n"
    "if samples != '-':\n"
    "    scene.cycles.samples = int(samples)\n"
    "render.use_overwrite = True\n"
    "render.use_placeholder = False\n"
    "render.use_file_extension = True\n"
    "def numbers(text):\n"
    "    for part in text.split(','):\n"
    "        m = re.fullmatch(r'(-?\\d+)(?:-(-?\\d+))?(?::(\\d+))?', part)\n"
    "        first = int(m.group(1)); last = int(m.group(2) or first)\n"
    "        yield from range(first, last + 1, int(m.group(3) or 1))\n"
    "def name(number):\n"
    "    m = re.search('#+', pattern)\n"
    "    if not m:\n"
    "        return pattern\n"
    "    return pattern[:m.start()] + '%0*d' % (len(m.group()) + (number < 0), number) + "
    "pattern[m.end():]\n"
    "todo = [scene.frame_current] if frames == '-' else list(numbers(frames))\n"
    "for done, number in enumerate(todo):\n"
    "    scene.frame_set(number)\n"
    "    render.filepath = os.path.join(out, name(number))\n"
    "    bpy.ops.render.render(write_still=True)\n"
    "    print('openjd_progress: %.2f' % (100.0 * (done + 1) / len(todo)), flush=True)\n";

static const char *const params[] = {"samples", NULL};

static int blender_build(struct preset_scene *scene, struct westlight_job *job)
{
    const struct options *options = scene->options;
    const char *samples = options_param(options, "samples", "-");
    struct westlight_step *step;
    uint32_t timeout_s;
    char size[32] = "-";
    long number;
    int r;

    if (samples[0] != '-' && !options_number(samples, 1, 1000000, &number)) {
        complain("-p samples=%s: it is no number from 1 to 1000000", samples);
        return EXIT_USAGE;
    }
    if (options->width)
        snprintf(size, sizeof(size), "%ux%u", options->width, options->height);

    westlight_job_parameter(job, "Scene", WESTLIGHT_PATH, scene->path);
    westlight_job_parameter(job, "Out", WESTLIGHT_PATH, scene->out);
    step = westlight_job_step(job, "render");
    if ((r = preset_resources(scene, step, &timeout_s)))
        return r;
    preset_frames(scene, step);
    westlight_step_attribute(step, "attr.software.blender", NULL, 0);
    westlight_step_software(step, "blender");
    westlight_step_file(step, "Render", "render.py", false, script);
    westlight_step_output(step, scene->out);
    westlight_step_run(step, "blender",
                       (const char *const[]){"--background", "-noaudio", "--enable-autoexec",
                                             "{{Param.Scene}}", "--threads", "{{Lease.VCPUs}}",
                                             "--python-exit-code", "1", "--python",
                                             "{{Task.File.Render}}", "--", "{{Param.Out}}",
                                             scene->n_frames ? "{{Task.Param.Frame}}" : "-",
                                             scene->pattern, size, samples},
                       16, timeout_s);
    return 0;
}

const struct preset preset_blender = {
    .name = "blender",
    .endings = {"blend"},
    .params = params,
    .help = "Blender scenes (.blend), engine and format as saved",
    .build = blender_build,
};
