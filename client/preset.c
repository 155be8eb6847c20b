/* preset.c - what every preset shares: the scene's folder taken as input, the common resources, and
 * the check that a parameter exists before a byte is sent.
 */
#include <client/preset.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <pwd.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/state.h>

static const struct preset *const presets[] = {&preset_povray, &preset_blender, &preset_command};
static const char *const common_params[] = {"vcpus",   "memory", "gpus",    "gpu-memory",
                                            "timeout", "check",  "version", NULL};

#define N_PRESETS (sizeof(presets) / sizeof(presets[0]))

static int text_of(const struct preset *preset, struct bytes *text)
{
    int r = bytes_printf(text, "%s: %s\n\n%s", preset->name, preset->help, preset->notes);

    for (const char *const *name = preset->endings_written; r == 0 && name && *name; name++)
        r = bytes_printf(text, "%s.%s",
                         name == preset->endings_written ? "-o PATTERN\tends in " : ", ", *name);
    return r ? r : bytes_printf(text, "%s\n", preset->endings_written ? "\n" : "");
}

int preset_text(struct bytes *ret_text)
{
    int r =
        bytes_printf(ret_text, "A scene's ending chooses its preset; --preset NAME does as well. "
                               "Parameters are given by -p NAME=VALUE.\n\n");

    for (size_t i = 0; r == 0 && i < N_PRESETS; i++)
        r = text_of(presets[i], ret_text);
    return r ? r
             : bytes_printf(ret_text, "Every preset takes\n"
                                      "\n"
                                      "-p vcpus=N\tCPUs that a task needs (its slot's share of the worker's)\n"
                                      "-p memory=8G\tmemory that a task needs, and may use\n"
                                      "-p gpus=N\tcards that a task needs, which are then its own\n"
                                      "-p gpu-memory=8G\tmemory that each of them must have\n"
                                      "-p timeout=SECONDS\ta task that takes longer has failed (no limit)\n"
                                      "-p check=warn|fail|off\ta black picture is said, rendered "
                                      "again, or not looked for\n"
                                      "-p version=VERSION\tas --software NAME=VERSION\n");
}

static const struct preset *preset_find(const struct options *options, const char *ending)
{
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (options->preset) {
            if (strcmp(options->preset, presets[i]->name) == 0)
                return presets[i];
            continue;
        }
        for (size_t k = 0; k < 4 && presets[i]->endings[k]; k++)
            if (strcmp(ending, presets[i]->endings[k]) == 0)
                return presets[i];
    }

    if (options->preset)
        complain("--preset %s: there is no such preset: choose povray, blender or command",
                 options->preset);
    else
        complain("%s: no preset takes files ending in '.%s': name one with --preset povray, "
                 "blender or command",
                 options->scene, ending);
    return NULL;
}

static bool named(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static int params_check(const struct preset *preset, const struct options *options)
{
    for (size_t i = 0; i < options->n_params; i++) {
        const char *name = options->params[i].name;
        struct args_near near = {.word = name};
        char known[512] = "", text[128];

        if (named(preset->params, name) || named(common_params, name))
            continue;
        for (const char *const *k = preset->params; *k; k++) {
            snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
                     k == preset->params ? ": it has " : ", ", *k);
            args_near_try(&near, *k);
        }
        for (const char *const *k = common_params; *k; k++)
            args_near_try(&near, *k);
        complain("-p %s: the preset %s has no such parameter%s%s westlight help presets", name,
                 preset->name, near.best ? "" : known, args_near_text(&near, "", text));
        return EXIT_USAGE;
    }
    return 0;
}

/* A version needs a software, and a preset runs its own. */
static int software_check(const struct preset *preset, const struct options *options)
{
    if (preset->software && *options->software &&
        strcmp(preset->software, options->software) != 0) {
        complain("--software %s: the preset %s runs %s: name that, or another preset",
                 options->software, preset->name, preset->software);
        return EXIT_USAGE;
    }
    if (!preset->software && !*options->software && options_param(options, "version", NULL)) {
        complain("-p version=%s: of what? write --software NAME=VERSION",
                 options_param(options, "version", NULL));
        return EXIT_USAGE;
    }
    return 0;
}

void preset_pool(const struct preset_scene *scene, struct westlight_step *step)
{
    if (scene->options->pool && *scene->options->pool)
        westlight_step_attribute(step, ATTRIBUTE_POOL, &scene->options->pool, 1);
}

