/* What leaves a step: a record is applied as it is put out, so that live and recovery are one path;
 * an effect remembers how many records are ahead of it.
 */
#include <broker/core/inner.h>

void outbox_init(struct outbox *outbox)
{
    *outbox = (struct outbox){0};
}

void outbox_clear(struct outbox *outbox)
{
    outbox->n_records = 0;
    outbox->n_effects = 0;
}

void outbox_deinit(struct outbox *outbox)
{
    free(outbox->records);
    free(outbox->effects);
    free(outbox->effects_after);
    outbox_init(outbox);
}

void core_emit(struct core *core, struct record *record)
{
    struct outbox *outbox = core->outbox;

    record->sequence = core->sequence + 1;
    record->wall_s = core->wall_s;
    MEMORY_GROW(outbox->records, outbox->n_records, outbox->records_capacity);
    outbox->records[outbox->n_records++] = *record;
    apply_record(core, record);
}

struct effect *core_effect(struct core *core, enum effect_kind kind)
{
    struct outbox *outbox = core->outbox;

    if (outbox->n_effects == outbox->effects_capacity) {
        size_t capacity = outbox->effects_capacity ? 2 * outbox->effects_capacity : 16;

        outbox->effects = memory_array(outbox->effects, capacity, sizeof(*outbox->effects));
        outbox->effects_after = memory_array(outbox->effects_after, capacity, sizeof(size_t));
        outbox->effects_capacity = capacity;
    }
    outbox->effects_after[outbox->n_effects] = outbox->n_records;
    struct effect *effect = &outbox->effects[outbox->n_effects++];

    *effect = (struct effect){.kind = kind};
    return effect;
}

struct effect *core_effect_lease(struct core *core, enum effect_kind kind,
                                 const struct worker *worker, const struct lease_id *lease,
                                 enum code code)
{
    struct effect *effect = core_effect(core, kind);

    effect->worker = worker->id;
    effect->lease = *lease;
    effect->code = code;
    return effect;
}
