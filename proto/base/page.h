/* page.h - a program's table (args.h) as pages: help for a terminal of 80 columns, and the manual
 * page in man(7)'s macros.
 *
 * Errors:  page_help complains and gives the exit code; what standard output does not take is for
 *          the caller to see.
 */
#pragma once

#include <proto/base/args.h>

/* What `help` says of a command or a topic; NULL: of the program; "--man": its manual page. */
int page_help(const struct args_program *program, const char *topic);
