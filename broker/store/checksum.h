/* checksum.h - a number over each row, because SQLite has none over its pages: a bit that turns
 * over on the disk would otherwise be a valid row that says something else. Private to
 * broker/store.
 *
 * Form:    64 bits, by 8-byte words: h = (h ^ word) * odd, h ^= h >> 32. Each step is one to one, so
 *          whatever happens within one word is always seen; more goes unseen once in 2^64.
 *          Against accidents, not against whoever can write the file.
 * Covers:  all that recovery and readers take from a row. The current name, priority, state and
 *          reason of a job, for people with sqlite3, are not read back, and not covered.
 */
#pragma once

#include <broker/store/tokens.h>

struct pack;

/* `number` is the job's, where the row has it; 0. */
int64_t checksum_record(const struct record *record, int64_t number);
int64_t checksum_key(const struct key_row *row, int64_t added_wall_s);
int64_t checksum_studio(uint32_t id, const char *name, uint32_t weight, uint64_t quota_bytes);
int64_t checksum_token(const struct token_row *row);
int64_t checksum_newcomer(const struct newcomer_row *row); /* but whether it waits */
int64_t checksum_pack(const struct pack *pack);
/* 56 bits of one result, so that those of a row of table done can be added up, by the database as
 * well, whatever their order. */
uint64_t checksum_task(int64_t number, uint32_t step, uint32_t floor, uint64_t task);
