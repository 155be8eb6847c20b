/* engine.c - see engine.h. A turn: what came, what is due, what there is to say; then a wait, if
 * nothing came.
 */
#include <tests/load/inner.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/log.h>

enum { TURN_MESSAGES = 1024 };

#define LATER_NS (20 * NS_PER_MS) /* what has no room on its link is tried again */
#define WAIT_MS  20               /* at most: `turn` is to be called */
#define QUIET_NS NS_PER_S         /* before the broker is asked whether all is done */

/* splitmix64 */
uint64_t load_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

uint64_t load_random(struct load *load)
{
    return load_mix(load->random += 0x9e3779b97f4a7c15ULL);
}

int load_keys(const uint8_t master[32], uint32_t index, struct link_keypair *ret_keys)
{
    uint8_t number[4];
    char secret[IDENTITY_Z85_SIZE], public_key[IDENTITY_Z85_SIZE];

    memcpy(number, &index, sizeof(number));
    mac2(master, "load", 4, number, sizeof(number), ret_keys->secret_key.bytes);
    zmq_z85_encode(secret, ret_keys->secret_key.bytes, LINK_KEY_BYTES);
    if (zmq_curve_public(public_key, secret) < 0)
        return -errno;
    zmq_z85_decode(ret_keys->public_key.bytes, public_key);
    return 0;
}

/* What all results share: a manifest of so many bytes that nobody opens, what it used, and one
 * file.
 */
static int fixed_make(struct load *load)
{
    Wl__Result result = WL__RESULT__INIT;
    Wl__BlockRef manifest = WL__BLOCK_REF__INIT, *manifests[] = {&manifest};
    Wl__Usage usage = WL__USAGE__INIT;
    uint8_t bytes[LIMIT_INLINE_BYTES], wrapped[32];
    struct block_id id;
    int r = random_bytes(bytes, sizeof(bytes));

    if (r == 0)
        r = random_bytes(wrapped, sizeof(wrapped));
    if (r < 0)
        return r;
    digest(bytes, load->config.result_bytes, &id);
    manifest.id = (ProtobufCBinaryData){sizeof(id), id.bytes};
    manifest.wrapped_key = (ProtobufCBinaryData){sizeof(wrapped), wrapped};
    manifest.sealed_bytes = load->config.result_bytes;
    manifest.inline_sealed = (ProtobufCBinaryData){load->config.result_bytes, bytes};
    usage.wall_ns = (uint64_t)load->config.task_ns + 1000000;
    usage.cpu_ns = 900000;
    usage.memory_bytes = 1 << 20;
    result.manifest = manifests;
    result.n_manifest = 1;
    result.usage = &usage;
    result.output_files = 1;
    result.output_bytes = 1000;
    load->fixed_size = wl__result__get_packed_size(&result);
    CHECK(load->fixed_size <= sizeof(load->fixed));
    wl__result__pack(&result, load->fixed);
    return 0;
}

static int memory_make(struct load *load)
{
    const struct load_config *config = &load->config;
    uint64_t most = (uint64_t)config->workers * config->slots * (1 + config->prefetch);

    load->total = config->jobs * config->frames;
    load->n_buckets = 4096;
    while (load->n_buckets < most && load->n_buckets < 1u << 24)
        load->n_buckets *= 2;
    load->buckets = calloc(load->n_buckets, sizeof(*load->buckets));
    load->bits = calloc(load->total / 8 + 1, 1);
    load->told = calloc(load->total / 8 + 1, 1);
    load->keys = calloc(config->workers + 1, sizeof(*load->keys));
    load->held = calloc(1024, sizeof(*load->held));
    load->held_capacity = 1024;
    if (!load->buckets || !load->bits || !load->told || !load->keys || !load->held)
        return -ENOMEM;
    for (uint32_t i = 0; i <= config->workers; i++) {
        int r = load_keys(config->master, i, &load->keys[i]);

        if (r < 0)
            return r;
    }
    return sealer_new(&load->sealer);
}

