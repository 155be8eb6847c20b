/* landing.c - see landing.h. */
#include <client/landing.h>

#include <fcntl.h>
#include <string.h>

static void land(void *item)
{
    struct landing_file *file = item;

    file->result = manifest_name_file(&file->made, true, file->force ? NULL : &file->stood);
}

bool landing_full(const struct landing *landing)
{
    return crew_size(&landing->crew) == LANDING_FILES;
}

bool landing_has(const struct landing *landing, const char *path)
{
    for (size_t i = 1; i <= crew_size(&landing->crew); i++)
        if (strcmp(landing->files[(landing->next + LANDING_FILES - i) % LANDING_FILES].path,
                   path) == 0)
            return true;
    return false;
}

uint64_t landing_arrival(const struct landing *landing, uint64_t least)
{
    for (size_t i = 1; i <= crew_size(&landing->crew); i++) {
        uint64_t arrival =
            landing->files[(landing->next + LANDING_FILES - i) % LANDING_FILES].arrival;
        least = arrival < least ? arrival : least;
    }
    return least;
}

void landing_add(struct landing *landing, const struct landing_file *file)
{
    struct landing_file *to = &landing->files[landing->next++ % LANDING_FILES];

    landing->next %= LANDING_FILES;
    landing->crew.run = land;
    landing->crew.n_max = CREW_THREADS;
    *to = *file;
    /* Begins the write, so that one sync of the file system's journal serves many that follow. */
    if (to->made.fd >= 0)
        (void)sync_file_range(to->made.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    crew_add(&landing->crew, to);
}

const struct landing_file *landing_take(struct landing *landing, bool wait)
{
    return crew_take(&landing->crew, wait);
}

void landing_deinit(struct landing *landing)
{
    crew_deinit(&landing->crew);
}
