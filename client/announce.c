/* announce.c - see announce.h. */
#include <client/announce.h>

#include <string.h>

#define SAY_NS  NS_PER_S
#define LOOK_NS (200 * NS_PER_MS)
#define ASK_NS  (3 * NS_PER_S) /* a refusal is looked into; blocks wait meanwhile */

static void fill(struct announce *announce, Wl__Envelope *envelope, Wl__Uploading *message)
{
    const struct westlight_upload *count = announce->count;

    wl__envelope__init(envelope);
    wl__uploading__init(message);
    message->job = (ProtobufCBinaryData){sizeof(announce->job), announce->job};
    message->name = (char *)announce->name;
    message->files = count->files;
    message->file_bytes = count->file_bytes;
    message->bytes_done = count->bytes_done;
    envelope->body_case = WL__ENVELOPE__BODY_UPLOADING;
    envelope->uploading = message;
}

static int ask(struct announce *announce, int64_t timeout_ns)
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    Wl__Envelope envelope;
    Wl__Uploading message;

    fill(announce, &envelope, &message);
    announce->said_ns = clock_monotonic_ns();
    return connection_call(announce->westlight, &envelope, WL__ENVELOPE__BODY_DONE, timeout_ns,
                           &answer);
}

int announce_begin(struct announce *announce)
{
    announce->begun = true;
    return ask(announce, CONNECTION_TIMEOUT_NS);
}

/* What has come in since the last time. */
static int listen(struct announce *announce)
{
    struct westlight *westlight = announce->westlight;
    bool refused = false;
    int r = 0;

    for (;;) {
        _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
        r = connection_glance(westlight, &answer);
        if (r != 0 || !answer)
            break;
        refused |= answer->body_case == WL__ENVELOPE__BODY_REFUSAL;
    }
    if (r == 0 && refused)
        r = ask(announce, ASK_NS);
    /* A broker that is away does not end an upload: blocks have their own patience. */
    if (r != WESTLIGHT_E_TIMEOUT && r != WESTLIGHT_E_UNREACHABLE)
        return r;
    westlight->why[0] = '\0';
    return 0;
}

int announce_go_on(struct announce *announce)
{
    int64_t now_ns = clock_monotonic_ns();
    Wl__Envelope envelope;
    Wl__Uploading message;

    if (!announce->begun || now_ns - announce->looked_ns < LOOK_NS)
        return 0;
    announce->looked_ns = now_ns;
    int r = listen(announce);
    if (r != 0 || now_ns - announce->said_ns < SAY_NS)
        return r;
    announce->said_ns = now_ns;
    fill(announce, &envelope, &message);
    return connection_post(announce->westlight, &envelope);
}

void announce_end(struct announce *announce, bool gone)
{
    Wl__Envelope envelope;
    Wl__Uploading message;

    if (!announce->begun)
        return;
    fill(announce, &envelope, &message);
    message.stopped = true;
    message.gone = gone;
    (void)connection_post(announce->westlight, &envelope);
}
