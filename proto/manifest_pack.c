/* manifest_pack.c - files to blocks. The idea: files go by in path order past one open shared
 * block; a small one leaves its bytes there, a large one makes blocks of its own, and where either
 * ends is cut.h's. What the manifest says of a shared block is filled in when that block is closed.
 */
#include <proto/manifest_paths.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <proto/base/err.h>
#include <proto/base/list.h>
#include <proto/block_set.h>
#include <proto/cut.h>
#include <proto/limits.h>
#include <proto/wire.h>

/* Below it a file shares: a round trip is then always worth a quarter of a block at least. */
enum { SMALL_BYTES = 256 * 1024 };

/* A block that parts refer to; many of the entries share one. */
struct pack_block {
    struct list node;
    struct block_key key;
    Wl__BlockKey message;
};

struct pack {
    struct sealer *sealer;
    const uint8_t *secret;
    struct cutter cutter;
    manifest_emit *emit;
    void *user;
    struct bytes *why;
    struct block_set emitted;
    struct list blocks;
    struct pack_block *shared; /* the open one, NULL: none */
    struct bytes shared_data, data, sealed;
    Wl__FileEntry **entries;
    size_t n_entries;
    uint64_t bytes;
};

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

static int block_new(struct pack *pack, struct pack_block **ret_block)
{
    struct pack_block *block = calloc(1, sizeof(*block));
    if (!block)
        return -ENOMEM;

    list_push(&pack->blocks, &block->node);
    *ret_block = block;
    return 0;
}

static int block_close(struct pack *pack, struct pack_block *block, const uint8_t *data,
                       size_t size)
{
    int r = seal_block(pack->sealer, pack->secret, data, size, &pack->sealed, &block->key);
    if (r)
        return r;

    wire_block_key_set(&block->message, &block->key);
    r = block_set_add(&pack->emitted, &block->key.id);
    return r <= 0 ? r : pack->emit(pack->user, &block->key, pack->sealed.data, pack->sealed.size);
}

