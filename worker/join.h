/* join.h - a worker's way into a farm (`westlight-worker join`), and what it keeps of it in its state
 * folder: `key`, its own, and `farm`, where the broker is and how it is known.
 *
 * Errors:  join_command: the exit code. join_farm_load: -errno; JOIN_FARM_E_FORM with `why`.
 * Source:  README.md "Joining".
 */
#pragma once

#include <stddef.h>
#include <proto/base/args.h>
#include <proto/token.h>

enum { JOIN_FARM_E_FORM = 1 };

struct join_farm {
    char broker[TOKEN_ENDPOINT_BYTES], server_key[IDENTITY_Z85_SIZE];
};

extern const struct args_option join_options[];
int join_command(int argc, char **argv);
/* -ENOENT: it has joined none. */
int join_farm_load(const char *state, struct join_farm *ret_farm, char *why, size_t why_size);
