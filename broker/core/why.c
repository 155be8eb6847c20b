/* Why a step's tasks do not run. Shapes are walked, never workers or tasks; asked when a person
 * looks, never on the way of a lease.
 */
#include <broker/core/inner.h>

enum { HELD_LOOKED_AT = 256, TASKS_LOOKED_AT = 256 };

/* The best that any connected shape offers of it; -1: nobody offers any. */
typedef double shape_offers(const struct shape *shape, const struct demand *demand, size_t i);

static double vcpus_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    return (double)shape->total[FREE_VCPUS] / (double)AMOUNT_ONE;
}

static double memory_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    return (double)shape->total[FREE_MEMORY] / (double)AMOUNT_ONE;
}

static double card_memory_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    return shape->n_kinds ? (double)shape->kind_memory_mib[shape->n_kinds - 1] : 0;
}

static double cards_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    double cards = 0;

    for (uint32_t card = 0; card < shape->n_cards; card++)
        cards += shape->card_memory_mib[card] >= demand->card_memory_mib;
    return cards;
}

static double slots_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    return shape->slots;
}

static double amount_offered(const struct shape *shape, const struct demand *demand, size_t i)
{
    for (size_t j = 0; j < shape->n_amounts; j++)
        if (shape->amounts[j].name == demand->amounts[i].name)
            return (double)shape->amounts[j].value / (double)AMOUNT_ONE;
    return 0;
}

/* Who is connected and in a pool it asks for: the others are not looked at. */
static bool in_question(const struct shape *shape, const struct demand *demand)
{
    for (size_t i = 0; i < demand->n_sets; i++)
        if (strcmp(demand->sets[i].name, ATTRIBUTE_POOL) == 0 &&
            !sets_meet(&demand->sets[i], shape->sets, shape->n_sets))
            return false;
    return shape->connected > 0;
}

static bool short_of(const struct core *core, const struct demand *demand, shape_offers *offers,
                     size_t i, const char *name, double wanted, struct why *why)
{
    double best = 0;

    list_each(link, &core->fleet.shapes)
    {
        const struct shape *shape = container_of(link, struct shape, link);
        double offered = in_question(shape, demand) ? offers(shape, demand, i) : 0;

        best = offered > best ? offered : best;
    }
    if (best >= wanted)
        return false;
    why->kind = WHY_NO_AMOUNT;
    why->name = name;
    why->wanted = wanted;
    why->best = best;
    return true;
}

static bool short_of_amounts(const struct core *core, const struct demand *demand, struct why *why)
{
    double one = (double)AMOUNT_ONE;

    if (short_of(core, demand, vcpus_offered, 0, "amount.worker.vcpu", (double)demand->vcpus / one,
                 why) ||
        short_of(core, demand, memory_offered, 0, "amount.worker.memory",
                 (double)demand->memory / one, why) ||
        short_of(core, demand, card_memory_offered, 0, "amount.worker.gpu.memory",
                 (double)demand->card_memory_mib, why) ||
        short_of(core, demand, cards_offered, 0, "amount.worker.gpu", demand->cards, why) ||
        short_of(core, demand, slots_offered, 0, "slots", 1, why))
        return true;
    for (size_t i = 0; i < demand->n_amounts; i++)
        if (short_of(core, demand, amount_offered, i, demand->amounts[i].name,
                     (double)demand->amounts[i].value / one, why))
            return true;
    return false;
}

static bool lacks_set(const struct core *core, const struct demand *demand, struct why *why)
{
    bool pooled = false;

    list_each(link, &core->fleet.shapes) pooled |=
        in_question(container_of(link, struct shape, link), demand);
    for (size_t i = 0; i < demand->n_sets; i++) {
        const struct name_set *set = &demand->sets[i];
        bool met = false;

        if (!pooled && strcmp(set->name, ATTRIBUTE_POOL) != 0)
            continue;

        list_each(link, &core->fleet.shapes)
        {
            const struct shape *shape = container_of(link, struct shape, link);

            met |= in_question(shape, demand) && sets_meet(set, shape->sets, shape->n_sets);
        }
        if (met)
            continue;
        why->kind = WHY_NO_ATTRIBUTE;
        why->name = set->name;
        why->value = set->n_any_of ? set->any_of[0] : set->n_all_of ? set->all_of[0] : NULL;
        return true;
    }
    return false;
}

