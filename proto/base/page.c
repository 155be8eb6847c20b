/* page.c - see page.h.
 *
 * Both kinds of page are made of the same few pieces: a heading, a paragraph, a line as it is, and
 * a term with its meaning. Each piece knows its two forms; nothing above them does.
 */
#include <proto/base/page.h>

#include <stdio.h>
#include <string.h>

enum {
    COLUMNS = 79,  /* some terminals go on to the next line after the 80th */
    TERM_MAX = 26, /* a longer term has a line of its own */
};

struct page {
    bool manual;
    bool raw;  /* of a manual: lines as they are have begun */
    bool rest; /* of a manual: a paragraph is to begin */
};

/* ---- a terminal's ---- */

/* From `column` on, going on below `indent`. */
static void put_wrapped(const char *text, size_t size, size_t column, size_t indent)
{
    size_t from = column;

    for (size_t at = 0; at < size;) {
        size_t n = 0, wide = 0;

        for (; at + n < size && text[at + n] != ' '; n++)
            wide += ((unsigned char)text[at + n] & 0xc0) != 0x80;
        if (column > from && column + 1 + wide > COLUMNS) {
            printf("\n%*s", (int)indent, "");
            from = column = indent;
        } else if (column > from) {
            putchar(' ');
            column++;
        }
        fwrite(text + at, 1, n, stdout);
        column += wide;
        at += n + 1;
    }
    putchar('\n');
}

static void put_term(const char *term, size_t size, const char *meaning, size_t meaning_size,
                     size_t indent)
{
    printf("  %.*s", (int)size, term);
    if (size + 4 > indent)
        printf("\n%*s", (int)indent, "");
    else
        printf("%*s", (int)(indent - size - 2), "");
    put_wrapped(meaning, meaning_size, indent, indent);
}

/* ---- a manual's ---- */

/* Nothing in it is taken for a macro, and what is to be copied stays as it was. */
static void put_roff(const char *text, size_t size)
{
    static const struct {
        char letter;
        const char *escape;
    } escapes[] = {{'\\', "\\e"},  {'-', "\\-"},   {'\'', "\\(aq"},
                   {'`', "\\(ga"}, {'^', "\\(ha"}, {'~', "\\(ti"}};

    if (size && (*text == '.' || *text == '\''))
        printf("\\&");
    for (size_t i = 0; i < size; i++) {
        const char *escape = NULL;

        for (size_t k = 0; k < sizeof(escapes) / sizeof(escapes[0]); k++)
            if (text[i] == escapes[k].letter)
                escape = escapes[k].escape;
        if (escape)
            fputs(escape, stdout);
        else
            putchar(text[i]);
    }
}

static void raw_end(struct page *page)
{
    if (page->raw)
        printf(".fi\n.RE\n");
    page->raw = false;
}

static void roff_line(struct page *page, const char *line, size_t size)
{
    if (!page->raw)
        printf(".PP\n.RS 2\n.nf\n");
    page->raw = true;
    put_roff(line, size);
    putchar('\n');
}

static void roff_paragraph(struct page *page, const char *line, size_t size)
{
    raw_end(page);
    if (page->rest)
        printf(".PP\n");
    put_roff(line, size);
    putchar('\n');
    page->rest = true;
}

static void roff_term(struct page *page, const char *term, size_t size, const char *meaning,
                      size_t meaning_size)
{
    raw_end(page);
    printf(".TP\n\\fB");
    put_roff(term, size);
    printf("\\fR\n");
    put_roff(meaning, meaning_size);
    putchar('\n');
    page->rest = true;
}

/* ---- pieces ---- */

/* Of a manual only. */
static void heading(struct page *page, const char *macro, const char *text)
{
    raw_end(page);
    page->rest = false;
    printf("%s \"", macro);
    put_roff(text, strlen(text));
    printf("\"\n");
}

/* Of the block that begins here. */
static size_t term_column(const char *text)
{
    size_t widest = 0;

    for (; *text && *text != '\n'; text += strcspn(text, "\n"), text += *text == '\n') {
        size_t size = strcspn(text, "\t\n");

        if (text[size] == '\t' && size <= TERM_MAX && size > widest)
            widest = size;
    }
    return widest + 4;
}

static void put_text(struct page *page, const char *text)
{
    size_t column = 0;

    for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
        size_t size = strcspn(text, "\n");
        const char *tab = memchr(text, '\t', size);
        size_t term = tab ? (size_t)(tab - text) : 0;

        if (tab && column == 0)
            column = term_column(text);
        else if (!tab)
            column = 0;
        if (tab && page->manual)
            roff_term(page, text, term, tab + 1, size - term - 1);
        else if (tab)
            put_term(text, term, tab + 1, size - term - 1, column);
        else if (*text == ' ' && page->manual)
            roff_line(page, text + 2, size - 2);
        else if (*text == ' ')
            printf("%.*s\n", (int)size, text);
        else if (size && page->manual)
            roff_paragraph(page, text, size);
        else if (size)
            put_wrapped(text, size, 0, 0);
        else if (!page->manual)
            putchar('\n');
        else
            raw_end(page);
    }
    raw_end(page);
}

