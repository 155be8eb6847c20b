/* connection.c - a control link that comes back by itself: see connection.h for the idea.
 *
 * One function waits (connection_turn): it looks at the monitor, greets when the link is up, takes
 * a message, and otherwise polls. Everything else is a condition around it.
 */
#include <client/connection.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <client/farm.h>
#include <client/look.h>
#include <proto/base/crash.h>

/* A request that has gone this long without an answer may have been lost with its link. */
#define REPEAT_NS (10 * NS_PER_S)
/* A broker with many connections forgets quiet ones, and what they watch with them. */
#define QUIET_NS (30 * NS_PER_S)
/* An answer may be held up behind what cannot be written; whoever asks anew is told so. */
#define HELLO_AGAIN_NS (2 * NS_PER_S)
/* Between two questions to a broker whose disk is full; the space may have come back already. */
#define FULL_NS    NS_PER_S
#define FULL_TRIES 2 /* of who has only come, before that is told */

int connection_fail(struct westlight *westlight, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(westlight->why, sizeof(westlight->why), format, arguments);
    va_end(arguments);
    return code;
}

void connection_begin(struct westlight *westlight)
{
    for (size_t i = 0; i < westlight->n_scratch; i++)
        free(westlight->scratch[i]);
    free(westlight->scratch);
    westlight->scratch = NULL;
    westlight->n_scratch = 0;
    wire_free(TAKE_PTR(westlight->held));
    westlight->why[0] = '\0';
}

void *connection_scratch(struct westlight *westlight, size_t n, size_t size)
{
    void **grown = reallocarray(westlight->scratch, westlight->n_scratch + 1, sizeof(*grown));
    if (!grown)
        return NULL;
    westlight->scratch = grown;
    void *memory = calloc(n ? n : 1, size);
    if (memory)
        westlight->scratch[westlight->n_scratch++] = memory;
    return memory;
}

const char *westlight_why(const struct westlight *westlight)
{
    return westlight->why;
}

void westlight_stop(struct westlight *westlight)
{
    int saved = errno; /* a signal handler may be here */
    uint64_t one = 1;

    atomic_store(&westlight->stop, true);
    if (write(westlight->stop_fd, &one, sizeof(one)) < 0) {
        /* The counter is full: it is readable already. */
    }
    errno = saved;
}

/* A stop ends one call; the next begins afresh. */
int connection_stopped(struct westlight *westlight)
{
    uint64_t count;

    atomic_store(&westlight->stop, false);
    if (read(westlight->stop_fd, &count, sizeof(count)) < 0) {
        /* Nothing was written yet. */
    }
    return connection_fail(westlight, WESTLIGHT_E_STOPPED, "stopped");
}

/* ---- messages ---- */

static int64_t remaining_ns(int64_t deadline_ns)
{
    return deadline_ns == 0 ? INT64_MAX : deadline_ns - clock_monotonic_ns();
}

static int send_envelope(struct westlight *westlight, const Wl__Envelope *envelope)
{
    zmq_msg_t message;

    int r = wire_pack(envelope, &message);
    if (r < 0)
        return r;
    r = link_send(westlight->socket, NULL, &message, NULL);
    if (r != 0)
        zmq_msg_close(&message);
    return r;
}

static int send_hello(struct westlight *westlight)
{
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    char program[] = "westlight " WESTLIGHT_VERSION;

    hello.protocol = WIRE_PROTOCOL;
    hello.program = program;
    envelope.request = ++westlight->request;
    envelope.body_case = WL__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    int r = send_envelope(westlight, &envelope);
    if (r == 0) {
        westlight->hello = envelope.request;
        westlight->hello_ns = clock_monotonic_ns() + HELLO_AGAIN_NS;
        westlight->greeted = true;
    }
    return r == LINK_E_AGAIN ? 0 : r;
}

/* Of a connection that the broker may know nothing of. */
static void greet_anew(struct westlight *westlight)
{
    westlight->greeted = westlight->welcome = false;
    westlight->hello_ns = 0;
}