static bool unwilling(const struct core *core, const struct demand *demand, struct why *why)
{
    list_each(link, &core->fleet.shapes)
    {
        struct shape *shape = container_of(link, struct shape, link);

        if (shape->drained + shape->aside == 0 || !demand_plan(demand, shape)->possible)
            continue;
        why->drained += shape->drained;
        why->aside += shape->aside;
    }
    if (why->drained + why->aside == 0)
        return false;
    why->kind = WHY_UNWILLING;
    return true;
}

static void why_ready(struct core *core, const struct step *step, struct why *why)
{
    const struct demand *demand = step->demand;

    why->workers = fleet_able(&core->fleet, demand);
    if (core->fleet.connected == 0)
        why->kind = WHY_NO_WORKER;
    else if (why->workers > 0)
        why->kind = WHY_BUSY;
    else if (!unwilling(core, demand, why) && !lacks_set(core, demand, why) &&
             !short_of_amounts(core, demand, why))
        why->kind = WHY_NO_ONE_FITS;
}

static bool held_for_return(const struct step *step)
{
    unsigned looked_at = 0;

    list_each(link, &step->job->leases)
    {
        const struct lease *lease = container_of(link, struct lease, of_job);

        if (looked_at++ == HELD_LOOKED_AT)
            break;
        if (lease->step == step && lease_active(lease) && !lease->worker->connected)
            return true;
    }
    return false;
}

/* Whether what is tried again found no licence: true of the first that is looked at. */
static bool licence_missing(const struct step *step)
{
    unsigned looked_at = 0;

    list_each(link, &step->job->tasks)
    {
        const struct task *task = container_of(link, struct task, of_job);

        if (looked_at++ == TASKS_LOOKED_AT)
            break;
        if (task->step == step && task->delay == DELAY_BACK_OFF && task->past->n_recent > 0 &&
            task->past->last_class == CLASS_LICENCE)
            return true;
    }
    return false;
}

static bool why_depends(const struct step *step, struct why *why)
{
    for (size_t i = 0; i < step->n_needs; i++) {
        const struct step *other = step->needs[i].step;

        if (other->n[TASK_DONE] + other->n[TASK_LEFT_OUT] == other->n_tasks)
            continue;
        why->kind = WHY_DEPENDS;
        why->step = other->number;
        return true;
    }
    return false;
}

void core_why(const struct core *core, const struct job_id *id, uint32_t number,
              struct why *ret_why)
{
    const struct job *job = job_find(core, id);
    const struct step *step = job && number < job->n_steps ? &job->steps[number] : NULL;

    *ret_why = (struct why){.kind = WHY_NOTHING, .step = number};
    if (!step)
        return;
    if (step->n[TASK_READY] + step->n[TASK_WAITING] > 0 && job->state == JOB_PAUSED)
        ret_why->kind = WHY_PAUSED;
    else if (step->n[TASK_READY] > 0 && job->state == JOB_ACTIVE && job->studio->held)
        ret_why->kind = WHY_QUOTA;
    else if (step->n[TASK_READY] > 0 && job->state == JOB_ACTIVE && !sched_job_open(job)) {
        ret_why->kind = WHY_LIMIT;
        ret_why->workers = job->max_workers;
    } else if (step->n[TASK_READY] > 0)
        why_ready((struct core *)core, step, ret_why); /* plans are made when first asked for */
    else if (step->n[TASK_WAITING] > 0 && bitmap_next(&step->bits[TASK_WAITING], 0) != BITMAP_NONE)
        ret_why->kind = licence_missing(step) ? WHY_LICENCE : WHY_RETRYING;
    else if (step->n[TASK_WAITING] > 0)
        why_depends(step, ret_why);
    else if (held_for_return(step))
        ret_why->kind = WHY_HELD;
}
