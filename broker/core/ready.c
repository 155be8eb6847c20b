#include <broker/core/ready.h>

/* Levels lie one behind another in one allocation: the bits, then each summary, to a single word.
 * A walk upward therefore needs only the size of the level it is on. */

void bitmap_init(struct bitmap *bitmap, uint64_t n_bits)
{
    *bitmap = (struct bitmap){.n_bits = n_bits};
}

void bitmap_deinit(struct bitmap *bitmap)
{
    if (bitmap->n_bits > 64)
        free(bitmap->words);
    bitmap->words = NULL;
}

static void bitmap_allocate(struct bitmap *bitmap)
{
    uint64_t n_words = 0;

    for (uint64_t n = bitmap_words(bitmap->n_bits);; n = bitmap_words(n)) {
        n_words += n;
        if (n == 1)
            break;
    }
    bitmap->words = memory_new(n_words * sizeof(uint64_t));
}

void bitmap_set(struct bitmap *bitmap, uint64_t word, uint64_t mask)
{
    uint64_t n = bitmap_words(bitmap->n_bits);

    CHECK(word < n);
    if (mask == 0)
        return;
    if (!bitmap_levels(bitmap))
        bitmap_allocate(bitmap);
    for (uint64_t *level = bitmap_levels(bitmap);; level += n, n = bitmap_words(n)) {
        uint64_t before = level[word];

        level[word] |= mask;
        if (before || n == 1)
            return;
        mask = 1ULL << (word % 64);
        word /= 64;
    }
}

void bitmap_clear(struct bitmap *bitmap, uint64_t word, uint64_t mask)
{
    uint64_t n = bitmap_words(bitmap->n_bits);

    CHECK(word < n);
    if (!bitmap_levels(bitmap) || mask == 0)
        return;
    for (uint64_t *level = bitmap_levels(bitmap);; level += n, n = bitmap_words(n)) {
        level[word] &= ~mask;
        if (level[word] || n == 1)
            return;
        mask = 1ULL << (word % 64);
        word /= 64;
    }
}

void bitmap_grow(struct bitmap *bitmap, uint64_t n_bits)
{
    struct bitmap old = *bitmap;

    CHECK(n_bits >= old.n_bits);
    bitmap_init(bitmap, n_bits);
    for (uint64_t word = 0; bitmap_levels(&old) && word < bitmap_words(old.n_bits); word++)
        bitmap_set(bitmap, word, bitmap_word(&old, word));
    bitmap_deinit(&old);
}

/* Up while the rest of a word is empty, then down by the first bit of each. */
uint64_t bitmap_next(const struct bitmap *bitmap, uint64_t from)
{
    const uint64_t *levels[8];
    unsigned level = 0;
    uint64_t n = bitmap_words(bitmap->n_bits), at = from;

    if (!bitmap_levels(bitmap) || from >= bitmap->n_bits)
        return BITMAP_NONE;
    for (levels[0] = bitmap_levels(bitmap);; n = bitmap_words(n)) {
        uint64_t rest = at / 64 < n ? levels[level][at / 64] & UINT64_MAX << (at % 64) : 0;

        if (rest) {
            at = at / 64 * 64 + (unsigned)__builtin_ctzll(rest);
            break;
        }
        if (n == 1)
            return BITMAP_NONE;
        levels[level + 1] = levels[level] + n;
        level++;
        at = at / 64 + 1;
    }
    while (level-- > 0)
        at = at * 64 + (unsigned)__builtin_ctzll(levels[level][at]);
    return at;
}

uint64_t bitmap_run_end(const struct bitmap *bitmap, uint64_t first)
{
    uint64_t n = bitmap_words(bitmap->n_bits), word = first / 64;
    uint64_t zeros = ~bitmap_word(bitmap, word) & UINT64_MAX << (first % 64);

    while (!zeros && ++word < n)
        zeros = ~bitmap_word(bitmap, word);
    uint64_t end = zeros ? word * 64 + (unsigned)__builtin_ctzll(zeros) : bitmap->n_bits;

    return (end < bitmap->n_bits ? end : bitmap->n_bits) - 1;
}

/* ---- floors ---- */

void floors_deinit(struct floors *floors)
{
    free(floors->runs);
    *floors = (struct floors){0};
}

/* The first run that ends at or after `index`. */
static size_t floors_seek(const struct floors *floors, uint64_t index)
{
    size_t low = 0, high = floors->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (floors->runs[middle].last < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t floors_at(const struct floors *floors, uint64_t index)
{
    size_t i = floors_seek(floors, index);

    return i < floors->n && floors->runs[i].first <= index ? floors->runs[i].floor : 0;
}

uint32_t floors_highest(const struct floors *floors, uint64_t first, uint64_t last)
{
    uint32_t highest = 0;

    for (size_t i = floors_seek(floors, first); i < floors->n && floors->runs[i].first <= last; i++)
        if (floors->runs[i].floor > highest)
            highest = floors->runs[i].floor;
    return highest;
}

/* Puts `n` runs where `from`..`to` - 1 were. */
static void floors_put(struct floors *floors, size_t from, size_t to, const struct floor_run *runs,
                       size_t n)
{
    size_t after = floors->n - to;

    while (from + n + after > floors->capacity) {
        floors->capacity = floors->capacity ? 2 * floors->capacity : 4;
        floors->runs = memory_array(floors->runs, floors->capacity, sizeof(*floors->runs));
    }
    if (after > 0)
        memmove(floors->runs + from + n, floors->runs + to, after * sizeof(*runs));
    memcpy(floors->runs + from, runs, n * sizeof(*runs));
    floors->n = from + n + after;
}

/* In place: a verb by frames raises thousands of runs, most of them behind the last. */
void floors_raise(struct floors *floors, uint64_t first, uint64_t last, uint32_t floor)
{
    size_t from = floors_seek(floors, first), to = from, n = 0;
    struct floor_run put[3], raised = {.first = first, .last = last, .floor = floor};

    CHECK(first <= last && floor > floors_highest(floors, first, last));
    while (to < floors->n && floors->runs[to].first <= last)
        to++;
    if (to > from && floors->runs[from].first < first) {
        put[n] = floors->runs[from];
        put[n++].last = first - 1;
    } else if (from > 0 && floors->runs[from - 1].floor == floor &&
               floors->runs[from - 1].last + 1 == first) {
        raised.first = floors->runs[--from].first;
    }
    size_t at = n++;

    if (to > from && floors->runs[to - 1].last > last) {
        put[n] = floors->runs[to - 1];
        put[n++].first = last + 1;
    } else if (to < floors->n && floors->runs[to].floor == floor &&
               floors->runs[to].first == last + 1) {
        raised.last = floors->runs[to++].last;
    }
    put[at] = raised;
    floors_put(floors, from, to, put, n);
}
