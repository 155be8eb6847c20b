/* fuzz.h - what a target is: a file with LLVMFuzzerTestOneInput for bytes of one kind from outside,
 * and with fuzz_seeds, which makes inputs of that kind as they should be.
 *
 * The idea: an input of several parts is written as protobuf is (field, length, bytes), whatever the
 * parts are. So one kind of mutation takes any input apart, and the lengths stay right.
 *
 * Shape:   driver.c runs a target, mutate.c changes its inputs, schema.c makes messages; libFuzzer
 *          takes the place of the driver where there is clang (engine.c).
 * Errors:  a target dies of what is wrong: a CHECK, a sanitiser, a signal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#define FUZZ_INPUT_BYTES (16 * 1024) /* past any limit of one part, well below those of a message */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef void fuzz_add(const char *name, const void *data, size_t size);
void fuzz_seeds(fuzz_add *add);

/* A copy of exactly that size, so that a read past it is seen; and one that a NUL ends. Freed by the
 * caller. */
void *fuzz_copy(const void *data, size_t size);
char *fuzz_text(const void *data, size_t size);
/* A new folder, in memory where there is one that is: many small files are written. Gone at exit. */
const char *fuzz_folder(void);

/* ---- inputs of several parts ---- */

struct fuzz_part {
    uint32_t number;
    uint64_t value; /* of one that is a number; else data */
    const uint8_t *data;
    size_t size; /* data NULL: 0 */
};
/* The next of *data; false at the end, and where there is none. */
bool fuzz_next(const uint8_t **data, size_t *size, struct fuzz_part *ret_part);

struct fuzz_buffer {
    size_t size;
    uint8_t data[FUZZ_INPUT_BYTES];
};
/* What has no room is left out. */
void fuzz_put(struct fuzz_buffer *buffer, uint32_t number, const void *data, size_t size);
void fuzz_put_number(struct fuzz_buffer *buffer, uint32_t number, uint64_t value);

/* ---- messages ---- */

/* Any message of the schema: every field has a value, its bytes the right length. Of an envelope the
 * body `body` (0: any). */
void fuzz_message(const ProtobufCMessageDescriptor *descriptor, unsigned body,
                  struct fuzz_buffer *ret_message);

/* ---- mutation ---- */

struct fuzz_random {
    uint64_t state;
};
uint32_t fuzz_draw(struct fuzz_random *random, uint32_t below);
/* Changes `data` in its place of FUZZ_INPUT_BYTES; `other` is an input to take pieces from. */
size_t fuzz_mutate(struct fuzz_random *random, uint8_t *data, size_t size, const uint8_t *other,
                   size_t other_size);
