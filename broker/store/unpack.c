/* unpack.c - see unpack.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/unpack.h>
#include <proto/base/check.h>

struct opened {
    struct pack pack; /* points into `bytes` */
    const char *at;
    struct record record;
    uint64_t above[PACK_DONE];
    uint8_t bytes[];
};

/* ---- later floors ---- */

uint64_t floors_sum(int64_t number, uint32_t step, uint64_t page, uint32_t floor, uint64_t tasks)
{
    uint64_t sum = 0;

    for (; tasks; tasks &= tasks - 1)
        sum += checksum_task(number, step, floor,
                             page * DONE_TASKS + (uint64_t)__builtin_ctzll(tasks));
    return sum;
}

int floors_above(struct database *database, sqlite3_stmt *statement, int64_t number, uint32_t step,
                 uint32_t floor, uint64_t page, uint64_t ret_above[PACK_DONE])
{
    int64_t first = (int64_t)(page * PACK_DONE);
    int code = database_bind(statement, "iiiii", number, (int64_t)step, first,
                             first + PACK_DONE - 1, (int64_t)floor);

    memset(ret_above, 0, PACK_DONE * sizeof *ret_above);
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        uint64_t at = (uint64_t)sqlite3_column_int64(statement, 0);
        uint64_t tasks = (uint64_t)sqlite3_column_int64(statement, 2);
        uint32_t later = (uint32_t)sqlite3_column_int64(statement, 1);

        code = SQLITE_OK;
        if ((uint64_t)sqlite3_column_int64(statement, 3) !=
            floors_sum(number, step, at, later, tasks))
            code = SQLITE_CORRUPT;
        ret_above[at % PACK_DONE] |= tasks;
    }
    sqlite3_reset(statement);
    if (code == SQLITE_CORRUPT)
        snprintf(database->why, sizeof database->why,
                 "state.db: table done, job %lld: damaged: " DATABASE_NEXT, (long long)number);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

bool floors_has(const uint64_t above[PACK_DONE], uint64_t task)
{
    return above[task % PACK_TASKS / DONE_TASKS] >> task % DONE_TASKS & 1;
}

/* ---- the heap ---- */

static bool before(const struct opened *a, const struct opened *b)
{
    return a->record.sequence < b->record.sequence;
}

