/* probe.h - what this node offers: cores, memory, GPUs through NVML (by dlopen), software.
 *
 * Owns:    struct probe owns all it points to; probe_free.
 * Errors:  -ENOMEM only. What cannot be found is not offered.
 * Source:  NVML API reference (nvmlInit_v2, nvmlDeviceGetCount_v2, ...GetMemoryInfo, GetUUID, GetName).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/bytes.h>

struct probe_gpu {
    char model[96], uuid[96];
    uint64_t memory_bytes;
};
struct probe_variable {
    char *name, *value;
};
/* Distributions build Blender without OpenImageDenoise: Cycles then fails where a scene denoises,
 * and the compositor passes the noise on without a word. */
enum probe_denoiser { DENOISER_UNKNOWN, DENOISER_NONE, DENOISER_THERE };
struct probe_software {
    char name[64];    /* "povray", "blender" */
    char version[64]; /* "3.7.0.10", "3.4.1" */
    char path[512];
    struct probe_variable *variables; /* it is run with; declared ones only: see software.h */
    size_t n_variables;
    bool declared;
    enum probe_denoiser denoiser; /* of a Blender */
};
struct probe {
    char host[256];
    uint32_t cores;      /* this process may use */
    uint64_t memory_mib; /* of the machine, or of the cgroup where that is less */
    struct probe_gpu *gpus;
    size_t n_gpus, n_gpus_lost; /* the lost ones are not among them */
    char driver_folder[512];    /* NVIDIA's libraries, where the linker does not look; else "" */
    struct probe_software *software;
    size_t n_software;
};

/* The machine and its cards. `nvml`: libraries to try, between colons; NULL: $WESTLIGHT_NVML, else
 * libnvidia-ml.so.1 where the linker looks, or below /usr/local/nvidia. */
int probe_new(const char *nvml, struct probe **ret_probe);
/* Adds the programs in PATH that say their version. */
int probe_find_software(struct probe *probe);
/* Runs each declared Blender of which it is not known, to hear whether it has the denoiser. */
int probe_ask_denoisers(struct probe *probe);
void probe_free(struct probe *probe);
/* Appends the names of the cards of `mask` for CUDA_VISIBLE_DEVICES; how many there are. */
unsigned probe_leased(const struct probe *probe, uint32_t mask, struct bytes *text);
void probe_forget_software(struct probe *probe);
DEFINE_CLEANUP(struct probe *, probe_free)
