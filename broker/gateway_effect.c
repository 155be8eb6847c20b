/* gateway_effect.c - the way out: each effect of the core as the message its peer reads.
 *
 * A worker whose connection is gone gets a message without a route: it comes back from the journal
 * as unsent, in its turn, by the same way as one that could not be sent.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>
#include <proto/base/log.h>
#include <broker/gateway.h>
#include <broker/words.h>

struct lease gateway_lease(const struct lease_id *lease)
{
    struct lease out = {.step = lease->task.step,
                        .task = lease->task.index,
                        .floor = lease->floor,
                        .epoch = lease->epoch,
                        .attempt = lease->attempt};

    memcpy(out.job, lease->job.bytes, sizeof out.job);
    return out;
}

struct lease_id gateway_lease_id(const struct lease *lease)
{
    struct lease_id out = {.task = {lease->step, lease->task},
                           .floor = lease->floor,
                           .epoch = lease->epoch,
                           .attempt = lease->attempt};

    memcpy(out.job.bytes, lease->job, sizeof out.job.bytes);
    return out;
}

static struct link_route worker_route(struct gateway *gateway, struct worker_id worker,
                                      struct peer **ret_peer)
{
    struct peer *peer = roster_worker(&gateway->roster, worker);
    struct link_route none = {0};

    if (ret_peer)
        *ret_peer = peer;
    return peer && peer->joined && peer->current ? peer->current->route : none;
}

/* ---- replies ---- */

static void reply_submit(struct gateway *gateway, const struct effect *effect)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Accepted accepted = WL__ACCEPTED__INIT;
    struct job_id job = effect->reply.job;

    accepted.job = (ProtobufCBinaryData){sizeof job.bytes, job.bytes};
    accepted.sequence = effect->reply.sequence;
    envelope.body_case = WL__ENVELOPE__BODY_ACCEPTED;
    envelope.accepted = &accepted;
    gateway_answer(gateway, &envelope);
}

static void reply_verb(struct gateway *gateway, const struct effect *effect)
{
    const Wl__Verb *verb = gateway->ask.envelope->verb;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Done done = WL__DONE__INIT;
    char text[LIMIT_NOTE_BYTES];

    words_done((enum verb_kind)verb->kind, effect->reply.tasks, text, sizeof text);
    done.text = text;
    done.tasks = effect->reply.tasks;
    envelope.body_case = WL__ENVELOPE__BODY_DONE;
    envelope.done = &done;
    gateway_answer(gateway, &envelope);
}

static void reply_done(struct gateway *gateway, const struct effect *effect, const char *text)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Done done = WL__DONE__INIT;

    done.text = (char *)text;
    done.tasks = effect->reply.tasks;
    envelope.body_case = WL__ENVELOPE__BODY_DONE;
    envelope.done = &done;
    gateway_answer(gateway, &envelope);
}

/* Which state it is that does not allow it, and the way out. */
static void reply_state(struct gateway *gateway, const struct effect *effect, const char *what)
{
    const Wl__Envelope *asked = gateway->ask.envelope;
    struct job_view view = {0};

    core_job(gateway->with.core, &effect->reply.job, &view);
    if (asked->body_case == WL__ENVELOPE__BODY_EDIT && asked->edit->archived && !view.archived)
        gateway_refuse(gateway, CODE_STATE, what, "the job is not finished",
                       "wait for it (westlight watch), or westlight cancel it first");
    else if (view.archived)
        gateway_refuse(gateway, CODE_STATE, what, "the job is archived",
                       "westlight archive JOB --undo brings it back");
    else
        gateway_refuse(
            gateway, CODE_STATE, what, "the job is cancelled",
            "westlight retry JOB takes it up again; westlight resubmit JOB makes another");
}

static void reply_no(struct gateway *gateway, const struct effect *effect, bool submit)
{
    const char *what = submit ? "the submission" : "the request";
    enum code code = effect->code;
    if (code == CODE_INVALID && submit) {
        gateway_refuse(gateway, code, what, "it contradicts itself, or a limit",
                       "check its steps and what they depend on");
        return;
    }
    switch (code) {
    case CODE_UNKNOWN:
        gateway_refuse(gateway, code, what, "there is no such job", "westlight jobs lists them");
        return;
    case CODE_CONFLICT:
        gateway_refuse(gateway, code, what, "its id was used before, for something else",
                       "repeat it under a new id (a client does this by itself)");
        return;
    case CODE_STATE:
        reply_state(gateway, effect, what);
        return;
    case CODE_STALE:
        gateway_refuse(gateway, code, what, "the job's frames were changed meanwhile", "ask again");
        return;
    case CODE_INVALID:
        gateway_refuse(gateway, code, what,
                       "it comes to too many separate runs of tasks, with all that depends on them",
                       "name fewer frames at once, or ranges without gaps");
        return;
    case CODE_BUSY:
        gateway_refuse(gateway, code, what, "the broker holds as much as it can",
                       "try again later, or ask whoever runs the broker");
        return;
    default:
        gateway_refuse(gateway, code, what, code_name(code), "check what was asked for");
        return;
    }
}

