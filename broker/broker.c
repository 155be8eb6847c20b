/* broker.c - the loop: receive a batch, step the core, give all its records to the store as one
 * transaction, and send what is durable. Receiving goes on while the store syncs; what came in
 * meanwhile is the next batch.
 *
 * There is no way to end it that loses anything, so that ending is only ever stopping.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/base/crash.h>
#include <proto/base/log.h>
#include <broker/broker.h>
#include <broker/bulk.h>
#include <broker/enrol.h>
#include <broker/gateway.h>
#include <broker/room.h>

enum { BATCH_MESSAGES = 1000, ENDPOINT_BYTES = TOKEN_ENDPOINT_BYTES, START_RETRY_MS = 500 };

struct broker {
    struct broker_config config;
    struct link_keypair keys, enrol_keys;
    struct identity_signer signer;
    struct store *store;
    struct store_reader *registry;          /* the control thread's */
    struct store_reader *zap_registry;      /* the control context's ZAP thread's */
    struct store_reader *bulk_zap_registry; /* the bulk context's */
    struct store_reader *bulk_registry;     /* the bulk thread's */
    struct store_reader *history;           /* the vault threads', by turns */
    struct core *core;
    struct journal *journal;
    struct query *query;
    struct vault *vault;
    struct vault_port *port;
    struct bulk *bulk;
    struct enrol *enrol;
    struct room room;
    void *context, *control;
    struct link_zap *zap;
    struct link_guard *guard;
    struct gateway gateway;
    bool has_gateway;
    int signals;
    char control_endpoint[ENDPOINT_BYTES];
    char bulk_advertised[ENDPOINT_BYTES];
    struct broker_endpoints told; /* to newcomers */
};

/* ---- beginning ---- */

static int open_secrets(struct broker *broker, struct bytes *why)
{
    char path[LIMIT_PATH_BYTES];
    uint8_t master[32];
    int r = broker_state(broker->config.state, why);

    if (r == 0)
        r = broker_keys(broker->config.state, BROKER_KEY_FILE, &broker->keys, why);
    if (r == 0)
        r = broker_keys(broker->config.state, BROKER_ENROL_KEY_FILE, &broker->enrol_keys, why);
    if (r == 0)
        r = broker_path(broker->config.state, "master.key", path, why);
    if (r != 0)
        return r;
    r = identity_secret_load_or_new(path, master);
    if (r != 0) {
        bytes_printf(why, "%s: %s: put the state's own master key back", path,
                     r < 0 ? strerror(-r) : "it is no secret");
        return r;
    }
    identity_signer_init(&broker->signer, master);
    wipe(master, sizeof master);
    return 0;
}

/* A start writes a little. Where there is no space for that, it waits, as it would have waited had
 * it not been ended. */
static int open_database(struct broker *broker, struct bytes *why)
{
    const char *state = broker->config.state;
    struct pollfd signals = {.fd = broker->signals, .events = POLLIN};
    int r;

    while ((r = store_open(state, &broker->store)) == STORE_E_FULL) {
        log_limited(LOG_ERROR, "disk",
                    "state=full why=\"%s\" next=\"free space: it starts by itself\"",
                    store_why(NULL));
        if (poll(&signals, 1, START_RETRY_MS) > 0)
            break;
    }
    if (r != 0)
        bytes_printf(why, "%s: %s", state, store_why(NULL));
    return r;
}

