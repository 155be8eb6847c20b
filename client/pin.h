/* pin.h - the version that renders a job, chosen from what the farm offers and said aloud.
 *
 * Errors:  the exit code, after complaining.
 */
#pragma once

#include <client/local.h>
#include <client/preset.h>

#define PIN_TEXT 320

struct pin {
    struct westlight *westlight;
    struct local *local; /* a private farm that has just been started; NULL */
    const struct options *options;
    const struct preset *preset;
    const struct preset_facts *facts;
};
/* ret_text: "blender 3.4.1"; "" where nothing was pinned. */
int pin_version(const struct pin *pin, struct westlight_job *job, char ret_text[PIN_TEXT]);