static void sift_down(struct unpack *unpack)
{
    struct opened **heap = unpack->heap, *moved = heap[0];
    size_t at = 0;

    for (size_t child; (child = 2 * at + 1) < unpack->n; at = child) {
        child += child + 1 < unpack->n && before(heap[child + 1], heap[child]);
        if (!before(heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static int push(struct unpack *unpack, struct opened *opened)
{
    if (unpack->n == unpack->capacity) {
        size_t capacity = 2 * unpack->capacity + 16;
        struct opened **heap = reallocarray(unpack->heap, capacity, sizeof *heap);

        if (!heap)
            return SQLITE_NOMEM;
        unpack->heap = heap;
        unpack->capacity = capacity;
    }
    size_t at = unpack->n++;
    for (; at > 0 && before(opened, unpack->heap[(at - 1) / 2]); at = (at - 1) / 2)
        unpack->heap[at] = unpack->heap[(at - 1) / 2];
    unpack->heap[at] = opened;
    return SQLITE_OK;
}

/* ---- rows ---- */

static int advance(struct unpack *unpack)
{
    int code = sqlite3_step(unpack->rows);

    unpack->coming =
        code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(unpack->rows, 0) : UINT64_MAX;
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

static struct opened *copy(const struct pack *pack)
{
    struct opened *opened =
        malloc(sizeof *opened + pack->workers_size + pack->members_size + pack->blobs_size);
    if (!opened)
        return NULL;
    uint8_t *at = opened->bytes;

    opened->pack = *pack;
    opened->at = NULL;
    opened->pack.workers = memcpy(at, pack->workers, pack->workers_size);
    at += pack->workers_size;
    opened->pack.members = memcpy(at, pack->members, pack->members_size);
    at += pack->members_size;
    opened->pack.blobs = memcpy(at, pack->blobs, pack->blobs_size);
    return opened;
}

/* Whether the row in hand, as *ret_pack, is one to give. */
static int look_at_row(struct unpack *unpack, struct pack *ret_pack, bool *ret_wanted)
{
    pack_read(unpack->rows, ret_pack);
    *ret_wanted = !unpack->gone || !unpack->gone(unpack->user, ret_pack->number);
    if (!*ret_wanted || pack_verify(unpack->database, ret_pack) == 0)
        return SQLITE_OK;
    *ret_wanted = false;
    unpack->damaged = !unpack->bad;
    if (unpack->bad)
        unpack->bad(unpack->user, unpack->database->why);
    return unpack->bad ? SQLITE_OK : SQLITE_CORRUPT;
}

static int look_above(struct unpack *unpack, const struct pack *pack, uint64_t ret_above[PACK_DONE])
{
    if (!unpack->floors)
        return SQLITE_OK;
    int code = floors_above(unpack->database, unpack->floors, pack->number, pack->step, pack->floor,
                            pack->page, ret_above);
    unpack->damaged |= code == SQLITE_CORRUPT;
    return code;
}

static int open_row(struct unpack *unpack, const struct pack *pack)
{
    struct opened *opened = copy(pack);

    if (!opened)
        return SQLITE_NOMEM;
    int code = look_above(unpack, pack, opened->above);
    if (code == SQLITE_OK && !pack_next(&opened->pack, &opened->at, &opened->record))
        code = SQLITE_CORRUPT;
    if (code == SQLITE_OK)
        code = push(unpack, opened);
    if (code != SQLITE_OK)
        free(opened);
    return code;
}

/* A row of one result, as a slow farm has them, is given as it lies there. */
static int give_row(struct unpack *unpack, const struct pack *pack, struct record *ret_record,
                    int64_t *ret_number, bool *ret_over)
{
    uint64_t above[PACK_DONE];
    const char *at = NULL;
    int code = look_above(unpack, pack, above);

    if (code != SQLITE_OK)
        return code;
    if (!pack_next(pack, &at, ret_record))
        return SQLITE_CORRUPT;
    unpack->lent_row = true;
    *ret_number = pack->number;
    *ret_over = unpack->floors && floors_has(above, ret_record->attempt.lease.task.index);
    return SQLITE_ROW;
}

int unpack_begin(struct unpack *unpack)
{
    unpack->heap = NULL;
    unpack->n = unpack->capacity = 0;
    unpack->damaged = unpack->lent = unpack->lent_row = false;
    return advance(unpack);
}

void unpack_end(struct unpack *unpack)
{
    for (size_t i = 0; i < unpack->n; i++)
        free(unpack->heap[i]);
    free(unpack->heap);
    unpack->heap = NULL;
    unpack->n = 0;
    sqlite3_reset(unpack->rows);
}

/* Moves on from the record that was given last: it stays in hand until here, since it is lent. */
static void leave(struct unpack *unpack)
{
    struct opened *opened = unpack->heap[0];

    if (pack_next(&opened->pack, &opened->at, &opened->record)) {
        sift_down(unpack);
        return;
    }
    free(opened);
    unpack->heap[0] = unpack->heap[--unpack->n];
    if (unpack->n)
        sift_down(unpack);
}

int unpack_next(struct unpack *unpack, struct record *ret_record, int64_t *ret_number,
                bool *ret_over)
{
    int code = unpack->lent_row ? advance(unpack) : SQLITE_OK;

    if (unpack->lent)
        leave(unpack);
    unpack->lent = unpack->lent_row = false;
    /* Every row is open that begins before the record in hand. */
    while (code == SQLITE_OK && unpack->coming != UINT64_MAX &&
           (unpack->n == 0 || unpack->coming < unpack->heap[0]->record.sequence)) {
        struct pack pack;
        bool wanted;

        code = look_at_row(unpack, &pack, &wanted);
        if (code == SQLITE_OK && wanted && pack.first == pack.last)
            return give_row(unpack, &pack, ret_record, ret_number, ret_over);
        if (code == SQLITE_OK && wanted)
            code = open_row(unpack, &pack);
        if (code == SQLITE_OK)
            code = advance(unpack);
    }
    if (code != SQLITE_OK)
        return code;
    if (unpack->n == 0)
        return SQLITE_DONE;
    const struct opened *opened = unpack->heap[0];
    unpack->lent = true;
    *ret_record = opened->record;
    *ret_number = opened->pack.number;
    *ret_over =
        unpack->floors && floors_has(opened->above, opened->record.attempt.lease.task.index);
    return SQLITE_ROW;
}
