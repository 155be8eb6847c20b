/* outcome.c - one sentence for each way to end. */
#include <worker/outcome.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <proto/base/clock.h>

struct sentence {
    const struct outcome *outcome;
    const char *command; /* without its folder */
    char *text;
};

/* "WHERE COMMAND", then the rest. */
static void _printf_(2, 3) say(const struct sentence *sentence, const char *format, ...)
{
    int n = snprintf(sentence->text, LIMIT_MESSAGE_BYTES, "%.140s%.140s", sentence->outcome->where,
                     sentence->command);
    va_list list;

    va_start(list, format);
    vsnprintf(sentence->text + n, LIMIT_MESSAGE_BYTES - (size_t)n, format, list);
    va_end(list);
}

static enum attempt_class exited(const struct sentence *sentence)
{
    const struct capture_findings *findings = sentence->outcome->findings;
    int status = sentence->outcome->result->exit_status, number = status - 128;
    const char *separator = findings->message[0] ? ": " : "";
    int size = (int)strlen(findings->message);

    if (status == 0)
        return CLASS_OK;
    if (size > 300)
        size = 300;
    while (size > 0 && findings->message[size - 1] == '.')
        size--;
    if (number > 0 && sigabbrev_np(number))
        say(sentence, " was killed by signal %d (%s)%s%.*s: the log says more", number,
            sigdescr_np(number), separator, size, findings->message);
    else
        say(sentence, " exited with %d%s%.*s: the log says more", status, separator, size,
            findings->message);
    return findings->class ? findings->class : CLASS_RENDERER;
}

static enum attempt_class no_command(const struct sentence *sentence)
{
    char *const *environment = sentence->outcome->config->environment;
    int error = sentence->outcome->result->error;
    const char *search = "";

    for (; *environment; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0)
            search = *environment + 5;
    if (error == ENOENT)
        say(sentence, ": not found on this worker (PATH %.200s): install it there, or have the step "
            "require it", search);
    else
        say(sentence, ": cannot be run on this worker: %s: check its permissions and its form",
            strerrordesc_np(error));
    return CLASS_MISSING_INPUT;
}

static enum attempt_class out_of_memory(const struct sentence *sentence)
{
    unsigned long long used_mib = sentence->outcome->result->memory_bytes >> 20;
    unsigned long long limit_mib = sentence->outcome->config->memory_bytes >> 20;

    if (sentence->outcome->result->memory_bytes)
        say(sentence, " used %llu MiB, more than its %llu MiB, and was killed: have the step ask for "
            "more", used_mib, limit_mib);
    else
        say(sentence, " was killed by this worker's kernel, which had no memory left: have the step "
            "ask for more");
    return CLASS_OUT_OF_MEMORY;
}

void outcome_judge(const struct outcome *outcome, enum attempt_class *ret_class,
                   char ret_message[LIMIT_MESSAGE_BYTES])
{
    const char *command = outcome->config->arguments[0], *slash = strrchr(command, '/');
    struct sentence sentence = {outcome, slash ? slash + 1 : command, ret_message};

    ret_message[0] = 0;
    switch (outcome->result->end) {
    case SPAWN_EXITED:
        *ret_class = exited(&sentence);
        return;
    case SPAWN_NO_COMMAND:
        sentence.command = command;
        *ret_class = no_command(&sentence);
        return;
    case SPAWN_STOPPED:
        say(&sentence, " was stopped, as asked");
        *ret_class = CLASS_CANCELLED;
        return;
    case SPAWN_TIMEOUT:
        say(&sentence, " had not ended after %.6g s and was killed: the log says how far it came; give "
            "it a longer timeout", (double)outcome->config->timeout_ns / NS_PER_S);
        *ret_class = CLASS_TIMEOUT;
        return;
    case SPAWN_MEMORY:
        *ret_class = out_of_memory(&sentence);
        return;
    case SPAWN_LOST:
        say(&sentence, " was killed from outside: look at this worker's system log");
        *ret_class = CLASS_RENDERER;
        return;
    }
}
