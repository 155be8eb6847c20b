/* block_set.h - a set of block ids, for saying each of them once.
 *
 * Shape:   open addressing, grown by doubling. A zeroed struct is an empty set.
 * Owns:    block_set_deinit frees what it grew.
 * Errors:  -ENOMEM.
 */
#pragma once

#include <proto/seal.h>

struct block_set {
    struct block_id *slots;
    uint8_t *taken;
    size_t n_slots, n;
};

void block_set_deinit(struct block_set *set);
/* 1: added; 0: it was there. */
int block_set_add(struct block_set *set, const struct block_id *id);
bool block_set_has(const struct block_set *set, const struct block_id *id);
