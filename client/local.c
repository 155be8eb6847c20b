/* local.c - the embedded default: a broker and workers of our own on this machine.
 *
 * Everything is a child of this process and dies with it (parent-death signal); nothing listens on
 * a well-known port; keys are made on first use and never leave the folder.
 */
#include <client/local.h>

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/seal.h>

#define LOCAL_FARMS_MAX   16 /* commands at once on one machine */
#define LOCAL_WORKERS_MAX 64
#define READY_MS          20000

struct local {
    char folder[3072];
    char run[65];
    int lock;
    pid_t broker;
    pid_t workers[LOCAL_WORKERS_MAX];
    unsigned n_workers;
    struct westlight_farm farm;
};

static int base_folder(char *path, size_t size)
{
    const char *own = getenv("WESTLIGHT_LOCAL"), *state = getenv("XDG_STATE_HOME"),
               *home = getenv("HOME");
    int n;

    if (own && *own)
        n = snprintf(path, size, "%s", own);
    else if (state && *state)
        n = snprintf(path, size, "%s/westlight/local", state);
    else if (home && *home)
        n = snprintf(path, size, "%s/.local/state/westlight/local", home);
    else
        return -ENOENT;
    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

bool local_config_path(const char *name, char *ret_path, size_t size)
{
    char base[2048];
    long number = 1;

    if (strncmp(name, "local", 5) != 0 ||
        (name[5] && (name[5] != '-' || !options_number(name + 6, 1, LOCAL_FARMS_MAX, &number))))
        return false;
    return base_folder(base, sizeof(base)) == 0 &&
           (size_t)snprintf(ret_path, size, "%s/%ld/config", base, number) < size;
}

/* ---- which folder: the one that made this run before, else the first that is free ---- */

static int folder_lock(const char *folder)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/lock", folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    return fd;
}

static int folder_choose(struct local *local)
{
    char base[2048], run[PATH_MAX];
    int r = base_folder(base, sizeof(base));

    if (r < 0) {
        complain("--local: there is no home folder for its state: set XDG_STATE_HOME or "
                 "WESTLIGHT_LOCAL");
        return EXIT_UNREACHABLE;
    }
    for (int pass = 0; pass < 2; pass++)
        for (int i = 1; i <= LOCAL_FARMS_MAX; i++) {
            snprintf(local->folder, sizeof(local->folder), "%s/%d", base, i);
            snprintf(run, sizeof(run), "%s/runs/%s", local->folder, local->run);
            if (pass == 0 && access(run, F_OK) < 0)
                continue;
            snprintf(run, sizeof(run), "%s/runs", local->folder);
            if ((r = folder_make(run, 0700)) < 0) {
                complain("--local: %s: %s: set WESTLIGHT_LOCAL to a folder you may write", run,
                         strerror(-r));
                return EXIT_UNREACHABLE;
            }
            if ((local->lock = folder_lock(local->folder)) >= 0)
                return 0;
            if (pass == 0) {
                complain("--local: this command is running already, in %s: wait for it, or end it",
                         local->folder);
                return EXIT_UNREACHABLE;
            }
        }
    complain("--local: %d private farms run already: wait for one to end", LOCAL_FARMS_MAX);
    return EXIT_UNREACHABLE;
}

/* ---- processes ---- */

/* Beside this program, in the build tree, or in $PATH. */
static void program_find(const char *name, const char *build_folder, char *ret_path, size_t size)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n > 0) {
        self[n] = 0;
        slash = strrchr(self, '/');
        *slash = 0;
        snprintf(ret_path, size, "%s/%s", self, name);
        if (access(ret_path, X_OK) == 0)
            return;
        snprintf(ret_path, size, "%s/../%s/%s", self, build_folder, name);
        if (access(ret_path, X_OK) == 0)
            return;
    }
    snprintf(ret_path, size, "%s", name);
}

static pid_t process_start(char *const *argv, const char *log_path, int keep_fd)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;

    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    setpgid(0, 0); /* Ctrl-C is the command's, not theirs */
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    if (keep_fd >= 0)
        fcntl(keep_fd, F_SETFD, 0);
    execvp(argv[0], argv);
    _exit(127);
}

