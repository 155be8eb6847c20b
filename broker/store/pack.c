/* pack.c - see pack.h. What a row holds is written and read here, and nowhere else. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/store/checksum.h>
#include <broker/store/pack.h>
#include <proto/base/check.h>

enum { MEMBER_NUMBERS = 12, MEMBER_BYTES = MEMBER_NUMBERS * 21 + 3 };

static const size_t worker_bytes = sizeof(struct worker_key);

/* ---- reading ---- */

static const void *column(sqlite3_stmt *row, int at, size_t *ret_size)
{
    const void *data = sqlite3_column_blob(row, at);

    *ret_size = (size_t)sqlite3_column_bytes(row, at);
    return data ? data : "";
}

void pack_read(sqlite3_stmt *row, struct pack *ret_pack)
{
    *ret_pack = (struct pack){
        .first = (uint64_t)sqlite3_column_int64(row, 0),
        .last = (uint64_t)sqlite3_column_int64(row, 1),
        .wall_s = sqlite3_column_int64(row, 2),
        .number = sqlite3_column_int64(row, 3),
        .step = (uint32_t)sqlite3_column_int64(row, 5),
        .floor = (uint32_t)sqlite3_column_int64(row, 6),
        .epoch = (uint32_t)sqlite3_column_int64(row, 7),
        .page = (uint64_t)sqlite3_column_int64(row, 8),
        .low = (uint64_t)sqlite3_column_int64(row, 9),
        .high = (uint64_t)sqlite3_column_int64(row, 10),
        .checksum = sqlite3_column_int64(row, 14),
    };
    database_column_bytes(row, 4, ret_pack->job.bytes, sizeof ret_pack->job.bytes);
    ret_pack->workers = column(row, 11, &ret_pack->workers_size);
    ret_pack->members = column(row, 12, &ret_pack->members_size);
    ret_pack->blobs = column(row, 13, &ret_pack->blobs_size);
}

int pack_verify(struct database *database, const struct pack *pack)
{
    char job[2 * sizeof pack->job.bytes + 1];

    if (pack->checksum == checksum_pack(pack) && pack_whole(pack))
        return 0;
    hex_encode(pack->job.bytes, sizeof pack->job.bytes, job);
    snprintf(database->why, sizeof database->why,
             "state.db: table results, row %llu (job %.8s): damaged: " DATABASE_NEXT,
             (unsigned long long)pack->first, job);
    return STORE_E_CORRUPT;
}

/* A number, and the sign behind it. */
static bool take_number(const char **at, const char *end, char sign, int64_t *ret_number)
{
    const char *here = *at;
    uint64_t number = 0;
    bool minus = here < end && *here == '-';

    here += minus;
    if (here == end || *here < '0' || *here > '9')
        return false;
    while (here < end && *here >= '0' && *here <= '9')
        number = number * 10 + (uint64_t)(*here++ - '0');
    if (here == end || *here != sign)
        return false;
    *ret_number = (int64_t)(minus ? 0 - number : number);
    *at = here + 1;
    return true;
}

static bool take_member(const struct pack *pack, const char **at, int64_t numbers[MEMBER_NUMBERS])
{
    const char *end = pack->members + pack->members_size, *here = *at ? *at : pack->members;

    if (end - here < 2 || (*here != '[' && *here != ',') || here[1] != '[')
        return false;
    here += 2;
    for (size_t i = 0; i < MEMBER_NUMBERS; i++)
        if (!take_number(&here, end, i + 1 < MEMBER_NUMBERS ? ',' : ']', &numbers[i]))
            return false;
    *at = here;
    return numbers[3] >= 0 && (uint64_t)numbers[3] < pack->workers_size / worker_bytes &&
           numbers[10] >= 0 && numbers[11] >= 0 && (uint64_t)numbers[10] <= pack->blobs_size &&
           (uint64_t)numbers[11] <= pack->blobs_size - (uint64_t)numbers[10];
}

