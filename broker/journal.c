/* journal.c - batches are numbered 1, 2, 3, ...; three numbers say it all: the batch that is open,
 * the newest given to the store, and the newest that is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>
#include <proto/base/list.h>
#include <broker/journal.h>
#include <broker/map.h>

struct kept {
    void *memory;
    void (*done)(void *);
};

/* What waits for one peer, and for one batch. */
struct parcel {
    struct list node;       /* of journal.parcels, or of the spare ones */
    struct map_node newest; /* in journal.open_parcels: more may be added */
    struct link_route route;
    uint64_t mark;
    struct wire_packet packet;
    struct journal_assign *assigns;
    size_t n_assigns, assigns_capacity;
};

/* What the records of the open batch point to, one after another. */
struct chunk {
    struct chunk *next;
    size_t used, size;
    max_align_t memory[];
};

struct journal {
    struct store *store;
    uint64_t open; /* the number the open batch will have */
    uint64_t durable;
    struct record *records;
    size_t n_records, records_capacity;
    struct kept *kept;
    size_t n_kept, kept_capacity;
    struct chunk *chunks; /* the one that is filled first */
    struct list parcels;  /* in order of their marks */
    struct map newest;    /* of each route that has any */
    struct parcel *last;  /* what was said last went into it; NULL: it is closed */
    struct list spare;
    size_t n_spare;
    size_t n_said; /* messages in all parcels */
};

int journal_new(struct store *store, struct journal **ret_journal)
{
    struct journal *journal = calloc(1, sizeof *journal);

    if (!journal)
        return -ENOMEM;
    journal->store = store;
    journal->open = 1;
    list_init(&journal->parcels);
    list_init(&journal->spare);
    if (map_init(&journal->newest) < 0) {
        free(journal);
        return -ENOMEM;
    }
    *ret_journal = journal;
    return 0;
}

/* One stays, so that a batch like the last needs no other. */
static void chunks_release(struct journal *journal, bool all)
{
    while (journal->chunks && (all || journal->chunks->next)) {
        struct chunk *next = journal->chunks->next;

        free(journal->chunks);
        journal->chunks = next;
    }
    if (journal->chunks)
        journal->chunks->used = 0;
}

static void release_kept(struct journal *journal)
{
    chunks_release(journal, false);
    for (size_t i = 0; i < journal->n_kept; i++)
        journal->kept[i].done(journal->kept[i].memory);
    journal->n_kept = 0;
}

static void parcel_free(struct parcel *parcel)
{
    wire_packet_deinit(&parcel->packet);
    free(parcel->assigns);
    free(parcel);
}

void journal_free(struct journal *journal)
{
    if (!journal)
        return;
    release_kept(journal);
    chunks_release(journal, true);
    list_for_each_safe (at, after, &journal->parcels)
        parcel_free(list_entry(at, struct parcel, node));
    list_for_each_safe (at, after, &journal->spare)
        parcel_free(list_entry(at, struct parcel, node));
    map_deinit(&journal->newest);
    free(journal->records);
    free(journal->kept);
    free(journal);
}

static int grow(void **array, size_t *capacity, size_t n, size_t element)
{
    size_t larger = *capacity ? *capacity * 2 : 64;
    void *moved;

    if (n < *capacity)
        return 0;
    moved = reallocarray(*array, larger, element);
    if (!moved)
        return -ENOMEM;
    *array = moved;
    *capacity = larger;
    return 0;
}

int journal_record(struct journal *journal, const struct record *record)
{
    void *array = journal->records;
    int r = grow(&array, &journal->records_capacity, journal->n_records, sizeof *record);

    if (r < 0)
        return r;
    journal->records = array;
    journal->records[journal->n_records++] = *record;
    return 0;
}

int journal_keep(struct journal *journal, void *memory, void (*done)(void *))
{
    void *array = journal->kept;
    int r = grow(&array, &journal->kept_capacity, journal->n_kept, sizeof *journal->kept);

    if (r < 0)
        return r;
    journal->kept = array;
    journal->kept[journal->n_kept++] = (struct kept){memory, done};
    return 0;
}

void *journal_memory(struct journal *journal, size_t size)
{
    size_t rounded = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    struct chunk *chunk = journal->chunks;
    void *memory;

    if (!chunk || rounded > chunk->size - chunk->used) {
        size_t larger = rounded > JOURNAL_CHUNK_BYTES ? rounded : JOURNAL_CHUNK_BYTES;

        chunk = malloc(sizeof *chunk + larger);
        if (!chunk)
            return NULL;
        *chunk = (struct chunk){.next = journal->chunks, .size = larger};
        journal->chunks = chunk;
    }
    memory = (char *)chunk->memory + chunk->used;
    chunk->used += rounded;
    return memory;
}

int journal_submit(struct journal *journal)
{
    int r;

    if (journal->n_records == 0) {
        release_kept(journal);
        return 0;
    }
    if (journal->open - 1 - journal->durable >= JOURNAL_IN_FLIGHT)
        return 0;

    crash_point("journal.submit");
    r = store_submit(journal->store, journal->open, journal->records, journal->n_records);
    crash_point("journal.submitted");
    if (r != 0)
        return r;
    journal->open++;
    journal->n_records = 0;
    release_kept(journal);
    return 0;
}

int journal_completed(struct journal *journal)
{
    uint64_t batch = journal->durable;
    int r = store_completed(journal->store, &batch);

    if (r != 0)
        return r;
    CHECK(batch >= journal->durable && batch < journal->open);
    journal->durable = batch;
    return 0;
}

uint64_t journal_batches(const struct journal *journal)
{
    return journal->durable;
}

uint64_t journal_mark(const struct journal *journal)
{
    return journal->n_records > 0 ? journal->open : journal->open - 1;
}

