/* session.c - a stack of environments around one action.
 *
 * Two format stacks carry all state: `symbols` for {{...}} and `variables` for the programs'
 * environment. Entering pushes, leaving cuts back to the mark, so order takes care of scopes. The
 * first thing that goes wrong is the result; leaving goes on regardless.
 */
#include <worker/session.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <worker/outcome.h>
#include <worker/session_inner.h>
#include <worker/session_paths.h>

#define SESSION_EXIT_S         300 /* to leave one environment, if it does not say itself */
#define SESSION_EXIT_STOPPED_S 30  /* the same after a stop: the slot is wanted */
#define SESSION_NOTIFY_S_MAX   600 /* Open Job Description's maximum */
#define SESSION_PATH_DEFAULT   "/usr/local/bin:/usr/bin:/bin"
#define SESSION_RULES          "path_mapping.json"
#define SESSION_RULES_SYMBOL   "Session.PathMappingRulesFile"

enum action_kind { ACTION_ENTER, ACTION_RUN, ACTION_EXIT };

/* ---- failing ---- */

int session_fail(struct session *session, enum attempt_class class, const char *format, ...)
{
    char text[2 * LIMIT_MESSAGE_BYTES];
    va_list list;

    if (session->failed)
        return SESSION_FAILED;
    session->failed = true;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    capture_clean(text, strlen(text), session->result->message, sizeof(session->result->message));
    session->result->class = class;
    return SESSION_FAILED;
}

/* Whoever reads the file was told of it. */
static int rules_write(struct session *session)
{
    char path[PATH_MAX + 32];
    int r;

    if (session->rules)
        return 0;
    snprintf(path, sizeof(path), "%s/" SESSION_RULES, session->folder);
    r = session_paths_write(session->config->maps, session->config->n_maps, path);
    session->rules = r == 0;
    return r;
}

/* Turns format's refusals into the task's failure. */
static int session_resolve(struct session *session, const char *what, const char *text, char **ret_text)
{
    char why[FORMAT_WHY_BYTES] = "";
    int r = strstr(text, SESSION_RULES_SYMBOL) ? rules_write(session) : 0;

    if (r == 0)
        r = format_resolve(&session->symbols, text, ret_text, why);
    return r > 0 ? session_fail(session, CLASS_RENDERER, "%s: %s: correct the job and submit it again",
                                what, why)
                 : r;
}

int session_set(struct session *session, struct format *format, const char *prefix,
                       const char *name, const char *value)
{
    int r = format_set(format, prefix, name, value);

    return r == FORMAT_E_LIMIT
               ? session_fail(session, CLASS_RENDERER, "%s%s: a session has at most %d names: use fewer",
                              prefix, name, FORMAT_NAMES_MAX)
               : r;
}

/* ---- what the session knows ---- */

/* The value where it lies here, if it is a path under a root; else itself. */
static const char *session_mapped(const struct session *session, const char *value, char path[PATH_MAX])
{
    const struct session_config *config = session->config;

    return session_map_path(config->maps, config->n_maps, value, path, PATH_MAX) ? path : value;
}

static int set_parameter(struct session *session, const char *scope, const char *name, const char *value,
                         bool is_path)
{
    char prefix[64], path[PATH_MAX];
    int r;

    snprintf(prefix, sizeof(prefix), "%sRawParam.", scope);
    r = session_set(session, &session->symbols, prefix, name, value);
    if (r)
        return r;
    snprintf(prefix, sizeof(prefix), "%sParam.", scope);
    return session_set(session, &session->symbols, prefix, name,
                       is_path ? session_mapped(session, value, path) : value);
}

