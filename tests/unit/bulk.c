/* bulk.c - what a pass allows happens, what it does not is refused, and a peer that reads nothing
 * stops nobody else. The client is transfer.h, or a bare link where it would be too polite.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <broker/bulk.h>
#include <proto/base/clock.h>
#include <proto/transfer.h>
#include <proto/wire.h>

static char folder[64];
static struct vault *vault;
static struct bulk *bulk;
static struct identity_signer signer;
static struct link_keypair server_keys, client_keys;
static const struct link_keypair *bare_keys = &client_keys;
static void *context;

static int allow_all(void *user, const struct link_key *key)
{
    (void)user;
    (void)key;
    return 0;
}

/* What the registry says of every key: by default that it is the studio's of full_pass. */
static atomic_int registered_role;

static int registry(void *user, const struct link_key *key, struct bulk_key *ret_key)
{
    enum role role = (enum role)atomic_load(&registered_role);
    (void)user;
    (void)key;
    *ret_key = (struct bulk_key){role, {role == ROLE_STUDIO ? 1 : role == ROLE_OPERATOR ? 2 : 0}};
    return role == ROLE_NONE;
}

static atomic_bool fail_sync;

int fdatasync(int fd)
{
    if (atomic_load(&fail_sync)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static int folder_new(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/westlight-bulk-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static void start(void)
{
    atomic_store(&registered_role, ROLE_STUDIO);
    uint8_t master[32] = {1, 2, 3};
    identity_signer_init(&signer, master);
    assert_int_equal(identity_key_new(&server_keys), 0);
    assert_int_equal(identity_key_new(&client_keys), 0);
    assert_int_equal(vault_open(folder, 3, &vault), 0);
    const struct bulk_config config = {
        .endpoint = "tcp://127.0.0.1:*",
        .keys = &server_keys,
        .signer = &signer,
        .vault = vault,
        .allow = allow_all,
        .registry = registry,
        .memory_bytes = 64 << 20,
        .io_threads = 1,
    };
    assert_int_equal(bulk_start(&config, &bulk), 0);
    assert_int_equal(link_context_new(1, &context), 0);
}

static int setup(void **state)
{
    if (folder_new(state))
        return -1;
    start();
    return 0;
}

static int folder_end(void **state)
{
    (void)state;
    return folder_remove(folder);
}

static int teardown(void **state)
{
    link_context_free(context);
    bulk_stop(bulk);
    vault_close(vault);
    return folder_end(state);
}

static struct pass full_pass(void)
{
    return (struct pass){.studio = 1,
                         .rights = PASS_READ | PASS_WRITE,
                         .write_bytes = 1 << 30,
                         .expires_wall_s = clock_wall_ns() / NS_PER_S + 60};
}

static struct transfer *open_transfer(const struct pass *pass)
{
    uint8_t text[PASS_BYTES];
    size_t size;
    struct transfer *transfer = NULL;
    pass_sign(&signer, pass, &client_keys.public_key, text, &size);
    const struct transfer_config config = {
        .context = context,
        .endpoint = bulk_endpoint(bulk),
        .server = server_keys.public_key,
        .keys = &client_keys,
        .pass = text,
        .pass_size = size,
        .patience_ns = 10 * NS_PER_S,
    };
    assert_int_equal(transfer_new(&config, &transfer), 0);
    return transfer;
}

/* Block i: `size` bytes that begin with i. */
struct blocks {
    size_t size;
    size_t n_got;
    bool lie;
};

static void fill(const struct blocks *blocks, size_t i, struct bytes *out, struct block_id *ret_id)
{
    out->size = 0;
    assert_int_equal(bytes_reserve(out, blocks->size), 0);
    memset(out->data, (int)(i * 7), blocks->size);
    memcpy(out->data, &i, sizeof i);
    out->size = blocks->size;
    digest(out->data, out->size, ret_id);
}

static int source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct blocks *blocks = user;
    fill(blocks, i, out, ret_id);
    if (blocks->lie)
        ret_id->bytes[0] ^= 1;
    return 0;
}

static int sink(void *user, size_t i, const void *sealed, size_t size)
{
    struct blocks *blocks = user;
    _cleanup_(bytes_deinit) struct bytes expected = {0};
    struct block_id id;
    fill(blocks, i, &expected, &id);
    assert_int_equal(size, expected.size);
    assert_memory_equal(sealed, expected.data, size);
    blocks->n_got++;
    return 0;
}

static struct block_id id_of(const struct blocks *blocks, size_t i)
{
    _cleanup_(bytes_deinit) struct bytes bytes = {0};
    struct block_id id;
    fill(blocks, i, &bytes, &id);
    return id;
}

static int get_blocks(struct transfer *transfer, struct blocks *blocks, size_t n)
{
    struct transfer_want *wants = calloc(n, sizeof *wants);
    for (size_t i = 0; i < n; i++)
        wants[i] = (struct transfer_want){id_of(blocks, i), (uint32_t)blocks->size};
    int r = transfer_get(transfer, wants, n, sink, blocks);
    free(wants);
    return r;
}

/* As the registry says from now on; what it said before is believed no longer. */
static void registered_as(enum role role)
{
    struct pass pass = full_pass();
    struct blocks blocks = {.size = 10};
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    int r = 0;
    atomic_store(&registered_role, role);
    while (r == 0) {
        assert_true(clock_monotonic_ns() < until_ns);
        struct transfer *transfer = open_transfer(&pass);
        r = transfer_put(transfer, 1, false, source, &blocks);
        transfer_free(transfer);
    }
    assert_int_equal(r, TRANSFER_E_REFUSED);
}

/* ---- tests ---- */

static void blocks_go_in_and_come_out(void **state)
{
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks small = {.size = 100}, large = {.size = 1 << 20};
    bool missing[31];
    struct block_id ids[31];

    assert_int_equal(transfer_put(transfer, 30, false, source, &small), 0);
    for (size_t i = 0; i < 31; i++)
        ids[i] = id_of(&small, i);
    assert_int_equal(transfer_have(transfer, ids, 31, missing), 0);
    for (size_t i = 0; i < 31; i++)
        assert_int_equal(missing[i], i == 30);
    assert_int_equal(get_blocks(transfer, &small, 30), 0);
    assert_int_equal(small.n_got, 30);

    /* More than the broker may hold at once, both ways. */
    assert_int_equal(transfer_put(transfer, 100, false, source, &large), 0);
    assert_int_equal(get_blocks(transfer, &large, 100), 0);
    assert_int_equal(large.n_got, 100);
    transfer_free(transfer);
}

static void another_studio_gets_nothing(void **state)
{
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks blocks = {.size = 100};
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), 0);
    transfer_free(transfer);

    pass.studio = 2;
    registered_as(ROLE_OPERATOR);
    transfer = open_transfer(&pass);
    assert_int_equal(get_blocks(transfer, &blocks, 1), TRANSFER_E_MISSING);
    transfer_free(transfer);
}