static int open_store(struct broker *broker, struct bytes *why)
{
    const char *state = broker->config.state;
    char path[LIMIT_PATH_BYTES];
    int r = open_database(broker, why);

    if (r != 0)
        return r;
    r = store_reader_new(state, &broker->registry);
    if (r == 0)
        r = store_reader_new(state, &broker->zap_registry);
    if (r == 0)
        r = store_reader_new(state, &broker->bulk_zap_registry);
    if (r == 0)
        r = store_reader_new(state, &broker->bulk_registry);
    if (r == 0)
        r = store_reader_new(state, &broker->history);
    if (r == 0)
        r = query_new(state, &broker->query);
    if (r == 0)
        r = journal_new(broker->store, &broker->journal);
    if (r == 0)
        r = broker_path(state, "vault", path, why);
    if (r == 0)
        r = folder_make(path, 0700);
    if (r == 0)
        r = vault_open(path, broker->config.vault_threads, &broker->vault);
    if (r == 0)
        r = vault_port_new(broker->vault, &broker->port);
    if (r == 0)
        r = room_init(&broker->room, state, broker->config.reserve_bytes);
    if (r == 0)
        vault_history_by(broker->vault, gateway_history, broker->history);
    if (r != 0 && why->size == 0)
        bytes_printf(why, "%s: %s", state, r < 0 ? strerror(-r) : store_why(broker->store));
    return r;
}

static int on_record(void *user, const struct record *record)
{
    return gateway_recover(user, record);
}

static int on_key(void *user, const struct key_row *row)
{
    gateway_studio(user, row);
    return 0;
}

/* Three beats to a lease, so that one lost does not end it. */
static int64_t beat_ns(int64_t lease_ns)
{
    return lease_ns / 3 < LIMIT_BEAT_NS ? lease_ns / 3 : LIMIT_BEAT_NS;
}

/* A master key that does not open one job's key opens none: said now, not when a worker is to get
 * it.
 */
static int check_master(struct broker *broker, struct bytes *why)
{
    struct catalogue *catalogue = &broker->gateway.catalogue;
    const uint8_t *key;

    if (!catalogue->root || catalogue_key(catalogue, catalogue->root, &key) == 0)
        return 0;
    bytes_printf(
        why,
        "%s/master.key: damaged, or another state's: the jobs' keys do not open with it: put "
        "the state's own back from a backup's folder of keys",
        broker->config.state);
    return -EBADMSG;
}

/* Shorter where so little is kept that an hour would be felt. */
static int64_t forget_every_s(const struct broker_config *config)
{
    int64_t least_s = config->retain_s < config->retain_delivered_s ? config->retain_s
                                                                    : config->retain_delivered_s;

    return least_s / 24 < 1                      ? 1
           : least_s / 24 < LIMIT_FORGET_EVERY_S ? least_s / 24
                                                 : LIMIT_FORGET_EVERY_S;
}

/* A leap that is not told from time that passes is short beside what it shortens. */
static int64_t clock_slack_s(const struct broker_config *config)
{
    int64_t slack_s = config->grace_ns / NS_PER_S / 8;

    return slack_s < 60 ? 60 : slack_s < LIMIT_CLOCK_SLACK_S ? slack_s : LIMIT_CLOCK_SLACK_S;
}

