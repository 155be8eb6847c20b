/* epoch.h - the broker's lives, counted in table meta; private to broker/store.
 *
 * Errors:  as database.h says.
 */
#pragma once

#include <broker/store/database.h>

struct epoch {
    uint32_t number;   /* of this life */
    uint32_t fence;    /* the first epoch whose leases count; 0: any */
    uint64_t sequence; /* records go on above it; 0: above the last */
};
/* Durable before it returns; of a backup that is started for the first time, past what the broker
 * may have used since. */
int epoch_raise(struct database *database, struct epoch *ret_epoch);
