/* receipts.c - a log of what was written, read back into a table by path. */
#include <client/receipts.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <proto/seal.h>

#define RECEIPTS_BYTES_MAX ((size_t)1 << 30) /* about ten million files */
#define HEAD               "westlight receipts 1"

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
static int read_records(struct receipts *receipts, const struct bytes *text)
{
    const char *at = (const char *)text->data, *end = at + text->size;

    if (text->size < sizeof(HEAD) || memcmp(at, HEAD, sizeof(HEAD)) != 0)
        return 0;
    for (at += sizeof(HEAD); at < end;) {
        size_t size = strnlen(at, (size_t)(end - at));
        struct receipt receipt;
        int used = 0;
        if (at + size == end)
            break;
        /* One space ends the numbers; any further one begins the path. */
        if (sscanf(at, "%" SCNu64 " %" SCNu32 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNu64 "%n",
                   &receipt.sequence, &receipt.step, &receipt.task, &receipt.size,
                   &receipt.mtime_ns, &receipt.inode, &used) == 6 &&
            at[used] == ' ') {
            int r = keep(receipts, &receipt, at + used + 1);
            if (r < 0)
                return r;
        }
        at += size + 1;
    }
    return 0;
}

int receipts_open(struct receipts *receipts, const char *id, const char *folder)
{
    char state[LIMIT_PATH_BYTES - 128], path[LIMIT_PATH_BYTES], hex[17];
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct block_id hash;

    *receipts = (struct receipts){.file = -1};
    int r = farm_state_folder("receipts", state, sizeof(state));
    if (r < 0)
        return r;
    digest(folder, strlen(folder), &hash);
    snprintf(path, sizeof(path), "%s/%s-%s", state, id, hex_encode(hash.bytes, 8, hex));
    r = file_read(path, RECEIPTS_BYTES_MAX, &text);
    if (r == 0)
        r = read_records(receipts, &text);
    if (r == 0 || r == -ENOENT)
        r = grow(receipts);
    if (r < 0) {
        receipts_deinit(receipts);
        return r;
    }
    receipts->file = open(
        path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (text.size < sizeof(HEAD) ? O_TRUNC : 0),
        0600);
    r = receipts->file < 0 ? -errno : 0;
    if (r == 0 && text.size < sizeof(HEAD))
        r = fd_write_all(receipts->file, HEAD, sizeof(HEAD));
    if (r < 0)
        receipts_deinit(receipts);
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

int receipts_add(struct receipts *receipts, const char *path, uint64_t sequence, uint32_t step,
                 uint64_t task, const struct stat *status)
{
    struct receipt receipt = {.sequence = sequence,
                              .step = step,
                              .task = task,
                              .size = (uint64_t)status->st_size,
                              .mtime_ns = mtime_ns(status),
                              .inode = (uint64_t)status->st_ino};
    _cleanup_(bytes_deinit) struct bytes line = {0};

    int r = bytes_printf(
        &line, "%" PRIu64 " %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRIu64 " %s",
        sequence, step, task, receipt.size, receipt.mtime_ns, receipt.inode, path);
    if (r >= 0)
        r = fd_write_all(receipts->file, line.data,
                         line.size + 1); /* bytes_printf keeps a NUL after */
    return r < 0 ? r : keep(receipts, &receipt, path);
}

bool receipt_holds(const struct receipt *receipt, const struct stat *status)
{
    return receipt->size == (uint64_t)status->st_size && receipt->mtime_ns == mtime_ns(status) &&
           receipt->inode == (uint64_t)status->st_ino;
}
