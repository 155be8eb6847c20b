/* join.c - see join.h.
 *
 * In this order, so that whoever is killed gives the same command again: the key, the broker's
 * word, the file that names the farm.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/ini.h>
#include <proto/join.h>
#include <proto/state.h>
#include <worker/join.h>

enum { FAILED = 1, USAGE = 2, STATE = 256, NAME, FILE_BYTES_MAX = 4096 };

#define PATIENCE_NS (30 * NS_PER_S)

const struct args_option join_options[] = {
    {STATE, "state", "DIR", "its state folder; made where it is not there"},
    {NAME, "name", "NAME", "as the operator sees it (the host's name)"},
    {0},
};

struct options {
    const char *state, *name;
};

/* ---- the file ---- */

static int on_section(struct ini *ini, char *head _unused_)
{
    return ini_fail(ini, "it has no sections: take the line out");
}

static int on_setting(struct ini *ini, char *name, char *value)
{
    struct join_farm *farm = ini->user;
    bool broker = strcmp(name, "broker") == 0;
    size_t size = broker ? sizeof farm->broker : sizeof farm->server_key;

    if (!broker && strcmp(name, "server_key") != 0)
        return ini_fail(ini, "\"%.60s\" is not known: it has broker and server_key", name);
    if (strlen(value) >= size)
        return ini_fail(ini, "longer than %zu bytes: shorten it", size - 1);
    memcpy(broker ? farm->broker : farm->server_key, value, strlen(value) + 1);
    return 0;
}

static int farm_path(const char *state, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/farm", state) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int join_farm_load(const char *state, struct join_farm *ret_farm, char *why, size_t why_size)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct join_farm farm = {0};
    char path[PATH_MAX];
    struct ini ini = {.path = path,
                      .on_section = on_section,
                      .on_setting = on_setting,
                      .user = &farm,
                      .why = why,
                      .why_size = why_size};
    int r = farm_path(state, path);

    if (r == 0)
        r = file_read(path, FILE_BYTES_MAX, &text);
    if (r == 0)
        r = bytes_append(&text, "", 1);
    if (r == 0)
        r = ini_read(&ini, (char *)text.data);
    if (r == INI_E_FORM)
        return JOIN_FARM_E_FORM;
    if (r == 0)
        *ret_farm = farm;
    return r;
}

static int farm_save(const char *state, const struct joined *joined, const char *server_key)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char path[PATH_MAX];
    int r = farm_path(state, path);

    if (r == 0)
        r = bytes_printf(&text, "broker = %s\nserver_key = %s\n", joined->control, server_key);
    return r ? r : file_write(path, text.data, text.size, 0600);
}

/* ---- the command ---- */

static int complain(const char *what, const char *why, int code)
{
    fprintf(stderr, "westlight-worker: %s%s%s\n", what, *what ? ": " : "", why);
    return code;
}

static int take_option(void *user, int option, const char *value)
{
    struct options *options = user;

    *(option == STATE ? &options->state : &options->name) = value;
    return 0;
}

static void on_waits(void *user)
{
    const struct link_keypair *keys = user;
    char fingerprint[FINGERPRINT_SIZE];

    key_fingerprint(&keys->public_key, fingerprint);
    fprintf(stderr,
            "westlight-worker: waits for the operator, who compares this fingerprint and runs:\n"
            "  westlight-broker keys approve %s --state DIR\n",
            fingerprint);
}

static int load_key(const char *state, struct link_keypair *ret_keys)
{
    char path[PATH_MAX];
    int r = folder_make(state, 0700);

    if (r == 0 && snprintf(path, sizeof path, "%s/key", state) >= (int)sizeof path)
        r = -ENAMETOOLONG;
    if (r == 0)
        r = identity_key_load_or_new(path, ret_keys);
    if (r == 0)
        crash_point("join.key");
    return r == 0 ? 0 : complain(state, r < 0 ? strerror(-r) : "its key is no key file", FAILED);
}

/* One state folder, one farm: its cache and its results are of that farm. */
static int check_free(const char *state, const char *server_key)
{
    struct join_farm farm;
    char why[1024] = "";
    int r = join_farm_load(state, &farm, why, sizeof why);

    if (r == JOIN_FARM_E_FORM)
        return complain("", why, FAILED);
    if (r == 0 && strcmp(farm.server_key, server_key) != 0)
        return complain(state, "it has joined another farm: choose another --state", USAGE);
    return 0;
}

static int parse(int argc, char **argv, struct options *options, int *ret_word)
{
    static const struct args_program program = {.name = "westlight-worker"};
    const struct args_command command = {.name = "join", .options = join_options};
    char why[ARGS_WHY_BYTES];
    int r = args_parse(&program, &command, argc, argv, take_option, options, why, ret_word);

    if (*why)
        return complain("", why, r);
    if (r == 0 && !options->state)
        r = complain("join", "--state is missing: give a folder for its state", USAGE);
    if (r == 0 && (argc - *ret_word < 1 || argc - *ret_word > 2))
        r = complain("join",
                     "it takes a token, and the farm's address ahead of it where the token "
                     "does not say it",
                     USAGE);
    return r;
}

int join_command(int argc, char **argv)
{
    struct options options = {0};
    struct link_keypair keys;
    struct token token;
    struct joined joined;
    char why[1024] = "", host[256] = "", server_key[IDENTITY_Z85_SIZE];
    char enrol[TOKEN_ENDPOINT_BYTES];
    int word, r = parse(argc, argv, &options, &word);

    if (r != 0)
        return r;
    if (join_read(argc - word == 2 ? argv[word] : NULL, argv[argc - 1], &token, enrol, why,
                  sizeof why) != 0)
        return complain("", why, USAGE);
    (void)gethostname(host, sizeof host - 1);
    identity_key_text(&token.control_key, server_key);
    r = check_free(options.state, server_key);
    if (r == 0)
        r = load_key(options.state, &keys);
    if (r != 0)
        return r;

    const struct join join = {.token = &token,
                              .enrol = enrol,
                              .keys = &keys,
                              .name = options.name ? options.name : host,
                              .patience_ns = PATIENCE_NS,
                              .waits = on_waits,
                              .user = &keys};
    r = join_run(&join, &joined);
    wipe(&keys, sizeof keys);
    wipe(&token, sizeof token);
    if (r != 0) {
        join_why(&join, r, why, sizeof why);
        return complain("", why, FAILED);
    }
    crash_point("join.answered");
    if (joined.role != ROLE_WORKER)
        return complain("", "the token is a person's: it is used by westlight join", USAGE);
    r = farm_save(options.state, &joined, server_key);
    if (r < 0)
        return complain(options.state, strerror(-r), FAILED);
    crash_point("join.configured");
    printf("joined %s as %s: westlight-worker --state %s\n", joined.control, joined.name,
           options.state);
    return 0;
}
