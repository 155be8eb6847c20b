/* check.c - says which invariant broke and stops. write(2) and abort only, so that it works in any
 * thread and with a broken heap. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <proto/base/check.h>

void check_failed(const char *what, const char *file, int line)
{
    char text[512];
    int size = snprintf(text, sizeof(text), "check failed: %s (%s:%d)\n", what, file, line);

    if (size > (int)sizeof(text) - 1)
        size = (int)sizeof(text) - 1;
    if (size > 0 && write(STDERR_FILENO, text, (size_t)size) < 0)
        abort();
    abort();
}
