/* manifest.h - a file tree to sealed blocks and back.
 *
 * Pack:    walks a list of files (or a folder), fills blocks (small files share one, in path order;
 *          a larger one is cut, by what is in it: cut.h), and yields each block once by a callback.
 * Unpack:  recreates files below a folder from a manifest, getting blocks by a callback. It writes
 *          only below that folder: an absolute path, "..", an empty part, a link out, a special
 *          file or a duplicate path is MANIFEST_E_PATH and nothing of that file is written.
 * Owns:    struct manifest owns its protobuf; manifest_deinit frees it.
 * Errors:  -errno; MANIFEST_E_*; `why` (a struct bytes, may be NULL) gets the thing and the reason.
 */
#pragma once

#include <limits.h>
#include <sys/stat.h>
#include <proto/limits.h>
#include <proto/seal.h>
#include <proto/westlight.pb-c.h>

enum {
    MANIFEST_E_PATH = 1,    /* a path that may not be */
    MANIFEST_E_FORM = 2,    /* not a manifest, or it contradicts itself */
    MANIFEST_E_LIMIT = 3,
    MANIFEST_E_CHANGED = 4, /* a file changed while it was read */
};

/* A file to pack. `path` is relative to the root and becomes the entry's. With `follow`, a link out
 * of the root, or a path through a link, stands for the file that it leads to; without it such a
 * path is MANIFEST_E_PATH. */
struct manifest_file {
    const char *path;
    uint32_t root;
    bool follow;
};

/* Seen once for each distinct block, before the manifest is complete. The sealed bytes are valid
 * for the call only; NULL: they were emitted another time, see manifest_known. */
typedef int manifest_emit(void *user, const struct block_key *key, const void *sealed, size_t size);

/* What a walk takes. A link out of the folder is MANIFEST_E_PATH, or with `follow` what it leads to;
 * one that leads nowhere, or to a folder that was walked already, is then left out and told. */
struct manifest_walk {
    bool hidden, follow;
    bool (*skip)(void *user, const char *path, bool folder); /* NULL: nothing */
    void (*left_out)(void *user, const char *path, const char *why);
    void *user;
};
/* Everything regular, and links, below `folder`, sorted by path. *ret_paths (of *ret_n) and each
 * path are the caller's to free. */
int manifest_walk(const char *folder, const struct manifest_walk *rules, char ***ret_paths,
                  size_t *ret_n, struct bytes *why);

/* What a link at `path` says (`name` in `folder`), as it may stand in a manifest: an absolute target
 * inside the root is made relative, one out of it is MANIFEST_E_PATH, or MANIFEST_E_LIMIT. */
int manifest_link_read(int folder, const char *name, const char *root, const char *path,
                       char text[LIMIT_PATH_BYTES], struct bytes *why);

/* What files held the last time: the blocks of a large file, or the one of small files that share it,
 * by a print of how they look (device, inode, size, times, path). `find` puts struct block_keys into
 * `out` and returns 0 where it knows them; `keep` is told of what was read, and may forget it. */
struct manifest_known {
    int (*find)(void *user, const uint8_t print[32], struct bytes *out);
    void (*keep)(void *user, const uint8_t print[32], const struct block_key *keys, size_t n);
    void *user;
};
struct manifest_options {
    unsigned threads;                   /* that seal beside this one; 0: it does */
    const struct manifest_known *known; /* may be NULL; then every block is emitted with its bytes */
};

/* Packs files (of roots, given as absolute folders) under `secret`; emits file blocks. *ret_packed
 * is the serialised Manifest; the caller seals it with manifest_seal. */
int manifest_pack(struct sealer *sealer, const uint8_t secret[32],
                  const struct manifest_options *options /* or NULL */, const char *const *roots,
                  size_t n_roots, const struct manifest_file *files, size_t n_files,
                  manifest_emit *emit, void *user, struct bytes *ret_packed, uint64_t *ret_bytes,
                  struct bytes *why);