static int process_run(char *const *argv, const char *log_path)
{
    int status = 0;
    pid_t pid = process_start(argv, log_path, -1);

    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

/* allow registers keys only where a broker's state is. */
static int state_make(const struct local *local)
{
    char broker[PATH_MAX], state[3200], key[3300], log[3200];
    char *argv[] = {broker, (char[]){"key"}, (char[]){"--state"}, state, NULL};

    program_find("westlight-broker", "broker", broker, sizeof(broker));
    snprintf(state, sizeof(state), "%s/broker", local->folder);
    snprintf(log, sizeof(log), "%s/broker.log", local->folder);
    snprintf(key, sizeof(key), "%s/broker.key", state);
    if (access(key, F_OK) == 0 || process_run(argv, log) == 0)
        return 0;
    complain("--local: %s could not make its state: see %s", broker, log);
    return EXIT_UNREACHABLE;
}

/* The key gets its name once the broker knows it: a command that was killed before makes another.
 */
static int key_allow(const struct local *local, const char *name, const char *role)
{
    bool worker = strcmp(role, "worker") == 0;
    char broker[PATH_MAX], key[3200], fresh[3200], secret[3200], state[3200], log[3200],
        public_key[WESTLIGHT_KEY_TEXT], why[512] = "";
    char *argv[] = {broker,
                    (char[]){"allow"},
                    (char[]){"--state"},
                    state,
                    (char[]){"--name"},
                    (char *)(uintptr_t)name,
                    (char[]){"--role"},
                    (char *)(uintptr_t)role,
                    worker ? (char[]){"--"} : (char[]){"--studio=local"},
                    worker ? public_key : (char[]){"--"},
                    worker ? NULL : public_key,
                    NULL};

    program_find("westlight-broker", "broker", broker, sizeof(broker));
    snprintf(key, sizeof(key), "%s/%s.key", local->folder, name);
    snprintf(fresh, sizeof(fresh), "%s/%s.key.new", local->folder, name);
    snprintf(secret, sizeof(secret), "%s/secret", local->folder);
    snprintf(state, sizeof(state), "%s/broker", local->folder);
    snprintf(log, sizeof(log), "%s/broker.log", local->folder);
    if (access(key, F_OK) == 0)
        return 0;
    unlink(fresh);
    if (westlight_key_new(fresh, worker ? NULL : secret, public_key, why, sizeof(why))) {
        complain("--local: %s", why);
        return EXIT_UNREACHABLE;
    }
    if (process_run(argv, log)) {
        complain("--local: %s could not register a key: see %s", broker, log);
        return EXIT_UNREACHABLE;
    }
    if (rename(fresh, key) < 0) {
        complain("--local: %s: %s: check the disk", key, strerror(errno));
        return EXIT_UNREACHABLE;
    }
    return 0;
}

static int ready_read(int fd, char *text, size_t size)
{
    int64_t deadline_ns = clock_monotonic_ns() + READY_MS * NS_PER_MS;
    size_t used = 0;

    while (used + 1 < size) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left_ns = deadline_ns - clock_monotonic_ns();
        ssize_t n;

        if (left_ns <= 0 || poll(&wait, 1, (int)(left_ns / NS_PER_MS) + 1) <= 0)
            return -ETIMEDOUT;
        n = read(fd, text + used, size - 1 - used);
        if (n <= 0)
            return -EPIPE;
        used += (size_t)n;
        text[used] = 0;
        if (strchr(text, '\n'))
            return 0;
    }
    return -EMSGSIZE;
}

static bool word_take(const char *text, const char *name, char *ret_value, size_t size)
{
    const char *at = strstr(text, name);
    size_t length;

    if (!at)
        return false;
    at += strlen(name);
    length = strcspn(at, " \n");
    if (length >= size)
        return false;
    memcpy(ret_value, at, length);
    ret_value[length] = 0;
    return true;
}

static int broker_start(struct local *local)
{
    char broker[PATH_MAX], state[3200], log[3200], number[16], text[1024] = "";
    char *argv[] = {broker,
                    (char[]){"run"},
                    (char[]){"--state"},
                    state,
                    (char[]){"--control"},
                    (char[]){"tcp://127.0.0.1:*"},
                    (char[]){"--bulk"},
                    (char[]){"tcp://127.0.0.1:*"},
                    (char[]){"--ready-fd"},
                    number,
                    NULL};
    struct westlight_farm *farm = &local->farm;
    int ready[2], r;

    program_find("westlight-broker", "broker", broker, sizeof(broker));
    snprintf(state, sizeof(state), "%s/broker", local->folder);
    snprintf(log, sizeof(log), "%s/broker.log", local->folder);
    if (pipe2(ready, O_CLOEXEC) < 0)
        return EXIT_UNREACHABLE;
    snprintf(number, sizeof(number), "%d", ready[1]);
    local->broker = process_start(argv, log, ready[1]);
    close(ready[1]);
    r = local->broker < 0 ? -errno : ready_read(ready[0], text, sizeof(text));
    close(ready[0]);
    if (r < 0 || !word_take(text, "control=", farm->control, sizeof(farm->control)) ||
        !word_take(text, "bulk=", farm->bulk, sizeof(farm->bulk)) ||
        !word_take(text, "key=", farm->server_key, sizeof(farm->server_key))) {
        complain("--local: %s did not start: see %s", broker, log);
        return EXIT_UNREACHABLE;
    }

    snprintf(farm->name, sizeof(farm->name), "local");
    snprintf(farm->key_file, sizeof(farm->key_file), "%.1000s/me.key", local->folder);
    snprintf(farm->secret_file, sizeof(farm->secret_file), "%.1000s/secret", local->folder);
    return 0;
}