static int set_task_parameters(struct session *session, uint64_t *ret_frames)
{
    const struct session_config *config = session->config;
    uint64_t frames = 1;
    struct point point;
    int r = space_point(config->space, config->task, &point);

    if (r)
        return session_fail(session, CLASS_RENDERER, "step %s has no task %llu", session->step->name,
                            (unsigned long long)config->task);
    for (size_t i = 0; i < point.n_values; i++) {
        const struct space_value *value = &point.values[i];
        size_t size = space_value_text(config->space, value, NULL, 0);
        _cleanup_(freep) char *text = malloc(size + 1);

        if (!text)
            return -ENOMEM;
        space_value_text(config->space, value, text, size + 1);
        r = set_parameter(session, "Task.", value->name, text, value->type == SPACE_PATH);
        if (r)
            return r;
        if (value->chunked && value->value_count > frames)
            frames = value->value_count;
    }
    *ret_frames = frames;
    return 0;
}

static unsigned cores_here(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static int set_symbols(struct session *session)
{
    const struct session_config *config = session->config;
    char rules[PATH_MAX + 32], vcpus[16];
    int r = 0;

    snprintf(rules, sizeof(rules), "%s/" SESSION_RULES, session->folder);
    snprintf(vcpus, sizeof(vcpus), "%u", config->vcpus ? config->vcpus : cores_here());
    const char *const symbols[][2] = {
        {"Session.WorkingDirectory", session->folder},
        {"Session.HasPathMappingRules", config->n_maps ? "true" : "false"},
        {SESSION_RULES_SYMBOL, rules},
        {"Lease.VCPUs", vcpus},
    };

    for (size_t i = 0; !r && i < ARRAY_SIZE(symbols); i++)
        r = session_set(session, &session->symbols, "", symbols[i][0], symbols[i][1]);
    for (size_t i = 0; !r && i < config->recipe->n_parameters; i++) {
        const Wl__Parameter *parameter = config->recipe->parameters[i];

        r = set_parameter(session, "", parameter->name, parameter->value,
                          parameter->type == SPACE_PATH);
    }
    return r;
}

int session_variable(struct session *session, const char *name, const char *value)
{
    if (!*name || strchr(name, '='))
        return session_fail(session, CLASS_RENDERER, "\"%.100s\" cannot name a variable: use letters, "
                            "digits and _", name);
    return session_set(session, &session->variables, "", name, value);
}

static int set_variables(struct session *session)
{
    const struct session_config *config = session->config;
    const char *search = getenv("PATH");
    const char *driver = config->cards && *config->cards ? config->driver_folder : NULL;
    char tmp[PATH_MAX + 8], vcpus[16], path[PATH_MAX];
    int r = 0;

    snprintf(tmp, sizeof(tmp), "%s/tmp", session->folder);
    snprintf(vcpus, sizeof(vcpus), "%u", config->vcpus);
    const char *const variables[][2] = {
        {"PATH", search && *search ? search : SESSION_PATH_DEFAULT},
        {"HOME", session->folder},
        {"TMPDIR", tmp},
        {"LANG", "C.UTF-8"},
        {"OMP_NUM_THREADS", config->vcpus ? vcpus : NULL},
        {"LD_LIBRARY_PATH", driver && *driver ? driver : NULL},
    };

    for (size_t i = 0; !r && i < ARRAY_SIZE(variables); i++)
        r = session_variable(session, variables[i][0], variables[i][1]);
    if (!r)
        r = session_software(session);
    for (size_t i = 0; !r && i < config->recipe->n_variables; i++) {
        const Wl__Variable *variable = config->recipe->variables[i];

        r = session_variable(session, variable->name, session_mapped(session, variable->value, path));
    }
    return r;
}

/* ---- embedded files ---- */

static int file_path(struct session *session, const char *folder, const Wl__EmbeddedFile *file,
                     char path[PATH_MAX])
{
    const char *name = file->filename && *file->filename ? file->filename : file->name;

    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return session_fail(session, CLASS_RENDERER, "embedded file %s: \"%.100s\" is no file's name: "
                            "give it one without a folder", file->name, name);
    return 0;
}

static int file_make(struct session *session, const Wl__EmbeddedFile *file, const char *path)
{
    _cleanup_(freep) char *data = NULL;
    _cleanup_(closep) int fd = -1;
    char what[LIMIT_NAME_BYTES + 32];
    int r;

    snprintf(what, sizeof(what), "embedded file %.256s", file->name);
    r = session_resolve(session, what, file->data, &data);
    if (r)
        return r;
    /* Not synced: it is worth nothing after a crash. */
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, file->runnable ? 0700 : 0600) < 0)
        return -errno;
    return fd_write_all(fd, data, strlen(data));
}

