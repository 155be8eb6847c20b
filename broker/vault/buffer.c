/* buffer.c - memory for blocks: large ones lie in buffers of one size, of which some are kept.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <broker/vault/disk.h>
#include <proto/limits.h>

enum { BUFFER_BYTES = (LIMIT_SEALED_BYTES + DISK_ALIGN - 1) / DISK_ALIGN * DISK_ALIGN };
enum { BUFFERS_SPARE = 32, BUFFER_SMALL_BYTES = 64 /* what malloc takes beside a small one */ };

static struct {
    pthread_mutex_t lock;
    uint8_t *spare[BUFFERS_SPARE];
    size_t n;
} buffers = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint8_t *buffer_take(void)
{
    pthread_mutex_lock(&buffers.lock);
    uint8_t *data = buffers.n ? buffers.spare[--buffers.n] : NULL;
    pthread_mutex_unlock(&buffers.lock);
    if (data)
        return data;
    data = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

size_t vault_buffer_room(size_t size)
{
    return size < DISK_DIRECT_BYTES ? size + BUFFER_SMALL_BYTES : BUFFER_BYTES;
}

uint8_t *vault_buffer(size_t size)
{
    if (size < DISK_DIRECT_BYTES)
        return malloc(size + 1);
    uint8_t *data = buffer_take();

    if (data)
        memset(data + size, 0, disk_aligned(size) - size); /* it is written, and then cut off */
    return data;
}

void vault_buffer_free(uint8_t *data, size_t size)
{
    if (!data || size < DISK_DIRECT_BYTES) {
        free(data);
        return;
    }
    pthread_mutex_lock(&buffers.lock);
    bool kept = buffers.n < BUFFERS_SPARE;
    if (kept)
        buffers.spare[buffers.n++] = data;
    pthread_mutex_unlock(&buffers.lock);
    if (!kept)
        munmap(data, BUFFER_BYTES);
}
