/* gateway.h - the broker's edge: bytes of peers to events of the core, effects to bytes.
 *
 * A message is unpacked, its sender's role checked, its tickets verified; then it is an event, or a
 * read answered from the core's views. All that leaves goes through the journal, which holds it
 * until the records ahead of it are durable.
 *
 * Shape:   one thread. The handlers of one kind of peer share a file: gateway_submit.c,
 *          gateway_upload.c, gateway_edit.c, gateway_look.c and gateway_farm.c for studios and
 *          operators, gateway_tend.c for operators alone, gateway_worker.c for workers,
 *          gateway_page.c for what the query thread answers; gateway_hello.c greets, gateway_turns.c has
 *          people wait for their turns, gateway_full.c and gateway_quota.c refuse, gateway_rate.c does not
 *          hear, gateway_retain.c forgets jobs, gateway_record.c follows
 *          records, gateway_effect.c is the way out.
 * Time:    now_ns and wall_s are set by the loop before it calls; nothing here reads a clock.
 * Owns:    what its init made; core, store, vault, query and sockets are the broker's.
 * Errors:  a peer's bad message is a Refusal, counted and logged at most once a second. Want of
 *          memory and errors of the store end the process (gateway_die): a restart loses nothing.
 * Source:  ../README.md "The loop and the durability rule", "Trust".
 */
#pragma once

#include <broker/catalogue.h>
#include <broker/journal.h>
#include <broker/live.h>
#include <broker/roster.h>
#include <broker/query.h>
#include <broker/room.h>
#include <broker/uploads.h>
#include <broker/vault/vault.h>
#include <broker/watch.h>
#include <proto/identity.h>
#include <proto/link_guard.h>
#include <proto/wire.h>

enum {
    GATEWAY_PINS_MAX = 4096, /* submissions and results that wait for the vault */
    GATEWAY_LIVE_ROWS = 64,  /* running tasks one Show or Notice lists */
};
#define GATEWAY_PASS_S       3600          /* a pass is for an hour; then a new one is asked for */
#define GATEWAY_WRITE_BYTES  (64ULL << 30) /* what one lease may put: a large frame sequence */
#define GATEWAY_STUDIO_BYTES (16ULL << 40) /* what one studio's pass may put at most */

/* The message at hand. */
struct ask {
    struct peer *peer;
    struct connection *connection; /* NULL where the answer waited and the connection is gone */
    struct link_route route;
    struct link_seat seat;
    uint64_t request;
    Wl__Envelope *envelope; /* a handler that keeps it takes it */
    const struct worker_key *workers; /* that a Tend names */
    bool inlined; /* a result of which nothing lies in the vault */
};

/* What is still to be said to one worker of its inventory: one message holds what one step decides.
 */
struct verdicts {
    struct worker_id worker;
    size_t n;
    struct lease leases[LIMIT_INVENTORY];
    enum verdict what[LIMIT_INVENTORY];
};

struct counters {
    uint64_t messages, refused, dropped, unsent, forged, unheard;
};

struct gateway_config {
    struct core *core;
    struct journal *journal;
    struct vault *vault;
    struct vault_port *port;
    struct query *query;
    struct store_reader *registry;
    const struct identity_signer *signer;
    void *control;
    struct link_guard *guard; /* of that socket; NULL: none */
    const struct room *room; /* NULL: nothing is refused for want of space */
    const char *bulk;        /* as Welcome says it; "" */
    uint32_t epoch;
    uint32_t fence; /* the first epoch whose leases count */
    uint32_t messages_per_s; /* of one person's key */
    int64_t beat_ns;  /* how often a worker speaks at the least */
    int64_t grace_ns; /* as Pass says it */
};