static int send_watch(struct westlight *westlight, struct westlight_watch *watch, bool stop)
{
    Wl__Watch message = WL__WATCH__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    message.job = (ProtobufCBinaryData){sizeof(watch->job), watch->job};
    message.stop = stop;
    envelope.request = ++westlight->request;
    envelope.body_case = WL__ENVELOPE__BODY_WATCH;
    envelope.watch = &message;
    int r = send_envelope(westlight, &envelope);
    return r > 0 ? 0 : r; /* the link broke again: it is renewed with the next greeting */
}

static int take_welcome(struct westlight *westlight, const Wl__Welcome *welcome)
{
    if (welcome->protocol < WIRE_PROTOCOL_MIN || welcome->protocol > WIRE_PROTOCOL)
        return connection_fail(westlight, WESTLIGHT_E_REFUSED,
                               "farm %s: the broker (%s) speaks protocol %u, this program %u to "
                               "%u: update the older one",
                               westlight->farm.name, welcome->program, welcome->protocol,
                               WIRE_PROTOCOL_MIN, WIRE_PROTOCOL);
    bool again = westlight->generation > 0;
    westlight->welcome = true;
    westlight->disk_full = false;
    westlight->generation++;
    westlight->role = welcome->role;
    westlight->epoch = welcome->epoch;
    snprintf(westlight->studio, sizeof(westlight->studio), "%s", welcome->studio);
    snprintf(westlight->bulk, sizeof(westlight->bulk), "%s", welcome->bulk);
    int r = 0;
    for (size_t i = 0; again && r == 0 && i < westlight->n_watches; i++)
        r = send_watch(westlight, &westlight->watches[i], false);
    return r;
}

static void keep_notice(struct westlight *westlight, Wl__Envelope *envelope)
{
    const Wl__Notice *notice = envelope->notice;
    const ProtobufCBinaryData *job = notice->row ? &notice->row->job : &notice->job;

    for (size_t i = 0; i < westlight->n_watches; i++) {
        struct westlight_watch *watch = &westlight->watches[i];
        if (job->len == sizeof(watch->job) &&
            memcmp(job->data, watch->job, sizeof(watch->job)) == 0) {
            wire_free(watch->notice);
            watch->notice = envelope;
            return;
        }
    }
    wire_free(envelope);
}

static int refused(struct westlight *westlight, const Wl__Refusal *refusal)
{
    static const int codes[CODES_COUNT] = {
        [CODE_UNKNOWN] = WESTLIGHT_E_UNKNOWN, [CODE_REFUSED] = WESTLIGHT_E_REFUSED,
        [CODE_INVALID] = WESTLIGHT_E_USAGE,   [CODE_CONFLICT] = WESTLIGHT_E_USAGE,
        [CODE_MISSING] = WESTLIGHT_E_MISSING, [CODE_BUSY] = WESTLIGHT_E_BUSY,
        [CODE_STATE] = WESTLIGHT_E_STATE,     [CODE_PROTOCOL] = WESTLIGHT_E_REFUSED,
        [CODE_STALE] = WESTLIGHT_E_STATE,     [CODE_ALREADY] = WESTLIGHT_E_STATE,
        [CODE_FULL] = WESTLIGHT_E_BUSY,       [CODE_QUOTA] = WESTLIGHT_E_BUSY,
    };
    int code = refusal->code < CODES_COUNT ? codes[refusal->code] : 0;

    westlight->refusal = (enum code)refusal->code;
    return connection_fail(westlight, code ? code : -EPROTO, "%s%s%s%s%s", refusal->what,
                           refusal->what[0] ? ": " : "",
                           refusal->why[0] ? refusal->why : code_name(refusal->code),
                           refusal->next[0] ? ": " : "", refusal->next);
}

/* ---- the link ---- */

