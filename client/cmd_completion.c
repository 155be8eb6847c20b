/* cmd_completion.c - what a shell needs to complete commands and options, made from the table that
 * help is printed from, so that no second list can fall behind.
 */
#include <client/cmd.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* The next option that a usage text names: "-f" or "--frames". NULL: there is none. */
static const char *option_next(const char *text, size_t *ret_size)
{
    for (const char *at = text; (at = strchr(at, '-')); at++) {
        size_t dashes = strspn(at, "-"), size = dashes;

        if (at > text && !strchr(" [|,", at[-1])) {
            at += dashes - 1;
            continue;
        }
        while (isalpha((unsigned char)at[size]) || (dashes == 2 && at[size] == '-'))
            size++;
        if ((dashes == 1 && size == 2) || (dashes == 2 && size > 3)) {
            *ret_size = size;
            return at;
        }
        at += size - 1;
    }
    return NULL;
}

/* Named once, though the text may name it often. */
static bool option_seen(const char *usage, const char *option, size_t size)
{
    size_t n;

    for (const char *at = usage; (at = option_next(at, &n)) && at < option; at += n)
        if (n == size && memcmp(at, option, n) == 0)
            return true;
    return false;
}

typedef void option_print(const struct command *command, const char *option, size_t size);

static void options_each(const struct command *command, option_print *print)
{
    size_t size;

    for (const char *at = command->usage; (at = option_next(at, &size)); at += size)
        if (!option_seen(command->usage, at, size))
            print(command, at, size);
}

static void option_word(const struct command *command, const char *option, size_t size)
{
    (void)command;
    printf(" %.*s", (int)size, option);
}

static void option_fish(const struct command *command, const char *option, size_t size)
{
    printf("complete -c westlight -n '__fish_seen_subcommand_from %s' %s %.*s\n", command->name,
           size == 2 ? "-s" : "-l", (int)(size == 2 ? 1 : size - 2), option + (size == 2 ? 1 : 2));
}

/* Between quotes, as every shell here takes them. */
static void text_quoted(const char *text)
{
    for (; *text; text++)
        if (*text == '\'')
            printf("'\\''");
        else
            putchar(*text);
}

static void bash(void)
{
    printf("_westlight()\n{\n    local current=${COMP_WORDS[COMP_CWORD]} words=\n"
           "    case $COMP_CWORD:${COMP_WORDS[1]} in\n    1:*) words='help");
    for (size_t i = 0; i < cmd_table_size; i++)
        printf(" %s", cmd_table[i].name);
    printf("' ;;\n");
    for (size_t i = 0; i < cmd_table_size; i++) {
        printf("    *:%s) words='", cmd_table[i].name);
        options_each(&cmd_table[i], option_word);
        printf("' ;;\n");
    }
    printf("    esac\n    COMPREPLY=()\n"
           "    if [[ $COMP_CWORD == 1 || $current == -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n    fi\n}\n"
           "complete -o default -F _westlight westlight\n");
}

static void zsh(void)
{
    printf("#compdef westlight\nlocal -a commands=(\n    'help:say more of a command'\n");
    for (size_t i = 0; i < cmd_table_size; i++) {
        printf("    '%s:", cmd_table[i].name);
        text_quoted(cmd_table[i].summary);
        printf("'\n");
    }
    printf(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\n"
           "if [[ $words[CURRENT] == -* ]]; then\n    case $words[2] in\n");
    for (size_t i = 0; i < cmd_table_size; i++) {
        printf("    %s) compadd --", cmd_table[i].name);
        options_each(&cmd_table[i], option_word);
        printf(" ;;\n");
    }
    printf("    esac\nelse\n    _files\nfi\n");
}

static void fish(void)
{
    for (size_t i = 0; i < cmd_table_size; i++) {
        printf("complete -c westlight -n __fish_use_subcommand -a %s -d '", cmd_table[i].name);
        text_quoted(cmd_table[i].summary);
        printf("'\n");
        options_each(&cmd_table[i], option_fish);
    }
}

int cmd_completion(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};

    for (size_t i = 0; argc == 2 && i < sizeof(shells) / sizeof(shells[0]); i++)
        if (strcmp(argv[1], shells[i].name) == 0) {
            shells[i].print();
            return 0;
        }
    complain("completion: it knows three shells: write westlight completion bash, zsh or fish");
    return EXIT_USAGE;
}