bool pack_next(const struct pack *pack, const char **at, struct record *ret_record)
{
    int64_t n[MEMBER_NUMBERS];

    if (!take_member(pack, at, n))
        return false;
    *ret_record = (struct record){.kind = RECORD_ATTEMPT,
                                  .sequence = pack->first + (uint64_t)n[0],
                                  .wall_s = pack->wall_s,
                                  .job = pack->job};
    ret_record->attempt.lease = (struct lease_id){.job = pack->job,
                                                  .task = {pack->step, (uint64_t)n[1]},
                                                  .floor = pack->floor,
                                                  .epoch = pack->epoch,
                                                  .attempt = (uint64_t)n[2]};
    memcpy(ret_record->attempt.worker.bytes, pack->workers + worker_bytes * (size_t)n[3],
           worker_bytes);
    ret_record->attempt.class = CLASS_OK;
    ret_record->attempt.usage = (struct usage){.wall_ns = (uint64_t)n[4],
                                               .cpu_ns = (uint64_t)n[5],
                                               .memory_bytes = (uint64_t)n[6],
                                               .bytes_in = (uint64_t)n[7],
                                               .bytes_out = (uint64_t)n[8],
                                               .card_ns = (uint64_t)n[9]};
    ret_record->attempt.blob = pack->blobs + n[10];
    ret_record->attempt.blob_size = (size_t)n[11];
    return true;
}

/* Its checksum says that it is what was written; this, that it was written by such a program. The
 * first and the last are enough for that. */
bool pack_whole(const struct pack *pack)
{
    return pack->members_size > 3 && !memcmp(pack->members, "[[", 2) &&
           !memcmp(pack->members + pack->members_size - 2, "]]", 2);
}

/* ---- making ---- */

/* Records of one row to be, in order, as a chain of places. */
struct group {
    uint32_t first, last;
};

struct packer {
    const struct record **records;
    uint32_t *next; /* in its group; UINT32_MAX: none */
    size_t n, capacity;
    struct group *groups;
    uint32_t *slots; /* a hash table of groups; UINT32_MAX: none */
    size_t n_groups, n_slots;
    uint64_t seed[2]; /* ids of jobs are chosen by studios, and must not collide on purpose */
    struct bytes members, blobs, workers;
    uint16_t worker_slots[2 * PACK_TASKS]; /* their places, and one more */
};

struct packer *packer_new(void)
{
    struct packer *packer = calloc(1, sizeof *packer);

    if (packer && random_bytes(packer->seed, sizeof packer->seed) < 0) {
        free(packer);
        return NULL;
    }
    return packer;
}

void packer_free(struct packer *packer)
{
    if (!packer)
        return;
    free(packer->records);
    free(packer->next);
    free(packer->groups);
    free(packer->slots);
    bytes_deinit(&packer->members);
    bytes_deinit(&packer->blobs);
    bytes_deinit(&packer->workers);
    free(packer);
}

static int grow(struct packer *packer)
{
    size_t capacity = packer->capacity ? 2 * packer->capacity : 1024;
    const struct record **records =
        reallocarray(packer->records, capacity, sizeof *packer->records);
    packer->records = records ? records : packer->records;
    uint32_t *next = reallocarray(packer->next, capacity, sizeof *next);
    packer->next = next ? next : packer->next;
    struct group *groups = reallocarray(packer->groups, capacity, sizeof *groups);
    packer->groups = groups ? groups : packer->groups;
    uint32_t *slots = reallocarray(packer->slots, 2 * capacity, sizeof *slots);
    packer->slots = slots ? slots : packer->slots;

    if (!records || !next || !groups || !slots)
        return SQLITE_NOMEM;
    packer->capacity = capacity;
    return SQLITE_OK;
}

int packer_add(struct packer *packer, const struct record *record)
{
    int code = packer->n == packer->capacity ? grow(packer) : SQLITE_OK;

    if (code == SQLITE_OK)
        packer->records[packer->n++] = record;
    return code;
}