int load_new(const struct load_config *config, struct load **ret_load)
{
    struct load *load = calloc(1, sizeof(*load));
    int spread_ms = (int)(config->workers * 1000ull / config->ramp);
    int r;

    if (!load)
        return -ENOMEM;
    load->config = *config;
    load->random = config->seed;
    r = memory_make(load);
    if (r == 0)
        r = fixed_make(load);
    if (r == 0)
        r = studio_init(load);
    if (r == 0)
        r = net_new(config->endpoint, &config->server, config->workers + 1, config->io_threads,
                    spread_ms, &load->net);
    load->now_ns = load->moved_ns = clock_monotonic_ns();
    load->wall_offset_ns = clock_wall_ns() - load->now_ns;
    if (r == 0)
        r = workers_init(load);
    if (r != 0) {
        load_free(load);
        return r;
    }
    *ret_load = load;
    return 0;
}

void load_free(struct load *load)
{
    if (!load)
        return;
    net_free(load->net);
    workers_deinit(load);
    studio_deinit(load);
    sealer_free(load->sealer);
    free(load->buckets);
    free(load->bits);
    free(load->told);
    free(load->keys);
    free(load->held);
    free(load);
}

/* ---- a turn ---- */

int load_send(struct load *load, uint32_t link, const void *data, size_t size)
{
    zmq_msg_t message;
    int r;

    if (zmq_msg_init_size(&message, size) < 0)
        return -ENOMEM;
    memcpy(zmq_msg_data(&message), data, size);
    r = net_send(load->net, link, &message);
    if (r != 0)
        zmq_msg_close(&message);
    else if (link < load->config.workers) {
        load->counts.messages_out++;
        load->counts.bytes_out += size;
    }
    return r == LINK_E_GONE ? LINK_E_AGAIN : r; /* it was cut just now */
}

int load_say(struct load *load, uint32_t link, const Wl__Envelope *envelope)
{
    size_t size = wl__envelope__get_packed_size(envelope);

    CHECK(size <= LIMIT_CONTROL_BYTES);
    wl__envelope__pack(envelope, load->out);
    return load_send(load, link, load->out, size);
}

static int receive(struct load *load, bool *ret_any)
{
    int r = 0;

    *ret_any = false;
    for (int i = 0; i < TURN_MESSAGES; i++) {
        zmq_msg_t message;
        uint32_t link;

        r = net_receive(load->net, &link, &message);
        if (r != 0)
            break;
        *ret_any = true;
        load->now_ns = clock_monotonic_ns();
        if (link < load->config.workers)
            worker_hear(load, link, zmq_msg_data(&message), zmq_msg_size(&message));
        else
            studio_take(load, zmq_msg_data(&message), zmq_msg_size(&message));
        zmq_msg_close(&message);
    }
    return r < 0 ? r : 0;
}