static void reply(struct gateway *gateway, const struct effect *effect)
{
    const struct ask *ask = &gateway->ask;
    bool submit;

    if (!ask->envelope || effect->cookie != gateway->cookie)
        return;
    submit = ask->envelope->body_case == WL__ENVELOPE__BODY_SUBMIT;
    if (effect->code != CODE_OK)
        reply_no(gateway, effect, submit);
    else if (submit)
        reply_submit(gateway, effect);
    else if (ask->envelope->body_case == WL__ENVELOPE__BODY_VERB)
        reply_verb(gateway, effect);
    else if (ask->envelope->body_case == WL__ENVELOPE__BODY_TEND)
        gateway_tended(gateway);
    else if (ask->envelope->body_case == WL__ENVELOPE__BODY_EDIT)
        reply_done(gateway, effect, "changed");
    else if (ask->envelope->body_case == WL__ENVELOPE__BODY_DELIVERED)
        reply_done(gateway, effect, "delivered");
}

/* ---- to workers ---- */

static void verdicts_say(struct gateway *gateway, bool last)
{
    struct verdicts *verdicts = &gateway->verdicts;
    struct link_route route = worker_route(gateway, verdicts->worker, NULL);
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Verdict message = WL__VERDICT__INIT;
    Wl__LeaseVerdict *list[LIMIT_INVENTORY], shapes[LIMIT_INVENTORY];
    Wl__Lease leases[LIMIT_INVENTORY];

    for (size_t i = 0; i < verdicts->n; i++) {
        wire_lease_set(&leases[i], &verdicts->leases[i]);
        wl__lease_verdict__init(&shapes[i]);
        shapes[i].lease = &leases[i];
        shapes[i].verdict = verdicts->what[i];
        list[i] = &shapes[i];
    }
    message.leases = list;
    message.n_leases = verdicts->n;
    message.last = last;
    envelope.body_case = WL__ENVELOPE__BODY_VERDICT;
    envelope.verdict = &message;
    verdicts->n = 0;
    CHECK(gateway_say(gateway, &route, &envelope, NULL) == 0);
}

void gateway_verdicts_say(struct gateway *gateway, bool last)
{
    if (gateway->verdicts.n > 0 || last)
        verdicts_say(gateway, last);
}

static void verdicts_of(struct gateway *gateway, struct worker_id worker)
{
    if (gateway->verdicts.worker.value != worker.value)
        gateway_verdicts_say(gateway, false);
    gateway->verdicts.worker = worker;
}

void gateway_verdict(struct gateway *gateway, struct worker_id worker, const struct lease *lease,
                     enum verdict verdict)
{
    struct verdicts *verdicts = &gateway->verdicts;

    verdicts_of(gateway, worker);
    if (verdicts->n == LIMIT_INVENTORY)
        gateway_verdicts_say(gateway, false);
    verdicts->leases[verdicts->n] = *lease;
    verdicts->what[verdicts->n++] = verdict;
}

static void verdict(struct gateway *gateway, const struct effect *effect)
{
    struct lease lease = gateway_lease(&effect->lease);

    if (!effect->verdict.mark_only)
        gateway_verdict(gateway, effect->worker, &lease, effect->verdict.verdict);
    if (!effect->verdict.last)
        return;
    verdicts_of(gateway, effect->worker);
    gateway_verdicts_say(gateway, true);
}

/* What the lease opens: the recipe's key, the outputs' key, and a pass to the job's blocks. */
struct grant {
    struct lease lease;
    struct ticket ticket;
    uint8_t key_in[32], key_out[32];
    uint8_t pass[PASS_BYTES];
    size_t pass_size;
};

static const uint8_t *job_key(struct gateway *gateway, struct catalogue_job *entry)
{
    const uint8_t *key;

    if (catalogue_key(&gateway->catalogue, entry, &key) != 0)
        gateway_die("a job key as stored (is this the state's master.key?)", -EBADMSG);
    return key;
}

static void grant_make(struct gateway *gateway, const struct effect *effect,
                       const struct link_key *worker, struct catalogue_job *entry,
                       struct grant *grant)
{
    grant->lease = gateway_lease(&effect->lease);
    ticket_sign(gateway->with.signer, &grant->lease, worker, &grant->ticket);
    job_key_out(job_key(gateway, entry), grant->lease.step, grant->lease.task, grant->lease.floor,
                grant->key_out);
    if (entry->submit->n_refs > 0)
        gateway_pass(gateway, entry->studio, &effect->lease, worker, GATEWAY_WRITE_BYTES,
                     grant->pass, &grant->pass_size);
}

/* Of one job's leases that go to a worker in one packet, the first alone brings what all share. */
static void assign_say(struct gateway *gateway, const struct link_route *route,
                       struct catalogue_job *entry, struct grant *grant, Wl__Assign *message,
                       const struct journal_assign *back)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    envelope.body_case = WL__ENVELOPE__BODY_ASSIGN;
    envelope.assign = message;
    int r = journal_say_more(gateway->with.journal, gateway->mark, route, &envelope, back);
    if (r == 0)
        return;
    if (r != -EMSGSIZE)
        gateway_die("memory", r);
    job_key_in(job_key(gateway, entry), grant->key_in);
    message->recipe = entry->submit->recipe;
    message->key_in = (ProtobufCBinaryData){sizeof grant->key_in, grant->key_in};
    CHECK(gateway_say(gateway, route, &envelope, back) == 0);
}

