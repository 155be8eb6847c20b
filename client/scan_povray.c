/* scan_povray.c - a scene read as text: the names that stand behind #include and behind the kinds
 * of files POV-Ray reads. What a scene computes (concat) cannot be seen; its whole folder travels
 * anyway.
 *
 * A name is looked for as POV-Ray does: in the folder it runs in, which is the scene's own, then in
 * the library folders. Its own include files belong to its installation and do not travel.
 * Source: POV-Ray 3.7 reference, "Include Files and the #include Directive", "Bitmap File Formats".
 */
#include <client/scan.h>

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <client/options.h>
#include <proto/base/bytes.h>

#define INCLUDES_MAX   64                  /* one in another; POV-Ray itself takes fewer */
#define TEXT_BYTES_MAX (256 * 1024 * 1024) /* meshes are large includes */

static const char *const installed[] = {"/usr/share/povray-3.7/include",
                                        "/usr/local/share/povray-3.7/include", NULL};
static const char *const kinds[] = {"gif", "tga", "iff", "ppm", "pgm", "png", "jpeg", "tiff",
                                    "sys", "exr", "hdr", "pot", "df3", "ttf", NULL};

static const char *const opens[] = {"#if",    "#ifdef", "#ifndef", "#switch",
                                    "#while", "#for",   "#macro",  NULL};

/* What makes a pixel depend on others, or on which thread renders it. */
static const struct {
    const char *word, *why;
} inexact[] = {
    {"radiosity", "it uses radiosity, which gathers samples as it comes to them"},
    {"subsurface", "it uses subsurface, whose samples come from a generator that each thread has"},
    {"crand", "it uses crand, whose grain is another each time"},
    {"jitter", "it uses jitter, which is another each time"},
};

struct scan {
    struct inputs *inputs;
    struct inputs_list *inexact;
    const char *folder;
    const char *const *libraries;
    struct inputs_list seen;   /* texts read, so that circles end */
    unsigned depth, condition; /* of includes; of #if and the like */
};

