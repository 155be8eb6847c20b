/* supply.c - see supply.h.
 *
 * Every exchange is a closure that can be made again on a new link, so that one loop holds all the
 * retrying: a new pass where the old one was refused, a pause where nobody answers or all is full.
 *
 * In and out are not alike. What comes in is given up after some rounds, since another worker may
 * do better. What goes out may be the work of hours: it waits for all that can pass, for as long as
 * the lease is wanted.
 */
#include <worker/supply.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/limits.h>

enum {
    ROUNDS_REFUSED = 3,
    ROUNDS_ONLINE = 6, /* of 30 s of silence each, while the broker's control link is there */
    ROUNDS_FULL = 20,
    ROUNDS_SAID = 8, /* each is logged; then one a minute */
    PAUSE_MS = 50,
    PAUSE_FIRST_MS = 500,
    PAUSE_DISK_MS = 2000,
    PAUSE_FULL_MS = 5000,
};
#define SAY_NS (60 * NS_PER_S)

struct supply {
    struct supply_config config;
    struct sealer *sealer; /* NULL: nothing was opened yet */
    struct bytes pass;
    struct transfer *transfer;
    uint64_t bytes_in; /* of links closed since */
    struct block_id *pins;
    size_t n_pins;
    struct block_id last_id; /* small files share blocks: the last one is kept open */
    struct bytes last;
    char why[LIMIT_MESSAGE_BYTES];
};

struct exchange {
    int (*run)(struct supply *supply, struct exchange *exchange);
    const struct transfer_want *wants;
    const struct block_id *ids;
    size_t n;
    bool plain;
    transfer_source *source; /* NULL: in */
    void *user;
};

struct tries {
    int all, refused, silent, full;
    int64_t said_ns;
};

int supply_new(const struct supply_config *config, const void *pass, size_t pass_size,
               struct supply **ret_supply)
{
    _cleanup_(supply_freep) struct supply *supply = calloc(1, sizeof(*supply));
    int r;

    if (!supply)
        return -ENOMEM;
    supply->config = *config;
    r = bytes_append(&supply->pass, pass, pass_size);
    if (r < 0)
        return r;
    *ret_supply = TAKE_PTR(supply);
    return 0;
}

void supply_free(struct supply *supply)
{
    if (!supply)
        return;
    supply_unpin(supply);
    supply_rest(supply);
    sealer_free(supply->sealer);
    bytes_wipe_deinit(&supply->pass);
    bytes_wipe_deinit(&supply->last);
    free(supply);
}

void supply_rest(struct supply *supply)
{
    if (supply->transfer)
        supply->bytes_in += transfer_bytes_received(supply->transfer);
    transfer_free(supply->transfer);
    supply->transfer = NULL;
}

static bool stopped(const struct supply *supply)
{
    return supply->config.stop && atomic_load(supply->config.stop);
}

static int pause_ms(struct supply *supply, int ms)
{
    for (; ms > 0 && !stopped(supply); ms -= PAUSE_MS)
        (void)poll(NULL, 0, PAUSE_MS);
    return stopped(supply) ? -ECANCELED : 0;
}

static int dial(struct supply *supply)
{
    char endpoint[256];
    int r = 0;

    if (supply->transfer)
        return 0;
    if (supply->pass.size == 0)
        r = supply->config.renew(supply->config.user, &supply->pass);
    if (r == 0)
        r = supply->config.endpoint(supply->config.user, endpoint);
    if (r != 0)
        return r;
    return transfer_new(&(struct transfer_config){.context = supply->config.context,
                                                  .endpoint = endpoint,
                                                  .server = supply->config.server,
                                                  .keys = supply->config.keys,
                                                  .pass = supply->pass.data,
                                                  .pass_size = supply->pass.size,
                                                  .stop = supply->config.stop},
                        &supply->transfer);
}

/* What is local cannot be mended by asking again. */
static bool lasting_in(int r)
{
    return r == TRANSFER_E_MISSING || r == TRANSFER_E_QUOTA || r == TRANSFER_E_CORRUPT ||
           r == TRANSFER_E_DAMAGED || r == -ECANCELED || r == -ENOMEM || r == -ENOSPC ||
           r == -EIO || r == -EDQUOT || r == -EROFS || r == -EACCES || r == -ENOENT ||
           r == -EBADMSG || r == -EMFILE;
}

