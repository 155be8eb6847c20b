/* cmd_farm.c - who one is to a farm: key new. */
#include <client/cmd.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <client/say.h>
#include <client/show.h>
#include <proto/base/bytes.h>
#include <proto/state.h>

int cmd_config_folder(char *path, size_t size)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (config && *config)
        snprintf(path, size, "%s/westlight", config);
    else if (home && *home)
        snprintf(path, size, "%s/.config/westlight", home);
    else
        return -ENOENT;
    return folder_make(path, 0700);
}

static int software_print(void *user, const char *name, const char *const *versions,
                          size_t n_versions)
{
    json_t *array = user, *list;

    if (strcmp(name, SOFTWARE_WORKER) == 0) /* nothing that a job could be made for */
        return 0;
    list = array ? json_array() : NULL;
    if (!array)
        say_part("%-12s", name);
    for (size_t i = 0; i < n_versions; i++)
        if (array)
            json_array_append_new(list, json_string(versions[i]));
        else
            say_part(" %s", versions[i]);
    if (array)
        json_array_append_new(array, json_pack("{s:s,s:o}", "name", name, "versions", list));
    else
        say_part("\n");
    return 0;
}

int cmd_software(int argc, char **argv)
{
    struct westlight *westlight = NULL;
    struct cmd_args args;
    json_t *array = NULL;
    int r = cmd_parse(&args, argc, argv, 0, 0);

    if (r || (r = cmd_open(args.farm, &westlight)))
        return r;
    if (args.json)
        array = json_array();
    r = westlight_software(westlight, software_print, array);
    if (r) {
        r = complain_library(r, westlight_why(westlight));
        json_decref(array);
    } else if (array)
        show_json(array, false);
    westlight_close(westlight);
    return r;
}

struct key_args {
    const char *key, *secret;
};

static int key_take(void *user, int id, const char *value)
{
    struct key_args *args = user;

    *(id == ID_KEY ? &args->key : &args->secret) = value;
    return 0;
}

int cmd_key(int argc, char **argv)
{
    char folder[2048], key[2200], secret[2200], public_key[WESTLIGHT_KEY_TEXT], why[1024] = "";
    struct key_args args = {0};
    const char *key_file, *secret_file;
    int word, r = cmd_read(argc, argv, key_take, &args, &word);

    if (r)
        return r;
    key_file = args.key;
    secret_file = args.secret;
    if (word + 1 != argc || strcmp(argv[word], "new") != 0) {
        complain("key: it makes a new one: write westlight key new");
        return EXIT_USAGE;
    }
    if (!key_file && (r = cmd_config_folder(folder, sizeof(folder))) < 0) {
        complain("key new: ~/.config/westlight: %s: name a file with --key FILE", strerror(-r));
        return EXIT_USAGE;
    }
    if (!key_file) {
        snprintf(key, sizeof(key), "%s/key", folder);
        snprintf(secret, sizeof(secret), "%s/secret", folder);
        key_file = key;
        secret_file = secret_file ? secret_file : secret;
    }

    r = westlight_key_new(key_file, secret_file, public_key, why, sizeof(why));
    if (r) {
        complain("%s", why);
        return EXIT_USAGE;
    }
    say_part("%s\n", public_key);
    fprintf(stderr,
            "The key is in %s; never send that file. Its public half is above: hand it to the "
            "operator, who runs\n"
            "  westlight-broker allow --state DIR --role studio --studio STUDIO --name YOU '%s'\n"
            "or, where it is a worker's,\n"
            "  westlight-broker allow --state DIR --role worker --name WORKER '%s'\n",
            key_file, public_key, public_key);
    if (secret_file)
        fprintf(stderr,
                "The studio's secret is in %s: what it seals, only people with the same secret "
                "open. If a colleague has one, copy theirs over it before you submit.\n",
                secret_file);
    return 0;
}
