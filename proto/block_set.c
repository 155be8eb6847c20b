/* block_set.c - an id is a digest, so its own first bytes are the hash. Whoever chooses ids to
 * collide pays a SHA-256 search for each and gets a slow lookup of its own data.
 */
#include <proto/block_set.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void block_set_deinit(struct block_set *set)
{
    free(set->slots);
    free(set->taken);
    *set = (struct block_set){0};
}

static size_t slot_of(const struct block_set *set, const struct block_id *id)
{
    size_t i;

    memcpy(&i, id->bytes, sizeof(i));
    for (i &= set->n_slots - 1; set->taken[i]; i = (i + 1) & (set->n_slots - 1))
        if (memcmp(&set->slots[i], id, sizeof(*id)) == 0)
            break;
    return i;
}

static int grow(struct block_set *set)
{
    struct block_set larger = {.n_slots = set->n_slots ? 2 * set->n_slots : 64, .n = set->n};

    larger.slots = malloc(larger.n_slots * sizeof(*larger.slots));
    larger.taken = calloc(larger.n_slots, 1);
    if (!larger.slots || !larger.taken) {
        block_set_deinit(&larger);
        return -ENOMEM;
    }

    for (size_t i = 0; i < set->n_slots; i++) {
        if (!set->taken[i])
            continue;
        size_t at = slot_of(&larger, &set->slots[i]);
        larger.slots[at] = set->slots[i];
        larger.taken[at] = 1;
    }
    block_set_deinit(set);
    *set = larger;
    return 0;
}

int block_set_add(struct block_set *set, const struct block_id *id)
{
    if (set->n * 2 >= set->n_slots) {
        int r = grow(set);
        if (r < 0)
            return r;
    }

    size_t at = slot_of(set, id);
    if (set->taken[at])
        return 0;
    set->taken[at] = 1;
    set->slots[at] = *id;
    set->n++;
    return 1;
}

bool block_set_has(const struct block_set *set, const struct block_id *id)
{
    return set->n_slots && set->taken[slot_of(set, id)];
}
