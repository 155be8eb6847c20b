/* table.h - an intrusive hash table: what the broker's edge finds by key, by route or by task.
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

struct table_node {
    struct list node;
    uint64_t hash;
};

struct table {
    struct list *buckets;
    size_t n_buckets, n_nodes;
    uint64_t seed;
};

int table_init(struct table *table); /* -ENOMEM */
void table_deinit(struct table *table);
uint64_t table_hash(const struct table *table, const void *key, size_t size);
void table_insert(struct table *table, uint64_t hash, struct table_node *node);
void table_remove(struct table *table, struct table_node *node);

/* Whether `node` is the one asked for; hashes are equal already. */
typedef bool table_match(const struct table_node *node, const void *key);
struct table_node *table_find(const struct table *table, uint64_t hash, table_match *match,
                              const void *key);

#define table_entry(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define table_for_each_safe(at, table)                                                             \
    for (size_t bucket_ = 0; bucket_ < (table)->n_buckets; bucket_++)                              \
        list_for_each_safe(at, after_##at, &(table)->buckets[bucket_])
