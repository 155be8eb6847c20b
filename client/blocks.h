/* blocks.h - a bulk link for one studio, opened when there is something to move.
 *
 * Shape:   a pass and a transfer; a pass that has expired or is used up is asked for again, once for
 *          each call.
 * Owns:    struct blocks lies with its caller; blocks_deinit closes the link.
 * Errors:  WESTLIGHT_E_*, -errno, with westlight_why.
 */
#pragma once

#include <client/connection.h>
#include <proto/transfer.h>

struct blocks {
    struct westlight *westlight;
    struct transfer *transfer;       /* NULL until it is needed */
    uint64_t write_bytes;            /* what the pass asks for; 0: to read */
    uint64_t grace_ns;               /* what was put is kept so long for; 0: no pass yet */
    uint64_t sent, received;         /* on links that are closed */
    /* May be NULL: called often while blocks move, and ends that where it is not 0. */
    int (*tick)(void *user);
    void *user;
    int ticked; /* what it said last */
};

void blocks_deinit(struct blocks *blocks);
int blocks_have(struct blocks *blocks, const struct block_id *ids, size_t n_ids, bool *ret_missing);
int blocks_put(struct blocks *blocks, size_t n, bool plain, transfer_source *source, void *user);
int blocks_offer(struct blocks *blocks, const struct transfer_offer *how); /* which has `begin` */
int blocks_get(struct blocks *blocks, const struct transfer_want *wants, size_t n,
               transfer_sink *sink, void *user);
int blocks_stream_go(struct blocks *blocks, struct transfer_stream *stream, bool wait);
/* What a stream says of one block, said as the others say it. */
int blocks_lack(struct blocks *blocks, int lack, const char *why);
/* One block that a message refers to, from the message itself or from the vault, opened. */
int blocks_open_ref(struct blocks *blocks, const uint8_t secret[32], const Wl__BlockRef *ref,
                    struct bytes *out);
uint64_t blocks_sent(const struct blocks *blocks);
uint64_t blocks_received(const struct blocks *blocks);
/* What a seal error means to a person; 0 stays 0. */
int blocks_opened(struct westlight *westlight, int seal_result, const char *what);
