/* open.c - a farm's link is opened and closed; what every request needs to know of it. */
#include <client/connection.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <client/farm.h>
#include <client/look.h>
#include <proto/base/bytes.h>

#define OPEN_NS (5 * NS_PER_S)

static int connect_link(struct westlight *westlight)
{
    int r = farm_keys(&westlight->farm, &westlight->keys, &westlight->server, westlight->secret,
                      &westlight->has_secret, westlight->why, sizeof(westlight->why));
    if (r != 0)
        return r;
    if (sealer_new(&westlight->sealer) < 0)
        return -ENOMEM;
    r = link_context_new(1, &westlight->context);
    if (r < 0)
        return r;
    r = connection_open(westlight);
    if (r == -EINVAL || r == -ENODEV || r == -EPROTONOSUPPORT)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "farm %s: control = %s: not an address: write tcp://HOST:7420",
                               westlight->farm.name, westlight->farm.control);
    return r;
}

int westlight_open(const struct westlight_farm *farm, int timeout_ms,
                   struct westlight **ret_westlight, char *why, size_t why_size)
{
    struct westlight *westlight = calloc(1, sizeof(*westlight));
    if (!westlight)
        return -ENOMEM;
    westlight->farm = *farm;
    westlight->status = LINK_DOWN;
    westlight->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    int r = westlight->stop_fd < 0 ? -errno : connect_link(westlight);
    if (r == 0)
        r = connection_welcome(westlight, clock_monotonic_ns() +
                                              (timeout_ms > 0 ? timeout_ms * NS_PER_MS : OPEN_NS));
    if (r != 0) {
        if (westlight->why[0] == '\0')
            connection_fail(westlight, r, "farm %s at %s: %s", farm->name, farm->control,
                            strerror(r < 0 ? -r : EIO));
        if (why && why_size)
            snprintf(why, why_size, "%s", westlight->why);
        westlight_close(westlight);
        return r;
    }
    *ret_westlight = westlight;
    return 0;
}

void westlight_close(struct westlight *westlight)
{
    if (!westlight)
        return;
    for (size_t i = 0; i < westlight->n_watches; i++) {
        wire_free(westlight->watches[i].notice);
        look_steps_free(westlight->watches[i].steps);
    }
    connection_begin(westlight);
    wire_inbox_deinit(&westlight->inbox);
    link_close(westlight->monitor);
    link_close(westlight->socket);
    link_context_free(westlight->context);
    sealer_free(westlight->sealer);
    if (westlight->stop_fd >= 0)
        close(westlight->stop_fd);
    wipe(&westlight->keys, sizeof(westlight->keys));
    wipe(westlight->secret, sizeof(westlight->secret));
    free(westlight);
}

int connection_bulk(const struct westlight *westlight, char *ret_endpoint, size_t size)
{
    const char *control = westlight->farm.control, *said = westlight->bulk;
    const char *colon = strrchr(control, ':'), *said_port = strrchr(said, ':');
    int n;

    if (westlight->farm.bulk[0])
        n = snprintf(ret_endpoint, size, "%s", westlight->farm.bulk);
    else if (said_port && strncmp(said, "tcp://*:", 8) != 0 &&
             strncmp(said, "tcp://0.0.0.0:", 14) != 0 && strncmp(said, "tcp://[::]:", 11) != 0)
        n = snprintf(ret_endpoint, size, "%s", said);
    else if (colon && said_port) /* bound to every address: the one we know reaches it */
        n = snprintf(ret_endpoint, size, "%.*s%s", (int)(colon - control), control, said_port);
    else if (colon)
        n = snprintf(ret_endpoint, size, "%.*s:%ld", (int)(colon - control), control,
                     strtol(colon + 1, NULL, 10) + 1);
    else
        return -EINVAL;
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int connection_begin_job(struct westlight *westlight, const char *id, uint8_t ret_job[16])
{
    char text[2 * WESTLIGHT_ID_BYTES + 2];
    snprintf(text, sizeof(text), "%s", id ? id : "");

    connection_begin(westlight); /* `id` may have been of the last call's memory */
    if (strlen(text) != 2 * WESTLIGHT_ID_BYTES || hex_decode(text, ret_job, WESTLIGHT_ID_BYTES) < 0)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "job %s: not a whole id of 32 digits: resolve it first", text);
    return 0;
}
