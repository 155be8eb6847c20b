/* preset_blender.c - Blender scenes (.blend), rendered with the engine and format that they name.
 *
 * Frames are set by a script inside Blender, because its own -f takes a negative number as one
 * counted from the end; the script names each picture and lets an error end Blender with 1.
 */
#include <client/preset.h>
#include <client/version.h>

#include <stdio.h>
#include <string.h>
#include <client/scan.h>
#include <client/tiles.h>
#include <proto/state.h>

static const char script[] = SCAN_DENOISES SCAN_INEXACT
    "import bpy, json, os, re, sys\n"
    "(out, frames, head, digits, tail, ending, size, samples, rules, device, denoise, tile, "
    "anyway) = sys.argv[sys.argv.index('--') + 1:][:13]\n"
    "rules = sorted(((rule['source_path'], rule['destination_path'])\n"
    "                for rule in json.load(open(rules))['path_mapping_rules']), key=lambda rule: "
    "-len(rule[0]))\n"
    "def mapped(path):\n"
    "    for source, here in rules:\n"
    "        if path == source or path.startswith(source.rstrip('/') + '/'):\n"
    "            return here + path[len(source.rstrip('/')):]\n"
    "def remap(block, name='filepath'):\n"
    "    path = getattr(block, name, '')\n"
    "    new = mapped(path) if path.startswith('/') else None\n"
    "    if new:\n"
    "        setattr(block, name, new)\n"
    "    return new\n"
    "libraries, more = set(), True\n"
    "while more:\n" /* one library may bring another */
    "    more = [l for l in bpy.data.libraries if l.name not in libraries and not l.packed_file]\n"
    "    for library in more:\n"
    "        libraries.add(library.name)\n"
    "        if remap(library):\n"
    "            library.reload()\n"
    "for blocks in (bpy.data.images, bpy.data.movieclips, bpy.data.sounds, bpy.data.fonts,\n"
    "               bpy.data.cache_files, bpy.data.volumes):\n"
    "    for block in blocks:\n"
    "        if remap(block) and blocks is bpy.data.images:\n"
    "            block.reload()\n"
    "trees = list(bpy.data.node_groups)\n"
    "for blocks in (bpy.data.materials, bpy.data.worlds, bpy.data.lights, bpy.data.scenes, "
    "bpy.data.textures):\n"
    "    trees += [block.node_tree for block in blocks if getattr(block, 'node_tree', None)]\n"
    "for tree in trees:\n"
    "    for node in tree.nodes:\n"
    "        if getattr(node, 'mode', '') == 'EXTERNAL':\n"
    "            remap(node)\n"
    "for thing in bpy.data.objects:\n"
    "    for modifier in thing.modifiers:\n"
    "        if modifier.type in ('MESH_CACHE', 'OCEAN'):\n"
    "            remap(modifier)\n"
    "        elif modifier.type == 'FLUID' and modifier.fluid_type == 'DOMAIN':\n"
    "            remap(modifier.domain_settings, 'cache_directory')\n"
    "        if getattr(modifier, 'point_cache', None) and modifier.point_cache.use_external:\n"
    "            remap(modifier.point_cache)\n"
    "    for system in thing.particle_systems:\n"
    "        if system.point_cache.use_external:\n"
    "            remap(system.point_cache)\n"
    "scene = bpy.context.scene\n"
    "render = scene.render\n"
    "if render.is_movie_format and ending == '-':\n"
    "    print('openjd_fail: the scene writes a movie (%s), which cannot be split into frames: '\n"
    "          'name pictures, such as -o out/shot.####.png' % render.image_settings.file_format)\n"
    "    sys.exit(1)\n"
    "if scene.camera is None:\n"
    "    print('openjd_fail: the scene has no camera: set one in Scene Properties')\n"
    "    sys.exit(1)\n"
    "if size != '-':\n"
    "    render.resolution_x, render.resolution_y = (int(v) for v in size.split('x'))\n"
    "    render.resolution_percentage = 100\n"
    "if samples != '-':\n"
    "    scene.cycles.samples = int(samples)\n"
    "if scene.use_nodes and scene.node_tree:\n" /* what the scene writes itself comes home too */
    "    home = os.path.dirname(bpy.data.filepath)\n"
    "    for node in scene.node_tree.nodes:\n"
    "        if node.type == 'OUTPUT_FILE':\n"
    "            path = os.path.relpath(bpy.path.abspath(node.base_path), home)\n"
    "            if path.startswith('..'):\n"
    "                path = os.path.basename(node.base_path.rstrip('/')) or "
    "bpy.path.clean_name(node.name)\n"
    "            slash = '/' if node.base_path.endswith('/') else ''\n"
    "            node.base_path = os.path.join(out, path) + slash\n"
    "def use_cards():\n" /* never another device than the one asked for */
    "    cycles = bpy.context.preferences.addons['cycles'].preferences\n"
    "    for kind in ('OPTIX', 'CUDA', 'HIP', 'ONEAPI', 'METAL'):\n"
    "        try:\n"
    "            cycles.compute_device_type = kind\n"
    "        except TypeError:\n"
    "            continue\n"
    "        cycles.get_devices()\n"
    "        if any(card.type == kind for card in cycles.devices):\n"
    "            for card in cycles.devices:\n"
    "                card.use = card.type == kind\n"
    "            return True\n"
    "    return False\n"
    "leased = os.environ.get('CUDA_VISIBLE_DEVICES', '') not in ('', '-1')\n"
    "if render.engine == 'CYCLES':\n"
    "    gpu = device == 'gpu' or device == 'auto' and leased\n"
    "    if gpu and not use_cards():\n"
    "        print('openjd_fail: this Blender can use none of the cards leased to it: render with "
    "--device cpu, '\n"
    "              'or on workers whose Blender has support for their cards')\n"
    "        sys.exit(1)\n"
    "    scene.cycles.device = 'GPU' if gpu else 'CPU'\n"
    "if denoise == 'no':\n"
    "    for each in bpy.data.scenes:\n"
    "        if hasattr(each, 'cycles'):\n"
    "            each.cycles.use_denoising = False\n"
    "    for tree in [compositor(each) for each in bpy.data.scenes] + list(bpy.data.node_groups):\n"
    "        for node in tree.nodes if tree else ():\n"
    "            if node.type == 'DENOISE':\n"
    "                node.mute = True\n"
    "if denoises(scene):\n" /* its compositor would leave the noise in without a word */
    "    try:\n"
    "        from _cycles import with_openimagedenoise as there\n"
    "    except ImportError:\n"
    "        there = True\n" /* this Blender does not say */
    "    if not there:\n"
    "        print('openjd_fail: the scene denoises, and this Blender was built without the '\n"
    "              'denoiser: submit it with -p denoise=yes, and it waits for workers that have "
    "it, '\n"
    "              'or with -p denoise=no')\n"
    "        sys.exit(1)\n"
    "render.use_overwrite = True\n"
    "render.use_placeholder = False\n"
    "# The format that the ending asks for; the scene's own keeps its settings.\n"
    "formats = {'png': 'PNG', 'exr': 'OPEN_EXR', 'jpg': 'JPEG', 'jpeg': 'JPEG', 'tga': 'TARGA',\n"
    "           'tif': 'TIFF', 'tiff': 'TIFF', 'bmp': 'BMP', 'webp': 'WEBP', 'hdr': 'HDR',\n"
    "           'dpx': 'DPX', 'cin': 'CINEON', 'jp2': 'JPEG2000', 'rgb': 'IRIS'}\n"
    "if ending != '-' and formats[ending] not in (\n"
    "        render.image_settings.file_format,\n"
    "        render.image_settings.file_format.replace('_MULTILAYER', '')):\n"
    "    render.image_settings.file_format = formats[ending]\n"
    "render.use_file_extension = ending == '-'\n"
    "if tile != '-':\n"
    "    why = [] if anyway == 'yes' else [what for _, what in inexact(scene)]\n"
    "    if ending == 'exr' and render.image_settings.exr_codec in ('DWAA', 'DWAB', 'B44', "
    "'B44A'):\n"
    "        why.append('%s packs pixels with a loss that does not end at tiles' %\n"
    "                   render.image_settings.exr_codec)\n"
    "    if why:\n"
    "        print('openjd_fail: its tiles would not be the frame: ' + '; '.join(why))\n"
    "        sys.exit(1)\n"
    "    width, height = (int(v) for v in size.split('x'))\n"
    "    w, h, x, y = (int(v) for v in re.split('[x+]', tile))\n"
    "    y = height - y - h\n" /* it counts from below */
    "    render.use_border, render.use_crop_to_border = True, False\n"
    /* the middle of a pixel, for it rounds down what may be a little less than it was */
    "    render.border_min_x, render.border_max_x = (x + .5) / width, (x + w + .5) / width\n"
    "    render.border_min_y, render.border_max_y = (y + .5) / height, (y + h + .5) / height\n"
    "def numbers(text):\n"
    "    for part in text.split(','):\n"
    "        m = re.fullmatch(r'(-?\\d+)(?:-(-?\\d+))?(?::(\\d+))?', part)\n"
    "        first = int(m.group(1)); last = int(m.group(2) or first)\n"
    "        yield from range(first, last + 1, int(m.group(3) or 1))\n"
    "def name(number):\n"
    "    width = int(digits)\n"
    "    return head + ('%0*d' % (width + (number < 0), number) if width else '') + tail\n"
    "todo = [scene.frame_current] if frames == '-' else list(numbers(frames))\n"
    "for done, number in enumerate(todo):\n"
    "    scene.frame_set(number)\n"
    "    render.filepath = (os.path.join(out, name(number)) if tile == '-' else\n"
    "                       os.path.join(out, '" TILES_FOLDER "', frames, tile + '.' + ending))\n"
    "    bpy.ops.render.render(write_still=True)\n"
    "    print('openjd_progress: %.2f' % (100.0 * (done + 1) / len(todo)), flush=True)\n";

