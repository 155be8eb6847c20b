/* faulty_disk.h - a layer between SQLite and the disk that counts syncs and fails on demand.
 *
 * Shape:   faulty_register makes it the default; afterwards every file that SQLite opens goes
 *          through it. fail_code_write and fail_code_sync are SQLite codes, 0 is no failure.
 * Source:  sqlite.org/vfs.html.
 */
#pragma once

#include <sqlite3.h>
#include <stdatomic.h>

static atomic_int fail_code_write, fail_code_sync, syncs;
static sqlite3_vfs faulty;
static sqlite3_vfs *real_vfs;
/* The database's own file has other methods (with locks) than its log. */
static const sqlite3_io_methods *real_methods[2];
static sqlite3_io_methods faulty_methods[2];

static const sqlite3_io_methods *real_of(const sqlite3_file *file)
{
    return real_methods[file->pMethods == &faulty_methods[1]];
}

static int faulty_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 at)
{
    int code = atomic_load(&fail_code_write);
    return code ? code : real_of(file)->xWrite(file, data, size, at);
}

static int faulty_sync(sqlite3_file *file, int flags)
{
    int code = atomic_load(&fail_code_sync);
    atomic_fetch_add(&syncs, 1);
    return code ? code : real_of(file)->xSync(file, flags);
}

static int faulty_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
                       int *ret_flags)
{
    int code = real_vfs->xOpen(real_vfs, name, file, flags, ret_flags);
    if (code == SQLITE_OK && file->pMethods) {
        int own = !!(flags & SQLITE_OPEN_MAIN_DB);
        if (!real_methods[own]) {
            real_methods[own] = file->pMethods;
            faulty_methods[own] = *file->pMethods;
            faulty_methods[own].xWrite = faulty_write;
            faulty_methods[own].xSync = faulty_sync;
        }
        file->pMethods = &faulty_methods[own];
    }
    (void)vfs;
    return code;
}

static void faulty_register(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    faulty = *real_vfs;
    faulty.zName = "faulty";
    faulty.xOpen = faulty_open;
    sqlite3_vfs_register(&faulty, 1);
}
