/* reader.c - see reader.h: one list of wants, one window of it in memory. */
#include <client/reader.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/block_set.h>

static bool same(const struct block_id *a, const struct block_id *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void drop_window(struct reader *reader)
{
    for (size_t i = 0; i < reader->n_held; i++)
        bytes_deinit(&reader->held[i].sealed);
    free(TAKE_PTR(reader->held));
    free(TAKE_PTR(reader->coming));
    reader->n_held = reader->cursor = 0;
}

void reader_forget(struct reader *reader)
{
    drop_window(reader);
    reader->n_expected = reader->at = reader->expected_bytes = 0;
}

void reader_deinit(struct reader *reader)
{
    drop_window(reader);
    free(TAKE_PTR(reader->expected));
    bytes_deinit(&reader->opened);
}

int reader_expect(struct reader *reader, const Wl__FileEntry *entry)
{
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

static bool keeps(const struct reader *reader)
{
    return reader->arrivals && reader->expected_bytes > READER_LOST_BYTES;
}

static int take_block(void *user, size_t i, const void *sealed, size_t size)
{
    struct reader *reader = user;
    struct reader_block *block = &reader->held[reader->coming[i]];

    if (keeps(reader))
        arrivals_add(reader->arrivals, &block->id, sealed, size);
    block->sealed.size = 0;
    return bytes_append(&block->sealed, sealed, size);
}

/* Those that an earlier fetch had got are there; the others come. */
static int get_wants(struct reader *reader, struct transfer_want *wants, size_t n)
{
    size_t n_coming = 0;

    drop_window(reader);
    reader->held = calloc(n, sizeof(*reader->held));
    reader->coming = calloc(n, sizeof(*reader->coming));
    if (!reader->held || !reader->coming)
        return -ENOMEM;
    reader->n_held = n;
    for (size_t i = 0; i < n; i++) {
        reader->held[i].id = wants[i].id;
        if (reader->arrivals &&
            arrivals_get(reader->arrivals, &wants[i].id, &reader->held[i].sealed))
            continue;
        reader->coming[n_coming] = i;
        wants[n_coming++] = wants[i];
    }
    if (n_coming > 0 && keeps(reader))
        arrivals_next(reader->arrivals, reader->needed);
    return n_coming > 0 ? blocks_get(reader->blocks, wants, n_coming, take_block, reader) : 0;
}

/* Gets the window that begins with `key`: from where it is expected next, or it alone. */
static int load_window(struct reader *reader, const struct block_key *key)
{
    _cleanup_(block_set_deinit) struct block_set seen = {0};
    _cleanup_(freep) struct transfer_want *wants = calloc(READER_BLOCKS, sizeof(*wants));
    size_t n = 0, bytes = 0, i = reader->at;
    if (!wants)
        return -ENOMEM;

    while (i < reader->n_expected && !same(&reader->expected[i].id, &key->id))
        i++;
    if (i == reader->n_expected) {
        wants[n++] = (struct transfer_want){key->id, key->sealed_bytes};
        i = reader->at;
    }
    for (; (n == 0 || bytes < READER_BYTES) && n < READER_BLOCKS && i < reader->n_expected; i++) {
        int added = block_set_add(&seen, &reader->expected[i].id);
        if (added < 0)
            return added;
        if (added > 0) {
            wants[n++] = reader->expected[i];
            bytes += reader->expected[i].sealed_bytes;
        }
    }
    reader->at = i;
    int r = get_wants(reader, wants, n);
    if ((r == WESTLIGHT_E_CORRUPT || r == WESTLIGHT_E_UNKNOWN) && n > 1) {
        /* One of them cannot be had, and it may be another file's: this one alone. */
        struct transfer_want alone = {key->id, key->sealed_bytes};
        r = get_wants(reader, &alone, 1);
    }
    if (r != 0)
        drop_window(reader);
    return r;
}

/* Files come in the order of the list, so that the block is mostly here or right behind. */
static struct reader_block *find_held(struct reader *reader, const struct block_id *id)
{
    for (size_t i = 0; i < reader->n_held; i++) {
        size_t at = (reader->cursor + i) % reader->n_held;
        if (same(&reader->held[at].id, id)) {
            reader->cursor = at;
            return &reader->held[at];
        }
    }
    return NULL;
}

int reader_fetch(void *user, const struct block_key *key, const struct bytes **ret_block)
{
    struct reader *reader = user;
    struct westlight *westlight = reader->blocks->westlight;

    if (!reader->has_opened || !same(&reader->opened_id, &key->id)) {
        struct reader_block *block = find_held(reader, &key->id);
        if (!block) {
            int r = load_window(reader, key);
            if (r != 0)
                return r;
            block = find_held(reader, &key->id);
        }
        if (!block)
            return -EPROTO;
        reader->has_opened = false;
        int r = blocks_opened(westlight,
                              open_checked(westlight->sealer, key, block->sealed.data,
                                           block->sealed.size, &reader->opened),
                              "a block of a frame");
        if (r != 0)
            return r;
        reader->opened_id = key->id;
        reader->has_opened = true;
    }
    *ret_block = &reader->opened;
    return 0;
}
