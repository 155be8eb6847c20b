/* map.h - an intrusive hash map: what the broker's edge finds by key, by route or by task.
 *
 * Shape:   grows with what it holds; a node lies inside the thing it finds, as in list.h. The hash
 *          is seeded at random, so that a peer cannot choose ids that all fall into one bucket.
 * Owns:    its buckets only; nodes are the caller's.
 * Errors:  none: where memory for more buckets cannot be had, chains grow longer.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <proto/base/list.h>

struct map_node {
    struct list node;
    uint64_t hash;
};

struct map {
    struct list *buckets;
    size_t n_buckets, n_nodes;
    uint64_t seed[2];
};

int map_init(struct map *map); /* -ENOMEM */
void map_deinit(struct map *map);
uint64_t map_hash(const struct map *map, const void *key, size_t size);
void map_insert(struct map *map, uint64_t hash, struct map_node *node);
void map_remove(struct map *map, struct map_node *node);

/* Whether `node` is the one asked for; hashes are equal already. */
typedef bool map_match(const struct map_node *node, const void *key);
struct map_node *map_find(const struct map *map, uint64_t hash, map_match *match, const void *key);

#define map_entry(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define map_for_each_safe(at, map)                                                                 \
    for (size_t bucket_ = 0; bucket_ < (map)->n_buckets; bucket_++)                                \
        list_for_each_safe (at, after_##at, &(map)->buckets[bucket_])
