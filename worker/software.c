/* software.c - see software.h. */
#include <worker/software.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/ini.h>
#include <proto/limits.h>

#define SOFTWARE_FILE_BYTES (256 * 1024) /* a thousand versions */

struct loading {
    struct probe *probe;
    struct probe_software one; /* of the section being read; no name: none is */
    unsigned line;             /* of its head */
};

static void software_clear(struct probe_software *software)
{
    for (size_t i = 0; i < software->n_variables; i++) {
        free(software->variables[i].name);
        free(software->variables[i].value);
    }
    free(software->variables);
    *software = (struct probe_software){0};
}

/* ---- one section ---- */

static bool name_good(const char *name)
{
    for (const char *c = name; *c; c++)
        if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && !strchr("_-.", *c))
            return false;
    return *name && *name != '.';
}

static bool version_good(const char *version)
{
    for (const char *c = version; *c; c++)
        if (!isgraph((unsigned char)*c) || *c == ',')
            return false;
    return *version != 0;
}

static bool variable_good(const char *name)
{
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            return false;
    return *name && !isdigit((unsigned char)*name);
}

/* Declared twice is a slip; found and declared, the operator knows better. */
static int section_end(struct ini *ini, struct loading *loading)
{
    struct probe *probe = loading->probe;
    struct probe_software *one = &loading->one, *list;
    unsigned line = ini->line;

    if (!one->name[0])
        return 0;
    ini->line = loading->line;
    if (!one->path[0])
        return ini_fail(ini, "%s %s has no command: add command = /PATH/TO/%s", one->name,
                        one->version, one->name);
    ini->line = line;
    for (size_t i = 0; i < probe->n_software; i++) {
        struct probe_software *other = &probe->software[i];

        if (strcmp(other->name, one->name) != 0 || strcmp(other->version, one->version) != 0)
            continue;
        software_clear(other);
        *other = *one;
        *one = (struct probe_software){0};
        return 0;
    }
    list = reallocarray(probe->software, probe->n_software + 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    probe->software = list;
    list[probe->n_software++] = *one;
    *one = (struct probe_software){0};
    return 0;
}

static int on_section(struct ini *ini, char *head)
{
    struct loading *loading = ini->user;
    struct probe_software *one = &loading->one;
    char *version = head + strcspn(head, " \t");
    int r = section_end(ini, loading);

    if (r)
        return r;
    if (*version)
        *version++ = '\0';
    version = ini_trim(version);
    if (!name_good(head) || !version_good(version))
        return ini_fail(ini, "not a software and its version: write [NAME VERSION], such as "
                             "[blender 4.0.2], the name in small letters");
    if (strlen(head) >= sizeof(one->name) || strlen(version) >= sizeof(one->version))
        return ini_fail(ini, "longer than %zu bytes: shorten it", sizeof(one->name) - 1);
    for (size_t i = 0; i < loading->probe->n_software; i++)
        if (loading->probe->software[i].declared &&
            strcmp(loading->probe->software[i].name, head) == 0 &&
            strcmp(loading->probe->software[i].version, version) == 0)
            return ini_fail(ini, "%s %s is there already: give each version one section", head,
                            version);
    strcpy(one->name, head);
    strcpy(one->version, version);
    one->declared = true;
    loading->line = ini->line;
    return 0;
}

static int set_command(struct ini *ini, struct probe_software *one, const char *path)
{
    struct stat status;

    if (path[0] != '/')
        return ini_fail(ini, "command \"%.200s\": not an absolute path: begin it with /", path);
    if (strlen(path) >= sizeof(one->path))
        return ini_fail(ini, "longer than %zu bytes: shorten it", sizeof(one->path) - 1);
    if (stat(path, &status) < 0)
        return ini_fail(ini, "command %.200s: %s: install it, or correct the path", path,
                        strerror(errno));
    if (!S_ISREG(status.st_mode) || access(path, X_OK) < 0)
        return ini_fail(ini,
                        "command %.200s: no program that may be run: check what it is and its "
                        "permissions",
                        path);
    strcpy(one->path, path);
    return 0;
}

static int add_variable(struct ini *ini, struct probe_software *one, const char *name,
                        const char *value)
{
    struct probe_variable *variables, *variable;

    if (!variable_good(name))
        return ini_fail(ini,
                        "\"%.100s\" cannot name a variable: write env NAME = VALUE, with "
                        "letters, digits and _",
                        name);
    if (one->n_variables == LIMIT_VARIABLES)
        return ini_fail(ini, "more than %d variables: use fewer", LIMIT_VARIABLES);
    variables = reallocarray(one->variables, one->n_variables + 1, sizeof(*variables));
    if (!variables)
        return -ENOMEM;
    one->variables = variables;
    variable = &variables[one->n_variables++];
    variable->name = strdup(name);
    variable->value = strdup(value);
    return variable->name && variable->value ? 0 : -ENOMEM;
}

static int set_denoiser(struct ini *ini, struct probe_software *one, const char *value)
{
    if (strcmp(one->name, "blender") != 0)
        return ini_fail(ini, "denoiser is said of a blender: remove it from %s", one->name);
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return ini_fail(ini, "denoiser = %.60s: write yes, no, or nothing to have it asked", value);
    one->denoiser = *value == 'y' ? DENOISER_THERE : DENOISER_NONE;
    return 0;
}

static int on_setting(struct ini *ini, char *name, char *value)
{
    struct loading *loading = ini->user;

    if (!loading->one.name[0])
        return ini_fail(ini,
                        "\"%.60s\" stands before the first section: begin with "
                        "[NAME VERSION], such as [blender 4.0.2]",
                        name);
    if (strcmp(name, "command") == 0)
        return set_command(ini, &loading->one, value);
    if (strncmp(name, "env ", 4) == 0 || strncmp(name, "env\t", 4) == 0)
        return add_variable(ini, &loading->one, ini_trim(name + 4), value);
    if (strcmp(name, "denoiser") == 0)
        return set_denoiser(ini, &loading->one, value);
    return ini_fail(ini,
                    "\"%.60s\" is not known here: a software has command = PATH, "
                    "env NAME = VALUE and, where it is a blender, denoiser = yes or no",
                    name);
}

int software_load(const char *path, struct probe *probe, char *why, size_t why_size)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct loading loading = {.probe = probe};
    struct ini ini = {.path = path,
                      .on_section = on_section,
                      .on_setting = on_setting,
                      .user = &loading,
                      .why = why,
                      .why_size = why_size};
    int r = file_read(path, SOFTWARE_FILE_BYTES, &text);

    if (r == 0)
        r = bytes_append(&text, "", 1);
    if (r == 0)
        r = ini_read(&ini, (char *)text.data);
    if (r == 0)
        r = section_end(&ini, &loading);
    software_clear(&loading.one);
    return r == INI_E_FORM ? SOFTWARE_E_FILE : r;
}