bool journal_durable(const struct journal *journal, uint64_t mark)
{
    return mark <= journal->durable;
}

/* ---- what is said ---- */

static bool is_route(const struct map_node *node, const void *key)
{
    const struct parcel *parcel = map_entry(node, struct parcel, newest);
    const struct link_route *route = key;

    return parcel->route.size == route->size &&
           memcmp(parcel->route.bytes, route->bytes, route->size) == 0;
}

/* No more is added to it. */
static void parcel_close(struct journal *journal, struct parcel *parcel)
{
    if (list_empty(&parcel->newest.node))
        return;
    if (journal->last == parcel)
        journal->last = NULL;
    map_remove(&journal->newest, &parcel->newest);
}

static void parcel_done(struct journal *journal, struct parcel *parcel)
{
    parcel_close(journal, parcel);
    list_unlink(&parcel->node);
    if (journal->n_spare == JOURNAL_SPARE) {
        parcel_free(parcel);
        return;
    }
    wire_packet_clear(&parcel->packet);
    parcel->n_assigns = 0;
    list_push(&journal->spare, &parcel->node);
    journal->n_spare++;
}

static struct parcel *parcel_new(struct journal *journal, uint64_t mark,
                                 const struct link_route *route)
{
    struct parcel *parcel;

    if (journal->n_spare > 0) {
        parcel = list_entry(journal->spare.next, struct parcel, node);
        list_unlink(&parcel->node);
        journal->n_spare--;
    } else {
        parcel = calloc(1, sizeof *parcel);
        if (!parcel)
            return NULL;
    }
    parcel->mark = mark;
    parcel->route = *route;
    list_push(&journal->parcels, &parcel->node);
    map_insert(&journal->newest, map_hash(&journal->newest, route->bytes, route->size),
               &parcel->newest);
    return parcel;
}

static int parcel_add(struct parcel *parcel, const Wl__Envelope *envelope,
                      const struct journal_assign *assign)
{
    void *array = parcel->assigns;
    int r = grow(&array, &parcel->assigns_capacity, parcel->n_assigns, sizeof *parcel->assigns);

    parcel->assigns = array;
    if (r == 0)
        r = wire_packet_add(&parcel->packet, envelope);
    if (r == 0 && assign)
        parcel->assigns[parcel->n_assigns++] = *assign;
    return r;
}

static struct parcel *parcel_find(struct journal *journal, const struct link_route *route)
{
    struct map_node *node;

    if (journal->last && is_route(&journal->last->newest, route))
        return journal->last;
    node = map_find(&journal->newest, map_hash(&journal->newest, route->bytes, route->size),
                    is_route, route);
    return node ? map_entry(node, struct parcel, newest) : NULL;
}

int journal_say(struct journal *journal, uint64_t mark, const struct link_route *route,
                const Wl__Envelope *envelope, const struct journal_assign *assign)
{
    struct parcel *parcel = parcel_find(journal, route);
    int r = parcel && parcel->mark == mark ? parcel_add(parcel, envelope, assign) : -EMSGSIZE;

    if (r == -EMSGSIZE) { /* another one */
        if (parcel)
            parcel_close(journal, parcel);
        parcel = parcel_new(journal, mark, route);
        if (!parcel)
            return -ENOMEM;
        r = parcel_add(parcel, envelope, assign);
        if (r != 0)
            parcel_done(journal, parcel);
    }
    if (r == 0) {
        journal->n_said++;
        journal->last = parcel;
    }
    return r;
}

int journal_say_more(struct journal *journal, uint64_t mark, const struct link_route *route,
                     const Wl__Envelope *envelope, const struct journal_assign *assign)
{
    struct parcel *parcel = parcel_find(journal, route);
    int r;

    if (!parcel || parcel->mark != mark || parcel->n_assigns == 0 ||
        memcmp(&parcel->assigns[parcel->n_assigns - 1].lease.job, &assign->lease.job,
               sizeof assign->lease.job) != 0)
        return -EMSGSIZE;
    r = parcel_add(parcel, envelope, assign);
    if (r == 0)
        journal->n_said++;
    return r;
}

void journal_cut(struct journal *journal)
{
    list_for_each (at, &journal->parcels)
        parcel_close(journal, list_entry(at, struct parcel, node));
}

static void tell_unsent(struct parcel *parcel, size_t n, journal_unsent *unsent, void *user,
                        int why)
{
    if (n > parcel->n_assigns)
        unsent(user, &parcel->route, NULL, why);
    for (size_t i = 0; i < parcel->n_assigns; i++)
        unsent(user, &parcel->route, &parcel->assigns[i], why);
}

void journal_flush(struct journal *journal, journal_send *send, journal_unsent *unsent, void *user)
{
    while (!list_empty(&journal->parcels)) {
        struct parcel *parcel = list_entry(journal->parcels.next, struct parcel, node);
        size_t n = parcel->packet.n;
        zmq_msg_t message;
        int r;

        if (parcel->mark > journal->durable)
            return;
        parcel_close(journal, parcel);
        r = wire_packet_message(&parcel->packet, &message);
        if (r == 0) {
            crash_point("journal.send");
            r = send(user, &parcel->route, &message);
            crash_point("journal.sent");
            if (r != 0)
                zmq_msg_close(&message);
        }
        journal->n_said -= n;
        if (r != 0)
            tell_unsent(parcel, n, unsent, user, r);
        parcel_done(journal, parcel);
    }
}

bool journal_full(const struct journal *journal)
{
    return journal->n_records >= JOURNAL_RECORDS_MAX || journal->n_said >= JOURNAL_MESSAGES_MAX;
}

bool journal_idle(const struct journal *journal)
{
    return journal->n_records == 0 && journal->durable == journal->open - 1 &&
           list_empty(&journal->parcels);
}
