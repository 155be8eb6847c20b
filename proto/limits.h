/* limits.h - every maximum, once, with its reason.
 *
 * A peer that goes past one is refused by name; nothing is cut short in silence. Unless a line
 * says otherwise a limit is a count, and `_bytes`, `_ns`, `_s` say when it is not.
 */
#pragma once

/* Wire. Control messages stay small so that one peer cannot hold the loop; 64 KiB also bounds
 * what libzmq will buffer for a peer before it has proved who it is. */
#define LIMIT_CONTROL_BYTES          (64 * 1024)
#define LIMIT_NEWCOMERS              (4096) /* connections that have said nothing yet: as many as are greeted in 5 s */
#define LIMIT_PACKET                 (1024) /* envelopes in one control message */
/* A block is at most 1 MiB of data; the bulk frame adds a header, the body header and a tag. */
#define LIMIT_BLOCK_BYTES            (1024 * 1024)
#define LIMIT_BLOCK_OVERHEAD_BYTES   (64)
#define LIMIT_SEALED_BYTES           (LIMIT_BLOCK_BYTES + LIMIT_BLOCK_OVERHEAD_BYTES)
#define LIMIT_BULK_BYTES             (LIMIT_SEALED_BYTES)
#define LIMIT_WIRE_FRAMES            (2) /* after the routing id: a header, and on bulk its data */
#define LIMIT_HAVE_IDS               (16384) /* 512 KiB of ids in one question */
#define LIMIT_BULK_HEADER_BYTES      (LIMIT_HAVE_IDS * 32 + 16 * 1024)
#define LIMIT_REFS_PER_BLOCK         (32760) /* plain ids that fit one refs block */
#define LIMIT_REFS_BLOCKS            (256)   /* 8 million blocks: 8 TiB under one job */
#define LIMIT_MANIFEST_BLOCKS        (256)   /* 256 MiB of manifest: about two million files */
#define LIMIT_LEAVES                 (1024)  /* blocks of one root's manifest, which is read in part */
#define LIMIT_LEAF_NAMES             (8)     /* endings of the names in one leaf */
#define LIMIT_LEAF_BYTES             (256)   /* of names in all: a recipe is one block, with every leaf's */
#define LIMIT_LEAF_DIGITS            (18)    /* of a frame's number: it fits 64 bits */
#define LIMIT_MANIFEST_FILES         (1u << 21)
#define LIMIT_MISSING_IDS            (1024)  /* how many missing ids one reply names */
#define LIMIT_INLINE_BYTES           (1024)  /* a small sealed manifest rides in the record */
#define LIMIT_RECIPE_INLINE_BYTES    (16 * 1024) /* a small sealed recipe rides in SUBMIT, ASSIGN */
#define LIMIT_LOG_SEGMENT_BYTES      (32 * 1024) /* one live piece of a task's output */
#define LIMIT_LOG_BYTES              (8 * 1024 * 1024) /* kept of one attempt: head and tail */
#define LIMIT_WINDOW_BYTES           (32 * 1024 * 1024) /* 16 ms at 10 Gbit/s is 20 MB */

/* Joining: strangers with a token speak here, so all of it is small. */
#define LIMIT_ENROL_BYTES            (4096)
#define LIMIT_ENROL_PEERS            (1024)  /* that may hold a link before all of them are put out */
#define LIMIT_ENROL_REFUSE_NS        (200LL * 1000000) /* every refusal takes as long */
#define LIMIT_TOKEN_S                (30 * 86400) /* the longest that a token can be good for */

/* Names, as a person types them. */
#define LIMIT_NAME_BYTES             (256)
#define LIMIT_NOTE_BYTES             (1024)
#define LIMIT_MESSAGE_BYTES          (512)
#define LIMIT_PATH_BYTES             (4096) /* PATH_MAX */
#define LIMIT_TAGS                   (16)

