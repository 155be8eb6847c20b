/* link_inner.h - what link.c, link_monitor.c and link_guard.c share. */
#pragma once

#include <proto/link_guard.h>

/* Messages of one peer that a server has not read. */
enum { LINK_QUEUE_CONTROL = 64, LINK_QUEUE_BULK = 4 };

/* The next frame, whole and at once; LINK_E_AGAIN where there is none. */
int link_receive_frame(void *socket, zmq_msg_t *ret_frame);
void link_drain(void *socket); /* the rest of a message */
/* Starts to watch a client's socket, before it connects; link_monitor hands the view out, and
 * link_close of the socket ends it. */
int link_monitor_new(void *context, void *socket);
/* Of a socket that is not bound yet; it starts once that is. */
int link_guard_new(void *context, void *socket, enum link_kind kind, struct link_guard **ret_guard);
int link_guard_start(struct link_guard *guard);
