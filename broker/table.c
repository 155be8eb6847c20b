/* table.c - buckets are lists, so that removing needs no search. */
#include <errno.h>
#include <stdlib.h>
#include <proto/base/bytes.h>
#include <broker/table.h>

enum { BUCKETS_FIRST = 64 };

static struct list *buckets_new(size_t n)
{
    struct list *buckets = malloc(n * sizeof *buckets);

    if (buckets)
        for (size_t i = 0; i < n; i++)
            list_init(&buckets[i]);
    return buckets;
}

int table_init(struct table *table)
{
    struct table made = {.n_buckets = BUCKETS_FIRST};
    int r = random_bytes(&made.seed, sizeof made.seed);

    if (r < 0)
        return r;
    made.buckets = buckets_new(made.n_buckets);
    if (!made.buckets)
        return -ENOMEM;
    *table = made;
    return 0;
}

void table_deinit(struct table *table)
{
    free(table->buckets);
    *table = (struct table){0};
}

/* FNV-1a with a seed and a final mix; keys are random or made by libzmq, never text. */
uint64_t table_hash(const struct table *table, const void *key, size_t size)
{
    const uint8_t *bytes = key;
    uint64_t hash = 0xcbf29ce484222325ULL ^ table->seed;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    hash ^= hash >> 32;
    return hash * 0x9e3779b97f4a7c15ULL;
}

static struct list *bucket(const struct table *table, uint64_t hash)
{
    return &table->buckets[(hash >> 20) & (table->n_buckets - 1)];
}

static void grow(struct table *table)
{
    struct table larger = {.n_buckets = table->n_buckets * 2,
                           .n_nodes = table->n_nodes,
                           .seed = table->seed};

    larger.buckets = buckets_new(larger.n_buckets);
    if (!larger.buckets)
        return;
    table_for_each_safe(at, table)
    {
        struct table_node *node = list_entry(at, struct table_node, node);

        list_unlink(at);
        list_push(bucket(&larger, node->hash), at);
    }
    free(table->buckets);
    *table = larger;
}

void table_insert(struct table *table, uint64_t hash, struct table_node *node)
{
    if (table->n_nodes >= table->n_buckets)
        grow(table);
    node->hash = hash;
    list_push(bucket(table, hash), &node->node);
    table->n_nodes++;
}

void table_remove(struct table *table, struct table_node *node)
{
    list_unlink(&node->node);
    table->n_nodes--;
}

struct table_node *table_find(const struct table *table, uint64_t hash, table_match *match,
                              const void *key)
{
    list_for_each(at, bucket(table, hash))
    {
        struct table_node *node = list_entry(at, struct table_node, node);

        if (node->hash == hash && match(node, key))
            return node;
    }
    return NULL;
}
