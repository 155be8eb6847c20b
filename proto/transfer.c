/* transfer.c - the idea: have, get and put are one loop over items that are unasked, asked or done.
 * A broken connection turns every asked item back into an unasked one; nothing else has to know.
 * Request numbers are never used twice, so an answer from before a break is told by its number.
 */
#include <proto/transfer_call.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <proto/base/clock.h>
#include <proto/limits.h>
#include <proto/state.h>

enum {
    RECEIVE_MAX = 16,   /* then the window is filled again, so that it never runs dry */
    POLL_MS = 50,       /* `stop` is looked at this often */
    REOPENS_MAX = 3,    /* without an answer in between, where the server says "open first" */
};
#define PATIENCE_NS (30 * NS_PER_S)
#define REFUSED_NS  (2 * NS_PER_S)  /* a server that stops in a handshake looks like a refusal */
#define IDLE_NS     (20 * NS_PER_S) /* the server forgets who is idle for 30 s */

/* ---- the link ---- */

int transfer_say(struct transfer *transfer, int result, const char *what, const char *why,
                 const char *next)
{
    transfer->why.size = 0;
    (void)bytes_printf(&transfer->why, "%s: %s: %s", what, why, next);
    return result;
}

static void hang_up(struct transfer *transfer)
{
    link_close(transfer->monitor);
    link_close(transfer->socket);
    transfer->monitor = transfer->socket = NULL;
    transfer->phase = PHASE_CLOSED;
}

static int dial(struct transfer *transfer)
{
    const struct transfer_config *config = &transfer->config;

    hang_up(transfer);
    transfer->refused_ns = 0;
    transfer->fresh_ns = clock_monotonic_ns();
    int r = link_connect(config->context, LINK_BULK, transfer->endpoint, &config->server,
                         &transfer->keys, &transfer->socket);
    if (r == 0)
        r = link_monitor(config->context, transfer->socket, &transfer->monitor);
    if (r == 0)
        return 0;

    hang_up(transfer);
    return transfer_say(transfer, r, transfer->endpoint, strerror(-r), "check the address");
}

int transfer_new(const struct transfer_config *config, struct transfer **ret_transfer)
{
    _cleanup_(transfer_freep) struct transfer *transfer = calloc(1, sizeof(*transfer));
    if (!transfer)
        return -ENOMEM;

    transfer->config = *config;
    transfer->keys = *config->keys;
    transfer->next_request = 1;
    if (!transfer->config.window_bytes)
        transfer->config.window_bytes = LIMIT_WINDOW_BYTES;
    if (!transfer->config.patience_ns)
        transfer->config.patience_ns = PATIENCE_NS;
    transfer->endpoint = strdup(config->endpoint);
    if (!transfer->endpoint)
        return -ENOMEM;
    int r = bytes_append(&transfer->pass, config->pass, config->pass_size);
    if (r < 0)
        return r;

    *ret_transfer = TAKE_PTR(transfer);
    return 0;
}

void transfer_free(struct transfer *transfer)
{
    if (!transfer)
        return;

    hang_up(transfer);
    free(transfer->endpoint);
    bytes_wipe_deinit(&transfer->pass);
    bytes_deinit(&transfer->why);
    wipe(&transfer->keys, sizeof(transfer->keys));
    free(transfer);
}

const char *transfer_why(const struct transfer *transfer)
{
    return transfer->why.size ? (const char *)transfer->why.data : "";
}

uint64_t transfer_bytes_sent(const struct transfer *transfer)
{
    return transfer->bytes_sent;
}

uint64_t transfer_bytes_received(const struct transfer *transfer)
{
    return transfer->bytes_received;
}

/* Takes over `data`, which may be NULL, on 0. */
int transfer_send(struct transfer *transfer, const Wl__Bulk *bulk, zmq_msg_t *data)
{
    zmq_msg_t header;
    int r = wire_bulk_pack(bulk, &header);
    if (r < 0)
        return r;

    r = link_send(transfer->socket, NULL, &header, data);
    if (r)
        zmq_msg_close(&header);
    transfer->blocked = r == LINK_E_AGAIN;
    return r;
}

