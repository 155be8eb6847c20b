/* agent.h - the worker's side of the control link: it joins, beats, asks and reports, and goes on
 * rendering while the broker is away.
 *
 * Shape:   one thread, one DEALER at a time. Every connection has a session number of its own,
 *          greater than all before it, kept in <state>/session; every process a boot of its own.
 * Units:   times are monotonic nanoseconds.
 * Owns:    everything below the state folder, which agent_lock_state makes its own.
 * Errors:  -errno from agent_run only where the worker cannot go on; a lost or refusing broker is
 *          logged and tried again.
 */
#pragma once

#include <proto/link.h>
#include <proto/westlight.pb-c.h>
#include <worker/probe.h>

enum { AGENT_E_TAKEN = 1 };

struct agent_config {
    const char *broker; /* tcp://HOST:7420 */
    struct link_key server;
    const struct link_keypair *keys;
    const char *state; /* folder */
    uint64_t cache_bytes;
    uint64_t reserve_bytes; /* of the disk; 0: volume_reserve_bytes */
    const char *bulk; /* endpoint, NULL: as the broker says */
    const struct probe *probe;
    const char *inspector; /* what looks at pictures: inspect.h */
    Wl__Offer *offer;
    int stop_fd; /* readable: end */
};

/* Makes the folder and locks it; *ret_fd keeps the lock. AGENT_E_TAKEN: after `wait_ns` another worker,
 * or something that it ran, still has it. */
int agent_lock_state(const char *state, int64_t wait_ns, int *ret_fd);
/* The number of the next session, and the one in the file, which none is past. Zeroed: read it first. */
struct agent_session {
    uint64_t number, kept;
};
int agent_session_next(struct agent_session *session, const char *state);
int agent_run(const struct agent_config *config);
