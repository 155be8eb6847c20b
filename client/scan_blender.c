/* scan_blender.c - Blender itself says what a scene uses: it is run on the scene, without the
 * user's settings and without the scene's scripts, and prints one line of JSON.
 *
 * What it lists need not exist: inputs.c looks, and says what is missing.
 */
#include <client/scan.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <client/options.h>
#include <proto/base/bytes.h>

#define SAID_BYTES_MAX (64 * 1024 * 1024)
#define SAID_PREFIX    "westlight-scan "

static const char script[] = SCAN_DENOISES SCAN_INEXACT
    "import bpy, json, os, re\n"
    "files, unsure = {}, {}\n"
    "def absolute(path, library=None):\n"
    "    return os.path.normpath(bpy.path.abspath(path, library=library))\n"
    "def add(path, what):\n"
    "    files.setdefault(path, what)\n"
    "def add_set(path, expression, what):\n"
    "    folder, name = os.path.split(path)\n"
    "    try:\n"
    "        hits = [n for n in os.listdir(folder) if re.fullmatch(expression, n)]\n"
    "    except OSError:\n"
    "        hits = []\n"
    "    for n in hits or [name]:\n"
    "        add(os.path.join(folder, n), what)\n"
    "def add_sequence(path, what):\n"
    "    name = os.path.basename(path)\n"
    "    m = re.search(r'(\\d+)(?!.*\\d)', os.path.splitext(name)[0])\n"
    "    if not m:\n"
    "        return add(path, what)\n"
    "    add_set(path, re.escape(name[:m.start()]) + r'\\d+' + re.escape(name[m.end():]), what)\n"
    "def add_tiles(path, what):\n"
    "    name = os.path.basename(path)\n"
    "    parts = re.split(r'(<UDIM>|<UVTILE>)', name)\n"
    "    if len(parts) == 1:\n"
    "        parts = re.split(r'(1\\d{3})(?!.*1\\d{3})', name)\n"
    "    digits = {'<UVTILE>': r'u\\d+_v\\d+'}\n"
    "    add_set(path, ''.join(digits.get(p, r'\\d{4}') if i % 2 else re.escape(p)\n"
    "                          for i, p in enumerate(parts)), what)\n"
    "def named(kind, block):\n"
    "    return '%s \"%s\"%s' % (kind, block.name,\n"
    "                          ' of ' + os.path.basename(block.library.filepath) if block.library "
    "else '')\n"
    "for library in bpy.data.libraries:\n"
    "    if not library.packed_file:\n"
    "        add(absolute(library.filepath), 'linked library')\n"
    "for image in bpy.data.images:\n"
    "    if (not image.filepath or image.users == 0 or image.packed_file or "
    "len(image.packed_files) or\n"
    "            image.source in ('GENERATED', 'VIEWER')):\n"
    "        continue\n"
    "    path, what = absolute(image.filepath, image.library), named('image', image)\n"
    "    {'SEQUENCE': add_sequence, 'TILED': add_tiles}.get(image.source, add)(path, what)\n"
    "for clip in bpy.data.movieclips:\n"
    "    if clip.filepath and clip.users:\n"
    "        (add_sequence if clip.source == 'SEQUENCE' else add)(absolute(clip.filepath, "
    "clip.library), named('clip', clip))\n"
    "for kind, blocks in (('sound', bpy.data.sounds), ('font', bpy.data.fonts)):\n"
    "    for block in blocks:\n"
    "        if block.filepath and block.filepath != '<builtin>' and block.users and not "
    "block.packed_file:\n"
    "            add(absolute(block.filepath, block.library), named(kind, block))\n"
    "for kind, blocks in (('cache', bpy.data.cache_files), ('volume', bpy.data.volumes)):\n"
    "    for block in blocks:\n"
    "        if block.filepath and block.users and not getattr(block, 'packed_file', None):\n"
    "            (add_sequence if block.is_sequence else add)(absolute(block.filepath, "
    "block.library), named(kind, block))\n"
    "trees = list(bpy.data.node_groups)\n"
    "for blocks in (bpy.data.materials, bpy.data.worlds, bpy.data.lights, bpy.data.scenes, "
    "bpy.data.textures):\n"
    "    trees += [block.node_tree for block in blocks if getattr(block, 'node_tree', None)]\n"
    "for tree in trees:\n"
    "    for node in tree.nodes:\n"
    "        if getattr(node, 'mode', '') == 'EXTERNAL' and getattr(node, 'filepath', ''):\n"
    "            add(absolute(node.filepath, tree.library), 'node \"%s\" of %s' % (node.name, "
    "tree.name))\n"
    "for thing in bpy.data.objects:\n"
    "    for modifier in thing.modifiers:\n"
    "        what = 'modifier \"%s\" of %s' % (modifier.name, thing.name)\n"
    "        if modifier.type == 'MESH_CACHE' and modifier.filepath:\n"
    "            add(absolute(modifier.filepath, thing.library), what)\n"
    "        elif modifier.type == 'OCEAN' and modifier.is_cached and modifier.filepath:\n"
    "            add(absolute(modifier.filepath, thing.library), what)\n"
    "        elif modifier.type == 'FLUID' and modifier.fluid_type == 'DOMAIN':\n"
    "            unsure[absolute(modifier.domain_settings.cache_directory, thing.library)] = what\n"
    "        cache = getattr(modifier, 'point_cache', None)\n"
    "        if cache and cache.use_external and cache.filepath:\n"
    "            add(absolute(cache.filepath, thing.library), what)\n"
    "    for system in thing.particle_systems:\n"
    "        if system.point_cache.use_external and system.point_cache.filepath:\n"
    "            add(absolute(system.point_cache.filepath, thing.library), 'particles of %s' % "
    "thing.name)\n"
    "for path in bpy.utils.blend_paths(absolute=True, packed=False, local=False):\n"
    "    path = os.path.normpath(path)\n"
    "    if os.path.isfile(path):\n"
    "        add(path, 'the scene')\n"
    "for path, what in unsure.items():\n" /* baked or not: it is taken where it is */
    "    if os.path.isdir(path):\n"
    "        add(path, what)\n"
    "scene = bpy.context.scene\n"
    "render = scene.render\n"
    "print('\\nwestlight-scan ' + json.dumps({\n"
    "    'files': sorted(files.items()), 'first': scene.frame_start, 'last': scene.frame_end,\n"
    "    'step': scene.frame_step, 'saved': '%d.%d' % bpy.data.version[:2], "
    "'denoises': denoises(scene),\n"
    "    'width': render.resolution_x * render.resolution_percentage // 100,\n"
    "    'height': render.resolution_y * render.resolution_percentage // 100,\n"
    "    'format': render.image_settings.file_format, 'codec': render.image_settings.exr_codec,\n"
    "    'inexact': list(inexact(scene)),\n"
    "    'movie': render.image_settings.file_format if render.is_movie_format else ''}), "
    "flush=True)\n";

