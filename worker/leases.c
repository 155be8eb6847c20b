/* leases.c - see leases.h.
 *
 * The broker's messages change tasks' flags and wake them; what goes out is read from the tasks
 * alone (report.c), so that there is no queue to lose.
 */
#include <worker/leases.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/seal.h>
#include <proto/state.h>
#include <worker/report.h>

#define BUSY_NS    (2 * NS_PER_S) /* before a result is repeated to a busy broker */
#define GATHER_NS  (5 * NS_PER_MS)
#define GATHER_MAX 16
#define REST_NS                                                                                    \
    (500 * NS_PER_MS) /* without a task, before the folders kept for others are removed */

struct leases {
    struct task_board *board;
    struct sealer *sealer;
    uint64_t request; /* of needs; 0 is none */
    bool missed;
    int64_t gather_ns; /* until when results wait for others; 0: they do not */
    int64_t idle_ns;   /* since when there is no task; 0: there is one */
    bool rested;       /* what was kept for the next ones is removed */
    pthread_t resting; /* does so: a disk may be slow */
    bool has_resting;
};

/* Tasks look at each other, under the lock. What it is behind may have ended before its turn came,
 * which the broker did not know yet. */
static void tasks_push(struct leases *leases, struct task *task)
{
    pthread_mutex_lock(&leases->board->lock);
    list_for_each (node, &leases->board->tasks) {
        const struct task *before = list_entry(node, struct task, node);

        if (task_follows(task, before) && before->phase >= PHASE_COLLECTING && !before->go) {
            task_take_place(task, before);
            break;
        }
    }
    list_push(&leases->board->tasks, &task->node);
    pthread_mutex_unlock(&leases->board->lock);
}

int leases_new(struct task_board *board, struct leases **ret_leases)
{
    struct leases *leases = calloc(1, sizeof(*leases));
    _cleanup_(freep) struct spool *spools = NULL;
    size_t n = 0;
    int r;

    if (!leases)
        return -ENOMEM;
    leases->board = board;
    list_init(&leases->board->tasks);
    list_init(&leases->board->runners);
    r = sealer_new(&leases->sealer);
    if (r == 0)
        r = spool_load(board->state, &spools, &n, &board->spool_next);
    if (r < 0) {
        leases_free(leases);
        return r;
    }
    for (size_t i = 0; i < n; i++) {
        struct task *task;

        r = task_new_held(board, &spools[i], &task);
        if (r == 0)
            tasks_push(leases, task);
        else
            log_error("spool", "folder=%s why=\"%s\"", spools[i].folder, strerror(-r));
        spool_deinit(&spools[i]);
    }
    if (n > 0)
        log_info("spool", "results=%zu", n);
    *ret_leases = leases;
    return 0;
}

/* ---- when there is nothing to do ---- */

static void *rest(void *user)
{
    struct task_board *board = user;

    task_board_folders_rest(board);
    reuse_remove(board->spools, NULL);
    task_board_rest(board, false);
    return NULL;
}

static void rest_when_idle(struct leases *leases, int64_t now_ns, int64_t *deadline_ns)
{
    if (!list_empty(&leases->board->tasks)) {
        leases->idle_ns = 0;
        leases->rested = false;
    } else if (leases->idle_ns == 0) {
        leases->idle_ns = now_ns;
    }
    if (leases->idle_ns == 0 || leases->rested)
        return;
    if (now_ns < leases->idle_ns + REST_NS) {
        if (*deadline_ns > leases->idle_ns + REST_NS)
            *deadline_ns = leases->idle_ns + REST_NS;
        return;
    }
    if (leases->has_resting)
        pthread_join(leases->resting, NULL);
    leases->has_resting = pthread_create(&leases->resting, NULL, rest, leases->board) == 0;
    leases->rested = true;
}

static void task_stop(struct task *task)
{
    atomic_store(&task->stop, true);
    task_wake(task);
    pthread_cond_broadcast(&task->board->changed);
}

void leases_stop(struct leases *leases)
{
    pthread_mutex_lock(&leases->board->lock);
    atomic_store(&leases->board->closing, true);
    list_for_each (node, &leases->board->tasks)
        task_stop(list_entry(node, struct task, node));
    pthread_mutex_unlock(&leases->board->lock);
    task_unpark(leases->board);
}