int preset_resources(const struct preset_scene *scene, struct westlight_step *step,
                     uint32_t *ret_timeout_s)
{
    static const struct {
        const char *param, *amount;
        bool bytes;
    } amounts[] = {
        {"vcpus", "amount.worker.vcpu", false},
        {"memory", "amount.worker.memory", true},
        {"gpus", "amount.worker.gpu", false},
        {"gpu-memory", "amount.worker.gpu.memory", true},
    };
    const char *text = options_param(scene->options, "timeout", NULL);
    long timeout_s = 0;

    for (size_t i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
        const char *value = options_param(scene->options, amounts[i].param, NULL);
        double amount = 0;
        long number = 0;

        if (!value)
            continue;
        if (amounts[i].bytes ? !options_mebibytes(value, &amount)
                             : !options_number(value, 1, 65536, &number)) {
            complain("-p %s=%s: it is no amount: write %s", amounts[i].param, value,
                     amounts[i].bytes ? "mebibytes, or 8G" : "a whole number");
            return EXIT_USAGE;
        }
        westlight_step_amount(step, amounts[i].amount, amounts[i].bytes ? amount : (double)number);
    }
    preset_pool(scene, step);
    if (text && !options_number(text, 1, 7 * 86400, &timeout_s)) {
        complain("-p timeout=%s: it is no number of seconds from 1 to 604800", text);
        return EXIT_USAGE;
    }

    *ret_timeout_s = (uint32_t)timeout_s;
    return 0;
}

/* A picture's name without '#' is one frame's. */
static int each_named(const struct preset_scene *scene)
{
    const struct westlight_range *frames = scene->frames;
    const char *dot = strrchr(scene->pattern, '.');

    if (strchr(scene->pattern, '#') || !scene->n_frames ||
        (scene->n_frames == 1 && frames->last - frames->first < frames->step))
        return 0;
    complain("-o %s: each frame needs a name of its own: write %.*s.####%s, or name one frame",
             scene->options->out, (int)(dot - scene->pattern), scene->pattern, dot);
    return EXIT_USAGE;
}

int preset_range(struct preset_scene *scene, int64_t first, int64_t last, int64_t step)
{
    static struct westlight_range whole;

    whole = (struct westlight_range){first, last, step > 0 ? step : 1};
    scene->frames = &whole;
    scene->n_frames = 1;
    if (*scene->picture && each_named(scene))
        return EXIT_USAGE;
    if (!*scene->picture && !strchr(scene->pattern, '#'))
        snprintf(scene->pattern, sizeof(scene->pattern), "%.200s.####", scene->base);
    if (!scene->options->json)
        printf("frames %lld-%lld: the scene's own range\n", (long long)first, (long long)last);
    return 0;
}

void preset_software(const struct preset_scene *scene, struct westlight_step *step,
                     const char *software)
{
    char name[512];

    if (!software)
        software = scene->options->software;
    if (!*software)
        return;
    snprintf(name, sizeof(name), ATTRIBUTE_SOFTWARE "%s", software);
    westlight_step_attribute(step, name, NULL, 0);
    westlight_step_software(step, software);
}

int preset_expect(const struct preset_scene *scene, struct westlight_step *step,
                  uint32_t images_per_frame)
{
    static const struct {
        const char *name;
        enum westlight_check check;
    } checks[] = {{"warn", WESTLIGHT_CHECK_WARN},
                  {"off", WESTLIGHT_CHECK_OFF},
                  {"fail", WESTLIGHT_CHECK_FAIL}};
    const char *wanted = options_param(scene->options, "check", "warn");

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (strcmp(wanted, checks[i].name) == 0) {
            westlight_step_expect(step, checks[i].check,
                                  images_per_frame ? scene->options->width : 0,
                                  images_per_frame ? scene->options->height : 0, images_per_frame);
            return 0;
        }
    complain("-p check=%s: write warn (say when a picture is black), fail (and render it again) or "
             "off (look at none)",
             wanted);
    return EXIT_USAGE;
}

void preset_frames(const struct preset_scene *scene, struct westlight_step *step)
{
    if (scene->n_frames)
        westlight_step_ints(step, "Frame", scene->frames, scene->n_frames, scene->options->chunk);
}

/* ---- the scene and its folder ---- */

