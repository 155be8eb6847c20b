/* gateway.h - the farm on which each input of target gateway begins; what its valid inputs name.
 */
#pragma once

#include <proto/seal.h>
#include <proto/westlight.pb-c.h>

/* Who says a part of an input. */
enum { ANN = 1, BOB, OPS, BOX1, BOX2, STRANGER, WHO_END };

/* Of every farm: the first lease, which is BOX1's; what the vault has, which is in `refs`. */
struct gateway_farm {
    const Wl__Assign *assign;
    struct block_id block, refs;
};
void gateway_farm_look(void (*look)(void *user, const struct gateway_farm *farm), void *user);