static bool same_row(const struct record *a, const struct record *b)
{
    const struct lease_id *one = &a->attempt.lease, *other = &b->attempt.lease;

    return one->task.index / PACK_TASKS == other->task.index / PACK_TASKS &&
           !memcmp(&a->job, &b->job, sizeof a->job) && one->task.step == other->task.step &&
           one->floor == other->floor && one->epoch == other->epoch && a->wall_s == b->wall_s;
}

/* One word after another: of two that were joined by a xor, a studio could let the one undo the
 * other. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

static uint32_t *slot_of(struct packer *packer, const struct record *record)
{
    const struct lease_id *lease = &record->attempt.lease;
    uint64_t words[2], hash = packer->seed[0];

    memcpy(words, record->job.bytes, sizeof words);
    hash = mix(mix(hash, words[0]), words[1]) ^ packer->seed[1];
    hash = mix(mix(hash, lease->task.index / PACK_TASKS),
               (uint64_t)lease->floor << 32 ^ lease->task.step);
    for (size_t at = hash;; at++) {
        uint32_t *slot = &packer->slots[at & (packer->n_slots - 1)];

        if (*slot == UINT32_MAX || same_row(packer->records[packer->groups[*slot].first], record))
            return slot;
    }
}

static void gather(struct packer *packer)
{
    uint32_t before = 0;

    packer->n_groups = 0;
    for (packer->n_slots = 2; packer->n_slots < 2 * packer->n;)
        packer->n_slots *= 2;
    memset(packer->slots, 0xff, packer->n_slots * sizeof *packer->slots);
    for (uint32_t i = 0; i < packer->n; i++) {
        packer->next[i] = UINT32_MAX;
        if (i == 0 || !same_row(packer->records[i - 1], packer->records[i])) {
            uint32_t *slot = slot_of(packer, packer->records[i]);

            if (*slot == UINT32_MAX) {
                *slot = (uint32_t)packer->n_groups++;
                packer->groups[*slot] = (struct group){i, i};
            }
            before = *slot;
        }
        if (packer->groups[before].first != i)
            packer->next[packer->groups[before].last] = i;
        packer->groups[before].last = i;
    }
}

static char *put_number(char *at, int64_t value)
{
    char digits[24], *here = digits + sizeof digits;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        *--here = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0)
        *at++ = '-';
    size_t size = (size_t)(digits + sizeof digits - here);
    memcpy(at, here, size);
    return at + size;
}

/* The place of a key among the row's. A row has no more results than PACK_TASKS. */
static int place_worker(struct packer *packer, const struct worker_key *key, int64_t *ret_place)
{
    uint64_t hash;

    memcpy(&hash, key->bytes, sizeof hash);
    for (size_t at = hash * 0x9e3779b97f4a7c15u >> 32;; at++) {
        uint16_t *slot = &packer->worker_slots[at % ARRAY_SIZE(packer->worker_slots)];

        if (*slot && memcmp(packer->workers.data + (*slot - 1) * worker_bytes, key, worker_bytes))
            continue;
        if (!*slot) {
            if (bytes_append(&packer->workers, key, worker_bytes) < 0)
                return SQLITE_NOMEM;
            *slot = (uint16_t)(packer->workers.size / worker_bytes);
        }
        *ret_place = *slot - 1;
        return SQLITE_OK;
    }
}