static int worker_start(struct local *local, unsigned i, unsigned slots)
{
    char worker[PATH_MAX], key[3200], state[3200], log[3200], name[32], slots_text[16], cores[24];
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN) / (long)local->n_workers;
    char *argv[] = {worker,
                    (char[]){"--broker"},
                    local->farm.control,
                    (char[]){"--bulk"},
                    local->farm.bulk,
                    (char[]){"--server-key"},
                    local->farm.server_key,
                    (char[]){"--key"},
                    key,
                    (char[]){"--state"},
                    state,
                    (char[]){"--name"},
                    name,
                    (char[]){"--cores"},
                    cores,
                    (char[]){"--slots"},
                    slots_text,
                    NULL};

    program_find("westlight-worker", "worker", worker, sizeof(worker));
    snprintf(name, sizeof(name), "worker-%u", i + 1);
    snprintf(key, sizeof(key), "%s/%s.key", local->folder, name);
    snprintf(state, sizeof(state), "%s/%s", local->folder, name);
    snprintf(log, sizeof(log), "%s/%s.log", local->folder, name);
    snprintf(cores, sizeof(cores), "%ld", n_cores < 1 ? 1 : n_cores);
    snprintf(slots_text, sizeof(slots_text), "%u", slots);
    if (!slots)
        argv[15] = NULL;
    local->workers[i] = process_start(argv, log, -1);
    if (local->workers[i] < 0) {
        complain("--local: a worker could not be started: %s", strerror(errno));
        return EXIT_UNREACHABLE;
    }
    return 0;
}

/* So that `westlight --farm local show` finds it while it runs. */
static void config_write(const struct local *local)
{
    const struct westlight_farm *farm = &local->farm;
    char path[3200], text[8192];
    int n =
        snprintf(text, sizeof(text),
                 "[farm local]\ncontrol = %s\nbulk = %s\nserver_key = %s\nkey = %s\nsecret = %s\n",
                 farm->control, farm->bulk, farm->server_key, farm->key_file, farm->secret_file);

    snprintf(path, sizeof(path), "%s/config", local->folder);
    if (file_write(path, text, (size_t)n, 0600) < 0)
        complain("--local: %s cannot be written; the farm runs all the same", path);
}

int local_start(unsigned workers, const char *run, struct local **ret_local)
{
    struct local *local = calloc(1, sizeof(*local));
    int r;

    if (!local)
        abort();
    local->lock = -1;
    snprintf(local->run, sizeof(local->run), "%s", run);
    if ((r = folder_choose(local)))
        goto fail;

    local->n_workers = workers ? workers : 1;
    r = state_make(local);
    if (r == 0)
        r = key_allow(local, "me", "operator");
    for (unsigned i = 0; r == 0 && i < local->n_workers; i++) {
        char name[32];

        snprintf(name, sizeof(name), "worker-%u", i + 1);
        r = key_allow(local, name, "worker");
    }
    if (r == 0)
        r = broker_start(local);
    if (r)
        goto fail;

    config_write(local);
    *ret_local = local;
    return 0;
fail:
    local_stop(local);
    return r;
}

int local_workers(struct local *local, unsigned slots)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < local->n_workers; i++)
        r = worker_start(local, i, slots);
    return r;
}

static void process_stop(pid_t pid, int64_t deadline_ns)
{
    if (pid <= 0)
        return;
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        struct timespec pause = {.tv_nsec = 10 * NS_PER_MS};

        if (clock_monotonic_ns() > deadline_ns) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            return;
        }
        nanosleep(&pause, NULL);
    }
}

void local_stop(struct local *local)
{
    int64_t deadline_ns = clock_monotonic_ns() + 8 * NS_PER_S;

    if (!local)
        return;
    for (unsigned i = 0; i < local->n_workers; i++)
        if (local->workers[i] > 0)
            kill(local->workers[i], SIGTERM);
    for (unsigned i = 0; i < local->n_workers; i++)
        process_stop(local->workers[i], deadline_ns);
    if (local->broker > 0)
        kill(local->broker, SIGTERM);
    process_stop(local->broker, deadline_ns);
    if (local->lock >= 0)
        close(local->lock);
    free(local);
}

