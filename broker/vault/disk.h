/* disk.h - sealed blocks as files, by studio and name; private to broker/vault.
 *
 * Files:   FOLDER/STUDIO/AB/CDEF...: 64 hexadecimal digits, the first two a folder. put-N is a file
 *          being written, damaged-... one whose bytes are no longer those of its name.
 * Durable: what lies there when disk_open returns is durable (it syncs the file system). After
 *          that a file is durable once disk_sync_folder has followed disk_rename.
 * Cache:   a block is written once and, unless many want it, read once: both go past the page cache,
 *          which would take a copy, and memory from everything else on the host. What is asked for
 *          a second time is read through it.
 * Owns:    any thread; disk_read's bytes are the caller's to free.
 * Errors:  VAULT_E_MISSING, VAULT_E_CORRUPT, VAULT_E_FULL, VAULT_E_BUSY (nothing was done, it may
 * be tried again); negative is -errno, of a write, a sync or a rename, and fatal.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <broker/vault/stock.h>
#include <broker/vault/vault.h>

enum { DISK_SEEN = 1 << 14 }; /* a table: at 1 MiB a block it knows 16 GiB of them */

/* Of memory, place and size, where a read or a write goes past the cache. */
enum { DISK_ALIGN = 4096 };

static inline size_t disk_aligned(size_t size)
{
    return (size + DISK_ALIGN - 1) / DISK_ALIGN * DISK_ALIGN;
}

struct disk {
    int root;
    atomic_uint seen[DISK_SEEN]; /* what was read lately, by a part of its name */
    pthread_mutex_t lock;
    uint32_t *studios; /* whose folders are made and synced */
    size_t n_studios;
    atomic_ullong next_name;
    struct stock stock;
    int64_t ahead_ns; /* of the monotonic clock is the time by which blocks age */
};

/* A block on its way: written under a name of its own, then synced, then renamed. */
struct disk_file {
    int fd;
    char name[48];
};

int disk_open(struct disk *disk, const char *folder);
int disk_look(struct disk *disk, const char *folder); /* for disk_has and disk_peek: as it lies */
void disk_close(struct disk *disk);
/* Blocks age by time that has passed, which goes on from here as the monotonic clock does: a wall
 * clock that is set makes none older. Before any block is put; else it begins with the wall clock. */
void disk_set_time(struct disk *disk, int64_t passed_ns);
bool disk_has(struct disk *disk, struct studio_id studio, const struct block_id *id);
/* The same; and its age begins anew where it is older than `ripe_ns`, or younger than none. */
bool disk_renew(struct disk *disk, struct studio_id studio, const struct block_id *id,
                int64_t ripe_ns);
/* VAULT_E_MISSING. */
int disk_age(struct disk *disk, struct studio_id studio, const struct block_id *id,
             int64_t *ret_age_ns, uint64_t *ret_bytes);
void disk_remove(struct disk *disk, struct studio_id studio, const struct block_id *id);
/* Every block of every studio, a folder at a time; an answer other than 0 ends it. */
typedef int disk_each_block(void *user, struct studio_id studio, const struct block_id *id);
int disk_each(struct disk *disk, disk_each_block *each, void *user);
/* Counts a folder of each studio after another into `stock`; `rest` is called in between, and an
 * answer other than 0 ends it. */
int disk_count(struct disk *disk, int (*rest)(void *user), void *user);
/* Checked against the name; a damaged one is set aside, so that it can be sent again. */
int disk_get(struct disk *disk, struct studio_id studio, const struct block_id *id,
             uint8_t **ret_data /* of vault_buffer */, size_t *ret_size);
int disk_read(struct disk *disk, struct studio_id studio, const struct block_id *id,
              uint8_t **ret_data, size_t *ret_size);
/* The same, and a damaged one stays. */
int disk_peek(struct disk *disk, struct studio_id studio, const struct block_id *id,
              uint8_t **ret_data, size_t *ret_size);
/* From DISK_DIRECT_BYTES on `data` is of vault_buffer. */
#define DISK_DIRECT_BYTES (64 * 1024)
int disk_write(struct disk *disk, struct studio_id studio, const void *data, size_t size,
               struct disk_file *ret_file);
int disk_sync(struct disk_file *file); /* closes it in every case */
int disk_rename(struct disk *disk, const struct disk_file *file, struct studio_id studio,
                const struct block_id *id);
void disk_discard(struct disk *disk, struct disk_file *file);
/* The folder that holds the blocks of a studio whose names begin with `byte`. */
int disk_sync_folder(struct disk *disk, struct studio_id studio, uint8_t byte);
