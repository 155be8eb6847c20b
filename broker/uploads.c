/* uploads.c - see uploads.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <broker/uploads.h>

int uploads_init(struct uploads *uploads)
{
    uploads->studios = calloc(LIMIT_STUDIOS + 1, sizeof *uploads->studios);
    if (!uploads->studios)
        return -ENOMEM;
    list_init(&uploads->none);
    for (size_t i = 0; i <= LIMIT_STUDIOS; i++)
        list_init(&uploads->studios[i].list);
    return 0;
}

static void upload_free(struct studio_uploads *of, struct upload *upload)
{
    list_unlink(&upload->node);
    of->n--;
    free(upload);
}

static struct upload *first_of(const struct studio_uploads *of)
{
    return list_entry(of->list.next, struct upload, node);
}

void uploads_deinit(struct uploads *uploads)
{
    for (size_t i = 0; uploads->studios && i <= LIMIT_STUDIOS; i++)
        while (!list_empty(&uploads->studios[i].list))
            upload_free(&uploads->studios[i], first_of(&uploads->studios[i]));
    free(uploads->studios);
    uploads->studios = NULL;
}

static struct studio_uploads *of_studio(struct uploads *uploads, struct studio_id studio)
{
    return studio.value <= LIMIT_STUDIOS ? &uploads->studios[studio.value] : NULL;
}

struct upload *uploads_find(struct uploads *uploads, struct studio_id studio,
                            const struct job_id *job)
{
    struct studio_uploads *of = of_studio(uploads, studio);

    list_for_each (at, of ? &of->list : &uploads->none) {
        struct upload *upload = list_entry(at, struct upload, node);

        if (memcmp(&upload->job, job, sizeof *job) == 0)
            return upload;
    }
    return NULL;
}

int uploads_note(struct uploads *uploads, struct studio_id studio, const struct upload *said)
{
    struct studio_uploads *of = of_studio(uploads, studio);
    struct upload *known = uploads_find(uploads, studio, &said->job), *made;

    if (!of)
        return 0;
    made = malloc(sizeof *made);
    if (!made)
        return -ENOMEM;
    *made = *said;
    list_init(&made->node);
    if (known) {
        made->begun_wall_s = known->begun_wall_s;
        memcpy(made->cancelled_by, known->cancelled_by, sizeof made->cancelled_by);
        upload_free(of, known);
    } else if (of->n == LIMIT_UPLOADS) {
        upload_free(of, first_of(of));
    }
    list_push(&of->list, &made->node);
    of->n++;
    return 0;
}

void uploads_end(struct uploads *uploads, struct studio_id studio, const struct job_id *job)
{
    struct upload *upload = uploads_find(uploads, studio, job);

    if (upload)
        upload_free(of_studio(uploads, studio), upload);
}

struct list *uploads_of(struct uploads *uploads, struct studio_id studio, int64_t now_ns)
{
    struct studio_uploads *of = of_studio(uploads, studio);

    if (!of)
        return &uploads->none;
    while (!list_empty(&of->list) && now_ns - first_of(of)->heard_ns >= LIMIT_UPLOAD_KEPT_NS)
        upload_free(of, first_of(of));
    return &of->list;
}

bool upload_stopped(const struct upload *upload, int64_t now_ns)
{
    return upload->stopped || now_ns - upload->heard_ns >= LIMIT_UPLOAD_SILENT_NS;
}