struct gateway {
    struct gateway_config with;
    int64_t now_ns, wall_s;
    bool unread; /* the journal was full, and the socket has not been read to its end since */
    bool skip;   /* what else is in the message at hand */
    bool full;   /* the store waits for space: see gateway_full.c */
    enum room_level room;
    uint64_t free_bytes;
    struct roster roster;
    struct catalogue catalogue;
    struct live live;
    struct uploads uploads;
    struct watch watch;
    struct outbox outbox;
    struct verdicts verdicts;
    struct list turns;     /* peers of which messages wait */
    struct list forgotten; /* jobs that the vault is to let go of, in order */
    struct ask ask;
    uint64_t cookie; /* of the ask at hand */
    uint64_t mark;   /* the journal's, for what is said now */
    size_t n_pins, n_queries;
    struct tally {
        uint32_t pins, queries;
        struct rate rate;
    } *tallies; /* by studio */
    struct rate strangers, strangers_told; /* keys that were never heard of */
    size_t n_tallies;
    char **studios; /* names by id */
    size_t studios_capacity;
    struct studio_quota {
        uint64_t bytes; /* 0: none */
        int64_t read_ns;
        bool held; /* nothing of it is leased */
    } *quotas;     /* by id */
    size_t n_quotas, n_held;
    int64_t quotas_ns; /* when they were looked at; 0: never */
    uint64_t quotas_version; /* of the registry, when they were read */
    void *scratch; /* freed after each message */
    struct counters counters;
};

/* ---- for the loop ---- */
int gateway_init(struct gateway *gateway, const struct gateway_config *config);
void gateway_deinit(struct gateway *gateway);
/* Recovery: one record, in order. Live records take the same way through gateway_follow. */
int gateway_recover(struct gateway *gateway, const struct record *record);
vault_history gateway_history; /* `user` is a store_reader: what recovery did not read of results */
/* Reads and handles `max` messages and what else came with the last; true where more may wait. */
bool gateway_receive(struct gateway *gateway, size_t max);
void gateway_turns(struct gateway *gateway);    /* some of what people asked for, each in turn */
void gateway_pinned(struct gateway *gateway);   /* completions of the vault */
void gateway_answered(struct gateway *gateway); /* completions of queries */
void gateway_forgotten(struct gateway *gateway); /* what is durably gone goes from the vault */
void gateway_tick(struct gateway *gateway);     /* deadlines of core and watches */
int64_t gateway_deadline_ns(const struct gateway *gateway);
void gateway_flush(struct gateway *gateway);                             /* sends what may leave */
void gateway_disk(struct gateway *gateway, bool full); /* looks at it; `full`: the store waits */
void gateway_quotas(struct gateway *gateway);          /* looks who has used them up */
void gateway_studio(struct gateway *gateway, const struct key_row *row); /* its name and weight */

/* A message as it came, with all that is in it. */
void gateway_handle(struct gateway *gateway, const struct link_key *key,
                    const struct link_route *route, struct link_seat seat, zmq_msg_t *message);
/* True: it is a person's, and was taken over for gateway_turns, or dropped. */
bool gateway_waits(struct gateway *gateway, const struct link_key *key,
                   const struct link_route *route, struct link_seat seat, zmq_msg_t *message);
void gateway_turns_drop(struct gateway *gateway); /* at the end */
void gateway_offence(struct gateway *gateway, struct peer *peer); /* what it said was refused */
bool gateway_offends(const struct gateway *gateway, const struct peer *peer); /* too often */

/* ---- for the handlers ---- */
_noreturn_ void gateway_die(const char *what, int error);
/* Memory until the message at hand is done with, zeroed. */
void *gateway_scratch(struct gateway *gateway, size_t size);
void gateway_scratch_free(struct gateway *gateway);
/* Steps the core; records to the journal, effects to peers. */
void gateway_step(struct gateway *gateway, struct event *event);
void gateway_effect(struct gateway *gateway, const struct effect *effect);
/* Verdicts gather until gateway_verdicts_say, at the latest at the end of the step. */
void gateway_verdict(struct gateway *gateway, struct worker_id worker, const struct lease *lease,
                     enum verdict verdict);
void gateway_verdicts_say(struct gateway *gateway, bool last);
void gateway_follow(struct gateway *gateway, const struct record *record);

/* The roster's peer of a key (see roster_get); one that is no worker's any more is expelled. */
int gateway_known(struct gateway *gateway, const struct link_key *key, bool again,
                  struct peer **ret_peer);
