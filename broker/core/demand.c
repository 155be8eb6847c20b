/* fleet.h: demands, and whether a shape can ever meet one.
 */
#include <broker/core/fleet.h>

/* A demand is kept sorted and its names interned, so that equal ones compare equal however they
 * were written. */

struct name {
    uint64_t hash;
    uint32_t holders;
    char text[];
};

static bool name_is(const void *value, const void *key)
{
    return strcmp(((const struct name *)value)->text, key) == 0;
}

const char *name_take(struct fleet *fleet, const char *text)
{
    size_t size = strlen(text) + 1;
    uint64_t hash = hash_bytes(fleet->seed ^ 2, text, size);
    struct name *name = table_find(&fleet->names, hash, name_is, text);

    if (!name) {
        name = memory_new(sizeof(*name) + size);
        name->hash = hash;
        memcpy(name->text, text, size);
        table_insert(&fleet->names, hash, name);
    }
    name->holders++;
    return name->text;
}

void name_give(struct fleet *fleet, const char *text)
{
    struct name *name = container_of(text, struct name, text);

    CHECK(name->holders > 0);
    if (--name->holders > 0)
        return;
    table_remove(&fleet->names, name->hash, name);
    free(name);
}

int64_t amount_of(double value)
{
    return (int64_t)(value * (double)AMOUNT_ONE + 0.5);
}

static bool amount_valid(double value)
{
    return value >= 0 && value <= AMOUNT_MAX; /* neither holds for a NaN */
}

static bool values_valid(const char *const *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!values[i])
            return false;
    return n <= LIMIT_ATTRIBUTE_VALUES;
}

bool demand_valid(const struct step_spec *spec)
{
    if (spec->n_amounts > LIMIT_AMOUNTS || spec->n_attributes > LIMIT_ATTRIBUTES)
        return false;
    for (size_t i = 0; i < spec->n_amounts; i++) {
        if (!spec->amounts[i].name || !amount_valid(spec->amounts[i].value))
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcmp(spec->amounts[i].name, spec->amounts[j].name) == 0)
                return false;
    }
    for (size_t i = 0; i < spec->n_attributes; i++) {
        const struct attribute *attribute = &spec->attributes[i];

        if (!attribute->name || !values_valid(attribute->any_of, attribute->n_any_of) ||
            !values_valid(attribute->all_of, attribute->n_all_of))
            return false;
    }
    return true;
}

/* ---- names, sorted ---- */

/* qsort is not among the functions the core may use; these arrays are short. */
static void sort_names(const char **names, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && strcmp(names[j - 1], names[j]) > 0; j--) {
            const char *swap = names[j];

            names[j] = names[j - 1];
            names[j - 1] = swap;
        }
}

static const char **copy_names(struct fleet *fleet, const char *const *names, size_t n)
{
    const char **copy = n ? memory_new(n * sizeof(*copy)) : NULL;

    for (size_t i = 0; i < n; i++)
        copy[i] = name_take(fleet, names[i]);
    sort_names(copy, n);
    return copy;
}

struct name_set *sets_copy(struct fleet *fleet, const struct attribute *attributes, size_t n)
{
    struct name_set *sets = n ? memory_new(n * sizeof(*sets)) : NULL;

    for (size_t i = 0; i < n; i++) {
        struct name_set set = {
            .name = name_take(fleet, attributes[i].name),
            .any_of = copy_names(fleet, attributes[i].any_of, attributes[i].n_any_of),
            .n_any_of = attributes[i].n_any_of,
            .all_of = copy_names(fleet, attributes[i].all_of, attributes[i].n_all_of),
            .n_all_of = attributes[i].n_all_of,
        };
        size_t j = i;

        for (; j > 0 && strcmp(sets[j - 1].name, set.name) > 0; j--)
            sets[j] = sets[j - 1];
        sets[j] = set;
    }
    return sets;
}

static void give_names(struct fleet *fleet, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        name_give(fleet, names[i]);
}

