/* manifest_files.c - the file system side. The idea: every path is walked one component at a time
 * from an open folder and no link is followed, for reading as for writing, so that nothing that
 * runs beside us can lead us out of the folder.
 */
#include <proto/manifest_paths.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <proto/base/crash.h>
#include <proto/base/err.h>
#include <proto/block_set.h>
#include <proto/limits.h>
#include <proto/wire.h>

enum { FOLDER_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

static int open_folder(int at, const char *name, bool create)
{
    int fd = openat(at, name, FOLDER_FLAGS);

    if (fd < 0 && errno == ENOENT && create) {
        if (mkdirat(at, name, 0777) < 0 && errno != EEXIST)
            return -errno;
        fd = openat(at, name, FOLDER_FLAGS);
    }
    return fd < 0 ? -errno : fd;
}

int manifest_open_parent(int root, const char *path, bool create, int *ret_fd,
                         const char **ret_name)
{
    _cleanup_(closep) int folder = open_folder(root, ".", false);
    const char *slash;

    if (folder < 0)
        return folder;
    if (!manifest_path_ok(path))
        return MANIFEST_E_PATH;

    for (; (slash = strchr(path, '/')); path = slash + 1) {
        char name[NAME_MAX + 1] = {0};

        memcpy(name, path, (size_t)(slash - path));
        int next = open_folder(folder, name, create);
        if (next == -ELOOP || next == -ENOTDIR)
            return MANIFEST_E_PATH;
        if (next < 0)
            return next;
        close(folder);
        folder = next;
    }
    *ret_fd = TAKE_FD(folder);
    *ret_name = path;
    return 0;
}

int manifest_link_read(int folder, const char *name, const char *root, const char *path,
                       char text[LIMIT_PATH_BYTES], struct bytes *why)
{
    char target[LIMIT_PATH_BYTES];
    size_t root_size = strlen(root), used = 0;
    ssize_t size = readlinkat(folder, name, target, sizeof(target));

    if (size < 0)
        return manifest_say(why, -errno, "%s/%s: %s", root, path, strerror(errno));
    if ((size_t)size >= sizeof(target))
        return manifest_say(why, MANIFEST_E_LIMIT, "%s/%s: the link's target is too long", root,
                            path);

    target[size] = 0;
    const char *rest = target;
    if (strncmp(target, root, root_size) == 0 && target[root_size] == '/') {
        rest = target + root_size + 1;
        for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/'))
            used += 3;
    }
    if (used + strlen(rest) >= LIMIT_PATH_BYTES)
        return manifest_say(why, MANIFEST_E_LIMIT, "%s/%s: the link's target is too long", root,
                            path);
    for (size_t i = 0; i < used; i += 3)
        memcpy(text + i, "../", 3);
    memcpy(text + used, rest, strlen(rest) + 1);
    if (!manifest_link_ok(path, text))
        return manifest_say(why, MANIFEST_E_PATH,
                            "%s/%s: a link out of the folder, to %s: put a copy in its place", root,
                            path, target);
    return 0;
}

/* ---- walk ---- */

struct names {
    char **paths;
    size_t n, capacity;
};

static void names_deinit(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->paths[i]);
    free(names->paths);
}

static int names_push(struct names *names, char *path)
{
    if (!path)
        return -ENOMEM;
    if (names->n == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 64;
        char **paths = realloc(names->paths, capacity * sizeof(*paths));
        if (!paths) {
            free(path);
            return -ENOMEM;
        }
        names->paths = paths;
        names->capacity = capacity;
    }
    names->paths[names->n++] = path;
    return 0;
}

static char *path_join(const char *folder, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s%s%s", folder, *folder ? "/" : "", name) < 0 ? NULL : path;
}

enum { LEFT_OUT = 64 }; /* beside MANIFEST_E_* */

struct folder_seen {
    dev_t device;
    ino_t inode;
};

struct walk {
    const char *root;
    const struct manifest_walk *rules;
    struct names found, folders; /* folders still to be read */
    struct folder_seen *seen;    /* those that links led to */
    size_t n_seen;
    struct bytes *why;
};

static int left_out(struct walk *walk, const char *path, const char *why)
{
    if (walk->rules->left_out)
        walk->rules->left_out(walk->rules->user, path, why);
    return LEFT_OUT;
}