/* Sets the asker of the message at hand; where it may ask nothing, the refusal is queued. */
int gateway_asker(struct gateway *gateway, const struct link_key *key, bool again);
/* Packs and queues. `assign` may be NULL. -EMSGSIZE where it is too large; nothing was queued. */
int gateway_say(struct gateway *gateway, const struct link_route *route,
                const Wl__Envelope *envelope, const struct journal_assign *assign);
/* To the asker, with its request number. */
void gateway_answer(struct gateway *gateway, Wl__Envelope *envelope);
void gateway_refuse(struct gateway *gateway, enum code code, const char *what, const char *why,
                    const char *next);
void gateway_refuse_missing(struct gateway *gateway, const char *what,
                            const struct block_id *absent, size_t n_absent);
/* The job named, if the asker may see it. A foreign id is an unknown one, and only here: NULL, and
 * the refusal is queued. */
struct catalogue_job *gateway_job(struct gateway *gateway, const ProtobufCBinaryData *id,
                                  struct job_view *ret_view);
void gateway_unknown_job(struct gateway *gateway); /* that refusal */
/* Of those jobs that the asker may see: others are not looked at. */
struct catalogue_job *gateway_seen(struct gateway *gateway, const struct job_id *job);

/* Whether one more message of this peer (NULL: nobody known) is heard; what is not is told of here. */
bool gateway_hears(struct gateway *gateway, struct peer *peer);
void gateway_unheard(struct gateway *gateway, struct peer *peer, const struct link_route *route,
                     const void *data, size_t size);
void gateway_lease_paid(struct peer *peer); /* what is to be said of one more lease */
/* Past the journal: what depends on nothing. */
void gateway_say_at_once(struct gateway *gateway, const struct link_route *route,
                         const Wl__Envelope *envelope);

/* The message at hand, while the store waits for space. */
void gateway_while_full(struct gateway *gateway, const struct link_key *key);
/* True where the submission at hand is new and there is no room: it is refused. */
bool gateway_no_room(struct gateway *gateway, const Wl__Submit *submit);
bool gateway_past_quota(struct gateway *gateway, const Wl__Submit *submit);
/* "the studio's quota is used up: ..."; scratch */
const char *gateway_quota_why(struct gateway *gateway, struct studio_id studio);
const char *gateway_disk_note(struct gateway *gateway); /* for operators; "" */

struct lease gateway_lease(const struct lease_id *lease);
struct lease_id gateway_lease_id(const struct lease *lease);
/* False where the lease was not given to this worker by this broker; counted. */
bool gateway_ticket(struct gateway *gateway, const Wl__Lease *message,
                    const ProtobufCBinaryData *ticket, struct lease_id *ret_lease);
/* For a lease of its worker's, or (`lease` NULL) for a studio's own. */
void gateway_pass(struct gateway *gateway, struct studio_id studio, const struct lease_id *lease,
                  const struct link_key *peer, uint64_t write_bytes, uint8_t ret_text[PASS_BYTES],
                  size_t *ret_size);
Wl__Usage *gateway_usage(struct gateway *gateway, const struct usage *usage); /* scratch */

/* To a worker whose hello the core took (or not), on the way out of EVENT_HELLO. */
void gateway_welcome(struct gateway *gateway, const struct effect *effect);

/* The answer to a Tend that the core took. */
void gateway_tended(struct gateway *gateway);

/* What waits for the vault: a submission, an edit or a result, with its asker. */
struct pin {
    struct vault_request request;
    struct link_key key;
    struct link_route route;
    uint64_t asked;
    Wl__Envelope *envelope;
    struct job_spec *spec; /* of a submission */
};
/* What a studio has of what all share: in the queues to the vault and to the query thread, and what
 * it may still say. */
struct tally *gateway_tally(struct gateway *gateway, struct studio_id studio);
/* No studio has more in the queue to the vault than it leaves free for all others. */
bool gateway_pin_room(struct gateway *gateway, struct studio_id studio);
/* How many are to be had from the vault only, so that refs name them and are pinned; `ret_ids` (may
 * be NULL) gets their ids. */
size_t gateway_outside(Wl__BlockRef *const *blocks, size_t n_blocks, struct block_id *ret_ids);
/* Pins the refs of the message at hand, then calls gateway_pin_done; takes the envelope over. */
void gateway_pin(struct gateway *gateway, struct studio_id studio, const ProtobufCBinaryData *refs,
                 size_t n_refs, struct job_spec *spec);
