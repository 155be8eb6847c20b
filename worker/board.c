/* board.c - what all tasks share: the poke of the agent, whom each is behind, contexts that seal,
 * folders, threads. The last three are used again: to make one takes longer than a short task does.
 * A few folders and threads are there before the first task is, because somebody waits for it. */
#include <worker/task.h>

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/check.h>
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

/* Each holds the last block that it opened. */
static void sealers_rest(struct task_board *board)
{
    struct sealer *sealer;

    do {
        pthread_mutex_lock(&board->lock);
        sealer = board->n_sealers > 0 ? board->sealers[--board->n_sealers] : NULL;
        pthread_mutex_unlock(&board->lock);
        sealer_free(sealer);
    } while (sealer);
}

void task_board_deinit(struct task_board *board)
{
    reuse_free(board->sessions);
    reuse_free(board->spools);
    sealers_rest(board);
}

/* ---- whom each is behind ---- */

bool task_follows(const struct task *task, const struct task *other)
{
    return task->behind != 0 && task->behind == other->lease.attempt &&
           task->behind_epoch == other->lease.epoch;
}

void task_take_place(struct task *task, const struct task *other)
{
    task->behind = other->behind;
    task->behind_epoch = other->behind_epoch;
}

/* Who waited for this one's renderer to end starts, without the agent's help: it may be busy. One
 * that never had its turn passes none on: who is behind it waits for what it waited for. */
void task_pass_on(const struct task *task)
{
    list_for_each (node, &task->board->tasks) {
        struct task *other = list_entry(node, struct task, node);

        if (!task_follows(other, task) || other->go)
            continue;
        if (!task->go) {
            task_take_place(other, task);
        } else if (other->phase == PHASE_STAGING) {
            other->go = true;
            other->free_ns = task->ended_ns;
            task_wake(other);
        }
    }
}

/* ---- folders of sessions ---- */

static const uint8_t NO_JOB[REUSE_KEY_BYTES]; /* no job has this id */

static int folder_name(struct task_board *board, char **ret_folder)
{
    uint64_t number;

    pthread_mutex_lock(&board->lock);
    number = board->session_next++;
    pthread_mutex_unlock(&board->lock);
    return asprintf(ret_folder, "%s/sessions/%llu", board->state, (unsigned long long)number) < 0
               ? -ENOMEM
               : 0;
}

/* With what is in every one of them; a folder takes as long to make as a block to open. */
static int folder_empty(struct task_board *board, char **ret_folder)
{
    static const char *const below[] = {"work/tmp", "files"};
    _cleanup_(freep) char *folder = NULL;
    char path[LIMIT_PATH_BYTES];
    int r = folder_name(board, &folder);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(below); i++)
        r = (size_t)snprintf(path, sizeof(path), "%s/%s", folder, below[i]) < sizeof(path)
                ? folder_make(path, 0700)
                : -ENAMETOOLONG;
    if (r == 0)
        *ret_folder = TAKE_PTR(folder);
    else if (folder)
        (void)folder_remove(folder); /* whoever needs one makes it, and says why not */
    return r;
}

int task_board_folder(struct task_board *board, const uint8_t key[REUSE_KEY_BYTES],
                      char **ret_folder, struct still **ret_still)
{
    char *folder = reuse_take(board->sessions, key, ret_still);

    if (!folder)
        folder = reuse_take(board->sessions, NO_JOB, NULL);
    if (!folder)
        return folder_name(board, ret_folder);
    *ret_folder = folder;
    return 0;
}

void task_board_folders(struct task_board *board)
{
    char *folder;

    if (atomic_exchange(&board->making_folders, true))
        return; /* two would make one too many */
    while (!atomic_load(&board->closing) && reuse_count(board->sessions, NO_JOB) < board->ready &&
           folder_empty(board, &folder) == 0)
        reuse_give(board->sessions, NO_JOB, folder, NULL);
    atomic_store(&board->making_folders, false);
}

void task_board_folders_rest(struct task_board *board)
{
    reuse_remove(board->sessions, atomic_load(&board->closing) ? NULL : NO_JOB);
    task_board_folders(board);
}

/* ---- threads ---- */

struct runner {
    struct list node; /* of those without a task */
    struct task_board *board;
    void (*run)(struct task *task);
    struct task *task;
    bool over;
    pthread_t thread;
    sem_t wake; /* it has a task, or it is over: no lock is needed to see which */
};

static void *runner_main(void *user)
{
    struct runner *runner = user;
    struct task_board *board = runner->board;

    for (;;) {
        while (sem_wait(&runner->wake) < 0)
            CHECK(errno == EINTR);
        if (runner->over)
            return NULL;
        runner->run(runner->task);
        pthread_mutex_lock(&board->lock);
        list_push(&board->runners, &runner->node);
        pthread_cond_broadcast(&board->changed);
        pthread_mutex_unlock(&board->lock);
    }
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
    sem_destroy(&runner->wake);
    free(runner);
}

static int runner_new(struct task_board *board, struct runner **ret_runner)
{
    struct runner *runner = calloc(1, sizeof(*runner));
    int r;

    if (!runner)
        return -ENOMEM;
    runner->board = board;
    list_init(&runner->node);
    sem_init(&runner->wake, 0, 0);
    r = pthread_create(&runner->thread, NULL, runner_main, runner);
    if (r) {
        runner_free(runner);
        return -r;
    }
    board->n_runners++;
    *ret_runner = runner;
    return 0;
}

int task_board_run(struct task_board *board, void (*run)(struct task *task), struct task *task)
{
    struct runner *runner;
    int r = 0;

    pthread_mutex_lock(&board->lock);
    runner = runner_idle(board);
    if (!runner)
        r = runner_new(board, &runner);
    pthread_mutex_unlock(&board->lock);
    if (r < 0)
        return r;
    runner->run = run;
    runner->task = task;
    sem_post(&runner->wake);
    return 0;
}

void task_board_rest(struct task_board *board, bool all)
{
    struct runner *runner;

    pthread_mutex_lock(&board->lock);
    for (;;) {
        while (all && list_empty(&board->runners) && board->n_runners > 0)
            pthread_cond_wait(&board->changed, &board->lock);
        runner = all || board->n_runners > board->ready ? runner_idle(board) : NULL;
        if (!runner)
            break;
        board->n_runners--;
        runner->over = true;
        pthread_mutex_unlock(&board->lock);
        sem_post(&runner->wake);
        pthread_join(runner->thread, NULL);
        runner_free(runner);
        pthread_mutex_lock(&board->lock);
    }
    pthread_mutex_unlock(&board->lock);
    sealers_rest(board);
}