static int refs_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    const struct block_id *id = user;
    const uint8_t head[8] = {'W', 'R', '1', 0, 1};
    assert_int_equal(i, 0);
    out->size = 0;
    assert_int_equal(bytes_append(out, head, sizeof head), 0);
    assert_int_equal(bytes_append(out, id->bytes, sizeof id->bytes), 0);
    digest(out->data, out->size, ret_id);
    return 0;
}

static void a_workers_pass_reads_its_job_only(void **state)
{
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks blocks = {.size = 100};
    struct block_id id = id_of(&blocks, 0), name;
    _cleanup_(bytes_deinit) struct bytes refs = {0};
    assert_int_equal(transfer_put(transfer, 2, false, source, &blocks), 0);
    assert_int_equal(transfer_put(transfer, 1, true, refs_source, &id), 0);
    assert_int_equal(transfer_put(transfer, 1, true, source, &blocks), TRANSFER_E_CORRUPT);
    refs_source(&id, 0, &refs, &name);
    transfer_free(transfer);

    struct job_id job = {{9}};
    memcpy(pass.job, job.bytes, sizeof job.bytes);
    registered_as(ROLE_WORKER);
    transfer = open_transfer(&pass);
    assert_int_equal(get_blocks(transfer, &blocks, 1), TRANSFER_E_MISSING);
    vault_job_refs(vault, (struct studio_id){1}, &job, &name, 1);
    assert_int_equal(get_blocks(transfer, &blocks, 1), 0);
    assert_int_equal(get_blocks(transfer, &blocks, 2), TRANSFER_E_MISSING);
    transfer_free(transfer);
}

