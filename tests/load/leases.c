/* leases.c - what becomes of a lease at its worker.
 *
 * As in the real one, a task begins when the one it is behind has ended, and what there is to say
 * is read from the leases: a list of those of which something is to be said, never of messages.
 */
#include <tests/load/inner.h>

#include <stdio.h>
#include <string.h>
#include <proto/base/log.h>

#define ANSWER_NS (60 * NS_PER_S) /* before a result that nobody answered is repeated */
#define AGAIN_NS  (2 * NS_PER_S)  /* before it is repeated to a busy broker */

static void say(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];
    struct worker *worker = &load->workers[held->worker];

    if (worker->state != PHASE_JOINED || held->in_say)
        return;
    held->in_say = true;
    held->say_next = 0;
    if (worker->last_say)
        load->held[worker->last_say].say_next = index;
    else
        worker->first_say = index;
    worker->last_say = index;
    worker_dirty(load, held->worker);
}

static void say_nothing(struct load *load, struct worker *worker)
{
    for (uint32_t index = worker->first_say; index; index = load->held[index].say_next)
        load->held[index].in_say = false;
    worker->first_say = worker->last_say = 0;
}

/* ---- running ---- */

static void slot_ends(struct load *load, struct worker *worker)
{
    if (worker->n_free < load->config.slots)
        worker->free_ns[(worker->free_first + worker->n_free++) % load->config.slots] =
            load->now_ns;
}

static void slot_begins(struct load *load, struct worker *worker)
{
    int64_t since_ns;

    if (worker->n_free == 0)
        return;
    since_ns = worker->free_ns[worker->free_first];
    worker->free_first = (worker->free_first + 1) % load->config.slots;
    worker->n_free--;
    if (since_ns)
        histogram_add(&load->latency, load->now_ns - since_ns);
}

/* From `index` on all that can begin, which where a task takes no time is all that is behind it. */
static void run(struct load *load, uint32_t index)
{
    uint32_t more = index;

    load->held[index].behind_next = 0;
    while (more) {
        struct held *held = &load->held[more];
        uint32_t began = more;

        more = held->behind_next;
        held->behind_next = held->ahead = 0;
        held->state = HELD_RUNS;
        held->started_wall_s = (load->now_ns + load->wall_offset_ns) / NS_PER_S;
        slot_begins(load, &load->workers[held->worker]);
        say(load, began);
        if (load->config.task_ns > 0) {
            held_due(load, began, DUE_END, load->now_ns + load->config.task_ns);
            continue;
        }
        held->state = HELD_READY;
        slot_ends(load, &load->workers[held->worker]);
        if (held->first_behind) {
            uint32_t last = held->first_behind;

            while (load->held[last].behind_next)
                last = load->held[last].behind_next;
            load->held[last].behind_next = more;
            more = held->first_behind;
            held->first_behind = 0;
        }
    }
}

static void run_behind(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];

    while (held->first_behind) {
        uint32_t behind = held->first_behind;

        held->first_behind = load->held[behind].behind_next;
        run(load, behind);
        held = &load->held[index];
    }
}

/* Its slot is free, whatever became of it. */
static void end(struct load *load, uint32_t index, enum attempt_class class)
{
    struct held *held = &load->held[index];

    held_not_due(load, index);
    held->state = HELD_READY;
    held->class_ = class;
    slot_ends(load, &load->workers[held->worker]);
    say(load, index);
    run_behind(load, index);
}

static void drop(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];

    if (held->state == HELD_RUNS) {
        held_not_due(load, index);
        held->state = HELD_READY;
        slot_ends(load, &load->workers[held->worker]);
        run_behind(load, index);
    }
    held_free(load, index);
}

void leases_due(struct load *load)
{
    uint32_t index;

    while ((index = load->due[DUE_END].first) && load->held[index].due_ns <= load->now_ns)
        end(load, index, CLASS_OK);
    for (enum due due = DUE_ANSWER; due < DUE_COUNT; due++)
        while ((index = load->due[due].first) && load->held[index].due_ns <= load->now_ns) {
            held_not_due(load, index);
            load->held[index].state = HELD_READY;
            say(load, index);
        }
}