static int recover(struct broker *broker, struct bytes *why)
{
    struct core_config core_config = {.epoch = store_epoch(broker->store),
                                      .sequence = store_sequence(broker->store),
                                      .licence_ns = broker->config.licence_ns,
                                      .lease_ns = broker->config.lease_ns,
                                      .retain_s = broker->config.retain_s,
                                      .retain_delivered_s = broker->config.retain_delivered_s,
                                      .retain_read_s =
                                          (broker->config.grace_ns + NS_PER_S - 1) / NS_PER_S,
                                      .forget_every_s = forget_every_s(&broker->config),
                                      .clock_slack_s = clock_slack_s(&broker->config)};
    struct gateway_config config = {.journal = broker->journal,
                                    .vault = broker->vault,
                                    .port = broker->port,
                                    .query = broker->query,
                                    .registry = broker->registry,
                                    .signer = &broker->signer,
                                    .room = &broker->room,
                                    .bulk = broker->bulk_advertised,
                                    .epoch = core_config.epoch,
                                    .fence = store_fence(broker->store),
                                    .messages_per_s = broker->config.messages_per_s
                                                          ? broker->config.messages_per_s
                                                          : LIMIT_MESSAGES_PER_S,
                                    .beat_ns = beat_ns(core_config.lease_ns),
                                    .grace_ns = broker->config.grace_ns};
    int64_t begun_ns = clock_monotonic_ns();
    int r = random_bytes(&core_config.seed, sizeof core_config.seed);

    if (r < 0)
        return r;
    broker->core = core_new(&core_config);
    if (!broker->core)
        return -ENOMEM;
    config.core = broker->core;
    r = gateway_init(&broker->gateway, &config);
    if (r < 0)
        return r;
    broker->has_gateway = true;
    r = store_keys(broker->registry, on_key, &broker->gateway);
    if (r > 0)
        bytes_printf(why, "%s: %s", broker->config.state, store_reader_why(broker->registry));
    if (r > 0)
        return r;
    if (r == 0)
        r = store_recover(broker->store, on_record, &broker->gateway);
    if (r != 0) {
        bytes_printf(why, "%s: %s", broker->config.state,
                     r > 0           ? store_why(broker->store)
                     : r == -EBADMSG ? "state.db: damaged: a record fits nowhere: westlight-broker "
                                       "--check lists the damage, westlight-broker restore brings "
                                       "back a backup"
                                     : strerror(-r));
        return r;
    }
    r = check_master(broker, why);
    if (r != 0)
        return r;
    core_recovered(broker->core, clock_monotonic_ns());
    r = vault_sweep(broker->vault, broker->config.grace_ns, /* all jobs are known to it */
                    core_passed_s(broker->core));
    if (r < 0)
        return r;
    crash_point("broker.recovered");
    log_info("recovered", "epoch=%u jobs=%zu ms=%lld", core_config.epoch,
             broker->gateway.catalogue.n_jobs,
             (long long)((clock_monotonic_ns() - begun_ns) / NS_PER_MS));
    return 0;
}

/* Each ZAP thread has a reader of its own. */
static int on_allow(void *user, const struct link_key *key)
{
    struct worker_key name;
    struct key_row row;

    memcpy(name.bytes, key->bytes, sizeof name.bytes);
    return store_key(user, &name, &row) == 0 ? 0 : -EACCES;
}

static int on_bulk_key(void *user, const struct link_key *key, struct bulk_key *ret_key)
{
    struct worker_key name;
    struct key_row row;

    memcpy(name.bytes, key->bytes, sizeof name.bytes);
    int r = store_key(user, &name, &row);
    if (r == 0)
        *ret_key = (struct bulk_key){row.role, row.studio};
    return r;
}

static int on_bulk_quota(void *user, struct studio_id studio, uint64_t *ret_bytes)
{
    struct studio_row row;
    int r = store_studio(user, studio, &row);

    if (r == 0)
        *ret_bytes = row.quota_bytes;
    return r;
}

/* As peers are told. A host of * is the one by which a peer reached what told it. */
static void advertise(const char *bound, char told[ENDPOINT_BYTES])
{
    const char *port = strrchr(bound, ':');
    bool any_host = strncmp(bound, "tcp://0.0.0.0:", 14) == 0 ||
                    strncmp(bound, "tcp://[::]:", 11) == 0 || strncmp(bound, "tcp://*:", 8) == 0;

    snprintf(told, ENDPOINT_BYTES, "%s%s", any_host ? "tcp://*" : bound,
             any_host && port ? port : "");
}

static int bind_failed(const char *what, const char *endpoint, int r, struct bytes *why)
{
    bytes_printf(why, "%s endpoint %s: %s: %s", what, endpoint, r < 0 ? strerror(-r) : "failed",
                 r == -EADDRINUSE ? "end what listens there, or choose another port"
                                  : "give an address of this machine, as tcp://*:7420");
    return r < 0 ? r : -EINVAL;
}

/* Last: what newcomers are told is true by then. */
static int open_enrol(struct broker *broker, struct bytes *why)
{
    struct enrol_config config = {.endpoint = broker->config.enrol,
                                  .state = broker->config.state,
                                  .keys = &broker->enrol_keys,
                                  .server_key = &broker->keys.public_key,
                                  .control = broker->told.control};
    int r;

    if (!config.endpoint)
        return 0;
    advertise(broker->control_endpoint, broker->told.control);
    r = enrol_start(&config, &broker->enrol);
    if (r != 0)
        return bind_failed("enrol", config.endpoint, r, why);
    advertise(enrol_endpoint(broker->enrol), broker->told.enrol);
    return broker_endpoints_keep(broker->config.state, &broker->told, why);
}