static void bytes_that_are_not_their_name_are_refused(void **state)
{
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks blocks = {.size = 100, .lie = true};
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_CORRUPT);
    transfer_free(transfer);
}

static void a_pass_holds_to_its_rights_its_limit_and_its_time(void **state)
{
    struct blocks blocks = {.size = 1000};
    struct pass pass = full_pass();
    pass.rights = PASS_READ;
    struct transfer *transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_REFUSED);
    assert_non_null(strstr(transfer_why(transfer), "may not write"));
    transfer_free(transfer);

    pass = full_pass();
    pass.rights = PASS_WRITE;
    transfer = open_transfer(&pass);
    assert_int_equal(get_blocks(transfer, &blocks, 1), TRANSFER_E_REFUSED);
    transfer_free(transfer);

    pass = full_pass();
    pass.write_bytes = 2500;
    transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 2, false, source, &blocks), 0);
    transfer_free(transfer);
    transfer = open_transfer(&pass); /* the same pass again is no new allowance */
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_FULL);
    transfer_free(transfer);

    pass = full_pass();
    pass.expires_wall_s -= 100;
    transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_REFUSED);
    assert_non_null(strstr(transfer_why(transfer), "expired"));
    transfer_free(transfer);
}

static void anothers_pass_is_refused(void **state)
{
    struct pass pass = full_pass();
    struct blocks blocks = {.size = 1000};
    struct link_keypair mine = client_keys;
    uint8_t text[PASS_BYTES];
    size_t size;
    struct transfer *transfer = NULL;
    pass_sign(&signer, &pass, &server_keys.public_key, text, &size);
    const struct transfer_config config = {
        .context = context,
        .endpoint = bulk_endpoint(bulk),
        .server = server_keys.public_key,
        .keys = &mine,
        .pass = text,
        .pass_size = size,
        .patience_ns = 10 * NS_PER_S,
    };
    assert_int_equal(transfer_new(&config, &transfer), 0);
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_REFUSED);
    transfer_free(transfer);
}

static void a_new_pass_of_the_same_lease_is_no_new_allowance(void **state)
{
    struct blocks blocks = {.size = 1000};
    struct pass pass = full_pass();
    pass.write_bytes = 2500;
    pass.job[0] = 9;
    pass.epoch = 1;
    pass.attempt = 7;
    registered_as(ROLE_WORKER);
    struct transfer *transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 2, false, source, &blocks), 0);
    transfer_free(transfer);
    pass.expires_wall_s++;
    transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), TRANSFER_E_QUOTA);
    transfer_free(transfer);
    pass.attempt++;
    transfer = open_transfer(&pass);
    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), 0);
    transfer_free(transfer);
}

static void a_forbidden_key_stops_on_an_open_connection(void **state)
{
    struct pass pass = full_pass();
    struct blocks blocks = {.size = 100};
    struct transfer *transfer = open_transfer(&pass);
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    int r = 0;

    assert_int_equal(transfer_put(transfer, 1, false, source, &blocks), 0);
    atomic_store(&registered_role, ROLE_NONE);
    while (r == 0) {
        assert_true(clock_monotonic_ns() < until_ns);
        r = get_blocks(transfer, &blocks, 1);
    }
    assert_int_equal(r, TRANSFER_E_REFUSED);
    assert_non_null(strstr(transfer_why(transfer), "does not know this key"));
    transfer_free(transfer);
}

/* ---- a bare link ---- */

static void *bare_link(void)
{
    void *socket = NULL;
    assert_int_equal(link_connect(context, LINK_BULK, bulk_endpoint(bulk), &server_keys.public_key,
                                  bare_keys, &socket),
                     0);
    return socket;
}

static void bare_send(void *socket, const Wl__Bulk *message)
{
    zmq_msg_t header;
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLOUT};
    assert_int_equal(wire_bulk_pack(message, &header), 0);
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    assert_int_equal(link_send(socket, NULL, &header, NULL), 0);
}

