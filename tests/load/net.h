/* net.h - thousands of links to one broker, each with a CURVE key of its own, over one socket.
 *
 * The idea: libzmq takes a connection's keys and its routing id from the socket's options at the
 * moment of zmq_connect. So one ROUTER on the client's side holds them all: one socket to poll,
 * one mailbox, and a descriptor a link; ten thousand DEALERs would need three each.
 *
 * Shape:   a link is a number below `links_max`. It has a name of its own at the broker's address (a
 *          source address of 127/8 on loopback), so that it can be cut alone. Elsewhere it cannot:
 *          net_cut answers false.
 * A link that was lost is connected again by libzmq, and whoever speaks over it is not told: the
 * broker says so.
 * Errors:  -errno; LINK_E_AGAIN, LINK_E_GONE.
 */
#pragma once

#include <proto/link.h>

struct net;
/* `spread_ms`: links that are lost together come back evenly over so long, after as long a pause. */
int net_new(const char *endpoint, const struct link_key *server, uint32_t links_max, int io_threads,
            int spread_ms, struct net **ret_net);
void net_free(struct net *net);

int net_open(struct net *net, uint32_t link, const struct link_keypair *keys);
bool net_cut(struct net *net, uint32_t link);

/* Takes the message over on 0. */
int net_send(struct net *net, uint32_t link, zmq_msg_t *message);
/* One message of a link that is open; of one that was cut it is dropped. */
int net_receive(struct net *net, uint32_t *ret_link, zmq_msg_t *ret_message);
/* 1: something came, 0: nothing within so many milliseconds. */
int net_wait(struct net *net, long ms);