void leases_free(struct leases *leases)
{
    if (!leases)
        return;
    leases_stop(leases);
    while (!list_empty(&leases->board->tasks))
        task_free(list_entry(leases->board->tasks.next, struct task, node));
    if (leases->has_resting)
        pthread_join(leases->resting, NULL);
    task_board_rest(leases->board, true);
    rest(leases->board);
    sealer_free(leases->sealer);
    free(leases);
}

size_t leases_count(const struct leases *leases)
{
    size_t n = 0;

    list_for_each (node, &leases->board->tasks)
        n++;
    return n;
}

/* ---- order among the leases; under the lock ---- */

static struct task *find(struct leases *leases, const Wl__Lease *message)
{
    struct lease lease;

    if (!message || wire_lease(message, &lease) != 0)
        return NULL;
    list_for_each (node, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);

        if (task->lease.attempt == lease.attempt && task->lease.epoch == lease.epoch &&
            memcmp(task->lease.job, lease.job, sizeof(lease.job)) == 0 &&
            task->lease.step == lease.step && task->lease.task == lease.task &&
            task->lease.floor == lease.floor)
            return task;
    }
    return NULL;
}

/* A task starts when the one it is behind no longer runs, whatever became of it. */
static void start_ready(struct leases *leases)
{
    list_for_each (node, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);
        bool waits = false;

        if (task->go || task->phase != PHASE_STAGING)
            continue;
        list_for_each (other, &leases->board->tasks) {
            const struct task *before = list_entry(other, struct task, node);

            waits = waits || (task_follows(task, before) && before->phase < PHASE_COLLECTING);
        }
        if (!waits) {
            task->go = true;
            task_wake(task);
        }
    }
}

/* Whoever waited for an unstarted task that goes away now waits for what that one waited for. */
static void hand_over_place(struct leases *leases, const struct task *gone)
{
    list_for_each (node, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);

        if (task_follows(task, gone))
            task_take_place(task, gone);
    }
}

static void drop(struct leases *leases, struct task *task)
{
    if (task->phase == PHASE_STAGING)
        hand_over_place(leases, task);
    task->drop = true;
    task_stop(task);
}

/* ---- what the broker says ---- */

static void take_assign(struct leases *leases, Wl__Envelope **envelope)
{
    struct task *task;
    int r;

    pthread_mutex_lock(&leases->board->lock);
    task = find(leases, (*envelope)->assign->lease);
    pthread_mutex_unlock(&leases->board->lock);
    if (task) {
        log_warn("assign-twice", "attempt=%llu", (unsigned long long)task->lease.attempt);
        return;
    }
    r = task_new(leases->board, *envelope, &task);
    if (r < 0) {
        log_error("assign", "why=\"%s\"", strerror(-r));
        leases->missed = leases->missed || r == -ENOMEM;
        return;
    }
    crash_point("leases.assigned");
    *envelope = NULL;
    tasks_push(leases, task);
    log_info("assigned", "step=%u task=%llu attempt=%llu behind=%llu cards=%x", task->lease.step,
             (unsigned long long)task->lease.task, (unsigned long long)task->lease.attempt,
             (unsigned long long)task->behind, task->gpu_mask);
}

static void take_revoke(struct leases *leases, const Wl__Revoke *revoke)
{
    struct task *task;

    pthread_mutex_lock(&leases->board->lock);
    task = find(leases, revoke->lease);
    if (task && revoke->kind == WL__REVOKE_KIND__REVOKE_TAKE_BACK) {
        if (task->phase == PHASE_STAGING && !task->drop) {
            task->taken = true;
            drop(leases, task);
        }
    } else if (task && !task->deliverable && !task->drop) {
        snprintf(task->why, sizeof(task->why), "%s", *revoke->why ? revoke->why : "cancelled");
        task->cancelled = true;
        task_stop(task);
    }
    pthread_mutex_unlock(&leases->board->lock);
}

static void take_verdict(struct leases *leases, const Wl__Verdict *verdict)
{
    pthread_mutex_lock(&leases->board->lock);
    for (size_t i = 0; i < verdict->n_leases; i++) {
        struct task *task = find(leases, verdict->leases[i]->lease);

        if (!task)
            continue;
        if (verdict->leases[i]->verdict == VERDICT_DROP) {
            log_info("dropped", "attempt=%llu", (unsigned long long)task->lease.attempt);
            drop(leases, task);
        } else {
            task->may_send = true;
        }
    }
    if (verdict->last) {
        leases->board->joined = true;
        list_for_each (node, &leases->board->tasks)
            list_entry(node, struct task, node)->may_send = true;
    }
    pthread_mutex_unlock(&leases->board->lock);
}

