/* probe.c - ask each source what it knows, and offer only what answered.
 *
 * NVML is opened at run time: a node without NVIDIA's driver runs the same program. Software is
 * what can be started and says its version; a table says how to ask and what to read.
 */
#include <worker/probe.h>

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <worker/cgroup.h>
#include <worker/spawn.h>

/* Where the linker looks; then where a container is given the driver of the node below it. */
#define PROBE_NVML          "libnvidia-ml.so.1:/usr/local/nvidia/lib64/libnvidia-ml.so.1"
#define PROBE_NVML_LOST     15 /* NVML_ERROR_GPU_IS_LOST */
#define PROBE_SOFTWARE_NS   (20 * NS_PER_S) /* Blender's first start from a cold disk */
#define PROBE_OUTPUT_BYTES  (64 * 1024)
#define PROBE_CPUS_MAX      8192
#define PROBE_PATH_DEFAULT  "/usr/local/bin:/usr/bin:/bin"

#define PROBE_BLENDER       "blender"
#define PROBE_DENOISER      "\nwestlight denoiser "

static const char denoiser_script[] = "try:\n"
                                      "    from _cycles import with_openimagedenoise as there\n"
                                      "except ImportError:\n"
                                      "    there = False\n"
                                      "print('\\nwestlight denoiser', bool(there), flush=True)\n";

static const char *const version_options[] = {"--version", NULL};
static const char *const blender_options[] = {
    "--background", "--factory-startup", "-noaudio", "--python-expr", denoiser_script, NULL};

static const struct {
    const char *name;           /* the command, too */
    const char *const *options; /* make it say its version, and what else is asked, and end */
    const char *before;         /* what stands before the version */
} programs[] = {
    {PROBE_BLENDER, blender_options, "Blender "},
    {"povray", version_options, "POV-Ray "},
};

/* ---- processors and memory ---- */

static uint32_t cores(double limit)
{
    cpu_set_t *set = CPU_ALLOC(PROBE_CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(PROBE_CPUS_MAX);
    uint32_t n = 0;

    if (set && sched_getaffinity(0, size, set) == 0)
        n = (uint32_t)CPU_COUNT_S(size, set);
    CPU_FREE(set);
    if (limit > 0 && limit < n)
        n = (uint32_t)(limit + 0.5);
    return n ? n : 1;
}

static uint64_t memory_mib(uint64_t limit_bytes)
{
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    char line[256];

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    if (limit_bytes && limit_bytes < kib * 1024)
        return limit_bytes >> 20;
    return kib >> 10;
}

/* ---- GPUs ---- */

/* As nvml.h has them; an nvmlDevice_t is a pointer we never look behind. */
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*device)(unsigned index, void **device);
    int (*name)(void *device, char *name, unsigned size);
    int (*uuid)(void *device, char *uuid, unsigned size);
    int (*memory)(void *device, struct nvml_memory *memory);
};

/* The newest of two names; *ret_function is a pointer to function. */
static bool nvml_symbol(void *library, const char *newer, const char *older, void *ret_function)
{
    void *symbol = dlsym(library, newer);

    if (!symbol && older)
        symbol = dlsym(library, older);
    memcpy(ret_function, &symbol, sizeof(symbol));
    return symbol != NULL;
}

static bool nvml_load(void *library, struct nvml *ret_nvml)
{
    struct nvml nvml;

    if (!nvml_symbol(library, "nvmlInit_v2", "nvmlInit", &nvml.init) ||
        !nvml_symbol(library, "nvmlShutdown", NULL, &nvml.shutdown) ||
        !nvml_symbol(library, "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount", &nvml.count) ||
        !nvml_symbol(library, "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex",
                     &nvml.device) ||
        !nvml_symbol(library, "nvmlDeviceGetName", NULL, &nvml.name) ||
        !nvml_symbol(library, "nvmlDeviceGetUUID", NULL, &nvml.uuid) ||
        !nvml_symbol(library, "nvmlDeviceGetMemoryInfo", NULL, &nvml.memory))
        return false;
    *ret_nvml = nvml;
    return true;
}

/* False where nothing can run on it. A card that has fallen off its bus would be leased first, its
 * memory being the least, and fail whatever it is given. */
static bool probe_card(const struct nvml *nvml, unsigned index, struct probe_gpu *ret_gpu)
{
    struct probe_gpu gpu = {.model = "unknown"};
    struct nvml_memory memory = {0};
    void *device = NULL;
    int named, measured;

    if (nvml->device(index, &device) != 0 || nvml->uuid(device, gpu.uuid, sizeof(gpu.uuid)) != 0)
        return false;
    named = nvml->name(device, gpu.model, sizeof(gpu.model));
    measured = nvml->memory(device, &memory);
    if (named == PROBE_NVML_LOST || measured == PROBE_NVML_LOST)
        return false;
    if (named != 0)
        strcpy(gpu.model, "unknown");
    gpu.model[sizeof(gpu.model) - 1] = gpu.uuid[sizeof(gpu.uuid) - 1] = 0;
    gpu.memory_bytes = measured == 0 ? memory.total : 0;
    *ret_gpu = gpu;
    return true;
}

