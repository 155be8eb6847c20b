/* wal.c - see wal.h. A frame is 24 bytes (page, size of the database after a commit or 0, two
 * salts, two sums over all up to here) and a page. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/store/wal.h>

enum { HEADER = 32, FRAME = 24, DATABASE_HEADER = 100, TRIES = 4 };
#define MAGIC 0x377f0682u

struct sums {
    uint32_t a, b;
};

struct wal {
    int fd;
    bool same_boot;
    bool big_endian; /* the words that are summed */
    size_t page;
    uint8_t header[HEADER];
    uint8_t *frame;
};

static uint32_t read_big(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t read_word(const uint8_t *at, bool big)
{
    return big ? read_big(at)
               : (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

static struct sums add(const struct wal *wal, struct sums sums, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        sums.a += read_word(data + i, wal->big_endian) + sums.b;
        sums.b += read_word(data + i + 4, wal->big_endian) + sums.a;
    }
    return sums;
}

/* False at the end of the file. */
static bool read_frame(struct wal *wal, uint64_t number)
{
    size_t size = FRAME + wal->page;
    return pread(wal->fd, wal->frame, size, (off_t)(HEADER + number * size)) == (ssize_t)size;
}

static bool same_log(const struct wal *wal)
{
    return !memcmp(wal->frame + 8, wal->header + 16, 8);
}

static bool frame_fits(const struct wal *wal, struct sums before)
{
    struct sums sums = add(wal, add(wal, before, wal->frame, 8), wal->frame + FRAME, wal->page);
    return same_log(wal) && sums.a == read_big(wal->frame + 16) &&
           sums.b == read_big(wal->frame + 20);
}

static struct sums sums_of(const struct wal *wal)
{
    return (struct sums){read_big(wal->frame + 16), read_big(wal->frame + 20)};
}

/* *ret_bad is the first frame that does not fit; those behind it are tried with the sums that the
 * one before them holds. */
static bool find_damage(struct wal *wal, uint64_t *ret_bad)
{
    struct sums sums = {read_big(wal->header + 24), read_big(wal->header + 28)};
    uint64_t n = 0;
    bool committed = false;

    while (read_frame(wal, n) && frame_fits(wal, sums)) {
        sums = sums_of(wal);
        n++;
    }
    *ret_bad = n;
    for (; read_frame(wal, n); n++) {
        if (committed && frame_fits(wal, sums))
            return true;
        committed = same_log(wal) && read_big(wal->frame + 4) != 0;
        if (committed && wal->same_boot && n > *ret_bad)
            return true;
        sums = sums_of(wal);
    }
    return false;
}

/* 0 where it is one; the header is synced before the first frame is written. */
static int open_header(struct wal *wal)
{
    uint32_t magic = read_big(wal->header);
    size_t page = read_big(wal->header + 8);
    struct sums sums = {0};

    wal->big_endian = magic & 1;
    sums = add(wal, sums, wal->header, 24);
    if ((magic & ~1u) != MAGIC || sums.a != read_big(wal->header + 24) ||
        sums.b != read_big(wal->header + 28) || page < 512 || page > 65536)
        return STORE_E_CORRUPT;
    wal->page = page;
    wal->frame = malloc(FRAME + page);
    return wal->frame ? 0 : -ENOMEM;
}

static int say(char why[DATABASE_WHY_BYTES], const char *folder, const char *file,
               const char *reason)
{
    snprintf(why, DATABASE_WHY_BYTES, "%.300s/%s: damaged (%.100s): " DATABASE_NEXT, folder, file,
             reason);
    return STORE_E_CORRUPT;
}

/* `allow` may write, and a checkpoint start the log over, while it is read here: another header
 * then, and it is read again. */
static int check_log(const char *folder, int fd, bool same_boot, char why[DATABASE_WHY_BYTES])
{
    int r = 0;

    for (int i = 0; i < TRIES; i++) {
        struct wal wal = {.fd = fd, .same_boot = same_boot};
        uint8_t header[HEADER];
        uint64_t bad = 0;
        char reason[64] = "its header";

        if (pread(fd, wal.header, HEADER, 0) != HEADER)
            return 0; /* nothing was written to it */
        r = open_header(&wal);
        if (r == 0 && find_damage(&wal, &bad)) {
            snprintf(reason, sizeof reason, "frame %llu, with commits behind it",
                     (unsigned long long)bad + 1);
            r = STORE_E_CORRUPT;
        }
        free(wal.frame);
        if (r > 0)
            say(why, folder, "state.db-wal", reason);
        if (r <= 0 || pread(fd, header, HEADER, 0) != HEADER)
            return r;
        if (!memcmp(header, wal.header, HEADER))
            break;
    }
    return r;
}

static bool vault_holds(const char *folder)
{
    char path[LIMIT_PATH_BYTES + 8];
    bool found = false;

    snprintf(path, sizeof path, "%s/vault", folder);
    DIR *vault = opendir(path);
    if (!vault)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(vault));)
        found = entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    closedir(vault);
    return found;
}

void wal_boot(char boot[WAL_BOOT_BYTES])
{
    _cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, boot, WAL_BOOT_BYTES - 1);

    boot[n > 0 ? n : 0] = 0;
    boot[strcspn(boot, "\n")] = 0;
}

/* The lock file says "PID BOOT". */
static bool is_same_boot(const char *folder)
{
    char path[LIMIT_PATH_BYTES + 8], text[96], boot[WAL_BOOT_BYTES];

    snprintf(path, sizeof path, "%s/lock", folder);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    wal_boot(boot);
    return boot[0] && strchr(text, ' ') && !strcmp(strchr(text, ' ') + 1, boot);
}

int wal_check(const char *folder, bool *ret_same_boot, char why[DATABASE_WHY_BYTES])
{
    char path[LIMIT_PATH_BYTES + 16];
    uint8_t header[DATABASE_HEADER];
    struct stat log = {0};

    *ret_same_boot = is_same_boot(folder);
    snprintf(path, sizeof path, "%s/state.db-wal", folder);
    _cleanup_(closep) int wal = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if ((wal < 0 && errno != ENOENT) || (wal >= 0 && fstat(wal, &log) < 0))
        return -errno;
    snprintf(path, sizeof path, "%s/state.db", folder);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT)
        return -errno;
    ssize_t n = fd < 0 ? 0 : pread(fd, header, sizeof header, 0);
    if (n < 0)
        return -errno;
    if (n == 0)
        return log.st_size > 0 || vault_holds(folder)
                   ? say(why, folder, "state.db", "it is gone, and what belongs to it is there")
                   : 0;
    if (n < (ssize_t)sizeof header || memcmp(header, "SQLite format 3", 16))
        return say(why, folder, "state.db", "its header");
    /* Versions of the format: 2 has a write-ahead log, and any other one would pass it over. */
    if (log.st_size > 0 && (header[18] != 2 || header[19] != 2))
        return say(why, folder, "state.db", "its header says that it has no log");
    return log.st_size > 0 ? check_log(folder, wal, *ret_same_boot, why) : 0;
}
