/* pin.c - see pin.h. */
#include <client/pin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <client/say.h>
#include <client/version.h>
#include <proto/base/clock.h>

struct offered {
    const char *name;
    char **versions;
    size_t n;
};

static int offered_take(void *user, const char *name, const char *const *versions, size_t n)
{
    struct offered *offered = user;

    if (strcmp(name, offered->name) != 0)
        return 0;
    offered->versions = calloc(n + 1, sizeof(*offered->versions));
    for (size_t i = 0; offered->versions && i < n; i++)
        if ((offered->versions[i] = strdup(versions[i])))
            offered->n++;
    return 0;
}

static int worker_there(void *user, const struct westlight_worker *worker)
{
    bool *there = user;

    *there |= worker->connected;
    return 0;
}

/* A private farm has just been started; what its workers offer is known when the first is there. */
static int local_wait(const struct pin *pin)
{
    const struct timespec pause = {.tv_nsec = 50 * NS_PER_MS};
    int64_t began_ns = clock_monotonic_ns();
    bool there = false;
    int r = 0;

    while (pin->local && !there && r == 0 && clock_monotonic_ns() - began_ns < 30 * NS_PER_S) {
        r = westlight_workers(pin->westlight, worker_there, &there);
        if (r == 0 && !there && !local_alive(pin->local))
            return WESTLIGHT_E_UNREACHABLE;
        if (!there)
            nanosleep(&pause, NULL);
    }
    return r;
}

static const char *software_of(const struct pin *pin)
{
    return pin->preset->software ? pin->preset->software : pin->options->software;
}

static void choose(const struct pin *pin, const struct offered *offered,
                   struct version_choice *ret_choice)
{
    const char *asked = pin->options->version ? pin->options->version
                                              : options_param(pin->options, "version", NULL);

    version_choose(offered->name, asked, pin->preset->saves ? pin->facts->saved : NULL,
                   (const char *const *)offered->versions, offered->n, ret_choice);
}

int pin_version(const struct pin *pin, struct westlight_job *job, char ret_text[PIN_TEXT])
{
    struct offered offered = {.name = software_of(pin)};
    struct version_choice choice = {0};
    int r;

    ret_text[0] = 0;
    if (!*offered.name)
        return 0;
    r = local_wait(pin);
    if (r == 0)
        r = westlight_software(pin->westlight, offered_take, &offered);
    if (r == 0)
        choose(pin, &offered, &choice);
    if (choice.version) {
        westlight_job_version(job, offered.name, choice.version);
        snprintf(ret_text, PIN_TEXT, "%s %s", offered.name, choice.version);
    }
    if (choice.warning)
        complain("%s", choice.line);
    else if (r == 0 && !pin->options->json)
        say_part("%s\n", choice.line);
    if (r == 0 && pin->facts->denoises && !pin->options->json)
        say_part("the scene denoises: only workers whose %s%s%s has the denoiser render it; "
                 "-p denoise=no renders without\n",
                 offered.name, choice.version ? " " : "", choice.version ? choice.version : "");
    for (size_t i = 0; i < offered.n; i++)
        free(offered.versions[i]);
    free(offered.versions);
    return r ? complain_library(r, westlight_why(pin->westlight)) : 0;
}
