/* agent_state.c - the state folder is one worker's, and no session number is used twice. */
#include <worker/agent.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/limits.h>

#define LOCK_PAUSE_NS  (20 * NS_PER_MS)
#define SESSIONS_AHEAD 1000 /* numbers kept with one write: links while nothing can be written */

int agent_lock_state(const char *state, int64_t wait_ns, int *ret_fd)
{
    _cleanup_(closep) int fd = -1;
    char path[LIMIT_PATH_BYTES], pid[32];
    int r = folder_make(state, 0700);

    if (r < 0)
        return r;
    if ((size_t)snprintf(path, sizeof(path), "%s/lock", state) >= sizeof(path))
        return -ENAMETOOLONG;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    /* The wardens of a killed worker have its lock until nothing is left of what they keep: of a
     * renderer, too, whose memory and cards the kernel takes long to free. */
    for (int64_t left_ns = wait_ns; flock(fd, LOCK_EX | LOCK_NB) < 0; left_ns -= LOCK_PAUSE_NS) {
        if (errno != EWOULDBLOCK || left_ns <= 0)
            return errno == EWOULDBLOCK ? AGENT_E_TAKEN : -errno;
        if (left_ns == wait_ns)
            log_info("waiting",
                     "lock=%s why=\"another worker has it, or what that one ran has not ended\"",
                     path);
        usleep(LOCK_PAUSE_NS / NS_PER_US);
    }
    snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || fd_write_all(fd, pid, strlen(pid)) < 0)
        log_warn("lock", "path=%s why=\"%s\"", path, strerror(errno));
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* In place, which a full disk allows: a temporary file would be a new one. */
static int session_keep(const char *path, uint64_t number)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char text[32];
    int size = snprintf(text, sizeof(text), "%020llu\n", (unsigned long long)number);

    if (fd < 0)
        return -errno;
    crash_point("session.keep");
    if (pwrite(fd, text, (size_t)size, 0) != size || fdatasync(fd) < 0)
        return errno ? -errno : -EIO;
    crash_point("session.kept");
    return 0;
}

/* Greater than every number before, even where the last process was killed: the file holds one that
 * none has reached yet. A number that cannot be kept is used all the same: results that wait for
 * the broker may be what fills the disk. */
int agent_session_next(struct agent_session *session, const char *state)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char path[LIMIT_PATH_BYTES];
    int r;

    snprintf(path, sizeof(path), "%s/session", state);
    if (session->number == 0) {
        r = file_read(path, 64, &text);
        if (r < 0 && r != -ENOENT)
            return r;
        if (r == 0)
            session->number = session->kept = strtoull((const char *)text.data, NULL, 10);
    }
    if (session->number >= session->kept) {
        r = session_keep(path, session->number + SESSIONS_AHEAD);
        if (r == 0)
            session->kept = session->number + SESSIONS_AHEAD;
        else
            log_warn("session", "path=%s why=\"%s\" next=\"free space there\"", path, strerror(-r));
    }
    session->number++;
    return 0;
}
