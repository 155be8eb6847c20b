/* preset_povray.c - POV-Ray scenes (.pov) and animations (.ini).
 *
 * The idea: POV-Ray computes a frame's clock from the whole animation's range and renders a part of
 * it (+SF, +EF), so a frame is the same however the job is split. A small script runs each run of
 * frames of a task, in the scene's own folder as an artist would, and moves the pictures to the
 * output folder under their names.
 * Source: POV-Ray 3.7 reference, "Animation Options"; its default I/O restrictions allow writing to
 * the current folder only, which is why the script renders there. It splits its arguments at spaces
 * and quotes, and reads some other characters in its own way: such a scene gets a link of a plain
 * name beside it.
 */
#include <client/preset.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <client/scan.h>
#include <client/tiles.h>
#include <proto/base/err.h>

static const char script[] =
    "set -eu\n"
    "HOME=$(cd .. && pwd)\n" /* Debian lets it read below $HOME: there all roots lie */
    "export HOME\n"
    "scene=$1 out=$2 frames=$3 head=$4 digits=$5 tail=$6 first=$7 last=$8 ending=$9; shift 9\n"
    "tile=$1; shift\n"
    "cd \"$(dirname \"$scene\")\"\n"
    "scene=$(basename \"$scene\")\n"
    "case $scene in\n"
    "-* | *[!A-Za-z0-9._-]*)\n"
    "    plain=wl-$(printf %s \"$scene\" | tr -c A-Za-z0-9._- _)\n"
    "    ln -sf -- \"$scene\" \"$plain\"\n"
    "    scene=$plain\n"
    "esac\n"
    "case $scene in *.ini) ;; *) scene=+I$scene ;; esac\n"
    "rm -f wl-frame-*\n"
    "if [ \"$tile\" != - ]; then\n" /* it counts rows and columns from 1 */
    "    w=${tile%%x*} h=${tile#*x} h=${h%%+*} y=${tile##*+} x=${tile#*+} x=${x%%+*}\n"
    "    set -- \"$@\" \"+SC$((x + 1))\" \"+EC$((x + w))\" \"+SR$((y + 1))\" \"+ER$((y + h))\"\n"
    "fi\n"
    "home() {\n"
    "    if [ \"$tile\" = - ]; then mv \"$1\" \"$out/$2\"; return; fi\n"
    "    mkdir -p \"$out/" TILES_FOLDER "/$frames\"\n"
    "    mv \"$1\" \"$out/" TILES_FOLDER "/$frames/$tile.$ending\"\n"
    "}\n"
    "if [ \"$frames\" = - ]; then\n"
    "    povray \"$scene\" \"$@\" -D -P +Owl-frame-\n"
    "    home \"wl-frame-.$ending\" \"$head\"\n"
    "    exit 0\n"
    "fi\n"
    "run() {\n"
    "    if [ \"$first\" = - ]; then\n"
    "        povray \"$scene\" \"$@\" -D -P \"+SF$a\" \"+EF$b\" +Owl-frame-\n"
    "    else\n"
    "        povray \"$scene\" \"$@\" -D -P \"+KFI$first\" \"+KFF$last\" \"+SF$a\" \"+EF$b\" "
    "+Owl-frame-\n"
    "    fi\n"
    "}\n"
    "for part in $(echo \"$frames\" | tr , ' '); do\n"
    "    step=1\n"
    "    case $part in *:*) step=${part#*:} part=${part%%:*} ;; esac\n"
    "    a=${part%%-*} b=${part##*-}\n"
    "    if [ \"$step\" = 1 ]; then run \"$@\"; continue; fi\n"
    "    end=$b\n"
    "    while [ \"$a\" -le \"$end\" ]; do b=$a; run \"$@\"; a=$((a + step)); done\n"
    "done\n"
    "for picture in wl-frame-*.\"$ending\"; do\n"
    "    number=${picture#wl-frame-} number=${number%.*}\n"
    "    number=$(printf \"%0${digits}d\" \"$(expr \"$number\" + 0)\")\n"
    "    [ \"$digits\" != 0 ] || number=\n"
    "    home \"$picture\" \"$head$number$tail\"\n"
    "done\n";

static const char *const params[] = {"quality", "antialias", "format", "library", "clock", NULL};
static const char *const endings_written[] = {"png", "exr", "jpg", "jpeg", "tga", "ppm", NULL};

