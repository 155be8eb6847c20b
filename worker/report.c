/* report.c - see report.h. */
#include <worker/report.h>

#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <proto/state.h>

#define PROGRESS_NS (250 * NS_PER_MS) /* four a second and task */
#define ANSWER_NS   (60 * NS_PER_S)   /* before a result that nobody answered is repeated */
/* Raw text of one segment: sealed it must stay within LIMIT_LOG_SEGMENT_BYTES even if it does not
 * compress. */
#define SEGMENT_BYTES (LIMIT_LOG_SEGMENT_BYTES - LIMIT_BLOCK_OVERHEAD_BYTES)

/* The lease, ticket and session that every message about a task carries. */
#define ABOUT(message, report, task)                                                               \
    Wl__Lease lease_ = WL__LEASE__INIT;                                                            \
    wire_lease_set(&lease_, &(task)->lease);                                                       \
    (message).session = (report)->session;                                                         \
    (message).lease = &lease_;                                                                     \
    (message).ticket = (ProtobufCBinaryData)                                                       \
    {                                                                                              \
        .len = (task)->ticket_size, .data = (task)->ticket                                         \
    }

static int say_released(struct report *report, struct task *task)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Released released = WL__RELEASED__INIT;
    char taken[] = "taken back before it started";
    int r;

    ABOUT(released, report, task);
    released.why = task->why[0] ? task->why : taken;
    released.no_room = task->no_room;
    envelope.body_case = WL__ENVELOPE__BODY_RELEASED;
    envelope.released = &released;
    r = report->send(report->user, &envelope);
    if (r != 0)
        return r;
    task->released_sent = true;
    log_info("released", "step=%u task=%llu attempt=%llu", task->lease.step,
             (unsigned long long)task->lease.task, (unsigned long long)task->lease.attempt);
    return 0;
}

static int say_started(struct report *report, struct task *task)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Started started = WL__STARTED__INIT;
    int r;

    ABOUT(started, report, task);
    envelope.body_case = WL__ENVELOPE__BODY_STARTED;
    envelope.started = &started;
    r = report->send(report->user, &envelope);
    if (r == 0)
        task->started_sent = true;
    return r;
}

static int send_progress(struct report *report, struct task *task, Wl__LogSegment *segment)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Progress progress = WL__PROGRESS__INIT;

    ABOUT(progress, report, task);
    progress.permille = task->permille;
    progress.status = task->status;
    progress.log = segment;
    envelope.body_case = WL__ENVELOPE__BODY_PROGRESS;
    envelope.progress = &progress;
    return report->send(report->user, &envelope);
}

/* Progress with the next piece of output, sealed for the studio. */
static int say_progress(struct report *report, struct task *task)
{
    Wl__LogSegment segment = WL__LOG_SEGMENT__INIT;
    Wl__BlockRef ref = WL__BLOCK_REF__INIT;
    _cleanup_(bytes_deinit) struct bytes sealed = {0};
    size_t size = task->text.size < SEGMENT_BYTES ? task->text.size : SEGMENT_BYTES;
    struct block_key key;
    uint8_t secret[32], wrapped[32];
    int r = 0;

    if (size > 0) {
        job_key_log(task->key_out, secret);
        r = seal_block(report->sealer, secret, task->text.data, size, &sealed, &key);
        if (r == 0)
            wire_block_ref_set(report->sealer, secret, &key, wrapped, &ref);
        wipe(secret, sizeof(secret));
        ref.inline_sealed = (ProtobufCBinaryData){.len = sealed.size, .data = sealed.data};
        segment.number = task->text_number + 1;
        segment.text = &ref;
    }
    if (r == 0)
        r = send_progress(report, task, size > 0 ? &segment : NULL);
    if (r != 0)
        return r;
    task->progress_due = false;
    task->progress_ns = report->now_ns;
    if (size > 0) {
        task->text_number++;
        memmove(task->text.data, task->text.data + size, task->text.size - size);
        task->text.size -= size;
    }
    return 0;
}

static int say_result(struct report *report, struct task *task)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Result *result = task->spool.result;
    int r;

    result->session = report->session;
    envelope.body_case = WL__ENVELOPE__BODY_RESULT;
    envelope.result = result;
    crash_point("report.result");
    r = report->send(report->user, &envelope);
    crash_point("report.result.sent");
    if (r != 0)
        return r;
    task->result_sent = true;
    task->result_due_ns = report->now_ns + ANSWER_NS;
    log_info("result", "step=%u task=%llu attempt=%llu class=\"%s\" files=%llu message=\"%s\"",
             task->lease.step, (unsigned long long)task->lease.task,
             (unsigned long long)task->lease.attempt, class_name(result->class_),
             (unsigned long long)result->output_files, result->message);
    return 0;
}

static int say_need(struct report *report, struct task *task)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__DependencyRequest dependencies = WL__DEPENDENCY_REQUEST__INIT;
    Wl__WorkerPassRequest pass = WL__WORKER_PASS_REQUEST__INIT;
    uint64_t request = *report->request + 1;
    int r;

    envelope.request = request;
    if (task->need == NEED_PASS) {
        ABOUT(pass, report, task);
        envelope.body_case = WL__ENVELOPE__BODY_WORKER_PASS_REQUEST;
        envelope.worker_pass_request = &pass;
        r = report->send(report->user, &envelope);
    } else {
        ABOUT(dependencies, report, task);
        dependencies.after = task->need_after;
        envelope.body_case = WL__ENVELOPE__BODY_DEPENDENCY_REQUEST;
        envelope.dependency_request = &dependencies;
        r = report->send(report->user, &envelope);
    }
    if (r == 0)
        *report->request = task->need_request = request;
    return r;
}

static void later(struct report *report, int64_t at_ns)
{
    if (at_ns < report->deadline_ns)
        report->deadline_ns = at_ns;
}

static int report_progress(struct report *report, struct task *task)
{
    if (task->phase == PHASE_STAGING || (!task->progress_due && task->text.size == 0))
        return 0;
    if (report->now_ns < task->progress_ns + PROGRESS_NS) {
        later(report, task->progress_ns + PROGRESS_NS);
        return 0;
    }
    return say_progress(report, task);
}

/* The result says it, too: one that is being made may take a moment. */
static int report_started(struct report *report, struct task *task)
{
    if (task->deliverable && task->may_send)
        return 0;
    if (report->now_ns < task->started_due_ns) {
        later(report, task->started_due_ns);
        return 0;
    }
    return say_started(report, task);
}

int report_task(struct report *report, struct task *task)
{
    int r = 0;

    if (task->taken && !task->released_sent)
        return say_released(report, task);
    if (task->drop || task->phase == PHASE_GONE)
        return 0;
    if (task->need != NEED_NOTHING && !task->answer && task->need_request == 0)
        r = say_need(report, task);
    if (r == 0 && task->started && !task->started_sent)
        r = report_started(report, task);
    if (r != 0 || !task->may_send)
        return r;
    if (task->started_sent && task->phase < PHASE_HELD)
        r = report_progress(report, task);
    if (r != 0 || !task->deliverable || task->acknowledged != ACK_NONE)
        return r;
    if (report->gathering)
        return 0;
    if (report->now_ns < task->result_due_ns) {
        later(report, task->result_due_ns);
        return 0;
    }
    return say_result(report, task);
}