static int probe_cards(const struct nvml *nvml, struct probe *probe)
{
    unsigned n = 0;

    if (nvml->count(&n) != 0 || n == 0)
        return 0;
    if (n > LIMIT_GPUS)
        n = LIMIT_GPUS;
    probe->gpus = calloc(n, sizeof(*probe->gpus));
    if (!probe->gpus)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++)
        if (probe_card(nvml, i, &probe->gpus[probe->n_gpus]))
            probe->n_gpus++;
        else
            probe->n_gpus_lost++;
    return 0;
}

static bool lists(const char *folders, const char *folder)
{
    size_t n = strlen(folder);

    for (const char *at = folders; at; at = strchr(at, ':'), at = at ? at + 1 : NULL)
        if (strncmp(at, folder, n) == 0 && strspn(at + n, "/") == strcspn(at + n, ":"))
            return true;
    return false;
}

/* A library found by its path or through our LD_LIBRARY_PATH, which tasks do not inherit, has
 * libcuda beside it where a renderer would not look. */
static void note_folder(void *library, bool by_path, struct probe *probe)
{
    const char *search = getenv("LD_LIBRARY_PATH"), *slash;
    char *folder = probe->driver_folder;
    struct link_map *map = NULL;

    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || !(slash = strrchr(map->l_name, '/')))
        return;
    snprintf(folder, sizeof(probe->driver_folder), "%.*s", (int)(slash - map->l_name), map->l_name);
    if (!by_path && !(search && lists(search, folder)))
        folder[0] = 0;
}

static int probe_library(const char *path, struct probe *probe)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    struct nvml nvml;
    int r = 0;

    if (!library)
        return 0;
    if (nvml_load(library, &nvml) && nvml.init() == 0) {
        r = probe_cards(&nvml, probe);
        nvml.shutdown();
        if (probe->n_gpus)
            note_folder(library, strchr(path, '/'), probe);
    }
    dlclose(library);
    return r;
}

/* The first library that knows of cards: one that came with an image may not fit the driver. */
static int probe_gpus(const char *paths, struct probe *probe)
{
    _cleanup_(freep) char *copy = strdup(paths);
    char *save = NULL;
    int r = copy ? 0 : -ENOMEM;

    for (char *path = copy ? strtok_r(copy, ":", &save) : NULL; path && r == 0 && !probe->gpus;
         path = strtok_r(NULL, ":", &save))
        r = probe_library(path, probe);
    return r;
}

/* ---- software ---- */

static void on_output(void *user, const void *data, size_t size)
{
    struct bytes *output = user;

    if (output->size + size <= PROBE_OUTPUT_BYTES)
        (void)bytes_append(output, data, size); /* without it there is no version: not offered */
}

/* "POV-Ray 3.7.0.10.unofficial" -> "3.7.0.10": digits and points, from where a line begins. */
static bool find_version(const char *text, const char *before, char *ret_version, size_t size)
{
    for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        const char *version = line + strlen(before);
        size_t n = 0;

        if (strncmp(line, before, strlen(before)) != 0 || !isdigit((unsigned char)*version))
            continue;
        while (isdigit((unsigned char)version[n]) ||
               (version[n] == '.' && isdigit((unsigned char)version[n + 1])))
            n++;
        if (n >= size)
            continue;
        memcpy(ret_version, version, n);
        ret_version[n] = 0;
        return true;
    }
    return false;
}

/* What it prints, ended by 0; nothing where it does not end well. */
static int ask(struct spawn_group *group, const struct probe_software *software, const char *search,
               const char *const *options, struct bytes *output)
{
    char variable[PATH_MAX + 8], *arguments[8] = {(char *)software->path};
    _cleanup_(freep) char **environment = calloc(software->n_variables + 4, sizeof(char *));
    struct spawn_config config = {.arguments = arguments, .environment = environment, .folder = "/",
                                  .timeout_ns = PROBE_SOFTWARE_NS, .on_output = on_output,
                                  .user = output};
    struct spawn_result result;
    size_t n = 0;
    int r = environment ? 0 : -ENOMEM;

    for (size_t i = 0; options[i]; i++)
        arguments[i + 1] = (char *)options[i];
    for (; r == 0 && n < software->n_variables; n++) /* the first of a name counts */
        if (asprintf(&environment[n], "%s=%s", software->variables[n].name,
                     software->variables[n].value) < 0) {
            environment[n] = NULL;
            r = -ENOMEM;
        }
    if (r == 0) {
        snprintf(variable, sizeof(variable), "PATH=%s", search);
        environment[n] = variable;
        environment[n + 1] = (char *)"HOME=/nonexistent";
        environment[n + 2] = (char *)"LANG=C";
        output->size = 0;
        r = spawn_run(group, &config, &result);
    }
    for (size_t i = 0; environment && i < n; i++)
        free(environment[i]);
    if (r)
        return r;
    if (result.end != SPAWN_EXITED || result.exit_status != 0)
        output->size = 0;
    return bytes_append(output, "", 1);
}

