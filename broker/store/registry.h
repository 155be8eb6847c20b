/* registry.h - what registry.c and tokens.c share; private to broker/store.
 *
 * Errors:  registry_check_row: -EINVAL with `why`; the others SQLite's codes.
 */
#pragma once

#include <broker/store/database.h>

int registry_check_row(const struct key_row *row, struct bytes *why);
/* Within the caller's transaction; makes the studio where it is new. */
int registry_write_key(struct database *database, const struct key_row *row);
/* One statement with its values bound: steps it, and *ret_changes is how many rows it touched. */
int registry_finish(struct database *database, sqlite3_stmt *statement, int code, int *ret_changes);
