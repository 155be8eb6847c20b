/* journal.h - the durability rule in one place: what leaves, and which records must be durable
 * before it may.
 *
 * Records gather in the open batch; the store takes whole batches, at most JOURNAL_IN_FLIGHT at a
 * time, so that under load one sync covers whatever came while the last one ran. What is said to
 * peers waits in packets, one for each peer and each batch that it waits for, and leaves when that
 * batch is durable: under load one message carries all that one sync has made true for a peer. With
 * no batch open or in flight it leaves at once.
 *
 * Shape:   one journal a broker; journal_full tells when to stop receiving.
 * Owns:    queued messages; memory handed to journal_keep, which lives until its batch was given
 *          to the store (records borrow from it).
 * Errors:  of store.h, forwarded; every one of them ends the process.
 */
#pragma once

#include <broker/store/store.h>
#include <proto/wire.h>

enum {
    JOURNAL_IN_FLIGHT = 2,
    JOURNAL_RECORDS_MAX = 16384,  /* in the open batch: about one sync's worth at 10^6 events/s */
    JOURNAL_MESSAGES_MAX = 16384, /* queued; the largest common one, an ASSIGN, is 17 KiB */
    JOURNAL_CHUNK_BYTES = 256 * 1024,
    JOURNAL_SPARE = 64,           /* empty packets that are kept for what is said next */
};

/* What is known of a message that must be told about when it cannot be sent. */
struct journal_assign {
    struct worker_id worker;
    struct lease_id lease;
};

struct journal;
int journal_new(struct store *store, struct journal **ret_journal);
void journal_free(struct journal *journal);

/* Copies the record, not what it points to. */
int journal_record(struct journal *journal, const struct record *record);
/* Calls `done` on `memory` once the open batch was given to the store (now, if it has no records
 * by then). */
int journal_keep(struct journal *journal, void *memory, void (*done)(void *));
/* Memory that lives until the open batch was given to the store; NULL where there is none. */
void *journal_memory(struct journal *journal, size_t size);
/* Ends one pass of the loop: gives the open batch to the store where one more may be in flight. */
int journal_submit(struct journal *journal);
/* Takes completions; 0, STORE_E_FULL or negative. */
int journal_completed(struct journal *journal);

bool journal_durable(const struct journal *journal, uint64_t mark);
/* How many are durable: so many syncs at most. */
uint64_t journal_batches(const struct journal *journal);
/* The batch that is to be durable before something said now may leave. */
uint64_t journal_mark(const struct journal *journal);
/* Packs it behind what else waits for that peer, so that all of it leaves as one message. `assign`
 * may be NULL. -EMSGSIZE: it is too large, and nothing was queued. */
int journal_say(struct journal *journal, uint64_t mark, const struct link_route *route,
                const Wl__Envelope *envelope, const struct journal_assign *assign);
/* The same of an assignment, but only into a packet that already has one of its job; -EMSGSIZE where
 * there is none, or no room in it. */
int journal_say_more(struct journal *journal, uint64_t mark, const struct link_route *route,
                     const Wl__Envelope *envelope, const struct journal_assign *assign);
void journal_cut(struct journal *journal); /* what is said from now on is in other packets */
/* Sends what may leave, in order for each peer. `unsent` hears what could not go, and why (LINK_E_*
 * or -errno): once with NULL where the message held anything but assignments, then each of those. It
 * may say more. */
typedef void journal_unsent(void *user, const struct link_route *route,
                            const struct journal_assign *assign, int why);
typedef int journal_send(void *user, const struct link_route *route, zmq_msg_t *message);
void journal_flush(struct journal *journal, journal_send *send, journal_unsent *unsent, void *user);
bool journal_full(const struct journal *journal);
bool journal_idle(const struct journal *journal); /* nothing open, in flight or queued */
