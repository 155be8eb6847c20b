/* connection.h - one control link: it is opened, comes back by itself, and answers requests.
 *
 * The idea: a request is a number and a message that may be sent again. Whenever the link comes
 * back, the broker is greeted anew, what is being waited for is repeated under its number (a
 * mutating request under its request_id as well), and watches are renewed. So no other code knows
 * that a link can break.
 *
 * Shape:   one request at a time; notices that arrive meanwhile are kept, the newest of each job.
 * Units:   *_ns is monotonic nanoseconds; a timeout is a span, a deadline a time.
 * Owns:    answers are the caller's (wire_free). Scratch memory lives until the next public call.
 * Errors:  WESTLIGHT_E_*, -errno; westlight->why says the rest.
 */
#pragma once

#include <stdatomic.h>

#include <client/westlight.h>
#include <proto/base/clock.h>
#include <proto/base/err.h>
#include <proto/link.h>
#include <proto/seal.h>
#include <proto/state.h>
#include <proto/wire.h>

#define CONNECTION_TIMEOUT_NS (30 * NS_PER_S)
/* A submission waits for the vault to pin up to eight million blocks. */
#define CONNECTION_SUBMIT_NS (120 * NS_PER_S)
#define CONNECTION_WATCHES   16
/* Handshakes that may fail, since a broker that goes down in the middle of one looks as if it did not
 * know the key: before the first welcome, when an unknown key is likely, and after it. */
#define CONNECTION_REFUSALS_FIRST 2
#define CONNECTION_REFUSALS       20
#define CONNECTION_AWAY_NS  (5 * NS_PER_S) /* a broker's restart takes less */
#define CONNECTION_RENEW_NS (250 * NS_PER_MS)

struct look_steps; /* look.h: what a job's tasks are called */

struct westlight_watch {
    uint8_t job[16];
    struct look_steps *steps;
    Wl__Envelope *notice; /* the newest that was not yet given out */
};

struct westlight {
    struct westlight_farm farm;
    struct link_keypair keys;
    struct link_key server;
    uint8_t secret[32]; /* the studio's */
    bool has_secret;
    void *context, *socket, *monitor;
    struct wire_inbox inbox; /* of socket */
    struct sealer *sealer;

    enum link_status status;
    bool greeted; /* a Hello is on its way or answered */
    bool welcome;
    uint64_t hello;      /* its number */
    int64_t hello_ns;    /* none before */
    unsigned refusals;   /* in a row, since the link was last up */
    uint32_t generation; /* Welcomes so far: what was sent under an older one is sent again */
    bool disk_full;      /* the last that the broker said to a Hello */
    westlight_link *on_link;
    void *link_user;
    int64_t away_ns; /* since when nobody answers; 0: they do */
    bool told_away;
    unsigned full_tries; /* Hellos that met a full disk before there was a welcome */
    uint64_t request;
    uint32_t role, epoch;
    char studio[LIMIT_NAME_BYTES + 1];
    char trouble[LIMIT_MESSAGE_BYTES + 1]; /* of the last list of workers */
    char bulk[256]; /* as the broker says */

    atomic_bool stop;
    int stop_fd;
    enum code refusal; /* of the last request that was refused */
    char why[1024];

    struct westlight_watch watches[CONNECTION_WATCHES];
    size_t n_watches;
    Wl__Envelope *held; /* what rows given to the caller borrow from */
    void **scratch;
    size_t n_scratch;
};

/* Opens a link to the farm of these keys. */
int connection_open(struct westlight *westlight);
/* Waits until the broker has greeted. */
int connection_welcome(struct westlight *westlight, int64_t deadline_ns);
/* Every public call begins here: the last call's memory and message are gone. */
void connection_begin(struct westlight *westlight);
/* Sets `why` and returns `code`. */
int connection_fail(struct westlight *westlight, int code, const char *format, ...) _printf_(3, 4);
/* A stop was asked for and seen: the next call begins afresh. WESTLIGHT_E_STOPPED. */
int connection_stopped(struct westlight *westlight);
/* Zeroed memory that lives until the next call; NULL where there is none. */
void *connection_scratch(struct westlight *westlight, size_t n, size_t size);

/* Sends and waits for an answer of that kind; numbers the request itself. */
int connection_call(struct westlight *westlight, Wl__Envelope *request,
                    Wl__Envelope__BodyCase expected, int64_t timeout_ns, Wl__Envelope **ret_answer);
/* Sends and does not wait: it is lost with its link, and its answer is for connection_glance. */
int connection_post(struct westlight *westlight, Wl__Envelope *message);
/* Keeps the link up and takes an answer that has come, without waiting; NULL: there is none. */
int connection_glance(struct westlight *westlight, Wl__Envelope **ret_answer);
/* Waits for a notice on any watch. WESTLIGHT_E_TIMEOUT. deadline_ns 0: for ever. */
int connection_notice(struct westlight *westlight, int64_t deadline_ns,
                      struct westlight_watch **ret_watch);
/* Watches a job from now on, through every reconnection. */
int connection_watch(struct westlight *westlight, const uint8_t job[16],
                     struct westlight_watch **ret_watch);
void connection_unwatch(struct westlight *westlight, const uint8_t job[16]);
/* Sleeps, but not through westlight_stop. 0 when the time has passed. */
int connection_sleep(struct westlight *westlight, int64_t span_ns);
/* The endpoint for blocks: the farm's, else the broker's, else control's host and next port. */
int connection_bulk(const struct westlight *westlight, char *ret_endpoint, size_t size);

/* connection_begin of a call on one job: 32 hexadecimal digits, or WESTLIGHT_E_USAGE. */
int connection_begin_job(struct westlight *westlight, const char *id, uint8_t ret_job[16]);
