/* studio.c - one person's link: submits with many requests in flight, and reads back what became of
 * it all.
 *
 * A job's id and its request's are made of its number, so that after a broker's death the same
 * requests are sent again, and answered as before.
 */
#include <tests/load/inner.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>

enum { WINDOW = 256 }; /* submissions in flight; their requests are 1 .. jobs */

#define GREETING_NS   (20 * NS_PER_S)
#define BUSY_NS       (100 * NS_PER_MS)
#define ANSWER_NS     (60 * NS_PER_S)
#define HELLO_REQUEST UINT64_MAX
#define ASK_REQUEST   (1ULL << 40) /* and above: what load_check asks */

/* As evenly spread as random ones, and made of the job's number. */
void load_job_id(const struct load *load, uint64_t job, uint8_t ret_id[16])
{
    uint64_t halves[2] = {load_mix(load->run + job), load_mix(~load->run) ^ job};

    memcpy(ret_id, halves, sizeof(halves));
}

bool load_job_known(const struct load *load, const uint8_t *id, uint32_t *ret_job)
{
    uint64_t halves[2], job;

    memcpy(halves, id, sizeof(halves));
    job = halves[1] ^ load_mix(~load->run);
    if (job >= load->config.jobs || halves[0] != load_mix(load->run + job))
        return false;
    *ret_job = (uint32_t)job;
    return true;
}

int studio_init(struct load *load)
{
    const struct load_config *config = &load->config;
    _cleanup_(bytes_deinit) struct bytes plain = {0};
    uint8_t key_in[32];
    Wl__BlockRef ref;
    int r = bytes_reserve(&plain, config->recipe_bytes + 1);

    load->studio.accepted_bits = calloc(config->jobs / 8 + 1, 1);
    load->studio.said_ns = calloc(config->jobs, sizeof(*load->studio.said_ns));
    if (r < 0 || !load->studio.accepted_bits || !load->studio.said_ns)
        return -ENOMEM;
    r = random_bytes(plain.data, config->recipe_bytes); /* which does not compress */
    if (r == 0)
        r = random_bytes(load->studio.job_key, sizeof(load->studio.job_key));
    if (r == 0)
        r = random_bytes(&load->run, sizeof(load->run));
    if (r != 0)
        return r;
    job_key_in(load->studio.job_key, key_in);
    r = seal_block(load->sealer, key_in, plain.data, config->recipe_bytes, &load->studio.recipe,
                   &load->studio.recipe_key);
    if (r == 0)
        wire_block_ref_set(load->sealer, key_in, &load->studio.recipe_key,
                           load->studio.recipe_wrapped, &ref);
    return r;
}

void studio_deinit(struct load *load)
{
    free(load->studio.accepted_bits);
    free(load->studio.said_ns);
    bytes_deinit(&load->studio.recipe);
    if (load->studio.answer)
        wire_free(load->studio.answer);
}

/* ---- what it says ---- */

static int say_hello(struct load *load)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Hello hello = WL__HELLO__INIT;

    hello.protocol = WIRE_PROTOCOL;
    hello.program = (char[]){"westlight-load " WESTLIGHT_VERSION};
    envelope.request = HELLO_REQUEST;
    envelope.body_case = WL__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    return load_say(load, load->config.workers, &envelope);
}

