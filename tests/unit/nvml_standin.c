/* nvml_standin.c - NVIDIA's management library as the probe sees it, without a card.
 *
 * WESTLIGHT_STANDIN_CARDS says how many cards there are (none: it will not initialise). Card 1 does
 * not tell its name, as a card that has fallen off its bus does not.
 * Source:  NVML API reference; the return values are nvmlReturn_t.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

struct memory {
    unsigned long long total, free, used;
};

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT int nvmlDeviceGetCount_v2(unsigned *n);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
EXPORT int nvmlDeviceGetName(void *device, char *name, unsigned size);
EXPORT int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size);
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory);

static unsigned cards(void)
{
    const char *text = getenv("WESTLIGHT_STANDIN_CARDS");

    return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

int nvmlInit_v2(void)
{
    return cards() ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = cards();
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    if (index >= cards())
        return INVALID_ARGUMENT;
    *device = (void *)(uintptr_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned size)
{
    if ((uintptr_t)device == 2)
        return GPU_IS_LOST;
    snprintf(name, size, "Stand-in H100");
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size)
{
    snprintf(uuid, size, "GPU-%08u-0000-0000-0000-000000000000", (unsigned)(uintptr_t)device - 1);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory)
{
    *memory = (struct memory){.total = 80ULL << 30, .free = 79ULL << 30, .used = 1ULL << 30};
    return device ? SUCCESS : INVALID_ARGUMENT;
}