static const char *const params[] = {"samples", "device", "denoise", NULL};
static const char *const endings_written[] = {"png", "exr",  "jpg", "jpeg", "tga",
                                              "tif", "tiff", "bmp", "webp", "hdr",
                                              "dpx", "cin",  "jp2", "rgb",  NULL};

#define FRAME_MAX 1048574 /* Blender's MAXFRAME; what is beyond it renders as that one */

static int blender_scan(struct preset_scene *scene, struct inputs *inputs)
{
    struct scan_blender scan;
    int r = scan_blender(scene->path, inputs, &scan);

    if (r)
        return r;
    if (!scan.seen) {
        version_of_blend(scene->path, scene->facts.saved);
        complain("%s: Blender is not installed here, so files that it uses outside of its folder "
                 "cannot be seen: name them with --asset",
                 scene->options->scene);
        if (!options_param(scene->options, "denoise", NULL))
            complain("%s: nor can it be seen whether it denoises: say -p denoise=yes where it does",
                     scene->options->scene);
        if (scene->n_frames)
            return 0;
        complain("%s: its range cannot be seen either: say which frames with -f",
                 scene->options->scene);
        return EXIT_USAGE;
    }
    strcpy(scene->facts.saved, scan.saved);
    strcpy(scene->facts.format, scan.format);
    strcpy(scene->facts.codec, scan.codec);
    scene->facts.denoises = scan.denoises;
    scene->width = scan.width;
    scene->height = scan.height;
    scene->inexact = scan.inexact;
    if (*scan.inexact_denoise &&
        strcmp(options_param(scene->options, "denoise", "auto"), "no") != 0)
        inputs_list_add(&scene->inexact, scan.inexact_denoise);
    if (*scan.movie && !*scene->picture) {
        complain("%s: it writes a movie (%s), and frames of a movie cannot be rendered apart: name "
                 "pictures, such as -o '%s-frames/%s.####.png'",
                 scene->options->scene, scan.movie, scene->base, scene->base);
        return EXIT_USAGE;
    }
    return scene->n_frames ? 0 : preset_range(scene, scan.first, scan.last, scan.step);
}

