/* board.c - what all tasks share: the poke of the agent, contexts that seal, threads. The last two
 * are used again: to make one takes longer than a short task does. */
#include <worker/task.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/log.h>

void task_board_poke(struct task_board *board)
{
    uint64_t one = 1;

    if (write(board->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_limited(LOG_WARN, "poke", "why=\"%s\"", strerror(errno));
}

int task_board_sealer(struct task_board *board, struct sealer **ret_sealer)
{
    struct sealer *sealer;

    pthread_mutex_lock(&board->lock);
    sealer = board->n_sealers > 0 ? board->sealers[--board->n_sealers] : NULL;
    pthread_mutex_unlock(&board->lock);
    if (!sealer)
        return sealer_new(ret_sealer);
    *ret_sealer = sealer;
    return 0;
}

void task_board_sealer_back(struct task_board *board, struct sealer *sealer)
{
    pthread_mutex_lock(&board->lock);
    if (sealer && board->n_sealers < TASK_SEALERS)
        board->sealers[board->n_sealers++] = TAKE_PTR(sealer);
    pthread_mutex_unlock(&board->lock);
    sealer_free(sealer);
}

void task_board_deinit(struct task_board *board)
{
    reuse_free(board->sessions);
    reuse_free(board->spools);
    while (board->n_sealers > 0)
        sealer_free(board->sealers[--board->n_sealers]);
}

/* ---- threads ---- */

struct runner {
    struct list node; /* of those without a task */
    struct task_board *board;
    void (*run)(struct task *task);
    struct task *task;
    bool over;
    pthread_t thread;
    pthread_cond_t wake;
};

static void *runner_main(void *user)
{
    struct runner *runner = user;
    struct task_board *board = runner->board;

    pthread_mutex_lock(&board->lock);
    while (!runner->over) {
        if (!runner->task) {
            pthread_cond_wait(&runner->wake, &board->lock);
            continue;
        }
        pthread_mutex_unlock(&board->lock);
        runner->run(runner->task);
        pthread_mutex_lock(&board->lock);
        runner->task = NULL;
        list_push(&board->runners, &runner->node);
        pthread_cond_broadcast(&board->changed);
    }
    pthread_mutex_unlock(&board->lock);
    return NULL;
}

static struct runner *runner_idle(struct task_board *board)
{
    struct list *node = board->runners.previous; /* the last that came */

    if (list_empty(&board->runners))
        return NULL;
    list_unlink(node);
    return list_entry(node, struct runner, node);
}

static void runner_free(struct runner *runner)
{
    pthread_cond_destroy(&runner->wake);
    free(runner);
}

static int runner_new(struct task_board *board, void (*run)(struct task *task), struct task *task)
{
    struct runner *runner = calloc(1, sizeof(*runner));
    int r;

    if (!runner)
        return -ENOMEM;
    runner->board = board;
    runner->run = run;
    runner->task = task;
    list_init(&runner->node);
    pthread_cond_init(&runner->wake, NULL);
    r = pthread_create(&runner->thread, NULL, runner_main, runner);
    if (r)
        runner_free(runner);
    else
        board->n_runners++;
    return -r;
}

int task_board_run(struct task_board *board, void (*run)(struct task *task), struct task *task)
{
    struct runner *runner;
    int r = 0;

    pthread_mutex_lock(&board->lock);
    runner = runner_idle(board);
    if (runner) {
        runner->run = run;
        runner->task = task;
        pthread_cond_signal(&runner->wake);
    } else {
        r = runner_new(board, run, task);
    }
    pthread_mutex_unlock(&board->lock);
    return r;
}

void task_board_rest(struct task_board *board, bool all)
{
    struct runner *runner;

    pthread_mutex_lock(&board->lock);
    for (;;) {
        while (all && list_empty(&board->runners) && board->n_runners > 0)
            pthread_cond_wait(&board->changed, &board->lock);
        runner = runner_idle(board);
        if (!runner)
            break;
        board->n_runners--;
        runner->over = true;
        pthread_cond_signal(&runner->wake);
        pthread_mutex_unlock(&board->lock);
        pthread_join(runner->thread, NULL);
        runner_free(runner);
        pthread_mutex_lock(&board->lock);
    }
    pthread_mutex_unlock(&board->lock);
}
