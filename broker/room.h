/* room.h - how much the disk of the state folder still has, and what is refused for it.
 *
 * A disk is never written to its last byte by what could have been refused. Below the reserve
 * nothing new is taken: no submissions, no inputs. What is left then is for finishing: results come
 * in until a quarter of the reserve is left, and that quarter is the database's, so that what is
 * cancelled, paused, noted or acknowledged can still be written.
 *
 * Shape:   asked anew each time (two statvfs, a microsecond): no state to fall behind. Any thread.
 * Errors:  none; a disk that cannot be asked has room, and the write itself will tell.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <proto/limits.h>

enum room_level {
    ROOM_ENOUGH,
    ROOM_FINISH, /* nothing new */
    ROOM_SHORT,  /* nor results: workers keep them */
};

struct room {
    char state[LIMIT_PATH_BYTES], vault[LIMIT_PATH_BYTES]; /* may be on disks of their own */
    uint64_t reserve_bytes;
};

/* `reserve_bytes` 0: volume_reserve_bytes. */
int room_init(struct room *room, const char *state, uint64_t reserve_bytes);
/* `coming_bytes` are accepted and not yet written. *ret_free_bytes (may be NULL) is without them.
 */
enum room_level room_look(const struct room *room, uint64_t coming_bytes, uint64_t *ret_free_bytes);
/* What everybody is told: how much is left says how much others bring. */
#define ROOM_WHY "the farm's disk is full"
/* For operators and the log: "the farm's disk is full (12 MB left)". */
const char *room_why(uint64_t free_bytes, char text[64]);
#define ROOM_NEXT "nothing new is taken until the operator frees space; what runs goes on"
