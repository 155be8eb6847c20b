/* warden.c - see warden.h: the worker's side. Wardens that have nothing to keep wait for the next
 * action. */
#include <worker/warden_inner.h>

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARDEN_PIDS_MAX 4096 /* processes of one action that are counted */
#define WARDEN_IDLE_MAX 64   /* that are kept for later */

static struct rlimit files_before; /* warden_raise_files has not been called: 0 */
static int held = -1;

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

/* ---- those that wait ---- */

static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static struct warden idle[WARDEN_IDLE_MAX];
static size_t n_idle;
static pid_t idle_owner; /* a fork of the worker has wardens of its own */

static void idle_own(void)
{
    if (idle_owner == getpid())
        return;
    for (size_t i = 0; i < n_idle; i++)
        close(idle[i].link);
    n_idle = 0;
    idle_owner = getpid();
}

static bool idle_take(struct warden *ret_warden)
{
    bool taken;

    pthread_mutex_lock(&idle_lock);
    idle_own();
    taken = n_idle > 0;
    if (taken)
        *ret_warden = idle[--n_idle];
    pthread_mutex_unlock(&idle_lock);
    return taken;
}

static bool idle_put(const struct warden *warden)
{
    bool put;

    pthread_mutex_lock(&idle_lock);
    idle_own();
    put = n_idle < WARDEN_IDLE_MAX;
    if (put)
        idle[n_idle++] = *warden;
    pthread_mutex_unlock(&idle_lock);
    return put;
}

static void idle_end(void)
{
    struct warden warden;

    while (idle_take(&warden)) {
        warden.free = false;
        warden_close(&warden);
    }
}

void warden_hold(int fd)
{
    idle_end(); /* they do not */
    held = fd;
}

void warden_raise_files(void)
{
    struct rlimit limit;

    idle_end(); /* their limit is another */
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    files_before = limit;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        files_before = (struct rlimit){0};
}

static int warden_fork(struct warden *ret_warden)
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
            warden_main(link[1], held, &files_before);
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

    *ret_warden = (struct warden){.pid = pid, .link = link[0], .free = true};
    return 0;
}

int warden_prepare(unsigned n)
{
    for (unsigned i = 0; i < n && i < WARDEN_IDLE_MAX; i++) {
        struct warden warden;
        int r = warden_fork(&warden);

        if (r < 0)
            return r;
        warden_close(&warden);
    }
    return 0;
}

/* ---- an action ---- */

static int strings_add(struct bytes *text, char *const *strings, uint32_t *ret_n)
{
    uint32_t n = 0;
    int r = 0;

    for (; r == 0 && strings[n]; n++)
        r = bytes_append(text, strings[n], strlen(strings[n]) + 1);
    *ret_n = n;
    return r;
}

/* The first part with the head and the descriptor, then the rest. */
static int parts_send(int link, const struct warden_request *request, const struct bytes *text,
                      int output)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    size_t size = text->size < WARDEN_PART_BYTES ? text->size : WARDEN_PART_BYTES;
    struct iovec parts[] = {{.iov_base = (void *)(uintptr_t)request, .iov_len = sizeof(*request)},
                            {.iov_base = text->data, .iov_len = size}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 2,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    memcpy(CMSG_DATA(&control.header), &output, sizeof(output));
    if (sendmsg(link, &message, MSG_NOSIGNAL) < 0)
        return -errno;
    for (size_t at = size; at < text->size; at += size) {
        size = text->size - at < WARDEN_PART_BYTES ? text->size - at : WARDEN_PART_BYTES;
        if (send(link, text->data + at, size, MSG_NOSIGNAL) < 0)
            return -errno;
    }
    return 0;
}

static int request_send(const struct warden *warden, const struct warden_action *action)
{
    struct warden_request request = {.letter = 'A'};
    _cleanup_(bytes_wipe_deinit) struct bytes text = {0};
    int r = bytes_append(&text, action->path, strlen(action->path) + 1);

    if (r == 0)
        r = bytes_append(&text, action->folder, strlen(action->folder) + 1);
    if (r == 0)
        r = strings_add(&text, action->arguments, &request.n_arguments);
    if (r == 0)
        r = strings_add(&text, action->environment, &request.n_environment);
    if (r == 0 && text.size > INT_MAX)
        r = -E2BIG;
    request.bytes = (uint32_t)text.size;
    return r < 0 ? r : parts_send(warden->link, &request, &text, action->output);
}

int warden_new(const struct warden_action *action, struct warden *ret_warden)
{
    struct warden warden;
    bool waited;
    int r;

    do { /* one that waited may have been killed */
        waited = idle_take(&warden);
        r = waited ? 0 : warden_fork(&warden);
        if (r < 0)
            return r;
        warden.free = false;
        r = request_send(&warden, action);
        if (r < 0)
            warden_close(&warden);
    } while (r < 0 && waited);
    if (r == 0)
        *ret_warden = warden;
    return r;
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
    warden->free = message.again;
    *ret_report = message;
    return 0;
}

void warden_close(struct warden *warden)
{
    if (warden->link < 0)
        return;
    if (warden->free && idle_put(warden)) {
        warden->link = -1;
        return;
    }
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
