/* stage_clean.c - see stage_clean.h. Nothing of the task runs any more: what is looked at here
 * stays as it is. Links are not followed. */
#include <worker/stage_clean.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether `folder` is `path`, or has it below it. */
static bool leads_to(const char *folder, const char *path)
{
    size_t size = strlen(folder);

    return strncmp(folder, path, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

static bool made_by_stage(const struct stage *stage, const char *path)
{
    char tmp[LIMIT_PATH_BYTES];

    snprintf(tmp, sizeof(tmp), "%s/tmp", stage->work);
    if (leads_to(path, tmp))
        return true;
    for (size_t i = 0; i < stage->n_maps; i++)
        if (leads_to(path, stage->maps[i].to))
            return true;
    return false;
}

static int clean(struct stage *stage, const char *path);

/* 1: it stays. */
static int clean_entry(struct stage *stage, int fd, const char *folder,
                       const struct dirent64 *entry)
{
    char path[LIMIT_PATH_BYTES];
    int r;

    if (entry->d_type != DT_DIR && (unlinkat(fd, entry->d_name, 0) == 0 || errno == ENOENT))
        return 0;
    if ((entry->d_type != DT_DIR && errno != EISDIR && errno != EPERM) ||
        (size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= sizeof(path))
        return -EEXIST;
    if (!made_by_stage(stage, path))
        return folder_remove(path);
    r = clean(stage, path);
    return r < 0 ? r : 1;
}

/* Not by readdir(): it takes three calls more for each of these folders, which are mostly empty. */
static int clean(struct stage *stage, const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _Alignas(struct dirent64) char entries[2048];
    struct stat status;
    bool empty = true;
    ssize_t n;

    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if ((status.st_mode & 07777) != 0700 || status.st_uid != geteuid())
        return -EEXIST;
    while ((n = getdents64(fd, entries, sizeof(entries))) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            int r = 0;

            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                r = clean_entry(stage, fd, path, entry);
            if (r < 0)
                return r;
            empty = empty && r == 0;
            at += entry->d_reclen;
        }
    if (n < 0)
        return -errno;
    still_note(&stage->still, path, &status, empty);
    return 0;
}

int stage_clean(struct stage *stage)
{
    if (still_same(stage->still))
        return 0;
    still_free(TAKE_PTR(stage->still));
    if (!stage->folder || !stage->work)
        return -ENOENT;
    stage->still = still_new(stage->folder);
    return clean(stage, stage->folder);
}
