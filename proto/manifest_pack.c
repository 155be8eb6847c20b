/* manifest_pack.c - files to blocks. The idea: files go by in path order; small ones gather to a
 * group, which becomes one block, a large one makes blocks of its own, and where either ends is
 * cut.h's. Blocks are sealed by some threads and come back in order; what the manifest says of one
 * is filled in then. A group or a large file that looks as it did the last time is not read at all.
 */
#include <proto/manifest_paths.h>
#include <proto/pack.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <proto/base/clock.h>
#include <proto/base/err.h>
#include <proto/limits.h>
#include <proto/wire.h>

/* Below it a file shares: a round trip is then always worth a quarter of a block at least. */
enum { SMALL_BYTES = 256 * 1024 };

/* ---- the protobuf side ---- */

static void entry_free(Wl__FileEntry *entry)
{
    for (size_t i = 0; i < entry->n_parts; i++)
        free(entry->parts[i]);
    free(entry->parts);
    if (entry->link != protobuf_c_empty_string)
        free(entry->link);
    free(entry);
}

/* `path` is borrowed from the caller's list. */
static int entry_new(struct pack *pack, const struct manifest_file *file, Wl__FileEntry **ret_entry)
{
    Wl__FileEntry *entry = malloc(sizeof(*entry));
    if (!entry)
        return -ENOMEM;

    wl__file_entry__init(entry);
    entry->root = file->root;
    entry->path = (char *)file->path;
    pack->entries[pack->n_entries++] = entry;
    *ret_entry = entry;
    return 0;
}

/* `entry->parts` has room. */
static int part_add(Wl__FileEntry *entry, struct pack_block *block, size_t offset, size_t length)
{
    Wl__Part *part = malloc(sizeof(*part));
    if (!part)
        return -ENOMEM;

    wl__part__init(part);
    part->block = &block->message;
    part->offset = (uint32_t)offset;
    part->length = (uint32_t)length;
    entry->parts[entry->n_parts++] = part;
    return 0;
}

/* ---- the file side ---- */

static int changed(struct pack *pack, const char *path)
{
    return manifest_say(pack->why, MANIFEST_E_CHANGED,
                        "%s: changed while it was read: submit again when it is complete", path);
}

/* Appends exactly `size` bytes of the file. */
static int file_take(struct pack *pack, int fd, const char *path, size_t size, struct bytes *out)
{
    size_t got = 0;
    int r = bytes_reserve(out, out->size + size);

    if (r == 0)
        r = fd_read_all(fd, out->data + out->size, size, &got);
    if (r < 0)
        return manifest_say(pack->why, r, "%s: %s", path, strerror(-r));
    if (got != size)
        return changed(pack, path);
    out->size += size;
    return 0;
}