/* Links can lead in a circle, so a folder is entered by a link once. */
static int seen_before(struct walk *walk, const struct stat *st)
{
    struct folder_seen *grown;

    for (size_t i = 0; i < walk->n_seen; i++)
        if (walk->seen[i].device == st->st_dev && walk->seen[i].inode == st->st_ino)
            return 1;
    grown = reallocarray(walk->seen, walk->n_seen + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    walk->seen = grown;
    grown[walk->n_seen++] = (struct folder_seen){st->st_dev, st->st_ino};
    return 0;
}

/* 0: `st` is what to take it for. */
static int walk_link(struct walk *walk, int folder, const char *name, const char *path,
                     struct stat *st)
{
    char target[LIMIT_PATH_BYTES];
    int r = manifest_link_read(folder, name, walk->root, path, target, walk->why);

    if (r != MANIFEST_E_PATH || !walk->rules->follow)
        return r;
    if (fstatat(folder, name, st, 0) < 0)
        return left_out(walk, path, "a link that leads nowhere");
    r = S_ISDIR(st->st_mode) ? seen_before(walk, st) : 0;
    return r > 0 ? left_out(walk, path, "a link to a folder that was taken already") : r;
}

/* `path` is taken over. */
static int walk_path(struct walk *walk, int folder, const char *name, char *path, struct stat *st)
{
    int r = 0;

    if (!path)
        return -ENOMEM;
    if (walk->rules->skip && walk->rules->skip(walk->rules->user, path, S_ISDIR(st->st_mode)))
        r = LEFT_OUT;
    else if (!manifest_path_ok(path))
        r = manifest_say(walk->why, MANIFEST_E_LIMIT, "%s/%s: the path is too long", walk->root,
                         path);
    else if (S_ISLNK(st->st_mode))
        r = walk_link(walk, folder, name, path, st);
    if (r == 0 && walk->found.n >= LIMIT_MANIFEST_FILES)
        r = manifest_say(walk->why, MANIFEST_E_LIMIT, "%s: more than %u files: make more roots",
                         walk->root, LIMIT_MANIFEST_FILES);
    if (r == 0 && !S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode) && !S_ISLNK(st->st_mode))
        r = left_out(walk, path, "neither a file, a folder nor a link");
    if (r == 0)
        return names_push(S_ISDIR(st->st_mode) ? &walk->folders : &walk->found, path);
    free(path);
    return r == LEFT_OUT ? 0 : r;
}

static int walk_entry(struct walk *walk, int folder, const char *folder_path, const char *name)
{
    struct stat st;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        (name[0] == '.' && !walk->rules->hidden))
        return 0;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno; /* gone since it was listed */
    return walk_path(walk, folder, name, path_join(folder_path, name), &st);
}

static int walk_open(struct walk *walk, int root, const char *path, int *ret_fd)
{
    _cleanup_(closep) int parent = -1;
    const char *name = ".";
    int r = *path ? manifest_open_parent(root, path, false, &parent, &name) : 0;

    if (r == MANIFEST_E_PATH && walk->rules->follow)
        *ret_fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else if (r)
        return manifest_say(walk->why, r, "%s/%s: a folder that cannot be read", walk->root, path);
    else
        *ret_fd = openat(*path ? parent : root, name,
                         walk->rules->follow ? FOLDER_FLAGS & ~O_NOFOLLOW : FOLDER_FLAGS);
    return *ret_fd < 0
               ? manifest_say(walk->why, -errno, "%s/%s: %s", walk->root, path, strerror(errno))
               : 0;
}

static int walk_folder(struct walk *walk, int root, const char *path)
{
    struct dirent *entry;
    int fd = -1, r = walk_open(walk, root, path, &fd);

    if (r)
        return r;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -ENOMEM;
    }
    while (r == 0 && (errno = 0, entry = readdir(dir)))
        r = walk_entry(walk, fd, path, entry->d_name);
    if (r == 0 && errno)
        r = manifest_say(walk->why, -errno, "%s/%s: %s", walk->root, path, strerror(errno));
    closedir(dir);
    return r;
}

static int name_compare(const void *a, const void *b)
{
    return manifest_path_compare(*(char *const *)a, *(char *const *)b);
}

int manifest_walk(const char *folder, const struct manifest_walk *rules, char ***ret_paths,
                  size_t *ret_n, struct bytes *why)
{
    struct walk walk = {.root = folder, .rules = rules, .why = why};
    _cleanup_(closep) int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0)
        return manifest_say(why, -errno, "%s: %s", folder, strerror(errno));

    int r = walk_folder(&walk, root, "");
    while (r == 0 && walk.folders.n) {
        char *path = walk.folders.paths[--walk.folders.n];
        r = walk_folder(&walk, root, path);
        free(path);
    }
    names_deinit(&walk.folders);
    free(walk.seen);
    if (r) {
        names_deinit(&walk.found);
        return r;
    }

    if (walk.found.n)
        qsort(walk.found.paths, walk.found.n, sizeof(char *), name_compare);
    *ret_paths = walk.found.paths;
    *ret_n = walk.found.n;
    return 0;
}

/* ---- write ---- */