static int scene_open(const struct options *options, struct preset_scene *ret_scene)
{
    const char *slash, *name, *dot;
    struct stat status;

    if (!realpath(options->scene, ret_scene->path)) {
        complain("%s: %s: check the path of the scene", options->scene, strerror(errno));
        return EXIT_USAGE;
    }
    if (stat(ret_scene->path, &status) < 0 || access(ret_scene->path, R_OK) < 0) {
        complain("%s: %s: make the scene readable", options->scene, strerror(errno));
        return EXIT_USAGE;
    }

    if (S_ISDIR(status.st_mode)) {
        snprintf(ret_scene->folder, sizeof(ret_scene->folder), "%s", ret_scene->path);
        slash = strrchr(ret_scene->path, '/');
        snprintf(ret_scene->base, sizeof(ret_scene->base), "%.255s",
                 slash && slash[1] ? slash + 1 : "root");
        return 0;
    }
    if (!S_ISREG(status.st_mode)) {
        complain("%s: it is not a file: name a scene file", options->scene);
        return EXIT_USAGE;
    }

    slash = strrchr(ret_scene->path, '/');
    name = slash + 1;
    snprintf(ret_scene->folder, sizeof(ret_scene->folder), "%.*s",
             (int)(slash == ret_scene->path ? 1 : slash - ret_scene->path), ret_scene->path);
    dot = strrchr(name, '.');
    snprintf(ret_scene->base, sizeof(ret_scene->base), "%.*s",
             dot && dot > name ? (int)(dot - name) : 255, name);
    for (size_t i = 0; dot && dot[i + 1] && i + 1 < sizeof(ret_scene->ending); i++)
        ret_scene->ending[i] = (char)tolower((unsigned char)dot[i + 1]);
    return 0;
}

static int folder_check(const struct preset_scene *scene)
{
    const struct passwd *user = getpwuid(getuid());
    const char *home = getenv("HOME");
    char real[PATH_MAX];

    if (!home && user)
        home = user->pw_dir;
    if (strcmp(scene->folder, "/") == 0 ||
        (home && realpath(home, real) && strcmp(real, scene->folder) == 0)) {
        complain("%s: its folder %s would travel with the scene, and that is %s: put the scene in "
                 "a folder of its own",
                 scene->options->scene, scene->folder,
                 scene->folder[1] ? "your whole home" : "the whole disk");
        return EXIT_USAGE;
    }
    return 0;
}

int preset_path(const char *from, const char *path, char *ret_path, size_t size)
{
    char joined[PATH_MAX * 2], *save = NULL;
    size_t length = 0;

    snprintf(joined, sizeof(joined), "%s/%s", path[0] == '/' ? "" : from, path);
    for (char *part = strtok_r(joined, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            while (length && ret_path[--length] != '/')
                ;
            continue;
        }
        if (length + strlen(part) + 2 > size)
            return -ENAMETOOLONG;
        ret_path[length++] = '/';
        memcpy(ret_path + length, part, strlen(part));
        length += strlen(part);
    }
    if (length == 0)
        ret_path[length++] = '/';
    ret_path[length] = 0;
    return 0;
}

static int path_absolute(const char *path, char *ret_path, size_t size)
{
    char cwd[PATH_MAX];

    return getcwd(cwd, sizeof(cwd)) ? preset_path(cwd, path, ret_path, size) : -errno;
}

/* printf's way of saying it: "%04d" becomes "####", "%d" becomes "#". */
static void hashes_from_printf(char *name)
{
    for (char *at = name; (at = strchr(at, '%')); at++) {
        char *end = NULL;
        unsigned long width = strtoul(at + 1, &end, 10);

        if (*end != 'd' || width > 20 || !(isdigit((unsigned char)at[1]) || at[1] == 'd'))
            continue;
        width = width ? width : 1;
        /* "%04d" is as long as what it stands for; "%6d" and "%12d" are shorter. */
        memmove(at + width, end + 1, strlen(end + 1) + 1);
        memset(at, '#', width);
    }
}

static bool image_ending(const char *ending)
{
    static const char *const endings[] = {"png", "exr",  "jpg", "jpeg", "tga", "ppm", "tif", "tiff",
                                          "bmp", "webp", "hdr", "dpx",  "cin", "jp2", "rgb", NULL};
    char lower[8] = "";

    for (size_t i = 0; ending[i]; i++) {
        if (i + 1 == sizeof(lower))
            return false;
        lower[i] = (char)tolower((unsigned char)ending[i]);
    }
    return named(endings, lower);
}

