/* unpack.h - rows of table results as the records they were, in order of their sequences, and what a
 * later floor has made anew; private to broker/store.
 *
 * Rows of one transaction overlap: each holds every third result, say. So as many of them are open
 * at once as begin before the next record, in a heap by the record that each has in hand.
 *
 * Owns:    copies of the open rows; a record borrows until the next call.
 * Errors:  SQLite's codes, SQLITE_ROW where there is a record, SQLITE_DONE at the end;
 *          SQLITE_CORRUPT with `damaged` where a row does not fit its checksum (`why` of the
 *          database tells).
 */
#pragma once

#include <broker/store/pack.h>

/* One task, or those of a row, that have a result of a later floor. */
#define FLOORS_ABOVE                                                                               \
    "SELECT page, floor, tasks, checksum FROM done WHERE number = ? AND step = ? AND page "        \
    "BETWEEN ? AND ? AND floor > ?"
/* `statement` is FLOORS_ABOVE; *ret_above has a bit for each task of the page of PACK_TASKS. */
int floors_above(struct database *database, sqlite3_stmt *statement, int64_t number, uint32_t step,
                 uint32_t floor, uint64_t page, uint64_t ret_above[PACK_DONE]);
/* The checksum of a row of table done. */
uint64_t floors_sum(int64_t number, uint32_t step, uint64_t page, uint32_t floor, uint64_t tasks);
bool floors_has(const uint64_t above[PACK_DONE], uint64_t task);

struct opened;
struct unpack {
    struct database *database;
    sqlite3_stmt *rows;   /* PACK_COLUMNS, by sequence */
    sqlite3_stmt *floors; /* FLOORS_ABOVE, or NULL: nobody asks */
    /* NULL, or told of a row that is damaged, which is then passed over; and whether a job is gone. */
    void (*bad)(void *user, const char *why);
    bool (*gone)(void *user, int64_t number);
    void *user;

    struct opened **heap;
    size_t n, capacity;
    uint64_t coming; /* where the row in hand begins; UINT64_MAX: there is none */
    bool damaged;
    bool lent, lent_row; /* the record in hand was given; the row was */
};
int unpack_begin(struct unpack *unpack); /* once the others are set and `rows` is bound */
void unpack_end(struct unpack *unpack);
/* *ret_number: the job's. *ret_over: a later floor has one, too. */
int unpack_next(struct unpack *unpack, struct record *ret_record, int64_t *ret_number,
                bool *ret_over);
