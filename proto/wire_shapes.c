/* wire_shapes.c - the shapes that travel, from protobuf to C and back. Lengths were checked by
 * wire_unpack; a shape built elsewhere is refused here rather than read past its end.
 */
#include <proto/wire.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <proto/limits.h>

int wire_lease(const Wl__Lease *message, struct lease *ret_lease)
{
    if (!message || message->job.len != sizeof(ret_lease->job))
        return WIRE_E_FORM;

    memcpy(ret_lease->job, message->job.data, sizeof(ret_lease->job));
    ret_lease->step = message->step;
    ret_lease->task = message->task;
    ret_lease->floor = message->floor;
    ret_lease->epoch = message->epoch;
    ret_lease->attempt = message->attempt;
    return 0;
}

void wire_lease_set(Wl__Lease *message, struct lease *lease)
{
    wl__lease__init(message);
    message->job = (ProtobufCBinaryData){sizeof(lease->job), lease->job};
    message->step = lease->step;
    message->task = lease->task;
    message->floor = lease->floor;
    message->epoch = lease->epoch;
    message->attempt = lease->attempt;
}

static int space_add(struct space *space, const Wl__SpaceParameter *parameter)
{
    _cleanup_(freep) struct space_range *ranges = NULL;

    if (parameter->type == SPACE_STRING || parameter->type == SPACE_PATH ||
        parameter->type == SPACE_FLOAT)
        return space_add_texts(space, parameter->name, parameter->factor,
                               (enum space_type)parameter->type,
                               (const char *const *)parameter->texts, parameter->n_texts);
    if (parameter->type != SPACE_INT)
        return SPACE_E_RANGE;
    if (parameter->n_ranges > LIMIT_SPACE_RANGES)
        return SPACE_E_LIMIT;

    ranges = calloc(parameter->n_ranges + 1, sizeof(*ranges));
    if (!ranges)
        return -ENOMEM;
    for (size_t i = 0; i < parameter->n_ranges; i++) {
        const Wl__Range *range = parameter->ranges[i];

        if (range->step == 0 || range->step > INT64_MAX)
            return SPACE_E_RANGE;
        ranges[i] = (struct space_range){range->first, range->last, (int64_t)range->step};
    }
    return space_add_ints(space, parameter->name, parameter->factor,
                          parameter->chunk ? parameter->chunk : 1, parameter->contiguous, ranges,
                          parameter->n_ranges);
}

int wire_space(Wl__SpaceParameter *const *parameters, size_t n, struct space *ret_space)
{
    struct space space;
    int r = 0;

    space_init(&space);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = space_add(&space, parameters[i]);
    if (r == 0)
        r = space_seal(&space);
    if (r) {
        space_deinit(&space);
        return r;
    }

    *ret_space = space;
    return 0;
}

int wire_space_set(const struct space *space, Wl__SpaceParameter ***ret_parameters, size_t *ret_n)
{
    size_t n = space->n_parameters, n_ranges = 0;
    for (size_t i = 0; i < n; i++)
        n_ranges += space->parameters[i].n_ranges;

    /* Pointers first: all parts are then aligned. */
    char *memory = calloc(1, 1 + n * (sizeof(void *) + sizeof(Wl__SpaceParameter)) +
                                 n_ranges * (sizeof(void *) + sizeof(Wl__Range)));
    if (!memory)
        return -ENOMEM;
    Wl__SpaceParameter **pointers = (Wl__SpaceParameter **)memory;
    Wl__Range **range_pointers = (Wl__Range **)(pointers + n);
    Wl__SpaceParameter *parameters = (Wl__SpaceParameter *)(range_pointers + n_ranges);
    Wl__Range *ranges = (Wl__Range *)(parameters + n);

    for (size_t i = 0; i < n; i++) {
        const struct space_parameter *from = &space->parameters[i];
        Wl__SpaceParameter *to = pointers[i] = &parameters[i];

        wl__space_parameter__init(to);
        to->name = from->name;
        to->type = from->type;
        to->factor = from->factor;
        to->chunk = from->chunk;
        to->contiguous = from->contiguous;
        to->n_texts = from->n_texts;
        to->texts = from->texts;
        to->n_ranges = from->n_ranges;
        to->ranges = range_pointers;
        for (size_t k = 0; k < from->n_ranges; k++) {
            wl__range__init(ranges);
            ranges->first = from->ranges[k].first;
            ranges->last = from->ranges[k].last;
            ranges->step = (uint64_t)from->ranges[k].step;
            *range_pointers++ = ranges++;
        }
    }
    *ret_parameters = pointers;
    *ret_n = n;
    return 0;
}

int wire_block_key(const Wl__BlockKey *message, struct block_key *ret_key)
{
    if (!message || message->id.len != 32 || message->key.len != 32)
        return WIRE_E_FORM;

    memcpy(ret_key->id.bytes, message->id.data, 32);
    memcpy(ret_key->key, message->key.data, 32);
    ret_key->sealed_bytes = message->sealed_bytes;
    ret_key->body_bytes = message->body_bytes;
    return 0;
}

void wire_block_key_set(Wl__BlockKey *message, struct block_key *key)
{
    wl__block_key__init(message);
    message->id = (ProtobufCBinaryData){32, key->id.bytes};
    message->key = (ProtobufCBinaryData){32, key->key};
    message->sealed_bytes = key->sealed_bytes;
    message->body_bytes = key->body_bytes;
}

int wire_block_ref(struct sealer *sealer, const uint8_t secret[32], const Wl__BlockRef *message,
                   struct block_key *ret_key)
{
    if (!message || message->id.len != 32 || message->wrapped_key.len != 32)
        return WIRE_E_FORM;

    memcpy(ret_key->id.bytes, message->id.data, 32);
    seal_wrap_key(sealer, secret, &ret_key->id, message->wrapped_key.data, ret_key->key);
    ret_key->sealed_bytes = message->sealed_bytes;
    ret_key->body_bytes = 0; /* a reference in clear does not tell */
    return 0;
}

void wire_block_ref_set(struct sealer *sealer, const uint8_t secret[32], struct block_key *key,
                        uint8_t wrapped[32], Wl__BlockRef *ret_message)
{
    seal_wrap_key(sealer, secret, &key->id, key->key, wrapped);
    wl__block_ref__init(ret_message);
    ret_message->id = (ProtobufCBinaryData){32, key->id.bytes};
    ret_message->wrapped_key = (ProtobufCBinaryData){32, wrapped};
    ret_message->sealed_bytes = key->sealed_bytes;
}
