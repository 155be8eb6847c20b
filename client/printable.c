/* printable.c - see printable.h. */
#include <client/printable.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/check.h>

enum { ESCAPED = 4 }; /* "\x1b" */

size_t printable_size(const unsigned char *at)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++) {
        uint32_t code = *at & (uint32_t)(unsigned char)~forms[n].mask;

        if ((*at & forms[n].mask) != forms[n].lead)
            continue;
        for (size_t i = 1; i <= n; i++) {
            if ((at[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (at[i] & 0x3f);
        }
        return code >= forms[n].least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)
                   ? n + 1
                   : 0;
    }
    return 0;
}

static bool is_control(unsigned char byte)
{
    return byte < 0x20 || byte == 0x7f;
}

char *printable_text(const char *text)
{
    char *clean = malloc(ESCAPED * strlen(text) + 1), *to = clean;

    CHECK(clean);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t size = printable_size(at);
        bool shown = *at == '\n' || *at == '\t' ||
                     (size > 0 && !is_control(*at) && !(at[0] == 0xc2 && at[1] < 0xa0));

        for (size_t i = 0; i < (size ? size : 1); i++, at++) {
            if (shown)
                *to++ = (char)*at;
            else
                to += sprintf(to, "\\x%02x", *at);
        }
    }
    *to = 0;
    return clean;
}

void printable_stream(FILE *stream, const char *text, size_t size, bool *lead)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool was_lead = *lead, second = was_lead && byte >= 0x80 && byte < 0xa0;

        *lead = byte == 0xc2;
        if (was_lead) /* of the controls past 0x7f, or of a character */
            fputs(second ? "\\xc2" : "\xc2", stream);
        if (second || (is_control(byte) && byte != '\n' && byte != '\t' && byte != '\r'))
            fprintf(stream, "\\x%02x", byte);
        else if (!*lead)
            fputc(byte, stream);
    }
}