/* What manifest_seal made of a list of files: its blocks in order, and what is said of them. */
struct manifest_sealed {
    struct block_key *keys;
    size_t n_keys;
    Wl__Leaf **leaves;
    size_t n_leaves;
};
void manifest_sealed_deinit(struct manifest_sealed *sealed);
/* Cuts a serialised manifest into leaves (few, if that can be), seals and emits their blocks under
 * a secret derived from the studio's. An empty one is one leaf. MANIFEST_E_LIMIT: too many. */
int manifest_seal(struct sealer *sealer, const uint8_t secret[32], const void *data, size_t size,
                  size_t few, manifest_emit *emit, void *user, struct manifest_sealed *ret_sealed);
/* Whether the leaf may hold a file that `wanted` takes: of what it says its files are called. */
bool manifest_leaf_may(const Wl__Leaf *leaf, bool (*wanted)(void *user, const char *path),
                       void *user);

/* Gets one block, opened; *ret_block is the fetcher's, and good until it is called again. */
typedef int manifest_fetch(void *user, const struct block_key *key, const struct bytes **ret_block);
/* The blocks of a list, or of some leaves of it; what they hold is unpacked together, and every
 * limit and path checked. */
int manifest_load(const struct block_key *keys, size_t n, manifest_fetch *fetch, void *user,
                  Wl__Manifest **ret_manifest, struct bytes *why);
int manifest_parse(const void *data, size_t size, Wl__Manifest **ret_manifest, struct bytes *why);

/* Distinct blocks the manifest refers to, in order of first use; the caller's to free. */
int manifest_blocks(const Wl__Manifest *manifest, struct block_key **ret_keys, size_t *ret_n);

/* Orders a folder's contents right behind its name, and numbers by value: the files of frame 9
 * lie before those of frame 10, however they are written. Files are read, and sent, in this order. */
int manifest_path_compare(const char *a, const char *b);
/* Whether a path may be written below a folder: relative, no "..", no empty part, within limits. */
bool manifest_path_ok(const char *path);
/* A file that has its content, and no name yet. */
struct manifest_made {
    int folder, fd; /* fd < 0: a link */
    bool nameless;
    char name[NAME_MAX + 1], spare[32];
    const char *link; /* the entry's */
    struct stat status;
};
/* Creates the file of one entry below `folder` (an open directory): without a name until it is whole
 * where the file system can, else under a temporary one. A folder in its way, or a link among its
 * parents, is MANIFEST_E_PATH. */
int manifest_make_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                       struct manifest_made *ret_made, struct bytes *why);
/* What stood at a file's place when it was decided that the file may go there. */
struct manifest_stood {
    bool there;
    struct stat status;
};
/* Gives it its own name, in any thread; `made->status` is of the file that got it. `sync` syncs it
 * before. Where something stands there that is not what `stood` then, that stays, and it is -EEXIST;
 * without `stood` whatever file is there is replaced. Ends it, whatever comes of that: -errno,
 * MANIFEST_E_PATH. */
int manifest_name_file(struct manifest_made *made, bool sync, const struct manifest_stood *stood);
void manifest_drop_file(struct manifest_made *made); /* as if it had never been */
/* Both. */
int manifest_write_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                        bool sync, struct bytes *why);
/* Whether the file that lies below `folder` is a regular file (or a link) with what the entry holds;
 * its mode does not matter. `sync` syncs a file that is the same. */
int manifest_same_file(int folder, const Wl__FileEntry *entry, manifest_fetch *fetch, void *user,
                       bool sync, bool *ret_same);
/* Pattern of a RootUse: '*', '?', and '#' runs, which hold the frame number with leading zeros. The
 * steps it takes are taken off *work, of about a nanosecond each; with none left nothing matches. */
bool manifest_match(const char *pattern, const char *path, int64_t frame, uint64_t *work);
/* Whether the pattern, which has a '#', matches for one of the numbers in the path; which one. */
bool manifest_frame_of(const char *pattern, const char *path, int64_t *ret_frame, uint64_t *work);