void amounts_free(struct fleet *fleet, struct name_amount *amounts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        name_give(fleet, amounts[i].name);
    free(amounts);
}

void sets_free(struct fleet *fleet, struct name_set *sets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        name_give(fleet, sets[i].name);
        give_names(fleet, sets[i].any_of, sets[i].n_any_of);
        give_names(fleet, sets[i].all_of, sets[i].n_all_of);
        free(sets[i].any_of);
        free(sets[i].all_of);
    }
    free(sets);
}

void amounts_add(struct name_amount *amounts, size_t *n, struct name_amount amount)
{
    size_t j = (*n)++;

    for (; j > 0 && strcmp(amounts[j - 1].name, amount.name) > 0; j--)
        amounts[j] = amounts[j - 1];
    amounts[j] = amount;
}

uint64_t sets_hash(uint64_t hash, const struct name_set *sets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash = hash_bytes(hash, sets[i].name, strlen(sets[i].name));
        for (size_t j = 0; j < sets[i].n_any_of; j++)
            hash = hash_bytes(hash, sets[i].any_of[j], strlen(sets[i].any_of[j]));
        hash = hash_number(hash, sets[i].n_any_of);
        for (size_t j = 0; j < sets[i].n_all_of; j++)
            hash = hash_bytes(hash, sets[i].all_of[j], strlen(sets[i].all_of[j]));
    }
    return hash;
}

uint64_t amounts_hash(uint64_t hash, const struct name_amount *amounts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = hash_number(hash_bytes(hash, amounts[i].name, strlen(amounts[i].name)),
                           (uint64_t)amounts[i].value);
    return hash;
}

bool sets_same(const struct name_set *a, size_t n_a, const struct name_set *b, size_t n_b)
{
    if (n_a != n_b)
        return false;
    for (size_t i = 0; i < n_a; i++) {
        if (a[i].name != b[i].name || a[i].n_any_of != b[i].n_any_of ||
            a[i].n_all_of != b[i].n_all_of)
            return false;
        for (size_t j = 0; j < a[i].n_any_of; j++)
            if (a[i].any_of[j] != b[i].any_of[j])
                return false;
        for (size_t j = 0; j < a[i].n_all_of; j++)
            if (a[i].all_of[j] != b[i].all_of[j])
                return false;
    }
    return true;
}

bool amounts_same(const struct name_amount *a, size_t n_a, const struct name_amount *b, size_t n_b)
{
    if (n_a != n_b)
        return false;
    for (size_t i = 0; i < n_a; i++)
        if (a[i].name != b[i].name || a[i].value != b[i].value)
            return false;
    return true;
}

/* ---- demands ---- */

/* Whoever asks for no pool asks for a worker that is in none. */
static struct name_set *demand_sets(struct fleet *fleet, const struct step_spec *spec,
                                    size_t *ret_n)
{
    static const char *const none[] = {""};
    struct attribute attributes[LIMIT_ATTRIBUTES + 1];
    size_t n = spec->n_attributes;
    bool asked = false;

    CHECK(n <= LIMIT_ATTRIBUTES);
    for (size_t i = 0; i < n; i++) {
        attributes[i] = spec->attributes[i];
        asked |= strcmp(attributes[i].name, ATTRIBUTE_POOL) == 0 &&
                 attributes[i].n_any_of + attributes[i].n_all_of > 0;
    }
    if (!asked)
        attributes[n++] = (struct attribute){.name = ATTRIBUTE_POOL, .any_of = none, .n_any_of = 1};
    *ret_n = n;
    return sets_copy(fleet, attributes, n);
}

