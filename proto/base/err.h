/* err.h - how a call says what happened, and who cleans up.
 *
 * 0 is done. Negative is fatal for the operation, an errno, and is forwarded unchanged. Positive
 * is documented by the callee and handled by the caller. The core has typed refusals only.
 */
#pragma once

#include <stddef.h>

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _unused_            __attribute__((unused))
#define _noreturn_          __attribute__((noreturn))
#define _printf_(string, first) __attribute__((__format__(__printf__, string, first)))
#define _public_            __attribute__((visibility("default")))

/* Hand over an owned pointer: the variable no longer owns it. */
#define TAKE_PTR(pointer)                                                                          \
    ({                                                                                             \
        __typeof__(pointer) *take_ptr_ = &(pointer);                                               \
        __typeof__(pointer) took_ptr_ = *take_ptr_;                                                \
        *take_ptr_ = NULL;                                                                         \
        took_ptr_;                                                                                 \
    })

#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int *take_fd_ = &(fd);                                                                     \
        int took_fd_ = *take_fd_;                                                                  \
        *take_fd_ = -1;                                                                            \
        took_fd_;                                                                                  \
    })

/* Defines NAMEp for _cleanup_: calls `function` on the pointer held by a variable. */
#define DEFINE_CLEANUP(type, function)                                                             \
    static inline void function##p(type *variable)                                                 \
    {                                                                                              \
        if (*variable)                                                                             \
            function(*variable);                                                                   \
    }

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

void freep(void *pointer_to_pointer); /* _cleanup_(freep) char *text */
void closep(int *fd);                 /* _cleanup_(closep) int fd = -1 */
