/* render_home.h - one render: what its two threads share, and the one that brings its frames home.
 *
 * Shape:   the thread fetches with a connection of its own until the job is over. A fetch that
 * fails is said at once and begun again. Owns:    struct render lies with cmd_render.c; what stands
 * below `lock` is shared under it. Errors:  an exit code after a message; render_home_once:
 * WESTLIGHT_E_*.
 */
#pragma once

#include <pthread.h>
#include <client/local.h>
#include <client/pin.h>
#include <client/unsent.h>
#include <proto/block_set.h>
#include <proto/limits.h>

struct render {
    struct options options;
    const struct preset *preset;
    char software[PIN_TEXT]; /* as it was pinned */
    struct local *local;
    struct westlight_farm farm;
    struct westlight *westlight; /* watches */
    struct westlight *fetcher;   /* belongs to the thread, but for westlight_stop */
    pthread_t thread;
    bool fetching;
    char id[WESTLIGHT_ID_TEXT];
    char out[4096];
    int64_t began_ns;
    char name[LIMIT_NAME_BYTES + 1];
    struct westlight_upload upload;
    struct unsent unsent;         /* how to go on with the upload: written down while `kept` */
    bool kept, resumed, accepted; /* accepted: by an earlier try of the same */
    int64_t uploading_ns, bar_ns;

    pthread_mutex_t lock; /* the lines printed, and what follows */
    pthread_cond_t wake;  /* of the thread, while it pauses */
    bool over;            /* nothing more will be rendered: what cannot be fetched now is not */
    uint64_t files, bytes;
    struct block_set home; /* the tasks of which all files are home, each as an id */
    struct westlight_fetch fetch;
    int fetched; /* the answer of westlight_fetch */
    char fetched_why[1024];
};

int render_home_begin(struct render *render);
/* Ends the thread: what was rendered is brought home first, unless `stop`. */
void render_home_end(struct render *render, bool stop);
/* Every fetch begins at the first result and counts anew: it passes quickly over what is home, and
 * says again what was in the way. */
int render_home_once(struct render *render, struct westlight *westlight, bool follow);