static void put_options(struct page *page, const struct args_option *options)
{
    char head[128];

    for (const struct args_option *o = options; o && o->id; o++) {
        int n = o->id < 128 ? snprintf(head, sizeof(head), "-%c, ", (char)o->id) : 0;

        snprintf(head + n, sizeof(head) - (size_t)n, "--%s%s%s", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        if (page->manual)
            roff_term(page, head, strlen(head), o->help, strlen(o->help));
        else
            put_term(head, strlen(head), o->help, strlen(o->help), TERM_MAX);
    }
}

/* "westlight key new [OPTION]..." */
static void usage_text(const struct args_program *program, const struct args_command *command,
                       char text[256])
{
    snprintf(text, 256, "%s%s%s%s%s%s", program->name, *command->name ? " " : "", command->name,
             *command->words ? " " : "", command->words, command->options ? " [OPTION]..." : "");
}

/* ---- help ---- */

static void help_command(const struct args_program *program, const struct args_command *command)
{
    struct page page = {0};
    char usage[256];

    usage_text(program, command, usage);
    printf("%s%s%s - %s\n\nusage: %s\n", program->name, *command->name ? " " : "", command->name,
           command->summary, usage);
    if (command->text) {
        printf("\n");
        put_text(&page, command->text);
    }
    if (command->options) {
        printf("\n");
        put_options(&page, command->options);
    }
    if (command->examples) {
        printf("\nfor example:\n");
        put_text(&page, command->examples);
    }
}

static int put_topic(struct page *page, const struct args_topic *topic)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    int r = topic->write ? topic->write(&text) : 0;

    if (r == 0)
        put_text(page, topic->write ? (const char *)text.data : topic->text);
    return r;
}

static void help_program(const struct args_program *program)
{
    const struct args_command *commands = program->commands;
    struct page page = {0};
    size_t widest = 0;

    for (size_t i = 0; i < program->n_commands; i++)
        if (strlen(commands[i].name) > widest)
            widest = strlen(commands[i].name);
    for (size_t i = 0; i < program->n_topics; i++)
        if (strlen(program->topics[i].name) > widest)
            widest = strlen(program->topics[i].name);

    if (*commands->name)
        printf("%s %s - %s\n", program->name, WESTLIGHT_VERSION, program->summary);
    else
        help_command(program, commands);
    printf("\ncommands:\n");
    for (size_t i = 0; i < program->n_commands; i++)
        if (*commands[i].name)
            put_term(commands[i].name, strlen(commands[i].name), commands[i].summary,
                     strlen(commands[i].summary), widest + 4);
    if (program->n_topics)
        printf("\ntopics:\n");
    for (size_t i = 0; i < program->n_topics; i++)
        put_term(program->topics[i].name, strlen(program->topics[i].name),
                 program->topics[i].summary, strlen(program->topics[i].summary), widest + 4);
    printf("\n");
    put_text(&page, program->text);
}

/* ---- the manual page ---- */

static void manual_command(struct page *page, const struct args_program *program,
                           const struct args_command *command)
{
    char usage[256];

    usage_text(program, command, usage);
    heading(page, ".SS", usage);
    if (*command->name)
        put_text(page, command->summary);
    if (command->text)
        put_text(page, command->text);
    put_options(page, command->options);
    if (command->examples)
        put_text(page, command->examples);
}

static int manual(const struct args_program *program)
{
    struct page page = {.manual = true};
    int r = 0;

    printf(".\\\" Printed by %s help --man from the table that its help is printed from.\n",
           program->name);
    printf(".TH \"%s\" \"%s\" \"\" \"Westlight %s\"\n", program->name, program->section,
           WESTLIGHT_VERSION);
    printf(".nh\n.ad l\n.SH NAME\n"); /* commands are copied: no word is cut, no space widened */
    put_roff(program->name, strlen(program->name));
    printf(" \\- ");
    put_roff(program->summary, strlen(program->summary));
    printf("\n.SH SYNOPSIS\n");
    for (size_t i = 0; i < program->n_commands; i++) {
        char usage[256];

        usage_text(program, &program->commands[i], usage);
        put_roff(usage, strlen(usage));
        printf("\n%s", i + 1 < program->n_commands ? ".br\n" : "");
    }
    heading(&page, ".SH", "DESCRIPTION");
    put_text(&page, program->text);
    heading(&page, ".SH", "COMMANDS");
    for (size_t i = 0; i < program->n_commands; i++)
        manual_command(&page, program, &program->commands[i]);
    for (size_t i = 0; r == 0 && i < program->n_topics; i++) {
        heading(&page, ".SH", program->topics[i].title);
        r = put_topic(&page, &program->topics[i]);
    }
    heading(&page, ".SH", "SEE ALSO");
    put_text(&page, program->see_also);
    return r;
}

/* ---- */

static int unknown(const struct args_program *program, const char *topic)
{
    struct args_near near = {.word = topic};
    char text[128];

    for (size_t i = 0; i < program->n_commands; i++)
        args_near_try(&near, program->commands[i].name);
    for (size_t i = 0; i < program->n_topics; i++)
        args_near_try(&near, program->topics[i].name);
    args_complain(program, "help %.100s: there is no such command or topic%s %s help", topic,
                  args_near_text(&near, "", text), program->name);
    return ARGS_USAGE;
}

int page_help(const struct args_program *program, const char *topic)
{
    const struct args_command *command = topic ? args_find(program, topic) : NULL;
    int r = 0;

    if (!topic)
        help_program(program);
    else if (strcmp(topic, "--man") == 0)
        r = manual(program);
    else if (command)
        help_command(program, command);
    else {
        const struct args_topic *found = NULL;

        for (size_t i = 0; i < program->n_topics; i++)
            if (strcmp(program->topics[i].name, topic) == 0)
                found = &program->topics[i];
        if (!found)
            return unknown(program, topic);
        printf("%s %s - %s\n\n", program->name, topic, found->summary);
        r = put_topic(&(struct page){0}, found);
    }
    if (r < 0)
        args_complain(program, "help: %s", strerror(-r));
    return r < 0 ? 1 : r;
}
