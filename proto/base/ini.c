/* ini.c - see ini.h. */
#include <proto/base/ini.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

char *ini_trim(char *text)
{
    size_t size;

    while (*text == ' ' || *text == '\t')
        text++;
    size = strlen(text);
    while (size > 0 && strchr(" \t\r", text[size - 1]))
        text[--size] = '\0';
    return text;
}

int ini_fail(struct ini *ini, const char *format, ...)
{
    int n = snprintf(ini->why, ini->why_size, "%s:%u: ", ini->path, ini->line);
    va_list list;

    va_start(list, format);
    if (n >= 0 && (size_t)n < ini->why_size)
        vsnprintf(ini->why + n, ini->why_size - (size_t)n, format, list);
    va_end(list);
    return INI_E_FORM;
}

static int read_line(struct ini *ini, char *line)
{
    char *equals, *value;
    size_t size;

    line = ini_trim(line);
    size = strlen(line);
    if (size == 0 || line[0] == '#' || line[0] == ';')
        return 0;
    if (line[0] == '[') {
        if (line[size - 1] != ']')
            return ini_fail(ini, "a section that does not end: close it with ]");
        line[size - 1] = '\0';
        return ini->on_section(ini, ini_trim(line + 1));
    }

    equals = strchr(line, '=');
    if (!equals)
        return ini_fail(ini, "not a setting: write NAME = VALUE");
    *equals = '\0';
    value = ini_trim(equals + 1);
    size = strlen(value);
    if (size >= 2 && (value[0] == '"' || value[0] == '\'') && value[size - 1] == value[0]) {
        value[size - 1] = '\0'; /* as other files of this kind are written */
        value++;
    }
    return ini->on_setting(ini, ini_trim(line), value);
}

int ini_read(struct ini *ini, char *text)
{
    ini->line = 0;
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3; /* an editor's byte order mark */
    for (char *line = text, *end; line; line = end) {
        int r;

        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        ini->line++;
        r = read_line(ini, line);
        if (r != 0)
            return r;
    }
    return 0;
}
