/* cut.h - where a block ends, by what is in it: so that what changes in a project changes few blocks.
 *
 * The idea: a large file is cut where a rolling hash of its last 64 bytes says so, and not at every
 * so many bytes: an insertion moves the cuts behind it along, and their blocks stay what they are.
 * Small files that share a block part where the hash of a name says so: another file among them
 * changes the block that it comes to lie in, and no other.
 *
 * The hash is keyed: the sizes of blocks are seen by whoever stores them, and would else tell which
 * known file this is.
 *
 * A list of files is parted by their names as well (manifest_leaf.c), under the same key: where a
 * file is larger than twice what the list says of it, a leaf ends only where a shared block does,
 * so that one block which changed changes one leaf.
 *
 * Sizes:   of a large file CUT_LEAST..LIMIT_BLOCK_BYTES, mostly near CUT_USUAL; the last is what is
 *          left. Small files lie CUT_SHARED in a block on average, LIMIT_BLOCK_BYTES at most; of a
 *          list CUT_LEAF, unless that makes too many.
 * Changed: whoever changes a figure here changes the blocks of everybody's next submission.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CUT_LEAST = 384 * 1024,
    CUT_USUAL = 640 * 1024,
    CUT_SHARED = 256 * 1024,
    CUT_LEAF = 128 * 1024,
};

struct cutter {
    uint64_t gear[256];
};

void cutter_init(struct cutter *cutter, const uint8_t secret[32]);
/* How much of `data`, which is what is left of a file or LIMIT_BLOCK_BYTES of it, is one block. */
size_t cutter_length(const struct cutter *cutter, const uint8_t *data, size_t size);
/* Whether what holds many, `usual` bytes on average, ends behind the one of that name. */
bool cutter_ends(const struct cutter *cutter, const char *name, size_t length, uint64_t size,
                 uint64_t usual);
/* Whether the shared block ends behind that file. */
bool cutter_parts(const struct cutter *cutter, const char *path, uint64_t size);