/* What is joined has an ending that says how, also where the scene chooses the format. */
static int blender_tiles(struct preset_scene *scene, struct tiles *tiles)
{
    static const char *const formats[][2] = {
        {"PNG", "png"}, {"OPEN_EXR", "exr"}, {"OPEN_EXR_MULTILAYER", "exr"}};
    size_t length = strlen(scene->pattern);
    const char *codec = scene->facts.codec;

    if (!scene->options->columns)
        return 0;
    for (size_t i = 0; !*scene->picture && i < ARRAY_SIZE(formats); i++)
        if (strcmp(scene->facts.format, formats[i][0]) == 0) {
            strcpy(scene->picture, formats[i][1]);
            snprintf(scene->pattern + length, sizeof(scene->pattern) - length, ".%s",
                     scene->picture);
        }
    if (strcmp(scene->picture, "exr") == 0 &&
        (strncmp(codec, "DWA", 3) == 0 || strncmp(codec, "B44", 3) == 0)) {
        complain("--tiles: %s packs OpenEXR by %s, with a loss that does not end at tiles: choose "
                 "ZIP, PIZ or none in its output settings",
                 scene->options->scene, codec);
        return EXIT_USAGE;
    }
    return tiles_plan(scene, 1, scene->picture, tiles);
}

/* -p samples, --device, -p denoise and the frames. */
static int blender_check(const struct preset_scene *scene, const char *samples, const char *device,
                         const char *denoise)
{
    long number;

    if (strcmp(samples, "-") != 0 && !options_number(samples, 1, 1000000, &number)) {
        complain("-p samples=%s: it is no number from 1 to 1000000", samples);
        return EXIT_USAGE;
    }
    if (strcmp(device, "auto") != 0 && strcmp(device, "cpu") != 0 && strcmp(device, "gpu") != 0) {
        complain("--device %s: there is no such device: choose auto, cpu or gpu", device);
        return EXIT_USAGE;
    }
    if (strcmp(denoise, "auto") != 0 && strcmp(denoise, "yes") != 0 && strcmp(denoise, "no") != 0) {
        complain("-p denoise=%s: choose auto, yes or no: as the scene says, needed, or left out",
                 denoise);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < scene->n_frames; i++)
        if (scene->frames[i].first < -FRAME_MAX || scene->frames[i].last > FRAME_MAX) {
            complain("--frames %s: Blender numbers its frames from %d to %d",
                     scene->options->frames_text, -FRAME_MAX, FRAME_MAX);
            return EXIT_USAGE;
        }
    return 0;
}

