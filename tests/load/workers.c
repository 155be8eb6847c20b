/* workers.c - a worker's link: Hello, its list, beats, leaving and coming back.
 *
 * libzmq connects a lost link again without a word. That the broker knows it no more is told by its
 * refusal ("say Hello first"), or by beats that are not answered.
 */
#include <tests/load/inner.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>

#define GREETING_NS   (30 * NS_PER_S)
#define SILENCE_BEATS 6
#define AWAY_NS       (3 * NS_PER_S) /* at most */
#define FAREWELL_NS   (10 * NS_PER_S)
#define RETRY_NS      (500 * NS_PER_MS)
#define HELLO_REQUEST UINT64_MAX

/* ---- when ---- */

static void heap_swap(struct load *load, uint32_t a, uint32_t b)
{
    uint32_t moved = load->heap[a];

    load->heap[a] = load->heap[b];
    load->heap[b] = moved;
    load->workers[load->heap[a]].heap_place = a;
    load->workers[load->heap[b]].heap_place = b;
}

static int64_t heap_at(const struct load *load, uint32_t place)
{
    return load->workers[load->heap[place]].at_ns;
}

void worker_at(struct load *load, uint32_t worker, int64_t at_ns)
{
    uint32_t place = load->workers[worker].heap_place;

    load->workers[worker].at_ns = at_ns;
    while (place > 0 && heap_at(load, place) < heap_at(load, (place - 1) / 2)) {
        heap_swap(load, place, (place - 1) / 2);
        place = (place - 1) / 2;
    }
    for (;;) {
        uint32_t least = place;

        for (uint32_t child = 2 * place + 1; child <= 2 * place + 2 && child < load->n_heap;
             child++)
            if (heap_at(load, child) < heap_at(load, least))
                least = child;
        if (least == place)
            return;
        heap_swap(load, place, least);
        place = least;
    }
}

void worker_dirty(struct load *load, uint32_t worker)
{
    if (load->workers[worker].dirty)
        return;
    load->workers[worker].dirty = true;
    load->dirty[load->n_dirty++] = worker;
}

int workers_init(struct load *load)
{
    const struct load_config *config = &load->config;
    uint32_t n = config->workers;
    int r = 0;

    load->workers = calloc(n, sizeof(*load->workers));
    load->heap = calloc(n, sizeof(*load->heap));
    load->dirty = calloc(n, sizeof(*load->dirty));
    load->out = malloc(LIMIT_CONTROL_BYTES);
    if (!load->workers || !load->heap || !load->dirty || !load->out)
        return -ENOMEM;
    load->beat_ns = LIMIT_BEAT_NS;
    load->n_heap = n;
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        struct worker *worker = &load->workers[i];

        worker->heap_place = load->heap[i] = i;
        worker->session = (uint64_t)(clock_wall_ns() / NS_PER_US);
        worker->at_ns = load->now_ns + (int64_t)i * NS_PER_S / config->ramp; /* in order: a heap */
        worker->free_ns = calloc(config->slots, sizeof(*worker->free_ns));
        worker->n_free = config->slots;
        r = worker->free_ns ? random_bytes(worker->boot, sizeof(worker->boot)) : -ENOMEM;
    }
    return r;
}

void workers_deinit(struct load *load)
{
    for (uint32_t i = 0; load->workers && i < load->config.workers; i++)
        free(load->workers[i].free_ns);
    free(load->workers);
    free(load->heap);
    free(load->dirty);
    free(load->out);
}

/* ---- coming and going ---- */

void worker_offline(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    load->n_joined -= self->state == PHASE_JOINED;
    self->state = PHASE_AWAY;
    self->say_hello = self->say_list = self->say_beat = false;
    leases_offline(load, worker);
}

void worker_greet(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    worker_offline(load, worker);
    if (!self->open && net_open(load->net, worker, &load->keys[worker]) < 0) {
        load->counts.errors++;
        worker_at(load, worker, load->now_ns + RETRY_NS);
        return;
    }
    self->open = true;
    self->session++;
    self->state = PHASE_GREETING;
    self->say_hello = true;
    self->heard_ns = load->now_ns;
    worker_at(load, worker, load->now_ns + GREETING_NS);
    worker_dirty(load, worker);
}

/* Its process is gone, or its link alone: then it keeps what it has. */
static void leave(struct load *load, uint32_t worker, bool dies)
{
    struct worker *self = &load->workers[worker];

    load->counts.left++;
    worker_offline(load, worker);
    if (net_cut(load->net, worker))
        self->open = false;
    self->leaving = false;
    if (dies) {
        leases_forget(load, worker);
        memcpy(self->boot, (uint64_t[]){load_random(load), load_random(load)}, sizeof(self->boot));
    }
    worker_at(load, worker, load->now_ns + (int64_t)(load_random(load) % AWAY_NS));
}

/* One leaves: at once, or at once and comes back with all it had, or when it has done what it has.
 */
