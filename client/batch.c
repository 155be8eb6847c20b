/* batch.c - see batch.h. What the vault has (from this job cut short, or from another of the
 * studio's) is not sent again.
 *
 * The link, the announcements and all that may fail with a sentence belong to the thread that calls
 * batch_make; the thread that makes blocks only puts them into a list, and waits where that is full.
 */
#include <client/batch.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RENEWALS 8 /* in a grace: what is asked for late is still there */

/* In the order in which they were made, until the vault has them. */
struct batch_block {
    struct list node;
    struct block_id id;
    size_t size; /* 0: it is known to have been there */
    uint32_t file_bytes;
    uint8_t sealed[];
};

/* ---- what was sent stays ---- */

static int on_renewal_tick(void *user)
{
    return announce_go_on(&((struct batch *)user)->announce);
}

/* Over a link of its own, because blocks are on their way over the other. */
static int renew(struct batch *batch)
{
    struct westlight *westlight = batch->westlight;
    struct blocks link = {.westlight = westlight, .tick = on_renewal_tick, .user = batch};
    _cleanup_(freep) bool *missing = calloc(batch->n_ids, sizeof(*missing));
    size_t gone = 0;

    if (!missing)
        return -ENOMEM;
    int r = blocks_have(&link, batch->ids, batch->n_ids, missing);
    blocks_deinit(&link);
    if (link.grace_ns > 0)
        batch->blocks.grace_ns = link.grace_ns;
    /* There is time for it to come back, and what is being put has a patience of its own. */
    if (r == WESTLIGHT_E_TIMEOUT || r == WESTLIGHT_E_UNREACHABLE || r == WESTLIGHT_E_BUSY) {
        westlight->why[0] = '\0';
        return 0;
    }
    for (size_t i = 0; r == 0 && i < batch->n_ids; i++)
        gone += missing[i];
    if (gone == 0)
        return r;
    r = connection_fail(westlight, WESTLIGHT_E_MISSING,
                        "job %.100s: %zu of its blocks were sent, and are gone from the farm "
                        "before it has all: have the operator raise the broker's --grace, and "
                        "submit again",
                        batch->announce.name, gone);
    westlight->refusal = CODE_MISSING;
    return r;
}

/* Called often. */
static int go_on(struct batch *batch)
{
    int64_t every_ns = (int64_t)(batch->blocks.grace_ns / RENEWALS);
    int r = announce_go_on(&batch->announce);

    if (r != 0 || batch->estimate || every_ns == 0 || batch->n_ids == 0 ||
        clock_monotonic_ns() - batch->renewed_ns < every_ns)
        return r;
    r = renew(batch);
    batch->renewed_ns = clock_monotonic_ns();
    return r;
}

/* ---- how far it is ---- */

void batch_tell(struct batch *batch)
{
    if (batch->on_upload)
        batch->on_upload(batch->user, &batch->count);
}

/* While blocks move. */
static int on_tick(void *user)
{
    struct batch *batch = user;
    uint64_t all = batch->count.file_bytes; /* manifests are sent as well */

    batch->count.bytes_done = batch->there_bytes < all ? batch->there_bytes : all;
    batch_tell(batch);
    return go_on(batch);
}