int64_t leases_deadline_ns(const struct load *load)
{
    int64_t at_ns = INT64_MAX;

    for (enum due due = 0; due < DUE_COUNT; due++)
        if (load->due[due].first && load->held[load->due[due].first].due_ns < at_ns)
            at_ns = load->held[load->due[due].first].due_ns;
    return at_ns;
}

/* ---- what the broker says ---- */

void leases_assign(struct load *load, uint32_t worker, const struct hot_assign *assign)
{
    const struct hot_lease *lease = &assign->lease;
    uint32_t index, ahead, job = 0;
    struct held *held;

    if (held_find(load, lease->attempt, (uint32_t)lease->epoch))
        return; /* said twice */
    if (load->counts.assigned++ == 0)
        load->first_lease_ns = load->now_ns;
    index = held_new(load, lease, worker);
    held = &load->held[index];
    memcpy(held->ticket, assign->ticket, HOT_TICKET_BYTES);
    if (!load_job_known(load, lease->job, &job) || lease->step != 0 ||
        lease->task >= load->config.frames) {
        held->foreign = true;
        load->counts.foreign++;
    } else {
        uint64_t bit = job * load->config.frames + lease->task;

        load->counts.rerun += load->told[bit / 8] >> bit % 8 & 1;
    }
    held->job = job;
    ahead = assign->behind ? held_find(load, assign->behind, (uint32_t)assign->behind_epoch) : 0;
    if (ahead && (load->held[ahead].state == HELD_QUEUED || load->held[ahead].state == HELD_RUNS))
        held_follow(load, index, ahead);
    else
        run(load, index);
}

static bool bit_set(uint8_t *bits, uint64_t bit)
{
    bool was = bits[bit / 8] & 1u << bit % 8;

    bits[bit / 8] |= (uint8_t)(1u << bit % 8);
    return was;
}

/* `told`: the broker says that this one's result counts. */
static void settle(struct load *load, const struct held *held, bool told)
{
    uint64_t bit = held->job * load->config.frames + held->task;

    if (held->foreign)
        return;
    if (told && bit_set(load->told, bit))
        load->counts.duplicated++;
    if (told)
        load->last_commit_ns = load->now_ns;
    if (bit_set(load->bits, bit))
        return;
    load->settled++;
    load->moved_ns = load->now_ns;
}

static void refused(struct load *load, const struct hot_committed *committed)
{
    load->counts.refused++;
    log_limited(LOG_ERROR, "refused", "what=result code=\"%s\" why=\"%.*s\"",
                code_name((unsigned)committed->code), (int)committed->why_size,
                committed->why ? (const char *)committed->why : "");
}

void leases_committed(struct load *load, uint32_t worker, const struct hot_committed *committed)
{
    uint32_t index = held_find(load, committed->lease.attempt, (uint32_t)committed->lease.epoch);
    struct held *held = &load->held[index];

    if (!index || held->worker != worker)
        return;
    if (held->state == HELD_RELEASED && !held->in_say) {
        held_free(load, index);
        return;
    }
    if (held->state != HELD_SAID)
        return;
    switch (committed->code) {
    case CODE_OK:
        load->counts.committed++;
        if (held->class_ == CLASS_OK)
            settle(load, held, true);
        break;
    case CODE_ALREADY:
        load->counts.already++;
        settle(load, held, false);
        break;
    case CODE_STALE:
    case CODE_UNKNOWN:
        load->counts.stale++;
        break;
    case CODE_BUSY:
    case CODE_INTERNAL:
        load->counts.busy++;
        held_not_due(load, index);
        held->state = HELD_BUSY;
        held_due(load, index, DUE_AGAIN, load->now_ns + AGAIN_NS);
        return;
    default:
        refused(load, committed);
    }
    held_free(load, index);
}

