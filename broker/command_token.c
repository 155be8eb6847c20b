/* command_token.c - tokens, by which newcomers let themselves in, and the keys that there are. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <broker/broker.h>
#include <broker/command.h>
#include <broker/store/tokens.h>

enum { STATE = 256, ROLE, STUDIO, POOL, USES, TTL, APPROVE, HOST };
enum { ID_BYTES = 4 }; /* of a token's digest, as it is listed */

struct options {
    const char *state, *role, *studio, *pool, *uses, *ttl, *host;
    bool approve;
};

const struct args_option command_token_options[] = {
    {STATE, "state", "DIR", "the broker's state folder"},
    {ROLE, "role", "ROLE", "what whoever joins is: operator, studio (a person of one) or worker"},
    {STUDIO, "studio", "NAME", "the studio whose person it is"},
    {POOL, "pool", "NAME", "the pool that a worker begins in (none)"},
    {USES, "uses", "N", "how many may join by it (1)"},
    {TTL, "ttl", "SPAN", "how long it is good for: 90s, 15m, 12h or 7d (15m)"},
    {APPROVE, "approve", NULL, "whoever joins waits until keys approve"},
    {HOST, "host", "HOST", "by which newcomers reach this machine, so that they need not say it"},
    {0},
};

static int take_option(void *user, int option, const char *value)
{
    struct options *options = user;

    if (option == APPROVE) {
        options->approve = true;
        return 0;
    }
    *(option == STATE    ? &options->state
      : option == ROLE   ? &options->role
      : option == STUDIO ? &options->studio
      : option == POOL   ? &options->pool
      : option == USES   ? &options->uses
      : option == TTL    ? &options->ttl
                         : &options->host) = value;
    return 0;
}

/* The words behind the options, a verb first. */
static int parse(const struct args_option *rows, int argc, char **argv, struct options *options,
                 int *ret_word)
{
    int r = command_args(rows, argc, argv, take_option, options, ret_word);

    if (r == 0 && !options->state)
        r = command_usage(argv[0], "--state is missing", "give the broker's state folder");
    return r ? r : command_state_exists(options->state);
}

/* ---- token create ---- */

