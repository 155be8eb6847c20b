#include <broker/core/fleet.h>

/* Cards are told apart by memory alone: cards of one size are one kind, and a group of workers
 * needs only to agree on how many of each kind are free. */

bool shape_valid(const struct offer *offer)
{
    struct step_spec spec = {.amounts = offer->amounts,
                             .n_amounts = offer->n_amounts,
                             .attributes = offer->attributes,
                             .n_attributes = offer->n_attributes};

    for (size_t i = 0; i < offer->n_attributes && i < LIMIT_ATTRIBUTES; i++)
        if (offer->attributes[i].name && strcmp(offer->attributes[i].name, ATTRIBUTE_POOL) == 0)
            return false; /* the operator's to say */
    return offer->slots <= LIMIT_SLOTS && offer->prefetch <= LIMIT_PREFETCH &&
           offer->n_gpus <= LIMIT_GPUS && demand_valid(&spec);
}

static void shape_cards(struct shape *shape, const struct offer *offer)
{
    shape->n_cards = (uint32_t)offer->n_gpus;
    for (uint32_t i = 0; i < shape->n_cards; i++) {
        uint32_t j = i;

        shape->card_memory_mib[i] = offer->gpus[i].memory_mib;
        for (;
             j > 0 && shape->card_memory_mib[shape->card_order[j - 1]] > shape->card_memory_mib[i];
             j--)
            shape->card_order[j] = shape->card_order[j - 1];
        shape->card_order[j] = i;
    }
    for (uint32_t i = 0; i < shape->n_cards; i++) {
        uint64_t memory = shape->card_memory_mib[shape->card_order[i]];

        if (shape->n_kinds == 0 || shape->kind_memory_mib[shape->n_kinds - 1] != memory)
            shape->kind_memory_mib[shape->n_kinds++] = memory;
        shape->card_kind[shape->card_order[i]] = shape->n_kinds - 1;
    }
}

/* Copies them, `pool` in place of the one there may be. */
static void shape_sets(struct fleet *fleet, struct shape *shape, const struct attribute *attributes,
                       size_t n_attributes, const char *pool)
{
    struct attribute copy[LIMIT_ATTRIBUTES + 1];
    size_t n = 0;

    CHECK(n_attributes <= LIMIT_ATTRIBUTES + 1);
    for (size_t i = 0; i < n_attributes; i++)
        if (strcmp(attributes[i].name, ATTRIBUTE_POOL) != 0)
            copy[n++] = attributes[i];
    copy[n++] = (struct attribute){.name = ATTRIBUTE_POOL, .any_of = &pool, .n_any_of = 1};
    shape->sets = sets_copy(fleet, copy, n);
    shape->n_sets = n;
}

static void shape_fill(struct fleet *fleet, struct shape *shape, const struct offer *offer,
                       const char *pool)
{
    int64_t vcpus = 0, memory = 0;

    shape->slots = offer->slots;
    shape->prefetch = offer->prefetch;
    shape_cards(shape, offer);
    shape->amounts =
        offer->n_amounts ? memory_new(offer->n_amounts * sizeof(*shape->amounts)) : NULL;
    for (size_t i = 0; i < offer->n_amounts; i++) {
        const struct amount *amount = &offer->amounts[i];

        if (strcmp(amount->name, "amount.worker.vcpu") == 0)
            vcpus = amount_of(amount->value);
        else if (strcmp(amount->name, "amount.worker.memory") == 0)
            memory = amount_of(amount->value);
        else if (strncmp(amount->name, "amount.worker.gpu", 17) != 0) /* the cards say it */
            amounts_add(
                shape->amounts, &shape->n_amounts,
                (struct name_amount){name_take(fleet, amount->name), amount_of(amount->value)});
    }
    shape_sets(fleet, shape, offer->attributes, offer->n_attributes, pool);
    shape->n_free = FREE_CARDS + shape->n_kinds + shape->n_amounts;
    shape->total = memory_new(shape->n_free * sizeof(*shape->total));
    shape->total[FREE_SLOTS] = (int64_t)offer->slots * AMOUNT_ONE;
    shape->total[FREE_VCPUS] = vcpus;
    shape->total[FREE_MEMORY] = memory;
    for (uint32_t i = 0; i < shape->n_cards; i++)
        shape->total[FREE_CARDS + shape->card_kind[i]]++;
    for (size_t i = 0; i < shape->n_amounts; i++)
        shape->total[FREE_CARDS + shape->n_kinds + i] = shape->amounts[i].value;
}

