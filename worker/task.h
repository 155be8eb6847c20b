/* task.h - one lease, from its assignment to the acknowledgement of its result.
 *
 *   STAGING --go--> STARTING --> RUNNING --> COLLECTING --> HELD --committed--> GONE
 *      |                                         ^            ^
 *      +-- cannot be run -------------------------+            +-- from the spool, after a restart
 *      +-- taken back, dropped --> GONE (from anywhere)
 *
 * A task that ends without a committed result is handed back: the broker never waits for nothing.
 *
 * Threads: each task has one, which does the work and blocks, and then waits for another; one that
 *          waits for the broker alone has none (parked.c). The agent has another, which alone talks
 *          to the broker. They meet in struct task, under the board's lock: a task says what
 *          it has (started, progress, text, a need, a result) and pokes the agent; the agent sets
 *          what it was told (go, stop, answer, acknowledgement) and wakes the tasks. Nothing is
 *          queued, so a lost link loses nothing: what was not said yet is said on the next one.
 * Owns:    struct task owns all it points to but the board.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <proto/base/list.h>
#include <proto/wire.h>
#include <worker/cache.h>
#include <worker/probe.h>
#include <worker/spool.h>

#define TASK_SEALERS 64

struct task;

struct task_board {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for tasks that wait for `bulk` */
    int wake_fd;            /* for the agent: an eventfd */
    atomic_bool closing;    /* the worker ends: no result is made any more */
    bool joined;            /* the broker is there and has our list */
    struct list tasks;      /* the agent adds and removes them, under the lock */
    bool gathering;         /* the agent looks for results by itself, in a moment */
    char bulk[256];         /* endpoint; "" until the broker said it */

    const char *state; /* folder */
    uint64_t reserve_bytes; /* of its disk: see room.h */
    atomic_bool no_room;
    const struct probe *probe;
    const char *inspector; /* program; NULL: none of its own, see inspect.h */
    struct cache *cache;
    void *bulk_context;
    struct link_key server;
    const struct link_keypair *keys;
    uint64_t spool_next, session_next;
    struct list runners; /* threads without a task */
    size_t n_runners;    /* with those that have one */
    size_t ready;        /* threads and folders that are there before a task is: one a slot */
    atomic_bool making_folders;
    struct reuse *sessions, *spools; /* folders; NULL: none is used again */
    struct sealer *sealers[TASK_SEALERS]; /* made, and not in use: to make one takes longer than a block */
    size_t n_sealers;
};

void task_board_poke(struct task_board *board); /* the agent */
int task_board_sealer(struct task_board *board, struct sealer **ret_sealer);
void task_board_sealer_back(struct task_board *board, struct sealer *sealer); /* NULL is fine */
/* On a thread of its own, which is used again; -EAGAIN, -ENOMEM. */
int task_board_run(struct task_board *board, void (*run)(struct task *task), struct task *task);
/* A session's folder: one that the same step has left, with what is known of it, or an empty one,
 * which need not be there. */
int task_board_folder(struct task_board *board, const uint8_t key[REUSE_KEY_BYTES],
                      char **ret_folder, struct still **ret_still);
/* Makes empty ones, until there are enough. */
void task_board_folders(struct task_board *board);
/* Removes those that steps have left. */
void task_board_folders_rest(struct task_board *board);
/* Ends the threads that wait for a task, but those kept ready; with `all`, these and those that are
 * about to wait, too. Frees the contexts that nobody uses. */
void task_board_rest(struct task_board *board, bool all);
void task_board_deinit(struct task_board *board); /* what it keeps for tasks */

enum task_phase {
    PHASE_STAGING,
    PHASE_STARTING,
    PHASE_RUNNING,
    PHASE_COLLECTING,
    PHASE_HELD,
    PHASE_GONE
};
enum task_need { NEED_NOTHING, NEED_PASS, NEED_DEPENDENCIES };
enum task_acknowledged { ACK_NONE, ACK_COMMITTED, ACK_MISSING, ACK_REFUSED };

struct task {
    struct list node;
    struct task_board *board;
    struct lease lease;
    uint8_t ticket[64];
    size_t ticket_size;
    uint64_t behind; /* attempt; 0: nothing */
    uint32_t behind_epoch;
    uint32_t gpu_mask;
    uint8_t key_out[32];
    Wl__Envelope *assign; /* NULL: from the spool */
    int64_t started_due_ns; /* monotonic: from when on its start is told, if its result is not */
    int64_t started_wall_s; /* its thread's; 0: it did not begin */
    int64_t ended_ns;       /* since when nothing of it runs */
    int64_t free_ns;        /* the same of the one it waited for; 0: of none */
    pthread_cond_t wake; /* of its own: there may be thousands of others */

    /* under the board's lock */
    enum task_phase phase;
    bool go, drop, cancelled, taken, started;
    char why[LIMIT_MESSAGE_BYTES]; /* of a revocation, a refusal, or being handed back */
    uint32_t permille;
    char status[LIMIT_MESSAGE_BYTES];
    bool progress_due;
    struct bytes text; /* output not yet sent */
    enum task_need need;
    uint64_t need_after;
    uint64_t need_request; /* 0: not yet asked */
    Wl__Envelope *answer;
    struct spool spool;
    bool deliverable; /* its blocks are in the vault */
    bool parked;      /* it waits for the answer, without a thread */
    struct task *next_parked; /* that one thread ends with it */
    enum task_acknowledged acknowledged;
    atomic_bool stop; /* set under the lock, read anywhere */

    /* the agent's alone */
    bool may_send, started_sent, result_sent, released_sent, released_heard;
    bool no_room; /* why it is handed back */
    int64_t progress_ns, result_due_ns;
    uint64_t text_number;
};

/* Takes over `assign` (an Assign that wire_unpack has checked) on 0. The thread starts at once;
 * where none can, the task is GONE and handed back. */
int task_new(struct task_board *board, Wl__Envelope *assign, struct task **ret_task);
/* Takes over the spool. */
int task_new_held(struct task_board *board, struct spool *spool, struct task **ret_task);
bool task_follows(const struct task *task, const struct task *other); /* is behind it */
/* Waits for what `other` waited for; under the lock. */
void task_take_place(struct task *task, const struct task *other);
/* It renders no longer: who is behind it starts. Under the lock. */
void task_pass_on(const struct task *task);
/* Its thread looks again at what it waits for; under the lock, or by who frees it. */
void task_wake(struct task *task);
/* Waits until it is GONE: it is, or it was stopped. */
void task_free(struct task *task);
/* Delivers the result that it holds until the broker has committed it; then it is GONE. */
void task_finish(struct task *task);

/* ---- parked.c ---- */

/* From here on the task needs no thread, and its own touches it no more; false: it does. */
bool task_park(struct task *task);
/* Finishes those that were answered, or stopped. */
void task_unpark(struct task_board *board);

/* ---- for result.c and deliver.c, on the task's thread ---- */

/* After an error: true where it was of memory or open files, of which there may be more now, a
 * second later, and the task is not stopped. */
bool task_wait_for_more(struct task *task, int r);

struct supply;
int task_supply(struct task *task, struct supply **ret_supply);
