/* farm.c - the farms a person may use: one file, one section each, and the keys it names.
 *
 * The file is read line by line into one struct, which counts as chosen when its section's name
 * does; so no list of farms is kept.
 */
#include <client/farm.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <proto/base/bytes.h>
#include <proto/base/ini.h>
#include <proto/identity.h>
#include <proto/limits.h>

#define CONFIG_BYTES_MAX (256 * 1024) /* some thousand farms */

_printf_(3, 4) static int say(char *why, size_t why_size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (why && why_size)
        vsnprintf(why, why_size, format, arguments);
    va_end(arguments);
    return WESTLIGHT_E_USAGE;
}

/* $VARIABLE/REST, else $HOME/FALLBACK/REST. */
static int xdg_path(const char *variable, const char *fallback, const char *rest, char *ret_path,
                    size_t size)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    int n;

    if (base && base[0] == '/')
        n = snprintf(ret_path, size, "%s/%s", base, rest);
    else if (home && home[0] == '/')
        n = snprintf(ret_path, size, "%s/%s/%s", home, fallback, rest);
    else
        return -ENOENT;
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int farm_state_folder(const char *folder, char *ret_path, size_t size)
{
    char rest[256], path[LIMIT_PATH_BYTES];

    snprintf(rest, sizeof(rest), "westlight/%s", folder);
    int r = xdg_path("XDG_STATE_HOME", ".local/state", rest, path, sizeof(path));
    if (r < 0)
        return r;
    r = folder_make(path, 0700);
    if (r < 0)
        return r;
    int n = snprintf(ret_path, size, "%s", path);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* ---- the file ---- */

struct config {
    struct westlight_farm farm; /* of the section being read */
    struct westlight_farm chosen;
    const char *name; /* the farm that is asked for; NULL: the default or the only one */
    char default_name[64];
    bool found;
    unsigned farms;
};

static int put(struct ini *ini, char *ret_field, size_t size, const char *value, const char *home)
{
    int n = home ? snprintf(ret_field, size, "%s%s", home, value + 1)
                 : snprintf(ret_field, size, "%s", value);
    if (n < 0 || (size_t)n >= size)
        return ini_fail(ini, "longer than %zu bytes: shorten it", size - 1);
    return 0;
}

static int on_setting(struct ini *ini, char *name, char *value)
{
    struct config *config = ini->user;
    struct westlight_farm *farm = &config->farm;
    const struct {
        const char *name;
        char *field;
        size_t size;
        bool file;
    } fields[] = {
        {"control", farm->control, sizeof(farm->control), false},
        {"bulk", farm->bulk, sizeof(farm->bulk), false},
        {"server_key", farm->server_key, sizeof(farm->server_key), false},
        {"key", farm->key_file, sizeof(farm->key_file), true},
        {"secret", farm->secret_file, sizeof(farm->secret_file), true},
    };

    if (farm->name[0] == '\0' && strcmp(name, "default") == 0)
        return put(ini, config->default_name, sizeof(config->default_name), value, NULL);
    for (size_t i = 0; farm->name[0] && i < ARRAY_SIZE(fields); i++)
        if (strcmp(name, fields[i].name) == 0) {
            const char *home =
                fields[i].file && strncmp(value, "~/", 2) == 0 ? getenv("HOME") : NULL;
            return put(ini, fields[i].field, fields[i].size, value, home);
        }
    return ini_fail(ini, "\"%.60s\" is not known %s", name,
                    farm->name[0] ? "here: a farm has control, bulk, server_key, key and secret"
                                  : "before the first [farm NAME]: only default = NAME is");
}

/* A section has ended: is it the one? */
static void close_section(struct config *config)
{
    if (config->farm.name[0] == '\0')
        return;
    const char *name = config->name ? config->name : config->default_name;
    if (*name == '\0' ? config->farms == 1 : strcmp(name, config->farm.name) == 0) {
        config->chosen = config->farm;
        config->found = true;
    }
    memset(&config->farm, 0, sizeof(config->farm));
}

static int on_section(struct ini *ini, char *head)
{
    struct config *config = ini->user;
    char *name = strncmp(head, "farm ", 5) == 0 ? ini_trim(head + 5) : head;

    close_section(config);
    if (name == head && strcmp(head, "farm") != 0)
        return ini_fail(ini, "not a section: write [farm NAME]");
    if (name == head || *name == '\0')
        return ini_fail(ini, "a farm without a name: write [farm NAME]");
    config->farms++;
    return put(ini, config->farm.name, sizeof(config->farm.name), name, NULL);
}

static int check_farm(const struct config *config, const struct ini *ini)
{
    const struct westlight_farm *farm = &config->chosen;
    const char *lacks = farm->control[0] == '\0'      ? "control = tcp://HOST:7420"
                        : farm->server_key[0] == '\0' ? "server_key = KEY, which the operator knows"
                        : farm->key_file[0] == '\0'   ? "key = FILE, made by: westlight key new"
                                                      : NULL;
    struct link_key key;

    if (lacks)
        return say(ini->why, ini->why_size, "%s: farm %s lacks a line: add %s", ini->path,
                   farm->name, lacks);
    if (identity_key_parse(farm->server_key, &key) != 0)
        return say(ini->why, ini->why_size,
                   "%s: farm %s: server_key is not a key of 40 characters: ask the operator",
                   ini->path, farm->name);
    return 0;
}

int westlight_farm_load(const char *name, struct westlight_farm *ret_farm, char *why,
                        size_t why_size)
{
    char path[LIMIT_PATH_BYTES];
    const char *given = getenv("WESTLIGHT_CONFIG"), *asked = getenv("WESTLIGHT_FARM");
    _cleanup_(bytes_deinit) struct bytes text = {0};

    if (given && *given)
        snprintf(path, sizeof(path), "%s", given);
    else if (xdg_path("XDG_CONFIG_HOME", ".config", "westlight/config", path, sizeof(path)) < 0)
        return say(why, why_size, "config: no home folder: set WESTLIGHT_CONFIG to a file");
    if (!name && asked && *asked)
        name = asked;

    int r = file_read(path, CONFIG_BYTES_MAX, &text);
    if (r < 0)
        return say(
            why, why_size,
            "config %s: %s: join a farm (westlight join TOKEN), write a [farm NAME] section there "
            "(see westlight help files), or render with --local",
            path, strerror(-r));
    r = bytes_append(&text, "", 1);
    if (r < 0)
        return r;

    struct config config = {.name = name};
    struct ini ini = {.path = path,
                      .on_section = on_section,
                      .on_setting = on_setting,
                      .user = &config,
                      .why = why,
                      .why_size = why_size};
    r = ini_read(&ini, (char *)text.data);
    if (r != 0)
        return r == INI_E_FORM ? WESTLIGHT_E_USAGE : r;
    close_section(&config);
    if (!name && config.default_name[0] == '\0' && config.farms > 1)
        return say(why, why_size, "config %s: %u farms and no default: use --farm NAME", path,
                   config.farms);
    if (!config.found)
        return say(why, why_size, "farm %s: not in %s: add a section [farm %s]",
                   name                     ? name
                   : config.default_name[0] ? config.default_name
                                            : "?",
                   path,
                   name                     ? name
                   : config.default_name[0] ? config.default_name
                                            : "NAME");
    r = check_farm(&config, &ini);
    if (r == 0)
        *ret_farm = config.chosen;
    return r;
}

/* ---- keys ---- */

/* 0700: what lies beside a key is nobody else's business. */
static int make_parent(const char *path)
{
    char folder[LIMIT_PATH_BYTES];
    const char *slash = strrchr(path, '/');

    if (!slash || slash == path)
        return 0;
    if ((size_t)(slash - path) >= sizeof(folder))
        return -ENAMETOOLONG;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    return folder_make(folder, 0700);
}

int westlight_key_new(const char *key_file, const char *secret_file,
                      char ret_public[WESTLIGHT_KEY_TEXT], char *why, size_t why_size)
{
    struct link_keypair keys;
    uint8_t secret[32];

    /* The key last: whoever is killed in between can give the same command again. */
    int r = identity_key_new(&keys);
    if (r == 0)
        r = access(key_file, F_OK) == 0 ? -EEXIST : 0;
    if (r == 0 && secret_file && *secret_file) {
        r = make_parent(secret_file);
        if (r == 0)
            r = identity_secret_load_or_new(secret_file, secret);
        wipe(secret, sizeof(secret));
        if (r != 0) {
            wipe(&keys, sizeof(keys));
            say(why, why_size, "secret %s: %s: check the file", secret_file,
                r < 0 ? strerror(-r) : "not a secret");
            return r > 0 || r == -EEXIST ? WESTLIGHT_E_USAGE : r;
        }
    }
    if (r == 0)
        r = make_parent(key_file);
    if (r == 0)
        r = identity_key_save(key_file, &keys);
    if (r == -EEXIST)
        say(why, why_size, "key %s: it is there already: choose another name, or use that one",
            key_file);
    else if (r != 0)
        say(why, why_size, "key %s: %s: check the folder", key_file,
            r < 0 ? strerror(-r) : "cannot be made");
    if (r == 0)
        identity_key_text(&keys.public_key, ret_public);
    wipe(&keys, sizeof(keys));
    return r == -EEXIST ? WESTLIGHT_E_EXISTS : r > 0 ? WESTLIGHT_E_USAGE : r;
}

int farm_keys(const struct westlight_farm *farm, struct link_keypair *ret_keys,
              struct link_key *ret_server, uint8_t ret_secret[32], bool *ret_has_secret, char *why,
              size_t why_size)
{
    struct link_keypair keys;
    struct link_key server;

    if (identity_key_parse(farm->server_key, &server) != 0)
        return say(why, why_size,
                   "farm %s: server_key is not a key of 40 characters: ask the operator",
                   farm->name);
    int r = identity_key_load(farm->key_file, &keys);
    if (r != 0)
        return say(why, why_size, "key %s: %s: make one with: westlight key new", farm->key_file,
                   r < 0 ? strerror(-r) : "not a key file");
    if (farm->secret_file[0]) {
        r = identity_secret_load(farm->secret_file, ret_secret);
        if (r != 0 && r != -ENOENT) {
            wipe(&keys, sizeof(keys));
            return say(why, why_size, "secret %s: %s: copy it from a colleague", farm->secret_file,
                       r < 0 ? strerror(-r) : "not a secret file");
        }
        *ret_has_secret = r == 0;
    } else {
        *ret_has_secret = false;
    }
    *ret_keys = keys;
    *ret_server = server;
    wipe(&keys, sizeof(keys));
    return 0;
}

/* ---- where a job's files go ---- */

static int folder_file(const char *id, char *ret_path, size_t size)
{
    char folder[LIMIT_PATH_BYTES - 64];
    int r = farm_state_folder("jobs", folder, sizeof(folder));

    if (r == 0)
        snprintf(ret_path, size, "%s/%.32s.folder", folder, id);
    return r;
}

bool westlight_folder(const char *id, char *ret_folder, size_t size)
{
    char path[LIMIT_PATH_BYTES];
    _cleanup_(bytes_deinit) struct bytes text = {0};

    if (folder_file(id, path, sizeof(path)) < 0 || file_read(path, size - 1, &text) < 0 ||
        text.size == 0)
        return false;
    memcpy(ret_folder, text.data, text.size);
    ret_folder[text.size] = '\0';
    return true;
}

int westlight_folder_keep(const char *id, const char *folder)
{
    char path[LIMIT_PATH_BYTES];
    int r = folder_file(id, path, sizeof(path));

    return r < 0 ? r : file_write(path, folder, strlen(folder), 0600);
}
