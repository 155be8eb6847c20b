/* gateway_tend.c - what operators do to workers, named as a person names them.
 *
 * Names lie in the registry, so that a worker that is away, or was never here, can be drained too;
 * one walk over it answers for all that a request names. Either all are clear, or nothing is done.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <broker/gateway.h>
#include <broker/words.h>

/* So that a prefix is not right by chance. */
enum { KEY_PREFIX_MIN = 4 };

struct found {
    struct worker_key named, begun; /* the last one of that name; whose key begins so */
    unsigned n_named, n_begun;
};

struct search {
    struct gateway *gateway;
    const Wl__Tend *wanted;
    struct found *found;
};

/* As lists show it: the registered name, else what the worker calls itself. */
static const char *name_of(struct gateway *gateway, const struct key_row *row)
{
    struct worker_view view;
    const struct peer *peer = NULL;

    if (row->name[0])
        return row->name;
    if (core_worker_by_key(gateway->with.core, &row->key, &view))
        peer = roster_worker(&gateway->roster, view.worker);
    return peer && peer->hello ? peer->hello->hello->offer->name : "";
}

static int search_row(void *user, const struct key_row *row)
{
    struct search *search = user;
    struct link_key key;
    char text[64];

    if (row->role != ROLE_WORKER)
        return 0;
    memcpy(key.bytes, row->key.bytes, sizeof key.bytes);
    identity_key_text(&key, text);
    for (size_t i = 0; i < search->wanted->n_workers; i++) {
        const char *wanted = search->wanted->workers[i];
        struct found *found = &search->found[i];
        size_t size = strlen(wanted);

        if (size > 0 && strcmp(name_of(search->gateway, row), wanted) == 0) {
            found->named = row->key;
            found->n_named++;
        } else if (size >= KEY_PREFIX_MIN && strncmp(text, wanted, size) == 0) {
            found->begun = row->key;
            found->n_begun++;
        }
    }
    return 0;
}

/* The number of a row, as `westlight workers --json` has it. */
static bool by_number(struct gateway *gateway, const char *text, struct worker_key *ret_key)
{
    char *end = NULL;
    unsigned long number = strtoul(text, &end, 10);
    struct worker_view view;

    if (text[0] < '1' || text[0] > '9' || *end || number > LIMIT_WORKERS ||
        !core_worker(gateway->with.core, (struct worker_id){(uint32_t)number - 1}, &view))
        return false;
    *ret_key = view.key;
    return true;
}

static bool settle(struct gateway *gateway, const char *wanted, const struct found *found,
                   struct worker_key *ret_key)
{
    char what[LIMIT_NAME_BYTES + 16];

    if (found->n_named == 1) {
        *ret_key = found->named;
        return true;
    }
    if (found->n_named == 0 && by_number(gateway, wanted, ret_key))
        return true;
    if (found->n_named == 0 && found->n_begun == 1) {
        *ret_key = found->begun;
        return true;
    }
    snprintf(what, sizeof what, "the worker %s", wanted);
    if (found->n_named > 1)
        gateway_refuse(gateway, CODE_INVALID, what, "several workers have this name",
                       "name it by the first characters of its key (westlight workers --json)");
    else if (found->n_begun > 1)
        gateway_refuse(gateway, CODE_INVALID, what, "the keys of several workers begin so",
                       "give more of its key (westlight workers --json)");
    else
        gateway_refuse(gateway, CODE_UNKNOWN, what, "there is no such worker",
                       "westlight workers lists them; a name, or 4 characters of a key");
    return false;
}

static const struct worker_key *workers_named(struct gateway *gateway, const Wl__Tend *wanted)
{
    struct worker_key *keys = gateway_scratch(gateway, wanted->n_workers * sizeof *keys);
    struct search search = {.gateway = gateway,
                            .wanted = wanted,
                            .found =
                                gateway_scratch(gateway, wanted->n_workers * sizeof *search.found)};
    int r = store_keys(gateway->with.registry, search_row, &search);

    if (r != 0) {
        gateway_refuse(gateway, CODE_INTERNAL, "the workers", "the registry cannot be read",
                       "try again; the reason is in the broker's log");
        return NULL;
    }
    for (size_t i = 0; i < wanted->n_workers; i++)
        if (!settle(gateway, wanted->workers[i], &search.found[i], &keys[i]))
            return NULL;
    return keys;
}

static const char *tend_why(const Wl__Tend *wanted)
{
    if (wanted->kind <= WL__TEND_KIND__TEND_NONE || wanted->kind > WL__TEND_KIND__TEND_POOL)
        return "it asks for nothing that can be done";
    if (wanted->n_workers == 0)
        return "it names no worker";
    if (wanted->kind == WL__TEND_KIND__TEND_POOL && strlen(wanted->text) > LIMIT_NAME_BYTES)
        return "the pool's name is too long";
    return NULL;
}

static void envelope_free(void *envelope)
{
    wire_free(envelope);
}

void gateway_on_tend(struct gateway *gateway)
{
    struct ask *ask = &gateway->ask;
    const Wl__Tend *wanted = ask->envelope->tend;
    const char *why = tend_why(wanted);
    bool texted = wanted->kind == WL__TEND_KIND__TEND_NOTE ||
                  wanted->kind == WL__TEND_KIND__TEND_POOL || wanted->with_note;
    struct event event = {.kind = EVENT_TEND};

    if (why) {
        gateway_refuse(gateway, CODE_INVALID, "the request", why, "see westlight help workers");
        return;
    }
    ask->workers = workers_named(gateway, wanted);
    if (!ask->workers)
        return;
    event.tend.tend = (enum tend_kind)wanted->kind;
    event.tend.workers = ask->workers;
    event.tend.n_workers = wanted->n_workers;
    event.tend.text = texted ? wanted->text : NULL;
    memcpy(event.tend.request.bytes, wanted->request_id.data, sizeof event.tend.request.bytes);
    gateway_digest(gateway, &wanted->base, &event.tend.digest);
    gateway_step(gateway, &event);
    /* The records borrow its text. */
    if (journal_keep(gateway->with.journal, TAKE_PTR(ask->envelope), envelope_free) < 0)
        gateway_die("memory", -ENOMEM);
}

void gateway_tended(struct gateway *gateway)
{
    const struct ask *ask = &gateway->ask;
    size_t n = ask->envelope->tend->n_workers;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Tended tended = WL__TENDED__INIT;
    Wl__TendedRow *rows = gateway_scratch(gateway, n * sizeof *rows);

    tended.rows = gateway_scratch(gateway, n * sizeof *tended.rows);
    for (size_t i = 0; i < n; i++) {
        struct peer *peer = NULL;
        struct worker_view view;
        struct link_key key;

        if (!core_worker_by_key(gateway->with.core, &ask->workers[i], &view))
            continue;
        memcpy(key.bytes, view.key.bytes, sizeof key.bytes);
        wl__tended_row__init(&rows[i]);
        (void)roster_get(&gateway->roster, &key, gateway->now_ns, false, &peer);
        if (peer)
            rows[i].name = (char *)roster_name(peer, gateway_scratch(gateway, 64));
        rows[i].key =
            (ProtobufCBinaryData){sizeof ask->workers[i].bytes, (uint8_t *)ask->workers[i].bytes};
        rows[i].state = (char *)words_worker(&view);
        rows[i].running = view.running;
        tended.rows[tended.n_rows++] = &rows[i];
    }
    envelope.body_case = WL__ENVELOPE__BODY_TENDED;
    envelope.tended = &tended;
    gateway_answer(gateway, &envelope);
}
