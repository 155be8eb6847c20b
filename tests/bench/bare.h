/* bare.h - the core without a broker: workers that take what they are given and bring it back.
 *
 * Every node keeps what it was assigned in order and ends the longest held first, a message of them
 * in a round. Nothing is stored or sent; what the core says is acted upon as a worker
 * would, within the time that is measured.
 *
 * Owns:    the core and the nodes. One thread.
 */
#pragma once

#include <broker/core/core.h>

enum { BARE_STUDIOS = 20 };

struct bare_config {
    uint32_t workers, slots, prefetch;
    bool mixed; /* no two have as much memory, and tasks want so much that slots stay free */
    bool motley; /* no two jobs ask for as much memory */
    uint32_t carried; /* results in a message; 0: one for each slot */
    bool told;   /* each task is said to have started and to go on, and each worker beats */
};

struct bare_node {
    struct worker_id id;
    uint32_t first, n;
    struct lease_id *held; /* a ring */
};

struct bare {
    struct bare_config config;
    struct core *core;
    struct outbox outbox;
    struct bare_node *nodes;
    uint32_t ring;
    int64_t now_ns;
    uint64_t events, records, assigned, done;
};

void bare_init(struct bare *bare, const struct bare_config *config);
void bare_deinit(struct bare *bare);
/* A job of `tasks`, of the number-th studio in turn. */
void bare_submit(struct bare *bare, uint32_t number, uint64_t tasks);
void bare_join(struct bare *bare); /* all of them */
/* Every node runs what a message carries; how many were run. */
uint64_t bare_round(struct bare *bare);
