/* command.h - the commands beside `run`: they change the registry of keys, also while a broker runs
 * on the same state.
 *
 * Errors:  an exit status: 0, 1 failed, 2 usage; the sentence is on standard error.
 */
#pragma once

int command_allow(int argc, char **argv);
int command_forbid(int argc, char **argv);
int command_key(int argc, char **argv);
