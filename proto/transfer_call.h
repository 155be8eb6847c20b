/* transfer_call.h - between transfer.c (the loop) and transfer_calls.c (have, put, get), transfer_offer.c
 * and transfer_stream.c only.
 *
 * Shape:   one struct call for the time of one call; its items are unasked, asked or done.
 * Owns:    call_deinit frees what call_init and the ask functions allocated.
 * Errors:  as transfer.h; LINK_E_AGAIN from `ask` means that the link takes nothing now.
 */
#pragma once

#include <proto/transfer.h>
#include <proto/wire.h>

enum phase { PHASE_CLOSED, PHASE_OPENING, PHASE_OPEN };

struct transfer {
    struct transfer_config config;
    char *endpoint;
    struct link_keypair keys;
    struct bytes pass, why;
    void *socket, *monitor;
    enum phase phase;
    uint64_t next_request, open_request;
    size_t window_bytes;
    int64_t heard_ns; /* the last answer, or the call's start */
    int64_t fresh_ns; /* the last answer, or the socket's start */
    int64_t refused_ns; /* since when the link says so; 0: it does not */
    unsigned reopens;
    bool blocked;     /* a send waits for room */
    uint64_t bytes_sent, bytes_received;
};

enum item_state { ITEM_UNASKED, ITEM_ASKED, ITEM_DONE };

/* One call under way. `ask` sends the next question: 0, LINK_E_AGAIN, or an error. `answer` takes
 * what is neither Opened nor Fault. */
struct call {
    struct transfer *transfer;
    int (*ask)(struct call *);
    int (*answer)(struct call *, const Wl__Bulk *bulk, zmq_msg_t *data);
    /* NULL: it ends the call. The fault `r` is that of one block, and said in transfer_why. */
    int (*lack)(struct call *, const ProtobufCBinaryData *id, int r);
    uint8_t *states; /* enum item_state */
    uint32_t *item_bytes; /* in flight while asked */
    size_t n, n_done, next, in_flight_bytes;
    uint64_t asked_first;
    void (*forget)(struct call *); /* NULL: the states say all; a connection broke */
    int wake_fd;                   /* readable: there may be something to ask; -1: none */
    bool waiting;                  /* nothing is asked, because there is nothing to ask yet */
    void *own;                     /* of the kind of call */
    struct bytes asked; /* size_t: the item of request asked_first + index */
    /* have */
    const struct block_id *ids;
    size_t n_ids;
    bool *missing;
    /* put */
    transfer_source *source;
    bool plain, held;   /* held: made but not sent, for lack of room */
    size_t held_item;
    zmq_msg_t held_header, held_data;
    struct bytes out;
    /* get */
    const struct transfer_want *wants;
    transfer_sink *sink;
    size_t *slots, n_slots; /* by id: index + 1 of the first item with that id */
    size_t *same;           /* index + 1 of the next item with the same id */
    void *user;
};

int call_init(struct call *call, struct transfer *transfer, size_t n, void *user);
void call_deinit(struct call *call);
int call_run(struct call *call);
/* The same piece by piece: begin, then steps, none of which waits. */
int call_begin(struct call *call);
int call_step(struct call *call);
int call_wait(const struct call *call); /* until something comes, or a moment */

size_t call_next(struct call *call); /* the first unasked item, n: none */
bool call_has_room(const struct call *call, size_t more_bytes); /* in the window */
void call_item_asked(struct call *call, size_t i, size_t bytes);
void call_item_done(struct call *call, size_t i);
/* Notes that the request number just sent asked for item `i`. */
int call_request_take(struct call *call, size_t i);
bool call_request_item(const struct call *call, uint64_t request, size_t *ret_i);

/* Sets the words of transfer_why and returns `result`. */
int transfer_say(struct transfer *transfer, int result, const char *what, const char *why,
                 const char *next);
/* Whether that is what a block is to be: 0, or TRANSFER_E_CORRUPT. */
int transfer_check(struct transfer *transfer, const struct transfer_want *want, zmq_msg_t *data);
int transfer_check_want(struct transfer *transfer, const struct transfer_want *want);
int transfer_send(struct transfer *transfer, const Wl__Bulk *bulk, zmq_msg_t *data);