static int key_refused(struct westlight *westlight)
{
    char key[IDENTITY_Z85_SIZE];

    identity_key_text(&westlight->keys.public_key, key);
    return connection_fail(
        westlight, WESTLIGHT_E_REFUSED,
        "farm %s at %s: server_key is of another broker, or this one does not know "
        "the key %s: ask the operator to run: westlight-broker allow --state "
        "DIR --role studio --studio NAME %s'%s'",
        westlight->farm.name, westlight->farm.control, key, key[0] == '-' ? "-- " : "", key);
}

int connection_open(struct westlight *westlight)
{
    int r = link_connect(westlight->context, LINK_CONTROL, westlight->farm.control,
                         &westlight->server, &westlight->keys, &westlight->socket);

    return r ? r : link_monitor(westlight->context, westlight->socket, &westlight->monitor);
}

/* A socket whose handshake was turned away never tries again: another one does, a little later. */
static int link_renew(struct westlight *westlight)
{
    struct timespec pause = {.tv_nsec = CONNECTION_RENEW_NS};

    wire_inbox_deinit(&westlight->inbox);
    link_close(westlight->monitor);
    link_close(westlight->socket);
    westlight->monitor = westlight->socket = NULL;
    westlight->status = LINK_DOWN;
    nanosleep(&pause, NULL);
    return connection_open(westlight);
}

static int look_at_link(struct westlight *westlight)
{
    int r = link_monitor_read(westlight->monitor, &westlight->status);
    if (r < 0)
        return r;
    if (r > 0) /* any change means another connection: the broker knows nothing of it yet */
        greet_anew(westlight);
    if (r > 0 && westlight->status == LINK_UP)
        westlight->refusals = 0;
    if (westlight->status == LINK_REFUSED)
        return ++westlight->refusals > (westlight->generation == 0 ? CONNECTION_REFUSALS_FIRST
                                                                   : CONNECTION_REFUSALS)
                   ? key_refused(westlight)
                   : link_renew(westlight);
    return westlight->status == LINK_UP && !westlight->welcome &&
                   clock_monotonic_ns() >= westlight->hello_ns
               ? send_hello(westlight)
               : 0;
}

static int take_message(struct westlight *westlight, Wl__Envelope **ret_envelope)
{
    const char *why;
    int r = wire_next(&westlight->inbox, westlight->socket, NULL, NULL, ret_envelope, &why);

    if (r == LINK_E_FRAMES)
        return LINK_E_AGAIN; /* dropped */
    if (r == -EPROTO)
        return connection_fail(
            westlight, -EPROTO,
            "farm %s: the broker sent what is no message (%s): update this program",
            westlight->farm.name, why);
    return r;
}

static int poll_link(struct westlight *westlight, int64_t deadline_ns)
{
    zmq_pollitem_t items[] = {
        {.socket = westlight->socket, .events = ZMQ_POLLIN},
        {.socket = westlight->monitor, .events = ZMQ_POLLIN},
        {.fd = westlight->stop_fd, .events = ZMQ_POLLIN},
    };
    int64_t left_ns = remaining_ns(deadline_ns);

    if (left_ns <= 0)
        return WESTLIGHT_E_TIMEOUT;
    if (left_ns > NS_PER_S)
        left_ns = NS_PER_S; /* so that a lost edge costs a second at most */
    if (zmq_poll(items, (int)ARRAY_SIZE(items), (long)((left_ns + NS_PER_MS - 1) / NS_PER_MS)) <
            0 &&
        errno != EINTR)
        return -errno;
    return 0;
}

static void tell_away(struct westlight *westlight)
{
    int64_t now_ns = clock_monotonic_ns();
    bool away;

    if (!westlight->on_link || westlight->generation == 0)
        return; /* whoever opens it waits for a time of its own */
    if (westlight->welcome)
        westlight->away_ns = 0;
    else if (!westlight->away_ns)
        westlight->away_ns = now_ns;
    away = westlight->away_ns && now_ns - westlight->away_ns > CONNECTION_AWAY_NS;
    if (away != westlight->told_away)
        westlight->on_link(westlight->link_user, away);
    westlight->told_away = away;
}