#define FRAME_MAX     2147483645 /* at 2147483647 it counts on without end */
#define LIBRARIES_MAX 20         /* POV-Ray's own limit */
/* It renders blocks of so many pixels, and compares neighbours inside of one only: where tiles end
 * with blocks, a tile's antialiasing is the whole frame's. */
#define BLOCK 32

struct ini {
    long first, last;
    bool has_first, has_last;
    long width, height;
    bool dithers, blocks, part;   /* it says so, of each */
    char scene[PATH_MAX];         /* what it renders */
    struct inputs_list libraries; /* as written */
};

static char *value_trim(char *value)
{
    size_t size;

    value += strspn(value, " \t\"");
    size = strcspn(value, ";\r\n");
    while (size > 0 && strchr(" \t\"", value[size - 1]))
        size--;
    value[size] = '\0';
    return value;
}

/* Switches may stand in a line, as on the command line. */
static void ini_switches(char *line, struct ini *ini)
{
    char *save = NULL;

    for (char *word = strtok_r(line, " \t\r\n", &save); word && *word != ';';
         word = strtok_r(NULL, " \t\r\n", &save)) {
        if (strncasecmp(word, "+kfi", 4) == 0)
            ini->first = strtol(word + 4, NULL, 10), ini->has_first = true;
        else if (strncasecmp(word, "+kff", 4) == 0)
            ini->last = strtol(word + 4, NULL, 10), ini->has_last = true;
        else if (strncasecmp(word, "+i", 2) == 0)
            snprintf(ini->scene, sizeof(ini->scene), "%s", word + 2);
        else if (strncasecmp(word, "+wt", 3) != 0 && strncasecmp(word, "+w", 2) == 0)
            ini->width = strtol(word + 2, NULL, 10);
        else if (strncasecmp(word, "+h", 2) == 0 && isdigit((unsigned char)word[2]))
            ini->height = strtol(word + 2, NULL, 10);
        else if (strncasecmp(word, "+th", 3) == 0)
            ini->dithers = true;
        else if (strncasecmp(word, "+bs", 3) == 0)
            ini->blocks = true;
        else if (strncasecmp(word, "+s", 2) == 0 || strncasecmp(word, "+e", 2) == 0)
            ini->part |= strchr("rcRC", word[2]) != NULL && word[2];
    }
}

/* What matters to tiles. */
static void ini_picture(const char *name, const char *value, struct ini *ini)
{
    value += strspn(value, " \t\"");
    if (strncasecmp(name, "Width", 5) == 0)
        ini->width = strtol(value, NULL, 10);
    else if (strncasecmp(name, "Height", 6) == 0)
        ini->height = strtol(value, NULL, 10);
    else if (strncasecmp(name, "Dither_", 7) != 0 && strncasecmp(name, "Dither", 6) == 0)
        ini->dithers = strchr("oOyYtT1", *value) && strncasecmp(value, "off", 3) != 0;
    else if (strncasecmp(name, "Render_Block_Size", 17) == 0)
        ini->blocks = true;
    else if (strncasecmp(name, "Start_", 6) == 0 || strncasecmp(name, "End_", 4) == 0)
        ini->part = true;
}

/* Reads what an .ini says of frames and files, by POV-Ray's own names; the rest is POV-Ray's to
 * read. */
static int ini_read(const struct preset_scene *scene, struct ini *ret_ini)
{
    FILE *file = fopen(scene->path, "re");
    char line[PATH_MAX];
    struct ini ini = {0};

    if (!file) {
        complain("%s: %s: make it readable", scene->options->scene, strerror(errno));
        return EXIT_USAGE;
    }
    while (fgets(line, sizeof(line), file)) {
        char *text = line, *value = strchr(line, '=');

        while (isspace((unsigned char)*text))
            text++;
        if (*text == '+' || *text == '-') {
            ini_switches(text, &ini);
            continue;
        }
        if (!value || *text == ';')
            continue;
        if (strncasecmp(text, "Initial_Frame", 13) == 0)
            ini.first = strtol(value + 1, NULL, 10), ini.has_first = true;
        else if (strncasecmp(text, "Final_Frame", 11) == 0)
            ini.last = strtol(value + 1, NULL, 10), ini.has_last = true;
        else if (strncasecmp(text, "Input_File_Name", 15) == 0)
            snprintf(ini.scene, sizeof(ini.scene), "%s", value_trim(value + 1));
        else if (strncasecmp(text, "Library_Path", 12) == 0)
            inputs_list_add(&ini.libraries, value_trim(value + 1));
        else
            ini_picture(text, value + 1, &ini);
    }
    fclose(file);

    if (ini.has_last && !ini.has_first)
        ini.first = 1;
    *ret_ini = ini;
    return 0;
}

