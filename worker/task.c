/* task.c - see task.h: the thread of one task.
 *
 * The thread's story is told once, top to bottom, in produce() and deliver_result(); all waiting is
 * on the board's condition, and every wait ends when the task is stopped.
 */
#include <worker/task.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <worker/deliver.h>
#include <worker/result.h>
#include <worker/room.h>
#include <worker/stage.h>

enum { TASK_E_STOPPED = 1, TASK_E_ROOM = 2 }; /* it may not begin */

#define STARTED_NS     (20 * NS_PER_MS) /* before the start of what has ended is told */
#define TEXT_BYTES_MAX (256 * 1024)     /* live output kept while the broker is away */

void task_wake(struct task *task)
{
    pthread_cond_broadcast(&task->wake); /* its thread, and who waits for its end */
}

static bool stopped(const struct task *task)
{
    return atomic_load(&task->stop);
}

/* The agent is poked where it has something to say or to do. */
static void phase_set(struct task *task, enum task_phase phase)
{
    struct task_board *board = task->board; /* one that is gone may be freed at once */
    bool poke;

    pthread_mutex_lock(&board->lock);
    CHECK(phase > task->phase);
    task->phase = phase;
    if (phase == PHASE_COLLECTING || phase == PHASE_GONE)
        task_pass_on(task);
    if (phase == PHASE_GONE)
        task_wake(task);
    poke = phase != PHASE_COLLECTING && task->acknowledged != ACK_COMMITTED;
    pthread_mutex_unlock(&board->lock);
    if (poke)
        task_board_poke(board);
}

/* ---- asking the broker, through the agent ---- */

/* What each need is answered with, where it is not refused. */
static const Wl__Envelope__BodyCase ANSWERS[] = {
    [NEED_PASS] = WL__ENVELOPE__BODY_PASS,
    [NEED_DEPENDENCIES] = WL__ENVELOPE__BODY_DEPENDENCY_RESULTS,
};

/* An answer to an earlier question, which was stopped, is none to this one. */
static void forget_answer(struct task *task)
{
    if (task->answer)
        wire_free(TAKE_PTR(task->answer));
    task->need_request = 0;
}

/* A broker that has trouble of its own has not said no. */
static int refused(const Wl__Refusal *refusal)
{
    log_limited(LOG_WARN, "refused", "what=\"%s\" why=\"%s\" next=\"%s\"", refusal->what,
                refusal->why, refusal->next);
    return refusal->code == CODE_INTERNAL || refusal->code == CODE_BUSY ||
                   refusal->code == CODE_STATE
               ? TRANSFER_E_BROKER
               : TRANSFER_E_REFUSED;
}

/* 0 and an envelope of the kind asked for, TRANSFER_E_REFUSED, TRANSFER_E_BROKER, or -ECANCELED. */
static int ask(struct task *task, enum task_need need, uint64_t after, Wl__Envelope **ret_envelope)
{
    struct task_board *board = task->board;
    _cleanup_(wire_freep) Wl__Envelope *envelope = NULL;

    pthread_mutex_lock(&board->lock);
    task->need = need;
    task->need_after = after;
    forget_answer(task);
    task_board_poke(board);
    while (!task->answer && !stopped(task))
        pthread_cond_wait(&task->wake, &board->lock);
    task->need = NEED_NOTHING;
    envelope = TAKE_PTR(task->answer);
    forget_answer(task);
    pthread_mutex_unlock(&board->lock);
    if (!envelope)
        return -ECANCELED;
    if (envelope->body_case == WL__ENVELOPE__BODY_REFUSAL)
        return refused(envelope->refusal);
    if (envelope->body_case != ANSWERS[need]) {
        log_warn("refused", "what=\"an answer of another kind\" body=%d", (int)envelope->body_case);
        return TRANSFER_E_REFUSED;
    }
    *ret_envelope = TAKE_PTR(envelope);
    return 0;
}

static int ask_dependencies(void *user, uint64_t after, Wl__Envelope **ret_envelope)
{
    return ask(user, NEED_DEPENDENCIES, after, ret_envelope);
}

