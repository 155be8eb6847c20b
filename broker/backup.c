/* backup.c - see backup.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <broker/backup.h>
#include <broker/command.h>
#include <broker/store/store.h>
#include <proto/identity.h>
#include <proto/seal.h>

enum { DONE, FAILED, USAGE };
#define MARK       "westlight backup 1\nbroker "
#define NEXT_AGAIN "the backup is not finished: see to that, and make it again"

static int failed(const char *what, int r, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, strerror(-r), next);
    return FAILED;
}

static int refuse(int code, const char *what, const char *why, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, why, next);
    return code;
}

static int join(char path[LIMIT_PATH_BYTES], const char *folder, const char *name)
{
    int n = snprintf(path, LIMIT_PATH_BYTES, "%s/%s", folder, name);
    return n < 0 || n >= LIMIT_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static bool there(const char *folder, const char *name)
{
    char path[LIMIT_PATH_BYTES];
    return join(path, folder, name) == 0 && access(path, F_OK) == 0;
}

int backup_find(const char *path, const char *keys, struct backup_place *ret_place,
                struct bytes *why)
{
    struct backup_place place = {.backup = there(path, "backup") && there(path, "state")};
    int n, m;

    if (there(path, "unfinished") && !place.backup) {
        (void)bytes_printf(why, "%s: it is a backup that was not finished: make it again", path);
        return -EINVAL;
    }
    if (!place.backup && !there(path, "broker.key") && !there(path, "state.db")) {
        (void)bytes_printf(why,
                           "%s: neither a broker's state nor a backup lies there: check the "
                           "path",
                           path);
        return -ENOENT;
    }
    n = snprintf(place.state, sizeof place.state, "%s%s", path, place.backup ? "/state" : "");
    m = snprintf(place.keys, sizeof place.keys, "%s%s", keys ? keys : path,
                 !keys && place.backup ? "/keys" : "");
    if (n >= LIMIT_PATH_BYTES || m >= LIMIT_PATH_BYTES) {
        (void)bytes_printf(why, "%.64s...: the path is too long: choose a shorter one", path);
        return -ENAMETOOLONG;
    }
    place.keys_apart = place.backup && access(place.keys, F_OK) < 0;
    *ret_place = place;
    return 0;
}

/* ---- blocks ---- */

struct transfer {
    int from, to; /* folders of a studio's blocks that begin with one byte */
    uint64_t new_blocks, kept_blocks, damaged;
    bool copying; /* links cannot be had */
};

