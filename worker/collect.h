/* collect.h - what a task left in its output folders: everything created or changed there since
 * just before it ran, sealed.
 *
 * Shape:   collect_new before the action remembers size, times and inode of all that lies in the
 *          folders; collect_list after it names what differs. A folder inside another belongs to
 *          itself only. At most COLLECT_FILES_MAX files. What `still` knows to be empty is not read.
 * Units:   bytes are of the files, before compression and sealing.
 * Owns:    paths of struct collect; the manifest_files of collect_list borrow them.
 * Errors:  -errno, where anything but its absence keeps a file or folder from being read;
 *          COLLECT_E_LIMIT, and MANIFEST_E_* as manifest_pack gives them. `why` says it, but not
 *          what the emit callback's own errors mean.
 */
#pragma once

#include <proto/manifest.h>
#include <worker/still.h>

enum { COLLECT_E_LIMIT = 16 }; /* apart from MANIFEST_E_* */

#define COLLECT_FILES_MAX 100000

struct collect;
/* Absolute folders, by the index of the declared output; they are borrowed, and `still` is. */
int collect_new(const char *const *folders, size_t n_folders, const struct still *still,
                struct collect **ret_collect, struct bytes *why);
void collect_free(struct collect *collect);
DEFINE_CLEANUP(struct collect *, collect_free)

/* *ret_files is the caller's to free. `notes` gets a line for each thing that was left where it
 * is: special files, links that lead out. */
int collect_list(struct collect *collect, struct manifest_file **ret_files, size_t *ret_n,
                 struct bytes *notes, struct bytes *why);

struct collected {
    struct bytes manifest; /* packed, not sealed; up to LIMIT_MANIFEST_BLOCKS of them */
    uint64_t files, file_bytes;
};
/* Seals what collect_list named under `secret`; the blocks of the files go to `emit`. */
int collect_seal(struct collect *collect, struct sealer *sealer, const uint8_t secret[32],
                 const struct manifest_file *files, size_t n_files, manifest_emit *emit, void *user,
                 struct collected *ret_collected, struct bytes *why);
void collected_deinit(struct collected *collected);
