/* engine.c - lends mutate.c to libFuzzer: half of its mutants are made by fields, and what it puts
 * together of two inputs is.
 */
#include <string.h>
#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data, size_t size, const uint8_t *other,
                                 size_t other_size, uint8_t *out, size_t max_size, unsigned seed);

size_t LLVMFuzzerCustomCrossOver(const uint8_t *data, size_t size, const uint8_t *other,
                                 size_t other_size, uint8_t *out, size_t max_size, unsigned seed)
{
    uint8_t made[FUZZ_INPUT_BYTES];
    struct fuzz_random random = {seed};

    size = size < sizeof(made) ? size : sizeof(made);
    memcpy(made, data, size);
    size = fuzz_mutate(&random, made, size, other, other_size);
    size = size < max_size ? size : max_size;
    memcpy(out, made, size);
    return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return seed % 2 ? LLVMFuzzerMutate(data, size, max_size)
                    : LLVMFuzzerCustomCrossOver(data, size, data, size, data, max_size, seed);
}
