/* warden_inner.h - what the worker and a warden's process say to each other, on a SOCK_SEQPACKET pair.
 *
 * To the warden: 'T' or 'K', one byte; or a request with the descriptor of the action's output, and
 * behind it the action's strings, each ended by a 0: path, folder, arguments, environment. What does
 * not fit the first message follows in further ones. To the worker: struct warden_report.
 */
#pragma once

#include <sys/resource.h>
#include <worker/warden.h>

#define WARDEN_PART_BYTES (60 * 1024) /* of strings in a message: within any socket's buffer */

struct warden_request {
    char letter; /* 'A' */
    uint32_t bytes; /* of strings */
    uint32_t n_arguments, n_environment;
};

/* The process. `hold`: kept open, or -1. `files`: the limit of open files that actions get; rlim_max
 * 0: as it is. */
_noreturn_ void warden_main(int link, int hold, const struct rlimit *files);
