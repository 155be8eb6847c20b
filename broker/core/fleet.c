/* fleet.h: workers, the room they have, and the groups of those with equal room.
 */
#include <broker/core/fleet.h>

enum { CUT_OFF_WORKERS = 2 };
enum { GROUPS_KEPT = 1024 }; /* empty ones of a shape, kept because they come back */

void fleet_init(struct fleet *fleet, uint64_t seed)
{
    *fleet = (struct fleet){.seed = seed};
    link_init(&fleet->shapes);
    for (size_t i = 0; i <= LIMIT_GPUS; i++)
        for (size_t j = 0; j < OPEN_SLOTS; j++)
            link_init(&fleet->open[i][j]);
    link_init(&fleet->held);
}

void fleet_deinit(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->n_workers; i++) {
        struct worker *worker = fleet->workers[i];

        if (worker->group)
            link_remove(&worker->grouped);
        if (worker->shape) {
            worker->shape->workers--;
            shape_release(fleet, worker->shape);
        }
        free(worker->free);
        name_give(fleet, worker->pool);
        free(worker->note);
        free(worker);
    }
    free(fleet->workers);
    for (size_t i = 0; i < fleet->n_demands; i++)
        demand_free(fleet, fleet->all_demands[i]);
    free(fleet->all_demands);
    free(fleet->spare_numbers);
    table_deinit(&fleet->workers_by_key);
    table_deinit(&fleet->demands);
    table_deinit(&fleet->groups);
    table_deinit(&fleet->shapes_by_offer);
    CHECK(fleet->names.n == 0); /* whoever took a name gave it back */
    table_deinit(&fleet->names);
}

/* ---- workers ---- */

static bool worker_is(const void *value, const void *key)
{
    return memcmp(&((const struct worker *)value)->key, key, sizeof(struct worker_key)) == 0;
}

static uint64_t key_hash(const struct fleet *fleet, const struct worker_key *key)
{
    return hash_bytes(fleet->seed ^ 4, key->bytes, sizeof(key->bytes));
}

struct worker *worker_find(const struct fleet *fleet, const struct worker_key *key)
{
    if (fleet->at_hand && worker_is(fleet->at_hand, key))
        return fleet->at_hand;
    return table_find(&fleet->workers_by_key, key_hash(fleet, key), worker_is, key);
}

struct worker *worker_of(struct fleet *fleet, const struct worker_key *key)
{
    struct worker *worker = worker_find(fleet, key);

    if (worker || fleet->n_workers == LIMIT_WORKERS)
        return worker;
    worker = memory_new(sizeof(*worker));
    worker->key = *key;
    worker->id.value = (uint32_t)fleet->n_workers;
    worker->timer_position = worker->aside_position = HEAP_NONE;
    worker->pool = name_take(fleet, "");
    worker->streak.number = 1;
    link_init(&worker->grouped);
    link_init(&worker->held);
    link_init(&worker->leases);
    link_init(&worker->dirty);
    link_init(&worker->suspected);
    MEMORY_GROW(fleet->workers, fleet->n_workers, fleet->workers_capacity);
    fleet->workers[fleet->n_workers++] = worker;
    table_insert(&fleet->workers_by_key, key_hash(fleet, key), worker);
    return worker;
}

bool worker_available(const struct fleet *fleet, const struct worker *worker)
{
    return !fleet->no_room && worker->connected && worker->listed && !worker->stalled &&
           !worker->no_room && worker_willing(worker);
}

static void worker_count(struct fleet *fleet, const struct worker *worker, uint32_t change)
{
    struct shape *shape = worker->shape;

    shape->connected += change;
    fleet->connected += change;
    shape->drained += worker->drained ? change : 0;
    shape->aside += worker->aside && !worker->drained ? change : 0;
    fleet->aside += worker->aside ? change : 0;
}

void worker_set_connected(struct fleet *fleet, struct worker *worker, bool connected)
{
    if (worker->connected == connected)
        return;
    worker_set_quiet(fleet, worker, false);
    worker->connected = connected;
    worker_count(fleet, worker, connected ? 1 : -1u);
}

void worker_set_willing(struct fleet *fleet, struct worker *worker, bool drained, bool aside)
{
    if (worker->connected)
        worker_count(fleet, worker, -1u);
    worker->drained = drained;
    worker->aside = aside;
    if (worker->connected)
        worker_count(fleet, worker, 1);
}

void worker_set_quiet(struct fleet *fleet, struct worker *worker, bool quiet)
{
    if (worker->quiet == quiet)
        return;
    CHECK(worker->connected);
    worker->quiet = quiet;
    fleet->quiet += quiet ? 1 : -1u;
}

