/* check_vault.c - every block against its name, a folder of 256 a turn, by a thread a core. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/check.h>
#include <broker/vault/disk.h>

enum { THREADS_MAX = 8, HEX = 64 };

struct walk {
    struct vault_check *check;
    struct disk disk;
    uint32_t *studios;
    size_t n_studios;
    atomic_size_t next; /* studio * 256 + first byte */
    pthread_mutex_t lock;
    int error;
};

static void add_damaged(struct walk *walk, struct studio_id studio, const struct block_id *id)
{
    struct vault_check *check = walk->check;

    pthread_mutex_lock(&walk->lock);
    size_t n = check->n_damaged + 1;
    struct block_id *ids = reallocarray(check->ids, n, sizeof *ids);
    if (ids)
        check->ids = ids;
    uint32_t *studios = ids ? reallocarray(check->studios, n, sizeof *studios) : NULL;
    if (studios)
        check->studios = studios;
    if (!studios || block_set_add(&check->damaged, id) < 0) {
        walk->error = -ENOMEM;
    } else {
        ids[check->n_damaged] = *id;
        studios[check->n_damaged++] = studio.value;
    }
    pthread_mutex_unlock(&walk->lock);
}

static void check_file(struct walk *walk, struct studio_id studio, int folder, const char *name,
                       const struct block_id *id)
{
    _cleanup_(freep) uint8_t *data = NULL;
    struct stat status;
    size_t size;

    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return; /* swept meanwhile */
    bool whole =
        S_ISREG(status.st_mode) && status.st_size > 0 && status.st_size <= LIMIT_SEALED_BYTES;
    if (whole && !walk->check->quick) {
        int r = disk_peek(&walk->disk, studio, id, &data, &size);
        if (r == VAULT_E_MISSING)
            return;
        whole = r != VAULT_E_CORRUPT;
        if (r == VAULT_E_BUSY)
            walk->error = -ENOMEM;
    }
    pthread_mutex_lock(&walk->lock);
    walk->check->blocks++;
    walk->check->bytes += (uint64_t)status.st_size;
    pthread_mutex_unlock(&walk->lock);
    if (!whole)
        add_damaged(walk, studio, id);
}

static void check_folder(struct walk *walk, struct studio_id studio, unsigned byte)
{
    char path[64], hex[HEX + 1], what[384];
    struct block_id id;

    snprintf(path, sizeof path, "%u/%02x", studio.value, byte);
    int fd = openat(walk->disk.root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        if (errno != ENOENT)
            walk->error = -errno;
        closep(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(hex, sizeof hex, "%02x%.62s", byte, entry->d_name);
        if (strlen(entry->d_name) == HEX - 2 && hex_decode(hex, id.bytes, sizeof id.bytes) == 0) {
            check_file(walk, studio, fd, entry->d_name, &id);
        } else {
            snprintf(what, sizeof what, "vault/%s/%s", path, entry->d_name);
            report_note(walk->check->report, what, "it is no block: nobody reads it");
        }
    }
    closedir(folder);
}

static void *walk_main(void *user)
{
    struct walk *walk = user;

    for (;;) {
        size_t at = atomic_fetch_add(&walk->next, 1);
        if (at / 256 >= walk->n_studios)
            return NULL;
        check_folder(walk, (struct studio_id){walk->studios[at / 256]}, at % 256);
    }
}

/* What lies beside the folders of blocks. */
static void check_leftovers(struct walk *walk, uint32_t studio)
{
    char path[32], what[384];

    snprintf(path, sizeof path, "%u", studio);
    int fd = openat(walk->disk.root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(what, sizeof what, "vault/%u/%s", studio, entry->d_name);
        if (!strncmp(entry->d_name, "put-", 4) && !walk->check->running)
            report_note(walk->check->report, what,
                        "a block that was not finished: the next start removes it");
        else if (!strncmp(entry->d_name, "damaged-", 8))
            report_note(walk->check->report, what,
                        "set aside when it was read; delete it once it was looked at");
    }
    if (folder)
        closedir(folder);
    else
        closep(&fd);
}

static int find_studios(struct walk *walk)
{
    int fd = openat(walk->disk.root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder)
        return -errno;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[strspn(entry->d_name, "0123456789")] || entry->d_name[0] == '0')
            continue;
        uint32_t *studios = reallocarray(walk->studios, walk->n_studios + 1, sizeof *walk->studios);
        if (!studios)
            break;
        walk->studios = studios;
        studios[walk->n_studios++] = (uint32_t)strtoul(entry->d_name, NULL, 10);
    }
    closedir(folder);
    return 0;
}

