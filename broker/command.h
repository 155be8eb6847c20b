/* command.h - the commands beside `run`: they change the registry of keys, also while a broker runs
 * on the same state.
 *
 * Errors:  an exit status: 0, 1 failed, 2 usage; the sentence is on standard error.
 */
#pragma once

#include <proto/base/args.h>

/* The table stands in main.c, with `run`. */
extern const struct args_option command_state_options[], command_allow_options[],
    command_studio_options[];
#define COMMAND_KEY_TEXT "KEY is a public key, or the path of a key file."

/* Reads a command's options, and complains of those that are not there. */
int command_args(const struct args_option *rows, int argc, char **argv, args_take *take, void *user,
                 int *ret_word);

int command_allow(int argc, char **argv);
int command_studio(int argc, char **argv);
int command_forbid(int argc, char **argv);
int command_key(int argc, char **argv);
