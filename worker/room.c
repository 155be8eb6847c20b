/* room.c - see room.h. */
#include <worker/room.h>

#include <poll.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <proto/base/volume.h>

#define LOOK_MS 500
/* Less than the reserve may be enough all the same: it is tried as often as this. */
#define TRY_NS (30 * NS_PER_S)

bool room_short(struct task_board *board)
{
    bool before = atomic_load(&board->no_room), now;
    /* A little more to end it than to begin it, so that it is not said twice a second. */
    uint64_t wanted_bytes = board->reserve_bytes + (before ? board->reserve_bytes / 8 : 0);
    uint64_t free_bytes = volume_free_bytes(board->state);

    if (free_bytes < wanted_bytes && cache_give_up(board->cache, wanted_bytes - free_bytes) > 0)
        free_bytes = volume_free_bytes(board->state);
    now = free_bytes < wanted_bytes;
    if (atomic_exchange(&board->no_room, now) == now)
        return now;
    if (now)
        log_warn("disk",
                 "path=%s free_mb=%llu why=\"full: nothing new is taken, what runs goes on\""
                 " next=\"free space there\"",
                 board->state, (unsigned long long)(free_bytes / 1000000));
    else
        log_info("disk", "path=%s free_mb=%llu", board->state,
                 (unsigned long long)(free_bytes / 1000000));
    task_board_poke(board);
    return now;
}

static bool stopped(struct task *task)
{
    return atomic_load(&task->stop) || atomic_load(&task->board->closing);
}

bool room_wait(struct task *task, int64_t *since_ns)
{
    int64_t now_ns = clock_monotonic_ns(), try_ns = now_ns + TRY_NS;
    bool full = true;

    log_warn("result-waits", "step=%u task=%llu attempt=%llu why=\"the disk is full\"",
             task->lease.step, (unsigned long long)task->lease.task,
             (unsigned long long)task->lease.attempt);
    for (; full && now_ns < try_ns && !stopped(task); now_ns = clock_monotonic_ns()) {
        full = room_short(task->board);
        if (full)
            *since_ns = now_ns;
        else if (now_ns - *since_ns >= ROOM_PATIENCE_NS)
            return false;
        (void)poll(NULL, 0, LOOK_MS);
    }
    return !stopped(task);
}