static int parse_ttl(const char *text, int64_t *ret_s)
{
    static const struct {
        char letter;
        int64_t unit_s;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end = NULL;
    double amount = text ? strtod(text, &end) : 15 * 60;

    for (size_t i = 0; text && i < ARRAY_SIZE(units); i++)
        if (end > text && end[0] == units[i].letter && end[1] == '\0') {
            *ret_s = (int64_t)(amount * (double)units[i].unit_s);
            if (amount > 0 && amount < 1e9 && *ret_s >= 1 && *ret_s <= LIMIT_TOKEN_S)
                return 0;
        }
    if (!text) {
        *ret_s = (int64_t)amount;
        return 0;
    }
    return command_usage("--ttl", "it is no span of time up to 30 days", "give one such as 15m");
}

static int parse_row(const struct options *options, struct token_row *ret_row)
{
    struct token_row row = {.uses = 1, .approve = options->approve};
    uint64_t uses = 1;
    int64_t ttl_s = 0;
    int r = command_copy_name("--studio", options->studio, row.studio_name);

    if (r == 0)
        r = command_copy_name("--pool", options->pool, row.pool);
    if (r == 0)
        r = command_role_parse(options->role, row.studio_name, &row.role);
    if (r == 0 && row.pool[0] && row.role != ROLE_WORKER)
        r = command_usage("--pool", "only workers are in a pool", "leave it out");
    if (r == 0 && row.studio_name[0] && row.role != ROLE_STUDIO)
        r = command_usage("--studio", "only a studio's people belong to one", "leave it out");
    if (r == 0 && options->uses && !args_number(options->uses, 1, LIMIT_WORKERS, &uses))
        r = command_usage("--uses", "it is no whole number from 1 to 65536", "give one");
    if (r == 0)
        r = parse_ttl(options->ttl, &ttl_s);
    if (r != 0)
        return r;
    row.uses = (uint32_t)uses;
    row.until_wall_s = clock_wall_ns() / NS_PER_S + ttl_s;
    *ret_row = row;
    return 0;
}

/* With the host that was said, where there is none in what the broker listens at. */
static int place(const char *host, const char *endpoint, char ret_endpoint[TOKEN_ENDPOINT_BYTES])
{
    char other[TOKEN_ENDPOINT_BYTES];

    if (!host) {
        snprintf(ret_endpoint, TOKEN_ENDPOINT_BYTES, "%s", endpoint);
        return 0;
    }
    if (endpoint_over(host, "tcp://*:0", other) == 0 &&
        endpoint_host(endpoint, other, ret_endpoint) == 0)
        return 0;
    return command_usage("--host", "it is no name or address", "give one without a port");
}

static int make_token(const struct options *options, struct token *ret_token, struct bytes *why)
{
    struct link_keypair keys, enrol_keys;
    struct broker_endpoints endpoints;
    int r = broker_endpoints(options->state, &endpoints);

    if (r != 0) {
        (void)bytes_printf(why,
                           "%s: no broker has run here at which newcomers join: start "
                           "westlight-broker run, with --enrol where it has --control",
                           options->state);
        return command_failed(why);
    }
    if (broker_keys(options->state, BROKER_KEY_FILE, &keys, why) != 0 ||
        broker_keys(options->state, BROKER_ENROL_KEY_FILE, &enrol_keys, why) != 0)
        return command_failed(why);
    ret_token->control_key = keys.public_key;
    ret_token->enrol_key = enrol_keys.public_key;
    wipe(&keys, sizeof keys);
    wipe(&enrol_keys, sizeof enrol_keys);
    r = place(options->host, endpoints.enrol, ret_token->enrol);
    if (r == 0)
        r = place(options->host, endpoints.control, ret_token->control);
    if (r == 0 && random_bytes(ret_token->secret, sizeof ret_token->secret) < 0)
        r = command_failed(why);
    return r;
}

static int create(const struct options *options)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token token = {0};
    struct token_row row;
    char text[TOKEN_TEXT_BYTES];
    int r = parse_row(options, &row);

    if (r == 0)
        r = make_token(options, &token, &why);
    if (r != 0)
        return r;
    token_digest(token.secret, row.digest);
    if (store_token_add(options->state, &row, &why) != 0)
        return command_failed(&why);
    token_text(&token, text);
    printf("%s\n", text);
    fprintf(
        stderr,
        "Whoever has this string joins as %s%s%s: hand it over in private. %s: %s join %sTOKEN\n",
        role_name(row.role), row.studio_name[0] ? " of " : "", row.studio_name,
        row.role == ROLE_WORKER ? "On the worker" : "There",
        row.role == ROLE_WORKER ? "westlight-worker" : "westlight",
        strncmp(token.enrol, "tcp://*:", 8) == 0 ? "THIS-HOST " : "");
    wipe(&token, sizeof token);
    wipe(text, sizeof text);
    return 0;
}

/* ---- token list, token revoke ---- */

static int list_one(void *user, const struct token_row *row)
{
    int64_t *n = user, left_s = row->until_wall_s - clock_wall_ns() / NS_PER_S;
    char id[2 * ID_BYTES + 1], left[32];

    if ((*n)++ == 0)
        printf("%-8s  %-8s  %-20s  %-12s  %5s  %-9s  %s\n", "TOKEN", "ROLE", "STUDIO", "POOL",
               "USES", "GOOD FOR", "");
    hex_encode(row->digest, ID_BYTES, id);
    snprintf(left, sizeof left, "%" PRId64 " min", (left_s + 59) / 60);
    printf("%-8s  %-8s  %-20s  %-12s  %5u  %-9s  %s\n", id, role_name(row->role),
           row->studio_name[0] ? row->studio_name : "-", row->pool[0] ? row->pool : "-", row->uses,
           left_s <= 0 || row->uses == 0 ? "nothing" : left, row->approve ? "approve" : "");
    return 0;
}

static int list(const struct options *options)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    int64_t n = 0;

    if (store_tokens(options->state, list_one, &n, &why) != 0)
        return command_failed(&why);
    if (n == 0)
        printf("no tokens: westlight-broker token create makes one\n");
    return 0;
}

/* The token itself will do, too. */
static int revoke(const struct options *options, const char *text)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    uint8_t digest[TOKEN_DIGEST_BYTES];
    struct token token;
    size_t size = strlen(text) / 2;
    int r;

    if (token_parse(text, &token) == 0) {
        token_digest(token.secret, digest);
        wipe(&token, sizeof token);
        size = sizeof digest;
    } else if (size < ID_BYTES || size > sizeof digest || hex_decode(text, digest, size) < 0) {
        return command_usage(text, "it is no token", "give its first column of token list");
    }
    r = store_token_revoke(options->state, digest, size, &why);
    if (r != 0)
        return command_failed(&why);
    printf("revoked: nobody joins by it any more; who has joined stays\n");
    return 0;
}

