/* noted.c - see noted.h. */
#include <string.h>
#include <broker/store/noted.h>

static uint64_t hash_of(const struct job_id *job, struct task_id task)
{
    uint64_t hash;

    memcpy(&hash, job->bytes, sizeof hash);
    hash = ((hash ^ task.step) * 0x9e3779b97f4a7c15u ^ task.index) * 0x9e3779b97f4a7c15u;
    return hash >> 32 & (NOTED_BITS - 1);
}

void noted_add(struct noted *noted, const struct job_id *job, struct task_id task)
{
    uint64_t hash = hash_of(job, task);

    noted->words[hash / 64] |= UINT64_C(1) << hash % 64;
    noted->added++;
}

bool noted_has(const struct noted *noted, const struct job_id *job, struct task_id task)
{
    uint64_t hash = hash_of(job, task);

    return noted->words[hash / 64] >> hash % 64 & 1;
}

int noted_read(struct noted *noted, sqlite3_stmt *rows)
{
    struct job_id job;
    int code;

    memset(noted->words, 0, sizeof noted->words);
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        database_column_bytes(rows, 0, job.bytes, sizeof job.bytes);
        noted_add(noted, &job,
                  (struct task_id){(uint32_t)sqlite3_column_int64(rows, 1),
                                   (uint64_t)sqlite3_column_int64(rows, 2)});
    }
    noted->added = 0;
    sqlite3_reset(rows);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}