static bool listed(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static bool is_file(const char *folder, const char *name, char path[PATH_MAX])
{
    struct stat status;

    if (name[0] == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else
        snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

enum found { FOUND, FOUND_INSTALLED, FOUND_NOWHERE };

static enum found find_exactly(const struct scan *scan, const char *name, char path[PATH_MAX])
{
    if (is_file(scan->folder, name, path))
        return FOUND;
    for (const char *const *library = scan->libraries; *library; library++)
        if (is_file(*library, name, path))
            return FOUND;
    for (const char *const *own = installed; *own; own++)
        if (is_file(*own, name, path))
            return FOUND_INSTALLED;
    return FOUND_NOWHERE;
}

/* POV-Ray takes "cyrvetic" for "cyrvetic.ttf". */
static enum found find(const struct scan *scan, const char *word, const char *name,
                       char path[PATH_MAX])
{
    enum found found = find_exactly(scan, name, path);
    char longer[PATH_MAX];

    if (found != FOUND_NOWHERE)
        return found;
    snprintf(longer, sizeof(longer), "%s.%s", name,
             word[0] == '#'              ? "inc"
             : strcmp(word, "jpeg") == 0 ? "jpg"
             : strcmp(word, "tiff") == 0 ? "tif"
                                         : word);
    return find_exactly(scan, longer, path);
}

/* Where no POV-Ray is installed, a bare name may be one of its own files. */
static bool may_be_installed(const char *name)
{
    for (const char *const *own = installed; *own; own++)
        if (access(*own, F_OK) == 0)
            return false;
    return !strchr(name, '/');
}

/* Under a condition it may not be wanted, and POV-Ray stops where it is wanted and not there. */
static void not_found(struct scan *scan, const char *word, const char *name, const char *what)
{
    char text[2 * PATH_MAX];

    if ((word[0] == '#' || strcmp(word, "ttf") == 0) && may_be_installed(name))
        return;
    if (scan->condition == 0) {
        inputs_missing(scan->inputs, name, what);
        return;
    }
    snprintf(text, sizeof(text), "%s: %s, under a condition: it is not there", name, what);
    inputs_list_add(&scan->inputs->left_out, text);
}

static int read_text(struct scan *scan, const char *path);

static int name_take(struct scan *scan, const char *from, const char *word, const char *name)
{
    bool include = strcmp(word, "#include") == 0, kind = listed(kinds, word);
    char path[PATH_MAX], what[PATH_MAX + 32];
    int r;

    if (!include && !kind && name[0] == '/')
        return 0; /* a text that happens to be a path */
    snprintf(what, sizeof(what), "%s in %s", word, from);
    switch (find(scan, word, name, path)) {
    case FOUND_INSTALLED:
        return 0;
    case FOUND_NOWHERE:
        if (include || kind)
            not_found(scan, word, name, what);
        return 0;
    case FOUND:
        break;
    }
    if (name[0] == '/') {
        snprintf(
            what, sizeof(what),
            "%s in %s: an absolute path leads nowhere on a farm: make it relative to the scene",
            word, from);
        inputs_missing(scan->inputs, name, what);
        return 0;
    }
    r = inputs_path(scan->inputs, path, what);
    return r == 0 && include ? read_text(scan, path) : r;
}

/* ---- the text ---- */

static const char *comment_end(const char *at)
{
    unsigned depth = 1;

    for (at += 2; *at && depth > 0; at++)
        if (at[0] == '/' && at[1] == '*') {
            depth++;
            at++;
        } else if (at[0] == '*' && at[1] == '/') {
            depth--;
            at++;
        }
    return at;
}

/* Reads from behind the quote; the end of the literal, or of the text. */
static const char *literal_take(const char *at, char *ret_text, size_t size)
{
    size_t n = 0;

    for (; *at && *at != '"' && *at != '\n'; at++) {
        if (at[0] == '\\' && at[1] == '"')
            at++;
        if (n + 1 < size)
            ret_text[n++] = *at;
    }
    ret_text[n] = '\0';
    return *at == '"' ? at + 1 : at;
}

static const char *word_take(const char *at, char *word, size_t size)
{
    size_t n = 0;

    while (isalnum((unsigned char)*at) || *at == '_' || *at == '#') {
        if (n + 1 < size)
            word[n++] = *at;
        at++;
    }
    word[n] = '\0';
    return at;
}

static void inexact_take(struct scan *scan, const char *word)
{
    for (size_t i = 0; i < sizeof(inexact) / sizeof(inexact[0]); i++) {
        bool known = strcmp(word, inexact[i].word) != 0;

        for (size_t k = 0; !known && k < scan->inexact->n; k++)
            known = strcmp(scan->inexact->texts[k], inexact[i].why) == 0;
        if (!known)
            inputs_list_add(scan->inexact, inexact[i].why);
    }
}

static int text_take(struct scan *scan, const char *from, const char *at)
{
    char word[32] = "", literal[PATH_MAX];
    int r = 0;

    while (r == 0 && *at) {
        if (at[0] == '/' && at[1] == '/')
            at += strcspn(at, "\n");
        else if (at[0] == '/' && at[1] == '*')
            at = comment_end(at);
        else if (*at == '"') {
            at = literal_take(at + 1, literal, sizeof(literal));
            if (*literal)
                r = name_take(scan, from, word, literal);
            word[0] = '\0';
        } else if (isalnum((unsigned char)*at) || *at == '_' || *at == '#') {
            at = word_take(at, word, sizeof(word));
            if (strcmp(word, "#") == 0) { /* "# include" is the same */
                at += strspn(at, " \t");
                at = word_take(at, word + 1, sizeof(word) - 1);
                word[0] = '#';
            }
            inexact_take(scan, word);
            if (listed(opens, word))
                scan->condition++;
            else if (strcmp(word, "#end") == 0 && scan->condition > 0)
                scan->condition--;
        } else {
            if (!isspace((unsigned char)*at))
                word[0] = '\0';
            at++;
        }
    }
    return r;
}

static int read_text(struct scan *scan, const char *path)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    const char *slash = strrchr(path, '/');

    for (size_t i = 0; i < scan->seen.n; i++)
        if (strcmp(scan->seen.texts[i], path) == 0)
            return 0;
    inputs_list_add(&scan->seen, path);
    if (scan->depth == INCLUDES_MAX || file_read(path, TEXT_BYTES_MAX, &text) < 0 ||
        bytes_append(&text, "", 1) < 0)
        return 0; /* it travels; POV-Ray says what is wrong with it */
    scan->depth++;
    int r = text_take(scan, slash ? slash + 1 : path, (const char *)text.data);
    scan->depth--;
    return r;
}

int scan_povray(const char *scene, const char *folder, const char *const *libraries,
                struct inputs *inputs, struct inputs_list *ret_inexact)
{
    struct scan scan = {
        .inputs = inputs, .inexact = ret_inexact, .folder = folder, .libraries = libraries};
    int r = read_text(&scan, scene);

    inputs_list_deinit(&scan.seen);
    return r;
}
