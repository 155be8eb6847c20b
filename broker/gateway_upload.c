/* gateway_upload.c - submissions on their way: what their clients say of them, and what the people
 * of their studio see and do. A row of one looks like a job's, so that lists and prefixes need not
 * know.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <broker/gateway.h>

static struct studio_id studio_here(const struct gateway *gateway)
{
    return gateway->ask.peer->row.studio;
}

static void say_done(struct gateway *gateway, const char *text)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Done done = WL__DONE__INIT;

    done.text = (char *)text;
    done.upload = true;
    envelope.body_case = WL__ENVELOPE__BODY_DONE;
    envelope.done = &done;
    gateway_answer(gateway, &envelope);
}

static bool refuse_cancelled(struct gateway *gateway, const struct upload *upload)
{
    char why[LIMIT_NAME_BYTES + 64];

    if (!upload || !upload->cancelled_by[0])
        return false;
    snprintf(why, sizeof why, "it was cancelled by %s", upload->cancelled_by);
    gateway_refuse(gateway, CODE_STATE, "the upload", why,
                   "if it is wanted all the same, submit the scene anew");
    return true;
}

static bool id_of(const ProtobufCBinaryData *bytes, struct job_id *ret_job)
{
    if (bytes->len != sizeof ret_job->bytes)
        return false;
    memcpy(ret_job->bytes, bytes->data, sizeof ret_job->bytes);
    return true;
}

/* What the asker's studio uploads under this id and has not cancelled. */
static struct upload *upload_here(struct gateway *gateway, const ProtobufCBinaryData *id)
{
    struct upload *upload = NULL;
    struct job_id job;

    if (studio_here(gateway).value != 0 && id_of(id, &job))
        upload = uploads_find(&gateway->uploads, studio_here(gateway), &job);
    return upload && !upload->cancelled_by[0] ? upload : NULL;
}

static void note(struct gateway *gateway, const Wl__Uploading *said, const struct job_id *job)
{
    struct upload upload = {
        .job = *job,
        .files = said->files,
        .file_bytes = said->file_bytes,
        .bytes_done = said->bytes_done < said->file_bytes ? said->bytes_done : said->file_bytes,
        .begun_wall_s = gateway->wall_s,
        .heard_ns = gateway->now_ns,
        .stopped = said->stopped,
    };
    char text[64];

    snprintf(upload.name, sizeof upload.name, "%s", said->name);
    snprintf(upload.person, sizeof upload.person, "%s", roster_name(gateway->ask.peer, text));
    if (uploads_note(&gateway->uploads, studio_here(gateway), &upload) < 0)
        gateway_die("memory", -ENOMEM);
}

void gateway_on_uploading(struct gateway *gateway)
{
    const Wl__Uploading *said = gateway->ask.envelope->uploading;
    struct studio_id studio = studio_here(gateway);
    struct job_id job;

    if (studio.value == 0 || !id_of(&said->job, &job)) {
        gateway_refuse(gateway, CODE_REFUSED, "the upload", "this key belongs to no studio",
                       "allow it with a studio (westlight-broker allow --studio NAME)");
        return;
    }
    if (catalogue_own(&gateway->catalogue, studio, &job)) {
        say_done(gateway, "the job is accepted");
        return;
    }
    if (refuse_cancelled(gateway, uploads_find(&gateway->uploads, studio, &job)))
        return;
    if (said->gone)
        uploads_end(&gateway->uploads, studio, &job);
    else
        note(gateway, said, &job);
    say_done(gateway, "noted");
}

bool gateway_upload_refused(struct gateway *gateway, const Wl__Submit *submit)
{
    struct job_id job;

    return id_of(&submit->job, &job) &&
           refuse_cancelled(gateway, uploads_find(&gateway->uploads, studio_here(gateway), &job));
}

bool gateway_upload_cancel(struct gateway *gateway, const Wl__Verb *verb)
{
    struct upload *upload = upload_here(gateway, &verb->job);
    char text[64];

    if (!upload || verb->kind != WL__VERB_KIND__VERB_CANCEL || verb->n_tasks || verb->n_frames)
        return false;
    snprintf(upload->cancelled_by, sizeof upload->cancelled_by, "%s",
             roster_name(gateway->ask.peer, text));
    say_done(gateway, "its upload is cancelled: who sends it is told");
    return true;
}

bool gateway_upload_busy(struct gateway *gateway, const ProtobufCBinaryData *id)
{
    if (!upload_here(gateway, id))
        return false;
    gateway_refuse(gateway, CODE_STATE, "the job", "it is still being uploaded",
                   "westlight show JOB says how far it is, westlight cancel JOB ends it");
    return true;
}

static Wl__JobRow *upload_row(struct gateway *gateway, const struct upload *upload)
{
    Wl__JobRow *row = gateway_scratch(gateway, sizeof *row);
    Wl__Upload *message = gateway_scratch(gateway, sizeof *message);
    size_t studio = studio_here(gateway).value;

    wl__job_row__init(row);
    wl__upload__init(message);
    row->job = (ProtobufCBinaryData){sizeof upload->job.bytes, (uint8_t *)upload->job.bytes};
    row->name = (char *)upload->name;
    row->person = (char *)upload->person;
    if (studio < gateway->studios_capacity && gateway->studios[studio])
        row->studio = gateway->studios[studio];
    row->submitted_wall_s = upload->begun_wall_s;
    message->files = upload->files;
    message->file_bytes = upload->file_bytes;
    message->bytes_done = upload->bytes_done;
    message->stopped = upload_stopped(upload, gateway->now_ns);
    row->upload = message;
    return row;
}

static bool begins_with(const struct job_id *job, const Wl__JobsRequest *wanted)
{
    uint32_t nibbles = wanted->prefix_nibbles;

    if (nibbles == 0)
        return true;
    return memcmp(job->bytes, wanted->prefix.data, nibbles / 2) == 0 &&
           (nibbles % 2 == 0 ||
            job->bytes[nibbles / 2] >> 4 == wanted->prefix.data[nibbles / 2] >> 4);
}

size_t gateway_upload_rows(struct gateway *gateway, const Wl__JobsRequest *wanted, Wl__Jobs *jobs,
                           size_t limit)
{
    size_t bytes = 0;

    if (!wanted->uploads || wanted->archived || wanted->before_sequence ||
        studio_here(gateway).value == 0)
        return 0;
    list_for_each (at, uploads_of(&gateway->uploads, studio_here(gateway), gateway->now_ns)) {
        const struct upload *upload = list_entry(at, const struct upload, node);
        Wl__JobRow *row;

        if (upload->cancelled_by[0] || jobs->n_jobs == limit || !begins_with(&upload->job, wanted))
            continue;
        row = upload_row(gateway, upload);
        bytes += wl__job_row__get_packed_size(row) + 4;
        jobs->jobs[jobs->n_jobs++] = row;
    }
    return bytes;
}
