/* cmd_completion.c - what a shell needs to complete commands, options and topics of help, made from
 * the table that help is printed from, so that no second list can fall behind.
 */
#include <client/cmd.h>

#include <stdio.h>
#include <string.h>

#define EACH_COMMAND(c)                                                                            \
    const struct args_command *c = cmd_program.commands;                                           \
    c < cmd_program.commands + cmd_program.n_commands;                                             \
    c++
#define EACH_OPTION(o, c)                                                                          \
    const struct args_option *o = (c)->options;                                                    \
    o && o->id;                                                                                    \
    o++

static void option_words(const struct args_command *command)
{
    for (EACH_OPTION(o, command)) {
        if (o->id < 128)
            printf(" -%c", (char)o->id);
        printf(" --%s", o->name);
    }
}

/* What help takes. */
static void topic_words(void)
{
    for (EACH_COMMAND(c))
        printf(" %s", c->name);
    for (size_t i = 0; i < cmd_program.n_topics; i++)
        printf(" %s", cmd_program.topics[i].name);
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
    printf("_westlight() {\n    local words current=${COMP_WORDS[COMP_CWORD]}\n"
           "    case $COMP_CWORD:${COMP_WORDS[1]} in\n    1:*) words='help");
    for (EACH_COMMAND(c))
        printf(" %s", c->name);
    printf("' ;;\n    2:help) words='");
    topic_words();
    printf("' ;;\n");
    for (EACH_COMMAND(c)) {
        printf("    *:%s) words='", c->name);
        option_words(c);
        printf("' ;;\n");
    }
    printf("    esac\n    COMPREPLY=()\n"
           "    if [[ $COMP_CWORD == 1 || $COMP_CWORD:${COMP_WORDS[1]} == 2:help ||\n"
           "        $current == -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n    fi\n}\n"
           "complete -o default -F _westlight westlight\n");
}

static void zsh(void)
{
    printf("#compdef westlight\nlocal -a commands=(\n    'help:say more of a command or topic'\n");
    for (EACH_COMMAND(c)) {
        printf("    '%s:", c->name);
        text_quoted(c->summary);
        printf("'\n");
    }
    printf(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\n"
           "if [[ $words[2] == help ]]; then\n    compadd --");
    topic_words();
    printf("\nelif [[ $words[CURRENT] == -* ]]; then\n    case $words[2] in\n");
    for (EACH_COMMAND(c)) {
        printf("    %s) compadd --", c->name);
        option_words(c);
        printf(" ;;\n");
    }
    printf("    esac\nelse\n    _files\nfi\n");
}

static void fish_option(const struct args_command *command, const struct args_option *option)
{
    printf("complete -c westlight -n '__fish_seen_subcommand_from %s' -l %s", command->name,
           option->name);
    if (option->id < 128)
        printf(" -s %c", (char)option->id);
    printf("%s -d '", option->argument ? " -r" : "");
    text_quoted(option->help);
    printf("'\n");
}

static void fish(void)
{
    for (EACH_COMMAND(c)) {
        printf("complete -c westlight -n __fish_use_subcommand -a %s -d '", c->name);
        text_quoted(c->summary);
        printf("'\n");
        for (EACH_OPTION(o, c))
            fish_option(c, o);
    }
    printf("complete -c westlight -n __fish_use_subcommand -a help -d 'say more of a command or "
           "topic'\n"
           "complete -c westlight -f -n '__fish_seen_subcommand_from help' -a '");
    topic_words();
    printf("'\n");
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