static int shared_close(struct pack *pack)
{
    struct pack_block *block = TAKE_PTR(pack->shared);

    return block ? block_close(pack, block, pack->shared_data.data, pack->shared_data.size) : 0;
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

static int pack_small(struct pack *pack, int fd, Wl__FileEntry *entry)
{
    size_t size = entry->size;
    int r = 0;

    if (pack->shared && pack->shared_data.size + size > LIMIT_BLOCK_BYTES)
        r = shared_close(pack);
    if (r == 0 && !pack->shared) {
        pack->shared_data.size = 0;
        r = block_new(pack, &pack->shared);
    }
    if (r == 0)
        r = part_add(entry, pack->shared, pack->shared_data.size, size);
    if (r == 0)
        r = file_take(pack, fd, entry->path, size, &pack->shared_data);
    return r == 0 && cutter_parts(&pack->cutter, entry->path, size) ? shared_close(pack) : r;
}

/* What was read past a cut begins the next block. */
static int pack_large(struct pack *pack, int fd, Wl__FileEntry *entry)
{
    uint64_t unread = entry->size;

    pack->data.size = 0;
    while (unread || pack->data.size) {
        size_t room = LIMIT_BLOCK_BYTES - pack->data.size;
        size_t more = unread < room ? unread : room, length = 0;
        struct pack_block *block;

        int r = file_take(pack, fd, entry->path, more, &pack->data);
        if (r == 0)
            length = cutter_length(&pack->cutter, pack->data.data, pack->data.size);
        if (r == 0)
            r = block_new(pack, &block);
        if (r == 0)
            r = part_add(entry, block, 0, length);
        if (r == 0)
            r = block_close(pack, block, pack->data.data, length);
        if (r)
            return r;
        unread -= more;
        pack->data.size -= length;
        memmove(pack->data.data, pack->data.data + length, pack->data.size);
    }
    return 0;
}

static int pack_regular(struct pack *pack, int fd, const struct stat *st, Wl__FileEntry *entry)
{
    uint64_t n_parts = (uint64_t)st->st_size / CUT_LEAST + 1; /* at most */
    struct stat after;
    uint8_t more;
    size_t got = 0;
    int r = 0;

    if (n_parts > (uint64_t)LIMIT_REFS_PER_BLOCK * LIMIT_REFS_BLOCKS)
        return manifest_say(pack->why, MANIFEST_E_LIMIT, "%s: too large", entry->path);

    entry->mode = st->st_mode & 0777;
    entry->size = (uint64_t)st->st_size;
    entry->parts = calloc(n_parts + 1, sizeof(*entry->parts));
    if (!entry->parts)
        return -ENOMEM;
    if (entry->size)
        r = entry->size < SMALL_BYTES ? pack_small(pack, fd, entry) : pack_large(pack, fd, entry);
    if (r)
        return r;

    if (fstat(fd, &after) < 0)
        return -errno;
    r = fd_read_all(fd, &more, 1, &got);
    if (r < 0)
        return r;
    if (got || after.st_size != st->st_size || after.st_mtim.tv_sec != st->st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != st->st_mtim.tv_nsec)
        return changed(pack, entry->path);
    pack->bytes += entry->size;
    return 0;
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

/* Opened first, asked what it is then: the name may have come to mean something else. */
static int pack_opened(struct pack *pack, const char *root, int folder, const char *name, int flags,
                       Wl__FileEntry *entry)
{
    _cleanup_(closep) int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return manifest_say(pack->why, -errno, "%s/%s: %s", root, entry->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return manifest_say(pack->why, MANIFEST_E_PATH, "%s/%s: neither a file nor a link", root,
                            entry->path);
    return pack_regular(pack, fd, &st, entry);
}

static int pack_file(struct pack *pack, const char *root, int root_fd,
                     const struct manifest_file *file)
{
    _cleanup_(closep) int parent = -1;
    char target[LIMIT_PATH_BYTES];
    const char *name;
    Wl__FileEntry *entry = NULL;
    struct stat st;

    int r = entry_new(pack, file, &entry);
    if (r)
        return r;
    r = manifest_open_parent(root_fd, file->path, false, &parent, &name);
    if (r == MANIFEST_E_PATH && file->follow && manifest_path_ok(file->path))
        return pack_opened(pack, root, root_fd, file->path, 0, entry);
    if (r == MANIFEST_E_PATH)
        return manifest_say(pack->why, r, "%s: not a path below its root, or through a link",
                            file->path);
    if (r == 0 && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        r = -errno;
    if (r < 0)
        return manifest_say(pack->why, r, "%s/%s: %s", root, file->path, strerror(-r));
    if (!S_ISLNK(st.st_mode))
        return pack_opened(pack, root, parent, name, O_NOFOLLOW, entry);

    r = manifest_link_read(parent, name, root, file->path, target, pack->why);
    if (r == MANIFEST_E_PATH && file->follow)
        return pack_opened(pack, root, parent, name, 0, entry);
    return r ? r : pack_link(pack, entry, target);
}

/* ---- the whole ---- */

static int file_compare(const void *a, const void *b)
{
    const struct manifest_file *x = a, *y = b;

    return x->root != y->root ? (x->root < y->root ? -1 : 1)
                              : manifest_path_compare(x->path, y->path);
}

static int pack_files(struct pack *pack, const char *const *roots, size_t n_roots,
                      const struct manifest_file *files, size_t n_files)
{
    _cleanup_(closep) int fd = -1;
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_files; i++) {
        uint32_t root = files[i].root;

        if (root >= n_roots)
            return manifest_say(pack->why, MANIFEST_E_FORM, "%s: of root %u, of %zu", files[i].path,
                                root, n_roots);
        if (i && file_compare(&files[i - 1], &files[i]) == 0)
            return manifest_say(pack->why, MANIFEST_E_PATH, "%s: a path twice", files[i].path);
        if (i == 0 || root != files[i - 1].root) {
            closep(&fd);
            fd = open(roots[root], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (fd < 0)
                return manifest_say(pack->why, -errno, "%s: %s", roots[root], strerror(errno));
        }
        r = pack_file(pack, roots[root], fd, &files[i]);
    }
    return r ? r : shared_close(pack);
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
    for (size_t i = 0; i < pack->n_entries; i++)
        entry_free(pack->entries[i]);
    free(pack->entries);
    list_for_each_safe (node, after, &pack->blocks)
        free(list_entry(node, struct pack_block, node));
    block_set_deinit(&pack->emitted);
    bytes_deinit(&pack->shared_data);
    bytes_deinit(&pack->data);
    bytes_deinit(&pack->sealed);
}

int manifest_pack(struct sealer *sealer, const uint8_t secret[32], const char *const *roots,
                  size_t n_roots, const struct manifest_file *files, size_t n_files,
                  manifest_emit *emit, void *user, struct bytes *ret_packed, uint64_t *ret_bytes,
                  struct bytes *why)
{
    struct pack pack = {.sealer = sealer, .secret = secret, .emit = emit, .user = user, .why = why};
    _cleanup_(freep) struct manifest_file *sorted = NULL;
    int r = -ENOMEM;

    if (n_files > LIMIT_MANIFEST_FILES)
        return manifest_say(why, MANIFEST_E_LIMIT, "%zu files, at most %u", n_files,
                            LIMIT_MANIFEST_FILES);

    list_init(&pack.blocks);
    cutter_init(&pack.cutter, secret);
    sorted = calloc(n_files + 1, sizeof(*sorted));
    pack.entries = calloc(n_files + 1, sizeof(Wl__FileEntry *));
    if (sorted && pack.entries) {
        if (n_files)
            memcpy(sorted, files, n_files * sizeof(*sorted));
        qsort(sorted, n_files, sizeof(*sorted), file_compare);
        r = pack_files(&pack, roots, n_roots, sorted, n_files);
    }
    if (r == 0)
        r = pack_serialise(&pack, ret_packed);
    if (r == 0)
        *ret_bytes = pack.bytes;
    pack_deinit(&pack);
    return r;
}
