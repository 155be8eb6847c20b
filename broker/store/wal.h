/* wal.h - the database's files before SQLite opens them: what it would pass over in silence. Private
 * to broker/store.
 *
 * SQLite ends its write-ahead log at the first frame whose checksum does not fit, because that is
 * what a power cut in mid-write leaves. A bit that turned over further ahead looks the same to it,
 * and everything committed after it would be gone. But a commit is synced before the next one
 * begins: so where a commit and after it a frame of a later one are found behind the bad frame, it
 * was whole once. And where the machine has not been started anew since the log was written, no power
 * cut tore anything: then a commit behind the bad frame is enough. What is left untold is a bit in
 * the very last frame, which a kill may have left half written, and in the last transaction before
 * a power cut.
 * Likewise a state.db without a byte is a new one to SQLite.
 *
 * Errors:  0, -errno, STORE_E_CORRUPT with a sentence in `why`.
 * Source:  sqlite.org/fileformat2.html, "The Write-Ahead Log".
 */
#pragma once

#include <broker/store/database.h>

enum { WAL_BOOT_BYTES = 40 };
/* Of this start of the machine; "" where it cannot be had. */
void wal_boot(char boot[WAL_BOOT_BYTES]);
/* *ret_same_boot: the log is of a broker of this start of the machine, as its lock file says. */
int wal_check(const char *folder, bool *ret_same_boot, char why[DATABASE_WHY_BYTES]);