static void ini_take(struct preset_scene *scene, const struct ini *ini)
{
    if (ini->width > 0 && ini->width <= 65536 && ini->height > 0 && ini->height <= 65536) {
        scene->width = (unsigned)ini->width;
        scene->height = (unsigned)ini->height;
    }
    if (ini->dithers)
        inputs_list_add(&scene->inexact, "it dithers, which carries on from pixel to pixel");
    if (ini->blocks)
        inputs_list_add(&scene->inexact, "it renders in blocks of its own size "
                                         "(Render_Block_Size), and tiles may end inside of one");
    if (ini->part)
        inputs_list_add(&scene->inexact, "it renders a part of the picture alone (Start_Row and "
                                         "the like)");
}

/* Relative to the scene's folder, where POV-Ray runs. */
static void library_add(struct preset_scene *scene, const char *from, const char *folder)
{
    char path[PATH_MAX];

    if (preset_path(from, folder, path, sizeof(path)) == 0)
        inputs_list_add(&scene->libraries, path);
}

static int povray_scan(struct preset_scene *scene, struct inputs *inputs)
{
    const struct options *options = scene->options;
    _cleanup_(freep) const char **libraries = NULL;
    char source[PATH_MAX], cwd[PATH_MAX];
    struct ini ini = {0};
    int r = strcmp(scene->ending, "ini") == 0 ? ini_read(scene, &ini) : 0;

    ini_take(scene, &ini);
    for (size_t i = 0; i < ini.libraries.n; i++)
        library_add(scene, scene->folder, ini.libraries.texts[i]);
    inputs_list_deinit(&ini.libraries);
    for (size_t i = 0; i < options->n_params; i++)
        if (strcmp(options->params[i].name, "library") == 0 && getcwd(cwd, sizeof(cwd)))
            library_add(scene, cwd, options->params[i].value);
    snprintf(source, sizeof(source), "%s", scene->path);
    if (r == 0 && *ini.scene && preset_path(scene->folder, ini.scene, source, sizeof(source)) == 0)
        r = inputs_path(inputs, source, "Input_File_Name of the scene");
    if (r)
        return r;
    libraries = calloc(scene->libraries.n + 1, sizeof(*libraries));
    if (!libraries)
        abort();
    for (size_t i = 0; i < scene->libraries.n; i++)
        libraries[i] = scene->libraries.texts[i];
    return scan_povray(source, scene->folder, libraries, inputs, &scene->inexact);
}

static int clock_choose(const struct preset_scene *scene, int64_t *low, int64_t *high)
{
    struct westlight_range *ranges = NULL;
    const char *text = options_param(scene->options, "clock", NULL);
    size_t n = 0;
    int r = text ? options_frames("--clock-range", text, &ranges, &n) : 0;

    if (r || !text)
        return r;
    if (n != 1 || ranges[0].step != 1 || ranges[0].first > *low || ranges[0].last < *high) {
        complain("--clock-range %s: it must be one range that holds all frames asked for: write "
                 "%lld-%lld or wider",
                 text, (long long)*low, (long long)*high);
        r = EXIT_USAGE;
    } else {
        *low = ranges[0].first;
        *high = ranges[0].last;
    }
    free(ranges);
    return r;
}

