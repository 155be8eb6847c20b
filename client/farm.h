/* farm.h - where a person's files lie, and their keys from the farm's section.
 *
 * Source:  XDG Base Directory Specification; westlight.h "farms".
 */
#pragma once

#include <client/westlight.h>
#include <proto/link.h>

/* "$XDG_STATE_HOME/westlight/FOLDER", made where missing, 0700. -errno. */
int farm_state_folder(const char *folder, char *ret_path, size_t size);
/* WESTLIGHT_E_USAGE with a sentence in `why`. A farm without a readable secret is fine for looking:
 * *ret_has_secret is false. */
int farm_keys(const struct westlight_farm *farm, struct link_keypair *ret_keys,
              struct link_key *ret_server, uint8_t ret_secret[32], bool *ret_has_secret, char *why,
              size_t why_size);