void westlight_on_link(struct westlight *westlight, westlight_link *link, void *user)
{
    westlight->on_link = link;
    westlight->link_user = user;
}

/* One turn: 0 with an envelope, or with NULL when something else happened; WESTLIGHT_E_TIMEOUT at
 * the deadline. Greetings and notices are dealt with here. */
static int connection_turn(struct westlight *westlight, int64_t deadline_ns,
                           Wl__Envelope **ret_envelope)
{
    Wl__Envelope *envelope = NULL;

    if (atomic_load(&westlight->stop))
        return connection_stopped(westlight);
    int r = look_at_link(westlight);
    if (r != 0)
        return r;
    tell_away(westlight);
    r = take_message(westlight, &envelope);
    if (r == LINK_E_AGAIN) {
        *ret_envelope = NULL;
        return poll_link(westlight, deadline_ns);
    }
    if (r != 0)
        return r;

    *ret_envelope = NULL;
    if (envelope->body_case == WL__ENVELOPE__BODY_WELCOME) {
        r = !westlight->welcome ? take_welcome(westlight, envelope->welcome) : 0;
        wire_free(envelope);
    } else if (envelope->body_case == WL__ENVELOPE__BODY_REFUSAL &&
               envelope->request == westlight->hello) {
        /* Who is in the middle of something waits until the farm's disk has space again. */
        if (envelope->refusal->code == CODE_FULL &&
            (westlight->generation > 0 || westlight->full_tries++ < FULL_TRIES)) {
            westlight->greeted = false;
            westlight->disk_full = true;
            westlight->hello_ns = clock_monotonic_ns() + FULL_NS;
        } else if (envelope->refusal->again_ms) {
            westlight->greeted = false;
            westlight->hello_ns = clock_monotonic_ns() + envelope->refusal->again_ms * NS_PER_MS;
        } else {
            r = refused(westlight, envelope->refusal);
        }
        wire_free(envelope);
    } else if (envelope->body_case == WL__ENVELOPE__BODY_NOTICE) {
        keep_notice(westlight, envelope);
    } else {
        *ret_envelope = envelope;
    }
    return r;
}

static int no_answer(struct westlight *westlight)
{
    if (westlight->status == LINK_REFUSED)
        return key_refused(westlight);
    if (westlight->disk_full)
        return connection_fail(westlight, WESTLIGHT_E_BUSY,
                               "farm %s: its disk is full: try again once the operator has freed "
                               "space; what runs goes on, and this request may yet take effect",
                               westlight->farm.name);
    if (!westlight->welcome)
        return connection_fail(
            westlight, WESTLIGHT_E_UNREACHABLE,
            "farm %s at %s: nobody answers: check the address, or that the broker runs",
            westlight->farm.name, westlight->farm.control);
    return connection_fail(westlight, WESTLIGHT_E_TIMEOUT,
                           "farm %s at %s: no answer in time: try again", westlight->farm.name,
                           westlight->farm.control);
}

int connection_welcome(struct westlight *westlight, int64_t deadline_ns)
{
    while (!westlight->welcome) {
        Wl__Envelope *other = NULL;
        int r = connection_turn(westlight, deadline_ns, &other);
        wire_free(other);
        if (r == WESTLIGHT_E_TIMEOUT)
            return no_answer(westlight);
        if (r != 0)
            return r;
    }
    return 0;
}

/* ---- requests ---- */

