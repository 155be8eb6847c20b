/* job.c - the builder of a job: each call adds to protobuf messages that are sent as they are.
 *
 * Nothing here can fail for the caller; the first limit passed is kept as a sentence, and
 * westlight_submit gives it back before a byte is sent.
 */
#include <client/job.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proto/base/check.h>
#include <proto/base/err.h>
#include <proto/manifest.h>
#include <proto/state.h>
#include <proto/wire.h>

/* The builder has no way to say that memory is gone; CHECK ends the program by name. */
static void *need(void *memory)
{
    CHECK(memory != NULL);
    return memory;
}

static char *copy(const char *text)
{
    return need(strdup(text ? text : ""));
}

#define NEW(type, init)                                                                            \
    ({                                                                                             \
        type *new_ = need(malloc(sizeof(type)));                                                   \
        init(new_);                                                                                \
        new_;                                                                                      \
    })
#define PUSH(array, n, item)                                                                       \
    do {                                                                                           \
        (array) = need(reallocarray((array), (n) + 1, sizeof(*(array))));                          \
        (array)[(n)++] = (item);                                                                   \
    } while (0)
/* Replaces a message's string. */
#define SET(field, text)                                                                           \
    do {                                                                                           \
        if ((field) != (const char *)protobuf_c_empty_string)                                      \
            free(field);                                                                           \
        (field) = copy(text);                                                                      \
    } while (0)

_printf_(3, 4) static bool within(struct westlight_job *job, bool ok, const char *format, ...)
{
    if (!ok && job->error[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(job->error, sizeof(job->error), format, arguments);
        va_end(arguments);
    }
    return ok;
}

static bool text_within(struct westlight_job *job, const char *what, const char *text, size_t max)
{
    size_t size = text ? strlen(text) : 0;
    return within(job, size <= max,
                  "%s \"%.40s...\" is %zu bytes: at most %zu are taken: shorten it", what,
                  text ? text : "", size, max);
}

static bool room(struct westlight_job *job, const char *what, size_t n, size_t max)
{
    return within(job, n < max, "%s: more than %zu: a job takes no more: split it", what, max);
}

/* ---- the job ---- */

struct westlight_job *westlight_job_new(const char *name)
{
    struct westlight_job *job = need(calloc(1, sizeof(*job)));
    wl__recipe__init(&job->recipe);
    job->note = copy("");
    job->person = copy("");
    if (within(job, name && *name, "job: no name: give it one") &&
        text_within(job, "the job's name", name, LIMIT_NAME_BYTES))
        SET(job->recipe.job_name, name);
    return job;
}

static void step_free(struct westlight_step *step)
{
    /* What was lent is not the messages' to free. */
    step->step.n_space = step->recipe->n_space = 0;
    step->step.space = step->recipe->space = NULL;
    free(step->parameters);
    space_deinit(&step->space);
    for (size_t i = 0; i < step->step.n_amounts; i++)
        wl__amount__free_unpacked(step->step.amounts[i], NULL);
    free(step->step.amounts);
    for (size_t i = 0; i < step->step.n_attributes; i++)
        wl__attribute__free_unpacked(step->step.attributes[i], NULL);
    free(step->step.attributes);
    free(step);
}

/* Frees what hangs on a message that lies in its owner; free_unpacked frees the message as well. */
static void recipe_free(const Wl__Recipe *recipe)
{
    Wl__Recipe *message = need(malloc(sizeof(*message)));
    *message = *recipe;
    wl__recipe__free_unpacked(message, NULL);
}

void westlight_job_free(struct westlight_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; i < job->n_steps; i++)
        step_free(job->steps[i]);
    free(job->steps);
    for (size_t i = 0; i < job->n_roots; i++) {
        for (size_t k = 0; k < job->roots[i].n_files; k++)
            free(job->roots[i].files[k]);
        free(job->roots[i].files);
        free(job->roots[i].folder);
    }
    free(job->roots);
    for (size_t i = 0; i < job->n_tags; i++)
        free(job->tags[i]);
    free(job->tags);
    free(job->note);
    free(job->person);
    recipe_free(&job->recipe);
    wipe(&job->again, sizeof(job->again));
    free(job);
}

