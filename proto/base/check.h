/* check.h - our own bugs stop the program, in release builds too.
 *
 * CHECK is for what only a bug of ours can break; a peer's bad message is refused, not checked.
 * The core uses this header; check_failed is the one symbol outside the C library it needs.
 */
#pragma once

__attribute__((noreturn, cold)) void check_failed(const char *what, const char *file, int line);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            check_failed(#condition, __FILE__, __LINE__);                                          \
    } while (0)