/* Bulk first: once control is bound, what Welcome says of it is true. */
static int open_endpoints(struct broker *broker, struct bytes *why)
{
    struct bulk_config bulk = {.endpoint = broker->config.bulk,
                               .keys = &broker->keys,
                               .signer = &broker->signer,
                               .vault = broker->vault,
                               .allow = on_allow,
                               .allow_user = broker->bulk_zap_registry,
                               .registry = on_bulk_key,
                               .quota = on_bulk_quota,
                               .registry_user = broker->bulk_registry,
                               .room = &broker->room,
                               .memory_bytes = broker->config.bulk_memory_bytes,
                               .io_threads = 2};
    int r = bulk_start(&bulk, &broker->bulk);

    if (r != 0)
        return bind_failed("bulk", bulk.endpoint, r, why);
    if (broker->config.bulk_advertise)
        snprintf(broker->bulk_advertised, ENDPOINT_BYTES, "%s", broker->config.bulk_advertise);
    else
        advertise(bulk_endpoint(broker->bulk), broker->bulk_advertised);
    crash_point("broker.bulk");
    r = link_context_new(1, &broker->context);
    if (r == 0)
        r = link_zap_new(broker->context, on_allow, broker->zap_registry, &broker->zap);
    if (r == 0)
        r = link_listen_guarded(broker->context, LINK_CONTROL, broker->config.control,
                                &broker->keys, &broker->guard, &broker->control,
                                broker->control_endpoint);
    if (r != 0)
        return bind_failed("control", broker->config.control, r, why);
    crash_point("broker.bound");
    broker->gateway.with.control = broker->control;
    broker->gateway.with.guard = broker->gateway.roster.guard = broker->guard;
    return open_enrol(broker, why);
}

/* One line for whoever started it: where it listens, and who it is. */
static int tell_ready(struct broker *broker, struct bytes *why)
{
    _cleanup_(bytes_deinit) struct bytes line = {0};
    char key[IDENTITY_Z85_SIZE];
    int r;

    identity_key_text(&broker->keys.public_key, key);
    r = bytes_printf(&line, "ready control=%s bulk=%s key=%s%s%s\n", broker->control_endpoint,
                     bulk_endpoint(broker->bulk), key, broker->enrol ? " enrol=" : "",
                     broker->enrol ? enrol_endpoint(broker->enrol) : "");
    if (r == 0)
        r = fd_write_all(STDOUT_FILENO, line.data, line.size);
    if (r == 0 && broker->config.ready_fd >= 0) {
        r = fd_write_all(broker->config.ready_fd, line.data, line.size);
        close(broker->config.ready_fd);
    }
    if (r == 0 && broker->config.ready_file)
        r = file_write(broker->config.ready_file, line.data, line.size, 0600);
    if (r < 0)
        bytes_printf(why, "the ready line: %s", strerror(-r));
    return r;
}

/* ---- the loop ---- */

/* Nothing tells of space that was freed, of a quota that was raised, or that nothing is left to
 * read. */
