/* transfer.h - get and put of blocks over one bulk link, windowed by bytes in flight.
 *
 * The idea: the asker holds the window. It knows each block's sealed size, so it never has more
 * than window_bytes asked for (get) or unacknowledged (put); nothing waits for a round trip, and
 * nothing more than the window is sent twice after a break.
 *
 * Calls block the calling thread, up to their deadline of silence: `patience_ns` without a single
 * answer is -ETIMEDOUT. They survive a lost connection by opening again and asking anew for what
 * is missing. `stop`, where not NULL, is polled; a true value ends the call with -ECANCELED. So does
 * a false `tick`, which is called all the while, twenty times a second at the least.
 * Errors:  -errno; TRANSFER_E_*; transfer_why says the rest in words.
 */
#pragma once

#include <stdatomic.h>
#include <proto/link.h>
#include <proto/seal.h>

enum {
    TRANSFER_E_REFUSED = 1, /* the pass was refused, or has expired */
    TRANSFER_E_MISSING = 2, /* the vault has no such block */
    TRANSFER_E_FULL = 3,    /* the broker is busy, or the pass's limit is reached */
    TRANSFER_E_CORRUPT = 4, /* bytes that are not those of their id */
    TRANSFER_E_DAMAGED = 5, /* on the broker's disk, which does not give it out */
    TRANSFER_E_DISK = 6,    /* the broker's disk is full: somebody will free space */
    TRANSFER_E_QUOTA = 7,   /* the studio's quota, or what a lease may write: waiting would not help */
    TRANSFER_E_BROKER = 8,  /* something failed at the broker, which may mend: its log says what */
};

struct transfer_config {
    void *context;             /* link_context_new */
    const char *endpoint;
    struct link_key server;
    const struct link_keypair *keys;
    const void *pass;
    size_t pass_size;
    size_t window_bytes;       /* 0: LIMIT_WINDOW_BYTES */
    int64_t patience_ns;       /* 0: 30 s */
    const atomic_bool *stop;   /* may be NULL */
    bool (*tick)(void *user);  /* may be NULL */
    void *user;
};

struct transfer;
int transfer_new(const struct transfer_config *config, struct transfer **ret_transfer);
void transfer_free(struct transfer *transfer);
DEFINE_CLEANUP(struct transfer *, transfer_free)
/* What went wrong, as "what: why: next", for a person. */
const char *transfer_why(const struct transfer *transfer);
uint64_t transfer_bytes_sent(const struct transfer *transfer);
uint64_t transfer_bytes_received(const struct transfer *transfer);

/* ret_missing[i] is set where the vault lacks ids[i]; any number of ids. "Have" is said only of
 * durable blocks. */
int transfer_have(struct transfer *transfer, const struct block_id *ids, size_t n_ids,
                  bool *ret_missing);

/* Produces block `i` as sealed bytes, on demand and once unless the link broke. Returns 0 or an
 * error that ends the call. `out` comes empty, and what is put there is sent without a copy. */
typedef int transfer_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id);
/* Puts n blocks; 0 only when every one is durable. `plain` marks refs blocks. */
int transfer_put(struct transfer *transfer, size_t n, bool plain, transfer_source *source, void *user);

/* A stream of blocks: the vault is asked which it lacks, and those are put, all of it side by side.
 * Returns 0 when every block is there. */
struct transfer_block {
    struct block_id id;
    const void *sealed; /* NULL: it must be there, or it is TRANSFER_E_MISSING */
    size_t size;
    void *tag; /* the caller's */
};
enum { TRANSFER_LATER = 101, TRANSFER_NO_MORE = 102 };
struct transfer_offer {
    void (*begin)(void *user); /* may be NULL: `next` goes on with the oldest that is not done */
    /* The next block, whose bytes stay until it is done; TRANSFER_LATER where wake_fd tells when;
     * TRANSFER_NO_MORE. Never waits. */
    int (*next)(void *user, struct transfer_block *ret_block);
    void (*done)(void *user, const struct transfer_block *block, bool sent);
    int wake_fd;   /* an eventfd, not blocking */
    bool ask_only; /* nothing is put: "sent" is what would be */
    void *user;
};
int transfer_offer(struct transfer *transfer, const struct transfer_offer *how);

struct transfer_want {
    struct block_id id;
    uint32_t sealed_bytes;
};
/* Called in any order, each index once; the bytes match their id. An error ends the call. */
typedef int transfer_sink(void *user, size_t i, const void *sealed, size_t size);
int transfer_get(struct transfer *transfer, const struct transfer_want *wants, size_t n,
                 transfer_sink *sink, void *user);

/* Blocks that come while others are used: as room is made, more is asked for, and the link is not
 * left idle between two calls. */
struct transfer_stream;
struct transfer_coming {
    /* The next to ask for, with a tag of the caller's; TRANSFER_LATER: none now. Never waits. */
    int (*next)(void *user, struct transfer_want *ret_want, void **ret_tag);
    /* Once for each, in any order. 0: the bytes match their id. TRANSFER_E_MISSING, _CORRUPT, _DAMAGED,
     * with transfer_why: this one cannot be had; the others come. An error returned ends the call. */
    int (*came)(void *user, void *tag, int result, const void *sealed, size_t size);
    void *user;
};
int transfer_stream_new(const struct transfer_coming *how, struct transfer_stream **ret_stream);
void transfer_stream_free(struct transfer_stream *stream);
/* Asks for what is due and takes what has come; with `wait`, which is for when something is due or
 * under way, until one has come. After an error, and over a transfer that is new, what has not come is
 * asked for again.
 * No other call over that transfer while something is under way: it would not keep that. */
int transfer_stream_go(struct transfer_stream *stream, struct transfer *transfer, bool wait);