static enum probe_denoiser denoiser_said(const char *text)
{
    const char *said = strstr(text, PROBE_DENOISER);

    if (!said)
        return DENOISER_UNKNOWN;
    return strncmp(said + strlen(PROBE_DENOISER), "True", 4) == 0 ? DENOISER_THERE : DENOISER_NONE;
}

static const char *search_path(void)
{
    const char *search = getenv("PATH");

    return search && *search ? search : PROBE_PATH_DEFAULT;
}

/* A wrapper may know no other option than --version. */
static int probe_program(struct spawn_group *group, size_t i, struct probe *probe)
{
    struct probe_software *found = &probe->software[probe->n_software];
    const char *const *asked[] = {programs[i].options, version_options};
    _cleanup_(bytes_deinit) struct bytes output = {0};
    bool known = false;

    if (spawn_find(programs[i].name, search_path(), found->path, sizeof(found->path)) < 0)
        return 0;
    for (size_t k = 0; !known && k < ARRAY_SIZE(asked); k++) {
        int r = ask(group, found, search_path(), asked[k], &output);

        if (r)
            return r == -ENOMEM ? r : 0;
        known = find_version((const char *)output.data, programs[i].before, found->version,
                             sizeof(found->version));
    }
    if (!known)
        return 0;
    found->denoiser = denoiser_said((const char *)output.data);
    snprintf(found->name, sizeof(found->name), "%s", programs[i].name);
    probe->n_software++;
    return 0;
}

int probe_find_software(struct probe *probe)
{
    _cleanup_(spawn_group_freep) struct spawn_group *group = NULL;
    int r = spawn_group_new(&group);

    if (r)
        return r == -ENOMEM ? r : 0;
    probe->software = calloc(ARRAY_SIZE(programs), sizeof(*probe->software));
    if (!probe->software)
        return -ENOMEM;
    for (size_t i = 0; !r && i < ARRAY_SIZE(programs); i++)
        r = probe_program(group, i, probe);
    return r;
}

int probe_ask_denoisers(struct probe *probe)
{
    _cleanup_(spawn_group_freep) struct spawn_group *group = NULL;
    _cleanup_(bytes_deinit) struct bytes output = {0};
    int r = 0;

    for (size_t i = 0; i < probe->n_software; i++) {
        struct probe_software *software = &probe->software[i];

        if (!software->declared || software->denoiser != DENOISER_UNKNOWN ||
            strcmp(software->name, PROBE_BLENDER) != 0)
            continue;
        r = group ? 0 : spawn_group_new(&group);
        if (r == 0)
            r = ask(group, software, search_path(), blender_options, &output);
        if (r == -ENOMEM)
            return r;
        if (r == 0)
            software->denoiser = denoiser_said((const char *)output.data);
    }
    return 0;
}

/* ---- the whole ---- */

int probe_new(const char *nvml, struct probe **ret_probe)
{
    _cleanup_(probe_freep) struct probe *probe = calloc(1, sizeof(*probe));
    struct cgroup_limits limits;
    int r;

    if (!probe)
        return -ENOMEM;
    if (!nvml)
        nvml = getenv("WESTLIGHT_NVML");
    if (gethostname(probe->host, sizeof(probe->host) - 1) < 0 || !probe->host[0])
        strcpy(probe->host, "unnamed");
    cgroup_read("/proc/self/cgroup", "/sys/fs/cgroup", &limits);
    probe->cores = cores(limits.cores);
    probe->memory_mib = memory_mib(limits.memory_bytes);
    r = probe_gpus(nvml && *nvml ? nvml : PROBE_NVML, probe);
    if (r)
        return r;

    *ret_probe = TAKE_PTR(probe);
    return 0;
}

void probe_forget_software(struct probe *probe)
{
    for (size_t i = 0; i < probe->n_software; i++) {
        struct probe_software *software = &probe->software[i];

        for (size_t k = 0; k < software->n_variables; k++) {
            free(software->variables[k].name);
            free(software->variables[k].value);
        }
        free(software->variables);
    }
    free(probe->software);
    probe->software = NULL;
    probe->n_software = 0;
}

void probe_free(struct probe *probe)
{
    if (!probe)
        return;
    probe_forget_software(probe);
    free(probe->gpus);
    free(probe);
}

/* By uuid: CUDA numbers cards by speed, NVML by bus, a uuid is neither. */
unsigned probe_leased(const struct probe *probe, uint32_t mask, struct bytes *text)
{
    unsigned n = 0;

    (void)bytes_printf(text, "%s", "");
    for (size_t i = 0; i < probe->n_gpus && i < LIMIT_GPUS; i++) {
        if (!(mask & (1u << i)))
            continue;
        (void)bytes_printf(text, "%s%s", n ? "," : "", probe->gpus[i].uuid);
        n++;
    }
    return n;
}