static bool folder_is(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* What presets make of `-o`: a name with '#' is a pattern, a name that ends as a picture's does is
 * a still's file, anything else is a folder. `path` keeps the folder alone. */
static int pattern_take(struct preset_scene *scene, const struct preset *preset, char *path)
{
    const char *out = scene->options->out;
    char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot, made[PATH_MAX];

    if (slash)
        *slash = 0;
    if (slash && (strstr(path, "##") || strstr(path, "%0")) && !folder_is(path)) {
        complain("-o %s: a frame's number stands in a folder's name: write it in the file's, such "
                 "as out/beauty.####",
                 out);
        return EXIT_USAGE;
    }
    if (slash)
        *slash = '/';

    snprintf(made, sizeof(made) - 64, "%s", name);
    if (strlen(made) <= 200)
        hashes_from_printf(made);
    dot = strrchr(made, '.');
    if (!strchr(made, '#') && (!dot || dot == made || !image_ending(dot + 1) || folder_is(path)))
        return 0;
    if (!preset->endings_written) {
        complain("-o %s: the preset %s names no files: name a folder", out, preset->name);
        return EXIT_USAGE;
    }
    if (strlen(made) > 200) {
        complain("-o %s: the file's name is too long: write at most 200 bytes", out);
        return EXIT_USAGE;
    }

    if (dot && image_ending(dot + 1)) {
        for (size_t i = 0; dot[i + 1]; i++)
            scene->picture[i] = (char)tolower((unsigned char)dot[i + 1]);
        if (!named(preset->endings_written, scene->picture)) {
            complain("-o %s: the preset %s writes no .%s: see westlight help presets", out,
                     preset->name, scene->picture);
            return EXIT_USAGE;
        }
    }
    strcpy(scene->pattern, made);
    if (each_named(scene))
        return EXIT_USAGE;
    if (!slash)
        strcpy(path, ".");
    else
        slash[slash == path] = 0;
    return 0;
}

void preset_pattern(const struct preset_scene *scene, char *ret_head, unsigned *ret_digits,
                    char *ret_tail)
{
    const char *last = strrchr(scene->pattern, '#'), *first = last;

    while (first && first > scene->pattern && first[-1] == '#')
        first--;
    *ret_digits = first ? (unsigned)(last - first) + 1 : 0;
    snprintf(ret_head, PRESET_PATTERN, "%.*s", first ? (int)(first - scene->pattern) : 255,
             scene->pattern);
    snprintf(ret_tail, PRESET_PATTERN, "%s", last ? last + 1 : "");
}

static int out_open(struct preset_scene *scene, const struct preset *preset)
{
    const char *out = scene->options->out;
    char path[PATH_MAX];
    int r = 0;

    if (out && (!*out || strlen(out) >= sizeof(path))) {
        complain("-o: the path is %s: name a folder or a pattern such as out/beauty.####",
                 *out ? "too long" : "empty");
        return EXIT_USAGE;
    }
    if (out)
        strcpy(path, out);
    else
        snprintf(path, sizeof(path), "%s-frames", scene->base);
    if (out && (r = pattern_take(scene, preset, path)))
        return r;
    if (path_absolute(path, scene->out, sizeof(scene->out)) < 0) {
        complain("-o %s: the path is too long: name a shorter folder", path);
        return EXIT_USAGE;
    }
    if (strcmp(scene->out, scene->folder) == 0) {
        complain("-o %s: it is the scene's own folder: name another, or leave -o out for %s-frames",
                 path, scene->base);
        return EXIT_USAGE;
    }
    if (!*scene->pattern)
        snprintf(scene->pattern, sizeof(scene->pattern),
                 scene->options->frames ? "%.200s.####" : "%.200s", scene->base);
    return 0;
}

/* ---- inputs ---- */

static int assets_take(const struct options *options, struct inputs *inputs)
{
    char path[PATH_MAX];
    int r = 0;

    for (size_t i = 0; r == 0 && i < options->n_assets; i++)
        if (path_absolute(options->assets[i], path, sizeof(path)) == 0)
            r = inputs_path(inputs, path, "named by --asset");
        else
            inputs_missing(inputs, options->assets[i], "named by --asset");
    return r;
}

#define MISSING_SHOWN 20

static int missing_say(const struct options *options, const struct inputs *inputs)
{
    size_t n = inputs->missing.n;

    for (size_t i = 0; i < n && i < MISSING_SHOWN; i++)
        complain("missing: %s", inputs->missing.texts[i]);
    if (n > MISSING_SHOWN)
        complain("and %zu more", n - MISSING_SHOWN);
    if (n == 0 || options->allow_missing || options->dry_run)
        return 0;
    complain("%s: %zu file%s it needs %s missing: put %s there, or render without %s: "
             "--allow-missing",
             options->scene, n, plural(n), n == 1 ? "is" : "are", n == 1 ? "it" : "them",
             n == 1 ? "it" : "them");
    return EXIT_USAGE;
}

/* The scene's folder, what the preset finds that the scene uses, what the user names. */
static int inputs_gather(struct preset_scene *scene, const struct preset *preset,
                         struct inputs *inputs)
{
    const struct options *options = scene->options;
    int r;

    inputs->exclude = options->exclude;
    inputs->n_exclude = options->n_exclude;
    inputs->out = strdup(scene->out);
    if (!inputs->out)
        abort();
    r = inputs_folder(inputs, scene->folder);
    if (r == 0 && strcmp(scene->path, scene->folder) != 0)
        r = inputs_path(inputs, scene->path, "the scene");
    if (r == 0 && preset->scan)
        r = preset->scan(scene, inputs);
    if (r == 0)
        r = assets_take(options, inputs);
    if (r == 0)
        r = inputs_close(inputs);
    if (r == 0)
        r = missing_say(options, inputs);
    for (size_t i = 0; r == 0 && i < inputs->left_out.n && !options->dry_run; i++)
        complain("left out: %s", inputs->left_out.texts[i]);
    return r;
}

void preset_inputs(const struct preset_scene *scene, struct westlight_step *step)
{
    for (size_t i = 0; scene->options->n_narrow && i < scene->n_roots; i++)
        westlight_step_input(step, (uint32_t)i, scene->options->narrow, scene->options->n_narrow);
}

int preset_job(const struct options *options, struct inputs *inputs, struct westlight_job **ret_job,
               const struct preset **ret_preset, struct preset_facts *ret_facts, char *ret_out)
{
    struct preset_scene scene = {
        .options = options, .frames = options->frames, .n_frames = options->n_frames};
    struct westlight_job *job;
    const struct preset *preset;
    const struct passwd *user = getpwuid(getuid());
    struct stat status;
    int r = scene_open(options, &scene);

    if (r)
        return r;
    preset = preset_find(options, scene.ending);
    if (!preset)
        return EXIT_USAGE;
    if (stat(scene.path, &status) == 0 && S_ISDIR(status.st_mode) && !preset->folder_ok) {
        complain("%s: it is a folder, and %s renders a file: name the scene in it", options->scene,
                 preset->name);
        return EXIT_USAGE;
    }
    if (options->columns && !preset->tiles) {
        complain("--tiles: the preset %s renders no tiles: leave it out", preset->name);
        return EXIT_USAGE;
    }
    if ((r = params_check(preset, options)) || (r = software_check(preset, options)) ||
        (r = folder_check(&scene)) || (r = out_open(&scene, preset)) ||
        (r = inputs_gather(&scene, preset, inputs))) {
        inputs_list_deinit(&scene.libraries);
        inputs_list_deinit(&scene.inexact);
        return r;
    }

    job = westlight_job_new(options->name ? options->name : strrchr(scene.path, '/') + 1);
    westlight_job_describe(job, options->note, user ? user->pw_name : "", options->priority);
    westlight_job_max_workers(job, options->max_workers);
    for (size_t i = 0; i < options->n_tags; i++)
        westlight_job_tag(job, options->tags[i]);
    for (size_t i = 0; i < options->n_env; i++)
        westlight_job_variable(job, options->env[i].name, options->env[i].value);
    scene.n_roots = inputs_add(inputs, job);
    r = preset->build(&scene, job);
    inputs_list_deinit(&scene.libraries);
    inputs_list_deinit(&scene.inexact);
    if (r) {
        westlight_job_free(job);
        return r;
    }

    strcpy(ret_out, scene.out);
    *ret_facts = scene.facts;
    *ret_job = job;
    *ret_preset = preset;
    return 0;
}