void westlight_job_describe(struct westlight_job *job, const char *note, const char *person,
                            int32_t priority)
{
    if (!text_within(job, "the note", note, LIMIT_NOTE_BYTES) ||
        !text_within(job, "the person's name", person, LIMIT_NAME_BYTES))
        return;
    free(job->note);
    free(job->person);
    job->note = copy(note);
    job->person = copy(person);
    job->priority = priority;
}

void westlight_job_tag(struct westlight_job *job, const char *tag)
{
    if (room(job, "tags", job->n_tags, LIMIT_TAGS) &&
        text_within(job, "tag", tag, LIMIT_NAME_BYTES))
        PUSH(job->tags, job->n_tags, copy(tag));
}

void westlight_job_max_workers(struct westlight_job *job, uint32_t max_workers)
{
    if (within(job, max_workers <= LIMIT_LEASES, "limit of %u workers: at most %u are taken",
               max_workers, LIMIT_LEASES))
        job->max_workers = max_workers;
}

void westlight_job_parameter(struct westlight_job *job, const char *name, enum westlight_type type,
                             const char *value)
{
    if (!room(job, "parameters", job->recipe.n_parameters, LIMIT_PARAMETERS) ||
        !text_within(job, "a parameter's name", name, LIMIT_NAME_BYTES) ||
        !text_within(job, "a parameter's value", value, LIMIT_TEXT_BYTES))
        return;
    Wl__Parameter *parameter = NEW(Wl__Parameter, wl__parameter__init);
    parameter->name = copy(name);
    parameter->type = (uint32_t)type;
    parameter->value = copy(value);
    PUSH(job->recipe.parameters, job->recipe.n_parameters, parameter);
}

void westlight_job_variable(struct westlight_job *job, const char *name, const char *value)
{
    if (!room(job, "environment variables", job->recipe.n_variables, LIMIT_VARIABLES) ||
        !within(job, name && *name && !strchr(name, '='),
                "environment variable \"%s\": not a name: write NAME=VALUE", name ? name : "") ||
        !text_within(job, "a variable's name", name, LIMIT_NAME_BYTES) ||
        !text_within(job, "a variable's value", value, LIMIT_TEXT_BYTES))
        return;
    Wl__Variable *variable = NEW(Wl__Variable, wl__variable__init);
    variable->name = copy(name);
    variable->value = copy(value);
    PUSH(job->recipe.variables, job->recipe.n_variables, variable);
}

/* An absolute folder of this machine without a trailing slash; NULL where it is none. */
static char *folder_copy(struct westlight_job *job, const char *folder)
{
    _cleanup_(freep) char *path = copy(folder);
    size_t size = strlen(path);

    while (size > 1 && path[size - 1] == '/')
        path[--size] = '\0';
    if (!within(job, path[0] == '/', "folder \"%.200s\": not an absolute path: begin it with /",
                path) ||
        !text_within(job, "a folder's path", path, LIMIT_PATH_BYTES - 1) ||
        !within(job, size == 1 || manifest_path_ok(path + 1),
                "folder \"%.200s\": a path with empty parts or \"..\": write it plainly", path))
        return NULL;
    return TAKE_PTR(path);
}

uint32_t westlight_job_root(struct westlight_job *job, const char *folder, const char *const *files,
                            size_t n_files)
{
    uint32_t index = (uint32_t)job->n_roots;
    _cleanup_(freep) char *path = NULL;

    if (!room(job, "input folders", job->n_roots, LIMIT_ROOTS) ||
        !(path = folder_copy(job, folder)))
        return index;

    struct job_root root = {.folder = TAKE_PTR(path)};
    for (size_t i = 0; i < n_files; i++)
        if (within(job, manifest_path_ok(files[i]),
                   "input file \"%.200s\": not a relative path below %.200s", files[i],
                   root.folder))
            PUSH(root.files, root.n_files, copy(files[i]));
    PUSH(job->roots, job->n_roots, root);
    return index;
}