void worker_set_held(struct fleet *fleet, struct worker *worker, bool held)
{
    if (held == !link_alone(&worker->held))
        return;
    if (held)
        link_last(&fleet->held, &worker->held);
    else
        link_remove(&worker->held);
    worker->awaited = held;
    worker->shape->held += held ? 1 : -1u;
    fleet->n_held += held ? 1 : -1u;
}

bool fleet_cut_off(const struct fleet *fleet)
{
    uint32_t silent = fleet->quiet + fleet->n_held, all = fleet->connected + fleet->n_held;

    return silent >= CUT_OFF_WORKERS && 2 * silent >= all;
}

void worker_set_shape(struct fleet *fleet, struct worker *worker, struct shape *shape)
{
    struct shape *old = worker->shape;

    CHECK(!worker->group && !worker->connected);
    shape->workers++;
    worker->shape = shape;
    worker->cards_busy = 0;
    free(worker->free);
    worker->free = memory_copy(shape->total, shape->n_free * sizeof(*shape->total));
    if (old) {
        old->workers--;
        old->held -= !link_alone(&worker->held);
        shape->held += !link_alone(&worker->held);
        shape_release(fleet, old);
    }
}

/* ---- capacity ---- */

bool shape_fits(const struct shape *shape, const int64_t *room, const struct plan *plan)
{
    int64_t cards = 0;

    for (size_t i = 0; i < FREE_CARDS; i++)
        if (room[i] < plan->need[i])
            return false;
    for (size_t i = FREE_CARDS + shape->n_kinds; i < shape->n_free; i++)
        if (room[i] < plan->need[i])
            return false;
    if (plan->cards == 0)
        return true;
    for (uint32_t kind = plan->kind_first; kind < shape->n_kinds; kind++)
        cards += room[FREE_CARDS + kind];
    return cards >= (int64_t)plan->cards;
}

/* The smallest cards that will do, so that large ones stay for those who need them. */
static uint32_t cards_choose(const struct worker *worker, const struct plan *plan)
{
    const struct shape *shape = worker->shape;
    uint32_t cards = 0, n = 0;

    for (uint32_t i = 0; i < shape->n_cards && n < plan->cards; i++) {
        uint32_t card = shape->card_order[i];

        if (shape->card_kind[card] < plan->kind_first || (worker->cards_busy >> card & 1))
            continue;
        cards |= 1u << card;
        n++;
    }
    return cards;
}

static void worker_change(struct worker *worker, const struct plan *plan, uint32_t cards,
                          int64_t sign)
{
    const struct shape *shape = worker->shape;

    for (size_t i = 0; i < shape->n_free; i++)
        if (i < FREE_CARDS || i >= FREE_CARDS + shape->n_kinds)
            worker->free[i] -= sign * plan->need[i];
    for (uint32_t card = 0; card < shape->n_cards; card++)
        if (cards >> card & 1)
            worker->free[FREE_CARDS + shape->card_kind[card]] -= sign;
}

/* A returning worker names cards of its own: those that are there and not taken are its. */
uint32_t worker_take(struct worker *worker, const struct plan *plan, uint32_t cards)
{
    uint32_t there = worker->shape->n_cards == 32 ? UINT32_MAX : (1u << worker->shape->n_cards) - 1;

    cards = cards ? cards & there & ~worker->cards_busy : cards_choose(worker, plan);
    worker->cards_busy |= cards;
    worker_change(worker, plan, cards, 1);
    return cards;
}

void worker_give(struct worker *worker, const struct plan *plan, uint32_t cards)
{
    CHECK((worker->cards_busy & cards) == cards);
    worker->cards_busy &= ~cards;
    worker_change(worker, plan, cards, -1);
}

/* ---- groups ---- */

struct group_key {
    const struct shape *shape;
    const int64_t *free;
};

static bool group_is(const void *value, const void *key)
{
    const struct group *group = value;
    const struct group_key *wanted = key;

    return group->shape == wanted->shape &&
           memcmp(group->free, wanted->free, group->shape->n_free * sizeof(int64_t)) == 0;
}

static struct group *group_of(struct fleet *fleet, struct worker *worker)
{
    struct shape *shape = worker->shape;
    size_t size = shape->n_free * sizeof(int64_t);
    struct group_key key = {.shape = shape, .free = worker->free};
    uint64_t hash = hash_bytes(shape->hash, worker->free, size);
    struct group *group = table_find(&fleet->groups, hash, group_is, &key);

    if (group)
        return group;
    group = memory_new(sizeof(*group) + size);
    group->shape = shape;
    group->hash = hash;
    memcpy(group->free, worker->free, size);
    link_init(&group->open);
    link_init(&group->workers);
    link_last(&shape->groups, &group->link);
    shape->n_groups++;
    table_insert(&fleet->groups, hash, group);
    return group;
}

static int64_t group_cards(const struct group *group)
{
    int64_t cards = 0;

    for (uint32_t kind = 0; kind < group->shape->n_kinds; kind++)
        cards += group->free[FREE_CARDS + kind];
    return cards;
}

