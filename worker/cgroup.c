/* cgroup.c - the smallest limit between our group and the root.
 *
 * In a container the path may name a place that is not mounted here; walking up from it ends at the
 * mount, which then is our own group.
 */
#include <worker/cgroup.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <proto/base/err.h>

/* The first number of a file, and the second where there is one; "max" is no number. */
static int read_numbers(const char *folder, const char *name, double *ret_first, double *ret_second)
{
    char path[PATH_MAX + 64];
    FILE *file;
    int n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "re");
    if (!file)
        return 0;
    n = fscanf(file, "%lf %lf", ret_first, ret_second);
    fclose(file);
    return n;
}

static void least_memory(struct cgroup_limits *limits, double bytes)
{
    /* Version 1 says "no limit" by a number near 2^63. */
    if (bytes <= 0 || bytes > 4e18)
        return;
    if (!limits->memory_bytes || bytes < (double)limits->memory_bytes)
        limits->memory_bytes = (uint64_t)bytes;
}

static void least_cores(struct cgroup_limits *limits, double quota, double period)
{
    if (quota <= 0 || period <= 0)
        return;
    if (limits->cores == 0 || quota / period < limits->cores)
        limits->cores = quota / period;
}

static void read_group(const char *folder, struct cgroup_limits *limits)
{
    double first = 0, second = 0, unused;

    if (read_numbers(folder, "memory.max", &first, &second) >= 1)
        least_memory(limits, first);
    if (read_numbers(folder, "memory.limit_in_bytes", &first, &second) >= 1)
        least_memory(limits, first);
    if (read_numbers(folder, "cpu.max", &first, &second) == 2)
        least_cores(limits, first, second);
    if (read_numbers(folder, "cpu.cfs_quota_us", &first, &second) >= 1 &&
        read_numbers(folder, "cpu.cfs_period_us", &second, &unused) >= 1)
        least_cores(limits, first, second);
}

/* `base` and every group on the way down to `path`. */
static void walk(const char *base, const char *path, struct cgroup_limits *limits)
{
    char folder[PATH_MAX];

    if (snprintf(folder, sizeof(folder), "%s%s", base, path) >= (int)sizeof(folder))
        return;
    for (;;) {
        char *slash = strrchr(folder, '/');

        read_group(folder, limits);
        if (strlen(folder) <= strlen(base) || !slash)
            return;
        *slash = 0;
    }
}

void cgroup_read(const char *membership, const char *mount, struct cgroup_limits *ret_limits)
{
    static const char *const controllers[] = {"memory", "cpu", "cpu,cpuacct", "cpuacct,cpu"};
    struct cgroup_limits limits = {0};
    FILE *file = fopen(membership, "re");
    char line[PATH_MAX], base[PATH_MAX];

    while (file && fgets(line, sizeof(line), file)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

        if (!path)
            continue;
        *path++ = 0;
        names++;
        path[strcspn(path, "\n")] = 0;
        if (!*names)
            walk(mount, path, &limits);
        for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
            if (strcmp(names, controllers[i]) == 0 &&
                snprintf(base, sizeof(base), "%s/%s", mount, names) < (int)sizeof(base))
                walk(base, path, &limits);
    }
    if (file)
        fclose(file);
    *ret_limits = limits;
}
