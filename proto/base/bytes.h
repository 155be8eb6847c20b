/* bytes.h - a growable buffer, hexadecimal, wiping, and whole-file reads and writes.
 *
 * Owns:    a struct bytes owns `data`; bytes_deinit frees it (bytes_wipe_deinit clears it first).
 * Errors:  -ENOMEM; file calls return -errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <proto/base/err.h>

struct bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

void bytes_deinit(struct bytes *bytes); /* also _cleanup_(bytes_deinit) */
void bytes_wipe_deinit(struct bytes *bytes);
int bytes_reserve(struct bytes *bytes, size_t capacity);
int bytes_append(struct bytes *bytes, const void *data, size_t size);
int bytes_printf(struct bytes *bytes, const char *format, ...) _printf_(2, 3); /* keeps a NUL after */

/* For a program that moves blocks, before its first thread: memory of the size of a block is kept
 * where it was freed, up to some tens of MiB, instead of being given back and faulted in again. */
void memory_keep(void);

/* "%zu file%s", n, plural(n) */
static inline const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* `text` holds 2 * size + 1 bytes. Lower case. */
char *hex_encode(const void *data, size_t size, char *text);
int hex_decode(const char *text, void *ret_data, size_t size); /* -EINVAL unless exactly 2 * size */

void wipe(void *data, size_t size); /* not removed by the optimiser */
bool bytes_equal_secret(const void *a, const void *b, size_t size); /* in constant time */
int random_bytes(void *ret_data, size_t size);                       /* getrandom */

/* Whole files. What is written is synced before it has a name, and the folder after that; whoever is
 * killed meanwhile leaves nothing half done, nor a temporary name that the next write does not take
 * away. A new one never replaces: -EEXIST. */
int file_read(const char *path, size_t limit_bytes, struct bytes *ret_bytes); /* -EFBIG past it */
int file_write(const char *path, const void *data, size_t size, unsigned mode);
int file_write_new(const char *path, const void *data, size_t size, unsigned mode);

/* The two halves of that: a file without a name, -1 where the file system makes none or no /proc
 * names it; and its name, once it is whole. `spare` is a name in the same folder for the moment of
 * replacing. */
int nameless_open(int folder, unsigned mode);
int nameless_name(int fd, int folder, const char *spare, const char *name, bool replace);

int folder_make(const char *path, unsigned mode); /* with its parents; an existing one is fine */
int folder_sync(const char *path);
/* And all below it, read-only folders too; never follows a link. What cannot be removed keeps
 * nothing else: the rest goes, and the first error is returned. */
int folder_remove(const char *path);
int fd_write_all(int fd, const void *data, size_t size);
int fd_read_all(int fd, void *ret_data, size_t size, size_t *ret_read);
