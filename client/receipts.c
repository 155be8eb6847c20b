/* receipts.c - a log of what was written, read back into a table by path. */
#include <client/receipts.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/limits.h>
#include <proto/seal.h>

#define RECEIPTS_BYTES_MAX ((off_t)1 << 30) /* about seven million files */
#define RECORDS_SPARE      1000             /* a small file is not worth rewriting */
#define HEAD               "westlight receipts 2"
#define AGAIN              1 /* from the opening on */

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    return hash;
}

/* The slot of a path: its record, or where it would go. */
static struct receipt **slot_of(const struct receipts *receipts, const char *path)
{
    size_t mask = receipts->n_slots - 1, i = hash_text(path) & mask;
    while (receipts->slots[i] && strcmp(receipts->slots[i]->path, path) != 0)
        i = (i + 1) & mask;
    return &receipts->slots[i];
}

static int grow(struct receipts *receipts)
{
    if (receipts->n_slots && 2 * (receipts->n + 1) <= receipts->n_slots)
        return 0;
    struct receipts larger = {.n_slots = receipts->n_slots ? 2 * receipts->n_slots : 64};
    larger.slots = calloc(larger.n_slots, sizeof(*larger.slots));
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < receipts->n_slots; i++)
        if (receipts->slots[i])
            *slot_of(&larger, receipts->slots[i]->path) = receipts->slots[i];
    free(receipts->slots);
    receipts->slots = larger.slots;
    receipts->n_slots = larger.n_slots;
    return 0;
}

static int keep(struct receipts *receipts, const struct receipt *from, const char *path)
{
    size_t size = strlen(path) + 1;
    int r = grow(receipts);
    struct receipt *receipt = r == 0 ? malloc(sizeof(*receipt) + size) : NULL;
    if (!receipt)
        return -ENOMEM;
    *receipt = *from;
    memcpy(receipt->path, path, size);
    struct receipt **slot = slot_of(receipts, path);
    if (*slot)
        free(*slot);
    else
        receipts->n++;
    *slot = receipt;
    return 0;
}

/* A record that is cut off, or of another version, says nothing; the file is then compared. */
static int read_records(struct receipts *receipts, const struct bytes *text, size_t *ret_records)
{
    const char *at = (const char *)text->data, *end = at + text->size;

    *ret_records = 0;
    if (text->size < sizeof(HEAD) || memcmp(at, HEAD, sizeof(HEAD)) != 0)
        return 0;
    for (at += sizeof(HEAD); at < end;) {
        size_t size = strnlen(at, (size_t)(end - at));
        struct receipt receipt;
        int used = 0;
        if (at + size == end)
            break;
        /* One space ends the numbers; any further one begins the path. */
        if (sscanf(at,
                   "%32s %" SCNd64 " %" SCNu64 " %" SCNu32 " %" SCNu64 " %" SCNu64 " %" SCNd64
                   " %" SCNu64 "%n",
                   receipt.job, &receipt.submitted_wall_s, &receipt.sequence, &receipt.step,
                   &receipt.task, &receipt.size, &receipt.mtime_ns, &receipt.inode, &used) == 8 &&
            at[used] == ' ') {
            int r = keep(receipts, &receipt, at + used + 1);
            if (r < 0)
                return r;
        }
        at += size + 1;
        ++*ret_records;
    }
    return 0;
}

static int record_print(struct bytes *text, const struct receipt *receipt, const char *path)
{
    int r = bytes_printf(text,
                         "%s %" PRId64 " %" PRIu64 " %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRId64
                         " %" PRIu64 " %s",
                         receipt->job, receipt->submitted_wall_s, receipt->sequence, receipt->step,
                         receipt->task, receipt->size, receipt->mtime_ns, receipt->inode, path);
    return r < 0 ? r : bytes_append(text, "", 1);
}

/* The same frames rendered again and again leave records that nobody needs. What is written beside
 * takes the file's place once it is whole: whoever waits for the lock finds that it has another. */
static int rewrite(const struct receipts *receipts, const char *path)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};

    int r = bytes_append(&text, HEAD, sizeof(HEAD));
    for (size_t i = 0; r == 0 && i < receipts->n_slots; i++)
        if (receipts->slots[i])
            r = record_print(&text, receipts->slots[i], receipts->slots[i]->path);
    return r < 0 ? r : file_write(path, text.data, text.size, 0600);
}

/* The name still leads to the file that is locked. */
static bool is_named(const struct receipts *receipts, const char *path)
{
    struct stat own, named;

    return fstat(receipts->file, &own) == 0 && stat(path, &named) == 0 &&
           own.st_dev == named.st_dev && own.st_ino == named.st_ino;
}

