/* args.h - what a program can be told, as one table: commands, their options, topics of its help.
 *
 * The idea: the command line is read by this table, and help, the manual page (page.h) and a
 * shell's completion are printed from it, so that no second list can fall behind.
 *
 * Shape:   constant tables; a list of options ends with a row of zeros.
 * Text:    one line is a paragraph, broken where it is printed. One that begins with a space is
 *          printed as it is; a tab parts a term from what it means; an empty one parts blocks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/bytes.h>

enum {
    ARGS_USAGE = 2, /* the exit code of every program for what it cannot make sense of */
    ARGS_WHY_BYTES = 1024,
    ARGS_OPTIONS_MAX = 64, /* of one command */
};

struct args_option {
    int id;                      /* a letter is the short form as well */
    const char *name, *argument; /* no argument: NULL */
    const char *help;
};

struct args_command {
    const char *name;                  /* "": the program itself */
    int (*run)(int argc, char **argv); /* argv[0] is its name; the answer is the exit code */
    const char *words;                 /* what is written beside options: "FILE..." */
    const char *summary;
    const struct args_option *options; /* NULL: none */
    const char *text, *examples;       /* NULL: none */
};

struct args_topic {
    const char *name, *title, *summary;
    const char *text;
    int (*write)(struct bytes *ret_text); /* where it is not constant */
};

struct args_program {
    const char *name, *section, *summary, *text;
    const struct args_command *commands;
    size_t n_commands;
    const struct args_topic *topics;
    size_t n_topics;
    const char *see_also; /* as a manual page says it */
    bool first;           /* the first command is the one that runs where none is named */
    void (*complain)(const char *format, ...) _printf_(1, 2); /* NULL: a line "NAME: ..." */
};

/* Help, --help, --version, help --man, or the command that is named; what a mistyped one may have
 * meant. The exit code. */
int args_main(const struct args_program *program, int argc, char **argv);

void args_complain(const struct args_program *program, const char *format, ...) _printf_(2, 3);
const struct args_command *args_find(const struct args_program *program, const char *name);

/* Gives `take` each option in turn until it answers with something other than 0, which is what is
 * returned then. An option that is not there, or lacks its value, is ARGS_USAGE with a `why` that
 * names the nearest; in all other cases `why` is empty. *ret_word: the first word's place. */
typedef int args_take(void *user, int id, const char *value);
int args_parse(const struct args_program *program, const struct args_command *command, int argc,
               char **argv, args_take *take, void *user, char why[ARGS_WHY_BYTES], int *ret_word);

/* A whole number in decimal digits; a size may end in K, M, G or T. False where it is neither, or
 * out of bounds. */
bool args_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_number);
bool args_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret_bytes);

/* The nearest of what is tried, where it is near enough to have been meant. */
struct args_near {
    const char *word, *best;
    unsigned distance;
};
void args_near_try(struct args_near *near, const char *candidate);
/* ": did you mean WORD? See", or ": see". */
const char *args_near_text(const struct args_near *near, const char *dashes, char text[128]);