/* ---- one for a task ---- */

const struct probe_software *software_find(const struct probe_software *software, size_t n,
                                           const char *name, const char *version)
{
    const struct probe_software *found = NULL;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(software[i].name, name) != 0)
            continue;
        if (version && *version ? strcmp(software[i].version, version) == 0
                                : !found || strverscmp(software[i].version, found->version) > 0)
            found = &software[i];
    }
    return found;
}

/* One word to the shell, whatever is in it. */
static int quote(struct bytes *text, const char *word)
{
    int r = bytes_append(text, "'", 1);

    for (; r == 0 && *word; word++)
        r = *word == '\'' ? bytes_append(text, "'\\''", 4) : bytes_append(text, word, 1);
    return r ? r : bytes_append(text, "'", 1);
}

int software_shim(const struct probe_software *software, const char *folder)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    _cleanup_(closep) int fd = -1;
    char path[PATH_MAX];
    int r;

    if (snprintf(path, sizeof(path), "%s/%s", folder, software->name) >= PATH_MAX)
        return -ENAMETOOLONG;
    /* Not a link: many renderers find their libraries by the name they were called by. */
    r = bytes_printf(&text, "#!/bin/sh\nexec ");
    if (r == 0)
        r = quote(&text, software->path);
    if (r == 0)
        r = bytes_printf(&text, " \"$@\"\n");
    if (r == 0)
        r = folder_make(folder, 0700);
    if (r)
        return r;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0700);
    return fd < 0 ? -errno : fd_write_all(fd, text.data, text.size);
}
