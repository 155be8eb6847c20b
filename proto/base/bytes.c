/* bytes.c - buffers, hexadecimal, wiping, whole files.
 *
 * The idea: a file that matters is never half there. It is written under a temporary name, synced,
 * renamed, and its folder synced, so that after any crash either the old or the new one is whole.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/crash.h>

/* Below this depth a folder is first moved up, so that a hostile tree cannot use up our files. */
#define REMOVE_DEPTH_MAX 64

static void dir_closep(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

void freep(void *pointer_to_pointer)
{
    void *pointer;

    memcpy(&pointer, pointer_to_pointer, sizeof(pointer));
    free(pointer);
}

void closep(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

/* ---- buffers ---- */

void memory_keep(void)
{
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
}

void bytes_deinit(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

void bytes_wipe_deinit(struct bytes *bytes)
{
    wipe(bytes->data, bytes->capacity);
    bytes_deinit(bytes);
}

int bytes_reserve(struct bytes *bytes, size_t capacity)
{
    size_t grown = bytes->capacity <= SIZE_MAX / 2 ? bytes->capacity * 2 : SIZE_MAX;
    uint8_t *data;

    if (capacity <= bytes->capacity)
        return 0;
    if (grown < capacity)
        grown = capacity;
    data = realloc(bytes->data, grown);
    if (!data)
        return -ENOMEM;

    bytes->data = data;
    bytes->capacity = grown;
    return 0;
}

int bytes_append(struct bytes *bytes, const void *data, size_t size)
{
    int r;

    if (size == 0)
        return 0;
    if (size > SIZE_MAX - bytes->size)
        return -ENOMEM;
    r = bytes_reserve(bytes, bytes->size + size);
    if (r < 0)
        return r;

    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
    return 0;
}

int bytes_printf(struct bytes *bytes, const char *format, ...)
{
    va_list arguments;
    int r, length;

    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        return -EINVAL;
    r = bytes_reserve(bytes, bytes->size + (size_t)length + 1);
    if (r < 0)
        return r;

    va_start(arguments, format);
    vsnprintf((char *)bytes->data + bytes->size, (size_t)length + 1, format, arguments);
    va_end(arguments);
    bytes->size += (size_t)length;
    return 0;
}

/* ---- bits of text and secrets ---- */

char *hex_encode(const void *data, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;

    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[in[i] >> 4];
        text[2 * i + 1] = digits[in[i] & 15];
    }
    text[2 * size] = '\0';
    return text;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hex_decode(const char *text, void *ret_data, size_t size)
{
    uint8_t *out = ret_data;

    if (strlen(text) != 2 * size)
        return -EINVAL;
    for (size_t i = 0; i < 2 * size; i++)
        if (hex_digit(text[i]) < 0)
            return -EINVAL;

    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return 0;
}

void wipe(void *data, size_t size)
{
    if (size > 0)
        explicit_bzero(data, size);
}

bool bytes_equal_secret(const void *a, const void *b, size_t size)
{
    const volatile uint8_t *left = a, *right = b;
    uint8_t difference = 0;

    for (size_t i = 0; i < size; i++)
        difference |= (uint8_t)(left[i] ^ right[i]);
    return difference == 0;
}

int random_bytes(void *ret_data, size_t size)
{
    uint8_t *out = ret_data;

    while (size > 0) {
        ssize_t got = getrandom(out, size, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        out += got;
        size -= (size_t)got;
    }
    return 0;
}

/* ---- files ---- */

int fd_write_all(int fd, const void *data, size_t size)
{
    const uint8_t *in = data;

    while (size > 0) {
        ssize_t wrote = write(fd, in, size);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return -errno;
        in += wrote;
        size -= (size_t)wrote;
    }
    return 0;
}

int fd_read_all(int fd, void *ret_data, size_t size, size_t *ret_read)
{
    uint8_t *out = ret_data;
    size_t total = 0;

    while (total < size) {
        ssize_t got = read(fd, out + total, size - total);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        total += (size_t)got;
    }
    *ret_read = total;
    return 0;
}

/* Reads one byte more than it may, which tells a file at the limit from one past it. The buffer
 * keeps a NUL after its end, so that a text may be read as a string. */
int file_read(const char *path, size_t limit_bytes, struct bytes *ret_bytes)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(bytes_wipe_deinit) struct bytes bytes = {0};

    if (fd < 0)
        return -errno;
    for (;;) {
        size_t want, got, room = limit_bytes - bytes.size;
        int r = bytes_reserve(&bytes, bytes.size + 4096);

        if (r < 0)
            return r;
        want = bytes.capacity - bytes.size - 1;
        if (want > room)
            want = room + 1;
        r = fd_read_all(fd, bytes.data + bytes.size, want, &got);
        if (r < 0)
            return r;
        bytes.size += got;
        if (bytes.size > limit_bytes)
            return -EFBIG;
        if (got < want)
            break;
    }

    bytes.data[bytes.size] = '\0';
    *ret_bytes = bytes;
    bytes = (struct bytes){0};
    return 0;
}

int folder_sync(const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

/* ---- files that are whole or not there ---- */

int nameless_open(int folder, unsigned mode)
{
    _cleanup_(closep) int fd = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return fd >= 0 && access(path, F_OK) == 0 ? TAKE_FD(fd) : -1;
}

/* `spare` may be there: whoever was killed left it, or another writer of the name is about to
 * rename it. It is replaced by ours, and then it is ours that the other one renames: later than its
 * own. (Taken away it must not be: a file without a name that had one for a moment is given none
 * again.) */
static int spare_take(const char *path, int folder, const char *spare)
{
    char own[NAME_MAX + 1];
    uint64_t number;

    if (linkat(AT_FDCWD, path, folder, spare, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (random_bytes(&number, sizeof(number)) < 0 ||
        (size_t)snprintf(own, sizeof(own), "%s.%016llx", spare, (unsigned long long)number) >=
            sizeof(own))
        return -ENAMETOOLONG;
    if (linkat(AT_FDCWD, path, folder, own, AT_SYMLINK_FOLLOW) < 0)
        return -errno;
    if (renameat(folder, own, folder, spare) < 0) {
        int error = errno;
        unlinkat(folder, own, 0);
        return -error;
    }
    return 0;
}

/* A link cannot replace, so what is there is replaced by way of the spare name. */
int nameless_name(int fd, int folder, const char *spare, const char *name, bool replace)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, path, folder, name, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (errno != EEXIST || !replace)
        return -errno;
    int r = spare_take(path, folder, spare);
    if (r < 0)
        return r;
    crash_point("file.linked");
    if (renameat(folder, spare, folder, name) == 0 || errno == ENOENT) /* another one did it */
        return 0;
    r = -errno;
    unlinkat(folder, spare, 0);
    return r;
}

static int file_fill(int fd, const void *data, size_t size, unsigned mode)
{
    int r = fd_write_all(fd, data, size);

    if (r < 0)
        return r;
    crash_point("file.written");
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

/* Where the file system has no files without a name (NFS): a temporary one, which whoever is killed
 * leaves behind. */
static int put_temporary(const char *path, const void *data, size_t size, unsigned mode,
                         bool replace)
{
    _cleanup_(freep) char *temporary = NULL;
    _cleanup_(closep) int fd = -1;
    int r;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        temporary = NULL;
        return -ENOMEM;
    }
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = file_fill(fd, data, size, mode);
    if (r == 0 && (replace ? rename(temporary, path) : link(temporary, path)) < 0)
        r = -errno;
    if (r < 0 || !replace)
        unlink(temporary);
    return r;
}

static int file_put(const char *path, const void *data, size_t size, unsigned mode, bool replace)
{
    _cleanup_(freep) char *folder = strdup(path), *spare = NULL;
    _cleanup_(closep) int folder_fd = -1, fd = -1;
    const char *name = strrchr(path, '/');
    int r;

    if (!folder || asprintf(&spare, "%s.new", name ? name + 1 : path) < 0) {
        spare = NULL;
        return -ENOMEM;
    }
    folder[name ? (size_t)(name - path) + (name == path) : 0] = '\0';
    folder_fd = open(name ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0)
        return -errno;
    fd = nameless_open(folder_fd, 0600);
    crash_point("file.created");
    if (fd < 0)
        r = put_temporary(path, data, size, mode, replace);
    else
        r = file_fill(fd, data, size, mode);
    crash_point("file.synced");
    if (r == 0 && fd >= 0)
        r = nameless_name(fd, folder_fd, spare, name ? name + 1 : path, replace);
    crash_point("file.named");
    if (r == 0 && fsync(folder_fd) < 0)
        r = -errno;
    crash_point("file.durable");
    return r;
}

int file_write(const char *path, const void *data, size_t size, unsigned mode)
{
    return file_put(path, data, size, mode, true);
}

int file_write_new(const char *path, const void *data, size_t size, unsigned mode)
{
    return file_put(path, data, size, mode, false);
}

/* ---- folders ---- */

static int folder_make_one(const char *path, unsigned mode)
{
    struct stat status;

    if (mkdir(path, mode) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (stat(path, &status) < 0)
        return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

/* From its end, since mostly all but the last of it is there. */
int folder_make(const char *path, unsigned mode)
{
    _cleanup_(freep) char *parent = NULL;
    const char *slash = strrchr(path, '/');
    int r = folder_make_one(path, mode);

    if (r != -ENOENT || !slash || slash == path)
        return r;
    parent = strndup(path, (size_t)(slash - path));
    if (!parent)
        return -ENOMEM;
    r = folder_make(parent, mode);
    return r < 0 ? r : folder_make_one(path, mode);
}

/* ---- removing a tree ---- */

struct removal {
    int top; /* the folder itself, into which what is too deep is moved */
    unsigned moved;
};

static int remove_below(struct removal *removal, DIR *dir, unsigned depth);

/* Gives a folder back the bits that its mode lacks, by path only. Never follows a link. */
static int subfolder_allow(int parent, const char *name, int *ret_handle)
{
    _cleanup_(closep) int handle =
        openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char link[64];

    if (handle < 0)
        return -errno;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", handle);
    if (chmod(link, 0700) < 0)
        return -errno;
    *ret_handle = TAKE_FD(handle);
    return 0;
}

/* Opens a folder to read it. One whose mode forbids that is ours all the same. */
static int subfolder_open(int parent, const char *name, DIR **ret_dir)
{
    _cleanup_(closep) int fd =
        openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == EACCES) {
        _cleanup_(closep) int handle = -1;
        int r = subfolder_allow(parent, name, &handle);

        if (r < 0)
            return r;
        fd = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        return -errno;
    *ret_dir = fdopendir(fd);
    if (!*ret_dir)
        return -errno;
    (void)TAKE_FD(fd);
    return 0;
}

/* A read-only folder keeps its entries; it is ours, so it is made writable first. */
static int entry_unlink(int parent, const char *name, int flags)
{
    if (unlinkat(parent, name, flags) == 0)
        return 0;
    if (errno != EACCES)
        return -errno;
    if (fchmod(parent, 0700) < 0)
        return -EACCES;
    return unlinkat(parent, name, flags) < 0 ? -errno : 0;
}

/* A folder that changes its parent must be writable itself. */
static int move_up(struct removal *removal, int parent, const char *name)
{
    _cleanup_(closep) int handle = -1;
    char moved[32];
    int r;

    snprintf(moved, sizeof(moved), ".removing-%u", removal->moved++);
    if (renameat(parent, name, removal->top, moved) == 0)
        return 0;
    if (errno != EACCES)
        return -errno;
    r = subfolder_allow(parent, name, &handle);
    if (r < 0)
        return r;
    if (fchmod(parent, 0700) < 0 || fchmod(removal->top, 0700) < 0)
        return -EACCES;
    return renameat(parent, name, removal->top, moved) < 0 ? -errno : 0;
}

static int remove_entry(struct removal *removal, int parent, const char *name, unsigned depth)
{
    _cleanup_(dir_closep) DIR *dir = NULL;
    int r = entry_unlink(parent, name, 0);

    if (r == 0 || r == -ENOENT)
        return 0;
    if (r != -EISDIR && r != -EPERM)
        return r;
    r = entry_unlink(parent, name, AT_REMOVEDIR);
    if (r == 0 || r == -ENOENT)
        return 0;
    if (r != -ENOTEMPTY && r != -EEXIST)
        return r;
    if (depth >= REMOVE_DEPTH_MAX)
        return move_up(removal, parent, name);

    r = subfolder_open(parent, name, &dir);
    if (r == 0)
        r = remove_below(removal, dir, depth + 1);
    if (r < 0)
        return r;
    r = entry_unlink(parent, name, AT_REMOVEDIR);
    return r == -ENOENT ? 0 : r;
}

/* Again from the start as long as that takes something away: what was moved up may come behind the
 * reader. What cannot be removed keeps nothing else; the first such error is the answer. A writer
 * that never stops is not waited for: rmdir says the rest. */
static int remove_below(struct removal *removal, DIR *dir, unsigned depth)
{
    int first = 0;

    for (unsigned pass = 0, removed = 1; removed && pass < 10000; pass++) {
        struct dirent *entry;

        removed = 0;
        first = 0;
        rewinddir(dir);
        while ((errno = 0, entry = readdir(dir))) {
            int r;

            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            r = remove_entry(removal, dirfd(dir), entry->d_name, depth);
            if (r == 0)
                removed = 1;
            else if (first == 0)
                first = r;
        }
        if (errno)
            return -errno;
    }
    return first;
}

int folder_remove(const char *path)
{
    _cleanup_(dir_closep) DIR *dir = NULL;
    struct removal removal = {0};
    int r = subfolder_open(AT_FDCWD, path, &dir);

    if (r < 0)
        return r;
    removal.top = dirfd(dir);
    r = remove_below(&removal, dir, 1);
    if (r < 0)
        return r;
    return rmdir(path) < 0 ? -errno : 0;
}