static int ask_pass(void *user, struct bytes *pass)
{
    _cleanup_(wire_freep) Wl__Envelope *envelope = NULL;
    int r = ask(user, NEED_PASS, 0, &envelope);

    if (r != 0)
        return r;
    pass->size = 0;
    return bytes_append(pass, envelope->pass->pass.data, envelope->pass->pass.len);
}

static int bulk_endpoint(void *user, char ret_endpoint[256])
{
    struct task *task = user;
    struct task_board *board = task->board;

    pthread_mutex_lock(&board->lock);
    while (!board->bulk[0] && !stopped(task))
        pthread_cond_wait(&board->changed, &board->lock);
    snprintf(ret_endpoint, 256, "%s", board->bulk);
    pthread_mutex_unlock(&board->lock);
    return ret_endpoint[0] ? 0 : -ECANCELED;
}

static bool online(void *user)
{
    struct task *task = user;
    bool joined;

    pthread_mutex_lock(&task->board->lock);
    joined = task->board->joined;
    pthread_mutex_unlock(&task->board->lock);
    return joined;
}

int task_supply(struct task *task, struct supply **ret_supply)
{
    struct task_board *board = task->board;
    struct supply_config config = {
        .context = board->bulk_context,
        .server = board->server,
        .keys = board->keys,
        .cache = board->cache,
        .stop = &task->stop,
        .endpoint = bulk_endpoint,
        .online = online,
        .renew = ask_pass,
        .user = task,
    };
    const Wl__Assign *assign = task->assign ? task->assign->assign : NULL;

    return supply_new(&config, assign ? assign->pass.data : NULL, assign ? assign->pass.len : 0,
                      ret_supply);
}

bool task_wait_for_more(struct task *task, int r)
{
    if (r != -ENOMEM && r != -EMFILE && r != -ENFILE)
        return false;
    log_limited(LOG_WARN, "result-waits", "step=%u task=%llu attempt=%llu why=\"%s\"",
                task->lease.step, (unsigned long long)task->lease.task,
                (unsigned long long)task->lease.attempt, strerror(-r));
    for (int ms = 0; ms < 1000 && !stopped(task); ms += 50)
        (void)poll(NULL, 0, 50);
    return !stopped(task);
}

/* ---- running ---- */

/* Of one that has ended as well the result will say it, mostly in the same turn. */
static void on_started(void *user, bool over)
{
    struct task *task = user;

    pthread_mutex_lock(&task->board->lock);
    crash_point("task.started");
    if (task->phase == PHASE_STARTING)
        task->phase = PHASE_RUNNING;
    task->started = true;
    task->started_due_ns = over ? clock_monotonic_ns() + STARTED_NS : 0;
    pthread_mutex_unlock(&task->board->lock);
    if (!over)
        task_board_poke(task->board);
}

static void on_text(void *user, const char *text, size_t size)
{
    struct task *task = user;
    bool first;

    pthread_mutex_lock(&task->board->lock);
    first = task->text.size == 0;
    if (task->text.size + size > TEXT_BYTES_MAX) {
        /* The result brings the whole; live, the newest matters. */
        task->text.size = 0;
        (void)bytes_printf(&task->text,
                           "[westlight: live output left out while it could not be sent]\n");
    }
    if (size <= TEXT_BYTES_MAX)
        (void)bytes_append(&task->text, text, size);
    pthread_mutex_unlock(&task->board->lock);
    if (first)
        task_board_poke(task->board);
}

static void on_progress(void *user, uint32_t permille, const char *status)
{
    struct task *task = user;
    bool first;

    pthread_mutex_lock(&task->board->lock);
    first = !task->progress_due;
    task->progress_due = true;
    task->permille = permille;
    snprintf(task->status, sizeof(task->status), "%s", status ? status : "");
    pthread_mutex_unlock(&task->board->lock);
    if (first)
        task_board_poke(task->board);
}

/* Nothing of it runs, or ever will. */
static void ended(struct task *task)
{
    task->ended_ns = clock_monotonic_ns();
    crash_point("task.ended");
    phase_set(task, PHASE_COLLECTING);
}

/* The next one need not wait until this one's output is gathered. */
static void on_ended(void *user)
{
    ended(user);
}

