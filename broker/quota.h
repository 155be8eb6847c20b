/* quota.h - how much of the vault a studio may fill, and what it is told.
 *
 * A studio at its quota submits nothing new. Of what it has submitted, nothing more is leased from
 * a quarter more on; what runs then brings its results home until half as much again. A result past
 * that fails its attempt, so that no worker waits with what it cannot hand in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { QUOTA_WHY_BYTES = 128 };
enum quota_of { QUOTA_INPUTS, QUOTA_LEASES, QUOTA_RESULTS };

#define QUOTA_NEXT                                                                                 \
    "bring home what is done, so that it need not be kept for long, or ask the operator for more " \
    "(westlight-broker studio --quota SIZE)"

/* No quota (0) is never exceeded. */
bool quota_exceeded(uint64_t used_bytes, uint64_t quota_bytes, enum quota_of what);
const char *quota_why(uint64_t used_bytes, uint64_t quota_bytes, char why[QUOTA_WHY_BYTES]);
