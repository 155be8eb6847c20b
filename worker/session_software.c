/* session_software.c - one version of a software for all that a session runs: as its command, as
 * the first of PATH for scripts, with its variables.
 */
#include <worker/session_inner.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <worker/software.h>

#define SESSION_SOFTWARE "software" /* its folder below the session's */

int session_software(struct session *session)
{
    const struct session_config *config = session->config;
    const Wl__StepRecipe *step = session->step;
    const struct probe_software *software =
        software_find(config->software, config->n_software, step->software, step->version);
    char folder[PATH_MAX + 16];
    int r;

    if (!software && *step->software && *step->version)
        return session_fail(session, CLASS_MISSING_INPUT,
                            "%.64s %.64s is not on this worker, and no "
                            "other version may stand in for it: declare it there (--software), or "
                            "submit the job with one that is",
                            step->software, step->version);
    session->software = software;
    if (!software)
        return 0;
    snprintf(folder, sizeof(folder), "%s/" SESSION_SOFTWARE, session->folder);
    r = software_shim(software, folder);
    for (size_t i = 0; !r && i < software->n_variables; i++)
        r = session_variable(session, software->variables[i].name, software->variables[i].value);
    return r;
}

int session_software_path(struct session *session)
{
    const char *search = format_get(&session->variables, "PATH");
    _cleanup_(freep) char *path = NULL;

    if (!session->software)
        return 0;
    if (asprintf(&path, "%s/" SESSION_SOFTWARE "%s%s", session->folder, search ? ":" : "",
                 search ? search : "") < 0) {
        path = NULL;
        return -ENOMEM;
    }
    return session_variable(session, "PATH", path);
}

int session_software_command(struct session *session, char **command)
{
    const struct probe_software *software = session->software;
    char *path;

    if (!software || strcmp(*command, software->name) != 0)
        return 0;
    path = strdup(software->path);
    if (!path)
        return -ENOMEM;
    free(*command);
    *command = path;
    return 0;
}
