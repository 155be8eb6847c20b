/* offer.c - see offer.h.
 *
 * All memory of the message hangs on one list, so that building it may stop anywhere. */
#include <worker/offer.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <proto/limits.h>
#include <proto/state.h>

enum { MEMORY_STEP_MIB = 256 };

static void *keep(struct offer_made *offer, void *memory)
{
    void **allocations =
        memory ? reallocarray(offer->allocations, offer->n_allocations + 1, sizeof(void *)) : NULL;

    if (!allocations) {
        free(memory);
        return NULL;
    }
    offer->allocations = allocations;
    allocations[offer->n_allocations++] = memory;
    return memory;
}

static char *keep_text(struct offer_made *offer, const char *text)
{
    return keep(offer, strdup(text));
}

static int add_amount(struct offer_made *offer, const char *name, double value)
{
    Wl__Offer *message = &offer->message;
    Wl__Amount *amount;

    for (size_t i = 0; i < message->n_amounts; i++)
        if (strcmp(message->amounts[i]->name, name) == 0) {
            message->amounts[i]->min = value; /* what an operator says goes over what was found */
            return 0;
        }
    if (message->n_amounts == LIMIT_AMOUNTS)
        return OFFER_E_LIMIT;
    amount = keep(offer, malloc(sizeof(*amount)));
    if (!amount)
        return -ENOMEM;
    wl__amount__init(amount);
    amount->name = keep_text(offer, name);
    amount->min = value;
    if (!amount->name)
        return -ENOMEM;
    message->amounts[message->n_amounts++] = amount;
    return 0;
}

static int add_value(struct offer_made *offer, const char *name, const char *value)
{
    Wl__Offer *message = &offer->message;
    Wl__Attribute *attribute = NULL;
    char *text;

    for (size_t i = 0; i < message->n_attributes; i++)
        if (strcmp(message->attributes[i]->name, name) == 0)
            attribute = message->attributes[i];
    if (!attribute) {
        if (message->n_attributes == LIMIT_ATTRIBUTES)
            return OFFER_E_LIMIT;
        attribute = keep(offer, malloc(sizeof(*attribute)));
        if (!attribute)
            return -ENOMEM;
        wl__attribute__init(attribute);
        attribute->name = keep_text(offer, name);
        attribute->any_of = keep(offer, calloc(LIMIT_ATTRIBUTE_VALUES, sizeof(char *)));
        if (!attribute->name || !attribute->any_of)
            return -ENOMEM;
        message->attributes[message->n_attributes++] = attribute;
    }
    for (size_t i = 0; i < attribute->n_any_of; i++)
        if (strcmp(attribute->any_of[i], value) == 0)
            return 0;
    if (attribute->n_any_of == LIMIT_ATTRIBUTE_VALUES)
        return OFFER_E_LIMIT;
    text = keep_text(offer, value);
    if (!text)
        return -ENOMEM;
    attribute->any_of[attribute->n_any_of++] = text;
    return 0;
}

static int add_gpus(struct offer_made *offer, const struct probe *probe)
{
    size_t n = probe->n_gpus < LIMIT_GPUS ? probe->n_gpus : LIMIT_GPUS;
    uint64_t largest_bytes = 0;
    int r = 0;

    offer->message.gpus = keep(offer, calloc(n + 1, sizeof(Wl__Gpu *)));
    if (!offer->message.gpus)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < n; i++) {
        Wl__Gpu *gpu = keep(offer, malloc(sizeof(*gpu)));

        if (!gpu)
            return -ENOMEM;
        wl__gpu__init(gpu);
        gpu->model = keep_text(offer, probe->gpus[i].model);
        gpu->uuid = keep_text(offer, probe->gpus[i].uuid);
        gpu->memory_bytes = probe->gpus[i].memory_bytes;
        gpu->index = (uint32_t)i;
        if (!gpu->model || !gpu->uuid)
            return -ENOMEM;
        offer->message.gpus[offer->message.n_gpus++] = gpu;
        if (gpu->memory_bytes > largest_bytes)
            largest_bytes = gpu->memory_bytes;
        r = add_value(offer, "attr.worker.gpu.model", gpu->model);
    }
    if (r == 0)
        r = add_amount(offer, "amount.worker.gpu", (double)n);
    if (r == 0)
        r = add_amount(offer, "amount.worker.gpu.memory", (double)(largest_bytes >> 20));
    return r;
}

