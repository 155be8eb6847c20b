/* volume.c - see volume.h. */
#include <proto/base/volume.h>

#include <sys/statvfs.h>

#define RESERVE_BYTES (256ULL << 20)

uint64_t volume_free_bytes(const char *folder)
{
    struct statvfs disk;

    return statvfs(folder, &disk) < 0 ? UINT64_MAX : (uint64_t)disk.f_bavail * disk.f_frsize;
}

uint64_t volume_reserve_bytes(const char *folder)
{
    struct statvfs disk;
    uint64_t hundredth;

    if (statvfs(folder, &disk) < 0)
        return RESERVE_BYTES;
    hundredth = (uint64_t)disk.f_blocks * disk.f_frsize / 100;
    return hundredth < RESERVE_BYTES ? hundredth : RESERVE_BYTES;
}