static void churn(struct load *load)
{
    double each_ns = 60.0 * NS_PER_S / (load->config.workers * load->config.churn / 100);
    uint32_t worker;

    if (load->config.churn <= 0 || load->counts.committed == 0)
        return;
    if (load->churn_ns == 0)
        load->churn_ns = load->now_ns + (int64_t)each_ns;
    if (load->now_ns < load->churn_ns)
        return;
    load->churn_ns += (int64_t)each_ns;
    worker = (uint32_t)(load_random(load) % load->config.workers);
    if (load->workers[worker].state != PHASE_JOINED || load->workers[worker].leaving)
        return;
    switch (load_random(load) % 3) {
    case 0:
        leave(load, worker, true);
        break;
    case 1:
        leave(load, worker, false);
        break;
    default:
        load->workers[worker].leaving = load->workers[worker].say_beat = true;
        worker_at(load, worker, load->now_ns + FAREWELL_NS);
        worker_dirty(load, worker);
    }
}

/* As the worker does: where both have spoken, nobody need ask whether the other is there. */
static int64_t talked_ns(const struct worker *worker)
{
    return worker->told_ns < worker->heard_ns ? worker->told_ns : worker->heard_ns;
}

static void tend(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    switch (self->state) {
    case PHASE_AWAY:
    case PHASE_GREETING:
    case PHASE_LISTING:
        worker_greet(load, worker);
        return;
    case PHASE_JOINED:
        if (self->leaving) {
            leave(load, worker, self->n_held == 0);
        } else if (load->now_ns - self->heard_ns > SILENCE_BEATS * load->beat_ns) {
            worker_greet(load, worker); /* libzmq is at it: all at once would be worse */
        } else if (talked_ns(self) + load->beat_ns > load->now_ns) {
            worker_at(load, worker, talked_ns(self) + load->beat_ns);
        } else {
            self->say_beat = true;
            worker_at(load, worker, load->now_ns + load->beat_ns);
            worker_dirty(load, worker);
        }
    }
}

void workers_tend(struct load *load)
{
    churn(load);
    while (load->n_heap > 0 && heap_at(load, 0) <= load->now_ns)
        tend(load, load->heap[0]);
}

int64_t workers_deadline_ns(const struct load *load)
{
    int64_t at_ns = heap_at(load, 0);

    return load->churn_ns && load->churn_ns < at_ns ? load->churn_ns : at_ns;
}

void workers_beat(struct load *load)
{
    for (uint32_t i = 0; i < load->config.workers; i++) {
        load->workers[i].say_beat = true;
        worker_dirty(load, i);
    }
}

/* ---- what it hears ---- */

static void take_welcome(struct load *load, uint32_t worker, const Wl__Welcome *welcome)
{
    struct worker *self = &load->workers[worker];

    if (self->state != PHASE_GREETING)
        return;
    self->epoch = welcome->epoch;
    if (welcome->epoch > load->epoch)
        load->epoch = welcome->epoch;
    if (welcome->beat_ns >= 50 * NS_PER_MS)
        load->beat_ns = (int64_t)welcome->beat_ns;
    self->state = PHASE_LISTING;
    self->say_list = true;
    if (!load->first_lease_ns)
        load->moved_ns = load->now_ns;
    worker_at(load, worker, load->now_ns + GREETING_NS);
    worker_dirty(load, worker);
}

/* "Say Hello first" may be about what was said before it was said. */
static void take_refusal(struct load *load, uint32_t worker, const Wl__Envelope *envelope)
{
    struct worker *self = &load->workers[worker];
    const Wl__Refusal *refusal = envelope->refusal;

    if (refusal->code == CODE_STATE && envelope->request != HELLO_REQUEST) {
        if (self->state == PHASE_JOINED || self->state == PHASE_LISTING)
            worker_greet(load, worker);
        return;
    }
    log_limited(LOG_WARN, "refused", "worker=%u code=\"%s\" what=\"%s\" why=\"%s\"", worker,
                code_name(refusal->code), refusal->what, refusal->why);
    load->counts.errors++;
    if (envelope->request == HELLO_REQUEST) {
        worker_offline(load, worker);
        worker_at(load, worker, load->now_ns + RETRY_NS);
    }
}

static void take_other(struct load *load, uint32_t worker, const uint8_t *data, size_t size)
{
    struct worker *self = &load->workers[worker];
    Wl__Envelope *envelope;
    const char *why;

    if (wire_unpack(data, size, &envelope, &why) != 0) {
        log_limited(LOG_ERROR, "malformed", "why=\"%s\"", why);
        load->counts.refused++;
        return;
    }
    switch (envelope->body_case) {
    case WL__ENVELOPE__BODY_WELCOME:
        take_welcome(load, worker, envelope->welcome);
        break;
    case WL__ENVELOPE__BODY_VERDICT:
        if (self->state == PHASE_LISTING) {
            leases_verdict(load, worker, envelope->verdict);
            if (self->state == PHASE_JOINED)
                worker_at(load, worker,
                          load->now_ns + 1 +
                              (int64_t)(load_random(load) % (uint64_t)load->beat_ns));
        }
        break;
    case WL__ENVELOPE__BODY_REVOKE:
        leases_revoke(load, worker, envelope->revoke);
        break;
    case WL__ENVELOPE__BODY_REFUSAL:
        take_refusal(load, worker, envelope);
        break;
    default:
        break;
    }
    wire_free(envelope);
}