static long wait_ms(const struct load *load)
{
    int64_t at_ns = workers_deadline_ns(load), lease_ns = leases_deadline_ns(load);

    if (lease_ns < at_ns)
        at_ns = lease_ns;
    if (load->n_dirty > 0 && at_ns > load->now_ns + NS_PER_MS)
        at_ns = load->now_ns + NS_PER_MS;
    if (at_ns <= load->now_ns)
        return 0;
    return at_ns - load->now_ns >= WAIT_MS * NS_PER_MS
               ? WAIT_MS
               : (long)((at_ns - load->now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

int load_turn(struct load *load, bool submits)
{
    bool any;
    int r = receive(load, &any);

    if (r < 0)
        return r;
    load->now_ns = clock_monotonic_ns();
    leases_due(load);
    workers_tend(load);
    r = studio_tend(load, submits);
    if (r == 0)
        r = workers_flush(load);
    if (r == 0 && load->config.turn)
        r = load->config.turn(load->config.user, load->now_ns);
    if (r == 0 && load->counts.refused > 0)
        r = LOAD_E_REFUSED;
    if (r == 0 && load->now_ns - load->moved_ns > load->config.patience_ns)
        r = LOAD_E_STUCK;
    if (r != 0 || any)
        return r;
    r = net_wait(load->net, wait_ms(load));
    return r < 0 ? r : 0;
}

/* ---- the parts of a run ---- */

static int go_on(struct load *load, bool submits, bool (*done)(void *user), void *user)
{
    int r = 0;

    load->moved_ns = clock_monotonic_ns();
    while (r == 0 && !done(user))
        r = load_turn(load, submits);
    return r;
}

static bool all_there(void *user)
{
    const struct load *load = user;

    return load->n_joined == load->config.workers && load->studio.greeted;
}

static bool all_accepted(void *user)
{
    const struct load *load = user;

    return load->studio.accepted == load->config.jobs;
}

/* Not sure: a result that was dropped was mostly committed before, but not always. */
static bool all_told(const struct load *load)
{
    return load->settled == load->total && load->counts.lapsed == 0;
}

static bool quiet(const struct load *load)
{
    return load->studio.accepted == load->config.jobs && load->now_ns - load->moved_ns > QUIET_NS &&
           load->now_ns - load->asked_ns > QUIET_NS;
}

int load_join(struct load *load)
{
    return go_on(load, false, all_there, load);
}

int load_submit(struct load *load)
{
    return go_on(load, true, all_accepted, load);
}

static bool all_held(void *user)
{
    const struct load *load = user;

    for (uint32_t i = 0; i < load->config.workers; i++)
        if (load->workers[i].say_beat || load->workers[i].heard_ns <= load->hold_ns)
            return false;
    return true;
}

/* A beat is answered. */
int load_hold(struct load *load)
{
    load->hold = true;
    load->hold_ns = clock_monotonic_ns();
    workers_beat(load);
    return go_on(load, false, all_held, load);
}

void load_release(struct load *load)
{
    load->hold = false;
    workers_beat(load);
}

int load_drain_some(struct load *load, uint64_t frames)
{
    int r = 0;

    if (frames >= load->total)
        return load_drain(load);
    load->moved_ns = clock_monotonic_ns();
    while (r == 0 && load->settled < frames)
        r = load_turn(load, true);
    return r;
}

/* Who died after its last result never hears what became of it: so the broker is asked when nothing
 * has moved for a while. */
int load_drain(struct load *load)
{
    uint64_t lost = 1, duplicated;
    int r = 0;

    load->moved_ns = clock_monotonic_ns();
    while (r == 0 && lost > 0 && !all_told(load)) {
        r = load_turn(load, true);
        if (r != 0 || !quiet(load))
            continue;
        r = load_check(load, false, &lost, &duplicated);
        load->asked_ns = load->now_ns;
    }
    return r;
}

int load_until(struct load *load, bool (*done)(void *user), void *user)
{
    return go_on(load, true, done, user);
}

const struct load_counts *load_counts(const struct load *load)
{
    return &load->counts;
}

uint32_t load_joined(const struct load *load, uint32_t epoch)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < load->config.workers; i++)
        n += load->workers[i].state == PHASE_JOINED && load->workers[i].epoch >= epoch;
    return n;
}

uint32_t load_listed(const struct load *load, uint32_t epoch)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < load->config.workers; i++)
        n += load->workers[i].listed_epoch >= epoch;
    return n;
}

uint32_t load_epoch(const struct load *load)
{
    return load->epoch;
}

int64_t load_first_submit_ns(const struct load *load)
{
    return load->first_submit_ns;
}

int64_t load_first_lease_ns(const struct load *load)
{
    return load->first_lease_ns;
}

int64_t load_accepted_ns(const struct load *load)
{
    return load->accepted_ns;
}

int64_t load_accept_ns(const struct load *load)
{
    return load->studio.longest_ns;
}

int64_t load_last_commit_ns(const struct load *load)
{
    return load->last_commit_ns;
}

double load_latency_ms(const struct load *load, double percent)
{
    return histogram_ms(&load->latency, percent);
}
