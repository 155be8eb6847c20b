/* recover.h - every record, in the order of its sequence, from seven tables; private to
 * broker/store.
 */
#pragma once

#include <broker/store/database.h>

/* Streams: one row of each table is in hand at a time. An answer of `each` other than 0 ends it
 * and is forwarded. A row whose checksum does not fit is STORE_E_CORRUPT, or told to `bad` and passed
 * over. */
typedef void recover_bad(void *user, const char *why);
int recover(struct database *database, store_each *each, recover_bad *bad, void *user);
