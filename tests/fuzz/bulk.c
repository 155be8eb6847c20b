/* bulk.c - messages to the bulk endpoint: its header is read and written again, and whole messages
 * of a studio, a worker and somebody without a pass go through its real thread's turns, with a real
 * vault.
 *
 * An input is a run of parts: the number says who sends a header, or that the bytes are the data of
 * the next one. Links are this file; what the endpoint says is what a peer can read.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <broker/bulk_inner.h>
#include <proto/base/check.h>
#include <proto/base/log.h>
#include "fuzz.h"

enum { STUDIO = 1, WORKER, STRANGER, WHO_END, DATA = WHO_END };
enum { MEMORY_BYTES = 64 << 20, MESSAGES_MAX = 64, WAIT_MS = 10000 };

static struct {
    struct identity_signer signer;
    struct vault *vault;
    char path[96];
    int wake_fd;
} world;

static struct {
    struct bulk bulk;
    unsigned from; /* whose message is at hand; 0: none */
    struct fuzz_part header, data;
} end;

/* ---- in the place of links ---- */

int __wrap_link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                        zmq_msg_t *ret_header, zmq_msg_t *ret_data);
int __wrap_link_send(void *socket, const struct link_route *route, zmq_msg_t *header,
                     zmq_msg_t *data);
_noreturn_ void __wrap__exit(int code);

static void give_back(void *data, void *hint)
{
    (void)hint;
    free(data);
}

static void message_of(zmq_msg_t *message, const struct fuzz_part *part)
{
    CHECK(zmq_msg_init_data(message, fuzz_copy(part->data, part->size), part->size, give_back,
                            NULL) == 0);
}

static struct link_key key_of(unsigned who)
{
    return (struct link_key){.bytes = {(uint8_t)who}};
}

int __wrap_link_receive(void *socket, struct link_key *ret_key, struct link_route *ret_route,
                        zmq_msg_t *ret_header, zmq_msg_t *ret_data)
{
    (void)socket;
    if (!end.from)
        return LINK_E_AGAIN;
    *ret_key = key_of(end.from);
    *ret_route = (struct link_route){.bytes = {(uint8_t)end.from}, .size = 5};
    message_of(ret_header, &end.header);
    message_of(ret_data, &end.data);
    end.from = 0;
    return 0;
}

int __wrap_link_send(void *socket, const struct link_route *route, zmq_msg_t *header,
                     zmq_msg_t *data)
{
    Wl__Bulk *said;
    const char *why;

    (void)socket;
    CHECK(route->size == 5);
    CHECK(wire_bulk_unpack(zmq_msg_data(header), zmq_msg_size(header), &said, &why) == 0);
    CHECK(!data == (said->body_case != WL__BULK__BODY_BLOCK));
    wl__bulk__free_unpacked(said, NULL);
    zmq_msg_close(header);
    if (data)
        zmq_msg_close(data);
    return 0;
}

_noreturn_ void __wrap__exit(int code)
{
    fprintf(stderr, "the endpoint ended with %d\n", code);
    abort();
}

/* ---- the endpoint ---- */

static int on_key(void *user, const struct link_key *key, struct bulk_key *ret_key)
{
    (void)user;
    if (key->bytes[0] == STRANGER)
        return 1;
    *ret_key = key->bytes[0] == STUDIO ? (struct bulk_key){ROLE_STUDIO, {1}}
                                       : (struct bulk_key){.role = ROLE_WORKER};
    return 0;
}

static int on_quota(void *user, struct studio_id studio, uint64_t *ret_bytes)
{
    (void)user;
    (void)studio;
    *ret_bytes = 0;
    return 0;
}

static void world_end(void)
{
    vault_close(world.vault);
}

static void signer_make(void)
{
    static const uint8_t master[32] = {1};

    identity_signer_init(&world.signer, master);
}

static void world_begin(void)
{
    log_level_set(LOG_ERROR);
    signer_make();
    snprintf(world.path, sizeof(world.path), "%s/vault", fuzz_folder());
    CHECK(folder_make(world.path, 0700) == 0);
    CHECK(vault_open(world.path, 1, &world.vault) == 0);
    world.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(world.wake_fd >= 0);
    atexit(world_end); /* before the folder goes */
}

static void settle(void)
{
    bulk_turn(&end.bulk);
    while (end.bulk.n_tasks) {
        struct pollfd wait = {.fd = vault_port_fd(end.bulk.port), .events = POLLIN};
        int n = poll(&wait, 1, WAIT_MS);

        CHECK(n == 1 || (n < 0 && errno == EINTR));
        bulk_turn(&end.bulk);
    }
}

