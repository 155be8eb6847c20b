/* planted.c - a fault that one bad input in very many has, so that the driver is seen to find one:
 * it lies behind the reading of a message, in a message in it.
 */
#include <proto/base/check.h>
#include <proto/wire.h>
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Wl__Envelope *envelope;
    const char *why;

    if (wire_unpack(data, size, &envelope, &why) != 0)
        return 0;
    if (envelope->body_case == WL__ENVELOPE__BODY_VERB)
        CHECK(envelope->verb->n_tasks < 2 || envelope->verb->tasks[1]->last <= UINT32_MAX);
    wire_free(envelope);
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    struct fuzz_buffer message;

    fuzz_message(&wl__envelope__descriptor, WL__ENVELOPE__BODY_VERB, &message);
    add("verb", message.data, message.size);
}