static size_t group_slots(const struct group *group)
{
    int64_t slots = group->free[FREE_SLOTS] / AMOUNT_ONE;

    return (size_t)(slots < OPEN_SLOTS ? slots : OPEN_SLOTS) - 1;
}

static void group_open(struct fleet *fleet, struct group *group)
{
    if (group->free[FREE_SLOTS] < AMOUNT_ONE || !link_alone(&group->open))
        return;
    size_t cards = (size_t)group_cards(group), slots = group_slots(group);

    link_last(&fleet->open[cards][slots], &group->open);
    fleet->open_slots[cards] |= 1ULL << slots;
    fleet->open_cards |= 1ULL << cards;
}

static void group_close(struct fleet *fleet, struct group *group)
{
    if (link_alone(&group->open))
        return;
    size_t cards = (size_t)group_cards(group), slots = group_slots(group);

    link_remove(&group->open);
    if (link_alone(&fleet->open[cards][slots]))
        fleet->open_slots[cards] &= ~(1ULL << slots);
    if (fleet->open_slots[cards] == 0)
        fleet->open_cards &= ~(1ULL << cards);
}

static void group_leave(struct fleet *fleet, struct worker *worker)
{
    struct group *group = worker->group;

    link_remove(&worker->grouped);
    worker->group = NULL;
    if (!link_alone(&group->workers))
        return;
    group_close(fleet, group);
    if (group->shape->n_groups <= GROUPS_KEPT)
        return;
    group->shape->n_groups--;
    table_remove(&fleet->groups, group->hash, group);
    link_remove(&group->link);
    free(group);
}

void worker_regroup(struct fleet *fleet, struct worker *worker)
{
    if (worker->group)
        group_leave(fleet, worker);
    if (!worker_available(fleet, worker))
        return;
    struct group *group = group_of(fleet, worker);

    worker->group = group;
    link_last(&group->workers, &worker->grouped);
    group_open(fleet, group);
}

/* ---- matching ---- */

/* The bits of `mask` below or above bit `i`. */
static uint64_t bits_below(uint64_t mask, size_t i)
{
    return mask & ((1ULL << i) - 1);
}

static uint64_t bits_above(uint64_t mask, size_t i)
{
    return mask & ~((1ULL << i) | ((1ULL << i) - 1));
}

struct group *fleet_open_next(const struct fleet *fleet, const struct group *group)
{
    uint64_t with_cards = fleet->open_cards, with_slots = 0;

    if (group) {
        size_t cards = (size_t)group_cards(group), slots = group_slots(group);

        if (group->open.next != &fleet->open[cards][slots])
            return container_of(group->open.next, struct group, open);
        with_slots = bits_below(fleet->open_slots[cards], slots);
        with_cards = bits_above(with_cards, cards) | (with_slots ? 1ULL << cards : 0);
    }
    if (with_cards == 0)
        return NULL;
    size_t cards = (size_t)__builtin_ctzll(with_cards);

    with_slots = with_slots ? with_slots : fleet->open_slots[cards];
    size_t slots = 63 - (size_t)__builtin_clzll(with_slots);

    return container_of(fleet->open[cards][slots].next, struct group, open);
}

/* Work that needs no card keeps away from cards; then the emptiest worker, so that work spreads. */
struct group *fleet_room(struct fleet *fleet, const struct demand *demand)
{
    for (struct group *group = fleet_open_next(fleet, NULL); group;
         group = fleet_open_next(fleet, group)) {
        const struct plan *plan = demand_plan(demand, group->shape);

        if (plan->possible && shape_fits(group->shape, group->free, plan))
            return group;
    }
    return NULL;
}

static uint32_t shape_willing(const struct shape *shape)
{
    return shape->connected - shape->drained - shape->aside;
}

uint32_t fleet_able(struct fleet *fleet, const struct demand *demand)
{
    uint32_t workers = 0;

    list_each(link, &fleet->shapes)
    {
        struct shape *shape = container_of(link, struct shape, link);
        uint32_t willing = shape_willing(shape);

        if (willing > 0 && demand_possible(demand, shape))
            workers += willing;
    }
    return workers;
}

bool fleet_able_exceeds(struct fleet *fleet, const struct demand *demand, uint32_t n, bool held)
{
    uint32_t workers = 0;

    list_each(link, &fleet->shapes)
    {
        struct shape *shape = container_of(link, struct shape, link);
        uint32_t there = shape_willing(shape) + (held ? shape->held : 0);

        if (there > 0 && demand_possible(demand, shape))
            workers += there;
        if (workers > n)
            return true;
    }
    return false;
}

bool worker_able(const struct worker *worker, const struct demand *demand)
{
    return worker->connected && worker_willing(worker) && demand_possible(demand, worker->shape);
}
