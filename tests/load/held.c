/* held.c - the leases of all workers in one pool: found by attempt, listed by worker, queued by
 * what they wait for.
 */
#include <tests/load/inner.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *bucket_of(const struct load *load, uint64_t attempt, uint32_t epoch)
{
    uint64_t hash = (attempt ^ (uint64_t)epoch << 40) * 0x9e3779b97f4a7c15ULL;

    return &load->buckets[hash >> 32 & (load->n_buckets - 1)];
}

uint32_t held_find(const struct load *load, uint64_t attempt, uint32_t epoch)
{
    uint32_t index = *bucket_of(load, attempt, epoch);

    while (index && (load->held[index].attempt != attempt || load->held[index].epoch != epoch))
        index = load->held[index].bucket_next;
    return index;
}

static uint32_t held_take(struct load *load)
{
    uint32_t index = load->free_held;

    if (index) {
        load->free_held = load->held[index].bucket_next;
        return index;
    }
    if (load->n_held + 1 >= load->held_capacity) {
        uint32_t larger = load->held_capacity ? load->held_capacity * 2 : 1024;
        struct held *moved = reallocarray(load->held, larger, sizeof(*moved));

        CHECK(moved);
        load->held = moved;
        load->held_capacity = larger;
    }
    return ++load->n_held;
}

uint32_t held_new(struct load *load, const struct hot_lease *lease, uint32_t worker)
{
    uint32_t index = held_take(load), epoch = (uint32_t)lease->epoch;
    struct held *held = &load->held[index];
    uint32_t *bucket = bucket_of(load, lease->attempt, epoch);

    *held = (struct held){.attempt = lease->attempt,
                          .task = lease->task,
                          .epoch = epoch,
                          .worker = worker,
                          .state = HELD_QUEUED,
                          .lease_size = (uint8_t)lease->packed_size,
                          .bucket_next = *bucket,
                          .worker_next = load->workers[worker].first_held};
    memcpy(held->lease, lease->packed, lease->packed_size);
    *bucket = index;
    if (held->worker_next)
        load->held[held->worker_next].worker_before = index;
    load->workers[worker].first_held = index;
    load->workers[worker].n_held++;
    return index;
}

static void unhash(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];
    uint32_t *at = bucket_of(load, held->attempt, held->epoch);

    while (*at != index)
        at = &load->held[*at].bucket_next;
    *at = held->bucket_next;
}

void held_free(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];
    struct worker *worker = &load->workers[held->worker];

    CHECK(held->state != HELD_FREE && !held->in_say);
    held_leave_queue(load, index);
    held_not_due(load, index);
    unhash(load, index);
    if (held->worker_before)
        load->held[held->worker_before].worker_next = held->worker_next;
    else
        worker->first_held = held->worker_next;
    if (held->worker_next)
        load->held[held->worker_next].worker_before = held->worker_before;
    worker->n_held--;
    held->state = HELD_FREE;
    held->bucket_next = load->free_held;
    load->free_held = index;
}

/* ---- what is due ---- */

static enum due due_of(const struct held *held)
{
    return held->state == HELD_RUNS ? DUE_END : held->state == HELD_SAID ? DUE_ANSWER : DUE_AGAIN;
}

void held_due(struct load *load, uint32_t index, enum due due, int64_t at_ns)
{
    struct held *held = &load->held[index];

    CHECK(due_of(held) == due && held->due_ns == 0);
    held->due_ns = at_ns;
    held->due_next = 0;
    held->due_before = load->due[due].last;
    if (held->due_before)
        load->held[held->due_before].due_next = index;
    else
        load->due[due].first = index;
    load->due[due].last = index;
}

/* To be called before its state changes. */
void held_not_due(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];
    enum due due = due_of(held);

    if (held->due_ns == 0)
        return;
    if (held->due_before)
        load->held[held->due_before].due_next = held->due_next;
    else
        load->due[due].first = held->due_next;
    if (held->due_next)
        load->held[held->due_next].due_before = held->due_before;
    else
        load->due[due].last = held->due_before;
    held->due_ns = 0;
}

/* ---- queues behind ---- */

void held_follow(struct load *load, uint32_t index, uint32_t ahead)
{
    load->held[index].ahead = ahead;
    load->held[index].behind_next = load->held[ahead].first_behind;
    load->held[ahead].first_behind = index;
}

void held_leave_queue(struct load *load, uint32_t index)
{
    struct held *held = &load->held[index];

    if (held->ahead) {
        uint32_t *at = &load->held[held->ahead].first_behind;

        while (*at != index)
            at = &load->held[*at].behind_next;
        *at = held->behind_next;
    }
    while (held->first_behind) {
        uint32_t behind = held->first_behind;

        held->first_behind = load->held[behind].behind_next;
        load->held[behind].ahead = 0;
        if (held->ahead)
            held_follow(load, behind, held->ahead);
    }
    held->ahead = 0;
}
