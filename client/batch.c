/* batch.c - see batch.h. What the vault has (from this job cut short, or from another of the
 * studio's) is not sent again.
 */
#include <client/batch.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RENEWALS 8 /* in a grace: what is asked for late is still there */

struct batch_block {
    struct block_id id;
    size_t offset, size;
    uint32_t file_bytes;
};

/* ---- what was sent stays ---- */

static int on_renewal_tick(void *user)
{
    return announce_go_on(&((struct batch *)user)->announce);
}

/* Over a link of its own, because blocks are on their way over the other. Of those that are being
 * put some are there. */
static int renew(struct batch *batch, size_t n_sent)
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
    for (size_t i = 0; r == 0 && i < n_sent; i++)
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
    size_t n_sent = batch->n_ids - batch->n_waiting;
    int r = announce_go_on(&batch->announce);

    if (r != 0 || batch->estimate || every_ns == 0 || batch->n_ids == 0 ||
        clock_monotonic_ns() - batch->renewed_ns < every_ns)
        return r;
    r = renew(batch, n_sent);
    batch->renewed_ns = clock_monotonic_ns();
    return r;
}

/* ---- how far it is ---- */

void batch_tell(struct batch *batch)
{
    if (batch->on_upload)
        batch->on_upload(batch->user, &batch->count);
}

static int went_on(struct batch *batch, uint64_t bytes)
{
    uint64_t all = batch->count.file_bytes; /* manifests are sent as well */

    batch->count.bytes_done = bytes < all ? bytes : all;
    batch_tell(batch);
    return go_on(batch);
}

/* While blocks move: of what is being put, the share that is durable counts. */
static int on_tick(void *user)
{
    struct batch *batch = user;
    double stored = (double)(blocks_stored(&batch->blocks) - batch->put_from);
    double share = batch->put_sealed_bytes ? stored / (double)batch->put_sealed_bytes : 0;

    return went_on(batch, batch->flushed_bytes + batch->there_bytes +
                              (uint64_t)((double)batch->put_bytes * (share < 1 ? share : 1)));
}

/* ---- blocks to the vault ---- */

static int put_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct batch *batch = user;
    const struct batch_block *block = &batch->waiting[batch->missing[i]];

    out->size = 0;
    *ret_id = block->id;
    return bytes_append(out, batch->sealed.data + block->offset, block->size);
}

static int put_missing(struct batch *batch, const bool *missing)
{
    size_t n = 0, bytes = 0;

    batch->missing = calloc(batch->n_waiting, sizeof(*batch->missing));
    if (!batch->missing)
        return -ENOMEM;
    for (size_t i = 0; i < batch->n_waiting; i++)
        if (missing[i]) {
            batch->missing[n++] = i;
            bytes += batch->waiting[i].size;
            batch->put_bytes += batch->waiting[i].file_bytes;
        }
    batch->there_bytes = batch->waiting_bytes - batch->put_bytes;
    batch->put_sealed_bytes = bytes;
    batch->put_from = blocks_stored(&batch->blocks);
    int r = n > 0 && !batch->estimate ? blocks_put(&batch->blocks, n, false, put_source, batch) : 0;
    free(TAKE_PTR(batch->missing));
    if (r == 0) {
        batch->count.blocks_sent += n;
        batch->count.bytes_sent += bytes;
    }
    return r;
}

static void clear(struct batch *batch)
{
    uint64_t *pass_bytes = &batch->blocks.write_bytes; /* should there have to be another */

    if (*pass_bytes > BATCH_SPARE_BYTES + batch->waiting_bytes)
        *pass_bytes -= batch->waiting_bytes;
    batch->flushed_bytes += batch->waiting_bytes;
    batch->waiting_bytes = batch->there_bytes = batch->put_bytes = batch->put_sealed_bytes = 0;
    batch->n_waiting = 0;
    batch->sealed.size = 0;
}

int batch_flush(struct batch *batch)
{
    _cleanup_(freep) struct block_id *ids = NULL;
    _cleanup_(freep) bool *missing = NULL;
    size_t n = batch->n_waiting;

    if (n == 0)
        return 0;
    ids = calloc(n, sizeof(*ids));
    missing = calloc(n, sizeof(*missing));
    if (!ids || !missing)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        ids[i] = batch->waiting[i].id;
    int r = blocks_have(&batch->blocks, ids, n, missing);
    if (r == 0)
        r = put_missing(batch, missing);
    if (r != 0)
        return r;
    clear(batch);
    return went_on(batch, batch->flushed_bytes);
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

int batch_block(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct batch *batch = user;

    if (atomic_load(&batch->westlight->stop))
        return connection_stopped(batch->westlight);
    if (batch->sealed.size + size > BATCH_BYTES) {
        int r = batch_flush(batch);
        if (r != 0)
            return r;
    }
    if (batch->n_waiting == batch->waiting_capacity) {
        size_t capacity = batch->waiting_capacity ? 2 * batch->waiting_capacity : 64;
        struct batch_block *grown = reallocarray(batch->waiting, capacity, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        batch->waiting = grown;
        batch->waiting_capacity = capacity;
    }
    size_t offset = batch->sealed.size;
    int r = bytes_append(&batch->sealed, sealed, size);
    if (r == 0)
        r = remember_id(batch, &key->id);
    if (r < 0)
        return r;
    batch->waiting[batch->n_waiting++] =
        (struct batch_block){key->id, offset, size, key->body_bytes};
    batch->waiting_bytes += key->body_bytes;
    batch->count.blocks++;
    return go_on(batch); /* a slow disk is no silence */
}

/* ---- beginning and end ---- */

void batch_init(struct batch *batch, struct westlight *westlight, const char *name)
{
    *batch = (struct batch){.westlight = westlight};
    batch->blocks = (struct blocks){.westlight = westlight, .tick = on_tick, .user = batch};
    batch->announce =
        (struct announce){.westlight = westlight, .count = &batch->count, .name = name};
}

void batch_begin(struct batch *batch, const struct westlight_submission *submission)
{
    batch->count = (struct westlight_upload){.submission = submission};
    batch->n_ids = 0;
    clear(batch);
    batch->flushed_bytes = 0;
    batch->renewed_ns = clock_monotonic_ns();
}

void batch_measured(struct batch *batch)
{
    batch->blocks.write_bytes =
        batch->count.file_bytes + batch->count.files * 1024 + BATCH_SPARE_BYTES;
}

void batch_deinit(struct batch *batch)
{
    blocks_deinit(&batch->blocks);
    bytes_deinit(&batch->sealed);
    free(batch->waiting);
    free(batch->ids);
}