static int remember_id(struct batch *batch, const struct block_id *id)
{
    if (batch->n_ids == batch->ids_capacity) {
        size_t capacity = batch->ids_capacity ? 2 * batch->ids_capacity : 256;
        struct block_id *grown = reallocarray(batch->ids, capacity, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        batch->ids = grown;
        batch->ids_capacity = capacity;
    }
    batch->ids[batch->n_ids++] = *id;
    return 0;
}

/* ---- from whoever makes blocks to the link ---- */

int batch_block(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct batch *batch = user;
    struct batch_block *block = malloc(sizeof(*block) + size);
    uint64_t one = 1;

    if (!block)
        return -ENOMEM;
    *block = (struct batch_block){.id = key->id, .size = size, .file_bytes = key->body_bytes};
    if (size)
        memcpy(block->sealed, sealed, size);
    pthread_mutex_lock(&batch->lock);
    while (!batch->broken && batch->held_bytes && batch->held_bytes + size > BATCH_BYTES)
        pthread_cond_wait(&batch->room, &batch->lock);
    if (batch->broken) {
        pthread_mutex_unlock(&batch->lock);
        free(block);
        return -ECANCELED;
    }
    list_push(&batch->held, &block->node);
    batch->held_bytes += size;
    if (batch->next == &batch->held)
        batch->next = &block->node;
    pthread_mutex_unlock(&batch->lock);
    return write(batch->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN ? -errno : 0;
}

static void offer_begin(void *user)
{
    struct batch *batch = user;

    pthread_mutex_lock(&batch->lock);
    batch->next = batch->held.next;
    pthread_mutex_unlock(&batch->lock);
}

static int offer_next(void *user, struct transfer_block *ret_block)
{
    struct batch *batch = user;
    int r = 0;

    pthread_mutex_lock(&batch->lock);
    if (batch->next != &batch->held) {
        struct batch_block *block = list_entry(batch->next, struct batch_block, node);

        batch->next = block->node.next;
        *ret_block = (struct transfer_block){.id = block->id,
                                             .sealed = block->size ? block->sealed : NULL,
                                             .size = block->size,
                                             .tag = block};
    } else {
        r = batch->making ? TRANSFER_LATER : TRANSFER_NO_MORE;
    }
    pthread_mutex_unlock(&batch->lock);
    return r;
}

static void offer_done(void *user, const struct transfer_block *offered, bool sent)
{
    struct batch *batch = user;
    struct batch_block *block = offered->tag;
    uint64_t *pass_bytes = &batch->blocks.write_bytes; /* should there have to be another */

    if (remember_id(batch, &block->id) < 0)
        batch->failed = -ENOMEM;
    batch->count.blocks++;
    batch->there_bytes += block->file_bytes;
    if (sent) {
        batch->count.blocks_sent++;
        batch->count.bytes_sent += block->size;
    }
    if (*pass_bytes > BATCH_SPARE_BYTES + block->file_bytes)
        *pass_bytes -= block->file_bytes;
    pthread_mutex_lock(&batch->lock);
    list_unlink(&block->node);
    batch->held_bytes -= block->size;
    pthread_cond_signal(&batch->room);
    pthread_mutex_unlock(&batch->lock);
    free(block);
}

int batch_flush(struct batch *batch)
{
    const struct transfer_offer how = {.begin = offer_begin,
                                       .next = offer_next,
                                       .done = offer_done,
                                       .wake_fd = batch->wake_fd,
                                       .ask_only = batch->estimate,
                                       .user = batch};

    pthread_mutex_lock(&batch->lock);
    bool idle = list_empty(&batch->held) && !batch->making;
    pthread_mutex_unlock(&batch->lock);
    if (idle)
        return 0;
    int r = blocks_offer(&batch->blocks, &how);
    if (r == 0)
        r = batch->failed;
    return r == 0 ? on_tick(batch) : r;
}

struct making {
    struct batch *batch;
    int (*make)(void *user);
    void *user;
    int result;
};

static void *make_main(void *user)
{
    struct making *making = user;
    struct batch *batch = making->batch;
    uint64_t one = 1;

    making->result = making->make(making->user);
    pthread_mutex_lock(&batch->lock);
    batch->making = false;
    pthread_mutex_unlock(&batch->lock);
    (void)!write(batch->wake_fd, &one, sizeof(one));
    return NULL;
}

static void drop_held(struct batch *batch)
{
    list_for_each_safe (node, after, &batch->held)
        free(list_entry(node, struct batch_block, node));
    list_init(&batch->held);
    batch->next = &batch->held;
    batch->held_bytes = 0;
}

int batch_make(struct batch *batch, int (*make)(void *user), void *user, int *ret_made)
{
    struct making making = {.batch = batch, .make = make, .user = user};
    pthread_t thread;

    *ret_made = 0;
    batch->making = true;
    int r = -pthread_create(&thread, NULL, make_main, &making);
    if (r != 0) {
        batch->making = false;
        return r;
    }
    r = batch_flush(batch);
    pthread_mutex_lock(&batch->lock);
    batch->broken = r != 0;
    pthread_cond_broadcast(&batch->room);
    pthread_mutex_unlock(&batch->lock);
    pthread_join(thread, NULL);
    batch->broken = false;
    if (r != 0)
        drop_held(batch);
    *ret_made = making.result;
    return r;
}

/* ---- beginning and end ---- */

int batch_init(struct batch *batch, struct westlight *westlight, const char *name)
{
    *batch = (struct batch){.westlight = westlight};
    batch->blocks = (struct blocks){.westlight = westlight, .tick = on_tick, .user = batch};
    batch->announce =
        (struct announce){.westlight = westlight, .count = &batch->count, .name = name};
    pthread_mutex_init(&batch->lock, NULL);
    pthread_cond_init(&batch->room, NULL);
    list_init(&batch->held);
    batch->next = &batch->held;
    batch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return batch->wake_fd < 0 ? -errno : 0;
}

void batch_begin(struct batch *batch, const struct westlight_submission *submission)
{
    batch->count = (struct westlight_upload){.submission = submission};
    batch->n_ids = 0;
    batch->there_bytes = 0;
    drop_held(batch);
    batch->renewed_ns = clock_monotonic_ns();
}

void batch_measured(struct batch *batch)
{
    batch->blocks.write_bytes =
        batch->count.file_bytes + batch->count.files * 1024 + BATCH_SPARE_BYTES;
}

void batch_deinit(struct batch *batch)
{
    drop_held(batch);
    blocks_deinit(&batch->blocks);
    closep(&batch->wake_fd);
    pthread_cond_destroy(&batch->room);
    pthread_mutex_destroy(&batch->lock);
    free(batch->ids);
}
