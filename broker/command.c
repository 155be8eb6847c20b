/* command.c - see command.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/identity.h>
#include <broker/broker.h>
#include <broker/command.h>
#include <broker/store/store.h>

enum { FAILED = 1, USAGE = 2 };

static int usage(const char *what, const char *why, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, why, next);
    return USAGE;
}

struct options {
    const char *state, *role, *studio, *name, *weight, *key;
};

enum { STATE = 256, ROLE, STUDIO, NAME, WEIGHT };

#define ROW_STATE                                                                                  \
    {                                                                                              \
        STATE, "state", "DIR", "the broker's state folder"                                         \
    }

const struct args_option command_state_options[] = {ROW_STATE, {0}};

const struct args_option command_allow_options[] = {
    ROW_STATE,
    {ROLE, "role", "ROLE", "operator, studio (a person of one) or worker"},
    {STUDIO, "studio", "NAME", "the studio whose person it is"},
    {NAME, "name", "NAME", "as others see it: Ada, node1"},
    {WEIGHT, "weight", "N",
     "the studio's share of the farm against the others' (its own; a new studio's is 1)"},
    {0},
};

static int take_option(void *user, int option, const char *value)
{
    struct options *options = user;

    *(option == STATE    ? &options->state
      : option == ROLE   ? &options->role
      : option == STUDIO ? &options->studio
      : option == NAME   ? &options->name
                         : &options->weight) = value;
    return 0;
}

int command_args(const struct args_option *rows, int argc, char **argv, args_take *take, void *user,
                 int *ret_word)
{
    static const struct args_program program = {.name = "westlight-broker"};
    const struct args_command command = {.name = argv[0], .options = rows};
    char why[ARGS_WHY_BYTES];
    int r = args_parse(&program, &command, argc, argv, take, user, why, ret_word);

    if (*why)
        fprintf(stderr, "westlight-broker: %s\n", why);
    return r;
}

static int parse(const struct args_option *rows, int argc, char **argv, bool wants_key,
                 struct options *options)
{
    int word, r = command_args(rows, argc, argv, take_option, options, &word);

    if (r != 0)
        return r;
    if (!options->state)
        return usage(argv[0], "--state is missing", "give the broker's state folder");
    if (wants_key && word + 1 != argc)
        return usage(argv[0], "it takes one key",
                     "give a public key (40 characters) or the path of a key file");
    if (!wants_key && word != argc)
        return usage(argv[0], "it takes no further argument", "leave it out");
    options->key = wants_key ? argv[word] : NULL;
    return 0;
}

/* A public key as text, or the file that holds it. */
static int parse_key(const char *text, struct worker_key *ret_key)
{
    struct link_keypair pair;
    struct link_key key;
    int r = identity_key_parse(text, &key);

    if (r != 0) {
        r = identity_key_load(text, &pair);
        if (r != 0) {
            fprintf(
                stderr,
                "westlight-broker: %s: it is neither a public key nor a key file (%s): give the "
                "40 characters that westlight key new printed, or the path of its file\n",
                text, r < 0 ? strerror(-r) : "not of that form");
            return FAILED;
        }
        key = pair.public_key;
        wipe(&pair, sizeof pair);
    }
    memcpy(ret_key->bytes, key.bytes, sizeof ret_key->bytes);
    return 0;
}

static int copy_name(const char *option, const char *text, char name[LIMIT_NAME_BYTES + 1])
{
    if (!text)
        return 0;
    if (strlen(text) > LIMIT_NAME_BYTES)
        return usage(option, "it is longer than 256 bytes", "choose a shorter one");
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            return usage(option, "it holds a control character", "leave it out");
    snprintf(name, LIMIT_NAME_BYTES + 1, "%s", text);
    return 0;
}

static int parse_role(const struct options *options, struct key_row *row)
{
    for (unsigned i = ROLE_OPERATOR; options->role && i < ROLES_COUNT; i++)
        if (strcmp(options->role, role_name(i)) == 0)
            row->role = (enum role)i;
    if (row->role == ROLE_NONE)
        return usage("--role", "a key is one of operator, studio, worker", "give one of them");
    if (row->role == ROLE_STUDIO && !row->studio_name[0])
        return usage("--studio", "a studio's key belongs to a studio", "give its name");
    return 0;
}

static int parse_weight(const char *text, uint32_t *ret_weight)
{
    char *end;
    unsigned long weight = 0; /* the studio keeps its own; a new one has 1 */

    if (text) {
        errno = 0;
        weight = strtoul(text, &end, 10);
        if (errno || *end || end == text || text[0] == '-' || weight == 0 || weight > 1000000)
            return usage("--weight", "it is no whole number from 1 to 1000000",
                         "give the studio's share against the others', as 1");
    }
    *ret_weight = (uint32_t)weight;
    return 0;
}

static int failed(const struct bytes *why)
{
    fprintf(stderr, "westlight-broker: %s\n", why->size ? (const char *)why->data : "failed");
    return FAILED;
}

/* A mistyped folder must not become a broker's that nobody runs. */
static int state_exists(const char *state)
{
    char path[LIMIT_PATH_BYTES];

    if ((size_t)snprintf(path, sizeof path, "%s/broker.key", state) < sizeof path &&
        access(path, F_OK) == 0)
        return 0;
    fprintf(stderr,
            "westlight-broker: --state %s: no broker's state lies there: check the path, or make "
            "it with westlight-broker key --state %s\n",
            state, state);
    return USAGE;
}

static void say_key(const char *verb, const struct key_row *row)
{
    struct link_key key;
    char text[IDENTITY_Z85_SIZE];

    memcpy(key.bytes, row->key.bytes, sizeof key.bytes);
    identity_key_text(&key, text);
    printf("%s: %s", verb, text);
    if (row->role != ROLE_NONE)
        printf(", %s%s%s%s%s", role_name(row->role), row->name[0] ? " " : "", row->name,
               row->studio_name[0] ? " of " : "", row->studio_name);
    printf("\n");
}

int command_allow(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    struct key_row row = {0};
    int r = parse(command_allow_options, argc, argv, true, &options);

    if (r == 0)
        r = copy_name("--studio", options.studio, row.studio_name);
    if (r == 0)
        r = copy_name("--name", options.name, row.name);
    if (r == 0)
        r = parse_role(&options, &row);
    if (r == 0)
        r = parse_weight(options.weight, &row.weight);
    if (r == 0)
        r = parse_key(options.key, &row.key);
    if (r == 0)
        r = state_exists(options.state);
    if (r != 0)
        return r;
    if (broker_state(options.state, &why) != 0 || store_allow(options.state, &row, &why) != 0)
        return failed(&why);
    say_key("allowed", &row);
    return 0;
}

int command_forbid(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    struct key_row row = {0};
    int r = parse(command_state_options, argc, argv, true, &options);

    if (r == 0)
        r = parse_key(options.key, &row.key);
    if (r == 0)
        r = state_exists(options.state);
    if (r != 0)
        return r;
    if (store_forbid(options.state, &row.key, &why) != 0)
        return failed(&why);
    say_key("forbidden", &row);
    return 0;
}

int command_key(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    struct link_keypair keys;
    char text[IDENTITY_Z85_SIZE];
    int r = parse(command_state_options, argc, argv, false, &options);

    if (r != 0)
        return r;
    if (broker_state(options.state, &why) != 0 || broker_keys(options.state, &keys, &why) != 0)
        return failed(&why);
    identity_key_text(&keys.public_key, text);
    wipe(&keys, sizeof keys);
    printf("%s\n", text);
    return 0;
}
