/* hot.h - the few messages that go by the hundred thousand, read and written by hand.
 *
 * The idea: a load test shares its cores with what it measures. Of an Assign only the lease, the
 * ticket and the place in the queue are looked at, of a Committed the lease and the code; a Result is
 * the same bytes but for those three and the time. All else goes through proto/wire.
 *
 * Form:    protobuf, as westlight.proto says; packets as proto/wire.h says. tests/unit/hot.c compares
 *          every one of these with what protobuf-c reads and writes.
 * Owns:    nothing; what is read borrows from the message.
 * Errors:  false: not a message of that form.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HOT_LEASE_BYTES = 64,   /* a packed Lease: at most 58 */
    HOT_TICKET_BYTES = 32,
    HOT_ABOUT_BYTES = 192,  /* what a Result or Started has beside its manifest */
};

/* The envelopes of one message, one after the other. */
struct hot_each {
    const uint8_t *at, *end;
    bool bare, bad;
};
void hot_each_init(struct hot_each *each, const void *data, size_t size);
bool hot_each_next(struct hot_each *each, const uint8_t **ret_data, size_t *ret_size);

/* An envelope: which body it has (WL__ENVELOPE__BODY_*), and its bytes. */
struct hot_envelope {
    uint64_t request;
    unsigned body;
    const uint8_t *data;
    size_t size;
};
bool hot_envelope(const uint8_t *data, size_t size, struct hot_envelope *ret_envelope);

struct hot_lease {
    const uint8_t *packed; /* as it came, to be said again */
    size_t packed_size;
    const uint8_t *job; /* 16 bytes */
    uint64_t step, task, floor, epoch, attempt;
};
bool hot_lease(const uint8_t *data, size_t size, struct hot_lease *ret_lease);

struct hot_assign {
    struct hot_lease lease;
    const uint8_t *ticket; /* HOT_TICKET_BYTES */
    uint64_t behind, behind_epoch;
};
bool hot_assign(const uint8_t *data, size_t size, struct hot_assign *ret_assign);

struct hot_committed {
    struct hot_lease lease;
    uint64_t code;
    const uint8_t *why;
    size_t why_size;
};
bool hot_committed(const uint8_t *data, size_t size, struct hot_committed *ret_committed);

/* What is said of a lease: an envelope with a Started or a Released, or with a Result. `fixed` is what
 * all results share, packed. The size, at most HOT_ABOUT_BYTES + fixed_size. */
struct hot_about {
    uint64_t session;
    const uint8_t *lease;
    size_t lease_size;
    const uint8_t *ticket;
    unsigned class_; /* other than OK: no manifest */
    uint64_t started_wall_s, ended_wall_s;
};
size_t hot_about_put(uint8_t *out, unsigned body, const struct hot_about *about);
size_t hot_result_put(uint8_t *out, const struct hot_about *about, const uint8_t *fixed,
                      size_t fixed_size);

size_t hot_varint_put(uint8_t *out, uint64_t value); /* at most 10 bytes */
