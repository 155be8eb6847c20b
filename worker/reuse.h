/* reuse.h - folders that are empty again and wait for their next use. To make and remove one takes
 * longer than a short task does, on many a file system.
 *
 * Shape:   at most REUSE_MAX; each under a key, whose owner knows what it looks like inside.
 * Threads: any.
 * Owns:    the paths it was given, and what is known of each; the folders stay until reuse_remove.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <proto/base/err.h>
#include <worker/still.h>

#define REUSE_MAX       64
#define REUSE_KEY_BYTES 20

struct reuse;
int reuse_new(struct reuse **ret_reuse);
void reuse_free(struct reuse *reuse);
/* One of that key, which is the caller's, as what is known of it is (NULL: nobody asks); NULL: there
 * is none. */
char *reuse_take(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES], struct still **ret_still);
/* Takes over both; where it has enough, the oldest is removed. */
void reuse_give(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES], char *path,
                struct still *still);
size_t reuse_count(struct reuse *reuse, const uint8_t key[REUSE_KEY_BYTES]);
/* All but those of the key `keep` (NULL: all), also from disk. */
void reuse_remove(struct reuse *reuse, const uint8_t *keep);