/* ---- a step ---- */

struct westlight_step *westlight_job_step(struct westlight_job *job, const char *name)
{
    struct westlight_step *step = need(calloc(1, sizeof(*step)));
    step->job = job;
    step->index = (uint32_t)job->n_steps;
    space_init(&step->space);
    wl__step__init(&step->step);
    step->recipe = NEW(Wl__StepRecipe, wl__step_recipe__init);
    if (within(job, name && *name, "step: no name: give it one") &&
        text_within(job, "a step's name", name, LIMIT_NAME_BYTES))
        SET(step->recipe->name, name);
    room(job, "steps", job->n_steps, LIMIT_STEPS);
    PUSH(job->recipe.steps, job->recipe.n_steps, step->recipe);
    PUSH(job->steps, job->n_steps, step);
    return step;
}

uint32_t westlight_step_index(const struct westlight_step *step)
{
    return step->index;
}

static void space_report(struct westlight_step *step, const char *name, int r)
{
    static const char *const reasons[] = {
        [SPACE_E_LIMIT] = "too many values, ranges or tasks: make fewer, or chunk them",
        [SPACE_E_LENGTH] = "lists of different lengths go together",
        [SPACE_E_NAME] = "no name, or one that is there already",
        [SPACE_E_RANGE] = "an empty or overlapping range",
    };
    CHECK(r != -ENOMEM);
    const char *reason =
        r > 0 && r < (int)ARRAY_SIZE(reasons) && reasons[r] ? reasons[r] : "not possible";
    within(step->job, r == 0, "step \"%.100s\", parameter \"%.100s\": %s", step->recipe->name, name,
           reason);
}

void westlight_step_ints(struct westlight_step *step, const char *name,
                         const struct westlight_range *ranges, size_t n_ranges, uint32_t chunk)
{
    if (!within(step->job, n_ranges > 0,
                "step \"%.100s\", parameter \"%.100s\": no values: give some", step->recipe->name,
                name))
        return;
    struct space_range *list = need(calloc(n_ranges, sizeof(*list)));
    for (size_t i = 0; i < n_ranges; i++) {
        int64_t first = ranges[i].first, last = ranges[i].last,
                stride = ranges[i].step ? ranges[i].step : 1;
        if (stride < 0 || last < first) {
            space_report(step, name, SPACE_E_RANGE);
            free(list);
            return;
        }
        uint64_t span = (uint64_t)last - (uint64_t)first;
        last = (int64_t)((uint64_t)first + span / (uint64_t)stride * (uint64_t)stride);
        list[i] = (struct space_range){first, last, stride};
    }
    space_report(step, name,
                 space_add_ints(&step->space, name, (uint32_t)step->space.n_parameters,
                                chunk ? chunk : 1, false, list, n_ranges));
    free(list);
}

void westlight_step_texts(struct westlight_step *step, const char *name, enum westlight_type type,
                          const char *const *texts, size_t n_texts)
{
    for (size_t i = 0; i < n_texts; i++)
        if (!text_within(step->job, "a parameter's value", texts[i], LIMIT_PATH_BYTES))
            return;
    space_report(step, name,
                 space_add_texts(&step->space, name, (uint32_t)step->space.n_parameters,
                                 (enum space_type)type, texts, n_texts));
}

void westlight_step_input(struct westlight_step *step, uint32_t root, const char *const *patterns,
                          size_t n_patterns)
{
    if (!room(step->job, "narrowed inputs", step->recipe->n_inputs, LIMIT_ROOTS) ||
        !within(step->job, root < step->job->n_roots && n_patterns <= LIMIT_PATTERNS,
                "step \"%.100s\": input %u: no such folder, or more than %d patterns",
                step->recipe->name, root, LIMIT_PATTERNS))
        return;
    Wl__RootUse *use = NEW(Wl__RootUse, wl__root_use__init);
    use->root = root;
    for (size_t i = 0; i < n_patterns; i++)
        if (text_within(step->job, "an input's pattern", patterns[i], LIMIT_PATH_BYTES))
            PUSH(use->patterns, use->n_patterns, copy(patterns[i]));
    PUSH(step->recipe->inputs, step->recipe->n_inputs, use);
}

