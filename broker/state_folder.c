/* state_folder.c - what of the state folder commands and a running broker share: see broker.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <broker/broker.h>
#include <proto/limits.h>

int broker_path(const char *state, const char *name, char path[LIMIT_PATH_BYTES], struct bytes *why)
{
    if (snprintf(path, LIMIT_PATH_BYTES, "%s/%s", state, name) < LIMIT_PATH_BYTES)
        return 0;
    bytes_printf(why, "%.64s...: the path is too long: choose a shorter one", state);
    return -ENAMETOOLONG;
}

int broker_state(const char *state, struct bytes *why)
{
    struct stat there;
    int r = folder_make(state, 0700);

    if (r == 0 && stat(state, &there) < 0)
        r = -errno;
    if (r == 0 && (there.st_mode & 077) != 0 && chmod(state, 0700) < 0)
        r = -errno;
    if (r < 0)
        bytes_printf(why, "%s: %s: choose a folder that is yours and can be written", state,
                     strerror(-r));
    return r;
}

int broker_keys(const char *state, const char *file, struct link_keypair *ret_keys,
                struct bytes *why)
{
    char path[LIMIT_PATH_BYTES];
    int r = broker_path(state, file, path, why);

    if (r < 0)
        return r;
    r = identity_key_load_or_new(path, ret_keys);
    if (r != 0)
        bytes_printf(why,
                     "%s: %s: put the broker's own key back, or move it away to have a new one",
                     path, r < 0 ? strerror(-r) : "it is no key file");
    return r > 0 ? -EBADMSG : r;
}

/* ---- where it listens, for whoever makes tokens ---- */

#define ENDPOINTS_FILE "endpoints"

int broker_endpoints_keep(const char *state, const struct broker_endpoints *endpoints,
                          struct bytes *why)
{
    _cleanup_(bytes_deinit) struct bytes text = {0};
    char path[LIMIT_PATH_BYTES];
    int r = broker_path(state, ENDPOINTS_FILE, path, why);

    if (r == 0)
        r = bytes_printf(&text, "enrol %s\ncontrol %s\n", endpoints->enrol, endpoints->control);
    if (r == 0)
        r = file_write(path, text.data, text.size, 0600);
    if (r < 0 && why->size == 0)
        bytes_printf(why, "%s: %s", path, strerror(-r));
    return r;
}

int broker_endpoints(const char *state, struct broker_endpoints *ret_endpoints)
{
    _cleanup_(bytes_deinit) struct bytes text = {0}, why = {0};
    struct broker_endpoints endpoints;
    char path[LIMIT_PATH_BYTES];
    int r = broker_path(state, ENDPOINTS_FILE, path, &why);

    if (r == 0)
        r = file_read(path, 2 * sizeof endpoints, &text);
    if (r == 0 && sscanf((const char *)text.data, "enrol %127s control %127s", endpoints.enrol,
                         endpoints.control) != 2)
        r = -EBADMSG;
    if (r == 0)
        *ret_endpoints = endpoints;
    return r;
}
