/* inspect.h - a task's pictures looked at before its result counts.
 *
 * The idea: what a stranger's renderer wrote is read by libraries of formats, so it is read in a
 * process of its own, with limits (`westlight-worker inspect FILE...`). One that dies of a picture
 * has told which: the first that it said nothing of.
 *
 * Shape:   files that are no pictures by name, and links, are left alone. It takes moments and is
 *          not stopped: what a task made is worth keeping.
 * Errors:  -errno; INSPECT_E_BAD where the result must not count, and the message says why. On 0
 *          the message is a warning, or "".
 */
#pragma once

#include <proto/base/bytes.h>
#include <proto/limits.h>
#include <proto/manifest.h>
#include <proto/westlight.pb-c.h>

enum { INSPECT_E_BAD = 1 };

struct inspect_config {
    const Wl__Expect *expect;
    uint64_t frames; /* that the task renders */
    const char *const *folders;
    const struct manifest_file *files;
    size_t n_files;
    const char *program; /* NULL: in this process */
    struct bytes *log;   /* gets a line for each picture that is not as it should be */
};

int inspect_result(const struct inspect_config *config, char ret_message[LIMIT_MESSAGE_BYTES]);
/* The command: a line for each file. argv[0] is not looked at. */
int inspect_command(int argc, char **argv);
