/* warden.c - after the fork only system calls: the worker has threads, so malloc may be locked. */
#include <worker/warden.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the warden holds what it keeps open; 0, 1 and 2 are /dev/null. */
enum { WARDEN_LINK = 3, WARDEN_OUTPUT = 4, WARDEN_SIGNALS = 5 };

#define WARDEN_SPARE_FD      64 /* above the three, for moving them */
#define WARDEN_KILL_AGAIN_MS 20 /* between two sweeps while something is left */
#define WARDEN_OOM_SCORE     "500" /* the kernel takes a renderer before the worker */
#define WARDEN_PIDS_MAX      4096 /* processes of one action that are counted */

static struct rlimit files_before; /* warden_raise_files has not been called: 0 */

void warden_raise_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    files_before = limit;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        files_before = (struct rlimit){0};
}

/* ---- in the action's process, before exec; it shares the warden's memory ---- */

static void action_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        sigaction(i, &action, NULL); /* KILL, STOP and the C library's own refuse; fine */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void action_limits(void)
{
    const struct rlimit no_core = {0, 0};
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    /* Neither is worth refusing the action for. */
    if (fd >= 0 && write(fd, WARDEN_OOM_SCORE, strlen(WARDEN_OOM_SCORE)) < 0)
        errno = 0;
    setrlimit(RLIMIT_CORE, &no_core);
    if (files_before.rlim_max)
        setrlimit(RLIMIT_NOFILE, &files_before);
    umask(022);
}

static _noreturn_ void action_exec(const struct warden_action *action, volatile int *ret_error)
{
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    action_limits();
    dup2(WARDEN_OUTPUT, STDOUT_FILENO);
    dup2(WARDEN_OUTPUT, STDERR_FILENO);
    close_range(3, ~0u, 0);
    action_signals();
    if (chdir(action->folder) == 0)
        execve(action->path, action->arguments, action->environment);
    *ret_error = errno;
    _exit(127);
}

static __attribute__((noinline)) pid_t action_start(const struct warden_action *action,
                                                    volatile int *ret_error)
{
    pid_t pid = vfork();

    if (pid == 0)
        action_exec(action, ret_error);
    return pid;
}

/* ---- in the warden ---- */

static void report(enum warden_event event, int value)
{
    struct warden_report message = {.event = event, .value = value};
    struct rusage usage, own;

    if (getrusage(RUSAGE_CHILDREN, &usage) == 0 && getrusage(RUSAGE_SELF, &own) == 0) {
        /* An action starts in our memory, a copy of the worker's, and the kernel counts that as a
         * peak of its own; a peak no larger than ours says nothing. */
        if (usage.ru_maxrss <= own.ru_maxrss)
            usage.ru_maxrss = 0;
        message.cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
                         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
        message.memory_bytes = (uint64_t)usage.ru_maxrss * 1024u;
    }
    /* A worker that is gone is noticed by the read. */
    if (send(WARDEN_LINK, &message, sizeof(message), MSG_NOSIGNAL) < 0)
        errno = 0;
}

static void kill_children(pid_t action)
{
    char text[4096];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    ssize_t size;
    pid_t pid = 0;

    if (action > 0)
        kill(-action, SIGKILL);
    if (fd < 0)
        return;
    while ((size = read(fd, text, sizeof(text))) > 0)
        for (ssize_t i = 0; i < size; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = pid * 10 + (text[i] - '0');
                continue;
            }
            if (pid > 1)
                kill(pid, SIGKILL);
            pid = 0;
        }
    close(fd);
}

/* Reaps whatever ended; ends the warden when nothing is left. */
static void reap(pid_t *action)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == *action) {
            *action = 0;
            report(WARDEN_EXITED, status);
        }
    if (pid < 0 && errno == ECHILD) {
        report(WARDEN_GONE, 0);
        _exit(0);
    }
}

/* True when everything is to end: told so, or the worker is gone. */
static bool command(pid_t action)
{
    char letter;
    ssize_t size;

    while ((size = recv(WARDEN_LINK, &letter, 1, MSG_DONTWAIT)) > 0) {
        if (letter == 'K')
            return true;
        if (letter == 'T' && action > 0)
            kill(-action, SIGTERM);
    }
    return size == 0 || (errno != EAGAIN && errno != EINTR);
}