const struct westlight_farm *local_farm(const struct local *local)
{
    return &local->farm;
}

const char *local_folder(const struct local *local)
{
    return local->folder;
}

pid_t local_broker(const struct local *local)
{
    return local->broker;
}

bool local_alive(struct local *local)
{
    if (waitpid(local->broker, NULL, WNOHANG) == local->broker) {
        local->broker = 0;
        complain("--local: the broker ended by itself: see %s/broker.log", local->folder);
        return false;
    }
    for (unsigned i = 0; i < local->n_workers; i++)
        if (local->workers[i] > 0 &&
            waitpid(local->workers[i], NULL, WNOHANG) == local->workers[i]) {
            local->workers[i] = 0;
            complain("--local: worker %u ended by itself: see %s/worker-%u.log", i + 1,
                     local->folder, i + 1);
            return false;
        }
    return true;
}

/* ---- which command made which job ---- */

static void run_path(const struct local *local, char *path, size_t size)
{
    snprintf(path, size, "%s/runs/%s", local->folder, local->run);
}

bool local_run_job(const struct local *local, char ret_id[WESTLIGHT_ID_TEXT])
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char path[PATH_MAX];

    run_path(local, path, sizeof(path));
    if (file_read(path, 64, &text) < 0 || text.size < WESTLIGHT_ID_TEXT - 1)
        return false;
    memcpy(ret_id, text.data, WESTLIGHT_ID_TEXT - 1);
    ret_id[WESTLIGHT_ID_TEXT - 1] = 0;
    return true;
}

void local_run_remember(const struct local *local, const char *id)
{
    char path[PATH_MAX];

    run_path(local, path, sizeof(path));
    if (file_write(path, id, strlen(id), 0600) < 0)
        complain("--local: %s cannot be written; the same command will start anew", path);
}

void local_run_forget(const struct local *local)
{
    char path[PATH_MAX];

    run_path(local, path, sizeof(path));
    unlink(path);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void folder_describe(const char *folder, const char *out, struct bytes *text)
{
    char *paths[] = {(char *)(uintptr_t)folder, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    FTSENT *entry;

    while (tree && (entry = fts_read(tree))) {
        const struct stat *status = entry->fts_statp;

        if (entry->fts_level > 0 &&
            (entry->fts_name[0] == '.' || strcmp(entry->fts_path, out) == 0))
            fts_set(tree, entry, FTS_SKIP);
        else if (entry->fts_info == FTS_F)
            bytes_printf(text, "%s %lld %lld.%ld\n", entry->fts_path, (long long)status->st_size,
                         (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec);
    }
    if (tree)
        fts_close(tree);
}

void local_run_name(const struct options *options, const char *out, char ret_run[65])
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char scene[PATH_MAX] = "", *slash;
    const char *pattern = options->out ? strrchr(options->out, '/') : NULL;
    struct block_id name;
    struct stat status;

    if (!realpath(options->scene, scene))
        scene[0] = 0;
    bytes_printf(&text, "%s|%s|%s|%s|%u|%ux%u|%s|%s\n", scene, out,
                 pattern        ? pattern + 1
                 : options->out ? options->out
                                : "",
                 options->frames_text ? options->frames_text : "", options->chunk, options->width,
                 options->height, options->preset ? options->preset : "",
                 options->name ? options->name : "");
    if (options->columns)
        bytes_printf(&text, "t %ux%u\n", options->columns, options->rows);
    bytes_printf(&text, "s %s=%s\n", options->software, options->version ? options->version : "");
    for (size_t i = 0; i < options->n_params; i++)
        bytes_printf(&text, "p %s=%s\n", options->params[i].name, options->params[i].value);
    for (size_t i = 0; i < options->n_env; i++)
        bytes_printf(&text, "e %s=%s\n", options->env[i].name, options->env[i].value);
    for (size_t i = 0; i < options->n_assets; i++)
        bytes_printf(&text, "a %s\n", options->assets[i]);
    for (size_t i = 0; i < options->n_exclude; i++)
        bytes_printf(&text, "x %s\n", options->exclude[i]);
    for (size_t i = 0; i < options->n_narrow; i++)
        bytes_printf(&text, "n %s\n", options->narrow[i]);
    if (stat(scene, &status) == 0 && !S_ISDIR(status.st_mode) && (slash = strrchr(scene, '/')) &&
        slash != scene)
        *slash = 0;
    folder_describe(scene, out, &text);
    digest(text.data, text.size, &name);
    hex_encode(name.bytes, sizeof(name.bytes), ret_run);
}
