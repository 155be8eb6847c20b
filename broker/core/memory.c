/* memory.h: growth doubles, a table stays at most half full, a heap's elements know their place.
 */
#include <broker/core/memory.h>

void *memory_new(size_t size)
{
    void *data = calloc(1, size ? size : 1);

    CHECK(data);
    return data;
}

void *memory_lines(size_t size, void **ret_memory)
{
    size_t bytes = 0;

    CHECK(!__builtin_add_overflow(size, MEMORY_LINE - 1, &bytes));
    char *memory = memory_new(bytes);

    *ret_memory = memory;
    return memory + (-(uintptr_t)memory & (MEMORY_LINE - 1));
}

void *memory_array(void *old, size_t n, size_t size)
{
    size_t bytes = 0;

    CHECK(!__builtin_mul_overflow(n, size, &bytes));
    void *data = realloc(old, bytes ? bytes : 1);

    CHECK(data);
    return data;
}

void *memory_copy(const void *data, size_t size)
{
    if (size == 0)
        return NULL;
    void *copy = malloc(size);

    CHECK(copy);
    return memcpy(copy, data, size);
}

/* ---- pools ---- */

enum { POOL_SLAB_BYTES = 64 * 1024 };

void pool_init(struct pool *pool, size_t size)
{
    size_t whole = size < MEMORY_LINE ? 16 : MEMORY_LINE;

    *pool = (struct pool){.size = (size + whole - 1) & ~(whole - 1)};
}

void pool_deinit(struct pool *pool)
{
    for (size_t i = 0; i < pool->n_slabs; i++)
        free(pool->slabs[i]);
    free(pool->slabs);
    *pool = (struct pool){.size = pool->size};
}

void *pool_take(struct pool *pool)
{
    if (!pool->spare) {
        size_t n = POOL_SLAB_BYTES / pool->size ? POOL_SLAB_BYTES / pool->size : 1;
        MEMORY_GROW(pool->slabs, pool->n_slabs, pool->capacity);
        char *slab = memory_lines(n * pool->size, &pool->slabs[pool->n_slabs++]);

        for (size_t i = n; i > 0; i--) {
            void *element = slab + (i - 1) * pool->size;

            memcpy(element, &pool->spare, sizeof(void *));
            pool->spare = element;
        }
    }
    void *element = pool->spare;

    memcpy(&pool->spare, element, sizeof(void *));
    pool->in_use++;
    return memset(element, 0, pool->size);
}

void pool_give(struct pool *pool, void *element)
{
    CHECK(pool->in_use > 0);
    pool->in_use--;
    memcpy(element, &pool->spare, sizeof(void *));
    pool->spare = element;
}

/* ---- tables ---- */

void table_deinit(struct table *table)
{
    free(table->memory);
    *table = (struct table){0};
}

void *table_find(const struct table *table, uint64_t hash, table_same *same, const void *key)
{
    if (table->n == 0)
        return NULL;
    size_t mask = table->capacity - 1;

    for (size_t i = hash & mask; table->slots[i].value; i = (i + 1) & mask)
        if (table->slots[i].hash == hash && same(table->slots[i].value, key))
            return table->slots[i].value;
    return NULL;
}

static void table_put(struct table *table, uint64_t hash, void *value)
{
    size_t mask = table->capacity - 1, i = hash & mask;

    while (table->slots[i].value)
        i = (i + 1) & mask;
    table->slots[i] = (struct table_slot){.hash = hash, .value = value};
}

void table_insert(struct table *table, uint64_t hash, void *value)
{
    if (2 * (table->n + 1) > table->capacity) {
        struct table old = *table;

        table->capacity = old.capacity ? 2 * old.capacity : 16;
        table->slots = memory_lines(table->capacity * sizeof(*table->slots), &table->memory);
        for (size_t i = 0; i < old.capacity; i++)
            if (old.slots[i].value)
                table_put(table, old.slots[i].hash, old.slots[i].value);
        free(old.memory);
    }
    table_put(table, hash, value);
    table->n++;
}

void table_remove(struct table *table, uint64_t hash, const void *value)
{
    CHECK(table->n > 0);
    size_t mask = table->capacity - 1, hole = hash & mask;

    while (table->slots[hole].value != value) {
        CHECK(table->slots[hole].value);
        hole = (hole + 1) & mask;
    }
    /* Whoever was pushed past the hole by it moves back, so that a probe never stops too soon. */
    for (size_t i = (hole + 1) & mask; table->slots[i].value; i = (i + 1) & mask) {
        size_t home = table->slots[i].hash & mask;

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = (struct table_slot){0};
    table->n--;
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t hash = hash_number(seed, size);

    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word = 0;

        memcpy(&word, bytes, 8);
        hash = hash_number(hash, word);
    }
    uint64_t rest = 0;

    memcpy(&rest, bytes, size);
    return size ? hash_number(hash, rest) : hash;
}

/* ---- heaps ---- */

static void heap_set(struct heap *heap, size_t i, void *item)
{
    heap->items[i] = item;
    memcpy((char *)item + heap->offset, &i, sizeof(i));
}

static size_t heap_position(const struct heap *heap, const void *item)
{
    size_t i = 0;

    memcpy(&i, (const char *)item + heap->offset, sizeof(i));
    return i;
}

static void heap_up(struct heap *heap, size_t i)
{
    void *item = heap->items[i];

    while (i > 0 && heap->less(item, heap->items[(i - 1) / 2])) {
        heap_set(heap, i, heap->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_set(heap, i, item);
}

static void heap_down(struct heap *heap, size_t i)
{
    void *item = heap->items[i];

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= heap->n)
            break;
        if (child + 1 < heap->n && heap->less(heap->items[child + 1], heap->items[child]))
            child++;
        if (!heap->less(heap->items[child], item))
            break;
        heap_set(heap, i, heap->items[child]);
        i = child;
    }
    heap_set(heap, i, item);
}

void heap_init(struct heap *heap, heap_less *less, size_t offset)
{
    *heap = (struct heap){.less = less, .offset = offset};
}

void heap_deinit(struct heap *heap)
{
    free(heap->items);
    heap->items = NULL;
}

void heap_add(struct heap *heap, void *item)
{
    MEMORY_GROW(heap->items, heap->n, heap->capacity);
    heap_set(heap, heap->n, item);
    heap_up(heap, heap->n++);
}

void heap_moved(struct heap *heap, void *item)
{
    size_t i = heap_position(heap, item);

    CHECK(i < heap->n && heap->items[i] == item);
    heap_up(heap, i);
    heap_down(heap, heap_position(heap, item));
}

void heap_remove(struct heap *heap, void *item)
{
    size_t i = heap_position(heap, item), none = HEAP_NONE;

    CHECK(i < heap->n && heap->items[i] == item);
    void *last = heap->items[--heap->n];

    memcpy((char *)item + heap->offset, &none, sizeof(none));
    if (last == item)
        return;
    heap_set(heap, i, last);
    heap_moved(heap, last);
}