/* A job. Open Job Description caps a step's parameters at 16; the rest are ours. */
#define LIMIT_STEPS                  (256)
#define LIMIT_PARAMETERS             (64)
#define LIMIT_SPACE_PARAMETERS       (16)
#define LIMIT_SPACE_RANGES           (1024)
#define LIMIT_SPACE_VALUES           (1024) /* values of a STRING or PATH list */
#define LIMIT_TASKS_PER_STEP         (1ULL << 27) /* 134 million */
#define LIMIT_TILES                  (256) /* of a frame: whoever joins them has each file open */
#define LIMIT_DEPENDENCIES           (64)
#define LIMIT_AMOUNTS                (32)
#define LIMIT_ATTRIBUTES             (32)
#define LIMIT_ATTRIBUTE_VALUES       (50)
#define LIMIT_ROOTS                  (64)
#define LIMIT_OUTPUTS                (64)
#define LIMIT_PATTERNS               (256)  /* of one root that a step reads in part */
#define LIMIT_FILES_EMBEDDED         (64)
#define LIMIT_ENVIRONMENTS           (16)
#define LIMIT_VARIABLES              (256)
#define LIMIT_ARGUMENTS              (1024)
#define LIMIT_TEXT_BYTES             (32 * 1024) /* one argument, value or embedded file */
#define LIMIT_RANGES_VERB            (256)  /* ranges in one retry, cancel or log request */
#define LIMIT_PIECES_VERB            (16384) /* runs of tasks they come to: 1-32768x2 */
#define LIMIT_RANGES_EDIT            (4096) /* runs of tasks that the frames of one edit come to */
#define LIMIT_RUNS_DELIVERED         (1024) /* runs of results in one acknowledgement */

/* The farm. */
#define LIMIT_STUDIOS                (4096)
#define LIMIT_CLASSES                (4096)
#define LIMIT_WORKERS                (65536)
#define LIMIT_GPUS                   (32) /* one bit each in a lease's card mask */
#define LIMIT_SOFTWARE               (256) /* names and versions the whole farm tells of */
#define LIMIT_SLOTS                  (256)
#define LIMIT_PREFETCH               (64)
#define LIMIT_INVENTORY              (256) /* leases in one inventory message */
#define LIMIT_LEASES                 (1u << 20)
#define LIMIT_JOBS                   (1u << 20)
#define LIMIT_PAGE                   (200) /* rows in one page of a list */
#define LIMIT_UPLOADS                (32)  /* of one studio that the broker lists; the oldest makes room */
#define LIMIT_TEND_WORKERS           (128) /* in one operator's request: its answer names each */
#define LIMIT_MESSAGES_PER_S         (1000) /* heard of one person's key; a quarter of them at once */
#define LIMIT_STUDIO_KEYS            (4)    /* so many times that of all keys of a studio together */
#define LIMIT_WORKER_MESSAGES_PER_S  (2000) /* 256 slots' progress, four times a second, and as much again */
#define LIMIT_LEASE_MESSAGES         (8)    /* more for each lease: that it starts, its result, passes, pages */
#define LIMIT_WORKER_MESSAGES        (1u << 17) /* at once: eight of every lease that one may hold */
#define LIMIT_RESULTS_PAGE           (48)  /* rows of up to ~1.3 KiB, mostly; 64 KiB end a page, too */

/* Time. */
#define LIMIT_LEASE_NS               (30LL * 1000000000) /* silence after which a lease lapses */
#define LIMIT_BEAT_NS                (5LL * 1000000000)
#define LIMIT_RECONNECT_NS           (60LL * 1000000000) /* a noted task waits for its worker */
#define LIMIT_NOTE_AFTER_NS          (2LL * 1000000000)  /* a lease this old is noted */
#define LIMIT_LICENCE_NS             (30LL * 1000000000) /* first wait for one; doubled each time */
#define LIMIT_UPLOAD_SILENT_NS       (10LL * 1000000000) /* ten words missed: it has stopped */
#define LIMIT_UPLOAD_KEPT_NS         (86400LL * 1000000000) /* as long as its blocks are safe */
#define LIMIT_TASK_S                 (7 * 86400) /* the longest timeout a job may ask for */
#define LIMIT_RETAIN_DELIVERED_S     (7 * 86400)  /* a job is kept after its last delivery */
#define LIMIT_RETAIN_S               (30 * 86400) /* one whose results are not all delivered */
#define LIMIT_RETAIN_REQUESTS_S      (30 * 86400) /* its requests, after the job is gone */
#define LIMIT_FORGET_EVERY_S         (3600) /* jobs are forgotten together, once in so long */
#define LIMIT_CLOCK_SLACK_S          (3600) /* a clock that is this far off has been set */
#define LIMIT_GRACE_NS               (24LL * 3600 * 1000000000) /* a block nobody refers to (yet) */

/* Failing. */
#define LIMIT_ATTEMPTS_FAILED        (3)  /* on different workers, where the farm has them */
#define LIMIT_JOB_FAILED             (10) /* failed tasks after which a job pauses itself */
#define LIMIT_JOB_FAILED_FIRST       (3)  /* failed attempts before any success, likewise */
#define LIMIT_ASIDE_TASKS            (5)  /* different ones failed in a row: the worker is set aside */
#define LIMIT_ASIDE_S                (60) /* for so long; twice as long each further time */
#define LIMIT_ASIDE_MAX_S            (3600)
