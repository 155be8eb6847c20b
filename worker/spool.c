/* spool.c - see spool.h.
 *
 * The result is written last, so that a whole one says that all else was written. Blocks are not
 * synced: a killed worker finds them all the same, and after a power cut one that is lost or
 * damaged is seen by its name when it is sent, and the task is run again. */
#include <worker/spool.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/limits.h>

#define RESULT_NAME  "result"
#define PLAIN_SUFFIX ".refs"

static const uint8_t NO_JOB[REUSE_KEY_BYTES]; /* one folder is like another */

int spool_new(const char *state, uint64_t number, struct reuse *reuse, struct spool *ret_spool)
{
    struct spool spool = {.reuse = reuse};
    int r;

    if (reuse && (spool.folder = reuse_take(reuse, NO_JOB, NULL))) {
        *ret_spool = spool;
        return 0;
    }
    if (asprintf(&spool.folder, "%s/spool/%llu", state, (unsigned long long)number) < 0)
        return -ENOMEM;
    r = folder_make(spool.folder, 0700);
    if (r < 0) {
        free(spool.folder);
        return r;
    }
    crash_point("spool.made");
    *ret_spool = spool;
    return 0;
}

void spool_deinit(struct spool *spool)
{
    free(spool->folder);
    if (spool->result)
        wl__result__free_unpacked(spool->result, NULL);
    *spool = (struct spool){0};
}

/* Without its result a folder counts as unfinished, should the rest of it stay. True where all it
 * has is a result that was made unreadable in its place: then it can be used again. */
static bool result_forget(const struct spool *spool)
{
    static const uint8_t nothing[SPOOL_HEAD_BYTES];
    _cleanup_(closep) int fd = -1;
    char path[LIMIT_PATH_BYTES];

    if ((size_t)snprintf(path, sizeof(path), "%s/" RESULT_NAME, spool->folder) >= sizeof(path))
        return false;
    if (spool->reuse && !spool->blocks)
        fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && pwrite(fd, nothing, sizeof(nothing), 0) == sizeof(nothing))
        return true;
    (void)unlink(path);
    return false;
}

void spool_remove(struct spool *spool)
{
    if (spool->folder) {
        bool again = result_forget(spool);

        crash_point("spool.result.removed");
        if (again)
            reuse_give(spool->reuse, NO_JOB, TAKE_PTR(spool->folder), NULL);
        else
            (void)folder_remove(spool->folder);
        crash_point("spool.removed");
    }
    spool_deinit(spool);
}

/* The head says what the Result behind it must be. */
static void head_make(const void *packed, size_t size, uint8_t head[SPOOL_HEAD_BYTES])
{
    struct block_id name;

    digest(packed, size, &name);
    memcpy(head, name.bytes, 32);
    for (int i = 0; i < 4; i++)
        head[32 + i] = (uint8_t)(size >> (8 * i));
}

static Wl__Result *result_read(const struct bytes *file)
{
    uint8_t head[SPOOL_HEAD_BYTES];
    size_t size = 0;

    if (file->size < sizeof(head))
        return NULL;
    for (int i = 0; i < 4; i++)
        size |= (size_t)file->data[32 + i] << (8 * i);
    if (size > file->size - sizeof(head))
        return NULL;
    head_make(file->data + sizeof(head), size, head);
    if (memcmp(head, file->data, sizeof(head)) != 0)
        return NULL;
    return wl__result__unpack(NULL, size, file->data + sizeof(head));
}

int spool_open(const char *folder, struct spool *ret_spool)
{
    _cleanup_(bytes_deinit) struct bytes file = {0};
    _cleanup_(spool_deinit) struct spool spool = {0};
    char path[LIMIT_PATH_BYTES];
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/" RESULT_NAME, folder) >= sizeof(path))
        return -ENAMETOOLONG;
    r = file_read(path, SPOOL_HEAD_BYTES + LIMIT_CONTROL_BYTES, &file);
    if (r < 0)
        return r == -EFBIG ? SPOOL_E_FORM : r;
    spool.folder = strdup(folder);
    if (!spool.folder)
        return -ENOMEM;
    spool.result = result_read(&file);
    if (!spool.result || !spool.result->lease || spool.result->lease->job.len != 16)
        return SPOOL_E_FORM;
    *ret_spool = spool;
    spool = (struct spool){0};
    return 0;
}

/* ---- blocks ---- */

static int block_path(const struct spool *spool, const struct block_id *id, bool plain,
                      char path[LIMIT_PATH_BYTES])
{
    char hex[65];

    if (!spool->folder)
        return -ENOENT; /* it could not be made */
    hex_encode(id->bytes, sizeof(id->bytes), hex);
    if ((size_t)snprintf(path, LIMIT_PATH_BYTES, "%s/%s%s", spool->folder, hex,
                         plain ? PLAIN_SUFFIX : "") >= LIMIT_PATH_BYTES)
        return -ENAMETOOLONG;
    return 0;
}

int spool_put(struct spool *spool, const struct block_id *id, const void *sealed, size_t size,
              bool plain)
{
    char path[LIMIT_PATH_BYTES];
    _cleanup_(closep) int fd = -1;
    int r = block_path(spool, id, plain, path);

    if (r < 0)
        return r;
    spool->blocks = true;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    crash_point("spool.block.created");
    r = fd_write_all(fd, sealed, size);
    crash_point("spool.block.written");
    return r;
}