/* The sweeper goes by it; a copy that was there already gets it anew. */
static int keep_time(const struct transfer *with, const char *name, const struct stat *from)
{
    const struct timespec times[2] = {from->st_atim, from->st_mtim};

    return utimensat(with->to, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* The bytes pass through here, so they are looked at as well. */
static int copy_block(struct transfer *with, const char *name, const struct block_id *id)
{
    _cleanup_(freep) uint8_t *data = malloc(LIMIT_SEALED_BYTES + 1);
    struct block_id actual;
    struct stat status;
    size_t size = 0;

    if (!data)
        return -ENOMEM;
    _cleanup_(closep) int in = openat(with->from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in < 0)
        return errno == ENOENT ? 0 : -errno; /* swept meanwhile */
    int r = fd_read_all(in, data, LIMIT_SEALED_BYTES + 1, &size);
    digest(data, size, &actual);
    if (r == -EIO || (r == 0 && memcmp(&actual, id, sizeof actual))) {
        with->damaged++;
        return 0;
    }
    if (r < 0)
        return r;
    _cleanup_(closep) int out =
        openat(with->to, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = out < 0 ? -errno : fd_write_all(out, data, size);
    if (r == 0)
        r = fstat(in, &status) < 0 ? -errno : keep_time(with, "new", &status);
    if (r == 0 && renameat(with->to, "new", with->to, name) < 0)
        r = -errno;
    with->new_blocks += r == 0;
    return r;
}

/* What is there stays, unless it is a link to another file than the vault has now: then the vault
 * was sent the block again, because that file was damaged. */
static bool is_there(const struct transfer *with, const char *name)
{
    struct stat from, to;

    if (fstatat(with->to, name, &to, AT_SYMLINK_NOFOLLOW) < 0 || to.st_size == 0)
        return false;
    if (fstatat(with->from, name, &from, AT_SYMLINK_NOFOLLOW) < 0 || from.st_ino == to.st_ino)
        return true;
    return from.st_dev != to.st_dev && keep_time(with, name, &from) == 0;
}

static int bring_block(struct transfer *with, const char *name, const struct block_id *id)
{
    if (is_there(with, name)) {
        with->kept_blocks++;
        return 0;
    }
    if (!with->copying) {
        (void)unlinkat(with->to, "new", 0);
        if (linkat(with->from, name, with->to, "new", 0) == 0 &&
            renameat(with->to, "new", with->to, name) == 0) {
            with->new_blocks++;
            return 0;
        }
        if (errno == ENOENT)
            return 0; /* swept meanwhile */
        with->copying = errno == EXDEV || errno == EPERM || errno == ENOTSUP;
    }
    return copy_block(with, name, id);
}

static int bring_folder(struct transfer *with, const char *from, const char *to, unsigned byte)
{
    char hex[2 * sizeof(struct block_id) + 1];
    struct block_id id;
    int r = 0;

    with->from = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = with->from < 0 ? NULL : fdopendir(with->from);
    if (!folder) {
        r = errno == ENOENT ? 0 : -errno;
        closep(&with->from);
        return r;
    }
    with->to = -1;
    for (struct dirent *entry; r == 0 && (entry = readdir(folder));) {
        snprintf(hex, sizeof hex, "%02x%.62s", byte, entry->d_name);
        if (strlen(entry->d_name) != sizeof hex - 3 || hex_decode(hex, id.bytes, sizeof id.bytes))
            continue;
        if (with->to < 0) {
            r = folder_make(to, 0700);
            with->to = r < 0 ? -1 : open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (with->to < 0)
                r = r < 0 ? r : -errno;
        }
        if (r == 0)
            r = bring_block(with, entry->d_name, &id);
    }
    closep(&with->to);
    closedir(folder);
    return r;
}

static int bring_vault(const char *from, const char *to, struct transfer *with)
{
    char source[LIMIT_PATH_BYTES + 32], target[LIMIT_PATH_BYTES + 32];
    DIR *vault = opendir(from);
    int r = folder_make(to, 0700);

    for (struct dirent *entry; r == 0 && vault && (entry = readdir(vault));) {
        const char *name = entry->d_name;
        if (name[strspn(name, "0123456789")] || strlen(name) > 10)
            continue;
        for (unsigned byte = 0; r == 0 && byte < 256; byte++) {
            snprintf(source, sizeof source, "%s/%s/%02x", from, name, byte);
            snprintf(target, sizeof target, "%s/%s/%02x", to, name, byte);
            r = bring_folder(with, source, target, byte);
        }
    }
    if (vault)
        closedir(vault);
    return r;
}

/* Every file and every name that was brought. */
static int sync_all(const char *folder)
{
    _cleanup_(closep) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || syncfs(fd) < 0 ? -errno : 0;
}

static int copy_file(const char *from, const char *to, const char *name)
{
    _cleanup_(bytes_wipe_deinit) struct bytes content = {0};
    char source[LIMIT_PATH_BYTES], target[LIMIT_PATH_BYTES];
    int r = join(source, from, name);

    if (r == 0)
        r = join(target, to, name);
    if (r == 0)
        r = file_read(source, 4096, &content);
    return r == 0 ? file_write(target, content.data, content.size, 0600) : r;
}

static int copy_keys(const char *from, const char *to)
{
    int r = folder_make(to, 0700);
    if (r == 0)
        r = copy_file(from, to, "broker.key");
    if (r == 0)
        r = copy_file(from, to, "master.key");
    if (r == 0)
        r = copy_file(from, to, "enrol.key");
    return r == -ENOENT && there(to, "master.key") ? 0 : r; /* an older state has no enrol.key */
}

/* ---- backup ---- */

static int mark_text(const char *state, struct bytes *ret_text)
{
    struct link_keypair pair;
    char path[LIMIT_PATH_BYTES], key[IDENTITY_Z85_SIZE];
    int r = join(path, state, "broker.key");

    if (r == 0)
        r = identity_key_load(path, &pair);
    if (r != 0)
        return r < 0 ? r : -EBADMSG;
    identity_key_text(&pair.public_key, key);
    wipe(&pair, sizeof pair);
    return bytes_printf(ret_text, MARK "%s\n", key);
}

/* 0: this broker's, or empty. */
static int check_target(const char *folder, const struct bytes *mark)
{
    static const char *const names[] = {"backup", "unfinished"};
    char path[LIMIT_PATH_BYTES];
    bool empty = true;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(bytes_deinit) struct bytes text = {0};
        if (join(path, folder, names[i]) < 0 || file_read(path, 4096, &text) < 0)
            continue;
        if (text.size == mark->size && !memcmp(text.data, mark->data, text.size))
            return 0;
        return refuse(FAILED, folder, "it is another broker's backup", "choose another folder");
    }
    DIR *list = opendir(folder);
    for (struct dirent *entry; list && (entry = readdir(list));)
        empty &= !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    if (list)
        closedir(list);
    return empty ? 0
                 : refuse(FAILED, folder, "it is not empty, and no backup of this broker",
                          "choose another folder");
}

static int begin(const char *folder, const struct bytes *mark)
{
    char path[LIMIT_PATH_BYTES];

    if (there(folder, "backup"))
        return 0; /* whole as it is, until the new database takes the old one's place */
    int r = join(path, folder, "unfinished");
    return r == 0 ? file_write(path, mark->data, mark->size, 0600) : r;
}

static void on_finding(void *user, const char *what, const char *why, const char *next)
{
    bool *told = user;
    if (!*told)
        fprintf(stderr, "westlight-broker: %s%s%s: the backup is as it was before\n", what,
                why ? ": " : "", why ? why : "");
    *told = true;
    (void)next;
}

/* What is copied damaged is no backup: looked at before it takes the place of the last one. */
static int copy_database(const char *state, const char *folder)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    char fresh[LIMIT_PATH_BYTES], path[LIMIT_PATH_BYTES];
    bool told = false;
    struct store_checker checker = {.user = &told, .finding = on_finding};
    int r = join(fresh, folder, "new");

    if (r == 0)
        r = folder_make(fresh, 0700);
    if (r == 0)
        r = join(path, fresh, "state.db");
    if (r < 0)
        return failed(folder, r, "choose a folder that can be written");
    if (store_copy(state, path, &why) != 0) {
        fprintf(stderr, "westlight-broker: %s\n", (const char *)why.data);
        return FAILED;
    }
    r = store_check(fresh, &checker);
    return r == 0 ? 0 : told ? FAILED : failed(path, r < 0 ? r : -EIO, "look at the disk");
}

static int finish(const char *folder, const struct bytes *mark)
{
    char from[LIMIT_PATH_BYTES], to[LIMIT_PATH_BYTES];
    int r = sync_all(folder);

    if (r == 0)
        r = join(from, folder, "state/new/state.db");
    if (r == 0)
        r = join(to, folder, "state/state.db");
    if (r == 0 && rename(from, to) < 0)
        r = -errno;
    if (r == 0)
        r = join(from, folder, "state/new");
    if (r == 0)
        (void)folder_remove(from);
    if (r == 0)
        r = join(from, folder, "state");
    if (r == 0)
        r = folder_sync(from);
    if (r == 0)
        r = join(to, folder, "backup");
    if (r == 0)
        r = file_write(to, mark->data, mark->size, 0600);
    if (r == 0 && join(from, folder, "unfinished") == 0)
        (void)unlink(from);
    return r;
}

static int bring(const char *state, const char *folder, struct transfer *with)
{
    char from[LIMIT_PATH_BYTES], to[LIMIT_PATH_BYTES];
    int r = join(from, state, "vault");

    if (r == 0)
        r = join(to, folder, "state/vault");
    return r == 0 ? bring_vault(from, to, with) : r;
}

static int backup(const char *state, const char *folder)
{
    _cleanup_(bytes_deinit) struct bytes mark = {0};
    char path[LIMIT_PATH_BYTES];
    struct transfer early = {0}, late = {0};
    int r = mark_text(state, &mark);

    if (r < 0)
        return failed(state, r, "give the broker's state folder, as the broker's user");
    r = folder_make(folder, 0700);
    if (r < 0)
        return failed(folder, r, "choose a folder that can be written");
    r = check_target(folder, &mark);
    if (r != 0)
        return r;
    r = begin(folder, &mark);
    if (r == 0)
        r = join(path, folder, "state");
    if (r == 0)
        r = folder_make(path, 0700);
    if (r < 0)
        return failed(folder, r, "choose a folder that can be written");
    r = bring(state, folder, &early);
    if (r < 0)
        return failed(folder, r, NEXT_AGAIN);
    r = copy_database(state, path);
    if (r != 0)
        return r;
    late.copying = early.copying;
    r = bring(state, folder, &late); /* what came since; what has gone since was brought before */
    if (r == 0)
        r = join(path, folder, "keys");
    if (r == 0)
        r = copy_keys(state, path);
    if (r == 0)
        r = finish(folder, &mark);
    if (r < 0)
        return failed(folder, r, NEXT_AGAIN);
    printf("%s: %llu new blocks %s, %llu were there; keys in %s/keys\n", folder,
           (unsigned long long)(early.new_blocks + late.new_blocks),
           late.copying ? "copied" : "linked", (unsigned long long)early.kept_blocks, folder);
    /* One that was damaged at first may have been set aside since. */
    late.damaged = late.damaged > early.damaged ? late.damaged : early.damaged;
    if (late.damaged == 0)
        return DONE;
    fprintf(stderr,
            "westlight-broker: %s/vault: %llu blocks are damaged and were left out: "
            "westlight-broker --check %s names what needs them\n",
            state, (unsigned long long)late.damaged, state);
    return FAILED;
}

/* ---- the way back ---- */

/* Under another name until all of it is there. */
static int restore(const struct backup_place *place, const char *state)
{
    char fresh[LIMIT_PATH_BYTES], from[LIMIT_PATH_BYTES], to[LIMIT_PATH_BYTES + 16];
    struct transfer with = {0};

    if (rmdir(state) < 0 && errno != ENOENT)
        return refuse(FAILED, state, errno == ENOTEMPTY ? "it is not empty" : strerror(errno),
                      "move it away first: what is in it is not merged with a backup");
    if (snprintf(fresh, sizeof fresh, "%s.restoring", state) >= LIMIT_PATH_BYTES)
        return failed(state, -ENAMETOOLONG, "choose a shorter path");
    (void)folder_remove(fresh);
    int r = copy_keys(place->keys, fresh);
    if (r < 0)
        return failed(place->keys, r, "--keys DIR says where broker.key and master.key are kept");
    r = join(from, place->state, "vault");
    snprintf(to, sizeof to, "%s/vault", fresh);
    if (r == 0)
        r = bring_vault(from, to, &with);
    snprintf(to, sizeof to, "%s/state.db", fresh);
    if (r == 0) {
        _cleanup_(bytes_deinit) struct bytes why = {0};
        r = store_copy(place->state, to, &why);
        if (r != 0) {
            fprintf(stderr, "westlight-broker: %s\n", (const char *)why.data);
            return FAILED;
        }
    }
    if (r == 0)
        r = sync_all(fresh);
    if (r == 0 && rename(fresh, state) < 0)
        r = -errno;
    if (r < 0)
        return failed(state, r, "see to that, and restore again");
    printf("%s: restored, %llu blocks; start the broker on it\n", state,
           (unsigned long long)with.new_blocks);
    if (with.damaged)
        fprintf(stderr,
                "westlight-broker: %llu blocks of the backup are damaged: westlight-broker "
                "--check %s names what needs them\n",
                (unsigned long long)with.damaged, state);
    return with.damaged ? FAILED : DONE;
}

/* ---- commands ---- */

enum { STATE = 256, BACKUP, KEYS };

const struct args_option command_backup_options[] = {
    {STATE, "state", "DIR", "the broker's state folder"},
    {BACKUP, "backup", "DIR", "where the backup goes, instead of a word"},
    {0},
};
const struct args_option command_restore_options[] = {
    {KEYS, "keys", "DIR", "where broker.key and master.key are kept, if not in the backup"},
    {0},
};

struct words {
    const char *state, *folder, *keys;
};

static int take_option(void *user, int option, const char *value)
{
    struct words *words = user;

    *(option == STATE ? &words->state : option == BACKUP ? &words->folder : &words->keys) = value;
    return 0;
}

int command_backup(int argc, char **argv)
{
    struct words words = {0};
    int word, r = command_args(command_backup_options, argc, argv, take_option, &words, &word);

    if (r != 0)
        return r;
    const char *state = words.state, *folder = words.folder;

    if (!folder && word == argc - 1)
        folder = argv[word++];
    if (!state || !folder || word != argc)
        return refuse(USAGE, "backup", "it takes --state STATE and a folder",
                      "as westlight-broker --backup DIR --state STATE");
    if (!there(state, "broker.key") || !there(state, "state.db"))
        return refuse(USAGE, state, "no broker's state lies there", "check the path");
    return backup(state, folder);
}

int command_restore(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct backup_place place;
    struct words words = {0};
    int word, r = command_args(command_restore_options, argc, argv, take_option, &words, &word);

    if (r != 0)
        return r;
    if (word != argc - 2)
        return refuse(USAGE, "restore", "it takes two folders",
                      "as westlight-broker restore BACKUP STATE");
    if (backup_find(argv[word], words.keys, &place, &why) != 0)
        return refuse(USAGE, (const char *)why.data, "nothing was restored", "give a backup");
    if (!place.backup)
        return refuse(USAGE, argv[word], "it is no backup", "give a folder --backup made");
    return restore(&place, argv[word + 1]);
}
