/* link_inner.h - what link.c and link_monitor.c share. */
#pragma once

#include <proto/link.h>

/* The next frame, whole and at once; LINK_E_AGAIN where there is none. */
int link_receive_frame(void *socket, zmq_msg_t *ret_frame);
void link_drain(void *socket); /* the rest of a message */
/* Starts to watch a client's socket, before it connects; link_monitor hands the view out, and
 * link_close of the socket ends it. */
int link_monitor_new(void *context, void *socket);
