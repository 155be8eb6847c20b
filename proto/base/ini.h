/* ini.h - settings in sections, as a person writes them in a file:
 *
 *     # a comment, as is a line that begins with ;
 *     name = value
 *     [section]
 *     name = value
 *
 * Shape:   one line at a time, in order; blanks around names and values are dropped, a CR at the
 *          end of a line too. What sections and settings mean is the caller's.
 * Owns:    the text stays the caller's, and is cut up by reading it.
 * Errors:  INI_E_FORM: `why` is "path:line: the reason, and what to write". A callback's answer
 *          that is not 0 ends the reading and is forwarded; ini_fail makes one.
 */
#pragma once

#include <stddef.h>
#include <proto/base/err.h>

enum { INI_E_FORM = 1 };

struct ini {
    const char *path;                               /* as messages name it */
    int (*on_section)(struct ini *ini, char *head); /* what stands between [ and ] */
    int (*on_setting)(struct ini *ini, char *name, char *value);
    void *user;
    char *why;
    size_t why_size;
    unsigned line;
};

int ini_read(struct ini *ini, char *text);
/* Says what is wrong with the line being read; INI_E_FORM. */
int ini_fail(struct ini *ini, const char *format, ...) _printf_(2, 3);
/* Without the blanks around it. */
char *ini_trim(char *text);
