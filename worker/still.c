/* still.c - see still.h. */
#include <worker/still.h>

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define STILL_LATELY_NS NS_PER_S
#define STILL_OLD_NS    (50 * NS_PER_MS) /* a few ticks of any clock that times are taken from */

struct note {
    char *path;
    dev_t device;
    ino_t inode;
    struct timespec changed;
    bool empty;
};

struct still {
    struct note notes[STILL_MAX];
    size_t n;
    int64_t same_ns; /* when they were seen to be, last; 0: not yet */
};

struct still *still_new(const char *path)
{
    struct statfs volume;

    if (statfs(path, &volume) < 0)
        return NULL;
    switch ((unsigned long)volume.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return calloc(1, sizeof(struct still));
    default:
        return NULL;
    }
}

void still_free(struct still *still)
{
    if (!still)
        return;
    for (size_t i = 0; i < still->n; i++)
        free(still->notes[i].path);
    free(still);
}

/* By the clock that the kernel takes these times from: it stands still between ticks, and for
 * longer where the machine itself does. One of whole seconds is of a file system that knows no
 * finer. */
static bool old(const struct timespec *changed)
{
    struct timespec now;

    return changed->tv_nsec != 0 && clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0 &&
           (now.tv_sec - changed->tv_sec) * NS_PER_S + now.tv_nsec - changed->tv_nsec >
               STILL_OLD_NS;
}

void still_note(struct still **still, const char *path, const struct stat *before, bool empty)
{
    struct still *notes = *still;
    char *copy = notes && notes->n < STILL_MAX && old(&before->st_ctim) ? strdup(path) : NULL;

    if (!copy) {
        still_free(TAKE_PTR(*still));
        return;
    }
    notes->notes[notes->n++] = (struct note){.path = copy,
                                             .device = before->st_dev,
                                             .inode = before->st_ino,
                                             .changed = before->st_ctim,
                                             .empty = empty};
}

static bool same(const struct note *note, const struct stat *now)
{
    return now->st_ino == note->inode && now->st_dev == note->device &&
           now->st_ctim.tv_sec == note->changed.tv_sec &&
           now->st_ctim.tv_nsec == note->changed.tv_nsec;
}

bool still_same(struct still *still)
{
    struct stat now;

    if (!still || still->n == 0)
        return false;
    for (size_t i = 0; i < still->n; i++)
        if (lstat(still->notes[i].path, &now) < 0 || !same(&still->notes[i], &now))
            return false;
    still->same_ns = clock_monotonic_ns();
    return true;
}

bool still_lately(struct still *still)
{
    return (still && still->same_ns > 0 &&
            clock_monotonic_ns() - still->same_ns < STILL_LATELY_NS) ||
           still_same(still);
}

static const struct note *find(const struct still *still, const char *path)
{
    for (size_t i = 0; still && i < still->n; i++)
        if (strcmp(still->notes[i].path, path) == 0)
            return &still->notes[i];
    return NULL;
}

int still_make(const struct still *still, const char *path)
{
    return find(still, path) ? 0 : folder_make(path, 0700);
}

bool still_empty(const struct still *still, const char *path, const struct stat *now)
{
    const struct note *note = find(still, path);

    return note && note->empty && same(note, now);
}
