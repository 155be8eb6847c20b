/* printable.h - text of others on its way to a terminal: a file's name, a job's, a worker's
 * message. What a terminal would obey instead of showing is written as what it is: \x1b.
 *
 * Owns:    nothing.
 * Errors:  none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* How many bytes the UTF-8 character at `at` has; 0 where it is none. */
size_t printable_size(const unsigned char *at);
/* The caller's to free. Lines and tabs stay, and all of UTF-8 but control characters. */
char *printable_text(const char *text);
/* Text that comes piece by piece, a character's bytes perhaps in two of them; carriage returns
 * stay, for bars of progress. *lead is false at first. What fwrite says is in ferror. */
void printable_stream(FILE *stream, const char *text, size_t size, bool *lead);
