/* collect.c - see collect.h.
 *
 * Two walks of the same folders and a comparison. A task cannot be trusted to say what it wrote,
 * and a file's modification time can be set back, so a file counts as changed when anything that
 * identifies its content differs. The time of its last change of state nobody can set.
 */
#include <worker/collect.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/limits.h>

struct mark {
    uint32_t root;
    char *path;
    uint64_t size;
    int64_t mtime_ns, ctime_ns;
    ino_t inode;
};

struct marks {
    struct mark *items;
    size_t n, capacity;
};

struct place {
    dev_t device;
    ino_t inode;
    bool empty;
};

struct collect {
    const char *const *folders;
    size_t n_folders;
    const struct still *still;
    struct marks before, after;
};

/* One walk over all folders. */
struct walk {
    const struct collect *collect;
    struct marks *marks;
    struct place places[LIMIT_OUTPUTS]; /* of the folders, so that one inside another is known */
    struct bytes *notes;                /* NULL: nobody asks */
    struct bytes *why;
    uint32_t root;
    char **pending; /* folders of this root still to be read, relative */
    size_t n_pending, capacity;
};

static void marks_deinit(struct marks *marks)
{
    for (size_t i = 0; i < marks->n; i++)
        free(marks->items[i].path);
    free(marks->items);
    *marks = (struct marks){0};
}

static int marks_add(struct marks *marks, uint32_t root, const char *path, const struct stat *stat)
{
    struct mark *mark;

    if (marks->n >= COLLECT_FILES_MAX)
        return COLLECT_E_LIMIT;
    if (marks->n == marks->capacity) {
        size_t capacity = marks->capacity ? marks->capacity * 2 : 64;
        struct mark *items = reallocarray(marks->items, capacity, sizeof(*items));

        if (!items)
            return -ENOMEM;
        marks->items = items;
        marks->capacity = capacity;
    }
    mark = &marks->items[marks->n];
    *mark = (struct mark){.root = root,
                          .path = strdup(path),
                          .size = (uint64_t)stat->st_size,
                          .mtime_ns = stat->st_mtim.tv_sec * 1000000000LL + stat->st_mtim.tv_nsec,
                          .ctime_ns = stat->st_ctim.tv_sec * 1000000000LL + stat->st_ctim.tv_nsec,
                          .inode = stat->st_ino};
    if (!mark->path)
        return -ENOMEM;
    marks->n++;
    return 0;
}

