/* cut.c - see cut.h. Before CUT_USUAL a cut takes more agreeing bits than after it, which keeps
 * sizes together: few blocks are small, and hardly one is cut only because it is full, where a cut
 * would depend on where the block began.
 *
 * Source: Xia and others, "FastCDC", USENIX ATC 2016 (gear hash, normalised chunking).
 */
#include <proto/cut.h>

#include <string.h>

#include <proto/limits.h>
#include <proto/seal.h>

/* The upper bits, which depend on all of the last 64 bytes: one place in 2^20, and in 2^16. */
#define SELDOM 0xfffff00000000000ULL
#define OFTEN  0xffff000000000000ULL
enum { REACH = 64 };

void cutter_init(struct cutter *cutter, const uint8_t secret[32])
{
    for (uint32_t i = 0; i < 256; i += 4) {
        uint8_t mac[32];

        mac2(secret, "gear1", 5, &i, sizeof(i), mac);
        for (uint32_t k = 0; k < 32; k++)
            cutter->gear[i + k / 8] = cutter->gear[i + k / 8] << 8 | mac[k];
    }
}

size_t cutter_length(const struct cutter *cutter, const uint8_t *data, size_t size)
{
    uint64_t hash = 0;
    size_t i = CUT_LEAST - REACH, usual = size < CUT_USUAL ? size : CUT_USUAL;

    if (size <= CUT_LEAST)
        return size;
    for (; i < CUT_LEAST; i++)
        hash = (hash << 1) + cutter->gear[data[i]];
    for (; i < usual; i++) {
        hash = (hash << 1) + cutter->gear[data[i]];
        if ((hash & SELDOM) == 0)
            return i + 1;
    }
    for (; i < size; i++) {
        hash = (hash << 1) + cutter->gear[data[i]];
        if ((hash & OFTEN) == 0)
            return i + 1;
    }
    return size;
}

/* The larger the file the likelier, so that blocks are as large whatever the files. */
bool cutter_ends(const struct cutter *cutter, const char *name, size_t length, uint64_t size,
                 uint64_t usual)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < length; i++)
        hash = (hash << 1 | hash >> 63) + cutter->gear[(uint8_t)name[i]];
    hash *= 0x9e3779b97f4a7c15ULL;
    return (hash >> 32) * usual < size << 32;
}

bool cutter_parts(const struct cutter *cutter, const char *path, uint64_t size)
{
    return cutter_ends(cutter, path, strlen(path), size, CUT_SHARED);
}
