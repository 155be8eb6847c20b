/* disk.c - sealed blocks as files.
 *
 * All 256 folders of a studio are made, and synced, before its first block: afterwards a put has
 * one folder to sync, and two puts never race for one that is half made.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/vault/disk.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>

#define PATH_SIZE 96

/* What the host lacks for a moment is no fault of the disk's. */
static bool passes(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* The host takes no more: no space, no quota, or a limit on the size of files. */
static int disk_error(int error)
{
    if (error == ENOSPC || error == EDQUOT || error == EFBIG)
        return VAULT_E_FULL;
    return passes(error) ? VAULT_E_BUSY : -error;
}

static void block_path(struct studio_id studio, const struct block_id *id, const char *prefix,
                       char path[PATH_SIZE])
{
    char hex[2 * sizeof id->bytes + 1];
    hex_encode(id->bytes, sizeof id->bytes, hex);
    if (prefix)
        snprintf(path, PATH_SIZE, "%u/%s%s", studio.value, prefix, hex);
    else
        snprintf(path, PATH_SIZE, "%u/%.2s/%s", studio.value, hex, hex + 2);
}

/* ---- past the cache ---- */

/* Not every file system can go past the cache (tmpfs), and one that can may refuse a place. One
 * that refuses has made the file by then. */
static int open_direct(int root, const char *path, int flags)
{
    int fd = openat(root, path, flags | O_DIRECT, 0600);

    return fd < 0 && errno == EINVAL ? openat(root, path, flags & ~O_EXCL, 0600) : fd;
}

static int set_direct(int fd, int direct)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, (flags & ~O_DIRECT) | direct) < 0 ? -errno : 0;
}

/* ---- opening ---- */

/* What a killed broker was writing was never acknowledged. */
static void remove_unfinished(int root, const char *studio)
{
    int fd = openat(root, studio, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        closep(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));)
        if (!strncmp(entry->d_name, "put-", 4))
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

static int remove_all_unfinished(int root)
{
    int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        int error = errno;
        closep(&fd);
        return -error;
    }
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[strspn(entry->d_name, "0123456789")] == 0)
            remove_unfinished(root, entry->d_name);
    closedir(folder);
    return 0;
}

int disk_open(struct disk *disk, const char *folder)
{
    int r = folder_make(folder, 0700);
    if (r < 0)
        return r;
    _cleanup_(closep) int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -errno;
    r = remove_all_unfinished(root);
    if (r < 0)
        return r;
    if (syncfs(root) < 0)
        return -errno;
    memset(disk, 0, sizeof *disk);
    disk_set_time(disk, clock_wall_ns());
    pthread_mutex_init(&disk->lock, NULL);
    stock_init(&disk->stock);
    disk->root = TAKE_FD(root);
    return 0;
}

int disk_look(struct disk *disk, const char *folder)
{
    int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -errno;
    memset(disk, 0, sizeof *disk);
    disk_set_time(disk, clock_wall_ns());
    pthread_mutex_init(&disk->lock, NULL);
    stock_init(&disk->stock);
    disk->root = root;
    return 0;
}

void disk_close(struct disk *disk)
{
    closep(&disk->root);
    free(disk->studios);
    pthread_mutex_destroy(&disk->lock);
    stock_deinit(&disk->stock);
}

/* ---- reading ---- */