static int send_open(struct transfer *transfer)
{
    Wl__Bulk bulk = WL__BULK__INIT;
    Wl__Open open = WL__OPEN__INIT;

    open.pass = (ProtobufCBinaryData){transfer->pass.size, transfer->pass.data};
    bulk.request = transfer->next_request;
    bulk.body_case = WL__BULK__BODY_OPEN;
    bulk.open = &open;
    int r = transfer_send(transfer, &bulk, NULL);
    if (r)
        return r == LINK_E_AGAIN ? 0 : r;

    transfer->open_request = transfer->next_request++;
    transfer->phase = PHASE_OPENING;
    return 0;
}

/* ---- items ---- */

static void forget_asked(struct call *call)
{
    for (size_t i = 0; !call->forget && i < call->n; i++)
        if (call->states[i] == ITEM_ASKED)
            call->states[i] = ITEM_UNASKED;
    if (call->forget)
        call->forget(call);
    call->waiting = false;
    if (call->held) {
        zmq_msg_close(&call->held_header);
        zmq_msg_close(&call->held_data);
        call->held = false;
    }
    call->next = 0;
    call->in_flight_bytes = 0;
    call->asked.size = 0;
    call->asked_first = call->transfer->next_request;
}

size_t call_next(struct call *call)
{
    while (call->next < call->n && call->states[call->next] != ITEM_UNASKED)
        call->next++;
    return call->next;
}

bool call_has_room(const struct call *call, size_t more_bytes)
{
    return call->in_flight_bytes == 0 ||
           call->in_flight_bytes + more_bytes <= call->transfer->window_bytes;
}

void call_item_asked(struct call *call, size_t i, size_t bytes)
{
    call->states[i] = ITEM_ASKED;
    call->item_bytes[i] = (uint32_t)bytes;
    call->in_flight_bytes += bytes;
}

void call_item_done(struct call *call, size_t i)
{
    if (call->states[i] == ITEM_ASKED)
        call->in_flight_bytes -= call->item_bytes[i];
    if (call->states[i] != ITEM_DONE)
        call->n_done++;
    call->states[i] = ITEM_DONE;
}

/* Notes that the next request number asks for item `i`. */
int call_request_take(struct call *call, size_t i)
{
    int r = bytes_append(&call->asked, &i, sizeof(i));

    if (r == 0)
        call->transfer->next_request++;
    return r;
}

bool call_request_item(const struct call *call, uint64_t request, size_t *ret_i)
{
    uint64_t at = request - call->asked_first;

    if (request < call->asked_first || at >= call->asked.size / sizeof(size_t))
        return false;
    memcpy(ret_i, call->asked.data + at * sizeof(size_t), sizeof(size_t));
    return true;
}

/* ---- the loop ---- */

static int fault_result(uint32_t code)
{
    switch (code) {
    case CODE_UNKNOWN:
    case CODE_MISSING:
        return TRANSFER_E_MISSING;
    case CODE_BUSY:
        return TRANSFER_E_FULL;
    case CODE_FULL:
        return TRANSFER_E_DISK;
    case CODE_QUOTA:
        return TRANSFER_E_QUOTA;
    case CODE_INVALID:
        return TRANSFER_E_CORRUPT;
    case CODE_DAMAGED:
        return TRANSFER_E_DAMAGED;
    case CODE_INTERNAL:
        return TRANSFER_E_BROKER; /* no -errno: those are ours, and of our own disk */
    default:
        return TRANSFER_E_REFUSED;
    }
}