static void end_begin(void)
{
    end.bulk = (struct bulk){.config = {.signer = &world.signer,
                                        .vault = world.vault,
                                        .registry = on_key,
                                        .quota = on_quota,
                                        .memory_bytes = MEMORY_BYTES},
                             .wake_fd = world.wake_fd};
    list_init(&end.bulk.turns);
    list_init(&end.bulk.blocked);
    CHECK(vault_port_new(world.vault, &end.bulk.port) == 0);
    CHECK(peers_init(&end.bulk.peers) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part;

    if (!world.vault)
        world_begin();
    end_begin();
    end.data = (struct fuzz_part){0};
    for (int n = 0; n < MESSAGES_MAX && fuzz_next(&data, &size, &part); n++) {
        if (part.number == DATA) {
            end.data = part;
            continue;
        }
        end.from = part.number % WHO_END ? part.number % WHO_END : STRANGER;
        end.header = part;
        settle();
        end.data = (struct fuzz_part){0};
    }
    CHECK(end.bulk.in_bytes == 0 && end.bulk.n_gets == 0);
    peers_deinit(&end.bulk.peers);
    vault_port_free(end.bulk.port);
    return 0;
}

/* ---- what is valid ---- */

static void put(struct fuzz_buffer *all, unsigned who, Wl__Bulk *bulk)
{
    uint8_t packed[512];

    bulk->request = 1;
    CHECK(wl__bulk__get_packed_size(bulk) <= sizeof(packed));
    fuzz_put(all, who, packed, wl__bulk__pack(bulk, packed));
}

static void put_open(struct fuzz_buffer *all, unsigned who)
{
    struct pass pass = {.studio = 1,
                        .rights = PASS_READ | PASS_WRITE,
                        .write_bytes = 1 << 20,
                        .expires_wall_s = INT64_MAX / 2};
    struct link_key key = key_of(who);
    Wl__Open open = WL__OPEN__INIT;
    Wl__Bulk bulk = WL__BULK__INIT;
    uint8_t text[PASS_BYTES];
    size_t size;

    if (who == WORKER) {
        memset(pass.job, 1, sizeof(pass.job));
        pass.epoch = 1;
        pass.attempt = 1;
    }
    signer_make();
    pass_sign(&world.signer, &pass, &key, text, &size);
    open.pass = (ProtobufCBinaryData){size, text};
    bulk.body_case = WL__BULK__BODY_OPEN;
    bulk.open = &open;
    put(all, who, &bulk);
}

/* A block is put, asked after and got. */
static void put_block(struct fuzz_buffer *all, unsigned who)
{
    static const uint8_t block[] = "any bytes are a block, if they have its name";
    struct block_id id;
    Wl__Put put_it = WL__PUT__INIT;
    Wl__Have have = WL__HAVE__INIT;
    Wl__Get get = WL__GET__INIT;
    Wl__Bulk bulk = WL__BULK__INIT;

    digest(block, sizeof(block), &id);
    put_it.id = have.ids = get.ids = (ProtobufCBinaryData){sizeof(id), id.bytes};
    fuzz_put(all, DATA, block, sizeof(block));
    bulk.body_case = WL__BULK__BODY_PUT;
    bulk.put = &put_it;
    put(all, who, &bulk);
    bulk.body_case = WL__BULK__BODY_HAVE;
    bulk.have = &have;
    put(all, who, &bulk);
    bulk.body_case = WL__BULK__BODY_GET;
    bulk.get = &get;
    put(all, who, &bulk);
}

void fuzz_seeds(fuzz_add *add)
{
    const ProtobufCMessageDescriptor *bulk = &wl__bulk__descriptor;
    static struct fuzz_buffer message, all;

    for (unsigned i = 0; i < bulk->n_fields; i++)
        if (bulk->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            all.size = 0;
            fuzz_message(bulk, bulk->fields[i].id, &message);
            put_open(&all, STUDIO);
            fuzz_put(&all, STUDIO, message.data, message.size);
            fuzz_put(&all, STRANGER, message.data, message.size);
            add(bulk->fields[i].name, all.data, all.size);
        }
    all.size = 0;
    for (unsigned who = STUDIO; who <= STRANGER; who++) {
        put_open(&all, who);
        put_block(&all, who);
    }
    add("blocks", all.data, all.size);
}
