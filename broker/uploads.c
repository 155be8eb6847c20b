/* uploads.c - see uploads.h. The list is in the order of the last word, so the silent are in front. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/uploads.h>

void uploads_init(struct uploads *uploads)
{
    list_init(&uploads->all);
}

static void upload_free(struct upload *upload)
{
    list_unlink(&upload->node);
    free(upload);
}

void uploads_deinit(struct uploads *uploads)
{
    list_for_each_safe (at, after, &uploads->all)
        upload_free(list_entry(at, struct upload, node));
}

int uploads_note(struct uploads *uploads, const struct upload *upload)
{
    struct upload *found = NULL, *oldest = NULL, *made;
    size_t n = 0;

    list_for_each (at, &uploads->all) {
        struct upload *other = list_entry(at, struct upload, node);

        if (other->studio.value != upload->studio.value)
            continue;
        n++;
        oldest = oldest ? oldest : other;
        if (memcmp(&other->job, &upload->job, sizeof other->job) == 0)
            found = other;
    }
    made = malloc(sizeof *made);
    if (!made)
        return -ENOMEM;
    *made = *upload;
    if (found)
        made->begun_wall_s = found->begun_wall_s;
    else if (n >= UPLOADS_STUDIO_MAX)
        found = oldest;
    if (found)
        upload_free(found);
    list_init(&made->node);
    list_push(&uploads->all, &made->node);
    return 0;
}

void uploads_end(struct uploads *uploads, struct studio_id studio, const struct job_id *job)
{
    list_for_each_safe (at, after, &uploads->all) {
        struct upload *upload = list_entry(at, struct upload, node);

        if (upload->studio.value == studio.value &&
            memcmp(&upload->job, job, sizeof upload->job) == 0)
            upload_free(upload);
    }
}

void uploads_expire(struct uploads *uploads, int64_t wall_s)
{
    list_for_each_safe (at, after, &uploads->all) {
        struct upload *upload = list_entry(at, struct upload, node);

        if (wall_s - upload->seen_wall_s < UPLOADS_SILENT_S)
            return;
        upload_free(upload);
    }
}
