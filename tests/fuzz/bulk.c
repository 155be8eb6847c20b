/* bulk.c - the header of a bulk message. */
#include <proto/base/check.h>
#include <proto/wire.h>
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Wl__Bulk *bulk;
    const char *why = NULL;

    if (wire_bulk_unpack(data, size, &bulk, &why) != 0) {
        CHECK(why && why[0]);
        return 0;
    }
    wl__bulk__free_unpacked(bulk, NULL);
    return 0;
}

void fuzz_seeds(fuzz_add *add)
{
    const ProtobufCMessageDescriptor *bulk = &wl__bulk__descriptor;
    struct fuzz_buffer message;

    for (unsigned i = 0; i < bulk->n_fields; i++)
        if (bulk->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            fuzz_message(bulk, bulk->fields[i].id, &message);
            add(bulk->fields[i].name, message.data, message.size);
        }
}
