/* outcome.h - how an action ended, as the class of the attempt and a sentence for a person.
 *
 * The sentence names the thing, the reason and the next step.
 * Errors:  none. CLASS_OK leaves the message empty.
 */
#pragma once

#include <worker/capture.h>
#include <worker/spawn.h>

struct outcome {
    const char *where; /* "" or "environment NAME: " */
    const struct spawn_config *config; /* as it was run */
    const struct spawn_result *result;
    const struct capture_findings *findings;
};

void outcome_judge(const struct outcome *outcome, enum attempt_class *ret_class,
                   char ret_message[LIMIT_MESSAGE_BYTES]);
