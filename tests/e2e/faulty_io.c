/* faulty_io.c - makes the n-th call of a kind fail: a library for LD_PRELOAD, for tests only.
 *
 * FAULTY_KIND   write, sync, range (sync_file_range), open (to write), read (what is opened to be
 *               read), rename, truncate or memory; nothing else is touched
 * FAULTY_ERRNO  its number; 0 for a short write
 * FAULTY_N      which call, from 1; 0 counts only
 * FAULTY_COUNT  how many from then on (1)
 * FAULTY_BELOW  only files below this folder, so that sockets, logs and eventfds are left alone;
 *               `memory` has none
 * FAULTY_TALLY  a file that is mapped and holds the number of calls so far, as eight bytes
 *
 * What fails is not done. A path is told from a descriptor by /proc/self/fd, which is slow enough to
 * be seen and right whatever opened it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *kind, *below;
static int error_number;
static uint64_t first, last;
static _Atomic uint64_t own_tally;
static _Atomic uint64_t *tally = &own_tally;

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTY_TALLY"), *wanted = getenv("FAULTY_KIND");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd >= 0 && ftruncate(fd, 8) == 0) {
        void *map = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        tally = map == MAP_FAILED ? &own_tally : map;
    }
    if (fd >= 0)
        close(fd);
    below = getenv("FAULTY_BELOW");
    error_number = (int)number("FAULTY_ERRNO", 0);
    first = number("FAULTY_N", 0);
    last = first + number("FAULTY_COUNT", 1) - 1;
    kind = wanted; /* last: from here on calls count */
}

static bool is(const char *what)
{
    return kind && strcmp(kind, what) == 0;
}

static bool hit(void)
{
    uint64_t n = atomic_fetch_add(tally, 1) + 1;

    return first && n >= first && n <= last;
}

static bool inside(const char *path)
{
    return below && strncmp(path, below, strlen(below)) == 0;
}

static bool fd_inside(int fd)
{
    char link[64], path[4096];
    ssize_t size;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (size <= 0)
        return false;
    path[size] = 0;
    return inside(path);
}

static bool path_inside(int folder, const char *path)
{
    return path[0] == '/' ? inside(path) : folder != AT_FDCWD && fd_inside(folder);
}

/* True: it is to fail; errno is set. */
static bool fails_fd(const char *what, int fd)
{
    int saved = errno;
    bool fails = is(what) && fd_inside(fd) && hit();

    errno = fails ? error_number : saved;
    return fails;
}

static bool fails_path(const char *what, int folder, const char *path)
{
    int saved = errno;
    bool fails = is(what) && path_inside(folder, path) && hit();

    errno = fails ? error_number : saved;
    return fails;
}

/* Found once, without dlsym where memory is asked for: that would ask for memory. */
#define REAL(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&name) real_;                                                            \
        if (!real_)                                                                                \
            real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                    \
        real_;                                                                                     \
    })

/* ---- write ---- */

ssize_t write(int fd, const void *data, size_t size)
{
    if (fails_fd("write", fd))
        return errno ? -1 : size > 1 ? REAL(write)(fd, data, size / 2) : 0;
    return REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    if (fails_fd("write", fd))
        return errno ? -1 : size > 1 ? REAL(pwrite)(fd, data, size / 2, at) : 0;
    return REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return pwrite(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
    return fails_fd("write", fd) && errno ? -1 : REAL(writev)(fd, parts, n);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at)
{
    return fails_fd("write", fd) && errno ? -1 : REAL(pwritev)(fd, parts, n, at);
}

/* ---- sync ---- */

int fsync(int fd)
{
    return fails_fd("sync", fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return fails_fd("sync", fd) ? -1 : REAL(fdatasync)(fd);
}

int syncfs(int fd)
{
    return fails_fd("sync", fd) ? -1 : REAL(syncfs)(fd);
}

int sync_file_range(int fd, off64_t at, off64_t size, unsigned flags)
{
    return fails_fd("range", fd) ? -1 : REAL(sync_file_range)(fd, at, size, flags);
}

/* ---- open, for writing ---- */

#define KIND(flags)                                                                                \
    (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)) ? "open" : "read")
#define MODE_OF(flags)                                                                             \
    ({                                                                                             \
        mode_t mode_ = 0;                                                                          \
        if ((flags) & (O_CREAT | O_TMPFILE)) {                                                     \
            va_list list_;                                                                         \
            va_start(list_, flags);                                                                \
            mode_ = va_arg(list_, mode_t);                                                         \
            va_end(list_);                                                                         \
        }                                                                                          \
        mode_;                                                                                     \
    })

int open(const char *path, int flags, ...)
{
    mode_t mode = MODE_OF(flags);

    return fails_path(KIND(flags), AT_FDCWD, path) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = MODE_OF(flags);

    return fails_path(KIND(flags), AT_FDCWD, path) ? -1 : REAL(open)(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    mode_t mode = MODE_OF(flags);

    return fails_path(KIND(flags), folder, path) ? -1 : REAL(openat)(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    mode_t mode = MODE_OF(flags);

    return fails_path(KIND(flags), folder, path) ? -1 : REAL(openat)(folder, path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return fails_path("open", AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    return fails_path("open", folder, path) ? -1 : REAL(mkdirat)(folder, path, mode);
}

/* ---- names ---- */

int rename(const char *from, const char *to)
{
    return fails_path("rename", AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return fails_path("rename", to_folder, to) ? -1
                                               : REAL(renameat)(from_folder, from, to_folder, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    return fails_path("rename", to_folder, to)
               ? -1
               : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}

int link(const char *from, const char *to)
{
    return fails_path("rename", AT_FDCWD, to) ? -1 : REAL(link)(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return fails_path("rename", to_folder, to)
               ? -1
               : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

int unlink(const char *path)
{
    return fails_path("rename", AT_FDCWD, path) ? -1 : REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    return fails_path("rename", folder, path) ? -1 : REAL(unlinkat)(folder, path, flags);
}

/* ---- sizes ---- */

int ftruncate(int fd, off_t size)
{
    return fails_fd("truncate", fd) ? -1 : REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return fails_fd("truncate", fd) ? -1 : REAL(ftruncate)(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    return fails_fd("truncate", fd) ? errno : REAL(posix_fallocate)(fd, at, size);
}

int fallocate(int fd, int mode, off_t at, off_t size)
{
    return fails_fd("truncate", fd) ? -1 : REAL(fallocate)(fd, mode, at, size);
}

/* ---- memory: glibc's own entries, which need no dlsym ---- */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static bool no_memory(void)
{
    bool fails = is("memory") && hit();

    if (fails)
        errno = ENOMEM;
    return fails;
}

void *malloc(size_t size)
{
    return no_memory() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return no_memory() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    return no_memory() ? NULL : __libc_realloc(memory, size);
}