/* TASK_E_STOPPED where the task was stopped first. */
static int wait_go(struct task *task)
{
    struct task_board *board = task->board;
    bool go;

    pthread_mutex_lock(&board->lock);
    while (!task->go && !stopped(task))
        pthread_cond_wait(&task->wake, &board->lock);
    go = !stopped(task);
    if (go)
        task->phase = PHASE_STARTING; /* from here on it is not taken back */
    pthread_mutex_unlock(&board->lock);
    if (go)
        log_debug("turn", "step=%u task=%llu attempt=%llu free=%lld ns=%lld", task->lease.step,
                  (unsigned long long)task->lease.task, (unsigned long long)task->lease.attempt,
                  (long long)task->free_ns, (long long)clock_monotonic_ns());
    return go ? 0 : TASK_E_STOPPED;
}

static int on_ready(void *user)
{
    struct task *task = user;
    int r = wait_go(task);

    task->started_wall_s = clock_wall_ns() / NS_PER_S;
    return r == 0 && room_short(task->board) ? TASK_E_ROOM : r;
}

/* 0, or what on_ready said. */
static int run_session(struct task *task, const struct stage *stage, struct outcome *outcome,
                       struct bytes *log)
{
    const Wl__Assign *assign = task->assign->assign;
    _cleanup_(bytes_deinit) struct bytes cards = {0};
    struct session_result result = {0};
    unsigned n_cards;
    int r;

    n_cards = probe_leased(task->board->probe, task->gpu_mask, &cards);
    r = session_run(&(struct session_config){.recipe = stage->recipe,
                                             .step = task->lease.step,
                                             .space = &stage->space,
                                             .task = task->lease.task,
                                             .folder = stage->work,
                                             .maps = stage->maps,
                                             .n_maps = stage->n_maps,
                                             .vcpus = assign->vcpus,
                                             .memory_bytes = assign->memory_bytes,
                                             .software = task->board->probe->software,
                                             .n_software = task->board->probe->n_software,
                                             .cards = cards.data ? (const char *)cards.data : "",
                                             .driver_folder = task->board->probe->driver_folder,
                                             .stop = &task->stop,
                                             .on_ready = on_ready,
                                             .on_started = on_started,
                                             .on_ended = on_ended,
                                             .on_text = on_text,
                                             .on_progress = on_progress,
                                             .user = task},
                    &result);
    if (r > 0)
        return r;
    outcome->started_wall_s = task->started_wall_s ? task->started_wall_s : outcome->started_wall_s;
    outcome->ended_wall_s = clock_wall_ns() / NS_PER_S;
    if (r < 0) {
        outcome->class = CLASS_TRANSFER;
        snprintf(outcome->message, sizeof(outcome->message), "the session could not be made: %s",
                 strerror(-r));
        return 0;
    }
    outcome->class = result.class;
    outcome->exit_status = result.exit_status;
    snprintf(outcome->message, sizeof(outcome->message), "%s", result.message);
    outcome->wall_ns = result.wall_ns;
    outcome->cpu_ns = result.cpu_ns;
    outcome->memory_bytes = result.memory_bytes;
    outcome->card_ns = result.wall_ns * n_cards;
    (void)bytes_append(log, result.log.data, result.log.size);
    session_result_deinit(&result);
    return 0;
}

static int stage_task(struct task *task, struct sealer *sealer, struct supply *supply,
                      struct stage *ret_stage)
{
    struct task_board *board = task->board;
    const Wl__Assign *assign = task->assign->assign;
    uint8_t key[REUSE_KEY_BYTES];
    _cleanup_(freep) char *folder = NULL;
    _cleanup_(still_freep) struct still *still = NULL;
    int r;

    memcpy(key, task->lease.job, sizeof(task->lease.job));
    memcpy(key + sizeof(task->lease.job), &task->lease.step, sizeof(task->lease.step));
    r = task_board_folder(board, key, &folder, &still);
    if (r < 0)
        return r;
    if (strlen(folder) >= LIMIT_PATH_BYTES)
        return -ENAMETOOLONG;
    return stage_run(&(struct stage_config){.folder = folder,
                                            .reuse = board->sessions,
                                            .reuse_key = key,
                                            .still = &still,
                                            .recipe = assign->recipe,
                                            .key_in = assign->key_in.data,
                                            .step = task->lease.step,
                                            .task = task->lease.task,
                                            .supply = supply,
                                            .sealer = sealer,
                                            .stop = &task->stop,
                                            .dependencies = ask_dependencies,
                                            .user = task},
                     ret_stage);
}

