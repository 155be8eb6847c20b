/* rate.h - how many messages a second: a bucket that the time is put into when it is found empty.
 *
 * So what is within its limit costs a number's decrement. Over any time at most twice what fits, and what that
 * time brings.
 *
 * Shape:   zeroed is full.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rate {
    int64_t filled_ns; /* 0: never */
    uint32_t tokens;
};

/* What the time since brings, `per_s` of them and at most `most`; false: not even one. */
bool rate_fill(struct rate *rate, uint32_t per_s, uint32_t most, int64_t now_ns);

static inline bool rate_take(struct rate *rate, uint32_t per_s, uint32_t most, int64_t now_ns)
{
    if (rate->tokens == 0 && !rate_fill(rate, per_s, most, now_ns))
        return false;
    rate->tokens--;
    return true;
}