int spool_get(const struct spool *spool, const struct block_id *id, bool plain, struct bytes *out)
{
    char path[LIMIT_PATH_BYTES];
    int r = block_path(spool, id, plain, path);

    if (r < 0)
        return r;
    bytes_deinit(out);
    *out = (struct bytes){0};
    return file_read(path, LIMIT_SEALED_BYTES, out);
}

int spool_blocks(const struct spool *spool, bool plain, struct block_id **ret_ids, size_t *ret_n)
{
    _cleanup_(bytes_deinit) struct bytes ids = {0};
    DIR *folder = opendir(spool->folder);
    struct dirent *item;
    int r = 0;

    if (!folder)
        return -errno;
    while (r == 0 && (errno = 0, item = readdir(folder))) {
        char name[65];
        struct block_id id;

        if (strlen(item->d_name) != 64 + (plain ? strlen(PLAIN_SUFFIX) : 0) ||
            (plain && strcmp(item->d_name + 64, PLAIN_SUFFIX) != 0))
            continue;
        snprintf(name, sizeof(name), "%.64s", item->d_name);
        if (hex_decode(name, id.bytes, sizeof(id.bytes)) == 0)
            r = bytes_append(&ids, &id, sizeof(id));
    }
    if (r == 0 && errno)
        r = -errno;
    closedir(folder);
    if (r < 0)
        return r;
    *ret_n = ids.size / sizeof(struct block_id);
    *ret_ids = (struct block_id *)(void *)TAKE_PTR(ids.data);
    return 0;
}

void spool_clear(struct spool *spool)
{
    for (int plain = 0; plain < 2; plain++) {
        _cleanup_(freep) struct block_id *ids = NULL;
        char path[LIMIT_PATH_BYTES];
        size_t n = 0;

        if (spool_blocks(spool, plain, &ids, &n) < 0)
            return;
        for (size_t i = 0; i < n; i++)
            if (block_path(spool, &ids[i], plain, path) == 0)
                (void)unlink(path);
    }
}

/* ---- the result ---- */

/* In one write, in place: to a file system that is less than to bring another file there. */
static int result_write(const char *path, const struct bytes *file)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd_write_all(fd, file->data, file->size);
}

int spool_save(struct spool *spool, const Wl__Result *result)
{
    _cleanup_(bytes_deinit) struct bytes file = {0};
    size_t size = wl__result__get_packed_size(result);
    char path[LIMIT_PATH_BYTES];
    uint8_t *packed;
    Wl__Result *copy;
    bool sync = result->usage && result->usage->wall_ns >= SPOOL_SYNC_NS;
    int r = bytes_reserve(&file, SPOOL_HEAD_BYTES + size);

    if (r < 0)
        return r;
    packed = file.data + SPOOL_HEAD_BYTES;
    wl__result__pack(result, packed);
    head_make(packed, size, file.data);
    file.size = SPOOL_HEAD_BYTES + size;
    copy = wl__result__unpack(NULL, size, packed);
    if (!copy)
        return -ENOMEM;
    if (spool->result)
        wl__result__free_unpacked(spool->result, NULL);
    spool->result = copy;
    if (!spool->folder)
        return -ENOENT;
    if ((size_t)snprintf(path, sizeof(path), "%s/" RESULT_NAME, spool->folder) >= sizeof(path))
        return -ENAMETOOLONG;
    crash_point("spool.result");
    r = sync ? file_write(path, file.data, file.size, 0600) : result_write(path, &file);
    crash_point("spool.result.written");
    return r;
}

/* ---- starting ---- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int numbers(const char *path, struct bytes *ret_numbers)
{
    DIR *folder = opendir(path);
    struct dirent *item;
    int r = 0;

    if (!folder)
        return -errno;
    while (r == 0 && (errno = 0, item = readdir(folder))) {
        char *end;
        uint64_t number = strtoull(item->d_name, &end, 10);

        if (end != item->d_name && *end == '\0')
            r = bytes_append(ret_numbers, &number, sizeof(number));
    }
    if (r == 0 && errno)
        r = -errno;
    closedir(folder);
    return r;
}

int spool_load(const char *state, struct spool **ret_spools, size_t *ret_n, uint64_t *ret_next)
{
    _cleanup_(bytes_deinit) struct bytes found = {0};
    char path[LIMIT_PATH_BYTES];
    struct spool *spools;
    const uint64_t *order;
    size_t n, kept = 0;
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/spool", state) >= sizeof(path) - 32)
        return -ENAMETOOLONG;
    r = folder_make(path, 0700);
    if (r == 0)
        r = numbers(path, &found);
    if (r < 0)
        return r;
    n = found.size / sizeof(uint64_t);
    spools = calloc(n + 1, sizeof(*spools));
    if (!spools)
        return -ENOMEM;
    if (n > 0)
        qsort(found.data, n, sizeof(uint64_t), by_number);
    order = (const uint64_t *)(const void *)found.data;
    for (size_t i = 0; i < n; i++) {
        char folder[LIMIT_PATH_BYTES + 32];

        snprintf(folder, sizeof(folder), "%s/%llu", path, (unsigned long long)order[i]);
        r = spool_open(folder, &spools[kept]);
        if (r == 0)
            kept++;
        else if (r == -ENOENT || r == SPOOL_E_FORM) /* unfinished, or nothing that can be sent */
            (void)folder_remove(folder);
        else /* hours of work: it may be readable the next time */
            log_error("spool", "folder=%s why=\"%s\" next=\"it is kept; start the worker again\"",
                      folder, strerror(-r));
    }
    *ret_spools = spools;
    *ret_n = kept;
    *ret_next = n > 0 ? order[n - 1] + 1 : 1;
    return 0;
}