static void outcome_cancelled(struct task *task, struct outcome *outcome)
{
    outcome->class = CLASS_CANCELLED;
    pthread_mutex_lock(&task->board->lock);
    snprintf(outcome->message, sizeof(outcome->message), "%s",
             task->why[0] ? task->why : "cancelled");
    pthread_mutex_unlock(&task->board->lock);
}

/* Where the disk is full also without what the task wrote, its failure says nothing of the task: it
 * is handed back. The broker knows by then that this worker takes nothing new. */
static bool failed_for_room(struct task *task, const struct outcome *outcome, struct stage *stage)
{
    if (outcome->class == CLASS_OK || outcome->class == CLASS_CANCELLED ||
        outcome->class == CLASS_LICENCE || !room_short(task->board))
        return false;
    stage_deinit(stage);
    return room_short(task->board);
}

/* Stages, runs and collects; the result lies in the spool afterwards, unless nobody wants one. */
static int produce(struct task *task, struct sealer *sealer, struct supply *supply)
{
    struct outcome outcome = {0};
    _cleanup_(stage_deinit) struct stage stage = {0};
    _cleanup_(collect_freep) struct collect *collect = NULL;
    _cleanup_(bytes_deinit) struct bytes log = {0}, why = {0};
    int r = stage_task(task, sealer, supply, &stage);

    supply_rest(supply);
    outcome.bytes_in = supply_bytes_in(supply);
    outcome.started_wall_s = outcome.ended_wall_s = clock_wall_ns() / NS_PER_S;
    if (r > 0) {
        outcome.class = stage.class;
        snprintf(outcome.message, sizeof(outcome.message), "%s", stage.why);
    } else if (r == 0) {
        r = collect_new((const char *const *)stage.outputs, stage.n_outputs, stage.still, &collect,
                        &why);
        if (r == 0 && run_session(task, &stage, &outcome, &log) == TASK_E_ROOM)
            return -ENOSPC;
    }
    if (r != 0 && outcome.class == CLASS_OK) {
        outcome.class = CLASS_TRANSFER;
        snprintf(outcome.message, sizeof(outcome.message), "the session could not be made: %s",
                 why.size > 0 ? (const char *)why.data : strerror(r < 0 ? -r : EPROTO));
    }
    if (task->phase < PHASE_COLLECTING) /* only this thread moves it */
        ended(task);
    if (atomic_load(&task->board->closing))
        return -ECANCELED;
    if (stopped(task))
        outcome_cancelled(task, &outcome);
    if (failed_for_room(task, &outcome, &stage))
        return -ENOSPC;
    pthread_mutex_lock(&task->board->lock);
    r = task->drop ? -ECANCELED : 0;
    pthread_mutex_unlock(&task->board->lock);
    if (r == 0)
        result_make(task, sealer, &outcome, collect, &stage, &log);
    return r;
}

/* ---- all of it ---- */

/* What was stopped has been stopped; its result still goes out. */
static void hold(struct task *task)
{
    pthread_mutex_lock(&task->board->lock);
    task->phase = PHASE_HELD;
    if (!task->drop && !atomic_load(&task->board->closing))
        atomic_store(&task->stop, false);
    pthread_mutex_unlock(&task->board->lock);
}

/* The broker must not wait for what will not come: it gives the task to somebody else. */
static void hand_back(struct task *task, const char *why)
{
    struct task_board *board = task->board;

    pthread_mutex_lock(&board->lock);
    if (!task->drop && !atomic_load(&board->closing)) {
        task->taken = true;
        snprintf(task->why, sizeof(task->why), "%s", why);
        log_error("handed-back", "step=%u task=%llu attempt=%llu why=\"%s\"", task->lease.step,
                  (unsigned long long)task->lease.task, (unsigned long long)task->lease.attempt,
                  why);
    }
    pthread_mutex_unlock(&board->lock);
}