/* Opened first, asked what it is then: the name may have come to mean something else. */
static int file_open(struct pack *pack, const char *root, int folder, const char *name, int flags,
                     const char *path, int *ret_fd, struct stat *ret_st)
{
    _cleanup_(closep) int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags);

    if (fd < 0 || fstat(fd, ret_st) < 0)
        return manifest_say(pack->why, -errno, "%s/%s: %s", root, path, strerror(errno));
    if (!S_ISREG(ret_st->st_mode))
        return manifest_say(pack->why, MANIFEST_E_PATH, "%s/%s: neither a file nor a link", root,
                            path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* What to take of it: a link's text, or a file, open. */
static int file_find(struct pack *pack, const char *root, int root_fd,
                     const struct manifest_file *file, char ret_link[LIMIT_PATH_BYTES], int *ret_fd,
                     struct stat *ret_st)
{
    _cleanup_(closep) int parent = -1;
    const char *name;

    *ret_link = 0;
    int r = manifest_open_parent(root_fd, file->path, false, &parent, &name);
    if (r == MANIFEST_E_PATH && file->follow && manifest_path_ok(file->path))
        return file_open(pack, root, root_fd, file->path, 0, file->path, ret_fd, ret_st);
    if (r == MANIFEST_E_PATH)
        return manifest_say(pack->why, r, "%s: not a path below its root, or through a link",
                            file->path);
    if (r == 0 && fstatat(parent, name, ret_st, AT_SYMLINK_NOFOLLOW) < 0)
        r = -errno;
    if (r < 0)
        return manifest_say(pack->why, r, "%s/%s: %s", root, file->path, strerror(-r));
    if (!S_ISLNK(ret_st->st_mode))
        return file_open(pack, root, parent, name, O_NOFOLLOW, file->path, ret_fd, ret_st);

    r = manifest_link_read(parent, name, root, file->path, ret_link, pack->why);
    if (r != MANIFEST_E_PATH || !file->follow)
        return r;
    *ret_link = 0;
    return file_open(pack, root, parent, name, 0, file->path, ret_fd, ret_st);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Nothing follows, and it is what it was when it was opened. */
static int file_end(struct pack *pack, int fd, const char *path, const struct stat *before)
{
    struct stat after;
    uint8_t more;
    size_t got = 0;

    if (fstat(fd, &after) < 0)
        return -errno;
    int r = fd_read_all(fd, &more, 1, &got);
    if (r < 0)
        return r;
    return got || !same_file(before, &after) ? changed(pack, path) : 0;
}

static int small_read(struct pack *pack, const struct pack_small *small)
{
    const char *path = small->entry->path;
    _cleanup_(closep) int fd = -1;
    char link[LIMIT_PATH_BYTES];
    struct stat st;

    int r = file_find(pack, pack->root, pack->root_fd, small->file, link, &fd, &st);
    if (r == 0 && (*link || !same_file(&small->status, &st)))
        r = changed(pack, path);
    if (r == 0)
        r = file_take(pack, fd, path, (size_t)st.st_size, &pack->data);
    return r ? r : file_end(pack, fd, path, &st);
}

static int group_close(struct pack *pack)
{
    uint8_t print[32];
    bool all_settled = true;
    struct pack_block *block;
    size_t n = 0, offset = 0;

    if (pack->n_small == 0)
        return 0;
    int r = pack_block_new(pack, &block);
    memcpy(print, pack->secret, sizeof(print));
    for (size_t i = 0; r == 0 && i < pack->n_small; i++) {
        const struct pack_small *small = &pack->small[i];

        pack_print_add(print, small->entry->path, &small->status);
        all_settled &= pack_settled(pack, &small->status);
        r = part_add(small->entry, block, offset, small->entry->size);
        offset += small->entry->size;
    }
    if (r)
        return r;
    const struct block_key *key = pack_known_find(pack, print, pack->small_bytes, &n);
    if (key && n == 1) {
        block->key = *key;
        pack->n_small = pack->small_bytes = 0;
        return pack_block_emit(pack, block, NULL, 0);
    }
    pack->data.size = 0;
    for (size_t i = 0; r == 0 && i < pack->n_small; i++)
        r = small_read(pack, &pack->small[i]);
    pack->n_small = pack->small_bytes = 0;
    if (r == 0 && all_settled)
        r = pack_news_add(pack, print, NULL, block);
    return r ? r : pack_block_close(pack, block, pack->data.data, pack->data.size);
}

static int small_add(struct pack *pack, const struct manifest_file *file, const struct stat *st,
                     Wl__FileEntry *entry)
{
    int r = pack->small_bytes + entry->size > LIMIT_BLOCK_BYTES ? group_close(pack) : 0;

    if (r)
        return r;
    if (pack->n_small == pack->small_capacity) {
        size_t capacity = pack->small_capacity ? 2 * pack->small_capacity : 64;
        struct pack_small *grown = reallocarray(pack->small, capacity, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        pack->small = grown;
        pack->small_capacity = capacity;
    }
    pack->small[pack->n_small++] = (struct pack_small){file, entry, *st};
    pack->small_bytes += entry->size;
    return cutter_parts(&pack->cutter, entry->path, entry->size) ? group_close(pack) : 0;
}

static int add_known(struct pack *pack, Wl__FileEntry *entry, const struct block_key *keys,
                     size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        struct pack_block *block;

        r = pack_block_new(pack, &block);
        if (r)
            break;
        block->key = keys[i];
        r = part_add(entry, block, 0, keys[i].body_bytes);
        if (r == 0)
            r = pack_block_emit(pack, block, NULL, 0);
    }
    return r;
}

/* Whether nothing was written where the next block would come from: of a sparse file that is most,
 * and one block of zeros stands for all of it. */
static bool hole_ahead(const struct pack *pack, int fd, uint64_t at, uint64_t unread)
{
    if (pack->data.size || unread <= LIMIT_BLOCK_BYTES)
        return false;
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    bool hole = data < 0 ? errno == ENXIO : (uint64_t)data - at >= LIMIT_BLOCK_BYTES;

    return lseek(fd, (off_t)at, SEEK_SET) >= 0 && hole;
}

static int hole_take(struct pack *pack, int fd, Wl__FileEntry *entry)
{
    if (lseek(fd, (off_t)pack->hole_bytes, SEEK_CUR) < 0)
        return -errno;
    return part_add(entry, pack->hole, 0, pack->hole_bytes);
}

/* What was read past a cut begins the next block. */
static int pack_large(struct pack *pack, int fd, Wl__FileEntry *entry)
{
    uint64_t unread = entry->size;

    pack->data.size = 0;
    while (unread || pack->data.size) {
        size_t room = LIMIT_BLOCK_BYTES - pack->data.size;
        size_t more = unread < room ? unread : room, length = 0;
        bool hole = hole_ahead(pack, fd, entry->size - unread, unread);
        struct pack_block *block;

        if (hole && pack->hole) {
            int r = hole_take(pack, fd, entry);
            if (r)
                return r;
            unread -= pack->hole_bytes;
            continue;
        }
        int r = file_take(pack, fd, entry->path, more, &pack->data);
        if (r == 0)
            length = cutter_length(&pack->cutter, pack->data.data, pack->data.size);
        if (r == 0)
            r = pack_block_new(pack, &block);
        if (r == 0)
            r = part_add(entry, block, 0, length);
        if (r == 0)
            r = pack_block_close(pack, block, pack->data.data, length);
        if (r)
            return r;
        if (hole) {
            pack->hole = block;
            pack->hole_bytes = length;
        }
        unread -= more;
        pack->data.size -= length;
        memmove(pack->data.data, pack->data.data + length, pack->data.size);
    }
    return 0;
}

static int pack_regular(struct pack *pack, int fd, const struct manifest_file *file,
                        const struct stat *st, Wl__FileEntry *entry)
{
    uint64_t n_parts = (uint64_t)st->st_size / CUT_LEAST + 1; /* at most */
    uint8_t print[32];
    size_t n = 0;

    if (n_parts > (uint64_t)LIMIT_REFS_PER_BLOCK * LIMIT_REFS_BLOCKS)
        return manifest_say(pack->why, MANIFEST_E_LIMIT, "%s: too large", entry->path);

    entry->mode = st->st_mode & 0777;
    entry->size = (uint64_t)st->st_size;
    entry->parts = calloc(n_parts + 1, sizeof(*entry->parts));
    if (!entry->parts)
        return -ENOMEM;
    pack->bytes += entry->size;
    if (entry->size == 0)
        return file_end(pack, fd, entry->path, st);
    if (entry->size < SMALL_BYTES)
        return small_add(pack, file, st, entry);

    memcpy(print, pack->secret, sizeof(print));
    pack_print_add(print, entry->path, st);
    const struct block_key *keys = pack_known_find(pack, print, entry->size, &n);
    if (keys && n <= n_parts)
        return add_known(pack, entry, keys, n);
    int r = pack_large(pack, fd, entry);
    if (r == 0)
        r = file_end(pack, fd, entry->path, st);
    return r == 0 && pack_settled(pack, st) ? pack_news_add(pack, print, entry, NULL) : r;
}

static int pack_link(struct pack *pack, Wl__FileEntry *entry, const char *target)
{
    char *link = strdup(target);

    if (!link)
        return -ENOMEM;
    entry->mode = 0777;
    entry->link = link;
    return 0;
}

static int pack_file(struct pack *pack, const struct manifest_file *file)
{
    _cleanup_(closep) int fd = -1;
    char link[LIMIT_PATH_BYTES];
    Wl__FileEntry *entry = NULL;
    struct stat st;

    int r = entry_new(pack, file, &entry);
    if (r == 0)
        r = file_find(pack, pack->root, pack->root_fd, file, link, &fd, &st);
    if (r)
        return r;
    return *link ? pack_link(pack, entry, link) : pack_regular(pack, fd, file, &st, entry);
}

/* ---- the whole ---- */

static int file_compare(const void *a, const void *b)
{
    const struct manifest_file *x = a, *y = b;

    return x->root != y->root ? (x->root < y->root ? -1 : 1)
                              : manifest_path_compare(x->path, y->path);
}

static int root_open(struct pack *pack, const char *root)
{
    int r = group_close(pack);

    closep(&pack->root_fd);
    if (r)
        return r;
    pack->root = root;
    pack->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return pack->root_fd < 0 ? manifest_say(pack->why, -errno, "%s: %s", root, strerror(errno)) : 0;
}

static int pack_files(struct pack *pack, const char *const *roots, size_t n_roots,
                      const struct manifest_file *files, size_t n_files)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_files; i++) {
        uint32_t root = files[i].root;

        if (root >= n_roots)
            return manifest_say(pack->why, MANIFEST_E_FORM, "%s: of root %u, of %zu", files[i].path,
                                root, n_roots);
        if (i && file_compare(&files[i - 1], &files[i]) == 0)
            return manifest_say(pack->why, MANIFEST_E_PATH, "%s: a path twice", files[i].path);
        if (i == 0 || root != files[i - 1].root)
            r = root_open(pack, roots[root]);
        if (r == 0)
            r = pack_file(pack, &files[i]);
    }
    if (r == 0)
        r = group_close(pack);
    return r ? r : pack_jobs_end(pack, true);
}

