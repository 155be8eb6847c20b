/* private.h - a broker of our own in a folder that goes away: started, measured, killed, started anew.
 *
 * Owns:    the process, which ends with this one however it ends, and the folder.
 * Errors:  -errno, or 1 after a line on standard error.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <proto/link.h>

struct private_broker {
    char folder[128], endpoint[128];
    struct link_key server;
    pid_t pid;
    int64_t cpu_before_ns; /* of processes that were killed */
};

/* Registers so many workers' keys and one person's, made of `master` (engine.h), and starts it. */
int private_start(struct private_broker *broker, const uint8_t master[32], uint32_t workers);
int private_kill(struct private_broker *broker); /* SIGKILL */
int private_again(struct private_broker *broker); /* at the same address */
void private_stop(struct private_broker *broker);
/* Ends it in good order; how many batches it made durable, which is the most that it can have synced. */
int private_end(struct private_broker *broker, uint64_t *ret_batches);
bool private_interrupted(void); /* SIGINT or SIGTERM came since private_start: the folder is still to go */
bool private_alive(struct private_broker *broker); /* false once it has ended by itself: says so */

int64_t private_cpu_ns(const struct private_broker *broker); /* all its threads */
int64_t private_rss_bytes(const struct private_broker *broker);