static Wl__Bulk *bare_receive(void *socket)
{
    zmq_msg_t header, data;
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    Wl__Bulk *message = NULL;
    const char *why;
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    assert_int_equal(link_receive(socket, NULL, NULL, &header, &data), 0);
    assert_int_equal(wire_bulk_unpack(zmq_msg_data(&header), zmq_msg_size(&header), &message, &why),
                     0);
    zmq_msg_close(&header);
    zmq_msg_close(&data);
    return message;
}

static void bare_get(void *socket, const struct block_id *ids, size_t n)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Get get = WL__GET__INIT;
    get.ids = (ProtobufCBinaryData){n * sizeof *ids, (uint8_t *)ids};
    message.request = 5;
    message.body_case = WL__BULK__BODY_GET;
    message.get = &get;
    bare_send(socket, &message);
}

static void bare_open(void *socket)
{
    Wl__Bulk message = WL__BULK__INIT;
    Wl__Open open = WL__OPEN__INIT;
    struct pass pass = full_pass();
    uint8_t text[PASS_BYTES];
    size_t size;
    pass_sign(&signer, &pass, &bare_keys->public_key, text, &size);
    open.pass = (ProtobufCBinaryData){size, text};
    message.request = 4;
    message.body_case = WL__BULK__BODY_OPEN;
    message.open = &open;
    bare_send(socket, &message);
    Wl__Bulk *answer = bare_receive(socket);
    assert_int_equal(answer->body_case, WL__BULK__BODY_OPENED);
    assert_int_equal(answer->request, 4);
    assert_int_equal(answer->opened->window_bytes, 16 << 20);
    wl__bulk__free_unpacked(answer, NULL);
}

static void without_a_pass_the_next_step_is_told(void **state)
{
    void *socket = bare_link();
    struct block_id id = {{1}};
    bare_get(socket, &id, 1);
    Wl__Bulk *answer = bare_receive(socket);
    assert_int_equal(answer->body_case, WL__BULK__BODY_FAULT);
    assert_int_equal(answer->request, 5);
    assert_int_equal(answer->fault->code, CODE_STATE);
    assert_non_null(strstr(answer->fault->next, "open"));
    wl__bulk__free_unpacked(answer, NULL);
    link_close(socket);
}

static void bytes_that_are_no_message_are_refused(void **state)
{
    void *socket = bare_link();
    zmq_msg_t header;
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLOUT};
    zmq_msg_init_size(&header, 100);
    memset(zmq_msg_data(&header), 0xff, 100);
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    assert_int_equal(link_send(socket, NULL, &header, NULL), 0);
    Wl__Bulk *answer = bare_receive(socket);
    assert_int_equal(answer->body_case, WL__BULK__BODY_FAULT);
    assert_int_equal(answer->fault->code, CODE_INVALID);
    wl__bulk__free_unpacked(answer, NULL);
    link_close(socket);
}

static void a_peer_that_reads_nothing_stops_nobody(void **state)
{
    enum { N = 100, DEAF = 8 };
    static struct link_keypair keys[DEAF];
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks large = {.size = 1 << 20};
    static struct block_id ids[N];
    void *deaf[DEAF];

    assert_int_equal(transfer_put(transfer, N, false, source, &large), 0);
    for (size_t i = 0; i < N; i++)
        ids[i] = id_of(&large, i);
    for (size_t d = 0; d < DEAF; d++) {
        assert_int_equal(identity_key_new(&keys[d]), 0);
        bare_keys = &keys[d];
        deaf[d] = bare_link();
        bare_open(deaf[d]);
        for (int k = 0; k < 5; k++)
            bare_get(deaf[d], ids, N);
    }
    bare_keys = &client_keys;
    assert_int_equal(get_blocks(transfer, &large, N), 0);
    struct blocks more = {.size = 1000};
    assert_int_equal(transfer_put(transfer, 50, false, source, &more), 0);

    /* Once it reads, everything that it asked for comes. */
    for (int k = 0; k < 5 * N; k++) {
        Wl__Bulk *answer = bare_receive(deaf[0]);
        assert_int_equal(answer->body_case, WL__BULK__BODY_BLOCK);
        wl__bulk__free_unpacked(answer, NULL);
    }
    for (size_t d = 0; d < DEAF; d++)
        link_close(deaf[d]);
    transfer_free(transfer);
}

