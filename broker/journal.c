/* journal.c - batches are numbered 1, 2, 3, ...; three numbers say it all: the batch that is open,
 * the newest given to the store, and the newest that is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <proto/base/check.h>
#include <proto/base/crash.h>
#include <proto/base/list.h>
#include <broker/journal.h>

struct kept {
    void *memory;
    void (*done)(void *);
};

struct said {
    struct list node;
    uint64_t mark;
    struct link_route route;
    zmq_msg_t message;
    bool has_assign;
    struct journal_assign assign;
};

struct journal {
    struct store *store;
    uint64_t open; /* the number the open batch will have */
    uint64_t durable;
    struct record *records;
    size_t n_records, records_capacity;
    struct kept *kept;
    size_t n_kept, kept_capacity;
    struct list said;
    size_t n_said;
};

int journal_new(struct store *store, struct journal **ret_journal)
{
    struct journal *journal = calloc(1, sizeof *journal);

    if (!journal)
        return -ENOMEM;
    journal->store = store;
    journal->open = 1;
    list_init(&journal->said);
    *ret_journal = journal;
    return 0;
}

static void release_kept(struct journal *journal)
{
    for (size_t i = 0; i < journal->n_kept; i++)
        journal->kept[i].done(journal->kept[i].memory);
    journal->n_kept = 0;
}

static void said_free(struct journal *journal, struct said *said)
{
    list_unlink(&said->node);
    journal->n_said--;
    zmq_msg_close(&said->message);
    free(said);
}

void journal_free(struct journal *journal)
{
    if (!journal)
        return;
    release_kept(journal);
    list_for_each_safe (at, after, &journal->said)
        said_free(journal, list_entry(at, struct said, node));
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

uint64_t journal_mark(const struct journal *journal)
{
    return journal->n_records > 0 ? journal->open : journal->open - 1;
}

bool journal_durable(const struct journal *journal, uint64_t mark)
{
    return mark <= journal->durable;
}

int journal_say(struct journal *journal, uint64_t mark, const struct link_route *route,
                zmq_msg_t *message, const struct journal_assign *assign)
{
    struct said *said = calloc(1, sizeof *said);

    if (!said)
        return -ENOMEM;
    said->mark = mark;
    said->route = *route;
    zmq_msg_init(&said->message);
    zmq_msg_move(&said->message, message);
    zmq_msg_close(message);
    if (assign) {
        said->has_assign = true;
        said->assign = *assign;
    }
    list_push(&journal->said, &said->node);
    journal->n_said++;
    return 0;
}

void journal_flush(struct journal *journal, journal_send *send, journal_unsent *unsent, void *user)
{
    while (!list_empty(&journal->said)) {
        struct said *said = list_entry(journal->said.next, struct said, node);
        int r;

        if (said->mark > journal->durable)
            return;
        crash_point("journal.send");
        r = send(user, &said->route, &said->message);
        crash_point("journal.sent");
        if (r != 0) {
            unsent(user, &said->route, said->has_assign ? &said->assign : NULL, r);
        } else {
            /* link_send took it over; an empty message may be closed again. */
            zmq_msg_init(&said->message);
        }
        said_free(journal, said);
    }
}

bool journal_full(const struct journal *journal)
{
    return journal->n_records >= JOURNAL_RECORDS_MAX || journal->n_said >= JOURNAL_MESSAGES_MAX;
}

bool journal_idle(const struct journal *journal)
{
    return journal->n_records == 0 && journal->durable == journal->open - 1 &&
           list_empty(&journal->said);
}