static _noreturn_ void watch(pid_t action)
{
    struct pollfd polls[] = {{.fd = WARDEN_SIGNALS, .events = POLLIN},
                             {.fd = WARDEN_LINK, .events = POLLIN}};
    bool killing = false;

    for (;;) {
        struct signalfd_siginfo info;

        /* Once killing, the link is not asked again: a closed one is always readable. */
        if (poll(polls, killing ? 1 : 2, killing ? WARDEN_KILL_AGAIN_MS : -1) < 0 && errno != EINTR)
            killing = true;
        while (read(WARDEN_SIGNALS, &info, sizeof(info)) > 0)
            ;
        reap(&action);
        killing = killing || command(action);
        if (killing)
            kill_children(action);
    }
}

static bool warden_files(int link, int output)
{
    sigset_t child;
    int null = open("/dev/null", O_RDWR);

    link = fcntl(link, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    output = fcntl(output, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    null = fcntl(null, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    return link >= 0 && output >= 0 && null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 &&
           dup2(null, 2) == 2 && dup3(link, WARDEN_LINK, O_CLOEXEC) >= 0 &&
           dup3(output, WARDEN_OUTPUT, O_CLOEXEC) >= 0 && close_range(5, ~0u, 0) == 0 &&
           signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK) == WARDEN_SIGNALS;
}

static _noreturn_ void warden_main(const struct warden_action *action, int link)
{
    volatile int error = 0;
    pid_t pid;

    signal(SIGCHLD, SIG_DFL); /* an ignored SIGCHLD would reap without telling us */
    setsid();
    /* Not by prctl(): a sanitizer's takes a lock there, which another thread may have held over the
     * fork. */
    syscall(SYS_prctl, PR_SET_NAME, "westlight-task", 0, 0, 0);
    if (!warden_files(link, action->output) || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        _exit(126);

    pid = action_start(action, &error);
    /* The copy of the worker's memory is nobody's to read. After the vfork, since a process that
     * cannot be dumped may not set its oom score. */
    prctl(PR_SET_DUMPABLE, 0);
    close(WARDEN_OUTPUT);
    if (pid < 0)
        error = errno;
    report(error ? WARDEN_REFUSED : WARDEN_STARTED, error);
    watch(pid);
}

/* ---- in the worker ---- */

/* Every warden there is. The worker is a subreaper, too: what a killed warden kept becomes the
 * worker's own child, and a child of the worker that is no warden is such an orphan. */
static pthread_mutex_t wardens_lock = PTHREAD_MUTEX_INITIALIZER; /* held over the fork */
static pid_t *wardens;
static size_t n_wardens, wardens_capacity;

static int wardens_room(void)
{
    size_t capacity = wardens_capacity ? 2 * wardens_capacity : 64;
    pid_t *grown;

    if (n_wardens < wardens_capacity)
        return 0;
    grown = reallocarray(wardens, capacity, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    wardens = grown;
    wardens_capacity = capacity;
    return 0;
}

static bool wardens_have(pid_t pid)
{
    for (size_t i = 0; i < n_wardens; i++)
        if (wardens[i] == pid)
            return true;
    return false;
}

static void wardens_forget(pid_t pid)
{
    pthread_mutex_lock(&wardens_lock);
    for (size_t i = 0; i < n_wardens; i++)
        if (wardens[i] == pid)
            wardens[i] = wardens[--n_wardens];
    pthread_mutex_unlock(&wardens_lock);
}

static size_t children_of_thread(pid_t pid, const char *thread, pid_t *pids, size_t n)
{
    char path[320];
    FILE *file;
    int child;

    snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, thread);
    file = fopen(path, "re");
    if (!file)
        return n;
    while (n < WARDEN_PIDS_MAX && fscanf(file, "%d", &child) == 1)
        pids[n++] = child;
    fclose(file);
    return n;
}

/* A process's children are listed by the thread that forked them. */
static size_t children_of(pid_t pid, pid_t *pids, size_t n)
{
    char path[64];
    DIR *folder;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    folder = opendir(path);
    if (!folder)
        return n;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            n = children_of_thread(pid, entry->d_name, pids, n);
    closedir(folder);
    return n;
}

/* One pass over the orphans: what is killed leaves its own children to the next one. */
static size_t orphans_kill(void)
{
    _cleanup_(freep) pid_t *pids = calloc(WARDEN_PIDS_MAX, sizeof(*pids));
    size_t n, found = 0;

    if (!pids)
        return 0;
    pthread_mutex_lock(&wardens_lock);
    n = children_of(getpid(), pids, 0);
    for (size_t i = 0; i < n; i++) {
        if (wardens_have(pids[i]))
            continue;
        found++;
        kill(-pids[i], SIGKILL); /* its group, where it leads one */
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, WNOHANG);
    }
    pthread_mutex_unlock(&wardens_lock);
    return found;
}

int warden_new(const struct warden_action *action, struct warden *ret_warden)
{
    sigset_t all, before;
    int link[2], r;
    pid_t pid = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0)
        return -errno;
    pthread_mutex_lock(&wardens_lock);
    r = wardens_room();
    if (r == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        r = -errno;
    if (r == 0) {
        /* No handler of the worker's may run in the copy. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pid = fork();
        if (pid == 0)
            warden_main(action, link[1]);
        if (pid < 0)
            r = -errno;
        else
            wardens[n_wardens++] = pid;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_unlock(&wardens_lock);
    close(link[1]);
    if (r) {
        close(link[0]);
        return r;
    }

    *ret_warden = (struct warden){.pid = pid, .link = link[0]};
    return 0;
}

static void warden_command(const struct warden *warden, char letter)
{
    /* One that is gone has nothing left to signal. */
    if (send(warden->link, &letter, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        errno = 0;
}

void warden_terminate(const struct warden *warden)
{
    warden_command(warden, 'T');
}

void warden_kill(const struct warden *warden)
{
    warden_command(warden, 'K');
}

int warden_read(struct warden *warden, struct warden_report *ret_report)
{
    struct warden_report message;
    ssize_t size = recv(warden->link, &message, sizeof(message), MSG_DONTWAIT);

    /* It went without reading our last command: that is said first and once, and its own last
     * report waits behind. */
    if (size < 0 && errno == ECONNRESET)
        size = recv(warden->link, &message, sizeof(message), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return WARDEN_E_AGAIN;
    if (size != sizeof(message)) {
        warden->lost = true;
        return WARDEN_E_LOST;
    }
    *ret_report = message;
    return 0;
}

void warden_close(struct warden *warden)
{
    if (warden->link < 0)
        return;
    close(warden->link);
    warden->link = -1;
    /* It exits at once unless something it keeps sits in the kernel and cannot be killed; such a
     * warden is left to go when it can, and the worker with it rather than waiting for it. */
    for (int i = 0; i < 100 && waitpid(warden->pid, NULL, WNOHANG) == 0; i++)
        poll(NULL, 0, i < 20 ? 1 : 10);
    wardens_forget(warden->pid);
    if (warden->lost)
        for (int i = 0; i < 100 && orphans_kill() > 0; i++)
            poll(NULL, 0, i < 20 ? 1 : 10);
}

/* ---- what it keeps, from outside ---- */

static uint64_t resident_bytes(pid_t pid)
{
    unsigned long long pages = 0;
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Shared pages by their part; plain residency where the kernel does not say. */
static uint64_t proportional_bytes(pid_t pid)
{
    unsigned long long kib = 0;
    char path[64], line[256];
    bool found = false;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return resident_bytes(pid);
    while (!found && fgets(line, sizeof(line), file))
        found = sscanf(line, "Pss: %llu", &kib) == 1;
    fclose(file);
    return found ? kib * 1024u : resident_bytes(pid);
}

uint64_t warden_memory_bytes(const struct warden *warden, bool exact)
{
    _cleanup_(freep) pid_t *pids = calloc(WARDEN_PIDS_MAX, sizeof(*pids));
    uint64_t bytes = 0;
    size_t n;

    if (!pids)
        return 0;
    n = children_of(warden->pid, pids, 0);
    for (size_t i = 0; i < n; i++) { /* n grows as children of children are found */
        bytes += exact ? proportional_bytes(pids[i]) : resident_bytes(pids[i]);
        n = children_of(pids[i], pids, n);
    }
    return bytes;
}
