/* backup.h - a copy of a broker's state while it runs, and the way back.
 *
 * Files:   DIR/backup (a text: whose it is; written last), DIR/state/state.db, DIR/state/vault,
 *          DIR/keys/broker.key and master.key, which open what the database and the vault hold and
 *          may be kept elsewhere. An unfinished first one has DIR/unfinished instead of DIR/backup.
 * Blocks:  never change, so only new ones are brought: by a link on the same file system, else by a
 *          copy. None is removed from a backup.
 * Marks:   the copy of the database carries a mark by which its first start uses no epoch and no
 *          sequence that the broker has used since (store_copy).
 * Order:   blocks, the snapshot of the database, blocks. What the snapshot names was in the vault at
 *          that moment: brought before, though its job be forgotten and swept right after; or it
 *          came since, and the grace keeps it until it is brought, unless the backup takes longer.
 * Relies:  on blocks being in the vault before the record that names them, and on the sweeper
 *          leaving what a job or result in the database names.
 */
#pragma once

#include <stdbool.h>
#include <proto/base/args.h>
#include <proto/base/bytes.h>
#include <proto/limits.h>

/* Where things lie in a state folder, or in a backup. */
struct backup_place {
    char state[LIMIT_PATH_BYTES], keys[LIMIT_PATH_BYTES];
    bool backup;
    bool keys_apart; /* a backup whose keys are kept elsewhere */
};
/* `keys` may be NULL. Not 0 where `path` is neither; `why` says what to do. */
int backup_find(const char *path, const char *keys, struct backup_place *ret_place,
                struct bytes *why);

extern const struct args_option command_backup_options[];
extern const struct args_option command_restore_options[];
int command_backup(int argc, char **argv);
int command_restore(int argc, char **argv);