static void take_envelope(struct load *load, uint32_t worker, const uint8_t *data, size_t size)
{
    struct hot_envelope envelope;
    struct hot_assign assign;
    struct hot_committed committed;

    if (!hot_envelope(data, size, &envelope)) {
        take_other(load, worker, data, size); /* says why not */
        return;
    }
    switch (envelope.body) {
    case WL__ENVELOPE__BODY_ASSIGN:
        load->counts.assign_bytes += size;
        if (hot_assign(envelope.data, envelope.size, &assign))
            leases_assign(load, worker, &assign);
        else
            take_other(load, worker, data, size);
        return;
    case WL__ENVELOPE__BODY_COMMITTED:
        load->counts.committed_bytes += size;
        if (hot_committed(envelope.data, envelope.size, &committed))
            leases_committed(load, worker, &committed);
        else
            take_other(load, worker, data, size);
        return;
    case WL__ENVELOPE__BODY_BEAT:
        return;
    default:
        take_other(load, worker, data, size);
    }
}

void worker_hear(struct load *load, uint32_t worker, const void *data, size_t size)
{
    struct worker *self = &load->workers[worker];
    struct hot_each each;
    const uint8_t *one;
    size_t one_size;

    load->counts.messages_in++;
    load->counts.bytes_in += size;
    self->heard_ns = load->now_ns;
    hot_each_init(&each, data, size);
    while (hot_each_next(&each, &one, &one_size))
        take_envelope(load, worker, one, one_size);
    if (each.bad) {
        log_limited(LOG_ERROR, "malformed", "why=\"a packet that is cut short\"");
        load->counts.refused++;
    }
    if (self->leaving && self->state == PHASE_JOINED && self->n_held == 0 && !self->say_beat)
        worker_at(load, worker, load->now_ns);
}

/* ---- what it says ---- */

static int say_hello(struct load *load, uint32_t worker)
{
    const struct load_config *config = &load->config;
    struct worker *self = &load->workers[worker];
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Hello hello = WL__HELLO__INIT;
    Wl__Offer offer = WL__OFFER__INIT;
    Wl__Amount vcpu = WL__AMOUNT__INIT, memory = WL__AMOUNT__INIT, *amounts[] = {&vcpu, &memory};
    char name[32];

    snprintf(name, sizeof(name), "load-%05u", worker);
    vcpu.name = (char[]){"amount.worker.vcpu"};
    vcpu.min = config->slots;
    memory.name = (char[]){"amount.worker.memory"};
    memory.min = config->slots * 1024.0;
    offer.name = name;
    offer.slots = config->slots;
    offer.prefetch = config->prefetch;
    offer.amounts = amounts;
    offer.n_amounts = ARRAY_SIZE(amounts);
    hello.protocol = WIRE_PROTOCOL;
    hello.program = (char[]){"westlight-load " WESTLIGHT_VERSION};
    hello.session = self->session;
    hello.boot = (ProtobufCBinaryData){sizeof(self->boot), self->boot};
    hello.offer = &offer;
    envelope.request = HELLO_REQUEST;
    envelope.body_case = WL__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    load->counts.hellos++;
    return load_say(load, worker, &envelope);
}

static int say_beat(struct load *load, uint32_t worker)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Beat beat = WL__BEAT__INIT;

    beat.session = load->workers[worker].session;
    beat.no_room = load->workers[worker].leaving || load->hold;
    envelope.body_case = WL__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    return load_say(load, worker, &envelope);
}

static int flush(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];
    int r = 0;

    if (!self->open)
        return 0;
    if (self->say_hello && (r = say_hello(load, worker)) == 0)
        self->say_hello = false;
    if (r == 0 && self->say_list && (r = leases_list(load, worker)) == 0)
        self->say_list = false;
    if (r == 0 && self->say_beat && self->state == PHASE_JOINED &&
        (r = say_beat(load, worker)) == 0)
        self->say_beat = false;
    if (r == 0 && self->state == PHASE_JOINED)
        r = leases_say(load, worker);
    return r;
}

int workers_flush(struct load *load)
{
    uint32_t n = load->n_dirty, kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t worker = load->dirty[i];
        int r = flush(load, worker);

        if (r < 0)
            return r;
        if (r == LINK_E_AGAIN)
            load->dirty[kept++] = worker; /* no room: at the next turn */
        else
            load->workers[worker].dirty = false;
    }
    load->n_dirty = kept;
    return 0;
}
