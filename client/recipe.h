/* recipe.h - a job's key, and the sealed recipe that it opens.
 *
 * Owns:    what recipe_open returns is freed with wl__recipe__free_unpacked; a sealed recipe with
 *          recipe_sealed_deinit, and its ref points into it.
 * Errors:  WESTLIGHT_E_*, -errno, with westlight_why.
 * Source:  ../proto/westlight.proto, Recipe; README.md "Sealed blocks".
 */
#pragma once

#include <client/blocks.h>

struct recipe_sealed {
    struct bytes sealed;
    struct block_key key;
    uint8_t wrapped[32];
    Wl__BlockRef ref; /* inline where the recipe is small; else its block is to be put */
};

/* The studio's own copy of a job's key. A convenience: the broker gives the key back as well; so it
 * is not synced, and may fail. */
void recipe_keep_key(struct westlight *westlight, const char *id, const uint8_t job_key[32]);
/* The job's key, from the broker's answer or the studio's own copy. */
int recipe_key(struct westlight *westlight, const Wl__Show *show, const char *id,
               uint8_t ret_key[32]);

int recipe_open(struct blocks *blocks, const char *id, const uint8_t job_key[32],
                const Wl__BlockRef *ref, Wl__Recipe **ret_recipe);
int recipe_seal(struct westlight *westlight, const uint8_t job_key[32], const Wl__Recipe *recipe,
                struct recipe_sealed *ret_sealed);
void recipe_sealed_deinit(struct recipe_sealed *sealed);
/* Where it is not inline: to the vault, with a refs block that names it. */
int recipe_put(struct blocks *blocks, struct recipe_sealed *sealed, struct block_id *ret_refs,
               bool *ret_has_refs);
/* The request id of a submission: the same body gets the same one, another body another. */
void recipe_request(const struct recipe_sealed *sealed, const uint8_t job_key[32],
                    uint8_t ret_request[16]);
