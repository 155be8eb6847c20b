/* warden_main.c - what runs in the warden's process, and in the action's before its exec. After a
 * fork only system calls: the worker has threads, so malloc may be locked.
 *
 * A warden is made once and runs one action after another, since to copy a large process takes
 * longer than many a task. Commands come in order: a late "kill" is read before the next action is,
 * and finds nothing.
 */
#include <worker/warden_inner.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the warden holds what it keeps open; 0, 1 and 2 are /dev/null. */
enum { WARDEN_LINK = 3, WARDEN_HELD = 4, WARDEN_SIGNALS = 5, WARDEN_OOM = 6 };

#define WARDEN_SPARE_FD      64    /* above them, for moving them */
#define WARDEN_KILL_AGAIN_MS 20    /* between two sweeps while something is left */
#define WARDEN_TELL_MS       1     /* before a start is told: what ends sooner is told once */
#define WARDEN_OOM_SCORE     "500" /* the kernel takes a renderer before the worker */
#define WARDEN_ROOM_BYTES    (64 * 1024)

/* What an action may change of its parent's, and the next one would inherit. */
struct standing {
    int nice, policy, io;
    cpu_set_t cpus;
    struct rlimit limits[RLIM_NLIMITS];
};

static struct standing at_first;
static char own_oom_score[16]; /* "": unknown, and left as it is */

struct keeper {
    pid_t action; /* 0: it has ended */
    bool busy;    /* something of it may be left */
    bool untold;  /* that it has started */
    bool killing, orphaned;
    uint64_t cpu_ns, memory_bytes; /* of what was reaped of this action */
};

/* ---- in the action's process, before exec; it shares the warden's memory ---- */

static _noreturn_ void action_exec(const struct warden_action *action, volatile int *ret_error)
{
    sigset_t none;

    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(action->output, STDOUT_FILENO);
    dup2(action->output, STDERR_FILENO);
    close_range(3, ~0u, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir(action->folder) == 0)
        execve(action->path, action->arguments, action->environment);
    *ret_error = errno;
    _exit(127);
}

static __attribute__((noinline)) pid_t action_fork(const struct warden_action *action,
                                                   volatile int *ret_error)
{
    pid_t pid = vfork();

    if (pid == 0)
        action_exec(action, ret_error);
    return pid;
}

static void oom_score(const char *score)
{
    /* Not worth refusing the action for. */
    if (score[0] && pwrite(WARDEN_OOM, score, strlen(score), 0) < 0)
        errno = 0;
}

/* A child inherits the score: to open the file of each takes longer than to write to ours twice. */
static pid_t action_start(const struct warden_action *action, volatile int *ret_error)
{
    pid_t pid;

    oom_score(own_oom_score[0] ? WARDEN_OOM_SCORE : "");
    pid = action_fork(action, ret_error);
    if (pid < 0)
        *ret_error = errno;
    oom_score(own_oom_score);
    return pid;
}

/* ---- what is told ---- */

static void standing_read(struct standing *ret_standing)
{
    memset(ret_standing, 0, sizeof(*ret_standing));
    ret_standing->nice = getpriority(PRIO_PROCESS, 0);
    ret_standing->policy = sched_getscheduler(0);
    ret_standing->io = (int)syscall(SYS_ioprio_get, 1, 0);
    (void)sched_getaffinity(0, sizeof(ret_standing->cpus), &ret_standing->cpus);
    for (int i = 0; i < RLIM_NLIMITS; i++)
        (void)getrlimit(i, &ret_standing->limits[i]);
}

static bool as_at_first(void)
{
    struct standing now;

    standing_read(&now);
    return memcmp(&now, &at_first, sizeof(now)) == 0;
}

static void report(const struct keeper *keeper, enum warden_event event, int value)
{
    struct warden_report message = {.event = event,
                                    .value = value,
                                    .last = !keeper->busy,
                                    .again = !keeper->busy && as_at_first(),
                                    .cpu_ns = keeper->cpu_ns,
                                    .memory_bytes = keeper->memory_bytes};

    /* A worker that is gone is noticed by the read. */
    if (send(WARDEN_LINK, &message, sizeof(message), MSG_NOSIGNAL) < 0)
        errno = 0;
}