/* The animation's range in `first`, `last`: "-" where the .ini says it. */
static int range_choose(struct preset_scene *scene, const struct ini *ini, char first[24],
                        char last[24])
{
    const char *said = scene->options->frames_text ? scene->options->frames_text : "of the scene";
    int64_t low = 0, high = 0;
    int r;

    strcpy(first, "-");
    strcpy(last, "-");
    if (!scene->n_frames && ini->has_last && (r = preset_range(scene, ini->first, ini->last, 1)))
        return r;
    for (size_t i = 0; i < scene->n_frames; i++) {
        if (i == 0 || scene->frames[i].first < low)
            low = scene->frames[i].first;
        if (i == 0 || scene->frames[i].last > high)
            high = scene->frames[i].last;
    }
    if (!scene->n_frames && strchr(scene->pattern, '#')) {
        complain("-o %s: a still has no frame number for '#': name frames with -f, or leave it out",
                 scene->options->out);
        return EXIT_USAGE;
    }
    if (!scene->n_frames)
        return 0;
    if (high > FRAME_MAX) {
        complain("--frames %s: POV-Ray numbers its frames up to %d: frame %lld cannot be", said,
                 FRAME_MAX, (long long)high);
        return EXIT_USAGE;
    }
    if (low < 0) {
        complain("--frames %s: POV-Ray numbers its frames from 0: frame %lld cannot be", said,
                 (long long)low);
        return EXIT_USAGE;
    }
    if (ini->has_last && !options_param(scene->options, "clock", NULL)) {
        if (low >= ini->first && high <= ini->last)
            return 0;
        complain("--frames %s: %s animates frames %ld to %ld: ask for those, or change "
                 "Initial_Frame and Final_Frame in it",
                 scene->options->frames_text, scene->options->scene, ini->first, ini->last);
        return EXIT_USAGE;
    }

    if ((r = clock_choose(scene, &low, &high)))
        return r;
    if (low == high)
        complain(
            "frame %lld alone: the clock runs over the frames asked for: for a frame of a longer "
            "animation say its whole range, such as --clock-range 1-24",
            (long long)low);
    /* A range of one frame would divide by nothing: it is the first of two. */
    snprintf(first, 24, "%lld", (long long)low);
    snprintf(last, 24, "%lld", (long long)(high == low ? high + 1 : high));
    return 0;
}

/* -p format, else what -o ends in, else PNG. The file's name gets its ending where it has none. */
static int format_choose(struct preset_scene *scene, const char **ret_flag, const char **ret_ending)
{
    static const char *const formats[][3] = {{"png", "+FN", "png"}, {"png16", "+FN16", "png"},
                                             {"exr", "+FE", "exr"}, {"jpeg", "+FJ", "jpg"},
                                             {"tga", "+FT", "tga"}, {"ppm", "+FP", "ppm"}};
    const char *picture = strcmp(scene->picture, "jpg") == 0 ? "jpeg" : scene->picture,
               *wanted = options_param(scene->options, "format", *picture ? picture : "png");
    size_t i = 0, n = sizeof(formats) / sizeof(formats[0]), length = strlen(scene->pattern);

    while (i < n && strcmp(formats[i][0], wanted) != 0)
        i++;
    if (i == n) {
        complain("-p format=%s: POV-Ray writes png, png16, exr, jpeg, tga or ppm", wanted);
        return EXIT_USAGE;
    }
    if (*picture && strncmp(formats[i][0], picture, strlen(picture)) != 0) {
        complain("-o %s: it ends in .%s, and -p format=%s says otherwise: leave one out",
                 scene->options->out, scene->picture, wanted);
        return EXIT_USAGE;
    }

    if (!*picture)
        snprintf(scene->pattern + length, sizeof(scene->pattern) - length, ".%s", formats[i][2]);
    *ret_flag = formats[i][1];
    *ret_ending = formats[i][2];
    return 0;
}

/* What POV-Ray would clip, or read as something else. */
static int parameters_check(const struct options *options)
{
    const char *quality = options_param(options, "quality", NULL),
               *antialias = options_param(options, "antialias", NULL);
    char *end = NULL;
    double threshold = antialias ? strtod(antialias, &end) : 0;
    long number;

    if (quality && !options_number(quality, 0, 11, &number)) {
        complain("-p quality=%s: POV-Ray's quality is a number from 0 to 11", quality);
        return EXIT_USAGE;
    }
    if (antialias && (end == antialias || *end || !(threshold >= 0 && threshold <= 3))) {
        complain("-p antialias=%s: it is no threshold from 0 to 3, such as 0.3", antialias);
        return EXIT_USAGE;
    }
    return 0;
}

