/* private.c - see private.h. */
#include <tests/load/private.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/identity.h>
#include <tests/load/engine.h>

#define READY_MS  60000
#define LOG_BYTES (256u << 20)

/* Beside this program in the build tree, or in $PATH. */
static void program_find(char path[1100])
{
    const char *given = getenv("WESTLIGHT_BROKER");
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    snprintf(path, 1100, "%s", given ? given : "westlight-broker");
    if (given || n <= 0)
        return;
    self[n] = 0;
    slash = strrchr(self, '/');
    for (const char *up = "../../"; *up; up += 3) {
        snprintf(path, 1100, "%.*s/%sbroker/westlight-broker", (int)(slash - self), self, up);
        if (access(path, X_OK) == 0)
            return;
    }
    snprintf(path, 1100, "westlight-broker");
}

static pid_t start(const struct private_broker *broker, char *const *argv, int keep_fd)
{
    pid_t parent = getpid(), pid = fork();
    char log[160];

    if (pid != 0)
        return pid;
    snprintf(log, sizeof(log), "%s/broker.log", broker->folder);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(out, 1);
    dup2(out, 2);
    if (keep_fd >= 0)
        fcntl(keep_fd, F_SETFD, 0);
    execvp(argv[0], argv);
    _exit(127);
}

/* The log's last lines: the folder goes. */
static int failed(const struct private_broker *broker, const char *what)
{
    _cleanup_(bytes_deinit) struct bytes log = {0};
    char path[160];

    snprintf(path, sizeof(path), "%s/broker.log", broker->folder);
    fprintf(stderr, "westlight-broker %s failed\n", what);
    if (file_read(path, LOG_BYTES, &log) == 0)
        fprintf(stderr, "%.*s", (int)(log.size > 4000 ? 4000 : log.size),
                (const char *)log.data + (log.size > 4000 ? log.size - 4000 : 0));
    return 1;
}

static int run(const struct private_broker *broker, char *const *argv)
{
    int status = 0;
    pid_t pid = start(broker, argv, -1);

    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : failed(broker, argv[1]);
}

static int keys_write(const struct private_broker *broker, const uint8_t master[32], uint32_t first,
                      uint32_t n, char path[160])
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct link_keypair keys;
    char key[IDENTITY_Z85_SIZE];
    int r = 0;

    for (uint32_t i = first; r == 0 && i < first + n; i++) {
        r = load_keys(master, i, &keys);
        identity_key_text(&keys.public_key, key);
        if (r == 0)
            r = bytes_printf(&text, "%s load-%05u\n", key, i);
    }
    snprintf(path, 160, "%s/keys", broker->folder);
    return r == 0 ? file_write(path, text.data, text.size, 0600) : r;
}

static int allow(const struct private_broker *broker, const uint8_t master[32], uint32_t first,
                 uint32_t n, const char *role)
{
    bool studio = strcmp(role, "studio") == 0;
    char program[1100], state[160], keys[160], role_text[16];
    char *argv[] = {program,
                    (char[]){"allow"},
                    (char[]){"--state"},
                    state,
                    (char[]){"--role"},
                    role_text,
                    (char[]){"--from"},
                    keys,
                    studio ? (char[]){"--studio=load"} : NULL,
                    NULL};
    int r = keys_write(broker, master, first, n, keys);

    program_find(program);
    snprintf(role_text, sizeof(role_text), "%s", role);
    snprintf(state, sizeof(state), "%s/state", broker->folder);
    return r == 0 ? run(broker, argv) : r;
}

static int ready_read(struct private_broker *broker, int fd)
{
    char text[1024] = "", key[64];
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    size_t used = 0;

    while (!strchr(text, '\n')) {
        ssize_t n =
            poll(&wait, 1, READY_MS) == 1 ? read(fd, text + used, sizeof(text) - 1 - used) : 0;

        if (n <= 0)
            return failed(broker, "run");
        used += (size_t)n;
        text[used] = 0;
    }
    if (sscanf(text, "ready control=%127s bulk=%*s key=%63s", broker->endpoint, key) != 2 ||
        identity_key_parse(key, &broker->server) != 0)
        return failed(broker, "run");
    return 0;
}