static int file_fill(int fd, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                     struct bytes *why)
{
    const struct bytes *block = NULL;
    const Wl__BlockKey *held = NULL; /* what `block` is */

    for (size_t i = 0; i < entry->n_parts; i++) {
        const Wl__Part *part = entry->parts[i];
        struct block_key key;

        if (wire_block_key(part->block, &key))
            return manifest_say(why, MANIFEST_E_FORM, "%s: a part without a block", entry->path);
        int r = held && memcmp(held->id.data, key.id.bytes, sizeof(key.id)) == 0
                    ? 0
                    : fetch(user, &key, &block);
        if (r)
            return r;
        held = part->block;
        if (part->offset > block->size || part->length > block->size - part->offset)
            return manifest_say(why, MANIFEST_E_FORM, "%s: part %zu is not inside its block",
                                entry->path, i);
        r = fd_write_all(fd, block->data + part->offset, part->length);
        if (r < 0)
            return manifest_say(why, r, "%s: %s", entry->path, strerror(-r));
    }
    return 0;
}

/* The name for the moment of replacing, the same each time: what a killed program left is taken
 * away by whoever writes the file again. */
static void spare_name(const char *name, char ret_spare[32])
{
    struct block_id hash;
    char hex[17];

    digest(name, strlen(name), &hash);
    snprintf(ret_spare, 32, ".westlight-%s", hex_encode(hash.bytes, 8, hex));
}

static int link_make(int folder, const char *spare, const char *name, const char *target,
                     bool replace)
{
    if (!replace)
        return symlinkat(target, folder, name) < 0 ? -errno : 0;
    unlinkat(folder, spare, 0);
    if (symlinkat(target, folder, spare) == 0 && renameat(folder, spare, folder, name) == 0)
        return 0;
    int error = errno;
    unlinkat(folder, spare, 0);
    return -error;
}

