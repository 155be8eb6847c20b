/* bulk_inner.h - the bulk thread's state, and what it says to peers; private to bulk*.c.
 *
 * Answers: sent at once, or kept for a peer whose queue at libzmq is full and tried again. A peer
 *          that left, or that keeps too much waiting, is forgotten: hold a count of it (peer_ref)
 *          around these calls.
 * Threads: all of it belongs to the bulk thread, except what is atomic, and bulk_wake.
 */
#pragma once

#include <pthread.h>
#include <broker/bulk_peer.h>
#include <proto/link_guard.h>
#include <proto/state.h>

struct bulk {
    struct bulk_config config;
    char endpoint[128];
    void *context, *socket;
    struct link_guard *guard;
    struct link_zap *zap;
    struct vault_port *port;
    pthread_t thread;
    bool runs;
    int wake_fd;
    atomic_bool stopping;

    struct peers peers;
    struct list turns, blocked;
    size_t in_bytes;         /* of puts and haves at the vault */
    atomic_size_t out_bytes; /* of blocks read, until libzmq lets go of them */
    size_t n_tasks, n_gets;
    int64_t now_ns, expired_ns;
};

/* A request at the vault. */
struct task {
    struct vault_request vault;
    struct peer *peer;
    uint64_t request;
    struct block_id id;
    struct grant *grant; /* a put's, to be compared with its peer's: it may be gone */
    size_t bytes;        /* counted in in_bytes or out_bytes meanwhile */
};

void bulk_turn(struct bulk *bulk); /* once around its loop, without waiting */
void bulk_wake(struct bulk *bulk);
/* Takes over `data`, which may be NULL. */
void bulk_answer(struct bulk *bulk, struct peer *peer, const Wl__Bulk *message, zmq_msg_t *data);
void bulk_fault(struct bulk *bulk, struct peer *peer, uint64_t request, const struct block_id *id,
                enum code code, const char *why, const char *next);
void bulk_no_memory(struct bulk *bulk, struct peer *peer, uint64_t request);
/* Stored, Missing, Block or Fault, as the vault's completion says. */
void bulk_answer_task(struct bulk *bulk, struct task *task);
/* What was kept for peers whose queue was full. */
void bulk_flush(struct bulk *bulk);