static uint32_t find(const struct load *load, uint32_t worker, const Wl__Lease *lease)
{
    uint32_t index = held_find(load, lease->attempt, lease->epoch);

    return index && load->held[index].worker == worker ? index : 0;
}

void leases_revoke(struct load *load, uint32_t worker, const Wl__Revoke *revoke)
{
    uint32_t index = find(load, worker, revoke->lease);
    struct held *held = &load->held[index];

    if (!index || (held->state != HELD_QUEUED && held->state != HELD_RUNS))
        return;
    load->counts.revoked++;
    if (revoke->kind == WL__REVOKE_KIND__REVOKE_TAKE_BACK) {
        if (held->state != HELD_QUEUED)
            return;
        held_leave_queue(load, index);
        held->state = HELD_RELEASED;
        say(load, index);
    } else if (held->state == HELD_QUEUED) {
        held_leave_queue(load, index);
        held->state = HELD_READY;
        held->class_ = CLASS_CANCELLED;
        say(load, index);
    } else {
        end(load, index, CLASS_CANCELLED);
    }
}

void leases_verdict(struct load *load, uint32_t worker, const Wl__Verdict *verdict)
{
    struct worker *self = &load->workers[worker];

    for (size_t i = 0; i < verdict->n_leases; i++) {
        uint32_t index = find(load, worker, verdict->leases[i]->lease);

        if (!index || verdict->leases[i]->verdict != VERDICT_DROP)
            continue;
        /* Mostly it was committed, and the broker could not say so. If not, another runs it. */
        if (load->held[index].state == HELD_READY && load->held[index].class_ == CLASS_OK) {
            load->counts.lapsed++;
            settle(load, &load->held[index], false);
        }
        drop(load, index);
    }
    if (!verdict->last || self->state != PHASE_LISTING)
        return;
    self->state = PHASE_JOINED;
    self->listed_epoch = self->epoch;
    load->n_joined++;
    for (uint32_t index = self->first_held; index; index = load->held[index].worker_next)
        if (load->held[index].state == HELD_READY || load->held[index].state == HELD_RELEASED)
            say(load, index);
        else if (load->held[index].state == HELD_RUNS && !load->held[index].started_said)
            say(load, index);
}

/* ---- without a link ---- */

void leases_offline(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    say_nothing(load, self);
    for (uint32_t index = self->first_held; index; index = load->held[index].worker_next) {
        struct held *held = &load->held[index];

        if (held->state != HELD_SAID && held->state != HELD_BUSY)
            continue;
        held_not_due(load, index);
        held->state = HELD_READY;
    }
}

void leases_forget(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    say_nothing(load, self);
    for (uint32_t index = self->first_held; index; index = load->held[index].worker_next) {
        load->held[index].first_behind = load->held[index].ahead = 0;
        load->held[index].behind_next = 0;
    }
    while (self->first_held)
        held_free(load, self->first_held);
    self->free_first = self->n_free = 0;
    while (self->n_free < load->config.slots)
        self->free_ns[self->n_free++] = 0; /* nobody knows since when */
}

/* ---- what is said ---- */

static Wl__LeaseState list_state(struct held *held)
{
    if (held->state == HELD_RUNS)
        held->started_said = true; /* the list says it */
    return held->state == HELD_READY && held->class_ == CLASS_OK   ? WL__LEASE_STATE__LEASE_HELD
           : held->state == HELD_RUNS || held->state == HELD_READY ? WL__LEASE_STATE__LEASE_RUNNING
                                                                   : WL__LEASE_STATE__LEASE_QUEUED;
}

