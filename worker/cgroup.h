/* cgroup.h - what this process's control groups leave it: processor time and memory.
 *
 * Errors:  none; what cannot be read is no limit.
 * Source:  cgroups(7), versions 1 and 2: memory.max, cpu.max; memory.limit_in_bytes, cpu.cfs_*.
 */
#pragma once

#include <stdint.h>

struct cgroup_limits {
    double cores;          /* 0: no limit */
    uint64_t memory_bytes; /* 0: no limit */
};

/* `membership` is as /proc/self/cgroup, `mount` as /sys/fs/cgroup. */
void cgroup_read(const char *membership, const char *mount, struct cgroup_limits *ret_limits);
