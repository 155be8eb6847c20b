/* broker.h - the broker's process: opens the state, recovers, binds, and runs the loop.
 *
 * Shape:   one state folder: broker.key and enrol.key (CURVE), master.key (what tickets, passes and job keys are
 *          protected by; apart from the database), the store's files, vault/.
 * Errors:  a positive exit status; the sentence is on standard error.
 * Source:  ../README.md "The loop and the durability rule".
 */
#pragma once

#include <stddef.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/token.h>

struct broker_config {
    const char *state;          /* folder */
    const char *control, *bulk; /* endpoints to bind */
    const char *enrol;          /* likewise; NULL: nobody joins by a token */
    const char *bulk_advertise; /* as Welcome says it; NULL: from what was bound */
    size_t bulk_memory_bytes;
    uint64_t reserve_bytes; /* of the disk, see room.h; 0: as it sees fit */
    unsigned vault_threads;
    uint32_t messages_per_s; /* of one person's key; 0: limits.h */
    int64_t licence_ns; /* first wait of a task that found no licence */
    int64_t retain_s, retain_delivered_s; /* how long what is over is kept; 0: limits.h */
    int64_t grace_ns;   /* how long a block that nobody refers to is kept */
    int64_t lease_ns; /* silence after which a worker's leases lapse */
    int ready_fd;           /* -1: none */
    const char *ready_file; /* NULL: none */
};

/* Makes the folder, mode 0700. `why` gets the sentence. */
int broker_state(const char *state, struct bytes *why);
/* A key pair of the server's, made where it is not there yet: that of control and bulk, or that by
 * which newcomers know the enrol endpoint. */
#define BROKER_KEY_FILE "broker.key"
#define BROKER_ENROL_KEY_FILE "enrol.key"
int broker_keys(const char *state, const char *file, struct link_keypair *ret_keys,
                struct bytes *why);
/* What the last broker on this state listened at. -ENOENT: newcomers could not join. */
struct broker_endpoints {
    char enrol[TOKEN_ENDPOINT_BYTES], control[TOKEN_ENDPOINT_BYTES];
};
int broker_endpoints(const char *state, struct broker_endpoints *ret_endpoints);
int broker_endpoints_keep(const char *state, const struct broker_endpoints *endpoints,
                          struct bytes *why);
int broker_path(const char *state, const char *name, char path[LIMIT_PATH_BYTES],
                struct bytes *why);
/* Until SIGTERM or SIGINT: 0. */
int broker_run(const struct broker_config *config);