/* No block is empty; a file system that was cut off in mid-write may have made one so. */
bool disk_has(struct disk *disk, struct studio_id studio, const struct block_id *id)
{
    struct stat status;
    char path[PATH_SIZE];
    block_path(studio, id, NULL, path);
    return fstatat(disk->root, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size > 0;
}

void disk_set_time(struct disk *disk, int64_t passed_ns)
{
    disk->ahead_ns = passed_ns - clock_monotonic_ns();
}

static struct timespec time_now(const struct disk *disk)
{
    int64_t now_ns = clock_monotonic_ns() + disk->ahead_ns;

    return (struct timespec){now_ns / NS_PER_S, now_ns % NS_PER_S};
}

static int64_t age_ns(const struct disk *disk, const struct stat *status)
{
    return clock_monotonic_ns() + disk->ahead_ns - status->st_mtim.tv_sec * NS_PER_S -
           status->st_mtim.tv_nsec;
}

int disk_age(struct disk *disk, struct studio_id studio, const struct block_id *id,
             int64_t *ret_age_ns, uint64_t *ret_bytes)
{
    char path[PATH_SIZE];
    struct stat status;

    block_path(studio, id, NULL, path);
    if (fstatat(disk->root, path, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? VAULT_E_MISSING : VAULT_E_BUSY;
    *ret_age_ns = age_ns(disk, &status);
    *ret_bytes = (uint64_t)status.st_size;
    return 0;
}

bool disk_renew(struct disk *disk, struct studio_id studio, const struct block_id *id,
                int64_t ripe_ns)
{
    const struct timespec now = time_now(disk), times[2] = {now, now};
    char path[PATH_SIZE];
    struct stat status;

    block_path(studio, id, NULL, path);
    if (fstatat(disk->root, path, &status, AT_SYMLINK_NOFOLLOW) < 0 || status.st_size == 0)
        return false;
    int64_t age = age_ns(disk, &status);
    if (age <= ripe_ns && age >= -ripe_ns)
        return true;
    return utimensat(disk->root, path, times, AT_SYMLINK_NOFOLLOW) == 0; /* else it may go soon */
}

static int64_t size_at(int folder, const char *path)
{
    struct stat status;

    return fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : status.st_size;
}

void disk_remove(struct disk *disk, struct studio_id studio, const struct block_id *id)
{
    char path[PATH_SIZE];

    block_path(studio, id, NULL, path);
    pthread_mutex_lock(&disk->stock.lock);
    int64_t size = size_at(disk->root, path);
    if (unlinkat(disk->root, path, 0) == 0)
        stock_change(&disk->stock, studio, id->bytes[0], -size);
    pthread_mutex_unlock(&disk->stock.lock);
}

static DIR *open_folder(int at, const char *path)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (!folder)
        closep(&fd);
    return folder;
}

/* *ret_unread is set where it is there and cannot be read. */
static int each_in_folder(struct disk *disk, struct studio_id studio, unsigned byte,
                          disk_each_block *each, void *user, int *ret_unread)
{
    char path[PATH_SIZE], hex[2 * sizeof(struct block_id) + 1];
    int r = 0;

    snprintf(path, sizeof path, "%u/%02x", studio.value, byte);
    DIR *folder = open_folder(disk->root, path);
    if (!folder) {
        if (errno != ENOENT)
            *ret_unread = -errno;
        return 0;
    }
    for (struct dirent *entry; r == 0 && (entry = readdir(folder));) {
        struct block_id id;

        if (strlen(entry->d_name) != sizeof hex - 3)
            continue;
        snprintf(hex, sizeof hex, "%02x%s", byte, entry->d_name);
        if (hex_decode(hex, id.bytes, sizeof id.bytes) == 0)
            r = each(user, studio, &id);
    }
    closedir(folder);
    return r;
}

/* The walk of all folders: what is done in each is `each_folder`. */
struct walk {
    struct disk *disk;
    disk_each_block *each;
    int (*rest)(void *user);
    void *user;
    int unread; /* of a folder */
};
typedef int each_folder(struct walk *walk, struct studio_id studio, unsigned byte);

/* One folder that cannot be read does not keep the others from being looked at. */
static int walk_folders(struct walk *walk, each_folder *each)
{
    DIR *root = open_folder(walk->disk->root, ".");
    int r = 0;

    if (!root)
        return -errno;
    for (struct dirent *entry; r == 0 && (entry = readdir(root));) {
        char *end = NULL;
        unsigned long studio = strtoul(entry->d_name, &end, 10);

        if (*end || end == entry->d_name || studio > UINT32_MAX)
            continue;
        for (unsigned byte = 0; r == 0 && byte < 256; byte++)
            r = each(walk, (struct studio_id){(uint32_t)studio}, byte);
    }
    closedir(root);
    return r != 0 ? r : walk->unread;
}

static int look_in_folder(struct walk *walk, struct studio_id studio, unsigned byte)
{
    return each_in_folder(walk->disk, studio, byte, walk->each, walk->user, &walk->unread);
}

int disk_each(struct disk *disk, disk_each_block *each, void *user)
{
    struct walk walk = {.disk = disk, .each = each, .user = user};

    return walk_folders(&walk, look_in_folder);
}

struct sum {
    struct disk *disk;
    uint64_t bytes;
};

static int sum_block(void *user, struct studio_id studio, const struct block_id *id)
{
    struct sum *sum = user;
    char path[PATH_SIZE];

    block_path(studio, id, NULL, path);
    sum->bytes += (uint64_t)size_at(sum->disk->root, path);
    return 0;
}

static int count_folder(struct walk *walk, struct studio_id studio, unsigned byte)
{
    struct sum sum = {.disk = walk->disk};
    int unread = 0;

    pthread_mutex_lock(&walk->disk->stock.lock);
    int r = each_in_folder(walk->disk, studio, byte, sum_block, &sum, &unread);
    if (unread)
        walk->unread = unread;
    else
        stock_set(&walk->disk->stock, studio, (uint8_t)byte, sum.bytes);
    pthread_mutex_unlock(&walk->disk->stock.lock);
    return r != 0 ? r : walk->rest(walk->user);
}

int disk_count(struct disk *disk, int (*rest)(void *user), void *user)
{
    struct walk walk = {.disk = disk, .rest = rest, .user = user};

    return walk_folders(&walk, count_folder);
}

/* True where it was read not long ago. */
static bool seen(struct disk *disk, const struct block_id *id)
{
    unsigned at, name;

    memcpy(&at, id->bytes, sizeof at);
    memcpy(&name, id->bytes + sizeof at, sizeof name);
    return atomic_exchange_explicit(&disk->seen[at % DISK_SEEN], name, memory_order_relaxed) ==
           name;
}

/* The rest, where a read past the cache stopped short, comes through it. */
static int read_all(int fd, uint8_t *data, size_t size, bool direct, size_t *ret_read)
{
    ssize_t got = direct ? read(fd, data, disk_aligned(size)) : 0;
    size_t n = got > 0 ? (size_t)got : 0, more = 0;

    if (direct && (n >= size || got == 0)) {
        *ret_read = n < size ? n : size;
        return 0;
    }
    int r = direct ? set_direct(fd, 0) : 0;
    if (r == 0)
        r = fd_read_all(fd, data + n, size - n, &more);
    *ret_read = n + more;
    return r;
}

static void buffer_drop(uint8_t *data, size_t size, bool pooled)
{
    if (pooled)
        vault_buffer_free(data, size);
    else
        free(data);
}

static int read_file(struct disk *disk, const char *path, bool often, bool pooled,
                     uint8_t **ret_data, size_t *ret_size, ino_t *ret_inode)
{
    struct stat status;
    _cleanup_(closep) int fd = openat(disk->root, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? VAULT_E_MISSING : disk_error(errno);
    if (fstat(fd, &status) < 0)
        return -errno;
    *ret_inode = status.st_ino;
    if (status.st_size < 0 || status.st_size > LIMIT_SEALED_BYTES)
        return VAULT_E_CORRUPT;

    size_t size = (size_t)status.st_size, n = 0;
    uint8_t *data = pooled ? vault_buffer(size) : aligned_alloc(DISK_ALIGN, disk_aligned(size + 1));
    if (!data)
        return VAULT_E_BUSY;
    bool direct = !often && size >= DISK_DIRECT_BYTES && set_direct(fd, O_DIRECT) == 0;
    int r = read_all(fd, data, size, direct, &n);
    if (r == 0 && n < size)
        r = -EIO; /* it was cut while it was read */
    if (r < 0) {
        buffer_drop(data, size, pooled);
        return disk_error(-r);
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}

static int peek(struct disk *disk, struct studio_id studio, const struct block_id *id, bool pooled,
                uint8_t **ret_data, size_t *ret_size, ino_t *ret_inode)
{
    char path[PATH_SIZE], aside[PATH_SIZE];
    struct block_id actual;

    block_path(studio, id, NULL, path);
    *ret_inode = 0;
    int r = read_file(disk, path, seen(disk, id), pooled, ret_data, ret_size, ret_inode);
    if (r == VAULT_E_MISSING) {
        /* Whoever asks after the one who found the damage is told the same. */
        block_path(studio, id, "damaged-", aside);
        return faccessat(disk->root, aside, F_OK, 0) == 0 ? VAULT_E_CORRUPT : r;
    }
    if (r)
        return r > 0 ? r : VAULT_E_CORRUPT; /* -EIO: these bytes cannot be had */
    digest(*ret_data, *ret_size, &actual);
    if (memcmp(&actual, id, sizeof actual) == 0)
        return 0;
    buffer_drop(TAKE_PTR(*ret_data), *ret_size, pooled);
    return VAULT_E_CORRUPT;
}

/* Unless it is another by now: somebody may have put it anew. */
static void set_aside(struct disk *disk, struct studio_id studio, const struct block_id *id,
                      ino_t inode)
{
    char path[PATH_SIZE], aside[PATH_SIZE];
    struct stat status;

    block_path(studio, id, NULL, path);
    block_path(studio, id, "damaged-", aside);
    pthread_mutex_lock(&disk->stock.lock);
    if (fstatat(disk->root, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_ino == inode &&
        renameat(disk->root, path, disk->root, aside) == 0)
        stock_change(&disk->stock, studio, id->bytes[0], -status.st_size);
    pthread_mutex_unlock(&disk->stock.lock);
}

static int read_or_set_aside(struct disk *disk, struct studio_id studio, const struct block_id *id,
                             bool pooled, uint8_t **ret_data, size_t *ret_size)
{
    ino_t inode;
    int r = peek(disk, studio, id, pooled, ret_data, ret_size, &inode);

    if (r == VAULT_E_CORRUPT && inode)
        set_aside(disk, studio, id, inode);
    return r;
}

int disk_peek(struct disk *disk, struct studio_id studio, const struct block_id *id,
              uint8_t **ret_data, size_t *ret_size)
{
    ino_t inode;

    return peek(disk, studio, id, false, ret_data, ret_size, &inode);
}

int disk_read(struct disk *disk, struct studio_id studio, const struct block_id *id,
              uint8_t **ret_data, size_t *ret_size)
{
    return read_or_set_aside(disk, studio, id, false, ret_data, ret_size);
}

int disk_get(struct disk *disk, struct studio_id studio, const struct block_id *id,
             uint8_t **ret_data, size_t *ret_size)
{
    return read_or_set_aside(disk, studio, id, true, ret_data, ret_size);
}

/* ---- writing ---- */

/* What is there already must become durable, so that one file that cannot be opened does not count:
 * the whole file system is synced instead. */
static int sync_path(struct disk *disk, const char *path)
{
    _cleanup_(closep) int fd = openat(disk->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && !passes(errno))
        return -errno;
    return (fd < 0 ? syncfs(disk->root) : fsync(fd)) < 0 ? -errno : 0;
}

static int make_studio(struct disk *disk, struct studio_id studio)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%u", studio.value);
    if (mkdirat(disk->root, path, 0700) < 0 && errno != EEXIST)
        return disk_error(errno);
    crash_point("vault.studio.made");
    for (unsigned byte = 0; byte < 256; byte++) {
        snprintf(path, sizeof path, "%u/%02x", studio.value, byte);
        if (mkdirat(disk->root, path, 0700) < 0 && errno != EEXIST)
            return disk_error(errno);
    }
    snprintf(path, sizeof path, "%u", studio.value);
    crash_point("vault.studio.filled");
    int r = sync_path(disk, path);
    crash_point("vault.studio.synced");
    return r ? r : sync_path(disk, ".");
}

static int ensure_studio(struct disk *disk, struct studio_id studio)
{
    int r = 0;

    pthread_mutex_lock(&disk->lock);
    for (size_t i = 0; i < disk->n_studios; i++)
        if (disk->studios[i] == studio.value)
            goto out;
    r = make_studio(disk, studio);
    if (r)
        goto out;
    uint32_t *studios = reallocarray(disk->studios, disk->n_studios + 1, sizeof *studios);
    if (!studios) {
        r = VAULT_E_BUSY;
        goto out;
    }
    disk->studios = studios;
    studios[disk->n_studios++] = studio.value;
out:
    pthread_mutex_unlock(&disk->lock);
    return r;
}

/* A write past the cache that stops short (a full disk, a signal) goes on through it. */
static int write_direct(int fd, const uint8_t *data, size_t size)
{
    ssize_t wrote = write(fd, data, disk_aligned(size));
    size_t n = wrote > 0 ? (size_t)wrote : 0;

    if (n > size)
        return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
    if (n == size)
        return 0;
    int r = set_direct(fd, 0);
    return r ? r : fd_write_all(fd, data + n, size - n);
}

int disk_write(struct disk *disk, struct studio_id studio, const void *data, size_t size,
               struct disk_file *ret_file)
{
    const struct timespec now = time_now(disk), times[2] = {now, now};
    struct disk_file file;
    int r = ensure_studio(disk, studio);
    if (r)
        return r;
    snprintf(file.name, sizeof file.name, "%u/put-%llu", studio.value,
             (unsigned long long)atomic_fetch_add(&disk->next_name, 1));
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    bool direct = size >= DISK_DIRECT_BYTES;
    file.fd = direct ? open_direct(disk->root, file.name, flags)
                     : openat(disk->root, file.name, flags, 0600);
    if (file.fd < 0)
        return disk_error(errno);
    crash_point("vault.block.created");
    r = direct ? write_direct(file.fd, data, size) : fd_write_all(file.fd, data, size);
    if (r == 0 && futimens(file.fd, times) < 0)
        r = -errno;
    crash_point("vault.block.written");
    if (r < 0) {
        disk_discard(disk, &file);
        return disk_error(-r);
    }
    /* Begins the write now, so that the disk works on the whole batch at once; the sync follows. */
    if (!direct)
        (void)sync_file_range(file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    *ret_file = file;
    return 0;
}

int disk_sync(struct disk_file *file)
{
    int r = fdatasync(file->fd) < 0 ? -errno : 0;
    crash_point("vault.block.synced");
    if (close(TAKE_FD(file->fd)) < 0 && r == 0)
        r = -errno;
    return r;
}

int disk_rename(struct disk *disk, const struct disk_file *file, struct studio_id studio,
                const struct block_id *id)
{
    char path[PATH_SIZE];
    block_path(studio, id, NULL, path);
    pthread_mutex_lock(&disk->stock.lock);
    int64_t grown = size_at(disk->root, file->name) - size_at(disk->root, path);
    int r = renameat(disk->root, file->name, disk->root, path) < 0 ? disk_error(errno) : 0;
    if (r == 0)
        stock_change(&disk->stock, studio, id->bytes[0], grown);
    pthread_mutex_unlock(&disk->stock.lock);
    crash_point("vault.block.renamed");
    return r;
}

void disk_discard(struct disk *disk, struct disk_file *file)
{
    closep(&file->fd);
    (void)unlinkat(disk->root, file->name, 0);
}

int disk_sync_folder(struct disk *disk, struct studio_id studio, uint8_t byte)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%u/%02x", studio.value, byte);
    return sync_path(disk, path);
}
