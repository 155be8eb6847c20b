/* unsent.c - see unsent.h. */
#include <client/unsent.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <client/farm.h>
#include <proto/base/err.h>
#include <proto/limits.h>

#define HEAD      "westlight upload 1"
#define BYTES_MAX (4 * 1024 * 1024) /* more than a command's words may be */

static int path_of(const char *id, char *ret_path, size_t size)
{
    char folder[LIMIT_PATH_BYTES - 64];
    int r = farm_state_folder("uploads", folder, sizeof(folder));

    if (r == 0)
        snprintf(ret_path, size, "%s/%.32s", folder, id);
    return r;
}

/* ---- one file ---- */

static int put(struct bytes *text, const char *name, const char *value)
{
    int r = bytes_printf(text, "%s %s", name, value ? value : "");

    return r < 0 ? r : bytes_append(text, "", 1);
}

int unsent_lock(struct unsent *unsent)
{
    char path[LIMIT_PATH_BYTES];
    int r = path_of(unsent->submission.id, path, sizeof(path));

    if (r < 0)
        return r;
    if (unsent->lock >= 0)
        close(unsent->lock);
    unsent->lock = open(path, O_RDONLY | O_CLOEXEC);
    if (unsent->lock < 0 || flock(unsent->lock, LOCK_EX | LOCK_NB) == 0)
        return unsent->lock < 0 ? -errno : 0;
    r = -errno;
    close(unsent->lock);
    unsent->lock = -1;
    return r;
}

int unsent_keep(struct unsent *unsent)
{
    const struct westlight_submission *submission = &unsent->submission;
    _cleanup_(bytes_wipe_deinit) struct bytes text = {0};
    char path[LIMIT_PATH_BYTES], key[65], print[65], begun[32];

    int r = path_of(submission->id, path, sizeof(path));
    if (r < 0)
        return r;
    snprintf(begun, sizeof(begun), "%" PRId64, unsent->begun_wall_s);
    const char *const fields[][2] = {
        {"id", submission->id},
        {"key", hex_encode(submission->key, 32, key)},
        {"print", hex_encode(submission->print, 32, print)},
        {"begun", begun},
        {"name", unsent->name},
        {"farm", unsent->farm},
        {"folder", unsent->folder},
        {"out", unsent->out},
    };
    r = bytes_append(&text, HEAD, sizeof(HEAD));
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fields); i++)
        r = put(&text, fields[i][0], fields[i][1]);
    for (int i = 0; r == 0 && i < unsent->argc; i++)
        r = put(&text, "word", unsent->argv[i]);
    if (r == 0)
        r = file_write(path, text.data, text.size, 0600);
    wipe(key, sizeof(key));
    return r < 0 ? r : unsent_lock(unsent);
}

static bool take_word(struct unsent *unsent, char *word)
{
    char **grown = reallocarray(unsent->argv, (size_t)unsent->argc + 2, sizeof(*grown));

    if (!grown)
        return false;
    unsent->argv = grown;
    grown[unsent->argc++] = word;
    grown[unsent->argc] = NULL;
    return true;
}