void task_finish(struct task *task)
{
    struct task_board *board = task->board;

    if (!deliver_result(task))
        hand_back(task, "its result could not be delivered");
    phase_set(task, PHASE_GONE); /* the agent may free it */
    task_board_folders(board);
}

static void task_main(struct task *task)
{
    struct task_board *board = task->board;
    bool held = task->spool.result != NULL;
    int r = 0;

    if (!held) {
        _cleanup_(supply_freep) struct supply *supply = NULL;
        struct sealer *sealer = NULL;

        r = task_board_sealer(task->board, &sealer);
        if (r == 0)
            r = task_supply(task, &supply);
        if (r == 0)
            r = produce(task, sealer, supply);
        task_board_sealer_back(task->board, sealer);
        held = r == 0 && task->spool.result;
        if (held)
            hold(task);
    }
    if (held) {
        if (!task_park(task))
            task_finish(task);
        return;
    }
    task->no_room = r == -ENOSPC;
    hand_back(task, r == -ENOSPC ? "the worker's disk is full"
                    : r < 0      ? strerror(-r)
                                 : "no result could be made of it");
    phase_set(task, PHASE_GONE); /* the agent may free it */
    task_board_folders(board);
}

/* ---- making and ending one ---- */

static int start(struct task *task)
{
    list_init(&task->node);
    pthread_cond_init(&task->wake, NULL);
    return task_board_run(task->board, task_main, task);
}

static int set_ticket(struct task *task, const ProtobufCBinaryData *ticket)
{
    if (ticket->len > sizeof(task->ticket))
        return -EINVAL;
    memcpy(task->ticket, ticket->data, ticket->len);
    task->ticket_size = ticket->len;
    return 0;
}

int task_new(struct task_board *board, Wl__Envelope *envelope, struct task **ret_task)
{
    const Wl__Assign *assign = envelope->assign;
    struct task *task = calloc(1, sizeof(*task));
    int r = task ? 0 : -ENOMEM;

    if (r == 0 && (!assign->lease || !assign->recipe || assign->key_in.len != 32 ||
                   assign->key_out.len != 32 || wire_lease(assign->lease, &task->lease) != 0))
        r = -EINVAL;
    if (r == 0)
        r = set_ticket(task, &assign->ticket);
    if (r == 0) {
        char why[LIMIT_MESSAGE_BYTES];

        task->board = board;
        task->behind = assign->behind;
        task->behind_epoch = assign->behind_epoch;
        task->gpu_mask = assign->gpu_mask;
        task->may_send = true;
        memcpy(task->key_out, assign->key_out.data, 32);
        task->assign = envelope;
        r = start(task);
        if (r < 0) { /* it is known, so that it can be handed back */
            snprintf(why, sizeof(why), "no thread for it: %s", strerror(-r));
            hand_back(task, why);
            task->phase = PHASE_GONE;
            r = 0;
        }
    }
    if (r < 0) {
        free(task);
        return r;
    }
    *ret_task = task;
    return 0;
}

int task_new_held(struct task_board *board, struct spool *spool, struct task **ret_task)
{
    struct task *task = calloc(1, sizeof(*task));
    int r = task ? 0 : -ENOMEM;

    if (r == 0 && wire_lease(spool->result->lease, &task->lease) != 0)
        r = -EINVAL;
    if (r == 0)
        r = set_ticket(task, &spool->result->ticket);
    if (r == 0) {
        task->board = board;
        task->phase = PHASE_HELD;
        task->started_sent = task->started = true;
        task->spool = *spool;
        r = start(task);
    }
    if (r < 0) {
        free(task);
        return r;
    }
    *spool = (struct spool){0};
    *ret_task = task;
    return 0;
}

void task_free(struct task *task)
{
    if (!task)
        return;
    pthread_mutex_lock(&task->board->lock);
    while (task->phase != PHASE_GONE)
        pthread_cond_wait(&task->wake, &task->board->lock);
    list_unlink(&task->node);
    pthread_mutex_unlock(&task->board->lock);
    if (task->assign)
        wire_free(task->assign);
    if (task->answer)
        wire_free(task->answer);
    pthread_cond_destroy(&task->wake);
    spool_deinit(&task->spool);
    bytes_wipe_deinit(&task->text);
    wipe(task->key_out, sizeof(task->key_out));
    free(task);
}