static int by_path(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;

    if (x->root != y->root)
        return x->root < y->root ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* ---- walking ---- */

static int note(struct walk *walk, const char *path, const char *why)
{
    if (!walk->notes)
        return 0;
    return bytes_printf(walk->notes, "westlight: left behind: %s/%s: %s\n",
                        walk->collect->folders[walk->root], path, why);
}

/* What could not be looked at may hold a file that should come home. Only what is gone is no loss:
 * the task, or something of it, took it away. */
static int unreadable(struct walk *walk, const char *path, int error)
{
    if (error == ENOENT)
        return 0;
    (void)bytes_printf(walk->why, "%s%s%s cannot be read: %s", walk->collect->folders[walk->root],
                       *path ? "/" : "", path, strerror(error));
    return -error;
}

/* A link that the list of files could not hold must not cost the frame beside it. */
static int walk_link(struct walk *walk, int fd, const char *name, const char *path,
                     const struct stat *stat)
{
    char target[LIMIT_PATH_BYTES];
    int r = manifest_link_read(fd, name, walk->collect->folders[walk->root], path, target, NULL);

    if (r < 0)
        return unreadable(walk, path, -r);
    if (r == MANIFEST_E_PATH)
        return note(walk, path, "the link leads out of the output folder, or may");
    if (r > 0)
        return note(walk, path, "the link's target is too long");
    return marks_add(walk->marks, walk->root, path, stat);
}

static bool other_output(const struct walk *walk, const struct stat *stat)
{
    for (size_t i = 0; i < walk->collect->n_folders; i++)
        if (i != walk->root && walk->places[i].inode == stat->st_ino &&
            walk->places[i].device == stat->st_dev)
            return true;
    return false;
}

static int walk_later(struct walk *walk, const char *path)
{
    if (walk->n_pending == walk->capacity) {
        size_t capacity = walk->capacity ? walk->capacity * 2 : 16;
        char **pending = reallocarray(walk->pending, capacity, sizeof(*pending));

        if (!pending)
            return -ENOMEM;
        walk->pending = pending;
        walk->capacity = capacity;
    }
    walk->pending[walk->n_pending] = strdup(path);
    if (!walk->pending[walk->n_pending])
        return -ENOMEM;
    walk->n_pending++;
    return 0;
}

static int walk_item(struct walk *walk, int fd, const char *folder, const char *name)
{
    char path[LIMIT_PATH_BYTES];
    struct stat stat;
    int size = snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", name);

    if (size < 0 || (size_t)size >= sizeof(path))
        return unreadable(walk, folder, ENAMETOOLONG);
    if (fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        return unreadable(walk, path, errno);
    if (S_ISDIR(stat.st_mode))
        return other_output(walk, &stat) ? 0 : walk_later(walk, path);
    if (S_ISLNK(stat.st_mode))
        return walk_link(walk, fd, name, path, &stat);
    if (!S_ISREG(stat.st_mode))
        return note(walk, path, "not a file, folder or link");
    return marks_add(walk->marks, walk->root, path, &stat);
}

static int walk_folder(struct walk *walk, int root_fd, const char *path)
{
    int fd = openat(root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *item;
    int r = 0;

    if (!folder) {
        r = unreadable(walk, path, errno);
        if (fd >= 0)
            close(fd);
        return r;
    }
    while (r == 0 && (errno = 0, item = readdir(folder)))
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
            r = walk_item(walk, dirfd(folder), path, item->d_name);
    if (r == 0 && errno)
        r = unreadable(walk, path, errno);
    closedir(folder);
    return r;
}

static int walk_root(struct walk *walk)
{
    _cleanup_(closep) int fd = -1;
    int r;

    for (uint32_t i = 0; i < walk->root; i++)
        if (walk->places[i].inode && walk->places[i].inode == walk->places[walk->root].inode &&
            walk->places[i].device == walk->places[walk->root].device)
            return 0; /* declared twice: the first one has it */
    if (walk->places[walk->root].empty)
        return 0;
    fd = open(walk->collect->folders[walk->root], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return unreadable(walk, "", errno);
    r = walk_folder(walk, fd, "");
    while (walk->n_pending > 0) {
        char *path = walk->pending[--walk->n_pending];

        if (r == 0)
            r = walk_folder(walk, fd, path);
        free(path);
    }
    return r;
}

static int walk_all(const struct collect *collect, struct marks *marks, struct bytes *notes,
                    struct bytes *why)
{
    struct walk walk = {.collect = collect, .marks = marks, .notes = notes, .why = why};
    struct stat at;
    int r = 0;

    for (size_t i = 0; i < collect->n_folders; i++)
        if (lstat(collect->folders[i], &at) == 0)
            walk.places[i] =
                (struct place){.device = at.st_dev,
                               .inode = at.st_ino,
                               .empty = still_empty(collect->still, collect->folders[i], &at)};
    for (walk.root = 0; r == 0 && walk.root < collect->n_folders; walk.root++)
        r = walk_root(&walk);
    free(walk.pending);
    if (r == COLLECT_E_LIMIT)
        (void)bytes_printf(why, "the output folders hold more than %d files", COLLECT_FILES_MAX);
    if (r == 0 && marks->n > 1)
        qsort(marks->items, marks->n, sizeof(*marks->items), by_path);
    return r;
}

/* ---- before and after ---- */

int collect_new(const char *const *folders, size_t n_folders, const struct still *still,
                struct collect **ret_collect, struct bytes *why)
{
    _cleanup_(collect_freep) struct collect *collect = NULL;
    int r;

    CHECK(n_folders <= LIMIT_OUTPUTS);
    collect = calloc(1, sizeof(*collect));
    if (!collect)
        return -ENOMEM;
    collect->folders = folders;
    collect->n_folders = n_folders;
    collect->still = still;
    r = walk_all(collect, &collect->before, NULL, why);
    if (r != 0)
        return r;
    *ret_collect = TAKE_PTR(collect);
    return 0;
}

void collect_free(struct collect *collect)
{
    if (!collect)
        return;
    marks_deinit(&collect->before);
    marks_deinit(&collect->after);
    free(collect);
}

static bool changed(const struct collect *collect, const struct mark *now)
{
    const struct mark *then;

    if (collect->before.n == 0)
        return true;
    then = bsearch(now, collect->before.items, collect->before.n, sizeof(*now), by_path);
    return !then || then->size != now->size || then->mtime_ns != now->mtime_ns ||
           then->ctime_ns != now->ctime_ns || then->inode != now->inode;
}

int collect_list(struct collect *collect, struct manifest_file **ret_files, size_t *ret_n,
                 struct bytes *notes, struct bytes *why)
{
    _cleanup_(freep) struct manifest_file *files = NULL;
    size_t n = 0;
    int r;

    marks_deinit(&collect->after);
    r = walk_all(collect, &collect->after, notes, why);
    if (r != 0)
        return r;
    files = calloc(collect->after.n ? collect->after.n : 1, sizeof(*files));
    if (!files)
        return -ENOMEM;
    for (size_t i = 0; i < collect->after.n; i++) {
        const struct mark *mark = &collect->after.items[i];

        if (changed(collect, mark))
            files[n++] = (struct manifest_file){.path = mark->path, .root = mark->root};
    }
    *ret_files = TAKE_PTR(files);
    *ret_n = n;
    return 0;
}

int collect_seal(struct collect *collect, struct sealer *sealer, const uint8_t secret[32],
                 const struct manifest_file *files, size_t n_files, manifest_emit *emit, void *user,
                 struct collected *ret_collected, struct bytes *why)
{
    struct collected collected = {.files = n_files};
    int r = manifest_pack(sealer, secret, NULL, collect->folders, collect->n_folders, files,
                          n_files, emit, user, &collected.manifest, &collected.file_bytes, why);

    if (r != 0)
        return r;
    *ret_collected = collected;
    return 0;
}

void collected_deinit(struct collected *collected)
{
    bytes_wipe_deinit(&collected->manifest);
}