static int say_submit(struct load *load, uint64_t job)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Submit submit = WL__SUBMIT__INIT;
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    Wl__SpaceParameter frame = WL__SPACE_PARAMETER__INIT, *space[] = {&frame};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    struct bytes *sealed = &load->studio.recipe;
    uint8_t id[16];
    char name[64];

    load_job_id(load, job, id);
    snprintf(name, sizeof(name), "load %llu", (unsigned long long)job + 1);
    range = (Wl__Range){range.base, 1, (int64_t)load->config.frames, 1};
    frame.name = (char[]){"Frame"};
    frame.type = SPACE_INT;
    frame.ranges = ranges;
    frame.n_ranges = 1;
    step.name = (char[]){"render"};
    step.space = space;
    step.n_space = 1;
    recipe.id = (ProtobufCBinaryData){32, load->studio.recipe_key.id.bytes};
    recipe.wrapped_key = (ProtobufCBinaryData){32, load->studio.recipe_wrapped};
    recipe.sealed_bytes = load->studio.recipe_key.sealed_bytes;
    recipe.inline_sealed = (ProtobufCBinaryData){sealed->size, sealed->data};
    submit.request_id = (ProtobufCBinaryData){16, id};
    submit.job = (ProtobufCBinaryData){16, id};
    submit.name = name;
    submit.person = (char[]){"load"};
    submit.steps = steps;
    submit.n_steps = 1;
    submit.job_key = (ProtobufCBinaryData){32, load->studio.job_key};
    submit.recipe = &recipe;
    envelope.request = job + 1;
    envelope.body_case = WL__ENVELOPE__BODY_SUBMIT;
    envelope.submit = &submit;
    return load_say(load, load->config.workers, &envelope);
}

static bool accepted(const struct load *load, uint64_t job)
{
    return load->studio.accepted_bits[job / 8] & 1u << job % 8;
}

static int submit(struct load *load)
{
    while (load->studio.next < load->config.jobs &&
           load->studio.next < load->studio.accepted + WINDOW &&
           load->now_ns >= load->studio.again_ns) {
        uint64_t job = load->studio.next;
        int r = accepted(load, job) ? 0 : say_submit(load, job);

        if (r != 0)
            return r == LINK_E_AGAIN ? 0 : r;
        if (load->first_submit_ns == 0)
            load->first_submit_ns = load->now_ns;
        if (load->studio.said_ns[job] == 0)
            load->studio.said_ns[job] = load->now_ns;
        load->studio.next++;
    }
    return 0;
}

int studio_tend(struct load *load, bool submits)
{
    int r = 0;

    if (!load->studio.open) {
        r = net_open(load->net, load->config.workers, &load->keys[load->config.workers]);
        load->studio.open = r == 0;
    }
    if (r == 0 && !load->studio.greeted &&
        (!load->studio.hello_said || load->now_ns >= load->studio.at_ns)) {
        r = say_hello(load);
        load->studio.hello_said = r == 0;
        load->studio.at_ns = load->now_ns + GREETING_NS;
        if (r == LINK_E_AGAIN)
            r = 0;
    }
    if (r == 0 && submits && load->studio.greeted)
        r = submit(load);
    return r;
}

/* ---- what it hears ---- */

static void take_accepted(struct load *load, uint64_t request)
{
    uint64_t job = request - 1;

    if (job >= load->config.jobs || accepted(load, job))
        return;
    load->studio.accepted_bits[job / 8] |= (uint8_t)(1u << job % 8);
    load->studio.accepted++;
    if (load->now_ns - load->studio.said_ns[job] > load->studio.longest_ns)
        load->studio.longest_ns = load->now_ns - load->studio.said_ns[job];
    load->moved_ns = load->now_ns;
    if (load->studio.accepted == load->config.jobs)
        load->accepted_ns = load->now_ns;
}

/* From the first that is not accepted on: those that are were counted. */
static void submit_again(struct load *load)
{
    load->studio.next = 0;
    while (load->studio.next < load->config.jobs && accepted(load, load->studio.next))
        load->studio.next++;
}

static void take_refusal(struct load *load, const Wl__Envelope *envelope)
{
    const Wl__Refusal *refusal = envelope->refusal;

    if (refusal->code == CODE_STATE && envelope->request != HELLO_REQUEST) {
        if (!load->studio.greeted)
            return;
        load->studio.greeted = load->studio.hello_said = false;
        submit_again(load);
    } else if (refusal->again_ms && envelope->request >= ASK_REQUEST) {
        load->studio.again_ns = load->now_ns + refusal->again_ms * NS_PER_MS;
    } else if (refusal->code == CODE_BUSY && envelope->request < ASK_REQUEST) {
        load->studio.again_ns = load->now_ns + BUSY_NS;
        submit_again(load);
    } else {
        load->counts.refused++;
        log_limited(LOG_ERROR, "refused", "what=\"%s\" code=\"%s\" why=\"%s\"", refusal->what,
                    code_name(refusal->code), refusal->why);
    }
}

