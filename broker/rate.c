/* rate.c - see rate.h. */
#include <broker/rate.h>
#include <proto/base/clock.h>

bool rate_fill(struct rate *rate, uint32_t per_s, uint32_t most, int64_t now_ns)
{
    int64_t since_ns = now_ns - rate->filled_ns;
    uint64_t came = most;

    if (rate->filled_ns != 0 && since_ns / NS_PER_S <= most / per_s)
        came = (uint64_t)since_ns * per_s / NS_PER_S;
    if (came == 0)
        return false;
    rate->tokens = came < most ? (uint32_t)came : most;
    rate->filled_ns = now_ns;
    return true;
}