/* Sends what is being waited for when the link is (again) greeted, or has been silent too long. */
static int send_due(struct westlight *westlight, const Wl__Envelope *request, uint32_t *generation,
                    int64_t *sent_ns)
{
    if (!westlight->welcome)
        return 0;
    int64_t now_ns = clock_monotonic_ns();
    if (*generation == westlight->generation) {
        if (now_ns - *sent_ns < REPEAT_NS)
            return 0;
        greet_anew(westlight); /* the Welcome has it repeated */
        return 0;
    }
    crash_point("call.send");
    int r = send_envelope(westlight, request);
    crash_point("call.sent");
    if (r == -EMSGSIZE)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "the request: larger than %d KiB: use fewer steps, ranges or values",
                               LIMIT_CONTROL_BYTES / 1024);
    if (r == 0) {
        *generation = westlight->generation;
        *sent_ns = now_ns;
    }
    return r == LINK_E_AGAIN ? 0 : r;
}

/* What brings nothing new is worth waiting for where the farm's disk is full. */
static bool reads(const Wl__Envelope *request)
{
    return request->body_case != WL__ENVELOPE__BODY_SUBMIT &&
           request->body_case != WL__ENVELOPE__BODY_EDIT &&
           request->body_case != WL__ENVELOPE__BODY_UPLOADING &&
           !(request->body_case == WL__ENVELOPE__BODY_PASS_REQUEST &&
             request->pass_request->write_bytes > 0);
}

/* Before it is asked again; 0: that is the answer. */
static int64_t wait_of(const Wl__Envelope *request, const Wl__Envelope *answer)
{
    if (answer->body_case != WL__ENVELOPE__BODY_REFUSAL)
        return 0;
    if (answer->refusal->again_ms)
        return answer->refusal->again_ms * NS_PER_MS;
    return answer->refusal->code == CODE_FULL && reads(request) ? FULL_NS : 0;
}

int connection_call(struct westlight *westlight, Wl__Envelope *request,
                    Wl__Envelope__BodyCase expected, int64_t timeout_ns, Wl__Envelope **ret_answer)
{
    int64_t deadline_ns = clock_monotonic_ns() + timeout_ns, sent_ns = 0;
    uint32_t generation = 0;
    bool again = false;

    request->request = ++westlight->request;
    westlight->refusal = CODE_OK;
    for (;;) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        int r = send_due(westlight, request, &generation, &sent_ns);
        if (r == 0)
            r = connection_turn(westlight, deadline_ns, &answer);
        if (r == WESTLIGHT_E_TIMEOUT)
            return no_answer(westlight);
        if (r != 0)
            return r;
        if (!answer || answer->request != request->request)
            continue;
        if (answer->body_case == WL__ENVELOPE__BODY_REFUSAL &&
            answer->refusal->code == CODE_STATE && !again) {
            /* Perhaps the broker forgot this connection; greeted, it says the same only if it means
             * the job. */
            again = true;
            greet_anew(westlight);
            continue;
        }
        int64_t wait_ns = wait_of(request, answer);
        if (wait_ns > 0 && remaining_ns(deadline_ns) > wait_ns) {
            r = connection_sleep(westlight, wait_ns);
            if (r != 0)
                return r;
            generation = 0;
            continue;
        }
        if (answer->body_case == WL__ENVELOPE__BODY_REFUSAL)
            return refused(westlight, answer->refusal);
        if (answer->body_case != expected)
            return connection_fail(
                westlight, -EPROTO,
                "farm %s: the broker gave an answer of another kind: update this program",
                westlight->farm.name);
        crash_point("call.answered");
        *ret_answer = TAKE_PTR(answer);
        return 0;
    }
}

int connection_post(struct westlight *westlight, Wl__Envelope *message)
{
    message->request = ++westlight->request;
    int r = westlight->welcome ? send_envelope(westlight, message) : 0;
    return r == LINK_E_AGAIN ? 0 : r;
}

int connection_glance(struct westlight *westlight, Wl__Envelope **ret_answer)
{
    *ret_answer = NULL;
    for (;;) {
        int r = connection_turn(westlight, clock_monotonic_ns(), ret_answer);
        if (r != 0 || *ret_answer)
            return r == WESTLIGHT_E_TIMEOUT ? 0 : r;
    }
}