void westlight_step_amount(struct westlight_step *step, const char *name, double min)
{
    if (!room(step->job, "amounts", step->step.n_amounts, LIMIT_AMOUNTS) ||
        !within(step->job, min >= 0 && min <= 1e15, "amount %.100s: not a number of things",
                name) ||
        !text_within(step->job, "an amount's name", name, LIMIT_NAME_BYTES))
        return;
    Wl__Amount *amount = NEW(Wl__Amount, wl__amount__init);
    amount->name = copy(name);
    amount->min = min;
    PUSH(step->step.amounts, step->step.n_amounts, amount);
}

void westlight_step_attribute(struct westlight_step *step, const char *name,
                              const char *const *any_of, size_t n_any_of)
{
    if (!room(step->job, "attributes", step->step.n_attributes, LIMIT_ATTRIBUTES) ||
        !within(step->job, n_any_of <= LIMIT_ATTRIBUTE_VALUES,
                "attribute %.100s: more than %d values", name, LIMIT_ATTRIBUTE_VALUES) ||
        !text_within(step->job, "an attribute's name", name, LIMIT_NAME_BYTES))
        return;
    Wl__Attribute *attribute = NEW(Wl__Attribute, wl__attribute__init);
    attribute->name = copy(name);
    for (size_t i = 0; i < n_any_of; i++)
        if (text_within(step->job, "an attribute's value", any_of[i], LIMIT_NAME_BYTES))
            PUSH(attribute->any_of, attribute->n_any_of, copy(any_of[i]));
    PUSH(step->step.attributes, step->step.n_attributes, attribute);
}

void westlight_step_depends(struct westlight_step *step, uint32_t on, uint32_t per)
{
    if (!room(step->job, "dependencies", step->recipe->n_dependencies, LIMIT_DEPENDENCIES) ||
        !within(step->job, on < step->index,
                "step \"%.100s\" waits for step %u: only for an earlier one", step->recipe->name,
                on))
        return;
    for (size_t i = 0; i < step->recipe->n_dependencies; i++) {
        Wl__Dependency *known = step->recipe->dependencies[i];

        if (known->step != on)
            continue;
        known->per = per ? known->per : 0; /* all of it holds for each frame too */
        return;
    }
    Wl__Dependency *dependency = NEW(Wl__Dependency, wl__dependency__init);
    dependency->step = on;
    dependency->per = per;
    PUSH(step->recipe->dependencies, step->recipe->n_dependencies, dependency);
}

void westlight_step_interim(struct westlight_step *step)
{
    step->step.interim = true;
}

void westlight_step_file(struct westlight_step *step, const char *name, const char *filename,
                         bool runnable, const char *text)
{
    if (!room(step->job, "embedded files", step->recipe->n_files, LIMIT_FILES_EMBEDDED) ||
        !text_within(step->job, "an embedded file's name", name, LIMIT_NAME_BYTES) ||
        !text_within(step->job, "an embedded file's text", text, LIMIT_TEXT_BYTES) ||
        !within(step->job, !filename || !strchr(filename, '/'),
                "embedded file \"%.100s\": a file name has no /", filename ? filename : ""))
        return;
    Wl__EmbeddedFile *file = NEW(Wl__EmbeddedFile, wl__embedded_file__init);
    file->name = copy(name);
    file->filename = copy(filename);
    file->runnable = runnable;
    file->data = copy(text);
    PUSH(step->recipe->files, step->recipe->n_files, file);
}

