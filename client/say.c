/* say.c - see say.h. */
#include <client/say.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <client/options.h>
#include <client/printable.h>

#define COLUMNS_MAX 1000
#define BAR_MAX     30
#define INDENT      2 /* of what a line that was broken goes on with */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char bar[COLUMNS_MAX + 1]; /* as it stands on the terminal; "": none */

/* A terminal's width; 0 where it is none, or cannot go back in a line. */
static size_t columns_of(FILE *stream)
{
    const char *term = getenv("TERM");
    struct winsize size = {0};

    if (!isatty(fileno(stream)) || !term || strcmp(term, "dumb") == 0)
        return 0;
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return 80;
    return size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX;
}

/* ---- breaking lines ---- */

static size_t width(const char *text, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80; /* of UTF-8, a character's first byte */
    return n;
}

/* The piece at `text` that is not broken: a word, with what it quotes; or a whole command. */
static size_t piece(const char *text, bool after_colon)
{
    bool command = after_colon && strncmp(text, "westlight", 9) == 0, quoted = false;
    size_t i = 0;

    for (; text[i] && text[i] != '\n'; i++) {
        if (text[i] == '\'')
            quoted = !quoted && strchr(text + i + 1, '\'');
        if (quoted || text[i] != ' ')
            continue;
        if (!command || strchr(";,:", text[i - 1]))
            break;
    }
    return i;
}

/* One line of the text, without its newline. What is indented was laid out by whoever wrote it. */
static void put_line(FILE *stream, const char *text, size_t columns)
{
    size_t size = strcspn(text, "\n"), at = 0, column = 0;
    bool after_colon = false;

    if (columns == 0 || *text == ' ' || width(text, size) <= columns) {
        fwrite(text, 1, size, stream);
        return;
    }
    while (at < size) {
        size_t n = piece(text + at, after_colon), wide = width(text + at, n);

        if (column > INDENT && column + 1 + wide > columns) {
            fprintf(stream, "\n%*s", INDENT, "");
            column = INDENT;
        } else if (at) {
            fputc(' ', stream);
            column++;
        }
        fwrite(text + at, 1, n, stream);
        column += wide;
        after_colon = n && text[at + n - 1] == ':';
        at += n + 1;
    }
}

static void put_text(FILE *stream, const char *text)
{
    size_t columns = columns_of(stream);

    for (;;) {
        put_line(stream, text, columns);
        fputc('\n', stream);
        text += strcspn(text, "\n");
        if (*text == '\0' || *++text == '\0')
            break;
    }
}

/* ---- lines above the bar ---- */

static void put_above(FILE *stream, const char *prefix, const char *format, va_list arguments)
{
    char *text = NULL, *clean, *whole = NULL;

    if (vasprintf(&text, format, arguments) < 0)
        abort();
    clean = printable_text(text);
    if (asprintf(&whole, "%s%s", prefix, clean) < 0)
        abort();
    pthread_mutex_lock(&lock);
    if (*bar) {
        fputs("\r\033[K", stdout);
        if (stream != stdout)
            fflush(stdout);
    }
    put_text(stream, whole);
    if (*bar)
        fputs(bar, stdout);
    fflush(stdout);
    pthread_mutex_unlock(&lock);
    free(text);
    free(clean);
    free(whole);
}

void say_part(const char *format, ...)
{
    char *text = NULL, *clean;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        abort();
    va_end(arguments);
    clean = printable_text(text);
    fputs(clean, stdout);
    free(clean);
    free(text);
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put_above(stdout, "", format, arguments);
    va_end(arguments);
}

void complain(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put_above(stderr, "westlight: ", format, arguments);
    va_end(arguments);
}

/* ---- the bar ---- */

bool say_bar(uint64_t done, uint64_t total, const char *raw)
{
    _cleanup_(freep) char *text = printable_text(raw);
    size_t columns = columns_of(stdout), wide = width(text, strlen(text)), cells = BAR_MAX;
    char line[COLUMNS_MAX + 1] = "";
    size_t n = 0;

    if (columns < 2)
        return false;
    /* The last column stays free: a terminal goes on to the next line there. */
    if (cells + 3 + wide > columns - 1)
        cells = columns - 1 > wide + 3 + BAR_MAX / 3 ? columns - 1 - wide - 3 : 0;
    if (cells) {
        size_t filled = total ? (size_t)((double)done * (double)cells / (double)total) : 0;

        line[n++] = '[';
        for (size_t i = 0; i < cells; i++)
            line[n++] = i < filled ? '#' : '.';
        line[n++] = ']';
        line[n++] = ' ';
    }
    snprintf(line + n, sizeof(line) - n, "%s", text);
    for (size_t i = strlen(line); width(line, i) > columns - 1;)
        line[--i] = '\0';

    pthread_mutex_lock(&lock);
    if (strcmp(line, bar) != 0) {
        strcpy(bar, line);
        printf("\r%s\033[K", bar);
        fflush(stdout);
    }
    pthread_mutex_unlock(&lock);
    return true;
}

void say_bar_end(void)
{
    pthread_mutex_lock(&lock);
    if (*bar)
        fputs("\r\033[K", stdout);
    *bar = '\0';
    fflush(stdout);
    pthread_mutex_unlock(&lock);
}
