/* enrol.h - where newcomers come: an endpoint that anybody may speak to, apart from all others.
 *
 * Its own port, key, context and thread, so that whoever besieges it keeps no worker waiting. One
 * question (Enrol) and one answer (Enrolled), of at most LIMIT_ENROL_BYTES. It knows nothing of jobs; what
 * it writes is the registry, which all others read.
 *
 * Bounds:  LIMIT_ENROL_PEERS links are let in; then all are put out, a second later at the earliest, and
 *          come again if they mean it. As many refusals wait for their time; more are dropped.
 * Owns:    its socket, thread and connection to the store; config is borrowed until enrol_stop.
 * Errors:  -errno, STORE_E_*.
 */
#pragma once

#include <proto/link.h>

struct enrol_config {
    const char *endpoint, *state;
    const struct link_keypair *keys;   /* the endpoint's own */
    const struct link_key *server_key; /* as newcomers are told: control's */
    const char *control;
};

struct enrol;
int enrol_start(const struct enrol_config *config, struct enrol **ret_enrol);
void enrol_stop(struct enrol *enrol); /* NULL is fine */
const char *enrol_endpoint(const struct enrol *enrol);
