/* space.h - the parameter space of a step: how many tasks, and the values of each.
 *
 * The idea: a space is never expanded. A task is an index; the values of its parameters are
 * arithmetic on it (mixed radix, the last factor innermost), and so is the way back from a frame
 * to the indexes that hold it.
 *
 * Shape:   at most LIMIT_SPACE_PARAMETERS parameters, LIMIT_TASKS_PER_STEP points. A space is a
 *          product of factors; a factor is one parameter or an association of several of equal
 *          length, whose values advance together. A space without parameters has one point.
 * Values:  an INT list is a normalised list of ranges (first, last, step; step > 0), in the order
 *          given, without duplicates. A chunked parameter holds `chunk` consecutive values of its
 *          list per point. STRING and PATH lists are arrays of text.
 * Owns:    space_deinit frees what space_add_* copied. struct point borrows from the space.
 * Errors:  SPACE_E_* (positive); -ENOMEM.
 * Source:  Open Job Description 2023-09, "StepParameterSpaceDefinition"; TASK_CHUNKING extension.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/limits.h>

enum {
    SPACE_E_LIMIT = 1,   /* too many parameters, ranges, values or points */
    SPACE_E_LENGTH = 2,  /* associated parameters differ in length */
    SPACE_E_NAME = 3,    /* a name twice, or empty */
    SPACE_E_RANGE = 4,   /* an empty or overlapping range */
    SPACE_E_UNKNOWN = 5, /* no parameter of that name, or not an INT */
    SPACE_E_INDEX = 6,   /* past the last point */
};

enum space_type { SPACE_INT = 0, SPACE_STRING = 1, SPACE_PATH = 2, SPACE_FLOAT = 3 };

struct space_range {
    int64_t first, last; /* both included; last is a member of the range */
    int64_t step;        /* > 0 */
};

struct space_parameter {
    char *name;
    enum space_type type;
    uint32_t factor; /* parameters of one factor advance together */
    uint32_t chunk;  /* values per point; 1 unless chunked; INT only */
    bool contiguous; /* a chunk never spans a gap between ranges */
    struct space_range *ranges; /* INT */
    size_t n_ranges;
    char **texts; /* others */
    size_t n_texts;
    uint64_t n_values; /* in the list */
    uint64_t n_points; /* n_values over chunk, rounded up (per range where contiguous) */
};

struct space {
    struct space_parameter *parameters;
    size_t n_parameters;
    uint32_t n_factors;
    uint64_t n_points; /* valid after space_seal */
};

/* Differences of two int64 as uint64, where they cannot overflow. */
static inline uint64_t space_gap(int64_t from, int64_t to)
{
    return (uint64_t)to - (uint64_t)from;
}

static inline int64_t space_after(int64_t from, uint64_t by)
{
    return (int64_t)((uint64_t)from + by);
}

/* How many values a range holds (2^64 - 1 stands for 2^64). */
uint64_t space_range_count(const struct space_range *range);
/* The values two ranges share: from *ret_first every *ret_stride, up to *ret_last at most; false
 * where they share none. A stride past 64 bits is UINT64_MAX. `last` must be a member in both. */
bool space_ranges_meet(const struct space_range *a, const struct space_range *b,
                       int64_t *ret_first, int64_t *ret_last, uint64_t *ret_stride);

/* One parameter's value at a point: for INT `n_ranges` ranges copied into `ranges` (one value
 * unless chunked; a chunk spans at most LIMIT_SPACE_RANGES ranges); otherwise `text`, borrowed. */
struct space_value {
    const char *name;
    enum space_type type;
    bool chunked;
    int64_t first; /* INT: the first value; the only one unless chunked */
    const char *text;
    uint64_t value_first, value_count; /* INT: which values of the list; see space_chunk_text */
};

struct point {
    struct space_value values[LIMIT_SPACE_PARAMETERS];
    size_t n_values;
};

/* An interval of task indexes, both ends included. */
struct space_interval {
    uint64_t first, last;
};

void space_init(struct space *space);
void space_deinit(struct space *space);

/* Adds a parameter; `factor` groups associated ones (0, 1, 2, ... in order of nesting). Copies. */
int space_add_ints(struct space *space, const char *name, uint32_t factor, uint32_t chunk,
                   bool contiguous, const struct space_range *ranges, size_t n_ranges);
int space_add_texts(struct space *space, const char *name, uint32_t factor, enum space_type type,
                    const char *const *texts, size_t n_texts);
/* Checks the whole and computes n_points. Call once, after the last parameter. */
int space_seal(struct space *space);

uint64_t space_size(const struct space *space);
int space_point(const struct space *space, uint64_t index, struct point *ret_point);
/* Writes a value as text: "7", or a chunk as a range expression "1-5", "1,3,5-9:2"; returns the
 * length that was needed, as snprintf does. */
size_t space_value_text(const struct space *space, const struct space_value *value, char *text,
                        size_t size);
/* The task indexes whose INT parameter `name` holds any of the values of `ranges`: sorted,
 * disjoint, merged. *ret_intervals is the caller's to free. Values the space lacks are ignored. */
int space_find(const struct space *space, const char *name, const struct space_range *ranges,
               size_t n_ranges, struct space_interval **ret_intervals, size_t *ret_n_intervals);
/* Whether `space` is `old` with ranges added at the end of its outermost parameter, so that what
 * has an index keeps it. *ret_same tasks keep their values as well; the rest of the old ones, a last
 * chunk that was not full, get more. */
bool space_extends(const struct space *old, const struct space *space, uint64_t *ret_same);
/* The first INT parameter, by which a person names frames; NULL if there is none. */
const char *space_frame_name(const struct space *space);

/* Frame expressions as artists write them: "1-240", "1-240:2", "1-240x2", "1..10", "1..10..2",
 * "5,10-20", "-3--1"; spaces allowed; normalised (ascending, duplicates removed, steps kept where
 * they save ranges). On SPACE_E_RANGE and SPACE_E_LIMIT *ret_at is the offset of the character and
 * *ret_why a sentence part ("the range ends before it begins"). *ret_ranges is the caller's to
 * free. */
int space_parse_frames(const char *text, struct space_range **ret_ranges, size_t *ret_n_ranges,
                       size_t *ret_at, const char **ret_why);
/* The values of `ranges` that `others` lack, normalised; *ret_ranges is the caller's to free. */
int space_ranges_without(const struct space_range *ranges, size_t n, const struct space_range *others,
                         size_t n_others, struct space_range **ret_ranges, size_t *ret_n_ranges);
/* "1-5,9,11-15:2"; returns the length needed, as snprintf does. */
size_t space_format_ranges(const struct space_range *ranges, size_t n_ranges, char *text,
                           size_t size);
