/* cmd_join.c - a person's way into a farm: a key of their own, the token shown, a section of the
 * config file.
 *
 * In this order, so that whoever is killed gives the same command again and goes on where it was.
 */
#include <client/cmd.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <client/say.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/join.h>
#include <proto/state.h>

#define PATIENCE_NS      (30 * NS_PER_S)
#define CONFIG_BYTES_MAX (256 * 1024)
#define PATH_BYTES       2400

struct joining {
    const char *farm, *name;
    char config[PATH_BYTES], key[PATH_BYTES + 16], secret[PATH_BYTES + 16];
    char farm_name[64], server_key[IDENTITY_Z85_SIZE];
    struct token token;
    char enrol[TOKEN_ENDPOINT_BYTES];
    struct link_keypair keys;
};

static int take(void *user, int id, const char *value)
{
    struct joining *joining = user;

    if (id == ID_KEY)
        snprintf(joining->key, sizeof(joining->key), "%s", value);
    else
        *(id == ID_FARM ? &joining->farm : &joining->name) = value;
    return 0;
}

/* The key and the secret lie beside the config file. */
static int find_places(struct joining *joining)
{
    const char *given = getenv("WESTLIGHT_CONFIG");
    char folder[PATH_BYTES - 16];
    char *slash;
    int r = 0;

    if (given && *given) {
        snprintf(joining->config, sizeof(joining->config), "%s", given);
    } else {
        r = cmd_config_folder(folder, sizeof(folder));
        snprintf(joining->config, sizeof(joining->config), "%s/config", folder);
    }
    if (r < 0) {
        complain("join: ~/.config/westlight: %s: set WESTLIGHT_CONFIG to a file", strerror(-r));
        return EXIT_USAGE;
    }
    snprintf(folder, sizeof(folder), "%s", joining->config);
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    else
        strcpy(folder, ".");
    if (!joining->key[0])
        snprintf(joining->key, sizeof(joining->key), "%s/key", folder);
    snprintf(joining->secret, sizeof(joining->secret), "%s/secret", folder);
    return 0;
}

/* By the host, where no name was said: farm.example. */
static void name_farm(struct joining *joining)
{
    const char *host = joining->enrol + strlen("tcp://");
    const char *end = strrchr(host, ':');

    if (joining->farm)
        snprintf(joining->farm_name, sizeof(joining->farm_name), "%s", joining->farm);
    else
        snprintf(joining->farm_name, sizeof(joining->farm_name), "%.*s",
                 (int)(*host == '[' ? end - host - 2 : end - host), *host == '[' ? host + 1 : host);
}

/* Before the token is shown: afterwards it may be used up. */
static int check_name(const struct joining *joining)
{
    struct westlight_farm there;

    if (strlen(joining->farm_name) == 0 || strpbrk(joining->farm_name, "[]\n")) {
        complain("join: --farm %s: choose a name without brackets", joining->farm_name);
        return EXIT_USAGE;
    }
    if (westlight_farm_load(joining->farm_name, &there, NULL, 0) == 0 &&
        strcmp(there.server_key, joining->server_key) != 0) {
        complain("join: your config file has another farm %s: choose a name with --farm NAME",
                 joining->farm_name);
        return EXIT_USAGE;
    }
    return 0;
}

static void on_waits(void *user)
{
    const struct link_keypair *keys = user;
    char fingerprint[FINGERPRINT_SIZE];

    key_fingerprint(&keys->public_key, fingerprint);
    complain("this waits for the operator, who compares this fingerprint and runs:\n"
             "  westlight-broker keys approve %s --state DIR",
             fingerprint);
}

/* ---- the config file ---- */

/* Of the first lines, before any section. */
static bool has_default(const char *text)
{
    for (; *text && *text != '['; text += strcspn(text, "\n") + (strchr(text, '\n') != NULL))
        if (strncmp(text, "default", 7) == 0)
            return true;
    return false;
}

