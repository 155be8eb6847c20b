/* session.h - one task run as Open Job Description runs it: environments entered, the action, the
 * environments left in reverse, and every process of it gone afterwards.
 *
 * The call blocks its thread (one thread a running task). It makes embedded files, resolves format
 * strings, maps paths, spawns in a process group of its own with the parent-death signal, enforces
 * timeouts, and reads the output for openjd_progress:, openjd_status:, openjd_fail: and openjd_env:
 * lines and the renderers' own progress.
 *
 * Owns:    the folder and what is in it stay the caller's. struct session_result owns its log.
 * Errors:  -errno where the session could not even be made; a task that fails is a 0 with a class.
 * Source:  Open Job Description "How Jobs Are Run"; ../README.md "Jobs".
 */
#pragma once

#include <stdatomic.h>
#include <proto/base/bytes.h>
#include <proto/space.h>
#include <proto/state.h>
#include <proto/westlight.pb-c.h>
#include <worker/probe.h>

/* A studio's path and where it lies here; the longest matching `from` wins. */
struct session_map {
    const char *from;
    uint32_t style; /* 0 POSIX, 1 Windows */
    const char *to;
};

struct session_config {
    const Wl__Recipe *recipe;
    uint32_t step;
    const struct space *space;
    uint64_t task;
    const char *folder;          /* absolute, no link in it, with a tmp/; {{Session.WorkingDirectory}} */
    const struct session_map *maps;
    size_t n_maps;
    uint32_t vcpus;              /* 0: all; exported as OMP_NUM_THREADS and {{Lease.VCPUs}} */
    uint64_t memory_bytes;       /* 0: no limit */
    const struct probe_software *software; /* what there is to run a step's software with */
    size_t n_software;
    const char *cards;           /* CUDA_VISIBLE_DEVICES, "" hides all */
    const char *driver_folder;   /* of the cards, as the probe says */
    const atomic_bool *stop;     /* becomes true: SIGTERM, then SIGKILL after the notify period */
    /* All is prepared: returns when it may begin. Other than 0 ends the session with that; NULL: 0. */
    int (*on_ready)(void *user);
    void (*on_started)(void *user, bool over);      /* the action's process runs, or did */
    void (*on_ended)(void *user);                   /* nothing of it runs any more; its log comes */
    void (*on_text)(void *user, const char *text, size_t size); /* output as it comes */
    void (*on_progress)(void *user, uint32_t permille, const char *status);
    void *user;
};

struct session_result {
    enum attempt_class class;
    int exit_status;             /* of the action; 128 + n for signal n */
    char message[LIMIT_MESSAGE_BYTES]; /* why it failed: the thing, the reason, the next step */
    uint64_t wall_ns, cpu_ns, memory_bytes;
    struct bytes log;            /* head and tail, at most LIMIT_LOG_BYTES, the gap said */
};

/* Other than 0 is what on_ready said, or negative. */
int session_run(const struct session_config *config, struct session_result *ret_result);
void session_result_deinit(struct session_result *result);
/* Where a studio's path lies here; false (and nothing written) where no map matches. */
bool session_map_path(const struct session_map *maps, size_t n_maps, const char *path, char *ret_path, size_t size);
