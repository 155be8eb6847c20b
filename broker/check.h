/* check.h - westlight-broker --check: is all there that this state promises?
 *
 * Reads a state folder or a backup, offline or beside a running broker (of which it then sees one
 * moment); changes nothing unless told to set damaged blocks aside. Says one line a finding: what,
 * why, and the next step.
 *
 * Shape:   memory is what the broker's own recovery takes, and 33 bytes a damaged block; blocks are
 *          read by a thread a core.
 * Errors:  an exit status: 0 clean, 1 findings, 2 usage, 3 it could not look.
 */
#pragma once

#include <broker/core/core.h>
#include <proto/base/args.h>
#include <proto/block_set.h>

struct gateway;

/* What is told, by check.c and check_vault.c alike, from any thread. */
struct report;
void report_finding(struct report *report, const char *what, const char *why, const char *next);
void report_note(struct report *report, const char *what, const char *why); /* no fault */

struct vault_check {
    struct report *report;
    const char *folder; /* the vault's */
    bool quick;         /* sizes only */
    bool set_aside;
    bool running;       /* a broker puts blocks meanwhile */
    uint64_t blocks, bytes;
    struct block_set damaged, named; /* those damaged; those of them that a job names */
    uint32_t *studios;               /* of damaged.slots, in the order of `ids` */
    struct block_id *ids;
    size_t n_damaged;
};
/* Every file of the vault. Negative: it cannot be read at all. */
int vault_check_blocks(struct vault_check *check);
/* Every block that these refs blocks name is there and whole; else the number that are not, and the
 * first of them with its sentence. */
size_t vault_check_refs(struct vault_check *check, struct studio_id studio,
                        const struct block_id *refs, size_t n_refs, struct block_id *ret_first,
                        const char **ret_why);
/* What is damaged and named by nobody; and, where told to, out of the way with all of it. */
void vault_check_rest(struct vault_check *check);
void vault_check_deinit(struct vault_check *check);

extern const struct args_option command_check_options[];
int command_check(int argc, char **argv);
