/* reader.c - see reader.h. A block is under way or here, and known by its id; the list says how
 * long it is wanted. So a block that several files share comes once, if they lie near each other.
 */
#include <client/reader.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NOWHERE SIZE_MAX       /* in the list: it is not wanted */
#define ALONE   (SIZE_MAX - 1) /* it is, and not listed */

struct reader_block {
    struct reader_block *beside; /* the next whose id begins alike */
    struct reader_block *due;    /* the next to be asked for */
    struct transfer_want want;
    size_t last; /* place in the list, of those that it was held for */
    uint64_t number;
    bool here;
    int lack; /* TRANSFER_E_*: it cannot be had; `sealed` says why */
    struct bytes sealed;
};

static bool same(const struct block_id *a, const struct block_id *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- what is held ---- */

static struct reader_block **slot(struct reader *reader, const struct block_id *id)
{
    struct reader_block **at = &reader->held[(id->bytes[0] | id->bytes[1] << 8) % READER_BLOCKS];

    while (*at && !same(&(*at)->want.id, id))
        at = &(*at)->beside;
    return at;
}

static size_t block_bytes(const struct transfer_want *want)
{
    return want->sealed_bytes ? want->sealed_bytes : LIMIT_SEALED_BYTES;
}

static void drop(struct reader *reader, const struct block_id *id)
{
    struct reader_block **at = slot(reader, id), *block = *at;

    *at = block->beside;
    reader->n_held--;
    reader->held_bytes -= block_bytes(&block->want);
    bytes_deinit(&block->sealed);
    free(block);
}

/* Of what is under way somebody may still tell: it goes when it has come. */
static void let_go(struct reader *reader, struct reader_block *block)
{
    block->last = NOWHERE;
    if (block->here)
        drop(reader, &block->want.id);
}

static void drop_all(struct reader *reader)
{
    transfer_stream_free(TAKE_PTR(reader->stream));
    for (size_t i = 0; i < READER_BLOCKS; i++)
        while (reader->held[i])
            drop(reader, &reader->held[i]->want.id);
    reader->due = NULL;
    reader->due_bytes = reader->numbered_bytes = 0;
}

void reader_forget(struct reader *reader)
{
    drop_all(reader);
    reader->n_expected = reader->used = reader->at = 0;
    reader->expected_bytes = reader->file_bytes = 0;
}

void reader_deinit(struct reader *reader)
{
    drop_all(reader);
    free(TAKE_PTR(reader->expected));
    bytes_deinit(&reader->opened);
}

int reader_expect(struct reader *reader, const Wl__FileEntry *entry)
{
    reader->file_bytes += entry->size;
    for (size_t i = 0; i < entry->n_parts; i++) {
        struct block_key key;
        if (wire_block_key(entry->parts[i]->block, &key) != 0)
            return -EPROTO;
        if (reader->n_expected && same(&reader->expected[reader->n_expected - 1].id, &key.id))
            continue;
        if (reader->n_expected == reader->capacity) {
            size_t capacity = reader->capacity ? 2 * reader->capacity : 256;
            struct transfer_want *grown = reallocarray(reader->expected, capacity, sizeof(*grown));
            if (!grown)
                return -ENOMEM;
            reader->expected = grown;
            reader->capacity = capacity;
        }
        reader->expected[reader->n_expected++] = (struct transfer_want){key.id, key.sealed_bytes};
        reader->expected_bytes += key.sealed_bytes;
    }
    return 0;
}

/* ---- what comes ---- */

static bool keeps(const struct reader *reader)
{
    return reader->arrivals && reader->expected_bytes > READER_LOST_BYTES;
}

static struct reader_block *take_due(struct reader *reader)
{
    struct reader_block *block = reader->due;

    if (block) {
        reader->due = block->due;
        reader->due_bytes -= block_bytes(&block->want);
    }
    return block;
}

static int on_next(void *user, struct transfer_want *ret_want, void **ret_tag)
{
    struct reader *reader = user;
    struct reader_block *block = take_due(reader);

    for (; block && block->last == NOWHERE; block = take_due(reader))
        drop(reader, &block->want.id);
    if (!block)
        return TRANSFER_LATER;
    *ret_want = block->want;
    *ret_tag = block;
    return 0;
}

static int on_came(void *user, void *tag, int result, const void *sealed, size_t size)
{
    struct reader *reader = user;
    struct reader_block *block = tag;

    block->here = true;
    block->lack = result;
    if (block->last == NOWHERE) {
        drop(reader, &block->want.id);
        return 0;
    }
    if (result) {
        const char *why = transfer_why(reader->blocks->transfer);
        return bytes_append(&block->sealed, why, strlen(why) + 1);
    }
    if (keeps(reader))
        arrivals_add(reader->arrivals, &block->want.id, sealed, size);
    return bytes_append(&block->sealed, sealed, size);
}

/* A number for each window; how much the files still take is told by the places that are left. */
static void number(struct reader *reader, size_t bytes)
{
    double left = reader->n_expected ? 1 - (double)reader->used / (double)reader->n_expected : 0;

    if (!keeps(reader))
        return;
    if (reader->numbered_bytes == 0)
        arrivals_next(reader->arrivals, reader->needed,
                      (uint64_t)(left * (double)reader->file_bytes));
    reader->numbered_bytes += bytes;
    if (reader->numbered_bytes >= LIMIT_WINDOW_BYTES)
        reader->numbered_bytes = 0;
}

/* What an earlier fetch had got is here; anything else is to be asked for. */
static int hold(struct reader *reader, const struct transfer_want *want, size_t place)
{
    struct reader_block *block = calloc(1, sizeof(*block));

    if (!block)
        return -ENOMEM;
    block->want = *want;
    block->last = place;
    *slot(reader, &want->id) = block;
    reader->n_held++;
    reader->held_bytes += block_bytes(want);
    if (reader->arrivals && arrivals_get(reader->arrivals, &want->id, &block->sealed)) {
        block->here = true;
    } else {
        *(reader->due ? &reader->due_last->due : &reader->due) = block;
        reader->due_last = block;
        reader->due_bytes += block_bytes(want);
        number(reader, block_bytes(want));
    }
    block->number = reader->arrivals ? reader->arrivals->newest : 0;
    return 0;
}

/* As far ahead in the list as there is room; to `end` all the same. */
static int look_ahead(struct reader *reader, size_t end)
{
    int r = 0;

    for (; r == 0 && reader->at < reader->n_expected; reader->at++) {
        const struct transfer_want *want = &reader->expected[reader->at];
        struct reader_block *block = *slot(reader, &want->id);

        if (block)
            block->last = reader->at;
        else if (reader->at >= end && (reader->n_held >= READER_BLOCKS ||
                                       reader->held_bytes + block_bytes(want) > READER_BYTES))
            break;
        else
            r = hold(reader, want, reader->at);
    }
    return r;
}

static int go(struct reader *reader, bool wait)
{
    const struct transfer_coming how = {.next = on_next, .came = on_came, .user = reader};
    int r = reader->stream ? 0 : transfer_stream_new(&how, &reader->stream);

    return r == 0 ? blocks_stream_go(reader->blocks, reader->stream, wait) : r;
}

/* ---- what is used ---- */

/* Its next place in the list, and those before are passed: where a file turned out to be there, the
 * rest of it is not needed. NOWHERE: it was not expected. */
static size_t pass_to(struct reader *reader, const struct block_id *id)
{
    size_t place = reader->used;

    while (place < reader->n_expected && !same(&reader->expected[place].id, id))
        place++;
    if (place == reader->n_expected)
        return NOWHERE;
    for (; reader->used < place; reader->used++) {
        struct reader_block *block = *slot(reader, &reader->expected[reader->used].id);

        if (block && block->last == reader->used)
            let_go(reader, block);
    }
    if (reader->at < place)
        reader->at = place;
    return place;
}

static int open_held(struct reader *reader, const struct block_key *key,
                     const struct reader_block *block)
{
    struct sealer *sealer = reader->blocks->westlight->sealer;

    if (block->lack)
        return blocks_lack(reader->blocks, block->lack, (const char *)block->sealed.data);
    reader->has_opened = false;
    int r = blocks_opened(
        reader->blocks->westlight,
        open_checked(sealer, key, block->sealed.data, block->sealed.size, &reader->opened),
        "a block of a frame");
    if (r != 0)
        return r;
    reader->opened_id = key->id;
    reader->has_opened = true;
    return 0;
}

/* Its block, when it is here. */
static int await(struct reader *reader, const struct block_key *key, size_t place,
                 struct reader_block **ret_block)
{
    const struct transfer_want alone = {key->id, key->sealed_bytes};
    struct reader_block *block = *slot(reader, &key->id);
    int r = 0;

    if (place == NOWHERE && !block)
        r = hold(reader, &alone, ALONE);
    else if (place == NOWHERE && block->last == NOWHERE)
        block->last = ALONE; /* it was passed, and is still on its way */
    if (r == 0)
        r = look_ahead(reader, place == NOWHERE ? 0 : place + 1);
    if (r != 0)
        return r;
    block = *slot(reader, &key->id);
    if (block->here && reader->due_bytes >= READER_STEP)
        r = go(reader, false);
    while (r == 0 && !block->here)
        r = go(reader, true);
    *ret_block = block;
    return r;
}

int reader_fetch(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct reader *reader = user;
    struct reader_block *block;

    *ret_block = &reader->opened;
    if (reader->has_opened && same(&reader->opened_id, &key->id))
        return 0;
    size_t place = pass_to(reader, &key->id);
    int r = await(reader, key, place, &block);
    if (r != 0)
        return r;
    r = open_held(reader, key, block);
    if (block->last == place || block->last == ALONE)
        let_go(reader, block);
    if (place != NOWHERE)
        reader->used = place + 1;
    return r;
}

uint64_t reader_number(const struct reader *reader)
{
    struct reader_block *const *block =
        reader->used < reader->at
            ? slot((struct reader *)reader, &reader->expected[reader->used].id)
            : NULL;

    if (!reader->arrivals)
        return 0;
    return block && *block ? (*block)->number : reader->arrivals->newest;
}
