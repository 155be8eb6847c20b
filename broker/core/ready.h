/* ready.h - sets of tasks as bitmaps with summaries, and floors as runs.
 *
 * The idea: a task costs a bit a state. Above the bits of a set lie summary levels, each bit
 * telling whether a word below has any bit set, so that the first ready task of ten million is
 * found by one find-first-set a level (five levels hold 2^30). A set that was never touched has no
 * memory at all. Floors are sorted runs: a job in which nothing was retried has none.
 *
 * Shape:   LIMIT_TASKS_PER_STEP bits; indexes are the caller's to keep in range (CHECK).
 * Owns:    the words and the runs.
 */
#pragma once

#include <broker/core/memory.h>

#define BITMAP_NONE UINT64_MAX

struct bitmap {
    union {
        uint64_t *words; /* NULL: never touched */
        uint64_t word;   /* of a set of at most 64, which is most jobs' */
    };
    uint64_t n_bits;
};

void bitmap_init(struct bitmap *bitmap, uint64_t n_bits);
void bitmap_deinit(struct bitmap *bitmap);
void bitmap_grow(struct bitmap *bitmap, uint64_t n_bits); /* what is new is zero */
/* 64 tasks at a time: bit b of word w is task 64 w + b. */
void bitmap_set(struct bitmap *bitmap, uint64_t word, uint64_t mask);
void bitmap_clear(struct bitmap *bitmap, uint64_t word, uint64_t mask);
uint64_t bitmap_next(const struct bitmap *bitmap, uint64_t from);     /* BITMAP_NONE: no more */
uint64_t bitmap_run_end(const struct bitmap *bitmap, uint64_t first); /* last of the run of ones */

static inline uint64_t *bitmap_levels(const struct bitmap *bitmap)
{
    return bitmap->n_bits > 64 ? bitmap->words : (uint64_t *)&bitmap->word;
}

static inline uint64_t bitmap_word(const struct bitmap *bitmap, uint64_t word)
{
    const uint64_t *levels = bitmap_levels(bitmap);

    return levels ? levels[word] : 0;
}

static inline bool bitmap_test(const struct bitmap *bitmap, uint64_t index)
{
    return bitmap_word(bitmap, index / 64) >> (index % 64) & 1;
}

static inline uint64_t bitmap_words(uint64_t n_bits)
{
    return (n_bits + 63) / 64;
}

/* The bits of `word` that lie within first..last. */
static inline uint64_t bitmap_mask(uint64_t word, uint64_t first, uint64_t last)
{
    uint64_t mask = UINT64_MAX;

    if (first / 64 == word)
        mask &= UINT64_MAX << (first % 64);
    if (last / 64 == word)
        mask &= UINT64_MAX >> (63 - last % 64);
    return mask;
}

/* The compiler's own would call a helper of libgcc's. */
static inline uint64_t bits_count(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555ULL;
    x = (x & 0x3333333333333333ULL) + (x >> 2 & 0x3333333333333333ULL);
    return ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL) * 0x0101010101010101ULL >> 56;
}

struct floor_run {
    uint64_t first, last;
    uint32_t floor;
};
struct floors {
    struct floor_run *runs;
    size_t n, capacity;
};

void floors_deinit(struct floors *floors);
uint32_t floors_at(const struct floors *floors, uint64_t index); /* 0 where never raised */
uint32_t floors_highest(const struct floors *floors, uint64_t first, uint64_t last);
void floors_raise(struct floors *floors, uint64_t first, uint64_t last, uint32_t floor);