static void demand_fill(struct fleet *fleet, struct demand *demand, const struct step_spec *spec)
{
    demand->amounts =
        spec->n_amounts ? memory_new(spec->n_amounts * sizeof(*demand->amounts)) : NULL;
    for (size_t i = 0; i < spec->n_amounts; i++) {
        const struct amount *amount = &spec->amounts[i];

        if (strcmp(amount->name, "amount.worker.vcpu") == 0)
            demand->vcpus = amount_of(amount->value);
        else if (strcmp(amount->name, "amount.worker.memory") == 0)
            demand->memory = amount_of(amount->value);
        else if (strcmp(amount->name, "amount.worker.gpu") == 0)
            demand->cards =
                amount->value > LIMIT_GPUS ? LIMIT_GPUS + 1 : (uint32_t)(amount->value + 0.999999);
        else if (strcmp(amount->name, "amount.worker.gpu.memory") == 0)
            demand->card_memory_mib = (uint64_t)(amount->value + 0.999999);
        else
            amounts_add(
                demand->amounts, &demand->n_amounts,
                (struct name_amount){name_take(fleet, amount->name), amount_of(amount->value)});
    }
    if (demand->card_memory_mib > 0 && demand->cards == 0)
        demand->cards = 1; /* so much memory on a card is a card */
    if (demand->cards == 0)
        demand->card_memory_mib = 0;
    demand->sets = demand_sets(fleet, spec, &demand->n_sets);
    demand->hash = hash_number(hash_number(fleet->seed ^ 3, (uint64_t)demand->vcpus),
                               (uint64_t)demand->memory);
    demand->hash = hash_number(hash_number(demand->hash, demand->cards), demand->card_memory_mib);
    demand->hash = amounts_hash(demand->hash, demand->amounts, demand->n_amounts);
    demand->hash = sets_hash(demand->hash, demand->sets, demand->n_sets);
}

static bool demand_is(const void *value, const void *key)
{
    const struct demand *a = value, *b = key;

    return a->vcpus == b->vcpus && a->memory == b->memory && a->cards == b->cards &&
           a->card_memory_mib == b->card_memory_mib &&
           amounts_same(a->amounts, a->n_amounts, b->amounts, b->n_amounts) &&
           sets_same(a->sets, a->n_sets, b->sets, b->n_sets);
}

static void demand_empty(struct fleet *fleet, struct demand *demand)
{
    amounts_free(fleet, demand->amounts, demand->n_amounts);
    sets_free(fleet, demand->sets, demand->n_sets);
}

struct demand *demand_find(struct fleet *fleet, const struct step_spec *spec, uint64_t *ret_hash)
{
    struct demand made = {0};

    demand_fill(fleet, &made, spec);
    struct demand *demand = table_find(&fleet->demands, made.hash, demand_is, &made);

    *ret_hash = made.hash;
    demand_empty(fleet, &made);
    return demand;
}

struct demand *demand_of(struct fleet *fleet, const struct step_spec *spec)
{
    struct demand *demand = memory_new(sizeof(*demand));

    demand_fill(fleet, demand, spec);
    struct demand *known = table_find(&fleet->demands, demand->hash, demand_is, demand);

    if (known) {
        demand_empty(fleet, demand);
        free(demand);
        return known;
    }
    demand->number = DEMAND_UNUSED;
    MEMORY_GROW(fleet->all_demands, fleet->n_demands, fleet->demands_capacity);
    fleet->all_demands[fleet->n_demands++] = demand;
    table_insert(&fleet->demands, demand->hash, demand);
    return demand;
}

void demand_use(struct fleet *fleet, struct demand *demand, bool more)
{
    CHECK(more || demand->uses > 0);
    demand->uses += more ? 1 : -1u;
    if (more && demand->uses == 1) {
        demand->number = fleet->n_spare_numbers ? fleet->spare_numbers[--fleet->n_spare_numbers]
                                                : fleet->n_numbers++;
        demand->serial = ++fleet->serial;
    } else if (!more && demand->uses == 0) {
        MEMORY_GROW(fleet->spare_numbers, fleet->n_spare_numbers, fleet->spare_numbers_capacity);
        fleet->spare_numbers[fleet->n_spare_numbers++] = demand->number;
        demand->number = DEMAND_UNUSED;
    }
}

uint64_t demands_in_use(const struct fleet *fleet)
{
    return fleet->n_numbers - fleet->n_spare_numbers;
}

