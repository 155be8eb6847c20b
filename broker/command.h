/* command.h - the commands beside `run`: they change the registry of keys, also while a broker runs
 * on the same state.
 *
 * Errors:  an exit status: 0, 1 failed, 2 usage; the sentence is on standard error.
 */
#pragma once

#include <broker/store/store.h>
#include <proto/base/args.h>

/* The table stands in main.c, with `run`. */
extern const struct args_option command_state_options[], command_allow_options[],
    command_studio_options[], command_token_options[];
#define COMMAND_KEY_TEXT "KEY is a public key, or the path of a key file."

/* Reads a command's options, and complains of those that are not there. */
int command_args(const struct args_option *rows, int argc, char **argv, args_take *take, void *user,
                 int *ret_word);

/* What commands complain with, and read: 0, or the exit status. */
int command_usage(const char *what, const char *why, const char *next);
int command_failed(const struct bytes *why);
int command_state_exists(const char *state);
int command_copy_name(const char *option, const char *text, char name[LIMIT_NAME_BYTES + 1]);
int command_role_parse(const char *text, const char *studio, enum role *ret_role);
int command_key_parse(const char *text, struct worker_key *ret_key); /* or a key file's */

int command_allow(int argc, char **argv);
int command_studio(int argc, char **argv);
int command_forbid(int argc, char **argv);
int command_key(int argc, char **argv);
int command_token(int argc, char **argv);
int command_keys(int argc, char **argv);
