/* attempts.h - what was committed of tasks, from both tables that hold it; private to broker/store.
 *
 * Table results has plain results, many a row, table reports all else. What is asked for in order of
 * sequences is the two merged.
 *
 * Errors:  as of store_reader; `why` of the database says what.
 */
#pragma once

#include <broker/store/unpack.h>

enum attempts_statement {
    SNAPSHOT,
    SNAPSHOT_END,
    JOB_NUMBER,
    ABOVE,
    RESULTS_OF_JOB,
    RESULTS_OF_TASKS,
    WARNED_AFTER,
    REPORTS_AFTER,
    WARNED_OF_TASKS,
    REPORTS_OF_TASK,
    FAILURES,
    WARNINGS,
    ATTEMPTS_STATEMENTS
};

#define REPORTS "SELECT " DATABASE_ATTEMPT_COLUMNS " FROM reports WHERE number = ?1"
#define RESULTS "SELECT " PACK_COLUMNS " FROM results"

/* clang-format off */
#define ATTEMPTS_TEXTS                                                                             \
    [SNAPSHOT] = "BEGIN",                                                                          \
    [SNAPSHOT_END] = "COMMIT",                                                                     \
    [JOB_NUMBER] = "SELECT sequence FROM jobs WHERE job = ?",                                      \
    [ABOVE] = FLOORS_ABOVE,                                                                        \
    /* ?3 is where a row that reaches past ?2 begins at the earliest. */                           \
    [RESULTS_OF_JOB] = RESULTS " WHERE number = ?1 AND last > ?2 AND sequence > ?3"                \
                               " ORDER BY sequence",                                               \
    [RESULTS_OF_TASKS] = RESULTS " WHERE number = ?1 AND step = ?2 AND page = ?3 AND low <= ?5"    \
                                 " AND high >= ?4",                                                \
    [WARNED_AFTER] = REPORTS " AND class = 0 AND sequence > ?2 ORDER BY sequence",                 \
    /* Each half by its own index, in order. */                                                    \
    [REPORTS_AFTER] = REPORTS " AND class = 0 AND sequence > ?2 UNION ALL " REPORTS                \
                              " AND class <> 0 AND sequence > ?2 ORDER BY sequence",               \
    [WARNED_OF_TASKS] = REPORTS " AND step = ?2 AND task BETWEEN ?3 AND ?4 AND class = 0",         \
    [REPORTS_OF_TASK] = REPORTS " AND step = ?2 AND task = ?3 AND sequence > ?4"                   \
                                " ORDER BY sequence LIMIT ?5",                                     \
    [FAILURES] = REPORTS " AND class <> 0 AND class <> ?3 AND sequence < ?2"                       \
                         " ORDER BY sequence DESC",                                                \
    [WARNINGS] = REPORTS " AND class = 0 AND sequence < ?2 ORDER BY sequence DESC"
/* clang-format on */

/* Every result of every job that is brought home, in order, on a connection of any kind. A row that is
 * damaged is passed over. */
int attempts_home(struct database *database, void (*each)(void *user, const struct record *record),
                  void *user);