void westlight_step_run(struct westlight_step *step, const char *command,
                        const char *const *arguments, size_t n_arguments, uint32_t timeout_s)
{
    if (!within(step->job, n_arguments <= LIMIT_ARGUMENTS,
                "step \"%.100s\": more than %d arguments", step->recipe->name, LIMIT_ARGUMENTS) ||
        !within(step->job, timeout_s <= LIMIT_TASK_S, "timeout %u s: at most %d s are taken",
                timeout_s, LIMIT_TASK_S) ||
        !text_within(step->job, "the command", command, LIMIT_TEXT_BYTES))
        return;
    Wl__Action *action = NEW(Wl__Action, wl__action__init);
    action->command = copy(command);
    action->timeout_s = timeout_s;
    for (size_t i = 0; i < n_arguments; i++)
        if (text_within(step->job, "an argument", arguments[i], LIMIT_TEXT_BYTES))
            PUSH(action->arguments, action->n_arguments, copy(arguments[i]));
    if (step->recipe->on_run)
        wl__action__free_unpacked(step->recipe->on_run, NULL);
    step->recipe->on_run = action;
}

void westlight_step_output(struct westlight_step *step, const char *folder)
{
    _cleanup_(freep) char *path = NULL;
    if (!room(step->job, "output folders", step->recipe->n_outputs, LIMIT_OUTPUTS) ||
        !(path = folder_copy(step->job, folder)))
        return;
    Wl__Output *output = NEW(Wl__Output, wl__output__init);
    output->path = TAKE_PTR(path);
    PUSH(step->recipe->outputs, step->recipe->n_outputs, output);
}

void westlight_step_output_optional(struct westlight_step *step)
{
    step->recipe->output_optional = true;
}

void westlight_step_within(struct westlight_step *step, int64_t first, int64_t last)
{
    if (!step->recipe->within)
        step->recipe->within = NEW(Wl__Range, wl__range__init);
    step->recipe->within->first = first;
    step->recipe->within->last = last;
    step->recipe->within->step = 1;
}

void westlight_step_software(struct westlight_step *step, const char *software)
{
    if (text_within(step->job, "the software's name", software, LIMIT_NAME_BYTES))
        SET(step->recipe->software, software);
}

/* The attribute becomes the version; where the step does not ask for it, only if `always`. */
static void pin(struct westlight_step *step, const char *name, bool always, const char *version)
{
    Wl__Attribute *attribute = NULL;

    for (size_t i = 0; i < step->step.n_attributes && !attribute; i++)
        if (strcmp(step->step.attributes[i]->name, name) == 0)
            attribute = step->step.attributes[i];
    if (!attribute) {
        if (always)
            westlight_step_attribute(step, name, &version, 1);
        return;
    }
    for (size_t i = 0; i < attribute->n_any_of; i++)
        free(attribute->any_of[i]);
    attribute->n_any_of = 0;
    PUSH(attribute->any_of, attribute->n_any_of, copy(version));
}

void westlight_job_version(struct westlight_job *job, const char *software, const char *version)
{
    char name[2 * LIMIT_NAME_BYTES];

    if (!text_within(job, "the version", version, LIMIT_NAME_BYTES) ||
        !text_within(job, "the software's name", software, LIMIT_NAME_BYTES - 16))
        return;
    snprintf(name, sizeof(name), ATTRIBUTE_SOFTWARE "%s", software);
    for (size_t i = 0; i < job->n_steps; i++) {
        if (strcmp(job->steps[i]->recipe->software, software) != 0)
            continue;
        SET(job->steps[i]->recipe->version, version);
        pin(job->steps[i], name, true, version);
        if (strcmp(software, "blender") == 0)
            pin(job->steps[i], ATTRIBUTE_DENOISER, false, version);
    }
}

_Static_assert((int)WESTLIGHT_CHECK_WARN == CHECK_WARN && (int)WESTLIGHT_CHECK_OFF == CHECK_OFF &&
                   (int)WESTLIGHT_CHECK_FAIL == CHECK_FAIL &&
                   (int)WESTLIGHT_CHECK_BROKEN == CHECK_BROKEN,
               "a job says what the wire says");

