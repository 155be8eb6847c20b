/* say.h - what a person is told while a command works: lines, complaints, and a bar below them.
 *
 * The idea: the bar is the terminal's last line. Whatever else is said goes above it, and it is
 * drawn anew at once. A new bar is written over the old one, which is not wiped first: nothing
 * flickers.
 *
 * Shape:   one terminal; any thread. Where there is no terminal: plain lines as they are, no bar.
 * On one, a line too long for it breaks between words; what stands in '...' and a command to copy
 *          (": westlight ...", up to ';' or ',') are kept whole.
 * Errors:  nothing that is said can fail.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A line on standard output. complain (options.h) is its like on standard error. */
void say(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));
/* As printf: of tables, while there is no bar. As all that is said, it is printable (printable.h). */
void say_part(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));
/* The bar: done of total, and a text behind it. Cut where the terminal is too narrow. False where
 * there is no terminal. */
bool say_bar(uint64_t done, uint64_t total, const char *text);
/* Before the last words. */
void say_bar_end(void);