static void take(struct load *load, Wl__Envelope **envelope)
{
    switch ((*envelope)->body_case) {
    case WL__ENVELOPE__BODY_WELCOME:
        load->studio.greeted = true;
        break;
    case WL__ENVELOPE__BODY_ACCEPTED:
        take_accepted(load, (*envelope)->request);
        break;
    case WL__ENVELOPE__BODY_REFUSAL:
        take_refusal(load, *envelope);
        break;
    default:
        if ((*envelope)->request == load->studio.request && !load->studio.answer)
            load->studio.answer = TAKE_PTR(*envelope);
    }
}

void studio_take(struct load *load, const void *data, size_t size)
{
    struct hot_each each;
    const uint8_t *one;
    size_t one_size;

    hot_each_init(&each, data, size);
    while (hot_each_next(&each, &one, &one_size)) {
        Wl__Envelope *envelope;
        const char *why;

        if (wire_unpack(one, one_size, &envelope, &why) != 0) {
            log_limited(LOG_ERROR, "malformed", "why=\"%s\"", why);
            load->counts.refused++;
            continue;
        }
        take(load, &envelope);
        if (envelope)
            wire_free(envelope);
    }
}

/* ---- reading back ---- */

/* Asks until there is an answer; over a restart of the broker as well. */
static int ask(struct load *load, Wl__Envelope *envelope, unsigned body, Wl__Envelope **ret_answer)
{
    int64_t until_ns = load->now_ns + ANSWER_NS;
    int r = 0;

    load->studio.again_ns = 0;
    load->studio.request =
        load->studio.request < ASK_REQUEST ? ASK_REQUEST : load->studio.request + 1;
    envelope->request = load->studio.request;
    while (r == 0 && !load->studio.answer && load->now_ns < until_ns) {
        if (!load->studio.greeted)
            load->studio.again_ns = 0; /* it was not heard */
        else if (load->now_ns >= load->studio.again_ns) {
            r = load_say(load, load->config.workers, envelope);
            load->studio.again_ns = load->now_ns + ANSWER_NS / 6;
        }
        if (r == 0 || r == LINK_E_AGAIN)
            r = load_turn(load, false);
    }
    if (r != 0)
        return r;
    *ret_answer = TAKE_PTR(load->studio.answer);
    if (*ret_answer && (*ret_answer)->body_case == body)
        return 0;
    log_error("check", "why=\"%s\"",
              *ret_answer ? "not the answer that was asked for" : "no answer");
    if (*ret_answer)
        wire_free(TAKE_PTR(*ret_answer));
    return LOAD_E_STUCK;
}

struct sums {
    uint64_t jobs, tasks, done, lost, duplicated;
    uint8_t *seen; /* a job's tasks */
    bool every_result;
};

static int check_results(struct load *load, const uint8_t id[16], struct sums *sums)
{
    uint64_t after = 0, n = 0;
    bool more = true;
    int r = 0;

    memset(sums->seen, 0, load->config.frames / 8 + 1);
    while (more && r == 0) {
        Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer = NULL;
        Wl__ResultsRequest request = WL__RESULTS_REQUEST__INIT;

        request.job = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)id};
        request.after = after;
        request.limit = LIMIT_RESULTS_PAGE;
        envelope.body_case = WL__ENVELOPE__BODY_RESULTS_REQUEST;
        envelope.results_request = &request;
        r = ask(load, &envelope, WL__ENVELOPE__BODY_RESULTS, &answer);
        if (r != 0)
            return r;
        for (size_t i = 0; i < answer->results->n_results; i++) {
            const Wl__ResultRow *row = answer->results->results[i];
            uint8_t *byte = &sums->seen[row->task / 8], bit = (uint8_t)(1u << row->task % 8);

            after = row->sequence;
            if (row->step != 0 || row->task >= load->config.frames || *byte & bit) {
                sums->duplicated++;
                continue;
            }
            *byte |= bit;
            n++;
        }
        more = answer->results->more;
        wire_free(answer);
    }
    sums->lost += load->config.frames - n;
    return r;
}