static int put_member(struct packer *packer, const struct pack *pack, const struct record *record)
{
    const struct usage *usage = &record->attempt.usage;
    const struct lease_id *lease = &record->attempt.lease;
    int64_t worker = 0;

    if (bytes_reserve(&packer->members, packer->members.size + MEMBER_BYTES) < 0)
        return SQLITE_NOMEM;
    int code = place_worker(packer, &record->attempt.worker, &worker);
    const int64_t numbers[MEMBER_NUMBERS] = {
        (int64_t)(record->sequence - pack->first),
        (int64_t)lease->task.index,
        (int64_t)lease->attempt,
        worker,
        (int64_t)usage->wall_ns,
        (int64_t)usage->cpu_ns,
        (int64_t)usage->memory_bytes,
        (int64_t)usage->bytes_in,
        (int64_t)usage->bytes_out,
        (int64_t)usage->card_ns,
        (int64_t)packer->blobs.size,
        (int64_t)record->attempt.blob_size,
    };
    char *begin = (char *)packer->members.data + packer->members.size, *at = begin;

    *at++ = packer->members.size ? ',' : '[';
    *at++ = '[';
    for (size_t i = 0; i < MEMBER_NUMBERS; i++) {
        at = put_number(at, numbers[i]);
        *at++ = i + 1 < MEMBER_NUMBERS ? ',' : ']';
    }
    packer->members.size += (size_t)(at - begin);
    if (code == SQLITE_OK && record->attempt.blob_size &&
        bytes_append(&packer->blobs, record->attempt.blob, record->attempt.blob_size) < 0)
        code = SQLITE_NOMEM;
    return code;
}

static void begin_row(struct packer *packer, const struct record *record, struct pack *ret_pack)
{
    const struct lease_id *lease = &record->attempt.lease;

    packer->members.size = packer->blobs.size = packer->workers.size = 0;
    memset(packer->worker_slots, 0, sizeof packer->worker_slots);
    *ret_pack = (struct pack){.first = record->sequence,
                              .wall_s = record->wall_s,
                              .job = record->job,
                              .step = lease->task.step,
                              .floor = lease->floor,
                              .epoch = lease->epoch,
                              .page = lease->task.index / PACK_TASKS,
                              .low = UINT64_MAX};
}

/* One row from the record at *place on, which is moved behind it. */
static int write_row(struct packer *packer, uint32_t *place, packer_write *write, void *user)
{
    uint64_t tasks[PACK_DONE] = {0};
    struct pack pack;
    int code = SQLITE_OK;

    begin_row(packer, packer->records[*place], &pack);
    for (; code == SQLITE_OK && *place != UINT32_MAX; *place = packer->next[*place]) {
        const struct record *record = packer->records[*place];
        uint64_t task = record->attempt.lease.task.index, bit = UINT64_C(1) << task % DONE_TASKS;
        uint64_t *word = &tasks[task % PACK_TASKS / DONE_TASKS];

        if (packer->blobs.size >= PACK_BYTES || record->sequence - pack.first >= PACK_SPAN)
            break;
        if (*word & bit)
            return SQLITE_CONSTRAINT; /* two results of one floor */
        *word |= bit;
        pack.last = record->sequence;
        pack.low = task < pack.low ? task : pack.low;
        pack.high = task > pack.high ? task : pack.high;
        code = put_member(packer, &pack, record);
    }
    if (code == SQLITE_OK && bytes_append(&packer->members, "]", 1) < 0)
        code = SQLITE_NOMEM;
    if (code != SQLITE_OK)
        return code;
    pack.workers = packer->workers.data;
    pack.workers_size = packer->workers.size;
    pack.members = (const char *)packer->members.data;
    pack.members_size = packer->members.size;
    pack.blobs = packer->blobs.data;
    pack.blobs_size = packer->blobs.size;
    return write(user, &pack, tasks);
}

void packer_clear(struct packer *packer)
{
    packer->n = 0;
}

int packer_flush(struct packer *packer, packer_write *write, void *user)
{
    int code = SQLITE_OK;

    if (packer->n == 0)
        return SQLITE_OK;
    gather(packer);
    for (size_t i = 0; i < packer->n_groups && code == SQLITE_OK; i++)
        for (uint32_t place = packer->groups[i].first; place != UINT32_MAX && code == SQLITE_OK;)
            code = write_row(packer, &place, write, user);
    packer->n = 0;
    return code;
}