static void usage_add(struct keeper *keeper, const struct rusage *usage)
{
    struct rusage own;
    uint64_t bytes = (uint64_t)usage->ru_maxrss * 1024u;

    keeper->cpu_ns += (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000000u +
                      (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1000u;
    /* An action starts in our memory, a copy of the worker's, and the kernel counts that as a peak
     * of its own; a peak no larger than ours says nothing. */
    if (bytes > keeper->memory_bytes && getrusage(RUSAGE_SELF, &own) == 0 &&
        usage->ru_maxrss > own.ru_maxrss)
        keeper->memory_bytes = bytes;
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

/* Reaps whatever ended; with the last of it the warden is free. */
static void reap(struct keeper *keeper)
{
    struct rusage usage;
    int status, exit_status = 0;
    bool exited = false, was_busy = keeper->busy;
    pid_t pid = 0;

    while (keeper->busy && (pid = wait4(-1, &status, WNOHANG, &usage)) != 0) {
        if (pid > 0) {
            usage_add(keeper, &usage);
            if (pid == keeper->action) {
                keeper->action = 0;
                exited = true;
                exit_status = status;
            }
        } else if (errno == ECHILD) {
            keeper->busy = keeper->killing = false;
        } else if (errno != EINTR) {
            break;
        }
    }
    if (exited)
        report(keeper, WARDEN_EXITED, exit_status);
    else if (was_busy && !keeper->busy)
        report(keeper, WARDEN_GONE, 0);
}

/* Where it has ended by now, that is told and says this, too. */
static void started(struct keeper *keeper)
{
    if (keeper->untold && keeper->action > 0)
        report(keeper, WARDEN_STARTED, 0);
    keeper->untold = false;
}

/* ---- what is commanded ---- */

/* The rest of a request, which may be larger than a message. */
static bool request_read(char *text, size_t size, size_t have)
{
    while (have < size) {
        ssize_t n = recv(WARDEN_LINK, text + have, size - have, 0);

        if (n <= 0 && !(n < 0 && errno == EINTR))
            return false;
        have += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static char *strings_take(char **strings, size_t n, char *text)
{
    for (size_t i = 0; i < n; i++, text += strlen(text) + 1)
        strings[i] = text;
    strings[n] = NULL;
    return text;
}

static void action_begin(struct keeper *keeper, const struct warden_action *action)
{
    volatile int error = 0;
    pid_t pid;

    pid = action_start(action, &error);
    *keeper = (struct keeper){.action = pid > 0 ? pid : 0, .busy = true, .untold = error == 0};
    if (error)
        report(keeper, WARDEN_REFUSED, error);
}

/* False where the link broke in the middle of it. */
static bool request_take(struct keeper *keeper, const struct warden_request *request,
                         const char *data, size_t size, int output)
{
    static char *room[WARDEN_ROOM_BYTES / sizeof(char *)];
    size_t n_pointers = request->n_arguments + request->n_environment + 2,
           bytes = n_pointers * sizeof(char *) + request->bytes;
    char **pointers = bytes <= sizeof(room) ? room
                                            : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *text = (char *)(pointers + n_pointers), *next;
    struct warden_action action = {.path = text, .output = output};

    if (pointers == MAP_FAILED || size > request->bytes)
        return false;
    memcpy(text, data, size);
    if (!request_read(text, request->bytes, size))
        return false;
    action.folder = text + strlen(text) + 1;
    next = (char *)(uintptr_t)action.folder + strlen(action.folder) + 1;
    action.arguments = pointers;
    next = strings_take(pointers, request->n_arguments, next);
    action.environment = pointers + request->n_arguments + 1;
    (void)strings_take(pointers + request->n_arguments + 1, request->n_environment, next);
    action_begin(keeper, &action);
    if (pointers != room)
        munmap(pointers, bytes);
    return true;
}

static int passed_fd(struct msghdr *message)
{
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int fd = -1;

    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

/* False: there is no worker any more. */
static bool command(struct keeper *keeper)
{
    union {
        struct warden_request request;
        char bytes[sizeof(struct warden_request) + WARDEN_PART_BYTES];
    } in;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = &in, .iov_len = sizeof(in)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t size = recvmsg(WARDEN_LINK, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    bool good;
    int output;

    if (size <= 0)
        return size < 0 && (errno == EAGAIN || errno == EINTR);
    if (in.request.letter == 'K')
        keeper->killing = keeper->busy;
    else if (in.request.letter == 'T' && keeper->action > 0)
        kill(-keeper->action, SIGTERM);
    if (in.request.letter != 'A')
        return true;
    output = passed_fd(&message);
    good = !keeper->busy && output >= 0 && (size_t)size >= sizeof(in.request) &&
           request_take(keeper, &in.request, in.bytes + sizeof(in.request),
                        (size_t)size - sizeof(in.request), output);
    close(output);
    return good;
}

/* ---- the loop ---- */

static _noreturn_ void watch(void)
{
    struct pollfd polls[] = {{.fd = WARDEN_SIGNALS, .events = POLLIN},
                             {.fd = WARDEN_LINK, .events = POLLIN}};
    struct keeper keeper = {0};

    for (;;) {
        struct signalfd_siginfo info;

        /* A closed link is always readable. */
        if (poll(polls, keeper.orphaned ? 1 : 2,
                 keeper.killing  ? WARDEN_KILL_AGAIN_MS
                 : keeper.untold ? WARDEN_TELL_MS
                                 : -1) < 0 &&
            errno != EINTR)
            keeper.orphaned = true;
        if (polls[0].revents && read(WARDEN_SIGNALS, &info, sizeof(info)) < 0)
            errno = 0; /* one SIGCHLD at most is pending, whoever has ended */
        reap(&keeper);
        started(&keeper);
        if (!keeper.orphaned && polls[1].revents)
            keeper.orphaned = !command(&keeper);
        if (keeper.orphaned && !keeper.busy)
            _exit(0);
        keeper.killing = keeper.killing || keeper.orphaned;
        if (keeper.killing)
            kill_children(keeper.action);
    }
}

/* What actions inherit from here on: signals as they are at first, no cores, the files of before.
 */
static void warden_defaults(const struct rlimit *files)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    const struct rlimit no_core = {0, 0};

    for (int i = 1; i < NSIG; i++)
        sigaction(i, &action, NULL); /* KILL, STOP and the C library's own refuse; fine */
    setrlimit(RLIMIT_CORE, &no_core);
    if (files->rlim_max)
        setrlimit(RLIMIT_NOFILE, files);
    umask(022);
}

static bool warden_files(int link, int hold)
{
    sigset_t child;
    int null = open("/dev/null", O_RDWR);

    link = fcntl(link, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    null = fcntl(null, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    hold = hold < 0 ? null : fcntl(hold, F_DUPFD_CLOEXEC, WARDEN_SPARE_FD);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    return link >= 0 && null >= 0 && hold >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 &&
           dup2(null, 2) == 2 && dup3(link, WARDEN_LINK, O_CLOEXEC) >= 0 &&
           dup3(hold, WARDEN_HELD, O_CLOEXEC) >= 0 && close_range(WARDEN_HELD + 1, ~0u, 0) == 0 &&
           signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK) == WARDEN_SIGNALS;
}

static void oom_score_open(void)
{
    ssize_t size;

    if (open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC) != WARDEN_OOM)
        return;
    size = read(WARDEN_OOM, own_oom_score, sizeof(own_oom_score) - 1);
    own_oom_score[size > 0 ? size : 0] = '\0';
}

_noreturn_ void warden_main(int link, int hold, const struct rlimit *files)
{
    setsid();
    /* Not by prctl(): a sanitizer's takes a lock there, which another thread may have held over the
     * fork. */
    syscall(SYS_prctl, PR_SET_NAME, "westlight-task", 0, 0, 0);
    if (!warden_files(link, hold) || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        _exit(126);
    warden_defaults(files);
    standing_read(&at_first);
    /* A process that cannot be dumped may not open its oom score; but what lies here is nobody's to
     * read: a copy of the worker's memory, and then one studio's action after another's. */
    prctl(PR_SET_DUMPABLE, 1);
    oom_score_open();
    prctl(PR_SET_DUMPABLE, 0);
    watch();
}