static uint64_t shape_hash(const struct fleet *fleet, const struct shape *shape)
{
    uint64_t hash =
        hash_bytes(fleet->seed ^ 8, shape->total, shape->n_free * sizeof(*shape->total));

    hash = amounts_hash(hash_number(hash, shape->prefetch), shape->amounts, shape->n_amounts);
    return sets_hash(hash, shape->sets, shape->n_sets);
}

static bool shape_is(const void *value, const void *key)
{
    const struct shape *a = value, *b = key;

    return a->slots == b->slots && a->prefetch == b->prefetch && a->n_cards == b->n_cards &&
           memcmp(a->card_memory_mib, b->card_memory_mib, sizeof(a->card_memory_mib)) == 0 &&
           a->n_free == b->n_free &&
           memcmp(a->total, b->total, a->n_free * sizeof(*a->total)) == 0 &&
           amounts_same(a->amounts, a->n_amounts, b->amounts, b->n_amounts) &&
           sets_same(a->sets, a->n_sets, b->sets, b->n_sets);
}

static void shape_free(struct fleet *fleet, struct shape *shape)
{
    for (size_t i = 0; i < shape->n_plans; i++)
        free(shape->plans[i]);
    free(shape->plans);
    amounts_free(fleet, shape->amounts, shape->n_amounts);
    sets_free(fleet, shape->sets, shape->n_sets);
    free(shape->total);
    free(shape);
}

/* The one there is, or this. */
static struct shape *shape_keep(struct fleet *fleet, struct shape *made)
{
    made->hash = shape_hash(fleet, made);
    struct shape *shape = table_find(&fleet->shapes_by_offer, made->hash, shape_is, made);

    if (shape) {
        shape_free(fleet, made);
        return shape;
    }
    table_insert(&fleet->shapes_by_offer, made->hash, made);
    link_init(&made->groups);
    link_last(&fleet->shapes, &made->link);
    return made;
}

struct shape *shape_of(struct fleet *fleet, const struct offer *offer, const char *pool)
{
    struct shape *made = memory_new(sizeof(*made));

    shape_fill(fleet, made, offer, pool);
    return shape_keep(fleet, made);
}

struct shape *shape_in_pool(struct fleet *fleet, const struct shape *shape, const char *pool)
{
    struct shape *made = memory_copy(shape, sizeof(*shape));
    struct attribute attributes[LIMIT_ATTRIBUTES + 1];

    for (size_t i = 0; i < shape->n_sets; i++)
        attributes[i] = (struct attribute){.name = shape->sets[i].name,
                                           .any_of = shape->sets[i].any_of,
                                           .n_any_of = shape->sets[i].n_any_of,
                                           .all_of = shape->sets[i].all_of,
                                           .n_all_of = shape->sets[i].n_all_of};
    shape_sets(fleet, made, attributes, shape->n_sets, pool);
    made->amounts = memory_copy(shape->amounts, shape->n_amounts * sizeof(*shape->amounts));
    for (size_t i = 0; i < shape->n_amounts; i++)
        name_take(fleet, shape->amounts[i].name);
    made->total = memory_copy(shape->total, shape->n_free * sizeof(*shape->total));
    made->workers = made->connected = made->held = made->drained = made->aside = 0;
    made->plans = NULL;
    made->n_plans = 0;
    made->n_groups = 0;
    return shape_keep(fleet, made);
}

void shape_release(struct fleet *fleet, struct shape *shape)
{
    if (shape->workers > 0)
        return;
    list_each(link, &shape->groups)
    {
        struct group *group = container_of(link, struct group, link);

        CHECK(link_alone(&group->workers));
        table_remove(&fleet->groups, group->hash, group);
        free(group);
    }
    table_remove(&fleet->shapes_by_offer, shape->hash, shape);
    link_remove(&shape->link);
    shape_free(fleet, shape);
}
