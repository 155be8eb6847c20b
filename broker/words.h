/* words.h - the core's numbers as sentences for a person: name, reason, next step.
 *
 * Owns:    nothing; texts are written to the caller's, cut at its size.
 */
#pragma once

#include <broker/core/core.h>

/* Why a step's tasks wait; "" where they do not. `about`: of WHY_DEPENDS the name of why->step, of
 * WHY_QUOTA what quota_why says. */
void words_why(const struct why *why, const char *about, char *text, size_t size);
/* What a worker is at, in a word or two. */
const char *words_worker(const struct worker_view *view);
/* Why the job is paused, or begins nothing more; "" */
const char *words_reason(const struct job_view *view);
/* What a verb did. */
void words_done(enum verb_kind verb, uint64_t tasks, char *text, size_t size);