void gateway_pins_drop(struct gateway *gateway); /* at the end: what the vault gave back */
void gateway_submit_go(struct gateway *gateway, struct job_spec *spec);
void gateway_edit_go(struct gateway *gateway);
void gateway_result_go(struct gateway *gateway);
/* Handled, where it is a result of the plain kind (wire_plain) that counts as it stands. */
bool gateway_plain_result(struct gateway *gateway, const struct link_key *key,
                          const struct link_route *route, const struct wire_plain *plain);
void gateway_committed(struct gateway *gateway, const struct link_route *route,
                       const struct lease_id *lease, enum code code, const char *why,
                       const struct block_id *absent, size_t n_absent);

/* Uploads, as those of their studio see them. Each of these has answered where it says true. */
bool gateway_upload_refused(struct gateway *gateway, const Wl__Submit *submit); /* cancelled */
bool gateway_upload_cancel(struct gateway *gateway, const Wl__Verb *verb);
bool gateway_upload_busy(struct gateway *gateway, const ProtobufCBinaryData *id); /* no job yet */
/* Adds rows to the first page of a list; how many bytes they take. */
size_t gateway_upload_rows(struct gateway *gateway, const Wl__JobsRequest *wanted, Wl__Jobs *jobs,
                           size_t limit);

/* Tasks named by a request; list is the caller's to free. */
struct ranges {
    struct task_range *list;
    size_t n, capacity;
};
bool ranges_add(struct ranges *ranges, struct task_range range); /* false: GATEWAY_RANGES_MAX */
/* The tasks of `step` that hold any of these frames, as a person names them; none where the step
 * has no frames. A sentence where they cannot be had. */
const char *ranges_of_frames(struct gateway *gateway, const struct space *space, uint32_t step,
                             Wl__Range *const *frames, size_t n_frames, struct ranges *ranges);
void gateway_digest(struct gateway *gateway, const ProtobufCMessage *message,
                    struct request_digest *ret_digest);
struct studio_id gateway_scope(const struct peer *peer); /* an operator's: 0, any */

/* This job came by this key. */
bool gateway_submitted(const struct catalogue_job *entry, const struct link_key *key);
/* A job goes: from all that follows records; then, in order, from the vault and from watchers. */
void gateway_follow_forget(struct gateway *gateway, const struct record *record);
void gateway_mark_forgotten(struct gateway *gateway);
void gateway_forgotten_drop(struct gateway *gateway);
void gateway_notice_gone(struct gateway *gateway, struct watched *watched);
/* A request that is remembered is the core's to answer, whatever became of its job. */
bool gateway_remembers(struct gateway *gateway, const ProtobufCBinaryData *request);

/* Handlers: the message is gateway->ask. */
void gateway_on_hello(struct gateway *gateway);
void gateway_on_submit(struct gateway *gateway);
void gateway_on_uploading(struct gateway *gateway);
void gateway_on_verb(struct gateway *gateway);
void gateway_on_edit(struct gateway *gateway);
void gateway_on_pass_request(struct gateway *gateway);
void gateway_on_jobs(struct gateway *gateway);
void gateway_on_show(struct gateway *gateway);
void gateway_on_watch(struct gateway *gateway);
void gateway_on_workers(struct gateway *gateway);
void gateway_on_farm(struct gateway *gateway);
void gateway_on_delivered(struct gateway *gateway);
void gateway_on_live_log(struct gateway *gateway);
void gateway_on_tend(struct gateway *gateway);
void gateway_on_results(struct gateway *gateway);
void gateway_on_attempts(struct gateway *gateway);
void gateway_on_inventory(struct gateway *gateway);
void gateway_on_beat(struct gateway *gateway);
void gateway_on_started(struct gateway *gateway);
void gateway_on_progress(struct gateway *gateway);
void gateway_on_result(struct gateway *gateway);
void gateway_on_released(struct gateway *gateway);
void gateway_on_dependencies(struct gateway *gateway);
void gateway_on_worker_pass(struct gateway *gateway);
void gateway_notices(struct gateway *gateway); /* of jobs that changed and are due */