/* Where there was one farm, it stays the one that is meant where none is named. */
static int write_section(const struct joining *joining, const struct joined *joined)
{
    _cleanup_(bytes_deinit) struct bytes old = {0}, text = {0};
    struct westlight_farm meant;
    int r = file_read(joining->config, CONFIG_BYTES_MAX, &old);

    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0)
        r = bytes_append(&old, "", 1);
    if (r == -ENOENT)
        r = bytes_printf(&text, "default = %s\n", joining->farm_name);
    else if (r == 0 && !has_default((const char *)old.data) &&
             westlight_farm_load(NULL, &meant, NULL, 0) == 0)
        r = bytes_printf(&text, "default = %s\n\n", meant.name);
    if (r == 0 && old.size > 0)
        r = bytes_append(&text, old.data, old.size - 1);
    if (r == 0)
        r = bytes_printf(&text, "\n[farm %s]\ncontrol = %s\nserver_key = %s\nkey = %s\n",
                         joining->farm_name, joined->control, joining->server_key, joining->key);
    if (r == 0 && joined->role == ROLE_STUDIO)
        r = bytes_printf(&text, "secret = %s\n", joining->secret);
    return r ? r : file_write(joining->config, text.data, text.size, 0600);
}

static int configure(const struct joining *joining, const struct joined *joined)
{
    struct westlight_farm there;
    uint8_t secret[32];
    int r = 0;

    if (joined->role == ROLE_STUDIO)
        r = identity_secret_load_or_new(joining->secret, secret);
    wipe(secret, sizeof(secret));
    crash_point("join.secret");
    if (r == 0 && westlight_farm_load(joining->farm_name, &there, NULL, 0) != 0)
        r = write_section(joining, joined);
    crash_point("join.configured");
    if (r == 0)
        return 0;
    complain("join: %s: %s: mend that, then give the same command again", joining->config,
             r < 0 ? strerror(-r) : "the secret beside it is none");
    return EXIT_USAGE;
}

/* ---- the command ---- */

static int show_token(struct joining *joining, struct joined *ret_joined)
{
    const struct join join = {.token = &joining->token,
                              .enrol = joining->enrol,
                              .keys = &joining->keys,
                              .name = joining->name,
                              .patience_ns = PATIENCE_NS,
                              .waits = on_waits,
                              .user = &joining->keys};
    _cleanup_(freep) char *whole = NULL;
    char why[1024] = "";
    int r = identity_key_load_or_new(joining->key, &joining->keys);

    if (r != 0) {
        complain("join: %s: %s: check the file", joining->key,
                 r < 0 ? strerror(-r) : "not a key file");
        return EXIT_USAGE;
    }
    crash_point("join.key");
    whole = realpath(joining->key, NULL); /* the config file is read in any folder */
    if (whole)
        snprintf(joining->key, sizeof(joining->key), "%s", whole);
    r = join_run(&join, ret_joined);
    wipe(&joining->keys, sizeof(joining->keys));
    wipe(&joining->token, sizeof(joining->token));
    if (r != 0) {
        join_why(&join, r, why, sizeof(why));
        complain("%s", why);
        return EXIT_UNREACHABLE;
    }
    crash_point("join.answered");
    if (ret_joined->role != ROLE_WORKER)
        return 0;
    complain("join: the token is a worker's: it is used by westlight-worker join");
    return EXIT_USAGE;
}

int cmd_join(int argc, char **argv)
{
    struct joining joining = {0};
    struct joined joined;
    char why[1024] = "";
    int word, r = cmd_read(argc, argv, take, &joining, &word);

    if (r)
        return r;
    if (argc - word < 1 || argc - word > 2) {
        complain("join: it takes a token, and the farm's address ahead of it where the token does "
                 "not say it: see westlight help join");
        return EXIT_USAGE;
    }
    if (join_read(argc - word == 2 ? argv[word] : NULL, argv[argc - 1], &joining.token,
                  joining.enrol, why, sizeof(why)) != 0) {
        complain("join: %s", why);
        return EXIT_USAGE;
    }
    if (!joining.name)
        joining.name = getenv("USER") ? getenv("USER") : "";
    identity_key_text(&joining.token.control_key, joining.server_key);
    name_farm(&joining);
    r = find_places(&joining);
    if (!r)
        r = check_name(&joining);
    if (!r)
        r = show_token(&joining, &joined);
    if (!r)
        r = configure(&joining, &joined);
    if (r)
        return r;
    say("joined %s as %s%s%s%s", joining.farm_name, role_name(joined.role),
        joined.studio[0] ? " of " : "", joined.studio, joined.name[0] ? "" : ", without a name");
    if (joined.role == ROLE_STUDIO)
        complain("the studio's secret is in %s: what it seals, only people with the same secret "
                 "open. If a colleague has one, copy theirs over it before you submit",
                 joining.secret);
    return 0;
}
