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
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/limits.h>

#define LOCK_TRIES     40
#define LOCK_PAUSE_US  50000
#define SESSIONS_AHEAD 1000 /* numbers kept with one write: links while nothing can be written */

int agent_lock_state(const char *state, int *ret_fd)
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
    /* A child that a killed worker was just making has its lock until it has become the renderer,
     * or has ended with its parent. */
    for (int tries = LOCK_TRIES; flock(fd, LOCK_EX | LOCK_NB) < 0; tries--) {
        if (errno != EWOULDBLOCK || tries == 0)
            return errno == EWOULDBLOCK ? AGENT_E_TAKEN : -errno;
        usleep(LOCK_PAUSE_US);
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