static int launch(struct private_broker *broker)
{
    char program[1100], state[160], control[128], number[16];
    char *argv[] = {program,
                    (char[]){"run"},
                    (char[]){"--state"},
                    state,
                    (char[]){"--control"},
                    control,
                    (char[]){"--bulk"},
                    (char[]){"tcp://127.0.0.1:*"},
                    (char[]){"--log"},
                    (char[]){"info"},
                    (char[]){"--messages"}, /* one key stands for many people */
                    (char[]){"100000000"},
                    (char[]){"--ready-fd"},
                    number,
                    NULL};
    int ready[2], r;

    program_find(program);
    snprintf(state, sizeof(state), "%s/state", broker->folder);
    snprintf(control, sizeof(control), "%s",
             broker->endpoint[0] ? broker->endpoint : "tcp://127.0.0.1:*");
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    snprintf(number, sizeof(number), "%d", ready[1]);
    broker->pid = start(broker, argv, ready[1]);
    close(ready[1]);
    r = broker->pid < 0 ? -errno : ready_read(broker, ready[0]);
    close(ready[0]);
    return r;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int signal _unused_)
{
    interrupted = 1;
}

bool private_interrupted(void)
{
    return interrupted;
}

int private_start(struct private_broker *broker, const uint8_t master[32], uint32_t workers)
{
    const char *where = getenv("TMPDIR");
    char program[1100], state[160];
    char *argv[] = {program, (char[]){"key"}, (char[]){"--state"}, state, NULL};
    int r;

    *broker = (struct private_broker){0};
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    snprintf(broker->folder, sizeof(broker->folder), "%s/westlight-load-XXXXXX",
             where && *where ? where : "/tmp");
    if (!mkdtemp(broker->folder))
        return -errno;
    program_find(program);
    snprintf(state, sizeof(state), "%s/state", broker->folder);
    r = run(broker, argv);
    if (r == 0)
        r = allow(broker, master, 0, workers, "worker");
    if (r == 0)
        r = allow(broker, master, workers, 1, "studio");
    if (r == 0)
        r = launch(broker);
    if (r != 0)
        private_stop(broker);
    return r;
}

int private_kill(struct private_broker *broker)
{
    broker->cpu_before_ns = private_cpu_ns(broker);
    if (broker->pid <= 0 || kill(broker->pid, SIGKILL) < 0 || waitpid(broker->pid, NULL, 0) < 0)
        return -errno;
    broker->pid = 0;
    return 0;
}

int private_again(struct private_broker *broker)
{
    return launch(broker);
}

bool private_alive(struct private_broker *broker)
{
    int status;

    if (broker->pid <= 0 || waitpid(broker->pid, &status, WNOHANG) == 0)
        return true;
    broker->pid = 0;
    (void)failed(broker, "run");
    return false;
}

int private_end(struct private_broker *broker, uint64_t *ret_batches)
{
    _cleanup_(bytes_deinit) struct bytes log = {0};
    char path[160];
    unsigned long long batches;
    const char *ended;
    int r;

    broker->cpu_before_ns = private_cpu_ns(broker);
    if (broker->pid <= 0 || kill(broker->pid, SIGTERM) < 0 || waitpid(broker->pid, NULL, 0) < 0)
        return -errno;
    broker->pid = 0;
    snprintf(path, sizeof(path), "%s/broker.log", broker->folder);
    r = file_read(path, LOG_BYTES, &log);
    if (r < 0)
        return r;
    ended = strstr((const char *)log.data, " ended batches=");
    if (!ended || sscanf(ended, " ended batches=%llu", &batches) != 1)
        return failed(broker, "run");
    *ret_batches = batches;
    return 0;
}

void private_stop(struct private_broker *broker)
{
    if (broker->pid > 0)
        (void)private_kill(broker);
    if (broker->folder[0] && !getenv("WESTLIGHT_KEEP"))
        (void)folder_remove(broker->folder);
}

int64_t private_cpu_ns(const struct private_broker *broker)
{
    struct timespec spent = {0};
    clockid_t clock;

    if (broker->pid > 0 && clock_getcpuclockid(broker->pid, &clock) == 0)
        (void)clock_gettime(clock, &spent);
    return broker->cpu_before_ns + (int64_t)spent.tv_sec * NS_PER_S + spent.tv_nsec;
}

int64_t private_rss_bytes(const struct private_broker *broker)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char path[64];
    long long size, resident;

    snprintf(path, sizeof(path), "/proc/%ld/statm", (long)broker->pid);
    if (file_read(path, 4096, &text) < 0 || bytes_append(&text, "", 1) < 0 ||
        sscanf((const char *)text.data, "%lld %lld", &size, &resident) != 2)
        return 0;
    return resident * sysconf(_SC_PAGESIZE);
}
