/* parked.c - a result all of which is in its message needs no thread until the broker has answered.
 * The answers to many short tasks come together, and one thread ends them all: to wake one for each
 * takes longer than what it would do. */
#include <worker/task.h>

bool task_park(struct task *task)
{
    struct task_board *board = task->board; /* once parked, the task may be over at any time */
    bool parked, poke;

    if (task->spool.result->n_refs > 0)
        return false;
    pthread_mutex_lock(&board->lock);
    parked = !task->drop && !atomic_load(&board->closing);
    if (parked) {
        task->acknowledged = ACK_NONE;
        task->deliverable = task->parked = true;
    }
    poke = parked && !board->gathering;
    pthread_mutex_unlock(&board->lock);
    if (poke)
        task_board_poke(board);
    return parked;
}

static void finish_all(struct task *task)
{
    for (struct task *next; task; task = next) {
        next = task->next_parked;
        task_finish(task);
    }
}

/* Where no thread can be had, the next turn tries again; but a worker that ends waits for these. */
static void resume(struct task_board *board, struct task *first)
{
    if (task_board_run(board, finish_all, first) == 0)
        return;
    if (atomic_load(&board->closing)) {
        finish_all(first);
        return;
    }
    pthread_mutex_lock(&board->lock);
    for (struct task *task = first; task; task = task->next_parked)
        task->parked = true;
    pthread_mutex_unlock(&board->lock);
}

void task_unpark(struct task_board *board)
{
    struct task *quick = NULL, *others = NULL, *next;

    pthread_mutex_lock(&board->lock);
    list_for_each (node, &board->tasks) {
        struct task *task = list_entry(node, struct task, node);
        bool unwanted = task->drop || atomic_load(&board->closing);
        struct task **chain = task->acknowledged == ACK_COMMITTED || unwanted ? &quick : &others;

        if (!task->parked || (task->acknowledged == ACK_NONE && !unwanted))
            continue;
        task->parked = false;
        task->next_parked = *chain;
        *chain = task;
    }
    pthread_mutex_unlock(&board->lock);
    if (quick)
        resume(board, quick);
    for (; others; others = next) { /* each may take long */
        next = others->next_parked;
        others->next_parked = NULL;
        resume(board, others);
    }
}
