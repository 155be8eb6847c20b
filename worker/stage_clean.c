/* stage_clean.c - see stage_clean.h. Nothing of the task runs any more: what is looked at here stays
 * as it is. Links are not followed. */
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

static int clean(const struct stage *stage, const char *path);

static int clean_entry(const struct stage *stage, int fd, const char *folder, const char *name)
{
    char path[LIMIT_PATH_BYTES];

    if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if ((errno != EISDIR && errno != EPERM) ||
        (size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
        return -errno;
    return made_by_stage(stage, path) ? clean(stage, path) : folder_remove(path);
}

static int clean_folder(const struct stage *stage, DIR *dir, const char *path)
{
    struct dirent *entry;
    struct stat status;
    int r = 0;

    if (fstat(dirfd(dir), &status) < 0)
        return -errno;
    if ((status.st_mode & 07777) != 0700 || status.st_uid != geteuid())
        return -EEXIST;
    while (r == 0 && (errno = 0, entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = clean_entry(stage, dirfd(dir), path, entry->d_name);
    return r == 0 && errno ? -errno : r;
}

static int clean(const struct stage *stage, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    r = clean_folder(stage, dir, path);
    closedir(dir);
    return r;
}

int stage_clean(const struct stage *stage)
{
    return stage->folder && stage->work ? clean(stage, stage->folder) : -ENOENT;
}
