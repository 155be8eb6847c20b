/* recover.h - every record, in the order of its sequence, from five tables; private to
 * broker/store.
 */
#pragma once

#include <broker/store/database.h>

/* Streams: one row of each table is in hand at a time. An answer of `each` other than 0 ends it
 * and is forwarded. */
int recover(struct database *database, store_each *each, void *user);
