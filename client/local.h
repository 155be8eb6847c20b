/* local.h - a private farm on this machine: broker and workers, started for one command and ended
 * with it. Its state is kept, so that the same command continues where it stopped.
 *
 * Shape:   one folder a farm, $XDG_STATE_HOME/westlight/local/N; two commands at once get two.
 *          A farm remembers which command made which job.
 * Owns:    struct local owns the processes; local_stop ends them. They also end when this process
 *          does, however it ends.
 * Errors:  EXIT_UNREACHABLE after a message.
 */
#pragma once

#include <sys/types.h>
#include <client/options.h>

struct local;
/* The broker, and keys for so many workers. `run` names the command (see local_run_name). */
int local_start(unsigned workers, const char *run, struct local **ret_local);
/* Its workers: what waits begins to run. slots 0: as many as each finds. */
int local_workers(struct local *local, unsigned slots);
void local_stop(struct local *local);
const struct westlight_farm *local_farm(const struct local *local);
const char *local_folder(const struct local *local);
pid_t local_broker(const struct local *local);
/* The job this command made before in this farm; false where there is none. */
bool local_run_job(const struct local *local, char ret_id[WESTLIGHT_ID_TEXT]);
void local_run_remember(const struct local *local, const char *id);
void local_run_forget(const struct local *local);
/* False when one of its processes has ended by itself; says which. */
bool local_alive(struct local *local);
/* A digest of the options and of what the scene's folder holds: names, sizes, times. */
void local_run_name(const struct options *options, const char *out, char ret_run[65]);
/* The config file of local farm `name` ("local", "local-2"); false for another name. */
bool local_config_path(const char *name, char *ret_path, size_t size);
