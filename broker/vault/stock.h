/* stock.h - how many bytes of blocks each studio has in the vault.
 *
 * The idea: one number a folder of the vault, changed with its files under one lock, and set by
 * whoever counts a folder under the same lock. So it is exact from the first count on, and what was
 * put before that is not counted twice.
 *
 * Shape:   256 numbers a studio. Until a folder is counted, only what came since the start is in
 * it. Threads: any; stock_bytes and stock_coming wait for nobody who counts a folder.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <broker/core/core.h>

struct stock_studio;

struct stock {
    pthread_mutex_t lock, numbers; /* the second is held for no longer than it takes to add */
    struct stock_studio **studios; /* in the order of their ids */
    size_t n_studios;
    atomic_bool counted; /* every folder, once */
};

void stock_init(struct stock *stock);
void stock_deinit(struct stock *stock);
/* With the lock held, which is the caller's to take: around the change of the files, too. Where
 * there is no memory the studio is not counted, and has no quota for it. */
void stock_change(struct stock *stock, struct studio_id studio, uint8_t folder, int64_t bytes);
void stock_set(struct stock *stock, struct studio_id studio, uint8_t folder, uint64_t bytes);
/* Those that are being put (less: no more) are in the sum as well. Neither needs the lock. */
void stock_coming(struct stock *stock, struct studio_id studio, int64_t bytes);
uint64_t stock_bytes(struct stock *stock, struct studio_id studio);