static long poll_ms(const struct broker *broker)
{
    int64_t wait_ns = gateway_deadline_ns(&broker->gateway) - clock_monotonic_ns();

    if (wait_ns <= 0)
        return 0;
    if (wait_ns >= LINK_GUARD_MS * NS_PER_MS)
        return LINK_GUARD_MS;
    /* Up, so that it is past the deadline when it wakes. */
    return (long)((wait_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void pass(struct broker *broker)
{
    struct gateway *gateway = &broker->gateway;
    int r = journal_completed(broker->journal);

    if (r != 0)
        gateway_die("a commit failed: start again, nothing accepted is lost", r);
    gateway->now_ns = clock_monotonic_ns();
    gateway->wall_s = clock_wall_ns() / NS_PER_S;
    gateway_disk(gateway, store_full(broker->store));
    gateway_quotas(gateway);
    gateway_pinned(gateway);
    gateway_answered(gateway);
    gateway_forgotten(gateway);
    gateway_receive(gateway, BATCH_MESSAGES);
    gateway_turns(gateway);
    gateway_tick(gateway);
    gateway_flush(gateway); /* may say more: of what could not be sent */
    r = journal_submit(broker->journal);
    if (r != 0)
        gateway_die("the store", r);
}

static int loop(struct broker *broker)
{
    for (;;) {
        /* A full journal waits for the store alone. */
        zmq_pollitem_t items[] = {
            {.fd = broker->signals, .events = ZMQ_POLLIN},
            {.fd = store_fd(broker->store), .events = ZMQ_POLLIN},
            {.fd = vault_port_fd(broker->port), .events = ZMQ_POLLIN},
            {.fd = query_fd(broker->query), .events = ZMQ_POLLIN},
            {.socket = broker->control, .events = ZMQ_POLLIN},
        };
        int n = (int)ARRAY_SIZE(items) - (journal_full(broker->journal) ? 1 : 0);

        if (zmq_poll(items, n, poll_ms(broker)) < 0 && errno != EINTR)
            return -errno;
        if (items[0].revents)
            return 0;
        pass(broker);
    }
}

static void close_all(struct broker *broker)
{
    enrol_stop(broker->enrol);
    link_guard_free(broker->guard);
    link_close(broker->control);
    link_zap_free(broker->zap);
    link_context_free(broker->context);
    if (broker->bulk)
        bulk_stop(broker->bulk);
    query_free(broker->query);
    if (broker->vault)
        vault_close(broker->vault); /* completes what was asked of it */
    if (broker->has_gateway)
        gateway_deinit(&broker->gateway);
    if (broker->port)
        vault_port_free(broker->port);
    if (broker->store)
        store_close(broker->store);
    journal_free(broker->journal);
    core_free(broker->core);
    store_reader_free(broker->registry);
    store_reader_free(broker->zap_registry);
    store_reader_free(broker->bulk_zap_registry);
    store_reader_free(broker->bulk_registry);
    store_reader_free(broker->history);
    wipe(&broker->signer, sizeof broker->signer);
    wipe(&broker->keys, sizeof broker->keys);
    wipe(&broker->enrol_keys, sizeof broker->enrol_keys);
    if (broker->signals >= 0)
        close(broker->signals);
}

static int take_signals(void)
{
    sigset_t set;
    struct rlimit files;

    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    /* Before the first thread, which inherits it. */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int broker_run(const struct broker_config *config)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct broker *broker = calloc(1, sizeof *broker);
    int r;

    if (!broker)
        return -ENOMEM;
    broker->config = *config;
    broker->signals = r = take_signals();
    if (r >= 0)
        r = open_secrets(broker, &why);
    if (r == 0)
        r = open_store(broker, &why);
    if (r == 0)
        r = recover(broker, &why);
    if (r == 0)
        r = open_endpoints(broker, &why);
    if (r == 0)
        r = tell_ready(broker, &why);
    if (r == 0) {
        r = loop(broker);
        log_info("ended", "batches=%llu messages=%llu refused=%llu dropped=%llu unsent=%llu forged=%llu unheard=%llu",
                 (unsigned long long)journal_batches(broker->journal),
                 (unsigned long long)broker->gateway.counters.messages,
                 (unsigned long long)broker->gateway.counters.refused,
                 (unsigned long long)broker->gateway.counters.dropped,
                 (unsigned long long)broker->gateway.counters.unsent,
                 (unsigned long long)broker->gateway.counters.forged,
                 (unsigned long long)broker->gateway.counters.unheard);
    }
    if (r != 0)
        fprintf(stderr, "westlight-broker: %s\n",
                why.size ? (const char *)why.data : strerror(r < 0 ? -r : EIO));
    close_all(broker);
    free(broker);
    return r;
}