int vault_check_blocks(struct vault_check *check)
{
    struct walk walk = {.check = check};
    pthread_t threads[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = 0;

    int r = disk_look(&walk.disk, check->folder);
    if (r < 0)
        return r;
    pthread_mutex_init(&walk.lock, NULL);
    r = find_studios(&walk);
    for (size_t i = 0; r == 0 && i < walk.n_studios; i++)
        check_leftovers(&walk, walk.studios[i]);
    while (r == 0 && n < THREADS_MAX && (n < 2 || (long)n < cores) &&
           pthread_create(&threads[n], NULL, walk_main, &walk) == 0)
        n++;
    if (r == 0 && n == 0)
        walk_main(&walk);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    if (r == 0)
        r = walk.error;
    free(walk.studios);
    pthread_mutex_destroy(&walk.lock);
    disk_close(&walk.disk);
    return r;
}

/* ---- what is named ---- */

struct bad {
    size_t n;
    struct block_id first;
    const char *why;
};

static void add_bad(struct bad *bad, const struct block_id *id, const char *why)
{
    if (bad->n++ == 0) {
        bad->first = *id;
        bad->why = why;
    }
}

static bool look_at(struct vault_check *check, struct disk *disk, struct studio_id studio,
                    const struct block_id *id, struct bad *bad)
{
    if (block_set_has(&check->damaged, id)) {
        (void)block_set_add(&check->named, id);
        add_bad(bad, id, "is damaged");
    } else if (!disk_has(disk, studio, id)) {
        add_bad(bad, id, "is missing");
    } else {
        return true;
    }
    return false;
}

size_t vault_check_refs(struct vault_check *check, struct studio_id studio,
                        const struct block_id *refs, size_t n_refs, struct block_id *ret_first,
                        const char **ret_why)
{
    struct bad bad = {0};
    struct disk disk;

    if (disk_look(&disk, check->folder) < 0)
        return 0;
    for (size_t i = 0; i < n_refs; i++) {
        _cleanup_(freep) uint8_t *data = NULL;
        const struct block_id *ids;
        size_t size, n_ids;

        if (!look_at(check, &disk, studio, &refs[i], &bad))
            continue;
        int r = disk_peek(&disk, studio, &refs[i], &data, &size);
        if (r || refs_unpack(data, size, &ids, &n_ids)) {
            add_bad(&bad, &refs[i], r == VAULT_E_MISSING ? "is missing" : "is damaged");
            continue;
        }
        for (size_t j = 0; j < n_ids; j++)
            (void)look_at(check, &disk, studio, &ids[j], &bad);
    }
    disk_close(&disk);
    *ret_first = bad.first;
    *ret_why = bad.why;
    return bad.n;
}

void vault_check_rest(struct vault_check *check)
{
    struct disk disk;

    if (check->n_damaged == 0 || disk_look(&disk, check->folder) < 0)
        return;
    for (size_t i = 0; i < check->n_damaged; i++) {
        _cleanup_(freep) uint8_t *data = NULL;
        char what[64 + 2 * sizeof check->ids[i].bytes], hex[2 * sizeof check->ids[i].bytes + 1];
        size_t size;

        hex_encode(check->ids[i].bytes, sizeof check->ids[i].bytes, hex);
        snprintf(what, sizeof what, "vault/%u/%.2s/%s", check->studios[i], hex, hex + 2);
        if (!block_set_has(&check->named, &check->ids[i]))
            report_finding(check->report, what, "it is damaged, and no job and no frame needs it",
                           "delete it, or --set-aside");
        if (check->set_aside && disk_read(&disk, (struct studio_id){check->studios[i]},
                                          &check->ids[i], &data, &size) == VAULT_E_CORRUPT)
            report_note(check->report, what, "set aside");
    }
    disk_close(&disk);
}

void vault_check_deinit(struct vault_check *check)
{
    block_set_deinit(&check->damaged);
    block_set_deinit(&check->named);
    free(check->ids);
    free(check->studios);
}
