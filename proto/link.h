/* link.h - CURVE sockets, with every hardening option set here and nowhere else.
 *
 * Shape:   a server is a ROUTER bound to one endpoint, a client a DEALER connected to one. Both
 *          speak CURVE only; there is no way to make a plain one.
 * Frames:  control is one frame. Bulk is one header frame, or a header and a data frame. A message
 *          with more is refused by link_receive (LINK_E_FRAMES) after it was read to its end.
 * Peers:   link_receive gives the sender's key, read from User-Id on a body frame, and a routing
 *          token that is only good for answering. Without User-Id the message is refused.
 * Owns:    a context is shared by the sockets of one thread group; sockets belong to one thread.
 * Errors:  -errno, or LINK_E_* (positive). Sends never block.
 * Source:  ../README.md "Trust"; libzmq 4.3.4 zmq_setsockopt(3); ZeroMQ RFC 26 (CURVE), 27 (ZAP).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>
#include <proto/base/bytes.h>
#include <proto/base/err.h>

enum {
    LINK_E_AGAIN = 1,   /* nothing to receive, or the peer's queue is full */
    LINK_E_GONE = 2,    /* no such peer any more */
    LINK_E_FRAMES = 3,  /* a message with more frames than the protocol has; it was dropped */
    LINK_E_ANONYMOUS = 4, /* a message without User-Id; it was dropped */
};

#define LINK_KEY_BYTES 32
#define LINK_ROUTE_BYTES 16

struct link_key {
    uint8_t bytes[LINK_KEY_BYTES];
};

struct link_keypair {
    struct link_key public_key, secret_key;
};

struct link_route {
    uint8_t bytes[LINK_ROUTE_BYTES];
    uint8_t size;
};

enum link_kind { LINK_CONTROL, LINK_BULK, LINK_ENROL };

/* A ZeroMQ context with raised limits; seeds libzmq's randomness first. */
int link_context_new(int io_threads, void **ret_context);
void link_context_free(void *context); /* closes; NULL is fine */

/* ROUTER. ret_endpoint (may be NULL, else 128 bytes) gets the bound endpoint, for ":*" ports. */
int link_listen(void *context, enum link_kind kind, const char *endpoint,
                const struct link_keypair *keys, void **ret_socket, char *ret_endpoint);
/* DEALER. */
int link_connect(void *context, enum link_kind kind, const char *endpoint,
                 const struct link_key *server, const struct link_keypair *keys, void **ret_socket);
void link_close(void *socket); /* NULL is fine */

/* One message. `ret_data` may be NULL on control; both messages are initialised by the callee on
 * 0 and closed by the caller. On a server ret_key and ret_route are filled; on a client both are
 * NULL. ret_data has size 0 where there was no data frame. */
int link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                 zmq_msg_t *ret_header, zmq_msg_t *ret_data);
/* Sends and takes over the messages on 0; on any other answer they stay the caller's. `route` is
 * NULL on a client; `data` may be NULL. */
int link_send(void *socket, const struct link_route *route, zmq_msg_t *header, zmq_msg_t *data);
/* Reads ZMQ_EVENTS: POLLIN and POLLOUT as ZMQ_POLLIN | ZMQ_POLLOUT. */
int link_events(void *socket);
int link_fd(void *socket); /* edge-triggered; call link_events after every send and receive */

/* A client's view of its own connection: a monitor on the socket. LINK_UP once the handshake is
 * done; LINK_REFUSED where somebody answers and the handshake fails (an unknown key, another
 * server's key, no CURVE), but not for one that is slow or was cut once; LINK_DOWN otherwise. libzmq reconnects a link that was lost, but gives
 * up on one whose key was turned away: to try again, close and connect anew. The monitor is a
 * socket: poll it, and close it with link_close. */
enum link_status { LINK_DOWN, LINK_UP, LINK_REFUSED };
int link_monitor(void *context, void *socket, void **ret_monitor);
/* Drains events; returns 1 when the status changed. */
int link_monitor_read(void *monitor, enum link_status *ret_status);

/* ---- ZAP: who may connect ---- */

/* Answers for one key, from its own thread: 0 allowed; anything else refused. */
typedef int link_allow(void *user, const struct link_key *key);
struct link_zap;
/* Starts a thread that answers the ZAP requests of `context`: CURVE only, domain "westlight"; the
 * User-Id is the key in hexadecimal. Start before the first listen. */
int link_zap_new(void *context, link_allow *allow, void *user, struct link_zap **ret_zap);
void link_zap_free(struct link_zap *zap); /* afterwards nobody can connect */
