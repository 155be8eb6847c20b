/* arrivals.c - see arrivals.h. */
#include <client/arrivals.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/volume.h>

#define STALE_S (7 * 86400) /* whoever has not come back by then does not */

struct arrival {
    struct block_id id;
    uint64_t number, offset;
    uint32_t size;
};

struct head {
    struct block_id id;
    uint32_t size;
};

static const char *name_of(uint64_t number, char name[24])
{
    snprintf(name, 24, "%" PRIu64, number);
    return name;
}

/* ---- what was left ---- */

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct block_id)); /* the id comes first in what is sorted */
}

static bool keep(struct arrivals *arrivals, const struct arrival *arrival)
{
    if (arrivals->n_left == arrivals->capacity) {
        size_t capacity = arrivals->capacity ? 2 * arrivals->capacity : 256;
        struct arrival *grown = reallocarray(arrivals->left, capacity, sizeof(*grown));

        if (!grown)
            return false;
        arrivals->left = grown;
        arrivals->capacity = capacity;
    }
    arrivals->left[arrivals->n_left++] = *arrival;
    return true;
}

/* A record that was cut off ends the file, and so does one of zeros, as a power cut leaves them. */
static void list_file(struct arrivals *arrivals, uint64_t number)
{
    char name[24];
    _cleanup_(closep) int fd =
        openat(arrivals->folder, name_of(number, name), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    struct head head;

    if (fd < 0 || fstat(fd, &status) < 0)
        return;
    arrivals->bytes += (uint64_t)status.st_size;
    for (uint64_t at = 0; pread(fd, &head, sizeof(head), (off_t)at) == sizeof(head);
         at += sizeof(head) + head.size) {
        const struct arrival arrival = {head.id, number, at + sizeof(head), head.size};

        if (head.size == 0 || head.size > LIMIT_SEALED_BYTES ||
            arrival.offset + head.size > (uint64_t)status.st_size || !keep(arrivals, &arrival))
            return;
    }
}

static void list_files(struct arrivals *arrivals)
{
    int fd = openat(arrivals->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (!folder) {
        closep(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        char *end;
        uint64_t number = strtoull(entry->d_name, &end, 10);

        if (*end || number == 0)
            continue;
        list_file(arrivals, number);
        if (arrivals->oldest == 0 || number < arrivals->oldest)
            arrivals->oldest = number;
        if (number > arrivals->newest)
            arrivals->newest = number;
    }
    closedir(folder);
    if (arrivals->n_left > 0)
        qsort(arrivals->left, arrivals->n_left, sizeof(*arrivals->left), by_id);
}

/* Open and locked; -1: it is not there, or *ret_taken: another fetch has it. */
static int lock(const char *path, bool *ret_taken)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;

    *ret_taken = folder >= 0 && flock(folder, LOCK_EX | LOCK_NB) < 0;
    if (folder < 0 || (!*ret_taken && fstat(folder, &status) == 0 && status.st_nlink > 0))
        return folder;
    close(folder); /* or whoever had it has removed it meanwhile */
    return -1;
}

/* What somebody who was killed long ago has left for other destinations. */
static void remove_stale(const char *state)
{
    DIR *folder = opendir(state);
    char path[LIMIT_PATH_BYTES];
    struct stat status;
    bool taken;

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        _cleanup_(closep) int fd = -1;

        if (strlen(entry->d_name) == 32 &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", state, entry->d_name) < sizeof(path) &&
            lstat(path, &status) == 0 && status.st_mtime + STALE_S < time(NULL) &&
            (fd = lock(path, &taken)) >= 0)
            folder_remove(path);
    }
    if (folder)
        closedir(folder);
}

static void take(struct arrivals *arrivals)
{
    bool taken;

    arrivals->folder = lock(arrivals->path, &taken);
    if (taken)
        arrivals->path[0] = '\0';
}

void arrivals_open(struct arrivals *arrivals, const char *destination)
{
    char state[LIMIT_PATH_BYTES - 64], hex[33];
    struct stat there, here;
    struct block_id hash;

    *arrivals = (struct arrivals){.folder = -1, .file = -1};
    if (farm_state_folder("arriving", state, sizeof(state)) != 0)
        return;
    remove_stale(state);
    arrivals->beside =
        stat(destination, &there) < 0 || stat(state, &here) < 0 || there.st_dev == here.st_dev;
    digest(destination, strlen(destination), &hash);
    snprintf(arrivals->path, sizeof(arrivals->path), "%s/%s", state,
             hex_encode(hash.bytes, 16, hex));
    take(arrivals);
    if (arrivals->folder >= 0)
        list_files(arrivals);
    arrivals->own = arrivals->newest + 1;
}

void arrivals_again(struct arrivals *arrivals)
{
    if (arrivals->folder < 0 || arrivals->own > arrivals->newest)
        return;
    closep(&arrivals->file);
    arrivals->file = -1;
    arrivals->n_left = 0;
    arrivals->bytes = 0;
    list_files(arrivals);
    arrivals->own = arrivals->newest + 1;
}

bool arrivals_get(const struct arrivals *arrivals, const struct block_id *id, struct bytes *sealed)
{
    const struct arrival *found =
        arrivals->n_left ? bsearch(id, arrivals->left, arrivals->n_left, sizeof(*found), by_id)
                         : NULL;
    struct block_id is;
    char name[24];

    if (!found)
        return false;
    _cleanup_(closep) int fd =
        openat(arrivals->folder, name_of(found->number, name), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    sealed->size = 0;
    if (fd < 0 || bytes_reserve(sealed, found->size) != 0 ||
        pread(fd, sealed->data, found->size, (off_t)found->offset) != (ssize_t)found->size)
        return false;
    digest(sealed->data, found->size, &is);
    if (by_id(&is, id) != 0)
        return false;
    sealed->size = found->size;
    return true;
}

/* ---- what comes ---- */

static void drop(struct arrivals *arrivals, uint64_t number)
{
    struct stat status;
    char name[24];

    if (fstatat(arrivals->folder, name_of(number, name), &status, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (unlinkat(arrivals->folder, name, 0) == 0)
        arrivals->bytes -=
            (uint64_t)status.st_size < arrivals->bytes ? (uint64_t)status.st_size : arrivals->bytes;
}

void arrivals_drop(struct arrivals *arrivals, uint64_t needed)
{
    for (; arrivals->own < needed && arrivals->own <= arrivals->newest; arrivals->own++)
        drop(arrivals, arrivals->own);
    if (arrivals->own > arrivals->newest) {
        closep(&arrivals->file);
        arrivals->file = -1;
    }
}

/* For the rest of this fetch: the disk is for the files themselves, and for their receipts. */
static void give_up(struct arrivals *arrivals)
{
    folder_remove(arrivals->path);
    closep(&arrivals->file);
    closep(&arrivals->folder);
    arrivals->file = arrivals->folder = -1;
    arrivals->path[0] = '\0';
}

void arrivals_next(struct arrivals *arrivals, uint64_t needed, uint64_t coming_bytes)
{
    char name[24];

    if (arrivals->folder < 0 && arrivals->path[0] && mkdir(arrivals->path, 0700) == 0)
        take(arrivals);
    if (arrivals->folder < 0)
        return;
    if (volume_free_bytes(arrivals->path) <
        volume_reserve_bytes(arrivals->path) + (arrivals->beside ? coming_bytes : 0)) {
        give_up(arrivals);
        return;
    }
    arrivals_drop(arrivals, needed);
    for (; arrivals->bytes > ARRIVALS_BYTES && arrivals->oldest <= arrivals->newest;
         arrivals->oldest++)
        drop(arrivals, arrivals->oldest);
    closep(&arrivals->file);
    arrivals->newest++;
    arrivals->file = openat(arrivals->folder, name_of(arrivals->newest, name),
                            O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (arrivals->oldest == 0)
        arrivals->oldest = arrivals->newest;
}

void arrivals_add(struct arrivals *arrivals, const struct block_id *id, const void *sealed,
                  size_t size)
{
    struct head head = {*id, (uint32_t)size};
    const struct iovec parts[] = {{&head, sizeof(head)}, {(void *)sealed, size}};

    if (arrivals->file < 0)
        return;
    if (writev(arrivals->file, parts, 2) == (ssize_t)(sizeof(head) + size))
        arrivals->bytes += sizeof(head) + size;
    else
        give_up(arrivals);
}

void arrivals_close(struct arrivals *arrivals, bool home)
{
    if (arrivals->folder >= 0 && home)
        folder_remove(arrivals->path);
    closep(&arrivals->file);
    closep(&arrivals->folder);
    free(arrivals->left);
    *arrivals = (struct arrivals){.folder = -1, .file = -1};
}