/* Where the block itself is lost, or will not be taken however often it is sent. */
static bool lasting_out(int r)
{
    return r == TRANSFER_E_MISSING || r == TRANSFER_E_QUOTA || r == TRANSFER_E_CORRUPT ||
           r == TRANSFER_E_DAMAGED || r == -ECANCELED || r == -EIO || r == -ENOENT ||
           r == -EBADMSG || r == -EFBIG;
}

/* Counts the rounds that make no sense for ever. */
static bool tried_enough(struct supply *supply, struct tries *tries, int r)
{
    if (r == TRANSFER_E_DISK) /* all of the farm waits for space */
        tries->refused = tries->silent = tries->full = 0;
    else if (r == TRANSFER_E_REFUSED)
        return ++tries->refused > ROUNDS_REFUSED;
    else if (r == TRANSFER_E_FULL || r == TRANSFER_E_BROKER)
        return ++tries->full > ROUNDS_FULL;
    else if (supply->config.online(supply->config.user))
        return ++tries->silent > ROUNDS_ONLINE;
    return false;
}

static void say_why(struct supply *supply, int r)
{
    const char *why = supply->transfer ? transfer_why(supply->transfer) : "";

    if (!*why && r == TRANSFER_E_REFUSED)
        why = "the broker gives no pass for this lease";
    if (!*why && r == TRANSFER_E_BROKER)
        why = "the broker can give no pass now";
    if (!*why)
        why = strerror(r < 0 ? -r : EPROTO);
    snprintf(supply->why, sizeof(supply->why), "%s", why);
}

static void say_again(struct supply *supply, struct tries *tries)
{
    int64_t now_ns = clock_monotonic_ns();

    if (tries->all >= ROUNDS_SAID && now_ns - tries->said_ns < SAY_NS)
        return;
    tries->said_ns = now_ns;
    log_limited(LOG_WARN, "transfer-again", "tries=%d why=\"%s\"", tries->all + 1, supply->why);
}

static int pause_after(int r, int tries)
{
    if (r == TRANSFER_E_DISK)
        return PAUSE_DISK_MS;
    if (r == TRANSFER_E_FULL || r == TRANSFER_E_BROKER || tries > 3)
        return PAUSE_FULL_MS;
    return PAUSE_FIRST_MS << tries;
}

static int exchange_run(struct supply *supply, struct exchange *exchange)
{
    struct tries tries = {0};

    for (;; tries.all++) {
        int r = dial(supply);
        bool unwanted = r == TRANSFER_E_REFUSED; /* no pass is given for this lease */
        bool out = exchange->source && !unwanted;

        if (r == 0)
            r = exchange->run(supply, exchange);
        if (r == 0)
            return 0;
        say_why(supply, r);
        /* A result waits on this worker for as long as it takes, and keeps its link. */
        if (r != TRANSFER_E_DISK)
            supply_rest(supply);
        if (stopped(supply))
            return -ECANCELED;
        if (out ? lasting_out(r) : lasting_in(r) || tried_enough(supply, &tries, r))
            return r;
        if (r == TRANSFER_E_REFUSED)
            supply->pass.size = 0;
        say_again(supply, &tries);
        r = pause_ms(supply, pause_after(r, exchange->source ? tries.all : 0));
        if (r < 0)
            return r;
    }
}

/* ---- in ---- */

static int run_fetch(struct supply *supply, struct exchange *exchange)
{
    return cache_fetch(supply->config.cache, supply->transfer, exchange->wants, exchange->n,
                       supply->config.stop);
}

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct block_id)); /* the id comes first in what is sorted */
}

static int pin(struct supply *supply, const struct transfer_want *wants, size_t n)
{
    struct block_id *pins = reallocarray(supply->pins, supply->n_pins + n, sizeof(*pins));

    if (!pins)
        return -ENOMEM;
    supply->pins = pins;
    for (size_t i = 0; i < n; i++) {
        if (cache_pin(supply->config.cache, &wants[i].id) < 0)
            return -ENOMEM;
        supply->pins[supply->n_pins++] = wants[i].id;
    }
    return 0;
}