/* The next fault, past the blocks that come before it. */
static enum code bare_fault(void *socket)
{
    for (int n = 0;; n++) {
        Wl__Bulk *answer = bare_receive(socket);
        assert_true(n < 1000);
        bool fault = answer->body_case == WL__BULK__BODY_FAULT;
        enum code code = fault ? (enum code)answer->fault->code : CODE_OK;
        wl__bulk__free_unpacked(answer, NULL);
        if (fault)
            return code;
    }
}

static void what_waits_is_counted_over_all_connections_of_a_key(void **state)
{
    enum { CONNECTIONS = 5, GETS = 16 }; /* 16 full ones are as many as one connection may have */
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks large = {.size = 1 << 20};
    static struct block_id ids[LIMIT_HAVE_IDS];
    void *deaf[CONNECTIONS];

    assert_int_equal(transfer_put(transfer, 1, false, source, &large), 0);
    ids[0] = id_of(&large, 0);
    for (size_t i = 1; i < LIMIT_HAVE_IDS; i++)
        ids[i] = ids[0];
    for (size_t d = 0; d < CONNECTIONS; d++) {
        deaf[d] = bare_link();
        bare_open(deaf[d]);
        for (int i = 0; i < GETS; i++)
            bare_get(deaf[d], ids, LIMIT_HAVE_IDS);
    }
    assert_int_equal(bare_fault(deaf[CONNECTIONS - 1]), CODE_BUSY);
    for (size_t d = 0; d < CONNECTIONS; d++)
        link_close(deaf[d]);
    transfer_free(transfer);
}

static void it_stops_with_work_under_way(void **state)
{
    struct pass pass = full_pass();
    struct transfer *transfer = open_transfer(&pass);
    struct blocks large = {.size = 1 << 20};
    static struct block_id ids[40];
    assert_int_equal(transfer_put(transfer, 40, false, source, &large), 0);
    for (size_t i = 0; i < 40; i++)
        ids[i] = id_of(&large, i);
    void *socket = bare_link();
    bare_open(socket);
    bare_get(socket, ids, 40);
    wl__bulk__free_unpacked(bare_receive(socket), NULL);
    link_close(socket);
    transfer_free(transfer);
}

/* Nothing more could be promised: a supervisor starts it again. */
static void a_failed_sync_ends_the_process(void **state)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct pass pass = full_pass();
        struct blocks blocks = {.size = 100};
        start();
        atomic_store(&fail_sync, true);
        (void)transfer_put(open_transfer(&pass), 1, false, source, &blocks);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* libzmq forgets a message of which half is there when its socket is closed. The last of these
 * tests close theirs so, on purpose; what is forgotten by the others is ours, and is looked for
 * before. */
__attribute__((weak)) void __lsan_do_leak_check(void);

int main(void)
{
    const struct CMUnitTest whole[] = {
        T(blocks_go_in_and_come_out),
        T(another_studio_gets_nothing),
        T(a_workers_pass_reads_its_job_only),
        T(bytes_that_are_not_their_name_are_refused),
        T(a_pass_holds_to_its_rights_its_limit_and_its_time),
        T(anothers_pass_is_refused),
        T(a_new_pass_of_the_same_lease_is_no_new_allowance),
        T(a_forbidden_key_stops_on_an_open_connection),
        T(without_a_pass_the_next_step_is_told),
        T(bytes_that_are_no_message_are_refused),
    };
    const struct CMUnitTest halved[] = {
        T(a_peer_that_reads_nothing_stops_nobody),
        T(what_waits_is_counted_over_all_connections_of_a_key),
        T(it_stops_with_work_under_way),
        cmocka_unit_test_setup_teardown(a_failed_sync_ends_the_process, folder_new, folder_end),
    };
    int failed = cmocka_run_group_tests(whole, NULL, NULL);

    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
    failed += cmocka_run_group_tests(halved, NULL, NULL);
    _exit(failed);
}