/* Where nobody else adds to it, and nobody did since `bytes` of it were read. AGAIN: it is another
 * file by now. A shared lock that could not be made exclusive is lost, and taken again. */
static int tidy(struct receipts *receipts, const char *path, off_t bytes)
{
    struct stat status;
    int r = 0;

    if (flock(receipts->file, LOCK_EX | LOCK_NB) == 0 && is_named(receipts, path) &&
        fstat(receipts->file, &status) == 0 && status.st_size == bytes)
        r = rewrite(receipts, path);
    flock(receipts->file, LOCK_SH);
    return r == 0 && !is_named(receipts, path) ? AGAIN : r;
}

static int load(struct receipts *receipts, const char *path)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct stat status;
    size_t got = 0, records = 0;

    int r = fstat(receipts->file, &status) < 0 ? -errno : 0;
    if (r == 0 && status.st_size > RECEIPTS_BYTES_MAX)
        return tidy(receipts, path, status.st_size); /* anew */
    if (r == 0)
        r = bytes_reserve(&text, (size_t)status.st_size);
    if (r == 0)
        r = fd_read_all(receipts->file, text.data, (size_t)status.st_size, &got);
    text.size = got;
    if (r == 0)
        r = read_records(receipts, &text, &records);
    if (r != 0)
        return r;
    if (text.size < sizeof(HEAD) || memcmp(text.data, HEAD, sizeof(HEAD)) != 0)
        return tidy(receipts, path, (off_t)got);
    if (records <= 2 * receipts->n + RECORDS_SPARE)
        return 0;
    r = tidy(receipts, path, (off_t)got);
    return r < 0 ? 0 : r; /* it is long, and good */
}

static int open_locked(struct receipts *receipts, const char *path)
{
    int r = grow(receipts);

    if (r < 0)
        return r;
    receipts->file = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    if (receipts->file < 0 && errno == ENOENT) {
        r = file_write_new(path, HEAD, sizeof(HEAD), 0600);
        return r == 0 || r == -EEXIST ? AGAIN : r;
    }
    if (receipts->file < 0)
        return -errno;
    flock(receipts->file, LOCK_SH);
    return is_named(receipts, path) ? load(receipts, path) : AGAIN;
}

int receipts_open(struct receipts *receipts, const char *folder)
{
    char state[LIMIT_PATH_BYTES - 128], path[LIMIT_PATH_BYTES], hex[33];
    struct block_id hash;

    *receipts = (struct receipts){.file = -1};
    int r = farm_state_folder("receipts", state, sizeof(state));
    if (r < 0)
        return r;
    digest(folder, strlen(folder), &hash);
    snprintf(path, sizeof(path), "%s/%s", state, hex_encode(hash.bytes, 16, hex));
    do {
        r = open_locked(receipts, path);
        if (r != 0)
            receipts_deinit(receipts);
    } while (r == AGAIN);
    return r;
}

void receipts_deinit(struct receipts *receipts)
{
    for (size_t i = 0; i < receipts->n_slots; i++)
        free(receipts->slots[i]);
    free(receipts->slots);
    if (receipts->file >= 0)
        close(receipts->file);
    *receipts = (struct receipts){.file = -1};
}

const struct receipt *receipts_find(const struct receipts *receipts, const char *path)
{
    return receipts->n_slots ? *slot_of(receipts, path) : NULL;
}

static int64_t mtime_ns(const struct stat *status)
{
    return status->st_mtim.tv_sec * NS_PER_S + status->st_mtim.tv_nsec;
}

int receipts_add(struct receipts *receipts, const struct receipt *from, const char *path,
                 const struct stat *status)
{
    struct receipt receipt = *from;
    _cleanup_(bytes_deinit) struct bytes line = {0};

    receipt.size = (uint64_t)status->st_size;
    receipt.mtime_ns = mtime_ns(status);
    receipt.inode = (uint64_t)status->st_ino;
    int r = record_print(&line, &receipt, path);
    crash_point("receipts.add");
    if (r >= 0)
        r = fd_write_all(receipts->file, line.data, line.size);
    crash_point("receipts.added");
    return r < 0 ? r : keep(receipts, &receipt, path);
}

bool receipt_holds(const struct receipt *receipt, const struct stat *status)
{
    return receipt->size == (uint64_t)status->st_size && receipt->mtime_ns == mtime_ns(status) &&
           receipt->inode == (uint64_t)status->st_ino;
}
