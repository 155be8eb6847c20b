/* session_paths.c - a studio's path compared part by part with the roots that lie here.
 *
 * Separators count once however many there are; on Windows both kinds do, and letters match in
 * either case. A path that climbs out of its root by ".." is not under it.
 */
#include <worker/session_paths.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool separator(char c, uint32_t style)
{
    return c == '/' || (style == 1 && c == '\\');
}

static const char *skip_separators(const char *text, uint32_t style)
{
    while (separator(*text, style))
        text++;
    return text;
}

/* What follows `from` in `path`, NULL where it is not under it. */
static const char *path_rest(const char *from, const char *path, uint32_t style)
{
    if (!*from || separator(*from, style) != separator(*path, style))
        return NULL;
    while (*from) {
        if (separator(*from, style)) {
            from = skip_separators(from, style);
            if (*path && !separator(*path, style))
                return NULL;
            path = skip_separators(path, style);
            continue;
        }
        if (style == 1 ? tolower((unsigned char)*from) != tolower((unsigned char)*path)
                       : *from != *path)
            return NULL;
        from++;
        path++;
    }
    if (separator(from[-1], style) || !*path)
        return path;
    return separator(*path, style) ? skip_separators(path, style) : NULL;
}

static bool climbs_out(const char *rest, uint32_t style)
{
    long depth = 0;

    while (*rest) {
        size_t size = 0;

        while (rest[size] && !separator(rest[size], style))
            size++;
        if (size == 2 && rest[0] == '.' && rest[1] == '.')
            depth--;
        else if (!(size == 1 && rest[0] == '.'))
            depth++;
        if (depth < 0)
            return true;
        rest = skip_separators(rest + size, style);
    }
    return false;
}

bool session_map_path(const struct session_map *maps, size_t n_maps, const char *path,
                      char *ret_path, size_t size)
{
    const struct session_map *best = NULL;
    const char *rest = NULL;
    size_t to_size, n;

    for (size_t i = 0; i < n_maps; i++) {
        const char *found = path_rest(maps[i].from, path, maps[i].style);

        if (found && !climbs_out(found, maps[i].style) && (!best || found > rest)) {
            best = &maps[i];
            rest = found;
        }
    }
    if (!best)
        return false;
    to_size = strlen(best->to);
    n = to_size + (*rest ? 1 : 0) + strlen(rest);
    if (n >= size)
        return false;

    memcpy(ret_path, best->to, to_size);
    if (*rest)
        ret_path[to_size++] = '/';
    for (; *rest; rest++)
        ret_path[to_size++] = separator(*rest, best->style) ? '/' : *rest;
    ret_path[to_size] = 0;
    return true;
}

static json_t *rules_json(const struct session_map *maps, size_t n_maps)
{
    json_t *rules = json_array();

    for (size_t i = 0; rules && i < n_maps; i++) {
        json_t *rule = json_pack("{s:s, s:s, s:s}", "source_path_format",
                                 maps[i].style == 1 ? "WINDOWS" : "POSIX", "source_path",
                                 maps[i].from, "destination_path", maps[i].to);

        if (!rule || json_array_append_new(rules, rule) < 0) {
            json_decref(rules);
            return NULL;
        }
    }
    return rules ? json_pack("{s:s, s:o}", "version", "pathmapping-1.0", "path_mapping_rules", rules)
                 : NULL;
}

int session_paths_write(const struct session_map *maps, size_t n_maps, const char *path)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    _cleanup_(freep) char *text = NULL;
    json_t *json;

    if (fd < 0)
        return -errno;
    /* Refused by the library only where a path is not UTF-8. */
    json = rules_json(maps, n_maps);
    if (!json)
        return -EILSEQ;
    text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    return text ? fd_write_all(fd, text, strlen(text)) : -ENOMEM;
}