static bool take(struct unsent *unsent, char *line)
{
    char *value = strchr(line, ' ');
    struct westlight_submission *submission = &unsent->submission;

    if (!value)
        return false;
    *value++ = '\0';
    const struct {
        const char *name, **field;
    } texts[] = {{"name", &unsent->name},
                 {"farm", &unsent->farm},
                 {"folder", &unsent->folder},
                 {"out", &unsent->out}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (strcmp(line, texts[i].name) == 0)
            *texts[i].field = value;
    if (strcmp(line, "word") == 0)
        return take_word(unsent, value);
    if (strcmp(line, "id") == 0)
        snprintf(submission->id, sizeof(submission->id), "%s", value);
    else if (strcmp(line, "key") == 0)
        return hex_decode(value, submission->key, 32) == 0;
    else if (strcmp(line, "print") == 0)
        return hex_decode(value, submission->print, 32) == 0;
    else if (strcmp(line, "begun") == 0)
        unsent->begun_wall_s = strtoll(value, NULL, 10);
    return true;
}

/* False where it is none, or of another version. */
static bool parse(struct unsent *unsent, const char *id)
{
    char *at = (char *)unsent->text.data, *end = at + unsent->text.size;

    if (unsent->text.size < sizeof(HEAD) || memcmp(at, HEAD, sizeof(HEAD)) != 0 || end[-1])
        return false;
    for (at += sizeof(HEAD); at < end;) {
        size_t size = strlen(at) + 1;

        if (!take(unsent, at))
            return false;
        at += size;
    }
    return strcmp(unsent->submission.id, id) == 0 && unsent->argc > 0 && unsent->name &&
           unsent->farm && unsent->folder && unsent->out;
}

static bool load(const char *id, struct unsent *ret_unsent)
{
    struct unsent unsent = {.lock = -1};
    char path[LIMIT_PATH_BYTES];

    if (path_of(id, path, sizeof(path)) == 0 && file_read(path, BYTES_MAX, &unsent.text) == 0 &&
        parse(&unsent, id)) {
        *ret_unsent = unsent;
        return true;
    }
    unsent_deinit(&unsent);
    return false;
}

void unsent_drop(struct unsent *unsent)
{
    char path[LIMIT_PATH_BYTES];

    if (path_of(unsent->submission.id, path, sizeof(path)) == 0)
        unlink(path);
}

void unsent_deinit(struct unsent *unsent)
{
    if (unsent->lock >= 0)
        close(unsent->lock);
    unsent->lock = -1;
    if (unsent->text.data)
        free(unsent->argv);
    unsent->argv = NULL;
    bytes_wipe_deinit(&unsent->text);
    wipe(&unsent->submission, sizeof(unsent->submission));
}

/* ---- all of them ---- */

static int newest_first(const void *a, const void *b)
{
    const struct unsent *one = a, *other = b;

    return one->begun_wall_s != other->begun_wall_s
               ? (one->begun_wall_s < other->begun_wall_s ? 1 : -1)
               : strcmp(one->submission.id, other->submission.id);
}

int unsent_list(struct unsent **ret_list, size_t *ret_n)
{
    char folder[LIMIT_PATH_BYTES];
    struct unsent *list = NULL;
    struct dirent *entry;
    size_t n = 0;
    int r = farm_state_folder("uploads", folder, sizeof(folder));
    DIR *dir = r == 0 ? opendir(folder) : NULL;

    if (!dir)
        return r < 0 ? r : -errno;
    while (r == 0 && (entry = readdir(dir))) {
        struct unsent *grown;

        if (strlen(entry->d_name) != WESTLIGHT_ID_TEXT - 1)
            continue;
        grown = reallocarray(list, n + 1, sizeof(*list));
        r = grown ? 0 : -ENOMEM;
        list = grown ? grown : list;
        if (grown && load(entry->d_name, &list[n]))
            n++;
    }
    closedir(dir);
    if (r < 0) {
        unsent_list_free(list, n);
        return r;
    }
    if (n)
        qsort(list, n, sizeof(*list), newest_first);
    *ret_list = list;
    *ret_n = n;
    return 0;
}

bool unsent_forget(const char *prefix, char ret_id[WESTLIGHT_ID_TEXT])
{
    struct unsent *list = NULL, *found = NULL;
    size_t n = 0, n_found = 0, size = strlen(prefix);
    bool gone = false;

    if (size < UNSENT_PREFIX || unsent_list(&list, &n) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strncmp(list[i].submission.id, prefix, size) == 0) {
            found = &list[i];
            n_found++;
        }
    if (n_found == 1 && unsent_lock(found) == 0) {
        strcpy(ret_id, found->submission.id);
        unsent_drop(found);
        gone = true;
    }
    unsent_list_free(list, n);
    return gone;
}

void unsent_list_free(struct unsent *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        unsent_deinit(&list[i]);
    free(list);
}
