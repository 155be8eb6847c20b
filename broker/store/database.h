/* database.h - one SQLite connection as this store uses it; private to broker/store.
 *
 * Shape:   a connection belongs to one thread. Whoever opens for writing brings the schema up to
 *          date, in a transaction, so that two programs may start on an empty folder at once.
 * Owns:    database_close closes statements first; `why` is a sentence, valid after an error.
 * Errors:  STORE_E_*; -EBUSY (locked for longer than the patience), -ETIMEDOUT (a read took too
 *          long), -EIO and others. database_error maps SQLite's codes; nothing else does.
 * Source:  sqlite.org/rescode.html, sqlite.org/wal.html, sqlite.org/pragma.html.
 */
#pragma once

#include <sqlite3.h>
#include <broker/store/store.h>

#define DATABASE_STATEMENTS 40
#define DATABASE_WHY_BYTES  768

#define DATABASE_NEXT                                                                              \
    "westlight-broker --check lists the damage, westlight-broker restore brings back a backup"

/* LOOK leaves the files as they are, also as the last that closes them. */
enum database_mode { DATABASE_WRITE, DATABASE_READ, DATABASE_LOOK };

struct database {
    sqlite3 *handle;
    sqlite3_stmt *statements[DATABASE_STATEMENTS];
    char why[DATABASE_WHY_BYTES];
};

int database_open(struct database *database, const char *folder, enum database_mode mode);
void database_close(struct database *database);
/* Of our schema, with the names and numbers it must hold; STORE_E_CORRUPT. */
int database_check_form(struct database *database, const char *folder);
int database_check_meta(struct database *database); /* SQLite's code */
/* Fills `why`: "what: SQLite's reason: next step", and returns the mapped code. */
int database_error(struct database *database, int code, const char *what);
/* Statements are kept under the index of their text. */
int database_prepare(struct database *database, const char *const *texts, size_t n_texts);
int database_run_text(struct database *database, const char *text);

/* Binds by format: i an int64_t, b a pointer and a size_t, t a text, T a text and its size_t. The data must live until the
 * statement was reset. Returns SQLite's code. */
int database_bind(sqlite3_stmt *statement, const char *format, ...);
/* Steps a statement that returns no rows, and resets it. Returns SQLite's code, SQLITE_OK if done.
 */
int database_finish(sqlite3_stmt *statement);

/* Columns of table reports in the order that database_attempt reads them. */
#define DATABASE_ATTEMPT_COLUMNS                                                                   \
    "sequence, wall_s, job, step, task, floor, epoch, attempt, worker, class, wall_ns, cpu_ns, "   \
    "memory_bytes, bytes_in, bytes_out, card_ns, blob, warned, number, checksum"
void database_attempt(sqlite3_stmt *statement, struct record *ret_record);
/* The last column but one, where a row names its job by a number. */
int64_t database_number(sqlite3_stmt *statement);
/* 0, or STORE_E_CORRUPT where the last column is not the checksum of the record that was read. */
int database_verify(struct database *database, sqlite3_stmt *statement, const char *table,
                    const struct record *record);
/* A blob of exactly `size` bytes; zeroes where the column holds something else. */
void database_column_bytes(sqlite3_stmt *statement, int column, void *ret_data, size_t size);
