/* room.c - see room.h. */
#include <errno.h>
#include <stdio.h>
#include <broker/room.h>
#include <proto/base/volume.h>

/* Of the reserve, for the database alone. */
#define SHORT_OF_RESERVE 4

int room_init(struct room *room, const char *state, uint64_t reserve_bytes)
{
    if ((size_t)snprintf(room->state, sizeof room->state, "%s", state) >= sizeof room->state ||
        (size_t)snprintf(room->vault, sizeof room->vault, "%s/vault", state) >= sizeof room->vault)
        return -ENAMETOOLONG;
    room->reserve_bytes = reserve_bytes ? reserve_bytes : volume_reserve_bytes(state);
    return 0;
}

enum room_level room_look(const struct room *room, uint64_t coming_bytes, uint64_t *ret_free_bytes)
{
    uint64_t free_bytes = volume_free_bytes(room->state), vault = volume_free_bytes(room->vault);

    if (vault < free_bytes)
        free_bytes = vault;
    if (ret_free_bytes)
        *ret_free_bytes = free_bytes;
    free_bytes = free_bytes > coming_bytes ? free_bytes - coming_bytes : 0;
    if (free_bytes >= room->reserve_bytes)
        return ROOM_ENOUGH;
    return free_bytes >= room->reserve_bytes / SHORT_OF_RESERVE ? ROOM_FINISH : ROOM_SHORT;
}

const char *room_why(uint64_t free_bytes, char text[64])
{
    snprintf(text, 64, ROOM_WHY " (%llu MB left)",
             (unsigned long long)(free_bytes / 1000000));
    return text;
}