int command_token(int argc, char **argv)
{
    struct options options = {0};
    int word, r = parse(command_token_options, argc, argv, &options, &word);
    const char *verb = r == 0 && word < argc ? argv[word] : "";

    if (r != 0)
        return r;
    if (strcmp(verb, "create") == 0 && word + 1 == argc)
        return create(&options);
    if (strcmp(verb, "list") == 0 && word + 1 == argc)
        return list(&options);
    if (strcmp(verb, "revoke") == 0 && word + 2 == argc)
        return revoke(&options, argv[word + 1]);
    return command_usage("token", "it is create, list or revoke TOKEN",
                         "see westlight-broker help token");
}

/* ---- keys ---- */

struct keys {
    const char *wanted; /* a key, a fingerprint; NULL: all are listed */
    struct worker_key key;
    size_t n;
};

static void on_one(struct keys *keys, const struct key_row *row, const char *state)
{
    char text[IDENTITY_Z85_SIZE], fingerprint[FINGERPRINT_SIZE];
    struct link_key key;

    memcpy(key.bytes, row->key.bytes, sizeof key.bytes);
    identity_key_text(&key, text);
    key_fingerprint(&key, fingerprint);
    if (keys->wanted && strcmp(keys->wanted, text) != 0 && strcmp(keys->wanted, fingerprint) != 0)
        return;
    keys->key = row->key;
    if (keys->n++ == 0 && !keys->wanted)
        printf("%-24s  %-8s  %-16s  %-16s  %-7s  %s\n", "FINGERPRINT", "ROLE", "STUDIO", "NAME",
               "STATE", "KEY");
    if (!keys->wanted)
        printf("%-24s  %-8s  %-16s  %-16s  %-7s  %s\n", fingerprint, role_name(row->role),
               row->studio_name[0] ? row->studio_name : "-", row->name[0] ? row->name : "-", state,
               text);
}

static int on_active(void *user, const struct key_row *row)
{
    on_one(user, row, "active");
    return 0;
}

static int on_pending(void *user, const struct newcomer_row *row)
{
    if (row->pending)
        on_one(user, &row->key, "pending");
    return 0;
}

static int walk(const char *state, struct keys *keys, struct bytes *why)
{
    struct store_reader *reader = NULL;
    int r = store_newcomers(state, on_pending, keys, why);

    if (r == 0)
        r = store_reader_new(state, &reader);
    if (r == 0)
        r = store_keys(reader, on_active, keys);
    if (r != 0 && why->size == 0)
        (void)bytes_printf(why, "%s: %s", state, reader ? store_reader_why(reader) : "unreadable");
    store_reader_free(reader);
    return r;
}

static int find(const char *state, const char *text, struct worker_key *ret_key)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct keys keys = {.wanted = text};

    if (walk(state, &keys, &why) != 0)
        return command_failed(&why);
    if (keys.n != 1)
        return command_usage(text, keys.n ? "several keys are that" : "no key is that",
                             "give a key or a fingerprint of westlight-broker keys");
    *ret_key = keys.key;
    return 0;
}

int command_keys(int argc, char **argv)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct options options = {0};
    struct keys all = {0};
    struct worker_key key;
    int word, r = parse(command_state_options, argc, argv, &options, &word);
    const char *verb = r == 0 && word < argc ? argv[word] : "";
    bool approves = strcmp(verb, "approve") == 0;

    if (r != 0)
        return r;
    if (word == argc) {
        if (walk(options.state, &all, &why) != 0)
            return command_failed(&why);
        if (all.n == 0)
            printf("no keys: westlight-broker token create, or allow\n");
        return 0;
    }
    if (word + 2 != argc || !(approves || strcmp(verb, "revoke") == 0))
        return command_usage("keys", "it is approve KEY, revoke KEY, or nothing",
                             "see westlight-broker help keys");
    r = find(options.state, argv[word + 1], &key);
    if (r != 0)
        return r;
    if ((approves ? store_approve : store_forbid)(options.state, &key, &why) != 0)
        return command_failed(&why);
    printf("%s: %s\n", approves ? "approved" : "revoked", argv[word + 1]);
    return 0;
}
