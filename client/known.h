/* known.h - what the files of earlier submissions held, so that a project that has not changed is
 * not read again: a cache, in the state folder, that may be removed at any time.
 *
 * Shape:   a database for all projects of this person: by a print of a file's look (manifest.h) the
 *          keys of its blocks. A row that was not of use for KNOWN_DAYS goes.
 *          Several submissions may write side by side; what was sent is kept now and then.
 * Owns:    the connection; known_close. It belongs to one thread at a time.
 * Errors:  none: where it cannot be had or is damaged, nothing is known. A row is believed only with
 *          its MAC under the studio's secret.
 */
#pragma once

#include <proto/manifest.h>

#define KNOWN_DAYS 90

struct known;
struct known *known_open(const uint8_t secret[32]); /* NULL: none */
/* What was told is kept; without `sent` (to the farm, all of it) the newest is not. */
void known_close(struct known *known, bool sent);
/* Manifest's side of it; good until known_close. */
const struct manifest_known *known_of(struct known *known);