int connection_notice(struct westlight *westlight, int64_t deadline_ns,
                      struct westlight_watch **ret_watch)
{
    int64_t quiet_ns = clock_monotonic_ns() + QUIET_NS;

    for (;;) {
        for (size_t i = 0; i < westlight->n_watches; i++)
            if (westlight->watches[i].notice) {
                *ret_watch = &westlight->watches[i];
                return 0;
            }
        Wl__Envelope *other = NULL;
        int r = connection_turn(
            westlight, deadline_ns && deadline_ns < quiet_ns ? deadline_ns : quiet_ns, &other);
        wire_free(other); /* an answer that came too late */
        if (r == WESTLIGHT_E_TIMEOUT && remaining_ns(deadline_ns) > 0) {
            quiet_ns = clock_monotonic_ns() + QUIET_NS;
            greet_anew(westlight); /* the Welcome renews the watches */
            continue;
        }
        if (r == WESTLIGHT_E_TIMEOUT)
            return connection_fail(westlight, r, "nothing happened in time");
        if (r != 0)
            return r;
    }
}

int connection_watch(struct westlight *westlight, const uint8_t job[16],
                     struct westlight_watch **ret_watch)
{
    int64_t deadline_ns = clock_monotonic_ns() + CONNECTION_TIMEOUT_NS;
    struct westlight_watch *watch = NULL;

    for (size_t i = 0; i < westlight->n_watches; i++)
        if (memcmp(westlight->watches[i].job, job, sizeof(watch->job)) == 0)
            watch = &westlight->watches[i];
    if (!watch && westlight->n_watches == CONNECTION_WATCHES)
        return connection_fail(westlight, WESTLIGHT_E_BUSY,
                               "watch: %d jobs are watched on this connection: open another",
                               CONNECTION_WATCHES);
    if (!watch) {
        watch = &westlight->watches[westlight->n_watches++];
        memset(watch, 0, sizeof(*watch));
        memcpy(watch->job, job, sizeof(watch->job));
    }
    *ret_watch = watch;
    int r = connection_welcome(westlight, deadline_ns);
    if (r == 0)
        r = send_watch(westlight, watch, false);
    if (r != 0)
        return r;

    /* The first notice answers as well as a word does; after a break the greeting renews it. */
    for (uint64_t number = westlight->request; !watch->notice;) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        r = connection_turn(westlight, deadline_ns, &answer);
        if (r == WESTLIGHT_E_TIMEOUT)
            return no_answer(westlight);
        if (r != 0)
            return r;
        if (!answer || answer->request != number)
            continue;
        if (answer->body_case != WL__ENVELOPE__BODY_REFUSAL)
            break;
        int64_t wait_ns = answer->refusal->again_ms * NS_PER_MS;
        if (wait_ns == 0 || remaining_ns(deadline_ns) < wait_ns)
            return refused(westlight, answer->refusal);
        r = connection_sleep(westlight, wait_ns);
        if (r == 0)
            r = send_watch(westlight, watch, false);
        if (r != 0)
            return r;
        number = westlight->request;
    }
    return 0;
}

void connection_unwatch(struct westlight *westlight, const uint8_t job[16])
{
    for (size_t i = 0; i < westlight->n_watches; i++) {
        struct westlight_watch *watch = &westlight->watches[i];
        if (memcmp(watch->job, job, sizeof(watch->job)) != 0)
            continue;
        if (westlight->greeted)
            send_watch(westlight, watch, true);
        wire_free(watch->notice);
        look_steps_free(watch->steps);
        *watch = westlight->watches[--westlight->n_watches];
        return;
    }
}

int connection_sleep(struct westlight *westlight, int64_t span_ns)
{
    int64_t deadline_ns = clock_monotonic_ns() + span_ns;

    for (;;) {
        Wl__Envelope *other = NULL;
        int r = connection_turn(westlight, deadline_ns, &other);
        wire_free(other);
        if (r != 0)
            return r == WESTLIGHT_E_TIMEOUT ? 0 : r;
    }
}