static bool same_inode(int fd, int folder, const char *name)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && fstatat(folder, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Takes away what a killed program left under the name: nobody has that locked. */
static void spare_clear(int folder, const char *spare)
{
    _cleanup_(closep) int fd =
        openat(folder, spare, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && same_inode(fd, folder, spare))
        unlinkat(folder, spare, 0);
}

/* Locked before anybody could take it for left over, or else not ours: -EEXIST. */
static int spare_open(int folder, const char *spare, uint32_t mode)
{
    _cleanup_(closep) int fd =
        openat(folder, spare, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

    if (fd < 0)
        return -errno;
    (void)flock(fd, LOCK_EX | LOCK_NB); /* where that cannot be, nobody else's succeeds either */
    return same_inode(fd, folder, spare) ? TAKE_FD(fd) : -EEXIST;
}

/* Where the file system makes no files without a name (NFS): under the same one each time, so that
 * what was left there goes, or where another writes the file now, one that is nobody else's. */
static int open_temporary(int folder, uint32_t mode, char spare[32])
{
    uint8_t random[8];
    char hex[17];
    int r;

    spare_clear(folder, spare);
    r = spare_open(folder, spare, mode);
    if (r != -EEXIST)
        return r;
    r = random_bytes(random, sizeof(random));
    if (r < 0)
        return r;
    snprintf(spare, 32, ".westlight-%s", hex_encode(random, 8, hex));
    return spare_open(folder, spare, mode);
}

static int file_make(const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                     struct manifest_made *made, struct bytes *why)
{
    spare_name(made->name, made->spare);
    if (*entry->link) {
        made->link = entry->link;
        return 0;
    }
    /* The mode goes through the umask, as with any program a person runs. */
    made->fd = nameless_open(made->folder, entry->mode & 0777);
    made->nameless = made->fd >= 0;
    if (!made->nameless) {
        int fd = open_temporary(made->folder, entry->mode & 0777, made->spare);
        if (fd < 0)
            return manifest_say(why, fd, "%s: %s", entry->path, strerror(-fd));
        made->fd = fd;
    }
    crash_point("home.created");
    int r = file_fill(made->fd, entry, fetch, user, why);
    crash_point("home.written");
    return r;
}

void manifest_drop_file(struct manifest_made *made)
{
    if (made->fd >= 0 && !made->nameless)
        unlinkat(made->folder, made->spare, 0);
    closep(&made->fd);
    closep(&made->folder);
}

int manifest_make_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                       struct manifest_made *ret_made, struct bytes *why)
{
    struct manifest_made made = {.fd = -1};
    const char *name;
    struct stat st;

    int r = manifest_entry_check(entry, why);
    if (r)
        return r;
    r = manifest_open_parent(folder, entry->path, true, &made.folder, &name);
    if (r == MANIFEST_E_PATH)
        return manifest_say(why, r, "%s: one of its parents is a link or a file", entry->path);
    if (r < 0)
        return manifest_say(why, r, "%s: %s", entry->path, strerror(-r));
    memcpy(made.name, name, strlen(name) + 1); /* manifest_path_ok */
    if (fstatat(made.folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        r = manifest_say(why, MANIFEST_E_PATH, "%s: a folder is in its way", entry->path);
    if (r == 0)
        r = file_make(entry, fetch, user, &made, why);
    if (r)
        manifest_drop_file(&made);
    else
        *ret_made = made;
    return r;
}

/* What stands there may be replaced, as it was decided; or nothing does, *ret_replace is false. */
static int still_stands(const struct manifest_made *made, const struct manifest_stood *stood,
                        bool *ret_replace)
{
    const struct stat *then = &stood->status;
    struct stat now;

    *ret_replace = false;
    if (fstatat(made->folder, made->name, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    *ret_replace = true;
    return stood->there && now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
                   now.st_size == then->st_size && now.st_mtim.tv_sec == then->st_mtim.tv_sec &&
                   now.st_mtim.tv_nsec == then->st_mtim.tv_nsec
               ? 0
               : -EEXIST;
}

/* Of a file under a temporary name. NFS cannot rename without replacing, but link; where neither
 * can be, what is there was looked at a moment ago. */
static int rename_file(int folder, const char *spare, const char *name, bool replace)
{
    if (!replace) {
        if (renameat2(folder, spare, folder, name, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EINVAL && errno != ENOSYS)
            return -errno;
        if (linkat(folder, spare, folder, name, 0) == 0)
            return unlinkat(folder, spare, 0) < 0 ? -errno : 0;
        if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
            return -errno;
    }
    return renameat(folder, spare, folder, name) < 0 ? -errno : 0;
}

int manifest_name_file(struct manifest_made *made, bool sync, const struct manifest_stood *stood)
{
    int r = made->fd >= 0 && sync && fsync(made->fd) < 0 ? -errno : 0;
    bool replace = true;

    crash_point("home.synced");
    if (r == 0 && stood)
        r = still_stands(made, stood, &replace);
    if (r == 0 && made->fd < 0)
        r = link_make(made->folder, made->spare, made->name, made->link, replace);
    else if (r == 0 && made->nameless)
        r = nameless_name(made->fd, made->folder, made->spare, made->name, replace);
    else if (r == 0)
        r = rename_file(made->folder, made->spare, made->name, replace);
    crash_point("home.named");
    if (r == 0) {
        made->nameless = true; /* there is nothing to take away */
        if ((made->fd >= 0
                 ? fstat(made->fd, &made->status)
                 : fstatat(made->folder, made->name, &made->status, AT_SYMLINK_NOFOLLOW)) < 0)
            r = -errno;
    }
    manifest_drop_file(made);
    return r == -EISDIR ? MANIFEST_E_PATH : r;
}

int manifest_write_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                        bool sync, struct bytes *why)
{
    struct manifest_made made;
    int r = manifest_make_file(folder, entry, fetch, user, &made, why);

    if (r == 0 && (r = manifest_name_file(&made, sync, NULL)) != 0)
        manifest_say(why, r, "%s: %s", entry->path,
                     r < 0 ? strerror(-r) : "a folder is in its way");
    return r;
}

/* ---- compare ---- */

static int same_link(int folder, const Wl__FileEntry *entry, bool *ret_same)
{
    char target[LIMIT_PATH_BYTES];
    ssize_t n = readlinkat(folder, entry->path, target, sizeof(target));

    *ret_same =
        n >= 0 && (size_t)n == strlen(entry->link) && memcmp(target, entry->link, (size_t)n) == 0;
    return 0;
}

static int same_part(int fd, const Wl__Part *part, const struct bytes *block, struct bytes *there,
                     bool *ret_same)
{
    size_t got = 0;
    int r = bytes_reserve(there, part->length);

    if (r == 0)
        r = fd_read_all(fd, there->data, part->length, &got);
    *ret_same = r == 0 && got == part->length && part->offset <= block->size &&
                part->length <= block->size - part->offset &&
                memcmp(there->data, block->data + part->offset, got) == 0;
    return r;
}

int manifest_same_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                       bool sync, bool *ret_same)
{
    _cleanup_(bytes_deinit) struct bytes there = {0};
    const struct bytes *block = NULL;
    struct stat status;
    bool same = true;

    if (*entry->link)
        return same_link(folder, entry, ret_same);
    _cleanup_(closep) int fd =
        openat(folder, entry->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        (uint64_t)status.st_size != entry->size)
        same = false;
    for (size_t i = 0; same && i < entry->n_parts; i++) {
        struct block_key key;
        int r =
            wire_block_key(entry->parts[i]->block, &key) != 0 ? -EPROTO : fetch(user, &key, &block);
        if (r == 0)
            r = same_part(fd, entry->parts[i], block, &there, &same);
        if (r != 0)
            return r;
    }
    if (same && sync && fsync(fd) < 0)
        return -errno;
    *ret_same = same;
    return 0;
}
