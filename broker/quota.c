/* quota.c - see quota.h. */
#include <broker/quota.h>

#include <stdio.h>

bool quota_exceeded(uint64_t used_bytes, uint64_t quota_bytes, enum quota_of what)
{
    const uint64_t spare[] = {
        [QUOTA_INPUTS] = 0, [QUOTA_LEASES] = quota_bytes / 4, [QUOTA_RESULTS] = quota_bytes / 2};

    return quota_bytes > 0 && used_bytes > quota_bytes + spare[what];
}

const char *quota_why(uint64_t used_bytes, uint64_t quota_bytes, char why[QUOTA_WHY_BYTES])
{
    snprintf(why, QUOTA_WHY_BYTES, "the studio's quota is used up: %.1f MB of %.1f MB",
             (double)used_bytes / 1e6, (double)quota_bytes / 1e6);
    return why;
}
