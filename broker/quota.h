/* quota.h - how much of the vault a studio may fill, and what it is told.
 *
 * A studio at its quota submits nothing new. What its accepted jobs bring is taken until a quarter
 * more; then their attempts fail, and the jobs pause themselves.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { QUOTA_SPARE = 4, QUOTA_WHY_BYTES = 128 };

#define QUOTA_NEXT                                                                                 \
    "bring home what is done, so that it need not be kept for long, or ask the operator for more " \
    "(westlight-broker studio --quota SIZE)"

/* No quota (0) is never exceeded. */
bool quota_exceeded(uint64_t used_bytes, uint64_t quota_bytes, bool result);
const char *quota_why(uint64_t used_bytes, uint64_t quota_bytes, char why[QUOTA_WHY_BYTES]);