/* Its standard output; 127 where there is no such program. */
static int run_blender(const char *program, const char *scene, struct bytes *said, int *ret_status)
{
    int out[2], status = 0;
    char piece[65536];
    ssize_t n;
    pid_t pid;

    if (pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    pid = fork();
    if (pid < 0) {
        int error = errno;

        close(out[0]);
        close(out[1]);
        return -error;
    }
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        dup2(null, 0);
        dup2(out[1], 1);
        dup2(null, 2);
        execlp(program, program, "--background", "--factory-startup", "-noaudio",
               "--disable-autoexec", scene, "--python-exit-code", "1", "--python-expr", script,
               (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    while ((n = read(out[0], piece, sizeof(piece))) > 0 || (n < 0 && errno == EINTR))
        if (n > 0 && said->size < SAID_BYTES_MAX && bytes_append(said, piece, (size_t)n) < 0)
            abort();
    close(out[0]);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return bytes_append(said, "", 1);
}

static void text_of(json_t *json, const char *name, char *ret_text, size_t size)
{
    const char *text = json_string_value(json_object_get(json, name));

    snprintf(ret_text, size, "%s", text ? text : "");
}

static void take_inexact(json_t *json, struct scan_blender *scan)
{
    json_t *pair;
    size_t i;

    json_array_foreach(json, i, pair)
    {
        const char *name = json_string_value(json_array_get(pair, 0)),
                   *what = json_string_value(json_array_get(pair, 1));

        if (!name || !what)
            continue;
        if (strcmp(name, "denoise") == 0)
            snprintf(scan->inexact_denoise, sizeof(scan->inexact_denoise), "%s", what);
        else
            inputs_list_add(&scan->inexact, what);
    }
}

static int take(json_t *json, struct inputs *inputs, struct scan_blender *scan)
{
    json_t *files = json_object_get(json, "files"), *pair;
    size_t i;
    int r = 0;

    scan->seen = true;
    scan->first = (long)json_integer_value(json_object_get(json, "first"));
    scan->last = (long)json_integer_value(json_object_get(json, "last"));
    scan->step = (long)json_integer_value(json_object_get(json, "step"));
    scan->denoises = json_is_true(json_object_get(json, "denoises"));
    scan->width = (unsigned)json_integer_value(json_object_get(json, "width"));
    scan->height = (unsigned)json_integer_value(json_object_get(json, "height"));
    take_inexact(json_object_get(json, "inexact"), scan);
    text_of(json, "format", scan->format, sizeof(scan->format));
    text_of(json, "codec", scan->codec, sizeof(scan->codec));
    text_of(json, "movie", scan->movie, sizeof(scan->movie));
    text_of(json, "saved", scan->saved, sizeof(scan->saved));
    json_array_foreach(files, i, pair)
    {
        const char *path = json_string_value(json_array_get(pair, 0)),
                   *what = json_string_value(json_array_get(pair, 1));

        if (r == 0 && path && what)
            r = inputs_path(inputs, path, what);
    }
    return r;
}

int scan_blender_read(char *said, struct inputs *inputs, struct scan_blender *ret_scan)
{
    struct scan_blender scan = {0};
    char *line = strstr(said, "\n" SAID_PREFIX);
    json_t *json;

    if (!line)
        return SCAN_E_SAID;
    line += 1 + strlen(SAID_PREFIX);
    line[strcspn(line, "\n")] = '\0';
    json = json_loads(line, 0, NULL);
    if (!json)
        return SCAN_E_SAID;
    int r = take(json, inputs, &scan);
    json_decref(json);
    if (r)
        inputs_list_deinit(&scan.inexact);
    else
        *ret_scan = scan;
    return r;
}

int scan_blender(const char *scene, struct inputs *inputs, struct scan_blender *ret_scan)
{
    const char *named = getenv("WESTLIGHT_BLENDER"), *program = named && *named ? named : "blender";
    _cleanup_(bytes_deinit) struct bytes said = {0};
    int status = 0, r;

    r = run_blender(program, scene, &said, &status);
    if (r < 0) {
        complain("%s: %s could not be asked what it uses: %s", scene, program, strerror(-r));
        return EXIT_USAGE;
    }
    if (status == 127) {
        *ret_scan = (struct scan_blender){0};
        return 0;
    }
    r = scan_blender_read((char *)said.data, inputs, ret_scan);
    if (r == SCAN_E_SAID) {
        complain("%s: %s cannot open it (exit code %d): open it there and save it again, or set "
                 "WESTLIGHT_BLENDER to the Blender that made it",
                 scene, program, status);
        return EXIT_USAGE;
    }
    return r;
}
