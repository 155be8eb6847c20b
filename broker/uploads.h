/* uploads.h - submissions on their way: who sends what, and how much of it has come.
 *
 * A client says so before it sends blocks and about once a second meanwhile. Nothing of it is
 * durable: after a restart the next word brings it back. What has stopped stays for as long as its
 * blocks are safe, so that a colleague sees it; what was cancelled does too, so that whoever goes
 * on with it is told.
 *
 * Shape:   a list for each studio, at most LIMIT_UPLOADS long: one more takes the place of the one
 *          heard of longest ago. So a studio that says too much loses words of its own, no other's.
 * Time:    *_ns is monotonic, given by the caller.
 * Owns:    its uploads; a pointer lives until the next call that is not a find.
 * Errors:  -ENOMEM.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/list.h>
#include <proto/limits.h>

struct upload {
    struct list node; /* the one heard of last is last */
    struct job_id job;
    char name[LIMIT_NAME_BYTES + 1], person[LIMIT_NAME_BYTES + 1];
    uint64_t files, file_bytes, bytes_done;
    int64_t begun_wall_s, heard_ns;
    bool stopped;                            /* its client said so */
    char cancelled_by[LIMIT_NAME_BYTES + 1]; /* "": it is not */
};

struct studio_uploads {
    struct list list;
    size_t n;
};

struct uploads {
    struct studio_uploads *studios; /* index: studio_id; one past LIMIT_STUDIOS has none */
    struct list none;               /* always empty */
};

int uploads_init(struct uploads *uploads);
void uploads_deinit(struct uploads *uploads);
/* NULL: there is none, or not of this studio. */
struct upload *uploads_find(struct uploads *uploads, struct studio_id studio,
                            const struct job_id *job);
/* Takes what was said. When it began, and who cancelled it, stays as it was. */
int uploads_note(struct uploads *uploads, struct studio_id studio, const struct upload *said);
void uploads_end(struct uploads *uploads, struct studio_id studio, const struct job_id *job);
/* A studio's, without those that nobody spoke of for LIMIT_UPLOAD_KEPT_NS. */
struct list *uploads_of(struct uploads *uploads, struct studio_id studio, int64_t now_ns);
bool upload_stopped(const struct upload *upload, int64_t now_ns);
