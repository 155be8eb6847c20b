/* link_guard.h - what the connections of a listening socket may hold of the process, and who is put out.
 *
 * libzmq accepts by itself, and bounds messages, not connections. So a thread follows the socket's
 * monitor, and whoever reads the socket tells it of each message that came whole. From these it knows
 * who has said nothing yet (a newcomer), and how much each has sent since its last whole message. Who
 * goes past a limit is shut down; libzmq then drops the connection with all that it held for it.
 *
 * Limits:  newcomers at once (the oldest goes), bytes that come to no message, descriptors of the
 *          process. Who connects and is silent is the kernel's for
 *          some seconds, before libzmq hears of it.
 * Cost:    connections are looked at every few seconds, and when the process has grown.
 * Errors:  a descriptor may be another connection's by the time it is shut down: that one, if it is a
 *          peer's, connects again, as after any cut.
 * Log:     one line a second at most, of all that was refused.
 */
#pragma once

#include <proto/link.h>

enum { LINK_GUARD_MS = 100 }; /* it looks so often; a socket that is guarded should be read as often */

struct link_guard;

/* A connection: its descriptor, and which one it is of those that had it. Zeroed: none. */
struct link_seat {
    int fd;
    unsigned life;
};

struct link_guard_counts {
    uint64_t refused;    /* handshakes that failed: a key, no CURVE, no end within 5 s */
    uint64_t crowded;    /* newcomers put out for newer ones, or for want of descriptors */
    uint64_t unfinished; /* sent without coming to a message */
    uint64_t shut;       /* by link_guard_shut */
};

/* As link_listen, with a guard; free it before the socket is closed. */
int link_listen_guarded(void *context, enum link_kind kind, const char *endpoint,
                        const struct link_keypair *keys, struct link_guard **ret_guard,
                        void **ret_socket, char *ret_endpoint);
void link_guard_free(struct link_guard *guard); /* NULL is fine */

/* ---- from the thread that reads the socket; `guard` NULL: nothing ---- */
/* This frame's message is whole; who sent it. */
struct link_seat link_guard_heard(struct link_guard *guard, zmq_msg_t *frame);
void link_guard_drained(struct link_guard *guard); /* nothing is left to read: often, at best */
void link_guard_shut(struct link_guard *guard, struct link_seat seat); /* if it is still that one */
struct link_guard_counts link_guard_counts(struct link_guard *guard);
