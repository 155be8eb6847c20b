/* log.c - one line, one write(2): lines of several threads never mix. A line that does not fit
 * ends in "..." and control characters become '?', so that nobody can forge a second line. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>

#define LOG_LINE_BYTES 2048

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

static atomic_int log_level_now = LOG_INFO;

void log_level_set(enum log_level level)
{
    atomic_store(&log_level_now, (int)level);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
        if (!strcmp(text, level_names[i])) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* The length of what is in a buffer of `room` bytes after a print that needed `needed`. */
static size_t printed(int needed, size_t room)
{
    if (needed < 0)
        return 0;
    return (size_t)needed < room ? (size_t)needed : room - 1;
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
    char line[LOG_LINE_BYTES], stamp[32];
    size_t room = sizeof(line) - 4, size; /* "...\n" always fits behind */
    int64_t wall_ns;
    va_list arguments;
    int needed;

    if ((int)level > atomic_load(&log_level_now))
        return;
    wall_ns = clock_wall_ns();
    clock_format(wall_ns, stamp);
    size = printed(snprintf(line, room, "%.19s.%03dZ %s %s ", stamp,
                            (int)(wall_ns % NS_PER_S / NS_PER_MS), level_names[level], event), room);

    va_start(arguments, format);
    needed = vsnprintf(line + size, room - size, format, arguments);
    va_end(arguments);
    if (needed >= 0 && (size_t)needed >= room - size) {
        size = room - 1;
        memcpy(line + size, "...", 3);
        size += 3;
    } else {
        size += printed(needed, room - size);
    }

    for (size_t i = 0; i < size; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 127)
            line[i] = '?';
    line[size++] = '\n';
    if (write(STDERR_FILENO, line, size) < 0)
        return; /* there is nowhere left to say so */
}

/* Call sites are shared by threads; a log line is rare enough for one lock. */
int log_limit_pass(struct log_limit *limit, unsigned *ret_held)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    long long now_ns = clock_monotonic_ns();
    int pass;

    pthread_mutex_lock(&lock);
    pass = limit->last_ns == 0 || now_ns - limit->last_ns >= NS_PER_S;
    if (pass) {
        *ret_held = limit->held;
        limit->last_ns = now_ns;
        limit->held = 0;
    } else {
        limit->held++;
    }
    pthread_mutex_unlock(&lock);
    return pass;
}
