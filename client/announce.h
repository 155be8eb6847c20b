/* announce.h - an upload says how far it is, so that others of the studio see it and can end it.
 *
 * The idea: the first word waits for its answer, so that an upload that was cancelled sends
 * nothing; further ones go out once a second, and nobody waits. A refusal among the answers is
 * looked into by asking again in the usual way, which tells a broker that forgot this connection
 * from one that means it.
 *
 * Owns:    nothing; struct announce lies with its caller.
 * Errors:  WESTLIGHT_E_STATE where it was cancelled; otherwise as connection.h.
 */
#pragma once

#include <client/connection.h>

struct announce {
    struct westlight *westlight;
    const struct westlight_upload *count;
    const char *name;
    uint8_t job[16];
    bool begun;
    int64_t said_ns, looked_ns;
};

int announce_begin(struct announce *announce);
/* To be called often: does something once in a while, and never waits for the broker. */
int announce_go_on(struct announce *announce);
/* Nobody sends any more; `gone`: and nobody will. */
void announce_end(struct announce *announce, bool gone);
