/* version.c - the version that saved a scene renders it as its artist saw it; a newer one opens it;
 * an older one may not.
 * Source: Blender's documentation of its file header: "BLENDER-v304", and since 5.0
 * "BLENDER17-01v0500"; compressed with zstd since 3.0, before with gzip.
 */
#include <client/version.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* ---- what a scene says ---- */

#define HEAD_BYTES   18
#define PACKED_BYTES (256 * 1024) /* holds the first block of a compressed scene */

/* The first bytes, out of their packing; fewer where there are no more. */
static size_t head_unpack(const void *data, size_t size, char ret_head[HEAD_BYTES])
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_inBuffer in = {data, size, 0};
    ZSTD_outBuffer out = {ret_head, HEAD_BYTES, 0};
    size_t r = 1;

    while (stream && out.pos < out.size && in.pos < in.size && r > 0 && !ZSTD_isError(r))
        r = ZSTD_decompressStream(stream, &out, &in);
    ZSTD_freeDStream(stream);
    return out.pos;
}

static bool digits_read(const char *text, size_t n, unsigned *ret_number)
{
    *ret_number = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *ret_number = *ret_number * 10 + (unsigned)(text[i] - '0');
    }
    return true;
}

void version_of_blend(const char *path, char ret_version[32])
{
    static const unsigned char zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    FILE *file = fopen(path, "re");
    char *data = file ? malloc(PACKED_BYTES) : NULL, head[HEAD_BYTES + 1] = "";
    size_t size = data ? fread(data, 1, PACKED_BYTES, file) : 0;
    unsigned number = 0;

    *ret_version = 0;
    if (size >= sizeof(zstd) && memcmp(data, zstd, sizeof(zstd)) == 0)
        size = head_unpack(data, size, head);
    else if (size > 0)
        memcpy(head, data, size < HEAD_BYTES ? size : HEAD_BYTES);
    free(data);
    if (file)
        fclose(file);
    if (size < 12 || memcmp(head, "BLENDER", 7) != 0)
        return;
    if ((head[8] == 'v' || head[8] == 'V') ? !digits_read(head + 9, 3, &number)
                                           : head[12] != 'v' || !digits_read(head + 13, 4, &number))
        return;
    snprintf(ret_version, 32, "%u.%u", number / 100, number % 100);
}

/* ---- the choice ---- */

static bool same_minor(const char *version, const char *saved)
{
    unsigned a[2] = {0}, b[2] = {0};

    return sscanf(version, "%u.%u", &a[0], &a[1]) >= 1 &&
           sscanf(saved, "%u.%u", &b[0], &b[1]) >= 1 && a[0] == b[0] && a[1] == b[1];
}

static const char *newest(const char *const *offered, size_t n, const char *saved)
{
    const char *found = NULL;

    for (size_t i = 0; i < n; i++)
        if ((!saved || same_minor(offered[i], saved)) &&
            (!found || strverscmp(offered[i], found) > 0))
            found = offered[i];
    return found;
}

static void choose_asked(const char *name, const char *asked, const char *const *offered, size_t n,
                         struct version_choice *choice)
{
    char list[256] = "";

    choice->version = asked;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(offered[i], asked) == 0) {
            snprintf(choice->line, sizeof(choice->line), "%s %s: as asked", name, asked);
            return;
        }
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
                 offered[i]);
    }
    choice->warning = true;
    snprintf(
        choice->line, sizeof(choice->line),
        "%s %s: as asked, but no connected worker offers it (%s%s): the job waits for one that "
        "does",
        name, asked, n ? "they offer " : "they offer none", list);
}

void version_choose(const char *name, const char *asked, const char *saved,
                    const char *const *offered, size_t n_offered, struct version_choice *ret_choice)
{
    const char *newer = newest(offered, n_offered, NULL), *why = "the newest there is";
    const char *same = saved && *saved ? newest(offered, n_offered, saved) : NULL;
    char text[256];

    *ret_choice = (struct version_choice){0};
    if (asked) {
        choose_asked(name, asked, offered, n_offered, ret_choice);
        return;
    }
    if (!newer) {
        snprintf(ret_choice->line, sizeof(ret_choice->line),
                 "%s: no connected worker offers any: the job waits, and takes whatever version "
                 "comes",
                 name);
        ret_choice->warning = true;
        return;
    }

    ret_choice->version = same ? same : newer;
    if (same)
        why = "the version that saved the scene";
    else if (saved && !*saved)
        why = "the newest there is; the scene does not say which version saved it";
    else if (saved) {
        ret_choice->warning = strverscmp(newer, saved) < 0;
        snprintf(text, sizeof(text),
                 ret_choice->warning
                     ? "the newest there is, but %s saved the scene: what is new in it may be lost"
                     : "the newest there is; %s saved the scene, which it opens",
                 saved);
        why = text;
    }
    snprintf(ret_choice->line, sizeof(ret_choice->line), "%s %s: %s", name, ret_choice->version,
             why);
}