static void take_committed(struct leases *leases, const Wl__Committed *committed)
{
    struct task *task;
    bool wake;

    pthread_mutex_lock(&leases->board->lock);
    task = find(leases, committed->lease);
    crash_point("leases.committed");
    if (task && task->taken)
        task->released_heard = true;
    wake = task && !task->taken && task->result_sent;
    if (wake) {
        switch (committed->code) {
        case CODE_OK:
        case CODE_ALREADY:
        case CODE_STALE:
        case CODE_UNKNOWN:
            task->acknowledged = ACK_COMMITTED;
            break;
        case CODE_MISSING:
            task->result_due_ns = 0;
            task->acknowledged = ACK_MISSING;
            break;
        case CODE_BUSY:
        case CODE_INTERNAL:
            task->result_due_ns = clock_monotonic_ns() + BUSY_NS;
            break;
        default:
            log_error("result-refused", "attempt=%llu code=\"%s\" why=\"%s\"",
                      (unsigned long long)task->lease.attempt, code_name(committed->code),
                      committed->why);
            snprintf(task->why, sizeof(task->why), "%s", committed->why);
            task->result_due_ns = 0;
            task->acknowledged = ACK_REFUSED;
        }
        task->result_sent = false;
        log_debug("committed", "attempt=%llu code=\"%s\"", (unsigned long long)task->lease.attempt,
                  code_name(committed->code));
    }
    pthread_mutex_unlock(&leases->board->lock);
    if (wake) /* its thread needs the lock at once; only this one frees the task */
        task_wake(task);
}

/* The answer to a task's need; false where nobody asked (any more). */
static bool take_answer(struct leases *leases, Wl__Envelope **envelope)
{
    bool taken = false;

    pthread_mutex_lock(&leases->board->lock);
    list_for_each (node, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);

        if (!*envelope || (*envelope)->request == 0 || task->need_request != (*envelope)->request ||
            task->answer)
            continue;
        task->answer = TAKE_PTR(*envelope);
        task->need_request = 0;
        task->need = NEED_NOTHING;
        taken = true;
        task_wake(task);
    }
    pthread_mutex_unlock(&leases->board->lock);
    return taken;
}

bool leases_take(struct leases *leases, Wl__Envelope **envelope)
{
    switch ((*envelope)->body_case) {
    case WL__ENVELOPE__BODY_ASSIGN:
        take_assign(leases, envelope);
        return true;
    case WL__ENVELOPE__BODY_REVOKE:
        take_revoke(leases, (*envelope)->revoke);
        return true;
    case WL__ENVELOPE__BODY_VERDICT:
        take_verdict(leases, (*envelope)->verdict);
        return true;
    case WL__ENVELOPE__BODY_COMMITTED:
        take_committed(leases, (*envelope)->committed);
        return true;
    case WL__ENVELOPE__BODY_PASS:
    case WL__ENVELOPE__BODY_DEPENDENCY_RESULTS:
        (void)take_answer(leases, envelope);
        return true;
    case WL__ENVELOPE__BODY_REFUSAL:
        return take_answer(leases, envelope);
    default:
        return false;
    }
}

bool leases_missed(struct leases *leases)
{
    bool missed = leases->missed;

    leases->missed = false;
    return missed;
}

/* ---- joining ---- */

void leases_offline(struct leases *leases)
{
    pthread_mutex_lock(&leases->board->lock);
    leases->board->joined = false;
    list_for_each (node, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);

        task->may_send = false;
        task->result_sent = false;
        task->result_due_ns = 0;
        task->need_request = 0;
        task->released_sent = false;
    }
    pthread_mutex_unlock(&leases->board->lock);
}

/* What is handed back is listed until the broker has heard so: one that is missing counts as lost.
 */
static bool listed(const struct task *task)
{
    return (task->phase != PHASE_GONE || task->taken) && !task->drop;
}

static Wl__LeaseState list_state(struct task *task)
{
    if (task->phase == PHASE_HELD)
        return WL__LEASE_STATE__LEASE_HELD;
    if (!task->started)
        return WL__LEASE_STATE__LEASE_QUEUED;
    task->started_sent = true; /* the list says it */
    return WL__LEASE_STATE__LEASE_RUNNING;
}