/* Frames whose workers were lost too often are parked, and a job with many of them pauses: who has
 * a bad farm has them run again. */
static int unpark(struct load *load, const Wl__JobRow *row, Wl__VerbKind kind)
{
    Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer = NULL;
    Wl__Verb verb = WL__VERB__INIT;
    uint8_t id[16];
    int r = random_bytes(id, sizeof(id));

    verb.request_id = (ProtobufCBinaryData){sizeof(id), id};
    verb.job = row->job;
    verb.kind = kind;
    envelope.body_case = WL__ENVELOPE__BODY_VERB;
    envelope.verb = &verb;
    if (r == 0)
        r = ask(load, &envelope, WL__ENVELOPE__BODY_DONE, &answer);
    if (answer)
        wire_free(answer);
    return r;
}

static int job_again(struct load *load, const Wl__JobRow *row)
{
    int r = row->failed ? unpark(load, row, WL__VERB_KIND__VERB_RETRY) : 0;

    load->counts.parked += row->failed;
    return r == 0 && row->paused_itself ? unpark(load, row, WL__VERB_KIND__VERB_RESUME) : r;
}

static int check_job(struct load *load, const Wl__JobRow *row, struct sums *sums)
{
    uint64_t off = row->tasks > row->done ? row->tasks - row->done : row->done - row->tasks;
    uint32_t job;

    if (row->job.len != 16 || !load_job_known(load, row->job.data, &job))
        return 0;
    sums->jobs++;
    sums->tasks += row->tasks;
    sums->done += row->done;
    if (sums->every_result && !row->failed)
        return check_results(load, row->job.data, sums);
    sums->lost += off;
    return row->failed || row->paused_itself ? job_again(load, row) : 0;
}

static int check_jobs(struct load *load, struct sums *sums)
{
    uint64_t before = 0;
    bool more = true;
    int r = 0;

    while (more && r == 0) {
        Wl__Envelope envelope = WL__ENVELOPE__INIT, *answer = NULL;
        Wl__JobsRequest request = WL__JOBS_REQUEST__INIT;

        request.before_sequence = before;
        request.limit = LIMIT_PAGE;
        request.all = true;
        envelope.body_case = WL__ENVELOPE__BODY_JOBS_REQUEST;
        envelope.jobs_request = &request;
        r = ask(load, &envelope, WL__ENVELOPE__BODY_JOBS, &answer);
        if (r != 0)
            return r;
        for (size_t i = 0; r == 0 && i < answer->jobs->n_jobs; i++)
            r = check_job(load, answer->jobs->jobs[i], sums);
        before = answer->jobs->next;
        more = answer->jobs->more;
        wire_free(answer);
    }
    return r;
}

int load_check(struct load *load, bool every_result, uint64_t *ret_lost, uint64_t *ret_duplicated)
{
    struct sums sums = {.every_result = every_result};
    int r;

    sums.seen = calloc(load->config.frames / 8 + 1, 1);
    if (!sums.seen)
        return -ENOMEM;
    r = check_jobs(load, &sums);
    free(sums.seen);
    if (r != 0)
        return r;
    if (sums.jobs < load->config.jobs)
        sums.lost += (load->config.jobs - sums.jobs) * load->config.frames;
    *ret_lost = sums.lost;
    *ret_duplicated = sums.duplicated + load->counts.duplicated;
    return 0;
}