/* "1920x1080"; "-": as the scene says. */
static void picture_size(const struct preset_scene *scene, const struct tiles *tiles, char *text,
                         size_t size)
{
    const struct options *options = scene->options;

    if (tiles->names.n)
        snprintf(text, size, "%ux%u", tiles->width, tiles->height);
    else if (options->width)
        snprintf(text, size, "%ux%u", options->width, options->height);
    else
        snprintf(text, size, "-");
}

static int blender_build(struct preset_scene *scene, struct westlight_job *job)
{
    const struct options *options = scene->options;
    const char *samples = options_param(options, "samples", "-"),
               *device = options_param(options, "device", "auto"),
               *denoise = options_param(options, "denoise", "auto");
    _cleanup_(tiles_deinit) struct tiles tiles = {0};
    struct westlight_step *step;
    uint32_t timeout_s;
    char size[32], head[PRESET_PATTERN], digits[16], tail[PRESET_PATTERN];
    unsigned n_digits;
    int r;

    if ((r = blender_check(scene, samples, device, denoise)))
        return r;
    if (strcmp(denoise, "auto") != 0)
        scene->facts.denoises = *denoise == 'y';
    if ((r = blender_tiles(scene, &tiles)))
        return r;
    preset_pattern(scene, head, &n_digits, tail);
    snprintf(digits, sizeof(digits), "%u", n_digits);
    picture_size(scene, &tiles, size, sizeof(size));

    westlight_job_parameter(job, "Scene", WESTLIGHT_PATH, scene->path);
    westlight_job_parameter(job, "Out", WESTLIGHT_PATH, scene->out);
    step = westlight_job_step(job, tiles.names.n ? "tiles" : "render");
    if ((r = preset_resources(scene, step, &timeout_s)) || (r = preset_expect(scene, step, 1)))
        return r;
    if (strcmp(device, "gpu") == 0 && !options_param(options, "gpus", NULL))
        westlight_step_amount(step, "amount.worker.gpu", 1);
    preset_frames(scene, step);
    if (tiles.names.n)
        tiles_split(&tiles, step);
    preset_inputs(scene, step);
    preset_software(scene, step, "blender");
    if (scene->facts.denoises)
        westlight_step_attribute(step, ATTRIBUTE_DENOISER, NULL, 0);
    westlight_step_file(step, "Render", "render.py", false, script);
    westlight_step_output(step, scene->out);
    westlight_step_run(
        step, "blender",
        (const char *const[]){"--background",
                              "-noaudio",
                              "--enable-autoexec",
                              "{{Param.Scene}}",
                              "--threads",
                              "{{Lease.VCPUs}}",
                              "--python-exit-code",
                              "1",
                              "--python",
                              "{{Task.File.Render}}",
                              "--",
                              "{{Param.Out}}",
                              scene->n_frames ? "{{Task.Param.Frame}}" : "-",
                              head,
                              digits,
                              tail,
                              *scene->picture ? scene->picture : "-",
                              size,
                              samples,
                              "{{Session.PathMappingRulesFile}}",
                              device,
                              denoise,
                              tiles.names.n ? "{{Task.Param." WESTLIGHT_TILE "}}" : "-",
                              options->tiles_anyway ? "yes" : "no"},
        24, timeout_s);
    return tiles.names.n ? tiles_join(&tiles, scene, job, step, scene->picture) : 0;
}

const struct preset preset_blender = {
    .name = "blender",
    .endings = {"blend"},
    .params = params,
    .endings_written = endings_written,
    .help = "Blender scenes (.blend), engine and format as saved",
    .scan = blender_scan,
    .software = "blender",
    .tiles = true,
    .saves = true,
    .notes = "-p samples=N\tof Cycles (as the scene says)\n"
             "-p denoise=auto|yes|no\tas the scene says, on workers that can (auto); even where it "
             "cannot be seen here (yes); or without (no)\n",
    .build = blender_build,
};
