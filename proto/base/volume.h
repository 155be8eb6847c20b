/* volume.h - what the disk below a folder still has, and how much of it is kept back by default.
 *
 * Shape:   asked anew each time (statvfs, half a microsecond).
 * Errors:  none; a disk that cannot be asked has room, and the write itself will tell.
 */
#pragma once

#include <stdint.h>

uint64_t volume_free_bytes(const char *folder);
/* 256 MiB, or a hundredth of a smaller disk. */
uint64_t volume_reserve_bytes(const char *folder);