void demand_free(struct fleet *fleet, struct demand *demand)
{
    heap_deinit(&demand->queues);
    demand_empty(fleet, demand);
    free(demand);
}

/* ---- plans: can this shape ever meet that demand, and with what ---- */

static bool has_value(const struct name_set *offered, const char *value)
{
    for (size_t i = 0; i < offered->n_any_of; i++)
        if (offered->any_of[i] == value)
            return true;
    return false;
}

static bool set_meets(const struct name_set *wanted, const struct name_set *offered)
{
    bool any = wanted->n_any_of == 0;

    for (size_t i = 0; i < wanted->n_any_of && !any; i++)
        any = has_value(offered, wanted->any_of[i]);
    for (size_t i = 0; i < wanted->n_all_of; i++)
        if (!has_value(offered, wanted->all_of[i]))
            return false;
    return any;
}

/* One set that is wanted, against all that are offered. */
bool sets_meet(const struct name_set *wanted, const struct name_set *offered, size_t n_offered)
{
    for (size_t i = 0; i < n_offered; i++)
        if (offered[i].name == wanted->name)
            return set_meets(wanted, &offered[i]);
    return false;
}

static bool plan_amounts(struct plan *plan, const struct demand *demand, const struct shape *shape)
{
    plan->need[FREE_SLOTS] = AMOUNT_ONE;
    plan->need[FREE_VCPUS] = demand->vcpus;
    if (demand->vcpus == 0 && shape->slots > 0)
        plan->need[FREE_VCPUS] = shape->total[FREE_VCPUS] / shape->slots;
    plan->need[FREE_MEMORY] = demand->memory;
    for (size_t i = 0; i < demand->n_amounts; i++) {
        size_t j = 0;

        while (j < shape->n_amounts && shape->amounts[j].name != demand->amounts[i].name)
            j++;
        if (j == shape->n_amounts && demand->amounts[i].value > 0)
            return false;
        if (j < shape->n_amounts)
            plan->need[FREE_CARDS + shape->n_kinds + j] = demand->amounts[i].value;
    }
    return true;
}

static void plan_make(struct plan *plan, const struct demand *demand, struct shape *shape)
{
    memset(plan, 0, sizeof(*plan) + shape->n_free * sizeof(*plan->need));
    plan->serial = demand->serial;
    plan->cards = demand->cards;
    while (plan->kind_first < shape->n_kinds &&
           shape->kind_memory_mib[plan->kind_first] < demand->card_memory_mib)
        plan->kind_first++;
    if (!plan_amounts(plan, demand, shape))
        return;
    for (size_t i = 0; i < demand->n_sets; i++)
        if (!sets_meet(&demand->sets[i], shape->sets, shape->n_sets))
            return;
    plan->possible = shape_fits(shape, shape->total, plan);
}

static struct plan *plan_new(const struct shape *shape)
{
    return memory_new(sizeof(struct plan) + shape->n_free * sizeof(int64_t));
}

const struct plan *demand_plan(const struct demand *demand, struct shape *shape)
{
    CHECK(demand->number != DEMAND_UNUSED);
    if (demand->number >= shape->n_plans) {
        size_t n = 2 * (size_t)demand->number + 8;

        shape->plans = memory_array(shape->plans, n, sizeof(*shape->plans));
        memset(shape->plans + shape->n_plans, 0, (n - shape->n_plans) * sizeof(*shape->plans));
        shape->n_plans = n;
    }
    struct plan *plan = shape->plans[demand->number];

    if (!plan)
        plan = shape->plans[demand->number] = plan_new(shape);
    if (plan->serial != demand->serial)
        plan_make(plan, demand, shape);
    return plan;
}

bool demand_possible(const struct demand *demand, struct shape *shape)
{
    if (demand->number != DEMAND_UNUSED)
        return demand_plan(demand, shape)->possible;
    struct plan *plan = plan_new(shape);

    plan_make(plan, demand, shape);
    bool possible = plan->possible;

    free(plan);
    return possible;
}
