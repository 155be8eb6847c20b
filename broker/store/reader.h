/* reader.h - a reading connection, shared by reader.c (keys) and attempts.c; private to
 * broker/store.
 */
#pragma once

#include <broker/store/attempts.h>

/* A longer read would hold the log back from starting over; a page takes milliseconds. */
#define READER_NS   (1 * NS_PER_S)
#define READER_STEP 4096 /* virtual machine steps between two looks at the clock */

enum reader_statement {
    KEY = ATTEMPTS_STATEMENTS,
    KEYS,
    STUDIO,
    STUDIOS,
    QUOTAS,
    REGISTRY,
    POOL,
    READER_STATEMENTS
};

struct store_reader {
    struct database database;
    int64_t until_ns;
};