static int add_software(struct offer_made *offer, const struct probe *probe)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < probe->n_software; i++) {
        char name[LIMIT_NAME_BYTES] = "attr.software.";

        strncat(name, probe->software[i].name, sizeof(name) - strlen(name) - 1);
        r = add_value(offer, name, probe->software[i].version);
        if (r == 0 && probe->software[i].denoiser == DENOISER_THERE)
            r = add_value(offer, ATTRIBUTE_DENOISER, probe->software[i].version);
    }
    return r;
}

static int add_extra(struct offer_made *offer, const char *extra)
{
    char *name = keep_text(offer, extra);
    char *value = name ? strchr(name, '=') : NULL;
    char *end, *save = NULL;
    double number;
    int r = 0;

    if (!name)
        return -ENOMEM;
    if (!value || value == name || !value[1] || value - name >= LIMIT_NAME_BYTES)
        return OFFER_E_FORM;
    *value++ = '\0';
    if (strncmp(name, "amount.", 7) == 0) {
        number = strtod(value, &end);
        if (*end || !isfinite(number) || number < 0)
            return OFFER_E_FORM;
        return add_amount(offer, name, number);
    }
    if (strncmp(name, "attr.", 5) != 0)
        return OFFER_E_FORM;
    for (char *part = strtok_r(value, ",", &save); r == 0 && part;
         part = strtok_r(NULL, ",", &save))
        r = strlen(part) < LIMIT_NAME_BYTES ? add_value(offer, name, part) : OFFER_E_FORM;
    return r;
}

/* Firmware and kernel keep a few MiB more on one node than on its twin. What is offered is rounded
 * down, so that equal nodes are equal to the broker, which plans once for all of a kind. */
static uint64_t memory_offered_mib(uint64_t probed_mib)
{
    return probed_mib > MEMORY_STEP_MIB ? probed_mib - probed_mib % MEMORY_STEP_MIB : probed_mib;
}

static int fill(struct offer_made *offer, const struct probe *probe,
                const struct offer_options *options, const char **ret_culprit)
{
    struct utsname host;
    int r;

    offer->message.amounts = keep(offer, calloc(LIMIT_AMOUNTS, sizeof(Wl__Amount *)));
    offer->message.attributes = keep(offer, calloc(LIMIT_ATTRIBUTES, sizeof(Wl__Attribute *)));
    offer->message.name = keep_text(offer, options->name ? options->name : probe->host);
    if (!offer->message.amounts || !offer->message.attributes || !offer->message.name)
        return -ENOMEM;
    r = add_amount(offer, "amount.worker.vcpu", options->cores ? options->cores : probe->cores);
    if (r == 0)
        r = add_amount(offer, "amount.worker.memory",
                       (double)(options->memory_mib ? options->memory_mib
                                                    : memory_offered_mib(probe->memory_mib)));
    if (r == 0)
        r = add_gpus(offer, probe);
    if (r == 0)
        r = add_value(offer, "attr.worker.os.family", "linux");
    if (r == 0 && uname(&host) == 0)
        r = add_value(offer, "attr.worker.cpu.arch",
                      strcmp(host.machine, "aarch64") == 0 ? "arm64" : host.machine);
    *ret_culprit = "attr.software";
    if (r == 0)
        r = add_software(offer, probe);
    for (size_t i = 0; r == 0 && i < options->n_extras; i++) {
        *ret_culprit = options->extras[i];
        r = add_extra(offer, options->extras[i]);
    }
    offer->message.slots = options->slots          ? options->slots
                           : offer->message.n_gpus ? (uint32_t)offer->message.n_gpus
                                                   : 1;
    offer->message.prefetch = options->prefetch;
    return r;
}

int offer_make(const struct probe *probe, const struct offer_options *options,
               struct offer_made *ret_offer, const char **ret_culprit)
{
    struct offer_made offer = {0};
    int r;

    wl__offer__init(&offer.message);
    *ret_culprit = "";
    r = fill(&offer, probe, options, ret_culprit);
    if (r != 0) {
        offer_deinit(&offer);
        return r;
    }
    *ret_offer = offer;
    return 0;
}

void offer_deinit(struct offer_made *offer)
{
    for (size_t i = 0; i < offer->n_allocations; i++)
        free(offer->allocations[i]);
    free(offer->allocations);
    *offer = (struct offer_made){0};
}