static int on_fault(struct call *call, const Wl__Bulk *bulk)
{
    struct transfer *transfer = call->transfer;
    const Wl__Fault *fault = bulk->fault;
    char what[2 * sizeof(struct block_id) + 16] = "transfer";
    bool opening = transfer->phase == PHASE_OPENING && bulk->request == transfer->open_request;
    size_t i;

    if (!opening && !call_request_item(call, bulk->request, &i))
        return 0; /* of a question that nobody asks any more */
    if (!opening && fault->code == CODE_STATE && transfer->reopens++ < REOPENS_MAX) {
        transfer->phase = PHASE_CLOSED;
        forget_asked(call);
        return 0;
    }

    if (fault->id.len) {
        memcpy(what, "block ", 7);
        hex_encode(fault->id.data, 8, what + 6);
    } else if (opening) {
        memcpy(what, "pass", 5);
    }
    /* A pass that the broker could not look at, just now, is not refused. */
    bool refused = opening && fault->code != CODE_INTERNAL && fault->code != CODE_BUSY;
    int r = transfer_say(transfer, refused ? TRANSFER_E_REFUSED : fault_result(fault->code), what,
                         *fault->why ? fault->why : code_name((int)fault->code),
                         *fault->next ? fault->next : "ask the operator of the broker");
    return call->lack && !opening && fault->id.len ? call->lack(call, &fault->id, r) : r;
}

static int on_message(struct call *call, zmq_msg_t *header, zmq_msg_t *data)
{
    struct transfer *transfer = call->transfer;
    const char *text;
    Wl__Bulk *bulk;
    int r;

    if (wire_bulk_unpack(zmq_msg_data(header), zmq_msg_size(header), &bulk, &text))
        return transfer_say(transfer, -EPROTO, transfer->endpoint, text, "check the versions of both sides");

    transfer->heard_ns = transfer->fresh_ns = clock_monotonic_ns();
    transfer->bytes_received += zmq_msg_size(data);
    if (bulk->body_case == WL__BULK__BODY_OPENED) {
        if (transfer->phase == PHASE_OPENING && bulk->request == transfer->open_request) {
            uint64_t window = bulk->opened->window_bytes;

            transfer->phase = PHASE_OPEN;
            transfer->window_bytes = window && window < transfer->config.window_bytes
                                         ? (size_t)window
                                         : transfer->config.window_bytes;
            forget_asked(call);
        }
        r = 0;
    } else if (bulk->body_case == WL__BULK__BODY_FAULT) {
        r = on_fault(call, bulk);
    } else {
        size_t done = call->n_done;

        r = call->answer(call, bulk, data);
        if (call->n_done != done)
            transfer->reopens = 0;
    }
    wl__bulk__free_unpacked(bulk, NULL);
    return r;
}

/* What happened to the connection; looked at before an answer is believed, because an answer on a
 * new connection comes after the event that announces it. */
static int look_at_link(struct call *call)
{
    struct transfer *transfer = call->transfer;
    enum link_status status;

    int r = link_monitor_read(transfer->monitor, &status);
    if (r <= 0)
        return r;
    transfer->refused_ns = status == LINK_REFUSED ? clock_monotonic_ns() : 0;
    transfer->phase = PHASE_CLOSED;
    forget_asked(call);
    return 0;
}

static int receive_some(struct call *call)
{
    for (int n = 0; n < RECEIVE_MAX; n++) {
        zmq_msg_t header, data;
        int r = link_receive(call->transfer->socket, NULL, NULL, &header, &data);

        if (r == LINK_E_FRAMES)
            continue;
        if (r)
            return r == LINK_E_AGAIN ? 0 : r;

        r = look_at_link(call);
        if (r == 0)
            r = on_message(call, &header, &data);
        zmq_msg_close(&header);
        zmq_msg_close(&data);
        if (r || call->n_done == call->n)
            return r;
    }
    return 0;
}

static int ask_all(struct call *call)
{
    struct transfer *transfer = call->transfer;
    int r = 0;

    transfer->blocked = call->waiting = false;
    if (transfer->phase == PHASE_CLOSED)
        return send_open(transfer);
    while (r == 0 && transfer->phase == PHASE_OPEN && (call->held || call_next(call) < call->n)) {
        size_t before = call->asked.size;

        r = call->ask(call);
        if (call->asked.size == before)
            break; /* the window is full */
        if (transfer->config.stop && atomic_load(transfer->config.stop))
            break;
    }
    return r == LINK_E_AGAIN ? 0 : r;
}