/* Names them all first, so that one may refer to another. Files lie at the same place every time,
 * so that leaving an environment finds those of entering it. */
static int files_make(struct session *session, const char *prefix, const char *folder_name,
                      Wl__EmbeddedFile *const *files, size_t n, bool write)
{
    char folder[PATH_MAX], path[PATH_MAX];
    int r = 0;

    if (n == 0)
        return 0;
    if (snprintf(folder, sizeof(folder), "%s/files/%s", session->folder, folder_name) >= PATH_MAX)
        return -ENAMETOOLONG;
    r = folder_make(folder, 0700);
    for (size_t i = 0; !r && i < n; i++) {
        r = file_path(session, folder, files[i], path);
        if (!r)
            r = session_set(session, &session->symbols, prefix, files[i]->name, path);
    }
    for (size_t i = 0; !r && write && i < n; i++) {
        r = file_path(session, folder, files[i], path);
        if (!r)
            r = file_make(session, files[i], path);
    }
    return r;
}

/* ---- one action ---- */

static void on_output(void *user, const void *data, size_t size)
{
    struct session *session = user;

    capture_feed(session->capture, data, size);
    if (session->config->on_text)
        session->config->on_text(session->config->user, data, size);
}

static void on_started(void *user, bool over)
{
    struct session *session = user;

    if (session->config->on_started)
        session->config->on_started(session->config->user, over);
}

static void on_progress(void *user, uint32_t permille, const char *status)
{
    struct session *session = user;

    if (session->config->on_progress)
        session->config->on_progress(session->config->user, permille, status);
}

/* Only entering an environment changes what later actions see. */
static void on_variable(void *user, const char *name, const char *value)
{
    struct session *session = user;

    if (session->entering)
        session_variable(session, name, value);
}

static int make_arguments(struct session *session, const Wl__Action *action, char ***ret_arguments)
{
    _cleanup_(format_texts_freep) char **arguments = calloc(action->n_arguments + 2, sizeof(char *));
    char what[LIMIT_NAME_BYTES + 64];
    int r;

    if (!arguments)
        return -ENOMEM;
    r = session_resolve(session, "the command", action->command, &arguments[0]);
    if (!r)
        r = session_software_command(session, &arguments[0]);
    for (size_t i = 0; !r && i < action->n_arguments; i++) {
        snprintf(what, sizeof(what), "argument %zu of %.256s", i + 1, action->command);
        r = session_resolve(session, what, action->arguments[i], &arguments[i + 1]);
    }
    if (r)
        return r;

    *ret_arguments = TAKE_PTR(arguments);
    return 0;
}

/* The lease's cards are said last, so that nothing a job says reaches another task's card. They are
 * numbered as the driver's own tools number them, by bus. */
