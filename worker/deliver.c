/* deliver.c - see deliver.h.
 *
 * The board's lock is the agent's: nothing that may take long on a disk is done under it, or beats
 * stop and every lease lapses.
 */
#include <worker/deliver.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <worker/result.h>
#include <worker/supply.h>
#include <proto/base/crash.h>

#define DELIVERIES_MAX 5

struct delivery {
    const struct spool *spool;
    const struct block_id *ids;
    bool plain;
};

static int delivery_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct delivery *delivery = user;
    struct block_id found;
    int r = spool_get(delivery->spool, &delivery->ids[i], delivery->plain, out);

    if (r < 0)
        return r;
    digest(out->data, out->size, &found);
    if (memcmp(&found, &delivery->ids[i], sizeof(found)) != 0)
        return -EBADMSG;
    *ret_id = found;
    return 0;
}

/* Data first, then the refs blocks that name it. */
static int deliver_blocks(struct task *task, struct supply *supply)
{
    if (task->spool.result->n_refs == 0)
        return 0;
    for (int plain = 0; plain < 2; plain++) {
        _cleanup_(freep) struct block_id *ids = NULL;
        struct delivery delivery = {.spool = &task->spool, .plain = plain};
        size_t n = 0;
        int r;

        do
            r = spool_blocks(&task->spool, plain, &ids, &n);
        while (task_wait_for_more(task, r));
        delivery.ids = ids;
        if (r == 0)
            r = supply_put(supply, ids, n, plain, delivery_source, &delivery);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Waits until the broker has answered the result; ACK_NONE where the worker ends or drops it. */
static enum task_acknowledged wait_acknowledged(struct task *task)
{
    struct task_board *board = task->board;
    enum task_acknowledged acknowledged;

    pthread_mutex_lock(&board->lock);
    if (!task->deliverable) { /* it was parked, and has its answer */
        task->acknowledged = ACK_NONE;
        task->deliverable = true;
        if (!board->gathering)
            task_board_poke(board);
    }
    while (task->acknowledged == ACK_NONE && !task->drop && !atomic_load(&board->closing))
        pthread_cond_wait(&task->wake, &board->lock);
    acknowledged = task->acknowledged;
    task->deliverable = false;
    pthread_mutex_unlock(&board->lock);
    return acknowledged;
}

/* A result that cannot be sent as it is becomes a failure that says so. False: nobody wants it. */
static bool give_up(struct task *task, const char *why)
{
    bool wanted, cancelled;
    char message[LIMIT_MESSAGE_BYTES];

    pthread_mutex_lock(&task->board->lock);
    wanted = !task->drop && !atomic_load(&task->board->closing);
    cancelled = task->cancelled;
    atomic_store(&task->stop, !wanted);
    pthread_mutex_unlock(&task->board->lock);
    if (!wanted || (task->spool.result->n_refs == 0 && task->spool.result->class_ != CLASS_OK))
        return false; /* there is nothing smaller to say */
    snprintf(message, sizeof(message), "%s%s",
             cancelled ? "cancelled" : "its output could not be sent: ", cancelled ? "" : why);
    return result_fail(task, cancelled ? CLASS_CANCELLED : CLASS_TRANSFER, message) == 0;
}

bool deliver_result(struct task *task)
{
    _cleanup_(supply_freep) struct supply *supply = NULL;
    enum task_acknowledged acknowledged = ACK_NONE;
    struct spool over = {0};
    int r;

    do
        r = task_supply(task, &supply);
    while (task_wait_for_more(task, r));
    for (int round = 0; r == 0 && acknowledged != ACK_COMMITTED; round++) {
        const char *why = "the vault keeps missing its blocks";

        crash_point("deliver.blocks");
        r = deliver_blocks(task, supply);
        crash_point("deliver.blocks.sent");
        supply_rest(supply);
        if (r == 0)
            acknowledged = wait_acknowledged(task);
        if (r == 0 && (acknowledged == ACK_COMMITTED ||
                       (acknowledged == ACK_MISSING && round < DELIVERIES_MAX)))
            continue;
        if (r == 0 && acknowledged == ACK_REFUSED)
            why = task->why;
        else if (r != 0)
            why = *supply_why(supply) ? supply_why(supply) : strerror(-r);
        if (!give_up(task, why))
            break;
        r = 0;
    }
    pthread_mutex_lock(&task->board->lock);
    if (acknowledged == ACK_COMMITTED || task->drop || acknowledged == ACK_REFUSED) {
        over = task->spool;
        task->spool = (struct spool){0};
    }
    pthread_mutex_unlock(&task->board->lock);
    crash_point("deliver.acknowledged");
    spool_remove(&over);
    return acknowledged == ACK_COMMITTED;
}
