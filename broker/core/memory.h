/* memory.h - the few containers the core stands on: lists, pools, hash tables, heaps.
 *
 * The idea: everything the core holds is linked into where it is looked for, so that taking
 * something out of a queue never searches the queue. A list element and a heap element know their
 * place; a table is asked with a hash and a comparison of the caller's.
 *
 * Owns:    containers hold pointers and never free what they point to; a pool owns its elements.
 * Errors:  none. Without memory the core cannot keep its promises: CHECK, and a restart recovers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>

enum { MEMORY_LINE = 64 }; /* bytes that come to the processor at once */

void *memory_new(size_t size); /* zeroed */
void *memory_array(void *old, size_t n, size_t size);
/* Likewise zeroed, and it begins with a line; `*ret_memory` is what is to be freed. */
void *memory_lines(size_t size, void **ret_memory);
void *memory_copy(const void *data, size_t size); /* NULL where size is 0 */

/* Makes room for one more in `items`, which holds `n` of `*capacity`. */
#define MEMORY_GROW(items, n, capacity)                                                            \
    do {                                                                                           \
        if ((n) == (capacity)) {                                                                   \
            (capacity) = (capacity) ? 2 * (capacity) : 4;                                          \
            (items) = memory_array((items), (capacity), sizeof(*(items)));                         \
        }                                                                                          \
    } while (0)

/* ---- lists: a ring through the elements; an element not in a list points to itself ---- */

struct link {
    struct link *prev, *next;
};

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

static inline void link_init(struct link *link)
{
    link->prev = link->next = link;
}

static inline bool link_alone(const struct link *link)
{
    return link->next == link;
}

static inline void link_remove(struct link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link_init(link);
}

static inline void link_after(struct link *place, struct link *link)
{
    link->prev = place;
    link->next = place->next;
    place->next->prev = link;
    place->next = link;
}

static inline void link_last(struct link *list, struct link *link)
{
    link_after(list->prev, link);
}

/* `next` is remembered, so that the element at hand may leave the list. */
#define list_each(iterator, list)                                                                  \
    for (struct link *iterator = (list)->next, *iterator##_next = iterator->next;                  \
         iterator != (list); iterator = iterator##_next, iterator##_next = iterator->next)

/* ---- pools: equal elements that come and go often ---- */

struct pool {
    size_t size;
    void *spare;
    void **slabs;
    size_t n_slabs, capacity, in_use;
};
void pool_init(struct pool *pool, size_t size);
void pool_deinit(struct pool *pool);
void *pool_take(struct pool *pool); /* zeroed */
void pool_give(struct pool *pool, void *element);

/* ---- tables: open addressing, linear probing, no tombstones ---- */

struct table_slot {
    uint64_t hash;
    void *value;
};
struct table {
    struct table_slot *slots; /* on whole lines, in: */
    void *memory;
    size_t capacity, n; /* capacity is a power of two */
};
typedef bool table_same(const void *value, const void *key);

void table_deinit(struct table *table);
void *table_find(const struct table *table, uint64_t hash, table_same *same, const void *key);
void table_insert(struct table *table, uint64_t hash, void *value);
void table_remove(struct table *table, uint64_t hash, const void *value);
/* What will be looked for soon is brought nearer: the slot, then the value by it (as it lies there, if it
 * does: nothing is compared but the hash, NULL says nothing). */
static inline void table_near(const struct table *table, uint64_t hash)
{
    if (table->n == 0)
        return;
    const char *slot = (const char *)&table->slots[hash & (table->capacity - 1)];

    __builtin_prefetch(slot, 1);
    __builtin_prefetch(slot + MEMORY_LINE, 1); /* it is soon there that others were pushed to */
}
static inline void *table_likely(const struct table *table, uint64_t hash)
{
    if (table->n == 0)
        return NULL;
    size_t mask = table->capacity - 1;

    for (size_t i = hash & mask; table->slots[i].value; i = (i + 1) & mask)
        if (table->slots[i].hash == hash)
            return table->slots[i].value;
    return NULL;
}
static inline void memory_near(const void *data, size_t size)
{
    for (size_t at = 0; data && at < size; at += MEMORY_LINE)
        __builtin_prefetch((const char *)data + at, 1);
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t size);
static inline uint64_t hash_number(uint64_t seed, uint64_t value)
{
    uint64_t x = (seed ^ value) * 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
    return x ^ (x >> 29);
}

/* Numbers that are given out one after another, and looked for likewise, lie side by side: four slots
 * of a table are a line of the cache. */
enum { HASH_NEAR = 4 };
static inline uint64_t hash_near(uint64_t seed, uint64_t number)
{
    return (hash_number(seed, number / HASH_NEAR) & ~(HASH_NEAR - 1ULL)) |
           (number & (HASH_NEAR - 1));
}

/* ---- heaps: the least on top; an element holds its position at `offset` ---- */

#define HEAP_NONE SIZE_MAX
typedef bool heap_less(const void *a, const void *b);
struct heap {
    void **items;
    size_t n, capacity;
    size_t offset; /* of a size_t in every element: its position, HEAP_NONE outside */
    heap_less *less;
};
void heap_init(struct heap *heap, heap_less *less, size_t offset);
void heap_deinit(struct heap *heap);
void heap_add(struct heap *heap, void *item);
void heap_remove(struct heap *heap, void *item);
void heap_moved(struct heap *heap, void *item); /* its key has changed */
static inline void *heap_top(const struct heap *heap)
{
    return heap->n ? heap->items[0] : NULL;
}