static void assign(struct gateway *gateway, const struct effect *effect)
{
    struct journal_assign back = {effect->worker, effect->lease};
    struct catalogue_job *entry = catalogue_find(&gateway->catalogue, &effect->lease.job);
    Wl__Assign message = WL__ASSIGN__INIT;
    Wl__Lease shape;
    struct grant grant = {0};
    struct peer *peer;
    struct link_route route = worker_route(gateway, effect->worker, &peer);

    CHECK(entry && peer);
    gateway_lease_paid(peer);
    grant_make(gateway, effect, &peer->key, entry, &grant);
    wire_lease_set(&shape, &grant.lease);
    message.lease = &shape;
    message.ticket = (ProtobufCBinaryData){sizeof grant.ticket.bytes, grant.ticket.bytes};
    message.key_out = (ProtobufCBinaryData){sizeof grant.key_out, grant.key_out};
    message.pass = (ProtobufCBinaryData){grant.pass_size, grant.pass};
    message.gpu_mask = effect->assign.gpu_mask;
    message.vcpus = effect->assign.vcpus;
    message.memory_bytes = effect->assign.memory_mib << 20;
    message.behind = effect->assign.behind;
    message.behind_epoch = effect->assign.behind_epoch;
    assign_say(gateway, &route, entry, &grant, &message, &back);
    wipe(&grant, sizeof grant);
}

static void revoke(struct gateway *gateway, const struct effect *effect)
{
    struct link_route route = worker_route(gateway, effect->worker, NULL);
    struct lease lease = gateway_lease(&effect->lease);
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Revoke message = WL__REVOKE__INIT;
    Wl__Lease shape;

    wire_lease_set(&shape, &lease);
    message.lease = &shape;
    if (effect->revoke.revoke == CORE_REVOKE_STOP) {
        message.kind = WL__REVOKE_KIND__REVOKE_STOP;
        message.why = (char *)"it was cancelled or changed, or is done elsewhere";
        live_end(&gateway->live, &effect->lease);
    } else {
        message.kind = WL__REVOKE_KIND__REVOKE_TAKE_BACK;
        message.why = (char *)"another worker is to run it";
    }
    envelope.body_case = WL__ENVELOPE__BODY_REVOKE;
    envelope.revoke = &message;
    (void)gateway_say(gateway, &route, &envelope, NULL);
}

void gateway_committed(struct gateway *gateway, const struct link_route *route,
                       const struct lease_id *lease, enum code code, const char *why,
                       const struct block_id *absent, size_t n_absent)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Committed message = WL__COMMITTED__INIT;
    struct lease plain = gateway_lease(lease);
    ProtobufCBinaryData *missing =
        n_absent > 0 ? gateway_scratch(gateway, n_absent * sizeof *missing) : NULL;
    Wl__Lease shape;

    for (size_t i = 0; i < n_absent; i++)
        missing[i] = (ProtobufCBinaryData){sizeof absent[i], (uint8_t *)absent[i].bytes};
    wire_lease_set(&shape, &plain);
    message.lease = &shape;
    message.code = code;
    message.why = (char *)why;
    message.missing = missing;
    message.n_missing = n_absent;
    envelope.body_case = WL__ENVELOPE__BODY_COMMITTED;
    envelope.committed = &message;
    (void)gateway_say(gateway, route, &envelope, NULL);
}

static void committed(struct gateway *gateway, const struct effect *effect)
{
    struct link_route route = worker_route(gateway, effect->worker, NULL);

    live_end(&gateway->live, &effect->lease);
    gateway_committed(gateway, &route, &effect->lease, effect->code,
                      effect->code == CODE_OK ? "" : code_name(effect->code), NULL, 0);
}

static void part(struct gateway *gateway, const struct effect *effect)
{
    struct peer *peer = roster_worker(&gateway->roster, effect->worker);

    if (peer && peer->current)
        roster_drop(&gateway->roster, peer->current);
}

void gateway_effect(struct gateway *gateway, const struct effect *effect)
{
    if (effect->kind != EFFECT_VERDICT)
        gateway_verdicts_say(gateway, false);
    switch (effect->kind) {
    case EFFECT_REPLY:
        reply(gateway, effect);
        return;
    case EFFECT_WELCOME:
        gateway_welcome(gateway, effect);
        return;
    case EFFECT_VERDICT:
        verdict(gateway, effect);
        return;
    case EFFECT_ASSIGN:
        assign(gateway, effect);
        return;
    case EFFECT_REVOKE:
        revoke(gateway, effect);
        return;
    case EFFECT_COMMITTED:
        committed(gateway, effect);
        return;
    case EFFECT_PART:
        part(gateway, effect);
        return;
    case EFFECT_CHANGED:
        watch_changed(&gateway->watch, &effect->changed.job);
        return;
    }
}
