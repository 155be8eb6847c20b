/* preset_povray.c - POV-Ray scenes (.pov) and animations (.ini).
 *
 * The idea: POV-Ray computes a frame's clock from the whole animation's range and renders a part of
 * it (+SF, +EF), so a frame is the same however the job is split. A small script runs each run of
 * frames of a task, in the scene's own folder as an artist would, and moves the pictures to the
 * output folder under their names.
 * Source: POV-Ray 3.7 reference, "Animation Options"; its default I/O restrictions allow writing to
 * the current folder only, which is why the script renders there.
 */
#include <client/preset.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char script[] =
    "set -eu\n"
    "scene=$1 out=$2 frames=$3 pattern=$4 first=$5 last=$6 ending=$7; shift 7\n"
    "cd \"$(dirname \"$scene\")\"\n"
    "scene=$(basename \"$scene\")\n"
    "case $scene in *.ini) ;; *) scene=+I$scene ;; esac\n"
    "rm -f wl-frame-*\n"
    "if [ \"$frames\" = - ]; then\n"
    "    povray \"$scene\" \"$@\" -D -P +Owl-frame-\n"
    "    mv \"wl-frame-.$ending\" \"$out/$pattern.$ending\"\n"
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
    "hashes=$(echo \"$pattern\" | tr -cd '#')\n"
    "for picture in wl-frame-*.\"$ending\"; do\n"
    "    number=${picture#wl-frame-} number=${number%.*}\n"
    "    number=$(printf \"%0${#hashes}d\" \"$(expr \"$number\" + 0)\")\n"
    "    name=${pattern%%#*}$number${pattern##*#}\n"
    "    mv \"$picture\" \"$out/$name.$ending\"\n"
    "done\n";

static const char *const params[] = {"quality", "antialias", "format", NULL};

struct ini {
    long first, last;
    bool has_first, has_last;
};

/* Reads an .ini's frame range, by POV-Ray's own names; the rest is POV-Ray's to read. */
static int ini_read(const char *path, struct ini *ret_ini)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    struct ini ini = {0};

    if (!file)
        return -1;
    while (fgets(line, sizeof(line), file)) {
        char *text = line, *value = strchr(line, '=');

        while (isspace((unsigned char)*text))
            text++;
        if (!value || *text == ';')
            continue;
        if (strncasecmp(text, "Initial_Frame", 13) == 0)
            ini.first = strtol(value + 1, NULL, 10), ini.has_first = true;
        else if (strncasecmp(text, "Final_Frame", 11) == 0)
            ini.last = strtol(value + 1, NULL, 10), ini.has_last = true;
    }
    fclose(file);

    if (ini.has_last && !ini.has_first)
        ini.first = 1;
    *ret_ini = ini;
    return 0;
}

/* The animation's range in `first`, `last`: "-" where the .ini says it. */
static int range_choose(struct preset_scene *scene, const struct ini *ini, char first[24],
                        char last[24])
{
    static struct westlight_range whole;
    int64_t low = 0, high = 0;

    strcpy(first, "-");
    strcpy(last, "-");
    if (!scene->n_frames && ini->has_last) {
        whole = (struct westlight_range){ini->first, ini->last, 1};
        scene->frames = &whole;
        scene->n_frames = 1;
        if (!scene->options->out || !strchr(scene->pattern, '#'))
            snprintf(scene->pattern, sizeof(scene->pattern), "%.200s.####", scene->base);
    }
    for (size_t i = 0; i < scene->n_frames; i++) {
        if (i == 0 || scene->frames[i].first < low)
            low = scene->frames[i].first;
        if (i == 0 || scene->frames[i].last > high)
            high = scene->frames[i].last;
    }
    if (!scene->n_frames)
        return 0;
    if (low < 0) {
        complain("--frames %s: POV-Ray numbers its frames from 0: frame %lld cannot be",
                 scene->options->frames_text, (long long)low);
        return EXIT_USAGE;
    }
    if (ini->has_last) {
        if (low >= ini->first && high <= ini->last)
            return 0;
        complain("--frames %s: %s animates frames %ld to %ld: ask for those, or change "
                 "Initial_Frame and Final_Frame in it",
                 scene->options->frames_text, scene->options->scene, ini->first, ini->last);
        return EXIT_USAGE;
    }

    /* A range of one frame would divide by nothing: it is the first of two. */
    snprintf(first, 24, "%lld", (long long)low);
    snprintf(last, 24, "%lld", (long long)(high == low ? high + 1 : high));
    return 0;
}

static int format_choose(const struct options *options, const char **ret_flag,
                         const char **ret_ending)
{
    static const char *const formats[][3] = {{"png", "+FN", "png"}, {"png16", "+FN16", "png"},
                                             {"exr", "+FE", "exr"}, {"jpeg", "+FJ", "jpg"},
                                             {"tga", "+FT", "tga"}, {"ppm", "+FP", "ppm"}};
    const char *wanted = options_param(options, "format", "png");

    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (strcmp(formats[i][0], wanted) == 0) {
            *ret_flag = formats[i][1];
            *ret_ending = formats[i][2];
            return 0;
        }
    complain("-p format=%s: POV-Ray writes png, png16, exr, jpeg, tga or ppm", wanted);
    return EXIT_USAGE;
}

static int povray_build(struct preset_scene *scene, struct westlight_job *job)
{
    const struct options *options = scene->options;
    const char *arguments[24], *flag, *ending;
    const char *quality = options_param(options, "quality", NULL),
               *antialias = options_param(options, "antialias", NULL);
    char first[24], last[24], width[24], height[24], q[64], a[64];
    struct westlight_step *step;
    struct ini ini = {0};
    uint32_t timeout_s;
    size_t n = 0;
    int r;

    if (strcmp(scene->ending, "ini") == 0 && ini_read(scene->path, &ini) < 0) {
        complain("%s: it cannot be read", options->scene);
        return EXIT_USAGE;
    }
    if ((r = range_choose(scene, &ini, first, last)) ||
        (r = format_choose(options, &flag, &ending)))
        return r;

    westlight_job_parameter(job, "Scene", WESTLIGHT_PATH, scene->path);
    westlight_job_parameter(job, "Out", WESTLIGHT_PATH, scene->out);
    step = westlight_job_step(job, "render");
    if ((r = preset_resources(scene, step, &timeout_s)))
        return r;
    preset_frames(scene, step);
    westlight_step_attribute(step, "attr.software.povray", NULL, 0);
    westlight_step_software(step, "povray");
    westlight_step_file(step, "Render", "render.sh", false, script);
    westlight_step_output(step, scene->out);

    arguments[n++] = "{{Task.File.Render}}";
    arguments[n++] = "{{Param.Scene}}";
    arguments[n++] = "{{Param.Out}}";
    arguments[n++] = scene->n_frames ? "{{Task.Param.Frame}}" : "-";
    arguments[n++] = scene->pattern;
    arguments[n++] = first;
    arguments[n++] = last;
    arguments[n++] = ending;
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
    westlight_step_run(step, "/bin/sh", arguments, n, timeout_s);
    return 0;
}

const struct preset preset_povray = {
    .name = "povray",
    .endings = {"pov", "ini"},
    .params = params,
    .help = "POV-Ray scenes (.pov) and animations (.ini)",
    .build = povray_build,
};
