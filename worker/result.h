/* result.h - what an attempt left, made into a Result in the spool.
 *
 * Shape:   file blocks, the manifest and the log are sealed into the spool; small manifests and
 *          logs ride inside the Result. Refs blocks name all the rest.
 * Errors:  none come back: what cannot be sealed or kept becomes a Result of class TRANSFER.
 */
#pragma once

#include <worker/collect.h>
#include <worker/session.h>
#include <worker/stage.h>
#include <worker/task.h>

struct outcome {
    enum attempt_class class;
    int exit_status;
    char message[LIMIT_MESSAGE_BYTES];
    uint64_t wall_ns, cpu_ns, memory_bytes, bytes_in, card_ns;
    int64_t started_wall_s, ended_wall_s;
};

/* `collect` is NULL where nothing ran. `log` gets the notes of collecting and inspecting, too. */
void result_make(struct task *task, struct sealer *sealer, struct outcome *outcome,
                 struct collect *collect, const struct stage *stage, struct bytes *log);
/* Replaces the result that is held by a failure without blocks; -ENOMEM where not even that. */
int result_fail(struct task *task, enum attempt_class class, const char *message);
