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
#include <broker/vault/disk.h>

enum { FAILED = 1, USAGE = 2 };

int command_usage(const char *what, const char *why, const char *next)
{
    fprintf(stderr, "westlight-broker: %s: %s: %s\n", what, why, next);
    return USAGE;
}

struct options {
    const char *state, *role, *studio, *name, *weight, *quota, *from, *key;
};

enum { STATE = 256, ROLE, STUDIO, NAME, WEIGHT, QUOTA, FROM };

#define KEYS_FILE_BYTES ((size_t)LIMIT_WORKERS * (LIMIT_NAME_BYTES + IDENTITY_Z85_SIZE + 2))

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
    {FROM, "from", "FILE",
     "many keys at once instead of KEY: one a line, each with its name behind it if it has one; - "
     "is standard input"},
    {0},
};

const struct args_option command_studio_options[] = {
    ROW_STATE,
    {QUOTA, "quota", "SIZE", "what its blocks may take, as 500G or 2T; none: as much as there is"},
    {WEIGHT, "weight", "N", "its share of the farm against the others'"},
    {0},
};

static int take_option(void *user, int option, const char *value)
{
    struct options *options = user;

    *(option == STATE    ? &options->state
      : option == ROLE   ? &options->role
      : option == STUDIO ? &options->studio
      : option == NAME   ? &options->name
      : option == QUOTA  ? &options->quota
      : option == FROM   ? &options->from
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

static int parse_words(const struct args_option *rows, int argc, char **argv,
                       struct options *options, int *ret_word)
{
    int r = command_args(rows, argc, argv, take_option, options, ret_word);

    if (r == 0 && !options->state)
        r = command_usage(argv[0], "--state is missing", "give the broker's state folder");
    return r;
}

static int parse(const struct args_option *rows, int argc, char **argv, bool wants_key,
                 struct options *options)
{
    int word, r = parse_words(rows, argc, argv, options, &word);

    if (r != 0)
        return r;
    if (options->from && word != argc)
        return command_usage(argv[word], "with --from the keys are in the file", "leave it out");
    if (wants_key && !options->from && word + 1 != argc)
        return command_usage(argv[0], "it takes one key",
                             "give a public key (40 characters) or the path of a key file");
    if (!wants_key && word != argc)
        return command_usage(argv[0], "it takes no further argument", "leave it out");
    options->key = wants_key && !options->from ? argv[word] : NULL;
    return 0;
}

/* A public key as text, or the file that holds it. */
int command_key_parse(const char *text, struct worker_key *ret_key)
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

int command_copy_name(const char *option, const char *text, char name[LIMIT_NAME_BYTES + 1])
{
    if (!text)
        return 0;
    if (strlen(text) > LIMIT_NAME_BYTES)
        return command_usage(option, "it is longer than 256 bytes", "choose a shorter one");
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            return command_usage(option, "it holds a control character", "leave it out");
    snprintf(name, LIMIT_NAME_BYTES + 1, "%s", text);
    return 0;
}

int command_role_parse(const char *text, const char *studio, enum role *ret_role)
{
    enum role role = ROLE_NONE;

    for (unsigned i = ROLE_OPERATOR; text && i < ROLES_COUNT; i++)
        if (strcmp(text, role_name(i)) == 0)
            role = (enum role)i;
    if (role == ROLE_NONE)
        return command_usage("--role", "a key is one of operator, studio, worker",
                             "give one of them");
    if (role == ROLE_STUDIO && !studio[0])
        return command_usage("--studio", "a studio's key belongs to a studio", "give its name");
    *ret_role = role;
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
            return command_usage("--weight", "it is no whole number from 1 to 1000000",
                                 "give the studio's share against the others', as 1");
    }
    *ret_weight = (uint32_t)weight;
    return 0;
}

int command_failed(const struct bytes *why)
{
    fprintf(stderr, "westlight-broker: %s\n", why->size ? (const char *)why->data : "failed");
    return FAILED;
}

/* A mistyped folder must not become a broker's that nobody runs. */
int command_state_exists(const char *state)
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

/* ---- allow ---- */

/* "KEY" or "KEY NAME"; ret_row has what is the same for all. */
static int parse_line(const char *file, size_t number, char *line, struct key_row *ret_row)
{
    char *name = line + strcspn(line, " \t");
    struct link_key key;

    if (*name) {
        *name++ = '\0';
        name += strspn(name, " \t");
    }
    if (identity_key_parse(line, &key) != 0) {
        fprintf(stderr,
                "westlight-broker: %s: line %zu: it does not begin with a public key: give the 40 "
                "characters that westlight key new printed; nothing was changed\n",
                file, number);
        return FAILED;
    }
    memcpy(ret_row->key.bytes, key.bytes, sizeof ret_row->key.bytes);
    return command_copy_name(file, *name ? name : NULL, ret_row->name);
}

static int read_keys(const char *file, struct bytes *ret_text)
{
    int r = file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, KEYS_FILE_BYTES, ret_text);

    if (r == 0)
        return 0;
    fprintf(stderr, "westlight-broker: --from %s: %s: give a file of at most %d keys\n", file,
            strerror(-r), LIMIT_WORKERS);
    return FAILED;
}