int leases_inventory(struct leases *leases, uint64_t session, leases_send *send, void *user)
{
    Wl__InventoryItem items[LIMIT_INVENTORY], *pointers[LIMIT_INVENTORY];
    Wl__Lease messages[LIMIT_INVENTORY];
    struct list *node = leases->board->tasks.next;
    bool last = false;
    int r = 0;

    while (r == 0 && !last) {
        Wl__Envelope envelope = WL__ENVELOPE__INIT;
        Wl__Inventory inventory = WL__INVENTORY__INIT;
        size_t n = 0;

        pthread_mutex_lock(&leases->board->lock);
        for (; node != &leases->board->tasks && n < LIMIT_INVENTORY; node = node->next) {
            struct task *task = list_entry(node, struct task, node);

            if (!listed(task))
                continue;
            wl__inventory_item__init(&items[n]);
            wl__lease__init(&messages[n]);
            wire_lease_set(&messages[n], &task->lease);
            items[n].lease = &messages[n];
            items[n].ticket = (ProtobufCBinaryData){.len = task->ticket_size, .data = task->ticket};
            items[n].state = list_state(task);
            items[n].gpu_mask = task->gpu_mask;
            pointers[n] = &items[n];
            n++;
        }
        pthread_mutex_unlock(&leases->board->lock);
        last = node == &leases->board->tasks;
        inventory.session = session;
        inventory.items = pointers;
        inventory.n_items = n;
        inventory.last = last;
        envelope.body_case = WL__ENVELOPE__BODY_INVENTORY;
        envelope.inventory = &inventory;
        r = send(user, &envelope);
    }
    return r;
}

/* ---- reporting ---- */

/* Ends what is over and what was said to the end. */
static void reap(struct leases *leases)
{
    list_for_each_safe (node, after, &leases->board->tasks) {
        struct task *task = list_entry(node, struct task, node);
        bool over;

        pthread_mutex_lock(&leases->board->lock);
        over = task->phase == PHASE_GONE &&
               (!task->taken || (task->drop ? task->released_sent : task->released_heard));
        pthread_mutex_unlock(&leases->board->lock);
        if (over)
            task_free(task);
    }
}

/* With leases enough ahead, results wait a moment for others: one message and one sync carry them
 * all. Where a slot might come to wait for its next lease, nothing waits. */
static bool gather(struct leases *leases, int64_t now_ns, int64_t *deadline_ns)
{
    unsigned ahead = 0, active = 0, waiting = 0;

    list_for_each (node, &leases->board->tasks) {
        const struct task *task = list_entry(node, struct task, node);

        ahead += task->phase == PHASE_STAGING && !task->drop;
        active += task->phase == PHASE_STARTING || task->phase == PHASE_RUNNING;
        waiting += task->deliverable && task->acknowledged == ACK_NONE && !task->result_sent &&
                   now_ns >= task->result_due_ns;
    }
    if (waiting == 0 || waiting >= GATHER_MAX || ahead < 4 * active + 4) {
        leases->gather_ns = 0;
        return false;
    }
    if (leases->gather_ns == 0)
        leases->gather_ns = now_ns + GATHER_NS;
    if (now_ns >= leases->gather_ns) {
        leases->gather_ns = 0;
        return false;
    }
    if (leases->gather_ns < *deadline_ns)
        *deadline_ns = leases->gather_ns;
    return true;
}

int leases_report(struct leases *leases, uint64_t session, int64_t now_ns, leases_send *send,
                  void *user, int64_t *ret_deadline_ns)
{
    struct report report = {.sealer = leases->sealer,
                            .request = &leases->request,
                            .session = session,
                            .now_ns = now_ns,
                            .deadline_ns = INT64_MAX,
                            .send = send,
                            .user = user};
    int r = 0;

    task_unpark(leases->board);
    reap(leases);
    pthread_mutex_lock(&leases->board->lock);
    start_ready(leases);
    leases->board->gathering = report.gathering =
        leases->board->joined && gather(leases, now_ns, &report.deadline_ns);
    if (leases->board->joined && !atomic_load(&leases->board->closing))
        for (struct list *node = leases->board->tasks.next; r == 0 && node != &leases->board->tasks;
             node = node->next)
            r = report_task(&report, list_entry(node, struct task, node));
    pthread_mutex_unlock(&leases->board->lock);
    rest_when_idle(leases, now_ns, &report.deadline_ns);
    if (r == 0)
        *ret_deadline_ns = report.deadline_ns;
    return r;
}
