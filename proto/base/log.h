/* log.h - one line of key=value on standard error, for the edges of a program only.
 *
 * Form:    2026-11-24T03:16:19.123Z level event key=value key="two words"
 * Levels:  error, warn, info, debug; log_level_set drops those above it.
 * Limits:  log_limited prints at most one line a second for each call site and says how many it
 *          held back.
 */
#pragma once

#include <proto/base/err.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_level_set(enum log_level level);
int log_level_parse(const char *text, enum log_level *ret_level); /* -EINVAL */
/* `event` is one word; `format` the key=value part, which the caller writes. */
void log_line(enum log_level level, const char *event, const char *format, ...) _printf_(3, 4);

struct log_limit {
    long long last_ns;
    unsigned held;
};
/* True when the line may be printed now; *ret_held is how many were held back before it. */
int log_limit_pass(struct log_limit *limit, unsigned *ret_held);

#define log_error(event, ...) log_line(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_line(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_line(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_DEBUG, event, __VA_ARGS__)
#define log_limited(level, event, format, ...)                                                     \
    do {                                                                                           \
        static struct log_limit limit_;                                                            \
        unsigned held_;                                                                            \
        if (log_limit_pass(&limit_, &held_))                                                       \
            log_line(level, event, format " held=%u" __VA_OPT__(, ) __VA_ARGS__, held_);           \
    } while (0)
