/* unsent.h - submissions whose upload is not over: what it takes to go on with one, after its
 * process or the machine has died.
 *
 * Shape:   a file each, $XDG_STATE_HOME/westlight/uploads/ID, 0600 because the job's key is in it;
 *          texts that end with a NUL: "name value". It is there from before the first byte is sent
 *          until the job is accepted or refused for good, and locked while somebody sends.
 * Owns:    unsent_deinit; texts point into what was read, or are the caller's.
 * Errors:  -errno; -EWOULDBLOCK: somebody sends it.
 */
#pragma once

#include <client/westlight.h>
#include <proto/base/bytes.h>

#define UNSENT_PREFIX 4 /* so many digits name one at the least */

struct unsent {
    struct westlight_submission submission;
    int64_t begun_wall_s;
    const char *name, *farm;
    const char *folder; /* where the command was given */
    const char *out;    /* where the frames are wanted */
    char **argv;        /* the command */
    int argc;
    struct bytes text;
    int lock; /* while this process sends it; else -1 */
};

/* Writes it, and locks it. */
int unsent_keep(struct unsent *unsent);
int unsent_lock(struct unsent *unsent);
/* It is over: the file goes. */
void unsent_drop(struct unsent *unsent);
void unsent_deinit(struct unsent *unsent);
/* All there are, the newest first; those that cannot be read are left out. */
int unsent_list(struct unsent **ret_list, size_t *ret_n);
/* The upload with this id, or with these first digits where no other has them, is given up: nothing of
 * it is kept. False where there is none, or somebody sends it. */
bool unsent_forget(const char *prefix, char ret_id[WESTLIGHT_ID_TEXT]);
void unsent_list_free(struct unsent *list, size_t n);
