/* map.c - buckets are lists, so that removing needs no search. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/bytes.h>
#include <broker/map.h>

enum { BUCKETS_FIRST = 64 };

__extension__ typedef unsigned __int128 wide;

static struct list *buckets_new(size_t n)
{
    struct list *buckets = malloc(n * sizeof *buckets);

    if (buckets)
        for (size_t i = 0; i < n; i++)
            list_init(&buckets[i]);
    return buckets;
}

int map_init(struct map *map)
{
    struct map made = {.n_buckets = BUCKETS_FIRST};
    int r = random_bytes(made.seed, sizeof made.seed);

    if (r < 0)
        return r;
    made.buckets = buckets_new(made.n_buckets);
    if (!made.buckets)
        return -ENOMEM;
    *map = made;
    return 0;
}

void map_deinit(struct map *map)
{
    free(map->buckets);
    *map = (struct map){0};
}

/* Both halves of a product by a number that nobody can know: by one that is known, whoever chooses
 * keys knows which bits of the next word make up for what he changed in one. */
static uint64_t fold(uint64_t word, uint64_t secret)
{
    wide product = (wide)word * secret;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t map_hash(const struct map *map, const void *key, size_t size)
{
    const uint8_t *at = key;
    uint64_t hash = map->seed[0] ^ size, word;

    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = fold(hash ^ word, map->seed[1]);
    }
    word = 0;
    if (size > 0)
        memcpy(&word, at, size);
    return fold(hash ^ word, map->seed[1]);
}

static struct list *bucket(const struct map *map, uint64_t hash)
{
    return &map->buckets[(hash >> 20) & (map->n_buckets - 1)];
}

static void grow(struct map *map)
{
    struct map larger = {.n_buckets = map->n_buckets * 2,
                         .n_nodes = map->n_nodes,
                         .seed = {map->seed[0], map->seed[1]}};

    larger.buckets = buckets_new(larger.n_buckets);
    if (!larger.buckets)
        return;
    map_for_each_safe(at, map)
    {
        struct map_node *node = list_entry(at, struct map_node, node);

        list_unlink(at);
        list_push(bucket(&larger, node->hash), at);
    }
    free(map->buckets);
    *map = larger;
}

void map_insert(struct map *map, uint64_t hash, struct map_node *node)
{
    if (map->n_nodes >= map->n_buckets)
        grow(map);
    node->hash = hash;
    list_push(bucket(map, hash), &node->node);
    map->n_nodes++;
}

void map_remove(struct map *map, struct map_node *node)
{
    list_unlink(&node->node);
    map->n_nodes--;
}

struct map_node *map_find(const struct map *map, uint64_t hash, map_match *match, const void *key)
{
    list_for_each (at, bucket(map, hash)) {
        struct map_node *node = list_entry(at, struct map_node, node);

        if (node->hash == hash && match(node, key))
            return node;
    }
    return NULL;
}
