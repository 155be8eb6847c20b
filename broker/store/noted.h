/* noted.h - where a task with a note may be; private to broker/store.
 *
 * An attempt takes its task's note away, and hardly any task has one: only leases that last are noted.
 * So a bit by hash says which may, and what has none costs no DELETE. Bits are only ever added, until
 * all are read anew.
 *
 * Errors:  SQLite's codes.
 */
#pragma once

#include <broker/store/database.h>

enum { NOTED_BITS = 1 << 16, NOTED_ADDED = NOTED_BITS / 8 };

struct noted {
    uint64_t words[NOTED_BITS / 64];
    unsigned added; /* since they were read: past NOTED_ADDED it is time to */
};

void noted_add(struct noted *noted, const struct job_id *job, struct task_id task);
bool noted_has(const struct noted *noted, const struct job_id *job, struct task_id task);
int noted_read(struct noted *noted, sqlite3_stmt *rows); /* job, step, task; resets it */