/* All of them in one transaction: thousands of keys are not thousands of syncs. */
static int allow_from(const struct options *options, const struct key_row *row, struct bytes *why)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    _cleanup_(freep) struct key_row *rows = NULL;
    size_t n = 0, number = 0;
    char *line, *rest;
    int r = read_keys(options->from, &text);

    if (r != 0)
        return r;
    rest = (char *)text.data;
    while ((line = strsep(&rest, "\n"))) {
        struct key_row *moved;

        number++;
        if (!*line)
            continue;
        moved = reallocarray(rows, n + 1, sizeof *rows);
        if (!moved)
            return FAILED;
        rows = moved;
        rows[n] = *row;
        r = parse_line(options->from, number, line, &rows[n]);
        if (r != 0)
            return r;
        n++;
    }
    if (n == 0) {
        fprintf(stderr, "westlight-broker: --from %s: holds no key: give one a line\n",
                options->from);
        return FAILED;
    }
    if (store_allow(options->state, rows, n, why) != 0)
        return command_failed(why);
    printf("allowed: %zu key%s, %s%s%s\n", n, plural(n), role_name(row->role),
           row->studio_name[0] ? " of " : "", row->studio_name);
    return 0;
}

int command_allow(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    struct key_row row = {0};
    int r = parse(command_allow_options, argc, argv, true, &options);

    if (r == 0)
        r = command_copy_name("--studio", options.studio, row.studio_name);
    if (r == 0)
        r = command_copy_name("--name", options.name, row.name);
    if (r == 0)
        r = command_role_parse(options.role, row.studio_name, &row.role);
    if (r == 0)
        r = parse_weight(options.weight, &row.weight);
    if (r == 0 && !options.from)
        r = command_key_parse(options.key, &row.key);
    if (r == 0)
        r = command_state_exists(options.state);
    if (r != 0)
        return r;
    if (broker_state(options.state, &why) != 0)
        return command_failed(&why);
    if (options.from)
        return allow_from(&options, &row, &why);
    if (store_allow(options.state, &row, 1, &why) != 0)
        return command_failed(&why);
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
        r = command_key_parse(options.key, &row.key);
    if (r == 0)
        r = command_state_exists(options.state);
    if (r != 0)
        return r;
    if (store_forbid(options.state, &row.key, &why) != 0)
        return command_failed(&why);
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
    if (broker_state(options.state, &why) != 0 ||
        broker_keys(options.state, BROKER_KEY_FILE, &keys, &why) != 0)
        return command_failed(&why);
    identity_key_text(&keys.public_key, text);
    wipe(&keys, sizeof keys);
    printf("%s\n", text);
    return 0;
}

/* ---- studios ---- */

static int parse_quota(const char *text, uint64_t *ret_quota)
{
    *ret_quota = 0;
    if (strcmp(text, "none") == 0 || args_size(text, 1, 1ULL << 60, ret_quota))
        return 0;
    return command_usage("--quota", "it is no size", "give one such as 500G or 2T, or none");
}

struct listing {
    struct disk *disk;
    size_t n;
};

static int no_rest(void *user _unused_)
{
    return 0;
}

static const char *gigabytes(uint64_t bytes, char text[32])
{
    snprintf(text, 32, "%.3f GB", (double)bytes / 1e9);
    return text;
}

static int list_one(void *user, const struct studio_row *row)
{
    struct listing *listing = user;
    char used[32], quota[32];

    if (listing->n++ == 0)
        printf("%-24s  %6s  %4s  %14s  %14s\n", "STUDIO", "WEIGHT", "KEYS", "USED", "QUOTA");
    printf("%-24s  %6u  %4llu  %14s  %14s\n", row->name, row->weight, (unsigned long long)row->keys,
           gigabytes(stock_bytes(&listing->disk->stock, row->studio), used),
           row->quota_bytes ? gigabytes(row->quota_bytes, quota) : "none");
    return 0;
}

/* The vault is counted anew: that takes as long as looking at each of its files. */
static int list_studios(const char *state)
{
    struct store_reader *reader = NULL;
    char vault[LIMIT_PATH_BYTES + 8];
    struct disk disk;
    struct listing listing = {.disk = &disk};
    int r = store_reader_new(state, &reader);

    snprintf(vault, sizeof vault, "%s/vault", state);
    if (r == 0)
        r = disk_look(&disk, vault);
    if (r == 0) {
        r = disk_count(&disk, no_rest, NULL);
        if (r == 0)
            r = store_studios(reader, list_one, &listing);
        disk_close(&disk);
    }
    if (r != 0)
        fprintf(stderr, "westlight-broker: %s: %s\n", state,
                r < 0 || !reader ? strerror(r < 0 ? -r : EIO) : store_reader_why(reader));
    else if (listing.n == 0)
        printf("no studios: westlight-broker allow --role studio --studio NAME makes one\n");
    store_reader_free(reader);
    return r != 0 ? FAILED : 0;
}

int command_studio(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    uint32_t weight = 0;
    uint64_t quota = 0;
    int word, r = parse_words(command_studio_options, argc, argv, &options, &word);

    if (r == 0 && word + 1 < argc)
        r = command_usage(argv[word + 1], "it takes one name",
                          "leave the rest out, or quote the name");
    if (r == 0 && word < argc && !options.quota && !options.weight)
        r = command_usage(argv[word], "nothing is to be changed", "add --quota SIZE or --weight N");
    if (r == 0 && word == argc && (options.quota || options.weight))
        r = command_usage(argv[0], "which studio is not said", "add its name");
    if (r == 0)
        r = parse_weight(options.weight, &weight);
    if (r == 0 && options.quota)
        r = parse_quota(options.quota, &quota);
    if (r == 0)
        r = command_state_exists(options.state);
    if (r != 0)
        return r;
    if (word == argc)
        return list_studios(options.state);
    r = store_studio_set(options.state, argv[word], options.weight ? &weight : NULL,
                         options.quota ? &quota : NULL, &why);
    if (r != 0)
        return command_failed(&why);
    printf("changed: %s\n", argv[word]);
    return 0;
}