int leases_list(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];
    Wl__InventoryItem items[LIMIT_INVENTORY], *pointers[LIMIT_INVENTORY];
    Wl__Lease leases[LIMIT_INVENTORY];
    uint32_t index = self->first_held;
    int r = 0;

    do {
        Wl__Envelope envelope = WL__ENVELOPE__INIT;
        Wl__Inventory inventory = WL__INVENTORY__INIT;
        size_t n = 0;

        for (; index && n < LIMIT_INVENTORY; index = load->held[index].worker_next, n++) {
            struct held *held = &load->held[index];
            struct hot_assign said;

            CHECK(hot_lease(held->lease, held->lease_size, &said.lease));
            wl__lease__init(&leases[n]);
            wl__inventory_item__init(&items[n]);
            leases[n].job = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)said.lease.job};
            leases[n].step = (uint32_t)said.lease.step;
            leases[n].task = said.lease.task;
            leases[n].floor = (uint32_t)said.lease.floor;
            leases[n].epoch = (uint32_t)said.lease.epoch;
            leases[n].attempt = said.lease.attempt;
            items[n].lease = &leases[n];
            items[n].ticket = (ProtobufCBinaryData){HOT_TICKET_BYTES, held->ticket};
            items[n].state = list_state(held);
            pointers[n] = &items[n];
        }
        inventory.session = self->session;
        inventory.items = pointers;
        inventory.n_items = n;
        inventory.last = index == 0;
        envelope.body_case = WL__ENVELOPE__BODY_INVENTORY;
        envelope.inventory = &inventory;
        r = load_say(load, worker, &envelope);
    } while (r == 0 && index);
    return r;
}

/* One envelope of a lease; its size, 0 where there is nothing to say any more. */
static size_t put(struct load *load, const struct worker *worker, struct held *held, uint8_t *out)
{
    struct hot_about about = {.session = worker->session,
                              .lease = held->lease,
                              .lease_size = held->lease_size,
                              .ticket = held->ticket,
                              .class_ = held->class_,
                              .started_wall_s = (uint64_t)held->started_wall_s,
                              .ended_wall_s =
                                  (uint64_t)((load->now_ns + load->wall_offset_ns) / NS_PER_S)};

    switch (held->state) {
    case HELD_RUNS:
        return held->started_said ? 0 : hot_about_put(out, WL__ENVELOPE__BODY_STARTED, &about);
    case HELD_READY:
        return hot_result_put(out, &about, load->fixed, load->fixed_size);
    case HELD_RELEASED:
        return hot_about_put(out, WL__ENVELOPE__BODY_RELEASED, &about);
    default:
        return 0;
    }
}

static void said(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];

    held->in_say = false;
    if (held->state == HELD_RUNS)
        held->started_said = true;
    if (held->state != HELD_READY)
        return;
    held->state = HELD_SAID;
    held_due(load, index, DUE_ANSWER, load->now_ns + ANSWER_NS);
    load->counts.results++;
}

int leases_say(struct load *load, uint32_t worker)
{
    struct worker *self = &load->workers[worker];

    while (self->first_say) {
        uint8_t one[HOT_ABOUT_BYTES + sizeof(load->fixed)];
        uint32_t index, n = 0;
        size_t size = 1, first = 0;

        for (index = self->first_say; index; index = load->held[index].say_next) {
            size_t more = put(load, self, &load->held[index], one);

            if (more == 0)
                continue;
            if (size + more + 4 > LIMIT_CONTROL_BYTES)
                break;
            size += hot_varint_put(load->out + size, more);
            if (n++ == 0)
                first = size;
            memcpy(load->out + size, one, more);
            size += more;
            if (load->held[index].state == HELD_READY)
                load->counts.result_bytes += more;
        }
        load->out[0] = 0;
        int r = n == 0   ? 0
                : n == 1 ? load_send(load, worker, load->out + first, size - first)
                         : load_send(load, worker, load->out, size);
        if (r != 0)
            return r;
        if (n > 0)
            self->told_ns = load->now_ns;
        while (self->first_say != index) {
            uint32_t done = self->first_say;

            self->first_say = load->held[done].say_next;
            said(load, done);
        }
        if (!self->first_say)
            self->last_say = 0;
    }
    return 0;
}