void westlight_step_expect(struct westlight_step *step, enum westlight_check check, uint32_t width,
                           uint32_t height, uint32_t images_per_frame)
{
    if (!step->recipe->expect)
        step->recipe->expect = NEW(Wl__Expect, wl__expect__init);
    step->recipe->expect->check = (uint32_t)check;
    step->recipe->expect->width = width;
    step->recipe->expect->height = height;
    step->recipe->expect->images_per_frame = images_per_frame;
}

/* ---- the whole ---- */

static void check_step(struct westlight_job *job, struct westlight_step *step)
{
    space_report(step, "", space_seal(&step->space));
    within(job, step->recipe->on_run && step->recipe->on_run->command[0] != '\0',
           "step \"%.100s\" runs nothing: give it a command", step->recipe->name);
    for (size_t i = 0; i < step->recipe->n_dependencies && job->error[0] == '\0'; i++) {
        const Wl__Dependency *dependency = step->recipe->dependencies[i];
        const struct westlight_step *on = job->steps[dependency->step];
        within(job,
               dependency->per == 0 ||
                   space_size(&on->space) == dependency->per * space_size(&step->space),
               "step \"%.100s\" waits for %u of \"%.100s\" each, but they have %llu and %llu "
               "tasks: give both the same frames",
               step->recipe->name, dependency->per, on->recipe->name,
               (unsigned long long)space_size(&step->space),
               (unsigned long long)space_size(&on->space));
    }
}

static void lend_space(struct westlight_step *step)
{
    CHECK(wire_space_set(&step->space, &step->parameters, &step->n_parameters) == 0);
    step->recipe->space = step->step.space = step->parameters;
    step->recipe->n_space = step->step.n_space = step->n_parameters;
    step->step.name = step->recipe->name;
    step->step.dependencies = step->recipe->dependencies;
    step->step.n_dependencies = step->recipe->n_dependencies;
}

int job_compile(struct westlight_job *job)
{
    if (job->compiled)
        return 0;
    within(job, job->n_steps > 0, "job \"%.100s\" has no steps: add one", job->recipe.job_name);
    for (size_t i = 0; i < job->n_steps && job->error[0] == '\0'; i++)
        check_step(job, job->steps[i]);
    if (job->error[0])
        return WESTLIGHT_E_USAGE;
    for (size_t i = 0; i < job->n_steps; i++)
        lend_space(job->steps[i]);
    job->compiled = true;
    return 0;
}

void westlight_job_again(struct westlight_job *job, const struct westlight_submission *submission)
{
    job->again = *submission;
}

const char *westlight_job_name(const struct westlight_job *job)
{
    return job->recipe.job_name;
}

uint64_t westlight_job_tasks(const struct westlight_job *job, uint64_t *ret_frames)
{
    uint64_t tasks = 0, frames = 0;

    for (size_t i = 0; i < job->n_steps; i++) {
        const struct space *space = &job->steps[i]->space;
        tasks += space_size(space);
        if (!job->steps[i]->step.interim && space->n_parameters)
            frames += space->parameters[0].n_values;
    }
    *ret_frames = frames;
    return tasks;
}

int westlight_frames(const char *text, struct westlight_range **ret_ranges, size_t *ret_n,
                     size_t *ret_at, const char **ret_why)
{
    struct space_range *ranges = NULL;
    size_t n = 0;

    int r = space_parse_frames(text, &ranges, &n, ret_at, ret_why);
    if (r < 0)
        return r;
    if (r == SPACE_E_LIMIT && ret_why) {
        *ret_at = 0;
        *ret_why = "too many frames, or too many ranges";
    }
    if (r > 0)
        return WESTLIGHT_E_USAGE;

    struct westlight_range *list = calloc(n ? n : 1, sizeof(*list));
    if (!list) {
        free(ranges);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        list[i] = (struct westlight_range){ranges[i].first, ranges[i].last, ranges[i].step};
    free(ranges);
    *ret_ranges = list;
    *ret_n = n;
    return 0;
}

const char *westlight_version(void)
{
    return WESTLIGHT_VERSION;
}
