/* uploads.h - submissions on their way: who sends what, and how much of it has come.
 *
 * A client says so before it uploads and about once a second meanwhile; nothing here is durable,
 * because the next word brings it back after a restart. It ends when the job is accepted, when it is
 * given up, or when nobody has said anything for a day.
 *
 * Shape:   at most UPLOADS_STUDIO_MAX of a studio; one more takes the place of its oldest.
 * Owns:    its copies.
 * Errors:  -ENOMEM.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/list.h>
#include <proto/limits.h>

enum { UPLOADS_STUDIO_MAX = 64 };
#define UPLOADS_SILENT_S 86400

struct upload {
    struct list node; /* the one heard last is last */
    struct job_id job;
    struct studio_id studio;
    char name[LIMIT_NAME_BYTES + 1], person[LIMIT_NAME_BYTES + 1];
    uint64_t file_bytes, bytes_done;
    int64_t begun_wall_s, seen_wall_s;
};

struct uploads {
    struct list all;
};

void uploads_init(struct uploads *uploads);
void uploads_deinit(struct uploads *uploads);
/* Takes what was said; `upload` is copied, begun_wall_s kept from before. */
int uploads_note(struct uploads *uploads, const struct upload *upload);
void uploads_end(struct uploads *uploads, struct studio_id studio, const struct job_id *job);
/* Forgets those that nobody spoke of for a day. */
void uploads_expire(struct uploads *uploads, int64_t wall_s);