static int povray_build(struct preset_scene *scene, struct westlight_job *job)
{
    const struct options *options = scene->options;
    const char *arguments[27 + LIBRARIES_MAX], *flag, *ending;
    const char *quality = options_param(options, "quality", NULL),
               *antialias = options_param(options, "antialias", NULL);
    char first[24], last[24], width[24], height[24], q[64], a[64], libraries[LIBRARIES_MAX][32];
    char head[PRESET_PATTERN], digits[16], tail[PRESET_PATTERN];
    unsigned n_digits;
    _cleanup_(tiles_deinit) struct tiles tiles = {0};
    struct westlight_step *step;
    struct ini ini = {0};
    uint32_t timeout_s;
    size_t n = 0;
    int r;

    r = strcmp(scene->ending, "ini") == 0 ? ini_read(scene, &ini) : 0;
    inputs_list_deinit(&ini.libraries);
    if (r || (r = range_choose(scene, &ini, first, last)) ||
        (r = format_choose(scene, &flag, &ending)) || (r = parameters_check(options)) ||
        (r = tiles_plan(scene, BLOCK, ending, &tiles)))
        return r;
    preset_pattern(scene, head, &n_digits, tail);
    snprintf(digits, sizeof(digits), "%u", n_digits);

    westlight_job_parameter(job, "Scene", WESTLIGHT_PATH, scene->path);
    westlight_job_parameter(job, "Out", WESTLIGHT_PATH, scene->out);
    step = westlight_job_step(job, tiles.names.n ? "tiles" : "render");
    if ((r = preset_resources(scene, step, &timeout_s)) || (r = preset_expect(scene, step, 1)))
        return r;
    preset_frames(scene, step);
    if (tiles.names.n)
        tiles_split(&tiles, step);
    preset_inputs(scene, step);
    if (scene->n_frames && strcmp(first, "-") != 0)
        westlight_step_within(step, strtoll(first, NULL, 10), strtoll(last, NULL, 10));
    else if (scene->n_frames)
        westlight_step_within(step, ini.first, ini.last);
    preset_software(scene, step, "povray");
    westlight_step_file(step, "Render", "render.sh", false, script);
    westlight_step_output(step, scene->out);

    arguments[n++] = "{{Task.File.Render}}";
    arguments[n++] = "{{Param.Scene}}";
    arguments[n++] = "{{Param.Out}}";
    arguments[n++] = scene->n_frames ? "{{Task.Param.Frame}}" : "-";
    arguments[n++] = head;
    arguments[n++] = digits;
    arguments[n++] = tail;
    arguments[n++] = first;
    arguments[n++] = last;
    arguments[n++] = ending;
    arguments[n++] = tiles.names.n ? "{{Task.Param." WESTLIGHT_TILE "}}" : "-";
    arguments[n++] = flag;
    arguments[n++] = "+WT{{Lease.VCPUs}}";
    if (options->width) {
        snprintf(width, sizeof(width), "+W%u", options->width);
        snprintf(height, sizeof(height), "+H%u", options->height);
        arguments[n++] = width;
        arguments[n++] = height;
    }
    if (quality) {
        snprintf(q, sizeof(q), "+Q%.40s", quality);
        arguments[n++] = q;
    }
    if (antialias) {
        snprintf(a, sizeof(a), "+A%.40s", antialias);
        arguments[n++] = a;
    }
    for (size_t i = 0; i < scene->libraries.n && i < LIBRARIES_MAX; i++) {
        snprintf(libraries[i], sizeof(libraries[i]), "Library%zu", i + 1);
        westlight_job_parameter(job, libraries[i], WESTLIGHT_PATH, scene->libraries.texts[i]);
        snprintf(libraries[i], sizeof(libraries[i]), "+L{{Param.Library%zu}}", i + 1);
        arguments[n++] = libraries[i];
    }
    westlight_step_run(step, "/bin/sh", arguments, n, timeout_s);
    return tiles.names.n ? tiles_join(&tiles, scene, job, step, ending) : 0;
}

const struct preset preset_povray = {
    .name = "povray",
    .endings = {"pov", "ini"},
    .params = params,
    .endings_written = endings_written,
    .help = "POV-Ray scenes (.pov) and animations (.ini)",
    .scan = povray_scan,
    .software = "povray",
    .tiles = true,
    .notes = "-p quality=0..11\tPOV-Ray's +Q: 9 and more show all (9)\n"
             "-p antialias=0..3\tPOV-Ray's +A, a threshold: 0.3 is usual (none)\n"
             "-p format=FORMAT\tpng, png16, exr, jpeg, tga or ppm (png)\n"
             "-p library=DIR\tlooked through for included files; may be repeated\n",
    .build = povray_build,
};
