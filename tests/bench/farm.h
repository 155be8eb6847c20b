/* farm.h - a private farm of real processes for a bench: a broker, a client, and one worker as the
 * bench wants it.
 *
 * Owns:    struct farm owns the processes and the folder; farm_stop ends and removes them.
 * Errors:  a message on standard error, and 1.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <client/local.h>

struct farm {
    char folder[128];
    struct local *local;
    struct westlight *westlight;
    bool debug; /* the worker's log tells all */
    pid_t worker, relay;
};

int farm_start(struct farm *farm);
/* Beside this program, in the build tree. */
void farm_program(const char *folder, const char *name, char *ret_path, size_t size);
/* With a delay it is led to the broker by a relay that holds all that passes for so long, each way. */
int farm_worker(struct farm *farm, unsigned slots, unsigned prefetch, long delay_ms);
void farm_worker_stop(struct farm *farm);
void farm_stop(struct farm *farm);
/* Waits until the job is finished; other than done, all of it, is an error. */
int farm_finish(struct farm *farm, const char *id);
/* CPU time of a process, of its children and of theirs, reaped or not. */
uint64_t farm_cpu_us(pid_t pid);