int call_wait(const struct call *call)
{
    const struct transfer *transfer = call->transfer;
    zmq_pollitem_t items[] = {
        {.socket = transfer->socket,
         .events = (short)(ZMQ_POLLIN | (transfer->blocked ? ZMQ_POLLOUT : 0))},
        {.socket = transfer->monitor, .events = ZMQ_POLLIN},
        {.fd = call->wake_fd, .events = ZMQ_POLLIN},
    };
    uint64_t count;

    if (zmq_poll(items, call->wake_fd < 0 ? 2 : 3, POLL_MS) < 0 && errno != EINTR)
        return -errno;
    if (call->wake_fd >= 0 && read(call->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return -errno;
    return 0;
}

/* Half way through its patience a silent connection is given up for a new one: the other end may
 * have gone without a word. */
static int mind_the_time(struct call *call)
{
    struct transfer *transfer = call->transfer;
    int64_t now_ns = clock_monotonic_ns();

    if ((transfer->config.stop && atomic_load(transfer->config.stop)) ||
        (transfer->config.tick && !transfer->config.tick(transfer->config.user)))
        return transfer_say(transfer, -ECANCELED, "transfer", "stopped", "start it again");
    if (call->waiting && transfer->phase == PHASE_OPEN)
        transfer->heard_ns = transfer->fresh_ns = now_ns;
    if (transfer->refused_ns && now_ns - transfer->refused_ns > REFUSED_NS)
        return transfer_say(transfer, TRANSFER_E_REFUSED, transfer->endpoint,
                            "this key was turned away",
                            "enrol it, or ask the operator whether it was revoked");
    if (now_ns - transfer->heard_ns > transfer->config.patience_ns)
        return transfer_say(transfer, -ETIMEDOUT, transfer->endpoint, "no answer",
                   "check the network and that the broker runs; what was sent is kept");
    if (now_ns - transfer->fresh_ns <= transfer->config.patience_ns / 2)
        return 0;

    int r = dial(transfer);
    forget_asked(call);
    return r;
}

int call_begin(struct call *call)
{
    struct transfer *transfer = call->transfer;
    int64_t now_ns = clock_monotonic_ns();
    int r = 0;

    transfer->why.size = 0;
    transfer->reopens = 0;
    if (!transfer->socket) {
        r = dial(transfer);
        forget_asked(call);
    }
    if (now_ns - transfer->heard_ns > IDLE_NS)
        transfer->phase = PHASE_CLOSED;
    transfer->heard_ns = transfer->fresh_ns = now_ns;
    return r;
}

int call_step(struct call *call)
{
    int r = look_at_link(call);

    if (r == 0)
        r = ask_all(call);
    if (r == 0)
        r = receive_some(call);
    if (r == 0 && call->n_done < call->n)
        r = mind_the_time(call);
    return r;
}

int call_run(struct call *call)
{
    if (call->n == 0) {
        call->transfer->why.size = 0;
        return 0;
    }
    int r = call_begin(call);
    forget_asked(call);
    while (r == 0 && call->n_done < call->n) {
        r = call_step(call);
        if (r == 0 && call->n_done < call->n)
            r = call_wait(call);
    }
    return r;
}

int call_init(struct call *call, struct transfer *transfer, size_t n, void *user)
{
    *call = (struct call){.transfer = transfer, .n = n, .user = user, .wake_fd = -1};
    call->states = calloc(n + 1, sizeof(*call->states));
    call->item_bytes = calloc(n + 1, sizeof(*call->item_bytes));
    return call->states && call->item_bytes ? 0 : -ENOMEM;
}

void call_deinit(struct call *call)
{
    if (call->held) {
        zmq_msg_close(&call->held_header);
        zmq_msg_close(&call->held_data);
    }
    free(call->states);
    free(call->item_bytes);
    free(call->slots);
    free(call->same);
    bytes_deinit(&call->asked);
    bytes_deinit(&call->out);
}