static int make_environment(struct session *session, char ***ret_environment)
{
    struct format *variables = &session->variables;
    const char *cards = session->config->cards;
    size_t mark = variables->n;
    int r = 0;

    if (cards)
        r = session_variable(session, "CUDA_VISIBLE_DEVICES", cards);
    if (cards && !r)
        r = session_variable(session, "CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    if (!r)
        r = session_software_path(session);
    if (!r)
        r = format_environment(variables, ret_environment);
    format_cut(variables, mark);
    return r;
}

static int64_t action_timeout_ns(const struct session *session, const Wl__Action *action,
                                 enum action_kind kind)
{
    const atomic_bool *stop = session->config->stop;
    int64_t s = action->timeout_s ? action->timeout_s : LIMIT_TASK_S;

    if (kind == ACTION_EXIT && !action->timeout_s)
        s = SESSION_EXIT_S;
    if (kind == ACTION_EXIT && stop && atomic_load(stop) && s > SESSION_EXIT_STOPPED_S)
        s = SESSION_EXIT_STOPPED_S;
    return (s < LIMIT_TASK_S ? s : LIMIT_TASK_S) * NS_PER_S;
}

static int action_run(struct session *session, const Wl__Action *action, const char *where,
                      enum action_kind kind)
{
    _cleanup_(format_texts_freep) char **arguments = NULL, **environment = NULL;
    int64_t notify_s = action->notify_period_s;
    struct spawn_config config = {
        .folder = session->folder, .memory_bytes = session->config->memory_bytes,
        .stop = kind == ACTION_EXIT ? NULL : session->config->stop,
        .keep = kind == ACTION_ENTER, .on_output = on_output, .user = session,
        .on_started = kind == ACTION_RUN ? on_started : NULL,
        .timeout_ns = action_timeout_ns(session, action, kind),
        .notify_ns = (notify_s < SESSION_NOTIFY_S_MAX ? notify_s : SESSION_NOTIFY_S_MAX) * NS_PER_S,
    };
    char message[LIMIT_MESSAGE_BYTES];
    enum attempt_class class;
    struct spawn_result result;
    int r = make_arguments(session, action, &arguments);

    if (!r)
        r = make_environment(session, &environment);
    if (r)
        return r;
    config.arguments = arguments;
    config.environment = environment;
    capture_begin(session->capture, kind == ACTION_RUN);
    session->entering = kind == ACTION_ENTER;
    r = spawn_run(session->group, &config, &result);
    capture_end(session->capture);
    session->entering = false;
    if (r)
        return r;
    if (kind != ACTION_EXIT)
        session->result->exit_status = result.exit_status;
    outcome_judge(&(struct outcome){.where = where, .config = &config, .result = &result,
                                    .findings = capture_findings(session->capture)},
                  &class, message);
    return class ? session_fail(session, class, "%s", message) : session->failed ? SESSION_FAILED : 0;
}

/* ---- environments ---- */

static int environment_files(struct session *session, const struct entered *entered, bool write)
{
    char folder[32];

    snprintf(folder, sizeof(folder), "env%zu", entered->number);
    return files_make(session, "Env.File.", folder, entered->environment->files,
                      entered->environment->n_files, write);
}

static int environment_action(struct session *session, const struct entered *entered,
                              enum action_kind kind)
{
    const Wl__Environment *environment = entered->environment;
    const Wl__Action *action = kind == ACTION_ENTER ? environment->on_enter : environment->on_exit;
    size_t symbols = session->symbols.n;
    char where[LIMIT_NAME_BYTES + 32];
    int r;

    if (!action)
        return 0;
    snprintf(where, sizeof(where), "environment %.256s: ", environment->name);
    r = environment_files(session, entered, kind == ACTION_ENTER);
    if (!r)
        r = action_run(session, action, where, kind);
    format_cut(&session->symbols, symbols);
    return r;
}

/* An environment counts as entered before its action has run: one that failed half way has
 * something to leave, too. */
static int environment_enter(struct session *session, const Wl__Environment *environment)
{
    struct entered *entered = &session->entered[session->n_entered];
    size_t symbols = session->symbols.n;
    int r = 0;

    CHECK(session->n_entered < ARRAY_SIZE(session->entered));
    *entered = (struct entered){environment, session->n_entered, session->variables.n};
    session->n_entered++;
    r = environment_files(session, entered, false);
    for (size_t i = 0; !r && i < environment->n_variables; i++) {
        const Wl__Variable *variable = environment->variables[i];
        _cleanup_(freep) char *value = NULL;

        r = session_resolve(session, variable->name, variable->value, &value);
        if (!r)
            r = session_variable(session, variable->name, value);
    }
    format_cut(&session->symbols, symbols);
    return r ? r : environment_action(session, entered, ACTION_ENTER);
}

static int environments_enter(struct session *session)
{
    const Wl__Recipe *recipe = session->config->recipe;
    const Wl__StepRecipe *step = session->step;
    int r = 0;

    if (recipe->n_environments > LIMIT_ENVIRONMENTS || step->n_environments > LIMIT_ENVIRONMENTS)
        return session_fail(session, CLASS_RENDERER, "step %s: more than %d environments: use fewer",
                            step->name, LIMIT_ENVIRONMENTS);
    for (size_t i = 0; !r && i < recipe->n_environments; i++)
        r = environment_enter(session, recipe->environments[i]);
    for (size_t i = 0; !r && i < step->n_environments; i++)
        r = environment_enter(session, step->environments[i]);
    return r;
}

/* What the task made stands, even where tidying up after it failed: the log says so. */
static void environments_leave(struct session *session)
{
    while (session->n_entered > 0) {
        const struct entered *entered = &session->entered[--session->n_entered];
        bool failed = session->failed;

        if (environment_action(session, entered, ACTION_EXIT) && !failed) {
            char note[LIMIT_MESSAGE_BYTES + 32];
            int size = snprintf(note, sizeof(note), "westlight: %s\n", session->result->message);

            capture_feed(session->capture, note, (size_t)size);
            session->failed = false;
            session->result->class = CLASS_OK;
            session->result->message[0] = 0;
        }
        format_cut(&session->variables, entered->variables);
    }
}

/* ---- the whole ---- */

static int task_run(struct session *session)
{
    const Wl__StepRecipe *step = session->step;
    int r;

    if (!step->on_run)
        return session_fail(session, CLASS_RENDERER, "step %s has no action: correct the job", step->name);
    r = files_make(session, "Task.File.", "task", step->files, step->n_files, true);
    return r ? r : action_run(session, step->on_run, "", ACTION_RUN);
}

static int session_go(struct session *session)
{
    struct capture_config capture = {.software = session->step->software, .on_progress = on_progress,
                                     .on_variable = on_variable, .user = session};
    size_t symbols;
    int r = set_symbols(session);

    if (!r)
        r = set_variables(session);
    symbols = session->symbols.n;
    if (!r)
        r = set_task_parameters(session, &capture.frames);
    if (!r)
        r = capture_new(&capture, &session->capture);
    if (!r && session->config->on_ready)
        r = session->refused = session->config->on_ready(session->config->user);
    session->began_ns = clock_monotonic_ns();
    if (!r)
        r = spawn_group_new(&session->group);
    if (r)
        return r;

    r = environments_enter(session);
    if (!r)
        r = task_run(session);
    format_cut(&session->symbols, symbols);
    environments_leave(session);
    return r;
}

static void session_deinit(struct session *session)
{
    spawn_group_free(session->group);
    capture_free(session->capture);
    format_deinit(&session->symbols);
    format_deinit(&session->variables);
}

static int session_end(struct session *session, int r)
{
    struct session_result *result = session->result;
    struct spawn_usage usage = {0};

    if (session->group)
        spawn_group_end(session->group, &usage);
    if (session->group && session->config->on_ended)
        session->config->on_ended(session->config->user);
    result->cpu_ns = usage.cpu_ns;
    result->memory_bytes = usage.memory_bytes;
    if (r >= 0 && session->capture)
        r = capture_log(session->capture, &result->log);
    return r < 0 ? r : 0;
}

int session_run(const struct session_config *config, struct session_result *ret_result)
{
    struct session_result result = {.class = CLASS_OK};
    struct session session = {.config = config, .result = &result, .began_ns = clock_monotonic_ns()};
    int r;

    if (config->step >= config->recipe->n_steps)
        return -EINVAL;
    session.step = config->recipe->steps[config->step];
    if ((size_t)snprintf(session.folder, sizeof(session.folder), "%s", config->folder) >=
        sizeof(session.folder))
        return -ENAMETOOLONG;
    r = session_end(&session, session_go(&session));
    session_deinit(&session);
    r = session.refused ? session.refused : r;
    result.wall_ns = (uint64_t)(clock_monotonic_ns() - session.began_ns);
    if (r) {
        session_result_deinit(&result);
        return r;
    }

    *ret_result = result;
    return 0;
}

void session_result_deinit(struct session_result *result)
{
    bytes_deinit(&result->log);
}
