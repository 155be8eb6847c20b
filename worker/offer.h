/* offer.h - what this worker offers the broker: from the probe, the options, and what an operator
 * adds.
 *
 * Names:   amount.worker.vcpu, .memory (MiB), .gpu, .gpu.memory (MiB of the largest card);
 *          attr.worker.os.family, attr.worker.cpu.arch, attr.worker.gpu.model, attr.software.NAME,
 *          attr.blender.denoiser (the versions that have it).
 * Owns:    struct offer_made owns all its message points to.
 * Errors:  -ENOMEM; OFFER_E_FORM where an extra is not NAME=VALUE; OFFER_E_LIMIT past limits.h.
 * Source:  Open Job Description 2023-09, "HostRequirements".
 */
#pragma once

#include <proto/westlight.pb-c.h>
#include <worker/probe.h>

enum { OFFER_E_FORM = 1, OFFER_E_LIMIT = 2 };

struct offer_options {
    const char *name; /* NULL: the host's */
    uint32_t slots;   /* 0: one per GPU, otherwise one */
    uint32_t prefetch;
    uint32_t cores;            /* 0: as probed */
    uint64_t memory_mib;       /* 0: as probed, rounded down to 256 MiB */
    const char *const *extras; /* "amount.x=3", "attr.x=a,b" */
    size_t n_extras;
};

struct offer_made {
    Wl__Offer message;
    void **allocations;
    size_t n_allocations;
};

int offer_make(const struct probe *probe, const struct offer_options *options,
               struct offer_made *ret_offer, const char **ret_culprit);
void offer_deinit(struct offer_made *offer);