int supply_stage(struct supply *supply, const struct block_key *keys, size_t n_keys)
{
    _cleanup_(freep) struct transfer_want *wants = NULL;
    struct exchange exchange = {.run = run_fetch};
    size_t n = 0;
    int r;

    if (n_keys == 0)
        return 0;
    wants = calloc(n_keys, sizeof(*wants));
    if (!wants)
        return -ENOMEM;
    for (size_t i = 0; i < n_keys; i++)
        wants[i] = (struct transfer_want){.id = keys[i].id, .sealed_bytes = keys[i].sealed_bytes};
    qsort(wants, n_keys, sizeof(*wants), by_id);
    for (size_t i = 0; i < n_keys; i++)
        if (i == 0 || by_id(&wants[i], &wants[n - 1]) != 0)
            wants[n++] = wants[i];
    r = pin(supply, wants, n);
    if (r < 0)
        return r;
    exchange.wants = wants;
    exchange.n = n;
    return exchange_run(supply, &exchange);
}

void supply_unpin(struct supply *supply)
{
    for (size_t i = 0; i < supply->n_pins; i++)
        cache_unpin(supply->config.cache, &supply->pins[i]);
    free(supply->pins);
    supply->pins = NULL;
    supply->n_pins = 0;
}

static int open_again(struct supply *supply, const struct block_key *key, struct bytes *sealed)
{
    struct transfer_want want = {.id = key->id, .sealed_bytes = key->sealed_bytes};
    struct exchange exchange = {.run = run_fetch, .wants = &want, .n = 1};
    int r = exchange_run(supply, &exchange);

    return r == 0 ? cache_get(supply->config.cache, &key->id, sealed) : r;
}

int supply_open(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct supply *supply = user;
    _cleanup_(bytes_deinit) struct bytes sealed = {0};
    int r;

    if (supply->last.data && by_id(&supply->last_id, &key->id) == 0) {
        *ret_block = &supply->last;
        return 0;
    }
    r = cache_get(supply->config.cache, &key->id, &sealed);
    if (r == CACHE_E_ABSENT)
        r = open_again(supply, key, &sealed);
    if (r == 0 && !supply->sealer)
        r = sealer_new(&supply->sealer);
    if (r == 0)
        r = open_block(supply->sealer, key, sealed.data, sealed.size, &supply->last);
    if (r != 0) {
        wipe(&supply->last_id, sizeof(supply->last_id));
        bytes_wipe_deinit(&supply->last);
        supply->last = (struct bytes){0};
        if (r > 0 && !*supply->why)
            snprintf(supply->why, sizeof(supply->why),
                     "a block does not open with the key it was named with");
        return r;
    }
    supply->last_id = key->id;
    *ret_block = &supply->last;
    return 0;
}

/* ---- out ---- */

struct put {
    const size_t *which; /* of the vault's missing */
    transfer_source *source;
    void *user;
};

static int put_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct put *put = user;

    return put->source(put->user, put->which[i], out, ret_id);
}

static int run_put(struct supply *supply, struct exchange *exchange)
{
    _cleanup_(freep) bool *missing = calloc(exchange->n, sizeof(*missing));
    _cleanup_(freep) size_t *which = calloc(exchange->n, sizeof(*which));
    struct put put = {.which = which, .source = exchange->source, .user = exchange->user};
    size_t n = 0;
    int r;

    if (!missing || !which)
        return -ENOMEM;
    r = transfer_have(supply->transfer, exchange->ids, exchange->n, missing);
    if (r != 0)
        return r;
    for (size_t i = 0; i < exchange->n; i++)
        if (missing[i])
            which[n++] = i;
    return n > 0 ? transfer_put(supply->transfer, n, exchange->plain, put_source, &put) : 0;
}

int supply_put(struct supply *supply, const struct block_id *ids, size_t n_ids, bool plain,
               transfer_source *source, void *user)
{
    struct exchange exchange = {
        .run = run_put, .ids = ids, .n = n_ids, .plain = plain, .source = source, .user = user};

    return n_ids > 0 ? exchange_run(supply, &exchange) : 0;
}

const char *supply_why(const struct supply *supply)
{
    return supply->why;
}

uint64_t supply_bytes_in(const struct supply *supply)
{
    return supply->bytes_in + (supply->transfer ? transfer_bytes_received(supply->transfer) : 0);
}