static int pack_serialise(struct pack *pack, struct bytes *ret_packed)
{
    Wl__Manifest manifest = WL__MANIFEST__INIT;
    struct bytes packed = {0};

    manifest.n_files = pack->n_entries;
    manifest.files = pack->entries;
    size_t size = wl__manifest__get_packed_size(&manifest);
    if (size > (size_t)LIMIT_MANIFEST_BLOCKS * LIMIT_BLOCK_BYTES)
        return manifest_say(pack->why, MANIFEST_E_LIMIT, "manifest: %zu bytes: make more roots",
                            size);

    int r = bytes_reserve(&packed, size + 1);
    if (r < 0)
        return r;
    packed.size = wl__manifest__pack(&manifest, packed.data);
    *ret_packed = packed;
    return 0;
}

static void pack_deinit(struct pack *pack)
{
    pack_blocks_deinit(pack);
    for (size_t i = 0; i < pack->n_entries; i++)
        entry_free(pack->entries[i]);
    free(pack->entries);
    free(pack->small);
    closep(&pack->root_fd);
    bytes_deinit(&pack->data);
}

int manifest_pack(struct sealer *sealer, const uint8_t secret[32],
                  const struct manifest_options *options, const char *const *roots, size_t n_roots,
                  const struct manifest_file *files, size_t n_files, manifest_emit *emit,
                  void *user, struct bytes *ret_packed, uint64_t *ret_bytes, struct bytes *why)
{
    struct pack pack = {.sealer = sealer,
                        .secret = secret,
                        .options = options,
                        .emit = emit,
                        .user = user,
                        .why = why,
                        .root_fd = -1,
                        .now_ns = clock_wall_ns()};
    _cleanup_(freep) struct manifest_file *sorted = NULL;
    int r = -ENOMEM;

    if (n_files > LIMIT_MANIFEST_FILES)
        return manifest_say(why, MANIFEST_E_LIMIT, "%zu files, at most %u", n_files,
                            LIMIT_MANIFEST_FILES);

    list_init(&pack.blocks);
    if (n_files) /* a task that leaves none takes less time than this */
        cutter_init(&pack.cutter, secret);
    sorted = calloc(n_files + 1, sizeof(*sorted));
    pack.entries = calloc(n_files + 1, sizeof(Wl__FileEntry *));
    if (sorted && pack.entries) {
        if (n_files)
            memcpy(sorted, files, n_files * sizeof(*sorted));
        qsort(sorted, n_files, sizeof(*sorted), file_compare);
        r = pack_jobs_new(&pack);
        if (r == 0)
            r = pack_files(&pack, roots, n_roots, sorted, n_files);
    }
    if (r == 0)
        r = pack_serialise(&pack, ret_packed);
    if (r == 0) {
        *ret_bytes = pack.bytes;
        pack_news_keep(&pack);
    }
    pack_deinit(&pack);
    return r;
}
